"""Domains, SMTP paths (RFC 5321 section 4.1.2) and the author of a message (RFC 5322 section 3.6.2).

Everything here reads what a stranger wrote.  All of it is linear in the length of the input, and bounded: what is too
long is treated as what can't be parsed.
"""

import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import idna

from authmilter.mime_fields import base64_decoded
from authmilter.model import Mailbox, Message

MAX_FROM = 65536  # octets of a From field that are read
MAX_TOKENS = 4096  # lexical tokens in it
MAX_AUTHORS = 100  # addresses in it
MAX_NESTING = 50  # comments within comments
MAX_PATH = 1024  # octets of an SMTP path; RFC 5321 section 4.5.3.1.3 asks for 256

# ----------------------------------------------------------------------------------------------------------- domains

# Underscores and hyphens anywhere: host names forbid them, the DNS does not, and mail comes from such names.
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


def to_ascii_domain(raw: bytes | str) -> str:
    """The domain as it is compared and asked for: A-labels, lower case, no final dot; "" if it can't be a domain.

    U-labels are mapped by UTS 46 and encoded by RFC 5891; octets must be UTF-8.  Address literals, dotted quads, and
    whatever holds a character that no domain has, are no domains.
    """
    return _to_ascii_domain(raw) if len(raw) <= 1024 else ""


@lru_cache(maxsize=4096)
def _to_ascii_domain(raw: bytes | str) -> str:
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        text = text.lower() if text.isascii() else _to_a_labels(text)
    except UnicodeError:  # not UTF-8, or a label that IDNA forbids: idna.IDNAError is a UnicodeError
        return ""
    text = text.removesuffix(".")
    # RFC 1035 section 3.1: 255 octets on the wire are 253 in text.
    if len(text) > 253 or not _DOMAIN.fullmatch(text):
        return ""
    return "" if text[text.rfind(".") + 1 :].isdigit() else text  # RFC 3696 section 2: no top-level domain is a number


def _to_a_labels(text: str) -> str:
    labels = []
    room = 255
    for label in idna.uts46_remap(text, std3_rules=False, transitional=False).split("."):
        # An A-label is longer than its U-label.  What is too long is left here, since idna takes its time for each label.
        if len(label) > min(room, 63):
            raise UnicodeError("too long")
        labels.append(label if label.isascii() else idna.alabel(label).decode())
        room -= len(labels[-1]) + 1
    return ".".join(labels)


# ------------------------------------------------------------------------------------------------------------- paths

_LOCAL_PART = re.compile(
    rb'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*+"'  # Quoted-string
    rb"|[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]*+"  # Dot-string, with stray dots as some carriers give them out
)
_LITERAL = re.compile(rb"\[[A-Za-z0-9:.-]{1,100}\]")  # RFC 5321 section 4.1.3
_DOT_STRING = bytes(c for c in range(256) if _LOCAL_PART.fullmatch(bytes([c])))


def parse_path(raw: bytes) -> Mailbox | None:
    """Read the argument of MAIL or RCPT, with or without its angle brackets (RFC 5321 section 4.1.2).

    None is the null reverse-path ``<>`` and nothing else.  Whatever can't be parsed is a Mailbox without domain, whose
    local-part is all of it: it must never be taken for the null reverse-path.  An address literal stays in
    `raw_domain`, with `domain` "".
    """
    path = raw.strip(b" \t")
    if path == b"<>":
        return None
    if path.startswith(b"<") and path.endswith(b">"):
        path = path[1:-1]
    if len(path) > MAX_PATH:
        return Mailbox(path[:MAX_PATH], b"", "")
    local_part, _, raw_domain = path.rpartition(b"@")
    if local_part and not local_part.translate(None, _DOT_STRING):
        # What nearly all paths are: neither a route nor a quote nor another "@".
        domain = to_ascii_domain(raw_domain)
        if domain:
            return Mailbox(local_part, raw_domain, domain)
    return _parse_path(path)


def _parse_path(path: bytes) -> Mailbox:
    """By the whole grammar: a path without its angle brackets."""
    unusable = Mailbox(path, b"", "")
    if path.startswith(b"@") and b":" in path:
        # RFC 5321 section 4.1.1.3: a source route is to be accepted and ignored.
        route, _, path = path.partition(b":")
        if not all(hop.startswith(b"@") and to_ascii_domain(hop[1:]) for hop in route.split(b",")):
            return unusable
    local = _LOCAL_PART.match(path)
    if local is None:
        return unusable
    at = local.end()
    if at == len(path):
        return Mailbox(path, b"", "")  # RCPT TO:<postmaster>
    raw_domain = path[at + 1 :]
    domain = to_ascii_domain(raw_domain)
    if path[at] != 0x40 or not (domain or _LITERAL.fullmatch(raw_domain)):
        return unusable
    return Mailbox(local[0], raw_domain, domain)


