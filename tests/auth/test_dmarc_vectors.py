"""The cases of dmarc-treewalk, one test per case."""

import pytest

from tests.suites.dmarc import SUITES
from tests.suites.suite import Case

CASES = [pytest.param(case, id=f"{suite.name}/{case.name}") for suite in SUITES for case in suite.load()]


@pytest.mark.parametrize("case", CASES)
async def test_case(case: Case) -> None:
    assert await case.judge() == ""
