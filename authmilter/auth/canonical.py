"""Canonical forms of header fields and body (RFC 6376 section 3.4), and the hash of the body as it passes.

White space is SP and HTAB alone (RFC 6376 section 2.8), and a line ends at CRLF alone: a bare CR or LF is an octet like
any other.  All work is linear in the size of the message; what is held back between chunks is two octets and a number.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256

from authmilter.model import BodyHash, BodyHashKey, HeaderField

_HTAB, _CR, _SP = 9, 13, 32  # bytes find a number within them much faster than other bytes
_LINE_ENDS = b"\r\n" * 2048  # withheld empty lines are hashed in blocks of this size


def simple_field(field: HeaderField) -> bytes:
    """The field as it was sent, with its final CRLF (RFC 6376 section 3.4.1)."""
    return field.raw


def relaxed_field(field: HeaderField) -> bytes:
    """The field with lower-case name, unfolded, white space reduced, with its final CRLF (RFC 6376 section 3.4.2)."""
    name, value = field
    if _HTAB in value:
        value = value.replace(b"\t", b" ")
    if _CR in value:
        value = value.replace(b"\r\n ", b" ")
    return name.strip(b" \t").lower() + b":" + _reduce(value).strip(b" ") + b"\r\n"


HEADER: dict[str, Callable[[HeaderField], bytes]] = {"simple": simple_field, "relaxed": relaxed_field}


def _reduce(text: bytes) -> bytes:
    """Every run of SP as one SP, in one pass.

    A `replace` for each length takes two to four times as long where runs are few, a regular expression where there are
    none or many.
    """
    pieces = text.split(b"  ")
    if len(pieces) == 1:
        return text
    # A run of odd length leaves a blank in front of what follows, a run of four or more leaves nothing between two cuts.
    first, *inner, last = pieces
    inner = [piece.lstrip(b" ") for piece in inner]
    return b" ".join([first, *filter(None, inner), last.lstrip(b" ")])


def _final_line_ends(text: bytes) -> int:
    """How many CRLFs `text` ends with."""
    end = text[-3:]
    if end.endswith(b"\r\n") and end[:1] not in (b"\r", b"\n"):  # the usual case
        return 1
    tail = text[len(text.rstrip(b"\r\n")) :]
    # Two like octets in a row are a bare CR or LF: whole CRLFs stand only after the last such place.
    tail = tail[max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1 :]
    return len(tail.removeprefix(b"\n")) // 2 if tail.endswith(b"\n") else 0


class _BodyStream:
    """One canonical form of a body, hashed as it passes; the hash is also read off at each of `lengths`."""

    __slots__ = ("_cuts", "_digests", "_hash", "_held", "_line_ends", "_relaxed", "_total")

    def __init__(self, relaxed: bool, lengths: Iterable[int]) -> None:
        self._relaxed = relaxed
        self._hash = sha256()
        self._total = 0
        self._cuts = sorted(lengths, reverse=True)
        self._digests: dict[int, bytes] = {}
        self._held = b""  # the end of a chunk that the next one decides about: at most SP CR
        self._line_ends = 0  # CRLFs that count only if something follows

    def update(self, chunk: bytes) -> None:
        text = self._held + chunk if self._held else chunk
        if self._relaxed:
            # RFC 6376 section 3.4.4: one SP for each run of white space, none at the end of a line.
            if _HTAB in text:
                text = text.replace(b"\t", b" ")
            if _SP in text:  # in attachments, most of a large message, there is none
                if text.rfind(b"  ") >= 0:  # from the end, which takes a quarter less than from the start
                    text = _reduce(text)
                text = text.replace(b" \r\n", b"\r\n")
            content = text.removesuffix(b"\r").removesuffix(b" ")
        else:
            content = text.removesuffix(b"\r")
        self._held = text[len(content) :]
        line_ends = _final_line_ends(content)
        if line_ends:
            content = content[: -2 * line_ends]
        if content:
            if self._line_ends:
                self._release()
            self._feed(content)
        self._line_ends += line_ends

    def finish(self) -> tuple[dict[int, bytes], BodyHash]:
        """The digests at the lengths that were reached, and the hash of the whole."""
        if self._held:  # white space with no CRLF after it is not at the end of a line: one SP of it stays
            self._release()
            self._feed(self._held)
        # RFC 6376 section 3.4.3: empty lines at the end are one CRLF, also where there is no body or no line end;
        # section 3.4.4: for relaxed a body of nothing but empty lines is empty.
        self._feed(b"\r\n" if self._total or not self._relaxed else b"")
        return self._digests, BodyHash(self._hash.digest(), self._total)

    def _release(self) -> None:
        while self._line_ends:
            count = min(self._line_ends, len(_LINE_ENDS) // 2)
            self._feed(_LINE_ENDS[: 2 * count])
            self._line_ends -= count

    def _feed(self, data: bytes) -> None:
        while self._cuts and self._cuts[-1] <= self._total + len(data):
            cut = self._cuts.pop()
            self._hash.update(data[: cut - self._total])
            self._digests[cut] = self._hash.digest()
            data = data[cut - self._total :]
            self._total = cut
        self._hash.update(data)
        self._total += len(data)


class BodyHashes:
    """All wanted hashes of one body.

    Each canonicalisation is done once and its hash read off at each length, so a hundred signatures with a hundred
    different l= cost what one costs.
    """

    def __init__(self, keys: Iterable[BodyHashKey]) -> None:
        self._keys = frozenset(keys)
        lengths: dict[str, list[int]] = {}
        for canonicalization, length in self._keys:
            cuts = lengths.setdefault(canonicalization, [])
            if length is not None:
                cuts.append(length)
        self._streams = {name: _BodyStream(name == "relaxed", cuts) for name, cuts in lengths.items()}

    def update(self, chunk: bytes) -> None:
        """The next octets of the body, cut anywhere."""
        for stream in self._streams.values():
            stream.update(chunk)

    def finish(self) -> dict[BodyHashKey, BodyHash]:
        """The hashes; call it once, after the last `update`.

        Where the canonical body is shorter than the wanted length, the digest is that of all there is.
        """
        done = {name: stream.finish() for name, stream in self._streams.items()}
        return {key: _pick(key.length, *done[key.canonicalization]) for key in self._keys}


class BodyHasher:
    """One hash of one body; `BodyHashes` takes several at the cost of one."""

    def __init__(self, key: BodyHashKey) -> None:
        self._length = key.length
        self._stream = _BodyStream(key.canonicalization == "relaxed", () if key.length is None else (key.length,))
        self.update = self._stream.update

    def finish(self) -> BodyHash:
        """The hash; call it once, after the last `update`."""
        return _pick(self._length, *self._stream.finish())


def _pick(length: int | None, digests: dict[int, bytes], whole: BodyHash) -> BodyHash:
    return whole if length is None else BodyHash(digests.get(length, whole.digest), whole.total)
