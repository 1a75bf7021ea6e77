import base64
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from authmilter.addresses import MAX_AUTHORS, _parse_path, author, parse_path, to_ascii_domain
from authmilter.model import HeaderField, Mailbox, Message


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        pytest.param("Example.ORG", "example.org", id="case is folded"),
        pytest.param(b"example.org.", "example.org", id="one final dot is dropped"),
        pytest.param("example.org..", "", id="two final dots are an empty label"),
        pytest.param("a..example", "", id="an empty label within"),
        pytest.param(".example", "", id="an empty label in front"),
        pytest.param("", "", id="nothing"),
        pytest.param(".", "", id="the root"),
        pytest.param("localhost", "localhost", id="a single label"),
        pytest.param("_dmarc.ex_ample.org", "_dmarc.ex_ample.org", id="underscores"),
        pytest.param("a-.example", "a-.example", id="a hyphen at the end of a label"),
        pytest.param("bücher.example", "xn--bcher-kva.example", id="a U-label as text"),
        pytest.param("bücher.example".encode(), "xn--bcher-kva.example", id="a U-label as UTF-8"),
        pytest.param("BÜCHER.example", "xn--bcher-kva.example", id="a U-label in upper case"),
        pytest.param("bücher.ex_ample", "xn--bcher-kva.ex_ample", id="a U-label beside an underscore"),
        pytest.param("ｅｘａｍｐｌｅ。org", "example.org", id="full-width letters and dot"),
        pytest.param("faß.example", "xn--fa-hia.example", id="nontransitional: sharp s is kept"),
        pytest.param(b"b\xfccher.example", "", id="Latin-1 is not UTF-8"),
        pytest.param("☃.example", "", id="a symbol that IDNA forbids"),
        pytest.param("\u200fexample.org", "", id="a direction mark"),
        pytest.param("192.0.2.1", "", id="a dotted quad"),
        pytest.param("１.example.１", "", id="a full-width number at the end"),
        pytest.param("[192.0.2.1]", "", id="an address literal"),
        pytest.param("[IPv6:2001:db8::1]", "", id="an IPv6 literal"),
        pytest.param("legit.example\0.attack.example", "", id="NUL"),
        pytest.param("legit.example(.attack.example", "", id="a parenthesis"),
        pytest.param("legit.example'a.attack.example", "", id="a quote"),
        pytest.param("exam ple.org", "", id="a space"),
        pytest.param("example.org\r\n", "", id="CRLF at the end"),
        pytest.param("example.org\n", "", id="LF at the end"),
        pytest.param("a" * 63 + ".example", "a" * 63 + ".example", id="a label of 63"),
        pytest.param("a" * 64 + ".example", "", id="a label of 64"),
        pytest.param("a." * 126 + "a", "a." * 126 + "a", id="253 in all"),
        pytest.param("a." * 126 + "ab", "", id="254 in all"),
        pytest.param("a." * 40000, "", id="far too long"),
    ],
)
def test_domain(raw: bytes | str, domain: str) -> None:
    assert to_ascii_domain(raw) == domain


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40)))
def test_a_domain_is_its_own_ascii_form_and_nothing_else_comes_out(raw: bytes | str) -> None:
    domain = to_ascii_domain(raw)
    assert to_ascii_domain(domain) == domain
    assert set(domain) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