# ------------------------------------------------------------------------------------------------------------ author

NO_ADDRESS = "no address"
DIFFER = "parsers may differ"
UNUSABLE = "domain can't be used"


class Author(NamedTuple):
    """Who wrote the message, by its From field.

    `domains` are the domains of all addresses, each once; `problem` is "" if there is exactly one and no doubt about
    it, else the reason in words.
    """

    domains: tuple[str, ...] = ()
    mailboxes: tuple[Mailbox, ...] = ()
    problem: str = ""


_CONTROLS = bytes(range(33)) + bytes(range(127, 256))


def is_from(name: bytes) -> bool:
    """May some program take a field of that name for From, although blanks or controls stand in it?"""
    return name.translate(None, _CONTROLS).lower() == b"from"


def author(message: Message) -> Author:
    """The author of the message, found once; see `_find`."""
    found = message.derived.get("author")
    if not isinstance(found, Author):
        found = message.derived["author"] = _find(message)
    return found


def _find(message: Message) -> Author:
    """Find the Author Domain (RFC 9989 section 5.3.1), unless two readers of the message might disagree about it.

    There must be one From field, and one domain in it.  Programs read a From field in different ways, and an attacker
    who knows two of them shows a victim another author than the one whom DMARC looked at.  So the field is read by the
    grammar of RFC 5322 section 3.4 without its obsolete addresses (routes, white space or comments within an address),
    and besides in the ways of programs that know less:

    * that look at every ``@`` outside quotes, wherever it stands;
    * that don't know comments;
    * that don't know backslashes;
    * that decode encoded words (RFC 2047) first, then split at commas, then take what is in angle brackets;
    * that look for angle brackets without knowing quotes.

    Any of them that finds another domain makes the field ambiguous.  An address in a quoted display name is legal and
    no other reading, as long as it does not stand in angle brackets there.  Free text around a single address in
    angle brackets (unquoted dots, commas, brackets) is common and does no harm.

    Group syntax, though RFC 6854 allows it, and domain literals have no Author Domain that can be looked up.  Sender
    and Resent-From are never looked at.
    """
    index = message.index
    names = b"".join(index)
    if len(names.translate(None, _CONTROLS)) < len(names):
        for name in index:
            # "From :" and the like: some programs take it for the From field, others do not see it.
            if name != b"from" and is_from(name):
                return Author(problem=DIFFER)
    positions = index.get(b"from", ())
    if not positions:
        return Author(problem="no From field")
    if len(positions) > 1:
        return Author(problem=f"{len(positions)} From fields")
    name, value = message.fields[positions[0]]
    if len(name) != 4:
        return Author(problem=DIFFER)
    return read_mailboxes(value)


def read_mailboxes(value: bytes) -> Author:
    """The mailboxes that the value of a From, or of another address field, names; as strict as `author`."""
    if len(value) > MAX_FROM:
        return Author(problem="From field too long")
    if b"\r" in value:
        value = value.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    if b"\r" in value or b"\n" in value or b"\x00" in value:
        return Author(problem="NUL, CR or LF in the From field")
    return _read(value)


# What nearly all mail has: "Name <local-part@domain>" or the address alone, with nothing that needs a second look.
_SIMPLE = re.compile(
    rb"""[ \t]*+
    (?: (?: "[^"\\<>]*+" | [^"\\(),:;<>@\[\]]*+ ) [ \t]*+
        < ([A-Za-z0-9!#$%&'*+/^_`{|}~.\x80-\xff-]++) @ ([A-Za-z0-9_.\x80-\xff-]++) >
    |     ([A-Za-z0-9!#$%&'*+/^_`{|}~.\x80-\xff-]++) @ ([A-Za-z0-9_.\x80-\xff-]++)
    ) [ \t]*+""",
    re.VERBOSE,
)


