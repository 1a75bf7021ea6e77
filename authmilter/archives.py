"""What is in an archive, by name, and what its files begin with.

zip, tar, gzip, bzip2 and xz are read, archives within archives too; nothing is unpacked further than it takes to see what
it is.  Work is bounded by `MAX_MEMBERS`, `MAX_UNPACKED` and `MAX_DEPTH` for an archive with all that is in it, so that a
bomb costs what any other archive of its size does.  Nothing here fails.
"""

import bz2
import lzma
import re
import zlib
from typing import NamedTuple, Protocol

from authmilter.filetype import file_type
from authmilter.mime_fields import decode

MAX_MEMBERS = 1000
MAX_UNPACKED = 8 * 1024 * 1024  # octets that are unpacked in all
MAX_DEPTH = 3
_HEAD = 4096  # octets of a file that show what it is
_MEMORY = 64 * 1024 * 1024  # octets that xz may take; its files say how much they want


class Member(NamedTuple):
    """A file in an archive: `name` with its path, `type` as of `filetype.file_type`, "" if not known or encrypted."""

    name: str
    type: str
    encrypted: bool


class Archive(NamedTuple):
    """What is in an archive.

    `members` has those of inner archives too.  `cut` says why not all is there, "" if it is.  `ratio` is how many times
    larger the files claim to be than the archive.
    """

    members: tuple[Member, ...]
    cut: str
    ratio: float

    @property
    def encrypted(self) -> bool:
        """Is a file in it encrypted?"""
        return any(member.encrypted for member in self.members)


ZIPS = frozenset(("zip", "office-zip", "jar"))
READABLE = frozenset((*ZIPS, "tar", "gzip", "bzip2", "xz"))


def read_archive(data: bytes) -> Archive:
    """Read an archive of a type that is in `READABLE`; of another there is nothing."""
    reader = _Reader()
    reader.read(data, file_type(data), 0, "")
    return Archive(tuple(reader.members), reader.cut, reader.claimed / max(len(data), 1))


