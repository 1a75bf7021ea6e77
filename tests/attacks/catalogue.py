"""The catalogue of known attacks on mail authentication, and what of it is answered elsewhere or not yet.

Each attack has a name here, and each name is either that of tests in this folder, or stands in `NOT_HERE` with the
reason, so that nothing is silently missing: `test_catalogue` compares.

Sources: Chen, Paxson and Jiang, "Composition Kills" (USENIX Security 2020) for A1 to A19 and client A1 to A3; Shen et
al., "Weak Links in Authentication Chains" (USENIX Security 2021); the vulnerabilities of other filters by their CVE; the
rest are reports against the programs that are named.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

CATALOGUE: dict[str, tuple[str, ...]] = {
    "Composition kills": (
        "A1 non-existent subdomain in MAIL FROM",
        "A2 empty or odd MAIL FROM",
        "A3 NUL in the DKIM selector",
        "A4 quote in d=",
        "A5 parenthesis in the MAIL FROM domain",
        "A6 quote and at sign in MAIL FROM",
        "A7 source route in MAIL FROM",
        "A8 two From fields",
        "A9 space before From",
        "A10 space between From and colon",
        "A11 folded name of From",
        "A12 From missing or odd, and Sender",
        "A13 From missing or odd, and Resent-From",
        "A14 two addresses in From",
        "A15 address in an encoded word",
        "A16 route in From",
        "A17 quoted pair between addresses",
        "A18 precedence of special characters",
        "A19 text behind the address",
        "client A1 two From fields",
        "client A2 two addresses",
        "client A3 From of another user",
    ),
    "Weak links": (
        "login is not MAIL FROM",
        "MAIL FROM is not From",
        "empty MAIL FROM",
        "multiple From",
        "truncation at NUL or an invalid character",
        "quoted or escaped local-part",
        "comment and direction override",
        "encoded word in the address part",
        "subdomain spoof",
        "auto-forward that gains an SPF pass",
        "forwarder that signs foreign mail",
        "ARC result laundering",
        "IDN homograph",
        "gaps of rendering",
    ),
    "DKIM": (
        "l= append",
        "unsigned Content-Type replaced",
        "duplicate field added above the signed one",
        "replay to many",
        "expired x=",
        "future t=",
        "512-bit key",
        "rsa-sha1",
        "key for another service",
        "t=s with a subdomain in i=",
        "h= without From",
        "100 signatures",
        "100 KB key record",
        "key CNAME loop",
        "g= in the key",
        "U-label d=",
        "b= with garbage",
        "several signatures of one selector, one good",
        "From signed once but two From",
    ),
    "SPF": (
        "10 and 11 lookups",
        "2 and 3 void lookups",
        "include loop",
        "redirect and include mixed",
        "macros p and l abused",
        "450-character expansion",
        "4 KB record",
        "slow nameserver",
        "+all",
        "ip4:0.0.0.0/0",
        "SPF upgrade through a shared pool",
        "HELO pass with foreign MAIL FROM",
        "IPv4-mapped client",
        "null sender",
        "macro characters in the local-part",
    ),
    "DMARC": (
        "13-label author domain",
        "psd=y at the start",
        "psd=n in the middle",
        "record at the top-level domain without psd",
        "two records",
        "pct=0",
        "p missing",
        "p=Reject",
        "sp on the record of a subdomain",
        "np with NXDOMAIN and with no data",
        "wildcard TXT",
        "CNAME at _dmarc",
        "SERVFAIL at one step",
        "U-label From",
        "final dot in From",
        "domain literal in From",
        "group syntax in From",
        "empty From",
        "From without domain",
        "OpenDMARC 243, address in a quoted local-part",
        "OpenDMARC 113, stray bracket",
        "OpenDMARC 72, escaped quotes must be accepted",
        "200 domains in From",
        "OpenDMARC 268, strict alignment with an organizational match",
        "OpenDMARC 206, VERP in MAIL FROM",
    ),
    "A-R and header": (
        "five forged fields of our id",
        "our id in other forms",
        "space behind the field name",
        "forged ARC sets",
        "forged BIMI-Location",
        "header of 2 MB",
        "10,000 header fields",
        "8-bit field name",
        "NUL in the header",
        "bare CR in the header",
        "missing blank line",
        "CRLF from the message into A-R, reply or log",
    ),
    "Content": (
        "display name with a foreign address",
        "comment with an address",
        "homoglyph of an own domain",
        "MIME ambiguity",
        "zip bomb and deep MIME nesting",
        "backtracking bait",
    ),
    "Protocol": (
        "packet of 4 GB",
        "unknown command",
        "EOM without MAIL",
        "macro packet without name",
        "reuse after ABORT",
        "several messages per session",
        "QUIT_NC",
        "client gone in the body",
        "families U and L",
    ),
    "Operations": (
        "DNSBL with odd answers",
        "resolver down",
        "clock one hour off",
        "disk full for state",
        "SIGHUP with a broken file",
    ),
    "Peers": (
        "CVE-2019-16378",
        "CVE-2019-20790",
        "CVE-2020-12272",
        "CVE-2020-12460",
        "CVE-2021-34555",
        "CVE-2022-48521",
        "mail-auth 0.9.1 header injection",
        "authentication_milter 4.20250811 strict parser",
        "rspamd 4.1.4 control socket",
    ),
}

# What has no test in this folder, and why.  "tests/FILE: NAME" is where its test stands; that it does is checked.
NOT_HERE: dict[str, str] = {
    "gaps of rendering": "what a mail reader draws is its own; the look of display names is a matter for heuristics",
    "replay to many": "each copy is authentic; that there are many shows only over time, which needs a store",
    "SPF upgrade through a shared pool": "SPF authorises the pool and can't tell its customers apart; a heuristic may",
    "homoglyph of an own domain": "a heuristic on the content; the domain itself is compared as A-label, see IDN homograph",
    "MIME ambiguity": "bodies are hashed and not parsed",
    "zip bomb and deep MIME nesting": "bodies are hashed and not parsed, nothing is unpacked",
    "disk full for state": "nothing is written to the store",
    "SIGHUP with a broken file": "tests/rig/test_postfix.py: test_a_broken_file_keeps_the_old_configuration_and_says_so",
    "rspamd 4.1.4 control socket": "there is no control socket, and nothing of the network names a file",
}

answered: set[str] = set()  # names that a test of this folder has claimed


def attack(name: str, variant: str = "", **case: Any) -> Any:
    """A row of a table of attacks: a parameter set with the name from the catalogue as its id."""
    from tests.attacks.site import Case

    answered.add(name)
    title = f"{name}, {variant}" if variant else name
    return pytest.param(Case(title=title, **case), id=title)


F = TypeVar("F", bound=Callable[..., Any])


def answers(name: str) -> Callable[[F], F]:
    """Mark a test as the answer to that attack of the catalogue."""
    answered.add(name)
    return lambda function: function
