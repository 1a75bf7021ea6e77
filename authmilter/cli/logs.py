"""`authmilter logs`: a summary of the lines that the daemon wrote, one per message and one per refused recipient.

It reads text and JSON, with or without what journald or syslog put in front.  Memory is bounded whatever the log holds:
of values that strangers choose, the frequent ones are kept (`Top`).
"""

import argparse
import gzip
import json
import math
import os
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Generic, TypeVar

from authmilter.check import METHODS
from authmilter.cli import EX_USAGE
from authmilter.cli.terminal import Progress, escaped, paint, table
from authmilter.config import ini
from authmilter.config.schema import Config
from authmilter.errors import ConfigError
from authmilter.evidence import Result
from authmilter.networks import find_name

EX_NOTHING, EX_DATAERR = 1, 65
LONGEST = 2**18  # octets of a line; ours are much shorter
MOST = 1000  # rows of a table that may be asked for
KEPT = 4096  # different values per table; twice as many for a while
_LONGEST_DOMAIN = 253  # RFC 1035 section 2.3.4, as text; looking for parents takes the square of what is longer
_WIDEST = 120  # characters of a value that are kept
_DIRECTIONS = ("inbound", "outbound")
_ACTIONS = ("accept", "tag", "quarantine", "tempfail", "reject", "discard")
_RESULTS = tuple(result.value for result in Result)

# The first level of a line is that of the daemon: what strangers wrote comes after it.
_EVENT = re.compile(r"(?<!\S)(?:debug|info|warning|error): (message|recipient) (?=ref=)")
_LEVEL = re.compile(r"(?<!\S)(?:debug|info|warning|error): ")
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)')
_ESCAPE = re.compile(r'\\(["\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})')
_SYMBOL = re.compile(r"(?<![a-z0-9_])([a-z0-9_]++)\(")  # from the first letter of a name alone: linear

