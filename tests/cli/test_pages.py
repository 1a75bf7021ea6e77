"""The manual pages of the commands: every option of every verb, and nothing that mandoc finds fault with."""

import argparse
import shutil
import subprocess

import pytest

from authmilter.cli import pages
from authmilter.cli.__main__ import VERBS, main, parser_of
from authmilter.cli.manual import FILES

COMMANDS = {name: render for name, render in FILES.items() if name.endswith((".1", ".8"))}


def plain(page: str) -> str:
    """As a terminal shows it, without line breaks."""
    shown = subprocess.run(["mandoc", "-T", "ascii"], input=page, capture_output=True, text=True, check=True).stdout
    return " ".join(
        subprocess.run(["col", "-b"], input=shown, capture_output=True, text=True, check=True).stdout.split()
    )


needs_mandoc = pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")


def test_there_is_a_page_for_every_verb() -> None:
    assert set(COMMANDS) == {"authmilter.8", *(f"authmilter-{verb}.1" for verb in VERBS if verb != "run")}


def test_the_page_of_the_daemon_names_every_verb() -> None:
    page = COMMANDS["authmilter.8"]()
    assert [verb for verb in VERBS if f".It Cm {verb}\n" not in page] == []
    assert [verb for verb in VERBS if verb != "run" and f".Xr authmilter-{verb} 1" not in page] == []


@needs_mandoc
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "run"])
def test_a_page_has_every_option_that_the_help_has(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    told = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[],").startswith("--")}
    shown = plain(COMMANDS[f"authmilter-{verb}.1"]())
    assert [option for option in told - {"--help", "--config"} if option not in shown] == []


@needs_mandoc
@pytest.mark.parametrize("name", COMMANDS)
def test_mandoc_finds_no_fault(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "style"], input=COMMANDS[name](), capture_output=True, text=True
    )
    # References to other pages need a data base of them, which a bare machine has not got.
    assert [line for line in done.stdout.splitlines() if "referenced manual" not in line] == []


@needs_mandoc
def test_a_page_tells_what_argparse_knows() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--must", required=True, metavar="IT", help="has to be there")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--this", action="store_true", help=".begins with a dot")
    either.add_argument("--that", action="store_true", help='says "no" \\ yes')
    parser.add_argument("files", metavar="FILE", nargs="*")
    parser.epilog = "More of it.  Exit status: 0 all is well."
    page = pages.verb_page("try", "see what happens", parser)
    shown = plain(page)
    assert "authmilter try --must IT [--this | --that] [FILE ...]" in shown
    assert 'Says "no" \\ yes.' in shown
    assert ".begins with a dot." in shown
    assert "DESCRIPTION See what happens. More of it." in shown
    assert "EXIT STATUS 0 all is well. SEE ALSO" in shown


def test_a_required_choice_of_deeds_has_no_synopsis_without_one() -> None:
    synopsis = pages.verb_page("state", "keep", parser_of("state")).partition(".Sh DESCRIPTION")[0]
    assert ".Nm authmilter state list" in synopsis
    assert ".Nm authmilter state\n" not in synopsis
