"""The container file, built by buildah on a base of this machine's release of Debian, and what runs in the container.

There is no registry of images: the base is made by mmdebstrap and has the name that FROM names.  The container has no network
but a loopback of its own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authmilter.config import ini
from tests.packaging.machine import require_machine, sources
from tests.rig.sockets import wait_until
from tests.shared import ROOT

FILE = ROOT / "packaging/Containerfile"
INI = ROOT / "packaging/container.ini"
PLUGIN = ROOT / "contrib/nagios/check_authmilter"
DAEMON = b"/usr/lib/authmilter/bin/python\0"

# $1: an empty folder.  What is stored there is in memory and goes with the namespaces.
_HOLD = """
mount -t tmpfs -o size=3g,mode=700 tmpfs "$1"
ip link set lo up
echo ready
exec sleep infinity
"""
# $1: that folder, $2: release, $3: file with its sources, $4: name of the image, $5: configuration of pip.
_BASE = """
cd "$1"
container=$($BUILDAH from scratch)
root=$($BUILDAH mount "$container")
mkdir tmp
TMPDIR=$1/tmp mmdebstrap --mode=root --variant=apt --quiet --skip=cleanup/apt --skip=check/empty \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$2" "$root" "$3"
# From where pip gets its packages here, by the certificates that it trusts here.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/pip-certificates"
printf '%s' "$5" >"$root/etc/pip.conf"
$BUILDAH commit --quiet --rm "$container" "$4"
"""


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", FILE.read_text()))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_what_it_copies_is_in_the_checkout() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists()


def test_it_does_not_run_as_root() -> None:
    last = [index for index, (word, _) in enumerate(instructions()) if word == "FROM"][-1]
    final = instructions()[last:]
    assert ("USER", "authmilter") in final
    assert [word for word, _ in final].index("USER") < [word for word, _ in final].index("ENTRYPOINT")


def test_its_health_check_asks_where_the_daemon_listens() -> None:
    loaded = ini.load_with_origins(str(INI), INI.read_text())
    # Who gets to the container is for the host to say, as the file tells.
    assert [warning for warning in loaded.warnings if "0.0.0.0" not in warning] == []
    port = loaded.config.metrics.listen.rpartition(":")[2]
    (check,) = (rest for word, rest in instructions() if word == "HEALTHCHECK")
    assert f"http://127.0.0.1:{port}/readyz" in check
    (exposed,) = (rest for word, rest in instructions() if word == "EXPOSE")
    assert port in exposed.split()
    assert loaded.config.milter.socket[0].partition("@")[0].removeprefix("inet:") in exposed.split()


class Images:
    """Use it as a context manager: namespaces in which buildah keeps what it makes."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="authmilter-images-"))
        self._buildah = (
            "buildah",
            "--root",
            f"{self._folder}/root",
            "--runroot",
            f"{self._folder}/run",
            "--storage-driver",
            "overlay",
        )
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-euc", _HOLD, "hold", self._folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> "Images":
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        (self._first,) = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()  # and with it all processes of its namespace
        self._holder.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def inside(self, *words: str | Path, network: str = "own") -> list[str]:
        """The command line that runs these words there; `network` is the namespace's own or the one of this machine."""
        net = ["--net"] if network == "own" else []
        return ["nsenter", "--target", self._first, "--mount", "--pid", *net, *map(str, words)]

    def buildah(self, *words: str | Path) -> list[str]:
        """The same of buildah."""
        return self.inside(*self._buildah, *words)

    def make_base(self, name: str) -> None:
        """An image of that name: this machine's release of Debian, as small as apt allows."""
        release, lines = sources()
        listed = self._folder.with_suffix(".list")
        listed.write_text(lines)
        index = os.environ.get("PIP_INDEX_URL")
        pip = "[global]\ncert = /etc/pip-certificates\n" + (f"index-url = {index}\n" if index else "")
        environment = f"BUILDAH={shlex.join(self._buildah)}"
        try:
            words = ("env", environment, "sh", "-euc", _BASE, "base", self._folder, release, listed, name, pip)
            done(self.inside(*words, network="machine"), 180)
        finally:
            listed.unlink()

    def build(self, name: str) -> None:
        """The container file, from this checkout."""
        options = ("--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false", "--jobs=2")
        done(self.inside(*self._buildah, "bud", *options, "-f", FILE, "-t", name, ROOT, network="machine"), 240)

    def daemons(self) -> dict[int, dict[str, str]]:
        """Processes of the daemon: PID on this machine -> what /proc/PID/status tells."""
        ours = os.readlink(f"/proc/{self._first}/ns/pid")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns/pid") == ours and (folder / "cmdline").read_bytes().startswith(DAEMON):
                    lines = (folder / "status").read_text().splitlines()
                    found[int(folder.name)] = {
                        key: value.strip() for key, _, value in (line.partition(":") for line in lines)
                    }
            except OSError:  # it is gone
                continue
        return found


