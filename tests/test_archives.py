"""Archives listed, and files told by their content."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.archives import MAX_MEMBERS, MAX_UNPACKED, Archive, Budget, read_archive

PROGRAM = b"MZ\x90\0" + b"\0" * 100


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def streamed(data: bytes) -> bytes:
    """A zip whose sizes stand behind its files."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, piece: object, /) -> int:
            self.data += bytes(piece)  # type: ignore[call-overload]
            return len(piece)  # type: ignore[arg-type]

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.exe", data)
        archive.writestr("b.txt", b"text")
    return out.data


def cabinet(*names: str) -> bytes:
    """A cabinet with files of these names, and nothing in them."""
    files = b"".join(b"\1\0\0\0" + b"\0" * 12 + name.encode() + b"\0" for name in names)
    header = b"MSCF" + bytes(12) + b"\x24" + bytes(7) + b"\3\1\1\0" + bytes((len(names), 0)) + bytes(6)
    return header + files


def listed(archive: bytes) -> list[tuple[str, str]]:
    return [(member.name, member.type) for member in read_archive(archive).members]


LONG = "a" * 150 + "/" + "b" * 120 + ".exe"


@pytest.mark.parametrize(
    ("archive", "members"),
    [
        pytest.param(zipped({"a.exe": PROGRAM, "b.txt": b"x"}), [("a.exe", "executable"), ("b.txt", "")], id="zip"),
        pytest.param(zipped({"a.exe": PROGRAM}, zipfile.ZIP_STORED), [("a.exe", "executable")], id="zip, stored"),
        pytest.param(zipped({"a.exe": PROGRAM}, zipfile.ZIP_BZIP2), [("a.exe", "executable")], id="zip by bzip2"),
        pytest.param(zipped({"a.exe": PROGRAM}, zipfile.ZIP_LZMA), [("a.exe", "executable")], id="zip by LZMA"),
        pytest.param(b"GIF89a" + zipped({"a.exe": PROGRAM}), [], id="zip behind something else, read as that"),
        pytest.param(
            zipped({"i.zip": zipped({"[Content_Types].xml": b"x", "a.exe": PROGRAM})}),
            [("i.zip", "zip"), ("i.zip/[Content_Types].xml", ""), ("i.zip/a.exe", "executable")],
            id="a zip that looks like a document",
        ),
        pytest.param(
            zipped({"i.docx": zipped({"[Content_Types].xml": b"x", "word/document.xml": b"x"})}),
            [("i.docx", "office-zip")],
            id="a document in a zip",
        ),
        pytest.param(cabinet("a.exe", "d\\b.txt"), [("a.exe", ""), ("d/b.txt", "")], id="cabinet"),
        pytest.param(b"MSCF\0\0\0\0" + b"\xff" * 40, [], id="a damaged cabinet"),
        pytest.param(streamed(PROGRAM), [("a.exe", "executable"), ("b.txt", "")], id="zip whose sizes stand behind"),
        pytest.param(zipped({"d/\xe4.txt": b"x"}), [("d/\xe4.txt", "")], id="zip with UTF-8 names"),
        pytest.param(
            zipped({"i.zip": zipped({"a.exe": PROGRAM})}),
            [("i.zip", "zip"), ("i.zip/a.exe", "executable")],
            id="zip in zip",
        ),
        pytest.param(
            zipped({"i.zip": zipped({"a.exe": PROGRAM})}, zipfile.ZIP_STORED),
            [("i.zip", "zip"), ("i.zip/a.exe", "executable")],
            id="zip in zip, stored",
        ),
        pytest.param(tarred({"a.exe": PROGRAM, LONG: b"x"}), [("a.exe", "executable"), (LONG, "")], id="tar"),
        pytest.param(tarred({LONG: b"x"}, tarfile.GNU_FORMAT), [(LONG, "")], id="tar of GNU"),
        pytest.param(tarred({"c" * 90 + "/" + "d" * 90: b"x"}, tarfile.USTAR_FORMAT), [("c" * 90 + "/" + "d" * 90, "")], id="ustar"),
        pytest.param(gzip.compress(tarred({"a.exe": PROGRAM})), [("a.exe", "executable")], id="tar.gz"),
        pytest.param(bz2.compress(tarred({"a.exe": PROGRAM})), [("a.exe", "executable")], id="tar.bz2"),
        pytest.param(lzma.compress(tarred({"a.exe": PROGRAM})), [("a.exe", "executable")], id="tar.xz"),
        pytest.param(gzip.compress(PROGRAM), [("", "executable")], id="gzip"),
        pytest.param(b"text", [], id="no archive"),
        pytest.param(b"PK\3\4", [], id="the beginning of a zip"),
        pytest.param(gzip.compress(b"x")[:-9], [("", "")], id="a damaged gzip"),
    ],
)  # fmt: skip
def test_what_is_in_it(archive: bytes, members: list[tuple[str, str]]) -> None:
    assert listed(archive) == members


