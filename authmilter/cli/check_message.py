"""`authmilter check-message`: the daemon's pipeline over one message, without an MTA."""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from authmilter.config.schema import Config
    from authmilter.session import Outcome

EX_REJECTED, EX_USAGE, EX_DATAERR, EX_TEMPFAIL, EX_CONFIG = 1, 64, 65, 75, 78
MAX_INPUT = 512 * 1024 * 1024
CHUNK = 65536
LAST_SECOND = 253402300800.0  # of the year 9999


def arguments(parser: argparse.ArgumentParser) -> None:
    """The envelope as the MTA would tell it, and the message."""
    parser.add_argument("--ip", required=True, help="address of the client")
    parser.add_argument("--client-name", default="", metavar="NAME", help="its host name, as the MTA verified it")
    parser.add_argument("--helo", required=True, metavar="NAME", help="what it said in HELO or EHLO")
    parser.add_argument("--mail-from", required=True, metavar="ADDRESS", help='reverse-path; "" is the null one')
    parser.add_argument(
        "--rcpt", required=True, nargs="+", action="extend", metavar="ADDRESS",
        help="recipients; one word may hold several, with commas between them",
    )  # fmt: skip
    parser.add_argument("--auth-user", default="", metavar="LOGIN", help="login, for mail that is submitted")
    parser.add_argument("--at", metavar="TIME", help="the clock: ISO 8601, or seconds since 1970")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of text")
    form.add_argument(
        "--answer",
        action="store_true",
        help="for an MTA: a line with the action and, of what is refused, the SMTP reply; then the header fields to put on "
        "top of the message, each above the one before",
    )
    parser.add_argument("--reference", action="store_true", help="ask pyspf, dkimpy and authres for a second opinion")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the message; - is standard input")
    parser.epilog = (
        "In the results the name of the server is [identity] authserv_id, or else the host name of this machine; the daemon takes "
        "it from its MTA instead, as the macro j.  Exit status: 0 neither of these, 1 the message would be refused, 75 deferred, 65 it can't be read, "
        "78 the configuration can't be used."
    )


def run(args: argparse.Namespace) -> int:
    """Judge the message; the exit status tells the verdict."""
    from authmilter.config import ini
    from authmilter.errors import ConfigError
    from authmilter.log import configure

    if args.file is None and len(args.rcpt) > 1:
        args.file = args.rcpt.pop()  # --rcpt takes all that follows it
    if args.file is None:
        print(
            "authmilter check-message: name the FILE that holds the message, or - for standard input", file=sys.stderr
        )
        return EX_USAGE
    try:
        ip_address(args.ip)
        now = time.time() if args.at is None else parse_time(args.at)
        raw = _read(args.file)
    except (ValueError, OSError) as error:
        reason = f"{args.file}: {error.strerror}" if isinstance(error, OSError) and error.strerror else error
        print(f"authmilter check-message: {reason}", file=sys.stderr)
        return EX_DATAERR
    try:
        config = ini.load(ini.find(args.config))
        configure(config.log.format, "error")
        outcome = asyncio.run(judge(config, args, raw, lambda: now))
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EX_CONFIG
    report = as_json(outcome)
    if args.reference:
        from authmilter.auth.second_opinion import ask

        report["reference"] = ask(
            ip=args.ip,
            helo=args.helo,
            mail_from=args.mail_from,
            nameservers=config.dns.nameservers,
            raw=with_crlf(raw),
            field=outcome.authentication_results,
            results=outcome.tx.results,
            now=now,
        )
    if args.answer:
        sys.stdout.buffer.write(answer(report).encode("utf-8", "backslashreplace"))
    elif args.json:
        print(json.dumps(report, indent=2, ensure_ascii=True))
    else:
        from authmilter.cli.message_report import show

        show(report, outcome.ruling.scored)
    return {"reject": EX_REJECTED, "tempfail": EX_TEMPFAIL}.get(report["action"], 0)


def parse_time(text: str) -> float:
    """ISO 8601 (UTC unless it says otherwise) or seconds since 1970."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if 0 <= seconds < LAST_SECOND:
            return seconds
        raise ValueError(f"--at {text}: not between 1970 and 9999")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text}: neither ISO 8601 nor seconds since 1970") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _read(name: str) -> bytes:
    if name == "-":
        raw = sys.stdin.buffer.read(MAX_INPUT + 1)
    else:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_INPUT + 1)
    if len(raw) > MAX_INPUT:
        raise ValueError(f"{name}: larger than {MAX_INPUT // 2**20} MiB")
    if not raw.strip():
        raise ValueError(f"{name}: there is no message in it")
    return raw


_BARE_LF = re.compile(rb"(?<!\r)\n")


def with_crlf(raw: bytes) -> bytes:
    """The message as it travels: CRLF line ends if the first line ends in LF alone; no mbox "From " line."""
    first = raw.find(b"\n")
    if first >= 0 and raw[first - 1 : first] != b"\r":
        raw = _BARE_LF.sub(b"\r\n", raw)
    if raw.startswith((b"From ", b">From ")):
        raw = raw[raw.find(b"\n") + 1 :]
    return raw


def split(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Header fields (name, value with CRLF at its folds) and body of a stored message, as an MTA would see them.

    A line that is no field ends the header section, as it does in Postfix.
    """
    raw = with_crlf(raw)
    fields: list[tuple[bytes, list[bytes]]] = []
    position = 0
    while position < len(raw):
        end = raw.find(b"\r\n", position)
        line = raw[position:] if end < 0 else raw[position:end]
        following = len(raw) if end < 0 else end + 2
        if not line:
            position = following
            break
        if line[:1] in b" \t" and fields:
            fields[-1][1].append(line)
        else:
            name, colon, value = line.partition(b":")
            if not colon or not name or any(c <= 32 or c == 127 for c in name.rstrip(b" \t")):
                break
            fields.append((name, [value]))
        position = following
    return [(name, b"\r\n".join(lines)) for name, lines in fields], raw[position:]


