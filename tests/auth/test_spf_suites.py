"""The openspf suite for RFC 7208 and pyspf's own cases, one test per case (data with its licence in spf-suites)."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from authmilter.auth.spf import check_host
from authmilter.config.schema import Spf
from tests.fakes import FakeDNS
from tests.shared import shared

OPTIONS = Spf()

# Cases of pyspf's own suite that are about its lax and harsh modes: default= of old drafts counts in the one and is
# "ambiguous" in the other.  RFC 7208 section 6 has it ignored, and with no other term the result is neutral (4.7).
BY_RFC_7208 = {"default-modifier": "neutral", "default-modifier-harsh": "neutral"}


def suite_dns(zonedata: dict[str, list[Any]]) -> FakeDNS:
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


def cases(file: str) -> Iterator[Any]:
    """Every case of a suite as a parameter set."""
    for scenario in yaml.safe_load_all(shared(f"spf-suites/{file}").read_text(encoding="utf-8")):
        title = scenario.get("description") or scenario.get("comment") or "no title"
        for name, case in scenario["tests"].items():
            yield pytest.param(scenario["zonedata"], case, id=f"{' '.join(title.split())}/{name}")


async def run(zonedata: dict[str, list[Any]], case: dict[str, Any]) -> tuple[str, str]:
    """The result and explanation of a case, by the rules of RFC 7208 section 2.4 and 4.3 for the sender."""
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
    return outcome.result.value, outcome.explanation or "DEFAULT"


@pytest.mark.parametrize(("zonedata", "case"), cases("rfc7208-tests.yml"))
async def test_rfc_7208_suite(zonedata: dict[str, list[Any]], case: dict[str, Any]) -> None:
    result, explanation = await run(zonedata, case)
    # Where several results are allowed, the first is the preferred one, and ours.
    expected = case["result"]
    assert result == (expected[0] if isinstance(expected, list) else expected)
    assert explanation == case.get("explanation", explanation)


@pytest.mark.parametrize(("zonedata", "case"), cases("pyspf-test.yml"))
async def test_cases_of_pyspf(zonedata: dict[str, list[Any]], case: dict[str, Any], request: Any) -> None:
    name = request.node.callspec.id.rpartition("/")[2]
    assert (await run(zonedata, case))[0] == BY_RFC_7208.get(name, case["result"])


def test_the_suite_is_complete() -> None:
    assert len(list(cases("rfc7208-tests.yml"))) == 203
