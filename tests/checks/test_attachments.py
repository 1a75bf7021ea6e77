"""Attached files that are dangerous, or pretend to be something else."""

import base64
import time

import pytest

from authmilter.check import all_checks
from authmilter.checks.attachments import GROUPS, attachments, content_type, extension
from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.mime import mime
from authmilter.model import Stage, Transaction
from authmilter.policy import Policy
from authmilter.verdict import Action
from tests.checks.tools import computed, is_wanted, tools
from tests.checks.verdicts import reply
from tests.compound_files import compound, ooxml, project, relation
from tests.test_archives import PROGRAM, zipped
from tests.test_mime import message
from tests.test_office import RUNS
from tests.test_rar import ENCRYPTION_RECORD, file_5, rar_5
from tests.test_sevenzip import ENCRYPTED as ENCRYPTED_7Z
from tests.test_sevenzip import LOCKED, archive
from tests.test_tnef import tnef


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
        pytest.param("a.rar", b"Rar!\x1a\x07\x01\0", "application/x-rar", {"unread"}, id="an archive without anything"),
        pytest.param("a.lzh", b"\x20\x33-lh5-", "x/y", {"unread"}, id="an archive that is not read"),
        pytest.param("a.rar", rar_5(file_5("b.exe", b"x", method=3)), "x/y", {"dangerous", "in_archive"}, id="in RAR"),
        pytest.param(
            "a.rar", rar_5(file_5("b.js", b"x", extra=ENCRYPTION_RECORD)), "x/y", {"dangerous", "in_archive", "encrypted"}, id="in encrypted RAR"
        ),
        pytest.param(
            "a.7z", archive("LZMA"), "x/y", {"dangerous", "in_archive", "executable"}, id="in 7z"
        ),
        pytest.param("a.7z", LOCKED, "x/y", {"encrypted"}, id="a 7z that tells no names"),
        pytest.param(
            "a.gif", b"GIF89a" + zipped({"b.exe": PROGRAM}), "image/gif", {"dangerous", "in_archive", "executable"}, id="a zip in a picture"
        ),
        pytest.param(
            "a.zip", zipped({"[Content_Types].xml": b"x", "b.exe": PROGRAM}), "application/zip",
            {"dangerous", "in_archive", "executable"}, id="a zip that looks like a document"
        ),
        pytest.param(
            "a.zip", zipped({"META-INF/x": b"x", "b.exe": PROGRAM}), "application/zip",
            {"dangerous", "in_archive", "executable"}, id="a zip that looks like a jar"
        ),
        pytest.param("a.zip", zipped({"b.html": LOGIN}), "application/zip", {"html", "html_lure"}, id="a page in a zip"),
        pytest.param(
            "a.zip", zipped({"b.lnk": b"L\0\0\0\x01\x14\x02\0\0"}), "application/zip", {"dangerous", "in_archive", "executable"}, id="a link in a zip"
        ),
        pytest.param("a.zip", zipped({f"src/{n}.js": b"x" for n in range(50)}), "application/zip", {"in_archive"}, id="sources"),
        pytest.param("a.zip", zipped({f"{n}.txt": b"x" for n in range(1500)}), "application/zip", {"unread"}, id="many files"),
        pytest.param(
            "a.pdf             .exe", PROGRAM, "x/y", {"dangerous", "executable", "name_hides"}, id="blanks in the name"
        ),
        pytest.param("a\u202efdp.scr", b"x", "x/y", {"dangerous", "name_hides"}, id="a name that turns round"),
        pytest.param("a\u202excod.pdf", b"x", "x/y", {"name_hides"}, id="a document whose name turns round"),
        pytest.param("a.exe. .", b"x", "x/y", {"dangerous"}, id="dots at the end"),
        *(
            pytest.param(f"a.{last}", b"x", "x/y", {"dangerous"}, id=f"a.{last}")
            for last in ("iso", "img", "vhd", "one", "chm", "hta", "wsf", "msi", "jar", "ace", "url", "lnk", "cab", "xll")
        ),
        pytest.param("a.html", b"<html><script>window.x</script>", "text/html", {"html", "html_script"}, id="a page with a script"),
        pytest.param(
            "a.html", b"<script>document.write(atob('" + b"QUFB" * 99 + b"'))</script>", "text/html",
            {"html", "html_script", "html_smuggling"}, id="a page that makes another",
        ),
        pytest.param(
            "a.html", b"<!--" + b"x" * 300_000 + b"--><script>y</script><input type=password>", "text/html",
            {"html", "html_script", "html_lure"}, id="a page behind a long comment",
        ),
        pytest.param("a.html", "\ufeff".encode("utf-16-le") + LOGIN.decode().encode("utf-16-le"), "text/html", {"html", "html_lure"}, id="a page in UTF-16"),
        pytest.param("a.htm", b"words", "application/octet-stream", {"html"}, id="a page by its name"),
        pytest.param(
            "a.html", b"<meta http-equiv=refresh content='0;url=http://x.example'>", "text/html", {"html", "html_lure"}, id="a page that leads on"
        ),
        pytest.param("a.svg", b"<x:svg><x:script>1</x:script></x:svg>", "image/svg+xml", {"svg_lure"}, id="a picture that runs by another prefix"),
        pytest.param("a.svg", b"<svg onload = 'x'></svg>", "image/svg+xml", {"svg_lure"}, id="a picture with a handler"),
        pytest.param("a.svg", b"<svg><a xlink:href='https://x.example'/></svg>", "image/svg+xml", {"svg_link"}, id="a picture with a link"),
        pytest.param("a.svg", b"<svg><image xlink:href='https://x.example'/></svg>", "image/svg+xml", set(), id="a picture in a picture"),
        pytest.param(
            "a.ics", b"BEGIN:VCALENDAR\r\nATTENDEE:mailto:a@b\r\nURL:http://x.example\r\n", "text/calendar", set(), id="an invitation"
        ),
        pytest.param("a.doc", project(RUNS), "application/msword", {"macro", "macro_autorun", "macro_calls"}, id="macros that run"),
        pytest.param("a.zip", zipped({"a.doc": project(RUNS)}), "x/y", {"macro", "macro_autorun", "macro_calls"}, id="macros in a zip"),
        pytest.param("a.doc", compound({"EncryptedPackage": b"x"}), "application/msword", {"encrypted"}, id="an encrypted document"),
        pytest.param(
            "a.docx", ooxml({"word/_rels/settings.xml.rels": relation("attachedTemplate", "http://x.example/")}), "x/y", {"remote"}, id="a template"
        ),
        pytest.param("a.pdf", b"%PDF-1.7 <</S/Launch>>", "application/pdf", {"pdf_launch"}, id="a PDF that starts a program"),
        pytest.param(
            "a.eml", b"Content-Disposition: attachment; filename=b.exe\n\nx", "application/octet-stream", {"dangerous"}, id="a file in a message in a file"
        ),
        pytest.param(
            "a.eml", b"Content-Type: text/html; name=b.html\nContent-Disposition: attachment\n\n" + LOGIN, "x/y", {"html", "html_lure"}, id="a page in a message in a file"
        ),
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


