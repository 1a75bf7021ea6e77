"""Programs that look at a message for us: clamd, spamd and rspamd.

What they are told and how their answers are read are functions of octets; `Servers` carries both over sockets.  The
protocols are those of clamd(8), INSTREAM; of ``spamd/PROTOCOL`` of SpamAssassin, version 1.5; and of rspamd, which is HTTP.

What a message says is hostile, and what a server answers is not trusted either: it is bounded, and shown in one line.

Each question has a connection of its own: to open one costs some 0.1 ms, and what was left on an old one can be no answer.
"""

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from math import isfinite
from tarfile import USTAR_FORMAT, TarInfo
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from authmilter.config.endpoint import SocketAddress, parse_socket, web_url
from authmilter.config.option import shown
from authmilter.errors import ScanError
from authmilter.model import Message, Transaction

log = logging.getLogger("authmilter.scanners")

T = TypeVar("T")
Read = Callable[[bytes], T]  # raises ScanError where the answer is none

PIECE = 65536  # octets that are read at once
REST = 10.0  # seconds between attempts at a server that has failed, if there is another one, or it can be done without
GIVEN_UP = 3  # failures in a row
HURRY = 2.0  # seconds for an answer after them

MAX_VERDICT = 4096  # octets that clamd may answer
MAX_OPINION = 1024 * 1024  # the same of spamd and rspamd, whose symbols may be many
MAX_SYMBOLS = 20  # that are shown
MAX_NAMED_RECIPIENTS = 100


class Opinion(NamedTuple):
    """What a spam filter says of a message: its score, the score from which it calls it spam, and what it found."""

    score: float
    required: float
    symbols: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = f"{self.score:g} of {self.required:g}"
        return f"{told}: {', '.join(self.symbols)}" if self.symbols else told


# -- whom to ask ------------------------------------------------------------------------------------------------------


def server_socket(text: str) -> str:
    """Normal form of where a server listens: ``inet:PORT@HOST``, ``inet6:PORT@HOST`` or ``unix:/PATH``."""
    address = parse_socket(text)
    if address.family != "unix" and not (address.host and address.port):
        raise ValueError(f"{shown(text)} needs a port and an address, such as {address.family}:3310@127.0.0.1")
    return str(address)


def http_url(text: str) -> str:
    """Checks an http URL."""
    return web_url(text, ("http",), "expected http://HOST:PORT/PATH, without TLS")


def web_server(url: str) -> SocketAddress:
    """Where the server of an http URL listens."""
    parts = urlsplit(url)
    return SocketAddress("inet", parts.hostname or "", parts.port or 80)


class TooLargeError(ScanError):
    """A server was told more than it takes."""


class _Server:
    """One of them: `failures` in a row, until when it `rests` after the last, and the connections that it may have."""

    def __init__(self, address: SocketAddress, connections: int) -> None:
        self.address = address
        self.failures = 0
        self.rests = 0.0
        self.connections = asyncio.Semaphore(connections)

    async def ask(self, request: Sequence[bytes | memoryview], read: Read[T], most: int, timeout: float) -> T:  # noqa: ASYNC109  it waits for a connection, too
        """What `read` makes of the answer; raises ScanError and OSError, TimeoutError after `timeout` seconds."""
        now = asyncio.get_running_loop().time
        connected = False
        try:
            async with asyncio.timeout(timeout), self.connections:
                connected = True
                if self.failures:
                    self.rests = now() + REST  # one is enough to see whether it is back
                answer = read(await exchange(self.address, request, most))
        except TooLargeError as error:  # it is well
            log.warning("scanner %s: %s", self.address, error)
            raise
        except (ScanError, OSError, ValueError) as error:
            if not connected:
                raise ScanError("all connections are in use") from None
            self.failures += 1
            self.rests = now() + REST
            if self.failures == 1:
                log.warning("scanner %s failed: %s", self.address, _told(error))
            raise
        if self.failures:
            log.info("scanner %s answers again", self.address)
        self.failures = 0
        return answer


