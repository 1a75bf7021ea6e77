"""Mail that claims to be from its own recipient."""

from collections.abc import Iterator

from authmilter.check import Tools, Words, check
from authmilter.evidence import Finding
from authmilter.identities import spf_domain
from authmilter.model import Stage, Transaction


@check(
    Stage.RCPT,
    scores={"sender_is_recipient": 0.5},
    replies={"sender_is_recipient": Words("7.1", lambda _, address: f"{address} does not write to itself from there")},
)
def sender_is_recipient(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """MAIL FROM is the recipient's own address, and SPF does not say that it may come from there."""
    sender, recipient = tx.envelope.reverse_path, tx.envelope.forward_paths[-1]
    if sender is not None and sender.domain and sender.address == recipient.address and not spf_domain(tx):
        yield Finding("sender_is_recipient", sender.address[:320])
