"""Networks and names as tables."""

import copy
import pickle
import random
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest

from authmilter.networks import NameList, NameTable, NetworkList, NetworkTable, contains, names_contain

TABLE = NetworkTable(
    (ip_network(text), text)
    for text in (
        "0.0.0.0/0",
        "192.0.2.0/24",
        "192.0.2.128/25",
        "192.0.2.129",
        "2001:db8::/32",
        "2001:db8:0:1::/64",
        "2001:db8:0:1::7",
        "::ffff:198.51.100.0/120",
    )
)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        pytest.param("192.0.2.129", "192.0.2.129", id="the address itself wins"),
        pytest.param("192.0.2.130", "192.0.2.128/25", id="the longer prefix wins"),
        pytest.param("192.0.2.127", "192.0.2.0/24", id="the last address below the longer prefix"),
        pytest.param("192.0.3.0", "0.0.0.0/0", id="the first address behind a network"),
        pytest.param("2001:db8:0:1::7", "2001:db8:0:1::7", id="an IPv6 address itself"),
        pytest.param("2001:db8:0:1::8", "2001:db8:0:1::/64", id="a /64"),
        pytest.param("2001:db8:0:2::8", "2001:db8::/32", id="a /32"),
        pytest.param("2001:db9::", None, id="IPv6 outside of all; the whole of IPv4 does not hold it"),
        pytest.param("::ffff:192.0.2.130", "192.0.2.128/25", id="an IPv4 address written as IPv6"),
        pytest.param("198.51.100.9", "::ffff:198.51.100.0/120", id="an IPv4 network written as IPv6"),
        pytest.param("::192.0.2.130", None, id="an IPv4-compatible address is IPv6"),
    ],
)
def test_the_most_specific_network_decides(address: str, found: str | None) -> None:
    assert TABLE.find(ip_address(address)) == found


def test_no_address_lies_in_no_network() -> None:
    assert TABLE.find(None) is None


def test_of_two_values_for_one_network_the_first_stays() -> None:
    network = ip_network("192.0.2.0/24")
    assert NetworkTable([(network, 1), (network, 2)]).find(ip_address("192.0.2.1")) == 1


def test_a_value_that_is_false_is_found() -> None:
    table = NetworkTable([(ip_network("192.0.2.0/25"), 0), (ip_network("192.0.2.0/24"), 1)])
    assert table.find(ip_address("192.0.2.1")) == 0


def test_an_empty_table_is_false_and_finds_nothing() -> None:
    table: NetworkTable[int] = NetworkTable()
    assert not table
    assert table.find(ip_address("192.0.2.1")) is None


def test_the_whole_address_space_may_be_a_network() -> None:
    table = NetworkTable([(ip_network("::/0"), "six"), (ip_network("0.0.0.0/0"), "four")])
    assert table.find(ip_address("2001:db8::1")) == "six"
    assert table.find(ip_address("255.255.255.255")) == "four"


@pytest.mark.parametrize("version", [4, 6])
def test_random_tables_agree_with_a_search_through_all_networks(version: int) -> None:
    chance = random.Random(version)
    bits = 32 if version == 4 else 128
    make = IPv4Address if version == 4 else IPv6Address
    base = chance.getrandbits(bits - 12) << 12  # all close together, so that they overlap
    networks = list(
        dict.fromkeys(
            ip_network((int(make(base + chance.getrandbits(12))), chance.randint(bits - 12, bits)), strict=False)
            for _ in range(200)
        )
    )
    table = NetworkTable((network, network) for network in networks)
    for _ in range(1000):
        address = make(base + chance.getrandbits(12))
        holding = [network for network in networks if address in network]
        assert table.find(address) == max(holding, key=lambda network: network.prefixlen, default=None)


NAMES = NameTable(
    (text, text) for text in ("example.org", ".example.org", ".mail.example.org", "x.example.net", ".net.example")
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("example.org", "example.org", id="the name itself goes before the same with a dot"),
        pytest.param("a.example.org", ".example.org", id="a name below"),
        pytest.param("mail.example.org", ".mail.example.org", id="a name with a dot holds for itself"),
        pytest.param("a.b.mail.example.org", ".mail.example.org", id="the longest name wins"),
        pytest.param("x.example.net", "x.example.net", id="a name without dot"),
        pytest.param("a.x.example.net", None, id="nothing is below a name without dot"),
        pytest.param("badexample.org", None, id="a name that only ends alike"),
        pytest.param("org", None, id="a name above"),
        pytest.param("", None, id="no name"),
        pytest.param("a..net.example", ".net.example", id="an empty label"),
    ],
)
def test_the_longest_name_decides(name: str, found: str | None) -> None:
    assert NAMES.find(name) == found


def test_of_two_values_for_one_name_the_first_stays() -> None:
    assert NameTable([("a.example", 0), ("a.example", 1)]).find("a.example") == 0


def test_an_empty_table_of_names_is_false_and_finds_nothing() -> None:
    table: NameTable[int] = NameTable()
    assert not table
    assert table.find("example.org") is None


OURS = tuple(map(ip_network, ("192.0.2.0/24", "2001:db8::/32", "::ffff:198.51.100.0/120")))


@pytest.mark.parametrize("networks", [OURS, NetworkList(OURS)], ids=["a tuple", "a list of the configuration"])
@pytest.mark.parametrize(
    ("address", "is_in"),
    [
        ("192.0.2.9", True),
        ("::ffff:192.0.2.9", True),
        ("198.51.100.9", True),
        ("2001:db8::9", True),
        ("192.0.3.1", False),
        ("2001:db9::", False),
    ],
)
def test_an_address_in_networks(networks: tuple[IPv4Network | IPv6Network, ...], address: str, is_in: bool) -> None:
    assert contains(networks, ip_address(address)) is is_in


@pytest.mark.parametrize("make", [tuple, NetworkList], ids=["a tuple", "a list of the configuration"])
def test_no_address_is_in_networks_and_none_has_an_address(make: Callable[..., Any]) -> None:
    assert not contains(make(OURS), None)
    assert not contains(make(), ip_address("192.0.2.1"))


@pytest.mark.parametrize("make", [tuple, NameList], ids=["a tuple", "a list of the configuration"])
@pytest.mark.parametrize(
    ("domain", "is_in"),
    [
        ("example.net", True),
        ("a.example.net", False),
        ("example.org", True),
        ("a.b.example.org", True),
        ("notexample.org", False),
        ("org", False),
        ("", False),
    ],
)
def test_a_domain_in_names(make: Callable[..., Any], domain: str, is_in: bool) -> None:
    assert names_contain(make(("example.net", ".example.org")), domain) is is_in
    assert not names_contain(make(), domain)


@pytest.mark.parametrize("value", [NetworkList(OURS), NameList(("a.example", ".b.example"))], ids=["networks", "names"])
def test_a_list_is_a_tuple_to_everybody_else(value: NetworkList | NameList) -> None:
    assert value.table  # which is then no part of a copy
    for copied in (value, copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert copied == tuple(value)
        assert hash(copied) == hash(tuple(value))
        assert repr(copied) == repr(tuple(value))
        assert type(copied) is type(value)
    assert b"Table" not in pickle.dumps(value)
