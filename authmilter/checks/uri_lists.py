"""DNS lists of domains that links lead to; which there are, and what they weigh, is up to the configuration."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from authmilter import lists
from authmilter.check import Tools, Words, check
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.evidence import Finding
from authmilter.header_text import site
from authmilter.model import Message, Stage, Transaction
from authmilter.networks import names_contain
from authmilter.urls import Url, is_hosted, targets


@dataclass(frozen=True)
class UriLists:
    """For which links the lists of [uribl NAME] are asked; there are none by default.

    Links of the message, and URLs within them, as redirectors take them.  [identity] local_domains are never asked for.
    """

    most: int = option(
        12, "Domains of a message that are asked for: those of its first and its last links.", at_least=1, at_most=100
    )
    exempt: Names = option(
        (),
        "Domains that are not asked for, because too much leads there; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


@check(
    Stage.EOM,
    scores={},
    options=UriLists,
    wanted=lambda config: bool(config.uribl),
    prefix="uribl_",
    dynamic=partial(lists.weights, "uribl"),
    replies={"uribl_": Words("7.1", lambda _, detail: f"Message leads to {detail}")},
    body=True,
)
async def uri_lists(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The message leads to a domain that is on a DNS list, see [uribl NAME]."""
    hosts = linked(tx.message, tools.options.most, (*tools.options.exempt, *tools.config.identity.local_domains))
    if hosts:
        for listing in await tools.lists.look_up_links(hosts):
            yield Finding(listing.symbol, f"{listing.subject}, which is listed by {listing.zone} ({listing.answer})")


def linked(message: Message, most: int, exempt: Names = ()) -> list[str]:
    """The domains, as they were registered, and IPv4 addresses to which a message leads; of too many the first and last."""
    found: dict[str, None] = {}
    # What is shown for readers to follow comes before what is hidden, or only loaded: that may be there to crowd it out.
    for target in sorted(targets(message), key=lambda target: target.hidden or not target.is_clicked):
        for url in (target.url, *target.inner):
            host = _listed_as(url)
            if host and not names_contain(exempt, url.host):
                found[host] = None
    hosts = list(found)
    return hosts if len(hosts) <= most else hosts[: most - most // 2] + hosts[len(hosts) - most // 2 :]


def _listed_as(url: Url) -> str:
    """The name under which a list would have it; "" if none would."""
    if url.address is not None:
        return url.host if isinstance(url.address, IPv4Address) and url.address.is_global else ""
    if "." not in url.host:
        return ""
    of = site(url.host)
    if is_hosted(url.host) and len(of) < len(url.host):
        # The name below that of whoever hosts it is what is as good as registered.
        return ".".join(url.host.split(".")[-of.count(".") - 2 :])
    return of
