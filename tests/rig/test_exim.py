"""A real Exim that asks authmilter by a command, by the lines of contrib/gateway/exim-alone-*.conf."""

import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest

from tests.dnsserver import DNSServer
from tests.rig.exim import UID, Exim, lines_of, require_exim
from tests.rig.mail import BAD_IP, GOOD_IP, GOOD_NAME, KeyFiles, dkim_signed, message, rsa_pem, zone
from tests.rig.postfix import Answer, Client
from tests.rig.sink import Delivery, Sink
from tests.shared import ROOT

DOMAIN = "example.org"  # that of the examples
OUR_HOST = "198.51.100.25"  # in relay_from_hosts
UNCHECKED = "4.3.0 The message could not be checked, please try again later"

MAIN = f"""
AUTHMILTER = FOLDER/authmilter -c FOLDER/authmilter.ini
acl_smtp_data = authmilter_check_data
acl_smtp_rcpt = accept
hostlist relay_from_hosts = {OUR_HOST}
# Clients tell by the PROXY protocol who they are.
hosts_proxy = 127.0.0.1
# The worst that a site can allow.
helo_accept_junk_hosts = *
"""
# The installed command, which first writes down what it was called with.
COMMAND = f"""#!/bin/sh
folder=${{0%/*}}
printf '%s\\0' "$@" >"$folder/log/arguments"
LD_LIBRARY_PATH=$folder/python/lib PYTHONPATH=$folder/checkout:$folder/packages
export LD_LIBRARY_PATH PYTHONPATH
exec "$folder/python/bin/python{sys.version_info.major}.{sys.version_info.minor}" -m authmilter "$@"
"""


class Site:
    """An Exim alone; its configuration of authmilter and the command may be changed at any time."""

    def __init__(self, exim: Exim, nameserver: str) -> None:
        self.exim = exim
        self._nameserver = nameserver

    def reset(self) -> None:
        """As the page has it, with the command that works."""
        self.configure("")
        self.command(COMMAND)
        (self.exim.folder / "log/arguments").unlink(missing_ok=True)

    def configure(self, more: str) -> None:
        """The lines of exim-alone.ini, and more."""
        file = self.exim.folder / "authmilter.ini"
        file.write_text(f"{lines_of('exim-alone.ini')}[dns]\nnameservers = {self._nameserver}\n{more}")
        file.chmod(0o644)

    def command(self, script: str) -> None:
        """What Exim runs."""
        # A new file: nobody can write to one that is being run.
        new = self.exim.folder / "new"
        new.write_text(script)
        new.chmod(0o755)
        new.rename(self.exim.folder / "authmilter")

    def arguments(self) -> list[bytes]:
        """With what it ran last; nothing if it did not."""
        file = self.exim.folder / "log/arguments"
        return file.read_bytes().split(b"\0")[:-1] if file.exists() else []

    def send(
        self, text: bytes, mail_from: str, *rcpts: str, addr: str = GOOD_IP, helo: bytes = GOOD_NAME.encode()
    ) -> Answer:
        """A message from outside, by a client at `addr`."""
        with Client(timeout=60) as client:
            client.sock = socket.create_connection(("127.0.0.1", self.exim.port), 60)
            client.sock.sendall(f"PROXY TCP4 {addr} 192.0.2.25 4711 25\r\n".encode())
            client.file = None
            assert client.getreply()[0] == 220
            client.sock.sendall(b"EHLO " + helo + b"\r\n")
            code, said = client.getreply()
            assert code == 250, said
            return client.deliver(text, mail_from, rcpts or (f"user@{DOMAIN}",))


# What is not for our own domain leaves by a transport of the site's own, which signs.
ROUTERS = """
elsewhere:
  driver     = manualroute
  domains    = ! +local_domains
  transport  = elsewhere_smtp
  route_list = * 127.0.0.1
  self       = send
  no_more
"""