Report = dict[str, Any]
K = TypeVar("K")
Fields = Mapping[str, str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="logs, plain or .gz; - is standard input, and so is none"
    )
    parser.add_argument("--top", type=_number, default=10, metavar="N", help="rows per table (default: 10)")
    parser.add_argument(
        "--domain",
        action="append",
        metavar="NAME",
        help="a domain of ours, for failures of DMARC; may be repeated; no configuration is read then",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.epilog = (
        "Such as: journalctl -u authmilter -o cat | authmilter logs.  Domains of ours are those of [identity] local_domains and of the [sign DOMAIN] sections, with all below the latter.  "
        "Exit status: 0 there were messages, 1 there was no line of a message, 65 a file can't be read, 78 the "
        "configuration can't be used."
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError."""
    files = args.files or ["-"]
    if "-" in files and sys.stdin.isatty():
        print("authmilter logs: standard input is a terminal: name a file, or pipe a log in", file=sys.stderr)
        return EX_USAGE
    summary = Summary(_own_domains(args))
    progress = Progress(sys.stderr.isatty())
    for name in files:
        try:
            with _opened(name) as (file, done, size):
                for line in _lines(file):
                    summary.line(line)
                    progress.show(done() if size else 0, size, f"{summary.events:,} lines of messages")
        except (OSError, EOFError, zlib.error) as error:
            progress.clear()
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            print(f"authmilter logs: {escaped(name)}: {words}", file=sys.stderr)
            return EX_DATAERR
    progress.clear()
    report = summary.report(args.top)
    print("\n".join([json.dumps(report, indent=2)] if args.json else text(report)))
    return 0 if summary.events else EX_NOTHING


def _number(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 9 and 0 < int(given) <= MOST):
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of 1 to {MOST}")
    return int(given)


def _own_domains(args: argparse.Namespace) -> tuple[str, ...]:
    """Names as `find_name` takes them."""
    if args.domain is not None:
        names = [name.lower().strip(".") for name in args.domain]
        return tuple(form for name in names if name for form in (name, f".{name}"))
    path = ini.find(args.config)
    if path is not None and os.path.exists(path) and not os.access(path, os.R_OK):
        print(f"authmilter logs: {path} can't be read: --domain NAME tells which domains are ours", file=sys.stderr)
        return ()
    try:
        config: Config = ini.load(path, check_files=False)
    except ConfigError as error:
        hint = "authmilter logs: --domain NAME tells which domains are ours without reading the configuration"
        raise ConfigError([*error.problems, hint]) from None
    signed = (name.removeprefix("*.") for name in config.sign if name != "*")
    return (*config.identity.local_domains, *(form for name in signed for form in (name, f".{name}")))


# -- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, Callable[[], int], int]]:
    """The file, what tells how many octets of it were read, and how many it has (0: not known)."""
    if name == "-":
        yield sys.stdin.buffer, int, 0
        return
    with open(name, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked, raw.tell, size  # type: ignore[misc]  # GzipFile is a BinaryIO in all that is used
        else:
            yield raw, raw.tell, size


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Every line; of one that is too long the first octets, which are then no line of ours."""
    while line := file.readline(LONGEST):
        rest = line
        while not rest.endswith(b"\n") and len(rest) == LONGEST:
            rest = file.readline(LONGEST)
        yield line


def parse(raw: bytes) -> tuple[str, Fields] | None:
    """The event, ``message`` or ``recipient``, and its fields; None for any other line.

    Raises ValueError for what begins like one of them and does not go on so.
    """
    if b"ref" not in raw:
        return None
    line = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
    level = _LEVEL.search(line)
    start = line.find('{"time": ')
    if start >= 0 and (level is None or start < level.start()):
        return _from_json(line[start:])
    event = _EVENT.match(line, level.start()) if level else None
    if event is None:
        return None
    fields, at = {}, event.end()
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None:
            raise ValueError("not key=value")
        key, value = pair.groups()
        fields[key] = _ESCAPE.sub(_character, value[1:-1]) if value.startswith('"') else value
        at = pair.end()
    return event[1], fields


def _character(found: re.Match[str]) -> str:
    escape = found[1]
    if escape in '"\\':
        return escape
    number = int(escape[1:], 16)
    return chr(number) if number <= sys.maxunicode else found[0]


def _from_json(line: str) -> tuple[str, Fields] | None:
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or found.get("event") not in ("message", "recipient"):
        return None
    return found["event"], {key: str(value) for key, value in found.items()}


# -- counting ---------------------------------------------------------------------------------------------------------


class Top(Generic[K]):
    """The frequent ones of any number of values, by the algorithm of Misra and Gries (1982).

    A count may be too low, by `error` at most; it is exact until there were more than twice KEPT different values.
    """

    def __init__(self) -> None:
        self._counts: Counter[K] = Counter()
        self.error = 0

    def add(self, value: K) -> None:
        """Count one more of these."""
        self._counts[value] += 1
        if len(self._counts) > 2 * KEPT:
            least = sorted(self._counts.values(), reverse=True)[KEPT]
            self._counts = Counter({key: count - least for key, count in self._counts.items() if count > least})
            self.error += least

    def most(self, number: int) -> list[tuple[K, int]]:
        """The most frequent first; equal ones in the order of their names."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], str(item[0])))[:number]


class Summary:
    """What there is to say of the lines so far; `own` are domains of ours."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._own = tuple(own)
        self.events = 0
        self._unreadable = 0
        self._since: float | None = None
        self._until: float | None = None
        self._messages = {direction: dict.fromkeys(_ACTIONS, 0) for direction in _DIRECTIONS}
        self._not_enforced = 0
        self._recipients = {"4xx": 0, "5xx": 0}
        self._results = {method: dict.fromkeys(_RESULTS, 0) for method in METHODS}
        self._symbols: Top[str] = Top()
        self._senders: Top[str] = Top()
        self._domains: Top[str] = Top()
        self._clients: Top[str] = Top()
        self._failures: Top[tuple[str, str, str]] = Top()  # domain, client, action

    def line(self, raw: bytes) -> None:
        """Take in a line of the log."""
        try:
            found = parse(raw)
            if found is None:
                return
            event, fields = found
            when = float(fields["time"]) if "time" in fields else None
        except ValueError:
            self._unreadable += 1
            return
        if not _is_sound(fields, when):
            self._unreadable += 1
            return
        self.events += 1
        if when is not None:
            self._since = when if self._since is None else min(self._since, when)
            self._until = when if self._until is None else max(self._until, when)
        if event == "message":
            self._message(fields)
        else:
            self._recipients["5xx" if fields["action"] == "reject" else "4xx"] += 1
        for symbol in _SYMBOL.findall(fields.get("symbols", "")):
            self._symbols.add(symbol[:_WIDEST])
        if fields["action"] in ("reject", "discard") and fields.get("enforced") != "no":
            self._refused(fields)

    def _message(self, fields: Fields) -> None:
        direction, action = fields.get("direction", "inbound"), fields["action"]
        self._messages[direction][action] += 1
        self._not_enforced += fields.get("enforced") == "no"
        for method, counts in self._results.items():
            for result in fields.get(method, "").split(","):
                if result in counts:
                    counts[result] += 1
        if direction == "inbound" and "fail" in fields.get("dmarc", "").split(","):
            for domain in fields.get("from", "").split(","):
                if len(domain) <= _LONGEST_DOMAIN and find_name(self._own, domain):
                    self._failures.add((domain[:_WIDEST], fields.get("client", "")[:_WIDEST], action))

    def _refused(self, fields: Fields) -> None:
        if client := fields.get("client", ""):
            self._clients.add(client[:_WIDEST])
        if fields.get("stage") in ("connect", "helo"):
            return  # no MAIL was seen yet
        sender = fields.get("mail_from", "")
        self._senders.add(sender[:_WIDEST])
        domain = sender.rpartition("@")[2].lower() if "@" in sender else ""
        if domain:
            self._domains.add(domain[:_WIDEST])

    def report(self, number: int) -> Report:
        """All of it, with so many rows of each table."""
        tops = (self._symbols, self._senders, self._domains, self._clients, self._failures)
        return {
            "events": self.events,
            "unreadable": self._unreadable,
            "since": self._since,
            "until": self._until,
            "messages": self._messages,
            "not_enforced": self._not_enforced,
            "recipients_refused": self._recipients,
            "results": self._results,
            "symbols": _rows("symbol", self._symbols, number),
            "refused_senders": _rows("sender", self._senders, number),
            "refused_domains": _rows("domain", self._domains, number),
            "refused_clients": _rows("client", self._clients, number),
            "own_domains": list(self._own),
            "own_dmarc_failures": [
                {"domain": domain, "client": client, "action": action, "count": count}
                for (domain, client, action), count in self._failures.most(number)
            ],
            "counts_too_low_by_at_most": max(top.error for top in tops),
        }


def _is_sound(fields: Fields, when: float | None) -> bool:
    return (
        fields.get("action") in _ACTIONS
        and fields.get("direction", "inbound") in _DIRECTIONS
        and (when is None or math.isfinite(when))
    )


def _rows(name: str, top: Top[str], number: int) -> list[Report]:
    return [{name: value, "count": count} for value, count in top.most(number)]


# -- as text ----------------------------------------------------------------------------------------------------------


def text(report: Report) -> list[str]:
    """The report for people."""
    lines = [*_head(report), *_messages(report), *_methods(report["results"])]
    for title, name, rows in (
        ("symbols", "symbol", report["symbols"]),
        ("refused senders", "sender", report["refused_senders"]),
        ("refused domains of senders", "domain", report["refused_domains"]),
        ("refused clients", "client", report["refused_clients"]),
    ):
        lines += _table(title, [(one[name], one["count"]) for one in rows])
    lines += _failures(report)
    if error := report["counts_too_low_by_at_most"]:
        lines += [
            "",
            f"There were too many different values to count them all: a count may be too low, by {error:,} at most.",
        ]
    return lines


def _head(report: Report) -> list[str]:
    period = ""
    if report["since"] is not None:
        period = f", {_moment(report['since'])} to {_moment(report['until'])}"
    lines = [paint(f"{report['events']:,} lines of messages and refused recipients{period}", "title")]
    if report["unreadable"]:
        lines.append(paint(f"{report['unreadable']:,} lines could not be understood", "bad"))
    return lines


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "?"


def _messages(report: Report) -> list[str]:
    rows: list[tuple[str, ...]] = [("messages", *_ACTIONS, "all")]
    for direction, actions in report["messages"].items():
        rows.append((direction, *(f"{count:,}" for count in (*actions.values(), sum(actions.values())))))
    head, *lines = table(rows, right=len(rows[0]) - 1)
    refused = report["recipients_refused"]
    lines.append(f"recipients refused: {refused['5xx']:,} for good (5xx), {refused['4xx']:,} for now (4xx)")
    if report["not_enforced"]:
        lines.append(f"not enforced, so accepted whatever the verdict: {report['not_enforced']:,}")
    return ["", paint(head, "dim"), *lines]


def _methods(results: Mapping[str, Mapping[str, int]]) -> list[str]:
    seen = [result for result in _RESULTS if any(counts[result] for counts in results.values())]
    if not seen:
        return []
    rows: list[tuple[str, ...]] = [("results", *seen)]
    rows += [
        (method, *(f"{counts[result]:,}" for result in seen))
        for method, counts in results.items()
        if any(counts.values())
    ]
    head, *lines = table(rows, right=len(seen))
    return ["", paint(head, "dim"), *lines]


def _table(title: str, rows: Sequence[tuple[str, int]]) -> list[str]:
    if not rows:
        return []
    return ["", paint(title, "dim"), *table([(f"{count:>9,}", escaped(value)) for value, count in rows])]


def _failures(report: Report) -> list[str]:
    if not report["own_domains"]:
        return ["", "Which domains are ours is not known: failures of DMARC for them are not listed."]
    rows = [
        (f"{one['domain']} from {one['client']}: {one['action']}", one["count"]) for one in report["own_dmarc_failures"]
    ]
    if not rows:
        return ["", "No mail from outside in the name of our domains failed DMARC."]
    return _table("mail from outside in the name of our domains that failed DMARC", rows)
