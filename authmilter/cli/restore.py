"""`authmilter restore`: put back what a backup holds.

Nothing is touched before all of the backup was read, its sums were right, and its configuration, with its keys, stood the
test of `check-config`.  Where files go is for that configuration and `-c` to say, not for the archive.
"""

import argparse
import fcntl
import grp
import os
import pwd
import secrets
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from authmilter.backup_archive import CHUNK, ArchiveError, Entry, Kind, Owner, Reader
from authmilter.checks.classifier import Classifier
from authmilter.classifier import table
from authmilter.cli.backup import classifier_places, damage, errors_told, measure, owner_of, staging, undisturbed
from authmilter.cli.terminal import escaped, plural
from authmilter.cli.terminal import table as aligned
from authmilter.config import ini
from authmilter.config.crosscheck import crosscheck
from authmilter.config.paths import named_files, with_files
from authmilter.config.report import Report
from authmilter.config.schema import Config
from authmilter.errors import ConfigError, StartError
from authmilter.safe_files import Place, locate
from authmilter.server.state import sqlite_path
from authmilter.state_directory import state_directory
from authmilter.store.sqlite import APPLICATION

EX_DATAERR = 65
EX_CANTCREAT = 73
_SQLITE = (Kind.STATE, Kind.LEARNED)
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite may keep beside a file, and would take for that of another
_MODE = 0o775  # what a restored mode may have: no others write, nothing is set-uid
_FOLDER_MODE = 0o2775
_LOCK = 10.0  # seconds to wait for a daemon that is just opening its state


