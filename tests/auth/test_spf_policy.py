"""SPF as the daemon uses it: results that are kept, clients that are left out, and the domain's own explanation."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from authmilter.auth.results_header import render
from authmilter.auth.spf import SpfCache, SpfOutcome, check_helo, check_mail_from
from authmilter.config.schema import Config, Dns, Policy, Spf
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Answer, Resolver
from authmilter.model import Connection, Envelope, Mailbox
from authmilter.resolver import StubResolver
from tests.dnsserver import DNSServer
from tests.fakes import FakeDNS
from tests.test_session import BAD, Rig

CLIENT = "192.0.2.1"
HELO = (b"mail.example.org", "mail.example.org")


class Clock:
    """Time that stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Aging(FakeDNS):
    """Gives every answer a TTL of its own."""

    ttls: dict[str, float]

    async def query(self, name: str, rdtype: str) -> Answer:
        answer = await super().query(name, rdtype)
        return answer._replace(ttl=self.ttls.get(f"{name} {rdtype}", 300.0))


def zone(*terms: str, ttls: dict[str, float] | None = None, **rows: Any) -> Aging:
    dns = Aging({"example.org TXT": [" ".join(("v=spf1", *terms))], "other.example TXT": ["v=spf1 +all"], **rows})
    dns.ttls = ttls or {}
    return dns


async def ask(
    dns: Resolver,
    cache: SpfCache | None = None,
    *,
    sender: str = "user@example.org",
    ip: str = CLIENT,
    helo: tuple[bytes, str] = HELO,
    mta: str = "mx.example",
    options: Spf | None = None,
) -> AuthResult:
    local, _, domain = sender.partition("@")
    envelope = Envelope(reverse_path=Mailbox(local.encode(), domain.encode(), domain))
    connection = Connection(client_ip=ip_address(ip), mta_name=mta)
    return await check_mail_from(connection, *helo, envelope, dns, options or Spf(), cache)


# ------------------------------------------------------------------------------------------------------------ cache


@pytest.mark.parametrize(
    ("terms", "change", "again"),
    [
        pytest.param(("-all",), {}, False, id="the same once more"),
        pytest.param(("-all",), {"sender": "another@example.org"}, False, id="another sender of the domain"),
        pytest.param(("-all",), {"helo": (b"x.example", "x.example")}, False, id="another HELO"),
        pytest.param(("-all",), {"ip": "192.0.2.2"}, True, id="another client"),
        pytest.param(("-all",), {"ip": "::1"}, True, id="a client of the other family"),
        pytest.param(("-all",), {"sender": "user@other.example"}, True, id="another domain"),
        pytest.param(("exists:%{l}.x.example", "-all"), {}, False, id="a macro of the sender, the same sender"),
        pytest.param(
            ("exists:%{l}.x.example", "-all"), {"sender": "a@example.org"}, True, id="a macro of the sender, another"
        ),
        pytest.param(
            ("exists:%{h}.x.example", "-all"), {"helo": (b"x.example", "x.example")}, True, id="a macro of HELO, another"
        ),
        pytest.param(("ip4:192.0.2.1", "exists:%{l}.x.example"), {"sender": "a@example.org"}, False,
                     id="a macro of the sender that was not reached"),
        pytest.param(("exists:%{i}.%{d}.x.example", "-all"), {"sender": "a@example.org"}, False,
                     id="macros of client and domain alone"),
    ],
)  # fmt: skip
async def test_what_a_kept_result_serves(terms: tuple[str, ...], change: dict[str, Any], again: bool) -> None:
    dns, cache = zone(*terms), SpfCache(100)
    first = await ask(dns, cache)
    asked = len(dns.asked)
    second = await ask(dns, cache, **change)
    assert (len(dns.asked) > asked) is again
    fresh = await ask(dns, None, **change)
    assert (second.result, second.reason, second.properties) == (fresh.result, fresh.reason, fresh.properties)
    assert first.method == second.method == "spf"


async def test_helo_and_mail_from_share_what_does_not_depend_on_the_sender() -> None:
    dns, cache = zone("-all"), SpfCache(100)
    await ask(dns, cache)
    found = await check_helo(Connection(client_ip=ip_address(CLIENT)), b"example.org", "example.org", dns, Spf(), cache)
    assert (found.method, found.result, found.properties) == ("spf_helo", Result.FAIL, {"smtp.helo": "example.org"})
    assert dns.asked == ["example.org TXT"]


