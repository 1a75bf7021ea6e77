"""What packages install beside the daemon: pages whose links work there, examples, and the plugin."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.shared import ROOT

DOC = "usr/share/doc/authmilter"
PLUGIN = "usr/lib/nagios/plugins/check_authmilter"
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def documentation(folder: Path) -> dict[str, bytes]:
    """What `packaging/documentation.py` installs: path on the machine, without the first slash -> content."""
    subprocess.run([ROOT / "packaging/documentation.py", folder], check=True, timeout=60)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the place of the root of a machine."""
    folder = tmp_path_factory.mktemp("documentation")
    documentation(folder)
    return folder


def test_every_page_and_file_for_administrators_is_there(machine: Path) -> None:
    contrib = {path.relative_to(ROOT / "contrib") for path in (ROOT / "contrib").rglob("*") if path.is_file()}
    pages = {path.name for path in contrib if path.parts[0] == "docs" and path.suffix == ".md"}
    examples = {path.as_posix() for path in contrib if path.parts[0] != "docs" and path.suffix != ".pyc"}
    assert {path.name for path in (machine / DOC / "docs").iterdir()} == pages
    found = {
        path.relative_to(machine / DOC / "examples").as_posix()
        for path in machine.rglob("*")
        if path.is_file() and "examples" in path.parts
    }
    assert found == examples - {"nagios/check_authmilter"}
    assert {"sendmail/authmilter.mc", "fail2ban/authmilter.conf", "zabbix/template_authmilter.yaml"} <= found


def test_links_lead_to_files_that_are_installed(machine: Path) -> None:
    links = 0
    for page in machine.rglob("*.md"):
        for target in LINK.findall(page.read_text("utf-8")):
            if ":" not in target:
                links += 1
                assert (page.parent / target).resolve().is_file(), f"{page.name}: {target}"
    assert links > 40
    # From the first page to the others, and back from a folder to the plugin.
    assert "(docs/README.md)" in (machine / DOC / "README.md").read_text("utf-8")
    assert "(../../../../../lib/nagios/plugins/check_authmilter)" in (
        machine / DOC / "examples/nagios/README.md"
    ).read_text("utf-8")


def test_links_to_what_is_not_installed_become_text(machine: Path) -> None:
    readme, page = (ROOT / "README.md").read_text("utf-8"), (machine / DOC / "README.md").read_text("utf-8")
    assert "[LICENSE](LICENSE)" in readme
    assert "LICENSE](" not in page
    assert "LICENSE" in page
    # Nothing else changes.
    assert re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", page) == re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", readme)


def test_modes_do_not_depend_on_who_builds(machine: Path) -> None:
    modes = {
        path.relative_to(machine).as_posix(): path.stat().st_mode & 0o777
        for path in machine.rglob("*")
        if path.is_file()
    }
    assert modes.pop(PLUGIN) == 0o755
    assert set(modes.values()) == {0o644}
