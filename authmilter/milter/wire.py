"""The milter protocol, versions 2 to 6, without I/O: octets to packets to facts, and verdicts to octets.

A packet is a length (32 bits, network order), a letter, and data of that length less one.  There is no RFC; the sources
are the protocol text of T. Vierling (version 2), what libmilter's public headers add to it, and what Postfix and
Sendmail do.  Everything here is a pure function or, for `Packets`, a value that only knows the octets it was fed.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from authmilter.errors import AuthMilterError
from authmilter.milter.macros import WANTED
from authmilter.model import HeaderField, Stage
from authmilter.verdict import Action, HeaderEdit, Reply, Verdict

MAX_PACKET: Final = 4 * 1024 * 1024  # octets of a packet that are kept; MTAs send at most 64 KB, or 1 MB by agreement
MAX_SKIPPED: Final = 256 * 1024 * 1024  # a packet beyond this is no milter protocol: the connection ends

# Commands of the MTA
ABORT: Final = ord("A")
BODY: Final = ord("B")
CONNECT: Final = ord("C")
MACRO: Final = ord("D")
END_OF_MESSAGE: Final = ord("E")
HELO: Final = ord("H")
QUIT_NEW_CONNECTION: Final = ord("K")
HEADER: Final = ord("L")
MAIL: Final = ord("M")
END_OF_HEADERS: Final = ord("N")
NEGOTIATE: Final = ord("O")
QUIT: Final = ord("Q")
RCPT: Final = ord("R")
DATA: Final = ord("T")
_BODY_LETTERS: Final = (BODY, END_OF_MESSAGE)

# Actions (SMFIF_*)
CAN_ADD_HEADERS: Final = 0x001
CAN_CHANGE_HEADERS: Final = 0x010
CAN_QUARANTINE: Final = 0x020
CAN_LIST_MACROS: Final = 0x100
OUR_ACTIONS: Final = CAN_ADD_HEADERS | CAN_CHANGE_HEADERS | CAN_QUARANTINE | CAN_LIST_MACROS
_V1_ACTIONS: Final = 0x0F  # what an offer of 0 means
_V1_STEPS: Final = 0x3F

# Protocol steps (SMFIP_*)
NO_UNKNOWN: Final = 0x000100
SKIP: Final = 0x000400
LEADING_SPACE: Final = 0x100000
NO_REPLY: Final[Mapping[Stage, int]] = {
    Stage.CONNECT: 0x001000,
    Stage.HELO: 0x002000,
    Stage.MAIL: 0x004000,
    Stage.RCPT: 0x008000,
    Stage.DATA: 0x010000,
    Stage.HEADER: 0x000080,
    Stage.EOH: 0x040000,
    Stage.BODY: 0x080000,
}

OLDEST: Final = 2
NEWEST: Final = 6

_SHORT: Final = 64  # octets of a value
_LINE: Final = 480  # octets of text in one line of a reply: with codes and CRLF under 512 (RFC 5321 section 4.5.3.1.5)
_LINES: Final = 32  # libmilter's limit
_TO_SPACE: Final = dict.fromkeys((*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")
_VALUE: Final = {i: text for i, text in _TO_SPACE.items() if i not in (9, 10)}

_length = struct.Struct(">I").unpack_from
_head = struct.Struct(">IB").unpack_from
_options = struct.Struct(">III")

Packet = tuple[int, bytes, bool]  # letter, data, whether this is not all of it


class ProtocolError(AuthMilterError):
    """What arrived is not the milter protocol; the connection can't go on."""


