"""Questions to one nameserver over real sockets, on both event loops, and what is read of its answers."""

import asyncio
import os
import random
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from dns import message, rcode, rrset

from authmilter.dns_client import MAX_STRAY, TYPES, Channel, Reply, Server, nameserver, read, system_nameservers
from authmilter.errors import StartError
from authmilter.interfaces import Answer
from tests.dnsserver import DNSServer

GOOD = Answer(("192.0.2.1",), exists=True, ttl=30.0)


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Scripted:
    """A nameserver that does what the test does; it listens on UDP, and on TCP if told to."""

    def __init__(self, *, tcp: bool = False) -> None:
        while True:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 0))
            self.udp.setblocking(False)
            self.server = Server(socket.AF_INET, self.udp.getsockname())
            if not tcp:
                return
            self.tcp = socket.socket()
            self.tcp.setblocking(False)
            try:
                self.tcp.bind(self.server.address)
            except OSError:  # in use for TCP
                self.close()
                continue
            self.tcp.listen()
            return

    def close(self) -> None:
        self.udp.close()
        if hasattr(self, "tcp"):
            self.tcp.close()

    async def heard(self) -> tuple[bytes, Any]:
        """The next packet, and who sent it."""
        for _ in range(2000):
            try:
                return self.udp.recvfrom(65535)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        raise AssertionError("nothing was asked")

    def pending(self) -> int:
        count = 0
        while True:
            try:
                self.udp.recvfrom(65535)
            except BlockingIOError:
                return count
            count += 1


def answer(wire: bytes, **changes: Any) -> bytes:
    """A good answer to a query, or one with another id, rcode, flags or text of the question."""
    query = message.from_wire(wire)
    response = message.make_response(query)
    response.id = changes.get("id", query.id)
    response.flags |= changes.get("flags", 0)
    response.set_rcode(changes.get("rcode", rcode.NOERROR))
    if not changes.get("rcode"):
        response.answer.append(rrset.from_text(query.question[0].name, 30, "IN", "A", "192.0.2.1"))
    return response.to_wire()


def ask(channel: Channel, name: str = "good.example", rdtype: str = "A") -> asyncio.Future[Reply]:
    """The reply; to be told twice would be an error of the loop."""
    told: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    channel.ask(name, rdtype, told.set_result)
    return told


@contextmanager
def no_file_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


@asynccontextmanager
async def asking(server: Server, seconds: float = 2.0) -> AsyncIterator[Channel]:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    channel = Channel(server, seconds, loop)
    try:
        yield channel
    finally:
        channel.close()
        await asyncio.sleep(0.01)
    assert errors == []


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    running = Scripted()
    yield running
    running.close()


@pytest.fixture
def scripted_tcp() -> Iterator[Scripted]:
    running = Scripted(tcp=True)
    yield running
    running.close()


# Tries


async def test_the_question_is_sent_three_times_from_one_port_with_one_id_at_growing_intervals(
    scripted: Scripted,
) -> None:
    async with asking(scripted.server, seconds=0.6) as channel:
        started = time.monotonic()
        told = ask(channel)
        tries, at = [], []
        for _ in range(3):
            tries.append(await scripted.heard())
            at.append(time.monotonic() - started)
        assert await told == "time-out"
        ended = time.monotonic() - started
        assert scripted.pending() == 0
    assert tries[0] == tries[1] == tries[2]
    assert at[0] < 0.03
    assert 0.04 <= at[1] < 0.13
    assert 0.23 <= at[2] < 0.33
    assert ended == pytest.approx(0.6, abs=0.08)


async def test_questions_of_one_moment_are_not_sent_again_in_one_moment(scripted: Scripted) -> None:
    async with asking(scripted.server, seconds=1.2) as channel:
        for n in range(50):
            ask(channel, f"n{n}.example")
        for _ in range(50):
            await scripted.heard()
        again: list[float] = []
        while len(again) < 50:
            await scripted.heard()
            again.append(time.monotonic())
        assert again[-1] - again[0] > 0.06


@pytest.mark.parametrize("tries", [1, 2, 3])
async def test_the_answer_to_any_try_counts_until_the_deadline(scripted: Scripted, tries: int) -> None:
    async with asking(scripted.server, seconds=0.6) as channel:
        told = ask(channel)
        first, peer = await scripted.heard()
        for _ in range(tries - 1):
            await scripted.heard()
        await asyncio.sleep(0.05)
        scripted.udp.sendto(answer(first), peer)
        assert await told == GOOD