class Servers:
    """Servers that do the same, any of which may answer.

    They are asked in their order, one after the other until one gives an answer that can be read; each has its part of the
    time.  Those that have failed lately come last, and before them those that have all their connections in use.  One that
    has failed again and again is expected to answer within `HURRY` seconds until it has done so, so that one that hangs
    does not hold up all mail.
    """

    def __init__(self, addresses: Sequence[SocketAddress], connections: int = 10, *, patient: bool = True) -> None:
        """`connections` to each at once; who needs one more waits for it.

        `patient`: ask also where all have failed again and again.  Otherwise that is tried every `REST` seconds.
        """
        self._servers = [_Server(address, connections) for address in addresses]
        self._patient = patient
        self._next_attempt = 0.0

    async def ask(self, request: Sequence[bytes | memoryview], read: Read[T], most: int, timeout: float) -> T:  # noqa: ASYNC109  it is shared out
        """What `read` makes of an answer of up to `most` octets.

        Raises ScanError where no server gives one within `timeout` seconds, TooLargeError where the request is too large
        for all of them.
        """
        await asyncio.sleep(0)  # to be a task of its own, which the time-outs may cancel; see `eager`
        now = asyncio.get_running_loop().time
        if not self._patient and all(server.failures >= GIVEN_UP for server in self._servers):
            if now() < self._next_attempt:
                raise ScanError("has not answered lately")
            self._next_attempt = now() + REST
        problems = []
        deadline = now() + timeout
        servers = sorted(self._servers, key=lambda s: (s.failures > 0 and now() < s.rests, s.connections.locked()))
        too_large = 0
        for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
            share = (deadline - now()) / left
            try:
                return await server.ask(
                    request, read, most, min(share, HURRY) if server.failures >= GIVEN_UP else share
                )
            except (ScanError, OSError, ValueError) as error:
                problems.append(f"{server.address}: {_told(error)}")
                too_large += isinstance(error, TooLargeError)
        raise (TooLargeError if too_large == len(servers) else ScanError)("; ".join(problems))


