"""What the classifier finds in mail that it has not learned: by campaign, by age, and by how much was learned.

    python -m tests.bench.classify FOLDER [--rival]

FOLDER is what ``bench/detect/prepare.py FOLDER`` of the shared material made: ``train.jsonl`` and messages.  Each row learns
on some messages and judges others; messages of one campaign or thread (the same subject, or nearly the same content) are on
one side.  `--rival` measures naive Bayes with Fisher's combination by chi-square on the same features beside it.
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from authmilter.classifier.features import features
from authmilter.classifier.table import margin_of
from authmilter.classifier.training import Example, train
from authmilter.evaluation import Campaigns, campaign_keys, fold_of
from authmilter.header_text import text
from authmilter.stored_mail import message_of

OLD = ("spamassassin-public", "csdmc2010")
FOLDS = 3


class Mail(NamedTuple):
    """A message of the collection."""

    features: Sequence[int]
    spam: bool
    collection: str
    group: str
    campaign: int

    @property
    def is_old(self) -> bool:
        """From before 2011?"""
        return self.collection in OLD


class Judged(NamedTuple):
    """What was thought of it; `strength` is that of the finding, below 0 for ham."""

    mail: Mail
    margin: float
    strength: float


Judge = Callable[[Sequence[int]], tuple[float, float]]


def read(folder: Path) -> list[Mail]:
    """All messages, with their campaigns."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    found = []
    campaigns = Campaigns()
    spent = 0.0
    for row in rows:
        message = message_of((folder / row["path"]).read_bytes())
        if message is None:
            continue
        began = time.process_time()
        numbers = sorted(features(message))
        spent += time.process_time() - began
        campaign = campaigns.add(campaign_keys(text(message, b"subject"), numbers))
        found.append((numbers, row["label"] == "spam", row["set"], row.get("group", ""), campaign))
    print(f"{len(found)} messages, {spent / len(found) * 1e6:.0f} us CPU each for MIME and features", flush=True)
    return [Mail(*one[:4], campaigns.find(one[4])) for one in found]


def regression(mails: Sequence[Mail]) -> Judge:
    """The classifier itself."""
    trained = train([Example(mail.features, mail.spam) for mail in mails])
    get = trained.weights.__getitem__

    def judge(numbers: Sequence[int]) -> tuple[float, float]:
        margin, _ = margin_of(list(map(get, numbers)), len(numbers), trained.bias)
        return margin, trained.curve.strength(margin)

    return judge


def bayes(mails: Sequence[Mail], strength: float = 0.45, apart: float = 0.1, most: int = 150) -> Judge:
    """Naive Bayes after Robinson: Fisher's combination of the features that tell most, by chi-square."""
    seen: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    total = Counter(mail.spam for mail in mails)
    for mail in mails:
        seen[mail.spam].update(mail.features)
    odds = {}
    for slot in seen[0].keys() | seen[1].keys():
        ham, spam = seen[0][slot] / total[False], seen[1][slot] / total[True]
        number = seen[0][slot] + seen[1][slot]
        odds[slot] = min(max((strength * 0.5 + number * spam / (ham + spam)) / (strength + number), 1e-4), 1 - 1e-4)

    def judge(numbers: Sequence[int]) -> tuple[float, float]:
        told = sorted((p for n in numbers if abs((p := odds.get(n, 0.5)) - 0.5) > apart), key=lambda p: -abs(p - 0.5))
        told = told[:most]
        good = _log_tail(-2 * sum(map(math.log, told)), len(told))
        bad = _log_tail(-2 * sum(math.log(1 - p) for p in told), len(told))
        return good - bad, 0.0

    return judge


def _log_tail(chi: float, half: int) -> float:
    """Logarithm of the share of chi-square with 2 * `half` degrees of freedom that is beyond `chi`."""
    if not half:
        return 0.0
    x = chi / 2
    terms = [k * math.log(x) - math.lgamma(k + 1) if x else (0.0 if not k else -math.inf) for k in range(half)]
    largest = max(terms)
    return -x + largest + math.log(sum(math.exp(term - largest) for term in terms))


