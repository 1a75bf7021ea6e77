"""DKIM verification: every rule with a message that breaks it and nothing else."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.auth.canonical import BodyHashes
from authmilter.auth.dkim import parse_signatures, verify
from authmilter.config.option import Seconds
from authmilter.config.schema import Dkim
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Answer
from authmilter.model import BodyHashKey, HeaderField, Message
from tests.auth.mail import MESSAGE, NOW, OPTIONS, check, ed25519_key, record, rsa_key, sign, split
from tests.fakes import FakeDNS

KEY = "sel._domainkey.example.org"
P = record(rsa_key()).partition("p=")[2]
# A 512-bit key, whose modulus anybody can factor today.
P512 = (
    "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALgSoqXVSEmfcIsOzw7oRuCCOwsmtX/SJnTWxYyj2leFxfS/AVJ+dYfY+hXqMsT7l+MZvvh/R1Wz"
    "N4MO/kI/7XsCAwEAAQ=="
)


def zone(*records: str, **more: str) -> FakeDNS:
    """The key of these tests at its usual name, or these records instead."""
    return FakeDNS({f"{KEY} TXT": records or [record(rsa_key())]} | {f"{n} TXT": [r] for n, r in more.items()})


async def judge(raw: bytes, *records: str) -> AuthResult:
    [result] = await check(raw, zone(*records))
    return result


def signed(**tags: str | None) -> bytes:
    return sign(MESSAGE, rsa_key(), **tags)


# -- pass --------------------------------------------------------------------------------------------------------------

PASSING = [
    pytest.param(signed(), id="plain"),
    pytest.param(signed(c="relaxed/simple"), id="relaxed header, simple body"),
    pytest.param(signed(c="simple/relaxed"), id="simple header, relaxed body"),
    pytest.param(signed(c="simple/simple"), id="simple header and body"),
    pytest.param(signed(c="relaxed"), id="c= with one name: the body is simple"),
    pytest.param(signed(c=None), id="no c=: simple"),
    pytest.param(signed(c="Relaxed/RELAXED", h="FROM : To :\r\n\tsubject:date"), id="letter case and folds"),
    pytest.param(signed(a="RSA-sha256"), id="a= in capitals"),
    pytest.param(signed(q="dns/txt"), id="q=dns/txt"),
    pytest.param(signed(q="other : dns/txt"), id="q= with another method first"),
    pytest.param(signed(z="From:x|To:y", y="unknown"), id="z= and unknown tags"),
    pytest.param(signed(i="@example.org"), id="i= without local-part"),
    pytest.param(signed(i="ann=40x@a.b.Example.ORG"), id="i= quoted, in a subdomain"),
    pytest.param(signed(t=str(NOW), x=str(NOW + 60)), id="t= and x="),
    pytest.param(signed(t=str(NOW + 250)), id="t= in the future by less than the skew"),
    pytest.param(signed(t=str(NOW - 900), x=str(NOW - 250)), id="x= in the past by less than the skew"),
    pytest.param(signed(x="100000000000"), id="x= of twelve digits"),
    pytest.param(signed(h="from:to:to:cc:from:subject:date:x-not-there"), id="oversigned and absent fields"),
    pytest.param(signed(l=str(len(b"Hello Bob,\r\n\r\nhigh water is at 6.\r\n"))), id="l= that covers all"),
    pytest.param(sign(MESSAGE, rsa_key(), "\r\n\t"), id="folded in front of the first tag"),
    pytest.param(signed(s="sel", d="EXAMPLE.org"), id="d= in capitals"),
    pytest.param(sign(MESSAGE, rsa_key(), h="from : to\r\n\t:\t subject"), id="white space around the names of h="),
]


@pytest.mark.parametrize("raw", PASSING)
async def test_pass(raw: bytes) -> None:
    result = await judge(raw)
    assert (result.result, result.identifier, result.reason) == (Result.PASS, "example.org", "")


async def test_what_a_result_shows() -> None:
    result = await judge(signed(i="ann@news.example.org"))
    b = dict(result.properties)["header.b"]
    assert len(b) == 8
    assert result.properties == {
        "header.d": "example.org", "header.i": "ann@news.example.org", "header.s": "sel", "header.a": "rsa-sha256",
        "header.b": b,
    }  # fmt: skip
    assert f"b={b}".encode() in signed(i="ann@news.example.org")


async def test_ed25519() -> None:
    [result] = await check(sign(MESSAGE, ed25519_key()), zone(record(ed25519_key())))
    assert (result.result, result.properties["header.a"]) == (Result.PASS, "ed25519-sha256")


async def test_body_in_chunks_of_one_octet() -> None:
    [result] = await check(signed(), zone(), chunk=1)
    assert result.result is Result.PASS


async def test_u_labels_are_asked_for_and_shown_as_a_labels() -> None:
    raw = sign(MESSAGE, rsa_key(), d="bücher.example", s="schlüssel", i="änne@mail.bücher.example")
    name = "xn--schlssel-95a._domainkey.xn--bcher-kva.example"
    [result] = await check(raw, FakeDNS({f"{name} TXT": [record(rsa_key())]}))
    assert (result.result, result.identifier) == (Result.PASS, "xn--bcher-kva.example")
    assert result.properties["header.i"] == "änne@mail.xn--bcher-kva.example"


async def test_the_lowest_field_of_a_name_is_signed_first() -> None:
    """RFC 6376 section 5.4.2; one more field on top is not covered by a single mention, and is by two."""
    raw = b"Comments: low water at 12\r\n" + MESSAGE
    once, twice = sign(raw, rsa_key(), h="from:comments"), sign(raw, rsa_key(), h="from:comments:comments")
    assert (await judge(b"Comments: buy now\r\n" + once)).result is Result.PASS
    assert (await judge(b"Comments: buy now\r\n" + twice)).reason == "header has changed"


async def test_a_field_that_may_stand_once_is_not_doubled_behind_the_signers_back() -> None:
    """RFC 6376 sections 3.8 and 8.15; all of them signed is the signer's own will."""
    [result] = await check(b"Subject: buy now\r\n" + signed(h="from:subject"), zone())
    assert (result.result, result.reason) == (Result.POLICY, "2 subject fields, not all of them signed")
    assert (await judge(b"Subject: buy now\r\n" + signed(h="from:to"))).result is Result.PASS


