"""From evidence to a verdict.

`judge` is a pure function of the transaction (facts, results, findings) and the configuration: the same evidence gives
the same verdict, today or in a replay.

Every piece of evidence is a symbol; a symbol has a weight or an action.  Four things decide, each over the one before:
the weight that a check declares, the preset, `on_temperror` of a method, and [scores].  Symbols that [scores] names
replace what is derived from them: ``spf_fail = 4.0`` makes SPF fail a matter of weight, also at the end of the message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from authmilter.check import Check, method_symbols
from authmilter.config.schema import Config, Weight
from authmilter.evidence import AuthResult, Result
from authmilter.forwarding import APPLIED, OVERRIDE, is_excused
from authmilter.model import Stage, Transaction
from authmilter.replies import reply_for
from authmilter.verdict import CONTINUE, Action, Verdict

# What each preset does by itself; all that is not named weighs what its check declares.
PRESETS: Mapping[str, Mapping[str, Weight]] = {
    "observe": {"allowed": Action.ACCEPT},
    "balanced": {
        "allowed": Action.ACCEPT,
        "forged_flood": Action.REJECT,
        "ambiguous_from": Action.REJECT,
        "spf_fail_no_dmarc_pass": Action.REJECT,
        "dmarc_fail_quarantine": Action.TAG,
        # RFC 9989 section 7.4: p=reject alone MUST NOT reject; section 8: without other knowledge it is quarantine
        "dmarc_fail_reject": Action.TAG,
        "dmarc_fail_reject_corroborated": Action.REJECT,
    },
    "strict": {
        "allowed": Action.ACCEPT,
        "forged_flood": Action.REJECT,
        "ambiguous_from": Action.REJECT,
        "spf_fail": Action.REJECT,
        "spf_fail_no_dmarc_pass": Action.REJECT,
        "dmarc_fail_quarantine": Action.TAG,
        "dmarc_fail_reject": Action.REJECT,
        "dmarc_fail_reject_corroborated": Action.REJECT,
        "spf_temperror": Action.TEMPFAIL,
        "dkim_temperror": Action.TEMPFAIL,
        "dmarc_temperror": Action.TEMPFAIL,
    },
}

# tag, quarantine, reject
THRESHOLDS: Mapping[str, tuple[float | None, float | None, float | None]] = {
    "observe": (None, None, None),
    "balanced": (5.0, None, 12.0),
    "strict": (5.0, None, 12.0),
}

# A symbol that [scores] names replaces what is derived from it.
_DERIVED_FROM = {
    "spf_fail": ("spf_fail_no_dmarc_pass",),
    "dmarc_fail": (
        "dmarc_fail_none",
        "dmarc_fail_quarantine",
        "dmarc_fail_reject",
        "dmarc_fail_reject_corroborated",
    ),
}

# Symbols that corroborate a DMARC failure under p=reject.  A temperror never does.
_CORROBORATING = frozenset(("spf_fail", "iprev_fail", "iprev_permerror"))
_LISTING = "dnsbl_"

# Forced actions in the order in which they win.
_PRECEDENCE = (Action.ACCEPT, Action.REJECT, Action.TEMPFAIL, Action.DISCARD, Action.QUARANTINE, Action.TAG)

# From the mildest to the harshest, for messages to recipients with different policies.
_MILDNESS = {
    action: rank
    for rank, action in enumerate(
        (Action.CONTINUE, Action.ACCEPT, Action.TAG, Action.QUARANTINE, Action.TEMPFAIL, Action.REJECT, Action.DISCARD)
    )
}


@dataclass(frozen=True, eq=False)
class Rules:
    """One policy, compiled: every symbol's weight or action, and the thresholds (None is off)."""

    preset: str
    enforce: bool
    tag: float | None
    quarantine: float | None
    reject: float | None
    weights: Mapping[str, Weight]

    def weight(self, symbol: str) -> float:
        """The number of that symbol; one with an action weighs nothing."""
        weight = self.weights.get(symbol, 0.0)
        return 0.0 if isinstance(weight, Action) else weight

    def acts_at(self, stages: Mapping[str, Stage]) -> frozenset[Stage]:
        """The stages before EOM at which a symbol may refuse."""
        return frozenset(
            stage
            for symbol, stage in stages.items()
            if stage < Stage.EOM and self.weights.get(symbol) in (Action.REJECT, Action.TEMPFAIL)
        )


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict, whether it is carried out, and the weights that were added up (inbound, at EOM)."""

    verdict: Verdict
    enforce: bool
    scored: tuple[tuple[str, float], ...] = ()


class Policy:
    """All policies of a configuration: the common one, and those of single recipients."""

    def __init__(self, config: Config, checks: tuple[Check, ...] = ()) -> None:
        self.stages = {**method_symbols(), **{symbol: c.stage for c in checks for symbol in c.scores}}
        declared = {symbol: weight for c in checks for symbol, weight in c.scores.items()}
        self.common = _compile(config, declared)
        self.special = {name: _compile(_merged(config, name), declared) for name in config.recipient_policies}
        self._acting = self.common.acts_at(self.stages)
        for rules in self.special.values():
            self._acting &= rules.acts_at(self.stages)

    def acts_at(self, stage: Stage) -> bool:
        """May a message be refused at that stage, before its end?

        Only where every policy could: a recipient's policy is not known before RCPT, and the mildest one decides.
        """
        return stage in self._acting

    def rules_for(self, tx: Transaction) -> tuple[Rules, ...]:
        """The policies that have a say in this transaction."""
        if not self.special:
            return (self.common,)
        if not tx.envelope.forward_paths:
            return (self.common, *self.special.values())
        return tuple(
            self.special.get(f"{_text(path.local_part)}@{path.domain}") or self.special.get(path.domain) or self.common
            for path in tx.envelope.forward_paths
        )

    def judge(self, tx: Transaction, stage: Stage, reference: str) -> Ruling:
        """The verdict on the evidence so far; before EOM only refusals count.  The mildest policy wins."""
        rulings = [_judge(rules, tx, stage, reference) for rules in dict.fromkeys(self.rules_for(tx))]
        return min(rulings, key=lambda r: _MILDNESS[r.verdict.action] if r.enforce else -1)

    def judge_submission(self, tx: Transaction, reference: str) -> Ruling:
        """The verdict on mail of ours: all that counts is a From that [submission] does not grant."""
        rules = self.common
        if any(finding.symbol == "from_mismatch" for _, finding in tx.findings):
            because = ("from_mismatch",)
            return Ruling(_verdict(Action.REJECT, because, 0.0, tx, Stage.EOM, reference), rules.enforce)
        return Ruling(Verdict(Action.ACCEPT), rules.enforce)


def derived(tx: Transaction, score: float, tag: float | None) -> Iterator[str]:
    """Symbols that follow from several results together; only meaningful at EOM.

    `score` is the sum of weights; at `tag` or above it corroborates a DMARC failure.
    """
    symbols = {result.symbol for result in tx.results if not is_excused(result)}
    dmarc = next((r for r in tx.results if r.method == "dmarc"), None)
    dmarc_result = dmarc.result if dmarc else Result.NONE
    excused = dmarc is not None and is_excused(dmarc)
    if dmarc and dmarc_result is Result.FAIL and not excused:
        asked = dmarc.properties.get("policy.dmarc", "none")
        if OVERRIDE in dmarc.properties:
            asked = dmarc.properties.get(APPLIED, "none")
        if asked == "reject" and (
            symbols & _CORROBORATING
            or any(finding.symbol.startswith(_LISTING) for _, finding in tx.findings)
            or (tag is not None and score >= tag)
        ):
            yield "dmarc_fail_reject_corroborated"
        else:
            yield f"dmarc_fail_{asked}"
    # Behind DMARC, so that the reply names the policy rather than the SPF failure that it rests on.
    # A DMARC temperror may yet become a pass by DKIM, if there is a signature for it: then SPF fail waits.
    by_dkim = any(r.method == "dkim" and r.result in (Result.PASS, Result.TEMPERROR) for r in tx.results)
    waits = dmarc_result is Result.PASS or (dmarc_result is Result.TEMPERROR and by_dkim)
    if "spf_fail" in symbols and not waits and not excused:
        yield "spf_fail_no_dmarc_pass"


def _judge(rules: Rules, tx: Transaction, stage: Stage, reference: str) -> Ruling:
    scored = tuple(_scored(rules, tx))
    score = round(sum((weight for _, weight in scored), 0.0), 3)
    symbols = dict.fromkeys([_symbol(r) for r in tx.results] + [finding.symbol for _, finding in tx.findings])
    if stage is Stage.EOM:
        symbols = dict.fromkeys([*derived(tx, score, rules.tag), *symbols])
    forced = [(symbol, weight) for symbol in symbols if isinstance(weight := rules.weights.get(symbol), Action)]
    if stage is Stage.EOM and any(r.method == "dkim" and r.result is Result.PASS for r in tx.results):
        # One good signature is all that is needed (RFC 6376 section 4.2): the others need not be waited for.
        forced = [(symbol, action) for symbol, action in forced if symbol != "dkim_temperror"]
    for action in _PRECEDENCE:
        because = tuple(symbol for symbol, forced_action in forced if forced_action is action)
        if not because:
            continue
        if stage < Stage.EOM and action not in (Action.ACCEPT, Action.REJECT, Action.TEMPFAIL):
            continue
        if action is Action.ACCEPT and stage < Stage.EOM:
            return Ruling(CONTINUE, rules.enforce, scored)
        if action is Action.TAG:
            break  # the score may ask for more
        return Ruling(_verdict(action, because, score, tx, stage, reference), rules.enforce, scored)
    if stage < Stage.EOM:
        return Ruling(CONTINUE, rules.enforce)
    because = tuple(symbol for symbol, weight in scored if weight > 0)
    for threshold, action in (
        (rules.reject, Action.REJECT),
        (rules.quarantine, Action.QUARANTINE),
        (rules.tag, Action.TAG),
    ):
        if threshold is not None and score >= threshold:
            verdict = _verdict(action, because, score, tx, stage, reference, by_score=True)
            return Ruling(verdict, rules.enforce, scored)
    tagging = tuple(symbol for symbol, action in forced if action is Action.TAG)
    action = Action.TAG if tagging else Action.ACCEPT
    return Ruling(Verdict(action, because=tagging, score=score), rules.enforce, scored)


def _symbol(result: AuthResult) -> str:
    return f"{result.symbol}_excused" if is_excused(result) else result.symbol


def _scored(rules: Rules, tx: Transaction) -> Iterator[tuple[str, float]]:
    seen = set()
    for result in tx.results:
        symbol = _symbol(result)
        if symbol not in seen and (weight := rules.weight(symbol)):
            seen.add(symbol)  # ten broken signatures weigh no more than one
            yield symbol, weight
    for _, finding in tx.findings:
        if weight := rules.weight(finding.symbol):
            yield finding.symbol, round(weight * finding.strength, 3)


def _verdict(
    action: Action,
    because: tuple[str, ...],
    score: float,
    tx: Transaction,
    stage: Stage,
    reference: str,
    *,
    by_score: bool = False,
) -> Verdict:
    reply = None
    if action in (Action.REJECT, Action.TEMPFAIL):
        reply = reply_for("" if by_score else because[0], action, tx, stage, reference)
    reason = f"authmilter: {', '.join(because)} [{reference}]" if action is Action.QUARANTINE else ""
    return Verdict(action, reply, because=because, score=score, quarantine_reason=reason)


def _compile(config: Config, declared: Mapping[str, float]) -> Rules:
    policy = config.policy
    weights: dict[str, Weight] = {**declared, **PRESETS[policy.preset]}
    for method in ("spf", "dkim", "dmarc"):
        on_temperror = getattr(config, method).on_temperror
        if on_temperror:
            weights[f"{method}_temperror"] = Action.TEMPFAIL if on_temperror == "defer" else 0.0
    for symbol in config.scores:
        for name in _DERIVED_FROM.get(symbol, ()):
            weights.pop(name, None)
    weights.update(config.scores)
    tag, quarantine, reject = THRESHOLDS[policy.preset]
    return Rules(
        policy.preset,
        policy.enforce,
        policy.tag if "tag" in config.policy_set else tag,
        policy.quarantine if "quarantine" in config.policy_set else quarantine,
        policy.reject if "reject" in config.policy_set else reject,
        MappingProxyType(weights),
    )


def _merged(config: Config, name: str) -> Config:
    """The configuration as [policy NAME] changes it."""
    own = config.recipient_policies[name]
    changes = {option: getattr(own, option) for option in own.given}
    # A preset of its own starts afresh: thresholds that were set for the common preset say nothing about it.
    given = own.given if "preset" in own.given else own.given | config.policy_set
    return replace(config, policy=replace(config.policy, **changes), policy_set=frozenset(given))


def _text(local_part: bytes) -> str:
    return local_part.decode("utf-8", "replace").lower()
