"""Reverse DNS that a provider made for all its addresses, rather than one for a mail server.

Such a name holds the address, or says how its customer is connected.  Names are read as words and numbers, each once.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from authmilter.check import Tools, Words, check
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction

_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"[0-9]+")
_SEPARATORS = str.maketrans("._:", "---")
_LONGEST = 255  # RFC 1035 section 2.3.4

_SERVER = frozenset(
    (
        "exchange", "exim", "lists", "mbox", "mout", "mtas", "newsletter", "out", "outbound",
        "outgoing", "postfix", "relay", "relays",
    )
)  # fmt: skip
_SERVER_BEGINS = ("mail", "mx", "smtp")
_SERVER_ENDS = ("mail", "mx", "smtp", "mta")

# How a home is connected, and what its provider calls the addresses that it deals out.
_DYNAMIC = frozenset(
    (
        "abo", "adsl", "broadband", "cable", "cablemodem", "catv", "cgn", "cgnat", "cpe", "dhcp", "dhcpclient",
        "dial", "dialin", "dialup", "dip", "docsis", "dsl", "dslam", "dslpool", "dyn", "dynamic", "dynamicip",
        "dynip", "fiber", "fibre", "fttb", "fttc", "fttd", "ftth", "fttx", "gpon", "gprs", "hfc", "hsd", "isdn",
        "kabel", "lte", "mobile", "modem", "nat", "pon", "pool", "pools", "ppp", "pppoe", "pptp", "residential",
        "resnet", "umts", "unassigned", "unused", "vdsl", "wifi", "wimax", "wireless", "wlan", "xdsl",
    )
)  # fmt: skip
_STATIC = frozenset(
    (
        "business", "colo", "dedicated", "fixed", "fixip", "server", "srv", "stat", "static", "staticip", "statip",
    )
)  # fmt: skip


def is_generic(name: str, address: IPv4Address | IPv6Address | None) -> str:
    """Why the name of that address looks like one that its provider made; "" if it does not.

    Where the name has a word for a mail server in it, somebody has thought about it, and it does not.  Words for a home
    line count only beside a number, and not beside a word for a fixed line; an address counts beside both.  The last two
    labels are the provider's own name, and are not looked at for words.
    """
    return _is_generic(name, address) if len(name) <= _LONGEST else ""


@lru_cache(maxsize=4096)
def _is_generic(name: str, address: IPv4Address | IPv6Address | None) -> str:
    labels = name.lower().rstrip(".").split(".")
    host = ".".join(labels[:-2])
    if not host:
        return ""
    words = _WORD.findall(host)
    for word in words:
        if word in _SERVER or word.startswith(_SERVER_BEGINS) or word.endswith(_SERVER_ENDS):
            return ""
    # Providers also write part of an address into a label of their own: ns1.ip-203-0-113.example.
    if _holds_address(".".join(labels[:-1]), address):
        return "holds the address"
    if _STATIC.isdisjoint(words) and _NUMBER.search(host):
        return next((f"holds the word {word}" for word in words if word in _DYNAMIC), "")
    return ""


def _holds_address(text: str, address: IPv4Address | IPv6Address | None) -> bool:
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if isinstance(address, IPv4Address):
        return _holds_ipv4(text, address)
    return address is not None and _holds_ipv6(text.translate(_SEPARATORS), address)


def _holds_ipv4(text: str, address: IPv4Address) -> bool:
    """Three octets or more as numbers in any order, or all in one: padded, joined, hexadecimal, or as one number."""
    octets = list(address.packed)
    numbers = [int(digits) for digits in _NUMBER.findall(text) if len(digits) <= 3]
    found = []
    for octet in octets:
        if octet in numbers:
            numbers.remove(octet)
            found.append(octet)
    # Small numbers also count machines: three of them are found in "rack1-2.site1" by chance.
    if len(found) == 4 or (len(found) == 3 and max(found) >= 20):
        return True
    compact = text.translate(_SEPARATORS).replace("-", "")
    backwards = octets[::-1]
    forms = [
        "".join([f"{octet:03d}" for octet in octets[1:]]),
        "".join([f"{octet:03d}" for octet in backwards[:-1]]),
        address.packed.hex(),
        address.packed[::-1].hex(),
    ]
    forms += [
        form
        for form in ("".join(map(str, octets)), "".join(map(str, backwards)), str(int(address)))
        if len(form) >= 7  # what is shorter is found by chance
    ]
    return any(form in compact for form in forms)


def _holds_ipv6(text: str, address: IPv6Address) -> bool:
    """The address, its /64 or its last 64 bits, in full or without leading zeros, or its digits backwards."""
    digits = address.packed.hex()
    groups = [digits[i : i + 4].lstrip("0") or "0" for i in range(0, 32, 4)]
    dashed = ("-".join(groups[:4]), "-".join(groups[4:]), str(address).replace(":", "-"))
    # "0-0-0-1" is found by chance, and so is "--1".
    if any(len(form) >= 9 and form in text for form in dashed):
        return True
    compact = text.replace("-", "")
    return any(form in compact for form in (digits[:16], digits[16:], digits[:15:-1]))


def _words(tx: Transaction, _: str) -> str:
    return f"The name of {tx.connection.client_ip} looks like one of a home line or pool; give your mail server a name of its own"


@check(
    Stage.CONNECT,
    scores={"generic_rdns": 1.0},
    judged=Stage.MAIL,
    replies={"generic_rdns": Words("7.25", _words)},  # RFC 7372 section 3.2: reverse DNS
)
def generic_rdns(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """The client's confirmed name looks generic: made of its address, or named after a home line or pool."""
    name = tx.connection.client_name
    if name:
        reason = is_generic(name, tx.connection.client_ip)
        if reason:
            yield Finding("generic_rdns", f"{name} {reason}")
