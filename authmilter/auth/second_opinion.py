"""What pyspf, dkimpy and authres say of the same message: for an administrator who doubts our answer.

They are not meant for hostile input (a few kilobytes of blanks keep dkimpy busy for minutes), so each runs in a process
of its own, bounded in time and memory, and never in the daemon.
"""

import base64
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from authmilter.addresses import to_ascii_domain
from authmilter.evidence import AuthResult, Result

SECONDS = 20
MEMORY = 1024 * 1024 * 1024
MAX_OUTPUT = 200  # lines
REFERENCES = ("pyspf", "dkimpy", "authres")


class Opinion(NamedTuple):
    """What a reference says: a `word` for each of its results, and a line about each for people.

    A word is a result of RFC 8601; for authres ``method=result``.  A reference that failed has a line and no word.
    """

    words: tuple[str, ...]
    lines: tuple[str, ...]


def ask(
    *,
    ip: str,
    helo: str,
    mail_from: str,
    nameservers: Sequence[str],
    raw: bytes,
    field: str,
    results: Sequence[AuthResult] = (),
    now: float | None = None,
) -> dict[str, list[str]]:
    """Ask all three; every answer is a list of lines, also where a reference failed or took too long.

    `raw` is the message with CRLF line ends, `field` our Authentication-Results value, which authres reads back.
    `now`, in seconds since 1970, is the clock for signatures that expire.  Where `results` are given, ours, the last
    lines say whether the reference agrees, and if not whether that is known of it.
    """
    question = {
        "ip": ip,
        "helo": helo,
        "mail_from": mail_from,
        "nameservers": list(nameservers),
        "raw": base64.b64encode(raw).decode(),
        "field": field,
        "now": time.time() if now is None else now,
    }
    found = {}
    for name in REFERENCES:
        opinion = _ask(name, json.dumps(question).encode())
        found[name] = [*opinion.lines, *(compare(name, opinion, results) if results else ())]
    return found


def _ask(name: str, question: bytes) -> Opinion:
    late = Opinion((), (f"no answer within {SECONDS} s: given up",))
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", "authmilter.auth.second_opinion", name, str(SECONDS), str(MEMORY)],
            input=question,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return late
    if done.returncode in (-signal.SIGKILL, -signal.SIGXCPU):  # its own limit was a moment earlier
        return late
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    failure = Opinion((), (f"failed with status {done.returncode}: {' '.join(last)[:300]}",))
    if done.returncode:
        return failure
    try:
        words, lines = json.loads(done.stdout)
    except ValueError:
        return failure
    return Opinion(tuple(words), tuple(lines))


# -- agreement ---------------------------------------------------------------------------------------------------------


class Defect(NamedTuple):
    """A known defect of a reference: what stands in our result and reason, and in its line, when it shows."""

    ours: str
    theirs: str
    what: str


DEFECTS: dict[str, tuple[Defect, ...]] = {
    "pyspf": (
        Defect(
            "",
            "include has trivial recursion",
            "it takes an include of the record's own domain for a syntax error (RFC 7208 section 4.6)",
        ),
        Defect("", "Too many DNS lookups", "it counts redirect= before it is followed (RFC 7208 section 4.6.4)"),
        Defect("", "MUST appear at most once", "it refuses any modifier that is given twice (RFC 7208 section 6)"),
        Defect("", "Void lookup limit", "it counts void lookups by question, not by term (RFC 7208 section 4.6.4)"),
        Defect("", "(client's name)", "it stops where the client's name can't be had (RFC 7208 section 5.5)"),
        Defect("none: local policy", "", "it knows nothing of our local policy"),
    ),
    "dkimpy": (
        Defect("rsa-sha1 is not accepted", "pass", "it accepts rsa-sha1 (RFC 8301 section 3.1)"),
        Defect("key does not allow sha256", "pass", "it ignores h= of the key (RFC 6376 section 3.6.1)"),
        Defect("key is not for subdomains", "pass", "it ignores t=s of the key (RFC 6376 section 3.6.1)"),
        Defect("From is not signed", "pass", "it does not ask for From to be signed (RFC 6376 section 5.4)"),
        Defect("not all of them signed", "pass", "it does not look for fields added above signed ones"),
        Defect("(l=)", "pass", "it does not look at what follows the signed part of the body (RFC 6376 section 8.2)"),
        Defect("bits is too small", "pass", "its smallest key has 1024 bits, whatever [dkim] min_key_bits says"),
        Defect("has expired", "pass", "it lets ten hours pass beyond x="),
        Defect("in the future", "pass", "it lets t= be ten hours ahead"),
        Defect("too large to be checked", "pass", "it reads messages of any size"),
        Defect("malformed", "pass", "it reads the tags of a signature less strictly"),
        Defect("pass", "IndexError", "it breaks at i= without @, or a header section that begins with a fold"),
        Defect("pass", "Unexpected characters in RFC822 header", "it gives up the message for one odd field name"),
        Defect("pass", "i= domain is not a subdomain", "it does not decode i= (RFC 6376 section 2.11)"),
        Defect("pass", "q= value is not", "it takes no list in q= (RFC 6376 section 3.5)"),
        Defect("pass", "UnknownKeyTypeError: None", "it takes s= of the key for one word (RFC 6376 section 3.6.1)"),
    ),
    "authres": (),
}


