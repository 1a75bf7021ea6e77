"""Address fields as Sendmail sends them; tests/rig/test_sendmail.py holds the same cases against a real one."""

import time

import pytest

from authmilter.auth.sendmail_form import MAX_ADDRESSES, MAX_REWRITTEN, as_sent, rewrite
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
    "a comment without blank": ("a@x.test(A)(B), b@y.test", "a@x.test (A) (B), b@y.test"),
    "a comment in front": ("(A)a@x.test", "(A) a@x.test"),
    "dots before a comment with a quote": ('J. (b"c) <a@x.test>', '"J. (b\\"c)" <a@x.test>'),
    "a semicolon in a name": ("A; B <a@x.test>", '"A; B" <a@x.test>'),
    "a group with a dot": ("J. Team: a@x.test ;", '"J. Team": a@x.test;'),
    "a group with an apostrophe": ("Bob's Team:a@x.test;", '"Bob\'s Team":a@x.test;'),
    "a group with quotes and a dot": ('"T" M. : a@x.test;', '"\\"T\\" M." : a@x.test;'),
    "a group with square brackets behind": ("T]: a@x.test;", '"T]": a@x.test;'),
    "a name with dots in a group": (
        "Team: J. R. <a@x.test>,K. L.<b@x.test>;",
        'Team: "J. R." <a@x.test>, "K. L."<b@x.test>;',
    ),
    "a semicolon in a group": ("T: a;b <a@x.test>;", 'T: "a;b" <a@x.test>;'),
    "two groups": ("T: a@x.test;,U. V.: J. R. <b@x.test>;", 'T: a@x.test;, "U. V.": "J. R." <b@x.test>;'),
    "a name of many words": ("Long " * 60 + "<a@x.test>,B <b@y.test>", "<a@x.test>, B <b@y.test>"),
    "many encoded words": ("=?utf-8?B?QUJDREVGR0hJSktMTU5PUFFSU1RVVldY?=\r\n " * 7 + "<a@x.test>", "<a@x.test>"),
    "a long name with dots": ("J. R. " * 60 + "<a@x.test>", "<a@x.test>"),
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
    "a literal of IPv6": "A <a@[IPv6:2001:db8::1]>",
    "a comment in a comment": "a@x.test (A (B (C)))",
    "a comment with a comma": "a@x.test (A, B), b@y.test",
    "a comment with a quote": 'A (b"c) <a@x.test>, "x, y" <b@y.test>',
    "a comment with quoted pairs": "a@x.test (\\) \\\\), b@y.test",
    "a comment with an address": "a@x.test (<b@y.test>; b)",
    "a comment behind brackets": "A <a@x.test>(b)(c), d@x.test",
    "a quoted pair": 'A "B\\\\" C <a@x.test>',
    "a quoted pair in a local part": '"a\\"b"@x.test',
    "relays in a local part": "a%b.test@x.test, x!y@z.test",
    "odd local parts": ".a..b.@x.test, a'b/c=d{e}|f~g`^h@x.test, $j@x.test, *@x.test",
    "a group": "Team: a@x.test, B <b@y.test>;",
    "a group without end": "Team: a@x.test",
    "a group without blanks": "Team:<a@x.test>;",
    "a quoted name of a group": '"J. Team": a@x.test;',
    "groups and addresses": "T: ;, a@x.test, U: A <a@x.test> (x) ;",
    "a group in UTF-8": "Mannschaft für Köln: a@x.test;",
    "a long name": "A " * 100 + "<a@x.test>",
    "a long name in UTF-8": "Ä" * 64 + " <a@x.test>",
    "a long list": ",\r\n ".join(f"User {number} <u{number}@x.test>" for number in range(300)),
}
# What Sendmail makes of these depends on where it runs, or is not worth to be foreseen.
UNFORESEEN = {
    "no domain": "root",
    "no domain in a list": "A <a@x.test>, Operator <root>",
    "a domain of its own": "a@localhost",
    "UUCP": "a@x.UUCP",
    "a relay without domain": "a%b",
    "a dot at the end": "A <a@x.test.>",
    "a route": "A <@a.test,@b.test:c@d.test>",
    "a route without brackets": "@a.test:b@c.test",
    "comments in front": "(A) (B)a@x.test",
    "blanks within an address": "A <a @ x.test>",
    "blanks in brackets": "A < a@x.test >",
    "a comment within an address": "a(c)@x.test",
    "a comment in brackets": "A <a@x.test(c)>",
    "a comment that does not end": "a@x.test (Alice",
    "a comment that does not begin": "a@x.test Alice)",
    "a quoted pair in an address": "a\\ b@x.test",
    "a quoted comma": "A\\, B <a@x.test>",
    "a backslash at the end": "a@x.test\\",
    "a comma in an encoded word": "=?utf-8?Q?Doe,_J?= <j@x.test>",
    "semicolons for commas": "a@x.test; b@y.test",
    "semicolons between names": "A <a@x.test>; B <b@y.test>",
    "a colon in a name": "Re: A: B <a@x.test>",
    "a colon in brackets": "A [b: c] <a@x.test>",
    "two addresses": "A <a@x.test> <b@y.test>",
    "brackets in brackets": "A <<a@x.test>>",
    "brackets that do not end": "A <a@x.test, B <b@y.test>",
    "brackets that do not begin": "A a@x.test>",
    "blanks for commas": "a@x.test b@y.test",
    "a quote that does not end": '"Alice <a@x.test>',
    "a quote behind": 'A <a@x.test>"',
    "DECnet": "host::user",
    "UTF-8 in an address": "日本@x.test",
    "a control character": "A\x01B <a@x.test>",
    "a long local part": "a" * 250 + "@x.test",
    "a long name and address": "A" * 150 + " <" + "b" * 100 + "@x.test>",
    "a long word": "A" * 250 + " <a@x.test>",
    "a long quoted name": '"' + "A " * 140 + '" <a@x.test>',
    "a long comment": "a@x.test (" + "A" * 250 + ")",
    "a name that is just too long": "A " * 123 + "<a@x.test>",
    "many spaces": "A" + " " * 250 + "<a@x.test>",
    "a name of very many words": "A. " * 700 + "<a@x.test>",
    "a long name of a group": "A " * 125 + ": a@x.test;",
}
VERY_MANY = ",".join(f"u{number}@x.test" for number in range(MAX_ADDRESSES + 2))


