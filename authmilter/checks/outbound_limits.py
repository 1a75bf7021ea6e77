"""How much mail a login, a sender domain and a client may send: a stolen account stops while all others send on.

What is counted is what was let pass: retries beyond a limit neither prolong a window nor use up another one.  So the
windows are read before they are counted in.  Of those who race for the last places of a window some count all the same,
and take that back; meanwhile others could hear that the window is used up.  Therefore one window is counted after the other,
those first that fewest share: what is stopped by the limit of its login never reaches a window that it shares with others.

A message counts together with its first recipient, and not at MAIL: by default Postfix applies its restrictions of senders,
such as that nobody writes the address of another, only to recipients, and shows us those that it lets pass.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from itertools import groupby
from typing import NamedTuple

from authmilter.check import Tools, Words, check
from authmilter.config.endpoint import login_key
from authmilter.config.option import Limit, Limits, Networks, Seconds, kind_of, option
from authmilter.config.schema import Config, LoginLimits
from authmilter.evidence import Finding
from authmilter.interfaces import Entry, Increment, Space, Store
from authmilter.model import Direction, Stage, Transaction
from authmilter.networks import contains
from authmilter.verdict import Action
from authmilter.words import counted, seconds

_KEYS = tuple(  # see `_Window.key`
    f"{kind} {{subject}} {what}/{{period:.15g}}"
    for kind in ("login", "domain", "client")
    for what in ("messages", "recipients")
)
SENT = Space("sent", personal=True, help="what a login, domain or client sent in a window", release=b"", keys=_KEYS)
TOLD = Space("sent_alarm", personal=True, help="an alarm was given for this window", release=b"", keys=_KEYS)

_SYMBOLS = {"messages": "outbound_limit", "recipients": "outbound_recipients_limit"}
_TIMES = {60.0: "minute", 3600.0: "hour", 86400.0: "day", 604800.0: "week"}


@dataclass(frozen=True)
class OutboundLimits:
    """How much mail of ours may go out: that of users who logged in, and that of clients in [networks] internal.

    A limit is a number of messages or recipients in a time, such as 60/1m, 300/1h, 1000/1d; the time runs from the first
    that is counted.  What is beyond is deferred, with 451 4.7.1 and the time to wait in the reply, and [alarm] tells of it once
    in that time.  `outbound_limit = quarantine` in [scores] holds such messages instead of deferring them, and
    `outbound_recipients_limit = quarantine` those with recipients beyond their limit.

    A message counts with its first recipient; recipients that [recipient_domain] refuses count like others.  A login is
    the same however it is written: case, blanks around it and forms of Unicode make no difference.

    Mail that a program of this machine hands to the MTA without SMTP, and bounces, are not limited.  What programs of this
    machine send by SMTP, such as webmail and web applications, counts for the client 127.0.0.1 or ::1, all of it together,
    unless that is in `skip`.  Without the state store there is no limit; nor with `enforce = no` in [policy], where only
    [alarm] tells of what is beyond.
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


def _is_limited(config: Config) -> bool:
    options = config.of(OutboundLimits)
    return bool(
        options.login_messages
        or options.login_recipients
        or options.domain_messages
        or options.domain_recipients
        or options.client_messages
        or options.client_recipients
        or options.recipients_per_message
    ) or any(own.messages or own.recipients or own.recipients_per_message for own in config.login_limits.values())


def _words(_: Transaction, detail: str) -> str:
    return f"Limit of {detail}"


