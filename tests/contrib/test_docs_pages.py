"""What all pages of contrib/docs have in common: options that exist, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.contrib.fences import DOCS, options_known, options_named
from tests.shared import ROOT

PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_options_that_a_page_names_are_there(page: Path) -> None:
    assert options_named(page.read_text(encoding="utf-8")) <= options_known()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_first_page_names_all_others() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {page.name for page in PAGES} - {"README.md"} <= set(re.findall(r"\]\(([^)]+)\)", text))


def test_options_are_found_in_a_text() -> None:
    assert options_named("`[spf] skip` `[dnsbl NAME]`\n`[policy]\nreject = 1`") == {
        ("spf", "skip"),
        ("dnsbl", ""),
        ("policy", "reject"),
    }
    assert ("spf", "skip") in options_known()
    assert ("spf", "skipp") not in options_known()
    assert ROOT in DOCS.parents
