"""Where a flood of fields that only a receiver may write begins."""

import pytest

from authmilter.checks.forged_flood import MOST, forged_flood
from authmilter.model import HeaderField, Message, Transaction
from tests.checks.tools import tools


def flood(watched: int, others: int) -> list[str]:
    names = [(b"Authentication-Results", b"x-spam-flag", b"X-Spam-Score")[i % 3] for i in range(watched)]
    names += [b"Received"] * others
    tx = Transaction(message=Message(tuple(HeaderField(name, b" x") for name in names)))
    return [finding.detail for finding in forged_flood(tx, tools())]


@pytest.mark.parametrize(
    ("watched", "others", "details"),
    [
        pytest.param(0, 0, [], id="no field at all"),
        pytest.param(MOST, 0, [], id="as many as are borne"),
        pytest.param(MOST + 1, 0, ["501 fields"], id="one more"),
        pytest.param(MOST, 1000, [], id="as many among others"),
        pytest.param(MOST + 1, 1000, ["501 fields"], id="one more among others"),
        pytest.param(0, 1000, [], id="many others"),
    ],
)
def test_the_limit(watched: int, others: int, details: list[str]) -> None:
    assert flood(watched, others) == details
