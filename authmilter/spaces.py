"""The kinds of state that checks keep.

A check declares them as constants of its module, `interfaces.Space`; there is no other list of them.
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType

from authmilter.check import Check, all_checks
from authmilter.interfaces import Space


def spaces() -> Mapping[str, Space]:
    """Every space of a check by its name, in alphabetical order.

    Raises ValueError if two checks declared the same name, since each would take what the other keeps for its own.
    """
    all_checks()  # imports their modules
    found: dict[str, Space] = {}
    for name, module in sorted(sys.modules.items()):
        if not name.startswith("authmilter.checks."):
            continue
        for value in vars(module).values():
            # A check that reads what another one keeps imports its constant: the same object.
            if isinstance(value, Space) and found.setdefault(value.name, value) is not value:
                raise ValueError(f"two checks keep a space called {value.name}")
    return MappingProxyType(dict(sorted(found.items())))


def keeps_state(check: Check) -> bool:
    """Does the check keep state, or read that of another?"""
    return any(isinstance(value, Space) for value in vars(sys.modules[check.run.__module__]).values())
