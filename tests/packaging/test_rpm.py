"""The RPM from its installation to its removal, on the machine of the Debian package: rpm itself runs here, as no Fedora is at hand.

What it requires is not asked for, since rpm does not know what dpkg installed.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.conftest import build
from tests.packaging.machine import Machine
from tests.shared import ROOT

CONFIGURATION = "/etc/authmilter/authmilter.ini"


def rpm(machine: Machine, *arguments: str | Path) -> None:
    # Debian's own wants to be asked twice, and would keep its data base in a home directory.
    options = ("--force-debian", "--nodeps", "--dbpath", "/var/lib/rpm", "--root", machine.folder / "root")
    machine.run_ours("rpm", *options, *arguments)


def query(package: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["rpm", "-qp", *arguments, package], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RPM, built without regard to what rpm knows of this machine."""
    (made,) = build("rpm", tmp_path_factory.mktemp("rpm"), options="--nodeps")
    return made


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Iterator[Machine]:
    """Installed and started; what the packages of Debian would be, it gets from Debian."""
    machine.satisfy("python3, libmilter1.0.1 | libmilter1.0.1t64")
    rpm(machine, "--install", package)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "authmilter")
    yield machine
    if machine.path("/usr/lib/authmilter/bin").exists():
        rpm(machine, "--erase", "authmilter")


def test_it_serves_once_it_is_started(installed: Machine) -> None:
    assert installed.show("authmilter", "ActiveState") == "active"
    assert "no problems" in installed.run("authmilter", "check-config")
    assert "User=authmilter" in installed.run("systemctl", "show", "--property=User", "authmilter")


def test_it_asks_for_the_python_that_it_was_built_for(package: Path) -> None:
    required = query(package, "--requires")
    assert [one for one in required if one.startswith("python(abi) = 3.")]
    assert [one for one in required if one.startswith("libmilter.so")]


def test_a_second_installation_and_the_removal_keep_a_changed_configuration(installed: Machine, package: Path) -> None:
    with installed.path(CONFIGURATION).open("a") as file:
        file.write("[identity]\nlocal_domains = mx.test\n")
    rpm(installed, "--upgrade", "--replacepkgs", package)
    assert "local_domains" in installed.path(CONFIGURATION).read_text()
    installed.run("systemctl", "is-active", "authmilter")
    rpm(installed, "--erase", "authmilter")
    assert "local_domains" in installed.path(f"{CONFIGURATION}.rpmsave").read_text()
    assert installed.run("systemctl", "is-active", "authmilter", status=None).strip() != "active"
    assert [path for path in installed.files() if path.startswith("/usr/") and "authmilter" in path] == []


def test_rpmlint_finds_no_fault_with_the_spec() -> None:
    done = subprocess.run(["rpmlint", ROOT / "packaging/authmilter.spec"], capture_output=True, text=True, timeout=60)
    # /usr/lib is meant where it stands: an environment of Python, whatever the width of the machine's words.
    known = ("hardcoded-library-path", "invalid-url Source0", "no-buildroot-tag")
    faults = [line for line in done.stdout.splitlines() if ": E: " in line or ": W: " in line]
    assert faults
    assert [line for line in faults if not any(word in line for word in known)] == []
