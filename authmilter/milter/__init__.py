"""The milter protocol, and two engines that speak it for a `Session`.

* `wire`: packets to facts, verdicts to packets; no I/O.
* `macros`: which macros of the MTA we ask for, and what they mean.
* `dialogue`: one milter connection's calls to its sessions, guarded.
* `native` and `libmilter`: the engines.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from authmilter.model import HeaderField, Stage
from authmilter.verdict import Verdict


class Session(Protocol):
    """One SMTP session, as an engine tells it: a method for each stage, in SMTP order.

    An engine never has two calls in progress at once.  `macros` are all macros known so far, with their names as sent
    (``b"j"``, ``b"{auth_authen}"``).  An exception out of any method is logged and answered as [milter] on_error says;
    the rest of that message (after `connect` or `helo`: of the SMTP session) is then kept from the session.
    """

    def answering(self) -> frozenset[Stage]:
        """The stages that may be answered with anything but "continue".

        At others the MTA may send on without waiting.  At HEADER a verdict can't be given at all; BODY among them means
        that `body` may return False.
        """
        ...

    async def connect(
        self, host: bytes, family: str, port: int, address: bytes, macros: Mapping[bytes, bytes]
    ) -> Verdict:
        """A client connected; `family` is ``4``, ``6``, ``L`` (unix socket) or ``U`` (unknown: no port, no address)."""
        ...

    async def helo(self, name: bytes, macros: Mapping[bytes, bytes]) -> Verdict:
        """HELO or EHLO; comes again after STARTTLS."""
        ...

    async def mail(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        """MAIL: `args` is the reverse-path with its angle brackets, then the ESMTP parameters."""
        ...

    async def rcpt(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        """RCPT: `args` is the forward-path with its angle brackets, then the ESMTP parameters."""
        ...

    async def data(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """DATA; MTAs that speak a protocol version below 4 don't tell."""
        ...

    def headers(self, fields: Sequence[HeaderField]) -> None:
        """The next header fields: values with their leading white space and with CRLF at folds, as DKIM signs them."""
        ...

    def header_cut(self, name: bytes, octets: int) -> None:
        """The next header field, of which not all could be passed on; `octets` of it arrived."""
        ...

    async def end_of_headers(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """The header section is complete."""
        ...

    def body(self, chunk: bytes) -> bool:
        """The next octets of the body, cut anywhere; returns False if no more are wanted."""
        ...

    async def end_of_message(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """The message is complete: the one stage at which edits count.  The transaction ends with the verdict."""
        ...

    def abort(self) -> None:
        """The transaction ends without a message: RSET, a refusal, or the client is gone."""
        ...

    def close(self) -> None:
        """The SMTP session is over."""
        ...
