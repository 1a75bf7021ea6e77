"""Greylisting of the doubtful (RFC 6647): a stranger is asked to come again, which most senders of spam never do.

What is remembered is a *triplet* of client, reverse-path and forward-path, and *clients* whose mail came again and
was accepted.  A client is the domain for which SPF passes, so that all hosts of a large sender are one, and else the
network.  Nothing is written for those who are not in doubt.

Whoever asks makes an entry, so how many a network can make is bounded: behind `MAX_NEW` triplets in a day all that is
new from there waits under one key.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from authmilter.check import Tools, Words, check, record
from authmilter.checks import correspondents, reputation
from authmilter.checks.generic_rdns import is_generic
from authmilter.config import endpoint
from authmilter.config.option import Names, Networks, Seconds, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding, Result
from authmilter.identities import address_of, client_network, confirmed_name, result_of, site, spf_domain
from authmilter.interfaces import Entry, Increment, Space, Store
from authmilter.model import Direction, Mailbox, Stage, Transaction
from authmilter.networks import contains, names_contain
from authmilter.verdict import Action, Ruling
from authmilter.words import seconds

# What an entry says; that of a triplet that waits is empty, and a client without ALLOWED is a count of successes.
PASSED, ALLOWED = b"passed", b"allowed"

TRIPLET = Space(
    "greylist",
    personal=True,
    help="client, sender and recipient; waits since its age, or passed",
    release=PASSED,
    keys=("{client} {sender} {recipient}", "{subject} *"),
)
NEW = Space("greylist_new", help="new triplets of a network in a day; beyond the bound they wait as one")
CLIENT = Space("greylist_clients", help="client that waits no more, or how often its mail came again")

MAX_NEW = 100  # triplets that a network can add in `DAY`, give or take those that come at the very same time
DAY = 86400.0  # seconds
MAX_RECORDED = 50  # recipients of a message whose triplets are remembered
REFRESH = 86400.0  # seconds after which the time of what is known begins anew when it is used

# RFC 5321 section 4.5.1, RFC 2142: where people write who can't reach us otherwise.
_ALWAYS_OPEN = ("postmaster", "abuse")

_SPF_DOUBTS = {
    Result.FAIL: "SPF fail",
    Result.SOFTFAIL: "SPF softfail",
    Result.PERMERROR: "the SPF record can't be used",
}
_SPF_SILENT = (Result.NONE, Result.NEUTRAL)


@dataclass(frozen=True)
class Greylist:
    """The first attempt of the doubtful is refused for a while: 451 4.7.1.

    Good senders try again; much of what sends spam does not, and what does is on a blocklist by then.  Who is in doubt:

        listed: on a DNS blocklist, though not refused for that.
        no name: no reverse DNS, or a name that does not lead back.
        generic name: one like that of a dynamic line.
        SPF: fail, softfail, or a record that can't be used.
        new network: no SPF (none, neutral), and no mail known from there.

    A temporary failure of the DNS is no doubt.  Never greylisted are mail to postmaster and abuse, clients on a DNS
    welcomelist, in [access] accept, [forwarders] or [spf] skip, what the options here except, known correspondents (see
    [correspondents]), and domains of good reputation for which SPF passes (see [reputation]).

    What has to wait is the triplet of client, sender and recipient; digits and tags in the sender's address don't
    count.  The client is the domain for which SPF passes, so that it may come again from any of its hosts, else the
    network: a /24, or a /64 of IPv6.  A pass that anyone may have names no client: by "all", a network of /8 (/16 of
    IPv6) or wider, "exists", or names made from the client's address.  Whoever comes too early is told the rest of the
    time, which does not begin anew.  A client whose mail came again and was accepted, unmarked, waits no more, as long as it is heard of within
    `pass_ttl`.

    A network (/24, or /48 of IPv6) can add 100 triplets in a day.  What is new beyond these waits as one: it passes once
    the first of it has waited, and makes nobody known.

    Bounces (the null reverse-path) are refused at DATA instead, so that who only asks whether an address exists, as
    some servers do before they take mail of ours, has his answer at once.
    """

    enabled: bool = option(False, "Switch it on.")
    who: Literal["doubtful", "all"] = option(
        "doubtful", "Who is greylisted: the doubtful, as told above, or all who are not excepted."
    )
    delay: Seconds = option(
        Seconds(300.0), "How long a new triplet must wait, from its first attempt.", at_least=1, at_most=6 * 3600
    )
    window: Seconds = option(
        Seconds(2 * 86400.0),
        "Who comes again later than this after his first attempt is new.",
        at_least=12 * 3600,
        at_most=30 * 86400,
    )
    pass_ttl: Seconds = option(
        Seconds(35 * 86400.0),
        "For how long clients and triplets that passed are known after they were heard of.",
        at_least=86400,
        at_most=3650 * 86400,
    )
    auto_allow: int = option(
        1,
        "After so many messages that came again and were accepted a client waits no more, whoever it writes for; 0: "
        "every triplet waits.",
        at_least=0,
        at_most=1000,
    )
    except_networks: Networks = option((), "Clients that are never greylisted.")
    except_domains: Names = option(
        (),
        "Domains that are never greylisted, if SPF passes for them, or if they are the client's confirmed name; a "
        "leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )
    except_recipients: Names = option(
        (), "Recipients, as domains or mailboxes, whose mail never waits.", each=endpoint.recipient
    )


def _is_on(config: Config) -> bool:
    return config.of(Greylist).enabled


def _text(tx: Transaction, detail: str) -> str:  # noqa: ARG001
    wait, _, reason = detail.partition(": ")
    return f"Greylisted, please try again in {wait} ({reason})"


@check(
    Stage.RCPT,
    scores={"greylist": Action.TEMPFAIL},
    options=Greylist,
    replies={"greylist": Words("7.1", _text)},
)
async def greylist(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The client is in doubt, and new to this sender and recipient: it must come again."""
    if tx.envelope.reverse_path is not None:
        detail = await _detail(tx, tx.envelope.forward_paths[-1], tools, tools.options)
        if detail:
            yield Finding("greylist", detail)


