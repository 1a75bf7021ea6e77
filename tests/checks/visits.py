"""Transactions as checks of state see them, and whole sessions."""

from collections.abc import Callable, Sequence
from ipaddress import ip_address

from authmilter.addresses import parse_path
from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.files import load_files
from authmilter.interfaces import Store
from authmilter.metrics import NullObserver
from authmilter.model import Connection, Direction, Envelope, HeaderField, Mailbox, Message, Stage, Transaction
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action, Ruling, Verdict
from tests.fakes import FakeDNS

SENDER = "jane@sender.example"
RECIPIENT = "joe@site.example"


def mailbox(address: str) -> Mailbox:
    """An address that is not the null reverse-path."""
    path = parse_path(f"<{address}>".encode())
    assert path is not None
    return path


def visit(
    client: str = "192.0.2.7",
    sender: str = SENDER,
    recipients: Sequence[str] = (RECIPIENT,),
    *,
    spf: str = "none",
    for_anyone: bool = False,
    iprev: str = "pass",
    name: str = "mail.sender.example",
    dkim: Sequence[str] = (),
    dmarc: str = "",
    aligned: Sequence[str] = (),
    author: str = SENDER,
    fields: Sequence[tuple[str, str]] = (),
    findings: Sequence[str] = (),
    outbound: bool = False,
    local: bool = False,
    refused_early: bool = False,
) -> Transaction:
    """A message from there; `spf` and `iprev` may be "" for methods that are off, `sender` for the null reverse-path.

    `dkim` are signing domains, with ``!`` before those whose signature is broken; `for_anyone` and `aligned` are those of
    the results of SPF and DMARC.
    """
    path = mailbox(sender) if sender else None
    identifier = path.domain if path else "helo.example"
    results = []
    if iprev:
        results.append(AuthResult("iprev", Result(iprev), name if iprev == "pass" else ""))
    if spf:
        results.append(AuthResult("spf", Result(spf), identifier, for_anyone=for_anyone))
    results += [AuthResult("dkim", Result.FAIL if d[0] == "!" else Result.PASS, d.lstrip("!")) for d in dkim]
    if dmarc:
        results.append(AuthResult("dmarc", Result(dmarc), author.rpartition("@")[2], aligned=tuple(aligned)))
    lines = [HeaderField(b"From", f" <{author}>".encode())] if author else []
    lines += [HeaderField(field.encode(), b" " + value.encode()) for field, value in fields]
    return Transaction(
        connection=Connection(ip_address(client) if client else None, "" if iprev else name),
        envelope=Envelope(
            path,
            tuple(map(mailbox, recipients)),
            direction=Direction.OUTBOUND if outbound else Direction.INBOUND,
            local_submission=local,
        ),
        message=Message(() if refused_early else tuple(lines)),
        results=tuple(results),
        findings=tuple((Stage.CONNECT, Finding(symbol)) for symbol in findings),
    )


def ruling(action: Action = Action.ACCEPT, *scored: tuple[str, float], because: Sequence[str] = ()) -> Ruling:
    """What became of it; without `because`, by its score."""
    reasons = tuple(because) or tuple(symbol for symbol, weight in scored if weight > 0)
    total = sum(weight for _, weight in scored)
    return Ruling(Verdict(action, because=reasons, score=total), enforce=True, scored=scored)


class Sessions:
    """Whole SMTP sessions at a site with that configuration."""

    def __init__(self, config: str, store: Store, dns: FakeDNS, clock: Callable[[], float]) -> None:
        loaded = ini.load(None, config)
        self._rules = build(loaded, all_checks(), load_files(loaded), dns, NullObserver(), clock, store=store)
        self.outcomes: list[Outcome] = []

    async def play(self, client: str, sender: str, recipient: str, *, author: str = "", login: str = "") -> str:
        """The first reply that refuses, else the final action.  `sender` is "" for the null reverse-path."""
        macros = {b"j": b"mx.site.example"} | ({b"{auth_authen}": login.encode()} if login else {})
        session = Session(self._rules, self.outcomes.append)
        await session.connect(b"client", "4", 40000, client.encode(), macros)
        await session.helo(b"mail.sender.example", macros)
        steps = [await session.mail([f"<{sender}>".encode()], macros)]
        steps.append(await session.rcpt([f"<{recipient}>".encode()], macros))
        if steps[-1].reply is None:
            steps.append(await session.data(macros))
        for step in steps:
            if step.reply is not None:
                session.close()
                return f"{step.reply.code} {step.reply.enhanced} {step.reply.text.partition(' [')[0]}"
        lines = {"From": author or sender, "To": recipient, "Date": "Tue, 14 Nov 2023 22:13:20 +0000", "Subject": "x"}
        session.headers([HeaderField(k.encode(), f" {v}".encode()) for k, v in lines.items()])
        await session.end_of_headers(macros)
        session.body(b"hello\r\n")
        verdict = await session.end_of_message(macros)
        session.close()
        await self._rules.pipeline.finish_records(5.0)
        return verdict.action.value

    def found(self) -> dict[str, str]:
        """Symbols of the newest message, and their details."""
        return {finding.symbol: finding.detail for _, finding in self.outcomes[-1].tx.findings}
