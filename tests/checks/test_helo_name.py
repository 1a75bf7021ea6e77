"""HELO names that can't be the client's."""

import random
from ipaddress import ip_address

import pytest

from authmilter.addresses import to_ascii_domain
from authmilter.check import all_checks
from authmilter.checks.helo_literal import helo_literal
from authmilter.checks.helo_name import helo_name
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.model import Connection, Direction, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action
from tests.checks.tools import computed, tools
from tests.test_session import Rig

CONFIG = "[identity]\nauthserv_id = auth.example.net\nlocal_domains = example.org, .example.com\n"


def greeting(helo: bytes, name: str = "") -> Transaction:
    connection = Connection(ip_address("192.0.2.1"), name, mta_name="MX.example.net")
    return Transaction(connection, helo=helo, helo_domain=to_ascii_domain(helo))


@pytest.mark.parametrize(
    ("helo", "name", "expected"),
    [
        pytest.param(b"mx.example.net", "", "helo_own_name", id="the name of the MTA"),
        pytest.param(b"MX.Example.Net", "", "helo_own_name", id="the same in upper case"),
        pytest.param(b"mx.example.net.", "", "helo_own_name", id="the same with a final dot"),
        pytest.param(b"auth.example.net", "", "helo_own_name", id="the authserv-id"),
        pytest.param(b"mx.example.net", "evil.example", "helo_own_name", id="the same from a client with another name"),
        pytest.param(b"mx.example.net", "mx.example.net", "", id="the same from whom the DNS knows by it"),
        pytest.param(b"example.org", "", "helo_local_domain", id="a local domain"),
        pytest.param(b"EXAMPLE.org", "x.example", "helo_local_domain", id="the same in upper case"),
        pytest.param(b"pc.example.com", "", "helo_local_domain", id="below a local domain with dot"),
        pytest.param(b"example.com", "", "helo_local_domain", id="a local domain with dot itself"),
        pytest.param(b"example.org", "gw.example.com", "", id="the same from a host of ours by the DNS"),
        pytest.param(b"mail.example.org", "", "", id="below a local domain without dot"),
        pytest.param(b"myexample.com", "", "", id="a name that only ends alike"),
        pytest.param(b"localhost", "", "helo_bare", id="localhost"),
        pytest.param(b"localhost.localdomain", "", "helo_bare", id="localhost.localdomain"),
        pytest.param(b"WIN-7F3K2", "", "helo_bare", id="a name without dot"),
        pytest.param(b"com", "", "helo_bare", id="a top-level domain"),
        pytest.param(b"", "", "helo_malformed", id="nothing"),
        pytest.param(b"192.0.2.1", "", "helo_malformed", id="an address without brackets"),
        pytest.param(b"2001:db8::1", "", "helo_malformed", id="an IPv6 address without brackets"),
        pytest.param(b"mail example.org", "", "helo_malformed", id="a blank"),
        pytest.param(b"mail..example.org", "", "helo_malformed", id="an empty label"),
        pytest.param(b"(mail).example.org", "", "helo_malformed", id="stray characters"),
        pytest.param(b"-mail.example.edu", "", "helo_malformed", id="a hyphen at its beginning"),
        pytest.param(b"mail.-a.example", "", "helo_malformed", id="a hyphen at the beginning of a label"),
        pytest.param(b"mail-.example.edu", "", "helo_malformed", id="a hyphen at the end of a label"),
        pytest.param(b"mail.example-", "", "helo_malformed", id="a hyphen at its end"),
        pytest.param(b"mail.example-.", "", "helo_malformed", id="the same before a final dot"),
        pytest.param(b"-", "", "helo_malformed", id="a hyphen alone"),
        pytest.param(b"pc-", "", "helo_malformed", id="a name without dot that ends with a hyphen"),
        pytest.param(b"mail-1--2.ex-ample.edu", "", "", id="hyphens between letters and digits"),
        pytest.param(b"a" * 64 + b".example.org", "", "helo_malformed", id="a label over 63 octets"),
        pytest.param(b"a." * 400, "", "helo_malformed", id="a name over 253 octets"),
        pytest.param("bücher.example".encode(), "", "helo_malformed", id="a U-label"),
        pytest.param(b"\xff\xfe.example", "", "helo_malformed", id="octets"),
        pytest.param(b"mail.example.edu", "", "", id="a good name"),
        pytest.param(b"xn--bcher-kva.example", "", "", id="an A-label"),
        pytest.param(b"mail_1.example.edu", "", "", id="an underscore"),
        pytest.param(b"[192.0.2.1]", "", "", id="an address literal, which has a check of its own"),
        pytest.param(b"[nonsense", "", "", id="a malformed literal, too"),
    ],
)
def test_names(helo: bytes, name: str, expected: str) -> None:
    found = computed(helo_name, greeting(helo, name), tools("helo_name", config=CONFIG))
    assert [finding.symbol for finding in found] == ([expected] if expected else [])


