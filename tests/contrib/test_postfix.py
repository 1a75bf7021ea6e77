"""contrib/postfix: a real Postfix from the lines of the page, with mail for each of them."""

import re
import shlex
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.contrib.mta import DovecotLogins, PagePostfix, certificate, other_milter, replaced, valid_signatures
from tests.contrib.page import blocks, configuration, merged, settings, text_for
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.mail import BAD_IP, GOOD_IP, GOOD_NAME, KeyFiles, dkim_signed, message, zone
from tests.rig.postfix import Answer, require_rig
from tests.rig.sink import Delivery, Sink
from tests.rig.sockets import free_port, wait_until
from tests.shared import ROOT

PAGE = ROOT / "contrib/postfix/README.md"
BLOCKS = blocks(PAGE)
MAIN, MASTER, INI = "/etc/postfix/main.cf", "/etc/postfix/master.cf", "/etc/authmilter/authmilter.ini"
BASE = settings(text_for(BLOCKS, "The lines that everybody needs", MAIN))
SPOOL = "/var/spool/postfix"
KEY = {"s2026._domainkey.example.org": ""}
ALICE = "alice@example.org"
AR = b"Authentication-Results"


@pytest.fixture(scope="module", autouse=True)
def _rig() -> None:
    require_rig()


@pytest.fixture(scope="module")
def dns() -> Iterator[DNSServer]:
    with DNSServer(zone()) as server:
        yield server


@dataclass
class Site:
    """What a test talks to."""

    postfix: PagePostfix
    sink: Sink
    daemon: Daemon | None

    def receive_good(self, marker: str, author: str = "a@good.example") -> Answer:
        """A message of a stranger that passes everything."""
        text = dkim_signed(message(marker, author), "good.example")
        return self.postfix.send(text, mail_from=author, addr=GOOD_IP, name=GOOD_NAME, helo=GOOD_NAME)

    def log_has(self, text: str) -> None:
        """Wait until Postfix logged it."""
        wait_until(lambda: text in self.postfix.log(), 5, f"{text} in\n{self.postfix.log()}")


@dataclass
class Workshop:
    """Starts sites."""

    sink: Sink
    keys: KeyFiles
    nameserver: str

    @contextmanager
    def site(
        self,
        main: dict[str, str],
        master: str = "",
        *,
        chroot: bool = True,
        daemon: bool = True,
        **ini: dict[str, object],
    ) -> Iterator[Site]:
        """Postfix with the lines that everybody needs and those given; authmilter with those of the page, unless it is down."""
        with ExitStack() as stack:
            postfix = stack.enter_context(
                PagePostfix(self.sink.port, BASE | main, master, chroot=chroot, place=self.make_folder)
            )
            running = None
            if daemon:
                running = stack.enter_context(Daemon("unix", self.configuration(postfix, ini)))
            yield Site(postfix, self.sink, running)

    def configuration(
        self, postfix: PagePostfix, changes: dict[str, dict[str, object]]
    ) -> dict[str, dict[str, object]]:
        text = text_for(BLOCKS, "The lines that everybody needs", INI)
        lines = configuration(
            replaced(
                text,
                {SPOOL: str(postfix.queue_folder), "/etc/authmilter/keys/example.org.s2026.pem": str(self.keys.rsa)},
            )
        )
        # That the folder gives the socket its group is a claim of the page.
        own: dict[str, dict[str, object]] = {"milter": {"socket_group": ""}, "dns": {"nameservers": self.nameserver}}
        return merged(own, lines, changes)

    @staticmethod
    def make_folder(queue: Path) -> None:
        """By the command of the page; as root, since the user authmilter is not here."""
        (text,) = [b.text for b in BLOCKS if b.heading == "The path of the socket, and the chroot"]
        command = replaced(text.removeprefix("# "), {SPOOL: str(queue), "-o authmilter": "-o root"})
        subprocess.run(shlex.split(command), check=True)


@pytest.fixture
def workshop(sink: Sink, keys: KeyFiles, dns: DNSServer) -> Workshop:
    return Workshop(sink, keys, dns.address)


