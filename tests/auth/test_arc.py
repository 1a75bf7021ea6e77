"""ARC validation: every rule with a chain that breaks it and nothing else; tests/suites/arc.py has the public suite."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.auth.arc import MAX_SETS, parse_chain, verify
from authmilter.auth.signature import MAX_KEYS, is_signed_by
from authmilter.evidence import Result
from authmilter.interfaces import Answer
from authmilter.model import BodyHashKey, HeaderField, Message
from tests.auth.arc_mail import DOMAINS, KEY, OPTIONS, RESULTS, add_set, chain_of, message_of, validate, zone
from tests.auth.mail import MESSAGE, NOW, ed25519_key, record, rsa_key, split
from tests.fakes import FakeDNS


async def judge(raw: bytes) -> tuple[str, str]:
    result = (await validate(raw, zone())).result
    return result.result.value, result.reason


# -- pass --------------------------------------------------------------------------------------------------------------

PASSING = [
    pytest.param(chain_of(1), id="one set"),
    pytest.param(chain_of(5), id="five sets"),
    pytest.param(add_set(MESSAGE, ams={"c": "simple/simple"}), id="AMS with simple canonicalization"),
    pytest.param(add_set(MESSAGE, ams={"v": "2"}), id="AMS with v=, which is ignored"),
    pytest.param(add_set(MESSAGE, ams={"zz": "?"}, seal={"zz": "?"}), id="unknown tags"),
    pytest.param(add_set(MESSAGE, ams={"i": "01"}, seal={"i": "01"}), id="i= of two digits"),
    pytest.param(add_set(MESSAGE, seal={"cv": "NONE"}), id="cv= in capitals"),
    pytest.param(add_set(MESSAGE, aar=f"(a (b)) i\r\n\t= (c) 1 (d); {RESULTS}"), id="comments around i= of the AAR"),
    pytest.param(add_set(MESSAGE, aar="i=1;"), id="AAR without results"),
    pytest.param(add_set(MESSAGE, ams={"l": "35"}), id="l= that covers all"),
    pytest.param(add_set(MESSAGE, ams={"t": str(NOW), "x": str(NOW + 9)}, seal={"t": str(NOW)}), id="t= and x="),
    pytest.param(add_set(MESSAGE, seal={"x": "1", "l": "0", "bh": "?"}), id="tags of DKIM that a seal does not have"),
    pytest.param(add_set(chain_of(1), ams={"h": "from:arc-message-signature"}), id="AMS that covers an older AMS"),
    pytest.param(add_set(MESSAGE, domain="FIRST.example"), id="d= in capitals"),
]


@pytest.mark.parametrize("raw", PASSING)
async def test_pass(raw: bytes) -> None:
    assert await judge(raw) == ("pass", "")


async def test_no_chain() -> None:
    found = await validate(MESSAGE, zone())
    assert (found.result.method, found.result.result, found.sealers) == ("arc", Result.NONE, ())
    assert not parse_chain(Message(split(MESSAGE)[0])).present


async def test_what_a_result_shows() -> None:
    found = await validate(chain_of(2), zone(), client_ip="2001:db8::1")
    assert found.result.identifier == "second.example"
    assert found.result.properties == {"smtp.remote-ip": "2001:db8::1", "header.oldest-pass": "0"}
    assert found.sealers == ("first.example", "second.example")
    assert [(r.method, r.result.value, r.identifier) for r in found.results_of(1)] == [
        ("spf", "pass", "example.org"),
        ("dmarc", "pass", "example.org"),
    ]
    assert found.results_of(0) == found.results_of(3) == found.results_of(-1) == ()


async def test_a_client_without_address() -> None:
    found = await validate(chain_of(1), zone(), client_ip="")
    assert found.result.properties == {"header.oldest-pass": "0"}


async def test_ed25519() -> None:
    raw = add_set(MESSAGE, key=ed25519_key())
    found = await validate(raw, zone(key=ed25519_key()))
    assert found.result.result is Result.PASS


async def test_what_is_needed_is_told_ahead() -> None:
    raw = add_set(add_set(chain_of(1), ams={"c": "simple/simple"}), ams={"s": "other"})
    chain = parse_chain(Message(split(raw)[0]))
    names = [
        f"{s}._domainkey.{d}.example"
        for s, d in (("other", "third"), *(("arc", d) for d in ("third", "second", "first")))
    ]
    assert chain.key_names == tuple(names)  # the newest set comes first
    assert chain.body_hash_keys == {BodyHashKey("relaxed", None), BodyHashKey("simple", None)}
    broken = parse_chain(Message(split(raw.replace(b"cv=none", b"cv=pass"))[0]))
    assert (broken.key_names, broken.body_hash_keys) == ((), frozenset())


# -- oldest-pass -------------------------------------------------------------------------------------------------------


async def oldest_pass(raw: bytes) -> str:
    found = await validate(raw, zone())
    assert found.result.result is Result.PASS, found.result
    return found.result.properties["header.oldest-pass"]


def with_subject(raw: bytes, text: bytes) -> bytes:
    return re.sub(rb"\r\nSubject: [^\r]*", b"\r\nSubject: " + text, raw)


async def test_oldest_pass() -> None:
    """RFC 8617 section 5.2 step 5: which is the first set whose AMS, and each after it, still verifies?"""
    assert await oldest_pass(chain_of(3)) == "0"
    assert await oldest_pass(add_set(with_subject(chain_of(2), b"[list] Tide table"))) == "3"
    assert await oldest_pass(chain_of(2, add_set(with_subject(chain_of(1), b"[list] Tide table")))) == "2"


async def test_oldest_pass_when_the_change_is_undone() -> None:
    """The third AMS is over another subject, so it breaks the run, though the first two verify again."""
    tagged = add_set(with_subject(chain_of(2), b"[list] Tide  table"))
    assert await oldest_pass(add_set(with_subject(tagged, b"Tide  table"))) == "4"


async def test_an_older_set_may_have_expired() -> None:
    raw = add_set(add_set(MESSAGE, ams={"x": str(NOW - 10_000)}))
    assert await oldest_pass(raw) == "2"


async def test_no_answer_about_an_older_message_signature_is_no_temperror() -> None:
    raw = add_set(add_set(MESSAGE, ams={"s": "slow"}))
    dns = zone()
    dns.fail.add(("slow._domainkey.first.example", "TXT"))
    found = await validate(raw, dns)
    assert found.result.properties["header.oldest-pass"] == "2"


# -- structure ---------------------------------------------------------------------------------------------------------


def without(raw: bytes, name: bytes, i: int) -> bytes:
    return re.sub(rb"(?m)^%b: ?(?=[^\r]*\bi=%d;)[^\r]*\r\n" % (name, i), b"", raw)


def twice(raw: bytes, name: bytes, i: int) -> bytes:
    return re.sub(rb"(?m)^(%b: ?(?=[^\r]*\bi=%d;)[^\r]*\r\n)" % (name, i), rb"\1\1", raw)


BROKEN = [
    ("a gap", add_set(chain_of(1), i=3), "set 2 has no ARC-Authentication-Results"),
    ("the first is missing", add_set(MESSAGE, i=2), "set 1 has no ARC-Authentication-Results"),
    ("no AAR", without(chain_of(3), b"ARC-Authentication-Results", 2), "set 2 has no ARC-Authentication-Results"),
    ("no AMS", without(chain_of(3), b"ARC-Message-Signature", 2), "set 2 has no ARC-Message-Signature"),
    ("no AS", without(chain_of(3), b"ARC-Seal", 1), "set 1 has no ARC-Seal"),
    ("two AAR", twice(chain_of(2), b"ARC-Authentication-Results", 2), "two fields ARC-Authentication-Results have i=2"),
    ("two AMS", twice(chain_of(2), b"ARC-Message-Signature", 1), "two fields ARC-Message-Signature have i=1"),
    ("two AS", twice(chain_of(2), b"ARC-Seal", 1), "two fields ARC-Seal have i=1"),
    ("AAR alone", b"ARC-Authentication-Results: i=1; x; spf=pass\r\n" + MESSAGE, "set 1 has no ARC-Message-Signature"),
    ("AAR without anything", b"ARC-Authentication-Results:\r\n" + MESSAGE, "does not begin with i="),
    ("AAR: i= is not first", add_set(MESSAGE, aar="mx.example; i=1; spf=pass"), "does not begin with i="),
    ("AAR: no semicolon", add_set(MESSAGE, aar="i=1 mx.example; spf=pass"), "no semicolon after i="),
    ("AAR: open comment", add_set(MESSAGE, aar="(i=1; mx.example; spf=pass"), "does not begin with i="),
    ("AAR: i=0", add_set(MESSAGE, aar="i=0; mx.example"), "i= is no number from 1 to 50"),
    ("AAR: i=51", add_set(MESSAGE, aar="i=51; mx.example"), "i= is no number from 1 to 50"),
    ("AAR: i=001", add_set(MESSAGE, aar="i=001; mx.example"), "i= is no number from 1 to 50"),
    ("AAR: i= is empty", add_set(MESSAGE, aar="i=; mx.example"), "i= is no number from 1 to 50"),
    ("AAR: i= is a foreign digit", add_set(MESSAGE, aar="i=\u0661; mx.example"), "i= is no number from 1 to 50"),
    ("AAR: I=", add_set(MESSAGE, aar="I=1; mx.example"), "does not begin with i="),
    ("AMS: i=51", add_set(MESSAGE, i=51), "i= is no number from 1 to 50"),
    ("AMS: i= is negative", add_set(MESSAGE, ams={"i": "-1"}), "i= is no number from 1 to 50"),
    ("AMS: no i=", add_set(MESSAGE, ams={"i": None}), "i= is no number from 1 to 50"),
    ("AMS: i= of another set", add_set(MESSAGE, ams={"i": "2"}), "set 1 has no ARC-Message-Signature"),
    ("AMS: covers AS", add_set(chain_of(1), ams={"h": "from:ARC-Seal"}), "h= names ARC-Seal"),
    ("AMS of an older set covers AS", add_set(add_set(MESSAGE, ams={"h": "from:arc-seal"})), "h= names ARC-Seal"),
    ("AMS: no h=", add_set(MESSAGE, ams={"h": None}), "no h="),
    ("AMS: no bh=", add_set(MESSAGE, ams={"bh": None}), "no bh="),
    ("AMS: rsa-sha1", add_set(MESSAGE, ams={"a": "rsa-sha1"}), "a= is rsa-sha1"),
    ("AMS: a= is unknown", add_set(MESSAGE, ams={"a": "rsa-sha512"}), "a= is unknown"),
    ("AMS: tag given twice", add_set(MESSAGE, ams={"s": "arc; s=arc"}), "s= given twice"),
    ("AMS: x= before t=", add_set(MESSAGE, ams={"t": "5", "x": "4"}), "x= is not after t="),
    ("AS: h=", add_set(MESSAGE, seal={"h": "from"}), "h= is not allowed"),
    ("AS: no cv=", add_set(MESSAGE, seal={"cv": None}), "no cv="),
    ("AS: cv= is unknown", add_set(MESSAGE, seal={"cv": "maybe"}), "cv= is unknown"),
    ("AS: no d=", add_set(MESSAGE, seal={"d": None}), "no d="),
    ("AS: no s=", add_set(MESSAGE, seal={"s": None}), "no s="),
    ("AS: no a=", add_set(MESSAGE, seal={"a": None}), "no a="),
    ("AS: no b=", add_set(MESSAGE, seal={"b": None}), "no b="),
    ("AS: rsa-sha1", add_set(MESSAGE, seal={"a": "rsa-sha1"}), "a= is rsa-sha1"),
    ("AS: t= is no number", add_set(MESSAGE, seal={"t": "now"}), "t= is no number"),
    ("AS: d= is no domain", add_set(MESSAGE, seal={"d": "first example"}), "d= is no domain name"),
    ("AS: d= is a single label", add_set(MESSAGE, seal={"d": "example"}), "d= is a single label"),
    ("the first says cv=pass", add_set(MESSAGE, seal={"cv": "pass"}), "seal 1 says cv=pass"),
    ("the second says cv=none", add_set(chain_of(1), seal={"cv": "none"}), "seal 2 says cv=none"),
    ("the newest says cv=fail", add_set(chain_of(1), seal={"cv": "fail"}), "seal 2 says cv=fail"),
    ("an older one says cv=fail", add_set(add_set(chain_of(1), seal={"cv": "fail"})), "seal 2 says cv=fail"),
    ("the only one says cv=fail", add_set(MESSAGE, seal={"cv": "fail"}), "seal 1 says cv=fail"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN])
async def test_broken_structure(raw: bytes, reason: str) -> None:
    dns = zone()
    found = await validate(raw, dns)
    assert found.result.result is Result.FAIL
    assert reason in found.result.reason
    assert dns.asked == []  # nobody is asked about it
    assert (found.sealers, found.results_of(1), found.first_trusted(DOMAINS)) == ((), (), 0)


async def test_the_longest_chain() -> None:
    """RFC 8617 section 4.2.1: 50 sets are the most."""
    raw = chain_of(MAX_SETS)
    assert await judge(raw) == ("pass", "")
    assert await judge(add_set(raw, i=51)) == ("fail", "over 50 fields ARC-Authentication-Results")
    found = await validate(raw, zone(), max_sets=49)
    assert (found.result.result, found.result.reason) == (Result.POLICY, "over 49 ARC sets")


# -- keys and signatures -----------------------------------------------------------------------------------------------

TWO = chain_of(2)
FAILING = [
    ("body changed", TWO.replace(b"high water", b"low water"), "message signature 2: body has changed"),
    ("signed field changed", TWO.replace(b"bob@", b"eve@"), "message signature 2: header has changed"),
    ("newest AAR forged", TWO.replace(b"i=2; mx.example; spf=pass", b"i=2; mx.example; spf=fail"), "seal 2: ARC fields"),
    ("older AAR forged", TWO.replace(b"i=1; mx.example; spf=pass", b"i=1; mx.example; spf=fail"), "seal 2: ARC fields"),
    ("b= of an older seal replaced", re.sub(rb"(cv=none; b=)....", rb"\1AAAA", TWO), "seal 2: ARC fields"),
    ("text after l=", add_set(MESSAGE, ams={"l": "10"}), "message signature 1: 25 octets of the body are not signed"),
    ("AMS expired", add_set(MESSAGE, ams={"x": str(NOW - 301)}), "message signature 1: signature has expired"),
    ("AMS from the future", add_set(MESSAGE, ams={"t": str(NOW + 301)}), "message signature 1: signature was made in"),
    ("AS from the future", add_set(MESSAGE, seal={"t": str(NOW + 301)}), "seal 1: signature was made in the future"),
    ("AMS without key", add_set(MESSAGE, ams={"s": "gone"}), "message signature 1: no key at gone._domainkey.first"),
    ("AS without key", add_set(MESSAGE, seal={"s": "gone"}), "seal 1: no key at gone._domainkey.first.example"),
    ("older AS without key", add_set(add_set(MESSAGE, seal={"s": "gone"})), "seal 1: no key at gone"),
    ("key of another type", add_set(MESSAGE, seal={"a": "ed25519-sha256"}), "seal 1: key is of another type than a="),
    ("set of another message", add_set(MESSAGE, ams={"bh": "AAAA"}), "message signature 1: body has changed"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [pytest.param(*case[1:], id=case[0]) for case in FAILING])
async def test_fail(raw: bytes, reason: str) -> None:
    found = await validate(raw, zone())
    assert found.result.result is Result.FAIL
    assert found.result.reason.startswith(reason)
    assert found.result.properties == {"smtp.remote-ip": "192.0.2.1"}
    assert (found.sealers, found.results_of(1), found.first_trusted(DOMAINS)) == ((), (), 0)


KEYS = [
    ("revoked", "v=DKIM1; p=", "key is revoked"),
    ("for another service", record(KEY, "s=tlsrpt"), "key is not for email"),
    ("for sha1 alone", record(KEY, "h=sha1"), "key does not allow sha256"),
    ("not a key", "v=spf1 -all", "key record is not of version DKIM1"),
    ("another key", record(rsa_key(2048)), "header has changed"),
    ("of 512 bits",
     ("p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALgSoqXVSEmfcIsOzw7oRuCCOwsmtX/SJnTWxYyj2leFxfS/AVJ+dYfY+hXqMsT7l+MZvvh/R1Wz"
     "N4MO/kI/7XsCAwEAAQ=="), "key of 512 bits is too small"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [pytest.param(*case[1:], id=case[0]) for case in KEYS])
async def test_the_rules_for_keys_are_those_of_dkim(text: str, reason: str) -> None:
    found = await validate(chain_of(1), FakeDNS({"arc._domainkey.first.example TXT": [text]}))
    assert (found.result.result, found.result.reason) == (Result.FAIL, f"message signature 1: {reason}")


@pytest.mark.parametrize("domain", ["first.example", "second.example"])
async def test_a_dns_that_does_not_answer_is_never_a_fail(domain: str) -> None:
    dns = zone()
    dns.fail.add((f"arc._domainkey.{domain}", "TXT"))
    found = await validate(TWO, dns)
    assert found.result.result is Result.TEMPERROR
    assert f"no answer from the DNS about arc._domainkey.{domain}" in found.result.reason
    assert (found.sealers, found.results_of(1)) == ((), ())


async def test_a_message_that_was_not_examined_whole() -> None:
    for raw in (TWO, TWO.replace(b"cv=none", b"cv=pass")):  # what is missing may be why the structure is broken
        found = await validate(raw, zone(), oversized="body")
        assert (found.result.result, found.result.reason) == (Result.POLICY, "message is too large to be checked")


async def test_the_keys_of_older_sets_are_asked_for_only_if_the_newest_holds() -> None:
    dns = zone()
    await validate(chain_of(3).replace(b"bob@", b"eve@"), dns)
    assert dns.asked == ["arc._domainkey.third.example TXT"]
    dns = zone()
    await validate(chain_of(3), dns)
    assert sorted(dns.asked) == sorted(f"arc._domainkey.{d} TXT" for d in DOMAINS[:3])


async def test_an_unexpected_exception_is_a_temperror() -> None:
    class BrokenDNS(FakeDNS):
        def known(self, name: str, rdtype: str) -> Answer | None:
            raise RuntimeError(name)

    told: list[str] = []
    chain, message = message_of(TWO)
    found = await verify(chain, message, BrokenDNS(), NOW, OPTIONS, "", told.append)
    assert (found.result.result, found.result.reason) == (Result.TEMPERROR, "internal error")
    assert told == ["ARC validation failed"]


# -- who is trusted ----------------------------------------------------------------------------------------------------

TRUST = [
    ("all", DOMAINS, 1),
    ("the newest two", ("third.example", "second.example"), 2),
    ("the newest", ("third.example",), 3),
    ("all but the newest", ("first.example", "second.example"), 0),
    ("all but one in the middle", ("first.example", "third.example"), 3),
    ("nobody", (), 0),
    ("a parent domain", ("example",), 0),
]


@pytest.mark.parametrize(("trusted", "first"), [pytest.param(*case[1:], id=case[0]) for case in TRUST])
async def test_first_trusted(trusted: tuple[str, ...], first: int) -> None:
    assert (await validate(chain_of(3), zone())).first_trusted(trusted) == first


async def test_a_stolen_chain_under_another_message_is_not_trusted() -> None:
    """ARC result laundering: a set of a trusted host is put under a spam, and sealed by the spammer: the chain passes."""
    stolen = b"".join(field.raw for field in split(chain_of(1))[0] if field.name.startswith(b"ARC-"))
    spam = stolen + MESSAGE.replace(b"Hello  Bob", b"Buy now")
    found = await validate(add_set(spam, domain="attack.example"), zone("first.example", "attack.example"))
    assert found.result.result is Result.PASS
    assert found.result.properties["header.oldest-pass"] == "2"
    assert found.sealers == ("first.example", "attack.example")
    assert found.first_trusted(["first.example"]) == 0


async def test_a_chain_that_does_not_cover_from_is_not_trusted() -> None:
    """Whoever receives such a message could send it on in the name of another author."""
    raw = add_set(MESSAGE, ams={"h": "to:subject:date"})
    found = await validate(raw.replace(b"From: Ann <ann@example.org>", b"From: Eve <eve@victim.example>"), zone())
    assert found.result.result is Result.PASS  # the public suite has it so
    assert found.first_trusted(DOMAINS) == 0


async def test_a_second_from_above_the_signed_one_is_not_trusted() -> None:
    found = await validate(b"From: Eve <eve@victim.example>\r\n" + chain_of(1), zone())
    assert found.result.result is Result.PASS
    assert found.first_trusted(DOMAINS) == 0


async def test_a_set_in_the_name_of_a_trusted_sealer() -> None:
    raw = add_set(MESSAGE, key=rsa_key(2048))
    assert (await validate(raw, zone())).first_trusted(DOMAINS) == 0


# -- hostile input -----------------------------------------------------------------------------------------------------


@contextmanager
def verifications() -> Iterator[list[int]]:
    """Counts the public-key operations."""
    count = [0]

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code is is_signed_by.__code__:
            count[0] += 1

    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


async def test_fifty_sets_cost_one_verification_for_each_signature() -> None:
    raw = chain_of(MAX_SETS)
    with verifications() as count:
        assert (await validate(raw, zone())).result.result is Result.PASS
    assert count == [2 * MAX_SETS]


async def test_many_keys_at_each_name_cost_two_verifications() -> None:
    other = record(rsa_key(2048))
    dns = FakeDNS({f"arc._domainkey.{d} TXT": [other, record(KEY), *[other] * 50] for d in DOMAINS})
    with verifications() as count:
        assert (await validate(chain_of(MAX_SETS), dns)).result.result is Result.PASS
    assert count == [2 * MAX_SETS * MAX_KEYS]
    dns = FakeDNS({f"arc._domainkey.{d} TXT": [other, other, record(KEY)] for d in DOMAINS})
    assert (await validate(chain_of(1), dns)).result.result is Result.FAIL


async def test_a_failing_chain_of_fifty_stops_at_once() -> None:
    with verifications() as count:
        await validate(chain_of(MAX_SETS).replace(b"bob@", b"eve@"), zone())
    assert count == [1]


def heavy() -> bytes:
    """Fifty sets, each of whose AMS covers 600 KB of header section."""
    names = [f"x-{n}" for n in range(1000)]
    raw = b"".join(b"%b: %b\r\n" % (name.encode(), b"a \t" * 200) for name in names) + MESSAGE
    for _ in range(MAX_SETS):
        raw = add_set(raw, ams={"h": ":".join(["from", *names])})
    return raw


HOSTILE: dict[str, Callable[[], bytes]] = {
    "fifty AMS that each cover 600 KB": heavy,
    "a name listed 16,000 times": lambda: add_set(MESSAGE, ams={"h": "from:" + "x:" * 16_000 + "x"}),
    "AAR of 250 KB each": lambda: add_set(add_set(MESSAGE, aar="i=1; a" + "; b=c" * 50_000), aar="i=2; " + "(" * 250_000),
    "an AAR of open comments": lambda: add_set(MESSAGE, aar="(" * 250_000),
    "an AAR of white space": lambda: add_set(MESSAGE, aar=" " * 250_000 + "i=1;"),
    "b= with thousands of folds": lambda: re.sub(rb"(?<=b=)(.)", rb"\1" + b"\r\n " * 8000, chain_of(1), count=1),
    "20,000 seals": lambda: b"ARC-Seal: i=1; cv=none\r\n" * 20_000 + MESSAGE,
    "20,000 sets": lambda: b"".join(b"ARC-Seal: i=%d; cv=none\r\n" % n for n in range(20_000)) + MESSAGE,
    "fifty seals with 100 tags": lambda: b"".join(
        b"ARC-Seal: i=%d" % i + b"".join(b"; t%d=%b" % (n, b"x" * 300) for n in range(98)) + b"\r\n" for i in range(1, 51)
    ) + MESSAGE,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_chains_cost_little(name: str) -> None:
    raw = HOSTILE[name]()
    before = time.process_time()
    found = await validate(raw, zone())
    for i in range(len(found.sealers) + 1):
        found.results_of(i)
    spent = time.process_time() - before
    print(f"{name}: {len(raw)} octets, {spent * 1000:.0f} ms, {found.result.result.value}: {found.result.reason}")
    assert spent < 2.0  # a bound against quadratic work, far above what any of them takes


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"ARC-Seal", b"arc-message-signature", b"ARC-Authentication-Results "]),
                          st.binary(max_size=80) | st.sampled_from([b"i=1;", b" i=1; cv=none; a=rsa-sha256"]))))  # fmt: skip
def test_parse_chain_never_raises(fields: list[tuple[bytes, bytes]]) -> None:
    chain = parse_chain(Message(tuple(HeaderField(*field) for field in fields)))
    assert chain.present is bool(fields)
    assert chain.error is None or chain.error[0] is Result.FAIL
