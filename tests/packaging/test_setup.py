"""`packaging/setup` on a machine where nothing is installed: apt and dpkg are stand-ins, and files of the machine a copy."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.shared import ROOT

# What the package brings, in folders of which the script sees a copy.  $1: a folder for what it changes there.
_COPY = """
mount -t tmpfs tmpfs "$1"
for folder in /usr/sbin /etc/systemd; do
    mkdir -p "$1/upper$folder" "$1/work$folder"
    mount -t overlay -o "lowerdir=$folder,upperdir=$1/upper$folder,workdir=$1/work$folder" overlay "$folder"
done
rm -f /usr/sbin/policy-rc.d
printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/already.service
systemctl --root=/ --quiet enable already.service
"""
_STATE = """
systemctl --root=/ is-enabled already.service brought.service || true
[ ! -e /usr/sbin/policy-rc.d ] || echo policy
"""
# An installation that starts what it may, as the scripts of packages do.
_APT = """#!/bin/sh
case " $* " in *" install "*)
    echo "$*" >"$STATE/asked"
    cp /etc/systemd/system/already.service /etc/systemd/system/brought.service
    systemctl --root=/ --quiet enable brought.service
    /usr/sbin/policy-rc.d brought start && touch "$STATE/started"
    touch "$STATE/installed" ;;
esac
"""
_DPKG = '#!/bin/sh\n[ ! -e "$STATE/installed" ] || printf installed\n'


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script, beside an environment in which nothing is left to do."""
    tree = tmp_path / "checkout"
    (tree / "packaging").mkdir(parents=True)
    shutil.copy(ROOT / "packaging/setup", tree / "packaging")
    (tree / "pyproject.toml").touch()
    for name in ("python", "authmilter"):
        program(tree / ".venv/bin" / name, "#!/bin/sh\n")
    program(tree / ".venv/bin/pip", f"#!{tree}/.venv/bin/python\n")
    return tree


def set_up(checkout: Path, folder: Path, purpose: str) -> tuple[list[str], Path]:
    """What it leaves of services that start, and the folder of what the stand-ins noted."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    if shutil.which("systemctl") is None:
        pytest.skip("no systemctl, without which no service is started")
    programs, state, copy = folder / "bin", folder / "state", folder / "copy"
    state.mkdir()
    copy.mkdir()
    (folder / "cache/authmilter/mta/usr/share/doc/exim4-daemon-heavy").mkdir(
        parents=True
    )  # Sendmail and Exim are there
    program(programs / "apt-get", _APT)
    program(programs / "debconf-set-selections", "#!/bin/sh\n")
    program(programs / "dpkg-query", _DPKG)
    script = f'set -eu\n{_COPY}\n"$2/packaging/setup" "$3"\n{_STATE}'
    changed = {"PATH": f"{programs}:{os.environ['PATH']}", "STATE": str(state), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "setup", copy, checkout, purpose],
        env=os.environ | changed,
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), state


def test_what_a_package_serves_starts_neither_now_nor_at_the_next_boot(checkout: Path, tmp_path: Path) -> None:
    services, state = set_up(checkout, tmp_path, "run")
    assert services == ["enabled", "disabled"]
    assert (state / "asked").exists()
    assert not (state / "started").exists()


def test_what_builds_the_debian_package_is_installed_for_the_tests(checkout: Path, tmp_path: Path) -> None:
    _, state = set_up(checkout, tmp_path, "tests")
    asked = set((state / "asked").read_text().split())
    (needed,) = re.findall(r"(?m)^Build-Depends: (.*)$", (ROOT / "packaging/debian/control").read_text())
    # debhelper-compat is a virtual package of debhelper; dpkg-buildpackage asks for build-essential by itself.
    assert {one.split()[0].removesuffix("-compat") for one in needed.split(", ")} | {"build-essential"} <= asked
