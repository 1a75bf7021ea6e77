"""How much mail comes from one sender domain."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.config import endpoint
from authmilter.config.option import Limits, Names, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.forwarding import within
from authmilter.identities import client_network, spf_domain
from authmilter.interfaces import Entry, Increment, Space
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action

SENDERS = Space("sender_rate", personal=True, help="messages of a sender domain in a window of so many seconds")


@dataclass(frozen=True)
class SenderRate:
    """Limit inbound messages by the domain of MAIL FROM.

    Where SPF passes, the domain has one count.  Where it does not, anybody may have written it, so it has one for each
    network (/24 of IPv4, /64 of IPv6) that mail in its name comes from: nobody can use up another's limit.  What is over
    the limit is deferred until the window ends, which began with the first message in it.  The null reverse-path has no
    limit.
    """

    messages: Limits = option((), "Messages of one domain, such as 100/1h, 1000/1d; empty: no limit.")
    exempt: Names = option(
        (),
        "Domains without a limit, such as large providers; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


def _is_limited(config: Config) -> bool:
    return bool(getattr(config.checks.get("sender_rate"), "messages", ()))


@check(
    Stage.RCPT,
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
    if not domain or len(tx.envelope.forward_paths) > 1 or any(within(domain, entry) for entry in options.exempt):
        return
    who = domain if spf_domain(tx) == domain else f"{domain} {client_network(tx)}"
    keys = [(SENDERS, f"{limit.period:g} {who}") for limit in options.messages]
    entries: Sequence[Entry | None]
    if tx.refused_recipients:  # counted already: a message counts once, whichever recipient is the first to be accepted
        entries = await tools.store.get_many(keys)
    else:
        counted = [Increment(*key, limit.period) for key, limit in zip(keys, options.messages, strict=True)]
        entries = await tools.store.incr_many(counted)
    for limit, entry in zip(options.messages, entries, strict=True):
        if entry is not None and entry.total > limit.count:
            yield Finding("sender_rate_exceeded", f"{who}: {entry.total:g} in {entry.age:.0f} s")
            return


def _domain(tx: Transaction) -> str:
    path = tx.envelope.reverse_path
    return path.domain if path is not None else ""
