"""What commands do where their output can't be written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from authmilter.cli.__main__ import VERBS
from tests.rig.sockets import free_port

VERBS_WITH_OUTPUT = {
    "check-config": (),
    "show-config": (),
    "check-message": ("--ip", "192.0.2.1", "--helo", "x", "--mail-from", "", "--rcpt", "a@x.test", "--", "MESSAGE"),
    "status": ("--help",),
    "logs": ("MESSAGE",),
    "learn": ("ham", "MESSAGE"),
    "evaluate": ("--help",),
    "state": ("list", "--help"),
    "backup": ("-",),
    "restore": ("--list", "BACKUP"),
    "manual": (),
    "run": ("--help",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    (folder / "authmilter.ini").write_text(
        f"[store]\nurl = sqlite:{folder}/state/state.db\n[dns]\nnameservers = 127.0.0.1:1\n"
    )
    (folder / "MESSAGE").write_text("From: a@x.test\nSubject: a message\n\nHello\n")
    done = command(folder, "backup", "BACKUP")
    assert done.returncode == 0, done.stderr
    return folder


def command(
    folder: Path, *words: str, output: str = os.devnull, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": unbuffered, "STATE_DIRECTORY": str(folder)
    }  # fmt: skip
    with open(output, "w") as stdout:
        return subprocess.run(
            [sys.executable, "-m", "authmilter.cli", "-c", "authmilter.ini", *words],
            stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=folder, env=environment, text=True, timeout=60,
        )  # fmt: skip


def test_all_verbs_are_tried() -> None:
    assert VERBS_WITH_OUTPUT.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", VERBS_WITH_OUTPUT)
def test_a_full_disk_is_told_in_one_line(folder: Path, verb: str) -> None:
    done = command(folder, verb, *VERBS_WITH_OUTPUT[verb], output="/dev/full")
    assert done.stderr == "authmilter: standard output: No space left on device\n"
    assert done.returncode == 74


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("word", ["--help", "--version", "manual", "check-config"])
def test_so_it_is_for_little_and_for_much(folder: Path, word: str, unbuffered: str) -> None:
    done = command(folder, word, output="/dev/full", unbuffered=unbuffered)
    assert done.stderr == "authmilter: standard output: No space left on device\n"
    assert done.returncode == 74


def test_other_errors_are_not_taken_for_one_of_the_output(folder: Path) -> None:
    done = command(folder, "backup", "/dev/full/x", output="/dev/full")
    assert done.returncode == 69
    assert "standard output" not in done.stderr


def test_output_may_be_closed(folder: Path) -> None:
    shell = f"exec {sys.executable} -m authmilter.cli -c authmilter.ini show-config >&-"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["sh", "-c", shell], stderr=subprocess.PIPE, cwd=folder, env=environment, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("restore -", 65),
        ("logs -", 1),
        ("check-message --ip 192.0.2.1 --helo x --mail-from a@x.test --rcpt b@x.test -- -", 65),
    ],
    ids=["restore", "logs", "check-message"],
)
def test_input_may_be_closed(folder: Path, words: str, status: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m authmilter.cli -c authmilter.ini {words} <&-"],
        capture_output=True, cwd=folder, env=environment, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == status
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["a full disk", "a closed pipe"])
def test_the_daemon_serves_without_its_output(folder: Path, kind: str) -> None:
    if kind == "a full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, stdout = os.pipe()
        os.close(reading)
    file = folder / "daemon.ini"
    file.write_text(
        f"[milter]\nsocket = inet:{free_port()}@127.0.0.1\nworkers = 1\n[metrics]\nlisten = 127.0.0.1:{free_port()}\n"
        "[store]\nurl = memory:\n[dns]\nnameservers = 127.0.0.1:1\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "authmilter.cli", "-c", str(file), "run"],
        stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True,
    ) as daemon:  # fmt: skip
        os.close(stdout)
        assert daemon.stderr is not None
        assert daemon.stderr.readline().startswith("warning: standard output can't be written: ")
        assert daemon.stderr.readline().startswith("info: serving on inet:")
        daemon.send_signal(signal.SIGTERM)
        rest = daemon.stderr.read()
        assert daemon.wait(20) == 0, rest
    assert "Traceback" not in rest
