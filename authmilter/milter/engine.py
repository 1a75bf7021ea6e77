"""What both engines have: their settings, and the connections that are open."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from authmilter.milter import Session
from authmilter.model import HeaderField, Stage
from authmilter.verdict import Action, Reply, Verdict

C = TypeVar("C")

TOO_BUSY: Final = Reply(421, "4.3.2", "Too busy, try again later")  # RFC 3463 section 3.4: not accepting messages now


def nothing() -> None:
    """What is called where nobody wants to be told."""


class Bounds(NamedTuple):
    """How many milter connections there may be.

    `served` at once; more wait until one of those ends, up to `waiting` (with libmilter none); what is beyond gets `reply`
    to its first command.
    """

    served: int = 1000
    waiting: int = 1000
    reply: Reply = TOO_BUSY


class Refusal:
    """A `Session` that has one reply to everything.

    Mail must not pass unseen because there is much of it: forged Authentication-Results would pass with it.
    """

    def __init__(self, reply: Reply) -> None:
        self._verdict = Verdict(Action.TEMPFAIL, reply)

    def answering(self) -> frozenset[Stage]:
        return frozenset(Stage)

    async def connect(self, *_: object) -> Verdict:
        return self._verdict

    helo = mail = rcpt = data = end_of_headers = end_of_message = connect

    def headers(self, fields: Sequence[HeaderField]) -> None:
        pass

    def header_cut(self, name: bytes, octets: int) -> None:
        pass

    def body(self, chunk: bytes) -> bool:  # noqa: ARG002  nothing of it is wanted
        return False

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class Engine(Generic[C]):
    """Serves milter connections for sessions on the running event loop; one per worker.

    `new_session` is called for each milter connection, and again when the MTA starts another SMTP session on it.
    `idle_timeout`: seconds without a word from the MTA after which a connection is closed.  `on_error`: ``tempfail``
    or ``accept``, the answer when a session raises.  `progress_interval`: seconds between signs of life while the
    verdict on a message takes its time.  `on_open` and `on_close` are told of every milter connection, `on_failure` of
    every exception that nobody expected, `on_overload` of every connection that is refused.  What is set later holds for
    connections that begin then.

    """

    def __init__(
        self,
        new_session: Callable[[], Session],
        *,
        idle_timeout: float,
        on_error: str,
        bounds: Bounds = Bounds(),  # noqa: B008  nobody changes it
        progress_interval: float = 10.0,
        on_open: Callable[[], None] = nothing,
        on_close: Callable[[], None] = nothing,
        on_failure: Callable[[], None] = nothing,
        on_overload: Callable[[], None] = nothing,
    ) -> None:
        self.new_session = new_session
        self.idle_timeout = idle_timeout
        self.on_error = on_error
        self.bounds = bounds
        self.progress_interval = progress_interval
        self._on_open = on_open
        self._on_close = on_close
        self.on_failure = on_failure
        self._on_overload = on_overload
        self._connections: set[C] = set()
        self._empty = asyncio.Event()

    @property
    def active(self) -> int:
        """Open milter connections."""
        return len(self._connections)

    def set_bounds(self, bounds: Bounds) -> None:
        """Set new bounds; who is served goes on."""
        self.bounds = bounds

    def refused(self) -> None:
        """A connection is one too many."""
        self._on_overload()

    def refuse(self) -> Session:
        """The session of such a connection."""
        return Refusal(self.bounds.reply)

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
