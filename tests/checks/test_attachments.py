"""Attached files that are dangerous, or pretend to be something else."""

import base64

import pytest

from authmilter.check import all_checks
from authmilter.checks.attachments import attachments, extension
from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.model import Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action
from tests.checks.tools import computed, is_wanted, tools
from tests.test_archives import PROGRAM, zipped
from tests.test_mime import message


def attached(name: str, data: bytes, content_type: str = "application/octet-stream") -> Transaction:
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nSee the file.\n--b\n"
        + f'Content-Type: {content_type}\nContent-Disposition: attachment; filename="{name}"\n'.encode()
        + b"Content-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(data)
        + b"--b--\n"
    )
    return Transaction(message=message(raw))


def symbols(tx: Transaction, config: str = "") -> set[str]:
    found = computed(attachments, tx, tools("attachments", config=config))
    return {finding.symbol.removeprefix("attachment_") for finding in found}


LOGIN = b"<html><form action=http://x.example><input type=password></form></html>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>"
ENCRYPTED = bytearray(zipped({"a.txt": b"x"}))
ENCRYPTED[6] |= 1


@pytest.mark.parametrize(
    ("name", "data", "content_type", "expected"),
    [
        pytest.param("a.pdf", b"%PDF-1.4", "application/pdf", set(), id="a PDF"),
        pytest.param("a.zip", zipped({"a.txt": b"x"}), "application/zip", set(), id="a zip"),
        pytest.param("a.patch", b"--- a\n+++ b\n", "text/x-patch", set(), id="a patch"),
        pytest.param("a.py", b"#!/usr/bin/python\n", "text/x-python", set(), id="a script of text"),
        pytest.param("a.exe", PROGRAM, "application/octet-stream", {"dangerous", "executable"}, id="a program"),
        pytest.param("a.js", b"x", "text/plain", {"dangerous"}, id="by its name"),
        pytest.param("a.dat", PROGRAM, "application/octet-stream", {"executable"}, id="by its content"),
        pytest.param(
            "a.pdf.exe", PROGRAM, "application/pdf", {"dangerous", "executable", "double_extension", "disguised"}, id="two extensions"
        ),
        pytest.param("a.pdf", PROGRAM, "application/pdf", {"executable", "disguised"}, id="a program as PDF"),
        pytest.param("a.pdf", LOGIN, "application/pdf", {"html", "html_lure", "disguised"}, id="a page as PDF"),
        pytest.param("a.html", b"<html>hi", "text/html", {"html"}, id="a page"),
        pytest.param("a.html", LOGIN, "text/html", {"html", "html_lure"}, id="a page with a password"),
        pytest.param("a.htm", b"<p>" + LOGIN, "application/octet-stream", {"html", "html_lure"}, id="a page that is not declared"),
        pytest.param("a.svg", SVG, "image/svg+xml", {"svg_lure"}, id="a picture that runs"),
        pytest.param("a.svg", b"<svg><path d=''/></svg>", "image/svg+xml", set(), id="a picture"),
        pytest.param("a.ics", b"BEGIN:VCALENDAR\r\nURL:http://x.example\r\n", "text/calendar", {"calendar_link"}, id="a calendar"),
        pytest.param("a.lnk", b"L\0\0\0\x01\x14\x02\0\0", "x/y", {"dangerous", "executable"}, id="a link file"),
        pytest.param(
            "a.url", b"[InternetShortcut]\r\nURL=x", "text/plain", {"dangerous", "executable"}, id="an Internet shortcut"
        ),
        pytest.param("a.zip", bytes(ENCRYPTED), "application/zip", {"encrypted"}, id="an encrypted zip"),
        pytest.param(
            "a.zip", zipped({"b.pdf.js": b"x"}), "application/zip", {"dangerous", "in_archive", "double_extension"}, id="in a zip"
        ),
        pytest.param(
            "a.zip", zipped({"b.pdf": PROGRAM}), "application/zip", {"executable", "disguised"}, id="by its content in a zip"
        ),
        pytest.param("a.zip", zipped({"a": b"\0" * 10_000_000}), "application/zip", {"bomb"}, id="a zip bomb"),
        pytest.param("a.rar", b"Rar!\x1a\x07\x01\0", "application/x-rar", {"unread"}, id="an archive that is not read"),
        pytest.param(
            "a.docm", zipped({"[Content_Types].xml": b"x", "word/vbaProject.bin": b"x"}), "application/x", {"macro"}, id="macros"
        ),
    ],
)  # fmt: skip
def test_findings(name: str, data: bytes, content_type: str, expected: set[str]) -> None:
    assert symbols(attached(name, data, content_type)) == expected


def test_texts_and_pages_of_the_message_itself_are_no_attachments() -> None:
    assert symbols(Transaction(message=message(b"Content-Type: text/html\n\n" + LOGIN))) == set()
    assert symbols(Transaction(message=message(b"Subject: x\n\n#!/bin/sh\n"))) == set()


def test_every_name_counts() -> None:
    raw = b"Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a%2Eexe\n\nx\n"
    assert "dangerous" in symbols(Transaction(message=message(raw)))


def test_the_lists_of_the_configuration() -> None:
    tx = attached("a.pdf", b"%PDF-1.4")
    assert symbols(tx, "[attachments]\ndangerous = .pdf\n") == {"dangerous"}
    assert symbols(tx, "[attachments]\nreject = PDF\n") == {"refused"}
    assert symbols(attached("a.js", b"x"), "[attachments]\nharmless = *.js\n") == set()
    assert symbols(attached("a.zip", zipped({"d/a.iso": b"x"})), "[attachments]\nreject = iso\n") >= {"refused"}
    assert not is_wanted("attachments", "[attachments]\nenabled = no\n")


@pytest.mark.parametrize("text", ["", ".", "a b", "a/b", "x" * 21])
def test_what_is_no_extension(text: str) -> None:
    with pytest.raises(ValueError, match="is not an extension"):
        extension(text)
    if text.strip(" ."):
        with pytest.raises(ConfigError):
            ini.load(None, f"[attachments]\nreject = {text}\n")


def test_refused_files_are_refused_in_words() -> None:
    config = ini.load(None, "[attachments]\nreject = iso\n")
    policy = Policy(config, tuple(check for check in all_checks() if check.enabled(config)))
    tx = attached("a.iso", b"x")
    found = computed(attachments, tx, tools("attachments", config=config))
    tx = tx._replace(findings=tuple((Stage.EOM, finding) for finding in found))
    verdict = policy.judge(tx, Stage.EOM, "am-1").verdict
    assert verdict.action is Action.REJECT
    assert verdict.reply is not None
    assert f"{verdict.reply.code} {verdict.reply.enhanced}" == "550 5.7.1"
    assert "a.iso" in verdict.reply.text


def test_no_weight_is_large() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "attachments")
    assert all(weight <= 2 for weight in scores.values() if isinstance(weight, float))


def test_hostile_names_are_shown_short() -> None:
    tx = attached("x" * 500 + ".exe", PROGRAM)
    found = computed(attachments, tx, tools("attachments"))
    assert max(len(finding.detail) for finding in found) < 120
