"""Options: how one is declared, and how each kind of value is read and written.

An option is a dataclass field made by `option()`; the field's annotation decides how its text is read:
``bool int float str Seconds Size FilePath Mode Workers Threshold Weight Names WeightedNames Networks Limits``, a
Literal of words, or ``bool | None``.  What is written reads back as the same value.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from fractions import Fraction
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NewType, TypeVar, get_args, get_origin, get_type_hints

from authmilter.networks import NameList, NetworkList
from authmilter.verdict import Action

T = TypeVar("T")

Seconds = NewType("Seconds", float)  # written 500ms 5s 10m 36h 30d
Size = NewType("Size", int)  # octets, written 64K 25M
FilePath = NewType("FilePath", str)  # "" is none
Mode = NewType("Mode", int)  # file mode, written in octal: 0660
Workers = NewType("Workers", int)  # a number of processes; `auto` reads as 0
Threshold = float | None  # a score; empty is None: off
Names = tuple[str, ...]  # by comma or line
Networks = tuple[IPv4Network | IPv6Network, ...]  # by comma or line
Weight = float | Action  # what a symbol is worth: a number, or the word of an action


class Weighted(NamedTuple):
    """An item of `WeightedNames`: ``TEXT`` or ``TEXT = WEIGHT``; the weight is None where none is written."""

    text: str
    weight: Weight | None = None


WeightedNames = tuple[Weighted, ...]  # by comma or line


@dataclass(frozen=True)
class Limit:
    """At most `count` of something in `period` seconds."""

    count: int
    period: float


Limits = tuple[Limit, ...]  # by comma or line, written 60/1m


def option(
    default: Any,
    help: str,  # noqa: A002  the word of argparse and of every manual
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    reload: bool = True,
    each: Callable[[str], str] | None = None,
    example: str = "",
) -> Any:
    """Declare an option.

    `help` is a sentence or two for sample and manual, `at_least` and `at_most` are bounds, and `reload` says whether
    SIGHUP is enough for a change.  `each` takes the text of a str, or of every item of Names and WeightedNames, and
    returns its normal form; it raises ValueError with a message that completes "VALUE ...".  `example` is the text that
    the sample shows for an option that must be set.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "at_least": at_least,
            "at_most": at_most,
            "reload": reload,
            "each": each,
            "example": example,
        },
    )


class Kind(NamedTuple):
    """One kind of value: `form` is its name in the manual; `read` raises ValueError with a message for people."""

    form: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


class Option(NamedTuple):
    """An option as declared."""

    name: str
    kind: Kind
    default: Any
    help: str
    at_least: float | None
    at_most: float | None
    reload: bool
    each: Callable[[str], str] | None
    example: str

    def read(self, text: str) -> Any:
        """The value of `text`, within the bounds; raises ValueError with a message for people."""
        value = self.kind.read(text)
        if self.each is not None and value:
            value = self.each(value) if isinstance(value, str) else type(value)(_all(self._normal, value))
        if self.at_least is not None and value is not None and value < self.at_least:
            raise ValueError(f"{shown(text)} is too small, the least is {self.write(self.at_least)}")
        if self.at_most is not None and value is not None and value > self.at_most:
            raise ValueError(f"{shown(text)} is too large, the most is {self.write(self.at_most)}")
        return value

    def write(self, value: Any) -> str:
        """Text that reads back as `value`."""
        return self.kind.write(value)

    def _normal(self, item: str | Weighted) -> str | Weighted:
        assert self.each is not None
        return self.each(item) if isinstance(item, str) else item._replace(text=self.each(item.text))


@cache
def options_of(section: type) -> Mapping[str, Option]:
    """The options of a section's dataclass, in their order; fields not made by `option()` are none."""
    hints = get_type_hints(section)
    found = {}
    for declared in fields(section):
        meta = declared.metadata
        if "help" not in meta or declared.default is MISSING:
            continue
        found[declared.name] = Option(
            declared.name,
            kind_of(hints[declared.name]),
            declared.default,
            meta["help"],
            meta["at_least"],
            meta["at_most"],
            meta["reload"],
            meta["each"],
            meta["example"],
        )
    return MappingProxyType(found)


def shown(text: str) -> str:
    """`text` in quotes for a message: one line, printable, not long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def suggestion(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the known word that is most alike, "" if none is."""
    # difflib's work grows with the product of lengths; nobody means a known word by a very long one.
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6) if len(word) <= 64 else []
    return f", did you mean {close[0]!r}?" if close else ""


def kind_of(annotation: Any) -> Kind:
    """How values of that annotation are read and written; raises TypeError for one that can't be an option."""
    if get_origin(annotation) is Literal:
        return _literal(get_args(annotation))
    try:
        return _KINDS[annotation]
    except KeyError:
        raise TypeError(f"{annotation!r} is not the type of an option") from None


_NUMBER = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,340})?)\s*([a-z]{0,3})", re.ASCII | re.IGNORECASE)

