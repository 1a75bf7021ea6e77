"""ARC sealing: what is added to which chain, and that others can validate it."""

import re
from collections.abc import Sequence

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from authmilter.auth.arc import MAX_SETS, ArcResult, parse_chain
from authmilter.auth.arc_sealing import Sealer
from authmilter.auth.canonical import relaxed_field
from authmilter.auth.keys import PrivateKey
from authmilter.auth.signature import unsigned_form
from authmilter.auth.signing import MAX_SIGNED_FIELDS, SigningError, SigningKey
from authmilter.auth.taglist import decode_base64, parse_tags
from authmilter.config.schema import Sign
from authmilter.errors import ConfigError
from authmilter.evidence import AuthResult, Result
from authmilter.model import Message
from authmilter.verdict import HeaderEdit
from tests.auth.arc_mail import add_set, apply, chain_of, message_of, validate, zone
from tests.auth.mail import MESSAGE, NOW, ed25519_key, record, rsa_key, split
from tests.auth.mail import sign as dkim_sign
from tests.fakes import FakeDNS

NAMES = (*Sign().headers, "DKIM-Signature")
RESULTS = "mx.example;\n\tspf=pass smtp.mailfrom=ann@example.org;\n\tarc=none"
OURS = "seal.example"


def sealer(key: PrivateKey | None = None, headers: Sequence[str] = NAMES, oversign: Sequence[str] = ()) -> Sealer:
    key = key or rsa_key()
    algorithm = "ed25519-sha256" if key is ed25519_key() else "rsa-sha256"
    return Sealer(OURS, SigningKey("s2026", algorithm, key), headers, oversign)


def dns(key: PrivateKey | None = None) -> FakeDNS:
    known = zone()
    known.add(f"s2026._domainkey.{OURS} TXT", [record(key or rsa_key())])
    return known


async def seal(raw: bytes, by: Sealer | None = None, known: FakeDNS | None = None) -> tuple[HeaderEdit, ...]:
    chain, message = message_of(raw)
    return (by or sealer()).seal(chain, await validate(raw, known or dns()), message, RESULTS, NOW)


async def sealed(raw: bytes, by: Sealer | None = None) -> bytes:
    return apply(await seal(raw, by), raw)


async def status(raw: bytes) -> str:
    return (await validate(raw, dns())).result.result.value


# -- the chain goes on -------------------------------------------------------------------------------------------------


async def test_the_first_set() -> None:
    edits = await seal(MESSAGE)
    assert [(e.op, e.at, e.name) for e in edits] == [
        ("insert", 0, "ARC-Authentication-Results"),
        ("insert", 0, "ARC-Message-Signature"),
        ("insert", 0, "ARC-Seal"),
    ]
    aar, ams, seal_value = (edit.value for edit in edits)
    assert aar == "i=1; " + RESULTS
    tags = parse_tags(ams.replace("\n", "\r\n").encode())
    assert (tags[b"i"], tags[b"d"], tags[b"s"], tags[b"t"]) == (b"1", b"seal.example", b"s2026", str(NOW).encode())
    assert b"v" not in tags
    tags = parse_tags(seal_value.replace("\n", "\r\n").encode())
    assert set(tags) == {b"a", b"b", b"cv", b"d", b"i", b"s", b"t"}  # RFC 8617 section 4.1.3: no other
    assert (tags[b"cv"], tags[b"i"]) == (b"none", b"1")


@pytest.mark.parametrize("before", [0, 1, 2, 49])
async def test_a_sealed_chain_passes(before: int) -> None:
    raw = chain_of(before)
    found = await validate(await sealed(raw), dns())
    assert found.result.result is Result.PASS
    assert len(found.sealers) == before + 1
    assert found.sealers[-1] == found.result.identifier == OURS
    assert [r.method for r in found.results_of(before + 1)] == ["spf", "arc"]


async def test_every_later_set_counts_the_earlier_ones() -> None:
    raw = MESSAGE
    for _ in range(4):
        raw = await sealed(raw)
    assert re.findall(rb"cv=(\w+);\r\n d=seal.example;\r\n i=(\d)", raw) == [
        (b"pass", b"4"), (b"pass", b"3"), (b"pass", b"2"), (b"none", b"1"),
    ]  # fmt: skip
    assert await status(raw) == "pass"


