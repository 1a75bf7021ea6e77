"""The engine on libmilter, through pymilter: the reference implementation, for those who trust nothing else.

libmilter runs callbacks on threads of its own.  Each tells its fact to the worker's event loop, where the session lives,
and waits only if the stage can be answered; the session hears the facts of one connection in their order.  What costs most
is that threads hand the interpreter's lock on to each other, so the loop is called once for all facts that it has not
heard, and the worker stays on one CPU: see `_stay_on_one_cpu`.

What libmilter and pymilter do that the native engine does not, none of which a callback can mend:

* A packet over 64 KB, an unknown command or an empty macro packet ends the connection; EOM without MAIL is not
  answered; QUIT_NC is passed over after a refusal.
* HELO, host and field names that are not UTF-8 never reach a callback.  What was lost is recovered from the exception
  (see `_Connection.lost`), except the value of the field and the answer to the HELO.
* A busy callback can hold up other connections for seconds, and over TCP two small writes in a row wait 40 ms.
* A macro packet with a name but no value crashes the process (SIGSEGV when a macro is looked up), sooner or later.
* The listener looks only every five seconds whether it should stop, so it is never stopped: see `_swap_listener`.
* A thread of its own waits for SIGTERM, SIGHUP and SIGINT, and abandons all messages.  A process that ignores these
  signals (SIG_IGN, not blocked) keeps them from it; a Python handler does not, since either may get the signal.

libmilter keeps its state in the process: one engine in a process, once.
"""

import asyncio
import logging
import os
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final

import milter

from authmilter import eager
from authmilter.errors import StartError
from authmilter.milter import Session, wire
from authmilter.milter.dialogue import TEMPFAIL, Dialogue
from authmilter.milter.engine import Engine
from authmilter.milter.macros import WANTED
from authmilter.model import HeaderField, Stage
from authmilter.verdict import CONTINUE, Action, Verdict

_log: Final = logging.getLogger("authmilter.milter")

_FULL_CHUNK: Final = 65535  # MILTER_CHUNK_SIZE: what an MTA sends at a time while there is more to come
_FIELD: Final = 200  # octets, about, that Python takes for a field besides those of its text
_CONTINUE, _NOREPLY, _SKIP = int(milter.CONTINUE), int(milter.NOREPLY), int(milter.SKIP)
_SYMBOLS: Final = [(stage, names.decode()) for stage, names in WANTED.values()]
_NAMES: Final = {letter: [(name.decode(), name) for name in names.split()] for letter, (_, names) in WANTED.items()}
_STAGE_NAMES: Final[Mapping[Stage, Sequence[tuple[str, bytes]]]] = {
    Stage.CONNECT: _NAMES[wire.CONNECT],
    Stage.HELO: _NAMES[wire.HELO],
    Stage.MAIL: _NAMES[wire.MAIL],
    Stage.RCPT: _NAMES[wire.RCPT],
    Stage.DATA: [("i", b"i")],
    Stage.EOH: _NAMES[wire.END_OF_HEADERS],
    Stage.EOM: _NAMES[wire.END_OF_MESSAGE],
}


_Fact = Callable[[], Awaitable[Verdict]]