async def test_two_fields_of_a_name_in_any_letters() -> None:
    raw = sign(b"SUBJECT : first\r\n" + MESSAGE, rsa_key(), h="from:Subject:subject:subject")
    assert (await judge(raw)).result is Result.PASS


async def test_fields_of_eight_bits() -> None:
    raw = sign(b"X-\xe9\xff: \xc3\xa4\xff\r\nSubject:\r\n" + MESSAGE, rsa_key(), h="from:subject:subject:x-nothing")
    assert (await judge(raw)).result is Result.PASS


async def test_a_signature_over_another_signature() -> None:
    """h= may name DKIM-Signature: then it means the ones that were there before, never itself."""
    inner = signed()
    outer = sign(inner, rsa_key(), h="from:dkim-signature:dkim-signature")
    results = await check(outer, zone())
    assert [r.result for r in results] == [Result.PASS, Result.PASS]


# -- the words ---------------------------------------------------------------------------------------------------------

MALFORMED = [
    pytest.param(signed(v="2"), "v= is not 1", id="v=2"),
    pytest.param(signed(v="0.5"), "v= is not 1", id="v=0.5"),
    pytest.param(signed(v=None), "no v=", id="no v="),
    pytest.param(signed(a=None), "no a=", id="no a="),
    pytest.param(signed(d=None), "no d=", id="no d="),
    pytest.param(signed(s=None), "no s=", id="no s="),
    pytest.param(signed(h=None), "no h=", id="no h="),
    pytest.param(signed(bh=None), "no bh=", id="no bh="),
    pytest.param(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=sel; h=from; bh=AAAA\r\n" + MESSAGE, "no b=", id="no b="
    ),
    pytest.param(b"DKIM-Signature:\r\n" + MESSAGE, "no v=", id="nothing"),
    pytest.param(b"DKIM-Signature: " + b"x=1;" * 20_000 + b"\r\n" + MESSAGE, "too long", id="80 KB"),
    pytest.param(sign(MESSAGE, rsa_key(), "v=1; "), "v= given twice", id="v= twice"),
    pytest.param(sign(MESSAGE, rsa_key(), "foo; "), "tag without =", id="tag without ="),
    pytest.param(signed(a="dsa-sha256"), "a= is unknown", id="unknown a="),
    pytest.param(signed(a="rsa-sha512"), "a= is unknown", id="unknown hash"),
    pytest.param(signed(c="foobar"), "c= is unknown", id="unknown c="),
    pytest.param(signed(c="relaxed/"), "c= is unknown", id="c= that ends in a slash"),
    pytest.param(signed(c="/relaxed"), "c= is unknown", id="c= that begins with a slash"),
    pytest.param(signed(c="relaxed / relaxed"), "c= is unknown", id="c= with blanks around the slash"),
    pytest.param(signed(c="relaxed/relaxed/relaxed"), "c= is unknown", id="c= with three names"),
    pytest.param(signed(c=""), "c= is unknown", id="empty c="),
    pytest.param(signed(q="dns/special"), "q= is unknown", id="unknown q="),
    pytest.param(signed(l="-1"), "l= is no number", id="l=-1"),
    pytest.param(signed(l="1_0"), "l= is no number", id="l=1_0"),
    pytest.param(signed(l="1" * 77), "l= is no number", id="l= of 77 digits"),
    pytest.param(signed(t="now"), "t= is no number", id="t=now"),
    pytest.param(signed(t=""), "t= is no number", id="empty t="),
    pytest.param(signed(x="1" * 13), "x= is no number", id="x= of 13 digits"),
    pytest.param(signed(t="5", x="5"), "x= is not after t=", id="x= equal to t="),
    pytest.param(signed(h="from::to"), "h= is no list of field names", id="empty name in h="),
    pytest.param(signed(h=""), "h= is no list of field names", id="empty h="),
    pytest.param(signed(h="from:to,subject x"), "h= is no list of field names", id="blank in a name of h="),
    pytest.param(signed(d="org"), "d= is a single label", id="d= is a top-level domain"),
    pytest.param(signed(d="example.org."), "d= is no domain name", id="d= with a final dot"),
    pytest.param(signed(d="legit'a.attack.example"), "d= is no domain name", id="quote in d="),
    pytest.param(signed(d="legit.example(.attack.example"), "d= is no domain name", id="parenthesis in d="),
    pytest.param(signed(d="a\u202eb.example"), "d= is no domain name", id="text direction override in d="),
    pytest.param(signed(d=""), "d= is no domain name", id="empty d="),
    pytest.param(signed(s="a b"), "s= is no selector", id="blank in s="),
    pytest.param(signed(s=""), "s= is no selector", id="empty s="),
    pytest.param(signed(s="selector._domainkey.attack.example\x00.any"), "control character", id="NUL in s="),
    pytest.param(signed(i="ann"), "i= has no @", id="i= without @"),
    pytest.param(signed(i="ann@"), "i= is no domain name", id="i= without domain"),
    pytest.param(signed(i="ann@example.com"), "i= is not within d=", id="i= elsewhere"),
    pytest.param(signed(i="ann@badexample.org"), "i= is not within d=", id="i= that only ends like d="),
    pytest.param(signed(i="ann@org"), "i= is not within d=", id="i= above d="),
    pytest.param(signed(i="a=0D=0Ab@example.org"), "i= has control characters", id="CR LF quoted in i="),
    pytest.param(signed(i="a=@example.org"), "i= is not quoted-printable", id="bad quoting in i="),
    pytest.param(signed(i="@example.org="), "i= is not quoted-printable", id="cut off quoting in i="),
    pytest.param(signed(bh="!"), "bh= is not base64", id="bh= is not base64"),
    pytest.param(signed(bh=""), "bh= is empty", id="empty bh="),
    pytest.param(sign(MESSAGE, rsa_key(), b="A*B="), "b= is not base64", id="b= with garbage"),
    pytest.param(sign(MESSAGE, rsa_key(), b=""), "b= is empty", id="empty b="),
]


