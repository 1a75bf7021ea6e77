"""The start-up proof that the store is to be had."""

import os
import pwd
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authmilter.config.option import FilePath
from authmilter.config.schema import Config, Store
from authmilter.errors import ConfigError, StartError
from authmilter.files import load_files
from authmilter.server.state import check_store, make_state_directory, sqlite_path
from authmilter.state_directory import state_directory
from authmilter.store import load_password
from tests.store.servers import RedisServer, free_port, running


def check(options: Store, password: str = "") -> None:
    check_store(options, sqlite_path(options.url), password)


def test_where_state_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    assert state_directory() == tmp_path / "a"
    assert sqlite_path("sqlite:") == tmp_path / "a" / "state.db"
    assert sqlite_path("sqlite:/x/y.db") == Path("/x/y.db")
    assert sqlite_path("memory:") is None
    make_state_directory("sqlite:", "", "")
    check(Store(url="sqlite:"))
    assert (tmp_path / "a" / "state.db").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders for others")
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_missing_folders_are_made_for_the_user_that_the_daemon_becomes(open_folder: Path, umask: int) -> None:
    state = open_folder / "a" / "b" / "c" / "state.db"
    nobody = pwd.getpwnam("nobody")
    before = os.umask(umask)
    try:
        make_state_directory(f"sqlite:{state}", "nobody", "")
    finally:
        os.umask(before)
    folder, above = state.parent.stat(), state.parent.parent.stat()
    assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o750)
    assert (above.st_uid, stat.S_IMODE(above.st_mode)) == (0, 0o755), "root's, and open to him"
    made = subprocess.run(["touch", state], user="nobody", group=nobody.pw_gid, extra_groups=[], check=False)
    assert made.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files to hand on")
def test_what_root_left_is_handed_on_but_for_files_with_another_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    make_state_directory("sqlite:", "nobody", "")
    folder = tmp_path / "state"
    names = ["state.db", "state.db-wal", "other"]
    for name in names:
        (folder / name).write_text("")
    (folder / "state.db-link").symlink_to("/etc/passwd")
    make_state_directory("sqlite:", "nobody", "")
    nobody = pwd.getpwnam("nobody").pw_uid
    assert [(folder / name).stat().st_uid for name in names] == [nobody, nobody, 0]
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (folder / "state.db-journal").hardlink_to(secret)
    with pytest.raises(StartError, match="has another name"):
        make_state_directory("sqlite:", "nobody", "")
    assert secret.stat().st_uid == 0
    assert os.stat("/etc/passwd").st_uid == 0


def test_the_proof_leaves_no_thread_and_no_wake_up_behind(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    try:
        threads = threading.active_count()
        check(Store(url=f"sqlite:{tmp_path}/state.db"))
        check(Store(url="memory:"))
        assert threading.active_count() == threads
        assert signal.set_wakeup_fd(ours.fileno()) == ours.fileno()
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM entry").fetchone() == (2,)


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("precious")


@pytest.mark.parametrize(("make", "words"), [(folder, "unable to open"), (text, "no SQLite database")])
def test_a_file_that_is_not_to_be_had(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "state.db")
    with pytest.raises(StartError, match=words):
        check(Store(url=f"sqlite:{tmp_path}/state.db"))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"none/state\.db: .*No such file"):
        check(Store(url=f"sqlite:{tmp_path}/none/state.db"))


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StartError, match=r"^\[store\] url: redis:127.0.0.1:\d+: .*(refused|connect)"):
        check(Store(url=f"redis://user:hunter2@127.0.0.1:{free_port()}"))


def test_a_server_that_only_listens_is_no_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = Store(url=f"redis://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.2)  # type: ignore[arg-type]
        with pytest.raises(StartError, match=r"no answer within 0.2 s"):
            check(options)


def test_a_server_is_proven_with_its_password(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("hunter2\nsecond line\n")
    with running(RedisServer(tmp_path, "--requirepass", "hunter2")) as server:
        check(Store(url=server.url), load_password(str(secret)))
        check(Store(url=server.url), "hunter2")
        with pytest.raises(StartError, match=r"invalid username-password|(?i:auth)") as caught:
            check(Store(url=server.url), "hunter3")
        assert "hunter" not in str(caught.value)
        secret.chmod(0o640)
        with pytest.raises(ValueError, match="chmod 600"):
            load_password(str(secret))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is no password"), (b"\n", "is no password"), (b"x" * 2000, "is no password"), (b"\xff\n", "is not UTF-8")],
    ids=["empty", "an empty line", "long", "no UTF-8"],
)
def test_files_that_hold_no_password(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_password(str(path))


def test_password_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ValueError, match="no regular file"):
        load_password(str(tmp_path / "fifo"))
    with pytest.raises(ValueError, match="No such file"):
        load_password(str(tmp_path / "none"))
    assert load_password("") == ""


def test_a_password_that_others_can_read_is_a_problem_of_the_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o644)
    config = Config(store=Store(url="redis://127.0.0.1:6379", password_file=FilePath(str(secret))))
    with pytest.raises(ConfigError, match=r"\[store\] password_file: .*chmod 600"):
        load_files(config)
    secret.chmod(0o600)
    assert load_files(config).store_password == "hunter2"
