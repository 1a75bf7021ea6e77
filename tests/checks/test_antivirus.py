"""What is done about what clamd says, and where it says nothing; with a real clamd where there is one."""

import asyncio
import base64
import io
import os
import re
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.check import Check, Tools, all_checks
from authmilter.checks.antivirus import antivirus, outbound_antivirus
from authmilter.config import ini
from authmilter.errors import ConfigError, ScanError
from authmilter.evidence import Finding
from authmilter.interfaces import Answer
from authmilter.model import Connection, Direction, Message, Stage, Transaction
from authmilter.verdict import Action
from tests.checks.mails import mail
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import reply, verdict
from tests.fakes import FakeDNS
from tests.scanner_servers import EICAR, MARKER, Clamd, FakeServer, read_instream, serving
from tests.test_session import GOOD, HEADER, ZONE, Rig, results

OUR_USER = {b"{auth_authen}": b"alice"}


def section(socket: object, options: str = "") -> str:
    return f"[antivirus]\nclamd = {socket}\n{options}"


def with_body(
    body: bytes, header: str = "", *, cut: bool = False, oversized: str = "", out_of_room: bool = False
) -> Transaction:
    tx = mail(header)
    return tx._replace(
        message=Message(
            tx.message.fields,
            body=body,
            body_size=len(body),
            body_cut=cut or out_of_room,
            oversized=oversized,
            out_of_room=out_of_room,
        ),
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


def nested(depth: int) -> tuple[bytes, str]:
    """Body and header of a message whose only attachment is so deep in it."""
    parts = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(depth))
    return parts, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b0\n"


