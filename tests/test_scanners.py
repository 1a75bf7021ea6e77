"""What clamd, spamd and rspamd are told, how their answers are read, and servers that are down, slow or mad."""

import asyncio
import io
import json
import os
import re
import socket
import tarfile
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from authmilter import eager
from authmilter.addresses import parse_path
from authmilter.config.endpoint import SocketAddress, parse_socket
from authmilter.errors import ScanError
from authmilter.model import Connection, Envelope, HeaderField, Message, Transaction
from authmilter.scanners import (
    GIVEN_UP,
    MAX_VERDICT,
    Opinion,
    Servers,
    TooLargeError,
    archive,
    clamd_request,
    exchange,
    header_section,
    http_url,
    read_clamd,
    read_rspamd,
    read_spamd,
    rspamd_request,
    server_socket,
    spamd_request,
    traced_header_section,
    web_server,
)
from tests.checks.mails import mail
from tests.scanner_servers import FakeServer, Serve, read_instream, serving

REQUEST = [b"hello\n"]


@pytest.fixture(
    params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"], scope="module"
)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The loop of the daemon, and that which it does without."""
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy


def text(answer: bytes) -> str:
    """Reads whatever is there; nothing is no answer."""
    if not answer:
        raise ScanError("answers nothing")
    return answer.decode("latin-1")


def addresses(*servers: FakeServer) -> list[SocketAddress]:
    return [parse_socket(server.socket) for server in servers]


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "sent"),
    [(100, b"H: 1\r\n\r\nbody"), (10, b"H: 1\r\n\r\nbo"), (8, b"H: 1\r\n\r\n"), (3, b"H: "), (12, b"H: 1\r\n\r\nbody")],
    ids=str,
)
def test_instream_is_cut(most: int, sent: bytes) -> None:
    request = b"".join(clamd_request([b"H: 1\r\n\r\n", b"body"], most))
    assert request == b"zINSTREAM\0" + len(sent).to_bytes(4, "big") + sent + b"\0\0\0\0"


async def test_instream_is_what_clamd_reads() -> None:
    body = os.urandom(3_000_000)
    streams = []

    async def clamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.append(await read_instream(reader))
        writer.write(b"stream: OK\0")
        await writer.drain()

    async with serving(clamd) as server:
        request = clamd_request([b"H: 1\r\n\r\n", body], 10**9)
        assert await Servers(addresses(server)).ask(request, read_clamd, MAX_VERDICT, 10) == ""
    assert streams == [b"H: 1\r\n\r\n" + body]


def test_a_spamd_request_has_the_length_and_the_user() -> None:
    request = b"".join(spamd_request(b"H: 1\r\n\r\n", b"body", "alice"))
    assert request == b"SYMBOLS SPAMC/1.5\r\nContent-length: 12\r\nUser: alice\r\n\r\nH: 1\r\n\r\nbody"
    assert b"User" not in b"".join(spamd_request(b"", b"", ""))


def test_the_header_section_is_what_came() -> None:
    fields = (HeaderField(b"From", b" a@b"), HeaderField(b"X-\xff ", b" folded\r\n\tvalue\x00"))
    message = Message(fields)
    assert header_section(message) == b"From: a@b\r\nX-\xff : folded\r\n\tvalue\x00\r\n\r\n"
    assert header_section(message) is header_section(message)


@pytest.mark.parametrize(
    ("connection", "helo", "first"),
    [
        (Connection(), b"host.example", b"from host.example"),
        (
            Connection(ip_address("192.0.2.1"), "host.example", mta_name="mx.test"),
            b"host.example",
            b"from host.example (host.example [192.0.2.1])",
        ),
        (
            Connection(ip_address("2001:db8::1")),
            b"[IPv6:2001:db8::1]",
            b"from [IPv6:2001:db8::1] (unknown [IPv6:2001:db8::1])",
        ),
        (
            Connection(ip_address("192.0.2.1"), "evil\r\nX: y"),
            b"a (b [1.2.3.4])",
            b"from unknown (unknown [192.0.2.1])",
        ),
        (Connection(ip_address("192.0.2.1")), b"h\xc3\xa9lo\r\nX: y", b"from unknown (unknown [192.0.2.1])"),
        (Connection(ip_address("192.0.2.1")), b"a" * 300, b"from unknown (unknown [192.0.2.1])"),
    ],
    ids=["no address", "a usual client", "IPv6", "a name with a line of its own", "HELO with lines", "a long HELO"],
)
def test_the_trace_field_is_ours_alone(connection: Connection, helo: bytes, first: bytes) -> None:
    tx = mail()._replace(connection=connection, helo=helo, queue_id="4abc")
    section = traced_header_section(tx, 0.0)
    ours = (connection.mta_name or "localhost").encode()
    trace = (
        b"Received: " + first + b"\r\n\tby " + ours + b" with ESMTP id 4abc\r\n\t(envelope-from <alice@example.org>);"
        b"\r\n\tThu, 01 Jan 1970 00:00:00 -0000\r\n"
    )
    assert section == trace + header_section(tx.message)


@pytest.mark.parametrize(
    ("sender", "named"),
    [
        (b"<alice+tag=x@mail.example.org>", True),
        (b"<alice@[192.0.2.1]>", True),
        (b"<>", False),
        (b'<"a b"@example.org>', False),
        (b'<"x>) by mx.test (y"@example.org>', False),
        (b"<\xc3\xa9@example.org>", False),
        (b"<alice>", False),
        (b"<" + b"a" * 70 + b"@example.org>", False),
    ],
)
def test_the_trace_field_names_a_plain_sender(sender: bytes, named: bool) -> None:
    tx = mail()
    tx = tx._replace(envelope=tx.envelope._replace(reverse_path=parse_path(sender)), queue_id="4abc")
    trace = traced_header_section(tx, 0.0).removesuffix(header_section(tx.message))
    told = b"\r\n\t(envelope-from " + sender + b")" if named else b""
    assert trace == b"Received: from unknown\r\n\tby localhost with ESMTP id 4abc" + told + (
        b";\r\n\tThu, 01 Jan 1970 00:00:00 -0000\r\n"
    )


@pytest.mark.parametrize(
    ("most", "names"),
    [
        (10_000, ["part-1", "part-2", "part-3"]),
        (4607, ["part-1", "part-2"]),
        (3583, ["part-1", "part-3"]),
        (2559, ["part-1"]),
        (2047, []),
    ],
)
def test_an_archive_holds_whole_files(most: int, names: list[str]) -> None:
    contents = [b"x" * 512, b"y" * 513, b"z"]
    pieces, complete = archive(contents, most)
    packed = b"".join(pieces)
    assert len(packed) <= most
    assert complete is (len(names) == 3)
    if names:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            held = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        assert {name: file.read() for name, file in held.items() if file} == {
            name: contents[int(name[-1]) - 1] for name in names
        }
    else:
        assert packed == b""


def test_a_password_and_settings_go_to_rspamd() -> None:
    request = b"".join(rspamd_request(Transaction(), "http://h/", b"", b"", settings="inbound", password="a b"))
    assert b"\r\nPassword: a b\r\nSettings-ID: inbound\r\n" in request


def test_rspamd_is_told_of_the_transaction() -> None:
    recipients = [parse_path(path) for path in (b"<bob@example.net>", b"<carol@example.net>")]
    envelope = Envelope(parse_path(b"<alice@example.org>"), tuple(path for path in recipients if path))
    connection = Connection(ip_address("192.0.2.1"), "host.example", mta_name="mx.test")
    tx = mail()._replace(connection=connection, helo=b"host.example", envelope=envelope, queue_id="4abc")
    request = b"".join(rspamd_request(tx, "http://127.0.0.1:11333/checkv2?a=b", b"H: 1\r\n\r\n", b"body"))
    assert request == (
        b"POST /checkv2?a=b HTTP/1.0\r\nHost: 127.0.0.1:11333\r\nContent-Length: 12\r\nIP: 192.0.2.1\r\nHelo: host.example\r\n"
        b"Hostname: host.example\r\nMTA-Name: mx.test\r\nQueue-Id: 4abc\r\nFrom: alice@example.org\r\n"
        b"Rcpt: bob@example.net\r\nRcpt: carol@example.net\r\n\r\nH: 1\r\n\r\nbody"
    )


def test_nothing_of_a_transaction_adds_a_field_to_the_request() -> None:
    tx = Transaction(helo=b"x\r\nIP: 127.0.0.1", connection=Connection(client_name="a\nb"), queue_id="\x7f")
    request = b"".join(rspamd_request(tx, "http://h/", b"", b""))
    assert request == b"POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 0\r\nFrom: <>\r\n\r\n"


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (b"stream: OK\0", ""),
        (b"stream: Eicar-Test.UNOFFICIAL FOUND\0", "Eicar-Test.UNOFFICIAL"),
        (b"stream: Two words FOUND\0", "Two words"),
        (b"stream:  FOUND\0", "unnamed"),
        (b"stream: a\r\nb\xff FOUND\0", "a??b?"),
        (b"stream: " + b"x" * 4000 + b" FOUND\0", "x" * 100),
    ],
    ids=["clean", "found", "a name with a blank", "no name", "a name with controls", "a long name"],
)
def test_clamd_says(answer: bytes, name: str) -> None:
    assert read_clamd(answer) == name


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"stream: OK",
        b"stream: OK\0stream: OK\0",
        b"stream: O",
        b"INSTREAM size limit exceeded. ERROR",
        b"stream: Can't allocate memory ERROR\0",
        b"UNKNOWN COMMAND\0",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"\xff" * 1000,
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_clamd_did_not_scan(answer: bytes) -> None:
    with pytest.raises(ScanError, match=r"^answers [ -~]{1,100}$"):
        read_clamd(answer)


def test_clamd_takes_less() -> None:
    with pytest.raises(TooLargeError, match="StreamMaxLength"):
        read_clamd(b"INSTREAM size limit exceeded. ERROR\0")


@pytest.mark.parametrize(
    ("answer", "opinion"),
    [
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 17\r\nSpam: True ; 7.4 / 5.0\r\n\r\nMSGID_SHORT,URI_X",
            Opinion(7.4, 5, ("MSGID_SHORT", "URI_X")),
        ),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.0 / 5.0\r\n\r\n", Opinion(-1, 5)),
        (b"SPAMD/1.5 0 EX_OK\r\nspam:  False ; 0 / 5\r\nX: y\r\n\r\n\r\n", Opinion(0, 5)),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 5\r\n\r\n" + b"A," * 5000, Opinion(1, 5, ("A",) * 20)),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1 / 5\r\n\r\nA\x1b[1m\r\nB", Opinion(1, 5, ("A?[1m??B",))),
    ],
    ids=["spam", "ham", "other case", "many symbols", "a symbol with controls"],
)
def test_spamd_says(answer: bytes, opinion: Opinion) -> None:
    assert read_spamd(answer) == opinion


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"SPAMD/1.0 76 Bad header line: X\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.4 / 5.0\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: 17\r\nSpam: True ; 7.4 / 5.0\r\n\r\nMSGID",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: -1\r\nSpam: True ; 7.4 / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: " + b"9" * 5000 + b"\r\nSpam: True ; 7.4 / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.4.1 / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; " + b"9" * 400 + b" / 5.0\r\n\r\n",
        b"SPAMD/1.1 1 EX\r\nSpam: True ; 7.4 / 5.0\r\n\r\n",
        b"HTTP/1.1 0 EX_OK\r\nSpam: True ; 7.4 / 5.0\r\n\r\n",
        b"\xff" * 100_000,
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_spamd_does_not_say(answer: bytes) -> None:
    with pytest.raises(ScanError):
        read_spamd(answer)


def http(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


TOLD = {
    "is_skipped": False,
    "score": 6.5,
    "required_score": 15.0,
    "action": "add header",
    "symbols": {"SMALL": {"score": 0.1}, "GOOD": {"score": -3.0}, "BAD": {"score": 5.0}, "NOTHING": {"score": 0.0}},
}


@pytest.mark.parametrize(
    ("body", "opinion"),
    [
        (json.dumps(TOLD), Opinion(6.5, 15, ("BAD", "GOOD", "SMALL"))),
        ('{"score": -2}', Opinion(-2, 0)),
        ('{"score": 1, "required_score": 15, "symbols": []}', Opinion(1, 15)),
        (
            '{"score": 1, "symbols": {"A": 1, "B": {}, "C": {"score": NaN}, "D": [], "\\n\\u00e9": {"score": 1}}}',
            Opinion(1, 0, ("??",)),
        ),
        ('{"score": 1, "symbols": {"C": {"score": 1' + "0" * 400 + "}}}", Opinion(1, 0)),
    ],
    ids=[
        "symbols, the heaviest first",
        "only a score",
        "symbols of another kind",
        "odd symbols",
        "a weight beyond floats",
    ],
)
def test_rspamd_says(body: str, opinion: Opinion) -> None:
    assert read_rspamd(http(body.encode())) == opinion


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK",
        http(b""),
        http(b"{}"),
        http(b"[]"),
        http(b"{"),
        http(b"\xff\xfe"),
        http(b'{"score": NaN}'),
        http(b'{"score": 1e999}'),
        http(b'{"score": true}'),
        http(b'{"score": [1]}'),
        http(b'{"score": 1' + b"0" * 400 + b"}"),
        http(b'{"score": 1' + b"0" * 5000 + b"}"),
        http(b'{"score": ' + b"[" * 200_000),
        http(b'{"score": 1}', b"HTTP/1.1 403 Forbidden\r\n"),
        http(b'{"score": 1}', b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"),
        http(b'{"score": 1}', b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n"),
        http(b'{"score": 1}')[:-3],
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.4 / 5.0\r\n\r\n",
        b"\x00" * 100_000,
    ],
    ids=lambda answer: repr(answer[:30] + answer[-15:]),
)
def test_rspamd_does_not_say(answer: bytes) -> None:
    with pytest.raises(ScanError):
        read_rspamd(answer)


@pytest.mark.parametrize("read", [read_clamd, read_spamd, read_rspamd])
def test_any_octets_are_an_answer_or_none(read: Callable[[bytes], object]) -> None:
    whole = (
        http(json.dumps(TOLD).encode()) + b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 7.4 / 5.0\r\n\r\nA,B\0stream: X FOUND\0"
    )
    for start in range(0, len(whole), 3):
        for end in range(start, len(whole), 7):
            try:
                read(whole[start:end])
            except ScanError:
                pass


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written", ["unix:/run/clamd.ctl", "inet:3310@127.0.0.1", "inet6:3310@::1", "inet:3310@av.example"]
)
def test_a_socket_is_accepted(written: str) -> None:
    assert server_socket(written) == written


@pytest.mark.parametrize("written", ["", "inet:3310", "inet:0@127.0.0.1", "unix:relative", "3310", "http://h/"])
def test_a_socket_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        server_socket(written)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:11333/checkv2", "127.0.0.1", 11333),
        ("http://rspamd.example/checkv2", "rspamd.example", 80),
        ("http://[::1]/checkv2", "::1", 80),
    ],
)
def test_where_a_web_server_listens(url: str, host: str, port: int) -> None:
    assert http_url(url) == url
    assert web_server(url) == SocketAddress("inet", host, port)


@pytest.mark.parametrize("url", ["https://h/checkv2", "http:///checkv2", "h:11333", "http://user:word@h/"])
def test_an_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        http_url(url)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(REQUEST[0]))
    writer.write(b"yes")
    await writer.drain()
    writer.close()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.01)


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"y" * 65536)
        await writer.drain()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


FAILURES = [
    pytest.param(hangs, "no answer in time", id="hangs"),
    pytest.param(drips, "no answer in time", id="drips"),
    pytest.param(floods, "answers over 4096 octets", id="floods"),
    pytest.param(closes, "reset|nothing", id="closes"),
    pytest.param(resets, "reset", id="resets"),
]


@pytest.mark.parametrize(("fails", "reason"), FAILURES)
async def test_a_server_that_fails_costs_bounded_time_and_memory(fails: Serve, reason: str) -> None:
    async with serving(fails) as server:
        held = open_files()
        began = time.monotonic()
        with pytest.raises(ScanError, match=reason):
            await Servers(addresses(server)).ask([b"x" * 8_000_000], text, 4096, 0.3)
        assert time.monotonic() - began < 1.5
        await asyncio.sleep(0.05)
        assert open_files() <= held + 1  # the server's own end


@pytest.mark.parametrize(("fails", "reason"), FAILURES)
async def test_the_next_server_is_asked(fails: Serve, reason: str) -> None:
    async with serving(fails) as first, serving(answers) as second:
        servers = Servers(addresses(first, second))
        for _ in range(3):
            assert await servers.ask(REQUEST, text, 4096, 0.6) == "yes"
        assert (first.asked, second.asked) == (1, 3)  # who failed comes last


async def test_who_failed_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.scanners.REST", 0.2)
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else closes)(reader, writer)

    async with serving(sometimes) as first, serving(answers) as second:
        servers = Servers(addresses(first, second))
        await servers.ask(REQUEST, text, 4096, 5)
        assert (first.asked, second.asked) == (1, 1)
        up = True
        await asyncio.sleep(0.25)
        for _ in range(3):
            await servers.ask(REQUEST, text, 4096, 5)
        assert (first.asked, second.asked) == (4, 1)


async def test_only_one_tries_whether_a_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.scanners.REST", 0.2)
    async with serving(hangs) as first, serving(answers) as second:
        servers = Servers(addresses(first, second))
        await servers.ask(REQUEST, text, 4096, 0.4)
        await asyncio.sleep(0.25)
        asked = [asyncio.ensure_future(servers.ask(REQUEST, text, 4096, 1.0)) for _ in range(5)]
        done, pending = await asyncio.wait(asked, timeout=0.15)
        assert (len(done), len(pending), first.asked) == (4, 1, 2)
        assert await pending.pop() == "yes"


class Counted:
    """Answers after a while, and counts how many wait for that at once."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.now = self.most = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.delay)
        self.now -= 1
        await answers(reader, writer)


