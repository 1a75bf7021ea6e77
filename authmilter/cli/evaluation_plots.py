"""The pictures of `authmilter evaluate`; importing this needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

FORMATS = ("png", "svg")
LOWEST = 1e-4  # of the logarithmic scale of false positives
_COLOURS = {"untrained": "#d1731a", "trained": "#1a5fb4"}
_HAM, _SPAM = "#2e8b57", "#b22222"
_MARKS = {"tag": "o", "quarantine": "s", "reject": "^"}


def draw(folder: Path, modes: Mapping[str, Any], thresholds: Mapping[str, float | None]) -> None:
    """Write ``roc``, ``precision-recall`` and a ``histogram-MODE`` of each mode there; raises OSError."""
    figure, axes = _figure("ROC: spam caught by false positives", "share of good mail flagged", "share of spam caught")
    for name, mode in modes.items():
        _roc(axes, name, mode)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(_rate))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower right")
    _save(figure, folder / "roc")

    figure, axes = _figure(
        "Precision and recall", "recall: share of spam caught", "precision: share of spam in what is flagged"
    )
    for name, mode in modes.items():
        _precision(axes, name, mode)
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlim(0, 1)
    axes.legend(loc="lower left")
    _save(figure, folder / "precision-recall")

    for name, mode in modes.items():
        figure, axes = _figure(f"Scores, {name}", "score", "share of good mail, of spam")
        _histogram(figure, axes, mode["histogram"], thresholds)
        _save(figure, folder / f"histogram-{name}")


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    return figure, axes


def _percent(share: float, _: object) -> str:
    return f"{100 * share:g} %"


def _rate(share: float, _: object) -> str:
    # The logarithmic scale has no 0: what flags nothing stands at its end.
    return f"{'≤ ' if share <= LOWEST else ''}{100 * share:g} %"


def _roc(axes: Axes, name: str, mode: Mapping[str, Any]) -> None:
    _, hams, spams = mode["curve"][-1]
    xs = [max(LOWEST, ham / hams) for _, ham, _ in mode["curve"]]
    ys = [spam / spams for _, _, spam in mode["curve"]]
    axes.plot(xs, ys, color=_COLOURS[name], drawstyle="steps-post", label=f"{name}, area {mode['area']:.4f}")
    for title, row in mode["confusion"].items():
        label = f"{title} {row['threshold']:g}, {name}"
        at = max(LOWEST, row["false_positives"])
        axes.plot(at, row["catch"], _MARKS[title], color=_COLOURS[name], clip_on=False, label=label)
    axes.set_ylim(0, 1.02)


def _precision(axes: Axes, name: str, mode: Mapping[str, Any]) -> None:
    spams = mode["curve"][-1][2]
    points = [(spam / spams, spam / (ham + spam)) for _, ham, spam in mode["curve"] if ham + spam]
    axes.plot(*zip(*points, strict=True), color=_COLOURS[name], label=name)
    for title, row in mode["confusion"].items():
        if row["precision"] is not None:
            label = f"{title} {row['threshold']:g}, {name}"
            axes.plot(row["catch"], row["precision"], _MARKS[title], color=_COLOURS[name], clip_on=False, label=label)


def _histogram(
    figure: Figure, axes: Axes, bins: Sequence[Mapping[str, float]], thresholds: Mapping[str, float | None]
) -> None:
    for place, (kind, colour) in enumerate((("ham", _HAM), ("spam", _SPAM))):
        whole = max(1, sum(row[kind] for row in bins))
        shares = [row[kind] / whole for row in bins]
        label = f"{'good mail' if kind == 'ham' else 'spam'} ({whole:,})"
        axes.bar([row["from"] + 0.28 + 0.44 * place for row in bins], shares, width=0.42, color=colour, label=label)
    whole = max(sum(row[kind] for row in bins) for kind in ("ham", "spam"))
    axes.set_yscale("log")  # else the few that matter can't be seen
    axes.set_ylim(0.5 / whole, 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    for name, threshold in thresholds.items():
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
            axes.text(threshold + 0.1, 0.98, name, rotation=90, va="top", transform=axes.get_xaxis_transform())
    figure.legend(loc="outside lower center", ncols=2)


def _save(figure: Figure, path: Path) -> None:
    for form in FORMATS:
        figure.savefig(path.with_suffix(f".{form}"), dpi=120)
