"""What was learned, kept so that it can be trained from again, and forgotten: features of messages, never their text.

An SQLite file beside the table.  A message is known by a hash of its Message-ID, Date and body; learned a second time it
changes nothing, or its kind.  Whatever changes the file gives it another revision, and the table says of which revision
it was made: so anybody can tell whether there is something to train.
"""

import os
import secrets
import sqlite3
import sys
import time
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from authmilter.classifier.features import VERSION
from authmilter.classifier.spool import Lesson, identity
from authmilter.classifier.training import Example
from authmilter.errors import StoreError

__all__ = ["Counts", "Learned", "Lesson", "Snapshot", "identity"]
PATIENCE = 60.0  # seconds that others who write may take; each of them holds the file for a moment only
DAY = 86400.0
_SCHEMA = 2
_STAMP = VERSION << 8 | _SCHEMA


def revision_of(path: Path) -> int | None:
    """The revision of a file, for who must not change it; None if it can't be told."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
            revision: int = base.execute("SELECT revision FROM state").fetchone()[0]
            return revision
    except (sqlite3.Error, TypeError):
        return None


class Counts(NamedTuple):
    """How many messages are kept; `by_itself` are those of both kinds that the daemon learned by itself."""

    ham: int
    spam: int
    by_itself: int


class Snapshot(NamedTuple):
    """All that is kept, at one moment."""

    revision: int
    counts: Counts
    examples: Sequence[Example]


class Learned:
    """The file.  Several processes may have it open: each method is one transaction, which is done whole or not at all.

    Each method raises StoreError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outdated = 0  # messages that had to be dropped, for an earlier version made their features
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let others read it
            self._base = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._do("PRAGMA secure_delete = ON")  # what is forgotten is gone
            if self._number("PRAGMA user_version") != _STAMP:
                self._make()
        except StoreError:
            self.close()
            raise

    def kind(self, identity: bytes) -> bool | None:
        """Was that message learned by hand, and as spam?  None if not."""
        found = self._do("SELECT spam FROM message WHERE id = ? AND origin = x''", (identity,)).fetchone()
        return None if found is None else bool(found[0])

    def add(self, lessons: Iterable[Lesson]) -> int:
        """Learn by hand; returns how many were new, or are of the other kind now."""
        with self._change() as changes:
            for lesson in lessons:
                changes.append(
                    self._do(
                        "INSERT INTO message VALUES (?, ?, ?, ?, x'') ON CONFLICT (id) DO UPDATE SET spam = excluded.spam, "
                        "at = excluded.at, features = excluded.features, origin = x'' "
                        "WHERE spam <> excluded.spam OR origin <> x''",
                        (lesson.identity, lesson.spam, time.time(), _packed(lesson.features)),
                    ).rowcount
                )
        return sum(changes)

    def add_by_itself(self, lessons: Iterable[Lesson], *, daily: int, of_origin: int) -> int:
        """Learn what nobody asked for: at most so many of each kind in a day, and of one origin; returns how many.

        What was learned by hand stays as it is.
        """
        now = time.time()
        with self._change() as changes:
            # Counted once: there may be as many lessons as a spool holds.
            recent = Counter[tuple[bool, bytes]]()
            for spam, origin, number in self._do(
                "SELECT spam, origin, count(*) FROM message WHERE origin <> x'' AND at > ? GROUP BY spam, origin",
                (now - DAY,),
            ):
                recent[bool(spam), origin] = number
                recent[bool(spam), b""] += number
            for lesson in lessons:
                if not lesson.origin:
                    raise ValueError("a lesson without an origin")
                own, all_of_kind = (lesson.spam, lesson.origin), (lesson.spam, b"")
                if recent[all_of_kind] >= daily or recent[own] >= of_origin:
                    continue
                is_new = self._do(
                    "INSERT INTO message VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (lesson.identity, lesson.spam, now, _packed(lesson.features), lesson.origin),
                ).rowcount
                recent[all_of_kind] += is_new
                recent[own] += is_new
                changes.append(is_new)
        return sum(changes)

    def forget(self, identities: Iterable[bytes]) -> int:
        """Forget messages; returns how many were known."""
        with self._change() as changes:
            for one in identities:
                changes.append(self._do("DELETE FROM message WHERE id = ?", (one,)).rowcount)
        return sum(changes)

    def forget_by_itself(self) -> int:
        """Forget all that the daemon learned by itself; returns how much that was."""
        with self._change() as changes:
            changes.append(self._do("DELETE FROM message WHERE origin <> x''").rowcount)
        return sum(changes)

    def trim(self, most: int) -> int:
        """Forget what is beyond so many of each kind; returns how many.

        What the daemon learned by itself goes first, then the oldest.
        """
        with self._change() as changes:
            for spam, number in enumerate(self.counts()[:2]):
                if number > most:
                    changes.append(
                        self._do(
                            "DELETE FROM message WHERE rowid IN (SELECT rowid FROM message WHERE spam = ? "
                            "ORDER BY origin <> x'', at DESC, rowid DESC LIMIT -1 OFFSET ?)",
                            (spam, most),
                        ).rowcount
                    )
        return sum(changes)

    def counts(self) -> Counts:
        """How many are kept."""
        spam = self._number("SELECT count(*) FROM message WHERE spam")
        by_itself = self._number("SELECT count(*) FROM message WHERE origin <> x''")
        return Counts(self._number("SELECT count(*) FROM message") - spam, spam, by_itself)

    def revision(self) -> int:
        """Another number whenever something changed."""
        return self._number("SELECT revision FROM state")

    def snapshot(self) -> Snapshot:
        """All that is kept, in an order that does not depend on when it was learned."""
        with self._transaction("BEGIN"):
            rows = self._do("SELECT spam, features FROM message ORDER BY id")
            try:
                examples = [Example(_unpacked(features), bool(spam)) for spam, features in rows]
            except (sqlite3.Error, ValueError) as error:
                raise StoreError(f"{self.path}: is damaged: {error}") from error
            return Snapshot(self.revision(), self.counts(), examples)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def _make(self) -> None:
        with self.held():
            if self._number("PRAGMA user_version") == _STAMP:
                return  # another was first
            if self._do("SELECT 1 FROM sqlite_master WHERE name = 'message'").fetchone():
                self.outdated = self._number("SELECT count(*) FROM message")
            for table in ("message", "state"):
                self._do(f"DROP TABLE IF EXISTS {table}")
            self._do(
                "CREATE TABLE message (id BLOB NOT NULL UNIQUE, spam INTEGER NOT NULL, at REAL NOT NULL, "
                "features BLOB NOT NULL, origin BLOB NOT NULL)"
            )
            self._do("CREATE INDEX kind ON message (spam, origin, at)")  # to count them without their features
            self._do("CREATE TABLE state (revision INTEGER NOT NULL)")
            # A file that is made anew must not come to a revision that the table of another has.
            self._do("INSERT INTO state VALUES (?)", (secrets.randbits(31),))
            self._do(f"PRAGMA user_version = {_STAMP}")

    @contextmanager
    def _change(self) -> Iterator[list[int]]:
        """A transaction, in which the block notes how many rows each statement changed."""
        changes: list[int] = []
        with self.held():
            yield changes
            if any(changes):
                self._do("UPDATE state SET revision = (revision + 1) & 0xffffffff")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._do(begin)
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._base.rollback()
            raise

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._base.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _number(self, statement: str, values: tuple[object, ...] = ()) -> int:
        return int(self._do(statement, values).fetchone()[0])


def _packed(features: Collection[int]) -> bytes:
    numbers = array("I", sorted(features))
    if sys.byteorder != "little":
        numbers.byteswap()
    return numbers.tobytes()


def _unpacked(octets: bytes) -> "array[int]":
    numbers = array("I", octets)
    if sys.byteorder != "little":
        numbers.byteswap()
    return numbers