async def test_a_server_has_no_more_connections_than_it_may() -> None:
    counted = Counted(0.02)
    async with serving(counted) as server:
        servers = Servers(addresses(server), 3)
        assert await asyncio.gather(*(servers.ask(REQUEST, text, 4096, 5) for _ in range(20))) == ["yes"] * 20
    assert counted.most == 3


async def test_what_is_too_much_for_one_server_goes_to_the_next() -> None:
    slow, other = Counted(0.3), Counted(0.3)
    async with serving(slow) as first, serving(other) as second:
        servers = Servers(addresses(first, second), 2)
        began = time.monotonic()
        asked = []
        for _ in range(4):
            asked.append(asyncio.ensure_future(servers.ask(REQUEST, text, 4096, 5)))
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*asked) == ["yes"] * 4
        assert time.monotonic() - began < 0.55
        assert (slow.most, other.most) == (2, 2)


async def test_to_wait_for_a_connection_takes_no_more_than_the_time_and_is_no_failure() -> None:
    async with serving(Counted(0.5)) as server:
        servers = Servers(addresses(server), 1)
        first = asyncio.ensure_future(servers.ask(REQUEST, text, 4096, 5))
        await asyncio.sleep(0.05)
        for _ in range(GIVEN_UP):
            with pytest.raises(ScanError, match="all connections are in use"):
                await servers.ask(REQUEST, text, 4096, 0.05)
        assert await first == "yes"