UNUSABLE = "all of it, without domain"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(b"<>", None, id="the null reverse-path"),
        pytest.param(b" <> ", None, id="the null reverse-path between spaces"),
        pytest.param(b"<a@b.example>", (b"a", b"b.example", "b.example"), id="plain"),
        pytest.param(b"a@B.Example", (b"a", b"B.Example", "b.example"), id="without brackets"),
        pytest.param(b"<a@b.example.>", (b"a", b"b.example.", "b.example"), id="final dot"),
        pytest.param(b"<a+b=c.d@b.example>", (b"a+b=c.d", b"b.example", "b.example"), id="VERP"),
        pytest.param(b"<a..b.@b.example>", (b"a..b.", b"b.example", "b.example"), id="stray dots in the local-part"),
        pytest.param(b'<"a b@c"@b.example>', (b'"a b@c"', b"b.example", "b.example"), id="quoted local-part"),
        pytest.param(rb'<"a\"@c"@b.example>', (rb'"a\"@c"', b"b.example", "b.example"), id="escaped quote"),
        pytest.param(b"<\xc3\xbc@b.example>", (b"\xc3\xbc", b"b.example", "b.example"), id="8-bit local-part"),
        pytest.param(
            "<a@bücher.example>".encode(), (b"a", "bücher.example".encode(), "xn--bcher-kva.example"), id="U-label"
        ),
        pytest.param(b"<a@[192.0.2.1]>", (b"a", b"[192.0.2.1]", ""), id="address literal"),
        pytest.param(b"<postmaster>", (b"postmaster", b"", ""), id="local-part alone"),
        pytest.param(b"<@example.org>", (b"", b"example.org", "example.org"), id="empty local-part"),
        pytest.param(b"<@a.example,@b.example:u@c.example>", (b"u", b"c.example", "c.example"), id="source route"),
        pytest.param(
            b"<@legit.example,@any.example:'any@attack.example>",
            (b"'any", b"attack.example", "attack.example"),
            id="A7, source route and quote",
        ),
        pytest.param(b"<@a.example,b.example:u@c.example>", UNUSABLE, id="broken source route"),
        pytest.param(b"<(any@legit.example>", UNUSABLE, id="A2, odd MAIL FROM"),
        pytest.param(b"<any@legit.example(.attack.example>", UNUSABLE, id="A5, parenthesis"),
        pytest.param(b"<any@legit.example'@any.attack.example>", UNUSABLE, id="A6, quote and two at signs"),
        pytest.param(b"<any@legit.example\0.attack.example>", UNUSABLE, id="NUL"),
        pytest.param(b"<a@b.example>x", UNUSABLE, id="text behind the bracket"),
        pytest.param(b"<a@b.example", UNUSABLE, id="one bracket"),
        pytest.param(b"<<a@b.example>>", UNUSABLE, id="two pairs of brackets"),
        pytest.param(b"< >", UNUSABLE, id="a blank between brackets is not null"),
        pytest.param(b"", UNUSABLE, id="nothing is not null"),
        pytest.param(b"<a@>", UNUSABLE, id="empty domain"),
        pytest.param(b"<a b@c.example>", UNUSABLE, id="blank in the local-part"),
        pytest.param(b'<"a@c.example>', UNUSABLE, id="quote that does not end"),
        pytest.param(b'<"a"b@c.example>', UNUSABLE, id="text behind a quote"),
        pytest.param(b"<a\r\n@c.example>", UNUSABLE, id="CRLF"),
        pytest.param(b"<" + b"a" * 70000 + b"@c.example>", UNUSABLE, id="too long"),
    ],
)
def test_path(raw: bytes, expected: tuple[bytes, bytes, str] | str | None) -> None:
    found = parse_path(raw)
    if isinstance(expected, str):
        assert found is not None
        assert found.raw_domain == b""
        assert found.domain == ""
        assert len(found.local_part) <= 1024
        assert raw.strip(b" <>").startswith(found.local_part.strip(b" <>"))
    else:
        assert found == (expected and Mailbox(*expected))


@given(st.binary(max_size=60))
def test_any_octets_are_a_path_and_only_the_null_path_is_null(raw: bytes) -> None:
    found = parse_path(raw)
    assert (found is None) == (raw.strip(b" \t") == b"<>")


