"""Which domains of MAIL FROM can't receive mail, and what it costs to know."""

import re
from collections.abc import Mapping, Sequence

import pytest

from authmilter.check import all_checks
from authmilter.checks.sender_domain import (
    MOST_HOSTS,
    MOST_RECORDS,
    SenderDomain,
    _ranked,
    is_routed,
    mail_hosts,
    sender_domain,
)
from authmilter.errors import DnsTempError
from authmilter.evidence import Finding
from authmilter.interfaces import Answer
from authmilter.model import Envelope, Mailbox, Stage, Transaction
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import STRICT, mailbox, reply
from tests.fakes import FakeDNS

NOBODY = Mailbox(b"a b", b"", "")
LITERAL = Mailbox(b"a", b"[192.0.2.1]", "")
SENDER = mailbox("alice@example.org")


def mail_from(path: Mailbox | None = SENDER) -> Transaction:
    return Transaction(envelope=Envelope(reverse_path=path))


async def found(dns: FakeDNS, path: Mailbox | None = SENDER) -> list[Finding]:
    return await awaited(sender_domain, mail_from(path), tools("sender_domain", dns=dns))


async def symbols(records: Mapping[str, Sequence[str | bytes]], fail: Sequence[str] = ()) -> list[str]:
    return [finding.symbol for finding in await found(FakeDNS(records, fail))]


GOOD, PRIVATE, UNREACHABLE = [], ["sender_mx_private"], ["sender_domain_unreachable"]  # type: ignore[var-annotated]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param({"example.org MX": ["10 mx.test"], "mx.test A": ["203.0.113.5"]}, GOOD, id="an MX that is reached"),
        pytest.param({"example.org MX": ["10 mx.test"], "mx.test AAAA": ["2001:db8::5"]}, GOOD, id="an MX by IPv6 alone"),
        pytest.param({"example.org A": ["203.0.113.5"]}, GOOD, id="no MX, but an address"),
        pytest.param({"example.org AAAA": ["2001:db8::5"]}, GOOD, id="no MX, but an IPv6 address"),
        pytest.param({}, ["sender_domain_nonexistent"], id="no such domain"),
        pytest.param({"example.org TXT": ["v=spf1 -all"]}, UNREACHABLE, id="a domain with an SPF record alone exists"),
        pytest.param({"www.example.org A": ["203.0.113.5"]}, UNREACHABLE, id="a domain with names below it exists"),
        pytest.param({"example.org MX": ["0 ."]}, ["sender_null_mx"], id="a null MX"),
        pytest.param(
            {"example.org MX": ["0 ."], "example.org A": ["203.0.113.5"]}, ["sender_null_mx"],
            id="a null MX beside an address, which is no implicit MX then",
        ),
        pytest.param(
            {"example.org MX": ["0 .", "10 mx.test"], "mx.test A": ["203.0.113.5"]}, GOOD,
            id="a null MX beside another MX is none",
        ),
        pytest.param(
            {"example.org MX": ["10 ."], "example.org A": ["203.0.113.5"]}, UNREACHABLE,
            id="the root with another preference is no null MX, and no host",
        ),
        pytest.param({"example.org MX": ["10 mx.test"]}, UNREACHABLE, id="an MX that does not exist"),
        pytest.param(
            {"example.org MX": ["10 mx.test"], "example.org A": ["203.0.113.5"]}, UNREACHABLE,
            id="an MX that does not exist, beside an address that does not count then",
        ),
        pytest.param({"example.org MX": ["10 192.0.2.7"]}, UNREACHABLE, id="an address where MX has a name"),
        pytest.param({"example.org MX": ["10 mx.test"], "mx.test A": ["127.0.0.1"]}, PRIVATE, id="an MX on loopback"),
        pytest.param({"example.org A": ["10.1.2.3"]}, PRIVATE, id="no MX, and a private address"),
        pytest.param(
            {"example.org MX": ["10 mx.test"], "mx.test A": ["10.0.0.1"], "mx.test AAAA": ["fd00::1"]}, PRIVATE,
            id="private addresses of both kinds",
        ),
        pytest.param(
            {"example.org MX": ["10 mx.test"], "mx.test A": ["10.0.0.1"], "mx.test AAAA": ["2001:db8::1"]}, GOOD,
            id="a private address beside one that is reached",
        ),
        pytest.param(
            {"example.org MX": ["10 mx.test"], "mx.test A": ["10.0.0.1", "203.0.113.5"]}, GOOD,
            id="one of two addresses is reached",
        ),
        pytest.param(
            {"example.org MX": ["10 a.test", "20 b.test"], "a.test A": ["127.0.0.1"], "b.test A": ["203.0.113.5"]}, GOOD,
            id="a first MX on loopback to keep robots off, and a second one that is reached",
        ),
        pytest.param(
            {"example.org MX": ["10 a.test", "20 b.test"], "a.test A": ["127.0.0.1"]}, PRIVATE,
            id="one MX on loopback, and one that does not exist",
        ),
    ],
)  # fmt: skip
async def test_what_the_dns_says(records: Mapping[str, Sequence[str | bytes]], expected: list[str]) -> None:
    assert await symbols(records) == expected


