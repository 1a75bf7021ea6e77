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


def data(
    sender: str = "a@example.org",
    client: str = "203.0.113.9",
    spf: Result = Result.PASS,
    *,
    recipients: int = 1,
) -> Transaction:
    return Transaction(
        Connection(client_ip=ip_address(client) if client else None),
        envelope=Envelope(mailbox(sender) if sender else None, (mailbox("b@example.net"),) * recipients),
        results=(AuthResult("spf", spf, sender.rpartition("@")[2].lower()),),
    )


def with_store(store: MemoryStore, config: str = TWO) -> Tools:
    return tools("sender_rate", config=config)._replace(store=store)


async def exceeded(given: Tools, *transactions: Transaction) -> list[bool]:
    return [bool(await awaited(sender_rate, tx, given)) for tx in transactions]


async def test_messages_over_the_limit_until_the_window_ends() -> None:
    clock = Clock()
    given = with_store(MemoryStore(clock=clock))
    assert await exceeded(given, *[data()] * 4) == [False, False, True, True]
    clock.now += 3599
    assert await exceeded(given, data()) == [True]
    clock.now += 2
    assert await exceeded(given, data()) == [False]


async def test_several_limits() -> None:
    clock = Clock()
    given = with_store(MemoryStore(clock=clock), "[sender_rate]\nmessages = 2/1m, 3/1h\n")
    assert await exceeded(given, *[data()] * 5) == [False, False, True, True, True]
    clock.now += 61
    # Those that were deferred don't count: this is the third in an hour, and then the fourth.
    assert await exceeded(given, data(), data()) == [False, True]
    clock.now += 3540
    assert await exceeded(given, data()) == [False]


async def test_retries_do_not_prolong_the_wait() -> None:
    clock = Clock()
    given = with_store(MemoryStore(clock=clock), "[sender_rate]\nmessages = 1/1m\n")
    assert await exceeded(given, data()) == [False]
    for _ in range(5):
        clock.now += 11
        assert await exceeded(given, data()) == [True]
    clock.now += 6
    assert await exceeded(given, data()) == [False]


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param(data("x@EXAMPLE.org", "198.51.100.1"), True, id="another mailbox and client, SPF pass"),
        pytest.param(data("a@example.com"), False, id="another domain"),
        pytest.param(data(spf=Result.FAIL), False, id="the same without SPF pass"),
    ],
)
async def test_a_domain_that_passes_spf_has_one_count(other: Transaction, shared: bool) -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, data(), data())
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
    await exceeded(given, *[data(client=first, spf=spf)] * 2)
    assert await exceeded(given, data(client=other, spf=spf)) == [shared]


async def test_nobody_can_use_up_the_limit_of_another() -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, *[data(client="198.51.100.1", spf=Result.FAIL)] * 50)
    assert await exceeded(given, data()) == [False]


async def test_spf_pass_of_the_helo_name_does_not_count_for_the_domain() -> None:
    given = tools("sender_rate", config=TWO)
    helo = data(spf=Result.NONE)._replace(results=(AuthResult("spf_helo", Result.PASS, "example.org"),))
    await exceeded(given, *[helo] * 3)
    assert await exceeded(given, data()) == [False]


async def test_a_message_counts_once_however_many_recipients_it_has_and_not_without_any() -> None:
    given = tools("sender_rate", config=TWO)
    assert await exceeded(given, *[data(recipients=0)] * 5) == [False] * 5
    assert await exceeded(given, data(recipients=50), data(recipients=50), data(recipients=50)) == [False, False, True]


@pytest.mark.parametrize("sender", ["", "a@example.com", "a@mail.example.info"])
async def test_no_limit_for_the_null_reverse_path_and_what_is_exempt(sender: str) -> None:
    store = MemoryStore()
    given = with_store(store, TWO + "exempt = example.com, .example.info\n")
    assert not any(await exceeded(given, *[data(sender)] * 5))
    assert len(store) == 0


async def test_a_store_that_fails_is_not_the_senders_fault() -> None:
    store = MemoryStore()
    await store.close()
    with pytest.raises(StoreError):  # which the pipeline makes a finding of, without weight
        await exceeded(with_store(store), data())


async def test_the_reply_names_no_limit() -> None:
    given = tools("sender_rate", config=TWO)
    await exceeded(given, data(), data())
    found = await awaited(sender_rate, data(), given)
    assert found == [Finding("sender_rate_exceeded", "example.org: 3 in 0 s")]
    assert (
        reply(data(), Stage.DATA, found, TWO)
        == "451 4.7.28 Too much mail from example.org for now, please try again later [ref]"
    )


def test_it_is_off_without_a_limit() -> None:
    assert not is_wanted("sender_rate", "")
    assert not is_wanted("sender_rate", "[sender_rate]\nexempt = example.org\n")
    assert is_wanted("sender_rate", TWO)
