"""Macros of documents, as olevba of oletools reads them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.check import Tools, Words, check
from authmilter.config.option import Seconds, Size, option
from authmilter.errors import ScanError
from authmilter.evidence import Finding
from authmilter.filetype import file_type
from authmilter.macro_reader import read_macros
from authmilter.mime import Part, mime
from authmilter.model import Stage, Transaction
from authmilter.office import traits

MAX_DOCUMENTS = 3  # of a message
_KINDS = ("office-ole", "office-zip")
_at_once = asyncio.Semaphore(2)  # in each of our processes


@dataclass(frozen=True)
class Macros:
    """Macros of attached documents, read by olevba of oletools (`pip install authmilter[macros]`), which knows more words
    and ways to hide them than [attachments] does by itself.

    Documents that [attachments] finds to have macros are read, others not.  Each takes about half a second of a process of
    its own, bounded in time and memory; without oletools, or where it fails, there is `macros_unread`, which weighs nothing.
    """

    enabled: bool = option(False, "Have macros read by oletools.")
    timeout: Seconds = option(Seconds(5.0), "How long olevba may take for a document.", at_least=1, at_most=60)
    max_size: Size = option(Size(8 * 1024 * 1024), "Larger documents are not read.", at_least=1024)


def _words(_: Transaction, detail: str) -> str:
    return f"Documents with macros that run by themselves are not accepted here: {detail}; please send it without them"


@check(
    Stage.EOM,
    body=True,
    scores={"macros_autorun": 1.0, "macros_suspicious": 1.0, "macros_unread": 0.0},
    meanings={
        "macros_autorun": "Macros that run by themselves.",
        "macros_suspicious": "Macros that do what malware does.",
        "macros_unread": "A document that olevba could not read, or not in time, or for which it is not installed.",
    },
    options=Macros,
    replies={symbol: Words("7.1", _words) for symbol in ("macros_autorun", "macros_suspicious")},
)
async def macros(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """Macros in documents that run by themselves, or do what malware does, by olevba."""
    found: dict[str, Finding] = {}
    documents = 0
    for part in mime(tx.message).parts:
        kind = file_type(part.data) if _may_be_document(part) else ""
        if kind not in _KINDS or "macro" not in traits(part.data, kind):
            continue
        name = part.names[0][:60] if part.names else part.type
        documents += 1
        if documents > MAX_DOCUMENTS or len(part.data) > tools.options.max_size:
            found.setdefault("macros_unread", Finding("macros_unread", f"{name}: too many, or too large"))
            continue
        try:
            async with _at_once:
                read = await read_macros(part.data, tools.options.timeout)
        except (ScanError, OSError) as error:
            found.setdefault("macros_unread", Finding("macros_unread", f"{name}: {error}"))
            continue
        for symbol, words in (("macros_autorun", read.autorun), ("macros_suspicious", read.suspicious)):
            if words:
                found.setdefault(symbol, Finding(symbol, f"{name}: {', '.join(words)}"))
    for finding in found.values():
        yield finding


def _may_be_document(part: Part) -> bool:
    return part.is_leaf and (bool(part.names) or not part.type.startswith("text/"))
