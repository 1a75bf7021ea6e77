"""iprev: the table of RFC 8601 section 2.7.3, and names that a client may have made up."""

from ipaddress import ip_address

import pytest

from authmilter.auth.iprev import check
from authmilter.config.schema import Iprev
from authmilter.evidence import Result
from authmilter.model import Connection
from tests.fakes import FakeDNS

PTR4 = "1.2.0.192.in-addr.arpa PTR"
PTR6 = "1.0.0.0.c.b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR"

ZONE: dict[str, list[str | bytes]] = {
    "one.example A": ["192.0.2.1"],
    "many.example A": ["198.51.100.1", "192.0.2.1"],
    "six.example AAAA": ["2001:0DB8::bc:1"],
    "six.example A": ["192.0.2.77"],
    "other.example A": ["198.51.100.1"],
    "broken.example A": ["192.0.2.01", "x", ""],
    "alias.example CNAME": ["one.example"],
    "x y.example A": ["192.0.2.1"],
    '"<x>.example A': ["192.0.2.1"],
}

CASES: list[tuple[str, list[str | bytes], Result, str, str]] = [
    ("a name that leads back", ["one.example"], Result.PASS, "one.example", "192.0.2.1 is one.example"),
    ("one address of several", ["many.example"], Result.PASS, "many.example", "192.0.2.1 is many.example"),
    ("an alias", ["alias.example"], Result.PASS, "alias.example", "192.0.2.1 is alias.example"),
    ("the second name", ["other.example", "one.example"], Result.PASS, "one.example", "192.0.2.1 is one.example"),
    (
        "a name with another address",
        ["other.example"],
        Result.FAIL,
        "",
        "192.0.2.1 is not an address of other.example",
    ),
    ("a name without address", ["no.example"], Result.FAIL, "", "192.0.2.1 is not an address of no.example"),
    ("broken addresses", ["broken.example"], Result.FAIL, "", "192.0.2.1 is not an address of broken.example"),
    ("a name of the other family", ["six.example"], Result.FAIL, "", "192.0.2.1 is not an address of six.example"),
    ("no host name", ["x y.example", '"<x>.example'], Result.FAIL, "", "no name of 192.0.2.1 is a host name"),
    (
        "no name that can be asked",
        ["x" * 64 + ".example", "a..example", "."],
        Result.FAIL,
        "",
        "no name of 192.0.2.1 is a host name",
    ),
    (
        "no answer for one name, another leads back",
        ["down.example", "one.example"],
        Result.PASS,
        "one.example",
        "192.0.2.1 is one.example",
    ),
    (
        "no answer for one name, another leads elsewhere",
        ["down.example", "other.example"],
        Result.TEMPERROR,
        "",
        "no answer from the DNS for the address of down.example",
    ),
]


@pytest.mark.parametrize(("names", "result", "identifier", "reason"), [r[1:] for r in CASES], ids=[r[0] for r in CASES])
async def test_ipv4(names: list[str | bytes], result: Result, identifier: str, reason: str) -> None:
    dns = FakeDNS({**ZONE, PTR4: names}, fail=["down.example A"])
    found = await check(Connection(client_ip=ip_address("192.0.2.1")), dns, Iprev())
    assert (found.method, found.result, found.identifier, found.reason) == ("iprev", result, identifier, reason)
    assert dict(found.properties) == {"policy.iprev": "192.0.2.1"}


async def test_ipv6() -> None:
    dns = FakeDNS({**ZONE, PTR6: ["six.example"]})
    found = await check(Connection(client_ip=ip_address("2001:db8::bc:1")), dns, Iprev())
    assert (found.result, found.identifier) == (Result.PASS, "six.example")
    assert dict(found.properties) == {"policy.iprev": "2001:db8::bc:1"}


async def test_an_ipv4_mapped_address_is_ipv4() -> None:
    dns = FakeDNS({**ZONE, PTR4: ["one.example"]})
    found = await check(Connection(client_ip=ip_address("::ffff:192.0.2.1")), dns, Iprev())
    assert (found.result, dict(found.properties)) == (Result.PASS, {"policy.iprev": "192.0.2.1"})


async def test_no_name_is_a_permerror() -> None:
    found = await check(Connection(client_ip=ip_address("192.0.2.1")), FakeDNS(ZONE), Iprev())
    assert (found.result, found.reason) == (Result.PERMERROR, "192.0.2.1 has no name")


async def test_no_answer_for_the_name_is_a_temperror() -> None:
    found = await check(Connection(client_ip=ip_address("192.0.2.1")), FakeDNS(fail=[PTR4]), Iprev())
    assert (found.result, found.identifier) == (Result.TEMPERROR, "")


async def test_no_client_address_is_no_result() -> None:
    dns = FakeDNS(ZONE)
    found = await check(Connection(), dns, Iprev())
    assert (found.result, dict(found.properties), dns.asked) == (Result.NONE, {}, [])


@pytest.mark.parametrize(("max_names", "result"), [(10, Result.FAIL), (11, Result.PASS)])
async def test_names_beyond_the_limit_are_not_looked_at(max_names: int, result: Result) -> None:
    dns = FakeDNS({**ZONE, PTR4: [*(f"h{n}.example" for n in range(10)), "one.example"]})
    found = await check(Connection(client_ip=ip_address("192.0.2.1")), dns, Iprev(max_names=max_names))
    assert found.result is result
    assert len(dns.asked) == 1 + max_names


async def test_all_names_are_asked_for_before_one_is_waited_for() -> None:
    class Noting(FakeDNS):
        def prefetch(self, name: str, rdtype: str) -> None:
            self.asked.append(f"prefetch {name} {rdtype}")

    dns = Noting({**ZONE, PTR4: ["one.example", "two.example", "three.example"]})
    await check(Connection(client_ip=ip_address("192.0.2.1")), dns, Iprev())
    assert dns.asked == [PTR4, "prefetch two.example A", "prefetch three.example A", "one.example A"]


@pytest.mark.parametrize(
    ("ip", "pointer", "record"),
    [
        pytest.param("192.0.2.1", PTR4, "h.example A", id="IPv4"),
        pytest.param("2001:db8::bc:1", PTR6, "h.example AAAA", id="IPv6"),
    ],
)
@pytest.mark.parametrize(
    ("texts", "result"),
    [
        pytest.param({"A": "192.0.2.1", "AAAA": "2001:db8::bc:1"}, Result.PASS, id="as everybody writes it"),
        pytest.param({"A": "192.0.2.1", "AAAA": "2001:DB8:0:0:0:0:bc:1"}, Result.PASS, id="written in full"),
        pytest.param({"A": "192.0.2.10", "AAAA": "2001:db8::bc:10"}, Result.FAIL, id="the beginning of another"),
        pytest.param({"A": "192.0.2.1 ", "AAAA": "2001:db8::bc:1%0"}, Result.FAIL, id="with something behind it"),
    ],
)
async def test_addresses_are_compared_however_they_are_written(
    ip: str, pointer: str, record: str, texts: dict[str, str], result: Result
) -> None:
    dns = FakeDNS({pointer: ["h.example"], record: [texts[record.split()[1]]]})
    found = await check(Connection(client_ip=ip_address(ip)), dns, Iprev())
    assert found.result is result
