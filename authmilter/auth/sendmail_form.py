"""Address fields as Sendmail sends them, for signatures of ours to be held against.

Sendmail parses the fields that hold addresses and writes them anew, after it has shown the message to filters.  White space
alone does no harm to a signature with relaxed canonicalisation; what it does besides to the forms that people and programs
write is done here as well: observed of Sendmail 8.17 (`commaize` and `crackaddr` in its sources).  What it makes of other
forms depends on its configuration (a domain for addresses that have none) or on accidents of its buffers.  Such fields are
named, to be left out of signatures: RFC 6376 section 5.4 says that what is likely to be modified SHOULD NOT be signed.  From
MUST be signed; where its form can't be foreseen it is taken as it was written.
"""

import re

from authmilter.auth.canonical import relaxed_field
from authmilter.model import HeaderField, Message

MAX_REWRITTEN = 32 * 1024  # octets of such fields that are looked at; with more header, Sendmail refuses the message
MAX_ADDRESSES = 1000  # that are looked at, counted by the commas of all these fields; they take up to 5 us each
NAMES = (
    b"from", b"sender", b"reply-to", b"to", b"cc", b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to",
    b"resent-cc", b"disposition-notification-to",
)  # fmt: skip
# Sendmail has 256 octets for an element of a list.  What is certainly shorter is kept; a name that is certainly longer is
# left out, unless there is a word or a quoted text of nearly that length in it, or it fills another buffer of about 1200.
_SHORT, _LONG, _LONGEST_WORD, _LONGEST_NAME = 240, 256, 200, 500
_TAKES_TWO = bytes([*range(0x80, 0xA0), 0xFF])  # octets that count twice there

_MUST_QUOTE = b"@;\\[].'"  # what Sendmail wants in quotes in front of <address>; its MustQuoteChars, but for : and ,
_GAP = rb"[ \t\r\n]*+"
_QUOTED = rb'"(?:[^"\\]|\\.)*+"'
_COMMENT = rb"\((?:[^()\\]|\\.)*+\)"
for _ in range(4):  # comments within comments
    _COMMENT = rb"\((?:[^()\\]|\\.|" + _COMMENT + rb")*+\)"
_COMMENTS = rb"(?:" + _COMMENT + _GAP + rb")*+"
_ADDRESS = (
    rb"(?:[A-Za-z0-9!#$%&'*+./=?^_`{|}~-]++|\"(?:[ !#-\[\]-~]|\\[ -~])*+\")@"
    rb"(?:(?:[A-Za-z0-9_-]++\.)++[A-Za-z0-9_-]++(?<!\.uucp)|\[[0-9A-Za-z.:]++\])"
)

_ODD = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_BETWEEN = re.compile(rb"[ \t\r\n,]*+")
_BLANK = re.compile(_GAP)
_PHRASE = re.compile(rb'(?:[^"(),:<>\\]++|' + _QUOTED + rb"|" + _COMMENT + rb"|\\[A-Za-z0-9 ])*+", re.DOTALL)
_ANGLE = re.compile(rb"<(" + _ADDRESS + rb")>" + _GAP + _COMMENTS, re.DOTALL | re.IGNORECASE)
_BARE = re.compile(
    rb"(?:" + _COMMENT + rb")?+" + _GAP + _ADDRESS + _GAP + _COMMENTS + rb"(?=[,;]|\Z)", re.DOTALL | re.IGNORECASE
)
_PROTECTED = re.compile(_QUOTED + rb"|" + _COMMENT, re.DOTALL)
_BARE_PART = re.compile(_COMMENT + rb"|" + _ADDRESS, re.DOTALL | re.IGNORECASE)


class _UnforeseenError(Exception):
    """What Sendmail will make of it is not known."""


