"""Heuristic checks: what one is, what it may use, and where they are found.

A check is a generator of findings in a file of its own under ``checks/``::

    @check(Stage.HELO, scores={"helo_literal": 1.5})
    def helo_literal(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        '''Client greeted with an IP address instead of a host name.'''

It reads facts and results, never another check's findings, so their order is no matter.  One that must wait is an
``async def`` that yields; those of a stage run together.  Results of iprev and SPF are complete at RCPT and EOM, those
of DKIM and DMARC at EOM.  The docstring's first line becomes its line in the manual.
"""

import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from authmilter.config.schema import Config
from authmilter.evidence import Finding, Result
from authmilter.interfaces import Resolver
from authmilter.model import Stage, Transaction

METHODS = ("iprev", "spf_helo", "spf", "dkim", "arc", "dmarc")

# Symbols that policy derives from several results at the end of the message; see policy.py.
DERIVED = {
    "spf_fail_no_dmarc_pass": "SPF says fail, and DMARC does not pass by DKIM.",
    "dmarc_fail_none": "DMARC fails, the domain asks for nothing (p=none).",
    "dmarc_fail_quarantine": "DMARC fails, the domain asks for quarantine.",
    "dmarc_fail_reject": "DMARC fails, the domain asks for reject, and nothing else speaks against the message.",
    "dmarc_fail_reject_corroborated": "DMARC fails, the domain asks for reject, and SPF fails, the client has no "
    "confirmed name, it is on a list, or the score is over `tag`.",
    "spf_fail_excused": "SPF fails, and [forwarders] explains it.",
    "dmarc_fail_excused": "DMARC fails, and [forwarders] or a trusted ARC sealer explains it.",
    "from_mismatch": "An authenticated user wrote a From that [submission] does not grant.",
}


class Tools(NamedTuple):
    """What a check may use: no globals, no clock of its own.

    `now` is in seconds since 1970, `options` the check's own section; `config` is for what concerns all, such as our domains.
    """

    dns: Resolver
    now: float
    config: Config
    options: Any = None


@dataclass(frozen=True, slots=True)
class Check:
    """A check as registered.  `scores` are the default weights of the symbols that it may yield."""

    name: str
    stage: Stage
    run: Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]]
    scores: Mapping[str, float]
    options: type[Any] | None
    help: str
    waits: bool
    wanted: Callable[[Config], bool] = lambda _: True  # is there anything for it to do under this configuration?


_registry: dict[str, Check] = {}

F = TypeVar("F", bound=Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]])


def check(
    stage: Stage,
    *,
    scores: Mapping[str, float],
    options: type[Any] | None = None,
    wanted: Callable[[Config], bool] = lambda _: True,
) -> Callable[[F], F]:
    """Register the decorated generator as a check of that stage."""

    def register(function: F) -> F:
        name = function.__name__
        if name in _registry and _registry[name].run.__module__ != function.__module__:
            raise ValueError(f"two checks are called {name}")
        doc = inspect.getdoc(function) or ""
        _registry[name] = Check(
            name,
            stage,
            function,
            MappingProxyType(dict(scores)),
            options,
            doc.partition("\n")[0],
            inspect.isasyncgenfunction(function),
            wanted,
        )
        return function

    return register


@cache
def all_checks() -> tuple[Check, ...]:
    """Every check under ``checks/``, by stage and name."""
    package = importlib.import_module("authmilter.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"authmilter.checks.{module.name}")
    return tuple(sorted(_registry.values(), key=lambda c: (c.stage, c.name)))


def options_sections() -> Mapping[str, type[Any]]:
    """Configuration section -> options dataclass, of the checks that have options."""
    return {c.name: c.options for c in all_checks() if c.options is not None}


def method_symbols() -> Mapping[str, Stage]:
    """``<method>_<result>`` -> the stage at which policy can act on it."""
    return {
        f"{method}_{result.value}": Stage.EOM if method in ("dkim", "arc", "dmarc") else Stage.MAIL
        for method in METHODS
        for result in Result
    }


def known_symbols() -> Collection[str]:
    """Every symbol that [scores] may weigh."""
    return {*method_symbols(), *DERIVED, *(symbol for c in all_checks() for symbol in c.scores)}
