"""What a check is given, for tests of one check alone."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from authmilter.check import Tools, all_checks
from authmilter.config import ini
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.interfaces import Listing, Lists, Resolver, Store
from authmilter.model import Transaction
from authmilter.store.memory import MemoryStore
from tests.fakes import FakeDNS

NOW = 1_700_000_000.0


class Alarms(list[tuple[str, str, str]]):
    """An Alarm that keeps what it was told."""

    def __call__(self, event: str, subject: str, text: str) -> None:
        self.append((event, subject, text))


class FakeLists:
    """Lists by the address as text."""

    def __init__(self, listings: dict[str, Sequence[Listing]] | None = None) -> None:
        self.listings = listings or {}

    async def look_up(self, kind: str, address: IPv4Address | IPv6Address) -> list[Listing]:
        """What the table says."""
        return [one for one in self.listings.get(str(address), []) if one.symbol.startswith(f"{kind}_")]

    async def look_up_links(self, hosts: Collection[str]) -> list[Listing]:
        """The same for domains."""
        return [one for host in hosts for one in self.listings.get(host, []) if one.symbol.startswith("uribl_")]

    async def watch(self) -> None:
        """There is nothing to look after."""


def tools(
    check: str = "",
    *,
    config: Config | str = "",
    dns: Resolver | None = None,
    store: Store | None = None,
    lists: Lists | None = None,
    alarm: Alarms | None = None,
    now: float = NOW,
) -> Tools:
    """Tools with the options of the check of that name under a configuration, given as such or as text."""
    if isinstance(config, str):
        config = ini.load(None, config)
    return Tools(
        dns or FakeDNS(),
        now,
        config,
        next((one.settings(config) for one in all_checks() if one.name == check), None),
        MemoryStore(clock=lambda: now) if store is None else store,
        lists or FakeLists(),
        Alarms() if alarm is None else alarm,
    )


def computed(check: Callable[[Transaction, Tools], Iterator[Finding]], tx: Transaction, given: Tools) -> list[Finding]:
    """All findings of a check that only computes."""
    return list(check(tx, given))


async def awaited(
    check: Callable[[Transaction, Tools], AsyncIterator[Finding]], tx: Transaction, given: Tools
) -> list[Finding]:
    """All findings of a check that waits."""
    return [finding async for finding in check(tx, given)]


def is_wanted(check: str, config: str) -> bool:
    """Does the check of that name run under that configuration?"""
    loaded: Any = ini.load(None, config)
    return next(one for one in all_checks() if one.name == check).enabled(loaded)
