"""Wheel, sdist and what packages are made with."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import authmilter
from tests.packaging.conftest import build
from tests.shared import ROOT

PACKAGING = ROOT / "packaging"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Suffix -> file."""
    return {path.suffix: path for path in build("wheel", tmp_path_factory.mktemp("wheel"))}


def test_the_sdist_has_all_that_the_wheel_is_made_of(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel, tarfile.open(built[".gz"]) as sdist:
        inside = {name for name in wheel.namelist() if name.startswith("authmilter/")}
        source = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"authmilter/py.typed", "authmilter/confusables.LICENSE", "authmilter/cli/__main__.py"} <= inside
    assert inside <= source
    assert {"LICENSE", "README.md"} <= source
    assert not [name for name in inside if name.startswith("tests")]


def test_the_wheel_runs(built: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        wheel.extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import authmilter; from authmilter.cli.__main__ import main; "
        f"assert authmilter.__file__.startswith({str(tmp_path)!r}); sys.exit(main(['show-config', '--defaults']))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "[milter]" in done.stdout


def test_all_that_authmilter_needs_is_named_with_its_version() -> None:
    lines = [line for line in (PACKAGING / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    named = {canonical(line.partition("==")[0]) for line in lines}
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {canonical(re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0]) for one in project["dependencies"]}
    assert len(needed) > 10
    assert needed - named == set()


def test_the_packages_are_of_this_version() -> None:
    first = (PACKAGING / "debian/changelog").read_text().partition("\n")[0]
    assert first.startswith(f"authmilter ({authmilter.__version__}-")


@pytest.fixture(scope="module")
def files(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of the Debian package."""
    folder = tmp_path_factory.mktemp("files")
    subprocess.run(["dpkg-deb", "--extract", deb, folder], check=True, timeout=60)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bill(files: Path) -> dict[str, Any]:
    """The bill of materials of the Debian package."""
    read: dict[str, Any] = json.loads((files / "usr/share/doc/authmilter/sbom.cdx.json").read_text())
    return read


def test_the_bill_of_materials_lists_what_is_in_the_package(bill: dict[str, Any]) -> None:
    versions = {canonical(one["name"]): one["version"] for one in bill["components"]}
    for line in (PACKAGING / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        if not line.startswith("#") and name != "async-timeout":  # which only Python before 3.11.3 needs
            assert versions[name] == version
    assert versions["openssl"].startswith(("3.", "4."))
    assert bill["metadata"]["component"]["version"] == authmilter.__version__
    assert bill["metadata"]["timestamp"].startswith("20")


def test_the_bill_of_materials_is_what_pip_finds_in_the_environment(bill: dict[str, Any], files: Path) -> None:
    (packages,) = files.glob("usr/lib/authmilter/lib/python3*/site-packages")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--disable-pip-version-check", "--path", packages, "--format=json"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = {(canonical(one["name"]), one["version"]) for one in json.loads(done.stdout)}
    listed = [bill["metadata"]["component"], *bill["components"]]
    assert found == {(canonical(one["name"]), one["version"]) for one in listed if one["purl"].startswith("pkg:pypi/")}


def test_every_reference_of_the_bill_leads_somewhere(bill: dict[str, Any]) -> None:
    references = {one["bom-ref"] for one in (bill["metadata"]["component"], *bill["components"])}
    assert len(references) == len(bill["components"]) + 1
    for entry in bill["dependencies"]:
        assert {entry["ref"], *entry["dependsOn"]} <= references
    (ours,) = (entry for entry in bill["dependencies"] if entry["ref"].startswith("pkg:pypi/authmilter@"))
    assert len(ours["dependsOn"]) >= 10
    assert [
        one["name"] for one in bill["components"] if one["purl"].startswith("pkg:pypi/") and "licenses" not in one
    ] == []
