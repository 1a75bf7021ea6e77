"""DNS lists: who is listed, which list is believed, and what a dead one costs."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter import lists as module
from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import Config, Dns
from authmilter.errors import ConfigError, DnsBusyError, DnsTempError
from authmilter.interfaces import Answer, Listing, Resolver
from authmilter.lists import LOOKS, MOST_UNANSWERED, REST, RETRY, Lists, load_keys, nonsense, reversed_name, weights
from authmilter.metrics import NullObserver
from authmilter.resolver import StubResolver
from authmilter.verdict import Action
from tests.dnsserver import DNSServer
from tests.fakes import FakeDNS

CLIENT = ip_address("192.0.2.1")
NAME = "1.2.0.192"
CLIENT6 = ip_address("2001:db8::1")
NAME6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
MUST, MUST_NOT = "2.0.0.127", "1.0.0.127"
MUST6 = "2.0.0.0.0.0.f.7.f.f.f.f" + 20 * ".0"
MUST_NOT6 = "1.0.0.0.0.0.f.7.f.f.f.f" + 20 * ".0"

ONE = "[dnsbl bad]\nzone = bad.example\n"


class Watcher(NullObserver):
    """Counts the outcomes of questions, and knows which lists are off."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.off: set[str] = set()

    def dnslist_asked(self, name: str, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def dnslist_off(self, name: str, off: bool) -> None:
        assert off is (name not in self.off), "only changes are told"
        (self.off.add if off else self.off.discard)(name)


class World:
    """Lists over a table of the DNS, with a clock that the test turns."""

    def __init__(
        self,
        text: str = ONE,
        records: Mapping[str, Sequence[str]] | None = None,
        *,
        dns: FakeDNS | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.dns = dns or FakeDNS(records)
        self.now = 1000.0
        self.watcher = Watcher()
        self.alarms: list[tuple[str, str, str]] = []
        self.lists = Lists(
            ini.load(None, text, check_files=False),
            keys or {},
            self.dns,
            self.watcher,
            lambda *alarm: self.alarms.append(alarm),
            lambda: self.now,
        )

    async def symbols(self, address: str = "192.0.2.1", kind: str = "dnsbl") -> list[str]:
        return [listing.symbol for listing in await self.lists.look_up(kind, ip_address(address))]

    async def watch(self) -> None:
        """One look at the lists."""
        task = asyncio.create_task(self.lists.watch())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", NAME),
        ("10.20.30.40", "40.30.20.10"),
        ("2001:db8::1", NAME6),
        ("::ffff:7f00:2", MUST6),
    ],
    ids=["IPv4", "IPv4 of two digits", "IPv6", "the test entry of IPv6 lists"],
)
def test_an_address_is_asked_for_backwards(address: str, name: str) -> None:
    assert reversed_name(ip_address(address)) == name


@given(st.ip_addresses())
def test_a_name_has_an_octet_or_nibble_for_each_of_the_address(address: module.Address) -> None:
    labels = reversed_name(address).split(".")
    assert len(labels) == (4 if address.version == 4 else 32)
    digits = f"{int(address):032x}" if address.version == 6 else str(address).split(".")
    assert labels == list(digits)[::-1]


# -- listings -----------------------------------------------------------------------------------------------------------

WEIGHED = """[dnsbl zen]
zone = zen.example
score = 4
answers = 127.0.0.2 = reject, 127.0.0.[10..11] = 1.5
    127.0.[0..255].[2;4..8]
"""

