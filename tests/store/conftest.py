"""One store of each kind, and ways to have the same one twice."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authmilter.config.schema import Store as Options
from authmilter.interfaces import ManagedStore
from authmilter.store import open_store
from tests.store.servers import RedisServer, running

Open = Callable[..., ManagedStore]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all; every test has a prefix of its own."""
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    """The three back ends."""
    return str(request.param)


@pytest.fixture
def options(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The [store] section for that back end."""
    if kind == "memory":
        return {"url": "memory:"}
    if kind == "sqlite":
        return {"url": f"sqlite:{tmp_path}/state.db", "timeout": 10.0}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"url": server.url, "prefix": f"t{next(_numbers)}:", "timeout": 10.0}


@pytest.fixture
async def opened(options: dict[str, Any]) -> AsyncIterator[Open]:
    """Makes stores over the same state; closes them."""
    stores: list[ManagedStore] = []

    def make(**more: Any) -> ManagedStore:
        arguments = {name: more.pop(name) for name in ("on_error", "clock", "password") if name in more}
        stores.append(open_store(Options(**{**options, **more}), **arguments))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
async def store(opened: Open) -> ManagedStore:
    """One store."""
    return opened()
