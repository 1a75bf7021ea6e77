"""On how much ham and spam each symbol of content fires: what weights are made of.

    .venv/bin/python -m tests.bench.symbols FOLDER [--stage eom] [--check NAME ...] [--only SYMBOL ...] [--shown N] [--limit N]
                                            [--json FILE]

FOLDER holds what the preparation of the detection data writes: ``train.jsonl`` and the messages that it names.  Each is
played through a Session as its receiver would have got it, with the client, HELO, envelope and time of receipt of the
jsonl, but without DNS, so that no method of authentication has a result and no check of it a finding.

Prints, for each symbol: how many of ham and of spam have it, in all and as percentages of each set; its log-odds, which
are ln of the share of spam over that of ham, both with half a message added; and its default weight.  Below, how the sum
of the weights divides the two.  `--only` prints examples of messages with a symbol instead.  `--json` writes the symbols
of every message, for fitting weights.
"""

import argparse
import asyncio
import json
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from authmilter.check import Check, all_checks
from authmilter.config.schema import Arc, Config, Dkim, Dmarc, Identity, Iprev, Policy, Spf
from authmilter.files import load_files
from authmilter.log import configure
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField, Stage
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action
from tests.fakes import FakeDNS

CHUNK = 65535
MACROS = {b"j": b"mx.example.net", b"i": b"4bQX0000"}
FOLD = re.compile(rb"\n(?![ \t])")
REFUSED = 12.0  # the score that stands for an action
NOWHERE = "192.0.2.1"  # stands for a client that is not known


class Row(NamedTuple):
    """A message of the collection, and what was found of it."""

    facts: dict[str, Any]
    symbols: tuple[str, ...]
    details: tuple[str, ...]
    score: float

    @property
    def label(self) -> str:
        """``ham`` or ``spam``."""
        return str(self.facts["label"])

    @property
    def column(self) -> str:
        """The set, with its label."""
        return f"{self.facts['set']}/{self.label}"


class Player:
    """Plays messages through sessions of one rulebook, whose clock is the time of receipt."""

    def __init__(self, checks: tuple[Check, ...], config: Config) -> None:
        self.now = 0.0
        self.outcomes: list[Outcome] = []
        self.rules = build(config, checks, load_files(config), FakeDNS(), NullObserver(), lambda: self.now)

    async def play(self, facts: dict[str, Any], raw: bytes) -> Row:
        """One message, with LF line ends."""
        self.now = float(facts["time"] or time.time())
        head, _, body = raw.partition(b"\n\n")
        session = Session(self.rules, self.outcomes.append)
        ip = facts["ip"] or NOWHERE
        await session.connect(
            facts["rdns"].encode() or b"unknown", "6" if ":" in ip else "4", 25252, ip.encode(), MACROS
        )
        await session.helo(facts["helo"].encode("utf-8", "replace") or b"mail.example.com", MACROS)
        await session.mail([f"<{facts['mail_from']}>".encode("utf-8", "replace")], MACROS)
        await session.rcpt([f"<{facts['rcpt']}>".encode()], MACROS)
        await session.data(MACROS)
        session.headers(list(fields(head)))
        await session.end_of_headers(MACROS)
        body = body.replace(b"\n", b"\r\n")
        for start in range(0, len(body), CHUNK):
            session.body(body[start : start + CHUNK])
        await session.end_of_message(MACROS)
        session.close()
        outcome = self.outcomes.pop()
        found = [finding for stage, finding in outcome.tx.findings if stage is Stage.EOM]
        scored = dict(outcome.ruling.scored)
        score = sum(scored.get(symbol, 0.0) for symbol in {finding.symbol for finding in found})
        if outcome.ruling.verdict.action is Action.REJECT and score < REFUSED:
            score = REFUSED
        return Row(facts, tuple(f.symbol for f in found), tuple(f.detail for f in found), score)


def fields(head: bytes) -> Iterator[HeaderField]:
    """The header section as a milter hears it, CRLF at folds."""
    for line in FOLD.split(head):
        name, _, value = line.partition(b":")
        yield HeaderField(name, value.replace(b"\n", b"\r\n"))


def offline() -> Config:
    """Without authentication, and so that every message is played to its end."""
    return Config(
        identity=Identity(authserv_id="mx.example.net"),
        policy=Policy(enforce=False),
        iprev=Iprev(enabled=False),
        spf=Spf(enabled=False),
        dkim=Dkim(enabled=False),
        arc=Arc(enabled=False),
        dmarc=Dmarc(enabled=False),
    )


