"""The page for Sendmail: its change to the configuration works."""

import subprocess
from pathlib import Path

from authmilter.config import ini
from tests.contrib.fences import DOCS, of_kind
from tests.shared import ROOT

PAGE = DOCS / "start-sendmail.md"


def test_the_socket_is_changed_in_the_configuration_of_the_package(tmp_path: Path) -> None:
    file = tmp_path / "authmilter.ini"
    file.write_text((ROOT / "packaging/authmilter.ini").read_text())
    assert ini.load(str(file), check_files=False).milter.socket != ("unix:/run/authmilter/authmilter.sock",)
    subprocess.run(
        ["sh", "-euc", of_kind(PAGE, "sh socket").replace("/etc/authmilter/authmilter.ini", str(file))],
        check=True, timeout=30,
    )  # fmt: skip
    loaded = ini.load_with_origins(str(file), check_files=False)
    assert loaded.warnings == ()
    assert "/run/authmilter/authmilter.sock" in str(loaded.config.milter.socket)
    assert "spool" not in str(loaded.config.milter.socket)
    assert not loaded.config.policy.enforce
