"""The check-lists say the same in both languages.  tests/packaging/test_start.py runs their commands."""

import re
from pathlib import Path

from tests.contrib.fences import DOCS


def items(page: Path) -> list[str]:
    """The items in their order, each with what belongs to it; their numbers have no gap."""
    found = re.findall(r"(?ms)^(\d+)\. (.*?)(?=^\d+\. |\Z)", page.read_text(encoding="utf-8"))
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [re.sub(r"\s+", " ", text) for _, text in found]


def words(item: str) -> list[str]:
    """Commands, options and values, in an order that does not depend on the language."""
    return sorted(re.findall(r"`([^`]+)`", item))


ENGLISH, GUJARATI = items(DOCS / "security.md"), items(DOCS / "security.gu.md")


def test_both_have_the_same_items_with_the_same_commands_and_options() -> None:
    assert len(ENGLISH) == len(GUJARATI) >= 10
    assert [words(item) for item in ENGLISH] == [words(item) for item in GUJARATI]
    assert all(re.match(r"\*\*.+?\*\*", item) for item in (*ENGLISH, *GUJARATI))


def test_one_is_in_gujarati_and_the_other_is_not() -> None:
    gujarati = re.compile("[\u0a80-\u0aff]")
    assert all(len(gujarati.findall(item)) > 20 for item in GUJARATI)
    assert not any(gujarati.search(item) for item in ENGLISH)


def test_each_fits_on_a_page() -> None:
    for page in (DOCS / "security.md", DOCS / "security.gu.md"):
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 60
