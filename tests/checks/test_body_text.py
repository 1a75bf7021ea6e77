"""The text as it is read."""

import time

import pytest

from authmilter.check import all_checks
from authmilter.checks.body_text import body_text
from authmilter.model import Transaction
from tests.checks.tools import computed, tools
from tests.test_mime import message

COIN = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"


def found(text: str, header: str = "Content-Type: text/plain; charset=utf-8") -> dict[str, str]:
    raw = f"{header}\n\n{text}".encode()
    return {f.symbol: f.detail for f in computed(body_text, Transaction(message=message(raw)), tools())}


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        pytest.param("See you on Tuesday.\n", set(), id="the usual"),
        pytest.param("Grüße aus Köln, до свидания, καλημέρα\n", set(), id="other alphabets"),
        pytest.param("a pass\u200bword\n", {"text_unseen"}, id="an unseen character in a word"),
        pytest.param("Silben\u00adtrennung and می\u200cخواهم\n", set(), id="soft hyphens and joiners"),
        pytest.param("\u200b beside\n", set(), id="an unseen character between words"),
        pytest.param("р\u0430ypal and m\u0456crosoft\n", {"text_mixed_scripts"}, id="two words of mixed scripts"),
        pytest.param("one m\u0456crosoft\n", set(), id="one word of mixed scripts"),
        pytest.param("\U0001d416\U0001d422\U0001d427\U0001d427\n", {"text_styled"}, id="letters of mathematics"),
        pytest.param("see \u24b6\n", set(), id="a circled letter"),
        pytest.param("\u202efdp.exe\n", {"text_override"}, id="a direction override"),
        pytest.param("BUY " * 80, {"text_capitals"}, id="capitals"),
        pytest.param("BUY NOW\n", set(), id="a line of capitals"),
        pytest.param("the sum of $10,500,000.00\n", {"text_large_sum"}, id="ten million dollars"),
        pytest.param("USD 4.500.000\n", {"text_large_sum"}, id="another way to write them"),
        pytest.param("$ 19 Million\n", {"text_large_sum"}, id="in words"),
        pytest.param("1.5 million US dollars\n", {"text_large_sum"}, id="with the currency behind"),
        pytest.param("TEN 10 MILLION POUNDS\n", {"text_large_sum"}, id="in capitals"),
        pytest.param("$10,500 for a million\n", set(), id="less"),
        pytest.param("Call 1-(888) 555-0100 today\n", {"text_toll_free"}, id="a toll-free number"),
        pytest.param("Call 1-888-555-0100\n", {"text_toll_free"}, id="another way to write it"),
        pytest.param("Call 202-555-0100, 1888-555-01000\n", set(), id="other numbers"),
        pytest.param(f"BTC: {COIN}\n", {"text_coin"}, id="a coin address"),
        pytest.param(f"bitcoin: {COIN[:-1]}U\n", set(), id="one whose checksum is wrong"),
        pytest.param(
            f"in 48 hours to {COIN} (BTC)\n", {"text_coin", "text_coin_deadline"}, id="a coin address and hours"
        ),
        pytest.param(f"BTC {COIN}, 148 hours, 72 ones\n", {"text_coin"}, id="other numbers"),
        pytest.param("within 48 hours\n", set(), id="hours"),
        pytest.param(f"x{chr(10) * 13}y\n", {"text_empty_lines"}, id="empty lines"),
        pytest.param("\n", {"text_empty"}, id="nothing"),
    ],
)
def test_text(text: str, symbols: set[str]) -> None:
    assert set(found(text)) == symbols


def test_html_is_looked_at_as_it_is_shown() -> None:
    header = "Content-Type: text/html"
    assert set(found("<p>$10,<b>500</b>,000</p>", header)) == {"text_large_sum"}
    assert found("<p title='$10,500,000'>x</p>", header) == {}
    assert set(found("<p><img src='http://x'></p>", header)) == {"text_empty"}


def test_a_message_without_text_but_with_a_file_is_not_empty() -> None:
    header = "Content-Type: multipart/mixed; boundary=x"
    assert found("--x\n\n\n--x\nContent-Type: image/png\n\nx\n--x--\n", header) == {}
    assert found("", "Subject: no body") == {}


def test_empty_parts_hide_nothing() -> None:
    header = "Content-Type: multipart/mixed; boundary=x"
    body = "--x\nContent-Type: text/plain\n\n\n" * 10 + "--x\n\nthe sum of $10,500,000.00\n--x--\n"
    assert set(found(body, header)) == {"text_large_sum"}


@pytest.mark.parametrize(
    "piece",
    [
        "BTC 1Boat",
        f"BTC {COIN} ",
        "bc1q",
        "48 ",
        "$",
        "$1",
        "$1,000",
        "8",
        "888",
        "888-555-",
        "1 million ",
        "a\u200b",
        "\u0456a",
        "\n",
        "USD ",
    ],
)
def test_megabytes_of_traps_take_little_time(piece: str) -> None:
    before = time.process_time()
    found(piece * (1024 * 1024 // len(piece)))
    assert time.process_time() - before < 1.0


def test_no_weight_tags_alone() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "body_text")
    assert all(isinstance(weight, float | int) and 0 <= weight <= 2.5 for weight in scores.values())
