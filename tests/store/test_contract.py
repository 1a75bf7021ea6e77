"""What every back end does alike."""

import asyncio
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authmilter.errors import StoreError
from authmilter.interfaces import Entry, Increment, ManagedStore, Space, Store
from authmilter.store.front import CHUNK, MAX_VALUE
from authmilter.store.memory import MemoryStore
from tests.store.conftest import Open

A, B = Space("a"), Space("b")
PEOPLE = Space("people", personal=True)
HOUR = 3600.0

HOSTILE = {
    "empty": "",
    "NUL": "a\0b",
    "a line break": "a\r\nSET x y\r\n",
    "what the shell of the server reads": "*?[a-z]^\\",
    "a lone surrogate": "a\ud800",
    "no ASCII": "jürgen@bücher.example",
    "the mark of a hash": "\x01" + "x" * 16,
    "what a hash is shown as": "#" + "ab" * 16,
    "a colon": ":",
    "long": "x" * 10_000,
    "as long, and different at the end": "x" * 9_999 + "y",
    "long, no ASCII": "ü" * 200,
    "just short enough": "x" * 255,
    "just too long": "x" * 256,
}


async def shown(store: ManagedStore, space: Space, prefix: str = "", limit: int = 1000) -> dict[str, Entry]:
    return {key: entry async for key, entry in store.scan(space, prefix, limit)}


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.get(A, "k") is None


@pytest.mark.parametrize(
    "value", [b"", b"text", bytes(range(256)), b"x" * MAX_VALUE], ids=["empty", "text", "octets", "long"]
)
async def test_what_is_put_can_be_got(store: Store, value: bytes) -> None:
    await store.put(A, "k", value, HOUR)
    entry = await store.get(A, "k")
    assert entry is not None
    assert (entry.value, entry.total) == (value, 0.0)
    assert 0.0 <= entry.age < 5.0
    assert entry.age + entry.ttl == pytest.approx(HOUR)


async def test_a_value_that_is_too_long_is_refused_and_nothing_else_is(store: Store) -> None:
    with pytest.raises(StoreError, match="4097 octets"):
        await store.put(A, "k", b"x" * (MAX_VALUE + 1), HOUR)
    await store.put(A, "k", b"x", HOUR)


async def test_the_same_key_in_two_spaces_is_two_entries(store: Store) -> None:
    await store.put(A, "k", b"1", HOUR)
    await store.put(B, "k", b"2", HOUR)
    entries = await store.get_many([(A, "k"), (B, "k")])
    assert [entry and entry.value for entry in entries] == [b"1", b"2"]


async def test_put_replaces_all(store: Store) -> None:
    await store.incr(A, "k", HOUR, 5.0)
    await store.put(A, "k", b"new", 10.0)
    entry = await store.get(A, "k")
    assert entry is not None
    assert (entry.value, entry.total) == (b"new", 0.0)
    assert entry.ttl <= 10.0


async def test_add_tells_what_is_there_and_leaves_it(store: Store) -> None:
    assert await store.add(A, "k", b"first", HOUR) is None
    await asyncio.sleep(0.05)
    there = await store.add(A, "k", b"second", 9 * HOUR)
    assert there is not None
    assert there.value == b"first"
    assert there.age >= 0.04
    assert there.ttl <= HOUR


async def test_what_has_expired_is_not_there_for_any_primitive(store: ManagedStore) -> None:
    for key in ("get", "add", "incr", "delete", "scan"):
        await store.put(A, key, b"old", 0.05)
    await asyncio.sleep(0.08)
    assert await store.get(A, "get") is None
    assert await shown(store, A) == {}
    assert await store.add(A, "add", b"new", HOUR) is None
    assert (await store.incr(A, "incr", HOUR)).total == 1.0


async def test_a_window_runs_from_its_first_increment_and_begins_anew(store: Store) -> None:
    first = await store.incr(A, "k", 0.4)
    assert first.total == 1.0
    assert first.ttl == pytest.approx(0.4)
    await asyncio.sleep(0.1)
    second = await store.incr(A, "k", 0.4, 2.5)
    assert second.total == 3.5
    assert second.ttl <= 0.31
    assert second.age >= 0.09
    await asyncio.sleep(second.ttl + 0.02)
    assert (await store.incr(A, "k", 0.4)).total == 1.0


