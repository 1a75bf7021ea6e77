"""Messages taken apart: their parts, each in every reading, and what is odd about them."""

import base64
import binascii
import json
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.cli.check_message import split
from authmilter.html_text import MAX_HTML
from authmilter.mime import MAX_DECODED, MAX_DEPTH, MAX_MARKUP, MAX_PARTS, MAX_TEXT, ODDITIES, Mime, Part, mime, parts
from authmilter.mime_fields import (
    MAX_VALUE,
    boundaries,
    decode,
    decode_words,
    described,
    file_names,
    until_padding,
    without_comments,
)
from authmilter.model import HeaderField, Message
from tests.shared import shared
from tests.test_linear import STEP_GROWTH, TIME_GROWTH, Work, repeated, step_growth, time_growth


def message(raw: bytes) -> Message:
    """A message written with LF, as it travels."""
    fields, body = split(raw)
    return Message(tuple(HeaderField(*field) for field in fields), body=body)


def shape(raw: bytes) -> list[tuple[str, bytes, bool]]:
    """Type, decoded octets and whether it is an alternative, of every leaf."""
    return [(part.type, part.data.strip(), part.alternative) for part in parts(message(raw)) if part.is_leaf]


def odd(raw: bytes) -> set[str]:
    """The names of the oddities, after everything was decoded."""
    taken = mime(message(raw))
    for part in taken.parts:
        _ = part.data
    return {oddity.name for oddity in taken.oddities}


MIXED = b"""Content-Type: multipart/mixed; boundary="b1"

This is a multi-part message in MIME format.
--b1
Content-Type: multipart/alternative; boundary=b2

--b2
Content-Type: text/plain; charset=utf-8

plain
--b2
Content-Type: text/html; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

<p>caf=E9</p>
--b2--
--b1
Content-Type: application/pdf; name="a.pdf"
Content-Disposition: attachment; filename="a.pdf"
Content-Transfer-Encoding: base64

JVBERi0xLjQ=
--b1--
"""


def test_the_usual_message() -> None:
    taken = mime(message(MIXED))
    assert [(part.type, part.depth, part.alternative) for part in taken.parts] == [
        ("multipart/mixed", 0, False),
        ("multipart/alternative", 1, False),
        ("text/plain", 2, False),
        ("text/html", 2, False),
        ("application/pdf", 1, False),
    ]
    _, inner, plain, html, pdf = taken.parts
    assert plain.text == "plain"
    assert plain.parent is inner
    assert html.text == "<p>caf\xe9</p>"
    assert html.html is not None
    assert html.html.text == "caf\xe9"
    assert plain.html is None
    assert (pdf.data, pdf.names, pdf.disposition) == (b"%PDF-1.4", ("a.pdf",), "attachment")
    assert taken.oddities == ()


def test_it_is_done_once_and_anew_when_the_body_is_there() -> None:
    early = message(MIXED)
    headers_alone = Message(early.fields)
    assert len(parts(headers_alone)) == 1
    whole = headers_alone.with_body(len(early.body), {}, "", early.body)
    assert len(parts(whole)) == 5
    assert mime(whole) is mime(whole)


