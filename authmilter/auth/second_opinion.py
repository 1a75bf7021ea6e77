"""What pyspf, dkimpy and authres say of the same message: for an administrator who doubts our answer.

They are not meant for hostile input (a few kilobytes of blanks keep dkimpy busy for minutes), so each runs in a process
of its own, bounded in time and memory, and never in the daemon.
"""

import base64
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

SECONDS = 20
MEMORY = 1024 * 1024 * 1024
MAX_OUTPUT = 200  # lines
REFERENCES = ("pyspf", "dkimpy", "authres")


def ask(
    *, ip: str, helo: str, mail_from: str, nameservers: Sequence[str], raw: bytes, field: str
) -> dict[str, list[str]]:
    """Ask all three; every answer is a list of lines, also where a reference failed or took too long.

    `raw` is the message with CRLF line ends, `field` our Authentication-Results value, which authres reads back.
    """
    question = json.dumps(
        {
            "ip": ip,
            "helo": helo,
            "mail_from": mail_from,
            "nameservers": list(nameservers),
            "raw": base64.b64encode(raw).decode(),
            "field": field,
        }
    ).encode()
    return {name: _ask(name, question) for name in REFERENCES}


def _ask(name: str, question: bytes) -> list[str]:
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", "authmilter.auth.second_opinion", name],
            input=question,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"no answer within {SECONDS} s: given up"]
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return [f"failed with status {done.returncode}: {' '.join(last)[:300]}"]
    return done.stdout.decode("utf-8", "replace").splitlines()[:MAX_OUTPUT]


def _resolver(nameservers: Sequence[str]) -> Any:
    import dns.nameserver
    import dns.resolver

    resolver = dns.resolver.Resolver(configure=not nameservers)
    if nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*_server(text)) for text in nameservers]
    resolver.lifetime = 5.0
    return resolver


def _server(text: str) -> tuple[str, int]:
    """Address and port of a nameserver of the configuration."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port.removeprefix(":") or 53)
    host, colon, port = text.rpartition(":")
    return (text, 53) if not colon or ":" in host else (host, int(port))


def _pyspf(question: dict[str, Any]) -> list[str]:
    import dns.exception
    import dns.resolver
    import spf

    resolver = _resolver(question["nameservers"])

    def lookup(name: str, qtype: str, strict: bool = True, timeout: float = 20.0) -> list[Any]:  # noqa: ARG001
        try:
            answer = resolver.resolve(name.rstrip(".") + ".", qtype)
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            return []
        except dns.exception.DNSException as error:
            raise spf.TempError(f"DNS {error}") from error
        rows: list[Any] = []
        for record in answer:
            if qtype in ("TXT", "SPF"):
                rows.append(((name, qtype), record.strings))
            elif qtype == "MX":
                rows.append(((name, qtype), (record.preference, str(record.exchange).rstrip("."))))
            elif qtype == "PTR":
                rows.append(((name, qtype), str(record.target).rstrip(".")))
            else:
                rows.append(((name, qtype), record.address))
        return rows

    spf.DNSLookup = lookup
    sender = question["mail_from"].strip("<>")
    result, explanation = spf.check2(i=question["ip"], s=sender, h=question["helo"])
    return [f"{result} for {sender or 'postmaster@' + question['helo']}: {explanation}"]


def _dkimpy(question: dict[str, Any]) -> list[str]:
    import dkim
    import dns.exception

    raw = base64.b64decode(question["raw"])
    resolver = _resolver(question["nameservers"])

    def txt(name: bytes, timeout: float = 5.0) -> bytes | None:  # noqa: ARG001
        try:
            answer = resolver.resolve(name.decode().rstrip(".") + ".", "TXT")
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    count = sum(
        1 for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.lower().startswith(b"dkim-signature:")
    )
    if not count:
        return ["no signature"]
    lines = []
    for i in range(min(count, 10)):
        verifier = dkim.DKIM(raw)
        try:
            good = verifier.verify(idx=i, dnsfunc=txt)
            lines.append(f"signature {i + 1}: {'pass' if good else 'fail'}")
        except dkim.DKIMException as error:
            lines.append(f"signature {i + 1}: {type(error).__name__}: {error}")
    return lines


def _authres(question: dict[str, Any]) -> list[str]:
    import authres

    if not question["field"]:
        return ["no field was added"]
    header = authres.AuthenticationResultsHeader.parse("Authentication-Results: " + question["field"])
    return [str(header.authserv_id), *(str(result) for result in header.results)]


_ANSWER: dict[str, Callable[[dict[str, Any]], list[str]]] = {"pyspf": _pyspf, "dkimpy": _dkimpy, "authres": _authres}


def main(name: str) -> int:
    """The process of one reference: question as JSON on standard input, lines on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    question = json.load(sys.stdin)
    try:
        lines = _ANSWER[name](question)
    except Exception as error:  # whatever a reference raises is its answer
        lines = [f"{type(error).__name__}: {error}"]
    sys.stdout.write("\n".join(line[:500] for line in lines) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
