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
from authmilter.checks.other_addresses import is_free, other_addresses
from authmilter.checks.received_lines import received_lines
from authmilter.checks.subject_tricks import subject_tricks
from authmilter.checks.unicode_tricks import unicode_tricks
from authmilter.evidence import Finding
from authmilter.model import Envelope, HeaderField, Message, Transaction
from authmilter.verdict import Action
from tests.checks.mails import USUAL, mail
from tests.checks.tools import computed, tools
from tests.checks.verdicts import mailbox, verdict

NAMES = (
    "header_form", "header_dates", "from_display", "other_addresses", "unicode_tricks", "subject_tricks", "bulk_mail",
    "forged_mailer", "received_lines", "brands",
)  # fmt: skip
CHECKS = [check for check in all_checks() if check.name in NAMES]

Run = Callable[[Transaction, Tools], Iterator[Finding]]


def symbols(check: Run, tx: Transaction, config: str = "") -> list[str]:
    return [finding.symbol for finding in computed(check, tx, tools(config=config))]


def word(text: str, charset: str = "utf-8") -> str:
    """The text as an encoded word in base64."""
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_usual_message_has_no_finding(check: Check) -> None:
    assert list(check.run(mail(), tools(check.name))) == []  # type: ignore[arg-type]


def test_all_of_them_are_there() -> None:
    assert len(CHECKS) == len(NAMES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_no_symbol_marks_mail_by_itself(check: Check) -> None:
    for symbol, weight in check.scores.items():
        assert not isinstance(weight, Action), symbol
        assert 0 < weight <= 2.5, symbol
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
        pytest.param(mail(without="To"), ["to_missing"], id="no recipient named"),
        pytest.param(mail("Cc: bob@example.net", without="To"), [], id="Cc alone"),
        pytest.param(mail("To: undisclosed-recipients:;"), ["undisclosed_recipients"], id="an empty group"),
        pytest.param(mail("To: Friends: bob@example.net;"), [], id="a group with members"),
        pytest.param(mail(without="Subject"), ["subject_missing"], id="no Subject"),
        pytest.param(mail("Subject:  "), ["subject_missing"], id="an empty Subject"),
        pytest.param(mail("List-Id: <a.b>\nList-Id: <c.d>"), ["header_repeated"], id="two List-Id"),
        pytest.param(mail("Subject: a\nSubject: b"), ["header_repeated"], id="two Subjects"),
        pytest.param(mail("Received: a\nReceived: b\nComments: c\nComments: d"), [], id="what may be repeated"),
        pytest.param(mail(b"X-\xe4: a"), ["header_malformed"], id="a field name beyond ASCII"),
        pytest.param(mail("X-A : a"), [], id="a blank before the colon"),
        pytest.param(mail(b"Subject: \xfcber"), ["header_8bit"], id="Latin 1 in the Subject"),
        pytest.param(mail("From: Älice <a@example.org>\nSubject: über"), ["header_8bit"], id="UTF-8 in two fields"),
        pytest.param(mail("Comments: über"), [], id="UTF-8 where nobody looks"),
    ],
)  # fmt: skip
def test_the_form_of_fields(tx: Transaction, expected: list[str]) -> None:
    assert symbols(header_form, tx) == expected


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
        ("Sat, 14 Oct 2023 22:13:20 XYZ", []),
        ("Wed, 15 Nov 2023 00:30:00 +0000", [("date_future", 0.5)]),
        ("Wed, 15 Nov 2023 22:30:00 +0000", [("date_future", 1.0)]),
        ("Fri, 14 Nov 2031 22:13:20 +0000", [("date_future", 1.0)]),
        ("Tue, 14 Nov 2023 22:13:20 -0800", [("date_future", 0.5)]),
        ("Tue, 07 Nov 2023 23:13:20 +0000", []),
        ("Tue, 07 Nov 2023 21:13:20 +0000", ["date_past"]),
        ("Thu, 01 Jan 1970 00:00:00 +0000", ["date_past"]),
        ("Wed, 15 Nov 2023 15:13:20 +1700", ["date_zone"]),
        ("Tue, 14 Nov 2023 22:20:20 +0007", ["date_zone"]),
        ("Tue, 14 Nov 2023 22:13:20", ["date_malformed"]),
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


