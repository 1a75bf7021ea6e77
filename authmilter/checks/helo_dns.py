"""What the DNS knows of the HELO name."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.config.option import option
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction

_NULL_MX = "0 ."  # RFC 7505 section 3


@dataclass(frozen=True)
class HeloDns:
    """Is the HELO name in the DNS, and has it the client's address?

    Where it is the client's confirmed name, as with most mail servers, that is known already and costs nothing.  Else it
    takes up to three questions, for which no client waits before RCPT.
    """

    enabled: bool = option(True, "Switch the check on.")


def _is_known_good(tx: Transaction, tools: Tools) -> bool:
    """Is there nothing to ask, or is it known already that the client has the name?"""
    name, client = tx.helo_domain, tx.connection.client_ip
    if client is None or "." not in name or name == tx.connection.client_name.lower():
        return True
    answer = tools.dns.known(name, "A" if client.version == 4 else "AAAA")
    return answer is not None and str(client) in answer.records


@check(
    Stage.HELO,
    # RFC 5321 section 4.1.4: a server MUST NOT refuse mail because the name is not that of the client's address: no more
    # than a hint, and no action under any preset.
    scores={"helo_unresolvable": 0.2, "helo_mismatch": 0.1},
    options=HeloDns,
    judged=Stage.MAIL,
    unless=_is_known_good,
    replies={
        "helo_unresolvable": Words(
            "7.1", lambda _, detail: f"HELO {detail}; use a name that the DNS knows (RFC 5321 section 2.3.5)"
        ),
        "helo_mismatch": Words("7.1", lambda _, detail: f"HELO {detail}"),
    },
)
async def helo_dns(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """HELO name that has neither address nor MX (unresolvable), or has not the client's address (mismatch)."""
    name, client = tx.helo_domain, tx.connection.client_ip
    if client is None or _is_known_good(tx, tools):
        return
    query = tools.dns.query
    for rdtype in ("A", "AAAA") if client.version == 4 else ("AAAA", "A"):
        answer = await query(name, rdtype)
        if answer.records:
            if str(client) not in answer.records:
                yield Finding("helo_mismatch", f"{name} is not the name of {client}")
            return
        if not answer.exists:
            break
    else:
        # RFC 5321 section 2.3.5: a name is to have an address or an MX
        if any(record != _NULL_MX for record in (await query(name, "MX")).records):
            yield Finding("helo_mismatch", f"{name} is not the name of {client}")
            return
    yield Finding("helo_unresolvable", f"{name} has neither address nor MX")
