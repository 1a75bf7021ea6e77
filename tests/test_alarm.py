"""Alarms by real commands and real web servers, kind ones and hostile ones."""

import asyncio
import datetime
import http.server
import ipaddress
import json
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authmilter import alarm as alarm_module
from authmilter.alarm import AT_ONCE, MAX_SUBJECT, MAX_TEXT, MOST, AlarmService
from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import ALARM_EVENTS, Alarm
from authmilter.errors import ConfigError
from authmilter.log import JsonFormatter, TextFormatter
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.store.memory import MemoryStore
from tests.test_metrics import scrape

EVENT, SUBJECT, TEXT = "outbound_limit", "login alice@example.org", "login alice@example.org has used up its limit"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Workers have uvloop, whose subprocesses and streams are its own."""
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy


@pytest.fixture
async def made() -> AsyncIterator[Callable[..., AlarmService]]:
    """Makes services, each with a Counter of outcomes as `outcomes`, and closes them."""
    services = []

    def make(**options: Any) -> AlarmService:
        outcomes: Counter[str] = Counter()
        service = AlarmService(Alarm(**options), lambda event, outcome: outcomes.update([outcome]))
        service.outcomes = outcomes  # type: ignore[attr-defined]
        services.append(service)
        return service

    yield make
    for service in services:
        await service.close(0.0)


def outcomes(service: AlarmService) -> dict[str, int]:
    found: Counter[str] = service.outcomes  # type: ignore[attr-defined]
    return dict(found)


async def told(service: AlarmService, number: int = 1) -> dict[str, int]:
    """Give one alarm, and wait until so many are done with."""
    service(EVENT, SUBJECT, TEXT)
    return await finished(service, number)


async def finished(service: AlarmService, number: int) -> dict[str, int]:
    await until(lambda: sum(outcomes(service).values()) >= number)
    return outcomes(service)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  files and processes set no event
            await asyncio.sleep(0.005)


def script(folder: Path, text: str) -> str:
    path = folder / "alarm.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def has_ended(pid: int) -> bool:
    """Is there no such process any more, or is it dead and only not yet looked after?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# -- the log -------------------------------------------------------------------------------------------------------------


async def test_every_alarm_is_a_warning_whether_or_not_anybody_is_told(
    made: Callable[..., AlarmService], caplog: pytest.LogCaptureFixture
) -> None:
    service = made()
    service(EVENT, SUBJECT, "used up\n\x1b[31m é")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert TextFormatter().format(record) == (
        f'warning: alarm name={EVENT} subject="{SUBJECT}" text="used up??[31m \\xe9"'
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["name"], line["subject"]) == ("alarm", EVENT, SUBJECT)
    assert outcomes(service) == {"success": 1}


async def test_only_the_events_that_are_wanted_are_told(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, f"echo $AUTHMILTER_EVENT >> {tmp_path}/out"), events=("store_down",))
    service(EVENT, SUBJECT, TEXT)
    service("store_down", "", "")
    assert await finished(service, 2) == {"success": 2}
    assert (tmp_path / "out").read_text() == "store_down\n"


# -- the command ---------------------------------------------------------------------------------------------------------


async def test_the_command_has_the_alarm_in_its_environment_and_nothing_else(
    made: Callable[..., AlarmService], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "1")
    command = script(tmp_path, f'{{ env; pwd; cat; for a; do echo "<$a>"; done; }} > {tmp_path}/out')
    service = made(command=f"{command} one 'two  words' $HOME")
    assert await told(service) == {"success": 1}
    lines = (tmp_path / "out").read_text().splitlines()
    ours = [line for line in lines if line.startswith("AUTHMILTER")]
    assert sorted(ours) == [f"AUTHMILTER_EVENT={EVENT}", f"AUTHMILTER_SUBJECT={SUBJECT}", f"AUTHMILTER_TEXT={TEXT}"]
    assert lines[-4:] == ["/", "<one>", "<two  words>", "<$HOME>"]
    assert "SECRET_OF_OURS=1" not in lines


