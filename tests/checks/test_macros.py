"""Macros of documents, as olevba reads them."""

import asyncio
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from authmilter import macro_reader
from authmilter.checks.macros import MAX_DOCUMENTS, macros
from authmilter.errors import ScanError
from authmilter.evidence import Finding
from authmilter.macro_reader import Macros, read_macros
from authmilter.model import Transaction
from tests.checks.test_attachments import attached
from tests.checks.tools import awaited, is_wanted, tools
from tests.compound_files import ooxml, project
from tests.test_mime import message
from tests.test_office import HARMLESS, RUNS

INSTALLED = importlib.util.find_spec("oletools") is not None
needs_oletools = pytest.mark.skipif(not INSTALLED, reason="oletools is not installed")


async def found(tx: Transaction, config: str = "") -> list[Finding]:
    return await awaited(macros, tx, tools("macros", config=f"[macros]\nenabled = yes\n{config}"))


async def symbols(tx: Transaction, config: str = "") -> set[str]:
    return {finding.symbol for finding in await found(tx, config)}


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Run that shell script in place of the process."""
    program = tmp_path / "reader"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def written(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def test_it_is_off_by_default() -> None:
    assert not is_wanted("macros", "")
    assert is_wanted("macros", "[macros]\nenabled = yes\n")


async def test_documents_without_macros_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert await symbols(attached("a.docx", ooxml({"word/document.xml": b"x"}))) == set()
    assert await symbols(attached("a.pdf", b"%PDF-1.7")) == set()
    assert await symbols(attached("a.doc", project(RUNS))) == {"macros_unread"}


async def test_what_the_process_says_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, 'cat >/dev/null; echo \'[["AutoOpen"], ["Shell", "Chr"]]\'')
    assert [(f.symbol, f.detail) for f in await found(attached("a.doc", project(RUNS)))] == [
        ("macros_autorun", "a.doc: AutoOpen"),
        ("macros_suspicious", "a.doc: Shell, Chr"),
    ]


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("exit 3", "oletools is not installed"),
        ("exit 1", "failed with status 1"),
        ("kill -9 $$", "failed with status -9"),
        ("echo no", "no answer that can be read"),
        ("echo '[1, 2, 3]'", "no answer that can be read"),
        ("echo '[1, 2]'", "no answer that can be read"),
        ("exec sleep 60", "no answer within 1 s"),
        ("head -c 3000000 /dev/zero", "no answer that can be read"),
    ],
)
async def test_failures_weigh_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, detail: str
) -> None:
    pretend(monkeypatch, tmp_path, script)
    begin = time.monotonic()
    results = await found(attached("a.doc", project(RUNS)), "timeout = 1s\n")
    assert [finding.symbol for finding in results] == ["macros_unread"]
    assert detail in results[0].detail
    assert time.monotonic() - begin < 10


async def test_a_message_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    task = asyncio.create_task(read_macros(b"x", 30))
    async with asyncio.timeout(10):
        while not (pid := written(tmp_path / "pid")):  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_how_many_are_read_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, f"cat >/dev/null; echo x >>{tmp_path}/runs; echo '[[\"A\"], []]'")
    one = attached("a.doc", project(HARMLESS)).message.body
    raw = b"Content-Type: multipart/mixed; boundary=c\n\n"
    body = b"".join(b"--c\nContent-Type: multipart/mixed; boundary=b\n\n" + one.replace(b"\r", b"") for _ in range(6))
    tx = Transaction(message=message(raw + body + b"--c--\n"))
    assert await symbols(tx) == {"macros_autorun", "macros_unread"}
    assert written(tmp_path / "runs").count("x") == MAX_DOCUMENTS
    assert await symbols(tx, "max_size = 1K\n") == {"macros_unread"}


@needs_oletools
async def test_olevba_reads_macros() -> None:
    begin = time.monotonic()
    read = await read_macros(project(RUNS), 20)
    print(f"{(time.monotonic() - begin) * 1000:.0f} ms: {read}")
    assert "AutoOpen" in read.autorun
    assert any("shell" in word.lower() for word in read.suspicious)
    assert await read_macros(project(HARMLESS), 20) == Macros((), ())
    assert await symbols(attached("a.docm", ooxml({"word/vbaProject.bin": project(RUNS)}))) == {
        "macros_autorun",
        "macros_suspicious",
    }


@needs_oletools
async def test_olevba_is_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macro_reader, "MEMORY", 32 * 1024 * 1024)
    with pytest.raises(ScanError, match=r"status|installed"):
        await read_macros(project(RUNS), 20)
