"""Domains that look like those that are guarded."""

import pytest

from authmilter.addresses import to_ascii_domain
from authmilter.checks.brands import MOST_TYPED, Brands, _Guarded, _recipient, brands
from authmilter.confusables import is_disguised
from authmilter.evidence import AuthResult, Result
from authmilter.model import Transaction
from tests.checks.mails import mail
from tests.checks.tools import computed, tools
from tests.test_mime import message

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
        ("paypalsecure.test", ("lookalike_name", "paypal.com")),
        ("paypa1.com.evil.test", ("lookalike_name", "paypal.com")),
        ("mypaypal.test", ("lookalike_name", "paypal.com")),
        ("paypalace.test", ("", "")),
        ("dhlservice.test", ("", "")),
        ("3xample.org", ("lookalike_domain", "example.org")),
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


LINKED = "[brands]\ndomains = paypal.com, paypal.me\nexempt = paypal-gifts.test\n[identity]\nlocal_domains = corp-one.example\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("<a href='https://www.paypal.com/x'>paypal.com</a>", set(), id="the brand itself"),
        pytest.param("<a href='https://paypal.me/x'>paypal.com</a>", set(), id="another domain of the brand"),
        pytest.param("<a href='https://shop.test'>paypal.com</a>", {"brand_link"}, id="to another place than it says"),
        pytest.param(
            "<a href='https://shop.test/?u=https://paypal.com'>paypal.com</a>", set(), id="a redirector to it"
        ),
        pytest.param("<a href='https://paypa1.com'>x</a>", {"lookalike_link"}, id="a look-alike"),
        pytest.param(
            "<a href='https://r.test/?u=https://paypa1.com'>x</a>", {"lookalike_link"}, id="one behind a redirector"
        ),
        pytest.param("<a href='https://c0rp-one.example'>x</a>", {"lookalike_link"}, id="a look-alike of ours"),
        pytest.param("<a href='https://paypal.com.evil.test'>x</a>", {"brand_in_link"}, id="the name below another"),
        pytest.param("<a href='https://paypal-secure.test'>x</a>", {"brand_in_link"}, id="the name with another"),
        pytest.param("<a href='https://paypal-gifts.test'>x</a>", set(), id="one that is exempt"),
        pytest.param("<a href='https://corp-one.service.test'>x</a>", set(), id="our name at a service that we use"),
        pytest.param("paypal and corp-one, see https://shop.test", set(), id="names in the text"),
    ],
)
def test_links(body: str, expected: set[str]) -> None:
    tx = Transaction(message=message(f"From: a@b.test\nContent-Type: text/html\n\n{body}".encode()))
    given = tools("brands", config=LINKED)
    assert {finding.symbol for finding in computed(brands, tx, given)} == expected
    tx = tx._replace(results=(AuthResult("dmarc", Result.PASS, "b.test"),))
    assert {finding.symbol for finding in computed(brands, tx, given)} == expected


@pytest.mark.parametrize(
    ("domain", "result", "expected"),
    [
        ("paypal.com", Result.PASS, []),
        ("paypal.com", Result.FAIL, ["lookalike_name", "brand_link", "brand_in_link"]),
        ("corp-one.example", Result.PASS, ["lookalike_name", "brand_link", "brand_in_link"]),
    ],
)
def test_what_a_brand_itself_sends_may_have_others_in_it_that_look_so(
    domain: str, result: Result, expected: list[str]
) -> None:
    raw = (
        b"From: a@paypal.com\nReply-To: b@paypal-service.test\nContent-Type: text/html\n\n"
        b"<a href='https://paypal.esp.test'>www.paypal.com</a>"
    )
    tx = Transaction(message=message(raw), results=(AuthResult("dmarc", result, domain),))
    found = computed(brands, tx, tools("brands", config=LINKED))
    assert [finding.symbol for finding in found] == expected


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


def test_what_recipients_are_compared_with_is_bounded() -> None:
    for number in range(400):
        tx = mail(f"From: a@sender{number}.test", sender=f"a@sender{number}.test", to=f"b@recipient{number}.test")
        assert computed(brands, tx, tools("brands")) == []
    assert _recipient.cache_info().currsize == 256
    assert not any(
        isinstance(value, dict | list) and len(value) > 20 for value in vars(_recipient("recipient399.test")).values()
    )