async def test_a_server_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.scanners.HURRY", 0.1)
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else hangs)(reader, writer)

    async with serving(sometimes) as server:
        servers = Servers(addresses(server))
        took = []
        for _ in range(GIVEN_UP + 1):
            began = time.monotonic()
            with pytest.raises(ScanError, match="no answer in time"):
                await servers.ask(REQUEST, text, 4096, 0.3)
            took.append(round(time.monotonic() - began, 1))
        assert min(took[:GIVEN_UP]) >= 0.3 > 0.25 > took[-1]
        up = True
        assert await servers.ask(REQUEST, text, 4096, 0.3) == "yes"


async def test_several_that_hang_share_the_time() -> None:
    async with serving(hangs) as first, serving(drips) as second, serving(hangs) as third:
        servers = Servers(addresses(first, second, third))
        began = time.monotonic()
        with pytest.raises(ScanError, match=r"(no answer in time.*){3}"):
            await servers.ask(REQUEST, text, 4096, 0.3)
        assert time.monotonic() - began < 0.6
        assert (first.asked, second.asked, third.asked) == (1, 1, 1)


async def test_that_a_server_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else closes)(reader, writer)

    caplog.set_level("INFO", "authmilter.scanners")
    async with serving(sometimes) as server:
        servers = Servers(addresses(server))
        for _ in range(5):
            with pytest.raises(ScanError):
                await servers.ask(REQUEST, text, 4096, 5)
        up = True
        for _ in range(2):
            await servers.ask(REQUEST, text, 4096, 5)
    failed, again = caplog.messages
    assert re.fullmatch(
        rf"scanner {re.escape(server.socket)} failed: (answers nothing|Connection reset by peer)", failed
    )
    assert again == f"scanner {server.socket} answers again"


