"""What the configuration says of an address by its networks, and of a name by the domains above it."""

from collections.abc import Iterable
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2


class NetworkTable(Generic[T]):
    """Values by network; the most specific network of an address decides.

    A search takes one look into a dictionary for every prefix length that occurs, however many networks there are.
    IPv4 addresses that are written as IPv6 (``::ffff:192.0.2.1``) are IPv4, in networks as in addresses.  Of two values
    for one network the first stays.
    """

    __slots__ = ("_ipv4", "_ipv6")

    def __init__(self, entries: Iterable[tuple[Network, T]] = ()) -> None:
        ipv4: dict[int, dict[int, T]] = {}
        ipv6: dict[int, dict[int, T]] = {}
        for network, value in entries:
            if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
                network = IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))  # noqa: PLW2901
            shift = network.max_prefixlen - network.prefixlen
            table = ipv4 if isinstance(network, IPv4Network) else ipv6
            table.setdefault(shift, {}).setdefault(int(network.network_address) >> shift, value)
        # Bits to drop from an address, and the networks of the length that is left; the longest prefix first.
        self._ipv4 = tuple(sorted(ipv4.items(), key=lambda item: item[0]))
        self._ipv6 = tuple(sorted(ipv6.items(), key=lambda item: item[0]))

    def __bool__(self) -> bool:
        return bool(self._ipv4 or self._ipv6)

    def find(self, address: Address | None) -> T | None:
        """The value of the most specific network that the address lies in; None if it lies in none."""
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped
            if mapped is None:
                return _search(self._ipv6, int(address))
            address = mapped
        return None if address is None else _search(self._ipv4, int(address))


class NameTable(Generic[T]):
    """Values by lower-case domain name; where a name begins with a dot, it holds for what is below it too.

    A search takes one look into a dictionary for every label of a name, however many names there are.  Of two values for
    one name the first stays.
    """

    __slots__ = ("_names",)

    def __init__(self, entries: Iterable[tuple[str, T]] = ()) -> None:
        self._names: dict[str, T] = {}
        for name, value in entries:
            self._names.setdefault(name, value)

    def __bool__(self) -> bool:
        return bool(self._names)

    def find(self, name: str) -> T | None:
        """The value of the name itself, else of the longest name with a dot that holds for it; None if none does."""
        names = self._names
        if name in names:
            return names[name]
        rest = "." + name if names and name else ""
        while rest:
            if rest in names:
                return names[rest]
            dot = rest.find(".", 1)
            rest = rest[dot:] if dot > 0 else ""
        return None


def _search(lengths: tuple[tuple[int, dict[int, T]], ...], number: int) -> T | None:
    for shift, networks in lengths:
        key = number >> shift
        if key in networks:
            return networks[key]
    return None


class NetworkList(tuple[Network, ...]):
    """Networks of the configuration: a tuple, which makes a table of itself the first time that one is looked for."""

    @cached_property
    def table(self) -> NetworkTable[Network]:
        """Each of them by itself."""
        return NetworkTable((network, network) for network in self)

    def __reduce__(self) -> tuple[Any, ...]:
        return NetworkList, (tuple(self),)  # without the table


class NameList(tuple[str, ...]):
    """Names of the configuration, in the same way."""

    @cached_property
    def table(self) -> NameTable[str]:
        """Each of them by itself."""
        return NameTable((name, name) for name in self)

    def __reduce__(self) -> tuple[Any, ...]:
        return NameList, (tuple(self),)


def find_network(networks: tuple[Network, ...], address: Address | None) -> Network | None:
    """The most specific of the networks that the address lies in; None if it lies in none.

    The cost does not grow with the number of networks, if they come from the configuration.
    """
    if not networks:
        return None
    table = networks.table if isinstance(networks, NetworkList) else NetworkList(networks).table
    return table.find(address)


def find_name(names: tuple[str, ...], domain: str) -> str:
    """The name that is the domain, else the longest with a leading dot that the domain is or is below; "" if none is.

    Both are lower-case A-labels.  The cost does not grow with the number of names, if they come from the configuration.
    """
    if not (names and domain):
        return ""
    table = names.table if isinstance(names, NameList) else NameList(names).table
    return table.find(domain) or ""


def contains(networks: tuple[Network, ...], address: Address | None) -> bool:
    """Does the address lie in one of the networks?  None lies in none."""
    return find_network(networks, address) is not None


def names_contain(names: tuple[str, ...], domain: str) -> bool:
    """Is the domain one of the names, or, where a name begins with a dot, that one or below it?  "" is none."""
    return find_name(names, domain) != ""
