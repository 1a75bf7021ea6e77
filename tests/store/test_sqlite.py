# ruff: noqa: ASYNC221, ASYNC240  files and mounts are what these tests are about
"""What may happen to a file, a disk and a clock, and that mail goes on."""

import asyncio
import json
import logging
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from authmilter.errors import StoreError
from authmilter.interfaces import Increment, Space, Store
from authmilter.store import front
from authmilter.store.entry import GONE
from authmilter.store.memory import MemoryStore
from authmilter.store.sqlite import APPLICATION, VERSION, SqliteStore, StoreFile
from tests.store.servers import is_root

A = Space("a")
PEOPLE = Space("people", personal=True)
HOUR = 3600.0

Make = Callable[..., SqliteStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def make(path: Path) -> AsyncIterator[Make]:
    """Stores over one file, closed at the end."""
    stores: list[SqliteStore] = []

    def made(where: Path = path, timeout: float = 5.0, **more: object) -> SqliteStore:
        stores.append(SqliteStore(where, timeout=timeout, **more))  # type: ignore[arg-type]
        return stores[-1]

    yield made
    for store in stores:
        await store.close()


async def works_again(store: Store, seconds: float = 8.0) -> None:
    """Wait until the store has found out by itself."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await store.put(A, "again", b"", HOUR)
        except StoreError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def fails(store: Store, match: str = ".") -> None:
    with pytest.raises(StoreError, match=match):
        await store.put(A, "k", b"", HOUR)


# -- the file ---------------------------------------------------------------------------------------------------------


async def test_state_outlives_the_process(make: Make) -> None:
    store = make()
    await store.put(A, "k", b"kept", HOUR)
    await store.incr(A, "n", HOUR, 2.0, half_life=HOUR)
    await store.close()
    entries = await make().get_many([(A, "k"), (A, "n")])
    assert [entry and (entry.value, round(entry.total, 1)) for entry in entries] == [(b"kept", 0.0), (b"", 2.0)]


async def test_only_its_owner_can_read_the_file(make: Make, path: Path) -> None:
    await make().put(A, "k", b"", HOUR)
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in path.parent.glob("state.db*")} == {0o600}


async def test_hashed_keys_are_nowhere_in_the_file(make: Make, path: Path) -> None:
    store = make(hash_personal=True)
    await store.put(PEOPLE, "alice@example.org", b"", HOUR)
    await store.put(A, "readable.example", b"", HOUR)
    await store.close()
    octets = path.read_bytes()
    assert b"readable.example" in octets
    assert b"alice" not in octets
    assert await make(hash_personal=True).get(PEOPLE, "alice@example.org") is not None


async def test_no_folder_is_an_error_until_there_is_one(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path / "later" / "state.db")
    await fails(store, "No such file or directory")
    (tmp_path / "later").mkdir()
    await works_again(store)


async def test_the_file_of_an_early_release_is_migrated_even_by_many_at_once(make: Make, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA user_version = 1")
    stores = [make() for _ in range(6)]
    await asyncio.gather(*(store.incr(A, "k", HOUR) for store in stores))
    entry = await stores[0].get(A, "k")
    assert entry is not None
    assert entry.total == 6.0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)


async def test_a_file_of_a_newer_release_is_left_alone(make: Make, path: Path) -> None:
    await make().put(A, "k", b"", HOUR)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    await fails(make(), "newer release")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM entry WHERE space = 'a'").fetchone() == (1,)


async def test_the_database_of_another_program_is_left_alone(make: Make, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious (x)")
    before = path.read_bytes()
    await fails(make(), "another program")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n" * 50, b"x" * 4096], ids=["text", "one page"])
async def test_a_file_that_was_named_by_mistake_is_left_alone(make: Make, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    await fails(make(), "no SQLite database")
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


# -- corruption -------------------------------------------------------------------------------------------------------


def ruin_pages(path: Path) -> None:
    """All but the header."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xde\xad" * ((size - 100) // 2))


def zero(path: Path) -> None:
    path.write_bytes(bytes(8192))


def cut(path: Path) -> None:
    os.truncate(path, 3 * 4096)


@pytest.mark.parametrize("ruin", [ruin_pages, zero, cut])
async def test_a_corrupt_file_is_put_aside_and_a_new_one_begun(
    make: Make, path: Path, ruin: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    await store.incr_many([Increment(A, f"k{i}", HOUR) for i in range(2000)])
    await store.close()
    ruin(path)
    ruined = path.read_bytes()
    after = make()
    await after.get_many([(A, f"k{i}") for i in range(250)]) if ruin is zero else await read_all(after)
    await works_again(after)
    assert await after.get(A, "k1") is None
    aside = path.with_name("state.db.corrupt")
    assert aside.read_bytes()[:100] == ruined[:100]
    assert "is corrupt: moved to" in caplog.text
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def read_all(store: Store) -> None:
    """Until the damage is met."""
    try:
        for start in range(0, 2000, 250):
            await store.get_many([(A, f"k{i}") for i in range(start, start + 250)])
    except StoreError:
        pass


async def test_a_file_that_is_ruined_under_way_is_noticed_by_all_who_use_it(make: Make, path: Path) -> None:
    errors: list[str] = []
    stores = [make(on_error=errors.append), make(on_error=errors.append)]
    for store in stores:
        await store.incr_many([Increment(A, f"{id(store)}{i}", HOUR) for i in range(3000)])
    for store in stores:
        await store.close()
    stores = [make(on_error=errors.append), make(on_error=errors.append)]
    for store in stores:
        await store.get(A, "k")
    ruin_pages(path)
    for store in stores:
        await read_all(store)
    for store in stores:
        await works_again(store)
    assert errors
    await asyncio.sleep(1.2)  # both look whether the file is still the one that they have
    for store in stores:
        await works_again(store)
    for store in stores:
        await store.incr(A, "together", HOUR)
    entry = await stores[0].get(A, "together")
    assert entry is not None
    assert entry.total == 2.0


async def test_a_file_that_the_administrator_removes_is_made_anew(make: Make, path: Path) -> None:
    store = make()
    await store.put(A, "k", b"", HOUR)
    for file in path.parent.glob("state.db*"):
        file.unlink()
    await asyncio.sleep(1.1)
    await fails(store, "the file is gone")
    await works_again(store)
    assert path.exists()
    assert await store.get(A, "k") is None


# -- the disk ---------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    if not is_root():
        pytest.skip("only root can mount a file system")
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def fill(store: Store) -> StoreError:
    """Until it fails."""
    for start in range(0, 100_000, 250):
        try:
            await store.incr_many([Increment(A, f"{i:0200}", HOUR) for i in range(start, start + 250)])
        except StoreError as error:
            return error
    raise AssertionError("it never became full")


async def test_a_full_disk_is_an_error_until_there_is_room(make: Make, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-o", "size=2m"):
        errors: list[str] = []
        store = make(disk / "state.db", on_error=errors.append)
        await store.put(A, "kept", b"", HOUR)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1024 * 1024))
        assert "full" in str(await fill(store)) or "disk I/O" in str(store._trouble)
        assert errors[0] == "incr_many"
        ballast.unlink()
        await works_again(store)
        assert await store.get(A, "kept") is not None
        await store.close()


async def test_a_limit_of_file_sizes_is_an_error_until_it_is_gone(make: Make) -> None:
    store = make()
    await store.put(A, "kept", b"", HOUR)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        await fill(store)
        await fails(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await works_again(store)
    assert await store.get(A, "kept") is not None


async def test_max_size_bounds_the_file_and_purging_makes_room(make: Make, path: Path) -> None:
    now = [time.time()]
    store = make(max_size=1024 * 1024, clock=lambda: now[0])
    assert "full" in str(await fill(store))
    await works_again(store)  # small writes still find room
    assert path.stat().st_size <= 1024 * 1024
    now[0] += 2 * HOUR
    assert await store.purge() > 1000
    await store.incr_many([Increment(A, f"{i:0200}", HOUR) for i in range(500)])


async def test_a_file_system_that_becomes_read_only_is_an_error_until_it_is_not(make: Make, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk):
        store = make(disk / "state.db")
        await store.put(A, "k", b"", HOUR)
        await store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = make(disk / "state.db")
        await fails(store, "(?i)read-?only|unable to open")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        await works_again(store)
        assert await store.get(A, "k") is not None
        await store.close()


async def test_a_purge_gives_octets_back(make: Make, path: Path) -> None:
    now = [time.time()]
    store = make(clock=lambda: now[0])
    await store.incr_many([Increment(A, f"{i:060}", 60.0 if i % 10 else 2 * HOUR) for i in range(20_000)])
    await store.close()
    large = path.stat().st_size
    store = make(clock=lambda: now[0])
    now[0] += 61.0
    assert await store.purge() == 18_000
    await store.close()
    assert path.stat().st_size < large / 2
    listed = [key async for key, _ in make(clock=lambda: now[0]).scan(A, limit=5000)]
    assert len(listed) == 2000


async def test_the_log_of_writes_does_not_grow_without_end(make: Make, path: Path) -> None:
    store = make()
    for number in range(60):
        await store.incr_many([Increment(A, f"{number}{i:0200}", HOUR) for i in range(250)])
    for _ in range(100):
        await store.incr_many([Increment(A, f"{number}", HOUR) for number in range(250)])
    assert Path(f"{path}-wal").stat().st_size < 80 * 1024 * 1024
    assert path.stat().st_size > 1024 * 1024  # somebody copies it into the file meanwhile


# -- waiting ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes, and does not end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def test_a_file_that_another_process_holds_costs_a_bounded_wait_once(make: Make, path: Path) -> None:
    errors: list[str] = []
    store = make(timeout=0.4, connect_timeout=0.4, on_error=errors.append)
    await store.put(A, "k", b"", HOUR)
    stalls: list[float] = []

    async def watch() -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.005)
            stalls.append(time.monotonic() - start)

    watching = asyncio.create_task(watch())
    with locked(path):
        start = time.monotonic()
        results = await asyncio.gather(*(store.incr(A, "n", HOUR) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results)
        assert 0.2 < time.monotonic() - start < 0.8
        for _ in range(20):
            start = time.monotonic()
            await fails(store, "locked|no answer")
            assert time.monotonic() - start < 0.1
    watching.cancel()
    assert max(stalls) < 0.2  # the loop went on
    assert errors[:50] == ["incr"] * 50
    await works_again(store)
    # What was refused did not happen afterwards.
    assert await store.incr(A, "n", HOUR, 0.0) == GONE


async def test_what_comes_on_top_of_a_long_queue_fails_at_once(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "MAX_WAITING", 20)
    store = make(timeout=2.0)
    await store.put(A, "k", b"", HOUR)
    with locked(path):
        waiting = [asyncio.ensure_future(store.incr(A, "n", HOUR)) for _ in range(20)]
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await fails(store, "more than 20 operations wait")
        assert time.monotonic() - start < 0.1
    entries = await asyncio.gather(*waiting)
    assert [entry.total for entry in entries] == [n + 1.0 for n in range(20)]
    await store.put(A, "k", b"", HOUR)


async def test_a_disk_that_hangs_is_asked_once_and_the_process_can_still_end(make: Make, path: Path) -> None:
    store = make(timeout=0.2, connect_timeout=0.2)
    await store.put(A, "k", b"", HOUR)
    hang = threading.Event()
    run = store._file.run
    store._file.run = lambda requests: (hang.wait(), run(requests))[1]  # type: ignore[method-assign]
    await fails(store, "no answer within 0.2 s")
    await asyncio.sleep(1.5)
    assert store._jobs.qsize() <= 1
    start = time.monotonic()
    await store.close()
    assert time.monotonic() - start < 1.0
    hang.set()


async def test_the_log_says_it_once_a_minute(make: Make, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "authmilter.store")
    store = make(timeout=0.2, connect_timeout=0.2)
    await store.put(A, "k", b"", HOUR)
    with locked(path):
        for _ in range(100):
            await fails(store)
            await asyncio.sleep(0.01)
    await works_again(store)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "mail goes on without what needs it" in lines[0]
    assert lines[1].endswith("works again")


# -- the clock --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
async def clocked(request: pytest.FixtureRequest, make: Make) -> tuple[Store, list[float]]:
    """A store, and the time, which the test sets."""
    now = [1_800_000_000.0]
    store: Store = MemoryStore(clock=lambda: now[0]) if request.param == "memory" else make(clock=lambda: now[0])
    return store, now


async def test_a_clock_that_is_set_back_prolongs_no_window(clocked: tuple[Store, list[float]]) -> None:
    store, now = clocked
    assert (await store.incr(A, "k", 60.0)).ttl == 60.0
    now[0] -= HOUR
    entry = await store.get(A, "k")
    assert entry is not None
    assert (entry.age, entry.ttl) == (0.0, 60.0)
    assert (await store.incr(A, "k", 60.0)).total == 2.0
    now[0] += 61.0
    assert (await store.incr(A, "k", 60.0)).total == 1.0


async def test_a_clock_that_is_set_back_lets_a_greylisted_sender_pass_after_one_more_delay(
    clocked: tuple[Store, list[float]],
) -> None:
    store, now = clocked
    await store.add(A, "k", b"", 2 * HOUR)
    now[0] += 200.0 - HOUR
    seen = await store.add(A, "k", b"", 2 * HOUR)
    assert seen is not None
    assert seen.age == 0.0
    now[0] += 300.0
    seen = await store.add(A, "k", b"", 2 * HOUR)
    assert seen is not None
    assert seen.age == pytest.approx(300.0)


async def test_a_clock_that_jumps_ahead_and_back_loses_only_what_lives_shorter(
    clocked: tuple[Store, list[float]],
) -> None:
    store, now = clocked
    await store.put(A, "long", b"", 24 * HOUR)
    await store.put(A, "short", b"", 60.0)
    await store.incr(A, "fading", 24 * HOUR, 8.0, half_life=10 * HOUR)
    now[0] += HOUR
    await store.purge()
    now[0] -= HOUR
    assert await store.get(A, "long") is not None
    assert await store.get(A, "short") is None
    entry = await store.incr(A, "fading", 24 * HOUR, 0.0, half_life=10 * HOUR)
    assert entry.total == pytest.approx(8.0)


async def test_a_count_does_not_grow_when_the_clock_is_set_back(clocked: tuple[Store, list[float]]) -> None:
    store, now = clocked
    await store.incr(A, "k", 24 * HOUR, 8.0, half_life=HOUR)
    now[0] -= 10 * HOUR
    entry = await store.incr(A, "k", 24 * HOUR, 1.0, half_life=HOUR)
    assert entry.total == pytest.approx(9.0)
    now[0] += HOUR
    faded = await store.get(A, "k")
    assert faded is not None
    assert faded.total == pytest.approx(4.5)


async def test_memory_keeps_so_many_and_forgets_the_least_used() -> None:
    store = MemoryStore(max_entries=100)
    for number in range(100):
        await store.put(A, f"k{number}", b"", HOUR)
    await store.get(A, "k0")
    await store.put(A, "new", b"", HOUR)
    assert len(store) == 100
    assert await store.get(A, "k0") is not None
    assert await store.get(A, "k1") is None


# -- processes --------------------------------------------------------------------------------------------------------

KILLED = """
import asyncio, json, sys
from pathlib import Path
from authmilter.interfaces import Space
from authmilter.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]), timeout=5.0)
    while True:
        entry = await store.incr(Space("a"), "n", 3600.0)
        print(json.dumps(entry.total), flush=True)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_in_the_middle_harms_nobody(make: Make, path: Path) -> None:
    store = make()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(path), stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = 0.0
    for _ in range(200):
        told = json.loads(await child.stdout.readline())
    child.kill()
    told = json.loads(((await child.stdout.read()).splitlines() or [b"%f" % told])[-1] or b"0")
    await child.wait()
    entry = await store.incr(A, "n", HOUR)
    assert entry.total >= told + 1.0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_transaction_that_fails_leaves_nothing(path: Path) -> None:
    file = StoreFile(path, busy=1.0)
    file.open()
    with pytest.raises(sqlite3.Error):
        file.run([[("put", "a", b"1", b"", 60.0)], [("put", "a", b"2", None, 60.0)]])
    assert file.run([[("get", "a", b"1")]]) == [[None]]
    file.close()
