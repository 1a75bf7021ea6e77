"""The outer contract through a real Sendmail with the lines of contrib/sendmail, for both engines over UNIX and TCP sockets.

Clients are addresses of this machine; of them only 127.0.0.1 is internal.
"""

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest

from authmilter.auth.canonical import relaxed_field
from authmilter.auth.sendmail_form import rewrite
from authmilter.model import HeaderField
from tests.auth.test_sendmail_form import CASES, SAME, UNFORESEEN, VERY_MANY
from tests.dnsserver import DNSServer
from tests.rig.daemon import Configuration, Daemon
from tests.rig.mail import KeyFiles, dkim_signed, dkim_verdicts, message, rsa_pem, zone
from tests.rig.postfix import Answer, Postfix
from tests.rig.sendmail import LINES, SOCKET, Sendmail, require_sendmail
from tests.rig.sink import Delivery, Sink
from tests.rig.site import Variant, configuration
from tests.rig.sockets import wait_until

AR = b"Authentication-Results"
GOOD, GOOD_NAME, BAD = "127.0.0.10", "mail.good.example", "127.0.0.66"
REFUSED, DEFERRED, HELD = "127.0.0.54", "127.0.0.21", "127.0.0.51"
SETTINGS: Configuration = {
    "networks": {"internal": "127.0.0.1"},
    "access": {"reject": REFUSED, "tempfail": DEFERRED, "weights": f"{HELD} = quarantine"},
    "spamtraps": {"addresses": "trap@test"},
    "scores": {"spamtrap": "reject", "sender_malformed": "reject"},
    "spf": {"on_temperror": "defer"},
    "dkim": {"on_temperror": "defer"},
}


def records() -> dict[str, list[str | bytes]]:
    """Those of all tests, with senders at addresses that this machine has."""
    return {
        **zone(),
        "10.0.0.127.in-addr.arpa PTR": [GOOD_NAME],
        f"{GOOD_NAME} A": [GOOD],
        "good.example TXT": [f"v=spf1 ip4:{GOOD} -all"],
        "six.example TXT": ["v=spf1 ip6:::1 -all"],
        "_dmarc.sender.example TXT": ["v=DMARC1; p=reject"],
    }


@dataclass
class Site:
    """What a test talks to."""

    daemon: Daemon
    sendmail: Sendmail
    sink: Sink

    def line(self, *parts: str) -> str:
        """The one line of the daemon's log with all of `parts`."""
        wait_until(lambda: self.daemon.log_lines(*parts), 5, f"a log line with {parts}")
        (line,) = self.daemon.log_lines(*parts)
        return line


def lines_for(daemon: Daemon) -> str:
    """The lines of contrib/sendmail; over TCP with the port of this daemon in place of the usual socket."""
    lines = LINES.read_text()
    assert lines.count(f"unix:{SOCKET}") == 1
    if daemon.family == "inet":
        return lines.replace(f"unix:{SOCKET}", f"inet:{daemon.port}@127.0.0.1")
    return lines


@contextmanager
def running(variant: Variant, sink_port: int, settings: Configuration) -> Iterator[tuple[Daemon, Sendmail]]:
    """Daemon and Sendmail, both up."""
    with (
        Daemon(variant.family, settings) as daemon,
        Sendmail(lines_for(daemon), daemon.folder, sink_port, hosts={GOOD: GOOD_NAME}) as sendmail,
    ):
        yield daemon, sendmail


@pytest.fixture(scope="module", autouse=True)
def _sendmail() -> None:
    require_sendmail()


@pytest.fixture(scope="module")
def local_dns() -> Iterator[DNSServer]:
    faults = {"broken.example": "servfail", "s1._domainkey.broken.example": "servfail"}
    with DNSServer(records(), faults) as server:
        yield server


@pytest.fixture(scope="module")
def one_site(variant: Variant, one_sink: Sink, keys: KeyFiles, local_dns: DNSServer) -> Iterator[Site]:
    settings = configuration(variant, keys, local_dns.address, SETTINGS)
    with running(variant, one_sink.port, settings) as (daemon, sendmail):
        yield Site(daemon, sendmail, one_sink)
        assert daemon.metrics().value("authmilter_check_errors_total", kind="exception") == 0
        assert not daemon.log_lines("Traceback")


