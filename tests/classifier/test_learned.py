"""What was learned is kept as numbers, once per message, and can be forgotten."""

import sqlite3
import threading
from pathlib import Path

import pytest

from authmilter.classifier.features import features
from authmilter.classifier.learned import Learned, identity
from authmilter.classifier.training import Example
from authmilter.errors import StoreError
from authmilter.stored_mail import message_of
from tests.classifier.mail import message, raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "l"


def opened(path: Path) -> Learned:
    learned = Learned(path)
    learned.begin()
    return learned


def test_a_message_is_kept_once(path: Path) -> None:
    learned = opened(path)
    assert learned.add(b"1", True, {3, 1})
    assert not learned.add(b"1", True, {3, 1})
    assert learned.counts() == (0, 1)
    assert [(list(one.features), one.spam) for one in learned.examples()] == [([1, 3], True)]


def test_it_can_be_learned_as_the_other_kind(path: Path) -> None:
    learned = opened(path)
    learned.add(b"1", True, {1})
    assert learned.add(b"1", False, {1})
    assert learned.counts() == (1, 0)


def test_it_can_be_forgotten(path: Path) -> None:
    learned = opened(path)
    learned.add(b"1", True, {1})
    assert learned.forget(b"1")
    assert not learned.forget(b"1")
    assert learned.counts() == (0, 0)


def test_the_oldest_are_dropped(path: Path) -> None:
    learned = opened(path)
    for number in range(5):
        learned.add(bytes([number]), False, {number})
    learned.add(b"s", True, {9})
    assert learned.trim(3) == 2
    assert learned.counts() == (3, 1)
    assert sorted(slot for one in learned.examples() for slot in one.features) == [2, 3, 4, 9]


def test_what_is_not_committed_was_never_there(path: Path) -> None:
    learned = opened(path)
    learned.add(b"1", True, {1})
    learned.commit()
    learned.begin()
    learned.add(b"2", True, {2})
    learned.close()
    assert opened(path).counts() == (0, 1)


def test_a_second_learner_waits_for_the_first(path: Path) -> None:
    first = opened(path)
    first.add(b"1", True, {1})
    counts = []

    def second() -> None:
        other = opened(path)
        other.add(b"2", True, {2})
        counts.append(other.counts())
        other.commit()
        other.close()

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    first.commit()
    thread.join(20)
    assert counts == [(0, 2)]


def test_features_of_another_version_are_dropped(path: Path) -> None:
    learned = opened(path)
    learned.add(b"1", True, {1})
    learned.commit()
    learned.close()
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 4711")
    learned = opened(path)
    assert learned.outdated == 1
    assert learned.counts() == (0, 0)


def test_no_text_of_a_message_is_kept_and_only_the_owner_can_read(path: Path) -> None:
    learned = opened(path)
    mail = message(1, True)
    learned.add(identity(mail), True, features(mail))
    learned.commit()
    learned.close()
    assert path.stat().st_mode & 0o777 == 0o600
    octets = path.read_bytes().lower()
    words = [word.lower() for word in raw(1, True).split() if len(word) > 5]
    assert len(words) > 10
    assert not [word for word in words if word in octets]


def test_a_file_that_is_something_else_is_an_error(path: Path) -> None:
    path.write_bytes(b"something else" * 200)
    with pytest.raises(StoreError, match="database"):
        opened(path)


def test_examples_are_what_was_learned(path: Path) -> None:
    learned = opened(path)
    mail = message(1, True)
    learned.add(identity(mail), True, features(mail))
    (one,) = learned.examples()
    assert Example(sorted(one.features), one.spam) == Example(sorted(features(mail)), True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(b"A: b\n\nx\n", b"A: b\r\n\r\nx\r\n", True, id="line ends of either kind"),
        pytest.param(b"A: b\n\nx", b"A: b\n\nx\n\n", True, id="empty lines at the end"),
        pytest.param(b"A: b\n\nx", b"Received: c\nA: b\n\nx", True, id="what the receiver put above"),
        pytest.param(b"A: b\n\nx", b"A: b\n\ny", False, id="another body"),
        pytest.param(b"Message-ID: <1>\n\nx", b"Message-ID: <2>\n\nx", False, id="another Message-ID"),
    ],
)
def test_which_messages_are_the_same(one: bytes, other: bytes, same: bool) -> None:
    first, second = message_of(one), message_of(other)
    assert first is not None
    assert second is not None
    assert (identity(first) == identity(second)) is same
