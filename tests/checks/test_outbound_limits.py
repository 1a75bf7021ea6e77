"""Limits of what goes out: who is stopped, for how long, who is not, and what the administrator hears of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import InitVar, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from authmilter.addresses import parse_path
from authmilter.check import all_checks
from authmilter.checks.outbound_limits import SENT, TOLD, outbound_limits
from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import Store as Options
from authmilter.errors import ConfigError, StoreError
from authmilter.files import load_files
from authmilter.interfaces import Entry, ManagedStore, Space, Store
from authmilter.model import Connection, Direction, Envelope, Transaction
from authmilter.session import Session, build
from authmilter.store import open_store
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action, Verdict
from tests.checks.tools import NOW, Alarms, awaited, is_wanted, tools
from tests.fakes import FakeDNS
from tests.store.servers import RedisServer, running
from tests.test_session import Counting

INTERNAL = "[networks]\ninternal = 10.0.0.0/8, 2001:db8::/32\n[outbound_limits]\n"


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class CountingStore(MemoryStore):
    """Knows how often it was asked, and fails from then on where a test wants it."""

    asked = 0
    fails_after = 10**9

    async def _ask(self, operation: str, steps: Sequence[tuple[object, ...]]) -> list[object]:
        self.asked += 1
        if self.asked > self.fails_after:
            raise StoreError("down")
        return await super()._ask(operation, steps)


class RacingStore(CountingStore):
    """Whoever reads it finds nothing yet: others count between that and his own count."""

    async def get_many(self, keys: Sequence[tuple[Space, str]]) -> list[Entry | None]:
        return [None for _ in keys]


@dataclass
class Site:
    """The check under one configuration, with a clock, a store and an alarm of its own."""

    config: str
    kind: InitVar[type[CountingStore]] = CountingStore
    clock: Clock = field(default_factory=Clock)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self, kind: type[CountingStore]) -> None:
        self.store = kind(clock=self.clock)
        self.tools = tools("outbound_limits", config=self.config, store=self.store, alarm=self.alarms)

    async def message(self, login: str = "", sender: str = "<>", client: str = "10.0.0.1") -> list[str]:
        """Details of what is found at the first RCPT of a message."""
        return [f.detail for f in await awaited(outbound_limits, transaction(login, sender, client), self.tools)]

    def at(self, store: Store) -> "Site":
        """The same site over another store; alarms are told here."""
        other = replace(self, kind=CountingStore)
        other.tools = self.tools._replace(store=store)
        return other

    async def recipients(
        self, number: int, login: str = "", sender: str = "<>", client: str = "10.0.0.1"
    ) -> list[list[str]]:
        """Details of what is found at each RCPT of one message; who is refused does not stay."""
        found: list[list[str]] = []
        stay = 0
        for _ in range(number):
            tx = transaction(login, sender, client, stay + 1)
            found.append([f.detail for f in await awaited(outbound_limits, tx, self.tools)])
            stay += not found[-1]
        return found

    async def total(self, key: str) -> float:
        entry = await self.store.get(SENT, key)
        return entry.total if entry else 0.0


def transaction(login: str = "", sender: str = "<>", client: str = "10.0.0.1", recipients: int = 1) -> Transaction:
    path = parse_path(b"<bob@example.net>")
    assert path is not None
    return Transaction(
        Connection(client_ip=ip_address(client)),
        envelope=Envelope(
            parse_path(sender.encode()), (path,) * recipients, auth_user=login, direction=Direction.OUTBOUND
        ),
    )


# -- which windows count, and whom they stop -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "first", "stopped", "free"),
    [
        pytest.param(
            "login_messages = 2/1h",
            {"login": "alice"},
            [{"login": "ALICE"}, {"login": "Alice", "sender": "<x@example.org>", "client": "192.0.2.9"}],
            [{"login": "bob"}, {}, {"login": "alic"}],
            id="a login is one however it is written, wherever it comes from",
        ),
        pytest.param(
            "domain_messages = 2/1h",
            {"login": "alice", "sender": "<a@example.org>"},
            [{"login": "bob", "sender": "<b@EXAMPLE.org>"}, {"sender": "<c@example.org>"}],
            [{"login": "alice"}, {"login": "alice", "sender": "<a@sub.example.org>"}, {"sender": "<postmaster>"}],
            id="a sender domain, whoever logs in; not the null reverse-path, nor a path without domain",
        ),
        pytest.param(
            "client_messages = 2/1h",
            {"client": "10.0.0.7"},
            [{"client": "10.0.0.7", "login": "alice"}, {"client": "10.0.0.7", "sender": "<a@example.org>"}],
            [{"client": "10.0.0.8"}],
            id="a client, with and without login",
        ),
        pytest.param(
            "client_messages = 2/1h",
            {"client": "2001:db8:0:1::1"},
            [{"client": "2001:db8:0:1:ffff::2"}],
            [{"client": "2001:db8:0:2::1"}, {"client": "::1"}],
            id="a client of IPv6 by its /64",
        ),
        pytest.param(
            "client_messages = 2/1h\nskip = 10.0.0.0/24, 2001:db8::/64",
            {"client": "10.0.1.1"},
            [{"client": "10.0.1.1"}],
            [{"client": "10.0.0.1"}] * 4 + [{"client": "::ffff:10.0.0.1"}] * 4 + [{"client": "2001:db8::1"}] * 4,
            id="but not one to be skipped",
        ),
        pytest.param(
            "login_messages = 2/1h\nskip = 10.0.0.0/24",
            {"login": "alice"},
            [{"login": "alice"}],
            [{"login": "bob"}],
            id="a login is limited where the client is skipped",
        ),
        pytest.param(
            "[outbound_limits Alice]\nmessages = 2/1h",
            {"login": "alice"},
            [{"login": "ALICE"}],
            [{"login": "bob"}, {}],
            id="one login alone",
        ),
    ],
)
async def test_who_is_stopped(
    options: str, first: dict[str, str], stopped: list[dict[str, str]], free: list[dict[str, str]]
) -> None:
    site = Site(f"[outbound_limits]\n{options}\n" if not options.startswith("[") else options)
    assert await site.message(**first) == []
    assert await site.message(**first) == []
    for other in (first, *stopped):
        assert len(await site.message(**other)) == 1, other
    for other in free:
        assert await site.message(**other) == [], other


async def test_recipients_have_windows_of_their_own() -> None:
    site = Site("[outbound_limits]\nlogin_recipients = 5/1m\nlogin_messages = 100/1h\n")
    assert await site.recipients(3, "alice") == [[]] * 3
    found = await site.recipients(4, "alice")
    assert found[:2] == [[], []]
    assert found[2] == found[3] == ["5 recipients per minute for this login is used up, try again in 60 seconds"]
    assert await site.recipients(1, "bob") == [[]]
    assert await site.message("alice") == found[3], "a message has a recipient"
    assert await site.total("login alice messages/3600") == 2


async def test_recipients_of_one_message() -> None:
    site = Site("[outbound_limits]\nrecipients_per_message = 2\n")
    found = await site.recipients(3, "alice")
    assert found == [[], [], ["2 recipients per message, send to the others in another one"]]
    assert await site.recipients(2, "alice") == [[], []]
    assert site.store.asked == 0
    site = Site("[outbound_limits]\nrecipients_per_message = 1\n")
    assert await site.recipients(2, "alice") == [[], ["1 recipient per message, send to the others in another one"]]


async def test_what_is_too_many_for_one_message_is_not_counted() -> None:
    site = Site("[outbound_limits]\nrecipients_per_message = 2\nlogin_recipients = 100/1d\n")
    await site.recipients(50, "alice")
    assert await site.total("login alice recipients/86400") == 2


async def test_a_message_counts_once_with_its_first_recipient() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 9/1h\nlogin_recipients = 99/1h\n")
    assert await site.recipients(7, "alice") == [[]] * 7
    assert await site.total("login alice messages/3600") == 1
    assert await site.total("login alice recipients/3600") == 7


async def test_a_message_whose_first_recipients_are_refused_counts_with_the_first_that_stays() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 9/1h\nlogin_recipients = 1/1m\n")
    await site.message("alice")
    assert [len(details) for details in await site.recipients(5, "alice")] == [1] * 5
    assert await site.total("login alice messages/3600") == 1
    site.clock.now += 61
    assert await site.recipients(1, "alice") == [[]]
    assert await site.total("login alice messages/3600") == 2


async def test_who_is_over_both_limits_hears_both() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\nlogin_recipients = 1/1m, 2/1d\n")
    await site.message("alice")
    assert await site.message("alice") == [
        "1 message per hour for this login is used up, try again in 3600 seconds",
        "1 recipient per minute for this login is used up, try again in 60 seconds",
    ]
    assert len(site.alarms) == 2


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ("", False),
        ("[scores]\noutbound_limit = reject\n", False),
        ("[scores]\noutbound_limit = 0\n", True),
        ("[scores]\noutbound_limit = quarantine\n", True),
        ("[policy]\nenforce = no\n", True),
    ],
    ids=["deferred", "refused", "of no weight", "held", "not enforced"],
)
async def test_a_message_beyond_its_limit_that_goes_on_counts_for_its_recipients(config: str, *, counts: bool) -> None:
    site = Site(f"{config}[outbound_limits]\nlogin_messages = 1/1h\nlogin_recipients = 5/1h\n")
    for _ in range(4):
        await site.message("alice")
    assert await site.total("login alice recipients/3600") == (4 if counts else 1)
    assert await site.total("login alice messages/3600") == 1
    await site.message("alice")
    assert len(await site.message("alice")) == (2 if counts else 1)


async def test_a_login_with_limits_of_its_own_has_no_others() -> None:
    site = Site(
        "[outbound_limits]\nlogin_messages = 1/1h\ndomain_messages = 1/1h\nclient_messages = 1/1h\n"
        "login_recipients = 1/1h\nrecipients_per_message = 1\n"
        "[outbound_limits News@example.org]\nmessages = 3/1h\nrecipients_per_message = 4\n"
    )
    news, alice = ("NEWS@example.org", "<n@example.org>"), ("alice@example.org", "<a@example.org>")
    assert [len(details) for details in await site.recipients(5, *news)] == [0, 0, 0, 0, 1]
    found = [await site.message(*news) for _ in range(3)]
    assert found[:2] == [[], []]
    assert found[2] == ["3 messages per hour for this login is used up, try again in 3600 seconds"]
    assert await site.message(*alice) == []
    assert len(await site.message(*alice)) == 2  # by its messages and by its recipients


async def test_a_section_without_limits_exempts_a_login() -> None:
    site = Site("[outbound_limits]\nclient_messages = 1/1h\n[outbound_limits news@example.org]\n")
    assert [await site.message("news@example.org") for _ in range(5)] == [[]] * 5
    assert site.store.asked == 0


# -- windows -------------------------------------------------------------------------------------------------------------


async def test_attempts_beyond_the_limit_do_not_prolong_the_window() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 2/1m\n")
    await site.message("alice")
    site.clock.now += 20
    await site.message("alice")
    for _ in range(10):
        site.clock.now += 3
        assert len(await site.message("alice")) == 1
    assert await site.message("alice") == ["2 messages per minute for this login is used up, try again in 10 seconds"]
    site.clock.now += 10.5
    assert await site.message("alice") == []


async def test_they_use_up_no_longer_window() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 2/1m, 5/1h\n")
    for _ in range(50):
        await site.message("alice")
    assert await site.total("login alice messages/3600") == 2
    site.clock.now += 61
    assert [len(await site.message("alice")) for _ in range(3)] == [0, 0, 1]
    site.clock.now += 61
    assert await site.message("alice") == []
    # The one with the longer wait is told.
    assert await site.message("alice") == ["5 messages per hour for this login is used up, try again in 3478 seconds"]
    site.clock.now += 3477.5
    assert await site.message("alice") == ["5 messages per hour for this login is used up, try again in 1 second"]


async def test_a_stolen_account_does_not_use_up_what_others_may_send() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 3/1h\ndomain_messages = 5/1h\nclient_messages = 6/1h\n")
    stolen, other = ("stolen@example.org", "<s@example.org>"), ("alice@example.org", "<a@example.org>")
    refused = sum([len(await site.message(*stolen)) for _ in range(200)])
    assert refused == 197
    assert [await site.message(*other) for _ in range(2)] == [[], []]
    assert await site.message(*other) == ["5 messages per hour for example.org is used up, try again in 3600 seconds"]
    assert await site.total("domain example.org messages/3600") == 5
    assert await site.total("client 10.0.0.1 messages/3600") == 5


async def test_of_those_who_race_no_more_get_through() -> None:
    class SlowStore(CountingStore):
        """Lets others have their turn before each step."""

        async def _ask(self, operation: str, steps: Sequence[tuple[object, ...]]) -> list[object]:
            await asyncio.sleep(0)
            return await super()._ask(operation, steps)

    site = Site("[outbound_limits]\nlogin_messages = 10/1h\n")
    site.tools = site.tools._replace(store=SlowStore(clock=site.clock))
    found = await asyncio.gather(*(site.message("alice") for _ in range(100)))
    assert sum(not details for details in found) == 10
    assert len(site.alarms) == 1


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("1/1m", "1 message per minute"),
        ("1/1h", "1 message per hour"),
        ("1/1d", "1 message per day"),
        ("1/7d", "1 message per week"),
        ("1/90s", "1 message per 90s"),
        ("1/1.5s", "1 message per 1500ms"),
        ("1/30d", "1 message per 30d"),
    ],
)
async def test_how_a_limit_reads(limit: str, text: str) -> None:
    site = Site(f"[outbound_limits]\nclient_messages = {limit}\n")
    await site.message()
    [detail] = await site.message()
    assert detail.startswith(f"{text} for 10.0.0.1 is used up, try again in ")


async def test_one_look_and_a_step_for_each_limit_for_a_message_that_may_go() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 9/1m, 99/1h\nlogin_recipients = 9/1m\nclient_messages = 9/1m\n")
    await site.message("alice", "<a@example.org>")
    assert site.store.asked == 5


async def test_one_look_for_a_message_that_may_not() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1m, 99/1h\nlogin_recipients = 9/1m\nclient_messages = 9/1m\n")
    await site.message("alice")
    await site.message("alice")
    site.store.asked = 0
    assert len(await site.message("alice")) == 1
    assert site.store.asked == 2, "the other is for the alarm"


# -- races ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
async def machines(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[ManagedStore]]:
    """Two stores over the same state."""
    redis = request.param == "redis"
    url = request.getfixturevalue("redis_server").url if redis else f"sqlite:{tmp_path}/state.db"
    stores = [open_store(Options(url=url, prefix=f"{tmp_path}:", timeout=Seconds(10))) for _ in range(2)]
    yield stores
    for store in stores:
        await store.close()


async def race(site: Site, machines: Sequence[Store], visits: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """What all hear who send at once, at both machines in turn."""
    sites = [site.at(store) for store in machines]
    return await asyncio.gather(*(sites[number % 2].message(*visit) for number, visit in enumerate(visits)))


ALICE = ("alice@example.org", "<alice@example.org>", "10.0.0.2")
MALLORY = ("mallory@example.org", "<mallory@example.org>", "10.0.0.1")


@pytest.mark.parametrize("before", [0, 3], ids=["from the first one on", "after all that he may send"])
async def test_a_login_that_floods_does_not_stop_its_domain(machines: list[ManagedStore], before: int) -> None:
    site = Site(
        "[outbound_limits]\nlogin_messages = 3/1h\ndomain_messages = 20/1h\nclient_messages = 20/1h\n"
        "domain_recipients = 20/1h\n"
    )
    for _ in range(before):
        assert await site.at(machines[0]).message(*MALLORY) == []
    flood = [MALLORY] * 30
    colleague = ("bob@example.org", "<bob@example.org>", MALLORY[2])  # behind the same address
    found = await race(site, machines, [*flood, ALICE, colleague, *flood, ALICE, colleague])
    assert [details for details in found if not details] == [[]] * (3 - before + 4)
    assert found[30:32] == found[-2:] == [[], []]
    assert {details[0].partition(" try")[0] for details in found if details} == {
        "3 messages per hour for this login is used up,"
    }
    assert [subject for _, subject, _ in site.alarms] == ["login mallory@example.org"]
    for key in ("domain example.org messages/3600", "domain example.org recipients/3600"):
        entry = await machines[0].get(SENT, key)
        assert entry is not None
        assert entry.total == 3 + 4


@pytest.mark.parametrize("before", [0, 4], ids=["from the first one on", "after all that it may send"])
async def test_a_client_that_floods_does_not_stop_the_domain(machines: list[ManagedStore], before: int) -> None:
    site = Site("[outbound_limits]\ndomain_messages = 20/1h\nclient_messages = 4/1h\n")
    for _ in range(before):
        assert await site.at(machines[0]).message(*MALLORY) == []
    flood = [MALLORY] * 30
    found = await race(site, machines, [*flood, ALICE, *flood, ALICE])
    assert found[30] == found[-1] == []
    assert [subject for _, subject, _ in site.alarms] == ["client 10.0.0.1"]


async def test_a_domain_that_is_used_up_stops_no_client(machines: list[ManagedStore]) -> None:
    site = Site("[outbound_limits]\ndomain_messages = 4/1h\nclient_messages = 20/1h\n")
    for _ in range(4):
        assert await site.at(machines[0]).message(*ALICE) == []
    flood, other = [MALLORY] * 30, ("", "<x@example.net>", MALLORY[2])
    found = await race(site, machines, [*flood, other, *flood, other])
    assert found[30] == found[-1] == []
    assert [subject for _, subject, _ in site.alarms] == ["domain example.org"]


async def test_who_races_hears_of_the_limit_that_stops_him(machines: list[ManagedStore]) -> None:
    site = Site("[outbound_limits]\nlogin_messages = 2/1m, 20/1d\n")
    found = await race(site, machines, [ALICE] * 60)
    assert sum(not details for details in found) == 2
    assert {details[0].partition(" is")[0] for details in found if details} == {"2 messages per minute for this login"}
    assert len(site.alarms) == 1
    entry = await machines[0].get(SENT, "login alice@example.org messages/86400")
    assert entry is not None
    assert entry.total == 2


# -- the alarm -----------------------------------------------------------------------------------------------------------


async def test_the_alarm_is_given_once_per_window() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 2/1m\n")
    for _ in range(20):
        await site.message("Alice")
        await site.message("bob")
    assert site.alarms == [
        ("outbound_limit", "login alice", "login alice has used up its limit of 2 messages per minute"),
        ("outbound_limit", "login bob", "login bob has used up its limit of 2 messages per minute"),
    ]
    site.clock.now += 61
    for _ in range(20):
        await site.message("alice")
    assert len(site.alarms) == 3


async def test_each_window_has_its_alarm() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1m, 2/1h\nlogin_recipients = 3/1h\n")
    for _ in range(2):
        await site.recipients(2, "alice")
        await site.message("alice")
        site.clock.now += 61
    await site.message("alice")
    assert [text.rpartition(" of ")[2] for _, _, text in site.alarms] == [
        "1 message per minute",
        "3 recipients per hour",
        "2 messages per hour",
    ]


async def test_who_comes_near_the_limit_is_no_alarm() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 5/1m\n")
    for _ in range(5):
        await site.message("alice")
    assert site.alarms == []


# -- a store that is down ------------------------------------------------------------------------------------------------


async def test_without_the_store_it_says_so_and_finds_nothing() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\nlogin_recipients = 1/1h\n")
    site.store.fails_after = 0
    with pytest.raises(StoreError):
        await site.message("alice")
    with pytest.raises(StoreError):
        await site.recipients(1, "alice")


@pytest.mark.parametrize(("store", "works"), [(CountingStore, 1), (RacingStore, 1)], ids=["alone", "in a race"])
async def test_a_store_that_fails_after_the_count_changes_nothing_about_it(
    store: type[CountingStore], works: int
) -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\n", store)
    await site.message("alice")
    site.store.fails_after = site.store.asked + works
    found = outbound_limits(transaction("alice"), site.tools)
    assert (await anext(found)).symbol == "outbound_limit"
    with pytest.raises(StoreError):
        await anext(found)


async def test_what_was_counted_too_much_is_taken_back_whatever_comes_then() -> None:
    config = "[outbound_limits]\nlogin_messages = 9/1h\nclient_messages = 1/1h\ndomain_messages = 9/1h\n"
    keys = ("login alice messages/3600", "client 10.0.0.1 messages/3600", "domain example.org messages/3600")
    site = Site(config, RacingStore)
    await site.message("alice", "<a@example.org>")
    # Nobody asks for more than the first finding.
    found = outbound_limits(transaction("alice", "<a@example.org>"), site.tools)
    assert (await anext(found)).symbol == "outbound_limit"
    await found.aclose()  # type: ignore[attr-defined]
    assert [await site.total(key) for key in keys] == [1, 1, 1]
    # The store fails behind that, when the alarm is to be noted.
    site.store.fails_after = site.store.asked + 3
    with pytest.raises(StoreError):
        await site.message("alice", "<a@example.org>")
    site.store.fails_after = 10**9
    assert [await site.total(key) for key in keys] == [1, 1, 1]
    assert site.alarms == []


# -- names that an attacker chooses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "login",
    ["a" * 100_000, "alice messages/3600", "\x00\x01\n", "\ud800", "☃" * 300, " ", "e" + "\u0301\u0316" * 50_000],
    ids=["long", "like a key", "control characters", "half a character", "snow", "a blank", "long to normalize"],
)
async def test_any_login_is_counted_for_itself(login: str) -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\n")
    assert await site.message(login) == []
    assert len(await site.message(login)) == 1
    assert await site.message("alice") == []
    assert await site.total("login alice messages/3600") == 1


LOGINS = [
    pytest.param(
        "joe", ["JOE", "Joe ", " joe\t", "\u3000joe", "\uff4a\uff4f\uff45", "joe\xa0"], ["jo e", "joé"], id="ASCII"
    ),
    pytest.param("Jos\xe9", ["jose\u0301", "JOS\xc9", "JOSE\u0301 "], ["jose"], id="an accent"),
    pytest.param("STRASSE", ["straße", "stra\u1e9ee", "ſtrasse"], ["strase"], id="a letter that is two in capitals"),
    pytest.param("office@example.org", ["o\ufb03ce@example.org"], ["office@example.com"], id="a ligature"),
]


@pytest.mark.parametrize(("login", "others", "strangers"), LOGINS)
@pytest.mark.parametrize("section", ["[outbound_limits]\nlogin_messages = 1/1h\n", ""], ids=["common", "its own"])
async def test_a_login_is_one_in_whatever_form_it_is_written(
    section: str, login: str, others: list[str], strangers: list[str]
) -> None:
    site = Site(section or f"[outbound_limits {login}]\nmessages = 1/1h\n")
    assert await site.message(login) == []
    for other in others:
        assert len(await site.message(other)) == 1, other
    for stranger in strangers:
        assert await site.message(stranger) == [], stranger


async def test_a_section_of_a_login_is_found_in_whatever_form_it_is_written() -> None:
    site = Site("[outbound_limits]\nclient_messages = 1/1h\n[outbound_limits \uff2a\uff2f\uff25]\n")
    assert [await site.message("joe") for _ in range(3)] == [[]] * 3


# -- configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("", False),
        ("[outbound_limits]\nskip = 10.0.0.0/8\n", False),
        ("[outbound_limits]\nlogin_messages = 1/1h\n", True),
        ("[outbound_limits]\ndomain_messages = 1/1h\n", True),
        ("[outbound_limits]\nclient_messages = 1/1h\n", True),
        ("[outbound_limits]\nlogin_recipients = 1/1h\n", True),
        ("[outbound_limits]\ndomain_recipients = 1/1h\n", True),
        ("[outbound_limits]\nclient_recipients = 1/1h\n", True),
        ("[outbound_limits]\nrecipients_per_message = 1\n", True),
        ("[outbound_limits a]\n", False),
        ("[outbound_limits a]\nmessages = 1/1h\n", True),
        ("[outbound_limits a]\nrecipients = 1/1h\n", True),
        ("[outbound_limits a]\nrecipients_per_message = 1\n", True),
    ],
)
def test_it_runs_only_where_there_is_a_limit(config: str, *, wanted: bool) -> None:
    assert is_wanted("outbound_limits", config) is wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[outbound_limits a b]\n", "'a b' is not a login"),
        ("[outbound_limits A]\n[outbound_limits a]\n", "section is already on line 1"),
        ("[outbound_limits jos\xe9]\n[outbound_limits jose\u0301]\n", "section is already on line 1"),
        ("[outbound_limits]\nrecipients_per_message = -1\n", "is too small"),
        ("[outbound_limits]\nlogin_messages = 300\n", "'300' is not a limit such as 60/1m or 1000/1d"),
        ("[outbound_limits]\nexempt = alice\n", "unknown option 'exempt'"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ini.load(None, text)
    assert message in str(raised.value)


# -- whole sessions ------------------------------------------------------------------------------------------------------


class Server:
    """Sessions under one configuration, as an MTA has them."""

    def __init__(self, text: str) -> None:
        self.clock, self.alarms, self.observer = Clock(), Alarms(), Counting()
        self.store = CountingStore(clock=self.clock)
        config = ini.load(None, text)
        self.rules = build(
            config,
            all_checks(),
            load_files(config),
            FakeDNS(),
            self.observer,
            self.clock,
            store=self.store,
            alarm=self.alarms.__call__,
        )

    async def send(
        self, login: str = "", client: str = "192.0.2.1", recipients: int = 1, port: int = 40000
    ) -> list[Verdict]:
        """The answer to MAIL, to each RCPT, and at the end, if a recipient is left."""
        session = Session(self.rules)
        known = {b"j": b"mx.test"} | ({b"{auth_authen}": login.encode()} if login else {})
        await session.connect(b"client", "4", port, client.encode(), known)
        await session.helo(b"client.example", known)
        answers = [await session.mail([b"<a@example.org>"], known)]
        answers += [await session.rcpt([f"<u{n}@example.net>".encode()], known) for n in range(recipients)]
        if recipients and all(answer.action is not Action.CONTINUE for answer in answers[1:]):
            session.abort()
            return answers
        await session.data(known)
        await session.end_of_headers(known)
        return [*answers, await session.end_of_message(known)]


def code(verdict: Verdict) -> str:
    return f"{verdict.reply.code} {verdict.reply.enhanced}" if verdict.reply else verdict.action.value


async def test_a_stolen_account_is_deferred_while_others_send_on() -> None:
    server = Server("[outbound_limits]\nlogin_messages = 3/1h\n")
    for _ in range(3):
        assert [code(v) for v in await server.send("stolen")] == ["continue", "continue", "accept"]
    server.clock.now += 60
    _, refusal = await server.send("Stolen", client="198.51.100.7")
    assert code(refusal) == "451 4.7.1"
    assert refusal.reply is not None
    text = "Limit of 3 messages per hour for this login is used up, try again in 3540 seconds ["
    assert refusal.reply.text.startswith(text)
    assert (await server.send("alice"))[-1].action is Action.ACCEPT
    assert server.observer.seen.count("rcpt 451") == 1
    assert [subject for _, subject, _ in server.alarms] == ["login stolen"]
    server.clock.now += 3600
    assert (await server.send("stolen"))[-1].action is Action.ACCEPT


async def test_recipients_are_deferred_one_by_one() -> None:
    server = Server("[outbound_limits]\nlogin_recipients = 3/1m\nrecipients_per_message = 2\n")
    first, second = await server.send("alice", recipients=3), await server.send("alice", recipients=2)
    assert [code(v) for v in first] == ["continue", "continue", "continue", "452 4.5.3", "accept"]
    assert [code(v) for v in second] == ["continue", "continue", "451 4.7.1", "accept"]
    assert [v.reply.text.partition(" [")[0] for v in (*first, *second) if v.reply] == [
        "Limit of 2 recipients per message, send to the others in another one",
        "Limit of 3 recipients per minute for this login is used up, try again in 60 seconds",
    ]


@pytest.mark.parametrize(
    ("symbol", "options"),
    [("outbound_limit", "login_messages = 1/1h"), ("outbound_recipients_limit", "login_recipients = 1/1h")],
    ids=["for its messages", "for its recipients"],
)
async def test_the_mail_of_a_stolen_account_can_be_held_instead(symbol: str, options: str) -> None:
    server = Server(f"[scores]\n{symbol} = quarantine\n[outbound_limits]\n{options}\n")
    assert (await server.send("alice"))[-1].action is Action.ACCEPT
    answers = await server.send("alice")
    assert [v.action for v in answers] == [Action.CONTINUE, Action.CONTINUE, Action.QUARANTINE]
    assert answers[-1].quarantine_reason.startswith(f"authmilter: {symbol} [")
    assert len(server.alarms) == 1
    assert (await server.send("bob"))[-1].action is Action.ACCEPT


@pytest.mark.parametrize("preset", ["observe", "balanced", "strict"])
async def test_it_holds_under_every_preset(preset: str) -> None:
    server = Server(f"[policy]\npreset = {preset}\n[outbound_limits]\nlogin_messages = 1/1h\n")
    await server.send("alice")
    assert [code(v) for v in await server.send("alice")] == ["continue", "451 4.7.1"]


async def test_without_enforce_all_goes_out_and_the_alarm_is_given() -> None:
    server = Server("[policy]\nenforce = no\n[outbound_limits]\nlogin_messages = 1/1h\n")
    for _ in range(3):
        assert (await server.send("alice"))[-1].action is Action.ACCEPT
    assert server.observer.seen.count("outbound tempfail rcpt") == 2
    assert len(server.alarms) == 1


async def test_a_host_of_ours_is_limited_by_its_address_and_a_stranger_not() -> None:
    server = Server(INTERNAL + "client_messages = 2/1h\n")
    codes = [code((await server.send(client="10.0.0.9"))[-1]) for _ in range(3)]
    assert codes == ["accept", "accept", "451 4.7.1"]
    assert code((await server.send(client="10.0.0.10"))[-1]) == "accept"
    asked = server.store.asked
    await server.send(client="192.0.2.1")  # inbound
    assert server.store.asked == asked


async def test_pickup_and_bounces_are_never_limited() -> None:
    server = Server("[outbound_limits]\nclient_messages = 1/1h\nclient_recipients = 1/1h\nrecipients_per_message = 1\n")
    for _ in range(3):
        answers = await server.send(client="127.0.0.1", port=0, recipients=3)
        assert {v.action for v in answers} == {Action.CONTINUE, Action.ACCEPT}


async def test_mail_goes_out_while_the_store_is_down() -> None:
    server = Server("[outbound_limits]\nlogin_messages = 1/1h\nlogin_recipients = 1/1h\n")
    server.store.fails_after = 0
    for _ in range(3):
        assert [code(v) for v in await server.send("alice")] == ["continue", "continue", "accept"]
    assert server.observer.seen.count("outbound_limits temperror") == 3


async def test_what_the_mta_refuses_before_a_recipient_reaches_us_does_not_count() -> None:
    server = Server("[outbound_limits]\ndomain_messages = 2/1h\nclient_messages = 2/1h\n")
    for _ in range(5):
        session = Session(server.rules)
        known = {b"j": b"mx.test", b"{auth_authen}": b"mallory"}
        await session.connect(b"client", "4", 40000, b"192.0.2.1", known)
        await session.helo(b"client.example", known)
        for _ in range(5):
            assert (await session.mail([b"<a@example.org>"], known)).action is Action.CONTINUE
            session.abort()  # RSET, or no recipient that is accepted
    assert server.store.asked == 0
    assert (await server.send("alice"))[-1].action is Action.ACCEPT


@pytest.mark.parametrize("held", ["outbound_limit", "outbound_limit = quarantine\noutbound_recipients_limit"])
async def test_a_held_message_counts_once_however_many_its_recipients(held: str) -> None:
    text = f"[scores]\n{held} = quarantine\n[outbound_limits]\nlogin_messages = 2/1h\nlogin_recipients = 99/1h\n"
    server = Server(text)
    for expected in (Action.ACCEPT, Action.ACCEPT, Action.QUARANTINE):
        answers = await server.send("alice", recipients=3)
        assert [v.action for v in answers] == [Action.CONTINUE] * 4 + [expected]
    for key, total in (("login alice messages/3600", 2), ("login alice recipients/3600", 9)):
        entry = await server.store.get(SENT, key)
        assert entry is not None
        assert entry.total == total


def test_its_spaces_are_personal() -> None:
    assert SENT.personal
    assert TOLD.personal
