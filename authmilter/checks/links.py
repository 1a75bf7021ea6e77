"""Links that do not lead where they seem to, or that hide where they lead."""

from collections.abc import Iterator
from functools import lru_cache

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.confusables import is_disguised
from authmilter.evidence import Finding, Result
from authmilter.header_text import site, value
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain
from authmilter.urls import REWRITERS, Url, feigned, is_hosted, read_url, registered, targets

_LONG = 40  # characters of a host from which on it was hardly chosen by people
_HYPHENS = 3
_MOST_RECIPIENTS = 3  # whose domains are looked at
_WITH_HOST = ("http", "https", "ftp")
_ALSO_NAMED = ("link_hosting", "link_shortener")  # what tells something even where it is no link for all readers
_SCRIPTS = ("javascript", "vbscript")  # html_script has them
_FEW = 4  # links from which on it tells something that all of them lead to one site

# Where anybody gets a short name for any URL.
_SHORTENERS = frozenset(
    (
        "2no.co", "adf.ly", "bit.do", "bit.ly", "bitly.com", "bl.ink", "buff.ly", "clck.ru", "cli.re", "cutt.ly", "dlvr.it",
        "fb.me", "gg.gg", "goo.gl", "goo.su", "han.gl", "ift.tt", "iplogger.com", "iplogger.org", "is.gd", "j.mp", "kutt.it",
        "lnkd.in", "me2.do", "n9.cl", "ow.ly", "qrco.de", "rb.gy", "rebrand.ly", "rotf.lol", "s.id", "shorte.st", "shorten.is",
        "shorturl.at", "snip.ly", "soo.gd", "spr.ly", "surl.li", "t.co", "t.ly", "tiny.cc", "tinyurl.com", "tr.im", "trib.al",
        "u.to", "urlz.fr", "v.gd", "vk.cc", "vo.la", "x.co", "zpr.io",
    )
)  # fmt: skip
# Where a conversation goes on that nobody filters.
_CHATS = frozenset(("api.whatsapp.com", "chat.whatsapp.com", "t.me", "wa.me"))
# Sites that send whoever comes to where the rest of the URL says, by the beginnings of their paths.
_REDIRECTORS = {
    "adnxs.com": ("/click",),
    "baidu.com": ("/link", "/baidu.php"),
    "bing.com": ("/ck/", "/aclk", "/news/apiclick"),
    "dartsearch.net": ("/link",),
    "doubleclick.net": ("/",),
    "duckduckgo.com": ("/l/",),
    "facebook.com": ("/l.php", "/flx/warn"),
    "google": ("/url", "/amp/", "/aclk", "/local_url", "/travel/clk", "/pagead/", "/imgres"),
    "googleadservices.com": ("/pagead/",),
    "href.li": ("/",),
    "instagram.com": ("/?u=", "/linkshim"),
    "linkedin.com": ("/slink", "/redir", "/safety/go"),
    "medium.com": ("/r/",),
    "reddit.com": ("/?url",),
    "slack-redir.net": ("/link",),
    "snapchat.com": ("/redirect",),
    "steamcommunity.com": ("/linkfilter",),
    "translate.goog": ("/",),
    "umblr.com": ("/redirect",),
    "vk.com": ("/away",),
    "yahoo.com": ("/_ylt", "/ylt", "/cbclk"),
    "yandex.com": ("/clck", "/redir"),
    "yandex.ru": ("/clck", "/redir"),
    "youtube.com": ("/redirect", "/attribution_link"),
}
# Top-level domains of the kind that is given away or sold for a dollar.
_CHEAP = frozenset(
    (
        "bond", "buzz", "cf", "cfd", "click", "club", "cyou", "fun", "ga", "gq", "icu", "life", "live", "ml", "monster", "online",
        "pw", "quest", "rest", "sbs", "shop", "site", "space", "store", "tk", "today", "top", "vip", "website", "work",
        "world", "xyz",
    )
)  # fmt: skip
# Of 6,276 good and 7,090 bad messages: what over 13 good ones have weighs less than 1, what the rest has its log-odds up
# to 2, less where advertisements that people asked for, of which there are few among them, are known to do the same.
# link_data, link_scheme and link_disguised, which none of them has, are tricks that nobody needs.


