"""Training from what was learned since the table was made."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authmilter.checks.classifier import Classifier
from authmilter.classifier import spool, trainer, training
from authmilter.classifier.features import features
from authmilter.classifier.learned import Learned, Lesson, identity
from authmilter.classifier.table import Table
from authmilter.classifier.trainer import (
    is_current,
    is_due,
    keep_trained,
    retrain,
    start_helper,
    take_spool,
    train_anew,
)
from authmilter.config.option import FilePath, Seconds
from tests.classifier.mail import message
from tests.rig import daemon as running
from tests.rig.sockets import wait_until


def lesson(number: int, spam: bool, origin: bytes = b"") -> Lesson:
    mail = message(number, spam)
    return Lesson(identity(mail), spam, features(mail), origin)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table"


@pytest.fixture
def learned(path: Path) -> Learned:
    found = Learned(path.with_name("table.learned"))
    found.add(lesson(number, spam) for number in range(20) for spam in (False, True))
    return found


def test_it_is_due_until_it_is_done(path: Path, learned: Learned) -> None:
    assert is_due(path)
    assert retrain(path, learned) == (20, 20, 0)
    assert not is_due(path)
    assert Table(path).revision == learned.revision()
    learned.add([lesson(20, True)])
    assert is_due(path)


def test_nothing_is_due_where_nothing_was_learned(path: Path) -> None:
    assert not is_due(path)
    assert list(path.parent.iterdir()) == []  # and nothing is made by looking


def test_a_table_of_what_is_forgotten_is_removed(path: Path, learned: Learned) -> None:
    retrain(path, learned)
    learned.forget(lesson(number, True).identity for number in range(20))
    assert is_due(path)
    retrain(path, learned)
    assert not path.exists()
    assert not is_due(path)


def test_a_damaged_table_is_due(path: Path, learned: Learned) -> None:
    retrain(path, learned)
    path.write_bytes(b"damaged")
    assert is_due(path)
    retrain(path, learned)
    assert Table(path).ham == 20


def test_what_an_earlier_version_learned_is_told_in_the_log(
    path: Path, learned: Learned, caplog: pytest.LogCaptureFixture
) -> None:
    learned._base.execute("PRAGMA user_version = 1")
    assert not is_due(path)
    assert "40 messages were learned by an earlier version: learn them again" in caplog.text


@pytest.mark.parametrize(
    ("other_trains", "kept"),
    [
        pytest.param(True, 21, id="what another made of more stays"),
        pytest.param(False, 20, id="it is better than none"),
    ],
)
def test_who_learns_meanwhile(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, other_trains: bool, kept: int
) -> None:
    real = training.train
    original: list[Callable[..., training.Trained]] = [real]

    def slow(*args: object) -> training.Trained:
        monkeypatch.setattr(training, "train", original[0])
        other = Learned(learned.path)
        assert other.add([lesson(20, True)]) == 1  # training holds nobody up
        if other_trains:
            retrain(path, other)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", slow)
    retrain(path, learned)
    assert Table(path).spam == kept
    assert is_current(path, learned) is other_trains


def test_what_workers_left_is_learned_once(path: Path, learned: Learned) -> None:
    retrain(path, learned)
    place = path.with_name("table.spool")
    for number in range(20, 25):
        spool.append(place, lesson(number, True, number.to_bytes(8, "big")))
    spool.append(place, lesson(1, True, b"8 octets"))  # what a person learned
    assert is_due(path)
    assert spool.take(place)  # somebody began, and was killed
    spool.append(place, lesson(30, True, b"8 octets"))
    assert take_spool(path, learned, daily=9, of_origin=9) == 6
    assert take_spool(path, learned, daily=9, of_origin=9) == 0
    assert learned.counts() == (20, 26, 6)
    assert not spool.is_there(place)


def test_all_of_it(path: Path, learned: Learned) -> None:
    spool.append(path.with_name("table.spool"), lesson(30, True, b"8 octets"))
    words = train_anew(path, 1000, 9, 9)
    assert words.startswith(f"{path}: trained from 20 ham and 21 spam in ")
    assert words.endswith(" s, 1 new of the daemon's own")
    assert not is_due(path)
    assert train_anew(path, 1000, 9, 9) == ""


class Daemon:
    """A worker that keeps the table trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        monkeypatch.setattr(trainer, "FIRST", 0.02)
        monkeypatch.setattr(trainer, "LOOK_EVERY", 0.02)
        self.unexpected = 0
        self.options = Classifier(table=FilePath(str(path)), train_every=Seconds(0.02))

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Does that come true?"""
        helper = start_helper()
        task = asyncio.create_task(keep_trained(lambda: self.options, helper, self._count))
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  another process makes it true
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        helper.close()
        return condition()

    def _count(self) -> None:
        self.unexpected += 1


async def test_the_daemon_trains(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert await Daemon(monkeypatch, path).until(lambda: "trained from 20 ham and 20 spam" in caplog.text)
    assert is_current(path, learned)


async def test_an_unexpected_error_is_told_and_does_not_end_it(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    real = trainer.is_due
    errors = [RuntimeError("odd")]

    def once_odd(path: Path) -> bool:
        if errors:
            raise errors.pop()
        return real(path)

    monkeypatch.setattr(trainer, "is_due", once_odd)
    daemon = Daemon(monkeypatch, path)
    assert await daemon.until(lambda: "trained from 20 ham and 20 spam" in caplog.text)
    assert daemon.unexpected == 1
    assert "RuntimeError: odd" in caplog.text


async def test_the_daemon_says_once_that_it_can_not(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(path)  # nothing can take its place
    tries = []
    real = trainer.is_due

    def counted(path: Path) -> bool:
        tries.append(path)
        return real(path)

    monkeypatch.setattr(trainer, "is_due", counted)
    monkeypatch.setattr(trainer, "REST", 0.1)
    assert await Daemon(monkeypatch, path).until(lambda: len(tries) > 3)
    assert learned.counts() == (20, 20, 0)
    (line,) = [record for record in caplog.records if record.name == "authmilter.classifier"]
    assert line.levelname == "WARNING"
    assert line.getMessage().startswith("not trained: ")


async def test_the_daemon_says_if_training_is_killed(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        trainer, "train_anew", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    )  # as a lack of memory does
    words = "not trained: the process that trains was ended by signal 9"
    assert await Daemon(monkeypatch, path).until(lambda: words in caplog.text)
    assert learned.counts() == (20, 20, 0)


def test_training_ends_with_its_worker(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> str:
        path.write_text(str(os.getpid()))
        time.sleep(60)
        return ""

    monkeypatch.setattr(trainer, "train_anew", slow)
    helper = start_helper()
    helper.send(json.dumps([str(path), 1, 1, 1]).encode())
    wait_until(lambda: path.exists() and path.read_text() != "", 20, "training")
    pid = int(path.read_text())
    os.kill(pid, 0)
    helper.close()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 20, "the end of training")


async def test_the_daemon_says_if_nobody_can_train_any_more(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ends(worker: socket.socket) -> None:
        assert worker.recv(100)

    monkeypatch.setattr(trainer, "_help", ends)
    assert await Daemon(monkeypatch, path).until(lambda: "until the next start" in caplog.text)
    assert learned.counts() == (20, 20, 0)


@pytest.mark.parametrize(
    "off", [pytest.param({"train_every": Seconds(0)}, id="never"), pytest.param({"enabled": False}, id="off")]
)
async def test_the_daemon_does_not_train(
    path: Path, learned: Learned, monkeypatch: pytest.MonkeyPatch, off: dict[str, object]
) -> None:
    daemon = Daemon(monkeypatch, path)
    daemon.options = Classifier(table=FilePath(str(path)), **off)  # type: ignore[arg-type]
    looked: list[Path] = []
    monkeypatch.setattr(trainer, "is_due", looked.append)
    end = time.monotonic() + 0.3
    await daemon.until(lambda: time.monotonic() > end)
    assert not looked
    assert learned.counts() == (20, 20, 0)


def test_a_daemon_trains_from_what_was_left_for_later(learned: Learned) -> None:
    with running.Daemon(
        "inet", {"classifier": {"table": str(learned.path.with_suffix("")), "minimum_ham": 10}}
    ) as daemon:
        wait_until(lambda: daemon.log_lines("trained from 20 ham and 20 spam"), 30, "training")
        assert not daemon.log_lines("not trained")
    assert is_current(learned.path.with_suffix(""), learned)
