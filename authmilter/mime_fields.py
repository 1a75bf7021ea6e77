"""The fields that describe a MIME entity, with every reading that a mail reader may take of them.

Types and parameters follow RFC 2045 section 5.1 and RFC 2231; encoded words (RFC 2047) are decoded where most readers
decode them, although section 5 forbids them in parameters.
"""

import binascii
import re
from codecs import lookup
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from authmilter.model import HeaderField

MAX_FIELDS = 200  # of an entity
MAX_HEADER = 65_536  # octets of its header section
MAX_VALUE = MAX_HEADER  # octets of a Content-* field
MAX_PARAMETERS = 100
MAX_NAME = 1000  # characters of a file name
MAX_NAMES = 16  # of an entity


class Parameter(NamedTuple):
    """A parameter as written: `name` in lower case, with the asterisks of RFC 2231; `value` without quotes."""

    name: bytes
    value: bytes


class Described(NamedTuple):
    """A value with parameters: Content-Type, Content-Disposition.

    `value` is in lower case, "" if there is none.  Where comments stand among the parameters those are listed twice,
    first as they read without comments.
    """

    value: str
    parameters: tuple[Parameter, ...] = ()

    def first(self, name: bytes) -> bytes:
        """The value of the first parameter of that name, b"" if there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter.value
        return b""


# Blanks around the slash, and quotes, are what some readers forgive.
_VALUE = re.compile(rb'[\s;"]*+([^\s;"/]*+(?:\s*+/\s*+)?+[^\s;"]*+)')
# A semicolon is missing before some parameters; Outlook and others find them all the same.
_PARAMETER = re.compile(rb'[;\s]([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)|([^;\r\n]*+))', re.DOTALL)
# Those that are looked for behind `MAX_PARAMETERS` others.
_TELLING_PARAMETER = re.compile(
    rb'[;\s]((?:boundary|(?:file)?name)(?:\*[0-9]*+\*?+)?+)\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)|([^;\r\n]*+))',
    re.DOTALL | re.IGNORECASE,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_IN_COMMENT = re.compile(rb'[()\\"]')


def described(raw: bytes) -> Described:
    """Read a field body; never fails."""
    return _short(raw) if len(raw) <= 512 else _long(raw[:MAX_VALUE])


def _read(raw: bytes) -> Described:
    plain = without_comments(raw) if b"(" in raw else raw
    found = _VALUE.match(plain)
    value = b"".join(found[1].split()).decode("latin-1").lower() if found else ""
    parameters = list(_parameters(plain))
    if plain is not raw:
        # Not every reader knows comments, and file names have parentheses in them.
        parameters += [parameter for parameter in _parameters(raw) if parameter not in parameters]
    return Described(value, tuple(parameters))


_short = lru_cache(maxsize=1024)(_read)
_long = lru_cache(maxsize=32)(_read)  # each is asked for several times in a row


def _parameters(raw: bytes) -> Iterator[Parameter]:
    if b"=" not in raw:
        return
    position = 0
    for pattern in (_PARAMETER, _TELLING_PARAMETER):
        for found in islice(pattern.finditer(raw, position), MAX_PARAMETERS):
            name, quoted, token = found.groups(b"")
            value = token.strip() or (_QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
            yield Parameter(name.lower(), _FOLD.sub(b"", value) if b"\n" in value else value)
            position = found.end()


def without_comments(raw: bytes) -> bytes:
    """`raw` with a blank for every comment (RFC 5322 section 3.2.2); one without end reaches to the end."""
    pieces: list[bytes] = []
    depth = taken = position = 0
    quoted = False
    while found := _IN_COMMENT.search(raw, position):
        at = found.start()
        position = found.end()
        sign = raw[at]
        if sign == 0x5C:  # a backslash quotes what follows
            position += 1
        elif sign == 0x22:
            quoted = not quoted and not depth
        elif quoted:
            pass
        elif sign == 0x28:
            if not depth:
                pieces.append(raw[taken:at])
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                taken = position
    if not depth:
        pieces.append(raw[taken:])
    return b" ".join(pieces)


# ------------------------------------------------------------------------------------------------ boundaries

_BOUNDARY = re.compile(
    rb'boundary(?:\*[0-9]*+\*?)?\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)|([^;\r\n]*+))', re.IGNORECASE | re.DOTALL
)
MAX_BOUNDARIES = 4


def boundaries(raw: bytes) -> tuple[bytes, ...]:
    """Every boundary that a reader may find in a Content-Type, the one that RFC 2045 means first."""
    raw = raw[:MAX_VALUE]
    meant = described(raw)
    found = [meant.first(b"boundary"), *_joined(meant.parameters, b"boundary")]
    for quoted, token in _BOUNDARY.findall(raw)[:MAX_PARAMETERS]:
        found.append(_QUOTED_PAIR.sub(rb"\1", _FOLD.sub(b"", quoted)) or token.strip().partition(b" ")[0])
    found += [decode_words(boundary).encode("utf-8", "replace") for boundary in found if b"=?" in boundary]
    # RFC 2046 section 5.1.1: white space at the end is not part of it.
    distinct = dict.fromkeys(boundary.rstrip()[:998] for boundary in found)
    return ends([boundary for boundary in distinct if boundary], MAX_BOUNDARIES)


_T = TypeVar("_T")


def ends(readings: Sequence[_T], most: int) -> tuple[_T, ...]:
    """At most that many: the first ones, and the last, since readers take the one or the other of what is repeated."""
    return (*readings[: most - 1], *readings[most - 1 :][-1:])


# ------------------------------------------------------------------------------------------------ RFC 2231 and RFC 2047


def _joined(parameters: Iterable[Parameter], name: bytes) -> Iterator[bytes]:
    """What RFC 2231 makes of ``name*``, ``name*0`` and ``name*0*``, as octets."""
    pieces: dict[int, bytes] = {}
    last: dict[int, bytes] = {}  # the same where the last of a number counts
    for written, value in parameters:
        if not written.startswith(name + b"*"):
            continue
        number = written[len(name) + 1 :]
        encoded = number.endswith(b"*") or not number
        number = number.rstrip(b"*")
        # The first begins with charset'language'.
        content = value.split(b"'", 2)[-1] if encoded and number in (b"", b"0") else value
        octets = unquote_to_bytes(content) if encoded else content
        if not number:
            yield octets
        elif number.isdigit() and len(number) <= 3:
            pieces.setdefault(int(number), octets)
            last[int(number)] = octets
    for taken in (pieces, last) if pieces != last else (pieces,):
        if taken:
            yield b"".join(taken[number] for number in sorted(taken))


def _charset_of(parameters: Iterable[Parameter], name: bytes) -> str:
    for written, value in parameters:
        if written in (name + b"*", name + b"*0*") and value.count(b"'") >= 2:
            return value.partition(b"'")[0].decode("latin-1")
    return ""


def file_names(fields: Iterable[HeaderField]) -> tuple[str, ...]:
    """Every file name that some reader would show for an entity with those fields, at most `MAX_NAMES`.

    First come those of Content-Disposition, and among those the one of RFC 2231.
    """
    declared: list[str] = []
    disposed: list[str] = []
    for field in fields:
        if b"name" in field.value.lower():
            name = field.name.strip(b" \t").lower()
            if name == b"content-disposition":
                disposed += _names(described(field.value).parameters, b"filename")
            elif name == b"content-type":
                declared += _names(described(field.value).parameters, b"name")
    if not disposed and not declared:
        return ()
    return ends(tuple(dict.fromkeys(name for name in disposed + declared if name)), MAX_NAMES)


def _names(parameters: tuple[Parameter, ...], key: bytes) -> Iterator[str]:
    charset = _charset_of(parameters, key)
    for value in _joined(parameters, key):
        yield _shown(decode_words(value) if b"=?" in value else decode(value, charset))
    for name, value in parameters:
        if name == key:
            yield _shown(decode_words(value))
            # A name with blanks that is not in quotes: some readers show its first word alone.
            if b" " in value and b"=" in value:
                yield _shown(decode_words(value.partition(b" ")[0]))


def _shown(name: str) -> str:
    if len(name) > MAX_NAME:  # its end says what it is
        name = name[: MAX_NAME // 2] + name[-MAX_NAME // 2 :]
    return " ".join(name.split())


_ENCODED_WORD = re.compile(rb"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*+)\?=")
_BETWEEN_WORDS = re.compile(rb"\?=\s++(?==\?)")
_FOLD = re.compile(rb"\r\n(?=[ \t])")


def decode_words(raw: bytes) -> str:
    """`raw` with its encoded words decoded (RFC 2047), wherever they stand, and folds undone."""
    if b"\n" in raw:
        raw = _FOLD.sub(b"", raw)
    if b"=?" not in raw:
        return decode(raw, "")
    pieces: list[str] = []
    taken, charset = 0, ""
    octets: list[bytes] = []  # of words of one charset side by side: many senders split a character between two of them
    raw = _BETWEEN_WORDS.sub(b"?=", raw)  # section 6.2: blanks between two of them are not shown
    for word in _ENCODED_WORD.finditer(raw):
        named = word[1].partition(b"*")[0].decode("latin-1")
        if octets and (word.start() > taken or named.lower() != charset.lower()):
            pieces.append(decode(b"".join(octets), charset))
            octets.clear()
        if word.start() > taken:
            pieces.append(decode(raw[taken : word.start()], ""))
        taken, charset = word.end(), named
        octets.append(base64_decoded(word[3]) if word[2] in b"bB" else binascii.a2b_qp(word[3], header=True))
    pieces.append(decode(b"".join(octets), charset))
    pieces.append(decode(raw[taken:], ""))
    return "".join(pieces)


_NOT_BASE64 = bytes(c for c in range(256) if not (chr(c).isalnum() and c < 128) and chr(c) not in "+/")


def base64_decoded(data: bytes) -> bytes:
    """What is left of base64 when all that is none is dropped, with whatever octets its end still makes."""
    data = data.translate(None, _NOT_BASE64)
    # A last character on its own holds six bits of nothing, but makes Python refuse the rest.
    return binascii.a2b_base64(data[: len(data) - (len(data) % 4 == 1)] + b"==")


_DIRT = bytes(set(_NOT_BASE64) - set(b"="))
# Whole quanta, in which a stray pad ends nothing, and then one that its pads complete (RFC 4648 section 4).
_QUANTUM = rb"=*+[A-Za-z0-9+/]=*+[A-Za-z0-9+/]"
_PADDED = re.compile(rb"(?:%b=?[A-Za-z0-9+/]{2})*+%b(?:==|=?[A-Za-z0-9+/]=)" % (_QUANTUM, _QUANTUM))


def until_padding(data: bytes) -> bytes:
    """Base64 up to the padding that ends it, where most readers stop.

    Python's own decoder stops there too, but from 3.14 on it goes on with what is behind.
    """
    padding = data.find(b"=")
    if padding < 0 or not data[padding:].translate(None, _DIRT).strip(b"="):
        return data
    data = data.translate(None, _DIRT)
    found = _PADDED.match(data, data.find(b"=") // 4 * 4)  # quanta before the first pad are whole
    return data[: found.end()] if found else data


# ------------------------------------------------------------------------------------------------ charsets

# Other codecs of Python are no character sets, or are slow on hostile input.
_CHARSET = re.compile(
    r"(?:utf|iso|windows|cp|koi|gb|hz|big5|euc|shift|sjis|ks_c|ms|mac|tis|viscii|l?latin)[\w.:-]*", re.IGNORECASE
)
# What senders write, and what it says in truth: the larger sets that contain those that are named (as in the WHATWG
# Encoding Standard, section 4.2).
_MEANT = {
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "ansi_x3.4-1968": "utf-8",
    "unknown-8bit": "utf-8",
    "x-unknown": "utf-8",
    "utf8": "utf-8",
    "unicode-1-1-utf-7": "utf-7",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso8859-1": "cp1252",
    "ansi": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "shift_jis": "cp932",
    "iso-8859-9": "cp1254",
    "iso-8859-11": "cp874",
    "iso-8859-8-i": "iso-8859-8",
    "x-sjis": "cp932",
    "x-gbk": "gb18030",
}


def codec(charset: str) -> str:
    """The codec of Python for a charset, "" if it is unknown."""
    return _codec(charset) if len(charset) <= 64 else ""


@lru_cache(maxsize=1024)
def _codec(charset: str) -> str:
    name = charset.strip(" \t'\"").lower()
    name = _MEANT.get(name, name)
    if not _CHARSET.fullmatch(name):
        return ""
    try:
        found = lookup(name).name
        b"ab\0\0".decode(found)  # raises for a codec that is no charset
    except (LookupError, ValueError):
        return ""
    return found


# Charsets in which ASCII octets may say something else.
_NOT_ASCII = ("utf-7", "utf-16", "utf-32", "hz", "iso2022")


def decode(data: bytes, charset: str) -> str:
    """`data` as text; without a known charset as UTF-8 if it is, else as windows-1252.  Never fails."""
    name = codec(charset) if charset else ""
    if data.isascii() and not name.startswith(_NOT_ASCII):
        return data.decode("ascii")
    try:
        # Whoever says UTF-8 has mostly UTF-8 that was cut; who says nothing, or ASCII, may have anything.
        if not name or charset.strip(" '\"").lower() in _ASCII:
            return _utf_8_or_western(data)
        return data.decode(name, "replace")
    except (ValueError, LookupError):
        return data.decode("latin-1")


_ASCII = ("us-ascii", "ascii", "ansi_x3.4-1968", "unknown-8bit", "x-unknown")


def _utf_8_or_western(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
