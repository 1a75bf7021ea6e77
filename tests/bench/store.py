"""What the state store costs: ``python -m tests.bench.store sqlite|redis [--entries N] [--rate N] [--seconds N] ...``

sqlite: a file with that many greylisted triplets, then so many messages a second for so long, from so many processes.
A message is four operations on random keys: two reads at MAIL that go together (a correspondent, and a `get_many` of
three reputations), an `add` of a triplet at RCPT, and an `incr` at the end.  Printed: percentiles of an operation; the
longest that the event loop stood still; CPU time per message, without that of the same loop that sends no operation,
where most of it is to wake an idle processor, and once more without pauses, one message and eight at a time;
the size of the file; a purge of the part that has expired meanwhile.

redis: a server of its own on a unix socket; operations per second and CPU time of ours per operation, one after the
other, many at once, and by `incr_many`.

Not a test: figures depend on machine and load.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from authmilter.interfaces import Increment, Space, Store
from authmilter.store.sqlite import SqliteStore, StoreFile

GREYLIST, KNOWN, REPUTATION, RATE = Space("greylist", personal=True), Space("known"), Space("reputation"), Space("rate")
DAY = 86400.0


def triplet(number: int) -> str:
    """A key of usual length."""
    return (
        f"192.0.{number % 250}.0/24 user{number % 9973}@sender{number % 50021}.example rcpt{number % 997}@example.org"
    )


def fill(path: Path, entries: int) -> float:
    """Make the file; every fourth triplet is about to expire."""
    start = time.perf_counter()
    file = StoreFile(path, busy=5.0)
    file.open()
    for first in range(0, entries, 5000):
        steps = [
            ("add", "greylist", triplet(number).encode(), b"", 3 * DAY if number % 4 else 120.0)
            for number in range(first, min(first + 5000, entries))
        ]
        file.run([steps])
    file.close()
    return time.perf_counter() - start


class Meter:
    """Seconds of every operation, and how long the loop stood still at most."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.stall = 0.0

    async def watch(self) -> None:
        """How late a timer is: that long the loop stood still.  Time in which others had the processor is not counted."""
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:  # noqa: ASYNC230  no disk
            while True:
                start, lost = time.perf_counter(), int(os.pread(file.fileno(), 100, 0).split()[1])
                await asyncio.sleep(0.002)
                late = time.perf_counter() - start - 0.002
                if late > self.stall:
                    late -= (int(os.pread(file.fileno(), 100, 0).split()[1]) - lost) / 1e9
                    self.stall = max(self.stall, late)

    async def timed(self, operation: Awaitable[object]) -> None:
        """Await it, and note how long it took."""
        start = time.perf_counter()
        await operation
        self.seconds.append(time.perf_counter() - start)


Message = Callable[[Store, Meter, int], Awaitable[None]]


async def nothing(store: Store, meter: Meter, entries: int) -> None:
    """What costs as much as a message without its operations."""
    await asyncio.sleep(0)


