"""Address fields as Sendmail sends them; tests/rig/test_sendmail.py holds the same cases against a real one."""

import time

import pytest

from authmilter.auth.sendmail_form import MAX_REWRITTEN, as_sent, rewrite
from authmilter.model import Connection, HeaderField, Message

# What a client writes, and what Sendmail makes of it, but for white space.
CASES = {
    "a list without blanks": ("a@x.test,b@y.test", "a@x.test, b@y.test"),
    "a list without blanks, folded": ("A <a@x.test>,\r\n\tB <b@y.test>", "A <a@x.test>, B <b@y.test>"),
    "blanks before commas": ("a@x.test , b@y.test\t,c@z.test", "a@x.test, b@y.test, c@z.test"),
    "commas without addresses": (",a@x.test, , b@y.test,", "a@x.test, b@y.test"),
    "brackets alone": ("<a@x.test>,<b@y.test>", "<a@x.test>, <b@y.test>"),
    "dots in a name": ("J. R. Doe <j@x.test>", '"J. R. Doe" <j@x.test>'),
    "dots in a name without blank": ("J. R. Doe<j@x.test>", '"J. R. Doe"<j@x.test>'),
    "dots in a folded name": ("J. R.\r\n Doe <j@x.test>", '"J. R. Doe" <j@x.test>'),
    "dots behind quotes": ('"J" R. <j@x.test>', '"\\"J\\" R." <j@x.test>'),
    "dots behind quotes with a colon": ('"J: K" R. <j@x.test>', '"\\"J: K\\" R." <j@x.test>'),
    "dots before a comment with a colon": ("J. (ext: 5) <j@x.test>", '"J. (ext: 5)" <j@x.test>'),
    "dots before a comment": ("J. (Jane) <j@x.test>", '"J. (Jane)" <j@x.test>'),
    "an apostrophe": ("Mary O'Brien <m@x.test>", '"Mary O\'Brien" <m@x.test>'),
    "apostrophes for quotes": ("'a@x.test' <a@x.test>", "\"'a@x.test'\" <a@x.test>"),
    "an address as name": ("a@x.test <a@x.test>, b@y.test", '"a@x.test" <a@x.test>, b@y.test'),
    "square brackets": ("A [b] <a@x.test>", '"A [b]" <a@x.test>'),
    "a backslash": ("A \\b <a@x.test>", '"A \\b" <a@x.test>'),
    "a dot beside an encoded word": ("Dr. =?utf-8?Q?J=C3=B6rg?= <j@x.test>", '"Dr. =?utf-8?Q?J=C3=B6rg?=" <j@x.test>'),
    "UTF-8 with a dot": ("Dr. Jörg <j@x.test>", '"Dr. Jörg" <j@x.test>'),
    "a group with a list": ("Team: A <a@x.test>,B <b@y.test>;", "Team: A <a@x.test>, B <b@y.test>;"),
    "a quoted name with a comma": ('"Doe, J." <j@x.test>,K. L. <k@y.test>', '"Doe, J." <j@x.test>, "K. L." <k@y.test>'),
}
SAME = {
    "an address": "a@x.test",
    "a name": "A B <a@x.test>",
    "a list": "A <a@x.test>, B <b@y.test>",
    "a folded list": "A <a@x.test>,\r\n B <b@y.test>",
    "a quoted name": '"Doe, J. (Jim) O\'X" <j@x.test>',
    "a quoted name with quotes": '"J \\"X.\\" Doe" <j@x.test>',
    "a quoted name without blank": '"A"<a@x.test>',
    "encoded words": "=?utf-8?Q?J=C3=B6rg?=\r\n =?utf-8?B?w7Y=?= <j@x.test>",
    "UTF-8": "Jörg <j@x.test>",
    "an empty group": "undisclosed-recipients:;",
    "a comment": "a@x.test (Alice, J. B.)",
    "a comment within": "A (J.) B <a@x.test>",
    "other characters": "A/B & C! *D* E+F G_H #1 ~ ? | <a@x.test>",
    "a quoted local part": '"a, b"@x.test, A <"a,b"@x.test>',
    "a literal": "a@[192.0.2.1]",
}


@pytest.mark.parametrize(("written", "sent"), CASES.values(), ids=CASES)
def test_what_changes(written: str, sent: str) -> None:
    assert rewrite(written.replace("\r\n ", " ").encode()).decode() == sent


@pytest.mark.parametrize("written", SAME.values(), ids=SAME)
def test_what_stays_is_signed_as_it_was_written(written: str) -> None:
    fields = (HeaderField(b"To", b"  " + written.encode()), HeaderField(b"Subject", b" a,b"))
    assert as_sent(Message(fields)).fields == fields


def test_every_field_of_addresses_is_looked_at_and_no_other() -> None:
    names = (b"From", b"TO", b"cc", b"Reply-To", b"Sender", b"Resent-To", b"Subject", b"List-Unsubscribe")
    message = as_sent(Message(tuple(HeaderField(name, b" a@x.test,b@y.test") for name in names), body_size=7))
    assert [name for name, value in message.fields if b", " in value] == list(names[:6])
    assert message.body_size == 7


def test_what_is_too_much_is_left_as_it_is() -> None:
    listed = HeaderField(b"Cc", b" a@x.test,b@y.test")
    much = HeaderField(b"To", b" " + b"a@x.test,b" * (MAX_REWRITTEN // 10 + 1))
    sent = as_sent(Message((listed, much, listed))).fields
    assert sent == (listed, much, listed)


@pytest.mark.parametrize("piece", [b'"', b"(", b"<", b"\\", b",", b"a.", b'"a"<', b"(\\", b"\xff\x00 "])
def test_whatever_is_written_it_ends_soon(piece: bytes) -> None:
    started = time.process_time()
    for text in (piece * (200_000 // len(piece)), piece + b"a@x.test, b"):
        rewrite(text)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(("version", "is_it"), [("8.17.1.9", True), ("Postfix 3.7.11", False), ("", False)])
def test_sendmail_is_known_by_its_version(version: str, is_it: bool) -> None:
    assert Connection(mta_version=version).by_sendmail is is_it
