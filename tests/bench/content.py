"""What the checks of content cost, in process: no content, content, and content with a classifier that has learned.

    .venv/bin/python -m tests.bench.content [--corpus FOLDER | --mail PATH ...] [--passes N] [--limit N] [--top N]

Prints milliseconds of CPU per message by size, and weighted by the mix of `tests.bench.run`, whose workload it takes; where
that can't be made, a small one of its own.  `--mail` takes stored mail instead, such as one's own mailbox: real mail has
markup that made-up mail has not.  Below, what each check takes: with what it is the first to ask for, since the parts, texts
and links of a message are found once, and without that.

All that is on by default runs, authentication and policy with it.  The table of the classifier has a random weight for
everything, so that nothing is cheaper than in one that has learned much.
"""

import argparse
import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from authmilter.check import Check, Tools, all_checks
from authmilter.classifier import table
from authmilter.classifier.features import SLOTS
from authmilter.config import ini
from authmilter.config.schema import Config, Identity, Policy
from authmilter.evaluation import as_received
from authmilter.evidence import Finding
from authmilter.files import load_files
from authmilter.log import configure
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.model import Stage, Transaction
from authmilter.session import Rulebook, build
from authmilter.stored_mail import StoredMail
from tests.bench import rig
from tests.bench.corpus import EPOCH, SIZES, Mail, Zone, generate, read, weighted
from tests.bench.session import check_all, one
from tests.shared import shared_folder

# Of the checks at the end of a message those that judge its envelope and author, and were there before content was read.
NOT_CONTENT = frozenset(
    ("allowed", "ambiguous_from", "correspondents", "forged_flood", "oversized", "psl_differs", "reputation")
)
AIMS = {"2 KB": 3.0, "10 KB": 2.0, "weighted": 3.0}  # milliseconds, of everything


def is_content(check: Check) -> bool:
    """Does it read what is in a message?"""
    return check.stage is Stage.EOM and check.name not in NOT_CONTENT


def config_with(path: str) -> Config:
    """The defaults, with a table of the classifier there; enforcing nothing, as `answers` asks."""
    read = ini.load(None, f"[classifier]\ntable = {path}\n", check_files=False)
    return replace(read, identity=Identity(authserv_id="mx.bench.test"), policy=Policy(enforce=False))


def learned(path: Path) -> None:
    """Write a table there as of a classifier that has learned much."""
    chance = random.Random(1)
    curve = table.Curve(1.0, 3.0, -1.0, -3.0)
    table.write(path, (chance.gauss(0, 0.5) for _ in range(SLOTS)), bias=0.0, curve=curve, ham=50_000, spam=50_000)


def rulebook(config: Config, checks: tuple[Check, ...], zone: Zone) -> Rulebook:
    """As a worker has it, with metrics and log."""
    layout = layout_for(checks)
    configure("text", "info", open(os.devnull, "w"))  # noqa: SIM115  open for as long as the process logs
    metrics = Metrics(Shared(2, layout), 1, layout)
    return build(config, checks, load_files(config), zone, metrics, lambda: EPOCH + 60.0)


def stored(paths: Sequence[str], limit: int) -> list[Mail]:
    """Messages of a mailbox, as if they came from one client: at most so many of each size."""
    mails: list[Mail] = []
    left = dict.fromkeys(SIZES, limit or 200)
    for message in StoredMail(paths):
        fields, sender, recipient = as_received(message)
        pairs = tuple((field.name, field.value) for field in fields)
        octets = sum(len(name) + len(value) + 3 for name, value in pairs) + len(message.body)
        mail = Mail("", b"192.0.2.1", b"unknown", b"mail.example.com", sender, recipient, pairs, message.body, octets)
        if left[mail.size]:
            left[mail.size] -= 1
            mails.append(mail)
    return mails


async def cost(rules: Rulebook, mails: Sequence[Mail], passes: int) -> float:
    """Milliseconds of CPU per message: the least of the passes, which other processes disturb least."""
    best = float("inf")
    for _ in range(passes):
        began = time.process_time()
        for mail in mails:
            await one(rules, mail)
        best = min(best, time.process_time() - began)
    return best / len(mails) * 1e3


