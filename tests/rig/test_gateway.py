"""Postfix with authmilter in front of a real Exim, by the lines of contrib/gateway."""

import configparser
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest

from tests.dnsserver import DNSServer
from tests.rig.daemon import Configuration, Daemon
from tests.rig.exim import LINES, Exim, behind_gateway, require_exim
from tests.rig.mail import BAD_IP, GOOD_IP, GOOD_NAME, KeyFiles, dkim_signed, message, zone
from tests.rig.postfix import Answer, Client, Postfix
from tests.rig.sink import Delivery, Sink
from tests.rig.sockets import wait_until
from tests.shared import ROOT

DOMAIN = "example.org"  # that of the examples
SOCKET = "unix:authmilter/authmilter.sock"  # below the queue directory


@dataclass
class Gateway:
    """What a test talks to; `elsewhere` takes what leaves."""

    daemon: Daemon
    postfix: Postfix
    exim: Exim
    elsewhere: Sink

    def send(self, text: bytes, mail_from: str, rcpt: str = f"user@{DOMAIN}", addr: str = GOOD_IP) -> Answer:
        """A message from outside."""
        name = GOOD_NAME if addr == GOOD_IP else ""
        return self.postfix.send(
            text, mail_from=mail_from, rcpts=[rcpt], addr=addr, name=name, helo=name or "client.test"
        )