class Scripted:
    """A clamd that gives these answers in turn, the last of them again and again, and keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.streams: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams.append(await read_instream(reader))
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        await writer.drain()


async def asked(clamd: Scripted, tx: Transaction, options: str = "") -> list[Finding]:
    async with serving(clamd) as server:
        return await awaited(antivirus, tx, tools("antivirus", config=section(server.socket, options)))


async def found(answer: bytes, tx: Transaction, options: str = "") -> tuple[list[Finding], bytes]:
    """What the check yields where clamd says that, and what clamd was sent first."""
    clamd = Scripted(answer)
    return await asked(clamd, tx, options), clamd.streams[0]


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
        (b"stream: BC.Heuristics.X FOUND\0", [Finding("antivirus_suspicious", "BC.Heuristics.X")]),
        (b"stream: Win.PUA.X FOUND\0", [Finding("antivirus_found", "Win.PUA.X")]),
    ],
    ids=["clean", "malware", "a heuristic", "what may be unwanted", "a heuristic in bytecode", "not at its beginning"],
)
async def test_findings(answer: bytes, findings: list[Finding]) -> None:
    assert (await found(answer, with_body(b"hello")))[0] == findings


async def test_a_name_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "authmilter.checks.antivirus")
    await found(b"stream: X\r\n% \x1b[1m FOUND\0", with_body(b"hello")._replace(queue_id="4abc"))
    assert caplog.messages == ["queue ID 4abc: clamd found X??% ?[1m"]


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
    ("tx", "options", "detail"),
    [
        (with_body(b"x" * 3000), "max_size = 2048", "scanned up to 2048 octets"),
        (with_body(b"x" * 3000, cut=True), "", r"scanned up to 3\d\d\d octets"),
        (with_body(b"x", oversized="header section"), "", "header section too large"),
        (with_body(*nested(40)), "", "too many: depth"),
    ],
    ids=["by max_size", "by scan_size", "by the limits of the header section", "by those of MIME"],
)
async def test_what_was_not_scanned_is_told(tx: Transaction, options: str, detail: str) -> None:
    (finding,), stream = await found(b"stream: OK\0", tx, options)
    assert finding.symbol == "antivirus_cut"
    assert re.fullmatch(detail, finding.detail)
    if options:
        assert len(stream) == 2048


async def test_what_looks_like_malware_and_is_cut_is_told_as_both() -> None:
    findings, _ = await found(b"stream: PUA.X FOUND\0", with_body(b"x" * 3000), "max_size = 2048")
    assert [one.symbol for one in findings] == ["antivirus_suspicious", "antivirus_cut"]


async def test_what_is_not_kept_for_want_of_room_may_be_scanned_when_it_comes_again() -> None:
    tx = with_body(b"x" * 3000, out_of_room=True)
    with pytest.raises(ScanError, match="scanned up to"):
        await found(b"stream: OK\0", tx)
    assert (await found(b"stream: X FOUND\0", tx))[0] == [Finding("antivirus_found", "X")]


# -- attachments, once more -------------------------------------------------------------------------------------------


async def sent_again(tx: Transaction) -> list[bytes]:
    """The files that clamd is sent besides the message."""
    clamd = Scripted(b"stream: OK\0")
    assert await asked(clamd, tx) == []
    _, archive = clamd.streams
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [tar.extractfile(member) for member in tar.getmembers()]
    return [file.read() for file in files if file]


async def test_an_attachment_is_sent_again_as_it_is_decoded() -> None:
    header, body = multipart(b"content\0" * 100)
    assert await sent_again(with_body(body, header)) == [b"content\0" * 100]


async def test_the_same_attachment_is_sent_again_once() -> None:
    body = mixed(part(ENCODED), part(base64.b64encode(b"other")), part(ENCODED))
    assert await sent_again(with_body(body, MULTIPART)) == [EICAR, b"other"]


async def test_text_that_not_all_readers_decode_in_one_way_is_sent_again() -> None:
    header = "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n"
    assert await sent_again(with_body(ENCODED, header)) == [EICAR]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("", b"hello\r\n"),
        ("Content-Type: text/html\n", b"<p>hello"),
        (
            "Content-Type: multipart/alternative; boundary=b\n",
            b"--b\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>hello\r\n--b--\r\n",
        ),
    ],
    ids=["no MIME", "HTML", "both"],
)
async def test_a_message_without_attachments_is_sent_once(header: str, body: bytes) -> None:
    clamd = Scripted(b"stream: OK\0")
    await asked(clamd, with_body(body, header))
    assert len(clamd.streams) == 1


@pytest.mark.parametrize(
    ("answers", "symbols"),
    [
        ((b"stream: OK\0", b"stream: X FOUND\0"), ["antivirus_found"]),
        ((b"stream: PUA.X FOUND\0", b"stream: X FOUND\0"), ["antivirus_found"]),
        ((b"stream: PUA.X FOUND\0", b"stream: OK\0"), ["antivirus_suspicious"]),
        ((b"INSTREAM size limit exceeded. ERROR\0", b"stream: X FOUND\0"), ["antivirus_found"]),
        ((b"INSTREAM size limit exceeded. ERROR\0", b"stream: OK\0"), ["antivirus_cut"]),
        ((b"stream: OK\0", b"INSTREAM size limit exceeded. ERROR\0"), ["antivirus_cut"]),
    ],
)
async def test_what_is_said_of_the_message_and_of_its_attachments(
    answers: tuple[bytes, ...], symbols: list[str]
) -> None:
    header, body = multipart(b"content")
    findings = await asked(Scripted(*answers), with_body(body, header))
    assert [one.symbol for one in findings] == symbols


async def test_an_attachment_that_is_not_scanned_is_no_clean_one() -> None:
    header, body = multipart(b"content")
    with pytest.raises(ScanError, match="nothing"):
        await asked(Scripted(b"stream: OK\0", b""), with_body(body, header))


@pytest.mark.parametrize(
    ("symbol", "config", "words"),
    [
        ("antivirus_found", "", "554 5.7.1 Message contains malware: X [ref]"),
        ("antivirus_found", "[scores]\nantivirus_found = tempfail\n", "451 4.7.1 Message contains malware: X [ref]"),
        ("antivirus_found", "[policy]\npreset = observe\n", ""),
        ("antivirus_suspicious", "", ""),
        (
            "antivirus_suspicious",
            "[scores]\nantivirus_suspicious = reject\n",
            "554 5.7.1 Message contains what looks like malware: X [ref]",
        ),
        ("antivirus_cut", "", ""),
        (
            "antivirus_cut",
            "[scores]\nantivirus_cut = reject\n",
            "550 5.7.1 Message is too large or too nested to be scanned for malware, please send less at once [ref]",
        ),
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


@pytest.mark.parametrize("answer", [b"", b"stream: OK", b"stream: X ERROR\0", b"\0" * 5000])
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


class SlowPolicies(FakeDNS):
    """Takes its time for the policies of DMARC."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """Answer from the table."""
        if name.startswith("_dmarc."):
            await asyncio.sleep(0.5)
        return await super().query(name, rdtype)


@pytest.mark.parametrize("action", [Action.ACCEPT, Action.TEMPFAIL], ids=["accept", "defer"])
async def test_a_scan_that_a_slow_sender_leaves_no_time_for_has_failed(action: Action) -> None:
    defer = "on_error = defer\n" if action is Action.TEMPFAIL else ""
    async with serving(hang) as server:
        rig = session_rig(server, f"{defer}[milter]\nmessage_timeout = 0.6s\n")
        rig.dns = SlowPolicies(ZONE)
        assert (await rig.play()).action is action
    assert Finding("antivirus_temperror", "deadline") in [finding for _, finding in rig.outcomes[0].tx.findings]
    assert "antivirus temperror" in rig.observer.seen


async def test_bodies_beyond_what_a_worker_keeps_are_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.pipeline.MAX_BODIES", 100_000)
    monkeypatch.setattr("authmilter.pipeline.ALWAYS_KEPT", 20_000)
    async with serving(Scripted(b"stream: OK\0")) as server:
        rig = session_rig(server, "on_error = defer\n[milter]\nscan_size = 150000\n")
        for size, action in [(110_000, Action.ACCEPT), (130_000, Action.TEMPFAIL), (110_000, Action.ACCEPT)]:
            assert (await rig.play(body=b"x" * size)).action is action
    async with serving(Scripted(b"stream: OK\0")) as server:
        rig = session_rig(server, "on_error = defer\n[milter]\nscan_size = 50000\n")
        assert (await rig.play(body=b"x" * 130_000)).action is Action.ACCEPT  # by the size that the administrator set


async def test_bodies_that_are_under_way_hide_no_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.pipeline.MAX_BODIES", 0)
    clamd = Scripted(b"stream: OK\0")
    async with serving(clamd) as server:
        rig = session_rig(server, "on_error = defer\n")
        assert (await rig.play(body=b"x" * 100_000)).action is Action.ACCEPT
    assert clamd.streams[0].endswith(b"\r\n\r\n" + b"x" * 100_000)


async def test_recipients_leave_room_for_what_is_found_in_the_message() -> None:
    async def wordy(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
        for n in range(100):
            yield Finding("wordy", f"{tx.envelope.forward_paths[-1]} {n}")

    async with serving(Scripted(b"stream: X FOUND\0")) as server:
        rig = session_rig(server)
        rig.checks += (Check("wordy", Stage.RCPT, wordy, {"wordy": 0.0}, None, "", waits=True),)
        recipients = [f"<user{n}@example.net>" for n in range(20)]
        assert (await rig.play(rcpts=recipients)).action is Action.REJECT
    assert len(rig.outcomes[0].tx.findings) > 500


def session_rig(server: "FakeServer | Clamd", options: str = "") -> Rig:
    """A session that scans; other checks are as they are."""
    config = ini.load(None, section(server.socket, options))
    return Rig(config, checks=tuple(check for check in all_checks() if check.enabled(config)))


# -- a real clamd -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    with Clamd() as running:
        yield running


async def scanned(clamd: Clamd, tx: Transaction, options: str = "") -> list[Finding]:
    return await awaited(antivirus, tx, tools("antivirus", config=section(clamd.socket, options)))


@pytest.fixture(params=["unix", "tcp"])
def listening(clamd: Clamd, request: pytest.FixtureRequest) -> str:
    """Where it listens."""
    return clamd.socket if request.param == "unix" else clamd.tcp


async def test_eicar_over_either_socket(listening: str) -> None:
    header, body = multipart(EICAR)
    given = await awaited(antivirus, with_body(body, header), tools("antivirus", config=section(listening)))
    assert given == [Finding("antivirus_found", "Eicar-Test.UNOFFICIAL")]


async def test_eicar_in_a_zip(clamd: Clamd) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("invoice.com", EICAR)
    header, body = multipart(packed.getvalue())
    assert await scanned(clamd, with_body(body, header)) == [Finding("antivirus_found", "Eicar-Test.UNOFFICIAL")]


def part(content: bytes, fields: bytes = b"Content-Transfer-Encoding: base64\r\n") -> bytes:
    return b"Content-Type: application/octet-stream; name=x.bin\r\n" + fields + b"\r\n" + content + b"\r\n"


def mixed(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + one for one in parts) + b"--" + boundary + b"--\r\n"


def deep(content: bytes, depth: int) -> bytes:
    for n in range(depth):
        content = b"Content-Type: multipart/mixed; boundary=z%d\r\n\r\n" % n + mixed(content, boundary=b"z%d" % n)
    return content


ENCODED = base64.b64encode(EICAR)
TEXT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
MULTIPART = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n"
# What readers of mail show as an attachment, and clamd 1.4 by itself does not.
EVASIONS = {
    "a second type": (f"{MULTIPART}Content-Type: text/plain\n", mixed(TEXT, part(ENCODED))),
    "a second boundary": (MULTIPART.replace("=b", "=a; boundary=b"), mixed(TEXT, part(ENCODED))),
    "a boundary in pieces": (
        MULTIPART.replace("boundary=b", "boundary*0=b; boundary*1=c"),
        mixed(TEXT, part(ENCODED), boundary=b"bc"),
    ),
    "a blank line of a folded field": (MULTIPART.replace(" boundary", "\n \n\tboundary"), mixed(TEXT, part(ENCODED))),
    "a blank before the colon": (MULTIPART.replace("Type:", "Type :"), mixed(TEXT, part(ENCODED))),
    "many parameters": (
        MULTIPART.replace(" boundary", "".join(f" x{n}=y;" for n in range(3000)) + " boundary"),
        mixed(TEXT, part(ENCODED)),
    ),
    "a long boundary": (MULTIPART.replace("=b", "=" + "b" * 2000), mixed(TEXT, part(ENCODED), boundary=b"b" * 2000)),
    "much nesting": (MULTIPART, mixed(TEXT, deep(part(ENCODED), 20))),
    "base64 behind its padding": (
        MULTIPART,
        mixed(TEXT, part(base64.b64encode(EICAR[:1]) + base64.b64encode(EICAR[1:]))),
    ),
}


@pytest.mark.parametrize(("header", "body"), EVASIONS.values(), ids=EVASIONS)
async def test_eicar_is_found_in_every_reading(clamd: Clamd, header: str, body: bytes) -> None:
    assert await scanned(clamd, with_body(body, header)) == [Finding("antivirus_found", "Eicar-Test.UNOFFICIAL")]


async def test_what_may_be_unwanted_does_not_hide_malware(clamd: Clamd) -> None:
    body = mixed(part(base64.b64encode(MARKER)), part(ENCODED))
    assert await scanned(clamd, with_body(body, MULTIPART)) == [Finding("antivirus_found", "Eicar-Test.UNOFFICIAL")]


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


async def test_more_than_clamd_takes_is_told_with_what_to_do(clamd: Clamd) -> None:
    (finding,) = await scanned(clamd, with_body(os.urandom(8_000_000)))
    assert finding.symbol == "antivirus_cut"
    assert "takes less at once, see StreamMaxLength in clamd.conf" in finding.detail
    (finding,) = await scanned(clamd, with_body(os.urandom(8_000_000)), "max_size = 1000K")
    assert finding == Finding("antivirus_cut", "scanned up to 1024000 octets")


async def test_a_name_is_harmless_in_the_reply() -> None:
    async with serving(Scripted(b"stream: %s\r\n250 ok\xff\x1b FOUND\0")) as server:
        given = await session_rig(server).play()
    assert given.reply is not None
    assert given.reply.text.startswith("Message contains malware: %s??250 ok?? [")


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
