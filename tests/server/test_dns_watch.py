"""Whether any nameserver answers: resolvers of two workers over real name servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from authmilter.check import all_checks
from authmilter.config.option import Seconds
from authmilter.config.schema import Dns
from authmilter.errors import DnsTempError
from authmilter.metrics import Metrics, Shared, layout_for
from authmilter.resolver import StubResolver
from authmilter.server import dns_watch
from authmilter.server.dns_watch import DnsWatch
from authmilter.server.status import Status
from tests.dnsserver import DNSServer

TEST = "com A udp"


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_watch, "AGAIN", 0.2)


@pytest.fixture
def hole() -> Iterator[str]:
    """ADDRESS:PORT of a name server that never says a word."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


class Workers:
    """Counters of two workers, each with a resolver, and the exporter's view of them."""

    def __init__(self, *nameservers: str, name: str = "com") -> None:
        self.layout = layout = layout_for(all_checks())
        self.shared = Shared(3, layout)
        self.status = Status(self.shared, layout)
        self.watches: list[DnsWatch] = []
        self.resolvers: list[StubResolver] = []
        for slot in (1, 2):
            metrics = Metrics(self.shared, slot, layout)
            watch = DnsWatch(lambda place=slot - 1: self.resolvers[place], name, metrics)  # type: ignore[misc]
            options = Dns(nameservers=nameservers, timeout=Seconds(0.2), servfail_ttl=Seconds(0.0))
            self.resolvers.append(StubResolver(options, on_query=watch.heard, on_failure=metrics.dns_failure))
            self.watches.append(watch)
            metrics.set("accepting", 1.0)

    async def ask(self, name: str, worker: int = 0) -> None:
        """As an SPF check does, and what comes with it."""
        with suppress(DnsTempError):
            await self.resolvers[worker].query(name, "TXT")

    async def mail(self, domain: str, worker: int = 0) -> None:
        """All that a message makes one ask."""
        await asyncio.gather(*(self.ask(f"{label}.{domain}", worker) for label in ("a", "b", "_dmarc")))

    def down(self) -> float:
        """For how many seconds, as the exporter sees it."""
        return float(self.status.report()["dns"]["down_seconds"])

    def problems(self) -> list[str]:
        return list(self.status.report()["problems"])

    async def until(self, down: bool) -> None:
        async with asyncio.timeout(10):
            while bool(self.down()) is not down:  # noqa: ASYNC110  shared memory sets no event
                await asyncio.sleep(0.02)


@asynccontextmanager
async def workers(*nameservers: str, name: str = "com") -> AsyncIterator[Workers]:
    found = Workers(*nameservers, name=name)
    try:
        yield found
    finally:
        for watch, resolver in zip(found.watches, found.resolvers, strict=True):
            watch.close()
            resolver.close()
        await asyncio.sleep(0)


async def test_nameservers_that_say_nothing(hole: str) -> None:
    async with workers(hole) as both:
        await both.mail("a.example")
        await both.until(down=True)
        await asyncio.sleep(0.1)
        (problem,) = both.problems()
        assert problem.startswith("the nameservers do not answer: down for 0s; ")
        assert "(timeout 4): see whether they run" in problem
        assert both.status.report()["dns"]["lately"]["reasons"]["timeout"] == 4


async def test_nobody_listens() -> None:
    with DNSServer() as server:
        address = server.address
    async with workers(address) as both:
        await both.mail("a.example")
        await both.until(down=True)
        assert "do not answer" in both.problems()[0]
        assert "(unreachable 4)" in both.problems()[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("servfail", "speak, but find nothing: down for 0s"), ("refused", "refuse our questions: down for 0s")],
)
async def test_nameservers_that_speak_and_find_nothing(fault: str, words: str) -> None:
    with DNSServer(behaviours={"*": fault, "*.a.example": fault}) as server:
        async with workers(server.address) as both:
            await both.mail("a.example")
            await both.until(down=True)
            assert words in both.problems()[0]
            assert f"({fault} 4)" in both.problems()[0]


async def test_a_resolver_that_only_its_log_can_explain_beside_one_that_is_gone(hole: str) -> None:
    """What a nameserver says tells more than the silence of another."""
    with DNSServer(behaviours={"*": "servfail", "*.a.example": "servfail"}) as server:
        async with workers(server.address, hole) as both:
            await both.mail("a.example")
            await both.until(down=True)
            assert "speak, but find nothing" in both.problems()[0]
            assert "(servfail 4)" in both.problems()[0]


async def test_it_sees_the_end_without_mail() -> None:
    with DNSServer(behaviours={"*": "drop", "*.a.example": "drop"}) as server:
        async with workers(server.address) as both:
            await both.mail("a.example")
            await both.until(down=True)
            server.behave("*", "")
            await both.until(down=False)
            assert both.problems() == []
            asked = server.asked(TEST)
            await asyncio.sleep(0.5)
            assert server.asked(TEST) == asked, "and asks no more then"


