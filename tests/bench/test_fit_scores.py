"""The detection table and the fitting of weights, on a collection made up here."""

import json
import runpy
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the extra `bench` is not installed")

from authmilter.fitted import FITTED  # noqa: E402
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
    assert sum(row["strength"] > 0 for row in spam) > 150  # the largest campaign leaves too little to learn from
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


def within(start: list[float], fixed: list[bool], high: float = fit_scores.MOST) -> fit_scores.Bounds:
    return fit_scores.Bounds(np.array(start), np.full(len(start), high), np.array(fixed))


def test_what_spam_has_gains_and_what_ham_has_loses() -> None:
    told = [1.0] * 500 + [0.0] * 700
    both = [float(place % 2) for place in range(1200)]
    fitted = fit_scores.fit([data([told, both], SPAM)], within([0.5, 1.5], [False, False]))
    assert fitted[0] > 1.0
    assert fitted[1] < 1.4
    assert all(0 <= weight <= fit_scores.MOST for weight in fitted)


def test_what_is_fixed_or_rare_keeps_its_weight() -> None:
    told = [1.0] * 500 + [0.0] * 700
    rare = [1.0] * (fit_scores.FEWEST - 1) + [0.0] * (1201 - fit_scores.FEWEST)
    fitted = fit_scores.fit([data([told, told, rare], SPAM)], within([0.5, 4.5, 0.3], [False, True, False]))
    assert fitted[0] > 0.5
    assert fitted[1:].tolist() == [4.5, 0.3]


def test_a_weight_keeps_its_sign() -> None:
    told = [0.0] * 700 + [1.0] * 500
    assert fit_scores.fit([data([told], SPAM)], within([-0.2], [False]))[0] < -0.2
    assert fit_scores.fit([data([told], SPAM)], within([0.2], [False]))[0] == 0


def test_a_weight_may_be_held_where_it_is() -> None:
    told = [1.0] * 500 + [0.0] * 700
    assert fit_scores.fit([data([told], SPAM)], within([0.5], [False], high=0.5))[0] == 0.5


def test_a_scene_in_which_the_classifier_errs_makes_up_for_it() -> None:
    told = [1.0] * 500 + [0.0] * 100 + [1.0] * 20 + [0.0] * 580
    errs = [0.0] * 600 + [1.0] * 20 + [0.0] * 580  # takes for spam just the good mail that has the symbol
    one = data([told, errs], SPAM, [False, True])
    bound = within([1.0, 4.5], [False, True])
    alone = fit_scores.fit([one.untrained()], bound)[0]
    assert fit_scores.fit([one.untrained(), one], bound)[0] < alone - 0.2


def test_which_weights_are_fitted() -> None:
    weights = {
        "ambiguous_from": 5.0,
        "bayes_spam": 4.7,
        "html_image_only": 1.5,
        "received_missing": 0.3,
        "text_empty": 0.5,
    }
    symbols = sorted(weights)
    found = fit_scores.bounds(symbols, weights, [symbol for symbol in symbols if symbol != "text_empty"])
    assert dict(zip(symbols, found.fixed.tolist(), strict=True)) == {
        "ambiguous_from": True,  # tags by itself
        "bayes_spam": True,
        "html_image_only": False,
        "received_missing": True,  # tells of the collection
        "text_empty": True,  # was not asked for
    }
    assert dict(zip(symbols, found.high.tolist(), strict=True))["html_image_only"] == 1.5


def test_what_is_left_alone_or_held_down_exists() -> None:
    assert fit_scores.ARTEFACTS | fit_scores.NOT_MORE | {*fit_scores.OPINIONS} <= fit_scores.carried().keys()


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
    assert "modern -> old, fitted, folds apart" in out


def test_what_is_written_is_what_the_program_reads(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fitted.py"
    monkeypatch.setattr(fit_scores, "TARGET", path)
    monkeypatch.setattr(sys, "argv", ["fit", str(found), "--check", "subject_tricks", "--write", "--bayes"])
    fit_scores.main()
    capsys.readouterr()
    scope = runpy.run_path(str(path))
    carried = fit_scores.carried(["subject_tricks"])
    assert "subject_capitals" in scope["FITTED"]
    assert scope["FITTED"].keys() <= carried.keys()
    assert all(weight != carried[symbol] for symbol, weight in scope["FITTED"].items())


def test_the_weights_of_the_program_are_some_of_what_fitting_wrote() -> None:
    wrote = json.loads((Path(fit_scores.__file__).parent / "fitted.json").read_text())
    carried = fit_scores.carried()
    assert {symbol: wrote[symbol] for symbol in FITTED} == FITTED
    assert FITTED.keys() <= carried.keys()  # else a symbol was renamed, or is gone
    assert not [symbol for symbol in fit_scores.ARTEFACTS | {*fit_scores.OPINIONS} if symbol in FITTED]
