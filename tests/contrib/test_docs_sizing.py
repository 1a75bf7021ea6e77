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
        ("44 to 47 MiB", "all processes 44"),
        ("44 to 47 MiB", "0.2 MiB; 47 MiB"),
        ("10.6 MiB", "10.6 MiB"),
        ("62 to 67 MiB", "62 to 67 MiB in all"),
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
