"""Clients that the administrator names."""

import time
from ipaddress import IPv4Address, ip_address

import pytest

from authmilter.check import all_checks
from authmilter.checks.access import Access, access
from authmilter.config import ini
from authmilter.config.option import Weighted
from authmilter.errors import ConfigError
from authmilter.evidence import Finding
from authmilter.model import Connection, Direction, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action, Verdict
from tests.checks.tools import computed, is_wanted, tools

CONFIG = """
[access]
accept = 192.0.2.7, mail.example.net, 2001:db8::/32
reject = 192.0.2.0/24
    .example.net
    bad.example.org
tempfail = 198.51.100.0/25, .slow.example.net
weights = 203.0.113.0/24 = 3.0, .good.example = -2, ::ffff:198.51.100.200, 203.0.113.8 = quarantine
"""

MAPPED = str(ip_address("::ffff:198.51.100.200"))  # written in one way up to Python 3.12, in another since


def found(address: str, name: str = "", config: str = CONFIG) -> list[Finding]:
    tx = Transaction(Connection(ip_address(address), name))
    return computed(access, tx, tools("access", config=config))


@pytest.mark.parametrize(
    ("address", "name", "symbol", "entry", "strength"),
    [
        pytest.param("192.0.2.8", "", "access_reject", "192.0.2.0/24", 1.0, id="a network"),
        pytest.param("192.0.2.7", "", "access_accept", "192.0.2.7", 1.0, id="an address goes before its network"),
        pytest.param("2001:db8::1", "", "access_accept", "2001:db8::/32", 1.0, id="an IPv6 network"),
        pytest.param("198.51.100.1", "", "access_tempfail", "198.51.100.0/25", 1.0, id="a network that is to wait"),
        pytest.param("203.0.113.1", "", "access_weight", "203.0.113.0/24", 3.0, id="a weight"),
        pytest.param("203.0.113.8", "", "access_quarantine", "203.0.113.8", 1.0, id="another action"),
        pytest.param("198.51.100.200", "", "access_weight", MAPPED, 1.0, id="a weight without a number"),
        pytest.param(
            "192.0.2.8", "mail.example.net", "access_reject", "192.0.2.0/24", 1.0, id="addresses before names"
        ),
        pytest.param("10.0.0.1", "mail.example.net", "access_accept", "mail.example.net", 1.0, id="the longest name"),
        pytest.param("10.0.0.1", "x.mail.example.net", "access_reject", ".example.net", 1.0, id="a subdomain"),
        pytest.param(
            "10.0.0.1", "example.net", "access_reject", ".example.net", 1.0, id="the domain with a dot itself"
        ),
        pytest.param("10.0.0.1", "A.Slow.Example.Net.", "access_tempfail", ".slow.example.net", 1.0, id="upper case"),
        pytest.param("10.0.0.1", "bad.example.org", "access_reject", "bad.example.org", 1.0, id="a name without dot"),
        pytest.param("10.0.0.1", "x.good.example", "access_weight", ".good.example", -2.0, id="a weight in favour"),
    ],
)
def test_who_is_in_a_list(address: str, name: str, symbol: str, entry: str, strength: float) -> None:
    assert found(address, name) == [Finding(symbol, f"[access] {entry}", strength)]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        pytest.param("198.51.100.128", "", id="an address behind a network"),
        pytest.param("10.0.0.1", "", id="no confirmed name"),
        pytest.param("10.0.0.1", "x.bad.example.org", id="below a name without dot"),
        pytest.param("10.0.0.1", "badexample.net", id="a name that ends alike"),
        pytest.param("10.0.0.1", "net", id="the domain above"),
        pytest.param("10.0.0.1", "." * 300, id="a name of dots"),
        pytest.param("2001:db9::1", "", id="an IPv6 address outside"),
    ],
)
def test_who_is_not(address: str, name: str) -> None:
    assert found(address, name) == []


def test_a_client_without_address_is_looked_up_by_name() -> None:
    tx = Transaction(Connection(None, "bad.example.org"))
    assert [f.symbol for f in computed(access, tx, tools("access", config=CONFIG))] == ["access_reject"]


def test_the_same_entry_in_all_options_accepts() -> None:
    same = "192.0.2.1, x.example"
    config = f"[access]\nweights = {same}\ntempfail = {same}\nreject = {same}\naccept = {same}\n"
    assert [f.symbol for f in found("192.0.2.1", config=config)] == ["access_accept"]
    assert [f.symbol for f in found("10.0.0.1", "x.example", config)] == ["access_accept"]


