"""`authmilter status`, asking an exporter over HTTP, and a daemon."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authmilter import __version__
from authmilter.classifier import table as classifier_table
from authmilter.cli import status
from authmilter.cli.__main__ import main
from authmilter.config import ini
from authmilter.config.schema import Config, Dnsbl
from authmilter.config.schema import Metrics as Options
from authmilter.metrics import Metrics
from authmilter.model import Stage
from tests.classifier.mail import raw
from tests.rig.daemon import Daemon
from tests.server.test_exporter import Endpoint
from tests.shared import ROOT
from tests.store.servers import is_root


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    for slot in (1, 2):
        Metrics(found.shared, slot, found.layout).set("accepting", 1.0)
    yield found
    found.control.close()
    os.waitpid(found.pid, 0)


@pytest.fixture
def configured(endpoint: Endpoint, tmp_path: Path) -> str:
    """A configuration that leads to the endpoint."""
    path = tmp_path / "am.ini"
    path.write_text(f"[metrics]\nlisten = 127.0.0.1:{endpoint.port}\n[store]\nurl = sqlite:{tmp_path}/state.db\n")
    return str(path)


def test_all_is_well(configured: str, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    worker = Metrics(endpoint.shared, 1, endpoint.layout)
    worker.verdict("inbound", "reject", Stage.EOM, 12.0)
    for outcome in ("hit", "hit", "hit", "miss"):
        worker.dns_cache(outcome)
    assert main(["-c", configured, "status"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out  # plain text in a pipe
    lines = out.splitlines()
    assert lines[0].startswith(f"authmilter {__version__} at http://127.0.0.1:{endpoint.port}")
    assert "workers      2 of 2 accept connections, 0 restarts" in lines
    assert "DNS          75.0 % of 4 questions answered from the cache; none sent" in lines
    assert "nameservers  not told: nothing was asked; 0 questions in the last 0s, failed: none" in lines
    assert "keys         none" in lines
    assert "inbound        0    0           0         0       1        0    1" in lines
    assert lines[-1] == "all is well"


def test_something_is_wrong(configured: str, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    Metrics(endpoint.shared, 2, endpoint.layout).set("accepting", 0.0)
    assert main(["status", "-c", configured]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "only 1 of 2 workers accept connections"


def test_json(configured: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.db").write_bytes(b"x" * 5000)
    (tmp_path / "state.db-wal").write_bytes(b"x" * 3000)
    assert main(["-c", configured, "status", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["workers"]["configured"] == 2
    assert (report["store"]["kind"], report["store"]["size"]) == ("sqlite", 8000)


def test_the_classifier(
    configured: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "table"

    def line(more: str = "") -> tuple[int, str, str]:
        ini_file = Path(configured)
        ini_file.write_text(
            ini_file.read_text().partition("[classifier]")[0] + f"[classifier]\ntable = {place}\n{more}"
        )
        code = main(["-c", configured, "status"])
        lines = capsys.readouterr().out.splitlines()
        return code, next(one for one in lines if one.startswith("classifier ")).split(None, 1)[1], lines[-1]

    assert line() == (0, "not trained: see `authmilter learn`", "all is well")
    for kind in ("ham", "spam"):
        for number in range(30):
            (tmp_path / f"{kind}{number}.eml").write_bytes(raw(number, kind == "spam"))
        assert line()[1] == ("not trained yet" if kind == "spam" else "not trained: see `authmilter learn`")
        main(["-c", configured, "learn", kind, *map(str, tmp_path.glob(f"{kind}*.eml"))])
    capsys.readouterr()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100.0)
    assert line()[1] == "learned 30 ham, 30 spam, which is too little to speak; trained 1m 40s ago"
    few = "minimum_ham = 10\nminimum_spam = 10\nenough_ham = 60\n"
    assert line(few)[1] == "learned 30 ham, 30 spam, strength at most 50%; trained 1m 40s ago"
    assert line(few.replace("60", "30"))[1] == "learned 30 ham, 30 spam; trained 1m 40s ago"
    main(["-c", configured, "learn", "--later", "--forget", str(tmp_path / "ham1.eml")])
    assert line()[1].endswith("ago; more was learned since")
    place.write_bytes(b"broken")
    assert line() == (1, "broken", f"the classifier says nothing: {place}: has 6 octets, not {place_size()}")
    assert line("enabled = no\n") == (0, "off", "all is well")
    assert main(["-c", configured, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classifier"]["state"] == "off"


def place_size() -> int:
    return classifier_table._SIZE


def test_lists_of_before_a_reload(configured: str, endpoint: Endpoint) -> None:
    """The daemon counts for the lists that it had at its start: what it had then may be gone, and others be there now."""
    config = ini.load(configured)
    config = replace(config, dnsbl={"zen": Dnsbl(zone="zen.example")})
    report = status._ask(f"http://127.0.0.1:{endpoint.port}")
    none = {"listed": 0, "clear": 0}
    report["dns_lists"] = {
        "dnsbl_zen": {"off_in_workers": 0, "answers": none},
        "dnsbl_gone": {"off_in_workers": 0, "answers": {"listed": 1, "clear": 5}},
        "dnswl_zen": {"off_in_workers": 0, "answers": none},  # of the other kind, and never asked
        "other": {"off_in_workers": 0, "answers": {"listed": 2, "clear": 0}},
    }
    status._compare(report, config)
    lines = status.text(report, "http://host")
    start = next(number for number, line in enumerate(lines) if line.startswith("DNS list"))
    assert lines[start : start + 5] == [
        "DNS list                      state               listed  clear",
        "dnsbl_zen                     on                       0      0",
        "dnsbl_gone                    not configured now       1      5",
        "other: added since the start  on                       2      0",
        "",
    ]


def test_a_url_needs_no_configuration(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", "/does/not/exist", "status", "--url", f"http://127.0.0.1:{endpoint.port}/"]) == 0
    assert "store        no errors" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["127.0.0.1:9797", "file:///etc/passwd", "http://", "ftp://127.0.0.1/", "http://[x"])
def test_a_url_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url]) == 64
    assert "is not http://HOST:PORT" in capsys.readouterr().err


def test_a_proxy_of_the_environment_is_not_asked(
    configured: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert main(["-c", configured, "status"]) == 0


def test_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "am.ini"
    path.write_text(f"[metrics]\nlisten = 127.0.0.1:{port}\n")
    assert main(["-c", str(path), "status"]) == 69
    assert f"no daemon answers at http://127.0.0.1:{port}: Connection refused" in capsys.readouterr().err


def test_metrics_are_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "am.ini"
    path.write_text("[metrics]\nlisten =\n")
    assert main(["-c", str(path), "status"]) == 69
    assert "[metrics] listen is empty" in capsys.readouterr().err


def test_a_broken_configuration_is_told_with_the_way_around_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "am.ini"
    path.write_text("[nonsense]\n")
    assert main(["-c", str(path), "status"]) == 78
    err = capsys.readouterr().err
    assert "[nonsense]" in err
    assert "--url" in err


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9797", "http://127.0.0.1:9797"),
        ("0.0.0.0:9797", "http://127.0.0.1:9797"),
        ("[::]:9797", "http://[::1]:9797"),
        ("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
        ("localhost:9797", "http://localhost:9797"),
    ],
)
def test_where_to_ask(listen: str, url: str) -> None:
    assert status._url(Config(metrics=Options(listen=listen))) == url


class Server(threading.Thread):
    """Says the same to everybody."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        connection, _ = self.sock.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(self.answer)
            except OSError:
                pass


