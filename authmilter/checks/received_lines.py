"""The way that a message came (RFC 5321 section 4.4), as far as its own Received fields tell."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import MAX_VALUE
from authmilter.model import Stage, Transaction

_NAMED_BY_WINDOWS = re.compile(rb"\b(?:DESKTOP|LAPTOP|WIN)-[A-Z0-9]{2,11}")


@check(
    Stage.EOM,
    content=True,
    scores={"received_missing": 0.3, "received_desktop": 0.2},
    meanings={
        "received_missing": "There is no Received: the client itself wrote the message, or hides where it came from.",
        "received_desktop": "The oldest Received names a machine as Windows does, such as DESKTOP-A1B2C3D.",
    },
)
def received_lines(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """No server had the message before the client, or the first got it from a machine that Windows named."""
    positions = tx.message.index.get(b"received")
    if positions is None:
        yield Finding("received_missing")
        return
    name = _NAMED_BY_WINDOWS.search(tx.message.fields[positions[-1]].value[:MAX_VALUE])
    if name is not None:
        yield Finding("received_desktop", name[0].decode())
