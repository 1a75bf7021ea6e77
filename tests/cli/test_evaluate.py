"""`authmilter evaluate`, end to end."""

import builtins
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from authmilter.cli.__main__ import main
from tests.classifier.mail import raw

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("ham", "spam"):
        (tmp_path / kind).mkdir()
        for number in range(60):
            (tmp_path / kind / f"{number}.eml").write_bytes(raw(number, kind == "spam"))
    for number in range(20):  # of these the checks say something too
        head = raw(number, True, "loud").replace(b"Subject: ", b"Subject: LAST WARNING ", 1)
        (tmp_path / "spam" / f"loud{number}.eml").write_bytes(
            re.sub(rb"(?m)^Subject: .*$", lambda m: m[0].upper(), head)
        )
    (tmp_path / "am.ini").write_text(
        "[classifier]\nminimum_ham = 30\nminimum_spam = 30\nenough_ham = 30\n[policy]\ntag = 2\nreject = 8\n"
        "[scores]\nsubject_capitals = 2\n[topics]\nenabled = no\n"
    )
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        status = main(["-c", str(folder / "am.ini"), "evaluate", *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def report(run: Run, folder: Path) -> dict[str, Any]:
    status, out, err = run(folder / "ham", folder / "spam", "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_numbers_of_a_mode_add_up(report: dict[str, Any]) -> None:
    assert (report["ham"], report["spam"], report["folds"]) == (60, 80, 3)
    assert report["thresholds"] == {"tag": 2.0, "quarantine": None, "reject": 8.0}
    for mode in report["modes"].values():
        for row in mode["confusion"].values():
            assert row["spam_caught"] + row["spam_missed"] == 80
            assert row["ham_flagged"] + row["ham_passed"] == 60
            assert row["catch"] == row["spam_caught"] / 80
        assert [row["from"] for row in mode["histogram"]] == list(
            range(mode["histogram"][0]["from"], mode["histogram"][-1]["from"] + 1)
        )
        assert sum(row["ham"] for row in mode["histogram"]) == 60
        assert sum(row["spam"] for row in mode["histogram"]) == 80
        assert mode["curve"][-1]["ham"] == 60
        assert mode["curve"][-1]["spam"] == 80


def test_the_classifier_adds_what_the_checks_miss(report: dict[str, Any]) -> None:
    untrained, trained = report["modes"]["untrained"], report["modes"]["trained"]
    assert untrained["confusion"]["tag"]["spam_caught"] == 20
    assert trained["confusion"]["tag"]["spam_caught"] > 60
    assert trained["confusion"]["tag"]["ham_flagged"] == 0
    assert trained["area"] > untrained["area"]
    symbols = {row["symbol"]: (row["ham"], row["spam"]) for row in trained["symbols"]}
    assert symbols["subject_capitals"] == (0, 20)
    assert symbols["bayes_spam"][1] > 60
    assert not any(row["symbol"].startswith("bayes_") for row in untrained["symbols"])


def test_the_text_shows_tables_histogram_and_the_worst(run: Run, folder: Path) -> None:
    status, out, _ = run(folder / "ham", folder / "spam", "--untrained", "--worst", 2)
    assert status == 0
    assert re.search(r"^60 good messages in \d+ campaigns, 80 spam in \d+ campaigns$", out, re.MULTILINE)
    assert f"weights and thresholds: {folder}/am.ini\n" in out
    assert re.search(r"^tag +2 +20 +60 +0 +60 +25\.0% +0\.00%$", out, re.MULTILINE)
    assert re.search(r"^catches 25\.0% at 0\.1% false positives, over a score of \d", out, re.MULTILINE)
    assert re.search(r"^subject_capitals +\+2 +0 +20 +\+3\.\d$", out, re.MULTILINE)
    assert "Spam with the lowest score\n" in out
    assert "Trained" not in out
    assert len(re.findall(r"^ +-?\d+\.\d\d  \S", out, re.MULTILINE)) == 4
    assert len(re.findall(rf"^ +{folder}/(?:ham|spam)/\d+\.eml$", out, re.MULTILINE)) == 4


def test_only_trained(run: Run, folder: Path) -> None:
    status, out, _ = run(folder / "ham", folder / "spam", "--trained")
    assert status == 0
    assert "Trained, by campaign in 3 folds" in out
    assert "Untrained" not in out


def test_both_tell_of_a_symbol_once(run: Run, folder: Path) -> None:
    _, out, _ = run(folder / "ham", folder / "spam", "--worst", 0)
    assert len(re.findall(r"^subject_capitals ", out, re.MULTILINE)) == 1
    assert len(re.findall(r"^bayes_spam ", out, re.MULTILINE)) == 1


def test_a_classifier_that_is_off_is_not_asked(run: Run, folder: Path) -> None:
    text = (folder / "am.ini").read_text().replace("[classifier]\n", "[classifier]\nenabled = no\n")
    (folder / "am.ini").write_text(text)
    assert "Trained" not in run(folder / "ham", folder / "spam")[1]
    assert "Trained" in run(folder / "ham", folder / "spam", "--trained")[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            "minimum_ham = 200", "The classifier says nothing where it has learned as little as ", id="silent"
        ),
        pytest.param(
            "enough_ham = 400", r"Having learned as little as \d+ ham and \d+ spam, it has \d+% of its", id="weak"
        ),
    ],
)
def test_what_keeps_the_classifier_back_is_told(run: Run, folder: Path, options: str, words: str) -> None:
    name = options.partition(" ")[0]
    text = re.sub(rf"(?m)^{name} = .*$", options, (folder / "am.ini").read_text())
    (folder / "am.ini").write_text(text)
    assert re.search(rf"(?m)^{words}", run(folder / "ham", folder / "spam", "--trained")[1])


def test_copies_and_what_is_in_both_sources_are_left_out(run: Run, folder: Path) -> None:
    (folder / "ham" / "copy.eml").write_bytes((folder / "ham" / "1.eml").read_bytes())
    for name in ("again.eml", "more.eml"):
        (folder / "spam" / name).write_bytes((folder / "ham" / "2.eml").read_bytes())
    status, out, _ = run(folder / "ham", folder / "spam", "--untrained", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["ham"], found["spam"], found["copies"]) == (59, 80, 1)
    assert found["in_both"] == [f"{folder}/spam/more.eml"]
    _, out, _ = run(folder / "ham", folder / "spam", "--untrained")
    assert f"left out: 1 message found in both sources: {folder}/spam/more.eml\n" in out
    assert "left out: 1 message found once more\n" in out


def test_the_same_source_twice(run: Run, folder: Path) -> None:
    status, out, err = run(folder / "ham", folder / "ham")
    assert (status, out, err) == (65, "", "authmilter evaluate: there is no message that is not in both sources\n")


def test_what_is_refused_whatever_its_score_stands_apart(run: Run, folder: Path) -> None:
    (folder / "am.ini").write_text("[scores]\nsubject_capitals = reject\nhtml_only = 1000\n")
    (folder / "spam" / "huge.eml").write_bytes(
        b"From: a@example.org\nSubject: hi\nMIME-Version: 1.0\nContent-Type: text/html\n\n<html><body><p>hello there</p></body></html>\n"
    )
    status, out, _ = run(folder / "ham", folder / "spam", "--untrained", "--json")
    rows = json.loads(out)["modes"]["untrained"]["histogram"]
    assert status == 0
    assert rows[-1] == {"from": None, "ham": 0, "spam": 20}
    assert len(rows) <= 42
    assert rows[-2]["from"] == 1000
    assert sum(row["spam"] for row in rows) == 81
    _, out, _ = run(folder / "ham", folder / "spam", "--untrained", "--worst", 100)
    assert re.search(r"^refused +0 +20  #", out, re.MULTILINE)
    assert "subject_capitals reject" in out


def test_plots(run: Run, folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    status, out, _ = run(folder / "ham", folder / "spam", "--plots", folder / "new" / "plots")
    assert status == 0
    assert f"plots are in {folder}/new/plots\n" in out
    names = ("roc", "precision-recall", "histogram-trained", "histogram-untrained")
    for name in names:
        assert (folder / "new/plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert ET.parse(folder / "new/plots" / f"{name}.svg").getroot().tag.endswith("svg")
    assert len(list((folder / "new/plots").iterdir())) == 2 * len(names)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        pytest.param("am.ini", "File exists", id="a file"),
        pytest.param("am.ini/plots", "Not a directory", id="below a file"),
        pytest.param("closed", "Permission denied", id="closed"),
    ],
)
def test_a_folder_that_plots_can_not_be_written_to_is_told_before_the_work(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    (folder / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path).name != "closed")
    status, out, err = run(folder / "ham", folder / "spam", "--plots", folder / place)
    assert (status, out, err) == (69, "", f"authmilter: {folder / place}: {words}\n")


def test_without_matplotlib_it_says_so_before_the_work(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib") or "evaluation_plots" in (rest[2] or ()):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    status, out, err = run(folder / "ham", folder / "spam", "--plots", folder / "plots")
    assert (status, out) == (69, "")
    assert err == "authmilter: --plots needs matplotlib: pip install 'authmilter[plots]'\n"
    assert not (folder / "plots").exists()


def test_a_source_without_mail(run: Run, folder: Path) -> None:
    (folder / "none").mkdir()
    assert run(folder / "ham", folder / "none") == (
        65,
        "",
        f"authmilter evaluate: there is no message in {folder}/none\n",
    )


def test_a_source_that_is_not_there(run: Run, folder: Path) -> None:
    status, _, err = run(folder / "ham", folder / "nowhere")
    assert status == 65
    assert f"authmilter evaluate: {folder}/nowhere: No such file or directory\n" in err


@pytest.mark.parametrize("folds", ["1", "21"])
def test_folds_out_of_bounds(run: Run, folder: Path, folds: str) -> None:
    status, _, err = run(folder / "ham", folder / "spam", "--folds", folds)
    assert (status, err) == (64, "authmilter evaluate: --folds takes a number from 2 to 20\n")


def test_nothing_of_a_message_steers_the_terminal(run: Run, folder: Path) -> None:
    (folder / "spam" / "bad.eml").write_bytes(b"Subject: =?utf-8?q?=1B[2Jcleared?=\nMessage-ID: <\x1b[1m>\n\nhi\n")
    status, out, _ = run(folder / "ham", folder / "spam", "--untrained", "--worst", 100)
    assert status == 0
    assert "\x1b" not in out
    assert r"\x1b[2Jcleared" in out