def test_a_page_that_is_the_message_may_have_a_name() -> None:
    alternative = b"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html; name=a.html\n\n"
    assert symbols(Transaction(message=message(alternative + LOGIN + b"\n--b--\n"))) == set()
    mixed = alternative.replace(b"alternative", b"mixed")
    assert symbols(Transaction(message=message(mixed + LOGIN + b"\n--b--\n"))) == {"html", "html_lure"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"See the file.", False),
        (b"The password is 1234.", True),
        (b"<p>Password:<b> 1234</b>", True),
        (b"Das Kennwort lautet 1234", True),
        ("\u89e3\u538b\u5bc6\u7801\uff1a1234".encode(), True),
        ("\u043f\u0430\u0440\u043e\u043b\u044c: 1234".encode(), True),
        (b"Please change your password soon.", False),
    ],
)
def test_passwords_that_the_message_tells(text: bytes, told: bool) -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; charset=utf-8\n\n"
        + text
        + b"\n--b\nContent-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n"
    )
    assert (
        "password_told" in symbols(Transaction(message=message(raw + base64.encodebytes(ENCRYPTED) + b"--b--\n")))
    ) == told
    plain = base64.encodebytes(zipped({"a.txt": b"x"}))
    assert "password_told" not in symbols(Transaction(message=message(raw + plain + b"--b--\n")))