_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
_UNITS = {"d": Fraction(86400), "h": Fraction(3600), "m": Fraction(60), "s": Fraction(1), "ms": Fraction(1, 1000)}
_SCALES = {"T": 1024**4, "G": 1024**3, "M": 1024**2, "K": 1024}
_LONGEST = 36500 * 86400
_HIGHEST_WEIGHT = 1000.0
_ACTIONS = {action.value: action for action in Action if action is not Action.CONTINUE}


def _single(text: str) -> str:
    if "\n" in text:
        raise ValueError("has several lines; an indented line continues the one above it")
    return text


def _filled(text: str, what: str) -> str:
    if not _single(text):
        raise ValueError(f"is empty, expected {what}")
    return text


def _read_bool(text: str) -> bool:
    value = _WORDS.get(_filled(text, "yes or no").lower())
    if value is None:
        raise ValueError(
            f"{shown(text)} is neither yes nor no{suggestion(text.lower(), ('yes', 'no', 'true', 'false'))}"
        )
    return value


def _write_bool(value: bool) -> str:
    return "yes" if value else "no"


def _read_int(text: str) -> int:
    if not _INTEGER.fullmatch(_filled(text, "a whole number")):
        raise ValueError(f"{shown(text)} is not a whole number{_comment_hint(text)}")
    return int(text)


def _read_float(text: str) -> float:
    if not _NUMBER.fullmatch(_filled(text, "a number")):
        raise ValueError(f"{shown(text)} is not a number{_comment_hint(text)}")
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


def _read_threshold(text: str) -> float | None:
    return _read_float(text) if text else None


def _write_threshold(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _read_weight(text: str) -> float | Action:
    word = _filled(text, "a number or an action").lower()
    if word in _ACTIONS:
        return _ACTIONS[word]
    try:
        weight = _read_float(text)
    except ValueError:
        words = ", ".join(sorted(_ACTIONS))
        raise ValueError(
            f"{shown(text)} is neither a number nor one of: {words}{suggestion(word, _ACTIONS) or _comment_hint(text)}"
        ) from None
    if abs(weight) > _HIGHEST_WEIGHT:
        raise ValueError(f"{shown(text)} is beyond {_HIGHEST_WEIGHT:g}")
    return weight


def _write_weight(value: float | Action) -> str:
    return value.value if isinstance(value, Action) else repr(float(value))


def _read_seconds(text: str) -> float:
    found = _QUANTITY.fullmatch(_filled(text, "a duration such as 500ms 5s 10m 36h 30d"))
    # Without unit: seconds, as in systemd and most daemons.
    unit = _UNITS.get(found[2].lower() or "s") if found else None
    if found is None or unit is None:
        raise ValueError(f"{shown(text)} is not a duration such as 500ms 5s 10m 36h 30d{_comment_hint(text)}")
    value = Fraction(found[1]) * unit
    if value > _LONGEST:
        raise ValueError(f"{shown(text)} is longer than {_LONGEST // 86400}d")
    return float(value)


def _write_seconds(value: float) -> str:
    if not value:
        return "0s"
    exact = Fraction(Decimal(repr(float(value))))  # the decimal that reads back as this float, not its binary digits
    for name, unit in _UNITS.items():
        if (exact / unit).denominator == 1:
            return f"{exact / unit}{name}"
    return f"{Decimal(repr(float(value))):f}s"


def _read_size(text: str) -> int:
    found = _QUANTITY.fullmatch(_filled(text, "a size such as 64K 25M 1G"))
    scale = {"": 1, **_SCALES}.get(found[2].upper()) if found else None
    if found is None or scale is None:
        raise ValueError(f"{shown(text)} is not a size such as 64K 25M 1G{_comment_hint(text)}")
    value = Fraction(found[1]) * scale
    if value.denominator != 1:
        raise ValueError(f"{shown(text)} is not a whole number of octets")
    return int(value)


def _write_size(value: float) -> str:
    size = int(value)
    for name, scale in _SCALES.items():
        if size and size % scale == 0:
            return f"{size // scale}{name}"
    return str(size)


def _read_mode(text: str) -> int:
    if not re.fullmatch(r"(?:0o?)?[0-7]{1,3}", _filled(text, "a mode such as 0660")):
        raise ValueError(f"{shown(text)} is not a mode in octal such as 0660{_comment_hint(text)}")
    return int(text.removeprefix("0o"), 8)


def _write_mode(value: int) -> str:
    return f"{value:04o}"


def _read_workers(text: str) -> int:
    if text.lower() == "auto":
        return 0
    if not _INTEGER.fullmatch(_filled(text, "auto or a number of processes")) or int(text) < 1:
        raise ValueError(f"{shown(text)} is neither auto nor a number of processes{_comment_hint(text)}")
    return int(text)


def _write_workers(value: int) -> str:
    return str(value) if value else "auto"


def _items(text: str) -> list[str]:
    items = _parted(text)
    for item in items:
        _refuse_blanks(item)
    return items


def _parted(text: str) -> list[str]:
    items = [item.strip() for line in text.split("\n") for item in line.split(",")]
    return [item for item in items if item]


def _refuse_blanks(item: str) -> None:
    if len(item.split(None, 1)) > 1:
        raise ValueError(f"{shown(item)} has blanks in it; items are parted by commas or lines{_comment_hint(item)}")


def _all(read: Callable[[str], T], items: Iterable[str]) -> tuple[T, ...]:
    """Every item read; raises ValueError with what is wrong with each of those that can't be."""
    found: list[T] = []
    problems: list[str] = []
    for item in items:
        try:
            found.append(read(item))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)


