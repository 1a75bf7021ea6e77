"""Fits the weights of symbols on mail that is known to be good or spam.

    python -m tests.bench.detect FOLDER --json FOUND
    python -m tests.bench.fit_scores FOUND [--check NAME ...] [--json FILE] [--bayes W ...]

Logistic regression over the symbols and the strength of the classifier, as the score is made: a sum of weights against a
threshold.  The threshold is the default one, at which the odds are even; weights are drawn towards those that the checks
carry, the more so the fewer messages a symbol has, and stay between 0 and `MOST` (negative ones, where the check has
them).  Ham and spam weigh the same in all, and a collection as the root of its size, so that none of them decides alone.

Prints each symbol with its hits, its weight and the fitted one; then what both catch, each fold of campaigns judged by what
was fitted on the others, and which weight of `bayes_spam` does best.  `--json` writes the fitted weights.  Needs numpy, which
comes with the extra `bench`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from authmilter.check import all_checks
from authmilter.model import Stage

MOST = 2.5  # no symbol alone comes near the threshold
TAG = 5.0
SHARPNESS = 0.8  # log-odds that a point of the score is worth
DRAWN = 200.0  # how many messages a weight that is there counts for
HAM_COUNTS = 60.0  # a flagged good message is worse than a missed spam
STEPS = 300
STEP = 0.1
FEWEST = 5  # hits below which a weight stays as it is
Floats = NDArray[np.float64]


class Data(NamedTuple):
    """Messages as rows: what was found of them, 1 or 0, and the strength of the classifier."""

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


def carried(names: Sequence[str] = ()) -> dict[str, float]:
    """The weights that checks of the end of the message carry; of these checks alone, if any are named."""
    return {
        symbol: float(weight)
        for check in all_checks()
        if check.stage is Stage.EOM and (not names or check.name in names)
        for symbol, weight in check.scores.items()
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
        for symbol, strength in (("bayes_spam", one["strength"]), ("bayes_ham", -one["strength"])):
            if symbol in place:
                x[number, place[symbol]] = max(0.0, strength)
    spam = np.array([bool(one["spam"]) for one in found])
    kinds = [(one["set"], one["group"] if one["group"].startswith("hard-") else "", one["spam"]) for one in found]
    size = Counter(kinds)
    share = np.array([size[kind] ** -0.5 for kind in kinds])
    for kind in (True, False):
        share[spam == kind] *= len(found) / 2 / share[spam == kind].sum()
    fold = np.array([one["fold"] for one in found], dtype=np.int64)
    bayes = np.array([symbol.startswith("bayes_") for symbol in symbols])
    return Data(x, spam, share, fold, [one["group"] for one in found], bayes)


def fit(data: Data, start: Floats, fixed: NDArray[np.bool_]) -> Floats:
    """The weights; what is `fixed`, or has few hits, keeps that of `start`.

    `fixed` is the classifier among others.  Each message counts twice, with and without what it says: not everybody has
    trained one, and who has must not have his good mail tagged by rules that make up for it.
    """
    x = np.concatenate((data.x, np.where(data.bayes, 0.0, data.x)))
    spam, share = np.tile(data.spam, 2), np.tile(data.share, 2) / 2
    low, high = np.where(start < 0, -MOST, 0.0), np.where(start < 0, 0.0, MOST)
    fixed = fixed | (np.abs(start) > MOST)  # one that is there to tag by itself
    fixed = fixed | ((data.x > 0).sum(axis=0) < FEWEST)
    sign = np.where(spam, 1.0, -1.0)
    share = share * np.where(spam, 1.0, HAM_COUNTS)
    # The steps are those of each weight by itself: a symbol that many messages have moves no slower than a rare one.
    bend = SHARPNESS * SHARPNESS * 0.25 * (x * x).T @ share + DRAWN
    weights, before = start.copy(), start.copy()
    for step in range(STEPS):
        ahead = weights + step / (step + 3) * (weights - before)
        margin = np.clip(sign * SHARPNESS * (x @ ahead - TAG), -30, 30)
        slope = -SHARPNESS * (x.T @ (share * sign / (1 + np.exp(margin)))) + DRAWN * (ahead - start)
        following = np.clip(ahead - STEP * slope / bend, low, high)
        before, weights = weights, np.where(fixed, start, following)
    return weights


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


def crossed(data: Data, start: Floats, fixed: NDArray[np.bool_]) -> Floats:
    """For each message, the weights that were fitted on the other folds, as a row."""
    weights = np.zeros(data.x.shape)
    for fold in sorted(set(data.fold.tolist())):
        weights[data.fold == fold] = fit(data.part(data.fold != fold), start, fixed)
    return weights


def main() -> int:
    """Print the weights and what they do."""
    parser = argparse.ArgumentParser(description="Fit the weights of symbols.")
    parser.add_argument("found", type=Path)
    parser.add_argument("--check", nargs="*", default=[], help="only of these checks; the others' stay as they are")
    parser.add_argument("--bayes", nargs="*", type=float, default=[3.5, 4.0, 4.5, 4.8, 5.0, 5.5], help="weights to try")
    parser.add_argument("--json", type=Path, help="write the fitted weights here")
    arguments = parser.parse_args()
    weights = carried()
    symbols = sorted(weights)
    data = read(arguments.found, symbols)
    start = np.array([weights[symbol] for symbol in symbols])
    chosen = carried(arguments.check)
    fixed = np.array([symbol not in chosen for symbol in symbols]) | data.bayes
    fitted = fit(data, start, fixed)
    print(f"{'symbol':28}{'ham':>6}{'spam':>7}{'carried':>9}{'fitted':>8}")
    for number in np.argsort(-(data.x > 0).sum(axis=0)):
        hits = data.x[:, number] > 0
        if hits.any():
            ham, spam = int((hits & ~data.spam).sum()), int((hits & data.spam).sum())
            print(f"{symbols[number]:28}{ham:6}{spam:7}{start[number]:9.2f}{fitted[number]:8.2f}")
    rules, opinion = np.where(data.bayes, 0.0, data.x), np.where(data.bayes, data.x, 0.0)
    spam_only = np.array([symbol == "bayes_spam" for symbol in symbols])
    print(f"\n{'':34}{'at tag: spam':>13}{'ham':>7}{'letters':>9}{'at 0.5 %':>10}{'at 0.1 %':>10}")
    for title, score in (
        ("carried", rules @ start),
        ("fitted, folds apart", (rules * crossed(data, start, fixed)).sum(axis=1)),
    ):
        _print(f"untrained, {title}", outcome(score, data))
        for weight in arguments.bayes:
            _print(
                f"bayes_spam {weight:g}, {title}", outcome(score + opinion @ np.where(spam_only, weight, start), data)
            )
    for row, words in (("forth", "old -> modern"), ("back", "modern -> old")):
        other = read(arguments.found, symbols, row)
        for title, weights_used in (("carried", start), ("fitted on all", fitted)):
            _print(f"{words}, {title}", outcome(other.x @ weights_used, other))
    if arguments.json:
        table = {symbol: round(float(weight), 2) for symbol, weight in zip(symbols, fitted, strict=True)}
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


def _print(title: str, what: Outcome) -> None:
    print(
        f"{title:34}{what.caught:13.2f}{what.flagged:7.2f}{what.letters:9.2f}{what.at_half:10.2f}{what.at_tenth:10.2f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
