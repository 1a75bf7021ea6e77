"""The directory of a 7z archive."""

import base64
import io
import lzma
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.archives import read_archive
from authmilter.sevenzip import MAX_DIRECTORY, read_7z

PROGRAM = b"MZ\x90\0" + b"\0" * 100
# Each has d/b.txt ("text"), a.exe (PROGRAM) and an empty empty.js, as py7zr 1.1 packs them.
BY_METHOD = {
    "LZMA2 behind a filter for programs": (
        "N3q8ryccAAS4PKAzkQAAAAAAAAAVAAAAAAAAAKBG2KrgAGsADl0AOhlLeBIIDAWBJkofAAAA4ACSAHNdAACBMweuD89dLwwHsMPa"
        "KtdYZKyzeM5U3iNkt5WUpqeUqtZfczdKPq6Y+rMOA4FL3y3adBvOpIIqFgW7p9xHr0Gl12Wf306pfMeKGGNaMs1rRYDJooqM7FzS"
        "Qy1y85R/Pq1fm4aCm1SQYButjQVYHNNvAAAAFwYWAQl7AAcLAQABISEBGAyAkwAA"
    ),
    "LZMA": (
        "N3q8ryccAASXVlqukAAAAAAAAAAVAAAAAAAAAPgQnCQAOhlLeBIIDAWBJkzyrf///qEgAOAAlgB0XQAAgTMHrg/PObAMB8hDgIOB"
        "W/+sds94Pw7WVyCY5kPCAYMi4/MWv1UHC9QOI3v4rYgUn+7WTM4/O53U2X+e6evXqEEpRpnA8t7dK47sVjQ+vDkb8RMHAaAEHywW"
        "lOs2rGkHYfdpPRSPsQpUFAb+GKqdDbQAAAAXBhQBCXwABwsBAAEhIQEYDICXAAA="
    ),
    "copy": (
        "N3q8ryccAAR22Zau4QAAAAAAAAAVAAAAAAAAAF1QvZp0ZXh0TVqQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADgAI4AbV0AAIEz"
        "B64P1Cq6/UDAkPGtwV5RtJ64bZBI39av2znRemvo1sMtl5oxMUi9mzFnHPz7DiR2WVypi2CG7szWXTFqV0rVBI8HFjNEsMsJjVie"
        "CnHvrnyDZjt0wqAM+YdHBmabQFO5G4IiFnN6hwAAAAAXBmwBCXUABwsBAAEhIQEYDICPAAA="
    ),
    "deflate": (
        "N3q8ryccAAR21RpLfwAAAAAAAAAVAAAAAAAAAFkLqaUrSa0o8Y2awEAPAADgAIoAa10AAIEzB64PzpwGxQkqrrlcOAMK351V3YUL"
        "krc5UMk0SXK+OjWx4F7x2PLDTzdJlgVehc43KEdqWYfJbiGTf4/k7RhOR/6JrfZ814BU4jEFz1c9d+F/zo/d8OGxll4Z8nHUWJ21"
        "FAX7V4CGAAAAFwYMAQlzAAcLAQABISEBGAyAiwAA"
    ),
    "bzip2": (
        "N3q8ryccAAT+8qPRqgAAAAAAAAAVAAAAAAAAAEalgxBCWmg5MUFZJlNZMS/tugAABMegQAAAAgAQIgAEQEAAIAAxDAgg0ZqGXNSI"
        "Hi7kinChIGJf23TgAIoAbF0AAIEzB64P0VujJKCQoHJD1LHip8ZMZhq0Krb7CRBFu1t2Hr6/dIuEvPU1cpxIVP/aqzS51IKXcFF8"
        "ldCNMYb8tRfCR3tNH5026dwqXC50/XJferpOLEZ/DBaiUsCyU3gZJ6fojC8zaNiQCAAAABcGNgEJdAAHCwEAASEhARgMgIsAAA=="
    ),
    "PPMd": (
        "N3q8ryccAARFhHZPiAAAAAAAAAAVAAAAAAAAAL7xUx4Ac++ax8+JQUy4AAAAAOAAkgByXQAAgTMHrg/Ox1yBCSqu1WJm+mJMroWM"
        "/bWYekbiaBFks56bYoEYJWbZzTOGaQBJm/26tLzr8OQ93y3+8y8s+mOACZxC/ZbsAE+UvSfNDPk86pgfL/drzaVoyjeO0DTzrgLa"
        "eOnSjlpcyIlx3TJN5BAuAAAAFwYOAQl6AAcLAQABISEBGAyAkwAA"
    ),
}
ENCRYPTED = base64.b64decode(
    "N3q8ryccAARqxTfjugAAAAAAAAAWAAAAAAAAAAimiLbGgd1YdJUUF7tUcjwOrvxU+icQ3aZUjymQ0IF/k2rC++AArgCSXQAAgTMH"
    "rg/QDv4UT2ntsVCHdkaggbOZC4Er4xkBmqacEe7tBg7TMCYx+l5P2GV8mbvK74cshPMl2i9jw54a0WN6/xRs+BoAebv5YeahHhAK"
    "IWPiblSxzwszDIOar1u6ViVWeMVokUekQh45mi6kYD2IuuJM2wmTL+suo2FyYWZp3eHfe/VDBA18KH+TeeHrqScAAAAXBiABCYCa"
    "AAcLAQABISEBGAyArwAA"
)
LOCKED = base64.b64decode(
    "N3q8ryccAATQT/m00AAAAAAAAAAqAAAAAAAAAMS73z6mu2LCkXh5tE65i25Z4DsWrIGPBk+wqB08SnKFJPA7lvyeq1ZAYqwKetVf"
    "HW3BuzZPPpcyAUMJU5Y+g4+LcMzURZvj0cXyXNpx3tnKTUoFody36CJp/ZQTtISAMeCbKGDfnJxAOFdR7UpszL87bUsmINz5zYYM"
    "OuIHD3y1CtAEVHguMnKWxd27gPLgW7kFxhA9G0JdVY6MbWQ32N0nF5g75soycRDQnRUM0+/jPx6vrwTWj18nCjl0QPrfVyHFElSo"
    "fnA7d30NPrE0vm90H26pFwYgAQmAsAAHCwEAASQG8QcBElMPT20j2parTUCDoSRzWOlz2wyArwAA"
)


