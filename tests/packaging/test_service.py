"""The service unit, as systemd itself judges it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shared import ROOT

UNIT = ROOT / "packaging/authmilter.service"
EXPOSURE = 20  # tenths

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and os.environ.get("AUTHMILTER_REQUIRE_RIG") != "1",
    reason="systemd-analyze is not installed (tests/run installs it)",
)


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # The command that it starts need not be on this machine.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/authmilter", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_exposure_of_the_service_is_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", UNIT],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]
    assert "Overall exposure level" in done.stdout
