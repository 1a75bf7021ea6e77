"""Messages out of files: one per file, folders of them, maildirs, mboxes and tar archives, packed or not.

They are made what a milter would have seen of them.  What is found in a folder and is no message is left out, and counted.
Whatever a file holds, it costs no more memory than a few messages, and no more time than its size allows: nothing that is
named in an archive is opened or followed, and nothing is unpacked to many times its size.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import IO, Any

from authmilter.model import HeaderField, Message

MAX_MESSAGE = 4 * 1024 * 1024  # octets of a message that are read; the rest of it is passed over
MAX_FIELDS = 20_000  # header fields of a message; the rest of them is passed over
MAX_DEPTH = 4  # an mbox.gz in a tar.gz is at 3
MAX_GROWTH = 200  # times that mail may shrink by packing, beyond the first ALLOWANCE octets
ALLOWANCE = 64 * 1024 * 1024
MAX_PROBLEMS = 20  # that are told one by one
_HEAD = 512  # octets that tell what a file is, and the size of a block of tar
_CHUNK = 65536
_FIELD = re.compile(rb"([!-9;-~]{1,200}[ \t]*):")
_PACKED: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_NOT_READ: Mapping[bytes, str] = {
    b"\x28\xb5\x2f\xfd": "zstd, which is not read: zstd -dc FILE | authmilter learn ... -",
    b"PK\3\4": "zip, which is not read: unpack it to a folder",
    b"7z\xbc\xaf\x27\x1c": "7-Zip, which is not read: unpack it to a folder",
    b"Rar!": "rar, which is not read: unpack it to a folder",
}
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)
_ITSELF = ("dovecot", "maildirfolder", "subscriptions", "courier", "maildirsize")  # files that mail servers keep there


def message_of(raw: bytes) -> Message | None:
    """The message of these octets; None if they do not begin with a header field.

    CRLF and LF are both line ends, as mailboxes keep either.
    """
    cut = len(raw) >= MAX_MESSAGE
    # An expression would take eighty times the room of short lines.
    raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").lstrip(b"\r\n")
    if raw.startswith((b"From ", b">From ")):
        raw = raw[raw.find(b"\n") + 1 :]
    fields: list[tuple[bytes, int, int]] = []  # the name, and where the value begins and ends
    position = 0
    while position < len(raw):
        end = raw.find(b"\r\n", position)
        end, following = (len(raw), len(raw)) if end < 0 else (end, end + 2)
        if raw[position : position + 1] in (b" ", b"\t") and fields:
            fields[-1] = (*fields[-1][:2], end)
        elif found := _FIELD.match(raw, position, end):
            if len(fields) > MAX_FIELDS:
                fields.pop()
            fields.append((found[1], found.end(), end))
        else:
            position = following if position == end else position  # a line that is no field ends them, as in Postfix
            break
        position = following
    if not fields:
        return None
    body = raw[position:]
    return Message(
        tuple(HeaderField(name, raw[begin:end]) for name, begin, end in fields[:MAX_FIELDS]),
        body_size=len(body),
        body=body,
        body_cut=cut,
    )


class StoredMail:
    """All messages under some paths; ``-`` is standard input.

    `done` are the octets of files that were read so far, `path` is the one that the newest message
    came from, and `skipped` counts what was no message.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = list(paths)
        self._problems: list[str] = []
        self._more_problems = 0
        self.done = 0
        self.path = ""
        self.skipped = 0

    @cached_property
    def size(self) -> int:
        """Octets of all files under the paths, but for what comes through pipes; it takes a look at each of them."""
        return sum(size for path in self._paths for _, size, _ in _files(path, _silent))

    @property
    def problems(self) -> list[str]:
        """Sentences for the user on what could not be read."""
        more = self._more_problems
        return [*self._problems, *([f"and {more:,} more that can't be read"] if more else [])]

    def __iter__(self) -> Iterator[Message]:
        for path in self._paths:
            for name, size, is_named in _files(path, self._note):
                before = self.done
                self.path = name
                try:
                    yield from self._file(name, before)
                except FileNotFoundError as error:
                    if is_named:  # in a mailbox that is in use files come, go and change their names
                        self._note(name, error)
                except _UNREADABLE as error:
                    self._note(name, error)
                self.done = before + size

    def _note(self, path: str, error: Exception) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"{path}: {getattr(error, 'strerror', None) or error or 'is cut off'}")
        else:
            self._more_problems += 1

    def _file(self, path: str, before: int) -> Iterator[Message]:
        if path == "-":
            yield from self._messages(_Metered(sys.stdin.buffer), before)
            return
        with open(path, "rb", buffering=0) as file:
            yield from self._messages(_Metered(file), before)

    def _messages(self, file: "_Metered", before: int) -> Iterator[Message]:
        for octets in _contents(io.BufferedReader(file, _CHUNK), file):
            message = message_of(octets)
            self.done = before + file.count
            if message is None:
                self.skipped += 1
            else:
                yield message


def _silent(_path: str, _error: Exception) -> None:
    pass


