"""What is caught of spam, and how much good mail is flagged, beside two other filters on mail of the same kinds.

    python -m tests.bench.detect FOLDER [--json FILE]

FOLDER is what ``bench/detect/prepare.py FOLDER`` of the shared material made: ``train.jsonl`` and the messages.  Each is
played through a Session as its receiver would have got it, without network.  "Trained" has the classifier learn on the
campaigns of two thirds and judge the others; nothing is judged by what learned from its own campaign.

The figures of SpamAssassin 4.0.1 and rspamd 3.4 are those of ``bench/detect/README.md``, measured on mail of the same
kinds that is kept aside.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from authmilter.checks.classifier import Classifier
from authmilter.classifier.features import features
from authmilter.classifier.table import Opinion
from authmilter.evaluation import (
    Campaigns,
    Case,
    Found,
    bayes_weights,
    campaign_keys,
    fold_of,
    offline_checks,
    strengths,
    with_opinion,
)
from authmilter.header_text import text
from authmilter.log import configure
from authmilter.stored_mail import message_of
from tests.bench.symbols import Player, offline

FOLDS = 3
TAG = 5.0
OLD = ("spamassassin-public", "csdmc2010")
LETTERS = "hard-ham-1"  # newsletters that look like advertising, of 2002


class Mail(NamedTuple):
    """A message of the collection, with what the classifier thinks of it."""

    case: Case
    collection: str
    group: str
    opinion: Opinion = Opinion(0.0, 0.0, 0.0, 0.0)

    @property
    def is_old(self) -> bool:
        """From before 2011?"""
        return self.collection in OLD


def read(folder: Path, limit: int = 0) -> list[Mail]:
    """Play all messages, or every so many-th, through sessions without the classifier."""
    checks = offline_checks()
    weights: dict[str, Any] = {symbol: weight for check in checks for symbol, weight in check.scores.items()}
    player = Player(checks, offline())
    campaigns = Campaigns()
    mails = []
    with (folder / "train.jsonl").open(encoding="utf-8") as index, asyncio.Runner() as runner:
        for number, line in enumerate(index):
            if limit and number % limit:
                continue
            facts = json.loads(line)
            raw = (folder / facts["path"]).read_bytes()
            message = message_of(raw)
            if message is None:
                continue
            row = runner.run(player.play(facts, raw))
            numbers = sorted(features(message))
            campaign = campaigns.add(campaign_keys(text(message, b"subject"), numbers))
            numeric = {s: w for s in row.symbols if isinstance(w := weights.get(s), int | float)}
            found = tuple(Found(s, d, numeric.get(s, 0.0)) for s, d in zip(row.symbols, row.details, strict=True))
            case = Case(facts["path"], facts["label"] == "spam", found, row.score, False, numbers, campaign)
            mails.append(Mail(case, facts["set"], facts.get("group", "")))
    return [mail._replace(case=replace(mail.case, campaign=campaigns.find(mail.case.campaign))) for mail in mails]


def judged(learned: Sequence[Mail], others: Sequence[Mail]) -> list[Mail]:
    """These, with the opinion of a classifier that learned from those."""
    opinions = strengths([mail.case for mail in learned], [mail.case for mail in others], Classifier())
    return [mail._replace(opinion=opinion) for mail, opinion in zip(others, opinions, strict=True)]


def apart(mails: Sequence[Mail]) -> list[Mail]:
    """All, each judged by what learned from the campaigns of other folds."""
    result = []
    for fold in range(FOLDS):
        inside = [mail for mail in mails if fold_of(mail.case.campaign, FOLDS) == fold]
        result += judged([mail for mail in mails if fold_of(mail.case.campaign, FOLDS) != fold], inside)
    return result


Score = Callable[[Mail], float]


def by_rules(mail: Mail) -> float:
    """The score without the classifier."""
    return mail.case.score


def scoring(weights: dict[str, float]) -> Score:
    """The score with the classifier at these weights."""

    def score(mail: Mail) -> float:
        return with_opinion(mail.case, mail.opinion, weights).score

    return score


def by_rank(weights: dict[str, float]) -> Score:
    """The score with the margin of the classifier as it is, neither capped nor cut: for catch at a rate of our choice."""

    def score(mail: Mail) -> float:
        return mail.case.score + weights["bayes_spam"] * mail.opinion.margin / 4

    return score


def share(these: Sequence[bool]) -> float:
    """Percentage of those that are so."""
    return 100 * sum(these) / len(these) if these else 0.0


def catch(mails: Sequence[Mail], score: Score, rate: float, among: Callable[[Mail], bool] | None = None) -> float:
    """Percentage of the spam beyond the score that this share of the ham exceeds."""
    ham = sorted((score(mail) for mail in mails if not mail.case.spam), reverse=True)
    threshold = ham[int(rate * len(ham))] if ham else inf
    return share([score(m) > threshold for m in mails if m.case.spam and (among is None or among(m))])


def flagged(mails: Sequence[Mail], score: Score, among: Callable[[Mail], bool]) -> float:
    """Percentage of these that reach the default threshold."""
    return share([score(mail) >= TAG - 1e-9 for mail in mails if among(mail)])


class Line(NamedTuple):
    """A line of the table: what the peers reach, what is asked of us, and what we reach."""

    title: str
    spamassassin: str
    rspamd: str
    wanted: str
    ours: str


def is_ham(mail: Mail) -> bool:
    """Good mail?"""
    return not mail.case.spam


def is_spam(mail: Mail) -> bool:
    """Spam?"""
    return mail.case.spam


def is_letter(mail: Mail) -> bool:
    """A newsletter?"""
    return mail.group == LETTERS and not mail.case.spam


def is_list(mail: Mail) -> bool:
    """Out of the archives of mailing lists?"""
    return mail.collection == "ham-lists"


def lines(
    crossed: Sequence[Mail], forth: Sequence[Mail], back: Sequence[Mail], weights: dict[str, float]
) -> list[Line]:
    """The table: `crossed` by campaigns, `forth` learned on old mail, `back` on modern mail."""
    full = scoring(weights)
    letters = sum(map(is_letter, crossed))

    def at(mails: Sequence[Mail], score: Score, *rates: float) -> str:
        return " / ".join(f"{catch(mails, score, rate):.1f}" for rate in rates) + " %"

    def spam_of_lists(score: Score) -> str:
        return f"{catch(crossed, score, 0.005, is_list):.1f} %"

    def at_tag(mails: Sequence[Mail], score: Score) -> str:
        return f"{flagged(mails, score, is_spam):.1f} %, FP {flagged(mails, score, is_ham):.2f} %"

    def letters_at_tag(score: Score) -> str:
        number = sum(score(mail) >= TAG - 1e-9 for mail in crossed if is_letter(mail))
        return f"{number} of {letters} ({100 * number / max(1, letters):.1f} %)"

    rank = by_rank(weights)
    return [
        Line("untrained, at 0.5 / 0.1 % FP", "49.9 / 25.2 %", "27.4 / 14.8 %", "60 % / -", at(crossed, by_rules, 0.005, 0.001)),
        Line("untrained, at tag", "36.9 %, FP 0.21 %", "23.5 %, FP 0.21 %", "-", at_tag(crossed, by_rules)),
        Line("trained, at 0.5 / 0.1 % FP", "95.1 / 65.4 %", "94.0 / 17.4 %", "99 / 94 %", at(crossed, full, 0.005, 0.001)),
        Line("  the same, strength uncapped", "", "", "", at(crossed, rank, 0.005, 0.001)),
        Line("trained, at tag", "83.2 %, FP 0.37 %", "76.0 %, FP 0.11 %", "95 %, FP < 0.2 %", at_tag(crossed, full)),
        Line("old -> modern, at 0.5 % FP", "83 %", "82 %", "90 %", at(forth, full, 0.005)),
        Line("  the same, strength uncapped", "", "", "", at(forth, rank, 0.005)),
        Line("  the same, at tag", "53 %, FP 0 %", "51 %, FP 0.05 %", "-", at_tag(forth, full)),
        Line("modern -> old, at 0.5 % FP", "80 %", "41 %", "82 %", at(back, full, 0.005)),
        Line("  the same, strength uncapped", "", "", "", at(back, rank, 0.005)),
        Line("  the same, at tag", "88 %, FP 1.9 %", "36 %, FP 0.41 %", "-", at_tag(back, full)),
        Line("newsletters at tag, trained", "7 of 97", "6 of 97", "6 of 97 (6.2 %)", letters_at_tag(full)),
        Line("newsletters at tag, untrained", "", "", "-", letters_at_tag(by_rules)),
        Line("ham of lists at tag, untrained", "", "", "none", f"{flagged(crossed, by_rules, lambda m: is_list(m) and is_ham(m)):.2f} %"),
        Line("spam of lists, trained, 0.5 % FP", "61 %", "76 %", "90 %", spam_of_lists(full)),
        Line("  the same, strength uncapped", "", "", "", spam_of_lists(rank)),
    ]  # fmt: skip


def by_set(mails: Sequence[Mail], weights: dict[str, float]) -> list[tuple[str, int, float, float]]:
    """For each set and label: how many, and percentages that reach the default threshold, untrained and trained."""
    full = scoring(weights)
    columns = sorted({(mail.collection, mail.case.spam) for mail in mails})
    return [
        (
            f"{name} {'spam' if spam else 'ham'}",
            sum(m.collection == name and m.case.spam is spam for m in mails),
            flagged(mails, by_rules, lambda m, n=name, s=spam: m.collection == n and m.case.spam is s),  # type: ignore[misc]
            flagged(mails, full, lambda m, n=name, s=spam: m.collection == n and m.case.spam is s),  # type: ignore[misc]
        )
        for name, spam in columns
    ]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What is caught of spam, beside other filters.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="play one message in so many")
    parser.add_argument("--json", type=Path, help="write what was found of every message here, for fitting weights")
    arguments = parser.parse_args()
    configure("text", "error", open(os.devnull, "w"))  # noqa: SIM115  for as long as the process logs
    began = time.process_time()
    mails = read(arguments.folder, arguments.limit)
    crossed = apart(mails)
    old = [mail for mail in mails if mail.is_old]
    modern = [mail for mail in mails if not mail.is_old]
    forth, back = judged(old, modern), judged(modern, old)
    weights = bayes_weights(offline())
    print(
        f"{len(mails)} messages, {len({m.case.campaign for m in mails})} campaigns, {time.process_time() - began:.0f} s CPU"
    )
    rows = [Line("", "SpamAssassin", "rspamd", "wanted", "ours"), *lines(crossed, forth, back, weights)]
    for row in rows:
        print(f"{row.title:34}{row.spamassassin:24}{row.rspamd:20}{row.wanted:18}{row.ours}")
    print(f"\n{'reaches tag, %':34}{'messages':>9}{'untrained':>11}{'trained':>9}")
    for title, number, untrained, trained in by_set(crossed, weights):
        print(f"{title:34}{number:9}{untrained:11.2f}{trained:9.2f}")
    if arguments.json:
        with arguments.json.open("w", encoding="utf-8") as out:
            for name, these in (("crossed", crossed), ("forth", forth), ("back", back)):
                for mail in these:
                    facts = {"row": name, "set": mail.collection, "group": mail.group, "spam": mail.case.spam,
                             "fold": fold_of(mail.case.campaign, FOLDS), "margin": mail.opinion.margin,
                             "strength": mail.opinion.strength, "beyond": mail.opinion.beyond, "score": mail.case.score, "path": mail.case.name,
                             "symbols": sorted({found.symbol for found in mail.case.found})}  # fmt: skip
                    out.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
