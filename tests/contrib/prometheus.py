"""A real Prometheus, on a port of its own, that scrapes one daemon every second."""

import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.contrib.monitoring import CONTRIB, required
from tests.rig.sockets import free_port, wait_until

FOLDER = CONTRIB / "prometheus"


class Prometheus:
    """It knows the rules of contrib/prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Does it answer queries yet?"""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10):
                return True
        except OSError:  # nobody listens yet, or 503 Service Unavailable
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression: ``metric`` (its labels) and ``value`` (time and text)."""
        body = urllib.parse.urlencode({"query": expression}).encode()
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query", body, timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        assert found["data"]["resultType"] == "vector"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health."""
        with urllib.request.urlopen(f"{self._url}/api/v1/rules", timeout=10) as answer:
            return [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def prometheus(target: int) -> Iterator[Prometheus]:
    """Up and scraping `target`, a port, by the configuration of contrib/prometheus."""
    program = required("prometheus")
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(FOLDER / "authmilter.rules.yml", folder)
        lines = (FOLDER / "prometheus.yml").read_text()
        for usual, ours in (("interval: 15s", "interval: 1s"), ("127.0.0.1:9797", f"127.0.0.1:{target}")):
            assert usual in lines
            lines = lines.replace(usual, ours)
        (folder / "prometheus.yml").write_text(lines)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        server = Prometheus(port)

        def scraped() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            return server.is_ready() and bool(server.query("up == 1"))

        try:
            wait_until(scraped, 30, "the first scrape")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