@pytest.mark.parametrize(("raw", "problem"), MALFORMED)
async def test_neutral_when_the_field_is_malformed(raw: bytes, problem: str) -> None:
    dns = zone()
    [result] = await check(raw, dns)
    assert (result.result, result.reason) == (Result.NEUTRAL, f"signature is malformed: {problem}")
    assert dns.asked == []


async def test_a_malformed_signature_still_shows_whose_it_is() -> None:
    result = await judge(signed(v="9", d="Example.ORG"))
    assert result.identifier == "example.org"
    assert set(result.properties) == {"header.d", "header.i", "header.s", "header.a", "header.b"}


REFUSED_KEYS = [
    pytest.param("v=DKIM1; k=rsa; p=", {}, "key is revoked", id="revoked"),
    pytest.param("v=DKIM2; p=x", {}, "key record is not of version DKIM1", id="another version"),
    pytest.param("", {}, "key record has no p=", id="empty record"),
    pytest.param(record(ed25519_key()), {}, "key is of another type than a=", id="Ed25519 key for rsa-sha256"),
    pytest.param(record(rsa_key()), {"a": "ed25519-sha256"}, "key is of another type than a=", id="RSA key for ed25519"),
    pytest.param(f"v=DKIM1; h=sha1; p={P}", {}, "key does not allow sha256", id="h=sha1"),
    pytest.param(f"v=DKIM1; s=tlsrpt; p={P}", {}, "key is not for email", id="s=tlsrpt"),
    pytest.param(f"v=DKIM1; t=s; p={P}", {"i": "@a.example.org"}, "key is not for subdomains in i=", id="t=s"),
    pytest.param(f"v=DKIM1; t=s; p={P}", {"a": "rsa-sha1", "i": "@a.example.org"}, "key is not for subdomains in i=", id="t=s and rsa-sha1"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "tags", "problem"), REFUSED_KEYS)
