"""The file of weights: written by whoever learns, read through mmap by all workers, who share its pages.

It is never changed in place.  A new one takes its name, and who has the old one open goes on with that until he looks
again.  All numbers are little-endian::

    magic 8, version of the features 4, slots 4, learned ham 4, learned spam 4, CRC-32 of the weights 4,
    revision of what was learned 4
    bias, spam from, spam sure, ham from, ham sure, as doubles
    a weight per slot, as float
"""

import logging
import math
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from authmilter.classifier.features import SLOTS, VERSION
from authmilter.state_directory import SYSTEM_DIRECTORY, state_directory

log = logging.getLogger("authmilter.classifier")

FILE_NAME = "classifier.table"
SUFFIX = ".learned"  # of the file beside it that holds what was learned
_MAGIC = b"amtable\n"
_HEAD = struct.Struct("<8s6I5d")
_SIZE = _HEAD.size + 4 * SLOTS
LOOK_EVERY = 1.0  # seconds
_FADING = 2.5  # the power of the known share by which a margin is drawn towards 0; measured: tests/bench/DETECTION.md
_MOST_UNKNOWN = 0.35  # of what is known, as much is counted as unknown at most
_BEYOND = 2.0  # log-odds beyond `spam_sure` at which nothing more can be said


class Curve(NamedTuple):
    """How sure a margin is: from where on it says spam at all, and is `sure`; the same for ham, below 0."""

    spam_from: float
    spam_sure: float
    ham_from: float
    ham_sure: float

    def strength(self, margin: float) -> float:
        """From -1, surely ham, to 1, surely spam."""
        if margin > self.spam_from:
            return min(1.0, (margin - self.spam_from) / (self.spam_sure - self.spam_from))
        if margin < self.ham_from:
            return -min(1.0, (self.ham_from - margin) / (self.ham_from - self.ham_sure))
        return 0.0

    def beyond(self, margin: float) -> float:
        """How far it is beyond what is surely spam, from 0 to 1."""
        return min(1.0, max(0.0, (margin - self.spam_sure) / _BEYOND))


class Opinion(NamedTuple):
    """What the table says of a message.

    `margin` are log-odds of spam, drawn towards 0 as little of the message is `known`, a share from 0 to 1.  `strength`
    is from -1, surely ham, to 1, surely spam, and `beyond`, from 0 to 1, how far it is beyond that.
    """

    margin: float
    known: float
    strength: float
    beyond: float


def margin_of(weights: list[float], features: int, bias: float) -> tuple[float, float]:
    """Margin and known share of a message with that many features, of which those that are known have these weights.

    Others have none, or 0.  A message that has much that was never seen has a margin that says less: that is what mail of
    another kind than all that was learned looks like.  How much less has its bounds, else whoever appends nonsense to his
    message would not be recognised by the rest of it.
    """
    known = len(weights) - weights.count(0.0)
    if not known:
        return 0.0, 0.0
    counted = min(features, known * (1 + _MOST_UNKNOWN))
    return (bias + sum(weights) / math.sqrt(counted)) * (known / counted) ** _FADING, known / features


class Table:
    """An open table."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, and ValueError with what is wrong with the file."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size != _SIZE:
                raise ValueError(f"{path}: has {status.st_size} octets, not {_SIZE}")
            self._map = mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ)
        magic, version, slots, self.ham, self.spam, checksum, self.revision, self.bias, *curve = _HEAD.unpack_from(
            self._map
        )
        if magic != _MAGIC or version != VERSION or slots != SLOTS:
            raise ValueError(f"{path}: is no table of this version of authmilter: `authmilter learn` makes it anew")
        view = memoryview(self._map)[_HEAD.size :]
        if crc32(view) != checksum:
            raise ValueError(f"{path}: is damaged: `authmilter learn` makes it anew")
        self.curve = Curve(*curve)
        if sys.byteorder == "little":
            self._weights: Sequence[float] = view.cast("f")
        else:  # rare enough to do without sharing
            swapped = array("f", view.tobytes())
            swapped.byteswap()
            self._weights = swapped

    def judge(self, features: Collection[int]) -> Opinion:
        """What is to be thought of a message with these features."""
        weights = list(map(self._weights.__getitem__, features))
        margin, known = margin_of(weights, len(features), self.bias)
        return Opinion(margin, known, self.curve.strength(margin), self.curve.beyond(margin))


def write(
    path: Path, weights: Iterable[float], *, bias: float, curve: Curve, ham: int, spam: int, revision: int = 0
) -> None:
    """Put a new table in place of the one that is there; raises OSError.  One at a time may: see `Learned.held`."""
    numbers = array("f", weights)
    if len(numbers) != SLOTS:
        raise ValueError(f"{len(numbers)} weights")
    if sys.byteorder != "little":
        numbers.byteswap()
    octets = numbers.tobytes()
    head = _HEAD.pack(_MAGIC, VERSION, SLOTS, ham, spam, crc32(octets), revision, bias, *curve)
    new = path.with_name(f".{path.name}.new")  # always the same, so that who is killed leaves one behind at most
    new.unlink(missing_ok=True)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as file:
            os.fchmod(file.fileno(), 0o640)
            file.write(head)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def find(option: str) -> Path:
    """Where the table is, or would be: the path of the configuration, else in the state directory.

    Who has no table in a state directory of his own takes that of a daemon that the system started.
    """
    if option:
        return Path(option)
    own, system = state_directory() / FILE_NAME, SYSTEM_DIRECTORY / FILE_NAME
    return system if not _exists(own) and _exists(system) else own


def _exists(path: Path) -> bool:
    """Is there a table, or what one will be made from?"""
    return any(os.path.lexists(f"{path}{suffix}") for suffix in ("", SUFFIX))


class Shelf:
    """The table under a name, opened anew when another has taken that name."""

    def __init__(self) -> None:
        self._option = ""
        self._looked = -math.inf
        self._stamp: tuple[int, ...] = ()
        self._table: Table | None = None
        self.problem = ""  # why the file that is there is of no use, "" if it is, or there is none

    def current(self, option: str, now: float) -> Table | None:
        """The table of `find`, None if there is none that is of use.  It looks for a new one once in `LOOK_EVERY`.

        What it finds goes to the log whenever that changes.
        """
        if option == self._option and 0 <= now - self._looked < LOOK_EVERY:
            return self._table
        self._option, self._looked = option, now
        path, before = find(option), self.problem
        try:
            status = path.stat()
        except OSError as error:
            self._stamp, self._table = (), None
            self.problem = "" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        else:
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._table, self.problem = Table(path), ""
                    log.info("%s: learned from %d ham and %d spam", path, self._table.ham, self._table.spam)
                except (OSError, ValueError) as error:
                    self._table, self.problem = None, str(error)
        if self.problem and self.problem != before:
            log.warning("the classifier says nothing: %s", self.problem)
        return self._table
