"""How stored mail is played and counted."""

import random
from dataclasses import replace
from math import inf, log
from pathlib import Path

import pytest

from authmilter import evaluation
from authmilter.checks.classifier import Classifier
from authmilter.classifier.features import features
from authmilter.classifier.learned import Learned
from authmilter.classifier.spool import Lesson, identity
from authmilter.classifier.table import Opinion, Table
from authmilter.classifier.trainer import retrain
from authmilter.classifier.training import STEPS
from authmilter.config import ini
from authmilter.evaluation import Campaigns, Case, Found, Player
from authmilter.model import Message
from authmilter.stored_mail import message_of
from tests.classifier.mail import message


def case(score: float, spam: bool, *symbols: str, refused: bool = False) -> Case:
    return Case("", spam, tuple(Found(symbol, "", 1.0) for symbol in symbols), score, refused, ())


def mail(head: str, body: str = "hello\n") -> Message:
    found = message_of(f"{head}\n{body}".encode())
    assert found is not None
    return found


WHOLE = "From: a@example.org\nTo: b@example.net\nDate: Tue, 14 Nov 2023 22:00:00 +0000\nMessage-ID: <1@example.org>\n"


async def test_a_message_has_the_symbols_and_weights_of_the_configuration() -> None:
    config = ini.load(None, "[scores]\nsubject_capitals = 2.25\n")
    played = await Player(config).play(mail(WHOLE + "Subject: LAST WARNING\n"), True)
    assert ("subject_capitals", 2.25) in [(one.symbol, one.weight) for one in played.found]
    assert played.score == pytest.approx(sum(one.weight for one in played.found))
    assert (played.spam, played.refused, played.name) == (True, False, "LAST WARNING <1@example.org>")


async def test_the_clock_is_the_time_of_receipt() -> None:
    played = await Player(ini.load(None, "")).play(mail(WHOLE + "Subject: lunch\n"), False)
    assert not [one for one in played.found if one.symbol.startswith("date_")]


async def test_an_action_counts_as_refused_whatever_the_score() -> None:
    config = ini.load(None, "[scores]\nsubject_capitals = reject\n")
    played = await Player(config).play(mail(WHOLE + "Subject: LAST WARNING\n"), True)
    assert played.refused
    assert "subject_capitals" in [one.symbol for one in played.found]
    assert played.worth(5.0) == 5.0
    assert played.worth(inf) == inf
    assert [one.action for one in played.found if one.symbol == "subject_capitals"] == ["reject"]


async def test_a_tag_counts_as_its_threshold_and_no_more() -> None:
    config = ini.load(None, "[policy]\ntag = 3\nreject = 8\n[scores]\nsubject_capitals = tag\n")
    played = await Player(config).play(mail(WHOLE + "Subject: LAST WARNING\n"), True)
    assert (played.refused, played.worth(8.0)) == (False, 3.0)


def test_an_action_of_the_classifier_counts() -> None:
    rules = evaluation.rules_of(ini.load(None, "[scores]\nbayes_spam = quarantine\n"))
    found = Case("", True, (Found("bayes_spam", "", 0.0),), 0.0, False, ())
    assert evaluation.forced(found, rules).refused
    assert not evaluation.forced(case(0.0, True, "other"), rules).refused


def test_what_only_the_classifier_speaks_against() -> None:
    def of(*found: tuple[str, float]) -> Case:
        return Case("", True, tuple(Found(s, "", w) for s, w in found), sum(w for _, w in found), False, ())

    assert of(("bayes_spam", 4.0), ("bayes_sure", 1.0)).by_opinion_alone
    assert of(("bayes_spam", 4.0), ("list", -1.0)).by_opinion_alone
    assert not of(("bayes_spam", 4.0), ("html_only", 0.1)).by_opinion_alone
    assert not of(("bayes_ham", -1.5)).by_opinion_alone