def test_the_name_in_a_gzip() -> None:
    out = io.BytesIO()
    with gzip.GzipFile("a.exe", "wb", fileobj=out) as file:
        file.write(b"x")
    assert listed(out.getvalue()) == [("a.exe", "")]


def test_names_that_stand_in_the_directory_alone() -> None:
    archive = zipped({"a.txt": b"x"})
    at = archive.rindex(b"a.txt")
    assert set(listed(archive[:at] + b"a.exe" + archive[at + 5 :])) == {("a.txt", ""), ("a.exe", "")}


def test_files_that_stand_in_the_directory_alone_are_looked_into() -> None:
    """The header before the first file claims all that follows, so that those who go by headers see no second one."""
    archive = bytearray(zipped({"a.txt": b"x", "b.txt": PROGRAM}, zipfile.ZIP_STORED))
    archive[18:22] = struct.pack("<I", len(archive))
    assert ("b.txt", "executable") in listed(bytes(archive))


def test_directories_that_count_from_the_beginning_of_the_zip() -> None:
    archive = b"GIF89a and more" + zipped({"b.txt": PROGRAM})
    assert [(member.name, member.type) for member in read_archive(archive, kind="zip").members] == [
        ("b.txt", "executable")
    ]


def test_the_name_that_an_extra_field_of_a_zip_gives() -> None:
    out = io.BytesIO()
    for checksum, expected in ((zlib.crc32(b"a.txt"), "b.exe"), (0, "a.txt")):
        with zipfile.ZipFile(out, "w") as archive:
            info = zipfile.ZipInfo("a.txt")
            info.extra = struct.pack("<HHHHBI", 1, 0, 0x7075, 10, 1, checksum) + b"b.exe"
            archive.writestr(info, b"x")
        assert {name for name, _ in listed(out.getvalue())} == {expected}
        out = io.BytesIO()


def test_the_end_of_a_long_name_is_kept() -> None:
    assert listed(zipped({"d/" * 2000 + "a.exe": b"x"}))[0][0].endswith("/a.exe")


def test_archives_share_a_budget() -> None:
    budget = Budget()
    archive = zipped({str(number): b"x" for number in range(600)})
    assert [len(read_archive(archive, budget).members) for _ in range(3)] == [600, 400, 0]
    assert read_archive(archive, budget).cut == "more than 1000 files"


def test_what_may_be_looked_into_is_kept() -> None:
    page = b"<html>" + b"x" * 10_000
    assert read_archive(zipped({"a.html": page})).members[0].content == page
    assert len(read_archive(zipped({"a.txt": page[6:]})).members[0].content) == 4096


def test_encrypted_files() -> None:
    archive = bytearray(zipped({"a.txt": b"x"}))
    archive[6] |= 1
    found = read_archive(bytes(archive))
    assert found.encrypted
    assert not read_archive(zipped({"a.txt": b"x"})).encrypted


def overlapped(content: bytes, extension: str) -> bytes:
    """A zip of 1000 files which are all the same octets, not packed."""
    size = struct.pack("<II", len(content), len(content))
    local = b"PK\3\4" + bytes(14) + size + struct.pack("<HH", 6, 0) + b"a.file" + content
    names = [f"a{number:03}.{extension}".encode() for number in range(1000)]
    entries = [b"PK\1\2" + bytes(16) + size + struct.pack("<H", len(name)) + bytes(16) + name for name in names]
    directory = b"".join(entries)
    return local + directory + b"PK\5\6" + bytes(8) + struct.pack("<IIH", len(directory), len(local), 0)


