"""`authmilter learn`, end to end."""

import errno
import json
import os
import pwd
import re
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from authmilter.checks.classifier import classifier
from authmilter.classifier import spool
from authmilter.classifier.features import features
from authmilter.classifier.learned import Learned
from authmilter.classifier.spool import Lesson, identity
from authmilter.classifier.table import Table
from authmilter.cli import learn, terminal
from authmilter.cli.__main__ import main
from authmilter.model import Message, Transaction
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


def weights(folder: Path) -> bytes:
    """What was trained, without the revision that it was trained from."""
    octets = (folder / "state/table").read_bytes()
    return octets[:28] + octets[32:]


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
    assert set(found) - {"bayes_sure"} == {"bayes_spam"}
    assert found.count("bayes_spam") >= 18


def test_learning_the_same_again_changes_nothing(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()
    assert "60 messages read, 0 new" in run("spam", folder / "spam")[1]
    assert (folder / "state/table").read_bytes() == before


def test_what_is_forgotten_leaves_no_trace(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = weights(folder)
    (folder / "late.eml").write_bytes(raw(1, True, "late"))
    run("spam", folder / "late.eml")
    assert weights(folder) != before
    status, out, _ = run("--forget", folder / "late.eml")
    assert status == 0
    assert "1 message read, 1 forgotten" in out
    assert weights(folder) == before


def test_without_anything_to_tell_apart_there_is_no_table(run: Run, folder: Path) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    run("--forget", folder / "spam")
    assert not (folder / "state/table").exists()


def test_learned_later(run: Run, folder: Path) -> None:
    run("ham", "--later", folder / "ham")
    assert (
        run("--later", "spam", folder / "spam")[1]
        == "60 messages read, 60 new\nnot yet trained\nkept: 60 ham, 60 spam\n"
    )
    assert not (folder / "state/table").exists()
    assert "trained" in run()[1]
    assert Table(folder / "state/table").spam == 60


def test_a_message_can_turn_out_to_be_ham(run: Run, folder: Path) -> None:
    run("--later", "spam", folder / "spam", folder / "ham/1.eml")
    assert (
        "1 message read, 1 new\nnot yet trained\nkept: 1 ham, 60 spam" in run("--later", "ham", folder / "ham/1.eml")[1]
    )


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


def test_a_learner_that_is_killed_leaves_what_was_there_and_what_it_has_learned(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()
    words = [sys.executable, "-m", "authmilter", "-c", str(folder / "am.ini"), "learn", "spam", "-"]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdin is not None
    for number in range(3 * learn.BATCH):
        process.stdin.write(b"From a\n" + raw(number, True, "other") + b"\n")
    process.stdin.flush()
    kept = Learned(folder / "state/table.learned")
    deadline = time.monotonic() + 30
    while kept.counts().spam == 60 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert (folder / "state/table").read_bytes() == before
    spam = kept.counts().spam
    assert spam in (60 + learn.BATCH, 60 + 2 * learn.BATCH)  # each is kept as soon as it is full
    status, out, _ = run()
    assert (status, "trained in" in out, f"60 ham, {spam} spam" in out) == (0, True, True)
    assert Table(folder / "state/table").spam == spam


def test_two_who_learn_at_once_lose_nothing(folder: Path) -> None:
    words = [sys.executable, "-m", "authmilter", "-c", str(folder / "am.ini"), "learn"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([*words, kind, folder / kind], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for kind in ("ham", "spam")
    ]
    assert [one.wait(60) for one in both] == [0, 0]
    table = Table(folder / "state/table")
    assert (table.ham, table.spam) == (60, 60)
    assert table.revision == Learned(folder / "state/table.learned").revision()


def test_what_is_known_is_not_looked_at_again(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("ham", "--later", folder / "ham")
    monkeypatch.setattr("authmilter.classifier.features._numbers", lambda message: 1 / 0)
    assert "60 messages read, 0 new" in run("ham", "--later", folder / "ham")[1]


def test_a_message_that_came_another_way_is_the_same(folder: Path, run: Run) -> None:
    run("spam", "--later", folder / "spam")
    (folder / "again.eml").write_bytes(
        b"Return-Path: <a@b>\r\nReceived: by other.example\r\nX-Spam-Status: No\r\n"
        + raw(1, True).replace(b"\n", b"\r\n")
    )
    assert "1 message read, 0 new" in run("spam", "--later", folder / "again.eml")[1]


def test_what_the_daemon_left_is_taken_in_and_can_be_taken_back(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = weights(folder)
    mail = message(1, True, "own")
    spool.append(folder / "state/table.spool", Lesson(identity(mail), True, features(mail), b"8 octets"))
    status, out, _ = run()
    assert status == 0
    assert "1 message that the daemon chose\ntrained in" in out
    assert "kept: 60 ham, 61 spam, 1 of them by the daemon itself" in out
    assert weights(folder) != before
    assert "0 messages read, 1 forgotten\ntrained in" in run("--forget-auto")[1]
    assert weights(folder) == before


def test_as_json(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    status, out, err = run("spam", "--json", folder / "spam", folder / "nowhere", folder / "am.ini")
    report = json.loads(out)
    assert status == 1
    assert "nowhere" in err
    assert report.pop("seconds") > 0
    assert report == {
        "kind": "spam",
        "read": 60,
        "changed": 60,
        "skipped": 1,
        "problems": [f"{folder}/nowhere: No such file or directory"],
        "from_daemon": 0,
        "dropped": 0,
        "outdated": 0,
        "waiting": False,
        "ham": 60,
        "spam": 60,
        "by_itself": 0,
        "lacking": "",
    }


def test_what_an_earlier_version_learned_is_told(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    with sqlite3.connect(folder / "state/table.learned") as base:
        base.execute("PRAGMA user_version = 1")
    assert run()[1].startswith("60 messages that an earlier version learned had to be dropped: learn them again\n")


def test_a_damaged_table_is_made_anew(folder: Path, run: Run) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    whole = (folder / "state/table").read_bytes()
    (folder / "state/table").write_bytes(whole[:-1] + b"\x01")
    assert "60 messages read, 0 new\ntrained in" in run("ham", folder / "ham")[1]
    assert (folder / "state/table").read_bytes() == whole


def test_a_full_disk_is_told_and_the_table_stays(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    before = (folder / "state/table").read_bytes()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (folder / "late.eml").write_bytes(raw(1, True, "late"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        status, _, err = run("spam", folder / "late.eml")
    assert (status, err) == (69, f"authmilter: {folder}/state/table: No space left on device\n")
    assert (folder / "state/table").read_bytes() == before
    assert {path.name for path in (folder / "state").iterdir()} == {"table", "table.learned"}
    assert "0 new\ntrained in" in run("spam", folder / "late.eml")[1]  # what it had learned it still knows


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


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can come to, other than those of pytest."""
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@needs_root
@pytest.mark.parametrize("has_folder", [pytest.param(True, id="that is there"), pytest.param(False, id="not yet made")])
def test_what_root_learns_is_the_daemons(folder: Path, public: Path, has_folder: bool) -> None:
    owner = pwd.getpwnam("nobody")
    state = public / "state"
    ini = folder / "am.ini"
    ini.write_text(f"[milter]\nuser = nobody\n[classifier]\ntable = {state}/table\n")
    if has_folder:
        state.mkdir()
        (state / "table.learned").touch()  # from when the daemon was root
        os.chown(state, owner.pw_uid, owner.pw_gid)
    for kind in ("ham", "spam"):
        assert main(["-c", str(ini), "learn", kind, str(folder / kind)]) == 0
    assert os.geteuid() == 0
    assert {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (state, *state.iterdir())} == {
        "state": (owner.pw_uid, owner.pw_gid),
        "table": (owner.pw_uid, owner.pw_gid),
        "table.learned": (owner.pw_uid, owner.pw_gid),
    }


@needs_root
def test_a_link_of_the_daemons_user_does_not_lead_root_astray(
    folder: Path, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, precious = public / "state", public / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_bytes(b"")
    state.mkdir()
    (state / "table.learned").symlink_to(precious / "file")
    os.chown(state, pwd.getpwnam("nobody").pw_uid, -1)
    (folder / "am.ini").write_text(f"[classifier]\ntable = {state}/table\n")
    assert main(["-c", str(folder / "am.ini"), "learn", "ham", str(folder / "ham")]) == 69
    assert f"{state}/table.learned" in capsys.readouterr().err
    assert (precious / "file").read_bytes() == b""
    assert (precious / "file").stat().st_uid == 0


@needs_root
def test_a_journal_of_the_daemons_user_has_root_delete_nothing(
    folder: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, precious = public / "state", public / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("of root\n")
    state.mkdir()
    os.chown(state, pwd.getpwnam("nobody").pw_uid, -1)
    (folder / "am.ini").write_text(f"[classifier]\ntable = {state}/table\n")
    was_made: list[bytes] = []

    def plant(message: Message) -> bytes:
        """The file is open; now put a journal beside it that is part of a transaction over several files."""
        if not was_made:
            name = str(precious / "file").encode()
            (state / "table.learned-journal").write_bytes(hot_journal(state / "table.learned", name))
            was_made.append(name)
        return identity(message)

    monkeypatch.setattr("authmilter.classifier.learned.identity", plant)
    assert main(["-c", str(folder / "am.ini"), "learn", "ham", "--later", str(folder / "ham")]) in (0, 69)
    assert was_made
    assert (precious / "file").read_text() == "of root\n"


@needs_root
def test_a_folder_of_root_to_which_others_may_write_is_refused(
    folder: Path, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = public / "state"
    state.mkdir()
    state.chmod(0o770)
    (folder / "am.ini").write_text(f"[classifier]\ntable = {state}/table\n")
    assert main(["-c", str(folder / "am.ini"), "learn", "ham", "--later", str(folder / "ham")]) == 69
    assert "others may write to it: chmod go-w" in capsys.readouterr().err
    assert list(state.iterdir()) == []


def hot_journal(database: Path, names: bytes) -> bytes:
    """A journal without pages, which tells SQLite to delete that file in the end (SQLite, "The Rollback Journal")."""
    magic = bytes.fromhex("d9d505f920a163d7")
    page = int.from_bytes(database.read_bytes()[16:18], "big")
    head = magic + struct.pack(">5I", 0, 1, database.stat().st_size // page, 512, page)
    last = struct.pack(">I", 0x40000000 // page + 1) + names + struct.pack(">2I", len(names), sum(names)) + magic
    return head.ljust(512, b"\0") + last


@needs_root
def test_a_state_directory_below_one_of_the_daemon_is_his(folder: Path, public: Path) -> None:
    owner = pwd.getpwnam("nobody")
    os.chown(public, owner.pw_uid, -1)
    (folder / "am.ini").write_text(f"[milter]\nuser = nobody\n[classifier]\ntable = {public}/a/b/table\n")
    assert main(["-c", str(folder / "am.ini"), "learn", "ham", str(folder / "ham")]) == 0
    made = [public / "a", public / "a/b", public / "a/b/table.learned"]
    assert [path.stat().st_uid for path in made] == [owner.pw_uid] * 3


@needs_root
@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_state_directory_below_those_of_root(folder: Path, public: Path, user: str) -> None:
    (folder / "am.ini").write_text(f"[milter]\nuser = {user}\n[classifier]\ntable = {public}/a/b/table\n")
    assert main(["-c", str(folder / "am.ini"), "learn", "ham", str(folder / "ham")]) == 0
    daemon = pwd.getpwnam(user).pw_uid if user else 0
    assert [path.stat().st_uid for path in (public / "a", public / "a/b")] == [0, daemon]


def test_a_disk_that_can_not_be_written_to_is_no_matter_of_permission(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "state").mkdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert run("ham", folder / "ham") == (69, "", f"authmilter: {folder}/state: Read-only file system\n")


@needs_root
def test_the_daemon_can_read_a_table_in_a_folder_of_roots(folder: Path, run: Run) -> None:
    ini = folder / "am.ini"
    (folder / "state").mkdir()
    ini.write_text(ini.read_text() + "[milter]\nuser = nobody\n")
    run("ham", folder / "ham")
    run("spam", folder / "spam")
    assert (folder / "state/table").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert (folder / "state/table.learned").stat().st_uid == 0


@needs_root
def test_who_must_not_learn_is_told_what_to_do(folder: Path, public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (public / "state").mkdir(mode=0o700)
    (public / "am.ini").write_text(f"[classifier]\ntable = {public}/state/table\n")
    with acting_as(pwd.getpwnam("nobody").pw_uid):
        status = main(["-c", str(public / "am.ini"), "learn", "ham", "-"])
    assert status == 69
    assert (
        capsys.readouterr().err
        == f"authmilter: {public}/state: permission denied: run this as root, or as the user of the daemon\n"
    )


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
