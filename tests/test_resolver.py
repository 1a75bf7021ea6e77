"""The resolver over real sockets, against the DNS server of the tests."""

import asyncio
import os
import re
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from dns import message, rrset

from authmilter import resolver as module
from authmilter.config.option import Seconds
from authmilter.config.schema import Dns
from authmilter.dns_client import usable_name
from authmilter.errors import ConfigError, DnsBusyError, DnsTempError
from authmilter.interfaces import Answer
from authmilter.resolver import CACHED_OCTETS, StubResolver
from tests.dnsserver import DNSServer

ROOT = Path(__file__).parent.parent
LONG = bytes(range(256)) * 16  # 4 KB: over every UDP size, and every octet in it

RECORDS: dict[str, list[Any]] = {
    "example.org TXT": ["v=spf1 -all", b"other \xe9\0\xff", ["three ", "strings ", "joined"]],
    "example.org A": ["192.0.2.1", "192.0.2.2"],
    "example.org AAAA": ["2001:db8::1"],
    "example.org MX": ["10 MX.Example.ORG", "20 mx2.example.org"],
    "null.example MX": ["0 ."],
    "1.2.0.192.in-addr.arpa PTR": ["Host.Example.ORG"],
    "odd.example PTR": ["good.example", "with\\032space.example", "byte\\233.example", "back\\\\slash.example", "."],
    "_dmarc.example.org TXT": ["v=DMARC1; p=none"],
    "a.b.empty.example TXT": ["below"],
    "alias.example CNAME": ["alias2.example"],
    "alias2.example CNAME": ["example.org"],
    "lost.example CNAME": ["nowhere.example"],
    "textless.example CNAME": ["null.example"],
    "long.example TXT": [LONG],
    "void.example TXT": [""],
    "*.wild.example TXT": ["wild"],
    "many.example A": [f"192.0.{n // 256}.{n % 256}" for n in range(3000)],
    "good.example TXT": ["good"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[DNSServer]:
    with DNSServer(RECORDS) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(server: DNSServer) -> None:
    server.queries.clear()


def options(*nameservers: str, timeout: float = 2.0, **changes: Any) -> Dns:
    return replace(Dns(nameservers=nameservers, timeout=Seconds(timeout)), **changes)


@asynccontextmanager
async def resolving(*servers: DNSServer | str, **changes: Any) -> AsyncIterator[StubResolver]:
    hooks = {name: changes.pop(name) for name in ("clock", "on_query", "on_cache", "on_failure") if name in changes}
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    running = StubResolver(options(*addresses, **changes), **hooks)
    try:
        yield running
    finally:
        running.close()
        await asyncio.sleep(0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Answers


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("example.org", "TXT", (b"v=spf1 -all", b"other \xe9\0\xff", b"three strings joined")),
        ("example.org", "A", ("192.0.2.1", "192.0.2.2")),
        ("example.org", "AAAA", ("2001:db8::1",)),
        ("example.org", "MX", ("10 mx.example.org", "20 mx2.example.org")),
        ("null.example", "MX", ("0 .",)),
        ("1.2.0.192.in-addr.arpa", "PTR", ("host.example.org",)),
        ("odd.example", "PTR", ("good.example",)),
        ("EXAMPLE.org.", "AAAA", ("2001:db8::1",)),
        ("_dmarc.example.org", "TXT", (b"v=DMARC1; p=none",)),
        ("alias.example", "AAAA", ("2001:db8::1",)),
        ("long.example", "TXT", (LONG,)),
        ("void.example", "TXT", (b"",)),
        ("any.wild.example", "TXT", (b"wild",)),
    ],
    ids=[
        "every TXT record is its strings joined, octet for octet",
        "A is a list of addresses",
        "AAAA is a list of addresses",
        "MX is preference and name in lower case",
        "null MX is 0 and a dot",
        "PTR is in lower case without final dot",
        "PTR names with odd octets are dropped",
        "case and final dot of the question do not matter",
        "underscores are asked",
        "aliases are followed",
        "a long TXT record comes by TCP",
        "an empty TXT record is a record",
        "a wildcard answers",
    ],
)
async def test_answers(server: DNSServer, name: str, rdtype: str, expected: tuple[object, ...]) -> None:
    async with resolving(server) as dns:
        answer = await dns.query(name, rdtype)
    assert (answer.records, answer.exists) == (expected, True)


@pytest.mark.parametrize(
    ("name", "rdtype", "exists"),
    [
        ("nowhere.example", "TXT", False),
        ("null.example", "TXT", True),
        ("b.empty.example", "TXT", True),
        ("lost.example", "TXT", False),
        ("textless.example", "TXT", True),
    ],
    ids=[
        "NXDOMAIN",
        "no data",
        "an empty non-terminal exists",
        "an alias to nowhere is NXDOMAIN",
        "an alias to a name without data is no data",
    ],
)
async def test_nothing_there(server: DNSServer, name: str, rdtype: str, exists: bool) -> None:
    async with resolving(server) as dns:
        answer = await dns.query(name, rdtype)
    assert (answer.records, answer.exists) == ((), exists)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..example",
        ".example",
        "example..",
        "a" * 64 + ".example",
        ("a" * 63 + ".") * 3 + "a" * 63,
        "ex\0ample.org",
        "ex\tample.org",
        "ex\x7fample.org",
        "exämple.org",
        "example.org\u212a",
    ],
    ids=[
        "the empty name",
        "the root",
        "an empty label",
        "a leading dot",
        "two final dots",
        "a label of 64 octets",
        "255 octets",
        "NUL",
        "a tab",
        "DEL",
        "a letter beyond ASCII",
        "a letter beyond ASCII that becomes ASCII in lower case",
    ],
)
async def test_names_that_can_not_be_asked_do_not_exist_and_are_not_asked(server: DNSServer, name: str) -> None:
    async with resolving(server) as dns:
        assert await dns.query(name, "TXT") == Answer((), exists=False)
        dns.prefetch(name, "TXT")
        assert dns.known(name, "TXT") is None
    assert not server.queries


