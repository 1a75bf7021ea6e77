import re
import time
from base64 import b64encode

import authres
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.auth.results_header import claims, forged, is_watched, render
from authmilter.evidence import AuthResult, Result
from authmilter.model import HeaderField, Message
from tests.suites.results import SUITES
from tests.suites.suite import Suite, run

OURS = frozenset({"mx.example.net"})

ALL = [
    AuthResult("iprev", Result.PASS, "mail.example.org", {"policy.iprev": "2001:db8::1"}),
    AuthResult("spf_helo", Result.NONE, "", {"smtp.helo": "mail.example.org"}, "no record"),
    AuthResult("spf", Result.PASS, "example.org", {"smtp.mailfrom": "a=b@example.org"}),
    AuthResult(
        "dkim",
        Result.PASS,
        "example.org",
        {
            "header.d": "example.org",
            "header.i": "@example.org",
            "header.s": "s1",
            "header.a": "rsa-sha256",
            "header.b": "ab+/cd==",
        },
    ),
    AuthResult("arc", Result.PASS, "", {"smtp.remote-ip": "192.0.2.1", "header.oldest-pass": "0"}),
    AuthResult("dmarc", Result.PASS, "example.org", {"header.from": "example.org", "policy.dmarc": "reject"}),
]


def test_all_methods() -> None:
    assert render("mx.example.net", ALL) == (
        "mx.example.net;\n"
        '\tiprev=pass policy.iprev="2001:db8::1";\n'
        '\tspf=none reason="no record" smtp.helo=mail.example.org;\n'
        "\tspf=pass smtp.mailfrom=a=b@example.org;\n"
        "\tdkim=pass header.d=example.org header.i=@example.org header.s=s1 header.a=rsa-sha256"
        ' header.b="ab+/cd==";\n'
        "\tarc=pass smtp.remote-ip=192.0.2.1 header.oldest-pass=0;\n"
        "\tdmarc=pass header.from=example.org policy.dmarc=reject"
    )


def test_no_results() -> None:
    assert render("mx.example.net", []) == "mx.example.net; none"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param("example.org", "example.org", id="a domain"),
        pytest.param("a@example.org", "a@example.org", id="a mailbox"),
        pytest.param("@sub.example.org", "@sub.example.org", id="a domain behind an at sign"),
        pytest.param("a@localhost", '"a@localhost"', id="a domain of one label is no domain-name"),
        pytest.param("a@b@example.org", '"a@b@example.org"', id="two at signs"),
        pytest.param('"a b"@example.org', r'"\"a b\"@example.org"', id="a quoted local-part"),
        pytest.param("a b", '"a b"', id="a blank"),
        pytest.param("192.0.2.1", "192.0.2.1", id="an IPv4 address"),
        pytest.param("2001:db8::1", '"2001:db8::1"', id="an IPv6 address"),
        pytest.param("a\r\nX: y", '"a??X: y"', id="CRLF"),
        pytest.param("a\0b", '"a?b"', id="NUL"),
        pytest.param("a;dkim=pass", '"a;dkim=pass"', id="a semicolon"),
        pytest.param("a(b", '"a(b"', id="a parenthesis"),
        pytest.param('a"b', r'"a\"b"', id="a quote"),
        pytest.param("a\\", r'"a\\"', id="a backslash"),
        pytest.param("legit.example'a.attack.example", '"legit.example\'a.attack.example"', id="A4, an apostrophe"),
        pytest.param("bücher", '"b?cher"', id="not ASCII"),
        pytest.param("\udc80", '"?"', id="a surrogate"),
        pytest.param("a" * 256, "a" * 256, id="as long as may be"),
        pytest.param("a" * 257, "a" * 253 + "...", id="too long by one character"),
        pytest.param("a" * 70000, "a" * 253 + "...", id="much too long"),
        pytest.param("b" * 200 + "@example.org", "b" * 200 + "@example.org", id="long"),
    ],
)
def test_value(value: str, written: str) -> None:
    field = render("mx", [AuthResult("spf", Result.PASS, "", {"smtp.mailfrom": value})])
    assert field.replace("\n\t", " ") == f"mx; spf=pass smtp.mailfrom={written}"


def test_a_property_without_value_is_left_out() -> None:
    assert render("mx", [AuthResult("spf", Result.NONE, "", {"smtp.helo": ""})]) == "mx;\n\tspf=none"


