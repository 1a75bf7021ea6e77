"""Mail to learn from: two kinds that share most of their words."""

import random

from authmilter.model import Message
from authmilter.stored_mail import message_of

_COMMON = [
    "the",
    "and",
    "you",
    "for",
    "with",
    "this",
    "that",
    "have",
    "from",
    "will",
    "time",
    "day",
    "please",
    "thank",
    "mail",
    "week",
    "team",
    "next",
    "last",
    "work",
]
_HAM = [
    "patch",
    "kernel",
    "review",
    "meeting",
    "lunch",
    "compile",
    "branch",
    "minutes",
    "agenda",
    "invoice",
    "draft",
    "server",
    "build",
    "tests",
]
_SPAM = [
    "winner",
    "lottery",
    "claim",
    "password",
    "suspended",
    "verify",
    "unlimited",
    "pills",
    "refund",
    "bitcoin",
    "wallet",
    "prize",
    "urgent",
]


def raw(number: int, spam: bool, seed: str = "") -> bytes:
    """A message of its kind, the same for the same arguments."""
    chance = random.Random(f"{seed}{number}{spam}")
    words = chance.choices(_COMMON, k=40) + chance.choices(_SPAM if spam else _HAM, k=12)
    chance.shuffle(words)
    who = f"user{chance.randrange(30)}@{'offers' if spam else 'work'}{chance.randrange(5)}.example"
    link = (
        f"https://{'click' if spam else 'docs'}{chance.randrange(9)}.example.com/a/b\n" if chance.random() < 0.5 else ""
    )
    return (
        f"From: {who}\nTo: me@example.org\nSubject: {words[0]} {words[1]} {number}\n"
        f"Message-ID: <{seed}{number}.{spam}@example.com>\nDate: Fri, 21 Nov 2025 10:00:00 +0000\n\n"
        f"{' '.join(words)}\n{link}"
    ).encode()


def message(number: int, spam: bool, seed: str = "") -> Message:
    """The same, read."""
    found = message_of(raw(number, spam, seed))
    assert found is not None
    return found
