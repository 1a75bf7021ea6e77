"""The check: what it says, and when it keeps silent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from authmilter.check import all_checks
from authmilter.checks.classifier import classifier, learn_by_itself, what_is_certain
from authmilter.classifier import spool, table
from authmilter.classifier.features import features
from authmilter.classifier.spool import Lesson, identity
from authmilter.classifier.training import Example, train
from authmilter.config import ini
from authmilter.errors import StoreError
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.policy import PRESETS, Policy
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action, Ruling
from tests.checks.tools import NOW, computed, tools
from tests.checks.visits import Sessions, ruling, visit
from tests.classifier.mail import message
from tests.fakes import FakeDNS


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
    assert {one.symbol for one in found} - {"bayes_sure"} == {symbol}
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


def test_it_says_nothing_without_a_table(tmp_path: Path) -> None:
    assert not judged(tmp_path / "none", 0, True)


def test_a_table_that_is_broken_is_told_once_and_counted_each_time(
    site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = tmp_path / "table"
    path.write_bytes(site.read_bytes()[:-4])
    for _ in range(3):
        with pytest.raises(StoreError, match="can't use"):
            judged(path, 0, True)
    path.write_bytes(site.read_bytes())
    for _ in range(3):
        assert judged(path, 0, True)
    path.unlink()
    assert not judged(path, 0, True)
    assert [record.getMessage() for record in caplog.records] == [
        f"the classifier says nothing: {path}: has {path_size(site) - 4} octets, not {path_size(site)}",
        f"{path}: learned from 250 ham and 250 spam",
    ]


def path_size(path: Path) -> int:
    return path.stat().st_size


async def test_a_broken_table_holds_no_mail_up(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"broken")
    sessions = Sessions(f"[classifier]\ntable = {tmp_path}/table\n", MemoryStore(), FakeDNS(), lambda: NOW)
    assert await sessions.play("192.0.2.1", "a@sender.example", "b@site.example") == "accept"
    assert "classifier_temperror" in sessions.found()


def test_what_is_far_beyond_surely_spam_has_a_symbol_of_its_own_from_enough_ham_on(site: Path) -> None:
    enough = [judged(site, number, True, enough_ham=250) for number in range(30)]
    found = [{one.symbol: one.strength for one in findings} for findings in enough]
    sure = [one for one in found if "bayes_sure" in one]
    assert sure
    assert all(one["bayes_spam"] == 1 and 0 < one["bayes_sure"] <= 1 for one in sure)
    fewer = [judged(site, number, True, enough_ham=251) for number in range(30)]
    assert {one.symbol for findings in fewer for one in findings} == {"bayes_spam"}


@pytest.mark.parametrize("preset", PRESETS)
def test_it_never_rejects_alone(preset: str) -> None:
    own = next(one for one in all_checks() if one.name == "classifier")
    rules = Policy(ini.load(None, f"[policy]\npreset = {preset}\n"), all_checks()).common
    assert not own.scores.keys() & rules.actions.keys()
    most = sum(weight for symbol in own.scores if (weight := rules.numbers.get(symbol, 0.0)) > 0)
    assert 0 < most < 8
    assert rules.reject is None or most < rules.reject / 1.5
    assert rules.quarantine is None


# -- learning by itself --------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"spf": "pass", "dmarc": "pass", "aligned": ["sender.example"]}
BY_SPF = ("reputation_good", "spf sender.example: 9.0 ham, 0.0 spam")
FRIEND = ("known_correspondent", "written to by site.example")
SPAMMY = (("links_odd", 7.0), ("header_odd", 5.5))


def certain(
    *scored: tuple[str, float], action: Action = Action.ACCEPT, found: Sequence[tuple[str, str]] = (), **how: Any
) -> bool | None:
    """What is thought of a message of these results and findings."""
    tx = visit(**how)
    tx = tx._replace(findings=tuple((Stage.EOM, Finding(*one)) for one in found))
    return what_is_certain(tx, ruling(action, *scored), ini.load(None, ""))


def test_ham_is_what_is_authentic_known_and_without_fault() -> None:
    assert certain(found=[FRIEND], **GOOD) is False
    assert certain(("known_correspondent", -2.0), ("date_odd", 0.4), found=[FRIEND], **GOOD) is False
    assert certain(("bayes_ham", -1.5), found=[BY_SPF, ("bayes_ham", "")], **GOOD) is False


@pytest.mark.parametrize(
    ("scored", "found", "how"),
    [
        pytest.param((), (), GOOD, id="nobody knows it"),
        pytest.param((), (FRIEND,), {"spf": "pass"}, id="no DMARC"),
        pytest.param((), (FRIEND,), {**GOOD, "dmarc": "fail"}, id="DMARC fails"),
        pytest.param((), (("reputation_good", "net 192.0.2.0/24: 9.0 ham, 0.0 spam"),), GOOD, id="a good network"),
        pytest.param((), (("reputation_good", "spf provider.example: 9.0 ham"),), GOOD, id="a good provider"),
        pytest.param((("date_odd", 0.6),), (FRIEND,), GOOD, id="something against it"),
        pytest.param((("date_odd", 0.6), ("known_correspondent", -2.0)), (FRIEND,), GOOD, id="who is known may not outweigh it"),
        pytest.param((("bayes_ham", -1.5), ("date_odd", 0.6)), (FRIEND,), GOOD, id="nor may the classifier"),
        pytest.param((("bayes_spam", 0.1),), (FRIEND, ("bayes_spam", "")), GOOD, id="spam, thinks the classifier"),
        pytest.param((), (FRIEND, ("dnsbl_one", "")), GOOD, id="listed"),
        pytest.param((), (FRIEND, ("spamtrap", "")), GOOD, id="to a spam trap"),
    ],
)  # fmt: skip
def test_what_is_no_certain_ham(
    scored: Sequence[tuple[str, float]], found: Sequence[tuple[str, str]], how: dict[str, Any]
) -> None:
    assert certain(*scored, found=found, **how) is None


def test_what_is_not_accepted_is_no_ham() -> None:
    assert certain(action=Action.TEMPFAIL, found=[FRIEND], **GOOD) is None


def test_spam_is_what_several_say() -> None:
    assert certain(*SPAMMY, action=Action.REJECT) is True
    assert certain(("bayes_spam", 4.5), *SPAMMY, action=Action.REJECT, found=[("bayes_spam", "")]) is True
    assert certain(("spamtrap", 8.0), action=Action.TAG, found=[("spamtrap", "x"), ("dnsbl_one", "")]) is True


@pytest.mark.parametrize(
    ("scored", "found", "how"),
    [
        pytest.param((("one", 20.0),), (), {}, id="one check alone"),
        pytest.param((("one", 7.0), ("bayes_spam", 4.5), ("bayes_sure", 2.0)), (), {}, id="the classifier decided"),
        pytest.param((("one", 7.0), ("reputation_bad", 5.0), ("two", 0.5)), (), {}, id="memory decided"),
        pytest.param(SPAMMY, (("bayes_ham", ""),), {}, id="ham, thinks the classifier"),
        pytest.param(SPAMMY, (FRIEND,), GOOD, id="a correspondent"),
        pytest.param((("spamtrap", 8.0),), (("spamtrap", "x"),), {}, id="a trap alone"),
        pytest.param((), (), {}, id="refused for something else"),
    ],
)
def test_what_is_no_certain_spam(
    scored: Sequence[tuple[str, float]], found: Sequence[tuple[str, str]], how: dict[str, Any]
) -> None:
    assert certain(*scored, action=Action.REJECT, found=found, **how) is None


async def left(folder: Path, tx: Transaction, what: Ruling | None, more: str = "auto_learn = yes\n") -> list[Lesson]:
    """What the record leaves for training."""
    given = tools("classifier", config=f"[classifier]\ntable = {folder}/table\n{more}")
    await learn_by_itself(tx, what, given)
    found = spool.take(folder / "table.spool") or []
    spool.drop(folder / "table.spool")
    return found


async def test_what_is_certain_is_left_for_training(tmp_path: Path) -> None:
    friend = visit(**GOOD)._replace(findings=((Stage.EOM, Finding(*FRIEND)),))
    (ham,) = await left(tmp_path, friend, ruling())
    assert (ham.spam, ham.identity) == (False, identity(friend.message))
    assert set(ham.features) == features(friend.message)
    assert len(ham.origin) == 8
    (other,) = await left(tmp_path, friend._replace(message=visit(author="jo@news.sender.example").message), ruling())
    assert other.origin == ham.origin  # a sender does not become many by making names below his own
    (spam,) = await left(tmp_path, visit(), ruling(Action.REJECT, *SPAMMY))
    assert spam.spam
    (near,) = await left(tmp_path, visit("192.0.2.99"), ruling(Action.REJECT, *SPAMMY))
    (far,) = await left(tmp_path, visit("198.51.100.7"), ruling(Action.REJECT, *SPAMMY))
    assert spam.origin == near.origin != far.origin


@pytest.mark.parametrize(
    ("tx", "what", "more"),
    [
        pytest.param(visit(), ruling(Action.REJECT, *SPAMMY), "", id="off, as it is by default"),
        pytest.param(visit(outbound=True), ruling(Action.REJECT, *SPAMMY), "auto_learn = yes\n", id="mail of ours"),
        pytest.param(visit(), None, "auto_learn = yes\n", id="the end of a session"),
        pytest.param(visit(refused_early=True), ruling(Action.REJECT, *SPAMMY), "auto_learn = yes\n", id="no content"),
        pytest.param(visit(""), ruling(Action.REJECT, *SPAMMY), "auto_learn = yes\n", id="from nobody"),
        pytest.param(visit(), ruling(), "auto_learn = yes\n", id="nothing certain"),
    ],
)
async def test_what_is_not_left(tmp_path: Path, tx: Transaction, what: Ruling | None, more: str) -> None:
    assert await left(tmp_path, tx, what, more) == []
    assert spool.take(tmp_path / "table.spool") is None


async def test_a_message_of_which_not_all_is_known_is_not_left(tmp_path: Path) -> None:
    whole = visit()
    cut = whole._replace(message=whole.message.with_body(10, {}, "", b"12345", body_cut=True))
    unkept = whole._replace(message=whole.message.with_body(10, {}, ""))
    for tx in (cut, unkept):
        assert await left(tmp_path, tx, ruling(Action.REJECT, *SPAMMY)) == []


async def test_where_it_can_not_be_left_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"table.spool: No such file"):
        await left(tmp_path / "none", visit(), ruling(Action.REJECT, *SPAMMY))


async def test_it_learns_in_a_session_what_a_spam_trap_and_a_list_agree_on(tmp_path: Path) -> None:
    config = (
        f"[classifier]\ntable = {tmp_path}/table\nauto_learn = yes\n"
        "[spamtraps]\naddresses = trap@site.example\n"
        "[dnsbl zen]\nzone = zen.example\n[scores]\nspamtrap = 1\n"
    )
    dns = FakeDNS({"7.2.0.192.zen.example A": ["127.0.0.2"]})
    sessions = Sessions(config, MemoryStore(), dns, lambda: NOW)
    for client, recipient, learned in (
        ("192.0.2.9", "trap@site.example", 0),
        ("192.0.2.7", "joe@site.example", 0),
        ("192.0.2.7", "trap@site.example", 1),
    ):
        await sessions.play(client, "a@sender.example", recipient)
        lessons = spool.take(tmp_path / "table.spool") or []
        assert [lesson.spam for lesson in lessons] == [True] * learned
