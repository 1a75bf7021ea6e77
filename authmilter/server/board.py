"""What a worker tells the exporter in words, where `metrics` has numbers alone."""

import json
import mmap
import struct
import time
import zlib
from typing import Any

SIZE = 512 * 1024  # octets; memory is used for what is written alone
_HEAD = struct.Struct("=II")  # length and checksum of the text
_TRIES = 20  # of a reader, a millisecond apart: writing takes less


class Board:
    """One JSON value in memory that is shared by fork: one process writes it, others read.

    There is no lock, which a writer that dies would leave behind: a value that was read while it changed has another
    checksum, and is read again.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SIZE)

    def write(self, value: Any) -> None:
        """Replace the value; raises ValueError if it is too large."""
        text = json.dumps(value).encode()
        if _HEAD.size + len(text) > SIZE:
            raise ValueError(f"{len(text)} octets are too much for the board")
        self._memory[: _HEAD.size] = _HEAD.pack(len(text), zlib.crc32(text))
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text

    def read(self) -> Any:
        """The value; None before the first, and if it can't be read."""
        for _ in range(_TRIES):
            length, checksum = _HEAD.unpack(self._memory[: _HEAD.size])
            if not length:
                return None
            text = self._memory[_HEAD.size : _HEAD.size + min(length, SIZE)]
            if len(text) == length and zlib.crc32(text) == checksum:
                return json.loads(text)
            time.sleep(0.001)
        return None
