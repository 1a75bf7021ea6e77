"""The checks of the header section: what each notices, and what it lets pass."""

import base64
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.check import Check, Tools, all_checks
from authmilter.checks.bulk_mail import bulk_mail
from authmilter.checks.forged_mailer import forged_mailer
from authmilter.checks.from_display import from_display
from authmilter.checks.header_dates import header_dates
from authmilter.checks.header_form import header_form
from authmilter.checks.in_our_name import in_our_name
from authmilter.checks.other_addresses import other_addresses
from authmilter.checks.people import people
from authmilter.checks.received_lines import received_lines
from authmilter.checks.subject_tricks import subject_tricks
from authmilter.checks.unicode_tricks import unicode_tricks
from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Envelope, HeaderField, Message, Transaction
from authmilter.verdict import Action
from tests.checks.mails import USUAL, mail
from tests.checks.tools import computed, is_wanted, tools
from tests.checks.verdicts import mailbox, verdict

NAMES = (
    "header_form", "header_dates", "from_display", "other_addresses", "unicode_tricks", "subject_tricks", "bulk_mail",
    "forged_mailer", "received_lines", "brands", "in_our_name", "people",
)  # fmt: skip
CHECKS = [check for check in all_checks() if check.name in NAMES]

OURS = "[identity]\nlocal_domains = corp.example\n"
LIST = "List-Id: <talk.lists.test>\nList-Post: <mailto:talk@lists.test>\n"

Run = Callable[[Transaction, Tools], Iterator[Finding]]


def symbols(check: Run, tx: Transaction, config: str = "") -> list[str]:
    return [finding.symbol for finding in computed(check, tx, tools(config=config))]


def word(text: str, charset: str = "utf-8") -> str:
    """The text as an encoded word in base64."""
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


def international(header: str | bytes) -> Transaction:
    """A message for which the client asked for SMTPUTF8."""
    tx = mail(header)
    return tx._replace(envelope=tx.envelope._replace(smtputf8=True))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_usual_message_has_no_finding(check: Check) -> None:
    assert list(check.run(mail(), tools(check.name, config=OURS))) == []  # type: ignore[arg-type]


def test_all_of_them_are_there() -> None:
    assert len(CHECKS) == len(NAMES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_no_symbol_marks_mail_by_itself(check: Check) -> None:
    for symbol, weight in check.scores.items():
        assert not isinstance(weight, Action), symbol
        assert 0 <= weight <= 2.5, symbol
        tx = mail()
        assert verdict(tx, check.stage, [Finding(symbol)]).action is Action.ACCEPT


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(mail(without="Message-ID"), ["message_id_missing"], id="no Message-ID"),
        pytest.param(mail("Message-ID: 12@example.org"), ["message_id_malformed"], id="a Message-ID without brackets"),
        pytest.param(mail("Message-ID: <12>"), ["message_id_malformed"], id="a Message-ID without a domain"),
        pytest.param(mail("Message-ID:\n <12@[192.0.2.1]>"), [], id="a folded Message-ID with a literal"),
        pytest.param(mail("Message-ID: <1$a=b/c@host>"), [], id="a Message-ID of a host without domain"),
        pytest.param(mail("Message-ID: <1@a.b> (added by mx@a.b)"), [], id="a comment behind the Message-ID"),
        pytest.param(mail("Message-ID: <1@a@b>"), ["message_id_malformed"], id="two at signs in the Message-ID"),
        pytest.param(mail("Message-ID: <1@a> <2@a>"), ["message_id_malformed"], id="two in one Message-ID"),
        pytest.param(mail("Message-ID:"), ["message_id_malformed"], id="an empty Message-ID"),
        pytest.param(mail(without="To"), ["to_missing"], id="no recipient named"),
        pytest.param(mail("Cc: bob@example.net", without="To"), [], id="Cc alone"),
        pytest.param(mail("To: undisclosed-recipients:;"), ["undisclosed_recipients"], id="an empty group"),
        pytest.param(mail("To: Friends: bob@example.net;"), [], id="a group with members"),
        pytest.param(mail("To:"), ["to_malformed"], id="an empty To"),
        pytest.param(mail("To: customer"), ["to_malformed"], id="a To without an address"),
        pytest.param(mail("To:\nCc: bob@example.net"), [], id="an empty To beside Cc"),
        pytest.param(mail(without="Subject"), ["subject_missing"], id="no Subject"),
        pytest.param(mail("Subject:  "), ["subject_missing"], id="an empty Subject"),
        pytest.param(mail("List-Id: <a.b>\nList-Id: <c.d>"), ["list_header_repeated"], id="two List-Id"),
        pytest.param(mail("Subject: a\nSubject: b"), ["header_repeated"], id="two Subjects"),
        pytest.param(mail("Received: a\nReceived: b\nComments: c\nComments: d"), [], id="what may be repeated"),
        pytest.param(mail(b"X-\xe4: a"), ["header_malformed"], id="a field name beyond ASCII"),
        pytest.param(mail("X-A : a"), [], id="a blank before the colon"),
        pytest.param(mail(b"Subject: \xfcber"), ["header_8bit"], id="Latin 1 in the Subject"),
        pytest.param(mail("From: Älice <a@example.org>\nSubject: über"), ["header_8bit"], id="UTF-8 in two fields"),
        pytest.param(international("Subject: über"), [], id="UTF-8 with SMTPUTF8"),
        pytest.param(international(b"Subject: \xfcber"), ["header_8bit"], id="Latin 1 with SMTPUTF8"),
        pytest.param(mail("Comments: über"), [], id="UTF-8 where nobody looks"),
    ],
)  # fmt: skip
def test_the_form_of_fields(tx: Transaction, expected: list[str]) -> None:
    assert symbols(header_form, tx) == expected


