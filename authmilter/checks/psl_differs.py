"""Where the public suffix list of RFC 7489 finds another Organizational Domain than the tree walk of RFC 9989."""

from collections.abc import AsyncIterator

from authmilter.auth import orgdomain
from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.public_suffixes import registered_domain


@check(Stage.EOM, scores={"psl_differs": 0.0}, wanted=lambda config: config.dmarc.discovery == "psl")
async def psl_differs(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """With [dmarc] discovery = psl: the public suffix list would find another Organizational Domain."""
    domains = {r.identifier for r in tx.results if r.method in ("spf", "dkim", "dmarc") and r.identifier}
    for domain in sorted(domains)[:10]:
        walked = await orgdomain.organizational_domain(domain, tools.dns)
        listed = registered_domain(domain)
        if walked != listed:
            yield Finding("psl_differs", f"{domain}: tree walk {walked}, public suffix list {listed}")
