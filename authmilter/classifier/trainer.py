"""Trains from what was learned since the table was made: at once for `authmilter learn`, in the background for the daemon.

The daemon has a process of its own do it, with the lowest priority, whose memory is given back at its end::

    python -m authmilter.classifier.trainer TABLE KEEP DAILY OF_ORIGIN
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from authmilter.classifier import spool, table
from authmilter.errors import StoreError

if TYPE_CHECKING:
    from authmilter.checks.classifier import Classifier
    from authmilter.classifier.learned import Counts, Learned

log = logging.getLogger("authmilter.classifier")

FIRST = 5.0  # seconds after the start of the daemon until it looks
LOOK_EVERY = 60.0  # seconds
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
    from authmilter.classifier.learned import Learned  # with SQLite only where there is something

    learned = Learned(kept)
    try:
        if learned.outdated:
            log.warning("%s: %d messages were learned by an earlier version: learn them again", kept, learned.outdated)
        return not is_current(path, learned)
    finally:
        learned.close()


def is_current(path: Path, learned: "Learned") -> bool:
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
    learned: "Learned",
    step: Callable[[], None] = lambda: None,
    as_owner: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> "Counts":
    """Make the table anew; returns what it was made from, and without ham or spam there is none.

    Others may learn meanwhile, and train.  Then a table of all that is kept is not replaced by one of less.
    Raises StoreError and OSError.
    """
    from authmilter.classifier.training import train

    with as_owner():
        snapshot = learned.snapshot()
    counts = snapshot.counts
    trained = train(snapshot.examples, step) if counts.ham and counts.spam else None
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


def take_spool(path: Path, learned: "Learned", *, daily: int, of_origin: int) -> int:
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


async def keep_trained(settings: Callable[[], "Classifier"]) -> None:
    """For one worker of a daemon: train whenever there is something new, as often as the configuration allows."""
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
            failed, words = await _run(path, options)
            pause = max(LOOK_EVERY, options.train_every, REST * (time.monotonic() - began))
        except (StoreError, OSError) as error:
            failed, words = True, str(error)
        except Exception:
            log.exception("the classifier can't be trained")
            pause = max(LOOK_EVERY, options.train_every)
            continue
        if words and words != said:
            log.log(logging.WARNING if failed else logging.INFO, "%s%s", "not trained: " if failed else "", words)
        said = words if failed else ""


async def _run(path: Path, options: "Classifier") -> tuple[bool, str]:
    """Train in a process of its own: did it fail, and what did it say?"""
    numbers = (options.keep, options.auto_learn_daily, options.auto_learn_sender)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "authmilter.classifier.trainer",
        str(path),
        *map(str, numbers),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # nothing is lost by that
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return process.returncode != 0, lines[-1] if lines else f"exit status {process.returncode}"


def main(path: Path, keep: int, daily: int, of_origin: int) -> str:
    """Take in what workers left, train, and return what was done.  Raises StoreError and OSError."""
    from authmilter.classifier.learned import Learned

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


if __name__ == "__main__":
    os.nice(19)
    try:
        print(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))  # noqa: T201  for the worker that started us
    except (StoreError, OSError) as problem:
        sys.exit(str(problem))
