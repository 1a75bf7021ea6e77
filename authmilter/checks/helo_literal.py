"""HELO with an address literal (RFC 5321 section 4.1.3)."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

from authmilter.check import Tools, Words, check
from authmilter.config.schema import Network
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.networks import NetworkTable, contains
from authmilter.verdict import Action

_LONGEST = 64  # octets of a literal with an address, and more than any has
_LONGEST_DOMAIN = 255  # octets of what stands in the place of a domain (RFC 5321 section 4.5.3.1.2)
_SHOWN = 64

# RFC 5321 section 4.1.3: General-address-literal.
_TAG = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_DCONTENT = frozenset(range(33, 127)) - frozenset(b"[\\]")

# Everybody has such addresses at home (RFC 1918, 3927, 4193, 6598): they say nothing of whose they are.
_EVERYBODYS = NetworkTable(
    (ip_network(text), True)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"),
        *("::1", "fc00::/7", "fe80::/10"),
    )
)


def literal_address(literal: bytes) -> IPv4Address | IPv6Address | None:
    """The address in a literal such as ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``; None if it is malformed."""
    if len(literal) > _LONGEST or not (literal.startswith(b"[") and literal.endswith(b"]")):
        return None
    text = literal[1:-1].decode("latin-1")
    if text[:5].lower() != "ipv6:":
        return _ipv4(text)
    head, _, tail = text[5:].rpartition(":")
    if "." in tail:  # IPv6v4-full, IPv6v4-comp
        ipv4 = _ipv4(tail)
        if ipv4 is None:
            return None
        tail = str(ipv4)  # without leading zeros
    address = _ipv6(f"{head}:{tail}")
    return (address and address.ipv4_mapped) or address


def is_literal(literal: bytes) -> bool:
    """Is it an address literal, be it one of a kind that nobody has defined yet, such as ``[TAG:VALUE]``?"""
    if literal_address(literal) is not None:
        return True
    if len(literal) > _LONGEST_DOMAIN or not (literal.startswith(b"[") and literal.endswith(b"]")):
        return False
    tag, _, value = literal[1:-1].partition(b":")
    return bool(
        tag
        and value
        and tag.lower() != b"ipv6"
        and not tag.endswith(b"-")
        and _TAG.issuperset(tag)
        and _DCONTENT.issuperset(value)
        # An IPv6 address that lacks its tag would otherwise have one by its first group.
        and _ipv6(literal[1:-1].partition(b"%")[0].decode("ascii")) is None
    )


def _ipv4(text: str) -> IPv4Address | None:
    octets = text.split(".")
    # Leading zeros are legal there, and decimal: Snum = 1*3DIGIT.
    if len(octets) != 4 or not all(o.isascii() and o.isdecimal() and len(o) <= 3 and int(o) < 256 for o in octets):
        return None
    return IPv4Address(bytes(map(int, octets)))


def _ipv6(text: str) -> IPv6Address | None:
    try:
        return IPv6Address(text) if "%" not in text else None
    except ValueError:
        return None


def _is_ours(address: IPv4Address | IPv6Address, networks: Network) -> bool:
    ours = contains(networks.internal, address) or contains(networks.trusted_relays, address)
    return ours and not _EVERYBODYS.find(address)


def _shown_literal(tx: Transaction) -> str:
    return tx.helo[:_SHOWN].decode("ascii", "backslashreplace")


@check(
    Stage.HELO,
    scores={"helo_literal": 1.5},
    replies={
        "helo_literal": Words("7.1", lambda *_: "HELO with an address literal; use the host name of your mail server")
    },
)
def helo_literal(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Client greeted with an IP address instead of a host name."""
    if tx.helo.startswith(b"["):
        yield Finding("helo_literal", _shown_literal(tx))


@check(
    Stage.HELO,
    scores={"helo_literal_foreign": 0.5, "helo_literal_malformed": 0.5},
    # RFC 5321 section 4.1.4: 501 or 550 where the argument is not acceptable
    strict={"helo_literal_malformed": Action.REJECT},
    judged=Stage.MAIL,
    replies={
        "helo_literal_foreign": Words("7.1", lambda _, detail: f"HELO {detail}"),
        "helo_literal_malformed": Words(
            "5.4", lambda _, detail: f"HELO {detail} is no address literal (RFC 5321 section 4.1.3)", permanent=501
        ),
    },
)
def helo_literal_address(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """The IP address in HELO is not the client's, or malformed; three times as bad if it is one of ours."""
    helo = tx.helo
    if not helo.startswith(b"["):
        return
    shown = _shown_literal(tx)
    address = literal_address(helo)
    client = tx.connection.client_ip
    if address is None:
        if not is_literal(helo):
            yield Finding("helo_literal_malformed", shown)
    elif client is None or address == client:
        return
    elif _is_ours(address, tools.config.networks):
        yield Finding("helo_literal_foreign", f"{shown} is an address of ours, not {client}", 3.0)
    else:
        yield Finding("helo_literal_foreign", f"{shown} is not {client}")