@check(
    Stage.RCPT,
    scores=dict.fromkeys((*_SYMBOLS.values(), "outbound_many_recipients"), Action.TEMPFAIL),
    meanings={
        "outbound_limit": "It has sent as many messages as it may for now.",
        "outbound_recipients_limit": "It has sent to as many recipients as it may for now.",
        "outbound_many_recipients": "One message has more recipients than it may.",
    },
    options=OutboundLimits,
    wanted=_is_limited,
    direction=Direction.OUTBOUND,
    replies={
        "outbound_limit": Words("7.1", _words),
        "outbound_recipients_limit": Words("7.1", _words),
        # RFC 5321 section 4.5.3.1.10: 452, upon which the client sends the rest in another message
        "outbound_many_recipients": Words("5.3", _words, temporary=452),
    },
)
async def outbound_limits(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The login, sender domain or client has sent as much as it may for now, or this message to as many recipients."""
    number = len(tx.envelope.forward_paths)
    login = login_key(tx.envelope.auth_user)
    own = tools.config.login_limits.get(login)
    most = (own or tools.options).recipients_per_message
    if 0 < most < number:
        yield Finding(
            "outbound_many_recipients", f"{counted(most, 'recipients')} per message, send to the others in another one"
        )
        return
    # Those that were refused are not there, so the first of those who stay is the first.  (One whom another check of this
    # stage refuses was counted, and the message is counted once more with the next.)
    windows = _windows(tx, login, tools.config, ("messages", "recipients") if number == 1 else ("recipients",))
    while windows:
        used_up, to_take_back = await _spend(windows, tools.store)
        try:
            # First of all, since a store that fails from here on changes nothing about it.
            for window, entry in used_up:
                yield Finding(_SYMBOLS[window.what], _detail(window, entry))
        finally:
            if to_take_back:
                await tools.store.incr_many([_increment(window, -1.0) for window in to_take_back])
        for window, entry in used_up:
            if await tools.store.add(TOLD, window.key, b"", ttl=max(entry.ttl, 1.0)) is None:
                tools.alarm("outbound_limit", window.subject, f"{window.subject} has used up its limit of {window}")
        full = {window.what for window, _ in used_up}
        if not full or any(_defers(tools.config, _SYMBOLS[what]) for what in full):
            return
        # It goes on all the same, so it counts under the limits of the other kind.
        windows = [window for window in windows if window.what not in full]


def _defers(config: Config, symbol: str) -> bool:
    return config.policy.enforce and config.scores.get(symbol, Action.TEMPFAIL) in (Action.TEMPFAIL, Action.REJECT)


def _windows(tx: Transaction, login: str, config: Config, kinds: Sequence[str]) -> list[_Window]:
    """All windows that one more of these kinds counts in: by subject, that which fewest share first, the short ones first."""
    options = config.of(OutboundLimits)
    own = config.login_limits.get(login)
    client, path = tx.connection.client_ip, tx.envelope.reverse_path
    subjects: list[tuple[str, OutboundLimits | LoginLimits, str]] = []
    if own is not None:
        subjects.append((f"login {login}", own, ""))
    else:
        if tx.envelope.auth_user:
            subjects.append((f"login {login}", options, "login_"))
        if client is not None and not contains(options.skip, client):
            subjects.append((f"client {_client(client)}", options, "client_"))
        if path is not None and path.domain:
            subjects.append((f"domain {path.domain}", options, "domain_"))
    windows = []
    for subject, section, prefix in subjects:
        limits = [(what, limit) for what in kinds for limit in getattr(section, prefix + what)]
        limits.sort(key=lambda pair: (pair[1].period, pair[0]))  # messages before recipients
        windows += [_Window(subject, what, limit) for what, limit in limits]
    return windows


def _client(address: IPv4Address | IPv6Address) -> str:
    """An IPv6 host has its /64 to itself, and can send from any address of it."""
    return str(address if address.version == 4 else IPv6Network((int(address) >> 64 << 64, 64)))


async def _spend(windows: Sequence[_Window], store: Store) -> tuple[list[tuple[_Window, Entry]], list[_Window]]:
    """Count one more in each window, or stop where one is used up.

    Returns what is used up, one window of a kind at most, the longest wait first; and the windows in which this
    attempt was counted although it must not.  Where the store fails midway, the message goes on, and counts as far as it
    was counted.
    """
    known = await store.get_many([(SENT, window.key) for window in windows])
    full = [(w, entry) for w, entry in zip(windows, known, strict=True) if entry and entry.total >= w.limit.count]
    if full:
        full.sort(key=lambda pair: pair[1].ttl, reverse=True)
        longest: dict[str, tuple[_Window, Entry]] = {}
        for window, entry in full:
            longest.setdefault(window.what, (window, entry))
        return list(longest.values()), []
    so_far: list[_Window] = []
    # One by one: recipients of messages that must not go would else be counted beside those that may, and for a moment
    # use up what is not used up.
    for _, group in groupby(windows, lambda window: (window.subject, window.limit.period, window.what)):
        together = list(group)
        so_far += together
        entries = await store.incr_many([_increment(window, 1.0) for window in together])
        over = [(w, entry) for w, entry in zip(together, entries, strict=True) if entry.total > w.limit.count]
        if over:
            return over, so_far
    return [], []


def _increment(window: _Window, amount: float) -> Increment:
    return Increment(SENT, window.key, window.limit.period, amount)


def _detail(window: _Window, entry: Entry) -> str:
    kind, _, name = window.subject.partition(" ")
    whom = "this login" if kind == "login" else name
    return f"{window} for {whom} is used up, try again in {seconds(entry.ttl)}"
