"""How many recipients a message has."""

from collections.abc import Iterator
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.config.option import option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action


@dataclass(frozen=True)
class Recipients:
    """Limit the recipients of an inbound message.

    The first ones get it; those beyond the limit are deferred, and the client sends it to them in a further transaction.
    """

    max_per_message: int = option(
        0,
        "Recipients of one message; 0: no limit.  RFC 5321 section 4.5.3.1.8 forbids a limit below 100: a client need not "
        "be prepared for it.",
        at_least=0,
        at_most=9000,  # the session lists 10,000
    )


def _is_limited(config: Config) -> bool:
    return config.of(Recipients).max_per_message > 0


@check(
    Stage.RCPT,
    scores={"too_many_recipients": Action.TEMPFAIL},
    options=Recipients,
    wanted=_is_limited,
    replies={
        # RFC 5321 section 4.5.3.1.10
        "too_many_recipients": Words(
            "5.3", lambda *_: "Too many recipients, please send to the others in another transaction", temporary=452
        )
    },
)
def recipients(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """More recipients than [recipients] max_per_message."""
    most = tools.options.max_per_message
    if len(tx.envelope.forward_paths) > most:
        yield Finding("too_many_recipients", f"more than {most}")


@check(
    Stage.RCPT,
    scores={"bounce_recipients": 2.0},
    strict={"bounce_recipients": Action.REJECT},
    replies={
        "bounce_recipients": Words("7.1", lambda *_: "Mail from the null reverse-path can't have several recipients")
    },
)
def bounce_recipients(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """The null reverse-path, and more than one recipient: notifications go to the one who sent (RFC 5321 section 4.5.5)."""
    if tx.envelope.reverse_path is None and len(tx.envelope.forward_paths) > 1:
        yield Finding("bounce_recipients")
