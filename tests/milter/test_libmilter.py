"""What the libmilter engine does between libmilter's threads and the event loop."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any, cast

import milter
import pytest

from authmilter.milter.libmilter import LibmilterEngine, _Connection, _stay_on_one_cpu
from authmilter.model import Stage
from authmilter.verdict import CONTINUE, Action, Reply, Verdict
from tests.milter.client import MilterClient
from tests.milter.recording import RecordingSession, Server

ALL = [stage.label for stage in Stage]
FULL = 65535


class Context:
    """What a connection needs of pymilter's context."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def getsymval(self, name: str) -> str | None:
        return "4b0A" if name == "i" else None

    def setpriv(self, value: object) -> None:
        self.said.append(("setpriv", value))

    def setreply(self, *reply: Any) -> None:
        self.said.append(("setreply", *reply))

    def setsymlist(self, stage: int, names: str) -> None:
        pass

    def progress(self) -> None:
        self.said.append(("progress",))


class Line:
    """A connection without libmilter, on the event loop of the test."""

    def __init__(self, make: type[RecordingSession] = RecordingSession, *answers: str, **settings: Any) -> None:
        self.calls: list[list[Any]] = []
        self.failures: list[str] = []
        self.session = make(self.calls.append, 1, answers)
        self.engine = LibmilterEngine(
            lambda: self.session,
            on_failure=lambda: self.failures.append("failure"),
            **{"idle_timeout": 10, "on_error": "tempfail", **settings},
        )
        self.loop = asyncio.get_running_loop()
        self.engine.loop = cast(asyncio.AbstractEventLoop, self)
        self.wakes: list[Callable[..., object]] = []
        self.context = Context()
        self.connection = _Connection(self.engine, self.context)
        # One thread, so that a test that fails does not leave callbacks of one connection side by side.
        self.threads = ThreadPoolExecutor(1)
        self.connection.negotiate([0x1FF, 0x1FFFFF, 0, 0])

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """Stands in for the loop's."""
        self.wakes.append(callback)
        self.loop.call_soon_threadsafe(callback, *args)

    def heard(self) -> list[str]:
        return [call[1] for call in self.calls]

    def start(self, callback: Callable[..., int], *args: Any) -> "Future[int]":
        """On a thread, as libmilter does."""
        return self.threads.submit(copy_context().run, callback, *args)

    async def ask(self, callback: Callable[..., int], *args: Any) -> int:
        return await asyncio.wait_for(asyncio.wrap_future(self.start(callback, *args)), 10)

    async def greet(self) -> None:
        """Up to the end of the header section."""
        await self.ask(self.connection.connect, "client.example", 2, ("192.0.2.7", 40000))
        await self.ask(self.connection.helo, "client.example")
        await self.ask(self.connection.mail, b"<a@example.org>")
        await self.ask(self.connection.end_of_headers)


@pytest.fixture
def line() -> Iterator[Callable[..., Line]]:
    with ExitStack() as stack:

        def make(*args: Any, **settings: Any) -> Line:
            line = Line(*args, **settings)
            stack.callback(line.threads.shutdown, wait=False, cancel_futures=True)
            return line

        yield make


NewLine = Callable[..., Line]


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_silent_stages_are_not_waited_for_and_wake_the_loop_once(line: NewLine) -> None:
    it = line()
    await _turns()
    it.wakes.clear()
    # On the thread of the loop, where a callback that waits would wait for ever.
    answers = [
        it.connection.connect("client.example", 2, ("192.0.2.7", 40000)),
        it.connection.helo("client.example"),
        it.connection.rcpt(b"<b@example.net>"),
        it.connection.data(),
        it.connection.header("Subject", b" test"),
        it.connection.end_of_headers(),
    ]
    assert answers == [milter.NOREPLY] * 6
    assert it.calls == []
    assert len(it.wakes) == 1
    await _turns()
    assert it.heard() == ["connect", "helo"]  # there was no MAIL
    it.connection.abort()
    assert len(it.wakes) == 2


async def test_facts_are_heard_in_their_order(line: NewLine) -> None:
    it = line()
    await it.greet()
    it.connection.header("A", b" 1")
    it.connection.header("B", b" 2")
    it.connection.lost(b"\xff")
    it.connection.header("C", b" 3")
    it.connection.body(b"x")
    it.connection.abort()
    it.connection.close()
    await _turns()
    assert it.heard()[4:] == ["header", "header", "header_cut", "header", "body", "abort", "close"]
    assert it.engine.active == 0
    assert it.context.said == [("setpriv", None)]


async def test_mail_is_heard_before_the_callback_returns_though_it_is_not_answered(line: NewLine) -> None:
    it = line()
    assert await it.ask(it.connection.mail, b"<a@example.org>") == milter.NOREPLY
    done = it.start(it.connection.mail, b"<a@example.org>")
    with pytest.raises(TimeoutError):
        done.result(0.1)  # the loop has no turn meanwhile
    await asyncio.wrap_future(done)
    assert it.heard() == ["mail", "abort", "mail"]