def test_messages_within_messages_are_looked_into() -> None:
    inner = b"Content-Type: message/rfc822\n\nContent-Disposition: attachment; filename=a.exe\n\nx\n"
    assert "dangerous" in symbols(Transaction(message=message(inner)))


def test_work_is_bounded_for_all_files_together() -> None:
    parts = b"".join(
        b"--b\nContent-Type: text/html; name=%d.html\n\n" % n + b"<p onclick=x>" * 20_000 + b"\n" for n in range(60)
    )
    tx = Transaction(message=message(b"Content-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n"))
    begin = time.process_time()
    assert symbols(tx) == {"html", "html_script", "unread"}
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("a.html", b"<div onclick=x>" * 1_300_000, id="a page of tags"),
        pytest.param("a.html", b"<a " * 6_000_000, id="a page of tags without end"),
        pytest.param("a.html", b"<script></script>" + b"atob('" * 3_000_000, id="a page of scripts"),
        pytest.param("a.svg", b"<svg " + b"<a href " * 2_000_000, id="a picture of links"),
        pytest.param("a.svg", b"<svg " + b" on" + b"a" * 10_000_000, id="a picture with a long name"),
        pytest.param("a.zip", zipped({f"{n}.html": b"<p onclick=x>" * 60_000 for n in range(29)}), id="pages in a zip"),
        pytest.param("a.zip", zipped({f"{n}.doc": project(RUNS) for n in range(1000)}), id="documents in a zip"),
        pytest.param("a.eml", b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 500_000, id="a message of parts"),
        pytest.param("a" * 900 + ".exe", b"x", id="a long name"),
    ],
)  # fmt: skip
def test_hostile_files_cost_little(name: str, data: bytes) -> None:
    tx = attached(name, data)
    for part in mime(tx.message).parts:
        assert len(part.data) <= len(tx.message.body)  # decoding is not what is measured
    begin = time.process_time()
    found = symbols(tx)
    seconds = time.process_time() - begin
    print(f"{len(data)} octets, {seconds * 1000:.0f} ms: {found}")
    assert seconds < 2


def test_parts_that_hold_others_may_have_names() -> None:
    raw = b"Content-Type: message/rfc822; name=a.exe\n\nSubject: x\n\nx\n"
    assert symbols(Transaction(message=message(raw))) == {"dangerous"}


def test_every_archive_counts_towards_the_bounds() -> None:
    """Many archives before the one that matters don't keep it from being read, unless they are large."""
    small = [("a.zip", zipped({"a.txt": b"x"})) for _ in range(50)]
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n"
    for name, data in (*small, ("b.zip", zipped({"b.exe": PROGRAM}))):
        raw += f"--b\nContent-Type: application/zip; name={name}\nContent-Transfer-Encoding: base64\n\n".encode()
        raw += base64.encodebytes(data)
    assert symbols(Transaction(message=message(raw + b"--b--\n"))) == {"dangerous", "in_archive", "executable"}


def test_every_name_counts() -> None:
    raw = b"Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a%2Eexe\n\nx\n"
    assert "dangerous" in symbols(Transaction(message=message(raw)))


_FILE = b"Content-Type: application/x\nContent-Disposition: attachment; filename=a.exe\n\nx"
_MIXED = b"Content-Type: multipart/mixed; boundary=b\n"


