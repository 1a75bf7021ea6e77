"""check_host() beyond the conformance suites: limits, hostile data, time, macros, and what the callers get."""

import asyncio
import time
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.addresses import parse_path, to_ascii_domain
from authmilter.auth.spf import SpfCache, SpfOutcome, check_helo, check_host, check_mail_from
from authmilter.auth.spf_record import parse, query_name
from authmilter.config.option import Seconds
from authmilter.config.schema import Dns, Spf
from authmilter.errors import DnsTempError
from authmilter.evidence import Result
from authmilter.interfaces import Answer, Resolver
from authmilter.model import Connection, Envelope, Mailbox
from authmilter.resolver import StubResolver
from tests.dnsserver import DNSServer
from tests.fakes import FakeDNS

CLIENT = "192.0.2.1"
CLIENT_PTR = "1.2.0.192.in-addr.arpa PTR"


class CachedDNS(FakeDNS):
    """Knows every answer already; a question that is asked nonetheless is an error."""

    def known(self, name: str, rdtype: str) -> Answer | None:
        """The answer of the table, as FakeDNS gives it."""
        coroutine = super().query(name, rdtype)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        raise AssertionError("FakeDNS never waits")

    async def query(self, name: str, rdtype: str) -> Answer:
        """Nothing is asked."""
        raise AssertionError(f"asked for {name} {rdtype}")


