"""Who is greylisted, for how long, and who is known well enough."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from authmilter.check import Tools, words_for
from authmilter.checks.correspondents import remember_recipients
from authmilter.checks.greylist import CLIENT, MAX_NEW, TRIPLET, greylist, greylist_bounce, remember_passed
from authmilter.checks.reputation import Reputation, learn
from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import Store as Options
from authmilter.errors import StoreError
from authmilter.interfaces import ManagedStore, Store
from authmilter.model import Stage, Transaction
from authmilter.store import open_store
from authmilter.store.front import Step
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.visits import SENDER, Sessions, ruling, visit
from tests.fakes import FakeDNS
from tests.store.servers import RedisServer, running

DELAY, WINDOW, PASS_TTL = 300.0, 2 * 86400.0, 35 * 86400.0
NO_NAME = "client has no reverse DNS"


def nameless(*arguments: Any, **more: Any) -> Transaction:
    """A visit of a client without reverse DNS."""
    return visit(*arguments, iprev="permerror", **more)


class Counted(MemoryStore):
    """Counts round trips."""

    trips = 0

    async def _ask(self, operation: str, steps: Sequence[Step]) -> list[Any]:
        self.trips += 1
        return await super()._ask(operation, steps)


class Site:
    """A site with greylisting, and a clock."""

    def __init__(self, more: str = "", *, store: Store | None = None) -> None:
        self.now = 1_700_000_000.0
        self.memory = Counted(clock=lambda: self.now)
        self.store: Store = self.memory if store is None else store
        self.config = ini.load(None, f"[greylist]\nenabled = yes\n{more}")

    @property
    def tools(self) -> Tools:
        return tools("greylist", config=self.config, now=self.now)._replace(store=self.store)

    async def asks(self, tx: Transaction) -> str:
        """What the newest recipient is answered: the detail, "" if the mail passes."""
        found = await awaited(greylist, tx, self.tools)
        assert [finding.symbol for finding in found] == ["greylist"][: len(found)]
        return found[0].detail if found else ""

    async def bounces(self, tx: Transaction) -> str:
        """What DATA is answered."""
        found = await awaited(greylist_bounce, tx, self.tools)
        return found[0].detail if found else ""

    async def ends(self, tx: Transaction, action: Action = Action.ACCEPT) -> None:
        """The message got its verdict."""
        await remember_passed(tx, ruling(action), self.tools)

    async def passes(self, tx: Transaction, action: Action = Action.ACCEPT) -> None:
        """It is greylisted, comes again, and gets its verdict."""
        assert await self.asks(tx)
        self.now += DELAY
        assert not await self.asks(tx)
        await self.ends(tx, action)


@pytest.fixture
def site() -> Site:
    return Site()


# -- who is in doubt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tx", "reason"),
    [
        pytest.param(visit(spf="pass"), "", id="a confirmed name and SPF pass are no doubt"),
        pytest.param(visit(iprev="permerror", spf="pass"), NO_NAME, id="no name, though SPF passes"),
        pytest.param(
            visit(iprev="fail", spf="pass"),
            "reverse DNS of the client is not confirmed",
            id="a name that does not lead back",
        ),
        pytest.param(visit(iprev="temperror", spf="pass"), "", id="a DNS that fails is no doubt about the name"),
        pytest.param(visit(iprev="temperror", spf="temperror"), "", id="a DNS that fails is no doubt about SPF"),
        pytest.param(visit(iprev="", spf="pass", name=""), "", id="iprev is off"),
        pytest.param(
            visit(name="192-0-2-7.dyn.isp.example", spf="pass"), "name of the client is generic", id="a generic name"
        ),
        pytest.param(
            visit(iprev="", name="192-0-2-7.dyn.isp.example", spf="pass"),
            "name of the client is generic",
            id="a generic name that the MTA verified",
        ),
        pytest.param(visit(spf="fail"), "SPF fail", id="SPF fail"),
        pytest.param(visit(spf="softfail"), "SPF softfail", id="SPF softfail"),
        pytest.param(visit(spf="permerror"), "the SPF record can't be used", id="SPF permerror"),
        pytest.param(
            visit(spf="none"),
            "network is new here, and SPF does not say that it may send this",
            id="no SPF, and a network of which nothing is known",
        ),
        pytest.param(
            visit(spf="neutral"), "network is new here, and SPF does not say that it may send this", id="SPF neutral"
        ),
        pytest.param(visit(spf=""), "", id="SPF is off"),
        pytest.param(visit(spf="pass", findings=["dnsbl_low"]), "client is on a blocklist", id="listed"),
        pytest.param(visit(spf="pass", findings=["helo_literal"]), "", id="other findings are no doubt"),
        pytest.param(visit(client="", spf="fail"), "", id="a client without an address has no network"),
    ],
)
async def test_the_doubtful(site: Site, tx: Transaction, reason: str) -> None:
    assert await site.asks(tx) == (f"300 seconds: {reason}" if reason else "")
    # What is not in doubt costs no look into the store.
    assert site.memory.trips == (2 if reason else 0)


async def test_all_may_be_greylisted() -> None:
    site = Site("who = all")
    assert await site.asks(visit(spf="pass")) == "300 seconds: first mail of its kind"


@pytest.mark.parametrize(
    ("tx", "more"),
    [
        pytest.param(nameless(recipients=["PostMaster@site.example"]), "", id="mail to postmaster"),
        pytest.param(nameless(recipients=["abuse@site.example"]), "", id="mail to abuse"),
        pytest.param(nameless(recipients=['"post\\master"@site.example']), "", id="mail to postmaster in quotes"),
        pytest.param(nameless(findings=["dnswl_org"]), "", id="a client on a welcomelist"),
        pytest.param(nameless(findings=["access_accept"]), "", id="a client that [access] accepts"),
        pytest.param(nameless(), "except_networks = 192.0.2.0/28", id="an excepted network"),
        pytest.param(nameless(), "[spf]\nskip = 192.0.2.7", id="a client that SPF skips"),
        pytest.param(nameless(), "[forwarders]\nnetworks = 192.0.2.7", id="a forwarder by its address"),
        pytest.param(visit(spf="fail"), "[forwarders]\nnames = .sender.example", id="a forwarder by its name"),
        pytest.param(visit(spf="fail"), "except_domains = .sender.example", id="an excepted name of the client"),
        pytest.param(
            nameless(spf="pass"),
            "except_domains = sender.example",
            id="an excepted sender, with SPF",
        ),
        pytest.param(nameless(), "except_recipients = site.example", id="an excepted recipient domain"),
        pytest.param(nameless(), "except_recipients = JOE@site.example", id="an excepted mailbox"),
        pytest.param(
            nameless(recipients=['"joe"@site.example']),
            "except_recipients = joe@site.example",
            id="the same, in quotes",
        ),
    ],
)
async def test_the_excepted(tx: Transaction, more: str) -> None:
    site = Site(more)
    assert await site.asks(tx) == ""
    assert site.memory.trips == 0


@pytest.mark.parametrize(
    ("tx", "more"),
    [
        pytest.param(visit(iprev="fail"), "except_domains = sender.example", id="its sender is only claimed"),
        pytest.param(visit(iprev="fail"), "except_domains = mail.sender.example", id="its name is not confirmed"),
        pytest.param(visit(iprev="fail"), "except_networks = 192.0.2.8", id="its neighbour is"),
        pytest.param(visit(iprev="fail"), "except_recipients = ann@site.example", id="another mailbox is"),
        pytest.param(visit(iprev="fail", recipients=["postmaster2@site.example"]), "", id="it is not quite postmaster"),
        pytest.param(
            visit(iprev="fail", recipients=['"postmaster@x"@site.example']), "", id="it only begins like postmaster"
        ),
        pytest.param(
            visit(iprev="fail", spf="pass", for_anyone=True),
            "except_domains = sender.example",
            id="anyone may have its SPF pass",
        ),
    ],
)
async def test_the_not_excepted(tx: Transaction, more: str) -> None:
    assert await Site(more).asks(tx)


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "answer"),
    [
        pytest.param(0.0, "300 seconds", id="at once"),
        pytest.param(0.5, "300 seconds", id="after half a second, rounded up"),
        pytest.param(100.0, "200 seconds", id="too early"),
        pytest.param(299.5, "1 second", id="by half a second"),
        pytest.param(DELAY, "", id="when told"),
        pytest.param(WINDOW - 1, "", id="at the end of the window"),
        pytest.param(WINDOW + 1, "300 seconds", id="after the window"),
    ],
)
async def test_who_comes_again(site: Site, after: float, answer: str) -> None:
    tx = nameless()
    await site.asks(tx)
    site.now += after
    assert await site.asks(tx) == (f"{answer}: {NO_NAME}" if answer else "")


async def test_coming_too_early_does_not_begin_the_wait_anew(site: Site) -> None:
    tx = nameless()
    answers = []
    for _ in range(6):
        answers.append((await site.asks(tx)).partition(" ")[0])
        site.now += 60
    assert answers == ["300", "240", "180", "120", "60", ""]


async def test_a_clock_that_is_set_back_an_hour_does_not_add_an_hour_to_the_wait(site: Site) -> None:
    tx = nameless()
    await site.asks(tx)
    site.now -= 3600 - 60
    assert await site.asks(tx) == f"300 seconds: {NO_NAME}"
    site.now += DELAY
    assert await site.asks(tx) == ""


async def test_a_clock_that_is_set_ahead_ends_the_wait(site: Site) -> None:
    tx = nameless()
    await site.asks(tx)
    site.now += 3600
    assert await site.asks(tx) == ""


# -- what waits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        pytest.param(visit(spf="fail"), visit("192.0.2.250", spf="fail"), True, id="another host of the /24"),
        pytest.param(visit(spf="fail"), visit("192.0.3.7", spf="fail"), False, id="a host of another /24"),
        pytest.param(
            visit("2001:db8:1:2::7", spf="fail"), visit("2001:db8:1:2:ffff::1", spf="fail"), True, id="the same /64"
        ),
        pytest.param(
            visit("2001:db8:1:2::7", spf="fail"), visit("2001:db8:1:3::7", spf="fail"), False, id="another /64"
        ),
        pytest.param(
            visit(iprev="fail", spf="pass"),
            visit("198.51.100.9", iprev="permerror", spf="pass"),
            True,
            id="any host for which SPF passes",
        ),
        pytest.param(
            visit(iprev="fail", spf="pass", for_anyone=True),
            visit("198.51.100.9", iprev="permerror", spf="pass", for_anyone=True),
            False,
            id="any host, where anyone may have that pass",
        ),
        pytest.param(
            visit(iprev="fail", spf="pass"),
            visit("198.51.100.9", iprev="fail"),
            False,
            id="a host for which it does not",
        ),
        pytest.param(visit(spf="fail"), visit(spf="fail", sender="bob@sender.example"), False, id="another sender"),
        pytest.param(visit(spf="fail"), visit(spf="fail", sender="JANE@Sender.example"), True, id="in other letters"),
        pytest.param(
            visit(spf="fail"), visit(spf="fail", recipients=["ann@site.example"]), False, id="another recipient"
        ),
        pytest.param(
            visit(spf="fail", sender="bounce-17-ab3f=joe=site.example@list.example"),
            visit(spf="fail", sender="bounce-18-99zz=joe=site.example@list.example"),
            True,
            id="a sender made for one message",
        ),
        pytest.param(
            visit(spf="fail", sender="prvs=0123abcdef=jane@sender.example"),
            visit(spf="fail", sender="prvs=4567fedcb0=jane@sender.example"),
            True,
            id="a sender with a signature",
        ),
        pytest.param(
            visit(spf="fail", sender="jane+ab@sender.example"),
            visit(spf="fail", sender="jane+cd@sender.example"),
            True,
            id="a sender with a tag",
        ),
        pytest.param(
            visit(spf="fail", sender="a.b@sender.example"),
            visit(spf="fail", sender="a-b@sender.example"),
            False,
            id="separators differ",
        ),
        pytest.param(
            visit(spf="fail", sender='"a b@site.example c"@sender.example'),
            visit(spf="fail", sender="a@sender.example", recipients=["joe@site.example"]),
            False,
            id="a quoted sender with the signs of a key in it",
        ),
        pytest.param(
            visit(spf="fail", sender="no path"), visit(spf="fail", sender="no path"), True, id="a broken sender"
        ),
    ],
)
async def test_the_triplet(site: Site, first: Transaction, second: Transaction, *, same: bool) -> None:
    assert await site.asks(first)
    site.now += DELAY
    assert bool(await site.asks(second)) is not same


async def test_recipients_of_one_message_wait_each_on_its_own(site: Site) -> None:
    for number, wait in ((1, "300"), (2, "300"), (3, "300")):
        tx = nameless(recipients=[f"user{n}@site.example" for n in range(number)])
        assert (await site.asks(tx)).startswith(wait)
        site.now += 100
    site.now -= 100
    first = nameless(recipients=["user0@site.example"])
    assert await site.asks(first) == f"100 seconds: {NO_NAME}"


async def test_a_long_address_makes_no_long_key(site: Site) -> None:
    tx = nameless(sender=f"{'x' * 500}@{'y' * 60}.example", recipients=[f"{'z' * 500}@site.example"])
    await site.asks(tx)
    [key] = [key async for key, _ in site.memory.scan(TRIPLET)]
    assert len(key) < 255


# -- how much one network can write -------------------------------------------------------------------------------------


async def rows(site: Site) -> int:
    return len([key async for key, _ in site.memory.scan(TRIPLET)])


def stranger(number: int, client: str = "192.0.2.7", **more: Any) -> Transaction:
    """A client that uses every address of its network, and a sender and recipient that nobody has seen."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    sender = f"{letters}@{letters}.example"
    return nameless(client.replace("*", str(number)), sender, recipients=[f"{letters}@site.example"], **more)


