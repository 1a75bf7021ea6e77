"""What says that it is of ours, and comes from a stranger: From, Message-ID, and the line of the server before."""

import re
from collections.abc import Iterator

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.evidence import Finding, Result
from authmilter.forwarding import is_excused, with_override
from authmilter.header_text import LIST_SHARE, MAX_VALUE, excerpt, is_list, is_via_list, site, value
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain

_MOST_RECIPIENTS = 5  # whose domains are taken for ours
_BY = re.compile(rb"[ \t]by[ \t]++([a-z0-9._-]{1,253}+)")
_DECIDED = (Result.PASS, Result.FAIL, Result.TEMPERROR)


@check(
    Stage.EOM,
    content=True,
    scores={"author_is_local": 1.0, "message_id_is_local": 1.0, "received_is_local": 1.0},
    meanings={
        "author_is_local": (
            "From is of [identity] local_domains or of the domain of a recipient; neither SPF nor DKIM passes for"
            " it, and DMARC has no policy for it; less for lists."
        ),
        "message_id_is_local": "Message-ID is of [identity] local_domains, and From is not; less for lists.",
        "received_is_local": "The newest Received says that this server wrote it, which gives its own only afterwards.",
    },
)
def in_our_name(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """From is of ours without SPF, DKIM or DMARC to back it, or Message-ID or the newest Received is of ours, not From.

    Ours are [identity] local_domains, in From also the domains of the recipients; in Received, the name of this server.
    Where DMARC fails, that has symbols of its own.  Mail of lists gets a third, since posts of our users come back from there.
    """
    message = tx.message
    domains = author(message).domains
    if not domains:
        return
    share = LIST_SHARE if is_list(message) else 1.0
    local = tools.config.identity.local_domains
    recipients = [path.domain for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS]]
    ours = next((domain for domain in domains if domain in recipients or names_contain(local, domain)), "")
    if ours:
        if _is_unbacked(ours, tx, tools):
            yield Finding("author_is_local", ours, share)
        return  # what our users wrote, and came back, has traces of ours
    if local:
        # Not of the recipients' domains: gateways in front of this server write one where there was none.
        message_id = value(message, b"message-id")
        host = message_id.rpartition(b"@")[2].rstrip(b">").decode("latin-1").lower()
        # A list that puts itself into From keeps the Message-ID of one of ours who wrote to it.
        if names_contain(local, host) and not is_via_list(message):
            yield Finding("message_id_is_local", excerpt(message_id), share)
    received = message.first(b"received")
    if received is not None:
        line = received.value[:MAX_VALUE].lower()
        for name in (tools.config.identity.authserv_id, tx.connection.mta_name):
            # A name without a dot, such as localhost, is everybody's.
            if "." in name and name.lower().encode("utf-8", "replace") in line and _by(line) == name.lower():
                yield Finding("received_is_local", name, share)
                return


def _by(line: bytes) -> str:
    """Which server a Received field says to be of; the field is in lower case."""
    found = _BY.search(line)
    return "" if found is None else found[1].decode().rstrip(".")


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
