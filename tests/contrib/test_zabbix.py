"""The UserParameters in a real Zabbix agent, and the template over what that agent tells of a daemon."""

import contextlib
import json
import random
import re
import shlex
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.contrib.monitoring import CONTRIB, required, visited_daemon
from tests.rig.daemon import Daemon, Metrics
from tests.rig.sockets import accepting, free_port, wait_until

FOLDER = CONTRIB / "zabbix"
EXPORT: dict[str, Any] = yaml.safe_load((FOLDER / "template_authmilter.yaml").read_text())["zabbix_export"]
ITEMS: list[dict[str, Any]] = EXPORT["templates"][0]["items"]
MASTERS = {item["key"] for item in ITEMS if item.get("type") != "DEPENDENT"}


class Agent(NamedTuple):
    """A running agent, and its configuration."""

    port: int
    file: Path
    daemon: Daemon

    def tested(self, key: str) -> str:
        """What ``-t KEY`` prints for a value."""
        command = [required("zabbix_agentd"), "-c", str(self.file), "-t", key]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
        found = re.fullmatch(re.escape(key) + r"\s+\[t\|(.*)\]", said, re.DOTALL)
        assert found, said
        return found[1]

    def asked(self, key: str) -> str:
        """The answer to a passive check: ``ZBXD``, flags, length, reserved, data."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), 10)) as sock:
            sock.sendall(b"ZBXD\1" + struct.pack("<II", len(key), 0) + key.encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        assert data.startswith(b"ZBXD\1")
        assert struct.unpack_from("<I", data, 5)[0] == len(data) - 13
        return data[13:].decode()


def _low_port() -> int:
    """A free port of those that the agent takes: 1024 to 32767."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    program = required("zabbix_agentd")
    folder = tmp_path_factory.mktemp("agent")
    with visited_daemon() as daemon:
        lines = (FOLDER / "authmilter.conf").read_text()
        for usual, ours in (
            ("127.0.0.1:9797", f"127.0.0.1:{daemon.metrics_port}"),
            ("inet:8891@127.0.0.1", f"inet:{daemon.port}@127.0.0.1"),
            ("/usr/lib/nagios/plugins/check_authmilter", str(CONTRIB / "nagios" / "check_authmilter")),
        ):
            assert usual in lines
            lines = lines.replace(usual, ours)
        (folder / "authmilter.conf").write_text(lines)
        port = _low_port()
        settings = {
            "PidFile": folder / "pid",
            "LogType": "file",
            "LogFile": folder / "log",
            "Server": "127.0.0.1",
            "ListenIP": "127.0.0.1",
            "ListenPort": port,
            "StartAgents": 1,
            "AllowRoot": 1,
            "Include": folder / "authmilter.conf",
        }
        file = folder / "agentd.conf"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        process = subprocess.Popen(
            [program, "-f", "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: accepting(port), 10, "the agent")
            yield Agent(port, file, daemon)
        finally:
            process.terminate()
            process.wait(15)


@pytest.mark.parametrize("key", sorted(MASTERS))
def test_the_agent_tells_each_key_by_hand_and_over_the_network(key: str, agent: Agent) -> None:
    answers = [agent.tested(key), agent.asked(key)]
    for answer in answers:
        if key == "authmilter.status":
            assert json.loads(answer)["workers"]["accepting"] == 2
        elif key == "authmilter.metrics":
            assert Metrics(answer + "\n").value("authmilter_messages_total") > 0
        else:
            assert answer == "0"


def test_the_commands_of_the_page_name_the_keys_of_agent_and_template() -> None:
    page = (FOLDER / "README.md").read_text()
    named = {shlex.split(line)[-1] for line in page.splitlines() if line.startswith("    zabbix_agentd ")}
    declared = set(re.findall(r"(?m)^UserParameter=([\w.]+),", (FOLDER / "authmilter.conf").read_text()))
    assert named == declared == MASTERS


def test_a_daemon_that_is_away_has_an_answer_too(tmp_path: Path) -> None:
    text = (FOLDER / "authmilter.conf").read_text()
    text = text.replace("9797", str(free_port())).replace("8891", str(free_port()))
    text = text.replace("/usr/lib/nagios/plugins", str(CONTRIB / "nagios"))
    (tmp_path / "agentd.conf").write_text(f"Server=127.0.0.1\nAllowRoot=1\nLogType=console\n{text}")
    away = Agent(0, tmp_path / "agentd.conf", None)  # type: ignore[arg-type]  # nobody asks it for its daemon
    assert json.loads(away.tested("authmilter.status")) == {"program": "none"}
    assert away.tested("authmilter.milter") == "2"


@pytest.mark.parametrize(
    "item", [item for item in ITEMS if item.get("type") == "DEPENDENT"], ids=lambda item: item["key"]
)
def test_an_item_finds_its_value_in_what_the_agent_tells(item: dict[str, Any], agent: Agent) -> None:
    answer = agent.asked(item["master_item"]["key"])
    step = item["preprocessing"][0]
    if step["type"] == "JSONPATH":
        value = _by_path(json.loads(answer), step["parameters"][0])
        assert isinstance(value, str if item.get("value_type") == "CHAR" else int)
        return
    assert step["type"] == "PROMETHEUS_PATTERN"
    found = re.fullmatch(r'(\w+)(?:\{(\w+)="(\w+)"\})?', step["parameters"][0])
    assert found
    samples = [line for line in answer.splitlines() if re.match(rf"{found[1]}[ {{]", line)]
    if found[2]:
        samples = [line for line in samples if f'{found[2]}="{found[3]}"' in line]
    assert samples
    assert step["parameters"][1:] == (["function", "sum"] if "error_handler" in step else ["value", ""])
    assert len(samples) == 1 or step["parameters"][2] == "sum"


def test_a_daemon_that_does_not_answer_once_is_no_counter_that_begins_anew() -> None:
    """Counters would seem to fall to 0 and to rise again: a rate without measure, and failed signatures that are none."""
    counters = [step for item in ITEMS for step in item.get("preprocessing", ()) if "sum" in step["parameters"]]
    assert counters
    assert {step.get("error_handler") for step in counters} == {"DISCARD_VALUE"}


def _by_path(found: Any, path: str) -> Any:
    """Of JSONPath what the template uses: names joined by dots, and length() at the end."""
    first, *names = path.split(".")
    assert first == "$"
    for name in names:
        found = len(found) if name == "length()" else found[name]
    return found


def test_the_template_is_whole() -> None:
    keys = [item["key"] for item in ITEMS]
    assert len(set(keys)) == len(keys)
    triggers = [trigger for item in ITEMS for trigger in item.get("triggers", ())]
    identities = [EXPORT["groups"][0]["uuid"], EXPORT["templates"][0]["uuid"]]
    identities += [one["uuid"] for one in (*ITEMS, *triggers)]
    assert len(set(identities)) == len(identities)
    assert {uuid.UUID(one).version for one in identities} == {4}
    for trigger in triggers:
        named = re.findall(r"\(/authmilter/([\w.]+(?:\[[\w,]+\])?)", trigger["expression"])
        assert named
        assert set(named) <= set(keys)
        assert trigger["priority"] in ("WARNING", "AVERAGE", "HIGH")
    assert {item["master_item"]["key"] for item in ITEMS if "master_item" in item} <= MASTERS