@pytest.mark.parametrize(
    ("raw", "leaves", "oddities"),
    [
        pytest.param(b"Subject: x\n\nhi\n", [("text/plain", b"hi", False)], set(), id="no MIME at all"),
        pytest.param(b"Content-Type: text/html\n\nhi\n", [("text/html", b"hi", False)], set(), id="one part"),
        pytest.param(b"Content-Type: text\n\nhi\n", [("text/plain", b"hi", False)], {"type_malformed"}, id="no subtype"),
        pytest.param(b"Content-Type:\n\nhi\n", [("text/plain", b"hi", False)], {"type_malformed"}, id="an empty type"),
        pytest.param(
            b"Content-Type: text/plain\nContent-Type: text/html\n\n<b>\n",
            [("text/plain", b"<b>", False), ("text/html", b"<b>", True)],
            {"type_repeated"},
            id="two types are two readings",
        ),
        pytest.param(
            b"Content-Type: text/plain\nContent-Type: text/plain\n\nx\n",
            [("text/plain", b"x", False)],
            set(),
            id="the same type twice is one",
        ),
        pytest.param(
            b"Content-Type: text/plain\nContent-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\naGk=\n",
            [("text/plain", b"aGk=", False), ("text/plain", b"hi", True)],
            {"encoding_repeated"},
            id="two encodings are two readings",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: x-base64\n\naGk=\n",
            [("text/plain", b"aGk=", False), ("text/plain", b"hi", True)],
            {"encoding_unknown"},
            id="an encoding that is hardly base64 is read as such too",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: BASE64 (really)\n\naGk=\n", [("text/plain", b"hi", False)], set(), id="a comment behind it"
        ),
        pytest.param(
            b'Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--a\n\none\n--a--\n--b\n\ntwo\n--b--\n',
            [
                ("text/plain", b"one", False),
                ("text/plain", b"two", True),
            ],
            {"boundary_ambiguous"},
            id="two boundaries are two readings",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; (; boundary=a;) boundary=b\n\n--a\n\none\n--a--\n--b\n\ntwo\n--b--\n",
            [("text/plain", b"two", False), ("text/plain", b"one", True)],
            {"boundary_ambiguous"},
            id="a boundary in a comment is what RFC 2045 does not mean",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=nowhere\n\n--a\nContent-Type: text/html\n\nx\n--a--\n",
            [("text/html", b"x", True)],
            {"boundary_absent"},
            id="a boundary that is not there is guessed",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed\n\n--a\nContent-Type: text/html\n\nx\n--a--\n",
            [("text/html", b"x", True)],
            {"boundary_absent"},
            id="no boundary is declared",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\nhttp://x.example\n",
            [("text/plain", b"http://x.example", False)],
            {"boundary_absent"},
            id="no parts at all are text",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n",
            [("text/plain", b"one", False)],
            {"end_absent"},
            id="no end",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a--\n--a\nContent-Type: text/html\n\ntwo\n--a--\n",
            [("text/plain", b"one", False), ("text/html", b"two", True)],
            {"behind_end"},
            id="a part behind the end",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--abc\nContent-Type: text/html\n\ntwo\n--a--\n",
            [
                ("text/plain", b"one\r\n--abc\r\nContent-Type: text/html\r\n\r\ntwo", False),
                ("text/plain", b"one", True),
                ("text/html", b"two", True),
            ],
            {"boundary_prefix"},
            id="a line that begins with the boundary",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\nContent-Type: text/html\n--a\n\none\n--a--\nsee http://x.example\n",
            [
                ("text/plain", b"Content-Type: text/html", False),
                ("text/plain", b"one", False),
                ("text/plain", b"see http://x.example", False),
            ],
            {"outside_parts"},
            id="content around the parts",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\nX: y\njunk\nContent-Type: text/html\n\none\n--a--\n",
            [
                ("text/plain", b"junk\r\nContent-Type: text/html\r\n\r\none", False),
                ("text/html", b"one", True),
            ],
            {"header_broken"},
            id="fields interrupted by a line that is none",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\none\n--a--\n",
            [("text/plain", b"one", False)],
            set(),
            id="a part without the empty line",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type : text/html\n\none\n--a--\n",
            [("text/html", b"one", False)],
            set(),
            id="a blank before the colon",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes(b"--a\nContent-Type: text/html\n\none\n--a--\n"),
            [("text/html", b"one", True)],
            {"encoded_multipart"},
            id="a multipart in base64",
        ),
        pytest.param(
            b"Content-Type: message/rfc822\n\nSubject: x\nContent-Type: text/html\n\none\n",
            [("text/html", b"one", False)],
            set(),
            id="an attached message",
        ),
        pytest.param(
            b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes(b"Subject: x\nContent-Type: text/html\n\none\n"),
            [("text/html", b"one", False)],
            {"encoded_message"},
            id="an attached message in base64",
        ),
        pytest.param(
            b"Content-Type: multipart/digest; boundary=a\n\n--a\n\nSubject: x\nContent-Type: text/html\n\none\n--a--\n",
            [("text/html", b"one", False)],
            set(),
            id="a digest is made of messages",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: base64\n\naGk=\naGkh\n",
            [("text/plain", b"hi", False), ("text/plain", b"hihi!", True)],
            {"base64_joined"},
            id="base64 that goes on behind its padding",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: base64\n\naGk=\n-- \nA footer of a list\n",
            [("text/plain", b"hi", False)],
            set(),
            id="a footer behind base64",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: base64\n\naGkhaG", [("text/plain", b"hi!h", False)], {"base64_cut"}, id="base64 that is cut"
        ),
        pytest.param(
            b"Content-Transfer-Encoding: base64\n\na*G-k!h\n", [("text/plain", b"hi!", False)], set(), id="base64 with dirt"
        ),
        pytest.param(
            b"Subject: x\n\nsee\nbegin 644 a.exe\n" + binascii.b2a_uu(b"MZ1") + b"`\nend\n",
            [
                ("text/plain", b"see\r\nbegin 644 a.exe\r\n#35HQ\r\n`\r\nend", False),
                ("application/octet-stream", b"MZ1", False),
            ],
            {"uuencoded"},
            id="a uuencoded file",
        ),
        pytest.param(
            b"Content-Type: message/partial; id=1; number=1\n\nx\n", [("message/partial", b"x", False)], {"fragment"}, id="a fragment"
        ),
        pytest.param(
            b"Content-Type: text/plain; charset=klingon\n\nx\n", [("text/plain", b"x", False)], {"charset_unknown"}, id="an unknown charset"
        ),
    ],
)  # fmt: skip
def test_readings(raw: bytes, leaves: list[tuple[str, bytes, bool]], oddities: set[str]) -> None:
    assert shape(raw) == leaves
    assert odd(raw) == oddities


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (b"aGkh", b"hi!"),
        (b"aGk=", b"hi"),
        (b"aA==", b"h"),
        (b"aGk=aGkh", b"hi"),
        (b"aA==aGkh", b"h"),
        (b"aGkhaA=\n=aGkh", b"hi!h"),
        (b"=aGkh=aGkh", b"hi!hi!"),
        (b"aA=kh=aGkh", b"h\t!hi!"),
        (b"aGk=***", b"hi"),
    ],
)
def test_base64_is_read_up_to_the_padding_that_ends_it_whatever_python_does(text: bytes, octets: bytes) -> None:
    assert binascii.a2b_base64(until_padding(text)) == octets


