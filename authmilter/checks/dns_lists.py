"""DNS blocklists and welcomelists; which there are, and what they weigh, is up to the configuration."""

from collections.abc import AsyncIterator
from functools import partial

from authmilter import lists
from authmilter.check import Tools, Words, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction

# Both are judged at MAIL, when it is known who logged in: the addresses from which people submit are listed for being what
# they are.


@check(
    Stage.CONNECT,
    scores={},
    wanted=lambda config: bool(config.dnsbl),
    judged=Stage.MAIL,
    prefix="dnsbl_",
    dynamic=partial(lists.weights, "dnsbl"),
    replies={"dnsbl_": Words("7.1", lambda tx, detail: f"Client {tx.connection.client_ip} is listed by {detail}")},
)
async def blocklists(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The client is on a DNS blocklist, see [dnsbl NAME]."""
    if tx.connection.client_ip is not None:
        for listing in await tools.lists.look_up("dnsbl", tx.connection.client_ip):
            more = f", see {listing.url}" if listing.url else ""
            yield Finding(listing.symbol, f"{listing.zone} ({listing.answer}){more}")


@check(
    Stage.CONNECT,
    scores={},
    wanted=lambda config: bool(config.dnswl),
    judged=Stage.MAIL,
    prefix="dnswl_",
    dynamic=partial(lists.weights, "dnswl"),
)
async def welcomelists(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The client is on a DNS welcomelist, see [dnswl NAME]."""
    if tx.connection.client_ip is not None:
        for listing in await tools.lists.look_up("dnswl", tx.connection.client_ip):
            yield Finding(listing.symbol, f"{listing.zone} ({listing.answer})")
