"""The scanner agrees with configparser, and finds what configparser can't say."""

import configparser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.config.scan import scan


def by_configparser(text: str) -> dict[str, dict[str, str]] | None:
    """What configparser reads; None if it refuses the text."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",), default_section="\0")
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    return {title.strip(): dict(parser[title]) for title in parser.sections()}


def by_scan(text: str) -> dict[str, dict[str, str]] | None:
    """The same from `scan`; None if there is a problem or something comes twice."""
    sections, problems = scan(text)
    if problems:
        return None
    found = {s.title: {entry.name: entry.text for entry in s.entries} for s in sections}
    twice = len(found) < len(sections) or any(len(found[s.title]) < len(s.entries) for s in sections)
    return None if twice else found


LINES = st.sampled_from(
    [
        "[one]", "[two]", " [one]", "[sign *.example.org]  ; c", "[]", "[]]", "[a]b]", "a = 1", "A: 2", "b=x ; comment", "b = x;y", "c =", "d",
        "= 1", "e == f:g", "e : = g", "  more", "\tmore", "    still = more ; c", "", "   ", "# c", "  # c", "; c", "  ;c", "x = # y", ";", "h = ;z", "é = ü",
    ]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(LINES, max_size=9), st.sampled_from(["\n", "\r\n", "\r"]))
def test_agrees_with_configparser(lines: list[str], end: str) -> None:
    text = end.join(lines)
    assert by_scan(text) == by_configparser("\n".join(lines))


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("[]=:;# \tab\n"), max_size=40))
def test_agrees_with_configparser_on_any_text(text: str) -> None:
    ours = by_scan(text)
    if ours is not None:  # we refuse a little more: text behind a section
        assert ours == by_configparser(text)


@given(st.text())
def test_never_fails(text: str) -> None:
    sections, problems = scan(text)
    assert all(section.line >= 1 for section in sections)
    assert all(problem.message for problem in problems)


def test_lines_are_counted_from_one() -> None:
    sections, problems = scan("# head\n[one]\na = 1\n  2\n\nb = 3\n[two]\n")
    assert problems == []
    assert [(s.line, s.title) for s in sections] == [(2, "one"), (7, "two")]
    assert sections[0].entries == [(3, "a", "1\n2"), (6, "b", "3")]


@pytest.mark.parametrize(
    ("text", "line", "section", "message"),
    [
        ("a = 1", 1, "", "option 'a' stands before any section"),
        ("\n[one]\njunk", 3, "one", "'junk' is neither [section] nor option = value"),
        ("[one]\n= 1", 2, "one", "'= 1' is neither [section] nor option = value"),
        ("[one", 1, "", "'[one' is neither [section] nor option = value"),
        ("[one] a = 1", 1, "one", "'a = 1' behind the section; a comment there begins with ';'"),
        ("[one]\na = \0", 2, "one", r"control character '\x00'"),
        ("[one]\na = \x1b[0m", 2, "one", r"control character '\x1b'"),
    ],
    ids=[
        "option before a section",
        "line without delimiter",
        "option without name",
        "section not closed",
        "text behind a section",
        "NUL",
        "escape character",
    ],
)
def test_says_what_is_wrong_with_a_line(text: str, line: int, section: str, message: str) -> None:
    assert scan(text)[1][0] == (line, section, message)


def test_ten_thousand_continued_lines_are_read_in_one_go() -> None:
    text = "[one]\na =" + "\n  x ;" * 10_000
    sections, problems = scan(text)
    assert problems == []
    assert sections[0].entries[0].text == "\n" + "\n".join(["x"] * 10_000)
