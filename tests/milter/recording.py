"""A session that tells what it heard, and a process that serves it with either engine.

``python -m tests.milter.recording ENGINE ADDRESS OPTIONS`` writes a JSON list for each call to standard output: the
number of the session, the method, its arguments (bytes as Latin-1).  OPTIONS is a JSON object: ``answers`` (stages),
the rest goes to the engine.  It obeys the words ``stop`` and ``drain SECONDS`` on standard input.

What the session answers is told by the SMTP client: ``STAGE=DEED`` in host name, HELO name or a parameter of MAIL.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from authmilter.milter.engine import Bounds
from authmilter.model import HeaderField, Stage
from authmilter.verdict import CONTINUE, Action, HeaderEdit, Reply, Verdict

EDITS = (
    HeaderEdit("delete", 2, "Authentication-Results"),
    HeaderEdit("delete", 1, "Authentication-Results"),
    HeaderEdit("insert", 0, "Authentication-Results", "mx.example.net;\n\tspf=pass"),
    HeaderEdit("add", 0, "X-Spam-Flag", "NO"),
)
PERCENT = Reply(550, "5.7.1", "100% sure:\r\n450 4.0.0 injected\nnext\x00\x07 l\xefne")


class RecordingSession:
    """Tells each call to `tell`."""

    def __init__(self, tell: Callable[[list[Any]], None], number: int, answered: Sequence[str]) -> None:
        self.tell = tell
        self.number = number
        self.answered = answered
        self.deeds: dict[str, str] = {}

    def _note(self, method: str, *args: object) -> None:
        self.tell([self.number, method, *args])

    def _script(self, text: bytes) -> None:
        for stage, deed in re.findall(rb"(connect|helo|mail|rcpt|data|header|eoh|body|eom)=([a-z]+)", text):
            self.deeds[stage.decode()] = deed.decode()

    async def _do(self, stage: str) -> Verdict:
        match self.deeds.get(stage, ""):
            case "raise":
                raise RuntimeError("as told")
            case "reject":
                return Verdict(Action.REJECT, Reply(550, "5.7.1", "no"))
            case "percent":
                return Verdict(Action.REJECT, PERCENT)
            case "bare":
                return Verdict(Action.REJECT)
            case "mismatch":
                return Verdict(Action.TEMPFAIL, Reply(550, "5.7.1", "no"))
            case "tempfail":
                return Verdict(Action.TEMPFAIL, Reply(451, "4.7.1", "later"))
            case "busy":
                return Verdict(Action.TEMPFAIL, Reply(421, "4.3.2", "too busy"))
            case "discard":
                return Verdict(Action.DISCARD)
            case "quarantine":
                return Verdict(Action.QUARANTINE, quarantine_reason="bad\r\nnews")
            case "edit":
                return Verdict(Action.TAG, edits=EDITS)
            case "sleep":
                await asyncio.sleep(0.35)
        return Verdict(Action.ACCEPT) if stage == "eom" else CONTINUE

    def answering(self) -> frozenset[Stage]:
        return frozenset(stage for stage in Stage if stage.label in self.answered)

    async def connect(
        self, host: bytes, family: str, port: int, address: bytes, macros: Mapping[bytes, bytes]
    ) -> Verdict:
        self._note("connect", host, family, port, address, macros)
        self._script(host)
        return await self._do("connect")

    async def helo(self, name: bytes, macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("helo", name, macros)
        self._script(name)
        return await self._do("helo")

    async def mail(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("mail", list(args), macros)
        self.deeds = {stage: deed for stage, deed in self.deeds.items() if stage in ("connect", "helo")}
        for arg in args[1:]:
            self._script(arg)
        return await self._do("mail")

    async def rcpt(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("rcpt", list(args), macros)
        return await self._do("rcpt")

    async def data(self, macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("data", macros)
        return await self._do("data")

    def headers(self, fields: Sequence[HeaderField]) -> None:
        for name, value in fields:
            self._note("header", name, value if len(value) < 1000 else len(value))
            if self.deeds.get("header") == "raise":
                raise RuntimeError("as told")

    def header_cut(self, name: bytes, octets: int) -> None:
        self._note("header_cut", name, octets)

    async def end_of_headers(self, macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("end_of_headers", macros)
        return await self._do("eoh")

    def body(self, chunk: bytes) -> bool:
        self._note("body", chunk if len(chunk) < 1000 else len(chunk))
        if self.deeds.get("body") == "raise":
            raise RuntimeError("as told")
        return self.deeds.get("body") != "decline"

    async def end_of_message(self, macros: Mapping[bytes, bytes]) -> Verdict:
        self._note("end_of_message", macros)
        return await self._do("eom")

    def abort(self) -> None:
        self._note("abort")

    def close(self) -> None:
        self._note("close")


def listen(address: str) -> socket.socket:
    """A listening socket for ``unix:PATH`` or a free port of ``inet:`` or ``inet6:``."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(rest)
    else:
        sock = socket.socket(socket.AF_INET6 if scheme == "inet6" else socket.AF_INET)
        sock.bind(("::1" if scheme == "inet6" else "127.0.0.1", 0))
    sock.listen(64)
    return sock