@pytest.mark.parametrize(
    ("client", "more"),
    [
        pytest.param("192.0.2.7", {}, id="one host"),
        pytest.param("192.0.2.*", {}, id="hosts of a /24"),
        pytest.param("2001:db8:1:*::7", {}, id="the networks of a /48"),
        pytest.param("192.0.2.7", {"spf": "pass"}, id="domains of its own, for which SPF passes"),
    ],
)
async def test_a_network_can_write_so_much_and_no_more(site: Site, client: str, more: dict[str, Any]) -> None:
    for number in range(MAX_NEW + 50):
        assert await site.asks(stranger(number, client, **more)) == f"300 seconds: {NO_NAME}"
    assert await rows(site) == MAX_NEW + 1
    assert await site.asks(nameless("203.0.113.9"))
    assert await rows(site) == MAX_NEW + 2  # another network has a bound of its own


async def test_who_comes_behind_the_bound_waits_with_all_others_and_passes(site: Site) -> None:
    for number in range(MAX_NEW + 1):
        await site.asks(stranger(number))
    site.now += 100
    assert await site.asks(nameless("192.0.2.99")) == f"200 seconds: {NO_NAME}"
    site.now += 200
    assert await site.asks(nameless("192.0.2.99")) == ""
    await site.ends(nameless("192.0.2.99"))
    assert await site.asks(stranger(0)) == ""  # what came before the bound has waited on its own
    site.now += WINDOW
    assert await site.asks(OTHER)  # what waited with all others has made nobody known


