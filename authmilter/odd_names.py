"""Questions for names that c-ares refuses: it asks for letters, digits and ``-._/*`` alone.

Any octet may stand in a label (RFC 2181 section 11), and a macro of SPF puts the sender's local-part into a name (RFC
7208 section 7.2).  If ``user+tag`` made the question fail, every sender could turn a fail into a temperror.

dnspython could ask them, but would parse all of an answer at once, on the event loop: 14 s have been seen for 64 KB of MX
records with a long name.  Here no more than `cares.MAX_RECORDS` are looked at, and names are skipped, not expanded.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

from authmilter.cares import MAX_RECORDS, TYPES, UDP_SIZE, Reply, host_name, mail_exchange
from authmilter.interfaces import Answer

_HEADER = struct.Struct("!2sBBHHHH")  # id, flags, counts of the four sections: RFC 1035 section 4.1.1
_RECURSION_DESIRED, _TRUNCATED, _RESPONSE = 0x01, 0x02, 0x80
_IN = 1  # RFC 1035 section 3.2.4
_CNAME, _SOA = 5, 6  # section 3.2.2
_NXDOMAIN = 3  # section 4.1.1
_FAILURES: Final = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_OPT = b"\0" + struct.pack("!HHIH", 41, UDP_SIZE, 0, 0)  # RFC 6891 section 6.1.2
_TRIES = 3


class OddNameChannel:
    """One nameserver, with the methods and parameters of `cares.Channel`, but for any name of printable ASCII."""

    def __init__(self, server: str, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        address, _, scope = server.partition("%")
        host, _, self._port = address.rpartition(":")
        self._host = host.strip("[]") + ("%" + scope if scope else "")
        self._timeout = timeout
        self._loop = loop
        self._tasks: set[asyncio.Task[Reply]] = set()

    def ask(self, name: str, rdtype: str, tell: Callable[[Reply], None]) -> None:
        """Ask for a name whose labels have 1 to 63 octets; `tell` is called once."""
        task = self._loop.create_task(self._ask(name, rdtype))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, tell))

    def close(self) -> None:
        """Cancel; every question under way will be told "cancelled", and its socket closed, by the event loop."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, tell: Callable[[Reply], None], task: asyncio.Task[Reply]) -> None:
        self._tasks.discard(task)
        tell("cancelled" if task.cancelled() else task.result())

    async def _ask(self, name: str, rdtype: str) -> Reply:
        # RFC 1035 section 4.1.2.  Dots alone separate labels: a backslash is an octet like any other.
        labels = b"".join(bytes((len(label),)) + label for label in name.encode("ascii").split(b"."))
        kind = TYPES[rdtype]
        question = labels + b"\0" + struct.pack("!HH", kind, _IN)
        query = _HEADER.pack(os.urandom(2), _RECURSION_DESIRED, 0, 1, 0, 0, 1) + question + _OPT
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._by_udp(query, question)
                if answer[2] & _TRUNCATED:
                    answer = await self._by_tcp(query, question)
            return _read(answer, kind)
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return f"nameserver not reached: {error.strerror or type(error).__name__}"
        except Exception as error:  # by `_read`, but whatever it is, `tell` must be told
            return f"broken answer: {type(error).__name__}"

    def _socket(self, kind: socket.SocketKind) -> tuple[socket.socket, Any]:
        """A new socket, with a port that nobody can guess (RFC 5452 section 9.2), and the nameserver's address."""
        family, _, _, _, address = socket.getaddrinfo(self._host, self._port, type=kind, flags=socket.AI_NUMERICHOST)[0]
        return socket.socket(family, kind | socket.SOCK_NONBLOCK), address

    async def _by_udp(self, query: bytes, question: bytes) -> bytes:
        """The answer; the question is sent again until then, and the caller must end it."""
        sock, address = self._socket(socket.SOCK_DGRAM)
        with sock:
            sock.connect(address)  # packets of others are dropped by the kernel
            while True:
                sock.send(query)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timeout / _TRIES):
                        while True:
                            answer = await self._loop.sock_recv(sock, 65535)
                            if _answers(answer, query, question):
                                return answer

    async def _by_tcp(self, query: bytes, question: bytes) -> bytes:
        sock, address = self._socket(socket.SOCK_STREAM)
        with sock:
            await self._loop.sock_connect(sock, address)
            await self._loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await self._receive(sock, 2), "big")
            answer = await self._receive(sock, length)
        if not _answers(answer, query, question):
            raise ValueError("an answer to something else")
        return answer

    async def _receive(self, sock: socket.socket, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            part = await self._loop.sock_recv(sock, size - len(octets))
            if not part:
                raise ConnectionResetError
            octets += part
        return octets


def _answers(answer: bytes, query: bytes, question: bytes) -> bool:
    """Is this the response to that query (RFC 5452 section 9.1)?"""
    return (
        answer[:2] == query[:2]
        and answer[2:3] >= bytes((_RESPONSE,))
        and answer[4:6] == query[4:6]
        and answer.startswith(question, _HEADER.size)
    )


def _read(wire: bytes, kind: int) -> Reply:
    """What `cares.Channel` would tell of that response; IndexError, ValueError or struct.error if it is broken."""
    _, _, flags, questions, answers, authorities, _ = _HEADER.unpack_from(wire)
    code = flags & 0x0F
    if code not in (0, _NXDOMAIN):
        return _FAILURES.get(code, "unexpected response code")
    at = _HEADER.size
    for _ in range(questions):
        at = _end_of_name(wire, at) + 4
    if code or not answers:
        return Answer((), not code, _negative_ttl(wire, at, answers, authorities))
    records: list[Any] = []
    ttl = float("inf")
    for found, seconds, start, end in _sections(wire, at, min(answers, MAX_RECORDS)):
        if found in (kind, _CNAME):
            ttl = min(ttl, seconds)
        if found == kind:
            record = _READERS[kind](wire, start, end)
            if record is not None:
                records.append(record)
    if not records:
        ttl = min(ttl, _negative_ttl(wire, at, answers, authorities))
    return Answer(tuple(records), exists=True, ttl=ttl)


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
        kind, _, ttl, length = struct.unpack_from("!HHIH", wire, at)
        start, at = at + 10, at + 10 + length
        if at > len(wire):
            raise ValueError("cut off")
        yield kind, float(ttl) if ttl < 1 << 31 else 0.0, start, at  # RFC 2181 section 8


def _end_of_name(wire: bytes, at: int) -> int:
    """Where the name that starts there ends: behind the empty label or a pointer (RFC 1035 section 4.1.4)."""
    while 0 < wire[at] < 64:
        at += wire[at] + 1
    return at + (2 if wire[at] else 1)


def _name(wire: bytes, at: int) -> str:
    """The name that starts there; a dot inside a label has a backslash before it, as c-ares writes it."""
    labels: list[str] = []
    for _ in range(2 * 127):  # labels and pointers that a sane name may have
        length = wire[at]
        if not length:
            return ".".join(labels)
        if length < 64:
            labels.append(wire[at + 1 : at + 1 + length].decode("latin-1").replace(".", "\\."))
            at += length + 1
        else:
            at = int.from_bytes(wire[at : at + 2], "big") & 0x3FFF
    raise ValueError("endless name")


def _strings(wire: bytes, at: int, end: int) -> bytes:
    parts: list[bytes] = []
    while at < end:
        parts.append(wire[at + 1 : at + 1 + wire[at]])
        at += wire[at] + 1
    if at > end:
        raise ValueError("cut off")
    return b"".join(parts)


_READERS: Final[dict[int, Callable[[bytes, int, int], bytes | str | None]]] = {
    TYPES["A"]: lambda wire, start, end: socket.inet_ntop(socket.AF_INET, wire[start:end]),
    TYPES["AAAA"]: lambda wire, start, end: socket.inet_ntop(socket.AF_INET6, wire[start:end]),
    TYPES["MX"]: lambda wire, start, _: mail_exchange(
        int.from_bytes(wire[start : start + 2], "big"), _name(wire, start + 2)
    ),
    TYPES["PTR"]: lambda wire, start, _: host_name(_name(wire, start)) or None,
    TYPES["TXT"]: _strings,
}
