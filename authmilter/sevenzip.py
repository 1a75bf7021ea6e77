"""The directory of a 7z archive, and what its files begin with.

After ``7zFormat.txt`` of the LZMA SDK.  py7zr, which reads all of it, unpacks a directory to whatever size that claims:
29 kilobytes take 450 MB and more than a second there.  Here a directory is unpacked as far as `MAX_DIRECTORY` goes, and
a dictionary is never larger than what is wanted.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MAX_DIRECTORY = 1024 * 1024  # octets
MAX_COUNT = 10_000  # of anything in a directory
_MAX_CODERS = 4  # of a folder: a method and its filters
_MAX_LAYERS = 4  # of packed directories

_HEADER, _ADDITIONAL, _MAIN, _FILES, _PACK, _UNPACK, _SUBSTREAMS = 1, 3, 4, 5, 6, 7, 8
_SIZE, _DIGESTS, _FOLDER, _SIZES, _COUNTS, _EMPTY, _NAMES, _PACKED = 9, 10, 11, 12, 13, 14, 17, 23

_COPY = b"\0"
_LZMA, _LZMA2 = b"\3\1\1", b"\x21"
_DEFLATE, _BZIP2 = b"\4\1\x08", b"\4\2\2"
_AES = (b"\6\xf1\7\1", b"\6\1", b"\6\2")  # and what else begins so
_FILTERS = {
    b"\3\3\1\3": lzma.FILTER_X86,
    b"\4": lzma.FILTER_X86,
    b"\3\3\2\5": lzma.FILTER_POWERPC,
    b"\3\3\4\1": lzma.FILTER_IA64,
    b"\3\3\5\1": lzma.FILTER_ARM,
    b"\3\3\7\1": lzma.FILTER_ARMTHUMB,
    b"\3\3\x08\5": lzma.FILTER_SPARC,
}


class Unpacker(Protocol):
    """What lzma, bz2 and zlib have in common."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """The next octets."""
        ...


class File(NamedTuple):
    """A file: `at` is where it begins in what `folder` unpacks to, -1 if it is empty or that is not said."""

    name: str
    size: int
    folder: int
    at: int


class Folder(NamedTuple):
    """Files that are packed as one.

    `packed` are their octets, `coders` the methods with their properties, `size` the octets that they say they unpack to.
    """

    coders: tuple[tuple[bytes, bytes], ...]
    packed: bytes
    size: int

    @property
    def encrypted(self) -> bool:
        """Is a password needed?"""
        return any(method.startswith(_AES) for method, _ in self.coders)

    def unpacker(self, most: int) -> Unpacker | None:
        """What unpacks the first `most` octets; None if there is no such method here.  Raises lzma.LZMAError."""
        if len(self.coders) == 1:
            method, _ = self.coders[0]
            if method == _COPY:
                return Stored()
            if method == _DEFLATE:
                return zlib.decompressobj(-15)
            if method == _BZIP2:
                return bz2.BZ2Decompressor()
        # Writers differ in whether the filter or the method comes first.
        chain = sorted(self.coders, key=lambda coder: coder[0] in (_LZMA, _LZMA2))
        filters = [_filter(method, props, most) for method, props in chain]
        if len(filters) > 2 or any(found is None for found in filters) or chain[-1][0] not in (_LZMA, _LZMA2):
            return None
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[found for found in filters if found])


def _filter(method: bytes, props: bytes, most: int) -> dict[str, int] | None:
    """How liblzma calls it; None if it has no such filter.

    Nothing refers back further than to the first octet, so a dictionary for what is not wanted needs no room.
    """
    if method == _LZMA2 and len(props) == 1 and props[0] <= 40:
        size = 0xFFFFFFFF if props[0] == 40 else (2 | props[0] & 1) << (props[0] // 2 + 11)
        return {"id": lzma.FILTER_LZMA2, "dict_size": max(4096, min(size, most))}
    if method == _LZMA and len(props) == 5:
        size, first = struct.unpack_from("<I", props, 1)[0], props[0]
        bits = {"lc": first % 9, "lp": first // 9 % 5, "pb": first // 45}
        return {"id": lzma.FILTER_LZMA1, "dict_size": max(4096, min(size, most)), **bits}
    if method == b"\3" and props:
        return {"id": lzma.FILTER_DELTA, "dist": props[0] + 1}
    return {"id": _FILTERS[method]} if method in _FILTERS else None


class Directory(NamedTuple):
    """What an archive says of itself; `encrypted` if it says nothing without a password, `cut` why not all is there."""

    files: tuple[File, ...] = ()
    folders: tuple[Folder, ...] = ()
    encrypted: bool = False
    cut: str = ""


class Stored:
    """What is not packed."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """The first octets."""
        return data[:max_length]


def read_7z(data: bytes) -> Directory:
    """Read the directory of an archive; never fails."""
    if len(data) < 32:
        return Directory(cut="damaged")
    offset, size = struct.unpack_from("<QQ", data, 12)
    if size == 0:
        return Directory()
    if size > MAX_DIRECTORY:
        return Directory(cut="a directory that is too large")
    header = data[32 + offset : 32 + offset + size] if offset < len(data) else b""
    try:
        for _ in range(_MAX_LAYERS):
            if header[:1] != bytes((_PACKED,)):
                return _directory(_Cursor(header), data)
            folder = _streams(_Cursor(header[1:]), data)[0][0]
            if folder.encrypted:
                return Directory(encrypted=True)
            unpacker = folder.unpacker(MAX_DIRECTORY)
            if unpacker is None or folder.size > MAX_DIRECTORY:
                return Directory(cut="a directory that is too large" if unpacker else "an unknown method")
            header = unpacker.decompress(folder.packed, folder.size)
    except _DamagedError as error:
        return Directory(cut=str(error) or "damaged")
    except (IndexError, struct.error, lzma.LZMAError, zlib.error, OSError, ValueError, EOFError, MemoryError):
        return Directory(cut="damaged")
    return Directory(cut="damaged")


class _DamagedError(Exception):
    pass


class _Cursor:
    """Reads from the beginning to the end; raises `_DamagedError` there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _DamagedError
        self.at += count
        return self.data[self.at - count : self.at]

    def octet(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """The leading ones of the first octet count those that follow, its other bits are the highest ones."""
        first = self.octet()
        extra = 8 - (first ^ 0xFF).bit_length()
        low = int.from_bytes(self.take(extra), "little")
        return low if extra >= 7 else low | (first & (0x7F >> extra)) << (8 * extra)

    def count(self) -> int:
        """A number of things that follow."""
        found = self.number()
        if found > MAX_COUNT:
            raise _DamagedError(f"more than {MAX_COUNT} files")
        return found

    def bits(self, count: int) -> list[bool]:
        octets = self.take((count + 7) // 8)
        return [bool(octets[index >> 3] & 0x80 >> (index & 7)) for index in range(count)]

    def digests(self, count: int) -> list[bool]:
        """Skip check sums; which of them are there."""
        there = [True] * count if self.octet() else self.bits(count)
        self.take(4 * sum(there))
        return there

    def skip(self) -> None:
        """Skip a property that is of no interest."""
        self.take(self.number())


class _Coded(NamedTuple):
    """A folder as described: how many streams it is packed into, and how many its coders give; has it a check sum?"""

    coders: tuple[tuple[bytes, bytes], ...]
    packed: int
    unpacked: int
    checked: bool = False


def _streams(cursor: _Cursor, data: bytes) -> tuple[list[Folder], list[tuple[int, int, int]]]:
    """StreamsInfo: the folders, and folder, position and size of every file in them."""
    position = 0
    packs: list[int] = []
    coded: list[_Coded] = []
    folders: list[Folder] = []
    files: list[tuple[int, int, int]] | None = None
    while (kind := cursor.number()) != 0:
        if kind == _PACK:
            position, count = cursor.number(), cursor.count()
            while (inner := cursor.number()) != 0:
                if inner == _SIZE:
                    packs = [cursor.number() for _ in range(count)]
                elif inner == _DIGESTS:
                    cursor.digests(count)
                else:
                    cursor.skip()
        elif kind == _UNPACK:
            coded, sizes = _folders(cursor)
            folders = _with_octets(coded, sizes, packs, 32 + position, data)
        elif kind == _SUBSTREAMS:
            files = _substreams(cursor, coded, folders)
        else:
            raise _DamagedError
    return folders, [(at, 0, one.size) for at, one in enumerate(folders)] if files is None else files


def _folders(cursor: _Cursor) -> tuple[list[_Coded], list[int]]:
    """The folders, and the sizes of all that their coders give."""
    found: list[_Coded] = []
    sizes: list[int] = []
    while (kind := cursor.number()) != 0:
        if kind == _FOLDER:
            count = cursor.count()
            if cursor.octet():  # they stand in another stream: no writer does that
                raise _DamagedError
            found = [_coders(cursor) for _ in range(count)]
        elif kind == _SIZES:
            sizes = [cursor.number() for one in found for _ in range(one.unpacked)]
        elif kind == _DIGESTS:
            found = [
                one._replace(checked=checked) for one, checked in zip(found, cursor.digests(len(found)), strict=True)
            ]
        else:
            cursor.skip()
    return found, sizes


def _coders(cursor: _Cursor) -> _Coded:
    coders: list[tuple[bytes, bytes]] = []
    inputs = outputs = 0
    for _ in range(min(cursor.number(), _MAX_CODERS + 1)):
        flags = cursor.octet()
        method = cursor.take(flags & 15)
        streams = (cursor.number(), cursor.number()) if flags & 16 else (1, 1)
        inputs, outputs = inputs + streams[0], outputs + streams[1]
        coders.append((method, cursor.take(cursor.number()) if flags & 32 else b""))
    if not 1 <= len(coders) <= _MAX_CODERS or not 1 <= outputs <= inputs + 1 <= 33:
        raise _DamagedError
    for _ in range(2 * (outputs - 1)):
        cursor.number()
    packed = inputs - outputs + 1
    if packed > 1:
        for _ in range(packed):
            cursor.number()
    return _Coded(tuple(coders), packed, outputs)


def _with_octets(coded: list[_Coded], sizes: list[int], packs: list[int], at: int, data: bytes) -> list[Folder]:
    """Where the octets of each folder are.  Those of several streams are of no use: only chains are unpacked here."""
    folders: list[Folder] = []
    pack = unpacked = 0
    for coders, packed, outputs, _ in coded:
        octets = b""
        if packed == 1 and pack < len(packs) and at < len(data):
            octets = data[at : at + packs[pack]]
        size = sizes[unpacked] if unpacked < len(sizes) else 0
        folders.append(Folder(coders, octets, size))
        at += sum(packs[pack : pack + packed])
        pack += packed
        unpacked += outputs
    return folders


def _substreams(cursor: _Cursor, coded: list[_Coded], folders: list[Folder]) -> list[tuple[int, int, int]]:
    counts = [1] * len(folders)
    found: list[tuple[int, int, int]] = []
    sizes_follow = False
    while (kind := cursor.number()) != 0:
        if kind == _COUNTS:
            counts = [cursor.count() for _ in folders]
            if sum(counts) > MAX_COUNT:
                raise _DamagedError(f"more than {MAX_COUNT} files")
        elif kind == _SIZE:
            sizes_follow = True
            found = list(_positions(folders, counts, cursor))
        elif kind == _DIGESTS:
            # Of a folder with one file the sum of the folder is that of the file.
            cursor.digests(sum(c for c, one in zip(counts, coded, strict=True) if c != 1 or not one.checked))
        else:
            cursor.skip()
    return found if sizes_follow else list(_positions(folders, counts, None))


def _positions(folders: list[Folder], counts: list[int], cursor: _Cursor | None) -> Iterator[tuple[int, int, int]]:
    for number, (folder, count) in enumerate(zip(folders, counts, strict=True)):
        at = 0
        for left in range(count - 1, -1, -1):
            # The size of the last follows from that of the folder.
            size = max(folder.size - at, 0) if not left else cursor.number() if cursor else 0
            yield number, at, size
            at += size


def _directory(cursor: _Cursor, data: bytes) -> Directory:
    folders: list[Folder] = []
    streams: list[tuple[int, int, int]] = []
    files: list[File] = []
    if cursor.number() != _HEADER:
        raise _DamagedError
    while (kind := cursor.number()) != 0:
        if kind == _MAIN:
            folders, streams = _streams(cursor, data)
        elif kind == _ADDITIONAL:
            _streams(cursor, data)
        elif kind == _FILES:
            files = _files(cursor, streams)
        elif kind == 2:
            while cursor.number() != 0:
                cursor.take(cursor.number())
        else:
            raise _DamagedError
    return Directory(tuple(files), tuple(folders))


def _files(cursor: _Cursor, streams: list[tuple[int, int, int]]) -> list[File]:
    count = cursor.count()
    empty = [False] * count
    names: list[str] = []
    while (kind := cursor.number()) != 0:
        property_ = _Cursor(cursor.take(cursor.number()))
        if kind == _EMPTY:
            empty = property_.bits(count)
        elif kind == _NAMES and not property_.octet():
            names = property_.data[1:].decode("utf-16-le", "replace").split("\0")
    packed = iter(streams)
    files: list[File] = []
    for name, is_empty in zip(names, empty, strict=False):
        folder, at, size = (-1, -1, 0) if is_empty else next(packed, (-1, -1, 0))
        files.append(File(name.replace("\\", "/"), size, folder, at))
    return files
