"""Attacks on DMARC: records, the tree walk, and the From field that all of it begins with."""

from typing import Any

import pytest

from authmilter.interfaces import Answer
from authmilter.verdict import Action
from tests.attacks.catalogue import answers, attack
from tests.attacks.site import (
    ATTACKER,
    NAMELESS_IP,
    OUR_ID,
    VICTIM,
    Case,
    assert_clean,
    mail,
    play,
    withstand,
    zone,
)
from tests.fakes import FakeDNS

TWELVE = "l.k.j.i.h.g.f.e.d.c.b"


def spoof(
    author: str, *records: tuple[str, str], policy: str = "reject", fail: tuple[str, ...] = (), **case: Any
) -> dict[str, Any]:
    """A From that is not the attacker's, and DMARC records as pairs of domain and text."""
    more: dict[str, list[str | bytes]] = {}
    for domain, text in records:
        more.setdefault(f"_dmarc.{domain} TXT", []).append(text)
    action = {"reject": Action.TAG, "quarantine": Action.TAG}.get(policy, Action.ACCEPT)
    defaults = {"results": {"dmarc": "fail"}, "policy": policy, "action": action}
    return {"mail": lambda: mail(author).signed(), "dns": lambda: zone(more, fail), **defaults, **case}


def refused(author: str | bytes, problem: str) -> dict[str, Any]:
    return {
        "mail": lambda: mail(author).signed(),
        "action": Action.REJECT,
        "because": "ambiguous_from",
        "reply": f"550 5.7.1 From header field can't be used: {problem}",
    }


