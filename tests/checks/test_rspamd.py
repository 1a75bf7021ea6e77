"""What rspamd is asked, and what its score is worth."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.addresses import parse_path
from authmilter.checks.rspamd import rspamd
from authmilter.config import ini
from authmilter.errors import ConfigError, ScanError
from authmilter.evidence import Finding
from authmilter.model import Connection, Message, Stage, Transaction
from tests.checks.mails import mail
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import verdict
from tests.rig.sockets import accepting, free_port
from tests.scanner_servers import GTUBE, require, serving, started


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


@pytest.mark.parametrize("options", ["settings = a b", "settings = a\n  b"], ids=repr)
def test_settings_that_can_not_be(options: str) -> None:
    with pytest.raises(ConfigError, match="settings"):
        ini.load(None, section("http://h/", options))


def secret(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """Options with a password file of that content."""
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return f"password_file = {path}\n"


async def test_the_password_and_the_settings_are_sent(tmp_path: Path) -> None:
    server = Scripted({"score": 1.0})
    await found(server, with_body(b"hello"), f"{secret(tmp_path, b'open sesame' + bytes([10]))}settings = inbound\n")
    assert b"\r\nPassword: open sesame\r\nSettings-ID: inbound\r\n" in server.requests[0][0]


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"secret\n", 0o644, "others than its owner can read"),
        (b"", 0o600, "no password"),
        (b"\nsecret", 0o600, "no password"),
        (b"a\rIP: 127.0.0.1\n", 0o600, "no password"),
        (b"\xc3\xa9\n", 0o600, "no password"),
        (b"x" * 257, 0o600, "no password"),
    ],
    ids=["for all to read", "empty", "an empty line", "a line in it", "not ASCII", "too long"],
)
async def test_a_password_that_can_not_be(tmp_path: Path, content: bytes, mode: int, problem: str) -> None:
    config = section("http://127.0.0.1:1/", secret(tmp_path, content, mode))
    with pytest.raises(ConfigError, match=problem) as raised:
        ini.load(None, config, check_files=True)
    assert "secret" not in str(raised.value)
    with pytest.raises(ScanError, match=problem):
        await awaited(rspamd, with_body(b""), tools("rspamd", config=ini.load(None, config, check_files=False)))


@pytest.mark.parametrize(
    ("told", "status"),
    [({"error": "no"}, "200 OK"), ([], "200 OK"), ({"score": 1.0}, "503 Busy"), ({"score": "spam"}, "200 OK")],
    ids=["an error", "no object", "a status of failure", "a score that is none"],
)
async def test_what_is_no_opinion_is_an_error(told: object, status: str) -> None:
    with pytest.raises(ScanError):
        await found(Scripted(told, status), with_body(b"hello"))


# -- a real one -------------------------------------------------------------------------------------------------------

RULES = """
rspamd_config:register_symbol({
  name = "TOLD_ALL", score = 2.5, type = "normal",
  callback = function(task)
    local from, to = task:get_from("smtp"), task:get_recipients("smtp") or {}
    return tostring(task:get_from_ip()) == "192.0.2.7" and task:get_helo() == "mail.example.org"
      and task:get_hostname() == "host.example.org" and task:get_queue_id() == "4abc"
      and from[1].addr == "alice@example.org" and #to == 2 and to[2].addr == "carol@example.net"
      and tostring(task:get_request_header("Settings-ID")) == "inbound" and task:get_subject() == "Tuesday"
  end
})
rspamd_config:register_symbol({
  name = "BOUNCE", score = 1.0, type = "normal",
  callback = function(task) return task:has_from("smtp") and task:get_from("smtp")[1].addr == "" end
})
"""


@dataclass
class Real:
    """An rspamd: where its normal worker is asked, and its controller, whose password is ``sesame``."""

    normal: str
    controller: str


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """One with these rules alone, which asks nobody else."""
    program = require("rspamd", "rspamd")
    folder: Path = tmp_path_factory.mktemp("rspamd")
    (folder / "rules.lua").write_text(RULES)
    normal, controller = free_port(), free_port()
    (folder / "rspamd.conf").write_text(
        f"""lua = "{folder}/rules.lua";
        options {{
          pidfile = "{folder}/pid"; tempdir = "{folder}"; control_socket = "{folder}/control mode=0600"; filters = "";
          dns {{ nameserver = "127.0.0.1:1"; timeout = 0.1s; retransmits = 1; }}
        }}
        logging {{ type = "console"; level = "info"; }}
        worker "normal" {{ bind_socket = "127.0.0.1:{normal}"; count = 1; }}
        worker "controller" {{
          bind_socket = "127.0.0.1:{controller}"; count = 1; password = "sesame"; secure_ip = "192.0.2.1";
        }}
        metric "default" {{ actions {{ reject = 15; }} }}
        """
    )
    listening = [f"http://127.0.0.1:{port}/checkv2" for port in (normal, controller)]
    command: list[str | Path] = [program, "--no-fork", "--insecure", "--config", folder / "rspamd.conf"]
    with started(command, folder, lambda log: accepting(normal) and accepting(controller) and b"listen on" in log):
        yield Real(*listening)


async def of_real(url: str, tx: Transaction, options: str = "") -> list[Finding]:
    return await awaited(rspamd, tx, tools("rspamd", config=section(url, options)))


async def test_a_real_one_knows_its_test_message(real: Real) -> None:
    (spam,) = await of_real(real.normal, with_body(GTUBE))
    assert (spam.symbol, spam.strength) == ("rspamd", 15.0)


async def test_a_real_one_is_told_of_the_transaction(real: Real) -> None:
    tx = with_body(b"hello\r\n")
    carol = parse_path(b"<carol@example.net>")
    assert carol is not None
    tx = tx._replace(
        connection=Connection(ip_address("192.0.2.7"), "host.example.org", mta_name="mx.test"),
        helo=b"mail.example.org",
        queue_id="4abc",
        envelope=tx.envelope._replace(forward_paths=(*tx.envelope.forward_paths, carol)),
    )
    assert await of_real(real.normal, tx, "settings = inbound\n") == [Finding("rspamd", "2.5 of 15: TOLD_ALL", 2.5)]
    assert await of_real(real.normal, tx) == []
    bounce = tx._replace(envelope=tx.envelope._replace(reverse_path=None))
    assert await of_real(real.normal, bounce) == [Finding("rspamd", "1 of 15: BOUNCE", 1.0)]


async def test_a_real_controller_wants_the_password(real: Real, tmp_path: Path) -> None:
    bounce = with_body(b"hello\r\n")
    bounce = bounce._replace(envelope=bounce.envelope._replace(reverse_path=None))
    assert await of_real(real.controller, bounce, secret(tmp_path, b"sesame\n")) == [
        Finding("rspamd", "1 of 15: BOUNCE", 1.0)
    ]
    for options in ("", secret(tmp_path, b"wrong\n")):
        with pytest.raises(ScanError, match="answers 401 Unauthorized"):
            await of_real(real.controller, bounce, options)