@pytest.mark.parametrize(
    ("header", "strength"),
    [
        pytest.param("Subject: a\nSubject: b", 1.0, id="that differ"),
        pytest.param("Subject: a\nSubject:  a", 0.25, id="that say the same"),
        pytest.param("Subject: a\nSubject: a\nDate: b\nDate: c", 1.0, id="of which one pair differs"),
    ],
)
def test_fields_that_are_repeated(header: str, strength: float) -> None:
    found = [f for f in computed(header_form, mail(header), tools()) if f.symbol == "header_repeated"]
    assert [finding.strength for finding in found] == [strength]


def test_the_detail_of_a_malformed_field_is_short() -> None:
    found = computed(header_form, mail("Message-ID: " + "x" * 5000), tools())
    assert [finding.symbol for finding in found] == ["message_id_malformed"]
    assert len(found[0].detail) == 60


@pytest.mark.parametrize(
    ("date", "expected"),
    [  # now is Tue, 14 Nov 2023 22:13:20 +0000
        ("Tue, 14 Nov 2023 23:13:20 +0000", []),
        ("14 Nov 2023 23:13 +0000", []),
        ("Wed, 15 Nov 2023 11:43:20 +1345", []),
        ("Tue, 14 Nov 2023 14:13:20 PST", []),
        ("Tue, 14 Nov 2023 22:13:20 GMT", []),
        ("Tue, 14 Nov 23 22:13:20 +0000", []),
        ("Tue, 14 Nov 2023 22:13:20 -0000 (UTC)", []),
        ("Tuesday, 14-Nov-2023 22:13:20 +0000", []),
        ("Sat, 31 Dec 2016 23:59:60 +0000", ["date_past"]),
        ("Tue,14 Nov 2023 22:13:20 +0000", []),
        ("Tue 14 Nov 2023 22:13:20 +0000", []),
        ("Tue, 14  Nov  2023  22:13:20+0000", []),
        ("Tue, 14 Nov 123 22:13:20 +0000", []),
        ("Tue, 14 Nov 99 22:13:20 +0000", ["date_past"]),
        ("Tue, 14 Nov 2023 22:13:20 Z", []),
        ("Tue, 14 Nov 2023 18:13:20 EDT", []),
        ("Wed, 15 Nov 2023 07:13:20 JST", []),
        ("Tue, 14 Nov 2023 22:13:20 A", []),
        ("Tue, 14 Nov 2023 22:13:20 +0000 (Zone (nested))", []),
        ("Tue, 14 Nov 2023 22:13:20 -1200", [("date_future", 0.5)]),
        ("Wed, 15 Nov 2023 12:13:20 +1400", []),
        ("Wed, 15 Nov 2023 12:13:20 XYZ", []),
        ("Wed, 15 Nov 2023 16:13:20 XYZ", [("date_future", 0.5)]),
        ("Fri, 14 Nov 2031 22:13:20 XYZ", [("date_future", 1.0)]),
        ("Sat, 14 Oct 2023 22:13:20 XYZ", ["date_past"]),
        ("Tue, 07 Nov 2023 12:13:20 XYZ", []),
        ("Wed, 15 Nov 2023 00:30:00 +0000", [("date_future", 0.5)]),
        ("Wed, 15 Nov 2023 22:30:00 +0000", [("date_future", 1.0)]),
        ("Fri, 14 Nov 2031 22:13:20 +0000", [("date_future", 1.0)]),
        ("Tue, 14 Nov 2023 22:13:20 -0800", [("date_future", 0.5)]),
        ("Tue, 07 Nov 2023 23:13:20 +0000", []),
        ("Tue, 07 Nov 2023 21:13:20 +0000", ["date_past"]),
        ("Thu, 01 Jan 1970 00:00:00 +0000", ["date_past"]),
        ("Wed, 15 Nov 2023 15:13:20 +1700", ["date_zone"]),
        ("Tue, 14 Nov 2023 22:20:20 +0007", ["date_zone"]),
        ("Tue, 14 Nov 2023 22:13:20 -1300", [("date_zone", 1.0), ("date_future", 1.0)]),
        ("Tue, 14 Nov 2023 22:13:20", [("date_malformed", 0.5)]),
        ("Tue, 14 Nov 2023 22:13:20 (GMT)", [("date_malformed", 0.5)]),
        ("Fri, 14 Nov 2031 22:13:20", [("date_malformed", 0.5), ("date_future", 1.0)]),
        ("Tue, 14 Nov 2023 22:13:20 +0060", ["date_malformed"]),
        ("Tue, 14 Nov 2023 22:13:20 GMT+1", ["date_malformed"]),
        ("Tue, 14 Nov 2023 22:13:20 +-0500", ["date_malformed"]),
        ("Tue, 14 Nov 2023 24:00:00 +0000", ["date_malformed"]),
        ("Tue, 14 Nov 2023 22:13:61 +0000", ["date_malformed"]),
        ("Tue, 14 Nov 2023 22:13:20 +0000 (never closed", ["date_malformed"]),
        ("mar., 14 nov. 2023 22:13:20 +0000", ["date_malformed"]),
        ("Tue, 31 Feb 2023 22:13:20 +0000", ["date_malformed"]),
        ("Tue, 14 Nov 0000 22:13:20 +0000", ["date_malformed"]),
        ("Tue, 14 Nov 2023 25:13:20 +0000", ["date_malformed"]),
        ("Tue, 14 Foo 2023 22:13:20 +0000", ["date_malformed"]),
        ("2023-11-14T22:13:20Z", ["date_malformed"]),
        ("soon", ["date_malformed"]),
        ("", ["date_missing"]),
    ],
)
def test_dates(date: str, expected: list[str | tuple[str, float]]) -> None:
    found = computed(header_dates, mail(f"Date: {date}"), tools())
    assert [(f.symbol, f.strength) for f in found] == [e if isinstance(e, tuple) else (e, 1.0) for e in expected]


