#!/usr/bin/python3
"""Installs what packages have beside the daemon: pages, examples, and the plugin for Nagios.

packaging/documentation.py DESTDIR

Pages of the checkout link to each other by relative paths.  In the package the same links lead to where the files are then;
those to what is not installed, such as the source, become plain text.  Nothing here needs more than Python.
"""

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOC = Path("usr/share/doc/authmilter")
PLUGIN = "contrib/nagios/check_authmilter"
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def places() -> dict[str, Path]:
    """Path in the checkout -> path on the machine, without the first slash."""
    found = {
        name: DOC / Path(name).name for name in ("README.md", "packaging/CHANGELOG.md", "packaging/truth-table.md")
    }
    found["packaging/authmilter.ini.sample"] = DOC / "authmilter.ini.sample"
    for path in sorted((ROOT / "contrib").rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        kind, *rest = path.relative_to(ROOT / "contrib").parts
        if not path.is_file() or path.suffix in (".py", ".pyc"):  # what makes a page is of use in a checkout alone
            continue
        # Debian policy, section 12.6: files to copy from are below `examples`, and no program reads them there.
        found[name] = DOC.joinpath("docs", *rest) if kind == "docs" else DOC.joinpath("examples", kind, *rest)
    found[PLUGIN] = Path("usr/lib/nagios/plugins", Path(PLUGIN).name)
    return found


def relinked(text: str, name: str, installed: dict[str, Path]) -> str:
    """The page of that path in the checkout, with the links that it has on the machine."""

    def link(match: re.Match[str]) -> str:
        words, target, fragment = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        there = installed.get(os.path.normpath(os.path.join(os.path.dirname(name), target)))
        return f"[{words}]({os.path.relpath(there, installed[name].parent)}{fragment})" if there else words

    return LINK.sub(link, text)


def install(destination: Path) -> None:
    """All files, with the modes that they have there."""
    installed = places()
    for name, place in installed.items():
        target = destination / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(relinked((ROOT / name).read_text("utf-8"), name, installed), "utf-8")
        else:
            shutil.copyfile(ROOT / name, target)
        target.chmod(0o755 if name == PLUGIN else 0o644)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: packaging/documentation.py DESTDIR")
    install(Path(sys.argv[1]))
