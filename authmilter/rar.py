"""The headers of a RAR archive of versions 1.5 to 5.

After "RAR 5.0 archive format" of RARLAB and the ``TechNote.txt`` of RAR 4.  Only what is stored without compression can be
looked into: nothing free unpacks the rest without another program.  rarfile reads the same, but every header that there is
(half a second for each megabyte of them); here it is `MAX_BLOCKS`.
"""

from typing import NamedTuple

MAX_BLOCKS = 5000
_SIGNATURE_4 = b"Rar!\x1a\x07\0"
_SIGNATURE_5 = b"Rar!\x1a\x07\1\0"


class File(NamedTuple):
    """A file; `content` where it is only stored, else b""."""

    name: str
    size: int
    encrypted: bool
    content: bytes


class Directory(NamedTuple):
    """What an archive says of itself; `encrypted` if it says nothing without a password, `cut` why not all is there."""

    files: tuple[File, ...] = ()
    encrypted: bool = False
    cut: str = ""


def read_rar(data: bytes) -> Directory:
    """Read the headers of an archive; never fails."""
    if data.startswith(_SIGNATURE_5):
        return _read_5(data)
    return _read_4(data) if data.startswith(_SIGNATURE_4) else Directory(cut="damaged")


# -------------------------------------------------------------------------------------------------- version 5

_FILE, _ENCRYPTION, _END = 2, 4, 5


class _Fields:
    """The numbers of a header, one after the other; those behind its end are 0."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = min(end, len(data))

    def number(self) -> int:
        """Seven bits in each octet, the lowest first; the highest bit says that there is more."""
        found = shift = 0
        while self.at < self.end and shift < 70:
            octet = self.data[self.at]
            self.at += 1
            found |= (octet & 0x7F) << shift
            if octet < 0x80:
                break
            shift += 7
        return found


def _read_5(data: bytes) -> Directory:
    files: list[File] = []
    at = len(_SIGNATURE_5)
    for _ in range(MAX_BLOCKS):
        if at + 7 > len(data):
            return Directory(tuple(files))
        size = _Fields(data, at + 4, len(data))  # behind the check sum
        length = size.number()
        fields = _Fields(data, size.at, size.at + length)
        kind, flags = fields.number(), fields.number()
        extra = fields.number() if flags & 1 else 0
        packed = fields.number() if flags & 2 else 0
        behind = size.at + length
        if kind == _ENCRYPTION:
            return Directory(tuple(files), encrypted=True)
        if kind == _END or not length:
            return Directory(tuple(files), cut="" if length else "damaged")
        if kind == _FILE:
            file_flags, unpacked, _attributes = fields.number(), fields.number(), fields.number()
            fields.at += (4 if file_flags & 2 else 0) + (4 if file_flags & 4 else 0)  # time and check sum
            method, _system, name_size = fields.number(), fields.number(), fields.number()
            name = data[fields.at : min(fields.at + name_size, fields.end)].decode("utf-8", "replace")
            if not file_flags & 1:  # a directory
                encrypted = _is_encrypted(data, fields.end - extra, fields.end) if extra else False
                stored = method & 0x380 == 0 and not encrypted
                files.append(File(name, unpacked, encrypted, data[behind : behind + packed] if stored else b""))
        at = behind + packed
    return Directory(tuple(files), cut=f"more than {MAX_BLOCKS} headers")


def _is_encrypted(data: bytes, start: int, end: int) -> bool:
    """Has the extra area a record of type 1?"""
    fields = _Fields(data, max(start, 0), end)
    for _ in range(20):
        if fields.at >= fields.end:
            return False
        size = fields.number()
        following = fields.at + size
        if fields.number() == 1:
            return True
        fields.at = following
    return False


# -------------------------------------------------------------------------------------------------- versions 1.5 to 4


def _read_4(data: bytes) -> Directory:
    files: list[File] = []
    at = len(_SIGNATURE_4)
    for _ in range(MAX_BLOCKS):
        if at + 7 > len(data):
            return Directory(tuple(files))
        kind, flags, size = data[at + 2], _u(data, at + 3, 2), _u(data, at + 5, 2)
        packed = _u(data, at + 7, 4) if flags & 0x8000 or kind == 0x74 else 0
        if kind == 0x73 and flags & 0x80:
            return Directory(tuple(files), encrypted=True)
        if kind == 0x7B or size < 7:  # the end, or damage
            return Directory(tuple(files), cut="" if kind == 0x7B else "damaged")
        if kind == 0x74:
            if flags & 0x100:
                packed |= _u(data, at + 32, 4) << 32
            if flags & 0xE0 != 0xE0:  # a directory
                files.append(_file_4(data, at, flags, size, packed))
        at += size + packed
    return Directory(tuple(files), cut=f"more than {MAX_BLOCKS} headers")


def _file_4(data: bytes, at: int, flags: int, size: int, packed: int) -> File:
    start = at + (40 if flags & 0x100 else 32)
    raw = data[start : min(start + _u(data, at + 26, 2), at + size)]
    encrypted = bool(flags & 4)
    stored = data[at + 25 : at + 26] == b"\x30" and not encrypted
    content = data[at + size : at + size + packed] if stored else b""
    return File(_name_4(raw, flags).replace("\\", "/"), _u(data, at + 11, 4), encrypted, content)


def _name_4(raw: bytes, flags: int) -> str:
    """The name, which with bit 0x200 is followed by what makes Unicode of it."""
    plain, zero, coded = raw.partition(b"\0")
    if not flags & 0x200:
        return plain.decode("cp437")
    if not zero:
        return raw.decode("utf-8", "replace")
    high = coded[0] << 8 if coded else 0
    found: list[int] = []
    position, steps, left = 1, 0, 0
    while position < len(coded):
        if not left:
            steps, left = coded[position], 4
            position += 1
        left -= 1
        step = steps >> (2 * left) & 3
        first, second = (*coded[position : position + 2], 0, 0)[:2]
        if position >= len(coded):
            break
        if step == 0:
            found.append(first)
        elif step == 1:
            found.append(first | high)
        elif step == 2:
            found.append(first | second << 8)
            position += 1
        else:  # characters of the plain name, perhaps moved to another block
            run = plain[len(found) : len(found) + (first & 0x7F) + 2]
            if first & 0x80:
                found += [(octet + second & 0xFF) | high for octet in run]
                position += 1
            else:
                found += run
        position += 1
    return b"".join(unit.to_bytes(2, "little") for unit in found).decode("utf-16-le", "replace")


def _u(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
