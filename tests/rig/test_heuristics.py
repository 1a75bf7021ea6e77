"""Every check before DATA through a real Postfix: what is refused, in which words, and what of the same kind is not.

Clients are made up by XCLIENT.  Each case has a client of its own, `clean` ones but for what the case is about: their
name is confirmed, HELO is that name, the domain of MAIL FROM can be answered, and its SPF record lists the client.
"""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from itertools import count
from pathlib import Path

import pytest

from tests.dnsserver import DNSServer
from tests.rig.daemon import Configuration
from tests.rig.mail import KeyFiles, message, zone
from tests.rig.postfix import Answer, Postfix
from tests.rig.sink import Sink
from tests.rig.site import Site, Variant, configuration, running
from tests.rig.sockets import wait_until

Settings = dict[str, dict[str, object]]

NATIVE, LIBMILTER = Variant("native", "unix"), Variant("libmilter", "inet")
_hosts = count(1)


@dataclass(frozen=True)
class Client:
    """A message and who brings it."""

    addr: str
    name: str
    helo: str
    mail_from: str = "a@clean.example"
    rcpts: tuple[str, ...] = ("user@test",)
    login: str = ""


def clean(**changes: object) -> Client:
    """A client that does everything right, but for `changes`."""
    number = next(_hosts)
    assert number < min(NAMES)
    return host(number, **changes)


def host(number: int, **changes: object) -> Client:
    """The client with that number."""
    name = NAMES.get(number, f"mx{number}.clean.example")
    return replace(Client(f"198.51.100.{number}", name, name), **changes)  # type: ignore[arg-type]


def ipv6_host(address: str) -> Client:
    """A client that does everything right, but comes by IPv6."""
    name = f"six{address.rpartition(':')[2]}.clean.example"
    return Client(address, name, name)


# Clients with a name of another kind; "" is none, in the DNS.
NAMES = {
    218: "good.accepted.example",
    224: "host.shunned.example",
    225: "host.notshunned.example",
    226: "198-51-100-226.dsl.provider.example",
    227: "mail-198-51-100-227.provider.example",
    228: "",
    229: "liar.example",
    232: "host.ours.example",
}


@dataclass(frozen=True)
class Case:
    """What becomes of a client: the reply at a stage, without the reference; "" is acceptance.

    The log tells of `symbol` where something is refused for it, and does not where it is accepted.
    """

    symbol: str
    what: str
    client: Client
    stage: str = "eom"
    reply: str = ""
    core: bool = False  # for libmilter as well
    fires: bool | None = None  # where it differs from what the reply says

    def __str__(self) -> str:
        return f"{self.symbol}: {self.what}"


REMEDY = "please use an address that can be answered"

NOT_HERE = "may not send mail here"
OWN_NAME = "use the host name of your mail server"

CONNECT_CASES = [
    Case(
        "access_reject",
        "fires for a network",
        host(209),
        "xclient",
        f"554 5.7.1 198.51.100.209 {NOT_HERE}; please ask the postmaster if it should",
        core=True,
    ),
    Case("access_reject", "not for an address in it that is excepted", host(210)),
    Case(
        "access_reject",
        "fires for an IPv6 network",
        ipv6_host("2001:db8:bad::7"),
        "xclient",
        f"554 5.7.1 2001:db8:bad::7 {NOT_HERE}; please ask the postmaster if it should",
    ),
    Case(
        "access_reject",
        "fires for a confirmed name",
        host(224),
        "xclient",
        f"554 5.7.1 198.51.100.224 {NOT_HERE}; please ask the postmaster if it should",
    ),
    Case("access_reject", "not for a name that ends alike", host(225)),
    Case(
        "access_tempfail",
        "fires for a network",
        host(217),
        "xclient",
        f"421 4.7.0 198.51.100.217 {NOT_HERE} for now, please try again later",
        core=True,
    ),
    Case("access_tempfail", "not for who is accepted by name", host(218)),
    Case("access_accept", "fires, and outdoes a blocklist", host(244), fires=True),
    Case(
        "access_weight",
        "fires, and the score refuses",
        host(250),
        "eom",
        "554 5.7.1 Message looks like spam",
    ),
    Case("access_weight", "not for others", clean()),
    Case(
        "iprev_permerror",
        "fires where there is no name",
        host(228, helo="mx228.clean.example"),
        "mail",
        "550 5.7.25 198.51.100.228 has no reverse DNS",
    ),
    Case(
        "iprev_fail",
        "fires where the name has another address",
        host(229, name="", helo="mx229.clean.example"),
        "mail",
        "550 5.7.25 Reverse DNS of 198.51.100.229 is not confirmed by its forward DNS",
    ),
    Case(
        "generic_rdns",
        "fires for the name of a home line",
        host(226),
        "mail",
        "550 5.7.25 The name of 198.51.100.226 looks like one of a home line or pool; give your mail server a name of its own",
    ),
    Case("generic_rdns", "not where it says that it is a mail server", host(227)),
    Case("generic_rdns", "has no say about who logged in", host(226, login="u", mail_from="u@test"), fires=True),
    Case(
        "dnsbl_zen",
        "fires for who is listed",
        host(241),
        "mail",
        "550 5.7.1 Client 198.51.100.241 is listed by zen.example (127.0.0.2), see https://zen.example/198.51.100.241",
        core=True,
    ),
    Case(
        "dnsbl_zen",
        "fires for an IPv6 address that is listed",
        ipv6_host("2001:db8:1::7"),
        "mail",
        "550 5.7.1 Client 2001:db8:1::7 is listed by zen.example (127.0.0.2), see https://zen.example/2001:db8:1::7",
        core=True,
    ),
    Case("dnsbl_zen", "not for who is not", clean()),
    Case("dnsbl_zen", "not for the IPv6 address beside it", ipv6_host("2001:db8:1::8")),
    Case("dnsbl_zen", "not for who logged in", host(241, login="u", mail_from="u@test")),
    Case(
        "dnsbl_graded_11",
        "fires for an answer with an action of its own",
        host(242),
        "mail",
        "550 5.7.1 Client 198.51.100.242 is listed by graded.example (127.0.0.11)",
    ),
    Case("dnsbl_graded_11", "not for another answer of the list", host(243)),
    Case("dnswl_friends", "fires, and outdoes a blocklist", host(245), fires=True),
    Case("dnswl_friends", "not for others", clean()),
]

