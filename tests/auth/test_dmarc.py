import pytest

from authmilter.addresses import Author
from authmilter.auth.dmarc import DmarcEvaluation, evaluate
from authmilter.evidence import AuthResult, Result
from tests.auth.test_orgdomain import zone
from tests.fakes import FakeDNS


def by(domain: str) -> Author:
    return Author((domain,))


def spf(identifier: str, result: Result = Result.PASS) -> AuthResult:
    return AuthResult("spf", result, identifier)


def dkim(identifier: str, result: Result = Result.PASS) -> AuthResult:
    return AuthResult("dkim", result, identifier)


EXAMPLE: dict[str, str | list[str]] = {"example.org": "v=DMARC1; p=reject"}
STRICT: dict[str, str | list[str]] = {"example.org": "v=DMARC1; p=reject; adkim=s; aspf=s"}
BANK: dict[str, str | list[str]] = {
    "bank.example": "v=DMARC1; p=reject; psd=y",
    "giant.bank.example": "v=DMARC1; p=quarantine",
}


@pytest.mark.parametrize(
    ("records", "author_domain", "results", "result"),
    [
        pytest.param(EXAMPLE, "example.org", [dkim("example.org")], "pass", id="same domain by DKIM"),
        pytest.param(EXAMPLE, "example.org", [spf("example.org")], "pass", id="same domain by SPF"),
        pytest.param(EXAMPLE, "example.org", [spf("b.example.org")], "pass", id="relaxed: MAIL FROM of a subdomain"),
        pytest.param(EXAMPLE, "a.example.org", [dkim("b.example.org")], "pass", id="relaxed: two subdomains"),
        pytest.param(EXAMPLE, "a.example.org", [dkim("example.org")], "pass", id="relaxed: signed by the parent"),
        pytest.param(EXAMPLE, "example.org", [], "fail", id="nothing passed"),
        pytest.param(EXAMPLE, "example.org", [dkim("example.net")], "fail", id="another domain"),
        pytest.param(EXAMPLE, "example.org", [dkim("notexample.org")], "fail", id="a name that only ends the same"),
        pytest.param(EXAMPLE, "example.org", [dkim("org")], "fail", id="a signature by the top-level domain"),
        pytest.param(EXAMPLE, "example.org", [dkim("example.org", Result.FAIL)], "fail", id="a broken signature"),
        pytest.param(EXAMPLE, "example.org", [dkim("example.org", Result.POLICY)], "fail", id="DKIM policy: l= and the like"),
        pytest.param(EXAMPLE, "example.org", [spf("example.org", Result.SOFTFAIL)], "fail", id="SPF softfail"),
        pytest.param(EXAMPLE, "example.org", [spf("example.org", Result.NEUTRAL)], "fail", id="SPF neutral"),
        pytest.param(
            EXAMPLE, "example.org", [dkim("example.org", Result.FAIL), dkim("example.org")], "pass",
            id="two signatures of one domain, one bad, one good",
        ),
        pytest.param(
            EXAMPLE, "example.org", [AuthResult("spf_helo", Result.PASS, "example.org")], "fail",
            id="a pass of HELO never counts (CVE-2019-20790)",
        ),
        pytest.param(
            EXAMPLE, "example.org", [AuthResult("arc", Result.PASS, "example.org"), AuthResult("iprev", Result.PASS, "example.org")],
            "fail", id="other methods never count",
        ),
        pytest.param(EXAMPLE, "example.org", [dkim("")], "fail", id="a pass without identifier"),
        pytest.param(STRICT, "example.org", [dkim("example.org")], "pass", id="strict: same domain"),
        pytest.param(STRICT, "example.org", [dkim("b.example.org"), spf("b.example.org")], "fail", id="strict: subdomain"),
        pytest.param(
            {"example.org": "v=DMARC1; p=reject; adkim=s"}, "example.org", [spf("b.example.org"), dkim("b.example.org")],
            "pass", id="adkim=s leaves SPF relaxed",
        ),
        pytest.param(
            {"example.org": "v=DMARC1; p=reject; aspf=s"}, "example.org", [spf("b.example.org")],
            "fail", id="aspf=s for SPF",
        ),
        pytest.param(
            {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; psd=n"}, "example.org",
            [dkim("x.b.example.org")], "fail", id="a subdomain that says that it is its own organization",
        ),
        pytest.param(
            {"example.org": "v=DMARC1; p=reject", "b.example.org": "v=DMARC1; psd=n"}, "b.example.org",
            [dkim("example.org")], "fail", id="the same the other way round",
        ),
        pytest.param(BANK, "giant.bank.example", [spf("mail.giant.bank.example")], "pass", id="RFC 9989 B.4.3, SPF"),
        pytest.param(BANK, "giant.bank.example", [dkim("mail.mega.bank.example")], "fail", id="RFC 9989 B.4.3, DKIM"),
        pytest.param(BANK, "giant.bank.example", [dkim("bank.example")], "fail", id="signed by the public suffix"),
        pytest.param({}, "example.org", [dkim("example.org")], "none", id="no record"),
        pytest.param({"example.org": "v=DMARC1; p=bogus"}, "example.org", [dkim("example.org")], "none", id="unusable record"),
        pytest.param(
            {"example.org": "v=DMARC1; p=bogus", "org": "v=DMARC1; p=reject"}, "example.org", [], "none",
            id="an unusable record hides those above it",
        ),
        pytest.param({"example.org": "v=DMARC1; p=none; pct=0"}, "example.org", [], "fail", id="pct=0 changes nothing"),
        pytest.param({"xn--bcher-kva.example": "v=DMARC1"}, "xn--bcher-kva.example", [dkim("xn--bcher-kva.example")], "pass", id="A-label"),
    ],
)  # fmt: skip
async def test_result(
    records: dict[str, str | list[str]], author_domain: str, results: list[AuthResult], result: str
) -> None:
    found = await evaluate(by(author_domain), results, zone(records))
    assert found.result.method == "dmarc"
    assert found.result.identifier == author_domain
    assert found.result.result == result


@pytest.mark.parametrize(
    ("record", "author_domain", "exists", "policy"),
    [
        pytest.param("p=reject; t=y", "example.org", True, "quarantine", id="testing reject"),
        pytest.param("p=quarantine; t=y", "example.org", True, "none", id="testing quarantine"),
        pytest.param("p=none; t=y", "example.org", True, "none", id="testing none"),
        pytest.param("p=none; sp=reject; t=y", "a.example.org", True, "quarantine", id="testing sp"),
        pytest.param("p=reject; sp=none; np=reject", "a.example.org", False, "reject", id="np, NXDOMAIN"),
        pytest.param("p=reject; sp=none; np=reject", "a.example.org", True, "none", id="np, the name exists"),
        pytest.param("p=none; np=reject", "a.example.org", False, "reject", id="np without sp"),
        pytest.param("p=none; np=reject", "example.org", False, "none", id="np is not for the domain itself"),
    ],
)
async def test_policy(record: str, author_domain: str, exists: bool, policy: str) -> None:
    dns = zone({"example.org": f"v=DMARC1; {record}"})
    if exists:
        dns.add(f"{author_domain} MX", ["10 mx.example.org"])  # no A: "no data" is not NXDOMAIN
    found = await evaluate(by(author_domain), [], dns)
    assert found.policy == found.result.properties["policy.dmarc"] == policy


async def test_existence_is_asked_only_where_it_matters() -> None:
    dns = zone({"example.org": "v=DMARC1; p=reject; np=reject"})
    await evaluate(by("a.example.org"), [], dns)
    assert [row for row in dns.asked if not row.endswith(" TXT")] == []


async def test_what_reports_need_is_kept() -> None:
    results = [
        dkim("example.net"),
        dkim("example.org"),
        dkim("m.example.org"),
        dkim("example.org"),
        spf("b.example.org"),
    ]
    found = await evaluate(by("a.example.org"), results, zone(EXAMPLE))
    assert found.aligned_dkim == ("example.org", "m.example.org")
    assert found.aligned_spf is True
    assert found.result.aligned == ("b.example.org", "example.org", "m.example.org")
    assert found.policy_domain == "example.org"
    assert found.record is not None
    assert found.record.p == "reject"
    assert found.result.reason == "spf and dkim aligned"


async def test_what_is_not_aligned_or_did_not_pass_is_not_said_to_be() -> None:
    results = [
        dkim("xexample.org"), dkim("m.example.org", Result.FAIL), spf("example.org", Result.SOFTFAIL), dkim("example.org"),
    ]  # fmt: skip
    assert (await evaluate(by("example.org"), results, zone(EXAMPLE))).result.aligned == ("example.org",)


async def test_identical_names_with_a_record_cost_one_question() -> None:
    dns = zone(EXAMPLE)
    await evaluate(by("example.org"), [dkim("example.org"), spf("example.net"), dkim("mail.example.com")], dns)
    assert dns.asked == ["_dmarc.example.org TXT"]


async def test_strict_alignment_costs_one_question() -> None:
    dns = zone(STRICT)
    await evaluate(by("example.org"), [dkim("b.example.org")], dns)
    assert dns.asked == ["_dmarc.example.org TXT"]


async def test_no_name_is_asked_for_twice() -> None:
    dns = zone(EXAMPLE)
    await evaluate(by("a.example.org"), [dkim("b.example.org"), dkim("c.b.example.org"), spf("example.org")], dns)
    assert len(dns.asked) == len(set(dns.asked))


async def test_identifiers_of_other_organizations_are_not_walked() -> None:
    dns = zone(EXAMPLE)
    await evaluate(by("example.org"), [dkim(f"d{i}.evil.org") for i in range(200)], dns)
    assert dns.asked == ["_dmarc.example.org TXT", "_dmarc.org TXT"]


async def test_the_number_of_walks_is_bounded() -> None:
    dns = zone({"org": "v=DMARC1; p=reject"})
    found = await evaluate(by("example.org"), [dkim(f"d{i}.b{i}.c{i}.org", Result.TEMPERROR) for i in range(300)], dns)
    assert found.result.result == "temperror"
    assert len(dns.asked) <= 2 + 3 * 101


@pytest.mark.parametrize(
    ("results", "fail", "result"),
    [
        pytest.param([], ["_dmarc.a.example.org TXT"], "temperror", id="the author's own record"),
        pytest.param([], ["_dmarc.example.org TXT"], "temperror", id="the organization's record"),
        pytest.param([dkim("a.example.org")], ["_dmarc.a.example.org TXT"], "temperror", id="discovery fails, though DKIM passed"),
        pytest.param([dkim("b.example.org")], ["_dmarc.b.example.org TXT"], "temperror", id="the walk of the only identifier"),
        pytest.param(
            [dkim("b.example.org"), spf("c.example.org")], ["_dmarc.b.example.org TXT"], "pass", id="another identifier passes"
        ),
        pytest.param(
            [spf("c.example.org"), dkim("b.example.org")], ["_dmarc.b.example.org TXT"], "pass", id="another passed before"
        ),
        pytest.param([dkim("a.example.org", Result.TEMPERROR)], [], "temperror", id="DKIM temperror of the author's domain"),
        pytest.param([spf("b.example.org", Result.TEMPERROR)], [], "temperror", id="SPF temperror of an aligned domain"),
        pytest.param([dkim("", Result.TEMPERROR)], [], "temperror", id="a temperror without identifier"),
        pytest.param(
            [dkim("a.example.org", Result.TEMPERROR), spf("a.example.org")], [], "pass", id="a temperror beside an aligned pass"
        ),
        pytest.param([spf("evil.example", Result.TEMPERROR)], [], "fail", id="a temperror of the attacker's own domain"),
        pytest.param([spf("evil.org", Result.TEMPERROR)], [], "fail", id="the same under the same top-level domain"),
        pytest.param([dkim("evil.org")], ["_dmarc.evil.org TXT"], "fail", id="the attacker breaks his own tree walk"),
        pytest.param(
            [AuthResult("spf_helo", Result.TEMPERROR, "a.example.org")], [], "fail", id="a temperror of HELO says nothing"
        ),
        pytest.param([], ["a.example.org A"], "temperror", id="nobody knows whether the domain exists"),
        pytest.param([dkim("example.org")], ["a.example.org A"], "pass", id="nor does it matter after a pass"),
    ],
)  # fmt: skip
async def test_temporary_failure(results: list[AuthResult], fail: list[str], result: str) -> None:
    dns = FakeDNS({"_dmarc.example.org TXT": ["v=DMARC1; p=none; np=reject"]}, fail)
    found = await evaluate(by("a.example.org"), results, dns)
    assert found.result.result == result
    if result == "temperror":
        assert found.result.reason


async def test_discarded_records_are_named_in_the_reason() -> None:
    dns = zone({"a.example.org": ["v=DMARC1; p=none", "v=DMARC1; p=reject"], **EXAMPLE})
    found = await evaluate(by("a.example.org"), [], dns)
    assert found.policy_domain == "example.org"
    assert found.result.reason == "no aligned pass of spf or dkim; 2 records at _dmarc.a.example.org are discarded"
    alone = await evaluate(by("a.example.org"), [], zone({"a.example.org": ["v=DMARC1", "v=DMARC1"]}))
    assert (alone.result.result, alone.result.reason) == ("none", "2 records at _dmarc.a.example.org are discarded")


@pytest.mark.parametrize(
    ("author", "properties"),
    [
        pytest.param(Author((), (), "no From field"), {}, id="no From"),
        pytest.param(
            Author(("a.example", "b.example"), (), "several domains"), {"header.from": "a.example"}, id="two domains"
        ),
        pytest.param(Author(), {}, id="nothing is known"),
    ],
)
async def test_no_author_domain_is_a_permerror(author: Author, properties: dict[str, str]) -> None:
    dns = FakeDNS()
    found = await evaluate(author, [dkim("a.example")], dns)
    assert found == DmarcEvaluation(
        AuthResult("dmarc", Result.PERMERROR, properties.get("header.from", ""), properties, author.problem)
    )
    assert dns.asked == []
