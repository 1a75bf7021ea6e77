"""check_authmilter against a daemon that is well, one that is not, and what is no daemon at all."""

import json
import math
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.contrib.monitoring import CONTRIB, visit, visited_daemon
from tests.dnsserver import DNSServer
from tests.milter.client import MilterClient
from tests.rig.daemon import Daemon
from tests.rig.mail import write_keys, zone
from tests.rig.sockets import free_port, wait_until
from tests.shared import ROOT

PLUGIN = CONTRIB / "nagios" / "check_authmilter"
PERFDATA = re.compile(r"'[^'|]+'=(?:-?[\d.]+[a-z]*|U)(;[\d.:@~-]*){0,4}")


@pytest.fixture(scope="module", params=["unix", "inet"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Whom everybody visited."""
    with visited_daemon(family=request.param) as running:
        yield running


def check(*args: str | Path) -> tuple[int, str, dict[str, str]]:
    """Exit status, text and performance data of the plugin; it says one line whatever happens."""
    done = subprocess.run(["/usr/bin/env", "python3", "-I", PLUGIN, *args], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    text, _, data = done.stdout.strip().partition(" | ")
    assert text.startswith(f"AUTHMILTER {('OK', 'WARNING', 'CRITICAL', 'UNKNOWN')[done.returncode]} - ")
    words = re.findall(r"'[^']+'=\S+", data)
    assert " ".join(words) == data
    assert all(PERFDATA.fullmatch(word) for word in words), words
    return done.returncode, text, dict(word[1:].split("'=", 1) for word in words)


def milter(daemon: Daemon) -> str:
    return f"unix:{daemon.unix_path}" if daemon.family == "unix" else f"inet:{daemon.port}@127.0.0.1"


def page(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.metrics_port}"


@contextmanager
def answering(answer: bytes, *, trickles: bool = False) -> Iterator[int]:
    """A server that says the same to everybody, and with `trickles` an octet every tenth of a second for ever; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer)
                while trickles:
                    time.sleep(0.1)
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_all_is_well(daemon: Daemon) -> None:
    status, text, data = check("--socket", milter(daemon), "--url", page(daemon))
    assert status == 0, text
    assert "milter handshake in" in text
    assert "2 of 2 workers accept connections" in text
    assert "all 1 DNS lists are on" in text
    assert data["handshake"].endswith("s;1;5;0")
    assert data["workers"] == "2;;;0"
    assert data["inbound_reject_today"] == "3;;;0"
    assert data["lists_off"] == "0;;;0"


@pytest.mark.parametrize(
    ("warning", "critical", "expected"),
    [("10", "20", 0), ("2", "20", 1), ("0", "1", 2), ("@3:3", "20", 1), ("4:", "0:", 1), ("~:3", "~:4", 0)],
)
def test_thresholds_are_those_of_all_plugins(daemon: Daemon, warning: str, critical: str, expected: int) -> None:
    wanted = 'authmilter_messages_total{direction="inbound",action="reject"}'
    status, text, data = check("-u", page(daemon), "-m", wanted, warning, critical)
    assert status == expected, text
    assert f"{wanted} is 3" in text
    assert data["authmilter_messages_total{direction:inbound,action:reject}"] == f"3;{warning};{critical};0"


def test_increases_are_counted_from_check_to_check(daemon: Daemon, tmp_path: Path) -> None:
    args = ("-u", page(daemon), "--state", tmp_path / "state", "-i", "authmilter_messages_total", "3", "100")
    assert check(*args)[0] == 0  # the first time
    assert "is 0 since the last check" in check(*args)[1]
    visit(daemon)
    status, text, _ = check(*args)
    assert (status, "is 7 since the last check" in text) == (1, True), text
    assert check(*args)[0] == 0
    assert json.loads((tmp_path / "state").read_text())["authmilter_messages_total"] > 0
    # A daemon that was started anew counts from 0.
    (tmp_path / "state").write_text('{"authmilter_messages_total": 1e9}')
    assert check(*args)[0] == 1


def test_a_metric_without_samples_is_0_and_one_that_does_not_exist_is_unknown(daemon: Daemon) -> None:
    failures = 'authmilter_signatures_total{outcome="failure"}'
    assert check("-u", page(daemon), "-m", failures, "0", "10")[0] == 0
    assert check("-u", page(daemon), "-m", 'authmilter_auth_results_total{result="nonsense"}', "0", "10")[0] == 0
    status, text, _ = check("-u", page(daemon), "-m", "authmilter_nonsense", "0", "10")
    assert (status, "no metric authmilter_nonsense" in text) == (3, True)


@contextmanager
def signing_daemon(dns: DNSServer, folder: Path) -> Iterator[Daemon]:
    """Signs for sender.example with two keys, and for gone.example with one."""
    keys = write_keys(folder)
    both = {"selector": "r", "key_file": keys.rsa, "ed25519_selector": "e", "ed25519_key_file": keys.ed25519}
    one = {"selector": "r", "key_file": keys.rsa}
    settings: dict[str, dict[str, object]] = {
        "dns": {"nameservers": dns.address, "timeout": "500ms", "servfail_ttl": "0s"},
        "sign sender.example": dict(both),
        "sign gone.example": dict(one),
    }
    with Daemon("inet", settings) as daemon:
        yield daemon


def send(daemon: Daemon, sender: bytes) -> None:
    with MilterClient(f"inet:{daemon.port}@127.0.0.1") as mta:
        mta.negotiate()
        mta.connect(host=b"[192.0.2.10]", address=b"192.0.2.10", macros={b"j": b"mx.test"})
        mta.helo(b"mx." + sender)
        mta.message(b"<a@%s>" % sender, [b"<u@test>"], [(b"From", b" a@" + sender), (b"Subject", b" x")])


def status_of(daemon: Daemon) -> list[str]:
    """The lines of `authmilter status`."""
    command = [sys.executable, "-m", "authmilter", "-c", str(daemon.file), "status"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout.splitlines()


def test_keys_that_are_not_published_are_a_warning_and_then_none(tmp_path: Path) -> None:
    with DNSServer(zone()) as dns, signing_daemon(dns, tmp_path) as daemon:
        wait_until(lambda: check("-u", page(daemon))[2].get("keys_unknown") == "0;;;0", 20, "the records")
        status, text, data = check("-u", page(daemon))
        assert (status, data["keys_published"], data["keys_wrong"]) == (1, "2;;;0", "1;0;;0"), text
        name = "r._domainkey.gone.example"
        assert f"of gone.example with selector r can't be verified: {name} does not exist; publish the key of" in text
        assert check("-u", page(daemon), "-m", 'authmilter_signing_keys{state="missing"}', "0", "0")[0] == 2
        lines = status_of(daemon)
        assert "keys         published 2, missing 1" in lines
        assert "DNS          no questions for mail yet" in lines, "these were our own"
        assert daemon.log_lines(f"[sign gone.example] record {name}: does not exist")
        rows = [line for line in lines if "._domainkey." in line]
        assert re.fullmatch(rf"{name} +rsa-sha256, 2048 bits +20\S+ \S+  missing: {name} does not exist", rows[0]), rows
        assert re.fullmatch(r"e\S+example +ed25519-sha256, 256 bits .*  published", rows[1]), rows
        assert len(rows) == 4  # and the problem
        dns.add(f"{name} TXT", zone()["r._domainkey.sender.example TXT"])
        daemon.reload()
        wait_until(lambda: check("-u", page(daemon))[0] == 0, 20, "the new record")
        assert "3 of 3 signing keys are known to be published" in check("-u", page(daemon))[1]
        dns.behave(name, "servfail")
        daemon.reload()
        time.sleep(1)
        assert check("-u", page(daemon))[0] == 0, "the DNS does not answer, and the key is no worse for it"
        daemon.configure({"dns": {"nameservers": dns.address, "check_keys": "no"}})
        daemon.reload()
        wait_until(lambda: not any("._domainkey." in line for line in status_of(daemon)), 10, "no key")


def test_nameservers_that_do_not_answer_are_a_warning_and_then_critical(tmp_path: Path) -> None:
    with DNSServer(zone()) as dns, Daemon("inet", {"dns": {"nameservers": dns.address, "timeout": "300ms"}}) as daemon:
        send(daemon, b"good.example")
        assert check("-u", page(daemon))[0] == 0
        dns.stop()
        send(daemon, b"other.example")
        wait_until(lambda: check("-u", page(daemon))[0] == 1, 15, "what is wrong")
        status, text, data = check("-u", page(daemon))
        assert (status, f"the nameservers {dns.address} do not answer: down for " in text) == (1, True), text
        assert "see whether they run" in text
        assert data["dns_down"].endswith("s;0;60;0")
        assert int(data["dns_failed"].partition(";")[0]) >= 2
        status, text, _ = check("-u", page(daemon), "--dns-critical", "0.1")
        assert (status, "do not answer" in text) == (2, True), text
        assert f"nameservers  {dns.address}: down for " in "\n".join(status_of(daemon))
        assert daemon.log_lines("the nameservers do not work")
        with DNSServer(zone(), port=dns.port):
            wait_until(lambda: check("-u", page(daemon))[0] == 0, 25, "their return")
            assert daemon.log_lines("the nameservers work again")


def test_silent_domains_of_a_sender_alone_are_never_critical() -> None:
    silent = {f"{prefix}n{n}.example": "drop" for n in range(12) for prefix in ("", "_dmarc.", "mx.", "www.")}
    with (
        DNSServer(zone(), silent | {"10.2.0.192.in-addr.arpa": "drop"}) as dns,
        Daemon("inet", {"dns": {"nameservers": dns.address, "timeout": "100ms"}}) as daemon,
    ):
        for n in range(12):
            send(daemon, b"n%d.example" % n)
        status, text, data = check("-u", page(daemon), "--dns-critical", "0.1")
    assert status in (0, 1), text
    assert data["dns_down"] == "0s;0;0.1;0", text
    assert int(data["dns_failed"].partition(";")[0]) >= 12
    assert dns.asked("com A"), "and only that kept it from being critical"


def test_a_list_that_is_off_and_a_failed_reload_are_warnings() -> None:
    # The zone lists the whole world, so that the daemon switches it off.
    with visited_daemon({"dnsbl world": {"zone": "good.example", "score": "1"}}) as daemon:
        broken = daemon.file.read_text()
        daemon.file.write_text(broken + "[nonsense]\n")
        daemon.reload("failure")
        status, text, data = check("-u", page(daemon))
    assert status == 1, text
    assert "the last reload failed" in text
    assert data["workers"] == "2;;;0"


def test_nobody_there_is_critical(tmp_path: Path) -> None:
    port = free_port()
    assert check("-s", f"inet:{port}@127.0.0.1")[:2] == (
        2,
        f"AUTHMILTER CRITICAL - inet:{port}@127.0.0.1: Connection refused",
    )
    assert check("-s", f"unix:{tmp_path}/none")[0] == 2
    status, text, _ = check("-u", f"http://127.0.0.1:{port}")
    assert (status, "Connection refused" in text) == (2, True)


def test_one_who_takes_connections_and_says_nothing_is_critical() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for args in (("-s", f"inet:{port}@127.0.0.1"), ("-u", f"http://127.0.0.1:{port}")):
            status, text, _ = check(*args, "-t", "0.3")
            assert (status, "no answer in time" in text) == (2, True), text


@pytest.mark.parametrize("peer", ["socket", "status", "headers", "no length"])
def test_a_peer_that_trickles_is_unknown_when_the_time_for_all_is_over(daemon: Daemon, peer: str) -> None:
    heads = {
        "socket": b"\0\0\xff\xffO",
        "status": b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        "headers": b"HTTP/1.0 200 OK\r\nX-Field:",
        "no length": b"HTTP/1.0 200 OK\r\n\r\n",
    }
    with answering(heads[peer], trickles=True) as port:
        url = f"http://127.0.0.1:{port}"
        args = ("-s", f"inet:{port}@127.0.0.1") if peer == "socket" else ("-s", milter(daemon), "-u", url)
        started = time.monotonic()
        status, text, data = check(*args, "-t", "1")
        seconds = time.monotonic() - started
    assert (status, "it answers too slowly: the 1s of --timeout are over" in text) == (3, True), text
    assert f":{port}" in text if peer == "socket" else f"{url}/status: " in text
    assert ("handshake" in data) is (peer != "socket"), "what was found before is told"
    assert 0.9 <= seconds < 4  # a second, and the start of the interpreter on a busy machine


def test_a_milter_that_trickles_for_longer_than_a_handshake_may_take_is_critical() -> None:
    with answering(b"\0\0\xff\xffO", trickles=True) as port:
        status, text, _ = check("-s", f"inet:{port}@127.0.0.1", "-t", "2", "-w", "0.1", "-c", "0.5")
    assert (status, "no answer in time" in text) == (2, True), text


def test_the_url_is_asked_though_the_socket_is_silent(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"inet:{silent.getsockname()[1]}@127.0.0.1"
        status, text, data = check("-s", where, "-u", page(daemon), "-t", "3", "-c", "1")
        assert (status, "no answer in time" in text, data["workers"]) == (2, True, "2;;;0"), text
        # Unless a handshake may take all of the time: then nobody knows of the rest.
        status, text, _ = check("-s", where, "-u", page(daemon), "-t", "1")
        assert (status, "was not asked: the 1s of --timeout were over" in text) == (2, True), text


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 mx.example ESMTP\r\n", b"\0\0\0\x0dX" + b"\0" * 12, b"\xff\xff\xff\xffO", b"\0\0\0\x0dO" + b"\0" * 12],
    ids=["nothing", "SMTP", "another packet", "endless", "version 0"],
)
def test_another_program_at_the_socket_is_critical(answer: bytes) -> None:
    with answering(answer) as port:
        status, text, _ = check("-s", f"inet:{port}@127.0.0.1")
    assert (status, "not that of a milter" in text) == (2, True), text


@pytest.mark.parametrize(
    "body", [b"hello", b"[]", b'{"program": "other"}', b'{"program": "authmilter", "workers": 1}', b"[" * 100_000]
)
def test_another_program_at_the_url_is_unknown(body: bytes) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as port:
        assert check("-u", f"http://127.0.0.1:{port}")[0] == 3


def test_what_another_program_makes_up_stays_within_its_place_on_the_line(daemon: Daemon) -> None:
    with urllib.request.urlopen(f"{page(daemon)}/status") as answer:
        report = json.load(answer)
    report["dns"]["down_seconds"] = math.nan
    report["today"]["messages"] = {"in\nOK - x | 'a'=1\n\ud800": {"accept\n": 1}}
    report["problems"] = ["one\n|'a'=1\ud800\x1b[1m"]
    body = json.dumps(report).encode()
    with answering(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as port:
        status, text, data = check("-u", f"http://127.0.0.1:{port}")
    assert (status, text) == (1, "AUTHMILTER WARNING - one??'a'=1??[1m")
    assert data["dns_down"].startswith("U;")
    assert data["in_OK - x _ _a__1___accept__today"] == "1;;;0"


def test_a_locale_without_a_character_does_not_cost_the_line(daemon: Daemon) -> None:
    with urllib.request.urlopen(f"{page(daemon)}/status") as answer:
        report = json.load(answer)
    report["problems"] = ["\u0142"]
    body = json.dumps(report).encode()
    with answering(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as port:
        done = subprocess.run(
            [sys.executable, PLUGIN, "-u", f"http://127.0.0.1:{port}"],
            env={"PYTHONIOENCODING": "latin-1"}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("AUTHMILTER WARNING - ? | ")


def test_it_ends_in_time_though_nobody_reads_what_it_says() -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\n", trickles=True) as port:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as closed:
            words: list[str | Path] = [sys.executable, PLUGIN, "-u", f"http://127.0.0.1:{port}", "-t", "1"]
            subprocess.run(words, stdout=closed, stderr=subprocess.DEVNULL, timeout=20, check=False)


def test_what_is_wrong_with_several_is_said_worst_first(daemon: Daemon) -> None:
    status, text, _ = check(
        "-s", f"inet:{free_port()}@127.0.0.1", "-u", page(daemon), "-m", "authmilter_nonsense", "0", "1"
    )
    assert status == 2
    assert text.index("Connection refused") < text.index("no metric")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--nonsense"],
        ["-s", "tcp:1"],
        ["-s", "inet:x@localhost"],
        ["-s", "unix:/x", "-w", "soon"],
        ["-s", "unix:/x", "-m", "a", "1", "2"],
        ["-u", "http://127.0.0.1:1", "-i", "a", "1", "2"],
        ["-u", "http://127.0.0.1:1", "-m", "a", "2:1", "2"],
    ],
)
def test_a_wrong_command_line_is_unknown(args: list[str]) -> None:
    assert check(*args)[0] == 3


def test_it_can_be_run_as_it_is() -> None:
    assert os.access(PLUGIN, os.X_OK)
    done = subprocess.run([PLUGIN, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "--socket" in done.stdout


COMMANDS = [
    line.strip()
    for line in (PLUGIN.parent / "README.md").read_text().splitlines()
    if line.startswith("    check_authmilter ")
]


@pytest.mark.parametrize("command", COMMANDS, ids=["status", "increase", "Debian package", "keys"])
def test_the_commands_of_the_page(command: str, tmp_path: Path) -> None:
    with visited_daemon() as daemon:
        _, *words = shlex.split(_for(command, daemon, tmp_path))
        assert check(*words)[0] == 0


def test_the_command_line_of_the_configuration() -> None:
    text = (PLUGIN.parent / "authmilter.cfg").read_text()
    (line,) = re.findall(r"command_line\s+/usr/lib/nagios/plugins/check_authmilter (.*)", text)
    (arguments,) = re.findall(r"check_command\s+check_authmilter!(.*)", text)
    for number, argument in enumerate(arguments.split("!"), 1):
        line = line.replace(f"$ARG{number}$", argument)
    with visited_daemon() as daemon:
        assert check(*shlex.split(_for(line, daemon, Path("/nowhere"))))[0] == 0


def _for(command: str, daemon: Daemon, folder: Path) -> str:
    """With the addresses of this daemon."""
    for usual, ours in (
        ("inet:8891@127.0.0.1", milter(daemon)),
        ("unix:/var/spool/postfix/authmilter/authmilter.sock", milter(daemon)),
        ("http://127.0.0.1:9797", page(daemon)),
        ("/var/lib/nagios", str(folder)),
    ):
        command = command.replace(usual, ours)
    return command
