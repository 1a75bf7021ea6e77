"""The table of symbols, from a collection of three messages."""

import json
import sys
from pathlib import Path

import pytest

from authmilter.check import all_checks
from tests.bench import symbols

MESSAGES = {
    "ham": "Received: a\nFrom: Alice <alice@example.org>\nTo: user@example.net\nSubject: lunch\n"
    "Date: Tue, 14 Nov 2023 22:00:00 +0000\nMessage-ID: <1@example.org>\n\nhello\n",
    "spam": "Received: a\nFrom: Alice <alice@example.org>\nTo: user@example.net\nSubject: LAST\n WARNING\n"
    "Date: Tue, 14 Nov 2023 22:00:00 +0000\nMessage-ID: <1@example.org>\n\nhello\n",
    "refused": "Subject: hi\n\nhello\n",
}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    with (tmp_path / "train.jsonl").open("w") as index:
        for name, raw in MESSAGES.items():
            (tmp_path / f"{name}.eml").write_text(raw)
            facts = {"label": "ham" if name == "ham" else "spam", "set": "small", "path": f"{name}.eml", "ip": "",
                     "helo": "", "rdns": "", "mail_from": "alice@example.org", "rcpt": "user@example.net",
                     "time": 1_700_000_000}  # fmt: skip
            index.write(json.dumps(facts) + "\n")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["symbols", *map(str, arguments)])
    symbols.main()


CHECKS = ("--check", "subject_tricks", "header_form", "header_dates", "ambiguous_from")


def test_the_table(collection: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, collection, *CHECKS, "--json", collection / "out.jsonl")
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    assert lines["symbol"] == ["ham", "spam", "odds", "weight", "small/h", "small/s"]
    weight = next(check.scores["subject_capitals"] for check in all_checks() if check.name == "subject_tricks")
    assert lines["subject_capitals"] == ["0", "1", "0.7", str(weight), "0.00", "50.00"]
    assert lines["messages"] == ["1", "2", "1", "2"]
    assert "date_past" not in lines  # the clock is the time of receipt
    rows = [json.loads(line) for line in (collection / "out.jsonl").read_text().splitlines()]
    assert [row["symbols"] for row in rows[:2]] == [[], ["subject_capitals"]]
    assert [row["score"] for row in rows] == [0.0, weight, symbols.REFUSED]


def test_examples(collection: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, collection, *CHECKS, "--only", "subject_capitals")
    assert capsys.readouterr().out == "spam.eml subject_capitals ''\n"
