"""What rspamd thinks of a message, as a further opinion."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

from authmilter import secret_file
from authmilter.check import Tools, check
from authmilter.config.option import FilePath, Seconds, Size, option, shown
from authmilter.config.schema import Config
from authmilter.errors import ScanError
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


def settings_id(text: str) -> str:
    """Checks the name of settings; raises ValueError with a message for people."""
    if not re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII):
        raise ValueError(f"{shown(text)} is not the id of settings")
    return text


@dataclass(frozen=True)
class Rspamd:
    """The score of rspamd, asked about mail that comes in.

    The symbol `rspamd` in [scores] is what each point of its score is worth here.  What it would do to the message does not
    count, so it may do without greylisting and rate limits.

    rspamd is sent the whole message, the address and name of the client, its HELO, our own name, the queue ID, sender and up
    to 100 recipients.  The connection is not encrypted.  What rspamd itself tells others of the message, as to lists in the
    DNS or fuzzy storages, is up to its own configuration.
    """

    url: str = option(
        "", "Where it is asked, such as http://127.0.0.1:11333/checkv2; empty: it is not asked.", each=http_url
    )
    password_file: FilePath = option(
        FilePath(""),
        "File whose first line is the password that its controller asks for; its normal worker asks for none.",
    )
    settings: str = option(
        "", "The id of settings of rspamd (Settings-ID) that these messages shall have.", each=settings_id
    )
    max_connections: int = option(
        50,
        "Messages that a worker asks about at once; more of them wait, within `timeout`.",
        at_least=1,
        at_most=1000,
    )
    timeout: Seconds = option(
        Seconds(10.0),
        "Time for its answer, at most half of [milter] message_timeout; without one the message goes on.  After three failures "
        "in a row it is only asked every 10 s, until it answers.",
        at_least=0.1,
        at_most=300,
    )
    max_size: Size = option(
        Size(2 * 1024 * 1024),
        "It is not asked about larger messages, in octets, nor where [milter] scan_size cut the body.",
        at_least=1024,
        at_most=64 * 1024 * 1024,
    )
    max_score: float = option(
        15.0, "What goes beyond that many of its points, below zero too, does not count.", at_least=0, at_most=1000
    )

    @cached_property
    def servers(self) -> Servers:
        """The one."""
        return Servers([web_server(self.url)], self.max_connections, patient=False)

    @cached_property
    def password(self) -> str:
        """The first line of `password_file`; raises ValueError with a text for the administrator."""
        if not self.password_file:
            return ""
        line = secret_file.read(self.password_file, "password", 257).partition(b"\n")[0].rstrip(b"\r")
        if not 0 < len(line) <= 256 or not line.isascii() or not line.decode("ascii").isprintable():
            raise ValueError(
                f"{self.password_file}: its first line is no password of up to 256 printable ASCII characters"
            )
        return line.decode("ascii")


def _asks(config: Config) -> bool:
    return bool(config.of(Rspamd).url)


@check(Stage.EOM, scores={"rspamd": 0.15}, options=Rspamd, wanted=_asks, body=True)
async def rspamd(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """rspamd gives the message a score."""
    options: Rspamd = tools.options
    message = tx.message
    if message.body_cut or size(message) > options.max_size:
        return
    try:
        password = options.password
    except ValueError as error:
        raise ScanError(str(error)) from None
    request = rspamd_request(
        tx, options.url, header_section(message), message.body, settings=options.settings, password=password
    )
    timeout = min(options.timeout, tools.config.milter.message_timeout / 2)
    opinion = await options.servers.ask(request, read_rspamd, MAX_OPINION, timeout)
    if opinion.score:
        strength = max(-options.max_score, min(opinion.score, options.max_score))
        yield Finding("rspamd", str(opinion), strength)
