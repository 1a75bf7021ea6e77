"""A Debian of its own, with systemd as its first process, in namespaces of this machine: packages are installed there.

Its files are in memory, and go with it.  Its network is a loopback of its own; only `Machine.satisfy` reaches out, to where
this machine gets its packages.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.rig.sockets import wait_until

# Another release of Debian than this machine's is tried by hand: AUTHMILTER_TEST_RELEASE=trixie tests/run tests/packaging/test_deb.py
RELEASE = os.environ.get("AUTHMILTER_TEST_RELEASE", "")
TOOLS = ("mmdebstrap", "unshare", "nsenter", "setpriv", "ip")
PACKAGES = "systemd,postfix"

# $1: an empty folder, $2: release, $3: file with its sources, $4: a control group to make.
_MAKE = """
set -eu
mount -t tmpfs -o size=2g,mode=755 tmpfs "$1"
mkdir "$1/tmp" "$1/cgroup"
TMPDIR=$1/tmp mmdebstrap --mode=root --variant=apt --include="$5" --skip=cleanup/apt --quiet \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/authmilter/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "$2" "$1/root" "$3"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$4"
clean_up() { find "$1/cgroup/$4" -depth -type d -exec rmdir {} + ; }
trap 'clean_up "$1" "" "" "$4"' EXIT
# The shell goes into the group, and then becomes the first process of the namespaces.
setpriv --pdeathsig KILL sh -c 'echo 0 >"$1/cgroup/$2/cgroup.procs"
    exec unshare --pid --net --uts --ipc --cgroup --fork --kill-child sh -euc "$3" boot "$1/root"' boot "$1" "$4" "$6" || true
