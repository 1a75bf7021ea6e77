"""Commands that are called within the process of the tests."""

import logging
from collections.abc import Iterator

import pytest

from authmilter.log import LOGGER


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command sends the log to its standard error; other tests want it back."""
    loggers = (LOGGER, logging.getLogger("asyncio"), logging.getLogger("py.warnings"))
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
