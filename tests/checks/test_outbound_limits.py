"""Limits of what goes out: who is stopped, for how long, who is not, and what the administrator hears of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from authmilter.addresses import parse_path
from authmilter.check import all_checks
from authmilter.checks.outbound_limits import SENT, TOLD, outbound_limits, outbound_recipients
from authmilter.config import ini
from authmilter.errors import ConfigError, StoreError
from authmilter.evidence import Finding
from authmilter.files import load_files
from authmilter.model import Connection, Direction, Envelope, Transaction
from authmilter.session import Session, build
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action, Verdict
from tests.checks.tools import NOW, Alarms, awaited, is_wanted, tools
from tests.fakes import FakeDNS
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


@dataclass
class Site:
    """Checks under one configuration, with a clock, a store and an alarm of their own."""

    config: str
    clock: Clock = field(default_factory=Clock)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        self.store = CountingStore(clock=self.clock)
        self.tools = tools("outbound_limits", config=self.config, store=self.store, alarm=self.alarms)

    async def message(self, login: str = "", sender: str = "<>", client: str = "10.0.0.1") -> list[str]:
        """Details of what is found at MAIL."""
        return await self._details(await awaited(outbound_limits, transaction(login, sender, client), self.tools))

    async def recipients(
        self, number: int, login: str = "", sender: str = "<>", client: str = "10.0.0.1"
    ) -> list[list[str]]:
        """Details of what is found at each RCPT of one message."""
        found = []
        for n in range(1, number + 1):
            tx = transaction(login, sender, client, n)
            found.append(await self._details(await awaited(outbound_recipients, tx, self.tools)))
        return found

    async def _details(self, found: list[Finding]) -> list[str]:
        return [finding.detail for finding in found]

    async def total(self, key: str) -> float:
        entry = await self.store.get(SENT, key)
        return entry.total if entry else 0.0


def transaction(login: str = "", sender: str = "<>", client: str = "10.0.0.1", recipients: int = 0) -> Transaction:
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
            [{"client": "10.0.0.1"}] * 4 + [{"client": "2001:db8::1"}] * 4,
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
    assert await site.message("alice") == []


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


async def test_a_login_with_limits_of_its_own_has_no_others() -> None:
    site = Site(
        "[outbound_limits]\nlogin_messages = 1/1h\ndomain_messages = 1/1h\nclient_messages = 1/1h\n"
        "login_recipients = 1/1h\nrecipients_per_message = 1\n"
        "[outbound_limits News@example.org]\nmessages = 3/1h\nrecipients_per_message = 4\n"
    )
    news, alice = ("NEWS@example.org", "<n@example.org>"), ("alice@example.org", "<a@example.org>")
    found = [await site.message(*news) for _ in range(4)]
    assert found[:3] == [[], [], []]
    assert found[3] == ["3 messages per hour for this login is used up, try again in 3600 seconds"]
    assert [len(details) for details in await site.recipients(5, *news)] == [0, 0, 0, 0, 1]
    assert await site.message(*alice) == []
    assert await site.recipients(1, *alice) == [[]]
    assert len(await site.message(*alice)) == 1


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


async def test_one_step_of_the_store_for_a_message_that_may_go() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 9/1m, 99/1h\ndomain_messages = 9/1m\nclient_messages = 9/1m\n")
    await site.message("alice", "<a@example.org>")
    assert site.store.asked == 1


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
    site = Site("[outbound_limits]\nlogin_messages = 1/1m, 2/1h\nlogin_recipients = 1/1h\n")
    for _ in range(5):
        await site.message("alice")
        site.clock.now += 61
    await site.recipients(3, "alice")
    assert [text.rpartition(" of ")[2] for _, _, text in site.alarms] == ["2 messages per hour", "1 recipient per hour"]


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


async def test_a_store_that_fails_after_the_count_changes_nothing_about_it() -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\n")
    await site.message("alice")
    site.store.fails_after = 2
    found = outbound_limits(transaction("alice"), site.tools)
    assert (await anext(found)).symbol == "outbound_limit"
    with pytest.raises(StoreError):
        await anext(found)


# -- names that an attacker chooses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "login",
    ["a" * 100_000, "alice messages/3600", "\x00\x01\n", "\ud800", "☃" * 300, " "],
    ids=["long", "like a key", "control characters", "half a character", "snow", "a blank"],
)
async def test_any_login_is_counted_for_itself(login: str) -> None:
    site = Site("[outbound_limits]\nlogin_messages = 1/1h\n")
    assert await site.message(login) == []
    assert len(await site.message(login)) == 1
    assert await site.message("alice") == []
    assert await site.total("login alice messages/3600") == 1


# -- configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "messages", "recipients"),
    [
        ("", False, False),
        ("[outbound_limits]\nskip = 10.0.0.0/8\n", False, False),
        ("[outbound_limits]\nlogin_messages = 1/1h\n", True, False),
        ("[outbound_limits]\ndomain_messages = 1/1h\n", True, False),
        ("[outbound_limits]\nclient_messages = 1/1h\n", True, False),
        ("[outbound_limits]\nlogin_recipients = 1/1h\n", False, True),
        ("[outbound_limits]\ndomain_recipients = 1/1h\n", False, True),
        ("[outbound_limits]\nclient_recipients = 1/1h\n", False, True),
        ("[outbound_limits]\nrecipients_per_message = 1\n", False, True),
        ("[outbound_limits a]\n", False, False),
        ("[outbound_limits a]\nmessages = 1/1h\n", True, False),
        ("[outbound_limits a]\nrecipients = 1/1h\n", False, True),
        ("[outbound_limits a]\nrecipients_per_message = 1\n", False, True),
    ],
)
def test_it_runs_only_where_there_is_a_limit(config: str, messages: bool, recipients: bool) -> None:
    assert is_wanted("outbound_limits", config) is messages
    assert is_wanted("outbound_recipients", config) is recipients


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[outbound_limits a b]\n", "'a b' is not a login"),
        ("[outbound_limits A]\n[outbound_limits a]\n", "section is already on line 1"),
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
        """The answer to MAIL, to each RCPT, and at the end."""
        session = Session(self.rules)
        known = {b"j": b"mx.test"} | ({b"{auth_authen}": login.encode()} if login else {})
        await session.connect(b"client", "4", port, client.encode(), known)
        await session.helo(b"client.example", known)
        answers = [await session.mail([b"<a@example.org>"], known)]
        if answers[0].action is not Action.CONTINUE:
            return answers
        answers += [await session.rcpt([f"<u{n}@example.net>".encode()], known) for n in range(recipients)]
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
    [refusal] = await server.send("Stolen", client="198.51.100.7")
    assert code(refusal) == "451 4.7.1"
    assert refusal.reply is not None
    text = "Limit of 3 messages per hour for this login is used up, try again in 3540 seconds ["
    assert refusal.reply.text.startswith(text)
    assert (await server.send("alice"))[-1].action is Action.ACCEPT
    assert server.observer.seen.count("outbound tempfail mail") == 1
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
    assert code((await server.send("alice"))[0]) == "451 4.7.1"


async def test_without_enforce_all_goes_out_and_the_alarm_is_given() -> None:
    server = Server("[policy]\nenforce = no\n[outbound_limits]\nlogin_messages = 1/1h\n")
    for _ in range(3):
        assert (await server.send("alice"))[-1].action is Action.ACCEPT
    assert server.observer.seen.count("outbound tempfail mail") == 2
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
    assert server.observer.seen.count("outbound_recipients temperror") == 3


def test_its_spaces_are_personal() -> None:
    assert SENT.personal
    assert TOLD.personal