def _read_names(text: str) -> Names:
    return NameList(_items(text))


def _read_weighted(text: str) -> WeightedNames:
    return _all(_weighted, _parted(text))


def _weighted(item: str) -> Weighted:
    text, equals, weight = (part.strip() for part in item.partition("="))
    _refuse_blanks(text)
    if not text:
        raise ValueError(f"{shown(item)} names nothing before '='")
    return Weighted(text, _read_weight(weight) if equals else None)


def _write_weighted(value: WeightedNames) -> str:
    return ", ".join(
        item.text if item.weight is None else f"{item.text} = {_write_weight(item.weight)}" for item in value
    )


def _read_networks(text: str) -> Networks:
    return NetworkList(_all(_network, _items(text)))


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an address or network such as 192.0.2.0/24 or 2001:db8::/32") from None
    if "%" in text:
        raise ValueError(f"{shown(text)} has a zone; clients come without one")
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{shown(text)} has bits set beyond its length, did you mean {str(network)!r}?") from None


def _write_networks(value: Networks) -> str:
    return ", ".join(str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n) for n in value)


_LONGEST_LIMIT = 366 * 86400


def _read_limits(text: str) -> Limits:
    limits = _all(_limit, _items(text))
    ordered = sorted(limits, key=lambda limit: limit.period)
    for shorter, longer in pairwise(ordered):
        if shorter.period == longer.period:
            raise ValueError(f"{_write_limit(shorter)} and {_write_limit(longer)} are for the same time")
        if shorter.count >= longer.count:
            raise ValueError(f"{_write_limit(shorter)} would never be reached beside {_write_limit(longer)}")
    return limits


def _limit(text: str) -> Limit:
    count, slash, period = text.partition("/")
    if not slash or not _INTEGER.fullmatch(count) or not 0 < int(count) <= 10**9:
        raise ValueError(f"{shown(text)} is not a limit such as 60/1m or 1000/1d{_comment_hint(text)}")
    seconds = _read_seconds(period)
    if not 1 <= seconds <= _LONGEST_LIMIT:
        raise ValueError(f"{shown(text)} is for a time that is not in 1s..{_LONGEST_LIMIT // 86400}d")
    return Limit(int(count), seconds)


def _write_limit(value: Limit) -> str:
    return f"{value.count}/{_write_seconds(value.period)}"


def _write_limits(value: Limits) -> str:
    return ", ".join(map(_write_limit, value))


@cache
def _literal(words: tuple[str, ...]) -> Kind:
    listed = ", ".join(word or "empty" for word in words)

    def read(text: str) -> str:
        word = _single(text).lower()
        if word not in words:
            hint = suggestion(word, words) or _comment_hint(text)
            raise ValueError(f"{shown(text)} is not one of: {listed}{hint}" if text else f"is empty, expected {listed}")
        return word

    return Kind(" | ".join(word or '""' for word in words), read, str)


def _comment_hint(text: str) -> str:
    return "; a comment behind a value begins with ';'" if "#" in text else ""


_KINDS: Mapping[Any, Kind] = {
    bool: Kind("yes | no", _read_bool, _write_bool),
    bool | None: Kind(
        "yes | no", lambda text: _read_bool(text) if text else None, lambda v: "" if v is None else _write_bool(v)
    ),
    int: Kind("number", _read_int, lambda value: str(int(value))),
    float: Kind("number", _read_float, lambda value: repr(float(value))),
    str: Kind("text", _single, str),
    Seconds: Kind("duration", _read_seconds, _write_seconds),
    Size: Kind("size", _read_size, _write_size),
    FilePath: Kind("path", _single, str),
    Mode: Kind("mode", _read_mode, _write_mode),
    Workers: Kind("auto | number", _read_workers, _write_workers),
    Threshold: Kind("score", _read_threshold, _write_threshold),
    Weight: Kind("number | action", _read_weight, _write_weight),
    Names: Kind("list", _read_names, ", ".join),
    WeightedNames: Kind("weighted list", _read_weighted, _write_weighted),
    Networks: Kind("networks", _read_networks, _write_networks),
    Limits: Kind("limits", _read_limits, _write_limits),
}
