"""What in a document acts by itself: macros, links that are followed at once, objects that hold programs.

Compound files of Office 97 ([MS-CFB]), Office Open XML (ECMA-376) and RTF are read as far as that takes.  Bounded in octets
and steps; nothing here fails.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from authmilter.filetype import DANGEROUS, extensions
from authmilter.zip_files import File, read_zip

MAX_DOCUMENT = 16 * 1024 * 1024  # octets that are looked at
MAX_ENTRIES = 2000  # of a directory
MAX_SOURCE = 128 * 1024  # octets of macros that are read
_MAX_SEARCHED = 512 * 1024  # octets of streams that are searched for words
_MAX_XML = 512 * 1024
_MAX_STREAM = 2 * 1024 * 1024
_MAX_XML_PARTS, _MAX_OLE_PARTS = 20, 5  # of an Office Open XML file that are unpacked
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# What `traits` may name, each with what it was found by.
TRAITS = {
    "macro": "A document with macros.",
    "macro_autorun": "Macros that run when the document is opened or closed.",
    "macro_calls": "Macros that start programs, or load something.",
    "remote": "A document that loads a template or object from elsewhere when it is opened.",
    "dde": "A document with a field that starts a program (DDE).",
    "object": "A document with an embedded program, or with an object of the Equation Editor.",
    "encrypted": "A document that only opens with a password.",
}

_AUTORUN = re.compile(
    rb"\b(?:auto_?(?:open|close|exec|new|exit)|document_?(?:open|close|new|beforeclose)"
    rb"|workbook_?(?:open|activate|beforeclose|close))\b",
    re.IGNORECASE,
)
_CALLS = re.compile(
    rb"\b(?:shell(?:execute[aw]?)?\b|wscript\.shell|urldownloadtofile[aw]?|powershell|mshta|regsvr32|rundll32|certutil"
    rb"|winhttprequest|xmlhttp|adodb\.stream|virtualalloc(?:ex)?|rtlmovememory|createthread|callbyname)",
    re.IGNORECASE,
)


def traits(data: bytes, kind: str) -> dict[str, str]:
    """Words of `TRAITS`, with what shows each, for a document of a type as of `file_type`."""
    found: dict[str, str] = {}
    reader = _READERS.get(kind)
    if reader is not None:
        try:
            for word, detail in reader(data[:MAX_DOCUMENT]):
                found.setdefault(word, detail)
        except (struct.error, IndexError, ValueError):
            pass  # too damaged to be read
    return found


# -------------------------------------------------------------------------------------------------- compound files


class Entry(NamedTuple):
    """A stream or storage; `kind` is 1 for a storage, 2 for a stream."""

    name: str
    kind: int
    start: int
    size: int


class _Compound:
    """The streams of a compound file, which are made of sectors as in a FAT."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        shift = min(max(_u16(data, 30), 7), 16)
        self.sector = 1 << shift
        self.cutoff = _u32(data, 56)
        tables = [_u32(data, 76 + 4 * number) for number in range(109)]
        following = _u32(data, 68)
        seen: set[int] = set()
        while following < 0xFFFFFFFA and following not in seen and len(seen) < 200:
            seen.add(following)
            more = self._sector(following)
            tables += struct.unpack(f"<{len(more) // 4}I", more[: len(more) // 4 * 4])[:-1]
            following = _u32(more, len(more) - 4)
        fat: list[int] = []
        limit = len(data) // self.sector + 1
        for table in tables:
            if table < 0xFFFFFFFA and len(fat) < limit:
                octets = self._sector(table)
                fat += struct.unpack(f"<{len(octets) // 4}I", octets[: len(octets) // 4 * 4])
        self.fat = fat
        directory = self._chain(_u32(data, 48), MAX_ENTRIES * 128)
        self.entries = list(self._entries(directory))
        root = next((entry for entry in self.entries if entry.kind == 5), None)
        self._mini = self._chain(root.start, _MAX_STREAM) if root else b""
        table_octets = self._chain(_u32(data, 60), _MAX_STREAM // 16)
        self._mini_fat = struct.unpack(f"<{len(table_octets) // 4}I", table_octets[: len(table_octets) // 4 * 4])

    def _sector(self, number: int) -> bytes:
        at = (number + 1) * self.sector
        return self.data[at : at + self.sector]

    def _chain(self, start: int, most: int) -> bytes:
        pieces: list[bytes] = []
        at = start
        for _ in range(most // self.sector + 1):
            if at >= len(self.fat):
                break
            pieces.append(self._sector(at))
            at = self.fat[at]
        return b"".join(pieces)[:most]

    @staticmethod
    def _entries(directory: bytes) -> Iterator[Entry]:
        for at in range(0, len(directory) - 127, 128):
            length, kind = _u16(directory, at + 64), directory[at + 66]
            if kind in (1, 2, 5):
                name = directory[at : at + max(min(length, 64) - 2, 0)].decode("utf-16-le", "replace")
                yield Entry(name, kind, _u32(directory, at + 116), _u32(directory, at + 120))

    def stream(self, entry: Entry, most: int = _MAX_STREAM) -> bytes:
        """The octets of a stream."""
        size = min(entry.size, most)
        if entry.size >= self.cutoff:
            return self._chain(entry.start, size)
        pieces: list[bytes] = []
        at = entry.start
        for _ in range(size // 64 + 1):
            if at >= len(self._mini_fat):
                break
            pieces.append(self._mini[at * 64 : at * 64 + 64])
            at = self._mini_fat[at]
        return b"".join(pieces)[:size]


def _of_ole(data: bytes) -> Iterator[tuple[str, str]]:
    compound = _Compound(data)
    names = {entry.name.lower() for entry in compound.entries}
    if "encryptedpackage" in names:
        yield "encrypted", "EncryptedPackage"
    if "_vba_project" in names or "_vba_project_cur" in names:
        yield from _of_vba(compound)
    for entry in compound.entries:
        name = entry.name.lower()
        if name in ("workbook", "book"):
            yield from _of_workbook(compound.stream(entry, 64 * 1024))
        elif name == "equation native":
            yield "object", "Equation Editor"
        elif name == "\1ole10native":
            yield from _of_package(compound.stream(entry, 2048))


def _of_vba(compound: _Compound) -> Iterator[tuple[str, str]]:
    """Names of procedures and calls in the source, and in what the editor keeps of them."""
    yield "macro", "VBA"
    room, searched = MAX_SOURCE, _MAX_SEARCHED
    for entry in compound.entries:
        if entry.kind != 2 or entry.name.startswith(("\1", "\5", "__SRP")) or entry.name in _NO_MODULES:
            continue
        if room <= 0 or searched <= 0:
            return
        octets = compound.stream(entry, searched)
        searched -= max(len(octets), 512)
        # The source of a module begins with its attributes; what is before them depends on the version of Office.
        mark = octets.find(b"\0Attribut")
        texts = [octets]
        if mark >= 3:
            texts.append(_source(octets, mark - 3, room))
            room -= len(texts[1])
        for text in texts:
            for word, pattern in (("macro_autorun", _AUTORUN), ("macro_calls", _CALLS)):
                found = pattern.search(text)
                if found:
                    yield word, found[0].decode("latin-1")


_NO_MODULES = frozenset(
    ("WordDocument", "Workbook", "Book", "PowerPoint Document", "1Table", "0Table", "Data", "Pictures")
)


def _source(data: bytes, at: int, most: int) -> bytes:
    """A compressed container ([MS-OVBA] section 2.4.1), unpacked up to `most` octets."""
    out = bytearray()
    at += 1
    while at + 2 <= len(data) and len(out) < most:
        header = _u16(data, at)
        end = min(at + (header & 0xFFF) + 3, len(data))
        if header >> 12 & 7 != 3:
            break
        begin = len(out)
        at += 2
        if not header & 0x8000:
            out += data[at:end]
            at = end
            continue
        while at < end and len(out) - begin < 4096:
            flags = data[at]
            at += 1
            for bit in range(8):
                if at >= end:
                    break
                if not flags >> bit & 1:
                    out.append(data[at])
                    at += 1
                    continue
                token = _u16(data, at)
                at += 2
                # As many bits as the position in the chunk takes tell how far back, the others how many.
                back_bits = max((len(out) - begin - 1).bit_length(), 4)
                length = (token & (0xFFFF >> back_bits)) + 3
                offset = (token >> (16 - back_bits)) + 1
                if offset > len(out):
                    return bytes(out)
                for _ in range(min(length, 4096)):
                    out.append(out[-offset])
        at = end
    return bytes(out)


def _of_workbook(stream: bytes) -> Iterator[tuple[str, str]]:
    """Sheets with macros of Excel 4.0 ([MS-XLS] section 2.4.28, BoundSheet8), and encryption (2.4.117)."""
    at = 0
    for _ in range(MAX_ENTRIES):
        if at + 4 > len(stream):
            return
        record, size = _u16(stream, at), _u16(stream, at + 2)
        if record == 0x85 and stream[at + 9 : at + 10] == b"\1":
            yield "macro", "Excel 4.0"
        elif record == 0x2F:
            yield "encrypted", "FilePass"
        elif record == 0x0A:  # the end of what concerns all sheets
            return
        at += 4 + size


def _of_package(stream: bytes) -> Iterator[tuple[str, str]]:
    """A file as the Object Packager embeds it: two octets, then its name."""
    name = stream[6:].partition(b"\0")[0].decode("latin-1")
    ends = extensions(name)
    if ends and ends[0] in DANGEROUS:
        yield "object", name[-60:]


# -------------------------------------------------------------------------------------------------- Office Open XML

_RELATION = re.compile(rb"<(?:\w+:)?Relationship\s[^<>]{1,4000}+>", re.IGNORECASE)
_LOADED = re.compile(
    rb"Type\s*=\s*[\"'][^\"']{0,300}/(attachedTemplate|oleObject|frame|subDocument)[\"']", re.IGNORECASE
)
_ELSEWHERE = re.compile(
    rb"Target\s*=\s*[\"']\s*((?:https?:|ftp:|mhtml:|x-usc:|file://[^/]|\\\\|//)[^\"']{0,200})", re.IGNORECASE
)
_DDE = re.compile(rb"\bDDE(?:AUTO)?\s+[\"'\\a-z]|<ddeLink\b", re.IGNORECASE)


def _of_zip(data: bytes) -> Iterator[tuple[str, str]]:
    xml_parts = ole_parts = 0
    for file in read_zip(data):
        name = file.name.lower()
        if "/macrosheets/" in name:
            yield "macro", "Excel 4.0"
        elif name.endswith("vbaproject.bin"):
            yield "macro", "VBA"
        if file.encrypted or name.endswith((".png", ".jpeg", ".jpg", ".gif", ".emf", ".wmf")):
            continue
        if name.endswith(".rels") and xml_parts < _MAX_XML_PARTS:
            xml_parts += 1
            yield from _of_relations(_unpacked(data, file, _MAX_XML))
        elif (name.endswith("word/document.xml") or "/externallinks/" in name) and xml_parts < _MAX_XML_PARTS:
            xml_parts += 1
            found = _DDE.search(_unpacked(data, file, _MAX_XML))
            if found:
                yield "dde", found[0].decode("latin-1")
        elif (
            ole_parts < _MAX_OLE_PARTS
            and not name.endswith((".xml", ".vml", ".rels"))
            and _unpacked(data, file, 8) == _OLE
        ):
            # Whatever its name: the relations say what it is.
            ole_parts += 1
            yield from _of_ole(_unpacked(data, file, _MAX_STREAM))


def _of_relations(xml: bytes) -> Iterator[tuple[str, str]]:
    for relation in _RELATION.findall(xml):
        loaded, target = _LOADED.search(relation), _ELSEWHERE.search(relation)
        if loaded and target:
            yield "remote", f"{loaded[1].decode('latin-1')} {target[1][:80].decode('latin-1')}"


def _unpacked(data: bytes, file: File, most: int) -> bytes:
    octets = file.octets(data, most)
    if file.method == 0:
        return octets[:most]
    if file.method != 8:
        return b""
    try:
        return zlib.decompressobj(-15).decompress(octets, most)
    except zlib.error:
        return b""


# -------------------------------------------------------------------------------------------------- RTF

_RTF_TEMPLATE = re.compile(rb"\\\*\\template\s*((?:https?:|ftp:|\\\\)[^}\s]{1,200})", re.IGNORECASE)
_RTF_OBJECT = re.compile(rb"\\obj(?:update|autlink|html)\b", re.IGNORECASE)
_EQUATION = re.compile(rb"4\s*5\s*7\s*1\s*7\s*5\s*6\s*1\s*7\s*4\s*6\s*9\s*6\s*f\s*6\s*e\s*2\s*e", re.IGNORECASE)


def _of_rtf(data: bytes) -> Iterator[tuple[str, str]]:
    data = data[:_MAX_STREAM]
    found = _RTF_TEMPLATE.search(data)
    if found:
        yield "remote", f"template {found[1][:80].decode('latin-1')}"
    if b"\\objdata" in data:
        if _EQUATION.search(data):
            yield "object", "Equation Editor"
        elif _RTF_OBJECT.search(data):
            yield "object", "loaded when the document is opened"
    found = _DDE.search(data)
    if found and b"\\field" in data:
        yield "dde", found[0].decode("latin-1")


_READERS = {"office-ole": _of_ole, "office-zip": _of_zip, "rtf": _of_rtf}


def _u16(data: Sequence[int], at: int) -> int:
    return int.from_bytes(bytes(data[at : at + 2]), "little")


def _u32(data: Sequence[int], at: int) -> int:
    return int.from_bytes(bytes(data[at : at + 4]), "little")