def test_a_message_without_date() -> None:
    assert symbols(header_dates, mail(without="Date")) == ["date_missing"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("Alice <alice@example.org>", [], id="a name"),
        pytest.param("alice@example.org", [], id="an address alone"),
        pytest.param("<alice@example.org>", [], id="an address in brackets"),
        pytest.param('"pay@bank.example" <x@evil.test>', ["from_display_address"], id="another's address as name"),
        pytest.param("x@evil.test (pay@bank.example)", ["from_display_address"], id="another's address in a comment"),
        pytest.param('"Bob bob@corp.example" <x@evil.test>', ["from_display_local"], id="an address of ours"),
        pytest.param('"ceo@example.net" <x@evil.test>', ["from_display_local"], id="an address of the recipient's domain"),
        pytest.param("Helpdesk example.net <x@evil.test>", ["from_display_local"], id="the recipient's domain"),
        pytest.param("amazon.com orders <x@evil.test>", ["from_display_domain"], id="another's domain"),
        pytest.param("amazon.com <x@mail.amazon.com>", [], id="the domain that it comes from"),
        pytest.param("Help corp.example <x@evil.test>", ["from_display_local"], id="a domain of ours under a rare ending"),
        pytest.param("amazon.com corp.example <x@evil.test>", ["from_display_local"], id="a domain of ours behind another"),
        pytest.param('"a@gmail.com ceo@corp.example" <x@evil.test>', ["from_display_local"], id="ours behind another's address"),
        pytest.param(f'"{"x@evil.test " * 6}ceo@corp.example" <x@evil.test>', ["from_display_local"], id="ours behind many of its own"),
        pytest.param(f'"{" " * 600}ceo@corp.example" <x@evil.test>', ["from_display_local"], id="ours behind many blanks"),
        pytest.param(f"{word(chr(0x200B) * 600 + 'ceo@corp.example')} <x@evil.test>", ["from_display_local"], id="ours behind what nobody sees"),
        pytest.param("Node.js Weekly <x@example.org>", [], id="what only looks like a domain"),
        pytest.param('"alice@example.org" <alice@example.org>', ["from_display_repeats"], id="the same address twice"),
        pytest.param('"alice@lists.example.org" <alice@example.org>', ["from_display_repeats"], id="another of the site"),
        pytest.param("Dr. J.R. Smith, Inc. <j@example.org>", [], id="dots in a name"),
        pytest.param("Jane @ Work <j@example.org>", [], id="an at sign in a name"),
        pytest.param(f"{word('pay@bank.example')} <x@evil.test>", ["from_encoded", "from_display_address"], id="another's address in base64"),
        pytest.param("ACME BILLING <x@example.org>", ["from_capitals"], id="capitals"),
        pytest.param("IBM <x@example.org>", [], id="an abbreviation"),
        pytest.param(f"{word('Alice')} <alice@example.org>", ["from_encoded"], id="base64 for nothing"),
        pytest.param(f"{word('Älice')} <alice@example.org>", [], id="base64 for a letter that needs it"),
        pytest.param("=?utf-8?Q?Alice?= <alice@example.org>", [], id="quoted-printable for nothing"),
        pytest.param("Al <a@shop4711.test>", ["author_domain_digits"], id="a number in the domain"),
        pytest.param("Al <a@mx4711.shop.test>", [], id="a number below the domain"),
        pytest.param("Al <al@163.com>", [], id="a number in the domain of free mailboxes"),
        pytest.param("Al <a@xn--80ak6aa92e.test>", [], id="digits that Punycode made"),
        pytest.param("Al <al1984@example.org>", ["author_local_digits"], id="a number in the local-part"),
        pytest.param("Al <qwrtzpsd@example.org>", ["author_unspeakable"], id="a local-part that nobody can say"),
        pytest.param("=?utf-8?Q?pay=E2=80=8B=40b=D0=B0nk.example?= <x@evil.test>", ["from_display_address"], id="a zero-width space and a Cyrillic letter in it"),
    ],
)  # fmt: skip
def test_the_author_as_shown(value: str, expected: list[str]) -> None:
    assert symbols(from_display, mail(f"From: {value}"), OURS) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param('From: "bob@shop.test via Talk" <talk@lists.test>\nList-Id: <talk.lists.test>', ("from_display_address", 0.2), id="a list"),
        pytest.param('From: "bob@corp.example via Talk" <talk@lists.test>\nList-Id: <talk.lists.test>', ("from_display_local", 0.2), id="a list that one of us writes to"),
        pytest.param('From: "bob@corp.example via Talk" <talk@lists.test>', ("from_display_local", 1.0), id="no list"),
        pytest.param('From: "bob@shop.test" <form@host.test>\nReply-To: bob@shop.test', ("from_display_address", 0.4), id="a form on a web site"),
        pytest.param('From: "bob@corp.example" <form@host.test>\nReply-To: bob@corp.example', ("from_display_local", 1.0), id="a form that one of us filled in"),
    ],
)  # fmt: skip
def test_what_excuses_another_address_in_the_name(header: str, expected: tuple[str, float]) -> None:
    found = computed(from_display, mail(header), tools(config=OURS))
    assert [(finding.symbol, finding.strength) for finding in found] == [expected]


