"""The words of what a message shows."""

import pytest

from authmilter.model import Message
from authmilter.stored_mail import message_of
from authmilter.text_words import MAX_TEXTS, MAX_WORDS, subject_words, text_words, words


def of(text: str, head: str = "Subject: s\n") -> Message:
    found = message_of(f"{head}\n{text}".encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("Win a PRIZE, now.", ["win", "a", "prize", "now"], id="in their order, in lower case"),
        pytest.param("100% for $5", ["100%", "for", "$5"], id="signs of money and per cent"),
        pytest.param("Win!Now!!", ["win", "!", "now", "!", "!"], id="exclamation marks are words"),
        pytest.param("don\u2019t", ["don't"], id="an apostrophe of either kind"),
        pytest.param("pri\u200bze", ["prize"], id="signs that can't be seen"),
        pytest.param("\u00dcBER \u00a0uns", ["\u00fcber", "uns"], id="letters beyond ASCII"),
        pytest.param("\u4e2d\u5956 ok", ["\u4e2d", "\u5956", "ok"], id="what is written without blanks"),
        pytest.param("a \udc80 b", ["a", "b"], id="octets that could not be read"),
        pytest.param("", [], id="none"),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert [word.decode() for word in words(text)] == found


def test_what_is_beside_the_text_comes_last() -> None:
    beside = 'Content-Type: multipart/mixed; boundary="b"\n'
    found = text_words(of("preamble\n--b\n\nHello\n--b--\nepilogue\n", beside))
    assert [one.in_order for one in found if one.part.kind == "part"] == [[b"hello"]]
    assert found[0].in_order == [b"hello"]


def test_a_text_has_its_words_once_and_in_order() -> None:
    (one,) = text_words(of("to be or not to be"))
    assert one.in_order == b"to be or not to be".split()
    assert one.different == {b"to", b"be", b"or", b"not"}


def test_html_is_what_it_shows() -> None:
    (one,) = text_words(of("<p>good <b>day</b></p><div style='display:none'>poison</div>", "Content-Type: text/html\n"))
    assert one.in_order == [b"good", b"day"]


def test_they_are_made_once() -> None:
    message = of("hello")
    assert text_words(message) is text_words(message)


def test_there_is_an_end() -> None:
    parts = "".join(f"--b\n\n{'w ' * 2 * MAX_WORDS}\n" for _ in range(2 * MAX_TEXTS))
    found = text_words(of(f"{parts}--b--\n", 'Content-Type: multipart/mixed; boundary="b"\n'))
    assert len(found) == MAX_TEXTS
    assert {len(one.in_order) for one in found} == {MAX_WORDS}


def test_those_of_the_subject_are_decoded() -> None:
    assert subject_words(of("", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= an Bob\n")) == [
        "gr\u00fc\u00dfe".encode(),
        b"an",
        b"bob",
    ]
    assert subject_words(of("", "From: a@b.example\n")) == []
