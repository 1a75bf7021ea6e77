"""A Session from CONNECT to its verdict, over a table of DNS records."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest

from authmilter import check as check_module
from authmilter.check import Check, Tools, all_checks
from authmilter.config.schema import Config, Identity, Milter, Network, RecipientPolicy, Submission
from authmilter.config.schema import Policy as PolicyOptions
from authmilter.errors import DnsTempError
from authmilter.evidence import Finding
from authmilter.files import load_files
from authmilter.interfaces import Answer
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField, Mailbox, Stage, Transaction
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action, HeaderEdit, Verdict
from tests.fakes import FakeDNS

ZONE = {
    "example.org TXT": ["v=spf1 ip4:192.0.2.0/24 -all"],
    "example.org MX": ["10 mail.example.org"],
    "other.example MX": ["10 mail.example.org"],
    "_dmarc.example.org TXT": ["v=DMARC1; p=reject"],
    "7.2.0.192.in-addr.arpa PTR": ["mail.example.org"],
    "mail.example.org A": ["192.0.2.7"],
}
HEADER = (
    ("From", "Alice <alice@example.org>"),
    ("To", "bob@example.net"),
    ("Subject", "hello"),
    ("Date", "Sun, 09 Sep 2001 01:46:40 +0000"),
    ("Message-ID", "<1@example.org>"),
    ("Received", "from a by b"),
)
GOOD, BAD = "192.0.2.7", "203.0.113.1"


class Counting(NullObserver):
    """Remembers what the core reported."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def check_error(self, name: str, kind: str) -> None:
        self.seen.append(f"{name} {kind}")

    def verdict(self, direction: str, action: str, stage: Stage, score: float | None) -> None:
        self.seen.append(f"{direction} {action} {stage.label}")

    def recipient_refused(self, code: int) -> None:
        self.seen.append(f"rcpt {code}")


@dataclass
class Rig:
    """Builds sessions, and plays messages through them."""

    config: Config = field(default_factory=Config)
    dns: FakeDNS = field(default_factory=lambda: FakeDNS(ZONE))
    checks: tuple[Check, ...] = field(default_factory=all_checks)
    observer: Counting = field(default_factory=Counting)
    outcomes: list[Outcome] = field(default_factory=list)

    def session(self) -> Session:
        config = replace(self.config, identity=replace(self.config.identity, authserv_id="mx.test"))
        rules = build(config, self.checks, load_files(config), self.dns, self.observer, lambda: 1e9)
        return Session(rules, self.outcomes.append)

    async def play(
        self,
        ip: str = GOOD,
        *,
        port: int = 40000,
        helo: str = "mail.example.org",
        sender: str = "<alice@example.org>",
        rcpts: Sequence[str] = ("<bob@example.net>",),
        header: Sequence[tuple[str, str]] = HEADER,
        body: bytes = b"hello\r\n",
        macros: Mapping[bytes, bytes] | None = None,
        session: Session | None = None,
    ) -> Verdict:
        """The first refusal, or the verdict at end of message."""
        session = session or self.session()
        known = dict(macros or {})
        steps: list[Verdict] = []
        if not session.tx.connection.mta_name:
            known[b"j"] = b"mx.test"
            steps.append(await session.connect(b"client", "6" if ":" in ip else "4", port, ip.encode(), known))
            if helo:
                steps.append(await session.helo(helo.encode("latin-1"), known))
        steps.append(await session.mail([sender.encode()], known))
        for refusal in steps:
            if refusal.action is not Action.CONTINUE:
                return refusal
        steps += [await session.rcpt([rcpt.encode()], known) for rcpt in rcpts]
        steps.append(await session.data(known))
        for refusal in steps:
            if refusal.action is not Action.CONTINUE:
                return refusal
        session.headers([HeaderField(n.encode("latin-1"), b" " + v.encode("latin-1")) for n, v in header])
        await session.end_of_headers(known)
        for start in range(0, len(body), 1000):
            session.body(body[start : start + 1000])
        return await session.end_of_message(known)