async def test_a_window_that_the_site_has_shortened_ends_earlier(store: Store) -> None:
    await store.incr(A, "k", 24 * HOUR)
    entry = await store.incr(A, "k", 60.0)
    assert (entry.total, entry.ttl <= 60.0) == (2.0, True)


async def test_a_count_fades_by_half_in_each_half_life(store: Store) -> None:
    await store.incr(A, "k", HOUR, 8.0, half_life=0.2)
    await asyncio.sleep(0.2)
    entry = await store.get(A, "k")
    assert entry is not None
    assert entry.total == pytest.approx(8.0 * 0.5 ** (entry.age / 0.2), rel=0.02)
    assert entry.total <= 4.1
    added = await store.incr(A, "k", HOUR, 1.0, half_life=0.2)
    assert 1.0 < added.total <= 5.1
    assert added.age == 0.0


async def test_a_count_that_fades_lives_on_from_each_increment(store: Store) -> None:
    await store.incr(A, "k", 0.3, half_life=HOUR)
    await asyncio.sleep(0.2)
    await store.incr(A, "k", 0.3, half_life=HOUR)
    await asyncio.sleep(0.2)
    entry = await store.get(A, "k")
    assert entry is not None
    assert entry.total == pytest.approx(2.0, rel=0.01)


async def test_a_count_never_goes_below_zero_and_taking_away_makes_none(store: Store) -> None:
    assert await store.incr(A, "k", HOUR, -1.0) == Entry(b"", 0.0, 0.0, 0.0)
    assert await store.get(A, "k") is None
    await store.incr(A, "k", HOUR, 2.0)
    assert (await store.incr(A, "k", HOUR, -5.0)).total == 0.0
    assert (await store.incr(A, "k", HOUR, 1.0)).total == 1.0


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-300])
async def test_no_amount_breaks_a_count(store: Store, amount: float) -> None:
    await store.incr(A, "k", HOUR, amount)
    await store.incr(A, "k", HOUR, amount, half_life=1e-9)
    entry = await store.incr(A, "k", HOUR, 1.0)
    assert 0.0 <= entry.total <= 2e15


@pytest.mark.parametrize("ttl", [math.nan, math.inf, -1.0, 0.0, 1e300])
async def test_no_life_breaks_an_entry(store: Store, ttl: float) -> None:
    await store.put(A, "k", b"x", ttl)
    await store.add(A, "k2", b"x", ttl)
    await store.incr(A, "k3", ttl, half_life=ttl)
    assert (await store.incr(A, "k4", HOUR)).total == 1.0


async def test_many_answers_in_order_with_gaps_and_repetitions(store: Store) -> None:
    number = 2 * CHUNK + 7
    counts = await store.incr_many(
        [Increment(A, f"k{i}", HOUR, i + 1.0) for i in range(number)] + [Increment(A, "k0", HOUR)] * 2
    )
    assert [entry.total for entry in counts] == [*(i + 1.0 for i in range(number)), 2.0, 3.0]
    entries = await store.get_many([(A, "k3"), (A, "none"), (A, "k0"), (A, "k3")])
    assert [entry and entry.total for entry in entries] == [4.0, None, 3.0, 4.0]
    assert await store.get_many([]) == []
    assert await store.incr_many([]) == []


@pytest.mark.parametrize("space", [A, PEOPLE], ids=["as it is", "hashed"])
async def test_any_text_is_a_key_of_its_own(opened: Open, space: Space) -> None:
    store = opened(hash_addresses=True)
    for number, key in enumerate(HOSTILE.values()):
        assert await store.add(space, key, b"%d" % number, HOUR) is None
    values = [entry and entry.value for entry in await store.get_many([(space, key) for key in HOSTILE.values()])]
    assert values == [b"%d" % number for number in range(len(HOSTILE))]
    listed = await shown(store, space)
    assert len(listed) == len(HOSTILE)
    assert all(len(key) <= 255 for key in listed)
    for key in listed:
        assert await store.delete(space, key), key
    assert await shown(store, space) == {}


