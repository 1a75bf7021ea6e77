"""The commands about the configuration, as an administrator calls them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from authmilter import __version__
from authmilter.cli.__main__ import VERBS, main
from authmilter.cli.manual import page
from authmilter.config import ini
from authmilter.config.manual import render_sample

FULL = """\
[milter]
socket = unix:/run/a.sock, inet6:8891@::1
workers = 3
drain_timeout = 90s
[identity]
local_domains = example.org
  .example.org
[networks]
internal = 192.0.2.0/24, ::1
[policy]
preset = strict
reject =
[policy user@example.org]
enforce = no
tag =
[scores]
spf_fail = 2.5
dmarc_temperror = tempfail
[sign *.example.org]
selector = s1
key_file = /nowhere/key.pem
headers = From, To
[store]
url = redis://user:hunter2@host:6379/0
"""


@pytest.fixture
def full(tmp_path: Path) -> str:
    path = tmp_path / "full.ini"
    path.write_text(FULL)
    return str(path)


def test_check_config_is_content_with_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.ini"
    path.write_text("[milter]\nsocket_mode = 0666\n")
    assert main(["-c", str(path), "check-config"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:2: [milter] warning: every user of this machine can have mail signed",
        f"{path}: no problems",
    ]


def test_check_config_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.ini"
    path.write_text("[spf]\ndellay = 1\n[dns]\ntimeout = x\n")
    assert main(["check-config", "-c", str(path)]) == 78
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:2: [spf] unknown option 'dellay'",
        f"{path}:4: [dns] timeout: 'x' is not a duration such as 500ms 5s 10m 36h 30d",
    ]


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.ini"
    assert main(["-c", str(path), "check-config"]) == 78
    assert capsys.readouterr().out == f"{path}: no such file\n"
    assert main(["-c", str(path), "show-config"]) == 78
    assert capsys.readouterr().err == f"{path}: no such file\n"


def test_show_config_reads_back_as_the_same(full: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", full, "show-config"]) == 0
    shown = capsys.readouterr().out
    before, after = ini.load(full, check_files=False), ini.load("shown", shown, check_files=False)
    for section in (*ini.SECTIONS, "recipient_policies", "scores", "sign", "checks"):
        if section not in ("store", "policy"):
            assert getattr(after, section) == getattr(before, section), section
    assert (after.policy.tag, after.policy.quarantine, after.policy.reject) == (5.0, None, None)
    assert after.policy.preset == "strict"


def test_show_config_names_the_origin_of_each_value(full: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["-c", full, "show-config"])
    lines = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert ("workers", "=", "3", ";", f"{full}:3") in lines
    assert ("engine", "=", "native", ";", "default") in lines
    assert ("tag", "=", "5.0", ";", "preset", "strict") in lines
    assert ("reject", "=", ";", f"{full}:12") in lines
    assert ("spf_fail", "=", "2.5", ";", f"{full}:17") in lines
    assert (";", "dmarc_fail_reject", "=", "reject", ";", "preset", "strict") in lines


def test_show_config_never_shows_a_password(full: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["-c", full, "show-config"])
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert "url = redis://********@host:6379/0" in shown


def test_show_config_defaults_is_the_same_with_any_file(full: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", full, "show-config", "--defaults"]) == 0
    shown = capsys.readouterr().out
    assert full not in shown
    after, defaults = ini.load("shown", shown), ini.load(None)
    for section in (*ini.SECTIONS, "recipient_policies", "scores", "sign", "checks"):
        assert getattr(after, section) == getattr(defaults, section), section


def test_manual_prints_the_page_and_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["manual"], page()), (["manual", "--sample"], render_sample())):
        assert main(words) == 0
        assert capsys.readouterr().out == expected
    assert main(["manual", "--write", str(tmp_path)]) == 0
    assert (tmp_path / "authmilter.conf.5").read_text() == page()
    assert (tmp_path / "authmilter.ini.sample").read_text() == render_sample()


def test_manual_says_where_it_can_t_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manual", "--write", str(tmp_path / "none")]) == 69
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek-config"], "unknown verb 'chek-config', did you mean 'check-config'?"),
        (["-c", "x", "frobnicate"], "unknown verb 'frobnicate'"),
        ([], "usage: authmilter"),
    ],
    ids=["misspelt", "of no likeness", "none"],
)
def test_a_wrong_verb_is_a_usage_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--frob"], ["show-config", "--frob"], ["-c"], ["manual", "--man", "--sample"]], ids=" ".join
)
def test_a_wrong_option_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 64
    assert "authmilter" in capsys.readouterr().err


def test_the_last_c_wins(full: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", "/nonexistent", "show-config", "-c", full]) == 0
    assert f"; {full}:3" in capsys.readouterr().out


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "authmilter.cli", *words], capture_output=True, text=True, timeout=60)


def test_the_command_itself() -> None:
    assert command("--version").stdout == f"authmilter {__version__}\n"
    done = command("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)
    again = subprocess.run(
        [sys.executable, "-m", "authmilter", "--version"], capture_output=True, text=True, timeout=60
    )
    assert again.stdout == f"authmilter {__version__}\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "authmilter.cli", "manual"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_only_the_verb_at_hand_is_imported() -> None:
    code = "import sys; from authmilter.cli.__main__ import main; main(['show-config']); print([m for m in sys.modules if m.startswith('authmilter.cli.')], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "['authmilter.cli.__main__', 'authmilter.cli.show_config']"