async def test_an_answer_after_the_deadline_finds_nobody(scripted: Scripted) -> None:
    async with asking(scripted.server, seconds=0.1) as channel:
        told = ask(channel)
        wire, peer = await scripted.heard()
        assert await told == "time-out"
        scripted.udp.sendto(answer(wire), peer)
        await asyncio.sleep(0.02)


async def test_both_event_loops_are_tried(request: pytest.FixtureRequest) -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop) is ("uvloop" in request.node.name)


async def test_questions_have_ports_and_ids_of_their_own(scripted: Scripted) -> None:
    async with asking(scripted.server) as channel:
        for _ in range(20):
            ask(channel)
        heard = [await scripted.heard() for _ in range(20)]
    assert len({peer for _, peer in heard}) == 20
    assert len({wire[:2] for wire, _ in heard}) > 15


async def test_a_thousand_questions_at_once() -> None:
    with DNSServer({"*.example A": ["192.0.2.1"]}) as server, no_file_left():
        async with asking(nameserver(server.address), seconds=10.0) as channel:
            told = [ask(channel, f"n{n}.example") for n in range(1000)]
            replies = await asyncio.gather(*told)
        assert {reply if isinstance(reply, str) else reply.records for reply in replies} == {("192.0.2.1",)}


# EDNS


@pytest.mark.parametrize("code", [rcode.FORMERR, rcode.NOTIMP], ids=["FORMERR", "NOTIMP"])
@pytest.mark.parametrize("size", [None, 12], ids=["with the question", "with the header alone"])
async def test_who_does_not_know_edns_is_asked_without(scripted: Scripted, code: rcode.Rcode, size: int | None) -> None:
    async with asking(scripted.server) as channel:
        told = ask(channel)
        with_edns, peer = await scripted.heard()
        assert (message.from_wire(with_edns).edns, message.from_wire(with_edns).payload) == (0, 1232)
        refusal = answer(with_edns, rcode=code)
        if size:
            refusal = refusal[:4] + bytes(8)
        scripted.udp.sendto(refusal, peer)
        without, again = await scripted.heard()
        assert again == peer
        assert message.from_wire(without).edns == -1
        assert without[12:] == with_edns[12 : len(without)]
        scripted.udp.sendto(refusal, peer)  # to an earlier try, and so no answer to this one
        await asyncio.sleep(0.02)
        assert not told.done()
        scripted.udp.sendto(answer(without), peer)
        assert await told == GOOD


async def test_who_does_not_understand_the_question_without_edns_either_has_failed(scripted: Scripted) -> None:
    async with asking(scripted.server) as channel:
        told = ask(channel)
        for _ in range(2):
            wire, peer = await scripted.heard()
            scripted.udp.sendto(answer(wire, rcode=rcode.FORMERR), peer)
        assert await told == "FORMERR"
        assert scripted.pending() == 0


# What is no answer


def _strays(wire: bytes) -> dict[str, bytes]:
    good = answer(wire)
    other = message.make_response(message.make_query("g00d.example", "A", id=message.from_wire(wire).id))
    other_type = message.make_response(message.make_query("good.example", "AAAA", id=message.from_wire(wire).id))
    return {
        "nothing": b"",
        "one octet": b"x",
        "half a header": good[:11],
        "another id": bytes([good[0] ^ 1]) + good[1:],
        "another name": other.to_wire(),
        "another type": other_type.to_wire(),
        "the query": wire,
        "another opcode": good[:2] + bytes([good[2] | 0x28]) + good[3:],
        "no question, but a success": good[:4] + bytes(8),
        "two questions": good[:5] + b"\2" + good[6:],
    }


@pytest.mark.parametrize("kind", list(_strays(message.make_query("good.example", "A").to_wire())))
async def test_what_is_no_answer_is_ignored(scripted: Scripted, kind: str) -> None:
    async with asking(scripted.server) as channel:
        told = ask(channel)
        wire, peer = await scripted.heard()
        for _ in range(MAX_STRAY):
            scripted.udp.sendto(_strays(wire)[kind], peer)
        await asyncio.sleep(0.05)
        assert not told.done()
        scripted.udp.sendto(answer(wire), peer)
        assert await told == GOOD


async def test_an_answer_from_another_address_is_ignored(scripted: Scripted) -> None:
    async with asking(scripted.server) as channel:
        told = ask(channel)
        wire, peer = await scripted.heard()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(2 * MAX_STRAY):
                stranger.sendto(answer(wire), peer)
            await asyncio.sleep(0.05)
        assert not told.done()
        scripted.udp.sendto(answer(wire), peer)
        assert await told == GOOD


