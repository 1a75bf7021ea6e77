"""Transactions made of the header section as one would write it down."""

import re

from authmilter.addresses import parse_path
from authmilter.model import Envelope, HeaderField, Message, Transaction

USUAL = (
    "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: Tuesday\nDate: Tue, 14 Nov 2023 22:00:00 +0000\n"
    "Message-ID: <1.2@example.org>\nReceived: from a by b; Tue, 14 Nov 2023 22:00:00 +0000\n"
)


def mail(
    header: str | bytes = "", *, sender: str = "alice@example.org", to: str = "bob@example.net", without: str = ""
) -> Transaction:
    """The usual message with these fields in place of those of the same names, and without those named in `without`.

    Lines end in LF, and those that begin with white space go on with the field before them.
    """
    raw = header.encode() if isinstance(header, str) else header
    own = [_field(line) for line in re.split(rb"\n(?![ \t])", raw.removesuffix(b"\n")) if line]
    replaced = {field.name.lower() for field in own} | set(without.lower().encode().split())
    usual = [_field(line) for line in USUAL.encode().splitlines()]
    fields = (*(field for field in usual if field.name.lower() not in replaced), *own)
    recipient = parse_path(f"<{to}>".encode())
    assert recipient is not None
    return Transaction(message=Message(fields), envelope=Envelope(parse_path(f"<{sender}>".encode()), (recipient,)))


def _field(line: bytes) -> HeaderField:
    name, _, value = line.partition(b":")
    return HeaderField(name, value.replace(b"\n", b"\r\n"))
