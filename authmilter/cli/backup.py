"""`authmilter backup`: configuration, keys and state in one file, while the daemon runs."""

import argparse
import grp
import os
import pwd
import secrets
import shutil
import signal
import socket
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from authmilter import __version__
from authmilter.backup_archive import CHUNK, LARGEST, Entry, Kind, Manifest, Owner, write
from authmilter.checks.classifier import Classifier
from authmilter.classifier import spool, table
from authmilter.cli import EX_USAGE
from authmilter.cli.terminal import escaped, plural
from authmilter.config import ini
from authmilter.config.endpoint import parse_store
from authmilter.config.paths import named_files
from authmilter.config.schema import Config
from authmilter.errors import StartError
from authmilter.safe_files import Place, UnsafeError, locate, others_may_write, steady
from authmilter.server.state import find_state
from authmilter.state_directory import acting_as_owner

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 60.0  # seconds that others who write to a file of SQLite may take


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "file", metavar="FILE|-", help="the backup to write, readable by its owner alone; - is standard output"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")
    parser.epilog = (
        "In it are the configuration, the files that it names (keys, passwords, certificates, maps), the state if that is in "
        "SQLite, and what the classifier learned.  The daemon may run meanwhile.  Not in it: state on a Redis server or in "
        "memory, programs that [alarm] names, and the settings of the MTA.  FILE holds private keys that are not encrypted: "
        "keep it as you keep them.  A FILE that exists is replaced once the new one is complete.  Run it as root, or as the "
        "owner of all that.  Exit status: 0 written, 64 wrong use, 69 a file or the state can't be read, or FILE not written, "
        "78 the configuration can't be used; unless it is 0, FILE is as it was."
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError and StartError; then nothing was written."""
    if args.file == "-" and sys.stdout.isatty():
        print("authmilter backup: standard output is a terminal: name a FILE, or send it on", file=sys.stderr)
        return EX_USAGE
    path = ini.find(args.config)
    config = ini.load(path, check_files=False)
    with errors_told(), staging(None if args.file == "-" else Path(args.file).parent) as folder:
        copies = _Copies(folder)
        missing = list(_collect(copies, path, config))
        manifest = Manifest(
            __version__,
            datetime.now(UTC).isoformat(timespec="seconds"),
            socket.gethostname(),
            tuple(missing),
            tuple(copies.entries),
        )
        size = _write(args.file, manifest, copies.contents)
    if not args.quiet:
        print(f"{plural(len(copies.entries), 'file')}, {plural(size, 'octet')}", file=sys.stderr)
        for sentence in missing:
            print(f"not in it: {escaped(sentence)}", file=sys.stderr)
    return 0


@contextmanager
def errors_told() -> Iterator[None]:
    """Errors of files and of SQLite become StartError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{escaped(str(error.filename))}: " if error.filename is not None else ""
        if isinstance(error, PermissionError):
            raise StartError(f"{name}permission denied: run this as root, or as the owner of the file") from None
        raise StartError(f"{name}{error.strerror or error}") from None
    except sqlite3.Error as error:
        raise StartError(str(error)) from None


@contextmanager
def staging(beside: Path | None) -> Iterator[Path]:
    """A folder that nobody else can enter, for a while: beside what is written, else where large files may be."""
    place = _room(beside)
    # There are keys in it: whoever ends us must not leave it behind, nor half of a change.
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number in _ENDS:
        if before[number] is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".authmilter-", dir=place))
        try:
            yield folder
        finally:
            _ignore_ends()
            shutil.rmtree(folder)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _room(beside: Path | None) -> Path:
    """Where nobody else can move the folder of copies, and have us write into another in its place."""
    # Whoever owns the folder that a backup is written to could.
    if beside is not None and (found := steady(beside)):
        return found
    usual = Path(os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir()))  # noqa: S108
    if found := steady(usual):
        return found
    raise StartError(f"{usual}: others might move what is put there: set TMPDIR to a folder where they can't")


def _end(number: int, _: object) -> NoReturn:
    _ignore_ends()
    sys.exit(128 + number)


def _ignore_ends() -> None:
    """What follows is to clean up, and takes little time."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Who wants to end us has to wait; the thread is the only one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def classifier_places(table_path: Path) -> dict[Kind, Path]:
    """Where the files of the classifier are, or belong, if its table is that.

    In the order in which they are copied: what one hands on to the next is then in one of them at least.
    """
    return {
        Kind.SPOOL: table_path.with_name(table_path.name + spool.SUFFIX),
        Kind.TAKEN: table_path.with_name(table_path.name + spool.SUFFIX + spool.TAKEN),
        Kind.LEARNED: table_path.with_name(table_path.name + table.SUFFIX),
        Kind.TABLE: table_path,
    }


def _collect(copies: "_Copies", path: str | None, config: Config) -> Iterator[str]:
    """Copy all that there is; yields what can't be in a backup."""
    if path is None:
        yield "a configuration: there is none, the built-in defaults hold"
    else:
        copies.add(Kind.CONFIGURATION, path)
    for file in sorted({named.path for named in named_files(config)}):
        copies.add(Kind.FILE, file)
    for kind, place in classifier_places(table.find(config.of(Classifier).table)).items():
        with suppress(FileNotFoundError):
            copies.add(kind, str(place), is_sqlite=kind is Kind.LEARNED)
    url = parse_store(config.store.url)
    if url.kind != "sqlite":
        yield f"the state: it is not in a file, [store] url is {url.shown}"
        return
    state = find_state(config.store.url)
    if state is not None:
        copies.add(Kind.STATE, str(state), is_sqlite=True)
    else:
        yield "the state: nothing is kept yet"