def _told(error: ScanError | OSError | ValueError) -> str:
    """What went wrong, for the administrator."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):  # whose number is not one of the system
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)  # a ValueError is one of a name that no resolver takes


async def exchange(address: SocketAddress, request: Sequence[bytes | memoryview], most: int) -> bytes:
    """All that a server says to a request until it closes the connection.

    Raises ScanError where that is over `most` octets, and OSError.  It is heard while the request is still under way, and
    after that could not go on: who has enough says why, and closes.  (A transport of asyncio throws that away.)
    """
    loop = asyncio.get_running_loop()
    sock = await _connect(address)
    try:
        sending = loop.create_task(_send(sock, request))
        try:
            answer = bytearray()
            while octets := await _receive(sock, answer):
                answer += octets
                if len(answer) > most:
                    raise ScanError(f"answers over {most} octets")
            return bytes(answer)
        finally:
            sending.cancel()
            await asyncio.wait((sending,))  # it lets go of the socket
    finally:
        sock.close()


async def _connect(address: SocketAddress) -> socket.socket:
    """A connection; raises OSError."""
    loop = asyncio.get_running_loop()
    where: list[tuple[int, Any]]
    if address.family == "unix":
        where = [(socket.AF_UNIX, address.path)]
    else:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        where = [(family, name) for family, _, _, _, name in found]
    problem: OSError | None = None
    for family, name in where:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, name)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    try:
        raise problem or OSError("has no address")
    finally:
        problem = None  # else it and this frame, with the request in those above, hold each other


async def _receive(sock: socket.socket, so_far: bytearray) -> bytes:
    try:
        return await asyncio.get_running_loop().sock_recv(sock, PIECE)
    except ConnectionResetError:
        if not so_far:
            raise
        return b""  # it closed before it had read all


async def _send(sock: socket.socket, request: Sequence[bytes | memoryview]) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # whoever listens will hear of it
        for part in request:
            await loop.sock_sendall(sock, part)


# -- the message ------------------------------------------------------------------------------------------------------


def header_section(message: Message) -> bytes:
    """All fields as they came, and the empty line."""
    section = message.derived.get("header_section")
    if not isinstance(section, bytes):
        section = message.derived["header_section"] = b"".join([field.raw for field in message.fields]) + b"\r\n"
    return section


def traced_header_section(tx: Transaction, now: float) -> bytes:
    """The same below the Received field that the MTA will write on top of it, which a milter is not shown.

    Both clamd and SpamAssassin need it.  Without it clamd takes a message for whatever its first octets look like, and looks
    for no attachment in one that begins with ``GIF89a: ``.  SpamAssassin takes the topmost field for the one that tells of
    our client, and that was written by him.
    """
    return _received(tx, now) + header_section(tx.message)


_PLAIN = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.\[\]:-]{1,255}")


def _received(tx: Transaction, now: float) -> bytes:
    """Trace information in the form of Postfix (RFC 5321 section 4.4)."""
    connection = tx.connection
    helo = _plain(tx.helo.decode("ascii", "replace"), "unknown")
    ip = connection.client_ip
    literal = "" if ip is None else f"IPv6:{ip}" if ip.version == 6 else str(ip)
    client = f" ({_plain(connection.client_name, 'unknown')} [{literal}])" if literal else ""
    ours = _plain(connection.mta_name, "localhost")
    reference = _plain(tx.queue_id, "none")
    path = tx.envelope.reverse_path
    address = "" if path is None else _plain(bytes(path).decode("ascii", "replace"), "", _ADDRESS)
    # Where SpamAssassin looks first for the sender of the envelope, and last in a field that the sender may have written.
    sender = f"\r\n\t(envelope-from <{address}>)" if address else ""
    return (
        f"Received: from {helo}{client}\r\n\tby {ours} with ESMTP id {reference}{sender};\r\n\t{formatdate(now)}\r\n"
    ).encode()


def _plain(text: str, otherwise: str, form: re.Pattern[str] = _PLAIN) -> str:
    return text if form.fullmatch(text) else otherwise


def size(message: Message) -> int:
    """About how many octets would be sent."""
    return len(message.body) + sum(len(field.name) + len(field.value) + 3 for field in message.fields)


# -- clamd ------------------------------------------------------------------------------------------------------------


def clamd_request(content: Sequence[bytes], most: int) -> list[bytes | memoryview]:
    """INSTREAM with the first `most` octets of what these are pieces of, in one chunk."""
    sent: list[bytes | memoryview] = []
    left = most
    for piece in content:
        sent.append(memoryview(piece)[:left])
        left -= len(sent[-1])
    return [b"zINSTREAM\0" + (most - left).to_bytes(4, "big"), *sent, bytes(4)]


def archive(contents: Iterable[bytes], most: int) -> tuple[list[bytes], bool]:
    """A tar archive of files with these contents, in pieces, and are all of them in it?  It takes up to `most` octets."""
    pieces: list[bytes] = []
    left = most - len(_END_OF_ARCHIVE)
    complete = True
    for number, content in enumerate(contents, 1):
        padding = -len(content) % 512
        if 512 + len(content) + padding > left:
            complete = False
            continue
        left -= 512 + len(content) + padding
        info = TarInfo(f"part-{number}")
        info.size = len(content)
        pieces += [info.tobuf(USTAR_FORMAT), content, bytes(padding)]
    return ([*pieces, _END_OF_ARCHIVE] if pieces else []), complete


_END_OF_ARCHIVE = bytes(1024)


def read_clamd(answer: bytes) -> str:
    """The name of the malware that clamd found, "" if none; raises ScanError where it did not scan, or TooLargeError."""
    text, end, rest = answer.partition(b"\0")
    if end and not rest:
        if text == b"stream: OK":
            return ""
        if text.startswith(b"stream: ") and text.endswith(b" FOUND"):
            return _line(text[8:-6]) or "unnamed"
        if text == b"INSTREAM size limit exceeded. ERROR":
            raise TooLargeError("takes less at once, see StreamMaxLength in clamd.conf")
    raise ScanError(f"answers {_line(answer) or 'nothing'}")


# -- SpamAssassin -----------------------------------------------------------------------------------------------------


def spamd_request(header: bytes, body: bytes, user: str) -> list[bytes | memoryview]:
    """SYMBOLS: the score, and the names of all rules that hit."""
    fields = f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(header) + len(body)}\r\n"
    if user:
        fields += f"User: {user}\r\n"
    return [fields.encode() + b"\r\n", header, body]


_SPAM = re.compile(rb"(?:True|False|Yes|No) ; (-?[0-9.]{1,20}) / (-?[0-9.]{1,20})")


def read_spamd(answer: bytes) -> Opinion:
    """What spamd thinks; raises ScanError where it does not say."""
    status, fields, body = _response(answer, b"SPAMD/")
    if status.split(b" ", 1)[0] != b"0":
        raise ScanError(f"answers {_line(status)}")
    spam = _SPAM.fullmatch(fields.get(b"spam", b""))
    if spam is None:
        raise ScanError("answers without a score")
    names = [_line(name) for name in body[:PIECE].split(b",", MAX_SYMBOLS)[:MAX_SYMBOLS]]
    return Opinion(_number(spam[1]), _number(spam[2]), tuple(filter(None, names)))


# -- rspamd -----------------------------------------------------------------------------------------------------------


def rspamd_request(
    tx: Transaction, url: str, header: bytes, body: bytes, *, settings: str = "", password: str = ""
) -> list[bytes | memoryview]:
    """POST of the message, with what is known of its transaction in fields beside it.

    As HTTP/1.0, so that the answer ends with the connection, and comes in one piece.
    """
    facts = [(b"Password", password.encode()), (b"Settings-ID", settings.encode()), *_facts(tx)]
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"POST {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nContent-Length: {len(header) + len(body)}\r\n".encode(),
        *(name + b": " + value + b"\r\n" for name, value in facts if _is_field_value(value)),
        b"\r\n",
    ]
    return [b"".join(lines), header, body]


def _facts(tx: Transaction) -> Iterator[tuple[bytes, bytes]]:
    connection, envelope = tx.connection, tx.envelope
    if connection.client_ip is not None:
        yield b"IP", str(connection.client_ip).encode()
    yield b"Helo", tx.helo
    yield b"Hostname", connection.client_name.encode("utf-8", "replace")
    yield b"MTA-Name", connection.mta_name.encode("utf-8", "replace")
    yield b"Queue-Id", tx.queue_id.encode("utf-8", "replace")
    yield b"From", b"<>" if envelope.reverse_path is None else bytes(envelope.reverse_path)
    for path in envelope.forward_paths[:MAX_NAMED_RECIPIENTS]:
        yield b"Rcpt", bytes(path)


_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


def _is_field_value(value: bytes) -> bool:
    return 0 < len(value) <= 1000 and not _CONTROLS.search(value)


def read_rspamd(answer: bytes) -> Opinion:
    """What rspamd thinks; raises ScanError where it does not say."""
    status, fields, body = _response(answer, b"HTTP/1.")
    if status.split(b" ", 1)[0] != b"200":
        raise ScanError(f"answers {_line(status)}")
    if b"transfer-encoding" in fields or b"content-encoding" in fields:
        raise ScanError("answers in an encoding that it was not asked for")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise ScanError("answers no JSON") from None
    if not isinstance(told, dict):
        raise ScanError("answers no JSON object")
    return Opinion(_number(told.get("score")), _number(told.get("required_score", 0)), _heaviest(told.get("symbols")))


def _heaviest(symbols: Any) -> tuple[str, ...]:
    """The names of the symbols that weigh most, in either direction."""
    if not isinstance(symbols, dict):
        return ()
    weights: dict[str, float] = {}
    for name, symbol in symbols.items():
        try:
            weight = _number(symbol["score"])
        except (ScanError, LookupError, TypeError):
            continue
        if weight:
            weights[name] = abs(weight)
    names = sorted(weights, key=weights.__getitem__, reverse=True)[:MAX_SYMBOLS]
    return tuple(_line(name.encode("utf-8", "replace")) for name in names)


# -- common -----------------------------------------------------------------------------------------------------------


def _response(answer: bytes, protocol: bytes) -> tuple[bytes, Mapping[bytes, bytes], bytes]:
    """Status, fields by lower-case name, and body of a response as HTTP has it; raises ScanError where it is none."""
    head, end, body = answer.partition(b"\r\n\r\n")
    first, *lines = head[:PIECE].split(b"\r\n")
    version, blank, status = first.partition(b" ")
    if not version.startswith(protocol) or not blank:
        raise ScanError(f"answers {_line(first) or 'nothing'}")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    length = fields.get(b"content-length", b"")
    if length and (not length.isdigit() or len(length) > 9 or int(length) > len(body)):
        raise ScanError("closes the connection before the end of its answer")
    # An error has neither fields nor an empty line in some versions of spamd.
    return status, fields if end else {}, body[: int(length)] if length else body


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ScanError("answers without a score") from None
    if isinstance(value, bool) or not isfinite(number):
        raise ScanError("answers without a score")
    return number


def _line(octets: bytes) -> str:
    """What a server wrote, in one short line of printable ASCII."""
    text = octets[:100].strip(b" \t\r\n\0")
    return "".join(chr(c) if 32 <= c < 127 else "?" for c in text)
