"""Messages out of files: one per file, folders of them, maildirs, mboxes and tar archives, packed or not.

They are made what a milter would have seen of them.  What is found in a folder and is no message is left out, and counted.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from authmilter.model import HeaderField, Message

MAX_MESSAGE = 4 * 1024 * 1024  # octets of a message that are read; the rest of it is passed over
_HEAD = 512  # octets that tell what a file is
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FIELD = re.compile(rb"[!-9;-~]{1,200}[ \t]*:")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_PACKED: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, tarfile.TarError, ValueError)
_ITSELF = ("dovecot", "maildirfolder", "subscriptions", "courier", "maildirsize")  # files that mail servers keep there


def message_of(raw: bytes) -> Message | None:
    """The message of these octets; None if they do not begin with a header field.

    CRLF and LF are both line ends, as mailboxes keep either.
    """
    raw = _BARE_LF.sub(b"\r\n", raw).lstrip(b"\r\n")
    if raw.startswith((b"From ", b">From ")):
        raw = raw[raw.find(b"\n") + 1 :]
    fields: list[tuple[bytes, list[bytes]]] = []
    position = 0
    while position < len(raw):
        end = raw.find(b"\r\n", position)
        line = raw[position:] if end < 0 else raw[position:end]
        following = len(raw) if end < 0 else end + 2
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1][1].append(line)
        elif line and _FIELD.match(line):
            name, _, value = line.partition(b":")
            fields.append((name, [value]))
        else:
            position = position if line else following  # a line that is no field ends them, as in Postfix
            break
        position = following
    if not fields:
        return None
    body = raw[position:]
    cut = len(raw) >= MAX_MESSAGE
    return Message(
        tuple(HeaderField(name, b"\r\n".join(lines)) for name, lines in fields),
        body_size=len(body),
        body=body,
        body_cut=cut,
    )


class StoredMail:
    """All messages under some paths; ``-`` is standard input.

    `size` are the octets of all files there, `done` how many of them were read, `path` is the file that the newest message
    is of, `skipped` counts what was no message, and `problems` are sentences for the user on what could not be read.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = list(paths)
        self.done = 0
        self.path = ""
        self.skipped = 0
        self.problems: list[str] = []
        self._files: list[tuple[str, int]] = []
        for path in self._paths:
            self._collect(path)
        self.size = sum(size for _, size in self._files)

    def __iter__(self) -> Iterator[Message]:
        for path, size in self._files:
            before = self.done
            self.path = path
            try:
                yield from self._file(path, before)
            except _UNREADABLE as error:
                self.problems.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            self.done = before + size

    def _collect(self, path: str) -> None:
        if path == "-":
            self._files.append((path, 0))
            return
        try:
            if not os.path.isdir(path):
                self._files.append((path, os.stat(path).st_size))
                return
        except OSError as error:
            self.problems.append(f"{path}: {error.strerror}")
            return
        # Links are not followed: a mailbox can have one to anywhere.
        for folder, folders, names in os.walk(path, onerror=self._note):
            folders.sort()
            is_maildir = "cur" in folders and "new" in folders
            if is_maildir:  # in tmp is what is not yet there, in dotted folders more maildirs
                folders[:] = [name for name in folders if name in ("cur", "new") or name.startswith(".")]
            else:
                folders[:] = [name for name in folders if not name.startswith(".")]
            for name in sorted(names):
                if not is_maildir and not name.startswith((".", *_ITSELF)):
                    self._entry(os.path.join(folder, name))

    def _note(self, error: OSError) -> None:
        self.problems.append(f"{error.filename}: {error.strerror}")

    def _entry(self, path: str) -> None:
        try:
            if Path(path).is_file() and not os.path.islink(path):
                self._files.append((path, os.stat(path).st_size))
        except OSError as error:
            self._note(error)

    def _file(self, path: str, before: int) -> Iterator[Message]:
        if path == "-":
            yield from self._opened(sys.stdin.buffer, None, before)
            return
        with open(path, "rb") as file:
            yield from self._opened(file, file, before)

    def _opened(self, file: IO[bytes], raw: IO[bytes] | None, before: int) -> Iterator[Message]:
        """`raw` is the file whose position tells how far we are."""
        reader = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
        head = reader.peek(_HEAD)[:_HEAD]
        for magic, unpack in _PACKED.items():
            if head.startswith(magic):
                with unpack(reader) as unpacked:
                    yield from self._opened(unpacked, raw, before)
                return
        if head[257:262] == b"ustar":
            messages: Iterable[bytes] = _tar(reader)
        elif head.lstrip(b"\r\n").startswith(b"From "):
            messages = _mbox(reader)
        else:
            messages = (reader.read(MAX_MESSAGE),)
        for octets in messages:
            message = message_of(octets)
            if raw is not None:
                self.done = before + raw.tell()
            if message is None:
                self.skipped += 1
            else:
                yield message


def _tar(file: IO[bytes]) -> Iterator[bytes]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if member.isreg() and member.size and not name.startswith((".", *_ITSELF)):
                content = archive.extractfile(member)
                if content is not None:
                    octets = content.read(MAX_MESSAGE)
                    if octets.startswith(b"From "):
                        yield from _mbox(io.BytesIO(octets))
                    else:
                        yield octets


def _mbox(file: IO[bytes]) -> Iterator[bytes]:
    """A message begins at a line "From " behind an empty one (RFC 4155 appendix A)."""
    lines: list[bytes] = []
    room = MAX_MESSAGE
    blank = True
    while line := file.readline(MAX_MESSAGE):
        if blank and line.startswith(b"From "):
            if lines:
                yield _unquoted(lines)
            lines, room = [], MAX_MESSAGE
        elif room > 0:
            lines.append(line)
            room -= len(line)
        blank = line in (b"\n", b"\r\n")
    if lines:
        yield _unquoted(lines)


def _unquoted(lines: list[bytes]) -> bytes:
    return _QUOTED_FROM.sub(rb"\1", b"".join(lines))
