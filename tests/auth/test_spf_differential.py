"""Random zones, evaluated by us and by pyspf; where the two differ, the reason has a name and a section of RFC 7208."""

import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

import pytest
import spf as pyspf

from authmilter.auth.spf import SpfOutcome, check_host
from authmilter.config.schema import Spf
from authmilter.errors import DnsTempError
from tests.fakes import FakeDNS

NAMES = ["example.org", "a.example.org", "b.example.net", "c.example", "d.c.example"]
ADDRESSES = ["192.0.2.1", "192.0.2.77", "198.51.100.9", "2001:db8::1", "2001:db8:0:1::2"]
SENDERS = ["user@example.org", "a-b+c.d@example.org", "x@a.example.org", "Some.One=x@b.example.net"]
HELO = "mail.example.net"

MACROS = [
    "%{d}",
    "%{d2}",
    "%{dr}",
    "%{i}",
    "%{ir}",
    "%{l}",
    "%{l1r-}",
    "%{l+-}",
    "%{o}",
    "%{h}",
    "%{v}",
    "%{p}",
    "%{S}",
    "%{L}",
]
ODD_TERMS = [
    "moo", "all.", "a:", "a:x", "mx/33", "a//129", "ip4:1.2.3", "ip4:192.0.2.1/32/1", "ip6:::1::", "include",
    "redirect=", "exp=x", "a:%{x}.example", "a:%", "x=%(d)", "x.y=z x.y=z", "%{d}", "-", "A//64", "IP4:192.0.2.0/24",
]  # fmt: skip


class Case(NamedTuple):
    """A zone, and what is checked in it."""

    zone: dict[str, list[str | bytes]]
    fail: list[str]
    ip: str
    sender: str


def random_case(rng: random.Random) -> Case:
    zone: dict[str, list[str | bytes]] = {}
    for name in NAMES:
        if rng.random() < 0.9:
            zone[f"{name} TXT"] = [random_record(rng)] * (2 if rng.random() < 0.02 else 1)
        if rng.random() < 0.6:
            zone[f"{name} A"] = [a for a in rng.sample(ADDRESSES, 3) if ":" not in a]
        if rng.random() < 0.4:
            zone[f"{name} AAAA"] = [a for a in rng.sample(ADDRESSES, 3) if ":" in a]
        if rng.random() < 0.5:
            zone[f"{name} MX"] = [f"{n} {rng.choice(NAMES)}" for n in range(rng.choice([1, 2, 11]))]
    ip = rng.choice(ADDRESSES)
    if rng.random() < 0.7:
        zone[f"{ip_address(ip).reverse_pointer} PTR"] = list(rng.sample(NAMES, rng.randint(1, 3)))
    sender = rng.choice(SENDERS)
    if rng.random() < 0.3:
        zone[f"{sender.partition('@')[0].lower()}.example A"] = ["127.0.0.2"]
    zone = {key: values for key, values in zone.items() if values}
    fail = [key for key in zone if rng.random() < 0.03]
    return Case(zone, fail, ip, sender)


def random_record(rng: random.Random) -> str:
    terms = [random_term(rng) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 3, 4, 5]))]
    if rng.random() < 0.04:
        terms.insert(rng.randint(0, len(terms)), rng.choice(ODD_TERMS))
    if rng.random() < 0.6:
        terms.append(rng.choice("-~?+") + "all")
    if rng.random() < 0.25:
        terms.insert(rng.randint(0, len(terms)), f"redirect={random_domain(rng)}")
    if rng.random() < 0.1:
        terms.insert(rng.randint(0, len(terms)), f"exp={random_domain(rng)}")
    return rng.choice(["v=spf1", "V=SPF1"]) + "".join(rng.choice([" ", " ", "  "]) + term for term in terms)


def random_term(rng: random.Random) -> str:
    qualifier = rng.choice(["", "", "+", "-", "~", "?"])
    prefixes = rng.choice(["", "", "", "/24", "/32", "/0", "//64", "/28//32"])
    match rng.choice(["ip4", "ip6", "a", "mx", "ptr", "exists", "include", "include", "a:", "mx:", "ptr:"]):
        case "ip4":
            address = rng.choice([a for a in ADDRESSES if ":" not in a])
            return f"{qualifier}ip4:{address}{rng.choice(['', '/32', '/24', '/0', '/31'])}"
        case "ip6":
            address = rng.choice([a for a in ADDRESSES if ":" in a])
            return f"{qualifier}ip6:{address}{rng.choice(['', '/128', '/64', '/0', '/127'])}"
        case "exists" | "include" as name:
            return f"{qualifier}{name}:{random_domain(rng)}"
        case ("a:" | "mx:") as name:
            return f"{qualifier}{name}{random_domain(rng)}{prefixes}"
        case "ptr:":
            return f"{qualifier}ptr:{random_domain(rng)}"
        case "ptr":
            return f"{qualifier}ptr"
        case name:
            return f"{qualifier}{name}{prefixes}"