def results(outcome: Outcome) -> dict[str, str]:
    return {r.method: r.result.value for r in outcome.tx.results}


def edits(verdict: Verdict, name: str, op: str = "insert") -> list[HeaderEdit]:
    return [edit for edit in verdict.edits if edit.name == name and edit.op == op]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_good_mail_is_accepted_with_one_field_on_top(rig: Rig) -> None:
    verdict = await rig.play()
    assert verdict.action is Action.ACCEPT
    assert results(rig.outcomes[0]) == {
        "iprev": "pass", "spf_helo": "none", "spf": "pass", "dkim": "none", "dmarc": "pass",
    }  # fmt: skip
    assert verdict.edits[-1].name == "Authentication-Results"
    assert len(edits(verdict, "Authentication-Results")) == 1
    assert verdict.edits[-1].value.startswith("mx.test;")
    assert rig.observer.seen == ["inbound accept eom"]


async def test_a_spoof_is_refused_in_the_name_of_dmarc(rig: Rig) -> None:
    verdict = await rig.play(BAD)
    assert verdict.action is Action.REJECT
    assert verdict.reply is not None
    assert (verdict.reply.code, verdict.reply.enhanced) == (550, "5.7.26")
    assert "DMARC policy for example.org" in verdict.reply.text
    assert rig.outcomes[0].reference in verdict.reply.text


async def test_without_enforce_the_same_mail_is_accepted_and_still_counted(rig: Rig) -> None:
    rig.config = Config(policy=PolicyOptions(enforce=False))
    verdict = await rig.play(BAD)
    assert verdict.action is Action.ACCEPT
    assert edits(verdict, "X-Spam-Flag")[0].value == "YES"
    assert rig.outcomes[0].ruling.verdict.action is Action.REJECT
    assert rig.observer.seen == ["inbound reject eom"]


async def test_strict_refuses_at_mail(rig: Rig) -> None:
    rig.config = Config(policy=PolicyOptions(preset="strict"))
    verdict = await rig.play(BAD)
    assert verdict.reply is not None
    assert (verdict.reply.code, verdict.reply.enhanced) == (550, "5.7.23")
    assert rig.observer.seen == ["inbound reject mail"]


async def test_strict_without_enforce_goes_on_to_the_end_and_remembers_the_refusal_at_mail(rig: Rig) -> None:
    rig.config = Config(policy=PolicyOptions(preset="strict", enforce=False))
    verdict = await rig.play(BAD)
    assert verdict.action is Action.ACCEPT
    assert edits(verdict, "Authentication-Results")
    assert rig.observer.seen == ["inbound reject mail"]


async def test_the_null_reverse_path_is_judged_by_its_helo_alone(rig: Rig) -> None:
    rig.dns.add("mail.example.org TXT", ["v=spf1 a -all"])
    await rig.play(sender="<>")
    found = [r for r in rig.outcomes[0].tx.results if r.method.startswith("spf")]
    assert [(r.result.value, dict(r.properties)) for r in found] == [("pass", {"smtp.helo": "mail.example.org"})]
    assert results(rig.outcomes[0])["dmarc"] == "pass"
    assert rig.outcomes[0].authentication_results.count("spf=") == 1


