"""A From that can't be used: none, several domains, or one that different parsers read differently (RFC 9989 section 11.5)."""

from collections.abc import Iterator

from authmilter.addresses import author
from authmilter.check import Tools, Words, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction


@check(
    Stage.EOM,
    scores={"ambiguous_from": 5.0},
    replies={"ambiguous_from": Words("7.1", lambda _, detail: f"From header field can't be used: {detail}")},
)
def ambiguous_from(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """From is missing, doubled, names several domains, or can be read in more than one way."""
    problem = author(tx.message).problem
    if problem:
        yield Finding("ambiguous_from", problem)
