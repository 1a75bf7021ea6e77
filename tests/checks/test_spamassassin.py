"""What SpamAssassin is asked, and what its score is worth."""

import asyncio
import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.checks.spamassassin import spamassassin
from authmilter.config import ini
from authmilter.errors import ConfigError, ScanError
from authmilter.evidence import Finding
from authmilter.model import Connection, Message, Stage, Transaction
from tests.checks.mails import mail
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import verdict
from tests.rig.sockets import free_port
from tests.scanner_servers import GTUBE, require, serving, started


def section(socket: str, options: str = "") -> str:
    return f"[spamassassin]\nsocket = {socket}\n{options}"


def with_body(body: bytes, header: str = "", *, cut: bool = False) -> Transaction:
    tx = mail(header)
    return tx._replace(
        message=Message(tx.message.fields, body=body, body_cut=cut),
        connection=Connection(ip_address("192.0.2.1"), "host.example", mta_name="mx.test"),
        helo=b"host.example",
    )


class Scripted:
    """A spamd that says one thing, and keeps what it was sent."""

    def __init__(self, score: str) -> None:
        self.score = score
        self.requests: list[tuple[bytes, bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-length:"))
        self.requests.append((head, await reader.readexactly(length)))
        writer.write(
            f"SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\nSpam: True ; {self.score} / 5.0\r\n\r\nABC,DEF".encode()
        )
        await writer.drain()


async def found(score: str, tx: Transaction, options: str = "") -> tuple[list[Finding], list[tuple[bytes, bytes]]]:
    spamd = Scripted(score)
    async with serving(spamd) as server:
        findings = await awaited(spamassassin, tx, tools("spamassassin", config=section(server.socket, options)))
    return findings, spamd.requests


@pytest.mark.parametrize(("config", "wanted"), [("", False), (section("inet:783@127.0.0.1"), True)], ids=["off", "on"])
def test_it_is_off_by_default(config: str, wanted: bool) -> None:
    assert is_wanted("spamassassin", config) is wanted


@pytest.mark.parametrize("options", ["socket = inet:783", "user = a b", "user = a\n b"], ids=repr)
def test_options_that_can_not_be(options: str) -> None:
    with pytest.raises(ConfigError, match="spamassassin"):
        ini.load(None, f"[spamassassin]\n{options}\n")


@pytest.mark.parametrize(
    ("score", "options", "findings"),
    [
        ("7.4", "", [Finding("spamassassin", "7.4 of 5: ABC, DEF", 7.4)]),
        ("-1.5", "", [Finding("spamassassin", "-1.5 of 5: ABC, DEF", -1.5)]),
        ("0.0", "", []),
        ("1000", "", [Finding("spamassassin", "1000 of 5: ABC, DEF", 10.0)]),
        ("-100", "", [Finding("spamassassin", "-100 of 5: ABC, DEF", -10.0)]),
        ("1000", "max_score = 30", [Finding("spamassassin", "1000 of 5: ABC, DEF", 30.0)]),
    ],
    ids=["spam", "ham", "nothing to say", "a cap", "a cap below zero", "another cap"],
)
async def test_its_score_is_the_strength(score: str, options: str, findings: list[Finding]) -> None:
    assert (await found(score, with_body(b"hello"), options))[0] == findings


def test_it_never_tags_by_itself() -> None:
    finding = Finding("spamassassin", "", 10.0)
    assert verdict(with_body(b""), Stage.EOM, [finding], section("inet:783@127.0.0.1")).score == 2.0


async def test_what_it_is_sent() -> None:
    _, requests = await found("1", with_body(b"hello\r\n"), "user = alice\n")
    head, message = requests[0]
    assert head == b"SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\nUser: alice\r\n\r\n" % len(message)
    assert message.startswith(b"Received: from host.example (host.example [192.0.2.1])\r\n\tby mx.test with ")
    assert message.endswith(b"\r\n\r\nhello\r\n")


@pytest.mark.parametrize(
    ("tx", "asked"),
    [
        (with_body(b"x" * 600_000), False),
        (with_body(b"x" * 500_000), True),
        (with_body(b"x", cut=True), False),
    ],
    ids=["larger than it shall see", "as large as it may be", "cut"],
)
async def test_it_is_asked_about_whole_messages_of_some_size(tx: Transaction, asked: bool) -> None:
    assert bool((await found("1", tx))[1]) is asked


async def test_one_that_is_down_is_left_alone_for_a_while() -> None:
    given = tools("spamassassin", config=section("unix:/nowhere/spamd"))
    for expected in ["No such file", "No such file", "No such file", "No such file", "lately", "lately"]:
        with pytest.raises(ScanError, match=expected):
            await awaited(spamassassin, with_body(b"hello"), given)


@pytest.fixture(scope="module")
def spamd() -> Iterator[str]:
    """A real one, which asks nobody else, with preferences for the user ``alice``."""
    program = require("spamd", "spamd")
    folder = Path(tempfile.mkdtemp(prefix="authmilter-spamd-"))
    folder.chmod(0o755)  # it does not stay root
    (folder / "users" / "alice").mkdir(parents=True)
    (folder / "users" / "alice" / "user_prefs").write_text("required_score 3.5\n")
    port = free_port()
    command = [
        program,
        "--local",
        "--nouser-config",
        f"--username={'nobody' if os.geteuid() == 0 else getpass.getuser()}",
        f"--virtual-config-dir={folder}/users/%u",
        "--cf=header SENT_BY_ALICE EnvelopeFrom =~ /^alice\\@example\\.org$/",
        "--cf=header SENT_BY_EVE EnvelopeFrom =~ /^eve\\@/",
        "--cf=bayes_path " + str(folder / "bayes"),
        "--cf=use_auto_whitelist 0",
        "--max-children=1",
        f"--port={port}",
        "--listen=127.0.0.1",
    ]
    try:
        with started(command, folder, lambda log: b"successfully spawned" in log):
            yield f"inet:{port}@127.0.0.1"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def of_real(spamd: str, tx: Transaction, options: str = "") -> str:
    """What it says, in a line."""
    given = tools("spamassassin", config=section(spamd, f"timeout = 60s\n{options}"))
    return " / ".join(finding.detail for finding in await awaited(spamassassin, tx, given))


async def test_a_real_one_knows_its_test_message(spamd: str) -> None:
    given = tools("spamassassin", config=section(spamd, "timeout = 60s\n"))
    (spam,) = await awaited(spamassassin, with_body(GTUBE), given)
    assert (spam.symbol, spam.strength) == ("spamassassin", 10.0)
    assert "GTUBE" in spam.detail


async def test_a_real_one_has_preferences_of_a_user(spamd: str) -> None:
    assert " of 5: " in await of_real(spamd, with_body(GTUBE))
    assert " of 3.5: " in await of_real(spamd, with_body(GTUBE), "user = alice\n")


async def test_a_real_one_knows_our_client_by_the_trace_field(spamd: str) -> None:
    local = with_body(b"hello\r\n")._replace(connection=Connection(ip_address("127.0.0.1"), "localhost"))
    remote = with_body(b"hello\r\n")._replace(connection=Connection(ip_address("8.8.4.4"), "host.example"))
    assert ["ALL_TRUSTED" in await of_real(spamd, tx) for tx in (local, remote)] == [True, False]


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "Return-Path: <eve@example.com>\n",
        "X-Envelope-From: eve@example.com\n",
        "Envelope-Sender: <eve@example.com>\n",
    ],
)
async def test_a_real_one_knows_the_sender_of_the_envelope(spamd: str, forged: str) -> None:
    tx = with_body(b"hello\r\n", forged)._replace(connection=Connection(ip_address("8.8.4.4"), "host.example"))
    told = await of_real(spamd, tx)
    assert "SENT_BY_ALICE" in told
    assert "SENT_BY_EVE" not in told


async def test_a_real_one_is_told_no_sender_of_the_envelope_but_ours(spamd: str) -> None:
    tx = with_body(b"hello\r\n", "Return-Path: <eve@example.com>\nX-Envelope-From: eve@example.com\n")
    tx = tx._replace(
        connection=Connection(ip_address("8.8.4.4"), "host.example"),
        envelope=tx.envelope._replace(reverse_path=None),
    )
    assert "SENT_BY" not in await of_real(spamd, tx)
