"""The Debian package from its installation to its purge, on a Debian of its own under systemd, beside a real Postfix.

The fixtures are steps, each on top of the one before; tests look at what is then.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import MAINTAINER
from tests.packaging.machine import Machine
from tests.packaging.test_documentation import documentation
from tests.rig.sockets import wait_until
from tests.shared import ROOT

CONFIGURATION = "/etc/authmilter/authmilter.ini"
KEY = "/etc/authmilter/keys/mx.test.pem"
SOCKET = "/var/spool/postfix/authmilter/authmilter.sock"
INBOX = "/var/mail/backup"  # of a user that every Debian has
README = ROOT / "packaging/debian/README.Debian"

# A client of Postfix that runs there: arguments are its address, the envelope, and a word to find the message by.
CLIENT = """
import smtplib, sys
client, sender, word = sys.argv[1:]
with smtplib.SMTP("127.0.0.1", 25, local_hostname="client.example", timeout=60, source_address=(client, 0)) as smtp:
    smtp.sendmail(sender, ["backup@mx.test"], f"From: <{sender}>\\r\\nSubject: {word}\\r\\n"
        f"Date: Sun, 22 Nov 2026 12:00:00 +0000\\r\\nMessage-ID: <{word}@client.example>\\r\\n\\r\\n{word}\\r\\n")
"""


def send(machine: Machine, client: str, sender: str, word: str) -> str:
    """The message as it lies in the mailbox."""
    machine.run("python3", "-c", CLIENT, client, sender, word)
    box = machine.path(INBOX)
    wait_until(lambda: box.exists() and f"Subject: {word}" in box.read_text(), 20, "delivered")
    (message,) = (one for one in box.read_text().split("\nFrom ") if f"Subject: {word}" in one)
    return message


def main_pid(machine: Machine) -> str:
    pid = machine.show("authmilter", "MainPID")
    assert pid != "0", machine.journal("authmilter")
    return pid


def wait_for_reload(machine: Machine, number: int = 1) -> None:
    """`systemctl reload` does not wait until all workers have the configuration."""
    wait_until(
        lambda: sum(line.endswith("reloaded") for line in machine.journal("authmilter").splitlines()) >= number,
        20,
        "reloaded",
    )


def status_of(machine: Machine, pid: str) -> dict[str, str]:
    lines = machine.path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def lines_of_readme() -> list[str]:
    """What the README tells to write into main.cf."""
    lines = [line.strip() for line in README.read_text().splitlines()]
    start = lines.index("Postfix, in /etc/postfix/main.cf:") + 2
    return lines[start : lines.index("", start)]


def repacked(deb: Path, folder: Path, version: str) -> Path:
    """The same package as a later version, whose configuration is another one too."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True, timeout=60)
    control = tree / "DEBIAN/control"
    lines = [
        f"Version: {version}" if line.startswith("Version:") else line for line in control.read_text().splitlines()
    ]
    control.write_text("\n".join(lines) + "\n")
    with (tree / CONFIGURATION[1:]).open("a") as file:
        file.write("; of the later version\n")
    later = folder / f"authmilter_{version}.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, later], check=True, timeout=60, capture_output=True)
    shutil.rmtree(tree)
    return later


@pytest.fixture(scope="module")
def before(machine: Machine, deb: Path) -> set[str]:
    """All files from before it was there; what it depends on is."""
    done = subprocess.run(
        ["dpkg-deb", "--field", deb, "Depends"], capture_output=True, text=True, check=True, timeout=30
    )
    machine.satisfy(f"openssl, {done.stdout.strip()}")  # openssl: what administrators make their keys by
    return machine.files()


@pytest.fixture(scope="module")
def installed(machine: Machine, deb: Path, before: set[str]) -> Machine:
    """Installed, and Postfix told as the README says."""
    assert before
    shutil.copy(deb, machine.path("/tmp/authmilter.deb"))
    machine.run("dpkg", "--install", "/tmp/authmilter.deb", seconds=120)
    machine.run("postconf", "-e", "myhostname = mx.test", "mydestination = mx.test", *lines_of_readme())
    machine.run("systemctl", "restart", "postfix")
    return machine