def archive(method: str) -> bytes:
    return base64.b64decode(BY_METHOD[method])


@pytest.mark.parametrize("method", BY_METHOD)
def test_names_and_sizes(method: str) -> None:
    found = read_7z(archive(method))
    assert [(file.name, file.size) for file in found.files] == [("d/b.txt", 4), ("a.exe", 104), ("empty.js", 0)]
    assert (found.encrypted, found.cut) == (False, "")


@pytest.mark.parametrize("method", BY_METHOD)
def test_files_are_known_by_their_content(method: str) -> None:
    found = {member.name: member.type for member in read_archive(archive(method)).members}
    expected = "" if method == "PPMd" else "executable"  # which nothing in Python's library unpacks
    assert found == {"d/b.txt": "", "a.exe": expected, "empty.js": ""}


def test_encrypted_files_have_names() -> None:
    found = read_archive(ENCRYPTED)
    assert found.encrypted
    assert not found.locked
    assert [(member.name, member.encrypted) for member in found.members][:2] == [("d/b.txt", True), ("a.exe", True)]


def test_an_encrypted_directory_has_none() -> None:
    found = read_archive(LOCKED)
    assert found.encrypted
    assert found.locked
    assert found.members == ()


def test_an_archive_without_files() -> None:
    assert read_7z(b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 24).files == ()


def test_py7zr_says_the_same() -> None:
    py7zr = pytest.importorskip("py7zr", reason="py7zr is not installed: it only serves to be compared with")
    for method in BY_METHOD:
        with py7zr.SevenZipFile(io.BytesIO(archive(method))) as theirs:
            assert theirs.getnames() == [file.name for file in read_7z(archive(method)).files]


# -- hostile ones ------------------------------------------------------------------------------------------------------


