"""SPF records: from their text (RFC 7208 sections 4.6.1, 5, 6 and 12) to a form that is quick to evaluate.

The whole record is checked before anything of it is evaluated, as section 4.6 asks.  Parsing is linear in the size of
the record, which is bounded, and depends on nothing else, so what came out is kept for the next message.
"""

import re
from functools import lru_cache
from socket import AF_INET, AF_INET6, AddressFamily, inet_pton
from typing import NamedTuple

from authmilter.evidence import Result

_MAX_RECORD = 8192  # octets; a longer record is refused.  The longest in use have about half of that
_MAX_DOMAIN_SPEC = 512  # octets; bounds the number of macros in a name, which has 253 at most
_MAX_EXPLANATION = 1024  # octets
_CACHED_RECORD = 1024  # octets; longer ones are rare, and would let an attacker fill the memory


class Macro(NamedTuple):
    """A macro that is expanded per message (RFC 7208 section 7.1).

    `letter` is lower case.  `keep` is the number of right-hand parts that stay, 0 for all.  `escape` is URL escaping,
    asked for by a capital letter.
    """

    letter: str
    keep: int
    reverse: bool
    delimiters: str
    escape: bool


MacroString = tuple[str | Macro, ...]
DomainSpec = str | MacroString  # str: no macro in it, a name as query_name() makes it


class Mechanism(NamedTuple):
    """A directive (RFC 7208 section 4.6.1).

    `name` is one of ``all include a mx ptr exists ip4 ip6``.  `qualifier` is the result if it matches.  `target` None
    stands for the domain of the record.  `network` is the address of ip4 and ip6, shifted right already.  `shift4` and
    `shift6` are the numbers of host bits, which are not compared.  `text` is for people, and safe to show.
    """

    name: str
    qualifier: Result
    target: DomainSpec | None
    network: int
    shift4: int
    shift6: int
    text: str


class Record(NamedTuple):
    """A parsed record.  `error` says why it is none ("" if it is one), and then the rest is empty."""

    mechanisms: tuple[Mechanism, ...]
    redirect: DomainSpec | None
    explanation: DomainSpec | None
    error: str


class _SyntaxError(ValueError):
    """A term that the grammar does not know; the text says why."""


def is_spf(record: bytes) -> bool:
    """Whether a TXT record is an SPF record (RFC 7208 section 4.5): the version, then a space or the end."""
    return record[:6].lower() == b"v=spf1" and record[6:7] in (b"", b" ")


def parse(record: bytes) -> Record:
    """Parse a TXT record for which `is_spf` holds.  Never raises: see `Record.error`."""
    return _parse_cached(record) if len(record) <= _CACHED_RECORD else _parse(record)


def parse_explanation(text: bytes) -> MacroString | None:
    """Parse the explanation string that exp= points to (RFC 7208 section 6.2); None if it can't be used."""
    if len(text) > _MAX_EXPLANATION or not text.isascii():
        return None
    string = text.decode("ascii")
    if not string.isprintable():
        return None
    try:
        return _macro_string(string, _DOMAIN_LETTERS + "crt")[0]
    except _SyntaxError:
        return None


def query_name(expanded: str) -> str:
    """The name that is asked for an expanded domain-spec: lower case, no final dot, "" if no question can be made.

    RFC 7208 section 4.3 and 4.8 leave open what becomes of names with empty or overlong labels: they match nothing here.
    """
    # RFC 8616 section 4: what a local-part outside ASCII expands to never matches.
    if not expanded.isascii() or not expanded.isprintable():
        return ""
    name = expanded.removesuffix(".").lower()
    if len(name) > 253:
        # RFC 7208 section 7.3: labels are dropped on the left until the name fits.
        dot = name.find(".", len(name) - 254)
        name = name[dot + 1 :] if dot >= 0 else ""
    return name if all(0 < len(label) < 64 for label in name.split(".")) else ""


def _parse(record: bytes) -> Record:
    if len(record) > _MAX_RECORD:
        return _broken(f"more than {_MAX_RECORD} octets")
    # RFC 7208 section 3.1 and 12: US-ASCII; terms are separated by spaces and by nothing else.
    if not record.isascii():
        return _broken("not in US-ASCII")
    text = record.decode("ascii")
    if not text.isprintable():
        return _broken("control character")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, DomainSpec] = {}
    for term in text[6:].split(" "):
        if not term:
            continue
        name, equals, value = term.partition("=")
        try:
            if not equals or not _MODIFIER_NAME.fullmatch(name):
                mechanisms.append(_mechanism(term))
            elif (modifier := name.lower()) not in ("redirect", "exp"):
                # RFC 7208 section 6: an unknown modifier is ignored, but must be a macro-string.
                _macro_string(value, _DOMAIN_LETTERS)
            elif modifier in modifiers:
                return _broken(f"{modifier}= is given twice")  # RFC 7208 section 6
            else:
                modifiers[modifier] = _domain_spec(value)
        except _SyntaxError as error:
            return _broken(f"{_shown(term, 'a term')}: {error}")
    return Record(tuple(mechanisms), modifiers.get("redirect"), modifiers.get("exp"), "")


_parse_cached = lru_cache(maxsize=1024)(_parse)

_QUALIFIERS = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}
_DOMAIN_LETTERS = "slodiphv"  # RFC 7208 section 7.2: c, r and t are for explanations only
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
_MODIFIER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_MECHANISM_NAME = re.compile(r"[A-Za-z0-9]*")
_MACRO = re.compile(r"([A-Za-z])([0-9]*)([rR]?)([.\-+,/_=]*)")
_LABEL_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/+~?=-]{1,80}")


def _broken(error: str) -> Record:
    return Record((), None, None, error)