class Wildcards(FakeDNS):
    """The DNS of a domain with ``*`` TXT records: suffix -> text."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__()
        self.table = zone().table
        self.texts = texts

    async def query(self, name: str, rdtype: str) -> Answer:
        answer = await super().query(name, rdtype)
        if rdtype == "TXT" and not answer.records:
            for suffix, text in self.texts.items():
                if name.endswith("." + suffix):
                    return Answer((text.encode(),), exists=True, ttl=300.0)
        return answer


ATTACKS = [
    attack(
        "13-label author domain",
        **spoof(
            f"a@{TWELVE}.{VICTIM}",
            asked=tuple(
                f"_dmarc.{name} TXT"
                for name in (f"{TWELVE}.{VICTIM}", f"f.e.d.c.b.{VICTIM}", f"b.{VICTIM}", VICTIM, "example")
            ),
            not_asked=(f"_dmarc.g.f.e.d.c.b.{VICTIM} TXT", f"_dmarc.k.j.i.h.g.f.e.d.c.b.{VICTIM} TXT"),
        ),
    ),
    attack(
        "13-label author domain",
        "127 labels cost eight questions",
        **spoof("a@" + "a." * 118 + VICTIM),
    ),
    attack(
        "psd=y at the start",
        "does not make a public suffix its own organization's parent",
        **spoof(f"a@{VICTIM}", (VICTIM, "v=DMARC1; p=reject; psd=y"), ("example", "v=DMARC1; p=none; psd=y")),
    ),
    attack(
        "psd=y at the start",
        "of the attacker's domain wins nothing above it",
        **spoof(f"a@{VICTIM}", (ATTACKER, "v=DMARC1; p=none; psd=y")),
    ),
    attack(
        "psd=n in the middle",
        "cuts the alignment with what is above",
        **spoof(
            f"a@b.{ATTACKER}",
            (f"b.{ATTACKER}", "v=DMARC1; p=reject; psd=n"),
        ),
    ),
    attack(
        "record at the top-level domain without psd",
        "makes all below it one organization, by the letter of RFC 9989 section 4.10.2",
        **spoof(
            f"a@{VICTIM}",
            ("example", "v=DMARC1; p=none"),
            results={"dmarc": "pass"},
            action=Action.ACCEPT,
            controls=(ATTACKER, VICTIM),  # whoever has the top-level domain has all of them
        ),
    ),
    attack(
        "record at the top-level domain without psd",
        "with psd=y it does not",
        **spoof(f"a@{VICTIM}", ("example", "v=DMARC1; p=none; psd=y")),
    ),
    attack(
        "two records",
        "are both discarded, and the walk goes on",
        **spoof(
            f"a@b.{VICTIM}", (f"b.{VICTIM}", "v=DMARC1; p=none"), (f"b.{VICTIM}", "v=DMARC1; p=none; sp=none"),
            reason="2 records at _dmarc.b.legit.example are discarded",
        ),
    ),
    attack(
        "two records",
        "at the only place there is: no policy, and no pass that would say more",
        **spoof(
            f"a@{VICTIM}", (VICTIM, "v=DMARC1; p=reject"), (VICTIM, "v=DMARC1; p=none"),
            results={"dmarc": "none"}, policy="", action=Action.ACCEPT,
        ),
    ),
    attack("pct=0", **spoof(f"a@{VICTIM}", (VICTIM, "v=DMARC1; p=reject; pct=0"))),
    attack("p missing", "is none", **spoof(f"a@{VICTIM}", (VICTIM, "v=DMARC1; rua=mailto:d@legit.example"), policy="none")),
    attack("p missing", "and sp is not it", **spoof(f"a@{VICTIM}", (VICTIM, "v=DMARC1; sp=reject"), policy="none")),
    attack("p=Reject", **spoof(f"a@{VICTIM}", (VICTIM, "v=DMARC1; P = Reject"))),
    attack(
        "sp on the record of a subdomain",
        "is ignored",
        **spoof(f"a@b.{VICTIM}", (f"b.{VICTIM}", "v=DMARC1; p=reject; sp=none")),
    ),
    attack(
        "np with NXDOMAIN and with no data",
        "NXDOMAIN",
        **spoof(f"a@nothere.{VICTIM}", (VICTIM, "v=DMARC1; p=reject; sp=none; np=quarantine"), policy="quarantine"),
    ),
    attack(
        "np with NXDOMAIN and with no data",
        "no data",
        **spoof(f"a@mail.{VICTIM}", (VICTIM, "v=DMARC1; p=reject; sp=none; np=quarantine"), policy="none"),
    ),
    attack(
        "np with NXDOMAIN and with no data",
        "SERVFAIL",
        **spoof(
            f"a@b.{VICTIM}", (VICTIM, "v=DMARC1; p=none; np=reject"), policy="none", fail=(f"b.{VICTIM} A",),
            results={"dmarc": "temperror"},
        ),
    ),
    attack(
        "wildcard TXT",
        "*.legit.example with an SPF record is no policy",
        **spoof(f"a@b.{VICTIM}") | {"dns": lambda: Wildcards({VICTIM: "v=spf1 -all"})},
    ),
    attack(
        "wildcard TXT",
        "*._dmarc.legit.example is for no domain of its own",
        **spoof(f"a@b.{VICTIM}") | {"dns": lambda: Wildcards({f"_dmarc.{VICTIM}": "v=DMARC1; p=none"})},
    ),
    attack(
        "wildcard TXT",
        "*.legit.example with a policy is one for each of its subdomains",
        **spoof(f"a@b.{VICTIM}", policy="quarantine")
        | {"dns": lambda: Wildcards({VICTIM: "v=DMARC1; p=quarantine; psd=n"})},
    ),
    attack(
        "CNAME at _dmarc",
        "is followed",
        **spoof(f"a@c.{VICTIM}") | {"dns": lambda: zone({
            f"_dmarc.c.{VICTIM} CNAME": ["policy.elsewhere.example"],
            "policy.elsewhere.example TXT": ["v=DMARC1; p=reject"],
        })},
    ),
    attack(
        "CNAME at _dmarc",
        "loop",
        **spoof(f"a@c.{VICTIM}") | {"dns": lambda: zone({
            f"_dmarc.c.{VICTIM} CNAME": [f"_dmarc.d.{VICTIM}"],
            f"_dmarc.d.{VICTIM} CNAME": [f"_dmarc.c.{VICTIM}"],
        })},
    ),
    *(
        attack(
            "SERVFAIL at one step",
            step,
            **spoof(
                f"a@b.{VICTIM}", fail=(f"_dmarc.{step} TXT",), results={"dmarc": "temperror"}, policy="",
                action=Action.ACCEPT, reason="policy discovery failed",
            ),
        )
        for step in (f"b.{VICTIM}", VICTIM, "example")
    ),
    attack(
        "SERVFAIL at one step",
        "of the attacker's own walk is no way out",
        **spoof(f"a@{VICTIM}", fail=(f"_dmarc.{ATTACKER} TXT", f"_dmarc.mail.{ATTACKER} TXT")),
    ),
    attack(
        "U-label From",
        "is asked for as A-label",
        **spoof("a@b\u00fccher.example", ("xn--bcher-kva.example", "v=DMARC1; p=reject"), identifier="xn--bcher-kva.example"),
    ),
    attack("final dot in From", **spoof(f"<a@{VICTIM}.>", identifier=VICTIM)),
    attack("final dot in From", "two of them", **refused(f"<a@{VICTIM}..>", "domain can't be used")),
    attack("domain literal in From", **refused("user@[192.0.2.1]", "domain literal")),
    attack("domain literal in From", "without brackets", **refused("user@192.0.2.1", "domain can't be used")),
    attack("group syntax in From", **refused("undisclosed:;", "group")),
    attack("group syntax in From", "with a member", **refused(f"Staff: admin@{VICTIM};", "group")),
    attack("group syntax in From", "with a member, and one behind", **refused(f"Staff:;, <a@{ATTACKER}>", "group")),
    attack("empty From", **refused("", "no address")),
    attack("empty From", "brackets", **refused("Admin <>", "no address")),
    attack("From without domain", **refused("Admin <admin>", "no address")),
    attack("From without domain", "at sign alone", **refused("Admin <admin@>", "parsers may differ")),
    attack("OpenDMARC 243, address in a quoted local-part", **refused(f'"x <a@junk.example>"@{VICTIM}', "parsers may differ")),
    attack("OpenDMARC 113, stray bracket", **refused(f"user@{VICTIM}>", "parsers may differ")),
    attack(
        "OpenDMARC 72, escaped quotes must be accepted",
        mail=lambda: mail(rf'"\"Medtronic, Inc.\"" <u@{ATTACKER}>').signed(),
        results={"dmarc": "pass"},
        action=Action.ACCEPT,
        identifier=ATTACKER,
    ),
    attack(
        "200 domains in From",
        **refused(", ".join(f"a@d{n}.example" for n in range(200)), "more than 100 addresses"),
        not_asked=("_dmarc.d1.example TXT", "_dmarc.d199.example TXT"),
    ),
    attack(
        "200 domains in From",
        "signatures of a hundred domains for one author",
        **spoof(f"a@{VICTIM}") | {
            "mail": lambda: mail(f"a@{VICTIM}").on_top(
                *(("DKIM-Signature", f"v=1; a=rsa-sha256; d=d{n}.example; s=s; h=from; bh=QUJD; b=QUJD") for n in range(100))
            ),
            "results": {"dmarc": "fail", "dkim": ",".join(["permerror"] * 10 + ["policy"])},
        },
    ),
    attack(
        "OpenDMARC 268, strict alignment with an organizational match",
        "SPF and DKIM of the parent",
        **spoof(
            f"a@b.{ATTACKER}", (f"b.{ATTACKER}", "v=DMARC1; p=reject; adkim=s; aspf=s"),
            results={"spf": "pass", "dkim": "pass", "dmarc": "fail"},
        ),
    ),
    attack(
        "OpenDMARC 268, strict alignment with an organizational match",
        "relaxed it passes",
        **spoof(
            f"a@b.{ATTACKER}", (f"b.{ATTACKER}", "v=DMARC1; p=reject"),
            results={"spf": "pass", "dkim": "pass", "dmarc": "pass"}, action=Action.ACCEPT,
        ),
    ),
    attack(
        "OpenDMARC 206, VERP in MAIL FROM",
        mail=mail,
        sender=f"<bounce-1+bob=ours.example@{ATTACKER}>",
        results={"spf": "pass", "dmarc": "pass"},
        action=Action.ACCEPT,
        identifier=ATTACKER,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ATTACKS)
async def test_the_policy_of_the_victim_holds(case: Case) -> None:
    await withstand(case)


@answers("13-label author domain")
async def test_a_tree_walk_asks_for_eight_names_at_most() -> None:
    played = await play(mail(f"a@{'a.' * 118}{VICTIM}"), ip=NAMELESS_IP)
    assert isinstance(played.dns, FakeDNS)
    asked = [question for question in played.dns.asked if question.startswith("_dmarc.a.")]
    assert len(asked) <= 8
    assert played.outcome.authentication_results.startswith(OUR_ID)
    assert_clean(played, (ATTACKER,))
