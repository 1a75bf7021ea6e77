"""What a conformance suite is, and how its cases are judged."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Explained(NamedTuple):
    """Why our answer is not the one of the suite: the answer that it must be, and the reason with its RFC section."""

    answer: str
    reason: str


class Case(NamedTuple):
    """One case: `expected` are the answers that the suite allows, `ask` gives ours.

    Where `explained` is set, its answer must be given and no other, be it one that the suite allows: an explanation
    that is no longer needed is a mistake as well.
    """

    name: str
    expected: tuple[str, ...]
    ask: Callable[[], Awaitable[str]]
    explained: Explained | None = None

    async def judge(self) -> str:
        """ "" if the answer is right, else what is wrong with it."""
        answer = await self.ask()
        wanted = (self.explained.answer,) if self.explained else self.expected
        return "" if answer in wanted else f"{self.name}: {answer}, expected {' or '.join(wanted)}"


class Suite(NamedTuple):
    """A suite: `folder` in the shared data that it needs, `size` how many cases there
    are to be."""

    name: str
    folder: str
    size: int
    load: Callable[[], Iterable[Case]]


@dataclass
class Tally:
    """A line of the table."""

    suite: Suite
    passed: int = 0
    explained: list[Case] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many cases were judged."""
        return self.passed + len(self.explained) + len(self.failed)

    @property
    def complete(self) -> bool:
        """Every case was there, and right or explained."""
        return not self.failed and self.cases == self.suite.size


async def run(suite: Suite) -> Tally:
    """Judge every case of a suite; an exception is a failure like any other."""
    tally = Tally(suite)
    for case in suite.load():
        try:
            problem = await case.judge()
        except Exception as error:
            problem = f"{case.name}: {type(error).__name__}: {error}"
        if problem:
            tally.failed.append(problem)
        elif case.explained:
            tally.explained.append(case)
        else:
            tally.passed += 1
    return tally