def signers(delivery: Delivery) -> list[str]:
    return valid_signatures(delivery.content, KEY)


# -- the lines that everybody needs, and the chroot ----------------------------------------------------------------------


@pytest.mark.parametrize("chroot", [True, False], ids=["chroot", "no chroot"])
def test_mail_of_all_ways_is_examined_or_signed_with_one_relative_path(
    workshop: Workshop, marker: str, chroot: bool
) -> None:
    more = {
        "myorigin": "mx.example.org",
        "transport_maps": "inline:{ {refused.example = error:5.1.1 nobody here} }",
    }
    with workshop.site(more, chroot=chroot) as site:
        assert site.receive_good("smtp" + marker).accepted
        delivery = site.sink.find(b"smtp" + marker.encode())
        assert b"dmarc=pass" in delivery.values(AR)[0]
        assert not [d for d in signers(delivery) if d == "example.org"]

        site.postfix.submit_locally(message("command" + marker, ALICE), ALICE, "user@test")
        assert signers(site.sink.find(b"command" + marker.encode())) == ["example.org"]

        site.postfix.submit_locally(message("bounced" + marker, ALICE), ALICE, "x@refused.example")
        bounce = site.sink.find(b"bounced" + marker.encode())
        assert bounce.mail_from == "<>"
        assert b"<MAILER-DAEMON@mx.example.org>" in bounce.values(b"From")[0]
        assert signers(bounce) == ["example.org"]


def test_an_absolute_path_is_not_found_from_within_the_chroot(workshop: Workshop, marker: str) -> None:
    text = PAGE.read_text()
    assert "`unix:/run/authmilter/authmilter.sock` does not work in a chroot" in text
    with (
        Daemon("unix", {"dns": {"nameservers": workshop.nameserver}}) as outside,
        workshop.site({"smtpd_milters": f"unix:{outside.unix_path}"}, daemon=False) as site,
    ):
        assert site.receive_good(marker).code == 451
        site.log_has(f"connect to Milter service unix:{outside.unix_path}: No such file or directory")


def test_tcp_needs_no_folder(workshop: Workshop, marker: str) -> None:
    # The two lines stand in the text.
    (theirs,) = re.findall(r"`smtpd_milters = (inet:127\.0\.0\.1:8891)`", PAGE.read_text())
    (ours,) = re.findall(r"`socket = (inet:8891@127\.0\.0\.1)`", PAGE.read_text())
    port = str(free_port())
    milter: dict[str, object] = {"socket": ours.replace("8891", port)}
    with workshop.site({"smtpd_milters": theirs.replace("8891", port)}, milter=milter) as site:
        assert site.receive_good(marker).accepted
        assert site.sink.find(marker.encode()).values(AR)


# -- submission ----------------------------------------------------------------------------------------------------------