def from_fields(*values: bytes, name: bytes = b"From") -> Message:
    return Message(tuple(HeaderField(name, b" " + value) for value in values))


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        pytest.param(b"u@e.example", "e.example", id="address alone"),
        pytest.param(b"<u@e.example>", "e.example", id="in angle brackets"),
        pytest.param(b"Jane Doe <u@e.example>", "e.example", id="name and address"),
        pytest.param(b"Jane Doe\r\n <u@e.example>", "e.example", id="folded"),
        pytest.param(b'"Doe, Jane" <u@e.example>', "e.example", id="quoted comma"),
        pytest.param(rb'"\"Medtronic, Inc.\"" <u@e.example>', "e.example", id="OpenDMARC 72, escaped quotes"),
        pytest.param(b'"a@b.example" <u@e.example>', "e.example", id="another address as quoted display name"),
        pytest.param(b'"bob@x.example via list" <list@e.example>', "e.example", id="munged by a list"),
        pytest.param(b"=?utf-8?q?bob=40x.example_via_list?= <list@e.example>", "e.example", id="munged, encoded"),
        pytest.param(b"=?utf-8?B?w4RsaWNl?= <u@e.example>", "e.example", id="encoded name"),
        pytest.param(b'"=?utf-8?q?Doe=2C_Jane?=" <u@e.example>', "e.example", id="encoded word in quotes"),
        pytest.param(b"J\xc3\xbcrgen <u@e.example>", "e.example", id="UTF-8 in the name"),
        pytest.param(b"J\xfcrgen <u@e.example>", "e.example", id="Latin-1 in the name"),
        pytest.param(b'"\x1b$B;3ED\x1b(B" <u@e.example>', "e.example", id="ISO-2022-JP in the quoted name"),
        pytest.param("\u202ezyx <u@e.example>".encode(), "e.example", id="direction override in the name"),
        pytest.param(b"J. R. Doe <u@e.example>", "e.example", id="dots in the name"),
        pytest.param(b"Doe, Jane <u@e.example>", "e.example", id="comma in the name, not quoted"),
        pytest.param(b"[Shop] Support <u@e.example>", "e.example", id="brackets in the name"),
        pytest.param(b"Tom &amp; Jerry <u@e.example>", "e.example", id="HTML in the name"),
        pytest.param(b"Shop: Support <u@e.example>", "e.example", id="colon in the name, not quoted"),
        pytest.param(b"u@e.example <u@e.example>", "e.example", id="the same address as name, not quoted"),
        pytest.param(b"Jane @ Work <u@e.example>", "e.example", id="at sign before a word that is no domain"),
        pytest.param(b"u@e.example (Jane Doe)", "e.example", id="name as comment"),
        pytest.param(rb"u@e.example (Jane (\) the) Doe)", "e.example", id="nested comment"),
        pytest.param(b"(" * 50 + b")" * 50 + b"u@e.example", "e.example", id="comments nested as deep as is allowed"),
        pytest.param(b"< u@e.example >", "e.example", id="blanks in the angle brackets"),
        pytest.param(b"u@e.example.", "e.example", id="final dot"),
        pytest.param(b"u@E.Example", "e.example", id="upper case"),
        pytest.param("u@bücher.example".encode(), "xn--bcher-kva.example", id="U-label"),
        pytest.param(b"u=x@e.example", "e.example", id="equals sign in the local-part"),
        pytest.param(b'"jane doe"@e.example', "e.example", id="blank in a quoted local-part"),
        pytest.param(b"a@e.example, b@E.example", "e.example", id="two addresses of one domain"),
        pytest.param(b"a@e.example,, b@e.example,", "e.example", id="empty elements in the list"),
        pytest.param(b"u@localhost", "localhost", id="a single label"),
    ],
)
def test_author_domain(value: bytes, domain: str) -> None:
    found = author(from_fields(value))
    assert found.problem == ""
    assert found.domains == (domain,)
    assert {m.domain for m in found.mailboxes} == {domain}


