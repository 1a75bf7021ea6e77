"""What rspamd is asked, and what its score is worth."""

import asyncio
import json

import pytest

from authmilter.checks.rspamd import rspamd
from authmilter.config import ini
from authmilter.errors import ConfigError, ScanError
from authmilter.evidence import Finding
from authmilter.model import Message, Stage, Transaction
from tests.checks.mails import mail
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import verdict
from tests.scanner_servers import serving


def section(url: str, options: str = "") -> str:
    return f"[rspamd]\nurl = {url}\n{options}"


def with_body(body: bytes, *, cut: bool = False) -> Transaction:
    tx = mail()
    return tx._replace(message=Message(tx.message.fields, body=body, body_cut=cut), helo=b"host.example")


class Scripted:
    """An rspamd that says one thing, and keeps what it was sent."""

    def __init__(self, told: object, status: str = "200 OK") -> None:
        self.told = told
        self.status = status
        self.requests: list[tuple[bytes, bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
        self.requests.append((head, await reader.readexactly(length)))
        body = json.dumps(self.told)
        writer.write(
            f"HTTP/1.1 {self.status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()


async def found(server: Scripted, tx: Transaction, options: str = "") -> list[Finding]:
    async with serving(server) as listening:
        url = f"http://127.0.0.1:{listening.port}/checkv2"
        return await awaited(rspamd, tx, tools("rspamd", config=section(url, options)))


@pytest.mark.parametrize(("config", "wanted"), [("", False), (section("http://h:1/"), True)], ids=["off", "on"])
def test_it_is_off_by_default(config: str, wanted: bool) -> None:
    assert is_wanted("rspamd", config) is wanted


@pytest.mark.parametrize("url", ["https://h/checkv2", "h:11333", "inet:11333@h"])
def test_an_url_that_can_not_be(url: str) -> None:
    with pytest.raises(ConfigError, match="rspamd"):
        ini.load(None, section(url))


@pytest.mark.parametrize(
    ("score", "options", "findings"),
    [
        (6.5, "", [Finding("rspamd", "6.5 of 15: BAD", 6.5)]),
        (-2.5, "", [Finding("rspamd", "-2.5 of 15: BAD", -2.5)]),
        (0.0, "", []),
        (100.0, "", [Finding("rspamd", "100 of 15: BAD", 15.0)]),
        (100.0, "max_score = 5", [Finding("rspamd", "100 of 15: BAD", 5.0)]),
    ],
    ids=["spam", "ham", "nothing to say", "a cap", "another cap"],
)
async def test_its_score_is_the_strength(score: float, options: str, findings: list[Finding]) -> None:
    told = {"score": score, "required_score": 15.0, "action": "reject", "symbols": {"BAD": {"score": 5.0}}}
    assert await found(Scripted(told), with_body(b"hello"), options) == findings


def test_it_never_tags_by_itself() -> None:
    finding = Finding("rspamd", "", 15.0)
    assert verdict(with_body(b""), Stage.EOM, [finding], section("http://h/")).score == 2.25


async def test_what_it_is_sent() -> None:
    server = Scripted({"score": 1.0})
    await found(server, with_body(b"hello\r\n"))
    head, message = server.requests[0]
    assert head.startswith(b"POST /checkv2 HTTP/1.0\r\nHost: 127.0.0.1:")
    assert b"\r\nHelo: host.example\r\nFrom: alice@example.org\r\nRcpt: bob@example.net\r\n\r\n" in head
    assert message.startswith(b"From: Alice <alice@example.org>\r\n")
    assert message.endswith(b"\r\n\r\nhello\r\n")


@pytest.mark.parametrize(
    ("tx", "asked"),
    [(with_body(b"x" * 3_000_000), False), (with_body(b"x" * 2_000_000), True), (with_body(b"x", cut=True), False)],
    ids=["larger than it shall see", "as large as it may be", "cut"],
)
async def test_it_is_asked_about_whole_messages_of_some_size(tx: Transaction, asked: bool) -> None:
    server = Scripted({"score": 1.0})
    await found(server, tx)
    assert bool(server.requests) is asked


@pytest.mark.parametrize(
    ("told", "status"),
    [({"error": "no"}, "200 OK"), ([], "200 OK"), ({"score": 1.0}, "503 Busy"), ({"score": "spam"}, "200 OK")],
    ids=["an error", "no object", "a status of failure", "a score that is none"],
)
async def test_what_is_no_opinion_is_an_error(told: object, status: str) -> None:
    with pytest.raises(ScanError):
        await found(Scripted(told, status), with_body(b"hello"))