def random_domain(rng: random.Random) -> str:
    if rng.random() < 0.75:
        return rng.choice([*NAMES, "void.example", "c.example.", "C.Example"])
    return rng.choice(["", "x."]) + rng.choice(MACROS) + rng.choice(["", ".example", ".example.org", ".c.example"])


def ask_pyspf(case: Case, dns: FakeDNS, void_limit: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """pyspf's result and words for it, over the same zone."""

    def lookup(name: str, qtype: str, strict: bool = True, timeout: float = 20) -> list[Any]:
        coroutine = dns.query(name, qtype)
        try:
            coroutine.send(None)
        except DnsTempError as error:
            raise pyspf.TempError(str(error)) from None
        except StopIteration as done:
            records = done.value.records
        if qtype == "TXT":
            records = [(record,) for record in records]
        elif qtype == "MX":
            records = [(int(r.split()[0]), r.split()[1]) for r in records]
        return [((name, qtype), record) for record in records]

    monkeypatch.setattr(pyspf, "DNSLookup", lookup)
    monkeypatch.setattr(pyspf, "MAX_VOID_LOOKUPS", void_limit)
    result, _, text = pyspf.query(i=case.ip, s=case.sender, h=HELO).check()
    return result, text


async def ask_us(case: Case, dns: FakeDNS, void_limit: int) -> SpfOutcome:
    local, _, domain = case.sender.partition("@")
    options = Spf(void_limit=void_limit)
    return await check_host(ip_address(case.ip), domain, local.encode(), domain, HELO, dns, options)


def _says(words: str) -> Callable[[Case, str], bool]:
    return lambda case, text: words in text


def _client_names_fail(case: Case, text: str) -> bool:
    asked_for = any(words in str(case.zone) for words in ("ptr", "%{p}"))
    return asked_for and any(row in text for row in case.fail if row.endswith((" PTR", " A", " AAAA")))


# Every difference there is, with the part of RFC 7208 that speaks for us, and how it is known by what pyspf says.
EXPLAINED: dict[str, Callable[[Case, str], bool]] = {
    # 4.6: syntax comes first, then terms in their order; a match before the include ends the evaluation.
    "pyspf takes an include of the record's own domain for a syntax error": _says("include has trivial recursion"),
    # 4.6.4: redirect= is a lookup only if it is followed.
    "pyspf counts redirect= before it is followed": _says("Too many DNS lookups"),
    # 6: only redirect= and exp= must not appear twice.
    "pyspf refuses any modifier that is given twice": _says("MUST appear at most once"),
    # 5.5: a DNS error at PTR is no match, one at a name's address skips the name.
    "pyspf stops at a DNS error of the client's names": _client_names_fail,
}


async def differences(
    seed: int, count: int, void_limit: int, wanted: Callable[[Case], bool], monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], Counter[str]]:
    """How often each result came, and each explained difference; fails at one that is not explained."""
    rng = random.Random(seed)
    results: Counter[str] = Counter()
    found: Counter[str] = Counter()
    while results.total() < count:
        case = random_case(rng)
        if not wanted(case):
            continue
        dns = FakeDNS(case.zone, fail=case.fail)
        theirs, text = ask_pyspf(case, dns, void_limit, monkeypatch)
        ours = await ask_us(case, dns, void_limit)
        results[theirs] += 1
        if ours.result.value == theirs:
            continue
        names = [name for name, fits in EXPLAINED.items() if fits(case, text)]
        assert names, f"{case}\npyspf: {theirs}, {text}\nours: {ours}"
        found[names[0]] += 1
    return results, found


@pytest.mark.parametrize("seed", range(8))
async def test_the_same_results_as_pyspf(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results, found = await differences(seed, 400, 1_000_000, lambda case: True, monkeypatch)
    # The grammar must reach every result, and what has to be explained must stay rare.
    assert set(results) == {"pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"}
    assert found.total() < 0.05 * results.total(), found


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_void_lookups_as_pyspf_for_a_and_exists(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # pyspf counts each question of mx and ptr, we count terms, and ptr not at all (see spf_evaluation.py).
    def wanted(case: Case) -> bool:
        records = str([values for key, values in case.zone.items() if key.endswith(" TXT")]).lower()
        return not any(words in records for words in ("mx", "ptr", "%{p}"))

    results, _ = await differences(seed, 200, 1, wanted, monkeypatch)
    assert results["permerror"] > 20
