"""DKIM: canonical forms, and messages that others signed, with the keys that were published at the time."""

import json
import lzma
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authmilter.auth.canonical import HEADER, BodyHasher
from authmilter.auth.dkim import parse_signatures
from authmilter.config.schema import Dkim
from authmilter.evidence import AuthResult, Result
from authmilter.model import BodyHash, BodyHashKey, Message
from tests.auth.mail import check, crlf, hashed, load_json, sign, split
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.suite import Case, Explained, Suite


def zone(keys: Mapping[str, Any]) -> FakeDNS:
    """A name -> TXT table of the corpora: None is NXDOMAIN, a mapping a failure."""
    return FakeDNS(
        {f"{name} TXT": [text] for name, text in keys.items() if isinstance(text, str)},
        fail=[f"{name} TXT" for name, text in keys.items() if isinstance(text, dict)],
    )


# -- canonical forms ---------------------------------------------------------------------------------------------------


def canonical_forms() -> Iterator[Case]:
    """The simple and relaxed form of header and body; the DomainKeys form is historic."""
    folder = shared("dkim-canonicalization")
    for path in sorted(folder.glob("email.*")):
        for form in ("simple", "relaxed"):
            expected = crlf((folder / f"{form}.expected{path.suffix}").read_bytes())
            yield Case(f"{path.name} {form}", ("same",), partial(_canonical, form, path.read_bytes(), expected))


async def _canonical(form: str, raw: bytes, expected: bytes) -> str:
    fields, body = split(crlf(raw))
    header = b"".join(map(HEADER[form], fields)) + b"\r\n"
    if not expected.startswith(header):
        return f"header {header!r}"
    hasher = BodyHasher(BodyHashKey(form, None))
    hasher.update(body)
    canonical = expected.removeprefix(header)
    return "same" if hasher.finish() == BodyHash(sha256(canonical).digest(), len(canonical)) else "another body"


# -- Mail::DKIM --------------------------------------------------------------------------------------------------------

MAIL_DKIM_TIME = 1_193_300_000  # October 2007: after nearly all were signed, and after the one that is to have expired


def mail_dkim() -> Iterator[Case]:
    """One answer for the whole message, the best of its signatures, as Mail::DKIM's own test has it."""
    folder = shared("mail-dkim-corpus")
    dns = load_json(folder / "dns.json")
    for case in load_json(folder / "expected.json"):
        raw = (folder / "corpus" / case["file"]).read_bytes()
        ask = partial(_best, raw if b"\r\n" in raw else crlf(raw), dns)
        # Its "invalid" is whatever can't be used, for which RFC 8601 section 2.7.1 has several words.
        expected = ("invalid", "policy") if case["maildkim"] == "invalid" else (case["maildkim"],)
        explained = None
        if "dns error" in case.get("maildkim_comment", ""):
            expected = ("temperror",)
        elif not case["dkim_signatures"]:
            explained = Explained("none", "a DomainKey-Signature is none of DKIM (RFC 4870 is historic)")
        elif case["maildkim"] != "invalid" and case["obsolete_features"] != "current":
            explained = _obsolete(case["obsolete_features"])
        yield Case(case["file"], expected, ask, explained)


def _obsolete(features: str) -> Explained:
    """What a verifier of today says of drafts before RFC 4871, SHA-1 and short keys; features of a signature by "|"."""
    malformed = all("v=" in signature or "bh=" in signature for signature in features.split("|"))
    sections = {"v=": "RFC 6376 section 3.5", "bh=": "RFC 6376 section 3.5", "sha1": "RFC 8301 section 3.1",
                "-bit": "RFC 8301 section 3.2"}  # fmt: skip
    reasons = sorted({section for feature, section in sections.items() if feature in features})
    return Explained("invalid" if malformed else "policy", f"{features} ({', '.join(reasons)})")


async def _best(raw: bytes, dns: Mapping[str, Any]) -> str:
    words = {r.result for r in await check(raw, zone(dns), now=MAIL_DKIM_TIME)}
    for word in (Result.PASS, Result.FAIL, Result.POLICY, Result.TEMPERROR, Result.NONE):
        if word in words:
            return word.value
    return "invalid"  # permerror and neutral (RFC 8601 section 2.7.1)


# -- dkimpy ------------------------------------------------------------------------------------------------------------


def dkimpy() -> Iterator[Case]:
    """pass or not, for each signature."""
    folder = shared("dkimpy-vectors")
    zones = load_json(folder / "dns.json")
    for case in load_json(folder / "cases.json"):
        raw = crlf((folder / case["file"]).read_bytes())
        expected = ["pass" if answer == "pass" else "no pass" for answer in case["dkimpy_1_1_8"]]
        name = case["file"].removeprefix("data/")
        keys = zones["default"] | zones[case["zone"]]
        yield Case(f"{name} with {case['zone']} keys", (", ".join(expected),), partial(_each_passes, raw, keys))
    for name in BROKEN_KEYS:
        expected = ["pass" if name == "implicit_k" else "no pass"]
        yield Case(f"key {name}", tuple(expected), partial(_broken_key, name))


BROKEN_KEYS = ("implicit_k", "bad_version_syntax", "unknown_k", "truncated_p", "tlsrpt_only")