async def test_a_name_of_253_octets_is_asked(server: DNSServer) -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253
    assert usable_name(name)
    async with resolving(server) as dns:
        assert not (await dns.query(name, "TXT")).exists
    assert server.queries == [f"{name} TXT udp"]


async def test_a_single_label_is_not_searched(server: DNSServer) -> None:
    async with resolving(server) as dns:
        assert not (await dns.query("example", "A")).records
    assert server.queries == ["example A udp"]


async def test_localhost_is_asked_of_the_nameserver_not_of_the_hosts_file(server: DNSServer) -> None:
    async with resolving(server) as dns:
        assert not (await dns.query("localhost", "A")).exists
    assert server.queries == ["localhost A udp"]


async def test_an_unknown_record_type_is_an_error_of_the_caller(server: DNSServer) -> None:
    async with resolving(server) as dns:
        with pytest.raises(ValueError, match="SRV"):
            await dns.query("example.org", "SRV")


async def test_very_long_answers_are_cut(server: DNSServer) -> None:
    async with resolving(server) as dns:
        assert len((await dns.query("many.example", "A")).records) == 500


async def test_a_uvloop_serves_as_well(server: DNSServer) -> None:
    async def ask() -> list[Answer]:
        async with resolving(server) as dns:
            names = ["example.org", "long.example", "nowhere.example"]
            return await asyncio.gather(*(dns.query(name, "TXT") for name in names))

    def run() -> list[Answer]:
        return uvloop.run(ask())

    short, long, none = await asyncio.to_thread(run)
    assert short.records[0] == b"v=spf1 -all"
    assert long.records == (LONG,)
    assert not none.exists


# Names of other characters than letters, digits and hyphens

ODD_RECORDS: dict[str, list[Any]] = {
    "user+tag.example TXT": ["plus"],
    "user+tag.example A": ["192.0.2.1", "192.0.2.2"],
    "user+tag.example AAAA": ["2001:db8::1"],
    "user+tag.example MX": ["10 MX.Example.ORG", "0 .", "20 a\\.b.example", "30 o'neil.example", "40 a\\;b.example"],
    "user+tag.example PTR": ["Host.Example.ORG", "byte\\233.example", "."],
    "alias=.example CNAME": ["user+tag.example"],
    "lost=.example CNAME": ["nowhere.example"],
    "long+.example TXT": [LONG],
    "many+.example A": [f"192.0.{n // 256}.{n % 256}" for n in range(3000)],
    **{f"x\\{octet:03}.printable.example TXT": [bytes([octet])] for octet in range(32, 127) if octet != ord(".")},
}


@pytest.fixture(scope="module")
def odd_server() -> Iterator[DNSServer]:
    behaviours = {
        "serv+fail.example": "servfail",
        "not+auth.example": "notauth",
        "drop+.example": "drop",
        "garbage+.example": "garbage",
        "cut+.example": "truncate",
        "no+tcp.example": "truncate tcp-refused",
        "slow+.example": "delay 0.1",
    }
    with DNSServer({**ODD_RECORDS, "cut+.example TXT": ["whole"]}, behaviours) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget_odd(odd_server: DNSServer) -> None:
    odd_server.queries.clear()


@pytest.mark.parametrize("cache_size", [100, 0], ids=["with cache", "without cache"])
async def test_every_printable_character_can_be_asked(odd_server: DNSServer, cache_size: int) -> None:
    characters = [chr(octet) for octet in range(32, 127) if octet != ord(".")]
    async with resolving(odd_server, cache_size=cache_size) as dns:
        asked = [dns.query(f"x{character}.printable.example", "TXT") for character in characters]
        answers = await asyncio.gather(*asked)
    for character, answer in zip(characters, answers, strict=True):
        assert answer.records in ((character.lower().encode(),), (character.upper().encode(),))


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("user+tag.example", "TXT", (b"plus",)),
        ("User+Tag.Example.", "A", ("192.0.2.1", "192.0.2.2")),
        ("user+tag.example", "AAAA", ("2001:db8::1",)),
        ("user+tag.example", "MX", ("10 mx.example.org", "0 .", "30 o'neil.example")),
        ("user+tag.example", "PTR", ("host.example.org",)),
        ("alias=.example", "AAAA", ("2001:db8::1",)),
        ("long+.example", "TXT", (LONG,)),
        ("cut+.example", "TXT", (b"whole",)),
        ("many+.example", "A", tuple(f"192.0.{n // 256}.{n % 256}" for n in range(500))),
    ],
    ids=[
        "TXT",
        "A, in any case and with a final dot",
        "AAAA",
        "MX, without hosts that can't be",
        "PTR, without hosts that can't be",
        "an alias",
        "a long TXT record comes by TCP",
        "a truncated answer comes by TCP",
        "an answer with too many records is cut",
    ],
)
async def test_answers_for_odd_names(
    odd_server: DNSServer, name: str, rdtype: str, expected: tuple[object, ...]
) -> None:
    async with resolving(odd_server) as dns:
        answer = await dns.query(name, rdtype)
        asked = odd_server.asked()
        assert answer == (expected, True, 300.0)
        assert dns.known(name, rdtype) is answer
        assert await dns.query(name, rdtype) is answer
    assert odd_server.asked() == asked <= 4  # UDP and TCP, each once more where the machine is slow


