"""The page on the migration: its example says the same as the files that it is made of.

That it does the same, and how the change is made, is for tests/packaging/test_migration.py.
"""

import re
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from authmilter.config import ini
from authmilter.networks import contains
from authmilter.policy import PRESETS
from authmilter.verdict import Action
from tests.contrib.fences import DOCS, of_kind

PAGE = DOCS / "migration.md"
INI = of_kind(PAGE, "ini authmilter.ini")
CONFIG = ini.load(None, INI, check_files=False)


def options(kind: str) -> dict[str, str]:
    """Lines `Name value` or `Name = value`."""
    lines = (re.split(r"\s*=\s*|\s+", line, maxsplit=1) for line in of_kind(PAGE, kind).splitlines())
    return {name: value.strip() for name, value in lines}


OPENDKIM, OPENDMARC, POLICYD = (options(f"{name}.conf") for name in ("opendkim", "opendmarc", "policyd-spf"))


class Signing(NamedTuple):
    """What SigningTable and KeyTable say of an author's domain."""

    author: str
    domain: str
    selector: str
    file: str


def signings() -> list[Signing]:
    keys = dict(line.split() for line in of_kind(PAGE, "KeyTable").splitlines())
    found = []
    for line in of_kind(PAGE, "SigningTable").splitlines():
        pattern, name = line.split()
        assert pattern.startswith("*@")
        found.append(Signing(pattern[2:], *keys[name].split(":")))
    return found


def test_the_example_loads_without_a_warning() -> None:
    assert ini.load_with_origins(None, INI, check_files=False).warnings == ()


def test_every_option_of_the_old_files_is_in_the_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in (*OPENDKIM, *OPENDMARC, *POLICYD):
        assert re.search(rf"(?m)^\|[^|]*`{name}`", text), name


def test_the_example_signs_for_whom_the_tables_of_opendkim_sign() -> None:
    assert {s.author for s in signings()} == set(CONFIG.sign)
    for signing in signings():
        ours = CONFIG.sign[signing.author]
        assert (ours.domain or signing.author, ours.selector) == (signing.domain, signing.selector)


def test_the_example_knows_the_hosts_and_names_of_the_old_files() -> None:
    for host in of_kind(PAGE, "TrustedHosts").split():
        assert contains(CONFIG.networks.internal, ip_network(host)[0])
    assert CONFIG.identity.authserv_id == OPENDMARC["AuthservID"]
    for host in POLICYD["skip_addresses"].split(","):
        assert contains((*CONFIG.networks.internal, *CONFIG.spf.skip), ip_network(host)[0])
    assert not contains((*CONFIG.networks.internal, *CONFIG.spf.skip), ip_address("198.51.100.26"))


def test_the_example_refuses_and_defers_what_the_old_programs_did() -> None:
    assert (OPENDMARC["RejectFailures"], CONFIG.scores["dmarc_fail_reject"]) == ("true", Action.REJECT)
    assert (POLICYD["Mail_From_reject"], CONFIG.scores["spf_fail"]) == ("Fail", Action.REJECT)
    assert (POLICYD["HELO_reject"], CONFIG.scores["spf_helo_fail"]) == ("Fail", Action.REJECT)
    assert OPENDMARC["RequiredHeaders"] == "true"
    assert all(CONFIG.scores[name] == Action.REJECT for name in ("header_repeated", "date_missing"))
    assert POLICYD["TempError_Defer"] == "False"
    # They take mail where the DNS fails, whatever On-DNSError says, and so does this preset.
    assert {one.on_temperror for one in (CONFIG.spf, CONFIG.dkim, CONFIG.dmarc)} == {""}
    assert CONFIG.policy.preset == "balanced"
    assert not any("temperror" in name for name in PRESETS["balanced"])
