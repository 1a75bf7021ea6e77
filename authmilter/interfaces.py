"""What the core asks of the world; everything here can be replaced by a fake of a few lines."""

from typing import NamedTuple, Protocol

from authmilter.model import Stage


class Answer(NamedTuple):
    """A DNS answer that arrived.

    `records`: for TXT the bytes of all strings of a record joined (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2);
    for A and AAAA addresses in text; for PTR and MX host names, lower case, without final dot (MX: ``"10 host"``, the
    null MX of RFC 7505 is ``"0 ."``).
    `exists`: False only for NXDOMAIN.  No records and True is "no data".  `ttl`: seconds for which it may be kept.
    """

    records: tuple[bytes, ...] | tuple[str, ...]
    exists: bool
    ttl: float = 0.0


class Resolver(Protocol):
    """DNS questions.  Names are text: A-labels joined by dots, with or without a final dot."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """Ask for `rdtype` (A AAAA MX PTR TXT).

        NXDOMAIN and "no data" are answers.  A name that can't be asked (label over 63 octets, empty label, over 253
        octets) is answered with NXDOMAIN without asking.  Raises DnsTempError for time-out, SERVFAIL, REFUSED.
        """
        ...

    def known(self, name: str, rdtype: str) -> Answer | None:
        """The cached answer, if there is one; never waits, never asks."""
        ...

    def prefetch(self, name: str, rdtype: str) -> None:
        """Start asking if the answer is not known; whoever queries next joins in.  Never raises, never waits."""
        ...


class Dns(Resolver, Protocol):
    """A Resolver that many clients share."""

    def for_client(self, client: str) -> Resolver:
        """The same for what concerns one SMTP client, which may have only so much under way; "" is nobody's."""
        ...


class Observer(Protocol):
    """Is told what happened; the core knows no Prometheus."""

    def check_done(self, name: str, seconds: float) -> None:
        """A method or check ran for that long."""
        ...

    def check_error(self, name: str, kind: str) -> None:
        """A method or check failed; `kind` is ``temperror`` or ``exception``."""
        ...

    def stage_done(self, stage: Stage, seconds: float) -> None:
        """A stage was answered after that long."""
        ...

    def finding(self, symbol: str) -> None:
        """A finding entered the evidence."""
        ...

    def auth_result(self, method: str, result: str) -> None:
        """A method has a result."""
        ...

    def signature(self, algorithm: str, outcome: str) -> None:
        """A signature was made, or could not be; `outcome` is ``success`` or ``failure``."""
        ...

    def recipient_refused(self, code: int) -> None:
        """RCPT was answered with that code."""
        ...

    def verdict(self, direction: str, action: str, stage: Stage, score: float | None) -> None:
        """A transaction got its final verdict; `score` is None where nothing was scored."""
        ...


class BodySink(Protocol):
    """Takes the body as it passes."""

    def update(self, chunk: bytes) -> None:
        """The next octets, cut anywhere."""
        ...