async def test_permerror_when_the_key_is_not_for_this(key: str, tags: dict[str, str], problem: str) -> None:
    result = await judge(signed(**tags), key)
    assert (result.result, result.reason) == (Result.PERMERROR, problem)


async def test_permerror_when_there_is_no_key() -> None:
    for dns in (FakeDNS(), FakeDNS({f"{KEY} A": ["192.0.2.1"]})):
        [result] = await check(signed(), dns)
        assert (result.result, result.reason) == (Result.PERMERROR, f"no key at {KEY}")


async def test_a_strict_key_takes_its_own_domain() -> None:
    assert (await judge(signed(i="ann@Example.org"), f"v=DKIM1; t=s; p={P}")).result is Result.PASS


POLICY = [
    pytest.param(signed(a="rsa-sha1"), f"p={P}", "rsa-sha1 is not accepted", id="rsa-sha1"),
    pytest.param(signed(a="rsa-sha1"), f"h=sha1; p={P}", "rsa-sha1 is not accepted", id="rsa-sha1 with a key for sha1"),
    pytest.param(signed(), f"p={P512}", "key of 512 bits is too small", id="512-bit key"),
    pytest.param(signed(x=str(NOW - 301)), f"p={P}", "signature has expired", id="expired"),
    pytest.param(signed(t=str(NOW + 301)), f"p={P}", "signature was made in the future", id="made in the future"),
    pytest.param(signed(h="to:subject"), f"p={P}", "From is not signed", id="From not signed"),
    pytest.param(signed(l="5"), f"p={P}", "30 octets of the body are not signed (l=)", id="l=5"),
    pytest.param(signed(l="0"), f"p={P}", "35 octets of the body are not signed (l=)", id="l=0"),
]


@pytest.mark.parametrize(("raw", "key", "reason"), POLICY)
async def test_policy_when_a_rule_forbids(raw: bytes, key: str, reason: str) -> None:
    result = await judge(raw, key)
    assert (result.result, result.reason) == (Result.POLICY, reason)


