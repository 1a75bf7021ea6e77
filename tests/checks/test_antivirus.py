"""What is done about what clamd says, and where it says nothing; with a real clamd where there is one."""

import asyncio
import base64
import os
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.check import all_checks
from authmilter.checks.antivirus import antivirus, outbound_antivirus
from authmilter.config import ini
from authmilter.errors import ConfigError, ScanError
from authmilter.evidence import Finding
from authmilter.model import Connection, Direction, Message, Stage, Transaction
from authmilter.verdict import Action
from tests.checks.mails import mail
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import reply, verdict
from tests.scanner_servers import EICAR, MARKER, Clamd, FakeServer, read_instream, require_clamd, serving
from tests.test_session import GOOD, HEADER, Rig, results

OUR_USER = {b"{auth_authen}": b"alice"}


def section(socket: object, options: str = "") -> str:
    return f"[antivirus]\nclamd = {socket}\n{options}"


def with_body(body: bytes, header: str = "", *, cut: bool = False) -> Transaction:
    tx = mail(header)
    return tx._replace(
        message=Message(tx.message.fields, body=body, body_size=len(body), body_cut=cut),
        connection=Connection(ip_address("192.0.2.1"), "host.example", mta_name="mx.test"),
        helo=b"host.example",
    )


def multipart(content: bytes) -> tuple[str, bytes]:
    """Header and body of a message with an attachment."""
    body = (
        b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n"
        b"Content-Type: application/octet-stream; name=x.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        + b"\r\n--b--\r\n"
    )
    return "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n", body


