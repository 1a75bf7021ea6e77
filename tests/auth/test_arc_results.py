"""Reading what others wrote into Authentication-Results: tolerant, linear, and nothing of it raw."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.auth.arc_results import MAX_PAYLOAD, MAX_PROPERTIES, MAX_RESULTS, MAX_VALUE, merge_own, read_results
from authmilter.model import HeaderField, Message

# What is read from a payload: method, result, identifier, properties.
READ = [
    ("nothing", b"", []),
    ("no results", b" mx.example; none", []),
    ("one of each", b" mx.example; spf=pass smtp.mailfrom=a@x.example; dkim=fail header.d=y.example; dmarc=none",
     [("spf", "pass", "x.example", {"smtp.mailfrom": "a@x.example"}), ("dkim", "fail", "y.example", {"header.d": "y.example"}),
      ("dmarc", "none", "", {})]),
    ("folds and comments",
     b" mx.example (it is) 1;\r\n\tdkim (v) / (w) 1 (x) = (y) pass (good; (as) \"gold\") header.d = x.example\r\n header.s=sel",
     [("dkim", "pass", "x.example", {"header.d": "x.example", "header.s": "sel"})]),
    ("a version in a comment that does not end", b"1x; 7/ (=pass", []),
    ("letter case", b"mx; DKIM=Pass Header.D=X.Example", [("dkim", "pass", "x.example", {"header.d": "X.Example"})]),
    ("quotes", b'mx; spf=pass smtp.mailfrom="a;\\"b"@x.example', [("spf", "pass", "x.example", {"smtp.mailfrom": 'a;"b@x.example'})]),
    ("a VERP address", b"mx; spf=pass smtp.mailfrom=b+a=y.example@x.example",
     [("spf", "pass", "x.example", {"smtp.mailfrom": "b+a=y.example@x.example"})]),
    ("the domain alone", b"mx; spf=pass smtp.mailfrom=x.example", [("spf", "pass", "x.example", {"smtp.mailfrom": "x.example"})]),
    ("HELO alone is no reverse-path", b"mx; spf=pass smtp.helo=x.example", [("spf", "pass", "", {"smtp.helo": "x.example"})]),
    ("the AUID, for want of d=", b"mx; dkim=pass header.i=@x.example", [("dkim", "pass", "x.example", {"header.i": "@x.example"})]),
    ("a path in angle brackets", b"mx; dmarc=pass header.from=<a@x.example>",
     [("dmarc", "pass", "x.example", {"header.from": "<a@x.example>"})]),
    ("a U-label", "mx; dkim=pass header.d=bücher.example".encode(),
     [("dkim", "pass", "xn--bcher-kva.example", {"header.d": "bücher.example"})]),
    ("what Microsoft writes", b" mx.microsoft.com 1; dmarc=pass action=none header.from=x.example; arc=none",
     [("dmarc", "pass", "x.example", {"action": "none", "header.from": "x.example"}), ("arc", "none", "", {})]),
    ("the first of two counts", b"mx; dkim=pass header.d=x.example header.d=y.example",
     [("dkim", "pass", "x.example", {"header.d": "x.example"})]),
    ("an unknown result", b"mx; spf=great smtp.mailfrom=x.example; dmarc=pass", [("dmarc", "pass", "", {})]),
    ("an unknown method", b"mx; x-spam=pass", [("x-spam", "pass", "", {})]),
    ("no result", b"mx; spf; =pass; spf=; dmarc=pass", [("dmarc", "pass", "", {})]),
    ("a result in a comment", b"mx; spf=fail (x; dmarc=pass header.from=x.example)", [("spf", "fail", "", {})]),
    ("a result in quotes", b'mx; spf=fail reason="; dmarc=pass header.from=x.example"', [("spf", "fail", "", {})]),
    ("a comment that does not end", b"mx; spf=pass; dkim=pass (x; dmarc=pass", [("spf", "pass", "", {})]),
    ("a quote that does not end", b'mx; spf=pass; dkim=pass header.d="x; dmarc=pass', [("spf", "pass", "", {})]),
    ("what follows garbage", b"mx; dkim=pass ? header.d=x.example; spf=pass", [("dkim", "pass", "", {}), ("spf", "pass", "", {})]),
    ("control characters", b"mx; dkim=pass header.d=x\x00y header.s=a\x1b[m header.a=ok", [("dkim", "pass", "", {"header.a": "ok"})]),
    ("not UTF-8", b"mx; dkim=pass header.d=\xff.example header.a=ok", [("dkim", "pass", "", {"header.a": "ok"})]),
    ("a value that is too long", b"mx; dkim=pass header.d=" + b"x" * (MAX_VALUE + 1) + b" header.a=ok",
     [("dkim", "pass", "", {"header.a": "ok"})]),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), [pytest.param(*case[1:], id=case[0]) for case in READ])
def test_read(payload: bytes, expected: list[tuple[str, str, str, dict[str, str]]]) -> None:
    found = read_results(payload)
    assert [(r.method, r.result.value, r.identifier, r.properties) for r in found] == expected


def test_the_reason_is_no_property() -> None:
    [result] = read_results(b'mx; dkim=fail reason="bad  one" header.d=x.example')
    assert (result.reason, dict(result.properties)) == ("bad  one", {"header.d": "x.example"})


def test_how_much_is_read() -> None:
    assert len(read_results(b"mx" + b"; spf=pass" * (MAX_RESULTS + 5))) == MAX_RESULTS
    [result] = read_results(b"mx; spf=pass" + b"".join(b" x.p%d=1" % n for n in range(MAX_PROPERTIES + 5)))
    assert len(result.properties) == MAX_PROPERTIES
    assert read_results(b"mx; spf=pass" + b" " * MAX_PAYLOAD) == ()


BAIT = [b"(", b"((", b'"', b";", b"a", b"a=", b"a ", b"a=b ", b"(a)", b'"a"', b"\\", b"a/1 ", b"\r\n ", b'a="\\']


@pytest.mark.parametrize("bait", BAIT)
def test_bait_for_backtracking(bait: bytes) -> None:
    before = time.process_time()
    read_results(b"mx; spf=pass " + bait * ((MAX_PAYLOAD - 20) // len(bait)))
    assert time.process_time() - before < 0.5


@given(st.binary(max_size=200) | st.text(alphabet='ab.=;/()"\\ 1@', max_size=200).map(str.encode))
def test_reading_never_raises_and_shows_nothing_raw(payload: bytes) -> None:
    for result in read_results(payload):
        for text in (result.method, result.reason, *result.properties, *result.properties.values()):
            assert text.isprintable()


# -- our own -----------------------------------------------------------------------------------------------------------


def merged(*values: bytes) -> str:
    return merge_own(Message(tuple(HeaderField(b"Authentication-Results", value) for value in values)), "mx.example")


MERGED = [
    ("none at all", (), ""),
    ("only that of others", (b" mx.other.example; spf=pass", b" mx.example.org; spf=pass"), ""),
    ("one field", (b" mx.example;\r\n\tspf=pass (a; b)  smtp.helo=x;\r\n\tdmarc=pass",), "mx.example;\n\tspf=pass (a; b) smtp.helo=x;\n\tdmarc=pass"),
    ("several", (b" mx.example 1; spf=pass", b" other.example; dkim=pass", b" MX.example; dmarc=pass;"), "mx.example;\n\tspf=pass;\n\tdmarc=pass"),
    ("no results", (b" mx.example; none",), "mx.example;\n\tnone"),
    ("none and some", (b" mx.example; none", b"mx.example; spf=pass"), "mx.example;\n\tspf=pass"),
    ("another version", (b" mx.example 2; spf=pass",), ""),
    ("the name in a comment", (b" (mx.example) other; spf=pass", b"(mx.example; spf=pass"), ""),
    ("characters that can't be shown", (b" mx.example; spf=pass\x00; dkim=pass \xff; dmarc=pass",), "mx.example;\n\tdmarc=pass"),
    ("an end of line alone", (b" mx.example; spf=pass\nX-Evil: y; dmarc=pass",), "mx.example;\n\tspf=pass X-Evil: y;\n\tdmarc=pass"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), [pytest.param(*case[1:], id=case[0]) for case in MERGED])
def test_merge_own(values: tuple[bytes, ...], expected: str) -> None:
    assert merged(*values) == expected
