"""Draws where a process spends its time, from the stacks that py-spy recorded.

    .venv/bin/python -m tests.bench.session --serve bench.sock &
    py-spy record -F -f raw -d 10 -o stacks.txt -p PID      # while a load generator sends
    .venv/bin/python -m tests.bench.picture stacks.txt hotpath.png [--root data_received]

Callers stand above what they call; width is time.  Needs the extra `bench`.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

LEAST = 0.002  # share of the width below which nothing is drawn
COLOURS = {
    "authmilter/auth/": "#8fb8de",
    "authmilter/milter/": "#f2b880",
    "session.py": "#a8d5a2",
    "pipeline.py": "#a8d5a2",
}


class Frame:
    """A function, and what was called by it."""

    def __init__(self) -> None:
        self.samples = 0
        self.calls: dict[str, Frame] = defaultdict(Frame)


def read(path: Path, root: str) -> Frame:
    """The tree of the stacks, from the outermost function that is called `root`; other stacks are one block of their own."""
    top = Frame()
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        names = stack.split(";")
        start = next((i for i, name in enumerate(names) if root in name), None)
        names = ["event loop, sockets, kernel"] if start is None else names[start:]
        frame = top
        frame.samples += int(samples)
        for name in names:
            frame = frame.calls[name]
            frame.samples += int(samples)
    return top


def colour(name: str) -> str:
    """By the part of the program."""
    return next((shade for part, shade in COLOURS.items() if part in name), "#d9d9d9")


def draw(axes: Axes, frame: Frame, left: float, depth: int, whole: int) -> int:
    """Draw what the frame calls; returns how deep it goes."""
    deepest = depth
    for name, call in sorted(frame.calls.items(), key=lambda item: -item[1].samples):
        width = call.samples / whole
        if width < LEAST:
            continue
        axes.add_patch(Rectangle((left, -depth - 1), width, 0.95, facecolor=colour(name), edgecolor="white", lw=0.4))
        label = name.partition(" (")[0].rpartition(".")[2]
        if width > 0.0045 * len(label) + 0.008:
            axes.text(left + width / 2, -depth - 0.55, f"{label} {width:.0%}", ha="center", va="center", fontsize=6.5)
        deepest = max(deepest, draw(axes, call, left, depth + 1, whole))
        left += width
    return deepest


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stacks", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--root", default="data_received", help="where the pictured part begins")
    args = parser.parse_args()
    top = read(args.stacks, args.root)
    figure, axes = plt.subplots(figsize=(16, 6))
    deepest = draw(axes, top, 0.0, 0, top.samples)
    axes.set_xlim(0, 1)
    axes.set_ylim(-deepest - 0.2, 0.2)
    axes.axis("off")
    axes.set_title(
        f"{top.samples} samples; orange: milter protocol, green: session, blue: authentication, grey: the rest"
    )
    figure.savefig(args.picture, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
