"""What is done with is gone at once.  The worker lets the cyclic collector run so seldom that what only that frees piles up."""

import asyncio
import gc
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from authmilter import eager
from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.config.endpoint import parse_socket
from authmilter.errors import ScanError, StoreError
from authmilter.files import load_files
from authmilter.interfaces import Answer, Dns, Space
from authmilter.metrics import NullObserver
from authmilter.resolver import StubResolver
from authmilter.scanners import Servers
from authmilter.session import Rulebook, build
from authmilter.store.sqlite import SqliteStore
from tests.bench.corpus import EPOCH, Mail, generate, read
from tests.bench.session import one
from tests.fakes import FakeDNS

CONFIG = """
[identity]
authserv_id = mx.test
[policy]
enforce = no
[milter]
command_timeout = 1s
message_timeout = 2s
[spf]
timeout = 1s
[dns]
timeout = 0.3s
nameservers = 127.0.0.1:9
"""


@contextmanager
def no_garbage() -> Iterator[None]:
    """Nothing that is made within may wait for the cyclic collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> list[Mail]:
    folder = tmp_path_factory.mktemp("corpus")
    generate(folder, 10)
    return read(folder)


def rules(dns: Dns) -> Rulebook:
    config = ini.load(None, CONFIG)
    return build(config, all_checks(), load_files(config), dns, NullObserver(), lambda: EPOCH + 60.0)


class Slow(FakeDNS):
    """Answers when nobody waits any more."""

    async def query(self, name: str, rdtype: str) -> Answer:
        await asyncio.sleep(600)
        raise AssertionError("nobody waits so long")


@pytest.fixture(params=["nobody listens", "somebody listens and is silent"])
async def dead(request: pytest.FixtureRequest) -> AsyncIterator[StubResolver]:
    """A resolver whose name server does not answer."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        if request.param == "nobody listens":
            sock.close()
        dns = StubResolver(replace(ini.load(None, CONFIG).dns, nameservers=(address,)))
        yield dns
        dns.close()


async def test_of_messages_whose_dns_does_not_answer_nothing_stays(dead: StubResolver, mails: list[Mail]) -> None:
    rulebook = rules(dead)
    first, *rest = mails
    await one(rulebook, first)
    with no_garbage():
        await asyncio.gather(*(one(rulebook, mail) for mail in rest))
        await asyncio.sleep(0.1)


async def test_of_messages_that_took_too_long_nothing_stays(mails: list[Mail]) -> None:
    rulebook = rules(Slow({}))
    await one(rulebook, mails[0])
    with no_garbage():
        await asyncio.gather(*(one(rulebook, mail) for mail in mails[1:]))
        await asyncio.sleep(0.1)


async def test_of_a_client_that_leaves_nothing_stays(mails: list[Mail]) -> None:
    rulebook = rules(Slow({}))

    async def leaves(mail: Mail) -> None:
        task = asyncio.create_task(one(rulebook, mail))
        await asyncio.sleep(0.05)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    await leaves(mails[0])
    with no_garbage():
        await leaves(mails[1])
        await asyncio.sleep(0.1)


async def fails_at_once() -> None:
    raise ValueError


async def fails_later() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError())
    try:
        await future
    finally:
        del future


@pytest.mark.parametrize("work", [fails_at_once, fails_later])
async def test_of_work_that_failed_nothing_stays(work: Callable[[], Awaitable[None]]) -> None:
    async def begun() -> None:
        with suppress(ValueError):
            await eager.start(work())  # type: ignore[arg-type]

    await begun()
    with no_garbage():
        await begun()
        await asyncio.sleep(0)


@pytest.mark.parametrize("address", ["unix:{folder}/nothing", "inet:{port}@127.0.0.1"])
async def test_of_a_scanner_that_is_down_nothing_stays(address: str, tmp_path: Path) -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # and nobody listens
        servers = Servers([parse_socket(address.format(folder=tmp_path, port=port))])

        async def ask() -> None:
            with suppress(ScanError):
                await servers.ask([b"body"], lambda answer: answer, 100, 1.0)

        await ask()
        with no_garbage():
            await ask()
            await asyncio.sleep(0)


async def test_of_a_store_that_fails_nothing_stays(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db", timeout=0.2)
    space = Space("a")
    failed = 0

    async def ask() -> None:
        nonlocal failed
        try:
            await store.put(space, "key", b"", 60.0)
        except StoreError:
            failed += 1

    try:
        await ask()
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with no_garbage():
                await ask()
                other.close()  # for the thread of the store knows of it as long as it waits
                await asyncio.sleep(0.5)
        assert failed == 1
    finally:
        await store.close()
