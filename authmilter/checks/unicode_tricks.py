"""Characters in From and Subject that make a reader, or a filter, see another text than is there."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.confusables import INVISIBLE, OVERRIDES, STYLED, mixes_scripts
from authmilter.evidence import Finding
from authmilter.header_text import display_name, text
from authmilter.model import Stage, Transaction

_OVERRIDE = re.compile(f"[{OVERRIDES}]")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")
_STYLED = re.compile(f"[{STYLED}]")
_WORD = re.compile(r"[^\W\d_]{3,40}")  # units such as μm are shorter
_PICTURE = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
_LONGEST = 1000  # characters of a field that are looked at
_FEWEST_STYLED = 3  # letters from which on it is no symbol such as a circled number


@check(
    Stage.EOM,
    content=True,
    scores={
        "direction_override": 1.0,
        "invisible_characters": 1.5,
        "mixed_scripts": 2.0,
        "styled_letters": 1.5,
        "from_pictures": 0.5,
        "subject_pictures": 0.3,
    },
    meanings={
        "direction_override": "From or Subject has characters that reverse the direction of writing.",
        "invisible_characters": "From or Subject has characters that are not shown, such as a zero-width space.",
        "mixed_scripts": "A word of From or Subject mixes letters of several scripts that look alike.",
        "styled_letters": "From or Subject is written in mathematical, circled or other letters in fancy dress.",
        "from_pictures": "Pictures, such as emoji, in the name of From.",
        "subject_pictures": "Pictures, such as emoji, in Subject.",
    },
)
def unicode_tricks(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """From or Subject hold unseen or reversing characters, mixed scripts, letters in fancy dress, or pictures."""
    message = tx.message
    seen: set[str] = set()
    for field, shown in (("from", display_name(message)), ("subject", text(message, b"subject"))):
        if shown.isascii():
            continue
        for symbol in _tricks(shown[:_LONGEST]):
            if symbol not in seen:
                seen.add(symbol)
                yield Finding(symbol, field)
        if _PICTURE.search(shown):
            yield Finding(f"{field}_pictures")


def _tricks(shown: str) -> Iterator[str]:
    if _OVERRIDE.search(shown):
        yield "direction_override"
    if _INVISIBLE.search(shown):
        yield "invisible_characters"
    if any(map(mixes_scripts, _WORD.findall(shown))):
        yield "mixed_scripts"
    if len(_STYLED.findall(shown)) >= _FEWEST_STYLED:
        yield "styled_letters"
