"""What both engines have: their settings, and the connections that are open."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from authmilter.milter import Session

C = TypeVar("C")


def nothing() -> None:
    """What is called where nobody wants to be told."""


class Engine(Generic[C]):
    """Serves milter connections for sessions on the running event loop; one per worker.

    `new_session` is called for each milter connection, and again when the MTA starts another SMTP session on it.
    `idle_timeout`: seconds without a word from the MTA after which a connection is closed.  `on_error`: ``tempfail``
    or ``accept``, the answer when a session raises.  `progress_interval`: seconds between signs of life while the
    verdict on a message takes its time.  `on_open` and `on_close` are told of every milter connection, `on_failure` of
    every exception that nobody expected.  What is set later holds for connections that begin then.
    """

    def __init__(
        self,
        new_session: Callable[[], Session],
        *,
        idle_timeout: float,
        on_error: str,
        progress_interval: float = 10.0,
        on_open: Callable[[], None] = nothing,
        on_close: Callable[[], None] = nothing,
        on_failure: Callable[[], None] = nothing,
    ) -> None:
        self.new_session = new_session
        self.idle_timeout = idle_timeout
        self.on_error = on_error
        self.progress_interval = progress_interval
        self._on_open = on_open
        self._on_close = on_close
        self.on_failure = on_failure
        self._connections: set[C] = set()
        self._empty = asyncio.Event()

    @property
    def active(self) -> int:
        """Open milter connections."""
        return len(self._connections)

    def opened(self, connection: C) -> None:
        """A connection begins."""
        self._connections.add(connection)
        self._on_open()

    def closed(self, connection: C) -> None:
        """A connection and its session have ended."""
        self._connections.discard(connection)
        self._on_close()
        if not self._connections:
            self._empty.set()

    async def _until_empty(self, timeout: float) -> int:  # noqa: ASYNC109  its callers have nothing to cancel
        """Wait up to `timeout` seconds for the connections to end; returns how many are left."""
        if self._connections:
            self._empty.clear()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout)
            except TimeoutError:
                pass
        return len(self._connections)
