"""The page on the migration: its example says the same as the files it is made of, signs with the old keys, and the change
loses no mail."""

import configparser
import re
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

import dkim
import pytest

from authmilter.config import ini
from authmilter.networks import contains
from authmilter.verdict import Action
from tests.contrib.fences import DOCS, of_kind
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.mail import message, rsa_pem, zone
from tests.rig.postfix import PROGRAMS, Postfix, require_rig
from tests.rig.sink import Sink

PAGE = DOCS / "migration.md"
INI = of_kind(PAGE, "ini authmilter.ini")
CONFIG = ini.load(None, INI, check_files=False)


def options(kind: str) -> dict[str, str]:
    """Lines `Name value` or `Name = value`."""
    lines = (re.split(r"\s*=\s*|\s+", line, maxsplit=1) for line in of_kind(PAGE, kind).splitlines())
    return {name: value.strip() for name, value in lines}


OPENDKIM, OPENDMARC, POLICYD = (options(f"{name}.conf") for name in ("opendkim", "opendmarc", "policyd-spf"))


class Signing(NamedTuple):
    """What SigningTable and KeyTable say of an author's domain."""

    author: str
    domain: str
    selector: str
    file: str


def signings() -> list[Signing]:
    keys = dict(line.split() for line in of_kind(PAGE, "KeyTable").splitlines())
    found = []
    for line in of_kind(PAGE, "SigningTable").splitlines():
        pattern, name = line.split()
        assert pattern.startswith("*@")
        found.append(Signing(pattern[2:], *keys[name].split(":")))
    return found


def test_the_example_loads_without_a_warning() -> None:
    assert ini.load_with_origins(None, INI, check_files=False).warnings == ()


def test_every_option_of_the_old_files_is_in_the_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in (*OPENDKIM, *OPENDMARC, *POLICYD):
        assert re.search(rf"(?m)^\|[^|]*`{name}`", text), name


def test_the_example_signs_for_whom_the_tables_of_opendkim_sign() -> None:
    assert {s.author for s in signings()} == set(CONFIG.sign)
    for signing in signings():
        ours = CONFIG.sign[signing.author]
        assert (ours.domain or signing.author, ours.selector) == (signing.domain, signing.selector)


def test_the_example_knows_the_hosts_and_names_of_the_old_files() -> None:
    for host in of_kind(PAGE, "TrustedHosts").split():
        assert contains(CONFIG.networks.internal, ip_network(host)[0])
    assert CONFIG.identity.authserv_id == OPENDMARC["AuthservID"]
    for host in POLICYD["skip_addresses"].split(","):
        assert contains((*CONFIG.networks.internal, *CONFIG.spf.skip), ip_network(host)[0])
    assert not contains((*CONFIG.networks.internal, *CONFIG.spf.skip), ip_address("198.51.100.26"))


def test_the_example_refuses_and_defers_what_the_old_programs_did() -> None:
    assert (OPENDMARC["RejectFailures"], CONFIG.scores["dmarc_fail_reject"]) == ("true", Action.REJECT)
    assert (POLICYD["Mail_From_reject"], CONFIG.scores["spf_fail"]) == ("Fail", Action.REJECT)
    assert (POLICYD["HELO_reject"], CONFIG.scores["spf_helo_fail"]) == ("Fail", Action.REJECT)
    assert (OPENDKIM["On-DNSError"], CONFIG.dkim.on_temperror) == ("tempfail", "defer")
    assert (POLICYD["TempError_Defer"], CONFIG.spf.on_temperror) == ("False", "accept")


