"""Mail to many: whether one can end it, and whether it pretends to be urgent."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import is_list, value
from authmilter.model import Stage, Transaction

# What programs that send to many write.
_BULK_FIELDS = frozenset((b"feedback-id", b"x-campaign", b"x-campaignid", b"x-campaign-id", b"x-csa-complaints", b"x-mailgun-sid",
                          b"x-mailgun-tag", b"x-sg-eid", b"x-ses-outgoing", b"x-mc-user", b"x-sfmc-stack", b"cfbl-address"))  # fmt: skip
_URI = re.compile(rb"<\s*+(?:https?|mailto):", re.IGNORECASE)  # RFC 2369 section 2
_PRECEDENCE = (b"bulk", b"junk")


@check(
    Stage.EOM,
    scores={"bulk_no_unsubscribe": 0.3, "unsubscribe_malformed": 2.0, "priority_high": 1.0},
)
def bulk_mail(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Mail to many without List-Unsubscribe or with a useless one (RFC 2369, RFC 8058), or marked as urgent."""
    message = tx.message
    index = message.index
    if b"list-unsubscribe" in index:
        way = value(message, b"list-unsubscribe")
        if not _URI.search(way):
            yield Finding("unsubscribe_malformed", way[:60].decode("utf-8", "backslashreplace"))
    elif not is_list(message):
        names = _BULK_FIELDS.intersection(index)
        if names:
            yield Finding("bulk_no_unsubscribe", min(names).decode())
        elif b"precedence" in index and value(message, b"precedence").lower().startswith(_PRECEDENCE):
            yield Finding("bulk_no_unsubscribe", "precedence")
    if value(message, b"x-priority")[:1] in (b"1", b"2") or value(message, b"importance").lower() == b"high":
        yield Finding("priority_high")
