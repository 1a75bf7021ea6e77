"""Counters in shared memory and their exposition."""

import math
import os
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from authmilter.check import METHODS, all_checks, known_symbols
from authmilter.config import ini
from authmilter.evidence import Result
from authmilter.metrics import Layout, Metrics, Shared, layout_for, registry
from authmilter.model import Stage


@pytest.fixture
def layout() -> Layout:
    return layout_for(all_checks())


def scrape(shared: Shared, layout: Layout) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(registry(shared, layout)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_of_all_slots_are_added_up(layout: Layout) -> None:
    shared = Shared(3, layout)
    for slot in range(3):
        Metrics(shared, slot, layout).verdict("inbound", "accept", Stage.EOM, 1.5)
    found = scrape(shared, layout)
    labels = (("action", "accept"), ("direction", "inbound"), ("stage", "eom"))
    assert found["authmilter_messages_total", labels] == 3
    assert found["authmilter_message_score_count", ()] == 3
    assert found["authmilter_message_score_sum", ()] == 4.5


def test_a_child_process_counts_into_the_same_memory(layout: Layout) -> None:
    shared = Shared(2, layout)
    pid = os.fork()
    if pid == 0:
        Metrics(shared, 1, layout).auth_result("spf", "pass")
        os._exit(0)
    os.waitpid(pid, 0)
    assert scrape(shared, layout)["authmilter_auth_results_total", (("method", "spf"), ("result", "pass"))] == 1


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0004, "0.0005"), (0.0005, "0.0005"), (0.0006, "0.001"), (31.0, "+Inf")]
)
def test_an_observation_falls_into_its_bucket(layout: Layout, seconds: float, bucket: str) -> None:
    shared = Shared(1, layout)
    Metrics(shared, 0, layout).stage_done(Stage.EOM, seconds)
    found = scrape(shared, layout)
    full = [
        dict(labels)["le"]
        for (name, labels), value in found.items()
        if name == "authmilter_stage_seconds_bucket" and value
    ]
    assert full[0] == bucket
    assert found["authmilter_stage_seconds_count", (("stage", "eom"),)] == 1


def test_a_label_value_that_nobody_foresaw_is_counted_as_other(layout: Layout) -> None:
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    metrics.finding("never_heard_of")
    metrics.check_done("never_heard_of", 0.1)
    found = scrape(shared, layout)
    assert found["authmilter_findings_total", (("symbol", "other"),)] == 1
    assert found["authmilter_check_seconds_count", (("check", "other"),)] == 1


def test_every_family_of_the_contract_is_there(layout: Layout) -> None:
    text = generate_latest(registry(Shared(2, layout), layout)).decode()
    kinds = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert kinds == {
        "authmilter_build_info": "gauge",
        "authmilter_connections_active": "gauge",
        "authmilter_connections_total": "counter",
        "authmilter_connections_refused_total": "counter",
        "authmilter_messages_total": "counter",
        "authmilter_recipients_refused_total": "counter",
        "authmilter_auth_results_total": "counter",
        "authmilter_findings_total": "counter",
        "authmilter_message_score": "histogram",
        "authmilter_stage_seconds": "histogram",
        "authmilter_check_seconds": "histogram",
        "authmilter_check_errors_total": "counter",
        "authmilter_dns_queries_total": "counter",
        "authmilter_dns_failures_total": "counter",
        "authmilter_dns_down": "gauge",
        "authmilter_dns_seconds": "histogram",
        "authmilter_dns_cache_total": "counter",
        "authmilter_dnslist_queries_total": "counter",
        "authmilter_dnslist_off": "gauge",
        "authmilter_store_errors_total": "counter",
        "authmilter_alarms_total": "counter",
        "authmilter_signatures_total": "counter",
        "authmilter_signing_keys": "gauge",
        "authmilter_config_reloads_total": "counter",
        "authmilter_config_last_reload_successful": "gauge",
        "authmilter_worker_restarts_total": "counter",
    }


LISTS = "[dnsbl zen]\nzone = zen.example\nanswers = 127.0.0.2 = 1\n[dnswl zen]\nzone = good.example"


def test_lists_and_symbols_of_the_configuration_have_cells_of_their_own() -> None:
    layout = layout_for(all_checks(), ini.load(None, LISTS))
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    for name in ("dnsbl_zen", "dnswl_zen", "dnsbl_new"):
        metrics.dnslist_asked(name, "listed")
        metrics.finding(name)
    metrics.finding("dnsbl_zen_2")
    found = scrape(shared, layout)
    for name in ("dnsbl_zen", "dnswl_zen", "other"):
        assert found["authmilter_dnslist_queries_total", (("list", name), ("outcome", "listed"))] == 1
        assert found["authmilter_findings_total", (("symbol", name),)] == 1
    assert found["authmilter_findings_total", (("symbol", "dnsbl_zen_2"),)] == 1