def ok(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body


def like(**changes: Any) -> bytes:
    return ok(json.dumps({"program": "authmilter", "problems": [], **changes}).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no daemon answers"),
        (b"SSH-2.0-OpenSSH_9\r\n", "no daemon answers"),
        (b"HTTP/9\x1b]0;x\x07 200 OK\r\n\r\n", r"no daemon answers at {url}: HTTP/9\x1b]0;x\x07.  Is"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "has no /status"),
        (ok(b"hello"), "another program"),
        (ok(b"[1]"), "another program"),
        (ok(b"{}"), "another program"),
        (ok(b"\xff\xfe"), "another program"),
        (ok(b"[" * 100_000), "another program"),
        (ok(b"1" * 5_000_000), "another program"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "has no /status"),
        (like(), "not that of an authmilter of this version"),
        (like(version=1, uptime="x"), "not that of an authmilter of this version"),
    ],
    ids=[
        "nothing", "no HTTP", "no HTTP, for the terminal", "no such page", "no JSON", "a list", "an empty object", "no text", "deep", "a long number",
        "a redirect to a file", "too little", "other types",
    ],
)  # fmt: skip
def test_answers_of_others(answer: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(answer)
    assert main(["status", "--url", server.url]) == 69
    assert words.format(url=server.url) in capsys.readouterr().err
    server.sock.close()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_an_answer_that_lacks_a_part_for_what_the_configuration_tells(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(like())
    path = tmp_path / "am.ini"
    path.write_text(f"[metrics]\nlisten = {server.url.removeprefix('http://')}\n[store]\nurl = memory:\n")
    assert main(["-c", str(path), "status", *options]) == 69
    assert "not that of an authmilter of this version" in capsys.readouterr().err
    server.sock.close()


@pytest.mark.parametrize(
    ("where", "since"),
    [(where, since) for where in ("today", "keys") for since in (1e300, 1e18, math.inf)] + [("uptime", math.inf)],
)
def test_a_time_that_none_can_be(
    where: str, since: float, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    report = status._ask(f"http://127.0.0.1:{endpoint.port}")
    if where == "uptime":
        report["uptime"] = since
    report["today"]["since"] = since if where == "today" else time.time()
    key = {"selector": "s", "domain": "d", "algorithm": "a", "bits": 1, "state": "unknown", "detail": ""}
    report["keys"]["listed"] = [{**key, "loaded": since if where == "keys" else 0.0}]
    server = Server(ok(json.dumps(report).encode()))
    assert main(["status", "--url", server.url]) == 69
    assert "not that of an authmilter of this version" in capsys.readouterr().err
    server.sock.close()


def test_a_server_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert main(["status", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}"]) == 69
    assert "timed out" in capsys.readouterr().err


def test_a_server_that_trickles_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "TIMEOUT", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b" ")
                    time.sleep(0.1)

        threading.Thread(target=trickle, daemon=True).start()
        started = time.monotonic()
        assert main(["status", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"]) == 69
    assert time.monotonic() - started < 5.0
    assert "timed out" in capsys.readouterr().err


def test_nothing_that_an_answer_holds_reaches_the_terminal_raw(endpoint: Endpoint) -> None:
    report = status._ask(f"http://127.0.0.1:{endpoint.port}")
    evil = "\x1b]0;x\x07\u202e"
    report["version"] = evil
    report["problems"] = [evil]
    report["dns_lists"] = {evil: {"off_in_workers": 1, "answers": {evil: 1}}}
    report["alarms"] = {evil: {evil: 1}}
    report["store"] |= {"where": evil, "errors": {evil: 1}}
    report["today"]["messages"] = {evil: {"accept": 1}}
    report["dns"] |= {"nameservers": [evil], "lately": {"seconds": 1.0, "asked": 1, "failed": 1, "reasons": {evil: 1}}}
    names = dict.fromkeys(("selector", "domain", "algorithm", "bits", "state", "detail"), evil)
    report["keys"] = {"states": {evil: 1}, "listed": [{**names, "loaded": 0.0}]}
    text = "\n".join(status.text(report, "http://host"))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert text.count(r"\x1b]0;x\x07\u202e") == 18


@pytest.mark.parametrize(
    ("asked", "failed", "down", "words"),
    [
        (0, 0, 0.0, "nothing was asked; 0 questions"),
        (5, 2, 0.0, "they answer; 5 questions in the last 5m 30s, failed: timeout 2"),
        (2, 2, 0.0, "no answer so far; 2 questions in the last 5m 30s, failed: timeout 2"),
        (9, 2, 72.4, "down for 1m 12s; 9 questions in the last 5m 30s, failed: timeout 2"),
    ],
)
def test_nameservers(asked: int, failed: int, down: float, words: str) -> None:
    lately = {"seconds": 330.0, "asked": asked, "failed": failed, "reasons": {"timeout": failed, "refused": 0}}
    found = {"nameservers": ["127.0.0.1", "::1"], "lately": lately, "down_seconds": down}
    assert status._nameservers(found).startswith(f"127.0.0.1, ::1: {words}")


def test_of_many_keys_the_first_are_shown(endpoint: Endpoint) -> None:
    report = status._ask(f"http://127.0.0.1:{endpoint.port}")
    one = {"selector": "s", "algorithm": "rsa-sha256", "bits": 2048, "state": "unknown", "detail": "", "loaded": 0.0}
    report["keys"]["listed"] = [{**one, "domain": f"d{number}.example"} for number in range(30)]
    lines = status.text(report, "http://host")
    assert len([line for line in lines if "_domainkey" in line]) == 20
    assert "s._domainkey.d19.example  rsa-sha256, 2048 bits  not known  unknown" in lines
    assert "and 10 more; --json has them" in lines


def test_colour_is_for_a_terminal_alone(configured: str) -> None:
    command = f"{sys.executable} -m authmilter -c {configured} status"
    outputs = []
    for environment in ({}, {"NO_COLOR": "1"}):
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"],
            capture_output=True,
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment,
        )
        outputs.append(done.stdout)
    assert b"\x1b[32mall is well\x1b[0m" in outputs[0]
    assert b"\x1b" not in outputs[1]
    assert b"all is well" in outputs[1]


def as_nobody(words: list[str]) -> tuple[int, str]:
    """Exit status and output of a command run by a user without rights.

    In a child of ours, which has all modules: the interpreter itself may be out of his reach.
    """
    main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with open(theirs, "w", closefd=False) as sys.stdout:
                sys.stderr = sys.stdout
                result = main(words)
                sys.stdout.flush()
            os._exit(result)
        finally:
            os._exit(99)
    os.close(theirs)
    with open(ours) as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def test_a_daemon_asked_by_a_user_without_rights(capfd: pytest.CaptureFixture[str]) -> None:
    if not is_root():
        pytest.skip("needs root, to become another user")
    with Daemon("unix", {"milter": {"socket_group": ""}}) as daemon:
        state = f"sqlite:{daemon.folder}/state.db"
        words = ["-c", str(daemon.file), "status"]
        by_url = [*words, "--url", f"http://127.0.0.1:{daemon.metrics_port}"]
        daemon.folder.chmod(0o755)
        found, text = as_nobody(words)
        assert (found, text.splitlines()[-1]) == (0, "all is well"), text
        assert f"{state}, " in text
        daemon.file.chmod(0o600)
        assert "can't be read: trying the usual address" in as_nobody(words)[1]
        assert as_nobody(by_url)[0] == 0
        daemon.file.chmod(0o644)
        private = daemon.folder / "private"
        private.mkdir(0o700)
        daemon.configure({"store": {"url": f"sqlite:{private}/state.db"}})
        found, text = as_nobody(words)
        assert (found, f"sqlite:{private}/state.db, no errors" in text) == (0, True), text
        daemon.configure({"nonsense": {}})
        daemon.reload("failure")
        found, text = as_nobody(by_url)
        assert (found, text.splitlines()[-1]) == (
            1,
            "the last reload failed, and the configuration before it is in force",
        )
        assert "reload       failed 0s ago; 1 so far, 1 failed" in text
