"""What kind of file some octets are, and what names claim."""

import zlib

import pytest

from authmilter.filetype import DANGEROUS, TYPES, also_archive, disguised, extensions, file_type, hides_extension
from tests.test_archives import PROGRAM, tarred, zipped


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PROGRAM, "executable"),
        (b"\x7fELF\2", "executable"),
        (b"MZ is a code of letters, and so is this text, which goes on", ""),
        (b"#!/bin/sh\n", "script"),
        (b"L\0\0\0\x01\x14\x02\0\0", "shortcut"),
        (b"[InternetShortcut]\r\nURL=http://x.example/", "shortcut"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office-ole"),
        (zipped({"[Content_Types].xml": b"x"}), "office-zip"),
        (zipped({"META-INF/MANIFEST.MF": b"x"}), "jar"),
        (zipped({"a": b"x"}), "zip"),
        (tarred({"a": b"x"}), "tar"),
        (b"\n%PDF-1.4", "pdf"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", "html"),
        (b"<?xml version='1.0'?><svg xmlns='x'>", "svg"),
        (b"<note>", ""),
        (b"BEGIN:VCALENDAR\r\n", "calendar"),
        (b"\0" * 0x8001 + b"CD001", "disk"),
        (b"Rar!\x1a\x07\x01\0", "rar"),
        (zlib.compress(b"x"), ""),
        (b"MSCF\0\0\0\0", "cabinet"),
        (b"MSCF is a word", ""),
        (b"BZh91AY&SY", "bzip2"),
        (b"BZhou is a place", ""),
        (b"\x60\xea\x2c\0\x22" + b"\0" * 40, "arj"),
        (b"\x60\xea", ""),
        (b"\0" * 7 + b"**ACE**", "ace"),
        (b"\x20\x33-lh5-", "lha"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"KDMV", "disk"),
        (b"\xeb<\x90mkfs.fat" + b"\0" * 43 + b"FAT12   " + b"\0" * 448 + b"\x55\xaa", "disk"),
        (b"RIFF\0\0\0\0WEBP", "media"),
        ("\ufeff<html><script>".encode("utf-16-le"), "html"),
        ("\ufeff<svg >".encode("utf-16-be"), "svg"),
        (b"<x:svg xmlns:x='http://www.w3.org/2000/svg'>", "svg"),
        (b"PK\5\6" + b"\0" * 18, "zip"),
        (b"PK00" + zipped({"a": b"x"}), "zip"),
        (zipped({"a": b"x", "[Content_Types].xml": b"x"}), "office-zip"),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_types_by_content(data: bytes, kind: str) -> None:
    assert file_type(data) == kind
    assert not kind or kind in TYPES


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"GIF89a" + zipped({"a": b"x"}), "zip", id="a zip behind a picture"),
        pytest.param(PROGRAM + zipped({"a": b"x"}), "zip", id="a program that unpacks itself"),
        pytest.param(b"text" * 9000 + b"Rar!\x1a\x07\0", "rar", id="RAR behind text"),
        pytest.param(b"text" + b"7z\xbc\xaf\x27\x1c", "7z", id="7z behind text"),
        pytest.param(zipped({"a": b"x"}), "", id="a zip"),
        pytest.param(tarred({"a.zip": zipped({"a": b"x"})}), "", id="a zip in a tar"),
        pytest.param(b"text", "", id="text"),
    ],
)
def test_archives_behind_something_else(data: bytes, kind: str) -> None:
    assert also_archive(data, file_type(data)) == kind


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.exe", ("exe",)),
        ("a.PDF.Exe", ("exe", "pdf")),
        ("a.exe. . ", ("exe",)),
        ("a.exe\0.txt", ("exe",)),
        ("invoice_\u202efdp.exe", ("exe",)),
        ("a.e\u200bxe", ("exe",)),
        ("a.pdf          .exe", ("exe", "pdf")),
        ("C:\\dir.x\\a", ()),
        ("d.x/a.js", ("js",)),
        ("a", ()),
        ("", ()),
        ("." * 5000, ()),
        ('a.exe"', ("exe",)),
        ("a.exe::$DATA", ("exe",)),
        ("a.exe:zone", ("exe",)),
        ("version 1.0: a.exe", ("exe", "0:a")),
        ("a.exe/", ("exe",)),
        ("a.exe\\", ("exe",)),
        ("a.exe?", ("exe",)),
        ("a.exe, ", ("exe",)),
        ("a.e xe", ("exe",)),
        ("a.exe\x01", ("exe",)),
        ("a.pdf\uff0eexe", ("exe", "pdf")),
        ("a.pdf\u2024exe", ("exe", "pdf")),
        ("a.pdf\u3002exe", ("exe", "pdf")),
        ("a.\uff45\uff58\uff45", ("exe",)),
        ("a" * 5000 + ".exe", ("exe",)),
    ],
)
def test_extensions(name: str, expected: tuple[str, ...]) -> None:
    assert extensions(name) == expected


@pytest.mark.parametrize(
    ("content", "extension", "declared", "expected"),
    [
        ("executable", "pdf", "application/octet-stream", "pdf"),
        ("executable", "dat", "image/png", "image/png"),
        ("executable", "txt", "", "txt"),
        ("executable", "exe", "application/octet-stream", ""),
        ("html", "pdf", "", "pdf"),
        ("html", "xls", "", ""),
        ("html", "txt", "text/plain", ""),
        ("script", "txt", "", ""),
        ("image", "pdf", "", ""),
        ("zip", "pdf", "", "pdf"),
        ("rar", "jpg", "", "jpg"),
        ("rar", "doc", "", "doc"),
        ("zip", "doc", "application/msword", ""),
        ("zip", "zip", "application/zip", ""),
        ("rar", "zip", "", "zip"),
        ("7z", "7z", "application/x-7z-compressed", ""),
        ("", "pdf", "application/pdf", ""),
    ],
)
def test_disguises(content: str, extension: str, declared: str, expected: str) -> None:
    assert disguised(content, extension, declared) == expected


@pytest.mark.parametrize(
    ("name", "hides"),
    [
        ("invoice\u202efdp.exe", True),
        ("invoice\u202ecod.pdf", True),
        ("invoice.pdf            .exe", True),
        ("invoice.pdf .exe", True),
        ("invoice.pdf________________.exe", True),
        ("a.exe\0.txt", True),
        ("a.e\u200bxe", True),
        ("a.pdf\uff0eexe", True),
        ("a.pdf.exe", False),
        ("my invoice 1.exe", False),
        ("\u05d7\u05e9\u05d1\u05d5\u05e0\u05d9\u05ea.exe", False),
        ("\xe4.exe", False),
        ("", False),
    ],
)
def test_names_that_hide_their_end(name: str, hides: bool) -> None:
    assert hides_extension(name) == hides


def test_extensions_are_written_as_they_are_compared() -> None:
    assert all(extensions(f"a.{one}") == (one,) for one in DANGEROUS)