async def test_a_dead_resolver_never_fails_anything(rig: Rig) -> None:
    class Dead(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            raise DnsTempError("no server reached")

    rig.dns = Dead()
    verdict = await rig.play(BAD)
    assert verdict.action is Action.ACCEPT
    assert results(rig.outcomes[0]) == {
        "iprev": "temperror", "spf_helo": "temperror", "spf": "temperror", "dkim": "none", "dmarc": "temperror",
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["balanced", "strict"])
async def test_a_resolver_that_hangs_ends_in_temperror_within_the_deadline(rig: Rig, preset: str) -> None:
    class Tarpit(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(3600)
            raise AssertionError

    rig.dns = Tarpit()
    rig.config = Config(
        milter=Milter(command_timeout=0.05, message_timeout=0.1),  # type: ignore[arg-type]
        policy=PolicyOptions(preset=preset),  # type: ignore[arg-type]
    )
    session = rig.session()
    verdict = await asyncio.wait_for(rig.play(session=session), 5)
    session.close()
    assert verdict.action is (Action.TEMPFAIL if preset == "strict" else Action.ACCEPT)
    if verdict.reply:
        assert verdict.reply.code == 451


class TestDnsOfTheSender:
    """Nobody escapes a refusal by breaking his own DNS."""

    async def test_a_dmarc_temperror_without_any_signature_excuses_no_spf_fail(self, rig: Rig) -> None:
        rig.dns = FakeDNS({**ZONE, "evil.example A": ["203.0.113.1"]}, fail=["_dmarc.evil.example TXT"])
        header = [("From", "x@evil.example"), *HEADER[1:]]
        verdict = await rig.play(BAD, sender="<boss@example.org>", header=header)
        assert results(rig.outcomes[0])["dmarc"] == "temperror"
        assert verdict.reply is not None
        assert (verdict.reply.code, verdict.reply.enhanced) == (550, "5.7.23")

    async def test_a_late_spf_result_keeps_its_domain(self, rig: Rig) -> None:
        class Slow(FakeDNS):
            async def query(self, name: str, rdtype: str) -> Answer:
                if name.rstrip(".").endswith("slow.example"):
                    await asyncio.sleep(3600)
                return await super().query(name, rdtype)

        rig.dns = Slow(ZONE)
        rig.config = Config(
            milter=Milter(command_timeout=0.05, message_timeout=0.2),  # type: ignore[arg-type]
            scores={"spf_fail": Action.REJECT},
        )
        session = rig.session()
        verdict = await rig.play(BAD, sender="<x@slow.example>", session=session)
        session.close()
        found = {r.method: r for r in rig.outcomes[0].tx.results}
        assert (found["spf"].result.value, found["spf"].identifier) == ("temperror", "slow.example")
        assert found["dmarc"].result.value == "fail"
        assert verdict.action is Action.REJECT


class TestUnenforced:
    async def test_a_refusal_that_was_not_carried_out_does_not_outlive_rset(self, rig: Rig) -> None:
        rig.config = Config(policy=PolicyOptions(preset="strict", enforce=False))
        session = rig.session()
        await session.connect(b"client", "4", 1, BAD.encode(), {b"j": b"mx.test"})
        await session.mail([b"<x@example.org>"], {})
        session.abort()
        await rig.play(session=session, sender="<x@other.example>", header=[("From", "x@other.example")])
        assert rig.outcomes[0].ruling.verdict.action is Action.ACCEPT

    async def test_one_recipient_who_enforces_is_not_overruled_by_it(self, rig: Rig) -> None:
        own = RecipientPolicy(enforce=True, given=frozenset({"enforce"}))
        rig.config = Config(
            policy=PolicyOptions(preset="strict", enforce=False), recipient_policies={"example.net": own}
        )
        assert (await rig.play(BAD)).action is Action.REJECT


class TestDirection:
    KEY = Config(networks=Network())

    async def test_a_login_makes_mail_outbound(self, rig: Rig) -> None:
        verdict = await rig.play(BAD, macros={b"{auth_authen}": b"alice"})
        assert verdict.action is Action.ACCEPT
        assert rig.outcomes[0].tx.results == ()
        assert not edits(verdict, "Authentication-Results")
        assert not edits(verdict, "X-Spam-Flag")
        assert rig.observer.seen == ["outbound accept eom"]

    @pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
    async def test_internal_clients_are_outbound(self, rig: Rig, ip: str) -> None:
        await rig.play(ip)
        assert rig.observer.seen == ["outbound accept eom"]

    async def test_local_submission_is_outbound_whatever_internal_says(self, rig: Rig) -> None:
        rig.config = Config(networks=Network(internal=()), policy=PolicyOptions(preset="strict"))
        verdict = await rig.play("127.0.0.1", port=0, helo="localhost", sender="<>")
        assert verdict.action is Action.ACCEPT
        assert rig.outcomes[0].tx.envelope.local_submission

    async def test_a_stranger_behind_a_proxy_is_not_local_for_saying_no_helo(self, rig: Rig) -> None:
        rig.config = Config(networks=Network(internal=()))
        await rig.play("127.0.0.1", helo="")
        assert rig.outcomes[0].tx.envelope.direction.label == "inbound"

    async def test_a_mapped_address_is_the_ipv4_client(self, rig: Rig) -> None:
        await rig.play(f"::ffff:{GOOD}")
        assert results(rig.outcomes[0])["spf"] == "pass"

    async def test_a_trusted_relay_keeps_its_results(self, rig: Rig) -> None:
        rig.config = Config(networks=Network(trusted_relays=(ip_network("203.0.113.0/24"),)))
        header = (*HEADER, ("Authentication-Results", "mx.test; spf=pass smtp.mailfrom=a@b.example"))
        verdict = await rig.play(BAD, header=header)
        assert verdict.action is Action.ACCEPT
        assert verdict.edits == ()


class TestForgedFields:
    FORGED = (
        "mx.test; dmarc=pass",
        "MX.Test; spf=pass",
        '"mx.test" 1; dkim=pass',
        "(a comment) mx.test. ; spf=pass",
        "mx.test\r\n\t; spf=pass",
    )

    async def test_all_go_last_first_and_others_stay(self, rig: Rig) -> None:
        header = [("Authentication-Results", value) for value in self.FORGED]
        header.insert(2, ("Authentication-Results", "other.example; spf=pass"))
        verdict = await rig.play(header=[*header, *HEADER])
        assert [e.at for e in edits(verdict, "Authentication-Results", "delete")] == [6, 5, 4, 2, 1]

    async def test_from_inside_as_well(self, rig: Rig) -> None:
        header = [("Authentication-Results", value) for value in self.FORGED]
        verdict = await rig.play("127.0.0.1", header=[*header, *HEADER])
        assert [e.at for e in edits(verdict, "Authentication-Results", "delete")] == [5, 4, 3, 2, 1]

    async def test_behind_two_megabytes_of_header_as_well(self, rig: Rig) -> None:
        junk = [("X-Junk", "x" * 100_000)] * 25
        verdict = await rig.play(header=[*HEADER, *junk, ("Authentication-Results", "mx.test; dmarc=pass")])
        assert [e.at for e in edits(verdict, "Authentication-Results", "delete")] == [1]
        assert rig.outcomes[0].tx.message.oversized == "header section"

    async def test_foreign_spam_fields_go(self, rig: Rig) -> None:
        verdict = await rig.play(header=[("X-Spam-Flag", "NO"), ("x-spam-score", "-99"), *HEADER])
        deleted = [(e.name.lower(), e.at) for e in verdict.edits if e.op == "delete"]
        assert sorted(deleted) == [("x-spam-flag", 1), ("x-spam-score", 1)]


class TestSeveralMessages:
    async def test_nothing_of_a_message_reaches_the_next(self, rig: Rig) -> None:
        session = rig.session()
        await rig.play(session=session, header=[*HEADER, ("From", "second@example.org")])
        await rig.play(session=session)
        assert [o.ruling.verdict.action for o in rig.outcomes] == [Action.REJECT, Action.ACCEPT]
        assert results(rig.outcomes[1])["iprev"] == "pass"
        assert rig.outcomes[0].reference != rig.outcomes[1].reference

    async def test_an_abort_in_the_body_leaves_nothing(self, rig: Rig) -> None:
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
        await session.helo(b"mail.example.org", {})
        await session.mail([b"<evil@example.com>"], {})
        session.headers([HeaderField(b"X", b" y")])
        await session.end_of_headers({})
        session.body(b"half")
        session.abort()
        verdict = await rig.play(session=session)
        assert verdict.action is Action.ACCEPT
        assert rig.outcomes[0].tx.message.body_size == len(b"hello\r\n")
        assert len(rig.outcomes) == 1

    async def test_what_a_slow_check_found_on_connect_holds_for_every_message(self, rig: Rig) -> None:
        async def listed(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
            await asyncio.sleep(0.01)
            yield Finding("listed")

        rig.checks = (Check("listed", Stage.CONNECT, listed, {"listed": 20.0}, None, "", waits=True),)
        session = rig.session()
        for _ in range(3):
            assert (await rig.play(session=session)).action is Action.REJECT

    async def test_helo_ends_a_transaction(self, rig: Rig) -> None:
        session = rig.session()
        await session.connect(b"client", "4", 1, BAD.encode(), {b"j": b"mx.test"})
        await session.helo(b"mail.example.org", {})
        await session.mail([b"<good@other.example>"], {})
        await session.rcpt([b"<z@example.net>"], {})
        await session.helo(b"mail.example.org", {})
        assert (await rig.play(session=session)).action is Action.REJECT
        assert [bytes(p) for p in rig.outcomes[0].tx.envelope.forward_paths] == [b"bob@example.net"]
        assert results(rig.outcomes[0])["spf"] == "fail"

    async def test_a_second_helo_replaces_the_first(self, rig: Rig) -> None:
        session = rig.session()
        await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
        await session.helo(b"[192.0.2.7]", {})
        await session.helo(b"mail.example.org", {b"{tls_version}": b"TLSv1.3"})
        await rig.play(session=session)
        assert rig.outcomes[0].tx.findings == ()
        assert rig.outcomes[0].tx.helo == b"mail.example.org"


class TestOversized:
    async def test_an_endless_greeting_is_not_kept(self, rig: Rig) -> None:
        await rig.play(helo="a." * 1_000_000 + "example")
        assert len(rig.outcomes[0].tx.helo) == 1024
        assert rig.outcomes[0].tx.helo_domain == ""

    async def test_a_body_over_the_limit_is_accepted_with_a_finding(self, rig: Rig) -> None:
        rig.config = Config(milter=Milter(max_message_size=5000))  # type: ignore[arg-type]
        verdict = await rig.play(body=b"x" * 10_000)
        assert verdict.action is Action.ACCEPT
        assert [f.symbol for _, f in rig.outcomes[0].tx.findings] == ["oversized"]

    async def test_ten_thousand_fields(self, rig: Rig) -> None:
        verdict = await rig.play(header=[*HEADER, *((f"X-{i}", "y") for i in range(10_000))])
        assert verdict.action is Action.ACCEPT

    async def test_a_huge_field_is_not_examined(self, rig: Rig) -> None:
        verdict = await rig.play(header=[*HEADER, ("X-Huge", "y" * 300_000)])
        assert verdict.action is Action.ACCEPT
        assert rig.outcomes[0].tx.message.oversized == "header field"


@pytest.mark.parametrize(
    ("helo", "sender"),
    [
        ("\xff\xfe", "<alice@example.org>"),
        ("a\x00b", "<alice@example.org>"),
        ("", "<(alice@example.org>"),
        ("x" * 1000, "<" + "a" * 5000 + "@example.org>"),
        ("mail.example.org", "<alice@exa\xffmple.org>"),
        ("mail.example.org", ""),
    ],
    ids=["8-bit HELO", "NUL in HELO", "comment in MAIL", "long arguments", "8-bit MAIL", "empty MAIL"],
)
async def test_odd_arguments_get_an_answer(rig: Rig, helo: str, sender: str) -> None:
    session = rig.session()
    known = {b"j": b"mx.test"}
    await session.connect(b"client", "4", 1, GOOD.encode(), known)
    await session.helo(helo.encode("latin-1"), known)
    await session.mail([sender.encode("latin-1")], known)
    await rig.play(session=session, sender=sender)
    assert len(rig.outcomes) == 1
    field_value = rig.outcomes[0].authentication_results
    assert field_value.isascii()
    assert not set(field_value) & {"\x00", "\r"}


@pytest.mark.parametrize(
    ("family", "host", "address", "direction"),
    [
        ("L", "localhost", "/run/x.sock", "outbound"),
        ("U", "localhost", "", "outbound"),
        ("U", "unknown", "", "inbound"),
        ("4", "localhost", "garbage", "inbound"),
        ("6", "x", "", "inbound"),
    ],
)
async def test_only_what_is_surely_local_is_ours(
    rig: Rig, family: str, host: str, address: str, direction: str
) -> None:
    session = rig.session()
    await session.connect(host.encode(), family, 0, address.encode(), {b"j": b"mx.test"})
    await session.helo(b"mail.example.org", {})
    await rig.play(session=session)
    assert [o.tx.envelope.direction.label for o in rig.outcomes] == [direction]


class TestBrokenChecks:
    @staticmethod
    def with_check(stage: Stage, function: object, *, waits: bool = False) -> tuple[Check, ...]:
        return (Check("broken", stage, function, {"broken": 1.0}, None, "", waits),)  # type: ignore[arg-type]

    @pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.EOH, Stage.EOM])
    async def test_an_exception_costs_one_finding(self, rig: Rig, stage: Stage) -> None:
        def broken(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            raise RuntimeError("bug")
            yield

        rig.checks = self.with_check(stage, broken)
        assert (await rig.play()).action is Action.ACCEPT
        assert [f.symbol for _, f in rig.outcomes[0].tx.findings] == ["check_error"]
        assert "broken exception" in rig.observer.seen

    @pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.RCPT, Stage.EOM])
    async def test_one_that_waits_too(self, rig: Rig, stage: Stage) -> None:
        async def broken(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
            yield Finding("broken")
            await asyncio.sleep(0)
            raise DnsTempError("nobody home")

        rig.checks = self.with_check(stage, broken, waits=True)
        assert (await rig.play()).action is Action.ACCEPT
        assert [f.symbol for _, f in rig.outcomes[0].tx.findings] == ["broken", "broken_temperror"]

    async def test_one_that_never_ends_is_cut(self, rig: Rig) -> None:
        def endless(tx: Transaction, tools: Tools) -> Iterator[Finding]:
            while True:
                yield Finding("broken")

        rig.checks = self.with_check(Stage.EOM, endless)
        await rig.play()
        assert len(rig.outcomes[0].tx.findings) == 100

    async def test_one_that_hangs_ends_with_the_deadline(self, rig: Rig) -> None:
        async def hangs(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
            await asyncio.sleep(3600)
            yield Finding("broken")

        rig.config = Config(milter=Milter(message_timeout=0.1))  # type: ignore[arg-type]
        rig.checks = self.with_check(Stage.EOM, hangs, waits=True)
        assert (await asyncio.wait_for(rig.play(), 5)).action is Action.ACCEPT
        assert [f.detail for _, f in rig.outcomes[0].tx.findings] == ["deadline"]


async def test_what_was_late_once_is_not_waited_for_at_every_command(rig: Rig) -> None:
    class Silent(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(3600)
            return await super().query(name, rdtype)

    rig.dns = Silent(ZONE)
    rig.config = Config(policy=PolicyOptions(preset="strict"), milter=Milter(command_timeout=0.2))  # type: ignore[arg-type]
    session = rig.session()
    await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
    await session.mail([b"<alice@example.org>"], {})
    started = asyncio.get_running_loop().time()
    for _ in range(5):
        await session.rcpt([b"<bob@example.net>"], {})
    assert asyncio.get_running_loop().time() - started < 0.4


async def test_a_recipient_beyond_those_that_are_listed_is_judged_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choosy(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        if tx.envelope.forward_paths[-1].local_part == b"trap":
            yield Finding("choosy")

    monkeypatch.setattr("authmilter.session.MAX_RECIPIENTS", 3)
    rig.checks = (Check("choosy", Stage.RCPT, choosy, {"choosy": Action.REJECT}, None, "", False),)
    session = rig.session()
    await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
    await session.mail([b"<alice@example.org>"], {})
    for _ in range(6):
        assert (await session.rcpt([b"<bob@example.net>"], {})).action is Action.CONTINUE
        assert (await session.rcpt([b"<trap@example.net>"], {})).action is Action.REJECT
    assert len(session.tx.envelope.forward_paths) == 4


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"Bob@Example.NET", "bob@example.net"),
        (b'"bob"@example.net', "bob@example.net"),
        (b'"b\\ob"@example.net', "bob@example.net"),
        (b'"b\\"ob"@example.net', 'b"ob@example.net'),
        (b'"a b"@example.net', "a b@example.net"),
        ("fran\u212a@example.net".encode(), "fran\u212a@example.net"),
        (b"\xff@example.net", "\\xff@example.net"),
    ],
)
def test_an_address_is_the_same_with_quotes_and_without(path: bytes, address: str) -> None:
    local_part, _, domain = path.rpartition(b"@")
    assert Mailbox(local_part, domain, domain.decode().lower()).address == address


async def test_a_refused_recipient_leaves_no_trace(rig: Rig) -> None:
    def choosy(tx: Transaction, tools: Tools) -> Iterator[Finding]:
        if tx.envelope.forward_paths[-1].local_part == b"trap":
            yield Finding("choosy")

    rig.checks = (Check("choosy", Stage.RCPT, choosy, {"choosy": 1.0}, None, "", False),)
    rig.config = Config(scores={"choosy": Action.REJECT})
    session = rig.session()
    await session.connect(b"client", "4", 1, GOOD.encode(), {b"j": b"mx.test"})
    await session.mail([b"<alice@example.org>"], {})
    assert (await session.rcpt([b"<trap@example.net>"], {})).action is Action.REJECT
    assert (await session.rcpt([b"<bob@example.net>"], {})).action is Action.CONTINUE
    assert session.tx.findings == ()
    assert [bytes(p) for p in session.tx.envelope.forward_paths] == [b"bob@example.net"]
    assert rig.observer.seen == ["rcpt 550"]


async def test_an_authenticated_user_may_not_write_another_from(rig: Rig) -> None:
    rig.config = Config(
        identity=Identity(local_domains=("example.org",)), submission=Submission(from_must_match="login")
    )
    verdict = await rig.play(macros={b"{auth_authen}": b"mallory"})
    assert verdict.action is Action.REJECT
    assert verdict.reply is not None
    assert (verdict.reply.code, verdict.reply.enhanced) == (550, "5.7.1")
    assert "alice@example.org" in verdict.reply.text
    assert rig.outcomes[0].signed == "no: refused"
    assert (await rig.play(macros={b"{auth_authen}": b"alice"})).action is Action.ACCEPT


async def test_the_verdict_is_a_function_of_the_recorded_evidence(rig: Rig) -> None:
    await rig.play(BAD)
    outcome = rig.outcomes[0]
    again = rig.session().rules.policy.judge(outcome.tx, Stage.EOM, outcome.reference)
    assert outcome.ruling.verdict._replace(edits=()) == again.verdict


def test_registered_checks_have_a_line_for_the_manual() -> None:
    assert all(c.help.endswith(".") for c in check_module.all_checks())


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [((), False), ((b"SIZE=100", b"smtputf8"), True), ((b"BODY=8BITMIME", b"SMTPUTF8=x"), False)],
)
async def test_smtputf8_is_known_of_a_transaction_and_not_of_the_next(
    rig: Rig, parameters: tuple[bytes, ...], expected: bool
) -> None:
    session = rig.session()
    await session.connect(b"client", "4", 25252, b"192.0.2.1", {})
    await session.helo(b"client.example", {})
    await session.mail([b"<alice@example.org>", *parameters], {})
    assert session.tx.envelope.smtputf8 is expected
    await session.mail([b"<alice@example.org>"], {})
    assert session.tx.envelope.smtputf8 is False
