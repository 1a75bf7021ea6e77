"""Tag lists (RFC 6376 section 3.2)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.auth.taglist import TagError, decode_base64, parse_tags, split_list

GOOD = [
    pytest.param(b"v=1; a=b", {b"v": b"1", b"a": b"b"}, id="plain"),
    pytest.param(b"v=1;a=b;", {b"v": b"1", b"a": b"b"}, id="final semicolon"),
    pytest.param(b"v=1; \r\n ", {b"v": b"1"}, id="final semicolon and white space"),
    pytest.param(b" v\t= \r\n\t1 ; a =b c ", {b"v": b"1", b"a": b"b c"}, id="white space around, and inside a value"),
    pytest.param(b"b=x=y==", {b"b": b"x=y=="}, id="equal signs in a value"),
    pytest.param(b"p=", {b"p": b""}, id="empty value"),
    pytest.param(b"A=1;a=2", {b"A": b"1", b"a": b"2"}, id="names are case-sensitive"),
    pytest.param(b"x_1=1", {b"x_1": b"1"}, id="digits and underscore in a name"),
    pytest.param(b"d=b\xc3\xbccher.example", {b"d": b"b\xc3\xbccher.example"}, id="UTF-8 in a value"),
    pytest.param(b"", {}, id="nothing"),
]


@pytest.mark.parametrize(("text", "tags"), GOOD)
def test_tags(text: bytes, tags: dict[bytes, bytes]) -> None:
    assert parse_tags(text) == tags


BAD = [
    pytest.param(b"v=1; v=1", "v= given twice", id="name twice"),
    pytest.param(b"v=1;; a=b", "tag without =", id="empty tag"),
    pytest.param(b";", "tag without =", id="semicolon alone"),
    pytest.param(b"v=1; synerr", "tag without =", id="no equal sign"),
    pytest.param(b"=1", "bad tag name", id="no name"),
    pytest.param(b"1v=1", "bad tag name", id="name starts with a digit"),
    pytest.param(b"_v=1", "bad tag name", id="name starts with an underscore"),
    pytest.param(b"a b=1", "bad tag name", id="blank in a name"),
    pytest.param(b"\xe9=1", "bad tag name", id="name above ASCII"),
    pytest.param(b"a\r\n b=1", "bad tag name", id="fold in a name"),
    pytest.param(b"v=1\x00", "control character", id="NUL"),
    pytest.param(b"v=\x7f", "control character", id="DEL"),
    pytest.param(b"v=1\r\na=b", "line break that is no fold", id="CRLF without white space after it"),
    pytest.param(b"v=1\n a=b", "line break that is no fold", id="bare LF"),
    pytest.param(b"v=1\r a=b", "line break that is no fold", id="bare CR"),
    pytest.param(b"v=1\r;\na=b", "line break that is no fold", id="CR and LF apart"),
    pytest.param(b"v=\r\n \n\r 1", "line break that is no fold", id="LF CR after a fold"),
    pytest.param(b"v=1\r\n\x00", "control character", id="NUL after CRLF"),
    pytest.param(b"v=1\r\n \r", "line break that is no fold", id="CR at the end"),
    pytest.param(b";".join(b"a%d=1" % n for n in range(200)), "over 100 tags", id="200 tags"),
    pytest.param(b"a" * 500 + b"=1;" + b"a" * 500 + b"=1", "tag given twice", id="long name twice"),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_broken_tags(text: bytes, problem: str) -> None:
    with pytest.raises(TagError) as caught:
        parse_tags(text)
    assert str(caught.value) == problem


_TEXT = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]|\r\n(?=[ \t]))*")
_TAG = re.compile(rb"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)[ \t\r\n]*=(.*)", re.DOTALL)


def by_the_grammar(text: bytes) -> dict[bytes, bytes] | None:
    """The tags as the grammar has them, None where it has none."""
    *parts, last = text.split(b";")
    found = [_TAG.fullmatch(part) for part in parts + [last] * bool(last.strip(b" \t\r\n"))]
    tags = {tag[1]: tag[2].strip(b" \t\r\n") for tag in found if tag}
    return tags if _TEXT.fullmatch(text) and len(tags) == len(found) else None


PIECES = st.sampled_from([
    b"v", b"b", b"bh", b"x_1", b"_", b"1", b"=", b"=", b";", b";", b" ", b"\t", b"\r\n ", b"\r\n\t", b"\r\n", b"\r", b"\n",
    b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xe9", b"\0",
])  # fmt: skip
WHOLE = st.tuples(st.sampled_from([b"v", b" b", b"\r\n\tbh", b"x_1 "]), st.lists(PIECES, max_size=4).map(b"".join))


@given(st.lists(PIECES, max_size=12).map(b"".join) | st.lists(WHOLE.map(b"=".join), max_size=5).map(b";".join))
def test_tags_are_read_as_the_grammar_has_them(text: bytes) -> None:
    try:
        tags: dict[bytes, bytes] | None = parse_tags(text)
    except TagError:
        tags = None
    assert tags == by_the_grammar(text)


def test_lists_lose_white_space_around_items_only() -> None:
    assert split_list(b"from : to:\r\n sub ject:") == [b"from", b"to", b"sub ject", b""]


@pytest.mark.parametrize(
    "text", [b"", b" ", b"YQ", b"YQ=", b"Y*==", b"=", b"YQ==YQ==", b"Y\xe9==", b"YWJj=", b"YWJj===="]
)
def test_what_is_not_base64(text: bytes) -> None:
    with pytest.raises(TagError):
        decode_base64(text)


def test_base64_may_be_folded_anywhere() -> None:
    assert decode_base64(b" Y\r\n\tQ = = ") == b"a"


def test_ten_thousand_folds_in_base64_are_linear() -> None:
    assert decode_base64(b"\r\n ".join([b"AAAA"] * 100_000)) == bytes(300_000)