def test_look_alike_letters_in_a_domain_of_the_name_are_read() -> None:
    tx = mail(f"From: {word('Support оf соrp.com')} <x@evil.test>")
    assert [f.detail for f in computed(from_display, tx, tools())] == ["corp.com"]


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(mail("Reply-To: alice@example.org"), [], id="answers to the author"),
        pytest.param(mail("Reply-To: help@support.example.org"), [], id="answers to a host of the author's site"),
        pytest.param(mail("Reply-To: alice@gmail.com"), [("reply_to_free", 1.0)], id="answers to a free mailbox"),
        pytest.param(mail("Reply-To: a@yahoo.co.uk"), [("reply_to_free", 1.0)], id="one of another country"),
        pytest.param(mail("From: a@gmail.com\nReply-To: b@gmail.com", sender="a@gmail.com"), [], id="two of the same"),
        pytest.param(mail("Reply-To: alice@evil.test"), [("reply_to_differs", 1.0)], id="answers to another site"),
        pytest.param(mail("Reply-To: a@esp.test", sender="b@esp.test"), [("envelope_differs", 1.0)], id="to who sends"),
        pytest.param(mail('From: "bob@gmail.com" <form@example.org>\nReply-To: bob@gmail.com'), [("reply_to_free", 0.5)], id="to whom a form shows"),
        pytest.param(mail("Reply-To: a@esp.test, b@evil.test", sender="b@esp.test"), [("reply_to_differs", 1.0), ("envelope_differs", 1.0)], id="also to who does not send"),
        pytest.param(mail("Reply-To: nobody"), [("reply_to_malformed", 1.0)], id="no address for answers"),
        pytest.param(mail("Reply-To: alice@example.org, b@evil.test"), [("reply_to_differs", 1.0)], id="one of two"),
        pytest.param(mail("Sender: x@evil.test"), [("sender_differs", 1.0)], id="another Sender"),
        pytest.param(mail("Sender: x@mail.example.org"), [], id="a Sender of the same site"),
        pytest.param(mail(sender="x@evil.test"), [("envelope_differs", 1.0)], id="another envelope"),
        pytest.param(mail(sender=""), [], id="the null reverse-path"),
        pytest.param(mail(LIST + "Sender: talk@lists.test\nReply-To: talk@lists.test", sender="talk@lists.test"), [], id="a list"),
        pytest.param(mail(LIST + "Reply-To: a@gmail.com"), [("reply_to_free", 0.3)], id="a list that rewrites From"),
        pytest.param(mail("From: Alice"), [], id="no author"),
    ],
)  # fmt: skip
def test_other_addresses(tx: Transaction, expected: list[tuple[str, float]]) -> None:
    found = computed(other_addresses, tx, tools())
    assert [(finding.symbol, finding.strength) for finding in found] == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("Subject: Grüße aus Köln", [], id="another language"),
        pytest.param("Subject: Привет, Алиса! Ваш iPhone", [], id="words of two scripts"),
        pytest.param("Subject: Your аccount", ["mixed_scripts"], id="a Cyrillic letter in a Latin word"),
        pytest.param("Subject: 10 kΩ and 5 µm", [], id="units"),
        pytest.param("Subject: 𝐘𝐨𝐮𝐫 𝐩𝐚𝐫𝐜𝐞𝐥", ["styled_letters"], id="mathematical letters"),
        pytest.param("Subject: ᴘᴀʏᴍᴇɴᴛ", ["styled_letters"], id="small capitals"),
        pytest.param("Subject: Ⓐ or Ⓑ", [], id="two circled letters"),
        pytest.param("Subject: ＮＨＫ ニュース", [], id="full width"),
        pytest.param("Subject: pay\u200bpal", ["invisible_characters"], id="a zero-width space"),
        pytest.param("From: \ufeffBank <x@example.org>", ["invisible_characters"], id="a byte order mark in the name"),
        pytest.param("Subject: می\u200cخواهم", [], id="a joiner that Persian needs"),
        pytest.param("Subject: invoice \u202egnp.exe", ["direction_override"], id="an override"),
        pytest.param("From: \u202aAlice\u202c <x@example.org>", [], id="an embedding from an address book"),
        pytest.param("Subject: You won 🎁", ["subject_pictures"], id="a picture in the Subject"),
        pytest.param("From: ✅ Bank <x@example.org>", ["from_pictures"], id="a picture in the name"),
        pytest.param("From: Bаnk <x@example.org>\nSubject: Your аccount", ["mixed_scripts"], id="one symbol for both"),
    ],
)  # fmt: skip
def test_unicode_tricks(header: str, expected: list[str]) -> None:
    assert symbols(unicode_tricks, mail(header)) == expected


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Lunch on Tuesday?", []),
        ("LAST WARNING", [("subject_capitals", 1.0)]),
        ("NASA EVA", []),
        ("You win!", [("subject_exclaimed", 0.5)]),
        ("You win!!", [("subject_exclaimed", 1.0)]),
        ("Only $99 today", [("subject_offer", 1.0)]),
        ("Save 50 % today", [("subject_offer", 1.0)]),
        ("100 € for you", [("subject_offer", 1.0)]),
        ("What is $HOME", []),
        ("for bob@example.net only", [("subject_recipient", 1.0)]),
        ("for BOB@EXAMPLE.NET only", [("subject_recipient", 1.0)]),
        ("ask carol@example.net", []),
        ("cheap v i a g r a here", [("subject_gappy", 1.0)]),
        ("S.E.C.R.E.T. offer", [("subject_gappy", 1.0)]),
        ("version 1.2.3.4.5.6.7", []),
        ("[PATCH 1/2] x", []),
        ("hello          8473", [("subject_padded", 1.0)]),
        (word("hello"), [("subject_encoded", 1.0)]),
        (word("héllo"), []),
        ("Re: the offer", [("reply_without_references", 1.0)]),
        ("Re[2]: the offer", [("reply_without_references", 1.0)]),
        ("Regarding: the offer", []),
    ],
)
def test_subjects(subject: str, expected: list[tuple[str, float]]) -> None:
    found = computed(subject_tricks, mail(f"Subject: {subject}"), tools())
    assert [(finding.symbol, finding.strength) for finding in found] == expected