def rows(folder: Path, checks: tuple[Check, ...], limit: int) -> Iterator[Row]:
    """Every message of the collection, or each so many-th of them."""
    player = Player(checks, offline())
    with (folder / "train.jsonl").open() as index, asyncio.Runner() as runner:
        for number, line in enumerate(index):
            if limit and number % limit:
                continue
            facts = json.loads(line)
            yield runner.run(player.play(facts, (folder / facts["path"]).read_bytes()))


def table(found: list[Row], weights: dict[str, Any]) -> None:
    """Print the table of symbols, those that tell most first."""
    columns = sorted({row.column for row in found}, key=lambda c: (c.endswith("spam"), c))
    totals = Counter(row.column for row in found)
    sums = Counter(row.label for row in found)
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        for symbol in set(row.symbols):
            hits[symbol][row.column] += 1
            hits[symbol][row.label] += 1

    def odds(symbol: str) -> float:
        ham, spam = ((hits[symbol][label] + 0.5) / (sums[label] + 1) for label in ("ham", "spam"))
        return log(spam / ham)

    print(f"{'symbol':26}{'ham':>6}{'spam':>6}{'odds':>6}{'weight':>7}  {' '.join(f'{_short(c):>8}' for c in columns)}")
    for symbol in sorted(hits, key=odds, reverse=True):
        shares = " ".join(f"{100 * hits[symbol][c] / totals[c]:8.2f}" for c in columns)
        weight = weights.get(symbol, "")
        print(f"{symbol:26}{hits[symbol]['ham']:6}{hits[symbol]['spam']:6}{odds(symbol):6.1f}{weight!s:>7}  {shares}")
    print(f"{'messages':26}{sums['ham']:6}{sums['spam']:6}{'':13}  {' '.join(f'{totals[c]:8}' for c in columns)}")


def _short(column: str) -> str:
    name, _, label = column.partition("/")
    return f"{name[:6]}/{label[0]}"


def separation(found: list[Row]) -> None:
    """Print what the sum of the weights alone catches, at several thresholds, and at fixed rates of false positives."""
    ham = sorted((row.score for row in found if row.label == "ham"), reverse=True)
    spam = [row.score for row in found if row.label == "spam"]
    if not ham or not spam:
        return
    print("\nscore from        1       2       3       4       5       6")
    for name, scores in (("ham", ham), ("spam", spam)):
        print(f"{name:10}", *(f"{100 * sum(s >= t for s in scores) / len(scores):6.2f}%" for t in range(1, 7)))
    for rate in (0.001, 0.005):
        limit = ham[int(len(ham) * rate)]
        caught = sum(s > limit for s in spam) / len(spam)
        print(f"false positives {100 * rate:.1f}%: over {limit:.1f}, catches {100 * caught:.1f}%")


def examples(found: list[Row], only: set[str], shown: int) -> None:
    """Print messages that have one of these symbols, ham first."""
    for label in ("ham", "spam"):
        some = [row for row in found if row.label == label and only.intersection(row.symbols)]
        for row in some[:: max(1, len(some) // shown)][:shown]:
            named = [f"{s} {d!r}" for s, d in zip(row.symbols, row.details, strict=True) if s in only]
            print(row.facts["path"], "; ".join(named))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="On how much ham and spam each symbol fires.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", nargs="*", default=[], help="only these checks; else all of the end of the message")
    parser.add_argument("--only", nargs="*", default=[], help="print examples with these symbols")
    parser.add_argument("--shown", type=int, default=20, help="examples of ham, and of spam")
    parser.add_argument("--limit", type=int, default=0, help="play one message in so many")
    parser.add_argument("--json", type=Path, help="write the symbols of every message here, one JSON object per line")
    arguments = parser.parse_args()
    configure("text", "error", open(os.devnull, "w"))  # noqa: SIM115  for as long as the process logs
    checks = tuple(
        c for c in all_checks() if c.stage is Stage.EOM and (not arguments.check or c.name in arguments.check)
    )
    found = list(rows(arguments.folder, checks, arguments.limit))
    if arguments.json:
        with arguments.json.open("w") as out:
            for row in found:
                out.write(json.dumps({**row.facts, "symbols": row.symbols, "score": row.score}) + "\n")
    if arguments.only:
        examples(found, set(arguments.only), arguments.shown)
        return
    table(found, {symbol: weight for c in checks for symbol, weight in c.scores.items()})
    separation(found)


if __name__ == "__main__":
    main()
