"""Mail to many: whether one can end it, and whether it pretends to be urgent."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import excerpt, is_list, value
from authmilter.model import Message, Stage, Transaction

# What programs that send to many write.
_BULK_FIELDS = frozenset(
    (
        b"cfbl-address", b"feedback-id", b"x-campaign", b"x-campaign-id", b"x-campaignid", b"x-csa-complaints",
        b"x-mailgun-sid", b"x-mailgun-tag", b"x-mc-user", b"x-ses-outgoing", b"x-sfmc-stack", b"x-sg-eid",
    )
)  # fmt: skip
_WAY = re.compile(rb"<\s*+(?:https?|mailto):", re.IGNORECASE)  # RFC 2369 section 2
_WAY_WITHOUT_BRACKETS = re.compile(rb"(?:https?://|mailto:)", re.IGNORECASE)
_HTTPS = re.compile(rb"<\s*+https:", re.IGNORECASE)
_ONE_CLICK = b"list-unsubscribe=one-click"  # RFC 8058 section 3.1
_PRECEDENCE = (b"bulk", b"junk")


@check(
    Stage.EOM,
    content=True,
    scores={
        "bulk_no_unsubscribe": 0.3,
        "unsubscribe_malformed": 2.0,
        "one_click_malformed": 0.5,
        "priority_high": 0.5,
    },
    meanings={
        "bulk_no_unsubscribe": (
            "A field such as Feedback-ID or Precedence: bulk shows mail to many, and it has no List-Unsubscribe; "
            "a third of it where it has one without the way by one click of RFC 8058.  Not for lists."
        ),
        "unsubscribe_malformed": (
            "List-Unsubscribe has no URI in angle brackets; a quarter of it where only the brackets are missing."
        ),
        "one_click_malformed": "List-Unsubscribe-Post is wrong, or List-Unsubscribe has no way by HTTPS beside it.",
        "priority_high": "X-Priority is 1 or 2, or Importance is high.",
    },
)
def bulk_mail(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Mail to many without List-Unsubscribe or with a useless one (RFC 2369, RFC 8058), or marked as urgent.

    Bulk mail that has List-Unsubscribe, but lacks the way by one click that large receivers ask for, has a third of the weight
    of such as has none.
    """
    message = tx.message
    index = message.index
    if b"list-unsubscribe" in index:
        yield from _unsubscribe(message)
    elif b"list-unsubscribe-post" in index:
        yield Finding("one_click_malformed", "List-Unsubscribe-Post without List-Unsubscribe")
    elif not is_list(message):
        mark = _mark(message)
        if mark:
            yield Finding("bulk_no_unsubscribe", f"{mark}, and no List-Unsubscribe")
    if value(message, b"x-priority")[:1] in (b"1", b"2"):
        yield Finding("priority_high", "X-Priority")
    elif value(message, b"importance").lower() == b"high":
        yield Finding("priority_high", "Importance")


def _unsubscribe(message: Message) -> Iterator[Finding]:
    way = value(message, b"list-unsubscribe")
    if not _WAY.search(way):
        # Who only forgot the brackets means well.
        yield Finding("unsubscribe_malformed", excerpt(way), 0.25 if _WAY_WITHOUT_BRACKETS.match(way) else 1.0)
    elif b"list-unsubscribe-post" in message.index:
        post = value(message, b"list-unsubscribe-post")
        if post.lower() != _ONE_CLICK:
            yield Finding("one_click_malformed", excerpt(post))
        elif not _HTTPS.search(way):
            yield Finding("one_click_malformed", "List-Unsubscribe has no way by HTTPS")
    elif not is_list(message):
        mark = _mark(message)
        if mark:
            yield Finding("bulk_no_unsubscribe", f"{mark}, and no way by one click", 0.3)


def _mark(message: Message) -> str:
    """What says that a message is one of many, "" if nothing does."""
    names = _BULK_FIELDS.intersection(message.index)
    if names:
        return min(names).decode()
    if b"auto-submitted" in message.index:
        return ""  # an answer by a machine has it too (RFC 3834 section 3.1.8)
    return "Precedence" if value(message, b"precedence").lower().startswith(_PRECEDENCE) else ""