@check(
    Stage.DATA,
    scores={"greylist_bounce": Action.TEMPFAIL},
    wanted=_is_on,
    replies={"greylist_bounce": Words("7.1", _text)},
)
async def greylist_bounce(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The same for a bounce: the client is in doubt, and new to this recipient."""
    if tx.envelope.reverse_path is None:
        options = tools.config.of(Greylist)
        # A bounce has one recipient.  Of more, none can hide behind one whose mail never waits.
        recipient = next((path for path in tx.envelope.forward_paths if not _is_open(path, options)), None)
        detail = await _detail(tx, recipient, tools, options) if recipient is not None else ""
        if detail:
            yield Finding("greylist_bounce", detail)


async def _detail(tx: Transaction, recipient: Mailbox, tools: Tools, options: Greylist) -> str:
    """The time to wait and the reason; "" if this recipient's mail may pass.  Raises StoreError."""
    address, (reason, only_new) = tx.connection.client_ip, _doubt(tx, options)
    if address is None or not reason or _is_open(recipient, options) or _is_excepted(tx, options, tools.config):
        return ""
    client, network = _client(tx), site(address)
    triplet = _triplet(client, tx.envelope.reverse_path, recipient)
    seen, known, new = await _look_up(tx, client, network, triplet, recipient, tools, only_new=only_new)
    if known:
        return ""
    if seen is None:
        seen = await _begin(network, triplet, new, tools.store, options.window)
    elif not seen.age:
        # It may be from before the clock was set back: `add` then lets its time run again.
        seen = await tools.store.add(TRIPLET, triplet, b"", options.window)
    if seen is not None and seen.value == PASSED:
        return ""
    rest = options.delay - (0.0 if seen is None else seen.age)
    return f"{seconds(rest)}: {reason}" if rest > 0 else ""


async def _begin(network: str, triplet: str, new: Entry | None, store: Store, window: float) -> Entry | None:
    """Let a new triplet wait, on its own or with all that is new in its network; its entry, None if that is new too."""
    if new is not None and new.total >= MAX_NEW:
        return await store.add(TRIPLET, f"{network} *", b"", window)
    # One round trip.  A count has the age of its first increment: of all who race, nobody's time begins anew.
    entry, _ = await store.incr_many([Increment(TRIPLET, triplet, window), Increment(NEW, network, DAY)])
    return entry


async def _look_up(
    tx: Transaction, client: str, network: str, triplet: str, recipient: Mailbox, tools: Tools, *, only_new: bool
) -> tuple[Entry | None, bool, Entry | None]:
    """What is known of the triplet, whether the sender is known well enough to pass without it, and how many the network
    has added; in one round trip.
    """
    config, sender = tools.config, tx.envelope.reverse_path
    keys = [(TRIPLET, triplet), (CLIENT, client), (NEW, network)]
    if sender is not None and spf_domain(tx) and config.of(correspondents.Correspondents).enabled:
        contact = correspondents.key(sender, recipient.domain)
        keys += [(correspondents.CORRESPONDENT, contact)] if contact else []
    # That good mail came from the network shows that it is not new, but is nothing against a better reason.
    identity = reputation.spf_identity(tx) or (reputation.network_identity(tx) if only_new else "")
    options = config.of(reputation.Reputation)
    counts = reputation.keys_of([identity]) if identity and options.enabled else []
    entries = await tools.store.get_many([*keys, *counts])
    seen, allowed, new, *contacts = entries[: len(keys)]
    known = (allowed is not None and allowed.value == ALLOWED) or any(contact is not None for contact in contacts)
    if counts and not known:
        standing = reputation.standings([identity], entries[len(keys) :])[identity]
        known = standing.value(options.minimum) < 0
    return seen, known, new


def _client(tx: Transaction) -> str:
    """The client's part of the keys: what SPF passes for, else the network; "" if not even that is known."""
    return spf_domain(tx) or client_network(tx)


_WORD = re.compile(r"([^0-9a-z]+)")


def _triplet(client: str, sender: Mailbox | None, recipient: Mailbox) -> str:
    """The key of a triplet.

    Addresses made for one message (VERP, BATV, SRS) differ in words that have digits, and behind a plus sign.
    """
    if sender is None:
        return f"{client} <> {address_of(recipient)}"
    local_part, at, domain = address_of(sender).rpartition("@")
    words = _WORD.split(local_part.partition("+")[0])
    local_part = "".join(word if word.isalpha() or not word.isalnum() else "#" for word in words)
    return f"{client} {local_part}{at}{domain} {address_of(recipient)}"


def _doubt(tx: Transaction, options: Greylist) -> tuple[str, bool]:
    """Why the client is in doubt, "" if it is not; and does it count only if the network is new?  See `Greylist`."""
    if any(finding.symbol.startswith("dnsbl_") for _, finding in tx.findings):
        return "client is on a blocklist", False
    iprev = result_of(tx, "iprev")
    if iprev is not None and iprev.result is Result.PERMERROR:
        return "client has no reverse DNS", False
    if iprev is not None and iprev.result is Result.FAIL:
        return "reverse DNS of the client is not confirmed", False
    name, address = confirmed_name(tx), tx.connection.client_ip
    if name and address is not None and is_generic(name, address):
        return "name of the client is generic", False
    spf = result_of(tx, "spf")
    if spf is not None and spf.result in _SPF_DOUBTS:
        return _SPF_DOUBTS[spf.result], False
    if options.who == "all":
        return "first mail of its kind", False
    # A bounce has no sender for whom SPF could speak, and few hosts publish it for their HELO name.
    if spf is not None and spf.result in _SPF_SILENT and tx.envelope.reverse_path is not None:
        return "network is new here, and SPF does not say that it may send this", True
    return "", False


def _is_open(recipient: Mailbox, options: Greylist) -> bool:
    """Does mail to that recipient never wait?"""
    if recipient.address.rpartition("@")[0] in _ALWAYS_OPEN:
        return True
    names = options.except_recipients
    return names_contain(names, address_of(recipient)) or names_contain(names, recipient.domain)


def _is_excepted(tx: Transaction, options: Greylist, config: Config) -> bool:
    """Does mail of that client never wait?"""
    if any(f.symbol == "access_accept" or f.symbol.startswith("dnswl_") for _, f in tx.findings):
        return True
    client = tx.connection.client_ip
    if any(contains(each, client) for each in (options.except_networks, config.forwarders.networks, config.spf.skip)):
        return True
    name = confirmed_name(tx)
    return (
        names_contain(options.except_domains, name)
        or names_contain(options.except_domains, spf_domain(tx))
        or names_contain(config.forwarders.names, name)
    )


@record("greylist")
async def remember_passed(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
    """Remember who came again, once his message is accepted."""
    action = Action.CONTINUE if ruling is None else ruling.verdict.action
    client = _client(tx)
    if (
        action not in (Action.ACCEPT, Action.TAG, Action.QUARANTINE)
        or tx.envelope.direction is not Direction.INBOUND
        or not client
        or not _doubt(tx, tools.options)[0]
    ):
        return
    store, options = tools.store, tools.options
    recipients = tx.envelope.forward_paths[:MAX_RECORDED]
    triplets = list(dict.fromkeys(_triplet(client, tx.envelope.reverse_path, path) for path in recipients))
    known, *entries = await store.get_many([(CLIENT, client), *((TRIPLET, triplet) for triplet in triplets)])
    # What only a mark or the hold queue was good enough for is no reason to trust all that the client sends.
    trusted = action is Action.ACCEPT
    if known is not None and known.value == ALLOWED:
        if trusted and known.age > REFRESH:
            await store.put(CLIENT, client, ALLOWED, options.pass_ttl)
        return
    came_again = {
        triplet: entry
        for triplet, entry in zip(triplets, entries, strict=True)
        if entry is not None and (entry.value == PASSED or entry.age >= options.delay)
    }
    if not came_again:
        return
    if trusted and options.auto_allow:
        successes = 1.0
        if options.auto_allow > 1:
            successes = (await store.incr(CLIENT, client, options.pass_ttl)).total
        if successes >= options.auto_allow:
            await store.put(CLIENT, client, ALLOWED, options.pass_ttl)
            return
    await asyncio.gather(*(
        store.put(TRIPLET, triplet, PASSED, options.pass_ttl)
        for triplet, entry in came_again.items()
        if entry.value != PASSED or entry.age > REFRESH
    ))  # fmt: skip
