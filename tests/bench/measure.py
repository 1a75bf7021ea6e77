"""The measurements: each starts what it needs, and yields rows.

A row says `what` was measured, which `case` of it, and of whom (`subject`); the rest is figures.  What is compared runs
by turns (A B A B), so that a slow moment of the machine meets all.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import dkim

from tests.bench.answers import WrongAnswerError, check_dump
from tests.bench.corpus import SIZES, key_record
from tests.bench.rig import (
    BULK_DNS,
    CORPUS,
    FAST_DNS,
    SLOW_DNS,
    Authmilter,
    Filter,
    Rig,
    Sampler,
    bulk,
    bulk_index,
    ed25519_key,
    hostile,
    progress,
    pss,
    size_index,
)

Row = dict[str, Any]
WARM_UP = 1000  # messages: the whole workload once


@dataclass
class Options:
    """What the command line says."""

    seconds: float = 3.0  # of one run
    rounds: int = 1
    peers: list[str] = field(default_factory=list)
    messages: int = 20_000  # of the soak
    connections: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 256, 512])
    domains: list[int] = field(default_factory=lambda: [1_000, 10_000])
    rate: float = 200.0  # of good mail, beside bad
    waiting: int = 50  # sessions that wait
    overload: list[int] = field(default_factory=lambda: [2000])


@dataclass(frozen=True)
class Case:
    """One load."""

    name: str
    index: Path
    connections: int
    least: int = 100  # messages

    def count(self, rate: float, seconds: float) -> int:
        """How many messages that takes."""
        return max(self.least, int(rate * seconds))


def warm_index(subject: Filter) -> Path:
    """Its workload."""
    return CORPUS / subject.index / "index.tsv"


def show(row: Row) -> Row:
    """A row for whoever waits."""
    keys = ("cpu_ms", "msgs_s", "p50", "p99", "pss_mib", "errors", "seconds", "mib", "hit_rate")
    figures = ", ".join(f"{key} {row[key]:.4g}" for key in keys if key in row)
    progress(f"  {row['what']}: {row.get('subject', '')} {row['case']}: {figures}")
    return row


# -- right answers ----------------------------------------------------------------------------------------------------


def check_answers(rig: Rig, subject: Filter) -> Row:
    """Send the workload once; raises WrongAnswerError if authmilter's answers are not right, notes it for others."""
    if subject.index == "sign":
        return _check_signatures(rig, subject)
    dump = rig.scratch / "answers"
    row = rig.load(subject, warm_index(subject), WARM_UP, 8, more=["-V", str(dump)])
    said = "right"
    try:
        right = check_dump(dump)
        said += f": {', '.join(f'{kind} {count}' for kind, count in sorted(right.items()))}"
    except WrongAnswerError as wrong:
        if isinstance(subject, Authmilter):
            raise
        said = f"differ: {wrong}"
    return show({"what": "answers", "subject": subject.name, "case": said, **_without_load(row)})


def _check_signatures(rig: Rig, subject: Filter) -> Row:
    """Every message must have come back with signatures that dkimpy verifies."""
    folder = rig.scratch / "signed"
    folder.mkdir(exist_ok=True)
    row = rig.load(subject, warm_index(subject), 500, 8, more=["-o", str(folder)])
    keys = dict(_dkim_keys((CORPUS / "dns.conf").read_text()))
    domain = (CORPUS / "sign" / "domain").read_text().split()[0]
    keys[f"ed._domainkey.{domain}"] = key_record(ed25519_key()[1]).encode()
    want = 2 if "ed25519" in subject.name else 1
    bad = 0
    files = sorted(folder.glob("*.eml"))[::10]  # dkimpy takes its time
    for file in files:
        message = dkim.DKIM(file.read_bytes())
        found = [
            message.verify(idx=i, dnsfunc=lambda name, timeout=5: keys.get(name.decode().rstrip(".")))
            for i in range(want)
        ]
        bad += not all(found)
    if bad or not files or row["errors"]:
        raise WrongAnswerError(f"{subject.name}: {bad} of {len(files)} messages don't verify, {row['errors']} errors")
    return show({"what": "answers", "subject": subject.name, "case": f"{want} valid signatures", **_without_load(row)})


def _dkim_keys(conf: str) -> Iterator[tuple[str, bytes]]:
    for name, value in re.findall(r"local-data: '(\S+\._domainkey\.\S+)\. \d+ IN TXT (.*)'", conf):
        yield name, "".join(re.findall('"([^"]*)"', value)).encode()


def _without_load(row: Row) -> Row:
    """Of a run that wrote its answers down only what it answered."""
    return {key: row[key] for key in ("n", "verdicts", "errors")}


# -- comparing --------------------------------------------------------------------------------------------------------