@dataclass
class Submission:
    """Port 587 of a site."""

    port: int

    def send(self, text: bytes, password: str = "secret") -> None:
        """As alice, over TLS."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
            client.starttls(context=context)
            if password:
                client.login("alice", password)
            client.sendmail(ALICE, ["user@test"], text)


@contextmanager
def submission(workshop: Workshop, main: dict[str, str], more_lines: str = "") -> Iterator[tuple[Site, Submission]]:
    """A site with the submission service of the page."""
    port = free_port()
    lines = text_for(BLOCKS, "Your users: submission", MASTER)
    master = replaced(lines, {"submission inet": f"127.0.0.1:{port} inet"}) + more_lines
    with tempfile.TemporaryDirectory() as folder:
        cert, key = certificate(Path(folder), "mx.test")
        tls = {"smtpd_tls_cert_file": str(cert), "smtpd_tls_key_file": str(key)}
        with workshop.site(tls | main, master) as site:
            logins = DovecotLogins(site.postfix.queue_folder / "private/auth")
            try:
                yield site, Submission(port)
            finally:
                logins.close()


def test_a_user_who_logged_in_is_signed_for_and_not_verified(workshop: Workshop, marker: str) -> None:
    with submission(workshop, {"mynetworks": ""}) as (site, port):
        port.send(message(marker, ALICE))
        delivery = site.sink.find(marker.encode())
        assert signers(delivery) == ["example.org"]
        assert not delivery.values(AR)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            port.send(message(marker, ALICE), "wrong")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            port.send(message(marker, ALICE), "")


def test_the_name_of_the_daemon_makes_nobody_a_user(workshop: Workshop, marker: str) -> None:
    with workshop.site({"milter_macro_daemon_name": "ORIGINATING"}) as site:
        assert site.postfix.send(message(marker, ALICE), mail_from=ALICE, addr=BAD_IP).accepted
        delivery = site.sink.find(marker.encode())
        assert not delivery.values(b"DKIM-Signature")
        assert delivery.values(AR)


# -- while authmilter is down --------------------------------------------------------------------------------------------

# value -> answer to a client, and where mail of the sendmail command is then
DOWN = {
    "tempfail": (451, "waiting"),
    "accept": (250, "delivered"),
    "quarantine": (250, "hold"),
    "reject": (554, "waiting"),
}


@pytest.mark.parametrize("action", DOWN)
def test_default_action_is_what_the_table_says(workshop: Workshop, marker: str, action: str) -> None:
    code, place = DOWN[action]
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{action}` |"))
    with workshop.site({"milter_default_action": action}, daemon=False) as site:
        answer = site.receive_good("smtp" + marker)
        assert answer.code == code, answer
        if code >= 400:
            assert f"| {code} " in row
        site.postfix.submit_locally(message("command" + marker, ALICE), ALICE, "user@test")
        if place == "delivered":
            delivery = site.sink.find(b"command" + marker.encode())
            assert not delivery.values(b"DKIM-Signature")
            assert site.sink.find(b"smtp" + marker.encode())
        elif place == "hold":
            wait_until(lambda: [e["queue_name"] for e in site.postfix.queue()] == ["hold", "hold"], 10, "two on hold")
            (command,) = re.findall(r"`(postsuper -H ALL)`", row)
            program, *arguments = command.split()
            site.postfix._run(program, *arguments)
            site.postfix.flush()
            site.sink.wait(2)
        else:
            site.log_has("milter-reject: ")
            assert not site.sink.deliveries
            with Daemon("unix", workshop.configuration(site.postfix, {})):
                site.postfix.flush()
                delivery = site.sink.find(b"command" + marker.encode(), 90)
                assert signers(delivery) == ["example.org"]


def test_postfix_before_3_11_does_not_know_shutdown(workshop: Workshop, marker: str) -> None:
    with workshop.site({"milter_default_action": "shutdown"}, daemon=False) as site:
        if "version 3.1" in site.postfix.log():
            pytest.skip("this Postfix may be one that knows it")
        answer = site.receive_good(marker)
        assert answer.code == 451
        assert answer.text.startswith("4.3.5")
        site.log_has("unrecognized default action: shutdown")
        with Daemon("unix", workshop.configuration(site.postfix, {})):
            assert site.receive_good(marker).accepted


# -- others --------------------------------------------------------------------------------------------------------------


def test_several_milters_see_what_those_before_them_did(workshop: Workshop, marker: str) -> None:
    main = text_for(BLOCKS, "Several milters", MAIN)
    with other_milter() as port:
        changes = {"127.0.0.1:8892": f"127.0.0.1:{port}"}
        exchanged = next(b for b in BLOCKS if b.heading == "Several milters" and b.file == MASTER)
        line = "  " + replaced(exchanged.text, changes)
        with submission(workshop, settings(replaced(main, changes)), line) as (site, users):
            assert site.receive_good("in" + marker).accepted
            saw = site.sink.find(b"in" + marker.encode()).values(b"X-Other-Saw")[0].split()
            assert AR in saw
            assert b"X-Spam-Flag" in saw

            users.send(message("rewrite" + marker, ALICE))
            delivery = site.sink.find(b"rewrite" + marker.encode())
            assert delivery.content.endswith(b"\r\n\r\nAnother text.\r\n")
            assert b"DKIM-Signature" not in delivery.values(b"X-Other-Saw")[0].split()
            assert signers(delivery) == ["example.org"]


def test_a_list_has_a_default_action_for_each(workshop: Workshop, marker: str) -> None:
    main = text_for(BLOCKS, "Several milters", MAIN)
    changes = settings(replaced(main, {"127.0.0.1:8892": f"127.0.0.1:{free_port()}"}))
    with workshop.site(changes) as site:
        assert site.receive_good(marker).accepted
        assert site.sink.find(marker.encode()).values(AR), "the other one is down, ours is asked"
    with other_milter() as port:
        changes = settings(replaced(main, {"127.0.0.1:8892": f"127.0.0.1:{port}"}))
        with workshop.site({**changes, "milter_default_action": "accept"}, daemon=False) as site:
            assert site.receive_good(marker).code == 451, "ours is down"


class Filter:
    """A content filter in the place of amavis: adds a field, gives the message back."""

    def __init__(self, port: int, back: int) -> None:
        self._back = back
        self.seen: list[Delivery] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=port, decode_data=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's
        content = envelope.content
        assert isinstance(content, bytes)
        self.seen.append(Delivery(envelope.mail_from or "", tuple(envelope.rcpt_tos), content))
        with smtplib.SMTP("127.0.0.1", self._back, timeout=20) as client:
            client.sendmail(envelope.mail_from or "", envelope.rcpt_tos, b"X-Virus-Scanned: yes\r\n" + content)
        return "250 filtered"

    def __enter__(self) -> "Filter":
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


HEADING = "Content filters: amavis and others after the queue"


@contextmanager
def filtered(workshop: Workshop, without: str = "") -> Iterator[tuple[Site, Filter]]:
    """A site with a content filter by the lines of the page, `without` some of them."""
    there, back = free_port(), free_port()
    main = settings(replaced(text_for(BLOCKS, HEADING, MAIN), {":10024": f":{there}"}))
    master = replaced(text_for(BLOCKS, HEADING, MASTER), {"127.0.0.1:10025 ": f"127.0.0.1:{back} "})
    if without:
        master = replaced(master, {without: ""})
    with Filter(there, back) as content_filter, workshop.site(main, master) as site:
        yield site, content_filter


def test_a_content_filter_finds_results_and_each_message_is_examined_once(workshop: Workshop, marker: str) -> None:
    with filtered(workshop) as (site, content_filter):
        assert site.receive_good("in" + marker).accepted
        delivery = site.sink.find(b"in" + marker.encode())
        assert delivery.values(b"X-Virus-Scanned")
        assert len(delivery.values(AR)) == 1
        assert content_filter.seen[0].values(AR)
        assert content_filter.seen[0].values(b"X-Spam-Flag")

        site.postfix.submit_locally(message("out" + marker, ALICE), ALICE, "user@test")
        assert signers(site.sink.find(b"out" + marker.encode())) == ["example.org"]
        assert site.daemon is not None
        assert len(site.daemon.log_lines("queue_id=")) == 2


def test_without_no_milters_on_the_way_back_strangers_are_signed_for(workshop: Workshop, marker: str) -> None:
    with filtered(workshop, "no_milters,") as (site, _):
        assert site.postfix.send(message(marker, ALICE), mail_from=ALICE, addr=BAD_IP).accepted
        delivery = site.sink.find(marker.encode())
        assert signers(delivery) == ["example.org"], "why the page warns"
        assert not delivery.values(AR)


def test_clients_of_the_map_pass_by(workshop: Workshop, marker: str) -> None:
    heading = "Clients that are not examined"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        table = Path(folder) / "milter_map"
        table.write_text(text_for(BLOCKS, heading, "/etc/postfix/milter_map"))
        main = replaced(text_for(BLOCKS, heading, MAIN), {"/etc/postfix/milter_map": str(table)})
        with workshop.site(settings(main)) as site:
            for address, examined in (("192.0.2.17", False), ("192.0.2.40", True)):
                text = message(address + marker, "a@nowhere.example")
                assert site.postfix.send(text, mail_from="a@nowhere.example", addr=address).accepted
                assert bool(site.sink.find(f"{address}{marker}".encode()).values(AR)) == examined