@pytest.mark.parametrize(
    ("raw", "oddities"),
    [
        pytest.param(MIXED[: MIXED.index(b"--b1--")], {"end_absent"}, id="without the last end"),
        pytest.param(MIXED[: MIXED.index(b"xLjQ=")], {"end_absent", "base64_cut"}, id="within base64"),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=a\n\nThis is\n", {"boundary_absent"}, id="before the first part"
        ),
        pytest.param(MIXED[: MIXED.index(b"--b2--")], {"end_absent"}, id="without two ends"),
        pytest.param(b"Content-Transfer-Encoding: base64\n\naGkhaG", {"base64_cut"}, id="base64 alone"),
    ],
)
def test_what_the_sender_left_out_is_odd_and_what_was_not_kept_is_not(raw: bytes, oddities: set[str]) -> None:
    assert odd(raw) == oddities
    whole = message(raw)
    cut = whole.with_body(len(whole.body), {}, "", whole.body, body_cut=True)
    taken = read_all(cut)
    assert taken.oddities == ()
    assert len(taken.parts) >= len(mime(whole).parts)


def test_what_is_odd_before_the_place_of_the_cut_stays_so() -> None:
    inner_without_end = MIXED.replace(b"--b2--\n", b"").replace(b"JVBERi0xLjQ=", b"JVBER\n\n--b1\n\nx")
    whole = message(inner_without_end[: inner_without_end.index(b"--b1--")])
    cut = whole.with_body(len(whole.body), {}, "", whole.body, body_cut=True)
    assert {oddity.name for oddity in read_all(cut).oddities} == {"end_absent", "base64_cut"}


def test_boundaries_at_lines_that_end_in_cr_alone_are_another_reading() -> None:
    raw = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\none\r--a\rContent-Type: text/html\r\rtwo\r\n--a--\r\n"
    assert ("text/html", b"two", True) in shape(raw)
    assert "bare_cr" in odd(raw)


