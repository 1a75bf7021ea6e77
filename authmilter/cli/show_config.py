"""`authmilter show-config`: the configuration in force as INI, with the origin of each value as a comment.

What it prints reads back as the same configuration, but for passwords, which are never shown.
"""

import argparse
from collections.abc import Iterator

from authmilter.config import ini
from authmilter.config.option import kind_of, options_of
from authmilter.policy import PRESETS, THRESHOLDS
from authmilter.verdict import Action

_COLUMN = 48  # where the comments begin
_THRESHOLDS = ("tag", "quarantine", "reject")  # in the order of THRESHOLDS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("--defaults", action="store_true", help="show the built-in defaults, whatever the file says")


def run(args: argparse.Namespace) -> int:
    """Print the configuration; raises ConfigError if there is none to print."""
    path = None if args.defaults else ini.find(args.config)
    print("\n".join(render(ini.load_with_origins(path, check_files=False))))
    return 0


def render(loaded: ini.Loaded) -> Iterator[str]:
    """Lines of an INI file that reads back as `loaded`."""
    config = loaded.config
    for name in ini.SECTIONS:
        yield from _section(loaded, name, getattr(config, name))
        if name == "policy":
            yield from _scores(loaded)
    for recipient, scores in config.recipient_scores.items():
        yield f"[scores {recipient}]"
        for symbol, weight in scores.items():
            yield _line(symbol, _weight(weight), str(loaded.origins.get((f"scores {recipient}", symbol), "default")))
        yield ""
    for kind, named in ini.NAMED_SECTIONS.items():
        for title, values in getattr(config, named.field).items():
            # What is not given in [policy NAME] is inherited, and printing it would end that.
            yield from _section(loaded, f"{kind} {title}", values, getattr(values, "given", None))
    for name, options in config.checks.items():
        yield from _section(loaded, name, options)


def _section(loaded: ini.Loaded, title: str, values: object, only: frozenset[str] | None = None) -> Iterator[str]:
    declared: type = type(values)
    yield f"[{title}]"
    for name, option in options_of(declared).items():
        if only is not None and name not in only:
            continue
        value = getattr(values, name)
        origin = str(loaded.origins.get((title, name), "default"))
        if title == "policy" and name in _THRESHOLDS and name not in loaded.config.policy_set:
            value = THRESHOLDS[loaded.config.policy.preset][_THRESHOLDS.index(name)]
            origin = f"preset {loaded.config.policy.preset}"
        yield _line(name, _without_password(option.write(value)), origin)
    yield ""


def _scores(loaded: ini.Loaded) -> Iterator[str]:
    scores, preset = loaded.config.scores, loaded.config.policy.preset
    yield "[scores]"
    for symbol, weight in scores.items():
        yield _line(symbol, _weight(weight), str(loaded.origins.get(("scores", symbol), "default")))
    for symbol, weight in PRESETS[preset].items():
        if symbol not in scores:
            # As a comment: what [scores] names replaces what is derived from it, so naming it would change things.
            yield _line(f"; {symbol}", _weight(weight), f"preset {preset}")
    yield ""


def _weight(weight: float | Action) -> str:
    return weight.value if isinstance(weight, Action) else kind_of(float).write(weight)


def _line(name: str, text: str, origin: str) -> str:
    return f"{f'{name} = {text}':<{_COLUMN}} ; {origin}"


def _without_password(text: str) -> str:
    """A URL without what stands before its host; any other text as it is."""
    scheme, mark, rest = text.partition("://")
    return f"{scheme}://********@{rest.rpartition('@')[2]}" if mark and "@" in rest else text
