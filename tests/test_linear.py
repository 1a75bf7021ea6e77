"""Work grows no faster than the input: every parser and canonicaliser, with the texts that trip parsers up.

Wall time says little on a machine that is shared, so growth is measured in two ways:

* **Steps**: bytecode instructions executed, counted by the interpreter's own tracing.  They are the same in each run.
  Twice the input may cost no more than a little over twice the steps: what 4n costs above 2n is compared with what 2n
  costs above n, which a constant part does not disturb.  Quadratic work gives 4 there, and 2.5 is refused.
* **CPU time**, for what happens inside `re`, bytes methods and other C code, which is one step whatever it costs.  It is
  taken at sizes where linear work lasts a millisecond or so and quadratic work seconds: from n to 4n linear work takes 4
  times as long, quadratic work 16 times, and more than 13 is refused.  The least of several runs is used, and a
  measurement that is refused is made again, up to three times, so that noise can't fail it; real quadratic work fails
  each time.

A parser with a limit is measured up to the limit; a much longer input must then cost no more than one at the limit, and
that is checked too.  What parsers keep for the next time is dropped before each run.
"""

import asyncio
import gc
import re
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from types import FrameType
from typing import Any

import pytest

from authmilter.addresses import author, parse_path, to_ascii_domain
from authmilter.auth import dkim, spf
from authmilter.auth.arc import parse_chain
from authmilter.auth.canonical import BodyHasher, relaxed_field, simple_field
from authmilter.auth.keys import parse_key_record
from authmilter.auth.orgdomain import parse_record
from authmilter.auth.results_header import claims, forged, render
from authmilter.auth.spf_record import parse, parse_explanation
from authmilter.auth.taglist import TagError, parse_tags
from authmilter.config.scan import scan
from authmilter.config.schema import Dkim, Spf
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Answer
from authmilter.log import quote
from authmilter.milter.macros import Macros
from authmilter.milter.wire import Packets, field_value, read_arguments, read_headers, reply_lines
from authmilter.model import BodyHashKey, HeaderField, Message
from authmilter.verdict import Reply
from tests.auth.mail import NOW, hashed, record, rsa_key, sign, split
from tests.fakes import FakeDNS

OURS = frozenset({"mx.example.org"})
STEP_GROWTH = 2.5  # linear 2, quadratic 4
TIME_GROWTH = 13.0  # linear 4, quadratic 16; caches that no longer fit and other jobs make up to 11 of a 4
LONG = 0.02  # seconds from which on a growth that is refused needs no larger input to be believed
NOISE = 300  # steps that may come from the tracer and from caches
FACTOR_BEYOND = 4.0  # what an input far beyond a limit may cost, in costs of one at the limit: it has to be copied


@dataclass(frozen=True)
class Work:
    """What is measured: `make` builds an input of about that many octets, `run` works on it.

    `steps_at` and `time_at` are the smallest of three sizes, each twice the one before.  `limit` is the size beyond which
    nothing more is read, None if all is.
    """

    make: Callable[[int], Any]
    run: Callable[[Any], object]
    steps_at: int = 1000
    time_at: int = 200_000
    limit: int | None = None


# -- measuring -----------------------------------------------------------------------------------------------------------


@cache
def _caches() -> list[Any]:
    """Everything that the package keeps by `functools.cache` and its like."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.partition(".")[0] == "authmilter"]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "cache_clear")]
    return list({id(value): value for value in found}.values())


def forget() -> None:
    """Drop what was kept."""
    for kept in _caches():
        kept.cache_clear()


def steps(run: Callable[[Any], object], data: object) -> int:
    """How many bytecode instructions `run` executes in Python code of the package and of what it calls."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
        return trace

    run(data)  # imports and codecs that come with the first time
    forget()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(before)
    return count


def seconds(run: Callable[[Any], object], data: object, repeats: int = 3) -> float:
    """CPU time of one run: the least of several, each made of as many runs as last half a millisecond."""
    forget()
    begin = time.process_time()
    run(data)
    once = time.process_time() - begin
    rounds = max(1, min(200, int(0.0005 / max(once, 1e-7))))
    if once > 0.2:
        return once  # long enough to be exact
    best = once
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(rounds):
            forget()
            run(data)
        best = min(best, (time.process_time() - begin) / rounds)
    return best


