"""The words of what a message shows, made once for all who ask."""

import re
from itertools import islice
from typing import NamedTuple

from authmilter.header_text import text as field_text
from authmilter.mime import Part, parts
from authmilter.model import Message

MAX_PARTS = 50
MAX_TEXTS = 8  # text parts that are read
MAX_TEXT = 32768  # characters of each
MAX_WORDS = 2000  # of each

# A word is a run of letters, digits and these signs; whatever is beyond ASCII is a letter, in UTF-8.
_LETTERS = bytes(
    octet if octet >= 0x80 or chr(octet).isalnum() or chr(octet) in "$'%!" else 0x20 for octet in range(256)
).lower()
# What is written without blanks (Chinese, Japanese, Korean) has a word in each letter.
_IDEOGRAPH = re.compile(rb"[\xe3-\xed][\x80-\xbf]{2}")
_WORD = re.compile(rb"[\xe3-\xed][\x80-\xbf]{2}|!|[0-9a-z$'%\x80-\xe2\xee-\xff]+")
# Signs that are no letters, and those that can't be seen, by which a word may be hidden.
_SIGNS = (
    *((sign, " ") for sign in "\u00a0\u2013\u2014\u201c\u201d\u2026\u2022"),
    ("\u2019", "'"),
    *((sign, "") for sign in "\u00ad\u200b\u200c\u200d\u2060\ufeff"),
)


class Words(NamedTuple):
    """The words of a text part, in lower case and UTF-8: as they follow each other, and which there are."""

    part: Part
    in_order: list[bytes]
    different: frozenset[bytes]


def text_words(message: Message) -> tuple[Words, ...]:
    """Those of the first text parts; what not all readers show comes last, so that it can't crowd out what they do."""
    known = message.content.get("text_words")
    if not isinstance(known, tuple):
        texts = [one for one in islice(parts(message), MAX_PARTS) if one.is_leaf and one.type.startswith("text/")]
        texts.sort(key=_is_beside)
        known = message.content["text_words"] = tuple([_of(one) for one in texts[:MAX_TEXTS]])
    return known


def subject_words(message: Message) -> list[bytes]:
    """Those of Subject, in their order."""
    return words(field_text(message, b"subject"))


def words(text: str) -> list[bytes]:
    """The first words of a text, in their order."""
    text = text[:MAX_TEXT]
    if text.isascii():
        raw = text.encode().translate(_LETTERS)
    else:
        for sign, instead in _SIGNS:
            text = text.replace(sign, instead)
        # A character that UTF-8 can't write stands for an octet that could not be read.
        raw = text.lower().encode("utf-8", "replace").translate(_LETTERS)
        if _IDEOGRAPH.search(raw):
            return _WORD.findall(raw)[:MAX_WORDS]
    if b"!" in raw:
        raw = raw.replace(b"!", b" ! ")
    return raw.split(None, MAX_WORDS)[:MAX_WORDS]


def _is_beside(part: Part) -> bool:
    return part.kind != "part"


def _of(part: Part) -> Words:
    in_order = words(part.text if part.html is None else part.html.text)
    return Words(part, in_order, frozenset(in_order))
