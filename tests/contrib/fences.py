"""The fenced blocks of a page, so that tests run what the page shows."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from authmilter.config.manual import render_sample
from tests.shared import ROOT

DOCS = ROOT / "contrib" / "docs"


class Fence(NamedTuple):
    """A block between lines of three backticks."""

    heading: str  # the nearest above
    kind: str  # what stands behind the opening backticks, such as `sh` or `ini authmilter.ini`
    text: str


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a page, in their order."""
    found: list[Fence] = []
    heading, kind = "", ""
    lines: list[str] | None = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if lines is not None:
            if line == "```":
                found.append(Fence(heading, kind, "".join(f"{one}\n" for one in lines)))
                lines = None
            else:
                lines.append(line)
        elif line.startswith("```"):
            kind, lines = line[3:].strip(), []
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert lines is None, f"{page.name}: a block does not end"
    return found


def of_kind(page: Path, kind: str) -> str:
    """The one block of that kind."""
    (text,) = (fence.text for fence in fences(page) if fence.kind == kind)
    return text


def options_named(text: str) -> set[tuple[str, str]]:
    """Every `[section] option` in backticks; "" for the option where there is none."""
    found = re.findall(r"`\[([a-z_]+(?:\s[^\]`]+)?)\](?:\s([a-z_]+)\b)?[^`]*`", text)
    return {(re.split(r"\s", name)[0], option) for name, option in found}


@cache
def options_known() -> frozenset[tuple[str, str]]:
    """The same of all that a configuration may have."""
    known: set[tuple[str, str]] = set()
    section = ""
    for line in render_sample().splitlines():
        if head := re.match(r";?\[([a-z_]+)", line):
            section = head[1]
            known.add((section, ""))
        elif option := re.match(r";([a-z_0-9]+) =", line):
            known.add((section, option[1]))
    return frozenset(known)
