"""For the tests of what watches the daemon: programs that have to be there, and traffic that leaves traces."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.dnsserver import DNSServer
from tests.milter.client import MilterClient
from tests.rig.daemon import Configuration, Daemon
from tests.rig.mail import zone
from tests.shared import ROOT

CONTRIB = ROOT / "contrib"
GOOD, FORGER, LISTED, TRAPPED, REFUSED = (
    b"192.0.2.10",
    b"203.0.113.66",
    b"203.0.113.98",
    b"203.0.113.67",
    b"203.0.113.99",
)
# Values that read as a verdict, by one who would have somebody else banned.
ODD_HELO = b'x" action=reject because=spamtrap reply="550 "action": "reject", "because": "spamtrap", "reply": "550'
SETTINGS: dict[str, dict[str, object]] = {
    "identity": {"local_domains": "bank.example", "authserv_id": "mx.test"},
    "access": {"reject": REFUSED.decode()},
    "spamtraps": {"addresses": "trap@test"},
    "scores": {"spamtrap": "reject"},
    "dnsbl zen": {"zone": "zen.example", "score": "2"},
}
RECORDS: dict[str, list[str | bytes]] = {
    "98.113.0.203.zen.example A": ["127.0.0.2"],
    "2.0.0.127.zen.example A": ["127.0.0.2"],
}


def required(program: str) -> str:
    """The path of a program; without it the test is skipped, or fails where AUTHMILTER_REQUIRE_RIG says that it must be."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("AUTHMILTER_REQUIRE_RIG") == "1":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return path


@contextmanager
def visited_daemon(
    changes: Configuration | None = None, *, settings: Configuration = SETTINGS, family: str = "inet"
) -> Iterator[Daemon]:
    """A daemon with those settings, to whom everybody came once."""
    with DNSServer({**zone(), **RECORDS}, {"broken.example": "servfail"}) as dns:
        whole: dict[str, dict[str, object]] = {"dns": {"nameservers": dns.address}}
        for section, options in [*settings.items(), *(changes or {}).items()]:
            whole[section] = {**whole.get(section, {}), **options}
        with Daemon(family, whole) as daemon:
            visit(daemon)
            yield daemon


def visit(daemon: Daemon) -> None:
    """Mail of every kind: good, forged, from a listed host, to a trap, refused at connect, of a domain whose servers fail,
    and of our own."""
    for address, helo, sender, recipient in (
        (GOOD, b"mail.good.example", b"a@good.example", b"<u@test>"),
        (GOOD, ODD_HELO, b"a@good.example", b"<u@test>"),
        (FORGER, b"mx.example", b"ceo@bank.example", b"<u@test>"),
        (LISTED, b"mx.example", b"b@strict.example", b"<u@test>"),
        (TRAPPED, b"mx.example", b"b@strict.example", b"<trap@test>"),
        (REFUSED, b"mx.example", b"b@strict.example", b"<u@test>"),
        (GOOD, b"mail.good.example", b"a@broken.example", b"<u@test>"),
        (b"127.0.0.1", b"localhost", b"me@sender.example", b"<u@elsewhere.example>"),
    ):
        where = f"unix:{daemon.unix_path}" if daemon.family == "unix" else f"inet:{daemon.port}@127.0.0.1"
        with MilterClient(where) as mta:
            mta.negotiate()
            reply = mta.connect(host=b"[%s]" % address, address=address, macros={b"j": b"mx.test"})
            if reply is not None and reply.letter != "c":
                continue
            mta.helo(helo)
            mta.message(b"<%s>" % sender, [recipient], [(b"From", b" " + sender), (b"Subject", b" x")])