async def test_what_waits_as_one_can_be_released(site: Site) -> None:
    for number in range(MAX_NEW + 1):
        await site.asks(stranger(number))
    assert TRIPLET.release is not None
    assert await site.memory.replace(TRIPLET, "192.0.2.0/24 *", TRIPLET.release)
    assert await site.asks(nameless("192.0.2.99")) == ""
    assert await site.asks(stranger(0))  # he has an entry of his own, which is released with the others of his network


async def test_the_bound_is_that_of_a_day(site: Site) -> None:
    for number in range(MAX_NEW + 1):
        await site.asks(stranger(number))
    site.now += 86400
    assert await site.asks(nameless()) == f"300 seconds: {NO_NAME}"
    assert await rows(site) == MAX_NEW + 2


async def test_who_only_comes_again_does_not_use_up_the_bound(site: Site) -> None:
    for _ in range(MAX_NEW + 1):
        await site.asks(nameless())
        site.now += 1
    await site.asks(OTHER)
    assert await rows(site) == 2


# -- bounces -----------------------------------------------------------------------------------------------------------


async def test_whoever_only_asks_for_an_address_is_not_delayed_and_a_bounce_is_at_data(site: Site) -> None:
    tx = nameless(sender="")
    assert await site.asks(tx) == ""
    assert await site.bounces(tx) == f"300 seconds: {NO_NAME}"
    site.now += DELAY
    assert await site.bounces(tx) == ""