class LibmilterEngine(Engine["_Connection"]):
    """The engine on libmilter; one per process.  libmilter looks for idle connections only every ten minutes.

    `slot`: a number that no other worker on the same socket has.  A session is made, and asked which stages it answers,
    on a thread of libmilter; all else is told to it on the event loop.
    """

    def __init__(self, new_session: Callable[[], Session], *, slot: int = 0, **settings: Any) -> None:
        super().__init__(new_session, **settings)
        self._slot = slot
        self.served = 0  # connections that were not refused
        self.loop: asyncio.AbstractEventLoop | None = None
        # For a connection that goes on after QUIT_NC: pymilter then knows nothing of its negotiation, but the MTA is
        # the same, or one that offers the same.
        self.chosen = wire.Options(wire.NEWEST, 0, 0)
        self._listener = -1
        self._quiet: socket.socket | None = None

    def opened(self, connection: "_Connection") -> None:
        """See `Engine`."""
        super().opened(connection)
        self.served += not connection.is_refused

    def closed(self, connection: "_Connection") -> None:
        """See `Engine`."""
        super().closed(connection)
        self.served -= not connection.is_refused

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Start to accept on one socket that is bound and listens; other processes may accept on it too.

        Raises StartError if there is not exactly one, or if libmilter does not start.
        """
        if len(sockets) != 1:
            raise StartError("the libmilter engine serves exactly one socket")
        sock = sockets[0]
        self.loop = asyncio.get_running_loop()
        sock.setblocking(False)  # who loses the race to accept must not block in libmilter
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        self._set_callbacks()
        _stay_on_one_cpu(self._slot + os.fstat(sock.fileno()).st_ino)  # other daemons begin with another CPU
        try:
            self._swap_listener(sock)
        except (milter.error, OSError) as error:
            raise StartError(f"libmilter does not start: {error}") from error
        threading.Thread(target=self._run, name="libmilter", daemon=True).start()

    def stop_accepting(self) -> None:
        """Accept no more; connections go on."""
        if self._listener >= 0 and self._quiet is not None:
            os.dup2(self._quiet.fileno(), self._listener, inheritable=False)

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109  its caller has nothing to cancel
        """Stop accepting, and wait up to `timeout` seconds for the connections to end.

        Returns how many are left.  They and libmilter's threads end with the process, which should leave by os._exit.
        """
        self.stop_accepting()
        return await self._until_empty(timeout)

    def _set_callbacks(self) -> None:
        milter.set_flags(wire.OUR_ACTIONS)
        # An exception that pymilter raises itself, before a callback: anything else would refuse for good.
        milter.set_exception_policy(milter.CONTINUE)
        previous_hook = sys.excepthook

        def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            connection = _current.get()
            if connection is not None and isinstance(error, UnicodeDecodeError):
                connection.lost(error.object)
            else:
                previous_hook(kind, error, traceback)

        sys.excepthook = excepthook  # where pymilter reports it, on the thread that it happens on
        milter.set_connect_callback(self._callback(_Connection.connect))
        milter.set_helo_callback(self._callback(_Connection.helo))
        milter.set_envfrom_callback(self._callback(_Connection.mail))
        milter.set_envrcpt_callback(self._callback(_Connection.rcpt))
        milter.set_header_callback(self._callback(_Connection.header))
        milter.set_eoh_callback(self._callback(_Connection.end_of_headers))
        milter.set_body_callback(self._callback(_Connection.body))
        milter.set_eom_callback(self._callback(_Connection.end_of_message))
        milter.set_abort_callback(self._callback(_Connection.abort))
        milter.set_close_callback(self._callback(_Connection.close))
        milter.register(
            "authmilter", data=self._callback(_Connection.data), negotiate=self._callback(_Connection.negotiate)
        )
        milter.settimeout(max(1, int(self.idle_timeout)))

    def _callback(self, method: Callable[..., int]) -> Callable[..., int]:
        """A callback that calls `method` of the context's connection; a failure of ours is answered by `on_error`."""

        def callback(ctx: Any, *args: Any) -> int:
            try:
                return method(ctx.getpriv() or self._new(ctx), *args)
            except Exception:
                _log.exception("libmilter engine failed in %s", method.__name__)
                self.on_failure()
                return int(milter.CONTINUE if self.on_error == "accept" else milter.TEMPFAIL)

        return callback

    def _new(self, ctx: Any) -> "_Connection":
        """The connection of pymilter's context, at its first callback."""
        connection = _Connection(self, ctx)
        ctx.setpriv(connection)
        # pymilter gives each context a Python thread state of its own, whatever thread it runs on, so this stays with
        # the connection.
        _current.set(connection)
        return connection

    def _swap_listener(self, sock: socket.socket) -> None:
        """Have libmilter open a placeholder, then put `sock` into its place.

        libmilter would otherwise bind by itself, and remove the path of a unix socket when it ends.  The placeholder is
        of the same family, because libmilter looks at that when it accepts.  To stop, a socket that nobody can connect
        to takes its place in turn.
        """
        with tempfile.TemporaryDirectory(prefix="authmilter-") as folder:
            self._quiet = socket.socket(socket.AF_UNIX)
            self._quiet.bind(os.path.join(folder, "quiet"))
            self._quiet.listen(1)
            self._quiet.setblocking(False)
            if sock.family == socket.AF_UNIX:
                milter.setconn(f"unix:{folder}/placeholder")
            else:
                host, scheme = ("::1", "inet6") if sock.family == socket.AF_INET6 else ("127.0.0.1", "inet")
                with socket.socket(sock.family) as probe:
                    probe.bind((host, 0))
                    port = probe.getsockname()[1]
                milter.setconn(f"{scheme}:{port}@{host}")
            free = os.dup(self._quiet.fileno())  # the lowest free number, which the next open gets
            os.close(free)
            milter.opensocket(False)
            with socket.socket(fileno=os.dup(free)) as opened:
                if opened.family != sock.family or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise OSError("its listening socket was not found")
            os.dup2(sock.fileno(), free, inheritable=False)
            self._listener = free

    @staticmethod
    def _run() -> None:
        try:
            milter.main()
        except milter.error as error:
            _log.error("libmilter ended: %s", error)