HELO_CASES = [
    Case(
        "helo_malformed",
        "fires for what is no name",
        clean(helo="mail..example"),
        "mail",
        "501 5.5.4 HELO mail..example is no domain name (RFC 5321 section 4.1.2)",
    ),
    Case("helo_malformed", "not for an underscore", host(235, helo="mail_out.clean.example")),
    Case(
        "helo_literal_malformed",
        "fires for what is no address",
        clean(helo="[192.0.2.256]"),
        "mail",
        "501 5.5.4 HELO [192.0.2.256] is no address literal (RFC 5321 section 4.1.3)",
    ),
    Case(
        "helo_literal_foreign",
        "fires for the address of another",
        host(231, helo="[192.0.2.77]"),
        "mail",
        "550 5.7.1 HELO [192.0.2.77] is not 198.51.100.231",
    ),
    Case("helo_literal_foreign", "not for its own", host(231, helo="[198.51.100.231]")),
    Case("helo_literal", "fires for its own, and weighs little", host(230, helo="[198.51.100.230]"), fires=True),
    Case("helo_literal", "not for a name", clean()),
    Case(
        "helo_own_name",
        "fires for our name",
        clean(helo="mx.test"),
        "mail",
        f"550 5.7.1 HELO mx.test is our name; {OWN_NAME}",
        core=True,
    ),
    Case("helo_own_name", "not for a name below it", host(236, helo="a.mx.test")),
    Case(
        "helo_local_domain",
        "fires for a domain of ours",
        host(237, helo="www.ours.example"),
        "mail",
        f"550 5.7.1 HELO www.ours.example is a domain of ours; {OWN_NAME}",
    ),
    Case("helo_local_domain", "not for who has a confirmed name there", host(232, helo="www.ours.example")),
    Case(
        "helo_bare",
        "fires for a name without a dot",
        clean(helo="mailhost"),
        "mail",
        "550 5.7.1 HELO mailhost is no fully-qualified domain name (RFC 5321 section 2.3.5)",
    ),
    Case("helo_bare", "not for one with a dot", clean()),
    Case(
        "helo_unresolvable",
        "fires for a name that is not there",
        clean(helo="mail.missing.example"),
        "mail",
        "550 5.7.1 HELO mail.missing.example has neither address nor MX; use a name that the DNS knows (RFC 5321 section 2.3.5)",
    ),
    Case("helo_unresolvable", "not where the DNS fails", clean(helo="servfail.example")),
    Case(
        "helo_mismatch",
        "fires for the name of another",
        host(233, helo="stranger.example"),
        "mail",
        "550 5.7.1 HELO stranger.example is not the name of 198.51.100.233",
    ),
    Case("helo_mismatch", "not for a further name of its own", host(234, helo="alias.clean.example")),
]