async def test_who_sent_it_is_the_author_where_nothing_else_is_known() -> None:
    """A made-up reverse-path would differ from every author."""
    played = await Player(ini.load(None, "")).play(mail(WHOLE + "Subject: lunch\n"), False)
    assert "envelope_differs" not in [one.symbol for one in played.found]
    played = await Player(ini.load(None, "")).play(
        mail("Return-Path: <b@elsewhere.example>\n" + WHOLE + "Subject: lunch\n"), False
    )
    assert "envelope_differs" in [one.symbol for one in played.found]


async def test_sections_for_single_recipients_have_no_say() -> None:
    config = ini.load(None, "[scores]\nsubject_capitals = 2\n[scores example.net]\nsubject_capitals = 7\n")
    stored = mail("Delivered-To: b@example.net\n" + WHOLE + "Subject: LAST WARNING\n")
    played = await Player(config).play(stored, True)
    assert [one.weight for one in played.found if one.symbol == "subject_capitals"] == [2.0]


async def test_mail_from_the_collection_of_broken_mail_is_played_to_its_end() -> None:
    player = Player(ini.load(None, ""))
    found = 0
    for head in (b"", b"Return-Path: <>\n", b"Return-Path: <\xff\x00 a@@b>\nDelivered-To: \x00@\xff\n"):
        for body in (b"", b"\x00\xff" * 1000, b"--x\n" * 3000):
            stored = message_of(head + b"From: \xff <a@b\xc3.example>\nFrom: x\nReceived: ;\xff\nDate: 99\n\n" + body)
            assert stored is not None
            found += bool((await player.play(stored, True)).found)
    assert found == 9


async def test_policy_that_is_not_enforced_counts_all_the_same() -> None:
    config = ini.load(None, "[policy]\nenforce = no\n[scores]\nsubject_capitals = reject\n")
    assert (await Player(config).play(mail(WHOLE + "Subject: LAST WARNING\n"), True)).refused


def test_what_the_mail_store_and_filters_added_is_taken_away() -> None:
    stored = mail(
        "Return-Path: <alice@example.org>\nDelivered-To: bob@example.net\nReceived: from mx by store; x\n"
        "Received: from client by mx; y\nX-Spam-Status: Yes\nSubject: hi\n"
    )
    fields, sender, recipient = evaluation.as_received(stored)
    assert [field.name for field in fields] == [b"Received", b"Subject"]
    assert (sender, recipient) == (b"<alice@example.org>", b"<bob@example.net>")


def test_of_a_hop_to_the_mail_store_both_lines_go() -> None:
    stored = mail(
        "Return-Path: <alice@example.org>\nDelivered-To: bob@example.net\nReceived: from mx by store\n\twith LMTP id 1; x\n"
        "Received: from client by mx with ESMTPS; y\nReceived: from pc by client with ESMTP; z\nSubject: hi\n"
    )
    fields = evaluation.as_received(stored).fields
    assert [field.value.split()[1] for field in fields if field.name == b"Received"] == [b"pc"]


def test_mail_that_no_store_has_touched_keeps_its_received_lines() -> None:
    fields, sender, recipient = evaluation.as_received(mail("Received: from client by mx; y\nSubject: hi\n"))
    assert [field.name for field in fields] == [b"Received", b"Subject"]
    assert (sender, recipient) == (b"<sender@example.com>", b"<user@example.net>")


@pytest.mark.parametrize(
    ("head", "recipient"),
    [
        pytest.param(
            "X-Original-To: a@example.net\nDelivered-To: b@example.net\n", b"<a@example.net>", id="as it came"
        ),
        pytest.param("Envelope-To: <c@example.net>\n", b"<c@example.net>", id="in brackets"),
        pytest.param("Delivered-To: no address\n", b"<user@example.net>", id="no address"),
        pytest.param("Delivered-To: a@b>\tx\n", b"<user@example.net>", id="more than an address"),
        pytest.param(f"Delivered-To: {'a@' * 5000}b\n", b"<user@example.net>", id="too long"),
    ],
)
def test_the_recipient(head: str, recipient: bytes) -> None:
    assert evaluation.as_received(mail(head + "Subject: hi\n")).forward_path == recipient


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        pytest.param(
            "Received: from a by b; Tue, 14 Nov 2023 22:13:20 +0000\nDate: Mon, 1 Jan 2001 00:00:00 +0000\n",
            1_700_000_000,
            id="what Received says",
        ),
        pytest.param("Received: from a by b\nDate: Tue, 14 Nov 2023 22:13:20 +0000\n", 1_700_000_000, id="else Date"),
        pytest.param("Date: Tue, 14 Nov 99999999999 22:13:20 +0000\n", None, id="else now: no such year"),
        pytest.param("Date: \xff\n", None, id="else now: no date"),
    ],
)
def test_the_time_of_receipt(head: str, seconds: int | None) -> None:
    found = evaluation.received_at(mail(head))
    assert found == seconds if seconds else found > 1.7e9


