"""Phrases of those whom nobody asked."""

import time

import pytest

from authmilter.checks.phrases import _PHRASES, phrases
from authmilter.model import Transaction
from authmilter.stored_mail import message_of
from authmilter.text_words import words
from tests.checks.tools import computed, tools


def found(text: str, head: str = "Subject: s\n") -> dict[str, str]:
    message = message_of(f"{head}\n{text}".encode())
    assert message is not None
    return {one.symbol: one.detail for one in computed(phrases, Transaction(message=message), tools())}


@pytest.mark.parametrize(
    ("text", "symbol", "said"),
    [
        pytest.param("If you wish to\n  be removed, reply.", "phrase_removal", "wish to be removed", id="across lines"),
        pytest.param("It is RISK-FREE!", "phrase_riskless", "risk free", id="with a hyphen, in capitals"),
        pytest.param("<b>Call</b> <i>now</i>", "phrase_hurry", "call now", id="across elements"),
        pytest.param("Dear Sir/Madam,\nI write", "phrase_greeting", "dear sir", id="a greeting"),
        pytest.param("Buy.\n100% guaranteed!", "phrase_riskless", "100% guaranteed", id="a sign"),
    ],
)
def test_phrases(text: str, symbol: str, said: str) -> None:
    assert found(text, "Content-Type: text/html\n" if "<" in text else "Subject: s\n") == {symbol: said}


@pytest.mark.parametrize(
    "text",
    [
        "Hello Bob,\n\nthe order came yesterday and all is well.  Shall we meet on Tuesday?\n\nAlice\n",
        "The call nowhere returns.  This flag is to be removed in the next release, at no risky cost.\n",
        "I am a dear friend.\n",
        "Dear Alice,\n",
        "Dear\n",
        "",
    ],
    ids=["a letter", "parts of words", "not at its beginning", "a name", "nobody", "nothing"],
)
def test_what_has_none(text: str) -> None:
    assert found(text) == {}


@pytest.mark.parametrize(
    ("subject", "is_one"),
    [("ADV: Cartridges", True), ("[ADV] Cartridges", True), ("Adv. of the day", True), ("Advice", False), ("Re: adv", False), ("", False)],
)  # fmt: skip
def test_advertisements_that_say_so(subject: str, is_one: bool) -> None:
    assert ("subject_adv" in found("text", f"Subject: {subject}\n")) is is_one


def test_what_is_beside_the_text_does_not_count() -> None:
    head = 'Content-Type: multipart/mixed; boundary="b"\n'
    assert found("--b\n\nCall now\n--b--\n", head)
    assert not found("Call now\n--b\n\nHello\n--b--\nCall now\n", head)


def test_each_phrase_can_be_found() -> None:
    for symbol, its in _PHRASES.items():
        for phrase in its:
            assert b" ".join(words(phrase.decode())) == phrase
            assert found(f"So: {phrase.decode()}.").keys() == {symbol}


def test_work_is_bounded() -> None:
    text = " ".join(phrase.decode().rpartition(" ")[0] for its in _PHRASES.values() for phrase in its)
    message = message_of(f"Subject: s\n\n{text} ".encode() * 2000)
    assert message is not None
    tx = Transaction(message=message)
    computed(phrases, tx, tools())  # the words are made once for all
    began = time.process_time()
    for _ in range(20):
        computed(phrases, tx, tools())
    assert time.process_time() - began < 20 * 0.01
