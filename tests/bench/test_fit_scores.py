"""The detection table and the fitting of weights, on a collection made up here."""

import json
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the extra `bench` is not installed")

from tests.bench import detect, fit_scores  # noqa: E402
from tests.classifier.mail import raw  # noqa: E402


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each collection and kind 240 messages; spam shouts in two of three."""
    folder = tmp_path_factory.mktemp("collection")
    with (folder / "train.jsonl").open("w") as index:
        for name, group in (("ham-lists", ""), ("spamassassin-public", "hard-ham-1")):
            for number in range(240):
                for spam in (False, True):
                    octets = raw(number, spam, name).replace(
                        b"Date: Fri, 21 Nov 2025 10:00", b"Date: Tue, 14 Nov 2023 22:13"
                    )
                    if spam and number % 3:
                        octets = octets.replace(b"Subject: ", b"Subject: FREE MONEY FAST %d " % number)
                        head, _, rest = octets.partition(b"\nMessage-ID")
                        octets = (
                            head[: head.index(b"Subject:")]
                            + head[head.index(b"Subject:") :].upper()
                            + b"\nMessage-ID"
                            + rest
                        )
                    path = f"{name}-{number}-{spam}.eml"
                    (folder / path).write_bytes(octets)
                    facts = {"label": "spam" if spam else "ham", "set": name, "group": group, "path": path, "ip": "",
                             "helo": "", "rdns": "", "mail_from": "a@example.org", "rcpt": "user@example.net",
                             "time": 1_700_000_000}  # fmt: skip
                    index.write(json.dumps(facts) + "\n")
    return folder


@pytest.fixture(scope="module")
def found(collection: Path) -> Path:
    path = collection / "found.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["detect", str(collection), "--json", str(path)])
        assert detect.main() == 0
    return path


def test_every_message_is_judged_once_by_campaigns_and_once_across_ages(found: Path) -> None:
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert [sum(row["row"] == name for row in rows) for name in ("crossed", "forth", "back")] == [960, 480, 480]
    spam = [row for row in rows if row["row"] == "crossed" and row["spam"]]
    assert {row["fold"] for row in spam} == {0, 1, 2}
    assert sum("subject_capitals" in row["symbols"] for row in spam) > 300
    assert sum(row["strength"] > 0 for row in spam) > 250  # the largest campaign leaves too little to learn from
    assert not [row for row in rows if not row["spam"] and row["strength"] > 0.5]


def test_the_table(collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["detect", str(collection), "--limit", "1"])
    detect.main()
    out = capsys.readouterr().out
    assert out.startswith("960 messages, ")
    lines = {line[:34].strip(): line[34:] for line in out.splitlines()}
    assert lines["newsletters at tag, untrained"].split()[-5:] == ["0", "of", "240", "(0.0", "%)"]
    assert lines["spamassassin-public ham"].split()[:2] == ["240", "0.00"]


def data(columns: list[list[float]], spam: list[bool], bayes: list[bool] | None = None) -> fit_scores.Data:
    x = np.array(columns).T
    return fit_scores.Data(
        x,
        np.array(spam),
        np.ones(len(spam)),
        np.arange(len(spam)) % 3,
        [""] * len(spam),
        np.array(bayes or [False] * len(columns)),
    )


SPAM = [True] * 600 + [False] * 600


def test_what_spam_has_gains_and_what_ham_has_loses() -> None:
    told = [1.0] * 500 + [0.0] * 700
    both = [float(place % 2) for place in range(1200)]
    fitted = fit_scores.fit(data([told, both], SPAM), np.array([0.5, 1.5]), np.array([False, False]))
    assert fitted[0] > 1.0
    assert fitted[1] < 1.4
    assert all(0 <= weight <= fit_scores.MOST for weight in fitted)


def test_what_is_fixed_or_rare_keeps_its_weight() -> None:
    told = [1.0] * 500 + [0.0] * 700
    rare = [1.0] * (fit_scores.FEWEST - 1) + [0.0] * (1201 - fit_scores.FEWEST)
    fitted = fit_scores.fit(data([told, told, rare], SPAM), np.array([0.5, 4.5, 0.3]), np.array([False, True, False]))
    assert fitted[0] > 0.5
    assert fitted[1:].tolist() == [4.5, 0.3]


def test_a_weight_keeps_its_sign() -> None:
    told = [0.0] * 700 + [1.0] * 500
    assert fit_scores.fit(data([told], SPAM), np.array([-0.2]), np.array([False]))[0] <= 0
    assert fit_scores.fit(data([told], SPAM), np.array([0.2]), np.array([False]))[0] == 0


def test_the_figures_at_thresholds() -> None:
    score = np.array([6.0] * 300 + [3.0] * 300 + [5.0] * 6 + [0.0] * 594)
    found = fit_scores.outcome(score, data([[0.0] * 1200], SPAM))
    assert found == (50.0, 1.0, 50.0, 50.0, 0.0)


def test_weights_are_printed_and_written(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.json"
    monkeypatch.setattr(
        sys, "argv", ["fit", str(found), "--check", "subject_tricks", "--bayes", "4.5", "--json", str(path)]
    )
    assert fit_scores.main() == 0
    weights = json.loads(path.read_text())
    carried = fit_scores.carried()
    assert weights.keys() == carried.keys()
    changed = {symbol for symbol in weights if weights[symbol] != round(carried[symbol], 2)}
    assert "subject_capitals" in changed
    assert changed <= fit_scores.carried(["subject_tricks"]).keys()
    out = capsys.readouterr().out
    assert "bayes_spam 4.5, fitted, folds apart" in out
    assert "modern -> old, fitted on all" in out
