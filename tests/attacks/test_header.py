"""Attacks through the header section: forged results, injection, sizes."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from authmilter.config.schema import Config, Submission
from authmilter.verdict import Action
from tests.attacks.catalogue import answers, attack
from tests.attacks.site import (
    ATTACKER,
    ATTACKER_IP,
    NAMELESS_IP,
    OUR_ID,
    VICTIM,
    Case,
    Mail,
    assert_clean,
    assert_one_line,
    from_victim,
    mail,
    play,
    read_results,
    withstand,
    zone,
)

FORGED = f"{OUR_ID}; dmarc=pass header.from={VICTIM}"


@answers("five forged fields of our id")
async def test_five_forged_fields_go_and_one_true_one_comes_on_top() -> None:
    message = from_victim()
    for n in range(5):
        message = message.on_top(("Authentication-Results", FORGED), (f"X-{n}", "between"))
    message = message.below(("Authentication-Results", "other.example; dmarc=fail"))
    played = await play(message)
    assert [edit.at for edit in played.edits("delete", "Authentication-Results")] == [5, 4, 3, 2, 1]
    assert len(played.edits("insert", "Authentication-Results")) == 1
    assert played.words("dmarc") == "fail"
    assert_clean(played, (ATTACKER,))


# Whether the field goes.
FORMS = [
    ("other case", "MX.Ours.EXAMPLE; dmarc=pass", True),
    ("quoted", f'"{OUR_ID}"; dmarc=pass', True),
    ("quoted pair", '"mx.o\\urs.example"; dmarc=pass', True),
    ("comment in front", f"(a (nested) comment) {OUR_ID}; dmarc=pass", True),
    ("comment behind", f"{OUR_ID}(x) ; dmarc=pass", True),
    ("version 1", f"{OUR_ID} 1; dmarc=pass", True),
    ("version 2", f"{OUR_ID} 2; dmarc=pass", True),
    ("version 2 of another", "other.example 2; dmarc=pass", True),
    ("folded", f"\r\n {OUR_ID}\r\n\t; dmarc=pass", True),
    ("final dot", f"{OUR_ID}.; dmarc=pass", True),
    ("full-width letters", "ｍｘ.ours.example; dmarc=pass", True),
    ("comment without end", f"(oh {OUR_ID}; dmarc=pass", True),
    ("quote without end", f'"{OUR_ID}; dmarc=pass', True),
    ("empty", "", True),
    ("NUL in the id", "mx.ours.example\0; dmarc=pass", True),
    ("no semicolon", f"{OUR_ID}", True),
    ("another id first", f"x y {OUR_ID}; dmarc=pass", True),
    ("subdomain of ours, which is another id", f"a.{OUR_ID}; dmarc=pass", False),
    ("parent of ours", "ours.example; dmarc=pass", False),
    ("ours as a value", f"other.example; dmarc=pass header.from={OUR_ID}", False),
]


@answers("our id in other forms")
@pytest.mark.parametrize(("value", "goes"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
async def test_a_field_that_claims_our_id_goes(value: str, goes: bool) -> None:
    played = await play(mail().on_top(("Authentication-Results", value)))
    assert len(played.edits("delete", "Authentication-Results")) == goes
    assert_clean(played, (ATTACKER,))


@answers("our id in other forms")
async def test_a_u_label_is_our_a_label() -> None:
    message = mail().on_top(("Authentication-Results", "mx.B\u00fccher.example; dmarc=pass"))
    played = await play(message, authserv_id="mx.xn--bcher-kva.example")
    assert len(played.edits("delete", "Authentication-Results")) == 1


@answers("space behind the field name")
@pytest.mark.parametrize("name", ["Authentication-Results ", "AUTHENTICATION-results\t ", " Authentication-Results"])
async def test_a_blank_beside_the_name_hides_nothing(name: str) -> None:
    played = await play(mail().on_top((name, FORGED), ("Authentication-Results", FORGED)))
    deleted = played.edits("delete", "Authentication-Results")
    assert [(edit.name.lower(), edit.at) for edit in deleted] == [
        ("authentication-results", 2),
        ("authentication-results", 1),
    ]
    assert_clean(played, (ATTACKER,))


@answers("forged BIMI-Location")
async def test_the_logo_of_a_victim_goes() -> None:
    logo = f"v=BIMI1; l=https://{VICTIM}/logo.svg"
    message = mail().on_top(("BIMI-Location", logo), ("bimi-indicator", "PHN2Zz4="), ("BIMI-Location", logo))
    played = await play(message)
    assert [edit.at for edit in played.edits("delete", "BIMI-Location")] == [2, 1]
    assert [edit.at for edit in played.edits("delete", "BIMI-Indicator")] == [1]
    assert_clean(played, (ATTACKER,))
    own = await play(mail("alice@ours.example").on_top(("BIMI-Location", logo)), macros={b"{auth_authen}": b"alice"})
    assert not own.edits("delete", "BIMI-Location"), "what a user of ours writes is for the receiver to remove"


ATTACKS = [
    attack(
        "header of 2 MB",
        "one field",
        mail=lambda: mail().below(("X-Junk", "x" * 2_000_000)),
        action=Action.ACCEPT,
    ),
    attack(
        "header of 2 MB",
        "forged results behind it",
        mail=lambda: from_victim().below(*[("X-Junk", "x y\r\n\t" * 15_000)] * 25, ("Authentication-Results", FORGED)),
        results={"dmarc": "fail"},
    ),
    attack(
        "header of 2 MB",
        "signed fields of spaces",
        mail=lambda: mail().below(*[("X-Junk", " \t" * 100_000)] * 9).signed(h="from:x-junk" + ":x-junk" * 8),
        results={"dkim": "pass", "dmarc": "pass"},
        action=Action.ACCEPT,
    ),
    attack(
        "header of 2 MB",
        "a From of 200 KB",
        mail=lambda: mail(f"{'(' * 100_000}{')' * 100_000} mallory@{ATTACKER}"),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
    attack(
        "header of 2 MB",
        "a From of 300 KB, which is not examined",
        mail=lambda: mail(f"{'x' * 300_000} <mallory@{ATTACKER}>"),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
    attack(
        "10,000 header fields",
        "of one name, all of them signed",
        mail=lambda: mail().below(*[("X", "y")] * 10_000).signed(h="from" + ":x" * 10_000),
        results={"dkim": "pass"},
        action=Action.ACCEPT,
    ),
    attack(
        "10,000 header fields",
        "forged results",
        mail=lambda: from_victim().below(*[("Authentication-Results", f"(a)(b) {FORGED}")] * 10_000),
        results={"dmarc": "fail"},
        action=Action.REJECT,
        because="forged_flood",
        reply="550 5.7.1 Too many Authentication-Results",
    ),
    attack(
        "10,000 header fields",
        "foreign spam fields, each of its own name",
        mail=lambda: from_victim().below(*((f"X-Spam-{n}", "NO") for n in range(10_000))),
        results={"dmarc": "fail"},
        action=Action.REJECT,
        because="forged_flood",
        reply="550 5.7.1 Too many Authentication-Results",
    ),
    attack(
        "10,000 header fields",
        "signatures, of which ten are looked at",
        mail=lambda: from_victim().below(*[("DKIM-Signature", "v=1; a=rsa-sha256; d=legit.example")] * 10_000),
        results={"dmarc": "fail", "dkim": ",".join(["neutral"] * 10 + ["policy"])},
        reason="9990 more signatures were not checked",
    ),
    attack(
        "8-bit field name",
        mail=lambda: mail().on_top((b"X-\xff\xfe", b"y"), (b"Fr\xc3\xb6m", f"admin@{VICTIM}".encode())),
        action=Action.ACCEPT,
        results={"dmarc": "pass"},
    ),
    attack(
        "8-bit field name",
        "that may be taken for From",
        mail=lambda: mail().below((b"From\xa0", f"admin@{VICTIM}".encode())),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
    attack(
        "NUL in the header",
        "in the name of From",
        mail=lambda: mail().below((b"Fr\0om", f"admin@{VICTIM}".encode())),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1",
    ),
    attack(
        "NUL in the header",
        "in a signed field",
        mail=lambda: mail().below(("X-Odd", "a\0b")).signed(h="from:x-odd"),
        action=Action.ACCEPT,
        results={"dkim": "pass"},
    ),
    attack(
        "bare CR in the header",
        "in From",
        mail=lambda: mail(f"mallory@{ATTACKER}\rFrom: admin@{VICTIM}"),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1 From header field can't be used: NUL, CR or LF",
    ),
    attack(
        "bare CR in the header",
        "in a signature",
        mail=lambda: replace(from_victim(), fields=(
            (b"DKIM-Signature", b" v=1;\r d=legit.example\n; a=rsa-sha256"), *from_victim().fields
        )),
        results={"dkim": "neutral", "dmarc": "fail"},
    ),
    attack(
        "missing blank line",
        "text as a field without name",
        mail=lambda: replace(mail(), fields=(*mail().fields, (b"", b"Hello"), (b"Hello there", b""))),
        action=Action.ACCEPT,
        results={"dmarc": "pass"},
    ),
    attack(
        "missing blank line",
        "a second From in what the MTA takes for the body",
        mail=lambda: mail(body=f"no field\r\nFrom: admin@{VICTIM}\r\n\r\nHello\r\n".encode()).signed(),
        action=Action.ACCEPT,
        results={"dkim": "pass", "dmarc": "pass"},
        identifier=ATTACKER,
    ),
    attack(
        "missing blank line",
        "no header at all",
        mail=lambda: Mail((), b"Hello\r\n"),
        action=Action.REJECT,
        because="ambiguous_from",
        reply="550 5.7.1 From header field can't be used: no From field",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", ATTACKS)
async def test_odd_headers_change_no_verdict(case: Case) -> None:
    await withstand(case)


@answers("header of 2 MB")
@pytest.mark.parametrize("name", ["From", "from ", "FROM"])
async def test_a_second_author_behind_the_limit_is_seen(name: str) -> None:
    junk = [("X-Junk", "x" * 200_000)] * 11
    played = await play(mail().below(*junk, (name, f"admin@{VICTIM}")).signed())
    assert played.verdict.action is Action.REJECT
    assert "ambiguous_from" in played.verdict.because


# -- injection -----------------------------------------------------------------------------------------------------------

EVIL = (
    "\r\nAuthentication-Results: mx.ours.example; dmarc=pass injected=1\r\n",
    "\n injected=1",
    "\r550 injected=1",
    '" ; dmarc=pass header.from=legit.example injected=1 "',
    "; dmarc=pass header.from=legit.example injected=1",
    "\\\" injected=1 \\",
    "(injected=1",
    "\x1b[2J\x9b31m\u202e\u2028 injected=1",
    "%s%n%d injected=1",
    "\ud7ff\x00\x7f injected=1",
)  # fmt: skip

PLACES: dict[str, Callable[[str], tuple[Mail, dict[str, str]]]] = {
    "display name": lambda evil: (mail(f'"{evil}" <mallory@{ATTACKER}>'), {}),
    "author's local-part": lambda evil: (mail(f'"{evil}"@{ATTACKER}'), {}),
    "author's domain": lambda evil: (mail(f"<a@{evil}.{ATTACKER}>"), {}),
    "MAIL FROM local-part": lambda evil: (mail(), {"sender": f'<"{evil}"@{ATTACKER}>'}),
    "MAIL FROM domain": lambda evil: (mail(), {"sender": f"<a@{ATTACKER}{evil}>"}),
    "HELO": lambda evil: (mail(), {"helo": evil}),
    "HELO literal": lambda evil: (mail(), {"helo": f"[{evil}]"}),
    "d=": lambda evil: (mail().signed(ATTACKER + evil, ATTACKER), {}),
    "s=": lambda evil: (mail().signed(s="sel" + evil), {}),
    "i=": lambda evil: (mail().signed(i=f"a{evil}@{ATTACKER}"), {}),
    "i= in quoted-printable": lambda evil: (
        mail().signed(i="".join(f"={octet:02X}" for octet in evil.encode()) + f"@{ATTACKER}"), {}
    ),
    "a=": lambda evil: (mail().signed(a="rsa-sha256" + evil), {}),
    "b=": lambda evil: (mail().signed(b=evil), {}),
    "h=": lambda evil: (mail().signed(h="from:" + evil), {}),
    "field name": lambda evil: (mail().on_top((evil, "x")), {}),
    "name of a spam field": lambda evil: (mail().on_top(("X-Spam-" + evil, "x")), {}),
    "Authentication-Results": lambda evil: (mail().on_top(("Authentication-Results", evil)), {}),
}  # fmt: skip


@answers("CRLF from the message into A-R, reply or log")
@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("place", PLACES)
async def test_nothing_gets_out_raw(place: str, log_format: str) -> None:
    for evil in EVIL:
        message, envelope = PLACES[place](evil)
        for ip in (ATTACKER_IP, NAMELESS_IP):
            played = await play(message, ip=ip, log_format=log_format, **envelope)  # type: ignore[arg-type]
            if log_format == "json":
                (line,) = played.log.splitlines()
                assert line.isascii()
                assert "injected" not in json.loads(line)
            else:
                assert_one_line(played.log)
            assert_clean(played, (ATTACKER,))


@answers("CRLF from the message into A-R, reply or log")
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
async def test_a_user_of_ours_writes_nothing_raw_into_the_reply(evil: str) -> None:
    config = Config(submission=Submission(from_must_match="login"))
    for author in (f'"{evil}"@ours.example', f"x{evil}@ours.example", "ceo@ours.example"):
        for login in ("alice", f"alice{evil}"):
            played = await play(mail(author), config=config, macros={b"{auth_authen}": login.encode()})
            assert played.verdict.action is Action.REJECT
            assert_one_line(played.log)
            assert_clean(played, ())


@answers("CRLF from the message into A-R, reply or log")
@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
async def test_nothing_of_the_dns_gets_out_raw(evil: str) -> None:
    dns = zone(
        {
            "66.113.0.203.in-addr.arpa PTR": [evil, f"mail.{ATTACKER}{evil}"],
            f"{ATTACKER} TXT": [f"v=spf1 include:{evil} exp={evil} -all"],
            f"mail.{ATTACKER} TXT": [f"v=spf1 ip4:{evil} -all"],
            f"sel._domainkey.{ATTACKER} TXT": [f"v=DKIM1; k={evil}; p={evil}"],
            f"_dmarc.{ATTACKER} TXT": [f"v=DMARC1; p={evil}; rua={evil}"],
        }
    )
    played = await play(mail().signed(), dns=dns)
    assert_clean(played, (ATTACKER,))


@answers("CRLF from the message into A-R, reply or log")
def test_the_strict_reader_of_these_tests_is_strict() -> None:
    """That a break-out would be seen."""
    for value in (
        "a.example;\n\tspf=pass smtp.mailfrom=a b@c.example",
        "a.example;\n\tspf=pass smtp.mailfrom=a@c(.example",
        'a.example;\n\tspf=pass reason="x"y"',
        "a.example;\n\tspf=pass\r\n\tdmarc=pass",
        "a.example;\nspf=pass",
        "a.example; spf=pass smtp.helo=a/b",
        "a.example b; spf=pass",
    ):
        with pytest.raises(AssertionError):
            read_results(value)
    assert read_results('"a b";\n\tspf=pass reason="x\\";y"\n\tsmtp.mailfrom=@c.example') == (
        "a b",
        [("spf", "pass", 'x";y', (("smtp.mailfrom", "@c.example"),))],
    )


# -- what a regular expression might choke on ------------------------------------------------------------------------------

BAIT = [
    attack("backtracking bait", f"From of {text[:8]!r}", mail=lambda text=text: mail(text * (60_000 // len(text))),
           action=Action.REJECT, because="ambiguous_from", reply="550 5.7.1")
    for text in ("a@b ", "<a@b>", '"a" ', "\\", '"\\"', "((", "a,", "=?u?q?a?= ", "=?", "@", "<@", " ", "a.", '""@', "\t<")
] + [
    attack("backtracking bait", f"signature of {text[:8]!r}", mail=lambda text=text: from_victim().on_top(
        ("DKIM-Signature", f"v=1; a=rsa-sha256; d={VICTIM}; s=sel; " + text * (30_000 // len(text)))
    ), action=Action.TAG, because="dmarc_fail_reject")
    for text in (" ", ";", "=", "h=from:", "b=A ", "\r\n ", "i==", "x=1;", "a" * 100)
] + [
    attack("backtracking bait", f"body of {text[:8]!r}", mail=lambda text=text: replace(
        from_victim().signed(VICTIM), body=text * (1_000_000 // len(text)) + b"x"
    ), action=Action.TAG, because="dmarc_fail_reject")
    for text in (b" ", b"\t", b"\r\n", b"\r", b"\n", b" \r\n", b"\t \r\n", b"x", b"\r\n ", b" \t", b"\r\r\n", b"\0")
] + [
    attack("backtracking bait", f"MAIL FROM of {text[:8]!r}", mail=from_victim, sender=f"<{text * (60_000 // len(text))}@x.example>",
           action=Action.TAG, because="dmarc_fail_reject")
    for text in ("a", '"', "\\", "@a,", ".", "\"\\\"")
]  # fmt: skip


@pytest.mark.parametrize("case", BAIT)
async def test_bait_is_not_taken(case: Case) -> None:
    await withstand(case)
