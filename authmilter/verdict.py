"""What is decided: an action, the SMTP reply, and the edits to the header section."""

from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """What happens to a command or a message."""

    CONTINUE = "continue"  # nothing is decided yet
    ACCEPT = "accept"
    TAG = "tag"  # accept, marked as spam
    QUARANTINE = "quarantine"  # accept into the MTA's hold queue
    TEMPFAIL = "tempfail"  # 4yz
    REJECT = "reject"  # 5yz
    DISCARD = "discard"  # accept and deliver to nobody


class Reply(NamedTuple):
    """An SMTP reply with its enhanced status code (RFC 5321 section 4.2, RFC 3463)."""

    code: int
    enhanced: str
    text: str


class HeaderEdit(NamedTuple):
    """One edit to the header section, carried out in the order given.

    * ``insert``: put the field at `at`, counted from the top (0 is above everything).
    * ``add``: put the field at the end of the header section.
    * ``delete``: take away occurrence `at` (from 1) of the fields of that name.
    `value` comes without the blank after the colon and folds with LF, as the milter protocol has it.
    """

    op: str
    at: int
    name: str
    value: str = ""


class Verdict(NamedTuple):
    """The decision at one stage; `because` names the symbols that led to it."""

    action: Action
    reply: Reply | None = None
    edits: tuple[HeaderEdit, ...] = ()
    because: tuple[str, ...] = ()
    score: float = 0.0
    quarantine_reason: str = ""


CONTINUE = Verdict(Action.CONTINUE)


class Ruling(NamedTuple):
    """A verdict, whether it is carried out, and the weights that were added up (inbound, at EOM)."""

    verdict: Verdict
    enforce: bool
    scored: tuple[tuple[str, float], ...] = ()