@pytest.mark.parametrize(
    ("subject", "seen"),
    [
        ("a\nb\x00c\x1b\x7f", "a?b?c??"),
        ("x" * 100_000, "x" * MAX_SUBJECT),
        ("\ud800\u202eé☃", "??é☃"),
        ("'; touch x; $(id) `id`", "'; touch x; $(id) `id`"),
    ],
    ids=["control characters", "long", "half a character and one that turns the line", "what a shell would run"],
)
async def test_a_hostile_subject_reaches_the_command_as_one_harmless_line(
    made: Callable[..., AlarmService], tmp_path: Path, subject: str, seen: str
) -> None:
    service = made(command=script(tmp_path, f'printf %s "$AUTHMILTER_SUBJECT" > {tmp_path}/out'))
    service(EVENT, subject, subject)
    assert await finished(service, 1) == {"success": 1}
    assert (tmp_path / "out").read_bytes().decode() == seen


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "exit status -9"),
        ("yes; exit 1", "took longer than 0.5s, and was killed"),
        ("trap '' TERM HUP INT; sleep 60", "took longer than 0.5s, and was killed"),
    ],
    ids=["an exit status", "a signal", "output without end", "a hanging command"],
)
async def test_a_command_that_fails(
    made: Callable[..., AlarmService], tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, problem: str
) -> None:
    command = script(tmp_path, text)
    service = made(command=command, timeout=Seconds(0.5 if "0.5s" in problem else 10.0))
    assert await told(service) == {"failure": 1}
    assert caplog.messages[-1] == f"an alarm could not be told: {command}: {problem}"


async def test_a_hanging_command_is_killed_with_its_children(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait"), timeout=Seconds(1.0))
    began = time.monotonic()
    assert await told(service) == {"failure": 1}
    assert time.monotonic() - began < 5
    assert has_ended(int((tmp_path / "child").read_text()))


async def test_what_a_command_leaves_in_the_background_is_not_waited_for(
    made: Callable[..., AlarmService], tmp_path: Path
) -> None:
    service = made(command=script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child"), timeout=Seconds(10.0))
    began = time.monotonic()
    try:
        assert await told(service) == {"success": 1}
        assert time.monotonic() - began < 5
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_a_command_that_is_not_there(
    made: Callable[..., AlarmService], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = made(command=f"{tmp_path}/none --loud")
    assert await told(service) == {"failure": 1}
    assert caplog.messages[-1] == f"an alarm could not be told: {tmp_path}/none: No such file or directory"


async def test_few_commands_run_at_once_few_wait_and_the_rest_is_dropped(
    made: Callable[..., AlarmService], tmp_path: Path
) -> None:
    running, go = tmp_path / "running", tmp_path / "go"
    running.mkdir()
    service = made(
        command=script(tmp_path, f"touch {running}/$$; while [ ! -e {go} ]; do sleep 0.02; done"), timeout=Seconds(60.0)
    )
    for number in range(MOST + 50):
        service(EVENT, f"login {number}", TEXT)
    assert outcomes(service) == {"dropped": 50}
    await until(lambda: len(list(running.iterdir())) >= AT_ONCE)
    await asyncio.sleep(0.2)
    assert len(list(running.iterdir())) == AT_ONCE
    go.touch()
    assert await finished(service, MOST + 50) == {"dropped": 50, "success": MOST}
    assert await told(service, MOST + 51) == {"dropped": 50, "success": MOST + 1}


async def test_the_giver_of_an_alarm_does_not_wait(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, "sleep 60"), webhook="http://192.0.2.1/")
    began = time.monotonic()
    for _ in range(50):
        service(EVENT, SUBJECT, TEXT)
    assert time.monotonic() - began < 0.5
    assert outcomes(service) == {}


# -- the end -------------------------------------------------------------------------------------------------------------


async def test_at_the_end_alarms_under_way_are_still_told(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, f"sleep 0.3; touch {tmp_path}/out"))
    service(EVENT, SUBJECT, TEXT)
    await service.close()
    assert (tmp_path / "out").exists()
    assert outcomes(service) == {"success": 1}


async def test_but_not_for_long_and_no_process_is_left(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, f"echo $$ >> {tmp_path}/out; sleep 60"))
    for _ in range(AT_ONCE + 3):
        service(EVENT, SUBJECT, TEXT)
    await until(lambda: len(lines_of(tmp_path / "out")) >= AT_ONCE)
    began = time.monotonic()
    await service.close(0.1)
    assert time.monotonic() - began < 5
    assert outcomes(service) == {"dropped": AT_ONCE + 3}
    assert all(has_ended(int(pid)) for pid in lines_of(tmp_path / "out"))
    service(EVENT, SUBJECT, TEXT)
    assert outcomes(service) == {"dropped": AT_ONCE + 4}


