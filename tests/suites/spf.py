"""The openspf suites for RFC 7208 and RFC 4408, and pyspf's own cases (data with its licences in spf-suites)."""

from collections.abc import Iterator, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

import yaml

from authmilter.auth.spf import check_host
from authmilter.config.schema import Spf
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.suite import Case, Explained, Suite

OPTIONS = Spf()


def suite_dns(zonedata: Mapping[str, list[Any]]) -> FakeDNS:
    """The zone of a scenario: SPF rows are TXT unless the name has TXT of its own, TIMEOUT fails what is not there."""
    dns = FakeDNS()
    for name, rows in zonedata.items():
        found: dict[str, list[str | bytes]] = {}
        for row in rows:
            if isinstance(row, dict):
                for rdtype, value in row.items():
                    found.setdefault(rdtype, []).append(_record(rdtype, value))
        spf = found.pop("SPF", [])
        if spf and "TXT" not in found:
            found["TXT"] = spf
        if found.get("TXT") == [b"NONE"]:
            del found["TXT"]
        for rdtype, values in found.items():
            dns.add(f"{name} {rdtype}", values)
        if "TIMEOUT" in rows:
            absent = {"A", "AAAA", "MX", "PTR", "TXT"} - found.keys()
            dns.fail |= {(name.lower(), rdtype) for rdtype in absent}
    return dns


def _record(rdtype: str, value: Any) -> str | bytes:
    match rdtype, value:
        case "SPF" | "TXT", list():
            return "".join(value).encode("latin-1")
        case "SPF" | "TXT", _:
            return str(value).encode("latin-1")
        case "MX", [preference, host]:
            return f"{preference} {host or '.'}"
        case _:
            return str(value)


async def answer(zonedata: Mapping[str, list[Any]], case: Mapping[str, Any]) -> str:
    """Our result, and our explanation if the case has one, by RFC 7208 sections 2.4 and 4.3 for the sender."""
    helo, sender = case["helo"], case["mailfrom"]
    local, _, domain = (sender or f"postmaster@{helo}").rpartition("@")
    outcome = await check_host(
        ip_address(case["host"]),
        domain.lower(),
        (local or "postmaster").encode(),
        domain.lower(),
        helo.encode(),
        suite_dns(zonedata),
        OPTIONS,
    )
    word = outcome.result.value
    return f"{word}: {outcome.explanation or 'DEFAULT'}" if "explanation" in case else word


def scenarios(file: str) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Scenario, name, zone and content of every case of a suite."""
    for scenario in yaml.safe_load_all(shared(f"spf-suites/{file}").read_text(encoding="utf-8")):
        title = scenario.get("description") or scenario.get("comment") or "no title"
        for name, case in scenario["tests"].items():
            yield " ".join(title.split()), name, scenario["zonedata"], case


def cases(file: str, explained: Mapping[str, Explained]) -> Iterator[Case]:
    """Every case of a suite; of several results that it allows, the first is the preferred one, and ours must be it."""
    for title, name, zonedata, case in scenarios(file):
        preferred = case["result"][0] if isinstance(case["result"], list) else case["result"]
        if "explanation" in case:
            preferred = f"{preferred}: {case['explanation']}"
        yield Case(f"{title}/{name}", (preferred,), partial(answer, zonedata, case), explained.get(name))


# Each of these answers is allowed by the suite, though not preferred.
_TXT_ALONE = "records of type SPF are not asked for (RFC 7208 section 3.1)"
_NO_NAME = "a target-name that can't be asked matches nothing (RFC 7208 section 4.8)"
DIFFERS_IN_4408 = {
    "spfonly": Explained("none", _TXT_ALONE),
    "txttimeout": Explained("temperror", _TXT_ALONE),
    "spfoverride": Explained("fail", _TXT_ALONE),
    "multitxt1": Explained("permerror", _TXT_ALONE),
    "multispf2": Explained("pass", _TXT_ALONE),
    "invalid-domain-empty-label": Explained("fail", _NO_NAME),
    "invalid-domain-long": Explained("fail", _NO_NAME),
    "invalid-domain-long-via-macro": Explained("fail", _NO_NAME),
    "exists-dnserr": Explained("temperror", "a DNS failure at a mechanism is a temperror (RFC 7208 section 5)"),
    "mx-limit": Explained("permerror", "more than ten exchanges are a permerror (RFC 7208 section 4.6.4)"),
}

# Cases of pyspf's own suite that are about its lax and harsh modes: default= of old drafts counts in the one and is
# "ambiguous" in the other.
_DEFAULT = Explained("neutral", "default= is an unknown modifier and ignored (RFC 7208 sections 6 and 4.7)")
DIFFERS_IN_PYSPF = {"default-modifier": _DEFAULT, "default-modifier-harsh": _DEFAULT}

RFC_7208 = Suite("openspf RFC 7208", "spf-suites", 203, partial(cases, "rfc7208-tests.yml", {}))
RFC_4408 = Suite("openspf RFC 4408", "spf-suites", 191, partial(cases, "rfc4408-tests.yml", DIFFERS_IN_4408))
PYSPF = Suite("pyspf's own", "spf-suites", 16, partial(cases, "pyspf-test.yml", DIFFERS_IN_PYSPF))
SUITES = (RFC_7208, RFC_4408, PYSPF)
