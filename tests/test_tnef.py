"""authmilter.tnef: what Outlook wraps into winmail.dat."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.filetype import file_type
from authmilter.tnef import read_tnef

LONG_NAME = b"\x1e\0\x07\x37"
LONG_NAME_UNICODE = b"\x1f\0\x07\x37"


def attribute(number: int, octets: bytes) -> bytes:
    """[MS-OXTNEF] section 2.1.3.3."""
    return b"\2" + struct.pack("<II", number, len(octets)) + octets + struct.pack("<H", sum(octets) & 0xFFFF)


def tnef(*files: tuple[bytes, bytes, bytes]) -> bytes:
    """Files as title, content, and properties."""
    found = struct.pack("<IH", 0x223E9F78, 1)
    for title, content, properties in files:
        found += (
            attribute(0x00069002, bytes(14)) + attribute(0x00018010, title + b"\0") + attribute(0x0006800F, content)
        )
        if properties:
            found += attribute(0x00069005, properties)
    return found


def long_name(mark: bytes, octets: bytes) -> bytes:
    """A property as it stands in [MS-OXTNEF] section 2.1.3.4, with another before it."""
    return struct.pack("<I", 2) + b"\3\0\x05\x37\1\0\0\0" + mark + struct.pack("<II", 1, len(octets)) + octets


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param((), [], id="a text without files"),
        pytest.param(((b"a.exe", b"MZ", b""),), [(("a.exe",), b"MZ")], id="a file"),
        pytest.param(
            ((b"a", b"1", b""), (b"b", b"", b"")), [(("a",), b"1"), (("b",), b"")], id="two, one of them empty"
        ),
        pytest.param(
            ((b"a.txt", b"MZ", long_name(LONG_NAME, b"b.exe\0")),), [(("a.txt", "b.exe"), b"MZ")], id="with a long name"
        ),
        pytest.param(
            ((b"a.txt", b"MZ", long_name(LONG_NAME_UNICODE, "\xe4.exe\0".encode("utf-16-le"))),),
            [(("a.txt", "\xe4.exe"), b"MZ")],
            id="with a long name in Unicode",
        ),
    ],
)
def test_files(files: tuple[tuple[bytes, bytes, bytes], ...], expected: list[tuple[tuple[str, ...], bytes]]) -> None:
    data = tnef(*files)
    assert file_type(data) == "tnef"
    assert [(file.names, data[file.at : file.at + file.size]) for file in read_tnef(data)] == expected


@given(st.binary(max_size=60), st.integers(0, 100))
def test_nothing_fails(octets: bytes, at: int) -> None:
    data = tnef((b"a.txt", b"content", long_name(LONG_NAME, b"b.exe\0")))
    for _ in read_tnef(data[:at] + octets + data[at:]):
        pass