class Shares:
    """What each check takes of a message: by itself, and with what it is the first to ask for."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = defaultdict(float)

    def timed(self, check: Check) -> Check:
        """The check, which adds its seconds; one that waits is left as it is."""
        if check.waits:
            return check
        run: Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]] = check.run

        def twice(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            clock = time.process_time
            began = clock()
            found = list(run(tx, tools))  # type: ignore[arg-type]
            done = clock()
            list(run(tx, tools))  # type: ignore[arg-type]
            # All that others share has been found now.
            self.own[check.name] += clock() - done
            self.first[check.name] += done - began
            return iter(found)

        return replace(check, run=twice)


async def shares(
    config: Config, checks: tuple[Check, ...], zone: Zone, mails: Sequence[Mail]
) -> dict[str, tuple[float, float]]:
    """Milliseconds of each check of content per message: with what it is the first to ask for, and without."""
    found = Shares()
    rules = rulebook(config, tuple(found.timed(c) if is_content(c) else c for c in checks), zone)
    for mail in mails:
        await one(rules, mail)
    scale = 1e3 / len(mails)
    return {name: (found.first[name] * scale, own * scale) for name, own in found.own.items()}


def report(costs: Mapping[str, Mapping[str, float]], sizes: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    """The table of milliseconds: a line for each way, a column for each size."""
    columns = [*sizes, "weighted"]
    lines = [f"{'':32}" + "".join(f"{size:>10}" for size in columns)]
    lines.append(f"{'messages':32}" + "".join(f"{counts[size]:>10}" for size in sizes))
    for way, by_size in costs.items():
        every = {**by_size, "weighted": weighted(dict(by_size))}
        lines.append(f"{way:32}" + "".join(f"{every[size]:>10.2f}" for size in columns))
    lines.append(
        f"{'at most':32}" + "".join(f"{AIMS[size]:>10.2f}" if size in AIMS else f"{'':10}" for size in columns)
    )
    return lines


async def measure(zone: Zone, mails: Sequence[Mail], scratch: Path, passes: int, top: int) -> list[str]:
    """Measure all, and make lines of it."""
    checks = all_checks()
    learned(scratch / "learned.table")
    without, with_table = config_with(str(scratch / "none.table")), config_with(str(scratch / "learned.table"))
    ways = {
        "no content": rulebook(without, tuple(c for c in checks if not is_content(c)), zone),
        "content": rulebook(without, checks, zone),
        "content, classifier has learned": rulebook(with_table, checks, zone),
    }
    by_size = {size: [mail for mail in mails if mail.size == size] for size in SIZES}
    sizes = [size for size, those in by_size.items() if those]
    costs: dict[str, dict[str, float]] = {way: {} for way in ways}
    for rules in ways.values():
        if all(mail.kind for mail in mails):
            await check_all(rules, mails)  # a filter that does not do its work is not measured
        for size in sizes:
            await cost(rules, by_size[size], 1)
    for size in sizes:  # by turns, so that a slow moment of the machine meets all
        for way, rules in ways.items():
            costs[way][size] = await cost(rules, by_size[size], passes)
    lines = report(costs, sizes, {size: len(by_size[size]) for size in sizes})
    parts = {size: await shares(with_table, checks, zone, by_size[size]) for size in sizes}
    ranked: list[tuple[float, float, str]] = []
    for name in parts[sizes[0]]:
        first, own = (weighted({size: parts[size][name][place] for size in sizes}) for place in (0, 1))
        ranked.append((first, own, name))
    ranked.sort(reverse=True)
    rest = [sum(first for first, _, _ in ranked[top:]), sum(own for _, own, _ in ranked[top:])]
    lines += ["", f"{'of content, weighted':32}{'first to ask':>14}{'by itself':>14}"]
    lines += [f"{name:32}{first:>14.3f}{own:>14.3f}" for first, own, name in ranked[:top]]
    lines.append(f"{f'{len(ranked[top:])} others':32}{rest[0]:>14.3f}{rest[1]:>14.3f}")
    return lines


def workload(args: argparse.Namespace, scratch: Path) -> tuple[Zone, list[Mail], str]:
    """The messages, the DNS that speaks about them, and what they are."""
    if args.mail:
        return Zone(""), stored(args.mail, args.limit), "stored mail"
    folder = args.corpus
    if folder is None and (shared_folder() / "bench").is_dir() and shutil.which("gcc"):
        rig.build()
        folder = rig.CORPUS
    name = "the workload of tests.bench.run"
    if folder is None:
        folder, name = scratch, "a small workload, for want of that of tests.bench.run"
        generate(folder)
    return Zone((folder / "dns.conf").read_text()), read(folder, args.limit), name


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--corpus", type=Path, help="folder of the workload")
    what.add_argument("--mail", nargs="+", metavar="PATH", help="stored mail instead: files, folders, mbox, tar")
    parser.add_argument("--passes", type=int, default=3, help="of which the best counts (3)")
    parser.add_argument("--limit", type=int, default=0, help="only so many messages; of --mail of each size (200)")
    parser.add_argument("--top", type=int, default=10, help="checks shown by themselves (10)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        zone, mails, what_it_is = workload(args, Path(name))
        print(f"milliseconds of CPU per message, best of {args.passes} passes; {what_it_is}")
        print("\n".join(asyncio.run(measure(zone, mails, Path(name), args.passes, args.top))))


if __name__ == "__main__":
    main()
