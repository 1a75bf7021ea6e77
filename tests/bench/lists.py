"""What DNS lists cost when DNS is slow: ``python -m tests.bench.lists [--delay MS] [--clients N]``

Every question takes 30 ms (`dnsdelay` of the shared folder ``bench``, in front of a DNS server of the tests).  So many clients that
nobody knows yet are looked up, one after the other, in no list, one and ten: alone, and as whole messages, from CONNECT to
the verdict.  The last row has clients that all ten lists have: each takes one question more, for 127.0.0.1, but only
until the answer to that is known.  CPU is that of this process, once more with every answer in the cache.

Ten lists must not take a trip more than one.  Not a test: figures depend on machine and load; the status is 1 if they do.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import uvloop

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.config.schema import Config, Dns
from authmilter.files import load_files
from authmilter.lists import Lists
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField
from authmilter.resolver import StubResolver
from authmilter.session import Session, build
from authmilter.verdict import Action
from tests.shared import ROOT, shared_folder

VAR = Path(__file__).parent / "var"
ROUND_TRIP_SLACK = 0.5  # of a trip, by which ten lists may be slower than one


def program() -> Path:
    """The delaying forwarder, compiled once."""
    source, binary = shared_folder() / "bench" / "dnsdelay.c", VAR / "lists" / "dnsdelay"
    if not source.is_file() or shutil.which("gcc") is None:
        raise SystemExit(f"takes gcc and {source}")
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        binary.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-o", binary, source, "-lpthread"], check=True)
    return binary


@contextmanager
def nameserver(records: dict[str, list[str]], delay: int) -> Iterator[str]:
    """Where questions are answered, `delay` milliseconds late."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as zone, socket.socket(type=socket.SOCK_DGRAM) as free:
        json.dump({"records": records}, zone)
        zone.flush()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.dnsserver", zone.name], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        free.bind(("127.0.0.1", 0))
        ours = free.getsockname()[1]
        free.close()
        forwarder = subprocess.Popen([program(), "127.0.0.1", str(ours), "127.0.0.1", port, str(delay)])
        try:
            time.sleep(0.2)
            yield f"127.0.0.1:{ours}"
        finally:
            for process in (forwarder, server):
                process.kill()
                process.wait()


def configuration(lists: int, address: str) -> Config:
    """One with so many lists, each of which refuses at MAIL."""
    text = "".join(f"[dnsbl l{n}]\nzone = l{n}.example\nscore = reject\n" for n in range(lists))
    return replace(ini.load(None, text), dns=Dns(nameservers=(address,)))


Step = Callable[[IPv4Address], Awaitable[object]]


async def timed(step: Step, clients: list[IPv4Address]) -> tuple[list[float], float]:
    """Milliseconds of each, sorted, and of CPU for one."""
    spent = []
    cpu = time.process_time()
    for client in clients:
        start = time.perf_counter()
        await step(client)
        spent.append((time.perf_counter() - start) * 1000)
    return sorted(spent), (time.process_time() - cpu) * 1000 / len(clients)


async def measure(
    lists: int, address: str, clients: list[IPv4Address], expected: int
) -> list[tuple[str, float, float, float]]:
    """Rows of what, p50, p99 and CPU; in milliseconds."""
    config = configuration(lists, address)
    rows = []

    def row(what: str, found: tuple[list[float], float]) -> None:
        spent, cpu = found
        rows.append((what, spent[len(spent) // 2], spent[len(spent) * 99 // 100], cpu))

    async def message(client: IPv4Address) -> None:
        session = Session(rules)
        verdict = await session.connect(b"unknown", "4", 25, str(client).encode(), {b"j": b"mx.example"})
        await session.helo(b"mail.sender.example", {})
        verdict = await session.mail([b"<a@sender.example>"], {})
        if verdict.action is Action.CONTINUE:
            await session.rcpt([b"<b@example.org>"], {})
            session.headers([HeaderField(b"From", b" a@sender.example")])
            await session.end_of_headers({})
            verdict = await session.end_of_message({})
        assert (verdict.action is Action.REJECT) is bool(expected), verdict

    async def look_up(client: IPv4Address) -> None:
        assert len(await asked.look_up("dnsbl", client)) == expected

    for what in ("", ", cached"):
        if not what:
            dns = StubResolver(config.dns)
            asked = Lists(config, {}, dns, NullObserver())
        row(f"look-up in {lists} lists{what}", await timed(look_up, clients))
    dns.close()
    dns = StubResolver(config.dns)
    rules = build(config, all_checks(), load_files(config), dns, NullObserver())
    row(f"message, {lists} lists", await timed(message, clients))
    dns.close()
    return rows


def main() -> int:
    """Measure and print; the exit status tells whether ten lists cost a trip more."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lists", description=__doc__.partition("\n")[0])
    parser.add_argument("--delay", type=int, default=30, metavar="MS", help="that every answer takes")
    parser.add_argument("--clients", type=int, default=100)
    args = parser.parse_args()
    clean = [IPv4Address("192.0.2.0") + n * 7919 for n in range(args.clients)]
    listed = [IPv4Address("10.0.0.1") + n for n in range(args.clients)]
    records = {
        f"{'.'.join(reversed(str(client).split('.')))}.l{n}.example A": ["127.0.0.2"]
        for client in listed
        for n in range(10)
    }
    records["sender.example TXT"] = ["v=spf1 ?all"]
    print(f"{args.clients} clients, every question takes {args.delay} ms\n")
    print(f"{'':<36}{'p50 ms':>10}{'p99 ms':>10}{'CPU ms':>10}")
    medians = {}
    with nameserver(records, args.delay) as address:
        for lists, clients, expected in ((0, clean, 0), (1, clean, 0), (10, clean, 0), (10, listed, 10)):
            for what, p50, p99, cpu in uvloop.run(measure(lists, address, clients, expected)):
                title = f"{what}, listed" if expected else what
                medians[title] = p50
                print(f"{title:<36}{p50:>10.1f}{p99:>10.1f}{cpu:>10.3f}")
    more = (medians["look-up in 10 lists"] - medians["look-up in 1 lists"]) / args.delay
    print(f"\nten lists take {more:.2f} of a trip more than one")
    return int(more > ROUND_TRIP_SLACK)


if __name__ == "__main__":
    sys.exit(main())
