"""What kind of file some octets are, by their content, and what a name claims."""

import re

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
    (b"MSCF", "cabinet"),
    (b"Rar!\x1a\x07", "rar"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"conectix", "disk"),
    (b"vhdxfile", "disk"),
    (b"{\\rt", "rtf"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"BEGIN:VCALENDAR", "calendar"),
    (b"[InternetShortcut]", "shortcut"),
    (b"[{000214A0-0000-0000-C000-000000000046}]", "shortcut"),
    (b"[Desktop Entry]", "shortcut"),
)
_FIRST = frozenset(magic[0] for magic, _ in _AT_START)
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe|form|meta)[\s/>]", re.IGNORECASE)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def file_type(data: bytes) -> str:
    """A word for the type of a file that begins so, "" if it is text or not known.

    One of: executable script shortcut office-ole office-zip jar onenote help cabinet zip rar 7z gzip bzip2 xz tar disk
    rtf image pdf html svg calendar.
    """
    data = data[:40_000]
    if data.startswith(b"PK\3\4"):
        return _zip_type(data)
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    for candidate in (data, text):
        if candidate[:1] and candidate[0] in _FIRST:
            for magic, kind in _AT_START:
                if candidate.startswith(magic):
                    return kind if kind != "executable" or magic != b"MZ" or _is_program(candidate) else ""
    if data[257:262] == b"ustar":
        return "tar"
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data[0x8001:0x8006] == b"CD001":
        return "disk"
    if text[:1] == b"<":
        if _SVG.search(text[:2048]):
            return "svg"
        if _HTML.search(text[:2048]):
            return "html"
    return ""


def _is_program(data: bytes) -> bool:
    """MZ are two letters that text may begin with; a program has octets that text has not."""
    return b"\0" in data[:64] or len(data) <= 2


def _zip_type(data: bytes) -> str:
    """By the first names: APPNOTE says nothing of what is in a zip, the formats made of it do."""
    if b"[Content_Types].xml" in data[:400] or b"mimetypeapplication/vnd.oasis" in data[:100]:
        return "office-zip"
    return "jar" if b"META-INF/" in data[:100] else "zip"


# What opens as a program, or opens one, on the machine of some recipient.
DANGEROUS = frozenset(
    (
        "ace", "ade", "adp", "apk", "app", "appinstaller", "application", "appref-ms", "appx", "appxbundle", "arj", "bas", "bat", "cab",
        "chm", "cmd", "com", "command", "cpl", "daa", "desktop", "diagcab", "dll", "dmg", "drv", "exe", "gadget", "hta",
        "img", "inf", "ins", "iqy", "iso", "isp", "jar", "jnlp", "js", "jse", "lib", "library-ms", "lnk", "mde", "msc",
        "msh", "msi", "msix", "msixbundle", "msp", "mst", "nsh", "ocx", "one", "onepkg", "pif", "pkg", "ppkg", "prg", "ps1", "ps1xml", "ps2",
        "psc1", "psd1", "psm1", "rdp", "reg", "scf", "scr", "sct", "search-ms", "searchconnector-ms", "settingcontent-ms",
        "shb", "shs", "slk", "sys", "theme", "themepack", "udl", "url", "vb", "vbe", "vbs", "vhd", "vhdx", "vxd", "webloc", "website",
        "wim", "ws", "wsc", "wsf", "wsh", "xbap", "xll",
    )
)  # fmt: skip
# What a victim believes to open.
DOCUMENTS = frozenset(
    (
        "avi", "bmp", "csv", "doc", "docx", "eml", "gif", "htm", "html", "jpeg", "jpg", "mov", "mp3", "mp4", "odt", "pdf", "png",
        "ppt", "pptx", "rtf", "tif", "tiff", "txt", "wav", "xls", "xlsx", "xml", "zip",
    )
)  # fmt: skip

# The types that a name or a Content-Type promises.
_PROMISED = {
    "pdf": ("pdf",),
    "doc": ("office-ole", "rtf", "office-zip", "html"),
    "xls": ("office-ole", "office-zip", "html"),
    "ppt": ("office-ole", "office-zip"),
    "docx": ("office-zip", "zip", "office-ole"),
    "xlsx": ("office-zip", "zip", "office-ole"),
    "pptx": ("office-zip", "zip", "office-ole"),
    "rtf": ("rtf",),
    "jpg": ("image",),
    "jpeg": ("image",),
    "png": ("image",),
    "gif": ("image",),
    "txt": (),
    "csv": (),
    "application/pdf": ("pdf",),
    "image/jpeg": ("image",),
    "image/png": ("image",),
    "image/gif": ("image",),
}
# What nobody takes for something else by mistake.
_ACTIVE = frozenset(("executable", "script", "shortcut", "help", "cabinet", "disk", "onenote", "html", "svg", "jar"))


def disguised(content: str, extension: str, declared: str) -> str:
    """What the file pretends to be although its content is of another, active type; "" if nothing."""
    if content not in _ACTIVE:
        return ""
    for promise in (extension, declared):
        expected = _PROMISED.get(promise)
        if expected is not None and content not in expected and (expected or content in ("executable", "shortcut")):
            return promise
    return ""


_EXTENSION = re.compile(r"\.([^.\s/\\]{1,20})$")


def extensions(name: str) -> tuple[str, ...]:
    """The last and the last but one extension of a file name in lower case, as systems read them.

    Windows drops dots and blanks at the end; a null character ends a name in C; marks of direction turn what is shown,
    not what it is.
    """
    name = name[:1000].partition("\0")[0].translate(_INVISIBLE).rstrip(". \t\"'").lower()
    pieces = name.replace("\\", "/").rpartition("/")[2].rsplit(".", 2)
    return tuple(piece.strip() for piece in reversed(pieces[1:]))


_INVISIBLE = dict.fromkeys(
    (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x206A), 0xFEFF)
)