def test_messages_that_share_a_subject_or_words_are_one_campaign() -> None:
    campaigns = Campaigns()
    keys = [
        ("Your account is suspended", range(10)),
        ("Re: [list] your ACCOUNT is suspended 123", range(100, 120)),
        ("Something else altogether", range(100, 120)),
        ("Lunch on Friday then", range(1000, 1020)),
    ]
    numbers = [campaigns.add(evaluation.campaign_keys(subject, list(slots))) for subject, slots in keys]
    found = [campaigns.find(number) for number in numbers]
    assert found[0] == found[1] == found[2] != found[3]


def test_folds_are_about_as_large() -> None:
    sizes = [sum(evaluation.fold_of(number, 3) == fold for number in range(3000)) for fold in range(3)]
    assert min(sizes) > 900


def test_what_is_learned_at_least() -> None:
    some = [Case("", spam, (), 0.0, False, (), campaign) for campaign in range(300) for spam in (False, True, True)]
    ham, spam = evaluation.least_learned(some, 3)
    assert 150 < ham <= 200
    assert spam == 2 * ham
    assert evaluation.least_learned([replace(one, campaign=1) for one in some], 3) == (0, 0)


def cases(number: int) -> list[Case]:
    return [
        Case("", spam, (), 0.0, False, sorted(features(message(place, spam))), 2 * place + spam)
        for place in range(number)
        for spam in (False, True)
    ]


def test_the_classifier_judges_what_it_has_not_learned() -> None:
    config = ini.load(None, "[classifier]\nminimum_ham = 30\nminimum_spam = 30\nenough_ham = 30\n")
    steps: list[None] = []
    found = evaluation.crossed(cases(60), config, 3, lambda: steps.append(None))
    assert len(found) == 120
    assert len(steps) == 3 * STEPS
    spam = [one.score for one in found if one.spam]
    ham = [one.score for one in found if not one.spam]
    assert sum(score > 1 for score in spam) > 50
    assert max(ham) < 1


async def test_it_thinks_what_the_daemon_thinks_that_learned_the_same(tmp_path: Path) -> None:
    config = ini.load(None, "[classifier]\nminimum_ham = 10\nminimum_spam = 10\nenough_ham = 100\n")
    player = Player(config)
    cases = {
        seed: [await player.play(message(n, spam, seed), spam) for n in range(100) for spam in (False, True)]
        for seed in ("", "new")
    }
    learned = Learned(tmp_path / "table.learned")
    for spam in (True, False):  # in another order
        learned.add(Lesson(identity(message(n, spam)), spam, features(message(n, spam))) for n in reversed(range(100)))
    retrain(tmp_path / "table", learned)
    learned.close()
    table = Table(tmp_path / "table")
    opinions = evaluation.strengths(cases[""], cases["new"], config.of(Classifier))
    daemons = [table.judge(features(message(n, spam, "new"))) for n in range(100) for spam in (False, True)]
    assert len({opinion.margin for opinion in opinions}) > 100
    for ours, its in zip(opinions, daemons, strict=True):
        assert ours == pytest.approx(its, abs=1e-4)


