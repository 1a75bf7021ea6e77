"""Lists of the configuration, which may be very long, are not gone through for every client or message."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from authmilter.check import Tools
from authmilter.checks.connections import connections
from authmilter.checks.helo_literal import helo_literal_address
from authmilter.checks.helo_name import helo_name
from authmilter.checks.recipient_domain import recipient_domain
from authmilter.checks.sender_address import sender_is_local
from authmilter.checks.sender_rate import sender_rate
from authmilter.clients import reader
from authmilter.config import ini
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.forwarding import with_override
from authmilter.model import Connection, Envelope, Transaction
from authmilter.networks import NameList, NetworkList
from tests.checks.tools import tools
from tests.checks.verdicts import mailbox


class Reads:
    """How often anything went through one of the lists."""

    def __init__(self) -> None:
        self.count = 0


def counted(kind: type, items: tuple[Any, ...], reads: Reads) -> Any:
    """A list of that kind that counts how often it is gone through."""

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object) -> Any:
            reads.count += 1
            return method(*args)

        return call

    methods = {name: counting(getattr(tuple, name)) for name in ("__iter__", "__contains__", "__hash__", "__eq__")}
    return type("Counted", (kind,), methods)(items)


TEXT = """
[connections]
per_address = 100
exempt = 192.0.2.0/24
[sender_rate]
messages = 100/1h
exempt = example.net
[recipient_domain]
enabled = yes
exempt = example.net
"""
TX = Transaction(
    Connection(ip_address("203.0.113.9"), "mail.example.com"),
    b"mail.example.com",
    "mail.example.com",
    Envelope(mailbox("a@example.com"), (mailbox("b@example.com"),)),
    results=(
        AuthResult("iprev", Result.PASS, "mail.example.com"),
        AuthResult("spf", Result.FAIL, "example.com"),
        AuthResult("dkim", Result.PASS, "example.com"),
    ),
)

Check = Callable[[Transaction, Tools], Iterator[Finding] | AsyncIterator[Finding]]


@pytest.mark.parametrize(
    ("name", "check", "lists"),
    [
        ("connections", connections, 1),
        ("sender_rate", sender_rate, 1),
        ("recipient_domain", recipient_domain, 2),
        ("sender_is_local", sender_is_local, 4),  # forwarders too
        ("helo_name", helo_name, 1),
        ("helo_literal_address", helo_literal_address, 2),
    ],
)
async def test_a_check_goes_through_its_lists_once(name: str, check: Check, lists: int) -> None:
    reads = Reads()
    given = tools(name, config=TEXT)
    networks = counted(NetworkList, (ip_network("192.0.2.0/24"),), reads)
    relays = counted(NetworkList, (ip_network("2001:db8::/32"),), reads)
    names = counted(NameList, ("example.net",), reads)
    config = replace(
        given.config,
        identity=replace(
            given.config.identity, local_domains=counted(NameList, ("example.com", ".example.net"), reads)
        ),
        networks=replace(given.config.networks, internal=networks, trusted_relays=relays),
        forwarders=replace(given.config.forwarders, networks=networks, names=names, dkim=names),
    )
    options = given.options
    if options is not None:
        options = replace(options, exempt=networks if name == "connections" else names)
    given = given._replace(config=config, options=options)
    helo = b"[198.51.100.1]" if name == "helo_literal_address" else TX.helo
    for _ in range(20):
        found = check(TX._replace(helo=helo), given)
        if isinstance(found, AsyncIterator):
            [finding async for finding in found]
        else:
            list(found)
    assert 1 <= reads.count <= lists


def test_networks_are_gone_through_once_for_all_clients() -> None:
    reads = Reads()
    networks = replace(
        ini.load(None, "").networks,
        internal=counted(NetworkList, (ip_network("192.0.2.0/24"),), reads),
        trusted_relays=counted(NetworkList, (ip_network("198.51.100.0/24"),), reads),
    )
    read = reader(networks)
    clients = [read(f"192.0.{number}.1".encode()) for number in range(20)]
    assert [client.internal for client in clients] == [number == 2 for number in range(20)]
    assert read(b"198.51.100.7").trusted_relay
    assert reads.count == 2


def test_forwarders_are_gone_through_once() -> None:
    reads = Reads()
    config = ini.load(None, "")
    forwarders = replace(
        config.forwarders,
        networks=counted(NetworkList, (ip_network("192.0.2.0/24"),), reads),
        names=counted(NameList, ("example.net",), reads),
        dkim=counted(NameList, (".example.com",), reads),
    )
    for _ in range(20):
        tx = with_override(TX, replace(config, forwarders=forwarders))
        assert tx.results[1].reason.endswith("forwarded by dkim .example.com")
    assert reads.count == 3


def test_lists_of_a_file_can_be_searched() -> None:
    config = ini.load(None, "[identity]\nlocal_domains = Example.NET\n[networks]\ninternal = 192.0.2.1\n")
    assert type(config.identity.local_domains) is NameList
    assert type(config.networks.internal) is NetworkList