async def test_the_question_may_come_back_in_other_letters(scripted: Scripted) -> None:
    async with asking(scripted.server) as channel:
        told = ask(channel, "Good.Example")
        wire, peer = await scripted.heard()
        assert b"\4good\7example\0" in wire
        scripted.udp.sendto(answer(wire).replace(b"\4good\7example", b"\4gOOd\7EXAMPLE"), peer)
        assert await told == GOOD


async def _serve_tcp(scripted: Scripted, change: Any) -> bytes:
    """Answer one query by TCP with what `change` makes of it; returns the query."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(scripted.tcp)
    with connection:
        wire = await loop.sock_recv(connection, 4096)
        assert int.from_bytes(wire[:2], "big") == len(wire) - 2
        octets = change(wire[2:])
        if octets is not None:
            framed = len(octets).to_bytes(2, "big") + octets
            for start in range(0, len(framed), 7):
                await loop.sock_sendall(connection, framed[start : start + 7])
                await asyncio.sleep(0)
        else:
            await loop.sock_recv(connection, 1)  # until the other side closes
    return wire[2:]


async def test_whoever_guesses_is_answered_with_tcp(scripted_tcp: Scripted) -> None:
    """RFC 5452 section 9.3."""
    async with asking(scripted_tcp.server) as channel:
        told = ask(channel)
        wire, peer = await scripted_tcp.heard()
        for _ in range(MAX_STRAY + 1):
            scripted_tcp.udp.sendto(_strays(wire)["another id"], peer)
        assert await asyncio.wait_for(_serve_tcp(scripted_tcp, answer), 1) == wire
        assert await told == GOOD


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (answer, GOOD),
        (lambda wire: answer(wire, flags=0x0200), "broken answer"),
        (lambda wire: answer(wire, id=message.from_wire(wire).id ^ 1), "broken answer"),
        (lambda wire: answer(wire)[:-12], "broken answer: ValueError"),
        (lambda wire: b"", "broken answer"),
        (lambda wire: answer(wire, rcode=rcode.SERVFAIL), "SERVFAIL"),
        (lambda wire: None, "time-out"),
    ],
    ids=[
        "an answer",
        "truncated again",
        "another id",
        "cut off",
        "empty",
        "SERVFAIL",
        "nothing until the time is over",
    ],
)
async def test_a_truncated_answer_comes_by_tcp(scripted_tcp: Scripted, change: Any, expected: Reply) -> None:
    async with asking(scripted_tcp.server, seconds=0.4) as channel:
        started = time.monotonic()
        told = ask(channel)
        wire, peer = await scripted_tcp.heard()
        await asyncio.sleep(0.25)  # which is taken off the time for TCP
        scripted_tcp.udp.sendto(answer(wire, flags=0x0200), peer)
        await asyncio.wait_for(_serve_tcp(scripted_tcp, change), 1)
        assert await told == expected
        assert time.monotonic() - started < 0.55


# Failures of sockets


async def test_a_closed_port_is_heard_of_at_once(scripted: Scripted) -> None:
    scripted.close()
    with no_file_left():
        async with asking(scripted.server) as channel:
            started = time.monotonic()
            assert await ask(channel) == "nameserver not reached: Connection refused"
            assert time.monotonic() - started < 0.2


async def test_a_port_that_closes_later_is_heard_of_at_the_next_try(scripted: Scripted) -> None:
    async with asking(scripted.server, seconds=0.6) as channel:
        told = ask(channel)
        await scripted.heard()
        scripted.close()
        started = time.monotonic()
        assert await told == "nameserver not reached: Connection refused"
        assert time.monotonic() - started < 0.3


async def test_without_files_a_question_fails_and_others_do_not(scripted: Scripted) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with asking(scripted.server) as channel:
        first = ask(channel)
        wire, peer = await scripted.heard()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert await ask(channel) == "nameserver not reached: Too many open files"
            with pytest.raises(StartError, match="Too many open files"):
                Channel(scripted.server, 1.0, asyncio.get_running_loop())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        scripted.udp.sendto(answer(wire), peer)
        assert await first == GOOD


async def test_an_address_that_can_not_be_reached_is_a_failure_and_leaves_no_socket() -> None:
    with no_file_left():
        async with asking(Server(socket.AF_INET6, ("ff02::1", 0, 0, 0)), seconds=0.1) as channel:
            reply = await ask(channel)
            assert isinstance(reply, str)
            assert reply.startswith("nameserver not reached: ")


# The end


async def test_closing_tells_everybody_and_leaves_neither_socket_nor_reader_nor_timer(scripted: Scripted) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    with no_file_left():
        channel = Channel(scripted.server, 0.3, loop)
        watched = channel._epoll.fileno()
        told = [ask(channel) for _ in range(5)]
        await scripted.heard()
        channel.close()
        assert [question.result() for question in told] == ["cancelled"] * 5
        assert not loop.remove_reader(watched)
        channel.close()
    before = scripted.pending()
    assert before == 4
    await asyncio.sleep(0.1)  # longer than until the next try
    assert scripted.pending() == 0


async def test_closing_ends_what_waits_for_tcp_too(scripted_tcp: Scripted) -> None:
    with no_file_left():
        async with asking(scripted_tcp.server) as channel:
            told = ask(channel)
            wire, peer = await scripted_tcp.heard()
            scripted_tcp.udp.sendto(answer(wire, flags=0x0200), peer)
            connection, _ = await asyncio.get_running_loop().sock_accept(scripted_tcp.tcp)
            with connection:
                channel.close()
                assert await told == "cancelled"


async def test_whoever_asks_again_when_told_is_served(scripted: Scripted) -> None:
    """The number of the socket that was closed is taken again at once."""
    async with asking(scripted.server) as channel:
        second: list[asyncio.Future[Reply]] = []
        channel.ask("one.example", "A", lambda _: second.append(ask(channel, "two.example")))
        wire, peer = await scripted.heard()
        scripted.udp.sendto(answer(wire), peer)
        wire, peer = await scripted.heard()
        assert b"\3two" in wire
        scripted.udp.sendto(answer(wire), peer)
        assert await second[0] == GOOD


# What is read of a message

QUESTION = b"\4good\7example\0"


def response(rdtype: str, *records: bytes) -> tuple[bytes, int, int]:
    """Arguments for `read`: records with the question as owner and a TTL of 300."""
    kind = TYPES[rdtype]
    question = QUESTION + struct.pack("!HH", kind, 1)
    body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 300, len(data)) + data for data in records)
    head = struct.pack("!HHHHHH", 1, 0x8180, 1, len(records), 0, 0)
    return head + question + body, kind, 12 + len(question)


@pytest.mark.parametrize(
    ("rdtype", "data", "expected"),
    [
        ("TXT", b"\1a", (b"a",)),
        ("TXT", b"\1a\2bc\0\1d", (b"abcd",)),
        ("TXT", b"\0", (b"",)),
        ("TXT", b"", (b"",)),
        ("PTR", b"\1A\1b\0", ("a.b",)),
        ("PTR", b"\1a\xc0\x0c", ("a.good.example",)),
        ("PTR", b"\0", ()),
        ("PTR", b"\3a.b\0", ()),
        ("PTR", b"\2a \0", ()),
        ("PTR", b"\2a\xff\0", ()),
        ("PTR", b"\x3f" + b"a" * 63 + b"\xc0\x0c", ("a" * 63 + ".good.example",)),
        ("MX", b"\0\x0a\1a\0", ("10 a",)),
        ("MX", b"\0\0\0", ("0 .",)),
        ("MX", b"\xff\xff\2a;\0", ()),
    ],
    ids=[
        "one string",
        "several strings",
        "an empty string",
        "no string",
        "a name in lower case",
        "a compressed name",
        "the root is no host",
        "a dot inside a label",
        "a space",
        "an octet beyond ASCII",
        "the longest label",
        "a mail exchange",
        "null MX",
        "a mail exchange that can't be",
    ],
)
def test_records_are_read(rdtype: str, data: bytes, expected: tuple[object, ...]) -> None:
    assert read(*response(rdtype, data)) == Answer(expected, exists=True, ttl=300.0 if expected else 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rdtype", "data"),
    [
        ("A", b"\1\2\3"),
        ("AAAA", b"\1\2\3\4"),
        ("TXT", b"\2a"),
        ("TXT", b"\1ab"),
        ("PTR", b""),
        ("PTR", b"\1a"),
        ("PTR", b"\1a\0\0"),
        ("PTR", b"\x40a\0"),
        ("PTR", b"\x80a\0"),
        ("PTR", b"\xc0\x2b"),
        ("MX", b"\0"),
        ("MX", b"\0\x0a"),
    ],
    ids=[
        "an address too short",
        "an IPv6 address too short",
        "a string cut off",
        "a string behind the last",
        "no name",
        "a name without end",
        "a name with something behind it",
        "a label of an unknown kind",
        "another label of an unknown kind",
        "a pointer to itself",
        "half a preference",
        "a preference without name",
    ],
)
def test_broken_records_are_errors_that_are_expected(rdtype: str, data: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        read(*response(rdtype, data))


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "MX", "PTR", "TXT"])
def test_broken_answers_raise_nothing_unexpected(rdtype: str) -> None:
    query = message.make_query("a+b.example.", rdtype)
    made = message.make_response(query)
    text = {"A": "192.0.2.1", "AAAA": "::1", "MX": "1 mx.example.", "PTR": "a.b.", "TXT": '"a" "b"'}[rdtype]
    made.answer.append(rrset.from_text("a+b.example.", 30, "IN", rdtype, text))
    made.authority.append(rrset.from_text(".", 9, "IN", "SOA", ". h. 1 2 3 4 77"))
    whole = made.to_wire()
    at = 12 + len("a+b.example.") + 1 + 4
    chance = random.Random(rdtype)
    broken = 0
    for _ in range(3000):
        wire = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            wire[chance.randrange(2, len(wire))] = chance.choice((0, 1, 63, 64, 192, 255, chance.randrange(256)))
        try:
            reply = read(bytes(wire[: chance.randint(12, 2 * len(wire))]), TYPES[rdtype], at)
        except (IndexError, ValueError, struct.error):
            broken += 1
        else:
            assert isinstance(reply, (str, Answer))
    assert 0 < broken < 3000


@pytest.mark.parametrize("rdtype", ["MX", "PTR"])
def test_a_hostile_answer_costs_little(rdtype: str) -> None:
    kind, data = TYPES[rdtype], (b"\0\x0a" if rdtype == "MX" else b"") + b"\xc0\x0c"
    question = b"\1x" * 120 + b"\0" + struct.pack("!HH", kind, 1)
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 300, len(data)) + data
    count = (65535 - 12 - len(question)) // len(record)
    wire = struct.pack("!HHHHHH", 1, 0x8180, 1, count, 0, 0) + question + record * count
    started = time.process_time()
    reply = read(wire, kind, 12 + len(question))
    assert time.process_time() - started < 0.3  # dnspython takes more than 10 s
    assert isinstance(reply, Answer)
    assert reply.records == (("10 " if rdtype == "MX" else "") + ".".join("x" * 120),) * 500


def test_a_ttl_beyond_31_bits_is_none() -> None:
    """RFC 2181 section 8."""
    wire, kind, at = response("A", b"\1\2\3\4")
    reply = read(wire.replace(struct.pack("!I", 300), struct.pack("!I", 1 << 31)), kind, at)
    assert reply == Answer(("1.2.3.4",), exists=True, ttl=0.0)


# Nameservers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 53))),
        ("192.0.2.1:5353", (socket.AF_INET, ("192.0.2.1", 5353))),
        ("2001:db8::53", (socket.AF_INET6, ("2001:db8::53", 53, 0, 0))),
        ("[2001:db8::53]", (socket.AF_INET6, ("2001:db8::53", 53, 0, 0))),
        ("[2001:DB8::53]:5353", (socket.AF_INET6, ("2001:db8::53", 5353, 0, 0))),
        ("fe80::1%lo", (socket.AF_INET6, ("fe80::1", 53, 0, socket.if_nametoindex("lo")))),
        ("[fe80::1%7]:54", (socket.AF_INET6, ("fe80::1", 54, 0, 7))),
    ],
)
def test_nameservers_are_read(text: str, expected: object) -> None:
    assert nameserver(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:٣",
        "[::1]53",
        "[::1",
        "192.0.2.1,192.0.2.2",
        "127.1",
        "fe80::1%no-such-interface",
        "fe80::1%4294967296",
        "fe80::1%",
    ],
)
def test_what_is_no_nameserver_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  ipaddress has words of its own
        nameserver(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ["127.0.0.1"]),
        ("", ["127.0.0.1"]),
        ("search example.org\noptions ndots:2\n", ["127.0.0.1"]),
        ("nameserver\nnameserver dns.example\nnameserver fe80::1%no-such-interface\n", ["127.0.0.1"]),
        (
            (
                "# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nnameserverx 192.0.2.7\nnameserver 192.0.2.1\n"
                "nameserver\t2001:db8::1 # mine\r\nnameserver fe80::1%lo\nnameserver 192.0.2.4\nnameserver 192.0.2.5"
            ),
            ["192.0.2.1", "2001:db8::1", "fe80::1%lo", "192.0.2.4", "192.0.2.5"],
        ),
        ("nameserver \xff\nnameserver 192.0.2.1\n", ["192.0.2.1"]),
    ],
    ids=[
        "no file",
        "an empty file",
        "no nameserver",
        "nameservers that can't be used",
        "several, and comments",
        "octets beyond ASCII",
    ],
)
def test_the_nameservers_of_the_system(tmp_path: Path, text: str | None, expected: list[str]) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    assert system_nameservers(str(path)) == [nameserver(each) for each in expected]
