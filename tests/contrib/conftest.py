"""What the tests of contrib/ with a real Postfix have in common; nothing is started before a test asks for it."""

import uuid
from collections.abc import Iterator

import pytest

from tests.rig.mail import KeyFiles, write_keys
from tests.rig.sink import Sink


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    """Private keys of the signing domain."""
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def one_sink() -> Iterator[Sink]:
    """The mail server behind every Postfix."""
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(one_sink: Sink) -> Sink:
    """The sink, empty."""
    one_sink.clear()
    return one_sink


@pytest.fixture
def marker() -> str:
    """A word that stands in no other message."""
    return uuid.uuid4().hex
