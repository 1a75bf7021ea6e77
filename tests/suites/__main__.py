"""Runs the public conformance suites and prints a table: ``python -m tests.suites [NAME-PART...]``.

Below it stand the cases in which ours is not the answer of the suite, each with the reason, then the failures.  The
status is 1 if a case failed, or a suite is not at hand or not complete.
"""

import asyncio
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

from tests.shared import shared_folder
from tests.suites.everything import SUITES
from tests.suites.suite import Suite, Tally, run

SHOWN = 20  # failures of one suite


def table(tallies: Sequence[Tally]) -> str:
    """The table, the explained exceptions with those of one reason together, and the failures."""
    lines = [f"{'suite':30} {'cases':>6} {'passed':>7} {'explained':>10} {'failed':>7}"]
    lines += [
        f"{t.suite.name:30} {t.cases:6} {t.passed:7} {len(t.explained):10} {len(t.failed):7}"
        + ("" if t.cases == t.suite.size else f"  of {t.suite.size} cases")
        for t in tallies
    ]
    total = [
        sum(numbers)
        for numbers in zip(*((t.cases, t.passed, len(t.explained), len(t.failed)) for t in tallies), strict=True)
    ]
    lines.append(f"{'all':30} {total[0]:6} {total[1]:7} {total[2]:10} {total[3]:7}")
    for tally in tallies:
        if tally.explained:
            lines += ["", f"{tally.suite.name}: explained exceptions"]
            reasons = sorted((_reason(case), case.name) for case in tally.explained)
            for reason, group in groupby(reasons, key=lambda pair: pair[0]):
                names = ", ".join(name for _, name in group)
                lines.append(textwrap.fill(f"{reason}: {names}", 118, initial_indent="  ", subsequent_indent="      "))
        if tally.failed:
            lines += ["", f"{tally.suite.name}: FAILED", *(f"  {problem}" for problem in tally.failed[:SHOWN])]
            if len(tally.failed) > SHOWN:
                lines.append(f"  and {len(tally.failed) - SHOWN} more")
    return "\n".join(lines)


def _reason(case: object) -> str:
    explained = getattr(case, "explained", None)
    return f"{explained.reason}, so {explained.answer}" if explained else ""


def at_hand(suite: Suite) -> bool:
    """Whether the data of the suite is there."""
    return (shared_folder() / "data" / suite.folder).exists()


async def judge(suites: Sequence[Suite]) -> list[Tally]:
    """Run the suites one after the other."""
    return [await run(suite) for suite in suites]


def main(words: Sequence[str]) -> int:
    """Run the suites whose name holds one of the words, all if there are none."""
    wanted = [s for s in SUITES if not words or any(word.lower() in s.name.lower() for word in words)]
    missing = [suite for suite in wanted if not at_hand(suite)]
    tallies = asyncio.run(judge([suite for suite in wanted if at_hand(suite)]))
    if tallies:
        print(table(tallies))
    for suite in missing:
        print(f"{suite.name}: no {suite.folder} in {shared_folder() / 'data'} (set AUTHMILTER_SHARED)")
    return 0 if tallies and not missing and all(tally.complete for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
