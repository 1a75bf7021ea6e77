"""How much mail comes from one sender domain."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.config import endpoint
from authmilter.config.option import Limits, Names, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.identities import client_network, spf_domain
from authmilter.interfaces import Increment, Space
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain
from authmilter.verdict import Action

SENDERS = Space(
    "sender_rate",
    personal=True,
    help="messages of a sender domain in a window of so many seconds",
    release=b"",
    keys=("{period:g} {subject}", "{period:g} {subject} {network}"),
)


@dataclass(frozen=True)
class SenderRate:
    """Limit inbound messages by the domain of MAIL FROM.

    Where SPF passes, the domain has one count.  Where it does not, anybody may have written it, so it has one for each
    network (/24 of IPv4, /64 of IPv6) that mail in its name comes from: nobody can use up another's limit.

    What is over the limit is deferred at DATA, with 451 4.7.28, until the window ends, which began with the first message
    in it.  Attempts that are deferred, for this or before DATA as by [greylist], don't count.  The null reverse-path has
    no limit.
    """

    messages: Limits = option((), "Messages of one domain, such as 100/1h, 1000/1d; empty: no limit.")
    exempt: Names = option(
        (),
        "Domains without a limit, such as large providers; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


def _is_limited(config: Config) -> bool:
    return bool(config.of(SenderRate).messages)


@check(
    Stage.DATA,
    scores={"sender_rate_exceeded": Action.TEMPFAIL},
    options=SenderRate,
    wanted=_is_limited,
    replies={
        "sender_rate_exceeded": Words(
            "7.28",  # mail flood, by the registry of RFC 5248
            lambda tx, _: f"Too much mail from {_domain(tx)} for now, please try again later",
        )
    },
)
async def sender_rate(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """More messages from one sender domain than [sender_rate] allows."""
    options, domain = tools.options, _domain(tx)
    if not domain or not tx.envelope.forward_paths or names_contain(options.exempt, domain):
        return
    who = domain if spf_domain(tx) == domain else f"{domain} {client_network(tx)}"
    counts = [Increment(SENDERS, f"{limit.period:g} {who}", limit.period) for limit in options.messages]
    entries = await tools.store.incr_many(counts)
    for limit, entry in zip(options.messages, entries, strict=True):
        if entry.total > limit.count:
            # First of all, since a store that fails from here on changes nothing about it.
            yield Finding("sender_rate_exceeded", f"{who}: {entry.total:g} in {entry.age:.0f} s")
            # Else retries under a short limit would use up a long one.
            await tools.store.incr_many([count._replace(amount=-1.0) for count in counts])
            return


def _domain(tx: Transaction) -> str:
    path = tx.envelope.reverse_path
    return path.domain if path is not None else ""