def compare(
    rig: Rig,
    options: Options,
    what: str,
    subjects: Sequence[Filter],
    cases: Callable[[Filter], Sequence[Case]],
) -> Iterator[Row]:
    """Start all, check their answers, and run every case by turns."""
    with ExitStack() as stack:
        for subject in subjects:
            progress(f"  starting {subject.name}")
            stack.callback(subject.stop)
            subject.start(FAST_DNS)
            yield check_answers(rig, subject)
        rates: dict[tuple[str, str], float] = {}
        for round_ in range(options.rounds):
            for number, _ in enumerate(cases(subjects[0])):
                for subject in subjects:
                    case = cases(subject)[number]
                    key = subject.name, case.name
                    if key not in rates:
                        rates[key] = rig.load(subject, case.index, case.least, case.connections)["msgs_s"]
                    count = case.count(rates[key], options.seconds)
                    row = rig.load(subject, case.index, count, case.connections)
                    rates[key] = row["msgs_s"]
                    yield show({"what": what, "subject": subject.name, "case": case.name, "round": round_, **row})


def _connections(*numbers: int) -> Callable[[Filter], list[Case]]:
    return lambda subject: [Case(f"c={n}", warm_index(subject), n, max(200, 4 * n)) for n in numbers]


def _sizes(subject: Filter) -> list[Case]:
    return [Case(size, size_index(size), 4, 40) for size in SIZES]


def warm(rig: Rig, options: Options) -> Iterator[Row]:
    """Mixed sizes, everything cached."""
    yield from compare(rig, options, "warm", _with_peers(rig, options), _connections(1, 16, 64))


def sizes(rig: Rig, options: Options) -> Iterator[Row]:
    """By size of the message, 4 connections."""
    yield from compare(rig, options, "sizes", _with_peers(rig, options), _sizes)


def engines(rig: Rig, options: Options) -> Iterator[Row]:
    """Both engines, by size."""
    subjects = [
        Authmilter(rig.scratch),
        Authmilter(rig.scratch, "authmilter-libmilter", settings={"milter": {"engine": "libmilter"}}),
    ]
    yield from compare(rig, options, "engines", subjects, _sizes)


def tcp(rig: Rig, options: Options) -> Iterator[Row]:
    """TCP beside a unix socket."""
    subjects = [Authmilter(rig.scratch), Authmilter(rig.scratch, "authmilter-tcp", tcp=True)]
    yield from compare(rig, options, "tcp", subjects, _connections(1, 16, 64))


def workers(rig: Rig, options: Options) -> Iterator[Row]:
    """One worker and two."""
    subjects = [
        Authmilter(rig.scratch, f"authmilter-{n}-workers", settings={"milter": {"workers": str(n)}}) for n in (1, 2)
    ]
    yield from compare(rig, options, "workers", subjects, _connections(16))


def sign(rig: Rig, options: Options) -> Iterator[Row]:
    """Signing with one key and with two."""
    subjects: list[Filter] = [
        Authmilter(rig.scratch, "authmilter-sign-rsa", sign=["rsa"]),
        Authmilter(rig.scratch, "authmilter-sign-rsa-ed25519", sign=["rsa", "ed25519"]),
    ]
    signers = {"opendkim": "opendkim-sign", "rspamd": "rspamd-sign", "dkimpy": "dkimpy-sign"}
    names = [signer for word, signer in signers.items() if any(word in peer for peer in options.peers)]
    found, _ = rig.peers(names)
    yield from compare(rig, options, "sign", [*subjects, *found], _connections(16))


def _with_peers(rig: Rig, options: Options) -> list[Filter]:
    found, missing = rig.peers(options.peers)
    for reason in missing:
        progress(f"  {reason}")
    return [Authmilter(rig.scratch), *found]


def cold(rig: Rig, options: Options) -> Iterator[Row]:
    """2,000 messages of as many domains, 30 ms a DNS query, 64 connections."""
    for round_ in range(options.rounds):
        for subject in _with_peers(rig, options):
            with ExitStack() as stack:
                stack.callback(subject.stop)
                subject.start(SLOW_DNS)
                rig.load(subject, warm_index(subject), 200, 16)  # connections to the DNS, imports, ...
                dump = rig.scratch / "answers"
                before = rig.env.slow_queries()[0]
                index = CORPUS / "cold" / "index.tsv"
                row = rig.load(subject, index, 2000, 64, more=["-V", str(dump)])
                row["queries_per_message"] = (rig.env.slow_queries()[0] - before) / 2000
                if isinstance(subject, Authmilter):
                    check_dump(dump)
                yield show({"what": "cold", "subject": subject.name, "case": "c=64", "round": round_, **row})


# -- growth -----------------------------------------------------------------------------------------------------------


