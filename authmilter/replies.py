"""SMTP replies: which code and words a symbol is refused with (RFC 3463, RFC 7372, RFC 9989 section 7.2).

Those of methods stand here, those of checks in their files.  A text names the method and the domain, never weights or thresholds, and ends in the reference id that the log carries.
"""

from collections.abc import Callable

from authmilter.check import Words, words_for
from authmilter.evidence import AuthResult, Result
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action, Reply


def _result(tx: Transaction, method: str) -> AuthResult:
    return next((r for r in tx.results if r.method == method), AuthResult(method, Result.NONE))


def _finding(tx: Transaction, symbol: str) -> str:
    return next((finding.detail for _, finding in tx.findings if finding.symbol == symbol), "")


def _client(tx: Transaction) -> str:
    return str(tx.connection.client_ip or "the client")


def _spf_fail(method: str) -> Callable[[Transaction, str], str]:
    def text(tx: Transaction, _: str) -> str:
        result = _result(tx, method)
        domain = result.identifier or "the sender's domain"
        text = f"SPF fail: {_client(tx)} is not allowed to send mail for {domain}"
        # RFC 7208 section 8.4: it must be plain that an explanation is not ours.
        return f"{text}; {domain} explained: {result.explanation}" if result.explanation else text

    return text


def _dmarc_fail(tx: Transaction, _: str) -> str:
    return f"Email rejected per DMARC policy for {_result(tx, 'dmarc').identifier or 'the author domain'}"


def _unanswered(method: str, what: str) -> Callable[[Transaction, str], str]:
    def text(tx: Transaction, _: str) -> str:
        domain = _result(tx, method).identifier
        return f"{what}{f' of {domain}' if domain else ''} could not be checked for now, please try again later"

    return text


_WORDS: dict[str, Words] = {
    "spf_fail": Words("7.23", _spf_fail("spf")),
    "spf_fail_no_dmarc_pass": Words("7.23", _spf_fail("spf")),
    "spf_helo_fail": Words("7.23", _spf_fail("spf_helo")),
    "spf_permerror": Words("7.24", lambda tx, _: f"SPF record of {_result(tx, 'spf').identifier} can't be used"),
    "spf_temperror": Words("7.24", _unanswered("spf", "SPF")),
    "iprev_fail": Words("7.25", lambda tx, _: f"Reverse DNS of {_client(tx)} is not confirmed by its forward DNS"),
    "iprev_permerror": Words("7.25", lambda tx, _: f"{_client(tx)} has no reverse DNS"),
    "iprev_temperror": Words("7.25", _unanswered("iprev", "Reverse DNS")),
    "dkim_none": Words("7.20", lambda *_: "No DKIM signature"),
    "dkim_fail": Words("7.21", lambda *_: "No acceptable DKIM signature"),
    "dkim_temperror": Words("7.5", _unanswered("dkim", "DKIM signature")),
    "arc_fail": Words("7.29", lambda *_: "ARC validation failed"),
    "dmarc_fail": Words("7.1", _dmarc_fail),
    "dmarc_fail_none": Words("7.1", _dmarc_fail),
    "dmarc_fail_quarantine": Words("7.1", _dmarc_fail),
    "dmarc_fail_reject": Words("7.1", _dmarc_fail),
    "dmarc_fail_reject_corroborated": Words("7.1", _dmarc_fail),
    "dmarc_temperror": Words("7.1", _unanswered("dmarc", "DMARC policy")),
    "from_mismatch": Words("7.1", lambda _, detail: f"Not allowed as {detail}"),
}


def reply_for(symbol: str, action: Action, tx: Transaction, stage: Stage, reference: str) -> Reply:
    """The reply that refuses for that symbol; "" is the score."""
    words = _WORDS.get(symbol) or words_for(symbol)
    own = words is not None
    temporary = action is Action.TEMPFAIL
    if words is None:
        words = Words("7.1", lambda *_: f"Refused by policy ({symbol})" if symbol else "Message looks like spam")
    detail = words.detail
    if symbol.startswith("dmarc_fail") and not temporary and _several_failed(tx):
        detail = "7.26"  # RFC 7372 section 3.3: multiple authentication checks failed
    code = words.temporary if temporary else words.permanent
    if stage is Stage.CONNECT:
        # RFC 5321 section 3.1: 554 in place of the greeting, 421 to close for now
        code = 421 if temporary else 554
        detail = "7.0" if temporary and words.detail == "7.1" else detail
    elif not code:
        code = 451 if temporary else 554 if stage is Stage.EOM and not own else 550
    text = words.text(tx, _finding(tx, symbol))
    return Reply(code, f"{4 if temporary else 5}.{detail}", f"{_clean(text)} [{reference}]")


def _several_failed(tx: Transaction) -> bool:
    """SPF or DKIM failed besides DMARC."""
    return any(r.result is Result.FAIL and r.method in ("spf", "dkim") for r in tx.results)


def _clean(text: str) -> str:
    """Printable ASCII in one line of bounded length: domains and details come from the network."""
    text = text[:400]
    return text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
