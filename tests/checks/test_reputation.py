"""What is counted for whom, how it fades, and what it then says."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.checks.reputation import (
    HAM,
    SPAM,
    UNKNOWN,
    Identities,
    Reputation,
    Standing,
    identities,
    learn,
    remember_verdict,
    reputation,
    spokesman,
)
from authmilter.config import ini
from authmilter.config.option import Seconds
from authmilter.config.schema import Config
from authmilter.config.schema import Store as Options
from authmilter.errors import StoreError
from authmilter.evidence import Finding
from authmilter.interfaces import Store
from authmilter.model import Transaction
from authmilter.store import open_store
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action, Ruling
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.visits import Sessions, ruling, visit
from tests.fakes import FakeDNS
from tests.store.servers import RedisServer, running

DAY = 86400.0
NET, SPF, DKIM = "net 192.0.2.0/24", "spf sender.example", "dkim sender.example"
ON = "[reputation]\nenabled = yes\n"


class Site:
    """A site that keeps reputation, and a clock."""

    def __init__(self, more: str = "", *, store: Store | None = None) -> None:
        self.now = 1_700_000_000.0
        self.memory = MemoryStore(clock=lambda: self.now)
        self.store: Store = self.memory if store is None else store
        self.config: Config = ini.load(None, ON + more)
        self.tools = tools("reputation", config=self.config)._replace(store=self.store)

    async def knows(self, identity: str, ham: float = 0, spam: float = 0) -> None:
        """The administrator taught it that."""
        for amount, is_spam in ((ham, False), (spam, True)):
            if amount:
                await learn(self.store, [identity], spam=is_spam, amount=amount, options=self.tools.options)

    async def says(self, tx: Transaction) -> list[Finding]:
        """What the check finds."""
        return await awaited(reputation, tx, self.tools)

    async def sees(self, tx: Transaction, what: Ruling, times: int = 1) -> None:
        """Messages got that verdict."""
        for _ in range(times):
            await remember_verdict(tx, what, self.tools)

    async def counts(self) -> dict[str, tuple[float, float]]:
        """Identity -> ham and spam."""
        found: dict[str, tuple[float, float]] = {}
        for at, space in enumerate((HAM, SPAM)):
            async for key, entry in self.memory.scan(space):
                ham_and_spam = list(found.get(key, (0.0, 0.0)))
                ham_and_spam[at] = round(entry.total, 3)
                found[key] = (ham_and_spam[0], ham_and_spam[1])
        return found


@pytest.fixture
def site() -> Site:
    return Site()


# -- who answers for a message -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tx", "who"),
    [
        pytest.param(visit(spf="fail"), Identities((), (), NET), id="nobody but the network"),
        pytest.param(visit("2001:db8:1:2:3::4"), Identities((), (), "net 2001:db8:1:2::/64"), id="a network of IPv6"),
        pytest.param(visit(""), Identities(), id="nobody at all"),
        pytest.param(visit(spf="softfail", dkim=["!sender.example"]), Identities((), (), NET), id="what did not pass"),
        pytest.param(visit(spf="pass"), Identities((SPF,), (), NET), id="SPF"),
        pytest.param(visit(dkim=["sender.example"]), Identities((), (DKIM,), NET), id="a signature alone"),
        pytest.param(visit(spf="pass", dkim=["sender.example"]), Identities((SPF, DKIM), (), NET), id="both"),
        pytest.param(
            visit(
                spf="pass",
                sender="x@bounce.sender.example",
                dkim=["sender.example", "news.sender.example"],
                dmarc="pass",
                aligned=["bounce.sender.example", "sender.example", "news.sender.example"],
            ),
            Identities(("spf bounce.sender.example", "dkim sender.example", "dkim news.sender.example"), (), NET),
            id="signers aligned with the author, as SPF is",
        ),
        pytest.param(
            visit(
                spf="pass",
                sender="x@spammer.dyn.example",
                dkim=["dyn.example", "other.dyn.example"],
                author="hostmaster@dyn.example",
                dmarc="pass",
                aligned=["dyn.example"],
            ),
            Identities(("spf spammer.dyn.example",), ("dkim dyn.example", "dkim other.dyn.example"), NET),
            id="a provider's own mail, replayed from the domain of a customer below it",
        ),
        pytest.param(
            visit(spf="pass", sender="x@spammer.dyn.example", dkim=["dyn.example"]),
            Identities(("spf spammer.dyn.example",), ("dkim dyn.example",), NET),
            id="a signer above the domain of SPF, without DMARC",
        ),
        pytest.param(
            visit(
                spf="pass",
                sender="x@bounce.sender.example",
                dkim=["sender.example"],
                dmarc="fail",
                aligned=["bounce.sender.example", "sender.example"],
            ),
            Identities(("spf bounce.sender.example",), (DKIM,), NET),
            id="DMARC does not pass",
        ),
        pytest.param(
            visit(spf="pass", for_anyone=True, dkim=["sender.example"], dmarc="pass", aligned=["sender.example"]),
            Identities((), (DKIM,), NET),
            id="SPF that anyone may have",
        ),
        pytest.param(
            visit(spf="pass", dkim=["xsender.example", "other.example"]),
            Identities((SPF,), ("dkim xsender.example", "dkim other.example"), NET),
            id="signers that have nothing to do with it",
        ),
        pytest.param(
            visit(spf="pass", dkim=["a.example", "b.example", "c.example", "d.example", "sender.example"]),
            Identities((SPF, DKIM), ("dkim a.example", "dkim b.example"), NET),
            id="more signers than count",
        ),
        pytest.param(
            visit(dkim=["sender.example", "sender.example"]), Identities((), (DKIM,), NET), id="a signer twice"
        ),
        pytest.param(visit(sender="", spf="pass"), Identities(("spf helo.example",), (), NET), id="a bounce"),
    ],
)
def test_identities(tx: Transaction, who: Identities) -> None:
    assert identities(tx) == who


# -- the formula -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ham", "spam", "value"),
    [
        pytest.param(0, 0, 0.0, id="nothing"),
        pytest.param(4.9, 0, 0.0, id="not yet enough"),
        pytest.param(5, 0, -0.5, id="just enough, all good"),
        pytest.param(0, 5, 0.5, id="just enough, all bad"),
        pytest.param(0, 95, 0.95, id="much, all bad"),
        pytest.param(45, 0, -0.9, id="much, all good"),
        pytest.param(10, 10, 0.0, id="both alike"),
        pytest.param(10, 15, 0.0, id="nearly alike"),
        pytest.param(10, 20, 10 / 35, id="more bad than good"),
        pytest.param(970, 30, -940 / 1005, id="a large sender with some spam"),
    ],
)
def test_standing(ham: float, spam: float, value: float) -> None:
    assert Standing(ham, spam).value(5.0) == pytest.approx(value)


@given(st.floats(0, 1e15), st.floats(0, 1e15), st.floats(1, 1e6))
def test_a_standing_is_between_its_ends_and_the_same_turned_around(ham: float, spam: float, minimum: float) -> None:
    value = Standing(ham, spam).value(minimum)
    assert -1.0 <= value <= 1.0
    assert Standing(spam, ham).value(minimum) == -value


@pytest.mark.parametrize(
    ("who", "known", "speaks"),
    [
        pytest.param(Identities((SPF,), (), NET), {}, "", id="nobody is known"),
        pytest.param(Identities((SPF,), (), NET), {NET: (0, 20)}, NET, id="the network, where the domain is not known"),
        pytest.param(Identities((SPF,), (), NET), {SPF: (20, 0), NET: (0, 900)}, SPF, id="the domain over the network"),
        pytest.param(
            Identities((SPF,), (), NET),
            {SPF: (10, 10), NET: (0, 900)},
            "",
            id="a domain that says nothing, over it too",
        ),
        pytest.param(
            Identities((SPF,), (), NET), {SPF: (2, 0), NET: (0, 9)}, NET, id="a domain of which little is known"
        ),
        pytest.param(
            Identities((SPF, DKIM), (), NET),
            {SPF: (0, 10), DKIM: (90, 0)},
            DKIM,
            id="of two domains the one known best",
        ),
        pytest.param(
            Identities((), (DKIM,), NET), {DKIM: (20, 0)}, "", id="a good signature from where nothing is known"
        ),
        pytest.param(Identities((), (DKIM,), ""), {DKIM: (20, 0)}, "", id="a good signature from who knows where"),
        pytest.param(Identities((), (DKIM,), NET), {DKIM: (0, 20)}, DKIM, id="a bad signature, for want of another"),
        pytest.param(Identities((), (DKIM,), NET), {NET: (20, 0)}, NET, id="an unknown signature in a good network"),
        pytest.param(
            Identities((), (DKIM,), NET), {DKIM: (900, 0), NET: (20, 0)}, NET, id="good signature, less good network"
        ),
        pytest.param(
            Identities((), (DKIM,), NET), {DKIM: (20, 0), NET: (900, 0)}, DKIM, id="good network, less good signature"
        ),
        pytest.param(
            Identities((), (DKIM,), NET),
            {DKIM: (900, 0), NET: (0, 20)},
            NET,
            id="a good signature replayed by a bad network",
        ),
        pytest.param(
            Identities((), (DKIM,), NET), {DKIM: (0, 20), NET: (900, 0)}, DKIM, id="a bad signature in a good network"
        ),
        pytest.param(Identities((), (), ""), {}, "", id="nobody to know"),
    ],
)
def test_who_speaks(who: Identities, known: dict[str, Sequence[float]], speaks: str) -> None:
    standings = {identity: Standing(*known.get(identity, UNKNOWN)) for identity in who.all()}
    assert spokesman(who, standings, 5.0) == speaks


async def test_the_finding_tells_what_it_rests_on(site: Site) -> None:
    await site.knows(SPF, ham=2, spam=23)
    assert await site.says(visit(spf="pass")) == [
        Finding("reputation_bad", "spf sender.example: 2.0 ham, 23.0 spam", 0.7)
    ]
    await site.knows(NET, ham=15)
    assert await site.says(visit(spf="fail")) == [
        Finding("reputation_good", "net 192.0.2.0/24: 15.0 ham, 0.0 spam", 0.75)
    ]


async def test_nothing_is_said_of_strangers(site: Site) -> None:
    assert await site.says(visit(spf="pass", dkim=["sender.example"])) == []
    assert await site.says(visit("")) == []


async def test_a_forged_domain_has_not_its_reputation(site: Site) -> None:
    await site.knows(SPF, ham=100)
    await site.knows(DKIM, ham=100)
    assert await site.says(visit(spf="fail", dkim=["!sender.example"])) == []


# -- what is counted ---------------------------------------------------------------------------------------------------

GOOD = visit(spf="pass", dkim=["sender.example"])
ALL = {NET, SPF, DKIM}
PLAIN = ruling()


@pytest.mark.parametrize(
    ("what", "spam"),
    [
        pytest.param(PLAIN, False, id="accepted"),
        pytest.param(ruling(Action.ACCEPT, ("iprev_permerror", 0.5)), False, id="accepted, with little against it"),
        pytest.param(ruling(Action.ACCEPT, ("helo_bare", 1.0)), None, id="accepted, with something against it"),
        pytest.param(
            ruling(Action.ACCEPT, ("bayes", 4.0), ("reputation_good", -1.4), ("known_correspondent", -2.0)),
            None,
            id="accepted for what was known alone",
        ),
        pytest.param(
            ruling(Action.ACCEPT, ("reputation_bad", 2.0)), False, id="accepted, with nothing but reputation against it"
        ),
        pytest.param(ruling(Action.TAG, ("bayes", 5.0)), True, id="marked"),
        pytest.param(
            ruling(Action.TAG, ("bayes", 4.0), ("reputation_bad", 1.5)), None, id="marked for reputation alone"
        ),
        pytest.param(
            ruling(Action.REJECT, ("bayes", 11.0), ("reputation_bad", 1.5)),
            True,
            id="refused for reputation, marked anyway",
        ),
        pytest.param(
            ruling(Action.TAG, ("bayes", 7.0), ("reputation_good", -1.0)), True, id="marked in spite of reputation"
        ),
        pytest.param(ruling(Action.QUARANTINE, ("bayes", 9.0)), True, id="held"),
        pytest.param(ruling(Action.REJECT, ("bayes", 20.0)), True, id="refused"),
        pytest.param(ruling(Action.REJECT, because=["ambiguous_from"]), True, id="refused by an action"),
        pytest.param(ruling(Action.TAG, because=["dmarc_fail_quarantine"]), True, id="marked by an action"),
        pytest.param(ruling(Action.DISCARD, because=["clamav"]), True, id="thrown away"),
        pytest.param(
            ruling(Action.REJECT, because=["reputation_bad"]), None, id="refused by an action upon reputation"
        ),
        pytest.param(
            ruling(Action.REJECT, because=["access_reject"]), None, id="refused because nobody wants to hear him"
        ),
        pytest.param(ruling(Action.TEMPFAIL, because=["greylist"]), None, id="refused for now"),
        pytest.param(ruling(Action.TEMPFAIL, ("bayes", 9.0)), None, id="refused for now, with a score"),
    ],
)
async def test_what_counts(site: Site, what: Ruling, spam: bool | None) -> None:
    await site.sees(GOOD, what)
    expected = {} if spam is None else dict.fromkeys(ALL, (0.0, 1.0) if spam else (1.0, 0.0))
    assert await site.counts() == expected


@pytest.mark.parametrize(
    ("tx", "what", "counted"),
    [
        pytest.param(visit(spf="pass", findings=["spamtrap"]), PLAIN, {NET: (0, 1), SPF: (0, 1)}, id="a spam trap"),
        pytest.param(
            visit(spf="pass", refused_early=True),
            ruling(Action.REJECT, because=["dnsbl_zen"]),
            {NET: (0, 1)},
            id="refused before its content",
        ),
        pytest.param(
            visit(spf="fail", dkim=["!sender.example"]),
            ruling(Action.TAG, ("x", 9.0)),
            {NET: (0, 1)},
            id="forged domains",
        ),
        pytest.param(
            visit(dkim=["victim.example"]), ruling(Action.TAG, ("x", 9.0)), {NET: (0, 1)}, id="a signature replayed"
        ),
        pytest.param(
            visit(spf="pass", dkim=["victim.example", "example", "sender.example"]),
            ruling(Action.TAG, ("x", 9.0)),
            {NET: (0, 1), SPF: (0, 1), DKIM: (0, 1)},
            id="a signature replayed beside his own",
        ),
        pytest.param(
            visit(dkim=["sender.example"]), PLAIN, {NET: (1, 0), DKIM: (1, 0)}, id="good mail that was forwarded"
        ),
        pytest.param(visit(outbound=True), PLAIN, {}, id="mail of ours"),
        pytest.param(
            visit(recipients=[f"u{n}@site.example" for n in range(99)]), PLAIN, {NET: (1, 0)}, id="many recipients"
        ),
    ],
)
async def test_who_is_counted(
    site: Site, tx: Transaction, what: Ruling, counted: dict[str, tuple[float, float]]
) -> None:
    await site.sees(tx, what)
    assert await site.counts() == counted


@pytest.mark.parametrize(
    "more",
    ["[networks]\ntrusted_relays = 192.0.2.7", "[forwarders]\nnetworks = 192.0.2.0/24"],
    ids=["relay", "forwarder"],
)
async def test_what_comes_by_others_is_not_held_against_them(more: str) -> None:
    site = Site(more)
    await site.sees(GOOD, ruling(Action.TAG, ("x", 9.0)))
    assert await site.counts() == {}


async def test_without_a_threshold_that_marks_the_next_one_is_the_measure() -> None:
    site = Site("[policy]\ntag =\nreject = 8\n")
    await site.sees(GOOD, ruling(Action.REJECT, ("bayes", 7.0), ("reputation_bad", 2.0)))
    assert await site.counts() == {}
    await site.sees(GOOD, ruling(Action.REJECT, ("bayes", 8.0), ("reputation_bad", 2.0)))
    assert await site.counts() == dict.fromkeys(ALL, (0.0, 1.0))


async def test_it_does_not_feed_itself(site: Site) -> None:
    """Marked only because of its reputation, mail adds nothing to that reputation."""
    await site.knows(SPF, spam=50)
    before = await site.counts()
    [finding] = await site.says(visit(spf="pass"))
    verdict = ruling(Action.TAG, ("helo_literal", 4.0), (finding.symbol, 2.0 * finding.strength))
    await site.sees(visit(spf="pass"), verdict, times=20)
    assert await site.counts() == before


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_count_fades_to_a_half_in_half_life(site: Site) -> None:
    await site.knows(SPF, spam=40)
    values = []
    for _ in range(5):
        values.append([round(f.strength, 2) for f in await site.says(visit(spf="pass"))])
        site.now += 14 * DAY
    # 40, 20, 10, 5 and 2.5 messages
    assert values == [[0.89], [0.8], [0.67], [0.5], []]


async def test_good_mail_makes_up_for_old_spam(site: Site) -> None:
    await site.sees(visit(spf="pass"), ruling(Action.TAG, ("x", 9.0)), times=20)
    assert [f.symbol for f in await site.says(visit(spf="pass"))] == ["reputation_bad"]
    site.now += 28 * DAY
    await site.sees(visit(spf="pass"), PLAIN, times=20)
    assert [f.symbol for f in await site.says(visit(spf="pass"))] == ["reputation_good"]


@pytest.mark.parametrize(
    ("messages", "days"),
    [pytest.param(1, 14, id="once"), pytest.param(8, 56, id="eight times"), pytest.param(1000, 90, id="often")],
)
async def test_who_is_not_heard_of_is_forgotten_the_sooner_the_less_is_known(
    site: Site, messages: int, days: float
) -> None:
    await site.knows(SPF, ham=messages)
    site.now += days * DAY - 60
    assert await site.counts()
    site.now += 120
    assert not await site.counts()


async def test_names_made_for_one_message_do_not_fill_the_store(site: Site) -> None:
    for number in range(60):
        domain = f"x{number}.spam.example"
        signers = [f"s{n}.{domain}" for n in range(9)]
        tx = visit(spf="pass", sender=f"a@{domain}", dkim=signers, dmarc="pass", aligned=[domain, *signers])
        await site.sees(tx, ruling(Action.TAG, ("x", 9.0)))
        site.now += DAY
    # An SPF domain and three signers for each of the last days, the oldest of which has just gone; and the network.
    assert len(await site.counts()) == 13 * 4 + 1


async def test_learning_can_be_taken_back(site: Site) -> None:
    await site.knows(SPF, spam=6)
    await site.knows(SPF, spam=-2)
    assert await site.counts() == {SPF: (0.0, 4.0)}
    await site.knows(SPF, spam=-9)
    assert await site.counts() == {SPF: (0.0, 0.0)}
    await learn(site.store, [], spam=True, options=Reputation())


# -- the store ---------------------------------------------------------------------------------------------------------


async def test_without_a_store_the_pipeline_is_told(site: Site) -> None:
    await site.memory.close()
    with pytest.raises(StoreError):
        await site.says(GOOD)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_workers_and_machines_count_together(kind: str, tmp_path: Path) -> None:
    async def count(url: str) -> None:
        sites = [Site(store=open_store(Options(url=url, timeout=Seconds(10.0)))) for _ in range(3)]
        await asyncio.gather(*(s.sees(GOOD, ruling(Action.TAG, ("x", 9.0))) for s in sites for _ in range(10)))
        found = [await s.says(GOOD) for s in sites]
        assert [[(f.symbol, f.detail) for f in one] for one in found] == [
            [("reputation_bad", "spf sender.example: 0.0 ham, 30.0 spam")]
        ] * 3
        for one in sites:
            await one.store.close()  # type: ignore[attr-defined]

    if kind == "sqlite":
        await count(f"sqlite:{tmp_path}/state.db")
    else:
        with running(RedisServer(tmp_path)) as server:
            await count(server.url)


def test_it_is_off_unless_asked_for() -> None:
    assert not is_wanted("reputation", "")
    assert is_wanted("reputation", ON)


async def test_through_sessions_mail_of_a_spammer_speaks_against_his_next(site: Site) -> None:
    dns = FakeDNS({"sender.example TXT": ["v=spf1 ip4:192.0.2.7 -all"], "sender.example MX": ["10 mx.sender.example"]})
    config = ON + "[spamtraps]\naddresses = trap@site.example\n"
    sessions = Sessions(config, site.store, dns, lambda: site.now)
    for _ in range(6):
        await sessions.play("192.0.2.7", "x@sender.example", "trap@site.example")
    await sessions.play("192.0.2.7", "x@sender.example", "joe@site.example")
    assert sessions.found()["reputation_bad"] == "spf sender.example: 0.0 ham, 6.0 spam"
    for _ in range(2):
        await sessions.play("198.51.100.7", "x@sender.example", "joe@site.example")
        assert "reputation_bad" not in sessions.found()  # a forger in his name
