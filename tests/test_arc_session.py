"""ARC through a whole session: what a trusted sealer excuses, what nobody else does, and sealing on our own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authmilter.config.schema import Arc, Config, Identity
from authmilter.model import HeaderField
from authmilter.verdict import Action, Verdict
from tests.auth import arc_mail
from tests.auth.mail import record, rsa_key, split
from tests.fakes import FakeDNS
from tests.test_session import ZONE, Rig

SEEN = "fwd.example; dmarc=pass header.from=example.org; spf=pass smtp.mailfrom=a@example.org"
MAIL = b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n\r\nhello\r\n-- \r\na list\r\n"
FORWARDER = "198.51.100.9"


def rig(*trusted: str, config: Config | None = None) -> Rig:
    config = config or Config()
    config = replace(config, arc=replace(config.arc, trusted_sealers=trusted))
    keys = {f"arc._domainkey.{domain} TXT": [record(arc_mail.KEY)] for domain in ("fwd.example", "evil.example")}
    return Rig(config=config, dns=FakeDNS({**ZONE, **keys}))


async def play(rig: Rig, raw: bytes) -> Verdict:
    fields, body = split(raw)
    session = rig.session()
    await session.connect(b"x", "4", 1, FORWARDER.encode(), {b"j": b"mx.test"})
    await session.helo(b"mx.fwd.example", {})
    await session.mail([b"<alice@example.org>"], {})
    await session.rcpt([b"<bob@example.net>"], {})
    session.headers([HeaderField(name, value) for name, value in fields])
    await session.end_of_headers({})
    session.body(body)
    return await session.end_of_message({})


def chain(*domains: str, aar: str = SEEN) -> bytes:
    raw = MAIL
    for i, domain in enumerate(domains, 1):
        raw = arc_mail.add_set(raw, i=i, domain=domain, aar=f"i={i}; {aar}")
    return raw


@pytest.mark.parametrize(
    ("sealers", "trusted", "aar", "action", "override"),
    [
        (["fwd.example"], ["fwd.example"], SEEN, Action.ACCEPT, "trusted_forwarder"),
        (["fwd.example"], [".example"], SEEN, Action.ACCEPT, "trusted_forwarder"),
        (["fwd.example"], [], SEEN, Action.REJECT, ""),
        (["fwd.example"], ["other.example"], SEEN, Action.REJECT, ""),
        (["evil.example", "fwd.example"], ["fwd.example"], SEEN, Action.ACCEPT, "trusted_forwarder"),
        (["fwd.example", "evil.example"], ["fwd.example"], SEEN, Action.REJECT, ""),
        (["fwd.example"], ["fwd.example"], "fwd.example; dmarc=fail header.from=example.org", Action.REJECT, ""),
        (["fwd.example"], ["fwd.example"], "fwd.example; dmarc=pass header.from=evil.example", Action.REJECT, ""),
    ],
    ids=[
        "a trusted sealer that saw DMARC pass",
        "listed with its parent",
        "a valid chain of strangers is nothing",
        "trust in somebody else is nothing",
        "what the trusted sealer itself saw counts, whoever sealed before",
        "one stranger in between spoils what stands before",
        "a trusted sealer that saw DMARC fail",
        "a trusted sealer that saw somebody else",
    ],
)
async def test_trusted_sealers(
    sealers: Sequence[str], trusted: Sequence[str], aar: str, action: Action, override: str
) -> None:
    found = rig(*trusted)
    verdict = await play(found, chain(*sealers, aar=aar))
    assert verdict.action is action
    results = {r.method: r for r in found.outcomes[0].tx.results}
    assert results["arc"].result.value == "pass"
    assert results["dmarc"].result.value == "fail"
    assert results["dmarc"].properties.get("policy.override", "") == override
    field = found.outcomes[0].authentication_results.replace("\n\t", " ")
    assert f"smtp.remote-ip={FORWARDER}" in field
    assert "header.oldest-pass=" in field


async def test_a_broken_chain_excuses_nothing() -> None:
    found = rig("fwd.example")
    verdict = await play(found, chain("fwd.example").replace(b"a list", b"an ad"))
    assert verdict.action is Action.REJECT
    assert {r.method: r.result.value for r in found.outcomes[0].tx.results}["arc"] == "fail"


async def test_no_chain_is_not_mentioned() -> None:
    found = rig("fwd.example")
    await play(found, MAIL)
    assert "\tarc=" not in found.outcomes[0].authentication_results


async def test_switched_off() -> None:
    found = rig("fwd.example", config=Config(arc=Arc(enabled=False)))
    assert (await play(found, chain("fwd.example"))).action is Action.REJECT
    assert "\tarc=" not in found.outcomes[0].authentication_results


@pytest.mark.parametrize(
    ("seal", "local", "sealed"),
    [
        ("no", (), False),
        ("always", ("example.net",), True),
        ("relayed", ("example.net",), False),
        ("relayed", ("elsewhere.example",), True),
    ],
)
async def test_sealing(tmp_path: Path, seal: str, local: tuple[str, ...], sealed: bool) -> None:
    key = rsa_key(2048)
    file = tmp_path / "seal.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    settings = Arc(seal=seal, seal_domain="us.example", seal_selector="s1", seal_key_file=str(file))  # type: ignore[arg-type]
    found = rig("fwd.example", config=Config(arc=settings, identity=Identity(local_domains=local)))
    raw = chain("fwd.example")
    verdict = await play(found, raw)
    names = [e.name for e in verdict.edits if e.name.startswith("ARC-")]
    assert names == (["ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"] if sealed else [])
    assert verdict.edits[-1].name == "Authentication-Results"
    if sealed:
        on = arc_mail.apply([e for e in verdict.edits if e.op == "insert"], raw)
        dns = FakeDNS(
            {"s1._domainkey.us.example TXT": [record(key)], "arc._domainkey.fwd.example TXT": [record(arc_mail.KEY)]}
        )
        result = await arc_mail.validate(on, dns, now=1e9 + 60)
        assert (result.result.result.value, result.sealers) == ("pass", ("fwd.example", "us.example"))
        assert any(r.method == "arc" for r in result.results_of(2))