class Waiting(RecordingSession):
    """Waits at RCPT."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.go_on = asyncio.Event()

    async def rcpt(self, *args: Any) -> Verdict:
        await self.go_on.wait()
        return await super().rcpt(*args)


async def test_what_is_told_while_the_session_waits_is_heard_afterwards(line: NewLine) -> None:
    it = line(Waiting)
    await it.greet()
    it.connection.rcpt(b"<b@example.net>")
    await _turns()
    it.connection.data()
    it.connection.header("A", b" 1")
    it.connection.end_of_headers()
    await _turns()
    assert it.heard()[4:] == []
    cast(Waiting, it.session).go_on.set()
    await _turns()
    assert it.heard()[4:] == ["rcpt", "data", "header", "end_of_headers"]


async def test_small_chunks_are_waited_for_only_when_they_add_up(line: NewLine) -> None:
    it = line()
    await it.greet()
    for _ in range(3):
        assert it.connection.body(b"x" * 20000) == milter.CONTINUE  # does not wait
    done = it.start(it.connection.body, b"x" * 20000)
    with pytest.raises(TimeoutError):
        done.result(0.1)
    assert await asyncio.wrap_future(done) == milter.CONTINUE
    assert [call[2] for call in it.calls if call[1] == "body"] == [20000] * 4
    assert it.connection.body(b"x" * 20000) == milter.CONTINUE


@pytest.mark.parametrize(
    ("value", "fields"), [(b"x" * 20000, 4), (b"", 400)], ids=["large fields", "many empty fields"]
)
async def test_fields_are_waited_for_only_when_they_add_up(line: NewLine, value: bytes, fields: int) -> None:
    it = line()
    await it.ask(it.connection.mail, b"<a@example.org>")

    def send() -> int:
        return [it.connection.header("X", value) for _ in range(fields)][-1]

    it.connection.header("X", value)  # does not wait
    done = it.start(send)
    with pytest.raises(TimeoutError):
        done.result(0.1)
    assert await asyncio.wrap_future(done) == milter.NOREPLY
    await it.ask(it.connection.end_of_headers)
    await _turns()
    assert it.heard() == ["mail", *["header"] * (fields + 1), "end_of_headers"]


async def test_a_message_that_ends_early_does_not_count_for_the_next(line: NewLine) -> None:
    it = line()
    await it.greet()
    it.connection.body(b"x" * (FULL - 1))
    it.connection.abort()
    await it.ask(it.connection.mail, b"<a@example.org>")
    assert it.connection.body(b"x" * (FULL - 1)) == milter.CONTINUE  # does not wait


@pytest.mark.parametrize(
    ("size", "answer"), [(FULL, milter.SKIP), (FULL - 1, milter.CONTINUE)], ids=["a full chunk", "one that EOM follows"]
)
async def test_a_declined_body_is_skipped_at_a_full_chunk(line: NewLine, size: int, answer: int) -> None:
    it = line()
    await it.greet()
    it.session.deeds["body"] = "decline"
    assert await it.ask(it.connection.body, b"x" * size) == answer
    assert await it.ask(it.connection.body, b"x" * FULL) == milter.SKIP


class Cancelled(RecordingSession):
    """Something below cancels what HELO waits for."""

    async def helo(self, *args: Any) -> Verdict:
        await super().helo(*args)
        raise asyncio.CancelledError


@pytest.mark.parametrize(("on_error", "answer"), [("tempfail", milter.TEMPFAIL), ("accept", milter.CONTINUE)])
async def test_a_cancelled_stage_is_answered_and_the_connection_goes_on(
    line: NewLine, on_error: str, answer: int
) -> None:
    it = line(Cancelled, *ALL, on_error=on_error)
    assert await it.ask(it.connection.helo, "client.example") == answer
    assert it.failures == ["failure"]
    assert await it.ask(it.connection.mail, b"<a@example.org>") == milter.CONTINUE
    assert it.heard() == ["helo", "mail"]


class Slow(RecordingSession):
    """Thinks at MAIL and at the end of the message."""

    async def mail(self, *args: Any) -> Verdict:
        await asyncio.sleep(0.15)
        return CONTINUE

    async def end_of_message(self, *args: Any) -> Verdict:
        await asyncio.sleep(0.15)
        return Verdict(Action.REJECT, Reply(550, "5.7.1", "no"))


async def test_progress_is_told_at_the_end_of_the_message_alone(line: NewLine) -> None:
    it = line(Slow, *ALL, progress_interval=0.05)
    await it.ask(it.connection.mail, b"<a@example.org>")
    assert it.context.said == []  # libmilter allows it at no other stage
    assert await it.ask(it.connection.end_of_message) == milter.REJECT
    assert it.context.said[0] == ("progress",)
    assert it.context.said[-1] == ("setreply", "550", "5.7.1", "no")


bound = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no thread to a CPU")


@bound
def test_workers_with_slots_in_a_row_use_all_cpus_in_turn() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    chosen: list[set[int]] = []

    def choose(slot: int) -> None:  # in a thread that ends with it: the choice holds for the thread that makes it
        _stay_on_one_cpu(slot)
        chosen.append(os.sched_getaffinity(0))

    for slot in range(7, 7 + len(cpus)):
        thread = threading.Thread(target=choose, args=[slot])
        thread.start()
        thread.join()
    assert all(len(those) == 1 for those in chosen)
    assert sorted(set[int]().union(*chosen)) == cpus
    assert sorted(os.sched_getaffinity(0)) == cpus


@bound
def test_all_threads_of_a_worker_share_its_cpu(tmp_path: Path) -> None:
    server = Server("libmilter", f"unix:{tmp_path}/s", slot=3)
    try:
        with MilterClient(server.address) as mta:
            mta.negotiate()
            mta.connect()
            threads = [int(thread) for thread in os.listdir(f"/proc/{server.process.pid}/task")]
            used = set[int]().union(*(os.sched_getaffinity(thread) for thread in threads))
            mta.quit()
    finally:
        server.close()
    assert len(threads) > 2
    assert len(used) == 1
