"""Heuristic checks: what one is, what it may use, and where they are found.

A check is a generator of findings in a file of its own under ``checks/``::

    @check(Stage.HELO, scores={"helo_literal": 1.5})
    def helo_literal(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        '''Client greeted with an IP address instead of a host name.'''

It reads facts and results, never what another check of its stage found, so their order is no matter.  (At RCPT and EOM
all that was found at earlier stages is there, and is a fact like others.)  One that must wait is an ``async def`` that
yields; those of a stage run together.  Results of iprev and SPF are complete at RCPT and EOM, those of DKIM and DMARC at
EOM.  The docstring's first line becomes its line in the manual.

What a check wants to remember of a transaction it does not write while it judges, but in a `record`, which runs after
the verdict was given and costs no message any time.
"""

import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from authmilter.config.schema import Config, Weight
from authmilter.evidence import Finding, Result
from authmilter.fitted import FITTED
from authmilter.interfaces import Alarm, Lists, Resolver, Store
from authmilter.model import Direction, Stage, Transaction
from authmilter.verdict import Ruling

CONTENT = "content"  # in [policy] skip: all checks of content
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


class Services(NamedTuple):
    """What the checks of all sessions share."""

    store: Store
    lists: Lists
    alarm: Alarm


class Tools(NamedTuple):
    """What a check may use: no globals, no clock of its own.

    `now` is in seconds since 1970, `options` the check's own section; `config` is for what concerns all, such as our
    domains.  `alarm` tells the administrator, without waiting.
    """

    dns: Resolver
    now: float
    config: Config
    options: Any
    store: Store
    lists: Lists
    alarm: Alarm


class Words(NamedTuple):
    """How a refusal for a symbol reads.

    `detail` is the enhanced status code without its class digit (RFC 3463); `text` makes a sentence of the transaction and
    of the detail of the finding.  `permanent` and `temporary` are the basic codes where they are not the usual ones.
    """

    detail: str
    text: Callable[[Transaction, str], str]
    permanent: int = 0
    temporary: int = 0


class When(IntEnum):
    """When a record is made."""

    VERDICT = 0  # a transaction got its final verdict, or its first recipient that is refused for good
    CLOSE = 1  # the SMTP session is over


Record = Callable[[Transaction, Ruling | None, Tools], Awaitable[None]]


def _always(_: Config) -> bool:
    return True


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING  # hashable, and so fit for a plain default, only since Python 3.12


def _none(_: Config) -> Mapping[str, Weight]:
    return {}


@dataclass(frozen=True, slots=True)
class Check:
    """A check as registered.

    `scores` are the default weights, or actions, of the symbols that it may yield: the fitted ones, where there are such,
    over what the check itself says (`prior`).  `strict` is what the preset strict has in their place.  `dynamic` are
    further symbols, which follow from the configuration, and all begin with `prefix`.
    `waits_for` is the first stage at which policy may refuse for them, if not that of the check.  `unless` tells of one that
    waits by a look at what is known already, such as cached DNS answers, that it has nothing to find; that is the usual
    case, and costs a quarter.  `body`: it reads the body, which is not kept for others.  `content`: one of those that
    judge by their own rules what is in a message, and can be left out together.  `meanings` has a sentence for each
    symbol, where `help` does not say all of several.
    """

    name: str
    stage: Stage
    run: Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]]
    scores: Mapping[str, Weight]
    options: type[Any] | None
    help: str
    waits: bool
    wanted: Callable[[Config], bool] = _always  # is there anything for it to do under this configuration?
    waits_for: Stage | None = None
    direction: Direction = Direction.INBOUND
    strict: Mapping[str, Weight] = field(default_factory=_nothing)
    replies: Mapping[str, Words] = field(default_factory=_nothing)
    prefix: str = ""
    dynamic: Callable[[Config], Mapping[str, Weight]] = _none
    unless: Callable[[Transaction, Tools], bool] | None = None
    body: bool = False
    content: bool = False
    meanings: Mapping[str, str] = field(default_factory=_nothing)
    prior: Mapping[str, Weight] = field(default_factory=_nothing)

    @property
    def judged(self) -> Stage:
        """The first stage at which policy may refuse for its symbols."""
        return self.stage if self.waits_for is None else self.waits_for

    def symbols(self, config: Config) -> Mapping[str, Weight]:
        """Every symbol that it may yield under that configuration, with its default."""
        return {**self.scores, **self.dynamic(config)}

    def enabled(self, config: Config) -> bool:
        """Does it run under that configuration?"""
        skip = config.policy.skip
        if skip and (self.name in skip or (self.content and CONTENT in skip)):
            return False
        return self.wanted(config) and bool(getattr(self.settings(config), "enabled", True))

    def settings(self, config: Config) -> Any:
        """Its options under that configuration, None if it has none."""
        return None if self.options is None else config.of(self.options)