async def test_personal_keys_are_kept_as_a_hash_and_found_by_key(opened: Open) -> None:
    store = opened(hash_addresses=True)
    await store.put(PEOPLE, "alice@example.org", b"x", HOUR)
    await store.put(A, "example.org", b"y", HOUR)
    assert await store.get(PEOPLE, "alice@example.org") is not None
    [(key, _)] = (await shown(store, PEOPLE)).items()
    assert key.startswith("#")
    assert list(await shown(store, PEOPLE, key[:5])) == [key]
    assert await shown(store, PEOPLE, "alice") == {}
    assert list(await shown(store, A)) == ["example.org"]
    assert await store.delete(PEOPLE, "alice@example.org")
    assert await store.get(PEOPLE, "alice@example.org") is None


async def test_scan_is_by_space_and_prefix_and_bounded(store: ManagedStore) -> None:
    await store.incr_many([Increment(A, f"net{i}", HOUR, i + 1.0) for i in range(1200)])
    await store.put(A, "other", b"", HOUR)
    await store.put(B, "net1", b"", HOUR)
    assert len(await shown(store, A, "net", 5000)) == 1200
    assert len(await shown(store, A, limit=5000)) == 1201
    assert len(await shown(store, A, "net", 10)) == 10
    assert {key: entry.total for key, entry in (await shown(store, A, "net119")).items()} == {
        "net119": 120.0, **{f"net119{i}": 1191.0 + i for i in range(10)}
    }  # fmt: skip
    assert await shown(store, A, "ne*") == {}
    assert await shown(store, A, limit=0) == {}


async def test_what_is_deleted_is_gone(store: ManagedStore) -> None:
    await store.put(A, "k", b"", HOUR)
    assert await store.delete(A, "k")
    assert not await store.delete(A, "k")
    assert await store.get(A, "k") is None


@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("space", [A, PEOPLE], ids=["as it is", "personal"])
async def test_what_is_replaced_lives_as_long_as_before(store: ManagedStore, space: Space, key: str) -> None:
    assert not await store.replace(space, key, b"new")
    assert await store.get(space, key) is None, "what is not there is not made"
    await store.put(space, key, b"old", HOUR)
    assert await store.replace(space, key, b"new")
    entry = await store.get(space, key)
    assert entry is not None
    assert entry.value == b"new"
    assert entry.age + entry.ttl == pytest.approx(HOUR)
    [listed] = await shown(store, space)
    assert await store.replace(space, listed, b"newer"), "by what it is shown as"
    assert {one.value for one in (await shown(store, space)).values()} == {b"newer"}


async def test_purge_drops_what_has_expired_and_nothing_else(store: ManagedStore, kind: str) -> None:
    await store.incr_many([Increment(A, f"old{i}", 0.05) for i in range(2500)])
    await store.incr_many([Increment(A, f"new{i}", HOUR) for i in range(600)])
    await asyncio.sleep(0.1)
    dropped = await store.purge()
    assert dropped == (0 if kind == "redis" else 2500)  # its server does that by itself
    assert len(await shown(store, A, limit=5000)) == 600
    assert await store.purge() == 0


async def test_nothing_works_after_close_and_close_can_be_repeated(store: ManagedStore) -> None:
    await store.put(A, "k", b"", HOUR)
    await store.close()
    await store.close()
    with pytest.raises(StoreError):
        await store.get(A, "k")


async def test_a_store_that_was_never_used_can_be_closed(opened: Open) -> None:
    await opened().close()


async def test_who_gives_up_waiting_harms_nobody(store: Store) -> None:
    tasks = [asyncio.ensure_future(store.incr(A, "k", HOUR)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, Entry) for result in done) >= 50
    assert 50.0 <= (await store.incr(A, "k", HOUR, 0.0)).total <= 100.0


# -- what is built on top -------------------------------------------------------------------------------------------