async def test_text_added_after_what_l_covers() -> None:
    raw = signed(l=str(len(b"Hello Bob,\r\n\r\nhigh water is at 6.\r\n")))
    assert (await judge(raw)).result is Result.PASS
    assert (await judge(raw + b"Pay here\r\n")).result is Result.POLICY
    assert (await judge(raw.replace(b"Hello", b"HELLO"))).reason == "body has changed"


async def test_l_beyond_the_body() -> None:
    assert (await judge(signed(l="9999"))).reason == "body has changed"


async def test_min_key_bits_is_an_option() -> None:
    [result] = await check(signed(), zone(), options=Dkim(min_key_bits=4096))
    assert (result.result, result.reason) == (Result.POLICY, "key of 2048 bits is too small")


async def test_clock_skew_is_an_option() -> None:
    [result] = await check(signed(x=str(NOW - 1)), zone(), options=Dkim(clock_skew=Seconds(0.0)))
    assert result.reason == "signature has expired"


@pytest.mark.parametrize("what", ["body", "header section"])
async def test_a_message_not_examined_whole_neither_passes_nor_fails(what: str) -> None:
    dns = zone()
    [result] = await check(signed(), dns, oversized=what)
    assert (result.result, result.reason) == (Result.POLICY, "message is too large to be checked")
    assert dns.asked == []


async def test_temperror_when_the_dns_fails() -> None:
    for raw in (signed(), signed(a="rsa-sha1"), signed(l="0")):
        [result] = await check(raw, FakeDNS(fail=[f"{KEY} TXT"]))
        assert (result.result, result.reason) == (Result.TEMPERROR, f"no answer from the DNS about {KEY}")


async def test_fail_says_what_has_changed() -> None:
    for raw in (signed().replace(b"high water", b"high tide"), signed() + b"PS\r\n", signed(bh="AAAA")):
        result = await judge(raw)
        assert (result.result, result.reason) == (Result.FAIL, "body has changed")
    for change in ((b"for May", b"for June"), (b"To: bob", b"To: eve"), (b"; s=sel", b"; t=1; s=sel")):
        result = await judge(signed().replace(*change))
        assert (result.result, result.reason) == (Result.FAIL, "header has changed")


async def test_a_signature_by_another_key() -> None:
    result = await judge(signed(), record(rsa_key(1024)))
    assert (result.result, result.reason) == (Result.FAIL, "header has changed")


async def test_test_mode_is_mentioned() -> None:
    key = f"v=DKIM1; t=y; p={P}"
    result = await judge(signed(), key)
    assert (result.result, result.reason) == (Result.PASS, "key is in test mode")
    assert (await judge(signed(bh="AAAA"), key)).reason == "body has changed; key is in test mode"


# -- several keys, several signatures ----------------------------------------------------------------------------------


async def test_each_of_several_records_is_tried() -> None:
    good = record(rsa_key())
    for others in ([record(rsa_key(1024))], ["v=spf1 -all", "v=DKIM1; p="], [""] * 4):
        assert (await judge(signed(), *others, good)).result is Result.PASS
    assert (await judge(signed(), *["v=DKIM1; p="] * 5, good)).reason == "key is revoked"


async def test_no_signature() -> None:
    assert await check(MESSAGE, zone()) == [AuthResult("dkim", Result.NONE)]


async def test_one_bad_signature_does_not_harm_a_good_one() -> None:
    raw = b"DKIM-Signature: ;\x00;=\r\n" + signed().replace(b"DKIM-Signature:", b"dkim-signature :")
    raw = sign(raw, rsa_key(), s="gone")
    results = await check(raw, zone())
    assert [r.result for r in results] == [Result.PERMERROR, Result.NEUTRAL, Result.PASS]


async def test_signatures_beyond_the_limit_are_counted() -> None:
    raw = b"DKIM-Signature: v=1\r\n" * 100 + signed()
    results = await check(raw, zone(), options=Dkim(max_signatures=3))
    assert [r.result for r in results] == [Result.NEUTRAL] * 3 + [Result.POLICY]
    assert results[-1].reason == "98 more signatures were not checked"
    assert parse_signatures(Message(split(raw)[0]), OPTIONS)[-1].position == 9


