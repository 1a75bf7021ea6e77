"""How much mail a login, a sender domain and a client may send: a stolen account stops while all others send on.

What is counted is what was let pass.  An attempt beyond a limit is taken back from all windows: retries neither prolong a
window nor use up another one, and one account can't use up the limits of its domain after its own.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import NamedTuple

from authmilter.check import Tools, Words, check
from authmilter.config.option import Limit, Limits, Networks, Seconds, kind_of, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.interfaces import Entry, Increment, Space
from authmilter.model import Direction, Stage, Transaction
from authmilter.verdict import Action
from authmilter.words import counted, seconds

SENT = Space("sent", personal=True, help="what a login, domain or client sent in a window")
TOLD = Space("sent_alarm", personal=True, help="an alarm was given for this window")

_TIMES = {60.0: "minute", 3600.0: "hour", 86400.0: "day", 604800.0: "week"}


@dataclass(frozen=True)
class OutboundLimits:
    """How much mail of ours may go out: that of users who logged in, and that of clients in [networks] internal.

    A limit is a number of messages or recipients in a time, such as 60/1m, 300/1h, 1000/1d; the time runs from the first
    that is counted.  What is beyond is deferred, with 451 4.7.1 and the time to wait in the reply, and [alarm] tells of it once
    in that time.  `outbound_limit = quarantine` in [scores] holds such messages instead of deferring them, and
    `outbound_recipients_limit = quarantine` those with recipients beyond their limit.

    Mail that a program of this machine hands to the MTA without SMTP, and bounces, are not limited.  Without the state store
    there is no limit.
    """

    login_messages: Limits = option(
        (), "Messages that a login may send.  [outbound_limits LOGIN] gives a login limits of its own."
    )
    login_recipients: Limits = option((), "Recipients to whom a login may send.")
    domain_messages: Limits = option(
        (),
        "Messages that may be sent under a domain in MAIL FROM.  Have the MTA see to it that nobody writes the domain of "
        "another there (reject_sender_login_mismatch of Postfix), else he can use up its limit.",
    )
    domain_recipients: Limits = option((), "Recipients to whom may be sent under a domain in MAIL FROM.")
    client_messages: Limits = option(
        (), "Messages that a client may send, whoever logs in there: one address, or the /64 of an IPv6 address."
    )
    client_recipients: Limits = option((), "Recipients to whom a client may send.")
    recipients_per_message: int = option(
        0,
        "Recipients that one message may have; 0: any number.  More of them are deferred with 452 4.5.3.",
        at_least=0,
        at_most=9999,
    )
    skip: Networks = option(
        (),
        "Clients that are not limited as such, like a webmail server.  The limits of logins and domains hold there too.",
    )


class _Window(NamedTuple):
    """One limit, and for whom it is; `subject` is its kind and name, ``login alice@example.org``."""

    subject: str
    what: str  # messages or recipients
    limit: Limit

    @property
    def key(self) -> str:
        """Where it is kept; what stands before it is all that a subject has."""
        return f"{self.subject} {self.what}/{self.limit.period:.15g}"

    def __str__(self) -> str:
        period = _TIMES.get(self.limit.period) or kind_of(Seconds).write(self.limit.period)
        return f"{counted(self.limit.count, self.what)} per {period}"


def _limits_messages(config: Config) -> bool:
    options = config.of(OutboundLimits)
    return bool(options.login_messages or options.domain_messages or options.client_messages) or any(
        own.messages for own in config.login_limits.values()
    )


def _limits_recipients(config: Config) -> bool:
    options = config.of(OutboundLimits)
    return bool(
        options.login_recipients
        or options.domain_recipients
        or options.client_recipients
        or options.recipients_per_message
    ) or any(own.recipients or own.recipients_per_message for own in config.login_limits.values())


@check(
    Stage.MAIL,
    scores={"outbound_limit": Action.TEMPFAIL},
    options=OutboundLimits,
    wanted=_limits_messages,
    direction=Direction.OUTBOUND,
    replies={"outbound_limit": Words("7.1", lambda _, detail: f"Limit of {detail}")},
)
async def outbound_limits(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The login, sender domain or client has sent as many messages as it may for now."""
    async for finding in _spend("outbound_limit", _windows(tx, tools.config, "messages"), tools):
        yield finding


