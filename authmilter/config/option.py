"""Options: how one is declared, and how each kind of value is read and written.

An option is a dataclass field made by `option()`; the field's annotation decides how its text is read:
``bool int str Seconds Size FilePath Mode Workers Threshold Names Networks`` or a Literal of words.
"""

from dataclasses import field
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NewType

Seconds = NewType("Seconds", float)  # written 500ms 5s 10m 36h 30d
Size = NewType("Size", int)  # octets, written 64K 25M
FilePath = NewType("FilePath", str)  # "" is none
Mode = NewType("Mode", int)  # file mode, written in octal: 0660
Workers = NewType("Workers", int)  # a number of processes; `auto` reads as 0
Threshold = float | None  # a score; empty is None: off
Names = tuple[str, ...]  # by comma or line
Networks = tuple[IPv4Network | IPv6Network, ...]  # by comma or line


def option(
    default: Any,
    help: str,  # noqa: A002  the word of argparse and of every manual
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    reload: bool = True,
) -> Any:
    """Declare an option: default, one sentence for sample and manual, bounds, and whether SIGHUP is enough."""
    return field(
        default=default,
        metadata={"help": help, "at_least": at_least, "at_most": at_most, "reload": reload},
    )
