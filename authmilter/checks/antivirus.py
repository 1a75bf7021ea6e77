"""Malware, as clamd finds it, in mail that comes and in mail that goes."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from authmilter.check import Tools, Words, check
from authmilter.config.endpoint import parse_socket
from authmilter.config.option import Names, Seconds, Size, Weight, option
from authmilter.config.schema import Config
from authmilter.evidence import Finding
from authmilter.model import Direction, Stage, Transaction
from authmilter.scanners import (
    MAX_VERDICT,
    Servers,
    clamd_request,
    read_clamd,
    server_socket,
    size,
    traced_header_section,
)
from authmilter.verdict import Action


@dataclass(frozen=True)
class Antivirus:
    """Malware in mail, found by clamd of ClamAV; 554 5.7.1 by default.

    `antivirus_found = quarantine` in [scores] holds such messages instead of refusing them; for mail of ours that is
    `outbound_antivirus_found`.
    """

    clamd: Names = option(
        (),
        "Where clamd listens, such as unix:/run/clamav/clamd.ctl or inet:3310@127.0.0.1; empty: nothing is scanned.  Of several "
        "the first is asked, and each other one where those before it do not answer.  The connection is not encrypted.",
        each=server_socket,
    )
    timeout: Seconds = option(
        Seconds(30.0),
        "Time for the scan of a message, which several clamd share; at most half of [milter] message_timeout.",
        at_least=0.1,
        at_most=600,
    )
    max_size: Size = option(
        Size(25 * 1024 * 1024),
        "Octets of a message that are scanned, from its beginning.  clamd must take as many (StreamMaxLength in clamd.conf), "
        "and of the body there are never more than [milter] scan_size.",
        at_least=1024,
        at_most=1024**3,
    )
    suspicious: Names = option(
        ("Heuristics.", "PUA."),
        "Beginnings of names that are no proof of malware, but what looks like it: antivirus_suspicious, which has a weight.",
    )
    outbound: bool = option(True, "Scan mail of our users and of clients in [networks] internal too.")
    on_error: Literal["accept", "defer"] = option(
        "accept",
        "accept or defer (451 4.7.1) where no clamd answers; what is deferred is sent again, and scanned then.",
    )

    @cached_property
    def servers(self) -> Servers:
        """All of them."""
        return Servers([parse_socket(text) for text in self.clamd])


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
_UNSCANNED = Words("7.1", lambda *_: "Message could not be scanned for malware for now, please try again later")


@check(
    Stage.EOM,
    scores={"antivirus_found": Action.REJECT, "antivirus_suspicious": 2.0, "antivirus_cut": 0.0},
    options=Antivirus,
    wanted=_scans,
    dynamic=_on_error,
    replies={
        "antivirus_found": _FOUND,
        "antivirus_suspicious": _FOUND,
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
    wanted=_scans_outbound,
    direction=Direction.OUTBOUND,
    dynamic=_on_error_outbound,
    replies={
        "outbound_antivirus_found": _FOUND,
        "outbound_antivirus_suspicious": _FOUND,
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
    header = traced_header_section(tx, tools.now)
    timeout = min(options.timeout, tools.config.milter.message_timeout / 2)
    request = clamd_request(header, message.body, options.max_size)
    name = await options.servers.ask(request, read_clamd, MAX_VERDICT, timeout)
    if name:
        suspicious = name.startswith(tuple(options.suspicious))
        yield Finding(f"{prefix}antivirus_{'suspicious' if suspicious else 'found'}", name)
    elif message.body_cut or len(header) + len(message.body) > options.max_size:
        yield Finding(f"{prefix}antivirus_cut", f"scanned up to {min(size(message), options.max_size)} octets")
