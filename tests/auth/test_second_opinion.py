"""Ours and the references over the same cases: they agree, but for the defects of the references that have a name."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from itertools import islice
from typing import Any, NamedTuple

import pytest
import spf as pyspf

from authmilter.addresses import to_ascii_domain
from authmilter.auth import second_opinion
from authmilter.auth.results_header import render
from authmilter.auth.second_opinion import DEFECTS, Opinion, answer, ask, compare
from authmilter.auth.spf import check_mail_from
from authmilter.config.schema import Dkim, Spf
from authmilter.evidence import AuthResult, Result
from authmilter.model import Connection, Envelope, Mailbox
from tests.auth.mail import MESSAGE, check, crlf, ed25519_key, load_json, record, rsa_key, sign
from tests.dnsserver import DNSServer
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.dkim import MAIL_DKIM_TIME, ham, zone
from tests.suites.spf import scenarios, suite_dns

NOW = 1_700_000_000


@pytest.fixture(autouse=True)
def references_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their own processes the references may be bent as needed; here they are put back."""
    import dkim

    monkeypatch.setattr(pyspf, "DNSLookup", pyspf.DNSLookup)
    monkeypatch.setattr(dkim, "time", dkim.time)


def serve(dns: FakeDNS) -> DNSServer:
    """The same zone over sockets, for references that ask by themselves."""
    records = {f"{_escaped(name)} {rdtype}": values for (name, rdtype), values in dns.table.items()}
    return DNSServer(records, {f"{_escaped(name)} {rdtype}": "servfail" for name, rdtype in dns.fail})


