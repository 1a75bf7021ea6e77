"""Composition kills and weak links: mail that one program takes for the attacker's, and another for the victim's."""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.auth.canonical import relaxed_field
from authmilter.config.option import FilePath
from authmilter.config.schema import Config, Policy, Sign, Submission
from authmilter.model import HeaderField
from authmilter.verdict import Action
from tests.attacks.catalogue import answers, attack
from tests.attacks.site import (
    ATTACKER,
    NAMELESS_IP,
    VICTIM,
    VICTIM_IP,
    Case,
    Mail,
    assert_clean,
    from_victim,
    key_of,
    mail,
    play,
    withstand,
    zone,
)

STRICT = Config(policy=Policy(preset="strict"))
AMBIGUOUS = {"action": Action.REJECT, "because": "ambiguous_from", "reply": "550 5.7.1 From header field can't be used"}
FAILS = {"action": Action.TAG, "because": "dmarc_fail_reject", "policy": "reject", "identifier": VICTIM}


def author(value: str | bytes) -> Mail:
    return mail(value).signed()


def named(name: bytes, *, alone: bool = False) -> Mail:
    """A From of the attacker under an odd name, above one of the victim."""
    rest = mail().without(b"From") if alone else from_victim()
    return replace(rest, fields=((name, f" first@{ATTACKER}".encode()), *rest.fields))


def encoded(text: str) -> str:
    return f"=?utf-8?B?{b64encode(text.encode()).decode()}?="


