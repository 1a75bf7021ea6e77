"""Messages that go to a daemon by the milter protocol, without an MTA, many of them at once if wanted."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import NamedTuple

from tests.milter.client import MilterClient, Outcome, Reply

MTA = {b"j": b"mx.test", b"{daemon_name}": b"smtpd"}


class Visit(NamedTuple):
    """One message of one client in a connection of its own.

    `name` is the client's verified host name, "" where there is none; `login` makes it a submission.
    """

    ip: str = "203.0.113.66"
    name: str = ""
    helo: str = "client.example"
    sender: str = "a@nowhere.example"
    recipients: tuple[str, ...] = ("user@test",)
    login: str = ""
    author: str = ""


class Said(NamedTuple):
    """How a visit ended: the SMTP code that an MTA passes on (250 where all was accepted), its text, and when."""

    code: int
    text: str
    after: str  # letter of the milter command that was answered so
    fields: tuple[str, ...]  # "Name: value" of all that was added to the header, unfolded
    seconds: float  # the longest that one command waited

    @property
    def spam_status(self) -> str:
        """X-Spam-Status as added, "" if it was not."""
        return next((text for text in self.fields if text.startswith("X-Spam-Status: ")), "")


def _said(reply: Reply, after: str, edits: Sequence[Reply], seconds: float) -> Said:
    fields = []
    for edit in edits:
        if edit.letter in "hi":
            name, value = edit.data[4 if edit.letter == "i" else 0 :].rstrip(b"\0").split(b"\0", 1)
            fields.append(f"{name.decode()}: {' '.join(value.decode().split())}")
    if reply.letter == "y":
        text = reply.data.rstrip(b"\0").decode()
        return Said(int(text[:3]), text[4:], after, tuple(fields), seconds)
    # What Postfix answers by itself.
    codes = {"c": 250, "a": 250, "t": 451, "r": 550, "d": 250, "4": 421}
    return Said(codes[reply.letter], reply.letter, after, tuple(fields), seconds)


def deliver(address: str, visit: Visit, *, timeout: float = 20.0) -> Said:
    """Play the visit to its end or first refusal, at the daemon that listens on `address` (as in main.cf)."""
    scheme, _, rest = address.partition(":")
    if scheme == "inet":
        host, _, port = rest.rpartition(":")
        address = f"inet:{port}@{host}"
    longest = 0.0

    def timed(command: Callable[[], Reply | Outcome | None]) -> Reply | Outcome:
        nonlocal longest
        start = time.monotonic()
        reply = command()
        longest = max(longest, time.monotonic() - start)
        return reply or Reply("c")

    with MilterClient(address, timeout) as mta:
        mta.negotiate()
        login = {b"{auth_authen}": visit.login.encode(), b"{auth_type}": b"PLAIN"} if visit.login else {}
        shown = (visit.name or f"[{visit.ip}]").encode()
        family = "6" if ":" in visit.ip else "4"
        author = visit.author or visit.sender or "MAILER-DAEMON@nowhere.example"
        header = {
            b"Received": f"from a by {visit.helo}; {formatdate()}",
            b"From": author,
            b"To": visit.recipients[0],
            b"Subject": "hello",
            b"Date": formatdate(),
            b"Message-ID": f"<1.{author}>",
        }
        commands: list[tuple[str, Callable[[], Reply | Outcome | None]]] = [
            ("C", lambda: mta.connect(shown, family, 40000, visit.ip.encode(), MTA)),
            ("H", lambda: mta.helo(visit.helo.encode(), MTA)),
            ("M", lambda: mta.mail(f"<{visit.sender}>".encode(), macros=MTA | login)),
        ]
        commands += [("R", partial(mta.rcpt, f"<{recipient}>".encode())) for recipient in visit.recipients]
        commands.append(("T", mta.data))
        commands += [("L", partial(mta.header, name, b" " + value.encode())) for name, value in header.items()]
        commands += [("N", mta.end_of_headers), ("B", partial(mta.body, b"hello\r\n"))]
        for letter, command in commands:
            reply = timed(command)
            assert isinstance(reply, Reply)
            if reply.letter not in "cs":
                return _said(reply, letter, (), longest)
        outcome = timed(mta.end_of_message)
        assert isinstance(outcome, Outcome)
        mta.quit()
        return _said(outcome.final, "E", outcome.edits, longest)


@dataclass
class Load:
    """Visits that go on and on; what was said to each, and what happened to those that heard nothing."""

    said: list[tuple[float, Said]] = field(default_factory=list)  # by time.monotonic()
    lost: list[str] = field(default_factory=list)

    def since(self, moment: float) -> list[Said]:
        """What was said after that moment."""
        return [said for at, said in self.said if at >= moment]


@contextmanager
def load(addresses: Sequence[str], visit: Callable[[int], Visit], threads: int, pause: float) -> Iterator[Load]:
    """While the block runs, each of so many threads delivers one visit after the other, to the addresses in turn."""
    result = Load()
    stop = threading.Event()

    def serve(first: int) -> None:
        number = first
        while not stop.is_set():
            try:
                said = deliver(addresses[number // threads % len(addresses)], visit(number))
                result.said.append((time.monotonic(), said))
            except Exception as error:  # whatever it is: this message had no verdict
                result.lost.append(f"{number}: {error!r}")
            number += threads
            time.sleep(pause)

    workers = [threading.Thread(target=serve, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield result
    finally:
        stop.set()
        for worker in workers:
            worker.join(30)
