"""The benchmark's tables say what the rows say."""

from typing import Any

import pytest

from tests.bench.report import Rows, flat, markdown, stall_ratio, table
from tests.bench.run import settings


def row(what: str, case: str, subject: str = "authmilter", **figures: Any) -> dict[str, Any]:
    return {"what": what, "case": case, "subject": subject, **figures}


def test_a_figure_is_the_median_of_the_rounds() -> None:
    rows = Rows([row("warm", "c=1", cpu_ms=value) for value in (1.0, 9.0, 2.0)])
    assert rows.median("warm", "authmilter", "c=1", "cpu_ms") == 2.0


def test_what_was_not_measured_is_not_shown() -> None:
    assert Rows([]).median("warm", "authmilter", "c=1", "cpu_ms") is None
    assert "Targets" not in markdown([], [])


@pytest.mark.parametrize(
    ("p50", "said"),
    [pytest.param(1.4, "yes", id="within the limit"), pytest.param(1.6, "NO", id="above the limit")],
)
def test_a_target_is_met(p50: float, said: str) -> None:
    lines = markdown([row("warm", "c=1", p50=p50)], []).splitlines()
    assert next(line for line in lines if "p50, 1 connection" in line).split("|")[4].strip() == said


@pytest.mark.parametrize(
    ("rate", "said"),
    [pytest.param(720, "yes", id="above the least"), pytest.param(690, "NO", id="under the least")],
)
def test_a_target_that_is_a_least_is_met(rate: float, said: str) -> None:
    lines = markdown([row("cold", "c=64", msgs_s=rate)], []).splitlines()
    assert next(line for line in lines if "at least" in line).split("|")[4].strip() == said


def test_the_weighted_mean_takes_all_sizes() -> None:
    rows = [row("sizes", size, cpu_ms=value) for size, value in (("2 KB", 1.0), ("10 KB", 2.0), ("50 KB", 3.0))]
    assert Rows(rows).weighted("sizes", "authmilter") is None
    rows.append(row("sizes", "500 KB", cpu_ms=4.0))
    assert Rows(rows).weighted("sizes", "authmilter") == pytest.approx(1.67)


def test_a_peer_is_shown_as_a_multiple_of_ours_in_the_same_run() -> None:
    rows = [row("warm", "c=1", cpu_ms=0.5), row("warm", "c=1", "rspamd-auth", cpu_ms=2.0)]
    line = next(line for line in markdown(rows, []).splitlines() if "rspamd-auth" in line)
    assert line.split("|")[4].strip() == "4.00"


def test_good_mail_beside_bad_is_compared_with_good_mail_alone() -> None:
    rows = Rows([row("stall", "without x", whole_p99=2.0), row("stall", "x", whole_p99=5.0)])
    assert stall_ratio(rows, "x") == 2.5


def test_growth_compares_the_last_case_with_the_first() -> None:
    rows = Rows([row("growth", f"c={n}", cpu_ms=1.0 + n / 10) for n in (0, 1, 2)])
    assert flat(rows, "growth", ["c=0", "c=1", "c=2"]) == pytest.approx(1.2)


def test_columns_of_a_table_stand_in_line() -> None:
    lines = table(("a", "long head"), [("long cell", "b")]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_options_of_the_command_line_become_sections() -> None:
    assert settings(["milter.workers=4", "sign a.example.selector=s"]) == {
        "milter": {"workers": "4"},
        "sign a.example": {"selector": "s"},
    }
