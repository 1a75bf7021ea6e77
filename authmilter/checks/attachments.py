"""Attached files that are dangerous, or pretend to be something else."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from authmilter.archives import READABLE, Budget, read_archive
from authmilter.check import Tools, Words, check
from authmilter.config.option import Names, option
from authmilter.evidence import Finding
from authmilter.filetype import (
    DANGEROUS,
    DOCUMENTS,
    OFFICE,
    PAGES,
    TYPES,
    also_archive,
    disguised,
    extensions,
    file_type,
    hides_extension,
)
from authmilter.html_text import read_html
from authmilter.mime import Mime, Part, mime
from authmilter.mime_fields import decode
from authmilter.model import Stage, Transaction
from authmilter.office import traits
from authmilter.pdf import pdf_traits
from authmilter.stored_mail import message_of
from authmilter.verdict import Action

MAX_RATIO = 200.0  # what a zip claims to hold, in sizes of its own; text comes to 20
MIN_BOMB = 4 * 1024 * 1024  # octets that it claims at least
MAX_PAGE = 256 * 1024  # octets of a file that are read as HTML
MAX_SCRIPT = 512 * 1024  # octets at the beginning of a page, and at its end, that are searched for what its scripts do
MAX_PICTURE = 4 * 1024 * 1024  # octets that are searched in SVG, calendars, and in pages behind MAX_PAGE
MAX_WORK = 16 * 1024 * 1024  # octets that are looked into in all, by what they cost
MAX_ATTACHED = 3  # messages that are attached as files, one within the other
MAX_TEXT = 64 * 1024  # characters of the message that are searched for a password
FEW = 30  # files in an archive, among which a program is not one of many
_PAGE_WORK = 16  # of each octet
_DOCUMENT_WORK = 1024 * 1024  # of each, whatever its size
_UNREAD = frozenset(("ace", "arj", "lha", "zstd"))
_PROGRAMS = ("executable", "shortcut")


def extension(text: str) -> str:
    """Normal form of an extension: lower case, without its dot; raises ValueError with a message for people."""
    word = text.lower().removeprefix("*").removeprefix(".")
    if not word or not re.fullmatch(r"[\w-]{1,20}", word):
        raise ValueError(f"{text[:60]!r} is not an extension such as exe")
    return word


def content_type(text: str) -> str:
    """A word of `filetype.TYPES`; raises ValueError with a message for people."""
    if text not in TYPES:
        raise ValueError(f"{text[:60]!r} is none of {', '.join(sorted(TYPES))}")
    return text


@dataclass(frozen=True)
class Attachments:
    """Files that come with a message from outside, by name, by declared type and by content.

    The names that count are all that some mail reader would show, without the marks and blanks that hide their end, and
    those of files in zip, 7z, RAR, tar, cabinet, gzip, bzip2 and xz archives and in winmail.dat, archives in archives included; attached
    messages are looked into as well.  What an archive has in it is told by content too, but for what RAR has packed.  Among
    more than thirty files the name of one says little: programs are sent so, and then only `attachment_in_archive` is found.

    What is found adds up to less than the default of `tag` for each kind of thing: a program, a page, a document.  To be
    stricter give an action to the symbol in [scores], such as `attachment_dangerous = reject`, `attachment_macro_autorun =
    quarantine` or `attachment_encrypted = tag`.
    """

    enabled: bool = option(True, "Look at attached files.")
    reject: Names = option(
        (),
        "Extensions that are refused, such as exe, iso: 550 5.7.1. They are so in archives too, encrypted ones included "
        "as long as their names can be read.",
        each=extension,
    )
    reject_types: Names = option(
        (),
        "The same by content, whatever the name: some of executable, script, shortcut, disk, onenote, help, cabinet, jar, "
        "7z, rar, ace, html, svg and so on.",
        each=content_type,
    )
    dangerous: Names = option(
        (), "Extensions that count as dangerous, besides those that open as programs on some system.", each=extension
    )
    harmless: Names = option((), "Extensions that do not count as dangerous.", each=extension)

    @cached_property
    def dangers(self) -> frozenset[str]:
        """Every extension that counts as dangerous."""
        return (DANGEROUS | frozenset(self.dangerous)) - frozenset(self.harmless)

    @cached_property
    def refused(self) -> frozenset[str]:
        """The extensions that are refused."""
        return frozenset(self.reject)

    @cached_property
    def refused_types(self) -> frozenset[str]:
        """The types of content that are refused."""
        return frozenset(self.reject_types)


# By what they are about.  What is true of one thing is mostly found in several ways, so the weights of each group
# together stay under the default of `tag`, and [scores] can still act on any of them.
GROUPS: Mapping[str, Mapping[str, float]] = {
    "program": {
        "attachment_dangerous": 1.5,
        "attachment_executable": 1.0,
        "attachment_double_extension": 0.7,
        "attachment_name_hides": 0.7,
        "attachment_disguised": 0.8,
        "attachment_in_archive": 0.2,
    },
    "archive": {
        "attachment_encrypted": 0.5,
        "attachment_password_told": 0.5,
        "attachment_bomb": 1.0,
        "attachment_unread": 0.2,
    },
    "page": {
        "attachment_html": 0.3,
        "attachment_html_lure": 1.5,
        "attachment_html_script": 0.5,
        "attachment_html_smuggling": 1.0,
        "attachment_svg_lure": 1.2,
        "attachment_svg_link": 0.2,
        "attachment_calendar_link": 0.1,
    },
    "document": {
        "attachment_macro": 0.5,
        "attachment_macro_autorun": 0.6,
        "attachment_macro_calls": 0.6,
        "attachment_remote": 0.6,
        "attachment_dde": 0.6,
        "attachment_object": 0.6,
        "attachment_pdf_script": 0.2,
        "attachment_pdf_launch": 0.4,
        "attachment_pdf_program": 0.4,
        "attachment_pdf_link_only": 0.3,
    },
}


def _says(text: str) -> Words:
    return Words("7.1", lambda _, detail: text.format(detail))


_OTHERWISE = "; please send it in another way"
_REPLIES = {
    "attachment_refused": _says(f"Files such as {{}} are not accepted here{_OTHERWISE}"),
    "attachment_password_told": _says(
        f"Encrypted files with their password in the message are not accepted here{_OTHERWISE}"
    ),
    "attachment_encrypted": _says(f"Encrypted files such as {{}} are not accepted here{_OTHERWISE}"),
    "attachment_unread": _says(f"The attachment {{}} can't be looked into and is not accepted here{_OTHERWISE}"),
    "attachment_bomb": _says(f"The attachment {{}} is too large unpacked{_OTHERWISE}"),
    **{
        symbol: _says(f"Documents that run something by themselves are not accepted here: {{}}{_OTHERWISE}")
        for symbol in GROUPS["document"]
    },
    **{
        symbol: _says("Attached pages such as {} are not accepted here; please send a PDF or plain text")
        for symbol in GROUPS["page"]
    },
    **{
        symbol: _says(f"Files that open as programs are not accepted here: {{}}{_OTHERWISE}")
        for symbol in GROUPS["program"]
    },
}


@check(
    Stage.EOM,
    content=True,
    body=True,
    scores={
        "attachment_refused": Action.REJECT,
        **{symbol: weight for group in GROUPS.values() for symbol, weight in group.items()},
    },
    meanings={
        "attachment_refused": "A file that [attachments] refuses.",
        "attachment_dangerous": "A file whose name says that it opens as a program.",
        "attachment_executable": "A file whose content is a program, script, shortcut or disk image, whatever its name.",
        "attachment_double_extension": "A dangerous extension behind one of documents, as in invoice.pdf.exe.",
        "attachment_name_hides": "A name that hides its end behind blanks, or by characters that reverse the direction.",
        "attachment_disguised": "The content is of another kind than name and declared type say.",
        "attachment_in_archive": "A dangerous file in an archive.",
        "attachment_encrypted": "An encrypted archive or document.",
        "attachment_password_told": "The same, with its password in the message.",
        "attachment_bomb": "An archive that unpacks to more than 200 times its size.",
        "attachment_unread": "An archive that is damaged, of a kind that is not read, or more than is looked into.",
        "attachment_html": "An attached page.",
        "attachment_html_lure": "An attached page that asks for a password, or leads on at once.",
        "attachment_html_script": "An attached page with scripts.",
        "attachment_html_smuggling": "An attached page that makes a file, or another page, out of what is in it.",
        "attachment_svg_lure": "A picture (SVG) with scripts or pages in it.",
        "attachment_svg_link": "A picture (SVG) that is a link.",
        "attachment_calendar_link": "A calendar entry with a link, and without anybody who is invited.",
        "attachment_macro": "A document with macros.",
        "attachment_macro_autorun": "Macros that start by themselves.",
        "attachment_macro_calls": "Macros that start programs, or fetch something.",
        "attachment_remote": "A document that takes its template, or an object, from elsewhere when it is opened.",
        "attachment_dde": "A document that asks another program for data (DDE).",
        "attachment_object": "A document with a program, or an object of the Equation Editor, in it.",
        "attachment_pdf_script": "A PDF with JavaScript.",
        "attachment_pdf_launch": "A PDF that starts a program, or opens a file elsewhere.",
        "attachment_pdf_program": "A PDF with a program in it.",
        "attachment_pdf_link_only": "A PDF of one page without text that leads to a single site.",
    },
    options=Attachments,
    replies=_REPLIES,
)
def attachments(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Attached files that open as programs, hide their type, are encrypted, or lure to a page."""
    looker = _Looker(tools.options)
    content = mime(tx.message)
    looker.message(content)
    if tx.message.body_cut and not tx.message.out_of_room and not content.parts[0].type.startswith("text/"):
        looker.found.setdefault("unread", "the message: larger than [milter] scan_size")
    if "encrypted" in looker.found:
        told = _told_password(content)
        if told:
            looker.found["password_told"] = told
    for symbol, detail in looker.found.items():
        yield Finding(f"attachment_{symbol}", detail)


