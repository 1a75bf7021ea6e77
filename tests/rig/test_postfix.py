"""The outer contract through a real Postfix, for both engines over UNIX and TCP sockets."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rig.daemon import Daemon
from tests.rig.mail import BAD_IP, GOOD_IP, GOOD_NAME, KeyFiles, dkim_signed, dkim_verdicts, message
from tests.rig.postfix import Answer, Client, Postfix
from tests.rig.sink import Delivery, Sink
from tests.rig.site import Site, Variant, configuration, running
from tests.rig.sockets import wait_until

AR = b"Authentication-Results"


def send_good(postfix: Postfix, marker: str, domain: str = "good.example", on_top: bytes = b"") -> Answer:
    """A message that passes everything."""
    signed = dkim_signed(message(marker, f"a@{domain}", on_top=on_top), domain)
    return postfix.send(signed, mail_from=f"a@{domain}", addr=GOOD_IP, name=GOOD_NAME, helo=GOOD_NAME)


def send_bad(postfix: Postfix, marker: str, author: str) -> Answer:
    """A message of somebody who may not send for the domain of `author`."""
    return postfix.send(message(marker, author), mail_from=author, addr=BAD_IP, helo="elsewhere.test")


def results(delivery: Delivery) -> list[tuple[str, str]]:
    """(method, result) of the one Authentication-Results field, in its order."""
    (value,) = delivery.values(AR)
    return re.findall(r";\s*([a-z]+)=([a-z]+)", value.decode())


def test_a_good_message_gets_one_field_with_all_results_above_received(site: Site, marker: str) -> None:
    assert send_good(site.postfix, marker).accepted
    delivery = site.sink.find(marker.encode())
    names = delivery.names()
    assert names.index(b"authentication-results") < names.index(b"received")
    assert delivery.values(AR)[0].startswith(b"mx.test;")
    assert results(delivery) == [
        ("iprev", "pass"),
        ("spf", "pass"),
        ("spf", "pass"),
        ("dkim", "pass"),
        ("dmarc", "pass"),
    ]
    signed = dkim_verdicts(delivery.content)
    assert signed == [True], "the message itself was changed on its way"


FORGED = (
    b"AUTHENTICATION-results: MX.Test; spf=pass smtp.mailfrom=forged\r\n"
    b'Authentication-Results: "mx.test"; dkim=pass header.d=forged\r\n'
    b"Authentication-Results:\r\n\t mx.test;\r\n dmarc=pass header.from=forged\r\n"
    b"Authentication-Results: (a (nested) comment) mx.test (another); iprev=pass policy.iprev=forged\r\n"
    b"Authentication-Results: mx.test.; spf=pass smtp.mailfrom=forged\r\n"
)
FOREIGN = b"Authentication-Results: other.example; spf=pass smtp.mailfrom=kept.example\r\n"


def test_five_forged_result_fields_of_ours_are_removed_and_a_foreign_one_stays(site: Site, marker: str) -> None:
    assert send_good(site.postfix, marker, on_top=FORGED + FOREIGN).accepted
    delivery = site.sink.find(marker.encode())
    ours, *others = delivery.values(AR)
    assert ours.startswith(b"mx.test;")
    assert others == [FOREIGN.partition(b":")[2].strip()]
    assert b"forged" not in delivery.content


def test_a_violator_of_spf_all_is_refused_with_its_own_status_code(site: Site, marker: str) -> None:
    answer = send_bad(site.postfix, marker, "a@strict.example")
    assert (answer.code, answer.stage) == (550, "eom")
    assert answer.text.startswith("5.7.23 ")
    assert not site.postfix.queue()
    assert not site.sink.deliveries


def test_a_spoof_of_a_domain_with_p_reject_is_refused_in_the_name_of_dmarc(site: Site, marker: str) -> None:
    answer = send_bad(site.postfix, marker, "ceo@bank.example")
    assert (answer.code, answer.stage) == (550, "eom")
    assert answer.text.startswith("5.7.26 ")  # RFC 7372 section 3.3: SPF failed as well
    assert "DMARC" in answer.text
    assert "bank.example" in answer.text
    reference = re.search(r"am-[0-9a-f]+", answer.text)
    assert reference, answer.text
    assert len(site.daemon.log_lines(reference[0])) == 1, "the log line has the reference of the reply"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """ADDRESS:PORT of a name server that never says a word."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{hole.getsockname()[1]}"


