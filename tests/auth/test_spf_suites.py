"""The openspf suites and pyspf's own cases, one test per case."""

import pytest

from tests.suites.spf import SUITES
from tests.suites.suite import Case

CASES = [pytest.param(case, id=f"{suite.name}/{case.name}") for suite in SUITES for case in suite.load()]


@pytest.mark.parametrize("case", CASES)
async def test_case(case: Case) -> None:
    assert await case.judge() == ""
