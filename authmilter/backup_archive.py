"""The form of a backup: a tar file, compressed by gzip, that begins with a manifest.

``manifest.json`` says of each file what it is, where it was, its size, SHA-256, owner and mode.  The files follow in that
order, under names such as ``001/authmilter.ini``, so that any tar program can take them out.  `Reader` takes nothing else
than what `write` makes: no links, no other names, and no octet more than the manifest says.  Where a file belongs is for
who restores to say; the path in the manifest decides nothing.
"""

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

FORMAT = 1
CHUNK = 1 << 20
_MANIFEST = "manifest.json"
_MOST_MANIFEST = 8 << 20  # octets
_MOST_FILES = 10_000
_LAST_ID = (1 << 32) - 2  # of users and groups
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ArchiveError(ValueError):
    """It is no backup, or is damaged; the text says what is wrong."""


class Kind(StrEnum):
    """What a file is."""

    CONFIGURATION = "configuration"
    FILE = "file"  # that the configuration names
    STATE = "state"
    SPOOL = "spool"  # of the classifier, as are those that follow
    TAKEN = "taken"
    LEARNED = "learned"
    TABLE = "table"


LARGEST = {  # octets
    Kind.CONFIGURATION: 10 << 20,
    Kind.FILE: 64 << 20,
    Kind.STATE: 1 << 40,
    Kind.SPOOL: 64 << 20,
    Kind.TAKEN: 64 << 20,
    Kind.LEARNED: 1 << 40,
    Kind.TABLE: 1 << 30,
}


class Owner(NamedTuple):
    """To whom a file or folder belongs, by names where these exist ("" otherwise), and its mode."""

    user: str
    uid: int
    group: str
    gid: int
    mode: int


@dataclass(frozen=True)
class Entry:
    """A file, and the folder that it was in.  `path` is the one that it had, that of a FILE as the option has it."""

    kind: Kind
    path: str
    size: int
    sha256: str
    owner: Owner
    folder: Owner


@dataclass(frozen=True)
class Manifest:
    """What is in a backup.  `missing` are sentences on what is not."""

    version: str  # of authmilter
    created: str  # ISO 8601
    host: str
    missing: tuple[str, ...]
    entries: tuple[Entry, ...]


def write(file: BinaryIO, manifest: Manifest, contents: Sequence[Path]) -> None:
    """Write a backup; `contents` are files with what the entries describe.  Raises OSError."""
    octets = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode() + b"\n"
    with (
        gzip.GzipFile("", "wb", 6, file) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        tar.addfile(_header(_MANIFEST, len(octets)), _Octets(octets))
        for number, (entry, path) in enumerate(zip(manifest.entries, contents, strict=True), 1):
            with path.open("rb") as content:
                tar.addfile(_header(_member(number, entry), entry.size), content)


class Reader:
    """A backup that is read from its begin to its end; every method raises ArchiveError, and OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self._number = 0
        size = self._next(_MANIFEST)
        if size > _MOST_MANIFEST:
            raise ArchiveError("its manifest is too large")
        octets = self._read(size)
        self._skip(size)
        self.manifest = _parse(octets)

    def copy(self, entry: Entry, sink: Callable[[bytes], object]) -> None:
        """Give the content of the next file to `sink`, in pieces; the last is given before its SHA-256 is known."""
        self._number += 1
        if self._next(_member(self._number, entry)) != entry.size:
            raise ArchiveError(f"{entry.path!r} is not as long as its manifest says")
        digest, left = sha256(), entry.size
        while left:
            octets = self._read(min(left, CHUNK))
            left -= len(octets)
            digest.update(octets)
            sink(octets)
        self._skip(entry.size)
        if digest.hexdigest() != entry.sha256:
            raise ArchiveError(f"{entry.path!r} is not what its SHA-256 says: it is damaged")

    def finish(self) -> None:
        """After the last file: nothing may follow."""
        rest = self._some(2 * tarfile.RECORDSIZE)
        if len(rest) < 2 * tarfile.BLOCKSIZE or len(rest) > tarfile.RECORDSIZE + tarfile.BLOCKSIZE or any(rest):
            raise ArchiveError("it goes on where it should end, or is cut off")

    def _next(self, name: str) -> int:
        """Read the header of a file of that name; returns its size."""
        block = self._read(tarfile.BLOCKSIZE)
        try:
            # Headers alone: what tarfile does with those of other types takes memory as their sizes say.
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise ArchiveError("it is no tar file, or is damaged") from None
        if found.type != tarfile.REGTYPE or found.name != name or found.size < 0:
            raise ArchiveError(f"{found.name[:100]!r} stands in it where {name!r} should")
        return found.size

    def _skip(self, size: int) -> None:
        """What fills the last block of a file of that size."""
        self._read(-size % tarfile.BLOCKSIZE)

    def _read(self, size: int) -> bytes:
        octets = self._some(size)
        if len(octets) < size:
            raise ArchiveError("it is cut off")
        return octets

    def _some(self, size: int) -> bytes:
        """So many octets, or all that are left."""
        try:
            return self._file.read(size) if size else b""
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ArchiveError(f"it is no gzip file, or is damaged: {error}") from None


class _Octets:
    """What tarfile reads from."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def read(self, size: int = -1) -> bytes:
        """The next of them."""
        size = len(self._octets) if size < 0 else size
        octets, self._octets = self._octets[:size], self._octets[size:]
        return octets


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    return header


def _member(number: int, entry: Entry) -> str:
    return f"{number:03}/{_UNUSUAL.sub('_', Path(entry.path).name)[:80]}"


def _parse(octets: bytes) -> Manifest:
    try:
        found = json.loads(octets)
        _check_format(found["format"])
        manifest = Manifest(
            _text(found["version"]),
            _text(found["created"]),
            _text(found["host"]),
            tuple(_text(sentence) for sentence in found["missing"]),
            tuple(map(_entry, found["entries"][: _MOST_FILES + 1])),
        )
    except ArchiveError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ArchiveError("its manifest can't be read") from None
    if len(manifest.entries) > _MOST_FILES:
        raise ArchiveError("it has too many files")
    places = [(entry.kind, entry.path) for entry in manifest.entries]
    single = [kind for kind, _ in places if kind is not Kind.FILE]
    if len(set(places)) != len(places) or len(set(single)) != len(single):
        raise ArchiveError("a file is in it twice")
    return manifest


def _check_format(number: Any) -> None:
    if number != FORMAT:
        raise ArchiveError("it was made by another version of authmilter, in a form that this one does not know")


def _entry(found: dict[str, Any]) -> Entry:
    entry = Entry(
        Kind(found["kind"]),
        _text(found["path"]),
        _number(found["size"], 1 << 40),
        _text(found["sha256"]),
        _owner(found["owner"]),
        _owner(found["folder"]),
    )
    if not _DIGEST.fullmatch(entry.sha256) or not entry.path or "\0" in entry.path:
        raise ValueError
    if entry.size > LARGEST[entry.kind]:
        raise ArchiveError(f"{entry.path!r} is too large")
    return entry


def _owner(found: list[Any]) -> Owner:
    user, uid, group, gid, mode = found
    # The number after the last means "leave it as it is" to chown.
    return Owner(_text(user), _number(uid, _LAST_ID), _text(group), _number(gid, _LAST_ID), _number(mode, 0o7777))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError
    value.encode()  # no lone surrogates
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError
    return value
