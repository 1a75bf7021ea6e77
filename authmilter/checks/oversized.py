"""Header section, field or body beyond the limits."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction


@check(Stage.EOM, scores={"oversized": 0.0})
def oversized(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Part of the message was too large to be examined."""
    if tx.message.oversized:
        yield Finding("oversized", tx.message.oversized)