@pytest.mark.parametrize(
    ("rdtype", "records"),
    [
        *((rdtype, RECORDS[f"example.org {rdtype}"]) for rdtype in ("A", "AAAA", "TXT")),
        ("AAAA", ["::ffff:192.0.2.1", "::", "2001:db8:0:1::"]),
        ("PTR", [f"x\\{octet:03}y.example" for octet in range(256)]),
        ("MX", [f"{octet} x\\{octet:03}y.example" for octet in range(256)]),
    ],
    ids=["A", "AAAA", "TXT", "AAAA of odd forms", "PTR with every octet", "MX with every octet"],
)
async def test_odd_names_are_answered_as_plain_names_are(rdtype: str, records: list[Any]) -> None:
    with DNSServer({f"{name} {rdtype}": records for name in ("plain", "o+d+d")}) as same:
        async with resolving(same) as dns:
            plain = await dns.query("plain", rdtype)
            assert plain.records
            assert await dns.query("o+d+d", rdtype) == plain


@pytest.mark.parametrize(
    ("name", "rdtype", "exists"),
    [
        ("no body.example", "A", False),
        ("user+tag.printable.example", "A", False),
        ("x!.printable.example", "A", True),
        ("lost=.example", "A", False),
        ("alias=.example", "TXT", True),
    ],
    ids=["NXDOMAIN", "NXDOMAIN below a name", "no data", "an alias to nowhere", "an alias to what is there"],
)
async def test_nothing_there_for_odd_names(odd_server: DNSServer, name: str, rdtype: str, exists: bool) -> None:
    async with resolving(odd_server) as dns:
        answer = await dns.query(name, rdtype)
        if not answer.records:
            assert answer == ((), exists, 60.0)  # the minimum of the SOA
            assert dns.known(name, rdtype) == answer
        assert answer.exists is exists


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("serv+fail.example", "SERVFAIL"),
        ("not+auth.example", "unexpected response code"),
        ("drop+.example", "time-out"),
        ("garbage+.example", "broken answer"),
        ("no+tcp.example", "nameserver not reached"),
    ],
)
async def test_failures_of_odd_names_are_temporary_in_time_and_kept(
    odd_server: DNSServer, name: str, said: str
) -> None:
    outcomes: list[str] = []
    async with resolving(odd_server, timeout=0.4, on_query=lambda *told: outcomes.append(told[1])) as dns:
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(DnsTempError, match=f"^{re.escape(name)} A: {said}"):
                await dns.query(name, "A")
        assert time.monotonic() - started < 0.7
        assert dns.known(name, "A") is None
    assert outcomes == ["temperror"]


async def test_an_odd_name_is_sent_again(odd_server: DNSServer) -> None:
    async with resolving(odd_server, timeout=0.4) as dns:
        with pytest.raises(DnsTempError):
            await dns.query("drop+.example", "A")
        await asyncio.sleep(0.1)
    assert odd_server.asked("drop+.example A udp") in (3, 4)  # the last at the very end of the time


async def test_who_asks_the_same_odd_name_shares_one_question(odd_server: DNSServer) -> None:
    async with resolving(odd_server) as dns:
        answers = await asyncio.gather(*(dns.query("slow+.example", "A") for _ in range(20)))
    assert set(answers) == {Answer((), exists=False, ttl=60.0)}
    assert odd_server.asked() == 1


@pytest.mark.parametrize("behaviour", ["servfail", "drop", ""], ids=["SERVFAIL", "no answer", "closed"])
async def test_the_next_nameserver_is_asked_for_an_odd_name(odd_server: DNSServer, behaviour: str) -> None:
    with DNSServer({}, {"user+tag.example": behaviour} if behaviour else {}) as first:
        if not behaviour:
            first.stop()
        async with resolving(first, odd_server, timeout=1.0) as dns:
            assert (await dns.query("user+tag.example", "TXT")).records == (b"plus",)


