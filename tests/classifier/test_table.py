"""The file of weights, which workers share and learners replace."""

import errno
import math
import multiprocessing
import os
from pathlib import Path

import pytest

from authmilter.classifier import table
from authmilter.classifier.features import SLOTS
from authmilter.classifier.table import Curve, Shelf, Table, write

CURVE = Curve(0.0, 3.0, 0.0, -3.0)


def make(path: Path, weight: float = 2.0, ham: int = 10) -> None:
    weights = [0.0] * SLOTS
    weights[5] = weight
    weights[SLOTS - 1] = -0.5
    write(path, weights, bias=0.25, curve=CURVE, ham=ham, spam=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t"


def test_what_is_written_is_read(path: Path) -> None:
    make(path)
    read = Table(path)
    assert (read.ham, read.spam, read.bias, read.curve) == (10, 20, 0.25, CURVE)
    assert read.judge({5}).margin == 2.25
    assert read.judge({SLOTS - 1}).margin == -0.25
    margin, known, strength, beyond = read.judge({5, 6, 7, 8})
    assert known == 0.25
    assert margin == pytest.approx((0.25 + 2.0 / math.sqrt(1.35)) * (1 / 1.35) ** 2.5)
    assert strength == pytest.approx(margin / 3)
    assert beyond == 0.0


def test_others_can_not_read_it_and_nothing_is_left_beside_it(path: Path) -> None:
    make(path)
    make(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_writer_leaves_the_old_one(path: Path) -> None:
    make(path)
    with pytest.raises(ValueError, match="weights"):
        write(path, [1.0], bias=0, curve=CURVE, ham=1, spam=1)
    assert Table(path).judge({5}).margin == 2.25
    assert list(path.parent.iterdir()) == [path]


def test_what_a_writer_left_who_was_killed_is_no_hindrance(path: Path) -> None:
    path.with_name(".t.new").write_bytes(b"half")
    make(path)
    assert Table(path).ham == 10
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        make(path, ham=11)
    assert Table(path).ham == 10
    assert list(path.parent.iterdir()) == [path]


def test_who_has_it_open_goes_on_while_it_is_replaced(path: Path) -> None:
    make(path)
    old = Table(path)
    make(path, weight=-4.0)
    assert old.judge({5}).margin == 2.25
    assert Table(path).judge({5}).margin == -3.75


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        pytest.param(lambda raw: b"", "octets", id="empty"),
        pytest.param(lambda raw: raw[:-1], "octets", id="cut off"),
        pytest.param(lambda raw: b"x" + raw[1:], "version", id="something else"),
        pytest.param(lambda raw: raw[:8] + b"\xff" + raw[9:], "version", id="another version"),
        pytest.param(lambda raw: raw[:-9] + b"\x01" + raw[-8:], "damaged", id="an octet changed"),
    ],
)
def test_what_is_no_table_is_not_used(path: Path, octets: "object", words: str) -> None:
    make(path)
    assert callable(octets)
    path.write_bytes(octets(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        Table(path)
    shelf = Shelf()
    assert shelf.current(str(path), 0.0) is None
    assert words in shelf.problem


def test_a_new_table_is_seen_within_a_second(path: Path) -> None:
    shelf = Shelf()
    assert shelf.current(str(path), 100.0) is None
    assert shelf.problem == ""
    make(path)
    assert shelf.current(str(path), 100.5) is None
    first = shelf.current(str(path), 101.0)
    assert first is not None
    assert first.ham == 10
    make(path, ham=11)
    assert shelf.current(str(path), 101.5) is first
    second = shelf.current(str(path), 102.1)
    assert second is not None
    assert second.ham == 11
    assert shelf.current(str(path), 50.0) is second  # a clock that was set back
    path.unlink()
    assert shelf.current(str(path), 200.0) is None
    assert shelf.problem == ""


def test_what_becomes_of_a_table_is_in_the_log_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf = Shelf()
    for moment, octets in enumerate((b"bad", b"bad", b"worse", None, b"bad", b"bad")):
        if octets is None:
            make(path)
        else:
            path.write_bytes(octets)
        for again in (0.0, 2.0):
            shelf.current(str(path), 10.0 * moment + again)
    size = table._SIZE
    assert [record.getMessage() for record in caplog.records] == [
        f"the classifier says nothing: {path}: has 3 octets, not {size}",
        f"the classifier says nothing: {path}: has 5 octets, not {size}",
        f"{path}: learned from 10 ham and 20 spam",
        f"the classifier says nothing: {path}: has 3 octets, not {size}",
    ]


def _judge(path: Path, results: "multiprocessing.Queue[float]") -> None:
    shelf = Shelf()
    for moment in range(300):
        found = shelf.current(str(path), float(moment))
        results.put(found.judge({5}).margin if found else 99.0)


def test_another_process_never_sees_half_a_table(path: Path) -> None:
    make(path, weight=1.0)
    results: multiprocessing.Queue[float] = multiprocessing.Queue()
    reader = multiprocessing.Process(target=_judge, args=(path, results))
    reader.start()
    seen = set()
    for turn in range(300):
        if turn % 15 == 0:
            make(path, weight=[1.0, 3.0][turn // 15 % 2])
        seen.add(results.get(timeout=20))
    reader.join()
    assert seen <= {1.25, 3.25}


@pytest.mark.parametrize("name", ["classifier.table", "classifier.table.learned"])
def test_the_table_of_the_system_is_found_by_who_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    monkeypatch.setenv("STATE_DIRECTORY", str(own))
    monkeypatch.setattr(table, "SYSTEM_DIRECTORY", system)
    assert table.find("/a/b") == Path("/a/b")
    assert table.find("") == own / "classifier.table"
    for folder in (system, own):
        folder.mkdir()
        (folder / name).touch()
        assert table.find("") == folder / "classifier.table"


def test_who_has_no_home_looks_where_the_system_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "home", homeless)
    assert table.find("") == Path("/var/lib/authmilter/classifier.table")
