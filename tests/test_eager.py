"""Coroutines that start at once."""

import asyncio
from collections.abc import Awaitable

import pytest

from authmilter import eager


async def test_what_never_waits_is_done_at_once() -> None:
    async def work() -> int:
        return 7

    future = eager.start(work())
    assert future.done()
    assert not isinstance(future, asyncio.Task)
    assert await future == 7


async def test_an_exception_before_the_first_wait_is_kept_for_whoever_asks() -> None:
    async def work() -> None:
        raise ValueError("broken")

    future = eager.start(work())
    assert future.done()
    with pytest.raises(ValueError, match="broken"):
        await future


async def test_what_waits_goes_on_as_a_task() -> None:
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seen = []

    async def work() -> int:
        seen.append("begun")
        value = await gate
        await asyncio.sleep(0)
        return value + await gate

    future = eager.start(work())
    assert seen == ["begun"]
    assert not future.done()
    gate.set_result(4)
    assert await future == 8


async def test_a_wait_that_is_over_before_the_task_begins_is_seen() -> None:
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await gate

    future = eager.start(work())
    gate.set_exception(ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        await future


async def test_a_cancelled_task_cleans_up_and_is_cancelled() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    future = eager.start(work())
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert cleaned == [True]


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_nothing_behind() -> None:
    cleaned = []
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            await gate
        finally:
            cleaned.append(True)

    future = eager.start(work())
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert cleaned == [True]
    assert gate.cancelled()


async def test_a_coroutine_may_outlive_a_cancellation() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "done all the same"

    future = eager.start(work())
    await asyncio.sleep(0)
    future.cancel()
    assert await future == "done all the same"


async def test_a_timeout_after_the_first_wait_ends_the_wait_alone() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "in time"
        return "never"

    assert await eager.start(work()) == "in time"


async def test_many_may_be_waited_for_together() -> None:
    async def work(number: int) -> int:
        if number % 2:
            await asyncio.sleep(0)
        return number

    started: list[Awaitable[int]] = [eager.start(work(number)) for number in range(6)]
    assert await asyncio.gather(*started) == list(range(6))
