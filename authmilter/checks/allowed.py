"""Author domains and mailboxes that the administrator allows ([allow NAME])."""

from collections.abc import Iterator

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.config.schema import Allow
from authmilter.evidence import Finding, Result
from authmilter.model import Stage, Transaction
from authmilter.networks import contains


@check(Stage.EOM, scores={"allowed": 0.0}, wanted=lambda config: bool(config.allow))
def allowed(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """The author is in an [allow] section, and authenticated as it asks."""
    found = author(tx.message)
    if found.problem or len(found.mailboxes) != 1:
        return
    mailbox = found.mailboxes[0]
    for name in (mailbox.address, mailbox.domain):
        entry = tools.config.allow.get(name)
        if entry is not None and _proven(tx, mailbox.domain, entry):
            yield Finding("allowed", f"[allow {name}]")
            return


def _proven(tx: Transaction, domain: str, entry: Allow) -> bool:
    if entry.networks:
        if not contains(entry.networks, tx.connection.client_ip):
            return False
    elif not entry.requires:
        return entry.insecure
    return not entry.requires or any(
        r.method == entry.requires and r.result is Result.PASS and r.identifier == domain for r in tx.results
    )
