"""Authentication-Results: writing ours, and finding those that others wrote in our name (RFC 8601)."""

import re
from collections.abc import Sequence
from functools import lru_cache

from authmilter.addresses import comment_end, to_ascii_domain
from authmilter.evidence import AuthResult
from authmilter.model import Message
from authmilter.verdict import HeaderEdit

NAME = "Authentication-Results"
MAX_VALUE = 256  # characters of a value or reason that are written
MAX_LINE = 200  # characters after which a line is folded; RFC 5322 section 2.1.1 allows 998
MAX_PREFIX = 4096  # octets of a foreign field in which authserv-id and version have to be found

# ------------------------------------------------------------------------------------------------------------ writing

_UNPRINTABLE = re.compile(r"[^ -~]")
# What may stand without quotes (RFC 2045 section 5.1).  Apostrophes and backticks could too, but some readers take them
# for quotes ("legit.example'a.attack.example" as a domain), and a quoted-string is always right.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&*+.^_{|}~-]++")
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_ATOM = "[A-Za-z0-9!#$%&*+/=?^_{|}~-]++"
# RFC 8601 section 2.2: a pvalue is a token, or [ [ local-part ] "@" ] domain-name.
_PVALUE = re.compile(rf"{_TOKEN.pattern}|(?:{_ATOM}(?:\.{_ATOM})*+)?@{_LABEL}(?:\.{_LABEL})+")


def render(authserv_id: str, results: Sequence[AuthResult]) -> str:
    """The value of an Authentication-Results field, folded by LF and TAB, each result on a line of its own.

    Control characters and what is not ASCII become ``?``, long values are cut, and properties without a value are left
    out.  No results give ``none``.
    """
    lines = [_written(authserv_id, _TOKEN).lower()]
    for result in results:
        method = result.method
        clause = ("spf" if method == "spf_helo" else method) + "=" + result.result
        if result.reason:
            clause += " reason=" + _written(result.reason, _TOKEN)
        words = [clause]
        for name, value in result.properties.items():
            if value:
                words.append(name + "=" + _written(value, _PVALUE))
        clause = " ".join(words)
        lines.append(clause if len(clause) <= MAX_LINE else _folded(words))
    return ";\n\t".join(lines) if results else lines[0] + "; none"


def _written(text: str, bare: re.Pattern[str]) -> str:
    """The text as it is where `bare` matches, else as the quoted-string of RFC 8601 section 2.2 that nothing can leave."""
    if len(text) > MAX_VALUE:
        text = text[: MAX_VALUE - 3] + "..."  # so that what is left is not taken for a shorter domain
    if bare.fullmatch(text):
        return text
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text + '"'


def _folded(words: Sequence[str]) -> str:
    """The words on as many lines as they need."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < MAX_LINE:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return "\n\t".join(lines)


# ------------------------------------------------------------------------------------------------------------ reading

_AUTHSERV_ID = re.compile(rb"""([A-Za-z0-9!#$%&'*+.^_`{|}~\x80-\xff-]++)|"((?:[^"\\\x00-\x1f\x7f]|\\[ -~])*+)\"""")
_BLANK = re.compile(rb"[ \t\r\n]*+")
_DIGITS = re.compile(rb"[0-9]++")
_NAME = re.compile(rb"[!-~]+")  # RFC 5322 section 2.2
# draft-brand-indicators-for-message-identification: the receiver MUST remove or rename those that are there already.
_BIMI = (b"bimi-location", b"bimi-indicator")
_QUOTED_PAIR = re.compile(rb"\\(.)")


def claims(field_value: bytes, ours: frozenset[str]) -> bool:
    """Whether a field from outside must go (RFC 8601 section 5).

    It must if it claims one of our authserv-ids, whatever its case, quotes, comments, final dot and encoding; if its
    version is not 1; and if no authserv-id can be made out, since a lenient reader may make out ours.
    """
    text = field_value[:MAX_PREFIX]
    start = after_cfws(text, 0)
    found = _AUTHSERV_ID.match(text, start) if start >= 0 else None
    if found is None:
        return True
    at = after_cfws(text, found.end())
    version = _DIGITS.match(text, at) if at >= 0 else None
    if version is not None:
        at = after_cfws(text, version.end())
    if at < 0 or text[at : at + 1] != b";" or (version is not None and version[0] != b"1"):
        return True
    try:
        authserv_id = (found[1] or _QUOTED_PAIR.sub(rb"\1", found[2])).decode()
    except UnicodeDecodeError:
        return True
    return _canonical(authserv_id) in _canonical_set(ours)


def after_cfws(text: bytes, at: int) -> int:
    """Where the next word starts, past white space and comments (RFC 5322 section 3.2.2); -1 if a comment does not end."""
    while True:
        blank = _BLANK.match(text, at)
        assert blank is not None  # it may be empty
        at = blank.end()
        if text[at : at + 1] != b"(":
            return at
        at = comment_end(text, at)
        if not at:
            return -1


def _canonical(authserv_id: str) -> str:
    text = authserv_id.strip()
    # RFC 8601 section 5: U-labels and A-labels of a name are the same.
    return to_ascii_domain(text) or text.lower().removesuffix(".")


@lru_cache(maxsize=16)
def _canonical_set(ours: frozenset[str]) -> frozenset[str]:
    return frozenset(_canonical(authserv_id) for authserv_id in ours)


_WATCHED = (b"authentication-results", b"x-spam-", *_BIMI)  # how the names start


def is_watched(name: bytes) -> bool:
    """Is it the name of a field that `forged` may have to take away?"""
    key = name.strip(b" \t").lower()
    return key == b"authentication-results" or key in _BIMI or key.startswith(b"x-spam-")


def forged(message: Message, ours: frozenset[str], inside: bool) -> list[HeaderEdit]:
    """Deletions of what only we may have written, last field first, so that none shifts the count of another.

    These are the Authentication-Results fields for which `claims` is true, and, unless the message comes from
    `inside`, every X-Spam field, and the fields with which a receiver tells mail readers whose logo to show.  It is for
    the caller to leave alone what a trusted relay wrote.
    """
    positions: list[tuple[int, int]] = []
    for name in message.index:
        if not name.startswith(_WATCHED):
            continue  # nearly always
        places = message.index[name]
        if name == b"authentication-results":
            positions += [
                (place, nth) for nth, place in enumerate(places, 1) if claims(message.fields[place].value, ours)
            ]
        elif not inside and (name in _BIMI or (name.startswith(b"x-spam-") and _NAME.fullmatch(name))):
            positions += [(place, nth) for nth, place in enumerate(places, 1)]
    if not positions:
        return []
    return [
        HeaderEdit("delete", nth, message.fields[place].name.strip(b" \t").decode("ascii"))
        for place, nth in sorted(positions, reverse=True)
    ]