@pytest.mark.parametrize("deferring", [False, True], ids=["accepts", "defers when told to"])
def test_a_dns_black_hole_never_refuses(
    deferring: bool, variant: Variant, sink: Sink, keys: KeyFiles, black_hole: str, marker: str
) -> None:
    changes: dict[str, dict[str, object]] = {"dns": {"timeout": "300ms"}}
    if deferring:
        changes |= {method: {"on_temperror": "defer"} for method in ("spf", "dkim", "dmarc")}
    with running(variant, sink, configuration(variant, keys, black_hole, changes)) as site:
        answers = [send_good(site.postfix, marker), send_bad(site.postfix, marker, "ceo@bank.example")]
        if deferring:
            assert [(a.code, a.text[:4]) for a in answers] == [(451, "4.7.")] * 2
            assert not sink.deliveries
        else:
            assert [a.code for a in answers] == [250, 250]
            for delivery in sink.wait(2):
                found = dict(results(delivery))
                assert "fail" not in found.values()
                assert found["spf"] == "temperror"
                assert found["dmarc"] == "temperror"


def test_an_authenticated_submission_leaves_with_two_valid_signatures(site: Site, marker: str) -> None:
    unsigned = message(marker, "alice@sender.example")
    answer = site.postfix.send(
        unsigned, mail_from="alice@sender.example", rcpts=["b@good.example"], addr=BAD_IP, login="alice"
    )
    assert answer.accepted, answer
    delivery = site.sink.find(marker.encode())
    signatures = delivery.values(b"DKIM-Signature")
    assert sorted(re.findall(rb"\ba=([a-z0-9-]+)", b" ".join(signatures))) == [b"ed25519-sha256", b"rsa-sha256"]
    assert dkim_verdicts(delivery.content) == [True, True]
    assert dkim_verdicts(delivery.content.replace(b"world", b"w0rld")) == [False, False]
    assert not delivery.values(AR), "our own mail is not verified"


def test_mail_of_a_stranger_is_never_signed(site: Site, marker: str) -> None:
    answer = site.postfix.send(
        message(marker, "alice@sender.example"), mail_from="x@elsewhere.test", addr=BAD_IP, helo="elsewhere.test"
    )
    assert answer.accepted, answer  # no DMARC policy there, no SPF policy for elsewhere.test
    assert not site.sink.find(marker.encode()).values(b"DKIM-Signature")


def test_local_submission_is_signed_and_never_refused(site: Site, marker: str) -> None:
    # strict.example publishes -all, so that from outside this reverse-path would be refused.
    site.postfix.submit_locally(message(marker, "cron@sender.example"), "cron@strict.example", "user@test")
    delivery = site.sink.find(marker.encode())
    assert delivery.mail_from == "cron@strict.example"
    assert dkim_verdicts(delivery.content) == [True, True]
    assert not site.postfix.queue()


def serving_worker(daemon: Daemon) -> int:
    """The one process that holds the one milter connection."""
    wait_until(lambda: sorted(daemon.serving().values())[-1:] == [1], 5, "one worker with one connection")
    (worker,) = [pid for pid, connections in daemon.serving().items() if connections]
    return worker


@pytest.mark.parametrize("waiting", [False, True], ids=["before the text", "while the verdict is awaited"])
def test_a_worker_killed_within_a_message_costs_a_retry_and_nothing_else(
    waiting: bool, site: Site, marker: str
) -> None:
    before = site.daemon.metrics()
    domain = "slow.example" if waiting else "good.example"
    signed = dkim_signed(message(marker, f"a@{domain}"), domain)
    with site.postfix.smtp(GOOD_IP, GOOD_NAME, GOOD_NAME) as client:
        begin_message(client, f"a@{domain}")
        worker = serving_worker(site.daemon)
        if waiting:
            with ThreadPoolExecutor(1) as executor:
                future = executor.submit(client.finish, signed)
                wait_for_slow_key(site.daemon, before)
                os.kill(worker, signal.SIGKILL)
                code, _ = future.result(30)
        else:
            os.kill(worker, signal.SIGKILL)
            code, _ = client.finish(signed)
    assert 400 <= code < 500
    assert not site.postfix.queue()
    assert not site.sink.deliveries
    wait_until(lambda: len(site.daemon.serving()) == len(set(site.daemon.serving()) - {worker}), 5, "it is gone")
    assert send_good(site.postfix, marker, domain).accepted, "the retry goes through"
    site.sink.find(marker.encode())  # exactly once
    wait_until(
        lambda: site.daemon.metrics().increase(before, "authmilter_worker_restarts_total") == 1, 10, "a new worker"
    )
    wait_until(
        lambda: site.daemon.metrics().value("authmilter_connections_active") == 0, 5, "no connection is counted as open"
    )
    assert site.daemon.http("/readyz")[0] == 200


def begin_message(client: Client, mail_from: str) -> None:
    """MAIL, RCPT and DATA."""
    assert client.docmd("MAIL", f"FROM:<{mail_from}>")[0] == 250
    assert client.docmd("RCPT", "TO:<user@test>")[0] == 250
    assert client.docmd("DATA")[0] == 354


def wait_for_slow_key(daemon: Daemon, before: object) -> None:
    """Until the daemon waits for the key of slow.example."""
    raise NotImplementedError
