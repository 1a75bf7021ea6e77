"""Messages that claim to be written by a program, but lack what this program always writes."""

import re
from collections.abc import Iterator

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import excerpt, is_list, value
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
# Servers that give a message an identifier of their own: a news server, Exchange, and relays for what their users send.
_SERVER_ID = re.compile(rb"<(?:[0-9a-z]{4,8}\$[0-9a-z]{1,6}\$[0-9]{1,3}|[0-9A-Fa-f]{32})@[^>]*+>")
_SERVERS = (b".outlook.com>", b"@phx.gbl>", b".amazonses.com>", b"@mtasv.net>")
_APPLE_ID = re.compile(rb"<%b@[^>]*+>" % _UUID)
_APPLE = (b"Apple Mail", b"iPhone Mail", b"iPad Mail")
_GOOGLE_FIELDS = (b"x-gm-message-state", b"x-google-dkim-signature", b"x-google-smtp-source")


@check(
    Stage.EOM,
    content=True,
    scores={"forged_outlook": 1.0, "forged_mailer": 0.8},
    meanings={
        "forged_outlook": "It claims to be of Outlook, and lacks what Outlook writes.",
        "forged_mailer": (
            "It claims to be of Thunderbird, Apple Mail or Gmail, or has a boundary as Outlook writes it, and "
            "does not fit."
        ),
    },
)
def forged_mailer(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """The message says that Outlook, Thunderbird, Apple Mail or Gmail wrote it, and does not look like it.

    Mail of lists has half of the weight, since some take fields out or write a Message-ID of their own.
    """
    message = tx.message
    mailer = value(message, b"x-mailer") or value(message, b"user-agent")
    message_id = value(message, b"message-id")
    share = 0.5 if is_list(message) else 1.0
    reason, strength = _outlook(message, mailer, message_id)
    if reason:
        yield Finding("forged_outlook", reason, strength * share)
        return
    reason = _other(message, mailer, message_id)
    if reason:
        yield Finding("forged_mailer", reason, share)


def _outlook(message: Message, mailer: bytes, message_id: bytes) -> tuple[str, float]:
    """Why it is not of Outlook, as it says, and how much that tells; "" if it may be, or does not say so."""
    index = message.index
    if b"x-msmail-priority" in index and b"x-mimeole" not in index and not is_list(message):
        # All of Microsoft that write the one write the other.  Scripts that name themselves have it by hearsay.
        named = mailer and not mailer.startswith(_OUTLOOK)
        return "X-MSMail-Priority without X-MimeOLE", 0.3 if named else 1.0
    if not mailer:
        forged = b"$" in message_id and _OUTLOOK_ID.fullmatch(message_id) is not None
        return (f"{excerpt(message_id)} without X-Mailer", 1.0) if forged else ("", 0.0)
    if (
        not mailer.startswith(b"Microsoft Outlook")
        or mailer.startswith(b"Microsoft Outlook Express")
        or is_list(message)
    ):
        return "", 0.0
    # The first is of Outlook 97 to 2007, the second of later ones.
    forged = b"x-mimeole" not in index and b"thread-index" not in index
    return (f"{excerpt(mailer)} without Thread-Index", 1.0) if forged else ("", 0.0)


def _other(message: Message, mailer: bytes, message_id: bytes) -> str:
    """The same for other programs."""
    index = message.index
    if b"Thunderbird" in mailer or mailer.startswith(_APPLE):
        usual = _THUNDERBIRD_ID if b"Thunderbird" in mailer else _APPLE_ID
        if usual.fullmatch(message_id) or b"thread-topic" in index or _is_of_server(message_id):
            return ""
        return f"{excerpt(mailer)} with Message-ID {excerpt(message_id) or 'missing'}"
    if message_id.endswith(b"@mail.gmail.com>"):
        return "" if any(name in index for name in _GOOGLE_FIELDS) else f"{excerpt(message_id)} without fields of Gmail"
    content_type = value(message, b"content-type")
    if b"_NextPart_" in content_type and not mailer.startswith(_OUTLOOK) and b"x-mimeole" not in index:
        return "a boundary of Outlook" if _OUTLOOK_BOUNDARY.search(content_type) else ""
    return ""


def _is_of_server(message_id: bytes) -> bool:
    return message_id.endswith(_SERVERS) or _SERVER_ID.fullmatch(message_id) is not None
