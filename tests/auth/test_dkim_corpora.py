"""DKIM verification of messages that others signed, with the keys that were published at the time."""

import json
import lzma
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authmilter.auth.dkim import parse_signatures
from authmilter.config.schema import Dkim
from authmilter.evidence import Result
from authmilter.model import Message
from tests.auth.mail import check, crlf, hashed, load_json, record, rsa_key, shared, sign, split
from tests.fakes import FakeDNS

# RFC 6376 appendix A and RFC 8463 appendix A: the same message and RSA key, signed twice.
RFC8463 = crlf(
    b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
"""
)
RFC8463_KEYS = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": (
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16"
        "JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l"
        "/K4w3QIDAQAB"
    ),
}


def zone(keys: Mapping[str, Any]) -> FakeDNS:
    """A name -> TXT table of the corpora: None is NXDOMAIN, a mapping a failure."""
    return FakeDNS(
        {f"{name} TXT": [text] for name, text in keys.items() if isinstance(text, str)},
        fail=[f"{name} TXT" for name, text in keys.items() if isinstance(text, dict)],
    )


async def test_the_example_of_rfc_8463() -> None:
    results = await check(RFC8463, zone(RFC8463_KEYS))
    assert [r.result for r in results] == [Result.PASS, Result.PASS]
    results = await check(RFC8463.replace(b"hungry", b"thirsty"), zone(RFC8463_KEYS))
    assert [(r.result, r.reason) for r in results] == [(Result.FAIL, "body has changed")] * 2


# -- Mail::DKIM --------------------------------------------------------------------------------------------------------

# What a message with nothing obsolete must give; Mail::DKIM says "invalid" for what RFC 8601 tells apart.
WORDS = {"pass": {Result.PASS}, "fail": {Result.FAIL}, "invalid": {Result.PERMERROR, Result.NEUTRAL, Result.TEMPERROR}}


async def test_every_message_of_the_mail_dkim_corpus() -> None:
    folder = shared("mail-dkim-corpus")
    dns = load_json(folder / "dns.json")
    expected = load_json(folder / "expected.json")
    assert len(expected) == 37
    wrong = []
    for case in expected:
        raw = (folder / "corpus" / case["file"]).read_bytes()
        # October 2007: after nearly all of them were signed, and after the one that has expired on purpose did.
        results = await check(raw if b"\r\n" in raw else crlf(raw), zone(dns), now=1_193_300_000)
        words = [r.result for r in results]
        obsolete = case["obsolete_features"]
        if not case["dkim_signatures"]:
            good = words == [Result.NONE]
        elif "dns error" in case.get("maildkim_comment", ""):
            good = words == [Result.TEMPERROR]
        elif obsolete == "current":
            good = set(words) <= WORDS[case["maildkim"]]
        else:
            # RFC 8301 and RFC 6376 section 3.5: no sha1, no key under 1024 bits, nothing but v=1.
            good = len(words) == case["dkim_signatures"] and Result.PASS not in words
        if not good:
            wrong.append((case["file"], case["maildkim"], obsolete, [(r.result.value, r.reason) for r in results]))
    assert wrong == []


MAIL_DKIM = [
    ("badkey1_ed25519.txt", Result.PERMERROR, "key is not 32 octets long"),
    ("badkey2_ed25519.txt", Result.FAIL, "header has changed"),
    ("badkey3_ed25519.txt", Result.FAIL, "body has changed"),
    ("badkey5_ed25519.txt", Result.PERMERROR, "key record has no p="),
    ("badkey_10.txt", Result.PERMERROR, "key is not for subdomains in i="),
    ("badkey_11.txt", Result.PERMERROR, "key does not allow sha256"),
    ("bad_1.txt", Result.NEUTRAL, "signature is malformed: no v="),
    ("ignore_6.txt", Result.NEUTRAL, "signature is malformed: q= is unknown"),
    ("ignore_8.txt", Result.NEUTRAL, "signature is malformed: i= is not within d="),
    ("ignore_7.txt", Result.POLICY, "signature has expired"),
    ("good_qp_2.txt", Result.POLICY, "key of 512 bits is too small"),
]


@pytest.mark.parametrize(("name", "result", "reason"), MAIL_DKIM)
async def test_the_reason_for_messages_of_the_mail_dkim_corpus(name: str, result: Result, reason: str) -> None:
    folder = shared("mail-dkim-corpus")
    raw = (folder / "corpus" / name).read_bytes()
    [found] = await check(raw, zone(load_json(folder / "dns.json")), now=1_700_000_000)
    assert (found.result, found.reason) == (result, reason)


# -- dkimpy ------------------------------------------------------------------------------------------------------------


async def test_every_message_of_dkimpy() -> None:
    folder = shared("dkimpy-vectors")
    zones = load_json(folder / "dns.json")
    cases = load_json(folder / "cases.json")
    assert len(cases) == 14
    for case in cases:
        raw = crlf((folder / case["file"]).read_bytes())
        results = await check(raw, zone(zones["default"] | zones[case["zone"]]), now=1_600_000_000)
        passed = [r.result is Result.PASS for r in results if r.result is not Result.NONE]
        assert passed == [answer == "pass" for answer in case["dkimpy_1_1_8"]], (case["file"], results)


BROKEN_KEYS = {
    "implicit_k": (Result.PASS, ""),
    "bad_version_syntax": (Result.PERMERROR, "key record is not of version DKIM1"),
    "unknown_k": (Result.PERMERROR, "key type is unknown"),
    "truncated_p": (Result.PERMERROR, "key can't be read"),
    "tlsrpt_only": (Result.PERMERROR, "key is not for email"),
}


@pytest.mark.parametrize("name", BROKEN_KEYS)
async def test_the_broken_keys_of_dkimpy(name: str) -> None:
    folder = shared("dkimpy-vectors")
    [text] = load_json(folder / "dns.json")[name].values()
    raw = sign(crlf((folder / "data" / "test.message").read_bytes()), dkimpy_key(), d="example.com", s="test", h="from")
    [result] = await check(raw, zone({"test._domainkey.example.com": text}))
    assert (result.result, result.reason) == BROKEN_KEYS[name]


def dkimpy_key() -> RSAPrivateKey:
    key = load_pem_private_key((shared("dkimpy-vectors") / "data" / "test.private").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


# -- mail as it was received -------------------------------------------------------------------------------------------


async def test_real_messages_with_the_keys_of_their_time() -> None:
    folder = shared("real-signed")
    keys = load_json(shared("real-keys") / "dns.json")
    seen: Counter[str] = Counter()
    for case in load_json(folder / "expected.json"):
        raw = crlf((folder / case["file"]).read_bytes())
        results = await check(raw, zone(keys), now=case["check_time"])
        for expected, result in zip(case["signatures"], results, strict=True):
            if "verify" not in expected:
                continue  # no key at hand
            sha1 = expected["a"] == "rsa-sha1"
            assert result.result.value == ("policy" if sha1 else expected["verify"]), (case["file"], result)
            seen[result.result.value] += 1
    assert seen == {"policy": 2, "pass": 5}


def ham() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every signed message of the archive with its manifest line."""
    folder = shared("ham-lists")
    with lzma.open(folder / "manifest.jsonl.xz", "rt") as lines:
        manifest = {entry["id"]: entry for entry in map(json.loads, lines)}
    with tarfile.open(folder / "ham-lists.tar.xz", "r|xz") as archive:
        for member in archive:
            entry = manifest.get(member.name.rpartition("/")[2].removesuffix(".eml"))
            content = archive.extractfile(member) if entry else None
            if content and entry and entry.get("signatures"):
                yield crlf(content.read()), entry


async def test_every_signed_message_of_eleven_mailing_lists() -> None:
    """Signatures with a key at hand give what dkimpy gave; for the others the body hash is compared."""
    keys = load_json(shared("real-keys") / "dns.json")
    seen: Counter[tuple[str, str]] = Counter()
    for raw, entry in ham():
        options = Dkim(max_signatures=50)
        results = await check(raw, zone(keys), now=entry["check_time"], options=options)
        fields, body = split(raw)
        signatures = parse_signatures(Message(fields), options)
        hashes = hashed(fields, body, {s.body_hash_key for s in signatures if s.body_hash_key}).body_hashes
        for expected, result, signature in zip(entry["signatures"], results, signatures, strict=True):
            assert result.result is not Result.NEUTRAL, (entry["id"], result)
            if signature.body_hash_key and expected["bh_ok"] is not None:
                same = hashes[signature.body_hash_key].digest == signature.body_hash
                assert same is expected["bh_ok"], (entry["id"], result)
                seen["body hash", "right" if same else "wrong"] += 1
            if "verify" in expected and signature.body_hash_key:
                word = "pass" if expected["verify"] == "pass" else "fail"
                assert result.result.value == word, (entry["id"], expected, result)
                seen["signature", word] += 1
    assert seen == {
        ("body hash", "right"): 1826,
        ("body hash", "wrong"): 1604,
        ("signature", "pass"): 337,
        ("signature", "fail"): 223,
    }


async def test_a_key_of_our_own_is_not_mistaken_for_theirs() -> None:
    """The table of keys decides: with another key at each name, nothing of the above passes."""
    keys = dict.fromkeys(RFC8463_KEYS, record(rsa_key()))
    results = await check(RFC8463, zone(keys))
    assert [r.result for r in results] == [Result.PERMERROR, Result.FAIL]
