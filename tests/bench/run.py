"""Measures authmilter on the shared workload, and writes a table: CPU per message, latency, memory.

    .venv/bin/python -m tests.bench.run [PEER ...]

Needs root (private network namespaces), gcc, unbound and iproute2.  The load generator, the workload and the runner are
those of the folder ``bench`` of the shared data (AUTHMILTER_SHARED, or ../shared); peers are its names, such as
``authmilter authmilter-libmilter opendkim-verify``.  What is built and generated goes to tests/bench/var.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.shared import shared_folder

HERE = Path(__file__).parent
VAR = HERE / "var"
KINDS = {
    "c1": "1 connection",
    "c16": "16 connections",
    "c64": "64 connections",
    "c16m100": "16 connections, reused",
    "size2k": "2 KB",
    "size10k": "10 KB",
    "size50k": "50 KB",
    "size500k": "500 KB",
    "cold64": "cold DNS, 64 connections",
}


def build() -> None:
    """Copy the shared bench, compile its programs and generate the workload, each only once."""
    VAR.mkdir(exist_ok=True)
    source = shared_folder() / "bench"
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, VAR / path.name)
    for name in ("milterload", "dnsdelay"):
        if not (VAR / name).exists():
            subprocess.run(
                ["gcc", "-O2", "-Wall", "-o", str(VAR / name), str(VAR / f"{name}.c"), "-lpthread"], check=True
            )
    if not (VAR / "var" / "corpus" / "dns.conf").exists():
        subprocess.run([sys.executable, "gen.py"], cwd=VAR, check=True)


def measure(peers: list[str], seconds: float) -> list[dict[str, Any]]:
    """Run the peers; returns the rows that this run added."""
    results = VAR / "var" / "results.jsonl"
    before = len(results.read_text().splitlines()) if results.exists() else 0
    env = {
        **os.environ,
        "AUTHMILTER": str(Path(sys.executable).parent / "authmilter"),
        "RUN_SECS": str(seconds),
        "SOAK_SECS": str(seconds * 4),
    }
    subprocess.run([sys.executable, "bench.py", "run", *peers], cwd=VAR, env=env, check=True)
    return [json.loads(line) for line in results.read_text().splitlines()[before:]]


def table(rows: list[dict[str, Any]]) -> str:
    """The medians as Markdown."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["peer"], row["kind"]].append(row)
    lines = [
        "| | load | CPU ms a message | messages/s | p50 ms | p99 ms | PSS MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (peer, kind), runs in found.items():
        if kind in KINDS:
            columns = [median(run[key] for run in runs) for key in ("cpu_ms", "msgs_s", "p50", "p99", "pss_mib")]
            cpu, rate, p50, p99, pss = columns
            lines.append(f"| {peer} | {KINDS[kind]} | {cpu:.2f} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {pss:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Build, measure, show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peers", nargs="*", default=["authmilter", "authmilter-libmilter", "authmilter-sign"])
    parser.add_argument("--seconds", type=float, default=4.0, help="wall time of one warm run")
    args = parser.parse_args()
    build()
    text = table(measure(args.peers, args.seconds))
    (VAR / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
