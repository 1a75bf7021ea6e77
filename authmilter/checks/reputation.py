"""Reputation: what came of earlier mail of the same domains and the same network.

For each of them two counts are kept, of ham and of spam, which fade to one half in `half_life`.  Its standing is::

    (spam - ham) / (spam + ham + minimum)        from -1, all good, to 1, all bad

which is the mean of a Beta distribution after that many outcomes, on the scale from -1 to 1, if before the first of
them both were as likely, with the weight of `minimum` outcomes.  So little evidence says little.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from math import inf, log2
from typing import NamedTuple

from authmilter.check import Tools, check, record
from authmilter.config.option import Seconds, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding, Result
from authmilter.identities import client_network, dkim_domains, result_of, spf_domain
from authmilter.interfaces import Entry, Increment, Space, Store
from authmilter.model import Direction, Stage, Transaction
from authmilter.networks import contains
from authmilter.verdict import Action, Ruling

HAM = Space("reputation_ham", help="good mail of a domain or network, fading")
SPAM = Space("reputation_spam", help="spam of a domain or network, fading", release=b"")

MAX_SIGNERS = 3  # domains with a valid signature that count; anybody can add more of his own
LEAST = 0.2  # a standing nearer to 0 says nothing
FADED = 0.5  # a count that has faded to this is forgotten: half an outcome changes nothing
HAM_BELOW = 1.0  # an accepted message scores less than this to be ham: what good but careless senders have is under it

_SPAM = (Action.REJECT, Action.QUARANTINE, Action.TAG, Action.DISCARD)
# Our own say, and that of people who are known, must not feed what it came from.
_OWN = frozenset(("reputation_bad", "reputation_good", "known_correspondent"))
# Whom the administrator does not want to hear of has not sent spam for that.
_NO_VERDICT = _OWN | {"access_reject"}


@dataclass(frozen=True)
class Reputation:
    """What came of earlier mail counts for or against the next.

    Counts of good mail and of spam are kept for the network of the client (/24, or /64 of IPv6) and for domains for
    which DKIM or SPF passes; any other domain may be forged.  They fade with time.  A standing is (spam - ham) / (spam +
    ham + minimum), from -1 to 1, and scales the weight of `reputation_bad` or `reputation_good`.

    The domain that the mail came from (SPF passes for it, or it signed, and DMARC passes by both) outranks the network;
    of several the one that is known best speaks.  An SPF pass that anyone may have, such as by +all, says nothing.  A
    valid signature alone may have been replayed by anybody: then the worse of network and signer speaks, so that the
    signature of a good domain says nothing where the network is not known, and spam is not held against the signer.

    Mail that is marked, held or refused, or that reached a spam trap, counts as spam; mail that is accepted with a score
    below 1.0 as good.  Weights of reputation itself have no part in that.  What is refused before its content arrives
    is held against the network alone; temporary refusals count for nothing.
    """

    enabled: bool = option(False, "Switch it on.")
    half_life: Seconds = option(
        Seconds(14 * 86400.0),
        "In this time a count fades to one half.",
        at_least=3600,
        at_most=365 * 86400,
    )
    ttl: Seconds = option(
        Seconds(90 * 86400.0),
        "Who was not heard of for this long is forgotten, or earlier, once what is known has faded to nothing.",
        at_least=3600,
        at_most=3650 * 86400,
    )
    minimum: float = option(
        5.0,
        "Messages below which nothing is said; at this number, if all were alike, the standing is one half.",
        at_least=1,
        at_most=1_000_000,
    )


class Standing(NamedTuple):
    """What is known of one identity: both counts, faded to now."""

    ham: float = 0.0
    spam: float = 0.0

    @property
    def evidence(self) -> float:
        """Outcomes known, in messages."""
        return self.ham + self.spam

    def value(self, minimum: float) -> float:
        """From -1, all good, to 1, all bad; 0 where that is not enough to say."""
        value = (self.spam - self.ham) / (self.evidence + minimum)
        return value if self.evidence >= minimum and abs(value) >= LEAST else 0.0


UNKNOWN = Standing()


class Identities(NamedTuple):
    """Who answers for a message, as keys: ``spf DOMAIN``, ``dkim DOMAIN``, ``net NETWORK``.

    `origin` are the domains that the mail came from, `signers` those whose signature alone is there, and `network` is ""
    if the client's address is not known.
    """

    origin: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()
    network: str = ""

    def all(self) -> tuple[str, ...]:
        """Every one of them."""
        return (*self.origin, *self.signers, *((self.network,) if self.network else ()))


def network_identity(tx: Transaction) -> str:
    """The client's network as key, "" if its address is not known."""
    found = client_network(tx)
    return f"net {found}" if found else ""


def spf_identity(tx: Transaction) -> str:
    """The domain for which SPF passes as key, "" if there is none."""
    found = spf_domain(tx)
    return f"spf {found}" if found else ""


