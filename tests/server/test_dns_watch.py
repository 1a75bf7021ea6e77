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
    monkeypatch.setattr(dns_watch, "FRESH", 0.2)
    monkeypatch.setattr(dns_watch, "AGAIN", 0.2)


@pytest.fixture
def hole() -> Iterator[str]:
    """ADDRESS:PORT of a name server that never says a word."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


class Workers:
    """Counters of two workers, each with a resolver, and the exporter's view of them."""

    def __init__(self, *nameservers: str) -> None:
        self.layout = layout = layout_for(all_checks())
        self.shared = Shared(3, layout)
        self.status = Status(self.shared, layout)
        self.watches: list[DnsWatch] = []
        self.resolvers: list[StubResolver] = []
        for slot in (1, 2):
            metrics = Metrics(self.shared, slot, layout)
            watch = DnsWatch(lambda place=slot - 1: self.resolvers[place], metrics)  # type: ignore[misc]
            options = Dns(nameservers=nameservers, timeout=Seconds(0.2), servfail_ttl=Seconds(0.0))
            self.resolvers.append(StubResolver(options, on_query=watch.heard, on_failure=metrics.dns_failure))
            self.watches.append(watch)
            metrics.set("accepting", 1.0)

    async def ask(self, name: str, worker: int = 0) -> None:
        with suppress(DnsTempError):
            await self.resolvers[worker].query(name, "TXT")

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
async def workers(*nameservers: str) -> AsyncIterator[Workers]:
    found = Workers(*nameservers)
    try:
        yield found
    finally:
        for watch, resolver in zip(found.watches, found.resolvers, strict=True):
            watch.close()
            resolver.close()
        await asyncio.sleep(0)


async def test_nameservers_that_say_nothing(hole: str) -> None:
    async with workers(hole) as both:
        await both.ask("a.example")
        await both.until(down=True)
        await asyncio.sleep(0.1)
        (problem,) = both.problems()
        assert problem.startswith("the nameservers do not answer, for 0s now; ")
        assert "(timeout 2): see whether they run" in problem
        assert both.status.report()["dns"]["lately"]["reasons"]["timeout"] == 2


async def test_nobody_listens() -> None:
    with DNSServer() as server:
        address = server.address
    async with workers(address) as both:
        await both.ask("a.example")
        await both.until(down=True)
        assert "do not answer" in both.problems()[0]
        assert "(unreachable 2)" in both.problems()[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("servfail", "have no answers, for 0s now"), ("refused", "refuse our questions, for 0s now")],
)
async def test_nameservers_that_speak_and_find_nothing(fault: str, words: str) -> None:
    with DNSServer(behaviours={"*": fault, "a.example": fault}) as server:
        async with workers(server.address) as both:
            await both.ask("a.example")
            await both.until(down=True)
            assert words in both.problems()[0]
            assert f"({fault} 2)" in both.problems()[0]


async def test_a_resolver_that_only_its_log_can_explain_beside_one_that_is_gone(hole: str) -> None:
    """What a nameserver says tells more than the silence of another."""
    with DNSServer(behaviours={"*": "servfail", "a.example": "servfail"}) as server:
        async with workers(server.address, hole) as both:
            await both.ask("a.example")
            await both.until(down=True)
            assert "have no answers" in both.problems()[0]
            assert "(servfail 2)" in both.problems()[0]


async def test_it_sees_the_end_without_mail() -> None:
    with DNSServer(behaviours={"*": "drop", "a.example": "drop"}) as server:
        async with workers(server.address) as both:
            await both.ask("a.example")
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
    with DNSServer(behaviours={"broken.example": "servfail"}) as server:
        async with workers(server.address) as both:
            await both.ask("good.example")
            await both.ask("broken.example")
            await asyncio.sleep(0.1)
            assert (both.down(), both.problems(), server.asked(TEST)) == (0.0, [], 0)


async def test_an_answer_while_our_own_question_waits_in_vain_is_an_answer() -> None:
    with DNSServer(behaviours={"*": "drop", "a.example": "drop"}) as server:
        async with workers(server.address) as both:
            await both.ask("a.example")
            await both.ask("good.example")
            assert server.asked(TEST)
            await asyncio.sleep(0.25)
            assert both.shared.sum(both.layout.cells["authmilter_dns_down", ()]) == 0.0


async def test_an_answer_of_one_worker_ends_what_another_saw_before() -> None:
    with DNSServer(behaviours={"*": "drop", "a.example": "drop"}) as server:
        async with workers(server.address) as both:
            await both.ask("a.example", 0)
            await both.until(down=True)
            await both.ask("good.example", 1)
            assert both.down() == 0.0
            # The first one still has no answer, and the second asks nothing more.
            await both.until(down=True)


async def test_the_resolver_of_before_a_reload_says_nothing_any_more(hole: str) -> None:
    async with workers(hole) as both:
        await both.ask("a.example")
        await both.until(down=True)
        both.watches[0].close()
        layout = layout_for(all_checks())
        DnsWatch(lambda: both.resolvers[0], Metrics(both.shared, 1, layout))
        assert both.down() == 0.0
        await both.ask("b.example")
        await asyncio.sleep(0.5)
        assert both.down() == 0.0
        assert both.status.report()["dns"]["lately"]["failed"] >= 3, "but its questions count"
