"""What holds for tests of the benchmarks."""

from collections.abc import Iterator

import pytest

from authmilter.log import LOGGER


@pytest.fixture(autouse=True, scope="module")
def log() -> Iterator[None]:
    """The log as it was: the commands silence it for as long as their process lives."""
    before = LOGGER.handlers, LOGGER.propagate, LOGGER.level
    yield
    LOGGER.handlers, LOGGER.propagate = before[:2]
    LOGGER.setLevel(before[2])
