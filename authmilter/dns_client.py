"""DNS questions to one nameserver: UDP with EDNS and retransmission, TCP for what does not fit.

This is our own, and not c-ares, because c-ares drops the answer to an earlier try once it has sent again, so that a
nameserver that is slow after having been fast never answers in time; because it refuses names that are legal (any octet
may stand in a label, RFC 2181 section 11, and SPF macros put local-parts such as ``user+tag`` into names); and because
its Python bindings offer neither a socket for each question nor the SOA of a negative answer.  dnspython parses all of an
answer at once, on the event loop: 14 s have been seen for 64 KB of MX records with a long name.  Here no more than
`MAX_RECORDS` are looked at, and the names of their owners are skipped, not expanded.

Against forged answers, each question has a socket of its own, whose port the kernel chooses, and a random id (RFC 5452
section 9.2).  The letters' case is not randomised: some nameservers answer in the case of their cache, and the way to
a nameserver that is asked for recursion is short.
"""

import asyncio
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Final, NamedTuple

from authmilter.errors import StartError
from authmilter.interfaces import Answer

Reply = Answer | str  # an answer, or why there is none

MAX_RECORDS = 500  # records of an answer that are looked at; an answer of 64 KB could hold thousands
MAX_STRAY = 10  # packets that are no answer to a question, before it is asked by TCP
TRIES = (0, 1 / 6, 1 / 2)  # shares of the time after which the question is sent, and sent again

TYPES: Final = {"A": 1, "AAAA": 28, "MX": 15, "PTR": 12, "TXT": 16}  # RFC 1035 section 3.2.2, RFC 3596 section 2.1
_IN = 1  # RFC 1035 section 3.2.4
_CNAME, _SOA = 5, 6

_HEADER = struct.Struct("!2sBBHHHH")  # id, flags, counts of the four sections: RFC 1035 section 4.1.1
_RECORD = struct.Struct("!HHIH")  # type, class, TTL, octets of data: section 4.1.3
_RECURSION_DESIRED, _TRUNCATED = 0x01, 0x02
_RESPONSE, _OPCODE = 0x80, 0x78
_FORMERR, _NXDOMAIN, _NOTIMP = 1, 3, 4
_FAILURES: Final = {_FORMERR: "FORMERR", 2: "SERVFAIL", _NOTIMP: "NOTIMP", 5: "REFUSED"}
RESPONSE_CODES: Final = frozenset(_FAILURES.values())  # failures that a nameserver spoke of
NOT_REACHED: Final = "nameserver not reached"  # how the failures of the network begin

_UDP_SIZE = 1232  # octets of a UDP answer that no path fragments (DNS flag day 2020)
_OPT = b"\0" + _RECORD.pack(41, _UDP_SIZE, 0, 0)  # RFC 6891 section 6.1.2
_EVENTS = 128  # sockets that are read before the event loop has its turn
_LENGTHS = [bytes((length,)) for length in range(64)]
_ESCAPED = frozenset(' "$();@\\')


class Server(NamedTuple):
    """Where a nameserver listens, as sockets take it."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]

    def __str__(self) -> str:
        """As [dns] nameservers has it, the usual port left out."""
        host, port = self.address[:2]
        if len(self.address) == 4 and self.address[3]:
            host = f"{host}%{self.address[3]}"
        if port == 53:
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def nameserver(text: str) -> Server:
    """``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``, IPv6 with ``%INTERFACE``; ValueError for all else."""
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise ValueError(f"no nameserver: {text!r}")
        if rest:
            port = rest[1:]
    elif host.count(":") == 1:
        host, port = host.split(":")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"no port: {text!r}")
    address = ip_address(host)  # ValueError where it is none
    if isinstance(address, IPv4Address):
        return Server(socket.AF_INET, (str(address), int(port)))
    scope, index = address.scope_id or "0", 0
    try:
        index = int(scope) if scope.isascii() and scope.isdigit() else socket.if_nametoindex(scope)
    except OSError:
        raise ValueError(f"no interface: {text!r}") from None
    if index >= 1 << 32:
        raise ValueError(f"no interface: {text!r}")
    return Server(socket.AF_INET6, (str(address).partition("%")[0], int(port), 0, index))


def system_nameservers(path: str = "/etc/resolv.conf") -> list[Server]:
    """All nameservers of resolv.conf(5); 127.0.0.1 where it names none.  Lines that can't be used are passed over."""
    servers: list[Server] = []
    try:
        # Not as text: the codec is a file of Python's, which a daemon that gave up its rights may be unable to read.
        with open(path, "rb") as file:
            for line in file:
                words = line.split()
                if len(words) > 1 and words[0] == b"nameserver":
                    try:
                        servers.append(nameserver(words[1].decode("ascii")))
                    except ValueError:
                        pass
    except OSError:
        pass
    return servers or [nameserver("127.0.0.1")]


