"""What SpamAssassin thinks of a message, as a further opinion."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

from authmilter.check import Tools, check
from authmilter.config.endpoint import parse_socket
from authmilter.config.option import Seconds, Size, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.scanners import (
    MAX_OPINION,
    Servers,
    read_spamd,
    server_socket,
    size,
    spamd_request,
    traced_header_section,
)


def spamd_user(text: str) -> str:
    """Checks the name of a user; raises ValueError with a message for people."""
    if not re.fullmatch(r"[\w.@+-]{1,200}", text, re.ASCII):
        raise ValueError(f"{text[:60]!r} is not the name of a user")
    return text


@dataclass(frozen=True)
class SpamAssassin:
    """The score of SpamAssassin, asked of its daemon spamd about mail that comes in.

    The symbol `spamassassin` in [scores] is what each point of its score is worth here.

    spamd is sent the whole message below a Received field that tells of the client and of the sender of the envelope, and
    `user`.  The connection is not encrypted.  What spamd itself tells others of the message, as to lists in the DNS, Razor or
    Pyzor, is up to its own configuration.
    """

    socket: str = option(
        "",
        "Where spamd listens, such as inet:783@127.0.0.1 or unix:/run/spamd.sock; empty: it is not asked.",
        each=server_socket,
    )
    max_connections: int = option(
        5,
        "Messages that a worker asks about at once; more of them wait, within `timeout`.  For all workers together hardly more "
        "than spamd has children (--max-children).",
        at_least=1,
        at_most=1000,
    )
    user: str = option("", "User whose preferences spamd shall take; empty: its own.", each=spamd_user)
    timeout: Seconds = option(
        Seconds(10.0),
        "Time for its answer, at most half of [milter] message_timeout; without one the message goes on.  After three failures "
        "in a row it is only asked every 10 s, until it answers.",
        at_least=0.1,
        at_most=300,
    )
    max_size: Size = option(
        Size(512 * 1024),
        "It is not asked about larger messages, in octets, nor where [milter] scan_size cut the body.",
        at_least=1024,
        at_most=64 * 1024 * 1024,
    )
    max_score: float = option(
        10.0, "What goes beyond that many of its points, below zero too, does not count.", at_least=0, at_most=1000
    )

    @cached_property
    def servers(self) -> Servers:
        """The one."""
        return Servers([parse_socket(self.socket)], self.max_connections, patient=False)


def _asks(config: Config) -> bool:
    return bool(config.of(SpamAssassin).socket)


@check(Stage.EOM, scores={"spamassassin": 0.2}, options=SpamAssassin, wanted=_asks, body=True)
async def spamassassin(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """SpamAssassin gives the message a score."""
    options: SpamAssassin = tools.options
    message = tx.message
    if message.body_cut or size(message) > options.max_size:
        return
    request = spamd_request(traced_header_section(tx, tools.now), message.body, options.user)
    timeout = min(options.timeout, tools.config.milter.message_timeout / 2)
    opinion = await options.servers.ask(request, read_spamd, MAX_OPINION, timeout)
    if opinion.score:
        strength = max(-options.max_score, min(opinion.score, options.max_score))
        yield Finding("spamassassin", str(opinion), strength)
