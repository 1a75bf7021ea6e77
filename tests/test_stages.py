"""At which stage what is judged, by whose policy, for which direction; and what is remembered afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from authmilter import check as check_module
from authmilter.check import Check, Tools, When
from authmilter.config import ini
from authmilter.config.schema import Config, Weight
from authmilter.errors import StoreError
from authmilter.evidence import Finding
from authmilter.interfaces import Answer
from authmilter.log import TextFormatter
from authmilter.model import Connection, Direction, Envelope, HeaderField, Mailbox, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action, Ruling
from tests.fakes import FakeDNS
from tests.test_session import GOOD, HEADER, Rig

LOGIN = {b"{auth_authen}": b"alice"}
Function = Callable[[Transaction, Tools], Iterator[Finding]]


def made(
    symbol: str,
    stage: Stage,
    weight: Weight = 0.0,
    *,
    run: Function | None = None,
    judged: Stage | None = None,
    direction: Direction = Direction.INBOUND,
    strict: Mapping[str, Weight] | None = None,
    dynamic: Mapping[str, Weight] | None = None,
) -> Check:
    """A check that always finds its symbol."""

    def always(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        yield Finding(symbol)

    return Check(
        symbol,
        stage,
        run or always,
        {symbol: weight},
        None,
        "",
        waits=False,
        waits_for=judged,
        direction=direction,
        strict=strict or {},
        dynamic=lambda _: dynamic or {},
    )


def to(*recipients: str, findings: tuple[tuple[Stage, Finding], ...] = ()) -> Transaction:
    parts = [address.split("@") for address in recipients]
    paths = [Mailbox(local.encode(), domain.encode(), domain) for local, domain in parts]
    return Transaction(Connection(), envelope=Envelope(forward_paths=tuple(paths)), findings=findings)


def code(ruling: Ruling) -> int:
    return ruling.verdict.reply.code if ruling.verdict.reply else 0


class TestPolicy:
    MIXED = "[policy mild.example]\npreset = observe\n[scores strict.example]\nlisted = reject\n"

    def config(self, text: str = "", scores: Mapping[str, Weight] | None = None) -> Config:
        return replace(ini.load(None, text), scores=scores or {})

    def test_what_waits_for_a_later_stage_does_not_act_before(self) -> None:
        policy = Policy(
            self.config(),
            (
                made("listed", Stage.CONNECT, Action.REJECT, judged=Stage.MAIL),
                made("shut", Stage.CONNECT, Action.TEMPFAIL),
            ),
        )
        tx = to(findings=((Stage.CONNECT, Finding("listed")),))
        assert policy.acts_at(Stage.CONNECT)
        assert code(policy.judge(tx, Stage.CONNECT, "am-1")) == 0
        assert code(policy.judge(tx, Stage.MAIL, "am-1")) == 550

    def test_where_only_some_policies_refuse_each_recipient_is_judged_alone(self) -> None:
        config = replace(
            self.config("[policy mild.example]\npreset = observe\n"),
            recipient_scores={"strict.example": {"listed": Action.REJECT}},
        )
        policy = Policy(config, (made("listed", Stage.CONNECT, 1.0, judged=Stage.MAIL),))
        tx = to("a@strict.example", findings=((Stage.CONNECT, Finding("listed")),))
        assert not policy.acts_at(Stage.MAIL)
        assert policy.acts_at(Stage.RCPT)
        assert code(policy.judge(tx, Stage.RCPT, "am-1")) == 550
        other = tx._replace(envelope=to("a@strict.example", "b@mild.example").envelope)
        assert code(policy.judge(other, Stage.RCPT, "am-1")) == 0

    def test_so_it_is_where_they_refuse_at_one_stage_for_different_symbols(self) -> None:
        config = replace(
            self.config(),
            scores={"one": Action.REJECT},
            recipient_scores={"strict.example": {"two": Action.REJECT}},
        )
        policy = Policy(
            config,
            (made("one", Stage.CONNECT, judged=Stage.MAIL), made("two", Stage.CONNECT, judged=Stage.MAIL)),
        )
        found = ((Stage.CONNECT, Finding("two")),)
        assert policy.acts_at(Stage.MAIL)
        assert policy.acts_at(Stage.RCPT)
        assert code(policy.judge(to(findings=found), Stage.MAIL, "am-1")) == 0
        assert code(policy.judge(to("a@other.example", findings=found), Stage.RCPT, "am-1")) == 0
        assert code(policy.judge(to("a@strict.example", findings=found), Stage.RCPT, "am-1")) == 550

    def test_nobody_waits_at_rcpt_where_every_policy_refuses_earlier(self) -> None:
        policy = Policy(self.config("[policy other.example]\ntag = 1\n"), (made("listed", Stage.HELO, Action.REJECT),))
        assert policy.acts_at(Stage.HELO)
        assert not policy.acts_at(Stage.RCPT)

    def test_a_connection_is_judged_by_the_common_policy(self) -> None:
        policy = Policy(
            self.config("[policy mild.example]\npreset = observe\n"), (made("shut", Stage.CONNECT, Action.REJECT),)
        )
        tx = to(findings=((Stage.CONNECT, Finding("shut")),))
        assert policy.acts_at(Stage.CONNECT)
        assert code(policy.judge(tx, Stage.CONNECT, "am-1")) == 554

    @pytest.mark.parametrize(("action", "expected"), [(Action.REJECT, "554 5.7.1"), (Action.TEMPFAIL, "421 4.7.0")])
    def test_codes_at_connect(self, action: Action, expected: str) -> None:
        policy = Policy(Config(), (made("shut", Stage.CONNECT, action),))
        reply = policy.judge(to(findings=((Stage.CONNECT, Finding("shut")),)), Stage.CONNECT, "am-1").verdict.reply
        assert reply is not None
        assert f"{reply.code} {reply.enhanced}" == expected

    def test_a_mailbox_goes_before_its_domain_and_that_before_all(self) -> None:
        config = replace(
            self.config(
                "[policy]\ntag = 4\nreject = 9\n[policy example.org]\ntag = 3\nreject = 8\n[policy a@example.org]\ntag = 2"
            ),
            scores={"x": 1.0, "y": 1.0, "z": 1.0},
            recipient_scores={"example.org": {"x": 2.0, "y": 2.0}, "b@example.org": {"x": 3.0}},
        )
        policy = Policy(config, ())
        mailbox, other = policy.special["a@example.org"], policy.special["b@example.org"]
        assert (mailbox.tag, mailbox.reject) == (2.0, 8.0)
        assert (other.tag, other.reject) == (3.0, 8.0)
        assert {s: other.numbers[s] for s in "xyz"} == {"x": 3.0, "y": 2.0, "z": 1.0}

    @pytest.mark.parametrize(
        ("preset", "inbound", "outbound", "dynamic"),
        [("observe", 0, 451, 451), ("balanced", 451, 451, 451), ("strict", 550, 451, 451)],
    )
    def test_presets(self, preset: str, inbound: int, outbound: int, dynamic: int) -> None:
        checks = (
            made("grey", Stage.RCPT, Action.TEMPFAIL, strict={"grey": Action.REJECT}),
            made("limit", Stage.RCPT, Action.TEMPFAIL, direction=Direction.OUTBOUND),
            made("door", Stage.RCPT, dynamic={"door_2": Action.TEMPFAIL}),
        )
        policy = Policy(self.config(f"[policy]\npreset = {preset}\n"), checks)

        def found(symbol: str) -> Transaction:
            return to("a@example.org", findings=((Stage.RCPT, Finding(symbol)),))

        assert code(policy.judge(found("grey"), Stage.RCPT, "am-1")) == inbound
        assert code(policy.judge_submission(found("limit"), Stage.RCPT, "am-1")) == outbound
        assert code(policy.judge(found("door_2"), Stage.RCPT, "am-1")) == dynamic


class TestSubmission:
    CHECKS = (
        made("limit", Stage.MAIL, Action.TEMPFAIL, direction=Direction.OUTBOUND),
        made("listed", Stage.CONNECT, Action.REJECT, judged=Stage.MAIL),
    )

    def judge(self, symbol: str, stage: Stage, action: Weight | None = None) -> Action:
        config = Config(scores={} if action is None else {symbol: action})
        tx = to("a@example.org", findings=((Stage.MAIL, Finding(symbol)),))
        return Policy(config, self.CHECKS).judge_submission(tx, stage, "am-1").verdict.action

    @pytest.mark.parametrize(
        ("action", "at_mail", "at_end"),
        [
            (None, Action.TEMPFAIL, Action.TEMPFAIL),
            (Action.REJECT, Action.REJECT, Action.REJECT),
            (Action.QUARANTINE, Action.CONTINUE, Action.QUARANTINE),
            (Action.DISCARD, Action.CONTINUE, Action.DISCARD),
            (Action.ACCEPT, Action.CONTINUE, Action.ACCEPT),
            (Action.TAG, Action.CONTINUE, Action.ACCEPT),
            (99.0, Action.CONTINUE, Action.ACCEPT),
        ],
    )
    def test_only_actions_count(self, action: Weight | None, at_mail: Action, at_end: Action) -> None:
        assert self.judge("limit", Stage.MAIL, action) is at_mail
        assert self.judge("limit", Stage.EOM, action) is at_end

    def test_what_concerns_strangers_has_no_say(self) -> None:
        assert self.judge("listed", Stage.MAIL) is Action.CONTINUE
        assert self.judge("listed", Stage.EOM) is Action.ACCEPT

    async def test_a_check_of_its_own_refuses_a_login(self) -> None:
        rig = Rig(checks=self.CHECKS)
        verdict = await rig.play(macros=LOGIN)
        assert (verdict.action, rig.observer.seen) == (Action.TEMPFAIL, ["outbound tempfail mail"])

    async def test_a_stranger_is_not_asked(self) -> None:
        rig = Rig(checks=self.CHECKS[:1])
        assert (await rig.play()).action is Action.ACCEPT

    async def test_bounces_and_pickup_can_not_be_refused(self) -> None:
        rig = Rig(checks=self.CHECKS)
        assert (await rig.play("127.0.0.1", port=0)).action is Action.ACCEPT

    async def test_a_hold_comes_at_the_end(self) -> None:
        rig = Rig(checks=self.CHECKS, config=Config(scores={"limit": Action.QUARANTINE}))
        verdict = await rig.play(macros=LOGIN)
        assert verdict.action is Action.QUARANTINE
        assert verdict.quarantine_reason.startswith("authmilter: limit [am-")

    async def test_it_does_not_wait_for_what_began_before_the_login(self) -> None:
        async def slow(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
            await asyncio.sleep(3600)
            yield Finding("slow")

        rig = Rig(checks=(*self.CHECKS[:1], Check("slow", Stage.CONNECT, slow, {"slow": 1.0}, None, "", waits=True)))
        verdict = await asyncio.wait_for(rig.play(macros=LOGIN), 5)
        assert verdict.action is Action.TEMPFAIL


class TestRecipients:
    @staticmethod
    def grey(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        yield Finding("grey", "the same for all")

    async def test_what_one_recipient_bears_does_not_excuse_the_next(self) -> None:
        rig = Rig(
            checks=(made("grey", Stage.RCPT, Action.TEMPFAIL, run=self.grey),),
            config=ini.load(None, "[policy mild.example]\npreset = observe\n"),
        )
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {})
        await session.mail([b"<alice@example.org>"], {})
        answers = [
            (await session.rcpt([path], {})).action
            for path in (b"<a@mild.example>", b"<b@example.net>", b"<c@mild.example>")
        ]
        assert answers == [Action.CONTINUE, Action.TEMPFAIL, Action.CONTINUE]
        assert [bytes(p) for p in session.tx.envelope.forward_paths] == [b"a@mild.example", b"c@mild.example"]
        assert len(session.tx.findings) == 1  # the same is not told twice

    async def test_nor_is_it_held_against_him(self) -> None:
        def first_alone(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            if len(tx.envelope.forward_paths) == 1:
                yield Finding("grey")

        rig = Rig(
            checks=(made("grey", Stage.RCPT, Action.TEMPFAIL, run=first_alone),),
            config=ini.load(None, "[policy mild.example]\npreset = observe\n"),
        )
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {})
        await session.mail([b"<alice@example.org>"], {})
        assert (await session.rcpt([b"<a@mild.example>"], {})).action is Action.CONTINUE
        assert (await session.rcpt([b"<b@example.net>"], {})).action is Action.CONTINUE

    async def test_one_who_only_looks_on_does_not_let_others_through(self) -> None:
        rig = Rig(
            checks=(made("listed", Stage.MAIL, Action.REJECT),),
            config=ini.load(None, "[policy looks.example]\nenforce = no\n"),
        )
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {})
        assert (await session.mail([b"<alice@example.org>"], {})).action is Action.CONTINUE
        answers = [
            (await session.rcpt([path], {})).action
            for path in (b"<a@looks.example>", b"<b@example.net>", b"<c@looks.example>")
        ]
        assert answers == [Action.CONTINUE, Action.REJECT, Action.CONTINUE]

    async def test_where_all_look_on_the_refusal_at_mail_is_logged(self) -> None:
        rig = Rig(
            checks=(made("listed", Stage.MAIL, Action.REJECT),),
            config=ini.load(None, "[policy]\nenforce = no\n[policy other.example]\ntag = 1\n"),
        )
        assert (await rig.play()).action is Action.ACCEPT
        assert rig.observer.seen == ["inbound reject mail"]

    async def test_a_refused_recipient_has_a_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "authmilter.session")
        rig = Rig(checks=(made("grey", Stage.RCPT, Action.TEMPFAIL, run=self.grey),))
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
        await session.mail([b"<alice@example.org>"], {})
        verdict = await session.rcpt([b"<b\n@example.net>"], {})
        assert verdict.reply is not None
        (line,) = [entry for entry in caplog.records if entry.msg == "recipient"]
        fields = line.fields  # type: ignore[attr-defined]
        assert fields["ref"] in verdict.reply.text
        assert (fields["client"], fields["mail_from"], fields["symbols"]) == (GOOD, "alice@example.org", "grey(0)")
        assert (fields["action"], fields["because"]) == ("tempfail", "grey")
        assert fields["reply"].startswith("451 4.7.1 ")
        text = TextFormatter().format(line)
        assert "\n" not in text
        assert "rcpt=" in text

    async def test_findings_of_a_message_are_bounded(self) -> None:
        def one_each(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            yield Finding("noted", str(len(tx.envelope.forward_paths)))

        rig = Rig(checks=(made("noted", Stage.RCPT, run=one_each),))
        await rig.play(rcpts=[f"<u{i}@example.net>" for i in range(800)])
        assert len(rig.outcomes[0].tx.findings) == 500


async def test_slow_spf_leaves_the_checks_of_recipients_their_time() -> None:
    class Silent(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(3600)
            return await super().query(name, rdtype)

    async def asks_the_store(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
        await asyncio.sleep(0.02)
        yield Finding("grey")

    check = Check("grey", Stage.RCPT, asks_the_store, {"grey": Action.TEMPFAIL}, None, "", waits=True)
    rig = Rig(dns=Silent(), checks=(check,), config=ini.load(None, "[milter]\ncommand_timeout = 300ms\n"))
    session = rig.session()
    await session.connect(b"client", "4", 1, GOOD.encode(), {})
    await session.mail([b"<alice@example.org>"], {})
    started = asyncio.get_running_loop().time()
    assert (await session.rcpt([b"<bob@example.net>"], {})).action is Action.TEMPFAIL
    assert asyncio.get_running_loop().time() - started < 0.29


async def test_where_rcpt_is_not_answered_its_checks_run_at_the_end_with_all_results() -> None:
    def known(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        methods = {r.method for r in tx.results}
        yield Finding("known", f"{len(tx.envelope.forward_paths)} {'spf' in methods}")

    rig = Rig(checks=(made("known", Stage.RCPT, 1.0, run=known),))
    session = rig.session()
    assert Stage.RCPT not in session.rules.busy
    await rig.play(session=session, rcpts=["<a@example.net>", "<b@example.net>"])
    findings = [(stage.label, f.detail) for stage, f in rig.outcomes[0].tx.findings]
    assert findings == [("rcpt", "1 True"), ("rcpt", "2 True")]
    assert rig.outcomes[0].ruling.verdict.score == 2.0


async def test_a_second_helo_forgets_what_is_still_asked_of_the_first() -> None:
    async def slow(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
        name = tx.helo.decode()
        await asyncio.sleep(0.01)
        yield Finding("slow", name)

    rig = Rig(checks=(Check("slow", Stage.HELO, slow, {"slow": 1.0}, None, "", waits=True),))
    session = rig.session()
    await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
    await session.helo(b"before.example", {})
    await session.helo(b"after.example", {})
    await rig.play(session=session)
    assert [f.detail for _, f in rig.outcomes[0].tx.findings] == ["after.example"]


class TestRecords:
    @pytest.fixture
    def notes(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What the records of the check `noted` were given."""
        notes: list[str] = []

        async def at_verdict(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
            await asyncio.sleep(0.001)
            notes.append(f"{ruling.verdict.action if ruling else None} {len(tx.envelope.forward_paths)}")

        async def at_close(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
            notes.append(f"close {tx.connection.client_ip} {tools.now - tx.connection.since:g} {ruling}")

        records = {("noted", When.VERDICT): at_verdict, ("noted", When.CLOSE): at_close}
        monkeypatch.setattr(check_module, "_records", records)
        return notes

    async def test_of_every_verdict_and_at_the_end_of_the_session(self, notes: list[str]) -> None:
        rig = Rig(checks=(made("noted", Stage.CONNECT),))
        session = rig.session()
        for sender in ("<alice@example.org>", "<bob@example.org>"):
            await rig.play(session=session, sender=sender)
        await rig.play(session=session, macros=LOGIN)
        session.close()
        session.close()
        await session.rules.pipeline.finish_records(5)
        assert notes == [f"close {GOOD} 0 None", *["accept 1"] * 3]

    async def test_of_a_refusal_too(self, notes: list[str]) -> None:
        rig = Rig(checks=(made("noted", Stage.MAIL, Action.REJECT),))
        session = rig.session()
        await rig.play(session=session)
        await session.rules.pipeline.finish_records(5)
        assert notes == ["reject 0"]

    @pytest.mark.parametrize(("action", "expected"), [(Action.REJECT, ["reject 1"]), (Action.TEMPFAIL, [])])
    async def test_of_recipients_that_are_refused_for_good_once(
        self, notes: list[str], action: Action, expected: list[str]
    ) -> None:
        rig = Rig(checks=(made("noted", Stage.RCPT, action),))
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
        for _ in range(2):
            await session.mail([b"<alice@example.org>"], {})
            for recipient in (b"<a@example.net>", b"<b@example.net>"):
                assert (await session.rcpt([recipient], {})).action is action
            session.abort()
        await session.rules.pipeline.finish_records(5)
        assert notes == expected * 2

    async def test_of_a_message_that_a_refused_recipient_was_to_have_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[str, list[str]]] = []

        async def note(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
            assert ruling is not None
            seen.append((ruling.verdict.action.value, [finding.symbol for _, finding in tx.findings]))

        def trapped(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            if tx.envelope.forward_paths[-1].local_part == b"trap":
                yield Finding("noted")

        monkeypatch.setattr(check_module, "_records", {("noted", When.VERDICT): note})
        rig = Rig(checks=(made("noted", Stage.RCPT, Action.REJECT, run=trapped),))
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
        for recipients in ((b"<trap@example.net>", b"<bob@example.net>"), (b"<bob@example.net>",)):
            await session.mail([b"<alice@example.org>"], {})
            for recipient in recipients:
                await session.rcpt([recipient], {})
            session.headers([HeaderField(b"From", b" alice@example.org")])
            await session.end_of_headers({})
            await session.end_of_message({})
        session.close()
        assert seen == [("accept", ["noted"]), ("accept", [])]

    async def test_the_end_is_nothing_to_checks_that_did_not_see_the_beginning(self, notes: list[str]) -> None:
        rig = Rig(checks=(made("noted", Stage.CONNECT),))
        session = rig.session()
        await session.connect(b"localhost", "4", 1, b"127.0.0.1", {})
        session.close()
        rig.session().close()
        assert notes == []

    @pytest.mark.parametrize(
        ("error", "seen"),
        [(StoreError("down"), "noted temperror"), (RuntimeError("bug"), "noted exception")],
        ids=["a store that is down", "a bug"],
    )
    async def test_one_that_fails_is_counted(
        self, error: Exception, seen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fails(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
            raise error

        monkeypatch.setattr(check_module, "_records", {("noted", When.VERDICT): fails})
        rig = Rig(checks=(made("noted", Stage.CONNECT),))
        assert (await rig.play(header=HEADER)).action is Action.ACCEPT
        assert rig.observer.seen == [seen, "inbound accept eom"] or rig.observer.seen == ["inbound accept eom", seen]

    async def test_there_are_not_more_than_can_be_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hangs(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
            await asyncio.sleep(3600)

        monkeypatch.setattr(check_module, "_records", {("noted", When.VERDICT): hangs})
        monkeypatch.setattr("authmilter.pipeline.MAX_RECORDS", 2)
        rig = Rig(checks=(made("noted", Stage.CONNECT),))
        session = rig.session()
        for _ in range(3):
            await rig.play(session=session)
        assert rig.observer.seen.count("noted temperror") == 1
        await session.rules.pipeline.finish_records(0.01)
