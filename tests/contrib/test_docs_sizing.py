"""The figures of the page on sizing are those that were measured, and its sums are right."""

import re

import pytest

from tests.contrib.fences import DOCS
from tests.shared import ROOT

TEXT = (DOCS / "sizing.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "tests/bench/RESULTS.md").read_text(encoding="utf-8")
COST = 2.5  # ms, of which the page says "count"
DAY = 86_400


@pytest.mark.parametrize(
    ("said", "measured"),
    [
        ("0.79 to 0.85 ms", "| weighted 50/35/13/2 | **0.85 / 0.79** |"),
        ("default | 0.93 ms", "| weighted 50/35/13/2 | 0.93 |"),
        ("RSA-2048 | 0.91 ms", "| 0.91 / 0.93 |"),
        ("Ed25519 | 0.99 ms", "| 0.99 / 1.02 |"),
        ("in process | 1.8 ms", "CPU of a message with all of it on: 1.8 ms"),
        ("67 to 73 ms", "| cold DNS at 30 ms: p50 ms | 69 / 67 |"),
        ("67 to 73 ms", "| cold DNS at 30 ms: p50, messages a second | 73 ms, 736 |"),
        ("736 to 848 messages", "| messages a second | 814 / 848 |"),
        ("with content | 1.04 ms | 1.83 ms | 4.04 ms | 7.41 ms", "content | 1.04 | 1.83 | 4.04 | 7.41"),
        ("has learned | 1.25 ms | 2.03 ms | 4.38 ms | 8.00 ms", "has learned | 1.25 | 2.03 | 4.38 | 8.00"),
        ("2.3 ms on sockets", "| weighted 50/35/13/2 | **2.3** |"),
        ("take 46 MiB when", "all processes idle 46 MiB"),
        ("of which each has 11.6 MiB", "a worker idle 11.6"),
        ("72 to 85 MiB", "under this load 72 to 79"),
        ("72 to 85 MiB", "and 85 now"),
        ("62 to 67 MiB", "62 to 67 MiB in all"),
        ("less than 1 MB over 60,000", "0.6 and 0.9 MiB over 60,000 messages"),
        ("less than 1 MB", "growth under 1 MB over 500,000 messages | -0.6 and -0.7 MiB"),
        ("105 octets", "(105 MB, 105 octets each)"),
    ],
    ids=lambda text: re.sub(r"[^\w.]+", " ", text).strip(),
)
def test_what_is_said_was_measured(said: str, measured: str) -> None:
    assert said in re.sub(r"\s+", " ", TEXT)
    assert measured in re.sub(r"\s+", " ", RESULTS)


def test_the_sums_follow_from_the_cost_of_a_message() -> None:
    assert f"count {COST} ms" in TEXT
    rows = re.findall(r"(?m)^\| ([\d,]+) \| ([\d.,]+) a second \| ([\d.]+) %", TEXT)
    assert len(rows) == 4
    for row in rows:
        a_day, peak, share = (float(cell.replace(",", "")) for cell in row)
        assert peak == pytest.approx(10 * a_day / DAY, rel=0.05)
        assert share == pytest.approx(10 * a_day / DAY * COST / 10, rel=0.05)
