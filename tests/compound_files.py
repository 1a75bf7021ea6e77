"""Compound files and Office Open XML, as far as tests of documents need them."""

import io
import struct
import zipfile

FREE, END, TABLE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def entry(name: str, kind: int, start: int, size: int) -> bytes:
    """An entry of a directory; `kind` is 1 for a storage, 2 for a stream, 5 for the root."""
    raw = name.encode("utf-16-le") + b"\0\0"
    head = raw.ljust(64, b"\0") + struct.pack("<HBB", len(raw), kind, 0) + b"\0" * 48
    return head + struct.pack("<IIQ", start, size, 0)[:12]


def compound(streams: dict[str, bytes], tables: int = 16) -> bytes:
    """A file with these streams, the small ones in the mini stream as they should be; `tables` are sectors of its FAT."""
    small = {name: data for name, data in streams.items() if len(data) < 4096}
    large = {name: data for name, data in streams.items() if name not in small}
    mini, mini_table, places = b"", [], {}
    for name, data in small.items():
        count = -(-len(data) // 64)
        first = len(mini) // 64
        places[name] = first if count else END
        mini += data.ljust(count * 64, b"\0")
        mini_table += [*range(first + 1, first + count), END] if count else []
    table: list[int] = [TABLE] * tables
    sectors = b""

    def add(data: bytes) -> int:
        nonlocal sectors
        count = -(-len(data) // 512)
        first = len(table)
        table.extend([*range(first + 1, first + count), END] if count else [])
        sectors += data.ljust(count * 512, b"\0")
        return first if count else END

    for name, data in large.items():
        places[name] = add(data)
    mini_start = add(mini)
    mini_table_start = add(struct.pack(f"<{len(mini_table)}I", *mini_table))
    entries = [entry("Root Entry", 5, mini_start, len(mini))]
    entries += [entry(name, 2, places[name], len(data)) for name, data in streams.items()]
    directory = add(b"".join(entries))
    table += [FREE] * (tables * 128 - len(table))
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + b"\0" * 6
    header += struct.pack("<IIIIIIIII", 0, tables, directory, 0, 4096, mini_table_start, 1, END, 0)
    header += struct.pack("<109I", *range(tables), *[FREE] * (109 - tables))
    return header + struct.pack(f"<{tables * 128}I", *table) + sectors


def packed_source(text: bytes) -> bytes:
    """A container of [MS-OVBA] section 2.4.1 that repeats nothing."""
    out = b"\1"
    for at in range(0, len(text), 3600):
        piece = text[at : at + 3600]
        octets = b"".join(b"\0" + piece[n : n + 8] for n in range(0, len(piece), 8))
        out += struct.pack("<H", 0xB000 | (len(octets) - 1)) + octets
    return out


def project(source: bytes) -> bytes:
    """A compound file with a VBA project of one module."""
    module = b"\x01\x16\x03\0" * 20 + packed_source(b'Attribute VB_Name = "ThisDocument"\r\n' + source)
    return compound({"_VBA_PROJECT": b"\xcc\x61" * 10, "dir": b"\1", "ThisDocument": module})


def ooxml(parts: dict[str, bytes | str]) -> bytes:
    """An Office Open XML file with these parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"[Content_Types].xml": b"<Types/>", **parts}.items():
            archive.writestr(name, data)
    return out.getvalue()


def relation(kind: str, target: str, mode: str = "External") -> str:
    """A part with one relation."""
    schema = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return (
        f'<Relationships><Relationship Id="r1" Type="{schema}/{kind}" Target="{target}" TargetMode="{mode}"/>'
        "</Relationships>"
    )
