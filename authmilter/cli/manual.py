"""`authmilter manual`: the manual pages, the sample configuration, and the truth table of the presets."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from authmilter import truthtable
from authmilter.cli import pages
from authmilter.cli.__main__ import VERBS, parser_of
from authmilter.config.manual import render_manual, render_sample
from authmilter.errors import StartError


def page() -> str:
    """authmilter.conf(5) with the outcomes of the presets."""
    return render_manual([("Outcomes", truthtable.plain())])


def verb_page(verb: str) -> str:
    """authmilter-VERB(1)."""
    return pages.verb_page(verb, VERBS[verb], parser_of(verb))


FILES: dict[str, Callable[[], str]] = {
    "authmilter.conf.5": page,
    "authmilter.8": partial(pages.daemon_page, VERBS),
    **{f"authmilter-{verb}.1": partial(verb_page, verb) for verb in VERBS if verb != "run"},
    "authmilter.ini.sample": render_sample,
    "truth-table.md": truthtable.markdown,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--man", action="store_true", help="print authmilter.conf(5) in mdoc(7), for man(1): the default"
    )
    which.add_argument("--sample", action="store_true", help="print the sample configuration")
    which.add_argument(
        "--write",
        metavar="DIR",
        type=Path,
        help="write all manual pages, the sample configuration and the table of outcomes into DIR",
    )


def run(args: argparse.Namespace) -> int:
    """Print, or write files; raises StartError if they can't be written."""
    if args.write is None:
        print(render_sample() if args.sample else page(), end="")
        return 0
    for name, render in FILES.items():
        try:
            (args.write / name).write_text(render(), encoding="utf-8")
        except OSError as error:
            raise StartError(f"{args.write / name}: {error.strerror}") from None
    return 0
