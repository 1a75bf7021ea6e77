"""Redis servers for tests, and a proxy that makes one slow."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RedisServer:
    """A server of our own, which keeps nothing on disk; ended by its process id."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.folder = folder
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> "RedisServer":
        """Start it, and wait until it listens."""
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (Debian package redis-server)")
        command = ["redis-server", *self.arguments, "--port", str(self.port), "--dir", str(self.folder)]
        if "--sentinel" not in self.arguments:
            command += ["--save", "", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while wait and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                if sock.recv(100):
                    return self
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def do(self, *words: str) -> str:
        """What redis-cli says to a command."""
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    @property
    def url(self) -> str:
        """For [store] url."""
        return f"redis://127.0.0.1:{self.port}/0"


@contextlib.contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    """Started, and ended."""
    try:
        yield server.start()
    finally:
        server.stop()


class SlowProxy:
    """Passes connections on; what the server says is held back for `delay` seconds, or for good where it is None."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay: float | None = 0.0
        self.port = 0
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "SlowProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        theirs = await asyncio.open_connection("127.0.0.1", self.target)
        for pair, held in (((reader, theirs[1]), False), ((theirs[0], writer), True)):
            task = asyncio.ensure_future(self._pass(*pair, held=held))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65536):
                if held:
                    await asyncio.sleep(3600 if self.delay is None else self.delay)
                writer.write(octets)
                await writer.drain()
        writer.close()


def is_root() -> bool:
    """Permissions mean nothing to root; but it may mount."""
    return os.geteuid() == 0
