"""Every public suite, every case: right, or explained by name; and a runner that would say so if one were wrong."""

import pytest

from tests.shared import shared
from tests.suites.__main__ import main, table
from tests.suites.everything import SUITES
from tests.suites.suite import Case, Explained, Suite, Tally, run


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
async def test_all_decidable_cases_are_right(suite: Suite) -> None:
    shared(suite.folder)
    tally = await run(suite)
    assert tally.failed == []
    assert tally.cases == suite.size
    assert tally.passed + len(tally.explained) == suite.size


def case(name: str, expected: str, answer: str, explained: Explained | None = None) -> Case:
    async def ask() -> str:
        if answer == "boom":
            raise ValueError("no such thing")
        return answer

    return Case(name, (expected,), ask, explained)


WHY = Explained("b", "section 9 says so")
MIXED = Suite(
    "mixed",
    "",
    6,
    lambda: [
        case("right", "a", "a"),
        case("wrong", "a", "b"),
        case("explained", "a", "b", WHY),
        case("explained, yet as the suite has it", "a", "a", WHY),
        case("explained, yet otherwise", "a", "c", WHY),
        case("breaks", "a", "boom"),
    ],
)


async def test_what_is_wrong_is_counted_and_named() -> None:
    tally = await run(MIXED)
    assert (tally.cases, tally.passed, [c.name for c in tally.explained]) == (6, 1, ["explained"])
    assert tally.failed == [
        "wrong: b, expected a",
        "explained, yet as the suite has it: a, expected b",
        "explained, yet otherwise: c, expected b",
        "breaks: ValueError: no such thing",
    ]
    assert not tally.complete


@pytest.mark.parametrize(
    ("passed", "failed", "complete"), [(6, [], True), (5, [], False), (7, [], False), (5, ["x: b, expected a"], False)]
)
def test_a_suite_is_complete_if_no_case_is_missing_or_wrong(passed: int, failed: list[str], complete: bool) -> None:
    assert Tally(MIXED, passed=passed, failed=failed).complete is complete


async def test_the_table() -> None:
    lines = table([await run(MIXED)]).splitlines()
    assert lines[1].split() == ["mixed", "6", "1", "1", "4"]
    assert lines[2].split() == ["all", "6", "1", "1", "4"]
    assert "  section 9 says so, so b: explained" in lines
    assert "  wrong: b, expected a" in lines


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shared("dmarc-treewalk")
    assert main(["dmarc policy"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["DMARC", "policy", "discovery", "15", "15", "0", "0"]
    monkeypatch.setenv("AUTHMILTER_SHARED", "/nonexistent")
    assert main(["dmarc policy"]) == 1
    assert "no dmarc-treewalk in /nonexistent/data" in capsys.readouterr().out
