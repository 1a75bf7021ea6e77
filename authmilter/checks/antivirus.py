"""Malware, as clamd finds it, in mail that comes and in mail that goes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from authmilter.check import Tools, Words, check
from authmilter.config.endpoint import parse_socket
from authmilter.config.option import Names, Seconds, Size, Weight, option
from authmilter.config.schema import Config
from authmilter.errors import ScanError
from authmilter.evidence import Finding
from authmilter.mime import Part, mime, parts
from authmilter.model import Direction, Message, Stage, Transaction
from authmilter.scanners import (
    MAX_VERDICT,
    Servers,
    TooLargeError,
    archive,
    clamd_request,
    read_clamd,
    server_socket,
    size,
    traced_header_section,
)
from authmilter.verdict import Action

log = logging.getLogger("authmilter.checks.antivirus")

_MOST = 2**31  # octets that INSTREAM could tell of in one chunk, and more than is ever kept


@dataclass(frozen=True)
class Antivirus:
    """Malware in mail, found by clamd of ClamAV; 554 5.7.1 by default.

    clamd is sent the whole message, as far as it is kept, below a Received field that tells of the client and of the sender
    of the envelope.  Attachments go there a second time, as our own MIME reader decodes them: programs that read mail differ
    in what they take for an attachment, and clamd is one of them.  Nothing else is told, and to nobody else.

    `antivirus_found = quarantine` in [scores] holds messages with malware instead of refusing them; for mail of ours that
    is `outbound_antivirus_found`.  `antivirus_cut` is found where a message is too large or nested to be scanned as a whole:
    it has no weight, and may be given one, or an action.  What could not be scanned for the time being, for whatever reason,
    is `antivirus_temperror`; see `on_error`.

    Mail of [networks] trusted_relays is not scanned, nor is what is submitted by the sendmail command.
    """

    clamd: Names = option(
        (),
        "Where clamd listens, such as unix:/run/clamav/clamd.ctl or inet:3310@127.0.0.1; empty: nothing is scanned.  Of several "
        "the first is asked, and each other one where those before it do not answer or are busy; one that fails is tried again "
        "after 10 s.  The connection is not encrypted.",
        each=server_socket,
    )
    timeout: Seconds = option(
        Seconds(30.0),
        "Time for the scan of a message, which several clamd share; at most half of [milter] message_timeout.  One that has "
        "failed three times in a row has 2 s until it answers again.",
        at_least=0.1,
        at_most=600,
    )
    max_size: Size = option(
        Size(0),
        "Octets of a message that are scanned, from its beginning, and again of its decoded attachments; 0: all that is there, "
        "which of a body is up to [milter] scan_size.  clamd must take as many (StreamMaxLength in clamd.conf).",
        at_least=0,
        at_most=1024**3,
    )
    max_connections: int = option(
        10,
        "Scans that a worker has under way at each clamd at once; more of them wait, within `timeout`.  For all workers "
        "together no more than MaxQueue in clamd.conf.",
        at_least=1,
        at_most=1000,
    )
    suspicious: Names = option(
        ("Heuristics.", "PUA.", "BC.Heuristics."),
        "Beginnings of names that are no proof of malware, but what looks like it: antivirus_suspicious, which has a weight.  "
        "With names other than these clamd stops at what it finds first, and is silent on what may be worse.  Those that shall "
        "count for nothing belong into an .ign2 file of clamd.",
    )
    outbound: bool = option(True, "Scan mail of our users and of clients in [networks] internal too.")
    on_error: Literal["accept", "defer"] = option(
        "accept",
        "accept or defer (451 4.7.1) where no clamd answers, or a message could not be scanned for want of time or memory; what is "
        "deferred is sent again, and scanned then.",
    )

    @cached_property
    def servers(self) -> Servers:
        """All of them."""
        return Servers([parse_socket(text) for text in self.clamd], self.max_connections)


def _scans(config: Config) -> bool:
    return bool(config.of(Antivirus).clamd)


def _scans_outbound(config: Config) -> bool:
    return _scans(config) and config.of(Antivirus).outbound


def _on_error(config: Config) -> Mapping[str, Weight]:
    """To observe is to defer nothing."""
    defers = config.of(Antivirus).on_error == "defer" and config.policy.preset != "observe"
    return {"antivirus_temperror": Action.TEMPFAIL} if defers else {}


def _on_error_outbound(config: Config) -> Mapping[str, Weight]:
    return {"outbound_antivirus_temperror": Action.TEMPFAIL} if config.of(Antivirus).on_error == "defer" else {}


_FOUND = Words("7.1", lambda _, name: f"Message contains malware: {name}", permanent=554)
_SUSPICIOUS = Words("7.1", lambda _, name: f"Message contains what looks like malware: {name}", permanent=554)
_CUT = Words("7.1", lambda *_: "Message is too large or too nested to be scanned for malware, please send less at once")
_UNSCANNED = Words("7.1", lambda *_: "Message could not be scanned for malware for now, please try again later")


@check(
    Stage.EOM,
    scores={"antivirus_found": Action.REJECT, "antivirus_suspicious": 2.0, "antivirus_cut": 0.0},
    meanings={
        "antivirus_found": "Malware.",
        "antivirus_suspicious": "Something whose name [antivirus] has under `suspicious`: it looks like malware, and may be none.",
        "antivirus_cut": "Part of the message was not scanned, for it is too large or too nested.",
    },
    options=Antivirus,
    wanted=_scans,
    dynamic=_on_error,
    replies={
        "antivirus_found": _FOUND,
        "antivirus_suspicious": _SUSPICIOUS,
        "antivirus_cut": _CUT,
        "antivirus_temperror": _UNSCANNED,
    },
    body=True,
)
async def antivirus(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """clamd knows malware in the message."""
    async for finding in _scan(tx, tools, ""):
        yield finding


@check(
    Stage.EOM,
    scores={
        "outbound_antivirus_found": Action.REJECT,
        "outbound_antivirus_suspicious": 0.0,
        "outbound_antivirus_cut": 0.0,
    },
    meanings={
        "outbound_antivirus_found": "Malware.",
        "outbound_antivirus_suspicious": "Something whose name [antivirus] has under `suspicious`.",
        "outbound_antivirus_cut": "Part of the message was not scanned.",
    },
    wanted=_scans_outbound,
    direction=Direction.OUTBOUND,
    dynamic=_on_error_outbound,
    replies={
        "outbound_antivirus_found": _FOUND,
        "outbound_antivirus_suspicious": _SUSPICIOUS,
        "outbound_antivirus_cut": _CUT,
        "outbound_antivirus_temperror": _UNSCANNED,
    },
    body=True,
)
async def outbound_antivirus(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """clamd knows malware in a message of ours; [antivirus] has the options."""
    async for finding in _scan(tx, tools, "outbound_"):
        yield finding


async def _scan(tx: Transaction, tools: Tools, prefix: str) -> AsyncIterator[Finding]:
    options: Antivirus = tools.config.of(Antivirus)
    message = tx.message
    most = options.max_size or _MOST
    now = asyncio.get_running_loop().time
    deadline = now() + min(options.timeout, tools.config.milter.message_timeout / 2)
    suspicious = refused = ""
    complete = True
    content = [traced_header_section(tx, tools.now), message.body]
    beyond = sum(map(len, content)) > most
    for again in (False, True):
        if again:
            content, complete = archive(_attached(message), most)
            if not content:
                break
        try:
            name = await options.servers.ask(clamd_request(content, most), read_clamd, MAX_VERDICT, deadline - now())
        except TooLargeError as error:
            refused = str(error)
            continue
        if name and not name.startswith(tuple(options.suspicious)):
            # The line about the message has the name only where it is refused.
            log.info("queue ID %s: clamd found %s", tx.queue_id, name)
            yield Finding(f"{prefix}antivirus_found", name)
            return
        suspicious = suspicious or name
    if suspicious:
        log.info("queue ID %s: clamd found %s", tx.queue_id, suspicious)
        yield Finding(f"{prefix}antivirus_suspicious", suspicious)
    if message.out_of_room:
        raise ScanError(f"scanned up to {size(message)} octets: too many bodies are kept at once for more")
    cut = refused or _cut(message, most if beyond or not complete else 0)
    if cut:
        yield Finding(f"{prefix}antivirus_cut", cut)


def _cut(message: Message, limit: int) -> str:
    """Why it can't be scanned as a whole, "" if it can; `limit` is what clamd shall not be sent more than, if it would be."""
    if message.body_cut or limit:
        return f"scanned up to {min(size(message), limit or size(message))} octets"
    if message.oversized:  # such as a Content-Type beyond the limits of the header section
        return f"{message.oversized} too large"
    return next((f"too many: {o.detail}" for o in mime(message).oddities if o.name == "limits"), "")


def _attached(message: Message) -> Iterator[bytes]:
    """The contents of all that may become a file, decoded, in every reading."""
    known: set[bytes] = set()
    for part in parts(message):
        if part.is_leaf and not _is_text(part) and part.data and part.data not in known:
            known.add(part.data)
            yield part.data


def _is_text(part: Part) -> bool:
    """Is it what everybody shows as text, and clamd reads as such?"""
    plain = part.type in ("text/plain", "text/html") and part.kind == "part" and not part.alternative
    return plain and not part.names
