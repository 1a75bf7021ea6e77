"""What follows from the address of an SMTP client alone."""

import logging
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from authmilter.config.schema import Network
from authmilter.networks import contains

log = logging.getLogger("authmilter.clients")

_KEPT = 4096  # clients that are remembered; less than 1 KB each
_LONGEST = 64  # octets of an address in text, zone included, and more than any has


class Client(NamedTuple):
    """An SMTP client.

    `address` is None if the MTA gave none.  `share` is on whose account it asks the DNS: one address, or the /64 that one
    customer gets of IPv6; "" for this machine.  `internal` and `trusted_relay`: what [networks] says.
    """

    address: IPv4Address | IPv6Address | None = None
    text: str = ""
    share: str = ""
    internal: bool = False
    trusted_relay: bool = False


NOBODY = Client()


def reader(networks: Network) -> Callable[[bytes], Client]:
    """A function that knows clients by their address as the MTA writes it; most clients come again."""

    @lru_cache(maxsize=_KEPT)
    def read(octets: bytes) -> Client:
        try:
            address = ip_address(octets.partition(b"%")[0].decode("ascii"))  # no zone (RFC 4007 section 11)
        except ValueError:
            log.warning("the MTA gave an address that is none: %r", octets)
            return NOBODY
        address = getattr(address, "ipv4_mapped", None) or address
        share = ""
        if not address.is_loopback:
            share = str(address) if address.version == 4 else f"{int(address) >> 64:x}::/64"
        return Client(
            address,
            str(address),
            share,
            contains(networks.internal, address),
            contains(networks.trusted_relays, address),
        )

    return lambda octets: read(octets[:_LONGEST])
