"""What we say of messages that others signed, beyond pass or not; tests/suites/dkim.py runs all of them."""

import pytest

from authmilter.evidence import Result
from tests.auth.mail import check, crlf, load_json, record, rsa_key
from tests.shared import shared
from tests.suites.dkim import with_key_record, zone

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


async def test_the_example_of_rfc_8463() -> None:
    results = await check(RFC8463, zone(RFC8463_KEYS))
    assert [r.result for r in results] == [Result.PASS, Result.PASS]
    results = await check(RFC8463.replace(b"hungry", b"thirsty"), zone(RFC8463_KEYS))
    assert [(r.result, r.reason) for r in results] == [(Result.FAIL, "body has changed")] * 2


# -- Mail::DKIM --------------------------------------------------------------------------------------------------------

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


BROKEN_KEYS = {
    "implicit_k": (Result.PASS, ""),
    "bad_version_syntax": (Result.PERMERROR, "key record is not of version DKIM1"),
    "unknown_k": (Result.PERMERROR, "key type is unknown"),
    "truncated_p": (Result.PERMERROR, "key can't be read"),
    "tlsrpt_only": (Result.PERMERROR, "key is not for email"),
}


@pytest.mark.parametrize("name", BROKEN_KEYS)
async def test_the_broken_keys_of_dkimpy(name: str) -> None:
    result = await with_key_record(name)
    assert (result.result, result.reason) == BROKEN_KEYS[name]


# -- our own check -----------------------------------------------------------------------------------------------------


async def test_a_key_of_our_own_is_not_mistaken_for_theirs() -> None:
    """The table of keys decides: with another key at each name, nothing of the above passes."""
    keys = dict.fromkeys(RFC8463_KEYS, record(rsa_key()))
    results = await check(RFC8463, zone(keys))
    assert [r.result for r in results] == [Result.PERMERROR, Result.FAIL]
