"""`authmilter status`: how the running daemon does.

It asks the daemon over HTTP, where [metrics] listens, and so needs no rights of its own.
"""

import argparse
import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from authmilter import lists
from authmilter.checks.classifier import Classifier
from authmilter.classifier import table as classifier_table
from authmilter.cli import EX_USAGE
from authmilter.cli.terminal import duration, escaped, paint, plural, table
from authmilter.config import ini
from authmilter.config.endpoint import parse_listen, parse_store
from authmilter.config.schema import Config
from authmilter.errors import ConfigError, StartError
from authmilter.server.state import find_state

EX_WRONG = 1
TIMEOUT = 5.0  # seconds
LARGEST = 4 * 2**20  # octets of an answer
_MOST_KEYS = 20  # keys in the table
_ADDED = "other"  # where the daemon counts for lists that a reload added
_ACTIONS = ("accept", "tag", "quarantine", "tempfail", "reject", "discard")

Report = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--url", metavar="URL", help="ask the daemon there, such as http://127.0.0.1:9797; no configuration is read"
    )
    parser.epilog = (
        "Exit status: 0 it runs and is well, 1 something is wrong with it, 69 it is not to be reached, 78 the "
        "configuration can't be used."
    )


def run(args: argparse.Namespace) -> int:
    """Exit status 1 if something is wrong; raises StartError if no daemon answers."""
    config = None
    if args.url is None:
        config = _configuration(args.config)
        url = _url(config or Config())
    elif _is_http(args.url):
        url = args.url.rstrip("/")
    else:
        print(f"authmilter status: --url {escaped(args.url)}: is not http://HOST:PORT", file=sys.stderr)
        return EX_USAGE
    report = _ask(url)
    try:
        if config is not None:
            _compare(report, config)
        lines = [json.dumps(report, indent=2)] if args.json else text(report, url)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise StartError(f"{url}: its answer is not that of an authmilter of this version") from None
    print("\n".join(lines))
    return EX_WRONG if report["problems"] else 0


def _configuration(given: str | None) -> Config | None:
    """The configuration, None if its file may not be read.  Raises ConfigError."""
    path = ini.find(given)
    if path is not None and os.path.exists(path) and not os.access(path, os.R_OK):
        # It may hold passwords; a user who must not read it may look at the daemon all the same.
        print(f"authmilter status: {path} can't be read: trying the usual address", file=sys.stderr)
        return None
    try:
        return ini.load(path, check_files=False)
    except ConfigError as error:
        hint = "authmilter status: --url http://ADDRESS:PORT asks a daemon that runs without reading the configuration"
        raise ConfigError([*error.problems, hint]) from None


