"""What becomes of a finding under a configuration."""

from collections.abc import Iterable

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.evidence import Finding
from authmilter.model import Direction, Mailbox, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Verdict

STRICT = "[policy]\npreset = strict\n"


def verdict(tx: Transaction, stage: Stage, found: Iterable[Finding], config: str = "") -> Verdict:
    """What policy says of these findings at that stage, with the reference ``ref``."""
    loaded = ini.load(None, config)
    policy = Policy(loaded, tuple(check for check in all_checks() if check.enabled(loaded)))
    tx = tx._replace(findings=tuple((stage, finding) for finding in found))
    if tx.envelope.direction is Direction.OUTBOUND:
        return policy.judge_submission(tx, stage, "ref").verdict
    return policy.judge(tx, stage, "ref").verdict


def reply(tx: Transaction, stage: Stage, found: Iterable[Finding], config: str = "") -> str:
    """The reply as the client sees it, "" if the command is accepted."""
    answer = verdict(tx, stage, found, config).reply
    return f"{answer.code} {answer.enhanced} {answer.text}" if answer else ""


def mailbox(address: str) -> Mailbox:
    """A mailbox of plain letters."""
    local_part, _, domain = address.rpartition("@")
    return Mailbox(local_part.encode(), domain.encode(), domain.lower())
