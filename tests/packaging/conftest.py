"""What is built once for all tests of packages."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.machine import RELEASE, Machine, own_release, require_machine
from tests.shared import ROOT

# Whose name has all that means something to sed and to rpm.
BUILDER = {"DEBFULLNAME": "A & B | C", "DEBEMAIL": "packages@example.org"}
MAINTAINER = "A & B | C <packages@example.org>"


def build(kind: str, folder: Path, options: str = "", seconds: float = 240.0) -> list[Path]:
    """`packaging/build KIND`; what it made.  `options` are for rpmbuild."""
    done = subprocess.run(
        ["nice", ROOT / "packaging/build", kind, folder],
        capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, env=os.environ | BUILDER | {"LC_ALL": "C.UTF-8", "RPMBUILD_OPTIONS": options},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-6000:]}"
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def _machine() -> Iterator[Machine]:
    require_machine()
    with Machine() as machine:
        yield machine


@pytest.fixture(scope="session")
def deb(_machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package, built while the machine is being made; for another release on a machine of that release."""
    folder = tmp_path_factory.mktemp("deb")
    if RELEASE in ("", own_release()):
        build("deb", folder)
    else:
        with Machine() as builder:
            builder.wait()
            builder.build_deb(ROOT, folder, BUILDER)
    return next(path for path in folder.iterdir() if path.suffix == ".deb")


@pytest.fixture(scope="session")
def machine(_machine: Machine) -> Machine:
    """A Debian with Postfix, up and running, without authmilter."""
    _machine.wait()
    return _machine
