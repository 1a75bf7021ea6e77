"""Alarms: what the administrator should hear of at once, told by the log, a command and a webhook.

Whoever gives an alarm never waits for it.  How many are under way, how long each may take and how much room it has are
bounded; what is beyond is dropped, and counted.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import ssl
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from authmilter.config import schema
from authmilter.errors import StoreError
from authmilter.interfaces import Space, Store

log = logging.getLogger("authmilter.alarm")

AT_ONCE = 4  # alarms that are being told
MOST = 100  # those that wait for it included
ONCE = {"dns_list_off": 900.0}  # events that all workers notice, and for how many seconds one of them tells it for all
ALARMED = Space("alarmed")
MAX_SUBJECT = 320  # characters; an address has no more
MAX_TEXT = 500
MAX_ANSWER_LINE = 65536  # octets
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Alarm(NamedTuple):
    """An alarm, fit to be shown anywhere."""

    event: str
    subject: str
    text: str
    time: float


class AlarmService:
    """The `interfaces.Alarm` of a worker; to be made on its event loop, and called there.

    `options` is the section [alarm], which may be replaced at any time: an alarm is told by the options at its time.
    `count` is told the event and the outcome of each alarm: ``success`` (everybody who is to be told was; the log alone,
    if nobody else is), ``failure`` or ``dropped``.  What every worker notices by itself is told by the first one alone, as
    `store` has it.
    """

    def __init__(self, options: schema.Alarm, count: Callable[[str, str], None], store: Store | None = None) -> None:
        self.options = options
        self.store = store
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __call__(self, event: str, subject: str, text: str) -> None:
        """See `interfaces.Alarm`."""
        alarm = _Alarm(event, _clean(subject, MAX_SUBJECT), _clean(text, MAX_TEXT), time.time())
        if event not in ONCE or self.store is None:
            self._give(alarm)
        elif not self._closed and len(self._tasks) < MOST:
            self._start(self._give_once(alarm, self.store))

    async def _give_once(self, alarm: _Alarm, store: Store) -> None:
        with contextlib.suppress(StoreError):
            if await store.add(ALARMED, f"{alarm.event} {alarm.subject}", b"", ONCE[alarm.event]) is not None:
                return
        self._give(alarm)

    def _give(self, alarm: _Alarm) -> None:
        event = alarm.event
        # Not under "event": the JSON log has the name of the line there.
        log.warning("alarm", extra={"fields": {"name": event, "subject": alarm.subject, "text": alarm.text}})
        options = self.options
        if not (options.command or options.webhook) or (options.events and event not in options.events):
            self._count(event, "success")
        elif self._closed or len(self._tasks) >= MOST:
            self._count(event, "dropped")
        else:
            self._start(self._tell(alarm, options))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109  what is late is dropped, and no error
        """Take no more alarms, and wait that many seconds for those under way."""
        self._closed = True
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _tell(self, alarm: _Alarm, options: schema.Alarm) -> None:
        outcome = "dropped"  # if it is cancelled
        try:
            async with self._places:
                told = []
                if options.command:
                    told.append(_run(options.command, alarm, options.timeout))
                if options.webhook:
                    told.append(_post(options.webhook, alarm, options.timeout))
                problems = [problem for problem in await asyncio.gather(*told) if problem]
            for problem in problems:
                log.warning("an alarm could not be told: %s", problem)
            outcome = "failure" if problems else "success"
        except Exception:  # nobody looks after the task
            log.exception("an alarm could not be told")
            outcome = "failure"
        finally:
            self._count(alarm.event, outcome)


async def _run(command: str, alarm: _Alarm, seconds: float) -> str:
    """Run the command; returns what went wrong, "" if nothing did."""
    words = shlex.split(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            cwd="/",
            env={
                "PATH": PATH,
                "AUTHMILTER_EVENT": alarm.event,
                "AUTHMILTER_SUBJECT": alarm.subject,
                "AUTHMILTER_TEXT": alarm.text,
            },
            start_new_session=True,  # a process group, to be ended as a whole
        )
    except OSError as error:
        return f"{words[0]}: {error.strerror or error}"
    try:
        async with asyncio.timeout(seconds):
            status = await process.wait()
    except TimeoutError:
        return f"{words[0]}: took longer than {seconds:g}s, and was killed"
    finally:
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                await asyncio.wait_for(process.wait(), 1.0)
            except OSError:  # it has just ended; or it is another user's by now, and can't be killed
                pass
    return f"{words[0]}: exit status {status}" if status else ""


async def _post(url: str, alarm: _Alarm, seconds: float) -> str:
    """Post the alarm to the webhook; returns what went wrong, "" if nothing did.

    Not by http.client in a thread: its time-out is that of a single read, so a server that sends an octet now and then
    would keep the thread, and the end of the worker waits for threads.
    """
    where = urlsplit(url)
    shown = f"{where.scheme}://{where.netloc}"  # the rest may be a secret
    target = (where.path or "/") + (f"?{where.query}" if where.query else "")
    try:
        async with asyncio.timeout(seconds):
            # The system's certificates take 20 ms to read.
            tls = await asyncio.to_thread(ssl.create_default_context) if where.scheme == "https" else None
            port = where.port or (443 if tls else 80)
            reader, writer = await asyncio.open_connection(where.hostname, port, ssl=tls, limit=MAX_ANSWER_LINE)
            try:
                writer.write(_request(where.netloc, target, alarm))
                status = await _status(reader)
            finally:
                writer.transport.abort()  # what else it says is of no interest, nor is it worth waiting for
    except TimeoutError:
        return f"{shown}: no answer within {seconds:g}s"
    except (OSError, ValueError) as error:  # no connection, a bad certificate; a host that can't be, no HTTP
        return f"{shown}: {_clean(str(error), 200)}"
    return "" if 200 <= status < 300 else f"{shown}: HTTP status {status}"


def _request(host: str, target: str, alarm: _Alarm) -> bytes:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(alarm.time))
    fields = {"event": alarm.event, "subject": alarm.subject, "text": alarm.text}
    body = json.dumps({**fields, "time": moment, "host": socket.gethostname()}).encode()
    head = (
        f"POST {target} HTTP/1.1\r\n"
        f"Host: {host}\r\n"
        "User-Agent: authmilter\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


async def _status(reader: asyncio.StreamReader) -> int:
    """The status code of the final answer; raises OSError, or ValueError if there is none."""
    while True:
        line = await _line(reader)
        version, _, rest = line.partition(b" ")
        code = rest[:3]
        if not version.startswith(b"HTTP/1.") or len(code) < 3 or not code.isdigit():
            raise ValueError("the answer is no HTTP")
        if not code.startswith(b"1"):
            return int(code)
        # RFC 9110 section 15.2: a client MUST be able to parse 1xx responses before the final one.
        while (await _line(reader)).strip():
            pass


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line, empty at the end and in place of one that is too long."""
    try:
        return await reader.readline()
    except ValueError:
        return b""


def _clean(text: str, length: int) -> str:
    """One line of printable characters.  What is not printable is replaced, so that it can't pass for another's name."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