def compare(reference: str, opinion: Opinion, results: Sequence[AuthResult]) -> list[str]:
    """ "agrees", or a line for each of our results with which the reference does not agree.

    A result of dkimpy is no more than pass or not, and is compared as such.  Nothing is said where one of the two
    has no result.
    """
    if reference == "authres":
        ours = [f"{'spf' if r.method == 'spf_helo' else r.method}={r.result.value}" for r in results]
        return [] if not opinion.words else ["agrees" if list(opinion.words) == ours else "differs from what we wrote"]
    method = {"pyspf": "spf", "dkimpy": "dkim"}[reference]
    pairs = list(
        zip(
            opinion.words,
            opinion.lines,
            [r for r in results if r.method == method and (r.result is not Result.NONE or method == "spf")],
            strict=False,
        )
    )
    differences = []
    for number, (word, line, result) in enumerate(pairs, 1):
        passes = result.result is Result.PASS
        if word == result.result.value if method == "spf" else (word == "pass") is passes:
            continue
        text = f"{result.result.value}: {result.reason}"
        known = next((d.what for d in DEFECTS[reference] if d.ours in text and d.theirs in line), "")
        which = f"signature {number} differs" if method == "dkim" else "differs"
        differences.append(f"{which}: ours is {text}" + (f"; known of {reference}: {known}" if known else ""))
    return differences or (["agrees"] if pairs else [])


# -- what runs in the processes ----------------------------------------------------------------------------------------


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


def _name(text: str) -> Any:
    """A name to ask for: U-labels as A-labels, and labels that hold anything else as they are, backslashes as well."""
    import dns.name

    text = to_ascii_domain(text) or text
    return dns.name.Name([*(label.encode() for label in text.removesuffix(".").split(".")), b""])


def _pyspf(question: dict[str, Any]) -> Opinion:
    import dns.exception
    import dns.name
    import dns.resolver
    import spf

    resolver = _resolver(question["nameservers"])
    client_names = set()

    def lookup(name: str, qtype: str, strict: bool = True, timeout: float = 20.0) -> list[Any]:  # noqa: ARG001
        try:
            answer = resolver.resolve(_name(name), qtype)
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            return []
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            return []  # a name that can't be asked is not there (RFC 7208 section 4.8)
        except dns.exception.DNSException as error:
            about = "client's name" if qtype == "PTR" or name in client_names else qtype
            raise spf.TempError(f"DNS {error} ({about})") from error
        rows: list[Any] = []
        for record in answer:
            if qtype in ("TXT", "SPF"):
                rows.append(((name, qtype), record.strings))
            elif qtype == "MX":
                rows.append(((name, qtype), (record.preference, str(record.exchange).rstrip("."))))
            elif qtype == "PTR":
                client_names.add(str(record.target).rstrip("."))
                rows.append(((name, qtype), str(record.target).rstrip(".")))
            else:
                rows.append(((name, qtype), record.address))
        return rows

    spf.DNSLookup = lookup
    sender = question["mail_from"].removeprefix("<").removesuffix(">")
    result, explanation = spf.check2(i=question["ip"], s=sender, h=question["helo"])
    return Opinion((result,), (f"{result} for {sender or 'postmaster@' + question['helo']}: {explanation}",))


def _dkimpy(question: dict[str, Any]) -> Opinion:
    import dkim
    import dns.exception

    raw = base64.b64decode(question["raw"])
    resolver = _resolver(question["nameservers"])
    dkim.time = SimpleNamespace(time=lambda: question["now"])  # it has no other way to be told the time

    def txt(name: bytes, timeout: float = 5.0) -> bytes | None:  # noqa: ARG001
        try:
            answer = resolver.resolve(_name(name.decode()), "TXT")
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    count = sum(
        1 for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.lower().startswith(b"dkim-signature:")
    )
    words, lines = [], []
    for i in range(min(count, 10)):
        try:
            word = text = "pass" if dkim.DKIM(raw).verify(idx=i, dnsfunc=txt) else "fail"
        except MemoryError:
            raise  # says nothing of the signature
        except Exception as error:  # IndexError and others escape from it too
            word, text = "fail", f"{type(error).__name__}: {error}"
        words.append(word)
        lines.append(f"signature {i + 1}: {text}")
    return Opinion(tuple(words), tuple(lines) or ("no signature",))


def _authres(question: dict[str, Any]) -> Opinion:
    import authres

    if not question["field"]:
        return Opinion((), ("no field was added",))
    header = authres.AuthenticationResultsHeader.parse("Authentication-Results: " + question["field"])
    words = tuple(f"{result.method}={result.result}" for result in header.results)
    return Opinion(words, (str(header.authserv_id), *(str(result) for result in header.results)))


_ANSWER: dict[str, Callable[[dict[str, Any]], Opinion]] = {"pyspf": _pyspf, "dkimpy": _dkimpy, "authres": _authres}


def answer(name: str, question: dict[str, Any]) -> Opinion:
    """What the reference says, asked in this process; whatever it raises is its answer."""
    try:
        return _ANSWER[name](question)
    except Exception as error:
        return Opinion((), (f"{type(error).__name__}: {error}",))


def main(name: str, seconds: int, memory: int) -> None:
    """The process of one reference: question as JSON on standard input, its opinion as JSON on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    words, lines = answer(name, json.load(sys.stdin))
    json.dump((words[:MAX_OUTPUT], [line[:500] for line in lines[:MAX_OUTPUT]]), sys.stdout)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
