"""What hostile messages cost: CPU and memory of a whole session with all checks of content, each in a process of its own.

    .venv/bin/python -m tests.bench.bounds [--only WORD] [--scan-size SIZE]

Prints a line for each message: its size, seconds of CPU, and megabytes of memory at most over what the process had when
it held the message and had played an ordinary one.  What is over `MOST_SECONDS` or `MOST_MEGABYTES` is marked, and makes
the exit status 1.  The broken messages of the shared data count together, and the dearest of them apart.
Needs Linux, and no root.
"""

import argparse
import asyncio
import base64
import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from authmilter.check import all_checks
from authmilter.cli.check_message import split
from authmilter.config import ini
from authmilter.config.schema import Config
from authmilter.evaluation import Case, Player
from authmilter.log import configure
from authmilter.model import HeaderField, Message
from tests.shared import shared_folder

MOST_SECONDS = 2.0
MOST_MEGABYTES = 150.0
MALFORMED = "malformed-mime"
_HEAD = (
    b"From: Anna <anna@example.org>\r\nTo: bob@example.net\r\nDate: Tue, 14 Nov 2023 22:00:00 +0000\r\n"
    b"Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
)


def mail(content_type: bytes, body: bytes, more: bytes = b"") -> bytes:
    """A message with that body."""
    return _HEAD + b"Subject: hello\r\nContent-Type: " + content_type + b"\r\n" + more + b"\r\n" + body


def attached(name: str, content: bytes) -> bytes:
    """A message with a file."""
    more = b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=" + name.encode() + b"\r\n"
    return mail(b"application/octet-stream", base64.encodebytes(content).replace(b"\n", b"\r\n"), more)


def html(piece: str, size: int, before: str = "", behind: str = "") -> bytes:
    """A message of HTML that repeats itself."""
    body = before + piece * ((size - len(before) - len(behind)) // len(piece)) + behind
    return mail(b"text/html; charset=utf-8", body.encode())


# -- archives --------------------------------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def nested_zip(depth: int, width: int) -> bytes:
    """Zips in zips, so many in each."""
    content = zipped({"zeros": bytes(1_000_000)})
    for _ in range(depth):
        content = zipped({f"{number}.zip": content for number in range(width)})
    return content


def zip_of_many(count: int, flags: int = 0, content: bytes = b"", method: int = 0) -> bytes:
    """A zip of small files, written by hand, since zipfile takes seconds for 100,000."""
    local, directory = bytearray(), bytearray()
    checksum = zlib.crc32(b"")
    packed = 0 if flags & 8 else len(content)
    for number in range(count):
        name = b"%05d" % number
        at = len(local)
        local += struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0, checksum, packed, packed, len(name), 0)
        local += name + content
        directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            20,
            20,
            flags,
            method,
            0,
            0,
            checksum,
            packed,
            packed,
            len(name),
            0,
            0,
            0,
            0,
            0,
            at,
        )
        directory += name
    entries = min(count, 65535)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries, entries, len(directory), len(local), 0)
    return bytes(local + directory + end)


def tar_of_many(count: int) -> bytes:
    """A tar of empty files."""
    one = tarfile.TarInfo("a.txt").tobuf(tarfile.USTAR_FORMAT)
    return one * count + bytes(1024)