def _shown(term: str, otherwise: str) -> str:
    """A term of the record if it is short and harmless enough for a log line, a header field or an SMTP reply."""
    return term if _PLAIN.fullmatch(term) else otherwise


def _mechanism(term: str) -> Mechanism:
    qualifier = _QUALIFIERS.get(term[0])
    directive = term if qualifier is None else term[1:]
    matched = _MECHANISM_NAME.match(directive)
    name = matched.group().lower() if matched else ""
    rest = directive[len(name) :]
    target: DomainSpec | None = None
    network = 0
    prefix4, prefix6 = 32, 128
    if name in ("ip4", "ip6") and rest[:1] == ":":
        address, slash, prefix = rest[1:].partition("/")
        if name == "ip4":
            prefix4 = _prefix(prefix, 32) if slash else 32
            network = _address(AF_INET, address) >> (32 - prefix4)
        else:
            prefix6 = _prefix(prefix, 128) if slash else 128
            network = _address(AF_INET6, address) >> (128 - prefix6)
    elif name in ("a", "mx"):
        rest, prefix4, prefix6 = _split_prefixes(rest)
        if rest:
            target = _target(rest)
    elif name in ("include", "exists"):
        target = _target(rest)
    elif name == "ptr":
        target = _target(rest) if rest else None
    elif name != "all" or rest:
        raise _SyntaxError("not a mechanism")
    sign = "" if qualifier is None else term[0]
    return Mechanism(
        name,
        qualifier or Result.PASS,
        target,
        network,
        32 - prefix4,
        128 - prefix6,
        _shown(term, sign + name),
    )


def _target(rest: str) -> DomainSpec:
    if rest[:1] != ":":
        raise _SyntaxError("not a mechanism" if rest else "no domain")
    return _domain_spec(rest[1:])


def _split_prefixes(rest: str) -> tuple[str, int, int]:
    """Take a dual-cidr-length (RFC 7208 section 5.6) off the end; a domain-spec may have slashes of its own."""
    prefix4, prefix6 = 32, 128
    head, slashes, digits = rest.rpartition("//")
    if slashes and digits.isdigit():
        rest, prefix6 = head, _prefix(digits, 128)
    head, slashes, digits = rest.rpartition("/")
    if slashes and digits.isdigit():
        rest, prefix4 = head, _prefix(digits, 32)
    return rest, prefix4, prefix6


def _prefix(digits: str, most: int) -> int:
    # RFC 7208 section 5.6: no leading zeros, and what is too long is a syntax error.
    if not digits.isdigit() or len(digits) > 3 or (digits[0] == "0" and digits != "0") or int(digits) > most:
        raise _SyntaxError(f"the prefix length is not 0 to {most}")
    return int(digits)


def _address(family: AddressFamily, text: str) -> int:
    try:
        # Strict, as RFC 7208 section 5.6 is: four decimal octets without leading zeros, no zone behind IPv6.
        return int.from_bytes(inet_pton(family, text), "big")
    except OSError:
        raise _SyntaxError("not an IP address of that kind") from None


def _domain_spec(text: str) -> DomainSpec:
    """``domain-spec = macro-string domain-end`` (RFC 7208 section 7.1)."""
    if len(text) > _MAX_DOMAIN_SPEC:
        raise _SyntaxError(f"more than {_MAX_DOMAIN_SPEC} octets")
    parts, tail = _macro_string(text, _DOMAIN_LETTERS)
    if tail or not parts:
        # domain-end is a macro-expand, or else a dot and a toplabel.
        _, dot, label = tail.removesuffix(".").rpartition(".")
        if not dot or not _is_toplabel(label):
            raise _SyntaxError("the domain does not end in a dot and a top-level label")
    literals = [part for part in parts if isinstance(part, str)]
    return query_name("".join(literals)) if len(literals) == len(parts) else parts


def _is_toplabel(label: str) -> bool:
    """Letters, digits and inner hyphens, not digits alone (RFC 7208 section 7.1)."""
    return (
        _LABEL_CHARACTERS.issuperset(label)
        and not label.isdigit()
        and label[:1] not in ("", "-")
        and not label.endswith("-")
    )


def _macro_string(text: str, letters: str) -> tuple[MacroString, str]:
    """``macro-string`` (RFC 7208 section 7.1) of printable US-ASCII, and the text behind its last macro-expand.

    `letters` are the macros that are allowed.
    """
    parts: list[str | Macro] = []
    position = 0
    while (percent := text.find("%", position)) >= 0:
        parts.append(text[position:percent])
        follower = text[percent + 1 : percent + 2]
        if follower == "{":
            brace = text.find("}", percent)
            if brace < 0:
                raise _SyntaxError("a macro without end")
            parts.append(_macro(text[percent + 2 : brace], letters))
            position = brace + 1
        elif follower in _ESCAPES:
            parts.append(_ESCAPES[follower])
            position = percent + 2
        else:
            raise _SyntaxError("a percent sign that begins no macro")
    tail = text[position:]
    return tuple(part for part in (*parts, tail) if part), tail


def _macro(text: str, letters: str) -> Macro:
    matched = _MACRO.fullmatch(text)
    if matched is None or matched[1].lower() not in letters:
        raise _SyntaxError("an unknown macro")
    letter, digits, reverse, delimiters = matched.groups()
    keep = 0
    if digits:
        digits = digits.lstrip("0")
        if not digits:
            raise _SyntaxError("a macro of zero parts")  # RFC 7208 section 7.3
        keep = int(digits) if len(digits) < 4 else 0  # no name has a thousand labels
    return Macro(letter.lower(), keep, bool(reverse), delimiters or ".", letter.isupper())
