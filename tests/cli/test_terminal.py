"""What commands write."""

import pytest

from authmilter.cli.terminal import duration, escaped, table, unescaped


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (125, "2m 5s"), (3600, "1h"), (3605, "1h"), (7380, "2h 3m"),
     (86400, "1d"), (86400 * 3 + 4 * 3600 + 59, "3d 4h"), (86400 * 400, "400d"), (-5, "0s")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b@example.org", "a b@example.org"),
        ("bücher", "bücher"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\0", r"a\nb\tc\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egro.elpmaxe", r"\u202egro.elpmaxe"),
        ("\U000e0041", r"\U000e0041"),
        ("\udc80", r"\udc80"),
        (r"a\nb", r"a\\nb"),
        ("\\", "\\\\"),
    ],
)
def test_what_is_escaped_comes_back(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert unescaped(shown) == text


@pytest.mark.parametrize("text", [r"\q", r"\x1", r"\U00110000", "a\\"])
def test_what_is_no_escape_stays(text: str) -> None:
    assert unescaped(text) == text


def test_a_table() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b", "12")], right=1) == ["a    bb   c", "aaa  b   12"]
