"""Scanners for tests: servers that answer as they are told, and real ones with configurations of their own."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.rig.sockets import free_port, wait_until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Each in two halves, so that nothing takes this file for the test file of EICAR, or the test message of spam filters.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
MARKER = b"suspicious-" + b"marker-of-the-tests"


class FakeServer:
    """A server whose answer to each connection is up to a coroutine function; it keeps what it was told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0

    @property
    def socket(self) -> str:
        """In the words of the configuration."""
        return f"inet:{self.port}@127.0.0.1"


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[FakeServer]:
    """A server on a port of its own; all its connections are ended with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fake.asked += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    fake = FakeServer(server.sockets[0].getsockname()[1])
    try:
        yield fake
    finally:
        server.close()
        for task in tasks:
            task.cancel()


async def read_instream(reader: asyncio.StreamReader) -> bytes:
    """What a client sends by INSTREAM, taken apart as clamd does."""
    assert await reader.readexactly(10) == b"zINSTREAM\0"
    stream = b""
    while length := int.from_bytes(await reader.readexactly(4), "big"):
        stream += await reader.readexactly(length)
    return stream


def require(program: str, package: str) -> str:
    """Where that program is; the calling test is skipped without it, and fails where AUTHMILTER_REQUIRE_RIG is set."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/bin")
    if path is None:
        reason = f"{program} is not installed (Debian package {package})"
        if os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextmanager
def started(command: Sequence[str | Path], folder: Path, is_up: Callable[[bytes], bool]) -> Iterator[None]:
    """A server in the foreground, from when its log, which is in that folder, tells that it is up."""
    file = folder / "log"
    with file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    try:
        wait_until(lambda: is_up(file.read_bytes()) or process.poll() is not None, 60, f"{command[0]} is up")
        assert process.poll() is None, file.read_text("utf-8", "replace")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Clamd:
    """A real clamd, with signatures of its own for EICAR and `MARKER`; `stop` and `start` it at will."""

    def __init__(self) -> None:
        self._program = require("clamd", "clamav-daemon")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-clamd-"))
        self.folder.chmod(0o755)
        self.path = self.folder / "clamd.sock"
        self._process: subprocess.Popen[bytes] | None = None
        signatures = self.folder / "db"
        signatures.mkdir()
        (signatures / "test.hdb").write_text(f"{hashlib.md5(EICAR).hexdigest()}:{len(EICAR)}:Eicar-Test\n")
        (signatures / "test.ndb").write_text(f"PUA.Test:0:*:{MARKER.hex()}\n")
        (self.folder / "clamd.conf").write_text(
            f"DatabaseDirectory {signatures}\nLocalSocket {self.path}\nTCPSocket {self.port}\nTCPAddr 127.0.0.1\n"
            "Foreground yes\nUser root\nStreamMaxLength 1M\n"
        )

    @property
    def socket(self) -> str:
        """In the words of the configuration."""
        return f"unix:{self.path}"

    @property
    def tcp(self) -> str:
        """The same over TCP."""
        return f"inet:{self.port}@127.0.0.1"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--config-file", self.folder / "clamd.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.path.is_socket() or self._has_ended(), 20, "clamd listens")
        assert not self._has_ended(), (self.folder / "log").read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self.path.unlink(missing_ok=True)

    def freeze(self) -> None:
        """It is there, and takes connections as far as the kernel does, but says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
