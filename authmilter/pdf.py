"""What in a PDF acts by itself, or leads away (ISO 32000-1), without reading all of it.

Dictionaries are searched for the names of actions, in object streams too; what is shown on pages is not looked at.
"""

import re
import zlib
from collections.abc import Iterator

MAX_PDF = 8 * 1024 * 1024  # octets that are looked at
_MAX_STREAMS = 2000
_MAX_OBJECTS = 1024 * 1024  # octets that object streams may unpack to in all, and of dictionaries

_MAX_ESCAPES = 20_000

# What `pdf_traits` may name.
PDF_TRAITS = {
    "script": "A PDF with JavaScript.",
    "launch": "A PDF that starts a program, or opens a file elsewhere.",
    "program": "A PDF with a program in it.",
    "link_only": "A PDF of one page without text that leads to a single site.",
}

_ESCAPE = re.compile(rb"#([0-9a-fA-F]{2})")
_END = rb"(?![A-Za-z0-9])"
_SCRIPT = re.compile(rb"/(?:JavaScript|JS)" + _END)
_LAUNCH = re.compile(rb"/(?:Launch|ImportData)" + _END)
_PAGE = re.compile(rb"/Type\s*/Page" + _END)
_FONT = re.compile(rb"/Font" + _END)
_URI = re.compile(rb"/URI\s*\(\s*https?://([^/)\s?#\\]{1,255})", re.IGNORECASE)
_PROGRAM = re.compile(
    rb"/U?F\s*\((?:\xfe\xff)?([^)]{1,200}\.\0?(?:e\0?x\0?e|s\0?c\0?r|j\0?s|v\0?b\0?s|h\0?t\0?a|l\0?n\0?k|b\0?a\0?t|i\0?s\0?o))\0?\)",
    re.IGNORECASE,
)


def pdf_traits(data: bytes) -> dict[str, str]:
    """Words of `PDF_TRAITS`, with what shows each; never fails."""
    text = b"\n".join(_dictionaries(data[:MAX_PDF]))
    if b"#" in text:
        text = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text, count=_MAX_ESCAPES)  # section 7.3.5
    found: dict[str, str] = {}
    for word, pattern in (("script", _SCRIPT), ("launch", _LAUNCH)):
        match = pattern.search(text)
        if match:
            found[word] = match[0].decode("latin-1")
    program = _PROGRAM.search(text) if b"/EmbeddedFile" in text else None
    if program:
        found["program"] = program[1].replace(b"\0", b"").decode("latin-1")[-60:]
    hosts = {host.lower() for host in _URI.findall(text)}
    if len(hosts) == 1 and len(_PAGE.findall(text)) == 1 and not _FONT.search(text):
        found["link_only"] = min(hosts).decode("latin-1")
    return found


def _dictionaries(data: bytes) -> Iterator[bytes]:
    """What stands between streams, and what is in object streams (section 7.5.7)."""
    at = 0
    room = outside = _MAX_OBJECTS
    for _ in range(_MAX_STREAMS):
        begin = data.find(b"stream", at)
        end = len(data) if begin < 0 else begin
        yield data[at : min(end, at + outside)]
        outside -= end - at
        if begin < 0 or outside <= 0:
            return
        behind = data.find(b"endstream", begin)
        if behind < 0:
            behind = len(data)
        if room > 0 and b"ObjStm" in data[max(at, begin - 500) : begin]:
            objects = _unpacked(data[begin + 6 : behind].lstrip(b"\r\n"), room)
            room -= max(len(objects), 1024)
            yield objects
        at = behind + 9


def _unpacked(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""
