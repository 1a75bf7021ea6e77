"""Canonical forms of header and body: against vectors, against dkimpy, and in every cut."""

import os
import random
import re
from hashlib import sha256

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from authmilter.auth.canonical import BodyHasher, BodyHashes, relaxed_field, simple_field
from authmilter.model import BodyHash, BodyHashKey, HeaderField
from tests.suites.dkim import CANONICALIZATION
from tests.suites.suite import run

CASES = int(os.environ.get("AUTHMILTER_FUZZ", "20000"))  # random cases of each kind
SIMPLE = BodyHashKey("simple", None)
RELAXED = BodyHashKey("relaxed", None)


def hash_of(canonical: bytes) -> BodyHash:
    return BodyHash(sha256(canonical).digest(), len(canonical))


def body_hash(key: BodyHashKey, *chunks: bytes) -> BodyHash:
    hasher = BodyHasher(key)
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.finish()


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


BODIES = [
    pytest.param(b"", b"\r\n", b"", id="no body"),
    pytest.param(b"\r\n", b"\r\n", b"", id="one empty line"),
    pytest.param(b"\r\n" * 9000, b"\r\n", b"", id="nothing but empty lines"),
    pytest.param(b"a", b"a\r\n", b"a\r\n", id="no line end"),
    pytest.param(b"a\r\n", b"a\r\n", b"a\r\n", id="one line"),
    pytest.param(b"a\r\n\r\n\r\n", b"a\r\n", b"a\r\n", id="empty lines at the end"),
    pytest.param(b"\r\n\r\na", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n", id="empty lines in front"),
    pytest.param(
        b"a" + b"\r\n" * 9000 + b"b", b"a" + b"\r\n" * 9000 + b"b\r\n", b"a" + b"\r\n" * 9000 + b"b\r\n",
        id="more empty lines inside than fit one block",
    ),
    pytest.param(b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n", id="RFC 6376 section 3.4.5"),
    pytest.param(b" \r\n", b" \r\n", b"", id="white space alone"),
    pytest.param(b"a\r\n \t\r\n\r\n", b"a\r\n \t\r\n", b"a\r\n", id="white space alone in the last lines"),
    pytest.param(b"a \t", b"a \t\r\n", b"a \r\n", id="white space at the end, no line end"),
    pytest.param(b" ", b" \r\n", b" \r\n", id="white space and no line end"),
    pytest.param(b"a\nb\n", b"a\nb\n\r\n", b"a\nb\n\r\n", id="bare LF ends no line"),
    pytest.param(b"a\rb\r", b"a\rb\r\r\n", b"a\rb\r\r\n", id="bare CR ends no line"),
    pytest.param(b"a \rb \n", b"a \rb \n\r\n", b"a \rb \n\r\n", id="white space before a bare CR or LF stays"),
    pytest.param(b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n", b"a\r\r\n\n\r\n", id="CR CR LF LF CR LF"),
    pytest.param(b"a\x0b \x0c\r\n", b"a\x0b \x0c\r\n", b"a\x0b \x0c\r\n", id="VT and FF are no white space"),
    pytest.param(b"\xff \xa0 \xff\r\n", b"\xff \xa0 \xff\r\n", b"\xff \xa0 \xff\r\n", id="octets above 127 stay"),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 65535])
@pytest.mark.parametrize(("body", "simple", "relaxed"), BODIES)
def test_body(body: bytes, simple: bytes, relaxed: bytes, size: int) -> None:
    chunks = in_pieces(body, size)
    assert body_hash(SIMPLE, *chunks) == hash_of(simple)
    assert body_hash(RELAXED, *chunks) == hash_of(relaxed)


FIELDS = [
    pytest.param(b"A", b" X", b"a:X\r\n", id="RFC 6376 section 3.4.5, first field"),
    pytest.param(b"B ", b" Y\t\r\n\tZ  ", b"b:Y Z\r\n", id="RFC 6376 section 3.4.5, second field"),
    pytest.param(b"SUBJECT\t ", b"x", b"subject:x\r\n", id="white space before the colon"),
    pytest.param(b"Subject", b"", b"subject:\r\n", id="no value"),
    pytest.param(b"Subject", b" \t ", b"subject:\r\n", id="white space alone"),
    pytest.param(b"Subject", b"\r\n \r\n\tx\r\n ", b"subject:x\r\n", id="lines of white space alone"),
    pytest.param(b"Subj\xe4ct", b" \xc3\xa4", b"subj\xe4ct:\xc3\xa4\r\n", id="octets above 127 in name and value"),
    pytest.param(b"Subject", b" a\rb\nc", b"subject:a\rb\nc\r\n", id="bare CR and LF stay"),
    pytest.param(b"Subject", b"\x0b a \x0c", b"subject:\x0b a \x0c\r\n", id="VT and FF are no white space"),
    pytest.param(b"Subject", b" a:b : c", b"subject:a:b : c\r\n", id="colons in the value"),
]


@pytest.mark.parametrize(("name", "value", "relaxed"), FIELDS)
def test_field(name: bytes, value: bytes, relaxed: bytes) -> None:
    assert relaxed_field(HeaderField(name, value)) == relaxed
    assert simple_field(HeaderField(name, value)) == name + b":" + value + b"\r\n"


async def test_every_vector_of_the_canonicalization_suite() -> None:
    tally = await run(CANONICALIZATION)
    assert (tally.failed, tally.passed) == ([], 42)


PIECES = [
    b"a",
    b"b.",
    b"\xe9",
    b" ",
    b" ",
    b"  ",
    b"\t",
    b"\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" \r\n",
    b"\r\n\r\n",
    b"\x0b",
]


def test_bodies_as_dkimpy_sees_them_in_random_chunks() -> None:
    chance = random.Random(6376)
    for case in range(CASES):
        body = b"".join(chance.choices(PIECES, k=chance.randrange(24)))
        size = chance.choice((1, 2, 3, 5, 8, 64))
        first = chance.randrange(1, 9)
        chunks = [body[:first], *in_pieces(body[first:], size)]
        relaxed, simple = Relaxed.canonicalize_body(body), Simple.canonicalize_body(body)
        length = chance.randrange(30)
        cut = BodyHashKey("relaxed", length)
        hashes = BodyHashes([SIMPLE, RELAXED, cut, BodyHashKey("simple", length)])
        for chunk in chunks:
            hashes.update(chunk)
        assert hashes.finish() == {
            SIMPLE: hash_of(simple),
            RELAXED: hash_of(relaxed),
            cut: BodyHash(sha256(relaxed[:length]).digest(), len(relaxed)),
            BodyHashKey("simple", length): BodyHash(sha256(simple[:length]).digest(), len(simple)),
        }, (case, chunks)
        assert body_hash(cut, *chunks) == BodyHash(sha256(relaxed[:length]).digest(), len(relaxed)), (case, chunks)


HEADER_PIECES = [b" " * 37, b"a", b"B:", b"\xe9", b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t", b" \r\n  ", b"=?utf-8?q?x?="]


def test_fields_as_dkimpy_sees_them() -> None:
    chance = random.Random(8301)
    names = [b"From", b"SUBJECT ", b"x-\xe9", b"To\t", b"Received"]
    for case in range(CASES):
        name, value = chance.choice(names), b"".join(chance.choices(HEADER_PIECES, k=chance.randrange(16)))
        [(expected_name, expected_value)] = Relaxed.canonicalize_headers([(name, value)])
        assert relaxed_field(HeaderField(name, value)) == expected_name + b":" + expected_value, (case, name, value)


RUNS = st.lists(
    st.builds(
        lambda text, blank, times: text + blank * times,
        st.sampled_from([b"", b"a", b"a", b"\r\n", b"\n", b"\r"]),
        st.sampled_from([b" ", b" ", b"\t", b" \t"]),
        st.integers(0, 3) | st.integers(0, 70),
    ),
    max_size=12,
).map(b"".join)


@given(RUNS, st.integers(1, 40))
def test_runs_of_white_space_of_any_length(text: bytes, size: int) -> None:
    reduced = re.sub(rb"[ \t]+", b" ", text)
    lines = re.sub(rb" ?(\r\n)+\Z", b"", re.sub(rb" \r\n", b"\r\n", reduced))
    assert body_hash(RELAXED, *in_pieces(text, size)) == hash_of(lines + b"\r\n" if lines else b"")
    unfolded = re.sub(rb"[ \t]+", b" ", re.sub(rb"\r\n(?=[ \t])", b"", text)).strip(b" ")
    assert relaxed_field(HeaderField(b"X", text)) == b"x:" + unfolded + b"\r\n"


HOSTILE = [
    pytest.param(b" " * 80_000 + b"x", b" x\r\n", id="80 KB of spaces"),
    pytest.param(b"x" + b" \t" * 4_000_000 + b"\r\n", b"x\r\n", id="8 MB of white space at the end of a line"),
    pytest.param(b"x" + b"\r\n" * 4_000_000, b"x\r\n", id="8 MB of empty lines"),
    pytest.param(b"x" + b"\r" * 4_000_000, b"x" + b"\r" * 4_000_000 + b"\r\n", id="4 MB of CR"),
    pytest.param(b" \r" * 2_000_000, b" \r" * 2_000_000 + b"\r\n", id="4 MB of SP CR"),
    pytest.param(b"y" * 8_000_000, b"y" * 8_000_000 + b"\r\n", id="one line of 8 MB"),
]


@pytest.mark.parametrize("size", [64, 65535])
@pytest.mark.parametrize(("body", "relaxed"), HOSTILE)
def test_work_and_memory_are_linear(body: bytes, relaxed: bytes, size: int) -> None:
    """A quadratic step would take hours here, as dkimpy does; what is kept between chunks stays a few octets."""
    hasher = BodyHasher(RELAXED)
    for chunk in in_pieces(body, size):
        hasher.update(chunk)
        assert len(hasher._stream._held) <= 2
    assert hasher.finish() == hash_of(relaxed)


def test_a_length_beyond_the_body_is_seen_from_the_total() -> None:
    assert body_hash(BodyHashKey("simple", 99), b"abc\r\n") == hash_of(b"abc\r\n")


def test_a_hundred_lengths_are_read_off_one_hash() -> None:
    keys = [BodyHashKey("simple", n) for n in range(100)]
    hashes = BodyHashes(keys)
    for chunk in in_pieces(b"0123456789" * 10 + b"\r\n", 7):
        hashes.update(chunk)
    assert hashes.finish() == {k: BodyHash(sha256((b"0123456789" * 10)[: k.length]).digest(), 102) for k in keys}
