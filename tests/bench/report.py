"""Rows to tables in Markdown, and to plots."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.corpus import SIZES, weighted

Row = dict[str, Any]
OURS = "authmilter"
COLUMNS = {
    "cpu_ms": ("CPU ms a message", ".3f"),
    "msgs_s": ("messages/s", ".0f"),
    "p50": ("p50 ms", ".2f"),
    "p99": ("p99 ms", ".2f"),
    "whole_p50": ("p50 ms with connecting", ".2f"),
    "whole_p99": ("p99 ms with connecting", ".2f"),
    "whole_max": ("longest, ms", ".0f"),
    "pss_mib": ("PSS MiB", ".0f"),
    "hit_rate": ("cache hit rate", ".1%"),
    "queries": ("DNS queries", ".0f"),
    "queries_per_message": ("DNS queries a message", ".2f"),
    "worker_pss_mib": ("PSS of a worker, MiB", ".1f"),
    "seconds": ("seconds", ".3f"),
    "connections_beside": ("connections open", ".0f"),
    "sent": ("sent", ".0f"),
    "answered": ("answered", ".0f"),
    "refused": ("refused", ".0f"),
    "lost": ("lost", ".0f"),
    "mib": ("MiB", ".1f"),
}
LOAD = ("cpu_ms", "msgs_s", "p50", "p99", "whole_p50", "whole_p99", "pss_mib")
TABLES: dict[str, tuple[str, Sequence[str]]] = {
    "warm": ("Warm, mixed sizes", LOAD),
    "sizes": ("By size, 4 connections", LOAD),
    "engines": ("Both engines, by size", LOAD),
    "tcp": ("TCP beside a unix socket", LOAD),
    "cold": ("Cold DNS, 30 ms a query, 2,000 domains", (*LOAD, "queries_per_message")),
    "sign": ("Signing", LOAD),
    "workers": ("One worker and two", LOAD),
    "growth": ("More connections", LOAD),
    "domains": ("More domains", ("cpu_ms", "msgs_s", "p50", "p99", "hit_rate", "queries", "worker_pss_mib")),
    "memory": ("Memory (PSS)", ("mib",)),
    "start": ("Start to first answer", ("seconds",)),
    "stall": (
        "Good mail beside bad",
        ("cpu_ms", "p50", "p99", "whole_p50", "whole_p99", "whole_max", "connections_beside"),
    ),
    "overload": (
        "Overload",
        ("sent", "answered", "refused", "lost", "cpu_ms", "msgs_s", "whole_p50", "whole_p99", "whole_max", "mib"),
    ),
}


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown whose columns stand in line on a terminal, too."""
    rows = [list(head), *map(list, lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(text)


class Rows:
    """All rows of a run."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def of(self, what: str) -> list[Row]:
        """Those of one measurement."""
        return [row for row in self.rows if row["what"] == what]

    def cases(self, what: str) -> list[tuple[str, str]]:
        """Case and subject, in the order in which they first appear; for each case all subjects."""
        seen = list(dict.fromkeys((row["case"], row["subject"]) for row in self.of(what)))
        order = list(dict.fromkeys(case for case, _ in seen))
        return sorted(seen, key=lambda pair: order.index(pair[0]))

    def median(self, what: str, subject: str, case: str, column: str) -> float | None:
        """Over the rounds; None if it was not measured."""
        found = [r[column] for r in self.of(what) if r["subject"] == subject and r["case"] == case and column in r]
        return statistics.median(found) if found else None

    def weighted(self, what: str, subject: str) -> float | None:
        """CPU per message over all sizes, by their share of the mix."""
        by_size = {size: self.median(what, subject, size, "cpu_ms") for size in SIZES}
        known = {size: value for size, value in by_size.items() if value is not None}
        return weighted(known) if len(known) == len(SIZES) else None


def ratio(one: float | None, other: float | None) -> float | None:
    """The first by the second."""
    return one / other if one is not None and other else None


def _most(rows: list[Row], column: str) -> float | None:
    return max((row[column] for row in rows), default=None)


def stall_ratio(rows: Rows, name: str) -> float | None:
    """How many times the p99 of good mail is what it is without the other; the time to connect is in both."""
    return ratio(
        rows.median("stall", OURS, name, "whole_p99"), rows.median("stall", OURS, f"without {name}", "whole_p99")
    )


def flat(rows: Rows, what: str, cases: list[str]) -> float | None:
    """The CPU per message of the last case by that of the first."""
    if len(cases) < 2:
        return None
    return ratio(rows.median(what, OURS, cases[-1], "cpu_ms"), rows.median(what, OURS, cases[0], "cpu_ms"))


# What is aimed at: its name, the limit, and how it is found.
def targets() -> list[tuple[str, float, str, Callable[[Rows], float | None]]]:
    """Name, limit, unit and figure of each."""

    def of(what: str, case: str, column: str, subject: str = OURS) -> Callable[[Rows], float | None]:
        return lambda rows: rows.median(what, subject, case, column)

    limits = {"2 KB": 0.4, "10 KB": 0.5, "50 KB": 0.8, "500 KB": 3.5}
    return [
        ("CPU a message, warm, weighted over the sizes", 0.6, "ms", lambda rows: rows.weighted("sizes", OURS)),
        ("the same, mixed, 16 connections", 0.6, "ms", of("warm", "c=16", "cpu_ms")),
        *((f"CPU a message, {size}", limit, "ms", of("sizes", size, "cpu_ms")) for size, limit in limits.items()),
        ("libmilter engine, weighted", 1.0, "ms", lambda rows: rows.weighted("engines", "authmilter-libmilter")),
        ("p50, 1 connection", 1.5, "ms", of("warm", "c=1", "p50")),
        ("p99, 1 connection", 4.0, "ms", of("warm", "c=1", "p99")),
        *(
            (
                f"TCP by unix socket, CPU, {case}",
                1.1,
                "times",
                lambda rows, case=case: ratio(
                    rows.median("tcp", "authmilter-tcp", case, "cpu_ms"), rows.median("tcp", OURS, case, "cpu_ms")
                ),
            )
            for case in ("c=1", "c=16", "c=64")
        ),
        (
            "TCP by unix socket, p50, c=1",
            1.1,
            "times",
            lambda rows: ratio(
                rows.median("tcp", "authmilter-tcp", "c=1", "p50"), rows.median("tcp", OURS, "c=1", "p50")
            ),
        ),
        ("cold DNS: p50", 75, "ms", of("cold", "c=64", "p50")),
        ("cold DNS: messages a second (at least)", -700, "/s", of("cold", "c=64", "msgs_s")),
        ("signing, RSA-2048", 1.1, "ms", of("sign", "c=16", "cpu_ms", "authmilter-sign-rsa")),
        ("signing, RSA-2048 and Ed25519", 1.3, "ms", of("sign", "c=16", "cpu_ms", "authmilter-sign-rsa-ed25519")),
        (
            "CPU a message, two workers by one",
            1.1,
            "times",
            lambda rows: ratio(
                rows.median("workers", "authmilter-2-workers", "c=16", "cpu_ms"),
                rows.median("workers", "authmilter-1-workers", "c=16", "cpu_ms"),
            ),
        ),
        (
            "worker, idle",
            60,
            "MiB",
            lambda rows: _most([r for r in rows.of("memory") if r["case"].startswith("idle, worker")], "mib"),
        ),
        (
            "growth of a worker over the messages",
            1,
            "MiB",
            lambda rows: _most([r for r in rows.of("memory") if r.get("growth")], "mib"),
        ),
        (
            "a message of 50 MB adds",
            8,
            "MiB",
            lambda rows: _most([r for r in rows.of("memory") if r.get("peak")], "mib"),
        ),
        (
            "start to first answer, median",
            0.7,
            "s",
            lambda rows: statistics.median(r["seconds"] for r in rows.of("start")) if rows.of("start") else None,
        ),
    ]


def _targets(rows: Rows) -> list[list[str]]:
    found = [(name, limit, unit, figure(rows)) for name, limit, unit, figure in targets()]
    cases = list(dict.fromkeys(case for case, _ in rows.cases("growth")))
    found.append(
        (f"CPU a message, {cases[-1]} by {cases[0]}" if cases else "", 1.1, "times", flat(rows, "growth", cases))
    )
    for order in dict.fromkeys(row["order"] for row in rows.of("domains")):
        cases = [row["case"] for row in rows.of("domains") if row["order"] == order]
        name = f"CPU a message, {cases[-1]}, by {cases[0]}"
        found.append((name, 1.1, "times", flat(rows, "domains", cases)))
    disturbances = dict.fromkeys(row["beside"] for row in rows.of("stall") if "beside" in row)
    found += [(f"p99 with {name}, by p99 without", 2, "times", stall_ratio(rows, name)) for name in disturbances]
    lines = []
    for name, limit, unit, value in found:
        if value is not None:
            met = value >= -limit if limit < 0 else value <= limit
            lines.append([name, f"{abs(limit):g} {unit}", f"{value:.3g} {unit}", "yes" if met else "NO"])
    return lines


def _ratios(rows: Rows) -> list[list[str]]:
    """Peers by authmilter, where both were measured in the same run."""
    lines = []
    for what in ("warm", "sizes", "cold", "sign"):
        for case, subject in rows.cases(what):
            ours = "authmilter-sign-rsa" if what == "sign" else OURS
            if subject.startswith(OURS):
                continue
            cells = [ratio(rows.median(what, subject, case, c), rows.median(what, ours, case, c)) for c in LOAD]
            lines.append([what, case, subject, *(f"{cell:.2f}" if cell else "-" for cell in cells)])
        if what == "sizes":
            for subject in dict.fromkeys(s for _, s in rows.cases(what) if not s.startswith(OURS)):
                share = ratio(rows.weighted(what, subject), rows.weighted(what, OURS))
                lines.append([what, "weighted", subject, f"{share:.2f}" if share else "-", *["-"] * (len(LOAD) - 1)])
    return lines


def markdown(rows_: list[Row], facts: Sequence[str]) -> str:
    """The whole report."""
    rows = Rows(rows_)
    parts = ["\n".join(f"* {fact}" for fact in facts)]
    if lines := _targets(rows):
        parts += ["## Targets", table(("target", "limit", "measured", "met"), lines)]
    if lines := _ratios(rows):
        parts += ["## Peers by authmilter, paired", table(("", "case", "peer", *(COLUMNS[c][0] for c in LOAD)), lines)]
    for what, (title, columns) in TABLES.items():
        if not rows.of(what):
            continue
        lines = []
        for case, subject in rows.cases(what):
            values = [rows.median(what, subject, case, column) for column in columns]
            cells = ["" if v is None else format(v, COLUMNS[c][1]) for v, c in zip(values, columns, strict=True)]
            lines.append([case, subject, *cells])
        for subject in dict.fromkeys(subject for _, subject in rows.cases(what)):
            if (mean := rows.weighted(what, subject)) is not None:
                lines.append(["weighted", subject, f"{mean:.3f}", *[""] * (len(columns) - 1)])
        errors = dict.fromkeys(
            f"{row['subject']}, {row['case']}: the last of {row['errors']} errors was: {row['last_error']}"
            for row in rows.of(what)
            if "last_error" in row
        )
        parts += [f"## {title}", *errors, table(("case", "", *(COLUMNS[c][0] for c in columns)), lines)]
    if answers := rows.of("answers"):
        said = dict.fromkeys(f"* {row['subject']}: {row['case']}" for row in answers)
        parts += ["## Answers", "\n".join(said)]
    return "\n\n".join(parts) + "\n"


# -- plots ------------------------------------------------------------------------------------------------------------


def plots(rows_: list[Row], folder: Path) -> list[Path]:
    """SVG files of what was measured; none without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("svg")
    from matplotlib import pyplot

    rows = Rows(rows_)
    made: list[Path] = []

    def draw(
        name: str, title: str, across: str, up: str, lines: dict[str, tuple[list[Any], list[float]]], **more: Any
    ) -> None:
        if not any(values for _, values in lines.values()):
            return
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        for label, (xs, ys) in lines.items():
            axes.plot(xs, ys, label=label, marker=more.get("marker", "o"))
        if more.get("log"):
            axes.set_xscale("log")
            ticks = sorted({x for xs, _ in lines.values() for x in xs})
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
            axes.minorticks_off()
        axes.set(title=title, xlabel=across, ylabel=up)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
        path = folder / f"{name}.svg"
        figure.savefig(path)
        pyplot.close(figure)
        made.append(path)

    for what in ("warm", "sizes", "growth"):
        for column in ("cpu_ms", "p99"):
            lines: dict[str, tuple[list[Any], list[float]]] = {}
            for case, subject in rows.cases(what):
                value = rows.median(what, subject, case, column)
                if value is not None:
                    xs, ys = lines.setdefault(subject, ([], []))
                    xs.append(int(case[2:]) if case.startswith("c=") else case)
                    ys.append(value)
            draw(
                f"{what}-{column}",
                TABLES[what][0],
                "size" if what == "sizes" else "connections",
                COLUMNS[column][0],
                lines,
                log=what != "sizes",
            )
    for column in ("cpu_ms", "hit_rate", "worker_pss_mib"):
        lines = {}
        for row in rows.of("domains"):
            xs, ys = lines.setdefault(row["order"], ([], []))
            xs.append(row["domains"])
            ys.append(row[column])
        draw(f"domains-{column}", TABLES["domains"][0], "domains", COLUMNS[column][0], lines, log=True)
    soak = rows.of("soak")
    if soak:
        names = list(soak[0]["mib"])
        lines = {name: ([row["messages"] for row in soak], [row["mib"][name] for row in soak]) for name in names}
        draw("memory", "Memory of the workers", "messages", "PSS MiB", lines, marker="")
    return made
