"""Logistic regression, trained from all that was learned.

By stochastic gradient descent over messages as sets of features, each message scaled to length 1, each kind of mail of
the same weight in all.  It takes some 0.2 ms per message, so what is learned or forgotten is trained from anew: the
weights follow from what is kept, and from nothing else.

How far the result may be trusted is measured on mail that was not trained on: each third of the messages is judged by
the other two.  Messages alike are in one third (their smallest features are the same), so that a campaign can't vouch for
itself.  From these margins comes the curve: `sure` of spam is what one in a thousand of the ham exceeds.
"""

import math
import random
from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

from authmilter.classifier.features import SLOTS
from authmilter.classifier.table import Curve, margin_of

EPOCHS = 8
RATE = 8.0
FADING = 0.3  # how the rate falls by epoch
ENOUGH = 6.0  # a message with this margin needs no more training
FOLDS = 3
STEPS = (FOLDS + 1) * EPOCHS  # that `train` reports
FEW = 2  # a feature of fewer messages is as good as unknown

# The curve: the shares of ham, and of spam, that may lie beyond where it begins, and where it is sure; and how near to 0
# these may be, in log-odds.
_BEGINS, _SURE = 0.01, 0.001
_LEAST_BEGIN, _LEAST_SURE = 0.0, 3.0


class Example(NamedTuple):
    """A message that was learned: its features, and what it is."""

    features: Sequence[int]
    spam: bool


class Trained(NamedTuple):
    """A weight per slot, and what belongs to them."""

    weights: list[float]
    bias: float
    curve: Curve


def train(examples: Sequence[Example], step: Callable[[], None] = lambda: None) -> Trained:
    """Train; there must be examples of both kinds.  `step` is called `STEPS` times on the way.

    Their order does not matter, but that of their features does: let it be ascending.
    """
    examples = sorted(examples)  # else a gradient would lead elsewhere from another order
    seen = array("I", bytes(4 * SLOTS))
    for example in examples:
        for slot in example.features:
            seen[slot] += 1
    rows = [_row(example, seen) for example in examples]
    folds = [_fold(example) for example in examples]
    margins: list[tuple[float, bool]] = []
    for fold in range(FOLDS):
        apart = [row for row, its in zip(rows, folds, strict=True) if its == fold]
        rest = [row for row, its in zip(rows, folds, strict=True) if its != fold]
        if {row.sign for row in rest} != {1.0, -1.0}:
            for _ in range(EPOCHS):
                step()
            continue
        weights, bias = _fit(rest, step)
        get = weights.__getitem__
        margins += [(margin_of(list(map(get, row.slots)), row.size, bias)[0], row.sign > 0) for row in apart]
    weights, bias = _fit(rows, step)
    return Trained(weights, bias, _curve(margins))


class _Row(NamedTuple):
    slots: Sequence[int]
    size: int  # with what is too rare to be a slot
    scale: float
    sign: float


def _row(example: Example, seen: Sequence[int]) -> _Row:
    slots = array("I", [slot for slot in example.features if seen[slot] >= FEW])  # a list takes nine times the room
    size = max(1, len(example.features))
    return _Row(slots, size, 1 / math.sqrt(size), 1.0 if example.spam else -1.0)


def _fold(example: Example) -> int:
    # The least of a set under an order that has nothing to do with its elements is the same for most sets that are alike.
    least = min((slot * 2654435761 % 4294967291 for slot in example.features), default=0)
    return least % FOLDS


def _fit(rows: Sequence[_Row], step: Callable[[], None]) -> tuple[list[float], float]:
    weights = [0.0] * SLOTS
    get = weights.__getitem__
    bias = 0.0
    spam = sum(row.sign > 0 for row in rows)
    share = {1.0: len(rows) / 2 / spam, -1.0: len(rows) / 2 / (len(rows) - spam)}
    order = list(rows)
    chance = random.Random(0)  # noqa: S311  the same order each time
    for epoch in range(EPOCHS):
        chance.shuffle(order)
        rate = RATE / (1 + FADING * epoch)
        for slots, _, scale, sign in order:
            margin = sign * (bias + scale * sum(map(get, slots)))
            if margin > ENOUGH:
                continue
            change = rate * share[sign] * sign / (1 + math.exp(max(-30.0, margin)))
            bias += 0.1 * change
            change *= scale
            for slot in slots:
                weights[slot] += change
        step()
    return weights, bias


def _curve(margins: Sequence[tuple[float, bool]]) -> Curve:
    ham = sorted((margin for margin, is_spam in margins if not is_spam), reverse=True)
    spam = sorted(margin for margin, is_spam in margins if is_spam)
    begins, sure = _limits(ham)
    ham_begins, ham_sure = _limits([-margin for margin in spam])
    return Curve(begins, sure, -ham_begins, -ham_sure)


def _limits(largest_first: Sequence[float]) -> tuple[float, float]:
    if not largest_first:
        return _LEAST_SURE, 2 * _LEAST_SURE
    begins = max(_LEAST_BEGIN, largest_first[int(_BEGINS * len(largest_first))])
    return begins, max(_LEAST_SURE, begins + 1.0, largest_first[int(_SURE * len(largest_first))])
