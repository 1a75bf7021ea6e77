"""Domains that look like ours, or like those that our users trust, names that go with them, and links to such."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.config.option import shown as quoted
from authmilter.confusables import is_disguised, plain, skeleton, u_label
from authmilter.evidence import Finding, Result
from authmilter.header_text import display_name, reply_to, site
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain
from authmilter.urls import feigned, targets

MOST = 10_000  # domains that are guarded; each takes less than 1 KB
MOST_TYPED = 1000  # of them, those whose misspellings are
_SHORTEST = 5  # letters from which on look-alikes within ASCII are no other word: unl.edu is not uni.edu
_SHORTEST_PART = 6  # letters from which on a name is looked for within others, and misspelt
_SHORTEST_BRAND = 4  # the same for names that the administrator listed
_MOST_RECIPIENTS = 3  # domains of recipients that are looked at
_LONGEST = 500  # characters of a display name that are looked at
_MOST_LINKS = 50  # hosts of links that are looked at
_WORD = re.compile(r"[a-z0-9]+")
# What is put before or behind a name to make another domain of it: paypalsecure, mypaypal.
_LURES = frozenset(
    (
        "access", "account", "accounts", "alert", "alerts", "app", "auth", "bank", "billing", "center", "centre", "client",
        "cloud", "confirm", "customer", "delivery", "direct", "email", "help", "helpdesk", "home", "id", "info", "invoice",
        "login", "logon", "mail", "mailer", "message", "my", "news", "notice", "notification", "notify", "office", "online",
        "page", "pay", "payment", "portal", "post", "reward", "rewards", "secure", "secured", "security", "service", "services",
        "shop", "sign", "signin", "site", "store", "support", "team", "the", "track", "tracking", "update", "updates",
        "verify", "web", "webmail", "www",
    )
)  # fmt: skip


def _brand(text: str) -> str:
    """A domain as lower-case A-label, with its top-level domain: a bare name would be nobody's own in From."""
    domain = endpoint.domain(text)
    if "." not in domain:
        raise ValueError(f"{quoted(text)} is a name without a top-level domain; give the domain, such as {domain}.com")
    return domain