@pytest.fixture
def site(one_site: Site, sink: Sink) -> Site:
    """The site of this variant, its sink empty."""
    assert sink is one_site.sink
    return one_site


def send_good(site: Site, marker: str, on_top: bytes = b"", body: bytes = b"Hello\r\n") -> Answer:
    """A message that passes everything."""
    signed = dkim_signed(message(marker, "a@good.example", body=body), "good.example")
    return site.sendmail.send(on_top + signed, mail_from="a@good.example", addr=GOOD, helo=GOOD_NAME)


def results(delivery: Delivery) -> list[tuple[str, str]]:
    """(method, result) of the one Authentication-Results field, in its order."""
    (value,) = delivery.values(AR)
    return re.findall(r";\s*([a-z]+)=([a-z]+)", value.decode())


def without_reference(answer: Answer) -> str:
    """A reply of ours."""
    found = re.fullmatch(r"(.*) \[am-[0-9a-f]+\]", answer.text, re.DOTALL)
    assert found, f"no reference: {answer}"
    return f"{answer.code} {found[1]}"


# -- what comes in -------------------------------------------------------------------------------------------------------


def test_a_good_message_gets_one_field_with_all_results_above_received(site: Site, marker: str) -> None:
    answer = send_good(site, marker)
    assert answer.accepted, answer
    delivery = site.sink.find(marker.encode())
    assert delivery.names()[:5] == [
        b"authentication-results",
        b"x-spam-flag",
        b"x-spam-score",
        b"x-spam-status",
        b"received",
    ]
    assert delivery.values(AR)[0].startswith(b"mx.test;"), "j is our name"
    assert results(delivery) == [
        ("iprev", "pass"),
        ("spf", "pass"),
        ("spf", "pass"),
        ("dkim", "pass"),
        ("dmarc", "pass"),
    ]
    assert "\r\nAuthentication-Results: mx.test;\r\n\tiprev=pass" in "\r\n" + delivery.content.decode()
    assert dkim_verdicts(delivery.content) == [True], "the message itself was changed on its way"


def test_the_log_names_what_sendmail_tells_by_macros(site: Site, marker: str) -> None:
    queue_id = send_good(site, marker).text.split()[1]
    line = site.line(f"queue_id={queue_id} ")
    assert f" client={GOOD} client_name={GOOD_NAME} helo={GOOD_NAME} mail_from=a@good.example " in line


def test_a_client_without_a_confirmed_name_has_none(site: Site, marker: str) -> None:
    assert site.sendmail.send(message(marker, "a@nowhere.test"), mail_from="a@nowhere.test", addr=BAD).accepted
    queue_id = site.sink.find(marker.encode()).values(b"Received")[0].split(b" id ")[1].split()[0].decode()
    assert f' client={BAD} client_name="" ' in site.line(f"queue_id={queue_id} ")


def test_an_ipv6_client_is_known_by_his_address(site: Site, marker: str) -> None:
    assert site.sendmail.send(message(marker, "a@six.example"), mail_from="a@six.example", addr="::1").accepted
    delivery = site.sink.find(marker.encode())
    assert ("spf", "pass") in results(delivery)
    assert b'policy.iprev="::1"' in delivery.values(AR)[0]


FORGED = (
    b"AUTHENTICATION-results: MX.Test; spf=pass smtp.mailfrom=forged\r\n"
    b'Authentication-Results: "mx.test"; dkim=pass header.d=forged\r\n'
    b"Authentication-Results:\r\n\t mx.test;\r\n dmarc=pass header.from=forged\r\n"
    b"Authentication-Results:mx.test; spf=pass smtp.mailfrom=forged\r\n"
    b"Authentication-Results : mx.test; spf=pass smtp.mailfrom=forged\r\n"
    b"Authentication-Results: (a (nested) comment) mx.test (another); iprev=pass policy.iprev=forged\r\n"
    b"X-Spam-Flag: NO forged\r\n"
    b"Authentication-Results: mx.test.; spf=pass smtp.mailfrom=forged\r\n"
)
FOREIGN = b"Authentication-Results: other.example; spf=pass smtp.mailfrom=kept.example\r\n"