def done(words: list[str], seconds: float) -> str:
    """What the command said; it succeeds."""
    ended = subprocess.run(["nice", *words], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, f"{ended.stdout[-2000:]}{ended.stderr[-6000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    """With the image `authmilter`."""
    require_machine("buildah")
    (base,) = (rest.partition("=")[2] for word, rest in instructions() if word == "ARG")
    with Images() as made:
        made.make_base(f"docker.io/library/{base}")
        made.build("authmilter")
        yield made


@pytest.fixture(scope="module")
def configuration(images: Images) -> dict[str, Any]:
    """What the image tells whoever runs it."""
    read: dict[str, Any] = json.loads(done(images.buildah("inspect", "--type", "image", "localhost/authmilter"), 60))
    config: dict[str, Any] = read["Docker"]["config"]
    return config


class Container:
    """One that runs as podman would run it with --cap-drop=all: entry point and command of the image."""

    def __init__(self, images: Images, config: dict[str, Any]) -> None:
        name = done(images.buildah("from", "--pull-never", "localhost/authmilter"), 60).strip()
        self._run = images.buildah("run", "--isolation", "chroot", "--cap-drop", "all", name, "--")
        kind, *self._check = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        self.health_before = self.health()
        self.process = subprocess.Popen(
            [*self._run, *config["Entrypoint"], *config["Cmd"]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_until(lambda: self.health() == 0, 30, "the health check passes")

    def health(self) -> int:
        """Exit status of the health check; 0 is healthy."""
        return subprocess.run([*self._run, *self._check], capture_output=True, timeout=30).returncode


@pytest.fixture(scope="module")
def container(images: Images, configuration: dict[str, Any]) -> Container:
    """One that is healthy."""
    return Container(images, configuration)


def test_the_health_check_tells_whether_it_runs(container: Container) -> None:
    assert container.health_before != 0
    assert container.health() == 0


def test_its_processes_are_not_those_of_root(images: Images, container: Container) -> None:
    processes = images.daemons()
    assert len(processes) >= 3  # supervisor, exporter, a worker
    for status in processes.values():
        assert status["Uid"].split() == ["8891"] * 4
        assert status["CapEff"] == status["CapPrm"] == "0" * 16


def test_it_answers_a_mail_server(images: Images, container: Container) -> None:
    said = done(images.inside(PLUGIN, "--socket", "inet:8891@127.0.0.1", "--url", "http://127.0.0.1:9797"), 30)
    assert said.startswith("AUTHMILTER OK - milter handshake in ")


def test_the_signal_that_the_image_names_ends_it(
    images: Images, container: Container, configuration: dict[str, Any]
) -> None:
    processes = images.daemons()
    (supervisor,) = (pid for pid, status in processes.items() if int(status["PPid"]) not in processes)
    os.kill(supervisor, signal.Signals[configuration["StopSignal"]])
    assert container.process.wait(40) == 0
    assert images.daemons() == {}
    assert container.health() != 0