MAIL_CASES = [
    Case(
        "sender_domain_nonexistent",
        "fires where the name does not exist",
        clean(mail_from="a@missing.example"),
        "mail",
        f"550 5.1.8 Sender domain missing.example does not exist, {REMEDY}",
        core=True,
    ),
    Case("sender_domain_nonexistent", "not where the name has an address", clean(mail_from="a@clean.example")),
    Case(
        "sender_domain_temperror",
        "fires where the DNS fails",
        clean(mail_from="a@servfail.example"),
        "mail",
        "451 4.1.8 Sender domain servfail.example could not be looked up for now, please try again later",
        core=True,
    ),
    Case("sender_domain_temperror", "not where another server of the domain is known", clean(mail_from="a@half.example")),
    Case(
        "sender_null_mx",
        "fires where the domain takes no mail",
        clean(mail_from="a@nullmx.example"),
        "mail",
        f"550 5.7.27 Sender domain nullmx.example accepts no mail (null MX), {REMEDY}",
    ),
    Case("sender_null_mx", "not where there is another MX beside it", clean(mail_from="a@oddmx.example")),
    Case(
        "sender_domain_unreachable",
        "fires where there is neither MX nor address",
        clean(mail_from="a@textonly.example"),
        "mail",
        f"550 5.1.8 Sender domain textonly.example has no mail server, {REMEDY}",
    ),
    Case("sender_domain_unreachable", "not for the null reverse-path", clean(mail_from="")),
    Case(
        "sender_mx_private",
        "fires where all servers are in private networks",
        clean(mail_from="a@private.example"),
        "mail",
        f"550 5.1.8 Mail servers of sender domain private.example can't be reached, {REMEDY}",
    ),
    Case("sender_mx_private", "not where one of them is not", clean(mail_from="a@oddmx.example")),
    Case(
        "sender_malformed",
        "fires where it is too long (Postfix refuses other malformed ones by itself)",
        clean(mail_from=f"{'a' * 250}@clean.example"),
        "mail",
        f"501 5.1.7 Sender address is malformed (RFC 5321 section 4.1.2): {'a' * 80}",
    ),
    Case("sender_malformed", "not for an address literal", clean(mail_from="a@[198.51.100.77]")),
]  # fmt: skip

RCPT_CASES = [
    Case(
        "sender_is_local",
        "fires where a stranger writes as one of ours",
        clean(mail_from="boss@test"),
        "rcpt",
        "550 5.7.1 Mail from test is not accepted from this client, please authenticate to send it",
    ),
    Case("sender_is_local", "not for who has authenticated", clean(mail_from="boss@test", login="boss")),
    Case(
        "bounce_recipients",
        "fires for a bounce to two",
        clean(mail_from="", rcpts=("one@test", "two@test")),
        "rcpt",
        "550 5.7.1 Mail from the null reverse-path can't have several recipients",
    ),
    Case("bounce_recipients", "not for other mail to two", clean(rcpts=("one@test", "two@test"))),
    Case(
        "too_many_recipients",
        "fires for the fourth where three are allowed",
        clean(rcpts=tuple(f"user{number}@test" for number in range(4))),
        "rcpt",
        "452 4.5.3 Too many recipients, please send to the others in another transaction",
    ),
    Case("too_many_recipients", "not for the third", clean(rcpts=tuple(f"user{number}@test" for number in range(3)))),
    Case(
        "spamtrap",
        "fires, and does not tell",
        clean(rcpts=("trap@test",)),
        "rcpt",
        "550 5.7.1 Message looks like spam",
    ),
    Case("spamtrap", "not for a neighbour", clean(rcpts=("trapper@test",))),
    Case(
        "recipient_null_mx",
        "fires for a submission to a domain that takes none",
        clean(mail_from="u@test", login="u", rcpts=("x@nullmx.example",)),
        "rcpt",
        "556 5.1.10 nullmx.example accepts no mail (null MX)",
        core=True,
    ),
    Case(
        "recipient_null_mx",
        "not for a domain that takes mail",
        clean(mail_from="u@test", login="u", rcpts=("x@clean.example",)),
    ),
    Case(
        "recipient_domain_nonexistent",
        "fires for a submission to no domain",
        clean(mail_from="u@test", login="u", rcpts=("x@missing.example",)),
        "rcpt",
        "550 5.1.2 missing.example does not exist",
    ),
    Case(
        "recipient_domain_nonexistent",
        "not where the DNS fails",
        clean(mail_from="u@test", login="u", rcpts=("x@servfail.example",)),
    ),
]

CASES = [*CONNECT_CASES, *HELO_CASES, *MAIL_CASES, *RCPT_CASES]

# Every symbol is refused for by itself, so that the reply is heard.
REFUSED = (
    "iprev_permerror",
    "iprev_fail",
    "generic_rdns",
    "helo_malformed",
    "helo_literal_malformed",
    "helo_literal_foreign",
    "helo_own_name",
    "helo_local_domain",
    "helo_bare",
    "helo_unresolvable",
    "helo_mismatch",
    "sender_domain_nonexistent",
    "sender_null_mx",
    "sender_domain_unreachable",
    "sender_mx_private",
    "sender_malformed",
    "sender_is_local",
    "bounce_recipients",
    "spamtrap",
)

