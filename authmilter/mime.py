"""The parts of a message (RFC 2045, RFC 2046), with every reading that a mail reader may take of it.

Mail that readers take apart in different ways is how a filter is passed by: it sees one message, the victim another.
So wherever readers are known to differ each of the readings is a part, those after the first marked `alternative`, and
that they differ is an oddity.  Nothing here fails, whatever the message is made of.

Work is bounded: in parts, depth, decoded octets, and octets that are searched for boundaries.  What is beyond a bound is
left as it stands, and `Mime.oddities` has ``limits``.  Bodies are decoded when they are asked for, and once.
"""

import binascii
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from authmilter.html_text import MAX_HTML, Html, read_html
from authmilter.mime_fields import (
    MAX_FIELDS,
    MAX_HEADER,
    MAX_VALUE,
    Described,
    base64_decoded,
    boundaries,
    codec,
    decode,
    described,
    ends,
    file_names,
    until_padding,
)
from authmilter.model import HeaderField, Message

MAX_PARTS = 500
MAX_DEPTH = 30
MAX_DECODED = 32 * 1024 * 1024  # octets of all parts together
MAX_TEXT = 4 * 1024 * 1024  # octets of one part that become text
MAX_MARKUP = 4 * 1024 * 1024  # characters of all parts together that are read as HTML
MAX_SEARCHED = 40  # times the size of the body
MAX_READINGS = 3  # of one field
MAX_PIECES = 200_000  # of base64 in a row: some writers pad every line

# What `Mime.oddities` may name.
ODDITIES = {
    "type_repeated": "Several Content-Type fields that differ.",
    "type_malformed": "A Content-Type that names no type.",
    "encoding_repeated": "Several Content-Transfer-Encoding fields that differ.",
    "encoding_unknown": "A Content-Transfer-Encoding that there is not (RFC 2045 section 6.1).",
    "encoded_multipart": "A multipart that is itself encoded (forbidden by RFC 2045 section 6.4).",
    "encoded_message": "An attached message that is itself encoded (forbidden by RFC 2046 section 5.2.1).",
    "charset_unknown": "Text in a charset that there is not.",
    "boundary_ambiguous": "A multipart whose boundary can be read in several ways.",
    "boundary_absent": "A multipart without its boundary.",
    "boundary_prefix": "Lines that only begin with the boundary.",
    "end_absent": "A multipart without its end.",
    "behind_end": "Parts behind the end of a multipart.",
    "outside_parts": "Much content before the first, or behind the last part.",
    "bare_cr": "Boundaries at lines that end in CR alone.",
    "header_broken": "A part whose fields are interrupted by a line that is none.",
    "names_differ": "A file whose name depends on the reader.",
    "base64_joined": "Several pieces of base64 in a row: some readers stop after the first.",
    "base64_cut": "Base64 that ends too early.",
    "uuencoded": "A file within the text, as uuencode writes it.",
    "fragment": "A part of a message that is sent in pieces, or content that is elsewhere (RFC 2046 section 5.2.2 and 5.2.3).",
    "limits": "More parts, nesting or content than is looked at.",
}


class Oddity(NamedTuple):
    """Where readers differ, or a sender broke a rule: a word of `ODDITIES`, and what it is about."""

    name: str
    detail: str


_NO_TYPE = Described("text/plain")
_IDENTITY = ("", "7bit", "8bit", "binary")
_UUENCODE = ("x-uuencode", "uuencode", "x-uue", "uue")
_JOINED = "base64 behind its padding"
_ENCODINGS = (*_IDENTITY, _JOINED, "quoted-printable", "base64", *_UUENCODE)
_SIGNED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_MESSAGES = ("message/rfc822", "message/global", "message/news")


