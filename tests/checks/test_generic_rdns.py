"""Names that providers make."""

import random
import time
from ipaddress import ip_address

import pytest

from authmilter.check import all_checks
from authmilter.checks.generic_rdns import generic_rdns, is_generic
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.model import Connection, Stage, Transaction
from authmilter.policy import Policy
from tests.checks.tools import computed, tools

FOUR = "203.0.113.77"
SIX = "2001:db8:aa:bb::c0de"
ADDRESS, WORD, NOT = "holds the address", "holds the word", ""


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        # the address in the name
        ("203-0-113-77.isp.example", FOUR, ADDRESS),
        ("203.0.113.77.isp.example", FOUR, ADDRESS),
        ("host-203-0-113-77.isp.example", FOUR, ADDRESS),
        ("host203_0_113_77.isp.example", FOUR, ADDRESS),
        ("77.113.0.203.isp.example", FOUR, ADDRESS),
        ("77-113-0-203.isp.example", FOUR, ADDRESS),
        ("113-77-203-0.isp.example", FOUR, ADDRESS),
        ("c-203-0-113-77.hsd1.ma.isp.example", FOUR, ADDRESS),
        ("ec2-203-0-113-77.compute-1.cloud.example", FOUR, ADDRESS),
        ("static.77.113.0.203.clients.hoster.example", FOUR, ADDRESS),
        ("static-203-0-113-77.isp.example", FOUR, ADDRESS),
        ("203-0-113-77.static.isp.example", FOUR, ADDRESS),
        ("77.113.0.203.bc.cloud.example", FOUR, ADDRESS),
        ("203-0-113-77.ip.hoster.example", FOUR, ADDRESS),
        ("ns3012345.ip-203-0-113.hoster.example", FOUR, ADDRESS),
        ("ns1.ip-203-0-113.example", FOUR, ADDRESS),
        ("ip203.113.77.isp.example", FOUR, ADDRESS),
        ("77.ip-0-113.isp.example", FOUR, ADDRESS),
        ("203000113077.isp.example", FOUR, ADDRESS),
        ("077113000203.isp.example", FOUR, ADDRESS),
        ("h000113077.isp.example", FOUR, ADDRESS),
        ("x2030113077y.isp.example", FOUR, NOT),
        ("x203011377y.isp.example", FOUR, ADDRESS),
        ("pcb00714d.dip0.isp.example", FOUR, ADDRESS),
        ("PCB00714D.isp.example", FOUR, ADDRESS),
        ("cb-00-71-4d.isp.example", FOUR, ADDRESS),
        ("4d7100cb.isp.example", FOUR, ADDRESS),
        ("3405803853.isp.example", FOUR, ADDRESS),
        ("203.0.113.77.static.isp.co.example", FOUR, ADDRESS),
        ("203-0-113-77.isp.example.", FOUR, ADDRESS),
        ("203-0-113-77.isp.example", "::ffff:203.0.113.77", ADDRESS),
        ("20010db800aa00bb000000000000c0de.isp.example", SIX, ADDRESS),
        ("2001-0db8-00aa-00bb-0000-0000-0000-c0de.isp.example", SIX, ADDRESS),
        ("2001-db8-aa-bb--c0de.isp.example", SIX, ADDRESS),
        ("2001-db8-aa-bb-0-0-0-c0de.isp.example", SIX, ADDRESS),
        ("node-2001-db8-aa-bb.isp.example", SIX, ADDRESS),
        ("e.d.0.c.0.0.0.0.0.0.0.0.0.0.0.0.b.b.0.0.a.a.0.0.8.b.d.0.1.0.0.2.isp.example", SIX, ADDRESS),
        ("p20010db800aa00bb.dip0.isp.example", SIX, ADDRESS),
        ("0211-22ff-fe33-4455.isp.example", "2001:db8::211:22ff:fe33:4455", ADDRESS),
        ("211-22ff-fe33-4455.isp.example", "2001:db8::211:22ff:fe33:4455", ADDRESS),
        ("h021122fffe334455.isp.example", "2001:db8::211:22ff:fe33:4455", ADDRESS),
        # words for a home line, beside a number
        ("pool-12-34.isp.example", FOUR, WORD),
        ("dsl-4711.isp.example", FOUR, WORD),
        ("abc123.adsl.isp.example", FOUR, WORD),
        ("dyn17.isp.example", FOUR, WORD),
        ("h12.dynamic.isp.example", FOUR, WORD),
        ("dhcp-0042.campus.example", FOUR, WORD),
        ("cpe-00aabbccddee.isp.example", FOUR, WORD),
        ("ppp5.dialup.isp.example", FOUR, WORD),
        ("c99.cable.isp.example", FOUR, WORD),
        ("ftth-9.isp.example", FOUR, WORD),
        ("m113-77.mobile.isp.example", FOUR, WORD),
        ("u8.broadband.isp.example", None, WORD),
        ("77-113.dynamicip.isp.example", FOUR, WORD),
        # servers
        ("mail.example.org", FOUR, NOT),
        ("mx1.example.org", FOUR, NOT),
        ("mx203-0-113-77.example.org", FOUR, NOT),
        ("203-0-113-77.mail-mail.social.example", FOUR, NOT),
        ("a113-77.smtp-out.cloud.example", FOUR, NOT),
        ("mail-sor-f41.example.com", FOUR, NOT),
        ("mail-db8aabb0700c0de.outbound.protection.example.com", SIX, NOT),
        ("smtp14-ia4-sp3.mta.example.com", FOUR, NOT),
        ("o113.ptr77.sender.example", FOUR, NOT),
        ("m113-77.sender.example", FOUR, NOT),
        ("sonic301-20.consmr.mail.ne1.example.com", FOUR, NOT),
        ("mta-203-0-113-77.newsletter.example", FOUR, NOT),
        ("dsl-mail7.isp.example", FOUR, NOT),
        ("relay5.pool.example.net", FOUR, NOT),
        ("webmail3.dyn.example.net", FOUR, NOT),
        ("static-4711.dsl.isp.example", FOUR, NOT),
        ("h7.fixed.cable.isp.example", FOUR, NOT),
        ("server77.example.org", FOUR, NOT),
        ("www.example.org", FOUR, NOT),
        ("pool.example.org", FOUR, NOT),
        ("dynamic.example.co.example", FOUR, NOT),
        ("dynamics12.example.org", FOUR, NOT),
        ("mycable12.example", FOUR, NOT),
        ("dsl77.example", FOUR, NOT),
        ("example.org", FOUR, NOT),
        ("org", FOUR, NOT),
        ("", FOUR, NOT),
        ("...", FOUR, NOT),
        ("rack1-2.site0.example.org", "192.0.2.1", NOT),
        ("rack1-2.site0-192.example.org", "192.0.2.1", ADDRESS),
        ("node0.example.org", "::", NOT),
        ("x0-0-0-0.a--1.example.org", "::1", NOT),
        ("db8-1.example.org", "2001:db8::1", NOT),
        ("a.b.c.d.e.f.example.org", FOUR, NOT),
    ],
)
def test_names(name: str, address: str | None, expected: str) -> None:
    reason = is_generic(name, None if address is None else ip_address(address))
    assert reason.startswith(expected) if expected else not reason


