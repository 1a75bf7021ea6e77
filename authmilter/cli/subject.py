"""Whom a key of the state names.

Checks make keys of words with blanks between them: addresses, networks, mailboxes, domains, logins, and words of theirs.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from authmilter.addresses import to_ascii_domain

Network = IPv4Network | IPv6Network

_KEPT_WIDTH = {4: 24, 6: 64}  # the networks by which checks keep what they know of a client
_WORD = re.compile(r"[0-9a-z]+")


class Subject:
    """An address, a network, a mailbox, a domain or a login, as an operator wrote it.

    An address is named by its networks too, a network by every address in it, and a domain by every mailbox of it, but
    not by its subdomains.  Case does not count.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip().strip("<>[]").lower()
        self._network = _network(self.text)
        local_part, at, domain = self.text.rpartition("@")
        domain = to_ascii_domain(domain) or domain
        self._words = {self.text, f"{local_part}{at}{domain}"}
        if local_part:
            local_part = local_part.replace(" ", "_")  # as `identities.address_of` has it
            self._words.add(f"{local_part}{at}{domain}")
            # Greylisting keeps a sender without what is made for one message; see `checks.greylist`.
            self._words.add(f"{_WORD.sub(_without_digits, local_part.partition('+')[0])}{at}{domain}")
        elif self._network is None:
            self._words.add(domain)  # "@example.org" is example.org
        self._overlaps = lru_cache(maxsize=1024)(self._overlaps_network)  # keys in their order repeat their networks
        self._mailboxes = "" if local_part or self._network is not None else f"@{domain}"

    def is_named_by(self, key: str) -> bool:
        """Does the key name it?"""
        words = key.lower().split()
        # A login may have blanks in it.
        return any(map(self._is, words)) or (" " in self.text and f" {self.text} " in f" {' '.join(words)} ")

    def keys(self) -> list[str]:
        """Keys that consist of it alone: what can be looked for where keys are kept as hashes."""
        found = set(self._words)
        if self._network is not None and self._network.num_addresses == 1:
            width = _KEPT_WIDTH[self._network.version]
            found |= {str(self._network.network_address), str(self._network.supernet(new_prefix=width))}
        elif self._network is not None:
            found.add(str(self._network))
        return sorted(found)

    def _is(self, word: str) -> bool:
        if word in self._words or (self._mailboxes and word.endswith(self._mailboxes)):
            return True
        return self._network is not None and self._overlaps(word)

    def _overlaps_network(self, word: str) -> bool:
        network = _network(word)
        return network is not None and self._network is not None and self._network.overlaps(network)


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
