"""Addresses that nobody writes to but who harvested or guessed them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from authmilter.check import Tools, Words, check
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction


def _trap(text: str) -> str:
    """The normal form of a mailbox, ``DOMAIN`` or ``@DOMAIN``."""
    return endpoint.recipient(text.removeprefix("@"))


@dataclass(frozen=True)
class Spamtraps:
    """Addresses of ours that have never been given to anyone, and so get nothing but spam.

    The MTA must accept them.  [scores] says what becomes of a message that goes to one, among others perhaps.  With a
    weight, as by default, it is judged at its end, and its sender does not learn which recipient gave it away; with
    reject he may.
    """

    addresses: Names = option(
        (),
        "Mailboxes, or domains of which every mailbox is a trap.  A mailbox with an extension, such as "
        "trap+shop@example.org, is another one than that without, and has an entry of its own.",
        each=_trap,
    )

    @cached_property
    def traps(self) -> frozenset[str]:
        """The same to look one up: mailboxes as `Mailbox.address` has them, and domains."""
        return frozenset(self.addresses)


def _has_traps(config: Config) -> bool:
    return bool(config.of(Spamtraps).addresses)


@check(
    Stage.RCPT,
    scores={"spamtrap": 8.0},
    options=Spamtraps,
    wanted=_has_traps,
    # What is said of any other spam: nobody is to learn by it which addresses are traps.
    replies={"spamtrap": Words("7.1", lambda *_: "Message looks like spam")},
)
def spamtraps(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """A recipient is one of [spamtraps]."""
    recipient = tx.envelope.forward_paths[-1]
    traps = tools.options.traps
    address = recipient.address
    if address in traps or recipient.domain in traps:
        yield Finding("spamtrap", address[:320])