SETTINGS: Settings = {
    "identity": {"local_domains": "test, .ours.example"},
    "scores": {**dict.fromkeys(REFUSED, "reject"), "sender_domain_temperror": "tempfail"},
    "access": {
        "accept": "198.51.100.210, 198.51.100.244, .accepted.example",
        "reject": "198.51.100.208/29, 2001:db8:bad::/48, .shunned.example",
        "tempfail": "198.51.100.217",
        "weights": "198.51.100.250 = 30",
    },
    "connections": {"per_address": 2, "rate_address": "6/1h"},
    "dnsbl zen": {"zone": "zen.example", "score": "reject", "url": "https://zen.example/{ip}"},
    "dnsbl graded": {"zone": "graded.example", "answers": "127.0.0.10 = 1.5, 127.0.0.11 = reject"},
    "dnswl friends": {"zone": "friends.example", "score": "accept"},
    "recipients": {"max_per_message": 3},
    "spamtraps": {"addresses": "trap@test"},
    "recipient_domain": {"enabled": "yes"},
}

FAULTS = {"servfail.example": "servfail", "mx2.half.example": "servfail"}


def records() -> dict[str, list[str | bytes]]:
    """What the clients and their domains have in the DNS."""
    found: dict[str, list[str | bytes]] = {
        "clean.example A": ["198.51.100.1"],
        "clean.example TXT": ["v=spf1 ip4:198.51.100.0/24 ip6:2001:db8:1::/48 -all"],
        "half.example MX": ["10 mx2.half.example.", "20 mx1.clean.example."],
        "nullmx.example MX": ["0 ."],
        "oddmx.example MX": ["0 .", "10 inside.private.example.", "20 mx1.clean.example."],
        "flood.example A": ["198.51.100.1"],
        "flood.example TXT": ["v=spf1 ip4:198.51.100.0/24 -all"],
        "calm.example A": ["198.51.100.1"],
        "calm.example TXT": ["v=spf1 ip4:198.51.100.0/24 -all"],
        "mail_out.clean.example A": ["198.51.100.235"],
        "a.mx.test A": ["198.51.100.236"],
        "www.ours.example A": ["198.51.100.232", "198.51.100.237"],
        "stranger.example A": ["192.0.2.99"],
        "alias.clean.example A": ["198.51.100.234"],
        "textonly.example TXT": ["hello"],
        "test A": ["198.51.100.1"],
        "private.example MX": ["10 inside.private.example."],
        "inside.private.example A": ["10.1.2.3", "127.0.0.1"],
    }
    for number in range(1, 255):
        address, name = f"198.51.100.{number}", host(number).name
        found[f"mx{number}.clean.example A"] = [address]
        if name:
            found[f"{number}.100.51.198.in-addr.arpa PTR"] = [name]
            found[f"{name} A"] = [address]
    found["liar.example A"] = ["192.0.2.99"]
    for zone_name in ("zen", "graded", "friends"):
        found[f"2.0.0.127.{zone_name}.example A"] = ["127.0.0.2"]  # RFC 5782 section 5
    for six in map(IPv6Address, ("2001:db8:1::7", "2001:db8:1::8")):
        name = ipv6_host(str(six)).name
        found[f"{six.reverse_pointer} PTR"] = [name]
        found[f"{name} AAAA"] = [str(six)]
    found[f"{IPv6Address('2001:db8:1::7').reverse_pointer.removesuffix('.ip6.arpa')}.zen.example A"] = ["127.0.0.2"]
    listed = {"zen": (241, 244, 245), "friends": (245,)}
    for zone_name, numbers in listed.items():
        for number in numbers:
            found[f"{number}.100.51.198.{zone_name}.example A"] = ["127.0.0.2"]
    found["242.100.51.198.graded.example A"] = ["127.0.0.11"]
    found["243.100.51.198.graded.example A"] = ["127.0.0.12"]
    return found


@pytest.fixture(scope="module")
def heuristic_dns() -> Iterator[DNSServer]:
    with DNSServer({**zone(), **records()}, FAULTS) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(request: pytest.FixtureRequest, one_sink: Sink, keys: KeyFiles, heuristic_dns: DNSServer) -> Iterator[Site]:
    """A site with every check that needs no memory of earlier mail."""
    with running(request.param, one_sink, configuration(request.param, keys, heuristic_dns.address, SETTINGS)) as site:
        yield site
        without_errors(site)


def without_errors(site: Site) -> None:
    """Nothing went wrong inside while the tests ran."""
    assert site.daemon.metrics().value("authmilter_check_errors_total", kind="exception") == 0
    assert not site.daemon.log_lines("Traceback")
    assert not site.daemon.log_lines("error: ")


def send(site: Site, client: Client, marker: str) -> Answer:
    """The message of that client."""
    return site.postfix.send(
        message(marker, client.mail_from if "[" not in client.mail_from and client.mail_from else "a@clean.example"),
        mail_from=client.mail_from,
        rcpts=client.rcpts,
        addr=client.addr,
        name=client.name,
        helo=client.helo,
        login=client.login,
    )


def without_reference(answer: Answer) -> tuple[str, str]:
    """Reply and reference of a refusal."""
    found = re.fullmatch(r"(.*) \[(am-[0-9a-f-]+)\]", answer.text, re.DOTALL)
    assert found, f"no reference: {answer}"
    return f"{answer.code} {found[1]}", found[2]


