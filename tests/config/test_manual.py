"""The committed manual page and sample are those of the schema, and the sample is a configuration."""

import shutil
import subprocess
from pathlib import Path

import pytest

from authmilter.cli.manual import FILES
from authmilter.config import ini
from authmilter.config.manual import render_manual, render_sample
from authmilter.config.option import options_of

PACKAGING = Path(__file__).parents[2] / "packaging"


@pytest.mark.parametrize("name", FILES)
def test_the_committed_file_is_up_to_date(name: str) -> None:
    committed = (PACKAGING / name).read_text(encoding="utf-8")
    assert committed == FILES[name](), f"run: authmilter manual --write {PACKAGING.name}"


def test_the_sample_is_the_defaults() -> None:
    loaded = ini.load_with_origins("sample", render_sample())
    assert loaded.config == ini.load(None)
    assert loaded.warnings == ()
    assert loaded.origins == {}


def uncommented() -> str:
    return "".join(line.removeprefix(";") for line in render_sample().splitlines(keepends=True))


def test_the_sample_with_every_line_taken_in_says_the_same() -> None:
    config, defaults = ini.load("sample", uncommented()), ini.load(None)
    for section in ini.SECTIONS:
        assert getattr(config, section) == getattr(defaults, section)
    assert config.checks == defaults.checks
    assert config.sign == {"example.org": ini.NAMED_SECTIONS["sign"].declared()}


def test_the_sample_has_every_option() -> None:
    origins = ini.load_with_origins("sample", uncommented()).origins
    expected = {(section, name) for section, declared in ini.SECTIONS.items() for name in options_of(declared)}
    expected |= {
        (f"{kind} {named.example}", name)
        for kind, named in ini.NAMED_SECTIONS.items()
        for name in options_of(named.declared)
    }
    assert expected <= set(origins)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_no_fault_with_the_manual() -> None:
    page = render_manual(
        [("Outcomes", "What becomes of mail.  It depends.\n\n    | a | -all |\n    .x \\ 'y'\n\n'quoted' text.")]
    )
    # The reference to postconf(5) needs a data base of manual pages, which a bare machine has not got.
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "style"], input=page, capture_output=True, text=True)
    assert [
        line for line in done.stdout.splitlines() if "postconf" not in line and "referenced manual" not in line
    ] == []


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_the_page_reads_as_it_was_written() -> None:
    page = render_manual([("Outcomes", "What becomes of mail.\n\n    | a | -all \\ 'y' |\n    .x")])
    text = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=200"], input=page, capture_output=True, text=True, check=True
    ).stdout
    plain = subprocess.run(["col", "-b"], input=text, capture_output=True, text=True, check=True).stdout
    assert "OUTCOMES\n" in plain
    assert "| a | -all \\ 'y' |" in plain
    assert ".x\n" in plain
    assert "engine = native | libmilter" in plain
    assert "[sign example.org]" in plain
    assert "dmarc_fail_reject_corroborated" in plain
