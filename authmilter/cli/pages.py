"""authmilter(8), and a page authmilter-VERB(1) for each verb, made from its parser."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from authmilter.cli import EX_CONFIG, EX_IOERR, EX_UNAVAILABLE, EX_USAGE
from authmilter.config.ini import DEFAULT_PATH
from authmilter.config.mdoc import escape, literal, paragraphs, sentences, tagged
from authmilter.state_directory import SYSTEM_DIRECTORY

_DATE = "November 22, 2026"  # of the newest change to this file's own text; options need no date
_HEAD = '.\\" Made by `authmilter manual` from the commands as declared; changes are lost.'

_DAEMON = """A mail filter for Postfix and Sendmail that speaks the milter protocol.  It authenticates inbound mail by SPF, DKIM, ARC and
DMARC, records the results in the header field Authentication-Results, and lets mail through, marks, holds, defers or refuses it by what
it found; it signs outbound mail by DKIM.

`authmilter run` is the daemon.  It stays in the foreground and logs to standard error: a line per message, in which the MTA's
queue id stands.  It needs no configuration; at start it prints the lines for main.cf of Postfix and the .mc file of Sendmail.  The other
commands ask it, or do without it:"""

_SIGNALS = {
    "SIGTERM , SIGINT": "No new connections; open ones are served until they end, or drain_timeout of [milter] is over.",
    "SIGHUP": "Read the configuration again.  A file with mistakes is refused as a whole, and what was in force stays.",
}

_ENVIRONMENT = {
    "STATE_DIRECTORY": f"Where state is kept.  Without it: {SYSTEM_DIRECTORY} for root, ~/.local/state/authmilter for others.",
    "NOTIFY_SOCKET , WATCHDOG_USEC": "A service manager that wants to know how it goes, as in sd_notify(3).",
}

_STATUSES = {
    0: "The daemon ended as it was told, or the command found nothing wrong.",
    1: "The command found something wrong, or nothing of what it was asked for; its page says which, and what other statuses it has.",
    EX_USAGE: "The command line is wrong.",
    EX_UNAVAILABLE: "A socket, the store or the daemon is not to be had.",
    EX_IOERR: "Standard output can't be written: the disk is full, for instance.",
    EX_CONFIG: "The configuration has mistakes; all of them were named.",
}

_START = """authmilter check-config
authmilter check-message --ip 192.0.2.1 --helo mx.example.org \\
    --mail-from alice@example.org --rcpt bob@example.net message.eml
