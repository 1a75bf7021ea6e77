"""Phrases by which those introduce themselves, and excuse themselves, whom nobody asked."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.text_words import subject_words, text_words

# Between blanks, as words are joined: what stands between words in the text does not count.
_PHRASES = {
    "phrase_removal": (
        b"be taken off our",
        b"from our database",
        b"from our email",
        b"from our e mail",
        b"from our list",
        b"from our mailing",
        b"like to be removed",
        b"removal instructions",
        b"remove yourself",
        b"removed from future",
        b"removed from our",
        b"removed from the mailing",
        b"removed from this list",
        b"removed from this mailing",
        b"want to be removed",
        b"wish to be removed",
    ),
    "phrase_riskless": (
        b"100% free",
        b"100% guarantee",
        b"100% guaranteed",
        b"100% satisfaction",
        b"absolutely free",
        b"money back",
        b"no obligation",
        b"no risk",
        b"risk free",
        b"satisfaction guaranteed",
        b"totally free",
    ),
    "phrase_hurry": (
        b"act now",
        b"act today",
        b"apply now",
        b"apply today",
        b"call now",
        b"call today",
        b"limited time",
        b"once in a lifetime",
        b"order now",
        b"order today",
        b"supplies are limited",
        b"while supplies last",
    ),
}
# With their words: a text that has not all of them has not the phrase either.
_NEEDLES = tuple(
    (symbol, b" %b " % phrase, frozenset(phrase.split())) for symbol, its in _PHRASES.items() for phrase in its
)
_GREETINGS = frozenset((b"attention", b"attn", b"dear", b"hello", b"hi"))
_ANYBODY = frozenset(
    b"account beneficiary client customer email friend friends homeowner madam member sir sirs user valued webmail winner".split()
)


@check(
    Stage.EOM,
    content=True,
    scores={
        "phrase_removal": 0.8,
        "phrase_riskless": 0.8,
        "phrase_hurry": 0.6,
        "phrase_greeting": 0.5,
        "subject_adv": 1.5,
    },
    meanings={
        "phrase_removal": "How to be removed from a list that nobody subscribed to.",
        "phrase_riskless": "What is praised has no risk, or no price.",
        "phrase_hurry": "The reader is to call, order or apply at once.",
        "phrase_greeting": "It greets a friend, customer or user without a name.",
        "subject_adv": "Subject begins with ADV, as laws have asked of advertisements.",
    },
    body=True,
)
def phrases(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """English phrases of advertisements and begging letters: a nameless greeting, no risk, call now, how to be removed."""
    if subject_words(tx.message)[:1] == [b"adv"]:
        yield Finding("subject_adv")
    found: dict[str, bytes] = {}
    for part, in_order, its in text_words(tx.message):
        if part.kind == "part" and in_order:
            if in_order[0] in _GREETINGS and not _ANYBODY.isdisjoint(in_order[1:2]):
                found.setdefault("phrase_greeting", b" ".join(in_order[:2]))
            _look_at(in_order, its, found)
    for symbol, words in found.items():
        yield Finding(symbol, words.decode())


def _look_at(in_order: list[bytes], its: frozenset[bytes], found: dict[str, bytes]) -> None:
    text = b""
    for symbol, needle, words in _NEEDLES:
        if words <= its and symbol not in found:
            text = text or b" %b " % b" ".join(in_order)
            if needle in text:
                found[symbol] = needle[1:-1]
