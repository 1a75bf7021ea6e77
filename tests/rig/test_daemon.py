"""The daemon as the system sees it: exit statuses, users, notifications, respawn, reload, sockets."""

import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dnsserver import DNSServer
from tests.milter.client import MilterClient
from tests.rig.daemon import COMMAND, Configuration, Daemon
from tests.rig.mail import KeyFiles
from tests.rig.sockets import wait_until


@pytest.fixture
def daemon(dns: DNSServer) -> Iterator[Daemon]:
    with Daemon("unix", {"dns": {"nameservers": dns.address}}) as running:
        yield running


def status_of(pid: int, field: str) -> list[int]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return [int(word) for word in line.split()[1:]]
    raise AssertionError(field)


def failed_start(tmp_path: Path, text: str) -> tuple[int, str]:
    file = tmp_path / "am.ini"
    file.write_text(text)
    done = subprocess.run([*COMMAND, "-c", file], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


def test_a_bad_configuration_ends_with_78_and_names_every_line(tmp_path: Path) -> None:
    status, log = failed_start(tmp_path, "[milter]\nsockett = x\nworkers = many\n")
    assert status == 78
    assert "am.ini:2: [milter]" in log
    assert "am.ini:3: [milter]" in log
    assert "did you mean 'socket'" in log


@pytest.mark.parametrize(
    ("section", "option"), [("milter", "socket = inet:{port}@127.0.0.1"), ("metrics", "listen = 127.0.0.1:{port}")]
)
def test_a_port_in_use_ends_with_69_and_names_it(tmp_path: Path, section: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sections = {"milter": "socket = inet:0@127.0.0.1", "metrics": "listen = 127.0.0.1:0"}
        sections[section] = option.format(port=port)
        text = "".join(f"[{name}]\n{line}\n" for name, line in sections.items())
        status, log = failed_start(tmp_path, text)
    assert status == 69
    assert str(port) in log
    assert "in use" in log


@pytest.mark.parametrize(
    "url", ["sqlite:/proc/nope/x.db", "sqlite:/tmp", "sqlite:{garbage}", "redis://127.0.0.1:1/0", "unix:///nope/sock"]
)
def test_a_store_that_is_not_to_be_had_ends_with_69(tmp_path: Path, url: str) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no data base " * 1000)
    text = f"[milter]\nsocket = inet:0@127.0.0.1\n[metrics]\nlisten =\n[store]\nurl = {url.format(garbage=garbage)}\n"
    status, log = failed_start(tmp_path, text)
    assert status == 69
    assert "[store] url: " in log


def test_the_state_file_is_made_where_systemd_says(daemon: Daemon) -> None:
    assert (daemon.folder / "state.db").exists()


def test_files_that_a_reload_will_miss_are_named_at_start(dns: DNSServer, keys: KeyFiles, tmp_path: Path) -> None:
    secrets = [tmp_path / name for name in ("list_key", "password", "ca")]
    for path in secrets:
        path.write_text("secret\n")
        path.chmod(0o600)
    list_key, password, authorities = secrets
    configuration: Configuration = {
        "milter": {"user": "nobody"},
        "store": {"url": "memory:", "password_file": password, "ca_file": authorities},
        "dns": {"nameservers": dns.address},
        "dnsbl paid": {"zone": "list.example", "key_file": list_key},
        "sign sender.example": {"selector": "s", "key_file": keys.rsa},
    }
    with Daemon("unix", configuration) as daemon:
        for path in (keys.rsa, *secrets):
            assert daemon.log_lines(f"{path} can't be read as user nobody")


def test_a_reload_works_after_dropping_root_as_long_as_keys_stay(dns: DNSServer, keys: KeyFiles) -> None:
    configuration: Configuration = {
        "milter": {"user": "nobody"},
        "store": {"url": "memory:"},
        "dns": {"nameservers": dns.address},
        "sign sender.example": {"selector": "s", "key_file": keys.rsa},
    }
    with Daemon("unix", configuration) as daemon:
        assert daemon.log_lines(str(keys.rsa), "can't be read as user nobody")
        daemon.reload()
        assert daemon.log_lines(str(keys.rsa), "stays in use")
        daemon.configure({**configuration, "sign other.example": {"selector": "s", "key_file": keys.ed25519}})
        daemon.reload("failure")
        assert daemon.log_lines(str(keys.ed25519), "can't be read")


def test_as_root_it_becomes_the_user_after_binding(dns: DNSServer) -> None:
    configuration: Configuration = {
        "milter": {"user": "nobody", "socket_mode": "0660"},
        "store": {"url": "memory:"},
        "dns": {"nameservers": dns.address},
    }
    with Daemon("unix", configuration) as daemon:
        uid = pwd.getpwnam("nobody").pw_uid
        for pid in (daemon.pid, *daemon.serving()):
            assert status_of(pid, "Uid") == [uid] * 4
            assert 0 not in status_of(pid, "Gid")
        found = os.stat(daemon.unix_path)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == grp.getgrnam("postfix").gr_gid
        assert daemon.stop() == 0


def test_the_usual_state_directory_is_handed_to_the_user_that_root_becomes(dns: DNSServer) -> None:
    # In a mount namespace of its own, with an empty /var/lib: root's usual place must not be touched by a test.
    script = 'mount -t tmpfs tmpfs /var/lib && unset STATE_DIRECTORY && exec "$0" "$@"'
    command = ("unshare", "--mount", "sh", "-c", script, *COMMAND)
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    configuration: Configuration = {
        "milter": {"user": "nobody"},
        "store": {"url": "sqlite:"},
        "greylist": {"enabled": "yes"},
        "dns": {"nameservers": dns.address},
    }
    with Daemon("unix", configuration, command) as daemon:
        uid = pwd.getpwnam("nobody").pw_uid
        assert status_of(daemon.pid, "Uid") == [uid] * 4
        found = os.stat(f"/proc/{daemon.pid}/root/var/lib/authmilter/state.db")
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (uid, 0o600)
        assert not daemon.log_lines("can't start")
        assert daemon.stop() == 0


def test_systemd_is_told_of_start_reload_failure_and_stop(daemon: Daemon) -> None:
    assert "READY=1" in daemon.notifications()
    daemon.reload()
    told = daemon.notifications()
    assert "RELOADING=1" in told
    assert any(line.startswith("MONOTONIC_USEC=") for line in told)
    daemon.file.write_text("[milter]\nsockett = x\n")
    daemon.reload("failure")
    assert any("reload failed" in line and "sockett" in line for line in daemon.notifications())
    assert daemon.stop() == 0
    assert "STOPPING=1" in daemon.notifications()


def test_the_watchdog_is_fed(dns: DNSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with Daemon("unix", {"dns": {"nameservers": dns.address}}) as daemon:
        wait_until(lambda: daemon.notifications().count("WATCHDOG=1") >= 3, 10, "three pings")


def test_a_killed_worker_is_replaced_and_counted(daemon: Daemon) -> None:
    before = daemon.metrics()
    workers = [pid for pid in daemon.serving() if pid != min(daemon.serving())]  # the first child is the exporter
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: daemon.metrics().increase(before, "authmilter_worker_restarts_total") == 1, 10, "a restart")
    wait_until(lambda: "2 of 2" in daemon.http("/readyz")[1], 10, "both workers accepting")
    assert daemon.log_lines("was killed by SIGKILL")


def test_a_killed_exporter_is_replaced(daemon: Daemon) -> None:
    os.kill(min(daemon.serving()), signal.SIGKILL)
    wait_until(lambda: daemon.log_lines("exporter", "was killed by SIGKILL") != [], 10, "a line in the log")

    def answers() -> bool:
        try:
            return daemon.http("/healthz")[0] == 200
        except OSError:
            return False

    wait_until(answers, 10, "an answer")


def test_a_stale_socket_of_a_killed_daemon_is_replaced(dns: DNSServer) -> None:
    with Daemon("unix", {"dns": {"nameservers": dns.address}}) as daemon:
        path = daemon.unix_path
        other = path.parent / "second.ini"
        children = list(daemon.serving())
        os.kill(daemon.pid, signal.SIGKILL)
        for child in children:  # they see the end of their supervisor, and drain
            wait_until(lambda child=child: not Path(f"/proc/{child}").exists(), 10, "end of a child")  # type: ignore[misc]
        assert path.exists()
        other.write_text(f"[milter]\nsocket = unix:{path}\n[metrics]\nlisten =\n")
        second = subprocess.Popen([*COMMAND, "-c", other], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: _connects(path), 20, "a connection")
        finally:
            second.terminate()
            out, _ = second.communicate(timeout=30)
        assert second.returncode == 0
        assert f"smtpd_milters = unix:{path}" in out


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def test_two_signals_end_it_at_once(dns: DNSServer) -> None:
    with Daemon("inet6", {"dns": {"nameservers": dns.address}, "milter": {"drain_timeout": "60s"}}) as daemon:
        client = MilterClient(f"inet6:{daemon.port}@::1")
        client.negotiate()
        client.connect()
        daemon.terminate()
        wait_until(lambda: daemon.log_lines("stopping") != [], 10, "the first signal")
        daemon.terminate()
        assert daemon.wait(10) == 0
        client.close()


def test_a_change_that_needs_a_restart_is_named(daemon: Daemon) -> None:
    text = daemon.file.read_text()
    daemon.file.write_text(text.replace("workers = 2", "workers = 3"))
    daemon.reload()
    assert len(daemon.log_lines("[milter] workers", "restart")) == 1
    daemon.reload()
    assert len(daemon.log_lines("[milter] workers", "restart")) == 2  # it is still not in force
    daemon.file.write_text(text)
    daemon.reload()
    assert len(daemon.log_lines("[milter] workers", "restart")) == 2


def test_an_empty_file_is_enough(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND[:-1], "check-config", "-c", "/dev/null"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
