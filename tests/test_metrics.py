"""Counters in shared memory and their exposition."""

import os

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from authmilter.check import all_checks
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
        "authmilter_messages_total": "counter",
        "authmilter_recipients_refused_total": "counter",
        "authmilter_auth_results_total": "counter",
        "authmilter_findings_total": "counter",
        "authmilter_message_score": "histogram",
        "authmilter_stage_seconds": "histogram",
        "authmilter_check_seconds": "histogram",
        "authmilter_check_errors_total": "counter",
        "authmilter_dns_queries_total": "counter",
        "authmilter_dns_seconds": "histogram",
        "authmilter_dns_cache_total": "counter",
        "authmilter_store_errors_total": "counter",
        "authmilter_signatures_total": "counter",
        "authmilter_config_reloads_total": "counter",
        "authmilter_config_last_reload_successful": "gauge",
        "authmilter_worker_restarts_total": "counter",
    }


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
