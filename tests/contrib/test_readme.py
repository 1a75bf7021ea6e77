"""README.md: its first configuration signs mail in a real Postfix, the commands for the classifier work."""

import mailbox
import re
import subprocess
import sys
from pathlib import Path

import dkim

from tests.classifier.mail import raw
from tests.contrib.mta import PagePostfix, replaced
from tests.contrib.page import blocks, configuration, merged, settings
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.exim import behind_gateway, lines_of
from tests.rig.mail import BAD_IP, message, zone
from tests.rig.postfix import require_rig
from tests.rig.sink import Sink
from tests.shared import ROOT

README = ROOT / "README.md"
KEYS = "/etc/authmilter/keys"


def below(heading: str, page: Path = README) -> list[str]:
    """The blocks below a heading."""
    return [block.text for block in blocks(page) if block.heading == heading]


def test_the_first_configuration_signs_and_refuses_nothing(sink: Sink, marker: str, tmp_path: Path) -> None:
    require_rig()
    main, text, commands = below("First configuration for Postfix")
    printed = subprocess.run(
        ["sh", "-euc", replaced(commands, {KEYS: str(tmp_path)})],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    name, strings = re.fullmatch(r'(\S+)\. TXT \(((?:\s*"[^"]*")+)\s*\)\s*', printed).groups()  # type: ignore[union-attr]
    record = "".join(re.findall(r'"([^"]*)"', strings))
    assert all(len(string) <= 255 for string in re.findall(r'"([^"]*)"', strings))
    lines = configuration(replaced(text, {KEYS: str(tmp_path)}))
    with (
        DNSServer(zone()) as dns,
        Daemon("inet", merged(lines, {"dns": {"nameservers": dns.address}})) as daemon,
        PagePostfix(sink.port, settings(replaced(main, {":8891": f":{daemon.port}"}))) as postfix,
    ):
        assert postfix.send(message(f"{marker}-smtp", "a@example.org"), mail_from="a@example.org").accepted
        postfix.submit_locally(message(f"{marker}-local", "a@example.org"), "a@example.org", "user@test")
        for way in ("smtp", "local"):
            content = sink.find(f"{marker}-{way}".encode()).content
            assert dkim.DKIM(content).verify(
                dnsfunc=lambda asked, timeout=5: {f"{name}.": record}[asked.decode()].encode()
            )
        forged = message(f"{marker}-forged", "a@bank.example")
        assert postfix.send(forged, mail_from="a@bank.example", addr=BAD_IP).accepted
        assert daemon.log_lines("action=reject", "enforced=no")
        daemon.stop()
        waits = postfix.send(message(f"{marker}-down", "a@example.org"), mail_from="a@example.org")
        assert waits.code == 451


def test_the_classifier_learns_and_is_judged_by_the_commands(tmp_path: Path) -> None:
    homes = {"~alice": str(tmp_path / "alice"), "/var/mail/bob": str(tmp_path / "bob")}
    (tmp_path / "alice/Maildir").mkdir(parents=True)
    boxes: list[tuple[mailbox.Mailbox[mailbox.Message], bool]] = [
        (mailbox.Maildir(tmp_path / "alice/Maildir/.Archive"), False),
        (mailbox.mbox(tmp_path / "bob"), False),
        (mailbox.Maildir(tmp_path / "alice/Maildir/.Junk"), True),
    ]
    for start, (box, spam) in enumerate(boxes):
        for number in range(40):
            box.add(raw(100 * start + number, spam))
        box.close()
    (tmp_path / "am.ini").write_text(
        f"[classifier]\ntable = {tmp_path}/state/table\nminimum_ham = 30\nminimum_spam = 30\n"
    )
    command = tmp_path / "authmilter"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m authmilter.cli -c {tmp_path}/am.ini "$@"\n')
    command.chmod(0o755)

    def run(text: str) -> str:
        script = f"PATH={tmp_path}:$PATH\nPYTHONPATH={ROOT}\nexport PYTHONPATH\n{text}"
        return subprocess.run(
            ["sh", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
        ).stdout

    learn, evaluate = below("Teach it what is spam here", ROOT / "contrib/docs/classifier.md")
    told = run(replaced(learn, homes))
    assert re.findall(r"(\d+) messages read, (\d+) new", told) == [("80", "80"), ("40", "40")]
    assert "0 new" in run(replaced(learn, homes)), "what it knows costs nothing"
    told = run(replaced(evaluate, {"~alice": homes["~alice"]}))
    assert "plots are in plots\n" in told
    plots = {file.name for file in (tmp_path / "plots").iterdir()}
    assert {"roc.png", "precision-recall.png", "histogram-trained.png"} <= plots


def test_the_line_for_sendmail_is_the_same_everywhere() -> None:
    """Sendmail itself is tested with that of contrib/sendmail/authmilter.mc."""
    tested = (ROOT / "contrib/sendmail/authmilter.mc").read_text().splitlines()
    pages = ("contrib/sendmail/README.md", "contrib/docs/start-sendmail.md", "packaging/debian/README.Debian")
    for page in pages:
        (line,) = re.findall(r"(?m)^ *(INPUT_MAIL_FILTER\(.*)$", (ROOT / page).read_text())
        assert line in tested, page


def test_the_lines_of_the_gateway_are_those_that_exim_is_tested_with() -> None:
    """tests/rig/test_gateway.py starts Exim from these."""
    macros, transport = below("Exim", ROOT / "contrib/gateway/README.md")
    exim = behind_gateway("example.org", 25)
    include = ".include /etc/exim4/gateway/exim-main.conf\n"
    assert replaced(macros, {"192.0.2.10": "127.0.0.1", include: lines_of("exim-main.conf")}) == exim._lines["main"]
    (choice,) = re.findall(r"\$\{if .*\}", transport)
    assert re.search(rf"(?m)^  directory = .*/{re.escape(choice)}$", exim._configuration())