def usable_name(name: str) -> bool:
    """Can this be asked: labels of 1 to 63 octets, 253 in all (RFC 1035 section 2.3.4), printable ASCII?"""
    if len(name) > 253 or not name.isascii() or not name.isprintable():
        return False
    labels = name.split(".")
    return "" not in labels and max(map(len, labels)) < 64


class _Question:
    """A question under way, by UDP or TCP."""

    __slots__ = ("deadline", "edns", "id", "kind", "sock", "stray", "tell", "timer", "tried", "wire")

    sock: socket.socket
    timer: asyncio.TimerHandle

    def __init__(self, name: str, kind: int, tell: Callable[[Reply], None], deadline: float) -> None:
        # RFC 1035 section 4.1.2.  Dots alone separate labels: a backslash is an octet like any other.
        parts: list[bytes] = []
        for label in name.lower().encode("ascii").split(b"."):
            parts += _LENGTHS[len(label)], label
        self.wire = b"".join(parts) + struct.pack("!BHH", 0, kind, _IN)
        self.kind = kind
        self.tell = tell
        self.deadline = deadline
        self.id = os.urandom(2)
        self.edns = True
        self.tried = 0
        self.stray = 0

    def query(self) -> bytes:
        header = _HEADER.pack(self.id, _RECURSION_DESIRED, 0, 1, 0, 0, self.edns)
        return header + self.wire + _OPT if self.edns else header + self.wire

    def is_answered_by(self, packet: bytes) -> bool:
        """RFC 5452 section 9.1: is that a response, with the id and the question of this one?"""
        if len(packet) < _HEADER.size or packet[:2] != self.id or packet[2] & (_RESPONSE | _OPCODE) != _RESPONSE:
            return False
        if packet[4:6] == b"\0\0":  # a nameserver that could not read the question may leave it out
            return packet[3] & 0x0F not in (0, _NXDOMAIN)
        # Its length octets are below "A", so that lower case leaves them as they are.
        return packet[4:6] == b"\0\1" and packet[12 : 12 + len(self.wire)].lower() == self.wire