@pytest.mark.parametrize(
    ("terms", "ttls", "seconds"),
    [
        pytest.param(("-all",), {}, 300, id="the record's own"),
        pytest.param(("a:x.example", "-all"), {"x.example A": 20.0}, 20, id="the shortest of all"),
        pytest.param(("include:other.example",), {"other.example TXT": 7.0}, 7, id="that of an included record"),
        pytest.param(("exists:x.example", "-all"), {"x.example A": 5.0}, 5, id="that of an answer without records"),
        pytest.param(("-all",), {"example.org TXT": 0.0}, 0, id="a resolver that keeps nothing"),
    ],
)
async def test_a_result_is_kept_for_the_shortest_ttl(
    terms: tuple[str, ...], ttls: dict[str, float], seconds: int
) -> None:
    clock = Clock()
    dns, cache = zone(*terms, ttls=ttls), SpfCache(100, clock)
    await ask(dns, cache)
    asked = len(dns.asked)
    clock.now += seconds - 0.5
    await ask(dns, cache)
    assert (len(dns.asked) == asked) is (seconds > 0)
    clock.now += 1
    await ask(dns, cache)
    assert len(dns.asked) > asked


async def test_a_changed_record_counts_after_its_ttl() -> None:
    clock = Clock()
    dns, cache = zone("-all"), SpfCache(100, clock)
    assert (await ask(dns, cache)).result is Result.FAIL
    dns.add("example.org TXT", ["v=spf1 +all"])
    clock.now += 301
    assert (await ask(dns, cache)).result is Result.PASS


@pytest.mark.parametrize(
    ("terms", "fail"),
    [
        pytest.param(("a:down.example", "-all"), "down.example A", id="temperror"),
        pytest.param(("ptr", "-all"), "1.2.0.192.in-addr.arpa PTR", id="a fail in spite of a failure"),
        pytest.param(("-all", "exp=down.example"), "down.example TXT", id="an explanation that did not come"),
    ],
)
async def test_what_a_failure_made_is_not_kept(terms: tuple[str, ...], fail: str) -> None:
    dns, cache = zone(*terms), SpfCache(100)
    name, rdtype = fail.split()
    dns.fail = {(name, rdtype)}
    await ask(dns, cache, options=Spf(explanation=True))
    assert len(cache) == 0


async def test_permerror_and_none_are_kept() -> None:
    dns, cache = zone("moo"), SpfCache(100)
    for _ in range(2):
        assert (await ask(dns, cache)).result is Result.PERMERROR
        assert (await ask(dns, cache, sender="a@none.example")).result is Result.NONE
    assert len(dns.asked) == 2


async def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    dns, cache = zone("-all"), SpfCache(3)
    for ip in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1", "192.0.2.4"):
        await ask(dns, cache, ip=ip)
        assert len(cache) <= 3
    asked = len(dns.asked)
    await ask(dns, cache, ip="192.0.2.1")
    assert len(dns.asked) == asked
    await ask(dns, cache, ip="192.0.2.2")
    assert len(dns.asked) == asked + 1


def test_no_size_keeps_nothing() -> None:
    cache = SpfCache(0)
    cache.put("key", SpfOutcome(Result.PASS, "", ttl=300.0))
    assert (len(cache), cache.get("key")) == (0, None)


async def test_long_senders_and_helo_names_fill_no_memory() -> None:
    dns, cache = zone("exists:%{l}.x.example", "-all"), SpfCache(100)
    await ask(dns, cache, sender="x" * 256 + "@example.org")
    await ask(dns, cache, helo=(b"x" * 1_000_000, ""))
    assert len(cache) == 0


@pytest.mark.parametrize(("size", "asked"), [(100, 1), (0, 2)], ids=["a cache", "cache_size = 0"])
async def test_through_a_resolver_that_keeps_answers_or_none(size: int, asked: int) -> None:
    with DNSServer({"example.org TXT": ["v=spf1 -all"]}) as server:
        dns = StubResolver(Dns(nameservers=(server.address,), cache_size=size))
        cache = SpfCache(100)  # even so, the TTL of 0 that such a resolver gives is obeyed
        try:
            for _ in range(2):
                assert (await ask(dns, cache)).result is Result.FAIL
        finally:
            dns.close()
        assert len(server.queries) == asked


async def test_a_session_of_another_rulebook_sees_nothing_of_it() -> None:
    rig = Rig()
    for _ in range(2):
        await rig.play()  # each play builds a rulebook of its own
    assert rig.dns.asked.count("example.org TXT") == 2
    again = Rig()
    session = again.session()
    for _ in range(2):
        await again.play(session=session)
    assert again.dns.asked.count("example.org TXT") == 1


