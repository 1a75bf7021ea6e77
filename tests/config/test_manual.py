"""The committed manual page and sample are those of the schema, and the sample is a configuration."""

import shutil
import subprocess
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import pytest

from authmilter.check import DERIVED, Check, all_checks
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


def test_every_kind_of_value_in_use_is_explained() -> None:
    forms = set()
    for declared in (
        *ini.SECTIONS.values(),
        *(named.declared for named in ini.NAMED_SECTIONS.values()),
        *ini.check_sections().values(),
    ):
        hints = get_type_hints(declared)
        for name, option in options_of(declared).items():
            forms.add("word | word" if get_origin(hints[name]) is Literal else option.kind.form)
    explained = render_manual().partition(".Ss ")[0].splitlines()
    assert len(forms) > 10
    assert {form for form in forms if f".It Ar {form}" not in explained} == set()


def test_a_quotation_is_between_single_marks() -> None:
    assert "\\(oq\\(cq" not in render_manual()


def test_every_symbol_is_listed_once_with_its_default() -> None:
    scores = render_manual().partition(".Ss [scores]")[2].partition(".Ss ")[0]
    listed = [
        symbol
        for line in scores.splitlines()
        if line.startswith(".It Cm ")
        for symbol in line.removeprefix(".It Cm ").split(" , ")
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == {*DERIVED, *(symbol for check in all_checks() for symbol in check.scores)}
    plain = " ".join(scores.split())
    assert "Default: 1.5." in plain  # of helo_literal, alone
    assert "Default: tempfail. The check is called connections. .It Cm generic_rdns" in plain  # of two alike
    assert "helo_literal_foreign = 0.5, helo_literal_malformed = 0.5 (strict: reject)." in plain
    assert "A name without a dot. Default: 1." in plain
    assert "What is no domain name at all. Default: 1.5 (strict: reject)." in plain
    assert ".It Cm allowed The author is in an [allow] section, and authenticated as it asks. Default: accept." in plain
    assert "DMARC fails, the domain asks for quarantine. Default: tag." in plain
    assert "iprev_permerror = 0.5 (strict: 2), iprev_fail = 0.3 (strict: 1), spf_fail = 0 (strict: reject)," in plain


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.name)
def test_every_symbol_of_several_is_explained(check: Check) -> None:
    assert len(check.scores) <= 2 or set(check.meanings) == set(check.scores)


def test_a_table_keeps_its_lines_in_the_sample() -> None:
    table = [
        f"    {line}" for line in ("listed: on", "no name: no", "generic name: one", "SPF: fail", "new network: no")
    ]
    lines = render_sample().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"# {table[0]}"))
    assert lines[start - 1] == "# in doubt:"
    for line, expected in zip(lines[start:], table, strict=False):
        assert line.startswith(f"# {expected}")
    assert lines[start + len(table)].startswith("# A temporary failure")


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
    quotation = f"{'word ' * 13}`quoted text` and `more`"
    page = render_manual([("Outcomes", f"What becomes of mail.\n\n{quotation}\n\n    | a | -all \\ 'y' |\n    .x")])
    text = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=200"], input=page, capture_output=True, text=True, check=True
    ).stdout
    plain = subprocess.run(["col", "-b"], input=text, capture_output=True, text=True, check=True).stdout
    assert "OUTCOMES\n" in plain
    assert "word `quoted text' and `more'" in plain
    assert "| a | -all \\ 'y' |" in plain
    assert ".x\n" in plain
    assert "engine = native | libmilter" in plain
    assert "[sign example.org]" in plain
    assert "dmarc_fail_reject_corroborated" in plain
