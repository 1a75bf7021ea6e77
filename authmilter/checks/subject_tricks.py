"""Subjects as spam has them: loud, padded, addressed to the very mailbox, or posing as an answer."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import has_needless_base64, text
from authmilter.model import Stage, Transaction

_CAPITALS = 8  # letters from which on a subject in capitals is no abbreviation
_LONGEST = 1000  # characters that are looked at
_REPLY = re.compile(r"\s*+(?:re|aw|sv|antw|odp|res)(?:\[\d{1,3}\]|\^\d)?\s?:", re.IGNORECASE)
# A sign of money beside a number, or of per cent behind one.
_OFFER = re.compile("[$%\u20ac\u00a3](?:(?<=[0-9].)|(?<=[0-9][ \u00a0].)|(?<!%)[ \u00a0]?[0-9])")
_GAPPY = re.compile(r"[ ._*-][^\W\d_](?:[ ._*-][^\W\d_]){3}[ ._*-]")
_PADDED = re.compile(r"\S\s{5,}+\S")


@check(
    Stage.EOM,
    content=True,
    scores={
        "subject_recipient": 0.8,
        "subject_capitals": 1.0,
        "subject_exclaimed": 0.5,
        "subject_offer": 0.4,
        "subject_gappy": 0.5,
        "subject_padded": 1.5,
        "subject_encoded": 0.6,
        "reply_without_references": 0.2,
    },
    meanings={
        "subject_recipient": "Subject holds the address of a recipient.",
        "subject_capitals": "Subject is in capitals.",
        "subject_exclaimed": "Subject has exclamation marks; half of it where no two stand together.",
        "subject_offer": "Subject has a sum of money or a share in per cent.",
        "subject_gappy": "A word of Subject is s p a c e d.",
        "subject_padded": "Something stands in Subject behind five blanks or more.",
        "subject_encoded": "Subject is in base64 although it is all ASCII.",
        "reply_without_references": (
            "Subject begins with Re: or its like, and neither References nor In-Reply-To is there."
        ),
    },
)
def subject_tricks(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Subject is loud, offers sums, holds the recipient's address, is padded or s p a c e d, or answers nothing."""
    message = tx.message
    subject = text(message, b"subject")[:_LONGEST]
    if not subject:
        return
    if subject.isupper() and sum(map(str.isalpha, subject)) >= _CAPITALS:
        yield Finding("subject_capitals")
    if "!" in subject:
        yield Finding("subject_exclaimed", strength=1.0 if "!!" in subject else 0.5)
    offer = _OFFER.search(subject)
    if offer:
        yield Finding("subject_offer", subject[max(0, offer.start() - 5) : offer.end() + 5])
    recipient = _recipient(tx, subject.lower()) if "@" in subject else ""
    if recipient:
        yield Finding("subject_recipient", recipient)
    gappy = _GAPPY.search(subject)
    if gappy:
        yield Finding("subject_gappy", gappy[0])
    if "     " in subject and _PADDED.search(subject):
        yield Finding("subject_padded")
    if has_needless_base64(message, b"subject", subject):
        yield Finding("subject_encoded")
    index = message.index
    if b"references" not in index and b"in-reply-to" not in index and _REPLY.match(subject):
        yield Finding("reply_without_references")


def _recipient(tx: Transaction, subject: str) -> str:
    """The address of a recipient that the subject holds, "" if it holds none."""
    addresses = (path.address for path in tx.envelope.forward_paths[:20] if path.domain)
    return next((address for address in addresses if address in subject), "")[:320]
