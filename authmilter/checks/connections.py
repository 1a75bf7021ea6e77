"""How many connections a client has, and how fast it makes them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.check import Tools, When, Words, check, record
from authmilter.config.option import Limits, Networks, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.identities import network
from authmilter.interfaces import Increment, Space
from authmilter.model import Stage, Transaction
from authmilter.networks import contains
from authmilter.verdict import Action, Ruling
from authmilter.words import seconds

OPEN = Space(
    "connections_open",
    personal=True,
    help="connections of an address or network that are open",
    release=b"",
    keys=("{subject}",),
)
RATE = Space(
    "connections_rate",
    personal=True,
    help="connections of an address or network in a window",
    release=b"",
    keys=("{subject} {period:g}",),
)

LIFE = 300.0  # seconds for which open connections are counted, from the first one on
_SLACK = 2.0  # seconds that may pass from a connection to its count in the store


@dataclass(frozen=True)
class Connections:
    """How many connections a client may have, at once and in a time.

    What is beyond is answered with 421 4.7.0, which ends the connection; the client tries again later.  A network is the
    /24 of an IPv4 address or the /64 of an IPv6 address; who has a /64 has any number of addresses in it, so that for
    IPv6 only limits for networks help.  Attempts that were refused count too; the time of a rate runs from the first
    connection that is counted, so that nobody is kept out longer than that.  Open connections are counted anew every five
    minutes, since a machine that fails can't take back its share.

    Clients in [networks] internal and trusted_relays have no limit.  Without the state store nobody has one.

    Postfix tells the client in words of its own, `421 HOST Service unavailable - try again later`; ours are in its log.
    """

    per_address: int = option(0, "Connections at once from one address; 0: any number.", at_least=0, at_most=10**6)
    per_network: int = option(0, "Connections at once from one network; 0: any number.", at_least=0, at_most=10**6)
    rate_address: Limits = option((), "New connections from one address, such as 30/1m, 300/1h; empty: any number.")
    rate_network: Limits = option((), "New connections from one network; empty: any number.")
    exempt: Networks = option((), "Clients without these limits, such as large providers and gateways.")


def _is_limited(config: Config) -> bool:
    options = config.of(Connections)
    return bool(options.per_address or options.per_network or options.rate_address or options.rate_network)


def _words(_: Transaction, detail: str) -> str:
    return f"Too many connections from {detail}"


@check(
    Stage.CONNECT,
    scores={"connections_exceeded": Action.TEMPFAIL, "connection_rate_exceeded": Action.TEMPFAIL},
    options=Connections,
    wanted=_is_limited,
    replies={"connections_exceeded": Words("7.0", _words), "connection_rate_exceeded": Words("7.0", _words)},
)
async def connections(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """More connections from the client or its network than [connections] allows."""
    options = tools.options
    subjects = _subjects(tx, options)
    limited = [(who, most) for who, most, _ in subjects if most]
    rates = [(who, limit) for who, _, limits in subjects for limit in limits]
    if not limited and not rates:
        return
    entries = await tools.store.incr_many(
        [Increment(OPEN, who, LIFE) for who, _ in limited]
        + [Increment(RATE, f"{who} {limit.period:g}", limit.period) for who, limit in rates]
    )
    for (who, most), entry in zip(limited, entries, strict=False):
        if entry.total > most:
            yield Finding("connections_exceeded", f"{who} at once, please close some of them first")
            break
    waits = [
        (entry.ttl, who)
        for (who, limit), entry in zip(rates, entries[len(limited) :], strict=True)
        if entry.total > limit.count
    ]
    if waits:
        wait, who = max(waits)
        yield Finding("connection_rate_exceeded", f"{who}, please try again in {seconds(wait)}")


@record("connections", When.CLOSE)
async def take_back(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:  # noqa: ARG001
    """The connection is over: it is no longer one of those that are open."""
    keys = [(OPEN, who) for who, most, _ in _subjects(tx, tools.options) if most]
    if not keys:
        return
    # Only from the count that it is in: another may have begun since.
    age = tools.now - tx.connection.since - _SLACK
    entries = await tools.store.get_many(keys)
    over = [Increment(*key, LIFE, -1.0) for key, entry in zip(keys, entries, strict=True) if entry and entry.age >= age]
    if over:
        await tools.store.incr_many(over)


def _subjects(tx: Transaction, options: Connections) -> list[tuple[str, int, Limits]]:
    """Who is counted: the client and its network, with their limits."""
    address = tx.connection.client_ip
    if address is None or contains(options.exempt, address):
        return []
    return [
        (str(address), options.per_address, options.rate_address),
        (network(address), options.per_network, options.rate_network),
    ]
