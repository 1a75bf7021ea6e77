"""The headers of RAR archives."""

import io
import struct
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.archives import MAX_MEMBERS, read_archive
from authmilter.rar import read_rar
from tests.test_archives import PROGRAM, zipped

SIGNATURE_5 = b"Rar!\x1a\x07\1\0"
SIGNATURE_4 = b"Rar!\x1a\x07\0"


def vint(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 0x7F
        out += bytes((low | (0x80 if value else 0),))
        if not value:
            return out


def block_5(kind: int, body: bytes, data: bytes | None = None, extra: bytes = b"") -> bytes:
    flags = (1 if extra else 0) | (2 if data is not None else 0)
    header = vint(kind) + vint(flags)
    header += vint(len(extra)) if extra else b""
    header += vint(len(data)) if data is not None else b""
    header += body + extra
    header = vint(len(header)) + header
    return struct.pack("<I", zlib.crc32(header)) + header + (data or b"")


def file_5(
    name: str, data: bytes = b"", *, flags: int = 4, method: int = 0, extra: bytes = b"", kind: int = 2
) -> bytes:
    raw = name.encode()
    times = (b"\0" * 4 if flags & 2 else b"") + (struct.pack("<I", zlib.crc32(data)) if flags & 4 else b"")
    body = vint(flags) + vint(len(data)) + vint(0x20) + times + vint(method << 7) + vint(1) + vint(len(raw)) + raw
    return block_5(kind, body, data, extra)


def rar_5(*blocks: bytes) -> bytes:
    return SIGNATURE_5 + block_5(1, vint(0)) + b"".join(blocks) + block_5(5, vint(0))


def block_4(kind: int, flags: int, body: bytes) -> bytes:
    rest = struct.pack("<BHH", kind, flags, len(body) + 7) + body
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest


def file_4(name: bytes, data: bytes = b"", *, flags: int = 0, method: int = 0x30) -> bytes:
    body = struct.pack("<IIBIIBBHI", len(data), len(data), 2, zlib.crc32(data), 0x21 << 16, 29, method, len(name), 0x20)
    return block_4(0x74, 0x8000 | flags, body + name) + data


def rar_4(*blocks: bytes, flags: int = 0) -> bytes:
    return SIGNATURE_4 + block_4(0x73, flags, b"\0" * 6) + b"".join(blocks) + block_4(0x7B, 0x4000, b"")


ENCRYPTION_RECORD = vint(3) + vint(1) + b"\0\0"
# "aé.exe" and "新.txt": literal octets, octets of a block of 256, whole characters, and a run of the plain name.
UNICODE_NAMES = [
    (b"a_.exe\0" + b"\x00" + b"\x00a\xe9.e" + b"\xc0\x00", "a\xe9.exe"),
    (b"_.txt\0" + b"\x65" + b"\x70\xb0\x02", "\u65b0.txt"),
    (b"_.txt\0" + b"\x65" + b"\xb0\xb0\x65\x02", "\u65b0.txt"),
]
RECORDED = [
    pytest.param(rar_5(file_5("a.exe", PROGRAM)), [("a.exe", "executable")], id="5, stored"),
    pytest.param(rar_5(file_5("a.exe", b"packed", method=3)), [("a.exe", "")], id="5, packed"),
    pytest.param(rar_5(file_5("d/\xe4.js", b"x", flags=6)), [("d/\xe4.js", "")], id="5, with a time"),
    pytest.param(
        rar_5(file_5("d", flags=1), file_5("CMT", b"y" * 50, kind=3), file_5("b")), [("b", "")], id="5, with others"
    ),
    pytest.param(
        rar_5(file_5("i.zip", zipped({"a.exe": PROGRAM}))),
        [("i.zip", "zip"), ("i.zip/a.exe", "executable")],
        id="5, with a zip in it",
    ),
    pytest.param(rar_4(file_4(b"d\\a.exe", PROGRAM), file_4(b"b")), [("d/a.exe", "executable"), ("b", "")], id="4"),
    pytest.param(rar_4(file_4(b"a.exe", b"packed", method=0x33)), [("a.exe", "")], id="4, packed"),
    pytest.param(rar_4(file_4(b"d", flags=0xE0), file_4(b"b")), [("b", "")], id="4, with a directory"),
    *(
        pytest.param(rar_4(file_4(raw, flags=0x200)), [(name, "")], id=f"4, Unicode {number}")
        for number, (raw, name) in enumerate(UNICODE_NAMES)
    ),
    pytest.param(rar_4(file_4("ä.js".encode(), flags=0x200)), [("ä.js", "")], id="4, UTF-8"),
]


@pytest.mark.parametrize(("data", "members"), RECORDED)
def test_what_is_in_it(data: bytes, members: list[tuple[str, str]]) -> None:
    found = read_archive(data)
    assert [(member.name, member.type) for member in found.members] == members
    assert not found.encrypted
    assert found.cut == ""


@pytest.mark.parametrize(("data", "members"), RECORDED)
def test_rarfile_says_the_same(data: bytes, members: list[tuple[str, str]]) -> None:
    rarfile = pytest.importorskip("rarfile", reason="rarfile is not installed: it only serves to be compared with")
    theirs = [info.filename for info in rarfile.RarFile(io.BytesIO(data)).infolist() if not info.is_dir()]
    assert theirs == [name for name, _ in members if not name.startswith("i.zip/")]


@pytest.mark.parametrize(
    ("data", "names", "locked"),
    [
        pytest.param(rar_5(file_5("a.exe", b"x", extra=ENCRYPTION_RECORD)), ["a.exe"], False, id="5"),
        pytest.param(rar_4(file_4(b"a.exe", b"x", flags=4)), ["a.exe"], False, id="4"),
        pytest.param(SIGNATURE_5 + block_5(4, b"\0\0\x0f" + b"\0" * 16) + b"\0" * 99, [], True, id="5, names too"),
        pytest.param(rar_4(b"\0" * 99, flags=0x80), [], True, id="4, names too"),
    ],
)
def test_encryption(data: bytes, names: list[str], locked: bool) -> None:
    found = read_archive(data)
    assert found.encrypted
    assert found.locked == locked
    assert [member.name for member in found.members] == names


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(rar_5(file_5("a") * 200_000), id="5, 200,000 files"),
        pytest.param(rar_4(file_4(b"a") * 200_000), id="4, 200,000 files"),
        pytest.param(SIGNATURE_5 + b"\0\0\0\0\1\1\0" * 500_000, id="5, blocks of nothing"),
        pytest.param(SIGNATURE_4 + b"\0\0\x75\0\0\7\0" * 500_000, id="4, blocks of nothing"),
        pytest.param(SIGNATURE_5 + b"\0\0\0\0" + b"\xff" * 2_000_000, id="5, a number without end"),
        pytest.param(rar_5(file_5("a", extra=b"\1" * 1_000_000)), id="5, a million records"),
        pytest.param(rar_4(file_4(b"a" * 30_000 + b"\0" + b"\xff" * 30_000, flags=0x200)), id="4, runs of a name"),
    ],
)
def test_hostile_archives_cost_little(data: bytes) -> None:
    begin = time.process_time()
    found = read_archive(data)
    seconds = time.process_time() - begin
    print(f"{len(data)} octets, {seconds * 1000:.1f} ms, {len(found.members)} files: {found.cut}")
    assert len(found.members) <= MAX_MEMBERS
    assert seconds < 1


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([rar_5(file_5("a.exe", b"x", extra=ENCRYPTION_RECORD)), rar_4(*(file_4(n, flags=0x200) for n, _ in UNICODE_NAMES))]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=8),
    st.integers(0, 200),
)  # fmt: skip
def test_nothing_fails(data: bytes, changes: list[tuple[int, int]], size: int) -> None:
    damaged = bytearray(data)
    for at, octet in changes:
        damaged[at % len(damaged)] = octet
    for hostile in (bytes(damaged), bytes(damaged[:size])):
        assert len(read_rar(hostile).files) < 50
