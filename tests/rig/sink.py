"""The mail server behind the MTA: takes every message and keeps the exact octets."""

from types import TracebackType
from typing import Any, NamedTuple, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.rig.sockets import free_port, wait_until


class Delivery(NamedTuple):
    """One message as the sink got it."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    content: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Values of every field of that name, top first, unfolded."""
        return [value for n, value in self.fields() if n.lower() == name.lower()]

    def names(self) -> list[bytes]:
        """Lower-case names of the header fields, top first."""
        return [n.lower() for n, _ in self.fields()]

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Header fields as (name, unfolded value)."""
        section = self.content.partition(b"\r\n\r\n")[0]
        lines = section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


class Sink:
    """An SMTP server in a thread of its own, with its own event loop."""

    def __init__(self) -> None:
        self.port = free_port()
        self.deliveries: list[Delivery] = []  # in the order of their arrival
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, decode_data=False, data_size_limit=2**30, enable_SMTPUTF8=True
        )

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's
        """Keep a message (called by aiosmtpd)."""
        content: Any = envelope.content
        self.deliveries.append(Delivery(envelope.mail_from or "", tuple(envelope.rcpt_tos), bytes(content)))
        return "250 kept"

    def wait(self, count: int, timeout: float = 10.0) -> list[Delivery]:
        """All deliveries, as soon as there are `count` of them since `clear`."""
        wait_until(lambda: len(self.deliveries) >= count, timeout, f"{count} deliveries")
        return list(self.deliveries)

    def find(self, marker: bytes, timeout: float = 10.0) -> Delivery:
        """The delivery whose content has `marker`, waiting for it."""
        found: list[Delivery] = []

        def arrived() -> bool:
            found[:] = [d for d in self.deliveries if marker in d.content]
            return bool(found)

        wait_until(arrived, timeout, f"a delivery with {marker!r}")
        assert len(found) == 1, f"{marker!r} was delivered {len(found)} times"
        return found[0]

    def clear(self) -> None:
        """Forget what came."""
        self.deliveries.clear()

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._controller.stop()
