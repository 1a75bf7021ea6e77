"""What a text is about, by its words."""

import time

import pytest

from authmilter.checks.topics import _ALL, _COUNTS, _TOPICS, topics
from authmilter.model import Transaction
from authmilter.stored_mail import message_of
from authmilter.text_words import words
from tests.checks.tools import computed, tools

FILLER = " ".join(f"filler{number}" for number in range(400))


def found(text: str, head: str = "Subject: s\n") -> dict[str, str]:
    message = message_of(f"{head}\n{text}".encode())
    assert message is not None
    return {one.symbol: one.detail for one in computed(topics, Transaction(message=message), tools())}


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        pytest.param("Cheap Viagra and Cialis, no doctor needed", "topic_medicine", id="medicine"),
        pytest.param("Hot girls, nude photos, live on webcam", "topic_adult", id="pornography"),
        pytest.param(
            "Dear friend, I am the widow of a late diplomat of Ghana. Eight million dollars are in a bank, and I need your "
            "assistance for the transfer. It is urgent and confidential.",
            "topic_fortune",
            id="a fortune",
        ),
        pytest.param("Congratulations! You have won the lottery, claim your prize", "topic_prize", id="a prize"),
        pytest.param("Refinance your mortgage at lowest rates, any credit, no debt", "topic_credit", id="credit"),
        pytest.param(
            "Earn money: an income without a boss, guaranteed profit, unlimited potential, cash weekly",
            "topic_riches",
            id="riches",
        ),
        pytest.param(
            "You receive this since you opted in with our partners.  To be removed from future mailings of offers, reply: remove",
            "topic_removal",
            id="removal",
        ),
        pytest.param(
            "Act today! Free shipping, special prices, satisfaction guaranteed, limited offer, exclusive discount, save",
            "topic_sale",
            id="a sale",
        ),
        pytest.param("Replica Rolex watches", "topic_replica", id="replicas"),
        pytest.param("Play roulette in our casino, win a bonus", "topic_gambling", id="games"),
        pytest.param("A university diploma without study or tests, no experience", "topic_diploma", id="degrees"),
        pytest.param(
            "Millions of fresh email addresses, verified, targeted: promote your shop", "topic_addresses", id="addresses"
        ),
        pytest.param(
            "Your account is suspended. Verify your password within 48 hours, or it will be restricted. Click below to confirm "
            "your identity",
            "topic_account",
            id="an account",
        ),
        pytest.param("DHL parcel pending: confirm your address, customs fee", "topic_parcel", id="a parcel"),
        pytest.param(
            "I hacked your device and recorded you with your webcam. All your contacts, family and friends get the video, unless "
            "my wallet has payment in bitcoin",
            "topic_extortion",
            id="extortion",
        ),
        pytest.param(
            "Your Norton subscription was renewed, the invoice is charged. For cancellation or refund", "topic_renewal", id="renewal"
        ),
    ],
)  # fmt: skip
def test_topics(text: str, symbol: str) -> None:
    assert symbol in found(text)
    assert symbol in found(f"<p>{text}</p>", "Content-Type: text/html\n")
    assert symbol not in found(
        f"{text} {FILLER} {FILLER.replace('filler', 'more')}"
    )  # a word here and there is no topic


def test_each_topic_has_an_example_here() -> None:
    mark = next(mark for mark in test_topics.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {parameter.values[1] for parameter in mark.args[1]} == _TOPICS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "Hello Bob,\n\nthe order came yesterday and all is well.  Shall we meet on Tuesday?\n\nAlice\n",
        "The build failed: error in line 12.  Please review the patch and verify that the test covers the account of users.\n",
        "Dear customer,\n\nyour invoice 1234 is attached.  The amount is due within 14 days.\n\nKind regards\nThe shop\n",
        "Dear Ms Doe,\n\nyour parcel was shipped today.  You can follow it at https://www.example.com/track/1.\n",
        "Your password was changed.  If that was not you, tell us at once: support@example.com.\n",
        "",
    ],
    ids=["a letter", "a developer", "an invoice", "a parcel", "a changed password", "nothing"],
)
def test_what_is_about_none(text: str) -> None:
    assert found(text) == {}


def test_the_subject_counts() -> None:
    assert "topic_replica" in found("Look here", "Subject: Rolex replica\n")


def test_what_is_hidden_or_beside_the_text_is_not_what_it_is_about() -> None:
    telling = "viagra cialis levitra"
    assert not found(f"<p>Hello</p><div style='display:none'>{telling}</div>", "Content-Type: text/html\n")
    mixed = 'Content-Type: multipart/mixed; boundary="b"\n'
    assert found(f"--b\n\n{telling}\n--b--\n", mixed)
    assert not found(f"--b\n\nHello\n--b--\n{telling}\n", mixed)


def test_words_are_told_in_order() -> None:
    assert found("rolex, gucci and cartier: replica watches")["topic_replica"] == "cartier gucci replica rolex watches"


def test_words_can_be_found() -> None:
    assert len(_ALL) == len(_COUNTS)
    for symbol, topic in _TOPICS.items():
        assert not topic.telling & topic.plain, symbol
        assert 2 * len(topic.telling) + len(topic.plain) >= 2 * topic.least
    assert [word for word in _ALL if words(word.decode()) != [word]] == []


def test_it_costs_little() -> None:
    text = " ".join(f"w{number}" for number in range(2000)) + " " + " ".join(word.decode() for word in sorted(_ALL))
    message = message_of(f"Subject: s\n\n{text}".encode() * 20)
    assert message is not None
    tx = Transaction(message=message)
    computed(topics, tx, tools())  # the words are made once for all
    began = time.process_time()
    for _ in range(20):
        computed(topics, tx, tools())
    assert time.process_time() - began < 20 * 0.005