def test_a_cut_value_is_not_taken_for_a_shorter_domain() -> None:
    value = "x" * 242 + "@example.org" + ".attack.example"
    assert "@example.org" in value[:256]
    assert '@example.org..."' not in render("mx", [AuthResult("spf", Result.PASS, "", {"smtp.mailfrom": value})])
    cut = "x" * 241 + "@example.org" + ".attack.example"
    assert '@example.org..."' in render("mx", [AuthResult("spf", Result.PASS, "", {"smtp.mailfrom": cut})])


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        pytest.param("", "", id="none"),
        pytest.param("expired", " reason=expired", id="a word"),
        pytest.param("body has changed", ' reason="body has changed"', id="words"),
        pytest.param("a@b.example", ' reason="a@b.example"', id="an address is no token"),
        pytest.param('x"; dkim=pass', r' reason="x\"; dkim=pass"', id="an injection"),
    ],
)
def test_reason(reason: str, written: str) -> None:
    assert render("mx", [AuthResult("dkim", Result.FAIL, reason=reason)]) == f"mx;\n\tdkim=fail{written}"


def test_long_clauses_are_folded_between_properties() -> None:
    properties = {f"header.{name}": '"' * 256 for name in "disab"}
    value = render("mx", [AuthResult("dkim", Result.FAIL, "", properties, '"' * 256)])
    assert max(map(len, value.split("\n"))) < 998  # RFC 5322 section 2.1.1
    assert parse(value)[1][0][2] == [(name, '"' * 256) for name in properties]


# --------------------------------------------------------------------- a strict reader of RFC 8601 section 2.2

_TOKEN = r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_LABEL = r"[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?"
_ATOM = r"[!#$%&'*+/0-9=?A-Z^_`a-z{|}~-]+"
_PVALUE = rf"{_QUOTED}|(?:{_ATOM}(?:\.{_ATOM})*)?@{_LABEL}(?:\.{_LABEL})+|{_TOKEN}"
_KEYWORD = r"[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?"
_CLAUSE = re.compile(
    rf";[ \t\n]+({_KEYWORD})=({_KEYWORD})(?:[ \t\n]+reason=({_TOKEN}|{_QUOTED}))?"
    rf"((?:[ \t\n]+{_KEYWORD}\.{_KEYWORD}=(?:{_PVALUE})(?=[ \t\n;]|$))*)"
)
_PROPERTY = re.compile(rf"[ \t\n]+({_KEYWORD}\.{_KEYWORD})=({_PVALUE})(?=[ \t\n;]|$)")


def unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def parse(value: str) -> tuple[str, list[tuple[str, str, list[tuple[str, str]], str]]]:
    """authserv-id, and (method, result, properties, reason) of each clause; AssertionError if the grammar is broken."""
    start = re.match(rf"({_TOKEN}|{_QUOTED})(?=;)", value)
    assert start, value
    clauses = []
    at = start.end()
    while at < len(value):
        clause = _CLAUSE.match(value, at)
        assert clause, value[at:]
        properties = [(name, unquoted(pvalue)) for name, pvalue in _PROPERTY.findall(clause[4])]
        clauses.append((clause[1], clause[2], properties, unquoted(clause[3] or "")))
        at = clause.end()
    return unquoted(start[1]), clauses


HOSTILE = st.one_of(
    st.binary(max_size=80).map(lambda octets: octets.decode("latin-1")),
    st.binary(max_size=80).map(lambda octets: octets.decode("utf-8", "surrogateescape")),
    st.text(alphabet='"\\(); =@.\r\n\t\0a', max_size=300),
    st.just("x@example.org; dkim=pass header.d=bank.example"),
)
PROPERTIES = ["smtp.mailfrom", "header.d", "header.i", "header.b", "policy.iprev"]


@given(
    st.lists(
        st.builds(
            AuthResult,
            st.sampled_from(["iprev", "spf_helo", "spf", "dkim", "arc", "dmarc"]),
            st.sampled_from(Result),
            st.just(""),
            st.dictionaries(st.sampled_from(PROPERTIES), HOSTILE, max_size=4),
            HOSTILE,
        ),
        min_size=1,
        max_size=4,
    ),
    HOSTILE,
)
@settings(max_examples=300, deadline=None)
def test_hostile_values_never_leave_their_place(results: list[AuthResult], authserv_id: str) -> None:
    value = render(authserv_id, results)
    assert re.fullmatch(r"[ -~]*(?:\n\t[ -~]*)*", value)
    assert max(map(len, value.split("\n"))) < 998  # RFC 5322 section 2.1.1
    _, clauses = parse(value)
    words = [("spf" if r.method == "spf_helo" else r.method, r.result.value) for r in results]
    assert [clause[:2] for clause in clauses] == words
    for clause, result in zip(clauses, results, strict=True):
        assert [name for name, _ in clause[2]] == [name for name, given_ in result.properties.items() if given_]
        for written, given_ in [*((w, result.properties[n]) for n, w in clause[2]), (clause[3], result.reason)]:
            assert written == re.sub(r"[^ -~]", "?", given_ if len(given_) <= 256 else given_[:253] + "...")

    ours = render("mx.example.net", results)
    by_authres = read_by_authres(ours)
    assert by_authres.authserv_id == "mx.example.net"
    assert [(r.method, r.result) for r in by_authres.results] == words
    assert claims(ours.encode(), OURS)


