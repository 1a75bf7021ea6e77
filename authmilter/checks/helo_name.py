"""HELO with a name that can't be the client's, by its form or because it is ours."""

from collections.abc import Iterator

from authmilter.check import Tools, Words, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain
from authmilter.verdict import Action

_SHOWN = 64


def _has_stray_hyphen(domain: str) -> bool:
    """Does a label begin or end with a hyphen?  RFC 5321 section 4.1.2: there is Let-dig."""
    return ".-" in (dotted := f".{domain}.") or "-." in dotted


@check(
    Stage.HELO,
    scores={"helo_malformed": 1.5, "helo_own_name": 3.0, "helo_local_domain": 2.5, "helo_bare": 1.0},
    meanings={
        "helo_malformed": "What is no domain name at all.",
        "helo_own_name": "Our own name.",
        "helo_local_domain": "A domain of [identity] local_domains.",
        "helo_bare": "A name without a dot.",
    },
    strict={"helo_malformed": Action.REJECT, "helo_own_name": Action.REJECT},
    judged=Stage.MAIL,
    replies={
        # RFC 5321 section 4.1.4: 501 or 550 where the argument is not acceptable
        "helo_malformed": Words(
            "5.4", lambda _, detail: f"HELO {detail} is no domain name (RFC 5321 section 4.1.2)", permanent=501
        ),
        "helo_own_name": Words(
            "7.1", lambda _, detail: f"HELO {detail} is our name; use the host name of your mail server"
        ),
        "helo_local_domain": Words(
            "7.1", lambda _, detail: f"HELO {detail} is a domain of ours; use the host name of your mail server"
        ),
        "helo_bare": Words(
            "7.1", lambda _, detail: f"HELO {detail} is no fully-qualified domain name (RFC 5321 section 2.3.5)"
        ),
    },
)
def helo_name(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Client greeted with our own name, a local domain, a name without a dot, or what is no domain name at all.

    Underscores, which host names must not have and the DNS may, are let pass.  Our own names are that of the MTA
    and [identity] authserv_id, and local domains those of [identity] local_domains.  Whoever has a confirmed name there by
    reverse and forward DNS, which is ours to give, is not a stranger.
    """
    helo, domain = tx.helo, tx.helo_domain
    if helo.startswith(b"["):
        return
    # RFC 6531 section 3.7.1: the argument MUST be ASCII, since SMTPUTF8 is not yet agreed on
    if not domain or not helo.isascii() or _has_stray_hyphen(domain):
        yield Finding("helo_malformed", helo[:_SHOWN].decode("ascii", "backslashreplace"))
        return
    if "." not in domain or domain == "localhost.localdomain":
        yield Finding("helo_bare", domain)
        return
    connection, identity = tx.connection, tools.config.identity
    client, local_domains = connection.client_name.lower(), identity.local_domains
    if domain in (connection.mta_name.lower(), identity.authserv_id.lower()):
        if client != domain:
            yield Finding("helo_own_name", domain)
    elif names_contain(local_domains, domain) and not names_contain(local_domains, client):
        yield Finding("helo_local_domain", domain)
