"""`authmilter manual`: authmilter.conf(5) and the sample configuration."""

import argparse
from pathlib import Path

from authmilter.config.manual import render_manual, render_sample
from authmilter.errors import StartError

FILES = {"authmilter.conf.5": render_manual, "authmilter.ini.sample": render_sample}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--man", action="store_true", help="print authmilter.conf(5) in mdoc(7), for man(1): the default"
    )
    which.add_argument("--sample", action="store_true", help="print the sample configuration")
    which.add_argument("--write", metavar="DIR", type=Path, help=f"write both into DIR, as {' and '.join(FILES)}")


def run(args: argparse.Namespace) -> int:
    """Print, or write files; raises StartError if they can't be written."""
    if args.write is None:
        print(render_sample() if args.sample else render_manual(), end="")
        return 0
    for name, render in FILES.items():
        try:
            (args.write / name).write_text(render(), encoding="utf-8")
        except OSError as error:
            raise StartError(f"{args.write / name}: {error.strerror}") from None
    return 0
