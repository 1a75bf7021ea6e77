"""Answers of DNS lists as Postfix writes them, and the symbols that they make."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.config.dnslist import Pattern, answer, list_name, parse_pattern, zone

PATTERNS = [
    ("127.0.0.2", "127.0.0.2", "_2"),
    ("127.0.0.10", "127.0.0.10", "_10"),
    ("127.0.0.0", "127.0.0.0", "_0"),
    ("127.0.0.[2..11]", "127.0.0.[2..11]", "_2to11"),
    ("127.0.0.[2;4..8]", "127.0.0.[2;4..8]", "_2or4to8"),
    ("127.0.[0..255].3", "127.0.[0..255].3", "_x_3"),
    ("127.0.5.1", "127.0.5.1", "_5_1"),
    ("127.0.5.0", "127.0.5.0", "_5_0"),
    ("127.1.0.2", "127.1.0.2", "_1_0_2"),
    ("127.[0..255].[0..255].[0..255]", "127.[0..255].[0..255].[0..255]", "_x_x_x"),
    ("127.0.0.[8;2..4;3;5]", "127.0.0.[2..5;8]", "_2to5or8"),
    ("127.0.0.[7]", "127.0.0.7", "_7"),
    ("127.0.0.[3..3]", "127.0.0.3", "_3"),
    ("127.000.00.02", "127.0.0.2", "_2"),
    ("[127].0.0.2", "127.0.0.2", "_2"),
    ("127.[0..255].255.2", "127.[0..255].255.2", "_x_255_2"),
    ("127.0.0.[&8]", "127.0.0.[&8]", "_bit8"),
    ("127.0.0.[&128]", "127.0.0.[&128]", "_bit128"),
]


@pytest.mark.parametrize(("text", "normal", "suffix"), PATTERNS, ids=[row[0] for row in PATTERNS])
def test_patterns_have_a_normal_form_and_a_symbol(text: str, normal: str, suffix: str) -> None:
    assert answer(text) == normal
    assert answer(normal) == normal
    assert parse_pattern(text).suffix == suffix


REFUSED = [
    ("128.0.0.2", "is outside of 127.0.0.0/8"),
    ("[126..128].0.0.2", "is outside of 127.0.0.0/8"),
    ("0.0.0.0", "is outside of 127.0.0.0/8"),
    ("127.255.255.254", "refuses a question"),
    ("127.255.255.[0..255]", "refuses a question"),
    ("127.0.0", "is not an answer such as"),
    ("127.0.0.2.1", "is not an answer such as"),
    ("127.0.0.", "is not an answer such as"),
    ("127.0.0.x", "is not an answer such as"),
    ("127.0.0.2-11", "is not an answer such as"),
    ("127.0.0.256", "no number or range in 0..255"),
    ("127.0.0.[11..2]", "no number or range in 0..255"),
    ("127.0.0.[2..]", "no number or range in 0..255"),
    ("127.0.0.[;]", "no number or range in 0..255"),
    ("127.0.0.[&3]", "which is none of"),
    ("127.0.0.[&256]", "which is none of"),
    ("127.0.0.&8", "is not an answer such as"),
    ("127.0.0.[]", "is not an answer such as"),
    ("127.0.0.[2", "is not an answer such as"),
    ("127.0.0.٢", "is not an answer such as"),
    ("", "is not an answer such as"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[row[0] or "nothing" for row in REFUSED])
def test_what_is_no_answer_of_a_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer(text)


@given(st.text(st.sampled_from("127.0[]; ..59x"), max_size=40) | st.text(max_size=20))
def test_any_text_is_read_or_refused_with_words(text: str) -> None:
    problem = ""
    try:
        normal = answer(text)
    except ValueError as error:
        problem = str(error)
    else:
        assert answer(normal) == normal
    assert "\n" not in problem


octets = st.frozensets(st.integers(0, 255), min_size=1)


@given(octets, octets, octets)
def test_what_is_written_reads_back(second: frozenset[int], third: frozenset[int], fourth: frozenset[int]) -> None:
    pattern = Pattern(second, third, fourth)
    if pattern.second == pattern.third == {255}:
        return
    assert parse_pattern(str(pattern)) == pattern
    assert set(pattern.suffix) <= set("_toxbi0123456789r")


def test_a_bit_stands_for_all_numbers_that_have_it() -> None:
    assert parse_pattern("127.0.0.[&64]").fourth == {number for number in range(256) if number & 64}


def test_different_answers_have_different_symbols() -> None:
    few = [frozenset(s) for s in ({0}, {1}, {1, 2}, {1, 3}, {1, 2, 3}, range(256), range(1, 256))]
    patterns = [Pattern(*three) for three in product(few, repeat=3)]
    assert len({pattern.suffix for pattern in patterns}) == len(patterns)


@pytest.mark.parametrize(("text", "name"), [("zen", "zen"), ("Spam_Cop2", "spam_cop2"), ("x" * 32, "x" * 32)])
def test_names(text: str, name: str) -> None:
    assert list_name(text) == name


@pytest.mark.parametrize("text", ["", "a b", "a-b", "a.b", "é", "x" * 33])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a name of up to 32"):
        list_name(text)


def test_zones_leave_room_for_an_address_and_a_key() -> None:
    longest = ".".join(["a" * 39] * 3)
    assert len(longest) == 119
    assert zone(f"{longest.upper()}.") == longest
    for text in ("exa mple", "a." + longest):
        with pytest.raises(ValueError, match=r"is not a domain|is longer than"):
            zone(text)