class PrefetchDNS(FakeDNS):
    """Notes what is prefetched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefetched: list[str] = []

    def prefetch(self, name: str, rdtype: str) -> None:
        """Note it."""
        self.prefetched.append(f"{name} {rdtype}")


class TarpitDNS(FakeDNS):
    """Answers only after a minute what is in `slow`."""

    def __init__(self, records: dict[str, list[str | bytes]], slow: set[str]) -> None:
        super().__init__(records)
        self.slow = slow

    async def query(self, name: str, rdtype: str) -> Answer:
        """Answer, sooner or later."""
        if f"{name} {rdtype}" in self.slow:
            await asyncio.sleep(60)
        return await super().query(name, rdtype)


async def evaluate(
    zone: dict[str, list[str | bytes]] | FakeDNS,
    *,
    ip: str = CLIENT,
    sender: bytes = b"user@example.org",
    helo: bytes = b"mail.example.net",
    options: Spf | None = None,
    fail: tuple[str, ...] = (),
    **kwargs: Any,
) -> SpfOutcome:
    dns = zone if isinstance(zone, FakeDNS) else FakeDNS(zone, fail=fail)
    local, _, domain = sender.rpartition(b"@")
    return await check_host(
        ip_address(ip), domain.decode(), local, domain.decode(), helo, dns, options or Spf(), **kwargs
    )


def spf(*terms: str) -> list[str | bytes]:
    return [" ".join(("v=spf1", *terms))]


def numbered(count: int, form: str) -> list[Any]:
    return [form.format(n) for n in range(count)]


LIMITS: list[tuple[str, Result, dict[str, list[str | bytes]]]] = [
    (
        "ten terms that ask are allowed",
        Result.PASS,
        {"example.org TXT": spf(*["a"] * 10, "ip4:192.0.2.1"), "example.org A": ["198.51.100.1"]},
    ),
    (
        "the eleventh term that asks is a permerror",
        Result.PERMERROR,
        {"example.org TXT": spf(*["a"] * 11, "ip4:192.0.2.1"), "example.org A": ["198.51.100.1"]},
    ),
    (
        "what matches before the eleventh term counts",
        Result.PASS,
        {"example.org TXT": spf(*["a"] * 10, "ip4:192.0.2.1", "a", "-all"), "example.org A": ["198.51.100.1"]},
    ),
    (
        "terms of included and redirected records count together",
        Result.PERMERROR,
        {
            "example.org TXT": spf("include:a.example", "redirect=b.example"),
            "example.org A": ["198.51.100.1"],
            "a.example TXT": spf(*["a:example.org"] * 5, "-all"),
            "b.example TXT": spf(*["a:example.org"] * 4, "-all"),
        },
    ),
    (
        "ten terms spread over an include and a redirect are allowed",
        Result.FAIL,
        {
            "example.org TXT": spf("include:a.example", "redirect=b.example"),
            "example.org A": ["198.51.100.1"],
            "a.example TXT": spf(*["a:example.org"] * 5, "-all"),
            "b.example TXT": spf(*["a:example.org"] * 3, "-all"),
        },
    ),
    ("an include of itself ends", Result.PERMERROR, {"example.org TXT": spf("include:example.org", "-all")}),
    ("a redirect to itself ends", Result.PERMERROR, {"example.org TXT": spf("redirect=example.org")}),
    (
        "includes and redirects in a ring end",
        Result.PERMERROR,
        {
            "example.org TXT": spf("include:a.example", "-all"),
            "a.example TXT": spf("redirect=b.example"),
            "b.example TXT": spf("include:example.org", "+all"),
        },
    ),
    ("two void lookups are allowed", Result.FAIL, {"example.org TXT": spf("a:x.example", "exists:y.example", "-all")}),
    (
        "the third void lookup is a permerror",
        Result.PERMERROR,
        {"example.org TXT": spf("a:x.example", "exists:y.example", "mx:z.example", "-all")},
    ),
    (
        "no data is as void as NXDOMAIN",
        Result.PERMERROR,
        {"example.org TXT": spf("a", "exists:example.org", "mx", "-all")},
    ),
    (
        "exchanges without address make one void term, however many they are",
        Result.FAIL,
        {"example.org TXT": spf("mx", "mx", "-all"), "example.org MX": numbered(10, "10 mx{}.example")},
    ),
    (
        "a third mx without addresses is a permerror",
        Result.PERMERROR,
        {"example.org TXT": spf("mx", "mx", "mx", "-all"), "example.org MX": numbered(10, "10 mx{}.example")},
    ),
    (
        "ten exchanges are allowed",
        Result.PASS,
        {
            "example.org TXT": spf("mx", "-all"),
            "example.org MX": numbered(10, "{0} mx{0}.example"),
            "mx9.example A": [CLIENT],
        },
    ),
    (
        "eleven exchanges are a permerror, even where the first matches",
        Result.PERMERROR,
        {
            "example.org TXT": spf("mx", "-all"),
            "example.org MX": numbered(11, "{0} mx{0}.example"),
            "mx0.example A": [CLIENT],
        },
    ),
    ("the null MX has no exchange and is not void", Result.FAIL, {
        "example.org TXT": spf("mx", "mx", "mx", "-all"), "example.org MX": ["0 ."],
    }),
    (
        "ptr counts no void lookup, since the client chooses its names",
        Result.FAIL,
        {"example.org TXT": spf("ptr", "ptr", "ptr", "a:x.example", "a:y.example", "-all")},
    ),
    (
        "of eleven names of the client the eleventh is not looked at",
        Result.FAIL,
        {
            "example.org TXT": spf("ptr", "-all"),
            CLIENT_PTR: [*numbered(10, "host{}.example.net"), "mail.example.org"],
            "mail.example.org A": [CLIENT],
        },
    ),
    (
        "of ten names of the client the tenth is looked at",
        Result.PASS,
        {
            "example.org TXT": spf("ptr", "-all"),
            CLIENT_PTR: [*numbered(9, "host{}.example.net"), "mail.example.org"],
            "mail.example.org A": [CLIENT],
        },
    ),
    ("a record of 4 KB is evaluated", Result.PASS, {
        "example.org TXT": spf(*numbered(200, "ip4:198.51.100.{}/32"), "ip4:192.0.2.1", "-all"),
    }),
    ("a record over 8 KB is refused", Result.PERMERROR, {
        "example.org TXT": spf(*["ip4:198.51.100.100/32"] * 400, "ip4:192.0.2.1", "-all"),
    }),
    ("ip4:0.0.0.0/0 is what the domain asked for", Result.PASS, {"example.org TXT": spf("ip4:0.0.0.0/0", "-all")}),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "zone"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
async def test_limits(expected: Result, zone: dict[str, list[str | bytes]]) -> None:
    assert (await evaluate(zone)).result is expected


async def test_limits_are_those_of_the_configuration() -> None:
    zone = {"example.org TXT": spf("a:x.example", "a:y.example", "a:z.example", "-all")}
    assert (await evaluate(zone, options=Spf(void_limit=3))).result is Result.FAIL
    assert (await evaluate(zone, options=Spf(void_limit=3, lookup_limit=2))).result is Result.PERMERROR


async def test_the_highest_lookup_limit_is_no_stack_overflow() -> None:
    zone = {"example.org TXT": spf("include:example.org", "-all")}
    outcome = await evaluate(zone, options=Spf(lookup_limit=100))
    assert (outcome.result, outcome.reason) == (Result.PERMERROR, "more than 100 terms ask the DNS")


TEMPORARY: list[tuple[str, Result, list[str], tuple[str, ...]]] = [
    ("no answer for the record", Result.TEMPERROR, ["-all"], ("example.org TXT",)),
    ("no answer for an a", Result.TEMPERROR, ["a", "-all"], ("example.org A",)),
    ("no answer for an mx", Result.TEMPERROR, ["mx", "-all"], ("example.org MX",)),
    ("no answer for an exchange", Result.TEMPERROR, ["mx:two.example", "-all"], ("mx1.two.example A",)),
    ("no answer for an exists", Result.TEMPERROR, ["exists:x.example", "-all"], ("x.example A",)),
    ("no answer for an include", Result.TEMPERROR, ["include:x.example", "-all"], ("x.example TXT",)),
    ("no answer for a redirect", Result.TEMPERROR, ["redirect=x.example"], ("x.example TXT",)),
    ("no answer for the client's names is no match (5.5)", Result.FAIL, ["ptr", "-all"], (CLIENT_PTR,)),
    ("no answer for one of the client's names skips it (5.5)", Result.PASS, ["ptr", "-all"], ("a.example.org A",)),
    ("no answer for a term behind the match", Result.PASS, ["ip4:192.0.2.1", "a", "-all"], ("example.org A",)),
    ("no answer for the explanation", Result.FAIL, ["-all", "exp=x.example"], ("x.example TXT",)),
]


@pytest.mark.parametrize(("expected", "terms", "fail"), [r[1:] for r in TEMPORARY], ids=[r[0] for r in TEMPORARY])
async def test_temporary_failures(expected: Result, terms: list[str], fail: tuple[str, ...]) -> None:
    zone: dict[str, list[str | bytes]] = {
        "example.org TXT": spf(*terms),
        "two.example MX": ["10 mx1.two.example", "20 mx2.two.example"],
        "mx2.two.example A": [CLIENT],
        CLIENT_PTR: ["a.example.org", "b.example.org"],
        "b.example.org A": [CLIENT],
    }
    assert (await evaluate(zone, fail=fail)).result is expected


@pytest.mark.parametrize("slow", ["example.org TXT", "x.example A", CLIENT_PTR, "mail.example.org A"])
async def test_a_tarpit_is_a_temperror_within_the_time_for_all_lookups(slow: str) -> None:
    zone: dict[str, list[str | bytes]] = {
        "example.org TXT": spf("ptr", "a:x.example", "-all"),
        CLIENT_PTR: ["mail.example.org"],
    }
    started = time.monotonic()
    outcome = await evaluate(TarpitDNS(zone, {slow}), options=Spf(timeout=Seconds(0.1)))
    assert (outcome.result, outcome.ttl) == (Result.TEMPERROR, 0.0)
    assert time.monotonic() - started < 2


async def test_time_is_counted_over_all_lookups_together() -> None:
    class Slow(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(0.04)
            return await super().query(name, rdtype)

    dns = Slow({"example.org TXT": spf(*["a"] * 9, "-all"), "example.org A": ["198.51.100.1"]})
    assert (await evaluate(dns, options=Spf(timeout=Seconds(0.1)))).result is Result.TEMPERROR
    assert len(dns.asked) < 4


async def test_a_slow_explanation_leaves_the_fail_alone() -> None:
    zone = {"example.org TXT": spf("-all", "exp=x.example")}
    outcome = await evaluate(TarpitDNS(zone, {"x.example TXT"}), options=Spf(timeout=Seconds(0.1)))
    assert (outcome.result, outcome.explanation) == (Result.FAIL, "")


SYNTAX: list[tuple[str, Result]] = [
    # what RFC 7208 section 12 allows; the client matches nothing but what is said to
    ("ip4:192.0.2.1", Result.PASS),
    ("IP4:192.0.2.1", Result.PASS),
    ("ip4:192.0.2.255/24", Result.PASS),
    ("ip4:192.0.3.0/23", Result.PASS),
    ("ip4:192.0.2.2/31", Result.NEUTRAL),
    ("ip4:192.0.2.0/31", Result.PASS),
    ("ip6:2001:db8::/32", Result.NEUTRAL),
    ("ip6:2001:db8::192.0.2.1", Result.NEUTRAL),
    ("~ALL", Result.SOFTFAIL),
    ("a:example.org.", Result.NEUTRAL),
    ("a:b%{d}", Result.NEUTRAL),
    ("a:b%%", Result.NEUTRAL),
    ("a:%{d}/24//64", Result.NEUTRAL),
    ("a/0", Result.PASS),
    ("a/0//0", Result.PASS),
    ("a//0", Result.NEUTRAL),
    ("a:x.1-2", Result.NEUTRAL),
    ("a:x.a1", Result.NEUTRAL),
    ("a=b", Result.NEUTRAL),
    ("ip4=192.0.2.1", Result.NEUTRAL),
    ("v=spf1", Result.NEUTRAL),
    ("x.y-z_1=", Result.NEUTRAL),
    ("x=1 x=2", Result.NEUTRAL),
    ("x=%{d}%%%_%-", Result.NEUTRAL),
    ("exists:%{D2R}.%{i}", Result.NEUTRAL),
    ("exists:%{d99999999999999999999}.x.example", Result.NEUTRAL),
    ("exists:%{l1r+-.,/_=}.x.example", Result.NEUTRAL),
    # what it does not
    *[
        (term, Result.PERMERROR)
        for term in (
            "ip4:192.0.2.01", "ip4:192.0.2", "ip4:192.0.2.1.1", "ip4:192.0.2.1/", "ip4:192.0.2.1/33", "ip4:0xC0000201",
            "ip4:192.0.2.1/00", "ip4:192.0.2.1/1/1", "ip4:192.0.2.1//1", "ip4:3221225985", "ip4:", "ip4/24",
            "ip4:192.0.2.1/-1", "ip4:192.0.2.1/+1", "ip4: 192.0.2.1", "ip6:192.0.2.1", "ip4:::1", "ip6:::1%25eth0",
            "ip6:::1%eth0", "ip6:::1/129", "ip6:[::1]", "ip6:1:2:3:4:5:6:7", "ip6:::12345", "ip6:::1//64", "ip6:",
            "all=x all:", "all:", "all/0", "+", "-", "++all", "*all", "all,", "a,", "a:", "a:.", "a:x", "a:x.",
            "a:x.example/", "a:x.example/33", "a:x.example/024", "a:x.example//129", "a/24/64", "a/", "a//", "a///64",
            "a:x.123", "a:x.-a", "a:x.a-", "a:x.a_b", "a:%{d}.", "a:%{d}a", "a:x.exa%mple", "a:x.%", "a:%{d",
            "a:%{}", "a:%{d0}", "a:%{d00}", "a:%{0d}", "a:%{dr1}", "a:%{drr}", "a:%{d*}", "a:%{x}", "a:%{c}", "a:%{r}",
            "a:%{t}", "x=%{c}", "x=%", "x=%a", "mx:", "ptr:", "ptr/24", "ptr:x", "include", "include:", "include:x",
            "include:x.example/24", "exists", "exists:", "exists:x", "redirect=", "redirect=x", "redirect:x.example",
            "-redirect=x.example", "exp=", "exp=x", "exp=a.example exp=a.example",
            "redirect=a.example REDIRECT=b.example", "=x", "1x=y", "-x=y", "a.b", "spf2.0/mfrom", "\tall",
            "all\x00", "all\x7f", "all\n", "a:" + "x" * 600 + ".example", "x" * 8192,
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("terms", "expected"), SYNTAX, ids=[repr(t)[:60] for t, _ in SYNTAX])
async def test_syntax(terms: str, expected: Result) -> None:
    zone: dict[str, list[str | bytes]] = {"example.org TXT": spf(terms), "example.org A": ["198.51.100.1"]}
    assert (await evaluate(zone)).result is expected
    if expected is Result.PERMERROR:
        # RFC 7208 section 4.6: found before anything is evaluated
        zone["example.org TXT"] = spf("+all", terms)
        assert (await evaluate(zone)).result is Result.PERMERROR


MACROS: list[tuple[str, str, bytes, str, str]] = [
    # name, domain-spec, reverse-path, client, name asked for
    ("the local-part", "%{l}.x.example", b"user@example.org", CLIENT, "user.x.example"),
    ("the sender", "%{s}.x.example", b"user@example.org", CLIENT, "user@example.org.x.example"),
    ("the address", "%{i}.x.example", b"u@example.org", CLIENT, "192.0.2.1.x.example"),
    ("the address reversed", "%{ir}.x.example", b"u@example.org", CLIENT, "1.2.0.192.x.example"),
    (
        "an IPv6 address in nibbles", "%{i}.%{v}.x.example", b"u@example.org", "2001:db8::cb01",
        "2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.b.0.1.ip6.x.example",
    ),
    ("an IPv4-mapped address as IPv4", "%{i}.%{v}.x.example", b"u@example.org", "::ffff:192.0.2.1", "192.0.2.1.in-addr.x.example"),
    ("two labels on the right", "%{d2}.x.example", b"u@a.b.example.org", CLIENT, "example.org.x.example"),
    ("more labels than there are", "%{d9}.x.example", b"u@example.org", CLIENT, "example.org.x.example"),
    ("reversed, then two on the right", "%{d2r}.x.example", b"u@a.b.example.org", CLIENT, "b.a.x.example"),
    ("reversed by R", "%{dR}.x.example", b"u@example.org", CLIENT, "org.example.x.example"),
    ("split elsewhere, joined by dots", "%{l-+}.x.example", b"a-b+c@example.org", CLIENT, "a.b.c.x.example"),
    ("domains are joined by dots as well", "%{o1r-}.x.example", b"u@my-site.org", CLIENT, "my.x.example"),
    ("URL escaping", "%{L}.x.example", b"a b%/=c@example.org", CLIENT, "a%20b%25%2f%3dc.x.example"),
    ("macro characters in the local-part are not expanded", "%{l}.x.example", b"%{d}%%@example.org", CLIENT, "%{d}%%.x.example"),
    ("HELO", "%{h}.x.example", b"u@example.org", CLIENT, "mail.example.net.x.example"),
    ("a client without name", "%{p}.x.example", b"u@example.org", CLIENT, "unknown.x.example"),
    ("capitals in the record", "%{D}.X.Example", b"u@example.org", CLIENT, "example.org.x.example"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "sender", "ip", "asked"), [r[1:] for r in MACROS], ids=[r[0] for r in MACROS])
async def test_macros(spec: str, sender: bytes, ip: str, asked: str) -> None:
    domain = sender.rpartition(b"@")[2].decode()
    dns = FakeDNS({f"{domain} TXT": spf(f"exists:{spec}", "-all")})
    await evaluate(dns, sender=sender, ip=ip)
    assert dns.asked[-1] == f"{asked} A"


HOSTILE_SENDERS = [
    pytest.param("%{l}.x.example", "\xfc@example.org".encode(), id="letters outside ASCII (RFC 8616 section 4)"),
    pytest.param("%{L}.x.example", "\xfc@example.org".encode(), id="letters outside ASCII, URL-escaped"),
    pytest.param("%{S}.x.example", "\xfc@example.org".encode(), id="a sender with letters outside ASCII, URL-escaped"),
    pytest.param("%{l}.x.example", b"\xff\xfe@example.org", id="octets that are no UTF-8"),
    pytest.param("%{l}.x.example", b"a\0b@example.org", id="NUL"),
    pytest.param("%{l}.x.example", b"a\r\nb@example.org", id="line break"),
    pytest.param("%{l}.x.example", b"..@example.org", id="empty labels"),
    pytest.param("%{l}.x.example", b"a" * 64 + b"@example.org", id="label of 64 octets"),
]


@pytest.mark.parametrize(("spec", "sender"), HOSTILE_SENDERS)
async def test_a_name_that_cannot_be_asked_matches_nothing(spec: str, sender: bytes) -> None:
    dns = FakeDNS({"example.org TXT": spf(f"exists:{spec}", "-all")})
    outcome = await evaluate(dns, sender=sender)
    assert (outcome.result, dns.asked) == (Result.FAIL, ["example.org TXT"])


EAI: list[tuple[str, list[str], Result, list[str]]] = [
    ("an include of the local-part is passed over", ["include:%{l}.x.example", "~all"], Result.SOFTFAIL, []),
    ("a redirect to the local-part is passed over", ["redirect=%{l}.x.example"], Result.NEUTRAL, []),
    ("the domain of the sender is in A-labels", ["exists:%{o}.%{d1r}.x.example", "-all"], Result.FAIL,
     ["xn--bcher-kva.example.xn--bcher-kva.x.example A"]),
    ("the HELO name is in A-labels", ["exists:%{h}.x.example", "-all"], Result.FAIL,
     ["xn--mnchen-3ya.example.x.example A"]),
    ("an explanation for the local-part is none", ["-all", "exp=%{l}.x.example"], Result.FAIL, []),
]  # fmt: skip


@pytest.mark.parametrize(("terms", "result", "asked"), [r[1:] for r in EAI], ids=[r[0] for r in EAI])
async def test_addresses_outside_ascii(terms: list[str], result: Result, asked: list[str]) -> None:
    """RFC 8616 section 4: U-labels are converted, and terms with a local-part outside ASCII match nothing."""
    mailbox = parse_path("<j\xfcrgen@B\xfccher.example>".encode())
    assert mailbox is not None
    dns = FakeDNS({"xn--bcher-kva.example TXT": spf(*terms)})
    envelope = Envelope(reverse_path=mailbox)
    helo = "M\xfcnchen.example".encode()
    options = Spf(explanation=True)
    found = await check_mail_from(CONNECTION, helo, "xn--mnchen-3ya.example", envelope, dns, options)
    assert (found.result, found.identifier) == (result, "xn--bcher-kva.example")
    assert found.properties == {"smtp.mailfrom": "j\xfcrgen@xn--bcher-kva.example"}
    assert dns.asked == ["xn--bcher-kva.example TXT", *asked]


async def test_a_helo_of_u_labels() -> None:
    dns = FakeDNS({"xn--mnchen-3ya.example TXT": spf("ip4:192.0.2.1", "-all")})
    name = "m\xfcnchen.example".encode()
    found = await check_helo(CONNECTION, name, to_ascii_domain(name), dns, Spf())
    assert (found.result, found.properties) == (Result.PASS, {"smtp.helo": "xn--mnchen-3ya.example"})


async def test_long_and_split_records_over_the_wire() -> None:
    """RFC 7208 section 3.3 and 3.4: strings are joined without a space, and what does not fit UDP comes over TCP."""
    networks = [f"ip4:10.{n // 256}.{n % 256}.1" for n in range(280)]
    long = " ".join(["v=spf1", *networks, "ip4:192.0.2.1", "-all"])
    zone: dict[str, list[Any]] = {
        "long.example TXT": [[long[i : i + 255] for i in range(0, len(long), 255)]],
        "split.example TXT": [["v=sp", "f1 ip4:192", ".0.2.1", " -a", "ll"]],
        "other.example TXT": ["x" * 200, ["v=spf1", " ip4:192.0.2.1 -all"], "y" * 1000],
    }
    assert 4000 < len(long) < 8192
    with DNSServer(zone) as server:
        dns = StubResolver(Dns(nameservers=(server.address,)))
        try:
            for name in ("long.example", "split.example", "other.example"):
                found = await evaluate_at(name, dns)
                assert (found.result, found.mechanism) == (Result.PASS, "ip4:192.0.2.1"), name
        finally:
            dns.close()
        assert "long.example TXT tcp" in server.queries


async def evaluate_at(domain: str, dns: Resolver) -> SpfOutcome:
    return await check_host(ip_address(CLIENT), domain, b"u", domain, b"h.example", dns, Spf())


async def test_a_name_over_253_octets_loses_labels_on_the_left() -> None:
    sender = b".".join([b"x" * 30] * 6) + b"@example.org"
    dns = FakeDNS({"example.org TXT": spf("exists:" + "%{l}." * 3 + "x.example", "-all")})
    await evaluate(dns, sender=sender)
    name = dns.asked[-1].removesuffix(" A")
    assert name == ".".join(["x" * 30] * 7 + ["x", "example"])
    assert 253 - 31 < len(name) <= 253


@pytest.mark.parametrize("length", [253, 254, 255, 256])
def test_query_name_fits(length: int) -> None:
    name = query_name("a." * ((length - 1) // 2) + "a" * (1 + (length - 1) % 2) + ".")
    assert 251 < len(name) <= 253


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["example.org", "a.example.org"], "example.org"),
        (["other.example", "a.example.org"], "a.example.org"),
        (["other.example"], "other.example"),
        (["notexample.org", "x.a.example.org"], "x.a.example.org"),
        (["forged.example"], "unknown"),
    ],
    ids=["the domain itself", "a name below it", "any other", "a suffix without dot is another", "not validated"],
)
async def test_macro_p_prefers_names_of_the_domain(names: list[str | bytes], expected: str) -> None:
    dns = FakeDNS({"example.org TXT": spf("exists:%{p}.x.example", "-all"), CLIENT_PTR: names})
    for name in names:
        dns.add(f"{name!s} A", ["198.51.100.9"] if name == "forged.example" else [CLIENT])
    await evaluate(dns)
    assert dns.asked[-1] == f"{expected}.x.example A"


EXPLANATIONS: list[tuple[str, list[str | bytes], str]] = [
    ("plain text", ["Not from here."], "Not from here."),
    ("macros of explanations", ["%{c} %{r} %{t}"], "192.0.2.1 mx.example 1700000000"),
    ("cut at 200 characters", ["x" * 300], "x" * 200),
    ("none", [], ""),
    ("two", ["a", "b"], ""),
    ("outside ASCII", ["\xe4".encode()], ""),
    ("a control character", [b"a\r\nSubject: b"], ""),
    ("a syntax error", ["%{y}"], ""),
    ("a control character from the local-part", ["%{l}"], ""),
    ("endless macros", ["%{h}" * 200], "mail.example.net" * 12 + "mail.exa"),
]


@pytest.mark.parametrize(("text", "expected"), [r[1:] for r in EXPLANATIONS], ids=[r[0] for r in EXPLANATIONS])
async def test_explanation(text: list[str | bytes], expected: str) -> None:
    zone = {"example.org TXT": spf("-all", "exp=why.example"), "why.example TXT": text}
    outcome = await evaluate(zone, sender=b"a\nb@example.org", receiver="mx.example", now=1.7e9)
    assert (outcome.result, outcome.explanation) == (Result.FAIL, expected)


async def test_no_question_for_an_explanation_that_nobody_reads() -> None:
    dns = FakeDNS({"example.org TXT": spf("-all", "exp=why.example"), "why.example TXT": ["because"]})
    outcome = await evaluate(dns, explain=False)
    assert (outcome.explanation, dns.asked) == ("", ["example.org TXT"])


OUTCOMES: list[tuple[str, list[str], Result, str]] = [
    ("pass", ["ip4:192.0.2.0/24", "-all"], Result.PASS, "192.0.2.1 is among the hosts of example.org (ip4:192.0.2.0/24)"),
    ("fail", ["-all"], Result.FAIL, "192.0.2.1 is not among the hosts of example.org (-all)"),
    ("softfail", ["~all"], Result.SOFTFAIL, "192.0.2.1 is probably not among the hosts of example.org (~all)"),
    ("neutral", [], Result.NEUTRAL, "example.org does not say whether 192.0.2.1 is among its hosts"),
    ("include", ["include:x.example"], Result.PASS, "192.0.2.1 is among the hosts of example.org (include:x.example)"),
    ("redirect", ["redirect=y.example"], Result.FAIL, "192.0.2.1 is not among the hosts of example.org (-all)"),
    ("odd text in a term is not shown", ["-exists:x.example%{d1r}<b>.example.org", "?all"], Result.FAIL,
     "192.0.2.1 is not among the hosts of example.org (-exists)"),
    ("syntax error", ["ip5:1"], Result.PERMERROR, "the SPF record of example.org is invalid (ip5:1: not a mechanism)"),
    ("odd text in an error is not shown", ['a";=/*'], Result.PERMERROR,
     "the SPF record of example.org is invalid (a term: not a mechanism)"),
    ("odd names are not shown", ["include:a(b.example"], Result.PERMERROR, "include leads to no SPF record"),
    ("temporary failure", ["a:down.example"], Result.TEMPERROR, "no answer from the DNS for A of down.example"),
    ("temporary failure of an odd name", ["exists:%{l}.down.example"], Result.TEMPERROR,
     "no answer from the DNS for A of a name made from macros"),
]  # fmt: skip


@pytest.mark.parametrize(("terms", "result", "reason"), [r[1:] for r in OUTCOMES], ids=[r[0] for r in OUTCOMES])
async def test_reason(terms: list[str], result: Result, reason: str) -> None:
    zone: dict[str, list[str | bytes]] = {
        "example.org TXT": spf(*terms),
        "x.example TXT": spf("+all"),
        "y.example TXT": spf("-all"),
        "x.exampleexample<b>.example.org A": ["127.0.0.2"],
    }
    fail = ("down.example A", '"\x41;".down.example A')
    outcome = await evaluate(zone, fail=fail, sender=b'"A;"@example.org')
    assert (outcome.result, outcome.reason) == (result, reason)


async def test_ttl_is_the_least_of_all_answers() -> None:
    class Aging(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            answer = await super().query(name, rdtype)
            return answer._replace(ttl=20.0 if name == "x.example" else 90.0)

    dns = Aging({"example.org TXT": spf("a:x.example", "a:example.org", "-all")})
    assert (await evaluate(dns)).ttl == 20.0


@pytest.mark.parametrize("fail", [CLIENT_PTR, "a.example.org A"])
async def test_a_result_in_spite_of_a_failure_holds_for_no_time(fail: str) -> None:
    zone: dict[str, list[str | bytes]] = {"example.org TXT": spf("ptr", "-all"), CLIENT_PTR: ["a.example.org"]}
    outcome = await evaluate(zone, fail=(fail,))
    assert (outcome.result, outcome.ttl) == (Result.FAIL, 0.0)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["ip4:192.0.2.1", "exists:%{l}.x.example"], False),
        (["exists:%{i}.%{d}.x.example", "-all"], False),
        (["exists:%{l}.x.example", "-all"], True),
        (["exists:%{S}.x.example", "-all"], True),
        (["a:%{h}", "-all"], True),
    ],
)
async def test_the_outcome_says_whether_it_depends_on_the_sender(terms: list[str], expected: bool) -> None:
    assert (await evaluate({"example.org TXT": spf(*terms)})).depends_on_sender is expected


V6 = "2001:db8::1"
ELSEWHERE: dict[str, list[str | bytes]] = {
    "all.example TXT": spf("+all"),
    "one.example TXT": spf("ip4:192.0.2.1", "-all"),
    "none.example TXT": spf("-all"),
    "example.org A": [CLIENT],
    "example.org AAAA": [V6],
    "example.org MX": ["10 example.org"],
    "any.example A": ["127.0.0.2"],
    "192.0.2.1.x.example A": [CLIENT],
    "192.0.2.1.x.example TXT": spf("ip4:192.0.2.1"),
    "in-addr.x.example A": [CLIENT],
    "example.org.x.example A": [CLIENT],
    "user.x.example A": [CLIENT],
    CLIENT_PTR: ["mx.example.org", "192.0.2.1.x.example"],
    "mx.example.org A": [CLIENT],
}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("ip4:192.0.2.1", False),
        ("ip4:192.0.0.0/9", False),
        ("ip4:192.0.0.0/8", True),
        ("ip4:0.0.0.0/1 ip4:128.0.0.0/1", True),
        ("ip6:2001:db8::/17", False),
        ("ip6:2001::/16", True),
        ("all", True),
        ("?ip4:192.0.2.0/28 all", False),
        ("a", False),
        ("a/9", False),
        ("a/8", True),
        ("a//16", True),
        ("mx", False),
        ("mx/8", True),
        ("ptr", False),
        ("ptr:%{p}", True),
        ("exists:any.example", True),
        ("exists:%{i}.x.example", True),
        ("a:%{i}.x.example", True),
        ("a:%{l}.x.example", True),
        ("a:%{v}.x.example", False),
        ("a:%{d}.x.example", False),
        ("include:all.example", True),
        ("include:one.example", False),
        ("include:%{i}.x.example", True),
        ("include:none.example ip4:192.0.2.1", False),
        ("include:one.example all", False),
        ("-include:none.example all", True),
        ("-exists:%{i}.nothing.example ip4:192.0.2.1", False),
        ("redirect=all.example", True),
        ("redirect=one.example", False),
        ("redirect=%{i}.x.example", True),
    ],
)
async def test_a_pass_that_anyone_may_have_is_told_from_others(terms: str, *, expected: bool) -> None:
    zone = {**ELSEWHERE, "example.org TXT": spf(terms)}
    outcome = await evaluate(zone, ip=V6 if "ip6" in terms or "//" in terms else CLIENT)
    assert outcome.result is (Result.NEUTRAL if terms.startswith("?") else Result.PASS)
    assert outcome.for_anyone is expected


async def test_only_a_pass_is_for_anyone() -> None:
    for terms, result in ((["-all"], Result.FAIL), (["~all"], Result.SOFTFAIL), (["?all"], Result.NEUTRAL)):
        outcome = await evaluate({"example.org TXT": spf(*terms)})
        assert (outcome.result, outcome.for_anyone) == (result, False)


async def test_results_and_what_is_kept_of_them_say_whether_anyone_may_have_them() -> None:
    dns, cache = FakeDNS({"example.org TXT": spf("+all")}), SpfCache(10)
    connection, envelope = Connection(ip_address(CLIENT)), Envelope(parse_path(b"<a@example.org>"))
    for _ in range(2):
        found = await check_mail_from(connection, b"example.org", "example.org", envelope, dns, Spf(), cache)
        assert (found.result, found.for_anyone) == (Result.PASS, True)
        found = await check_helo(connection, b"example.org", "example.org", dns, Spf(), cache)
        assert (found.result, found.for_anyone) == (Result.PASS, True)
    assert len(dns.asked) == 1


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("::ffff:192.0.2.1", Result.PASS), ("::192.0.2.1", Result.FAIL), ("2001:db8::5", Result.SOFTFAIL)],
)
async def test_ipv4_mapped_addresses_are_ipv4(ip: str, expected: Result) -> None:
    zone = {"example.org TXT": spf("ip6:::ffff:0:0/96", "-ip6:::/96", "~ip6:2001:db8::/32", "ip4:192.0.2.1", "?all")}
    outcome = await evaluate(zone, ip=ip)
    assert outcome.result is expected
    if expected is Result.PASS:
        assert outcome.mechanism == "ip4:192.0.2.1"


@pytest.mark.parametrize("text", ["", "198.51.100.1.1", "x", "::1", "192.0.2.1\0", "\u0661"])
async def test_a_broken_address_record_matches_nothing(text: str) -> None:
    assert (await evaluate({"example.org TXT": spf("a/0", "-all"), "example.org A": [text]})).result is Result.FAIL


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "org",
        "a..example.org",
        ".example.org",
        "x" * 64 + ".org",
        "x." * 126 + "org",
        "192.0.2.1",
        "[192.0.2.1]",
        "a b.org",
        "a\0.org",
    ],
)
async def test_a_domain_that_cannot_be_asked_has_no_record(domain: str) -> None:
    dns = FakeDNS()
    outcome = await check_host(ip_address(CLIENT), domain, b"u", domain, b"h", dns, Spf())
    assert (outcome.result, dns.asked) == (Result.NONE, [])


async def test_what_is_known_is_not_asked() -> None:
    dns = CachedDNS({
        "example.org TXT": spf("mx", "include:x.example", "-all"),
        "example.org MX": ["10 mx.example.org"],
        "mx.example.org A": ["198.51.100.1"],
        "x.example TXT": spf("ip4:192.0.2.0/28"),
    })  # fmt: skip
    assert (await evaluate(dns)).result is Result.PASS


async def test_what_the_next_terms_need_is_prefetched_once_something_must_be_waited_for() -> None:
    dns = PrefetchDNS({
        "example.org TXT": spf("ip4:198.51.100.1", "include:a.example", "mx", "exists:%{i}.x.example", "a:%{l}.example",
                               "a:b.example", "include:c.example", "redirect=d.example"),
        "a.example TXT": spf("include:e.example", "-all", "include:f.example"),
    }, fail=["e.example TXT"])  # fmt: skip
    await evaluate(dns)
    outer = ["example.org MX", "b.example A", "c.example TXT", "d.example TXT"]
    assert dns.prefetched == [*outer, *outer]  # when a.example is asked for, and again for e.example
    assert not any("f.example" in name for name in dns.prefetched)


async def test_each_term_is_prefetched_for_those_behind_it() -> None:
    dns = PrefetchDNS({"example.org TXT": spf("include:a.example", "include:b.example", "a:c.example", "-all"),
                       "a.example TXT": spf("-all"), "b.example TXT": spf("-all")})  # fmt: skip
    await evaluate(dns)
    assert dns.prefetched == ["b.example TXT", "c.example A", "c.example A"]


async def test_exchanges_are_asked_in_the_order_of_their_preference() -> None:
    mx: list[str | bytes] = ["20 c.example", "5 a.example", "10 b.example", "x d.example"]
    dns = PrefetchDNS({"example.org TXT": spf("mx", "-all"), "example.org MX": mx})
    await evaluate(dns)
    assert dns.asked[2:] == ["d.example A", "a.example A", "b.example A", "c.example A"]
    assert dns.prefetched == dns.asked[3:]


async def test_of_an_endless_local_part_or_helo_name_255_octets_enter_macros() -> None:
    dns = FakeDNS({"example.org TXT": spf("exists:%{l1}.x.example", "exists:%{h1}.x.example", "-all")})
    await evaluate(dns, sender=b"a." * 200 + b"tail@example.org", helo=b"b." * 200 + b"tail")
    assert dns.asked[1:] == ["a.x.example A", "b.x.example A"]


async def test_no_more_is_prefetched_than_may_be_asked() -> None:
    dns = PrefetchDNS({"example.org TXT": spf(*numbered(30, "include:x{}.example"), "redirect=y.example")})
    await evaluate(dns, options=Spf(lookup_limit=4))
    assert dns.prefetched == numbered(4, "x{}.example TXT")[1:]


async def test_large_records_and_names_are_no_lever() -> None:
    record = "v=spf1 " + "exists:" + "%{h1r}%{l1r}" * 40 + ".x.example "
    dns = FakeDNS({"example.org TXT": [record + "x=%{l} " * 1000 + "-all"]})
    started = time.monotonic()
    outcome = await evaluate(dns, sender=b"a." * 500_000 + b"@example.org", helo=b".." * 500_000)
    assert outcome.result is Result.FAIL
    assert time.monotonic() - started < 0.5


@given(st.binary(max_size=80), st.binary(max_size=30), st.binary(max_size=30))
@settings(max_examples=300, deadline=None)
def test_no_record_and_no_sender_raises(terms: bytes, local: bytes, helo: bytes) -> None:
    dns = FakeDNS({"example.org TXT": [b"v=spf1 " + terms], "x.example TXT": [b"v=spf1 " + terms]})
    asyncio.run(check_host(ip_address(CLIENT), "example.org", local, "example.org", helo, dns, Spf()))


_TERM = st.text("+-~?alincudemxptrs4650123/.:={%}_ \t,", max_size=40)


@given(st.lists(_TERM | st.sampled_from(["a:%{d}", "exists:%{l1r-}.%{h}", "include:x.example", "mx/8//9"]), max_size=8))
@settings(max_examples=500, deadline=None)
def test_no_near_miss_of_a_record_raises(terms: list[str]) -> None:
    text = spf(*terms)
    dns = FakeDNS({"example.org TXT": text, "x.example TXT": text})
    outcome = asyncio.run(check_host(ip_address(CLIENT), "example.org", b"l", "example.org", b"h", dns, Spf()))
    assert (outcome.result is Result.PERMERROR) or not parse(str(text[0]).encode()).error


# ------------------------------------------------------------------------------------------- HELO and MAIL FROM

ZONE: dict[str, list[str | bytes]] = {
    "example.org TXT": spf("exists:%{l}.ok.example", "-all"),
    "user.ok.example A": ["127.0.0.2"],
    "postmaster.ok.example A": ["127.0.0.2"],
    "mail.example.net TXT": spf("exists:%{l}.ok.example", "-all"),
}
CONNECTION = Connection(client_ip=ip_address(CLIENT), mta_name="mx.example")
HELO = (b"Mail.Example.Net", "mail.example.net")


async def mail_from(reverse_path: Mailbox | None, helo: tuple[bytes, str] = HELO) -> tuple[Any, ...]:
    envelope = Envelope(reverse_path=reverse_path)
    result = await check_mail_from(CONNECTION, *helo, envelope, FakeDNS(ZONE), Spf())
    return result.method, result.result, result.identifier, dict(result.properties)


SENDERS: list[tuple[str, Mailbox | None, Result, str, dict[str, str]]] = [
    ("a mailbox", Mailbox(b"user", b"Example.ORG", "example.org"), Result.PASS, "example.org",
     {"smtp.mailfrom": "user@example.org"}),
    ("another mailbox", Mailbox(b"other", b"example.org", "example.org"), Result.FAIL, "example.org",
     {"smtp.mailfrom": "other@example.org"}),
    ("no local-part stands for postmaster", Mailbox(b"", b"example.org", "example.org"), Result.PASS, "example.org",
     {"smtp.mailfrom": "@example.org"}),
    ("the null reverse-path stands for postmaster@HELO", None, Result.PASS, "mail.example.net",
     {"smtp.helo": "mail.example.net"}),
    ("an address literal", Mailbox(b"user", b"[192.0.2.1]", ""), Result.NONE, "",
     {"smtp.mailfrom": "user@[192.0.2.1]"}),
    ("what can't be parsed, shown without controls", Mailbox(b"(a\0b\r\n\x1b[2J\xff\xe2\x80\xae@legit", b"", ""), Result.NONE, "",
     {"smtp.mailfrom": "(a\\x00b\\r\\n\\x1b[2J\\xff\\u202e@legit"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mailbox", "result", "identifier", "properties"), [r[1:] for r in SENDERS], ids=[r[0] for r in SENDERS]
)
async def test_mail_from(mailbox: Mailbox | None, result: Result, identifier: str, properties: dict[str, str]) -> None:
    assert await mail_from(mailbox) == ("spf", result, identifier, properties)


async def test_the_null_reverse_path_with_a_helo_that_is_no_domain() -> None:
    assert await mail_from(None, (b"[192.0.2.1]", "")) == ("spf", Result.NONE, "", {"smtp.helo": "[192.0.2.1]"})


async def test_helo() -> None:
    result = await check_helo(CONNECTION, *HELO, FakeDNS(ZONE), Spf())
    assert (result.method, result.result, result.identifier) == ("spf_helo", Result.PASS, "mail.example.net")
    assert dict(result.properties) == {"smtp.helo": "mail.example.net"}
    assert result.symbol == "spf_helo_pass"


async def test_a_helo_of_one_label_has_no_record() -> None:
    result = await check_helo(CONNECTION, b"localhost", "localhost", FakeDNS(ZONE), Spf())
    assert (result.result, result.identifier) == (Result.NONE, "localhost")


async def test_no_client_address_is_no_result() -> None:
    dns = FakeDNS(ZONE)
    result = await check_helo(Connection(), *HELO, dns, Spf())
    assert (result.result, result.reason, dns.asked) == (Result.NONE, "the client's address is not known", [])


async def test_a_resolver_that_is_down_is_a_temperror() -> None:
    class Down(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise DnsTempError("no server reached")

    result = await check_helo(CONNECTION, *HELO, Down(), Spf())
    assert (result.result, result.identifier) == (Result.TEMPERROR, "mail.example.net")
