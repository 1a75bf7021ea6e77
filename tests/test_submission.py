"""Which addresses a login may put into From."""

from pathlib import Path

import pytest

from authmilter.addresses import author
from authmilter.config.schema import Config, Identity, Submission
from authmilter.errors import ConfigError
from authmilter.model import HeaderField, Message
from authmilter.submission import SenderMap, load

MAP = """
# grants
alice@example.org: info@example.org, @lists.example.org
bob:   Sales@Example.ORG
*:     noreply@example.org
joe:   "john doe"@example.org, "Desk"@example.org
"""


def senders(tmp_path: Path, rule: str) -> SenderMap:
    (tmp_path / "map").write_text(MAP)
    config = Config(
        identity=Identity(local_domains=("example.org", ".example.org")),
        submission=Submission(from_must_match=rule, map_file=str(tmp_path / "map")),  # type: ignore[arg-type]
    )
    return load(config)


def objection(rules: SenderMap, login: str, *values: str) -> str:
    fields = tuple(HeaderField(b"From", b" " + value.encode()) for value in values)
    return rules.objection(login, author(Message(fields)))


@pytest.mark.parametrize(
    ("rule", "login", "sender", "allowed"),
    [
        ("off", "alice@example.org", "ceo@bank.example", True),
        ("domain", "alice@example.org", "Bob <bob@example.org>", True),
        ("login", "joe", '"john doe"@example.org', True),
        ("login", "joe", "desk@example.org", True),
        ("login", "joe", '"desk"@example.org', True),
        ("login", "joe", "doe@example.org", False),
        ("domain", "alice@example.org", "bob@example.net", False),
        ("domain", "alice@example.org", "bob@sub.example.org", False),
        ("domain", "carol", "bob@example.org", True),
        ("domain", "carol", "bob@deep.example.org", True),
        ("domain", "carol", "bob@example.net", False),
        ("login", "alice@example.org", "Alice <Alice@Example.org>", True),
        ("login", "alice@example.org", "bob@example.org", False),
        ("login", "alice@example.org", "info@example.org", True),
        ("login", "alice@example.org", "any@lists.example.org", True),
        ("login", "alice@example.org", "sales@example.org", False),
        ("login", "alice@example.org", "noreply@example.org", True),
        ("login", "bob", "bob@example.org", True),
        ("login", "BOB", "sales@example.org", True),
        ("login", "bob", "bob@example.net", False),
        ("login", "alice@example.org", "alice@example.org, bob@example.org", False),
        ("login", "alice@example.org", "alice@example.org, info@example.org", True),
    ],
)
def test_rules(tmp_path: Path, rule: str, login: str, sender: str, allowed: bool) -> None:
    assert (objection(senders(tmp_path, rule), login, sender) == "") is allowed


def test_a_second_from_field_is_no_way_around(tmp_path: Path) -> None:
    rules = senders(tmp_path, "login")
    assert "2 From fields" in objection(rules, "alice@example.org", "alice@example.org", "ceo@example.org")
    assert "no From field" in objection(rules, "alice@example.org")


def test_two_addresses_are_held_against_the_login_one_by_one(tmp_path: Path) -> None:
    rules = senders(tmp_path, "login")
    assert objection(rules, "alice@example.org", "alice@example.org, ceo@bank.example")


def test_every_bad_line_of_the_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("alice info@example.org\nbob: \ncarol: no-address\ndave: d@example.org\n")
    with pytest.raises(ConfigError) as caught:
        load(Config(submission=Submission(map_file=str(tmp_path / "map"))))  # type: ignore[arg-type]
    assert [p.rpartition(": not")[0].rpartition(":")[2] for p in caught.value.problems] == ["1", "2", "3"]


def test_a_map_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load(Config(submission=Submission(map_file=str(tmp_path / "map"))))  # type: ignore[arg-type]