OURS = "[identity]\nlocal_domains = corp.example\n"


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
        pytest.param("Al <a@xn--80ak6aa92e.test>", [], id="digits that Punycode made"),
        pytest.param("Al <al1984@example.org>", ["author_local_digits"], id="a number in the local-part"),
        pytest.param("Al <qwrtzpsd@example.org>", ["author_unspeakable"], id="a local-part that nobody can say"),
        pytest.param("=?utf-8?Q?pay=E2=80=8B=40b=D0=B0nk.example?= <x@evil.test>", ["from_display_address"], id="a zero-width space and a Cyrillic letter in it"),
    ],
)  # fmt: skip
def test_the_author_as_shown(value: str, expected: list[str]) -> None:
    assert symbols(from_display, mail(f"From: {value}"), OURS) == expected


def test_look_alike_letters_in_a_domain_of_the_name_are_read() -> None:
    tx = mail(f"From: {word('Support оf соrp.com')} <x@evil.test>")
    assert [f.detail for f in computed(from_display, tx, tools())] == ["corp.com"]


LIST = "List-Id: <talk.lists.test>\nList-Post: <mailto:talk@lists.test>\n"


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
    ("domain", "free"),
    [("gmail.com", True), ("hotmail.fr", True), ("mail.yahoo.co.jp", True), ("example.org", False), ("notgmail.com", False)],
)  # fmt: skip
def test_free_mailboxes(domain: str, free: bool) -> None:
    assert is_free(domain) is free


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


@pytest.mark.parametrize("field", ["References", "In-Reply-To"])
def test_an_answer_that_names_what_it_answers(field: str) -> None:
    assert symbols(subject_tricks, mail(f"Subject: Re: lunch\n{field}: <0@example.net>")) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("List-Unsubscribe: <https://example.org/u>", [], id="a way by HTTPS"),
        pytest.param("Feedback-ID: 1:2\nList-Unsubscribe:\n <mailto:u@example.org>", [], id="a way by mail"),
        pytest.param("List-Unsubscribe: <u-1@example.org>", ["unsubscribe_malformed"], id="no URI"),
        pytest.param("List-Unsubscribe: https://example.org/u", ["unsubscribe_malformed"], id="no brackets"),
        pytest.param("Feedback-ID: 1:2", ["bulk_no_unsubscribe"], id="a mark of senders to many"),
        pytest.param("Precedence: bulk", ["bulk_no_unsubscribe"], id="Precedence"),
        pytest.param("Precedence: list\nList-Id: <a.b>", [], id="a list"),
        pytest.param("Precedence: first-class", [], id="another Precedence"),
        pytest.param("X-Priority: 1 (Highest)", ["priority_high"], id="the highest priority"),
        pytest.param("X-Priority: 3", [], id="the usual priority"),
        pytest.param("Importance: High", ["priority_high"], id="high importance"),
        pytest.param("Importance: normal", [], id="normal importance"),
    ],
)
def test_bulk_mail(header: str, expected: list[str]) -> None:
    assert symbols(bulk_mail, mail(header)) == expected


OUTLOOK_ID = "Message-ID: <001401c24d2b$8c1e0d70$0201a8c0@host>\n"
UUID = "<6ad0e1c4-25ae-4f4b-9c5e-0123456789ab@example.org>"
BOUNDARY = 'Content-Type: multipart/mixed;\n boundary="----=_NextPart_000_0358_01C247F9.FBE9B8A0"\n'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("X-MSMail-Priority: Normal", ["forged_outlook"], id="MSMail without MimeOLE"),
        pytest.param("X-MSMail-Priority: Normal\nX-MimeOLE: Produced", [], id="MSMail with MimeOLE"),
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
def test_forged_mailers(header: str, expected: list[str]) -> None:
    assert symbols(forged_mailer, mail(header)) == expected


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        pytest.param(mail(without="Received"), ["received_missing"], id="straight from the client"),
        pytest.param(mail("Received: from DESKTOP-A1 by c; date"), ["received_desktop"], id="from a desktop"),
        pytest.param(
            mail("Received: from a by b\nReceived: from WIN-4F by c"), ["received_desktop"], id="the first hop"
        ),
        pytest.param(mail("Received: from WIN-4F by b\nReceived: from a by c"), [], id="a later hop"),
    ],
)
def test_received_lines(tx: Transaction, expected: list[str]) -> None:
    assert symbols(received_lines, tx) == expected


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
        given_tools = tools(check.name, config="[brands]\ndomains = apple.com\n" + OURS)
        for finding in check.run(tx, given_tools):  # type: ignore[union-attr]
            assert finding.symbol in check.scores
            assert len(finding.detail) < 700
            assert 0 < finding.strength <= 1