ZEROS = zipped({"a": b"\0" * 50_000_000})
DEEP = PROGRAM
for _ in range(6):
    DEEP = zipped({"i.zip": DEEP})


@pytest.mark.parametrize(
    ("archive", "cut"),
    [
        pytest.param(ZEROS, False, id="a file of zeros is not unpacked"),
        pytest.param(gzip.compress(b"\0" * 50_000_000), True, id="gzip of zeros"),
        pytest.param(bz2.compress(b"\0" * 50_000_000), True, id="bzip2 of zeros"),
        pytest.param(lzma.compress(b"\0" * 50_000_000), True, id="xz of zeros"),
        pytest.param(zipped({f"{n}.zip": ZEROS for n in range(300)}), True, id="zips of zips of zeros"),
        pytest.param(DEEP, True, id="six deep"),
        pytest.param(zipped({str(n): b"" for n in range(20_000)}), True, id="20,000 files"),
        pytest.param(
            b"".join(b"PK\3\4" + b"\0" * 4 + b"\x08" + b"\0" * 17 + b"\4\0\0\0%04d" % n for n in range(1500))
            + bytes(15_000_000),
            True,
            id="files of unknown size before 15 MB",
        ),
        pytest.param(b"PK\3\4" * 500_000, False, id="headers in headers"),
        pytest.param(b"PK\3\4" + b"\0" * 26 + b"PK\1\2" * 500_000, False, id="entries in entries"),
        pytest.param(
            b"PK\3\4"
            + b"\0" * 26
            + b"".join(b"PK\1\2" + b"\0" * 24 + b"\4\0" + b"\0" * 16 + b"%04d" % n for n in range(9999)),
            True,
            id="a directory of files that are not there",
        ),
        pytest.param(tarred({"a": b""})[:512] * 20_000, True, id="tar of 20,000 files"),
        pytest.param(overlapped(b"<html>" + b"x" * 600_000, "html"), True, id="a large page under 1000 names"),
        pytest.param(overlapped(b"PK\3\4" + bytes(7_000_000), "zip"), True, id="a large zip under 1000 names"),
        pytest.param((b"PK\3\4" + bytes(22) + b"\1\0\0\0/") * 200_000, True, id="200,000 directories by their headers"),
        pytest.param(
            b"PK\3\4" + bytes(26) + (b"PK\1\2" + bytes(24) + b"\1" + bytes(17) + b"/") * 150_000,
            True,
            id="150,000 directories",
        ),
    ],
)
def test_bombs_cost_little(archive: bytes, cut: bool) -> None:
    tracemalloc.start()
    begin = time.process_time()
    found = read_archive(archive)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{len(archive)} octets, {seconds * 1000:.0f} ms, {peak / 1e6:.0f} MB: {found.cut}, {found.ratio:.0f}")
    assert bool(found.cut) == cut
    assert len(found.members) <= MAX_MEMBERS
    assert seconds < 2
    assert peak < 4 * MAX_UNPACKED + 2 * len(archive)


def test_a_bomb_claims_many_times_its_size() -> None:
    assert read_archive(ZEROS).ratio > 900
    assert read_archive(zipped({"a": b"some words " * 20})).ratio < 20


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            zipped({"a.zip": zipped({"b": b"x"})}),
            tarred({"a": b"x"}),
            gzip.compress(b"x"),
            bz2.compress(b"x"),
            lzma.compress(b"x"),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=10),
    st.integers(0, 3000),
)
def test_nothing_fails(archive: bytes, changes: list[tuple[int, int]], size: int) -> None:
    damaged = bytearray(archive)
    for at, octet in changes:
        damaged[at % len(damaged)] = octet
    assert isinstance(read_archive(bytes(damaged)), Archive)
    assert isinstance(read_archive(bytes(damaged[:size])), Archive)