_current: ContextVar["_Connection | None"] = ContextVar("connection", default=None)


def _stay_on_one_cpu(number: int) -> None:
    """Bind this thread, and those that it will start, to one of the CPUs that the process may use.

    Python runs on one of them at a time anyway, and a thread that waits for the interpreter's lock on another CPU is woken
    again and again in vain: with many connections, that cost up to 0.8 ms a message.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        with suppress(OSError):  # not allowed, or the set has just changed
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})


class _Connection:
    """One SMTP session on a milter connection.

    The methods run on threads of libmilter, one at a time, but for those under "on the event loop".
    """

    def __init__(self, engine: LibmilterEngine, ctx: Any) -> None:
        assert engine.loop is not None
        self._engine = engine
        self._ctx = ctx
        self._loop = engine.loop
        self.is_refused = engine.served >= engine.bounds.served
        if self.is_refused:
            engine.refused()
        new_session = engine.refuse if self.is_refused else engine.new_session
        self._dialogue = Dialogue(new_session, engine.on_error, engine.on_failure)
        self._choose(engine.chosen)
        self._fields: list[HeaderField] = []  # not yet among the facts
        self._session_macros: dict[bytes, bytes] = {}
        self._message_macros: dict[bytes, bytes] = {}
        self._connected = False
        self._in_message = False
        self._unheard = 0  # octets of the message that the session has perhaps not heard
        # Shared with the event loop:
        self._facts: deque[tuple[Callable[[], Awaitable[Any]], bool]] = deque()  # and whether a callback waits for it
        self._called = False  # the event loop will look at the facts
        self._verdicts: SimpleQueue[Verdict] = SimpleQueue()
        # The event loop's own:
        self._busy = False
        self._task: object = None  # a loop alone does not keep its tasks alive
        self._loop.call_soon_threadsafe(engine.opened, self)

    # -- callbacks --

    def negotiate(self, options: list[int]) -> int:
        offer = wire.Options(wire.NEWEST, options[0] or 0, options[1] or 0)
        # The session may be made on this thread: nobody else knows of it yet.
        self._dialogue.begin()
        chosen = wire.choose(offer, self._dialogue.answering())
        # libmilter drops EOM if the answer to a chunk that came with it was anything but "continue".
        chosen = chosen._replace(steps=chosen.steps & ~wire.NO_REPLY[Stage.BODY])
        self._choose(chosen)
        self._engine.chosen = chosen
        options[:] = [chosen.actions, chosen.steps, 0, 0]
        if chosen.actions & wire.CAN_LIST_MACROS:
            for stage, names in _SYMBOLS:
                self._ctx.setsymlist(stage, names)
        return _CONTINUE

    def _choose(self, chosen: wire.Options) -> None:
        self._chosen = chosen
        self._leading_space = chosen.steps & wire.LEADING_SPACE != 0
        self._header_answer = _NOREPLY if chosen.steps & wire.NO_REPLY[Stage.HEADER] else _CONTINUE

    def connect(self, host: str, family: int, address: Any) -> int:
        letter, port, text = "U", 0, ""
        if family in (socket.AF_INET, socket.AF_INET6) and address:
            letter = "4" if family == socket.AF_INET else "6"
            text, port = address[0], address[1]
        elif family == socket.AF_UNIX:
            letter, text = "L", address or ""
        return self._connect(wire.ConnectInfo(host.encode(), letter, port, text.encode()))

    def _connect(self, client: wire.ConnectInfo) -> int:
        self._connected = True
        self._session_macros = macros = self._macros(Stage.CONNECT)
        return self._stage(Stage.CONNECT, partial(self._dialogue.connect, client, macros))

    def helo(self, name: str) -> int:
        return self._helo(name.encode())

    def _helo(self, name: bytes) -> int:
        self._session_macros = macros = self._session_macros | self._macros(Stage.HELO)
        return self._stage(Stage.HELO, partial(self._dialogue.helo, name, macros))

    def mail(self, *args: bytes) -> int:
        self._in_message = True
        self._fields = []
        self._message_macros = macros = self._session_macros | self._macros(Stage.MAIL)
        return self._stage(Stage.MAIL, partial(self._dialogue.mail, args, macros))

    def rcpt(self, *args: bytes) -> int:
        return self._stage(Stage.RCPT, partial(self._dialogue.rcpt, args, self._now(Stage.RCPT)))

    def data(self) -> int:
        return self._stage(Stage.DATA, partial(self._dialogue.data, self._now(Stage.DATA)))

    def header(self, name: str, value: bytes) -> int:
        self._fields += wire.read_headers((name.encode() + b"\0" + value,), leading_space=self._leading_space)
        self._unheard += len(name) + len(value) + _FIELD
        if self._unheard >= _FULL_CHUNK:  # as with the body
            self._unheard = 0
            fields, self._fields = self._fields, []
            self._ask(partial(self._headers, fields))
        return self._header_answer

    def end_of_headers(self) -> int:
        return self._stage(Stage.EOH, partial(self._dialogue.end_of_headers, self._now(Stage.EOH)))

    def body(self, chunk: bytes) -> int:
        self._unheard += len(chunk)
        if self._unheard < _FULL_CHUNK:
            self._tell(partial(self._body, chunk))
            return _CONTINUE
        self._unheard = 0  # as it waits now: at most two chunks of each connection are in memory
        if (
            self._ask(partial(self._body, chunk)) is _DECLINED
            and self._chosen.steps & wire.SKIP
            and len(chunk) >= _FULL_CHUNK
        ):
            return _SKIP
        return _CONTINUE

    def end_of_message(self) -> int:
        verdict = self._ask(partial(self._dialogue.end_of_message, self._now(Stage.EOM)), progress=True)
        self._end_message()
        return self._answer(verdict, Stage.EOM)

    def abort(self) -> int:
        self._end_message()
        self._fields = []
        self._tell(self._abort)
        return _CONTINUE

    def _end_message(self) -> None:
        self._in_message = False
        self._message_macros = {}
        self._unheard = 0

    def close(self) -> int:
        self._fields = []
        self._tell(self._close)
        self._ctx.setpriv(None)  # they refer to each other, and pymilter's context is not garbage collected
        return _CONTINUE

    def lost(self, text: bytes) -> None:
        """Take what pymilter could not decode: the HELO name, the client's host name, or the name of a field.

        The session hears of it, but can't answer: libmilter is told to go on.  Of a field only the name is left.
        """
        if self._in_message:
            self._tell(partial(self._cut, text))
        elif self._connected:
            self._helo(text)
        else:
            address = self._macros(Stage.CONNECT).get(b"{client_addr}", b"")
            family = "6" if b":" in address else "4" if address else "U"
            self._connect(wire.read_connect(text + b"\0" + family.encode() + b"\0\0" + address + b"\0"))

    def _stage(self, stage: Stage, fact: _Fact) -> int:
        """Tell a fact, and answer with the verdict if the stage is answered at all."""
        silent = self._chosen.steps & wire.NO_REPLY[stage] != 0
        if silent and stage is not Stage.MAIL:
            self._tell(fact)
            return _NOREPLY
        # Messages take turns here even where nobody waits for an answer: if the callbacks of all connections contended for
        # the interpreter's lock at once, some would be passed over for long.
        verdict = self._ask(fact)
        return _NOREPLY if silent else self._answer(verdict, stage)

    def _answer(self, verdict: Verdict, stage: Stage) -> int:
        """Carry out a verdict; the counterpart of `wire.say_verdict`."""
        action = verdict.action
        if action is Action.REJECT or action is Action.TEMPFAIL:
            reply = verdict.reply
            if reply is not None and wire.reply_matches(reply, action):
                self._ctx.setreply(str(reply.code), reply.enhanced or None, *wire.reply_lines(reply))
            return int(milter.REJECT if action is Action.REJECT else milter.TEMPFAIL)
        if action is Action.DISCARD:
            return int(milter.DISCARD)
        if stage is Stage.EOM:
            space = " " if self._leading_space else ""
            for edit in wire.usable_edits(verdict.edits, self._chosen.actions):
                name = wire.field_name(edit.name)
                if edit.op == "delete":
                    self._ctx.chgheader(name, wire.field_index(edit), "")
                else:
                    index = wire.field_index(edit) if edit.op == "insert" else -1
                    self._ctx.addheader(name, space + wire.field_value(edit.value), index)
            if action is Action.QUARANTINE and self._chosen.actions & wire.CAN_QUARANTINE:
                self._ctx.quarantine(wire.quarantine_reason(verdict.quarantine_reason))
        return _CONTINUE

    def _now(self, stage: Stage) -> Mapping[bytes, bytes]:
        """Add the macros of a stage of the message to what is known."""
        self._message_macros = self._message_macros | self._macros(stage)
        return self._message_macros

    def _macros(self, stage: Stage) -> dict[bytes, bytes]:
        """Those of the macros asked for at a stage that have a value; libmilter has no way to list the others."""
        found: dict[bytes, bytes] = {}
        value_of = self._ctx.getsymval
        for name, key in _STAGE_NAMES[stage]:
            try:
                value: str | None = value_of(name)
            except UnicodeDecodeError as error:
                found[key] = error.object
            else:
                if value is not None:
                    found[key] = value.encode()
        return found

    # -- to the event loop and back --

    def _tell(self, fact: Callable[[], Awaitable[Any]], *, waits: bool = False) -> None:
        """Have the session hear the fields so far, then `fact`, after all that was told before."""
        if self._fields:
            self._facts.append((partial(self._headers, self._fields), False))
            self._fields = []
        self._facts.append((fact, waits))
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._come)

    def _ask(self, fact: _Fact, *, progress: bool = False) -> Verdict:
        """Tell a fact, and wait for the verdict; with `progress`, tell the MTA now and then that it is worked on."""
        self._tell(fact, waits=True)
        while True:
            try:
                return self._verdicts.get(timeout=self._engine.progress_interval if progress else None)
            except Empty:
                self._ctx.progress()

    # -- on the event loop --

    def _come(self) -> None:
        self._called = False  # before the first look at the facts: whoever tells one after the last look calls again
        if not self._busy:
            self._task = eager.start(self._hear_facts())

    async def _hear_facts(self) -> None:
        self._busy = True
        while self._facts:
            fact, waits = self._facts.popleft()
            try:
                verdict = await fact()
            except (Exception, asyncio.CancelledError):  # a callback that waits must not wait for ever
                _log.exception("libmilter engine failed on the event loop")
                self._engine.on_failure()
                verdict = CONTINUE if self._engine.on_error == "accept" else TEMPFAIL
            if waits:
                self._verdicts.put(verdict)
        self._busy = False

    async def _headers(self, fields: list[HeaderField]) -> Verdict:
        self._dialogue.headers(fields)
        return CONTINUE

    async def _cut(self, name: bytes) -> None:
        self._dialogue.header_cut(name, len(name))

    async def _body(self, chunk: bytes) -> Verdict:
        return CONTINUE if self._dialogue.body(chunk) else _DECLINED

    async def _abort(self) -> None:
        self._dialogue.abort()

    async def _close(self) -> None:
        self._dialogue.close()
        self._engine.closed(self)


_DECLINED: Final = Verdict(Action.CONTINUE, because=("no more of the body is wanted",))
