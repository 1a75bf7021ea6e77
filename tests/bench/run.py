"""Measures authmilter under load, beside other filters where wanted, and checks its answers.

    .venv/bin/python -m tests.bench.run [WHAT ...] [--peer NAME ...] [--seconds N] [--rounds N]

WHAT is one or more of warm sizes engines tcp cold sign workers growth memory start stall overload, or `all`; without it:
warm sizes start, in less than a minute.  The tables go to standard output; rows, tables and plots into a folder below
tests/bench/var/runs.  Takes root (everything runs in namespaces of its own), gcc, unbound and iproute2, and the folder
`bench` of the shared data (AUTHMILTER_SHARED, or ../shared) with the load generator and the workload's generator.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench import measure, report
from tests.bench.answers import WrongAnswerError
from tests.bench.rig import VAR, Authmilter, Rig, build, enter_namespaces, progress
from tests.shared import ROOT

SHORT = ("warm", "sizes", "start")


def numbers(text: str) -> list[int]:
    """Numbers parted by commas."""
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    """The command line."""
    default = measure.Options()
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.run", description=(__doc__ or "").partition("\n")[0], epilog="See README.md."
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{' '.join(measure.ALL)}, or all ({' '.join(SHORT)})")
    parser.add_argument("--peer", action="append", default=[], help="such as chain-opendkim-opendmarc, rspamd-auth")
    parser.add_argument("--seconds", type=float, default=default.seconds, help=f"of one run ({default.seconds:g})")
    parser.add_argument(
        "--rounds", type=int, default=default.rounds, help=f"of which the median counts ({default.rounds})"
    )
    parser.add_argument("--messages", type=int, default=default.messages, help=f"memory: messages ({default.messages})")
    parser.add_argument("--connections", type=numbers, default=default.connections, help="growth: such as 1,16,512")
    parser.add_argument("--domains", type=numbers, default=default.domains, help="growth: such as 1000,10000,100000")
    parser.add_argument(
        "--rate", type=float, default=default.rate, help=f"stall: good mail a second ({default.rate:g})"
    )
    parser.add_argument("--waiting", type=int, default=default.waiting, help=f"stall: sessions ({default.waiting})")
    parser.add_argument("--overload", type=numbers, default=default.overload, help="overload: connections at once")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", help="of authmilter's configuration"
    )
    parser.add_argument("--authmilter", default=Authmilter.executable, metavar="PATH", help="the executable")
    args = parser.parse_args()
    unknown = set(args.what) - measure.ALL.keys() - {"all"}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there are {' '.join(measure.ALL)} and all")
    return args


def settings(assignments: list[str]) -> dict[str, dict[str, str]]:
    """SECTION.OPTION=VALUE to sections."""
    sections: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        section, _, option = name.rpartition(".")
        sections.setdefault(section, {})[option] = value
    return sections


def facts(args: argparse.Namespace) -> list[str]:
    """Where and how this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    return [
        f"`{shlex.join(['python', '-m', 'tests.bench.run', *sys.argv[1:]])}`",
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, commit {commit}, Python {platform.python_version()}",
        f"{os.cpu_count()} x {cpu}, Linux {platform.release()}, load average at start {os.getloadavg()[0]:.1f}",
        "CPU is user and system time of all processes of a filter; latency is from CONNECT to the final reply",
    ]


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"ended by signal {number}")


def run(args: argparse.Namespace) -> int:
    """Measure all that is wanted; what was measured is kept even if something fails."""
    build()
    known = facts(args)
    what = list(measure.ALL) if "all" in args.what else args.what or list(SHORT)
    options = measure.Options(
        **{name: getattr(args, name) for name in ("seconds", "rounds", "messages", "connections", "domains", "rate")},
        peers=args.peer,
        waiting=args.waiting,
        overload=args.overload,
    )
    folder = VAR / "runs" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    status = 0
    with tempfile.TemporaryDirectory(prefix="amb") as scratch, (folder / "rows.jsonl").open("w") as log:
        rig = Rig(Path(scratch))
        try:
            known += [f"missing: {reason}" for reason in rig.peers(args.peer)[1]]
            for number, name in enumerate(what, 1):
                progress(f"[{number}/{len(what)}] {name}: {(measure.ALL[name].__doc__ or '').strip()}")
                try:
                    for row in measure.ALL[name](rig, options):
                        rows.append(row)
                        log.write(json.dumps(row) + "\n")
                        log.flush()
                except (WrongAnswerError, RuntimeError) as error:
                    status = 1
                    known.append(f"**{name} FAILED: {error}**")
                    progress(f"FAILED {name}: {error}")
        finally:
            rig.close()
            text = report.markdown(rows, known)
            (folder / "report.md").write_text(text)
    drawn = report.plots(rows, folder)
    print(text)
    progress(f"{folder}: rows.jsonl, report.md" + "".join(f", {path.name}" for path in drawn))
    if not drawn and rows:
        progress("no plots: matplotlib is not installed (the extra `bench`), or there is nothing to draw")
    return status


def main() -> None:
    """The command."""
    args = parse()
    enter_namespaces()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _terminated)  # so that everything is stopped in order
    Authmilter.executable, Authmilter.settings = args.authmilter, settings(args.set)
    sys.exit(run(args))


if __name__ == "__main__":
    main()
