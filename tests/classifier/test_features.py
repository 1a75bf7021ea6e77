"""What the classifier sees of a message."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.classifier.features import SLOTS, features
from authmilter.model import HeaderField, Message
from authmilter.stored_mail import message_of


def of(text: str, head: str = "Subject: s\n") -> frozenset[int]:
    found = message_of((head + "\n" + text).encode())
    assert found is not None
    return features(found)


def words(text: str) -> frozenset[int]:
    """What the text brings, beside how it is built."""
    return of(text) - of("") - of("\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Win a PRIZE now", "win a prize Now", id="letters of either case are the same"),
        pytest.param("win prize", "prize win win", id="neither order nor number of words counts"),
        pytest.param("don't", "Don't", id="an apostrophe is part of a word"),
        pytest.param("don\u2019t", "don't", id="nor how the apostrophe is written"),
        pytest.param("pri\u200bze w\u00adin", "prize win", id="signs that can't be seen do not hide a word"),
        pytest.param("prize\u00a0win \u201cnow\u201d", "prize win now", id="signs beyond ASCII are no letters"),
        pytest.param("ПРИЗ", "приз", id="letters of either case beyond ASCII"),
        pytest.param("HTTPS://A.Example/x?y", "https://a.example/x?y", id="links in capitals"),
        pytest.param("中奖", "奖中", id="letters without blanks between words are words"),
    ],
)
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert words(other)
    assert words(other) <= words(one)  # which may say besides that it is not ASCII


@pytest.mark.parametrize(
    ("text", "head", "other_text", "other_head"),
    [
        pytest.param(
            "prize", "Subject: a\n", "a", "Subject: prize\n", id="a word of the subject is not one of the text"
        ),
        pytest.param("", "From: a@x.example\n", "", "From: a@y.example\n", id="domain of the author"),
        pytest.param("", "X-Mailer: Bulk 3\n", "", "X-Mailer: Mutt 1\n", id="mailer"),
        pytest.param("", "X-Campaign: 1\n", "", "X-Ticket: 1\n", id="names of fields"),
        pytest.param(
            "", "Date: Fri, 21 Nov 2025 10:00:00 +0000\n", "", "Date: Fri, 21 Nov 2025 10:00:00 +0800\n", id="zone"
        ),
        pytest.param("http://a.example/", "A: b\n", "http://b.example/", "A: b\n", id="host of a link"),
        pytest.param(
            '<a href="http://a.example/">x</a>',
            "Content-Type: text/html\n",
            '<a href="http://b.example/">x</a>',
            "Content-Type: text/html\n",
            id="host of a link in HTML",
        ),
        pytest.param("<b>x</b>", "Content-Type: text/html\n", "<b>x</b>", "Content-Type: text/plain\n", id="type"),
    ],
)
def test_what_makes_a_difference(text: str, head: str, other_text: str, other_head: str) -> None:
    one, other = of(text, head), of(other_text, other_head)
    assert one - other
    assert other - one


@pytest.mark.parametrize(
    "field",
    [
        "Received",
        "Delivered-To",
        "X-Spam-Status",
        "X-Spam-Flag",
        "Authentication-Results",
        "ARC-Seal",
        "Return-Path",
        "X-UID",
    ],
)
def test_what_the_receiver_wrote_is_not_learned(field: str) -> None:
    assert of("text", f"{field}: spam\nSubject: s\n") == of("text")


def test_html_is_what_it_shows() -> None:
    shown = of("<p>good <b>day</b></p><div style='display:none'>poison</div>", "Content-Type: text/html\n")
    assert of("poison").isdisjoint(shown - of("", "Content-Type: text/html\n") - of("good day"))
    assert words("good day") <= shown


def test_a_part_behind_many_is_still_read() -> None:
    parts = "".join(f"--b\nContent-Type: text/plain\n\nfiller{n}\n" for n in range(6))
    found = of(
        f"{parts}--b\nContent-Type: text/html\n\n<p>payload</p>\n--b--\n",
        'Content-Type: multipart/mixed; boundary="b"\n',
    )
    assert words("payload") <= found


def test_it_is_made_once() -> None:
    message = Message((HeaderField(b"Subject", b" x"),), body=b"text")
    assert features(message) is features(message)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([b"From", b"Subject", b"Message-ID", b"Date", b"Content-Type", b"Reply-To", b"X"]),
                          st.binary(max_size=60))), st.binary(max_size=300))  # fmt: skip
def test_nothing_makes_it_fail(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    found = features(Message(tuple(HeaderField(*field) for field in fields), body=body))
    assert all(0 <= slot < SLOTS for slot in found)


def body_of(unit: str, size: int) -> Message:
    found = message_of(b"Subject: s\n\n" + (unit * (size // len(unit) + 1)).encode()[:size])
    assert found is not None
    return found


@pytest.mark.parametrize(
    "unit", ["word ", "://", "http://a", "http://a.b/?", "a'", "!", "\u4e2d", "<a href=http://x/>", "-- "]
)
def test_work_is_bounded(unit: str) -> None:
    def cost(size: int) -> float:
        least = 1.0
        for _ in range(3):
            message = body_of(unit, size)
            began = time.process_time()
            features(message)
            least = min(least, time.process_time() - began)
        return least

    # Beyond the bounds a message sixteen times as long may cost but its decoding.
    assert cost(1_600_000) < 5 * cost(100_000) + 0.02
