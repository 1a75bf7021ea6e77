"""Attacks on SPF: records that cost too much, or say too much."""

import asyncio
import time
from typing import Any

import pytest

from authmilter.config.option import Seconds
from authmilter.config.schema import Config, Spf
from authmilter.interfaces import Answer
from authmilter.verdict import Action
from tests.attacks.catalogue import answers, attack
from tests.attacks.site import (
    ATTACKER,
    ATTACKER_IP,
    VICTIM,
    VICTIM_IP,
    Case,
    assert_clean,
    from_victim,
    mail,
    play,
    withstand,
    zone,
)
from tests.fakes import FakeDNS


def records(*terms: str, more: dict[str, list[str]] | None = None) -> FakeDNS:
    """The DNS with another SPF record of the attacker."""
    return zone({f"{ATTACKER} TXT": ["v=spf1 " + " ".join(terms)], **(more or {})})


def chain(length: int) -> dict[str, list[str]]:
    """Includes that lead from one name to the next."""
    return {
        f"i{n}.{ATTACKER} TXT": [f"v=spf1 include:i{n + 1}.{ATTACKER} ?all" if n < length else "v=spf1 ?all"]
        for n in range(1, length + 1)
    }


def spf(word: str, **case: Any) -> dict[str, Any]:
    return {"mail": mail, "action": Action.ACCEPT, "results": {"spf": word}, **case}


LONG = "%{l}." * 60 + "%{d}"
SPOOF = {
    "mail": from_victim,
    "action": Action.TAG,
    "because": "dmarc_fail_reject",
}

