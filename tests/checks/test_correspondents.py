"""Whom our users wrote to, and who may claim to be one of them."""

from collections.abc import Sequence

import pytest

from authmilter.checks.correspondents import (
    CORRESPONDENT,
    MAX_RECORDED,
    correspondents,
    key,
    remember_recipients,
)
from authmilter.config import ini
from authmilter.errors import StoreError
from authmilter.evidence import Finding
from authmilter.model import Transaction
from authmilter.store.memory import MemoryStore
from authmilter.verdict import Action, Ruling
from tests.checks.tools import awaited, is_wanted, tools
from tests.checks.visits import Sessions, mailbox, ruling, visit
from tests.fakes import FakeDNS

DAY = 86400.0
ON = "[correspondents]\nenabled = yes\n"
JANE, JOE = "jane@sender.example", "joe@site.example"


class Site:
    """A site that remembers, and a clock."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.store = MemoryStore(clock=lambda: self.now)
        self.tools = tools("correspondents", config=ini.load(None, ON))._replace(store=self.store)

    async def sends(self, tx: Transaction, what: Ruling | None = None) -> None:
        """A message of ours got its verdict."""
        await remember_recipients(tx, what or ruling(), self.tools)

    async def says(self, tx: Transaction) -> list[Finding]:
        """What the check finds."""
        return await awaited(correspondents, tx, self.tools)

    async def known(self) -> set[str]:
        """All keys."""
        return {found async for found, _ in self.store.scan(CORRESPONDENT)}


@pytest.fixture
def site() -> Site:
    return Site()


def letter(
    *recipients: str,
    sender: str = JOE,
    author: str = JOE,
    local: bool = False,
    fields: tuple[tuple[str, str], ...] = (),
) -> Transaction:
    """A message of ours."""
    to = recipients or (JANE,)
    return visit("127.0.0.1", sender, to, author=author, fields=fields, outbound=True, local=local, spf="", iprev="")


def proven(recipients: Sequence[str] = (JOE,)) -> Transaction:
    """A message for which DMARC passes, by the signature of a domain below the author's."""
    signer = "mail.sender.example"
    return visit(recipients=recipients, dkim=[signer], dmarc="pass", aligned=[signer])


@pytest.mark.parametrize(
    ("tx", "known"),
    [
        pytest.param(proven(), True, id="DMARC passes by a signature"),
        pytest.param(
            visit(spf="pass", sender="x@b.sender.example", dmarc="pass", aligned=["b.sender.example"]),
            True,
            id="DMARC passes by SPF",
        ),
        pytest.param(
            visit(spf="pass", for_anyone=True, dmarc="pass", aligned=["sender.example"]),
            False,
            id="DMARC passes by SPF that anyone may have",
        ),
        pytest.param(
            visit(spf="pass", for_anyone=True, dmarc="pass", aligned=["sender.example"], dkim=["spam.example"]),
            False,
            id="the same, with a signature that is not aligned",
        ),
        pytest.param(visit(spf="pass", for_anyone=True), False, id="SPF passes, as it may for anyone"),
        pytest.param(visit(spf="pass"), True, id="SPF passes for the very domain"),
        pytest.param(visit(dkim=["sender.example"]), True, id="a signature of the very domain"),
        pytest.param(visit(dkim=["other.example", "sender.example"]), True, id="among others"),
        pytest.param(visit(), False, id="nothing passes"),
        pytest.param(visit(dmarc="fail", spf="fail", dkim=["!sender.example"]), False, id="all fails"),
        pytest.param(visit(dmarc="temperror"), False, id="nothing is certain"),
        pytest.param(visit(dkim=["example"]), False, id="a signature of the domain above"),
        pytest.param(visit(dkim=["x.sender.example"]), False, id="a signature of a domain below"),
        pytest.param(visit(spf="pass", sender="jane@bounce.sender.example"), False, id="SPF of a domain below"),
        pytest.param(visit(spf="pass", author="jane@forged.example"), False, id="SPF of him, From of another"),
        pytest.param(visit(spf="pass", author="ann@sender.example"), False, id="somebody else of that domain"),
        pytest.param(visit(spf="pass", author="JANE@Sender.Example"), True, id="in other letters"),
        pytest.param(visit(spf="pass", sender="bounce@sender.example"), True, id="another sender of that domain"),
        pytest.param(visit(dmarc="pass", author=""), False, id="no author"),
        pytest.param(visit(spf="pass", fields=[("From", JANE)]), False, id="two From fields"),
        pytest.param(
            visit(spf="pass", author="", fields=[("From", f"{JANE}, ann@sender.example")]), False, id="two authors"
        ),
        pytest.param(proven(["ann@site.example"]), True, id="to another of our people"),
        pytest.param(proven(["ann@other.example"]), False, id="to a domain that never wrote"),
        pytest.param(proven(["ann@other.example", "bob@site.example"]), True, id="to both"),
    ],
)
async def test_who_is_known(site: Site, tx: Transaction, *, known: bool) -> None:
    await site.sends(letter())
    expected = [Finding("known_correspondent", "written to by site.example")] if known else []
    assert await site.says(tx) == expected


async def test_spf_of_the_helo_name_is_not_that_of_the_author(site: Site) -> None:
    await site.sends(letter("jane@helo.example"))
    assert await site.says(visit(spf="pass", sender="x@helo.example", author="jane@helo.example"))
    assert await site.says(visit(spf="pass", sender="", author="jane@helo.example")) == []


