"""Under which names senders are remembered."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.addresses import parse_path
from authmilter.evidence import AuthResult, Result
from authmilter.identities import address_of, client_network, confirmed_name, dkim_domains, site, spf_domain
from authmilter.model import Connection, Transaction


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        pytest.param("192.0.2.7", "192.0.2.0/24", id="IPv4"),
        pytest.param("192.0.2.0", "192.0.2.0/24", id="the first of its network"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="IPv6"),
        pytest.param("2001:db8::1", "2001:db8::/64", id="IPv6 with zeros"),
        pytest.param("", "", id="unknown"),
    ],
)
def test_the_network_of_a_client(client: str, expected: str) -> None:
    assert client_network(Transaction(Connection(ip_address(client) if client else None))) == expected


@pytest.mark.parametrize(
    ("iprev", "mta", "expected"),
    [
        pytest.param(Result.PASS, "other.example", "mx.sender.example", id="we confirmed it"),
        pytest.param(Result.FAIL, "mx.sender.example", "", id="it does not lead back, whatever the MTA says"),
        pytest.param(Result.PERMERROR, "", "", id="there is none"),
        pytest.param(Result.TEMPERROR, "MX.Sender.Example", "mx.sender.example", id="only the MTA had an answer"),
        pytest.param(Result.TEMPERROR, "", "", id="nobody had an answer"),
        pytest.param(None, "mx.sender.example", "mx.sender.example", id="iprev is off"),
        pytest.param(None, "no name (", "", id="what the MTA says is no name"),
    ],
)
def test_the_confirmed_name(iprev: Result | None, mta: str, expected: str) -> None:
    result = (AuthResult("iprev", iprev, "mx.sender.example" if iprev is Result.PASS else ""),) if iprev else ()
    assert confirmed_name(Transaction(Connection(client_name=mta), results=result)) == expected


@pytest.mark.parametrize("result", list(Result))
def test_only_a_pass_shows_who_it_is(result: Result) -> None:
    tx = Transaction(results=(AuthResult("spf", result, "a.example"), AuthResult("dkim", result, "b.example")))
    passes = result is Result.PASS
    assert spf_domain(tx) == ("a.example" if passes else "")
    assert dkim_domains(tx) == (("b.example",) if passes else ())


def test_spf_of_helo_is_not_that_of_the_sender() -> None:
    assert spf_domain(Transaction(results=(AuthResult("spf_helo", Result.PASS, "a.example"),))) == ""


def test_a_pass_that_anyone_may_have_names_nobody() -> None:
    assert spf_domain(Transaction(results=(AuthResult("spf", Result.PASS, "a.example", for_anyone=True),))) == ""


@pytest.mark.parametrize(
    ("client", "expected"),
    [("192.0.2.7", "192.0.2.0/24"), ("2001:db8:1:2:3::4", "2001:db8:1::/48"), ("2001:db8::1", "2001:db8::/48")],
)
def test_the_network_that_one_party_may_have_to_itself(client: str, expected: str) -> None:
    assert site(ip_address(client)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(b"<Jane.Doe@Example.ORG>", "jane.doe@example.org", id="letters"),
        pytest.param(b'<"a b"@example.org>', "a_b@example.org", id="a blank, which parts the words of a key"),
        pytest.param(b'<"jane"@example.org>', "jane@example.org", id="quotes that it does not need"),
        pytest.param(b'<"j\\a\\ne"@example.org>', "jane@example.org", id="quoted pairs"),
        pytest.param(b"<postmaster>", "postmaster", id="no domain"),
        pytest.param(b"<jane@[192.0.2.1]>", "jane@[192.0.2.1]", id="an address literal"),
        pytest.param(b"<\xff\xfe@example.org>", "\\xff\\xfe@example.org", id="no UTF-8"),
        pytest.param("<jörg@bücher.example>".encode(), "jörg@xn--bcher-kva.example", id="U-labels"),
        pytest.param(b"<" + b"x" * 900 + b"@example.org>", "x" * 64 + "@example.org", id="a long local-part"),
        pytest.param(b"no path at all", "no_path_at_all", id="what can't be parsed"),
    ],
)
def test_an_address_in_a_key(path: bytes, expected: str) -> None:
    mailbox = parse_path(path)
    assert mailbox is not None
    assert address_of(mailbox) == expected


@given(st.binary(max_size=2000))
def test_any_path_makes_one_word_of_bounded_length(path: bytes) -> None:
    mailbox = parse_path(path)
    if mailbox is not None:
        word = address_of(mailbox)
        assert " " not in word
        assert len(word) <= 64 + 1 + 253
