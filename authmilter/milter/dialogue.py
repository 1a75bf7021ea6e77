"""What a milter connection tells its sessions: the part of an engine that is the same in both.

It keeps commands in order, starts and ends transactions, and sees to it that no exception of a session takes the
connection along.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from authmilter.eager import Done
from authmilter.milter import Session
from authmilter.milter.wire import ConnectInfo
from authmilter.model import HeaderField, Stage
from authmilter.verdict import CONTINUE, Action, Verdict

_log: Final = logging.getLogger("authmilter.milter")

TEMPFAIL: Final = Verdict(Action.TEMPFAIL)
_CONTINUE: Final[Done[Verdict]] = Done(CONTINUE)
_ANY: Final = frozenset(Stage)


class Dialogue:
    """The sessions of one milter connection, one after the other; one call at a time.

    A command outside a transaction that belongs into one (EOM without MAIL) is not passed on.  When a session raises,
    it hears nothing more of that transaction; if `connect` or `helo` raised, nothing more at all, since what it would
    decide without those facts could be wrong.
    """

    __slots__ = (
        "_failed_at",
        "_failure",
        "_listener",
        "_new_session",
        "_on_failure",
        "begun",
        "in_message",
        "session",
        "wants_body",
    )

    def __init__(self, new_session: Callable[[], Session], on_error: str, on_failure: Callable[[], None]) -> None:
        self._new_session = new_session
        self._on_failure = on_failure
        self._failure = CONTINUE if on_error == "accept" else TEMPFAIL
        self._failed_at: Stage | None = None
        self.session: Session | None = None
        self._listener: Session | None = None  # the session, unless it failed
        self.begun = False  # an SMTP session is under way
        self.in_message = False  # between MAIL and its end
        self.wants_body = True

    def _fail(self, stage: Stage, what: str) -> None:
        """Note an exception that is being handled."""
        self._failed_at = stage
        self._listener = None
        _log.exception("session failed in %s", what)
        self._on_failure()

    def begin(self) -> None:
        """Make a session, at the first word of an SMTP session; once, since a later one would lack the facts so far."""
        if not self.begun:
            self.begun = True
            self._failed_at = None
            try:
                self.session = self._listener = self._new_session()
            except Exception:
                self._fail(Stage.CONNECT, "new_session")

    def answering(self) -> frozenset[Stage]:
        """The stages at which the session may refuse; all, if there is no telling."""
        if self._listener is None:
            return _ANY
        try:
            return self._listener.answering()
        except Exception:
            self._fail(Stage.CONNECT, "answering")
            return _ANY

    async def _ask(self, stage: Stage, answer: Awaitable[Verdict]) -> Verdict:
        try:
            return await answer
        except Exception:
            self._fail(stage, stage.label)
            return self._failure

    def connect(self, client: ConnectInfo, macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """The SMTP client connected."""
        self.begin()
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.CONNECT, session.connect(*client, macros))

    def helo(self, name: bytes, macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """HELO or EHLO."""
        self.begin()
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.HELO, session.helo(name, macros))

    def mail(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """MAIL; ends an earlier transaction that the MTA left open, as it does after a refusal."""
        self.begin()
        self.abort()
        self.in_message = self.wants_body = True
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.MAIL, session.mail(args, macros))

    def rcpt(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """RCPT."""
        if not self.in_message:
            return _CONTINUE
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.RCPT, session.rcpt(args, macros))

    def data(self, macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """DATA."""
        if not self.in_message:
            return _CONTINUE
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.DATA, session.data(macros))

    def headers(self, fields: Sequence[HeaderField]) -> None:
        """The next header fields."""
        session = self._listener
        if session is None or not self.in_message:
            return
        try:
            session.headers(fields)
        except Exception:
            self._fail(Stage.HEADER, "headers")

    def header_cut(self, name: bytes, octets: int) -> None:
        """The next header field, of which not all arrived."""
        session = self._listener
        if session is None or not self.in_message:
            return
        try:
            session.header_cut(name, octets)
        except Exception:
            self._fail(Stage.HEADER, "header_cut")

    def end_of_headers(self, macros: Mapping[bytes, bytes]) -> Awaitable[Verdict]:
        """End of the header section."""
        if not self.in_message:
            return _CONTINUE
        if (session := self._listener) is None:
            return Done(self._failure)
        return self._ask(Stage.EOH, session.end_of_headers(macros))

    def body(self, chunk: bytes) -> bool:
        """The next octets of the body; returns False if no more are wanted."""
        session = self._listener
        if session is None or not self.in_message:
            return False
        if self.wants_body:
            try:
                self.wants_body = session.body(chunk)
            except Exception:
                self._fail(Stage.BODY, "body")
        return self.wants_body

    async def end_of_message(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """End of the message, and of the transaction."""
        if not self.in_message:
            return CONTINUE
        if (session := self._listener) is None:
            verdict = self._failure
        else:
            verdict = await self._ask(Stage.EOM, session.end_of_message(macros))
        if self._failed_at is not None:
            self.abort()  # the session did not see the message to its end
        self.in_message = False
        return verdict

    def abort(self) -> None:
        """The transaction, if there is one, ends here."""
        if not self.in_message:
            return
        self.in_message = False
        if self._failed_at is not None:
            if self._failed_at < Stage.MAIL:
                return  # the session was never told of the transaction
            self._failed_at = None
            self._listener = self.session
        if self.session is not None:
            try:
                self.session.abort()
            except Exception:
                self._fail(Stage.CONNECT, "abort")

    def close(self) -> None:
        """The SMTP session, if there is one, ends here."""
        self.abort()
        self.begun = False
        session, self.session, self._listener = self.session, None, None
        if session is not None:
            try:
                session.close()
            except Exception:
                self._fail(Stage.CONNECT, "close")
