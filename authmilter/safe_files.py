"""Files and folders opened by their names, such that nobody with fewer rights can lead us to another file.

Who owns a folder may put links into it, or another name of a file that is not his.  So links are followed only if they
are root's or ours, in a folder that is root's or ours; and what lies in the folder of anybody else must be his, or a file of
root's that has no other name.
"""

import os
import stat
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

_MOST_LINKS = 40  # as in Linux
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# A FIFO must not keep us waiting, nor a terminal become ours.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnsafeError(OSError):
    """Somebody with fewer rights might have chosen what this name leads to."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(0, why, str(path))


class Place(NamedTuple):
    """An open folder, and the name of a file in it, which may not exist.  `path` has no links in it."""

    folder: int
    path: Path

    @property
    def name(self) -> str:
        """Without its folder."""
        return self.path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.folder)

    def status(self, suffix: str = "") -> os.stat_result | None:
        """Of the file with that behind its name, None if there is none; links are not followed."""
        with suppress(FileNotFoundError):
            return os.stat(self.name + suffix, dir_fd=self.folder, follow_symlinks=False)
        return None

    def open(self) -> int:
        """A handle to read the file; raises OSError, and UnsafeError if it is no regular file of the right owner."""
        try:
            handle = os.open(self.name, _FILE, dir_fd=self.folder)
        except OSError as error:
            error.filename = str(self.path)
            raise
        try:
            _check_file(self.path, os.fstat(self.folder), os.fstat(handle))
        except BaseException:
            os.close(handle)
            raise
        return handle


def locate(path: Path, *, make: bool = False, follow: bool = True) -> Place:
    """Go to the folder of that path, link by link.

    With `make`, folders that are missing are made, with mode 0755.  Without `follow`, the last name may be that of a link.
    Raises OSError, UnsafeError among them.
    """
    walk = _Walk(Path(os.path.abspath(path)))
    try:
        return walk.to_its_end(make, follow)
    except BaseException as error:
        os.close(walk.folder)
        if isinstance(error, OSError) and not isinstance(error, UnsafeError):
            error.filename = str(path)
        raise


def others_may_write(folder: int) -> bool:
    """May others than its owner make and remove files in that open folder?"""
    return bool(os.fstat(folder).st_mode & _OTHERS_WRITE)


def steady(folder: Path) -> Path | None:
    """That folder without links, if nobody else can put another thing in its place or in that of what we make in it.

    Such a folder may be used by its path.  Raises OSError.
    """
    found = Path(os.path.realpath(folder, strict=True))
    for path in (*reversed(found.parents), found):  # from the root on: what was looked at stays
        status = path.lstat()
        may_be_moved = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in _trusted() or may_be_moved:
            return None
    return found


class _Walk:
    """From the root to a file, one folder after the other."""

    def __init__(self, path: Path) -> None:
        self._goal = path
        self._parts = deque(path.parts[1:])
        self._links = 0
        self._at = Path("/")
        self.folder = os.open("/", _FOLDER)

    def to_its_end(self, make: bool, follow: bool) -> Place:
        """The folder is the caller's then."""
        while self._parts:
            part = self._parts.popleft()
            status = self._look(part)
            if status is not None and stat.S_ISLNK(status.st_mode) and (follow or self._parts):
                self._follow(part, status)
            elif self._parts:
                is_made = status is None and make
                if is_made:
                    self._make(part)
                self._enter(part)
                if is_made:
                    os.fchmod(self.folder, 0o755)  # whatever the umask says
            else:
                return Place(self.folder, self._at / part)
        raise UnsafeError(self._goal, "is a folder")

    def _look(self, name: str) -> os.stat_result | None:
        with suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        return None

    def _follow(self, link: str, status: os.stat_result) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise UnsafeError(self._goal, "is behind too many links")
        if not {status.st_uid, os.fstat(self.folder).st_uid} <= _trusted():
            raise UnsafeError(self._at / link, "is a link that others than root have made, or might have")
        target = Path(os.readlink(link, dir_fd=self.folder))
        if target.is_absolute():
            self._go_to(os.open("/", _FOLDER), Path("/"))
        self._parts.extendleft(reversed(target.parts[target.is_absolute() :]))

    def _enter(self, name: str) -> None:
        inner = os.open(name, _FOLDER, dir_fd=self.folder)
        above = os.fstat(self.folder)
        self._go_to(inner, self._at.parent if name == ".." else self._at / name)
        if name != "..":
            _check_owner(self._at, above, os.fstat(inner))

    def _make(self, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=self.folder)
        above = os.fstat(self.folder)
        if above.st_uid not in _trusted():
            os.chown(name, above.st_uid, above.st_gid, dir_fd=self.folder, follow_symlinks=False)

    def _go_to(self, folder: int, path: Path) -> None:
        os.close(self.folder)
        self.folder, self._at = folder, path


def _check_file(path: Path, folder: os.stat_result, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeError(path, "is no regular file")
    may_be_chosen = folder.st_uid not in _trusted() or folder.st_mode & _OTHERS_WRITE
    if may_be_chosen and status.st_nlink > 1:
        raise UnsafeError(path, "has another name, which others may have given to it")
    if status.st_uid not in _trusted():  # root's, with one name, was put there by root
        _check_owner(path, folder, status)


def _check_owner(path: Path, folder: os.stat_result, status: os.stat_result) -> None:
    if folder.st_uid not in _trusted() and status.st_uid != folder.st_uid:
        raise UnsafeError(path, "belongs to another than the folder that it is in")


def _trusted() -> set[int]:
    return {0, os.geteuid()}
