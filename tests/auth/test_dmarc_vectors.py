"""The cases of dmarc-treewalk: organizational domains, and policy discovery (RFC 9989 section 4.10)."""

from typing import Any

import pytest
import yaml

from authmilter.addresses import Author
from authmilter.auth.dmarc import evaluate
from authmilter.auth.orgdomain import organizational_domain, walk
from authmilter.evidence import Result
from tests.auth.test_orgdomain import zone
from tests.shared import shared


def load(name: str) -> list[Any]:
    cases: list[Any] = yaml.safe_load(shared(f"dmarc-treewalk/{name}").read_text())
    return [pytest.param(case, id=case["id"]) for case in cases]


@pytest.mark.parametrize("case", load("organizational-domain.yml"))
async def test_tree_walk(case: dict[str, Any]) -> None:
    dns = zone(case["records"])
    assert (await walk(case["start"], dns)).organizational_domain == case["org"]
    assert dns.asked == [f"{name} TXT" for name in case["queries"]]
    assert await organizational_domain(case["start"], dns) == case["org"]


@pytest.mark.parametrize("case", load("policy-discovery.yml"))
async def test_policy_discovery(case: dict[str, Any]) -> None:
    dns = zone(case["records"])
    if case.get("exists"):
        dns.add(f"{case['from']} A", ["192.0.2.1"])
    found = await evaluate(Author((case["from"],)), [], dns)
    assert (found.policy_domain or None, found.policy or None) == (case["policy_domain"], case["policy"])
    assert found.result.result == (Result.NONE if case["policy"] is None else Result.FAIL)
    assert found.result.properties.get("policy.dmarc") == case["policy"]
    assert found.result.properties["header.from"] == case["from"]
