"""Limits of connections: at once, and in a time."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.check import Check, Tools, When, all_checks, record_of
from authmilter.checks.connections import LIFE, OPEN, connections, take_back
from authmilter.config import ini
from authmilter.errors import StoreError
from authmilter.evidence import Finding
from authmilter.files import load_files
from authmilter.interfaces import Store
from authmilter.model import Connection, Direction, Stage, Transaction
from authmilter.policy import Policy
from authmilter.session import Session, build
from authmilter.store.memory import MemoryStore
from authmilter.store.sqlite import SqliteStore
from authmilter.verdict import Action
from tests.checks.tools import NOW, awaited, is_wanted, tools
from tests.test_session import Rig


class Clock:
    """Time that stands still until it is told to pass."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Host:
    """A machine of the site: connections come and go."""

    def __init__(self, config: str, clock: Clock, store: Store | None = None) -> None:
        self.config = f"[connections]\n{config}\n"
        self.clock = clock
        self.store = MemoryStore(clock=clock) if store is None else store

    def tools(self) -> Tools:
        return tools("connections", config=self.config, store=self.store, now=self.clock.now)

    async def connect(self, address: str | None) -> tuple[Transaction, list[Finding]]:
        client = None if address is None else ip_address(address)
        tx = Transaction(Connection(client, since=self.clock.now))
        return tx, await awaited(connections, tx, self.tools())

    async def symbols(self, address: str | None) -> list[str]:
        return [finding.symbol for finding in (await self.connect(address))[1]]

    async def close(self, tx: Transaction) -> None:
        await take_back(tx, None, self.tools())


async def test_connections_at_once_from_one_address() -> None:
    host = Host("per_address = 2", Clock())
    first, _ = await host.connect("192.0.2.1")
    assert await host.symbols("192.0.2.1") == []
    assert (await host.connect("192.0.2.1"))[1] == [
        Finding("connections_exceeded", "192.0.2.1 at once, please close some of them first")
    ]
    assert await host.symbols("192.0.2.2") == []
    await host.close(first)
    await host.close(first)  # as the refused one does, too
    assert await host.symbols("192.0.2.1") == []


@pytest.mark.parametrize(
    ("same", "other", "network"),
    [
        (("192.0.2.1", "192.0.2.255"), "192.0.3.1", "192.0.2.0/24"),
        (("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"), "2001:db8:0:1::1", "2001:db8::/64"),
    ],
)
async def test_connections_at_once_from_one_network(same: tuple[str, str], other: str, network: str) -> None:
    host = Host("per_network = 1", Clock())
    assert await host.symbols(same[0]) == []
    assert (await host.connect(same[1]))[1] == [
        Finding("connections_exceeded", f"{network} at once, please close some of them first")
    ]
    assert await host.symbols(other) == []


async def test_a_rate_holds_until_its_window_ends() -> None:
    clock = Clock()
    host = Host("rate_address = 2/1m", clock)
    assert await host.symbols("192.0.2.1") == []
    clock.now += 10
    assert await host.symbols("192.0.2.1") == []
    clock.now += 10.5
    assert (await host.connect("192.0.2.1"))[1] == [
        Finding("connection_rate_exceeded", "192.0.2.1, please try again in 40 seconds")
    ]
    clock.now += 39
    assert (await host.connect("192.0.2.1"))[1] == [
        Finding("connection_rate_exceeded", "192.0.2.1, please try again in 1 second")
    ]
    clock.now += 1
    assert await host.symbols("192.0.2.1") == []


async def test_of_several_rates_the_longest_wait_is_told() -> None:
    clock = Clock()
    host = Host("rate_address = 1/1m, 2/1h\nrate_network = 1/10m", clock)
    await host.connect("192.0.2.1")
    clock.now += 1
    assert [f.detail for f in (await host.connect("192.0.2.1"))[1]] == ["192.0.2.0/24, please try again in 599 seconds"]
    assert [f.detail for f in (await host.connect("192.0.2.1"))[1]] == ["192.0.2.1, please try again in 3599 seconds"]


async def test_both_kinds_of_limits_take_one_round_trip() -> None:
    class Counting(MemoryStore):
        trips = 0

        async def _ask(self, operation, steps):  # type: ignore[no-untyped-def]
            self.trips += 1
            return await super()._ask(operation, steps)

    clock = Clock()
    store = Counting(clock=clock)
    host = Host("per_address = 1\nper_network = 1\nrate_address = 1/1m\nrate_network = 1/1m, 2/1h", clock, store)
    await host.connect("192.0.2.1")
    assert store.trips == 1
    assert await host.symbols("192.0.2.1") == ["connections_exceeded", "connection_rate_exceeded"]


async def test_exempt_clients_and_clients_without_address_are_not_counted() -> None:
    host = Host("per_address = 1\nexempt = 192.0.2.0/24", Clock())
    for address in ("192.0.2.1", None):
        for _ in range(3):
            tx, found = await host.connect(address)
            assert found == []
        await host.close(tx)
    assert len(host.store) == 0  # type: ignore[arg-type]


async def test_a_connection_that_outlives_its_count_takes_nothing_from_the_next() -> None:
    clock = Clock()
    host = Host("per_address = 1", clock)
    old, _ = await host.connect("192.0.2.1")
    clock.now += LIFE + 1
    new, found = await host.connect("192.0.2.1")
    assert found == []
    clock.now += 10
    await host.close(old)
    assert await host.symbols("192.0.2.1") == ["connections_exceeded"]
    await host.close(new)
    entry = await host.store.get(OPEN, "192.0.2.1")
    assert entry is not None
    assert entry.total == 1.0  # the refused one