@pytest.mark.parametrize(
    ("subject", "detail"),
    [
        ("Now only $99 for private use", "only $99 for"),
        ("for BOB@EXAMPLE.NET only", "bob@example.net"),
        ("cheap v i a g r a here", " v i a g "),
        ("PRIVATE MATTERS", ""),
    ],
)
def test_the_detail_shows_of_a_subject_what_was_found_alone(subject: str, detail: str) -> None:
    assert [f.detail for f in computed(subject_tricks, mail(f"Subject: {subject}"), tools())] == [detail]


@pytest.mark.parametrize("field", ["References", "In-Reply-To"])
def test_an_answer_that_names_what_it_answers(field: str) -> None:
    assert symbols(subject_tricks, mail(f"Subject: Re: lunch\n{field}: <0@example.net>")) == []


ONE_CLICK = "List-Unsubscribe: <https://example.org/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("List-Unsubscribe: <https://example.org/u>", [], id="a way by HTTPS"),
        pytest.param("List-Unsubscribe:\n <mailto:u@example.org>", [], id="a way by mail"),
        pytest.param(f"Feedback-ID: 1:2\n{ONE_CLICK}", [], id="a way by one click"),
        pytest.param(
            "Feedback-ID: 1:2\nList-Unsubscribe: <mailto:u@a.b>",
            [("bulk_no_unsubscribe", 0.3)],
            id="no way by one click",
        ),
        pytest.param(
            "Precedence: bulk\nList-Id: <a.b>\nList-Unsubscribe: <mailto:u@a.b>",
            [],
            id="a list without a way by one click",
        ),
        pytest.param(
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click", ["one_click_malformed"], id="one click to nowhere"
        ),
        pytest.param(ONE_CLICK.replace("https:", "http:"), ["one_click_malformed"], id="one click without TLS"),
        pytest.param(ONE_CLICK.replace("=One-Click", "=Yes"), ["one_click_malformed"], id="one click misspelt"),
        pytest.param("List-Unsubscribe: <u-1@example.org>", ["unsubscribe_malformed"], id="no URI"),
        pytest.param("List-Unsubscribe: https://example.org/u", [("unsubscribe_malformed", 0.25)], id="no brackets"),
        pytest.param("Feedback-ID: 1:2", ["bulk_no_unsubscribe"], id="a mark of senders to many"),
        pytest.param("Precedence: bulk", ["bulk_no_unsubscribe"], id="Precedence"),
        pytest.param("Precedence: list\nList-Id: <a.b>", [], id="a list"),
        pytest.param("Precedence: first-class", [], id="another Precedence"),
        pytest.param(
            "Precedence: bulk\nAuto-Submitted: auto-replied", [], id="the Precedence of an answer by a machine"
        ),
        pytest.param("X-Priority: 1 (Highest)", ["priority_high"], id="the highest priority"),
        pytest.param("X-Priority: 3", [], id="the usual priority"),
        pytest.param("X-Priority: 1\nImportance: high", ["priority_high"], id="both"),
        pytest.param("Importance: High", ["priority_high"], id="high importance"),
        pytest.param("Importance: normal", [], id="normal importance"),
    ],
)
def test_bulk_mail(header: str, expected: list[str | tuple[str, float]]) -> None:
    found = computed(bulk_mail, mail(header), tools())
    assert [(f.symbol, f.strength) for f in found] == [e if isinstance(e, tuple) else (e, 1.0) for e in expected]


