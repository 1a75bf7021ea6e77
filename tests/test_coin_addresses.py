"""Addresses of cryptocurrencies, told by their checksums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.coin_addresses import MAX_TRIED, coin_addresses

GOOD = [
    ("BTC", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"),
    ("BTC", "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
    ("BTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),  # BIP 173
    ("BTC", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"),
    ("BTC", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),  # BIP 350
    ("TRX", "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8"),
]


@pytest.mark.parametrize(("coin", "address"), GOOD, ids=[address for _, address in GOOD])
def test_addresses(coin: str, address: str) -> None:
    assert list(coin_addresses(f"BTC: {address}.")) == [(coin, address)]
    assert list(coin_addresses(f"BTC: x{address}")) == []
    assert list(coin_addresses(f"BTC: {address}x")) == []


@pytest.mark.parametrize(("coin", "address"), GOOD, ids=[address for _, address in GOOD])
def test_another_character_anywhere_makes_it_none(coin: str, address: str) -> None:
    for at in range(1, len(address)):
        other = "x" if address[at].lower() != "x" else "z"
        changed = address[:at] + (other.upper() if address.isupper() else other) + address[at + 1 :]
        assert list(coin_addresses(f"BTC: {changed}")) == []


def test_cases_of_bech32_do_not_mix() -> None:
    assert list(coin_addresses("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3T4")) == []


def test_nothing_is_looked_for_where_nothing_hints_at_coins() -> None:
    assert list(coin_addresses("1BoatSLRHtKNngkdXEeobR76b53LETtpyT")) == []


def test_no_more_words_are_tried_than_a_limit() -> None:
    fakes = "1BoatSLRHtKNngkdXEeobR76b53LETtpyU " * MAX_TRIED
    assert list(coin_addresses(f"BTC {fakes}{GOOD[0][1]}")) == []
    assert list(coin_addresses(f"BTC {fakes[35:]}{GOOD[0][1]}")) == [GOOD[0]]


@given(st.text(st.sampled_from("1bc0xlvBCLT3zZ "), max_size=120))
def test_any_text(text: str) -> None:
    assert list(coin_addresses(f"BTC {text}")) == []
