"""Domains that look like ours, or like those that our users trust, and names that go with them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.confusables import is_disguised, plain, skeleton, u_label
from authmilter.evidence import Finding
from authmilter.header_text import display_name, reply_to, site
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain

MOST = 10_000  # domains that are guarded; each takes less than 1 KB
MOST_TYPED = 1000  # of them, those whose misspellings are
_SHORTEST = 5  # letters from which on look-alikes within ASCII are no other word: unl.edu is not uni.edu
_SHORTEST_PART = 6  # letters from which on a name is looked for within others, and misspelt
_SHORTEST_BRAND = 4  # the same for names that the administrator listed
_MOST_RECIPIENTS = 3  # domains of recipients that are looked at
_LONGEST = 500  # characters of a display name that are looked at
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Brands:
    """Domains that nobody else's should look like.

    Guarded are these, [identity] local_domains and the domains of the recipients.  Looked at are the domains of From, Reply-To and MAIL FROM: one that reads
    the same, as examp1e.org for example.org or a Cyrillic letter for a Latin one; one that is misspelt by a letter; one that
    has the name as a part, as example-support.net or example.org.login.test.  Of the domains listed here, the name in front of
    the top-level domain is also looked for in the display name of From, so do not list one that is an everyday word or
    somebody's name.  There is no list by default: from which domains a company writes is for you to know.
    """

    domains: Names = option(
        (),
        "Domains of companies whose names are used against your users, all from which they write: example.com, example.co.uk.",
        each=endpoint.domain,
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
        for part in _WORD.findall(" ".join([plain(u_label(label)) for label in domain.split(".")[:-1]])):
            if part in self.parts:
                return "lookalike_name", self.parts[part]
        return "", ""

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


_last = _Guarded(())


def _guarded(tools: Tools) -> _Guarded:
    """Made once for a configuration: there is no other in a process, but for the moment after a reload."""
    global _last  # noqa: PLW0603
    local_domains, domains = tools.config.identity.local_domains, tools.options.domains
    if _last.local_domains is not local_domains or _last.domains is not domains:
        _last = _Guarded(local_domains, domains)
        _likeness.cache_clear()
    return _last


@lru_cache(maxsize=4096)
def _likeness(domain: str) -> tuple[str, str]:
    """Among what is guarded now."""
    return _last.likeness(domain)


@lru_cache(maxsize=4096)
def _likeness_to_recipient(domain: str, recipient: str) -> tuple[str, str]:
    return _Guarded((recipient,)).likeness(domain)


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
    scores={
        "lookalike_domain": 2.0,
        "lookalike_typo": 1.0,
        "lookalike_name": 0.3,
        "brand_in_name": 1.0,
        "disguised_domain": 1.5,
    },
    options=Brands,
)
def brands(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """A domain of the sender looks like one of ours, of the recipients or of [brands], or From has the name of one.

    Also one that mixes scripts, whomever it looks like.
    """
    message = tx.message
    path = tx.envelope.reverse_path
    domains = list(author(message).domains[:3])
    if b"reply-to" in message.index:
        domains += reply_to(message).domains[:3]
    if path is not None and path.domain:
        domains.append(path.domain)
    guarded = _guarded(tools)
    recipients = {path.domain for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS]}
    seen: set[str] = set()
    for domain in domains:
        if domain in seen:
            continue
        seen.add(domain)
        if "xn--" in domain and is_disguised(domain):
            yield Finding("disguised_domain", domain)
        symbol, other = _likeness(domain) if guarded.names else ("", "")
        for recipient in recipients:
            if not symbol and recipient:
                symbol, other = _likeness_to_recipient(domain, recipient)
                if symbol == "lookalike_name":
                    symbol = ""  # whose names are fit for it is for the administrator to say
        if symbol and not names_contain(tools.options.exempt, domain):
            yield Finding(symbol, f"{domain} looks like {other}")
    if guarded.brands:
        yield from _brand_in_name(tx, guarded, tools.options.exempt)


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