OUTLOOK_ID = "Message-ID: <001401c24d2b$8c1e0d70$0201a8c0@host>\n"
UUID = "<6ad0e1c4-25ae-4f4b-9c5e-0123456789ab@example.org>"
BOUNDARY = 'Content-Type: multipart/mixed;\n boundary="----=_NextPart_000_0358_01C247F9.FBE9B8A0"\n'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("X-MSMail-Priority: Normal", ["forged_outlook"], id="MSMail without MimeOLE"),
        pytest.param("X-MSMail-Priority: Normal\nX-MimeOLE: Produced", [], id="MSMail with MimeOLE"),
        pytest.param("X-MSMail-Priority: High\nX-Mailer: PHP/8", [("forged_outlook", 0.3)], id="a script that imitates"),
        pytest.param("X-Mailer: iPhone Mail (21A)\nMessage-ID: <0123456789ABCDEF0123456789abcdef@ex.corp.test>", [], id="an iPhone behind Exchange"),
        pytest.param(f"Message-ID: <CA+a@mail.gmail.com>\n{LIST}", [("forged_mailer", 0.5)], id="a list that takes out what Gmail wrote"),
        pytest.param(f"X-MSMail-Priority: Normal\n{LIST}", [], id="a list that takes fields out"),
        pytest.param(OUTLOOK_ID, ["forged_outlook"], id="the Message-ID of Outlook without its name"),
        pytest.param(OUTLOOK_ID + "X-Mailer: Microsoft Outlook Express 6", [], id="with its name"),
        pytest.param("X-Mailer: Microsoft Outlook 16.0", ["forged_outlook"], id="Outlook without a thread"),
        pytest.param("X-Mailer: Microsoft Outlook 16.0\nThread-Index: Ad==", [], id="Outlook with a thread"),
        pytest.param(f"User-Agent: Mozilla Thunderbird\nMessage-ID: {UUID}", [], id="Thunderbird"),
        pytest.param("User-Agent: Thunderbird 2\nMessage-ID: <4BC7798C.401@a.b>", [], id="an old Thunderbird"),
        pytest.param("User-Agent: Thunderbird 2\nMessage-ID: <hqkuru$96o$1@news.test>", [], id="Thunderbird in news"),
        pytest.param("User-Agent: Mozilla Thunderbird", ["forged_mailer"], id="what is no Thunderbird"),
        pytest.param(f"X-Mailer: Apple Mail (2.3)\nMessage-ID: {UUID.upper()}", [], id="Apple Mail"),
        pytest.param("X-Mailer: iPhone Mail (21A)", ["forged_mailer"], id="what is no iPhone"),
        pytest.param("X-Mailer: iPhone Mail (21A)\nMessage-ID: <AB@X.prod.outlook.com>", [], id="an iPhone behind Outlook"),
        pytest.param("Message-ID: <CA+a@mail.gmail.com>", ["forged_mailer"], id="what is not from Gmail"),
        pytest.param("Message-ID: <CA+a@mail.gmail.com>\nX-Gm-Message-State: A", [], id="Gmail"),
        pytest.param(BOUNDARY, ["forged_mailer"], id="the boundary of Outlook without its name"),
        pytest.param(BOUNDARY + "X-Mailer: Microsoft CDO for Windows 2000", [], id="that of its kin"),
    ],
)  # fmt: skip
def test_forged_mailers(header: str, expected: list[str | tuple[str, float]]) -> None:
    found = computed(forged_mailer, mail(header), tools())
    assert [(f.symbol, f.strength) for f in found] == [e if isinstance(e, tuple) else (e, 1.0) for e in expected]
    assert all(finding.detail for finding in found)


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(mail(without="Received"), ["received_missing"], id="straight from the client"),
        pytest.param(mail("Received: from DESKTOP-A1 by c; date"), ["received_desktop"], id="from a desktop"),
        pytest.param(
            mail("Received: from a by b\nReceived: from WIN-4F by c"), ["received_desktop"], id="the first hop"
        ),
        pytest.param(mail("Received: from WIN-4F by b\nReceived: from a by c"), [], id="a later hop"),
        pytest.param(mail("Received: from TWIN-PEAKS by c"), [], id="another name with WIN in it"),
    ],
)
def test_received_lines(tx: Transaction, expected: list[str]) -> None:
    assert symbols(received_lines, tx) == expected