class Scripted:
    """A clamd that says one thing, and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.streams: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams.append(await read_instream(reader))
        writer.write(self.answer)
        await writer.drain()


async def found(answer: bytes, tx: Transaction, options: str = "") -> tuple[list[Finding], bytes]:
    """What the check yields where clamd says that, and what clamd was sent."""
    clamd = Scripted(answer)
    async with serving(clamd) as server:
        findings = await awaited(antivirus, tx, tools("antivirus", config=section(server.socket, options)))
    return findings, clamd.streams[0]


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "inbound", "outbound"),
    [
        ("", False, False),
        (section("unix:/run/clamav/clamd.ctl"), True, True),
        (section("inet:3310@127.0.0.1, unix:/run/clamd.ctl"), True, True),
        (section("unix:/run/clamav/clamd.ctl", "outbound = no"), True, False),
    ],
    ids=["off by default", "on where clamd is set", "several", "inbound alone"],
)
def test_where_it_runs(config: str, inbound: bool, outbound: bool) -> None:
    assert (is_wanted("antivirus", config), is_wanted("outbound_antivirus", config)) == (inbound, outbound)


@pytest.mark.parametrize("socket", ["inet:3310", "clamd", "http://127.0.0.1/"])
def test_a_socket_that_is_none(socket: str) -> None:
    with pytest.raises(ConfigError, match="clamd"):
        ini.load(None, section(socket))


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "findings"),
    [
        (b"stream: OK\0", []),
        (b"stream: Win.Test FOUND\0", [Finding("antivirus_found", "Win.Test")]),
        (b"stream: Heuristics.Phishing FOUND\0", [Finding("antivirus_suspicious", "Heuristics.Phishing")]),
        (b"stream: PUA.Doc FOUND\0", [Finding("antivirus_suspicious", "PUA.Doc")]),
    ],
    ids=["clean", "malware", "a heuristic of clamd", "what may be unwanted"],
)
async def test_findings(answer: bytes, findings: list[Finding]) -> None:
    assert (await found(answer, with_body(b"hello")))[0] == findings


async def test_no_name_is_only_suspicious_where_the_operator_says_so() -> None:
    findings, _ = await found(b"stream: Heuristics.X FOUND\0", with_body(b"hello"), "suspicious =\n")
    assert findings == [Finding("antivirus_found", "Heuristics.X")]


async def test_the_whole_message_is_sent_below_our_trace_field() -> None:
    tx = with_body(b"line\r\n\x00\xff")
    _, stream = await found(b"stream: OK\0", tx)
    trace, _, rest = stream.partition(b"\r\nFrom:")
    assert trace.startswith(b"Received: from host.example (host.example [192.0.2.1])\r\n\tby mx.test with ")
    assert rest.startswith(b" Alice <alice@example.org>\r\nTo: ")
    assert rest.endswith(b"\r\n\r\nline\r\n\x00\xff")


@pytest.mark.parametrize(
    ("body", "cut", "options", "finding"),
    [
        (b"x" * 3000, False, "max_size = 2048", True),
        (b"x" * 3000, True, "", True),
        (b"x" * 3000, False, "", False),
    ],
    ids=["by max_size", "by scan_size", "not at all"],
)
async def test_what_was_not_scanned_is_told(body: bytes, cut: bool, options: str, finding: bool) -> None:
    findings, stream = await found(b"stream: OK\0", with_body(body, cut=cut), options)
    assert [one.symbol for one in findings] == ["antivirus_cut"] * finding
    if options:
        assert len(stream) == 2048


@pytest.mark.parametrize(
    ("symbol", "config", "words"),
    [
        ("antivirus_found", "", "554 5.7.1 Message contains malware: X [ref]"),
        ("antivirus_found", "[scores]\nantivirus_found = tempfail\n", "451 4.7.1 Message contains malware: X [ref]"),
        ("antivirus_found", "[policy]\npreset = observe\n", ""),
        ("antivirus_suspicious", "", ""),
        ("antivirus_cut", "", ""),
        ("antivirus_temperror", "", ""),
        (
            "antivirus_temperror",
            "on_error = defer\n",
            "451 4.7.1 Message could not be scanned for malware for now, please try again later [ref]",
        ),
        ("antivirus_temperror", "on_error = defer\n[policy]\npreset = observe\n", ""),
        ("antivirus_temperror", "on_error = defer\n[scores]\nantivirus_temperror = 0\n", ""),
    ],
)
def test_replies(symbol: str, config: str, words: str) -> None:
    assert reply(with_body(b""), Stage.EOM, [Finding(symbol, "X")], section("unix:/run/c", config)) == words


@pytest.mark.parametrize(
    ("symbol", "config", "words"),
    [
        ("outbound_antivirus_found", "", "554 5.7.1 Message contains malware: X [ref]"),
        ("outbound_antivirus_found", "[policy]\npreset = observe\n", "554 5.7.1 Message contains malware: X [ref]"),
        ("outbound_antivirus_suspicious", "", ""),
        ("outbound_antivirus_temperror", "", ""),
        (
            "outbound_antivirus_temperror",
            "on_error = defer\n",
            "451 4.7.1 Message could not be scanned for malware for now, please try again later [ref]",
        ),
    ],
)
def test_replies_to_our_users(symbol: str, config: str, words: str) -> None:
    tx = with_body(b"")
    tx = tx._replace(envelope=tx.envelope._replace(direction=Direction.OUTBOUND))
    assert reply(tx, Stage.EOM, [Finding(symbol, "X")], section("unix:/run/c", config)) == words


@pytest.mark.parametrize("prefix", ["", "outbound_"])
def test_malware_can_be_held(prefix: str) -> None:
    tx = with_body(b"")
    if prefix:
        tx = tx._replace(envelope=tx.envelope._replace(direction=Direction.OUTBOUND))
    symbol = f"{prefix}antivirus_found"
    given = verdict(tx, Stage.EOM, [Finding(symbol, "X")], section("unix:/run/c", f"[scores]\n{symbol} = quarantine\n"))
    assert given.action is Action.QUARANTINE


# -- clamd that fails -------------------------------------------------------------------------------------------------


async def test_nothing_answers() -> None:
    config = section("unix:/nowhere/clamd.ctl, inet:1@127.0.0.1")
    with pytest.raises(ScanError, match=r"/nowhere/clamd.ctl: No such file"):
        await awaited(antivirus, with_body(b"hello"), tools("antivirus", config=config))


@pytest.mark.parametrize("answer", [b"", b"stream: OK", b"INSTREAM size limit exceeded. ERROR\0", b"\0" * 5000])
async def test_garbage_is_no_clean_bill(answer: bytes) -> None:
    with pytest.raises(ScanError):
        await found(answer, with_body(b"hello"))


async def test_another_one_scans() -> None:
    bad, good = Scripted(b"stream: Out of memory ERROR\0"), Scripted(b"stream: X FOUND\0")
    async with serving(bad) as first, serving(good) as second:
        config = section(f"{first.socket}, {second.socket}")
        assert await awaited(antivirus, with_body(b"hello"), tools("antivirus", config=config)) == [
            Finding("antivirus_found", "X")
        ]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("options", "action"), [("", Action.ACCEPT), ("on_error = defer\n", Action.TEMPFAIL)], ids=["accept", "defer"]
)
@pytest.mark.parametrize("user", [False, True], ids=["inbound", "outbound"])
async def test_a_clamd_that_hangs_costs_its_time_and_one_finding(options: str, action: Action, user: bool) -> None:
    async with serving(hang) as server:
        rig = session_rig(server, f"timeout = 0.2s\n{options}")
        began = time.monotonic()
        given = await rig.play(macros=OUR_USER if user else None, body=b"x" * 2_000_000)
        assert time.monotonic() - began < 2
    name = "outbound_antivirus" if user else "antivirus"
    assert given.action is action
    assert f"{name} temperror" in rig.observer.seen
    assert [finding.symbol for _, finding in rig.outcomes[0].tx.findings if "antivirus" in finding.symbol] == [
        f"{name}_temperror"
    ]


async def test_defer_is_sooner_than_the_time_of_the_whole_message() -> None:
    async with serving(hang) as server:
        rig = session_rig(server, "timeout = 30s\non_error = defer\n[milter]\nmessage_timeout = 0.6s\n")
        assert (await rig.play()).action is Action.TEMPFAIL


def session_rig(server: "FakeServer | Clamd", options: str = "") -> Rig:
    """A session that scans; other checks are as they are."""
    config = ini.load(None, section(server.socket, options))
    return Rig(config, checks=tuple(check for check in all_checks() if check.enabled(config)))


# -- a real clamd -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    require_clamd()
    with Clamd() as running:
        yield running


async def scanned(clamd: Clamd, tx: Transaction, options: str = "") -> list[Finding]:
    return await awaited(antivirus, tx, tools("antivirus", config=section(clamd.socket, options)))


# First fields by which clamd would take the message for a file of another kind.
DISGUISES = ["GIF89a: x", "%PDF-1.4: x", "MZ: x", "{\\rtf1: x", "RIFFaaaaWEBP: x", "X-Plain: x", ""]


@pytest.mark.parametrize("first", DISGUISES)
async def test_eicar_in_an_attachment_is_found_whatever_the_first_field(clamd: Clamd, first: str) -> None:
    header, body = multipart(EICAR)
    tx = with_body(body)
    disguised = mail(f"{first}\n{header}" if first else header, without="From To Subject Date Message-ID Received")
    tx = tx._replace(message=Message(disguised.message.fields, body=body))
    assert await scanned(clamd, tx) == [Finding("antivirus_found", "Eicar-Test.UNOFFICIAL")]


async def test_a_clean_message_is_clean(clamd: Clamd) -> None:
    header, body = multipart(b"nothing of note")
    assert await scanned(clamd, with_body(body, header)) == []
    assert await scanned(clamd, with_body(b"")) == []


async def test_a_name_of_what_may_be_unwanted(clamd: Clamd) -> None:
    assert await scanned(clamd, with_body(MARKER)) == [Finding("antivirus_suspicious", "PUA.Test.UNOFFICIAL")]


async def test_more_than_clamd_takes_is_an_error_that_says_so(clamd: Clamd) -> None:
    with pytest.raises(ScanError, match="INSTREAM size limit exceeded"):
        await scanned(clamd, with_body(os.urandom(8_000_000)))
    findings = await scanned(clamd, with_body(os.urandom(8_000_000)), "max_size = 1000K")
    assert [finding.symbol for finding in findings] == ["antivirus_cut"]


@pytest.mark.parametrize("user", [False, True], ids=["inbound", "outbound"])
async def test_a_session_refuses_malware(clamd: Clamd, user: bool) -> None:
    rig = session_rig(clamd)
    header, body = multipart(EICAR)
    fields = (
        *HEADER,
        *((name, value.strip()) for name, _, value in (line.partition(":") for line in header.splitlines())),
    )
    given = await rig.play(GOOD, header=fields, body=body, macros=OUR_USER if user else None)
    assert given.reply is not None
    assert (given.reply.code, given.reply.enhanced) == (554, "5.7.1")
    assert given.reply.text.startswith("Message contains malware: Eicar-Test.UNOFFICIAL [")
    assert (await rig.play(GOOD, macros=OUR_USER if user else None)).action is Action.ACCEPT
    if not user:
        assert results(rig.outcomes[1])["spf"] == "pass"


async def test_outbound_has_symbols_of_its_own(clamd: Clamd) -> None:
    header, body = multipart(EICAR)
    given = await awaited(outbound_antivirus, with_body(body, header), tools(config=section(clamd.socket)))
    assert given == [Finding("outbound_antivirus_found", "Eicar-Test.UNOFFICIAL")]


def test_this_file_is_no_malware_itself() -> None:
    for file in (__file__, str(Path(__file__).parent.parent / "scanner_servers.py")):
        assert EICAR not in Path(file).read_bytes()