async def _each_passes(raw: bytes, keys: Mapping[str, Any]) -> str:
    results = await check(raw, zone(keys), now=1_600_000_000)
    return ", ".join("pass" if r.result is Result.PASS else "no pass" for r in results if r.result is not Result.NONE)


async def _broken_key(name: str) -> str:
    return "pass" if (await with_key_record(name)).result is Result.PASS else "no pass"


async def with_key_record(name: str) -> AuthResult:
    """The result for dkimpy's test message, signed by its test key, of which only the record of that zone is there."""
    folder = shared("dkimpy-vectors")
    [text] = load_json(folder / "dns.json")[name].values()
    key = load_pem_private_key((folder / "data" / "test.private").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    raw = sign(crlf((folder / "data" / "test.message").read_bytes()), key, d="example.com", s="test", h="from")
    [result] = await check(raw, zone({"test._domainkey.example.com": text}))
    return result


# -- mail as it was received -------------------------------------------------------------------------------------------

RFC_8301 = "rsa-sha1 must not be used for verifying (RFC 8301 section 3.1)"


def real_signed() -> Iterator[Case]:
    """Every signature of the real messages of which a key is at hand; "-" for others."""
    folder = shared("real-signed")
    keys = load_json(shared("real-keys/dns.json"))
    for case in load_json(folder / "expected.json"):
        expected = [signature.get("verify", "-") for signature in case["signatures"]]
        if set(expected) == {"-"}:
            continue  # nothing to decide
        sha1 = [signature["a"] == "rsa-sha1" for signature in case["signatures"]]
        explained = None
        if any(sha1):
            ours = ["policy" if old else word for old, word in zip(sha1, expected, strict=True)]
            explained = Explained(", ".join(ours), RFC_8301)
        raw = crlf((folder / case["file"]).read_bytes())
        yield Case(case["file"], (", ".join(expected),), partial(_signatures, raw, keys, case), explained)


async def _signatures(raw: bytes, keys: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    results = await check(raw, zone(keys), now=case["check_time"])
    pairs = zip(case["signatures"], results, strict=True)
    return ", ".join(result.result.value if "verify" in signature else "-" for signature, result in pairs)


def ham() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every message of the archive of eleven mailing lists, with its manifest line."""
    folder = shared("ham-lists")
    with lzma.open(folder / "manifest.jsonl.xz", "rt") as lines:
        manifest = {entry["id"]: entry for entry in map(json.loads, lines)}
    with tarfile.open(folder / "ham-lists.tar.xz", "r|xz") as archive:
        for member in archive:
            entry = manifest.get(member.name.rpartition("/")[2].removesuffix(".eml"))
            content = archive.extractfile(member) if entry else None
            if content and entry:
                yield crlf(content.read()), entry


MANY = Dkim(max_signatures=50)


def ham_lists() -> Iterator[Case]:
    """Every signed message: the result of signatures whose key is at hand, and the body hash of all."""
    keys = load_json(shared("real-keys/dns.json"))
    for raw, entry in ham():
        if not entry.get("signatures"):
            continue
        expected, ours = [], []
        for signature in entry["signatures"]:
            body = {True: "right", False: "wrong", None: "-"}[signature["bh_ok"]]
            word = {"pass": "pass", None: "-"}.get(signature.get("verify"), "fail")
            expected.append(f"{word} body {body}")
            ours.append(f"{word} body -" if signature["a"] == "rsa-sha1" else expected[-1])
        if set(expected) == {"- body -"}:
            continue  # nothing to decide
        explained = None if ours == expected else Explained(", ".join(ours), f"{RFC_8301}, so its body is not hashed")
        yield Case(entry["id"], (", ".join(expected),), partial(_ham, raw, keys, entry), explained)


async def _ham(raw: bytes, keys: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    results = await check(raw, zone(keys), now=entry["check_time"], options=MANY)
    fields, body = split(raw)
    signatures = parse_signatures(Message(fields), MANY)
    hashes = hashed(fields, body, {s.body_hash_key for s in signatures if s.body_hash_key}).body_hashes
    found = []
    for expected, result, signature in zip(entry["signatures"], results, signatures, strict=True):
        assert result.result is not Result.NEUTRAL, result
        shown = "-"
        if expected["bh_ok"] is not None and signature.body_hash_key:
            shown = "right" if hashes[signature.body_hash_key].digest == signature.body_hash else "wrong"
        found.append(f"{result.result.value if 'verify' in expected else '-'} body {shown}")
    return ", ".join(found)


CANONICALIZATION = Suite("DKIM canonicalization", "dkim-canonicalization", 42, canonical_forms)
MAIL_DKIM = Suite("Mail::DKIM corpus", "mail-dkim-corpus", 37, mail_dkim)
DKIMPY = Suite("dkimpy vectors", "dkimpy-vectors", 19, dkimpy)
REAL_SIGNED = Suite("DKIM real mail", "real-signed", 4, real_signed)
HAM_LISTS = Suite("DKIM mailing lists", "ham-lists", 2476, ham_lists)
SUITES = (CANONICALIZATION, MAIL_DKIM, DKIMPY, REAL_SIGNED, HAM_LISTS)
