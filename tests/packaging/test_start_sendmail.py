"""The page contrib/docs/start-sendmail.md on a fresh Debian with its own Sendmail: commands of the page, in its order.

Those of sections 3 to 7 are of the other page.  The fixtures are steps, each on top of the one before.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contrib.fences import DOCS, fences, of_kind
from tests.packaging.machine import Machine, require_machine
from tests.packaging.test_deb import CLIENT, wait_for_reload
from tests.packaging.test_start import INBOX, block, name_server, run
from tests.rig.sockets import wait_until

PAGE = DOCS / "start-sendmail.md"
BLOCKS = {fence.kind: fence for fence in fences(PAGE)}
MC = "/etc/mail/sendmail.mc"
OUTSIDE = "198.51.100.25"  # an address of the machine that is not internal; Debian's Sendmail refuses 192.0.2.0/24


def packages(command: str) -> set[str]:
    """What `apt-get install` is asked for."""
    return set(command.split("--no-install-recommends", 1)[1].split())


@pytest.fixture(scope="module")
def fresh() -> Iterator[Machine]:
    """A Debian without a mail server."""
    require_machine()
    with Machine("systemd") as machine:
        machine.wait()
        machine.run("hostname", "mx.example.org")
        machine.run_ours("ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
        with machine.path("/etc/hosts").open("a") as file:
            file.write(f"127.0.0.1 localhost\n{OUTSIDE} mx.example.org\n")
        yield machine


@pytest.fixture(scope="module")
def installed(fresh: Machine, deb: Path) -> Machine:
    """All up to the other page; `deb` is what the command of the page built."""
    assert BLOCKS["sh build"].text == block("1.", "sh build").text
    done = subprocess.run(
        ["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True, check=True, timeout=30
    )
    servers = packages(BLOCKS["sh prepare"].text) - packages(block("1.", "sh prepare").text)
    fresh.satisfy(", ".join([*servers, "openssl", done.stdout.strip()]))
    fresh.path("/tmp/authmilter").mkdir()
    shutil.copy(deb, fresh.path("/tmp/authmilter"))
    assert "\nactive\n" in run(fresh, BLOCKS["sh install"])
    for kind in ("sh receive", "sh socket", "sh restart"):
        run(fresh, BLOCKS[kind])
    mc = fresh.path(MC)
    above = "\nMAILER_DEFINITIONS\n"
    text = mc.read_text()
    assert text.count(above) == 1
    mc.write_text(text.replace(above, f"\n{of_kind(PAGE, 'mc')}{above[1:]}"))
    run(fresh, BLOCKS["sh tell"])
    return fresh


@pytest.fixture(scope="module")
def signing(installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Sections 3 and 4, with a name server that has the records."""
    zone = run(installed, block("3.")) + block("3.", "zone").text
    with name_server(installed, zone, tmp_path_factory.mktemp("zone")):
        run(installed, block("4."))
        wait_for_reload(installed)
        yield installed


@pytest.fixture(scope="module")
def enforcing(signing: Machine) -> tuple[Machine, str]:
    """Section 7 without its lines for Postfix, and what it printed."""
    told = run(signing, block("7."))
    wait_for_reload(signing, 2)
    return signing, told


def deliver_forgery(machine: Machine, word: str, status: int) -> str:
    """From outside to the address that the world knows."""
    client = CLIENT.replace("backup@mx.test", "root@example.org").replace('"127.0.0.1"', f'"{OUTSIDE}"')
    return machine.run("python3", "-c", client, OUTSIDE, "root@example.org", word, status=status)


def message(machine: Machine, subject: str) -> str:
    """The one of the mailbox, when it is there."""
    box = machine.path(INBOX)
    wait_until(lambda: box.exists() and f"\nSubject: {subject}\n" in box.read_text(), 20, "delivered")
    (found,) = (one for one in box.read_text().split("\n\nFrom ") if f"\nSubject: {subject}\n" in one)
    return found.partition("\n")[2]


def test_the_packages_named_are_those_of_the_other_page_with_sendmail() -> None:
    here, there = (packages(fence.text) for fence in (BLOCKS["sh prepare"], block("1.", "sh prepare")))
    assert there - here == {"postfix"}
    assert here - there == {"sendmail", "sendmail-cf", "make"}


def test_a_message_of_ours_arrives_signed_by_the_key_that_is_published(signing: Machine) -> None:
    assert "DKIM-Signature: v=1;" in run(signing, block("5."))
    assert "dkim=pass" in run(signing, block("5.", index=1))
    assert "550 5.7.23" in run(signing, block("5.", "sh forgery"), status=1)


def test_mail_of_cron_is_signed_and_the_signature_holds(signing: Machine) -> None:
    text = "From: root (Cron Daemon)\nTo: root\nSubject: of cron\n\nHello\n"
    signing.run("sendmail", "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", text=text)
    found = message(signing, "of cron")
    assert "<root@mx.example.org>" in found or "From: root@mx.example.org" in found
    command = "authmilter check-message --ip 192.0.2.99 --helo a.example --mail-from root@example.org --rcpt root@example.org -"
    assert "dkim=pass" in signing.run("sh", "-c", command, text=found, status=None)


def test_what_is_for_the_postmaster_arrives(signing: Machine) -> None:
    signing.run("sendmail", "postmaster@example.org", text="Subject: report\n\nHello\n")
    assert "DKIM-Signature" in message(signing, "report")


def test_at_first_a_forgery_is_accepted_and_noted(signing: Machine) -> None:
    deliver_forgery(signing, "noted", 0)
    message(signing, "noted")
    shown = run(signing, block("6.", "sh look"))
    assert "action=reject" in shown
    assert "enforced=no" in shown


def test_then_it_is_refused_and_mail_of_ours_is_not(enforcing: tuple[Machine, str]) -> None:
    machine, told = enforcing
    assert re.search(r"(?m)^enforce = yes", told)
    assert "550, b'5.7.23 SPF fail" in deliver_forgery(machine, "refused", 1)
    before = machine.path(INBOX).read_text().count("\nSubject: first\n")
    run(machine, block("5."))
    text = machine.path(INBOX).read_text()
    assert text.count("\nSubject: first\n") == before + 1
    assert "Subject: refused" not in text


def test_while_it_is_down_mail_waits(enforcing: tuple[Machine, str]) -> None:
    machine, _ = enforcing
    machine.run("systemctl", "stop", "authmilter")
    try:
        assert "451, b'4.3.2 Please try again later" in deliver_forgery(machine, "meanwhile", 1)
    finally:
        machine.run("systemctl", "start", "authmilter")


def test_taken_out_nothing_of_it_is_left_and_mail_goes_on(enforcing: tuple[Machine, str]) -> None:
    machine, _ = enforcing
    run(machine, BLOCKS["sh out"])
    assert not machine.path("/etc/authmilter").exists()
    assert "authmilter" not in machine.path(MC).read_text()
    deliver_forgery(machine, "without", 0)
    message(machine, "without")


def test_every_block_of_the_page_is_run_or_named_as_not_run() -> None:
    commands = {"prepare", "build", "install", "receive", "socket", "restart", "tell", "out"}
    assert set(BLOCKS) == {"mc", *(f"sh {command}" for command in commands)}
    assert len(BLOCKS) == len(fences(PAGE))
