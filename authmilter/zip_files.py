"""The files of a zip archive, by its directory and by what stands before each of them.

After APPNOTE.TXT of PKWARE, to which the section numbers belong.  Readers go by the directory at the end, others by the
headers before the files; a hostile archive says something else in each, so the files of both are listed.
"""

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from authmilter.mime_fields import decode
from authmilter.sevenzip import Folder, Stored, Unpacker

MAX_FILES = 5000
_UNKNOWN = 0xFFFFFFFF  # the size is a larger one, and said elsewhere (4.4.8)


class File(NamedTuple):
    """A file: `packed` octets from `start` on, -1 if their number is not said."""

    name: str
    size: int
    encrypted: bool
    method: int
    start: int
    packed: int

    def octets(self, data: bytes, most: int) -> bytes:
        """The packed octets as far as they are needed for the first `most` ones that are not packed."""
        wanted = most if self.method == 0 else 2 * most + 1024
        return data[self.start : self.start + (wanted if self.packed < 0 else min(wanted, self.packed))]


def read_zip(data: bytes) -> list[File]:
    """Every file that some reader would find, at most `MAX_FILES` and one; never fails."""
    found: list[File] = []
    known: set[tuple[int, bytes, int, bool]] = set()
    for file, local, name in _by_directory(data):
        found.append(file)
        known.add((local, name, file.method, file.encrypted))
        if len(found) > MAX_FILES:
            return found
    for file, local, name in _by_headers(data):
        if (local, name, file.method, file.encrypted) not in known:
            found.append(file)
            if len(found) > MAX_FILES:
                break
    return found


def unpacker(file: File, octets: bytes, most: int) -> tuple[Unpacker, bytes] | None:
    """What unpacks the octets of a file, and those that are to be given to it; None if there is no such method here.

    Raises lzma.LZMAError, ValueError.
    """
    if file.method == 0:
        return Stored(), octets
    if file.method == 8:
        return zlib.decompressobj(-15), octets
    if file.method == 12:
        return bz2.BZ2Decompressor(), octets
    if file.method == 14 and len(octets) > 9:  # 5.8.8: version, and size of the properties
        found = Folder(((b"\3\1\1", octets[4:9]),), b"", 0).unpacker(most)
        return (found, octets[9:]) if found else None
    if file.method == 95:
        return lzma.LZMADecompressor(memlimit=64 * 1024 * 1024), octets
    return None


def _by_directory(data: bytes) -> Iterator[tuple[File, int, bytes]]:
    """4.3.12: the files, where their headers should be, and their names as written."""
    end = data.rfind(b"PK\5\6")
    size, offset = (_u32(data, end + 12), _u32(data, end + 16)) if end >= 0 else (0, 0)
    at = end - size
    if end < 0 or at < 0 or not data.startswith(b"PK\1\2", at):
        at = data.find(b"PK\1\2")
        offset = at
    shift = 0 if offset == _UNKNOWN else at - offset  # what stands before the archive is not counted by all writers
    directories = 0  # left out as far as there are few: to pass over them costs as much as a file
    while at >= 0 and len(data) >= at + 46:
        flags, method = _u16(data, at + 8), _u16(data, at + 10)
        packed, unpacked = _u32(data, at + 20), _u32(data, at + 24)
        name = data[at + 46 : at + 46 + _u16(data, at + 28)]
        local = _u32(data, at + 42) + shift
        if local < 0 or not data.startswith(b"PK\3\4", local):
            local -= shift
        there = local >= 0 and data.startswith(b"PK\3\4", local)
        start = local + 30 + _u16(data, local + 26) + _u16(data, local + 28) if there else len(data)
        if name.endswith(b"/") and directories < MAX_FILES:
            directories += 1
        else:
            yield (
                File(
                    _shown(name, flags, data[at + 46 + len(name) : at + 46 + len(name) + _u16(data, at + 30)]),
                    0 if unpacked == _UNKNOWN else unpacked,
                    bool(flags & 1),
                    method,
                    start,
                    -1 if packed == _UNKNOWN else packed,
                ),
                local if there else -1,
                name,
            )
        following = at + 46 + len(name) + _u16(data, at + 30) + _u16(data, at + 32)
        at = following if data.startswith(b"PK\1\2", following) else data.find(b"PK\1\2", at + 46 + len(name))


def _by_headers(data: bytes) -> Iterator[tuple[File, int, bytes]]:
    """4.3.7: the same by the header before each file."""
    at = data.find(b"PK\3\4")
    directories = 0
    while at >= 0 and len(data) >= at + 30:
        flags, method = _u16(data, at + 6), _u16(data, at + 8)
        packed, unpacked = _u32(data, at + 18), _u32(data, at + 22)
        name = data[at + 30 : at + 30 + _u16(data, at + 26)]
        start = at + 30 + len(name) + _u16(data, at + 28)
        # 4.4.4: with bit 3 the sizes stand behind the file, and are 0 here.
        said = bool(packed) and packed != _UNKNOWN and not flags & 8
        if name.endswith(b"/") and directories < MAX_FILES:
            directories += 1
        else:
            size = 0 if unpacked == _UNKNOWN else unpacked
            extra = data[at + 30 + len(name) : start]
            file = File(_shown(name, flags, extra), size, bool(flags & 1), method, start, packed if said else -1)
            yield file, at, name
        at = data.find(b"PK\3\4", max(start + packed if said else start, at + 4))


def _shown(name: bytes, flags: int, extra: bytes) -> str:
    """The name; that in the extra field goes before it if it has the checksum of it (4.6.9)."""
    at = 0
    while at + 4 <= len(extra):
        size = _u16(extra, at + 2)
        if _u16(extra, at) == 0x7075 and size > 5 and _u32(extra, at + 5) == zlib.crc32(name):
            name, flags = extra[at + 9 : at + 4 + size], 0x800
            break
        at += 4 + size
    return decode(name, "utf-8" if flags & 0x800 else "cp437").replace("\\", "/")


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
