"""What was learned is kept as numbers, once per message, and can be forgotten."""

import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authmilter.classifier import learned as module
from authmilter.classifier.features import features
from authmilter.classifier.learned import Learned, Lesson, identity
from authmilter.errors import StoreError
from authmilter.stored_mail import message_of
from tests.classifier.mail import message, raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l"


@pytest.fixture
def learned(path: Path) -> Learned:
    return Learned(path)


def ham(name: bytes, *slots: int) -> Lesson:
    return Lesson(name, False, slots or (1,))


def spam(name: bytes, *slots: int) -> Lesson:
    return Lesson(name, True, slots or (1,))


def own(name: bytes, origin: bytes = b"sender", is_spam: bool = True) -> Lesson:
    return Lesson(name, is_spam, (1,), origin)


def kept(learned: Learned) -> list[tuple[list[int], bool]]:
    return [(list(one.features), one.spam) for one in learned.snapshot().examples]


def test_a_message_is_kept_once(learned: Learned) -> None:
    assert learned.add([spam(b"1", 3, 1)]) == 1
    assert learned.add([spam(b"1", 3, 1), spam(b"2", 5), spam(b"2", 5)]) == 1
    assert learned.counts() == (0, 2, 0)
    assert kept(learned) == [([1, 3], True), ([5], True)]


def test_it_can_be_learned_as_the_other_kind(learned: Learned) -> None:
    learned.add([spam(b"1")])
    assert learned.kind(b"1") is True
    assert learned.add([ham(b"1")]) == 1
    assert learned.kind(b"1") is False
    assert learned.counts() == (1, 0, 0)


def test_it_can_be_forgotten(learned: Learned) -> None:
    learned.add([spam(b"1")])
    assert learned.forget([b"1", b"2"]) == 1
    assert learned.forget([b"1"]) == 0
    assert learned.kind(b"1") is None
    assert learned.counts() == (0, 0, 0)


def test_the_oldest_are_dropped(learned: Learned) -> None:
    for number in range(5):
        learned.add([ham(bytes([number]), number)])
    learned.add([spam(b"s", 9)])
    assert learned.trim(3) == 2
    assert learned.trim(3) == 0
    assert learned.counts() == (3, 1, 0)
    assert sorted(slot for slots, _ in kept(learned) for slot in slots) == [2, 3, 4, 9]


def test_what_a_person_learned_outlives_what_the_daemon_did(learned: Learned) -> None:
    learned.add([spam(b"old", 1)])
    learned.add_by_itself([own(b"new")], daily=9, of_origin=9)
    assert learned.trim(1) == 1
    assert learned.kind(b"old") is True


def test_a_revision_changes_with_what_is_kept_and_with_nothing_else(learned: Learned, path: Path) -> None:
    revisions = [learned.revision()]
    changes: list[Callable[[], int]] = [
        lambda: learned.add([spam(b"1"), ham(b"2")]),
        lambda: learned.add([ham(b"1")]),
        lambda: learned.add_by_itself([own(b"3")], daily=9, of_origin=9),
        lambda: learned.trim(1),
        lambda: learned.forget([b"1", b"2"]),
    ]
    for change in changes:
        assert change()
        assert learned.revision() not in revisions
        revisions.append(learned.revision())
    assert not learned.forget([b"none"])
    assert not learned.trim(9)
    assert not learned.add([])
    assert Learned(path).revision() == revisions[-1]
    assert learned.snapshot().revision == revisions[-1]


def test_files_made_anew_do_not_have_the_revisions_of_those_before(tmp_path: Path) -> None:
    assert len({Learned(tmp_path / str(number)).revision() for number in range(5)}) == 5


