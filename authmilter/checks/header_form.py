"""The fields that a message must or should have, each once (RFC 5322 section 3.6).

From is left to `ambiguous_from`, and Date to `header_dates`.
"""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import excerpt, value
from authmilter.model import Message, Stage, Transaction

# At most one of each: RFC 5322 section 3.6, and RFC 2045 for those of MIME.
_ONCE = (
    b"date", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"message-id", b"subject", b"mime-version", b"content-type",
    b"content-transfer-encoding",
)  # fmt: skip
# RFC 2919 section 3, RFC 2369 section 4.  A list that is a member of another may leave those of the other in place.
_ONCE_OF_LISTS = (b"list-id", b"list-unsubscribe", b"feedback-id")
_NAME = bytes(range(33, 127)).replace(b":", b"")  # RFC 5322 section 2.2
# Section 3.6.4, with any characters within, and a comment behind, as servers write that added the field.
_MESSAGE_ID = re.compile(rb"<[^<>@\s]++@[^<>@\s]++>[ \t]*+(?:\([^()]*+\))?+")
_SHOWN = (b"from", b"to", b"subject", b"reply-to")  # to the reader


@check(
    Stage.EOM,
    content=True,
    scores={
        "message_id_missing": 1.0,
        "message_id_malformed": 1.5,
        "to_missing": 0.1,
        "to_malformed": 0.3,
        "undisclosed_recipients": 0.5,
        "subject_missing": 0.5,
        "header_repeated": 2.0,
        "list_header_repeated": 0.5,
        "header_malformed": 0.5,
        "header_8bit": 0.8,
    },
    meanings={
        "message_id_missing": "There is no Message-ID.",
        "message_id_malformed": "Message-ID is not of the form <LEFT@RIGHT>.",
        "to_missing": "There is neither To nor Cc.",
        "to_malformed": "To holds neither an address nor a group, and there is no Cc.",
        "undisclosed_recipients": "To is a group without members, such as undisclosed-recipients:;.",
        "subject_missing": "There is no Subject, or an empty one.",
        "header_repeated": (
            "A field is there twice that may be there once; a quarter of it where all copies are the same."
        ),
        "list_header_repeated": "The same for List-Id, List-Unsubscribe and Feedback-ID.",
        "header_malformed": "The name of a field has characters that none may have.",
        "header_8bit": (
            "From, To, Subject or Reply-To have octets beyond ASCII, and not as UTF-8 for which SMTPUTF8 asked."
        ),
    },
)
def header_form(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Fields that RFC 5322 asks for are missing, repeated or malformed, or have octets beyond ASCII.

    UTF-8 is what SMTPUTF8 is for: where the client asked for that, only what is no UTF-8 is found.
    """
    message = tx.message
    index = message.index
    yield from _message_id(message)
    yield from _recipients(message)
    if b"subject" not in index or not message.fields[index[b"subject"][0]].value.strip():
        yield Finding("subject_missing")
    if len(index) < len(message.fields):
        yield from _repeated(message)
    if b"".join(index).translate(None, _NAME):
        # Blanks before a colon, which RFC 5322 section 4.5 knows, are not in `index`.
        yield Finding("header_malformed", excerpt(next(name for name in index if name.translate(None, _NAME))))
    for name in _SHOWN:
        raw = message.fields[index[name][0]].value if name in index else b""
        if not raw.isascii() and not (tx.envelope.smtputf8 and _is_utf_8(raw)):  # RFC 6532
            yield Finding("header_8bit", name.decode())
            break


def _message_id(message: Message) -> Iterator[Finding]:
    if b"message-id" not in message.index:
        yield Finding("message_id_missing")
        return
    message_id = value(message, b"message-id")
    if not _MESSAGE_ID.fullmatch(message_id):
        yield Finding("message_id_malformed", excerpt(message_id) or "empty")


def _recipients(message: Message) -> Iterator[Finding]:
    index = message.index
    if b"to" not in index:
        if b"cc" not in index:
            yield Finding("to_missing")
        return
    to = message.fields[index[b"to"][0]].value
    if b"@" in to:
        return
    if b":" in to:  # a group without members (RFC 5322 section 3.4)
        yield Finding("undisclosed_recipients", excerpt(value(message, b"to")))
    elif b"cc" not in index:
        yield Finding("to_malformed", excerpt(value(message, b"to")) or "empty")


def _repeated(message: Message) -> Iterator[Finding]:
    index = message.index
    for symbol, names in (("header_repeated", _ONCE), ("list_header_repeated", _ONCE_OF_LISTS)):
        repeated = [name for name in names if name in index and len(index[name]) > 1]
        if repeated:
            alike = all(len({field.value.strip() for field in message.all(name)}) == 1 for name in repeated)
            # Programs that read the one or the other agree all the same.
            yield Finding(symbol, b", ".join(repeated).decode(), 0.25 if alike else 1.0)


def _is_utf_8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