class Packets:
    """Cuts the octets of one connection into packets; holds at most MAX_PACKET octets."""

    __slots__ = ("_needed", "_partial", "_rest", "_streamed")

    def __init__(self) -> None:
        self._partial = bytearray()  # a packet that is not complete, from its length on
        self._needed = 4  # octets that `_partial` must have before it is worth looking at again
        self._rest = 0  # octets still to come of a packet that is longer than MAX_PACKET
        self._streamed = 0  # its letter, if its data is passed on in pieces

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Take octets as they come; yield the packets that they complete.

        The iterator must be exhausted before more is fed.  Of a packet over MAX_PACKET only so much is yielded, marked
        as not all of it, and the rest is passed over; but the body is never cut: it comes in pieces, as BODY packets
        with the mark, and last one of the packet's own letter without it.  Raises ProtocolError for a length of 0 or
        over MAX_SKIPPED.
        """
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        end = len(data)
        position = 0
        needed = 4
        while position < end:
            while not self._rest and (start := position + 5) <= end:  # packets that are here whole, as nearly all are
                length, letter = _head(data, position)
                stop = start + length - 1
                if stop > end or not 0 < length <= MAX_PACKET:
                    break
                yield letter, data[start:stop], False
                position = stop
            if self._rest:
                stop = min(position + self._rest, end)
                self._rest -= stop - position
                if self._streamed:
                    yield BODY if self._rest else self._streamed, data[position:stop], self._rest > 0
                position = stop
                continue
            start = position + 4
            if start > end:
                break
            (length,) = _length(data, position)
            if not 0 < length <= MAX_SKIPPED:
                raise ProtocolError(f"packet of {length} octets")
            stop = start + min(length, MAX_PACKET)
            if stop > end:
                needed = stop - position
                break
            letter = data[start]
            position = stop
            self._rest = length - MAX_PACKET
            self._streamed = letter if letter in _BODY_LETTERS else 0
            yield BODY if self._streamed else letter, data[start + 1 : stop], True
        self._needed = needed
        if position < end:
            self._partial += data[position:] if position else data


# -- What the MTA says --


class Options(NamedTuple):
    """Version, actions and protocol steps: offered by the MTA, or chosen by us."""

    version: int
    actions: int
    steps: int


class ConnectInfo(NamedTuple):
    """The SMTP client.

    `family` is ``4``, ``6``, ``L`` or ``U``; for ``U`` there is neither port nor address.
    """

    host: bytes
    family: str
    port: int
    address: bytes


def read_offer(data: bytes) -> Options:
    """Read what the MTA offers (SMFIC_OPTNEG).  Raises ProtocolError if it is cut short or older than version 2."""
    if len(data) < _options.size:
        raise ProtocolError("negotiation cut short")
    version, actions, steps = _options.unpack_from(data)
    if version < OLDEST:
        raise ProtocolError(f"protocol version {version}")
    return Options(version, actions or _V1_ACTIONS, steps or _V1_STEPS)


@lru_cache(maxsize=16)
def choose(offer: Options, answering: frozenset[Stage]) -> Options:
    """Take of the offer what we can use; `answering` are the stages at which a verdict may come."""
    steps = NO_UNKNOWN | SKIP | LEADING_SPACE
    for stage, bit in NO_REPLY.items():
        if stage not in answering:
            steps |= bit
    return Options(min(offer.version, NEWEST), offer.actions & OUR_ACTIONS, offer.steps & steps)


def read_connect(data: bytes) -> ConnectInfo:
    """Read SMFIC_CONNECT; what can't be read makes a client of unknown family."""
    host, _, rest = data.partition(b"\0")
    family = chr(rest[0]) if rest else "U"
    if family not in "46L" or len(rest) < 3:
        return ConnectInfo(host, "U", 0, b"")
    address = rest[3:].partition(b"\0")[0]
    if address[:5].lower() == b"ipv6:":  # as Sendmail writes it
        address = address[5:]
    return ConnectInfo(host, family, int.from_bytes(rest[1:3], "big"), address)


def read_text(data: bytes) -> bytes:
    """Read the one string of HELO."""
    return data.partition(b"\0")[0]


def read_arguments(data: bytes) -> tuple[bytes, ...]:
    """Read the strings of MAIL and RCPT: the path, then parameters.  At least one, if only an empty one."""
    return tuple(data.removesuffix(b"\0").split(b"\0"))