# ------------------------------------------------------------------------------------------------------ local policy


@pytest.mark.parametrize(
    ("ip", "result"),
    [("192.0.2.1", Result.NONE), ("192.0.3.1", Result.FAIL), ("2001:db8::5", Result.NONE), ("2001:db9::", Result.FAIL)],
)
async def test_clients_that_are_not_checked(ip: str, result: Result) -> None:
    skip = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    dns = zone("-all")
    found = await ask(dns, SpfCache(10), ip=ip, options=Spf(skip=skip))
    assert (found.result, found.identifier) == (result, "example.org")
    assert found.reason.startswith("local policy: ") is (result is Result.NONE)
    assert bool(dns.asked) is (result is Result.FAIL)
    assert found.properties == {"smtp.mailfrom": "user@example.org"}


# ------------------------------------------------------------------------------------------------------- explanation


WHY: dict[str, list[str | bytes]] = {
    "example.org TXT": ["v=spf1 -all exp=why.example.org"],
    "why.example.org TXT": ["%{i} may not send for %{d}, see http://example.org/%{S}"],
    "mail.example.org TXT": ["v=spf1 -all exp=why.example.org"],
    "_dmarc.example.org TXT": ["v=DMARC1; p=none"],
}
EXPLAINED = "203.0.113.1 may not send for example.org, see http://example.org/al%25ice%40example.org"


async def refused(zone: dict[str, list[str | bytes]], sender: str = "<al%ice@example.org>", **spf: Any) -> Rig:
    rig = Rig(Config(spf=Spf(**spf), policy=Policy(preset="strict")), FakeDNS(zone))
    await rig.play(BAD, sender=sender)
    return rig


async def test_the_explanation_stands_in_the_reply_as_the_domains_own_words() -> None:
    rig = await refused(WHY, explanation=True, helo=False)
    reply = rig.outcomes[0].ruling.verdict.reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (550, "5.7.23")
    start = "SPF fail: 203.0.113.1 is not allowed to send mail for example.org; example.org explained: "
    assert reply.text == f"{start}{EXPLAINED} [{rig.outcomes[0].reference}]"


async def test_it_is_not_asked_for_unless_it_is_wanted() -> None:
    rig = await refused(WHY, helo=False)
    reply = rig.outcomes[0].ruling.verdict.reply
    assert reply is not None
    assert "explained" not in reply.text
    assert "why.example.org TXT" not in rig.dns.asked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param([b"a\r\n250 OK"], "", id="line breaks"),
        pytest.param(["\x1b[2J"], "", id="control characters"),
        pytest.param(["ä".encode()], "", id="letters outside ASCII"),
        pytest.param([b"x" * 4000], "", id="an endless text"),
        pytest.param(["a", "b"], "", id="two texts"),
        pytest.param(["x" * 300], "x" * 200, id="a long text"),
        pytest.param(["[am-0000000000] %%"], "[am-0000000000] %", id="a text that looks like ours"),
    ],
)
async def test_hostile_explanations(text: list[str | bytes], shown: str) -> None:
    rig = await refused(WHY | {"why.example.org TXT": text}, explanation=True, helo=False)
    reply = rig.outcomes[0].ruling.verdict.reply
    assert reply is not None
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert reply.text.endswith(f"[{rig.outcomes[0].reference}]")
    _, explained, words = reply.text.partition("example.org explained: ")
    assert words.removesuffix(f" [{rig.outcomes[0].reference}]") == shown
    assert bool(explained) is bool(shown)


async def test_only_a_fail_is_explained() -> None:
    dns = FakeDNS(WHY | {"example.org TXT": ["v=spf1 ~all exp=why.example.org"]})
    found = await ask(dns, options=Spf(explanation=True))
    assert (found.result, found.explanation, dns.asked) == (Result.SOFTFAIL, "", ["example.org TXT"])


async def test_it_never_reaches_authentication_results() -> None:
    found = await ask(FakeDNS(WHY), options=Spf(explanation=True))
    assert found.explanation == "192.0.2.1 may not send for example.org, see http://example.org/user%40example.org"
    assert render("mx.example", [found]) == render("mx.example", [found._replace(explanation="")])


async def test_an_explanation_for_one_sender_is_not_shown_to_another() -> None:
    dns, cache, options = FakeDNS(WHY), SpfCache(10), Spf(explanation=True)
    first = await ask(dns, cache, sender="a@example.org", options=options)
    second = await ask(dns, cache, sender="b@example.org", options=options)
    assert first.explanation.endswith("/a%40example.org")
    assert second.explanation.endswith("/b%40example.org")
