"""What was learned, kept so that it can be trained from again, and forgotten: features of messages, never their text.

An SQLite file beside the table.  A message is known by a hash of its Message-ID, Date and body; learned a second time it
changes nothing, or its kind.
"""

import os
import sqlite3
import sys
import time
from array import array
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from authmilter.classifier.features import VERSION
from authmilter.classifier.training import Example
from authmilter.errors import StoreError
from authmilter.model import Message

SUFFIX = ".learned"
PATIENCE = 600.0  # seconds that another who learns may take


def identity(message: Message) -> bytes:
    """What tells a message from others: 16 octets."""
    digest = sha256()
    for name in (b"message-id", b"date"):
        found = message.first(name)
        digest.update(b"" if found is None else b"".join(found.value.split()))
        digest.update(b"\n")
    digest.update(message.body.rstrip(b"\r\n \t"))  # mailboxes are not agreed about its end
    return digest.digest()[:16]


class Counts(NamedTuple):
    """How many messages are kept."""

    ham: int
    spam: int


class Learned:
    """The file, held by one process at a time, from `begin` to `commit`; what was not committed was never there.

    Each method raises StoreError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            new = not path.exists()
            self._base = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            if new:
                path.chmod(0o600)
                owner = path.parent.stat()
                if os.geteuid() == 0:
                    os.chown(path, owner.st_uid, owner.st_gid)
            self._base.execute("PRAGMA secure_delete = ON")  # what is forgotten is gone
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error

    def begin(self) -> None:
        """Wait until nobody else learns, and hold the file.

        What an earlier version made features of is dropped, since they mean nothing now.
        """
        self._do("BEGIN IMMEDIATE")
        self._do(
            "CREATE TABLE IF NOT EXISTS message"
            "(id BLOB NOT NULL UNIQUE, spam INTEGER NOT NULL, at REAL NOT NULL, features BLOB NOT NULL)"
        )
        self.outdated = 0
        if self._number("PRAGMA user_version") != VERSION:
            self.outdated = self._do("DELETE FROM message").rowcount
            self._do(f"PRAGMA user_version = {VERSION}")

    def add(self, identity: bytes, spam: bool, features: Collection[int]) -> bool:
        """Keep a message; did that change anything?"""
        return (
            self._do(
                "INSERT INTO message VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET spam = excluded.spam, at = excluded.at "
                "WHERE spam <> excluded.spam",
                (identity, spam, time.time(), _packed(features)),
            ).rowcount
            > 0
        )

    def forget(self, identity: bytes) -> bool:
        """Forget a message; was it known?"""
        return self._do("DELETE FROM message WHERE id = ?", (identity,)).rowcount > 0

    def trim(self, most: int) -> int:
        """Forget the oldest beyond so many of each kind; returns how many."""
        return sum(
            self._do(
                "DELETE FROM message WHERE id IN "
                "(SELECT id FROM message WHERE spam = ? ORDER BY at DESC, id LIMIT -1 OFFSET ?)",
                (spam, most),
            ).rowcount
            for spam in (0, 1)
        )

    def counts(self) -> Counts:
        """How many are kept."""
        spam = self._number("SELECT count(*) FROM message WHERE spam")
        return Counts(self._number("SELECT count(*) FROM message") - spam, spam)

    def examples(self) -> Iterator[Example]:
        """All of them, in an order that does not depend on when they were learned."""
        for spam, features in self._do("SELECT spam, features FROM message ORDER BY id"):
            yield Example(_unpacked(features), bool(spam))

    def commit(self) -> None:
        """Make it last, and let others at it."""
        self._do("COMMIT")

    def close(self) -> None:
        """Let go of the file; what was not committed is dropped."""
        self._base.close()

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._base.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _number(self, statement: str) -> int:
        return int(self._do(statement).fetchone()[0])


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