async def test_nobody_is_known_before_he_was_written_to(site: Site) -> None:
    assert await site.says(proven()) == []


@pytest.mark.parametrize(
    ("tx", "what", "recorded"),
    [
        pytest.param(letter(), ruling(), True, id="a letter"),
        pytest.param(letter(), ruling(Action.REJECT, because=["from_mismatch"]), False, id="refused"),
        pytest.param(letter(), ruling(Action.TEMPFAIL, because=["outbound_limit"]), False, id="over a limit"),
        pytest.param(letter(), ruling(Action.QUARANTINE, because=["outbound_limit"]), False, id="held"),
        pytest.param(letter(sender=""), ruling(), False, id="a bounce, or an automatic reply"),
        pytest.param(letter(local=True), ruling(), False, id="what the machine itself sends"),
        pytest.param(letter(fields=(("Auto-Submitted", "auto-replied"),)), ruling(), False, id="a vacation notice"),
        pytest.param(
            letter(fields=(("Auto-Submitted", "Auto-Generated; owner-token=x"),)), ruling(), False, id="a notification"
        ),
        pytest.param(letter(fields=(("Auto-Submitted", "no"),)), ruling(), True, id="by hand, and it says so"),
        pytest.param(letter(fields=(("Auto-Submitted", "No; x=y"),)), ruling(), True, id="by hand, with a parameter"),
        pytest.param(letter(fields=(("List-Id", "<l.example>"),)), ruling(), False, id="mail of a list"),
        pytest.param(letter(fields=(("List-Unsubscribe", "<https://x>"),)), ruling(), False, id="a newsletter"),
        pytest.param(letter(fields=(("Precedence", "Bulk"),)), ruling(), False, id="bulk"),
        pytest.param(letter(fields=(("Precedence", "first-class"),)), ruling(), True, id="no bulk"),
        pytest.param(visit(), ruling(), False, id="mail to us"),
    ],
)
async def test_what_makes_a_correspondent(site: Site, tx: Transaction, what: Ruling, *, recorded: bool) -> None:
    await site.sends(tx, what)
    assert await site.known() == ({f"{JANE} site.example"} if recorded else set())


async def test_the_end_of_a_session_makes_none(site: Site) -> None:
    await remember_recipients(letter(), None, site.tools)
    assert await site.known() == set()


async def test_the_author_counts_since_replies_go_to_him(site: Site) -> None:
    await site.sends(letter(sender="joe=x@bounce.site.example"))
    assert await site.known() == {f"{JANE} site.example"}


async def test_without_an_author_it_is_the_sender(site: Site) -> None:
    await site.sends(letter(author=""))
    assert await site.known() == {f"{JANE} site.example"}


async def test_a_message_to_many_makes_so_many_and_no_more(site: Site) -> None:
    await site.sends(letter(*(f"u{n}@list.example" for n in range(500))))
    assert len(await site.known()) == MAX_RECORDED


async def test_whoever_is_written_to_again_stays_known(site: Site) -> None:
    await site.sends(letter())
    for _ in range(3):
        site.now += 170 * DAY
        assert await site.says(proven())
        await site.sends(letter())
    site.now += 181 * DAY
    assert await site.says(proven()) == []


@pytest.mark.parametrize(
    ("address", "domain", "expected"),
    [
        pytest.param("Jane@Sender.Example", "site.example", "jane@sender.example site.example", id="an address"),
        pytest.param('"a b"@x.example', "site.example", "a_b@x.example site.example", id="blanks"),
        pytest.param('"jane"@x.example', "site.example", "jane@x.example site.example", id="quotes without need"),
        pytest.param(f"{'x' * 65}@x.example", "site.example", "", id="a local-part that nobody has"),
        pytest.param("postmaster", "site.example", "", id="no domain"),
        pytest.param("jane@[192.0.2.1]", "site.example", "", id="an address literal"),
        pytest.param("jane@x.example", "", "", id="no domain of ours"),
        pytest.param(
            "jürgen@bücher.example", "site.example", "jürgen@xn--bcher-kva.example site.example", id="U-labels"
        ),
    ],
)
def test_the_key(address: str, domain: str, expected: str) -> None:
    assert key(mailbox(address), domain) == expected


async def test_mail_that_is_not_authenticated_costs_no_look_into_the_store(site: Site) -> None:
    await site.store.close()
    assert await site.says(visit()) == []
    with pytest.raises(StoreError):
        await site.says(proven())


def test_it_is_off_unless_asked_for() -> None:
    assert not is_wanted("correspondents", "")
    assert is_wanted("correspondents", ON)


async def test_through_sessions_whoever_was_written_to_is_known_and_his_forger_is_not(site: Site) -> None:
    dns = FakeDNS({"sender.example TXT": ["v=spf1 ip4:192.0.2.7 -all"], "sender.example MX": ["10 mx.sender.example"]})
    sessions = Sessions(ON, site.store, dns, lambda: site.now)
    await sessions.play("192.0.2.7", JANE, JOE)
    assert "known_correspondent" not in sessions.found()
    assert await sessions.play("198.51.100.1", JOE, JANE, login="joe") == "accept"
    await sessions.play("192.0.2.7", JANE, JOE)
    assert sessions.found()["known_correspondent"] == "written to by site.example"
    await sessions.play("192.0.2.8", JANE, JOE)
    assert "known_correspondent" not in sessions.found()
