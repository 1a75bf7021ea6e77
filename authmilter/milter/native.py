"""The engine of our own: the milter protocol on an asyncio event loop, uvloop's for preference.

What arrives is dealt with where it arrives, without a task, unless the session has to wait for something.  Replies are
gathered and leave in one write when what was read is dealt with: two small writes in a row would wait for each other
over TCP (Nagle's algorithm against delayed acknowledgement, 44 ms).
"""

import asyncio
import inspect
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, cast

from authmilter import eager
from authmilter.milter import Session, wire
from authmilter.milter.dialogue import Dialogue
from authmilter.milter.engine import Bounds, Engine
from authmilter.milter.macros import Macros
from authmilter.milter.turns import FREE, Turns, client_key
from authmilter.model import Stage
from authmilter.verdict import Verdict

_log: Final = logging.getLogger("authmilter.milter")

_MORE: Final = 100  # connections beyond all places that are told so
_QUEUE: Final = 256 * 1024  # octets that wait for a busy session before the MTA is held up


class NativeEngine(Engine["_Connection"]):
    """The engine of our own; `backlog`: connections that may wait to be accepted."""

    def __init__(self, new_session: Callable[[], Session], *, backlog: int = 512, **settings: Any) -> None:
        super().__init__(new_session, **settings)
        self.draining = False
        self._backlog = backlog
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self.time: Callable[[], float] = time.monotonic
        self.turns = Turns()
        self._served = 0
        self._refused = 0
        self._queue: deque[_Connection] = deque()  # connections that wait to be served

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Start to accept on sockets that are bound and listen; other processes may accept on them too."""
        loop = asyncio.get_running_loop()
        self.time = loop.time
        for sock in sockets:
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                # The path belongs to whoever bound it, and newer Pythons would remove it.
                known = inspect.signature(loop.create_unix_server).parameters
                tidy: dict[str, Any] = {"cleanup_socket": False} if "cleanup_socket" in known else {}
                server = await loop.create_unix_server(
                    lambda: _Connection(self, tcp=False), sock=sock, backlog=self._backlog, **tidy
                )
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
                server = await loop.create_server(lambda: _Connection(self, tcp=True), sock=sock, backlog=self._backlog)
            self._servers.append(server)
        self._sweep()

    def stop_accepting(self) -> None:
        """Close our hold of the listening sockets; connections go on."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109  its caller has nothing to cancel
        """Stop accepting, wait up to `timeout` seconds for the connections to end, then cut what is left.

        MTAs keep a milter connection for as long as their SMTP session: one that has an SMTP session is served on, one
        that only waits for the next is closed at once.  Returns how many connections were cut.
        """
        self.stop_accepting()
        self.draining = True
        for connection in tuple(self._connections):
            connection.leave()
        cut = await self._until_empty(timeout)
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for connection in tuple(self._connections):
            connection.end()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
        return cut

    # -- how many at once --

    def admit(self, connection: "_Connection") -> "_Place":
        """Find a place for a new connection; of one that waits, `serve` is called later."""
        if self._served < self.bounds.served and not self._queue:
            self._served += 1
            return _Place.SERVED
        if len(self._queue) < self.bounds.waiting:
            self._queue.append(connection)
            return _Place.WAITING
        self._refused += 1
        self.refused()
        return _Place.REFUSED

    def release(self, connection: "_Connection", place: "_Place") -> None:
        """A connection has ended."""
        if place is _Place.REFUSED:
            self._refused -= 1
        elif place is _Place.WAITING:
            self._queue.remove(connection)
        else:
            self._served -= 1
            self._serve_waiting()

    def has_too_many_refused(self) -> bool:
        """Are there so many that have yet to hear it, or do not leave, that one more is not even told?"""
        return self._refused > self.bounds.served + self.bounds.waiting + _MORE

    def set_bounds(self, bounds: Bounds) -> None:
        """See `Engine`; whoever waits and has a place now is served."""
        super().set_bounds(bounds)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._queue and self._served < self.bounds.served:
            self._served += 1
            self._queue.popleft().serve()

    def _sweep(self) -> None:
        """Close what has been idle for too long: one timer for all, since time-outs are rare and connections many."""
        loop = asyncio.get_running_loop()
        limit = loop.time() - self.idle_timeout
        for connection in tuple(self._connections):
            connection.leave_if_silent_since(limit)
        self._sweeper = loop.call_later(min(max(self.idle_timeout / 4, 0.05), 60), self._sweep)


class _Place(Enum):
    """What became of a connection."""

    SERVED = 1
    WAITING = 2  # until another ends
    REFUSED = 3