def test_lists_that_are_off_are_counted_by_worker() -> None:
    layout = layout_for(all_checks(), ini.load(None, LISTS))
    shared = Shared(3, layout)

    def off() -> dict[str, float]:
        found = scrape(shared, layout)
        return {dict(labels)["list"]: n for (name, labels), n in found.items() if name == "authmilter_dnslist_off"}

    one, two = Metrics(shared, 1, layout), Metrics(shared, 2, layout)
    assert off() == {"dnsbl_zen": 0, "dnswl_zen": 0, "other": 0}
    one.dnslist_off("dnsbl_zen", True)
    two.dnslist_off("dnsbl_zen", True)
    one.dnslist_off("dnsbl_new", True)
    one.dnslist_off("dnsbl_newer", True)
    assert off() == {"dnsbl_zen": 2, "dnswl_zen": 0, "other": 2}
    one.dnslist_off("dnsbl_zen", False)
    one.dnslist_off("dnsbl_new", False)
    assert off() == {"dnsbl_zen": 1, "dnswl_zen": 0, "other": 1}
    Metrics(shared, 2, layout)
    assert off() == {"dnsbl_zen": 0, "dnswl_zen": 0, "other": 1}, "who comes after a worker that died begins afresh"


def test_connections_go_up_and_down(layout: Layout) -> None:
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    metrics.connection_opened()
    metrics.connection_opened()
    metrics.connection_closed()
    found = scrape(shared, layout)
    assert found["authmilter_connections_active", ()] == 1
    assert found["authmilter_connections_total", ()] == 2


def test_a_reload_that_fails_is_seen(layout: Layout) -> None:
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    metrics.reloaded(success=True)
    metrics.reloaded(success=False)
    found = scrape(shared, layout)
    assert found["authmilter_config_last_reload_successful", ()] == 0
    assert found["authmilter_config_reloads_total", (("outcome", "failure"),)] == 1
    assert found["authmilter_config_reloads_total", (("outcome", "success"),)] == 1


STAGES = [stage for stage in Stage if stage not in (Stage.HEADER, Stage.BODY)]
BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]


def counted(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str) -> dict[tuple[str, ...], float]:
    """What is not 0 of a family, by its label values in the order of the label names."""
    return {tuple(v for _, v in labels): value for (n, labels), value in found.items() if n == name and value}


def test_every_label_value_has_a_cell_of_its_own(layout: Layout) -> None:
    """The n-th combination is counted n times, and read back n times under its own labels."""
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    results = list(product(METHODS, [r.value for r in Result]))
    symbols = sorted(known_symbols())
    names = sorted({*METHODS, *(check.name for check in all_checks())})
    for n, (method, result) in enumerate(results, 1):
        for _ in range(n):
            metrics.auth_result(method, result)
    for n, symbol in enumerate(symbols, 1):
        for _ in range(n):
            metrics.finding(symbol)
    for n, name in enumerate(names, 1):
        for _ in range(n):
            metrics.check_done(name, 0.1)
    for n, stage in enumerate(STAGES, 1):
        for i in range(n):
            metrics.stage_done(stage, 0.1 * i)
    for n, outcome in enumerate(("hit", "miss"), 1):
        for _ in range(n):
            metrics.dns_cache(outcome)
    found = scrape(shared, layout)
    assert counted(found, "authmilter_auth_results_total") == {row: n for n, row in enumerate(results, 1)}
    assert counted(found, "authmilter_findings_total") == {(s,): n for n, s in enumerate(symbols, 1)}
    assert counted(found, "authmilter_check_seconds_count") == {(c,): n for n, c in enumerate(names, 1)}
    assert counted(found, "authmilter_stage_seconds_count") == {(s.label,): n for n, s in enumerate(STAGES, 1)}
    assert counted(found, "authmilter_dns_cache_total") == {("hit",): 1, ("miss",): 2}


def test_what_has_no_cell_is_not_counted(layout: Layout) -> None:
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    metrics.stage_done(Stage.HEADER, 0.1)
    metrics.stage_done(Stage.BODY, 0.0)
    metrics.auth_result("never_heard_of", "pass")
    metrics.auth_result("spf", "never heard of")
    metrics.dns_cache("never heard of")
    metrics.verdict("inbound", "never heard of", Stage.EOM, None)
    assert not any(shared.sum(cell) for cell in range(layout.size))


@given(st.lists(st.one_of(st.sampled_from([0.0, *BOUNDS]), st.floats(0.0, 100.0)), min_size=1, max_size=20))
def test_histograms_hold_what_was_observed(observed: list[float]) -> None:
    layout = layout_for(all_checks())
    shared = Shared(1, layout)
    metrics = Metrics(shared, 0, layout)
    for seconds in observed:
        metrics.check_done("spf", seconds)
        metrics.stage_done(Stage.MAIL, seconds)
        metrics.dns_query("TXT", "ok", seconds)
    found = scrape(shared, layout)
    expected = Counter(next((str(b) for b in BOUNDS if seconds <= b), "+Inf") for seconds in observed)
    for name, labels in (
        ("authmilter_check_seconds", (("check", "spf"),)),
        ("authmilter_stage_seconds", (("stage", "mail"),)),
        ("authmilter_dns_seconds", ()),
    ):
        cumulative = 0
        for bound in [*map(str, BOUNDS), "+Inf"]:
            cumulative += expected[bound]
            assert found[f"{name}_bucket", tuple(sorted((*labels, ("le", bound))))] == cumulative
        assert math.isclose(found[f"{name}_sum", labels], math.fsum(observed), abs_tol=1e-9)
