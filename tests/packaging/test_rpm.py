"""The RPM from its installation to its removal, on the machine of the Debian package: rpm itself runs here, as no Fedora is at hand.

What it requires is not asked for, since rpm does not know what dpkg installed.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authmilter import __version__
from tests.packaging.conftest import MAINTAINER, build
from tests.packaging.machine import RELEASE, Machine, own_release
from tests.packaging.test_documentation import documentation
from tests.shared import ROOT

CONFIGURATION = "/etc/authmilter/authmilter.ini"


def rpm(machine: Machine, *arguments: str | Path) -> str:
    # Debian's own would keep its data base in a home directory.
    return machine.run_ours("rpm", "--dbpath", "/var/lib/rpm", "--root", machine.folder / "root", *arguments)


def change(machine: Machine, *arguments: str | Path) -> None:
    # Debian's own wants to be asked twice.
    rpm(machine, "--force-debian", "--nodeps", *arguments)


def query(package: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["rpm", "-qp", *arguments, package], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RPM, built without regard to what rpm knows of this machine."""
    if RELEASE not in ("", own_release()):
        pytest.skip("rpm runs on this machine, whose Python is not that of the other release")
    (made,) = build("rpm", tmp_path_factory.mktemp("rpm"), options="--nodeps")
    return made


@pytest.fixture(scope="module")
def later(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next release: made by the same spec from the files of the first, of which the configuration is another."""
    folder = tmp_path_factory.mktemp("later")
    root = folder / "root"
    root.mkdir()
    unpack = 'rpm2cpio "$1" | cpio --quiet --extract --make-directories --no-absolute-filenames'
    subprocess.run(["sh", "-euc", unpack, "unpack", package], cwd=root, check=True, timeout=60)
    with (root / CONFIGURATION[1:]).open("a") as file:
        file.write("; of the later release\n")
    source = folder / f"BUILD/authmilter-{__version__}"  # where rpmbuild looks for what is %license
    source.mkdir(parents=True)
    shutil.copy(ROOT / "LICENSE", source)
    spec = folder / "authmilter.spec"
    text = (ROOT / "packaging/authmilter.spec").read_text()
    assert text.count("\nRelease:        1\n") == 1
    spec.write_text(text.replace("\nRelease:        1\n", "\nRelease:        2\n"))
    done = subprocess.run(
        ["rpmbuild", "-bb", "--short-circuit", "--nodeps", "--buildroot", root, "--define", f"_topdir {folder}",
         "--define", f"version_of_source {__version__}", spec],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (made,) = folder.glob("RPMS/*/*.rpm")
    return made


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Iterator[Machine]:
    """Installed and started; what the packages of Debian would be, it gets from Debian."""
    machine.satisfy("python3, libmilter1.0.1 | libmilter1.0.1t64")
    change(machine, "--install", package)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "authmilter")
    yield machine
    if machine.path("/usr/lib/authmilter/bin").exists():
        change(machine, "--erase", "authmilter")


def test_it_serves_once_it_is_started(installed: Machine) -> None:
    assert installed.show("authmilter", "ActiveState") == "active"
    assert "no problems" in installed.run("authmilter", "check-config")
    assert "User=authmilter" in installed.run("systemctl", "show", "--property=User", "authmilter")


def test_it_asks_for_the_python_that_it_was_built_for(package: Path) -> None:
    required = query(package, "--requires")
    assert [one for one in required if one.startswith("python(abi) = 3.")]
    assert [one for one in required if one.startswith("libmilter.so")]


def test_who_built_it_answers_for_it(package: Path) -> None:
    assert query(package, "--queryformat", "%{PACKAGER}") == [MAINTAINER]


def test_pages_examples_and_the_plugin_are_where_they_are_in_the_debian_package(package: Path, tmp_path: Path) -> None:
    expected = {f"/{name}" for name in documentation(tmp_path)}
    assert expected <= set(query(package, "--list"))
    assert {name for name in expected if "/share/doc/" in name} <= set(query(package, "--docfiles"))


def test_the_plugin_for_nagios_runs_from_both_places(installed: Machine) -> None:
    for folder in ("/usr/lib", "/usr/lib64"):
        plugin = f"{folder}/nagios/plugins/check_authmilter"
        # No name server answers there, which the daemon may have noticed.
        told = installed.run(plugin, "--url", "http://127.0.0.1:9797", status=None)
        assert told.startswith("AUTHMILTER ")
        assert "'workers'=" in told


def test_an_upgrade_and_the_removal_keep_a_changed_configuration(installed: Machine, later: Path) -> None:
    with installed.path(CONFIGURATION).open("a") as file:
        file.write("[identity]\nlocal_domains = mx.test\n")
    installed.path("/var/lib/authmilter/kept").write_text("state")
    earlier = installed.show("authmilter", "MainPID")
    change(installed, "--upgrade", later)
    assert rpm(installed, "--query", "--queryformat", "%{RELEASE} ", "authmilter").split() == ["2"]
    assert "local_domains" in installed.path(CONFIGURATION).read_text()
    assert "of the later release" in installed.path(f"{CONFIGURATION}.rpmnew").read_text()
    assert installed.path("/var/lib/authmilter/kept").read_text() == "state"
    assert installed.show("authmilter", "ActiveState") == "active"
    assert installed.show("authmilter", "MainPID") not in ("0", earlier)
    change(installed, "--erase", "authmilter")
    assert "local_domains" in installed.path(f"{CONFIGURATION}.rpmsave").read_text()
    assert installed.run("systemctl", "is-active", "authmilter", status=None).strip() != "active"
    assert [
        path for path in installed.files() if path.startswith("/usr/") and ("authmilter" in path or "nagios" in path)
    ] == []


def test_rpmlint_finds_no_fault_with_the_spec() -> None:
    done = subprocess.run(["rpmlint", ROOT / "packaging/authmilter.spec"], capture_output=True, text=True, timeout=60)
    # /usr/lib is meant where it stands: an environment of Python, whatever the width of the machine's words.
    known = ("hardcoded-library-path", "invalid-url Source0", "no-buildroot-tag")
    faults = [line for line in done.stdout.splitlines() if ": E: " in line or ": W: " in line]
    assert faults
    assert [line for line in faults if not any(word in line for word in known)] == []
