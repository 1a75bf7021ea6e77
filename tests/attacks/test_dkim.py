"""Attacks on DKIM: replay of what the victim signed, with changes; keys and signatures that ought not to count."""

from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from authmilter.config.option import FilePath
from authmilter.config.schema import Config, Dkim, Sign
from authmilter.verdict import Action
from tests.attacks.catalogue import answers, attack
from tests.attacks.site import (
    ATTACKER,
    VICTIM,
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
from tests.auth.mail import NOW, record
from tests.fakes import FakeDNS

KEY = f"sel._domainkey.{VICTIM} TXT"
SPOOF = {"action": Action.TAG, "because": "dmarc_fail_reject", "identifier": VICTIM}
AUTHENTIC = {"action": Action.ACCEPT, "identifier": VICTIM, "controls": (VICTIM, ATTACKER)}


def victims(**tags: str) -> Mail:
    """A message that the victim signed, and the attacker got hold of."""
    return from_victim().signed(VICTIM, **tags)


def cut(length: str) -> Mail:
    return victims(l=length)


def changed(message: Mail, name: bytes, value: bytes) -> Mail:
    return replace(message, fields=tuple((n, value if n == name else v) for n, v in message.fields))


def with_key(*tags: str, text: str | bytes = "") -> FakeDNS:
    """The DNS with another key record of the victim."""
    return zone({KEY: [text or record(key_of(VICTIM), *tags)]})


def typed(content_type: str) -> Mail:
    return from_victim().below(("Content-Type", content_type))


def many(count: int) -> Mail:
    """Signatures that all want another hash of a large body."""
    message = mail(f"admin@{VICTIM}", body=b"spam \r\n" * 150_000)
    top = message.signed(VICTIM).fields[0][1]
    forms = [
        (b"DKIM-Signature", top.replace(b"relaxed/relaxed", form).replace(b"; h=", b"; l=%d; h=" % (i * 9000)))
        for i in range(count // 2)
        for form in (b"relaxed/relaxed", b"simple/simple")
    ]
    return replace(message, fields=(*forms, *message.fields))


def huge_keys(count: int, exponent: int) -> FakeDNS:
    """Keys of 8192 bits at one name: what it costs to verify is the attacker's choice."""
    texts = []
    for n in range(count):
        public = rsa.RSAPublicNumbers(exponent, (1 << 8192) - 2 * n - 1).public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        texts.append(f"v=DKIM1; p={b64encode(der).decode()}")
    return zone({KEY: texts})


def hundred() -> Mail:
    """A hundred signatures as long as such a key."""
    tops = [victims(b=b64encode(b"\1" * 1020 + n.to_bytes(4, "big")).decode()).fields[0] for n in range(100)]
    return replace(from_victim(), fields=(*tops, *from_victim().fields))


def u_labels() -> Mail:
    """Signatures and ARC fields of domains that take long to convert."""
    fields = []
    for n in range(50):
        domain = ".".join(chr(0x4E00 + 40 * n + k) * (k + 3) for k in range(9)) + ".example"
        tags = f"a=rsa-sha256; d={domain}; s=\u00fc{n}.{domain}; bh=QUJD; h=from; b=QUJD"
        fields += [
            ("DKIM-Signature", f"v=1; i=@{domain}; {tags}"),
            ("ARC-Message-Signature", f"i={n + 1}; {tags}"),
            ("ARC-Seal", f"i={n + 1}; cv=pass; {tags.replace('h=from;', '')}"),
            ("ARC-Authentication-Results", f"i={n + 1}; {domain}; dmarc=pass header.from={VICTIM}"),
        ]
    return from_victim().on_top(*fields)


ATTACKS = [
    attack(
        "l= append",
        mail=lambda: replace(cut(str(len(Mail.body))), body=Mail.body + b"Send it here instead.\r\n"),
        results={"dkim": "policy", "dmarc": "fail"},
        reason="octets of the body are not signed",
        **SPOOF,
    ),
    attack(
        "l= append",
        "l=0",
        mail=lambda: cut("0"),
        results={"dkim": "policy", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "l= append",
        "l= beyond the end",
        mail=lambda: cut("9999"),
        results={"dkim": "fail", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "unsigned Content-Type replaced",
        "with l=, and parts appended",
        mail=lambda: replace(
            changed(typed("text/plain").signed(VICTIM, l="0"), b"Content-Type", b" multipart/mixed; boundary=x"),
            body=b"--x\r\n\r\nSend it here instead.\r\n--x--\r\n",
        ),
        results={"dkim": "policy", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "unsigned Content-Type replaced",
        "it was signed",
        mail=lambda: changed(
            typed("text/plain").signed(VICTIM, h="from:content-type"), b"Content-Type", b" multipart/mixed; boundary=x"
        ),
        results={"dkim": "fail", "dmarc": "fail"},
        reason="header has changed",
        **SPOOF,
    ),
    *(
        attack(
            "duplicate field added above the signed one",
            name,
            mail=lambda name=name: (
                from_victim().below(("Reply-To", f"a@{VICTIM}"), ("Content-Type", "text/plain"))
                .signed(VICTIM, h="from:to:subject:reply-to:content-type").on_top((name, f"x@{ATTACKER}"))
            ),
            results={"dkim": "policy", "dmarc": "fail"},
            reason="not all of them signed",
            **SPOOF,
        )
        for name in ("Subject", "To", "Reply-To", "Content-Type", "SUBJECT", "Subject ")
    ),
    attack(
        "duplicate field added above the signed one",
        "below it",
        mail=lambda: victims().below(("Subject", "Urgent")),
        results={"dkim": "policy", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "duplicate field added above the signed one",
        "oversigned",
        mail=lambda: victims(h="from:from:subject:subject").on_top(("Subject", "Urgent")),
        results={"dkim": "fail", "dmarc": "fail"},
        reason="header has changed",
        **SPOOF,
    ),
    attack(
        "duplicate field added above the signed one",
        "both signed by the victim's own will",
        mail=lambda: from_victim().on_top(("Subject", "Twice")).signed(VICTIM, h="from:subject:subject"),
        results={"dkim": "pass", "dmarc": "pass"},
        **AUTHENTIC,
    ),
    attack(
        "expired x=",
        mail=lambda: victims(t=str(NOW - 9000), x=str(NOW - 600)),
        results={"dkim": "policy", "dmarc": "fail"},
        reason="expired",
        not_asked=(KEY,),
        **SPOOF,
    ),
    attack(
        "future t=",
        mail=lambda: victims(t=str(NOW + 600)),
        results={"dkim": "policy", "dmarc": "fail"},
        reason="future",
        **SPOOF,
    ),
    attack(
        "512-bit key",
        mail=victims,
        dns=lambda: with_key(
            text="v=DKIM1; p=" + b64encode(
                rsa.RSAPublicNumbers(65537, (1 << 511) + 111).public_key().public_bytes(
                    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
                )
            ).decode()
        ),
        results={"dkim": "policy", "dmarc": "fail"},
        reason="key of 512 bits is too small",
        **SPOOF,
    ),
    attack(
        "rsa-sha1", mail=lambda: victims(a="rsa-sha1"), results={"dkim": "policy", "dmarc": "fail"},
        reason="rsa-sha1 is not accepted", **SPOOF,
    ),
    attack(
        "rsa-sha1",
        "a key for sha1 alone",
        mail=victims,
        dns=lambda: with_key("h=sha1"),
        results={"dkim": "permerror", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "key for another service",
        mail=victims,
        dns=lambda: with_key("s=tlsrpt"),
        results={"dkim": "permerror", "dmarc": "fail"},
        reason="key is not for email",
        **SPOOF,
    ),
    attack(
        "t=s with a subdomain in i=",
        mail=lambda: victims(i=f"admin@sub.{VICTIM}"),
        dns=lambda: with_key("t=s"),
        results={"dkim": "permerror", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "h= without From",
        mail=lambda: changed(mail().signed(VICTIM, h="to:subject"), b"From", f" admin@{VICTIM}".encode()),
        results={"dkim": "policy", "dmarc": "fail"},
        reason="From is not signed",
        **SPOOF,
    ),
    attack(
        "100 signatures",
        "1 MB of body",
        mail=lambda: many(100),
        results={"dkim": ",".join(["fail"] * 10 + ["policy"]), "dmarc": "fail"},
        reason="90 more signatures were not checked",
        **SPOOF,
    ),
    attack(
        "100 signatures",
        "all of them checked, each another l= of 1 MB",
        mail=lambda: many(100),
        config=Config(dkim=Dkim(max_signatures=100)),
        results={"dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "100 signatures",
        "ten of them checked, five keys of 8192 bits with long exponents",
        mail=hundred,
        dns=lambda: huge_keys(5, (1 << 64) - 1),
        results={"dkim": ",".join(["fail"] * 10 + ["policy"]), "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "100 signatures",
        "all of them checked, key of 8192 bits",
        mail=hundred,
        dns=lambda: huge_keys(1, 65537),
        config=Config(dkim=Dkim(max_signatures=100)),
        results={"dkim": ",".join(["fail"] * 100), "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "100 signatures",
        "and ARC sets, each of a U-label domain",
        mail=u_labels,
        config=Config(dkim=Dkim(max_signatures=100)),
        results={"dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "100 KB key record",
        mail=victims,
        dns=lambda: with_key(text=record(key_of(VICTIM)) + ";" + " " * 100_000),
        results={"dkim": "permerror", "dmarc": "fail"},
        reason="key record is too long",
        **SPOOF,
    ),
    attack(
        "100 KB key record",
        "2,000 records of 8 KB",
        mail=victims,
        dns=lambda: zone({KEY: [f"v=DKIM1; n={i}{'x' * 8000}; p=" for i in range(2000)]}),
        results={"dkim": "permerror", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "key CNAME loop",
        "as a resolver answers it",
        mail=victims,
        dns=lambda: zone(fail=[KEY]),
        results={"dkim": "temperror", "dmarc": "temperror"},
        action=Action.ACCEPT,
    ),
    attack(
        "key CNAME loop",
        "that ends in nothing",
        mail=victims,
        dns=lambda: zone({
            KEY: [],
            f"sel._domainkey.{VICTIM} CNAME": [f"a.{VICTIM}"],
            f"a.{VICTIM} CNAME": [f"sel._domainkey.{VICTIM}"],
        }),
        results={"dkim": "permerror", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "g= in the key",
        "historic, without effect (RFC 6376 section 3.6.1)",
        mail=victims,
        dns=lambda: with_key("g=somebody.else"),
        results={"dkim": "pass", "dmarc": "pass"},
        **AUTHENTIC,
    ),
    attack(
        "g= in the key",
        "empty",
        mail=victims,
        dns=lambda: with_key("g="),
        results={"dkim": "pass", "dmarc": "pass"},
        **AUTHENTIC,
    ),
    attack(
        "U-label d=",
        mail=lambda: mail("u@b\u00fccher.example").signed("b\u00fccher.example", ATTACKER),
        dns=lambda: zone({"sel._domainkey.xn--bcher-kva.example TXT": [record(key_of(ATTACKER))]}),
        results={"dkim": "pass", "dmarc": "none"},
        action=Action.ACCEPT,
        identifier="xn--bcher-kva.example",
        controls=(ATTACKER, "xn--bcher-kva.example"),
    ),
    attack(
        "U-label d=",
        "a homograph signs for itself alone",
        mail=lambda: from_victim().signed("l\u0435git.example", ATTACKER),
        dns=lambda: zone({"sel._domainkey.xn--lgit-v4d.example TXT": [record(key_of(ATTACKER))]}),
        results={"dkim": "pass", "dmarc": "fail"},
        controls=(ATTACKER, "xn--lgit-v4d.example"),
        **SPOOF,
    ),
    attack(
        "b= with garbage",
        "not base64",
        mail=lambda: victims(b="!!garbage!!"),
        results={"dkim": "neutral", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "b= with garbage",
        "another length",
        mail=lambda: victims(b="QUJD"),
        results={"dkim": "fail", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "b= with garbage",
        "30 KB of folds",
        mail=lambda: victims(b="\r\n\t".join(["QUJD"] * 4000)),
        results={"dkim": "fail", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "several signatures of one selector, one good",
        "the bad one on top",
        mail=lambda: replace(victims(), fields=(victims(b="QUJD").fields[0], *victims().fields)),
        results={"dkim": "fail,pass", "dmarc": "pass"},
        **AUTHENTIC,
    ),
    attack(
        "several signatures of one selector, one good",
        "the good one on top",
        mail=lambda: replace(victims(), fields=(victims().fields[0], victims(b="QUJD").fields[0], *from_victim().fields)),
        results={"dkim": "pass,fail", "dmarc": "pass"},
        **AUTHENTIC,
    ),
    attack(
        "From signed once but two From",
        mail=lambda: victims().on_top(("From", f"mallory@{ATTACKER}")),
        results={"dkim": "policy"},
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ATTACKS)
async def test_only_what_the_victim_signed_passes(case: Case) -> None:
    await withstand(case)


@answers("unsigned Content-Type replaced")
@pytest.mark.parametrize(
    ("above", "name", "value"),
    [
        (False, "Content-Type", "multipart/mixed; boundary=x"),
        (True, "Content-Type", "multipart/mixed; boundary=x"),
        (True, "Subject", "Urgent"),
        (True, "Reply-To", f"mallory@{ATTACKER}"),
        (True, "From", f"mallory@{ATTACKER}"),
        (True, "List-Unsubscribe", f"<https://{ATTACKER}/>"),
    ],
    ids=["type replaced", "type added", "subject added", "reply-to added", "from added", "list-unsubscribe added"],
)
async def test_what_we_sign_does_not_bear_it(tmp_path: Path, above: bool, name: str, value: str) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(key_of("ours.example").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    config = Config(sign={"ours.example": Sign(selector="sel", key_file=FilePath(str(path)))})
    message = mail("alice@ours.example").below(("Content-Type", "text/plain"))
    played = await play(message, config=config, macros={b"{auth_authen}": b"alice"})
    (edit,) = played.edits("insert", "DKIM-Signature")
    signed = message.on_top(("DKIM-Signature", edit.value.replace("\n", "\r\n")))
    dns = zone({"sel._domainkey.ours.example TXT": [record(key_of("ours.example"))]})

    assert (await play(signed, dns=dns)).words("dkim") == "pass"
    forged = signed.on_top((name, value)) if above else changed(signed, name.encode(), f" {value}".encode())
    received = await play(forged, dns=dns)
    assert received.words("dkim") in ("fail", "policy")
    assert_clean(received, (ATTACKER,))
