"""The page contrib/docs/start-postfix.md on a fresh Debian: its own commands, in its own order.

The fixtures are steps, each on top of the one before; tests look at what is then.
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contrib.fences import DOCS, Fence, fences
from tests.contrib.page import blocks
from tests.packaging.machine import Machine, require_machine
from tests.packaging.test_deb import CLIENT, wait_for_reload
from tests.rig.sockets import wait_until
from tests.shared import ROOT

BLOCKS = fences(DOCS / "start-postfix.md")
OUTSIDE = "192.0.2.25"  # the one address of the machine that is not internal
INBOX = "/var/mail/root"


def block(heading: str, kind: str = "sh", index: int = 0) -> Fence:
    """One block below the heading of that number or name."""
    return [one for one in BLOCKS if one.heading.startswith(heading) and one.kind == kind][index]


def run(machine: Machine, fence: Fence, status: int = 0) -> str:
    """A block as a shell runs it that stops at the first command that fails."""
    return machine.run("sh", "-euc", fence.text, status=status, seconds=180)


@pytest.fixture(scope="module")
def fresh() -> Iterator[Machine]:
    """A Debian with Postfix."""
    require_machine()
    with Machine() as machine:
        machine.wait()
        yield machine


@pytest.fixture(scope="module")
def installed(fresh: Machine, deb: Path) -> Machine:
    """Sections 1 and 2; `deb` is what the command of the page built."""
    assert block("1.", "sh build").text == "packaging/build deb /tmp/authmilter\n"
    done = subprocess.run(
        ["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True, check=True, timeout=30
    )
    fresh.satisfy(f"openssl, {done.stdout.strip()}")  # there, the command of the page has no network
    fresh.path("/tmp/authmilter").mkdir()
    shutil.copy(deb, fresh.path("/tmp/authmilter"))
    assert "\nactive\n" in run(fresh, block("1."))
    run(fresh, block("2."))
    return fresh


@contextlib.contextmanager
def name_server(machine: Machine, zone: str, folder: Path) -> Iterator[None]:
    """It has the TXT records of a zone file, and is the one that the machine asks."""
    records: dict[str, list[str | list[str]]] = {
        "example.org MX": ["10 mx.example.org."],
        "mx.example.org A": ["192.0.2.1"],
    }
    zone = re.sub(r"\(([^)]*)\)", lambda group: group[1].replace("\n", " "), zone)
    for name, strings in re.findall(r'(?m)^(\S+)\. TXT +((?:"[^"\n]*" *)+)$', zone):
        records[f"{name} TXT"] = [re.findall(r'"([^"]*)"', strings)]
    assert len(records) == 5
    file = folder / "zone.json"
    file.write_text(json.dumps({"records": records}))
    first = str(machine._first())
    server = subprocess.Popen(
        ["nsenter", "--target", first, "--net", sys.executable, "-m", "tests.dnsserver", "--port", "53", file],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == "53"
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture(scope="module")
def published(installed: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Section 3, and a name server that has these records."""
    zone = run(installed, block("3.")) + block("3.", "zone").text
    with name_server(installed, zone, tmp_path_factory.mktemp("zone")):
        yield installed


@pytest.fixture(scope="module")
def signing(published: Machine) -> Machine:
    """Section 4."""
    run(published, block("4."))
    wait_for_reload(published)
    return published


@pytest.fixture(scope="module")
def enforcing(signing: Machine) -> tuple[Machine, str]:
    """Section 7, and what it printed."""
    told = run(signing, block("7."))
    wait_for_reload(signing, 2)
    run(signing, block("7.", index=1))
    return signing, told


def deliver_forgery(machine: Machine, word: str, status: int) -> str:
    return machine.run(
        "python3", "-c", CLIENT.replace("backup@mx.test", "root@example.org"), OUTSIDE, "root@example.org", word,
        status=status,
    )  # fmt: skip


