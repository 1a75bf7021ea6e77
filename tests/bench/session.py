"""What a message costs in process: a Session per message, without milter protocol, sockets and DNS.

    .venv/bin/python -m tests.bench.session [--profile | --stages | --count N] [--corpus FOLDER] [--messages N]

Prints microseconds of CPU per message, in all, by class and by size.  The workload is that of `tests.bench.run` where
it has been generated, else a small one.  Needs no root.
"""

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import socket
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import uvloop

from authmilter.check import all_checks
from authmilter.config.schema import Config, Identity, Policy
from authmilter.files import load_files
from authmilter.log import configure
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.milter.native import NativeEngine
from authmilter.model import HeaderField
from authmilter.session import Rulebook, Session, build
from authmilter.verdict import Verdict
from tests.bench.answers import WrongAnswerError, problem
from tests.bench.corpus import EPOCH, SIZES, Mail, Zone, generate, read, weighted

CORPUS = Path(__file__).parent / "var" / "var" / "corpus"
CHUNK = 65535  # what an MTA sends at once
MACROS = {b"j": b"mx.bench.test", b"{daemon_name}": b"smtpd", b"i": b"4bQX0000"}
STAGES = ("session", "connect", "helo", "mail", "rcpt", "data", "headers", "eoh", "body", "eom", "close")


def rules(folder: Path, config: Config | None = None) -> Rulebook:
    """A rulebook as a worker has it, with metrics and log, over the DNS of the corpus."""
    config = config or Config(identity=Identity(authserv_id="mx.bench.test"), policy=Policy(enforce=False))
    layout = layout_for(all_checks())
    metrics = Metrics(Shared(2, layout), 1, layout)
    configure("text", "info", open(os.devnull, "w"))  # noqa: SIM115  open for as long as the process logs
    zone = Zone((folder / "dns.conf").read_text())
    return build(config, all_checks(), load_files(config), zone, metrics, lambda: EPOCH + 60.0)


async def one(rulebook: Rulebook, mail: Mail) -> Verdict:
    """One message on a connection of its own."""
    session = Session(rulebook)
    try:
        await session.connect(mail.client_name, "4", 50001, mail.client, MACROS)
        await session.helo(mail.helo, MACROS)
        await session.mail([mail.mail_from], MACROS)
        await session.rcpt([mail.rcpt], MACROS)
        await session.data(MACROS)
        session.headers([HeaderField(name, value) for name, value in mail.fields])
        await session.end_of_headers(MACROS)
        body = mail.body
        for start in range(0, len(body), CHUNK):
            session.body(body[start : start + CHUNK])
        return await session.end_of_message(MACROS)
    finally:
        session.close()


async def staged(rulebook: Rulebook, mail: Mail, spent: list[float]) -> None:
    """The same; adds the seconds of each of STAGES to `spent`."""
    clock = time.perf_counter
    marks = [clock()]
    session = Session(rulebook)
    marks.append(clock())
    await session.connect(mail.client_name, "4", 50001, mail.client, MACROS)
    marks.append(clock())
    await session.helo(mail.helo, MACROS)
    marks.append(clock())
    await session.mail([mail.mail_from], MACROS)
    marks.append(clock())
    await session.rcpt([mail.rcpt], MACROS)
    marks.append(clock())
    await session.data(MACROS)
    marks.append(clock())
    session.headers([HeaderField(name, value) for name, value in mail.fields])
    marks.append(clock())
    await session.end_of_headers(MACROS)
    marks.append(clock())
    for start in range(0, len(mail.body), CHUNK):
        session.body(mail.body[start : start + CHUNK])
    marks.append(clock())
    await session.end_of_message(MACROS)
    marks.append(clock())
    session.close()
    marks.append(clock())
    spent.extend(after - before for before, after in pairwise(marks))


def check(verdict: Verdict, mail: Mail) -> None:
    """Raise WrongAnswerError if the Authentication-Results are not those of the class."""
    text = problem(mail.kind, [edit.value for edit in verdict.edits if edit.name == "Authentication-Results"])
    if text:
        raise WrongAnswerError(f"{text}, from {mail.mail_from.decode()}")


async def run(rulebook: Rulebook, mails: Sequence[Mail], count: int) -> float:
    """Microseconds of CPU per message, over `count` messages in turn."""
    started = time.process_time()
    for number in range(count):
        await one(rulebook, mails[number % len(mails)])
    return (time.process_time() - started) / count * 1e6