def _parts(boundary: bytes = b"b", file: bytes = _FILE) -> bytes:
    return b"\n--" + boundary + b"\n\nhello\n--" + boundary + b"\n" + file + b"\n--" + boundary + b"--\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'Content-Type: "multipart/mixed"; boundary=b\n' + _parts(), id="a type in quotes"),
        pytest.param(b"Content-Type: multipart / mixed; boundary=b\n" + _parts(), id="a type with blanks"),
        pytest.param(b"Content-Type: multi(x)part/mixed; boundary=b\n" + _parts(), id="a type with a comment within"),
        pytest.param(b"Content-Type: text/a\nContent-Type: text/b\nContent-Type: text/c\n" + _MIXED + _parts(), id="the fourth type"),
        pytest.param(b'Content-Type: multipart/mixed; boundary=""\n' + _parts(b""), id="an empty boundary"),
        pytest.param(
            b'Content-Type: multipart/mixed; boundary="=?utf-8?q?b?="\n\n--=?utf-8?q?b?=\n\nhello' + _parts(),
            id="an encoded boundary behind itself",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed;" + b"".join(b" boundary=a%d;" % n for n in range(9)) + b" boundary=b\n\n"
            + b"".join(b"--a%d\n" % n for n in range(9)) + b"\nhello" + _parts(),
            id="the tenth boundary, behind all others",
        ),
        pytest.param(b"Content-Type: multipart/mixed; boundary=c\n\n--d\nx" + _parts(), id="a boundary that is not declared"),
        pytest.param(b"Content-Type: application/ms-tnef\n\n" + tnef((b"a.exe", b"x", b"")), id="winmail.dat"),
        pytest.param(
            b"Content-Type: application/pkcs7-mime; smime-type=signed-data\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes(b"0\x82\1\2\6" + _MIXED + _parts()),
            id="signed",
        ),
        pytest.param(
            _MIXED + _parts(file=b"X: y\rContent-Disposition: attachment; filename=a.exe\n\nx"), id="a field behind CR"
        ),
    ],
)  # fmt: skip
def test_however_it_is_hidden_a_program_is_seen(raw: bytes) -> None:
    assert "dangerous" in symbols(Transaction(message=message(raw)))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"Content-Transfer-Encoding: 7bit base64\n", id="an encoding behind another word"),
        pytest.param(b"Content-Transfer-Encoding: base64\nthis is no field\n", id="a line that is no field"),
    ],
)
def test_however_it_is_hidden_base64_is_decoded(raw: bytes) -> None:
    part = b"Content-Type: application/x; name=a.dat\n" + raw + b"\n" + base64.encodebytes(PROGRAM)
    assert "executable" in symbols(Transaction(message=message(_MIXED + _parts(file=part))))


def test_files_in_attached_messages_that_are_attached_are_seen() -> None:
    tx = attached("a.exe", b"x")
    for _ in range(2):
        tx = attached("a.eml", b"".join(field.raw for field in tx.message.fields) + b"\r\n" + tx.message.body)
    assert "dangerous" in symbols(tx)


def test_more_parts_than_are_looked_at_are_not_looked_into() -> None:
    raw = _MIXED + b"\n" + b"--b\n\nx\n" * 600 + b"--b\n" + _FILE + b"\n--b--\n"
    assert symbols(Transaction(message=message(raw))) == {"unread"}


@pytest.mark.parametrize("before", [b"", b"GIF89a"])
def test_a_zip_is_found_by_its_name_whatever_stands_around_it(before: bytes) -> None:
    tx = attached("a.zip", before + b"x" + zipped({"a.exe": b"x"}) + bytes(70_000))
    assert "dangerous" in symbols(tx)


@pytest.mark.parametrize("name", [b"a.txt%00.exe", b"a.exe%00.txt"])
def test_a_null_character_may_end_a_name_or_be_left_out(name: bytes) -> None:
    raw = b"Content-Disposition: attachment; filename*=utf-8''" + name + b"\n\nx\n"
    assert "dangerous" in symbols(Transaction(message=message(raw)))