def _escaped(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-*" else f"\\{ord(c):03d}" for c in name)


def question(server: DNSServer, **more: Any) -> dict[str, Any]:
    return {"nameservers": [server.address], "helo": "h.example", "mail_from": "", "field": "", "now": NOW, **more}


# -------------------------------------------------------------------------------------------------------------- SPF


async def spf_lines(dns: FakeDNS, ip: str, helo: str, sender: str) -> tuple[AuthResult, Opinion, list[str]]:
    """Our result for a MAIL FROM, pyspf's, and what the comparison says."""
    # There are no two equal records of a name in the DNS (RFC 2181 section 5).
    dns.table = {row: list(dict.fromkeys(values)) for row, values in dns.table.items()}
    local, at, domain = sender.rpartition("@")
    mailbox = Mailbox(local.encode(), domain.encode(), to_ascii_domain(domain)) if at else None
    connection = Connection(client_ip=ip_address(ip))
    envelope = Envelope(reverse_path=mailbox)
    ours = await check_mail_from(connection, helo.encode(), to_ascii_domain(helo), envelope, dns, Spf())
    with serve(dns) as server:
        theirs = answer("pyspf", question(server, ip=ip, helo=helo, mail_from=f"<{sender}>"))
    return ours, theirs, compare("pyspf", theirs, [ours])


# Every case of the openspf suite in which pyspf is not right, and why.
SUITE_DEFECTS = {"ptr-cname-loop": "it stops where the client's name can't be had (RFC 7208 section 5.5)"}


async def test_pyspf_agrees_on_the_openspf_suite() -> None:
    found = {}
    compared = 0
    for _, name, zonedata, case in scenarios("rfc7208-tests.yml"):
        _, theirs, lines = await spf_lines(suite_dns(zonedata), case["host"], case["helo"], case["mailfrom"])
        compared += bool(theirs.words)
        if lines != ["agrees"]:
            [found[name]] = lines
    assert compared == 203
    assert {name: line.rpartition("; known of pyspf: ")[2] for name, line in found.items()} == SUITE_DEFECTS


PYSPF = [
    (
        "trivial recursion",
        {"example.org TXT": ["v=spf1 ip4:192.0.2.1 include:example.org -all"]},
        Result.PASS,
        "permerror",
        "it takes an include of the record's own domain for a syntax error (RFC 7208 section 4.6)",
    ),
    (
        "redirect not reached",
        {
            "example.org TXT": ["v=spf1 include:a.example include:b.example redirect=r.example"],
            "a.example TXT": ["v=spf1 " + "a:n.example " * 8 + "?all"],
            "b.example TXT": ["v=spf1 ip4:192.0.2.1 redirect=r.example"],
            "n.example A": ["198.51.100.1"],
            "r.example TXT": ["v=spf1 -all"],
        },
        Result.PASS,
        "permerror",
        "it counts redirect= before it is followed (RFC 7208 section 4.6.4)",
    ),
    (
        "an unknown modifier twice",
        {"example.org TXT": ["v=spf1 x=1 x=2 ip4:192.0.2.1 -all"]},
        Result.PASS,
        "permerror",
        "it refuses any modifier that is given twice (RFC 7208 section 6)",
    ),
    (
        "exchanges without address",
        {
            "example.org TXT": ["v=spf1 mx ip4:192.0.2.1 -all"],
            "example.org MX": [f"{n} m{n}.example" for n in range(5)],
        },
        Result.PASS,
        "permerror",
        "it counts void lookups by question, not by term (RFC 7208 section 4.6.4)",
    ),
]


@pytest.mark.parametrize(("zone", "ours", "theirs", "defect"), [r[1:] for r in PYSPF], ids=[r[0] for r in PYSPF])
async def test_known_defects_of_pyspf(
    zone: Mapping[str, Sequence[str | bytes]], ours: Result, theirs: str, defect: str
) -> None:
    result, opinion, lines = await spf_lines(FakeDNS(zone), "192.0.2.1", "h.example", "user@example.org")
    assert (result.result, opinion.words) == (ours, (theirs,))
    assert lines == [f"differs: ours is {ours.value}: {result.reason}; known of pyspf: {defect}"]


async def test_u_labels_are_asked_for_as_a_labels() -> None:
    dns = FakeDNS({"xn--bcher-kva.example TXT": ["v=spf1 ip4:192.0.2.1 -all"]})
    ours, _, lines = await spf_lines(dns, "192.0.2.1", "h.example", "ann@bücher.example")
    assert (ours.result, lines) == (Result.PASS, ["agrees"])
    raw = sign(MESSAGE, KEY, d="bücher.example")
    assert await dkim_lines(raw, {"sel._domainkey.xn--bcher-kva.example": record(KEY)}, NOW) == ["agrees"]


async def test_what_local_policy_left_out() -> None:
    found = compare(
        "pyspf", Opinion(("fail",), ("fail",)), [AuthResult("spf", Result.NONE, reason="local policy: 192.0.2.1 is …")]
    )
    assert found[0].endswith("; known of pyspf: it knows nothing of our local policy")


# ------------------------------------------------------------------------------------------------------------- DKIM


async def dkim_lines(raw: bytes, keys: Mapping[str, Any], now: float, options: Dkim | None = None) -> list[str]:
    """What the comparison with dkimpy says of a message."""
    dns = zone(keys)
    ours = await check(raw, dns, now=now, options=options or Dkim())
    with serve(dns) as server:
        theirs = answer("dkimpy", question(server, raw=base64.b64encode(raw).decode(), now=now))
    return compare("dkimpy", theirs, ours)


def corpus() -> Iterator[tuple[str, bytes, Mapping[str, Any], float]]:
    """Messages of the corpora with their keys and the time of their arrival."""
    folder = shared("mail-dkim-corpus")
    keys = load_json(folder / "dns.json")
    for case in load_json(folder / "expected.json"):
        raw = (folder / "corpus" / case["file"]).read_bytes()
        yield case["file"], raw if b"\r\n" in raw else crlf(raw), keys, MAIL_DKIM_TIME
    folder = shared("dkimpy-vectors")
    zones = load_json(folder / "dns.json")
    for case in load_json(folder / "cases.json"):
        yield case["file"], crlf((folder / case["file"]).read_bytes()), zones["default"] | zones[case["zone"]], 1.6e9
    folder = shared("real-signed")
    keys = load_json(shared("real-keys/dns.json"))
    for case in load_json(folder / "expected.json"):
        yield case["file"], crlf((folder / case["file"]).read_bytes()), keys, case["check_time"]
    known = (pair for pair in ham() if any("verify" in signature for signature in pair[1].get("signatures", ())))
    for raw, entry in islice(known, 60):
        yield entry["id"], raw, keys, entry["check_time"]


SHA1 = "it accepts rsa-sha1 (RFC 8301 section 3.1)"
# Every message of the corpora in which dkimpy is not right, and why, for each signature that is concerned.
CORPUS_DEFECTS = {"multiple_2.txt": [SHA1], "dkim-001.eml": [SHA1, SHA1]}


async def test_dkimpy_agrees_on_the_corpora() -> None:
    found: dict[str, list[str]] = {}
    compared = 0
    for name, raw, keys, now in corpus():
        lines = await dkim_lines(raw, keys, now)
        compared += bool(lines)
        if lines and lines != ["agrees"]:
            found[name] = [line.rpartition("; known of dkimpy: ")[2] for line in lines]
    assert compared > 90
    assert found == CORPUS_DEFECTS


HOUR = 3600
KEY = rsa_key()
AT = "sel._domainkey.example.org"


class Odd(NamedTuple):
    """A message on which dkimpy is known to be wrong: our result, and the defect."""

    raw: bytes
    ours: Result
    defect: str
    key: str = record(KEY)
    options: Dkim = Dkim()


ODD = {
    "a key that does not allow sha256": Odd(
        sign(MESSAGE, KEY),
        Result.PERMERROR,
        "it ignores h= of the key (RFC 6376 section 3.6.1)",
        key=record(KEY, "h=sha1"),
    ),
    "a key that is not for subdomains": Odd(
        sign(MESSAGE, KEY, i="a@sub.example.org"),
        Result.PERMERROR,
        "it ignores t=s of the key (RFC 6376 section 3.6.1)",
        key=record(KEY, "t=s"),
    ),
    "From is not signed": Odd(
        sign(MESSAGE, KEY, h="to:subject"),
        Result.POLICY,
        "it does not ask for From to be signed (RFC 6376 section 5.4)",
    ),
    "a field on top of a signed one": Odd(
        b"Subject: another\r\n" + sign(MESSAGE, KEY),
        Result.POLICY,
        "it does not look for fields added above signed ones",
    ),
    "text behind the signed length": Odd(
        sign(MESSAGE, KEY, l="10") + b"more\r\n",
        Result.POLICY,
        "it does not look at what follows the signed part of the body (RFC 6376 section 8.2)",
    ),
    "five hours past x=": Odd(
        sign(MESSAGE, KEY, t=str(NOW - 9 * HOUR), x=str(NOW - 5 * HOUR)),
        Result.POLICY,
        "it lets ten hours pass beyond x=",
    ),
    "t= five hours ahead": Odd(
        sign(MESSAGE, KEY, t=str(NOW + 5 * HOUR)), Result.POLICY, "it lets t= be ten hours ahead"
    ),
    "a key under our own minimum": Odd(
        sign(MESSAGE, rsa_key(1024)),
        Result.POLICY,
        "its smallest key has 1024 bits, whatever [dkim] min_key_bits says",
        key=record(rsa_key(1024)),
        options=Dkim(min_key_bits=2048),
    ),
    "x= not after t=": Odd(
        sign(MESSAGE, KEY, t=str(NOW + HOUR), x=str(NOW + HOUR)),
        Result.NEUTRAL,
        "it reads the tags of a signature less strictly",
    ),
    "an odd field name": Odd(
        b"X odd: name\r\n" + sign(MESSAGE, KEY),
        Result.PASS,
        "it gives up the message for one odd field name",
    ),
    "a fold in the first line": Odd(
        b" folded\r\n" + sign(MESSAGE, KEY),
        Result.PASS,
        "it breaks at i= without @, or a header section that begins with a fold",
    ),
    "i= in quoted-printable": Odd(
        sign(MESSAGE, KEY, i="ann=40example.org"), Result.PASS, "it does not decode i= (RFC 6376 section 2.11)"
    ),
    "a list in q=": Odd(
        sign(MESSAGE, KEY, q="dns/txt:dns/other"), Result.PASS, "it takes no list in q= (RFC 6376 section 3.5)"
    ),
    "a list in s= of the key": Odd(
        sign(MESSAGE, KEY),
        Result.PASS,
        "it takes s= of the key for one word (RFC 6376 section 3.6.1)",
        key=record(KEY, "s=other:email"),
    ),
}


@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
async def test_known_defects_of_dkimpy(case: Odd) -> None:
    keys = {AT: case.key}
    [ours] = await check(case.raw, zone(keys), now=NOW, options=case.options)
    assert ours.result is case.ours, ours
    expected = f"signature 1 differs: ours is {ours.result.value}: {ours.reason}; known of dkimpy: {case.defect}"
    assert await dkim_lines(case.raw, keys, NOW, case.options) == [expected]


async def test_ed25519_and_several_signatures() -> None:
    raw = sign(sign(MESSAGE, ed25519_key()), KEY, s="rsa")
    keys = {AT: record(ed25519_key()), "rsa._domainkey.example.org": record(KEY)}
    assert await dkim_lines(raw, keys, NOW) == ["agrees"]
    broken = raw.replace(b"high water", b"low water")
    assert await dkim_lines(broken, keys, NOW) == ["agrees"]  # both say no


def test_every_defect_has_a_case() -> None:
    """All but a message over max_message_size, which no test should have to carry."""
    cases = {row[4] for row in PYSPF} | set(SUITE_DEFECTS.values()) | {case.defect for case in ODD.values()} | {SHA1}
    named = {defect.what for defects in DEFECTS.values() for defect in defects}
    assert named - cases == {"it reads messages of any size", "it knows nothing of our local policy"}
    assert cases <= named


# -------------------------------------------------------------------------------------------------------- comparison


def dkim(result: Result, reason: str = "") -> AuthResult:
    return AuthResult("dkim", result, "example.org", reason=reason)


def test_an_unknown_difference_is_called_one() -> None:
    opinion = Opinion(("pass", "fail"), ("signature 1: pass", "signature 2: fail"))
    assert compare("dkimpy", opinion, [dkim(Result.FAIL, "body has changed"), dkim(Result.PASS)]) == [
        "signature 1 differs: ours is fail: body has changed",
        "signature 2 differs: ours is pass: ",
    ]
    spf = AuthResult("spf", Result.FAIL, reason="no")
    assert compare("pyspf", Opinion(("pass",), ("pass for a@example.org: x",)), [spf]) == ["differs: ours is fail: no"]


def test_nothing_is_said_where_one_has_no_result() -> None:
    failed = Opinion((), ("no answer within 20 s: given up",))
    for reference in second_opinion.REFERENCES:
        assert compare(reference, failed, [dkim(Result.PASS)]) == []
    assert compare("pyspf", Opinion(("pass",), ("pass",)), [dkim(Result.PASS)]) == []
    assert compare("dkimpy", Opinion((), ("no signature",)), [dkim(Result.NONE)]) == []


def test_authres_reads_what_we_wrote() -> None:
    results = [AuthResult("spf_helo", Result.NONE), AuthResult("spf", Result.PASS), dkim(Result.PASS)]
    opinion = answer("authres", {"field": render("mx.example", results)})
    assert opinion.words == ("spf=none", "spf=pass", "dkim=pass")
    assert compare("authres", opinion, results) == ["agrees"]
    assert compare("authres", opinion, results[1:]) == ["differs from what we wrote"]


# --------------------------------------------------------------------------------------------------------- processes


def test_a_process_for_each_reference() -> None:
    """What `check-message --reference` does: the clock is ours, and all three answer."""
    raw = sign(MESSAGE, KEY, t=str(NOW - HOUR), x=str(NOW + HOUR))
    results = [AuthResult("spf", Result.PASS), dkim(Result.PASS)]
    dns = FakeDNS({f"{AT} TXT": [record(KEY)], "example.org TXT": ["v=spf1 ip4:192.0.2.1 -all"]})
    with serve(dns) as server:
        found = ask(
            ip="192.0.2.1",
            helo="h.example",
            mail_from="<ann@example.org>",
            nameservers=[server.address],
            raw=raw,
            field=render("mx.example", results),
            results=results,
            now=NOW,
        )
    assert found == {
        "pyspf": ["pass for ann@example.org: sender SPF authorized", "agrees"],
        "dkimpy": ["signature 1: pass", "agrees"],
        "authres": ["mx.example", "spf=pass", "dkim=pass", "agrees"],
    }


@pytest.mark.parametrize(
    ("limit", "value", "body", "words"),
    [
        # Blanks keep dkimpy busy for minutes.
        pytest.param("SECONDS", 1, b" " * 300_000 + b"x\r\n", "no answer within 1 s: given up", id="time"),
        pytest.param("MEMORY", 150 * 2**20, b"x\r\n" * 6_000_000, "MemoryError: ", id="memory"),
    ],
)
def test_a_reference_is_bounded(
    limit: str, value: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_opinion, limit, value)
    raw = sign(MESSAGE, KEY) + body
    with serve(FakeDNS({f"{AT} TXT": [record(KEY)]})) as server:
        data = json.dumps(question(server, raw=base64.b64encode(raw).decode(), ip="192.0.2.1")).encode()
        opinion = second_opinion._ask("dkimpy", data)
    assert (opinion.words, [line[: len(words)] for line in opinion.lines]) == ((), [words])
