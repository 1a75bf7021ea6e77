"""Which recipients of outbound mail are refused at once."""

import pytest

from authmilter.checks.recipient_domain import recipient_domain
from authmilter.errors import DnsTempError
from authmilter.evidence import Finding
from authmilter.model import Direction, Envelope, Mailbox, Stage, Transaction
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import mailbox, reply
from tests.fakes import FakeDNS

ON = "[recipient_domain]\nenabled = yes\n"
RECORDS = {
    "good.example MX": ["10 mx.good.example"],
    "plain.example A": ["203.0.113.1"],
    "text.example TXT": ["hello"],
    "null.example MX": ["0 ."],
    "both.example MX": ["0 .", "10 mx.good.example"],
}


def rcpt(*addresses: str) -> Transaction:
    return Transaction(
        envelope=Envelope(
            mailbox("a@example.org"), tuple(map(mailbox, addresses)), "alice", direction=Direction.OUTBOUND
        )
    )


async def found(tx: Transaction, config: str = ON, dns: FakeDNS | None = None) -> list[Finding]:
    return await awaited(recipient_domain, tx, tools("recipient_domain", config=config, dns=dns or FakeDNS(RECORDS)))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("good.example", []),
        ("plain.example", []),
        ("both.example", []),
        ("text.example", []),
        ("null.example", ["recipient_null_mx"]),
        ("nowhere.example", ["recipient_domain_nonexistent"]),
    ],
)
async def test_the_domain_of_the_newest_recipient(domain: str, expected: list[str]) -> None:
    assert await found(rcpt(f"b@{domain}")) == [Finding(symbol, domain) for symbol in expected]
    assert await found(rcpt("b@null.example", f"b@{domain}")) == [Finding(symbol, domain) for symbol in expected]


@pytest.mark.parametrize(
    ("config", "domain"),
    [
        ("[identity]\nlocal_domains = nowhere.example\n", "nowhere.example"),
        ("[identity]\nlocal_domains = .nowhere.example\n", "sub.nowhere.example"),
        (ON + "exempt = nowhere.example, corp.example\n", "corp.example"),
        (ON + "exempt = .nowhere.example\n", "sub.nowhere.example"),
    ],
)
async def test_domains_that_are_not_looked_up(config: str, domain: str) -> None:
    dns = FakeDNS()
    assert await found(rcpt(f"b@{domain}"), config, dns) == []
    assert dns.asked == []


async def test_a_recipient_without_domain_is_not_looked_up() -> None:
    dns = FakeDNS()
    literal = rcpt()._replace(envelope=Envelope(None, (Mailbox(b"a", b"[192.0.2.1]", ""),)))
    assert await found(literal, dns=dns) == []
    assert dns.asked == []


async def test_a_server_that_denies_the_name_for_mx_alone() -> None:
    class Odd(FakeDNS):
        async def query(self, name: str, rdtype: str):  # type: ignore[no-untyped-def]
            answer = await super().query(name, rdtype)
            return answer._replace(exists=False) if rdtype == "MX" else answer

    assert await found(rcpt("b@plain.example"), dns=Odd(RECORDS)) == []


@pytest.mark.parametrize("rdtype", ["MX", "A", "AAAA"])
async def test_a_temporary_failure_is_no_missing_domain(rdtype: str) -> None:
    with pytest.raises(DnsTempError):
        await found(rcpt("b@nowhere.example"), dns=FakeDNS(fail=[f"nowhere.example {rdtype}"]))


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("recipient_null_mx", "556 5.1.10 null.example accepts no mail (null MX) [ref]"),
        ("recipient_domain_nonexistent", "550 5.1.2 null.example does not exist [ref]"),
        ("recipient_domain_temperror", ""),
    ],
)
def test_the_reply(symbol: str, expected: str) -> None:
    assert reply(rcpt("b@null.example"), Stage.RCPT, [Finding(symbol, "null.example")], ON) == expected


def test_it_is_off_by_itself() -> None:
    assert not is_wanted("recipient_domain", "")
    assert is_wanted("recipient_domain", ON)
