"""What becomes of a client that is on a list: symbols, weights, actions and words."""

from ipaddress import ip_address

import pytest

from authmilter.check import all_checks, is_dynamic, words_for
from authmilter.checks.dns_lists import blocklists, welcomelists
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.interfaces import Listing
from authmilter.model import Connection, Stage, Transaction
from authmilter.verdict import Action
from tests.checks.tools import FakeLists, awaited, is_wanted, tools

BOTH = "[dnsbl zen]\nzone = zen.example\n[dnswl good]\nzone = good.example\nscore = accept\n"
LISTED = FakeLists(
    {
        "192.0.2.1": [
            Listing("dnsbl_zen", "zen.example", "127.0.0.2"),
            Listing("dnsbl_zen_10", "zen.example", "127.0.0.10", "https://zen.example/192.0.2.1"),
            Listing("dnswl_good", "good.example", "127.0.5.2"),
        ]
    }
)


def client(address: str) -> Transaction:
    return Transaction(Connection(ip_address(address) if address else None))


@pytest.mark.parametrize(
    ("address", "bad", "good"),
    [
        (
            "192.0.2.1",
            [
                Finding("dnsbl_zen", "zen.example (127.0.0.2)"),
                Finding("dnsbl_zen_10", "zen.example (127.0.0.10), see https://zen.example/192.0.2.1"),
            ],
            [Finding("dnswl_good", "good.example (127.0.5.2)")],
        ),
        ("192.0.2.2", [], []),
        ("", [], []),
    ],
    ids=["listed", "not listed", "without an address"],
)
async def test_listings_become_findings(address: str, bad: list[Finding], good: list[Finding]) -> None:
    assert await awaited(blocklists, client(address), tools(lists=LISTED)) == bad
    assert await awaited(welcomelists, client(address), tools(lists=LISTED)) == good


def test_they_run_only_where_there_is_a_list() -> None:
    assert not is_wanted("blocklists", "")
    assert not is_wanted("welcomelists", "")
    assert is_wanted("blocklists", BOTH)
    assert is_wanted("welcomelists", BOTH)
    assert not is_wanted("blocklists", "[dnswl good]\nzone = good.example")


def test_symbols_are_those_of_the_configuration() -> None:
    config = ini.load(None, BOTH + "answers = 127.0.0.2 = -1")
    found = {c.name: dict(c.symbols(config)) for c in all_checks() if c.run in (blocklists, welcomelists)}
    assert found == {
        "blocklists": {"dnsbl_zen": 3.0},
        "welcomelists": {"dnswl_good": Action.ACCEPT, "dnswl_good_2": -1.0},
    }
    assert is_dynamic("dnsbl_anything")
    assert is_dynamic("dnswl_anything")


def test_nobody_is_refused_before_it_is_known_who_logs_in() -> None:
    for check in all_checks():
        if check.run in (blocklists, welcomelists):
            assert (check.stage, check.judged) == (Stage.CONNECT, Stage.MAIL)


@pytest.mark.parametrize("symbol", ["dnsbl_zen", "dnsbl_zen_10"])
def test_the_words_of_a_refusal(symbol: str) -> None:
    words = words_for(symbol)
    assert words is not None
    assert words.detail == "7.1"
    detail = "zen.example (127.0.0.10), see https://zen.example/192.0.2.1"
    assert words.text(client("192.0.2.1"), detail) == f"Client 192.0.2.1 is listed by {detail}"