def main_cf(folder: Path, daemon: Daemon, exim_port: int) -> dict[str, str]:
    """The lines for main.cf, the tables and the server behind at places that a test may use."""
    table = (LINES / "gateway").read_text()
    assert table.count("[192.0.2.25]:25") == 1
    (folder / "gateway").write_text(table.replace("[192.0.2.25]:25", f"[127.0.0.1]:{exim_port}"))
    text = (LINES / "main.cf").read_text()
    assert text.count(SOCKET) == 1
    text = text.replace(SOCKET, daemon.address).replace("/etc/postfix/", f"{folder}/")
    pairs = [line.partition("=")[::2] for line in text.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def ini(keys: KeyFiles, nameserver: str) -> Configuration:
    """The example of authmilter.ini, with a key that is there."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((LINES / "authmilter.ini").read_text())
    settings: dict[str, dict[str, object]] = {name: dict(parser[name]) for name in parser.sections()}
    package = configparser.ConfigParser(interpolation=None)
    package.read_string((ROOT / "packaging/authmilter.ini").read_text())
    # The daemon of the package may make no other, nor give it another group.
    assert settings.pop("milter") == {"socket": package["milter"]["socket"]}
    assert package["milter"]["socket"] == SOCKET.replace("unix:", "unix:/var/spool/postfix/")
    settings[f"sign {DOMAIN}"]["key_file"] = keys.rsa
    return {**settings, "dns": {"nameservers": nameserver}}


@pytest.fixture(scope="module", autouse=True)
def _exim() -> None:
    require_exim()


@pytest.fixture(scope="module")
def gateway_dns() -> Iterator[DNSServer]:
    records: dict[str, list[str | bytes]] = {
        **zone(),
        f"{DOMAIN} TXT": ["v=spf1 ip4:127.0.0.1 -all"],
        f"_dmarc.{DOMAIN} TXT": ["v=DMARC1; p=reject"],
        f"s2026._domainkey.{DOMAIN} TXT": zone()["r._domainkey.sender.example TXT"],
        "doubtful.example TXT": ["v=spf1 ip4:192.0.2.77 ~all"],
        "_dmarc.doubtful.example TXT": ["v=DMARC1; p=quarantine"],
    }
    with DNSServer(records) as server:
        yield server


@pytest.fixture(scope="module")
def one_gateway(one_sink: Sink, keys: KeyFiles, gateway_dns: DNSServer) -> Iterator[Gateway]:
    folder = Path(tempfile.mkdtemp(prefix="authmilter-gateway-"))
    folder.chmod(0o755)  # the user postfix reads the tables
    try:
        with Daemon("unix", ini(keys, gateway_dns.address)) as daemon:
            postfix = Postfix([daemon.address], one_sink.port)
            with behind_gateway(DOMAIN, postfix.port) as exim:
                postfix.settings.update(main_cf(folder, daemon, exim.port))
                with postfix:
                    yield Gateway(daemon, postfix, exim, one_sink)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def gateway(one_gateway: Gateway, sink: Sink) -> Gateway:
    """The gateway, nothing yet elsewhere."""
    assert sink is one_gateway.elsewhere
    return one_gateway


def received(text: bytes) -> Delivery:
    """A message as Exim keeps it."""
    return Delivery("", (), text)


def test_a_message_arrives_behind_with_our_results_and_its_own_signature(gateway: Gateway, marker: str) -> None:
    forged = b"Authentication-Results: mx.test; spf=pass smtp.mailfrom=forged\r\n"
    signed = dkim_signed(message(marker, "a@good.example"), "good.example")
    assert gateway.send(forged + signed, "a@good.example").accepted
    delivery = received(gateway.exim.find(marker))
    (results,) = delivery.values(b"Authentication-Results")
    assert results.startswith(b"mx.test;")
    for method in (b"iprev", b"spf", b"dkim", b"dmarc"):
        assert method + b"=pass" in results
    assert delivery.values(b"X-Spam-Flag") == [b"NO"]
    assert delivery.content.endswith(signed), "as it was signed"


def test_a_recipient_whom_the_server_behind_does_not_know_is_refused_in_front(gateway: Gateway, marker: str) -> None:
    text = dkim_signed(message(marker, "a@good.example"), "good.example")
    for _ in range(2):  # asked, then remembered
        answer = gateway.send(text, "a@good.example", f"nobody@{DOMAIN}")
        assert (answer.code, answer.stage) == (550, "rcpt")
        assert "Address unknown" in answer.text
    assert not gateway.postfix.queue(), "and no bounce is to be sent"
    assert not gateway.elsewhere.deliveries
    assert len(re.findall(rf"rejected RCPT <nobody@{DOMAIN}>", gateway.exim.log())) == 2  # reject log and main log


def test_what_is_refused_in_front_is_never_seen_behind(gateway: Gateway, marker: str) -> None:
    answer = gateway.send(message(marker, "ceo@bank.example"), "ceo@bank.example", addr=BAD_IP)
    assert (answer.code, answer.stage) == (550, "eom")
    assert "DMARC" in answer.text
    answer = gateway.send(message(marker, f"ceo@{DOMAIN}"), f"ceo@{DOMAIN}", addr=BAD_IP)
    assert answer.code == 550, "nobody outside writes in our name"
    assert "ceo@" not in gateway.exim.log()
    assert not gateway.postfix.queue()


def test_what_is_tagged_in_front_is_put_aside_behind(gateway: Gateway, marker: str) -> None:
    assert gateway.send(message(marker, "a@doubtful.example"), "a@doubtful.example", addr=BAD_IP).accepted
    delivery = received(gateway.exim.find(marker, "junk"))
    assert delivery.values(b"X-Spam-Flag") == [b"YES"]
    assert b"dmarc=fail" in delivery.values(b"Authentication-Results")[0]


def test_strangers_can_not_send_to_elsewhere(gateway: Gateway, marker: str) -> None:
    answer = gateway.send(message(marker, "a@good.example"), "a@good.example", "x@elsewhere.test")
    assert answer.stage == "rcpt"
    assert "Relay access denied" in answer.text


def test_mail_of_the_users_behind_leaves_signed(gateway: Gateway, marker: str) -> None:
    gateway.exim.submit(message(marker, f"alice@{DOMAIN}"), f"alice@{DOMAIN}", "b@elsewhere.test")
    delivery = gateway.elsewhere.find(marker.encode())
    assert delivery.mail_from == f"alice@{DOMAIN}"
    assert not delivery.values(b"Authentication-Results")
    (signature,) = delivery.values(b"DKIM-Signature")
    assert f"d={DOMAIN};".encode() in signature
    verifier = dkim.DKIM(delivery.content)
    record = zone()["r._domainkey.sender.example TXT"][0]
    assert isinstance(record, str)
    assert verifier.verify(dnsfunc=lambda name, timeout=5: record.encode())


def test_only_the_gateway_brings_mail_to_the_server_behind(gateway: Gateway, marker: str) -> None:
    with Client("127.0.0.1", gateway.exim.port, source_address=("127.0.0.2", 0), timeout=10) as client:
        client.ehlo()
        answer = client.deliver(message(marker, "a@good.example"), "a@good.example", [f"user@{DOMAIN}"])
    assert answer == Answer(550, "Please use the MX of this domain", "rcpt")


def test_while_the_server_behind_is_down_mail_for_known_users_waits_here(gateway: Gateway, marker: str) -> None:
    text = dkim_signed(message(marker, "a@good.example"), "good.example")
    before = dkim_signed(message("before" + marker, "a@good.example"), "good.example")
    assert gateway.send(before, "a@good.example").accepted
    gateway.exim.find("before" + marker)
    gateway.exim.stop()
    try:
        assert gateway.send(text, "a@good.example").accepted
        wait_until(
            lambda: [entry["queue_name"] for entry in gateway.postfix.queue()] == ["deferred"], 10, "a deferred message"
        )
        answer = gateway.send(text, "a@good.example", f"alice@{DOMAIN}")
        assert (answer.code, answer.stage) == (450, "rcpt"), "nobody asked for her before"
    finally:
        gateway.exim.start()
    gateway.postfix.flush()
    gateway.exim.find(marker + "\r\n")
    wait_until(lambda: not gateway.postfix.queue(), 10, "an empty queue")