async def judge(config: "Config", args: argparse.Namespace, raw: bytes, clock: Callable[[], float]) -> "Outcome":
    """Play the message through a Session, as an engine would."""
    from authmilter.check import all_checks
    from authmilter.files import load_files
    from authmilter.metrics import NullObserver
    from authmilter.model import HeaderField
    from authmilter.resolver import StubResolver
    from authmilter.session import Outcome, Session, build
    from authmilter.verdict import Action, Reply

    outcomes: list[Outcome] = []
    dns = StubResolver(config.dns)
    rules = build(config, all_checks(), load_files(config), dns, NullObserver(), clock)
    session = Session(rules, outcomes.append)
    address = ip_address(args.ip.partition("%")[0])
    macros = {b"j": (config.identity.authserv_id or _host_name()).encode(), b"i": b"check-message"}
    if args.auth_user:
        macros[b"{auth_authen}"] = _bytes(args.auth_user)
    refused = (Action.REJECT, Action.TEMPFAIL)
    recipients = [address for word in args.rcpt for address in addresses(word)]
    turned_away: list[tuple[str, Reply]] = []

    async def stages() -> None:
        name = _bytes(args.client_name or f"[{address}]")
        if (await session.connect(name, str(address.version), 0, str(address).encode(), macros)).action in refused or (
            await session.helo(_bytes(args.helo), macros)
        ).action in refused:
            return
        if (await session.mail([_path(args.mail_from)], macros)).action in refused:
            return
        for recipient in recipients:
            reply = (await session.rcpt([_path(recipient)], macros)).reply
            if reply is not None:
                turned_away.append((recipient, reply))
        if len(turned_away) == len(recipients):
            outcomes.append(session.no_recipient_left())
            return
        await session.data(macros)
        fields, body = split(raw)
        session.headers([HeaderField(name, value) for name, value in fields])
        if (await session.end_of_headers(macros)).action in refused:
            return
        for start in range(0, len(body), CHUNK):
            if not session.body(body[start : start + CHUNK]):
                break
        await session.end_of_message(macros)

    try:
        await stages()
    finally:
        session.close()
        dns.close()
    return replace(outcomes[-1], refused=tuple(turned_away))


_ADDRESS = re.compile(r'(?:[^",\\]|\\.?|"(?:[^"\\]|\\.?)*"?)+', re.DOTALL)


def addresses(text: str) -> list[str]:
    """The addresses of a list with commas; those in quotes belong to a local part (RFC 5321 section 4.1.2)."""
    return [found for match in _ADDRESS.finditer(text) if (found := match[0].strip())] or [text]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _path(address: str) -> bytes:
    raw = _bytes(address)
    return raw if raw.startswith(b"<") else b"<" + raw + b">"


def _host_name() -> str:
    import socket

    return socket.gethostname()


def _take(weights: list[tuple[str, float]], symbol: str) -> float:
    """What the next finding of that symbol weighed."""
    for i, (name, weight) in enumerate(weights):
        if name == symbol:
            del weights[i]
            return weight
    return 0.0


def answer(report: dict[str, Any]) -> str:
    """What an MTA is to do by that object: a line with the action and the reply, then the fields to insert.

    They stand in the order in which they go to the top of the message, each above the one before, and fold with LF and a
    blank or a tab.  Those that are to be taken away are not named.
    """
    action, reply = report["action"], report["reply"]
    if not report["enforced"] and action != "tag":
        action, reply = "accept", None
    line = f"{action} {reply['code']} {reply['enhanced']} {reply['text']}" if reply else action
    fields = [f"{edit['name']}: {edit['value']}" for edit in report["edits"] if edit["op"] == "insert"]
    return "".join(f"{entry}\n" for entry in (line, *fields))


def as_json(outcome: "Outcome") -> dict[str, Any]:
    """The object of the contract."""
    verdict = outcome.ruling.verdict
    weights = list(outcome.ruling.scored)
    reply = verdict.reply
    return {
        "action": verdict.action.value,
        "stage": outcome.stage.label,
        "direction": outcome.tx.envelope.direction.label,
        "score": verdict.score,
        "reply": {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text} if reply else None,
        "results": [
            {
                "method": result.method,
                "result": result.result.value,
                "identifier": result.identifier,
                "properties": dict(result.properties),
                "reason": result.reason,
            }
            for result in outcome.tx.results
        ],
        "findings": [
            {
                "symbol": finding.symbol,
                "score": _take(weights, finding.symbol),
                "detail": finding.detail,
                "stage": stage.label,
            }
            for stage, finding in outcome.tx.findings
        ],
        "authentication_results": outcome.authentication_results,
        "edits": [{"op": edit.op, "index": edit.at, "name": edit.name, "value": edit.value} for edit in verdict.edits],
        "refused_recipients": [
            {"address": address, "reply": {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}}
            for address, reply in outcome.refused
        ],
        "because": list(verdict.because),
        "enforced": outcome.ruling.enforce,
        "ref": outcome.reference,
        "queue_id": outcome.tx.queue_id,
        "signed": outcome.signed,
    }