async def test_he_who_goes_away_says_nothing_about_the_server() -> None:
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else hangs)(reader, writer)

    async with serving(sometimes) as server:
        servers = Servers(addresses(server), 2, patient=False)
        for _ in range(2 * GIVEN_UP):
            scan = asyncio.ensure_future(servers.ask(REQUEST, text, 4096, 60))
            await asyncio.sleep(0.02)
            scan.cancel()
            with pytest.raises(asyncio.CancelledError):
                await scan
        up = True
        assert await servers.ask(REQUEST, text, 4096, 5) == "yes"  # he has let go of his connection, too


async def test_too_large_is_no_failure_and_said_where_all_say_it() -> None:
    async def small(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_instream(reader)
        writer.write(b"INSTREAM size limit exceeded. ERROR\0")
        await writer.drain()

    request = clamd_request([b"x" * 100], 1000)
    async with serving(small) as first, serving(small) as second:
        servers = Servers(addresses(first, second), patient=False)
        for _ in range(2 * GIVEN_UP):
            with pytest.raises(TooLargeError):
                await servers.ask(request, read_clamd, MAX_VERDICT, 5)
        assert (first.asked, second.asked) == (2 * GIVEN_UP, 2 * GIVEN_UP)
        other = Servers([*addresses(first), SocketAddress("unix", path="/nowhere/clamd.ctl")])
        with pytest.raises(ScanError, match=r"StreamMaxLength.*No such file") as raised:
            await other.ask(request, read_clamd, MAX_VERDICT, 5)
        assert not isinstance(raised.value, TooLargeError)  # the other one may take it, when it is back


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nowhere = SocketAddress("inet", "127.0.0.1", bound.getsockname()[1])
        servers = Servers([nowhere, SocketAddress("unix", path="/nowhere/clamd.ctl")])
        with pytest.raises(ScanError, match=r"refused; unix:/nowhere/clamd.ctl: No such file"):
            await servers.ask(REQUEST, text, 4096, 5)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_how_a_server_may_be_named(host: str, request: pytest.FixtureRequest) -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop) is ("uvloop" in request.node.name)
    try:
        server = await asyncio.start_server(answers, "::1" if host == "::1" else "127.0.0.1", 0)
    except OSError as error:
        pytest.skip(f"no address {host} here: {error}")
    async with server:
        address = SocketAddress("inet", host, server.sockets[0].getsockname()[1])
        assert await Servers([address]).ask(REQUEST, text, 4096, 5) == "yes"