@pytest.mark.parametrize("place", ["above", "below", "between"])
def test_forged_result_fields_of_ours_are_removed_and_foreign_ones_stay(site: Site, place: str, marker: str) -> None:
    on_top = {"above": FOREIGN + FORGED, "below": FORGED + FOREIGN, "between": FORGED + FOREIGN + FORGED}[place]
    assert send_good(site, marker, on_top).accepted
    delivery = site.sink.find(marker.encode())
    ours, *others = delivery.values(AR)
    assert ours.startswith(b"mx.test;")
    assert others == [FOREIGN.partition(b":")[2].strip()]
    assert b"forged" not in delivery.content


ODD_SPACES = (
    b"From:a@good.example\r\n"
    b"To:   user@test\r\n"
    b"Subject:\ttwo  blanks, \r\n\tand a fold \r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
    b"X-Folds:\r\n Nothing but \r\n \t folds\r\n"
    b"X-Empty:\r\n"
    b"X-Word:\x20\xc3\xa4\r\n"
)


@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_a_signature_over_odd_spaces_verifies_here_and_at_the_next_hop(site: Site, form: str, marker: str) -> None:
    unsigned = ODD_SPACES + f"Message-ID: <{marker}@good.example>\r\n\r\nHello,\r\n.\r\n\r\n".encode()
    names = [line.partition(b":")[0] for line in unsigned.partition(b"\r\n\r\n")[0].split(b"\r\n") if line[:1] > b" "]
    signature = dkim.sign(
        unsigned, b"s1", b"good.example", rsa_pem(), canonicalize=(form.encode(),) * 2, include_headers=names
    )
    answer = site.sendmail.send(signature + unsigned, mail_from="a@good.example", addr=GOOD, helo=GOOD_NAME)
    assert answer.accepted, answer
    delivery = site.sink.find(marker.encode())
    assert ("dkim", "pass") in results(delivery)
    assert dkim_verdicts(delivery.content) == [True]


def test_a_body_of_many_packets_is_read_whole(site: Site, marker: str) -> None:
    body = b"".join(b"%d %s\r\n" % (number, b"x" * 60) for number in range(6000))
    assert send_good(site, marker, body=body).accepted
    assert ("dkim", "pass") in results(site.sink.find(marker.encode()))


def test_a_bounce_and_an_address_without_brackets_are_understood(site: Site, marker: str) -> None:
    with site.sendmail.smtp(GOOD, GOOD_NAME) as client:
        for number, sender in enumerate(("FROM:<>", "FROM: a@good.example")):
            assert client.docmd("MAIL", sender)[0] == 250
            assert client.docmd("RCPT", "TO: user@test")[0] == 250
            assert client.docmd("DATA")[0] == 354
            assert client.finish(message(f"{number}{marker}", "a@good.example"))[0] == 250
    bounce, other = (site.sink.find(f"{number}{marker}".encode()) for number in range(2))
    assert b"smtp.mailfrom" not in bounce.values(AR)[0]
    assert b"smtp.mailfrom=a@good.example" in other.values(AR)[0]


# -- what is refused -----------------------------------------------------------------------------------------------------


def test_a_violator_of_spf_all_is_refused_at_the_end_of_the_message(site: Site, marker: str) -> None:
    answer = site.sendmail.send(message(marker, "a@strict.example"), mail_from="a@strict.example", addr=BAD)
    assert answer.stage == "eom"
    assert without_reference(answer) == (f"550 5.7.23 SPF fail: {BAD} is not allowed to send mail for strict.example")
    assert not site.sendmail.queue()
    assert not site.sink.deliveries


def test_a_refused_recipient_is_none_and_others_get_the_message(site: Site, marker: str) -> None:
    text = dkim_signed(message("1" + marker, "a@good.example"), "good.example")
    with site.sendmail.smtp(GOOD, GOOD_NAME) as client:
        assert client.docmd("MAIL", "FROM:<a@good.example>")[0] == 250
        code, reply = client.docmd("RCPT", "TO:<trap@test>")
        # Sendmail puts the address before the text at this stage.
        assert without_reference(Answer(code, reply.decode(), "rcpt")) == (
            "550 5.7.1 <trap@test>... Message looks like spam"
        )
        assert client.docmd("RCPT", "TO:<user@test>")[0] == 250
        assert client.docmd("DATA")[0] == 354
        assert client.finish(text)[0] == 250
        assert client.deliver(message("2" + marker, "a@strict.example"), "a@strict.example").code == 550
        assert client.deliver(message("3" + marker, "a@good.example"), "a@good.example").accepted, (
            "the next is judged anew"
        )
    assert site.sink.find(b"1" + marker.encode()).rcpt_tos == ("user@test",)
    site.sink.find(b"3" + marker.encode())


