"""The endpoint over HTTP, from a process of its own."""

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from authmilter.check import all_checks
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.model import Stage
from authmilter.server import exporter


class Endpoint:
    def __init__(self) -> None:
        self.layout = layout_for(all_checks())
        self.shared = Shared(3, self.layout)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.control, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.control.close()
            try:
                exporter.main(self.sock, theirs, self.shared, self.layout)
            finally:
                os._exit(1)
        theirs.close()
        self.sock.close()
        assert self.get("/healthz")[0] == 200  # from here on it counts what is of today

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.control.close()
    os.waitpid(found.pid, 0)


def test_metrics(endpoint: Endpoint) -> None:
    Metrics(endpoint.shared, 1, endpoint.layout).verdict("inbound", "tag", Stage.EOM, 5.0)
    status, text = endpoint.get("/metrics")
    assert status == 200
    assert 'authmilter_messages_total{action="tag",direction="inbound",stage="eom"} 1.0' in text


def test_health_and_readiness(endpoint: Endpoint) -> None:
    assert endpoint.get("/healthz") == (200, "ok\n")
    assert endpoint.get("/readyz")[0] == 503
    Metrics(endpoint.shared, 2, endpoint.layout).set("accepting", 1.0)
    assert endpoint.get("/readyz") == (200, "ok: 1 of 2 workers accept\n")


def test_status(endpoint: Endpoint) -> None:
    endpoint.get("/healthz")  # it serves, so its day has begun: what was counted before is not of today
    for slot in (1, 2):
        Metrics(endpoint.shared, slot, endpoint.layout).set("accepting", 1.0)
    Metrics(endpoint.shared, 1, endpoint.layout).verdict("inbound", "tag", Stage.EOM, 5.0)
    status, text = endpoint.get("/status?x")
    report = json.loads(text)
    assert status == 200
    assert (report["program"], report["problems"]) == ("authmilter", [])
    assert report["today"]["messages"]["inbound"]["tag"] == 1


def test_other_paths(endpoint: Endpoint) -> None:
    assert endpoint.get("/")[0] == 404


def test_clients_that_say_nothing_keep_nobody_waiting(endpoint: Endpoint) -> None:
    silent = [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(8)]
    assert endpoint.get("/healthz")[0] == 200
    for sock in silent:
        sock.close()


def test_it_ends_with_its_supervisor(endpoint: Endpoint) -> None:
    endpoint.control.close()
    for _ in range(100):
        pid, status = os.waitpid(endpoint.pid, os.WNOHANG)
        if pid:
            assert status == 0
            break
        time.sleep(0.05)
    else:
        pytest.fail("still there")
    endpoint.pid = os.spawnl(os.P_NOWAIT, "/bin/true", "true")  # something for the fixture to wait for