async def message(store: Store, meter: Meter, entries: int) -> None:
    """Four operations of one message, two of them at once."""
    number = random.randrange(entries + entries // 50)
    client, domain = f"192.0.{number % 250}.0/24", f"sender{number % 50021}.example"
    asked = [(REPUTATION, client), (REPUTATION, domain), (REPUTATION, "spf " + domain)]
    known = asyncio.ensure_future(meter.timed(store.get(KNOWN, "user@" + domain)))
    await meter.timed(store.get_many(asked))
    await known
    await meter.timed(store.add(GREYLIST, triplet(number), b"", 3 * DAY))
    await meter.timed(store.incr(REPUTATION, client, 90 * DAY, half_life=14 * DAY))


async def load(store: Store, what: Message, entries: int, rate: float, seconds: float) -> dict[str, float]:
    """Messages at random times, `rate` of them a second."""
    meter = Meter()
    await store.get(KNOWN, "first")  # opens it
    watch = asyncio.create_task(meter.watch())
    running: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    cpu = time.process_time()
    due = start = loop.time()
    sent = 0
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        task = asyncio.ensure_future(what(store, meter, entries))
        running.add(task)
        task.add_done_callback(running.discard)
        due += random.expovariate(rate)
        sent += 1
    await asyncio.gather(*running)
    cpu = time.process_time() - cpu
    watch.cancel()
    times = sorted(meter.seconds) or [0.0]
    return {
        "messages": sent,
        "cpu_us": cpu / sent * 1e6,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
        "max_ms": times[-1] * 1e3,
        "stall_ms": meter.stall * 1e3,
    }


async def flat_out(store: Store, entries: int, together: int, count: int = 4000) -> float:
    """CPU time per message in us, where the next one begins as soon as one of `together` ends."""
    meter = Meter()

    async def one() -> None:
        for _ in range(count // together):
            await message(store, meter, entries)

    cpu = time.process_time()
    await asyncio.gather(*(one() for _ in range(together)))
    return (time.process_time() - cpu) / count * 1e6


async def sqlite_worker(path: str, entries: int, rate: float, seconds: float) -> dict[str, float]:
    """One process of the load."""
    store = SqliteStore(Path(path))
    idle = await load(store, nothing, entries, rate, seconds / 4)
    figures = await load(store, message, entries, rate, seconds)
    figures |= {f"flat_out_{together}_us": await flat_out(store, entries, together) for together in (1, 8)}
    await store.close()
    return {**figures, "cpu_us": figures["cpu_us"] - idle["cpu_us"], "idle_stall_ms": idle["stall_ms"]}


def sqlite(args: argparse.Namespace) -> None:
    """Fill, load from several processes, purge."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "state.db"
        took = fill(path, args.entries)
        size = path.stat().st_size
        print(
            f"{args.entries} triplets: filled in {took:.0f} s, {size / 1e6:.0f} MB, {size / args.entries:.0f} octets each"
        )
        command = [sys.executable, "-m", "tests.bench.store", "worker", "--path", str(path)]
        command += [
            "--entries",
            str(args.entries),
            "--rate",
            str(args.rate / args.processes),
            "--seconds",
            str(args.seconds),
        ]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(args.processes)]
        rows = [json.loads(run.communicate()[0]) for run in runs]
        for name in (
            "messages",
            "cpu_us",
            "p50_ms",
            "p99_ms",
            "max_ms",
            "stall_ms",
            "idle_stall_ms",
            "flat_out_1_us",
            "flat_out_8_us",
        ):
            print(f"{name:14}", *(f"{row[name]:10.2f}" for row in rows))
        print(f"log {Path(f'{path}-wal').stat().st_size / 1e6 if Path(f'{path}-wal').exists() else 0:.0f} MB")
        uvloop.run(purge(path, args.entries, args.rate))


async def purge(path: Path, entries: int, rate: float) -> None:
    """Half an hour later a quarter has expired; the load goes on meanwhile."""
    store = SqliteStore(path, clock=lambda: time.time() + 1800.0)
    traffic = asyncio.create_task(load(store, message, entries, rate / 2, 15.0))
    await asyncio.sleep(0.5)
    start, cpu = time.perf_counter(), time.process_time()
    dropped = await store.purge()
    print(
        f"purge: {dropped} dropped in {time.perf_counter() - start:.1f} s, CPU {time.process_time() - cpu:.1f} s",
        end=" ",
    )
    figures = await traffic
    print(f"with half the load beside it: p99 {figures['p99_ms']:.1f} ms, stall {figures['stall_ms']:.1f} ms")
    await store.close()
    print(f"file {path.stat().st_size / 1e6:.0f} MB after it")  # noqa: ASYNC240


async def redis(path: str) -> None:
    """Operations one after the other, many at once, and in bulk."""
    from authmilter.config.endpoint import parse_store
    from authmilter.store.redis import RedisStore

    store = RedisStore(parse_store(f"unix://{path}"))
    await store.open()
    number = 0

    async def one() -> None:
        nonlocal number
        number += 1
        await store.incr(RATE, f"user{number % 5000}@example.org", 3600.0)

    async def measured(label: str, rounds: int, operations: int, do: Callable[[], Awaitable[object]]) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            await do()
        done = rounds * operations
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{label:24} {done / wall:8.0f} operations/s, {cpu / done * 1e6:6.1f} us CPU of ours each")

    bulk = [Increment(RATE, f"user{number}@example.org", 3600.0) for number in range(100)]
    await measured("one after the other", 5000, 1, one)
    await measured("4 at once", 2000, 4, lambda: asyncio.gather(*(one() for _ in range(4))))
    await measured("32 at once", 500, 32, lambda: asyncio.gather(*(one() for _ in range(32))))
    await measured("incr_many of 100", 200, 100, lambda: store.incr_many(bulk))
    await store.close()


def with_server(args: argparse.Namespace) -> None:
    """A server of its own, ended by its id."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = f"{folder}/s"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--loglevel", "warning"]
        )
        try:
            while not os.path.exists(path):
                time.sleep(0.02)
            uvloop.run(redis(path))
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sqlite", "redis", "worker"))
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=300.0, help="messages per second of all processes")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", help="where files are made")
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == "sqlite":
        sqlite(args)
    elif args.what == "redis":
        with_server(args)
    else:
        print(json.dumps(uvloop.run(sqlite_worker(args.path, args.entries, args.rate, args.seconds))))


if __name__ == "__main__":
    main()
