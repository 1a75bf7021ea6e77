"""The text as it is read: characters in disguise, sums of money, where to pay, and what else good mail hardly has."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.coin_addresses import coin_addresses
from authmilter.confusables import INVISIBLE, OVERRIDES, STYLED, mixes_scripts
from authmilter.evidence import Finding
from authmilter.mime import Part, parts
from authmilter.model import Stage, Transaction

_MOST = 4  # parts with text that are looked at, and parts that are read for it
_MOST_READ = 32
_LONGEST = 32768  # characters of each
_FEWEST_STYLED = 4  # letters from which on it is no symbol such as a circled number
_FEWEST_LETTERS = 200  # from which on a text in capitals is no heading
_EMPTY_LINES = "\n" * 12

_FEWEST_MIXED = 2  # words
_LONGEST_MIXED = 8192

_ASCII = re.compile("[\0-\x7f]++")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_UNSEEN = re.compile(f"[A-Za-z][{INVISIBLE}]++[A-Za-z]")
_STYLED = re.compile(f"[{STYLED}]")
_OVERRIDE = re.compile(f"[{OVERRIDES}]")
_WORD = re.compile(r"[^\W\d_]{3,40}+")
_LIKE_LATIN = re.compile("[\u0370-\u058f\u13a0-\u13ff]")
# Numbers that cost a caller in North America nothing: whoever wants to be called about what nobody ordered has one.
_CALL = re.compile(r"8(?<![0-9A-Za-z.]8)(?:00|33|44|55|66|77|88)[) .-]{1,3}[0-9]{3}[ .-]{1,2}[0-9]{4}(?![0-9])")
# A day or some, in words that many languages have one like it.  Who reveals nothing otherwise gives no more.
_DEADLINE = re.compile(
    r"(?<![0-9])(?:24|36|48|50|60|72|96) ?(?:[Hh](?:ours?|rs?|eures|oras)?|[Ss]tunden|[Oo]re|[Uu]ur|[Tt]im(?:er|mar)|horas)(?![a-z])"
)
_SIGNS = ("$", "\u00a3", "\u20ac", "USD")
_SUM = re.compile(r"(?:[A-Z]{3}|[^A-Z]) ?[0-9]{1,3}(?:(?:[,.][0-9]{3}){2}| ?[mM](?i:illion)\b)")
_MILLIONS = re.compile(r"[0-9] ?(?i:million (?:u\.?s\.? ?)?(?:dollars|usd|euros?|pounds|gbp)\b)")
_OFTEN = 100  # places of each of these that are looked at
_CAPITALS = bytes(range(65, 91))
_LETTERS = _CAPITALS + bytes(range(97, 123))


@check(
    Stage.EOM,
    content=True,
    scores={
        "text_unseen": 1.5,
        "text_mixed_scripts": 1.5,
        "text_styled": 1.0,
        "text_override": 1.0,
        "text_capitals": 1.0,
        "text_large_sum": 0.8,
        "text_toll_free": 0.5,
        "text_coin": 0.7,
        "text_coin_deadline": 1.0,
        "text_empty_lines": 0.4,
        "text_empty": 0.5,
    },
    meanings={
        "text_unseen": "Characters that are not shown stand within words.",
        "text_mixed_scripts": "Two words or more mix letters of several scripts that look alike.",
        "text_styled": "Mathematical, circled or other letters in fancy dress.",
        "text_override": "Characters that reverse the direction of writing.",
        "text_capitals": "More than half of the text is in capitals.",
        "text_large_sum": "A sum of a million or more.",
        "text_toll_free": "A toll-free number of North America, to call back about what nobody ordered.",
        "text_coin": "An address of a cryptocurrency, told by its checksum.",
        "text_coin_deadline": "The same, with a time of a few days or hours, as extortion has it.",
        "text_empty_lines": "Twelve empty lines in a row, which push the rest out of sight.",
        "text_empty": "No text at all, and nothing attached.",
    },
    body=True,
)
def body_text(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Text with letters in disguise, unseen characters, large sums, toll-free numbers, coin addresses, or none at all."""
    found: dict[str, str] = {}
    is_empty = True
    shown = read = 0
    for part in parts(tx.message):
        if part.type in ("text/plain", "text/html") and part.kind == "part" and part.disposition != "attachment":
            if shown == _MOST or read == _MOST_READ:
                break
            read += 1
            text = _text(part)
            if text:
                shown += 1
                is_empty = False
                _look_at(text, found)
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
    money = _sum(text)
    if money:
        found.setdefault("text_large_sum", money)
    call = _CALL.search(text)
    if call is not None:
        found.setdefault("text_toll_free", call[0])
    coin = next(coin_addresses(text), None)
    if coin is not None:
        found.setdefault("text_coin", " ".join(coin))
        deadline = _DEADLINE.search(text)
        if deadline is not None:
            found.setdefault("text_coin_deadline", f"{deadline[0]}, {coin[0]}")
    octets = text[:4096].encode("ascii", "ignore")
    capitals = len(octets) - len(octets.translate(None, _CAPITALS))
    if capitals >= _FEWEST_LETTERS and 2 * capitals > len(octets):
        found.setdefault("text_capitals", "")


def _sum(text: str) -> str:
    """A sum of a million or more of some currency, "" if there is none."""
    # To find the signs first is ten times as fast as an expression that begins with any of them.
    for sign in _SIGNS:
        at = text.find(sign)
        for _ in range(_OFTEN):
            if at < 0:
                break
            found = _SUM.match(text, at)
            if found is not None:
                return found[0]
            at = text.find(sign, at + 1)
    if "illion" in text or "ILLION" in text:
        found = _MILLIONS.search(text)
        return found[0] if found is not None else ""
    return ""


def _look_at_characters(text: str, found: dict[str, str]) -> None:
    others = "".join(set(_ASCII.sub("", text)))  # mostly few, so that most of what follows is spared
    if _INVISIBLE.search(others) and _UNSEEN.search(text):
        found.setdefault("text_unseen", "")
    if _STYLED.search(others) and len(_STYLED.findall(text)) >= _FEWEST_STYLED:
        found.setdefault("text_styled", "")
    if _OVERRIDE.search(others):
        found.setdefault("text_override", "")
    if _LIKE_LATIN.search(others):
        mixed = [word for word in _WORD.findall(text[:_LONGEST_MIXED]) if not word.isascii() and mixes_scripts(word)]
        if len(mixed) >= _FEWEST_MIXED:
            found.setdefault("text_mixed_scripts", mixed[0])