def growth(rig: Rig, options: Options) -> Iterator[Row]:
    """More connections, then more domains: what a message costs, and what is kept."""
    case = _connections(*options.connections)
    yield from compare(rig, options, "growth", [Authmilter(rig.scratch)], case)
    for domains in options.domains:
        bulk(domains)
        subject = Authmilter(rig.scratch)
        subject.start(BULK_DNS)
        try:
            draw = random.Random(domains)
            zipf = [1 / (rank + 1) for rank in range(domains)]
            orders = {
                "each once": range(domains),
                "any": [draw.randrange(domains) for _ in range(min(20_000, 4 * domains))],
                "some more often": draw.choices(range(domains), zipf, k=min(20_000, 4 * domains)),
            }
            for name, numbers in orders.items():
                before = subject.metrics()
                dump = rig.scratch / "answers"
                more = ["-V", str(dump)] if name == "any" else []
                index = bulk_index(name.replace(" ", "-"), numbers)
                row = rig.load(subject, index, len(numbers), 16, more=more)
                if more:
                    _all_pass(dump)
                row |= _cache(before, subject.metrics())
                row["worker_pss_mib"] = max(pss(pid) for name, pid in subject.processes().items() if "worker" in name)
                yield show(
                    {
                        "what": "domains",
                        "subject": subject.name,
                        "case": f"{domains} domains, {name}",
                        "domains": domains,
                        "order": name,
                        **row,
                    }
                )
        finally:
            subject.stop()


def _all_pass(dump: Path) -> None:
    text = dump.read_text(errors="replace")
    messages, passed = text.count("\nMSG ") + text.startswith("MSG "), text.count("dmarc=pass")
    if passed != messages:
        raise WrongAnswerError(f"{messages - passed} of {messages} messages of distinct domains did not pass DMARC")


def _cache(before: dict[str, float], after: dict[str, float]) -> Row:
    def rose(prefix: str) -> float:
        return sum(value - before.get(name, 0) for name, value in after.items() if name.startswith(prefix))

    hits, misses = (rose(f'authmilter_dns_cache_total{{outcome="{word}"}}') for word in ("hit", "miss"))
    return {
        "hit_rate": hits / max(1, hits + misses),
        "queries": rose("authmilter_dns_queries_total"),
    }


# -- memory and start -------------------------------------------------------------------------------------------------


def memory(rig: Rig, options: Options) -> Iterator[Row]:
    """Idle, after many messages, and at the peak of a message of 50 MB."""
    subject = Authmilter(rig.scratch)
    subject.start(FAST_DNS)
    try:
        time.sleep(2)
        processes = subject.processes()
        for name, pid in processes.items():
            yield show({"what": "memory", "subject": subject.name, "case": f"idle, {name}", "mib": pss(pid)})
        mib = sum(map(pss, processes.values()))
        yield show({"what": "memory", "subject": subject.name, "case": "idle, all processes", "mib": mib})
        their = {name: pid for name, pid in processes.items() if name.startswith("worker")}
        index = warm_index(subject)
        rig.load(subject, index, 10 * WARM_UP, 16)  # caches and pools have their size then
        time.sleep(1)
        at_start = {name: pss(pid) for name, pid in their.items()}
        progress(f"  memory: {options.messages} messages")
        interval = max(0.25, min(5.0, options.messages / 100_000))
        with Sampler(their, interval) as sampler:
            row = rig.load(subject, index, options.messages, 16)
        for seconds, sample in sampler.samples:
            messages = options.messages * min(1.0, seconds / row["secs"])
            yield {"what": "soak", "subject": subject.name, "case": "sample", "messages": messages, "mib": sample}
        time.sleep(1)
        grown = {name: pss(pid) - at_start[name] for name, pid in their.items()}
        for name, mib in grown.items():
            case = f"growth over {options.messages} messages, {name}"
            yield show({"what": "memory", "subject": subject.name, "case": case, "mib": mib, "growth": True})
        for turn in range(3):
            before = sum(pss(pid) for pid in their.values())
            with Sampler(their, 0.01) as sampler:
                row = rig.load(subject, hostile("huge"), 1, 1)
            case = f"a message of 50 MB adds at its peak, {turn + 1}"
            mib = sampler.peak() - before
            samples = len(sampler.samples)
            yield show(
                {
                    "what": "memory",
                    "subject": subject.name,
                    "case": case,
                    "mib": mib,
                    "samples": samples,
                    "peak": True,
                    "cpu_ms": row["cpu_ms"],
                }
            )
    finally:
        subject.stop()