def test_the_packages_named_are_those_that_the_build_needs() -> None:
    named = set(block("1.", "sh prepare").text.split("--no-install-recommends", 1)[1].split())
    control = (ROOT / "packaging/debian/control").read_text()
    (needed,) = re.findall(r"(?m)^Build-Depends: (.*)$", control)
    # debhelper-compat is a virtual package of debhelper.
    assert {package.split()[0].removesuffix("-compat") for package in needed.split(", ")} <= named
    assert {"postfix", "openssl", "build-essential"} <= named


def test_a_message_of_ours_arrives_signed_by_the_key_that_is_published(signing: Machine) -> None:
    assert "DKIM-Signature: v=1;" in run(signing, block("5."))
    told = run(signing, block("5.", index=1))
    assert "dkim=pass" in told


def test_a_forgery_is_foretold(signing: Machine) -> None:
    told = run(signing, block("5.", "sh forgery"), status=1)
    assert "550 5.7.23" in told
    assert "SPF fail: 198.51.100.9 is not allowed to send mail for example.org" in told


def test_at_first_it_is_accepted_and_noted(signing: Machine) -> None:
    deliver_forgery(signing, "noted", 0)
    wait_until(lambda: "Subject: noted" in signing.path(INBOX).read_text(), 20, "delivered")
    shown = run(signing, block("6.", "sh look"))
    assert "action=reject" in shown
    assert "enforced=no" in shown
    summary = run(signing, block("6.", "sh look", 1))
    assert re.search(r"(?m)^inbound +0 +0 +0 +0 +1 +0 +1$", summary)
    assert "not enforced, so accepted whatever the verdict" in summary


def test_mail_of_programs_which_name_no_sender_is_signed_too(signing: Machine) -> None:
    signing.run("sh", "-euc", "printf 'Subject: of cron\n\nHello\n' | sendmail root")
    box = signing.path(INBOX)
    wait_until(lambda: "Subject: of cron" in box.read_text(), 20, "delivered")
    (message,) = (one for one in box.read_text().split("\nFrom ") if "Subject: of cron" in one)
    assert "<root@mx.example.org>" in message
    assert "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org;" in message


def test_then_it_is_refused_and_mail_of_ours_is_not(enforcing: tuple[Machine, str]) -> None:
    machine, told = enforcing
    assert re.search(r"(?m)^enforce = yes", told)
    assert "550" in deliver_forgery(machine, "refused", 1)
    before = machine.path(INBOX).read_text().count("Subject: first")
    run(machine, block("5."))
    text = machine.path(INBOX).read_text()
    assert text.count("Subject: first") == before + 1
    assert "Subject: refused" not in text


def test_while_it_is_down_mail_waits(enforcing: tuple[Machine, str]) -> None:
    machine, _ = enforcing
    machine.run("systemctl", "stop", "authmilter")
    try:
        assert "4.7.1 Service unavailable" in deliver_forgery(machine, "meanwhile", 1)
    finally:
        machine.run("systemctl", "start", "authmilter")


def test_the_check_list_of_security_finds_nothing_wrong(enforcing: tuple[Machine, str]) -> None:
    """The commands of contrib/docs/security.md, and what it says that they say."""
    machine, _ = enforcing
    text = (DOCS / "security.md").read_text(encoding="utf-8")
    commands = [
        command
        for command in re.findall(r"`([^`]+)`", text)
        if command.split()[0] in ("find", "authmilter", "systemctl", "openssl")
    ]
    told = {command: machine.run("sh", "-euc", command) for command in commands}
    found = {" ".join(command.split()[:2]): answer.strip() for command, answer in told.items()}
    assert len(commands) == 7
    assert found["find /etc/authmilter/keys"] == ""
    assert found["systemctl show"] == "User=authmilter"
    assert found["openssl rsa"] == "Private-Key: (2048 bit, 2 primes)"
    assert [told[command].split("  ")[0].strip() for command in commands if "show-config" in command] == [
        "internal = 127.0.0.0/8, ::1",
        "enforce = yes",
    ]
    machine.run("authmilter", "status", status=0)
    held = machine.run("authmilter", "restore", "--list", "/root/authmilter.backup")
    assert {"configuration", "file", "state"} <= {line.split(" ")[0] for line in held.splitlines()}