class _Copies:
    """Copies of files, as they were at one moment each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entries: list[Entry] = []
        self.contents: list[Path] = []

    def add(self, kind: Kind, path: str, *, is_sqlite: bool = False) -> None:
        """Copy a file; raises OSError and sqlite3.Error."""
        copy = self._folder / str(len(self.entries))
        with locate(Path(path)) as place:
            handle = place.open()
            try:
                owner, folder = owner_of(os.fstat(handle)), owner_of(os.fstat(place.folder))
                if os.fstat(handle).st_size > LARGEST[kind]:  # it may be another's, and take all room there is
                    raise UnsafeError(place.path, "is too large")
                if is_sqlite:
                    _copy_sqlite(place, handle, copy)
                else:
                    _copy(handle, copy, LARGEST[kind])
            finally:
                os.close(handle)
        if copy.stat().st_size > LARGEST[kind]:
            raise UnsafeError(place.path, "is too large")
        self.entries.append(Entry(kind, path, *measure(copy), owner, folder))
        self.contents.append(copy)


def owner_of(status: os.stat_result) -> Owner:
    """By number and, if they have some, by names."""
    user = group = ""
    with suppress(KeyError):
        user = pwd.getpwuid(status.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return Owner(user, status.st_uid, group, status.st_gid, stat.S_IMODE(status.st_mode))


def measure(path: Path) -> tuple[int, str]:
    """Size and SHA-256."""
    digest, size = sha256(), 0
    with path.open("rb") as file:
        while octets := file.read(CHUNK):
            digest.update(octets)
            size += len(octets)
    return size, digest.hexdigest()


def _copy(handle: int, copy: Path, most: int) -> None:
    """Copy a file, which may be growing; one octet more than `most` shows that it is too large."""
    left = most + 1
    with open(handle, "rb", closefd=False) as source, copy.open("xb") as file:
        while octets := source.read(min(left, CHUNK)):
            left -= file.write(octets)


def _copy_sqlite(place: Place, handle: int, copy: Path) -> None:
    """Copy a database that others write to: they need not wait if it has a write-ahead log, as the state has.

    It is read as the owner of its folder, whom the files are to belong to that SQLite makes beside it.  Where others may
    write as well, it is read as the owner of the database: a journal of theirs would have SQLite, as root, write to what
    their link leads to, or remove the file that it names.
    """
    is_shared = others_may_write(place.folder)
    if is_shared and os.geteuid() == 0 == os.fstat(handle).st_uid:
        raise UnsafeError(place.path, "is root's, in a folder where others may write")
    path = place.path
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        # Its own journal would have to be made by that owner, in our folder.
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        with acting_as_owner(handle if is_shared else place.folder):
            if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(0, "", str(path.parent))  # SQLite would not say what is out of reach
            try:
                with closing(
                    sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PATIENCE, isolation_level=None)
                ) as source:
                    # One transaction holds one state of it: a copy in steps begins anew whenever somebody writes.
                    source.execute("BEGIN")
                    source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                    source.backup(target)
            except sqlite3.Error as error:
                raise StartError(f"{path}: {error}") from None
    if problem := damage(copy):
        raise StartError(f"{path}: is damaged: {problem}")


def damage(path: Path) -> str:
    """What is wrong with a database that nobody else has open; "" if nothing."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            base.execute("PRAGMA trusted_schema = OFF")  # it may come from anybody
            base.execute("PRAGMA cell_size_check = ON")
            found = str(base.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.Error, TypeError, UnicodeError) as error:
        return str(error)
    return "" if found == "ok" else found


def _write(target: str, manifest: Manifest, contents: list[Path]) -> int:
    """Returns the size of the backup."""
    # The sizes are those of the copies, which nobody changes any more.
    if target == "-":
        counter = _Counter()
        write(counter, manifest, contents)  # type: ignore[arg-type]  # gzip only writes
        sys.stdout.buffer.flush()
        return counter.size
    with locate(Path(target), follow=False) as place:
        status = place.status()
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise UnsafeError(place.path, "is there, and is no regular file")
        new = f".{place.name[:200]}.{secrets.token_hex(8)}"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place.folder)
        try:
            with open(handle, "wb") as file:
                os.fchmod(handle, 0o600)
                write(file, manifest, contents)
                file.flush()
                os.fsync(handle)
                size = file.tell()
            os.rename(new, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=place.folder)
            raise
        os.fsync(place.folder)
    return size


class _Counter:
    """Standard output, with a count."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, octets: bytes) -> int:
        """To all of it."""
        self.size += len(octets)
        return sys.stdout.buffer.write(octets)

    def flush(self) -> None:
        """As files have it."""
        sys.stdout.buffer.flush()
