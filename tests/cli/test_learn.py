"""`authmilter learn`, end to end."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authmilter.checks.classifier import classifier
from authmilter.classifier.table import Table
from authmilter.cli import terminal
from authmilter.cli.__main__ import main
from authmilter.model import Transaction
from tests.checks.tools import computed, tools
from tests.classifier.mail import message, raw
from tests.shared import ROOT

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("ham", "spam"):
        (tmp_path / kind).mkdir()
        for number in range(60):
            (tmp_path / kind / f"{number}.eml").write_bytes(raw(number, kind == "spam"))
    (tmp_path / "am.ini").write_text(
        f"[classifier]\ntable = {tmp_path}/state/table\nminimum_ham = 50\nminimum_spam = 50\nenough_ham = 60\n"
    )
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        status = main(["-c", str(folder / "am.ini"), "learn", *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_learning_both_kinds_makes_the_check_speak(run: Run, folder: Path) -> None:
    assert run("ham", folder / "ham") == (
        0,
        (
            "60 messages read, 60 new\nnot trained: that takes both ham and spam\n"
            "kept: 60 ham, 0 spam; it says nothing before 50 ham and 50 spam\n"
        ),
        "",
    )
    status, out, err = run("spam", folder / "spam")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"60 messages read, 60 new\ntrained in \d+s\nkept: 60 ham, 60 spam\n", out)
    given = tools("classifier", config=(folder / "am.ini").read_text(), now=2e9)
    found = [
        one.symbol
        for number in range(20)
        for one in computed(classifier, Transaction(message=message(number, True, "new")), given)
    ]
    assert set(found) == {"bayes_spam"}
    assert len(found) >= 18


def test_learning_the_same_again_changes_nothing(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()
    assert "60 messages read, 0 new" in run("spam", folder / "spam")[1]
    assert (folder / "state/table").read_bytes() == before


def test_what_is_forgotten_leaves_no_trace(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()
    (folder / "late.eml").write_bytes(raw(1, True, "late"))
    run("spam", folder / "late.eml")
    assert (folder / "state/table").read_bytes() != before
    status, out, _ = run("--forget", folder / "late.eml")
    assert status == 0
    assert "1 message read, 1 forgotten" in out
    assert (folder / "state/table").read_bytes() == before


def test_without_anything_to_tell_apart_there_is_no_table(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    run("--forget", folder / "spam")
    assert not (folder / "state/table").exists()


def test_learned_later(run: Run, folder: Path) -> None:
    run("ham", "--later", folder / "ham")
    assert run("--later", "spam", folder / "spam")[1] == "60 messages read, 60 new\nkept: 60 ham, 60 spam\n"
    assert not (folder / "state/table").exists()
    assert "trained" in run()[1]
    assert Table(folder / "state/table").spam == 60


def test_a_message_can_turn_out_to_be_ham(run: Run, folder: Path) -> None:
    run("--later", "spam", folder / "spam", folder / "ham/1.eml")
    assert "1 message read, 1 new\nkept: 1 ham, 60 spam" in run("--later", "ham", folder / "ham/1.eml")[1]


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        pytest.param(["ham"], 64, "PATH", id="ham of what"),
        pytest.param(["eggs", "x"], 64, "eggs", id="neither ham nor spam"),
        pytest.param(["--forget", "x", "y"], 65, "x: No such file or directory", id="nothing to forget"),
        pytest.param(["--forget", "x", "--later", "ham", "y"], 64, "--forget goes without", id="forget as ham"),
        pytest.param(["ham", "nowhere\x1b[2J"], 65, "nowhere\\x1b[2J: No such file", id="no such path"),
        pytest.param(["ham", "am.ini"], 65, "there is no message", id="no message"),
    ],
)
def test_wrong_words(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    error: str,
) -> None:
    monkeypatch.chdir(folder)
    try:
        got, _, err = run(*words)
    except SystemExit as left:
        got, err = int(left.code or 0), capsys.readouterr().err
    assert got == status
    assert error in err
    assert "\x1b" not in err


def test_a_problem_with_one_path_does_not_stop_the_rest(run: Run, folder: Path) -> None:
    status, out, err = run("ham", "--later", folder / "nowhere", folder / "ham")
    assert status == 1
    assert "60 new" in out
    assert "nowhere: No such file or directory" in err


def test_quiet(run: Run, folder: Path) -> None:
    assert run("ham", "--quiet", folder / "ham") == (0, "", "")


def test_the_oldest_are_dropped(run: Run, folder: Path) -> None:
    ini = folder / "am.ini"
    ini.write_text(ini.read_text() + "keep = 1000\n")
    (folder / "many").mkdir()
    for number in range(1010):
        (folder / "many" / str(number)).write_bytes(raw(number, True, "many"))
    _, out, _ = run("spam", "--later", folder / "many")
    assert "10 dropped, the oldest beyond [classifier] keep" in out
    assert "kept: 0 ham, 1,000 spam" in out


def test_a_place_that_can_not_be_written_to(folder: Path, run: Run) -> None:
    (folder / "state").write_text("a file")
    status, _, err = run("ham", folder / "ham")
    assert status == 69
    assert f"{folder}/state" in err


def test_a_learner_that_is_killed_leaves_what_was_there(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()
    words = [sys.executable, "-m", "authmilter", "-c", str(folder / "am.ini"), "learn", "spam", "-"]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdin is not None
    process.stdin.write(b"From a\n" + raw(1, True, "other") + b"\nFrom a\n")
    process.stdin.flush()
    process.kill()
    process.wait()
    assert (folder / "state/table").read_bytes() == before
    assert "kept: 60 ham, 60 spam" in run("--later")[1]


def test_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(terminal, "REDRAW", 0)
    bar = terminal.Progress(True)
    bar.show(1, 2, "one")
    bar.show(3, 2, "two")
    bar.show(3, 0, "three")
    bar.clear()
    bar.clear()
    half = "#" * 15 + "." * 15
    full = "#" * 30
    assert capsys.readouterr().err == f"\r\033[K[{half}]  50%  one\r\033[K[{full}] 100%  two\r\033[Kthree\r\033[K"
    terminal.Progress(False).show(1, 2, "one")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_what_root_learns_is_the_daemons(folder: Path, run: Run) -> None:
    ini = folder / "am.ini"
    ini.write_text(ini.read_text() + "[milter]\nuser = nobody\n")
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    owner = pwd.getpwnam("nobody").pw_uid
    state = folder / "state"
    assert {path.name: path.stat().st_uid for path in (state, *state.iterdir())} == {
        "state": owner,
        "table": owner,
        "table.learned": owner,
    }