def apart(mails: Sequence[Mail], learner: Callable[[Sequence[Mail]], Judge]) -> list[Judged]:
    """Every message, judged by what learned on the campaigns of other folds."""
    judged = []
    for fold in range(FOLDS):
        judge = learner([mail for mail in mails if fold_of(mail.campaign, FOLDS) != fold])
        judged += [Judged(mail, *judge(mail.features)) for mail in mails if fold_of(mail.campaign, FOLDS) == fold]
    return judged


def across(learn: Sequence[Mail], test: Sequence[Mail], learner: Callable[[Sequence[Mail]], Judge]) -> list[Judged]:
    """The messages of one collection, judged by what learned on another."""
    judge = learner(learn)
    return [Judged(mail, *judge(mail.features)) for mail in test]


def catch(judged: Sequence[Judged], share: float, among: Callable[[Mail], bool] = lambda mail: mail.spam) -> str:
    """Percentage of the spam beyond the threshold that this share of the ham exceeds."""
    ham = sorted((one.margin for one in judged if not one.mail.spam), reverse=True)
    threshold = ham[int(share * len(ham))]
    return percent([one.margin > threshold for one in judged if among(one.mail)])


def percent(these: Sequence[bool]) -> str:
    """Of all, with a decimal; "-" of none."""
    return f"{100 * sum(these) / len(these):.2f}".rstrip("0").rstrip(".") if these else "-"


def row(title: str, judged: Sequence[Judged]) -> None:
    """Print a line of the table."""

    def beyond(strength: float, among: Callable[[Mail], bool]) -> str:
        return percent([one.strength >= strength for one in judged if among(one.mail)])

    cells = [catch(judged, 0.005), catch(judged, 0.001)]
    cells.append(catch(judged, 0.005, lambda mail: mail.spam and mail.collection == "ham-lists"))
    for strength in (0.5, 1.0):
        cells += [beyond(strength, lambda mail: mail.spam), beyond(strength, lambda mail: not mail.spam)]
        cells.append(beyond(strength, lambda mail: mail.group == "hard-ham-1"))
    print(f"{title:28}" + "".join(f"{cell:>9}" for cell in cells), flush=True)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What the classifier finds in mail that it has not learned.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rival", action="store_true", help="measure naive Bayes with chi-square as well")
    args = parser.parse_args()
    mails = read(args.folder)
    print(f"{len({mail.campaign for mail in mails})} campaigns; percentages\n")
    print(f"{'':28}{'catch at ham':>18}{'of lists':>9}{'strength >= 0.5':>27}{'strength 1':>27}")
    names = ("0.5 %", "0.1 %", "0.5 %", "spam", "ham", "letters", "spam", "ham", "letters")
    print(f"{'':28}" + "".join(f"{name:>9}" for name in names))
    old = [mail for mail in mails if mail.is_old]
    modern = [mail for mail in mails if not mail.is_old]
    learners = {"": regression, " (Bayes, chi-square)": bayes} if args.rival else {"": regression}
    for mark, learner in learners.items():
        row(f"campaigns apart{mark}", apart(mails, learner))
        row(f"old -> modern{mark}", across(old, modern, learner))
        row(f"modern -> old{mark}", across(modern, old, learner))
    test = [mail for mail in mails if not fold_of(mail.campaign, FOLDS)]
    rest = [mail for mail in mails if fold_of(mail.campaign, FOLDS)]
    random.Random(1).shuffle(rest)
    for number in (100, 200, 500, 1000, 2000):
        of: dict[bool, list[Mail]] = defaultdict(list)
        for mail in rest:
            of[mail.spam].append(mail)
        row(f"{number} of each learned", across(of[False][:number] + of[True][:number], test, regression))
    return 0


if __name__ == "__main__":
    sys.exit(main())
