"""Coroutines that start at once, in the turn of whoever starts them.

Most of what a message needs is known already: its DNS answers are cached.  A task would put each such computation off to
a later turn of the event loop, at some 10 us each.  (Python 3.12 has eager tasks; this does the same on 3.11.)
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def start(coroutine: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
    """Run the coroutine up to its first wait; returns a future that is done, or the task that goes on from there.

    Up to the first wait it runs in the task of the caller, if there is one: `asyncio.timeout` and whatever else asks for
    the current task must come after it.
    """
    loop = asyncio.get_running_loop()
    try:
        waited = coroutine.send(None)
    except StopIteration as stop:
        future: asyncio.Future[T] = loop.create_future()
        future.set_result(stop.value)
        return future
    except asyncio.CancelledError:
        cancelled: asyncio.Future[T] = loop.create_future()
        cancelled.cancel()
        return cancelled
    except Exception as error:
        failed: asyncio.Future[T] = loop.create_future()
        failed.set_exception(error)
        return failed
    task = loop.create_task(_go_on(coroutine, waited))
    task.add_done_callback(partial(_leave, coroutine, waited))
    return task


def _leave(coroutine: Coroutine[Any, Any, Any], waited: Any, _: object) -> None:
    """A task that was cancelled before its first step has not told the coroutine."""
    if getattr(coroutine, "cr_frame", None) is not None:
        coroutine.close()
        if asyncio.isfuture(waited):
            waited.cancel()


async def _go_on(coroutine: Coroutine[Any, Any, T], waited: Any) -> T:
    return await _rest(coroutine, waited)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """Pass on what the coroutine waits for, beginning with `waited`, and what comes of it."""
    while True:
        thrown: BaseException | None = None
        try:
            yield waited  # a task sends nothing but None
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            thrown = error
        try:
            waited = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