async def test_a_name_that_is_none() -> None:
    with pytest.raises(ScanError):
        await Servers([SocketAddress("inet", f"{'a' * 70}.example", 1)]).ask(REQUEST, text, 4096, 5)


async def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", unknown, raising=False)
    with pytest.raises(ScanError, match=r"av\.example: Name or service not known"):
        await Servers([SocketAddress("inet", "av.example", 1)]).ask(REQUEST, text, 4096, 5)


async def test_a_server_that_has_recovered_is_asked_first_again() -> None:
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else closes)(reader, writer)

    async with serving(sometimes) as first, serving(sometimes) as second:
        servers = Servers(addresses(first, second))
        with pytest.raises(ScanError):
            await servers.ask(REQUEST, text, 4096, 5)
        up = True
        for _ in range(3):
            await servers.ask(REQUEST, text, 4096, 5)
        assert (first.asked, second.asked) == (4, 1)


async def test_what_is_said_while_the_request_is_under_way_is_heard(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.write(b"too much")
        writer.close()

    server = await asyncio.start_unix_server(refuse, tmp_path / "socket")
    async with server:
        request = [b"x" * 20_000_000]
        assert await exchange(SocketAddress("unix", path=str(tmp_path / "socket")), request, 4096) == b"too much"


@pytest.mark.parametrize(("patient", "asked"), [(True, 20), (False, GIVEN_UP)])
async def test_only_a_patient_client_goes_on_asking_who_never_answers(patient: bool, asked: int) -> None:
    async with serving(closes) as server:
        servers = Servers(addresses(server), patient=patient)
        for _ in range(20):
            with pytest.raises(ScanError):
                await servers.ask(REQUEST, text, 4096, 5)
        assert server.asked == asked + (0 if patient else 1)  # one more, to see whether it is back


async def test_who_is_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.scanners.REST", 0.05)
    up = False

    async def sometimes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (answers if up else closes)(reader, writer)

    async with serving(sometimes) as server:
        servers = Servers(addresses(server), patient=False)
        for _ in range(10):
            with pytest.raises(ScanError):
                await servers.ask(REQUEST, text, 4096, 5)
        up = True
        await asyncio.sleep(0.1)
        for _ in range(10):
            assert await servers.ask(REQUEST, text, 4096, 5) == "yes"


async def test_a_time_out_ends_the_scan_and_not_who_started_it() -> None:
    async with serving(hangs) as server:
        servers = Servers(addresses(server))
        scans = [eager.start(servers.ask(REQUEST, text, 4096, 0.1)) for _ in range(20)]
        await asyncio.sleep(0.3)  # a time-out that were ours would end this
        for scan in scans:
            with pytest.raises(ScanError):
                scan.result()


async def test_a_scan_that_is_cancelled_leaves_nothing() -> None:
    async with serving(hangs) as server:
        scan = asyncio.ensure_future(Servers(addresses(server)).ask([b"x" * 8_000_000], text, 4096, 60))
        await asyncio.sleep(0.1)
        before = len(asyncio.all_tasks())
        scan.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scan
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= before - 2  # the scan, and what was still being sent
