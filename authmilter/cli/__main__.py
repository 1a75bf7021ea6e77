"""`authmilter [-c FILE] VERB ...`.

A verb is a module of this package, named as the verb with ``_`` for ``-``, that has ``arguments(parser)`` and
``run(args) -> int``, the exit status.  Only the module of the verb at hand is imported.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from authmilter import __version__
from authmilter.cli import EX_CONFIG, EX_INTERRUPT, EX_IOERR, EX_PIPE, EX_UNAVAILABLE, EX_USAGE
from authmilter.config.option import suggestion
from authmilter.errors import ConfigError, StartError

VERBS = {
    "run": "the daemon in the foreground",
    "check-config": "show every problem of the configuration",
    "show-config": "show the configuration in force, and where each value was set",
    "check-message": "show what would become of one message",
    "status": "show how the running daemon does",
    "logs": "sum up the log: messages, verdicts, symbols, who was refused",
    "learn": "teach the classifier what spam and good mail look like",
    "evaluate": "measure on stored mail how well spam is told from good mail",
    "state": "list, release, forget or export what is kept across messages",
    "backup": "write configuration, keys and state into one file while the daemon runs",
    "restore": "put back what a backup holds, once all of it is verified",
    "manual": "print authmilter.conf(5) or the sample configuration",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


class _Output(io.FileIO):
    """Standard output, which remembers why it could not be written: an error of it is then known from all others."""

    problem: OSError | None = None

    def write(self, octets: Any, /) -> int:
        try:
            return super().write(octets)
        except OSError as error:
            self.problem = error
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    output = _prepare_streams()
    try:
        try:
            return _command(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EX_INTERRUPT
    except OSError:
        if output is None or output.problem is None:
            raise
        # What is still buffered must not fail again when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        if isinstance(output.problem, BrokenPipeError):  # whoever read us has seen enough
            return EX_PIPE
        print(f"authmilter: standard output: {output.problem.strerror}", file=sys.stderr)
        return EX_IOERR


def _prepare_streams() -> _Output | None:
    """Open what is closed, and have standard output remember its errors; None if it is not that of the process."""
    if sys.stdin is None:  # closed, as what follows may be: there is nothing to read
        sys.stdin = open(os.devnull)  # noqa: SIM115  for as long as the process runs
    stream: object = sys.stdout
    if stream is None:  # closed: nobody wants to read it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process runs
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper):
        return None
    output = _Output(stream.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output), stream.encoding, stream.errors, line_buffering=stream.isatty()
    )
    return output


def _command(words: Sequence[str]) -> int:
    verb = _verb(words)
    if verb is not None and verb not in VERBS:
        print(f"authmilter: unknown verb {verb!r}{suggestion(verb, VERBS)}", file=sys.stderr)
        return EX_USAGE
    parser, args = _parse(words, verb)
    if verb is None:
        parser.print_help(sys.stderr)
        return EX_USAGE
    return _run(verb, args)


def _verb(words: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the value of one."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("-c", "--config"):
            skip = True
        elif not word.startswith("-"):
            return word
    return None


def _parse(words: Sequence[str], verb: str | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = _Parser(
        prog="authmilter",
        description="A milter that authenticates mail, judges it, and signs yours.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="configuration (default: /etc/authmilter/authmilter.ini)"
    )
    parser.add_argument("--version", action="version", version=f"authmilter {__version__}")
    verbs = parser.add_subparsers(metavar="VERB")
    for name, text in VERBS.items():
        own = verbs.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        if name == verb:
            own.add_argument("-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help="configuration")
            _module(name).arguments(own)
    return parser, parser.parse_args(words)


def parser_of(verb: str) -> argparse.ArgumentParser:
    """With the options of that verb alone, for its manual page."""
    parser = _Parser(prog=f"authmilter {verb}")
    _module(verb).arguments(parser)
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(f"authmilter.cli.{verb.replace('-', '_')}")


def _run(verb: str, args: argparse.Namespace) -> int:
    try:
        return int(_module(verb).run(args))
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return EX_CONFIG
    except StartError as error:
        sys.stdout.flush()  # raises OSError if it is standard output that fails, which is then told as that alone
        print(f"authmilter: {error}", file=sys.stderr)
        return EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
