"""Fits the weights of symbols on mail that is known to be good or spam.

    python -m tests.bench.detect FOLDER --json FOUND
    python -m tests.bench.fit_scores FOUND [--check NAME ...] [--json FILE] [--bayes W ...] [--write]

Logistic regression over the symbols, as the score is made: a sum of weights against a threshold.  The threshold is the
default one, at which the odds are even; weights are drawn towards those that the checks carry, the more so the fewer
messages a symbol has, and stay between 0 and `MOST` (negative ones, where the check has them).  Ham and spam weigh the same
in all, and a collection as the root of its size, so that none of them decides alone.

Each message counts four times: with nothing of the classifier, with what it says when it learned other campaigns of the same
kinds, and, both ways, with what it says when it learned only mail that is many years older or younger.  Not everybody has
trained one, and its mistakes about mail of kinds that it has not seen are for the other symbols to make up.

Prints each symbol with its hits, its weight and the fitted one; then what both do, each fold of campaigns judged by what was
fitted on the others, and which weight of `bayes_spam` does best.  `--json` writes the fitted weights, and `--write` those
that differ into the program: `authmilter/fitted.py`, which takes the place of what the checks carry.  Needs numpy, which comes
with the extra `bench`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import authmilter.fitted
from authmilter.check import all_checks
from authmilter.model import Stage

MOST = 2.5  # no symbol alone comes near the threshold
TAG = 5.0
SHARPNESS = 0.8  # log-odds that a point of the score is worth
DRAWN = 200.0  # how many messages a weight that is there counts for
HAM_COUNTS = 40.0  # a flagged good message is worse than a missed spam
STEPS = 300
STEP = 0.3
FEWEST = 10  # hits below which a weight stays as it is
ROUNDED = 0.05
# What tells how the collections were made rather than what spam is: Received lines were cut off at different hosts, and
# collections of good mail are of people who wrote plain text.
ARTEFACTS = frozenset(("html_only", "received_missing"))
# Newsletters of today that were asked for, machines, and lists within lists have these as well, and the collections have
# none of such: not more than before.
NOT_MORE = frozenset(
    (
        "bulk_no_unsubscribe",
        "from_pictures",
        "html_hidden_more",
        "html_hidden_text",
        "html_image_only",
        "link_one_site",
        "list_header_repeated",
        "message_id_missing",
        "priority_high",
        "phrase_greeting",
        "phrase_hurry",
        "phrase_removal",
        "phrase_riskless",
        "subject_exclaimed",
        "subject_pictures",
        "topic_account",
        "topic_gambling",
        "topic_parcel",
        "topic_prize",
        "topic_removal",
        "topic_renewal",
        "topic_sale",
    )
)
ROWS = ("crossed", "forth", "back")
OPINIONS = ("bayes_spam", "bayes_sure", "bayes_ham")
TARGET = Path(authmilter.fitted.__file__)
Floats = NDArray[np.float64]


class Data(NamedTuple):
    """Messages as rows: what was found of them, 1 or 0, and what the classifier thinks, by strength."""

    x: Floats
    spam: NDArray[np.bool_]
    share: Floats  # of each message in the loss
    fold: NDArray[np.int64]
    groups: list[str]
    bayes: NDArray[np.bool_]  # columns that are the classifier's

    def part(self, rows: NDArray[np.bool_]) -> "Data":
        """Some of the messages."""
        groups = [group for group, wanted in zip(self.groups, rows.tolist(), strict=True) if wanted]
        return Data(self.x[rows], self.spam[rows], self.share[rows], self.fold[rows], groups, self.bayes)

    def untrained(self) -> "Data":
        """The same without the classifier."""
        return self._replace(x=np.where(self.bayes, 0.0, self.x))


def carried(names: Sequence[str] = ()) -> dict[str, float]:
    """The weights that checks of the end of the message give by judgement; of these checks alone, if any are named."""
    return {
        symbol: float(weight)
        for check in all_checks()
        if check.stage is Stage.EOM and (not names or check.name in names)
        for symbol, weight in check.prior.items()
        if isinstance(weight, int | float)
    }


def read(path: Path, symbols: Sequence[str], row: str = "crossed") -> Data:
    """The messages that `tests.bench.detect` wrote, of one row of its table."""
    place = {symbol: number for number, symbol in enumerate(symbols)}
    found: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        found = [one for line in file if (one := json.loads(line))["row"] == row]
    x = np.zeros((len(found), len(symbols)))
    for number, one in enumerate(found):
        for symbol in one["symbols"]:
            if symbol in place:
                x[number, place[symbol]] = 1.0
        said = (max(0.0, one["strength"]), one["beyond"], max(0.0, -one["strength"]))
        for symbol, strength in zip(OPINIONS, said, strict=True):
            if symbol in place:
                x[number, place[symbol]] = strength
    spam = np.array([bool(one["spam"]) for one in found])
    kinds = [(one["set"], one["group"] if one["group"].startswith("hard-") else "", one["spam"]) for one in found]
    size = Counter(kinds)
    share = np.array([size[kind] ** -0.5 for kind in kinds])
    for kind in (True, False):
        share[spam == kind] *= len(found) / 2 / share[spam == kind].sum()
    fold = np.array([one["fold"] for one in found], dtype=np.int64)
    bayes = np.array([symbol in OPINIONS for symbol in symbols])
    return Data(x, spam, share, fold, [one["group"] for one in found], bayes)


class Bounds(NamedTuple):
    """What the weights start from and are drawn to, what they may be, and which stay as they are."""

    start: Floats
    high: Floats
    fixed: NDArray[np.bool_]


def bounds(symbols: Sequence[str], weights: dict[str, float], chosen: Sequence[str]) -> Bounds:
    """Those of these symbols, of which only the chosen are fitted."""
    start = np.array([weights[symbol] for symbol in symbols])
    high = np.array([max(weights[symbol], 0.0) if symbol in NOT_MORE else MOST for symbol in symbols])
    fixed = [symbol not in chosen or symbol in ARTEFACTS or symbol in OPINIONS for symbol in symbols]
    return Bounds(start, high, np.array(fixed) | (np.abs(start) > MOST))  # one over that is there to tag by itself


def fit(scenes: Sequence[Data], within: Bounds) -> Floats:
    """The weights that do best in all scenes; of the first, what has few hits keeps that of `start`.

    Columns of the classifier must be `fixed`: what it adds is given.
    """
    x = np.concatenate([scene.x for scene in scenes])
    spam = np.concatenate([scene.spam for scene in scenes])
    share = np.concatenate([scene.share / len(scenes) for scene in scenes]) * np.where(spam, 1.0, HAM_COUNTS)
    start = within.start
    low, high = np.where(start < 0, -MOST, 0.0), np.where(start < 0, 0.0, within.high)
    fixed = within.fixed | ((scenes[0].x > 0).sum(axis=0) < FEWEST)
    sign = np.where(spam, 1.0, -1.0)
    # The steps are those of each weight by itself: a symbol that many messages have moves no slower than a rare one.
    bend = SHARPNESS * SHARPNESS * 0.25 * (x * x).T @ share + DRAWN
    weights, before = start.copy(), start.copy()
    for step in range(STEPS):
        ahead = weights + step / (step + 3) * (weights - before)
        margin = np.clip(sign * SHARPNESS * (x @ ahead - TAG), -30, 30)
        slope = -SHARPNESS * (x.T @ (share * sign / (1 + np.exp(margin)))) + DRAWN * (ahead - start)
        following = np.clip(ahead - STEP * slope / bend, low, high)
        before, weights = weights, np.where(fixed, start, following)
    return np.where(fixed, start, np.round(np.round(weights / ROUNDED) * ROUNDED, 2))


class Outcome(NamedTuple):
    """Percentages: of spam and ham at the threshold, and of spam beyond what half and a tenth of a percent of ham exceed."""

    caught: float
    flagged: float
    at_half: float
    at_tenth: float
    letters: float


def outcome(score: Floats, data: Data) -> Outcome:
    """What these scores do."""
    spam, ham = score[data.spam], np.sort(score[~data.spam])[::-1]
    letters = np.array([group.startswith("hard-") for group in data.groups]) & ~data.spam

    def beyond(rate: float) -> float:
        return 100 * float((spam > ham[int(rate * len(ham))]).mean())

    at = TAG - 1e-9
    return Outcome(
        100 * float((spam >= at).mean()),
        100 * float((ham >= at).mean()),
        beyond(0.005),
        beyond(0.001),
        100 * float((score[letters] >= at).mean()) if letters.any() else 0.0,
    )


def scores(data: Data, weights: dict[int, Floats]) -> Floats:
    """What each message has under the weights of its fold."""
    result = np.zeros(len(data.spam))
    for fold, its in weights.items():
        result[data.fold == fold] = data.x[data.fold == fold] @ its
    return result


def module(weights: dict[str, float], found: Path) -> str:
    """The text of `authmilter/fitted.py` with these weights."""
    lines = "".join(f'    "{symbol}": {weight:g},\n' for symbol, weight in sorted(weights.items()))
    return (
        '"""Weights of symbols as they were fitted to mail that is known to be good or spam.\n\n'
        "Written by ``python -m tests.bench.fit_scores --write``, which also says how; not to be edited by hand.\n"
        f'Fitted to {sum(1 for line in found.open() if json.loads(line)["row"] == "crossed"):,} messages.\n"""\n\n'
        "from collections.abc import Mapping\n\n"
        f"FITTED: Mapping[str, float] = {{\n{lines}}}\n"
    )