# --------------------------------------------------------------------------- what authres reads and writes


def read_by_authres(value: str) -> authres.AuthenticationResultsHeader:
    return authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {value.replace(chr(10), '')}")


def written_by_authres(authserv_id: str, results: list[AuthResult]) -> str:
    clauses = [
        authres.AuthenticationResult(
            "spf" if r.method == "spf_helo" else r.method,
            result=r.result.value,
            reason=r.reason,
            properties=[
                authres.AuthenticationResultProperty(*name.split("."), value=value)
                for name, value in r.properties.items()
            ],
        )
        for r in results
    ]
    value: str = authres.AuthenticationResultsHeader(authserv_id=authserv_id, results=clauses).header_value()
    return value


METHODS = ["iprev", "spf_helo", "spf", "dkim", "arc", "dmarc"]
LABELS = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=2, max_size=5).map(".".join)
MAILBOXES = st.builds(
    "{}@{}".format, st.from_regex(r"[A-Za-z0-9+=_/-]{1,20}(?:\.[a-z]{1,9})?", fullmatch=True), DOMAINS
)
ORDINARY = st.one_of(
    DOMAINS,
    MAILBOXES,
    DOMAINS.map("@{}".format),
    st.ip_addresses().map(str),
    st.binary(max_size=6, min_size=6).map(lambda octets: b64encode(octets).decode()),
    st.sampled_from(["rsa-sha256", "ed25519-sha256", "reject", "none", "s2024", "0"]),
)
REASONS = st.text(
    alphabet=st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="@'`"), max_size=120
)


@given(
    DOMAINS,
    st.lists(
        st.builds(
            AuthResult,
            st.sampled_from(METHODS),
            st.sampled_from(Result),
            st.just(""),
            st.dictionaries(st.sampled_from(PROPERTIES), ORDINARY, max_size=5),
            REASONS,
        ),
        max_size=7,
    ),
)
@settings(deadline=None)
def test_ordinary_results_are_written_as_authres_writes_them(authserv_id: str, results: list[AuthResult]) -> None:
    value = render(authserv_id, results)
    assert value.replace("\n\t", " ") == written_by_authres(authserv_id, results)


@given(
    st.lists(
        st.builds(
            AuthResult,
            st.sampled_from(METHODS),
            st.sampled_from(Result),
            st.just(""),
            # authres overlooks a quoted value that another property follows, so those stand last.
            st.builds(
                lambda bare, last: {**bare, "policy.last": last},
                st.dictionaries(st.sampled_from(PROPERTIES), DOMAINS | MAILBOXES, max_size=5),
                st.one_of(HOSTILE, ORDINARY).filter(bool),
            ),
            HOSTILE | REASONS,
        ),
        max_size=4,
    ),
)
@settings(max_examples=200, deadline=None)
def test_authres_reads_what_was_meant(results: list[AuthResult]) -> None:
    """Every method, result, reason and property arrives, with what can't be written replaced and nothing added."""

    def meant(text: str) -> str:
        return re.sub(r"[^ -~]", "?", text if len(text) <= 256 else text[:253] + "...")

    def read(text: str | None) -> str:
        return re.sub(r"\\(.)", r"\1", text or "")  # authres leaves quoted-pairs as they are

    by_authres = read_by_authres(render("mx.example.net", results))
    assert by_authres.authserv_id == "mx.example.net"
    assert [
        (r.method, r.result, read(r.reason), [(f"{p.type}.{p.name}", read(p.value)) for p in r.properties])
        for r in by_authres.results
    ] == [
        (
            "spf" if r.method == "spf_helo" else r.method,
            r.result.value,
            meant(r.reason),
            [(name, meant(value)) for name, value in r.properties.items()],
        )
        for r in results
    ]