def encoded(text: str, charset: str = "utf-8") -> bytes:
    return b"=?%s?B?%s?=" % (charset.encode(), base64.b64encode(text.encode(charset)))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(encoded("<admin@legit.example>") + b",<s@attack.example>", id="A15, address in an encoded word"),
        pytest.param(encoded("admin@legit.example") + b",<s@attack.example>", id="A15, without brackets"),
        pytest.param(encoded("admin@legit.example,") + b" <s@attack.example>", id="A15, the comma encoded too"),
        pytest.param(encoded("<admin@legit.example>") + b" <s@attack.example>", id="A15, as display name"),
        pytest.param(
            b'"' + encoded("<admin@legit.example>") + b'" <s@attack.example>', id="A15, as quoted display name"
        ),
        pytest.param(encoded("<admin@legit.example>", "utf-16") + b" <s@attack.example>", id="A15, in UTF-16"),
        pytest.param(encoded("<admin@legit.example>", "utf-7") + b" <s@attack.example>", id="A15, in UTF-7"),
        pytest.param(
            b"=?x?q?=3Cadmin=40leg?= =?x?q?it.example=3E?= <s@attack.example>", id="A15, split over two words"
        ),
        pytest.param(
            b"=?utf-8?B?" + base64.b64encode(b"<admin@legit.example>  ") + b"x?= <s@attack.example>",
            id="A15, base64 with a stray octet",
        ),
        pytest.param(b"<=?utf-8?q?admin=40legit.example?=@attack.example>", id="encoded word in the address"),
        pytest.param(b"<@attack.example,@any.example:admin@legit.example>", id="A16, route"),
        pytest.param(b"<any@attack.example>admin@legit.example", id="A19, text behind the brackets"),
        pytest.param(b"admin@legit.example <s@attack.example>", id="address as name, not quoted"),
        pytest.param(b"admin @ legit.example <s@attack.example>", id="address with blanks as name"),
        pytest.param(b'"x <a@junk.example>"@our.example', id="OpenDMARC 243, address in a quoted local-part"),
        pytest.param(b'"admin@legit.example"@attack.example', id="at sign in a quoted local-part"),
        pytest.param(b"user@example.net>", id="OpenDMARC 113, stray bracket"),
        pytest.param(b"<user@example.net", id="bracket that is not closed"),
        pytest.param(b"<<user@example.net>>", id="double brackets"),
        pytest.param(b"<u@legit.example> <u@attack.example>", id="two in brackets"),
        pytest.param(b'"a\\" <x@legit.example>" <u@attack.example>', id="escaped quote ends the quote for some"),
        pytest.param(b'"<x@legit.example>" <u@attack.example>', id="brackets in quotes"),
        pytest.param(b"u@attack.example (admin@legit.example)", id="address in a comment"),
        pytest.param(b"u@attack.example (x, <admin@legit.example>)", id="address in brackets in a comment"),
        pytest.param(b"(admin@legit.example) u@attack.example", id="comment in front"),
        pytest.param(b"<admin@legit.example(>@attack.example)>", id="comment with a bracket"),
        pytest.param(b"u@attack.example (a", id="comment that does not end"),
        pytest.param(b"(" * 51 + b")" * 51 + b"u@e.example", id="comments nested too deep"),
        pytest.param(b'"Jane <u@e.example>', id="quote that does not end"),
        pytest.param(b"u@attack.example .legit.example", id="blank in the domain"),
        pytest.param(b"u@attack(x).example", id="comment in the domain"),
        pytest.param(b"u@legit.example@attack.example", id="two at signs"),
        pytest.param(b"Jane u@e.example", id="name and address without brackets"),
        pytest.param(b"u@e.example," * 5000, id="too many tokens"),
    ],
)
def test_readers_may_differ(value: bytes) -> None:
    assert author(from_fields(value)).problem == "parsers may differ"


@pytest.mark.parametrize(
    ("value", "problem", "domains"),
    [
        pytest.param(
            b"<a@attack.example>, <admin@legit.example>",
            "several domains",
            ("attack.example", "legit.example"),
            id="A14, two addresses",
        ),
        pytest.param(
            rb"<admin@legit.example>\,<second@attack.example>",
            "several domains",
            ("legit.example", "attack.example"),
            id="A17, quoted pair",
        ),
        pytest.param(
            b"admin@legit.example,<second@attack.example>",
            "several domains",
            ("legit.example", "attack.example"),
            id="A18, comma",
        ),
        pytest.param(b"", "no address", (), id="empty"),
        pytest.param(b"\r\n ", "no address", (), id="a fold"),
        pytest.param(b"<>", "no address", (), id="empty brackets"),
        pytest.param(b"Jane Doe", "no address", (), id="a name"),
        pytest.param(b"Jane <postmaster>", "no address", (), id="without domain"),
        pytest.param(b"(u@e.example)", "no address", (), id="a comment"),
        pytest.param(encoded("Jane <u@e.example>"), "no address", (), id="all encoded"),
        pytest.param(b"undisclosed:;", "group", (), id="empty group"),
        pytest.param(b"Friends: a@e.example, b@e.example;", "group", ("e.example",), id="group"),
        pytest.param(b"user@[192.0.2.1]", "domain literal", (), id="domain literal"),
        pytest.param(b"<user@[IPv6:2001:db8::1]>", "domain literal", (), id="IPv6 literal"),
        pytest.param(b"u@a..example", "domain can't be used", (), id="empty label"),
        pytest.param(b"u@192.0.2.1", "domain can't be used", (), id="dotted quad"),
        pytest.param(b"u@b\xfccher.example", "domain can't be used", (), id="Latin-1 in the domain"),
        pytest.param(b"u@e'.example", "domain can't be used", (), id="quote in the domain"),
        pytest.param(
            b"u@e.example, v@e'.example", "domain can't be used", ("e.example",), id="the second domain is bad"
        ),
        pytest.param(b"u@e.example\0.attack.example", "NUL, CR or LF in the From field", (), id="NUL"),
        pytest.param(b"u@e.example\rx", "NUL, CR or LF in the From field", (), id="bare CR"),
        pytest.param(b"u@e.example\nx", "NUL, CR or LF in the From field", (), id="bare LF"),
        pytest.param(b"u@e.example\r\nTo: x", "NUL, CR or LF in the From field", (), id="CRLF that is no fold"),
        pytest.param(b"u@e.example" + b" " * 65536, "From field too long", (), id="too long"),
    ],
)
def test_problem(value: bytes, problem: str, domains: tuple[str, ...]) -> None:
    found = author(from_fields(value))
    assert (found.problem, found.domains) == (problem, domains)