def test_fail2ban_bans_who_is_refused_again_and_again(enforcing: tuple[Machine, str]) -> None:
    """The commands of contrib/fail2ban, with the service of Debian."""
    machine, _ = enforcing
    page = ROOT / "contrib/fail2ban/README.md"
    machine.satisfy("fail2ban, python3-systemd, iptables")
    files = re.findall(r"(?m)^\| \[(.+?)\]\(.+?\) \| `(.+?)`", page.read_text(encoding="utf-8"))
    assert len(files) == 2
    for name, place in files:
        shutil.copy(page.parent / name, machine.path(place))
    commands, sshd = (one for one in blocks(page) if one.heading == "fail2ban")
    machine.path(sshd.file).write_text(sshd.text)
    machine.run("systemctl", "restart", "fail2ban")
    wait_until(lambda: machine.run("fail2ban-client", "ping", status=None).strip() == "Server replied: pong", 20, "up")
    configuration = machine.path("/etc/authmilter/authmilter.ini")
    text = configuration.read_text()
    configuration.write_text(f"{text}[access]\nreject = {OUTSIDE}\n")
    machine.run("systemctl", "reload", "authmilter")
    wait_for_reload(machine, 3)
    for number in range(3):
        deliver_forgery(machine, f"unwelcome-{number}", 1)
    told = machine.run("sh", "-euc", commands.text)
    assert re.search(r"(?m)^Lines: .* 3 matched", told)
    wait_until(lambda: OUTSIDE in machine.run("fail2ban-client", "status", "authmilter"), 20, "banned")
    with pytest.raises(AssertionError, match="Connection refused"):
        deliver_forgery(machine, "banned", 0)
    machine.run("systemctl", "disable", "--now", "fail2ban")
    configuration.write_text(text)
    machine.run("systemctl", "reload", "authmilter")
    wait_for_reload(machine, 4)


@pytest.mark.parametrize(
    ("flag", "folder"), [("X-Spam-Flag: YES\n", "Junk"), ("", "INBOX")], ids=["marked", "not marked"]
)
def test_the_sieve_of_the_page_puts_aside_what_is_marked(
    enforcing: tuple[Machine, str], flag: str, folder: str
) -> None:
    """By sieve-test of Dovecot, which says what it would do."""
    machine, _ = enforcing
    machine.satisfy("dovecot-sieve")
    (script,) = (one.text for one in blocks(DOCS / "policy.md") if "fileinto" in one.text)
    machine.path("/tmp/junk.sieve").write_text(script)
    machine.path("/tmp/message").write_text(f"{flag}Subject: word\n\nHello\n")
    user = ("setpriv", "--reuid", "backup", "--regid", "backup", "--clear-groups", "env", "HOME=/nonexistent")
    told = machine.run(*user, "sieve-test", "/tmp/junk.sieve", "/tmp/message")
    assert re.findall(r"store message in folder: (\w+)", told) == [folder]


def test_taken_out_nothing_of_it_is_left_and_mail_goes_on(enforcing: tuple[Machine, str]) -> None:
    machine, _ = enforcing
    run(machine, block("Take it out again"))
    assert not machine.path("/etc/authmilter").exists()
    assert "milter" not in machine.run("postconf", "-n")
    deliver_forgery(machine, "without", 0)
    wait_until(lambda: "Subject: without" in machine.path(INBOX).read_text(), 20, "delivered")


def test_every_block_of_the_page_is_run_or_named_as_not_run() -> None:
    assert {fence.kind for fence in BLOCKS} == {"sh", "sh prepare", "sh build", "zone", "sh forgery", "sh look"}
    sections = [fence.heading[:2] for fence in BLOCKS if fence.kind == "sh"]
    assert sections == ["1.", "2.", "3.", "4.", "5.", "5.", "7.", "7.", "Ta"]
