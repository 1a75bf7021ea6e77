"""Lines of an INI file to sections and options, each with its line number.

The grammar is that of `configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))`, and the tests
compare the two.  configparser itself stops at the first problem and knows no line numbers of values, so that it could
not say all problems at once.  Where it would drop text in silence (behind the bracket of a section) this reports it,
and [DEFAULT] is a section like any other.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from authmilter.config.option import shown

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Entry(NamedTuple):
    """An option as written: lower-case name, and its value with the lines joined by LF."""

    line: int
    name: str
    text: str


@dataclass
class Section:
    """A section as written."""

    line: int
    title: str
    entries: list[Entry] = field(default_factory=list)


class Problem(NamedTuple):
    """Something that can't be read."""

    line: int
    section: str
    message: str


def scan(text: str) -> tuple[list[Section], list[Problem]]:
    """Every section in the order of the file, and every line that makes no sense.

    A section or option that comes twice comes twice in the result; line ends may be LF, CRLF or CR.
    """
    sections: list[Section] = []
    problems: list[Problem] = []
    indent = 0
    name = ""  # of the option that an indented line continues; "" for none
    value: list[str] = []
    start = 0

    def finish() -> None:
        if name and sections:
            sections[-1].entries.append(Entry(start, name, "\n".join(value).rstrip()))

    def problem(message: str) -> None:
        problems.append(Problem(number, sections[-1].title if sections else "", message))

    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if bad := _CONTROL.search(line):
            problem(f"control character {shown(bad[0])}")
            continue
        content = _without_comment(line).strip()
        if not content:
            if not line.strip():
                value.append("")  # configparser keeps blank lines inside a value, though not comments
            continue
        deeper = len(line) - len(line.lstrip()) > indent
        if name and deeper:
            value.append(content)
            continue
        indent = len(line) - len(line.lstrip())
        finish()
        name = ""
        if content.startswith("[") and content.find("]", 2) > 0:
            title, rest = content[1:].rsplit("]", 1)
            sections.append(Section(number, title.strip()))
            if rest.strip():
                problem(f"{shown(rest.strip())} behind the section; a comment there begins with ';'")
            continue
        name, value, start = _option(content), [_value(content)], number
        if not name:
            problem(f"{shown(content)} is neither [section] nor option = value")
        elif not sections:
            problem(f"option {shown(name)} stands before any section")
    finish()
    return sections, problems


def _without_comment(line: str) -> str:
    """The line up to a ``;`` at its begin or after white space; "" if ``#`` or ``;`` is the first thing in it."""
    if line.lstrip().startswith(("#", ";")):
        return ""
    position = line.find(";")
    while position > 0 and not line[position - 1].isspace():
        position = line.find(";", position + 1)
    return line if position < 0 else line[:position]


def _delimiter(content: str) -> int:
    found = [position for position in (content.find("="), content.find(":")) if position >= 0]
    return min(found, default=-1)


def _option(content: str) -> str:
    return content[: max(_delimiter(content), 0)].strip().lower()


def _value(content: str) -> str:
    return content[_delimiter(content) + 1 :].strip()
