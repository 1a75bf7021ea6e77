"""Questions for names that c-ares refuses: it asks for letters, digits and ``-._/*`` alone.

Any octet may stand in a label (RFC 2181 section 11), and a macro of SPF puts the sender's local-part into a name (RFC
7208 section 7.2).  If ``user+tag`` made the question fail, every sender could turn a fail into a temperror.

Such questions are rare, so the answers are read with dnspython, which is loaded for the first of them: it takes 40 ms.
Its `dns.asyncquery` is not used, since it reads all of the 64 KB that an answer may have, however many records that is.
"""

import asyncio
import os
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from authmilter.cares import MAX_RECORDS, RESPONSE_CODES, TYPES, UDP_SIZE, Reply, host_name, mail_exchange
from authmilter.interfaces import Answer

if TYPE_CHECKING:
    import dns.message

is_odd: Final = re.compile(r"[^A-Za-z0-9._/*-]").search
"""Whether c-ares refuses the name."""

_HEADER = struct.Struct("!2sBBHHHH")  # id, flags, counts of the four sections: RFC 1035 section 4.1.1
_RECURSION_DESIRED, _TRUNCATED, _RESPONSE = 0x01, 0x02, 0x80
_IN, _CNAME, _SOA = 1, 5, 6
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
        question = labels + b"\0" + struct.pack("!HH", TYPES[rdtype], _IN)
        query = _HEADER.pack(os.urandom(2), _RECURSION_DESIRED, 0, 1, 0, 0, 1) + question + _OPT
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._by_udp(query, question)
                if answer[2] & _TRUNCATED:
                    answer = await self._by_tcp(query, question)
            return _read(answer, rdtype)
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return f"nameserver not reached: {error.strerror or type(error).__name__}"
        except Exception as error:  # whatever a hostile answer makes of dnspython
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


def _read(wire: bytes, rdtype: str) -> Reply:
    """What `cares.Channel` would tell of that response."""
    import dns.message
    import dns.rcode

    ident, *flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if answers + authorities + additionals > MAX_RECORDS:  # no more than that many are parsed
        answers, authorities, additionals = min(answers, MAX_RECORDS), 0, 0
        wire = _HEADER.pack(ident, *flags, questions, answers, 0, 0) + wire[_HEADER.size :]
    message = dns.message.from_wire(wire, one_rr_per_rrset=True, ignore_trailing=True)
    code = message.rcode()
    if code == dns.rcode.NXDOMAIN or (code == dns.rcode.NOERROR and not answers):
        return Answer((), code == dns.rcode.NOERROR, _negative_ttl(message))
    if code != dns.rcode.NOERROR:
        failure = dns.rcode.to_text(code)
        return failure if failure in RESPONSE_CODES else "unexpected response code"
    records: list[Any] = []
    ttl = float("inf")
    for rrset in message.answer:
        if rrset.rdclass != _IN or rrset.rdtype not in (TYPES[rdtype], _CNAME):
            continue
        ttl = min(ttl, float(rrset.ttl))
        if rrset.rdtype == TYPES[rdtype]:
            record = _READERS[rdtype](rrset[0])
            if record is not None:
                records.append(record)
    if not records:
        ttl = min(ttl, _negative_ttl(message))
    return Answer(tuple(records), exists=True, ttl=ttl)


def _negative_ttl(message: "dns.message.Message") -> float:
    """For how long "there is nothing" may be kept: RFC 2308 section 5; without an SOA not at all."""
    for rrset in message.authority:
        if (rrset.rdclass, rrset.rdtype) == (_IN, _SOA):
            return float(min(rrset.ttl, rrset[0].minimum))
    return 0.0


_READERS: Final[dict[str, Callable[[Any], bytes | str | None]]] = {
    "A": lambda rdata: str(rdata.address),
    "AAAA": lambda rdata: str(rdata.address),
    "MX": lambda rdata: mail_exchange(rdata.preference, rdata.exchange.to_text()),
    "PTR": lambda rdata: host_name(rdata.target.to_text()) or None,
    "TXT": lambda rdata: b"".join(rdata.strings),
}