async def test_the_connection_that_began_the_count_is_taken_back_although_the_store_was_slow() -> None:
    clock = Clock()
    host = Host("per_address = 1", clock)
    tx = Transaction(Connection(ip_address("192.0.2.1"), since=clock.now))
    clock.now += 1.5
    await awaited(connections, tx, host.tools())
    clock.now += 60
    await host.close(tx)
    assert await host.symbols("192.0.2.1") == []


async def test_a_connection_that_was_never_counted_leaves_nothing_behind() -> None:
    host = Host("per_address = 1", Clock())
    await host.close(Transaction(Connection(ip_address("192.0.2.1"), since=NOW)))
    assert len(host.store) == 0  # type: ignore[arg-type]


async def test_two_workers_count_together(tmp_path: Path) -> None:
    clock = Clock()
    stores = [SqliteStore(tmp_path / "state.db", clock=clock) for _ in range(2)]
    try:
        hosts = [Host("per_address = 2\nrate_address = 3/1m", clock, store) for store in stores]
        first, _ = await hosts[0].connect("192.0.2.1")
        assert await hosts[1].symbols("192.0.2.1") == []
        assert await hosts[1].symbols("192.0.2.1") == ["connections_exceeded"]
        await hosts[0].close(first)
        await hosts[0].close(first)
        assert await hosts[0].symbols("192.0.2.1") == ["connection_rate_exceeded"]
    finally:
        for store in stores:
            await store.close()


async def test_a_store_that_is_down_says_so_and_nothing_else() -> None:
    store = MemoryStore()
    await store.close()
    host = Host("per_address = 1", Clock(), store)
    with pytest.raises(StoreError):  # the pipeline makes a temperror of it, and the connection goes on
        await host.connect("192.0.2.1")


def the_check() -> Check:
    return next(check for check in all_checks() if check.name == "connections")


def test_what_is_open_is_taken_back_at_the_end_of_the_session() -> None:
    assert record_of(the_check(), When.CLOSE) is take_back


@pytest.mark.parametrize("option", ["per_address = 1", "per_network = 1", "rate_address = 1/1m", "rate_network = 1/1m"])
def test_a_limit_switches_the_check_on(option: str) -> None:
    assert not is_wanted("connections", "[connections]\nexempt = 192.0.2.1\n")
    assert is_wanted("connections", f"[connections]\n{option}\n")


@pytest.mark.parametrize(
    ("config", "address", "text"),
    [
        (
            "per_address = 1",
            "192.0.2.1",
            "421 4.7.0 Too many connections from 192.0.2.1 at once, please close some of them first [am-1]",
        ),
        (
            "rate_network = 1/1m",
            "2001:db8::1",
            "421 4.7.0 Too many connections from 2001:db8::/64, please try again in 60 seconds [am-1]",
        ),
    ],
)
async def test_the_reply(config: str, address: str, text: str) -> None:
    host = Host(config, Clock())
    await host.connect(address)
    tx, found = await host.connect(address)
    policy = Policy(ini.load(None, host.config), (the_check(),))
    assert policy.acts_at(Stage.CONNECT, Direction.INBOUND)
    findings = tuple((Stage.CONNECT, finding) for finding in found)
    verdict = policy.judge(tx._replace(findings=findings), Stage.CONNECT, "am-1").verdict
    assert verdict.reply is not None
    assert " ".join(map(str, verdict.reply)) == text


async def test_a_session_that_ends_makes_room_for_the_next() -> None:
    config = ini.load(None, "[connections]\nper_address = 1\n")
    rig = Rig(config=config)
    rules = rig.session().rules  # of one worker: all its sessions share a store

    async def connect() -> tuple[Session, str]:
        session = Session(rules)
        verdict = await session.connect(b"client", "4", 40000, b"192.0.2.7", {b"j": b"mx.test"})
        return session, " ".join(map(str, verdict.reply)) if verdict.reply else ""

    first, welcome = await connect()
    second, refusal = await connect()
    assert (welcome, refusal[:10]) == ("", "421 4.7.0 ")
    second.close()
    first.close()
    first.close()  # an engine may say so twice
    await rules.pipeline.finish_records(1.0)
    assert (await connect())[1] == ""
    assert (await connect())[1][:10] == "421 4.7.0 "


async def test_a_store_that_is_down_lets_everybody_in() -> None:
    store = MemoryStore()
    await store.close()
    rig = Rig(config=ini.load(None, "[connections]\nper_address = 1\nrate_address = 1/1h\n"))
    rules = build(rig.config, rig.checks, load_files(rig.config), rig.dns, rig.observer, store=store)
    for _ in range(3):
        session = Session(rules, rig.outcomes.append)
        verdict = await rig.play(session=session)
        assert verdict.action is Action.ACCEPT
        session.close()
    await rules.pipeline.finish_records(1.0)
    assert rig.observer.seen.count("connections temperror") == 6  # at connect and at close


async def test_internal_clients_have_no_limit() -> None:
    config = ini.load(
        None, "[connections]\nper_address = 1\nrate_address = 1/1h\n[networks]\ninternal = 192.0.2.0/24\n"
    )
    rules = Rig(config=config).session().rules
    for _ in range(3):
        verdict = await Session(rules).connect(b"client", "4", 40000, b"192.0.2.7", {})
        assert verdict.action is Action.CONTINUE
