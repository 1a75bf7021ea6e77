"""The fail2ban filter, over the log of a daemon as text and as JSON, by fail2ban's own programs."""

import ast
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authmilter.log import JsonFormatter, TextFormatter
from tests.contrib.monitoring import CONTRIB, FORGER, GOOD, REFUSED, TRAPPED, required, visited_daemon

FOLDER = CONTRIB / "fail2ban"
PREFIXES = {
    "file": "",
    "syslog": "Nov 22 12:41:07 mx authmilter[22]: ",
    "journal": "2026-11-22T12:41:07+0000 mx authmilter[22]: ",
}


@pytest.fixture(scope="module", params=["text", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of a daemon whom everybody visited."""
    with visited_daemon({"log": {"format": request.param}}) as daemon:
        yield daemon.log()


def banned(tmp_path: Path, log: str, options: str = "", prefix: str = "") -> list[str]:
    """Addresses that fail2ban-regex finds in the log."""
    path = tmp_path / "log"
    path.write_text("".join(f"{prefix}{line}\n" for line in log.splitlines()))
    command = [required("fail2ban-regex"), "-o", "row", str(path), f"{FOLDER / 'authmilter.conf'}{options}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [ast.literal_eval(line.strip().rstrip(","))[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_who_was_refused_for_a_named_reason_is_found_and_nobody_else(log: str, prefix: str, tmp_path: Path) -> None:
    assert sorted(banned(tmp_path, log, prefix=prefix)) == sorted([TRAPPED.decode(), REFUSED.decode()])


def test_reasons_can_be_chosen(log: str, tmp_path: Path) -> None:
    assert banned(tmp_path, log, r'[reasons="dmarc_\w+"]') == [FORGER.decode()]


def test_the_reasons_of_the_page_are_taken(log: str, tmp_path: Path) -> None:
    (options,) = re.findall(r"(?m)^ +filter = authmilter(\[reasons=.*\])$", (FOLDER / "README.md").read_text())
    assert sorted(banned(tmp_path, log, options)) == sorted([TRAPPED.decode(), REFUSED.decode()])


def test_the_odd_helo_is_in_the_log_and_harms_nobody(log: str, tmp_path: Path) -> None:
    (line,) = [line for line in log.splitlines() if GOOD.decode() in line and "spamtrap" in line]
    assert banned(tmp_path, line) == []


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_line_within_an_exception_harms_nobody(log: str, formatter: logging.Formatter, tmp_path: Path) -> None:
    (line,) = [line for line in log.splitlines() if REFUSED.decode() in line and "access_reject" in line]
    assert banned(tmp_path, line) == [REFUSED.decode()]
    error = ValueError(f"no number\n{line}\n")
    record = logging.LogRecord("authmilter", logging.ERROR, "", 0, "%s", (line,), (ValueError, error, None))
    assert banned(tmp_path, formatter.format(record)) == []


@pytest.mark.parametrize("form", ["text", "json"])
def test_without_enforce_nobody_is_found(form: str, tmp_path: Path) -> None:
    with visited_daemon({"log": {"format": form}, "policy": {"enforce": "no"}}) as daemon:
        log = daemon.log()
    assert "access_reject" in log
    assert banned(tmp_path, log) == []


def test_the_time_of_a_line_of_json_is_taken_from_it(tmp_path: Path) -> None:
    with visited_daemon({"log": {"format": "json"}}) as daemon:
        (tmp_path / "log").write_text(daemon.log())
    command = [required("fail2ban-regex"), "-o", "row", str(tmp_path / "log"), str(FOLDER / "authmilter.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    times = [ast.literal_eval(line.strip().rstrip(","))[1] for line in done.stdout.splitlines()]
    known = [float(found) for found in re.findall(r'"time": ([\d.]+)', (tmp_path / "log").read_text())]
    assert len(times) == 2
    assert all(any(abs(one - other) < 1.0 for other in known) for one in times)


def test_fail2ban_takes_the_jail(tmp_path: Path) -> None:
    client = Path(required("fail2ban-client"))
    folder = tmp_path / "fail2ban"
    shutil.copytree(client.parents[2] / "etc" / "fail2ban", folder)
    shutil.copy(FOLDER / "authmilter.conf", folder / "filter.d" / "authmilter.conf")
    shutil.copy(FOLDER / "jail.local", folder / "jail.d" / "authmilter.local")
    done = subprocess.run([str(client), "-c", str(folder), "-d"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "['add', 'authmilter', 'systemd']" in said
    assert "_SYSTEMD_UNIT=authmilter.service" in said
    assert "['start', 'authmilter']" in said
