"""What the DNS knows of HELO names."""

from ipaddress import ip_address

import pytest

from authmilter.addresses import to_ascii_domain
from authmilter.checks.helo_dns import helo_dns
from authmilter.errors import DnsTempError
from authmilter.evidence import Finding
from authmilter.model import Connection, Transaction
from tests.checks.tools import awaited, is_wanted, tools
from tests.fakes import FakeDNS

RECORDS = {
    "both.example A": ["192.0.2.9", "192.0.2.1"],
    "both.example AAAA": ["2001:db8::1"],
    "other.example A": ["192.0.2.9"],
    "six.example AAAA": ["2001:DB8::1"],
    "mx.example MX": ["10 mail.example"],
    "nomail.example MX": ["0 ."],
    "text.example TXT": ["v=spf1 -all"],
    "alias.example CNAME": ["both.example"],
}
UNRESOLVABLE, MISMATCH = "helo_unresolvable", "helo_mismatch"


def greeting(helo: str, client: str | None = "192.0.2.1", name: str = "") -> Transaction:
    connection = Connection(None if client is None else ip_address(client), name)
    return Transaction(connection, helo=helo.encode(), helo_domain=to_ascii_domain(helo))


@pytest.mark.parametrize(
    ("helo", "client", "expected", "questions"),
    [
        pytest.param("both.example", "192.0.2.1", "", ["A"], id="the client's address among several"),
        pytest.param("both.example", "2001:db8::1", "", ["AAAA"], id="the client's IPv6 address"),
        pytest.param("alias.example", "192.0.2.1", "", ["A"], id="by an alias"),
        pytest.param("other.example", "192.0.2.1", MISMATCH, ["A"], id="the address of another"),
        pytest.param(
            "other.example", "2001:db8::1", MISMATCH, ["AAAA", "A"], id="an address of the other family alone"
        ),
        pytest.param("six.example", "192.0.2.1", MISMATCH, ["A", "AAAA"], id="an IPv6 address alone"),
        pytest.param("mx.example", "192.0.2.1", MISMATCH, ["A", "AAAA", "MX"], id="an MX alone"),
        pytest.param("nomail.example", "192.0.2.1", UNRESOLVABLE, ["A", "AAAA", "MX"], id="a null MX alone"),
        pytest.param("text.example", "192.0.2.1", UNRESOLVABLE, ["A", "AAAA", "MX"], id="neither address nor MX"),
        pytest.param("none.example", "192.0.2.1", UNRESOLVABLE, ["A"], id="a name that does not exist"),
        pytest.param("none.example", "2001:db8::1", UNRESOLVABLE, ["AAAA"], id="the same for an IPv6 client"),
        pytest.param("localhost", "192.0.2.1", "", [], id="a name without dot, which has a check of its own"),
        pytest.param("[192.0.2.1]", "192.0.2.1", "", [], id="an address literal"),
        pytest.param("", "192.0.2.1", "", [], id="nothing"),
        pytest.param("none.example", None, "", [], id="a client whose address is not known"),
    ],
)
async def test_names(helo: str, client: str | None, expected: str, questions: list[str]) -> None:
    dns = FakeDNS(RECORDS)
    found = await awaited(helo_dns, greeting(helo, client), tools("helo_dns", dns=dns))
    assert [finding.symbol for finding in found] == ([expected] if expected else [])
    assert dns.asked == [f"{helo} {rdtype}" for rdtype in questions]


async def test_the_confirmed_name_of_the_client_needs_no_question() -> None:
    dns = FakeDNS()
    tx = greeting("Mail.Example", name="mail.EXAMPLE")
    assert await awaited(helo_dns, tx, tools("helo_dns", dns=dns)) == []
    assert dns.asked == []


@pytest.mark.parametrize(
    ("helo", "fail"),
    [("other.example", "other.example A"), ("six.example", "six.example AAAA"), ("mx.example", "mx.example MX")],
)
async def test_a_dns_that_fails_is_no_finding(helo: str, fail: str) -> None:
    with pytest.raises(DnsTempError):  # the pipeline makes a temperror of it, which weighs nothing
        await awaited(helo_dns, greeting(helo), tools("helo_dns", dns=FakeDNS(RECORDS, fail=[fail])))


async def test_the_details() -> None:
    dns = FakeDNS(RECORDS)
    assert await awaited(helo_dns, greeting("other.example"), tools("helo_dns", dns=dns)) == [
        Finding("helo_mismatch", "other.example is not the name of 192.0.2.1")
    ]
    assert await awaited(helo_dns, greeting("none.example"), tools("helo_dns", dns=dns)) == [
        Finding("helo_unresolvable", "none.example has neither address nor MX")
    ]


def test_it_can_be_switched_off() -> None:
    assert is_wanted("helo_dns", "")
    assert not is_wanted("helo_dns", "[helo_dns]\nenabled = no\n")
