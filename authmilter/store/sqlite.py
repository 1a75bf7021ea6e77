"""State in one SQLite file that all workers of a machine share.

Each process has one thread that reads and writes, so that no disk keeps the event loop waiting.  What has arrived by the
time that it looks becomes one transaction.  A second thread copies the write-ahead log into the file, which is where a
disk is waited for (``synchronous = NORMAL``): a power failure may lose the last seconds, but not the file.

The table has no index besides its key: to purge is to walk through it in small steps, which costs less than to keep an
index of expiry with every write, and makes the file half as large.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from authmilter.errors import StoreError
from authmilter.store.entry import Row, added, counted, seen
from authmilter.store.front import CHUNK, Front, Request, Step, opening_steps, reason_of, secret_of

log = logging.getLogger("authmilter.store")

APPLICATION = 0x41754D69  # in the file: this is ours
MIGRATIONS = (
    (),  # to version 1: the first releases made an empty file
    (
        """CREATE TABLE entry (
            space TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, total REAL NOT NULL, half_life REAL NOT NULL,
            life REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (space, key)
        ) WITHOUT ROWID""",
    ),
)
VERSION = len(MIGRATIONS)

PAGE_SIZE = 4096
CACHE = 8 * 1024  # KiB of pages that each process keeps
PURGE_STEP = 1000  # rows looked at in one step
FREE_STEP = 200  # pages given back in one step,
FREE_ABOVE = 4  # when more than one page of so many is free
SCAN_STEP = 500
CHECKPOINT_AFTER = 1000  # rows written by this process
RESTART_ABOVE = 8000  # frames of the write-ahead log: 32 MB
MOVED_CHECK = 1.0  # seconds between looks whether the file is still the one that has our name

_SELECT = "SELECT value, total, half_life, life, expires FROM entry WHERE space = ? AND key = ?"
_WRITE = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM entry WHERE space = ? AND key = ?"
_SCAN = (
    "SELECT key, value, total, half_life, life, expires FROM entry "
    "WHERE space = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
)
_PURGE_END = "SELECT space, key FROM entry WHERE (space, key) > (?, ?) ORDER BY space, key LIMIT 1 OFFSET ?"
_PURGE = "DELETE FROM entry WHERE (space, key) > (?, ?) AND (space, key) <= (?, ?) AND expires <= ?"
_PURGE_REST = "DELETE FROM entry WHERE (space, key) > (?, ?) AND expires <= ?"

_HEADER = b"SQLite format 3\0"
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ENDLESS = b"\xff" * 300  # beyond every key


class StoreFile:
    """The file, as one thread of one process has it.  Every method may raise sqlite3.Error, OSError or StoreError."""

    def __init__(self, path: Path, *, busy: float, max_size: int = 0, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._busy = busy  # seconds to wait for other processes
        self._max_size = max_size  # octets, 0 for any
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._look_again = 0.0
        self._written = 0
        self._checkpointer: _Checkpointer | None = None
        self._corrupt = False

    def open(self) -> bytes:
        """Open the file, anew if it is open; begin a new one if it is corrupt.  Returns the secret that is in it."""
        self.close()
        with _locked(self.path.parent):
            if self._corrupt:
                self._set_aside()
            try:
                self._db = self._connect()
                return self._prove()
            except sqlite3.Error as error:
                self.failed(error)
                if not self._corrupt:
                    raise
                self._set_aside()
            try:
                self._db = self._connect()
                return self._prove()
            except sqlite3.Error as error:
                self.failed(error)
                raise

    def close(self) -> None:
        """Let go of it."""
        if self._checkpointer is not None:
            self._checkpointer.end()
            self._checkpointer = None
        if self._db is not None:
            db, self._db = self._db, None
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def failed(self, error: Exception) -> None:
        """After an error of another method: the file has to be opened before it is used again."""
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
            self._corrupt = True
        self.close()

    def run(self, requests: Sequence[Sequence[Step]]) -> list[list[Any]]:
        """Carry out steps in one transaction; all of them, or none."""
        db = self._db
        if db is None:
            raise StoreError("is not open")
        if time.monotonic() >= self._look_again:
            self._look_whether_moved()
        now = self._clock()
        writes = any(step[0] not in ("get", "scan") for steps in requests for step in steps)
        if not writes and len(requests) == 1 and len(requests[0]) == 1:
            return [[self._do(db, requests[0][0], now)]]
        db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            results = [[self._do(db, step, now) for step in steps] for steps in requests]
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        if self._written >= CHECKPOINT_AFTER:
            self._written = 0
            self._checkpoint()
        return results

    # -- steps --------------------------------------------------------------------------------------------------------

    def _do(self, db: sqlite3.Connection, step: Step, now: float) -> Any:
        verb = step[0]
        if verb == "purge":
            return self._purge(db, step[1], now)
        space, key = step[1:3]
        if verb == "scan":
            return self._scan(db, space, key, step[3], now)
        if verb == "delete":
            return db.execute(_DELETE, (space, key)).rowcount > 0
        result = None
        if verb == "put":
            row: Row | None = Row(step[3], 0.0, 0.0, step[4], now + step[4])
        else:
            columns = db.execute(_SELECT, (space, key)).fetchone()
            row = Row._make(columns) if columns is not None else None
            if verb == "get":
                return seen(row, now)
            if verb == "add":
                row, result = added(row, step[3], step[4], now)
            else:
                row, result = counted(row, step[3], step[4], step[5], now)
        if row is not None:
            db.execute(_WRITE, (space, key, *row))
            self._written += 1
        return result

    def _scan(
        self, db: sqlite3.Connection, space: str, prefix: bytes, cursor: bytes, now: float
    ) -> tuple[bytes | None, list[Any]]:
        rows = db.execute(_SCAN, (space, max(prefix, cursor), prefix + _ENDLESS, SCAN_STEP)).fetchall()
        found = [(key, entry) for key, *row in rows if (entry := seen(Row._make(row), now))]
        return (rows[-1][0] + b"\0" if len(rows) == SCAN_STEP else None), found

    def _purge(self, db: sqlite3.Connection, cursor: Any, now: float) -> tuple[Any, int]:
        """A step of the walk: `cursor` is where it stands, b"" at the start; then a step of making the file smaller."""
        if isinstance(cursor, int):
            for _ in range(FREE_STEP):  # one by one: this module does not step through the pragma
                db.execute("PRAGMA incremental_vacuum(1)")
            return (cursor - FREE_STEP if cursor > FREE_STEP else None), 0
        at = cursor or ("", b"")
        end = db.execute(_PURGE_END, (*at, PURGE_STEP - 1)).fetchone()
        if end is not None:
            dropped = db.execute(_PURGE, (*at, *end, now)).rowcount
            self._written += dropped
            return end, dropped
        dropped = db.execute(_PURGE_REST, (*at, now)).rowcount
        [pages], [free] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
        return (free - pages // FREE_ABOVE if free > pages // FREE_ABOVE else None), dropped

    # -- the file -----------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            # It holds addresses; SQLite gives the files beside it the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None)
        try:
            self._migrate(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA cache_size = -{CACHE}")
            # The other thread does it; this is for when it can't.
            db.execute(f"PRAGMA wal_autocheckpoint = {4 * RESTART_ABOVE}")
            db.execute(f"PRAGMA journal_size_limit = {2 * RESTART_ABOVE * PAGE_SIZE}")
            if self._max_size:
                size = db.execute("PRAGMA page_size").fetchone()[0]
                db.execute(f"PRAGMA max_page_count = {max(16, self._max_size // size)}")
        except BaseException:
            db.close()
            raise
        status = os.stat(self.path)
        self._identity = status.st_dev, status.st_ino
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        """Bring the file to our version; nobody else opens it meanwhile."""
        [version] = db.execute("PRAGMA user_version").fetchone()
        [application] = db.execute("PRAGMA application_id").fetchone()
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application not in (0, APPLICATION) or (tables and application != APPLICATION):
            raise StoreError("is the database of another program")
        if version > VERSION:
            raise StoreError(f"was written by a newer release (version {version}, this one knows {VERSION})")
        if not tables:
            db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("VACUUM")  # what makes both come true
        [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError("is on a file system without what SQLite needs to share a file")
        if version < VERSION:
            db.execute("BEGIN IMMEDIATE")
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")

    def _prove(self) -> bytes:
        self._look_again = time.monotonic() + MOVED_CHECK
        steps = opening_steps(self._clock())
        [results] = self.run([steps])
        return secret_of(steps, results)

    def _look_whether_moved(self) -> None:
        """Another process may have put the file aside, or the administrator may have replaced it."""
        self._look_again = time.monotonic() + MOVED_CHECK
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            raise StoreError("the file is gone") from None
        if (status.st_dev, status.st_ino) != self._identity:
            raise StoreError("the file was replaced by another")

    def _set_aside(self) -> None:
        """Rename a corrupt file; one is kept, the newest.  Nobody else opens it meanwhile."""
        self._corrupt = False
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return
        if self._identity is not None and self._identity != (status.st_dev, status.st_ino):
            return  # another process did it
        if not self._is_ours():
            raise StoreError("is no SQLite database, and is left alone")
        aside = self.path.with_name(self.path.name + ".corrupt")
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        self.path.replace(aside)
        log.error("%s: is corrupt: moved to %s, and a new one begun", self.path, aside)

    def _is_ours(self) -> bool:
        """A corrupt file may be moved; but not one that was named here by mistake."""
        with open(self.path, "rb") as file:
            head = file.read(100)
        if head[:16] == _HEADER:
            return int.from_bytes(head[68:72], "big") in (0, APPLICATION)
        return not head.strip(b"\0") or Path(f"{self.path}-wal").exists()

    def _checkpoint(self) -> None:
        if self._checkpointer is None or not self._checkpointer.is_alive():
            self._checkpointer = _Checkpointer(self.path)
        self._checkpointer.wanted.set()


class _Checkpointer(threading.Thread):
    """Copies the write-ahead log into the file, while others write on."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="store checkpoint", daemon=True)
        self.wanted = threading.Event()
        self._path = path
        self._ended = False
        self.start()

    def end(self) -> None:
        """Stop, and wait for it: to close a file of SQLite twice at once would drop locks of its process."""
        self._ended = True
        self.wanted.set()
        self.join()

    def run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                copier, holder = (
                    stack.enter_context(
                        contextlib.closing(sqlite3.connect(self._path, timeout=1.0, isolation_level=None))
                    )
                    for _ in range(2)
                )
                while True:
                    self.wanted.wait()
                    self.wanted.clear()
                    if self._ended:
                        return
                    self._copy(copier, holder)
        except sqlite3.Error as error:
            # The writer meets the same error, or does the work itself.
            log.debug("%s: checkpoint: %s", self._path, error)

    def _copy(self, copier: sqlite3.Connection, holder: sqlite3.Connection) -> None:
        _, frames, _ = copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames <= RESTART_ABOVE:
            return
        # Writers start over at the beginning of the log only once all of it is copied, which by chance may never be so
        # where they don't pause.  So they have to, for the few milliseconds that the rest takes; unlike in SQLite's own
        # RESTART, nobody waits for readers meanwhile.
        holder.execute("BEGIN IMMEDIATE")
        try:
            copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            holder.execute("ROLLBACK")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time opens, migrates or replaces the file."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class SqliteStore(Front):
    """`interfaces.ManagedStore` in a file; for the arguments see `Front` and `StoreFile`."""

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = 1.0,
        connect_timeout: float = 3.0,
        max_size: int = 0,
        hash_personal: bool = False,
        on_error: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            f"sqlite:{path}",
            timeout=timeout,
            connect_timeout=connect_timeout,
            hash_personal=hash_personal,
            on_error=on_error,
        )
        # Another process may hold the file for a while; we say so before our callers give up.
        self._file = StoreFile(path, busy=timeout * 0.8, max_size=max_size, clock=clock)
        self._jobs: queue.SimpleQueue[Request | asyncio.Future[bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._reopened: asyncio.Future[bytes] | None = None
        self._released = self._loop.create_future()

    async def _connect(self) -> bytes:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="store", daemon=True)
            self._thread.start()
        # A disk that hangs is asked once, and waited for again.
        if self._reopened is None or self._reopened.done():
            self._reopened = self._loop.create_future()
            self._jobs.put(self._reopened)
        return await asyncio.shield(self._reopened)

    def _submit(self, request: Request) -> None:
        self._jobs.put(request)

    def _abandon(self) -> None:
        """The thread passes over requests that have ended."""

    async def _release(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            await self._released
            self._thread.join()  # nothing is left for it to do; whoever forks next wants to be alone

    def _served(self, batch: list[Request], results: list[list[Any]]) -> None:
        for request, result in zip(batch, results, strict=True):
            self._answer(request, result)

    def _not_served(self, batch: list[Request], reason: str) -> None:
        self._fail(reason)
        for request in batch:
            self._refuse(request, reason)

    # -- on the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        jobs = self._jobs
        while True:
            job = jobs.get()
            batch: list[Request] = []
            room = CHUNK
            while isinstance(job, Request):
                batch.append(job)
                room -= len(job.steps)
                if room <= 0 or jobs.empty():
                    break
                job = jobs.get()
            if batch:
                self._serve([request for request in batch if not request.ended])
            if job is None:
                self._file.close()
                self._tell(_settle, self._released, None)
                return
            if not isinstance(job, Request):
                self._open_for(job)

    def _serve(self, batch: list[Request]) -> None:
        if not batch:
            return
        try:
            results = self._file.run([request.steps for request in batch])
        except Exception as error:  # nothing may end this thread
            self._file.failed(error)
            self._tell(self._not_served, batch, reason_of(error))
        else:
            self._tell(self._served, batch, results)

    def _open_for(self, waiting: "asyncio.Future[bytes]") -> None:
        try:
            secret = self._file.open()
        except Exception as error:
            self._tell(_settle, waiting, error)
        else:
            self._tell(_settle, waiting, secret)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)


def _settle(future: "asyncio.Future[Any]", outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # whoever waited may have given up: no complaint then
    else:
        future.set_result(outcome)
