"""What rspamd thinks of a message, as a further opinion."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

from authmilter.check import Tools, check
from authmilter.config.option import Seconds, Size, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.scanners import (
    MAX_OPINION,
    Servers,
    header_section,
    http_url,
    read_rspamd,
    rspamd_request,
    size,
    web_server,
)


@dataclass(frozen=True)
class Rspamd:
    """The score of rspamd.

    The symbol `rspamd` in [scores] is what each point of its score is worth here.  What it would do to the message does not
    count, so it may do without greylisting and rate limits.
    """

    url: str = option(
        "", "Where it is asked, such as http://127.0.0.1:11333/checkv2; empty: it is not asked.", each=http_url
    )
    timeout: Seconds = option(
        Seconds(10.0), "Time for its answer; without one the message goes on.", at_least=0.1, at_most=300
    )
    max_size: Size = option(
        Size(2 * 1024 * 1024),
        "It is not asked about larger messages, in octets.",
        at_least=1024,
        at_most=64 * 1024 * 1024,
    )
    max_score: float = option(
        15.0, "What goes beyond that many of its points, below zero too, does not count.", at_least=0, at_most=1000
    )

    @cached_property
    def servers(self) -> Servers:
        """The one."""
        return Servers([web_server(self.url)], patient=False)


def _asks(config: Config) -> bool:
    return bool(config.of(Rspamd).url)


@check(Stage.EOM, scores={"rspamd": 0.15}, options=Rspamd, wanted=_asks, body=True)
async def rspamd(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """rspamd gives the message a score."""
    options: Rspamd = tools.options
    message = tx.message
    if message.body_cut or size(message) > options.max_size:
        return
    request = rspamd_request(tx, options.url, header_section(message), message.body)
    timeout = min(options.timeout, tools.config.milter.message_timeout / 2)
    opinion = await options.servers.ask(request, read_rspamd, MAX_OPINION, timeout)
    if opinion.score:
        strength = max(-options.max_score, min(opinion.score, options.max_score))
        yield Finding("rspamd", str(opinion), strength)