async def test_the_shown_part_of_b_tells_signatures_apart() -> None:
    def shown(*b: str) -> list[str]:
        raw = MESSAGE
        for text in reversed(b):
            raw = sign(raw, rsa_key(), b=text)
        return [r.properties["header.b"] for r in asyncio.run(check(raw, zone()))]

    assert await asyncio.to_thread(shown, "ABCDEFGH1234", "ABCDEFGH1244") == ["ABCDEFGH123", "ABCDEFGH124"]
    assert await asyncio.to_thread(shown, "ABCDEFGHIJKL", "ABCDEFGHIJKL") == ["ABCDEFGH", "ABCDEFGH"]
    assert await asyncio.to_thread(shown, "A" * 400, "A" * 404) == ["A" * 64, "A" * 64]


async def test_a_key_is_asked_for_once_and_all_at_the_same_time() -> None:
    class SlowDNS(FakeDNS):
        waiting = 0
        most = 0

        async def query(self, name: str, rdtype: str) -> Answer:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await asyncio.sleep(0.01)
            self.waiting -= 1
            return await super().query(name, rdtype)

    raw = MESSAGE
    for selector in ("sel", "a", "sel", "b", "c", "sel"):
        raw = sign(raw, rsa_key(), s=selector)
    dns = SlowDNS({f"{KEY} TXT": [record(rsa_key())]})
    results = await check(raw, dns)
    assert [r.result.value for r in results] == ["pass", "permerror", "permerror", "pass", "permerror", "pass"]
    assert dns.most == 4
    assert len(dns.asked) == 4


async def test_a_known_answer_is_not_asked_for() -> None:
    class WarmDNS(FakeDNS):
        def known(self, name: str, rdtype: str) -> Answer | None:
            return Answer((record(rsa_key()).encode(),), exists=True)

    dns = WarmDNS()
    [result] = await check(signed(), dns)
    assert (result.result, dns.asked) == (Result.PASS, [])