@dataclass
class _Item:
    """A file to restore."""

    entry: Entry
    staged: Path
    goal: Path
    deed: str = "new"  # or "same", "replaced"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("file", metavar="FILE|-", help="a backup that `authmilter backup` wrote; - is standard input")
    parser.add_argument("--dry-run", action="store_true", help="verify all of it and say what would be done")
    parser.add_argument(
        "--force", action="store_true", help="replace files that are there, and keep these beside the new ones"
    )
    parser.add_argument("--list", action="store_true", help="verify the sums of the backup and show what is in it")
    parser.epilog = (
        "The configuration goes to -c FILE, and all else to where it says, with the owners and modes that it had; as another "
        "user than root you remain the owner.  Users must exist: install the package first.  All of it is verified before "
        "anything is touched: sums, databases, and the configuration with its keys as check-config does.  Sums tell damage, "
        "not forgery: a configuration can make the daemon run programs, so restore only what is yours.  What was there is kept as "
        "NAME.before-restore-TIME.  If a file can't be put in place, those before it are taken back.  The daemon may run: it "
        "notices the state and the classifier by itself, and has to be told of the rest.  Exit status: 0 done, or nothing to do, "
        "64 wrong use, 65 it is no backup or is damaged, 69 a file can't be read or written, 73 files are there already and --force "
        "is missing, 78 the configuration in it can't be used on this machine."
    )


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError and StartError; then nothing was changed."""
    with errors_told():
        try:
            with _opened(args.file) as file:
                reader = Reader(file)
                return _list(reader) if args.list else _restore(args, reader)
        except ArchiveError as error:
            print(f"authmilter restore: {escaped(args.file)}: {escaped(str(error))}", file=sys.stderr)
            return EX_DATAERR


def _restore(args: argparse.Namespace, reader: Reader) -> int:
    manifest = reader.manifest
    with staging(None) as folder:
        items = _stage(reader, folder)
        config = _configuration(args.config, items)
        _check(config, args.config, items)
        _place(config, args.config, items)
        for item in items:
            item.deed = _deed(item)
        shown = [(item.deed, str(item.entry.kind), escaped(str(item.goal))) for item in items]
        _tell(aligned(shown) if shown else ["there is no file in it"])
        for sentence in manifest.missing:
            _tell([f"not in it: {escaped(sentence)}"])
        if any(item.deed == "replaced" for item in items) and not args.force:
            _tell(["files are there already: --force replaces them, and keeps them beside"], error=True)
            return EX_CANTCREAT
        if args.dry_run:
            _tell(["nothing was changed"])
            return 0
        before = _configuration_before(args.config)
        changed = [item for item in items if item.deed != "same"]
        _tell([f"kept: {escaped(str(kept))}" for kept in _Change().make(changed)])
    _tell(_what_next(changed, config, before))
    return 0


def _tell(lines: Sequence[str], *, error: bool = False) -> None:
    for line in lines:
        print(f"authmilter restore: {line}" if error else line, file=sys.stderr if error else sys.stdout)


def _list(reader: Reader) -> int:
    manifest = reader.manifest
    for entry in manifest.entries:
        reader.copy(entry, lambda _: None)
    reader.finish()
    _tell([f"authmilter {escaped(manifest.version)}, {escaped(manifest.created)}, on {escaped(manifest.host)}"])
    rows = [
        (
            str(entry.kind),
            f"{entry.owner.mode:04o}",
            escaped(f"{entry.owner.user or entry.owner.uid}:{entry.owner.group or entry.owner.gid}"),
            escaped(entry.path),
            f"{entry.size:,}",
        )
        for entry in manifest.entries
    ]
    _tell(aligned(rows, 1) if rows else [])
    _tell([f"not in it: {escaped(sentence)}" for sentence in manifest.missing])
    return 0


# -- verified before anything is touched --------------------------------------------------------------------------------


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with locate(Path(name)) as place, open(place.open(), "rb") as file:
        yield file


def _stage(reader: Reader, folder: Path) -> list[_Item]:
    """Take all files out of the backup, into that folder."""
    entries = reader.manifest.entries
    free = os.statvfs(folder)
    if sum(entry.size for entry in entries) > free.f_bavail * free.f_frsize:
        raise StartError(f"{folder.parent}: has no room for what is in the backup: set TMPDIR to a folder that has")
    items = []
    for number, entry in enumerate(entries):
        staged = folder / str(number)
        with staged.open("xb") as file:
            # Before the content comes: keys with a mode that the daemon refuses are to be found by the check.
            os.fchmod(file.fileno(), entry.owner.mode & _MODE)
            reader.copy(entry, file.write)
        items.append(_Item(entry, staged, Path()))
    reader.finish()
    for item in items:
        if item.entry.kind in _SQLITE and (problem := _database_problem(item)):
            raise ArchiveError(f"{item.entry.path!r} is damaged: {problem}")
    return items


def _database_problem(item: _Item) -> str:
    problem = damage(item.staged)
    if not problem and item.entry.kind is Kind.STATE:
        with closing(sqlite3.connect(f"{item.staged.as_uri()}?mode=ro&immutable=1", uri=True)) as base:
            if base.execute("PRAGMA application_id").fetchone()[0] not in (0, APPLICATION):
                problem = "it is the database of another program"
    return problem


def _target(option: str | None) -> str:
    return ini.DEFAULT_PATH if option is None else option


def _configuration(option: str | None, items: Sequence[_Item]) -> Config:
    """That of the backup; raises ConfigError."""
    item = next((item for item in items if item.entry.kind is Kind.CONFIGURATION), None)
    if item is None:
        return Config()
    if option is None and item.entry.path != ini.DEFAULT_PATH:
        raise StartError(f"the configuration was {escaped(item.entry.path)}: say with -c where it shall go")
    text = _text_of(item)
    return ini.load(_target(option), text, check_files=False)


def _text_of(item: _Item) -> str:
    try:
        return item.staged.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{escaped(item.entry.path)}: is not UTF-8"]) from None


def _place(config: Config, option: str | None, items: list[_Item]) -> None:
    """Find out where each file belongs; raises ArchiveError."""
    places: dict[Kind, Path] = {Kind.CONFIGURATION: Path(_target(option))}
    places |= classifier_places(Path(config.of(Classifier).table or state_directory() / table.FILE_NAME))
    if state := sqlite_path(config.store.url):
        places[Kind.STATE] = state
    for item in items:
        kind, path = item.entry.kind, item.entry.path
        if kind is not Kind.FILE and kind not in places:
            raise ArchiveError(f"{path!r} is in it, but its configuration has no place for it")
        item.goal = Path(os.path.abspath(path if kind is Kind.FILE else places[kind]))
        with suppress(FileNotFoundError), locate(item.goal) as found:
            item.goal = found.path  # where links of root's lead
    _merge(items)


def _merge(items: list[_Item]) -> None:
    """A file may have been named in several ways."""
    seen: dict[Path, Entry] = {}
    for item in list(items):
        other = seen.setdefault(item.goal, item.entry)
        if other is item.entry:
            continue
        if (other.kind, other.sha256) != (item.entry.kind, item.entry.sha256):
            raise ArchiveError("two files of it have the same place")
        items.remove(item)


def _check(config: Config, option: str | None, items: Sequence[_Item]) -> None:
    """As `check-config` does, with the files of the backup; raises ConfigError and StartError."""
    staged = {item.entry.path: str(item.staged) for item in items if item.entry.kind is Kind.FILE}
    named = {file.path for file in named_files(config)}
    if staged.keys() != named:
        raise ArchiveError(f"{min(staged.keys() ^ named)!r} is not both in it and named by its configuration")
    report = Report(escaped(_target(option)))
    for item in items:
        if item.entry.kind is Kind.CONFIGURATION:
            origins = ini.load_with_origins(_target(option), _text_of(item), check_files=False).origins
            report.lines |= {place: origin.line for place, origin in origins.items()}
        for owner in (item.entry.owner, item.entry.folder):
            _account(owner)
    crosscheck(with_files(config, staged.__getitem__), report, check_files=True)
    try:
        report.raise_errors()
    except ConfigError as error:
        raise ConfigError([_with_own_names(problem, staged) for problem in error.problems]) from None


def _with_own_names(problem: str, staged: Mapping[str, str]) -> str:
    # Longer names first: 1 is the begin of 10.
    for path, place in sorted(staged.items(), key=lambda item: -len(item[1])):
        problem = problem.replace(place, escaped(path))
    return problem


def _account(owner: Owner) -> tuple[int, int]:
    """The numbers of a user and group here; raises StartError."""
    try:
        uid = pwd.getpwnam(owner.user).pw_uid if owner.user else owner.uid
        gid = grp.getgrnam(owner.group).gr_gid if owner.group else owner.gid
    except (KeyError, ValueError) as error:
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        raise StartError(
            f"there is no user {escaped(owner.user)} or no group {escaped(owner.group)} here, to whom files belong: "
            f"install the package first, or make them"
        ) from error
    return uid, gid


def _deed(item: _Item) -> str:
    """What restoring that file means."""
    try:
        with locate(item.goal) as place:
            if place.status() is None:
                return "replaced" if _left_beside(item, place) else "new"
            handle = place.open()
    except FileNotFoundError:
        return "new"
    try:
        status = os.fstat(handle)
        is_same = (
            not _left_beside(item, None)
            and status.st_size == item.entry.size
            and status.st_mode & 0o7777 == item.entry.owner.mode & _MODE
            and (os.geteuid() != 0 or (status.st_uid, status.st_gid) == _account(item.entry.owner))
            and measure(Path(f"/proc/self/fd/{handle}"))[1] == item.entry.sha256
        )
    finally:
        os.close(handle)
    return "same" if is_same else "replaced"


def _left_beside(item: _Item, place: Place | None) -> bool:
    if item.entry.kind not in _SQLITE:
        return False
    if place is None:
        return any(os.path.lexists(f"{item.goal}{suffix}") for suffix in _BESIDE)
    return any(place.status(suffix) is not None for suffix in _BESIDE)


# -- the change ---------------------------------------------------------------------------------------------------------


class _Change:
    """All files get their new content, or none does."""

    def __init__(self) -> None:
        self._suffix = f".before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        self._undo: list[tuple[Path, Callable[[], None]]] = []
        self._kept: list[Path] = []

    def make(self, items: Sequence[_Item]) -> list[Path]:
        """Returns the names under which files that were there are kept.  Raises OSError; all is then as it was."""
        with ExitStack() as stack:
            ready: list[tuple[_Item, Place, str]] = []
            for item in items:
                place = stack.enter_context(self._folder(item))
                new = f".{item.goal.name[:200]}.{secrets.token_hex(8)}"
                stack.callback(_remove, place, new)
                _write(item, place, new)
                ready.append((item, place, new))
            # Between a deed and the note of how to undo it there must be no end; all of them take milliseconds.
            with undisturbed():
                try:
                    for item, place, new in ready:
                        self._replace(item, place, new)
                except BaseException:
                    self._take_back()
                    raise
            for _, place, _ in ready:
                os.fsync(place.folder)
        return self._kept

    def _take_back(self) -> None:
        """As far as that can be done: who owns a folder may have removed what was in it."""
        for path, undo in reversed(self._undo):
            try:
                undo()
            except OSError as error:
                words = f"can't be made what it was: {error.strerror}; look for {path.name}{self._suffix}"
                _tell([f"{escaped(str(path))}: {escaped(words)}"], error=True)

    def _folder(self, item: _Item) -> Place:
        """Where the file goes, in a folder that is made if it is missing."""
        try:
            return locate(item.goal)
        except FileNotFoundError:
            place = locate(item.goal, make=True)
        if os.geteuid() == 0:
            os.fchown(place.folder, *_account(item.entry.folder))
        os.fchmod(place.folder, item.entry.folder.mode & _FOLDER_MODE)
        return place

    def _replace(self, item: _Item, place: Place, new: str) -> None:
        with ExitStack() as stack:
            suffixes = [""]
            if item.entry.kind in _SQLITE:
                stack.enter_context(_locked(place.folder))
                suffixes = [*_BESIDE, ""]
            for suffix in suffixes:
                self._keep(place, suffix, item.entry.kind in _SQLITE)
            _rename(place, new, place.name)
            self._undo.append((place.path, lambda: _remove(place, place.name)))

    def _keep(self, place: Place, suffix: str, is_database: bool) -> None:
        """Set aside what is there; files that SQLite keeps beside one go with it."""
        if place.status(suffix) is None:
            return
        old, kept = place.name + suffix, place.name + self._suffix + suffix
        if place.status(self._suffix + suffix) is not None:
            raise StartError(f"{place.path}{self._suffix}{suffix}: is there already")
        try:
            if is_database:
                _rename(place, old, kept)
            else:  # at no time is it missing
                os.link(old, kept, src_dir_fd=place.folder, dst_dir_fd=place.folder, follow_symlinks=False)
        except PermissionError:  # not every file system knows it, and not every file may have a second name
            _rename(place, old, kept)
        self._undo.append((place.path, lambda: _put_back(place, kept, old)))
        if not suffix:
            self._kept.append(place.path.with_name(kept))


def _write(item: _Item, place: Place, name: str) -> None:
    try:
        _write_new(item, place, name)
    except OSError as error:
        error.filename = str(place.path)  # not that of the new file, which says less, or none
        raise


def _write_new(item: _Item, place: Place, name: str) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place.folder)
    with open(handle, "wb") as file, item.staged.open("rb") as source:
        shutil.copyfileobj(source, file, CHUNK)
        file.flush()
        if os.geteuid() == 0:
            os.fchown(handle, *_account(item.entry.owner))
        os.fchmod(handle, item.entry.owner.mode & _MODE)
        os.fsync(handle)


def _rename(place: Place, old: str, new: str) -> None:
    os.rename(old, new, src_dir_fd=place.folder, dst_dir_fd=place.folder)


def _put_back(place: Place, kept: str, old: str) -> None:
    _rename(place, kept, old)
    _remove(place, kept)  # it stays if both are names of the same file


def _remove(place: Place, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place.folder)


@contextmanager
def _locked(folder: int) -> Iterator[None]:
    """No daemon opens the state meanwhile: see `authmilter.store.sqlite`."""
    until = time.monotonic() + _LOCK
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                raise StartError("another program holds the state: stop the daemon first") from None
            time.sleep(0.05)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


# -- what has to be told to whom ----------------------------------------------------------------------------------------


def _configuration_before(option: str | None) -> Config | None:
    with suppress(ConfigError):
        return ini.load(ini.find(_target(option)), check_files=False)
    return None


def _what_next(changed: Sequence[_Item], config: Config, before: Config | None) -> list[str]:
    """What an operator has to do now."""
    if not changed:
        return ["all of it was there already"]
    lines = [f"{plural(len(changed), 'file')} restored"]
    kinds = {item.entry.kind for item in changed}
    if os.geteuid() != 0 and any(owner_of(item.goal.stat()).user != item.entry.owner.user for item in changed):
        lines.append("owners are not as they were: that takes root")
    if kinds & {Kind.CONFIGURATION, Kind.FILE}:
        restart = (
            before is None or bool(ini.changed_needing_restart(before, config)) or _is_read_at_start(changed, config)
        )
        word = "restart" if restart else "reload"
        lines.append(f"a daemon that runs has to be told: systemctl {word} authmilter")
    else:
        lines.append("a daemon that runs notices it by itself")
    return lines


def _is_read_at_start(changed: Sequence[_Item], config: Config) -> bool:
    """Some files are only read when the daemon starts."""
    files = {item.entry.path for item in changed}
    return bool(files & {config.store.password_file, config.store.ca_file})
