"""Coroutines that start at once, in the turn of whoever starts them.

Most of what a message needs is known already: its DNS answers are cached.  A task would put each such computation off to
a later turn of the event loop, at some 10 us each.  (Python 3.12 has eager tasks; this does the same on 3.11.)
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """What is done already, with the part of a future's interface that is used of it; a future costs several times more."""

    __slots__ = ("_error", "_value")

    def __init__(self, value: Any, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return isinstance(self._error, asyncio.CancelledError)

    def cancel(self) -> bool:
        return False

    def result(self) -> T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # else the frames of the error hold it, and it the error
        return self._value  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            return self.result()
        finally:
            del self
        yield  # makes it a generator, which is what "await" asks for


def start(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T] | Done[T]":
    """Run the coroutine up to its first wait; returns what came of it, or the task that goes on from there.

    Up to the first wait it runs in the task of the caller, if there is one: `asyncio.timeout` and whatever else asks for
    the current task must come after it.
    """
    try:
        waited = coroutine.send(None)
    except StopIteration as stop:
        return Done(stop.value)
    except (Exception, asyncio.CancelledError) as error:
        return Done(None, error)
    loop = asyncio.get_running_loop()
    task = loop.create_task(_go_on(coroutine, waited))
    task.add_done_callback(partial(_leave, coroutine, waited))
    return task


def _leave(coroutine: Coroutine[Any, Any, Any], waited: Any, _: object) -> None:
    """A task that was cancelled before its first step has not told the coroutine."""
    if getattr(coroutine, "cr_frame", None) is not None:
        _stop(coroutine)
        if asyncio.isfuture(waited):
            waited.cancel()


def _stop(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Cancel it.  To close it at once would leave an asynchronous generator in it that thinks that it still runs."""
    try:
        coroutine.throw(asyncio.CancelledError())
    except (StopIteration, asyncio.CancelledError):
        pass
    else:
        coroutine.close()


async def _go_on(coroutine: Coroutine[Any, Any, T], waited: Any) -> T:
    rest = _rest(coroutine, waited)
    del waited
    return await rest


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """Pass on what the coroutine waits for, beginning with `waited`, and what comes of it.

    When an error passes through, the frame knows neither it nor what has raised it: they would hold each other, and all
    that the coroutine had, until the cyclic collector runs.
    """
    thrown: BaseException | None = None
    while True:
        try:
            yield waited  # a task sends nothing but None
        except GeneratorExit:
            _stop(coroutine)
            raise
        except BaseException as error:
            thrown = error
        waited = None
        try:
            waited = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            thrown = None
