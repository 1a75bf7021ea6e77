"""Messages out of files of every kind."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from authmilter.stored_mail import MAX_MESSAGE, StoredMail, message_of


def mail(name: str, body: str = "text") -> bytes:
    return f"Subject: {name}\n\n{body}\n".encode()


def names(stored: StoredMail) -> list[str]:
    found = []
    for message in stored:
        subject = message.first(b"subject")
        assert subject is not None
        found.append(subject.value.decode().strip())
    return found


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, octets in files.items():
            entry = tarfile.TarInfo(f"folder/{name}")
            entry.size = len(octets)
            archive.addfile(entry, io.BytesIO(octets))
        link = tarfile.TarInfo("folder/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


MBOX = b"From a@b Fri Nov 21\n" + mail("1") + b"\nFrom a@b Fri Nov 21\n" + mail("2", ">From x") + b"\n"


@pytest.mark.parametrize(
    ("octets", "found", "skipped"),
    [
        pytest.param(mail("1"), ["1"], 0, id="a message"),
        pytest.param(mail("1").replace(b"\n", b"\r\n"), ["1"], 0, id="a message with CRLF"),
        pytest.param(MBOX, ["1", "2"], 0, id="an mbox"),
        pytest.param(gzip.compress(MBOX), ["1", "2"], 0, id="an mbox in gzip"),
        pytest.param(gzip.compress(mail("1")), ["1"], 0, id="a message in gzip"),
        pytest.param(tar(a=mail("1"), b=mail("2"), c=b"no mail"), ["1", "2"], 1, id="a tar archive"),
        pytest.param(gzip.compress(tar(a=mail("1"))), ["1"], 0, id="tar.gz"),
        pytest.param(bz2.compress(tar(a=mail("1"))), ["1"], 0, id="tar.bz2"),
        pytest.param(lzma.compress(tar(a=mail("1"), b=mail("2"))), ["1", "2"], 0, id="tar.xz"),
        pytest.param(tar(a=MBOX), ["1", "2"], 0, id="an mbox in tar"),
        pytest.param(b"", [], 1, id="nothing"),
        pytest.param(b"\x89PNG\r\n\x1a\n", [], 1, id="a picture"),
        pytest.param(b"just some text\n", [], 1, id="text"),
    ],
)
def test_files(tmp_path: Path, octets: bytes, found: list[str], skipped: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(octets)
    stored = StoredMail([str(path)])
    assert names(stored) == found
    assert (stored.skipped, stored.problems) == (skipped, [])
    assert stored.done == stored.size == len(octets)


def test_a_line_from_within_a_paragraph_begins_no_message(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"From a\nSubject: 1\n\ntext\nFrom here on\n")
    (message,) = StoredMail([str(tmp_path / "m")])
    assert message.body == b"text\r\nFrom here on\r\n"


def test_quoted_from_lines_of_an_mbox_are_undone(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"From a\nSubject: 1\n\n>From x\n>>From y\n> From z\n")
    (message,) = StoredMail([str(tmp_path / "m")])
    assert message.body == b"From x\r\n>From y\r\n> From z\r\n"


def test_a_maildir_is_read_without_what_is_not_mail(tmp_path: Path) -> None:
    for folder in ("cur", "new", "tmp", ".Junk/cur", ".Junk/new", ".Junk/tmp"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cur/1:2,S").write_bytes(mail("read"))
    (tmp_path / "new/2").write_bytes(mail("new"))
    (tmp_path / "tmp/3").write_bytes(mail("unfinished"))
    (tmp_path / ".Junk/cur/4").write_bytes(mail("junk"))
    (tmp_path / "dovecot-uidlist").write_bytes(mail("index"))
    (tmp_path / "cur/dovecot.index.cache").write_bytes(mail("index"))
    assert sorted(names(StoredMail([str(tmp_path)]))) == ["junk", "new", "read"]


def test_folders_are_read_to_the_bottom_but_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mail/a/b").mkdir(parents=True)
    (tmp_path / "mail/a/b/1.eml").write_bytes(mail("deep"))
    (tmp_path / "outside").write_bytes(mail("outside"))
    (tmp_path / "mail/link").symlink_to(tmp_path / "outside")
    (tmp_path / "mail/loop").symlink_to(tmp_path / "mail")
    (tmp_path / "mail/.hidden").write_bytes(mail("hidden"))
    assert names(StoredMail([str(tmp_path / "mail")])) == ["deep"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(mail("piped")))))
    assert names(StoredMail(["-"])) == ["piped"]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: None, id="not there"),
        pytest.param(lambda path: path.write_bytes(gzip.compress(mail("1"))[:-9]), id="packed and cut off"),
        pytest.param(lambda path: path.write_bytes(b"\x1f\x8bgarbage"), id="not really packed"),
        pytest.param(lambda path: path.write_bytes(tar(a=mail("1"))[:514]), id="an archive that is cut off"),
        pytest.param(lambda path: path.write_bytes(b"\xfd7zXZ\0garbage"), id="not really xz"),
    ],
)
def test_what_can_not_be_read_is_a_problem_and_the_rest_is_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "bad")
    (tmp_path / "good").write_bytes(mail("good"))
    stored = StoredMail([str(tmp_path / "bad"), str(tmp_path / "good")])
    assert names(stored) == ["good"]
    assert len(stored.problems) == 1
    assert stored.problems[0].startswith(f"{tmp_path}/bad: ")


def test_a_huge_message_is_cut_and_the_next_is_read(tmp_path: Path) -> None:
    line = b"x" * 999 + b"\n"
    with (tmp_path / "m").open("wb") as file:
        file.write(b"From a\n" + mail("1") + line * (MAX_MESSAGE // 1000 + 2000) + b"\nFrom a\n" + mail("2"))
    messages = list(StoredMail([str(tmp_path / "m")]))
    assert [message.body_cut for message in messages] == [True, False]
    assert len(messages[0].body) < MAX_MESSAGE + MAX_MESSAGE // 500


def test_a_bomb_costs_no_more_than_a_message(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(gzip.compress(mail("1") + bytes(64 * 1024 * 1024)))
    (message,) = StoredMail([str(tmp_path / "m")])
    assert len(message.body) <= MAX_MESSAGE


@pytest.mark.parametrize(
    ("raw", "fields", "body"),
    [
        pytest.param(b"A: b\n c\nD:e\n\nf\n", [(b"A", b" b\r\n c"), (b"D", b"e")], b"f\r\n", id="folds"),
        pytest.param(b"\n\nA: b\n\nf", [(b"A", b" b")], b"f", id="empty lines before it"),
        pytest.param(b"A: b\nno field\n\nf", [(b"A", b" b")], b"no field\r\n\r\nf", id="a line that is no field"),
        pytest.param(b"A: b", [(b"A", b" b")], b"", id="no body"),
        pytest.param(b">From x\nA: b\n\n", [(b"A", b" b")], b"", id="the line of an mbox"),
    ],
)
def test_the_message_is_what_a_milter_would_see(raw: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    message = message_of(raw)
    assert message is not None
    assert [tuple(field) for field in message.fields] == fields
    assert message.body == body
    assert message.body_size == len(body)
