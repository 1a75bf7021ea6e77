"""SMTP replies: which code and words a symbol is refused with (RFC 3463, RFC 7372, RFC 9989 section 7.2).

A text names the method and the domain, never weights or thresholds, and ends in the reference id that the log carries.
"""

from collections.abc import Callable
from typing import NamedTuple

from authmilter.evidence import AuthResult, Result
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action, Reply


class _Words(NamedTuple):
    """Enhanced code without its class digit, and the text."""

    detail: str
    text: Callable[[Transaction], str]


def _result(tx: Transaction, method: str) -> AuthResult:
    return next((r for r in tx.results if r.method == method), AuthResult(method, Result.NONE))


def _finding(tx: Transaction, symbol: str) -> str:
    return next((finding.detail for _, finding in tx.findings if finding.symbol == symbol), "")


def _client(tx: Transaction) -> str:
    return str(tx.connection.client_ip or "the client")


def _spf_fail(method: str) -> Callable[[Transaction], str]:
    def text(tx: Transaction) -> str:
        result = _result(tx, method)
        domain = result.identifier or "the sender's domain"
        text = f"SPF fail: {_client(tx)} is not allowed to send mail for {domain}"
        # RFC 7208 section 8.4: it must be plain that an explanation is not ours.
        return f"{text}; {domain} explained: {result.explanation}" if result.explanation else text

    return text


def _dmarc_fail(tx: Transaction) -> str:
    return f"Email rejected per DMARC policy for {_result(tx, 'dmarc').identifier or 'the author domain'}"


def _unanswered(method: str, what: str) -> Callable[[Transaction], str]:
    def text(tx: Transaction) -> str:
        domain = _result(tx, method).identifier
        return f"{what}{f' of {domain}' if domain else ''} could not be checked for now, please try again later"

    return text


_WORDS: dict[str, _Words] = {
    "spf_fail": _Words("7.23", _spf_fail("spf")),
    "spf_fail_no_dmarc_pass": _Words("7.23", _spf_fail("spf")),
    "spf_helo_fail": _Words("7.23", _spf_fail("spf_helo")),
    "spf_permerror": _Words("7.24", lambda tx: f"SPF record of {_result(tx, 'spf').identifier} can't be used"),
    "spf_temperror": _Words("7.24", _unanswered("spf", "SPF")),
    "iprev_fail": _Words("7.25", lambda tx: f"Reverse DNS of {_client(tx)} is not confirmed by its forward DNS"),
    "iprev_permerror": _Words("7.25", lambda tx: f"{_client(tx)} has no reverse DNS"),
    "iprev_temperror": _Words("7.25", _unanswered("iprev", "Reverse DNS")),
    "dkim_none": _Words("7.20", lambda _: "No DKIM signature"),
    "dkim_fail": _Words("7.21", lambda _: "No acceptable DKIM signature"),
    "dkim_temperror": _Words("7.5", _unanswered("dkim", "DKIM signature")),
    "arc_fail": _Words("7.29", lambda _: "ARC validation failed"),
    "dmarc_fail": _Words("7.1", _dmarc_fail),
    "dmarc_fail_none": _Words("7.1", _dmarc_fail),
    "dmarc_fail_quarantine": _Words("7.1", _dmarc_fail),
    "dmarc_fail_reject": _Words("7.1", _dmarc_fail),
    "dmarc_fail_reject_corroborated": _Words("7.1", _dmarc_fail),
    "dmarc_temperror": _Words("7.1", _unanswered("dmarc", "DMARC policy")),
    "ambiguous_from": _Words("7.1", lambda tx: f"From header field can't be used: {_finding(tx, 'ambiguous_from')}"),
    "forged_flood": _Words("7.1", lambda _: "Too many Authentication-Results or X-Spam header fields"),
    "from_mismatch": _Words("7.1", lambda tx: f"Not allowed as {_finding(tx, 'from_mismatch')}"),
}


def reply_for(symbol: str, action: Action, tx: Transaction, stage: Stage, reference: str) -> Reply:
    """The reply that refuses for that symbol; "" is the score."""
    words = _WORDS.get(symbol)
    temporary = action is Action.TEMPFAIL
    if words is None:
        text = "Message looks like spam" if not symbol else f"Refused by policy ({symbol})"
        words = _Words("7.1", lambda _: text)
    detail = words.detail
    if symbol.startswith("dmarc_fail") and not temporary and _several_failed(tx):
        detail = "7.26"  # RFC 7372 section 3.3: multiple authentication checks failed
    if stage is Stage.CONNECT:
        # RFC 5321 section 3.1: 554 in place of the greeting, 421 to close for now
        code = 421 if temporary else 554
        detail = "7.0" if temporary and words.detail == "7.1" else detail
    elif temporary:
        code = 451
    else:
        code = 554 if stage is Stage.EOM and symbol not in _WORDS else 550
    return Reply(code, f"{4 if temporary else 5}.{detail}", f"{_clean(words.text(tx))} [{reference}]")


def _several_failed(tx: Transaction) -> bool:
    """SPF or DKIM failed besides DMARC."""
    return any(r.result is Result.FAIL and r.method in ("spf", "dkim") for r in tx.results)


def _clean(text: str) -> str:
    """Printable ASCII in one line of bounded length: domains and details come from the network."""
    text = text[:400]
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