def test_the_lists_of_the_configuration() -> None:
    tx = attached("a.pdf", b"%PDF-1.4")
    assert symbols(tx, "[attachments]\ndangerous = .pdf\n") == {"dangerous"}
    assert symbols(tx, "[attachments]\nreject = PDF\n") == {"refused"}
    assert symbols(attached("a.js", b"x"), "[attachments]\nharmless = *.js\n") == set()
    assert symbols(attached("a.zip", zipped({"d/a.iso": b"x"})), "[attachments]\nreject = iso\n") >= {"refused"}
    assert symbols(attached("a.7z", ENCRYPTED_7Z), "[attachments]\nreject = exe\n") >= {"refused", "encrypted"}
    assert symbols(attached("a.dat", PROGRAM), "[attachments]\nreject_types = executable\n") >= {"refused"}
    assert symbols(attached("a.zip", zipped({"b": PROGRAM})), "[attachments]\nreject_types = executable\n") >= {
        "refused"
    }
    many = zipped({**{f"{n}.txt": b"x" for n in range(50)}, "b.iso": b"x"})
    assert symbols(attached("a.zip", many), "[attachments]\nreject = iso\n") >= {"refused"}
    assert not is_wanted("attachments", "[attachments]\nenabled = no\n")


@pytest.mark.parametrize("text", ["", ".", "a b", "a/b", "x" * 21])
def test_what_is_no_extension(text: str) -> None:
    with pytest.raises(ValueError, match="is not an extension"):
        extension(text)
    if text.strip(" ."):
        with pytest.raises(ConfigError):
            ini.load(None, f"[attachments]\nreject = {text}\n")


@pytest.mark.parametrize("text", ["exe", "EXECUTABLE", ""])
def test_what_is_no_type_of_content(text: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        content_type(text)


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


@pytest.mark.parametrize(
    ("symbol", "tx"),
    [
        ("attachment_encrypted", attached("a.zip", bytes(ENCRYPTED))),
        ("attachment_dangerous", attached("a.pdf.exe", PROGRAM)),
        ("attachment_macro_autorun", attached("a.doc", project(RUNS))),
        ("attachment_html_lure", attached("a.html", LOGIN, "text/html")),
    ],
)
def test_any_symbol_may_be_refused(symbol: str, tx: Transaction) -> None:
    config = f"[scores]\n{symbol} = reject\n"
    answer = reply(tx, Stage.EOM, computed(attachments, tx, tools("attachments", config=config)), config)
    assert answer.startswith("550 5.7.1 ")
    assert "not accepted here" in answer
    assert "a." in answer


@pytest.mark.parametrize("group", GROUPS)
def test_what_one_file_is_found_to_be_stays_under_tag(group: str) -> None:
    scores = next(check.prior for check in all_checks() if check.name == "attachments")
    weights = [scores[symbol] for symbol in GROUPS[group]]
    assert all(isinstance(weight, float) for weight in weights)
    assert sum(weight for weight in weights if isinstance(weight, float)) < 5.0
    assert all(symbol in scores for symbol in GROUPS[group])


def test_every_symbol_has_words() -> None:
    check = next(check for check in all_checks() if check.name == "attachments")
    assert set(check.replies) == set(check.scores)


def test_no_weight_is_large() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "attachments")
    assert all(weight <= 2 for weight in scores.values() if isinstance(weight, float))


def test_hostile_names_are_shown_short() -> None:
    tx = attached("x" * 500 + ".exe", PROGRAM)
    found = computed(attachments, tx, tools("attachments"))
    assert max(len(finding.detail) for finding in found) < 120


@pytest.mark.parametrize(("out_of_room", "expected"), [(False, {"unread"}), (True, set())])
def test_what_is_larger_than_is_kept_is_unread_but_not_for_want_of_room(out_of_room: bool, expected: set[str]) -> None:
    tx = attached("a.txt", b"text", "text/plain")
    tx.message.body_cut = True
    tx.message.out_of_room = out_of_room
    assert symbols(tx) == expected
