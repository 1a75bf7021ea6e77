"""Messages out of files of every kind."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from authmilter import stored_mail
from authmilter.stored_mail import MAX_FIELDS, MAX_MESSAGE, MAX_PROBLEMS, StoredMail, message_of


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


def packed(times: int) -> bytes:
    octets = mail("deep")
    for _ in range(times):
        octets = gzip.compress(octets)
    return octets


@pytest.mark.parametrize(
    ("octets", "found", "skipped"),
    [
        pytest.param(tar(a=gzip.compress(mail("1")), b=bz2.compress(MBOX)), ["1", "1", "2"], 0, id="packed in tar"),
        pytest.param(gzip.compress(tar(a=gzip.compress(MBOX))), ["1", "2"], 0, id="mbox.gz in tar.gz"),
        pytest.param(packed(3), ["deep"], 0, id="packed three times"),
        pytest.param(packed(4), [], 1, id="packed too often"),
        pytest.param(packed(2000), [], 1, id="packed endlessly"),
        pytest.param(b"\xef\xbb\xbf" + mail("1"), ["1"], 0, id="a byte order mark"),
    ],
)
def test_what_is_in_what(tmp_path: Path, octets: bytes, found: list[str], skipped: int) -> None:
    (tmp_path / "file").write_bytes(octets)
    stored = StoredMail([str(tmp_path / "file")])
    assert names(stored) == found
    assert (stored.skipped, stored.problems) == (skipped, [])


def test_an_mbox_in_a_tar_is_read_to_its_end(tmp_path: Path) -> None:
    number = MAX_MESSAGE // 100_000 + 5
    mbox = b"".join(b"From a\n" + mail(str(one), ("x" * 99 + "\n") * 1000) + b"\n" for one in range(number))
    (tmp_path / "t").write_bytes(tar(a=mbox, b=mail("last")))
    assert names(StoredMail([str(tmp_path / "t")])) == [*map(str, range(number)), "last"]


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.type = kind
    return entry.tobuf(tarfile.USTAR_FORMAT if size < 8**11 else tarfile.GNU_FORMAT)


GOOD = header(b"0", len(mail("good")), "good") + mail("good").ljust(512, b"\0")


@pytest.mark.parametrize(
    ("archive", "found", "problem"),
    [
        pytest.param(
            b"".join(header(kind, 0, "../../etc/x") for kind in (b"1", b"2", b"3", b"4", b"5", b"6")) + GOOD,
            ["good"],
            "",
            id="links, devices, folders and pipes",
        ),
        pytest.param(header(b"0", len(mail("up")), "/etc/../../up") + mail("up").ljust(512) + GOOD, ["up", "good"], "", id="names that lead away"),
        pytest.param(header(b"x", 600) + b"x" * 1024 + GOOD, ["good"], "", id="an extended header"),
        pytest.param(header(b"x", 2**60) + b"x" * 1024, [], "is cut off", id="an extended header of an exabyte"),
        pytest.param(header(b"L", 2**33) + b"x" * 1024, [], "is cut off", id="a long name of 8 GB"),
        pytest.param(GOOD + header(b"0", 5000) + mail("cut"), ["good"], "is cut off", id="a file that is cut off"),
        pytest.param(GOOD + GOOD[:100], ["good"], "is cut off", id="a header that is cut off"),
        pytest.param(GOOD + b"garbage".ljust(512), ["good"], "is damaged", id="garbage"),
        pytest.param(GOOD + header(b"0", 5)[:124] + b"-7".ljust(12) + header(b"0", 5)[136:], ["good"], "is damaged", id="a size below 0"),
        pytest.param(GOOD + header(b"S", 512) + bytes(512) + GOOD, ["good"], "holes", id="files with holes"),
        pytest.param(header(b"0", 5, "._a") + b"A: b\n".ljust(512) + GOOD, ["good"], "", id="what a Mac leaves"),
        pytest.param(GOOD + bytes(1024) + GOOD, ["good"], "", id="something behind the end"),
    ],
)  # fmt: skip
def test_hostile_archives(tmp_path: Path, archive: bytes, found: list[str], problem: str) -> None:
    (tmp_path / "t").write_bytes(archive)
    stored = StoredMail([str(tmp_path / "t")])
    assert names(stored) == found
    assert problem in "".join(stored.problems)
    assert bool(problem) is bool(stored.problems)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_unpacks_to_too_much_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(stored_mail, "ALLOWANCE", 1024 * 1024)
    bomb = header(b"x", 32 * 1024 * 1024) + bytes(32 * 1024 * 1024)
    (tmp_path / "bomb").write_bytes(pack(GOOD + bomb + GOOD))
    (tmp_path / "good").write_bytes(mail("other"))
    stored = StoredMail([str(tmp_path / "bomb"), str(tmp_path / "good")])
    assert names(stored) == ["good", "other"]
    assert stored.problems == [f"{tmp_path}/bomb: unpacks to more than 200 times its size: the rest is not read"]


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        pytest.param(b"\x28\xb5\x2f\xfd...", "zstd -dc FILE", id="zstd"),
        pytest.param(b"PK\3\4...", "unpack it to a folder", id="zip"),
    ],
)
def test_what_is_packed_in_another_way_is_told(tmp_path: Path, octets: bytes, words: str) -> None:
    (tmp_path / "m").write_bytes(octets)
    stored = StoredMail([str(tmp_path / "m")])
    assert names(stored) == []
    assert words in stored.problems[0]


def test_a_pipe_that_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(gzip.compress(MBOX),))
    writer.start()
    stored = StoredMail([str(tmp_path / "pipe")])
    assert names(stored) == ["1", "2"]
    assert stored.problems == []
    writer.join()


def test_a_pipe_in_a_folder_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "1").write_bytes(mail("1"))
    assert names(StoredMail([str(tmp_path)])) == ["1"]


def test_what_is_named_and_can_not_be_read_is_told_so_often_and_no_more(tmp_path: Path) -> None:
    stored = StoredMail([str(tmp_path / str(number)) for number in range(100)])
    assert names(stored) == []
    assert len(stored.problems) == MAX_PROBLEMS + 1
    assert stored.problems[-1] == "and 80 more that can't be read"


def test_a_mailbox_that_is_in_use(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / name).write_bytes(mail(name))
    stored = StoredMail([str(tmp_path)])
    found = []
    for message in stored:
        found.append(message)
        (tmp_path / "2").unlink(missing_ok=True)
    assert len(found) == 2
    assert stored.problems == []


def test_folders_as_deep_as_the_system_allows(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        (tmp_path / "e").write_bytes(mail("beside"))
        stored = StoredMail([str(tmp_path)])
        assert names(stored) == ["beside"]
        assert stored.problems == []
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest could not


def test_folders_below_a_maildir_that_are_not_dotted(tmp_path: Path) -> None:
    for folder in ("cur", "new", "tmp", "Junk/cur", "Junk/new"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Junk/cur/1").write_bytes(mail("junk"))
    (tmp_path / "tmp/2").write_bytes(mail("unfinished"))
    assert names(StoredMail([str(tmp_path)])) == ["junk"]


def test_a_message_has_so_many_fields(tmp_path: Path) -> None:
    message = message_of(b"A: b\n" * (MAX_FIELDS + 10) + b"\ntext")
    assert message is not None
    assert len(message.fields) == MAX_FIELDS
    assert message.body == b"text"


def test_a_line_from_without_a_field_behind_it_begins_no_message(tmp_path: Path) -> None:
    text = b"From a\nSubject: 1\n\ntext\n\nFrom here on\nit goes on\n\nFrom b\nSubject: 2\n\n\nFrom the end"
    (tmp_path / "m").write_bytes(text)
    first, second = StoredMail([str(tmp_path / "m")])
    assert first.body == b"text\r\n\r\nFrom here on\r\nit goes on\r\n\r\n"
    assert second.body == b"\r\nFrom the end"


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
        pytest.param(lambda path: path.write_bytes(gzip.compress(mail("1"))[:10] + b"\xff" * 50), id="damaged gzip"),
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


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"a:b\n", id="fields"),
        pytest.param(b" c\n", id="folds"),
        pytest.param(b"\n>From >From\n", id="quoted lines"),
    ],
)
def test_short_lines_take_no_more_room_than_a_few_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    room = 1 << 18
    monkeypatch.setattr(stored_mail, "MAX_MESSAGE", room)
    monkeypatch.setattr(stored_mail, "MAX_FIELDS", 1000)
    (tmp_path / "m").write_bytes(b"From a\nA: b\n" + line * (room // len(line)))
    tracemalloc.start()
    try:
        assert len(list(StoredMail([str(tmp_path / "m")]))) == 1
        assert tracemalloc.get_traced_memory()[1] < 8 * room
    finally:
        tracemalloc.stop()


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
