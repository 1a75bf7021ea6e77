"""Who shares a count with whom, and what is counted."""

from ipaddress import ip_address

import pytest

from authmilter.check import Tools
from authmilter.checks.sender_rate import sender_rate
from authmilter.errors import StoreError
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Envelope, Stage, Transaction
from authmilter.store.memory import MemoryStore
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.verdicts import mailbox, reply

TWO = "[sender_rate]\nmessages = 2/1h\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def rcpt(
    sender: str = "a@example.org",
    client: str = "203.0.113.9",
    spf: Result = Result.PASS,
    *,
    nth: int = 1,
    refused: int = 0,
) -> Transaction:
    return Transaction(
        Connection(client_ip=ip_address(client) if client else None),
        envelope=Envelope(mailbox(sender) if sender else None, (mailbox("b@example.net"),) * nth),
        results=(AuthResult("spf", spf, sender.rpartition("@")[2].lower()),),
        refused_recipients=refused,
    )


def with_store(store: MemoryStore, config: str = TWO) -> Tools:
    return tools("sender_rate", config=config)._replace(store=store)


async def exceeded(given: Tools, *transactions: Transaction) -> list[bool]:
    return [bool(await awaited(sender_rate, tx, given)) for tx in transactions]


async def test_messages_over_the_limit_until_the_window_ends() -> None:
    clock = Clock()
    given = with_store(MemoryStore(clock=clock))
    assert await exceeded(given, *[rcpt()] * 4) == [False, False, True, True]
    clock.now += 3599
    assert await exceeded(given, rcpt()) == [True]
    clock.now += 2
    assert await exceeded(given, rcpt()) == [False]


async def test_several_limits() -> None:
    clock = Clock()
    given = with_store(MemoryStore(clock=clock), "[sender_rate]\nmessages = 2/1m, 3/1h\n")
    assert await exceeded(given, *[rcpt()] * 3) == [False, False, True]
    clock.now += 61
    assert await exceeded(given, rcpt()) == [True]  # the fourth in an hour
    clock.now += 3600
    assert await exceeded(given, rcpt()) == [False]


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param(rcpt("x@EXAMPLE.org", "198.51.100.1"), True, id="another mailbox and client, SPF pass"),
        pytest.param(rcpt("a@example.com"), False, id="another domain"),
        pytest.param(rcpt(spf=Result.FAIL), False, id="the same without SPF pass"),
    ],
)
async def test_a_domain_that_passes_spf_has_one_count(other: Transaction, shared: bool) -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, rcpt(), rcpt())
    assert await exceeded(given, other) == [shared]


@pytest.mark.parametrize(
    ("first", "other", "shared"),
    [
        pytest.param("203.0.113.9", "203.0.113.200", True, id="one /24"),
        pytest.param("203.0.113.9", "203.0.114.9", False, id="another /24"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1", True, id="one /64"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="another /64"),
        pytest.param("", "203.0.113.9", False, id="an unknown client"),
    ],
)
@pytest.mark.parametrize("spf", [Result.NONE, Result.SOFTFAIL, Result.TEMPERROR])
async def test_without_spf_pass_a_count_is_of_one_network(first: str, other: str, shared: bool, spf: Result) -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, *[rcpt(client=first, spf=spf)] * 2)
    assert await exceeded(given, rcpt(client=other, spf=spf)) == [shared]


async def test_nobody_can_use_up_the_limit_of_another() -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, *[rcpt(client="198.51.100.1", spf=Result.FAIL)] * 50)
    assert await exceeded(given, rcpt()) == [False]


async def test_spf_pass_of_the_helo_name_does_not_count_for_the_domain() -> None:
    given = tools("sender_rate", config=TWO)
    helo = rcpt(spf=Result.NONE)._replace(results=(AuthResult("spf_helo", Result.PASS, "example.org"),))
    await exceeded(given, *[helo] * 3)
    assert await exceeded(given, rcpt()) == [False]


async def test_a_message_counts_once_whatever_becomes_of_its_recipients() -> None:
    given = tools("sender_rate", config=TWO)
    many = [rcpt(), rcpt(nth=2), rcpt(nth=3)]
    after_refusals = [rcpt(), rcpt(refused=1), rcpt(refused=2)]
    assert not any(await exceeded(given, *many, *after_refusals))
    # The third is over: so are all of its recipients, none of which was accepted.
    assert await exceeded(given, rcpt(), rcpt(refused=1), rcpt(refused=2)) == [True] * 3


@pytest.mark.parametrize("sender", ["", "a@example.com", "a@mail.example.info"])
async def test_no_limit_for_the_null_reverse_path_and_what_is_exempt(sender: str) -> None:
    store = MemoryStore()
    given = with_store(store, TWO + "exempt = example.com, .example.info\n")
    assert not any(await exceeded(given, *[rcpt(sender)] * 5))
    assert len(store) == 0


async def test_a_store_that_fails_is_not_the_senders_fault() -> None:
    store = MemoryStore()
    await store.close()
    with pytest.raises(StoreError):  # which the pipeline makes a finding of, without weight
        await exceeded(with_store(store), rcpt())


async def test_the_reply_names_no_limit() -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, rcpt(), rcpt())
    found = await awaited(sender_rate, rcpt(), given)
    assert found == [Finding("sender_rate_exceeded", "example.org: 3 in 0 s")]
    assert (
        reply(rcpt(), Stage.RCPT, found, TWO)
        == "451 4.7.28 Too much mail from example.org for now, please try again later [ref]"
    )


def test_it_is_off_without_a_limit() -> None:
    assert not is_wanted("sender_rate", "")
    assert not is_wanted("sender_rate", "[sender_rate]\nexempt = example.org\n")
    assert is_wanted("sender_rate", TWO)