def test_labels_by_chance_teach_it_nothing() -> None:
    """What it learns of a message does not come back when that is judged."""
    chance = random.Random(1)
    config = ini.load(None, "[classifier]\nminimum_ham = 10\nminimum_spam = 10\nenough_ham = 10\n")
    mixed = [
        Case("", chance.random() < 0.5, (), 0.0, False, sorted(chance.sample(range(5000), 40)), place)
        for place in range(200)
    ]
    found = evaluation.crossed(mixed, config, 3)
    assert abs(evaluation.area(evaluation.curve(found)) - 0.5) < 0.15


def test_it_says_nothing_where_it_has_learned_too_little() -> None:
    found = evaluation.strengths(cases(20), cases(2), Classifier())
    assert found == [(0.0, 0.0, 0.0, 0.0)] * 4


def test_its_strength_is_capped_while_it_knows_little_ham() -> None:
    options = Classifier(minimum_ham=30, minimum_spam=30, enough_ham=200)
    strengths = [opinion.strength for opinion in evaluation.strengths(cases(60), cases(20), options)]
    assert max(strengths) == 60 / 200


def test_catch_at_a_rate_of_false_positives() -> None:
    some = [case(score / 10, False) for score in range(100)] + [case(score, True) for score in (1.0, 9.85, 9.95, 20.0)]
    assert evaluation.at_rate(some, 0.01) == (9.8, 3, 1)
    assert evaluation.at_rate(some, 0.0) == (9.9, 2, 0)
    assert evaluation.at_rate([case(1.0, True)], 0.01) == (inf, 0, 0)


def test_what_symbols_tell() -> None:
    some = [case(0, False, "a"), case(0, False), case(0, True, "a", "b"), case(0, True, "b", "b")]
    assert evaluation.discrimination(some) == [("b", 0, 2, pytest.approx(log(5))), ("a", 1, 1, 0.0)]


@pytest.mark.parametrize(
    ("some", "area"),
    [
        pytest.param([case(1, False), case(2, True)], 1.0, id="all spam scores higher"),
        pytest.param([case(1, False), case(1, True)], 0.5, id="the same score"),
        pytest.param([case(2, False), case(1, True)], 0.0, id="all spam scores lower"),
        pytest.param([case(9, False), case(1, True, refused=True)], 1.0, id="a refusal is above any score"),
        pytest.param([case(9, False)], 0.0, id="no spam"),
    ],
)
def test_the_area_under_the_curve(some: list[Case], area: float) -> None:
    assert evaluation.area(evaluation.curve(some)) == area


def test_a_sum_is_not_a_hair_below_a_threshold() -> None:
    found = tuple(Found(name, "", weight) for name, weight in (("a", 0.3), ("b", 0.6)))
    opinion = Opinion(9.0, 0.9, 1.0, 0.0)
    judged = evaluation.with_opinion(Case("", True, found, 0.9, False, ()), opinion, {"bayes_spam": 0.1})
    assert 0.3 + 0.6 + 0.1 < 1  # sum() has been more exact since Python 3.12
    assert judged.score == 1


@pytest.mark.parametrize(
    ("opinion", "added"),
    [
        pytest.param((0.1, 0.9, 0.0, 0.0), {}, id="none"),
        pytest.param((-4.0, 0.9, -0.5, 0.0), {"bayes_ham": -0.75}, id="ham"),
        pytest.param((2.0, 0.9, 0.5, 0.0), {"bayes_spam": 2.0}, id="spam"),
        pytest.param((9.0, 0.9, 1.0, 0.25), {"bayes_spam": 4.0, "bayes_sure": 0.5}, id="beyond surely spam"),
    ],
)
def test_what_the_classifier_adds(opinion: tuple[float, float, float, float], added: dict[str, float]) -> None:
    weights = {"bayes_spam": 4.0, "bayes_sure": 2.0, "bayes_ham": -1.5}
    judged = evaluation.with_opinion(case(1.0, True, "other"), Opinion(*opinion), weights)
    assert {one.symbol: one.weight for one in judged.found if one.symbol != "other"} == added
    assert judged.score == 1.0 + sum(added.values())
