"""HELO with an address literal (RFC 5321 section 4.1.3)."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction


@check(Stage.HELO, scores={"helo_literal": 1.5})
def helo_literal(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Client greeted with an IP address instead of a host name."""
    if tx.helo.startswith(b"["):
        yield Finding("helo_literal", tx.helo[:64].decode("ascii", "backslashreplace"))