def read_headers(packets: Sequence[bytes], *, leading_space: bool) -> list[HeaderField]:
    """Read header fields: names, and values as the SMTP client sent them.

    `leading_space`: white space after the colon was negotiated to be part of the value; if not, the MTA took one blank
    away, and one is put back.  Folds arrive with LF and get their CRLF back (RFC 5322 section 2.2.3).
    """
    fields = []
    for data in packets:
        name, _, value = data.partition(b"\0")
        if value[-1:] == b"\0":
            value = value[:-1]
        if 10 in value:  # LF; the search for a number is the faster one
            value = value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        # As HeaderField() makes it, but for a call in Python for each of a message's many.
        fields.append(tuple.__new__(HeaderField, (name, value if leading_space else b" " + value)))
    return fields


# -- What we say --


def packet(letter: bytes, data: bytes = b"") -> bytes:
    """Build a packet."""
    return (len(data) + 1).to_bytes(4, "big") + letter + data


SAY_CONTINUE: Final = packet(b"c")
SAY_ACCEPT: Final = packet(b"a")
SAY_REJECT: Final = packet(b"r")
SAY_TEMPFAIL: Final = packet(b"t")
SAY_DISCARD: Final = packet(b"d")
SAY_SKIP: Final = packet(b"s")
SAY_PROGRESS: Final = packet(b"p")

_MACRO_LISTS: Final = b"".join(stage.to_bytes(4, "big") + names + b"\0" for stage, names in WANTED.values())


@lru_cache(maxsize=16)
def say_options(chosen: Options) -> bytes:
    """Answer the offer, with the lists of macros that we want (SMFIR_SETSYMLIST) where the MTA takes them."""
    data = _options.pack(*chosen)
    return packet(b"O", data + _MACRO_LISTS if chosen.actions & CAN_LIST_MACROS else data)


def reply_lines(reply: Reply) -> list[str]:
    """Cut the text of a reply into lines that may go onto the wire.

    Lines end at LF and, where they grow too long, at a blank.  Control characters become blanks, what is not ASCII
    becomes ``?`` (a reply is ASCII without SMTPUTF8, RFC 5321 section 4.2), and ``%`` is doubled because Sendmail uses
    the text as a printf format.  At least one line, at most 32.
    """
    lines: list[str] = []
    for line in reply.text.replace("\r\n", "\n").split("\n"):
        text = line.translate(_TO_SPACE).encode("ascii", "replace").decode().strip()
        while len(text) > _LINE:
            cut = text.rfind(" ", 1, _LINE + 1)
            cut = cut if cut > 0 else _LINE
            lines.append(text[:cut])
            text = text[cut:].lstrip()
            if len(lines) > _LINES:
                break
        if text:
            lines.append(text)
        if len(lines) > _LINES:
            break
    return [line.replace("%", "%%") for line in lines[:_LINES]] or ["Refused"]


def reply_matches(reply: Reply | None, action: Action) -> bool:
    """Whether the reply fits the action: MTAs take 4yz for a temporary failure and 5yz for a rejection, else nothing."""
    return reply is not None and reply.code // 100 == (4 if action is Action.TEMPFAIL else 5)


def say_reply(reply: Reply) -> bytes:
    """Refuse with that SMTP reply (SMFIR_REPLYCODE): ``550-5.7.1 first`` CRLF ``550 5.7.1 last``."""
    lines = reply_lines(reply)
    last = len(lines) - 1
    enhanced = reply.enhanced + " " if reply.enhanced else ""
    text = "\r\n".join(f"{reply.code}{'-' if i < last else ' '}{enhanced}{line}" for i, line in enumerate(lines))
    return packet(b"y", text.encode("ascii", "replace") + b"\0")


@lru_cache(maxsize=256)
def field_name(name: str) -> str:
    """The name of a field that is edited, without what can't stand in one (RFC 5322 section 2.2)."""
    return "".join(c for c in name if "!" <= c <= "~" and c != ":")


