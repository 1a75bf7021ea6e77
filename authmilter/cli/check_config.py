"""`authmilter check-config`: every problem of the configuration, on standard output."""

import argparse

from authmilter.cli import EX_CONFIG
from authmilter.config import ini
from authmilter.errors import ConfigError


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""
    parser.epilog = "Exit status: 0 there is no problem, or only warnings, 78 there are some."


def run(args: argparse.Namespace) -> int:
    """Exit status 78 if there is a problem; warnings are shown, and are none."""
    path = ini.find(args.config)
    try:
        loaded = ini.load_with_origins(path)
    except ConfigError as error:
        print("\n".join(error.problems))
        return EX_CONFIG
    for warning in loaded.warnings:
        print(warning)
    print(f"{path}: no problems" if path else f"{ini.DEFAULT_PATH}: no such file, the built-in defaults hold")
    return 0