def seven_zip() -> bytes:
    """A 7z whose header says that it has a great many files."""
    header = b"\x01\x05" + b"\xff" + b"\xff" * 7 + b"\x7f" + b"\x11" + b"\xfe" * 100_000
    start = struct.pack("<QQI", 0, len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<I", zlib.crc32(start)) + start + header


def rar(count: int) -> bytes:
    """A RAR 5 of nothing but heads of files."""
    head = b"\x02\x00\x04\x00\x00\x00\x00\x05a.exe"  # type 2, no flags, no attributes, five octets of a name
    sized = bytes([len(head)]) + head
    return b"Rar!\x1a\x07\x01\0" + (struct.pack("<I", zlib.crc32(sized)) + sized) * count


# -- MIME ------------------------------------------------------------------------------------------------------------------


def deep_multipart(depth: int) -> bytes:
    """A multipart in a multipart."""
    opened = b"".join(
        b"--%04d\r\nContent-Type: multipart/mixed; boundary=%04d\r\n\r\n" % (n, n + 1) for n in range(depth)
    )
    return mail(
        b"multipart/mixed; boundary=0000", opened + b"".join(b"--%04d--\r\n" % n for n in reversed(range(depth)))
    )


def many_parts(count: int, kind: bytes, content: bytes) -> bytes:
    """A multipart of equal parts."""
    part = b"--a\r\nContent-Type: " + kind + b"\r\n\r\n" + content + b"\r\n"
    return mail(b"multipart/mixed; boundary=a", part * count + b"--a--\r\n")


def hostile_names() -> bytes:
    """Names in all the ways in which they can be written, each as long as it goes."""
    word = b"=?utf-8?B?" + base64.b64encode("ä".encode() * 20) + b"?="
    pieces = b"".join(b";\r\n filename*%d*=utf-8'en'%%41%%42" % number for number in range(500))
    part = (
        b"--a\r\nContent-Type: application/pdf; name=\"" + b"\r\n ".join([word] * 100) + b"\"\r\n"
        b"Content-Disposition: attachment" + pieces + b"; filename=" + b"(" * 5000 + b'; filename="' + b"\\a" * 4000
        + b"\"\r\n\r\nx\r\n"
    )  # fmt: skip
    more = b"Subject: " + b"\r\n ".join([word] * 600) + b"\r\nReply-To: " + b"\r\n ".join([b"=?u?q?"] * 5000) + b"\r\n"
    return _HEAD + more + b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + part * 200 + b"--a--\r\n"


M = 1_000_000
BODY = 8 * M  # what the session keeps of a body, as good as
CASES: dict[str, Callable[[], bytes]] = {
    "an ordinary message": lambda: html("<p>Hello <a href='https://example.org/'>there</a>, how are you?</p>\r\n", 5000),
    "zip, one file 1:1,000": lambda: attached("a.zip", zipped({"zeros": bytes(256 * M)})),
    "zip, 16^4 zips within zips": lambda: attached("a.zip", nested_zip(4, 16)),
    "zip, stored zips within zips": lambda: attached(
        "a.zip", zipped({f"{n}.zip": zip_of_many(200, 0, bytes(50)) for n in range(200)}, zipfile.ZIP_STORED)
    ),
    "zip, 100,000 files": lambda: attached("a.zip", zip_of_many(100_000)),
    "zip, 50,000 files of unknown sizes": lambda: attached("a.zip", zip_of_many(50_000, 8, b"\x03\0" + b"x" * 30, 8)),
    "zip, 5 of 1,000 files that each unpack 4 KB": lambda: mail(
        b"multipart/mixed; boundary=a",
        b"".join(
            b"--a\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.encodebytes(zip_of_many(1000, 0, _deflated(bytes(100_000)), 8)).replace(b"\n", b"\r\n")
            for _ in range(5)
        ),
    ),
    "gzip of 256 MB": lambda: attached("a.gz", gzip.compress(bytes(256 * M))),
    "bzip2 of 256 MB": lambda: attached("a.bz2", bz2.compress(bytes(256 * M))),
    "xz of 256 MB": lambda: attached("a.xz", lzma.compress(bytes(256 * M), preset=0)),
    "xz with a dictionary of 64 MB": lambda: attached(
        "a.xz", lzma.compress(bytes(M), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26, "mode": lzma.MODE_FAST}])
    ),
    "tar.gz, 100,000 files": lambda: attached("a.tgz", gzip.compress(tar_of_many(100_000))),
    "tar, 10,000 files": lambda: attached("a.tar", tar_of_many(10_000)),
    "7z that says it has 2^62 files": lambda: attached("a.7z", seven_zip()),
    "rar, 100,000 heads": lambda: attached("a.rar", rar(100_000)),
    "multipart, 1,000 deep": lambda: deep_multipart(1000),
    "message/rfc822, 1,000 deep": lambda: mail(b"message/rfc822", b"Content-Type: message/rfc822\r\n\r\n" * 1000),
    "message/rfc822, 8 MB deep": lambda: mail(b"message/rfc822", b"Content-Type: message/rfc822\r\n\r\n" * (BODY // 32)),
    "10,000 parts": lambda: many_parts(10_000, b"text/plain", b"x"),
    "10,000 parts of HTML": lambda: many_parts(10_000, b"text/html", b"<p>x <a href=https://a.example/>y</a>" * 10),
    "500 parts of 16 KB of HTML": lambda: many_parts(500, b"text/html", b"<p>x <a href=https://a.example/>y</a>\r\n" * 400),
    "500 parts of 16 KB of text": lambda: many_parts(500, b"text/plain", b"go to https://a.example/ now\r\n" * 550),
    "1 MB of base64 in one line": lambda: mail(
        b"text/plain", base64.b64encode(b"words and more words " * 35_000), b"Content-Transfer-Encoding: base64\r\n"
    ),
    "8 MB of base64 in one line": lambda: mail(
        b"text/plain", base64.b64encode(b"words and more words " * 285_000), b"Content-Transfer-Encoding: base64\r\n"
    ),
    "encoded words and RFC 2231 names": hostile_names,
    "8 MB of soft breaks": lambda: mail(
        b"text/plain", b"=\r\n" * (BODY // 3), b"Content-Transfer-Encoding: quoted-printable\r\n"
    ),
    "8 MB of beginnings of uuencode": lambda: mail(b"text/plain", b"begin 644 a\r\n" * (BODY // 13)),
    "8 MB of UTF-7": lambda: mail(b"text/plain; charset=utf-7", b"+AOQ-" * (BODY // 5)),
    "8 MB of ISO-2022-JP": lambda: mail(b"text/plain; charset=iso-2022-jp", b'\x1b$B$"\x1b(B' * (BODY // 8)),
    "8 MB of Chinese": lambda: mail(b"text/plain; charset=utf-8", "中文信息".encode() * (BODY // 12)),
    "8 MB of addresses of pages": lambda: mail(b"text/plain", b"http://a%.example/ www.b.example\r\n" * (BODY // 34)),
    "8 MB without a blank": lambda: mail(b"text/plain", b"a" * BODY),
    "50 MB of HTML": lambda: html("<div style='color:red'><a href=https://a.example/>text</a>\r\n", 50 * M),
    "50 MB of nested fonts": lambda: html("<font size=1>", 50 * M),
    "50 MB of one tag": lambda: html("a", 50 * M, "<div x='"),
    "1 MB of nested hidden divisions": lambda: html("<div style='font-size:0'><b style='font-size:9px'>x", M),
    "a tag of a million attributes": lambda: html(" a=b", 4 * M, "<p", ">x</p>"),
    "tags of different attributes": lambda: mail(
        b"text/html", b"".join(b"<p style='width:%dpx;color:#%06x' class=c%d>" % (n, n, n) for n in range(25_000))
    ),
    "1 MB of entities": lambda: html("&CounterClockwiseContourIntegral;", M),
    "1 MB of ampersands": lambda: html("&am", M),
    "1 MB of rules": lambda: mail(
        b"text/html",
        b"<style>" + b"".join(b".c%d,#i%d{display:none}" % (n, n) for n in range(25_000)) + b"</style>" + b"<p class='a b c d'>x" * 12_000,
    ),
    "1 MB of braces": lambda: html("{", M, "<style>", "</style>x"),
    "comments never closed": lambda: html("<!-- ", M),
    "comments of Outlook": lambda: html("<!--[if mso]>href<a href=x>", M),
    "quotes never closed": lambda: html("<a href=\"x' ", M),
    "links, 100,000": lambda: html("<a href=http://a.example/>b</a>", M),
    "headers, 2,000 of 100 octets": lambda: _HEAD + b"Content-Type: text/plain; name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 2000 + b"\r\nx",
}  # fmt: skip


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


# -- measuring -------------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """`octets` of the message, `seconds` of CPU, `megabytes` over the idle process; `note` says more."""

    name: str
    octets: int
    seconds: float
    megabytes: float
    note: str = ""

    @property
    def excessive(self) -> bool:
        """Is it more than it may be?"""
        return self.seconds > MOST_SECONDS or self.megabytes > MOST_MEGABYTES


def parsed(raw: bytes) -> Message:
    """The message as a milter hears it."""
    fields, body = split(raw)
    return Message(tuple(HeaderField(*field) for field in fields), body=body)


def player(scan_size: str = "") -> Player:
    """Plays messages through all checks."""
    config: Config = ini.load(None, f"[milter]\nscan_size = {scan_size}\n" if scan_size else "")
    return Player(config, all_checks())


def _memory(field: str) -> float:
    """Megabytes of this process: VmRSS, what it has; VmHWM, the most it had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(field)


def measured(name: str, raw: bytes, scan_size: str = "") -> Cost:
    """The cost of one message in this process."""
    taken = parsed(raw)
    octets = len(raw)
    del raw
    plays = player(scan_size)
    with asyncio.Runner() as runner:
        runner.run(plays.play(parsed(CASES["an ordinary message"]()), False))
        Path("/proc/self/clear_refs").write_text("5")  # the most it had begins anew
        idle = _memory("VmRSS")
        begin = time.process_time()
        case = runner.run(plays.play(taken, False, name))
        seconds = time.process_time() - begin
    return Cost(name, octets, seconds, max(0.0, _memory("VmHWM") - idle), _symbols(case))


def _symbols(case: Case) -> str:
    return " ".join(sorted({found.symbol for found in case.found if found.symbol.startswith(("mime", "att", "html"))}))


def malformed(scan_size: str = "") -> tuple[Cost, Cost]:
    """The cost of all broken messages of the shared data, and of the dearest."""
    folder = shared_folder() / "data" / MALFORMED
    files = [json.loads(line)["file"] for line in (folder / "index.jsonl").read_text().splitlines()]
    messages = {name: (folder / name).read_bytes() for name in files}
    plays = player(scan_size)
    worst = Cost("", 0, 0.0, 0.0)
    total = 0.0
    with asyncio.Runner() as runner:
        runner.run(plays.play(parsed(CASES["an ordinary message"]()), False))
        Path("/proc/self/clear_refs").write_text("5")
        idle = _memory("VmRSS")
        for name, raw in messages.items():
            begin = time.process_time()
            runner.run(plays.play(parsed(raw), False, name))
            seconds = time.process_time() - begin
            total += seconds
            if seconds > worst.seconds:
                worst = Cost(f"the dearest of {MALFORMED}", len(raw), seconds, 0.0, name)
    octets = sum(map(len, messages.values()))
    memory = max(0.0, _memory("VmHWM") - idle)
    return Cost(f"all of {MALFORMED}", octets, total, memory, f"together, {len(files)}"), worst


def in_child(name: str, scan_size: str) -> list[Cost]:
    """The same in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        if name != MALFORMED:
            file.write(CASES[name]())
            file.flush()
        command = [sys.executable, "-m", "tests.bench.bounds", "--child", name, file.name, "--scan-size", scan_size]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise SystemExit(f"{name}: {result.stderr.strip()}")
    return [Cost(*row) for row in json.loads(result.stdout)]


def line(cost: Cost) -> str:
    """A line of the table."""
    mark = "  EXCESSIVE" if cost.excessive else ""
    return f"{cost.name:44}{cost.octets / 1e6:7.2f}{cost.seconds:8.3f}{cost.megabytes:8.1f}{mark}  {cost.note[:90]}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="only messages with that word in their name")
    parser.add_argument("--scan-size", default="", help="[milter] scan_size, if not the default")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        configure("text", "error", sys.stderr)
        name, path = arguments.child
        if name == MALFORMED:
            print(json.dumps(malformed(arguments.scan_size)))
        else:
            print(json.dumps([measured(name, Path(path).read_bytes(), arguments.scan_size)]))
        return
    print(f"{'':44}{'MB':>7}{'CPU s':>8}{'MB more':>8}")
    excessive = False
    for name in [name for name in (*CASES, MALFORMED) if arguments.only in name]:
        for cost in in_child(name, arguments.scan_size):
            print(line(cost), flush=True)
            excessive = excessive or (cost.excessive and not cost.note.startswith("together"))
    raise SystemExit(1 if excessive else 0)


if __name__ == "__main__":
    main()
