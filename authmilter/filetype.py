"""What kind of file some octets are, by their content, and what a name claims."""

import re
import unicodedata

_AT_START = (
    (b"MZ", "executable"),
    (b"\x7fELF", "executable"),
    (b"\xca\xfe\xba\xbe", "executable"),  # Java class, and Mach-O for several processors
    (b"\xfe\xed\xfa", "executable"),
    (b"\xce\xfa\xed\xfe", "executable"),
    (b"\xcf\xfa\xed\xfe", "executable"),
    (b"#!", "script"),
    (b"L\0\0\0\x01\x14\x02\0", "shortcut"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office-ole"),  # also msi and msg
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "onenote"),
    (b"ITSF", "help"),
    (b"MSCF\0\0\0\0", "cabinet"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x60\xea", "arj"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x78\x9f\x3e\x22", "tnef"),
    (b"conectix", "disk"),
    (b"vhdxfile", "disk"),
    (b"KDMV", "disk"),
    (b"MSWIM\0\0\0", "disk"),
    (b"{\\rt", "rtf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"RIFF", "media"),
    (b"BEGIN:VCALENDAR", "calendar"),
    (b"[InternetShortcut]", "shortcut"),
    (b"[{000214A0-0000-0000-C000-000000000046}]", "shortcut"),
    (b"[Desktop Entry]", "shortcut"),
)
_FIRST = frozenset(magic[0] for magic, _ in _AT_START)
_HTML = re.compile(
    rb"<(?:!doctype\s+html|html|head|title|body|script|style|iframe|form|meta|table|div|center|h1|br)[\s/>]",
    re.IGNORECASE,
)
_SVG = re.compile(rb"<(?:[\w-]{1,20}:)?svg[\s>]", re.IGNORECASE)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LHA = re.compile(rb"-(?:lh[0-9a-z]|lz[45s]|pm[012])-")
_END_OF_ZIP = 65_557  # octets of an end record with the longest comment


TYPES = frozenset(
    (
        *(kind for _, kind in _AT_START),
        "office-zip",
        "jar",
        "zip",
        "ace",
        "lha",
        "bzip2",
        "tar",
        "disk",
        "pdf",
        "html",
        "svg",
    )
)


def file_type(data: bytes) -> str:
    """A word of `TYPES` for a file that begins so, "" if it is text or not known."""
    head = data[:2]
    if head == b"PK" and data.startswith((b"PK\3\4", b"PK\5\6", b"PK00PK\3\4", b"PK\7\x08PK\3\4")):
        return _zip_type(data)
    start = data[:4096]
    text = (start.decode("utf-16", "replace").encode("ascii", "replace") if head in _UTF_16 else start).lstrip(
        b"\xef\xbb\xbf \t\r\n\f\v"
    )
    for candidate in (data, text):
        if candidate[:1] and candidate[0] in _FIRST:
            for magic, kind in _AT_START:
                if candidate.startswith(magic):
                    return kind if kind not in _DOUBTFUL or _DOUBTFUL[kind](candidate, magic) else ""
    if head == b"BZ" and data[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    if data[257:262] == b"ustar":
        return "tar"
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data[7:14] == b"**ACE**":
        return "ace"
    if _LHA.match(data, 2):
        return "lha"
    if data[0x8001:0x8006] in (b"CD001", b"BEA01") or _is_fat(start):
        return "disk"
    if text[:1] == b"<":
        if _SVG.search(text, 0, 2048):
            return "svg"
        if _HTML.search(text, 0, 4096):
            return "html"
    return ""


def also_archive(data: bytes, kind: str) -> str:
    """The type of an archive that some program finds in a file of type `kind` behind whatever else is there; "" if none.

    Programs look for the end of a zip at the end of the file, and for RAR and 7z behind what may be a program.
    """
    if kind == "tar":
        return ""
    if kind not in ("zip", "jar", "office-zip") and data.rfind(b"PK\5\6", max(0, len(data) - _END_OF_ZIP)) >= 0:
        return "zip"
    return "" if kind else next((found for mark, found in _BEHIND if data.find(mark, 1, 1024 * 1024) > 0), "")


_BEHIND = ((b"Rar!\x1a\x07", "rar"), (b"7z\xbc\xaf\x27\x1c", "7z"))


def _is_program(data: bytes, magic: bytes) -> bool:
    """MZ are two letters that text may begin with; a program has octets that text has not."""
    return magic != b"MZ" or b"\0" in data[:64] or len(data) <= 2


def _is_arj(data: bytes, _: bytes) -> bool:
    """A header of a size that there may be, for the mark is short."""
    return 30 <= int.from_bytes(data[2:4], "little") <= 2600 and data[4:5] != b"\0"


_DOUBTFUL = {"executable": _is_program, "arj": _is_arj}


def _is_fat(data: bytes) -> bool:
    """A boot sector that names the file system (FAT, NTFS)."""
    return data[510:512] == b"\x55\xaa" and (data[54:57] == b"FAT" or data[82:85] == b"FAT" or data[3:7] == b"NTFS")


def _zip_type(data: bytes) -> str:
    """By the names: APPNOTE says nothing of what is in a zip, the formats made of it do."""
    if (
        b"[Content_Types].xml" in data[:4096]
        or b"mimetypeapplication/vnd.oasis" in data[:100]
        or data.rfind(b"[Content_Types].xml", max(0, len(data) - _END_OF_ZIP)) >= 0
    ):
        return "office-zip"
    return "jar" if b"META-INF/" in data[:100] else "zip"


# What opens as a program, or opens one, on the machine of some recipient.
DANGEROUS = frozenset(
    (
        "a3x", "ace", "ade", "adp", "ahk", "apk", "app", "appinstaller", "application", "appref-ms", "appx", "appxbundle", "arj",
        "bas", "bat", "bgi", "cab", "chm", "cmd", "com", "command", "cpl", "daa", "desktop", "diagcab", "dll", "dmg", "drv", "exe",
        "gadget", "hlp", "hta", "img", "inf", "ins", "iqy", "iso", "isp", "jar", "jnlp", "js", "jse", "lib", "library-ms", "lnk",
        "mde", "msc", "msh", "msi", "msix", "msixbundle", "msp", "mst", "nsh", "ocx", "one", "onepkg", "oqy", "pif", "pkg", "ppam",
        "ppkg", "prg", "ps1", "ps1xml", "ps2", "psc1", "psd1", "psm1", "pyw", "pyz", "pyzw", "rdp", "reg", "rqy", "scf", "scr",
        "sct", "search-ms", "searchconnector-ms", "settingcontent-ms", "shb", "shs", "slk", "sys", "theme", "themepack", "udl",
        "url", "vb", "vbe", "vbs", "vhd", "vhdx", "vmdk", "vsto", "vxd", "webloc", "website", "wim", "wll", "ws", "wsc", "wsf",
        "wsh", "xbap", "xla", "xlam", "xll",
    )
)  # fmt: skip
# What a victim believes to open.
DOCUMENTS = frozenset(
    (
        "avi", "bmp", "csv", "doc", "docx", "eml", "gif", "htm", "html", "ics", "jpeg", "jpg", "mov", "mp3", "mp4", "odt", "pdf",
        "png", "ppt", "pptx", "rtf", "tif", "tiff", "txt", "wav", "webp", "xls", "xlsx", "xml", "zip",
    )
)  # fmt: skip
# What is a zip, and opened as a document.
OFFICE = frozenset(
    (
        "docm", "docx", "dotm", "dotx", "odf", "odg", "odp", "ods", "odt", "otp", "ots", "ott", "potm", "potx", "ppam", "ppsm",
        "ppsx", "pptm", "pptx", "thmx", "vsdm", "vsdx", "xlam", "xlsb", "xlsm", "xlsx", "xltm", "xltx",
    )
)  # fmt: skip
PAGES = frozenset(("htm", "html", "shtml", "xhtml", "xht", "mht", "mhtml"))

# The types that a name or a Content-Type promises.
_PROMISED = {
    "pdf": ("pdf",),
    "doc": ("office-ole", "rtf", "office-zip", "zip", "html"),
    "xls": ("office-ole", "office-zip", "zip", "html"),
    "ppt": ("office-ole", "office-zip", "zip"),
    "docx": ("office-zip", "zip", "office-ole"),
    "xlsx": ("office-zip", "zip", "office-ole"),
    "pptx": ("office-zip", "zip", "office-ole"),
    "rtf": ("rtf",),
    "jpg": ("image",),
    "jpeg": ("image",),
    "png": ("image",),
    "gif": ("image",),
    "tif": ("image",),
    "tiff": ("image",),
    "bmp": ("image",),
    "webp": ("image", "media"),
    "mp3": ("media",),
    "mp4": ("media",),
    "wav": ("media",),
    "zip": ("zip", "office-zip", "jar"),
    "txt": (),
    "csv": (),
    "application/msword": ("office-ole", "rtf", "office-zip", "zip", "html"),
    "application/pdf": ("pdf",),
    "image/jpeg": ("image",),
    "image/png": ("image",),
    "image/gif": ("image",),
}
# What nobody takes for something else by mistake.
_ACTIVE = frozenset(
    ("executable", "script", "shortcut", "help", "cabinet", "disk", "onenote", "html", "svg", "jar", "zip", "rar", "7z")
)


def disguised(content: str, extension: str, declared: str) -> str:
    """What the file pretends to be although its content is of another, active type; "" if nothing."""
    if content not in _ACTIVE:
        return ""
    for promise in (extension, declared):
        expected = _PROMISED.get(promise)
        if expected is not None and content not in expected and (expected or content in ("executable", "shortcut")):
            return promise
    return ""


def extensions(name: str) -> tuple[str, ...]:
    """The last and the last but one extension of a file name in lower case, as systems read them.

    Windows drops dots and blanks at the end, and what follows a colon is a stream of the file; a null character ends a
    name in C; marks of direction turn what is shown, not what it is.  What looks like a dot or a letter counts as one:
    some programs make it one.
    """
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if not (base.isascii() and base.isprintable()):
        base = unicodedata.normalize("NFKC", base[-1000:].translate(_INVISIBLE))
    base = base.partition("\0")[0]
    stem, colon, stream = base.partition(":")
    base = (stem if colon and "." in stem and "." not in stream else base).rstrip(_NO_END).lower()
    return tuple("".join(piece.split()) for piece in reversed(base.rsplit(".", 2)[1:]))


# What no name of a file may end in, or hold at all, on some systems, so that programs which save it leave it out.
_NO_END = ". \t\"'?*<>|;,"
_INVISIBLE: dict[int, str | None] = dict.fromkeys(
    (
        *range(1, 32),
        127,
        0xAD,
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2065),
        *range(0x2066, 0x206A),
        0xFEFF,
    )
)
_INVISIBLE |= dict.fromkeys((0x3002, 0xFF61, 0x0701, 0x0702, 0xA4F8), ".")  # look like dots, and NFKC leaves them

_OVERRIDES = re.compile("[\u202d\u202e]")
_BEFORE_LAST = re.compile(r"[\s_]{4,}\.\w{1,20}\W*$|\s\.\w{1,20}\W*$")


def hides_extension(name: str) -> bool:
    """Are there means in a name that keep its end from being seen, or from being known?

    Overrides of direction, which no language needs in a name; in a name that is dangerous also blanks before the
    extension, a null character, and characters that look like nothing or like others.
    """
    if _OVERRIDES.search(name):
        return True
    last = name[-40:]
    return "\0" in name or bool(_BEFORE_LAST.search(last)) or extensions(name) != _plain_extensions(name)


def _plain_extensions(name: str) -> tuple[str, ...]:
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2].rstrip(_NO_END).lower()
    return tuple(piece.strip() for piece in reversed(base.rsplit(".", 2)[1:]))