class Channel:
    """One nameserver; made, used and closed on the thread of `loop`.  `timeout` is for a question, in seconds.

    The answer to any of the tries counts, for as long as there is time.  Raises StartError if no file can be opened.
    """

    def __init__(self, server: Server, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._timeout = timeout
        self._loop = loop
        self._questions: dict[int, _Question] = {}  # by UDP, under the number of the socket
        self._tasks: set[asyncio.Task[Reply]] = set()  # by TCP
        try:
            # The loop watches this one file, which costs a third less than watching each socket for one packet.
            self._epoll = select.epoll()
        except OSError as error:
            raise StartError(f"no nameserver can be asked: {error.strerror}") from error
        loop.add_reader(self._epoll.fileno(), self._receive)

    def ask(self, name: str, rdtype: str, tell: Callable[[Reply], None]) -> None:
        """Ask for a name that is `usable_name`; `tell` is called once, perhaps before this returns."""
        question = _Question(name, TYPES[rdtype], tell, self._loop.time() + self._timeout)
        try:
            sock = socket.socket(self._server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            tell(_not_reached(error))
            return
        try:
            sock.connect(self._server.address)  # so packets of others are dropped by the kernel, and ICMP is heard
            sock.send(question.query())
            self._epoll.register(sock, select.EPOLLIN)
        except OSError as error:
            sock.close()
            tell(_not_reached(error))
            return
        question.sock = sock
        self._questions[sock.fileno()] = question
        self._set_timer(question)

    def close(self) -> None:
        """Close the sockets; every question under way is told "cancelled", those by TCP by the event loop."""
        if self._epoll.closed:
            return
        for question in list(self._questions.values()):
            self._end(question, "cancelled")
        for task in self._tasks:
            task.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _release(self, question: _Question) -> None:
        question.timer.cancel()
        del self._questions[question.sock.fileno()]
        question.sock.close()  # which takes it out of the epoll

    def _end(self, question: _Question, reply: Reply) -> None:
        self._release(question)
        question.tell(reply)

    # By UDP

    def _set_timer(self, question: _Question) -> None:
        """For the next try, or the end."""
        question.tried += 1
        at = question.deadline
        if question.tried < len(TRIES):
            # Earlier by up to a tenth of the time, by chance: questions of one moment that were lost because they were
            # too many are not sent again in one moment.
            at -= self._timeout * (1 - TRIES[question.tried] + question.id[1] / 2560)
        question.timer = self._loop.call_at(at, self._try_again, question)

    def _try_again(self, question: _Question) -> None:
        if question.tried == len(TRIES):
            self._end(question, "time-out")
        else:
            self._set_timer(question)
            self._send(question)

    def _send(self, question: _Question) -> None:
        try:
            question.sock.send(question.query())
        except BlockingIOError:
            pass  # lost; there will be another try, or the time is over
        except OSError as error:
            self._end(question, _not_reached(error))

    def _receive(self) -> None:
        """One packet for every question that has some."""
        for number, _ in self._epoll.poll(0, _EVENTS):
            question = self._questions.get(number)
            if question is None:
                continue
            try:
                packet = question.sock.recv(65535)
            except BlockingIOError:
                continue  # a packet with a wrong checksum
            except OSError as error:  # above all ECONNREFUSED, by ICMP
                self._end(question, _not_reached(error))
                continue
            if not question.is_answered_by(packet):
                question.stray += 1
                if question.stray > MAX_STRAY:  # RFC 5452 section 9.3: somebody guesses, which TCP defeats
                    self._ask_by_tcp(question)
            elif packet[2] & _TRUNCATED:
                self._ask_by_tcp(question)
            elif question.edns and packet[3] & 0x0F in (_FORMERR, _NOTIMP):
                # RFC 6891 section 6.2.2.  The id is another, or an answer to an earlier try would end this one.
                question.edns = False
                question.id = os.urandom(2)
                self._send(question)
            else:
                self._end(question, _read_safely(packet, question))

    # By TCP

    def _ask_by_tcp(self, question: _Question) -> None:
        self._release(question)
        task = self._loop.create_task(self._by_tcp(question))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, question))

    def _ended(self, question: _Question, task: asyncio.Task[Reply]) -> None:
        self._tasks.discard(task)
        question.tell("cancelled" if task.cancelled() else task.result())

    async def _by_tcp(self, question: _Question) -> Reply:
        query = question.query()
        try:
            async with asyncio.timeout_at(question.deadline):
                with socket.socket(self._server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                    await self._loop.sock_connect(sock, self._server.address)
                    await self._loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)  # RFC 1035 section 4.2.2
                    length = int.from_bytes(await self._read_exactly(sock, 2), "big")
                    message = await self._read_exactly(sock, length)
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return _not_reached(error)
        if not question.is_answered_by(message) or message[2] & _TRUNCATED:
            return "broken answer"
        return _read_safely(message, question)

    async def _read_exactly(self, sock: socket.socket, size: int) -> bytes:
        octets = bytearray()
        while len(octets) < size:
            part = await self._loop.sock_recv(sock, size - len(octets))
            if not part:
                raise ConnectionResetError
            octets += part
        return bytes(octets)


def _not_reached(error: OSError) -> str:
    return f"{NOT_REACHED}: {error.strerror or type(error).__name__}"


# What a message says


def _read_safely(wire: bytes, question: _Question) -> Reply:
    try:
        return read(wire, question.kind, _HEADER.size + len(question.wire))
    except (IndexError, ValueError, struct.error) as error:
        return f"broken answer: {type(error).__name__}"


