"""Domains that look like those that are guarded."""

import pytest

from authmilter.addresses import to_ascii_domain
from authmilter.checks.brands import MOST_TYPED, Brands, _Guarded, brands
from authmilter.confusables import is_disguised
from authmilter.model import Transaction
from tests.checks.mails import mail
from tests.checks.tools import computed, tools

GUARDED = _Guarded(("example.org", ".uni.test", "modern.example"), ("paypal.com", "paypal.co.uk", "dhl.com"))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.org", ("", "")),
        ("mail.example.org", ("", "")),
        ("examp1e.org", ("lookalike_domain", "example.org")),
        ("examp1e.net", ("lookalike_domain", "example.org")),
        ("exаmple.org", ("lookalike_domain", "example.org")),
        ("éxample.org", ("lookalike_domain", "example.org")),
        ("www.paypai.com", ("lookalike_domain", "paypal.com")),
        ("paypa1.co.uk", ("lookalike_domain", "paypal.com")),
        ("modem.example", ("lookalike_domain", "modern.example")),
        ("ехаmple.org", ("lookalike_domain", "example.org")),
        ("exmaple.org", ("lookalike_typo", "example.org")),
        ("exampl.org", ("lookalike_typo", "example.org")),
        ("examples.org", ("lookalike_typo", "example.org")),
        ("exomple.org", ("lookalike_typo", "example.org")),
        ("exmaple.com", ("", "")),
        ("exmapel.org", ("", "")),
        ("example.com", ("lookalike_name", "example.org")),
        ("example-support.com", ("lookalike_name", "example.org")),
        ("example.login.test", ("lookalike_name", "example.org")),
        ("counterexample.org", ("", "")),
        ("paypal.secure.test", ("lookalike_name", "paypal.com")),
        ("unl.test", ("", "")),
        ("uni.example", ("", "")),
        ("dh1.com", ("", "")),
        ("xn--a.org", ("", "")),
        ("unrelated.net", ("", "")),
        ("localhost", ("", "")),
    ],
)
def test_likeness(domain: str, expected: tuple[str, str]) -> None:
    assert GUARDED.likeness(to_ascii_domain(domain)) == expected


@pytest.mark.parametrize(
    ("domain", "disguised"),
    [
        ("example.org", False),
        ("müller.example", False),
        ("exаmple.org", True),
        ("аррӏе.com", True),
        ("почта.com", False),
        ("пример.рф", False),
        ("xn--a.com", False),
        ("mail.аррӏе.com", True),
    ],
)
def test_disguised_domains(domain: str, disguised: bool) -> None:
    assert is_disguised(to_ascii_domain(domain)) is disguised


CONFIG = "[brands]\ndomains = paypal.com\nexempt = paypai.com\n[identity]\nlocal_domains = corp-one.example\n"


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(mail(), [], id="usual mail"),
        pytest.param(mail("From: a@paypa1.com", sender="a@paypa1.com"), ["lookalike_domain"], id="one symbol once"),
        pytest.param(mail("Reply-To: a@paypa1.com"), ["lookalike_domain"], id="Reply-To"),
        pytest.param(mail(sender="a@paypa1.com"), ["lookalike_domain"], id="MAIL FROM"),
        pytest.param(mail("From: a@paypai.com"), [], id="one that is exempt"),
        pytest.param(mail("From: a@c0rp-one.example"), ["lookalike_domain"], id="one of ours"),
        pytest.param(mail("From: a@company1.test", to="b@companyl.test"), ["lookalike_domain"], id="the recipient's"),
        pytest.param(mail("From: a@company.example", to="b@company.test"), [], id="the recipient's name elsewhere"),
        pytest.param(mail("From: PayPal <a@evil.test>"), ["brand_in_name"], id="a brand as name"),
        pytest.param(mail("From: РаyРаl Service <a@evil.test>"), ["brand_in_name"], id="one in Cyrillic"),
        pytest.param(mail("From: PayPal <a@mail.paypal.com>"), [], id="the brand itself"),
        pytest.param(mail("From: PayPals <a@evil.test>"), [], id="another word"),
        pytest.param(mail("From: Corp <a@evil.test>"), [], id="our name: people have such names"),
        pytest.param(mail(f"From: a@{to_ascii_domain('bаnk.test')}"), ["disguised_domain"], id="two scripts"),
        pytest.param(mail("From: a@example.org", sender="", without="Message-ID"), [], id="the null reverse-path"),
        pytest.param(mail("From: nobody"), [], id="no author"),
    ],
)  # fmt: skip
def test_brands(tx: Transaction, expected: list[str]) -> None:
    found = computed(brands, tx, tools("brands", config=CONFIG))
    assert list(dict.fromkeys(finding.symbol for finding in found)) == expected


def test_without_configuration_recipients_are_guarded_all_the_same() -> None:
    tx = mail("From: a@c0mpany.test", to="b@company.test")
    found = computed(brands, tx, tools("brands"))
    assert [(f.symbol, f.detail) for f in found] == [("lookalike_domain", "c0mpany.test looks like company.test")]


def test_another_configuration_is_taken_at_once() -> None:
    tx = mail("From: a@paypa1.com", sender="a@paypa1.com")
    assert computed(brands, tx, tools("brands", config=CONFIG)) != []
    assert computed(brands, tx, tools("brands")) == []
    assert computed(brands, tx, tools("brands", config=CONFIG)) != []


def test_many_domains_are_guarded_and_their_misspellings_up_to_a_limit() -> None:
    many = _Guarded(tuple(f"company{number:05}.test" for number in range(MOST_TYPED + 1)))
    assert len(set(many.typed.values())) == MOST_TYPED
    assert many.likeness("c0mpany01000.test")[0] == "lookalike_domain"


def test_there_is_no_list_of_brands_by_default() -> None:
    assert Brands().domains == ()
