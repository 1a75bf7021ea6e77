"""c-ares on the event loop: questions to one nameserver, with EDNS, retransmission, and TCP on truncation.

c-ares is reached through the cffi module inside pycares, not through `pycares.Channel`, for four things that the
latter does not offer (5.2) and that are needed here:

* c-ares keeps answers for up to an hour unless told otherwise; our own cache must be the only one.
* One socket for each question.  A source port that nobody can guess is half of the defence against forged answers
  (RFC 5452 section 9.2); and c-ares drops a socket with all its questions when one answer on it can't be parsed, so
  that anybody who publishes a broken record could disturb the questions of others.
* The SOA of a negative answer, which says how long it may be kept (RFC 2308 section 5).
* Sockets watched by the event loop itself: measured against c-ares' own thread 46-68 us a question instead of 60-100.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, Final

import pycares
from pycares import _cares

from authmilter.errors import StartError
from authmilter.interfaces import Answer

_ffi, _lib = _cares.ffi, _cares.lib

Reply = Answer | str  # an answer, or why there is none

TYPES: Final[dict[str, int]] = {
    "A": _lib.ARES_REC_TYPE_A,
    "AAAA": _lib.ARES_REC_TYPE_AAAA,
    "MX": _lib.ARES_REC_TYPE_MX,
    "PTR": _lib.ARES_REC_TYPE_PTR,
    "TXT": _lib.ARES_REC_TYPE_TXT,
}

MAX_RECORDS = 500  # records of an answer that are looked at; an answer of 64 KB could hold thousands
UDP_SIZE = 1232  # octets of a UDP answer that no path fragments (DNS flag day 2020)

_NO_FD = _lib.ARES_SOCKET_BAD
_OPT_UDP_MAX_QUERIES = 1 << 19  # bits of ares.h that pycares does not name
_OPT_MAXTIMEOUTMS = 1 << 20
_OPT_QUERY_CACHE = 1 << 21
_OPTIONS = (
    _lib.ARES_OPT_FLAGS
    | _lib.ARES_OPT_TIMEOUTMS
    | _lib.ARES_OPT_TRIES
    | _lib.ARES_OPT_EDNSPSZ
    | _lib.ARES_OPT_SOCK_STATE_CB
    | _OPT_UDP_MAX_QUERIES
    | _OPT_MAXTIMEOUTMS
    | _OPT_QUERY_CACHE
)
_SHORTEST_TRY = 0.25  # seconds: c-ares derives its patience from past answers, but never goes below this

is_odd: Final = re.compile(r"[^A-Za-z0-9._/*-]").search  # finds what c-ares allows in no name that it asks for
_ESCAPED = frozenset(' "$();@\\')

_FAILURES: Final[dict[int, str]] = {
    _lib.ARES_ETIMEOUT: "time-out",
    _lib.ARES_ESERVFAIL: "SERVFAIL",
    _lib.ARES_EREFUSED: "REFUSED",
    _lib.ARES_EFORMERR: "FORMERR",
    _lib.ARES_ENOTIMP: "NOTIMP",
    _lib.ARES_EBADRESP: "broken answer",
    _lib.ARES_ECONNREFUSED: "nameserver not reached",
    _lib.ARES_ECANCELLED: "cancelled",
    _lib.ARES_EDESTRUCTION: "cancelled",
}
RESPONSE_CODES: Final = frozenset({"SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"})  # failures that a nameserver spoke of

# Questions under way: the cffi handle that c-ares gives back, the record type, and who wants the reply.
_asked: dict[Any, tuple[int, Callable[[Reply], None]]] = {}
_pycares_reply = pycares._query_dnsrec_cb


@_ffi.def_extern(name="_query_dnsrec_cb")  # type: ignore[untyped-decorator]
def _on_reply(handle: Any, status: int, timeouts: int, message: Any) -> None:
    """Called by c-ares for every question of this process that ends."""
    question = _asked.pop(handle, None)
    if question is None:  # asked by a pycares.Channel of somebody else
        _pycares_reply(handle, status, timeouts, message)
        return
    rdtype, tell = question
    try:
        reply = _read(rdtype, status, message)
    except Exception as error:  # cffi would print it, and nobody would be told
        reply = f"answer not understood: {type(error).__name__}"
    tell(reply)


class Channel:
    """One nameserver, as ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; made, used and closed on the thread of `loop`.

    `timeout` is for how many seconds the caller waits; retransmission is spread over it.  `process_timeouts` must be
    called from time to time while questions are under way.  Raises StartError if c-ares can't start.
    """

    def __init__(self, server: str, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writing: set[int] = set()
        self._watch_handle = _ffi.new_handle(self._watch)  # lives as long as the channel
        options = _ffi.new("struct ares_options *")
        # Response codes are handed through: with one nameserver to a channel, c-ares would only ask it again.
        options.flags = _lib.ARES_FLAG_EDNS | _lib.ARES_FLAG_NOCHECKRESP
        options.ednspsz = UDP_SIZE
        options.udp_max_queries = 1
        options.qcache_max_ttl = 0
        options.timeout = round(max(timeout / 3, _SHORTEST_TRY) * 1000)  # of the first try, until c-ares has an average
        options.maxtimeout = round(max(timeout, _SHORTEST_TRY) * 1000)
        options.tries = _tries(timeout)
        options.sock_state_cb = _lib._sock_state_cb
        options.sock_state_cb_data = self._watch_handle
        pointer = _ffi.new("ares_channel *")
        status = _lib.ares_init_options(pointer, options, _OPTIONS)
        if status != _lib.ARES_SUCCESS:
            raise StartError(f"c-ares does not start: {_text(_lib.ares_strerror(status))}")
        self._channel = pointer[0]
        status = _lib.ares_set_servers_csv(self._channel, server.encode())
        if status != _lib.ARES_SUCCESS:
            self.close()
            raise StartError(f"nameserver {server}: {_text(_lib.ares_strerror(status))}")
        self._id = _ffi.new("unsigned short *")

    def ask(self, name: str, rdtype: str, tell: Callable[[Reply], None]) -> None:
        """Ask for a name of letters, digits and ``-._/*``; `tell` is called once, perhaps before this returns."""
        kind = TYPES[rdtype]
        handle = _ffi.new_handle(tell)
        _asked[handle] = kind, tell
        # What this returns `tell` was told too.
        _lib.ares_query_dnsrec(
            self._channel, name.encode(), _lib.ARES_CLASS_IN, kind, _lib._query_dnsrec_cb, handle, self._id
        )

    def process_timeouts(self) -> None:
        """Send again, or give up, what has waited long enough."""
        _lib.ares_process_fd(self._channel, _NO_FD, _NO_FD)

    def close(self) -> None:
        """Close the sockets; every question under way is told "cancelled"."""
        _lib.ares_destroy(self._channel)

    def _watch(self, fd: int, readable: int, writable: int) -> None:
        """c-ares wants to know when that socket is ready; neither means that it is about to be closed."""
        if readable:
            self._loop.add_reader(fd, _lib.ares_process_fd, self._channel, fd, _NO_FD)
        else:
            self._loop.remove_reader(fd)
        if writable:
            self._loop.add_writer(fd, _lib.ares_process_fd, self._channel, _NO_FD, fd)
            self._writing.add(fd)
        elif fd in self._writing:
            self._loop.remove_writer(fd)
            self._writing.discard(fd)


def system_nameservers() -> list[str]:
    """The nameservers of resolv.conf, as c-ares reads it; 127.0.0.1 where there is none."""
    pointer = _ffi.new("ares_channel *")
    if _lib.ares_init_options(pointer, _ffi.NULL, 0) != _lib.ARES_SUCCESS:
        raise StartError("c-ares can't read the system's nameservers")
    servers = _lib.ares_get_servers_csv(pointer[0])
    try:
        return _text(servers).split(",")
    finally:
        _lib.ares_free_string(servers)
        _lib.ares_destroy(pointer[0])


def usable_name(name: str) -> bool:
    """Can this be asked: labels of 1 to 63 octets, 253 in all (RFC 1035 section 2.3.4), printable ASCII?"""
    return (
        name.isascii()
        and name.isprintable()
        and len(name) <= 253
        and all(0 < len(label) < 64 for label in name.split("."))
    )


def host_name(text: str) -> str | None:
    """A name in a record, in lower case and without final dot; "" for the root.

    None for one with octets that are escaped in text: no host has such a name, and it could be taken for another.
    """
    name = text.removesuffix(".").lower()
    return name if not name or (_ESCAPED.isdisjoint(name) and usable_name(name)) else None


def mail_exchange(preference: int, text: str) -> str | None:
    """An MX record as `interfaces.Answer` has it, or None."""
    host = host_name(text)
    return None if host is None else f"{preference} {host or '.'}"


def _tries(timeout: float) -> int:
    """How often c-ares must send so that it does not give up before `timeout`, even if it is as impatient as it can.

    A try takes twice the time of the one before, less up to a half by chance.
    """
    tries, spent = 1, _SHORTEST_TRY
    while spent < timeout:
        spent *= 2
        tries += 1
    return tries


def _read(rdtype: int, status: int, message: Any) -> Reply:
    if status == _lib.ARES_SUCCESS:
        count = _lib.ares_dns_record_rr_cnt(message, _lib.ARES_SECTION_ANSWER)
        # NOERROR without records has a status of its own, so this is one of the codes that have none (NOTAUTH, ...).
        return _records(rdtype, message, count) if count else "unexpected response code"
    if status in (_lib.ARES_ENOTFOUND, _lib.ARES_ENODATA):
        # Of a chain of aliases, NXDOMAIN is said of its end (RFC 6604 section 3): nothing to be had either way.
        return Answer((), status == _lib.ARES_ENODATA, _negative_ttl(message))
    return _FAILURES.get(status) or _text(_lib.ares_strerror(status))


def _records(rdtype: int, message: Any, count: int) -> Answer:
    """The records of that type.  Their owner names are not compared: a recursive resolver answers what it was asked."""
    read = _READERS[rdtype]
    records: list[Any] = []
    ttl = float("inf")
    for index in range(min(count, MAX_RECORDS)):
        record = _lib.ares_dns_record_rr_get_const(message, _lib.ARES_SECTION_ANSWER, index)
        found = _lib.ares_dns_rr_get_type(record)
        if found == rdtype:
            value = read(record)
            if value is not None:
                records.append(value)
        elif found != _lib.ARES_REC_TYPE_CNAME:
            continue
        ttl = min(ttl, _ttl(record))
    if not records:
        ttl = min(ttl, _negative_ttl(message))
    return Answer(tuple(records), exists=True, ttl=ttl)


def _ttl(record: Any) -> float:
    ttl = _lib.ares_dns_rr_get_ttl(record)
    return float(ttl) if ttl < 1 << 31 else 0.0  # RFC 2181 section 8


def _negative_ttl(message: Any) -> float:
    """For how long "there is nothing" may be kept: RFC 2308 section 5; without an SOA not at all."""
    if message == _ffi.NULL:
        return 0.0
    for index in range(min(10, _lib.ares_dns_record_rr_cnt(message, _lib.ARES_SECTION_AUTHORITY))):
        record = _lib.ares_dns_record_rr_get_const(message, _lib.ARES_SECTION_AUTHORITY, index)
        if _lib.ares_dns_rr_get_type(record) == _lib.ARES_REC_TYPE_SOA:
            return min(_ttl(record), float(_lib.ares_dns_rr_get_u32(record, _lib.ARES_RR_SOA_MINIMUM)))
    return 0.0


def _a(record: Any) -> str:
    return socket.inet_ntop(socket.AF_INET, _ffi.buffer(_lib.ares_dns_rr_get_addr(record, _lib.ARES_RR_A_ADDR), 4))


def _aaaa(record: Any) -> str:
    return socket.inet_ntop(
        socket.AF_INET6, _ffi.buffer(_lib.ares_dns_rr_get_addr6(record, _lib.ARES_RR_AAAA_ADDR), 16)
    )


def _txt(record: Any) -> bytes:
    length = _ffi.new("size_t *")
    octets = _lib.ares_dns_rr_get_bin(record, _lib.ARES_RR_TXT_DATA, length)  # all strings of the record, joined
    return _ffi.buffer(octets, length[0])[:] if octets != _ffi.NULL else b""


def _ptr(record: Any) -> str | None:
    return host_name(_text(_lib.ares_dns_rr_get_str(record, _lib.ARES_RR_PTR_DNAME))) or None


def _mx(record: Any) -> str | None:
    preference = _lib.ares_dns_rr_get_u16(record, _lib.ARES_RR_MX_PREFERENCE)
    return mail_exchange(preference, _text(_lib.ares_dns_rr_get_str(record, _lib.ARES_RR_MX_EXCHANGE)))


def _text(string: Any) -> str:
    return "" if string == _ffi.NULL else str(_ffi.string(string).decode("latin-1"))


_READERS: Final[dict[int, Callable[[Any], bytes | str | None]]] = {
    TYPES["A"]: _a,
    TYPES["AAAA"]: _aaaa,
    TYPES["MX"]: _mx,
    TYPES["PTR"]: _ptr,
    TYPES["TXT"]: _txt,
}
