"""The outer contract through a real Postfix, for both engines over UNIX and TCP sockets."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.dnsserver import DNSServer
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


def test_local_submission_is_known_even_where_loopback_is_not_internal(site: Site, marker: str) -> None:
    site.daemon.configure({**site.configuration, "networks": {"internal": "192.0.2.250"}})
    site.daemon.reload()
    try:
        site.postfix.submit_locally(message(marker, "cron@sender.example"), "cron@strict.example", "user@test")
        assert dkim_verdicts(site.sink.find(marker.encode()).content) == [True, True]
    finally:
        site.daemon.configure(site.configuration)
        site.daemon.reload()


@pytest.mark.parametrize("waiting", [False, True], ids=["before the text", "while the verdict is awaited"])
def test_a_worker_killed_within_a_message_costs_a_retry_and_nothing_else(
    waiting: bool, site: Site, dns: DNSServer, marker: str
) -> None:
    before = site.daemon.metrics()
    with site.postfix.smtp(GOOD_IP, GOOD_NAME, GOOD_NAME) as client:
        begin_message(client, "a@slow.example")
        worker = serving_worker(site.daemon)
        assert site.daemon.metrics().value("authmilter_connections_active") == 1
        with sent_on(client, slow_message(marker), dns if waiting else None) as reply:
            os.kill(worker, signal.SIGKILL)
        assert 400 <= reply.result()[0] < 500
    assert not site.postfix.queue()
    assert not site.sink.deliveries
    assert send_good(site.postfix, marker).accepted, "the retry goes through"
    site.sink.find(marker.encode())  # exactly once
    wait_until(
        lambda: site.daemon.metrics().increase(before, "authmilter_worker_restarts_total") == 1, 10, "a new worker"
    )
    wait_until(lambda: site.daemon.metrics().value("authmilter_connections_active") == 0, 5, "none counts as open")
    assert worker not in site.daemon.serving()
    assert site.daemon.http("/readyz")[0] == 200


def test_sigterm_within_a_message_lets_it_finish_and_takes_no_new_one(
    variant: Variant, sink: Sink, keys: KeyFiles, dns: DNSServer, marker: str
) -> None:
    with running(variant, sink, configuration(variant, keys, dns.address)) as site:
        with site.postfix.smtp(GOOD_IP, GOOD_NAME, GOOD_NAME) as client:
            begin_message(client, "a@slow.example")
            with sent_on(client, slow_message(marker), dns) as reply:
                site.daemon.terminate()
                wait_until(lambda: "STOPPING=1" in site.daemon.notifications(), 5, "STOPPING=1")
                started = time.monotonic()
                late = send_good(site.postfix, "late" + marker)
                took = time.monotonic() - started
            assert reply.result()[0] == 250
        assert 400 <= late.code < 500, "Postfix finds no milter: the client keeps the message"
        assert took < 3, "nobody listens any more: Postfix need not wait for milter_command_timeout to know"
        assert site.daemon.wait(10) == 0
        assert ("dkim", "pass") in results(sink.find(marker.encode()))


def test_sighup_under_a_load_of_20_sessions_fails_none_and_the_new_file_rules(site: Site, marker: str) -> None:
    reloads = 3
    stop = threading.Event()
    before = site.daemon.metrics()
    text = dkim_signed(message(marker, "a@good.example"), "good.example")

    def session(_: int) -> list[Answer]:
        answers: list[Answer] = []
        with site.postfix.smtp(GOOD_IP, GOOD_NAME, GOOD_NAME) as client:
            while not stop.is_set() or len(answers) < 2:
                answers.append(client.deliver(text, "a@good.example"))
        return answers

    with site.postfix.smtp(GOOD_IP, GOOD_NAME, GOOD_NAME) as early, ThreadPoolExecutor(20) as executor:
        sessions = executor.map(session, range(20))
        try:
            for number in range(1, reloads + 1):
                changes = {**site.configuration, "identity": {"authserv_id": f"id{number}.test"}}
                site.daemon.configure(changes)
                site.daemon.reload()
        finally:
            stop.set()
        answers = [answer for one in sessions for answer in one]
        try:
            assert [answer for answer in answers if not answer.accepted] == []
            deliveries = site.sink.wait(len(answers), 30)
            names = {delivery.values(AR)[0].partition(b";")[0] for delivery in deliveries}
            assert names <= {b"mx.test", b"id1.test", b"id2.test", b"id3.test"}
            # A session that began under the first file keeps it; one that begins now has the last.
            assert early.deliver(message("early" + marker, "a@good.example"), "a@good.example").accepted
            assert send_good(site.postfix, "new" + marker).accepted
            assert site.sink.find(b"early" + marker.encode()).values(AR)[0].startswith(b"mx.test;")
            assert site.sink.find(b"new" + marker.encode()).values(AR)[0].startswith(b"id3.test;")
        finally:
            site.daemon.configure(site.configuration)
            site.daemon.reload()
    after = site.daemon.metrics()
    sent = len(answers) + 2
    assert after.increase(before, "authmilter_messages_total", direction="inbound", stage="eom") == sent
    assert after.increase(before, "authmilter_auth_results_total", method="dkim", result="pass") == sent - 1
    assert after.increase(before, "authmilter_message_score_count") == sent
    assert after.increase(before, "authmilter_config_reloads_total", outcome="success") == reloads + 1
    assert after.value("authmilter_config_last_reload_successful") == 1
    assert after.increase(before, "authmilter_worker_restarts_total") == 0
    notified = site.daemon.notifications()
    assert notified.count("RELOADING=1") >= reloads
    assert notified[-1] != "RELOADING=1"


def test_a_broken_file_keeps_the_old_configuration_and_says_so(site: Site, marker: str) -> None:
    before = site.daemon.metrics()
    broken = {**site.configuration, "policy": {"rejct": "7"}, "identity": {"authserv_id": "broken.test"}}
    site.daemon.configure(broken)
    try:
        site.daemon.reload("failure")
        assert site.daemon.metrics().value("authmilter_config_last_reload_successful") == 0
        line = site.daemon.file.read_text().splitlines().index("rejct = 7") + 1
        assert site.daemon.log_lines(f"{site.daemon.file}:{line}:", "[policy]", "rejct", "reject")
        assert send_good(site.postfix, marker).accepted
        assert site.sink.find(marker.encode()).values(AR)[0].startswith(b"mx.test;")
    finally:
        site.daemon.configure(site.configuration)
        site.daemon.reload()
    after = site.daemon.metrics()
    assert after.value("authmilter_config_last_reload_successful") == 1
    assert after.increase(before, "authmilter_config_reloads_total", outcome="failure") == 1


CONTRACT = {
    "connections_refused_total", "alarms_total", "dns_failures_total", "dns_down", "signing_keys",
    "build_info", "connections_active", "connections_total", "messages_total", "auth_results_total", "findings_total",
    "message_score", "stage_seconds", "check_seconds", "check_errors_total", "dns_queries_total", "dns_seconds",
    "dns_cache_total", "dnslist_queries_total", "dnslist_off", "store_errors_total", "signatures_total", "config_reloads_total",
    "config_last_reload_successful", "worker_restarts_total", "recipients_refused_total",
}  # fmt: skip


def test_counters_equal_what_was_sent_and_promtool_is_content(site: Site, marker: str) -> None:
    before = site.daemon.metrics()
    good, spoofs, submissions = 12, 5, 4
    with ThreadPoolExecutor(6) as executor:
        sent = [executor.submit(send_good, site.postfix, marker) for _ in range(good)]
        sent += [executor.submit(send_bad, site.postfix, marker, "ceo@bank.example") for _ in range(spoofs)]
        for _ in range(submissions):
            own = message(marker, "alice@sender.example")
            sent.append(
                executor.submit(site.postfix.send, own, mail_from="alice@sender.example", addr=BAD_IP, login="alice")
            )
    codes = [future.result().code for future in sent]
    assert sorted(codes) == [250] * (good + submissions) + [550] * spoofs
    after = site.daemon.metrics()

    def rise(name: str, **labels: str) -> float:
        return after.increase(before, f"authmilter_{name}", **labels)

    assert rise("messages_total") == good + spoofs + submissions
    assert rise("messages_total", direction="inbound", action="accept", stage="eom") == good
    assert rise("messages_total", direction="inbound", action="reject", stage="eom") == spoofs
    assert rise("messages_total", direction="outbound", action="accept", stage="eom") == submissions
    assert rise("auth_results_total", method="dmarc", result="pass") == good
    assert rise("auth_results_total", method="dmarc", result="fail") == spoofs
    assert rise("message_score_count") == good + spoofs
    for algorithm in ("rsa-sha256", "ed25519-sha256"):
        assert rise("signatures_total", algorithm=algorithm, outcome="success") == submissions
    # XCLIENT makes Postfix open a second milter connection for the same session.
    assert rise("connections_total") == 2 * len(sent)
    assert {f"authmilter_{name}" for name in CONTRACT} == set(re.findall(r"(?m)^# TYPE (\S+) ", after.text))
    promtool = subprocess.run(["promtool", "check", "metrics"], input=after.text, capture_output=True, text=True)
    assert (promtool.returncode, promtool.stdout, promtool.stderr) == (0, "", "")


# -- parts of the tests above -------------------------------------------------------------------------------------------


def slow_message(marker: str) -> bytes:
    """A message whose verdict takes a while: nobody knows yet the key that it is signed with."""
    return dkim_signed(message(marker, "a@slow.example"), "slow.example", selector=marker)


def begin_message(client: Client, mail_from: str) -> None:
    """MAIL, RCPT and DATA."""
    assert client.docmd("MAIL", f"FROM:<{mail_from}>")[0] == 250
    assert client.docmd("RCPT", "TO:<user@test>")[0] == 250
    assert client.docmd("DATA")[0] == 354


@contextmanager
def sent_on(client: Client, text: bytes, dns: DNSServer | None) -> Iterator[Future[tuple[int, bytes]]]:
    """Do something within a message, then have its reply.

    With `dns` it happens while the daemon waits for a key that is slow to come, otherwise before any text is sent.
    """
    reply: Future[tuple[int, bytes]] = Future()
    if dns is None:
        yield reply
        reply.set_result(client.finish(text))
        return
    known = len(dns.queries)
    sender = threading.Thread(target=lambda: reply.set_result(client.finish(text)))
    sender.start()
    try:
        wait_until(
            lambda: any("_domainkey.slow" in query for query in dns.queries[known:]), 10, "a question for the key"
        )
        yield reply
    finally:
        sender.join(30)


def serving_worker(daemon: Daemon) -> int:
    """The one process that holds the one milter connection."""
    wait_until(lambda: sum(daemon.serving().values()) == 1, 5, "one worker with one connection")
    (worker,) = [pid for pid, connections in daemon.serving().items() if connections]
    return worker