def test_a_reply_with_a_percent_sign_arrives_as_it_is(site: Site, marker: str) -> None:
    sender = f"100%s%n@{'x' * 64}.test"  # a label of 64 octets
    answer = site.sendmail.send(message(marker, "a@good.example"), mail_from=sender, addr=GOOD, helo=GOOD_NAME)
    assert without_reference(answer) == f"501 5.1.7 Sender address is malformed (RFC 5321 section 4.1.2): {sender}"


@pytest.mark.parametrize(
    ("client", "code", "text", "ours"),
    [
        (REFUSED, 554, "mx.test ESMTP not accepting messages", "554 5.7.1 127.0.0.54 may not send mail here;"),
        (DEFERRED, 421, "4.7.0 mx.test closing connection", "421 4.7.0 127.0.0.21 may not send mail here for now,"),
    ],
    ids=["refused", "deferred"],
)
def test_a_client_hears_it_in_place_of_the_greeting_in_words_of_sendmail(
    client: str, code: int, text: str, ours: str, site: Site, marker: str
) -> None:
    before = len(site.daemon.log_lines(ours))
    answer = site.sendmail.send(message(marker, "a@good.example"), mail_from="a@good.example", addr=client)
    assert answer == Answer(code, text, "connect")
    wait_until(lambda: len(site.daemon.log_lines(ours)) == before + 1, 5, "our words in the log")


def test_a_temporary_failure_of_spf_defers_at_mail(site: Site, marker: str) -> None:
    answer = site.sendmail.send(message(marker, "a@broken.example"), mail_from="a@broken.example", addr=BAD)
    assert (answer.code, answer.stage) == (451, "mail")
    assert answer.text.startswith("4.7.24 ")


def test_a_temporary_failure_of_dkim_defers_at_the_end_of_the_message(site: Site, marker: str) -> None:
    text = dkim_signed(message(marker, "a@broken.example"), "broken.example")
    answer = site.sendmail.send(text, mail_from="a@good.example", addr=GOOD, helo=GOOD_NAME)
    assert (answer.code, answer.stage) == (451, "eom")
    assert answer.text.startswith("4.7.")
    assert not site.sendmail.queue()


def test_what_is_to_be_held_stays_in_the_queue_until_it_is_let_go(site: Site, marker: str) -> None:
    answer = site.sendmail.send(message(marker, "a@nowhere.test"), mail_from="a@nowhere.test", addr=HELD)
    assert answer.accepted, answer
    (held,) = site.sendmail.queue()
    assert held.queue_id == answer.text.split()[1]
    assert re.fullmatch(r"authmilter: access_quarantine \[am-[0-9a-f]+\]", held.quarantined)
    assert not site.sink.deliveries
    assert held.quarantined in site.sendmail.mailq("-qQ")
    site.sendmail.release(held.queue_id)
    delivery = site.sink.find(marker.encode())
    assert delivery.values(b"X-Spam-Flag") == [b"YES"]
    assert delivery.values(AR)[0].startswith(b"mx.test;")
    wait_until(lambda: not site.sendmail.queue(), 5, "an empty queue")


# -- what goes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["alice", ""], ids=["logged in", "internal"])
def test_mail_of_ours_leaves_with_two_valid_signatures(login: str, site: Site, marker: str) -> None:
    unsigned = message(marker, "alice@sender.example", on_top=FOREIGN + b"Authentication-Results: mx.test; none\r\n")
    answer = site.sendmail.send(unsigned, mail_from="alice@strict.example", rcpts=["b@good.example"], login=login)
    assert answer.accepted, answer
    delivery = site.sink.find(marker.encode())
    signatures = delivery.values(b"DKIM-Signature")
    assert sorted(re.findall(rb"\ba=([a-z0-9-]+)", b" ".join(signatures))) == [b"ed25519-sha256", b"rsa-sha256"]
    assert delivery.names()[:2] == [b"dkim-signature"] * 2
    assert dkim_verdicts(delivery.content) == [True, True]
    assert dkim_verdicts(delivery.content.replace(b"world", b"w0rld")) == [False, False]
    assert len(delivery.values(AR)) == 1, "our own mail is not verified, and nobody speaks in our name"
    line = site.line(f"queue_id={answer.text.split()[1]} ")
    assert (" auth_user=alice " in line) is bool(login)


