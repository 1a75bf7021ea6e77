"""From evidence to a verdict.

`judge` is a pure function of the transaction (facts, results, findings) and the configuration: the same evidence gives
the same verdict, today or in a replay.

Every piece of evidence is a symbol; a symbol has a weight or an action.  Four things decide, each over the one before:
what a check declares, the preset, `on_temperror` of a method, and [scores], that of the recipient last.  Symbols that [scores] names
replace what is derived from them: ``spf_fail = 4.0`` makes SPF fail a matter of weight, also at the end of the message.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from types import MappingProxyType

from authmilter.check import METHODS, Check, method_symbols
from authmilter.config.schema import Config, Weight
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.forwarding import APPLIED, OVERRIDE, is_excused
from authmilter.model import Direction, Mailbox, Stage, Transaction
from authmilter.replies import reply_for
from authmilter.verdict import CONTINUE, Action, Ruling, Verdict

# What each preset does by itself; all that is not named weighs what its check declares.
PRESETS: Mapping[str, Mapping[str, Weight]] = {
    "observe": {"allowed": Action.ACCEPT, "from_mismatch": Action.REJECT},
    "balanced": {
        "allowed": Action.ACCEPT,
        "from_mismatch": Action.REJECT,
        "forged_flood": Action.REJECT,
        "ambiguous_from": Action.REJECT,
        "iprev_permerror": 0.5,  # the client has no name
        "iprev_fail": 0.3,  # or one that is not confirmed
        "spf_fail_no_dmarc_pass": Action.REJECT,
        "dmarc_fail_quarantine": Action.TAG,
        # RFC 9989 section 7.4: p=reject alone MUST NOT reject; section 8: without other knowledge it is quarantine
        "dmarc_fail_reject": Action.TAG,
        "dmarc_fail_reject_corroborated": Action.REJECT,
    },
    "strict": {
        "allowed": Action.ACCEPT,
        "from_mismatch": Action.REJECT,
        "forged_flood": Action.REJECT,
        "ambiguous_from": Action.REJECT,
        "iprev_permerror": 2.0,
        "iprev_fail": 1.0,
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
# What was learned is an opinion: it tags, but neither corroborates nor rejects by itself.
_LEARNED = frozenset(("bayes_spam", "bayes_sure"))

# Without one of these `derived` has no symbols, and nothing is excused.
_DERIVING = frozenset((("dmarc", Result.FAIL), ("spf", Result.FAIL)))

# Forced actions in the order in which they win.
_PRECEDENCE = (Action.ACCEPT, Action.REJECT, Action.TEMPFAIL, Action.DISCARD, Action.QUARANTINE, Action.TAG)
# Whom one trusts may have caught it too: what is known of the sender does not speak for these.
_WHOEVER_SENT_IT = frozenset(("antivirus_found",))
_REFUSING = (Action.REJECT, Action.TEMPFAIL)
_SUBMISSION = (*_REFUSING, Action.DISCARD, Action.QUARANTINE)  # mail of ours is neither allowed nor marked

# From the mildest to the harshest, for messages to recipients with different policies.
_MILDNESS = {
    action: rank
    for rank, action in enumerate(
        (Action.CONTINUE, Action.ACCEPT, Action.TAG, Action.QUARANTINE, Action.TEMPFAIL, Action.REJECT, Action.DISCARD)
    )
}


@dataclass(frozen=True, eq=False)
class Rules:
    """One policy, compiled: every symbol's number or action, and the thresholds (None is off).

    `numbers` has no zeros.  `telling` are the results, as method and result, on which a verdict may depend.
    """

    preset: str
    enforce: bool
    tag: float | None
    quarantine: float | None
    reject: float | None
    numbers: Mapping[str, float]
    actions: Mapping[str, Action]
    telling: frozenset[tuple[str, str]]

    @cached_property
    def accepted(self) -> Ruling:
        """The usual ruling at EOM."""
        return Ruling(Verdict(Action.ACCEPT), self.enforce)

    @cached_property
    def undecided(self) -> Ruling:
        """The usual ruling before EOM."""
        return Ruling(CONTINUE, self.enforce)

    @cached_property
    def lowest(self) -> float:
        """The lowest threshold; at 0 or less even a message without a score is over it."""
        return min((t for t in (self.tag, self.quarantine, self.reject) if t is not None), default=inf)

    def speaks_against(self, symbol: str) -> bool:
        """Does it count against a message?"""
        return self.actions.get(symbol, Action.ACCEPT) is not Action.ACCEPT or self.numbers.get(symbol, 0.0) > 0

    def refusals(self, stages: Mapping[str, Stage], last: Stage) -> frozenset[tuple[str, Action]]:
        """The symbols that may refuse at stages up to that one, and how."""
        return frozenset(
            (symbol, action)
            for symbol, action in self.actions.items()
            if action in _REFUSING and stages.get(symbol, Stage.EOM) <= last
        )

    def acts_at(self, stages: Mapping[str, Stage]) -> frozenset[Stage]:
        """The stages before EOM at which a symbol may refuse."""
        return frozenset(
            stage for symbol, stage in stages.items() if stage < Stage.EOM and self.actions.get(symbol) in _REFUSING
        )


class Policy:
    """All policies of a configuration: the common one, and those of single recipients.

    Whose policy decides hangs on the stage.  A connection has no recipient: [policy].  Nor have HELO and MAIL, but what is
    refused there is refused for all who might follow: only if every policy would.  At RCPT each recipient has his own
    policy, and is refused or accepted alone.  At the end of the message it is one for all who are left: the mildest.

    `checks` are those that are on.
    """

    def __init__(self, config: Config, checks: tuple[Check, ...] = ()) -> None:
        inbound = [c for c in checks if c.direction is Direction.INBOUND]
        outbound = [c for c in checks if c.direction is Direction.OUTBOUND]
        self.stages = {**method_symbols(), **_stages(inbound, config)}
        self._outbound = {**_stages(outbound, config), "from_mismatch": Stage.EOM}
        self.common = _compile(config, checks)
        self.special = {name: _compile(_merged(config, name), checks) for name in _recipients(config)}
        # Domains of which single mailboxes have a policy.
        self._with_mailboxes = frozenset(name.rpartition("@")[2] for name in self.special if "@" in name)
        everyone = (self.common, *self.special.values())
        # Where some enforce their policy and others only look on, a refusal of these must not stand in for that of those.
        mixed = len({rules.enforce for rules in everyone}) > 1
        carried_out = [rules if rules.enforce or not mixed else None for rules in everyone]
        common = self.common.acts_at(self.stages)
        everybody = common.intersection(*(rules.acts_at(self.stages) if rules else () for rules in carried_out))
        acting = everybody | (common & {Stage.CONNECT})
        # Where they do not refuse for the same, each recipient has to be judged by his own.
        if len({rules.refusals(self.stages, Stage.RCPT) if rules else frozenset() for rules in carried_out}) > 1:
            acting |= {Stage.RCPT}
        self._acting = {Direction.INBOUND: acting, Direction.OUTBOUND: self.common.acts_at(self._outbound)}

    def acts_at(self, stage: Stage, direction: Direction = Direction.INBOUND) -> bool:
        """May a message, or a recipient, be refused at that stage, before the end of the message?"""
        return stage in self._acting[direction]

    def rules_for(self, tx: Transaction, stage: Stage) -> tuple[Rules, ...]:
        """The policies that have a say in this transaction."""
        if not self.special or stage is Stage.CONNECT:
            return (self.common,)
        recipients = tx.envelope.forward_paths
        if not recipients:
            return (self.common, *self.special.values())
        if stage is Stage.RCPT:
            return (self._rules_of(recipients[-1]),)
        return tuple(dict.fromkeys(map(self._rules_of, recipients)))

    def _rules_of(self, recipient: Mailbox) -> Rules:
        domain = recipient.domain
        rules = None
        if domain in self._with_mailboxes:
            rules = self.special.get(recipient.address)
        return rules or self.special.get(domain, self.common)

    def judge(self, tx: Transaction, stage: Stage, reference: str) -> Ruling:
        """The verdict on the evidence so far; before EOM only refusals count.  The mildest policy wins."""
        rulings = [_judge(rules, self.stages, tx, stage, reference) for rules in self.rules_for(tx, stage)]
        if len(rulings) == 1:
            return rulings[0]
        return min(rulings, key=lambda r: _MILDNESS[r.verdict.action] if r.enforce else -1)

    def judge_submission(self, tx: Transaction, stage: Stage, reference: str) -> Ruling:
        """The verdict on mail of ours, under the common policy: there only actions count, no weights."""
        rules = self.common
        possible = _SUBMISSION if stage is Stage.EOM else _REFUSING
        forced = {
            finding.symbol: action
            for _, finding in tx.findings
            if (action := rules.actions.get(finding.symbol)) in possible
            and finding.symbol in self._outbound
            and self._outbound[finding.symbol] <= stage
        }
        for action in possible if forced else ():
            because = tuple(symbol for symbol, forced_action in forced.items() if forced_action is action)
            if because:
                return Ruling(_verdict(action, because, 0.0, tx, stage, reference), rules.enforce)
        return rules.accepted if stage is Stage.EOM else rules.undecided


def derived(tx: Transaction, symbols: Collection[str], *, suspect: bool) -> Iterator[str]:
    """Symbols that follow from several results together; only meaningful at EOM.

    `symbols` are those of the results; `suspect` says that something else than these speaks against the message, which
    corroborates a DMARC failure.
    """
    dmarc = next((r for r in tx.results if r.method == "dmarc"), None)
    dmarc_result = dmarc.result if dmarc else Result.NONE
    excused = dmarc is not None and is_excused(dmarc)
    if dmarc and dmarc_result is Result.FAIL and not excused:
        asked = dmarc.properties.get("policy.dmarc", "none")
        if OVERRIDE in dmarc.properties:
            asked = dmarc.properties.get(APPLIED, "none")
        if asked == "reject" and (suspect or not _CORROBORATING.isdisjoint(symbols)):
            yield "dmarc_fail_reject_corroborated"
        else:
            yield f"dmarc_fail_{asked}"
    # Behind DMARC, so that the reply names the policy rather than the SPF failure that it rests on.
    # A DMARC temperror may yet become a pass by DKIM, if there is a signature for it: then SPF fail waits.
    if "spf_fail" in symbols and not excused and dmarc_result is not Result.PASS:
        by_dkim = any(r.method == "dkim" and r.result in (Result.PASS, Result.TEMPERROR) for r in tx.results)
        if not (dmarc_result is Result.TEMPERROR and by_dkim):
            yield "spf_fail_no_dmarc_pass"


def _judge(rules: Rules, stages: Mapping[str, Stage], tx: Transaction, stage: Stage, reference: str) -> Ruling:
    at_end = stage is Stage.EOM
    if not tx.findings and rules.telling.isdisjoint([(r.method, r.result) for r in tx.results]):
        # Nothing speaks against the message, which is so for nearly all.
        if not at_end:
            return rules.undecided
        if rules.lowest > 0:
            return rules.accepted
    symbols = list(dict.fromkeys(map(_symbol, tx.results)))  # ten broken signatures weigh no more than one
    scored = _scored(rules.numbers, symbols, tx.findings)
    score = round(sum((weight for _, weight in scored), 0.0), 3)
    known = round(sum((weight for symbol, weight in scored if symbol not in _LEARNED), 0.0), 3)
    alone = known <= 0 and score > known
    if at_end:
        suspect = (rules.tag is not None and known >= rules.tag) or any(
            finding.symbol.startswith(_LISTING) and rules.speaks_against(finding.symbol) for _, finding in tx.findings
        )
        symbols = [*derived(tx, symbols, suspect=suspect), *symbols]
    symbols += [finding.symbol for _, finding in tx.findings]
    forced = {
        symbol: rules.actions[symbol]
        for symbol in symbols
        if symbol in rules.actions and (at_end or stages.get(symbol, Stage.EOM) <= stage)
    }
    if (
        at_end
        and "dkim_temperror" in forced
        and any(r.method == "dkim" and r.result is Result.PASS for r in tx.results)
    ):
        # One good signature is all that is needed (RFC 6376 section 4.2): the others need not be waited for.
        del forced["dkim_temperror"]
    for action in _PRECEDENCE if forced else ():
        because = tuple(symbol for symbol, forced_action in forced.items() if forced_action is action)
        if not because:
            continue
        if action is Action.ACCEPT and not _WHOEVER_SENT_IT.isdisjoint(forced):
            continue
        if not at_end and action not in (Action.ACCEPT, Action.REJECT, Action.TEMPFAIL):
            continue
        if not at_end and action is Action.ACCEPT:
            return rules.undecided
        if action is Action.TAG:
            break  # the score may ask for more
        return Ruling(_verdict(action, because, score, tx, stage, reference), rules.enforce, scored)
    if not at_end:
        return rules.undecided
    for threshold, action in (
        (rules.reject, Action.REJECT),
        (rules.quarantine, Action.QUARANTINE),
        (rules.tag, Action.TAG),
    ):
        if threshold is not None and score >= threshold and not (alone and action is Action.REJECT):
            because = tuple(symbol for symbol, weight in scored if weight > 0)
            verdict = _verdict(action, because, score, tx, stage, reference, by_score=True)
            return Ruling(verdict, rules.enforce, scored)
    tagging = tuple(symbol for symbol, action in forced.items() if action is Action.TAG)
    action = Action.TAG if tagging else Action.ACCEPT
    return Ruling(Verdict(action, because=tagging, score=score), rules.enforce, scored)


def _symbol(result: AuthResult) -> str:
    return f"{result.symbol}_excused" if is_excused(result) else result.symbol


def _scored(
    numbers: Mapping[str, float], symbols: Iterable[str], findings: Iterable[tuple[Stage, Finding]]
) -> tuple[tuple[str, float], ...]:
    scored = [(symbol, numbers[symbol]) for symbol in symbols if symbol in numbers]
    for _, finding in findings:
        if finding.symbol in numbers:
            scored.append((finding.symbol, round(numbers[finding.symbol] * finding.strength, 3)))
    return tuple(scored)


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


def _stages(checks: Iterable[Check], config: Config) -> dict[str, Stage]:
    return {symbol: check.judged for check in checks for symbol in check.symbols(config)}


def _declared(checks: Iterable[Check], config: Config) -> dict[str, Weight]:
    """What the checks say by themselves; to observe, none of those on inbound mail acts."""
    observes = config.policy.preset == "observe"
    weights: dict[str, Weight] = {}
    for check in checks:
        silent = observes and check.direction is Direction.INBOUND
        weights |= {s: 0.0 if silent and isinstance(w, Action) else w for s, w in check.scores.items()}
        if config.policy.preset == "strict":
            weights |= check.strict
        weights |= check.dynamic(config)
    return weights


def _compile(config: Config, checks: Iterable[Check]) -> Rules:
    policy = config.policy
    weights: dict[str, Weight] = {**_declared(checks, config), **PRESETS[policy.preset]}
    for method in ("spf", "dkim", "dmarc"):
        on_temperror = getattr(config, method).on_temperror
        if on_temperror:
            weights[f"{method}_temperror"] = Action.TEMPFAIL if on_temperror == "defer" else 0.0
    for symbol in config.scores:
        for name in _DERIVED_FROM.get(symbol, ()):
            weights.pop(name, None)
    weights.update(config.scores)
    tag, quarantine, reject = THRESHOLDS[policy.preset]
    numbers = {symbol: weight for symbol, weight in weights.items() if not isinstance(weight, Action) and weight}
    actions = {symbol: weight for symbol, weight in weights.items() if isinstance(weight, Action)}
    return Rules(
        policy.preset,
        policy.enforce,
        policy.tag if "tag" in config.policy_set else tag,
        policy.quarantine if "quarantine" in config.policy_set else quarantine,
        policy.reject if "reject" in config.policy_set else reject,
        MappingProxyType(numbers),
        MappingProxyType(actions),
        _telling(numbers.keys() | actions.keys()),
    )


def _telling(weighed: Collection[str]) -> frozenset[tuple[str, str]]:
    """The results on which a verdict may depend, where those symbols count."""
    return frozenset(
        (method, result)
        for method in METHODS
        for result in Result
        if (method, result) in _DERIVING or f"{method}_{result}" in weighed
    )


def _recipients(config: Config) -> Collection[str]:
    """Domains and mailboxes that have a section of their own."""
    return config.recipient_policies.keys() | config.recipient_scores.keys()


def _merged(config: Config, name: str) -> Config:
    """The configuration as the sections of a recipient change it: those of a mailbox over those of its domain."""
    domain = name.rpartition("@")[2]
    if domain != name and domain in _recipients(config):
        config = _merged(config, domain)
    scores = MappingProxyType({**config.scores, **config.recipient_scores.get(name, {})})
    own = config.recipient_policies.get(name)
    if own is None:
        return replace(config, scores=scores)
    changes = {option: getattr(own, option) for option in own.given}
    # A preset of its own starts afresh: thresholds that were set for the common preset say nothing about it.
    given = own.given if "preset" in own.given else own.given | config.policy_set
    policy = replace(config.policy, **changes)
    return replace(config, policy=policy, policy_set=frozenset(given), scores=scores)
