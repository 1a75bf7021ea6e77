"""`authmilter evaluate`: measure on mail that is known to be good or spam how well the two are told apart."""

import argparse
import asyncio
import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, count
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authmilter.cli import EX_USAGE
from authmilter.cli.learn import EX_DATAERR, EX_PROBLEMS
from authmilter.cli.terminal import Progress, escaped, paint, plural, table
from authmilter.config import ini
from authmilter.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authmilter.config.schema import Config
    from authmilter.evaluation import Case
    from authmilter.policy import Rules

WORST = 10  # messages shown of each kind
RATES = (0.005, 0.001)  # of false positives
WIDTH = 40  # characters of the longest bar
BARS = 40  # at most
NAME = 100  # characters of a message's name
FEW = 5  # names of messages shown that are in both sources
_PATHS = "a message, an mbox or a tar archive, packed or not; a folder or maildir with all below it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The two sources, and what to write."""
    parser.add_argument("ham", metavar="HAM-SOURCE", help=f"good mail: {_PATHS}")
    parser.add_argument("spam", metavar="SPAM-SOURCE", help="spam, as the same")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--trained", action="store_true", help="only with a classifier that learned from the other folds")
    how.add_argument("--untrained", action="store_true", help="only without the classifier")
    parser.add_argument("--folds", type=int, default=3, help="parts that campaigns are divided into (default: 3)")
    parser.add_argument("--worst", type=int, default=WORST, help=f"messages shown of each kind (default: {WORST})")
    parser.add_argument(
        "--plots", metavar="FOLDER", help="write ROC, precision-recall and histogram as PNG and SVG there"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.epilog = (
        "Messages are played through the checks of content, under the weights and thresholds of the configuration (-c), "
        "without network, authentication or what the site remembers.  Copies are left out, and what is in both sources.  What "
        "the classifier of this site has learned is not used: one learns afresh from the campaigns of the other folds.  The "
        "log-odds of a symbol tell how much more often it is in spam than in good mail, as a natural logarithm: 2.3 is ten "
        "times as often, and what is below 0 is rather in good mail.  Plots need the extra authmilter[plots].  Exit status: 1 if a "
        "path could not be read, 65 if there is no message in one of the sources."
    )


def run(args: argparse.Namespace) -> int:
    """Measure, and report; raises ConfigError, and StartError where plots can't be drawn."""
    from authmilter.log import configure

    if not 2 <= args.folds <= 20:
        print("authmilter evaluate: --folds takes a number from 2 to 20", file=sys.stderr)
        return EX_USAGE
    if args.plots:  # before all the work
        _plotter()
        _make_folder(Path(args.plots))
    path = ini.find(args.config)
    config = ini.load(path, check_files=False)
    configure("text", "error")
    with _progress() as progress:
        mail = _play(args, config, progress)
        progress.clear()
        for problem in mail.problems:
            print(f"authmilter evaluate: {escaped(problem)}", file=sys.stderr)
        for kind, source in ((False, args.ham), (True, args.spam)):
            if not any(case.spam is kind for case in mail.cases):
                where = "that is not in both sources" if mail.in_both else f"in {escaped(source)}"
                print(f"authmilter evaluate: there is no message {where}", file=sys.stderr)
                return EX_DATAERR
        report = _reports(args, path, config, mail, progress)
    if args.plots:
        _plot(args.plots, report)
    if args.json:
        json.dump({**report, "modes": {name: _public(mode) for name, mode in report["modes"].items()}}, sys.stdout)
        print()
    else:
        _show(report, args.plots)
    return EX_PROBLEMS if mail.problems else 0


@contextmanager
def _progress() -> "Iterator[Progress]":
    progress = Progress(sys.stderr.isatty())
    try:
        yield progress
    finally:
        progress.clear()


@dataclass
class _Mail:
    """Every message of the sources, what could not be read, and what was left out."""

    cases: "list[Case]" = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: int = 0
    copies: int = 0
    in_both: list[str] = field(default_factory=list)


def _play(args: argparse.Namespace, config: "Config", progress: Progress) -> _Mail:
    from authmilter.classifier.spool import identity
    from authmilter.evaluation import Campaigns, Player, campaign_keys
    from authmilter.header_text import text
    from authmilter.stored_mail import StoredMail

    player = Player(config)
    campaigns = Campaigns()
    cases: dict[bytes, Case] = {}
    both: dict[bytes, str] = {}
    found = _Mail()
    seen = 0
    sources = [(StoredMail([args.ham]), False), (StoredMail([args.spam]), True)]
    size = sum(mail.size for mail, _ in sources)
    before = 0
    with asyncio.Runner() as runner:
        for mail, spam in sources:
            for message in mail:
                seen += 1
                progress.show(before + mail.done, size, plural(seen, "message"))
                who = identity(message)
                if who in cases:
                    if cases[who].spam is spam:
                        found.copies += 1
                    else:
                        both[who] = mail.path
                    continue
                case = runner.run(player.play(message, spam, mail.path))
                keys = campaign_keys(text(message, b"subject"), case.features)
                cases[who] = replace(case, campaign=campaigns.add(keys))
            before += mail.size
            found.problems += mail.problems
            found.skipped += mail.skipped
    # What is in both is wrong in one of them, and nobody here knows in which.
    found.in_both = list(both.values())
    for who in both:
        del cases[who]
    found.cases = [replace(case, campaign=campaigns.find(case.campaign)) for case in cases.values()]
    return found


def _reports(
    args: argparse.Namespace, path: str | None, config: "Config", mail: _Mail, progress: Progress
) -> dict[str, Any]:
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier.training import STEPS
    from authmilter.evaluation import crossed, least_learned, rules_of

    rules = rules_of(config)
    options: Classifier = config.of(Classifier)
    cases = mail.cases
    ham, spam = ([case.campaign for case in cases if case.spam is kind] for kind in (False, True))
    report: dict[str, Any] = {
        "configuration": path,
        "ham": len(ham),
        "spam": len(spam),
        "ham_campaigns": len(set(ham)),
        "spam_campaigns": len(set(spam)),
        "skipped": mail.skipped,
        "copies": mail.copies,
        "in_both": mail.in_both,
        "folds": args.folds,
        "thresholds": {name: getattr(rules, name) for name in ("tag", "quarantine", "reject")},
        "modes": {},
    }
    if not args.trained:
        report["modes"]["untrained"] = _report(cases, rules, args.worst)
    if args.trained or (options.enabled and not args.untrained):
        done = count(1)

        def step() -> None:
            progress.show(next(done), STEPS * args.folds, "training")

        trained = crossed(cases, config, args.folds, step)
        progress.clear()
        learned_ham, learned_spam = least_learned(cases, args.folds)
        report["modes"]["trained"] = {
            **_report(trained, rules, args.worst),
            "learned": {"ham": learned_ham, "spam": learned_spam},
            "silent": learned_ham < options.minimum_ham or learned_spam < options.minimum_spam,
            "strength": min(1.0, learned_ham / options.enough_ham),
        }
    return report


def _report(cases: "Sequence[Case]", rules: "Rules", worst: int) -> dict[str, Any]:
    from authmilter.evaluation import area, at_rate, curve, discrimination

    ham, spam = sum(not case.spam for case in cases), sum(case.spam for case in cases)
    confusion = {}
    for name in ("tag", "quarantine", "reject"):
        threshold = getattr(rules, name)
        if threshold is None:
            continue
        reached = [
            case.spam
            for case in cases
            if case.worth(threshold) >= threshold - 1e-9 and not (name == "reject" and case.by_opinion_alone)
        ]
        caught = sum(reached)
        flagged = len(reached) - caught
        confusion[name] = {
            "threshold": threshold,
            "spam_caught": caught,
            "spam_missed": spam - caught,
            "ham_flagged": flagged,
            "ham_passed": ham - flagged,
            "catch": caught / spam,
            "false_positives": flagged / ham,
            "precision": caught / len(reached) if reached else None,
        }
    points = curve(cases)
    rates = []
    for rate in RATES:
        found = at_rate(cases, rate)
        limit = found.threshold if found.threshold < inf else None
        rates.append(
            {"rate": rate, "over": limit, "catch": found.caught / spam, "false_positives": found.flagged / ham}
        )
    by_score = sorted(cases, key=lambda case: (case.worth(inf), case.name))
    return {
        "confusion": confusion,
        "rates": rates,
        "area": area(points),
        "symbols": [
            {**one._asdict(), "weight": rules.actions.get(one.symbol) or rules.numbers.get(one.symbol, 0.0)}
            for one in discrimination(cases)
        ],
        "histogram": _histogram(cases),
        "missed": [_described(case) for case in [case for case in by_score if case.spam][: max(0, worst)]],
        "flagged": [
            _described(case) for case in [case for case in reversed(by_score) if not case.spam][: max(0, worst)]
        ],
        "curve": points,
    }


def _histogram(cases: "Sequence[Case]") -> list[dict[str, float | None]]:
    """How much mail has a score from each number to the next; what is refused whatever its score is at the end, from None."""
    scores = [case.worth(-inf) for case in cases if not case.refused]
    least, most = min(scores, default=0.0), max(scores, default=0.0)
    width = next(
        w for w in chain.from_iterable((n, 2 * n, 5 * n) for n in map((10).__pow__, count())) if w * BARS > most - least
    )
    bins: dict[int | None, list[int]] = {}
    for case in cases:
        place = None if case.refused else int(case.worth(-inf) // width) * width
        bins.setdefault(place, [0, 0])[case.spam] += 1
    places: list[int | None] = list(range(int(least // width) * width, int(most // width) * width + 1, width))
    places += [None] if None in bins else []
    nothing = [0, 0]
    return [
        {"from": place, "ham": bins.get(place, nothing)[0], "spam": bins.get(place, nothing)[1]} for place in places
    ]


def _described(case: "Case") -> dict[str, Any]:
    return {
        "name": case.name,
        "path": case.path,
        "score": round(case.score, 3),
        "refused": case.refused,
        "symbols": [one._asdict() for one in sorted(case.found, key=lambda found: -abs(found.weight))],
    }


def _public(mode: dict[str, Any]) -> dict[str, Any]:
    """The curve has no infinity in JSON: what is refused whatever its score has none."""
    points = [{"score": score if score < inf else None, "ham": ham, "spam": spam} for score, ham, spam in mode["curve"]]
    return {**mode, "curve": points}


def _show(report: dict[str, Any], plots: str | None) -> None:
    ham = f"{plural(report['ham'], 'good message')} in {plural(report['ham_campaigns'], 'campaign')}"
    print(f"{ham}, {report['spam']:,} spam in {plural(report['spam_campaigns'], 'campaign')}")
    source = report["configuration"]
    print(f"weights and thresholds: {'the built-in defaults' if source is None else escaped(source)}")
    if report["copies"]:
        print(f"left out: {plural(report['copies'], 'message')} found once more")
    if report["in_both"]:
        names = ", ".join(map(escaped, report["in_both"][:FEW])) + (", ..." if len(report["in_both"]) > FEW else "")
        print(f"left out: {plural(len(report['in_both']), 'message')} found in both sources: {names}")
    if report["skipped"]:
        print(f"left out: {plural(report['skipped'], 'file')} without a message")
    for name, mode in report["modes"].items():
        _show_mode(name, mode, report)
    if plots:
        print(f"\nplots are in {escaped(plots)}")


def _show_mode(name: str, mode: dict[str, Any], report: dict[str, Any]) -> None:
    how = (
        f"trained, by campaign in {report['folds']} folds" if name == "trained" else "untrained: without the classifier"
    )
    print("\n" + paint(how.capitalize(), "title"))
    if name == "trained":
        _show_learned(mode)
    rows = [["threshold", "", "spam caught", "missed", "ham flagged", "passed", "catch", "false positives"]]
    for title, row in mode["confusion"].items():
        numbers = [f"{row[key]:,}" for key in ("spam_caught", "spam_missed", "ham_flagged", "ham_passed")]
        rows.append([title, f"{row['threshold']:g}", *numbers, f"{row['catch']:.1%}", f"{row['false_positives']:.2%}"])
    print("\n".join(table(rows, right=7)) if len(rows) > 1 else "no threshold is set")
    print()
    for row in mode["rates"]:
        over = "" if row["over"] is None else f", over a score of {row['over']:.2f}"
        print(f"catches {row['catch']:.1%} at {row['rate']:.1%} false positives{over}")
    print(f"area under the ROC curve {mode['area']:.4f}\n")
    _show_histogram(mode["histogram"], report)
    # The classifier changes nothing about the others.
    other = {one["symbol"] for one in report["modes"]["untrained"]["symbols"]} if len(report["modes"]) > 1 else set()
    symbols = [one for one in mode["symbols"] if name == "untrained" or one["symbol"] not in other]
    rows = [["symbol", "weight", "ham", "spam", "log-odds"]]
    rows += [
        [s["symbol"], _weight(s["weight"]), f"{s['ham']:,}", f"{s['spam']:,}", f"{s['odds']:+.1f}"] for s in symbols
    ]
    print("\n" + "\n".join(table(rows, right=4)))
    for title, key in (("Spam with the lowest score", "missed"), ("Good mail with the highest score", "flagged")):
        if mode[key]:
            print("\n" + paint(title, "title"))
        for one in mode[key]:
            print(f"{'refused' if one['refused'] else format(one['score'], '.2f'):>7}  {_cut(one['name'])}")
            reasons = [
                f"{r['symbol']} {r['action'] or _weight(r['weight'])}"
                for r in one["symbols"]
                if r["weight"] or r["action"]
            ]
            print(f"{'':9}{', '.join(reasons) or 'nothing was found'}")
            print(f"{'':9}{paint(escaped(one['path']), 'dim')}")


def _show_learned(mode: dict[str, Any]) -> None:
    learned = f"{mode['learned']['ham']:,} ham and {mode['learned']['spam']:,} spam"
    if mode["silent"]:
        print(f"The classifier says nothing where it has learned as little as {learned}: see [classifier] minimum_ham.")
    elif mode["strength"] < 1:
        print(
            f"Having learned as little as {learned}, it has {mode['strength']:.0%} of its strength: see [classifier] enough_ham."
        )


def _weight(weight: float | str) -> str:
    return weight if isinstance(weight, str) else f"{weight:+g}"


def _show_histogram(bins: list[dict[str, float | None]], report: dict[str, Any]) -> None:
    """A bar of each kind per score, as long as its share of that kind."""
    print("  score     ham    spam  share of ham (-) and of spam (#)")
    for row in bins:
        bars = []
        for kind, mark in (("ham", "-"), ("spam", "#")):
            length = (row[kind] or 0) / report[kind] * WIDTH
            bars.append(mark * max(1 if row[kind] else 0, round(length)))
        score = "refused" if row["from"] is None else row["from"]
        print(f"{score:>7} {row['ham']:7,} {row['spam']:7,}  {''.join(bars)}".rstrip())


def _cut(name: str) -> str:
    shown = escaped(name)
    return shown if len(shown) <= NAME else shown[: NAME - 3] + "..."


def _plotter() -> Any:
    try:
        from authmilter.cli import evaluation_plots
    except ImportError:
        raise StartError("--plots needs matplotlib: pip install 'authmilter[plots]'") from None
    return evaluation_plots


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        raise StartError(f"{error.filename or folder}: {error.strerror}") from None


def _plot(folder: str, report: dict[str, Any]) -> None:
    try:
        _plotter().draw(Path(folder), report["modes"])
    except OSError as error:
        raise StartError(f"{error.filename or folder}: {error.strerror}") from None