def transports(port: int, key: Path) -> str:
    """To that port, signed by that key."""
    options = lines_of("exim-alone-dkim.conf")
    assert options.count("/etc/exim4/dkim/example.org.s2026.pem") == 1
    options = options.replace("/etc/exim4/dkim/example.org.s2026.pem", str(key))
    return f"elsewhere_smtp:\n  driver = smtp\n  port = {port}\n{options}"


def alone(dns: DNSServer, limit: str = "30", last: str = "", **more: str) -> Exim:
    """By the lines of the page, with another limit of seconds, or another last statement; `more` are other sections."""
    lines = lines_of("exim-alone-acl.conf")
    assert lines.count("/timeout 30 ") == 1
    lines = lines.replace("/timeout 30 ", f"/timeout {limit} ")
    if last:
        lines, behind = lines[: lines.rindex("\n  defer ") + 1], lines[lines.rindex("\n  defer ") :]
        assert "log_message" in behind
        lines += f"  {last}\n"
    mounts = {
        "checkout": ROOT,
        "packages": Path(sysconfig.get_path("purelib")),
        "python": Path(sys.base_prefix),
    }
    return Exim(DOMAIN, {"main": MAIN, "acl": lines, **more}, nameserver=dns.host, mounts=mounts)


@pytest.fixture(scope="module", autouse=True)
def _exim() -> None:
    require_exim()


@pytest.fixture(scope="module")
def dns() -> Iterator[DNSServer]:
    """For Exim too, which finds servers on port 53 only: at an address of our own of this machine."""
    records: dict[str, list[str | bytes]] = {
        **zone(),
        "doubtful.example TXT": ["v=spf1 ip4:192.0.2.77 ~all"],
        "_dmarc.doubtful.example TXT": ["v=DMARC1; p=quarantine"],
        "unsure.example TXT": ["v=spf1 -all"],
    }
    host = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    with DNSServer(records, {"unsure.example": "servfail", "*.silent.example": "drop"}, host=host, port=53) as server:
        yield server


@pytest.fixture(scope="module")
def one_alone(dns: DNSServer) -> Iterator[Site]:
    with alone(dns) as exim:
        yield Site(exim, dns.address)


@pytest.fixture
def site(one_alone: Site) -> Site:
    """Exim alone, with the lines of the page."""
    one_alone.reset()
    return one_alone


def received(text: bytes) -> Delivery:
    """A message as Exim keeps it."""
    return Delivery("", (), text)


def refused_mail(marker: str) -> bytes:
    """What a DMARC policy forbids."""
    return message(marker, "ceo@bank.example")


def test_a_message_is_kept_with_our_results_on_top_and_its_own_signature(site: Site, marker: str) -> None:
    forged = b"Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=forged\r\nX-Spam-Flag: NO\r\nX-Spam-Flag: NO\r\n"
    signed = dkim_signed(message(marker, "a@good.example"), "good.example")
    assert site.send(forged + signed, "a@good.example").accepted
    delivery = received(site.exim.find(marker))
    (results,) = delivery.values(b"Authentication-Results")
    assert results.startswith(b"mx.example.org;")
    for method in (b"iprev", b"spf", b"dkim", b"dmarc"):
        assert method + b"=pass" in results
    assert delivery.values(b"X-Spam-Flag") == [b"NO"]
    assert len(delivery.values(b"X-Spam-Score")) == 1
    assert delivery.content.startswith(b"Authentication-Results:"), "above what Exim itself received it with"
    assert delivery.content.endswith(signed), "as it was signed"
    assert f"--client-name={GOOD_NAME}".encode() in site.arguments()


def test_what_dmarc_forbids_is_refused_in_our_words(site: Site, marker: str) -> None:
    answer = site.send(refused_mail(marker), "ceo@bank.example", addr=BAD_IP)
    assert (answer.code, answer.stage) == (550, "eom")
    assert answer.text.startswith("5.7.26 Email rejected per DMARC policy for bank.example [am-")
    assert not site.exim.queue()
    assert answer.text in site.exim.log()