@pytest.mark.parametrize("authserv_id", ["MX.Example.NET", "mx", "a_b.example", "mail+1"])
def test_authres_reads_our_authserv_id(authserv_id: str) -> None:
    assert read_by_authres(render(authserv_id, [])).authserv_id == authserv_id.lower()


@pytest.mark.parametrize(
    ("authserv_id", "written"),
    [
        pytest.param("", '""', id="empty"),
        pytest.param("Our Mail", '"our mail"', id="a blank"),
        pytest.param("mx; spf=pass", '"mx; spf=pass"', id="a semicolon"),
        pytest.param("mx\r\nX: y", '"mx??x: y"', id="CRLF"),
        pytest.param("x" * 300, "x" * 253 + "...", id="too long"),
    ],
)
def test_authserv_id(authserv_id: str, written: str) -> None:
    assert render(authserv_id, []) == f"{written}; none"


def test_a_clause_is_folded_where_it_would_pass_200_characters() -> None:
    """The line holds what stands before the property, a blank, the name, ``=`` and the value."""
    fits = "x" * (200 - len("dkim=pass header.d= header.b=b"))
    for domain, fold in ((fits, " "), (fits + "x", "\n\t")):
        result = AuthResult("dkim", Result.PASS, "", {"header.d": domain, "header.b": "b"})
        assert render("mx", [result]) == f"mx;\n\tdkim=pass header.d={domain}{fold}header.b=b"


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("value", "claimed"),
    [
        pytest.param(b"mx.example.net; spf=pass", True, id="ours"),
        pytest.param(b" MX.Example.NET; none", True, id="other case"),
        pytest.param(b"mx.example.net.; none", True, id="final dot"),
        pytest.param(b'"mx.example.net"; none', True, id="quoted"),
        pytest.param(rb'"mx\.example.net"; none', True, id="quoted pair"),
        pytest.param(b'" mx.example.net"; none', True, id="blank in the quotes"),
        pytest.param(b"(x(y\\)))mx.example.net (z) 1 (z); none", True, id="comments"),
        pytest.param(b"\r\n mx.example.net\r\n\t1; none", True, id="folded"),
        pytest.param(b"mx.example.net 1;spf=pass", True, id="version 1"),
        pytest.param(b"mx.example.net 2; spf=pass", True, id="version 2"),
        pytest.param("ｍｘ.example.net; none".encode(), True, id="full-width letters"),
        pytest.param(b"mx.other.example; none", False, id="another"),
        pytest.param(b"mx.other.example 1 ; none", False, id="another with version"),
        pytest.param(b"a.mx.example.net; none", False, id="a subdomain of ours"),
        pytest.param(b"example.net; none", False, id="a parent of ours"),
        pytest.param(b"mx.example.net.attack.example; none", False, id="a domain that starts as ours"),
        pytest.param(b"other; x=mx.example.net;", False, id="ours elsewhere"),
        pytest.param("bücher.example; none".encode(), False, id="another in UTF-8"),
        pytest.param(b"mx.other.example 2; none", True, id="another with an unknown version"),
        pytest.param(b"mx.other.example 01; none", True, id="another with a version that is not quite 1"),
        pytest.param(b"mx.other.example mx.example.net; none", True, id="two ids"),
        pytest.param(b"mx.other.example x 1; none", True, id="a word before the version"),
        pytest.param(b"mx.other.example", True, id="no semicolon"),
        pytest.param(b"spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=x.example; dkim=none", True, id="no id"),
        pytest.param(b"", True, id="empty"),
        pytest.param(b"; spf=pass", True, id="nothing before the semicolon"),
        pytest.param(b"(mx.example.net; spf=pass", True, id="a comment that does not end"),
        pytest.param(b'"mx.other.example; spf=pass', True, id="a quote that does not end"),
        pytest.param(b"mx.oth\0er.example; none", True, id="NUL"),
        pytest.param(b"mx.oth\xfcer.example; none", True, id="not UTF-8"),
        pytest.param(b"=?utf-8?q?mx.example.net?=; none", True, id="an encoded word"),
        pytest.param(b"mx.other.example/1; none", True, id="a slash"),
        pytest.param(b"x" + b" " * 5000 + b"; none", True, id="an id that takes too long to read"),
        pytest.param(b"x; " + b"a=b " * 60000, False, id="long, but the id stands in front"),
    ],
)
def test_claims(value: bytes, claimed: bool) -> None:
    assert claims(value, OURS) is claimed


