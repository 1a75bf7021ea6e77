"""Machine instructions per message, counted by valgrind: a figure that a busy machine does not change.

    .venv/bin/python -m tests.bench.instructions [--record]

The same messages are run in process once, and so many times more in a second run; start and first use of each cache
cancel out.  `--record` writes the figure to instructions.json, which the tests compare with.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.corpus import generate
from tests.shared import ROOT

RECORD = Path(__file__).parent / "instructions.json"
MAILS, ROUNDS = 60, 3
KEY = f"{sys.version_info.major}.{sys.version_info.minor} {platform.machine()}"
TOLERANCE = 1.10
HOW = "`python -m tests.bench.instructions --record` records it anew"


def available() -> bool:
    """Whether there is a valgrind."""
    return shutil.which("valgrind") is not None


def _start(folder: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
            sys.executable,
            *("-m", "tests.bench.session", "--corpus", str(folder), "--limit", str(MAILS), "--count", str(count)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def count(folder: Path) -> int:
    """Instructions per message of the small workload in `folder`; takes two cores for some ten seconds."""
    runs = [_start(folder, MAILS), _start(folder, MAILS * ROUNDS)]
    totals = []
    try:
        for run in runs:
            _, errors = run.communicate(timeout=300)
            found = re.search(r"I\s+refs:\s+([\d,]+)", errors)
            if run.returncode or not found:
                raise RuntimeError(f"valgrind failed: {errors[-2000:]}")
            totals.append(int(found[1].replace(",", "")))
    finally:
        for run in runs:
            run.kill()
            run.wait()
    return (totals[1] - totals[0]) // (MAILS * (ROUNDS - 1))


def recorded() -> int | None:
    """The figure for this version of Python and this kind of machine."""
    figures: dict[str, int] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return figures.get(KEY)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write it to {RECORD.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch), MAILS)
        figure = count(Path(scratch))
    print(f"{figure:,} instructions a message with Python {KEY}; recorded: {recorded()}")
    if args.record:
        figures = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        RECORD.write_text(json.dumps({**figures, KEY: figure}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