async def test_a_list_changes_the_message_and_seals_again() -> None:
    changed = (await sealed(MESSAGE)).replace(b"Subject: ", b"Subject: [tide] ") + b"-- \r\nlist footer\r\n"
    assert await status(changed) == "fail"
    chain, message = message_of(changed)
    before = await validate(await sealed(MESSAGE), dns())  # what it found when the message came in
    raw = apply(sealer().seal(chain, before, message, RESULTS, NOW), changed)
    found = await validate(raw, dns())
    assert (found.result.result, found.result.properties["header.oldest-pass"]) == (Result.PASS, "2")


async def test_ed25519() -> None:
    raw = await sealed(MESSAGE, sealer(ed25519_key()))
    assert (await validate(raw, dns(ed25519_key()))).result.result is Result.PASS


async def test_what_is_signed() -> None:
    raw = dkim_sign(b"Received: by a\r\n" + MESSAGE, rsa_key())
    covered = await sealed(raw, sealer(oversign=["Subject"]))
    for name, result in ((b"DKIM-Signature", "fail"), (b"Subject", "fail"), (b"Received", "pass")):
        assert await status(b"%b: more\r\n" % name + covered) == ("pass" if name == b"DKIM-Signature" else result)
        assert await status(re.sub(rb"(?m)^%b: ?" % name, b"%b: x" % name, covered)) == result


@pytest.mark.parametrize("bits", [1024, 4096])
async def test_dkimpy_accepts_our_chain(bits: int) -> None:
    by, key = sealer(rsa_key(bits)), record(rsa_key(bits)).encode()
    raw = chain_of(1)
    known = dns(rsa_key(bits))
    chain, message = message_of(raw)
    raw = apply(by.seal(chain, await validate(raw, known), message, RESULTS, NOW), raw)
    keys = {b"arc._domainkey.first.example.": record(rsa_key(1024)).encode(), b"s2026._domainkey.seal.example.": key}
    cv, _, reason = dkim.arc_verify(raw, dnsfunc=lambda name, timeout=5: keys.get(name))
    assert (cv, reason) == (b"pass", "success")


async def test_the_lines_are_not_too_long() -> None:
    names = [f"X-A-Field-With-A-Long-Name-{n}" for n in range(100)]
    raw = "".join(f"{name}: x\r\n" for name in names).encode() + MESSAGE
    edits = await seal(raw, sealer(rsa_key(4096), ("From", *names)))
    for edit in edits:
        assert max(map(len, f"{edit.name}: {edit.value}".split("\n"))) <= 998  # RFC 5322 section 2.1.1
    assert (await validate(apply(edits, raw), dns(rsa_key(4096)))).result.result is Result.PASS


# -- failed chains -----------------------------------------------------------------------------------------------------

FAILED = [
    ("a changed message", chain_of(2).replace(b"bob@", b"eve@"), 3),
    ("a missing field", re.sub(rb"ARC-Seal: i=1;[^\r]*\r\n", b"", chain_of(2)), 3),
    ("an unreadable field", b"ARC-Seal: ?\r\n" + chain_of(2), 3),
    ("nothing that can be read", b"ARC-Seal: ?\r\n" + MESSAGE, 1),
]


@pytest.mark.parametrize(("raw", "instance"), [pytest.param(*case[1:], id=case[0]) for case in FAILED])
async def test_a_failed_chain_is_sealed_as_failed_and_ends(raw: bytes, instance: int) -> None:
    assert await status(raw) == "fail"
    edits = await seal(raw)
    seal_value = edits[-1].value
    assert "cv=fail" in seal_value
    assert f"i={instance};" in seal_value
    ended = apply(edits, raw)
    found = await validate(ended, dns())
    assert found.result.result is Result.FAIL
    with pytest.raises(SigningError, match="has ended with cv=fail"):
        await seal(ended)


