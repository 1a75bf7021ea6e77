"""The text as it is read: characters in disguise, sums of money, and what else good mail hardly has."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.confusables import INVISIBLE, OVERRIDES, STYLED, mixes_scripts
from authmilter.evidence import Finding
from authmilter.mime import Part, parts
from authmilter.model import Stage, Transaction

_MOST = 4  # parts that are looked at
_LONGEST = 32768  # characters of each
_FEWEST_STYLED = 4  # letters from which on it is no symbol such as a circled number
_FEWEST_LETTERS = 200  # from which on a text in capitals is no heading
_EMPTY_LINES = "\n" * 12

_UNSEEN = re.compile(f"[A-Za-z][{INVISIBLE}]++[A-Za-z]")
_STYLED = re.compile(f"[{STYLED}]")
_OVERRIDE = re.compile(f"[{OVERRIDES}]")
_WORD = re.compile(r"[^\W\d_]{3,40}+")
_LIKE_LATIN = re.compile("[\u0370-\u058f\u13a0-\u13ff]")
# Numbers that nobody pays for a call to in North America, where those who want to be called sell what nobody ordered.
_TOLL_FREE = re.compile(r"\b8(?:00|33|44|55|66|77|88)[) .-]{1,3}[0-9]{3}[ .-]{1,2}[0-9]{4}(?![0-9])")
_SUM = re.compile(
    r"(?:[$\u00a3\u20ac]|\b(?:USD|EUR|GBP)) ?[0-9]{1,3}(?:(?:[,.][0-9]{3}){2}| ?(?i:million\b))"
    r"|\b[0-9]{1,4}(?:\.[0-9]{1,3})? ?(?i:million (?:u\.?s\.? ?)?(?:dollars|usd|euros?|pounds|gbp)\b)"
)
_CAPITALS = bytes(range(65, 91))
_LETTERS = _CAPITALS + bytes(range(97, 123))


@check(
    Stage.EOM,
    scores={
        "text_unseen": 1.5,
        "text_mixed_scripts": 1.5,
        "text_styled": 1.0,
        "text_override": 1.0,
        "text_capitals": 1.0,
        "text_large_sum": 0.8,
        "text_toll_free": 0.5,
        "text_empty_lines": 0.4,
        "text_empty": 0.5,
    },
)
def body_text(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Text with letters in disguise, unseen characters, large sums, toll-free numbers, or none at all."""
    found: dict[str, str] = {}
    is_empty = True
    shown = 0
    for part in parts(tx.message):
        if part.type in ("text/plain", "text/html") and part.kind == "part" and part.disposition != "attachment":
            shown += 1
            text = _text(part)
            if text:
                is_empty = False
                _look_at(text, found)
            if shown == _MOST:
                break
        elif part.is_leaf:
            is_empty = False
    if is_empty and tx.message.body:
        found["text_empty"] = ""
    for symbol, detail in found.items():
        yield Finding(symbol, detail)


def _text(part: Part) -> str:
    html = part.html
    return (part.text if html is None else html.text)[:_LONGEST].strip()


def _look_at(text: str, found: dict[str, str]) -> None:
    if not text.isascii():
        _look_at_characters(text, found)
    if _EMPTY_LINES in text:
        found.setdefault("text_empty_lines", "")
    money = _SUM.search(text)
    if money is not None:
        found.setdefault("text_large_sum", money[0])
    call = _TOLL_FREE.search(text) if "8" in text else None
    if call is not None:
        found.setdefault("text_toll_free", call[0])
    octets = text[:4096].encode("ascii", "ignore")
    capitals = len(octets) - len(octets.translate(None, _CAPITALS))
    if capitals >= _FEWEST_LETTERS and 2 * capitals > len(octets):
        found.setdefault("text_capitals", "")


def _look_at_characters(text: str, found: dict[str, str]) -> None:
    if _UNSEEN.search(text):
        found.setdefault("text_unseen", "")
    if len(_STYLED.findall(text)) >= _FEWEST_STYLED:
        found.setdefault("text_styled", "")
    if _OVERRIDE.search(text):
        found.setdefault("text_override", "")
    if _LIKE_LATIN.search(text):
        mixed = [word for word in _WORD.findall(text[:8192]) if not word.isascii() and mixes_scripts(word)]
        if len(mixed) > 1:
            found.setdefault("text_mixed_scripts", mixed[0])