def _read(text: bytes) -> Author:
    simple = _SIMPLE.fullmatch(text)
    if simple is not None:
        local, raw_domain, local_alone, domain_alone = simple.groups()
        if local is None:
            local, raw_domain = local_alone, domain_alone
        domain = to_ascii_domain(raw_domain)
        mailbox = Mailbox(local, raw_domain, domain)
        if not domain:
            return Author((), (mailbox,), UNUSABLE)
        differ = b"=?" in text and not _agree(_decoded_readings(text), domain)
        return Author((domain,), (mailbox,), DIFFER if differ else "")
    tokens = _tokens(text)
    parts = None if tokens is None else _parts(tokens)
    if tokens is None or parts is None:
        return Author(problem=DIFFER)
    elements, group = parts
    mailboxes = _mailboxes(elements)
    if mailboxes is None:
        return Author(problem=DIFFER)
    found = _author(mailboxes, group)
    if not found.problem and not _unanimous(text, tokens, found.domains[0]):
        return found._replace(problem=DIFFER)
    return found


def _author(mailboxes: list[Mailbox], group: bool) -> Author:
    domains = tuple(dict.fromkeys(mailbox.domain for mailbox in mailboxes if mailbox.domain))
    return Author(domains[:MAX_AUTHORS], tuple(mailboxes[:MAX_AUTHORS]), _problem(mailboxes, domains, group))


def _problem(mailboxes: list[Mailbox], domains: tuple[str, ...], group: bool) -> str:
    if group:
        return "group"
    if not mailboxes:
        return NO_ADDRESS
    if len(mailboxes) > MAX_AUTHORS:
        return f"more than {MAX_AUTHORS} addresses"
    for mailbox in mailboxes:
        if not mailbox.domain:
            return "domain literal" if mailbox.raw_domain.startswith(b"[") else UNUSABLE
    return "several domains" if len(domains) > 1 else ""


class _Token(NamedTuple):
    kind: str  # "word", "quoted", or the character itself
    text: bytes
    start: int
    end: int