def _files(path: str, note: Callable[[str, Exception], None]) -> Iterator[tuple[str, int, bool]]:
    """Every file at or below a path, with its size, and whether the path is its very name."""
    if path == "-":
        yield path, 0, True
        return
    try:
        status = os.stat(path)
    except OSError as error:
        note(path, error)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield path, status.st_size, True
        return
    folders = [path]
    while folders:
        folder = folders.pop()
        files: list[str] = []
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # Links are not followed: a mailbox can have one to anywhere.
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
        except OSError as error:
            note(folder, error)
            continue
        if "cur" in below and "new" in below:  # a maildir, and what is in it may be more of them
            below.remove("cur")
            below.remove("new")
            below = ["cur", "new", *sorted(name for name in below if name != "tmp")]
            files = []
        else:
            below = sorted(name for name in below if not name.startswith("."))
        folders += [os.path.join(folder, name) for name in reversed(below)]
        for name in sorted(files):
            if not name.startswith((".", *_ITSELF)):
                one = os.path.join(folder, name)
                try:
                    size = os.stat(one, follow_symlinks=False).st_size
                except OSError:
                    size = 0  # whether it can be read is found out then
                yield one, size, False


class _Metered(io.RawIOBase):
    """A stream that counts what is read of it; of what is unpacked from `packed` there may be so much."""

    def __init__(self, source: IO[bytes], packed: "_Metered | None" = None) -> None:
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)
        self._packed = packed
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        octets = self._read(len(buffer))
        self.count += len(octets)
        if self._packed is not None and self.count > ALLOWANCE + MAX_GROWTH * self._packed.count:
            raise ValueError(f"unpacks to more than {MAX_GROWTH} times its size: the rest is not read")
        buffer[: len(octets)] = octets
        return len(octets)


class _Member(io.RawIOBase):
    """A file within an archive: so many octets from where that is."""

    def __init__(self, archive: io.BufferedReader, size: int) -> None:
        self._archive = archive
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        octets = self._archive.read(min(len(buffer), self.left))
        if not octets and self.left and len(buffer):
            raise ValueError("is cut off")
        self.left -= len(octets)
        buffer[: len(octets)] = octets
        return len(octets)

    def skip(self, padding: int) -> None:
        """Go on to what is behind it and so much padding."""
        self.left += padding
        while self.left:
            self.read(min(self.left, _CHUNK))


def _contents(file: io.BufferedReader, meter: _Metered, depth: int = 1) -> Iterator[bytes]:
    """Every message of a file, and what may be one; `meter` counts what its disk or pipe gave."""
    head = file.peek(_HEAD)[:_HEAD]
    unpack = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    if unpack is not None and depth < MAX_DEPTH:
        with unpack(file) as unpacked:
            yield from _contents(io.BufferedReader(_Metered(unpacked, meter), _CHUNK), meter, depth + 1)
    elif head[257:262] == b"ustar" and depth < MAX_DEPTH:
        yield from _tar(file, meter, depth)
    elif head.lstrip(b"\r\n").startswith(b"From "):
        yield from _mbox(file)
    else:
        for magic, words in _NOT_READ.items():
            if depth == 1 and head.startswith(magic):
                raise ValueError(f"is packed with {words}")
        yield file.read(MAX_MESSAGE)


def _tar(file: io.BufferedReader, meter: _Metered, depth: int) -> Iterator[bytes]:
    """What is in the files of an archive (POSIX.1-2017, pax, "ustar Interchange Format").

    Only their octets are looked at, so links, devices and names in it lead nowhere.  tarfile reads as many octets of an
    extended header as that claims, and remembers all members.
    """
    while (header := file.read(_HEAD)).strip(b"\0"):
        if len(header) < _HEAD:
            raise ValueError("is cut off")
        kind, size = header[156:157], _tar_number(header[124:136])
        if header[257:262] != b"ustar" or size < 0:
            raise ValueError("is damaged: the rest of it is not read")
        if kind == b"S":
            raise ValueError("has files with holes: the rest of it is not read")
        if kind in b"123456":  # links, devices and folders have no content
            continue
        member = _Member(file, size)
        name = header[:100].partition(b"\0")[0].rpartition(b"/")[2].decode("latin-1")
        if kind in b"07\0" and size and not name.startswith((".", *_ITSELF)):
            yield from _contents(io.BufferedReader(member, _CHUNK), meter, depth + 1)
        member.skip(-size % _HEAD)


def _tar_number(field: bytes) -> int:
    """A number, -1 if it can't be read."""
    if field[:1] == b"\x80":  # GNU: for what octal digits have no room
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else -1


def _mbox(file: io.BufferedReader) -> Iterator[bytes]:
    """A message begins at a line "From " behind an empty one (RFC 4155 appendix A), if a header field follows.

    Not all writers quote such lines of a text.
    """
    message = bytearray()
    blank = True
    held = b""
    while line := file.readline(MAX_MESSAGE):
        if held:
            if _FIELD.match(line) or line.startswith(b">From "):
                if message:
                    yield bytes(message[:MAX_MESSAGE])
                message.clear()
            elif len(message) < MAX_MESSAGE:
                message += held
            held = b""
        if blank and line.startswith(b"From "):
            held = line
        elif len(message) < MAX_MESSAGE:
            message += _unquoted(line)
        blank = line in (b"\n", b"\r\n")
    if message or held:
        yield bytes(message + held)[:MAX_MESSAGE]


def _unquoted(line: bytes) -> bytes:
    return line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line
