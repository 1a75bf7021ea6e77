"""Canonical forms of header fields and body (RFC 6376 section 3.4), and the hash of the body as it passes.

White space is SP and HTAB alone (RFC 6376 section 2.8), and a line ends at CRLF alone: a bare CR or LF is an octet like
any other.  All work is linear in the size of the message; what is held back between chunks is two octets and a number.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256

from authmilter.model import BodyHash, BodyHashKey, HeaderField

_LINE_ENDS = b"\r\n" * 2048  # withheld empty lines are hashed in blocks of this size


def simple_field(field: HeaderField) -> bytes:
    """The field as it was sent, with its final CRLF (RFC 6376 section 3.4.1)."""
    return field.raw


def relaxed_field(field: HeaderField) -> bytes:
    """The field with lower-case name, unfolded, white space reduced, with its final CRLF (RFC 6376 section 3.4.2)."""
    value = field.value
    if b"\r\n" in value:
        value = value.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    return b"%b:%b\r\n" % (field.name.strip(b" \t").lower(), _reduce(value).strip(b" "))


HEADER: dict[str, Callable[[HeaderField], bytes]] = {"simple": simple_field, "relaxed": relaxed_field}


def _reduce(text: bytes) -> bytes:
    """Every run of white space as one SP.

    Each pass at least halves every run, so there are some 20 passes at most.  On ordinary text two or three do, which
    take a quarter of the time of a split into words; a regular expression takes three times as long on hostile text.
    """
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    if b"  " in text:
        text = text.replace(b"    ", b" ")  # indentation, at half the passes
        while b"  " in text:
            text = text.replace(b"  ", b" ")
    return text


def _final_line_ends(text: bytes) -> int:
    """How many CRLFs `text` ends with."""
    tail = text[len(text.rstrip(b"\r\n")) :]
    if tail == b"\r\n":  # the usual case
        return 1
    # Two like octets in a row are a bare CR or LF: whole CRLFs stand only after the last such place.
    tail = tail[max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1 :]
    return len(tail.removeprefix(b"\n")) // 2 if tail.endswith(b"\n") else 0


class _BodyStream:
    """One canonical form of a body, hashed as it passes; the hash is also read off at each of `lengths`."""

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
        end = len(text)
        if self._relaxed:
            # RFC 6376 section 3.4.4: one SP for each run of white space, none at the end of a line.
            text = _reduce(text)
            if b" \r\n" in text:
                text = text.replace(b" \r\n", b"\r\n")
            end = len(text.removesuffix(b"\r").removesuffix(b" "))
        elif text.endswith(b"\r"):
            end -= 1
        self._held = text[end:]
        if self._held:
            text = text[:end]
        line_ends = _final_line_ends(text)
        content = text[: len(text) - 2 * line_ends]
        if content:
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
        self._streams = {
            name: _BodyStream(
                name == "relaxed",
                {k.length for k in self._keys if k.canonicalization == name and k.length is not None},
            )
            for name in {k.canonicalization for k in self._keys}
        }

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