def test_many_authors_are_capped() -> None:
    several = author(from_fields(b", ".join(b"u@d%d.example" % i for i in range(200))))
    assert several.problem == f"more than {MAX_AUTHORS} addresses"
    assert len(several.domains) == len(several.mailboxes) == MAX_AUTHORS


def test_no_from_field() -> None:
    message = Message((HeaderField(b"Sender", b" <u@e.example>"), HeaderField(b"Resent-From", b" <u@e.example>")))
    assert author(message).problem == "no From field"


def test_two_from_fields_even_if_identical() -> None:
    assert author(from_fields(b"u@e.example", b"u@e.example")).problem == "2 From fields"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"From ", id="A10, blank before the colon"),
        pytest.param(b" From", id="A9, blank in front"),
        pytest.param(b"From\r\n ", id="A11, folded name"),
        pytest.param(b"Fr\0om", id="NUL in the name"),
        pytest.param(b"From\xa0", id="8-bit blank"),
    ],
)
def test_a_name_that_only_some_take_for_from(name: bytes) -> None:
    odd, plain = from_fields(b"a@e.example", name=name), from_fields(b"a@e.example")
    assert author(odd).problem
    assert author(Message(odd.fields + plain.fields)).problem
    assert author(Message(plain.fields + odd.fields)).problem


PLAIN_PIECES = [b"a", b"A.b", b"+tag", b"@", b"@", b".", b"_x", b"x" * 70, b"y." * 60, b"example.org", b"EX.org."]
OTHER_PIECES = [
    b'"x y"',
    b'"',
    b"\\",
    b":",
    b",",
    b" ",
    b"<",
    b">",
    b"\xc3\xbc.example",
    b"\xff",
    b"[192.0.2.1]",
    b"\0",
]


@given(st.lists(st.sampled_from(PLAIN_PIECES + OTHER_PIECES), max_size=8).map(b"".join))
@settings(max_examples=1000)
def test_a_plain_path_is_read_as_by_the_whole_grammar(path: bytes) -> None:
    assert parse_path(b"<" + path + b">") == (_parse_path(path) if path else None)


@given(st.lists(st.sampled_from([*b'"\\(<>@,;:. \t)=?ab', 0x80]), max_size=60).map(bytes))
@settings(max_examples=300)
def test_any_octets_are_read(value: bytes) -> None:
    found = author(from_fields(value))
    assert bool(found.problem) or (len(found.domains) == 1 and found.mailboxes != ())


@given(st.sampled_from(['"', "<", ">", "(", ")", ",", ";", ":", "\\", " "]), st.integers(0, 60))
def test_a_second_domain_outside_quotes_is_never_overlooked(mark: str, place: int) -> None:
    plain = '"x" <u@attack.example> admin@legit.example'
    value = plain[:place] + mark + plain[place:]
    assume(not any(f"@{end}" in value for end in "),;:"))  # then nobody finds a second domain
    found = author(from_fields(value.encode()))
    assert found.problem, value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(unit * (65000 // len(unit)), id=f"repeated {unit!r}")
        for unit in [
            b"(",
            b'"',
            b'\\"',
            b"<",
            b"a@",
            b"a ",
            b"=?",
            b"=?a?q?",
            b'"\\',
            b"(\\",
            b"a@b.c,",
            b"()",
            b"\\",
            b":",
        ]
    ]
    + [
        pytest.param(b"<a@b.example>" + b"(a@b.example)" * 4800, id="comments with addresses"),
        pytest.param(b"=?utf-8?q?=40?= " * 4000 + b"<u@x.example>", id="encoded words"),
        pytest.param(b"=?utf-7?q?" + b"+AEA-" * 12900 + b"?= <u@x.example>", id="a long encoded word"),
        pytest.param(b"?= " + b" " * 65000, id="blanks behind an encoded word"),
    ],
)
def test_hostile_fields_are_read_in_linear_time(value: bytes) -> None:
    message = from_fields(value)
    start = time.process_time()
    author(message)
    assert time.process_time() - start < 0.5
