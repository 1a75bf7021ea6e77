"""The openspf suite for RFC 7208 through the resolver and real sockets, a server to each scenario."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from authmilter.auth.spf import check_host
from authmilter.config.option import Seconds
from authmilter.config.schema import Dns, Spf
from authmilter.resolver import StubResolver
from tests.dnsserver import DNSServer
from tests.shared import shared
from tests.suites.spf import suite_dns

SCENARIOS = list(yaml.safe_load_all(shared("spf-suites/rfc7208-tests.yml").read_text(encoding="utf-8")))
TIMEOUT = 0.6  # seconds for a question; the suite's TIMEOUT is a nameserver that says nothing


def serve(zonedata: dict[str, list[Any]]) -> DNSServer:
    """The zone of a scenario; where the DNS of the other test fails, this one drops the question."""
    zone = suite_dns(zonedata)
    records = {f"{_escaped(name)} {rdtype}": values for (name, rdtype), values in zone.table.items()}
    return DNSServer(records, {f"{_escaped(name)} {rdtype}": "drop" for name, rdtype in zone.fail})


def _escaped(name: str) -> str:
    """The name as in a zone file: labels of the suite hold any character, and a backslash is one."""
    return "".join(c if c.isalnum() or c in "-._*" else f"\\{ord(c):03}" for c in name)


async def evaluate(case: dict[str, Any], server: DNSServer) -> tuple[str, str]:
    helo, sender = case["helo"], case["mailfrom"]
    local, _, domain = (sender or f"postmaster@{helo}").rpartition("@")
    dns = StubResolver(replace(Dns(nameservers=(server.address,)), timeout=Seconds(TIMEOUT)))
    try:
        outcome = await check_host(
            ip_address(case["host"]),
            domain.lower(),
            (local or "postmaster").encode(),
            domain.lower(),
            helo.encode(),
            dns,
            Spf(),
        )
    finally:
        dns.close()
    return outcome.result.value, outcome.explanation or "DEFAULT"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: " ".join(scenario["description"].split()))
async def test_rfc_7208_suite_over_the_network(scenario: dict[str, Any]) -> None:
    cases = scenario["tests"]
    with serve(scenario["zonedata"]) as server:
        outcomes = await asyncio.gather(*(evaluate(case, server) for case in cases.values()))
    wrong = {}
    for (name, case), (result, explanation) in zip(cases.items(), outcomes, strict=True):
        # Where several results are allowed, the first is the preferred one, and ours.
        expected = case["result"][0] if isinstance(case["result"], list) else case["result"]
        if (result, explanation) != (expected, case.get("explanation", explanation)):
            wrong[name] = f"{result} {explanation!r} in place of {case['result']} {case.get('explanation')!r}"
    assert wrong == {}


@pytest.mark.parametrize(
    "local_part", ["user+tag", "a=b", "o'neil", "a b", '"quoted"', "back\\slash", "{}", "a,b;c:d", "#$%&!?^~|`<>()[]"]
)
async def test_the_local_part_does_not_turn_a_fail_into_a_temperror(local_part: str) -> None:
    records = {"example.org TXT": ["v=spf1 exists:%{l}._spf.example.org -all"]}
    case = {"helo": "mail.example.net", "mailfrom": f"{local_part}@example.org", "host": "192.0.2.1"}
    with DNSServer(records) as server:
        assert (await evaluate(case, server))[0] == "fail"
        assert server.asked() == 2
        server.add(f"{_escaped(local_part)}._spf.example.org A", ["127.0.0.2"])
        assert (await evaluate(case, server))[0] == "pass"


def test_all_scenarios_are_there() -> None:
    assert sum(len(scenario["tests"]) for scenario in SCENARIOS) == 203
