"""Broken and odd messages through a whole Session: each gets a verdict and one field of results, within bounds.

Nothing is expected of the verdict itself.  The header section is cut as an MTA does it, and the body comes in pieces.
"""

import json
import time
from collections.abc import Iterator
from functools import partial

from authmilter.check import all_checks
from authmilter.cli.check_message import split
from authmilter.config.schema import Config
from authmilter.files import load_files
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.suite import Case, Suite

MAX_QUESTIONS = 200  # to the DNS, for one message
MAX_SECONDS = 1.0  # of CPU for one message; the largest has some 100 KB, and the mean is a thousandth
DECIDED = (Action.ACCEPT, Action.TAG, Action.REJECT)


class Errors(NullObserver):
    """Remembers what went wrong within."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def check_error(self, name: str, kind: str) -> None:
        self.seen.append(f"{name} {kind}")


def messages() -> Iterator[Case]:
    """Every message of malformed-mime."""
    folder = shared("malformed-mime")
    for line in (folder / "index.jsonl").read_text().splitlines():
        name = json.loads(line)["file"]
        yield Case(name, ("decided",), partial(judge, (folder / name).read_bytes()))


async def judge(raw: bytes) -> str:
    """ "decided", or what is wrong."""
    fields, body = split(raw)
    observer, dns, config = Errors(), FakeDNS(), Config()
    outcomes: list[Outcome] = []
    rules = build(config, all_checks(), load_files(config), dns, observer, lambda: 1.7e9)
    session = Session(rules, outcomes.append)
    macros = {b"j": b"mx.example.net", b"i": b"4ABC"}
    started = time.process_time()
    await session.connect(b"client.example", "4", 25, b"192.0.2.1", macros)
    await session.helo(b"client.example", macros)
    await session.mail([b"<a@sender.example>"], macros)
    await session.rcpt([b"<b@example.net>"], macros)
    await session.data(macros)
    session.headers([HeaderField(name, value) for name, value in fields])
    await session.end_of_headers(macros)
    for start in range(0, len(body), 997):
        session.body(body[start : start + 997])
    verdict = await session.end_of_message(macros)
    seconds = time.process_time() - started
    session.close()
    inserted = [edit for edit in verdict.edits if edit.op == "insert" and edit.name == "Authentication-Results"]
    text = "".join(edit.value for edit in inserted).replace("\n\t", "")
    problems = {
        f"errors {observer.seen}": bool(observer.seen),
        f"{verdict.action}": verdict.action not in DECIDED,
        f"{len(outcomes)} outcomes": len(outcomes) != 1,
        f"{len(inserted)} fields": len(inserted) != 1,
        f"unprintable field {text!r}": not (text.isascii() and text.isprintable()),
        f"{len(dns.asked)} questions": len(dns.asked) > MAX_QUESTIONS,
        f"{seconds:.1f} s": seconds > MAX_SECONDS,
        "bytes lost": [outcome.tx.message.body_size for outcome in outcomes] != [len(body)],
    }
    return ", ".join(problem for problem, there in problems.items() if there) or "decided"


MALFORMED = Suite("malformed MIME", "malformed-mime", 448, messages)
SUITES = (MALFORMED,)
