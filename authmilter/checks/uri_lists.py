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
from authmilter.public_suffixes import registered_domain
from authmilter.urls import Url, is_hosted, targets


@dataclass(frozen=True)
class UriLists:
    """For which links the lists of [uribl NAME] are asked; there are none by default.

    Links of the message and of messages attached to it, URLs within them, as redirectors and rewriting filters take them, the
    domains of addresses to write to, and domains in a text of which not all mail readers make a link.  [identity]
    local_domains are never asked for, nor are some sites to which everybody leads and that no list has, such as w3.org.
    """

    most: int = option(
        20,
        "Domains of a message that are asked for: those of its first and its last links, what is hidden or only named after "
        "the others.",
        at_least=1,
        at_most=100,
    )
    exempt: Names = option(
        (),
        "Domains that are not asked for, because too much leads there: example.com means www.example.com too, unless "
        "somebody else has the name below it, as with who hosts pages of others.  A leading dot takes all names below in.",
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


# Half of all mail leads to one of these.  Where others put up pages below such a name (sites.google.com), that is asked for.
_EVERYWHERE = frozenset(
    (
        "adobe.com", "amazon.com", "apache.org", "apple.com", "booking.com", "debian.org", "doubleclick.net", "ebay.com",
        "facebook.com", "fbcdn.net", "github.com", "gmail.com", "gnu.org", "google.com", "googleapis.com", "googletagmanager.com",
        "googleusercontent.com", "gstatic.com", "icloud.com", "ietf.org", "instagram.com", "kernel.org", "linkedin.com", "live.com",
        "microsoft.com", "mozilla.org", "netflix.com", "office.com", "openxmlformats.org", "outlook.com", "paypal.com",
        "pinterest.com", "proofpoint.com", "python.org", "schema.org", "sourceforge.net", "spotify.com", "threads.net", "tiktok.com",
        "twimg.com", "twitter.com", "urldefense.com", "w3.org", "whatsapp.com", "wikipedia.org", "x.com", "xing.com",
        "xmlsoap.org", "yahoo.com", "youtube.com", "ytimg.com",
    )
)  # fmt: skip
# Names that are nobody's (RFC 6761, RFC 7686, and what networks at home are called).
_NOBODYS = (
    ".arpa",
    ".corp",
    ".home",
    ".internal",
    ".invalid",
    ".lan",
    ".local",
    ".localdomain",
    ".localhost",
    ".onion",
)


def linked(message: Message, most: int, exempt: Names = ()) -> list[str]:
    """The domains, as they were registered, and IPv4 addresses to which a message leads; of too many the first and last."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    # What is shown for readers to follow comes before what is hidden, or only loaded: that may be there to crowd it out.
    for target in sorted(targets(message), key=lambda target: target.hidden or not target.is_clicked):
        for url in (target.url, *target.inner):
            if url.host in seen:
                continue
            seen.add(url.host)
            host = _listed_as(url)
            if (
                host
                and host not in _EVERYWHERE
                and not names_contain(exempt, url.host)
                and not names_contain(exempt, host)
            ):
                found[host] = None
    hosts = list(found)
    return hosts if len(hosts) <= most else hosts[: most - most // 2] + hosts[len(hosts) - most // 2 :]


def _listed_as(url: Url) -> str:
    """The name under which a list would have it; "" if none would."""
    if url.address is not None:
        return url.host if isinstance(url.address, IPv4Address) and url.address.is_global else ""
    host = url.host
    if "." not in host or host.endswith(_NOBODYS):
        return ""
    of = registered_domain(host)
    if is_hosted(host) and host.count(".") > of.count(".") == site(host).count("."):
        # As good as registered is the name below that of whoever hosts it, whether or not the public suffix list has it.
        return ".".join(host.split(".")[-of.count(".") - 2 :])
    return of
