"""Header fields as a reader is shown them: without folds, decoded, and names apart from addresses.

For heuristics alone: what decides about identity goes by `addresses.author`.  Each text is made once per message.
"""

from functools import lru_cache

from authmilter.addresses import Author, author, decode_words, read_mailboxes
from authmilter.model import Message

MAX_VALUE = 4096  # octets of a field that are looked at

_LIST_FIELDS = (b"list-id", b"list-post", b"mailing-list")
# Second-level domains below which others register, as in example.co.uk.
_SECOND_LEVEL = frozenset(
    ("ac", "co", "com", "edu", "gob", "gouv", "gov", "ltd", "me", "mil", "ne", "net", "nom", "or", "org", "plc", "sch")
)


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
    """The same decoded (RFC 2047); octets that are no UTF-8 become U+FFFD."""
    texts = message.derived.get("header_text")
    if not isinstance(texts, dict):
        texts = message.derived["header_text"] = {}
    found: str | None = texts.get(name)
    if found is None:
        found = texts[name] = shown(value(message, name))
    return found


def shown(raw: bytes) -> str:
    """A value without folds, decoded."""
    return (decode_words(raw) if b"=?" in raw else raw).decode("utf-8", "replace")


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
    return shown(raw.replace(b'"', b"")).strip(" '\\()")


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
    return any(name in index for name in _LIST_FIELDS)


@lru_cache(maxsize=4096)
def site(domain: str) -> str:
    """The part of a lower-case domain that somebody registered, as far as one can tell without asking the DNS.

    RFC 9989 section 4.10 has the right way, which takes questions.  Here a guess will do, since it decides nothing alone.
    """
    labels = domain.split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])