def test_what_is_tagged_is_put_aside(site: Site, marker: str) -> None:
    assert site.send(message(marker, "a@doubtful.example"), "a@doubtful.example", addr=BAD_IP).accepted
    delivery = received(site.exim.find(marker, "junk"))
    assert delivery.values(b"X-Spam-Flag") == [b"YES"]
    assert b"dmarc=fail" in delivery.values(b"Authentication-Results")[0]


def test_what_can_not_be_decided_now_is_deferred_in_our_words(site: Site, marker: str) -> None:
    site.configure("[spf]\non_temperror = defer\n")
    answer = site.send(message(marker, "a@unsure.example"), "a@unsure.example")
    assert (answer.code, answer.stage) == (451, "eom")
    assert answer.text.startswith("4.7.24 SPF of unsure.example could not be checked")


def test_servers_that_never_answer_are_a_result_and_not_the_lack_of_an_answer(site: Site, marker: str) -> None:
    signatures = b"".join(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=d%d.silent.example; s=s; h=from; bh=AAAA; b=AAAA\r\n" % number
        for number in range(5)
    )
    author = "a@a.silent.example"
    answer = site.send(signatures + message(marker, author), author, addr=BAD_IP, helo=b"h.silent.example")
    assert answer.accepted
    (results,) = received(site.exim.find(marker)).values(b"Authentication-Results")
    assert b"dmarc=temperror" in results


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [("[scores]\ndmarc_fail_quarantine = quarantine\n", True), ("[scores]\ndmarc_fail_quarantine = discard\n", False)],
)
def test_what_is_held_waits_frozen_and_what_is_discarded_is_gone(
    site: Site, marker: str, settings: str, frozen: bool
) -> None:
    site.configure(settings)
    try:
        assert site.send(message(marker, "a@doubtful.example"), "a@doubtful.example", addr=BAD_IP).accepted
        assert site.exim.queue().count("*** frozen ***") == frozen
        held = b"".join(file.read_bytes() for file in (site.exim.folder / "spool/input").glob("*-H"))
        assert (marker.encode() in held) == frozen
        assert (b"X-Spam-Flag: YES" in held) == frozen
        assert not [text for text in site.exim.messages("junk") if marker.encode() in text]
    finally:
        site.exim.remove_all()


def test_all_recipients_are_told(site: Site, marker: str) -> None:
    site.configure(f"[spamtraps]\naddresses = trap@{DOMAIN}\n[scores]\nspamtrap = reject\n")
    text = dkim_signed(message(marker, "a@good.example"), "good.example")
    rcpts = [f"user@{DOMAIN}", f"alice@{DOMAIN}"]
    assert site.send(text, "a@good.example", *rcpts).accepted
    assert f"--rcpt={', '.join(rcpts)}".encode() in site.arguments()
    answer = site.send(text, "a@good.example", f"trap@{DOMAIN}")
    assert (answer.code, answer.stage) == (550, "eom")


def test_more_recipients_than_one_argument_holds_are_deferred(site: Site, marker: str) -> None:
    rcpts = [f"{'x' * 60}{number}@{DOMAIN}" for number in range(2000)]
    assert site.send(message(marker, "a@good.example"), "a@good.example", *rcpts) == Answer(451, UNCHECKED, "eom")
    assert not site.arguments()


def test_what_our_own_hosts_send_is_not_judged_and_brings_no_results(site: Site, marker: str) -> None:
    forged = b"Authentication-Results: mx.example.org; dkim=pass\r\nX-Spam-Flag: NO\r\n"
    assert site.send(forged + refused_mail(marker), "ceo@bank.example", addr=OUR_HOST).accepted
    delivery = received(site.exim.find(marker))
    assert not delivery.values(b"Authentication-Results")
    assert not delivery.values(b"X-Spam-Flag")
    assert not site.arguments()


