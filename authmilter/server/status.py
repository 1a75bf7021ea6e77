"""What `authmilter status` shows of a running daemon: its counters, put together and judged.

The exporter has one of these.  It looks at the clock twice a minute, for two things that counters don't tell: what they
were at midnight, and whether errors of the store, of scanners and of the DNS are of now.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import authmilter
from authmilter.metrics import Layout, Shared
from authmilter.resolver import FAILURES
from authmilter.server.board import Board

TICK = 30.0  # seconds between looks at the clock, at most
STANDS_STILL = 10.0  # seconds without a heartbeat, which is one a second
_VERDICTS = "authmilter_messages_total"
_REFUSED = "authmilter_recipients_refused_total"
MINUTE, WINDOW = 2, 10  # looks at the clock within "the last minute or so", and within the last five
MOST_NAMED = 5  # keys that are named as problems
# From so many questions on, and that part of them, failures are a problem even if nameservers answer others.
MANY_FAILED, MOST_FAILED = 20, 0.5
_SCANNERS = ("antivirus", "outbound_antivirus", "spamassassin", "rspamd")  # checks that ask another daemon

Report = dict[str, Any]


class Status:
    """The report, and what has to be remembered for it.  Any thread may use it.

    `clock` is in seconds since 1970 and may jump, `ticks` is that of the supervisor and the workers, which does not.
    """

    def __init__(
        self,
        shared: Shared,
        layout: Layout,
        board: Board | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._layout = layout
        self._board = board
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._begin_day()
        # (time, failures until then): the oldest is five to five and a half minutes old, once all are there
        self._looks: deque[tuple[float, dict[str, int]]] = deque([(ticks(), self._failures())], maxlen=WINDOW + 1)

    def tick(self) -> float:
        """To be called when the returned number of seconds has passed, or earlier."""
        with self._lock:
            self._look_at_the_date()
            now = self._ticks()
            if now - self._looks[-1][0] >= 0.9 * TICK:
                self._looks.append((now, self._failures()))
        year, month, day = self._day
        # mktime() knows how long a day is where clocks are changed, and what the 32nd of a month is.
        left = time.mktime((year, month, day + 1, 0, 0, 0, 0, 0, -1)) - self._clock()
        return left + 0.01 if 0.0 < left < TICK else TICK

    def report(self) -> Report:
        """What goes out as JSON.  Counts are those since the start, but for ``today``."""
        with self._lock:
            self._look_at_the_date()
            found = self._counts()
        found["problems"] = _problems(found)
        return found

    def _counts(self) -> Report:
        told = (self._board.read() if self._board is not None else None) or {}
        return {
            "program": "authmilter",
            "version": authmilter.__version__,
            "uptime": self._ago("started"),
            "workers": self._workers(),
            "connections": {
                "active": self._one("authmilter_connections_active"),
                "total": self._one("authmilter_connections_total"),
                "refused": self._one("authmilter_connections_refused_total"),
            },
            "reload": {
                "successes": self._column("authmilter_config_reloads_total").get("success", 0),
                "failures": self._column("authmilter_config_reloads_total").get("failure", 0),
                "last_successful": bool(self._one("authmilter_config_last_reload_successful")),
                "seconds_ago": self._ago("reloaded"),
            },
            "store": self._store(),
            "scanners": self._scanners(),
            "dns": self._dns(told.get("nameservers", [])),
            "dns_lists": self._lists(),
            "keys": self._keys(told.get("keys", [])),
            "alarms": self._tree("authmilter_alarms_total"),
            "today": self._today(),
        }

    # -- the day ------------------------------------------------------------------------------------------------------

    def _look_at_the_date(self) -> None:
        if time.localtime(self._clock())[:3] != self._day:  # forward at midnight, or either way by a clock that was set
            self._begin_day()

    def _begin_day(self) -> None:
        now = self._clock()
        self._day = time.localtime(now)[:3]
        year, month, day = self._day
        midnight = time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
        self._since = now
        self._whole_day = 0.0 <= now - midnight <= TICK
        self._before = {name: self._sums(name) for name in (_VERDICTS, _REFUSED)}

    def _sums(self, name: str) -> dict[tuple[str, ...], float]:
        return {row: self._shared.sum(cell) for row, cell in self._layout.rows(name).items()}

    def _risen(self, name: str) -> list[tuple[tuple[str, ...], int]]:
        """Label values, and how much was counted for them since the day began."""
        before = self._before[name]
        return [(row, round(count - before[row])) for row, count in self._sums(name).items()]

    def _today(self) -> Report:
        messages: dict[str, dict[str, int]] = {}
        for (direction, action, *_), count in self._risen(_VERDICTS):
            actions = messages.setdefault(direction, {})
            actions[action] = actions.get(action, 0) + count
        return {
            "since": self._since,
            "whole_day": self._whole_day,
            "messages": messages,
            "recipients_refused": {code: count for (code,), count in self._risen(_REFUSED)},
        }

    # -- counters -----------------------------------------------------------------------------------------------------

    def _workers(self) -> dict[str, int]:
        heartbeat = self._layout.cells["heartbeat", ()]
        now = self._ticks()
        beats = [self._shared.slot(number)[heartbeat] for number in range(1, self._shared.slots)]
        return {
            "configured": len(beats),
            "accepting": self._one("accepting"),
            "standing_still": sum(0.0 < beat < now - STANDS_STILL for beat in beats),
            "restarts": self._one("authmilter_worker_restarts_total"),
        }

    def _store_errors(self) -> dict[str, int]:
        return self._column("authmilter_store_errors_total")

    def _failures(self) -> dict[str, int]:
        """How often the store, each scanner and the DNS have failed so far; and how many questions there were."""
        errors = self._tree("authmilter_check_errors_total")
        scanners = {name: errors.get(name, {}).get("temperror", 0) for name in _SCANNERS}
        dns = self._column("authmilter_dns_failures_total")
        asked = sum(self._by_last("authmilter_dns_queries_total").values())
        return {"store": sum(self._store_errors().values()), **scanners, **dns, "asked": asked}

    def _lately(self, looks: int = MINUTE) -> dict[str, int]:
        """How much of that is of the time since so many looks at the clock."""
        before = self._looks[max(-len(self._looks), -looks - 1)][1]
        return {name: count - before[name] for name, count in self._failures().items()}

    def _store(self) -> Report:
        return {"errors": self._store_errors(), "errors_lately": self._lately()["store"]}

    def _scanners(self) -> dict[str, Report]:
        now, lately = self._failures(), self._lately()
        return {name: {"errors": now[name], "errors_lately": lately[name]} for name in _SCANNERS}

    def _dns(self, nameservers: list[str]) -> Report:
        lately = self._lately(WINDOW)
        # What was not asked for want of room says nothing of the nameservers.
        reasons = {reason: lately[reason] for reason in FAILURES if reason != "busy"}
        found = {
            "cache": self._column("authmilter_dns_cache_total"),
            "questions": self._by_last("authmilter_dns_queries_total"),
            "nameservers": nameservers,
            "lately": {
                "seconds": round(self._ticks() - self._looks[0][0], 1),
                "asked": lately["asked"] - lately["busy"],
                "failed": sum(reasons.values()),
                "reasons": reasons,
            },
            "down_seconds": self._dns_down(),
        }
        return found | {"problem": _dns_problem(found)}

    def _dns_down(self) -> float:
        """For how many seconds the nameservers have not worked for any worker that tried; 0.0 if they do, or none did."""
        worked_at, since_at, tried_at = (
            self._layout.cells[name, ()] for name in ("dns_worked", "dns_down_since", "dns_tried")
        )
        slots = [self._shared.slot(number) for number in range(1, self._shared.slots)]
        worked = max((slot[worked_at] for slot in slots), default=0.0)
        # A worker that had no answer when it last tried has not heard of one that another worker got later.
        since = [slot[since_at] for slot in slots if slot[since_at] and slot[tried_at] > worked]
        return round(self._ticks() - max(worked, min(since)), 1) if since else 0.0

    def _keys(self, listed: list[Report]) -> Report:
        now = self._ticks()
        for one in listed:
            at = one.pop("looked", None)
            one["looked_seconds_ago"] = None if at is None else round(max(0.0, now - at), 1)
        return {"states": self._column("authmilter_signing_keys"), "listed": listed}

    def _lists(self) -> dict[str, Report]:
        answers = self._tree("authmilter_dnslist_queries_total")
        off = self._column("authmilter_dnslist_off")
        return {name: {"off_in_workers": off.get(name, 0), "answers": answers.get(name, {})} for name in answers | off}

    def _one(self, name: str) -> int:
        return round(self._shared.sum(self._layout.cells[name, ()]))

    def _ago(self, gauge: str) -> float | None:
        """Seconds since the time that the supervisor set; None if it did not."""
        at = self._shared.sum(self._layout.cells[gauge, ()])
        return round(self._ticks() - at, 1) if at else None

    def _rows(self, name: str) -> list[tuple[tuple[str, ...], int]]:
        """Label values and count, of all that was foreseen and of what else there was."""
        rows = [(row, round(self._shared.sum(cell))) for row, cell in self._layout.rows(name).items()]
        return [(row, count) for row, count in rows if count or "other" not in row]

    def _column(self, name: str) -> dict[str, int]:
        return {row[0]: count for row, count in self._rows(name)}

    def _tree(self, name: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (first, second), count in self._rows(name):
            found.setdefault(first, {})[second] = count
        return found

    def _by_last(self, name: str) -> dict[str, int]:
        """Added up by the last label."""
        found: dict[str, int] = {}
        for row, count in self._rows(name):
            found[row[-1]] = found.get(row[-1], 0) + count
        return found


def _problems(found: Report) -> list[str]:
    """What is wrong now, in words for the administrator."""
    problems = []
    workers = found["workers"]
    configured, accepting, still = workers["configured"], workers["accepting"], workers["standing_still"]
    if not accepting:
        problems.append("no worker accepts connections")
    elif accepting < configured:
        problems.append(f"only {accepting} of {configured} workers accept connections")
    if still:
        problems.append(f"{still} of {configured} workers stand still")
    if found["reload"]["failures"] and not found["reload"]["last_successful"]:
        problems.append("the last reload failed, and the configuration before it is in force")
    if found["store"]["errors_lately"]:
        problems.append(f"the store failed {found['store']['errors_lately']} times in the last minute or so")
    problems += [
        f"failed requests to {name} in the last minute or so: {one['errors_lately']}; the log says why"
        for name, one in found["scanners"].items()
        if one["errors_lately"]
    ]
    if found["dns"]["problem"]:
        problems.append(found["dns"]["problem"])
    problems += _key_problems(found["keys"])
    problems += [
        f"DNS list {name} is off in {one['off_in_workers']} of {configured} workers"
        for name, one in found["dns_lists"].items()
        if one["off_in_workers"]
    ]
    return problems


def _dns_problem(found: Report) -> str:
    """What is wrong with the DNS, and where to look; "" if nothing is."""
    lately, down = found["lately"], found["down_seconds"]
    asked, failed, reasons = lately["asked"], lately["failed"], lately["reasons"]
    named = ", ".join(f"{reason} {count}" for reason, count in reasons.items() if count)
    servers = " ".join(["the nameservers", ", ".join(found["nameservers"])]).strip()
    if not down:
        if asked < MANY_FAILED or failed < MOST_FAILED * asked:
            return ""
        return (
            f"of {asked} questions to the DNS in the last 5 minutes {failed} failed ({named}), though {servers} work: "
            "either one sender's domains are broken, or the resolver is about to fail; compare with `dig`"
        )
    silent = reasons["timeout"] + reasons["unreachable"]
    if reasons["refused"] > failed - reasons["refused"]:
        what, hint = "refuse our questions", "let this machine ask them, or name others in [dns] nameservers"
    elif failed - silent > silent:
        what, hint = (
            "speak, but find nothing",
            "see their log, their way to the Internet, and the clock, which DNSSEC needs",
        )
    else:
        what, hint = "do not answer", "see whether they run, and whether the firewall lets port 53 through"
    count = f"; {failed} of {asked} questions in the last 5 minutes failed ({named})" if failed else ""
    return f"{servers} {what}: down for {down:.0f}s{count}: {hint}; until then SPF, DKIM and DMARC end in temperror"


def _key_problems(found: Report) -> list[str]:
    wrong = [one for one in found["listed"] if one["state"] in ("mismatch", "missing")]
    problems = [
        f"signatures of {one['domain']} with selector {one['selector']} can't be verified: {one['detail']}; "
        f"publish the key of [{one['section']}], or take it out there"
        for one in wrong[:MOST_NAMED]
    ]
    more = sum(found["states"].get(state, 0) for state in ("mismatch", "missing")) - len(problems)
    if more > 0:
        problems.append(f"as many signing keys more are not published as they should be: {more}")
    return problems
