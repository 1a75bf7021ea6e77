"""What only the native engine does, on the event loop of the test."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from authmilter.milter import wire
from authmilter.milter.engine import TOO_BUSY, Bounds
from authmilter.milter.native import NativeEngine
from authmilter.milter.turns import Turns, client_key
from authmilter.model import Stage
from tests.milter.client import ClosedError, MilterClient, Outcome, Reply, pack
from tests.milter.recording import RecordingSession, address_of, listen

Run = Callable[[Callable[[str], Any]], Awaitable[Any]]


class Running:
    """An engine and what its sessions heard."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[list[Any]] = []
        self.ended = asyncio.Event()
        options = {"idle_timeout": 60.0, "on_error": "tempfail", **options}
        self.engine = NativeEngine(self._session, **options)
        self.address = ""

    def _session(self) -> RecordingSession:
        return RecordingSession(self._tell, 1, [stage.label for stage in Stage])

    def _tell(self, call: list[Any]) -> None:
        self.calls.append(call[1:])
        if call[1] == "close":
            self.ended.set()

    async def start(self, address: str) -> None:
        sock = listen(address)
        self.address = address_of(sock)
        await self.engine.serve([sock])


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Starts an engine over a unix socket, or another `family`."""
    all_running: list[Running] = []

    async def start(family: str = "unix", **options: Any) -> Running:
        running = Running(**options)
        all_running.append(running)
        await running.start(f"{family}:{tmp_path}/milter")
        return running

    yield start
    for running in all_running:
        await running.engine.drain(0)


Started = Callable[..., Awaitable[Running]]


def _begin(address: str) -> MilterClient:
    mta = MilterClient(address)
    mta.negotiate()
    mta.connect()
    mta.helo()
    return mta


async def test_a_header_packet_over_4_mb_is_cut_and_said_so(started: Started) -> None:
    running = await started()

    def talk() -> None:
        with _begin(running.address) as mta:
            fields = [(b"X-Long", b" " + b"v" * 5_000_000), (b"Subject", b" test")]
            assert mta.message(fields=fields).final == Reply("c")
            mta.quit()

    await asyncio.to_thread(talk)
    await running.ended.wait()
    assert [call for call in running.calls if call[0].startswith("header")] == [
        ["header_cut", b"X-Long", 4 * 1024 * 1024 - 1],
        ["header", b"Subject", b" test"],
    ]


async def test_a_body_packet_over_4_mb_reaches_the_session_whole(started: Started) -> None:
    running = await started()

    def talk() -> None:
        with _begin(running.address) as mta:
            assert mta.message(body=b"v" * 9_000_000, chunk=9_000_000).final == Reply("c")
            mta.quit()

    await asyncio.to_thread(talk)
    await running.ended.wait()
    assert sum(
        call[1] if isinstance(call[1], int) else len(call[1]) for call in running.calls if call[0] == "body"
    ) == (9_000_000)


async def test_a_packet_of_4_gb_ends_the_connection_at_once(started: Started) -> None:
    running = await started()

    def talk() -> None:
        with _begin(running.address) as mta:
            mta.socket.sendall(struct.pack(">I", 0xFFFFFFFF) + b"B")
            assert mta.receive().letter == "t"  # never without an answer
            with pytest.raises(ClosedError):
                mta.receive()

    await asyncio.to_thread(talk)
    await running.ended.wait()


async def test_a_command_before_the_negotiation_ends_the_connection(started: Started) -> None:
    running = await started()

    def talk() -> None:
        with MilterClient(running.address) as mta, pytest.raises(ClosedError):
            mta.connect()

    await asyncio.to_thread(talk)
    assert running.calls == []


async def test_one_octet_at_a_time(started: Started) -> None:
    running = await started("inet")

    def talk() -> None:
        with _begin(running.address) as mta:
            octets = pack("M", b"<a@example.org>\0") + pack("R", b"<b@example.net>\0") + pack("N") + pack("E")
            for octet in octets:
                mta.socket.sendall(bytes([octet]))
            assert [mta.receive() for _ in range(4)] == [Reply("c")] * 4
            mta.quit()

    await asyncio.to_thread(talk)
    await running.ended.wait()
    assert [call[0] for call in running.calls][2:] == ["mail", "rcpt", "end_of_headers", "end_of_message", "close"]


async def test_every_packet_that_waits_for_an_answer_gets_one(started: Started) -> None:
    running = await started()
    for seed in range(40):
        chance = random.Random(seed)
        letters = "".join(chance.choices("CHMRTLNBEUZADKO"[: 14 if seed % 2 else 11], k=60))
        octets = pack("O", struct.pack(">III", 6, 0x1FF, 0x100100))
        for letter in letters:
            octets += pack(letter, struct.pack(">III", 6, 0x1FF, 0x100100) if letter == "O" else chance.randbytes(20))
        reader, writer = await asyncio.open_unix_connection(running.address.removeprefix("unix:"))
        writer.write(octets + pack("Q"))
        said = [chr(letter) for letter, _, _ in wire.Packets().feed(await asyncio.wait_for(reader.read(), 5))]
        assert len(said) == 1 + sum(letter not in "ADK" for letter in letters), letters
        assert set(said) <= {"O", "c"}
        writer.close()
        await writer.wait_closed()


async def test_edits_and_verdict_leave_in_one_piece(started: Started) -> None:
    running = await started("inet")

    def talk() -> bytes:
        with _begin(running.address) as mta:
            mta.mail(b"<a@example.org>", b"eom=edit")
            mta.send("E")
            data = mta.socket.recv(65536)
            mta.quit()
            return data

    data = await asyncio.to_thread(talk)
    assert data.endswith(pack("c"))
    assert data.count(b"Authentication-Results\0") == 3


async def test_accepted_connections_do_not_wait_for_acknowledgements(started: Started) -> None:
    running = await started("inet")
    reader, writer = await asyncio.open_connection(*_tcp(running.address))
    writer.write(pack("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)))
    await reader.readexactly(4)
    (connection,) = running.engine._connections
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    writer.close()
    await writer.wait_closed()


def _tcp(address: str) -> tuple[str, int]:
    port, _, host = address.partition(":")[2].partition("@")
    return host, int(port)


async def test_a_silent_connection_is_closed_and_a_busy_one_is_not(started: Started) -> None:
    running = await started(idle_timeout=0.2)

    def silent() -> None:
        with _begin(running.address) as mta, pytest.raises(ClosedError):
            mta.receive()

    def busy() -> None:
        with _begin(running.address) as mta:
            mta.mail(b"<a@example.org>", b"eom=sleep")
            assert mta.end_of_message().final == Reply("c")
            mta.quit()

    await asyncio.gather(asyncio.to_thread(silent), asyncio.to_thread(busy))
    assert ["end_of_message", {}] in running.calls


async def test_a_busy_session_holds_the_mta_up(started: Started) -> None:
    running = await started()
    reader, writer = await asyncio.open_unix_connection(running.address.removeprefix("unix:"))
    writer.write(pack("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)) + pack("M", b"<a@b>\0eom=sleep\0") + pack("E"))
    writer.write(pack("Z", b"x" * 60_000) * 400)
    await reader.readexactly(4)
    await asyncio.sleep(0.15)
    (connection,) = running.engine._connections
    assert connection._paused
    assert connection._inbox_size < 1_000_000
    await asyncio.wait_for(writer.drain(), 5)
    writer.write(pack("Q"))
    said = await asyncio.wait_for(reader.read(), 5)
    assert said.count(pack("c")) == 402
    writer.close()
    await writer.wait_closed()


async def test_an_mta_that_reads_no_replies_is_held_up_and_closed(started: Started) -> None:
    running = await started(idle_timeout=0.5)
    reader, writer = await asyncio.open_unix_connection(running.address.removeprefix("unix:"), limit=1000)
    writer.write(pack("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)))
    unknown = pack("Z") * 10_000

    async def flood() -> None:
        while True:
            writer.write(unknown)
            await writer.drain()

    with pytest.raises((ConnectionError, TimeoutError)):
        await asyncio.wait_for(flood(), 10)
    assert running.engine.active == 0
    writer.close()
    del reader


# Many at once


def _ask(mta: MilterClient) -> str:
    """Negotiate and connect; returns the answer to CONNECT."""
    mta.negotiate()
    reply = mta.connect()
    assert reply is not None
    return reply.data.rstrip(b"\0").decode() if reply.letter == "y" else reply.letter


async def test_what_is_beyond_the_bounds_waits_or_is_refused(started: Started) -> None:
    refused: list[int] = []
    running = await started(bounds=Bounds(served=2, waiting=1), on_overload=lambda: refused.append(1))
    async with contextlib.AsyncExitStack() as stack:
        mtas = [stack.enter_context(MilterClient(running.address)) for _ in range(5)]
        answers = [asyncio.create_task(asyncio.to_thread(_ask, mta)) for mta in mtas]
        await asyncio.wait([answers[i] for i in (0, 1, 3, 4)], timeout=5)
        assert [answers[i].result() for i in (0, 1)] == ["c", "c"]
        assert [answers[i].result() for i in (3, 4)] == ["421 4.3.2 Too busy, try again later"] * 2
        assert refused == [1, 1]
        assert not answers[2].done(), "it waits"
        mtas[3].quit()
        await asyncio.sleep(0.05)
        assert not answers[2].done(), "the end of one that was refused makes no room"
        mtas[0].quit()
        assert await asyncio.wait_for(answers[2], 5) == "c"
        assert await asyncio.to_thread(mtas[2].helo) == Reply("c")
    await asyncio.sleep(0.1)
    assert (running.engine._served, len(running.engine._queue), running.engine.active) == (0, 0, 0)


async def test_one_that_waits_may_go_and_makes_room(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=1))
    with MilterClient(running.address) as first:
        assert await asyncio.to_thread(_ask, first) == "c"
        with MilterClient(running.address) as second:
            second.send("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))
            await asyncio.sleep(0.1)
            assert len(running.engine._queue) == 1
        await asyncio.sleep(0.1)
        assert not running.engine._queue
        with MilterClient(running.address) as third:
            answer = asyncio.create_task(asyncio.to_thread(_ask, third))
            await asyncio.sleep(0.1)
            first.quit()
            assert await asyncio.wait_for(answer, 5) == "c"


async def test_one_that_waits_is_not_taken_for_silent(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=1), idle_timeout=0.3)
    with MilterClient(running.address) as first, MilterClient(running.address) as second:
        assert await asyncio.to_thread(_ask, first) == "c"
        answer = asyncio.create_task(asyncio.to_thread(_ask, second))
        for _ in range(20):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(first.helo)
        assert not answer.done()
        first.quit()
        assert await asyncio.wait_for(answer, 5) == "c"


async def test_more_places_are_given_to_those_who_wait_first(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=2))
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(MilterClient(running.address)) for _ in range(3))
        assert await asyncio.to_thread(_ask, first) == "c"
        waits = asyncio.create_task(asyncio.to_thread(_ask, second))
        await asyncio.sleep(0.05)
        later = asyncio.create_task(asyncio.to_thread(_ask, third))
        await asyncio.sleep(0.05)
        running.engine.set_bounds(Bounds(served=2, waiting=2))
        assert await asyncio.wait_for(waits, 5) == "c"
        assert not later.done()


async def test_who_was_refused_may_come_again(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=0))
    with MilterClient(running.address) as first, MilterClient(running.address) as second:
        assert await asyncio.to_thread(_ask, first) == "c"
        assert (await asyncio.to_thread(_ask, second)).startswith("421")
        second.send("K")
        with pytest.raises((ClosedError, ConnectionError)):
            await asyncio.to_thread(second.receive)


async def test_the_refused_are_bounded_too(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=1))
    with contextlib.ExitStack() as stack:
        for _ in range(130):
            stack.enter_context(MilterClient(running.address))
        await asyncio.sleep(0.3)
        assert running.engine.active == 1 + 1 + 2 + 100
        assert running.engine._refused == 102


async def test_a_refusal_stands_until_the_mta_leaves(started: Started) -> None:
    running = await started(bounds=Bounds(served=0, waiting=0, reply=TOO_BUSY._replace(code=451)))

    def talk() -> list[Reply | None]:
        with MilterClient(running.address) as mta:
            mta.negotiate()
            mta.connect()
            mta.helo()
            said = [mta.mail(b"<a@example.org>"), mta.mail(b"<a@example.org>")]
            mta.quit()
            return said

    assert await asyncio.to_thread(talk) == [Reply("y", b"451 4.3.2 Too busy, try again later\0")] * 2
    assert running.calls == []


async def test_what_is_said_while_it_waits_is_heard_later(started: Started) -> None:
    running = await started(bounds=Bounds(served=1, waiting=5))
    with MilterClient(running.address) as first, MilterClient(running.address) as second:
        assert await asyncio.to_thread(_ask, first) == "c"
        later = asyncio.create_task(asyncio.to_thread(_whole, second))
        await asyncio.sleep(0.1)
        first.quit()
        assert (await later).final == Reply("c")


def _whole(mta: MilterClient) -> Outcome:
    mta.negotiate()
    mta.connect()
    mta.helo()
    return mta.message()


async def test_a_client_has_one_turn_in_each_round_of_the_loop() -> None:
    turns = Turns()
    order: list[str] = []

    async def work(client: bytes, name: str) -> None:
        for part in range(3):
            turn = turns.take(client)
            if turn is not None:
                await turn
            order.append(f"{name}{part}")
            await asyncio.sleep(0)

    await asyncio.gather(*(work(b"busy", name) for name in "abcdef"), work(b"quiet", "Q"))
    rounds = [order.index(f"Q{part}") for part in range(3)]
    # Before the third part of the quiet one, the busy one had some three turns of its 18.
    assert rounds[2] <= 6, order
    assert len(order) == 21
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turns._waiting


async def test_a_connection_that_goes_leaves_the_queue_for_turns() -> None:
    turns = Turns()
    assert turns.take(b"a") is None
    gone, stays = turns.take(b"a"), turns.take(b"a")
    assert gone is not None
    assert stays is not None
    gone.cancel()
    await asyncio.wait_for(stays, 1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("4", b"192.0.2.1"), ("4", b"192.0.2.1"), True),
        (("4", b"192.0.2.1"), ("4", b"192.0.2.2"), False),
        (("6", b"2001:db8:0:1::1"), ("6", b"2001:DB8::1:ffff:0:0:9"), True),
        (("6", b"2001:db8:0:1::1"), ("6", b"2001:db8:0:2::1"), False),
        (("6", b"fe80::1%eth0"), ("6", b"fe80::2"), True),
        (("6", b"::ffff:192.0.2.1"), ("4", b"192.0.2.1"), True),
        (("6", b"::ffff:192.0.2.1"), ("6", b"::ffff:192.0.2.2"), False),
        (("6", b"no address"), ("6", b"none either"), False),
        (("L", b"/run/a"), ("U", b""), False),
    ],
)
def test_who_counts_as_one_client(one: tuple[str, bytes], other: tuple[str, bytes], same: bool) -> None:
    keys = [client_key(wire.ConnectInfo(b"x", family, 1, address)) for family, address in (one, other)]
    assert (keys[0] == keys[1]) is same


async def test_large_messages_of_one_client_do_not_hold_up_another(started: Started) -> None:
    running = await started()
    ended: list[str] = []

    def large(number: int) -> None:
        with _begin(running.address) as mta:
            assert mta.message(body=b"x" * 3_000_000).final == Reply("c")
            ended.append(f"large {number}")
            mta.quit()

    await asyncio.gather(*(asyncio.to_thread(large, number) for number in range(4)))
    assert len(ended) == 4
    heard = [call for call in running.calls if call[0] == "body"]
    assert sum(len(call[1]) if isinstance(call[1], bytes) else call[1] for call in heard) == 12_000_000


async def test_a_client_that_leaves_while_its_verdict_is_made(started: Started) -> None:
    running = await started()

    def talk() -> None:
        with _begin(running.address) as mta:
            mta.mail(b"<a@example.org>", b"eom=sleep")
            mta.send("E")

    await asyncio.to_thread(talk)
    await asyncio.wait_for(running.ended.wait(), 5)
    assert [call[0] for call in running.calls][-3:] == ["end_of_message", "abort", "close"]
    assert running.engine.active == 0


async def test_drain_closes_a_connection_between_smtp_sessions_at_once(started: Started) -> None:
    running = await started()
    loop = asyncio.get_running_loop()

    def talk() -> MilterClient:
        mta = _begin(running.address)
        assert mta.message().final == Reply("c")
        mta.quit_new_connection()
        return mta

    mta = await asyncio.to_thread(talk)
    await running.ended.wait()
    begin = loop.time()
    assert running.engine.active == 1
    assert await running.engine.drain(10) == 0
    assert loop.time() - begin < 1
    mta.close()


async def test_two_engines_share_a_socket(tmp_path: Path) -> None:
    first, second = Running(), Running()
    await first.start(f"unix:{tmp_path}/milter")
    (server,) = first.engine._servers
    await second.engine.serve([socket.socket(fileno=socket.dup(server.sockets[0].fileno()))])

    def talk() -> None:
        assert Path(first.address.removeprefix("unix:")).exists(), "the path outlives the engine that drains"
        with _begin(first.address) as mta:
            assert mta.message().final == Reply("c")
            mta.quit()

    await first.engine.drain(0)
    await asyncio.to_thread(talk)
    await second.ended.wait()
    assert await second.engine.drain(0) == 0


async def test_a_client_that_leaves_in_the_moment_its_work_is_done_is_closed(started: Started) -> None:
    running = await started()
    with await asyncio.to_thread(_begin, running.address) as mta:
        await asyncio.to_thread(mta.mail, b"<a@example.org>", b"eom=sleep")
        mta.send("E")
        await asyncio.sleep(0.1)
        (connection,) = running.engine._connections
        work = connection.task
        assert work is not None
        # The connection is lost when the work is done, but before the loop says so.
        work.remove_done_callback(connection._worked)
        await asyncio.wait({work}, timeout=5)
        connection.connection_lost(None)
        connection._worked(work)
        assert running.engine.active == 0
    await asyncio.wait_for(running.ended.wait(), 5)


async def test_clients_that_leave_in_the_body_leave_nothing_behind(started: Started) -> None:
    running = await started()

    def leave(number: int) -> None:
        for part in range(10):
            with _begin(running.address) as mta:
                mta.mail(b"<a@example.org>")
                with contextlib.suppress(OSError):
                    for _ in range(number * 3 + part):
                        mta.socket.sendall(pack("B", b"x" * 65535))

    await asyncio.gather(*(asyncio.to_thread(leave, number) for number in range(5)))
    for _ in range(100):
        if not running.engine.active:
            break
        await asyncio.sleep(0.05)
    assert (running.engine.active, running.engine._served) == (0, 0)