def step_growth(work: Work) -> tuple[float, list[int]]:
    """How much faster than the input the steps grow: 2 is linear."""
    at = work.steps_at if work.limit is None else min(work.steps_at, work.limit // 4)
    counted = [steps(work.run, work.make(size)) for size in (at, 2 * at, 4 * at)]
    # Where 2n costs hardly more than n there is nothing to divide by but the half of what n cost.
    first, second = counted[1] - counted[0], counted[2] - counted[1]
    return second / max(first, counted[0] / 2, NOISE), counted


def time_growth(work: Work) -> float:
    """How many times longer four times the input takes.

    It begins with a sixteenth of the size, so that quadratic work is found out before it takes minutes.
    """
    at = work.time_at if work.limit is None else work.limit // 4
    growth = 0.0
    before = seconds(work.run, work.make(max(1, at // 16)))
    for size in (at // 4, at, 4 * at):
        taken = seconds(work.run, work.make(size))
        growth, before = taken / before, taken
        if growth > TIME_GROWTH and taken > LONG:
            break
    return growth


# -- what is measured ----------------------------------------------------------------------------------------------------


def repeated(text: bytes, before: bytes = b"", behind: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: before + text * max(1, (size - len(before) - len(behind)) // len(text)) + behind


def repeated_text(text: str, before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda size: before + text * max(1, (size - len(before) - len(behind)) // len(text)) + behind


def numbered(text: bytes) -> Callable[[int], bytes]:
    """A text with a number in each piece, so that no two are alike."""
    return lambda size: b"".join(text % n for n in range(max(1, size // (len(text) + 2))))


def finish(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def of_tags(text: bytes) -> object:
    try:
        return parse_tags(text)
    except TagError as error:
        return error


def of_from(value: bytes) -> object:
    return author(Message((HeaderField(b"From", b" " + value),)))


def of_signature(value: bytes) -> object:
    return dkim.parse_signatures(Message((HeaderField(b"DKIM-Signature", value),)), Dkim())


def of_body(canonicalization: str, chunk: int) -> Callable[[bytes], object]:
    def run(body: bytes) -> object:
        hasher = BodyHasher(BodyHashKey(canonicalization, None))
        for start in range(0, len(body), chunk):
            hasher.update(body[start : start + chunk])
        return hasher.finish()

    return run


def of_stream(piece: int) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        packets = Packets()
        return [packet for start in range(0, len(data), piece) for packet in packets.feed(data[start : start + piece])]

    return run


def of_header(value: bytes) -> object:
    return relaxed_field(HeaderField(b"X-Field", value)), simple_field(HeaderField(b"X-Field", value))


def fields(*texts: tuple[bytes, bytes]) -> Callable[[int], Message]:
    """A message of so many fields."""
    return lambda size: Message(tuple(HeaderField(*texts[n % len(texts)]) for n in range(size)))


def of_claims(message: Message) -> object:
    return forged(Message(message.fields), OURS, inside=False)


def of_macros(octets: bytes) -> object:
    macros = Macros()
    macros.put(octets)
    return dict(macros)


class Known(FakeDNS):
    """Knows all answers beforehand, so that nothing has to wait."""

    def known(self, name: str, rdtype: str) -> Answer:
        answer = finish(self.query(name, rdtype))
        assert isinstance(answer, Answer)
        return answer


_DNS = Known({"sel._domainkey.example.org TXT": [record(rsa_key())]})


def signed(names: str, more: bytes) -> Callable[[int], Message]:
    """A signed message, with so many fields of which h= names as many as fit."""

    def make(size: int) -> Message:
        parts, body = split(sign(more * size + b"From: a@example.org\r\n\r\ntext\r\n", rsa_key(), h="from"))
        keys = [s.body_hash_key for s in dkim.parse_signatures(Message(parts), Dkim()) if s.body_hash_key]
        name, value = parts[0]
        longer = value.replace(b"h=from", b"h=from" + names.encode() * min(size, 3900))
        return hashed((HeaderField(name, longer), *parts[1:]), body, keys)

    return make


def of_verify(message: Message) -> object:
    signatures = dkim.parse_signatures(message, Dkim())
    results = finish(dkim.verify(message, signatures, _DNS, NOW, Dkim()))
    assert isinstance(results, list)
    assert results[0].result in (Result.FAIL, Result.POLICY), results
    return results


def of_spf(terms: str) -> object:
    """Evaluate a record whose macros all see a long sender."""
    domain = "example.org"
    dns = Known({f"{domain} TXT": [f"v=spf1 {terms}"]})

    helo = b"h." * 120 + b"example"
    local = b"a.-+" * 60
    return finish(spf.check_host(_CLIENT, domain, local, domain, helo, dns, Spf(lookup_limit=100, void_limit=100)))


_CLIENT = ip_address("2001:db8::1")

BODIES = {
    "spaces": repeated(b" "),
    "spaces and a letter": repeated(b" ", b"", b"x"),
    "tabs": repeated(b"\t", b"", b"x"),
    "blank and tab in turn": repeated(b" \t", b"", b"x"),
    "CRLF": repeated(b"\r\n"),
    "CRLF and a letter": repeated(b"\r\n", b"", b"x"),
    "blank lines with a blank": repeated(b" \r\n", b"", b"x"),
    "bare CR": repeated(b"\r", b"", b"x"),
    "bare LF": repeated(b"\n"),
    "CR CR LF": repeated(b"\r\r\n"),
    "LF CR": repeated(b"\n\r"),
    "one long line": repeated(b"x"),
    "words": repeated(b"a b  c\r\n"),
    "NUL": repeated(b"\0"),
}

FROMS = {
    "addresses": repeated(b"a@b.example, "),
    "addresses of different domains": numbered(b"a@b%d.example, "),
    "angle brackets": repeated(b"<a@b.example>"),
    "open brackets": repeated(b"<"),
    "open comments": repeated(b"("),
    "nested comments": lambda size: b"(" * (size // 2) + b")" * (size // 2) + b"a@b.example",
    "comments in a row": repeated(b"(a)", b"", b"a@b.example"),
    "one long comment": repeated(b"a ", b"(", b") a@b.example"),
    "backslashes in a comment": repeated(b"\\", b"(", b") a@b.example"),
    "quotes": repeated(b'"'),
    "quoted words": repeated(b'"a" ', b"", b"<a@b.example>"),
    "a quote without end": repeated(b"a ", b'"'),
    "backslashes in a quote": repeated(b"\\", b'"', b'" <a@b.example>'),
    "backslashes": repeated(b"\\"),
    "encoded words": repeated(b"=?utf-8?q?a=20?= ", b"", b"<a@b.example>"),
    "encoded words in base64": repeated(b"=?utf-7?B?K0FE?=", b"", b" <a@b.example>"),
    "beginnings of encoded words": repeated(b"=?", b"", b" <a@b.example>"),
    "encoded words without end": repeated(b"=?u?q?", b"", b" <a@b.example>"),
    "one long encoded word": repeated(b"=2C", b"=?utf-8?q?", b"?= <a@b.example>"),
    "blanks": repeated(b" ", b"a", b"<a@b.example>"),
    "at signs": repeated(b"@"),
    "at signs with blanks": repeated(b"@ "),
    "at signs in quotes": repeated(b"@b.example ", b'"', b'" <a@b.example>'),
    "dots": repeated(b".", b"a@b"),
    "commas": repeated(b",", b"", b"a@b.example"),
    "folds": repeated(b"\r\n ", b"a", b"<a@b.example>"),
    "one long domain": repeated(b"a.", b"x@", b"example"),
    "one long local-part": repeated(b"a", b"", b"@b.example"),
    "8-bit": repeated(b"\xc3\xbc", b"", b"<a@b.example>"),
}

TAGS = {
    "tags": repeated(b"a=b;"),
    "different tags": numbered(b"a%d=b;"),
    "blanks": repeated(b" ", b"a=", b"b"),
    "blanks before =": repeated(b" ", b"a", b"=b"),
    "folds": repeated(b"\r\n ", b"b=", b"A"),
    "equals signs": repeated(b"=", b"b"),
    "semicolons": repeated(b";"),
    "one long value": repeated(b"A", b"b="),
    "base64 with blanks": repeated(b"QUJD ", b"b="),
    "bare CR": repeated(b"\r"),
    "colons": repeated(b":", b"h="),
    "names": repeated(b"from:", b"h="),
    "quoted-printable": repeated(b"=41", b"i=", b"@example.org"),
}

WORKS: dict[str, Work] = {}
for _name, _make in BODIES.items():
    for _form in ("simple", "relaxed"):
        WORKS[f"{_form} body of {_name}"] = Work(_make, of_body(_form, 65535))
        WORKS[f"{_form} body of {_name}, an octet at a time"] = Work(_make, of_body(_form, 1), time_at=5_000)
for _name, _make in FROMS.items():
    WORKS[f"From of {_name}"] = Work(_make, of_from, limit=65_000)
for _name, _make in TAGS.items():
    WORKS[f"tag list of {_name}"] = Work(_make, of_tags)
    WORKS[f"signature of {_name}"] = Work(
        lambda size, make=_make: b" v=1; a=rsa-sha256; d=example.org; s=sel; bh=QUJD; " + make(size),  # type: ignore[misc]
        of_signature,
        limit=32_000,
    )
    WORKS[f"key record of {_name}"] = Work(
        lambda size, make=_make: b"v=DKIM1; p=" + make(size),  # type: ignore[misc]
        parse_key_record,
        limit=16_000,
    )
    WORKS[f"DMARC record of {_name}"] = Work(
        lambda size, make=_make: b"v=DMARC1; p=none; rua=mailto:a@b; " + make(size),  # type: ignore[misc]
        parse_record,
        limit=8_000,
    )
for _name, _text in {
    "blanks": b" ",
    "tabs": b"\t",
    "folds": b"\r\n ",
    "folds of tabs": b"\r\n\t",
    "blank and tab in turn": b" \t",
    "words": b"a b",
    "bare CR": b"\r",
}.items():
    WORKS[f"field of {_name}"] = Work(repeated(_text, b"", b"x"), of_header)
for _name, _text in {
    "a labels": b"a.", "letters": b"a", "U-labels": "\u00fc.".encode(), "one U-label": "\u00fc".encode(),
    "combining marks": "\u0316\u0300".encode(), "hyphens": b"-", "dots": b".", "ideographic stops": "\u3002".encode(),
}.items():  # fmt: skip
    WORKS[f"domain of {_name}"] = Work(repeated(_text, b"", b"example"), to_ascii_domain, limit=1000)
for _name, _path in {
    "letters": repeated(b"a", b"<", b"@b.example>"), "quotes": repeated(b'"', b"<", b"@b.example>"),
    "backslashes": repeated(b"\\", b'<"', b'"@b.example>'), "routes": repeated(b"@a.example,", b"<", b"@a.example:a@b.example>"),
    "dots": repeated(b".", b"<", b"@b.example>"), "at signs": repeated(b"@", b"<", b">"),
}.items():  # fmt: skip
    WORKS[f"path of {_name}"] = Work(_path, parse_path, limit=1000)
for _name, _record in {
    "mechanisms": repeated(b" a"), "addresses": repeated(b" ip4:192.0.2.1/24"), "blanks": repeated(b" "),
    "macros": repeated(b"%{d}", b" a:", b".example"), "percent signs": repeated(b"%%", b" a:", b".example"),
    "open braces": repeated(b"%{", b" a:"), "slashes": repeated(b"/", b" a"), "modifiers": numbered(b" x%d=y"),
    "one long word": repeated(b"a", b" "), "digits of a prefix": repeated(b"1", b" a/"),
    "digits of a macro": repeated(b"9", b" a:%{d", b"}"), "delimiters": repeated(b".", b" a:%{d", b"}"),
    "colons": repeated(b":", b" ip6:"),
}.items():  # fmt: skip
    WORKS[f"SPF record of {_name}"] = Work(
        lambda size, make=_record: b"v=spf1" + make(size),  # type: ignore[misc]
        parse,
        limit=8_000,
    )
for _name, _term in {
    "plain macros": "%{l}", "reversed ones": "%{l99r}", "all delimiters": "%{L99r.-+,/_=}", "HELO": "%{h.}", "sender": "%{S-}",
}.items():  # fmt: skip
    WORKS[f"SPF macros: {_name}"] = Work(repeated_text(_term, "exists:", ".%{d} -all"), of_spf, limit=480, steps_at=100)
    WORKS[f"SPF explanation: {_name}"] = Work(
        lambda size, term=_term: repeated_text(term)(size).encode(),  # type: ignore[misc]
        parse_explanation,
        limit=1000,
    )
WORKS["SPF macros: many terms"] = Work(repeated_text("exists:%{l}.%{h} "), of_spf, limit=1600, steps_at=200)
for _name, _claim in {
    "comments": repeated(b"(a)", b"", b"mx.example.org; none"),
    "nested comments": lambda size: b"(" * (size // 2) + b")" * (size // 2) + b"mx.example.org; none",
    "open comments": repeated(b"("), "blanks": repeated(b" ", b"", b"mx.example.org; none"),
    "folds": repeated(b"\r\n ", b"", b"mx.example.org; none"), "quoted pairs": repeated(b"\\a", b'"', b'"; none'),
    "letters": repeated(b"a", b"", b"; none"), "digits": repeated(b"1", b"mx.example.org ", b"; none"),
    "quotes": repeated(b'"'), "U-labels": repeated("\u00fc.".encode(), b"", b"; none"),
}.items():  # fmt: skip
    WORKS[f"authserv-id of {_name}"] = Work(_claim, lambda value: claims(value, OURS), limit=4_000)
WORKS |= {
    "fields that claim our id": Work(
        fields((b"Authentication-Results", b" mx.example.org; none"), (b"X", b"y")), of_claims, time_at=3000
    ),
    "foreign spam fields": Work(
        lambda size: Message(tuple(HeaderField(b"X-Spam-%d" % n, b"y") for n in range(size))), of_claims, time_at=3000
    ),
    "names of From": Work(
        lambda size: Message(tuple(HeaderField(b" " * (n % 50) + b"Fro", b"y") for n in range(size))),
        lambda message: author(Message(message.fields)),
        time_at=5000,
    ),
    "ARC fields": Work(
        fields(*((name, b" i=1; a=rsa-sha256; b=QUJD") for name in (b"ARC-Seal", b"ARC-Message-Signature"))),
        lambda message: parse_chain(Message(message.fields)),
        time_at=3000,
    ),
    "signed fields of one name": Work(signed(":x", b"X: y\r\n"), of_verify, steps_at=300, time_at=900),
    "signed fields that are not there": Work(signed(":zz", b"X: y\r\n"), of_verify, steps_at=300, time_at=900),
    "fields that may stand once": Work(signed(":subject", b"Subject: y\r\n"), of_verify, steps_at=300, time_at=900),
    "packets without data": Work(repeated(b"\0\0\0\x01N"), of_stream(65536), time_at=50_000),
    "packets in pieces of 7": Work(repeated(b"\0\0\0\x0bL123456789\0"), of_stream(7), time_at=20_000),
    "packet in pieces of 100": Work(
        lambda size: size.to_bytes(4, "big") + b"B" + b"x" * (size - 1), of_stream(100), time_at=200_000
    ),
    "packet in octets": Work(
        lambda size: size.to_bytes(4, "big") + b"L" + b"x" * (size - 1), of_stream(1), time_at=20_000
    ),
    "packets beyond the limit": Work(
        lambda size: (5_000_000).to_bytes(4, "big") + b"L" + b"x" * size, of_stream(1000), time_at=1_000_000
    ),
    "arguments": Work(repeated(b"a\0"), read_arguments),
    "header packet of line feeds": Work(
        repeated(b"\n", b"Name\0"), lambda data: read_headers([data], leading_space=True)
    ),
    "header packet of CR and LF": Work(
        repeated(b"\r\n", b"N\0"), lambda data: read_headers([data], leading_space=True)
    ),
    "macro packet": Work(numbered(b"{name%d}\0value\0"), of_macros),
    "macro packet of NUL": Work(repeated(b"\0", b"M"), of_macros),
    "reply of line feeds": Work(repeated_text("\n"), lambda text: reply_lines(Reply(550, "5.7.1", text))),
    "reply of blanks": Work(repeated_text(" ", "a", "b"), lambda text: reply_lines(Reply(550, "5.7.1", text))),
    "reply of one word": Work(repeated_text("a"), lambda text: reply_lines(Reply(550, "5.7.1", text))),
    "field value of line feeds": Work(repeated_text("\n"), field_value),
    "field value of folds": Work(repeated_text("\r\n\t", "a", "b"), field_value),
    "log value of quotes": Work(repeated_text('"'), quote),
    "log value of backslashes": Work(repeated_text("\\"), quote),
    "log value of letters": Work(repeated_text("a"), quote),
    "log value of controls": Work(repeated_text("\x1b\r\n"), quote),
    "log value outside ASCII": Work(repeated_text("\u202e\u00fc"), quote),
    "Authentication-Results with a long value": Work(
        repeated_text('"\\('),
        lambda text: render("mx.example.org", [AuthResult("spf", Result.FAIL, "", {"smtp.helo": text}, text)]),
    ),
    "configuration of options": Work(repeated_text("a = b\n", "[s]\n"), scan, time_at=50_000),
    "configuration of sections": Work(repeated_text("[s]\n"), scan, time_at=50_000),
    "configuration of continued lines": Work(repeated_text("  b\n", "[s]\na = b\n"), scan, time_at=50_000),
    "configuration of semicolons": Work(repeated_text(";a", "[s]\na = b"), scan, time_at=100_000),
    "configuration of brackets": Work(repeated_text("[]", "["), scan, time_at=100_000),
    "configuration of blank lines": Work(repeated_text("\n", "[s]\na = b\n"), scan, time_at=50_000),
    "configuration of controls": Work(repeated_text("\0\n"), scan, time_at=50_000),
}


@pytest.fixture(autouse=True)
def _start_cold() -> Iterator[None]:
    gc.disable()  # its pauses grow with all that is alive
    yield
    gc.enable()
    forget()


@pytest.mark.parametrize("name", WORKS)
def test_steps_grow_no_faster_than_the_input(name: str) -> None:
    growth, counted = step_growth(WORKS[name])
    assert growth < STEP_GROWTH, counted


@pytest.mark.parametrize("name", WORKS)
def test_time_grows_no_faster_than_the_input(name: str) -> None:
    growths = []
    for _ in range(5):
        growths.append(time_growth(WORKS[name]))
        if growths[-1] < TIME_GROWTH:
            return
    pytest.fail(f"four times the input takes {', '.join(f'{growth:.1f}' for growth in growths)} times as long")


@pytest.mark.parametrize("name", [name for name, work in WORKS.items() if work.limit])
def test_beyond_its_limit_an_input_costs_no_more(name: str) -> None:
    work = WORKS[name]
    assert work.limit
    at, beyond = steps(work.run, work.make(work.limit)), steps(work.run, work.make(10 * work.limit))
    assert beyond <= FACTOR_BEYOND * at + NOISE, (at, beyond)


# -- that the measurements would notice ----------------------------------------------------------------------------------


def _slow_in_python(text: bytes) -> int:
    return sum(1 for i in range(len(text)) for _ in range(i))


_TRAILING = re.compile(rb"[ \t]+\r\n")  # looks innocent, and is what cost another verifier 22 s for 80 KB


def test_quadratic_steps_are_noticed() -> None:
    growth, _ = step_growth(Work(repeated(b"a"), _slow_in_python, steps_at=20))
    assert growth > STEP_GROWTH


def test_quadratic_time_is_noticed() -> None:
    assert time_growth(Work(repeated(b" "), lambda text: _TRAILING.sub(b"", text), time_at=2_000)) > TIME_GROWTH


async def test_a_coroutine_that_waits_is_noticed() -> None:
    with pytest.raises(AssertionError, match="it waits"):
        finish(asyncio.sleep(0))