@check(
    Stage.EOM,
    content=True,
    scores={
        "link_address": 2.0,
        "link_address_number": 2.0,
        "link_user": 2.0,
        "link_odd": 1.0,
        "link_data": 1.5,
        "link_scheme": 1.0,
        "link_differs": 0.7,
        "link_disguised": 1.5,
        "link_punycode": 0.5,
        "link_long_host": 1.5,
        "link_hyphens": 1.0,
        "link_shortener": 1.0,
        "link_redirector": 1.5,
        "link_hosting": 1.5,
        "link_cheap": 0.7,
        "link_chat": 0.5,
        "link_fragment": 1.0,
        "link_hidden": 0.7,
        "link_one_site": 0.5,
    },
    meanings={
        "link_address": "A link to a public IP address in place of a name.",
        "link_address_number": "The address is written as a number, in octal or in hexadecimal, which hides it.",
        "link_user": "A name and @ in front of the host, as in https://example.com@192.0.2.1/, which looks like that other host.",
        "link_odd": "The host has characters that no name of a host has, or is written in a way that only browsers forgive.",
        "link_data": "A data: URL: a page within the link.",
        "link_scheme": "A scheme that opens programs or files, such as file: or search-ms:.",
        "link_differs": "The text of a link is a domain, and the link leads to another one, which is none of the sender's.",
        "link_disguised": "An internationalised host with letters that look like those of another script.",
        "link_punycode": "An internationalised host.",
        "link_long_host": "A host of more than 40 characters.",
        "link_hyphens": "A host with three hyphens or more.",
        "link_shortener": "A link through a service that shortens URLs.",
        "link_redirector": "A link through a page of a well-known site that sends on to wherever the URL says.",
        "link_hosting": "A link to a page, form or file where anybody may put one up.",
        "link_cheap": "A host in a top-level domain where names cost next to nothing.",
        "link_chat": "A link into a chat, such as wa.me or t.me.",
        "link_fragment": "A mail address behind the # of a link, by which a page fills in a form.",
        "link_hidden": "A link that is not shown.",
        "link_one_site": "Four links or more, all to one site, which is not that of From.",
    },
    body=True,
)
def links(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Links to addresses, shorteners, redirectors, pages that anybody may put up, or to another place than they say."""
    found: dict[str, str] = {}
    sites: set[str] = set()
    count = 0
    senders: set[str] | None = None
    for target in targets(tx.message):
        url = target.url
        if not target.is_clicked:
            if target.tag == "name":
                found.update((symbol, url.host) for symbol in _of_host(url.host) if symbol in _ALSO_NAMED)
            continue
        if not url.host:
            if url.scheme == "data":
                found.setdefault("link_data", url.rest[:40])
            elif url.scheme not in _WITH_HOST and url.scheme not in _SCRIPTS:
                found.setdefault("link_scheme", f"{url.scheme}:{url.rest[:40]}")
            continue
        count += 1
        of = registered(url)
        sites.add(registered(target.inner[0]) if of in REWRITERS and target.inner else of)
        for one in (url, *target.inner):
            for symbol in _of_host(one.host) if one.address is None else _of_address(one):
                found.setdefault(symbol, one.host)
        for symbol, detail in _of_url(url, of):
            found.setdefault(symbol, detail)
        if target.hidden:
            found.setdefault("link_hidden", url.host)
        if "." in target.text and "link_differs" not in found and (said := feigned(target)):
            senders = _senders(tx) if senders is None else senders
            if of not in senders or _is_ours(said, tx, tools):
                found["link_differs"] = f"{said} leads to {url.host}"
    if count >= _FEW and len(sites) == 1:
        (only,) = sites
        if all(site(domain) != only for domain in author(tx.message).domains):
            found["link_one_site"] = only
    for symbol, detail in found.items():
        yield Finding(symbol, detail)


def _senders(tx: Transaction) -> set[str]:
    """The sites of whoever sent it, by whatever it says of itself: they count the clicks on what they recommend."""
    message = tx.message
    domains = [*author(message).domains]
    if tx.envelope.reverse_path is not None:
        domains.append(tx.envelope.reverse_path.domain)
    domains += [result.identifier for result in tx.results_of("dkim") if result.result is Result.PASS]
    unsubscribe = value(message, b"list-unsubscribe").decode("latin-1").split(",")[:_FEW]
    urls = [read_url(part.strip(" \t<>")) for part in unsubscribe]
    return {site(domain) for domain in domains if domain} | {registered(url) for url in urls if url is not None}


def _is_ours(said: str, tx: Transaction, tools: Tools) -> bool:
    """Is it a domain of ours, or of a recipient, and not we who wrote so?"""
    ours = names_contain(tools.config.identity.local_domains, said)
    if not ours and all(site(path.domain) != site(said) for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS]):
        return False
    passed = [result.identifier for result in tx.results_of("dmarc") if result.result is Result.PASS]
    return site(said) not in map(site, passed)


def _of_address(url: Url) -> Iterator[str]:
    if url.address is not None and url.address.is_global:
        yield "link_address"
    if url.written.removesuffix(".") != url.host and not url.written.startswith("["):
        yield "link_address_number"


@lru_cache(maxsize=4096)
def _of_host(host: str) -> tuple[str, ...]:
    """What the name of a host tells."""
    found = []
    of = site(host)
    if of in _SHORTENERS:
        found.append("link_shortener")
    if is_hosted(host):
        found.append("link_hosting")
    if host in _CHATS:
        found.append("link_chat")
    if "xn--" in host:
        found.append("link_disguised" if is_disguised(host) else "link_punycode")
    if len(host) > _LONG:
        found.append("link_long_host")
    if host.count("-") >= _HYPHENS and "xn--" not in host:
        found.append("link_hyphens")
    if host.rpartition(".")[2] in _CHEAP:
        found.append("link_cheap")
    return tuple(found)


def _of_url(url: Url, of: str) -> Iterator[tuple[str, str]]:
    if url.user:
        yield "link_user", f"{url.user[:60]}@{url.host}"
    if url.odd:
        yield "link_odd", url.written
    if len(url.rest) > 1:
        name = of.partition(".")[0]
        paths = _REDIRECTORS.get("google" if name == "google" else of)
        if paths is not None and url.rest[:32].lower().replace("\\", "/").startswith(paths):
            yield "link_redirector", url.host + url.rest[:32]
        if "@" in url.rest and "@" in url.rest.partition("#")[2]:
            yield "link_fragment", url.host