async def test_an_ipv6_nameserver_answers_for_odd_names() -> None:
    try:
        server = DNSServer(ODD_RECORDS, host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with server:
        async with resolving(f"[::1]:{server.port}") as dns:
            assert (await dns.query("user+tag.example", "TXT")).records == (b"plus",)
            assert (await dns.query("long+.example", "TXT")).records == (LONG,)


def test_a_uvloop_asks_odd_names(odd_server: DNSServer) -> None:
    async def ask() -> list[Any]:
        async with resolving(odd_server, timeout=0.4) as dns:
            names = ["user+tag.example", "long+.example", "no body.example", "drop+.example", "no+tcp.example"]
            return list(await asyncio.gather(*(dns.query(name, "TXT") for name in names), return_exceptions=True))

    short, long, none, *failures = uvloop.run(ask())
    assert short.records == (b"plus",)
    assert long.records == (LONG,)
    assert none == Answer((), exists=False, ttl=60.0)
    assert [type(failure) for failure in failures] == [DnsTempError] * 2


async def test_closing_ends_questions_for_odd_names_and_leaves_no_socket(odd_server: DNSServer) -> None:
    before = set(os.listdir("/proc/self/fd"))
    dns = StubResolver(options(odd_server.address))
    asked = asyncio.ensure_future(dns.query("drop+.example", "A"))
    await asyncio.sleep(0.05)
    assert set(os.listdir("/proc/self/fd")) > before
    dns.close()
    with pytest.raises(DnsTempError, match="closed"):
        await asked
    await asyncio.sleep(0.05)
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_forged_answers_for_an_odd_name_are_ignored() -> None:
    """RFC 5452 section 9.1: the id and the question must be those that were sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        async with resolving(f"127.0.0.1:{listener.getsockname()[1]}") as dns:
            asked = asyncio.ensure_future(dns.query("o'neil.example", "A"))
            wire, peer = await loop.sock_recvfrom(listener, 4096)
            query = message.from_wire(wire)
            assert (query.edns, query.payload) == (0, 1232)
            response = message.make_response(query)
            response.answer.append(rrset.from_text(query.question[0].name, 30, "IN", "A", "192.0.2.66"))
            forged = response.to_wire()
            other = message.make_response(message.make_query("oneil2.example", "A", id=query.id)).to_wire()
            for packet in (b"", b"x", bytes([forged[0] ^ 1]) + forged[1:], other, wire):
                listener.sendto(packet, peer)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(forged, peer)
            await asyncio.sleep(0.05)
            assert not asked.done()
            response.answer[0] = rrset.from_text(query.question[0].name, 30, "IN", "A", "192.0.2.1")
            listener.sendto(response.to_wire(), peer)
            assert await asked == (("192.0.2.1",), True, 30.0)


# Transport


async def test_what_does_not_fit_comes_by_tcp(server: DNSServer) -> None:
    async with resolving(server) as dns:
        await dns.query("long.example", "TXT")
        await dns.query("many.example", "A")
    assert server.queries == [
        "long.example TXT udp",
        "long.example TXT tcp",
        "many.example A udp",
        "many.example A tcp",
    ]


async def test_edns_is_offered_so_1200_octets_need_no_tcp() -> None:
    with DNSServer({"big.example TXT": [b"x" * 1100]}) as server:
        async with resolving(server) as dns:
            assert (await dns.query("big.example", "TXT")).records == (b"x" * 1100,)
        assert server.queries == ["big.example TXT udp"]


async def test_a_truncated_answer_is_never_taken_for_the_answer() -> None:
    with DNSServer({"cut.example TXT": ["whole"]}, {"cut.example": "truncate"}) as server:
        async with resolving(server) as dns:
            assert (await dns.query("cut.example", "TXT")).records == (b"whole",)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("servfail", "SERVFAIL"),
        ("refused", "REFUSED"),
        ("notauth", "unexpected response code"),
        ("drop", "time-out"),
        ("garbage", "broken answer|time-out"),
        ("truncate tcp-refused", "nameserver not reached"),
    ],
    ids=["SERVFAIL", "REFUSED", "NOTAUTH", "no answer", "an answer that is none", "truncated and nobody at TCP"],
)
async def test_failures_are_temporary(behaviour: str, said: str) -> None:
    with DNSServer({"bad.example TXT": ["x"]}, {"bad.example": behaviour}) as server:
        async with resolving(server, timeout=0.6) as dns:
            with pytest.raises(DnsTempError, match=f"^bad.example TXT: ({said})"):
                await dns.query("bad.example", "TXT")
            assert dns.known("bad.example", "TXT") is None


async def test_servfail_is_asked_once_only() -> None:
    with DNSServer(behaviours={"bad.example": "servfail"}) as server:
        async with resolving(server) as dns:
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "TXT")
        assert server.queries == ["bad.example TXT udp"]


async def test_a_closed_port_is_a_temporary_failure_at_once() -> None:
    with DNSServer() as server:
        pass
    async with resolving(server) as dns:
        started = time.monotonic()
        with pytest.raises(DnsTempError, match="not reached"):
            await dns.query("example.org", "TXT")
        assert time.monotonic() - started < 1.0


async def test_a_nameserver_that_comes_back_is_used_at_once() -> None:
    with DNSServer() as gone:
        pass
    async with resolving(gone, servfail_ttl=0.0) as dns:
        with pytest.raises(DnsTempError):
            await dns.query("good.example", "TXT")
        with DNSServer(RECORDS, port=gone.port):
            assert (await dns.query("good.example", "TXT")).records == (b"good",)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0])
async def test_a_black_hole_is_a_temporary_failure_within_the_time_of_one_query(seconds: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        async with resolving(f"127.0.0.1:{hole.getsockname()[1]}", timeout=seconds) as dns:
            started = time.monotonic()
            with pytest.raises(DnsTempError, match="time-out"):
                await dns.query("example.org", "TXT")
            assert seconds * 0.9 <= time.monotonic() - started < seconds + 0.2


async def test_a_lost_packet_is_sent_again(server: DNSServer) -> None:
    with DNSServer({"late.example TXT": ["x"]}, {"late.example": "drop"}) as lossy:
        async with resolving(lossy, timeout=3.0) as dns:
            asked = asyncio.ensure_future(dns.query("late.example", "TXT"))
            await asyncio.sleep(0.2)
            assert lossy.asked("late.example TXT") == 1
            lossy.behave("late.example", "")
            assert (await asked).records == (b"x",)
            assert lossy.asked("late.example TXT") == 2


async def test_an_answer_counts_while_there_is_time_however_fast_the_nameserver_was_before() -> None:
    with DNSServer(RECORDS, {"good.example": "delay 2.0"}) as server:
        async with resolving(server, timeout=3.0) as dns:
            for n in range(30):
                await dns.query(f"n{n}.example", "TXT")
            started = time.monotonic()
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            assert 1.9 < time.monotonic() - started < 2.4


async def test_an_answer_after_the_deadline_is_kept_for_the_next_who_asks() -> None:
    """The next nameserver is asked later than the first, and listened to for as long."""
    with DNSServer({}, {"good.example": "drop"}) as dead, DNSServer(RECORDS, {"good.example": "delay 0.35"}) as slow:
        async with resolving(dead, slow, timeout=0.4) as dns:
            with pytest.raises(DnsTempError):
                await dns.query("good.example", "TXT")
            assert dns.known("good.example", "TXT") is None
            await asyncio.sleep(0.2)
            answer = dns.known("good.example", "TXT")
            assert answer is not None
            assert answer.records == (b"good",)


async def test_every_question_has_a_port_of_its_own() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        async with resolving(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.2) as dns:
            for n in range(20):
                dns.prefetch(f"n{n}.example", "TXT")
            ports = {listener.recvfrom(512)[1][1] for _ in range(20)}
    assert len(ports) == 20


async def test_answers_that_are_none_do_not_disturb_the_questions_of_others() -> None:
    behaviours = {"*.hostile.example": "garbage", "good.example": "delay 0.5"}
    with DNSServer(RECORDS, behaviours) as server:
        async with resolving(server, timeout=2.0) as dns:
            good = asyncio.ensure_future(dns.query("good.example", "TXT"))
            hostile = [dns.query(f"n{n}.hostile.example", "TXT") for n in range(30)]
            ends = await asyncio.gather(*hostile, return_exceptions=True)
            assert all(isinstance(end, DnsTempError) for end in ends)
            assert (await good).records == (b"good",)
            assert server.asked("good.example TXT") <= 3


async def test_an_ipv6_nameserver() -> None:
    try:
        server = DNSServer(RECORDS, host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with server:
        async with resolving(f"[::1]:{server.port}") as dns:
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            assert (await dns.query("long.example", "TXT")).records == (LONG,)


# Several nameservers


async def test_the_second_nameserver_answers_where_the_first_is_closed(server: DNSServer) -> None:
    with DNSServer() as closed:
        pass
    async with resolving(closed, server) as dns:
        assert (await dns.query("good.example", "TXT")).records == (b"good",)


async def test_every_nameserver_is_used_however_many_there_are(server: DNSServer) -> None:
    with DNSServer() as closed:
        pass
    async with resolving(closed, closed, closed, closed, server) as dns:
        assert (await dns.query("good.example", "TXT")).records == (b"good",)


@pytest.mark.parametrize("behaviour", ["drop", "servfail", "refused"])
async def test_the_second_nameserver_answers_where_the_first_does_not(server: DNSServer, behaviour: str) -> None:
    with DNSServer(RECORDS, {"good.example": behaviour}) as first:
        async with resolving(first, server, timeout=1.5) as dns:
            started = time.monotonic()
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            assert time.monotonic() - started < 1.5
        assert server.asked() == 1


async def test_a_dead_nameserver_costs_time_once_only(server: DNSServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        async with resolving(f"127.0.0.1:{hole.getsockname()[1]}", server, timeout=1.5) as dns:
            await dns.query("good.example", "TXT")
            started = time.monotonic()
            for n in range(10):
                await dns.query(f"n{n}.example", "TXT")
            assert time.monotonic() - started < 0.4


async def test_all_nameservers_failing_is_a_temporary_failure_and_each_is_asked() -> None:
    with DNSServer(behaviours={"x.example": "servfail"}) as one, DNSServer(behaviours={"x.example": "refused"}) as two:
        async with resolving(one, two) as dns:
            with pytest.raises(DnsTempError, match="REFUSED"):
                await dns.query("x.example", "TXT")
        assert (one.asked(), two.asked()) == (1, 1)


@pytest.mark.parametrize("count", [1, 2], ids=["one nameserver", "two nameservers"])
async def test_names_whose_servers_time_out_do_not_mark_our_resolver_as_down(count: int) -> None:
    with DNSServer(RECORDS, {"*.hole.example": "drop"}) as one, DNSServer(RECORDS, {"*.hole.example": "drop"}) as two:
        async with resolving(*[one, two][:count], timeout=0.6) as dns:
            holes = [asyncio.ensure_future(dns.query(f"n{n}.hole.example", "TXT")) for n in range(50)]
            await asyncio.sleep(0.3)
            started = time.monotonic()
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            assert time.monotonic() - started < 0.15
            ends = await asyncio.gather(*holes, return_exceptions=True)
            assert all(isinstance(end, DnsTempError) for end in ends)
            started = time.monotonic()
            assert (await dns.query("example.org", "TXT")).records
            assert time.monotonic() - started < 0.15
        assert two.asked("good.example") == two.asked("example.org") == 0  # the first has kept its place


@pytest.mark.parametrize("behaviour", ["drop", "servfail"])
async def test_a_name_that_only_the_first_nameserver_fails_does_not_cost_it_its_place(
    server: DNSServer, behaviour: str
) -> None:
    with DNSServer(RECORDS, {"good.example": behaviour}) as first:
        async with resolving(first, server, timeout=0.9) as dns:
            asked = asyncio.ensure_future(dns.query("good.example", "TXT"))
            if behaviour == "drop":
                await asyncio.sleep(0.1)
                await dns.query("other.example", "TXT")  # so it is alive
            assert (await asked).records == (b"good",)
            await dns.query("third.example", "TXT")
        assert first.asked("third.example") == 1
        assert server.asked("third.example") == 0


async def test_the_first_nameserver_gets_its_place_back(server: DNSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STICKY", 0.2)
    with DNSServer() as first:
        pass
    async with resolving(first, server) as dns:
        await dns.query("one.example", "TXT")
        with DNSServer(port=first.port) as back:
            await dns.query("two.example", "TXT")
            assert back.asked() == 0
            await asyncio.sleep(0.25)
            await dns.query("three.example", "TXT")
            assert back.queries == ["three.example TXT udp"]


# Cache


async def test_answers_are_kept_for_their_ttl() -> None:
    clock = Clock()
    with DNSServer(RECORDS, ttls={"good.example TXT": 30}) as server:
        async with resolving(server, clock=clock) as dns:
            assert (await dns.query("good.example", "TXT")).ttl == 30
            clock.now += 29.5
            again = await dns.query("GOOD.example.", "TXT")
            assert (again.records, again.ttl) == ((b"good",), 0.5)
            assert dns.known("good.example", "TXT") == again
            assert server.asked() == 1
            clock.now += 0.5
            assert dns.known("good.example", "TXT") is None
            await dns.query("good.example", "TXT")
            assert server.asked() == 2


async def test_an_alias_with_a_shorter_ttl_shortens_the_answers() -> None:
    records = {"alias.example CNAME": ["good.example"], "good.example TXT": ["good"]}
    with DNSServer(records, ttls={"alias.example CNAME": 7}) as server:
        async with resolving(server) as dns:
            assert (await dns.query("alias.example", "TXT")).ttl == 7


@pytest.mark.parametrize(
    ("name", "minimum", "options", "seconds"),
    [
        ("good.example", 60, {"max_ttl": 20.0}, 20.0),
        ("nowhere.example", 60, {}, 60.0),
        ("example.org", 60, {}, 60.0),
        ("nowhere.example", 86400, {}, 300.0),
        ("example.org", 86400, {"negative_ttl": 10.0}, 10.0),
        ("example.org", 86400, {"max_ttl": 5.0}, 5.0),
        ("nosoa.example", 60, {}, 0.0),
        ("good.example", 60, {"cache_size": 0}, 0.0),
        ("nowhere.example", 60, {"cache_size": 0}, 0.0),
    ],
    ids=[
        "max_ttl bounds answers",
        "NXDOMAIN is kept for the minimum of the SOA",
        "no data is kept for the minimum of the SOA",
        "negative_ttl bounds NXDOMAIN",
        "negative_ttl bounds no data",
        "max_ttl bounds negative answers too",
        "without SOA a negative answer is not kept",
        "without cache an answer may not be kept by anybody",
        "without cache a negative answer may not be kept by anybody",
    ],
)
async def test_how_long_answers_are_kept(name: str, minimum: int, options: dict[str, Any], seconds: float) -> None:
    clock = Clock()
    records = {"good.example TXT": ["good"], "example.org A": ["192.0.2.1"]}
    with DNSServer(records, {"nosoa.example": "no-soa"}, minimum=minimum) as server:
        async with resolving(server, clock=clock, **options) as dns:
            first = await dns.query(name, "TXT")
            assert first.ttl == seconds
            assert (dns.known(name, "TXT") is not None) == (seconds > 0)
            clock.now += seconds - 0.01
            await dns.query(name, "TXT")
            assert server.asked() == (1 if seconds else 2)
            clock.now += 0.01
            assert dns.known(name, "TXT") is None
            await dns.query(name, "TXT")
            assert server.asked() == (2 if seconds else 3)


@pytest.mark.parametrize("behaviour", ["servfail", "drop"])
async def test_a_failure_is_not_asked_again_for_some_seconds(behaviour: str) -> None:
    clock = Clock()
    with DNSServer(RECORDS, {"good.example": behaviour}) as server:
        async with resolving(server, clock=clock, timeout=0.2, servfail_ttl=5.0) as dns:
            with pytest.raises(DnsTempError):
                await dns.query("good.example", "TXT")
            asked = server.asked()
            clock.now += 4.9
            with pytest.raises(DnsTempError):
                await dns.query("good.example", "TXT")
            dns.prefetch("good.example", "TXT")
            assert dns.known("good.example", "TXT") is None
            assert server.asked() == asked
            server.behave("good.example", "")
            clock.now += 0.1
            assert (await dns.query("good.example", "TXT")).records == (b"good",)


async def test_without_cache_failures_are_asked_again() -> None:
    with DNSServer(behaviours={"bad.example": "servfail"}) as server:
        async with resolving(server, cache_size=0) as dns:
            for _ in range(2):
                with pytest.raises(DnsTempError):
                    await dns.query("bad.example", "TXT")
        assert server.asked() == 2


async def test_the_cache_is_bounded_and_forgets_what_was_not_used_longest(server: DNSServer) -> None:
    async with resolving(server, cache_size=3) as dns:
        for name in ("a.example", "b.example", "c.example"):
            await dns.query(name, "TXT")
        assert dns.known("a.example", "TXT")
        await dns.query("d.example", "TXT")
        left = [name for name in "abcd" if dns.known(f"{name}.example", "TXT")]
        assert left == ["a", "c", "d"]


async def test_the_cache_is_bounded_in_octets(server: DNSServer) -> None:
    with DNSServer({"*.fat.example TXT": [b"x" * 10 * CACHED_OCTETS]}) as fat:
        async with resolving(fat, cache_size=30) as dns:
            for n in range(6):
                await dns.query(f"n{n}.fat.example", "TXT")
            kept = [n for n in range(6) if dns.known(f"n{n}.fat.example", "TXT")]
            assert kept == [3, 4, 5]


async def test_types_are_cached_apart(server: DNSServer) -> None:
    async with resolving(server) as dns:
        await dns.query("example.org", "A")
        assert dns.known("example.org", "AAAA") is None
        assert (await dns.query("example.org", "AAAA")).records == ("2001:db8::1",)


# Coalescing and prefetch


@pytest.mark.parametrize("cache_size", [0, 100], ids=["without cache", "with cache"])
async def test_who_asks_the_same_at_the_same_time_shares_one_question(cache_size: int) -> None:
    with DNSServer(RECORDS, {"good.example": "delay 0.1"}) as server:
        async with resolving(server, cache_size=cache_size) as dns:
            answers = await asyncio.gather(*(dns.query("good.example", "TXT") for _ in range(20)))
            assert {answer.records for answer in answers} == {(b"good",)}
        assert server.asked() == 1


async def test_failures_are_shared_too() -> None:
    with DNSServer(behaviours={"bad.example": "servfail delay 0.1"}) as server:
        async with resolving(server) as dns:
            asked = [dns.query("bad.example", "TXT") for _ in range(20)]
            assert {type(end) for end in await asyncio.gather(*asked, return_exceptions=True)} == {DnsTempError}
        assert server.asked() == 1


async def test_who_gives_up_does_not_take_the_answer_from_others() -> None:
    with DNSServer(RECORDS, {"good.example": "delay 0.1"}) as server:
        async with resolving(server) as dns:
            first, second = (asyncio.ensure_future(dns.query("good.example", "TXT")) for _ in range(2))
            await asyncio.sleep(0.02)
            first.cancel()
            assert (await second).records == (b"good",)
            assert first.cancelled()
        assert server.asked() == 1


async def test_a_question_that_all_gave_up_still_fills_the_cache() -> None:
    with DNSServer(RECORDS, {"good.example": "delay 0.1"}) as server:
        async with resolving(server) as dns:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(dns.query("good.example", "TXT"), 0.02)
            await asyncio.sleep(0.2)
            assert dns.known("good.example", "TXT")


async def test_prefetch_asks_and_a_query_joins_in() -> None:
    with DNSServer(RECORDS, {"good.example": "delay 0.1"}) as server:
        async with resolving(server) as dns:
            dns.prefetch("good.example", "TXT")
            dns.prefetch("good.example.", "TXT")
            assert dns.known("good.example", "TXT") is None
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            dns.prefetch("good.example", "TXT")
        assert server.asked() == 1


async def test_a_prefetch_that_fails_disturbs_nobody() -> None:
    with DNSServer(behaviours={"bad.example": "servfail"}) as server:
        async with resolving(server) as dns:
            dns.prefetch("bad.example", "TXT")
            await asyncio.sleep(0.1)
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "TXT")
        assert server.asked() == 1


# Bounds, hooks and the end


async def test_questions_under_way_are_bounded_and_more_of_them_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 10)
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    with DNSServer(RECORDS, {"*.slow.example": "delay 1"}) as server:
        async with resolving(server, timeout=20) as dns:
            for n in range(10):
                dns.prefetch(f"n{n}.slow.example", "TXT")
            waiting = [asyncio.ensure_future(dns.query(name, "TXT")) for name in ("good.example", "user+tag.example")]
            await asyncio.sleep(0.1)
            assert server.asked() == 10
            dns.prefetch("one-more.slow.example", "TXT")
            with pytest.raises(DnsTempError, match="too many"):
                await dns.query("example.org", "TXT")
            assert not (await dns.query("n1.slow.example", "TXT")).exists  # joining in is no question
            assert [answer.records for answer in await asyncio.gather(*waiting)] == [(b"good",), ()]
            assert (await dns.query("example.org", "TXT")).records  # and it was not remembered


async def test_clients_can_not_take_the_last_places_of_what_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    with DNSServer(RECORDS, {"*.slow.example": "delay 0.2"}) as server:
        async with resolving(server, timeout=20) as dns:
            dns.prefetch("first.slow.example", "TXT")
            waiting = [
                asyncio.ensure_future(dns.for_client(f"192.0.2.{n}").query(f"n{n}.example", "TXT")) for n in range(8)
            ]
            await asyncio.sleep(0.05)
            with pytest.raises(DnsBusyError):
                await dns.for_client("192.0.2.99").query("one-more.example", "TXT")
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            await asyncio.gather(*waiting)


async def test_what_was_not_even_asked_in_time_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    with DNSServer(RECORDS, {"*.slow.example": "delay 5"}) as server:
        async with resolving(server, timeout=0.3) as dns:
            first = asyncio.ensure_future(dns.query("first.slow.example", "TXT"))
            await asyncio.sleep(0.01)
            with pytest.raises(DnsBusyError):
                await dns.query("second.slow.example", "TXT")
            with pytest.raises(DnsTempError) as raised:
                await first
            assert not isinstance(raised.value, DnsBusyError)


async def test_a_client_has_its_share_and_the_others_theirs() -> None:
    with DNSServer(RECORDS, {"*.slow.example": "delay 0.3"}) as server:
        async with resolving(server, timeout=20, client_lookups=10) as dns:
            slow, other = dns.for_client("192.0.2.66"), dns.for_client("192.0.2.1")
            many = [asyncio.ensure_future(slow.query(f"n{n}.slow.example", "TXT")) for n in range(25)]
            await asyncio.sleep(0.1)
            assert server.asked() == 10
            assert (await other.query("good.example", "TXT")).records == (b"good",)
            assert not any(question.done() for question in many)
            # Somebody else who asks for what waits does not wait for the other's turn.
            joined = asyncio.ensure_future(other.query("n24.slow.example", "TXT"))
            await asyncio.sleep(0.05)
            assert server.asked("n24.slow.example") == 1
            assert not (await joined).exists
            assert {(await question).exists for question in many} == {False}
            assert server.asked("n24.slow.example") == 1
            assert (dns._by_client, dict(dns._backlog), dns._waiting) == ({}, {}, 0)


async def test_joining_a_question_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 40)
    with DNSServer(RECORDS, {"*.slow.example": "delay 0.3"}) as server:
        async with resolving(server, timeout=20, client_lookups=10) as dns:
            clients = [dns.for_client("192.0.2.66"), dns.for_client("192.0.2.67")]
            for number, client in enumerate(clients):
                for n in range(10):
                    client.prefetch(f"c{number}n{n}.slow.example", "TXT")
            same = [asyncio.ensure_future(clients[n % 2].query("one.slow.example", "TXT")) for n in range(200)]
            await asyncio.sleep(0.05)
            assert dns._waiting == 1
            assert (await dns.for_client("192.0.2.1").query("good.example", "TXT")).records == (b"good",)
            assert not any(answer.exists for answer in await asyncio.gather(*same))


async def test_clients_that_wait_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 10)
    with DNSServer(RECORDS, {"*.slow.example": "delay 0.1"}) as server:
        async with resolving(server, timeout=20) as dns:
            many, few = dns.for_client("192.0.2.66"), dns.for_client("192.0.2.1")
            asked = [asyncio.ensure_future(many.query(f"m{n}.slow.example", "TXT")) for n in range(40)]
            await asyncio.sleep(0)
            late = asyncio.ensure_future(few.query("f.slow.example", "TXT"))
            await late
            assert sum(question.done() for question in asked) <= 20, "the first of the other's was among the next ten"
            await asyncio.gather(*asked)


async def test_of_one_client_only_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 40)
    with DNSServer(RECORDS, {"*.slow.example": "delay 0.2"}) as server:
        async with resolving(server, timeout=20, client_lookups=10) as dns:
            client, other = dns.for_client("192.0.2.66"), dns.for_client("192.0.2.1")
            asked = [asyncio.ensure_future(client.query(f"n{n}.slow.example", "TXT")) for n in range(30)]
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(answer, DnsTempError) for answer in done) == 10
            assert (await other.query("good.example", "TXT")).records == (b"good",)


async def test_a_question_that_waits_too_long_is_a_failure_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    with DNSServer(RECORDS, {"lost.example": "drop", "slow.example": "delay 0.15"}) as server:
        async with resolving(server, timeout=0.3) as dns:
            dns.prefetch("lost.example", "TXT")  # takes the only place for 0.3 s,
            dns.prefetch("slow.example", "TXT")  # and this for 0.15 s more
            with pytest.raises(DnsTempError, match="time-out"):
                await dns.query("good.example", "TXT")
            assert not server.asked("good.example")
            assert (await dns.query("good.example", "TXT")).records == (b"good",)


@pytest.mark.parametrize("name", ["n{}.example", "n+{}.example"], ids=["plain names", "odd names"])
async def test_many_questions_at_once_need_few_open_files(server: DNSServer, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        async with resolving(server, timeout=20.0) as dns:  # the machine may be busy
            answers = await asyncio.gather(*(dns.query(name.format(n), "TXT") for n in range(1200)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {answer.exists for answer in answers} == {False}


async def test_hooks_are_told(server: DNSServer) -> None:
    asked: list[tuple[str, str]] = []
    cache: list[str] = []

    def on_query(rdtype: str, outcome: str, seconds: float) -> None:
        assert 0 <= seconds < 1
        asked.append((rdtype, outcome))

    with DNSServer(RECORDS, {"bad.example": "servfail"}) as faulty:
        async with resolving(faulty, on_query=on_query, on_cache=cache.append) as dns:
            for name, rdtype in (("example.org", "A"), ("nowhere.example", "MX"), ("null.example", "TXT")):
                await dns.query(name, rdtype)
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "PTR")
            assert cache == ["miss"] * 4
            await dns.query("example.org", "A")
            assert dns.known("example.org", "A")
            assert cache[4:] == ["hit", "hit"]
    assert asked == [("A", "ok"), ("MX", "nxdomain"), ("TXT", "nodata"), ("PTR", "temperror")]


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [
        ({"bad.example": "servfail"}, "servfail"),
        ({"bad.example": "refused"}, "refused"),
        ({"bad.example": "notauth"}, "broken"),
        ({"bad.example": "garbage"}, "broken"),
        ({"bad.example": "drop"}, "timeout"),
        ({"bad.example": "truncate tcp-refused"}, "unreachable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_why_there_was_no_answer(behaviours: dict[str, str], expected: str) -> None:
    told: list[str] = []
    with DNSServer(RECORDS, behaviours) as faulty:
        async with resolving(faulty, timeout=0.3, on_failure=told.append) as dns:
            await dns.query("example.org", "A")
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "TXT")
    assert told == [expected]


@pytest.mark.parametrize("first", ["silent", "speaking"])
async def test_what_one_nameserver_says_counts_more_than_that_another_is_silent(first: str) -> None:
    told: list[str] = []
    with (
        DNSServer(behaviours={"bad.example": "servfail"}) as speaking,
        DNSServer(behaviours={"bad.example": "drop"}) as silent,
    ):
        both = (silent, speaking) if first == "silent" else (speaking, silent)
        async with resolving(*both, timeout=0.4, on_failure=told.append) as dns:
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "TXT")
    assert told == ["servfail"]


async def test_to_ask_anew_is_to_ask_a_nameserver(server: DNSServer) -> None:
    async with resolving(server) as dns:
        for _ in range(3):
            await dns.query("example.org", "A")
        assert server.asked("example.org A") == 1
        anew = await dns.ask_anew("Example.org.", "A")
        assert (anew.records, server.asked("example.org A")) == (("192.0.2.1", "192.0.2.2"), 2)
        # Who asks at the same time joins in, and what came is kept for the others.
        await asyncio.gather(*(dns.ask_anew("example.org", "A") for _ in range(5)))
        assert dns.known("example.org", "A")
        assert server.asked("example.org A") == 3
        assert await dns.ask_anew("a..example", "A") == Answer((), exists=False)
    with DNSServer(RECORDS) as late:
        late.behave("example.org", "servfail")
        async with resolving(late) as dns:
            with pytest.raises(DnsTempError):
                await dns.query("example.org", "A")
            late.behave("example.org", "")
            with pytest.raises(DnsTempError):
                await dns.query("example.org", "A")
            assert (await dns.ask_anew("example.org", "A")).records, "a failure that is kept does not count either"


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]:5353", "fe80::1%1"])
async def test_nameservers_are_named_as_the_configuration_does(text: str) -> None:
    async with resolving(text) as dns:
        assert dns.addresses == (text,)


async def test_closing_ends_questions_and_leaves_no_socket() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with DNSServer(behaviours={"*.slow.example": "drop"}) as server:
        dns = StubResolver(options(server.address))
        asked = [asyncio.ensure_future(dns.query(f"n{n}.slow.example", "TXT")) for n in range(5)]
        await asyncio.sleep(0.05)
        dns.close()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(end, DnsTempError) for end in ends)
        with pytest.raises(DnsTempError, match="closed"):
            await dns.query("good.example", "TXT")
        dns.prefetch("good.example", "TXT")
        dns.close()
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_the_systems_nameservers_are_the_default() -> None:
    with closing(StubResolver(Dns())) as dns:
        assert dns.known("example.org", "A") is None


async def test_what_is_no_nameserver_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"\[dns\] nameservers"):
        StubResolver(options("localhost"))


# The server of the tests as a process


async def test_the_test_server_runs_as_a_process(tmp_path: Path) -> None:
    zone = tmp_path / "zone.json"
    zone.write_text('{"records": {"good.example TXT": ["good"]}, "behaviours": {"bad.example": "servfail"}}')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.dnsserver", str(zone), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        async with resolving(f"127.0.0.1:{port}") as dns:
            assert (await dns.query("good.example", "TXT")).records == (b"good",)
            with pytest.raises(DnsTempError):
                await dns.query("bad.example", "TXT")
    finally:
        process.terminate()
    assert await process.wait() == 0