authmilter status"""


def daemon_page(verbs: dict[str, str]) -> str:
    """authmilter(8); `verbs` are all commands, with a line on each."""
    lines = [
        *_head("authmilter", "8"),
        ".Nd SPF, DKIM, DMARC and mail policy for Postfix and Sendmail",
        ".Sh SYNOPSIS",
        ".Nm",
        ".Op Fl c Ar file",
        ".Ar verb ...",
        ".Sh DESCRIPTION",
        *paragraphs(_DAEMON),
        *tagged((f"Cm {verb}", [*sentences(f"{text[0].upper()}{text[1:]}.")]) for verb, text in verbs.items()),
        ".Pp",
        "The options:",
        *tagged(
            [
                ("Fl c Ar file", [*sentences(f"The configuration, instead of {DEFAULT_PATH}.")]),
                ("Fl -version", ["Print the version."]),
                ("Fl h", ["Print how a command is used."]),
            ]
        ),
        ".Ss Signals",
        *tagged((f"Dv {names}", [*sentences(text)]) for names, text in _SIGNALS.items()),
        ".Sh ENVIRONMENT",
        *tagged((f"Ev {names}", [*sentences(text)]) for names, text in _ENVIRONMENT.items()),
        ".Sh FILES",
        *tagged(
            [
                (f"Pa {DEFAULT_PATH}", ["The configuration; without it the defaults hold."]),
                (f"Pa {SYSTEM_DIRECTORY}", ["What is remembered: state.db, and what the classifier learned."]),
            ]
        ),
        ".Sh EXIT STATUS",
        *tagged((f"{status}", [*sentences(text)]) for status, text in _STATUSES.items()),
        ".Sh EXAMPLES",
        *literal(_START.split("\n")),
        ".Sh SEE ALSO",
        *_references(
            [*((f"authmilter-{verb}", "1") for verb in sorted(verbs) if verb != "run"), ("authmilter.conf", "5")]
        ),
    ]
    return "\n".join(lines) + "\n"


def verb_page(verb: str, text: str, parser: argparse.ArgumentParser) -> str:
    """authmilter-VERB(1) of a verb with that line about it and that parser."""
    deeds = _subparsers(parser)
    epilog, status = _split(parser.epilog or "")
    lines = [
        *_head(f"authmilter-{verb}", "1"),
        f".Nd {escape(text)}",
        ".Sh SYNOPSIS",
        *(() if deeds and _required(parser) else _synopsis(verb, parser)),
        *(line for name, own in deeds.items() for line in _synopsis(f"{verb} {name}", own)),
        ".Sh DESCRIPTION",
        *sentences(f"{text[0].upper()}{text[1:]}."),
        *((".Pp", *sentences(epilog)) if epilog else ()),
        *_options(parser),
    ]
    for name, own in deeds.items():
        more, its_status = _split(own.epilog or "")
        lines += [f".Ss {verb} {name}", *sentences(own.description or ""), *sentences(more), *_options(own)]
        status = f"{status} {verb} {name}: {its_status}".strip() if its_status else status
    if status:
        lines += [".Sh EXIT STATUS", *sentences(status)]
    lines += [".Sh SEE ALSO", *_references([("authmilter.conf", "5"), ("authmilter", "8")])]
    return "\n".join(lines) + "\n"


def _head(name: str, section: str) -> list[str]:
    return [_HEAD, f".Dd {_DATE}", f".Dt {name.upper()} {section}", ".Os", ".Sh NAME", f".Nm {name}"]


def _references(pages: Sequence[tuple[str, str]]) -> Iterator[str]:
    for number, (name, section) in enumerate(pages, 1):
        yield f".Xr {name} {section}{' ,' if number < len(pages) else ''}"


def _split(epilog: str) -> tuple[str, str]:
    """What a command's closing words say, and what they say of its exit status."""
    before, _, after = epilog.partition("Exit status:")
    after = after.strip()
    return before.strip(), f"{after[:1].upper()}{after[1:]}"


def _synopsis(words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".Nm authmilter {escape(words)}"
    grouped = [group._group_actions for group in parser._mutually_exclusive_groups]
    seen: set[argparse.Action] = set()
    for action in _actions(parser):
        group = next((group for group in grouped if action in group), [action])
        if action in seen:
            continue
        seen.update(group)
        choice = " | ".join(_form(one) for one in group)
        yield f".{choice}" if action.required and not _may_be_absent(action) else f".Op {choice}"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return tagged((_form(action), [*sentences(_help(action))]) for action in _actions(parser))


def _form(action: argparse.Action) -> str:
    """Its flag and argument, as macros."""
    argument = action.metavar if isinstance(action.metavar, str) else action.dest
    dots = " ..." if action.nargs in ("+", "*") else ""
    if not action.option_strings:
        return f"Ar {escape(argument)}{dots}"
    flag = f"Fl {escape(action.option_strings[0][1:])}"
    return flag if action.nargs == 0 else f"{flag} Ar {escape(argument)}{dots}"


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Options and arguments; not those that all commands have, nor what leads to further commands."""
    return [
        action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction) and action.dest != "config"
    ]


def _may_be_absent(action: argparse.Action) -> bool:
    return not action.option_strings and action.nargs in ("?", "*")


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = _leading(parser)
    return {} if found is None else dict(found.choices)


def _required(parser: argparse.ArgumentParser) -> bool:
    found = _leading(parser)
    return found is not None and found.required


def _leading(parser: argparse.ArgumentParser) -> Any:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action
    return None