class Part:
    """A part: one reading of one MIME entity.

    `content_type` is ``type/subtype`` in lower case, and `parameters` what stands behind it.  `encoding` is the
    Content-Transfer-Encoding of this reading, in lower case.  `depth` is 0 for the message itself; `parent` the multipart
    or message that it is part of.  `kind` is ``part``, or ``preamble``, ``epilogue`` or ``uuencoded``, which are no parts
    for a reader that goes by the RFCs.  `alternative`: a reading that not all readers take.
    """

    __slots__ = (
        "_common",
        "_data",
        "_end",
        "_html",
        "_names",
        "_source",
        "_start",
        "_text",
        "alternative",
        "content_type",
        "depth",
        "encoding",
        "fields",
        "kind",
        "parent",
    )

    def __init__(
        self,
        common: "_Common",
        source: bytes,
        start: int,
        end: int,
        *,
        content_type: Described = _NO_TYPE,
        encoding: str = "",
        fields: Sequence[HeaderField] = (),
        depth: int = 0,
        parent: "Part | None" = None,
        alternative: bool = False,
        kind: str = "part",
    ) -> None:
        self._common = common
        self._source = source
        self._start = start
        self._end = end
        self.fields = fields
        self.content_type = content_type
        self.encoding = encoding
        self.depth = depth
        self.parent = parent
        self.alternative = alternative
        self.kind = kind
        self._data: bytes | None = None
        self._text: str | None = None
        self._html: Html | None = None
        self._names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        mark = " alternative" if self.alternative else ""
        return f"<{self.kind} {self.depth} {self.type} {self._end - self._start}{mark}>"

    @property
    def type(self) -> str:
        """``type/subtype`` in lower case."""
        return self.content_type.value

    @property
    def is_leaf(self) -> bool:
        """Has it content of its own?"""
        return not self.content_type.value.startswith("multipart/") and self.content_type.value not in _MESSAGES

    @property
    def size(self) -> int:
        """Octets before decoding."""
        return self._end - self._start

    @property
    def raw(self) -> bytes:
        """The octets before decoding."""
        return self._source[self._start : self._end]

    @property
    def charset(self) -> str:
        """The charset as declared, "" if none is."""
        return self.content_type.first(b"charset").decode("latin-1")

    @property
    def disposition(self) -> str:
        """``attachment``, ``inline``, or whatever Content-Disposition says, in lower case; "" without (RFC 2183)."""
        for header in self.fields:
            if header.name.strip(b" \t").lower() == b"content-disposition":
                return described(header.value).value
        return ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every file name that some reader would show, see `mime_fields.file_names`."""
        if self._names is None:
            self._names = file_names(self.fields)
        return self._names

    @property
    def data(self) -> bytes:
        """The decoded octets; no more than what is left of `MAX_DECODED`."""
        if self._data is None:
            self._data = self._common.take(self._decoded())
        return self._data

    @property
    def text(self) -> str:
        """The content as text, of at most `MAX_TEXT` octets, with LF at line ends."""
        if self._text is None:
            text = self._characters()
            # A third quicker than replace(), which is most of what decoding costs.
            self._text = "\n".join(text.split("\r\n")) if "\r" in text else text
        return self._text

    @property
    def html(self) -> Html | None:
        """What the content says as HTML; None if it is none."""
        if self._html is None and self.content_type.value in ("text/html", "application/xhtml+xml"):
            self._html = read_html(self._common.take_markup(self._characters()))  # line ends are blanks to it
        return self._html

    def _characters(self) -> str:
        return decode(self.data[:MAX_TEXT], self.charset)

    def _decoded(self) -> bytes:
        room = self._common.room
        encoding = self.encoding
        if encoding in ("base64", _JOINED):
            raw = self._source[self._start : min(self._end, self._start + 2 * room)]
            if encoding == _JOINED:
                pieces = _PADDING.split(raw, MAX_PIECES)
                if len(pieces) > MAX_PIECES:
                    self._common.add("limits", "pieces of base64")
                return b"".join(map(base64_decoded, pieces))
            try:
                return binascii.a2b_base64(until_padding(raw))
            except binascii.Error:
                if len(raw) == self.size and not self._common.is_cut(self._source, self._end):
                    self._common.add("base64_cut", self.content_type.value)
                return base64_decoded(raw.partition(b"=")[0])
        raw = self._source[self._start : min(self._end, self._start + room)]
        if encoding == "quoted-printable":
            return binascii.a2b_qp(raw)
        return _uudecoded(raw, room) if encoding in _UUENCODE else raw


class _Common:
    """What the parts of a message share: the room that is left, and the oddities.

    It knows no part: a circle of references would keep the message until the cyclic collector runs, thousands of messages
    later.
    """

    __slots__ = ("body", "body_cut", "markup", "oddities", "room")

    def __init__(self, body: bytes, body_cut: bool) -> None:
        self.body = body
        self.body_cut = body_cut
        self.room = MAX_DECODED
        self.markup = MAX_MARKUP
        self.oddities: dict[str, Oddity] = {}

    def add(self, name: str, detail: str) -> None:
        """Note an oddity; the first of its name stays."""
        self.oddities.setdefault(name, Oddity(name, detail))

    def is_cut(self, source: bytes, end: int) -> bool:
        """Does what ends there end because no more of the message was kept?"""
        return self.body_cut and (end >= len(source) or source is not self.body)

    def take(self, data: bytes) -> bytes:
        """`data` as far as there is room for it."""
        if len(data) >= self.room:
            self.add("limits", "decoded content")
            data = data[: self.room]
        self.room -= len(data)
        return data

    def take_markup(self, text: str) -> str:
        """`text` as far as there is time for it."""
        if len(text) > min(self.markup, MAX_HTML):
            self.add("limits", "HTML")
            text = text[: self.markup]
        self.markup -= min(len(text), MAX_HTML)
        return text


class Mime:
    """A message taken apart: its `parts` in the order in which they stand, and its `oddities`, each name once."""

    def __init__(self, message: Message) -> None:
        self.parts: list[Part] = []
        self.body = message.body
        self._common = _Common(message.body, message.body_cut)
        self._search = MAX_SEARCHED * len(message.body) + MAX_HEADER
        fields = tuple(message.fields[at] for at in _content_positions(message))
        self._entity(fields, self.body, 0, len(self.body), 0, None, False, _NO_TYPE)

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        """Where readers differ, and what breaks a rule; complete after the bodies were read that are wanted."""
        return tuple(self._common.oddities.values())

    def add(self, name: str, detail: str) -> None:
        """Note an oddity; the first of its name stays."""
        self._common.add(name, detail)

    # -------------------------------------------------------------------------------------------- the walk

    def _entity(
        self,
        fields: Sequence[HeaderField],
        source: bytes,
        start: int,
        end: int,
        depth: int,
        parent: Part | None,
        alternative: bool,
        default: Described,
    ) -> None:
        """Add the entity that stands in `source` from `start` to `end`, in all its readings."""
        types: list[bytes] = []
        encodings: list[str] = []
        for name, declared in fields:
            kind = _KINDS.get(name) or _kind(name)
            if kind == _TYPE:
                if declared not in types:
                    types.append(declared)
            elif kind == _ENCODING:
                encoding = _encoding(declared)
                if encoding not in encodings:
                    encodings.append(encoding)
                if "base64" not in encoding and b"base64" in declared[:200].lower():
                    encodings.append("base64")  # some readers look no further than for the word
            if len(declared) > MAX_VALUE:
                self.add("limits", "a field")
        if len(types) > 1 and len({described(one) for one in types}) > 1:
            self.add("type_repeated", " and ".join(described(one).value for one in types[:2]))
        if len(encodings) > 1:
            self.add("encoding_repeated", " and ".join(encodings[:2]))
        values: Sequence[bytes | None] = ends(types, MAX_READINGS) or (None,)
        for value in values:
            for encoding in ends(encodings, MAX_READINGS) or ("",):
                if len(self.parts) >= MAX_PARTS:
                    self.add("limits", "parts")
                    return
                content_type = default if value is None else described(value)
                if not content_type.value or "/" not in content_type.value:
                    # RFC 2045 section 5.2: what can't be read is plain text.
                    self.add("type_malformed", content_type.value or "empty")
                    multipart = content_type.value.startswith("multi") and content_type.first(b"boundary")
                    content_type = Described("multipart/mixed" if multipart else "text/plain", content_type.parameters)
                part = Part(
                    self._common,
                    source,
                    start,
                    end,
                    content_type=content_type,
                    encoding=encoding,
                    fields=fields,
                    depth=depth,
                    parent=parent,
                    alternative=alternative,
                )
                self.parts.append(part)
                self._inside(part, source, start, end, value or b"")
                alternative = True

    def _inside(self, part: Part, source: bytes, start: int, end: int, raw_type: bytes) -> None:
        """Look into a part that is there already."""
        kind = part.content_type.value
        if part.encoding not in _ENCODINGS:
            self.add("encoding_unknown", part.encoding)
            self._guess_base64(part, source, start, end)
        if kind.startswith("multipart/"):
            if self._may_go_deeper(part, source, start, end):
                if part.encoding not in _IDENTITY and part.encoding in _ENCODINGS:
                    self.add("encoded_multipart", part.encoding)
                    decoded = part.data
                    before = len(self.parts)
                    self._multipart(part, decoded, 0, len(decoded), raw_type, True)
                    if len(self.parts) > before and source.find(b"--", start, end) < 0:
                        return  # base64 has no boundaries in it
                self._multipart(part, source, start, end, raw_type, part.alternative)
        elif kind in _MESSAGES:
            if self._may_go_deeper(part, source, start, end):
                if part.encoding not in _IDENTITY and part.encoding in _ENCODINGS:
                    self.add("encoded_message", part.encoding)
                    decoded = part.data
                    self._section(decoded, 0, len(decoded), part, part.alternative, _NO_TYPE)
                else:
                    self._section(source, start, end, part, part.alternative, _NO_TYPE)
        else:
            self._leaf(part, source, start, end)

    def _may_go_deeper(self, part: Part, source: bytes, start: int, end: int) -> bool:
        """Is there room for what is in it?  If not it is there as text."""
        self._search -= end - start
        if part.depth < MAX_DEPTH and self._search >= 0:
            return True
        self.add("limits", "depth" if part.depth >= MAX_DEPTH else "boundaries")
        self._outside(part, source, start, end, "preamble", alternative=False, least=1)
        return False

    def _multipart(self, part: Part, source: bytes, start: int, end: int, raw_type: bytes, alternative: bool) -> None:
        if end <= start:
            return
        tried = boundaries(raw_type)
        self._search -= len(tried[1:]) * (end - start)  # the first is paid for
        readings: list[list[_Delimiter]] = []
        for boundary in tried:
            strict, loose = self._delimiters(source, start, end, boundary)
            if strict:
                readings.append(strict)
            if loose:
                # A boundary may begin with another (it should not, RFC 2046 section 5.1.1): then it was declared above.
                line = source[loose[0].start + 2 : loose[0].end].strip().removesuffix(b"--")
                if source.find(line, start, loose[0].start) < 0:
                    self.add("boundary_prefix", line[:60].decode("latin-1"))
                readings.append(sorted([*strict, *loose]))
        if len(readings) > 1 and len(tried) > 1:
            self.add("boundary_ambiguous", " and ".join(name.decode("latin-1") for name in tried[:2]))
        if not readings:
            if not tried or not self._common.is_cut(source, end):
                self.add("boundary_absent", tried[0].decode("latin-1") if tried else "none is declared")
            readings = self._guessed(source, start, end, b"boundary" in raw_type.lower() and not tried)
            alternative = True
            if not readings:
                self._outside(part, source, start, end, "preamble", alternative=False, least=1)
        elif source is self.body and source.find(b"\r--", start, end) >= 0:
            self._at_bare_cr(part, source[start:end], tried)
        for reading in ends(readings, MAX_READINGS):
            self._split(part, source, start, end, reading, alternative)
            alternative = True

    def _delimiters(
        self, source: bytes, start: int, end: int, boundary: bytes
    ) -> "tuple[list[_Delimiter], list[_Delimiter]]":
        """The delimiter lines of RFC 2046 section 5.1.1, and lines that only begin like one."""
        needle = b"\n--" + boundary
        strict: list[_Delimiter] = []
        loose: list[_Delimiter] = []
        # The first line has no line end before it that is ours.
        line = start if source.startswith(needle[1:], start) else source.find(needle, start, end) + 1 or -1
        while line >= 0:
            if len(strict) + len(loose) >= MAX_PARTS:
                self.add("limits", "parts")
                break
            behind = line + len(needle) - 1
            following = source.find(b"\n", behind, end) + 1 or end
            rest = source[behind : min(following, behind + 200)].strip()
            if not rest or rest == b"--":
                strict.append(_Delimiter(line, following, bool(rest)))
            else:
                loose.append(_Delimiter(line, following, rest[:2] == b"--"))
            line = source.find(needle, max(following - 1, behind), end) + 1 or -1
        return strict, loose

    def _guessed(self, source: bytes, start: int, end: int, empty: bool) -> "list[list[_Delimiter]]":
        """The first line that could be a delimiter, and the first with fields of a part behind it, as ones.

        `empty`: the boundary is declared to be nothing, which some readers believe.
        """
        first_line = b"\n" + source[start : min(end, start + 300)]
        found = [line.match(first_line) or line.search(source, start, end) for line in (_ANY_DELIMITER, _ANY_PART)]
        tried = [b""] if empty else dict.fromkeys(line[1] for line in found if line)
        return [strict for line in tried if (strict := self._delimiters(source, start, end, line)[0])]

    def _split(
        self,
        part: Part,
        source: bytes,
        start: int,
        end: int,
        delimiters: "list[_Delimiter]",
        alternative: bool,
    ) -> None:
        default = _DIGEST if part.content_type.value == "multipart/digest" else _NO_TYPE
        self._outside(part, source, start, delimiters[0].start, "preamble", alternative=alternative)
        closed = False
        for number, delimiter in enumerate(delimiters, 1):
            last = number == len(delimiters)
            limit = end if last else delimiters[number].start
            if delimiter.closing:
                closed = True
                self._outside(part, source, delimiter.end, limit, "epilogue", alternative=alternative)
                continue
            if closed:
                self.add("behind_end", part.content_type.value)
            if not last:
                # The line end before a delimiter belongs to that (RFC 2046 section 5.1.1).
                limit -= 2 if source[limit - 2 : limit] == b"\r\n" else 1
            self._section(source, delimiter.end, max(limit, delimiter.end), part, alternative or closed, default)
        if not closed and not self._common.is_cut(source, end) and len(delimiters) < MAX_PARTS:
            self.add("end_absent", part.content_type.value)

    def _section(
        self, source: bytes, start: int, end: int, parent: Part, alternative: bool, default: Described
    ) -> None:
        """Add the entity whose header section begins at `start`."""
        fields, body, broken = _read_fields(source, start, end)
        if body - start > MAX_HEADER:
            self.add("limits", "header section")
        if any(b"\r" in value and b"\r" in value.replace(b"\r\n", b"") for _, value in fields):
            self.add("bare_cr", "header section")
        self._entity(fields, source, body, end, parent.depth + 1, parent, alternative, default)
        if broken:
            lenient, behind = broken
            self.add("header_broken", source[body : body + 60].partition(b"\n")[0].decode("latin-1").strip())
            self._entity([*fields, *lenient], source, behind, end, parent.depth + 1, parent, True, default)

    def _outside(
        self, part: Part, source: bytes, start: int, end: int, kind: str, *, alternative: bool, least: int = 200
    ) -> None:
        """What some readers show although it is no part."""
        if end - start < least and (end <= start or _NOTEWORTHY.search(source, start, end) is None):
            return
        if not source[start : start + 4096].strip() and not source[start:end].strip():
            return
        if least > 1:
            self.add("outside_parts", kind)
        if len(self.parts) < MAX_PARTS:
            self.parts.append(
                Part(
                    self._common,
                    source,
                    start,
                    end,
                    depth=part.depth + 1,
                    parent=part,
                    alternative=alternative,
                    kind=kind,
                )
            )

    def _at_bare_cr(self, part: Part, raw: bytes, tried: Sequence[bytes]) -> None:
        self._search -= len(raw)
        if self._search < 0:
            return
        mended = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for boundary in tried:
            more = self._delimiters(mended, 0, len(mended), boundary)[0]
            if len(more) > len(self._delimiters(raw, 0, len(raw), boundary)[0]):
                self.add("bare_cr", boundary.decode("latin-1"))
                self._split(part, mended, 0, len(mended), more, True)

    # -------------------------------------------------------------------------------------------- leaves

    def _leaf(self, part: Part, source: bytes, start: int, end: int) -> None:
        if part.encoding == "base64":
            padding = source.find(b"=", start, end)
            if 0 <= padding < end - 4:
                self._behind_padding(part, source, start, padding, end)
        elif part.encoding in _IDENTITY and part.content_type.value == "text/plain":
            self._uuencoded(part, source, start, end)
        elif part.content_type.value in ("message/partial", "message/external-body"):
            self.add("fragment", part.content_type.value)
        if part.content_type.value in _SIGNED and self._may_go_deeper(part, source, start, end):
            self._signed(part)
        names = part.names
        if len(names) > 1 and len({_extension(name) for name in names} - {""}) > 1:
            self.add("names_differ", " and ".join(names[:2]))
        charset = part.charset
        if charset and part.content_type.value.startswith("text/") and not codec(charset):
            self.add("charset_unknown", charset)

    def _signed(self, part: Part) -> None:
        """The entity within a signature, which readers show as the message (RFC 8551 section 3.5.2); none if encrypted."""
        data = part.data
        found = _CONTENT_FIELD.search(data)
        if found:
            self._section(data, found.start(), len(data), part, part.alternative, _NO_TYPE)

    def _behind_padding(self, part: Part, source: bytes, start: int, padding: int, end: int) -> None:
        """Base64 that goes on behind its padding: most readers stop there, some go on."""
        rest = source[padding:end].lstrip(b"=").strip()
        # A footer that a list has appended is not base64: there are blanks in each line.
        if len(rest) >= 4 and (_BASE64_LINES.fullmatch(rest) or _BASE64_LINE.search(rest)):
            self.add("base64_joined", part.content_type.value)
            self._reading(part, source, start, end, _JOINED)

    def _guess_base64(self, part: Part, source: bytes, start: int, end: int) -> None:
        """Some readers take any encoding that names base64 for it."""
        if "base64" in part.encoding or _BASE64_LINES.match(source, start, min(end, start + 200)):
            self._reading(part, source, start, end, "base64")
        elif "quoted" in part.encoding:
            self._reading(part, source, start, end, "quoted-printable")

    def _reading(self, part: Part, source: bytes, start: int, end: int, encoding: str) -> None:
        if len(self.parts) >= MAX_PARTS:
            self.add("limits", "parts")
            return
        self.parts.append(
            Part(
                self._common,
                source,
                start,
                end,
                content_type=part.content_type,
                encoding=encoding,
                fields=part.fields,
                depth=part.depth,
                parent=part.parent,
                alternative=True,
            )
        )

    def _uuencoded(self, part: Part, source: bytes, start: int, end: int) -> None:
        """Files within text, which Outlook and others show as attachments."""
        at = source.find(b"begin ", start, end)
        while at >= 0 and len(self.parts) < MAX_PARTS:
            found = _UU_BEGIN.match(source, at, end) if at == start or source[at - 1] == 10 else None
            if found:
                close = source.find(b"\nend", found.end() - 1, end)  # once, if there is none
                self.add("uuencoded", found[1].decode("latin-1"))
                name = HeaderField(b"Content-Disposition", b'attachment; filename="' + found[1].strip() + b'"')
                self.parts.append(
                    Part(
                        self._common,
                        source,
                        found.end(),
                        end if close < 0 else close + 1,
                        content_type=_OCTETS,
                        encoding="x-uuencode",
                        fields=(name,),
                        depth=part.depth + 1,
                        parent=part,
                        kind="uuencoded",
                    )
                )
                if close < 0:
                    return
                at = close
            at = source.find(b"begin ", at + 1, end)


class _Delimiter(NamedTuple):
    """A delimiter line: where it begins, where what follows begins, and whether it ends its multipart."""

    start: int
    end: int
    closing: bool


_DIGEST = Described("message/rfc822")  # RFC 2046 section 5.1.5
_OCTETS = Described("application/octet-stream")
_TYPE, _ENCODING, _OTHER = range(1, 4)
_KINDS = {b"Content-Type": _TYPE, b"Content-Transfer-Encoding": _ENCODING, b"Content-Disposition": _OTHER}
_NAMES = (b"content-type", b"content-transfer-encoding", b"content-disposition")

# They begin with what Python finds quickly.
_ANY_DELIMITER = re.compile(rb"\n--([^\s-][^\r\n]{0,200}?)[ \t]*\r?(?=\n|\Z)")
_ANY_PART = re.compile(rb"\n--([^\s-][^\r\n]{0,200}?)[ \t]*\r?\n(?i:content-)")
_NOTEWORTHY = re.compile(rb"://|^content-", re.IGNORECASE | re.MULTILINE)
_BASE64_LINES = re.compile(rb"[A-Za-z0-9+/=\r\n]++")
_BASE64_LINE = re.compile(rb"^[ \t]*+[A-Za-z0-9+/]{20,}+={0,2}[ \t]*+\r?$", re.MULTILINE)
_PADDING = re.compile(rb"=++")
_UU_BEGIN = re.compile(rb"begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n")
_CONTENT_FIELD = re.compile(rb"^[ \t]*content-[a-z-]+[ \t]*:", re.IGNORECASE | re.MULTILINE)


def _content_positions(message: Message) -> list[int]:
    return sorted(position for name in _NAMES for position in message.index.get(name, ())[:MAX_FIELDS])


def _kind(name: bytes) -> int:
    name = name.strip(b" \t").lower()
    if name == b"content-type":
        return _TYPE
    return _ENCODING if name == b"content-transfer-encoding" else _OTHER


def _encoding(value: bytes) -> str:
    return _PLAIN_ENCODINGS.get(value) or _odd_encoding(value[:200])


_PLAIN_ENCODINGS = {b" " + name.encode(): name for name in ("7bit", "8bit", "quoted-printable", "base64", "binary")}


@lru_cache(maxsize=256)
def _odd_encoding(value: bytes) -> str:
    encoding = described(value).value
    # "8-bit" and its like mean what they seem to.
    return {"8-bit": "8bit", "7-bit": "7bit"}.get(encoding, encoding)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].strip().lower() if "." in name else ""


def _uudecoded(raw: bytes, most: int) -> bytes:
    """What uuencoded lines say, up to `most` octets; a line that is none ends them (POSIX uudecode)."""
    lines: list[bytes] = []
    for line in io.BytesIO(raw):  # not all of them at once
        if most <= 0:
            break
        most -= 45  # of a line, at most
        if line.startswith((b"begin ", b"end")) or not line.strip():
            continue
        try:
            lines.append(binascii.a2b_uu(line.rstrip(b"\r\n")))
        except binascii.Error:
            # Some writers miscount the padding: as many octets as the first character says.
            count = ((line[0] - 32) & 63) * 4 // 3 + 3
            try:
                lines.append(binascii.a2b_uu(line[:count]))
            except binascii.Error:
                break
    return b"".join(lines)


_SHORT_SECTION = 256  # octets up to which a header section is mostly that of other messages too


@lru_cache(maxsize=512)
def _short_section(raw: bytes) -> tuple[HeaderField, ...] | None:
    """The fields, None if a line is none."""
    fields: list[HeaderField] = []
    for line in raw.removesuffix(b"\n").split(b"\n"):
        if not _field(line.rstrip(b"\r"), fields):
            return None
    return tuple(fields)


def _read_fields(
    source: bytes, start: int, end: int
) -> tuple[Sequence[HeaderField], int, tuple[list[HeaderField], int] | None]:
    """The fields at `start`, and where the body begins.

    Where a line that is no field comes before the empty line, some readers end the header section there, others go on.
    With MIME fields behind it, or base64, where it matters, the last item is what those find besides, and where their body
    begins.
    """
    if source.startswith((b"\r\n", b"\n"), start, end):
        return [], start + (2 if source[start] == 13 else 1), None
    blank = source.find(b"\n\r\n", start, end)
    other = source.find(b"\n\n", start, end if blank < 0 else blank)
    if other >= 0:
        head, body = other + 1, other + 2
    elif blank >= 0:
        head, body = blank + 1, blank + 3
    else:
        head = body = end
    raw = source[start : min(head, start + MAX_HEADER)]
    if len(raw) <= _SHORT_SECTION:
        known = _short_section(raw)
        if known is not None:
            return known, body, None
    lines = raw.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    fields: list[HeaderField] = []
    position = start
    for number, line in enumerate(lines):
        field = _field(line.rstrip(b"\r"), fields)
        if not field and not (number == 0 and line.startswith((b"From ", b">From "))):  # a line of mbox
            further = head < end and any(b"base64" in declared.lower() for _, declared in fields)
            if further or _CONTENT_FIELD.search(source, position, min(head, start + MAX_HEADER)):
                lenient: list[HeaderField] = []
                for later in lines[number:]:
                    _field(later.strip() if not lenient else later.rstrip(b"\r"), lenient)
                return fields, position, (lenient, body)
            return fields, position, None
        position += len(line) + 1
    return fields, body, None


def _field(line: bytes, fields: list[HeaderField]) -> bool:
    """Take the line into `fields`; False if it is neither a field nor the continuation of one."""
    if line[:1] in (b" ", b"\t"):
        if not fields:
            return False
        last = fields[-1]
        fields[-1] = HeaderField(last.name, last.value + b"\r\n" + line)
        return True
    name, colon, value = line.partition(b":")
    if not colon or len(name.split()) != 1:
        return False
    if len(fields) < MAX_FIELDS or name[:8].lower() == b"content-":
        fields.append(HeaderField(name, value))
    if b"\r" in value:  # where some readers end the line
        for piece in value.split(b"\r", MAX_FIELDS)[1:]:
            if piece[:8].lower() == b"content-":
                _field(piece, fields)
    return True


def mime(message: Message) -> Mime:
    """The message taken apart; done once, when the body is there."""
    known = message.content.get("mime")
    if not isinstance(known, Mime):
        known = message.content["mime"] = Mime(message)
    return known


def parts(message: Message) -> tuple[Part, ...]:
    """Every part of the message in every reading, the message itself first."""
    return tuple(mime(message).parts)