async def check_all(rulebook: Rulebook, mails: Sequence[Mail]) -> None:
    """Run every message once, and look at the answers; the caches are warm then."""
    for mail in mails:
        check(await one(rulebook, mail), mail)


async def fastest(rulebook: Rulebook, mails: Sequence[Mail], passes: int) -> list[float]:
    """The least microseconds that each message took: what a machine shared with others disturbs least."""
    clock = time.perf_counter
    best = [float("inf")] * len(mails)
    gc.disable()
    try:
        for _ in range(passes):
            for number, mail in enumerate(mails):
                started = clock()
                await one(rulebook, mail)
                spent = clock() - started
                best[number] = min(best[number], spent)
            gc.collect()
    finally:
        gc.enable()
    return [seconds * 1e6 for seconds in best]


async def stages(rulebook: Rulebook, mails: Sequence[Mail], passes: int) -> list[tuple[str, float]]:
    """Microseconds of each stage, the least of the passes, mean over the messages."""
    best = [[float("inf")] * len(STAGES) for _ in mails]
    for _ in range(passes):
        for number, mail in enumerate(mails):
            spent: list[float] = []
            await staged(rulebook, mail, spent)
            best[number] = [min(pair) for pair in zip(best[number], spent, strict=True)]
    columns = zip(*best, strict=True)
    return [(stage, mean(column) * 1e6) for stage, column in zip(STAGES, columns, strict=True)]


async def report(rulebook: Rulebook, mails: Sequence[Mail], args: argparse.Namespace) -> None:
    """Measure as asked, and print."""
    await check_all(rulebook, mails)
    await run(rulebook, mails, 300)
    if args.stages:
        for stage, spent in await stages(rulebook, mails, args.passes):
            print(f"{stage:10}{spent:8.1f} us")
        return
    if args.profile:
        profile = cProfile.Profile()
        profile.enable()
        await run(rulebook, mails, args.messages)
        profile.disable()
        pstats.Stats(profile).sort_stats("cumtime").print_stats(70)
        return
    rounds = [await run(rulebook, mails, args.messages) for _ in range(args.passes)]
    print(
        f"{min(rounds):.1f} us of CPU a message (best of {', '.join(f'{r:.1f}' for r in rounds)}), {len(mails)} mails"
    )
    best = await fastest(rulebook, mails, args.passes)
    groups: dict[str, list[float]] = defaultdict(list)
    for mail, spent in zip(mails, best, strict=True):
        groups[mail.kind].append(spent)
        groups[mail.size].append(spent)
    print("least of each message, without the garbage collector:")
    for name in ("pass", "dkimbad", "spffail", "bothbad", "noauth", *SIZES):
        if name in groups:
            print(f"  {name:10}{mean(groups[name]):8.1f} us  ({len(groups[name])})")
    print(f"  {'weighted':10}{weighted({s: mean(groups[s]) for s in SIZES if s in groups}):8.1f} us")


async def serve(rulebook: Rulebook, path: str) -> None:
    """Serve as a worker does, but for DNS, until the process is ended."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(512)
        await NativeEngine(lambda: Session(rulebook), idle_timeout=60.0, on_error="tempfail").serve([sock])
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", action="store_true", help="cProfile; small calls look dearer than they are")
    what.add_argument("--stages", action="store_true", help="microseconds by stage of the session")
    what.add_argument(
        "--count", type=int, metavar="N", help="run N messages and print nothing, for valgrind and py-spy"
    )
    what.add_argument(
        "--serve",
        metavar="PATH",
        help="serve on that unix socket instead, all in this process, for a picture by py-spy",
    )
    parser.add_argument("--messages", type=int, default=3000, help="messages in one pass (3000)")
    parser.add_argument("--passes", type=int, default=3, help="of which the best counts (3)")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many messages of the workload")
    parser.add_argument("--max-size", type=int, default=1 << 40, help="only messages up to so many octets")
    parser.add_argument("--corpus", type=Path, help="folder of the workload")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.corpus or (CORPUS if (CORPUS / "dns.conf").exists() else Path(scratch))
        if folder == Path(scratch):
            generate(folder)
        rulebook = rules(folder)
        mails = [mail for mail in read(folder, args.limit) if mail.octets <= args.max_size]
    if args.serve:
        uvloop.run(serve(rulebook, args.serve))
    elif args.count:
        uvloop.run(run(rulebook, mails, args.count))
    else:
        uvloop.run(report(rulebook, mails, args))


if __name__ == "__main__":
    main()