async def test_new_options_hold_for_the_next_alarm(made: Callable[..., AlarmService], tmp_path: Path) -> None:
    service = made(command=script(tmp_path, f"sleep 0.2; touch {tmp_path}/old"))
    service(EVENT, SUBJECT, TEXT)
    service.options = Alarm(command=f"/usr/bin/touch {tmp_path}/new")
    assert await told(service, 2) == {"success": 2}
    assert (tmp_path / "old").exists()
    assert (tmp_path / "new").exists()


# -- the webhook ---------------------------------------------------------------------------------------------------------


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes alarms, and keeps what it was sent."""

    protocol_version = "HTTP/1.1"
    taken: list[tuple[str, dict[str, str], Any]]

    def do_POST(self) -> None:
        """Any path is right."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.taken.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[tuple[str, dict[str, str], Any]]]]:
    """A web server of the standard library in a thread: its port, and what it is sent."""
    taken: list[tuple[str, dict[str, str], Any]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("TestHook", (Hook,), {"taken": taken}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left is none of its business
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1], taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_webhook_is_posted_json(made: Callable[..., AlarmService]) -> None:
    with web_server() as (port, taken):
        service = made(webhook=f"http://127.0.0.1:{port}/hooks/s3cret?to=ops")
        service(EVENT, 'login "é"\n', "t" * 10_000)
        assert await finished(service, 1) == {"success": 1}
        [(path, header, body)] = taken
    assert path == "/hooks/s3cret?to=ops"
    assert header["Host"] == f"127.0.0.1:{port}"
    assert header["Content-Type"] == "application/json"
    moment = datetime.datetime.strptime(body.pop("time"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    assert abs(moment.timestamp() - time.time()) < 60
    assert body == {"event": EVENT, "subject": 'login "é"?', "text": "t" * MAX_TEXT, "host": socket.gethostname()}


async def test_command_and_webhook_are_both_told_and_one_that_fails_is_a_failure(
    made: Callable[..., AlarmService], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server() as (port, taken):
        service = made(command=script(tmp_path, f"touch {tmp_path}/out; exit 1"), webhook=f"http://127.0.0.1:{port}")
        assert await told(service) == {"failure": 1}
        assert [path for path, _, _ in taken] == ["/"]
    assert (tmp_path / "out").exists()
    assert len([message for message in caplog.messages if message.startswith("an alarm could not be told")]) == 1


Reaction = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(react: Reaction) -> AsyncIterator[int]:
    """A server that does as it likes with the connection once the request is there: its port."""
    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await reader.readuntil(b"}")
            await react(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client has had enough, or the test
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*[task for task in tasks if task], return_exceptions=True)


def says(*parts: bytes) -> Reaction:
    async def react(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return react


async def hangs(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for octet in b"HTTP/1.1 200 OK" * 100:
        writer.write(bytes([octet]))
        await asyncio.sleep(0.05)


async def goes_on_for_ever(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" * 100)
        await writer.drain()


LATE = "no answer within 0.5s"
NO_HTTP = "the answer is no HTTP"


@pytest.mark.parametrize(
    ("react", "problem"),
    [
        pytest.param(says(b"HTTP/1.1 204 No Content\r\n\r\n"), "", id="204"),
        pytest.param(says(b"HTTP/1.0 200\n\n"), "", id="an old server without a reason"),
        pytest.param(
            says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 202 Accepted\r\n"),
            "",
            id="answers before the final one",
        ),
        pytest.param(says(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 50_000_000), "", id="a huge body after success"),
        pytest.param(says(b"HTTP/1.1 500 Oops\r\n\r\n"), "HTTP status 500", id="500"),
        pytest.param(says(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 50_000_000), "HTTP status 404", id="404 and a huge body"),
        pytest.param(
            says(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"), "HTTP status 302", id="a redirect"
        ),
        pytest.param(hangs, LATE, id="silence"),
        pytest.param(drips, LATE, id="an octet now and then"),
        pytest.param(goes_on_for_ever, LATE, id="never a final answer"),
        pytest.param(says(), NO_HTTP, id="a connection that is closed"),
        pytest.param(says(b"220 mail.example.org ESMTP\r\n"), NO_HTTP, id="a mail server"),
        pytest.param(says(b"HTTP/1.1 2\xb2\xb2 OK\r\n"), NO_HTTP, id="digits that are none"),
        pytest.param(says(b"HTTP/1.1 20\r\n"), NO_HTTP, id="a short status"),
        pytest.param(says(b"\x00" * 50_000_000), NO_HTTP, id="a line without end"),
    ],
)  # fmt: skip
async def test_what_a_web_server_may_answer(
    made: Callable[..., AlarmService], caplog: pytest.LogCaptureFixture, react: Reaction, problem: str
) -> None:
    async with raw_server(react) as port:
        seconds = Seconds(0.5 if problem == LATE else 10.0)
        service = made(webhook=f"http://127.0.0.1:{port}/s3cret", timeout=seconds)
        assert await told(service) == {"failure" if problem else "success": 1}
    told_of = [r.getMessage() for r in caplog.records if r.name == "authmilter.alarm" and r.msg != "alarm"]
    if not problem:
        assert told_of == []
    else:
        assert told_of == [f"an alarm could not be told: http://127.0.0.1:{port}: {problem}"]
    assert "s3cret" not in caplog.text


async def test_a_server_that_refuses(made: Callable[..., AlarmService], caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        service = made(webhook=f"http://127.0.0.1:{port}/s3cret")
        assert await told(service) == {"failure": 1}
    assert "refused" in caplog.messages[-1].lower() or "connect" in caplog.messages[-1].lower()
    assert "s3cret" not in caplog.text


async def test_a_name_that_does_not_exist(made: Callable[..., AlarmService]) -> None:
    service = made(webhook="http://does-not-exist.invalid/")
    assert await told(service) == {"failure": 1}


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hook.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "hook.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.mark.parametrize("trusted", [True, False], ids=["of somebody trusted", "of anybody"])
async def test_https_takes_the_certificate(
    made: Callable[..., AlarmService],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trusted: bool,
) -> None:
    path = certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    with web_server(tls) as (port, taken):
        service = made(webhook=f"https://127.0.0.1:{port}/s3cret")
        assert await told(service) == {"success" if trusted else "failure": 1}
    assert len(taken) == (1 if trusted else 0)
    assert trusted or "CERTIFICATE_VERIFY_FAILED" in caplog.messages[-1]
    assert "s3cret" not in caplog.text


async def test_a_bug_in_a_hook_ends_as_a_failure(
    made: Callable[..., AlarmService], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> str:
        raise RuntimeError("bug")

    monkeypatch.setattr(alarm_module, "_run", broken)
    assert await told(made(command="/bin/true")) == {"failure": 1}
    assert caplog.records[-1].exc_info is not None


# -- configuration and metric --------------------------------------------------------------------------------------------


def test_both_are_off_by_default() -> None:
    assert ini.load(None).alarm == Alarm(command="", webhook="", events=(), timeout=Seconds(10.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("command = true", "command: 'true' is not a program by its full path"),
        ("command = /bin/echo 'half", "can't be parted into words"),
        ("command = /bin/none --loud", "[alarm] command: /bin/none: can't be run"),
        ("command = /etc/passwd", "[alarm] command: /etc/passwd: can't be run"),
        ("command = /etc", "[alarm] command: /etc: can't be run"),
        ("webhook = ftp://example.org/s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = file:///etc/s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = https:///s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = https://example.org:99999/s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = https://[::1/s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = https://example.org/s3cret part", "webhook: expected https://HOST/PATH"),
        ("webhook = https://example.org/s3cret#part", "webhook: expected https://HOST/PATH"),
        ("webhook = https://ex\u00e4mple.org/s3cret", "webhook: expected https://HOST/PATH"),
        ("webhook = https://me:s3cret@example.org/", "webhook: has a user before its host"),
        ("events = outbound_limits", "'outbound_limits' is not one of: outbound_limit, dns_list_off, store_down, did you"),
        ("timeout = 0", "timeout: '0' is too small"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_without_the_secret(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ini.load(None, f"[alarm]\n{text}\n")
    [problem] = raised.value.problems
    assert message in problem
    assert "s3cret" not in problem


def test_what_is_right_is_taken() -> None:
    text = "[alarm]\ncommand = /bin/echo 'a b'\nwebhook = https://[::1]:8443/x?y=z\nevents = Store_Down\ntimeout = 3s\n"
    loaded = ini.load_with_origins(None, text)
    assert loaded.config.alarm == Alarm("/bin/echo 'a b'", "https://[::1]:8443/x?y=z", ("store_down",), Seconds(3.0))
    assert loaded.warnings == ()


def test_events_without_anybody_to_tell_are_hardly_meant() -> None:
    [warning] = ini.load_with_origins(None, "[alarm]\nevents = store_down\n").warnings
    assert "events: has no effect without command or webhook" in warning


def test_alarms_are_counted_by_event_and_outcome() -> None:
    layout = layout_for(all_checks())
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    for event in (*ALARM_EVENTS, "never_heard_of"):
        metrics.alarm(event, "dropped")
    found = scrape(shared, layout)
    seen = {
        dict(labels)["event"]: value for (name, labels), value in found.items() if name == "authmilter_alarms_total"
    }
    assert seen == dict.fromkeys((*ALARM_EVENTS, "other"), 1)


class TestWhatAllWorkersNotice:
    async def test_one_of_them_tells_it_for_all_until_its_time_is_over(self) -> None:
        now = 1e9
        store = MemoryStore(clock=lambda: now)
        told: list[str] = []
        workers = [AlarmService(Alarm(), lambda event, _: told.append(event), store) for _ in range(3)]
        for worker in workers:
            worker("dns_list_off", "dnsbl zen", "It lists the world.")
            worker("dns_list_off", "dnsbl other", "It lists the world too.")
            worker(EVENT, SUBJECT, TEXT)
        await until(lambda: len(told) >= 5)
        assert Counter(told) == {"dns_list_off": 2, EVENT: 3}
        now += alarm_module.ONCE["dns_list_off"] + 1
        workers[1]("dns_list_off", "dnsbl zen", "It still does.")
        await until(lambda: len(told) >= 6)
        for worker in workers:
            await worker.close()

    async def test_without_a_store_that_works_each_tells_it(self) -> None:
        store = MemoryStore()
        await store.close()
        told: list[str] = []
        for given in (store, None):
            worker = AlarmService(Alarm(), lambda event, _: told.append(event), given)
            worker("dns_list_off", "dnsbl zen", "It lists the world.")
            await worker.close()
        assert told == ["dns_list_off"] * 2