def test_they_are_so_within_others_and_in_header_sections() -> None:
    inner = b"--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\r--c\rContent-Type: text/html\r\r<p>\n--c--\n--b--\n"
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n" + inner
    assert ("text/html", b"<p>", True) in shape(raw)
    section = b"--b\nX: y\rContent-Type: text/html\n\n<p>\n--b--\n"
    raw = b"Content-Type: multipart/mixed; boundary=b\n\n" + section
    assert shape(raw) == [("text/html", b"<p>", False)]
    assert odd(raw) == {"bare_cr"}


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"X: " + b"y" * 70_000 + b"\nContent-Type: text/html\n\n<p>", id="a header section"),
        pytest.param(b"Content-Type: text/html; x=" + b"y" * 70_000 + b"\n\n<p>", id="a field"),
    ],
)
def test_what_is_too_long_is_said_to_be(part: bytes) -> None:
    assert "limits" in odd(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + part + b"\n--b--\n")


def test_a_page_that_is_not_read_to_its_end_is_said_to_be() -> None:
    taken = mime(message(b"Content-Type: text/html\n\n" + b" " * MAX_HTML + b"<p>"))
    assert taken.parts[0].html
    assert [oddity.name for oddity in taken.oddities] == ["limits"]


def test_every_oddity_can_be_found_and_no_other() -> None:
    found: set[str] = set()
    for mark in test_readings.pytestmark:  # type: ignore[attr-defined]
        for case in mark.args[1]:
            found |= case.values[2]
    assert set(ODDITIES) - found == {"bare_cr", "names_differ", "limits"}  # they have tests of their own
    assert found <= set(ODDITIES)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param(b'Content-Disposition: attachment; filename="a b.txt"', ("a b.txt",), id="quoted"),
        pytest.param(b"Content-Disposition: attachment; filename=a.txt", ("a.txt",), id="a token"),
        pytest.param(b"Content-Disposition: attachment; filename=a b.txt", ("a b.txt",), id="blanks without quotes"),
        pytest.param(b"Content-Disposition: attachment; filename=report (1).pdf", ("report .pdf", "report (1).pdf"), id="parentheses"),
        pytest.param(b"Content-Disposition: attachment; filename*=utf-8''a%20%C3%A4.txt", ("a \xe4.txt",), id="RFC 2231"),
        pytest.param(b"Content-Disposition: attachment; filename*=iso-8859-1'de'%E4.txt", ("\xe4.txt",), id="RFC 2231 in latin-1"),
        pytest.param(
            b"Content-Disposition: attachment; filename*1=.exe; filename*0=a; filename*2*=%20x", ("a.exe x",), id="RFC 2231 in pieces"
        ),
        pytest.param(b'Content-Disposition: attachment; filename="=?utf-8?B?w6QudHh0?="', ("\xe4.txt",), id="RFC 2047"),
        pytest.param(b'Content-Type: text/plain; name="=?utf-8?Q?a=2Etxt?="', ("a.txt",), id="RFC 2047 in Content-Type"),
        pytest.param(
            b"Content-Disposition: attachment; filename=a.txt; filename*=utf-8''b.exe; filename=c.exe\n"
            b"Content-Type: text/plain; name=d.txt",
            ("b.exe", "a.txt", "c.exe", "d.txt"),
            id="all of them",
        ),
        pytest.param(b'Content-Type: text/plain name="a.exe"', ("a.exe",), id="without semicolon"),
        pytest.param(b'Content-Disposition: attachment; filename="a\\"b.txt"', ('a"b.txt',), id="a quoted pair"),
        pytest.param(b'Content-Disposition: attachment; filename="a.exe', ("a.exe",), id="a quote without end"),
        pytest.param(b'Content-Disposition: attachment;\n\tfilename="a\n b.txt"', ("a b.txt",), id="folded"),
        pytest.param(b"Content-Disposition: attachment; filename*999999999999=a", (), id="a piece that can't be"),
        pytest.param(b"Content-Disposition: attachment", (), id="none"),
        pytest.param(
            b'Content-Disposition: attachment; filename*0="=?utf-8?B?YS5l"; filename*1="eGU=?="', ("a.exe",), id="RFC 2047 in RFC 2231"
        ),
        pytest.param(
            b"Content-Disposition: attachment; filename*0=a.txt; filename*0=a.exe", ("a.txt", "a.exe"), id="a piece twice"
        ),
        pytest.param(b"Content-Disposition: attachment" + b"; x=y" * 500 + b"; filename=a.exe", ("a.exe",), id="behind 500 others"),
        pytest.param(b"Content-Disposition: attachment; x=" + b"y" * 20_000 + b"; filename=a.exe", ("a.exe",), id="behind 20 KB"),
    ],
)  # fmt: skip
def test_file_names(lines: bytes, names: tuple[str, ...]) -> None:
    assert file_names(message(lines + b"\n\n").fields) == names