def _url(config: Config) -> str:
    if not config.metrics.listen:
        raise StartError(
            "status asks the daemon where [metrics] listens, and [metrics] listen is empty: set it, such as to "
            "127.0.0.1:9797, and restart"
        )
    host, port = parse_listen(config.metrics.listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  every address: one of them is ours
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _fetch(url: str, into: list[bytes | Exception]) -> None:
    # Without the proxies that the environment may name: they are for the way out.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            into.append(answer.read(LARGEST))
    except Exception as error:
        into.append(error)


def _fetched(url: str) -> bytes:
    """What is there; raises TimeoutError when all of it takes longer than `TIMEOUT`, however it trickles."""
    into: list[bytes | Exception] = []
    thread = threading.Thread(target=_fetch, args=(url, into), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if not into:
        raise TimeoutError("timed out")
    if isinstance(into[0], Exception):
        raise into[0]
    return into[0]


def _ask(url: str) -> Report:
    try:
        report = json.loads(_fetched(f"{url}/status"))
    except urllib.error.HTTPError as error:
        error.close()
        raise StartError(
            f"{url} has no /status ({error.code}): another program, or an older release runs there"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        words = (reason.strerror if isinstance(reason, OSError) else "") or str(reason) or type(reason).__name__
        raise StartError(
            f"no daemon answers at {url}: {escaped(words)}.  Is it running (systemctl status authmilter), and with this "
            "[metrics] listen?"
        ) from None
    except (ValueError, RecursionError):  # no JSON
        report = None
    if not isinstance(report, dict) or report.get("program") != "authmilter" or "problems" not in report:
        raise StartError(f"{url} is answered by another program than authmilter")
    return report


def _compare(report: Report, config: Config) -> None:
    """Add what the daemon does not tell to everybody who asks, or can't know."""
    report["store"].update(_store(config))
    report["classifier"] = found = _classifier(config)
    if found["state"] == "broken":
        report["problems"].append(f"the classifier says nothing: {found['problem']}")
    configured = {f"{kind}_{name}" for kind in lists.KINDS for name in getattr(config, kind)}
    for name, one in report["dns_lists"].items():
        # It counts for the lists that there were when it started; see `metrics`.
        one["configured"] = name in configured or name == _ADDED


def _store(config: Config) -> Report:
    """Where the state is, and how large."""
    url = parse_store(config.store.url)
    if url.kind != "sqlite":
        return {"kind": url.kind, "where": url.shown, "size": None}
    size = 0
    try:
        path = find_state(config.store.url)
        if path is None:
            return {"kind": url.kind, "where": config.store.url, "size": None}
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                size += Path(f"{path}{suffix}").stat().st_size
    except PermissionError as error:
        return {"kind": url.kind, "where": f"sqlite:{error.filename}", "size": None}
    return {"kind": url.kind, "where": f"sqlite:{path}", "size": size}


def _classifier(config: Config) -> Report:
    """What the table of the classifier was made from, and whether it is of use."""
    options = config.of(Classifier)
    path = classifier_table.find(options.table)
    found: Report = {"state": "off", "where": str(path), "problem": ""}
    if not options.enabled:
        return found
    try:
        made = path.stat().st_mtime
        table = classifier_table.Table(path)
    except FileNotFoundError:
        has_more = os.path.lexists(f"{path}{classifier_table.SUFFIX}")
        return found | {"state": "untrained", "has_more_to_train": has_more}
    except PermissionError:
        return found | {"state": "unreadable"}  # by us, but perhaps not by the daemon
    except (OSError, ValueError) as error:
        return found | {"state": "broken", "problem": str(error)}
    from authmilter.classifier.learned import revision_of

    kept = revision_of(path.with_name(path.name + classifier_table.SUFFIX))
    enough = table.ham >= options.minimum_ham and table.spam >= options.minimum_spam
    return found | {
        "state": "speaks" if enough else "silent",
        "ham": table.ham,
        "spam": table.spam,
        "strength": round(min(1.0, table.ham / options.enough_ham), 3) if enough else 0.0,
        "trained_seconds_ago": round(max(0.0, time.time() - made), 1),
        "has_more_to_train": None if kept is None else kept != table.revision,
    }


# -- as text ----------------------------------------------------------------------------------------------------------


def text(report: Report, url: str) -> list[str]:
    """The report for people."""
    uptime = f", up {duration(report['uptime'])}" if report["uptime"] is not None else ""
    lines = [paint(escaped(f"authmilter {report['version']} at {url}{uptime}"), "title")]
    facts = [
        ("workers", _workers(report["workers"])),
        ("connections", _connections(report["connections"])),
        ("reload", _reload(report["reload"])),
        ("store", _store_line(report["store"])),
        ("DNS", _dns(report["dns"])),
        ("nameservers", _nameservers(report["dns"])),
        ("keys", _counts(report["keys"]["states"], "none")),
        ("alarms", _alarms(report["alarms"])),
    ]
    if "classifier" in report:
        facts.append(("classifier", _classifier_line(report["classifier"])))
    lines += table([(name, escaped(line)) for name, line in facts])
    lines += ["", *_today(report["today"])]
    lines += _keys(report["keys"]["listed"])
    lists = {name: one for name, one in report["dns_lists"].items() if not _is_stale(one)}
    if lists:
        lines += ["", *_lists(lists)]
    problems = [paint(escaped(problem), "bad") for problem in report["problems"]]
    return [*lines, "", *(problems or [paint("all is well", "good")])]


def _workers(found: Report) -> str:
    return f"{found['accepting']} of {found['configured']} accept connections, {plural(found['restarts'], 'restart')}"


def _connections(found: Report) -> str:
    return f"{found['active']:,} open, {found['total']:,} so far, {found['refused']:,} refused"


def _reload(found: Report) -> str:
    if found["seconds_ago"] is None:
        return "none since the start"
    outcome = "succeeded" if found["last_successful"] else "failed"
    total = found["successes"] + found["failures"]
    return f"{outcome} {duration(found['seconds_ago'])} ago; {total:,} so far, {found['failures']:,} failed"


def _store_line(found: Report) -> str:
    parts = [found["where"]] if "where" in found else []
    if found.get("size") is not None:
        parts.append(_size(found["size"]))
    return ", ".join([*parts, _counts(found["errors"], "no errors", "errors: ")])


def _classifier_line(found: Report) -> str:
    state: str = found["state"]
    if state in ("off", "broken"):
        return state
    if state == "unreadable":
        return f"{found['where']}: permission denied"
    if state == "untrained":
        return "not trained yet" if found["has_more_to_train"] else "not trained: see `authmilter learn`"
    most = ", which is too little to speak" if state == "silent" else ""
    if 0 < found["strength"] < 1:
        most = f", strength at most {found['strength']:.0%}"
    more = "; more was learned since" if found["has_more_to_train"] else ""
    ago = duration(found["trained_seconds_ago"])
    return f"learned {found['ham']:,} ham, {found['spam']:,} spam{most}; trained {ago} ago{more}"


def _size(octets: int) -> str:
    return f"{octets / 1024:.0f} KiB" if octets < 2**20 else f"{octets / 2**20:,.1f} MiB"


def _dns(found: Report) -> str:
    hits, misses = found["cache"].get("hit", 0), found["cache"].get("miss", 0)
    if not hits + misses:
        return "no questions for mail yet"
    share = f"{100.0 * hits / (hits + misses):.1f} % of {plural(hits + misses, 'question')} answered from the cache"
    return f"{share}; {_counts(found['questions'], 'none sent', 'sent: ')}"


def _nameservers(found: Report) -> str:
    lately, down = found["lately"], found["down_seconds"]
    named = ", ".join(found["nameservers"]) or "not told"
    if down:
        state = f"down for {duration(down)}"
    elif lately["asked"] > lately["failed"]:
        state = "they answer"
    else:
        state = "no answer so far" if lately["asked"] else "nothing was asked"
    seconds = duration(lately["seconds"])
    failed = _counts(lately["reasons"], "none", "")
    return f"{named}: {state}; {plural(lately['asked'], 'question')} in the last {seconds}, failed: {failed}"


def _keys(found: list[Report]) -> list[str]:
    """A table of the keys that sign, those first with which something is wrong."""
    if not found:
        return []
    rows: list[tuple[str, ...]] = [("signing key", "algorithm", "loaded", "record")]
    for one in found[:_MOST_KEYS]:
        record = one["state"] + (f": {one['detail']}" if one["detail"] else "")
        name = f"{one['selector']}._domainkey.{one['domain'] or '*'}"
        algorithm = f"{one['algorithm']}, {one['bits']} bits"
        rows.append(tuple(escaped(text) for text in (name, algorithm, _moment(one["loaded"]), record)))
    head, *lines = table(rows)
    more = [f"and {len(found) - _MOST_KEYS} more; --json has them"] if len(found) > _MOST_KEYS else []
    return ["", paint(head, "dim"), *lines, *more]


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "not known"
    except (OverflowError, OSError) as error:
        raise ValueError("no time") from error


def _counts(found: dict[str, int], none: str, title: str = "") -> str:
    named = [f"{name} {count:,}" for name, count in found.items() if count]
    return title + ", ".join(named) if named else none


def _alarms(found: Report) -> str:
    return (
        "; ".join(f"{event}: {_counts(outcomes, '')}" for event, outcomes in found.items() if any(outcomes.values()))
        or "none"
    )


def _today(found: Report) -> list[str]:
    try:
        moment = time.localtime(found["since"])
    except (OverflowError, OSError) as error:
        raise ValueError("no time") from error
    since = time.strftime("midnight (%Z)" if found["whole_day"] else "%H:%M:%S %Z", moment)
    rows: list[tuple[str, ...]] = [("messages", *_ACTIONS, "all")]
    for direction, actions in found["messages"].items():
        numbers = [actions.get(action, 0) for action in _ACTIONS]
        rows.append((escaped(direction), *(f"{number:,}" for number in (*numbers, sum(actions.values())))))
    title, *lines = table(rows, right=len(rows[0]) - 1)
    refused = _counts(found["recipients_refused"], "none")
    return [
        paint(f"today, since {since}", "title"),
        paint(title, "dim"),
        *lines,
        escaped(f"recipients refused: {refused}"),
    ]


def _is_stale(one: Report) -> bool:
    """Is it a list that is no longer configured, and was never asked?"""
    return not one.get("configured", True) and not one["off_in_workers"] and not any(one["answers"].values())


def _lists(found: Report) -> list[str]:
    outcomes = list(dict.fromkeys(outcome for one in found.values() for outcome in one["answers"]))
    rows = [("DNS list", "state", *map(escaped, outcomes))]
    for name, one in found.items():
        state = f"off in {plural(one['off_in_workers'], 'worker')}" if one["off_in_workers"] else "on"
        if not one.get("configured", True):
            state = "not configured now"
        title = "other: added since the start" if name == _ADDED else escaped(name)
        rows.append((title, state, *(f"{one['answers'].get(outcome, 0):,}" for outcome in outcomes)))
    head, *lines = table(rows, right=len(outcomes))
    return [paint(head, "dim"), *lines]
