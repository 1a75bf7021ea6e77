"""Trains from what was learned since the table was made: at once for `authmilter learn`, in the background for the daemon.

Training takes seconds of CPU, and memory that Python would not give back.  So a worker has a helper, a process that forks
another for each training.  The helper is forked while its worker has one thread and no event loop, since later that is not
safe; and another interpreter could not be started by a daemon whose modules only root can read.
"""

import asyncio
import json
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from authmilter.classifier import spool, table, training
from authmilter.classifier.learned import Counts, Learned
from authmilter.errors import StoreError

if TYPE_CHECKING:
    from authmilter.checks.classifier import Classifier

log = logging.getLogger("authmilter.classifier")

FIRST = 5.0  # seconds after the start of the daemon until it looks
LOOK_EVERY = 60.0  # seconds
_LONGEST = 16384  # octets of a question or an answer
REST = 20.0  # times as long as it trained it does not train again


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to the table of that name."""
    return path.with_name(path.name + suffix)


def is_due(path: Path) -> bool:
    """Would training change that table?  Raises StoreError."""
    if spool.is_there(beside(path, spool.SUFFIX)):
        return True
    kept = beside(path, table.SUFFIX)
    if not os.path.lexists(kept):
        return False
    learned = Learned(kept)
    try:
        if learned.outdated:
            log.warning("%s: %d messages were learned by an earlier version: learn them again", kept, learned.outdated)
        return not is_current(path, learned)
    finally:
        learned.close()


def is_current(path: Path, learned: Learned) -> bool:
    """Was the table made from all that is kept now?  Raises StoreError."""
    try:
        revision: int = table.Table(path).revision
        return revision == learned.revision()
    except FileNotFoundError:
        counts = learned.counts()
        return not (counts.ham and counts.spam)
    except (OSError, ValueError):
        return False


def retrain(
    path: Path,
    learned: Learned,
    step: Callable[[], None] = lambda: None,
    as_owner: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Counts:
    """Make the table anew; returns what it was made from, and without ham or spam there is none.

    Others may learn meanwhile, and train.  Then a table of all that is kept is not replaced by one of less.
    Raises StoreError and OSError.
    """
    with as_owner():
        snapshot = learned.snapshot()
    counts = snapshot.counts
    trained = training.train(snapshot.examples, step) if counts.ham and counts.spam else None
    with as_owner(), learned.held():
        if learned.revision() != snapshot.revision and is_current(path, learned):
            pass
        elif trained is None:
            path.unlink(missing_ok=True)
        else:
            table.write(
                path,
                trained.weights,
                bias=trained.bias,
                curve=trained.curve,
                ham=counts.ham,
                spam=counts.spam,
                revision=snapshot.revision,
            )
    return counts


def take_spool(path: Path, learned: Learned, *, daily: int, of_origin: int) -> int:
    """Learn what workers left; returns how many messages.  Raises StoreError and OSError."""
    place = beside(path, spool.SUFFIX)
    number = 0
    for _ in range(2):  # what somebody took who did not come to the end, then what was left since
        lessons = spool.take(place)
        if lessons is None:
            break
        number += learned.add_by_itself(lessons, daily=daily, of_origin=of_origin)
        spool.drop(place)
    return number


def train_anew(path: Path, keep: int, daily: int, of_origin: int) -> str:
    """Take in what workers left, train, and return what was done.  Raises StoreError and OSError."""
    began = time.monotonic()
    learned = Learned(beside(path, table.SUFFIX))
    try:
        new = take_spool(path, learned, daily=daily, of_origin=of_origin)
        learned.trim(keep)
        if is_current(path, learned):
            return ""
        counts = retrain(path, learned)
    finally:
        learned.close()
    words = f"{path}: trained from {counts.ham} ham and {counts.spam} spam in {time.monotonic() - began:.1f} s"
    return f"{words}, {new} new of the daemon's own" if new else words


# -- for the daemon ---------------------------------------------------------------------------------------------------


async def keep_trained(settings: Callable[[], "Classifier"], helper: socket.socket, count: Callable[[], None]) -> None:
    """Have the helper train whenever there is something new, as often as the configuration allows.

    `count` is called for what is unexpected.
    """
    said = ""
    pause = FIRST
    while True:
        await asyncio.sleep(pause)
        pause = LOOK_EVERY
        options = settings()
        if not options.enabled or not options.train_every:
            continue
        path = table.find(options.table)
        try:
            if not await asyncio.to_thread(is_due, path):
                continue
            began = time.monotonic()
            failed, words = await _ask(helper, path, options)
            pause = max(LOOK_EVERY, options.train_every, REST * (time.monotonic() - began))
        except ConnectionError:
            log.error("the classifier is not trained any more until the next start: the process that should has ended")
            return
        except (StoreError, OSError) as error:
            failed, words = True, str(error)
        except Exception:
            log.exception("the classifier can't be trained")
            count()
            continue
        if words and words != said:
            log.log(logging.WARNING if failed else logging.INFO, "%s%s", "not trained: " if failed else "", words)
        said = words if failed else ""


async def _ask(helper: socket.socket, path: Path, options: "Classifier") -> tuple[bool, str]:
    """Have it train: did that fail, and what was done?  Raises ConnectionError if it has ended."""
    question = [str(path), options.keep, options.auto_learn_daily, options.auto_learn_sender]
    helper.send(json.dumps(question).encode())
    answer = await asyncio.get_running_loop().sock_recv(helper, _LONGEST)
    if not answer:
        raise BrokenPipeError
    failed, words = json.loads(answer)
    return failed, words


def start_helper(*not_its_own: socket.socket) -> socket.socket:
    """Fork the helper, which ends when the returned socket is closed; it closes those sockets that are not its own.

    To be called before there are threads.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        _end_after(lambda: _help(theirs), ours, *not_its_own)
    theirs.close()
    ours.setblocking(False)
    return ours


def _end_after(work: Callable[[], None], *sockets: socket.socket) -> NoReturn:
    """The life of a process that was forked."""
    status = 1
    try:
        for one in sockets:
            one.close()
        work()
        status = 0
    except BaseException:
        log.exception("training failed")
    finally:
        os._exit(status)


def _help(worker: socket.socket) -> None:
    """Train as often as the worker asks for it."""
    os.nice(19)
    while question := worker.recv(_LONGEST):
        pid = os.fork()
        if not pid:
            _end_after(lambda: _answer(worker, *json.loads(question)))
        ended = status = 0
        while not ended:
            asks = select.select([worker], [], [], 0.1)[0]
            if asks and not worker.recv(1, socket.MSG_PEEK):  # it has ended
                os.kill(pid, signal.SIGKILL)  # nothing is lost by that
                os.waitpid(pid, 0)
                return
            # It asks again only when it has its answer: then there is little left to wait for.
            ended, status = os.waitpid(pid, 0 if asks else os.WNOHANG)
        if status:
            cause = f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "early"
            worker.send(json.dumps([True, f"the process that trains was ended {cause}"]).encode())


def _answer(worker: socket.socket, path: str, keep: int, daily: int, of_origin: int) -> None:
    """Tell whether training failed, and what became of it."""
    try:
        answer = (False, train_anew(Path(path), keep, daily, of_origin))
    except (StoreError, OSError) as error:
        answer = (True, str(error))
    with suppress(BrokenPipeError):  # the worker has ended
        worker.send(json.dumps(answer).encode()[:_LONGEST])