class _Unpacker(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Reader:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self.cut = ""
        self.claimed = 0
        self._room = MAX_UNPACKED

    def read(self, data: bytes, kind: str, depth: int, path: str) -> None:
        """Add what is in `data`."""
        if kind in ZIPS:
            self._zip(data, depth, path)
        elif kind == "tar":
            self._tar(data, depth, path)
        elif kind in ("gzip", "bzip2", "xz"):
            self._stream(data, kind, depth, path)

    def _full(self) -> bool:
        if len(self.members) >= MAX_MEMBERS:
            self.cut = self.cut or f"more than {MAX_MEMBERS} files"
        return len(self.members) >= MAX_MEMBERS

    def _unpack(self, unpacker: _Unpacker, data: bytes, most: int) -> bytes:
        """The first octets of what is packed; b"" if it is damaged."""
        if self._room <= 0:
            self.cut = self.cut or "too much to unpack"
            return b""
        try:
            found = unpacker.decompress(data, min(most, self._room))
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, MemoryError):
            return b""
        self._room -= len(found)
        return found

    def _found(self, name: str, head: bytes, depth: int, path: str) -> str:
        """Add a file that begins with `head`, and tell its type."""
        kind = file_type(head) if head else ""
        self.members.append(Member(f"{path}{name}"[:1000], kind, False))
        if kind in READABLE and depth + 1 >= MAX_DEPTH:
            self.cut = self.cut or f"archives {MAX_DEPTH} deep"
        return kind

    # ------------------------------------------------------------------------------------------------ zip

    def _zip(self, data: bytes, depth: int, path: str) -> None:
        """Files by their local headers and by the directory: readers go by either (APPNOTE 4.3.7 and 4.3.12)."""
        seen: set[bytes] = set()
        following = 0
        at = data.find(b"PK\3\4")
        while at >= 0 and not self._full():
            following = at + 4
            if len(data) >= at + 30:
                flags, method = _u16(data, at + 6), _u16(data, at + 8)
                packed, size = _u32(data, at + 18), _u32(data, at + 22)
                name_size, extra = _u16(data, at + 26), _u16(data, at + 28)
                name = data[at + 30 : at + 30 + name_size]
                begin = at + 30 + name_size + extra
                seen.add(name)
                self.claimed += size
                shown = decode(name, "utf-8" if flags & 0x800 else "cp437").replace("\\", "/")
                if flags & 1:  # 4.4.4: encrypted
                    self.members.append(Member(f"{path}{shown}"[:1000], "", True))
                elif not name.endswith(b"/"):
                    # With bit 3 the sizes stand behind the file, and are 0 here.
                    content = data[begin : begin + packed] if packed and not flags & 8 else data[begin:]
                    self._zip_member(shown, content, method, depth, path)
                following = begin + packed if packed and not flags & 8 else begin
            at = data.find(b"PK\3\4", max(following, at + 4))
        self._zip_directory(data, seen, path, following)

    def _zip_member(self, name: str, content: bytes, method: int, depth: int, path: str) -> None:
        if method == 0:
            kind = self._found(name, content[:_HEAD], depth, path)
            inner = content if kind in READABLE else b""
        elif method == 8:
            kind = self._found(name, self._unpack(zlib.decompressobj(-15), content, _HEAD), depth, path)
            inner = b""
            if kind in READABLE and depth + 1 < MAX_DEPTH:
                inner = self._unpack(zlib.decompressobj(-15), content, MAX_UNPACKED)
        else:
            self.members.append(Member(f"{path}{name}"[:1000], "", False))
            return
        if inner and depth + 1 < MAX_DEPTH:
            self.read(inner, kind, depth + 1, f"{path}{name}/")

    def _zip_directory(self, data: bytes, seen: set[bytes], path: str, behind: int) -> None:
        """Names that stand in the directory alone; without a good end record it is looked for behind the files."""
        end = data.rfind(b"PK\5\6")
        at = end - _u32(data, end + 12) if end >= 0 else -1
        if at < 0 or not data.startswith(b"PK\1\2", at):
            at = data.find(b"PK\1\2", behind)
        while at >= 0 and not self._full():
            if len(data) < at + 46:
                return
            name_size = _u16(data, at + 28)
            name = data[at + 46 : at + 46 + name_size]
            if name not in seen and not name.endswith(b"/"):
                seen.add(name)
                flags = _u16(data, at + 8)
                shown = decode(name, "utf-8" if flags & 0x800 else "cp437").replace("\\", "/")
                self.members.append(Member(f"{path}{shown}"[:1000], "", bool(flags & 1)))
            at = data.find(b"PK\1\2", at + 46 + name_size)

    # ------------------------------------------------------------------------------------------------ tar and streams

    def _tar(self, data: bytes, depth: int, path: str) -> None:
        """Blocks of 512 octets (POSIX.1-2017, pax, "ustar Interchange Format")."""
        at = 0
        long_name = b""
        while at + 512 <= len(data) and not self._full():
            header = data[at : at + 512]
            if not header.strip(b"\0"):
                break
            size = _octal(header[124:136])
            content = data[at + 512 : at + 512 + size]
            at += 512 + (size + 511) // 512 * 512
            kind = header[156:157]
            if kind == b"L":  # GNU: the name of the next file
                long_name = content[:1000].rstrip(b"\0")
            elif kind == b"x":
                found = _PAX_PATH.search(content[:65536])
                long_name = found[1][:1000] if found else b""
            elif kind in (b"0", b"\0", b"7", b""):
                prefix = header[345:500].partition(b"\0")[0]
                name = long_name or (prefix + b"/" if prefix else b"") + header[:100].partition(b"\0")[0]
                shown = decode(name, "utf-8")
                self.claimed += size
                inner = self._found(shown, content[:_HEAD], depth, path)
                if inner in READABLE and depth + 1 < MAX_DEPTH:
                    self.read(content, inner, depth + 1, f"{path}{shown}/")
                long_name = b""

    def _stream(self, data: bytes, kind: str, depth: int, path: str) -> None:
        """One file, which is mostly a tar."""
        unpacker: _Unpacker
        if kind == "gzip":
            unpacker = zlib.decompressobj(31)
        elif kind == "bzip2":
            unpacker = bz2.BZ2Decompressor()
        else:
            unpacker = lzma.LZMADecompressor(memlimit=_MEMORY)
        content = self._unpack(unpacker, data, MAX_UNPACKED)
        self.claimed += len(content)
        if self._room <= 0:
            self.cut = self.cut or "too much to unpack"
        inner = file_type(content)
        if inner == "tar":
            self.read(content, inner, depth, path)
            return
        name = _gzip_name(data) if kind == "gzip" else ""
        self._found(name, content[:_HEAD], depth, path)
        if inner in READABLE and depth + 1 < MAX_DEPTH:
            self.read(content, inner, depth + 1, f"{path}{name}/")


_PAX_PATH = re.compile(rb"[0-9]{1,9} path=([^\n]{1,4096})\n")


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
    return decode(data[at : at + 1000].partition(b"\0")[0], "latin-1")