async def test_a_bounce_is_not_in_doubt_because_its_host_has_no_spf(site: Site) -> None:
    assert await site.bounces(visit(sender="", spf="none")) == ""


async def test_a_bounce_does_not_hide_behind_a_recipient_whose_mail_never_waits() -> None:
    site = Site("except_recipients = open.example")
    open_ones = ["postmaster@site.example", "x@open.example"]
    assert await site.bounces(nameless(sender="", recipients=open_ones)) == ""
    assert await site.bounces(nameless(sender="", recipients=[])) == ""
    assert await site.bounces(nameless(sender="", recipients=[*open_ones, "joe@site.example"]))
    site.now += DELAY - 1
    assert (await site.bounces(nameless(sender="", recipients=["joe@site.example"]))).startswith("1 second:")


async def test_other_mail_is_not_delayed_at_data(site: Site) -> None:
    assert await site.bounces(nameless()) == ""


@pytest.mark.parametrize("check", ["greylist", "greylist_bounce"])
def test_it_is_off_unless_asked_for(check: str) -> None:
    assert not is_wanted(check, "")
    assert is_wanted(check, "[greylist]\nenabled = yes")


@pytest.mark.parametrize("symbol", ["greylist", "greylist_bounce"])
def test_the_reply_says_how_long_and_why(symbol: str) -> None:
    words = words_for(symbol)
    assert words is not None
    text = words.text(visit(), f"240 seconds: {NO_NAME}")
    assert (words.detail, text) == ("7.1", "Greylisted, please try again in 240 seconds (client has no reverse DNS)")


