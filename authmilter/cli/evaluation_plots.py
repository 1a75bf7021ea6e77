"""The pictures of `authmilter evaluate`; importing this needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

FORMATS = ("png", "svg")
# Colours that people with any colour vision tell apart (Okabe and Ito); modes differ by their lines too, kinds by hatching.
_MODES = {"untrained": ("#d55e00", "--", "white"), "trained": ("#0072b2", "-", "#0072b2")}
_KINDS = {"ham": ("good mail", "#56b4e9", ""), "spam": ("spam", "#d55e00", "///")}
_MARKS = {"tag": "o", "quarantine": "s", "reject": "^"}


def draw(folder: Path, modes: Mapping[str, Any]) -> None:
    """Write ``roc``, ``precision-recall`` and a ``histogram-MODE`` of each mode there; raises OSError."""
    figure, axes = _figure("ROC: spam caught by false positives", "share of good mail flagged", "share of spam caught")
    # The logarithmic scale has no 0: what flags nothing stands where half a message would.
    least = 0.5 / max(mode["curve"][-1][1] for mode in modes.values())
    for name, mode in modes.items():
        _roc(axes, name, mode, least)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    ticks = [10.0**power for power in range(-6, 1) if 10.0**power > 2.5 * least]
    axes.set_xticks([least, *ticks], ["none", *(_percent(tick, None) for tick in ticks)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="lower right")
    _save(figure, folder / "roc")

    figure, axes = _figure(
        "Precision and recall", "recall: share of spam caught", "precision: share of spam in what is flagged"
    )
    lowest = min([_precision(axes, name, mode) for name, mode in modes.items()])
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlim(0, 1.01)
    axes.set_ylim(max(0.0, 1 - 1.1 * (1 - lowest) - 0.01), 1 + 0.05 * (1 - lowest) + 0.001)
    axes.legend(loc="lower left")
    _save(figure, folder / "precision-recall")

    for name, mode in modes.items():
        figure, axes = _figure(f"Scores, {name}", "score", "share of good mail, of spam")
        _histogram(figure, axes, mode)
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


def _roc(axes: Axes, name: str, mode: Mapping[str, Any], least: float) -> None:
    _, hams, spams = mode["curve"][-1]
    xs = [least, *(max(least, ham / hams) for _, ham, _ in mode["curve"])]
    ys = [0.0, *(spam / spams for _, _, spam in mode["curve"])]
    colour, line, _ = _MODES[name]
    axes.plot(xs, ys, line, color=colour, drawstyle="steps-post", label=f"{name}, area {mode['area']:.4f}")
    for title, row in mode["confusion"].items():
        _mark(axes, max(least, row["false_positives"]), row["catch"], name, title, row["threshold"])


def _precision(axes: Axes, name: str, mode: Mapping[str, Any]) -> float:
    """Draw it; returns the lowest precision that is worth to be seen: that of half the good mail is what the sources hold."""
    _, hams, spams = mode["curve"][-1]
    points = [(spam / spams, spam / (ham + spam)) for _, ham, spam in mode["curve"] if spam]
    colour, line, _ = _MODES[name]
    axes.plot(*zip(*points, strict=True), line, color=colour, drawstyle="steps-post", label=name)
    for title, row in mode["confusion"].items():
        if row["precision"] is not None:
            _mark(axes, row["catch"], row["precision"], name, title, row["threshold"])
    return min((spam / (ham + spam) for _, ham, spam in mode["curve"] if spam and ham <= hams / 10), default=0.0)


def _mark(axes: Axes, x: float, y: float, mode: str, title: str, threshold: float) -> None:
    label = f"{title} {threshold:g}, {mode}"
    colour, _, inside = _MODES[mode]
    size = 9 if inside == "white" else 6  # where two marks are in one place, both are seen
    axes.plot(
        x, y, _MARKS[title], color=colour, markerfacecolor=inside, markersize=size, clip_on=False, zorder=3, label=label
    )


def _histogram(figure: Figure, axes: Axes, mode: Mapping[str, Any]) -> None:
    bins: Sequence[Mapping[str, Any]] = mode["histogram"]
    scored = [row["from"] for row in bins if row["from"] is not None]
    width = scored[1] - scored[0] if len(scored) > 1 else 1
    refused = scored[-1] + 2 * width if scored else 0
    lefts = [refused if row["from"] is None else row["from"] for row in bins]
    for place, (kind, (title, colour, hatch)) in enumerate(_KINDS.items()):
        whole = sum(row[kind] for row in bins)
        axes.bar(
            [left + (0.06 + 0.44 * place) * width for left in lefts],
            [row[kind] / whole for row in bins],
            width=0.44 * width,
            align="edge",
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            label=f"{title} ({whole:,})",
        )
    # A logarithmic scale, else the few that matter can't be seen; a single message still has a bar.
    axes.set_yscale("log")
    axes.set_ylim(0.5 / max(sum(row[kind] for row in bins) for kind in _KINDS), 1.5)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.yaxis.set_minor_formatter(NullFormatter())
    every = width * (1 + len(scored) // 20)
    ticks = [left for left in scored if left % every == 0]
    labels = [f"{left}" for left in ticks]
    if len(scored) < len(bins):
        ticks.append(refused + width / 2)
        labels.append("refused")
    axes.set_xticks(ticks, labels)
    for title, row in mode["confusion"].items():
        axes.axvline(row["threshold"], color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"{title} {row['threshold']:g}",
            (row["threshold"], 1),
            (3, -4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=90,
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    figure.legend(loc="outside lower center", ncols=2)


def _save(figure: Figure, path: Path) -> None:
    for form in FORMATS:
        figure.savefig(path.with_suffix(f".{form}"), dpi=120)