def postfix_lines(kind: str, sockets: dict[str, str]) -> list[list[str]]:
    """Commands of a block, as words; sockets are those of a test."""
    text = of_kind(PAGE, kind)
    for name, address in sockets.items():
        assert f"unix:{name}/{name}.sock" in text or kind == "sh switch"
        text = text.replace(f"unix:{name}/{name}.sock", address)
    words = subprocess.run(
        ["sh", "-c", re.sub(r"(?m)^(\w+)", r"printf '%s\\n' -- \1", text)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    commands: list[list[str]] = []
    for word in words:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def carry_out(postfix: Postfix, commands: list[list[str]]) -> None:
    """They are of this Postfix, not of the machine's."""
    for program, *arguments in commands:
        assert program in ("postconf", "postfix")
        subprocess.run(
            [PROGRAMS / program, "-c", postfix.folder / "etc", *arguments], check=True, capture_output=True, timeout=60
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="authmilter-migration-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def configuration(folder: Path) -> dict[str, dict[str, object]]:
    """The example, its keys copied by the commands of the page."""
    commands = of_kind(PAGE, "sh keys").replace("-o authmilter ", "")
    for signing in signings():
        assert signing.file in commands
        old = Path(f"{folder}{signing.file}")
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_bytes(rsa_pem())
    (folder / "etc/authmilter/keys").mkdir(parents=True)
    subprocess.run(["sh", "-euc", commands.replace(" /etc/", f" {folder}/etc/")], check=True, timeout=30)
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.read_string(INI.replace("/etc/authmilter", f"{folder}/etc/authmilter"))
    settings: dict[str, dict[str, object]] = {name: dict(parser[name]) for name in parser.sections()}
    del settings["milter"]
    return settings


def test_the_change_loses_no_mail_and_signs_with_the_old_keys(
    folder: Path, configuration: dict[str, dict[str, object]]
) -> None:
    require_rig()
    (key,) = zone()["r._domainkey.sender.example TXT"]
    assert isinstance(key, str)
    records = {f"{s.selector}._domainkey.{s.domain} TXT": [key] for s in signings()}
    trial = {name: options for name, options in configuration.items() if not name.startswith("sign ")}
    trial["identity"] = {**trial["identity"], "authserv_id": "trial.mx.example.org"}
    with DNSServer(records) as dns, Sink() as sink:
        # In the place of the two old programs: signatures of OpenDKIM, results of OpenDMARC.
        names = {"dns": {"nameservers": dns.address}}
        with (
            Daemon("unix", {**configuration, **names}) as opendkim,
            Daemon("unix", {"identity": {"authserv_id": "old.example"}, **names}) as opendmarc,
            Daemon("unix", {**trial, **names}) as ours,
            Postfix([opendkim.address], sink.port) as postfix,
        ):
            sockets = {"authmilter": ours.address, "opendkim": opendkim.address, "opendmarc": opendmarc.address}
            carry_out(postfix, postfix_lines("sh trial", sockets))
            assert postfix.send(message("during", "a@example.org"), mail_from="a@example.org").accepted
            assert len(sink.find(b"during").values(b"DKIM-Signature")) == 1

            with postfix.smtp() as open_session:
                assert open_session.docmd("MAIL", "FROM:<a@example.net>")[0] == 250
                ours.configure({**configuration, **names})
                ours.reload()
                carry_out(postfix, postfix_lines("sh switch", {"authmilter": ours.address}))
                assert open_session.docmd("RCPT", "TO:<user@test>")[0] == 250
                assert open_session.docmd("DATA")[0] == 354
                assert open_session.finish(message("midway", "a@example.net"))[0] == 250
            assert len(sink.find(b"midway").values(b"DKIM-Signature")) == 1
            opendkim.stop()
            opendmarc.stop()

            for signing in signings():
                author = f"a@{signing.author}"
                marker = f"after-{signing.author}"
                assert postfix.send(message(marker, author), mail_from=author).accepted
                delivery = sink.find(marker.encode())
                (signature,) = delivery.values(b"DKIM-Signature")
                assert f"d={signing.domain};".encode() in signature
                assert f"s={signing.selector};".encode() in signature
                assert dkim.DKIM(delivery.content).verify(
                    dnsfunc=lambda name, timeout=5: records[f"{name.decode().rstrip('.')} TXT"][0].encode()
                )
            assert not postfix.queue()