def test_our_id_may_be_a_u_label_or_no_domain() -> None:
    assert claims(b"xn--bcher-kva.example; none", frozenset({"Bücher.example."}))
    assert claims("bücher.example; none".encode(), frozenset({"xn--bcher-kva.example"}))
    assert claims(b"MX_1!; none", frozenset({"mx_1!"}))
    assert claims(b'"our mail"; none', frozenset({"Our mail"}))


@given(st.binary(max_size=200))
def test_any_octets_are_judged(value: bytes) -> None:
    assert claims(value, OURS) in {True, False}


@pytest.mark.parametrize("unit", [b"(", b"()", b"\\", b'"', b"(\\", b" ", b"a"], ids=repr)
def test_hostile_fields_are_judged_quickly(unit: bytes) -> None:
    start = time.process_time()
    claims(unit * (262144 // len(unit)), OURS)
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
async def test_fields_of_others(suite: Suite) -> None:
    tally = await run(suite)
    assert (tally.failed, tally.complete) == ([], True)


def message(*fields: tuple[bytes, bytes]) -> Message:
    return Message(tuple(HeaderField(*field) for field in fields))


FORGED = message(
    (b"Authentication-Results", b" mx.example.net; spf=pass"),
    (b"X-Spam-Flag", b" NO"),
    (b"Authentication-Results", b" other.example; spf=pass"),
    (b"AUTHENTICATION-RESULTS", b' "MX.example.net" 1; spf=pass'),
    (b"Received", b" from x"),
    (b"Authentication-Results ", b" (x) mx.example.net;\r\n spf=pass"),
    (b"x-spam-flag", b" YES"),
    (b"X-Spam-Status", b" No"),
    (b"X-Spam\xff", b" No"),
    (b"X-Spam-\xff", b" No"),
    (b"X-Spammer", b" No"),
    (b"ARC-Authentication-Results", b" i=1; mx.example.net; spf=pass"),
    (b"Authentication-Results", b" spf=pass (x)"),
)


@pytest.mark.parametrize(
    ("inside", "deleted"),
    [
        pytest.param(
            False,
            [
                (5, "Authentication-Results"),
                (1, "X-Spam-Status"),
                (2, "x-spam-flag"),
                (4, "Authentication-Results"),
                (3, "AUTHENTICATION-RESULTS"),
                (1, "X-Spam-Flag"),
                (1, "Authentication-Results"),
            ],
            id="from outside",
        ),
        pytest.param(
            True,
            [
                (5, "Authentication-Results"),
                (4, "Authentication-Results"),
                (3, "AUTHENTICATION-RESULTS"),
                (1, "Authentication-Results"),
            ],
            id="from inside, where filters of our own may have written X-Spam fields",
        ),
    ],
)
def test_forged_fields_are_deleted_last_first(inside: bool, deleted: list[tuple[int, str]]) -> None:
    edits = forged(FORGED, OURS, inside)
    assert [(edit.at, edit.name) for edit in edits] == deleted
    assert {edit.op for edit in edits} == {"delete"}


def test_what_is_left_after_the_deletions() -> None:
    fields = list(FORGED.fields)
    for edit in forged(FORGED, OURS, inside=False):
        same = [f for f in fields if f.name.strip(b" ").lower() == edit.name.lower().encode()]
        fields.remove(same[edit.at - 1])
    assert [f.name for f in fields] == [
        b"Authentication-Results",
        b"Received",
        b"X-Spam\xff",
        b"X-Spam-\xff",
        b"X-Spammer",
        b"ARC-Authentication-Results",
    ]
    assert fields[0].value == b" other.example; spf=pass"


NAMES = [
    b"Authentication-Results",
    b"AUTHENTICATION-RESULTS ",
    b"X-Spam-Flag",
    b"x-spam-",
    b"BIMI-Location",
    b"bimi-indicator\t",
]
NEARLY = [
    b"Authentication-Results-Of",
    b"X-Authentication-Results",
    b"X-Spam",
    b"X-Spa",
    b"BIMI-Locations",
    b"BIMI-",
    b"",
    b" \t",
]


@given(st.lists(st.sampled_from(NAMES + NEARLY), max_size=12))
def test_forged_takes_the_watched_fields_and_no_other(names: list[bytes]) -> None:
    taken = forged(message(*((name, b" mx.example.net; none") for name in names)), OURS, inside=False)
    assert sorted(edit.name.encode() for edit in taken) == sorted(n.strip(b" \t") for n in names if is_watched(n))
    assert {name for name in names if is_watched(name)} <= set(NAMES)