def test_a_change_is_made_whole_or_not_at_all(learned: Learned) -> None:
    learned.add([spam(b"1")])
    before = learned.revision()

    def broken() -> Iterator[Lesson]:
        yield spam(b"2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned.add(broken())
    assert (learned.counts(), learned.revision()) == ((0, 1, 0), before)
    assert learned.add([spam(b"2")]) == 1


def test_a_full_disk_loses_nothing_that_was_there(path: Path) -> None:
    learned = Learned(path)
    learned.add([spam(b"1")])
    learned._base.execute("PRAGMA max_page_count = 8")  # stands for a disk that is full
    with pytest.raises(StoreError, match="full"):
        learned.add([Lesson(bytes([number]), True, array("I", range(1000))) for number in range(100)])
    assert learned.counts() == (0, 1, 0)
    assert learned.forget([b"1"]) == 1


def test_a_second_learner_waits_for_the_first_no_longer_than_it_writes(learned: Learned, path: Path) -> None:
    found = []

    def second() -> None:
        other = Learned(path)
        found.append(other.add([spam(b"2")]))
        other.close()

    thread = threading.Thread(target=second)
    with learned.held():
        thread.start()
        time.sleep(0.3)
        assert not found
    thread.join(20)
    assert found == [1]
    learned.snapshot()  # and who reads holds up nobody once he has read
    assert Learned(path).add([spam(b"3")]) == 1


def test_another_who_writes_for_too_long_is_an_error(
    learned: Learned, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    other = Learned(path)
    with learned.held(), pytest.raises(StoreError, match="locked"):
        other.add([spam(b"1")])


def test_features_of_another_version_are_dropped(learned: Learned, path: Path) -> None:
    learned.add([spam(b"1")])
    learned.close()
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 4711")
    again = Learned(path)
    assert again.outdated == 1
    assert again.counts() == (0, 0, 0)
    assert Learned(path).outdated == 0


def test_no_text_of_a_message_is_kept_and_only_the_owner_can_read(learned: Learned, path: Path) -> None:
    mail = message(1, True)
    learned.add([Lesson(identity(mail), True, features(mail))])
    learned.close()
    assert path.stat().st_mode & 0o777 == 0o600
    octets = path.read_bytes().lower()
    words = [word.lower() for word in raw(1, True).split() if len(word) > 5]
    assert len(words) > 10
    assert not [word for word in words if word in octets]


@pytest.mark.parametrize("size", [10, 4000, 100_000])
def test_a_file_that_is_something_else_is_an_error(path: Path, size: int) -> None:
    path.write_bytes(b"something else" * size)
    with pytest.raises(StoreError, match="database"):
        Learned(path)


def test_a_damaged_file_is_an_error(learned: Learned, path: Path) -> None:
    learned.add([Lesson(bytes([number]), True, array("I", range(1000))) for number in range(50)])
    learned.close()
    octets = path.read_bytes()
    path.write_bytes(octets[:8192] + b"\xff" * (len(octets) - 8192))
    with pytest.raises(StoreError):
        Learned(path).snapshot()


# -- what the daemon learns by itself -----------------------------------------------------------------------------------


def test_of_one_sender_only_so_much_is_learned_in_a_day(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = [own(bytes([number])) for number in range(50)]
    assert learned.add_by_itself(flood, daily=9, of_origin=2) == 2
    assert learned.add_by_itself([own(b"ham", is_spam=False)], daily=9, of_origin=2) == 1
    many = [own(bytes([number, 1]), bytes([number])) for number in range(50)]
    assert learned.add_by_itself(many, daily=9, of_origin=2) == 7
    assert learned.counts() == (1, 9, 10)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86401)
    assert learned.add_by_itself([own(bytes([number])) for number in range(2, 50)], daily=9, of_origin=2) == 2


def test_a_flood_of_lessons_is_not_counted_anew_for_each(learned: Learned) -> None:
    statements: list[str] = []
    learned._base.set_trace_callback(statements.append)
    learned.add_by_itself([own(bytes([number])) for number in range(50)], daily=9, of_origin=2)
    assert sum(one.startswith("INSERT") for one in statements) == 2
    assert sum(one.startswith("SELECT") for one in statements) == 1


def test_what_a_person_learned_prevails(learned: Learned) -> None:
    learned.add([ham(b"1")])
    assert learned.add_by_itself([own(b"1")], daily=9, of_origin=9) == 0
    assert learned.kind(b"1") is False
    learned.add_by_itself([own(b"2")], daily=9, of_origin=9)
    assert learned.kind(b"2") is None  # no person did
    assert learned.add([spam(b"2")]) == 1
    assert learned.counts() == (1, 1, 0)


def test_all_of_it_can_be_taken_back(learned: Learned) -> None:
    learned.add([ham(b"1")])
    learned.add_by_itself([own(b"2"), own(b"3")], daily=9, of_origin=9)
    assert learned.forget_by_itself() == 2
    assert learned.counts() == (1, 0, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n", True, id="line ends of either kind"),
        pytest.param(b"A: b\n\nx", b"A: b\n\nx\n\n", True, id="empty lines at the end"),
        pytest.param(b"A: b\n\nx", b"Received: c\nA: b\n\nx", True, id="what the receiver put above"),
        pytest.param(b"A: b\n\nx", b"A: b\n\ny", False, id="another body"),
        pytest.param(b"A: b\n\n" + b"x" * 65536, b"A: b\n\n" + b"x" * 65536 + b"y", True, id="a long one that was cut"),
        pytest.param(b"Message-ID: <1>\n\nx", b"Message-ID: <2>\n\nx", False, id="another Message-ID"),
    ],
)
def test_which_messages_are_the_same(one: bytes, other: bytes, same: bool) -> None:
    first, second = message_of(one), message_of(other)
    assert first is not None
    assert second is not None
    assert (identity(first) == identity(second)) is same
