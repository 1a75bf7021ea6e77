"""Whom a key of the state names.

Checks make keys of words with blanks between them: addresses, networks, mailboxes, domains, logins, and words of theirs.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product
from string import Formatter
from typing import Any

from authmilter.addresses import parse_path, to_ascii_domain
from authmilter.config.endpoint import login_key
from authmilter.identities import address_of

Network = IPv4Network | IPv6Network

_KEPT_WIDTHS = {4: (24,), 6: (64, 48)}  # the networks by which checks keep what they know of a client
_WORD = re.compile(r"[0-9a-z]+")


class Subject:
    """An address, a network, a mailbox, a domain or a login, as an operator wrote it.

    An address is named by its networks too, a network by every address in it, and a domain by every mailbox of it, but
    not by its subdomains.  Case does not count.
    """

    def __init__(self, text: str) -> None:
        bare = text.strip().strip("<>[]")
        self.text = bare.lower()
        self._network = _network(self.text)
        local_part, at, domain = self.text.rpartition("@")
        domain = to_ascii_domain(domain) or domain
        self._words = {self.text, login_key(text), f"{local_part}{at}{domain}"}
        mailbox = parse_path(bare.encode("utf-8", "surrogatepass")) if local_part else None
        if mailbox is not None:
            address = address_of(mailbox)
            name, _, host = address.rpartition("@")
            # Greylisting keeps a sender without what is made for one message; see `checks.greylist`.
            self._words |= {address, f"{_WORD.sub(_without_digits, name.partition('+')[0])}@{host}"}
        elif self._network is None:
            self._words.add(domain)  # "@example.org" is example.org
        self._phrases = [f" {word} " for word in self._words if " " in word]  # a login may have blanks in it
        self._overlaps = lru_cache(maxsize=1024)(self._overlaps_network)  # keys in their order repeat their networks
        self._mailboxes = "" if local_part or self._network is not None else f"@{domain}"

    def is_named_by(self, key: str) -> bool:
        """Does the key name it?"""
        words = key.lower().split()
        if any(map(self._is, words)):
            return True
        return bool(self._phrases) and any(phrase in f" {' '.join(words)} " for phrase in self._phrases)

    def keys(self, forms: Iterable[str] = (), values: Mapping[str, Collection[Any]] | None = None) -> list[str]:
        """Keys that can be made of it: what can be looked for where keys are kept as hashes.

        They are itself, and every form of `interfaces.Space.keys` that can be filled in with it and the `values` of
        other fields.
        """
        names = self._names()
        values = {**(values or {}), "subject": names}
        found = set(names)
        for form in forms:
            fields = fields_of(form)
            for row in product(*(values.get(field, ()) for field in fields)):
                found.add(form.format(**dict(zip(fields, row, strict=True))))
        return sorted(found)

    def _names(self) -> set[str]:
        """Itself, as it may stand in a key."""
        found = set(self._words)
        if self._network is not None and self._network.num_addresses == 1:
            widths = _KEPT_WIDTHS[self._network.version]
            found |= {str(self._network.supernet(new_prefix=width)) for width in widths}
            found.add(str(self._network.network_address))
        elif self._network is not None:
            found.add(str(self._network))
        return found

    def _is(self, word: str) -> bool:
        if word in self._words or (self._mailboxes and word.endswith(self._mailboxes)):
            return True
        return self._network is not None and self._overlaps(word)

    def _overlaps_network(self, word: str) -> bool:
        network = _network(word)
        return network is not None and self._network is not None and self._network.overlaps(network)


def fields_of(form: str) -> list[str]:
    """Names of the fields of a format string, each once."""
    return list(dict.fromkeys(field for _, field, _, _ in Formatter().parse(form) if field))


def _without_digits(word: re.Match[str]) -> str:
    return word[0] if word[0].isalpha() else "#"


def _network(text: str) -> Network | None:
    """An address or network; None for anything else."""
    if ":" not in text and not text[:1].isdigit():
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