def identities(tx: Transaction) -> Identities:
    """Who answers for the message, by the results so far."""
    sender, signers = spf_domain(tx), dkim_domains(tx)
    # Only DMARC knows which domains are of one organisation; a provider is not one with the customers below its name.
    dmarc = result_of(tx, "dmarc")
    aligned = dmarc.aligned if dmarc is not None and dmarc.result is Result.PASS and sender in dmarc.aligned else ()
    # Whoever forwards or replays the message can add signatures of his own, but none to push these out.
    origin = [domain for domain in signers if domain == sender or domain in aligned][:MAX_SIGNERS]
    others = [domain for domain in signers if domain not in origin][: MAX_SIGNERS - len(origin)]
    return Identities(
        (*((f"spf {sender}",) if sender else ()), *(f"dkim {domain}" for domain in origin)),
        tuple(f"dkim {domain}" for domain in others),
        network_identity(tx),
    )


def keys_of(known: Iterable[str]) -> list[tuple[Space, str]]:
    """What to ask the store for, two keys for each identity; `standings` reads the answer."""
    return [(space, identity) for identity in known for space in (HAM, SPAM)]


def standings(known: Iterable[str], entries: Iterable[Entry | None]) -> dict[str, Standing]:
    """What the store has on each identity."""
    totals = iter([0.0 if entry is None else entry.total for entry in entries])
    return {identity: Standing(ham, spam) for identity, ham, spam in zip(known, totals, totals, strict=False)}


def spokesman(who: Identities, known: Mapping[str, Standing], minimum: float) -> str:
    """The identity whose standing is that of the message, "" if nothing is known that says anything."""
    # In whole messages: counts do not fade at the very same time, and of equals it is to be the same one each time.
    best = max(who.origin, key=lambda identity: round(known[identity].evidence), default="")
    if best and known[best].evidence >= minimum:
        return best if known[best].value(minimum) else ""
    values = {identity: value for identity in who.signers if (value := known[identity].value(minimum))}
    # The network is there also where nothing is known of it: then no signature makes it a good one.
    values[who.network] = known.get(who.network, UNKNOWN).value(minimum)
    worst = max(values, key=lambda identity: values[identity])
    return worst if values[worst] else ""


@check(Stage.EOM, scores={"reputation_bad": 2.0, "reputation_good": -1.5}, options=Reputation)
async def reputation(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """What came of earlier mail of the same domain or network; the weight grows with what is known."""
    who = identities(tx)
    every = who.all()
    if not every:
        return
    minimum = tools.options.minimum
    known = standings(every, await tools.store.get_many(keys_of(every)))
    found = spokesman(who, known, minimum)
    if found:
        ham, spam = known[found]
        value = known[found].value(minimum)
        symbol = "reputation_bad" if value > 0 else "reputation_good"
        yield Finding(symbol, f"{found}: {ham:.1f} ham, {spam:.1f} spam", round(abs(value), 3))


@record("reputation")
async def remember_verdict(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
    """Count what became of an inbound message."""
    if ruling is None or tx.envelope.direction is not Direction.INBOUND or _is_relayed(tx, tools.config):
        return
    spam = _is_spam(tx, ruling, tools.config)
    if spam is None:
        return
    who = identities(tx)
    if not tx.message.fields:
        who = Identities(network=who.network)  # it was refused before there was anything to judge but the client
    elif spam:
        who = who._replace(signers=())
    await learn(tools.store, who.all(), spam=spam, options=tools.options)


async def learn(store: Store, known: Iterable[str], *, spam: bool, amount: float = 1.0, options: Reputation) -> None:
    """Count `amount` messages as spam or ham for identities (keys as in `Identities`); a negative amount takes back.

    Raises StoreError.
    """
    space = SPAM if spam else HAM
    keys = list(known)
    if not keys:
        return
    entries = await store.get_many([(space, identity) for identity in keys])
    await store.incr_many([
        Increment(space, identity, _life(amount + (entry.total if entry else 0.0), options), amount, options.half_life)
        for identity, entry in zip(keys, entries, strict=True)
    ])  # fmt: skip


def _life(total: float, options: Reputation) -> float:
    """Seconds until a count has faded to nothing: names that are made for one message are soon forgotten."""
    return float(min(options.ttl, options.half_life * log2(max(total, 1.0) / FADED)))


def _is_relayed(tx: Transaction, config: Config) -> bool:
    """Did one of our own servers take it in, or one that forwards the mail of others?"""
    client = tx.connection.client_ip
    return contains(config.networks.trusted_relays, client) or contains(config.forwarders.networks, client)


def _is_spam(tx: Transaction, ruling: Ruling, config: Config) -> bool | None:
    """Was it spam by what others found?  None if that is not certain."""
    verdict = ruling.verdict
    if any(finding.symbol == "spamtrap" for _, finding in tx.findings):
        return True
    score = sum(weight for symbol, weight in ruling.scored if symbol not in _OWN)
    if verdict.action is Action.ACCEPT:
        return False if score < HAM_BELOW else None
    if verdict.action not in _SPAM:
        return None
    weighed = {symbol for symbol, _ in ruling.scored}
    forced = [symbol for symbol in verdict.because if symbol not in weighed]
    if forced:
        return True if any(symbol not in _NO_VERDICT for symbol in forced) else None
    # By its score: would it have been marked without us?
    policy = config.policy
    lowest = min((t for t in (policy.tag, policy.quarantine, policy.reject) if t is not None), default=inf)
    return True if score >= lowest else None
