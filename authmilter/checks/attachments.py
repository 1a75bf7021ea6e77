"""Attached files that are dangerous, or pretend to be something else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from authmilter.archives import READABLE, ZIPS, read_archive
from authmilter.check import Tools, Words, check
from authmilter.config.option import Names, option
from authmilter.evidence import Finding
from authmilter.filetype import DANGEROUS, DOCUMENTS, disguised, extensions, file_type
from authmilter.html_text import Html, read_html
from authmilter.mime import Part, mime
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action

MAX_ARCHIVES = 5  # of a message
MAX_RATIO = 200.0  # what a zip claims to hold, in sizes of its own; text comes to 20
MAX_LURE = 1024 * 1024  # octets of a file that are read as HTML, SVG or calendar


def extension(text: str) -> str:
    """Normal form of an extension: lower case, without its dot; raises ValueError with a message for people."""
    word = text.lower().removeprefix("*").removeprefix(".")
    if not word or not re.fullmatch(r"[\w-]{1,20}", word):
        raise ValueError(f"{text[:60]!r} is not an extension such as exe")
    return word


@dataclass(frozen=True)
class Attachments:
    """Files that come with a message, by name, by declared type and by content.

    The names that count are all that some mail reader would show, without the marks and blanks that hide their end, and
    those of files in zip, tar, gzip, bzip2 and xz archives, archives in archives included.
    """

    enabled: bool = option(True, "Look at attached files.")
    reject: Names = option((), "Extensions that are refused, such as exe, iso: 550 5.7.1.", each=extension)
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


def _words(_: Transaction, detail: str) -> str:
    return f"Files such as {detail} are not accepted here; please send it in another way"


@check(
    Stage.EOM,
    body=True,
    scores={
        "attachment_refused": Action.REJECT,
        "attachment_dangerous": 2.0,
        "attachment_executable": 1.0,
        "attachment_double_extension": 1.0,
        "attachment_disguised": 1.0,
        "attachment_encrypted": 0.5,
        "attachment_in_archive": 0.5,
        "attachment_bomb": 1.0,
        "attachment_unread": 0.2,
        "attachment_macro": 0.5,
        "attachment_html": 0.3,
        "attachment_html_lure": 1.5,
        "attachment_svg_lure": 1.5,
        "attachment_calendar_link": 0.1,
    },
    options=Attachments,
    replies={"attachment_refused": Words("7.1", _words)},
)
def attachments(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Attached files that open as programs, hide their type, are encrypted, or lure to a page."""
    found: dict[str, Finding] = {}
    archives = 0
    for part in mime(tx.message).parts:
        if not part.is_leaf or part.kind in ("preamble", "epilogue"):
            continue
        names = part.names
        if not names and part.type.startswith("text/") and part.disposition != "attachment":
            continue
        kind = file_type(part.data)
        for finding in _of_names(names, tools.options):
            found.setdefault(finding.symbol, finding)
        for finding in _of_content(part, names, kind):
            found.setdefault(finding.symbol, finding)
        if kind in READABLE and archives < MAX_ARCHIVES:
            archives += 1
            for finding in _of_archive(part, kind, tools.options):
                found.setdefault(finding.symbol, finding)
    yield from found.values()


def _of_names(names: tuple[str, ...], options: Attachments) -> Iterator[Finding]:
    for name in names:
        ends = extensions(name)
        if not ends:
            continue
        if ends[0] in options.refused:
            yield Finding("attachment_refused", _short(name))
        if ends[0] in options.dangers:
            yield Finding("attachment_dangerous", _short(name))
            if len(ends) > 1 and ends[1] in DOCUMENTS:
                yield Finding("attachment_double_extension", _short(name))


def _of_content(part: Part, names: tuple[str, ...], kind: str) -> Iterator[Finding]:
    shown = _short(names[0]) if names else part.type
    if kind in ("executable", "shortcut"):
        yield Finding("attachment_executable", f"{shown}: {kind}")
    for name in names or ("",):
        pretended = disguised(kind, (extensions(name) or ("",))[0], part.type)
        if pretended:
            yield Finding("attachment_disguised", f"{shown}: {kind} as {pretended}")
    if kind in ("rar", "7z", "cabinet"):
        yield Finding("attachment_unread", f"{shown}: {kind}")
    if kind == "html" or (part.type == "text/html" and names):
        yield Finding("attachment_html", shown)
        html = part.html or read_html(part.data[:MAX_LURE].decode("latin-1"))
        if _is_lure(html):
            yield Finding("attachment_html_lure", shown)
    elif kind == "svg" and _SVG_LURE.search(part.data, 0, MAX_LURE):
        yield Finding("attachment_svg_lure", shown)
    elif (kind == "calendar" or part.type == "text/calendar") and b"://" in part.data[:MAX_LURE]:
        yield Finding("attachment_calendar_link", shown)


# An SVG is a picture; one that runs or leads anywhere is a page.
_SVG_LURE = re.compile(
    rb"<script|<foreignobject|\son(?:load|click|mouse)[a-z]*\s*=|javascript:|xlink:href\s*=\s*[\"']https?:|<a\s",
    re.IGNORECASE,
)


def _is_lure(html: Html) -> bool:
    """A page that asks for a password, runs scripts, or leads on at once."""
    return "password" in html.fields or html.scripts > 0 or bool(html.refresh)


def _of_archive(part: Part, kind: str, options: Attachments) -> Iterator[Finding]:
    archive = read_archive(part.data)
    outer = _short(part.names[0]) if part.names else part.type
    if archive.encrypted:
        yield Finding("attachment_encrypted", outer)
    if archive.ratio > MAX_RATIO or archive.cut:
        yield Finding("attachment_bomb", f"{outer}: {archive.cut or f'{archive.ratio:.0f} times its size'}")
    for member in archive.members:
        if kind == "office-zip":
            if member.name.endswith("vbaProject.bin"):
                yield Finding("attachment_macro", outer)
            continue
        if kind == "jar":
            continue  # that it is one says enough
        yield from _of_names((member.name,), options)
        ends = extensions(member.name)
        shown = f"{_short(member.name)} in {outer}"
        if ends and ends[0] in options.dangers:
            yield Finding("attachment_in_archive", shown)
        if member.type in ("executable", "shortcut"):
            yield Finding("attachment_executable", f"{shown}: {member.type}")
            pretended = disguised(member.type, ends[0] if ends else "", "")
            if pretended:
                yield Finding("attachment_disguised", f"{shown}: {member.type} as {pretended}")
        if member.type in ZIPS and member.encrypted:
            yield Finding("attachment_encrypted", shown)


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:40]}...{name[-37:]}"