class _Connection(asyncio.Protocol):
    """One milter connection."""

    __slots__ = (
        "_chosen",
        "_client",
        "_dialogue",
        "_ending",
        "_engine",
        "_gone",
        "_header_replies",
        "_heard",
        "_inbox",
        "_inbox_size",
        "_leading_space",
        "_macros",
        "_octets",
        "_over",
        "_packets",
        "_paused",
        "_place",
        "_replies",
        "_stuck",
        "_tcp",
        "_timer",
        "_transport",
        "task",
    )

    def __init__(self, engine: NativeEngine, *, tcp: bool) -> None:
        self._engine = engine
        self._tcp = tcp
        self._place = _Place.WAITING  # until it has one
        self._client = b""
        self._octets = 0  # since its last turn
        self._macros = Macros()
        self._packets = wire.Packets()
        self._chosen: wire.Options | None = None  # until the MTA has made its offer
        self._leading_space = True
        self._header_replies = False
        self._inbox: deque[bytes] = deque()  # what waits for a busy session
        self._inbox_size = 0
        self._replies: list[bytes] = []
        self._stuck = False  # the MTA does not read our replies
        self._paused = False
        self._gone = False
        self._ending = False
        self._over = False
        self._heard = 0.0
        self.task: asyncio.Task[bool] | None = None  # the session is busy with what was heard

    # -- what the transport tells --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._heard = self._engine.time()
        engine = self._engine
        self._place = engine.admit(self)
        new_session = engine.refuse if self._place is _Place.REFUSED else engine.new_session
        self._dialogue = Dialogue(new_session, engine.on_error, engine.on_failure)
        engine.opened(self)
        if self._place is _Place.REFUSED and engine.has_too_many_refused():
            self.end()

    def serve(self) -> None:
        """The wait is over."""
        self._place = _Place.SERVED
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._heard = self._engine.time()
        if self.task is None and not self._stuck and self._place is not _Place.WAITING:
            self._proceed(data)
            return
        self._inbox.append(data)
        self._inbox_size += len(data)
        if self._inbox_size > _QUEUE and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._stuck = True

    def resume_writing(self) -> None:
        self._stuck = False
        if self.task is None and self._place is not _Place.WAITING and not self._over:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it was lost changes nothing
        self._gone = True
        self.end()

    # -- what the engine asks --

    def leave(self) -> None:
        """Close if the MTA has no SMTP session here: it said that the next one will follow."""
        if self._chosen is not None and not self._dialogue.begun:
            self.end()

    def leave_if_silent_since(self, limit: float) -> None:
        """Close if the MTA has said nothing since `limit` (time of the loop) while it was its turn."""
        if self.task is None and self._place is not _Place.WAITING and self._heard < limit:
            _log.info("milter connection closed: nothing heard for %g s", self._engine.idle_timeout)
            self.end()

    def end(self) -> None:
        """Close: at once, or as soon as the session, which is busy, has taken note."""
        self._ending = True  # the task may be done already, and only its callback to come
        if self.task is not None:
            self.task.cancel()
        else:
            self._close()

    # -- the work --

    def _proceed(self, data: bytes) -> None:
        """Deal with what was heard; what needs no waiting is answered before this returns."""
        while True:
            work = eager.start(self._work(data))
            if isinstance(work, asyncio.Task):
                self.task = work
                work.add_done_callback(self._worked)
                self._acknowledge()
                return
            if not self._finish(work) or not self._inbox:
                return
            data = self._next()

    def _worked(self, work: "asyncio.Task[bool] | eager.Done[bool]") -> None:
        self.task = None
        if self._finish(work):
            self._go_on()

    def _finish(self, work: "asyncio.Task[bool] | eager.Done[bool]") -> bool:
        """Send the replies; may what was heard since be dealt with?"""
        if self._ending or work.cancelled() or not work.result():
            self._close()
            return False
        if self._replies:
            self._flush()  # which acknowledges too
        else:
            self._acknowledge()
        return not self._stuck

    def _acknowledge(self) -> None:
        """Have the kernel acknowledge at once what was read.

        Postfix writes a message in several pieces and holds the next back until the last is acknowledged (Nagle): where
        nothing is answered, the kernel would wait 40 ms with that.  It forgets this at every read.
        """
        if self._tcp:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _go_on(self) -> None:
        if self._inbox:
            self._proceed(self._next())
        if self._paused and not self._inbox and not self._over:
            self._paused = False
            self._transport.resume_reading()

    def _next(self) -> bytes:
        data = self._inbox.popleft()
        self._inbox_size -= len(data)
        return data

    async def _work(self, data: bytes) -> bool:
        """Answer packets; returns False if the connection is to end."""
        self._octets += len(data)
        if self._octets > FREE:
            self._octets = 0
            turn = self._engine.turns.take(self._client)
            if turn is not None:
                await turn
        headers: list[bytes] = []  # passed on together
        try:
            for letter, content, cut in self._packets.feed(data):
                if self._chosen is None:
                    if letter == wire.QUIT:
                        return False
                    self._begin(letter, content)
                elif letter == wire.HEADER:
                    if cut:
                        self._pass_on(headers)
                        self._dialogue.header_cut(content.partition(b"\0")[0], len(content))
                    else:
                        headers.append(content)
                    if self._header_replies:
                        self._replies.append(wire.SAY_CONTINUE)
                elif letter == wire.MACRO:
                    self._macros.put(content)
                else:
                    if headers:
                        self._pass_on(headers)
                    if not await self._take(letter, content, cut, self._chosen):
                        return False
            if headers:
                self._pass_on(headers)
        except wire.ProtocolError as error:
            _log.warning("milter connection closed: %s", error)
            if self._chosen is not None:
                self._replies.append(wire.SAY_TEMPFAIL)  # never without an answer
            return False
        except Exception:
            _log.exception("milter connection closed")
            self._engine.on_failure()
            return False
        return True

    def _pass_on(self, headers: list[bytes]) -> None:
        self._dialogue.headers(wire.read_headers(headers, leading_space=self._leading_space))
        headers.clear()

    def _close(self) -> None:
        if self._over:
            return
        self._over = True
        self._inbox.clear()
        if not self._gone:
            self._flush()
            if self._stuck:
                self._transport.abort()  # the MTA does not read: close() would wait for it
            else:
                self._transport.close()
        self._dialogue.close()
        self._engine.closed(self)
        self._engine.release(self, self._place)

    def _flush(self) -> None:
        if self._replies:
            self._transport.write(self._replies[0] if len(self._replies) == 1 else b"".join(self._replies))
            self._replies.clear()

    async def _take(self, letter: int, content: bytes, cut: bool, chosen: wire.Options) -> bool:
        """Deal with one packet (`cut`: not all of it); returns False at the end of the connection."""
        if letter == wire.BODY:
            wanted = self._dialogue.body(content)
            if not cut and not chosen.steps & _NO_REPLY_BODY:
                self._replies.append(wire.SAY_CONTINUE if wanted or not chosen.steps & wire.SKIP else wire.SAY_SKIP)
        elif letter == wire.END_OF_MESSAGE:
            await self._end_message(content, chosen)
        elif letter in _STAGES:
            if letter == wire.CONNECT:
                self._client = client_key(wire.read_connect(content))
            stage, call = _STAGES[letter]
            verdict = await call(self._dialogue, content, self._macros)
            if not chosen.steps & wire.NO_REPLY[stage]:
                self._replies.append(wire.say_verdict(verdict, stage, chosen))
        elif letter == wire.ABORT:
            self._dialogue.abort()
            self._macros.end_message()
        elif letter == wire.QUIT:
            return False
        elif letter == wire.QUIT_NEW_CONNECTION:
            self._dialogue.close()
            self._macros.end_session()
            # Who was refused connects again, and may then find a place.
            return not self._engine.draining and self._place is not _Place.REFUSED
        elif letter == wire.NEGOTIATE:
            self._begin(letter, content)
        else:  # an SMTP command unknown to the MTA, or a packet unknown to us: the MTA waits for an answer to either
            self._replies.append(wire.SAY_CONTINUE)
        return True

    def _begin(self, letter: int, content: bytes) -> None:
        """Negotiate: with that the MTA begins."""
        if letter != wire.NEGOTIATE:
            raise wire.ProtocolError("no negotiation")
        offer = wire.read_offer(content)
        self._dialogue.begin()
        self._chosen = chosen = wire.choose(offer, self._dialogue.answering())
        self._leading_space = chosen.steps & wire.LEADING_SPACE != 0
        self._header_replies = not chosen.steps & wire.NO_REPLY[Stage.HEADER]
        self._replies.append(wire.say_options(chosen))

    async def _end_message(self, content: bytes, chosen: wire.Options) -> None:
        """End of the message: `content` is the last of the body, if there is any left."""
        if content:
            self._dialogue.body(content)
        self._flush()
        work = eager.start(self._dialogue.end_of_message(self._macros))
        if isinstance(work, asyncio.Task):
            self._timer = asyncio.get_running_loop().call_later(self._engine.progress_interval, self._progress)
            try:
                verdict = await work
            finally:
                self._timer.cancel()
        else:
            verdict = work.result()
        self._replies.append(wire.say_verdict(verdict, Stage.EOM, chosen))
        self._macros.end_message()

    def _progress(self) -> None:
        """Tell the MTA that the verdict is still being worked on."""
        self._transport.write(wire.SAY_PROGRESS)
        self._timer = asyncio.get_running_loop().call_later(self._engine.progress_interval, self._progress)


_NO_REPLY_BODY: Final = wire.NO_REPLY[Stage.BODY]

_Call = Callable[[Dialogue, bytes, Mapping[bytes, bytes]], Awaitable[Verdict]]
_STAGES: Final[Mapping[int, tuple[Stage, _Call]]] = {
    wire.CONNECT: (Stage.CONNECT, lambda dialogue, data, macros: dialogue.connect(wire.read_connect(data), macros)),
    wire.HELO: (Stage.HELO, lambda dialogue, data, macros: dialogue.helo(wire.read_text(data), macros)),
    wire.MAIL: (Stage.MAIL, lambda dialogue, data, macros: dialogue.mail(wire.read_arguments(data), macros)),
    wire.RCPT: (Stage.RCPT, lambda dialogue, data, macros: dialogue.rcpt(wire.read_arguments(data), macros)),
    wire.DATA: (Stage.DATA, lambda dialogue, _, macros: dialogue.data(macros)),
    wire.END_OF_HEADERS: (Stage.EOH, lambda dialogue, _, macros: dialogue.end_of_headers(macros)),
}
