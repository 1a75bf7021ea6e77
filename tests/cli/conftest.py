"""Commands that are called within the process of the tests."""

from collections.abc import Iterator

import pytest

from authmilter.log import LOGGER


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command sends the log to its standard error; other tests want it back."""
    before = LOGGER.handlers, LOGGER.propagate, LOGGER.level
    yield
    LOGGER.handlers, LOGGER.propagate = before[:2]
    LOGGER.setLevel(before[2])
