"""The start-up proof that the store is to be had."""

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable
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