def test_the_check_names_the_reason() -> None:
    tx = Transaction(Connection(ip_address(FOUR), "dsl-4711.isp.example"))
    assert computed(generic_rdns, tx, tools()) == [Finding("generic_rdns", "dsl-4711.isp.example holds the word dsl")]


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param(Connection(ip_address(FOUR), ""), id="a client without confirmed name"),
        pytest.param(Connection(ip_address(FOUR), "mail.example.org"), id="a mail server"),
        pytest.param(Connection(), id="a client of whom nothing is known"),
    ],
)
def test_the_check_is_silent_about(connection: Connection) -> None:
    assert computed(generic_rdns, Transaction(connection), tools()) == []


def test_hostile_names_take_no_time_and_raise_nothing() -> None:
    chance = random.Random(5)
    names = ["a" * 10**6, "1-" * 10**6, "." * 10**6, "9" * 10**6, "dsl" * 10**6, "\u0660-\u0661.\ud800.dsl.example.org"]
    names += ["".join(chance.choices("adsl0123456789.-_:\x00\xe9", k=300)) for _ in range(2000)]
    started = time.perf_counter()
    for name in names:
        for address in (FOUR, SIX):
            is_generic(name, ip_address(address))
    assert time.perf_counter() - started < 2.0


def test_the_reply() -> None:
    config = ini.load(None, "[scores]\ngeneric_rdns = reject\n")
    policy = Policy(config, tuple(check for check in all_checks() if check.name == "generic_rdns"))
    tx = Transaction(Connection(ip_address(FOUR), "dsl-4711.isp.example"))
    tx = tx._replace(findings=tuple((Stage.CONNECT, finding) for finding in computed(generic_rdns, tx, tools())))
    assert policy.judge(tx, Stage.CONNECT, "am-1").verdict.reply is None  # the client may yet log in
    assert policy.judge(tx, Stage.MAIL, "am-1").verdict.reply == (
        550,
        "5.7.25",
        "The name of 203.0.113.77 looks like one of a home line or pool; give your mail server a name of its own [am-1]",
    )
