"""The classifier learns, and knows how much it knows."""

import random

import pytest

from authmilter.classifier.features import features
from authmilter.classifier.table import Curve, margin_of
from authmilter.classifier.training import STEPS, Example, Trained, train
from tests.classifier.mail import message


def examples(number: int, seed: str = "") -> list[Example]:
    return [Example(sorted(features(message(n, spam, seed))), spam) for n in range(number) for spam in (False, True)]


def strength(trained: Trained, example: Example) -> float:
    weights = [trained.weights[slot] for slot in example.features]
    return trained.curve.strength(margin_of(weights, len(example.features), trained.bias)[0])


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(examples(150))


def test_mail_that_it_has_not_seen_is_told_apart(trained: Trained) -> None:
    told = [(strength(trained, example), example.spam) for example in examples(100, "new")]
    assert sum(value > 0.5 for value, spam in told if spam) >= 97
    assert sum(value < -0.5 for value, spam in told if not spam) >= 97
    assert not any(value > 0 for value, spam in told if not spam)


def test_the_same_mail_in_any_order_of_learning_gives_the_same(trained: Trained) -> None:
    others = examples(150)
    random.Random(6).shuffle(others)
    assert train(others) == trained


def test_labels_by_chance_make_it_sure_of_nothing() -> None:
    chance = random.Random(5)
    confused = [Example(example.features, chance.random() < 0.5) for example in examples(200)]
    trained = train(confused)
    told = [strength(trained, example) for example in examples(100, "new")]
    assert sum(abs(value) >= 1 for value in told) <= 10


def test_words_never_seen_take_away_so_much_and_no_more(trained: Trained) -> None:
    spam = next(example for example in examples(1, "new") if example.spam)
    size = len(spam.features)
    get = trained.weights.__getitem__
    unknown = [slot for slot in range(7, 100_000) if not get(slot)][: 4 * size]
    alone, _ = margin_of(list(map(get, spam.features)), size, trained.bias)
    padded, known = margin_of(list(map(get, [*spam.features, *unknown])), size + len(unknown), trained.bias)
    assert known < 0.25
    assert 0.4 * alone < padded < 0.6 * alone
    more, _ = margin_of(list(map(get, spam.features)), 100 * size, trained.bias)
    assert more == padded


def test_copies_of_a_campaign_do_not_vouch_for_it() -> None:
    campaign = [Example(examples(1, "x")[1].features, True)] * 50  # all of its words are seen fifty times
    apart = train(examples(20) + campaign)
    assert apart.curve.ham_from <= 0 <= apart.curve.spam_from


def test_progress_is_told() -> None:
    steps = []
    train(examples(5), lambda: steps.append(1))
    assert len(steps) == STEPS


def test_few_examples_are_enough_not_to_fail() -> None:
    for number in (1, 2, 3):
        assert train(examples(number)).curve.spam_sure >= 3


def test_a_message_without_features_has_no_margin() -> None:
    assert margin_of([], 0, 3.0) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("margin", "value"),
    [
        pytest.param(9.0, 1.0, id="beyond sure"),
        pytest.param(5.0, 1.0, id="sure of spam"),
        pytest.param(3.0, 0.5, id="half way"),
        pytest.param(1.0, 0.0, id="where spam begins"),
        pytest.param(0.0, 0.0, id="between"),
        pytest.param(-2.0, -0.5, id="half way to ham"),
        pytest.param(-9.0, -1.0, id="sure of ham"),
    ],
)
def test_the_curve(margin: float, value: float) -> None:
    assert Curve(1.0, 5.0, -1.0, -3.0).strength(margin) == value


@pytest.mark.parametrize(
    ("margin", "value"),
    [
        pytest.param(-9.0, 0.0, id="ham"),
        pytest.param(5.0, 0.0, id="just surely spam"),
        pytest.param(6.0, 0.5, id="more"),
        pytest.param(99.0, 1.0, id="far beyond"),
    ],
)
def test_how_far_it_is_beyond_surely_spam(margin: float, value: float) -> None:
    assert Curve(1.0, 5.0, -1.0, -3.0).beyond(margin) == value