def address_of(sock: socket.socket) -> str:
    """Where a listening socket is reached."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"{'inet6' if sock.family == socket.AF_INET6 else 'inet'}:{name[1]}@{name[0]}"


class Server:
    """That process, seen from the test."""

    def __init__(self, engine: str, address: str, **options: Any) -> None:
        options = {"idle_timeout": 60, "on_error": "tempfail", "answers": [s.label for s in Stage], **options}
        self.engine = engine
        self._heard: list[list[Any]] = []
        self._new = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.milter.recording", engine, address, json.dumps(options)],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()
        self.address: str = self.until("listens")[-1][2]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._new:
                self._heard.append(json.loads(line))
                self._new.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def until(self, method: str, count: int = 1, timeout: float = 15.0) -> list[list[Any]]:
        """The calls since the last time, up to and with the `count`th one of that method."""
        end = time.monotonic() + timeout
        with self._new:
            while True:
                places = [i for i, call in enumerate(self._heard) if call[1] == method]
                if len(places) >= count:
                    stop = places[count - 1] + 1
                    heard, self._heard = self._heard[:stop], self._heard[stop:]
                    return heard
                if not self._new.wait(end - time.monotonic()):
                    raise AssertionError(f"no {method} within {timeout} s: {self._heard} {self.errors}")

    def tell(self, words: str) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)  # to the end of its stream, which must not be closed under its hands
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def _json(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return {_json(k): _json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    return value


async def _serve(engine_name: str, address: str, options: dict[str, Any]) -> None:
    def tell(call: list[Any]) -> None:
        print(json.dumps(_json(call)), flush=True)

    answered = options.pop("answers")
    if "bounds" in options:
        options["bounds"] = Bounds(*options["bounds"])
    number = 0

    def new_session() -> RecordingSession:
        nonlocal number
        number += 1
        return RecordingSession(tell, number, answered)

    engine: Any
    if engine_name == "native":
        from authmilter.milter.native import NativeEngine

        engine = NativeEngine(new_session, **options)
    else:
        from authmilter.milter.libmilter import LibmilterEngine

        engine = LibmilterEngine(new_session, **options)
    sock = listen(address)
    loop = asyncio.get_running_loop()
    for number_of_signal in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number_of_signal, signal.SIG_IGN)  # as workers do
    where = address_of(sock)
    await engine.serve([sock])
    tell([0, "listens", where])
    words: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: words.put_nowait(sys.stdin.readline()))
    while word := await words.get():
        if word.startswith("stop"):
            engine.stop_accepting()
            tell([0, "stopped", engine.active])
        elif word.startswith("active"):
            tell([0, "active", engine.active])
        elif word.startswith("drain"):
            tell([0, "drained", await engine.drain(float(word.split()[1]))])
            break
    os._exit(0)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
