"""The check: what it says, and when it keeps silent."""

from pathlib import Path

import pytest

from authmilter.check import all_checks
from authmilter.checks.classifier import classifier
from authmilter.classifier import table
from authmilter.classifier.features import features
from authmilter.classifier.training import Example, train
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.model import Transaction
from tests.checks.tools import NOW, computed, tools
from tests.classifier.mail import message


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "table"
    learned = [Example(sorted(features(message(n, spam))), spam) for n in range(250) for spam in (False, True)]
    trained = train(learned)
    table.write(path, trained.weights, bias=trained.bias, curve=trained.curve, ham=250, spam=250)
    return path


_clock = iter(range(10_000))


def judged(path: Path, number: int, spam: bool, **options: int) -> list[Finding]:
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    given = tools("classifier", config=f"[classifier]\ntable = {path}\n{lines}", now=NOW + 10 * next(_clock))
    return computed(classifier, Transaction(message=message(number, spam, "new")), given)


@pytest.mark.parametrize(("spam", "symbol"), [(True, "bayes_spam"), (False, "bayes_ham")])
def test_it_says_what_it_learned(site: Path, spam: bool, symbol: str) -> None:
    findings = [judged(site, number, spam, enough_ham=250) for number in range(30)]
    found = [one for of_message in findings for one in of_message]
    assert {one.symbol for one in found} == {symbol}
    assert len(found) >= 29
    assert all(0 < one.strength <= 1 for one in found)
    assert max(one.strength for one in found) == 1
    assert "log-odds" in found[0].detail


def test_its_strength_has_a_limit_until_it_has_seen_enough_ham(site: Path) -> None:
    strengths = [one.strength for number in range(30) for one in judged(site, number, True)]
    assert max(strengths) == 0.25  # 250 of 1000


@pytest.mark.parametrize("option", ["minimum_ham", "minimum_spam"])
def test_it_says_nothing_before_it_has_learned_enough(site: Path, option: str) -> None:
    assert judged(site, 0, True, **{option: 250})
    assert not judged(site, 0, True, **{option: 251})


def test_it_says_nothing_without_a_table_or_with_a_broken_one(site: Path, tmp_path: Path) -> None:
    assert not judged(tmp_path / "none", 0, True)
    (tmp_path / "broken").write_bytes(site.read_bytes()[:-4])
    assert not judged(tmp_path / "broken", 0, True)


def test_it_can_neither_mark_nor_reject_alone() -> None:
    own = next(one for one in all_checks() if one.name == "classifier")
    config = ini.load(None, "")
    weight = own.scores["bayes_spam"]
    assert isinstance(weight, float)
    assert config.policy.tag is not None
    assert weight < config.policy.tag
    assert not own.strict
