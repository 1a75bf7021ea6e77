"""From evidence to verdict: presets, overrides, thresholds, recipients, replies."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.check import METHODS, all_checks, known_symbols
from authmilter.config.schema import Config, Dkim, Dmarc, Dnsbl, RecipientPolicy, Spf, Weight
from authmilter.config.schema import Policy as PolicyOptions
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Envelope, Mailbox, Stage, Transaction
from authmilter.policy import Policy, Rules
from authmilter.verdict import Action, Ruling

P, F, S, N, T = Result.PASS, Result.FAIL, Result.SOFTFAIL, Result.NONE, Result.TEMPERROR


def evidence(
    *,
    iprev: Result = P,
    spf: Result = P,
    dkim: Sequence[Result] = (P,),
    dmarc: Result = P,
    asks: str = "",
    findings: Sequence[str] = (),
    rcpt: str = "u@example.net",
) -> Transaction:
    """A transaction with these results."""
    local, _, domain = rcpt.partition("@")
    return Transaction(
        connection=Connection(client_ip=ip_address("192.0.2.1")),
        envelope=Envelope(forward_paths=(Mailbox(local.encode(), domain.encode(), domain),)),
        results=(
            AuthResult("iprev", iprev),
            AuthResult("spf", spf, "example.org"),
            *(AuthResult("dkim", result, "example.org") for result in dkim),
            AuthResult("dmarc", dmarc, "example.org", {"policy.dmarc": asks} if asks else {}),
        ),
        findings=tuple((Stage.EOM, Finding(symbol)) for symbol in findings),
    )


def judge(
    tx: Transaction,
    preset: str = "balanced",
    scores: dict[str, Weight] | None = None,
    stage: Stage = Stage.EOM,
    config: Config | None = None,
) -> Ruling:
    lists = {"zen": Dnsbl(zone="zen.example"), "mild": Dnsbl(zone="mild.example", score=0.0)}
    config = config or Config(policy=PolicyOptions(preset=preset), dnsbl=lists)  # type: ignore[arg-type]
    return Policy(replace(config, scores=scores or {}), all_checks()).judge(tx, stage, "am-1")


def shown(ruling: Ruling) -> str:
    reply = ruling.verdict.reply
    return f"{reply.code} {reply.enhanced}" if reply else ruling.verdict.action.value


CONTRACT = [
    ("DMARC fail under p=reject alone is tagged", evidence(spf=S, dkim=[N], dmarc=F, asks="reject"), ("accept", "tag", "550 5.7.1")),
    ("DMARC fail under p=reject with SPF fail is refused", evidence(spf=F, dkim=[N], dmarc=F, asks="reject"), ("accept", "550 5.7.26", "550 5.7.26")),
    ("DMARC fail under p=reject without rDNS is refused", evidence(iprev=Result.PERMERROR, spf=N, dkim=[N], dmarc=F, asks="reject"), ("accept", "550 5.7.1", "550 5.7.1")),
    ("an rDNS temperror corroborates nothing", evidence(iprev=T, spf=N, dkim=[N], dmarc=F, asks="reject"), ("accept", "tag", "550 5.7.1")),
    ("a listing corroborates", evidence(spf=N, dkim=[N], dmarc=F, asks="reject", findings=["dnsbl_zen"]), ("accept", "550 5.7.1", "550 5.7.1")),
    ("several failed methods have a code of their own", evidence(iprev=F, spf=N, dkim=[F], dmarc=F, asks="reject"), ("accept", "550 5.7.26", "550 5.7.26")),
    ("DMARC fail under p=quarantine is tagged", evidence(spf=N, dkim=[N], dmarc=F, asks="quarantine"), ("accept", "tag", "tag")),
    ("DMARC fail under p=none changes nothing", evidence(iprev=F, spf=N, dkim=[N], dmarc=F, asks="none"), ("accept", "accept", "accept")),
    ("a listing of no weight does not", evidence(spf=N, dkim=[N], dmarc=F, asks="reject", findings=["dnsbl_mild"]), ("accept", "tag", "550 5.7.1")),
    ("SPF fail without DMARC is refused", evidence(spf=F, dkim=[N], dmarc=N), ("accept", "550 5.7.23", "550 5.7.23")),
    ("SPF fail is excused by a DMARC pass", evidence(spf=F, dmarc=P), ("accept", "accept", "550 5.7.23")),
    ("SPF fail waits where DMARC could not be checked", evidence(spf=F, dkim=[T], dmarc=T), ("accept", "accept", "550 5.7.23")),
    ("an SPF temperror is deferred by strict alone", evidence(spf=T, dkim=[N], dmarc=T), ("accept", "accept", "451 4.7.24")),
    ("a DKIM temperror is deferred by strict alone", evidence(dkim=[T]), ("accept", "accept", "451 4.7.5")),
    ("a DKIM temperror beside a pass is no matter", evidence(dkim=[T, P]), ("accept", "accept", "accept")),
    ("a DMARC temperror is deferred by strict alone", evidence(spf=N, dkim=[N], dmarc=T), ("accept", "accept", "451 4.7.1")),
    ("a From that can't be used is refused", evidence(dmarc=Result.PERMERROR, findings=["ambiguous_from"]), ("accept", "550 5.7.1", "550 5.7.1")),
]  # fmt: skip


@pytest.mark.parametrize(("tx", "expected"), [row[1:] for row in CONTRACT], ids=[row[0] for row in CONTRACT])
def test_presets(tx: Transaction, expected: tuple[str, str, str]) -> None:
    assert tuple(shown(judge(tx, preset)) for preset in ("observe", "balanced", "strict")) == expected


def test_the_dmarc_reply_names_dmarc_the_domain_and_the_reference() -> None:
    reply = judge(evidence(spf=F, dkim=[N], dmarc=F, asks="reject")).verdict.reply
    assert reply is not None
    assert reply.text == "Email rejected per DMARC policy for example.org [am-1]"


def test_strict_refuses_an_spf_fail_at_mail_and_balanced_does_not() -> None:
    tx = evidence(spf=F)._replace(envelope=Envelope())
    strict = Policy(Config(policy=PolicyOptions(preset="strict")), ())
    assert strict.acts_at(Stage.MAIL)
    assert shown(strict.judge(tx, Stage.MAIL, "am-1")) == "550 5.7.23"
    balanced = Policy(Config(), ())
    assert not balanced.acts_at(Stage.MAIL)
    assert balanced.judge(tx, Stage.MAIL, "am-1").verdict.action is Action.CONTINUE


class TestScores:
    def test_a_weight_for_spf_fail_replaces_the_refusal_of_the_preset(self) -> None:
        ruling = judge(evidence(spf=F, dkim=[N], dmarc=N), scores={"spf_fail": 4.0})
        assert (shown(ruling), ruling.verdict.score) == ("accept", 4.0)

    def test_a_weight_for_dmarc_fail_replaces_the_refusal_of_the_preset(self) -> None:
        ruling = judge(evidence(iprev=F, spf=N, dkim=[N], dmarc=F, asks="reject"), scores={"dmarc_fail": 2.0})
        assert (shown(ruling), ruling.verdict.score) == ("accept", 2.3)  # with that of iprev_fail

    @pytest.mark.parametrize(
        ("score", "expected"), [(4.9, "accept"), (5.0, "tag"), (11.9, "tag"), (12.0, "554 5.7.1"), (-3.0, "accept")]
    )
    def test_thresholds_take_in_their_own_value(self, score: float, expected: str) -> None:
        ruling = judge(evidence(findings=["helo_literal"]), scores={"helo_literal": score})
        assert shown(ruling) == expected

    def test_a_score_over_reject_is_refused_without_a_word_on_the_score(self) -> None:
        reply = judge(evidence(findings=["helo_literal"]), scores={"helo_literal": 99.0}).verdict.reply
        assert reply is not None
        assert reply.text == "Message looks like spam [am-1]"

    def test_malware_is_refused_from_whomever_it_comes(self) -> None:
        assert shown(judge(evidence(findings=["allowed", "antivirus_found"]))) == "554 5.7.1"
        held: dict[str, Weight] = {"antivirus_found": Action.QUARANTINE}
        assert shown(judge(evidence(findings=["allowed", "antivirus_found"]), scores=held)) == "quarantine"
        weighed: dict[str, Weight] = {"antivirus_found": 20.0}
        assert shown(judge(evidence(findings=["allowed", "antivirus_found"]), scores=weighed)) == "accept"

    def test_the_classifier_never_rejects_alone(self) -> None:
        config = Config(policy=PolicyOptions(reject=4.0), policy_set=frozenset({"reject"}))
        weights: dict[str, Weight] = {"bayes_spam": 6.0, "date_past": 0.1, "bayes_ham": -1.0}
        opinion = evidence(findings=["bayes_spam"])
        assert shown(judge(opinion, scores=weights, config=config)) == "tag"
        assert (
            shown(judge(evidence(findings=["bayes_spam", "date_past"]), scores=weights, config=config)) == "554 5.7.1"
        )
        assert (
            shown(judge(opinion, scores={"bayes_spam": Action.REJECT}, config=config)) == "554 5.7.1"
        )  # as was asked for

    def test_the_classifier_corroborates_no_failure_of_dmarc(self) -> None:
        failed = evidence(spf=N, dkim=[N], dmarc=F, asks="reject", findings=["bayes_spam"])
        assert shown(judge(failed, scores={"bayes_spam": 11.0})) == "tag"
        assert shown(judge(failed, scores={"bayes_spam": 13.0, "dkim_none": 0.1})) == "554 5.7.1"

    def test_weights_of_presets_and_findings_add_up(self) -> None:
        ruling = judge(evidence(spf=F, findings=["helo_literal"]), scores={"spf_fail": 4.0})
        assert ruling.verdict.score == 5.5
        assert dict(ruling.scored) == {"spf_fail": 4.0, "helo_literal": 1.5}

    def test_several_signatures_of_one_result_weigh_once(self) -> None:
        assert judge(evidence(dkim=[F, F, F]), scores={"dkim_fail": 1.0}).verdict.score == 1.0

    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            (Action.REJECT, "550 5.7.1"),
            (Action.TEMPFAIL, "451 4.7.1"),
            (Action.QUARANTINE, "quarantine"),
            (Action.DISCARD, "discard"),
            (Action.TAG, "tag"),
            (Action.ACCEPT, "accept"),
        ],
    )
    def test_an_action_instead_of_a_weight(self, action: Action, expected: str) -> None:
        assert shown(judge(evidence(findings=["helo_literal"]), scores={"helo_literal": action})) == expected

    def test_accept_wins_over_reject(self) -> None:
        scores: dict[str, Weight] = {"dkim_pass": Action.ACCEPT, "helo_literal": Action.REJECT}
        assert shown(judge(evidence(findings=["helo_literal"]), scores=scores)) == "accept"

    def test_quarantine_gives_the_mta_a_reason(self) -> None:
        ruling = judge(evidence(findings=["helo_literal"]), scores={"helo_literal": Action.QUARANTINE})
        assert ruling.verdict.quarantine_reason == "authmilter: helo_literal [am-1]"

    def test_an_action_of_a_check_is_taken_at_its_stage(self) -> None:
        policy = Policy(Config(scores={"helo_literal": Action.REJECT}), all_checks())
        assert policy.acts_at(Stage.HELO)
        tx = Transaction(findings=((Stage.HELO, Finding("helo_literal", "[192.0.2.1]")),))
        assert shown(policy.judge(tx, Stage.HELO, "am-1")) == "550 5.7.1"


class TestOnTemperror:
    def test_defer(self) -> None:
        config = Config(spf=Spf(on_temperror="defer"), dkim=Dkim(on_temperror="defer"))
        assert shown(judge(evidence(spf=T, dkim=[N], dmarc=T), config=config)) == "451 4.7.24"
        assert shown(judge(evidence(dkim=[T]), config=config)) == "451 4.7.5"

    def test_accept_softens_strict(self) -> None:
        config = Config(policy=PolicyOptions(preset="strict"), dmarc=Dmarc(on_temperror="accept"))
        assert shown(judge(evidence(spf=N, dkim=[N], dmarc=T), config=config)) == "accept"


def looking_twice(rules: Rules) -> Rules:
    """The same rules, for which every result may matter: nothing is then accepted without a second look."""
    return replace(rules, telling=frozenset((method, result) for method in METHODS for result in Result))


class TestTheUsualMessage:
    SYMBOLS = sorted(known_symbols())
    WEIGHTS: Sequence[Weight] = (*Action, 0.0, 0.0001, -2.0, 4.0, 6.5)
    THRESHOLDS = st.sampled_from([None, 12.0, 5.0, 1.0, 0.0, -1.0])

    @given(
        preset=st.sampled_from(["observe", "balanced", "strict"]),
        thresholds=st.tuples(THRESHOLDS, THRESHOLDS, THRESHOLDS),
        scores=st.dictionaries(st.sampled_from(SYMBOLS), st.sampled_from(WEIGHTS), max_size=6),
        results=st.lists(st.tuples(st.sampled_from(METHODS), st.sampled_from(Result)), min_size=1, max_size=6),
        override=st.sampled_from(["", "", "trusted_forwarder", "mailing_list", "local_policy"]),
        findings=st.sampled_from([(), (), ((Stage.HELO, Finding("helo_literal")),)]),
        stage=st.sampled_from([Stage.CONNECT, Stage.MAIL, Stage.RCPT, Stage.EOM]),
    )
    def test_it_is_judged_as_by_the_whole_rules(
        self,
        preset: str,
        thresholds: tuple[float | None, float | None, float | None],
        scores: dict[str, Weight],
        results: list[tuple[str, Result]],
        override: str,
        findings: tuple[tuple[Stage, Finding], ...],
        stage: Stage,
    ) -> None:
        tag, quarantine, reject = thresholds
        options = PolicyOptions(preset=preset, tag=tag, quarantine=quarantine, reject=reject)  # type: ignore[arg-type]
        config = Config(policy=options, policy_set=frozenset({"tag", "quarantine", "reject"}), scores=scores)
        policy, thorough = Policy(config, all_checks()), Policy(config, all_checks())
        thorough.common = looking_twice(thorough.common)
        properties = {"policy.dmarc": "reject"} | ({"policy.override": override} if override else {})
        tx = Transaction(
            results=tuple(AuthResult(method, result, "example.org", properties) for method, result in results),
            findings=findings,
        )
        assert policy.judge(tx, stage, "am-1") == thorough.judge(tx, stage, "am-1")

    @pytest.mark.parametrize(("tag", "expected"), [(0.0, "tag"), (-1.0, "tag"), (0.001, "accept"), (None, "accept")])
    def test_a_threshold_of_nothing_is_reached_by_nothing(self, tag: float | None, expected: str) -> None:
        config = Config(policy=PolicyOptions(tag=tag), policy_set=frozenset({"tag"}))
        assert shown(judge(evidence(), config=config)) == expected
        assert shown(judge(Transaction(), config=config)) == expected

    def test_a_reject_threshold_of_nothing_replies_with_the_reference(self) -> None:
        config = Config(policy=PolicyOptions(reject=0.0), policy_set=frozenset({"reject"}))
        reply = judge(evidence(), config=config).verdict.reply
        assert reply is not None
        assert reply.text == "Message looks like spam [am-1]"

    def test_a_pass_may_weigh_too(self) -> None:
        assert judge(evidence(), scores={"dkim_pass": -1.0}).verdict.score == -1.0
        assert shown(judge(evidence(), scores={"iprev_pass": Action.TEMPFAIL})) == "451 4.7.1"


class TestRecipients:
    CONFIG = Config(
        recipient_policies={
            "mild.example": RecipientPolicy(preset="observe", given=frozenset({"preset"})),
            "eager.example": RecipientPolicy(reject=3.0, tag=1.0, given=frozenset({"reject", "tag"})),
            "boss@eager.example": RecipientPolicy(enforce=False, given=frozenset({"enforce"})),
        }
    )
    SPOOF = evidence(spf=F, dkim=[N], dmarc=N)

    def to(self, *addresses: str) -> Transaction:
        paths = tuple(evidence(rcpt=address).envelope.forward_paths[0] for address in addresses)
        return self.SPOOF._replace(envelope=Envelope(forward_paths=paths))

    def test_a_domain_has_its_own_preset(self) -> None:
        assert shown(judge(self.to("u@mild.example"), config=self.CONFIG)) == "accept"
        assert shown(judge(self.to("u@other.example"), config=self.CONFIG)) == "550 5.7.23"

    def test_a_domain_has_its_own_thresholds(self) -> None:
        tx = evidence(rcpt="u@eager.example")._replace(findings=((Stage.EOM, Finding("helo_literal", strength=2.0)),))
        assert shown(judge(tx, config=self.CONFIG)) == "554 5.7.1"

    def test_the_mildest_policy_decides_for_several_recipients(self) -> None:
        assert shown(judge(self.to("u@other.example", "u@mild.example"), config=self.CONFIG)) == "accept"

    def test_a_mailbox_wins_over_its_domain(self) -> None:
        ruling = judge(self.to("Boss@eager.example"), config=self.CONFIG)
        assert not ruling.enforce
        assert judge(self.to("u@eager.example"), config=self.CONFIG).enforce

    def test_another_mailbox_of_a_domain_has_the_common_policy_where_the_domain_has_none(self) -> None:
        only_boss = Config(
            recipient_policies={
                "boss@eager.example": RecipientPolicy(enforce=False, given=frozenset({"enforce"})),
                "other.example": RecipientPolicy(preset="observe", given=frozenset({"preset"})),
            }
        )
        assert not judge(self.to("boss@eager.example"), config=only_boss).enforce
        assert judge(self.to("u@eager.example"), config=only_boss).enforce
        assert shown(judge(self.to("u@eager.example", "u@eager.example"), config=only_boss)) == "550 5.7.23"
        assert shown(judge(self.to("boss@other.example"), config=only_boss)) == "accept"

    def test_no_refusal_at_mail_where_a_recipient_may_want_the_mail(self) -> None:
        config = replace(self.CONFIG, policy=PolicyOptions(preset="strict"))
        assert not Policy(config, ()).acts_at(Stage.MAIL)


def test_a_forged_domain_in_a_reply_can_not_carry_control_characters() -> None:
    tx = evidence()._replace(
        results=(
            AuthResult("spf", F, "evil\r\n250 ok\x00\x1b[0m"),
            AuthResult("dmarc", N, "x"),
        ),
    )
    reply = judge(tx).verdict.reply
    assert reply is not None
    assert reply.text.isprintable()
    assert reply.text.isascii()