HOSTILE = [
    b"x --auth-user=me",
    b"-h",
    b"--auth-user=me",
    b"\"' --auth-user=me ' \"",
    b'\\" --auth-user=me \\',
    b"${run{/bin/touch %b/harm}}",
    b"$(touch %b/harm)`touch %b/harm`;touch %b/harm|touch %b/harm>%b/harm",
    b"}}{$value}{$value}} ${readfile{/etc/passwd}}",
    b"\\N$sender_host_address\\N \\n--auth-user=me",
    b"a\rX-Spam-Flag: NO\tb",
    b"\xff\xe2\x80\xa8\xc3\xa4",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_a_client_says_does_harm(site: Site, marker: str, hostile: bytes) -> None:
    harm = site.exim.folder / "log/harm"
    hostile = hostile.replace(b"%b/harm", bytes(harm))
    quoted = '"' + "".join(f"\\{c}" if c in '"\\' else c for c in hostile.decode("ascii", "ignore")) + '"'
    sender, rcpt = f"{quoted}@bank.example".replace("\r", ""), f"{quoted}@{DOMAIN}".replace("\r", "")
    answer = site.send(refused_mail(marker), sender, rcpt, f"user@{DOMAIN}", addr=BAD_IP, helo=hostile)
    assert (answer.code, answer.stage) == (550, "eom"), "as that of any other stranger"
    assert "Email rejected per DMARC policy for bank.example" in answer.text
    options = site.arguments()[2:]
    assert [option.partition(b"=")[0] for option in options[:-1]] == [
        b"check-message", b"--answer", b"--ip", b"--client-name", b"--helo", b"--mail-from", b"--rcpt",
    ]  # fmt: skip
    assert options[4] == b"--helo=" + hostile
    assert options[5] == f"--mail-from={sender}".encode()
    # Exim itself may take the last word of a quoted local part for an ESMTP option, and leave "=" in front of it.
    assert options[6].replace(b"=", b" ") == f"--rcpt={rcpt}, user@{DOMAIN}".replace("=", " ").encode()
    assert not harm.exists()


def test_a_hostile_message_adds_no_fields(site: Site, marker: str) -> None:
    helo = b'x\rX-Spam-Flag: NO\r ${run{/bin/false}} :at_start:X-Harm: 1"'
    sender = '"x :at_start:X-Harm: 1 $h_from:"@doubtful.example'
    assert site.send(message(marker, "a@doubtful.example"), sender, addr=BAD_IP, helo=helo).accepted
    delivery = received(site.exim.find(marker, "junk"))
    assert delivery.values(b"X-Spam-Flag") == [b"YES"]
    assert not delivery.values(b"X-Harm")


def test_octets_are_those_that_were_signed(site: Site, marker: str) -> None:
    """8 bits, dots, blanks at line ends and long lines reach authmilter as they were sent; `simple` sees each of them."""
    body = (
        b"..\r\n.x\r\n \t\r\ntrailing  \r\n\xe4\xff\r\n"
        + b"y" * 900
        + b"\r\nFrom here\r\n>From there\r\n\r\nend\r\n\r\n\r\n"
    )
    text = message(marker, "a@good.example", on_top=b"X-Folded:  a\r\n\t b  \r\n", body=body)
    fields = [b"from", b"to", b"subject", b"x-folded"]
    signature = dkim.sign(
        text, b"s1", b"good.example", rsa_pem(), canonicalize=(b"simple", b"simple"), include_headers=fields
    )
    assert site.send(signature + text, "a@good.example").accepted
    assert b"dkim=pass" in received(site.exim.find(marker)).values(b"Authentication-Results")[0]


BROKEN = {
    "missing": ("", "status 127"),
    "no program": ("nothing that could be run", "status 127"),
    "ends as if it refused": ("#!/bin/sh\necho Traceback >&2\nexit 1\n", "status 1: Traceback"),
    "says nothing": ("#!/bin/sh\n", "status 0: "),
    "says something else": ("#!/bin/sh\necho 'accept it\naccept'\n", "status 0: accept it\\naccept"),
    "a mistake in its configuration": (COMMAND, "status 78: "),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_command_defers_what_it_can_not_check(site: Site, marker: str, how: str) -> None:
    script, logged = BROKEN[how]
    site.command(script)
    if not script:
        (site.exim.folder / "authmilter").unlink()
    if script == COMMAND:
        site.configure("[polcy]\n")
    before = len(site.exim.log())
    assert site.send(refused_mail(marker), "ceo@bank.example", addr=BAD_IP) == Answer(451, UNCHECKED, "eom")
    assert f"authmilter gave no answer, {logged}" in site.exim.log()[before:]


def test_what_a_command_that_is_killed_could_not_check_is_deferred_by_exim_itself(site: Site, marker: str) -> None:
    site.command("#!/bin/sh\nkill -9 $$\n")
    answer = site.send(refused_mail(marker), "ceo@bank.example", addr=BAD_IP)
    assert answer == Answer(451, "Temporary local problem - please try later", "eom")
    assert "command killed by signal 9" in site.exim.log()


def test_a_command_that_hangs_is_ended_and_the_message_deferred(dns: DNSServer, marker: str) -> None:
    with alone(dns, limit="1") as exim:
        site = Site(exim, dns.address)
        site.reset()
        site.command("#!/bin/sh\nexec sleep 50\n")
        assert site.send(message(marker, "a@good.example"), "a@good.example") == Answer(451, UNCHECKED, "eom")
        assert "authmilter gave no answer, status 124" in exim.log()


def test_without_an_answer_mail_passes_where_the_last_statement_accepts(dns: DNSServer, marker: str) -> None:
    with alone(dns, last="accept") as exim:
        site = Site(exim, dns.address)
        site.reset()
        assert site.send(refused_mail(marker), "ceo@bank.example", addr=BAD_IP).code == 550
        site.command("#!/bin/sh\nexit 1\n")
        forged = b"Authentication-Results: mx.example.org; dkim=pass\r\nX-Spam-Flag: NO\r\n"
        assert site.send(forged + refused_mail(marker), "ceo@bank.example", addr=BAD_IP).accepted
        delivery = received(exim.find(marker))
        assert not delivery.values(b"Authentication-Results")
        assert not delivery.values(b"X-Spam-Flag")


def test_lines_of_the_log_do_not_hide_the_answer(site: Site, marker: str) -> None:
    script = COMMAND.replace("\nexec ", '\necho \'{"level": "error", "traceback": "a\\\\nb"}\' >&2\nexec ')
    site.command(script)
    answer = site.send(refused_mail(marker), "ceo@bank.example", addr=BAD_IP)
    assert (answer.code, answer.stage) == (550, "eom")


def test_what_our_own_hosts_send_leaves_signed_by_exim(dns: DNSServer, keys: KeyFiles, sink: Sink, marker: str) -> None:
    with alone(dns, routers=ROUTERS, transports=transports(sink.port, Path("FOLDER/key.pem"))) as exim:
        shutil.copy(keys.rsa, exim.folder / "key.pem")
        (exim.folder / "key.pem").chmod(0o640)
        os.chown(exim.folder / "key.pem", 0, UID)
        site = Site(exim, dns.address)
        assert site.send(
            message(marker, f"alice@{DOMAIN}"), f"alice@{DOMAIN}", "b@elsewhere.test", addr=OUR_HOST
        ).accepted
        delivery = sink.find(marker.encode())
        (signature,) = delivery.values(b"DKIM-Signature")
        assert f"d={DOMAIN}".encode() in signature
        record = zone()["r._domainkey.sender.example TXT"][0]
        assert isinstance(record, str)
        assert dkim.DKIM(delivery.content).verify(dnsfunc=lambda name, timeout=5: record.encode())
        other = f"other{marker}"
        assert site.send(message(other, "a@good.example"), "a@good.example", "b@elsewhere.test", addr=OUR_HOST).accepted
        assert not sink.find(other.encode()).values(b"DKIM-Signature"), "what is not ours to sign"
