"""What says that it is of ours, and comes from a stranger: From, Message-ID, and the line of the server before."""

import re
from collections.abc import Iterator

from authmilter.addresses import author, to_ascii_domain
from authmilter.check import Tools, check
from authmilter.evidence import Finding, Result
from authmilter.forwarding import is_excused, with_override
from authmilter.header_text import LIST_SHARE, excerpt, is_list, site, value
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain

_MOST_RECIPIENTS = 5  # whose domains are taken for ours
_BY = re.compile(rb"[ \t]by[ \t]++([A-Za-z0-9._-]{1,253}+)")
_DECIDED = (Result.PASS, Result.FAIL, Result.TEMPERROR)


@check(Stage.EOM, scores={"author_is_local": 1.0, "message_id_is_local": 1.0, "received_is_local": 1.0})
def in_our_name(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """From is of ours without SPF, DKIM or DMARC to back it, or Message-ID or the newest Received is of ours, not From.

    Ours are [identity] local_domains and the domains of the recipients; for Received, the name of this server.  Where DMARC
    fails, that has symbols of its own.  Mail of lists gets a third, since posts of our users come back from there.
    """
    message = tx.message
    domains = author(message).domains
    if not domains:
        return
    share = LIST_SHARE if is_list(message) else 1.0
    ours = next((domain for domain in domains if _is_ours(domain, tx, tools)), "")
    if ours:
        if _is_unbacked(ours, tx, tools):
            yield Finding("author_is_local", ours, share)
        return  # what our users wrote, and came back, has traces of ours
    message_id = value(message, b"message-id")
    if _is_ours(to_ascii_domain(message_id.rpartition(b"@")[2].rstrip(b">")), tx, tools):
        yield Finding("message_id_is_local", excerpt(message_id), share)
    by = _BY.search(value(message, b"received"))
    if by is not None:
        name = by[1].decode().lower()
        if name in (tools.config.identity.authserv_id.lower(), tx.connection.mta_name.lower()):
            yield Finding("received_is_local", name, share)


def _is_ours(domain: str, tx: Transaction, tools: Tools) -> bool:
    return bool(domain) and (
        names_contain(tools.config.identity.local_domains, domain)
        or any(path.domain == domain for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS])
    )


def _is_unbacked(domain: str, tx: Transaction, tools: Tools) -> bool:
    """Was it looked at who sent this, and did nothing speak for the domain, nor DMARC against it?"""
    if any(result.result in _DECIDED for result in tx.results_of("dmarc")):
        return False
    results = [r for method in ("spf", "dkim") for r in with_override(tx, tools.config).results_of(method)]
    home = site(domain)
    return bool(results) and not any(
        result.result is Result.TEMPERROR
        or is_excused(result)
        or (result.result is Result.PASS and not result.for_anyone and site(result.identifier) == home)
        for result in results
    )
