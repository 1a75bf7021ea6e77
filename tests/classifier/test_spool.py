"""What workers leave for training."""

import multiprocessing
from pathlib import Path

import pytest

from authmilter.classifier import spool
from authmilter.classifier.features import SLOTS
from authmilter.classifier.spool import Lesson, append, drop, is_there, take


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def lesson(number: int, slots: int = 3) -> Lesson:
    return Lesson(number.to_bytes(16, "big"), number % 2 == 0, range(number, number + slots), b"8 octets")


def numbers(path: Path) -> list[int]:
    return [int.from_bytes(one.identity, "big") for one in take(path) or []]


def test_what_is_left_is_taken_until_it_is_dropped(path: Path) -> None:
    assert take(path) is None
    assert not is_there(path)
    append(path, lesson(1))
    append(path, lesson(2))
    assert is_there(path)
    found = take(path)
    assert found is not None
    assert [(one.identity, one.spam, list(one.features), one.origin) for one in found] == [
        (bytes(15) + b"\1", False, [1, 2, 3], b"8 octets"),
        (bytes(15) + b"\2", True, [2, 3, 4], b"8 octets"),
    ]
    append(path, lesson(3))  # comes while the others are trained from
    assert numbers(path) == [1, 2]
    drop(path)
    assert numbers(path) == [3]
    drop(path)
    drop(path)
    assert not is_there(path)


def test_others_can_not_read_it(path: Path) -> None:
    append(path, lesson(1))
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_has_a_largest_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_SIZE", 1000)
    for number in range(100):
        append(path, lesson(number))
    assert path.stat().st_size <= 1000
    assert len(numbers(path)) > 10


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        pytest.param(lambda octets: octets[:-1], 1, id="cut off"),
        pytest.param(lambda octets: octets[:-1] + b"\xff", 1, id="an octet changed"),
        pytest.param(lambda octets: octets + b"\xff" * 500, 2, id="garbage at the end"),
        pytest.param(lambda octets: b"\xff" + octets[1:], 0, id="another version"),
        pytest.param(lambda octets: b"", 0, id="empty"),
    ],
)
def test_what_is_damaged_is_not_learned(path: Path, damage: "object", left: int) -> None:
    append(path, lesson(1))
    append(path, lesson(2))
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    assert numbers(path) == [1, 2][:left]


def test_numbers_that_are_no_features_are_not_learned(path: Path) -> None:
    append(path, Lesson(bytes(16), True, (SLOTS,), b"8 octets"))
    append(path, lesson(2))
    assert numbers(path) == [2]


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        append(path, lesson(1))
    assert (tmp_path / "other").read_bytes() == b"precious"


def _leave(path: Path, first: int) -> None:
    for number in range(first, first + 300):
        append(path, lesson(number, 500))


def test_several_workers_leave_theirs_at_once(path: Path) -> None:
    workers = [multiprocessing.Process(target=_leave, args=(path, 1000 * number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(numbers(path)) == [1000 * number + one for number in range(3) for one in range(300)]