_LEXEME = re.compile(
    rb"""(?P<space>[ \t]++) | (?P<quoted>"(?:[^"\\]|\\.)*+") | (?P<word>[^ \t"(),.:;<>@\[\]\\]++) | (?P<special>.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT = re.compile(rb"[()]|\\.?", re.DOTALL)


def _tokens(text: bytes) -> list[_Token] | None:
    """Lexical tokens without white space and comments; None if a quote or comment does not end, or there are too many."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        lexeme = _LEXEME.match(text, at)
        assert lexeme is not None  # its last branch takes any octet
        kind, end = lexeme.lastgroup or "", lexeme.end()
        if kind == "special":
            if lexeme[0] == b"(":
                end = comment_end(text, at)
                kind = "space"
            else:
                kind = chr(text[at])
        if end == 0 or kind == '"' or len(tokens) == MAX_TOKENS:
            return None
        if kind != "space":
            tokens.append(_Token(kind, text[at:end], at, end))
        at = end
    return tokens


def comment_end(text: bytes, start: int) -> int:
    """Where the comment that starts there ends; 0 if it does not, or nests too deep."""
    depth = 0
    for mark in _IN_COMMENT.finditer(text, start):
        if mark[0] == b"(":
            depth += 1
        elif mark[0] == b")":
            depth -= 1
        if depth == 0:
            return mark.end()
        if depth > MAX_NESTING:
            break
    return 0


def _parts(tokens: Iterable[_Token]) -> tuple[list[list[_Token]], bool] | None:
    """Split at separators outside angle brackets, and tell whether it is a group; None if brackets don't pair."""
    elements: list[list[_Token]] = [[]]
    inside = colon = group = False
    for token in tokens:
        kind = token.kind
        if kind in "<>":
            if inside is (kind == "<"):
                return None
            inside = not inside
        elif kind in ",;:" and not inside:
            elements.append([])
            colon = colon or kind == ":"
            group = group or (colon and kind == ";")
            continue
        elements[-1].append(token)
    return None if inside else (elements, group)


def _mailboxes(elements: Iterable[list[_Token]]) -> list[Mailbox] | None:
    """The address of each element that has one; None if one of them is no plain address."""
    mailboxes = []
    for element in elements:
        kinds = [token.kind for token in element]
        address = element
        if "<" in kinds:
            if kinds.count("<") > 1:
                return None
            address = element[kinds.index("<") + 1 : kinds.index(">")]
        if any(token.kind == "@" for token in address):
            mailbox = _address(address)
            if mailbox is None:
                return None
            mailboxes.append(mailbox)
    return mailboxes


def _address(tokens: list[_Token]) -> Mailbox | None:
    """An addr-spec (RFC 5322 section 3.4.1) without white space or comments within."""
    if any(left.end != right.start for left, right in pairwise(tokens)):
        return None
    kinds = [token.kind for token in tokens]
    at = kinds.index("@")
    local, domain = b"".join(t.text for t in tokens[:at]), b"".join(t.text for t in tokens[at + 1 :])
    if kinds[:at] != ["quoted"] and not (at and all(kind in {"word", "."} for kind in kinds[:at])):
        return None
    if not domain or not (all(kind in {"word", "."} for kind in kinds[at + 1 :]) or _LITERAL.fullmatch(domain)):
        return None
    if b"=?" in local or b"=?" in domain or (local.startswith(b'"') and _SPECIAL.search(local)):
        return None  # an encoded word, or an address in quotes: legal as a local-part, and read as something else
    return Mailbox(local, domain, to_ascii_domain(domain))


_SPECIAL = re.compile(rb"[@<>,:;()\\]")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_QUOTED_WITHOUT_ESCAPES = re.compile(rb'"[^"]*+"')
_AT_DOMAIN = re.compile(rb'([^ \t<>()",:;@]?)@([ \t]*+)([^ \t<>()\[\]",:;\\@]++)')
_IN_ANGLES = re.compile(rb"<([^<>]*+)")
_SEPARATOR = re.compile(rb"[,;]")


def _unanimous(text: bytes, tokens: Iterable[_Token], domain: str) -> bool:
    """Whether the other ways of reading find that domain and no other; see `author`."""
    readings = [_without_quotes_and_comments(tokens)]
    if b"(" in text:
        readings.append(_QUOTED.sub(b'""', text))
    if b"\\" in text:
        readings.append(_QUOTED_WITHOUT_ESCAPES.sub(b'""', text))
        readings.append(_QUOTED.sub(b'""', text).replace(b"\\", b""))  # an escape outside quotes, undone
    if b"<" in text:
        readings += _IN_ANGLES.findall(text)
    if b"=?" in text:
        readings += _decoded_readings(text)
    return _agree(readings, domain)


def _without_quotes_and_comments(tokens: Iterable[_Token]) -> bytes:
    pieces, end = [], 0
    for token in tokens:
        if token.start > end:
            pieces.append(b" ")
        pieces.append(b'""' if token.kind == "quoted" else token.text)
        end = token.end
    return b"".join(pieces)


def _decoded_readings(text: bytes) -> list[bytes]:
    decoded = decode_words(_QUOTED.sub(_keep_encoded, text))
    readings: list[bytes] = []
    for piece in _SEPARATOR.split(decoded):
        readings += _IN_ANGLES.findall(piece) if b"<" in piece else [piece]
    return readings


def _agree(readings: Iterable[bytes], domain: str) -> bool:
    for reading in readings:
        for before, blank, found in _AT_DOMAIN.findall(reading):
            # "Jane @ Work" is no address; what has no dot is no domain that mail could come from.
            words = (blank or not before) and b"." not in found.strip(b".")
            if not words and to_ascii_domain(found) != domain:
                return False
    return True


# ------------------------------------------------------------------------------------------------ encoded words

_ENCODED_WORD = re.compile(rb"=\?([^?]{1,64})\?([bBqQ])\?([^?]*+)\?=")
_BETWEEN_WORDS = re.compile(rb"\?=[ \t]++(?==\?)")
# Other codecs of Python are no character sets, or are slow on hostile input.
_CHARSET = re.compile(r"utf|iso|windows|cp1|koi|gb|hz|big5|euc|shift|ks_c|us-ascii", re.IGNORECASE)


def decode_words(text: bytes) -> bytes:
    """The text with its encoded words (RFC 2047) decoded to UTF-8; what can't be decoded stays as it is."""
    return _ENCODED_WORD.sub(_decoded, _BETWEEN_WORDS.sub(b"?=", text))


def _keep_encoded(quoted: re.Match[bytes]) -> bytes:
    return quoted[0][1:-1] if b"=?" in quoted[0] else b'""'


def _decoded(word: re.Match[bytes]) -> bytes:
    """What an encoded word says, as UTF-8 (RFC 2047)."""
    charset, encoding, content = word[1].partition(b"*")[0].decode("latin-1"), word[2], word[3]
    octets = base64_decoded(content) if encoding in b"bB" else binascii.a2b_qp(content, header=True)
    try:
        return octets.decode(charset if _CHARSET.match(charset) else "latin-1", "replace").encode("utf-8", "replace")
    except (LookupError, ValueError):
        return octets
