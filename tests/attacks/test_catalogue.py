"""Nothing of the catalogue is missing, neither here nor against the list of facts that lies beside the checkout."""

import importlib
import pkgutil
import re

import pytest

import tests.attacks
from tests.attacks.catalogue import CATALOGUE, NOT_HERE, answered
from tests.shared import ROOT, facts

NAMES = [name for names in CATALOGUE.values() for name in names]


@pytest.fixture(scope="module")
def claimed() -> set[str]:
    """The names that tests of this folder answer."""
    for module in pkgutil.iter_modules(tests.attacks.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"tests.attacks.{module.name}")
    return answered


def test_every_attack_has_a_test_or_a_reason(claimed: set[str]) -> None:
    assert len(NAMES) == len(set(NAMES))
    assert claimed | set(NOT_HERE) == set(NAMES)
    assert not claimed & set(NOT_HERE), "what has a test needs no reason"


@pytest.mark.parametrize("name", NOT_HERE)
def test_a_test_that_stands_elsewhere_stands_there(name: str) -> None:
    place = re.fullmatch(r"(tests/[a-z_/]+\.py): (test_[a-z_]+)", NOT_HERE[name])
    if place is None:
        assert len(NOT_HERE[name]) > 20, "a reason"
        return
    assert re.search(rf"^(async )?def {place[2]}\(", (ROOT / place[1]).read_text(), re.MULTILINE)


# The heading of the list -> a group of ours.
GROUPS = {
    "Composition kills": "Composition kills",
    "Weak links": "Weak links",
    "DKIM": "DKIM",
    "SPF": "SPF",
    "DMARC": "DMARC",
    "A-R / headers": "A-R and header",
    "Content": "Content",
    "Protocol": "Protocol",
    "Operations": "Operations",
}
# Entries of the list that name several attacks: how many of ours.
SEVERAL = {"2 MB header": 6, "milter packet of 4 GB": 9}


@pytest.mark.parametrize("heading", GROUPS)
def test_the_list_of_facts_has_nothing_that_we_lack(heading: str) -> None:
    section = facts("standards.md").read_text().split("## 11.")[1].split("\n## ")[0]
    bold = rf"\*\*{re.escape(heading)}(?: \(.*)?\*\*"
    found = re.search(rf"^{bold}(?P<same>.*)\n(?P<next>(?!\*\*).*)?", section, re.MULTILINE)
    assert found
    entries = (found["same"].strip() or found["next"]).split(" \u00b7 ")
    expected = sum(next((n for begin, n in SEVERAL.items() if entry.startswith(begin)), 1) for entry in entries)
    assert expected == len(CATALOGUE[GROUPS[heading]]), entries


def test_the_list_of_peers_has_nothing_that_we_lack() -> None:
    section = facts("standards.md").read_text().split("## 12.")[1].split("\n## ")[0]
    numbers = {f"{int(year)}-{number}" for year, number in re.findall(r"CVE-(\d{4})-(\d+)", section)}
    first = re.search(r"CVE-(2019)-16378, -(\d+)", section)
    assert first
    numbers.add(f"{first[1]}-{first[2]}")
    if "-12460" in section:
        numbers.add("2020-12460")
    ours = {name.removeprefix("CVE-") for name in CATALOGUE["Peers"] if name.startswith("CVE-")}
    assert numbers == ours
    assert section.count(" \u00b7 ") + 1 == len(CATALOGUE["Peers"]) - len(ours) + 2
