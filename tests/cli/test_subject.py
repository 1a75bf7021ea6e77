"""Whom a key names."""

from typing import Any

import pytest

from authmilter.addresses import parse_path
from authmilter.checks.greylist import _triplet
from authmilter.cli.subject import Subject

KEY = "192.0.2.0/24 alice@example.org bob@example.net"

NAMED = [
    ("its own mailbox", "alice@example.org", KEY),
    ("in another case", "Alice@EXAMPLE.org", KEY),
    ("in angle brackets", "<alice@example.org>", KEY),
    ("a recipient", "bob@example.net", KEY),
    ("the domain of a mailbox", "example.org", KEY),
    ("a domain with an at sign", "@example.org", KEY),
    ("a domain on its own", "example.org", "spf example.org"),
    ("an address in the network", "192.0.2.77", KEY),
    ("an address literal", "[192.0.2.77]", KEY),
    ("the network", "192.0.2.0/24", KEY),
    ("a wider network", "192.0.0.0/16", KEY),
    ("the network, with a host in it", "192.0.2.7/24", KEY),
    ("an address itself", "192.0.2.7", "client 192.0.2.7 messages/60"),
    ("IPv6 in its /64", "2001:db8::7", "2001:db8::/64 a@example.org b@example.net"),
    ("IPv6 written out", "2001:0DB8:0000::7", "client 2001:db8::7"),
    ("a login", "alice", "login alice messages/3600"),
    ("a login that is a mailbox", "alice@example.org", "login alice@example.org messages/3600"),
    ("a login with blanks", "Alice Adams", "login alice adams messages/3600"),
    ("a login with wide letters", "Ａｌｉｃｅ", "login alice messages/3600"),
    ("a U-label", "bücher.example", "spf xn--bcher-kva.example"),
    ("a mailbox at a U-label", "a@bücher.example", "a@xn--bcher-kva.example example.net"),
    ("a sender whose digits are not kept", "bounce-17-x9@lists.example", "lists.example bounce-#-#@lists.example b@x.example"),
    ("a sender with a tag that is not kept", "ann+tag@lists.example", "lists.example ann@lists.example b@x.example"),
]  # fmt: skip
NOT_NAMED = [
    ("another mailbox of the domain", "carol@example.org", KEY),
    ("the end of a mailbox", "ice@example.org", KEY),
    ("the end of a domain", "ample.org", KEY),
    ("a parent domain", "example.org", "spf mail.example.org"),
    ("a subdomain", "mail.example.org", KEY),
    ("a mailbox by a domain above it", "a@example.org", "spf example.org"),
    ("another network", "192.0.3.1", KEY),
    ("the other family", "::ffff:192.0.2.1", KEY),
    ("digits of a number", "1", "login alice messages/3600"),
    ("part of a login", "alic", "login alice messages/3600"),
    ("an empty key", "example.org", ""),
    ("a sender with other letters", "bounce-17-x9@lists.example", "lists.example other-#-#@lists.example b@x.example"),
]


@pytest.mark.parametrize(("text", "key"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_named(text: str, key: str) -> None:
    assert Subject(text).is_named_by(key)


@pytest.mark.parametrize(("text", "key"), [row[1:] for row in NOT_NAMED], ids=[row[0] for row in NOT_NAMED])
def test_not_named(text: str, key: str) -> None:
    assert not Subject(text).is_named_by(key)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("192.0.2.7", ["192.0.2.0/24", "192.0.2.7"]),
        ("2001:db8::7", ["2001:db8::/48", "2001:db8::/64", "2001:db8::7"]),
        ("192.0.2.0/24", ["192.0.2.0/24"]),
        ("Example.ORG", ["example.org"]),
    ],
)
def test_keys_of_it_alone(text: str, keys: list[str]) -> None:
    assert Subject(text).keys() == keys


VALUES: dict[str, list[Any]] = {"period": [60.0, 3600.0], "domain": ["example.net"], "nothing": []}


@pytest.mark.parametrize(
    ("form", "made"),
    [
        ("login {subject} x/{period:g}", {"login a@example.org x/60", "login a@example.org x/3600"}),
        ("{subject} {domain}", {"a@example.org example.net"}),
        ("{subject} {nothing}", set()),
        ("{period:g} {subject} {network}", set()),
    ],
    ids=["two fields", "a domain of ours", "a field without values", "a field that nobody knows"],
)
def test_keys_by_their_form(form: str, made: set[str]) -> None:
    subject = Subject("A@example.org")
    assert set(subject.keys([form], VALUES)) == {*subject.keys(), *made}


def test_a_subject_that_looks_like_a_format_string_is_none() -> None:
    assert "{period} 60" in Subject("{period}").keys(["{subject} {period:g}"], VALUES)


@pytest.mark.parametrize(
    "sender",
    ["alice@example.org", "a.b-c@example.org", "Bounce-17-x9=q@Lists.Example", "srs0=h4sh=tt=a.example=bob@example.org",
     "news+123-bob=example.net@lists.example", "a1b2+c3@bücher.example", "\"a b\"@example.org", "0@example.org"],
)  # fmt: skip
def test_every_sender_is_named_by_its_greylisted_triplet(sender: str) -> None:
    path = parse_path(f"<{sender}>".encode())
    recipient = parse_path(b"<bob@example.net>")
    assert path is not None
    assert recipient is not None
    assert Subject(sender).is_named_by(_triplet("192.0.2.0/24", path, recipient))
