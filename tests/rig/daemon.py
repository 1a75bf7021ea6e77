"""The daemon as a process of its own, as a service manager would start it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.rig.sockets import free_port, wait_until
from tests.shared import ROOT

COMMAND = (sys.executable, "-m", "authmilter.cli", "run")
Configuration = Mapping[str, Mapping[str, object]]  # section -> option -> value


class Metrics(NamedTuple):
    """One scrape."""

    text: str

    def value(self, name: str, **labels: str) -> float:
        """Sum of all samples of that name that have these labels; 0 if there is none."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def increase(self, before: "Metrics", name: str, **labels: str) -> float:
        """How much a counter rose since `before`."""
        return self.value(name, **labels) - before.value(name, **labels)


class Daemon:
    """`authmilter run` with a configuration, up to its READY=1.

    `family` is the kind of its milter socket: unix, inet or inet6.  `command` is what is run, with ``-c FILE`` after
    it.  Use it as a context manager.
    """

    def __init__(self, family: str, configuration: Configuration, command: Sequence[str] = COMMAND) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-daemon-"))
        self.folder.chmod(0o755)  # Postfix and a daemon that dropped its rights pass through
        self.port = free_port()
        self.metrics_port = free_port()
        self.unix_path = self.folder / "authmilter.sock"  # as in /run/authmilter
        self.file = self.folder / "authmilter.ini"
        self.log_file = self.folder / "log"
        self.notified: list[str] = []  # every line of sd_notify so far
        addresses = {
            "unix": f"unix:{self.unix_path}",
            "inet": f"inet:{self.port}@127.0.0.1",
            "inet6": f"inet6:{self.port}@::1",
        }
        self.family = family
        self._command = command
        self._basis: Configuration = {
            # The group of the MTA may write to the socket; other users may not.
            "milter": {"socket": addresses[family], "workers": 2, "socket_group": "postfix"},
            "store": {"url": f"sqlite:{self.folder}/state.db"},
            "metrics": {"listen": f"127.0.0.1:{self.metrics_port}"},
        }
        self._configuration: Configuration = {}
        self.configure(configuration)
        self._process: subprocess.Popen[bytes] | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @property
    def address(self) -> str:
        """The socket in the words of main.cf."""
        words = {"unix": f"unix:{self.unix_path}", "inet": f"inet:127.0.0.1:{self.port}"}
        return words.get(self.family, f"inet:[::1]:{self.port}")

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None, "not started"
        return self._process.pid

    def configure(self, configuration: Configuration) -> None:
        """Write the file, `configuration` over what the rig itself needs; a running daemon has to be told."""
        self._configuration = configuration
        lines: list[str] = []
        for section in dict.fromkeys([*self._basis, *configuration]):
            lines.append(f"[{section}]")
            options = {**self._basis.get(section, {}), **configuration.get(section, {})}
            lines += [f"{option} = {value}" for option, value in options.items()]
        self.file.write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Self:
        path = self.folder / "notify.sock"
        self._notify.bind(str(path))
        path.chmod(0o777)  # as systemd's own: whoever the daemon becomes may write to it
        self._notify.setblocking(False)
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "-c", self.file],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(path), "STATE_DIRECTORY": str(self.folder)},
            )
        try:
            wait_until(lambda: self._process_ended() or "READY=1" in self.notifications(), 20, "READY=1")
            assert not self._process_ended(), "it ended at once"
        except BaseException as e:
            e.add_note(f"log of the daemon:\n{self.log()}")
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"log of the daemon:\n{self.log()}")
        self._end()

    def notifications(self) -> list[str]:
        """Every line that came by sd_notify so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.notified += self._notify.recv(4096).decode().splitlines()
        return self.notified

    def log(self) -> str:
        """All that the daemon wrote to stdout and stderr."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def log_lines(self, *parts: str) -> list[str]:
        """Lines of the log in which all of `parts` stand."""
        return [line for line in self.log().splitlines() if all(part in line for part in parts)]

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the exporter."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metrics(self) -> Metrics:
        """A scrape."""
        status, text = self.http("/metrics")
        assert status == 200, text
        return Metrics(text)

    def reload(self, outcome: str = "success") -> None:
        """SIGHUP, and wait until the daemon counts that reload as `outcome`."""
        before = self.metrics()
        os.kill(self.pid, signal.SIGHUP)
        wait_until(
            lambda: self.metrics().increase(before, "authmilter_config_reloads_total", outcome=outcome) == 1,
            10,
            f"one more reload with outcome {outcome}",
        )

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = 40.0) -> int:
        """The exit status, once it ended by itself."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.terminate()
        return self.wait()

    def serving(self) -> dict[int, int]:
        """Child process -> milter connections that it holds.  Needs root, as the rig does."""
        inodes = _unix_inodes(self.unix_path) if self.family == "unix" else _tcp_inodes(self.port, self.family)
        return {child: len(_socket_inodes(child) & inodes) for child in self._children()}

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _end(self) -> None:
        """Whatever happened before: no process and no file is left."""
        if self._process is not None and self._process.poll() is None:
            children = self._children()
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                for pid in (self._process.pid, *children):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._process.wait(5)
        self._notify.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _socket_inodes(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found


def _unix_inodes(path: Path) -> set[str]:
    """Inodes of the server's ends of connections to a UNIX socket, renamed to its path or not (proc(5), unix)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {row[6] for row in rows if len(row) > 7 and row[5] == "03" and Path(row[7]).parent == path.parent}


def _tcp_inodes(port: int, family: str) -> set[str]:
    """Inodes of established TCP connections whose local port is `port` (proc(5), tcp)."""
    table = Path("/proc/net/tcp6" if family == "inet6" else "/proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port}