# -- who is known ------------------------------------------------------------------------------------------------------

OTHER = visit("192.0.2.99", sender="bob@other.example", recipients=["ann@site.example"], iprev="permerror")


async def test_a_client_whose_mail_was_accepted_waits_no_more(site: Site) -> None:
    tx = nameless()
    await site.passes(tx)
    assert await site.asks(OTHER) == ""


async def test_a_domain_for_which_spf_passes_waits_no_more_wherever_it_comes_from(site: Site) -> None:
    await site.passes(nameless(spf="pass"))
    assert await site.asks(nameless("198.51.100.1", spf="pass", recipients=["ann@site.example"])) == ""
    assert await site.asks(nameless(spf="fail"))  # in its name, but not by its hosts


async def test_a_pass_that_anyone_may_have_frees_its_network_alone(site: Site) -> None:
    await site.passes(nameless(spf="pass", for_anyone=True))
    assert await site.asks(nameless("192.0.2.8", spf="pass", for_anyone=True, recipients=["ann@site.example"])) == ""
    assert await site.asks(nameless("198.51.100.1", spf="pass", for_anyone=True, recipients=["ann@site.example"]))


@pytest.mark.parametrize("action", [Action.REJECT, Action.TEMPFAIL, Action.DISCARD])
async def test_a_message_that_is_refused_is_no_success(site: Site, action: Action) -> None:
    tx = nameless()
    await site.passes(tx, action)
    assert await site.asks(OTHER)
    assert await site.asks(tx) == ""  # it has waited, and may yet be accepted
    site.now += WINDOW
    assert await site.asks(tx)


@pytest.mark.parametrize("action", [Action.TAG, Action.QUARANTINE])
async def test_a_message_that_is_marked_makes_only_its_triplet_known(site: Site, action: Action) -> None:
    tx = nameless()
    await site.passes(tx, action)
    assert await site.asks(OTHER)
    assert await site.asks(tx) == ""
    site.now += PASS_TTL - 1
    assert await site.asks(tx) == ""
    site.now += 2
    assert await site.asks(tx)


async def test_a_client_that_never_waited_is_not_known_by_being_accepted(site: Site) -> None:
    tx = nameless()
    await site.ends(tx)
    assert await site.asks(tx)
    site.now += 1
    await site.ends(tx)  # another policy let it pass before its time
    assert await site.asks(OTHER)


async def test_what_is_not_in_doubt_is_not_remembered(site: Site) -> None:
    await site.ends(visit(spf="pass"))
    assert site.memory.trips == 0


async def test_mail_of_ours_is_not_remembered(site: Site) -> None:
    await site.ends(nameless(outbound=True))
    assert site.memory.trips == 0


async def test_after_as_many_successes_as_asked_for() -> None:
    site = Site("auto_allow = 3")
    for n in range(3):
        assert await site.asks(nameless(recipients=[f"new{n}@site.example"]))
        await site.passes(nameless(recipients=[f"user{n}@site.example"]))
    assert await site.asks(nameless(recipients=["newer@site.example"])) == ""


