"""Rules and dashboard: by promtool, and by a Prometheus that scrapes a daemon whom everybody visits."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from authmilter.check import Check
from authmilter.metrics import layout_for
from tests.contrib.monitoring import CONTRIB, SETTINGS, required, visit, visited_daemon
from tests.contrib.prometheus import FOLDER, Prometheus, prometheus
from tests.rig.daemon import Daemon
from tests.rig.mail import write_keys
from tests.rig.sockets import wait_until
from tests.store.servers import RedisServer, running

RULES = FOLDER / "authmilter.rules.yml"
TESTS = FOLDER / "authmilter.rules.test.yml"
DASHBOARD = CONTRIB / "grafana" / "authmilter.json"
ALERTS = [
    rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule
]


class Query(NamedTuple):
    """Of a panel."""

    panel: str
    expression: str
    legend: str


def queries() -> list[Query]:
    """All of the dashboard."""
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def promtool(*args: str | Path, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run([required("promtool"), *args], capture_output=True, text=True, timeout=120, cwd=cwd)


# -- promtool ---------------------------------------------------------------------------------------------------------


def test_promtool_takes_rules_and_configuration() -> None:
    for args in (
        ("check", "rules", "--lint=all", "--lint-fatal", RULES),
        ("check", "config", FOLDER / "prometheus.yml"),
    ):
        done = promtool(*args)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_miss_no_alert(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = "vector(1) > 2"
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
    shutil.copy(TESTS, tmp_path)
    done = promtool("test", "rules", TESTS.name, cwd=tmp_path)
    assert done.returncode == 1
    assert [alert for alert in ALERTS if alert not in done.stdout + done.stderr] == []


# -- names ------------------------------------------------------------------------------------------------------------


def test_rules_and_panels_name_metrics_that_there_are() -> None:
    known = set(layout_for(list[Check]()).families) | {"authmilter_build_info"}
    texts = [RULES.read_text(), TESTS.read_text(), *(query.expression for query in queries())]
    named = {name for text in texts for name in re.findall(r"\bauthmilter_\w+", text)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= known


def test_the_dashboard_shows_every_metric() -> None:
    text = " ".join(query.expression for query in queries())
    families = set(layout_for(list[Check]()).families) | {"authmilter_build_info"}
    shown = {name for name in families if name.startswith("authmilter_") and name in text}
    assert {name for name in families if name.startswith("authmilter_")} == shown


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", " ".join(query.expression for query in queries()) + "$datasource"))
    assert used - {"__rate_interval", "__range"} == variables


# -- a live scrape ----------------------------------------------------------------------------------------------------


class Watched(NamedTuple):
    """A Prometheus that scrapes a daemon."""

    server: Prometheus
    alerts: list[dict[str, Any]]  # before anything went wrong


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """First all is well, but for a domain whose name servers fail; then the store goes away."""
    keys = write_keys(tmp_path_factory.mktemp("keys"))
    required("prometheus")
    required("redis-server")
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as store:
        settings: dict[str, dict[str, object]] = {
            **SETTINGS,
            "sign sender.example": {
                "selector": "r",
                "key_file": keys.rsa,
                "ed25519_selector": "e",
                "ed25519_key_file": keys.ed25519,
            },
            "store": {"url": store.url},
            "reputation": {"enabled": "yes"},
            "alarm": {"command": "/bin/true"},
        }
        with visited_daemon(settings=settings) as daemon, prometheus(daemon.metrics_port) as server:
            started = time.monotonic()
            while time.monotonic() - started < 5:  # so that counters rise between scrapes
                visit(daemon)
                time.sleep(0.5)
            wait_until(lambda: server.query("authmilter:refused:ratio1h"), 20, "a recording rule")
            alerts = server.query("ALERTS")
            store.kill()
            wait_until(lambda: _has_risen(server, daemon), 20, "errors of the store, and an alarm")
            yield Watched(server, alerts)


def _has_risen(server: Prometheus, daemon: Daemon) -> bool:
    """Are there two scrapes of what comes of a store that is away?"""
    visit(daemon)
    names = ("authmilter_store_errors_total", "authmilter_alarms_total")
    return all(server.query(f"rate({name}[30s])") for name in names)


def substituted(expression: str) -> str:
    """With the variables as Grafana puts them in: all jobs and instances, a rate over four scrapes and more."""
    for name, value in (("$job", ".*"), ("$instance", ".*"), ("$__rate_interval", "30s"), ("$__range", "1h")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.panel} {query.legend}")
def test_a_panel_has_data(query: Query, watched: Watched) -> None:
    found = watched.server.query(substituted(query.expression))
    assert found, query.expression
    assert not [one for one in found if one["value"][1] == "NaN" and len(found) == 1]
    # The legend names labels that the series have.
    labels = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert all(labels <= set(one["metric"]) for one in found), found[0]


def test_the_page_lists_every_panel_with_its_query_and_the_labels_of_its_series(watched: Watched) -> None:
    rows = ["| panel | query | labels of its series |", "| --- | --- | --- |"]
    for query in queries():
        labels = sorted(
            {label for one in watched.server.query(substituted(query.expression)) for label in one["metric"]}
        )
        expression = query.expression.replace("|", r"\|")
        rows.append(f"| {query.panel} | `{expression}` | {', '.join(labels)} |")
    listed = re.search(r"(?ms)^\| panel .*?(?=\n\n|\Z)", (CONTRIB / "grafana/panels.md").read_text())
    assert listed is not None
    assert listed[0].splitlines() == rows, "the list should be:\n" + "\n".join(rows)


@pytest.mark.parametrize(
    ("panel", "series"),
    [
        ("Inbound verdicts", {"action": "reject"}),
        ("Outbound verdicts", {"action": "accept"}),
        ("Refused recipients", {"code": "5xx"}),
        ("DMARC", {"result": "fail"}),
        ("Temporary errors", {"method": "spf"}),
        ("Signatures made", {"algorithm": "ed25519-sha256", "outcome": "success"}),
        ("Answers of DNS lists", {"list": "dnsbl_zen", "outcome": "listed"}),
        ("Methods and checks that failed", {"check": "sender_domain", "kind": "temperror"}),
        ("Stage of the verdict", {"stage": "connect"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_happened_is_in_the_panel(panel: str, series: dict[str, Any], watched: Watched) -> None:
    expressions = [query.expression for query in queries() if query.panel == panel]
    rows = [one for expression in expressions for one in watched.server.query(substituted(expression))]
    (row,) = [one for one in rows if one["metric"] == series]
    assert float(row["value"][1]) > 0


def test_recording_rules_give_series_and_no_rule_fails(watched: Watched) -> None:
    rules = watched.server.rules()
    assert len(rules) == len(ALERTS) + 5
    assert {rule["health"] for rule in rules} == {"ok"}
    for rule in rules:
        if rule["type"] == "recording":
            assert watched.server.query(rule["name"]), rule["name"]


def test_no_alert_of_a_daemon_that_is_well_is_pending_or_fires(watched: Watched) -> None:
    # Of the questions that the cache leaves many fail on purpose.
    assert {alert["metric"]["alertname"] for alert in watched.alerts} <= {"AuthmilterDnsFails"}


# -- the pages --------------------------------------------------------------------------------------------------------


def test_the_page_names_every_alert_and_its_commands_work() -> None:
    page = (FOLDER / "README.md").read_text()
    assert re.findall(r"(?m)^\| (Authmilter\w+) \|", page) == ALERTS
    commands = [line.split() for line in page.splitlines() if line.startswith("    promtool ")]
    assert len(commands) == 2
    for _, *args in commands:
        done = promtool(*args)
        assert done.returncode == 0, done.stdout + done.stderr