def test_a_wrong_password_is_no_login(site: Site) -> None:
    with site.sendmail.smtp(login="alice") as client:
        assert client.docmd("RSET")[0] == 250
    with site.sendmail.smtp() as client:
        assert not client.has_extn("auth") or client.docmd("AUTH", "PLAIN AGFsaWNlAHdyb25n")[0] == 535


@pytest.mark.parametrize("missing", [b"Date", b"Message-ID", b"To", b"MIME-Version"])
def test_a_signature_survives_the_fields_that_sendmail_adds(site: Site, missing: bytes, marker: str) -> None:
    text = message(marker, "alice@sender.example", on_top=b"X-Marker: " + marker.encode() + b"\r\n")
    text = re.sub(rb"(?m)^" + missing + rb":.*\r\n", b"", text)
    assert site.sendmail.send(text, mail_from="alice@sender.example", login="alice").accepted
    delivery = site.sink.find(marker.encode())
    assert dkim_verdicts(delivery.content) == [True, True]
    if missing in (b"Date", b"Message-ID"):
        assert len(delivery.values(missing)) == 1, "Sendmail added it"


def test_a_signature_survives_what_sendmail_makes_of_addresses(site: Site, marker: str) -> None:
    written = {**{what: case[0] for what, case in CASES.items()}, **SAME, **UNFORESEEN}
    written["very many addresses"] = VERY_MANY
    with site.sendmail.smtp(login="alice") as client:
        for number, addresses in enumerate(written.values()):
            text = message(f"{number}-{marker}", "alice@sender.example")
            text = text.replace(b"To: user@test", f"Cc: {addresses}\r\nTo: {addresses}".encode())
            assert client.deliver(text, "alice@sender.example").accepted
    broken = {}
    for number, what in enumerate(written):
        delivery = site.sink.find(f"Subject: {number}-{marker}\r".encode())
        if dkim_verdicts(delivery.content) != [True, True]:
            broken[what] = delivery.values(b"To")[0]
        (signed, _) = (
            re.findall(rb"(?i)[a-z-]+", value.split(b"h=")[1].split(b";")[0])
            for value in delivery.values(b"DKIM-Signature")
        )
        assert {b"From", b"Subject"} <= set(signed)
        assert (b"To" in signed) is (b"Cc" in signed) is (what in CASES or what in SAME), what
        if what in CASES:
            assert b" ".join(delivery.values(b"To")[0].split()).decode() == CASES[what][1].replace("\r\n", "")
    assert not broken


PIECES = [
    "a@x.test", "<a@x.test>", "<b.c@y.test>", "A", "B.", "J. R.", "O'B", ",", ", ", ";", ":", ": ", "(c)", "(c (d))", " (e)",
    '"q"', '"q, r."', '"a\\"b"', " ", "  ", "\r\n ", "@", "[x]", "\\b", "=?utf-8?Q?a=2E?=", "ö", "Ä.", "Team: ", "T.:", "<",
    "x.test", "!", "%", "'", '"a b"@x.test', "a@[192.0.2.1]", "$x", "(a, b)", '(")', "Long name of " * 20,
]  # fmt: skip


def foreseen_forms(number: int) -> list[bytes]:
    """So many that are thrown together, and of which it is said what Sendmail will make of them."""
    dice = random.Random(number)
    found: dict[bytes, None] = {}
    while len(found) < number:
        text = "".join(dice.choices(PIECES, k=dice.randint(1, 7))).strip()
        if all(line.strip() for line in text.split("\r\n")) and rewrite(text.encode()) is not None:
            found[text.encode()] = None
    return list(found)


def test_what_is_foreseen_is_what_sendmail_sends(tmp_path: Path, sink: Sink, marker: str) -> None:
    tmp_path.chmod(0o755)
    forms = foreseen_forms(300)
    wrong = {}
    with Sendmail("", tmp_path, sink.port) as sendmail:
        with sendmail.smtp(login="alice") as client:
            for number, form in enumerate(forms):
                text = message(f"{number}-{marker}", "alice@sender.example").replace(b"To: user@test", b"To: " + form)
                assert client.deliver(text, "alice@sender.example").accepted
        for number, form in enumerate(forms):
            (sent,) = sink.find(f"Subject: {number}-{marker}\r".encode()).values(b"To")
            expected = rewrite(form)
            assert expected is not None
            if relaxed_field(HeaderField(b"To", sent)) != relaxed_field(HeaderField(b"To", expected)):
                wrong[form] = sent
    assert not wrong


