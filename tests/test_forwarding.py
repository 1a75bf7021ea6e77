"""Forwarders, trusted sealers, overrides and allow entries: what they excuse, and what they never do."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from authmilter.check import all_checks
from authmilter.config import ini
from authmilter.config.schema import Allow, Config, DmarcOverride, Forwarders
from authmilter.config.schema import Policy as PolicyOptions
from authmilter.errors import ConfigError
from authmilter.evidence import AuthResult, Result
from authmilter.forwarding import with_override
from authmilter.model import Connection, Envelope, HeaderField, Mailbox, Message, Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action
from tests.fakes import FakeDNS
from tests.test_session import BAD, HEADER, ZONE, Rig

P, F, S, N = Result.PASS, Result.FAIL, Result.SOFTFAIL, Result.NONE
FORWARDER = ip_network("198.51.100.0/24")
BY_NETWORK = Config(forwarders=Forwarders(networks=(FORWARDER,)))


def failed(
    *,
    ip: str = "198.51.100.9",
    iprev: str = "",
    spf: Result = F,
    spf_domain: str = "author.example",
    dkim: tuple[tuple[Result, str], ...] = (),
    sender: str = "a@author.example",
    fields: tuple[str, ...] = (),
    rcpts: tuple[str, ...] = ("u@here.example",),
) -> Transaction:
    """Mail of author.example that fails DMARC under p=reject."""

    def mailbox(text: str) -> Mailbox:
        local, _, domain = text.partition("@")
        return Mailbox(local.encode(), domain.encode(), domain)

    return Transaction(
        connection=Connection(client_ip=ip_address(ip)),
        envelope=Envelope(
            reverse_path=mailbox(sender) if sender else None, forward_paths=tuple(mailbox(r) for r in rcpts)
        ),
        message=Message(tuple(HeaderField(f.encode(), b" x") for f in ("From", *fields))),
        results=(
            AuthResult("iprev", P if iprev else Result.PERMERROR, iprev),
            AuthResult("spf", spf, spf_domain),
            *(AuthResult("dkim", result, domain) for result, domain in dkim),
            AuthResult("dmarc", F, "author.example", {"header.from": "author.example", "policy.dmarc": "reject"}),
        ),
    )


def outcome(tx: Transaction, config: Config, preset: str = "balanced") -> tuple[str, str]:
    """The action, and policy.override."""
    config = replace(config, policy=PolicyOptions(preset=preset))  # type: ignore[arg-type]
    tx = with_override(tx, config)
    verdict = Policy(config, all_checks()).judge(tx, Stage.EOM, "am-1").verdict
    return verdict.action.value, tx.results[-1].properties.get("policy.override", "")


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (failed(), ("accept", "trusted_forwarder")),
        (failed(ip="203.0.113.1"), ("reject", "")),
        (failed(spf=S), ("accept", "trusted_forwarder")),
        (failed(spf=P, spf_domain="other.example"), ("reject", "")),
        (failed(spf=P, spf_domain="other.example", sender="bounce@other.example"), ("reject", "")),
        (failed(spf=P, spf_domain="fwd.example", sender="SRS0=x=y=author.example=a@fwd.example"), ("accept", "trusted_forwarder")),
        (failed(spf=F, spf_domain="fwd.example", sender="SRS0=x=y=author.example=a@fwd.example"), ("reject", "")),
        (failed(spf=N, spf_domain="fwd.example", sender=""), ("reject", "")),
        (failed(spf=P, spf_domain="list.example", dkim=((F, "author.example"),)), ("accept", "trusted_forwarder")),
        (failed(spf=P, spf_domain="list.example", dkim=((F, "evil.example"),)), ("reject", "")),
        (failed(spf=P, spf_domain="list.example", fields=("List-Id",)), ("accept", "mailing_list")),
        (failed(spf=N, spf_domain="list.example", fields=("List-Id",)), ("reject", "")),
        (failed(spf=P, spf_domain="evil.example", fields=("List-Id",), ip="203.0.113.1"), ("reject", "")),
    ],
    ids=[
        "plain forwarding breaks SPF",
        "the same from elsewhere is a spoof",
        "softfail too",
        "a forgery that came by the forwarder is not excused",
        "nor one with an envelope of its own",
        "a rewritten envelope",
        "a rewritten envelope that is nobody's own",
        "the null reverse-path is no sign of forwarding",
        "a signature broken on the way",
        "a broken signature of somebody else proves nothing",
        "list mail under the envelope of the list",
        "a List-Id without an envelope of its own",
        "a List-Id alone is nothing",
    ],
)  # fmt: skip
def test_forwarders_by_network(tx: Transaction, expected: tuple[str, str]) -> None:
    assert outcome(tx, BY_NETWORK) == expected


@pytest.mark.parametrize(
    ("iprev", "entry", "excused"),
    [
        ("mx.fwd.example", ".fwd.example", True),
        ("fwd.example", ".fwd.example", True),
        ("mx.fwd.example", "fwd.example", False),
        ("fwd.example", "fwd.example", True),
        ("evilfwd.example", ".fwd.example", False),
        ("", ".fwd.example", False),
    ],
)
def test_forwarders_by_confirmed_name(iprev: str, entry: str, excused: bool) -> None:
    config = Config(forwarders=Forwarders(names=(entry,)))
    assert outcome(failed(ip="203.0.113.1", iprev=iprev), config)[0] == ("accept" if excused else "reject")


@pytest.mark.parametrize(("result", "excused"), [(P, True), (F, False), (Result.TEMPERROR, False)])
def test_forwarders_by_signature(result: Result, excused: bool) -> None:
    config = Config(forwarders=Forwarders(dkim=("list.example",)))
    tx = failed(ip="203.0.113.1", dkim=((result, "list.example"), (F, "author.example")))
    assert outcome(tx, config)[0] == ("accept" if excused else "reject")


class TestRecipients:
    CONFIG = Config(recipient_forwarders={"here.example": Forwarders(networks=(FORWARDER,))})

    def test_it_holds_for_that_recipient_alone(self) -> None:
        assert outcome(failed(), self.CONFIG) == ("accept", "trusted_forwarder")
        assert outcome(failed(rcpts=("u@there.example",)), self.CONFIG) == ("reject", "")

    @pytest.mark.parametrize("preset", ["balanced", "strict"])
    async def test_what_one_recipient_knows_excuses_nothing_for_another(self, preset: str) -> None:
        config = Config(
            policy=PolicyOptions(preset=preset),  # type: ignore[arg-type]
            scores={"spf_fail": Action.REJECT},
            recipient_forwarders={"other.example": Forwarders(networks=(ip_network("203.0.113.0/24"),))},
        )
        rig = Rig(config=config)
        verdict = await rig.play(BAD)
        assert verdict.action is Action.REJECT
        if preset == "strict":  # there RCPT is answered, and each recipient judged alone
            assert rig.observer.seen == ["rcpt 550"]
        else:
            assert "policy.override" not in rig.outcomes[0].authentication_results

    def test_every_recipient_must_know_the_forwarder(self) -> None:
        assert outcome(failed(rcpts=("u@here.example", "u@there.example")), self.CONFIG) == ("reject", "")


def test_strict_excuses_an_spf_fail_at_mail() -> None:
    config = replace(BY_NETWORK, policy=PolicyOptions(preset="strict"))
    policy = Policy(config, ())
    tx = failed(rcpts=())._replace(results=(AuthResult("spf", F, "author.example"),))
    assert policy.judge(tx, Stage.MAIL, "am-1").verdict.action.value == "reject"
    assert policy.judge(with_override(tx, config), Stage.MAIL, "am-1").verdict.action.value == "continue"


def test_an_spf_fail_without_dmarc_is_excused_too() -> None:
    tx = failed()
    tx = tx._replace(results=(*tx.results[:-1], AuthResult("dmarc", N, "author.example")))
    annotated = with_override(tx, BY_NETWORK)
    assert annotated.results[1].properties["policy.override"] == "trusted_forwarder"
    assert Policy(BY_NETWORK, ()).judge(annotated, Stage.EOM, "am-1").verdict.action.value == "accept"


class TestDmarcOverride:
    @pytest.mark.parametrize(
        ("section", "policy", "expected"),
        [
            ("author.example", "none", ("reject", "local_policy")),  # SPF fail stands on its own
            ("example", "quarantine", ("reject", "local_policy")),
            ("author.example", "reject", ("reject", "")),
            ("other.example", "none", ("reject", "")),
        ],
    )
    def test_with_spf_fail(self, section: str, policy: str, expected: tuple[str, str]) -> None:
        config = Config(dmarc_overrides={section: DmarcOverride(policy=policy)})  # type: ignore[arg-type]
        assert outcome(failed(ip="203.0.113.1"), config) == expected

    def test_milder(self) -> None:
        config = Config(dmarc_overrides={"author.example": DmarcOverride(policy="none")})
        assert outcome(failed(spf=N), config) == ("accept", "local_policy")

    def test_stricter(self) -> None:
        tx = failed(spf=N)
        tx = tx._replace(results=(*tx.results[:-1], tx.results[-1]._replace(properties={"policy.dmarc": "none"})))
        config = Config(dmarc_overrides={"author.example": DmarcOverride(policy="reject")})
        assert outcome(tx, config) == ("reject", "local_policy")
        assert outcome(tx, Config()) == ("accept", "")

    def test_the_most_specific_section_wins(self) -> None:
        config = Config(
            dmarc_overrides={"example": DmarcOverride(policy="reject"), "author.example": DmarcOverride(policy="none")}
        )
        assert outcome(failed(spf=N), config) == ("accept", "local_policy")


class TestTrustedSealer:
    SEEN = (AuthResult("dmarc", P, "", {"header.from": "author.example"}),)

    def test_what_it_saw_excuses(self) -> None:
        tx = with_override(failed(ip="203.0.113.1"), Config(), self.SEEN)
        assert tx.results[-1].properties["policy.override"] == "trusted_forwarder"

    @pytest.mark.parametrize(
        "seen",
        [
            AuthResult("dmarc", F, "", {"header.from": "author.example"}),
            AuthResult("dmarc", P, "", {"header.from": "other.example"}),
            AuthResult("spf", P, "", {"smtp.mailfrom": "author.example"}),
        ],
    )
    @pytest.mark.parametrize("beside", [False, True])
    def test_anything_else_does_not(self, seen: AuthResult, beside: bool) -> None:
        if beside and seen.method != "dmarc":
            return  # nothing speaks against the pass then
        tx = with_override(failed(ip="203.0.113.1"), Config(), (*self.SEEN, seen) if beside else (seen,))
        assert "policy.override" not in tx.results[-1].properties


class TestAllow:
    @pytest.mark.parametrize(
        ("entry", "ip", "accepted"),
        [
            (Allow(requires="dmarc"), "192.0.2.7", True),
            (Allow(requires="dmarc"), BAD, False),
            (Allow(requires="spf"), "192.0.2.7", True),
            (Allow(requires="dkim"), "192.0.2.7", False),
            (Allow(requires="", networks=(ip_network("203.0.113.0/24"),)), BAD, True),
            (Allow(requires="", networks=(ip_network("198.51.100.0/24"),)), BAD, False),
            (Allow(requires="dmarc", networks=(ip_network("192.0.2.0/24"),)), "192.0.2.7", True),
            (Allow(requires="dmarc", networks=(ip_network("203.0.113.0/24"),)), BAD, False),
            (Allow(requires="", insecure=True), BAD, True),
            (Allow(requires=""), BAD, False),
        ],
    )
    @pytest.mark.parametrize("name", ["example.org", "alice@example.org"])
    async def test_only_what_is_proven(self, name: str, entry: Allow, ip: str, accepted: bool) -> None:
        rig = Rig(config=Config(allow={name: entry}, scores={"iprev_pass": 50.0, "iprev_permerror": 50.0}))
        verdict = await rig.play(ip, helo="[192.0.2.7]")
        assert (verdict.action.value == "accept") is accepted
        assert ("allowed" in [f.symbol for _, f in rig.outcomes[0].tx.findings]) is accepted

    def test_a_bare_from_is_refused_at_load(self) -> None:
        with pytest.raises(ConfigError, match="says nothing that authenticates the sender"):
            ini.load("am.ini", "[allow example.org]\nrequires =\n")
        ini.load("am.ini", "[allow example.org]\nrequires =\ninsecure = yes\n")


async def test_the_override_stands_in_authentication_results() -> None:
    rig = Rig(config=Config(forwarders=Forwarders(networks=(ip_network("203.0.113.0/24"),))))
    verdict = await rig.play(BAD)
    assert verdict.action.value == "accept"
    assert "policy.override=trusted_forwarder" in rig.outcomes[0].authentication_results.replace("\n\t", " ")


async def test_psl_differences_are_found_and_change_nothing() -> None:
    zone = {**ZONE, "_dmarc.org TXT": ["v=DMARC1; p=none; psd=n"]}
    del zone["_dmarc.example.org TXT"]
    for discovery, symbols in (("treewalk", []), ("psl", ["psl_differs"])):
        config = ini.load("am.ini", f"[dmarc]\ndiscovery = {discovery}\n")
        rig = Rig(config=config, dns=FakeDNS(zone))
        await rig.play(header=HEADER)
        assert [f.symbol for _, f in rig.outcomes[0].tx.findings] == symbols