async def test_without_auto_allow_every_triplet_waits() -> None:
    site = Site("auto_allow = 0")
    tx = nameless()
    await site.passes(tx)
    assert await site.asks(OTHER)
    site.now += WINDOW + 1
    assert await site.asks(tx) == ""


@pytest.mark.parametrize("more", ["", "auto_allow = 0"], ids=["a client", "a triplet"])
async def test_what_is_used_stays_known(more: str) -> None:
    site = Site(more)
    tx = nameless()
    await site.passes(tx)
    for _ in range(4):
        site.now += PASS_TTL - 86400
        assert await site.asks(tx) == ""
        await site.ends(tx)
    site.now += PASS_TTL + 1
    assert await site.asks(tx)


async def test_a_known_network_needs_no_spf(site: Site) -> None:
    await site.passes(visit())
    assert await site.asks(visit("192.0.2.200", sender="bob@other.example")) == ""


async def test_a_client_that_is_known_costs_no_write(site: Site) -> None:
    await site.passes(nameless())
    site.memory.trips = 0
    await site.asks(OTHER)
    await site.ends(OTHER)
    assert site.memory.trips == 2


# -- what others know --------------------------------------------------------------------------------------------------

CORRESPONDENTS = "[correspondents]\nenabled = yes"


async def written_to(site: Site, address: str) -> None:
    given = tools("correspondents", config=site.config, now=site.now)._replace(store=site.store)
    tx = visit(outbound=True, sender="joe@site.example", author="joe@site.example", recipients=[address])
    await remember_recipients(tx, ruling(), given)


@pytest.mark.parametrize(
    ("tx", "known"),
    [
        pytest.param(nameless(spf="pass"), True, id="whom we wrote to"),
        pytest.param(nameless(spf="none"), False, id="somebody in his name"),
        pytest.param(nameless(spf="pass", for_anyone=True), False, id="somebody by an SPF pass that anyone may have"),
        pytest.param(nameless(spf="pass", sender="x@sender.example"), False, id="a colleague of his"),
        pytest.param(
            nameless(spf="pass", recipients=["ann@other.example"]),
            False,
            id="whom another site wrote to",
        ),
        pytest.param(
            nameless(spf="pass", recipients=["ann@site.example"]),
            True,
            id="whom somebody else at that site wrote to",
        ),
    ],
)
async def test_known_correspondents_do_not_wait(tx: Transaction, *, known: bool) -> None:
    site = Site(CORRESPONDENTS)
    await written_to(site, SENDER)
    site.memory.trips = 0
    assert bool(await site.asks(tx)) is not known
    assert site.memory.trips == (1 if known else 2)


async def test_correspondents_that_are_switched_off_say_nothing(site: Site) -> None:
    await written_to(Site(CORRESPONDENTS, store=site.store), SENDER)
    assert await site.asks(nameless(spf="pass"))


REPUTATION = "[reputation]\nenabled = yes"


@pytest.mark.parametrize(
    ("tx", "identity", "spam", "waits"),
    [
        pytest.param(nameless(spf="pass"), "spf sender.example", False, False, id="a good domain"),
        pytest.param(nameless(spf="pass"), "spf sender.example", True, True, id="a bad domain"),
        pytest.param(
            nameless(spf="pass", for_anyone=True), "spf sender.example", False, True, id="a good domain, for anyone"
        ),
        pytest.param(nameless(spf="fail"), "spf sender.example", False, True, id="a good domain, forged"),
        pytest.param(visit(spf="none"), "net 192.0.2.0/24", False, False, id="a network that is not new"),
        pytest.param(visit(spf="none"), "net 192.0.2.0/24", True, True, id="a network known for spam"),
        pytest.param(visit(spf="fail"), "net 192.0.2.0/24", False, True, id="a known network, and SPF fails"),
    ],
)
async def test_reputation(tx: Transaction, identity: str, *, spam: bool, waits: bool) -> None:
    site = Site(REPUTATION)
    await learn(site.store, [identity], spam=spam, amount=20, options=Reputation())
    site.memory.trips = 0
    assert bool(await site.asks(tx)) is waits
    assert site.memory.trips == (2 if waits else 1)


# -- the store ---------------------------------------------------------------------------------------------------------