def start(rig: Rig, options: Options) -> Iterator[Row]:
    """From exec to the answer of the first milter negotiation."""
    for turn in range(5):
        subject = Authmilter(rig.scratch)
        try:
            seconds = subject.first_answer(subject.spawn(FAST_DNS))
        finally:
            subject.stop()
        yield show({"what": "start", "subject": subject.name, "case": f"start {turn + 1}", "seconds": seconds})


# -- good mail beside bad ---------------------------------------------------------------------------------------------


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute."""
    processes = [Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def stall(rig: Rig, options: Options) -> Iterator[Row]:
    """Good mail at a fixed rate, with and without senders beside it that are slow or large."""
    beside = {
        f"{options.waiting} sessions that wait for a silent name server": ("silent", options.waiting),
        f"{options.waiting} sessions with slow and long SPF": ("slow", options.waiting),
        "4 connections with mails of 50 MB": ("huge", 4),
        "4 connections with 20,000 header fields": ("fields", 4),
        # To compare with: these only take the processors, from the load generator as well.
        "busy processes on all cores": ("", os.cpu_count() or 1),
    }
    subject = Authmilter(rig.scratch)
    subject.start(BULK_DNS)
    try:
        yield check_answers(rig, subject)
        index = warm_index(subject)
        count = int(options.rate * max(options.seconds, 5.0))  # p99 of fewer says little
        rig.load(subject, index, count, 64, rate=options.rate)
        for round_ in range(options.rounds):
            for name, (kind, connections) in beside.items():
                for disturbed in (False, True):
                    _wait_until_idle(rig, subject)
                    others: AbstractContextManager[Popen[bytes] | None] = nullcontext()
                    if disturbed:
                        others = rig.background(subject, hostile(kind), connections) if kind else busy(connections)
                    with others as process:
                        if process is not None:
                            time.sleep(1.5)
                        active = subject.metrics()["authmilter_connections_active"]
                        row = rig.load(subject, index, count, 64, rate=options.rate)
                        if process is not None and process.poll() is not None:
                            raise RuntimeError(f"{name}: the other load generator ended")
                    row |= {"connections_beside": active, "disturbed": disturbed, "beside": name, "round": round_}
                    case = name if disturbed else f"without {name}"
                    yield show({"what": "stall", "subject": subject.name, "case": case, **row})
    finally:
        subject.stop()


def _wait_until_idle(rig: Rig, subject: Authmilter) -> None:
    """What others left behind is still worked on for a while."""
    end = time.monotonic() + 60
    while subject.metrics()["authmilter_connections_active"] > 0 and time.monotonic() < end:
        time.sleep(0.2)
    pids = list(subject.groups.values())
    while time.monotonic() < end:
        before = rig.shared.tree_cpu(pids)
        time.sleep(0.5)
        if rig.shared.tree_cpu(pids) - before <= 0.02:
            return
    raise RuntimeError(f"{subject.name} does not come to rest within a minute")


def overload(rig: Rig, options: Options) -> Iterator[Row]:
    """More connections at once than can be served, then ten times the rate: who is answered, refused, lost."""
    for subject in (Authmilter(rig.scratch), Authmilter(rig.scratch, "authmilter-tcp", tcp=True)):
        subject.start(FAST_DNS)
        try:
            yield from _overload(rig, options, subject)
        finally:
            subject.stop()


def _overload(rig: Rig, options: Options, subject: Authmilter) -> Iterator[Row]:
    index = warm_index(subject)
    rig.load(subject, index, WARM_UP, 16)
    carried = rig.load(subject, index, int(WARM_UP * options.seconds), 16)["msgs_s"]
    loads = [(f"{n} connections at once", n, 0.0) for n in options.overload]
    loads.append(("ten times the rate that it carries", max(options.overload), 10 * carried))
    for name, connections, rate in loads:
        count = max(3 * connections, int(carried * options.seconds))
        with Sampler(subject.processes(), 0.25) as sampler:
            row = rig.load(subject, index, count, connections, rate=rate, more=["-t", "60"], may_fail=True)
        refused = sum(
            times
            for verdict, times in row["verdicts"].items()
            if re.match(r"(tempfail|shutdown|connfail|reply\S* 4)", verdict)
        )
        row |= {"sent": count, "answered": row["n"] - refused, "refused": refused, "lost": row["errors"]}
        row |= {"mib": sampler.peak(), "rate": rate}
        yield show({"what": "overload", "subject": subject.name, "case": name, **row})
        time.sleep(1)
        row = rig.load(subject, index, WARM_UP, 16)
        yield show({"what": "overload", "subject": subject.name, "case": f"c=16 after {name}", **row})


ALL: dict[str, Callable[[Rig, Options], Iterator[Row]]] = {
    function.__name__: function
    for function in (warm, sizes, engines, tcp, cold, sign, workers, growth, memory, start, stall, overload)
}