async def may_pass(store: Store, triplet: str, delay: float) -> bool:
    """Greylisting in full."""
    seen = await store.add(A, triplet, b"", 2 * HOUR)
    if seen is None or (not seen.value and seen.age < delay):
        return False
    await store.put(A, triplet, b"passed", 36 * 24 * HOUR)
    return True


async def test_greylisting_decides_alike_however_many_race(opened: Open, kind: str) -> None:
    stores = [opened()] * 2 if kind == "memory" else [opened(), opened()]
    first = await asyncio.gather(*(may_pass(store, "t", 0.3) for store in stores * 10))
    assert not any(first)
    await asyncio.sleep(0.35)
    assert all(await asyncio.gather(*(may_pass(store, "t", 0.3) for store in stores * 10)))
    assert await may_pass(stores[0], "t", HOUR)


async def test_of_all_who_race_one_adds(opened: Open, kind: str) -> None:
    stores = [opened()] * 2 if kind == "memory" else [opened(), opened()]
    for number in range(10):
        told = await asyncio.gather(
            *(store.add(A, f"k{number}", b"%d" % n, HOUR) for n, store in enumerate(stores * 5))
        )
        assert told.count(None) == 1
        assert {entry.value for entry in told if entry} == {b"%d" % told.index(None)}


async def test_connections_that_were_counted_in_an_ended_window_are_not_taken_from_the_next(store: Store) -> None:
    counted = await store.incr(A, "client", 0.1)
    await asyncio.sleep(counted.ttl + 0.02)
    await store.incr(A, "client", HOUR)
    # Whoever closes now sees that his window is over, and takes nothing away; a worker that died left nothing behind.
    assert (await store.incr(A, "client", HOUR, 0.0)).total == 1.0


PROGRAM = """
import asyncio, json, sys
from authmilter.config.schema import Store
from authmilter.interfaces import Space
from authmilter.store import open_store

async def main():
    store = open_store(Store(**json.loads(sys.argv[1])))
    first = 0
    for number in range(200):
        await store.incr(Space("a"), "total", 3600.0)
        await store.incr(Space("a"), "fading", 3600.0, half_life=1e9)
        first += await store.add(Space("a"), f"race{number}", b"", 3600.0) is None
    await store.close()
    print(first)

asyncio.run(main())
"""


async def test_processes_that_race_lose_no_count(options: dict[str, Any], opened: Open, kind: str) -> None:
    if kind == "memory":
        pytest.skip("memory: is of one process by design")
    command = [sys.executable, "-c", PROGRAM, json.dumps(options)]
    runs = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(3)]
    firsts = [int((await run.communicate())[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert sum(firsts) == 200
    totals = await opened().get_many([(A, "total"), (A, "fading")])
    assert [entry and entry.total for entry in totals] == [600.0, pytest.approx(600.0)]


# -- the back ends against each other ---------------------------------------------------------------------------------

KEYS = st.sampled_from(["x", "y"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("put"), KEYS, st.binary(max_size=3)),
        st.tuples(st.just("add"), KEYS, st.binary(max_size=3)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("incr"), KEYS, st.floats(-1e16, 1e16), st.sampled_from([0.0, 1e9])),
    ),
    max_size=12,
)


async def outcome(store: ManagedStore, step: tuple[Any, ...]) -> tuple[Any, ...]:
    verb, key, *rest = step
    if verb == "put":
        await store.put(A, key, rest[0], HOUR)
        return ()
    if verb == "incr":
        result: Any = await store.incr(A, key, HOUR, rest[0], half_life=rest[1])
    elif verb == "add":
        result = await store.add(A, key, rest[0], HOUR)
    else:
        result = await getattr(store, verb)(A, key)
    return (result.value, pytest.approx(result.total, rel=1e-6, abs=1e-6)) if isinstance(result, Entry) else (result,)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_all_back_ends_answer_alike(opened: Open, steps: list[tuple[Any, ...]]) -> None:
    store, other = opened(), MemoryStore()
    for key in ("x", "y"):
        await store.delete(A, key)
    for step in steps:
        assert await outcome(store, step) == await outcome(other, step), step
    await store.close()