def seen(header: str, *results: AuthResult, mta: str = "mx.corp.example") -> Transaction:
    """A message that came with these results."""
    return mail(header)._replace(results=results, connection=Connection(mta_name=mta))


SPF_NONE = AuthResult("spf", Result.NONE)
DKIM_PASS = AuthResult("dkim", Result.PASS, "corp.example")
OF_OURS = "From: Eve <eve@corp.example>\n"


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(seen(OF_OURS, SPF_NONE), [("author_is_local", 1.0)], id="an author of ours, and nothing speaks for him"),
        pytest.param(seen("From: Bob <bob@example.net>", SPF_NONE), [("author_is_local", 1.0)], id="one of the domain of the recipient"),
        pytest.param(seen(OF_OURS + LIST, SPF_NONE), [("author_is_local", 0.3)], id="one who wrote to a list"),
        pytest.param(seen(OF_OURS, SPF_NONE, DKIM_PASS), [], id="with a signature of ours"),
        pytest.param(seen(OF_OURS, AuthResult("spf", Result.PASS, "bounce.corp.example")), [], id="with SPF"),
        pytest.param(seen(OF_OURS, AuthResult("spf", Result.PASS, "corp.example", for_anyone=True)), [("author_is_local", 1.0)], id="with an SPF pass that anybody has"),
        pytest.param(seen(OF_OURS, AuthResult("spf", Result.PASS, "evil.test")), [("author_is_local", 1.0)], id="with SPF of another"),
        pytest.param(seen(OF_OURS, AuthResult("spf", Result.TEMPERROR, "corp.example")), [], id="where SPF could not be asked"),
        pytest.param(seen(OF_OURS, SPF_NONE, AuthResult("dmarc", Result.FAIL, "corp.example")), [], id="where DMARC says it"),
        pytest.param(seen(OF_OURS, SPF_NONE, AuthResult("dmarc", Result.NONE, "corp.example")), [("author_is_local", 1.0)], id="without a DMARC record"),
        pytest.param(seen(OF_OURS), [], id="where nothing was looked at"),
        pytest.param(seen("Message-ID: <1@corp.example>", SPF_NONE), [("message_id_is_local", 1.0)], id="a Message-ID of ours"),
        pytest.param(seen("Message-ID: <1@CORP.example>\n" + LIST, SPF_NONE), [("message_id_is_local", 0.3)], id="that of a list"),
        pytest.param(seen("Message-ID: <1@example.net>", SPF_NONE), [], id="one of the domain of the recipient alone"),
        pytest.param(seen("Message-ID: <1@corp.example>\n" + OF_OURS, DKIM_PASS), [], id="one of our own mail"),
        pytest.param(seen("Received: from a by mx.corp.example with SMTP; date"), [("received_is_local", 1.0)], id="a line of this server"),
        pytest.param(seen("Received: from a\n\tby MX.corp.example.; date"), [("received_is_local", 1.0)], id="written in another way"),
        pytest.param(seen("Received: from a by localhost; date", mta="localhost"), [], id="a name that everybody has"),
        pytest.param(seen("Received: from a by b; date\nReceived: from c by mx.corp.example; date"), [], id="an older line of this server"),
        pytest.param(seen("Received: from mx.corp.example by b; date"), [], id="one that got it from this server"),
        pytest.param(seen("Received: from a by b for x by; date"), [], id="a line that ends in by"),
        pytest.param(seen("From: nobody\nMessage-ID: <1@corp.example>"), [], id="no author"),
    ],
)  # fmt: skip
def test_in_our_name(tx: Transaction, expected: list[tuple[str, float]]) -> None:
    found = computed(in_our_name, tx, tools(config=OURS))
    assert [(finding.symbol, finding.strength) for finding in found] == expected


PEOPLE = (
    OURS
    + """[people]
names = jane.doe, jürgen.müller, maría.lópez.garcía
exempt = jane@private.test, partner.test
"""
)