def test_the_last_of_many_names_and_the_end_of_a_long_one_are_kept() -> None:
    many = b"Content-Disposition: attachment; " + b"".join(b"filename=%d.txt; " % n for n in range(30))
    assert file_names(message(many + b"\nContent-Type: x/y; name=a.exe\n\n").fields)[-1] == "a.exe"
    long = b"Content-Disposition: attachment; filename=" + b"a" * 3000 + b".exe\n\n"
    assert file_names(message(long).fields)[0].endswith("a.exe")


def test_names_of_different_extensions_are_odd() -> None:
    two = b"Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe\n\nx\n"
    assert odd(two) == {"names_differ"}
    assert odd(two.replace(b"a.exe", b"b.txt")) == set()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'multipart/mixed; boundary="a b "', (b"a b",)),
        (b"multipart/mixed; boundary=a", (b"a",)),
        (b"multipart/mixed; BOUNDARY=a; x=y", (b"a",)),
        (b"multipart/mixed; boundary*=us-ascii'en'a", (b"a", b"us-ascii'en'a")),
        (b"multipart/mixed; boundary*0=a; boundary*1=b", (b"ab", b"a", b"b")),
        (b"multipart/mixed; boundary=a(comment)", (b"a", b"a(comment)")),
        (b'multipart/mixed; x="boundary=a"; boundary=b', (b"b", b'a"')),
        (b"multipart/mixed", ()),
        (b'multipart/mixed; boundary=""', ()),
        (b'multipart/mixed; boundary="a\r\n b"', (b"a b",)),
        (b'multipart/mixed; boundary="=?utf-8?q?a?="', (b"=?utf-8?q?a?=", b"a")),
        (b'multipart/mixed; boundary="=?utf-7?q?+2AA-?="', (b"=?utf-7?q?+2AA-?=", b"?")),
        (b"multipart/mixed; " + b"".join(b"boundary=%d;" % n for n in range(50)), (b"0", b"1", b"2", b"49")),
    ],
)
def test_boundaries(value: bytes, expected: tuple[bytes, ...]) -> None:
    assert boundaries(value) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a (b) c", b"a   c"),
        (b"a (b (c) d) e", b"a   e"),
        (b"a (b", b"a "),
        (b'"(a)"', b'"(a)"'),
        (b"(a\\)b)c", b" c"),
        (b"a)b", b"a)b"),
    ],
)
def test_comments_are_blanks(raw: bytes, expected: bytes) -> None:
    assert without_comments(raw) == expected


@pytest.mark.parametrize(
    ("data", "charset", "expected"),
    [
        (b"abc", "utf-8", "abc"),
        (b"\xc3\xa4", "", "\xe4"),
        (b"\xe4", "", "\xe4"),
        (b"\x93a\x94", "iso-8859-1", "\u201ca\u201d"),
        (b"\xc3\xa4", "us-ascii", "\xe4"),
        (b"\xe4", "us-ascii", "\xe4"),
        (b"\xff", "utf-8", "\ufffd"),
        (b"\xd6\xd0", "gb2312", "\u4e2d"),
        (b"+AOQ-", "utf-7", "\xe4"),
        (b"a\0b\0", "utf-16le", "ab"),
        (b'\x1b$B$"\x1b(B', "iso-2022-jp", "\u3042"),
        (b"6162", "hex", "6162"),
        (b"xn--a", "idna", "xn--a"),
        (b"\xe4", "no-such\0charset", "\xe4"),
        (b"\xe4", "x" * 10_000, "\xe4"),
        (b"\xff\xfe\xfd", "utf-16", "\ufffd"),
    ],
)
def test_charsets(data: bytes, charset: str, expected: str) -> None:
    assert decode(data, charset) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"=?utf-8?q?a_b?=", "a b"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= x =?utf-8?q?b?=", "a x b"),
        (b"a.txt=?utf-8?q?.exe?=", "a.txt.exe"),
        (b"=?utf-8*en?b?w6Q?=", "\xe4"),
        (b"=?utf-8?q?=c3?= =?UTF-8?b?pA==?=!", "\xe4!"),
        (b"=?utf-8?q?=c3?= x =?utf-8?q?=a4?=", "\ufffd x \ufffd"),
        (b"=?iso-8859-1?q?=e4?= =?utf-8?q?=c3=a4?=", "\xe4\xe4"),
        (b"=?utf-8?b?w6Q", "=?utf-8?b?w6Q"),
        (b"=?x?z?a?=", "=?x?z?a?="),
    ],
)
def test_encoded_words(raw: bytes, expected: str) -> None:
    assert decode_words(raw) == expected