def test_without_configuration_only_the_form_and_the_name_of_the_mta_count() -> None:
    assert computed(helo_name, greeting(b"example.org"), tools("helo_name")) == []
    assert computed(helo_name, greeting(b"mx.example.net"), tools("helo_name")) == [
        Finding("helo_own_name", "mx.example.net")
    ]


def test_an_mta_that_gives_no_name_is_nobodys() -> None:
    tx = Transaction(Connection(ip_address("192.0.2.1")), helo=b"example.org", helo_domain="example.org")
    assert computed(helo_name, tx, tools("helo_name")) == []


def test_whatever_is_said_is_judged_by_one_check_at_most() -> None:
    chance = random.Random(7)
    given = tools("helo_name", config=CONFIG)
    for _ in range(5000):
        helo = bytes(chance.choices(b"[]IPv6:0129.-_aZ\x00\r\n \xff\xc3\xbc%", k=chance.randrange(40)))
        tx = greeting(helo)
        found = computed(helo_name, tx, given) + computed(helo_literal, tx, given)
        assert len(found) <= 1
        assert all(finding.detail.isascii() for finding in found)


def test_the_detail_is_printable_and_short() -> None:
    (finding,) = computed(helo_name, greeting(b"\xff\r\n" * 300), tools("helo_name"))
    assert finding.detail.isascii()
    assert len(finding.detail) <= 256


@pytest.mark.parametrize(
    ("helo", "reply"),
    [
        (b"mx.example.net", "550 5.7.1 HELO mx.example.net is our name; use the host name of your mail server [am-1]"),
        (b"a b", "501 5.5.4 HELO a b is no domain name (RFC 5321 section 4.1.2) [am-1]"),
        (b"example.org", ""),
        (b"localhost", ""),
    ],
)
def test_what_strict_refuses_at_mail(helo: bytes, reply: str) -> None:
    config = ini.load(None, CONFIG + "[policy]\npreset = strict\n")
    policy = Policy(config, tuple(c for c in all_checks() if c.enabled(config)))
    tx = greeting(helo)
    findings = tuple((Stage.HELO, finding) for finding in computed(helo_name, tx, tools("helo_name", config=config)))
    assert findings
    verdict = policy.judge(tx._replace(findings=findings), Stage.MAIL, "am-1").verdict
    assert (" ".join(map(str, verdict.reply)) if verdict.reply else "") == reply


def test_no_client_waits_for_an_answer_before_mail_and_balanced_refuses_nothing() -> None:
    mine = ("generic_rdns", "helo_literal", "helo_literal_address", "helo_name", "helo_dns")
    for preset in ("observe", "balanced", "strict"):
        config = ini.load(None, f"[policy]\npreset = {preset}\n")
        policy = Policy(config, tuple(c for c in all_checks() if c.name in mine))
        assert not policy.acts_at(Stage.CONNECT, Direction.INBOUND)
        assert not policy.acts_at(Stage.HELO, Direction.INBOUND)
    for check in all_checks():
        if check.name in mine:
            # helo_literal has always been refused at HELO by whoever asked for it.
            assert check.judged is (Stage.HELO if check.name == "helo_literal" else Stage.MAIL)
            assert not any(isinstance(weight, Action) for weight in check.scores.values())


async def test_a_user_who_logs_in_is_not_judged_by_his_greeting() -> None:
    rig = Rig(config=ini.load(None, CONFIG + "[policy]\npreset = strict\n"))
    refused = await rig.play(helo="mx.test")
    assert refused.reply is not None
    assert refused.reply.text.startswith("HELO mx.test is our name")
    allowed = await rig.play(helo="mx.test", macros={b"{auth_authen}": b"alice"})
    assert allowed.action is Action.ACCEPT
