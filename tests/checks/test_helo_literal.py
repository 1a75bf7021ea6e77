"""HELO with an address literal."""

from ipaddress import ip_address

import pytest

from authmilter.check import all_checks
from authmilter.checks.helo_literal import helo_literal, helo_literal_address, literal_address
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.model import Connection, Envelope, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action
from tests.checks.tools import computed, tools

FOREIGN = {"helo_literal": 1.5}
MALFORMED = {"helo_literal": 1.5, "helo_literal_malformed": 0.5}
CONFIG = "[networks]\ninternal = 127.0.0.0/8, 10.0.0.0/8, 198.51.100.0/24\ntrusted_relays = 2001:db8:5::/48\n"


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        (b"[192.0.2.1]", "192.0.2.1"),
        (b"[192.000.002.001]", "192.0.2.1"),
        (b"[255.255.255.255]", "255.255.255.255"),
        (b"[IPv6:2001:db8::1]", "2001:db8::1"),
        (b"[ipv6:2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
        (b"[IPv6:::ffff:192.0.2.1]", "192.0.2.1"),
        (b"[IPv6:::1]", "::1"),
        (b"[IPv6:::ffff:192.000.002.001]", "192.0.2.1"),
        (b"[IPv6:2001:db8::192.000.002.001]", "2001:db8::c000:201"),
        (b"[IPv6:0:0:0:0:0:0:13.1.68.3]", "::d01:4403"),
        (b"[IPv6:::192.0.2.256]", None),
        (b"[IPv6:::]", "::"),
        (b"[IPv6:]", None),
        (b"[IPv6:1]", None),
        (b"[]", None),
        (b"[", None),
        (b"192.0.2.1", None),
        (b"[192.0.2.1", None),
        (b"[192.0.2]", None),
        (b"[192.0.2.256]", None),
        (b"[192.0.2.1.5]", None),
        (b"[192.0.2.0001]", None),
        (b"[192.0.2.-1]", None),
        (b"[192.0.2.\xb2]", None),
        (b"[ 192.0.2.1]", None),
        (b"[2001:db8::1]", None),
        (b"[IPv6:192.0.2.1]", None),
        (b"[IPv6:fe80::1%eth0]", None),
        (b"[IPv6:2001:db8::1::2]", None),
        (b"[X-Tag:abc]", None),
        (b"[mail.example.org]", None),
        (b"[" + b"1" * 5000 + b".0.0.1]", None),
    ],
)
def test_literals(literal: bytes, address: str | None) -> None:
    assert literal_address(literal) == (address and ip_address(address))


@pytest.mark.parametrize(
    ("helo", "client", "expected"),
    [
        pytest.param(b"[192.0.2.1]", "192.0.2.1", {"helo_literal": 1.5}, id="its own"),
        pytest.param(b"[IPv6:2001:db8::1]", "2001:db8::1", {"helo_literal": 1.5}, id="its own of IPv6"),
        pytest.param(b"[192.0.2.1]", None, {"helo_literal": 1.5}, id="a client of unknown address"),
        pytest.param(b"[192.0.2.2]", "192.0.2.1", {**FOREIGN, "helo_literal_foreign": 0.5}, id="another's"),
        pytest.param(b"[10.0.0.5]", "192.0.2.1", {**FOREIGN, "helo_literal_foreign": 0.5}, id="one that all have"),
        pytest.param(b"[127.0.0.1]", "192.0.2.1", {**FOREIGN, "helo_literal_foreign": 0.5}, id="loopback"),
        pytest.param(b"[198.51.100.9]", "192.0.2.1", {**FOREIGN, "helo_literal_foreign": 1.5}, id="one of ours"),
        pytest.param(
            b"[IPv6:2001:db8:5::9]", "192.0.2.1", {**FOREIGN, "helo_literal_foreign": 1.5}, id="one of our relays"
        ),
        pytest.param(b"[X-Tag:abc]", "192.0.2.1", FOREIGN, id="a literal of another kind"),
        pytest.param(
            b"[X-9:!\"#$%&'()*+,-./:;<=>?@^_`{|}~]", "192.0.2.1", FOREIGN, id="one with all sorts of characters"
        ),
        pytest.param(b"[X-Tag:" + b"a" * 248 + b"]", "192.0.2.1", MALFORMED, id="256 octets"),
        pytest.param(b"[2001:db8::1]", "2001:db8::1", MALFORMED, id="IPv6 without its tag"),
        pytest.param(b"[fe80::1%eth0]", "192.0.2.1", MALFORMED, id="IPv6 without its tag, but with a zone"),
        pytest.param(b"[mail.example.org]", "192.0.2.1", MALFORMED, id="a name in brackets"),
        pytest.param(b"[\xff\x00]", "192.0.2.1", MALFORMED, id="octets"),
        pytest.param(b"mail.example.org", "192.0.2.1", {}, id="a name"),
        pytest.param(b"", "192.0.2.1", {}, id="nothing"),
    ],
)
def test_the_checks(helo: bytes, client: str | None, expected: dict[str, float]) -> None:
    tx = Transaction(Connection(client and ip_address(client)), helo=helo)  # type: ignore[arg-type]
    given = tools(config=CONFIG)
    found = computed(helo_literal, tx, given) + computed(helo_literal_address, tx, given)
    scores = {symbol: weight for check in all_checks() for symbol, weight in check.scores.items()}
    assert {f.symbol: round(f.strength * float(scores[f.symbol]), 3) for f in found} == expected


def test_the_detail_is_printable_and_short() -> None:
    tx = Transaction(Connection(ip_address("192.0.2.1")), helo=b"[" + b"\xff\r\n" * 300)
    (finding,) = computed(helo_literal, tx, tools("helo_literal"))
    assert finding.detail.isascii()
    assert len(finding.detail) <= 256


def test_the_detail_says_whose_it_is_not() -> None:
    tx = Transaction(Connection(ip_address("192.0.2.1")), helo=b"[198.51.100.9]")
    assert computed(helo_literal_address, tx, tools(config=CONFIG)) == [
        Finding("helo_literal_foreign", "[198.51.100.9] is an address of ours, not 192.0.2.1", 3.0)
    ]


@pytest.mark.parametrize(("preset", "action"), [("balanced", Action.CONTINUE), ("strict", Action.REJECT)])
def test_strict_refuses_malformed_literals_at_mail(preset: str, action: Action) -> None:
    config = ini.load(None, f"[policy]\npreset = {preset}\n")
    policy = Policy(config, tuple(c for c in all_checks() if c.enabled(config)))
    tx = Transaction(Connection(ip_address("192.0.2.1")), helo=b"[192.0.2]", envelope=Envelope())
    findings = tuple((Stage.HELO, finding) for finding in computed(helo_literal_address, tx, tools()))
    assert policy.judge(tx, Stage.HELO, "am-1").verdict.action is Action.CONTINUE
    verdict = policy.judge(tx._replace(findings=findings), Stage.MAIL, "am-1").verdict
    assert verdict.action is action
    if verdict.reply:
        expected = "501 5.5.4 HELO [192.0.2] is no address literal (RFC 5321 section 4.1.3) [am-1]"
        assert " ".join(map(str, verdict.reply)) == expected
