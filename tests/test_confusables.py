"""How texts read to whoever only looks at them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.confusables import _TABLE, mixes_scripts, plain, script, skeleton


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        pytest.param("PayPal", "paypal", id="ASCII"),
        pytest.param("раураӏ", "paypai", id="Cyrillic, whose palochka reads as an i to Unicode"),
        pytest.param("Αmazοn", "amazon", id="Greek capitals and small letters"),
        pytest.param("päypál", "paypal", id="accents"),
        pytest.param("p\u200ba\u2060y\u00adp\u034fal", "paypal", id="what nobody sees"),
        pytest.param("𝐏𝐚𝐲𝐏𝐚𝐥", "paypal", id="mathematical letters"),
        pytest.param("ｐａｙｐａｌ", "paypal", id="full width"),
        pytest.param("ⓟⓐⓨⓟⓐⓛ", "paypal", id="circled letters"),
        pytest.param("ᴘᴀʏᴘᴀʟ", "ᴘᴀyᴘᴀʟ", id="small capitals, most of which Unicode takes for no look-alikes"),
        pytest.param("日本", "日本", id="letters that look like nothing else"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_plain(text: str, reading: str) -> None:
    assert plain(text) == reading


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("paypal", "paypa1"),
        ("paypal", "раураl"),
        ("google", "g00gle"),
        ("microsoft", "rnicrosoft"),
        ("wells", "vvells"),
        ("dell", "clell"),
        ("illinois", "lllinois"),
    ],
)
def test_what_looks_alike_has_the_same_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


def test_what_does_not_look_alike_has_another() -> None:
    assert skeleton("example") != skeleton("exomple")


@pytest.mark.parametrize(
    ("word", "mixed"),
    [
        ("account", False),
        ("аccount", True),
        ("аккаунт", False),
        ("Ελλάδα", False),
        ("Αmazon", True),
        ("kΩ", False),
        ("café", False),
        ("日本jp", False),
        ("", False),
    ],
)
def test_mixed_scripts(word: str, mixed: bool) -> None:
    assert mixes_scripts(word) is mixed


@pytest.mark.parametrize(("char", "name"), [("a", "LATIN"), ("ж", "CYRILLIC"), ("\x00", ""), ("日", "CJK")])
def test_script(char: str, name: str) -> None:
    assert script(char) == name


def test_the_table_has_single_characters_that_case_folding_leaves() -> None:
    assert len(_TABLE) > 250
    for code, letter in _TABLE.items():
        assert not chr(code).isascii()
        assert chr(code).casefold() == chr(code)
        assert letter.isascii()
        assert letter.isalnum()


@given(st.text())
def test_any_text_has_a_reading_and_a_skeleton(text: str) -> None:
    assert plain(plain(text)).isascii() or not plain(text).isascii()
    skeleton(text)
    mixes_scripts(text)
