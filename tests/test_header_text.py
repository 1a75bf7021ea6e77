"""Header fields as a reader is shown them."""

import pytest

from authmilter.header_text import (
    MAX_VALUE,
    display_name,
    excerpt,
    has_needless_base64,
    is_list,
    is_via_list,
    reply_to,
    site,
    text,
    value,
)
from tests.checks.mails import mail


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        pytest.param("Subject: Tuesday", "Tuesday", id="plain"),
        pytest.param("Subject:\n  on  Tuesday\n\tat nine", "on  Tuesday at nine", id="folded"),
        pytest.param("Subject: =?utf-8?B?w6RiYw==?= =?iso-8859-1?Q?=FC?=", "äbcü", id="two encoded words"),
        pytest.param("Subject: über", "über", id="raw UTF-8"),
        pytest.param(b"Subject: \xfcber", "über", id="no UTF-8"),
        pytest.param("Subject: =?nonsense?B?w6Q=?= x", "ä x", id="a charset that nobody knows"),
        pytest.param("Subject: =?base64_codec?Q?YWJj?=", "YWJj", id="a codec of Python that is no charset"),
        pytest.param("Subject: =?utf-8?Q?=F0=9F?=\n =?utf-8?Q?=98=80?=", "😀", id="a character in two words"),
        pytest.param("Subject: =?utf-8?B?4g==?= =?utf-8?B?nJM=?=", "✓", id="a character in two words of base64"),
        pytest.param("Subject: =?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c", id="words with a text between them"),
        pytest.param("Subject: =?gb2312?B?xOO6ww==?=", "你好", id="a charset of two octets"),
        pytest.param("Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本", id="a charset with states"),
        pytest.param("Subject: =?utf-8?Q?100=", "=?utf-8?Q?100=", id="a word that does not end"),
        pytest.param("Subject: =?utf-8?B?!!!?=x", "x", id="base64 of nothing"),
        pytest.param("Subject: a\nSubject: b", "a", id="the first of two"),
        pytest.param("Subject:", "", id="empty"),
    ],
)
def test_text(header: str | bytes, shown: str) -> None:
    message = mail(header).message
    assert text(message, b"subject") == shown
    assert text(message, b"subject") is text(message, b"subject")


def test_a_field_that_is_not_there() -> None:
    assert value(mail().message, b"x-nothing") == b""
    assert text(mail().message, b"x-nothing") == ""


def test_a_long_field_is_cut() -> None:
    assert len(value(mail("Subject: " + "x" * 100_000).message, b"subject")) <= MAX_VALUE


@pytest.mark.parametrize(
    ("from_", "name"),
    [
        ("Alice <alice@example.org>", "Alice"),
        ('"Alice A." <alice@example.org>', "Alice A."),
        ("<alice@example.org>", ""),
        ("alice@example.org", ""),
        ("alice@example.org (Alice)", "Alice"),
        ("=?utf-8?Q?=C3=84lice?= <alice@example.org>", "Älice"),
        ('"bob@example.net" <alice@example.org>', "bob@example.net"),
        ('"alice@example.org" <alice@example.org>', "alice@example.org"),
        ("Alice", "Alice"),
        ('"  Alice \t A.  " <alice@example.org>', "Alice A."),
        ("", ""),
    ],
)
def test_display_name(from_: str, name: str) -> None:
    message = mail(f"From: {from_}").message
    assert display_name(message) == name
    assert display_name(message) == name


@pytest.mark.parametrize(
    ("domain", "registered"),
    [
        ("example.org", "example.org"),
        ("a.b.example.org", "example.org"),
        ("www.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("x.fb.me", "fb.me"),
        ("mail.go.jp.example.com", "example.com"),
        ("www.soumu.go.jp", "soumu.go.jp"),
        ("corp.onmicrosoft.com", "corp.onmicrosoft.com"),
        ("onmicrosoft.com", "onmicrosoft.com"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_site(domain: str, registered: str) -> None:
    assert site(domain) == registered


def test_reply_to() -> None:
    assert reply_to(mail("Reply-To: a@b.example, c@d.example").message).domains == ("b.example", "d.example")
    assert reply_to(mail().message).mailboxes == ()


@pytest.mark.parametrize(("header", "expected"), [("", False), ("List-Id: <a.b>", True), ("List-Post: NO", True)])
def test_is_list(header: str, expected: bool) -> None:
    assert is_list(mail(header).message) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("From: Alice via Talk <talk@lists.test>\nList-Id: <talk.lists.test>", True),
        ("From: Alice via Talk <talk@lists.test>", False),
        ("From: Olivia <olivia@example.org>\nList-Id: <talk.lists.test>", False),
    ],
)
def test_is_via_list(header: str, expected: bool) -> None:
    assert is_via_list(mail(header).message) is expected


@pytest.mark.parametrize(
    ("subject", "expected"),
    [("=?utf-8?B?YWJj?=", True), ("=?utf-8?Q?abc?=", False), ("=?utf-8?B?w6Q=?=", False), ("abc", False)],
)
def test_needless_base64(subject: str, expected: bool) -> None:
    message = mail(f"Subject: {subject}").message
    assert has_needless_base64(message, b"subject", text(message, b"subject")) is expected


def test_an_excerpt_is_short_and_shows_all_octets() -> None:
    assert excerpt(b"x" * 500) == "x" * 60
    assert excerpt(b"a\xffb") == "a\\xffb"
