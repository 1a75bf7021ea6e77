"""Binding: modes, groups, stale sockets, addresses in use, and what to paste."""

import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authmilter.errors import StartError
from authmilter.server.sockets import Listener, bind_all, mta_lines


def bind(*names: str, mode: int = 0o660, group: str = "") -> list[Listener]:
    return bind_all(names, mode=mode, group=group, backlog=8)


def close(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def test_a_unix_socket_has_its_mode_and_group(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    bound = bind(f"unix:{tmp_path}/s", mode=0o620, group=group)
    status = os.stat(tmp_path / "s")
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o620, os.getegid())
    assert os.listdir(tmp_path) == ["s"]
    close(bound)
    assert os.listdir(tmp_path) == []


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    old = socket.socket(socket.AF_UNIX)
    old.bind(f"{tmp_path}/s")
    old.close()
    bound = bind(f"unix:{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    close(bound)


def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    first = bind(f"unix:{tmp_path}/s")
    with pytest.raises(StartError, match="another process listens there"):
        bind(f"unix:{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
    close(first)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StartError, match="no socket"):
        bind(f"unix:{tmp_path}/s")
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unix:/nonexistent-folder/s", "folder /nonexistent-folder does not exist"),
        ("inet:1@192.0.2.1", "inet:1@192.0.2.1: "),
        ("inet:1@no-such-host.invalid", "inet:1@no-such-host.invalid: "),
    ],
)
def test_errors_name_the_socket(name: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        bind(name)


def test_an_unknown_group_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no group 'no-such-group'"):
        bind(f"unix:{tmp_path}/s", group="no-such-group")
    assert os.listdir(tmp_path) == []


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, if there are any."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_group_of_others_is_an_error_that_says_what_to_do_and_leaves_nothing() -> None:
    group = next(one.gr_name for one in grp.getgrall() if one.gr_gid not in (os.getegid(), *os.getgroups()))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        with as_nobody(), pytest.raises(StartError, match=rf"/s: can't be given to the group {group} .* start as root"):
            bind(f"unix:{folder}/s", group=group)
        assert os.listdir(folder) == []


def test_an_address_in_use_releases_what_was_bound_before(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match="in use"):
            bind(f"unix:{tmp_path}/s", f"inet:{port}@127.0.0.1")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "target"), [("inet:0@127.0.0.1", "127.0.0.1"), ("inet6:0@::1", "::1")])
def test_tcp_is_without_delay(name: str, target: str) -> None:
    bound = bind(name)
    sock = bound[0].sock
    with socket.create_connection((target, sock.getsockname()[1])):
        sock.setblocking(True)
        accepted, _ = sock.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()
    close(bound)


def test_the_lines_to_paste(tmp_path: Path) -> None:
    bound = bind("inet:0@127.0.0.1", "inet6:0@::1", f"unix:{tmp_path}/s")
    ports = [listener.sock.getsockname()[1] for listener in bound[:2]]
    text = mta_lines(bound)
    assert f"    smtpd_milters = inet:127.0.0.1:{ports[0]}, inet:[::1]:{ports[1]}, unix:{tmp_path}/s\n" in text
    assert f"INPUT_MAIL_FILTER(`authmilter', `S=inet:{ports[0]}@127.0.0.1, F=T" in text
    # Both say what is to become of mail meanwhile: it waits.
    assert "    milter_default_action = tempfail\n" in text
    close(bound)
