"""Header fields as a reader is shown them: without folds, decoded, and names apart from addresses.

For heuristics alone: what decides about identity goes by `addresses.author`.  Each text is made once per message.
"""

import re
from functools import lru_cache

from authmilter.addresses import Author, author, read_mailboxes
from authmilter.mime_fields import decode_words
from authmilter.model import Message

MAX_VALUE = 4096  # octets of a field that are looked at

# What lists, and whoever claims to be one, get of the weight of things that lists do by their nature.
LIST_SHARE = 0.3

_EXCERPT = 60  # octets of a field that are shown to the administrator
_BASE64 = re.compile(rb"=\?[^?]{1,64}\?[bB]\?")
# Second-level domains below which others register, as in example.co.uk.
_SECOND_LEVEL = frozenset(
    (
        "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "govt", "ltd", "me", "mil", "ne", "net", "nom", "or", "org",
        "plc", "sch",
    )
)  # fmt: skip
# Domains below which each customer has one of his own to write from.
_SHARED = frozenset(("onmicrosoft.com",))


def value(message: Message, name: bytes) -> bytes:
    """The first field of that (lower-case) name without folds, and without white space around it; b"" if there is none."""
    positions = message.index.get(name)
    if positions is None:
        return b""
    raw = message.fields[positions[0]].value
    if len(raw) > MAX_VALUE:
        raw = raw[:MAX_VALUE]
    if b"\r" in raw:
        raw = b" ".join([line.strip(b" \t") for line in raw.split(b"\r\n")])
    return raw.strip(b" \t")


def text(message: Message, name: bytes) -> str:
    """The same decoded (RFC 2047), raw octets as UTF-8, or as windows-1252 where they are none."""
    texts = message.derived.get("header_text")
    if not isinstance(texts, dict):
        texts = message.derived["header_text"] = {}
    found: str | None = texts.get(name)
    if found is None:
        found = texts[name] = shown(value(message, name))
    return found


def shown(raw: bytes) -> str:
    """A value without folds, decoded."""
    return raw.decode() if raw.isascii() and b"=?" not in raw else decode_words(raw)


def excerpt(raw: bytes) -> str:
    """The beginning of a value as it was written, for the detail of a finding."""
    return raw[:_EXCERPT].decode("utf-8", "backslashreplace")


def has_needless_base64(message: Message, name: bytes, decoded: str) -> bool:
    """Is the field, which reads so when it is decoded, all ASCII, and in base64 nevertheless?"""
    return decoded.isascii() and _BASE64.search(value(message, name)) is not None


def display_name(message: Message) -> str:
    """What From says beside the address: names and comments, decoded, without quotes; "" if nothing.

    Where no address can be made out it is all of it.
    """
    found = message.derived.get("display_name")
    if not isinstance(found, str):
        found = message.derived["display_name"] = _display_name(message)
    return found


def _display_name(message: Message) -> str:
    raw = value(message, b"from")
    mailboxes = author(message).mailboxes
    if mailboxes:
        before, _, after = raw.rpartition(bytes(mailboxes[0]))
        raw = before.rstrip(b"< \t") + after.lstrip(b"> \t")
    # Readers are shown runs of blanks as one, and could else be shown what stands behind them, where no check looks.
    return " ".join(shown(raw.replace(b'"', b"")).split()).strip(" '\\()")


def reply_to(message: Message) -> Author:
    """The mailboxes of Reply-To, read once."""
    found = message.derived.get("reply_to")
    if not isinstance(found, Author):
        raw = message.first(b"reply-to")
        found = message.derived["reply_to"] = Author() if raw is None else read_mailboxes(raw.value)
    return found


def is_list(message: Message) -> bool:
    """Does the message say that a mailing list sent it (RFC 2919, RFC 2369)?  Anybody can say so."""
    index = message.index
    return b"list-id" in index or b"list-post" in index or b"mailing-list" in index


def is_via_list(message: Message) -> bool:
    """Does a list say that it put itself into From in place of the author, as in ``Alice via Talk <talk@lists.test>``?

    Lists do so for the sake of authors whose domains have a DMARC policy.
    """
    return is_list(message) and " via " in display_name(message).lower()


@lru_cache(maxsize=4096)
def site(domain: str) -> str:
    """The part of a lower-case domain that somebody registered, as far as one can tell without asking the DNS.

    RFC 9989 section 4.10 has the right way, which takes questions.  Here a guess will do, since it decides nothing alone.
    """
    labels = domain.split(".")
    registered = ".".join(labels[-2:])
    if len(labels) > 2 and ((len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL) or registered in _SHARED):
        return ".".join(labels[-3:])
    return registered