async def test_without_a_store_nobody_waits_and_the_pipeline_is_told(site: Site) -> None:
    await site.memory.close()
    with pytest.raises(StoreError):
        await site.asks(nameless())
    assert await site.asks(visit(spf="pass")) == ""


@pytest.fixture(params=["sqlite", "redis"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], ManagedStore]]:
    """Makes stores of different processes or machines over the same state."""
    stores: list[ManagedStore] = []

    def make(url: str) -> ManagedStore:
        stores.append(open_store(Options(url=url, timeout=Seconds(10.0))))
        return stores[-1]

    if request.param == "sqlite":
        yield lambda: make(f"sqlite:{tmp_path}/state.db")
    else:
        with running(RedisServer(tmp_path)) as server:
            yield lambda: make(server.url)
            for store in stores:
                await store.close()
            return
    for store in stores:
        await store.close()


async def test_of_all_workers_and_machines_that_race_none_lets_it_pass_and_none_begins_anew(
    opened: Callable[[], ManagedStore],
) -> None:
    sites = [Site("delay = 1s", store=opened()) for _ in range(4)]
    tx = nameless()
    answers = await asyncio.gather(*(site.asks(tx) for site in sites for _ in range(5)))
    assert answers == [f"1 second: {NO_NAME}"] * 20
    for _ in range(3):
        await asyncio.sleep(0.25)
        assert await sites[1].asks(tx) == f"1 second: {NO_NAME}"
    await asyncio.sleep(0.3)
    assert await asyncio.gather(*(site.asks(tx) for site in sites)) == [""] * 4
    await asyncio.gather(*(site.ends(tx) for site in sites))
    assert await asyncio.gather(*(site.asks(OTHER) for site in sites)) == [""] * 4
    entry = await sites[3].store.get(CLIENT, "192.0.2.0/24")
    assert entry is not None
    assert entry.ttl == pytest.approx(PASS_TTL, abs=10)


# -- whole sessions ----------------------------------------------------------------------------------------------------


async def test_through_a_session_a_retry_is_accepted_and_its_network_known(site: Site) -> None:
    dns = FakeDNS({"sender.example A": ["192.0.2.7"], "other.example A": ["192.0.2.8"]})
    sessions = Sessions("[greylist]\nenabled = yes\n", site.store, dns, lambda: site.now)
    wait = "451 4.7.1 Greylisted, please try again in {} seconds (client has no reverse DNS)"
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == wait.format(300)
    site.now += 60
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == wait.format(240)
    site.now += 240
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == "accept"
    assert await sessions.play("192.0.2.9", "bob@other.example", "ann@site.example") == "accept"
    assert await sessions.play("198.51.100.9", SENDER, "joe@site.example") == wait.format(300)


async def test_through_a_session_a_bounce_is_refused_at_data(site: Site) -> None:
    sessions = Sessions("[greylist]\nenabled = yes\n", site.store, FakeDNS(), lambda: site.now)
    reply = await sessions.play("192.0.2.7", "", "joe@site.example", author="x@sender.example")
    assert reply == "451 4.7.1 Greylisted, please try again in 300 seconds (client has no reverse DNS)"
    assert sessions.outcomes[-1].stage is Stage.DATA
    site.now += DELAY
    assert await sessions.play("192.0.2.7", "", "joe@site.example", author="x@sender.example") == "accept"


async def test_through_sessions_a_success_under_plus_all_frees_no_botnet(site: Site) -> None:
    dns = FakeDNS({"sender.example TXT": ["v=spf1 +all"], "sender.example A": ["192.0.2.7"]})
    sessions = Sessions("[greylist]\nenabled = yes\n", site.store, dns, lambda: site.now)
    wait = "451 4.7.1 Greylisted, please try again in 300 seconds (client has no reverse DNS)"
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == wait
    site.now += DELAY
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == "accept"
    assert await sessions.play("198.51.100.9", SENDER, "joe@site.example") == wait
    assert await sessions.play("203.0.113.9", SENDER, "ann@site.example") == wait


async def test_without_a_store_mail_goes_on(site: Site) -> None:
    sessions = Sessions("[greylist]\nenabled = yes\n", site.store, FakeDNS(), lambda: site.now)
    await site.memory.close()
    assert await sessions.play("192.0.2.7", SENDER, "joe@site.example") == "accept"
    assert "greylist_temperror" in sessions.found()
