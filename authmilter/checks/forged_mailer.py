"""Messages that claim to be written by a program, but lack what this program always writes."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import is_list, value
from authmilter.model import Message, Stage, Transaction

_HEX = rb"[0-9A-Fa-f]"
_UUID = rb"%b{8}-%b{4}-%b{4}-%b{4}-%b{12}" % ((_HEX,) * 5)
# The Message-ID of Outlook and Outlook Express without Exchange: counter, time, process.
_OUTLOOK_ID = re.compile(rb"<[0-9a-f]{12}\$[0-9a-f]{8}\$[0-9a-f]{8}@[^>]*+>")
_OUTLOOK_BOUNDARY = re.compile(rb'boundary="?-{4}=_NextPart_\w{3}_\w{4}_\w{8}\.\w{8}', re.IGNORECASE)
_OUTLOOK = (
    b"Microsoft Outlook",
    b"MSN Explorer",
    b"Microsoft CDO",
    b"Microsoft Windows Live Mail",
    b"Microsoft Windows Mail",
    b"Produced By Microsoft",
)
# Today's Thunderbird writes a UUID, the older one time and a random number in hexadecimal.
_THUNDERBIRD_ID = re.compile(rb"<(?:%b|[0-9A-F]{8}\.[0-9]{1,8})@[^>]*+>" % _UUID)
# Servers that give a message an identifier of their own: a news server, and relays for what is sent by their users.
_SERVER_ID = re.compile(rb"<[0-9a-z]{4,8}\$[0-9a-z]{1,6}\$[0-9]{1,3}@[^>]*+>")
_SERVERS = (b".outlook.com>", b"@phx.gbl>", b".amazonses.com>", b"@mtasv.net>")
_APPLE_ID = re.compile(rb"<%b@[^>]*+>" % _UUID)
_APPLE = (b"Apple Mail", b"iPhone Mail", b"iPad Mail")
_GOOGLE_FIELDS = (b"x-gm-message-state", b"x-google-dkim-signature", b"x-google-smtp-source")


@check(Stage.EOM, scores={"forged_outlook": 1.0, "forged_mailer": 0.8})
def forged_mailer(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """The message says that Outlook, Thunderbird, Apple Mail or Gmail wrote it, and does not look like it."""
    message = tx.message
    mailer = value(message, b"x-mailer") or value(message, b"user-agent")
    message_id = value(message, b"message-id")
    if _is_false_outlook(message, mailer, message_id):
        yield Finding("forged_outlook", mailer[:60].decode("utf-8", "backslashreplace"))
    elif _is_false(message, mailer, message_id):
        yield Finding("forged_mailer", (mailer or message_id)[:60].decode("utf-8", "backslashreplace"))


def _is_false_outlook(message: Message, mailer: bytes, message_id: bytes) -> bool:
    index = message.index
    if b"x-msmail-priority" in index and b"x-mimeole" not in index and not is_list(message):
        return True  # all that write the one write the other, unless a list took it out
    if not mailer:
        return b"$" in message_id and _OUTLOOK_ID.fullmatch(message_id) is not None
    if mailer.startswith(b"Microsoft Outlook") and not mailer.startswith(b"Microsoft Outlook Express"):
        # The first is of Outlook 97 to 2007, the second of later ones.
        return b"x-mimeole" not in index and b"thread-index" not in index and not is_list(message)
    return False


def _is_false(message: Message, mailer: bytes, message_id: bytes) -> bool:
    if b"Thunderbird" in mailer or mailer.startswith(_APPLE):
        usual = _THUNDERBIRD_ID if b"Thunderbird" in mailer else _APPLE_ID
        return not (usual.fullmatch(message_id) or message_id.endswith(_SERVERS) or _SERVER_ID.fullmatch(message_id))
    if message_id.endswith(b"@mail.gmail.com>"):
        return not any(name in message.index for name in _GOOGLE_FIELDS)
    content_type = value(message, b"content-type")
    if b"_NextPart_" in content_type and not mailer.startswith(_OUTLOOK):
        return b"x-mimeole" not in message.index and _OUTLOOK_BOUNDARY.search(content_type) is not None
    return False
