"""Counters of all workers in one piece of shared memory, and their exposition for Prometheus.

Every worker owns a slot of float64 cells and is its only writer; the exporter adds the slots up.  A cell is found once,
at start; counting is then one addition (0.06 us, where prometheus_client's files cost 2 to 5), a worker that dies
leaves its counts behind, and the one that follows goes on with them.

The layout is computed before the first fork and never changes: symbols and checks are those of the code and of the
configuration at start.  What a reload adds is counted as ``other``.
"""

import mmap
import sys
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

import authmilter
from authmilter import lists
from authmilter.auth.published import STATES
from authmilter.check import METHODS, Check, known_symbols
from authmilter.config.schema import ALARM_EVENTS, Config
from authmilter.evidence import Result
from authmilter.model import Stage
from authmilter.resolver import FAILURES
from authmilter.store import OPERATIONS
from authmilter.verdict import Action

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SECONDS_SUM = len(_SECONDS) + 1  # where a histogram of these has its sum
# Without negative bounds: the exposition would then leave out count and sum.
_SCORES = (0.0, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 12.5, 15.0, 20.0, 30.0)
_ACTIONS = tuple(a.value for a in Action if a is not Action.CONTINUE)
_STAGES = tuple(s.label for s in Stage if s not in (Stage.HEADER, Stage.BODY))
_RDTYPES = ("A", "AAAA", "MX", "PTR", "TXT")
_ALGORITHMS = ("rsa-sha256", "ed25519-sha256")
_OTHER = "other"  # a label value that was not foreseen
_LIST_OFF = "authmilter_dnslist_off"
_DNS_DOWN = "authmilter_dns_down"
# When [dns] test_name last had an answer; and while it has none, since when, and when it was asked last.  On the monotonic clock.
_DNS_TIMES = ("dns_worked", "dns_down_since", "dns_tried")

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True)
class Family:
    """A metric family; `labels` are names, `values` all combinations that can occur."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ((),)
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Cells of one combination: a histogram has its buckets, +Inf and the sum."""
        return len(self.buckets) + 2 if self.kind == HISTOGRAM else 1


