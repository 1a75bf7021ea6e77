"""The blocks of a page of contrib/ that are lines for a file, as an operator copies them."""

import configparser
import re
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests.rig.daemon import Configuration


class Block(NamedTuple):
    """Indented lines of a page."""

    heading: str  # the nearest above
    file: str  # absolute path in the first line, a comment; "" if it has none
    text: str  # what follows, without the indentation


def blocks(page: Path) -> list[Block]:
    """All blocks of a page in their order.  A block whose first line names a file begins a new one."""
    found: list[Block] = []
    heading = ""
    lines: list[str] = []

    def end() -> None:
        text = dedent("\n".join(lines)).strip("\n")
        lines.clear()
        if text:
            first, _, rest = text.partition("\n")
            name = re.match(r"[#;] (/\S+?),?(?: .*)?$", first)
            found.append(Block(heading, name[1], rest + "\n") if name else Block(heading, "", text + "\n"))

    for line in page.read_text().splitlines():
        if line.startswith("    ") or (not line and lines):
            # A comment that names a file begins the next block.
            if re.match(r"\s+[#;] /", line):
                end()
            lines.append(line)
            continue
        end()
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
    end()
    return found


def text_for(all_blocks: Iterable[Block], heading: str, file: str) -> str:
    """The one block below `heading` for `file`."""
    (text,) = [b.text for b in all_blocks if b.heading == heading and b.file == file]
    return text


def settings(text: str) -> dict[str, str]:
    """Lines of main.cf: name -> value, continuation lines joined (postconf(5))."""
    joined = re.sub(r"\n[ \t]+", " ", text)
    pairs = [line.partition("=")[::2] for line in joined.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def configuration(text: str) -> dict[str, dict[str, object]]:
    """Lines of authmilter.ini."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    # Lines that continue a value lose their indentation when read.
    return {n: {option: v.replace("\n", "\n\t") for option, v in parser[n].items()} for n in parser.sections()}


def merged(*parts: Configuration) -> dict[str, dict[str, object]]:
    """All sections; of an option that is there more than once the last."""
    whole: dict[str, dict[str, object]] = {}
    for part in parts:
        for section, options in part.items():
            whole[section] = {**whole.get(section, {}), **options}
    return whole