def number(value: int) -> bytes:
    return b"\xff" + struct.pack("<Q", value)


def built(packed: bytes, header: bytes) -> bytes:
    start = struct.pack("<QQI", len(packed), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + packed + header


def packed_directory(directory: bytes, size: int = -1, dictionary: int = 0x18) -> bytes:
    """An archive with a directory packed by LZMA2."""
    packed = lzma.compress(directory, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    sizes = b"\x0c" + number(len(directory) if size < 0 else size)
    coder = b"\x07\x0b" + number(1) + b"\0" + number(1) + b"\x21\x21\x01" + bytes((dictionary,))
    return built(
        packed, b"\x17\x06" + number(0) + number(1) + b"\x09" + number(len(packed)) + b"\0" + coder + sizes + b"\0\0"
    )


def directory_of(name: str) -> bytes:
    names = name.encode("utf-16-le") + b"\0\0"
    return b"\1\5" + number(1) + b"\x11" + number(len(names) + 1) + b"\0" + names + b"\0\0"


def test_the_builder_of_this_test_builds_archives() -> None:
    assert [file.name for file in read_7z(packed_directory(directory_of("a.exe"))).files] == ["a.exe"]


HOSTILE = [
    pytest.param(packed_directory(b"\1\5" + b"\0" * 50_000_000), "too large", id="a directory of 50 MB"),
    pytest.param(packed_directory(b"\1\5" + b"\0" * 50_000_000, 1000), "", id="one that says it is small"),
    pytest.param(packed_directory(directory_of("a"), dictionary=40), "", id="a dictionary of 4 GB"),
    pytest.param(built(b"", b"\1\5" + number(1 << 60) + b"\0\0"), "more than", id="2^60 files"),
    pytest.param(built(b"", b"\1\4\6\0" + number(1 << 60)), "more than", id="2^60 packed streams"),
    pytest.param(
        built(b"", b"\1\4\7\x0b" + number(5000) + b"\0" + b"\1\1\0" * 5000 + b"\x0c" + b"\1" * 5000 + b"\0"
              + b"\x08\x0d" + number(9000) * 5000), "more than", id="45 million files in folders",
    ),
    pytest.param(built(b"", b"\1\4\7\x0b\1\0" + number(1 << 60)), "damaged", id="2^60 coders"),
    pytest.param(built(b"", b"\1\5\1\x11" + number(1 << 60)), "damaged", id="2^60 octets of names"),
    pytest.param(built(b"", b"\1\5" + b"\x11\0" * 500_000), "", id="properties without end"),
    pytest.param(built(b"", b"\x17" * 1000), "damaged", id="directories in directories"),
    pytest.param(built(b"", b"\1" * (MAX_DIRECTORY + 1)), "too large", id="an endless directory"),
    pytest.param(b"7z\xbc\xaf\x27\x1c\0\4\0\0\0\0" + b"\xff" * 20, "too large", id="a directory beyond the end"),
    pytest.param(b"7z\xbc\xaf\x27\x1c", "damaged", id="nothing but the mark"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "cut"), HOSTILE)
def test_hostile_archives_cost_little(data: bytes, cut: str) -> None:
    tracemalloc.start()
    begin = time.process_time()
    found = read_7z(data)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{len(data)} octets, {seconds * 1000:.1f} ms, {peak / 1e6:.1f} MB: {found.cut}")
    assert cut in found.cut
    assert seconds < 1
    assert peak < 12 * 1024 * 1024


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*(base64.b64decode(text) for text in BY_METHOD.values()), packed_directory(directory_of("a"))]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8),
    st.integers(0, 400),
)
def test_nothing_fails(data: bytes, changes: list[tuple[int, int]], size: int) -> None:
    damaged = bytearray(data)
    for at, octet in changes:
        damaged[at % len(damaged)] = octet
    for hostile in (bytes(damaged), bytes(damaged[:size])):
        assert len(read_7z(hostile).files) < 500
        read_archive(hostile, kind="7z")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_directory_fails(directory: bytes) -> None:
    assert len(read_7z(built(b"abc", b"\1" + directory)).files) < 500
