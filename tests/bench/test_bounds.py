"""The hostile messages of `tests.bench.bounds`: the limits hold, no check fails, and the tool prints what it says."""

import asyncio
import logging
import sys

import pytest

from authmilter.archives import MAX_MEMBERS, read_archive
from authmilter.html_text import MAX_HTML, MAX_LINKS
from authmilter.mime import MAX_DECODED, MAX_DEPTH, MAX_PARTS, MAX_TEXT, Mime
from authmilter.urls import targets
from tests.bench import bounds
from tests.bench.bounds import BODY, CASES, Cost, line, parsed

MOST_FINDINGS = 60
MOST_TARGETS = 1000


@pytest.mark.parametrize("name", CASES)
def test_the_limits_hold(name: str) -> None:
    message = parsed(CASES[name]())
    message = message.with_body(len(message.body), {}, "", message.body[:BODY], body_cut=len(message.body) > BODY)
    taken = Mime(message)
    assert len(taken.parts) <= MAX_PARTS
    assert max(part.depth for part in taken.parts) <= MAX_DEPTH + 1
    assert sum(len(part.data) for part in taken.parts) <= MAX_DECODED
    for part in taken.parts:
        assert len(part.text) <= MAX_TEXT
        if part.html is not None:
            # A reference may stand for two characters, and a line end is put where there was a tag.
            assert len(part.html.text) + len(part.html.hidden) <= MAX_HTML
            assert len(part.html.links) <= MAX_LINKS
            assert len(part.html.images) <= MAX_LINKS
        assert len(part.names) <= 16
    for part in taken.parts[:3]:
        assert len(read_archive(part.data).members) <= MAX_MEMBERS
    assert len(targets(message)) <= MOST_TARGETS


@pytest.mark.parametrize(
    "name", ["multipart, 1,000 deep", "10,000 parts", "encoded words and RFC 2231 names", "1 MB of rules"]
)
def test_no_check_fails(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        case = asyncio.run(bounds.player().play(parsed(CASES[name]()), False, name))
    assert caplog.records == []
    assert 0 < len(case.found) < MOST_FINDINGS
    assert not [found.symbol for found in case.found if found.symbol.endswith("_error")]


def test_the_command_measures_in_a_child(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bounds", "--only", "multipart, 1,000"])
    with pytest.raises(SystemExit) as end:
        bounds.main()
    assert end.value.code == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["MB", "CPU", "s", "MB", "more"]
    assert row.startswith("multipart, 1,000 deep ")
    assert "mime_limits" in row


def test_what_is_too_dear_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "EXCESSIVE" not in line(Cost("a", 1, 1.9, 140.0))
    assert "EXCESSIVE" in line(Cost("a", 1, 2.1, 1.0))
    assert "EXCESSIVE" in line(Cost("a", 1, 0.1, 151.0))
    monkeypatch.setattr(bounds, "in_child", lambda name, _: [Cost(name, 1, 3.0, 1.0)])
    monkeypatch.setattr(sys, "argv", ["bounds", "--only", "ordinary"])
    with pytest.raises(SystemExit) as end:
        bounds.main()
    assert end.value.code == 1
    assert "EXCESSIVE" in capsys.readouterr().out


def test_memory_and_time_are_counted() -> None:
    raw = CASES["1 MB of nested hidden divisions"]()
    cost = bounds.measured("a", raw)
    assert (cost.name, cost.octets) == ("a", len(raw))
    assert cost.seconds > 0
    assert "html_only" in cost.note
