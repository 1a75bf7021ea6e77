"""What state costs the mail that needs it: ``python -m tests.bench.state [--json] [--entries N] [--rate N] [...]``

A SQLite file with that many greylisted triplets; then whole SMTP sessions in process, with every check on that keeps
state, so many messages a second for so long from so many processes that share the file, as workers do; then a purge of
the triplets that have expired meanwhile, a quarter, beside half of that load.

The messages: a third from strangers, who are greylisted or have waited; a third from senders whose SPF passes; a third
from our own users.  Printed are the percentiles of a store operation as the checks see it, how many a message takes, the
longest that an event loop stood still, CPU time per message, and the size of the file.

`tests.bench.store` measures the store alone, and Redis.  Not a test: figures depend on machine and load; the status is 1
if an aim was missed.
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
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.files import load_files
from authmilter.interfaces import Answer, Entry, Increment, Space, Store
from authmilter.log import configure
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.model import HeaderField
from authmilter.session import Rulebook, Session, build
from authmilter.store.sqlite import SqliteStore
from authmilter.verdict import Action
from tests.bench.report import table
from tests.bench.store import Meter, fill, load

AIM_P99, AIM_STALL = 20.0, 50.0  # milliseconds
MACROS = {b"j": b"mx.bench.test", b"{daemon_name}": b"smtpd", b"i": b"4bQX0000"}
CONFIGURATION = """
[identity]
authserv_id = mx.bench.test
local_domains = bench.test
[greylist]
enabled = yes
delay = 1s
[reputation]
enabled = yes
[correspondents]
enabled = yes
[connections]
per_address = 1000000
rate_address = 1000000/1m
rate_network = 1000000/1h
[sender_rate]
messages = 1000000/1h
[outbound_limits]
login_messages = 10000/1m, 100000/1h, 1000000/1d
login_recipients = 1000000/1h
"""


class TimedStore:
    """A store whose operations are measured."""

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
        self.meter = meter

    async def _timed(self, operation: Awaitable[Any]) -> Any:
        start = time.perf_counter()
        try:
            return await operation
        finally:
            self.meter.seconds.append(time.perf_counter() - start)

    async def get(self, space: Space, key: str) -> Entry | None:
        """As of `interfaces.Store`, like all that follow."""
        entry: Entry | None = await self._timed(self._store.get(space, key))
        return entry

    async def put(self, space: Space, key: str, value: bytes, ttl: float) -> None:
        """Write an entry."""
        await self._timed(self._store.put(space, key, value, ttl))

    async def add(self, space: Space, key: str, value: bytes, ttl: float) -> Entry | None:
        """Write an entry unless there is one."""
        entry: Entry | None = await self._timed(self._store.add(space, key, value, ttl))
        return entry

    async def incr(self, space: Space, key: str, ttl: float, amount: float = 1.0, half_life: float = 0.0) -> Entry:
        """Add to a count."""
        entry: Entry = await self._timed(self._store.incr(space, key, ttl, amount, half_life))
        return entry

    async def get_many(self, keys: Sequence[tuple[Space, str]]) -> list[Entry | None]:
        """`get` for each."""
        entries: list[Entry | None] = await self._timed(self._store.get_many(keys))
        return entries

    async def incr_many(self, increments: Sequence[Increment]) -> list[Entry]:
        """`incr` for each."""
        entries: list[Entry] = await self._timed(self._store.incr_many(increments))
        return entries

    async def purge(self) -> int:
        """Drop what has expired; not measured."""
        return await self._store.purge()


class World:
    """A DNS in which every senderN.example has an SPF record, and every second network a name."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """Computed, and so as quick as a cached answer."""
        return self.known(name, rdtype)

    def known(self, name: str, rdtype: str) -> Answer:
        """The same."""
        name = name.rstrip(".")
        if rdtype == "TXT" and name.startswith("sender"):
            return Answer((b"v=spf1 ip4:192.0.0.0/16 -all",), exists=True, ttl=300.0)
        if rdtype == "PTR" and name.startswith("7."):
            return Answer((f"mail.{name.removesuffix('.in-addr.arpa')}.example",), exists=True, ttl=300.0)
        if rdtype == "A" and name.startswith("mail.7."):
            octets = name.split(".")[1:5]
            return Answer((".".join(reversed(octets)),), exists=True, ttl=300.0)
        if rdtype == "A" and name.startswith("sender"):
            return Answer(("192.0.2.1",), exists=True, ttl=300.0)
        return Answer((), exists=not name.startswith("_"), ttl=300.0)

    def prefetch(self, name: str, rdtype: str) -> None:
        """Nothing to gain."""

    def for_client(self, client: str) -> "World":
        """Everybody asks the same."""
        return self


class Mail:
    """Plays one message a call; what `tests.bench.store.load` repeats."""

    def __init__(self, store: Store) -> None:
        self.store = TimedStore(store, Meter())
        self.rules = _rules(self.store)
        self.answers: dict[str, int] = {}
        self.messages = 0

    async def __call__(self, store: Store, meter: Meter, entries: int) -> None:
        """One message, of the kind whose turn it is."""
        self.store.meter = meter
        self.messages += 1
        kind = ("stranger", "sender", "user")[self.messages % 3]
        # Of the strangers some come again, of the others nearly none.
        number = random.randrange(500 if kind == "stranger" and random.random() < 0.5 else entries)
        last = 7 if kind == "sender" else 9  # the 9 has no name
        client = b"192.0.%d.%d" % (number % 250, last) if kind == "sender" else b"100.64.%d.9" % (number % 250)
        name = b"mail.%d.%d.0.192.example" % (last, number % 250) if kind == "sender" else b"[" + client + b"]"
        domain = b"stranger%d.example" if kind == "stranger" else b"sender%d.example"
        path = b"<user%d@" % (number % 9973) + domain % (number % 50021) + b">"
        recipient = b"<rcpt%d@bench.test>" % (number % 997)
        login = b"user%d" % (number % 5000) if kind == "user" else b""
        answer = await self._play(client, name, path, recipient, login)
        self.answers[f"{kind} {answer}"] = self.answers.get(f"{kind} {answer}", 0) + 1

    async def _play(self, client: bytes, name: bytes, path: bytes, recipient: bytes, login: bytes) -> str:
        session = Session(self.rules)
        macros = {**MACROS, b"{auth_authen}": login} if login else MACROS
        try:
            await session.connect(name, "4", 50001, client, MACROS)
            await session.helo(name, MACROS)
            steps = [await session.mail([path], macros)]
            if steps[-1].action is Action.CONTINUE:
                steps.append(await session.rcpt([recipient], macros))
            if steps[-1].action is not Action.CONTINUE:
                return steps[-1].action.value
            await session.data(macros)
            session.headers([HeaderField(b"From", b" " + path), HeaderField(b"Subject", b" hello")])
            await session.end_of_headers(macros)
            session.body(b"hello\r\n")
            return (await session.end_of_message(macros)).action.value
        finally:
            session.close()


def _rules(store: Store) -> Rulebook:
    config = ini.load(None, CONFIGURATION)
    layout = layout_for(all_checks())
    configure("text", "info", open(os.devnull, "w"))  # noqa: SIM115  open for as long as the process logs
    metrics = Metrics(Shared(2, layout), 1, layout)
    return build(config, all_checks(), load_files(config), World(), metrics, store=store)


async def worker(path: Path, entries: int, rate: float, seconds: float) -> dict[str, Any]:
    """One process of the load."""
    store = SqliteStore(path)
    mail = Mail(store)
    figures: dict[str, Any] = await load(store, mail, entries, rate, seconds)
    figures["operations"] = len(mail.store.meter.seconds) / max(1, mail.messages)
    await store.close()
    return {**figures, "answers": dict(sorted(mail.answers.items()))}


async def purge(path: Path, entries: int, rate: float) -> dict[str, Any]:
    """Half an hour later a quarter has expired; half the load goes on beside its purge."""
    store = SqliteStore(path, clock=lambda: time.time() + 1800.0)
    traffic = asyncio.create_task(load(store, Mail(store), entries, rate / 2, 15.0))
    await asyncio.sleep(0.5)
    start, cpu = time.perf_counter(), time.process_time()
    dropped = await store.purge()
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    figures = await traffic
    await store.close()
    return {
        "dropped": dropped,
        "seconds": took,
        "cpu_s": cpu,
        "p99_ms": figures["p99_ms"],
        "stall_ms": figures["stall_ms"],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Fill, load from several processes, purge."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "state.db"
        took = fill(path, args.entries)
        row: dict[str, Any] = {"entries": args.entries, "fill_s": took, "file_mb": path.stat().st_size / 1e6}
        command = [sys.executable, "-m", "tests.bench.state", "--worker", str(path), "--entries", str(args.entries)]
        command += ["--rate", str(args.rate / args.processes), "--seconds", str(args.seconds)]
        runs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(args.processes)]
        printed = [run.communicate()[0] for run in runs]
        if any(run.returncode for run in runs):
            raise SystemExit("a worker failed")
        row["workers"] = [json.loads(text) for text in printed]
        row["file_after_load_mb"] = path.stat().st_size / 1e6
        row["purge"] = uvloop.run(purge(path, args.entries, args.rate))
        row["file_after_purge_mb"] = path.stat().st_size / 1e6
        return row


def report(row: dict[str, Any], args: argparse.Namespace) -> bool:
    """Print it; were the aims met?"""
    size = row["file_mb"] * 1e6 / row["entries"]
    print(
        f"{row['entries']} triplets: filled in {row['fill_s']:.0f} s, {row['file_mb']:.0f} MB, {size:.0f} octets each"
    )
    print(f"{args.rate:g} messages a second for {args.seconds:g} s from {args.processes} processes:\n")
    names = ("messages", "operations", "p50_ms", "p99_ms", "max_ms", "stall_ms", "cpu_us")
    workers = row["workers"]
    lines = [[name, *(f"{one[name]:.2f}" for one in workers)] for name in names]
    print(table(["", *(f"worker {number}" for number, _ in enumerate(workers, 1))], lines))
    for one in workers:
        print("answers:", ", ".join(f"{kind} {count}" for kind, count in one["answers"].items()))
    done = row["purge"]
    print(
        f"purge: {done['dropped']} dropped in {done['seconds']:.1f} s, CPU {done['cpu_s']:.1f} s with half the load beside "
        f"it: p99 {done['p99_ms']:.1f} ms, stall {done['stall_ms']:.1f} ms"
    )
    print(
        f"file after the load {row['file_after_load_mb']:.0f} MB, after the purge {row['file_after_purge_mb']:.0f} MB"
    )
    runs = [*workers, done]
    p99, stall = (max(one[name] for one in runs) for name in ("p99_ms", "stall_ms"))
    met = bool(p99 < AIM_P99 and stall < AIM_STALL)
    print(f"p99 {p99:.1f} ms (aim {AIM_P99:g}), stall {stall:.1f} ms (aim {AIM_STALL:g}): {'met' if met else 'MISSED'}")
    return met


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=300.0, help="messages per second of all processes")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", help="where the file is made")
    parser.add_argument("--json", action="store_true", help="the figures as one line of JSON")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(uvloop.run(worker(args.worker, args.entries, args.rate, args.seconds))))
        return 0
    row = measure(args)
    if args.json:
        print(json.dumps(row))
        return 0
    return 0 if report(row, args) else 1


if __name__ == "__main__":
    sys.exit(main())
