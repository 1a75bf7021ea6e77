"""`packaging/setup` on a machine where nothing is installed: apt and dpkg are stand-ins, and files of the machine a copy."""

import os
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


def test_what_a_package_serves_starts_neither_now_nor_at_the_next_boot(checkout: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    if shutil.which("systemctl") is None:
        pytest.skip("no systemctl, without which no service is started")
    programs, state, copy = tmp_path / "bin", tmp_path / "state", tmp_path / "copy"
    state.mkdir()
    copy.mkdir()
    program(programs / "apt-get", _APT)
    program(programs / "dpkg-query", _DPKG)
    script = f'set -eu\n{_COPY}\n"$2/packaging/setup" run\n{_STATE}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "setup", copy, checkout],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "STATE": str(state)},
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["enabled", "disabled"]), done.stderr
    assert (state / "installed").exists()
    assert not (state / "started").exists()
