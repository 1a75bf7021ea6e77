"""`packaging/run` on a machine where it ran before.  That it runs on a bare one as well is proven by hand."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.rig.daemon import Daemon
from tests.shared import ROOT

# tests/run has just made everything ready; anywhere else packaging/setup would install into the .venv of a developer.
pytestmark = pytest.mark.skipif(
    os.environ.get("AUTHMILTER_REQUIRE_RIG") != "1", reason="packaging/run is tried only under tests/run, as root"
)


def git_status() -> str:
    """What git says of the checkout; "" too where this is no clone, or git is not installed."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", "-C", ROOT, "status", "--porcelain"], capture_output=True, text=True).stdout


def test_packaging_run_starts_in_seconds_becomes_the_daemon_and_ends_with_0() -> None:
    before, started = git_status(), time.monotonic()
    with Daemon("inet", {}, [str(ROOT / "packaging" / "run")]) as daemon:
        assert time.monotonic() - started < 15
        assert b"authmilter" in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
        assert f"smtpd_milters = {daemon.address}" in daemon.log()
        assert daemon.http("/readyz")[0] == 200
        assert daemon.stop() == 0
    assert git_status() == before