_registry: dict[str, Check] = {}
_records: dict[tuple[str, When], Record] = {}

F = TypeVar("F", bound=Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]])
R = TypeVar("R", bound=Record)


def check(
    stage: Stage,
    *,
    scores: Mapping[str, Weight],
    options: type[Any] | None = None,
    wanted: Callable[[Config], bool] = _always,
    judged: Stage | None = None,
    direction: Direction = Direction.INBOUND,
    strict: Mapping[str, Weight] = _NOTHING,
    replies: Mapping[str, Words] = _NOTHING,
    prefix: str = "",
    dynamic: Callable[[Config], Mapping[str, Weight]] = _none,
    unless: Callable[[Transaction, Tools], bool] | None = None,
    body: bool = False,
    content: bool = False,
    meanings: Mapping[str, str] = _NOTHING,
) -> Callable[[F], F]:
    """Register the decorated generator as a check of that stage.

    The arguments are the fields of `Check`.  `options` is a dataclass whose section of the configuration has the name of
    the check; with its option ``enabled`` the check is off or on.  Under `replies` the prefix stands for all symbols that
    begin with it.

    A weight under `scores` is a judgement for want of data: where the symbol occurs often enough in mail that is known to
    be good or spam, the weight in `fitted.py` takes its place.
    """

    def register(function: F) -> F:
        name = function.__name__
        if name in _registry and _registry[name].run.__module__ != function.__module__:
            raise ValueError(f"two checks are called {name}")
        doc = inspect.getdoc(function) or ""
        _registry[name] = Check(
            name,
            stage,
            function,
            MappingProxyType({symbol: FITTED.get(symbol, weight) for symbol, weight in scores.items()}),
            options,
            doc.partition("\n")[0],
            inspect.isasyncgenfunction(function),
            wanted,
            judged,
            direction,
            strict,
            replies,
            prefix,
            dynamic,
            unless,
            body,
            content,
            meanings,
            scores,
        )
        return function

    return register


def record(of: str, when: When = When.VERDICT) -> Callable[[R], R]:
    """Register the decorated coroutine function as what the check called `of` remembers.

    It runs wherever that check is on, with its options, in both directions.  Its ruling is None at the end of a session.
    """

    def register(function: R) -> R:
        _records[of, when] = function
        return function

    return register


def record_of(check: Check, when: When) -> Record | None:
    """What that check remembers then."""
    return _records.get((check.name, when))


@cache
def _all_words() -> Mapping[str, Words]:
    return {symbol: words for check in all_checks() for symbol, words in check.replies.items()}


@cache
def _prefixes() -> tuple[str, ...]:
    return tuple(check.prefix for check in all_checks() if check.prefix)


def words_for(symbol: str) -> Words | None:
    """How the check that yields the symbol words a refusal; None if it leaves that to us, or there is no such check."""
    words = _all_words().get(symbol)
    if words is None:
        words = next((_all_words().get(prefix) for prefix in _prefixes() if symbol.startswith(prefix)), None)
    return words


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
    checks = all_checks()
    return {
        *method_symbols(),
        *DERIVED,
        *(symbol for c in checks for symbol in c.scores),
        *(f"{c.name}_temperror" for c in checks if c.waits),
    }


def is_dynamic(symbol: str) -> bool:
    """May a configuration have a check yield that symbol?"""
    return symbol.startswith(_prefixes())
