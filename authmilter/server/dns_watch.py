"""Do the nameservers work at all?

That questions fail says little by itself: each may be about a domain whose own servers are silent, and who sends mail may
choose such domains as he likes, and as many as he likes.  Nor does an answer say much: a resolver whose way to the
Internet is cut still has some in its cache, and others that it makes up itself (RFC 6303, RFC 6761).  So when questions
fail in a row, a worker asks one of its own, in whose answer no sender has a say: if that fails as well, and more than is
answered, the nameservers are at fault.  It is asked again until there is an answer, so that the end of the trouble is seen
without mail.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from authmilter.errors import DnsBusyError, DnsTempError
from authmilter.interfaces import Answer

log = logging.getLogger("authmilter.dns")

RDTYPE: Final = "A"
# Failures.  Single ones are of every day; and a question that is asked often is in the resolver's cache when it matters.
IN_A_ROW = 3
AGAIN = 15.0  # seconds from one question of ours to the next, at least


class Asking(Protocol):
    """What a `StubResolver` is here."""

    def ask_anew(self, name: str, rdtype: str) -> Coroutine[Any, Any, Answer]: ...


class Counting(Protocol):
    """What `Metrics` are here."""

    def dns_query(self, rdtype: str, outcome: str, seconds: float) -> None: ...

    def dns_works(self, now: float) -> None: ...

    def dns_down(self, since: float, tried: float) -> None: ...


class DnsWatch:
    """Watches over the nameservers of one resolver, whose `on_query` is `heard`; made on its event loop.

    `name` is what is asked, see [dns] test_name; "" for nothing, and then nothing is found out.
    """

    def __init__(
        self, resolver: Callable[[], Asking], name: str, metrics: Counting, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolver = resolver  # not itself, since it has to be made with `heard`
        self._name = name
        self._metrics = metrics
        self._clock = clock
        self._in_a_row = 0  # failures since the last answer
        self._failed = self._answered = 0  # since the first of those for which our question is asked
        self._rests_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        metrics.dns_down(0.0, 0.0)

    def heard(self, rdtype: str, outcome: str, seconds: float) -> None:
        """A question had that outcome: see `StubResolver`."""
        self._metrics.dns_query(rdtype, outcome, seconds)
        if outcome != "temperror":
            # That there is nothing of a name any resolver can say by itself, and of names that a sender chooses (RFC 6303).
            if outcome == "ok":
                self._in_a_row = 0
                self._answered += 1
            return
        self._in_a_row += 1
        self._failed += 1
        wanted = self._in_a_row >= IN_A_ROW and self._name and not self._closed
        if wanted and self._task is None and self._clock() >= self._rests_until:
            self._failed, self._answered = self._in_a_row, 0
            self._task = asyncio.get_running_loop().create_task(self._ask())
            self._task.add_done_callback(self._ended)

    def close(self) -> None:
        """Watch no longer: these nameservers are not in use any more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def _ask(self) -> None:
        """Ask until there is an answer, or others have theirs."""
        since = 0.0
        while True:
            tried = self._clock()
            try:
                await self._resolver().ask_anew(self._name, RDTYPE)
            except DnsBusyError:
                pass  # our own fault, and it says nothing of them
            except DnsTempError as error:
                if self._answered >= self._failed:
                    break
                if not since:
                    log.warning("the nameservers do not work: questions fail, and one of our own does (%s)", error)
                since = since or tried
                self._metrics.dns_down(since, tried)
            else:
                self._metrics.dns_works(self._clock())
                break
            await asyncio.sleep(AGAIN)
        self._rests_until = self._clock() + AGAIN
        self._metrics.dns_down(0.0, 0.0)
        if since:
            log.info("the nameservers work again")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            log.error("the nameservers could not be watched", exc_info=task.exception())