async def test_silent_domains_of_a_sender_are_no_silence_of_nameservers() -> None:
    """However many he has, whatever they are called, and if nobody else sends."""
    silent = {f"n{number}.org{number}.example": ("drop", "servfail")[number % 2] for number in range(60)}
    with DNSServer(behaviours=silent) as server:
        async with workers(server.address) as both:
            for worker in (0, 1):
                await asyncio.gather(*(both.ask(name, worker) for name in silent))
            async with asyncio.timeout(10):
                while server.asked(TEST) < 2:  # noqa: ASYNC110  a thread counts
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert both.down() == 0.0
            (problem,) = both.problems()
            assert problem.startswith(
                "of 122 questions to the DNS in the last 5 minutes 120 failed (timeout 60, servfail 60), "
            )
            assert server.asked(TEST) <= 6, "few questions of our own, however many of his"


async def test_failures_among_answers_are_nobodys_concern() -> None:
    records = {"good.example TXT": ["v=spf1 -all"]}
    with DNSServer(records, behaviours={"broken.example": "servfail", "b2.example": "servfail"}) as server:
        async with workers(server.address) as both:
            for name in ("broken.example", "b2.example", "good.example", "broken.example", "b2.example"):
                await both.ask(name)
            await asyncio.sleep(0.1)
            assert (both.down(), both.problems(), server.asked(TEST)) == (0.0, [], 0)


async def test_what_a_resolver_knows_by_itself_does_not_hide_that_it_is_cut_off() -> None:
    """As unbound does without the Internet: SERVFAIL, and NXDOMAIN for the zones of RFC 6303."""
    with DNSServer(behaviours={"*": "servfail", "*.a.example": "servfail"}) as server:
        async with workers(server.address) as both:
            await asyncio.gather(both.ask("10.2.0.192.in-addr.arpa"), both.mail("a.example"), both.mail("a.example", 1))
            await both.until(down=True)
            await both.ask("11.2.0.192.in-addr.arpa")
            await asyncio.sleep(0.3)
            assert both.down() > 0.2


async def test_who_has_more_answers_than_failures_needs_no_name_of_the_internet() -> None:
    records = {"*.corp.example TXT": ["v=spf1 -all"]}
    with DNSServer(records, behaviours={"com": "refused", "*.a.example": "servfail"}) as server:
        async with workers(server.address) as both:
            await both.mail("a.example")
            await both.until(down=True)
            await asyncio.gather(*(both.ask(f"n{number}.corp.example") for number in range(9)))
            await both.until(down=False)
            await both.ask("b.a.example")
            await asyncio.sleep(0.5)
            assert both.down() == 0.0


async def test_names_of_which_a_resolver_knows_by_itself_that_there_is_nothing_hide_no_outage() -> None:
    """RFC 6303 and RFC 6761: a sender may choose as many as he likes."""
    with DNSServer(behaviours={"com": "servfail", "*.a.example": "servfail"}) as server:
        async with workers(server.address) as both:
            for turn in range(3):
                await both.ask(f"n{turn}.invalid")
                await both.ask(f"n{turn}.a.example")
            await both.until(down=True)
            await asyncio.gather(*(both.ask(f"m{number}.invalid") for number in range(20)))
            await asyncio.sleep(0.5)
            assert both.down() > 0.0


async def test_without_a_name_nothing_is_asked_or_found() -> None:
    with DNSServer(behaviours={"*.a.example": "servfail"}) as server:
        async with workers(server.address, name="") as both:
            for _ in range(5):
                await both.mail("a.example")
            await asyncio.sleep(0.1)
            assert both.down() == 0.0
            assert {query.partition(" ")[0].partition(".")[2] for query in server.queries} == {"a.example"}


async def test_an_answer_of_one_worker_ends_what_another_saw_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_watch, "AGAIN", 5.0)
    with DNSServer(behaviours={"*": "drop", "*.a.example": "drop"}) as server:
        async with workers(server.address) as both:
            await both.mail("a.example", 0)
            await both.until(down=True)
            server.behave("*", "")
            await both.mail("a.example", 1)
            await both.until(down=False)
            assert both.shared.sum(both.layout.cells["authmilter_dns_down", ()]) == 1.0, "the first has not tried again"


async def test_the_resolver_of_before_a_reload_says_nothing_any_more(hole: str) -> None:
    async with workers(hole) as both:
        await both.mail("a.example")
        await both.until(down=True)
        both.watches[0].close()
        DnsWatch(lambda: both.resolvers[0], "com", Metrics(both.shared, 1, both.layout))
        assert both.down() == 0.0
        await both.mail("b.example")
        await asyncio.sleep(0.5)
        assert both.down() == 0.0
        assert both.status.report()["dns"]["lately"]["failed"] >= 7, "but its questions count"
