"""Mail of our users to domains that accept none: they learn it at once instead of by a bounce."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.checks.sender_domain import NULL_MX
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.evidence import Finding
from authmilter.model import Direction, Stage, Transaction
from authmilter.networks import names_contain
from authmilter.verdict import Action


@dataclass(frozen=True)
class RecipientDomain:
    """Refuse mail of ours to domains that do not exist or publish a null MX (RFC 7505 section 4.1).

    A user who mistypes a domain is told while he still looks at the message.  [identity] local_domains are not looked
    up.  Off by default, since every recipient of outbound and inbound mail then waits for an answer of ours.
    """

    enabled: bool = option(False, "Switch the check on.")
    exempt: Names = option(
        (),
        "Domains that are not looked up, since mail to them does not go by the public DNS (transport maps, smarthosts); "
        "a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


@check(
    Stage.RCPT,
    scores={"recipient_null_mx": Action.REJECT, "recipient_domain_nonexistent": Action.REJECT},
    replies={
        # RFC 7505 section 4.1, RFC 7504 section 4
        "recipient_null_mx": Words("1.10", lambda _, domain: f"{domain} accepts no mail (null MX)", permanent=556),
        "recipient_domain_nonexistent": Words("1.2", lambda _, domain: f"{domain} does not exist"),
    },
    direction=Direction.OUTBOUND,
    options=RecipientDomain,
)
async def recipient_domain(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """Outbound: the domain of a recipient does not exist, or accepts no mail."""
    domain = tx.envelope.forward_paths[-1].domain
    lists = (tools.config.identity.local_domains, tools.options.exempt)
    if not domain or any(names_contain(names, domain) for names in lists):
        return
    mx = await tools.dns.query(domain, "MX")
    if mx.records == NULL_MX:
        yield Finding("recipient_null_mx", domain)
        return
    if mx.exists:
        return
    # RFC 4074 section 4.2 tells of servers that deny the name where they only lack the type.
    for rdtype in ("A", "AAAA"):
        if (await tools.dns.query(domain, rdtype)).exists:
            return
    yield Finding("recipient_domain_nonexistent", domain)