async def test_an_unexpected_exception_costs_one_signature() -> None:
    class BrokenDNS(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            if name.startswith("broken"):
                raise RuntimeError(name)
            return await super().query(name, rdtype)

    fields, body = split(sign(signed(), rsa_key(), s="broken"))
    signatures = parse_signatures(Message(fields), OPTIONS)
    hashes = BodyHashes([BodyHashKey("relaxed", None)])
    hashes.update(body)
    told: list[str] = []
    dns = BrokenDNS({f"{KEY} TXT": [record(rsa_key())]})
    for known, expected in ((hashes.finish(), ["temperror", "pass"]), ({}, ["temperror", "temperror"])):
        message = Message(fields, body_hashes=known)
        results = await verify(message, signatures, dns, NOW, OPTIONS, told.append)
        assert [r.result.value for r in results] == expected
    assert told == ["DKIM key query failed", "DKIM key query failed", "DKIM verification failed"]


# -- no change goes unnoticed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
async def test_no_octet_can_be_changed(form: str) -> None:
    """Every octet of what is signed, one after the other, replaced by another one that is not white space."""
    raw = sign(MESSAGE, ed25519_key(), c=form)
    dns = zone(record(ed25519_key()))
    start, end = raw.index(b"DKIM-Signature"), len(raw.rstrip(b"\r\n"))
    for at in range(start, end):
        if raw[at] in b" \t\r\n":
            continue
        if form.startswith("relaxed") and raw[at : at + 1].swapcase() != raw[at : at + 1]:
            new = raw[at] ^ 0x01  # the case of a field name may change
        else:
            new = raw[at] ^ 0x20
        [*_, result] = await check(raw[:at] + bytes([new]) + raw[at + 1 :], dns)
        assert result.result is not Result.PASS, (at, raw[:at][-30:], new)


@pytest.mark.parametrize("form", ["simple/simple", "relaxed/relaxed"])
async def test_no_octet_can_be_taken_away_or_added(form: str) -> None:
    raw = sign(MESSAGE, ed25519_key(), c=form)
    dns = zone(record(ed25519_key()))
    for at in range(raw.index(b"From:"), len(raw.rstrip(b"\r\n"))):
        if raw[at] not in b" \t\r\n":
            for changed in (raw[:at] + raw[at + 1 :], raw[:at] + b"x" + raw[at:]):
                [*_, result] = await check(changed, dns)
                assert result.result is not Result.PASS, (at, changed[:at][-30:])


async def test_relaxed_forgives_white_space_and_simple_does_not() -> None:
    changes: list[Callable[[bytes], bytes]] = [
        lambda m: m.replace(b"Tide  table", b"Tide table"),
        lambda m: m.replace(b"Subject:", b"SUBJECT :"),
        lambda m: m.replace(b"table\r\n\tfor", b"table for"),
        lambda m: m.replace(b"Hello  Bob,", b"Hello\tBob, "),
    ]
    for change in changes:
        assert (await judge(change(signed(c="relaxed/relaxed")))).result is Result.PASS
        assert (await judge(change(signed(c="simple/simple")))).result is Result.FAIL
    for form in ("relaxed/relaxed", "simple/simple"):
        assert (await judge(signed(c=form) + b"\r\n\r\n")).result is Result.PASS


# -- hostile -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    pytest.param(sign(MESSAGE, rsa_key(), b="\r\n ".join(["AAAA"] * 4000)), "fail", id="b= of 4,000 folds"),
    pytest.param(signed(h=":".join(["from"] * 5000)), "pass", id="h= of 5,000 times From"),
    pytest.param(
        b"X: " + b" " * 200_000 + b"\r\n" + signed(h="from:x"), "fail", id="200 KB of spaces in a signed field"
    ),
    pytest.param(signed() + b" " * 80_000 + b"x\r\n", "fail", id="80 KB of spaces in the body"),
    pytest.param(b"X: y\r\n" * 20_000 + signed(h="from:" + ":".join(["x"] * 9000)), "fail", id="20,000 fields"),
]


@pytest.mark.parametrize(("raw", "expected"), HOSTILE)
async def test_hostile_messages_cost_linear_time(raw: bytes, expected: str) -> None:
    """Each of these costs a quadratic verifier seconds or minutes."""
    assert (await judge(raw)).result.value == expected


TAGS = st.sampled_from([b"v=1", b"a=rsa-sha256", b"d=example.org", b"s=sel", b"h=from", b"bh=AAAA", b"b=AAAA", b"t=1", b"l=3", b"c=relaxed", b"i=@example.org", b"q=dns/txt", b"x=9", b"z="])  # fmt: skip
NOISE = st.one_of(
    TAGS, st.binary(max_size=12), st.sampled_from([b";", b"=", b"\r\n ", b"\r\n", b"\x00", b"=0", b"@", b":"])
)


@settings(max_examples=500, deadline=None)
@given(st.lists(NOISE, max_size=20).map(b"; ".join), st.lists(NOISE, max_size=12).map(b"; ".join))
def test_no_field_and_no_record_raises_anything(value: bytes, key: bytes) -> None:
    """`check` asserts that nothing unexpected was raised; what is shown has no control characters."""
    fields = (HeaderField(b"DKIM-Signature", b" " + value), HeaderField(b"From", b" a@example.org"))
    raw = b"".join(field.raw for field in fields)
    dns = FakeDNS({f"{KEY} TXT": [key]})

    async def run() -> list[AuthResult]:
        message = Message(fields)
        signatures = parse_signatures(message, OPTIONS)
        hashes = BodyHashes({s.body_hash_key for s in signatures if s.body_hash_key})
        told: list[str] = []
        results = await verify(Message(fields, body_hashes=hashes.finish()), signatures, dns, NOW, OPTIONS, told.append)
        assert not told
        return results

    [result] = asyncio.run(run())
    assert result.reason != "internal error", raw
    assert result.result is not Result.PASS
    assert all(text.isprintable() for text in (result.reason, result.identifier, *result.properties.values()))
