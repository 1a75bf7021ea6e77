"""Cases of dmarc-treewalk: organizational domains, and policy discovery (RFC 9989 section 4.10)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import yaml

from authmilter.addresses import Author
from authmilter.auth.dmarc import evaluate
from authmilter.auth.orgdomain import organizational_domain, walk
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.suite import Case, Suite


def zone(records: Mapping[str, str | list[str]]) -> FakeDNS:
    """A DNS with the given policy records."""
    return FakeDNS({f"_dmarc.{n} TXT": [r] if isinstance(r, str) else r for n, r in records.items()})


def load(name: str) -> list[dict[str, Any]]:
    """The cases of a file."""
    cases: list[dict[str, Any]] = yaml.safe_load(shared(f"dmarc-treewalk/{name}").read_text())
    return cases


async def _organizational_domain(case: Mapping[str, Any]) -> str:
    dns = zone(case["records"])
    found = (await walk(case["start"], dns)).organizational_domain
    asked = list(dns.asked)
    assert await organizational_domain(case["start"], dns) == found
    return f"{found} by {asked}"


def organizational_domains() -> Iterator[Case]:
    """The domain, and the names that are asked for on the way, in their order."""
    for case in load("organizational-domain.yml"):
        queries = [f"{name} TXT" for name in case["queries"]]
        yield Case(case["id"], (f"{case['org']} by {queries}",), partial(_organizational_domain, case))


async def _policy(case: Mapping[str, Any]) -> str:
    dns = zone(case["records"])
    if case.get("exists"):
        dns.add(f"{case['from']} A", ["192.0.2.1"])
    found = await evaluate(Author((case["from"],)), [], dns)
    properties = found.result.properties
    assert properties["header.from"] == case["from"]
    # RFC 9989 section 9.1: the policy is shown; with nothing to align, one that was found makes a fail.
    assert properties.get("policy.dmarc", "") == found.policy
    return f"{found.result.result.value}, {found.policy or None} of {found.policy_domain or None}"


def policy_discovery() -> Iterator[Case]:
    """The policy that counts, and where it was found."""
    for case in load("policy-discovery.yml"):
        word = "none" if case["policy"] is None else "fail"
        yield Case(case["id"], (f"{word}, {case['policy']} of {case['policy_domain']}",), partial(_policy, case))


ORGANIZATIONAL_DOMAIN = Suite("DMARC organizational domain", "dmarc-treewalk", 18, organizational_domains)
POLICY_DISCOVERY = Suite("DMARC policy discovery", "dmarc-treewalk", 15, policy_discovery)
SUITES = (ORGANIZATIONAL_DOMAIN, POLICY_DISCOVERY)
