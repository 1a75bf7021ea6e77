"""Where workers leave what they learn by themselves, until it is trained from: a file beside the table.

Each lesson is written at once, to the end of the file, which several processes may do at the same time.  Whoever trains
takes the file away and reads it.  A lesson that is lost on the way is no loss.
"""

import os
import struct
import sys
import time
from array import array
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from authmilter.classifier.features import SLOTS, VERSION
from authmilter.model import Message

SUFFIX = ".spool"
TAKEN = ".taken"  # at the end of the name, once somebody reads it
MAX_SIZE = 8 * 1024 * 1024  # octets; what does not fit is not learned
_MAX_BODY = 65536  # octets that tell a message from others
_HEAD = struct.Struct(
    "<II16s8sBI"
)  # version of the features, CRC-32 of what follows, and a Lesson, its features counted
_SUM = 8  # octets before what the CRC-32 is of
_SETTLE = 0.05  # seconds that one who has just opened the file may take to write to it


def identity(message: Message) -> bytes:
    """What tells a message from others, whichever way it came: 16 octets."""
    digest = sha256()
    for name in (b"message-id", b"date"):
        found = message.first(name)
        digest.update(b"" if found is None else b"".join(found.value.split()))
        digest.update(b"\n")
    digest.update(message.body[:_MAX_BODY].rstrip(b"\r\n \t"))  # mailboxes are not agreed about its end
    return digest.digest()[:16]


class Lesson(NamedTuple):
    """A message to learn.

    What is learned by itself has an `origin` of 8 octets, which stands for its sender: of each, only so much is taken.
    """

    identity: bytes
    spam: bool
    features: Collection[int]
    origin: bytes = b""


def append(path: Path, lesson: Lesson) -> None:
    """Leave a lesson in that file; raises OSError."""
    numbers = array("I", lesson.features)
    if sys.byteorder != "little":
        numbers.byteswap()
    octets = numbers.tobytes()
    rest = _HEAD.pack(0, 0, lesson.identity, lesson.origin, lesson.spam, len(numbers))[_SUM:] + octets
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(file).st_size + len(rest) + _SUM <= MAX_SIZE:
            os.write(file, struct.pack("<II", VERSION, crc32(rest)) + rest)
    finally:
        os.close(file)


def is_there(path: Path) -> bool:
    """Is there something to read?"""
    return os.path.lexists(path) or os.path.lexists(f"{path}{TAKEN}")


def take(path: Path) -> list[Lesson] | None:
    """The lessons of that file, to which nothing is added any more; None if there is none.  Raises OSError.

    Until `drop`, the same are given again: whoever stops before has lost nothing.
    """
    taken = path.with_name(path.name + TAKEN)
    if not os.path.lexists(taken):
        if not os.path.lexists(path):
            return None
        path.rename(taken)
        time.sleep(_SETTLE)
    with open(os.open(taken, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return list(_read(file.read(MAX_SIZE)))


def drop(path: Path) -> None:
    """What was taken is learned.  Raises OSError."""
    path.with_name(path.name + TAKEN).unlink(missing_ok=True)


def _read(octets: bytes) -> Iterator[Lesson]:
    """Up to the first that was not written to its end, or by another version."""
    at = 0
    while at + _HEAD.size <= len(octets):
        version, checksum, identity, origin, spam, number = _HEAD.unpack_from(octets, at)
        end = at + _HEAD.size + 4 * number
        if version != VERSION or end > len(octets) or crc32(octets[at + _SUM : end]) != checksum:
            return
        numbers = array("I", octets[end - 4 * number : end])
        if sys.byteorder != "little":
            numbers.byteswap()
        if number and max(numbers) < SLOTS:
            yield Lesson(identity, bool(spam), numbers, origin)
        at = end
