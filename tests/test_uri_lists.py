"""DNS lists of domains: the same rules as for lists of clients."""

import asyncio

import pytest

from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.interfaces import Answer, Listing
from authmilter.lists import MOST_UNANSWERED, weights
from tests.fakes import FakeDNS
from tests.test_lists import World

ONE = "[uribl bad]\nzone = bad.example\n"


async def test_all_domains_are_asked_for_and_each_symbol_is_there_once() -> None:
    world = World(ONE, {"evil.test.bad.example A": ["127.0.1.2"], "worse.test.bad.example A": ["127.0.1.4"]})
    assert await world.lists.look_up_links(["good.test", "evil.test", "worse.test", "192.0.2.1"]) == [
        Listing("uribl_bad", "bad.example", "127.0.1.2", subject="evil.test")
    ]
    assert world.dns.asked == [
        "good.test.bad.example A",
        "evil.test.bad.example A",
        "worse.test.bad.example A",
        "invalid.bad.example A",
    ]
    assert world.watcher.outcomes == {"listed": 1}


class SlowDNS(FakeDNS):
    """Answers nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def query(self, name: str, rdtype: str) -> Answer:
        self.asked.append(name)
        await self.may.wait()
        return self.answer(name, rdtype)


async def test_all_lists_are_asked_for_all_domains_at_once() -> None:
    dns = SlowDNS()
    world = World(ONE + "[uribl other]\nzone = other.example\n", dns=dns)
    work = asyncio.create_task(world.lists.look_up_links(["a.test", "b.test"]))
    await asyncio.sleep(0)
    assert dns.asked == ["a.test.bad.example", "b.test.bad.example", "a.test.other.example", "b.test.other.example"]
    dns.may.set()
    assert await work == []


async def test_addresses_are_asked_for_where_the_list_has_them() -> None:
    world = World(ONE + "addresses = yes\n", {"1.2.0.192.bad.example A": ["127.0.0.2"]})
    found = await world.lists.look_up_links(["192.0.2.1"])
    assert [one.subject for one in found] == ["192.0.2.1"]


async def test_answers_with_weights_of_their_own() -> None:
    text = ONE + "answers = 127.0.1.2 = 5, 127.0.1.[102..106]\nscore = 2\n"
    world = World(
        text,
        {
            "a.test.bad.example A": ["127.0.1.2"],
            "b.test.bad.example A": ["127.0.1.103"],
            "c.test.bad.example A": ["127.0.0.3"],
        },
    )
    assert [one.symbol for one in await world.lists.look_up_links(["a.test", "b.test", "c.test"])] == [
        "uribl_bad_1_2",
        "uribl_bad",
    ]


async def test_answers_by_bits() -> None:
    text = ONE + "answers = 127.0.0.[&8] = 5, 127.0.0.[&64] = 2\n"
    records = {
        "a.test.bad.example A": ["127.0.0.72"],
        "b.test.bad.example A": ["127.0.0.80"],
        "c.test.bad.example A": ["127.0.0.4"],
    }
    world = World(text, records)
    found = await world.lists.look_up_links(["a.test", "b.test", "c.test"])
    assert [(one.symbol, one.subject) for one in found] == [("uribl_bad_bit8", "a.test"), ("uribl_bad_bit64", "b.test")]
    assert weights("uribl", ini.load(None, text)) == {"uribl_bad": 3.0, "uribl_bad_bit8": 5.0, "uribl_bad_bit64": 2.0}


async def test_a_refusal_of_surbl_or_uribl_is_no_listing_and_switches_the_list_off() -> None:
    world = World(ONE, {"a.test.bad.example A": ["127.0.0.1"], "invalid.bad.example A": ["127.0.0.1"]})
    assert await world.lists.look_up_links(["a.test"]) == []
    assert world.watcher.off == {"uribl_bad"}
    assert "refuses our questions (127.0.0.1)" in world.alarms[0][2]


async def test_what_some_lists_say_of_good_domains_is_no_listing_and_no_refusal() -> None:
    world = World(ONE, {"a.test.bad.example A": ["127.0.0.1"]})
    assert await world.lists.look_up_links(["a.test"]) == []
    assert world.watcher.off == set()
    assert world.watcher.outcomes == {"clear": 1}


async def test_a_list_that_wants_no_questions_for_addresses_gets_none_any_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(ONE + "addresses = yes\n", {"1.2.0.192.bad.example A": ["127.0.1.255"]})
    for _ in range(2):
        assert await world.lists.look_up_links(["192.0.2.1", "a.test"]) == []
    assert world.dns.asked == ["1.2.0.192.bad.example A", "a.test.bad.example A", "a.test.bad.example A"]
    assert world.watcher.off == set()
    assert "set addresses = no" in caplog.text


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ({"a.test.bad.example A": ["127.0.0.2"], "invalid.bad.example A": ["127.0.0.2"]}, "lists the domain INVALID"),
        ({"a.test.bad.example A": ["192.0.2.99"]}, "outside of 127.0.0.0/8"),
        ({"a.test.bad.example A": ["127.0.0.2"], "b.test.bad.example A": ["127.255.255.254"]}, "refuses our questions"),
    ],
)
async def test_a_list_that_answers_nonsense_lists_nobody_and_is_switched_off(
    records: dict[str, list[str]], why: str
) -> None:
    world = World(ONE, records)
    assert await world.lists.look_up_links(["a.test", "b.test"]) == []
    assert world.watcher.off == {"uribl_bad"}
    assert why in world.alarms[0][2]
    assert await world.lists.look_up_links(["c.test"]) == []
    assert world.watcher.outcomes == {"error": 1, "off": 1}
    assert "c.test.bad.example A" not in world.dns.asked


async def test_no_answer_to_all_domains_of_a_message_counts_once() -> None:
    hosts = [f"{letter}.test" for letter in "abcdefgh"]
    world = World(ONE, dns=FakeDNS({}, fail=[f"{host}.bad.example A" for host in hosts]))
    assert await world.lists.look_up_links(hosts) == []
    assert world.watcher.off == set()
    for number in range(1, MOST_UNANSWERED):
        await world.lists.look_up_links(hosts[number:])
    assert world.watcher.off == {"uribl_bad"}
    assert world.watcher.outcomes == {"temperror": MOST_UNANSWERED}


async def test_one_answer_is_enough() -> None:
    world = World(ONE, dns=FakeDNS({"b.test.bad.example A": ["127.0.0.2"]}, fail=["a.test.bad.example A"]))
    assert [one.subject for one in await world.lists.look_up_links(["a.test", "b.test"])] == ["b.test"]


async def test_a_list_of_which_it_is_not_known_whether_it_lists_all_lists_nobody() -> None:
    world = World(ONE, dns=FakeDNS({"a.test.bad.example A": ["127.0.0.2"]}, fail=["invalid.bad.example A"]))
    assert await world.lists.look_up_links(["a.test"]) == []
    assert world.watcher.outcomes == {"temperror": 1}


async def test_names_that_are_too_long_are_not_asked_for() -> None:
    world = World(ONE)
    await world.lists.look_up_links([".".join(["a" * 60] * 4) + ".test"])
    assert world.dns.asked == []


async def test_clients_and_links_do_not_mix() -> None:
    world = World(ONE + "[dnsbl other]\nzone = other.example\n")
    await world.lists.look_up_links(["a.test"])
    assert world.dns.asked == ["a.test.bad.example A"]


def test_weights() -> None:
    assert weights("uribl", ini.load(None, ONE)) == {"uribl_bad": 3.0}
    assert weights("dnsbl", ini.load(None, ONE)) == {}


@pytest.mark.parametrize(
    ("records", "broken", "said"),
    [
        pytest.param({"test.bad.example A": ["127.0.0.2"]}, set(), "", id="a list that works"),
        pytest.param({}, set(), "does not list the domain TEST", id="one without its test entry"),
        pytest.param(
            {"invalid.bad.example A": ["127.0.0.2"]}, {"uribl_bad"}, "lists the domain INVALID", id="one that lists all"
        ),
    ],
)
async def test_lists_are_looked_after(
    records: dict[str, list[str]], broken: set[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(ONE, records)
    switched: set[str] = set()
    world.watcher.dnslist_off = lambda name, off: switched.add(name) if off else None  # type: ignore[method-assign]
    await world.watch()
    assert world.dns.asked == ["test.bad.example A", "invalid.bad.example A"]
    assert switched == broken
    assert said in caplog.text


async def test_a_list_may_have_another_test_entry(caplog: pytest.LogCaptureFixture) -> None:
    text = ONE + "test = test.uribl.com\n"
    await World(text, {"test.uribl.com.bad.example A": ["127.0.0.14"]}).watch()
    assert caplog.text == ""
    await World(text, {"test.bad.example A": ["127.0.0.14"]}).watch()
    assert "does not list the domain TEST.URIBL.COM" in caplog.text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[uribl]\nzone = a.example", "[uribl] needs a name, as in [uribl example]"),
        ("[uribl a]", "[uribl a] needs a zone to ask in"),
        ("[uribl a]\nzone = a.example\nscore = accept", "accept is not for this kind of list"),
        ("[uribl a]\nzone = a.example\nipv6 = no", "unknown option 'ipv6'"),
    ],
)
def test_problems_of_a_section(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ini.load(None, text)
    assert problem in str(raised.value)
