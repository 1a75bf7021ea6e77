"""What is in an archive, by name, and what its files begin with.

zip, 7z, RAR, tar, cabinet, TNEF, gzip, bzip2 and xz are read, archives within archives too; nothing is unpacked further than it
takes to see what it is.  Work is bounded by a `Budget` for an archive with all that is in it, or for several archives, so
that a bomb costs what any other archive of its size does.  Nothing here fails.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

from authmilter.filetype import OFFICE, extensions, file_type
from authmilter.mime_fields import decode
from authmilter.rar import read_rar
from authmilter.sevenzip import Folder, Stored, Unpacker, read_7z
from authmilter.tnef import read_tnef
from authmilter.zip_files import File as ZipFile
from authmilter.zip_files import read_zip, unpacker

MAX_MEMBERS = 1000
MAX_UNPACKED = 8 * 1024 * 1024  # octets that are unpacked in all
MAX_DEPTH = 3
MAX_NAME = 1000  # characters of a name with its path; the end counts
_HEAD = 4096  # octets of a file that show what it is
_MAX_CONTENT = 512 * 1024  # octets of a file of a type that is looked into
_MEMORY = 64 * 1024 * 1024  # octets that xz may take; its files say how much they want
_SLOW = 4  # how much longer LZMA and bzip2 take than deflate

ZIPS = frozenset(("zip", "office-zip", "jar"))
READABLE = frozenset(("zip", "jar", "tar", "gzip", "bzip2", "xz", "7z", "rar", "cabinet", "tnef"))
_WITHIN = READABLE - {"jar"}  # that it is one says enough
_LOOKED_INTO = frozenset(("html", "svg", "office-ole", "office-zip", "rtf", "pdf"))


class Member(NamedTuple):
    """A file in an archive.

    `name` is that with its path, `type` as of `filetype.file_type`, "" if it is not known or encrypted.  `content` is how
    the file begins: some kilobytes, or more if it is of a type that may be worth a look.
    """

    name: str
    type: str
    encrypted: bool
    content: bytes = b""


class Archive(NamedTuple):
    """What is in an archive.

    `members` has those of inner archives too.  `cut` says why not all is there, "" if it is.  `claimed` are the octets
    that the files say they have, and `ratio` is how many times larger that is than the archive.  `locked`: not even the
    names are to be had without a password.
    """

    members: tuple[Member, ...]
    cut: str
    claimed: int
    ratio: float
    locked: bool = False

    @property
    def encrypted(self) -> bool:
        """Is a file in it encrypted, or all of it?"""
        return self.locked or any(member.encrypted for member in self.members)


class Budget:
    """What is left of the work that archives may make."""

    def __init__(self) -> None:
        self.members = MAX_MEMBERS
        self.octets = MAX_UNPACKED


def read_archive(data: bytes, budget: Budget | None = None, kind: str = "") -> Archive:
    """Read an archive of a type that is in `READABLE`; of another there is nothing.

    `kind` is the type as which it is read, where that is not what it begins like.
    """
    reader = _Reader(budget or Budget())
    reader.read(data, kind or file_type(data), 0, "")
    ratio = reader.claimed / max(len(data), 1)
    return Archive(tuple(reader.members), reader.cut, reader.claimed, ratio, reader.locked)


_Beginning = Callable[[int], bytes]  # at most that many first octets of a file


def _nothing(_: int) -> bytes:
    return b""


class _Reader:
    def __init__(self, budget: Budget) -> None:
        self.members: list[Member] = []
        self.cut = ""
        self.claimed = 0
        self.locked = False
        self._budget = budget

    def read(self, data: bytes, kind: str, depth: int, path: str) -> None:
        """Add what is in `data`."""
        if kind in ZIPS:
            self._zip(data, depth, path)
        elif kind == "tar":
            self._tar(data, depth, path)
        elif kind == "7z":
            self._7z(data, depth, path)
        elif kind == "rar":
            self._rar(data, depth, path)
        elif kind == "cabinet":
            self._cabinet(data, path)
        elif kind == "tnef":
            self._tnef(data, depth, path)
        elif kind in ("gzip", "bzip2", "xz"):
            self._stream(data, kind, depth, path)

    def _full(self) -> bool:
        full = self._budget.members <= 0
        if full:
            self.cut = self.cut or f"more than {MAX_MEMBERS} files"
        return full

    def _unpack(self, unpacker: Unpacker, data: bytes, most: int) -> bytes:
        """The first octets of what is packed; b"" if it is damaged."""
        slowness = 1 if isinstance(unpacker, _QUICK) else _SLOW
        room = self._budget.octets // slowness
        if room <= 0:
            self.cut = self.cut or "too much to unpack"
            return b""
        try:
            found = unpacker.decompress(data, min(most, room))
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, MemoryError):
            found = b""
        # What gives little may have cost much all the same.
        self._budget.octets -= max(len(found), min(len(data), most) // 8) * slowness
        return found

    def _add(self, name: str, depth: int, path: str, beginning: _Beginning, *, encrypted: bool = False) -> None:
        """Add a file, and what is in it if it is an archive."""
        self._budget.members -= 1
        full_name = f"{path}{name}"[-MAX_NAME:]
        head = b"" if encrypted else beginning(_HEAD)
        kind = file_type(head) if head else ""
        if kind == "office-zip" and not OFFICE.intersection(extensions(name)[:1]):
            kind = "zip"  # made to look like a document, which nobody opens as one
        content = beginning(_MAX_CONTENT) if kind in _LOOKED_INTO and len(head) == _HEAD else head
        self.members.append(Member(full_name, kind, encrypted, content))
        if kind in _WITHIN:
            if depth + 1 >= MAX_DEPTH:
                self.cut = self.cut or f"archives {MAX_DEPTH} deep"
            else:
                inner = beginning(MAX_UNPACKED) if len(head) == _HEAD else head
                self.read(inner, kind, depth + 1, f"{full_name}/" if full_name else "")

    # ------------------------------------------------------------------------------------------------ zip, 7z, RAR

    def _zip(self, data: bytes, depth: int, path: str) -> None:
        for file in read_zip(data):
            if self._full():
                return
            self.claimed += file.size
            self._add(file.name, depth, path, self._zip_beginning(data, file), encrypted=file.encrypted)

    def _zip_beginning(self, data: bytes, file: ZipFile) -> _Beginning:
        def beginning(most: int) -> bytes:
            octets = file.octets(data, most)
            try:
                found = unpacker(file, octets, most)
            except (lzma.LZMAError, ValueError, MemoryError):
                return b""
            return self._unpack(found[0], found[1], most) if found else b""

        return beginning

    def _7z(self, data: bytes, depth: int, path: str) -> None:
        directory = read_7z(data)
        self.cut = self.cut or directory.cut
        self.locked = self.locked or directory.encrypted
        unpacked: dict[int, bytes] = {}
        for file in directory.files:
            if self._full():
                return
            self.claimed += file.size
            folder = directory.folders[file.folder] if 0 <= file.folder < len(directory.folders) else None
            if folder is None or folder.encrypted:
                self._add(file.name, depth, path, _nothing, encrypted=folder is not None)
                continue
            if file.folder not in unpacked:
                unpacked[file.folder] = self._folder(folder)
            self._add(file.name, depth, path, _slice(unpacked[file.folder], file.at, file.size))

    def _folder(self, folder: Folder) -> bytes:
        """The files of a folder follow each other without any mark, so what is before one is unpacked with it."""
        most = min(folder.size, self._budget.octets // (2 * _SLOW))
        try:
            found = folder.unpacker(most)
        except (lzma.LZMAError, ValueError, MemoryError):
            found = None
        return self._unpack(found, folder.packed, most) if found and most > 0 else b""

    def _rar(self, data: bytes, depth: int, path: str) -> None:
        directory = read_rar(data)
        self.cut = self.cut or directory.cut
        self.locked = self.locked or directory.encrypted
        for file in directory.files:
            if self._full():
                return
            self.claimed += file.size
            self._add(file.name, depth, path, _slice(file.content, 0, MAX_UNPACKED), encrypted=file.encrypted)

    def _cabinet(self, data: bytes, path: str) -> None:
        """Names alone ("Microsoft Cabinet File Format", CFHEADER and CFFILE)."""
        at = _u32(data, 16)
        for _ in range(_u16(data, 28)):
            end = data.find(b"\0", at + 16)
            if end < 0 or self._full():
                return
            self.claimed += _u32(data, at)
            utf_8 = _u16(data, at + 14) & 0x80
            name = decode(data[at + 16 : end], "utf-8" if utf_8 else "cp437").replace("\\", "/")
            self._add(name, MAX_DEPTH, path, _nothing)
            at = end + 1

    def _tnef(self, data: bytes, depth: int, path: str) -> None:
        for file in read_tnef(data):
            self.claimed += file.size
            for name in file.names or ("",):
                if self._full():
                    return
                self._add(name, depth, path, _slice(data, file.at, file.size))

    # ------------------------------------------------------------------------------------------------ tar and streams

    def _tar(self, data: bytes, depth: int, path: str) -> None:
        """Blocks of 512 octets (POSIX.1-2017, pax, "ustar Interchange Format")."""
        at = 0
        long_name = b""
        while at + 512 <= len(data) and not self._full():
            header = data[at : at + 512]
            if not header.strip(b"\0"):
                break
            begin, size = at + 512, _octal(header[124:136])
            at = begin + (size + 511) // 512 * 512
            kind = header[156:157]
            if kind == b"L":  # GNU: the name of the next file
                long_name = data[begin : begin + min(size, MAX_NAME)].rstrip(b"\0")
            elif kind == b"x":
                found = _PAX_PATH.search(data, begin, min(begin + size, begin + 65536))
                long_name = found[1][:MAX_NAME] if found else b""
            elif kind in (b"0", b"\0", b"7", b""):
                prefix = header[345:500].partition(b"\0")[0]
                name = long_name or (prefix + b"/" if prefix else b"") + header[:100].partition(b"\0")[0]
                self.claimed += size
                self._add(decode(name, "utf-8"), depth, path, _slice(data, begin, size))
                long_name = b""

    def _stream(self, data: bytes, kind: str, depth: int, path: str) -> None:
        """One file, which is mostly a tar."""
        unpacker: Unpacker
        if kind == "gzip":
            unpacker = zlib.decompressobj(31)
        elif kind == "bzip2":
            unpacker = bz2.BZ2Decompressor()
        else:
            unpacker = lzma.LZMADecompressor(memlimit=_MEMORY)
        content = self._unpack(unpacker, data, MAX_UNPACKED)
        self.claimed += len(content)
        if self._budget.octets <= 0:
            self.cut = self.cut or "too much to unpack"
        if file_type(content) == "tar":
            self.read(content, "tar", depth, path)
        elif not self._full():
            self._add(_gzip_name(data) if kind == "gzip" else "", depth, path, _slice(content, 0, len(content)))


_QUICK = (type(zlib.decompressobj()), Stored)  # many files of a zip may be the same octets, so these count too
_PAX_PATH = re.compile(rb"[0-9]{1,9} path=([^\n]{1,4096})\n")


def _slice(data: bytes, at: int, size: int) -> _Beginning:
    return (lambda most: data[at : at + min(most, size)]) if at >= 0 else _nothing


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _octal(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0


def _gzip_name(data: bytes) -> str:
    """The name of the original file (RFC 1952 section 2.3), "" if it is not said."""
    if len(data) < 12 or not data[3] & 8:
        return ""
    at = 10
    if data[3] & 4:
        at += 2 + _u16(data, at)
    return decode(data[at : at + MAX_NAME].partition(b"\0")[0], "latin-1")