def as_sent(message: Message) -> tuple[Message, frozenset[bytes]]:
    """The message as Sendmail will send it, and the lower-case names of fields whose form can't be foreseen, but for From.

    What is known of the body is kept.
    """
    fields = list(message.fields)
    unforeseen = set()
    room, commas = MAX_REWRITTEN, MAX_ADDRESSES
    for name in NAMES:
        for position in message.index.get(name, ()):
            field = fields[position]
            room -= len(field.value)
            commas -= field.value.count(b",")
            value = rewrite(field.value) if room >= 0 and commas >= 0 else None
            if value is None:
                unforeseen.add(name)
                continue
            rewritten = HeaderField(field.name, b" " + value)
            if relaxed_field(rewritten) != relaxed_field(field):
                fields[position] = rewritten
    sent = Message(
        tuple(fields),
        body_size=message.body_size,
        body_hashes=message.body_hashes,
        oversized=message.oversized,
    )
    return sent, frozenset(unforeseen - {b"from"})


def rewrite(value: bytes) -> bytes | None:
    """The value of an address field as Sendmail writes it, but for white space; None if that can't be foreseen."""
    if _ODD.search(value):
        return None
    elements = []
    position = _end(_BETWEEN, value, 0)
    try:
        while position < len(value):
            element, position = _element(value, position)
            elements.append(element)
            position = _end(_BETWEEN, value, position)
    except _UnforeseenError:
        return None
    return b", ".join(elements)


def _element(value: bytes, start: int) -> tuple[bytes, int]:
    """The element that starts there, with the name of the group that begins or the semicolon that ends with it."""
    group = name = b""
    angle = None
    position = _end(_PHRASE, value, start)
    if value[position : position + 1] == b":":
        group = value[start:position]
        start = _end(_BLANK, value, position + 1)
        # A colon in brackets does not end a name, nor do those of DECnet; and an @ is taken for a route.
        if not group.strip() or b"[" in group or b"@" in group or value[position + 1 : position + 2] in (b":", b"."):
            raise _UnforeseenError
        group = _in_quotes(group) + value[position:start]
    if bare := _BARE.match(value, start):
        element, position = b" ".join(_BARE_PART.findall(bare[0])), bare.end()
    elif group and value[start : start + 1] in (b";", b""):
        element, position = b"", start
    else:
        position = _end(_PHRASE, value, start)
        angle = _ANGLE.match(value, position)
        if angle is None:
            raise _UnforeseenError
        name, position = value[start:position], angle.end()
        element = _in_quotes(name) + angle[0]
    element = group + element
    ends_group = value[position : position + 1] == b";"
    if ends_group:
        element += b";"
        position = _end(_BLANK, value, position + 1)
    if value[position : position + 1] not in (b"", b","):
        raise _UnforeseenError
    if _room_for(element) > _SHORT:
        if angle is None or group or ends_group or not _is_dropped(name, angle[1]):
            raise _UnforeseenError
        element = b"<" + angle[1] + b">"
    return element.rstrip(), position


def _in_quotes(phrase: bytes) -> bytes:
    """The name in front of an address or of the list of a group, in quotes if Sendmail wants that."""
    bare = _PROTECTED.sub(b"", phrase)
    if bare.translate(None, _MUST_QUOTE) == bare:
        return phrase
    text = phrase.rstrip(b" \t\r\n")
    return b'"' + text.replace(b'"', b'\\"') + b'"' + phrase[len(text) :]


def _is_dropped(name: bytes, address: bytes) -> bool:
    """Is the name in front of that address certainly too long for Sendmail, and of a form that it leaves out as a whole?"""
    words = name.split()
    return (
        len(b" ".join(words)) > _LONG
        and _room_for(name) < _LONGEST_NAME
        and max(map(len, words)) < _LONGEST_WORD > len(address)
        and not _PROTECTED.search(name)
    )


def _room_for(text: bytes) -> int:
    """Octets that it takes in Sendmail."""
    return 2 * len(text) - len(text.translate(None, _TAKES_TWO))


def _end(pattern: re.Pattern[bytes], value: bytes, start: int) -> int:
    """Where what the pattern matches from there ends; it matches nothing at all too."""
    found = pattern.match(value, start)
    return found.end() if found else start
