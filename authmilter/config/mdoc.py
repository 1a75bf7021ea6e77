"""Text in mdoc(7), the language of manual pages."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence


def tagged(entries: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """A list of tags, as macros, with lines under each; nothing if there is none."""
    body = [line for tag, text in entries for line in (f".It {tag}", *text)]
    return [".Bl -tag -width Ds", *body, ".El"] if body else []


def paragraphs(text: str) -> Iterator[str]:
    """Text whose paragraphs are parted by empty lines; one whose lines all begin with four blanks is set as it stands."""
    for number, paragraph in enumerate(text.strip("\n").split("\n\n")):
        lines = paragraph.split("\n")
        if is_table(lines):
            yield from literal([line[4:] for line in lines])
        else:
            if number:
                yield ".Pp"
            yield from sentences(paragraph)


def is_table(lines: Sequence[str]) -> bool:
    """Are these lines of a paragraph set as they stand?"""
    return all(line.startswith("    ") for line in lines)


def literal(lines: Sequence[str]) -> list[str]:
    """Lines that are set as they stand."""
    return [".Bd -literal -offset indent", *(escape(line) for line in lines), ".Ed"]


def sentences(text: str) -> Iterator[str]:
    """A line for each sentence, so that the formatter puts the right space between them."""
    for sentence in re.split(r"(?<=[.!?]) +(?=[A-Z])", " ".join(text.split())):
        # Escaped as a whole, since a quotation may go over the end of a line.
        for line in textwrap.wrap(escape(sentence), 78, break_long_words=False, break_on_hyphens=False):
            yield _no_request(line)


def words(form: str) -> str:
    """Arguments of a macro, where a lone bar is a delimiter."""
    return " ".join("|" if word == "|" else quoted(word) for word in form.split())


def quoted(text: str) -> str:
    """Text for within the quotation marks of an argument."""
    return escape(text).replace('"', "\\(dq")


_ROFF = {"\\": "\\e", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti"}


def escape(text: str) -> str:
    """Plain text as mdoc(7) writes it; what stands between backquotes is quoted."""
    text = "".join(_ROFF.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    text = re.sub(r"`([^`]*)`", r"\\(oq\1\\(cq", text).replace("`", "\\(ga")
    text = re.sub(r"(?<!\w)-", r"\\-", text)  # an option or a sign, not a hyphen
    return _no_request(text)


def _no_request(line: str) -> str:
    return f"\\&{line}" if line.startswith(".") else line