def _product(*columns: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    rows: list[tuple[str, ...]] = [()]
    for column in columns:
        rows = [(*row, value) for value in column for row in rows]
    return tuple(rows)


def families(symbols: Collection[str], checks: Collection[str], lists: Collection[str]) -> tuple[Family, ...]:
    """Every family of the contract, with all label values that can occur."""
    timed = sorted({*METHODS, *checks})
    failing = [*timed, "session", "signing", "sealing"]
    return (
        Family("authmilter_connections_active", GAUGE, "Milter connections that are open."),
        Family("authmilter_connections_total", COUNTER, "Milter connections so far."),
        Family(
            "authmilter_connections_refused_total",
            COUNTER,
            "Milter connections beyond max_connections and max_waiting.",
        ),
        Family(
            "authmilter_messages_total",
            COUNTER,
            "Transactions that got their final verdict.",
            ("direction", "action", "stage"),
            _product(("inbound", "outbound"), _ACTIONS, _STAGES),
        ),
        Family(
            "authmilter_recipients_refused_total",
            COUNTER,
            "Recipients refused at RCPT.",
            ("code",),
            (("4xx",), ("5xx",)),
        ),
        Family(
            "authmilter_auth_results_total",
            COUNTER,
            "Results of authentication methods.",
            ("method", "result"),
            _product(METHODS, [r.value for r in Result]),
        ),
        Family(
            "authmilter_findings_total",
            COUNTER,
            "Findings of checks.",
            ("symbol",),
            tuple((s,) for s in (*sorted(symbols), "check_error", _OTHER)),
        ),
        Family("authmilter_message_score", HISTOGRAM, "Scores of inbound messages.", buckets=_SCORES),
        Family(
            "authmilter_stage_seconds",
            HISTOGRAM,
            "Time until a stage was answered.",
            ("stage",),
            tuple((s,) for s in _STAGES),
            _SECONDS,
        ),
        Family(
            "authmilter_check_seconds",
            HISTOGRAM,
            "Time that a method or check took.",
            ("check",),
            tuple((c,) for c in (*timed, _OTHER)),
            _SECONDS,
        ),
        Family(
            "authmilter_check_errors_total",
            COUNTER,
            "Methods and checks that failed: for now, or by an exception.",
            ("check", "kind"),
            _product((*failing, _OTHER), ("temperror", "exception")),
        ),
        Family(
            "authmilter_dns_queries_total",
            COUNTER,
            "Questions sent to the DNS.",
            ("rdtype", "outcome"),
            _product((*_RDTYPES, _OTHER), ("ok", "nxdomain", "nodata", "temperror")),
        ),
        Family(
            "authmilter_dns_failures_total",
            COUNTER,
            "Questions to the DNS that ended in temperror, by what became of them.",
            ("reason",),
            tuple((reason,) for reason in FAILURES),
        ),
        Family(
            _DNS_DOWN,
            GAUGE,
            "Workers whose questions to the DNS fail, that for [dns] test_name among them.",
        ),
        Family("authmilter_dns_seconds", HISTOGRAM, "Time until the DNS answered.", buckets=_SECONDS),
        Family(
            "authmilter_dns_cache_total",
            COUNTER,
            "Questions answered from the cache, or not.",
            ("outcome",),
            (("hit",), ("miss",)),
        ),
        Family(
            "authmilter_dnslist_queries_total",
            COUNTER,
            "Clients looked up in DNS lists, and test entries that were not as they must be.",
            ("list", "outcome"),
            _product((*sorted(lists), _OTHER), ("listed", "clear", "error", "temperror", "off")),
        ),
        Family(
            _LIST_OFF,
            GAUGE,
            "Workers for which a DNS list is switched off.",
            ("list",),
            tuple((name,) for name in (*sorted(lists), _OTHER)),
        ),
        Family(
            "authmilter_store_errors_total",
            COUNTER,
            "Operations of the state store that failed.",
            ("operation",),
            tuple((o,) for o in OPERATIONS),
        ),
        Family(
            "authmilter_alarms_total",
            COUNTER,
            "Alarms: told to all whom [alarm] names, not to all of them, or one too many.",
            ("event", "outcome"),
            _product((*ALARM_EVENTS, _OTHER), ("success", "failure", "dropped")),
        ),
        Family(
            "authmilter_signatures_total",
            COUNTER,
            "DKIM signatures made, or not for an error.",
            ("algorithm", "outcome"),
            _product(_ALGORITHMS, ("success", "failure")),
        ),
        Family(
            "authmilter_signing_keys",
            GAUGE,
            "Keys that sign, by what the DNS has of them.",
            ("state",),
            tuple((state,) for state in STATES),
        ),
        Family(
            "authmilter_config_reloads_total",
            COUNTER,
            "Reloads of the configuration.",
            ("outcome",),
            (("success",), ("failure",)),
        ),
        Family("authmilter_config_last_reload_successful", GAUGE, "1 if the newest configuration file is in force."),
        Family("authmilter_worker_restarts_total", COUNTER, "Workers that died and were replaced."),
        # Read by the exporter and the supervisor, not shown.
        Family("accepting", GAUGE, ""),
        Family("heartbeat", GAUGE, ""),
        Family("generation", GAUGE, ""),
        Family("started", GAUGE, ""),
        Family("reloaded", GAUGE, ""),
        *(Family(name, GAUGE, "") for name in _DNS_TIMES),
    )


_HIDDEN = ("accepting", "heartbeat", "generation", "started", "reloaded", *_DNS_TIMES)


class Layout:
    """Where each cell is."""

    def __init__(self, symbols: Collection[str], checks: Collection[str], lists: Collection[str] = ()) -> None:
        self.families = {family.name: family for family in families(symbols, checks, lists)}
        self.cells: dict[tuple[str, tuple[str, ...]], int] = {}
        self.size = 0
        for family in self.families.values():
            for row in family.values:
                self.cells[family.name, row] = self.size
                self.size += family.width

    def rows(self, name: str) -> dict[tuple[str, ...], int]:
        """The cells of a family by its label values."""
        return {row: self.cells[name, row] for row in self.families[name].values}

    def column(self, name: str) -> dict[str, int]:
        """The cells of a family with one label by its value."""
        return {row[0]: cell for row, cell in self.rows(name).items()}


class Shared:
    """The memory: slot 0 is the supervisor's, the others the workers'."""

    def __init__(self, slots: int, layout: Layout) -> None:
        self.slots = slots
        self._size = layout.size
        self._memory = mmap.mmap(-1, slots * layout.size * 8)  # anonymous and shared: survives fork
        self._cells = memoryview(self._memory).cast("d")

    def slot(self, number: int) -> "memoryview[float]":
        """The cells of one process."""
        return self._cells[number * self._size : (number + 1) * self._size]

    def sum(self, cell: int) -> float:
        """That cell, added up over all slots."""
        return float(sum(self._cells[cell :: self._size]))


class Metrics:
    """The Observer of a process: counts into its slot."""

    def __init__(self, shared: Shared, slot: int, layout: Layout) -> None:
        self._cells = shared.slot(slot)
        self._index = layout.cells
        # What is counted several times a message is found by its own label value.
        self._check_seconds = layout.column("authmilter_check_seconds")
        self._other_seconds = self._check_seconds[_OTHER]
        self._findings = layout.column("authmilter_findings_total")
        self._other_finding = self._findings[_OTHER]
        self._cache = layout.column("authmilter_dns_cache_total")
        self._results = layout.rows("authmilter_auth_results_total")
        self._dns_seconds = layout.cells["authmilter_dns_seconds", ()]
        self._score = layout.cells["authmilter_message_score", ()]
        self._list_off = layout.column(_LIST_OFF)
        self._lists_off: set[str] = set()
        for cell in self._list_off.values():
            self._cells[cell] = 0.0  # whoever had the slot before may have died with a list switched off
        for name in (_DNS_DOWN, *_DNS_TIMES):  # likewise
            self._cells[layout.cells[name, ()]] = 0.0
        self._keys = layout.rows("authmilter_signing_keys")
        by_stage = layout.column("authmilter_stage_seconds")
        self._stage_seconds = [by_stage.get(stage.label) for stage in Stage]  # HEADER and BODY have none

    def _add(self, name: str, *row: str) -> None:
        cell = self._index.get((name, row))
        if cell is None:
            cell = self._index.get((name, (_OTHER, *row[1:])))
        if cell is not None:
            self._cells[cell] += 1.0

    def _observe(self, cell: int, buckets: tuple[float, ...], value: float) -> None:
        cells = self._cells
        cells[cell + bisect_left(buckets, value)] += 1.0
        cells[cell + len(buckets) + 1] += value

    def set(self, name: str, value: float) -> None:
        """Set a gauge of this slot."""
        self._cells[self._index[name, ()]] = value

    # -- Observer -----------------------------------------------------------------------------------------------------

    def check_done(self, name: str, seconds: float) -> None:
        """A method or check ran for that long."""
        cell = self._check_seconds.get(name, self._other_seconds)
        cells = self._cells  # as _observe(), for the most frequent of all calls
        cells[cell + bisect_left(_SECONDS, seconds)] += 1.0
        cells[cell + _SECONDS_SUM] += seconds

    def check_error(self, name: str, kind: str) -> None:
        """A method or check failed."""
        self._add("authmilter_check_errors_total", name, kind)

    def stage_done(self, stage: Stage, seconds: float) -> None:
        """A stage was answered after that long."""
        cell = self._stage_seconds[stage]
        if cell is None:
            return
        if seconds:
            self._observe(cell, _SECONDS, seconds)
        else:  # a stage with nothing to do, as most are
            self._cells[cell] += 1.0

    def finding(self, symbol: str) -> None:
        """A finding entered the evidence."""
        self._cells[self._findings.get(symbol, self._other_finding)] += 1.0

    def auth_result(self, method: str, result: str) -> None:
        """A method has a result."""
        cell = self._results.get((method, result))
        if cell is not None:
            self._cells[cell] += 1.0

    def signature(self, algorithm: str, outcome: str) -> None:
        """A signature was made, or could not be."""
        self._add("authmilter_signatures_total", algorithm, outcome)

    def recipient_refused(self, code: int) -> None:
        """RCPT was answered with that code."""
        self._add("authmilter_recipients_refused_total", f"{code // 100}xx")

    def dnslist_asked(self, name: str, outcome: str) -> None:
        """A DNS list was asked."""
        self._add("authmilter_dnslist_queries_total", name, outcome)

    def dnslist_off(self, name: str, off: bool) -> None:
        """A DNS list was switched off, or on again."""
        (self._lists_off.add if off else self._lists_off.discard)(name)
        other = self._list_off[_OTHER]
        cell = self._list_off.get(name, other)
        self._cells[cell] = float(sum(self._list_off.get(one, other) == cell for one in self._lists_off))

    def verdict(self, direction: str, action: str, stage: Stage, score: float | None) -> None:
        """A transaction got its final verdict."""
        self._add("authmilter_messages_total", direction, action, stage.label)
        if score is not None:
            self._observe(self._score, _SCORES, score)

    # -- of the server ------------------------------------------------------------------------------------------------

    def connection_opened(self) -> None:
        """A milter connection was accepted."""
        self._add("authmilter_connections_total")
        self._cells[self._index["authmilter_connections_active", ()]] += 1.0

    def connection_refused(self) -> None:
        """A milter connection was one too many."""
        self._add("authmilter_connections_refused_total")

    def connection_closed(self) -> None:
        """A milter connection ended."""
        self._cells[self._index["authmilter_connections_active", ()]] -= 1.0

    def dns_query(self, rdtype: str, outcome: str, seconds: float) -> None:
        """A question went out and was answered, or not."""
        self._add("authmilter_dns_queries_total", rdtype, outcome)
        self._observe(self._dns_seconds, _SECONDS, seconds)

    def dns_failure(self, reason: str) -> None:
        """A question was not answered, for one of `resolver.FAILURES`."""
        self._add("authmilter_dns_failures_total", reason)

    def dns_works(self, now: float) -> None:
        """[dns] test_name had an answer at that time of the monotonic clock."""
        self.set("dns_worked", now)

    def dns_down(self, since: float, tried: float) -> None:
        """It has had none since that time, nor when it was last tried; ``0.0, 0.0``: that is over."""
        self.set(_DNS_DOWN, 1.0 if since else 0.0)
        self.set("dns_down_since", since)
        self.set("dns_tried", tried)

    def dns_cache(self, outcome: str) -> None:
        """The cache had the answer, or not."""
        cell = self._cache.get(outcome)
        if cell is not None:
            self._cells[cell] += 1.0

    def signing_keys(self, states: Collection[str]) -> None:
        """Each key that signs has one of these states; one worker tells it for all."""
        for (state,), cell in self._keys.items():
            self._cells[cell] = float(sum(one == state for one in states))

    def alarm(self, event: str, outcome: str) -> None:
        """An alarm was told, or not."""
        self._add("authmilter_alarms_total", event, outcome)

    def store_error(self, operation: str) -> None:
        """An operation of the state store failed."""
        self._add("authmilter_store_errors_total", operation)

    def reloaded(self, success: bool) -> None:
        """The configuration was reloaded, or the new one refused."""
        self._add("authmilter_config_reloads_total", "success" if success else "failure")
        self.set("authmilter_config_last_reload_successful", 1.0 if success else 0.0)
        self.set("reloaded", time.monotonic())

    def worker_restarted(self) -> None:
        """A worker died and is replaced."""
        self._add("authmilter_worker_restarts_total")


class NullObserver:
    """An Observer for a run without metrics: `check-message` and tests."""

    def check_done(self, name: str, seconds: float) -> None:
        """Nothing is kept."""

    def check_error(self, name: str, kind: str) -> None:
        """Nothing is kept."""

    def stage_done(self, stage: Stage, seconds: float) -> None:
        """Nothing is kept."""

    def finding(self, symbol: str) -> None:
        """Nothing is kept."""

    def auth_result(self, method: str, result: str) -> None:
        """Nothing is kept."""

    def signature(self, algorithm: str, outcome: str) -> None:
        """Nothing is kept."""

    def recipient_refused(self, code: int) -> None:
        """Nothing is kept."""

    def dnslist_asked(self, name: str, outcome: str) -> None:
        """Nothing is kept."""

    def dnslist_off(self, name: str, off: bool) -> None:
        """Nothing is kept."""

    def verdict(self, direction: str, action: str, stage: Stage, score: float | None) -> None:
        """Nothing is kept."""


class SharedCollector(Collector):
    """What prometheus_client's exposition reads: all slots, added up."""

    def __init__(self, shared: Shared, layout: Layout) -> None:
        self._shared = shared
        self._layout = layout

    def collect(self) -> Iterable[Metric]:
        """Every family; combinations that never occurred are left out where there are many."""
        yield _build_info()
        rows: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for (name, row), cell in self._layout.cells.items():
            rows.setdefault(name, []).append((row, cell))
        for family in self._layout.families.values():
            if family.name not in _HIDDEN:
                yield self._family(family, rows.get(family.name, []))

    def _family(self, family: Family, rows: list[tuple[tuple[str, ...], int]]) -> Metric:
        metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
        if family.kind == HISTOGRAM:
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for row, cell in rows:
                counts = [self._shared.sum(cell + i) for i in range(len(family.buckets) + 1)]
                if not any(counts) and family.labels:
                    continue
                total, cumulative = 0.0, []
                for bound, count in zip((*map(str, family.buckets), "+Inf"), counts, strict=True):
                    total += count
                    cumulative.append((bound, total))
                metric.add_metric(row, cumulative, self._shared.sum(cell + len(counts)))
            return metric
        if family.kind == COUNTER:
            metric = CounterMetricFamily(family.name.removesuffix("_total"), family.help, labels=family.labels)
        else:
            metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for row, cell in rows:
            value = self._shared.sum(cell)
            if value or len(rows) <= 8:
                metric.add_metric(row, value)
        return metric


def _build_info() -> Metric:
    metric = GaugeMetricFamily(
        "authmilter_build_info", "Versions that are running.", labels=("version", "python", "libmilter")
    )
    python = ".".join(map(str, sys.version_info[:3]))
    metric.add_metric((authmilter.__version__, python, _libmilter()), 1.0)
    return metric


def _libmilter() -> str:
    try:
        import milter
    except ImportError:
        return ""
    return ".".join(map(str, milter.getversion()))


def registry(shared: Shared, layout: Layout) -> CollectorRegistry:
    """What the exporter serves."""
    result = CollectorRegistry()
    result.register(SharedCollector(shared, layout))
    return result


def layout_for(checks: Sequence[Check], config: Config | None = None) -> Layout:
    """The layout for these checks, all known symbols, and the lists and symbols of that configuration."""
    config = config or Config()
    symbols = {*known_symbols(), *(symbol for check in checks for symbol in check.symbols(config))}
    return Layout(symbols, [c.name for c in checks], list_names(config))


def list_names(config: Config) -> list[str]:
    """By which names the metrics call the DNS lists of a configuration."""
    return [f"{kind}_{name}" for kind, name, _ in lists.titles(config)]