@pytest.mark.parametrize(("written", "sent"), CASES.values(), ids=CASES)
def test_what_changes(written: str, sent: str) -> None:
    assert rewrite(written.replace("\r\n ", " ").encode()) == sent.encode()


@pytest.mark.parametrize("written", SAME.values(), ids=SAME)
def test_what_stays_is_signed_as_it_was_written(written: str) -> None:
    fields = (HeaderField(b"To", b"  " + written.encode()), HeaderField(b"Subject", b" a,b"))
    message, unforeseen = as_sent(Message(fields))
    assert message.fields == fields
    assert not unforeseen


@pytest.mark.parametrize("written", UNFORESEEN.values(), ids=UNFORESEEN)
def test_what_cannot_be_foreseen_is_named_and_left_as_it_is(written: str) -> None:
    fields = tuple(HeaderField(name, b" " + written.encode()) for name in (b"From", b"To", b"Reply-To"))
    message, unforeseen = as_sent(Message((*fields, HeaderField(b"Cc", b" a@x.test,b@y.test"))))
    assert message.fields[:3] == fields
    assert unforeseen == {b"to", b"reply-to"}, "From has to be signed"
    assert message.fields[3].value == b" a@x.test, b@y.test"


def test_every_field_of_addresses_is_looked_at_and_no_other() -> None:
    names = (b"From", b"TO", b"cc", b"Reply-To", b"Sender", b"Resent-To", b"Subject", b"List-Unsubscribe")
    message, _ = as_sent(Message(tuple(HeaderField(name, b" a@x.test,b@y.test") for name in names), body_size=7))
    assert [name for name, value in message.fields if b", " in value] == list(names[:6])
    assert message.body_size == 7


@pytest.mark.parametrize("much", [VERY_MANY.encode(), b"A <a@x.test>" + b" " * MAX_REWRITTEN], ids=["many", "long"])
def test_what_is_too_much_is_left_as_it_is(much: bytes) -> None:
    fields = tuple(
        HeaderField(name, b" " + value)
        for name, value in ((b"Cc", b"a,b"), (b"To", much), (b"From", b"a@x.test,b@x.test"))
    )
    sent, unforeseen = as_sent(Message(fields))
    assert sent.fields == (*fields[:2], HeaderField(b"From", b" a@x.test, b@x.test"))
    assert unforeseen == {b"to", b"cc"}


PIECES = [
    b'"', b"(", b"<", b"\\", b",", b"a.", b'"a"<', b"(\\", b"\xff\xff ", b"a@x.test,", b"J. (x) <a@x.test>,", b"(a)", b"(a)(",
    b"((((a))))", b"A:", b"a@x.test;,", b'"a" ', b"a@a.", b'""', b"T: a@x.test;,", b"Long. ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_whatever_is_written_it_ends_soon(piece: bytes) -> None:
    """128 KB in one field or in many; the bound is ten times what it takes on a slow machine."""
    many = piece * (2**17 // len(piece))
    forms = [(HeaderField(b"To", b" " + many + end),) for end in (b"", b"a@x.test", b"<a@x.test>")] + [
        tuple(HeaderField(b"To", b" " + piece * 40 + b"a@x.test") for _ in range(2**17 // len(piece) // 40))
    ]
    forms += [
        (HeaderField(b"To", b" " + many[: MAX_REWRITTEN - 20] + end),) for end in (b"", b"a@x.test", b"<a@x.test>")
    ]
    for fields in forms:
        started = time.process_time()
        as_sent(Message(fields))
        assert time.process_time() - started < 0.06


@pytest.mark.parametrize(("version", "is_it"), [("8.17.1.9", True), ("Postfix 3.7.11", False), ("", False)])
def test_sendmail_is_known_by_its_version(version: str, is_it: bool) -> None:
    assert Connection(mta_version=version).by_sendmail is is_it