class _Looker:
    """Looks at the files of a message; `found` has for each symbol what shows it first."""

    def __init__(self, options: Attachments) -> None:
        self.found: dict[str, str] = {}
        self._options = options
        self._budget = Budget()
        self._work = MAX_WORK

    def _note(self, symbol: str, detail: str) -> None:
        self.found.setdefault(symbol, detail)

    def _may(self, octets: int, shown: str) -> bool:
        """Is there room for that much work?"""
        self._work -= octets
        if self._work < 0:
            self._note("unread", f"{shown}: more than is looked into")
        return self._work >= 0

    def message(self, content: Mime, depth: int = 0) -> None:
        """Every part that is a file; `depth` counts the messages around that are attached as files."""
        for part in content.parts:
            if part.kind in ("preamble", "epilogue"):
                continue
            if not part.is_leaf:
                self._names(part.names)  # what is in it are parts of their own
            elif part.names or _is_file(part):
                self._part(part, depth)
        # Last, since some of it shows only when content is decoded.
        for oddity in content.oddities:
            if oddity.name == "limits":
                self._note("unread", f"the message: more than is looked into ({oddity.detail})")

    def _part(self, part: Part, depth: int) -> None:
        names = part.names
        data = part.data
        kind = file_type(data)
        shown = _short(names[0]) if names else part.type
        self._names(names)
        if names or kind:
            body = part.type == "text/html" and part.disposition != "attachment" and _is_alternative(part)
            self._content(names, kind, data, part.type, shown, page=part.type == "text/html", body=body)
        archive = self._as_archive(names, kind, data)
        if archive:
            self._archive(data, archive, shown)
        if depth < MAX_ATTACHED and any(_last(name) == "eml" for name in names) and self._may(len(data), shown):
            # A message that is attached as a file, not as a message, which would be among the parts.
            inner = message_of(data)
            if inner is not None:
                self.message(mime(inner), depth + 1)

    def _as_archive(self, names: tuple[str, ...], kind: str, data: bytes) -> str:
        """As what archive it is to be read, "" as none.

        A zip may be made to look like something else by its first file; its name tells as what it is opened.
        """
        if kind == "office-zip":
            return "" if _any_ends(names, OFFICE) else "zip"
        if kind == "jar" and _any_ends(names, self._options.dangers):
            return ""  # that it is one says enough
        if kind not in READABLE and _any_ends(names, ("zip",)) and b"PK\5\6" in data:
            return "zip"  # whatever stands before and behind it
        return kind if kind in READABLE else also_archive(data, kind)

    def _names(self, names: tuple[str, ...], path: str = "") -> None:
        # Some programs end a name at a null character, others leave that out.
        for name in (*names, *(name.replace("\0", "") for name in names if "\0" in name)):
            ends = extensions(name)
            last = ends[0] if ends else ""
            shown = f"{_short(name)}{path}"
            if last in self._options.refused:
                self._note("refused", shown)
            if last in self._options.dangers:
                self._note("dangerous", shown)
                if hides_extension(name):
                    self._note("name_hides", shown)
                elif len(ends) > 1 and ends[1] in DOCUMENTS:
                    self._note("double_extension", shown)
            elif "\u202e" in name or "\u202d" in name:
                self._note("name_hides", shown)

    def _content(
        self,
        names: tuple[str, ...],
        kind: str,
        data: bytes,
        declared: str,
        shown: str,
        *,
        page: bool = False,
        body: bool = False,
    ) -> None:
        """What the content says; `page` if it is declared to be one, `body` if it is shown as the message itself."""
        if kind in self._options.refused_types:
            self._note("refused", f"{shown} ({kind})")
        if kind in _PROGRAMS:
            self._note("executable", f"{shown}: {kind}")
        for name in names or ("",):
            pretended = disguised(kind, _last(name), declared)
            if pretended:
                self._note("disguised", f"{shown}: {kind} as {pretended}")
        if kind in _UNREAD:
            self._note("unread", f"{shown}: {kind}")
        elif kind == "svg" or (not kind and (declared == "image/svg+xml" or _any_ends(names, ("svg",)))):
            self._picture(data, shown)
        elif kind == "html" or (not kind and (page or _any_ends(names, PAGES))):
            if not body:
                self._page(data, shown)
        elif kind == "calendar" or (not kind and (declared == "text/calendar" or _any_ends(names, ("ics",)))):
            if b"://" in data[:MAX_PICTURE] and b"ATTENDEE" not in data[:MAX_PICTURE]:
                self._note("calendar_link", shown)
        elif kind in ("office-ole", "office-zip", "rtf", "pdf"):
            self._document(data, kind, shown)

    def _document(self, data: bytes, kind: str, shown: str) -> None:
        if self._may(_DOCUMENT_WORK, shown):
            if kind == "pdf":
                for word, detail in pdf_traits(data).items():
                    self._note(f"pdf_{word}", f"{shown}: {detail}")
            else:
                for word, detail in traits(data, kind).items():
                    self._note(word, f"{shown}: {detail}")

    def _page(self, data: bytes, shown: str) -> None:
        """A page asks for a password, leads on at once, runs scripts, or makes a file of what is in it."""
        self._note("html", shown)
        data = data[:MAX_PICTURE]
        if not self._may(_PAGE_WORK * min(len(data), MAX_PAGE), shown):
            return
        html = read_html(_text(data[:MAX_PAGE]))
        if data[:2] in _UTF_16:
            data = data.replace(b"\0", b"")
        long = len(data) > MAX_PAGE
        if "password" in html.fields or html.refresh or (long and _PASSWORD.search(data)):
            self._note("html_lure", shown)
        if html.scripts or (long and _SCRIPT.search(data)):
            self._note("html_script", shown)
            if _SMUGGLING.search(data[:MAX_SCRIPT]) or _SMUGGLING.search(data[MAX_SCRIPT:][-MAX_SCRIPT:]):
                self._note("html_smuggling", shown)

    def _picture(self, data: bytes, shown: str) -> None:
        """An SVG that runs, or leads anywhere, is a page."""
        data = data[:MAX_PICTURE]
        if not self._may(len(data), shown):
            return
        if data[:2] in _UTF_16:
            data = data.replace(b"\0", b"")
        if _SVG_LURE.search(data):
            self._note("svg_lure", shown)
        if _SVG_LINK.search(data):
            self._note("svg_link", shown)

    def _archive(self, data: bytes, kind: str, outer: str) -> None:
        archive = read_archive(data, self._budget, kind)
        if archive.encrypted:
            self._note("encrypted", outer)
        if archive.ratio > MAX_RATIO and archive.claimed >= MIN_BOMB:
            self._note("bomb", f"{outer}: {archive.ratio:.0f} times its size")
        if archive.cut:
            self._note("unread", f"{outer}: {archive.cut}")
        elif not archive.members and not archive.encrypted and kind != "tnef":  # which may be all text
            self._note("unread", f"{outer}: nothing is found in it")
        few = len(archive.members) <= FEW
        path = f" in {outer}"
        for member in archive.members:
            shown = f"{_short(member.name)}{path}"
            last = _last(member.name)
            if few or last in self._options.refused:
                self._names((member.name,), path)
            if last in self._options.dangers:
                self._note("in_archive", shown)
            if member.type in self._options.refused_types:
                self._note("refused", f"{shown} ({member.type})")
            if few or member.type not in ("script", "html", "svg"):
                self._content((member.name,), member.type, member.content, "", shown)