def read(wire: bytes, kind: int, at: int) -> Reply:
    """What a response says of records of that type; the question ends `at`.

    Owners are not compared: a nameserver that is asked for recursion answers what it was asked.  IndexError, ValueError
    or struct.error if the response is broken.
    """
    code = wire[3] & 0x0F
    if code not in (0, _NXDOMAIN):
        return _FAILURES.get(code, "unexpected response code")
    answers, authorities = struct.unpack_from("!HH", wire, 6)
    if code or not answers:
        # Of a chain of aliases, NXDOMAIN is said of its end (RFC 6604 section 3): nothing to be had either way.
        return Answer((), not code, _negative_ttl(wire, at, answers, authorities))
    reader = _READERS[kind]
    records: list[bytes | str] = []
    ttl = float("inf")
    for found, seconds, start, end in _sections(wire, at, min(answers, MAX_RECORDS)):
        if found == kind:
            record = reader(wire, start, end)
            if record is not None:
                records.append(record)
        elif found != _CNAME:
            continue
        ttl = min(ttl, seconds)
    if not records:
        ttl = min(ttl, _negative_ttl(wire, at, answers, authorities))
    return Answer(tuple(records), exists=True, ttl=ttl)  # type: ignore[arg-type]  # a reader gives one type alone


def _negative_ttl(wire: bytes, at: int, answers: int, authorities: int) -> float:
    """For how long "there is nothing" may be kept: RFC 2308 section 5; without an SOA not at all."""
    for number, (found, seconds, _, end) in enumerate(_sections(wire, at, min(answers + authorities, MAX_RECORDS))):
        if number >= answers and found == _SOA:
            return min(seconds, float(int.from_bytes(wire[end - 4 : end], "big")))
    return 0.0


def _sections(wire: bytes, at: int, count: int) -> Iterator[tuple[int, float, int, int]]:
    """Records from there on: type, TTL in seconds, start and end of the data."""
    for _ in range(count):
        at = _end_of_name(wire, at)
        kind, _, ttl, length = _RECORD.unpack_from(wire, at)
        start, at = at + 10, at + 10 + length
        if at > len(wire):
            raise ValueError("cut off")
        yield kind, float(ttl) if ttl < 1 << 31 else 0.0, start, at  # RFC 2181 section 8


def _end_of_name(wire: bytes, at: int) -> int:
    """Where the name that starts there ends: behind the empty label or a pointer (RFC 1035 section 4.1.4)."""
    while (length := wire[at]) < 192:
        if not length:
            return at + 1
        if length > 63:
            raise ValueError("unknown kind of label")
        at += length + 1
    return at + 2


def _name(wire: bytes, at: int) -> str:
    """The name that starts there; a dot inside a label has a backslash before it."""
    labels: list[str] = []
    for _ in range(2 * 127):  # labels and pointers that a sane name may have
        length = wire[at]
        if not length:
            return ".".join(labels)
        if length < 64:
            labels.append(wire[at + 1 : at + 1 + length].decode("latin-1").replace(".", "\\."))
            at += length + 1
        elif length >= 192:
            at = int.from_bytes(wire[at : at + 2], "big") & 0x3FFF
        else:
            raise ValueError("unknown kind of label")
    raise ValueError("endless name")


def _host(wire: bytes, start: int, end: int) -> str | None:
    """The name in a record, in lower case and without final dot; "" for the root.

    None for one with octets that are escaped in text: no host has such a name, and it could be taken for another.
    """
    if _end_of_name(wire, start) != end:
        raise ValueError("a name that is not all of the data")
    name = _name(wire, start).lower()
    return name if not name or (_ESCAPED.isdisjoint(name) and usable_name(name)) else None


def _mx(wire: bytes, start: int, end: int) -> str | None:
    host = _host(wire, start + 2, end)
    return None if host is None else f"{int.from_bytes(wire[start : start + 2], 'big')} {host or '.'}"


def _txt(wire: bytes, start: int, end: int) -> bytes:
    """All strings of the record, joined."""
    if start < end == start + 1 + wire[start]:
        return wire[start + 1 : end]
    parts: list[bytes] = []
    while start < end:
        parts.append(wire[start + 1 : start + 1 + wire[start]])
        start += wire[start] + 1
    if start != end:
        raise ValueError("cut off")
    return b"".join(parts)


_READERS: Final[dict[int, Callable[[bytes, int, int], bytes | str | None]]] = {
    TYPES["A"]: lambda wire, start, end: socket.inet_ntop(socket.AF_INET, wire[start:end]),
    TYPES["AAAA"]: lambda wire, start, end: socket.inet_ntop(socket.AF_INET6, wire[start:end]),
    TYPES["MX"]: _mx,
    TYPES["PTR"]: lambda wire, start, end: _host(wire, start, end) or None,
    TYPES["TXT"]: _txt,
}
