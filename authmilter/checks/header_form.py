"""The fields that a message must or should have, each once (RFC 5322 section 3.6).

From is left to `ambiguous_from`, and Date to `header_dates`.
"""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import value
from authmilter.model import Stage, Transaction

# RFC 5322 section 3.6: at most one of each; RFC 2919 section 3, RFC 2369 section 4; RFC 2045 for those of MIME.
_ONCE = (
    b"date", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"message-id", b"subject", b"list-id",
    b"list-unsubscribe", b"feedback-id", b"mime-version", b"content-type", b"content-transfer-encoding",
)  # fmt: skip
_NAME = bytes(range(33, 127)).replace(b":", b"")  # RFC 5322 section 2.2
_MESSAGE_ID = re.compile(rb"<[^<>@\s]++@[^<>@\s]++>")  # section 3.6.4, with any characters within
_SHOWN = (b"from", b"to", b"subject", b"reply-to")  # to the reader
_LONGEST = 60


@check(
    Stage.EOM,
    scores={
        "message_id_missing": 1.0,
        "message_id_malformed": 1.5,
        "to_missing": 0.1,
        "undisclosed_recipients": 0.5,
        "subject_missing": 0.5,
        "header_repeated": 2.0,
        "header_malformed": 0.5,
        "header_8bit": 0.8,
    },
)
def header_form(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Fields that RFC 5322 asks for are missing, repeated or malformed, or have octets beyond ASCII."""
    message = tx.message
    fields, index = message.fields, message.index
    if b"message-id" not in index:
        yield Finding("message_id_missing")
    else:
        message_id = value(message, b"message-id")
        if not _MESSAGE_ID.fullmatch(message_id):
            yield Finding("message_id_malformed", _short(message_id))
    if b"to" in index:
        to = fields[index[b"to"][0]].value
        if b"@" not in to and b":" in to:  # a group without members (RFC 5322 section 3.4)
            yield Finding("undisclosed_recipients", _short(value(message, b"to")))
    elif b"cc" not in index:
        yield Finding("to_missing")
    if b"subject" not in index or not fields[index[b"subject"][0]].value.strip():
        yield Finding("subject_missing")
    if len(index) < len(fields):
        repeated = [name for name in _ONCE if name in index and len(index[name]) > 1]
        if repeated:
            yield Finding("header_repeated", b", ".join(repeated).decode())
    if b"".join(index).translate(None, _NAME):
        # Blanks before a colon, which RFC 5322 section 4.5 knows, are not in `index`.
        yield Finding("header_malformed", _short(next(name for name in index if name.translate(None, _NAME))))
    for name in _SHOWN:
        # RFC 6532 allows UTF-8 where both sides agreed on it; hardly anybody does.
        if name in index and not fields[index[name][0]].value.isascii():
            yield Finding("header_8bit", name.decode())
            break


def _short(raw: bytes) -> str:
    return raw[:_LONGEST].decode("utf-8", "backslashreplace")