LISTED = [
    ("an answer that is expected by default", ONE, ["127.0.0.2"], ["dnsbl_bad"]),
    ("the last one by default", ONE, ["127.255.254.255"], ["dnsbl_bad"]),
    ("127.0.0.1 is none", ONE, ["127.0.0.1"], []),
    ("127.0.0.0 is none", ONE, ["127.0.0.0"], []),
    ("nothing", ONE, [], []),
    ("several answers are one listing", ONE, ["127.0.0.2", "127.0.0.9"], ["dnsbl_bad"]),
    ("a weight of its own", WEIGHED, ["127.0.0.2"], ["dnsbl_zen_2"]),
    ("a range with a weight of its own", WEIGHED, ["127.0.0.11"], ["dnsbl_zen_10to11"]),
    ("the weight of the list", WEIGHED, ["127.0.7.5"], ["dnsbl_zen"]),
    ("several sublists", WEIGHED, ["127.0.0.2", "127.0.0.10", "127.0.0.4", "127.0.0.11"], ["dnsbl_zen_2", "dnsbl_zen_10to11", "dnsbl_zen"]),
    ("an answer that does not count", WEIGHED, ["127.0.0.3"], []),
    ("one that counts and one that does not", WEIGHED, ["127.0.0.3", "127.0.0.8"], ["dnsbl_zen"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answers", "symbols"), [row[1:] for row in LISTED], ids=[row[0] for row in LISTED])
async def test_only_answers_that_count_are_listings(text: str, answers: list[str], symbols: list[str]) -> None:
    zone = "bad.example" if text is ONE else "zen.example"
    world = World(text, {f"{NAME}.{zone} A": answers} if answers else {})
    assert await world.symbols() == symbols
    assert world.watcher.outcomes == {"listed" if symbols else "clear": 1}
    assert not world.watcher.off


async def test_a_listing_names_zone_answer_and_page() -> None:
    world = World(f"{ONE}url = https://bad.example/query?ip={{ip}}", {f"{NAME}.bad.example A": ["127.0.0.7"]})
    assert await world.lists.look_up("dnsbl", CLIENT) == [
        Listing("dnsbl_bad", "bad.example", "127.0.0.7", "https://bad.example/query?ip=192.0.2.1")
    ]


async def test_welcomelists_are_asked_apart() -> None:
    world = World(f"{ONE}[dnswl good]\nzone = good.example", {f"{NAME}.good.example A": ["127.0.0.2"]})
    assert await world.symbols() == []
    assert world.dns.asked == [f"{NAME}.bad.example A"]
    assert await world.symbols(kind="dnswl") == ["dnswl_good"]


async def test_clients_with_ipv6_addresses() -> None:
    text = f"{ONE}[dnsbl old]\nzone = old.example\nipv6 = no"
    world = World(text, {f"{NAME6}.bad.example A": ["127.0.0.2"], f"{NAME6}.old.example A": ["127.0.0.2"]})
    assert await world.symbols(str(CLIENT6)) == ["dnsbl_bad"]
    assert world.dns.asked == [f"{NAME6}.bad.example A", f"{MUST_NOT6}.bad.example A"]
    assert world.watcher.outcomes == {"listed": 1}


async def test_without_sections_there_is_nothing_to_do() -> None:
    world = World("")
    assert await world.symbols() == []
    await asyncio.wait_for(world.lists.watch(), 1)
    assert world.dns.asked == []


async def test_ten_lists_cost_one_round_trip() -> None:
    """Nobody waits for an answer before all questions are out; a second trip is for those alone who are listed."""

    class Barrier(FakeDNS):
        trips = 0

        async def query(self, name: str, rdtype: str) -> Answer:
            answer = await super().query(name, rdtype)
            if len(self.asked) in (10, 13):
                Barrier.trips += 1
                everybody.set()
            await everybody.wait()
            return answer

    everybody = asyncio.Event()
    text = "".join(f"[dnsbl l{n}]\nzone = l{n}.example\n" for n in range(10))
    world = World(text, dns=Barrier({f"{NAME}.l{n}.example A": ["127.0.0.2"] for n in (2, 5, 7)}))
    found = await asyncio.wait_for(world.symbols(), 5)
    assert found == ["dnsbl_l2", "dnsbl_l5", "dnsbl_l7"]
    assert [name.partition(".l")[0] for name in world.dns.asked] == 10 * [NAME] + 3 * [MUST_NOT]


# -- lists that can't be believed ---------------------------------------------------------------------------------------

NONSENSE = [
    ("it asks us to go away", ["127.255.255.254"], "refuses our questions (127.255.255.254)"),
    ("it knows no such zone", ["127.255.255.252"], "refuses our questions (127.255.255.252)"),
    ("its domain was sold", ["203.0.113.80"], "answers 203.0.113.80, which is outside of 127.0.0.0/8"),
    ("0.0.0.0", ["0.0.0.0"], "answers 0.0.0.0, which is outside of 127.0.0.0/8"),
    ("an address that only begins alike", ["12.7.0.0"], "answers 12.7.0.0, which is outside"),
    ("a listing beside nonsense", ["127.0.0.2", "127.255.255.255"], "refuses our questions (127.255.255.255)"),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "why"), [row[1:] for row in NONSENSE], ids=[row[0] for row in NONSENSE])
async def test_nonsense_is_no_listing_and_switches_the_list_off(
    answers: list[str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(ONE, {f"{NAME}.bad.example A": answers})
    assert await world.symbols() == []
    assert world.watcher.off == {"dnsbl_bad"}
    assert world.watcher.outcomes == {"error": 1}
    (line,) = caplog.messages
    assert line.startswith(f"[dnsbl bad] bad.example {why}")
    assert line.endswith(": it is switched off for now, and lists nobody")
    ((event, subject, text),) = world.alarms
    assert (event, subject) == ("dns_list_off", "dnsbl bad")
    assert text.startswith(f"The DNS list bad.example {why}")
    asked = len(world.dns.asked)
    assert await world.symbols("198.51.100.1") == []
    assert len(world.dns.asked) == asked, "nobody asks while it is off"
    assert world.watcher.outcomes == {"error": 1, "off": 1}


@pytest.mark.parametrize(
    ("address", "name", "unlisted"),
    [("192.0.2.1", NAME, MUST_NOT), ("2001:db8::1", NAME6, MUST_NOT6)],
    ids=["IPv4", "IPv6"],
)
async def test_a_list_of_the_world_lists_nobody(address: str, name: str, unlisted: str) -> None:
    world = World(ONE, {f"{name}.bad.example A": ["127.0.0.2"], f"{unlisted}.bad.example A": ["127.0.0.2"]})
    assert await world.symbols(address) == []
    assert world.watcher.off == {"dnsbl_bad"}
    assert world.alarms == [
        ("dns_list_off", "dnsbl bad", "The DNS list bad.example lists 127.0.0.1, and so probably the world.")
    ]


async def test_a_listing_is_not_believed_while_127_0_0_1_has_no_answer() -> None:
    world = World(dns=FakeDNS({f"{NAME}.bad.example A": ["127.0.0.2"]}, fail=[f"{MUST_NOT}.bad.example A"]))
    assert await world.symbols() == []
    assert world.watcher.outcomes == {"temperror": 1}
    assert not world.watcher.off


async def test_the_other_lists_go_on() -> None:
    text = f"{ONE}[dnsbl good]\nzone = good.example"
    world = World(text, {f"{NAME}.bad.example A": ["127.255.255.254"], f"{NAME}.good.example A": ["127.0.0.2"]})
    assert await world.symbols() == ["dnsbl_good"]
    assert world.watcher.off == {"dnsbl_bad"}


async def test_a_list_that_makes_sense_again_is_asked_again() -> None:
    """Five minutes later one client tries; who comes while it is asked is not kept waiting."""
    world = World(ONE, {f"{NAME}.bad.example A": ["127.255.255.254"]})
    await world.symbols()
    world.now += RETRY - 1
    assert await world.symbols() == []
    assert world.watcher.outcomes == {"error": 1, "off": 1}
    world.now += 1
    await world.symbols()
    assert world.watcher.outcomes == {"error": 2, "off": 1}, "it still says the same"
    world.dns.add(f"{NAME}.bad.example A", ["127.0.0.2"])
    assert await world.symbols() == [], "and is left alone again"
    world.now += RETRY
    assert await world.symbols() == ["dnsbl_bad"]
    assert not world.watcher.off
    assert len(world.alarms) == 1


# -- lists that do not answer ---------------------------------------------------------------------------------------------


async def test_a_list_that_does_not_answer_is_left_alone_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    world = World(dns=FakeDNS({}, fail=[f"{n}.2.0.192.bad.example A" for n in range(20)]))
    for n in range(MOST_UNANSWERED):
        assert not world.watcher.off
        assert await world.symbols(f"192.0.2.{n}") == []
    assert world.watcher.off == {"dnsbl_bad"}
    assert caplog.messages == [
        "[dnsbl bad] bad.example did not answer 5 questions in a row: it is switched off for now, and lists nobody"
    ]
    assert world.alarms == [], "it happens, and passes"
    await world.symbols("192.0.2.9")
    assert world.watcher.outcomes == {"temperror": 5, "off": 1}
    world.now += REST
    await world.symbols("192.0.2.10")
    await world.symbols("192.0.2.11")
    assert world.watcher.outcomes == {"temperror": 6, "off": 2}, "one client a minute tries"
    world.now += REST
    assert await world.symbols("198.51.100.1") == []
    assert not world.watcher.off
    assert world.watcher.outcomes == {"temperror": 6, "off": 2, "clear": 1}


async def test_answers_in_between_start_the_count_afresh() -> None:
    world = World(dns=FakeDNS({}, fail=[f"{NAME}.bad.example A"]))
    for _ in range(3):
        for _ in range(MOST_UNANSWERED - 1):
            await world.symbols()
        await world.symbols("198.51.100.1")
    assert not world.watcher.off


async def test_an_answer_that_was_long_under_way_does_not_switch_it_on() -> None:
    class Slow(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            if name.startswith("9."):
                await gate.wait()
            return await super().query(name, rdtype)

    gate = asyncio.Event()
    world = World(dns=Slow({f"{NAME}.bad.example A": ["0.0.0.0"]}))
    slow = asyncio.create_task(world.symbols("192.0.2.9"))
    await asyncio.sleep(0)
    await world.symbols()
    gate.set()
    assert await slow == []
    assert world.watcher.off == {"dnsbl_bad"}


async def test_one_log_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A list that is now right, now wrong."""
    caplog.set_level(logging.INFO)
    world = World(ONE)
    said = []

    def note(record: logging.LogRecord) -> bool:
        said.append(world.now)
        return True

    caplog.handler.addFilter(note)
    for minute in range(60):
        wrong = minute % 10 == 0
        world.dns.add(f"{NAME}.bad.example A", ["0.0.0.0"] if wrong else ["127.0.0.2"])
        for _ in range(100):
            await world.symbols()
            world.now += 0.6
    assert len(said) == len(caplog.messages) >= 6
    assert all(later - earlier >= module.SAY_AGAIN for earlier, later in pairwise(said))


async def test_who_goes_while_lists_are_asked_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await gate.wait()
            return await super().query(name, rdtype)

    gate = asyncio.Event()
    text = f"{ONE}[dnsbl good]\nzone = good.example"
    world = World(text, dns=Failing({}, fail=[f"{NAME}.bad.example A", f"{NAME}.good.example A"]))
    task = asyncio.create_task(world.symbols())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert task.cancelled()
    assert not caplog.records


# -- the watch -------------------------------------------------------------------------------------------------------------

HEALTHY = {f"{MUST}.bad.example A": ["127.0.0.2"]}

PROBED = [
    ("as it must be", HEALTHY, [], False, {}),
    ("an answer that does not count is an entry too", {f"{MUST}.bad.example A": ["127.0.0.1"]}, [], False, {}),
    ("IPv6 only", {f"{MUST6}.bad.example A": ["127.0.0.2"]}, [], False, {}),
    ("no test entry", {}, [], False, {"error": 1}),
    ("the world", {**HEALTHY, f"{MUST_NOT}.bad.example A": ["127.0.0.2"]}, [], True, {"error": 1}),
    ("sold", {f"{MUST}.bad.example A": ["203.0.113.80"]}, [], True, {"error": 1}),
    ("refused", {f"{MUST}.bad.example A": ["127.255.255.254"]}, [], True, {"error": 1}),
    ("silent", {}, [f"{MUST}.bad.example A"], False, {"temperror": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "fail", "off", "outcomes"), [row[1:] for row in PROBED], ids=[row[0] for row in PROBED]
)
async def test_the_test_entries_at_start(
    records: dict[str, list[str]], fail: list[str], off: bool, outcomes: dict[str, int]
) -> None:
    world = World(dns=FakeDNS(records, fail))
    task = asyncio.create_task(world.lists.watch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert bool(world.watcher.off) is off
    assert world.watcher.outcomes == outcomes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not world.watcher.off, "a list without its watch counts no longer"


async def test_a_list_without_test_entry_is_named_once_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    world = World(ONE, {f"{NAME}.bad.example A": ["127.0.0.2"]})
    for _ in range(3):
        await world.watch()
        world.now += LOOKS * RETRY
    assert caplog.messages == [
        "[dnsbl bad] bad.example does not list 127.0.0.2, as every list must (RFC 5782): it may be none any longer"
    ]
    assert await world.symbols() == ["dnsbl_bad"]


async def test_the_watch_looks_hourly_and_oftener_after_those_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{ONE}[dnsbl good]\nzone = good.example"
    world = World(text, {f"{MUST}.bad.example A": ["0.0.0.0"], f"{MUST}.good.example A": ["127.0.0.2"]})
    looks: list[set[str]] = []
    done = asyncio.Event()

    async def turn(seconds: float) -> None:
        looks.append({name.split(".")[4] for name in world.dns.asked})
        world.dns.asked.clear()
        world.now += seconds
        if len(looks) == 5:
            world.dns.add(f"{MUST}.bad.example A", ["127.0.0.2"])
        if world.now >= 1000 + 2 * LOOKS * RETRY:
            done.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "sleep", turn)
    task = asyncio.create_task(world.lists.watch())
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    both = {"bad", "good"}
    assert looks[:LOOKS] == [both, *4 * [{"bad"}], {"bad"}, *(LOOKS - 6) * [set()]]
    assert [i for i, look in enumerate(looks) if look == both] == [0, LOOKS]
    assert not world.watcher.off


async def test_a_fault_of_ours_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise ZeroDivisionError

    world = World(dns=Broken())
    task = asyncio.create_task(world.lists.watch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    assert [record.exc_info is not None for record in caplog.records] == [True]
    task.cancel()


# -- weights and keys ---------------------------------------------------------------------------------------------------------

WEIGHTS = [
    ("as the section says", WEIGHED, {"dnsbl_zen": 4.0, "dnsbl_zen_2": Action.REJECT, "dnsbl_zen_10to11": 1.5}),
    ("[scores] of the list goes for all answers", f"{WEIGHED}[scores]\ndnsbl_zen = tag", {"dnsbl_zen": Action.TAG, "dnsbl_zen_2": Action.TAG, "dnsbl_zen_10to11": Action.TAG}),
    ("by default", ONE, {"dnsbl_bad": 3.0}),
    ("of the other kind there are none", "[dnswl a]\nzone = a.example", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in WEIGHTS], ids=[row[0] for row in WEIGHTS])
def test_weights(text: str, expected: dict[str, object]) -> None:
    assert weights("dnsbl", ini.load(None, text)) == expected


def keyed(tmp_path: Path, octets: bytes, mode: int = 0o600) -> Config:
    path = tmp_path / "key"
    path.write_bytes(octets)
    path.chmod(mode)
    return ini.load(None, f"{ONE}key_file = {path}", check_files=False)


@pytest.mark.parametrize(
    ("octets", "key"),
    [(b"abc123\n", "abc123"), (b"  AbC-1_2\r\nsecond line\n", "abc-1_2"), (63 * b"k", 63 * "k")],
    ids=["a line", "upper case and blanks", "the longest"],
)
def test_keys_are_the_first_line_of_their_file(tmp_path: Path, octets: bytes, key: str) -> None:
    assert load_keys(keyed(tmp_path, octets)) == {"dnsbl bad": key}


@pytest.mark.parametrize(
    ("octets", "mode", "problem"),
    [
        (b"", 0o600, "its first line is no key"),
        (b"\nsecret\n", 0o600, "its first line is no key"),
        (b"sec.ret\n", 0o600, "its first line is no key"),
        (b"sec ret\n", 0o600, "its first line is no key"),
        (b"s\xc3\xa9cret\n", 0o600, "its first line is no key"),
        (64 * b"s", 0o600, "its first line is no key"),
        (b"secret\n", 0o644, "others than its owner can read"),
    ],
    ids=["empty", "an empty line", "two labels", "a blank", "beyond ASCII", "too long", "readable by others"],
)
def test_keys_that_can_t_be_used(tmp_path: Path, octets: bytes, mode: int, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load_keys(keyed(tmp_path, octets, mode))
    assert str(caught.value).startswith("[dnsbl bad] key_file: ")
    assert "ret" not in str(caught.value).replace(str(tmp_path), "")


async def test_the_key_stands_before_the_zone_and_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    records = {f"{NAME}.s3cret.bad.example A": ["127.0.0.2"], "7.2.0.192.s3cret.bad.example A": ["127.255.255.254"]}
    dns = FakeDNS(records, fail=["8.2.0.192.s3cret.bad.example A"])
    world = World(f"{ONE}key_file = /key", dns=dns, keys={"dnsbl bad": "s3cret"})
    (listing,) = await world.lists.look_up("dnsbl", CLIENT)
    assert listing.zone == "bad.example"
    for address in ("192.0.2.8", "192.0.2.7"):
        assert await world.symbols(address) == []
    shown = f"{listing} {caplog.text} {world.alarms} {world.watcher.outcomes}"
    assert "switched off" in shown
    assert "s3cret" not in shown


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=4).map(tuple))
def test_whatever_it_answers_a_list_is_read(records: tuple[str, ...]) -> None:
    problem = nonsense(records)
    assert bool(problem) is any(not r.startswith("127.") or r.startswith("127.255.255.") for r in records)


# -- over real sockets -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(server: DNSServer, text: str, **options: object) -> AsyncIterator[tuple[Lists, Watcher, Resolver]]:
    options = {"timeout": Seconds(0.4), **options}
    dns = StubResolver(replace(Dns(nameservers=(server.address,)), **options))  # type: ignore[arg-type]
    watcher = Watcher()
    try:
        yield Lists(ini.load(None, text), {}, dns, watcher), watcher, dns
    finally:
        dns.close()
        await asyncio.sleep(0)


TEN = "".join(f"[dnsbl l{n}]\nzone = l{n}.example\n" for n in range(10))


@pytest.mark.parametrize("cache_size", [20000, 0], ids=["with a cache", "without"])
async def test_over_sockets_ten_slow_lists_cost_as_much_as_one(cache_size: int) -> None:
    slow = {f"{NAME}.l{n}.example": "delay 0.1" for n in range(10)}
    with DNSServer({f"{NAME}.l3.example A": ["127.0.0.2"]}, slow) as server:
        async with asking(server, TEN, cache_size=cache_size, timeout=3.0) as (lists, watcher, _):
            start = time.perf_counter()
            found = await lists.look_up("dnsbl", CLIENT)
            elapsed = time.perf_counter() - start
        assert [listing.symbol for listing in found] == ["dnsbl_l3"]
        assert watcher.outcomes == {"listed": 1, "clear": 9}
        assert server.asked() == 11
        assert 0.1 <= elapsed < 0.35, "one trip for all, one more to see that the one that lists does not list all"


async def test_over_sockets_a_dead_list_costs_its_time_out_five_times_and_no_more() -> None:
    with DNSServer({}, {"*.2.0.192.l0.example": "drop"}) as server:
        async with asking(server, "[dnsbl l0]\nzone = l0.example") as (lists, watcher, _):
            costs = []
            for n in range(MOST_UNANSWERED + 2):
                start = time.perf_counter()
                assert await lists.look_up("dnsbl", ip_address(f"192.0.2.{n}")) == []
                costs.append(time.perf_counter() - start)
        assert all(cost > 0.3 for cost in costs[:MOST_UNANSWERED])
        assert all(cost < 0.1 for cost in costs[MOST_UNANSWERED:])
        assert watcher.outcomes == {"temperror": MOST_UNANSWERED, "off": 2}


async def test_over_sockets_a_client_that_used_up_its_share_is_looked_up_all_the_same() -> None:
    with DNSServer({f"{NAME}.l0.example A": ["127.0.0.2"]}, {"*.slow.example": "drop"}) as server:
        async with asking(server, "[dnsbl l0]\nzone = l0.example", client_lookups=10) as (lists, watcher, dns):
            assert isinstance(dns, StubResolver)
            share = dns.for_client(str(CLIENT))
            for n in range(50):
                share.prefetch(f"{n}.slow.example", "TXT")
            found = await asyncio.wait_for(lists.look_up("dnsbl", CLIENT), 0.3)
        assert [listing.symbol for listing in found] == ["dnsbl_l0"]
        assert watcher.outcomes == {"listed": 1}


async def test_over_sockets_the_test_entries_are_asked_for() -> None:
    with DNSServer({f"{MUST}.l0.example A": ["127.0.0.2"], "*.l1.example A": ["203.0.113.80"]}) as server:
        text = "[dnsbl l0]\nzone = l0.example\n[dnswl l1]\nzone = l1.example"
        async with asking(server, text) as (lists, watcher, _):
            task = asyncio.create_task(lists.watch())
            for _ in range(100):
                await asyncio.sleep(0.01)
                if watcher.off:
                    break
            assert watcher.off == {"dnswl_l1"}
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert server.asked(f"{MUST}.l0.example A") == server.asked(f"{MUST_NOT}.l0.example A") == 1
        assert watcher.outcomes == {"error": 1}


async def test_questions_that_we_had_no_room_for_are_not_the_fault_of_the_list() -> None:
    class Crowded(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise DnsBusyError("too many questions under way")

    world = World(dns=Crowded())
    for _ in range(3 * MOST_UNANSWERED):
        assert await world.symbols() == []
    await world.watch()
    assert world.watcher.off == set()
    assert world.watcher.outcomes["temperror"] >= 3 * MOST_UNANSWERED


async def test_one_name_that_can_not_be_answered_is_not_a_list_that_does_not_answer() -> None:
    world = World(dns=FakeDNS({f"{MUST}.bad.example A": ["127.0.0.2"]}, fail=[f"{NAME}.bad.example A"]))
    for _ in range(5 * MOST_UNANSWERED):
        assert await world.symbols() == []
    assert world.watcher.off == set()


async def test_a_watch_that_raises_is_logged_and_counted_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise RuntimeError("bug in the resolver")

    class Counting(Watcher):
        def check_error(self, name: str, kind: str) -> None:
            self.outcomes[f"{name} {kind}"] += 1

    counting = Counting()
    lists = Lists(ini.load(None, ONE + "[dnswl good]\nzone = good.example\n"), {}, Broken(), counting)
    task = asyncio.create_task(lists.watch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert counting.outcomes == {"blocklists exception": 1, "welcomelists exception": 1}
    assert [entry.message for entry in caplog.records if entry.exc_info] == [
        "[dnsbl bad] could not be looked after",
        "[dnswl good] could not be looked after",
    ]


async def test_what_is_remembered_of_a_list_that_never_answers_is_bounded() -> None:
    class Silent(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise DnsTempError(f"{name} {rdtype}: time-out")

    world = World(dns=Silent())
    for number in range(200):
        assert await world.symbols(f"192.0.2.{number}") == []
        world.now += RETRY + 1
    assert len(world.lists._lists["dnsbl"][0]._unanswered) <= MOST_UNANSWERED
