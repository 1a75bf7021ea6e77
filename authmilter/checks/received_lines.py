"""The way that a message came (RFC 5321 section 4.4), as far as its own Received fields tell."""

from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import MAX_VALUE
from authmilter.model import Stage, Transaction


@check(Stage.EOM, scores={"received_missing": 0.3, "received_desktop": 0.5})
def received_lines(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """No server had the message before the client, or the first got it from a machine that Windows named."""
    positions = tx.message.index.get(b"received")
    if positions is None:
        yield Finding("received_missing")
        return
    first = tx.message.fields[positions[-1]].value[:MAX_VALUE]
    if b"DESKTOP-" in first or b"WIN-" in first or b"LAPTOP-" in first:
        yield Finding("received_desktop")
