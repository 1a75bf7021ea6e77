"""Address fields as Sendmail sends them, for signatures of ours to be held against.

Sendmail parses the fields that hold addresses and writes them anew, after it has shown the message to filters.  White space
alone does no harm to a signature with relaxed canonicalisation; what it does besides is done here as well, as far as it
is the same everywhere: observed of Sendmail 8.17 (`commaize` and `crackaddr` in its sources).  Not done: a domain for
addresses that have none, and what MASQUERADE_AS and the like make of them.
"""

import re

from authmilter.auth.canonical import relaxed_field
from authmilter.model import HeaderField, Message

MAX_REWRITTEN = 128 * 1024  # octets of such fields of a message that are looked at; they take up to 0.5 us each
NAMES = (
    b"from", b"sender", b"reply-to", b"to", b"cc", b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to",
    b"resent-cc", b"disposition-notification-to",
)  # fmt: skip
_QUOTED = b"@;\\[].'"  # what Sendmail wants in quotes in front of <address>; its MustQuoteChars, but for : and ,
_LEXEME = re.compile(rb'"(?:[^"\\]|\\.)*+"?|\\.?|[(),<>]|[^"\\(),<>]++', re.DOTALL)


def as_sent(message: Message) -> Message:
    """The message with the fields that Sendmail changes as it will send them; what is known of the body is kept."""
    fields = list(message.fields)
    room = MAX_REWRITTEN
    for name in NAMES:
        for position in message.index.get(name, ()):
            field = fields[position]
            room -= len(field.value)
            if room < 0:
                break
            rewritten = HeaderField(field.name, b" " + rewrite(field.value))
            if relaxed_field(rewritten) != relaxed_field(field):
                fields[position] = rewritten
    return Message(
        tuple(fields),
        body_size=message.body_size,
        body_hashes=message.body_hashes,
        oversized=message.oversized,
    )


def rewrite(value: bytes) -> bytes:
    """The value of an address field with one blank after each comma, and with quotes where Sendmail adds them."""
    elements: list[bytes] = []
    start = depth = 0
    angle = -1  # where <address> begins, of this element
    # Within angle brackets; something before them must be quoted; the name of a group ends there, and is left as it is.
    inside = special = group = False
    for lexeme in _LEXEME.finditer(value):
        text = lexeme[0]
        if text == b"(":
            depth += 1
        elif text == b")":
            depth -= depth > 0
        elif depth:
            continue
        elif text == b"<" and angle < 0:
            angle, inside = lexeme.start(), True
        elif text == b">":
            inside = False
        elif text == b"," and not inside:
            elements.append(_element(value[start : lexeme.start()], angle - start, special and not group))
            start, angle, special, group = lexeme.end(), -1, False, False
        elif angle < 0 and text[:1] != b'"':
            special = special or text.translate(None, _QUOTED) != text
            group = group or b":" in text
    elements.append(_element(value[start:], angle - start, special and not group))
    return b", ".join(filter(None, elements))


def _element(text: bytes, angle: int, special: bool) -> bytes:
    """One address of a list; `angle` is where its angle bracket is, below 0 if it has none."""
    if angle > 0 and special:
        phrase = text[:angle].strip()
        blank = b"" if text[:angle].endswith(phrase) else b" "
        if phrase:
            text = b'"' + phrase.replace(b'"', b'\\"') + b'"' + blank + text[angle:]
    return text.strip()
