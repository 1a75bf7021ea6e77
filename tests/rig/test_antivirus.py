"""Malware through a real Postfix and a real clamd: refused, held, and what becomes of mail while clamd is away."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.dnsserver import DNSServer
from tests.rig.mail import GOOD_IP, GOOD_NAME, KeyFiles, dkim_signed
from tests.rig.postfix import Answer
from tests.rig.sink import Sink
from tests.rig.site import Site, Variant, configuration, running
from tests.rig.sockets import wait_until
from tests.scanner_servers import EICAR, Clamd

FOUND = "5.7.1 Message contains malware: Eicar-Test.UNOFFICIAL ["
UNSCANNED = "4.7.1 Message could not be scanned for malware for now, please try again later ["


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    """One for all tests of this file; each leaves it running."""
    with Clamd() as server:
        yield server


def attachment(marker: str, content: bytes, first: bytes = b"") -> bytes:
    """A message with an attachment; `first` is a whole field above all others."""
    return (
        first
        + (
            f"From: Somebody <a@good.example>\r\nTo: user@test\r\nSubject: {marker}\r\n"
            f"Date: Sun, 01 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{marker}@good.example>\r\nMIME-Version: 1.0\r\n"
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n"
            "Content-Type: application/octet-stream; name=report.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        ).encode()
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        + b"\r\n--b--\r\n"
    )


@contextmanager
def scanning(
    variant: Variant, sink: Sink, keys: KeyFiles, dns: DNSServer, clamd: Clamd, **options: object
) -> Iterator[Site]:
    """A site that scans; `options` are those of [antivirus], `first` is asked before, `found` what is done about malware."""
    found = options.pop("found", "reject")
    servers = [options.pop("first", ""), clamd.socket if variant.family == "unix" else clamd.tcp]
    changes: dict[str, dict[str, object]] = {
        "antivirus": {"clamd": ", ".join(str(server) for server in servers if server), **options},
        "scores": {"antivirus_found": found, "outbound_antivirus_found": found},
    }
    with running(variant, sink, configuration(variant, keys, dns.address, changes)) as site:
        yield site


def send(site: Site, message: bytes, login: str = "") -> Answer:
    """By a client that does everything right, or by a user of ours."""
    if login:
        return site.postfix.send(message, mail_from="a@sender.example", addr="203.0.113.66", login=login)
    signed = dkim_signed(message, "good.example")
    return site.postfix.send(signed, mail_from="a@good.example", addr=GOOD_IP, name=GOOD_NAME, helo=GOOD_NAME)


def test_eicar_is_refused_and_other_attachments_are_not(
    variant: Variant, sink: Sink, keys: KeyFiles, dns: DNSServer, clamd: Clamd, marker: str
) -> None:
    with scanning(variant, sink, keys, dns, clamd) as site:
        refused = send(site, attachment(marker, EICAR))
        assert (refused.code, refused.stage, refused.text[: len(FOUND)]) == (554, "eom", FOUND)
        disguised = send(site, attachment(marker, EICAR, b"GIF89a: x\r\n"))
        assert (disguised.code, disguised.text[: len(FOUND)]) == (554, FOUND)
        stolen = send(site, attachment(marker, EICAR), login="user")
        assert (stolen.code, stolen.text[: len(FOUND)]) == (554, FOUND)
        assert send(site, attachment(f"clean-{marker}", b"nothing of note")).accepted
        assert b"report.dat" in sink.find(f"clean-{marker}".encode()).content
        wait_until(lambda: len(site.daemon.log_lines("antivirus_found")) >= 3, 5, "the log tells of all three")
        (line,) = site.daemon.log_lines("outbound_antivirus_found")
        assert all(word in line for word in ("auth_user=user ", "action=reject ", FOUND[:-2]))
    assert len(sink.deliveries) == 1


@pytest.mark.parametrize("login", ["", "user"], ids=["inbound", "outbound"])
def test_eicar_is_held(sink: Sink, keys: KeyFiles, dns: DNSServer, clamd: Clamd, marker: str, login: str) -> None:
    with scanning(Variant("native", "unix"), sink, keys, dns, clamd, found="quarantine") as site:
        assert send(site, attachment(marker, EICAR), login).accepted
        wait_until(lambda: [m["queue_name"] for m in site.postfix.queue()] == ["hold"], 10, "it is held")
    assert not sink.deliveries


@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.parametrize("on_error", ["accept", "defer"])
def test_without_clamd_it_is_as_configured(
    sink: Sink, keys: KeyFiles, dns: DNSServer, clamd: Clamd, marker: str, how: str, on_error: str
) -> None:
    site_options = {"on_error": on_error, "timeout": "1s"}
    with scanning(Variant("native", "unix"), sink, keys, dns, clamd, **site_options) as site:
        before = site.daemon.metrics()
        if how == "stopped":
            clamd.stop()
        else:
            clamd.freeze()
        try:
            answer = send(site, attachment(marker, b"nothing of note"))
        finally:
            clamd.stop()
            clamd.start()
        if on_error == "accept":
            assert answer.accepted
            assert sink.find(marker.encode())
        else:
            assert (answer.code, answer.text[: len(UNSCANNED)]) == (451, UNSCANNED)
            assert not sink.deliveries
        counted = site.daemon.metrics().increase(before, "authmilter_check_errors_total", check="antivirus")
        assert counted == 1
        refused = send(site, attachment(marker, EICAR))  # it is back
        assert (refused.code, refused.text[: len(FOUND)]) == (554, FOUND)


def test_another_clamd_scans_while_the_first_is_away(
    sink: Sink, keys: KeyFiles, dns: DNSServer, clamd: Clamd, marker: str
) -> None:
    away = "unix:/nowhere/clamd.ctl"
    with scanning(Variant("native", "inet"), sink, keys, dns, clamd, first=away, on_error="defer") as site:
        assert send(site, attachment(marker, EICAR)).code == 554
        assert send(site, attachment(marker, b"nothing of note")).accepted
        assert not site.daemon.log_lines("antivirus_temperror")