@pytest.mark.parametrize(
    ("from_", "expected"),
    [
        pytest.param("Jane Doe <ceo@gmail.com>", ["jane.doe at gmail.com"], id="her name"),
        pytest.param('"Doe, Jane (CEO)" <ceo@gmail.com>', ["jane.doe at gmail.com"], id="in another order with more words"),
        pytest.param(f"{word('Jаne Dоe')} <ceo@gmail.com>", ["jane.doe at gmail.com"], id="with Cyrillic letters"),
        pytest.param(f"{word('Ja' + chr(0x200B) + 'ne Doe')} <ceo@gmail.com>", ["jane.doe at gmail.com"], id="with a zero-width space"),
        pytest.param(f"{word(chr(0x200B) * 600 + 'Jane Doe')} <ceo@gmail.com>", ["jane.doe at gmail.com"], id="behind what nobody sees"),
        pytest.param("Juergen Mueller <x@evil.test>", ["jürgen.müller at evil.test"], id="an umlaut that is spelt out"),
        pytest.param("Jurgen Muller <x@evil.test>", ["jürgen.müller at evil.test"], id="an umlaut without its dots"),
        pytest.param(f"{word('Jürgen Müller')} <x@evil.test>", ["jürgen.müller at evil.test"], id="an umlaut"),
        pytest.param("Maria Lopez Garcia <x@evil.test>", ["maría.lópez.garcía at evil.test"], id="three words without accents"),
        pytest.param("Maria Lopez <x@evil.test>", [], id="two words of three"),
        pytest.param("Janet Doe <x@evil.test>", [], id="a longer name"),
        pytest.param("Jane Smith <x@evil.test>", [], id="another of that name"),
        pytest.param("Jane Doe <jane@corp.example>", [], id="her address"),
        pytest.param("Jane Doe <jane@example.net>", [], id="the domain of the recipient"),
        pytest.param("Jane Doe <jane@private.test>", [], id="a private address that is known"),
        pytest.param("Jane Doe <jane.doe@private.test>", ["jane.doe at private.test"], id="another there"),
        pytest.param("Jane Doe <x@partner.test>", [], id="a domain that is known"),
        pytest.param("ceo@gmail.com", [], id="no name"),
    ],
)  # fmt: skip
def test_names_of_people_of_ours(from_: str, expected: list[str]) -> None:
    found = computed(people, mail(f"From: {from_}"), tools("people", config=PEOPLE))
    assert [finding.detail for finding in found] == expected


def test_a_list_keeps_the_name_of_who_wrote_to_it() -> None:
    tx = mail(f"From: Jane Doe via Talk <talk@lists.test>\n{LIST}")
    assert [f.strength for f in computed(people, tx, tools("people", config=PEOPLE))] == [0.5]


def test_without_names_nobody_is_looked_for() -> None:
    assert not is_wanted("people", "")
    assert is_wanted("people", PEOPLE)


@pytest.mark.parametrize("name", ["jane", "jane.d", "jane.doe2", "jane..doe", "jane@doe.test", "."])
def test_a_name_that_is_too_common_or_none(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\[people\] names.*not a name such as jane\.doe"):
        ini.load(None, f"[people]\nnames = {name}\n")


# ------------------------------------------------------------------------------------------------------- hostile input

_NAMES = st.sampled_from(
    [line.partition(":")[0].encode() for line in USUAL.splitlines()]
    + [
        b"Reply-To",
        b"Sender",
        b"List-Unsubscribe",
        b"List-Id",
        b"X-Mailer",
        b"Content-Type",
        b"Cc",
        b"from ",
        b"\xff",
        b"",
    ]
)
_PIECES = st.sampled_from(
    [b"=?utf-8?B?", b"?=", b"<", b">", b"@", b"xn--80ak6aa92e.com", b"xn--a", b'"', b"(", b"\r\n ", b"Tue, 14 Nov 2023", b"+9999",
     "аррӏе".encode(), "\u202e\u200b🎁𝐘".encode(), b"\x00", b"\xff\xfe", b"a.b@c.d", b"Re:", b"$1", b"!!", b"bob@example.net", b" "]
)  # fmt: skip
_VALUES = st.lists(st.one_of(_PIECES, st.binary(max_size=8)), max_size=12).map(b"".join)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=12))
def test_nothing_in_a_header_section_makes_a_check_fail(fields: list[tuple[bytes, bytes]]) -> None:
    message = Message(tuple(HeaderField(*field) for field in fields))
    tx = Transaction(message=message, envelope=Envelope(mailbox("a@b.example"), (mailbox("bob@example.net"),)))
    for check in CHECKS:
        given_tools = tools(check.name, config="[brands]\ndomains = apple.com\n" + PEOPLE)
        for finding in check.run(tx, given_tools):  # type: ignore[union-attr]
            assert finding.symbol in check.scores
            assert len(finding.detail) < 700
            assert 0 < finding.strength <= 1