# ------------------------------------------------------------------------------------------------ bounds


def read_all(taken: Message) -> Mime:
    """Everything that can be asked for."""
    result = mime(taken)
    for part in result.parts:
        _ = part.data, part.text, part.names, part.html, part.disposition, part.charset, part.raw
    return result


def cost(taken: Message) -> tuple[Mime, float, int]:
    """What was found, the seconds of CPU, and the octets of memory at most."""
    tracemalloc.start()
    begin = time.process_time()
    found = read_all(taken)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, seconds, peak


def nested(depth: int) -> bytes:
    """A multipart in a multipart in a multipart."""
    opened = b"".join(
        b"--%04d\r\nContent-Type: multipart/mixed; boundary=%04d\r\n\r\n" % (n, n + 1) for n in range(depth)
    )
    return opened + b"".join(b"--%04d--\r\n" % n for n in reversed(range(depth)))


BOMBS = {
    "1,000 multiparts deep": (b" multipart/mixed; boundary=0000", nested(1000)),
    "100,000 parts": (b" multipart/mixed; boundary=a", b"--a\r\n\r\nx\r\n" * 100_000),
    "50 MB of HTML": (b" text/html", b"<div style='color:red'><a href=http://x.example/>x</a>\r\n" * 900_000),
    "50 MB of one tag": (b" text/html", b"<div x='" + b"a" * 50_000_000),
    "50 MB of text": (b" text/plain; charset=utf-8", b"\xc3\xa4 word\r\n" * 5_500_000),
    "messages in messages": (b" message/rfc822", b"Content-Type: message/rfc822\r\n\r\n" * 100_000),
    "10 MB of delimiters of other boundaries": (b" multipart/mixed; boundary=a", b"--ab\r\n" * 1_700_000),
    "10 MB of one header section": (b" multipart/mixed; boundary=a", b"--a\r\n" + b"X: y\r\n" * 1_700_000),
    "10 MB of beginnings of uuencode": (b" text/plain", b"begin 644 a\r\n" * 800_000),
    "8 MB of delimiters at lines that end in CR": (b" multipart/mixed; boundary=a", b"--a\r\n\r\nx" + b"\r--a" * 2_000_000),
    "three types at each of 29 levels, and 7 MB": (
        b" multipart/mixed; boundary=0",
        b"".join(
            b"--%d\r\n" % n
            + b"".join(b"Content-Type: multipart/x%d; boundary=%d\r\n" % (kind, n + 1) for kind in range(3))
            + b"\r\n"
            for n in range(29)
        )
        + b"x" * 7_000_000,
    ),
    "two boundaries at each of 30 levels": (
        b" multipart/mixed; boundary=0; boundary=0x",
        b"".join(
            b"--%dx\r\n\r\n--%d\r\nContent-Type: multipart/mixed; boundary=%d; boundary=%dx\r\n\r\n" % (n, n, n + 1, n + 1)
            for n in range(30)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(name: str, record_property: pytest.TestReport) -> None:
    content_type, body = BOMBS[name]
    taken = Message((HeaderField(b"Content-Type", content_type),), body=body)
    found, seconds, peak = cost(taken)
    print(
        f"{name}: {len(body) / 1e6:.1f} MB, {seconds * 1000:.0f} ms, {peak / 1e6:.0f} MB more, {len(found.parts)} parts"
    )
    assert len(found.parts) <= MAX_PARTS
    assert max(part.depth for part in found.parts) <= MAX_DEPTH + 1
    assert seconds < 10  # tracing memory makes it several times slower
    assert peak < 2 * MAX_DECODED + 4 * len(body)


def read_typed(content_type: bytes, encoding: bytes = b" 7bit") -> Callable[[bytes], object]:
    """Reads a body of that type."""
    fields = (HeaderField(b"Content-Type", content_type), HeaderField(b"Content-Transfer-Encoding", encoding))
    return lambda body: read_all(Message(fields, body=body))


def read_parameters(value: bytes) -> object:
    """Reads a field body in every way."""
    file_names([HeaderField(b"Content-Disposition", value), HeaderField(b"Content-Type", value)])
    return boundaries(value), without_comments(value), decode_words(value)


_MULTIPART = b" multipart/mixed; boundary=a"
GROWING = {
    f"{name} as {kind.decode().strip()}": Work(repeated(piece), read_typed(kind, encoding), time_at=100_000)
    for name, piece in {
        "delimiters": b"--a\r\n", "ends": b"--a--\r\n", "other delimiters": b"--ab\r\n", "line ends": b"\r\n", "bare CR": b"\r--a",
        "parts": b"--a\r\nContent-Type: text/html\r\n\r\n<p>x\r\n", "fields": b"Content-Type: a/b\r\n", "blanks": b" ",
        "uuencode": b"begin 644 a\r\n", "base64": b"aGk=", "equals signs": b"=", "soft breaks": b"=\r\n", "dashes": b"-",
        "junk and fields": b"--a\r\nX\r\nContent-Type: a/b\r\n", "escapes": b"\x1b$B", "UTF-7": b"+AOQ-",
    }.items()
    for kind, encoding in (
        (_MULTIPART, b" 7bit"), (b" message/rfc822", b" base64"), (b" text/plain; charset=utf-7", b" 7bit"),
        (b" text/html; charset=iso-2022-jp", b" quoted-printable"), (b" text/plain", b" base64"), (b" a/b", b" x-uuencode"),
    )
} | {
    f"field of {name}": Work(repeated(piece, b"multipart/mixed; boundary="), read_parameters, limit=MAX_VALUE)
    for name, piece in {
        "comments": b"(", "quotes": b'"', "backslashes": b'"\\', "boundaries": b"boundary=", "names": b"; name=a", "blanks": b" ",
        "numbered names": b"; filename*1=a", "percent signs": b"; filename*=a''%41", "words": b"=?utf-8?q?a?= ",
        "beginnings of words": b"=?a?b?", "semicolons": b";", "equals signs": b"=", "folds": b"\r\n ",
    }.items()
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_work_grows_no_faster_than_the_input(name: str) -> None:
    work = GROWING[name]
    growth, counted = step_growth(work)
    assert growth < STEP_GROWTH, counted
    for _ in range(3):
        taken = time_growth(work)
        if taken < TIME_GROWTH:
            return
    raise AssertionError(f"{taken:.1f} times as long for four times the input")


def test_more_parts_than_are_looked_at_have_an_end_all_the_same() -> None:
    body = b"--a\r\n\r\nx\r\n" * (MAX_PARTS + 1) + b"--a--\r\n"
    taken = read_all(Message((HeaderField(b"Content-Type", b" multipart/mixed; boundary=a"),), body=body))
    assert {oddity.name for oddity in taken.oddities} == {"limits"}


def test_a_long_text_is_cut_and_nothing_odd() -> None:
    taken = read_all(Message((HeaderField(b"Content-Type", b" text/csv"),), body=b"a,b\r\n" * (MAX_TEXT // 4)))
    assert taken.oddities == ()
    assert MAX_TEXT // 2 < len(taken.parts[0].text) <= MAX_TEXT


def test_html_is_read_up_to_a_limit_of_all_parts() -> None:
    page = b"--a\r\nContent-Type: text/html\r\n\r\n" + b"<p>x " * 50_000 + b"\r\n"
    taken = read_all(
        Message((HeaderField(b"Content-Type", b" multipart/mixed; boundary=a"),), body=page * 40 + b"--a--\r\n")
    )
    assert sum(part.html.tags for part in taken.parts if part.html) == pytest.approx(MAX_MARKUP / 5, abs=50)
    assert {oddity.name for oddity in taken.oddities} == {"limits"}


def test_base64_that_there_is_no_room_for_is_not_called_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.mime.MAX_DECODED", 5)
    taken = read_all(message(b"Content-Transfer-Encoding: base64\n\n" + b"aGkh" * 100))
    assert {oddity.name for oddity in taken.oddities} == {"limits"}
    assert taken.parts[0].data == b"hi!hi"


def test_of_base64_in_many_pieces_the_last_takes_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authmilter.mime.MAX_PIECES", 2)
    taken = read_all(message(b"Content-Transfer-Encoding: base64\n\n" + b"aGk=\n" * 2 + b"aGkh\n=" * 4))
    assert {oddity.name for oddity in taken.oddities} == {"base64_joined", "limits"}
    assert [part.data for part in taken.parts] == [b"hi", b"hihi" + b"hi!" * 4]


def test_base64_in_many_pieces_takes_little_room() -> None:
    body = message(b"Content-Transfer-Encoding: base64\n\n" + b"AAA=" * 1_000_000)
    tracemalloc.start()
    try:
        read_all(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * 2**20, "twelve times the message"


def test_what_is_too_deep_is_left_as_it_stands() -> None:
    found = mime(Message((HeaderField(b"Content-Type", b" multipart/mixed; boundary=0000"),), body=nested(1000)))
    assert {oddity.name for oddity in found.oddities} >= {"limits"}
    deepest = found.parts[-1]
    assert deepest.depth == MAX_DEPTH + 1
    assert deepest.is_leaf
    assert b"boundary=0999" in deepest.data


def test_malformed_messages_are_read_within_bounds() -> None:
    folder = shared("malformed-mime")
    files = [json.loads(line)["file"] for line in (folder / "index.jsonl").read_text().splitlines()]
    assert len(files) == 448
    slowest = 0.0
    for name in files:
        begin = time.process_time()
        taken = message((folder / name).read_bytes())
        found = read_all(taken)
        slowest = max(slowest, time.process_time() - begin)
        assert found.parts
        assert all(part.text is not None for part in found.parts)
    print(f"slowest {slowest * 1000:.0f} ms")
    assert slowest < 1


PIECES = [
    b"--a", b"--a--", b"--b", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Content-Type: multipart/mixed; boundary=a",
    b"Content-Type: message/rfc822", b"Content-Type: multipart/x; boundary=\"b\"; boundary*=''a", b"Content-Transfer-Encoding: base64",
    b"Content-Transfer-Encoding: quoted-printable", b"Content-Type: text/html; charset=", b"utf-16", b"iso-2022-jp", b"utf-7", b"hz",
    b"Content-Disposition: attachment; filename*0*=", b"x'y'%", b"=?utf-8?b?", b"?=", b"begin 644 a\n", b"end", b"(", b")", b'"',
    b"\\", b"<a href=", b"<!--", b"-->", b"<script>", b"&#", b"\0", b"\xff", b"=3D=", b"aGk=", b" ", b"\t", b";", b"=", b"+A", b"~{",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=8),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=60),
)
def test_nothing_fails(head: list[bytes], body: list[bytes]) -> None:
    fields = [HeaderField(name, b" " + b"".join(head)) for name in (b"Content-Type", b"content-disposition")]
    fields += [
        HeaderField(b"Content-Type", b" multipart/mixed; boundary=a"),
        HeaderField(b"Content-Transfer-Encoding", b"".join(head)),
    ]
    found = read_all(Message(tuple(fields), body=b"".join(body)))
    assert {oddity.name for oddity in found.oddities} <= set(ODDITIES)
    assert all(isinstance(part, Part) for part in found.parts)
    assert len(found.parts) <= MAX_PARTS


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_field_fails(value: bytes) -> None:
    assert isinstance(described(value).value, str)
    assert all(boundaries(b"multipart/mixed; boundary=" + value))
    assert isinstance(decode_words(value), str)
    file_names([HeaderField(b"Content-Disposition", b"a; filename*0*=" + value)])
