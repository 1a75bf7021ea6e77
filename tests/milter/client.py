"""A milter client: the MTA's side of the protocol, on a blocking socket.

::

    with MilterClient("inet:8891@127.0.0.1") as mta:
        mta.negotiate()
        mta.connect(host=b"client.example.net", address=b"192.0.2.7")
        mta.helo(b"client.example.net")
        outcome = mta.message(b"<a@example.org>", [b"<b@example.net>"], [(b"From", b" a@example.org")], b"text\\r\\n")
        assert outcome.final == Reply("c")

It is written apart from the code under test and shares nothing with it.
"""

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

ALL_ACTIONS = 0x1FF
ALL_STEPS = 0x1FFFFF
NO_REPLY = {"C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "L": 0x80, "N": 0x40000, "B": 0x80000}
ALL_NO_REPLY = sum(NO_REPLY.values()) | 0x20000
SKIP = 0x400
LEADING_SPACE = 0x100000


class Reply(NamedTuple):
    """A packet of the filter."""

    letter: str
    data: bytes = b""


class Outcome(NamedTuple):
    """How a message ended: the last reply, after which command it came, and the edits before it."""

    final: Reply
    after: str
    edits: list[Reply]


class ClosedError(Exception):
    """The filter closed the connection."""


def open_socket(address: str, timeout: float = 10.0) -> socket.socket:
    """Connect to ``unix:PATH``, ``inet:PORT@HOST`` or ``inet6:PORT@HOST``."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(rest)
    else:
        port, _, host = rest.partition("@")
        sock = socket.socket(socket.AF_INET6 if scheme == "inet6" else socket.AF_INET)
        sock.settimeout(timeout)
        sock.connect((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def pack(letter: str, data: bytes = b"") -> bytes:
    """A packet."""
    return struct.pack(">I", len(data) + 1) + letter.encode() + data


class MilterClient:
    """One milter connection.  Methods named after commands return the reply, or None where none was negotiated."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        self.socket = open_socket(address, timeout)
        self.version = self.actions = self.steps = 0
        self.macro_lists: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self.socket.close()

    def send(self, letter: str, data: bytes = b"") -> None:
        """Send a packet."""
        self.socket.sendall(pack(letter, data))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ClosedError
            data += more
        return data

    def receive(self) -> Reply:
        """Wait for a packet.  Raises ClosedError, or TimeoutError."""
        try:
            (length,) = struct.unpack(">I", self._read(4))
            data = self._read(length)
        except ConnectionError as error:
            raise ClosedError from error
        return Reply(chr(data[0]), data[1:])

    def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing at all arrives for so long."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b"never"
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)

    def negotiate(self, version: int = 6, actions: int = ALL_ACTIONS, steps: int = ALL_STEPS) -> Reply:
        """Make an offer; the answer is kept in `version`, `actions`, `steps` and `macro_lists`."""
        self.send("O", struct.pack(">III", version, actions, steps))
        reply = self.receive()
        assert reply.letter == "O"
        self.version, self.actions, self.steps = struct.unpack_from(">III", reply.data)
        assert self.actions & ~actions == 0
        assert self.steps & ~steps == 0
        lists = reply.data[12:]
        while lists:
            (stage,) = struct.unpack_from(">I", lists)
            names, _, lists = lists[4:].partition(b"\0")
            self.macro_lists[stage] = names
        return reply

    def macros(self, letter: str, values: Mapping[bytes, bytes]) -> None:
        """Send the macros of a command."""
        self.send("D", letter.encode() + b"".join(name + b"\0" + value + b"\0" for name, value in values.items()))

    def command(self, letter: str, data: bytes = b"", macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """Send a command, with its macros ahead, and wait for the reply if there is to be one."""
        if macros:
            self.macros(letter, macros)
        self.send(letter, data)
        return None if self.steps & NO_REPLY.get(letter, 0) else self.receive()

    def connect(
        self,
        host: bytes = b"client.example.net",
        family: str = "4",
        port: int = 40000,
        address: bytes = b"192.0.2.7",
        macros: Mapping[bytes, bytes] | None = None,
    ) -> Reply | None:
        """CONNECT."""
        place = b"" if family == "U" else struct.pack(">H", port) + address + b"\0"
        return self.command("C", host + b"\0" + family.encode() + place, macros)

    def helo(self, name: bytes = b"client.example.net", macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """HELO."""
        return self.command("H", name + b"\0", macros)

    def mail(self, *args: bytes, macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """MAIL: the path with its angle brackets, then ESMTP parameters."""
        return self.command("M", b"".join(arg + b"\0" for arg in args), macros)

    def rcpt(self, *args: bytes, macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """RCPT: the path with its angle brackets, then ESMTP parameters."""
        return self.command("R", b"".join(arg + b"\0" for arg in args), macros)

    def data(self, macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """DATA."""
        return self.command("T", b"", macros)

    def header(self, name: bytes, value: bytes) -> Reply | None:
        """A header field, its value with the leading blank; like an MTA, takes that away if it was not negotiated."""
        if not self.steps & LEADING_SPACE:
            value = value.removeprefix(b" ")
        return self.command("L", name + b"\0" + value + b"\0")

    def end_of_headers(self, macros: Mapping[bytes, bytes] | None = None) -> Reply | None:
        """End of the header section."""
        return self.command("N", b"", macros)

    def body(self, chunk: bytes) -> Reply | None:
        """A chunk of the body."""
        return self.command("B", chunk)

    def end_of_message(self, last: bytes = b"", macros: Mapping[bytes, bytes] | None = None) -> Outcome:
        """End of the message; `last` is a chunk that goes with it.  Signs of life are passed over."""
        if macros:
            self.macros("E", macros)
        self.send("E", last)
        edits: list[Reply] = []
        while True:
            reply = self.receive()
            if reply.letter in "hmiq":
                edits.append(reply)
            elif reply.letter != "p":
                return Outcome(reply, "E", edits)

    def message(
        self,
        sender: bytes = b"<a@example.org>",
        recipients: Sequence[bytes] = (b"<b@example.net>",),
        fields: Iterable[tuple[bytes, bytes]] = ((b"From", b" a@example.org"), (b"Subject", b" test")),
        body: bytes = b"text\r\n",
        *,
        parameters: Sequence[bytes] = (),
        chunk: int = 65535,
    ) -> Outcome:
        """A whole transaction, up to the first reply that is not "continue"."""

        def refused(reply: Reply | None) -> bool:
            return reply is not None and reply.letter != "c"

        if refused(reply := self.mail(sender, *parameters)):
            return Outcome(reply or Reply("c"), "M", [])
        for recipient in recipients:
            if refused(reply := self.rcpt(recipient)):
                return Outcome(reply or Reply("c"), "R", [])
        if self.version > 3 and refused(reply := self.data()):
            return Outcome(reply or Reply("c"), "T", [])
        for name, value in fields:
            if refused(reply := self.header(name, value)):
                return Outcome(reply or Reply("c"), "L", [])
        if refused(reply := self.end_of_headers()):
            return Outcome(reply or Reply("c"), "N", [])
        for start in range(0, len(body), chunk):
            reply = self.body(body[start : start + chunk])
            if reply is not None and reply.letter == "s":
                break
            if refused(reply):
                return Outcome(reply or Reply("c"), "B", [])
        return self.end_of_message()

    def abort(self) -> None:
        """The transaction ends; has no reply."""
        self.send("A")

    def quit(self) -> None:
        """End the connection; has no reply."""
        self.send("Q")

    def quit_new_connection(self) -> None:
        """End the SMTP session; another follows.  Has no reply."""
        self.send("K")
