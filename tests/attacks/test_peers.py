"""Vulnerabilities of other mail filters: none of them is one of ours."""

from typing import Any

import pytest

from authmilter.auth.orgdomain import parse_record
from authmilter.verdict import Action
from tests.attacks.catalogue import attack
from tests.attacks.site import (
    ATTACKER,
    NAMELESS_IP,
    OUR_ID,
    VICTIM,
    Case,
    from_victim,
    mail,
    withstand,
    zone,
)

AMBIGUOUS = {"action": Action.REJECT, "because": "ambiguous_from", "reply": "550 5.7.1"}
SPOOF: dict[str, Any] = {"mail": from_victim, "action": Action.TAG, "because": "dmarc_fail_reject", "policy": "reject"}

REGRESSIONS = [
    # OpenDMARC took the first domain of several in From, signed by whoever owned it.
    attack(
        "CVE-2019-16378",
        "two addresses, the first one signed",
        mail=lambda: mail(f"<x@{ATTACKER}>, <admin@{VICTIM}>").signed(),
        **AMBIGUOUS,
    ),
    attack(
        "CVE-2019-16378",
        "two fields, the first one signed",
        mail=lambda: mail().signed().below(("From", f"admin@{VICTIM}")),
        **AMBIGUOUS,
    ),
    # OpenDMARC took the SPF result of HELO for that of MAIL FROM.
    attack(
        "CVE-2019-20790",
        "HELO of the attacker, MAIL FROM of the victim",
        **SPOOF
        | {
            "sender": f"<admin@{VICTIM}>",
            "action": Action.REJECT,
            "because": "dmarc_fail_reject_corroborated",
            "reply": "550 5.7.26",
            "results": {"spf_helo": "pass", "spf": "fail", "dmarc": "fail"},
        },
    ),
    attack(
        "CVE-2019-20790",
        "HELO that passes for a victim with no SPF of his own",
        mail=lambda: mail("admin@nospf.example"),
        dns=lambda: zone({
            "nospf.example TXT": ["v=spf1 ?all"],
            "_dmarc.nospf.example TXT": ["v=DMARC1; p=reject"],
            "mx.nospf.example TXT": [f"v=spf1 ip4:{NAMELESS_IP} -all"],
        }),
        helo="mx.nospf.example",
        sender="<admin@nospf.example>",
        ip=NAMELESS_IP,
        controls=("mx.nospf.example",),
        results={"spf_helo": "pass", "spf": "neutral", "dmarc": "fail"},
        action=Action.REJECT,
        because="dmarc_fail_reject_corroborated",
        reply="550 5.7.1 Email rejected per DMARC policy",
    ),
    # OpenDMARC and OpenDKIM let brackets and quotes of a domain through into Authentication-Results.
    attack(
        "CVE-2020-12272",
        "MAIL FROM",
        **SPOOF | {"sender": f"<x@{VICTIM}(.{ATTACKER}>", "results": {"spf": "none", "dmarc": "fail"}},
    ),
    attack(
        "CVE-2020-12272",
        "d=",
        **SPOOF | {
            "mail": lambda: from_victim().signed(f"{VICTIM}\".{ATTACKER}", ATTACKER),
            "results": {"dkim": "neutral", "dmarc": "fail"},
        },
    ),
    attack(
        "CVE-2020-12272",
        "HELO",
        **SPOOF | {"helo": f"{VICTIM}'a.{ATTACKER}", "sender": "<>", "results": {"spf": "none", "dmarc": "fail"}},
    ),
    # OpenDMARC wrote a NUL behind the end of a record.
    *(
        attack("CVE-2020-12460", name, dns=lambda text=text: zone({f"_dmarc.{VICTIM} TXT": [text]}),
               mail=from_victim, action=action, results={"dmarc": word})
        for name, text, word, action in (
            ("a record that ends in =", b"v=DMARC1; p=reject; rua=", "fail", Action.TAG),
            ("a record of 64 KB", b"v=DMARC1; p=reject; " + b"x" * 65_000, "fail", Action.TAG),
            ("a record of NUL", b"v=DMARC1; p=reject\0\0\0", "none", Action.ACCEPT),
            ("a record of 8-bit octets", b"v=DMARC1; p=reject; \xff\xfe=\x80", "fail", Action.TAG),
            ("a record of semicolons", b"v=DMARC1;" + b";" * 8000 + b"p=reject", "fail", Action.ACCEPT),
        )
    ),
    # OpenDMARC crashed on several From fields, or on one without address.
    attack("CVE-2021-34555", "a hundred From", mail=lambda: mail().below(*[("From", f"a@{VICTIM}")] * 100), **AMBIGUOUS),
    attack("CVE-2021-34555", "empty among them", mail=lambda: mail("").below(("From", ""), ("From", ",")), **AMBIGUOUS),
    # OpenDKIM removed the wrong ones of several forged fields.
    attack(
        "CVE-2022-48521",
        **SPOOF | {
            "mail": lambda: from_victim().on_top(*(
                ("Authentication-Results", text)
                for text in (f"{OUR_ID}; dmarc=pass", "o.example; none", f"{OUR_ID}; dmarc=pass", f"{OUR_ID}; dmarc=pass")
            )),
            "results": {"dmarc": "fail"},
        },
    ),
    # mail-auth wrote parts of the message into its own header fields.
    attack(
        "mail-auth 0.9.1 header injection",
        "MAIL FROM",
        **SPOOF | {
            "sender": f"<\"x\r\nAuthentication-Results: {OUR_ID}; dmarc=pass\"@{ATTACKER}>",
            "results": {"spf": "none", "dmarc": "fail"},
        },
    ),
    attack(
        "mail-auth 0.9.1 header injection",
        "HELO",
        **SPOOF | {"helo": f"x\r\nX-Spam-Flag: NO\r\n\r\n.{ATTACKER}", "sender": "<>", "results": {"dmarc": "fail"}},
    ),
    attack(
        "mail-auth 0.9.1 header injection",
        "i=",
        **SPOOF | {
            "mail": lambda: from_victim().signed(i=f"a=0D=0AX:=20y@{ATTACKER}"),
            "results": {"dkim": "neutral", "dmarc": "fail"},
        },
    ),
    # authentication_milter read the Authentication-Results of others too leniently, and let forged ones stay.
    *(
        attack(
            "authentication_milter 4.20250811 strict parser",
            text,
            **SPOOF | {
                "mail": lambda text=text: from_victim().on_top(("Authentication-Results", text)),
                "results": {"dmarc": "fail"},
            },
        )
        for text in (f"={OUR_ID}; dmarc=pass", f"{OUR_ID}\u00a0; dmarc=pass", f";{OUR_ID}; dmarc=pass", f"{OUR_ID}/1; dmarc=pass")
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", REGRESSIONS)
async def test_what_befell_others_does_not_befall_us(case: Case) -> None:
    played = await withstand(case)
    forged = [
        f for f in played.outcome.tx.message.fields if f.name == b"Authentication-Results" and b"o.e" not in f.value
    ]
    assert len(played.edits("delete", "Authentication-Results")) == len(forged)


def test_a_policy_record_is_read_within_its_bounds() -> None:
    assert parse_record(b"v=DMARC1; p=reject" + b" " * 100_000) is not None