ATTACKS = [
    attack(
        "10 and 11 lookups", "10", **spf("neutral", dns=lambda: records(f"include:i1.{ATTACKER}", "?all", more=chain(10)))
    ),
    attack(
        "10 and 11 lookups",
        "11",
        **spf(
            "permerror",
            dns=lambda: records(f"include:i1.{ATTACKER}", "?all", more=chain(11)),
            reason="more than 10 terms ask the DNS",
            not_asked=(f"i11.{ATTACKER} TXT",),
        ),
    ),
    attack(
        "2 and 3 void lookups",
        "2",
        **spf("pass", dns=lambda: records(f"a:v1.{ATTACKER}", f"mx:v2.{ATTACKER}", f"ip4:{ATTACKER_IP}")),
    ),
    attack(
        "2 and 3 void lookups",
        "3",
        **spf(
            "permerror",
            dns=lambda: records(*(f"exists:v{n}.{ATTACKER}" for n in range(9)), f"ip4:{ATTACKER_IP}"),
            reason="more than 2 terms ask for what is not there",
            not_asked=(f"v3.{ATTACKER} A",),
        ),
    ),
    attack("include loop", **spf("permerror", dns=lambda: records(f"include:{ATTACKER}"))),
    attack(
        "include loop",
        "of two names, each three times",
        **spf(
            "permerror",
            dns=lambda: records(
                *[f"include:b.{ATTACKER}"] * 3, more={f"b.{ATTACKER} TXT": ["v=spf1" + f" include:{ATTACKER}" * 3]}
            ),
        ),
    ),
    attack("redirect and include mixed", "loop of redirects", **spf("permerror", dns=lambda: records(f"redirect={ATTACKER}"))),
    attack(
        "redirect and include mixed",
        "one budget for both",
        **spf(
            "permerror",
            dns=lambda: records(
                f"include:i6.{ATTACKER}",
                f"redirect=r.{ATTACKER}",
                more={**chain(10), f"r.{ATTACKER} TXT": [f"v=spf1 include:i6.{ATTACKER} -all"]},
            ),
            reason="more than 10 terms ask the DNS",
        ),
    ),
    attack(
        "redirect and include mixed",
        "the pass of an include behind a redirect is the attacker's alone",
        mail=mail,
        action=Action.ACCEPT,
        dns=lambda: records(f"redirect={VICTIM}"),
        ip=VICTIM_IP,
        results={"spf": "pass", "iprev": "pass"},
        identifier=ATTACKER,
        controls=(ATTACKER, f"mail.{VICTIM}"),
    ),
    attack(
        "macros p and l abused",
        "p asks for ten names at most",
        **spf(
            "neutral",
            dns=lambda: records(
                *["exists:%{p}.x." + ATTACKER] * 2, "?all",
                more={
                    "66.113.0.203.in-addr.arpa PTR": [f"n{n}.{ATTACKER}" for n in range(100)],
                    f"n12.{ATTACKER} A": [ATTACKER_IP],
                },
            ),
            not_asked=(f"n10.{ATTACKER} A", f"n12.{ATTACKER} A"),
        ),
    ),
    attack(
        "macros p and l abused",
        "l cannot leave the name of the record",
        **spf(
            "neutral",
            dns=lambda: records("exists:%{l}.x." + ATTACKER, "?all"),
            sender=f"<{VICTIM}.@{ATTACKER}>",
            not_asked=(f"{VICTIM} A", f"{VICTIM}. A"),
        ),
    ),
    attack(
        "450-character expansion",
        "labels are dropped on the left",
        **spf("neutral", dns=lambda: records(f"exists:{LONG}", "?all"), sender=f"<{'a' * 60}@{ATTACKER}>"),
    ),
    attack(
        "450-character expansion",
        "of one label: nothing is asked",
        **spf(
            "neutral",
            dns=lambda: records("exists:" + "%{l}" * 100 + ".%{d}", "?all"),
            sender=f"<{'a' * 64}@{ATTACKER}>",
        ),
    ),
    attack(
        "450-character expansion",
        "ten names of 255 macros with a local-part of 1,000",
        **spf(
            "neutral",
            dns=lambda: records(*["exists:" + "%{L99r.-+,/_=}" * 30 + ".%{d}"] * 10, "?all"),
            sender=f"<{'a.-' * 330}@{ATTACKER}>",
        ),
    ),
    attack(
        "4 KB record",
        "is read to its end",
        **spf("pass", dns=lambda: records(*(f"ip4:198.51.100.{n % 250}/32" for n in range(190)), f"ip4:{ATTACKER_IP}")),
    ),
    attack(
        "4 KB record",
        "64 KB are too much",
        **spf("permerror", dns=lambda: records("ip4:198.51.100.1 " * 4000, f"ip4:{ATTACKER_IP}")),
    ),
    attack(
        "4 KB record",
        "a thousand records",
        **spf("permerror", dns=lambda: zone({f"{ATTACKER} TXT": [f"v=spf1 ip4:{ATTACKER_IP} {'a ' * 2000}"] * 1000})),
    ),
    attack("+all", "is a pass for its own domain", **spf("pass", dns=lambda: records("+all"))),
    attack(
        "+all",
        "and for no other",
        dns=lambda: records("+all"),
        results={"spf": "pass", "dmarc": "fail"},
        **SPOOF,
    ),
    attack("ip4:0.0.0.0/0", "is a pass for its own domain", **spf("pass", dns=lambda: records("ip4:0.0.0.0/0"))),
    attack(
        "ip4:0.0.0.0/0",
        "and for no other",
        dns=lambda: records("ip4:0.0.0.0/0"),
        results={"spf": "pass", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "HELO pass with foreign MAIL FROM",
        mail=from_victim,
        sender=f"<admin@{VICTIM}>",
        results={"spf_helo": "pass", "spf": "fail", "dmarc": "fail"},
        action=Action.REJECT,
        because="dmarc_fail_reject_corroborated",
        reply="550 5.7.26 Email rejected per DMARC policy for legit.example",
    ),
    attack(
        "HELO pass with foreign MAIL FROM",
        "MAIL FROM that can't be looked up",
        sender="<admin>",
        helo=ATTACKER,
        results={"spf_helo": "pass", "spf": "none", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "IPv4-mapped client",
        "the victim's record holds",
        mail=from_victim,
        ip=f"::ffff:{ATTACKER_IP}",
        sender=f"<admin@{VICTIM}>",
        results={"spf": "fail", "dmarc": "fail"},
        action=Action.REJECT,
        reply="550 5.7.26 Email rejected per DMARC policy",
    ),
    attack("IPv4-mapped client", "and the own too", **spf("pass", ip=f"::ffff:{ATTACKER_IP}")),
    attack(
        "IPv4-mapped client",
        "ip6 matches no mapped address",
        **spf("neutral", dns=lambda: records("ip6:::/0", "?all"), ip=f"::ffff:{ATTACKER_IP}"),
    ),
    attack(
        "null sender",
        "is postmaster of the HELO name",
        mail=from_victim,
        sender="<>",
        helo=VICTIM,
        results={"spf": "fail", "dmarc": "fail"},
        action=Action.REJECT,
        reply="550 5.7.26 Email rejected per DMARC policy",
    ),
    attack(
        "null sender",
        "with a blank in it is none",
        sender="< >",
        helo=ATTACKER,
        results={"spf_helo": "pass", "spf": "none", "dmarc": "fail"},
        **SPOOF,
    ),
    attack(
        "macro characters in the local-part",
        "are not expanded again",
        **spf(
            "neutral",
            dns=lambda: records("exists:%{l}.x." + ATTACKER, "?all"),
            sender=f"<%{{d}}%{{i}}@{ATTACKER}>",
            asked=(f"%{{d}}%{{i}}.x.{ATTACKER} A",),
        ),
    ),
    attack(
        "macro characters in the local-part",
        "percent signs that begin no macro",
        **spf(
            "neutral",
            dns=lambda: records("exists:%{l}.x." + ATTACKER, "?all"),
            sender=f"<100%%-_{{@{ATTACKER}>",
            asked=(f"100%%-_{{.x.{ATTACKER} A",),
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ATTACKS)
async def test_a_record_speaks_for_its_own_domain(case: Case) -> None:
    await withstand(case)


@answers("slow nameserver")
async def test_twenty_slow_answers_take_no_longer_than_the_budget() -> None:
    class Slow(FakeDNS):
        async def query(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(0.1 if name.startswith("i") else 0)
            return await super().query(name, rdtype)

    dns = Slow()
    dns.table = records(f"include:i1.{ATTACKER}", more=chain(9)).table
    began = time.monotonic()
    played = await play(mail(), dns=dns, config=Config(spf=Spf(timeout=Seconds(0.25))))
    assert time.monotonic() - began < 0.8
    assert played.words("spf") == "temperror"
    assert played.verdict.action is Action.ACCEPT
    assert_clean(played, (ATTACKER,))