def test_the_check_is_off_where_nothing_is_configured() -> None:
    assert not is_wanted("access", "")
    assert not is_wanted("access", "[access]\nreject =\n")
    assert is_wanted("access", "[access]\nreject = 192.0.2.1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reject = 192.0.2.1/24", "did you mean '192.0.2.0/24'"),
        ("reject = 192.0.2.300", "is not an address or network"),
        ("accept = *.example.org", "did you mean '.example.org'"),
        ("tempfail = exa$mple.org", "is not a domain"),
        ("weights = 192.0.2.1 = much", "is neither a number nor one of"),
        ("weights = 192.0.2.1 = 1001", "is beyond 1000"),
        ("reject = fe80::1%eth0", "has a zone"),
    ],
)
def test_what_is_no_client_is_an_error_of_the_configuration(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"access") as error:
        ini.load(None, f"[access]\n{text}\n")
    assert message in str(error.value)


def test_entries_are_kept_in_their_normal_form() -> None:
    options = ini.load(
        None, "[access]\nreject = MAIL.Example.ORG, 2001:DB8:0::/32, 192.0.2.1/32\nweights = B.example=2\n"
    )
    assert options.of(Access).reject == ("mail.example.org", "2001:db8::/32", "192.0.2.1")
    assert options.of(Access).weights == (Weighted("b.example", 2.0),)


def judged(config: str, address: str, name: str = "", stage: Stage = Stage.CONNECT) -> tuple[Policy, Verdict]:
    loaded = ini.load(None, config)
    policy = Policy(loaded, tuple(c for c in all_checks() if c.enabled(loaded)))
    tx = Transaction(Connection(ip_address(address), name))
    findings = tuple((Stage.CONNECT, f) for f in computed(access, tx, tools("access", config=loaded)))
    return policy, policy.judge(tx._replace(findings=findings), stage, "am-1").verdict


def reply(verdict: Verdict) -> str:
    assert verdict.reply is not None
    return " ".join(map(str, verdict.reply))


def test_a_refused_client_hears_554() -> None:
    assert reply(judged(CONFIG, "192.0.2.8")[1]) == (
        "554 5.7.1 192.0.2.8 may not send mail here; please ask the postmaster if it should [am-1]"
    )


def test_a_deferred_client_hears_421() -> None:
    assert reply(judged(CONFIG, "198.51.100.1")[1]) == (
        "421 4.7.0 198.51.100.1 may not send mail here for now, please try again later [am-1]"
    )


def test_an_accepted_client_is_accepted_at_the_end() -> None:
    assert judged(CONFIG, "192.0.2.7")[1].action is Action.CONTINUE
    assert judged(CONFIG, "192.0.2.7", stage=Stage.EOM)[1].action is Action.ACCEPT


def test_a_weight_is_added() -> None:
    verdict = judged(CONFIG, "203.0.113.1", stage=Stage.EOM)[1]
    assert (verdict.action, verdict.score) == (Action.ACCEPT, 3.0)


def test_another_action_is_carried_out() -> None:
    assert judged(CONFIG, "203.0.113.8", stage=Stage.EOM)[1].action is Action.QUARANTINE


@pytest.mark.parametrize(
    ("option", "acts"),
    [
        ("reject = 192.0.2.1", True),
        ("tempfail = 192.0.2.1", True),
        ("weights = 192.0.2.1 = reject", True),
        ("accept = 192.0.2.1", False),
        ("weights = 192.0.2.1 = 3", False),
    ],
)
def test_clients_wait_for_an_answer_to_their_connection_only_where_it_may_be_a_refusal(option: str, acts: bool) -> None:
    policy, _ = judged(f"[access]\n{option}\n", "192.0.2.1")
    assert policy.acts_at(Stage.CONNECT, Direction.INBOUND) is acts


def test_scores_may_make_a_weight_of_a_refusal() -> None:
    _, verdict = judged(CONFIG + "[scores]\naccess_reject = 4.0\n", "192.0.2.8", stage=Stage.EOM)
    assert (verdict.action, verdict.score) == (Action.ACCEPT, 4.0)


def test_it_is_obeyed_under_observe() -> None:
    assert judged(CONFIG + "[policy]\npreset = observe\n", "192.0.2.8")[1].action is Action.REJECT


def test_a_search_among_ten_thousand_entries_takes_no_longer() -> None:
    networks = ", ".join(f"{IPv4Address(0x0A000000 + 256 * i)}/24" for i in range(10_000))
    names = ", ".join(f".d{i}.example" for i in range(10_000))
    options = ini.load(None, f"[access]\nreject = {networks}, {names}\n").of(Access)
    clients = [Connection(ip_address("192.0.2.1"), "a.b.c.d.example.org"), Connection(ip_address("10.1.2.3"))]
    assert options.rule_for(clients[0]) is None
    started = time.perf_counter()
    for _ in range(2000):
        for connection in clients:
            options.rule_for(connection)
    assert time.perf_counter() - started < 1.0


def test_the_tables_are_there_before_the_first_client() -> None:
    config = ini.load(None, "[access]\nreject = 192.0.2.1, .example.net\n")
    assert next(check for check in all_checks() if check.name == "access").enabled(config)
    assert {"networks", "names"} <= vars(config.of(Access)).keys()
