"""A DNS server over a table, for tests: UDP and TCP on one loopback port, with faults on demand.

In the process of the test::

    with DNSServer({"example.org TXT": ["v=spf1 -all"]}, {"slow.example": "delay 0.5"}) as server:
        ...  # ask server.address, then look at server.queries

or as a process of its own, which prints its port when it serves::

    python -m tests.dnsserver --port 0 zone.json

where zone.json is an object with the keys `records`, `behaviours`, `ttls` and `minimum` of `DNSServer`, all optional.
"""

import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

Records = Mapping[str, Sequence[str | bytes]]
Behaviours = Mapping[str, str]
Key = tuple[dns.name.Name, dns.rdatatype.RdataType]

FAULTS = {"servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED, "notauth": dns.rcode.NOTAUTH}
WORDS = frozenset({"drop", "delay", "truncate", "garbage", "tcp-refused", "no-soa", *FAULTS})
TXT_STRING = 255  # octets of one character-string, RFC 1035 section 3.3
CHAIN = 10  # CNAMEs that are followed


class DNSServer:
    """Answers with authority and recursion for every name: what is not in the table does not exist.

    `records` maps ``"name TYPE"`` to values in zone file text, as in `tests.fakes.FakeDNS`: TXT takes str or bytes of
    any length and cuts them into strings itself (a list in place of a str is one record with just these strings),
    CNAMEs are followed, ``*.example`` answers for what is below `example` and not in the table (RFC 4592).

    `behaviours` maps ``"name"`` or ``"name TYPE"`` (wildcards too) to words by space:
    ``servfail refused notauth`` (that response code), ``drop`` (no answer), ``delay SECONDS``, ``truncate`` (TC and
    nothing else over UDP, the answer over TCP), ``garbage`` (right header and question, then nonsense),
    ``tcp-refused`` (TCP connections are closed unanswered) and ``no-soa`` (a negative answer without SOA).

    `ttls` maps ``"name TYPE"`` to seconds (else 300).  `minimum` is TTL and MINIMUM of the SOA in negative answers.
    `queries` lists what came in, as ``"name TYPE udp"``, in order.
    """

    def __init__(
        self,
        records: Records | None = None,
        behaviours: Behaviours | None = None,
        *,
        ttls: Mapping[str, int] | None = None,
        minimum: int = 60,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.minimum = minimum
        self.queries: list[str] = []
        self._ttls = {_key(row): ttl for row, ttl in (ttls or {}).items()}
        self._table: dict[Key, list[dns.rdata.Rdata]] = {}
        self._names: set[dns.name.Name] = set()
        self._behaviours: dict[dns.name.Name | Key, list[str]] = {}
        self._built: dict[bytes, tuple[str, bytes]] = {}  # answers by all octets of a query but its id
        for row, values in (records or {}).items():
            self.add(row, values)
        for row, words in (behaviours or {}).items():
            self.behave(row, words)
        self._udp, self._tcp = _bind(host, port)
        self.host, self.port = self._tcp.getsockname()[:2]
        self.address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self._stopping = False
        self._open: set[socket.socket] = set()
        self._threads = [
            threading.Thread(target=serve, name=serve.__name__, daemon=True)
            for serve in (self._serve_udp, self._serve_tcp)
        ]

    def add(self, row: str, values: Sequence[str | bytes | Sequence[str | bytes]]) -> None:
        """Add or replace ``"name TYPE"``."""
        name, rdtype = _key(row)
        self._table[name, rdtype] = [_rdata(rdtype, value) for value in values]
        while name not in self._names:  # names above exist too: "empty non-terminals", RFC 8020
            self._names.add(name)
            if name == dns.name.root:
                break
            name = name.parent()
        self._built.clear()

    def behave(self, row: str, words: str) -> None:
        """Give a name, or a name and type, other behaviours; ``""`` gives none."""
        parts = words.split()
        unknown = {part for part in parts if not part[0].isdigit()} - WORDS
        if unknown:
            raise ValueError(f"{row}: unknown behaviour {unknown}")
        self._behaviours[_key(row) if " " in row else _name(row)] = parts
        self._built.clear()

    def start(self) -> Self:
        """Serve until `stop`."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Close everything; the port refuses from now on."""
        self._stopping = True
        for listener in (self._udp, self._tcp):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close() alone does not
            listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    __enter__ = start

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def asked(self, row: str = "") -> int:
        """How many queries came in, for ``"name TYPE"`` or ``"name TYPE udp"``, or altogether."""
        return sum(1 for query in list(self.queries) if query.startswith(row))

    # What to answer

    def _behaviour(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> list[str]:
        for candidate in (name, _wildcard(name)):
            for key in ((candidate, rdtype), candidate):
                if key in self._behaviours:
                    return self._behaviours[key]
        return []

    def _covering(self, name: dns.name.Name) -> dns.name.Name:
        """The name itself where it exists, else the wildcard that answers for it, else the name."""
        above = name
        while above not in self._names and above != dns.name.root:
            wildcard = _wildcard(above)
            if wildcard in self._names:
                return wildcard
            above = above.parent()
        return name

    def _answer(self, query: dns.message.Message, *, soa: bool) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        question = query.question[0]
        name, rdtype = question.name.canonicalize(), question.rdtype
        for _ in range(CHAIN):
            covering = self._covering(name)
            for kind in (rdtype, dns.rdatatype.CNAME):
                rdatas = self._table.get((covering, kind))
                if rdatas:
                    ttl = self._ttls.get((covering, kind), 300)
                    # One RRset for each record: dnspython shuffles within an RRset.
                    response.answer.extend(dns.rrset.from_rdata_list(name, ttl, [rdata]) for rdata in rdatas)
                    break
            else:
                if covering not in self._names:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if kind == rdtype:
                return response
            name = rdatas[0].target.canonicalize()  # type: ignore[attr-defined]
        if soa:  # RFC 2308 section 3
            text = f". hostmaster. 1 3600 600 86400 {self.minimum}"
            response.authority.append(dns.rrset.from_text(".", self.minimum, "IN", "SOA", text))
        return response

    def _reply(self, wire: bytes, transport: str) -> tuple[bytes | None, float]:
        """The answer to a query, None for none, and seconds to wait before it."""
        built = self._built.get(wire[2:]) if transport == "udp" else None
        if built is not None:
            self.queries.append(built[0])
            return wire[:2] + built[1], 0.0
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, rdtype = question.name.canonicalize(), question.rdtype
        row = f"{name.to_text(omit_final_dot=True)} {dns.rdatatype.to_text(rdtype)} {transport}"
        self.queries.append(row)
        words = self._behaviour(name, rdtype)
        delay = float(words[words.index("delay") + 1]) if "delay" in words else 0.0
        if "drop" in words or (transport == "tcp" and "tcp-refused" in words):
            return None, 0.0
        response = self._answer(query, soa="no-soa" not in words)
        if "garbage" in words:
            bare = dns.message.make_response(query)
            bare.use_edns(False)
            broken = bytearray(bare.to_wire())
            broken[6:8] = b"\0\1"  # one record announced
            return bytes(broken) + b"\xc0\x0c\0\x01\0\x01\0\0\0\1\xff\xff!", delay
        for word in words:
            if word in FAULTS:
                response = dns.message.make_response(query, recursion_available=True)
                response.set_rcode(FAULTS[word])
        size = 65535 if transport == "tcp" else query.payload if query.edns >= 0 else 512
        try:
            answer = response.to_wire(max_size=size)
            fits = transport == "tcp" or "truncate" not in words
        except dns.exception.TooBig:
            fits = False
        if not fits:
            response = dns.message.make_response(query, recursion_available=True)
            response.flags |= dns.flags.TC
            answer = response.to_wire()
        if transport == "udp" and not delay:
            self._built[wire[2:]] = row, answer[2:]
        return answer, delay

    # How it travels

    def _serve_udp(self) -> None:
        def send(answer: bytes, peer: Any) -> None:
            with suppress(OSError):  # the asker may be gone
                self._udp.sendto(answer, peer)

        while not self._stopping:
            try:
                wire, peer = self._udp.recvfrom(65535)
                answer, delay = self._reply(wire, "udp")
            except (OSError, dns.exception.DNSException, IndexError):
                continue  # stopping, or no query
            if answer is None:
                continue
            if delay:
                timer = threading.Timer(delay, send, (answer, peer))
                timer.daemon = True
                timer.start()
            else:
                send(answer, peer)

    def _serve_tcp(self) -> None:
        while not self._stopping:
            with suppress(OSError):
                connection, _ = self._tcp.accept()
                self._open.add(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError, dns.exception.DNSException, IndexError), connection, connection.makefile("rb") as stream:
            while len(length := stream.read(2)) == 2:
                answer, delay = self._reply(stream.read(struct.unpack("!H", length)[0]), "tcp")
                if answer is None:
                    break
                time.sleep(delay)
                connection.sendall(struct.pack("!H", len(answer)) + answer)
        self._open.discard(connection)


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text).canonicalize()


def _key(row: str) -> Key:
    name, rdtype = row.rsplit(" ", 1)
    return _name(name), dns.rdatatype.from_text(rdtype)


def _wildcard(name: dns.name.Name) -> dns.name.Name:
    return name if name == dns.name.root else dns.name.Name((b"*", *name.labels[1:]))


def _rdata(rdtype: dns.rdatatype.RdataType, value: str | bytes | Sequence[str | bytes]) -> dns.rdata.Rdata:
    if rdtype == dns.rdatatype.TXT:
        if isinstance(value, (str, bytes)):
            octets = value.encode() if isinstance(value, str) else value
            value = [octets[i : i + TXT_STRING] for i in range(0, len(octets), TXT_STRING)] or [b""]
        strings = [part.encode() if isinstance(part, str) else part for part in value]
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, rdtype, strings)
    text = (
        value if isinstance(value, str) else value.decode() if isinstance(value, bytes) else " ".join(map(str, value))
    )
    if rdtype in {dns.rdatatype.MX, dns.rdatatype.PTR, dns.rdatatype.CNAME, dns.rdatatype.NS} and text[-1:] != ".":
        text += "."
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same port, any if `port` is 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(20):
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.bind((host, port))
            udp.bind((host, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            if port or attempt == 19:
                raise
            continue
        tcp.listen(64)
        return udp, tcp
    raise AssertionError("not reached")


def main() -> None:
    """Serve a zone file until SIGTERM, or until the parent is gone."""
    parser = argparse.ArgumentParser(prog="python -m tests.dnsserver")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("zone", help="JSON: records, behaviours, ttls, minimum")
    arguments = parser.parse_args()
    with open(arguments.zone, encoding="utf-8") as file:
        zone = json.load(file)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent = os.getppid()
    with DNSServer(host=arguments.host, port=arguments.port, **zone) as server:
        print(server.port, flush=True)
        while os.getppid() == parent:  # so that none is left over from a test that was killed
            time.sleep(0.5)


if __name__ == "__main__":
    main()