async def test_the_seal_of_a_failed_chain_covers_its_own_set_alone() -> None:
    """RFC 8617 section 5.1.2: as if there were no other."""
    failed = chain_of(2).replace(b"bob@", b"eve@")
    seal_field, ams, aar = split(apply(await seal(failed), failed))[0][:3]
    data = relaxed_field(aar) + relaxed_field(ams) + unsigned_form(seal_field, "relaxed")
    signature = decode_base64(parse_tags(seal_field.value)[b"b"])
    rsa_key().public_key().verify(signature, data, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        rsa_key().public_key().verify(signature, b"more" + data, PKCS1v15(), SHA256())


@pytest.mark.parametrize("result", list(Result))
async def test_only_a_pass_is_sealed_as_pass(result: Result) -> None:
    raw = chain_of(1)
    chain, message = message_of(raw)
    validated = ArcResult(AuthResult("arc", result, reason="said so"))
    if result in (Result.PASS, Result.FAIL):
        value = sealer().seal(chain, validated, message, RESULTS, NOW)[-1].value
        assert f"cv={result.value};" in value
    else:
        with pytest.raises(SigningError, match="said so"):
            sealer().seal(chain, validated, message, RESULTS, NOW)
    if result is not Result.NONE:  # a result that is not of this message
        with pytest.raises(SigningError, match="said so"):
            sealer().seal(parse_chain(Message()), validated, message, RESULTS, NOW)


# -- not sealed --------------------------------------------------------------------------------------------------------


async def test_a_chain_of_fifty_sets_is_not_sealed() -> None:
    with pytest.raises(SigningError, match="has 50 sets"):
        await seal(chain_of(MAX_SETS))
    with pytest.raises(SigningError, match="has 50 sets"):
        await seal(add_set(chain_of(MAX_SETS), i=51))
    with pytest.raises(SigningError, match="has 50 sets"):  # a gap does not make room
        await seal(add_set(MESSAGE, i=50))


async def test_nothing_is_sealed_while_the_dns_is_down() -> None:
    known = dns()
    known.fail.add(("arc._domainkey.first.example", "TXT"))
    with pytest.raises(SigningError, match="can't be validated: message signature 1: no answer from the DNS"):
        await seal(chain_of(1), known=known)


async def test_a_message_that_was_not_examined_whole() -> None:
    validated = await validate(MESSAGE, dns())
    chain, message = message_of(MESSAGE, oversized="body")
    with pytest.raises(SigningError, match="not examined whole: body"):
        sealer().seal(chain, validated, message, RESULTS, NOW)
    with pytest.raises(SigningError, match="not examined whole: body"):
        sealer().seal(chain, validated, Message(message.fields), RESULTS, NOW)


async def test_too_many_fields() -> None:
    raw = b"Sender: x\r\n" * MAX_SIGNED_FIELDS + MESSAGE
    with pytest.raises(SigningError, match="header fields to sign"):
        await seal(raw)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        (["From", "ARC-Seal"], "headers: arc-seal must not be signed by ARC"),
        (["From", "arc-authentication-results"], "headers: arc-authentication-results must not be signed by ARC"),
        (["From", "Authentication-Results"], "headers: authentication-results must not be signed by ARC"),
        (["To"], "headers: From must be signed (RFC 6376 section 5.4)"),
        ([], "headers: From must be signed (RFC 6376 section 5.4)"),
    ],
)
def test_headers_that_can_not_be(headers: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sealer(headers=headers)
    assert caught.value.problems == (problem,)


def test_nothing_of_a_message_gets_raw_into_a_set() -> None:
    """Names of fields to sign are ours, results are rendered, and the rest are numbers and base64."""
    chain, message = message_of(b"Subject: a\x00b\xff\r\n" + MESSAGE)
    edits = sealer().seal(chain, ArcResult(AuthResult("arc", Result.NONE)), message, RESULTS, NOW)
    assert all(line.isprintable() for edit in edits for line in edit.value.replace("\t", " ").split("\n"))
    assert len(split(apply(edits, MESSAGE))[0]) == len(split(MESSAGE)[0]) + 3