def own_words(site: Site, addr: str) -> tuple[str, str]:
    """Reply and reference of what we said to that client last in place of a greeting: Postfix keeps it for its log."""
    text = rf"milter-reject: XCLIENT from \S*\[{re.escape(addr)}\]: (.*) \[(am-[0-9a-f]+)\]; proto="
    wait_until(lambda: re.search(text, site.postfix.log()), 5, "a line in the log of Postfix")
    reply, reference = re.findall(text, site.postfix.log())[-1]
    return reply, reference


def line_of(site: Site, part: str) -> str:
    """The one log line with that part."""
    lines: list[str] = []

    def logged() -> bool:
        lines[:] = site.daemon.log_lines(" symbols=", part)
        return bool(lines)

    wait_until(logged, 5, f"a log line with {part}")
    assert len(lines) == 1, lines
    return lines[0]


def is_refused_as(case: Case, site: Site, answer: Answer) -> None:
    """The reply, and what tells of it."""
    if case.stage == "xclient":
        # In place of the greeting Postfix says what it likes, and closes; ours goes to its log.
        own = {"554": "mx.test ESMTP not accepting connections", "421": "mx.test Service unavailable - try again later"}
        assert (answer.code, answer.text, answer.stage) == (int(case.reply[:3]), own[case.reply[:3]], "xclient")
        reply, reference = own_words(site, case.client.addr)
    else:
        reply, reference = without_reference(answer)
    assert (reply, answer.stage) == (case.reply, case.stage)
    if case.stage != "rcpt":  # one refused recipient is no transaction
        assert re.search(rf"symbols=\S*\b{case.symbol}\(| because={case.symbol} ", line_of(site, reference))


def check_case(site: Site, case: Case, marker: str) -> None:
    """It becomes of the client what the case says."""
    before = site.daemon.metrics()
    answer = send(site, case.client, marker)
    found = site.daemon.metrics().increase(before, "authmilter_findings_total", symbol=case.symbol)
    fires = bool(case.reply) if case.fires is None else case.fires
    if case.reply:
        is_refused_as(case, site, answer)
    else:
        assert answer.accepted, answer
        queue_id = answer.text.rpartition(" ")[2]
        assert (f"{case.symbol}(" in line_of(site, f"queue_id={queue_id} ")) is fires
    if not case.symbol.startswith("iprev_"):  # a result
        assert found == fires