"""

# What systemd asks of a container manager (CONTAINER_INTERFACE).  $1: the root.
_BOOT = """
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : >dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ip link set lo up
ip address add 192.0.2.25/32 dev lo
hostname mx.test
ln -snf /run/resolv.conf etc/resolv.conf
exec env -i container=authmilter-test PATH=/usr/sbin:/usr/bin chroot . /lib/systemd/systemd
"""


def require_machine(*tools: str) -> None:
    """Skip the calling test where no such machine can be made; fail it where AUTHMILTER_REQUIRE_RIG says that it must be.

    `tools` are needed too.
    """
    missing = [tool for tool in (*TOOLS, *tools) if shutil.which(tool) is None]
    reason = ""
    if os.geteuid() != 0:
        reason = "namespaces are made as root only"
    elif missing:
        reason = f"not installed (tests/run installs it): {', '.join(missing)}"
    if reason and os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Machine:
    """Use it as a context manager: it is being made from then on, and `wait` returns when it is up.

    `packages` are those that it begins with, by comma; systemd must be among them.
    """

    def __init__(self, packages: str = PACKAGES) -> None:
        self._packages = packages
        self.folder = Path(tempfile.mkdtemp(prefix="authmilter-machine-"))
        self._log = self.folder.with_suffix(".log")
        self._sources = self.folder.with_suffix(".list")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        release, lines = sources()
        self._sources.write_text(lines)
        group = self.folder.name  # that no other has
        arguments = (self.folder, release, self._sources, group, self._packages, _BOOT)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", _MAKE, "make", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        with contextlib.suppress(OSError, AssertionError):
            os.kill(self._first(), signal.SIGKILL)  # and with it all processes of its namespace
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # it is still being made
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._log.unlink()
        self._sources.unlink()

    def wait(self, seconds: float = 240.0) -> None:
        """Until all services are up."""
        try:
            wait_until(self._booted, seconds, "the machine is up")
        except BaseException as error:
            error.add_note(self._log.read_text("utf-8", "replace")[-4000:])
            raise
        # An answer at once, and no name server.
        self.path("/run/resolv.conf").write_text("nameserver 127.0.0.1\n")

    def run(self, *command: str, status: int | None = 0, text: str = "", seconds: float = 60.0) -> str:
        """What the command says there, as root; its exit status is `status`, unless that is None."""
        return self._run("mpnuirwC", command, status, text, seconds)

    def run_ours(self, *command: str | Path) -> str:
        """The same of a program of this machine, which finds the other's files in `folder`/root."""
        return self._run("mpnui", command, 0, "", 120)

    def satisfy(self, relations: str) -> None:
        """Install what a package depends on, in the words of its Depends: the one command that has a network."""
        options = ("-q", "-y", "-o", "Acquire::Retries=3", "--no-install-recommends")
        self._with_network("DEBIAN_FRONTEND=noninteractive", "apt-get", *options, "satisfy", relations)

    def build_deb(self, source: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """`packaging/build deb` of that checkout, by the Python and the tools of this release; what it made, in `folder`.

        The release's lintian has to find no fault.
        """
        (needed,) = re.findall(r"(?m)^Build-Depends: (.*)$", (source / "packaging/debian/control").read_text())
        self.satisfy(f"build-essential, lintian, {needed}")
        parts = ("authmilter", "contrib", "packaging", "pyproject.toml", "README.md", "LICENSE")
        packed = subprocess.run(["tar", "-C", source, "-c", *parts], capture_output=True, check=True, timeout=60).stdout
        self.path("/tmp/source.tar").write_bytes(packed)
        self.run("sh", "-euc", "mkdir /tmp/source; tar -C /tmp/source -xf /tmp/source.tar")
        # From where pip gets its packages here, by the certificates that it trusts here.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", self.path("/tmp/certificates"))
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        settings = {**pip, "PIP_CERT": "/tmp/certificates", "LC_ALL": "C.UTF-8", **environment}
        words = [f"{name}={value}" for name, value in settings.items()]
        self._with_network(*words, "/tmp/source/packaging/build", "deb", "/tmp/built")
        self.run("sh", "-euc", "lintian --allow-root --fail-on error,warning /tmp/built/*.changes", seconds=240)
        shutil.copytree(self.path("/tmp/built"), folder, dirs_exist_ok=True)

    def path(self, name: str) -> Path:
        """A file of the machine."""
        return Path(f"/proc/{self._first()}/root{name}")

    def files(self) -> set[str]:
        """All that is on its disk."""
        return set(self.run("find", "/", "-xdev", "-path", "/var/cache", "-prune", "-o", "-print").splitlines())

    def show(self, unit: str, property_: str) -> str:
        """What systemd knows of a unit."""
        return self.run("systemctl", "show", "--value", "--property", property_, unit).strip()

    def journal(self, unit: str) -> str:
        """What a unit logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def _with_network(self, *command: str) -> None:
        resolver = self.path("/run/resolv.conf")
        resolver.write_text(Path("/etc/resolv.conf").read_text())
        try:
            self._run("mpuirwC", ("env", *command), 0, "", 240)
        finally:
            resolver.write_text("nameserver 127.0.0.1\n")

    def _run(
        self, namespaces: str, command: Sequence[str | Path], status: int | None, text: str, seconds: float
    ) -> str:
        words = [f"-{letter}" for letter in namespaces]
        done = subprocess.run(
            ["nsenter", "--target", str(self._first()), *words, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command],
            input=text, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        if status is not None and done.returncode != status:
            raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _booted(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError("the machine could not be made")
        try:
            if Path(f"/proc/{self._first()}/comm").read_text() != "systemd\n":
                return False
        except (AssertionError, OSError):
            return False
        return self.run("systemctl", "is-system-running", status=None).strip() in ("running", "degraded")

    def _first(self) -> int:
        """The first process in its namespaces: the child of `unshare`, child of the script."""
        assert self._process is not None
        pid = self._process.pid
        for _ in range(2):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            assert len(children) == 1, "not there yet, or no longer"
            pid = int(children[0])
        (numbers,) = (
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")
        )
        assert numbers.split()[2:] == ["1"], "not there yet"
        return pid


def own_release() -> str:
    """Name of this machine's release of Debian."""
    code = "VERSION_CODENAME="
    (release,) = (
        line[len(code) :] for line in Path("/etc/os-release").read_text().splitlines() if line.startswith(code)
    )
    return release


def sources() -> tuple[str, str]:
    """Name of the release to make, and where this machine gets its packages, for sources.list."""
    own = own_release()
    release = RELEASE or own
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    lines = set()
    for line in listed.splitlines():
        uri, suite, component, signed_by = line.split("|")
        signed = f" [signed-by={signed_by}]" if signed_by.startswith("/") else ""
        lines.add(f"deb{signed} {uri} {suite.replace(own, release)} {component}\n")
    return release, "".join(sorted(lines))
