"""The truth table of the presets, made by asking the policy itself.

Published in packaging/truth-table.md and in authmilter.conf(5), so that nobody has to guess; a test compares them.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from authmilter.check import all_checks
from authmilter.config.schema import Config, Dnsbl
from authmilter.config.schema import Policy as PolicyOptions
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action

PRESETS = ("observe", "balanced", "strict")
_SPF = (Result.PASS, Result.SOFTFAIL, Result.FAIL, Result.TEMPERROR)
_DKIM = (Result.PASS, Result.NONE, Result.FAIL, Result.TEMPERROR)
_POLICIES = ("no record", "none", "quarantine", "reject")
_OTHERS = ("nothing", "no rDNS", "a listing", "score over tag")
_HEAVY = "truth_table_weight"


def rows() -> Iterator[tuple[str, str, str, str, tuple[str, ...]]]:
    """SPF, DKIM, published policy, other evidence ("any" where it does not matter), and the outcome for each preset.

    SPF and DKIM identities are taken to be aligned with the author domain.
    """
    policies = [_policy(preset) for preset in PRESETS]
    for spf in _SPF:
        for dkim in _DKIM:
            for published in _POLICIES:
                plain = [_outcome(policy, spf, dkim, published, _OTHERS[0]) for policy in policies]
                outcomes = [
                    tuple(
                        # That a high score marks mail goes without saying.
                        before if outcome == "tag" and before == "accept" else outcome
                        for before, outcome in zip(
                            plain, (_outcome(policy, spf, dkim, published, other) for policy in policies), strict=True
                        )
                    )
                    for other in _OTHERS
                ]
                if len(set(outcomes)) == 1:
                    yield spf.value, dkim.value, published, "any", outcomes[0]
                    continue
                alike: dict[tuple[str, ...], list[str]] = {}
                for other, outcome in zip(_OTHERS, outcomes, strict=True):
                    alike.setdefault(outcome, []).append(other)
                for outcome, others in alike.items():
                    yield spf.value, dkim.value, published, ", ".join(others), outcome


_HEAD = ("SPF", "DKIM", "DMARC asks", "other evidence", *PRESETS)
_NOTE = (
    'SPF and DKIM stand for identities aligned with the author domain.  "DMARC asks" is the policy that applies to the '
    "author domain.  Mail that is accepted here is still tagged or refused by its score.  Any of it can be changed in "
    "[scores]."
)


def markdown() -> str:
    """The table as Markdown."""
    lines = [
        "# What becomes of inbound mail",
        "",
        "Made from the code by `authmilter manual --write`.",
        *textwrap.wrap(_NOTE, 118),
        "",
        "| " + " | ".join(_HEAD) + " |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += ["| " + " | ".join((*row[:4], *row[4])) + " |" for row in rows()]
    return "\n".join(lines) + "\n"


def plain() -> str:
    """The table as a note and preformatted columns, for the manual page."""
    table = [_HEAD, *((*row[:4], *row[4]) for row in rows())]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
    lines = [
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    return _NOTE + "\n\n" + "\n".join(lines)


def _policy(preset: str) -> Policy:
    lists = {"example": Dnsbl(zone="list.example.org")}
    config = Config(policy=PolicyOptions(preset=preset), dnsbl=lists)  # type: ignore[arg-type]
    return Policy(replace(config, scores={_HEAVY: 6.0}), all_checks())


def _outcome(policy: Policy, spf: Result, dkim: Result, published: str, other: str) -> str:
    results = [
        AuthResult("iprev", Result.PERMERROR if other == "no rDNS" else Result.PASS),
        AuthResult("spf", spf, "example.org"),
    ]
    tx = Transaction(connection=Connection(client_ip=ip_address("192.0.2.1")), results=tuple(results))
    if policy.acts_at(Stage.MAIL):
        early = policy.judge(tx, Stage.MAIL, "").verdict
        if early.action in (Action.REJECT, Action.TEMPFAIL):
            assert early.reply is not None
            return f"{early.reply.code} {early.reply.enhanced} at MAIL"
    results += [AuthResult("dkim", dkim, "example.org"), _dmarc(spf, dkim, published)]
    findings: tuple[tuple[Stage, Finding], ...] = ()
    if other == "a listing":
        findings = ((Stage.CONNECT, Finding("dnsbl_example")),)
    elif other == "score over tag":
        findings = ((Stage.EOM, Finding(_HEAVY)),)
    verdict = policy.judge(tx._replace(results=tuple(results), findings=findings), Stage.EOM, "").verdict
    if verdict.reply:
        return f"{verdict.reply.code} {verdict.reply.enhanced}"
    return verdict.action.value


def _dmarc(spf: Result, dkim: Result, published: str) -> AuthResult:
    """What DMARC makes of the two (RFC 9989 section 5.3)."""
    if published == "no record":
        return AuthResult("dmarc", Result.NONE, "example.org")
    if Result.PASS in (spf, dkim):
        result = Result.PASS
    elif Result.TEMPERROR in (spf, dkim):
        result = Result.TEMPERROR
    else:
        result = Result.FAIL
    return AuthResult("dmarc", result, "example.org", {"policy.dmarc": published})
