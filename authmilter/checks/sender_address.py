"""The reverse-path itself: its form, and whether it claims to be one of ours."""

from collections.abc import Iterator

from authmilter.check import Tools, Words, check
from authmilter.checks.helo_literal import is_literal
from authmilter.evidence import Finding, Result
from authmilter.forwarding import is_excused, with_override
from authmilter.model import Mailbox, Stage, Transaction
from authmilter.networks import names_contain
from authmilter.verdict import Action

LONGEST = 256  # octets of a path, its angle brackets included (RFC 5321 section 4.5.3.1.3)
_SHOWN = 80


@check(
    Stage.MAIL,
    scores={"sender_malformed": 1.0},
    strict={"sender_malformed": Action.REJECT},
    replies={
        "sender_malformed": Words(
            "1.7", lambda _, detail: f"Sender address is malformed (RFC 5321 section 4.1.2): {detail}", permanent=501
        )
    },
)
def sender_malformed(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """MAIL FROM is no address: it has no local-part, no domain that can be one, stray characters, or over 256 octets."""
    path = tx.envelope.reverse_path
    if path is not None and not _is_well_formed(path):
        yield Finding("sender_malformed", bytes(path)[:_SHOWN].decode("utf-8", "backslashreplace"))


def _is_well_formed(path: Mailbox) -> bool:
    # A local-part over the 64 octets of section 4.5.3.1.1 is let pass: those with the recipient in them (VERP, SRS) have
    # more, and section 4.5.3.1 asks for no limit where that is possible.
    local_part, raw_domain, domain = path
    if not local_part or len(local_part) + len(raw_domain) + 3 > LONGEST:
        return False
    return bool(domain) or is_literal(raw_domain)


@check(
    Stage.RCPT,
    scores={"sender_is_local": 1.0},
    wanted=lambda config: bool(config.identity.local_domains),
    replies={
        "sender_is_local": Words(
            "7.1",
            lambda _, domain: f"Mail from {domain} is not accepted from this client, please authenticate to send it",
        )
    },
)
def sender_is_local(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """MAIL FROM is of [identity] local_domains, and the client neither authenticated nor passes SPF.

    So does every forwarder that keeps the envelope: [forwarders] excuses those that it names, if SPF fails.
    """
    path = tx.envelope.reverse_path
    if path is None or not names_contain(tools.config.identity.local_domains, path.domain):
        return
    spf = with_override(tx, tools.config).results_of("spf")
    if not any(result.result is Result.PASS or is_excused(result) for result in spf):
        yield Finding("sender_is_local", path.domain)