@check(
    Stage.RCPT,
    scores={"outbound_recipients_limit": Action.TEMPFAIL, "outbound_many_recipients": Action.TEMPFAIL},
    wanted=_limits_recipients,
    direction=Direction.OUTBOUND,
    replies={
        "outbound_recipients_limit": Words("7.1", lambda _, detail: f"Limit of {detail}"),
        # RFC 5321 section 4.5.3.1.10: 452, upon which the client sends the rest in another message
        "outbound_many_recipients": Words("5.3", lambda _, detail: f"Limit of {detail}", temporary=452),
    },
)
async def outbound_recipients(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The login, sender domain or client has sent to as many recipients as it may for now, or in one message."""
    own = tools.config.login_limits.get(tx.envelope.auth_user.lower())
    most = (own or tools.config.of(OutboundLimits)).recipients_per_message
    if 0 < most < len(tx.envelope.forward_paths):
        yield Finding(
            "outbound_many_recipients", f"{counted(most, 'recipients')} per message, send to the others in another one"
        )
        return
    async for finding in _spend("outbound_recipients_limit", _windows(tx, tools.config, "recipients"), tools):
        yield finding


def _windows(tx: Transaction, config: Config, what: str) -> list[_Window]:
    """All windows that one more message or recipient counts in."""
    login = tx.envelope.auth_user.lower()
    if login in config.login_limits:
        own: Limits = getattr(config.login_limits[login], what)
        return [_Window(f"login {login}", what, limit) for limit in own]
    options = config.of(OutboundLimits)
    subjects = []
    if login:
        subjects.append(("login", login))
    if tx.envelope.reverse_path is not None and tx.envelope.reverse_path.domain:
        subjects.append(("domain", tx.envelope.reverse_path.domain))
    client = tx.connection.client_ip
    if client is not None and not any(client in network for network in options.skip):
        subjects.append(("client", _client(client)))
    return [
        _Window(f"{kind} {name}", what, limit)
        for kind, name in subjects
        for limit in getattr(options, f"{kind}_{what}")
    ]


def _client(address: IPv4Address | IPv6Address) -> str:
    """An IPv6 host has its /64 to itself, and can send from any address of it."""
    return str(address if address.version == 4 else IPv6Network((int(address) >> 64 << 64, 64)))


async def _spend(symbol: str, windows: Sequence[_Window], tools: Tools) -> AsyncIterator[Finding]:
    """Count one more in each window; if one of them is used up, in none."""
    if not windows:
        return
    entries = await tools.store.incr_many([_increment(window, 1.0) for window in windows])
    used_up = [(w, entry) for w, entry in zip(windows, entries, strict=True) if entry.total > w.limit.count]
    if not used_up:
        return
    # First of all, since a store that fails from here on changes nothing about it.
    yield Finding(symbol, _detail(*max(used_up, key=lambda pair: pair[1].ttl)))
    await tools.store.incr_many([_increment(window, -1.0) for window in windows])
    for window, entry in used_up:
        if await tools.store.add(TOLD, window.key, b"", ttl=max(entry.ttl, 1.0)) is None:
            tools.alarm("outbound_limit", window.subject, f"{window.subject} has used up its limit of {window}")


def _increment(window: _Window, amount: float) -> Increment:
    return Increment(SENT, window.key, window.limit.period, amount)


def _detail(window: _Window, entry: Entry) -> str:
    kind, _, name = window.subject.partition(" ")
    whom = "this login" if kind == "login" else name
    return f"{window} for {whom} is used up, try again in {seconds(entry.ttl)}"