ATTACKS = [
    attack(
        "A1 non-existent subdomain in MAIL FROM",
        mail=from_victim,
        sender=f"<any@mailfrom.notexist.{VICTIM}>",
        results={"spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A1 non-existent subdomain in MAIL FROM",
        "from a client without a name",
        mail=from_victim,
        ip=NAMELESS_IP,
        sender=f"<any@mailfrom.notexist.{VICTIM}>",
        results={"iprev": "permerror", "spf": "none", "dmarc": "fail"},
        action=Action.REJECT,
        because="dmarc_fail_reject_corroborated",
        reply="550 5.7.1 Email rejected per DMARC policy for legit.example",
    ),
    attack(
        "A1 non-existent subdomain in MAIL FROM",
        "strict",
        mail=from_victim,
        config=STRICT,
        sender=f"<any@mailfrom.notexist.{VICTIM}>",
        results={"spf": "none"},
        action=Action.REJECT,
        because="sender_domain_nonexistent",
        reply="550 5.1.8 Sender domain mailfrom.notexist.legit.example does not exist",
    ),
    attack(
        "A2 empty or odd MAIL FROM",
        "bracket",
        mail=from_victim,
        helo=ATTACKER,
        sender=f"<(any@{VICTIM}>",
        results={"spf_helo": "pass", "spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A2 empty or odd MAIL FROM",
        "empty",
        mail=from_victim,
        helo=ATTACKER,
        sender="<>",
        results={"spf": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A3 NUL in the DKIM selector",
        mail=lambda: from_victim().signed(VICTIM, ATTACKER, s=f"sel._domainkey.{ATTACKER}.\0.any"),
        results={"dkim": "neutral", "dmarc": "fail"},
        not_asked=(f"sel._domainkey.{ATTACKER} TXT",),
        **FAILS,
    ),
    attack(
        "A3 NUL in the DKIM selector",
        "a selector that ends in the attacker's key name",
        mail=lambda: from_victim().signed(VICTIM, ATTACKER, s=f"sel._domainkey.{ATTACKER}."),
        results={"dkim": "neutral", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A4 quote in d=",
        mail=lambda: from_victim().signed(f"{VICTIM}'a.{ATTACKER}", ATTACKER),
        results={"dkim": "neutral", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A5 parenthesis in the MAIL FROM domain",
        mail=from_victim,
        sender=f"<any@{VICTIM}(a.{ATTACKER}>",
        results={"spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A5 parenthesis in the MAIL FROM domain",
        "in d=",
        mail=lambda: from_victim().signed(f"{VICTIM}(.{ATTACKER}", ATTACKER),
        results={"dkim": "neutral", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A6 quote and at sign in MAIL FROM",
        mail=from_victim,
        sender=f"<any@{VICTIM}'@any.{ATTACKER}>",
        results={"spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A7 source route in MAIL FROM",
        mail=from_victim,
        sender=f"<@{VICTIM},@any.example:'any@{ATTACKER}>",
        results={"spf": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "A8 two From fields",
        "victim below",
        mail=lambda: mail().signed().below(("From", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack(
        "A8 two From fields",
        "victim on top",
        mail=lambda: mail().signed().on_top(("From", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack("A9 space before From", "two", mail=lambda: named(b" From"), **AMBIGUOUS),
    attack("A9 space before From", "alone", mail=lambda: named(b" From", alone=True), **AMBIGUOUS),
    attack("A10 space between From and colon", "two", mail=lambda: named(b"From "), **AMBIGUOUS),
    attack("A10 space between From and colon", "alone", mail=lambda: named(b"From\t", alone=True), **AMBIGUOUS),
    attack("A11 folded name of From", "two", mail=lambda: named(b"From\r\n "), **AMBIGUOUS),
    attack("A11 folded name of From", "alone", mail=lambda: named(b"From\r\n ", alone=True), **AMBIGUOUS),
    attack(
        "A12 From missing or odd, and Sender",
        "missing",
        mail=lambda: mail().without(b"From").on_top(("Sender", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack(
        "A12 From missing or odd, and Sender",
        "odd",
        mail=lambda: named(b"From\r\n ", alone=True).on_top(("Sender", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack(
        "A12 From missing or odd, and Sender",
        "a good From is all that counts",
        mail=lambda: mail().on_top(("Sender", f"admin@{VICTIM}")).signed(),
        action=Action.ACCEPT,
        results={"dmarc": "pass"},
        identifier=ATTACKER,
    ),
    attack(
        "A13 From missing or odd, and Resent-From",
        "missing",
        mail=lambda: mail().without(b"From").on_top(("Resent-From", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack(
        "A13 From missing or odd, and Resent-From",
        "odd",
        mail=lambda: named(b"From\r\n ", alone=True).on_top(("Resent-From", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    attack(
        "A14 two addresses in From",
        "victim second",
        mail=lambda: author(f"<first@{ATTACKER}>, <admin@{VICTIM}>"),
        **AMBIGUOUS,
    ),
    attack(
        "A14 two addresses in From",
        "victim first, with Sender",
        mail=lambda: author(f"<admin@{VICTIM}>, <first@{ATTACKER}>").on_top(("Sender", f"s@{ATTACKER}")),
        **AMBIGUOUS,
    ),
    attack(
        "A15 address in an encoded word",
        mail=lambda: author(f"{encoded(f'<admin@{VICTIM}>')},<second@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "A15 address in an encoded word",
        "as the display name",
        mail=lambda: author(f"{encoded(f'<admin@{VICTIM}>')} <second@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack("A16 route in From", mail=lambda: author(f"<@{ATTACKER},@any.example:admin@{VICTIM}>"), **AMBIGUOUS),
    attack("A16 route in From", "of the victim", mail=lambda: author(f"<@{VICTIM}:any@{ATTACKER}>"), **AMBIGUOUS),
    attack(
        "A17 quoted pair between addresses", mail=lambda: author(rf"<admin@{VICTIM}>\,<second@{ATTACKER}>"), **AMBIGUOUS
    ),
    attack("A18 precedence of special characters", mail=lambda: author(f"admin@{VICTIM},<b@{ATTACKER}>"), **AMBIGUOUS),
    attack(
        "A18 precedence of special characters",
        "semicolon",
        mail=lambda: author(f"admin@{VICTIM};<b@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack("A19 text behind the address", mail=lambda: author(f"<any@{ATTACKER}>admin@{VICTIM}"), **AMBIGUOUS),
    attack(
        "A19 text behind the address", "in front", mail=lambda: author(f"admin@{VICTIM}<a@{ATTACKER}>"), **AMBIGUOUS
    ),
    attack(
        "MAIL FROM is not From",
        mail=lambda: from_victim().signed(),
        results={"spf": "pass", "dkim": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "empty MAIL FROM",
        mail=from_victim,
        sender="<>",
        helo=f"mail.{VICTIM}",
        results={"spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "empty MAIL FROM",
        "HELO as the victim",
        mail=from_victim,
        sender="<>",
        helo=VICTIM,
        results={"spf": "fail", "dmarc": "fail"},
        action=Action.REJECT,
        because="dmarc_fail_reject_corroborated",
        reply="550 5.7.26 Email rejected per DMARC policy for legit.example",
    ),
    attack(
        "multiple From",
        "three, in several cases",
        mail=lambda: mail().below(("FROM", f"admin@{VICTIM}"), ("fRoM", f"c@{ATTACKER}")),
        **AMBIGUOUS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "NUL in From",
        mail=lambda: author(f"admin@{VICTIM}\0@{ATTACKER}"),
        **AMBIGUOUS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "NUL in the domain of From",
        mail=lambda: author(f"<admin@{VICTIM}\0.{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "invalid UTF-8 in the domain of From",
        mail=lambda: author(b"<admin@legit.example\x80.attack.example>"),
        **AMBIGUOUS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "zero-width space in the domain of From",
        mail=lambda: author(f"<admin@{VICTIM}\u200b@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "NUL in MAIL FROM",
        mail=from_victim,
        sender=f"<any@{VICTIM}\0.{ATTACKER}>",
        results={"spf": "none", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "truncation at NUL or an invalid character",
        "full-width stop: the domain is the attacker's own",
        mail=lambda: author(f"<admin@{VICTIM}\u3002{ATTACKER}>"),
        action=Action.ACCEPT,
        results={"dmarc": "pass"},
        identifier=f"{VICTIM}.{ATTACKER}",
    ),
    attack(
        "quoted or escaped local-part",
        "an address in quotes",
        mail=lambda: author(f'"admin@{VICTIM}"@{ATTACKER}'),
        **AMBIGUOUS,
    ),
    attack(
        "quoted or escaped local-part",
        "escaped at sign",
        mail=lambda: author(rf"admin@{VICTIM}\@{ATTACKER}"),
        **AMBIGUOUS,
    ),
    attack(
        "quoted or escaped local-part",
        "in MAIL FROM",
        mail=from_victim,
        sender=f'<"admin@{VICTIM}"@{ATTACKER}>',
        results={"spf": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "comment and direction override",
        "comment behind",
        mail=lambda: author(f"mallory@{ATTACKER} (admin@{VICTIM})"),
        **AMBIGUOUS,
    ),
    attack(
        "comment and direction override",
        "comment in the domain",
        mail=lambda: author(f"<admin@{VICTIM}(@{ATTACKER})>"),
        **AMBIGUOUS,
    ),
    attack(
        "comment and direction override",
        "U+202E in the domain",
        mail=lambda: author(f"<admin@\u202e{VICTIM[::-1]}.{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "comment and direction override",
        "U+202E in the display name reaches no log and no field raw",
        mail=lambda: author(f"\u202e{VICTIM[::-1]}@nimda <mallory@{ATTACKER}>"),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
    attack(
        "encoded word in the address part",
        mail=lambda: author(f"<=?utf-8?q?admin=40{VICTIM}?=@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "encoded word in the address part",
        "as all of it",
        mail=lambda: author(f"<{encoded(f'admin@{VICTIM}')}>"),
        **AMBIGUOUS,
    ),
    attack(
        "subdomain spoof",
        mail=lambda: mail(f"admin@news.{VICTIM}"),
        results={"dmarc": "fail"},
        action=Action.TAG,
        because="dmarc_fail_reject",
        policy="reject",
    ),
    attack(
        "subdomain spoof",
        "np counts for a name that does not exist",
        mail=lambda: mail(f"admin@nothere.{VICTIM}"),
        dns=lambda: zone({f"_dmarc.{VICTIM} TXT": ["v=DMARC1; p=reject; sp=none; np=reject"]}),
        ip=NAMELESS_IP,
        results={"dmarc": "fail"},
        action=Action.REJECT,
        because="dmarc_fail_reject_corroborated",
        reply="550 5.7.1 Email rejected per DMARC policy",
        policy="reject",
    ),
    attack(
        "auto-forward that gains an SPF pass",
        mail=from_victim,
        sender=f"<SRS0=x=y={VICTIM}=admin@{ATTACKER}>",
        results={"spf": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "forwarder that signs foreign mail",
        mail=lambda: from_victim().signed(i=f"admin@{ATTACKER}"),
        results={"dkim": "pass", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "forwarder that signs foreign mail",
        "i= of the victim",
        mail=lambda: from_victim().signed(i=f"admin@{VICTIM}"),
        results={"dkim": "neutral", "dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "IDN homograph",
        "Cyrillic e: another domain, shown as A-label",
        mail=lambda: author("admin@l\u0435git.example"),
        action=Action.ACCEPT,
        results={"dmarc": "none"},
        identifier="xn--lgit-v4d.example",
    ),
    attack(
        "IDN homograph",
        "full-width letters are the victim himself",
        mail=lambda: author("admin@ｌｅｇｉｔ.example"),
        results={"dmarc": "fail"},
        **FAILS,
    ),
    attack(
        "display name with a foreign address",
        "in brackets, which some readers take for the address",
        mail=lambda: author(f'"<admin@{VICTIM}>" <mallory@{ATTACKER}>'),
        **AMBIGUOUS,
    ),
    attack(
        "display name with a foreign address",
        "not quoted",
        mail=lambda: author(f"admin@{VICTIM} <mallory@{ATTACKER}>"),
        **AMBIGUOUS,
    ),
    attack(
        "display name with a foreign address",
        "quoted: legal, as mailing lists write it, and no author",
        mail=lambda: author(f'"admin@{VICTIM}" <mallory@{ATTACKER}>'),
        action=Action.ACCEPT,
        results={"dmarc": "pass"},
        identifier=ATTACKER,
    ),
    attack(
        "comment with an address",
        mail=lambda: author(f"(admin@{VICTIM}) mallory@{ATTACKER}"),
        **AMBIGUOUS,
    ),
]


@pytest.mark.parametrize("case", ATTACKS)
async def test_no_victim_is_impersonated(case: Case) -> None:
    await withstand(case)


@answers("A3 NUL in the DKIM selector")
@answers("MAIL FROM is not From")
async def test_the_victims_own_mail_passes() -> None:
    """That the table's failures are not failures of everything."""
    message = from_victim().signed(VICTIM)
    played = await play(
        message,
        title="(a plain message, signed and accepted)",
        ip=VICTIM_IP,
        helo=f"mail.{VICTIM}",
        sender=f"<admin@{VICTIM}>",
    )
    assert played.verdict.action is Action.ACCEPT
    assert [played.words(method) for method in ("iprev", "spf", "dkim", "dmarc")] == ["pass"] * 4
    assert_clean(played, (VICTIM,))


# -- ARC -----------------------------------------------------------------------------------------------------------------


def sealed(message: Mail, domain: str, claim: str, *, instance: int = 1, cv: str = "none") -> Mail:
    """With an ARC Set (RFC 8617) that `domain` really signs, and in which it claims what it likes."""
    signer = key_of(domain)
    signature = message.signed(domain).fields[0][1].decode()
    bh = signature.partition("bh=")[2].partition(";")[0]
    results = HeaderField(b"ARC-Authentication-Results", f" i={instance}; {claim}".encode())
    tags = f" i={instance}; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=sel; h=from:to:subject:date; bh={bh}; b="
    by_name = {name.lower(): HeaderField(name, value) for name, value in message.fields}
    signed = b"".join(relaxed_field(by_name[name]) for name in (b"from", b"to", b"subject", b"date"))
    fields = [results]
    for name in (b"ARC-Message-Signature", b"ARC-Seal"):
        if name == b"ARC-Seal":
            tags = f" i={instance}; a=rsa-sha256; cv={cv}; d={domain}; s=sel; b="
            signed = b"".join(map(relaxed_field, fields))
        data = signed + relaxed_field(HeaderField(name, tags.encode())).removesuffix(b"\r\n")
        made = signer.sign(data, PKCS1v15(), SHA256())
        fields.append(HeaderField(name, (tags + b64encode(made).decode()).encode()))
    return replace(message, fields=(*((f.name, f.value) for f in reversed(fields)), *message.fields))


CLAIM = f"mx.{ATTACKER}; spf=pass smtp.mailfrom={VICTIM}; dkim=pass header.d={VICTIM}; dmarc=pass header.from={VICTIM}"


@answers("ARC result laundering")
@answers("forged ARC sets")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: sealed(from_victim(), ATTACKER, CLAIM), id="a valid set of an untrusted sealer"),
        pytest.param(
            lambda: sealed(from_victim(), ATTACKER, CLAIM, instance=2, cv="pass"), id="instance 2 without instance 1"
        ),
        pytest.param(lambda: sealed(from_victim(), ATTACKER, CLAIM, instance=51, cv="pass"), id="instance 51"),
        pytest.param(lambda: sealed(from_victim(), ATTACKER, CLAIM, cv="pass"), id="cv=pass at instance 1"),
        pytest.param(
            lambda: from_victim().on_top(("ARC-Authentication-Results", f"i=1; {CLAIM}")), id="results without a seal"
        ),
        pytest.param(
            lambda: sealed(sealed(from_victim(), ATTACKER, CLAIM), ATTACKER, CLAIM), id="two sets of one instance"
        ),
        pytest.param(
            lambda: from_victim().on_top(
                *((name, f"i={i}; {CLAIM}; b={'A' * 200}")
                  for i in range(1, 200)
                  for name in ("ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results"))
            ),
            id="two hundred sets",
        ),
    ],
)  # fmt: skip
async def test_what_an_untrusted_chain_claims_is_not_believed(make: Callable[[], Mail]) -> None:
    played = await play(make(), title="ARC result laundering", ip=NAMELESS_IP)
    assert played.words("dmarc") == "fail"
    assert played.verdict.action is Action.REJECT
    assert_clean(played, (ATTACKER,))


# -- users of ours -------------------------------------------------------------------------------------------------------


@pytest.fixture
def submission(tmp_path: Path) -> Config:
    """Users of ours.example may write their own address alone; what they send is signed."""
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(key_of("ours.example").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Config(
        submission=Submission(from_must_match="login"),
        sign={"ours.example": Sign(selector="sel", key_file=FilePath(str(path)))},
    )


USERS = [
    attack(
        "client A1 two From fields",
        mail=lambda: mail("alice@ours.example").below(("From", "ceo@ours.example")),
        action=Action.REJECT,
    ),
    attack(
        "client A2 two addresses",
        mail=lambda: mail("alice@ours.example, ceo@ours.example"),
        action=Action.REJECT,
    ),
    attack("client A3 From of another user", mail=lambda: mail("ceo@ours.example"), action=Action.REJECT),
    attack("client A3 From of another user", "of another site", mail=from_victim, action=Action.REJECT),
    attack(
        "login is not MAIL FROM",
        "MAIL FROM and From of another",
        mail=lambda: mail("ceo@ours.example"),
        sender="<ceo@ours.example>",
        action=Action.REJECT,
    ),
    attack(
        "login is not MAIL FROM",
        "an own From, signed; the reverse-path is the MTA's to match",
        mail=lambda: mail("alice@ours.example"),
        sender="<ceo@ours.example>",
        action=Action.ACCEPT,
    ),
]


@pytest.mark.parametrize("case", USERS)
async def test_a_user_is_nobody_else(case: Case, submission: Config) -> None:
    played = await play(case.mail(), config=submission, sender=case.sender, macros={b"{auth_authen}": b"alice"})
    assert played.verdict.action is case.action
    if case.action is Action.REJECT:
        assert played.verdict.because == ("from_mismatch",)
        assert played.verdict.reply
        assert (played.verdict.reply.code, played.verdict.reply.enhanced) == (550, "5.7.1")
    else:
        assert len(played.edits("insert", "DKIM-Signature")) == 1
    assert_clean(played, ())


@answers("client A1 two From fields")
async def test_two_from_fields_are_never_signed(submission: Config) -> None:
    message = mail("alice@ours.example").below(("From", "ceo@ours.example"))
    config = replace(submission, submission=Submission(from_must_match="off"))
    played = await play(message, config=config, macros={b"{auth_authen}": b"alice"})
    assert not played.edits("insert", "DKIM-Signature")