AUTHORS = {
    "dots": "Dr. A. O'Hara <alice@sender.example>",
    "no name": "alice@sender.example",
    "a comment": "alice@sender.example(Alice)",
    "a comment in front": "(Alice)alice@sender.example",
    "two authors": "A. B. <alice@sender.example>,C <c@sender.example>",
    "a name of many words": "Long " * 60 + "<alice@sender.example>",
    "many encoded words": "=?utf-8?B?QUJDREVGR0hJSktMTU5PUFFSU1RVVldY?=\r\n " * 7 + "<alice@sender.example>",
    "a quoted name": '"Doe, A. \\"J\\"" <alice@sender.example>',
    "UTF-8": "Alice Müller-Lüdenscheidt (München) <alice@sender.example>",
}


def test_a_signature_survives_what_sendmail_makes_of_authors(site: Site, marker: str) -> None:
    with site.sendmail.smtp(login="alice") as client:
        for number, author in enumerate(AUTHORS.values()):
            text = message(f"{number}-{marker}", "alice@sender.example")
            text = text.replace(b"From: Somebody <alice@sender.example>", f"From: {author}".encode())
            assert client.deliver(text, "alice@sender.example").accepted
    found = {
        what: dkim_verdicts(site.sink.find(f"Subject: {number}-{marker}\r".encode()).content)
        for number, what in enumerate(AUTHORS)
    }
    assert found == {what: [True, True] for what in AUTHORS}


def test_local_submission_is_signed_and_never_refused(site: Site, marker: str) -> None:
    answers = site.sendmail.submit_locally("cron@strict.example", "user@test", message(marker, "cron@sender.example"))
    assert answers[-1][0] == 250, answers
    delivery = site.sink.find(marker.encode())
    assert delivery.mail_from == "cron@strict.example"
    assert dkim_verdicts(delivery.content) == [True, True]
    assert ' client="" ' in site.line("mail_from=cron@strict.example", f"queue_id={answers[-1][1].split()[2]} ")


def test_signatures_verify_at_another_server_with_authmilter(
    variant: Variant, sink: Sink, keys: KeyFiles, local_dns: DNSServer, marker: str
) -> None:
    """Sendmail that signs, then Postfix that verifies, one of the engines each."""
    other = Variant({"native": "libmilter", "libmilter": "native"}[variant.engine], variant.family)
    verifying = configuration(
        other,
        keys,
        local_dns.address,
        {"networks": {"internal": "192.0.2.250"}},
    )
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(other.family, verifying))
        postfix = stack.enter_context(Postfix([daemon.address], sink.port, {"myhostname": "second.test"}))
        signing = configuration(variant, keys, local_dns.address, SETTINGS)
        _, sendmail = stack.enter_context(running(variant, postfix.port, signing))
        answer = sendmail.send(message(marker, "alice@sender.example"), mail_from="alice@sender.example", login="alice")
        assert answer.accepted, answer
        delivery = sink.find(marker.encode())
    found = results(delivery)
    assert delivery.values(AR)[0].startswith(b"second.test;")
    assert [result for method, result in found if method == "dkim"] == ["pass", "pass"]


# -- the lines -----------------------------------------------------------------------------------------------------------


def test_without_a_daemon_clients_are_told_to_come_again(tmp_path: Path, sink: Sink, marker: str) -> None:
    tmp_path.chmod(0o755)
    with Sendmail(LINES.read_text(), tmp_path, sink.port) as sendmail:
        answer = sendmail.send(message(marker, "a@good.example"), mail_from="a@good.example", addr=GOOD)
        assert answer.code == 451, answer
        assert answer.text.startswith("4.3.2 Please try again later")
    assert not sink.deliveries


def test_the_daemon_prints_the_same_line_for_its_own_socket(site: Site) -> None:
    (printed,) = [line.strip() for line in site.daemon.log().splitlines() if "INPUT_MAIL_FILTER" in line]
    (line,) = [line for line in LINES.read_text().splitlines() if line.startswith("INPUT_MAIL_FILTER")]
    assert re.sub(r"S=[^,]*", "", printed) == re.sub(r"S=[^,]*", "", line)