def _told_password(content: Mime) -> str:
    """The words that announce a password; "" without.  What scanners can't open the recipient is to open at once."""
    for part in content.parts:
        if part.type in ("text/plain", "text/html") and part.disposition != "attachment" and not part.names:
            found = _ANNOUNCED.search(part.html.text if part.html else part.text, 0, MAX_TEXT)
            if found:
                return " ".join(found[0].split())
    return ""


def _is_file(part: Part) -> bool:
    return not part.type.startswith("text/") or part.disposition == "attachment"


def _is_alternative(part: Part) -> bool:
    """Is it the message itself, or one form of it?  Some programs give names to those."""
    return part.parent is None or part.parent.type in ("multipart/alternative", "multipart/related")


def _last(name: str) -> str:
    ends = extensions(name)
    return ends[0] if ends else ""


def _any_ends(names: tuple[str, ...], ends: "frozenset[str] | tuple[str, ...]") -> bool:
    return any(_last(name) in ends for name in names)


def _text(data: bytes) -> str:
    """A page as text, as browsers take it: UTF-16 by its mark, else what has ASCII in it."""
    return data.decode("utf-16", "replace") if data[:2] in _UTF_16 else decode(data, "")


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ANNOUNCED = re.compile(
    r"(?<![a-z])(?:password|passcode|pass(?:wd|phrase)|pwd|passwort|kennwort|mot de passe|contrase\xf1a|clave|senha|wachtwoord"
    r"|has\u0142o|\u043f\u0430\u0440\u043e\u043b\u044c|\u5bc6\u7801|\u30d1\u30b9\u30ef\u30fc\u30c9)"
    r"(?:\s(?:is|ist|lautet|est|es|\xe9)\b|\s?[:=\uff1a])",
    re.IGNORECASE,
)
_SVG_LURE = re.compile(
    rb"<(?:[\w-]{1,20}:)?(?:script|foreignobject|iframe|embed)[\s/>]|[\s\"'/]on[a-z]{4,20}\s*=|javascript:|data:text/html",
    re.IGNORECASE,
)
_SVG_LINK = re.compile(rb"<(?:[\w-]{1,20}:)?a\s[^<>]{0,500}href\s*=\s*[\"']?\s*https?:", re.IGNORECASE)
_PASSWORD = re.compile(rb"type\s*=\s*[\"']?password", re.IGNORECASE)
_SCRIPT = re.compile(rb"<script[\s/>]", re.IGNORECASE)
# What makes a file, or a page, of letters in a script.
_SMUGGLING = re.compile(
    rb"createObjectURL|msSaveOrOpenBlob|msSaveBlob|new\s+Blob\s*\("
    rb"|(?:document\.write(?:ln)?|eval)\s*\(\s*(?:window\.)?(?:atob|unescape|decodeURI)|\batob\s*\(\s*[\"'][A-Za-z0-9+/=]{200}"
    rb"|=\s*[\"']data:(?:application/(?!json|ld|font|x-font)|text/html)"
)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:40]}...{name[-37:]}"