@pytest.fixture(scope="module")
def configured(installed: Machine) -> Machine:
    """With a domain that is signed for."""
    key = installed.path(KEY)
    installed.run("openssl", "genrsa", "-out", KEY, "2048")
    installed.run("chown", "authmilter:", KEY)
    installed.run("chmod", "600", KEY)
    assert key.exists()
    with installed.path(CONFIGURATION).open("a") as file:
        file.write(f"[sign mx.test]\nselector = s1\nkey_file = {KEY}\n")
    installed.run("authmilter", "check-config")
    installed.run("systemctl", "reload", "authmilter")
    wait_for_reload(installed)
    return installed


@pytest.fixture(scope="module")
def upgraded(configured: Machine, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A later version over it."""
    later = repacked(deb, tmp_path_factory.mktemp("later"), "0.1.0-99")
    configured.path("/var/lib/authmilter/kept").write_text("state")
    earlier = main_pid(configured)
    shutil.copy(later, configured.path("/tmp/later.deb"))
    configured.run("dpkg", "--install", "--force-confold", "/tmp/later.deb", seconds=120)
    assert main_pid(configured) != earlier
    return configured


@pytest.fixture(scope="module")
def removed(upgraded: Machine) -> Machine:
    """Removed, but not purged."""
    upgraded.run("dpkg", "--remove", "authmilter")
    return upgraded


@pytest.fixture(scope="module")
def purged(removed: Machine) -> Machine:
    """Nothing ought to be left."""
    removed.run("dpkg", "--purge", "authmilter")
    return removed


def test_lintian_finds_no_fault(deb: Path) -> None:
    (changes,) = deb.parent.glob("*.changes")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", changes], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_no_mail_server_goes_in_favour_of_another(deb: Path) -> None:
    # Where Exim is installed, as in front of many a gateway, apt removes it for the sake of a recommended Postfix.
    done = subprocess.run(
        ["dpkg-deb", "--field", deb, "Pre-Depends", "Depends", "Recommends", "Conflicts"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert "ca-certificates" in done.stdout
    assert not {"postfix", "sendmail-bin", "default-mta", "mail-transport-agent"} & set(
        done.stdout.replace(",", " ").split()
    )


def test_who_built_it_is_its_maintainer(deb: Path) -> None:
    (changes,) = deb.parent.glob("*.changes")
    lines = changes.read_text().splitlines()
    assert {f"Maintainer: {MAINTAINER}", f"Changed-By: {MAINTAINER}"} <= set(lines)
    field = subprocess.run(
        ["dpkg-deb", "--field", deb, "Maintainer"], capture_output=True, text=True, check=True, timeout=30
    )
    assert field.stdout.strip() == MAINTAINER


def test_it_runs_once_it_is_installed(installed: Machine) -> None:
    assert installed.show("authmilter", "ActiveState") == "active"
    assert installed.run("systemctl", "is-enabled", "authmilter").strip() == "enabled"
    assert installed.run("authmilter", "--version").strip() == "authmilter 0.1.0"


def test_its_processes_have_the_rights_of_its_user_and_no_others(installed: Machine) -> None:
    group = installed.show("authmilter", "ControlGroup")
    pids = installed.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs").split()
    uid, gid = installed.run("sh", "-c", "id -u authmilter; id -g authmilter").split()
    assert len(pids) >= 3  # supervisor, exporter, a worker
    for pid in pids:
        status = status_of(installed, pid)
        assert status["Uid"].split() == [uid] * 4
        assert status["Gid"].split() == [gid] * 4
        assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0" * 16
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_it_sees_the_system_as_read_only(installed: Machine) -> None:
    mounts = installed.path(f"/proc/{main_pid(installed)}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
    assert "ro" in options["/"]
    assert "rw" in options["/var/lib/authmilter"]
    assert "rw" in options["/var/spool/postfix/authmilter"]


def test_only_postfix_may_connect(installed: Machine) -> None:
    shown = installed.run("stat", "--format=%U:%G %a", "/var/spool/postfix/authmilter", SOCKET).splitlines()
    assert shown == ["authmilter:postfix 2710", "authmilter:postfix 660"]


def test_postfix_starts_when_the_socket_is_there_and_stops_before_it_goes(installed: Machine) -> None:
    for unit in ("postfix", "postfix@-"):
        assert "authmilter.service" in installed.show(unit, "After").split()


def test_modules_are_compiled_at_installation(installed: Machine) -> None:
    assert any("/site-packages/authmilter/__pycache__/session.cpython-3" in path for path in installed.files())


def test_inbound_mail_gets_its_results(installed: Machine) -> None:
    message = send(installed, "192.0.2.25", "alice@sender.example", "inbound")
    assert "Authentication-Results: mx.test;" in message
    assert "spf=temperror" in message.replace("\n\t", " ")  # no name server answers there
    logged = [line for line in installed.journal("authmilter").splitlines() if "alice@sender.example" in line]
    assert len(logged) == 1
    assert "spf=temperror" in logged[0]


def test_outbound_mail_is_signed(configured: Machine) -> None:
    message = send(configured, "127.0.0.1", "bob@mx.test", "outbound")
    assert "DKIM-Signature:" in message
    assert "d=mx.test; s=s1" in message.replace("\n\t", " ")


def test_the_second_opinion_finds_its_modules_in_the_private_environment(installed: Machine) -> None:
    options = ("--ip", "192.0.2.25", "--helo", "a.example", "--mail-from", "a@a.example", "--rcpt", "b@mx.test")
    told = installed.run(
        "authmilter", "check-message", *options, "--reference", "-", text="From: a@a.example\n\nHi\n", status=None
    )
    assert "pyspf" in told
    assert "No module" not in told


def test_manual_pages_and_bill_of_materials_are_there(installed: Machine) -> None:
    files = installed.files()
    assert {
        "/usr/share/man/man8/authmilter.8.gz",
        "/usr/share/man/man1/authmilter-check-message.1.gz",
        "/usr/share/man/man5/authmilter.conf.5.gz",
        "/usr/share/doc/authmilter/README.Debian",
    } <= files
    assert files & {"/usr/share/doc/authmilter/sbom.cdx.json", "/usr/share/doc/authmilter/sbom.cdx.json.gz"}


def test_pages_and_examples_are_installed_as_they_are(installed: Machine, tmp_path: Path) -> None:
    # Not compressed, so that their links to each other lead somewhere.
    expected = documentation(tmp_path)
    # Where Debian has that of every package.
    assert expected.pop("usr/share/doc/authmilter/CHANGELOG.md")
    assert installed.path("/usr/share/doc/authmilter/changelog.gz").exists()
    assert len(expected) > 30
    assert {name for name, content in expected.items() if installed.path(f"/{name}").read_bytes() != content} == set()
    assert "/usr/share/doc/authmilter/authmilter.ini.sample" in installed.path(CONFIGURATION).read_text()


def test_the_plugin_for_nagios_runs_from_where_it_is_installed(installed: Machine) -> None:
    page = (ROOT / "contrib/nagios/README.md").read_text()
    (command,) = (
        line for line in page.splitlines() if line.startswith("    check_authmilter --socket unix:/var/spool/postfix/")
    )
    words = ["/usr/lib/nagios/plugins/check_authmilter", *command.split()[1:]]
    nobody = ("setpriv", "--reuid", "nobody", "--regid", "nogroup")
    # No name server answers there, which the daemon may have noticed: its status is a problem then, and its figures are told.
    told = installed.run(*nobody, "--groups", "postfix", *words, status=None)
    assert {"'handshake'", "'workers'"} <= {word.partition("=")[0] for word in told.split()}
    assert installed.run(*nobody, "--groups", "postfix", *words[:3]).startswith("AUTHMILTER OK - milter handshake in ")
    # Who is not in the group of the socket may still ask for the status.
    told = installed.run(*nobody, "--clear-groups", *words, status=None)
    assert "is this user in the group" in told
    assert "'workers'=" in told


def test_mistakes_in_the_configuration_are_told_and_not_tried_again(configured: Machine) -> None:
    file = configured.path(CONFIGURATION)
    good = file.read_text()
    try:
        file.write_text(f"{good}\n[milter]\nsockett = x\n")
        configured.run("systemctl", "restart", "authmilter", status=1)
        assert configured.show("authmilter", "ExecMainStatus") == "78"
        assert configured.show("authmilter", "NRestarts") == "0"
        assert "sockett" in configured.journal("authmilter")
    finally:
        file.write_text(good)
        configured.run("systemctl", "reset-failed", "authmilter")
        configured.run("systemctl", "start", "authmilter")


def test_a_configuration_that_is_refused_does_not_stop_an_upgrade(configured: Machine) -> None:
    file = configured.path(CONFIGURATION)
    good = file.read_text()
    try:
        file.write_text(f"{good}\n[milter]\nsockett = x\n")
        configured.run("dpkg", "--install", "/tmp/authmilter.deb", seconds=120)
        assert configured.run("dpkg-query", "--show", "--showformat=${Status}", "authmilter") == "install ok installed"
        assert configured.show("authmilter", "ExecMainStatus") == "78"
    finally:
        file.write_text(good)
        configured.run("systemctl", "reset-failed", "authmilter")
        configured.run("systemctl", "start", "authmilter")


def test_a_killed_daemon_is_started_again(configured: Machine) -> None:
    first = main_pid(configured)
    configured.run("sh", "-c", f"kill -KILL {first}")
    wait_until(
        lambda: (
            configured.show("authmilter", "ActiveState") == "active"
            and configured.show("authmilter", "MainPID") not in ("0", first)
        ),
        60,
        "it is back",
    )
    assert "Authentication-Results" in send(configured, "192.0.2.25", "alice@sender.example", "again")


def test_an_upgrade_keeps_configuration_keys_and_state(upgraded: Machine) -> None:
    assert "[sign mx.test]" in upgraded.path(CONFIGURATION).read_text()
    assert upgraded.path(f"{CONFIGURATION}.dpkg-dist").exists()
    assert upgraded.path(KEY).exists()
    assert upgraded.path("/var/lib/authmilter/kept").read_text() == "state"


def test_an_upgraded_daemon_serves(upgraded: Machine) -> None:
    assert upgraded.show("authmilter", "ActiveState") == "active"
    assert "DKIM-Signature:" in send(upgraded, "127.0.0.1", "bob@mx.test", "upgraded")


def test_removal_keeps_what_is_the_administrators(removed: Machine) -> None:
    assert removed.path(CONFIGURATION).exists()
    assert removed.path(KEY).exists()
    assert removed.path("/var/lib/authmilter/kept").exists()
    assert not removed.path("/usr/lib/authmilter").exists()
    assert removed.run("systemctl", "is-active", "authmilter", status=None).strip() != "active"


def test_without_it_mail_waits_until_its_lines_are_taken_out_of_postfix(removed: Machine) -> None:
    with pytest.raises(AssertionError, match=r"4\.7\.1 Service unavailable"):
        send(removed, "192.0.2.25", "alice@sender.example", "early")
    removed.run("postconf", "-X", *(line.partition(" =")[0] for line in lines_of_readme()))
    removed.run("systemctl", "reload", "postfix")
    assert "Authentication-Results:" not in send(removed, "192.0.2.25", "alice@sender.example", "without")


def test_a_purge_leaves_nothing(purged: Machine, before: set[str]) -> None:
    # Logs tell what was, and Postfix and systemd go on with their own work.
    ours = {path for path in purged.files() - before if "authmilter" in path or "nagios" in path}
    assert ours == set()
    assert "authmilter" not in purged.run("cat", "/etc/passwd", "/etc/group", "/etc/shadow")
    assert purged.run("find", "/", "-xdev", "-nouser", "-o", "-nogroup").strip() == ""