def field_value(value: str) -> str:
    """The value of a field that is added: control characters become blanks, and LF stays at folds alone.

    Text that can't be encoded as UTF-8 becomes ``?``.
    """
    if not value.isascii() or not (value.isprintable() or _is_folded(value)):
        value = value.replace("\r\n", "\n").translate(_VALUE).encode("utf-8", "replace").decode()
        first, *rest = value.split("\n")
        # An empty line or one that is not indented would end the field, or the header section.
        value = first + "".join(("\n" if line[:1] in (" ", "\t") and line.strip() else " ") + line for line in rest)
    return value


def _is_folded(value: str) -> bool:
    """Is this printable lines, each but the first behind one HTAB, as our own fields are folded?"""
    first, *rest = value.split("\n\t")
    return first.isprintable() and all(line.isprintable() and line[:1] not in ("", " ") for line in rest)


def field_index(edit: HeaderEdit) -> int:
    """The place of an edit, within what the protocol can say."""
    return min(max(edit.at, 0), 0x7FFFFFFF)


def say_edit(edit: HeaderEdit, *, leading_space: bool) -> bytes:
    """Edit the header section; short edits, of which there are few different ones, are made once."""
    return (_say_edit if len(edit.value) > _SHORT else _say_short_edit)(edit, leading_space)


def _say_edit(edit: HeaderEdit, leading_space: bool) -> bytes:
    """Edit the header section.

    `leading_space`: negotiated; then the MTA puts no blank after the colon, so we do.
    """
    name = field_name(edit.name).encode()
    index = field_index(edit).to_bytes(4, "big")
    if edit.op == "delete":  # a change to the empty value
        return packet(b"m", index + name + b"\0\0")
    value = field_value(edit.value).encode()
    if leading_space:
        value = b" " + value
    if edit.op == "insert":
        return packet(b"i", index + name + b"\0" + value + b"\0")
    return packet(b"h", name + b"\0" + value + b"\0")


_say_short_edit = lru_cache(maxsize=512)(_say_edit)


def quarantine_reason(reason: str) -> str:
    """A reason that may go onto the wire: without control characters, and not empty (MTAs refuse that)."""
    return reason.translate(_TO_SPACE).encode("utf-8", "replace").decode().strip() or "policy"


def say_quarantine(reason: str) -> bytes:
    """Hold the message, for that reason, which MTAs log."""
    return packet(b"q", quarantine_reason(reason).encode() + b"\0")


def usable_edits(edits: Sequence[HeaderEdit], actions: int) -> list[HeaderEdit]:
    """The edits that the MTA agreed to carry out."""
    allowed = actions & CAN_ADD_HEADERS, actions & CAN_CHANGE_HEADERS
    return [edit for edit in edits if allowed[edit.op == "delete"]]


def say_verdict(verdict: Verdict, stage: Stage, chosen: Options) -> bytes:
    """Answer a stage: edits and quarantine at the end of the message, then the action.

    A message is never accepted before its end, since the MTA would then not show the rest: ACCEPT is "continue".
    """
    action = verdict.action
    if action is Action.REJECT or action is Action.TEMPFAIL:
        reply = verdict.reply
        if reply is not None and reply_matches(reply, action):
            return say_reply(reply)
        return SAY_REJECT if action is Action.REJECT else SAY_TEMPFAIL
    if action is Action.DISCARD:
        return SAY_DISCARD
    if stage is not Stage.EOM or (action is Action.CONTINUE and not verdict.edits):
        return SAY_CONTINUE
    leading_space = bool(chosen.steps & LEADING_SPACE)
    said = [say_edit(edit, leading_space=leading_space) for edit in usable_edits(verdict.edits, chosen.actions)]
    if action is Action.QUARANTINE and chosen.actions & CAN_QUARANTINE:
        said.append(say_quarantine(verdict.quarantine_reason))
    said.append(SAY_CONTINUE)
    return b"".join(said)
