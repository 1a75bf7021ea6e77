"""Names, zones and answers of DNS lists, as [dnsbl NAME] and [dnswl NAME] have them.

As in `endpoint`, each function for `option(each=...)` returns a normal form, and raises ValueError with a message for
people.
"""

import re
from itertools import groupby
from typing import NamedTuple

from authmilter.config.endpoint import domain
from authmilter.config.option import shown

_NAME = re.compile(r"[a-z0-9_]{1,32}")
_LONGEST_ZONE = 120  # octets: an IPv6 address takes 64 of the 253 that a name may have, and a key up to 64

_OCTET = r"(\d{1,3}|\[[\d.;]{1,520}\]|\[&\d{1,3}\])"
_PATTERN = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}", re.ASCII)
_RANGE = re.compile(r"(\d{1,3})(?:\.\.(\d{1,3}))?", re.ASCII)
_ANY = frozenset(range(256))
# Of lists that are several in one, whose answer is the sum of those that have it.
_BITS = {frozenset(n for n in _ANY if n & bit): bit for bit in (1, 2, 4, 8, 16, 32, 64, 128)}

Octets = frozenset[int]


class Pattern(NamedTuple):
    """Answers of a list: what the second, third and fourth octet of the address may be; the first is 127."""

    second: Octets
    third: Octets
    fourth: Octets

    def __str__(self) -> str:
        return "127." + ".".join(map(_written, self))

    @property
    def suffix(self) -> str:
        """The answers as part of a symbol: ``_10`` for 127.0.0.10, ``_2to11`` for 127.0.0.[2..11], ``_bit8`` for
        127.0.0.[&8], ``_x_3`` for 127.0.[0..255].3.

        Octets that are 0 are left out in front of others.
        """
        words = [_word(octets) for octets in self]
        while len(words) > 1 and words[0] == "0":
            del words[0]
        return "".join(f"_{word}" for word in words)


def parse_pattern(text: str) -> Pattern:
    """Read an answer as Postfix writes it: ``127.0.0.2``, ``127.0.0.[2..11]``, ``127.0.[0..255].[2;4..8]``.

    And ``127.0.0.[&8]`` for all numbers with that bit.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{shown(text)} is not an answer such as 127.0.0.2, 127.0.0.[2..11] or 127.0.[0..255].[2;4..8]"
        )
    first, *others = (_octets(text, octet) for octet in found.groups())
    pattern = Pattern(*others)
    if first != {127}:
        raise ValueError(f"{shown(text)} is outside of 127.0.0.0/8: a list that answers so is out of order")
    if pattern.second == pattern.third == {255}:
        raise ValueError(f"{shown(text)}: with 127.255.255.x a list refuses a question, and lists nobody")
    return pattern


def answer(text: str) -> str:
    """Normal form of an answer, see `parse_pattern`."""
    return str(parse_pattern(text))


def list_name(text: str) -> str:
    """The NAME of [dnsbl NAME]."""
    name = text.lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{shown(text)} is not a name of up to 32 letters, digits and '_'")
    return name


def zone(text: str) -> str:
    """The zone of a list."""
    name = domain(text)
    if len(name) > _LONGEST_ZONE:
        raise ValueError(f"{shown(text)} is longer than the {_LONGEST_ZONE} octets that a zone of addresses may have")
    return name


def _octets(text: str, octet: str) -> Octets:
    if octet.startswith("[&"):
        bits = {f"[&{bit}]": octets for octets, bit in _BITS.items()}
        if octet not in bits:
            raise ValueError(f"{shown(text)} has an octet {shown(octet)}, which is none of [&1], [&2], [&4] to [&128]")
        return bits[octet]
    found: set[int] = set()
    for part in octet.strip("[]").split(";"):
        span = _RANGE.fullmatch(part)
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (1, 0)
        if not first <= last <= 255:
            raise ValueError(f"{shown(text)} has an octet {shown(octet)}, which is no number or range in 0..255")
        found.update(range(first, last + 1))
    return frozenset(found)


def _runs(octets: Octets) -> list[tuple[int, int]]:
    """First and last of the numbers that follow each other."""
    runs = []
    for _, group in groupby(enumerate(sorted(octets)), lambda entry: entry[1] - entry[0]):
        numbers = [number for _, number in group]
        runs.append((numbers[0], numbers[-1]))
    return runs


def _joined(octets: Octets, to: str, otherwise: str) -> str:
    return otherwise.join(str(first) if first == last else f"{first}{to}{last}" for first, last in _runs(octets))


def _written(octets: Octets) -> str:
    if octets in _BITS:
        return f"[&{_BITS[octets]}]"
    text = _joined(octets, "..", ";")
    return f"[{text}]" if len(octets) > 1 else text


def _word(octets: Octets) -> str:
    if octets in _BITS:
        return f"bit{_BITS[octets]}"
    return "x" if octets == _ANY else _joined(octets, "to", "or")