def main() -> int:
    """Print the weights and what they do."""
    parser = argparse.ArgumentParser(description="Fit the weights of symbols.")
    parser.add_argument("found", type=Path)
    parser.add_argument("--check", nargs="*", default=[], help="only of these checks; the others' stay as they are")
    parser.add_argument("--bayes", nargs="*", type=float, default=[4.4, 4.6, 4.7, 4.8], help="weights to try")
    parser.add_argument("--json", type=Path, help="write the fitted weights here")
    parser.add_argument("--write", action="store_true", help=f"write those that differ into {TARGET.name}")
    arguments = parser.parse_args()
    weights = carried()
    symbols = sorted(weights)
    within = bounds(symbols, weights, [*carried(arguments.check)])
    start = within.start
    data, forth, back = (read(arguments.found, symbols, row) for row in ROWS)
    scenes = (data, data.untrained(), forth, back)
    fitted = fit(scenes, within)
    folds = sorted(set(data.fold.tolist()))
    apart = {fold: fit([scene.part(scene.fold != fold) for scene in scenes], within) for fold in folds}
    hits = data.x > 0
    print(f"{'symbol':28}{'ham':>6}{'spam':>7}{'carried':>9}{'fitted':>8}")
    for number in np.argsort(-hits.sum(axis=0), kind="stable"):
        if hits[:, number].any():
            ham, spam = int((hits[:, number] & ~data.spam).sum()), int((hits[:, number] & data.spam).sum())
            print(f"{symbols[number]:28}{ham:6}{spam:7}{start[number]:9.2f}{fitted[number]:8.2f}")
    print(f"\n{'':34}{'at tag: spam':>13}{'ham':>7}{'letters':>9}{'at 0.5 %':>10}{'at 0.1 %':>10}")
    spam_only = np.array([symbol == "bayes_spam" for symbol in symbols])
    for title, used in (("carried", dict.fromkeys(folds, start)), ("fitted, folds apart", apart)):
        _print(f"untrained, {title}", outcome(scores(data.untrained(), used), data))
        for weight in arguments.bayes:
            tried = {fold: np.where(spam_only, weight, its) for fold, its in used.items()}
            _print(f"bayes_spam {weight:g}, {title}", outcome(scores(data, tried), data))
        for words, other in (("old -> modern", forth), ("modern -> old", back)):
            _print(f"{words}, {title}", outcome(scores(other, used), other))
    table = {symbol: round(float(weight), 2) for symbol, weight in zip(symbols, fitted, strict=True)}
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        differing = {symbol: weight for symbol, weight in table.items() if abs(weight - weights[symbol]) > ROUNDED / 2}
        TARGET.write_text(module(differing, arguments.found), encoding="utf-8")
    return 0


def _print(title: str, what: Outcome) -> None:
    print(
        f"{title:34}{what.caught:13.2f}{what.flagged:7.2f}{what.letters:9.2f}{what.at_half:10.2f}{what.at_tenth:10.2f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