@pytest.mark.parametrize("guarded", [NATIVE], indirect=True, ids=str, scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_check_through_postfix(guarded: Site, case: Case, marker: str) -> None:
    check_case(guarded, case, marker)


@pytest.mark.parametrize("guarded", [LIBMILTER], indirect=True, ids=str, scope="module")
@pytest.mark.parametrize("case", [case for case in CASES if case.core], ids=str)
def test_some_checks_through_libmilter_and_postfix(guarded: Site, case: Case, marker: str) -> None:
    check_case(guarded, case, marker)


@pytest.mark.parametrize("guarded", [NATIVE, LIBMILTER], indirect=True, ids=str, scope="module")
def test_a_client_has_only_so_many_connections_at_once(guarded: Site, marker: str) -> None:
    client = host(246)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(guarded.postfix.smtp(client.addr, client.name, client.helo))
        assert send(guarded, client, marker).code == 421
        words = "421 4.7.0 Too many connections from 198.51.100.246 at once, please close some of them first"
        assert own_words(guarded, client.addr)[0] == words
        assert send(guarded, host(247), marker).accepted, "others come in"
    # Those that ended make room, once the daemon has heard of it.
    wait_until(lambda: send(guarded, client, marker).accepted, 5, "room for another")


@pytest.mark.parametrize("guarded", [NATIVE, LIBMILTER], indirect=True, ids=str, scope="module")
def test_a_client_has_only_so_many_connections_in_a_time(guarded: Site, marker: str) -> None:
    client = host(248)
    answers = [send(guarded, client, f"{marker}{number}") for number in range(7)]
    assert [answer.code for answer in answers] == [250] * 6 + [421]
    words = re.sub(r"in 3[56]\d\d seconds", "in ... seconds", own_words(guarded, client.addr)[0])
    assert words == "421 4.7.0 Too many connections from 198.51.100.248, please try again in ... seconds"
    assert send(guarded, host(249), marker).accepted, "others come in"


def reloaded(site: Site, changes: Configuration) -> AbstractContextManager[None]:
    """The site under another configuration while the block runs."""

    @contextmanager
    def change() -> Iterator[None]:
        common: Configuration = {section: site.configuration[section] for section in ("milter", "dns")}
        site.daemon.configure({**common, **changes})
        site.daemon.reload()
        try:
            yield
        finally:
            site.daemon.configure(site.configuration)
            site.daemon.reload()

    return change()


STRICT = [
    (clean(helo="mx.test"), "mail", f"550 5.7.1 HELO mx.test is our name; {OWN_NAME}"),
    (
        clean(mail_from="a@nullmx.example"),
        "mail",
        f"550 5.7.27 Sender domain nullmx.example accepts no mail (null MX), {REMEDY}",
    ),
    (clean(mail_from="a@missing.example"), "mail", f"550 5.1.8 Sender domain missing.example does not exist, {REMEDY}"),
    (
        clean(mail_from="", rcpts=("one@test", "two@test")),
        "rcpt",
        "550 5.7.1 Mail from the null reverse-path can't have several recipients",
    ),
]


@pytest.mark.parametrize("guarded", [NATIVE], indirect=True, ids=str, scope="module")
def test_what_the_strict_preset_refuses_by_itself(guarded: Site, marker: str) -> None:
    with reloaded(guarded, {"policy": {"preset": "strict"}}):
        for client, stage, reply in STRICT:
            answer = send(guarded, client, marker)
            assert (without_reference(answer)[0], answer.stage) == (reply, stage)
        assert send(guarded, clean(), marker).accepted


@pytest.mark.parametrize("guarded", [NATIVE], indirect=True, ids=str, scope="module")
def test_an_empty_configuration_refuses_nothing_of_that_before_the_message(guarded: Site, marker: str) -> None:
    with reloaded(guarded, {}):
        for number, (client, _, _) in enumerate(STRICT):
            assert send(guarded, client, f"{number}{marker}").accepted
        # No reverse DNS, a HELO name that is not there, a sender domain without MX and address, a message that no server
        # has received before: poor, but no spam.
        poor = host(228, helo="mail.missing.example", mail_from="a@textonly.example")
        assert send(guarded, poor, f"poor{marker}").accepted
    (score,) = guarded.sink.find(b"poor" + marker.encode()).values(b"X-Spam-Score")
    assert float(score) <= 1.3


@pytest.mark.parametrize("guarded", [NATIVE, LIBMILTER], indirect=True, ids=str, scope="module")
def test_each_recipient_is_judged_by_the_policy_of_his_own_domain(guarded: Site, marker: str) -> None:
    mail_from = "a@nullmx.example"
    text = message(marker, "a@clean.example")
    with reloaded(guarded, {**SETTINGS, "scores lenient.test": {"sender_null_mx": 0}}):
        client = clean()
        with guarded.postfix.smtp(client.addr, client.name, client.helo) as smtp:
            assert smtp.docmd("MAIL", f"FROM:<{mail_from}>")[0] == 250
            code, reply = smtp.docmd("RCPT", "TO:<user@test>")
            expected = f"550 5.7.27 Sender domain nullmx.example accepts no mail (null MX), {REMEDY}"
            assert without_reference(Answer(code, reply.decode(), "rcpt"))[0] == expected
            assert smtp.docmd("RCPT", "TO:<user@lenient.test>")[0] == 250
            assert smtp.docmd("DATA")[0] == 354
            assert smtp.finish(text)[0] == 250
    assert guarded.sink.find(marker.encode()).rcpt_tos == ("user@lenient.test",)


@pytest.mark.parametrize("guarded", [NATIVE, LIBMILTER], indirect=True, ids=str, scope="module")
def test_a_refusal_holds_for_what_it_is_about_and_no_longer(guarded: Site, marker: str) -> None:
    text = message(marker, "a@clean.example")
    client, listed = clean(), host(241)
    with guarded.postfix.smtp(client.addr, client.name, client.helo) as smtp:
        assert smtp.deliver(text, "a@nullmx.example").code == 550
        assert smtp.deliver(text, "a@clean.example", ["trap@test"]).code == 550
        assert smtp.deliver(text, "a@clean.example").accepted, "another message of the same session"
    with guarded.postfix.smtp(listed.addr, listed.name, listed.helo) as smtp:
        for _ in range(2):
            assert "listed by zen.example" in smtp.deliver(text, "a@clean.example").text, "the client is the same"
    guarded.sink.find(marker.encode())


# -- checks that remember -----------------------------------------------------------------------------------------------


def remembering(folder: Path) -> Settings:
    """The settings of the site that remembers; alarms add a line to a file in `folder`."""
    hook = folder / "hook"
    hook.write_text(f'#!/bin/sh\necho "$AUTHMILTER_EVENT|$AUTHMILTER_SUBJECT|$AUTHMILTER_TEXT" >> {folder}/alarms\n')
    hook.chmod(0o755)
    return {
        "identity": {"local_domains": "test"},
        "networks": {"internal": "192.0.2.250"},  # who comes from loopback is a stranger here
        "greylist": {"enabled": "yes", "delay": "1s"},
        "correspondents": {"enabled": "yes"},
        "sender_rate": {"messages": "3/1h", "exempt": "clean.example, elsewhere.example"},
        "outbound_limits": {
            "login_messages": "3/1h",
            "login_recipients": "8/1d",
            "domain_messages": "5/1h",
            "client_messages": "4/1m",
            "recipients_per_message": 5,
        },
        "alarm": {"command": hook},
    }


@pytest.fixture(scope="module", params=[NATIVE, LIBMILTER], ids=str)
def remembering_site(
    request: pytest.FixtureRequest,
    one_sink: Sink,
    keys: KeyFiles,
    heuristic_dns: DNSServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """A site whose checks remember earlier mail."""
    variant: Variant = request.param
    settings = remembering(tmp_path_factory.mktemp("alarms"))
    with running(variant, one_sink, configuration(variant, keys, heuristic_dns.address, settings)) as site:
        yield site
        without_errors(site)


def stranger(number: int, **changes: object) -> Client:
    """A client in doubt, in a network of its own."""
    return replace(Client(f"203.0.{number}.7", "", "elsewhere.example", "a@elsewhere.example"), **changes)  # type: ignore[arg-type]


NO_NAME = "(client has no reverse DNS)"


def test_a_stranger_is_greylisted_and_passes_when_he_comes_again(remembering_site: Site, marker: str) -> None:
    site, client = remembering_site, stranger(113)
    first = time.monotonic()
    answer = send(site, client, marker)
    assert (without_reference(answer)[0], answer.stage) == (
        f"451 4.7.1 Greylisted, please try again in 1 second {NO_NAME}",
        "rcpt",
    )
    early = send(site, client, marker)
    if time.monotonic() < first + 0.9:  # the delay, but for what a busy machine takes
        assert (early.code, early.stage) == (451, "rcpt"), early
    time.sleep(1.1)
    assert send(site, client, marker).accepted
    assert send(site, replace(client, rcpts=("other@test",)), "second" + marker).accepted, "his network is known now"
    another = send(site, stranger(114), marker)
    assert (another.code, another.stage) == (451, "rcpt"), "each network waits for itself"


def test_who_is_not_in_doubt_is_not_greylisted(remembering_site: Site, marker: str) -> None:
    assert send(remembering_site, clean(), marker).accepted


def test_mail_to_postmaster_is_not_greylisted(remembering_site: Site, marker: str) -> None:
    assert send(remembering_site, stranger(115, rcpts=("postmaster@test",)), marker).accepted


def test_a_bounce_is_greylisted_at_data(remembering_site: Site, marker: str) -> None:
    client = stranger(116, mail_from="")
    answer = send(remembering_site, client, marker)
    assert (without_reference(answer)[0], answer.stage) == (
        f"451 4.7.1 Greylisted, please try again in 1 second {NO_NAME}",
        "data",
    )
    time.sleep(1.1)
    assert send(remembering_site, client, marker).accepted


def test_a_queueing_server_is_greylisted_once_and_its_mail_arrives_by_itself(
    remembering_site: Site, marker: str
) -> None:
    """Another Postfix sends; it comes from 127.0.0.1, which has no name here."""
    settings = {
        "myhostname": "out.elsewhere.example",
        "queue_run_delay": "1s",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "2s",
    }
    with Postfix([], remembering_site.postfix.port, settings) as sender:
        sender.submit_locally(message(marker, "a@elsewhere.example"), "a@elsewhere.example", "user@test")
        delivery = remembering_site.sink.find(marker.encode(), 20)
        assert delivery.mail_from == "a@elsewhere.example"
        wait_until(lambda: not sender.queue(), 5, "an empty queue")
        statuses = re.findall(r"status=(\w+) \((.*)\)", sender.log())
    assert [status for status, _ in statuses[-1:]] == ["sent"]
    deferrals = [text for status, text in statuses if status == "deferred"]
    assert deferrals
    assert all("451 4.7.1 Greylisted, please try again in 1 second" in text for text in deferrals)


def submission(number: int, login: str, **changes: object) -> Client:
    """A user who logged in, from an address and under a domain of his own."""
    client = Client(f"203.0.{number}.9", "", "laptop", f"u@d{number}.example", ("x@clean.example",), login)
    return replace(client, **changes)  # type: ignore[arg-type]


def test_a_stolen_account_is_stopped_at_its_limit_while_others_send_on(remembering_site: Site, marker: str) -> None:
    site = remembering_site
    alarms = Path(str(site.configuration["alarm"]["command"])).with_name("alarms")
    before = site.daemon.metrics()
    answers = [send(site, submission(20 + number, "stolen"), marker) for number in range(5)]
    assert [answer.code for answer in answers] == [250] * 3 + [451] * 2
    for answer in answers[3:]:
        reply = re.sub(r"in 3[56]\d\d seconds$", "in ... seconds", without_reference(answer)[0])
        limit = "Limit of 3 messages per hour for this login is used up, try again in ... seconds"
        assert (reply, answer.stage) == (f"451 4.7.1 {limit}", "rcpt")
    assert send(site, submission(26, "STOLEN"), marker).code == 451, "another spelling of the same login"
    for login in ("alice", "bob"):
        assert send(site, submission(27, login), marker).accepted
    wait_until(alarms.exists, 5, "an alarm")
    text = "outbound_limit|login stolen|login stolen has used up its limit of 3 messages per hour\n"
    wait_until(lambda: alarms.read_text() == text, 5, "one alarm")
    after = site.daemon.metrics()
    assert after.increase(before, "authmilter_alarms_total", event="outbound_limit", outcome="success") == 1
    assert after.increase(before, "authmilter_findings_total", symbol="outbound_limit") == 3


def test_other_limits_of_outbound_mail(remembering_site: Site, marker: str) -> None:
    site = remembering_site

    def refusal(client: Client) -> tuple[str, str]:
        answer = send(site, client, marker)
        reply, _ = without_reference(answer)
        return re.sub(r"\bin \d+ seconds$", "in ... seconds", reply), answer.stage

    # All of one domain, from many clients.
    for number in range(5):
        assert send(site, submission(40 + number, f"d{number}", mail_from="u@busy.example"), marker).accepted
    text = "451 4.7.1 Limit of 5 messages per hour for busy.example is used up, try again in ... seconds"
    assert refusal(submission(46, "d9", mail_from="u@busy.example")) == (text, "rcpt")
    # All from one client, under many domains.
    for number in range(4):
        client = submission(50 + number, f"c{number}", addr="203.0.113.50")
        assert send(site, client, marker).accepted
    text = "451 4.7.1 Limit of 4 messages per minute for 203.0.113.50 is used up, try again in ... seconds"
    assert refusal(submission(56, "c9", addr="203.0.113.50")) == (text, "rcpt")
    # Recipients of one login, and of one message.
    five = tuple(f"x{number}@clean.example" for number in range(5))
    assert send(site, submission(60, "many", rcpts=five), marker).accepted
    text = "451 4.7.1 Limit of 8 recipients per day for this login is used up, try again in ... seconds"
    assert refusal(submission(61, "many", rcpts=five)) == (text, "rcpt")
    text = "452 4.5.3 Limit of 5 recipients per message, send to the others in another one"
    assert refusal(submission(62, "more", rcpts=(*five, "x5@clean.example"))) == (text, "rcpt")


def test_what_postfix_refuses_itself_uses_up_no_limit(remembering_site: Site, marker: str) -> None:
    """By default it applies its restrictions of senders at RCPT (smtpd_delay_reject), when it has shown us MAIL."""
    site = remembering_site
    for number in range(8):
        forged = submission(90, "mallory", mail_from="ceo@ours.example", rcpts=(f"x{number}@not-relayed.invalid",))
        answer = send(site, forged, marker)
        assert (answer.code, answer.stage) == (454, "rcpt"), answer
        assert "Relay access denied" in answer.text
    assert send(site, submission(91, "ceo", mail_from="ceo@ours.example"), marker).accepted
    assert send(site, submission(90, "mallory"), marker).accepted


def test_what_is_over_a_limit_is_held_where_that_is_wanted(remembering_site: Site, marker: str) -> None:
    site = remembering_site
    with reloaded(site, {**site.configuration, "scores": {"outbound_limit": "quarantine"}}):
        for number in range(5):
            assert send(site, submission(80 + number, "held"), f"{marker}{number}").accepted
        wait_until(lambda: len(site.postfix.queue()) == 2, 5, "two messages in the queue")
        assert {entry["queue_name"] for entry in site.postfix.queue()} == {"hold"}
    for number in range(3):
        site.sink.find(f"{marker}{number}".encode())


def test_mail_from_programs_of_the_machine_itself_has_no_limit(remembering_site: Site, marker: str) -> None:
    for number in range(6):
        remembering_site.postfix.submit_locally(message(f"{marker}{number}", "cron@test"), "cron@test", "root@test")
    for number in range(6):
        remembering_site.sink.find(f"{marker}{number}".encode())


def test_mail_of_one_domain_is_limited_and_that_of_others_is_not(remembering_site: Site, marker: str) -> None:
    site = remembering_site
    flood = clean(mail_from="a@flood.example")
    answers = [send(site, flood, marker) for _ in range(4)]
    assert [answer.code for answer in answers] == [250] * 3 + [451]
    text = "451 4.7.28 Too much mail from flood.example for now, please try again later"
    assert (without_reference(answers[3])[0], answers[3].stage) == (text, "data")
    assert send(site, clean(mail_from="a@calm.example"), marker).accepted


def test_who_a_user_wrote_to_is_known_when_he_writes_back(remembering_site: Site, marker: str) -> None:
    site = remembering_site
    friend = clean(mail_from="friend@clean.example", rcpts=("bob@test",))
    assert send(site, friend, "before" + marker).accepted
    assert send(site, submission(70, "bob", mail_from="bob@test", rcpts=("friend@clean.example",)), marker).accepted
    assert send(site, friend, "after" + marker).accepted
    before, after = (site.sink.find(word + marker.encode()).values(b"X-Spam-Status") for word in (b"before", b"after"))
    assert b"known_correspondent" not in before[0]
    assert b"known_correspondent=-2" in after[0]
