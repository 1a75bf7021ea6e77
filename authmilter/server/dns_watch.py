"""Does any nameserver answer at all?

That questions fail says little by itself: each may be about a domain whose own servers are silent, and who sends mail may
choose such domains as he likes, as many as he likes.  So while questions fail and none is answered, a worker asks one of
its own, whose answer is in nobody's hand but the nameservers' and the root's; if that fails as well, they are at fault.
It is asked again until there is an answer, so that the end of the trouble is seen without mail.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from authmilter.errors import DnsBusyError, DnsTempError
from authmilter.interfaces import Answer

log = logging.getLogger("authmilter.dns")

# No sender has a say in the answer, which is that there is no such record; and hardly anybody asks, so that a resolver has to
# ask the servers of com itself.  The root would be nobody's too, but some resolvers keep a copy of it (RFC 8806), and so
# have an answer though their way to the Internet is cut.
QUESTION: Final = ("com", "A")
FRESH = 10.0  # seconds for which an answer shows that nameservers answer
AGAIN = 15.0  # seconds from one question of ours to the next


class Asking(Protocol):
    """What a `StubResolver` is here."""

    def ask_anew(self, name: str, rdtype: str) -> Coroutine[Any, Any, Answer]: ...


class Counting(Protocol):
    """What `Metrics` are here."""

    def dns_query(self, rdtype: str, outcome: str, seconds: float) -> None: ...

    def dns_answered(self, now: float) -> None: ...

    def dns_down(self, since: float, tried: float) -> None: ...


class DnsWatch:
    """Watches over the nameservers of one resolver, whose `on_query` is `heard`; made on its event loop."""

    def __init__(
        self, resolver: Callable[[], Asking], metrics: Counting, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolver = resolver  # not itself, since it has to be made with `heard`
        self._metrics = metrics
        self._clock = clock
        self._answered = 0.0
        self._down = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        metrics.dns_down(0.0, 0.0)

    def heard(self, rdtype: str, outcome: str, seconds: float) -> None:
        """A question had that outcome: see `StubResolver`."""
        self._metrics.dns_query(rdtype, outcome, seconds)
        if self._closed:
            return
        if outcome != "temperror":
            self._answered = self._clock()
            self._metrics.dns_answered(self._answered)
            if self._down:
                self._down = False
                self._metrics.dns_down(0.0, 0.0)
                log.info("nameservers answer again")
        elif self._task is None and self._clock() - self._answered > FRESH:
            self._task = asyncio.get_running_loop().create_task(self._ask_until_answered())
            self._task.add_done_callback(self._ended)

    def close(self) -> None:
        """Watch no longer: these nameservers are not in use any more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def _ask_until_answered(self) -> None:
        since = 0.0
        while True:
            tried = self._clock()
            try:
                await self._resolver().ask_anew(*QUESTION)
            except DnsBusyError:
                pass  # our own fault, and it says nothing of them
            except DnsTempError as error:
                if self._answered < tried:
                    since = since or tried
                    if not self._down:
                        log.warning(
                            "no nameserver answers, a question of our own (%s) is among those that failed", error
                        )
                    self._down = True
                    self._metrics.dns_down(since, tried)
            else:
                return
            await asyncio.sleep(AGAIN)
            if self._answered > tried:
                return

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            log.error("the nameservers could not be watched", exc_info=task.exception())