async def test_a_server_that_denies_the_name_for_a_type_that_it_does_not_know() -> None:
    class Odd(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            return Answer((), exists=False) if rdtype == "MX" else await super().query(name, rdtype)

    assert await found(Odd({"example.org A": ["203.0.113.5"]})) == []


@pytest.mark.parametrize("path", [None, NOBODY, LITERAL], ids=["the null reverse-path", "no address", "a literal"])
async def test_without_a_domain_nothing_is_asked(path: Mailbox | None) -> None:
    dns = FakeDNS()
    assert await found(dns, path) == []
    assert dns.asked == []


@pytest.mark.parametrize("fail", ["example.org MX", "example.org A", "example.org AAAA"])
async def test_a_temporary_failure_is_no_missing_domain(fail: str) -> None:
    with pytest.raises(DnsTempError):
        await found(FakeDNS(fail=[fail]))


@pytest.mark.parametrize("fail", ["a.test A", "a.test AAAA", "b.test A", "b.test AAAA"])
async def test_a_mail_server_that_nobody_knows_of_may_be_a_good_one(fail: str) -> None:
    records = {"example.org MX": ["10 a.test", "20 b.test"], "a.test A": ["127.0.0.1"], "b.test A": ["127.0.0.1"]}
    assert await symbols(records) == PRIVATE
    assert await symbols(records, [fail]) == []


async def test_the_usual_domain_takes_two_questions() -> None:
    dns = FakeDNS(
        {"example.org MX": ["20 b.test", "10 a.test"], "a.test A": ["203.0.113.5"], "b.test A": ["127.0.0.1"]}
    )
    assert await found(dns) == []
    assert dns.asked == ["example.org MX", "a.test A"]


async def test_a_domain_with_many_mail_servers_takes_no_more_than_seven() -> None:
    dns = FakeDNS(
        {"example.org MX": [f"{n} h{n}.test" for n in range(1000)], **{f"h{n}.test A": ["127.0.0.1"] for n in range(9)}}
    )
    assert [finding.symbol for finding in await found(dns)] == PRIVATE
    assert len(dns.asked) == 1 + 2 * MOST_HOSTS


async def test_a_flood_of_addresses_is_not_read_to_its_end() -> None:
    flood = [f"10.0.{n >> 8}.{n & 255}" for n in range(4000)]
    dns = FakeDNS({"example.org MX": ["1 a.test", "2 b.test", "3 c.test"], **{f"{h}.test A": flood for h in "abc"}})
    is_routed.cache_clear()
    assert [finding.symbol for finding in await found(dns)] == PRIVATE
    assert is_routed.cache_info().currsize == MOST_RECORDS


async def test_what_is_asked_after_the_first_mail_server_is_asked_at_once() -> None:
    class Ahead(FakeDNS):
        ahead: list[str] = []  # noqa: RUF012

        def prefetch(self, name: str, rdtype: str) -> None:
            self.ahead.append(f"{name} {rdtype}")

    await found(Ahead({"example.org MX": ["10 a.test", "20 b.test"]}))
    assert Ahead.ahead == ["a.test AAAA", "b.test A", "b.test AAAA"]


def test_hosts_are_ranked_by_number_not_by_text() -> None:
    assert mail_hosts("d", ("100 c.test", "20 b.test", "3 a.test", "5 .")) == ("a.test", "b.test", "c.test")


class Cached(FakeDNS):
    """Knows every answer."""

    def known(self, name: str, rdtype: str) -> Answer | None:
        return self.answer(name, rdtype)


@pytest.mark.parametrize(
    ("zone", "good"),
    [
        ({"example.org MX": ["10 a.test"], "a.test A": ["192.0.2.1"]}, True),
        ({"example.org MX": ["20 b.test", "10 a.test"], "a.test A": ["192.0.2.1"]}, True),
        ({"example.org MX": ["10 a.test"], "a.test A": ["10.0.0.1"]}, False),
        ({"example.org MX": ["10 a.test"]}, False),
        ({"example.org MX": ["0 ."]}, False),
        ({"example.org MX": ["0 .", "5 ."]}, False),
        ({"example.org A": ["192.0.2.1"]}, False),
        ({}, False),
    ],
)
def test_a_look_at_what_is_known_spares_the_usual_domain_the_wait(zone: dict[str, list[str]], good: bool) -> None:
    unless = next(check.unless for check in all_checks() if check.name == "sender_domain")
    assert unless is not None
    tx = Transaction(envelope=Envelope(Mailbox(b"a", b"example.org", "example.org")))
    assert unless(tx, tools(dns=Cached(zone))) is good
    assert unless(Transaction(), tools())


ROUTED = (
    "8.8.8.8 100.128.0.1 172.32.0.1 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 223.255.255.255 "
    "2a00::1 2001:db8::1 ::ffff:8.8.8.8"
)
UNROUTED = (
    "0.0.0.0 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1 172.16.0.1 172.31.255.255 192.168.0.1 "
    "224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fc00::1 fdff::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::1"
)


@pytest.mark.parametrize("address", ROUTED.split())
def test_an_address_of_the_internet(address: str) -> None:
    assert is_routed(address)


@pytest.mark.parametrize("address", UNROUTED.split())
def test_an_address_that_nobody_reaches(address: str) -> None:
    assert not is_routed(address)


@pytest.mark.parametrize(
    ("symbol", "detail", "expected"),
    [
        ("sender_domain_nonexistent", "example.org", "550 5.1.8 Sender domain example.org does not exist, "),
        ("sender_null_mx", "example.org", "550 5.7.27 Sender domain example.org accepts no mail (null MX), "),
        (
            "sender_domain_temperror",
            "example.org MX: SERVFAIL",
            "451 4.1.8 Sender domain example.org could not be looked up for now, please try again later [ref]",
        ),
        ("sender_domain_unreachable", "example.org", ""),
        ("sender_mx_private", "example.org", ""),
    ],
)
def test_the_preset_strict_refuses(symbol: str, detail: str, expected: str) -> None:
    text = reply(mail_from(), Stage.MAIL, [Finding(symbol, detail)], STRICT)
    assert text.startswith(expected) if expected else not text
    assert not text or re.fullmatch(r"[ -~]+ \[ref\]", text)


@pytest.mark.parametrize("preset", ["observe", "balanced"])
@pytest.mark.parametrize(
    "symbol", ["sender_domain_nonexistent", "sender_null_mx", "sender_domain_temperror", "sender_mx_private"]
)
def test_the_other_presets_only_weigh(symbol: str, preset: str) -> None:
    assert reply(mail_from(), Stage.MAIL, [Finding(symbol)], f"[policy]\npreset = {preset}\n") == ""


def test_an_administrator_may_refuse_what_has_private_mail_servers() -> None:
    text = reply(
        mail_from(), Stage.MAIL, [Finding("sender_mx_private", "example.org")], "[scores]\nsender_mx_private = reject\n"
    )
    assert text.startswith("550 5.1.8 Mail servers of sender domain example.org can't be reached")


def test_it_can_be_switched_off() -> None:
    assert SenderDomain().enabled
    assert is_wanted("sender_domain", "")
    assert not is_wanted("sender_domain", "[sender_domain]\nenabled = no\n")


def test_what_is_kept_of_an_answer_does_not_grow_with_it() -> None:
    _ranked.cache_clear()
    host = "x" * 60 + ".test"
    first = mail_hosts("d.test", tuple(f"{n} {host}" for n in range(MOST_RECORDS)))
    assert mail_hosts("d.test", tuple(f"{n} {host}" for n in range(3000))) == first
    assert _ranked.cache_info().currsize == 1  # the rest of the answer is no part of the key