@dataclass(frozen=True)
class Brands:
    """Domains that nobody else's should look like.

    Guarded are these, [identity] local_domains and the domains of the recipients.  Looked at are the domains of From, Reply-To and MAIL FROM: one that reads
    the same, as examp1e.org for example.org or a Cyrillic letter for a Latin one; one that is misspelt by a letter; one that
    has the name as a part, as example-support.net or example.org.login.test.  Of the domains listed here, the name in front of
    the top-level domain is also looked for in the display name of From, so do not list one that is an everyday word or
    somebody's name; and links are looked at: one that says that it leads there and does not, one to a host with that name in it,
    and one to a domain that looks like one that is listed here or in local_domains.  What looks like a domain in mail that
    this domain itself sent, as DMARC confirms, is left alone.  There is no list by default: from which domains a company writes is for you to know.
    """

    domains: Names = option(
        (),
        "Domains of companies whose names are used against your users, all from which they write: example.com, example.co.uk.",
        each=_brand,
    )
    exempt: Names = option(
        (),
        "Domains that look like one of these, and are known to be somebody else's; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


class _Guarded:
    """Domains that are guarded, by how they read."""

    def __init__(self, local_domains: Names, domains: Names = ()) -> None:
        self.local_domains = local_domains
        self.domains = domains
        self.names: dict[str, str] = {}  # how a name reads -> its site
        self.parts: dict[str, str] = {}  # the same for names that are looked for within others
        self.typed: dict[tuple[str, str], str] = {}  # a name with one character left out, and its suffix -> the name
        self.brands: dict[str, set[str]] = {}  # name -> sites that may use it
        for domain in domains:
            brand = _name(site(domain))
            if len(brand) >= _SHORTEST_BRAND:
                self.brands.setdefault(brand, set()).add(site(domain))
                self.parts.setdefault(brand, site(domain))
        sites = dict.fromkeys(site(domain.lstrip(".")) for domain in (*domains, *local_domains[:MOST]))
        self.sites = frozenset(sites)
        for number, guarded in enumerate(sites):
            name = _name(guarded)
            self.names.setdefault(_reading(name), guarded)
            if len(name) < _SHORTEST_PART:
                continue
            self.parts.setdefault(name, guarded)
            if number < MOST_TYPED:
                for shorter in _shortened(name):
                    self.typed.setdefault((shorter, _suffix(guarded)), name)

    def likeness(self, domain: str) -> tuple[str, str]:
        """Symbol and the domain that this one looks like, both "" if it looks like none or is one of them."""
        registered = site(domain)
        if registered in self.sites:
            return "", ""
        name = _name(registered)
        other = self.names.get(_reading(name), "")
        if other and name != _name(other):
            return "lookalike_domain", other
        typed = self._misspelt(name, _suffix(registered))
        if typed:
            return "lookalike_typo", f"{typed}.{_suffix(registered)}"
        if self.parts:
            for part in _WORD.findall(" ".join([plain(u_label(label)) for label in domain.split(".")[:-1]])):
                guarded = self.parts.get(part) or self._with_lure(part)
                if not guarded and len(part) >= _SHORTEST_PART:
                    guarded = self.names.get(_reading(part), "")
                if guarded:
                    return "lookalike_name", guarded
        return "", ""

    def _with_lure(self, part: str) -> str:
        """The site whose name and a lure make that part of a domain."""
        for at in range(2, len(part) - 1):
            for one, other in ((part[:at], part[at:]), (part[at:], part[:at])):
                if other in _LURES and len(one) >= _SHORTEST and one in self.parts:
                    return self.parts[one]
        return ""

    def _misspelt(self, name: str, suffix: str) -> str:
        """The guarded name from which this one differs by a character that is missing, added or changed, or by two
        neighbours that changed places."""
        if (name, suffix) in self.typed:
            return self.typed[name, suffix]
        for shorter in _shortened(name):
            if self.names.get(_reading(shorter)) == f"{shorter}.{suffix}" and shorter in self.parts:
                return shorter
            other = self.typed.get((shorter, suffix), "")
            if other and _differ_once(name, other):
                return other
        return ""


_kept: list[_Guarded] = []


def _guarded(tools: Tools) -> _Guarded:
    """Made once for a configuration, of which there are two for as long as sessions of before a reload go on."""
    local_domains, domains = tools.config.identity.local_domains, tools.options.domains
    for guarded in _kept:
        if guarded.local_domains is local_domains and guarded.domains is domains:
            return guarded
    _kept[:-1] = []
    _kept.append(_Guarded(local_domains, domains))
    return _kept[-1]


@lru_cache(maxsize=4096)
def _like(guarded: _Guarded, domain: str) -> tuple[str, str]:
    return guarded.likeness(domain)


@lru_cache(maxsize=256)
def _recipient(domain: str) -> _Guarded:
    return _Guarded((domain,))


@lru_cache(maxsize=4096)
def _like_recipient(recipient: str, domain: str) -> tuple[str, str]:
    return _recipient(recipient).likeness(domain)


def _name(registered: str) -> str:
    """What people call a site: its first label, as it is shown."""
    return u_label(registered.partition(".")[0])


def _suffix(registered: str) -> str:
    return registered.partition(".")[2]


def _reading(name: str) -> str:
    return skeleton(name) if len(name) >= _SHORTEST else plain(name)


def _shortened(name: str) -> list[str]:
    return [name[:i] + name[i + 1 :] for i in range(len(name))] if len(name) >= _SHORTEST_PART - 1 else []


def _differ_once(one: str, other: str) -> bool:
    """Do two texts of one length differ in one character, or by two neighbours that changed places?"""
    if len(one) != len(other):
        return False
    places = [i for i in range(len(one)) if one[i] != other[i]]
    if len(places) == 2:
        i, k = places
        return k == i + 1 and one[i] == other[k] and one[k] == other[i]
    return len(places) == 1


@check(
    Stage.EOM,
    content=True,
    scores={
        "lookalike_domain": 2.0,
        "lookalike_typo": 1.0,
        "lookalike_name": 0.3,
        "lookalike_link": 1.5,
        "brand_in_name": 1.5,
        "brand_in_link": 0.5,
        "brand_link": 1.0,
        "disguised_domain": 1.5,
    },
    meanings={
        "lookalike_domain": "A domain of the sender reads the same as a guarded one, as examp1e.org does.",
        "lookalike_typo": "A domain of the sender differs from a guarded one by a letter.",
        "lookalike_name": "A domain of the sender has the name of a guarded one as a part.",
        "lookalike_link": "A link leads to a domain that looks like one of [brands] or of local_domains.",
        "brand_in_name": "From has the name of one of [brands], and an address elsewhere.",
        "brand_in_link": "A link leads to a host with the name of one of [brands], which is not theirs.",
        "brand_link": "A link says that it leads to one of [brands], and does not.",
        "disguised_domain": "A domain of the sender mixes scripts, or is written in letters that look like Latin ones.",
    },
    options=Brands,
    body=True,
)
def brands(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """A domain of the sender, or of a link, looks like one of ours or of [brands], or From or a link has the name of one.

    Also a sender's domain that looks like a recipient's, or mixes scripts, whomever it looks like.
    """
    message = tx.message
    path = tx.envelope.reverse_path
    domains = list(author(message).domains[:3])
    if b"reply-to" in message.index:
        domains += reply_to(message).domains[:3]
    if path is not None and path.domain:
        domains.append(path.domain)
    domains = list(dict.fromkeys(domains))
    for domain in domains:
        if "xn--" in domain and is_disguised(domain):
            yield Finding("disguised_domain", domain)
    guarded = _guarded(tools)
    recipients = {path.domain: None for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS] if path.domain}
    # What comes from a guarded domain may have others in it that look so: who sends it, who answers for it.
    passed = {site(one.identifier) for one in tx.results_of("dmarc") if one.result is Result.PASS}
    exempt = tools.options.exempt
    for domain in domains:
        symbol, other = _like(guarded, domain) if guarded.names else ("", "")
        for recipient in recipients:
            if not symbol:
                symbol, other = _like_recipient(recipient, domain)
                if symbol == "lookalike_name":
                    symbol = ""  # whose names are fit for it is for the administrator to say
        if symbol and site(other) not in passed and not names_contain(exempt, domain):
            yield Finding(symbol, f"{domain} looks like {other}")
    if guarded.brands:
        yield from _brand_in_name(tx, guarded, exempt)
    if guarded.names:
        yield from _of_links(tx, guarded, passed, exempt)


def _brand_in_name(tx: Transaction, guarded: _Guarded, exempt: Names) -> Iterator[Finding]:
    name = display_name(tx.message)[:_LONGEST]
    domains = author(tx.message).domains
    if not name or any(names_contain(exempt, domain) for domain in domains):
        return
    home = {site(domain) for domain in domains}
    for word in _WORD.findall(plain(name)):
        sites = guarded.brands.get(word)
        if sites is not None and sites.isdisjoint(home):
            yield Finding("brand_in_name", word)
            return


def _of_links(tx: Transaction, guarded: _Guarded, passed: set[str], exempt: Names) -> Iterator[Finding]:
    """Links to what looks like a guarded domain, and links that say that they lead to a brand's."""
    hosts: dict[str, None] = {}
    found: dict[str, str] = {}
    for target in targets(tx.message):
        if target.is_clicked:
            hosts.update((one.host, None) for one in (target.url, *target.inner) if one.host and one.address is None)
            if (
                guarded.brands
                and "brand_link" not in found
                and (said := feigned(target))
                and site(said) in guarded.sites
            ):
                brand = guarded.brands.get(_name(site(said)))
                # From one domain of a brand to another of it is no feint.
                if brand is not None and brand.isdisjoint(
                    (*passed, *(site(one.host) for one in (target.url, *target.inner)))
                ):
                    found["brand_link"] = f"{said} leads to {target.url.host}"
    for host in islice(hosts, _MOST_LINKS):
        symbol, other = _like(guarded, host)
        if not symbol or site(other) in passed or names_contain(exempt, host):
            continue
        if symbol != "lookalike_name":
            found.setdefault("lookalike_link", f"{host} looks like {other}")
        elif _name(other) in guarded.brands:  # ours is found in names at many a service that we use
            found.setdefault("brand_in_link", f"{host} looks like {other}")
    for symbol, detail in found.items():
        yield Finding(symbol, detail)
