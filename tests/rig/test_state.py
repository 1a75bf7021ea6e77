"""State that outlives a message, in running daemons: shared by two of them, and when the store, or a DNS list, fails."""

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self

import pytest

from tests.bench.store import fill
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.mail import GOOD_IP, GOOD_NAME
from tests.rig.sockets import wait_until
from tests.rig.visits import Said, Visit, deliver, load
from tests.store.servers import RedisServer, SlowProxy
from tests.store.servers import running as running_server
from tests.store.test_sqlite import mounted

WORKERS = 2
# Greylisted: nothing is known of it, and nothing speaks for it.
DOUBTFUL = Visit(ip="203.0.113.66", helo="client.example", sender="a@nowhere.example")
# Never greylisted: its name is confirmed, and SPF passes.
GOOD = Visit(ip=GOOD_IP, name=GOOD_NAME, helo=GOOD_NAME, sender="a@good.example")
GREYLISTED = "4.7.1 Greylisted"


def doubtful(number: int) -> Visit:
    """One of many, each in a network of its own."""
    return DOUBTFUL._replace(ip=f"100.{64 + number // 250 % 64}.{number % 250}.7", sender=f"a{number}@nowhere.example")


def settings(dns: DNSServer, store: str, **more: dict[str, object]) -> dict[str, dict[str, object]]:
    """All that keeps state is on; `more` goes over it."""
    common: dict[str, dict[str, object]] = {
        "identity": {"local_domains": "test"},
        "dns": {"nameservers": dns.address},
        "store": {"url": store},
        "greylist": {"enabled": "yes", "delay": "1s"},
        "reputation": {"enabled": "yes"},
        "connections": {"rate_network": "20/1h", "exempt": "192.0.2.0/24, 203.0.113.0/24"},
        "outbound_limits": {"login_messages": "4/1h"},
    }
    for section, options in more.items():
        common[section] = {**common.get(section, {}), **options}
    return common


def store_errors(daemon: Daemon) -> float:
    """Operations that failed, in all workers."""
    return daemon.metrics().value("authmilter_store_errors_total")


def complaints(daemon: Daemon) -> list[str]:
    """What the log says of a store that fails."""
    return daemon.log_lines("mail goes on without what needs it")


def is_greylisted(said: Said) -> bool:
    """Refused for now at RCPT, with the words of greylisting."""
    return (said.code, said.after, said.text[: len(GREYLISTED)]) == (451, "R", GREYLISTED)


# -- two daemons, one Redis -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_server(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RedisServer, dns: DNSServer) -> Iterator[tuple[Daemon, Daemon]]:
    """Two process groups, as on two machines."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(Daemon("unix", settings(dns, redis.url))) for _ in range(2))
        yield one, two


def test_a_greylisted_sender_may_retry_at_another_machine(pair: tuple[Daemon, Daemon]) -> None:
    here, there = pair
    visit = doubtful(1)
    assert is_greylisted(deliver(here.address, visit))
    assert is_greylisted(deliver(there.address, visit)), "the delay is not over at the other machine either"
    time.sleep(1.2)
    assert deliver(there.address, visit).code == 250
    assert deliver(here.address, visit).code == 250


def test_a_login_has_one_limit_at_all_machines(pair: tuple[Daemon, Daemon]) -> None:
    stolen = Visit(login="stolen", sender="stolen@test", recipients=("x@elsewhere.example",))
    codes = [deliver(pair[number % 2].address, stolen).code for number in range(6)]
    assert codes == [250] * 4 + [451] * 2
    for daemon in pair:
        assert deliver(daemon.address, stolen._replace(login="honest", sender="honest@test")).code == 250


def test_a_network_has_one_rate_of_connections_at_all_machines(pair: tuple[Daemon, Daemon]) -> None:
    said = [deliver(pair[number % 2].address, DOUBTFUL._replace(ip=f"203.0.112.{number}")) for number in range(22)]
    assert [(one.code, one.after) for one in said] == [(451, "R")] * 20 + [(421, "C")] * 2
    assert re.match(
        r"4\.7\.0 Too many connections from 203\.0\.112\.0/24, please try again in 3[56]\d\d seconds", said[-1].text
    )


def test_reputation_that_was_made_at_one_machine_counts_at_the_other(pair: tuple[Daemon, Daemon]) -> None:
    here, there = pair
    assert "reputation_good" not in deliver(there.address, GOOD).spam_status
    for _ in range(30):
        assert deliver(here.address, GOOD).code == 250
    wait_until(lambda: "reputation_good" in deliver(there.address, GOOD).spam_status, 5, "a reputation at the other")


def test_what_a_daemon_learned_last_is_there_when_it_is_started_again(dns: DNSServer, tmp_path: Path) -> None:
    configuration = settings(dns, f"sqlite:{tmp_path}/state.db", correspondents={"enabled": "yes"})
    with Daemon("unix", configuration) as daemon:
        assert "known_correspondent" not in deliver(daemon.address, GOOD).spam_status
        to_him = Visit(login="bob", sender="bob@test", recipients=(GOOD.sender,))
        assert deliver(daemon.address, to_him).code == 250
        assert daemon.stop() == 0
    with Daemon("unix", configuration) as daemon:
        assert "known_correspondent" in deliver(daemon.address, GOOD).spam_status


# -- Redis is killed ----------------------------------------------------------------------------------------------------


def test_a_killed_redis_loses_no_mail_and_is_found_again(dns: DNSServer, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)

    def visit(number: int) -> Visit:
        if number % 3 == 0:
            return Visit(login=f"user{number}", sender="u@test", recipients=("x@elsewhere.example",))
        return doubtful(number) if number % 3 == 1 else GOOD

    with ExitStack() as stack:
        stack.enter_context(running_server(server))
        daemons = [stack.enter_context(Daemon("unix", settings(dns, server.url))) for _ in range(2)]
        with load([daemon.address for daemon in daemons], visit, threads=6, pause=0.01) as traffic:
            wait_until(lambda: len(traffic.said) > 100, 20, "mail with a store")
            assert any(is_greylisted(said) for _, said in traffic.said)
            server.kill()
            killed = time.monotonic()
            time.sleep(0.3)
            settled = time.monotonic()
            time.sleep(2.0)
            server.start()
            started = time.monotonic()
            for daemon in daemons:
                wait_until(lambda d=daemon: len(d.log_lines("works again")) == WORKERS, 20, "a store in each worker")  # type: ignore[misc]
            again = time.monotonic()
            time.sleep(1.0)
        without = [said for at, said in traffic.said if settled < at < started]
        assert traffic.lost == []
        assert not [said for _, said in traffic.said if said.code not in (250, 451)]
        assert len(without) > 50, "mail goes on meanwhile"
        assert {said.code for said in without} == {250}, "nothing is greylisted without a store"
        assert max(said.seconds for said in traffic.since(killed)) < 1.5, "[store] timeout, once"
        assert any(is_greylisted(said) for said in traffic.since(again)), "greylisting is back"
        for daemon in daemons:
            assert 1 <= len(complaints(daemon)) <= WORKERS, "each worker says it once a minute"
            assert store_errors(daemon) > 0
            assert daemon.metrics().value("authmilter_check_errors_total", kind="exception") == 0


# -- stores that fail in other ways -------------------------------------------------------------------------------------


class Proxy:
    """tests.store.servers.SlowProxy in a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.slow: SlowProxy

    def _do(self, what: Callable[[], None]) -> None:
        async def on_the_loop() -> None:
            what()

        asyncio.run_coroutine_threadsafe(on_the_loop(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> SlowProxy:
            return await SlowProxy(self._target).__aenter__()

        self.slow = asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self.slow.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def delay(self, seconds: float) -> None:
        """What the server says takes so long from now on."""
        self._do(lambda: setattr(self.slow, "delay", seconds))


@dataclass
class Fault:
    """A store, how it is broken, and how it is repaired; `longest` is what one message may wait for it."""

    url: str
    breaks: Callable[[], object]
    repair: Callable[[], object]
    longest: float = 0.5


@contextmanager
def down(folder: Path) -> Iterator[Fault]:
    """A server that was stopped."""
    with running_server(RedisServer(folder)) as server:
        yield Fault(server.url, server.kill, server.start)


@contextmanager
def slow(folder: Path) -> Iterator[Fault]:
    """A server that answers after two seconds."""
    with running_server(RedisServer(folder)) as server, Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.slow.port}/0"
        yield Fault(url, lambda: proxy.delay(2.0), lambda: proxy.delay(0.0), longest=1.5)


@contextmanager
def full_server(folder: Path) -> Iterator[Fault]:
    """A server that has no memory left."""
    with running_server(RedisServer(folder)) as server:
        yield Fault(
            server.url,
            lambda: server.do("config", "set", "maxmemory", "1"),
            lambda: server.do("config", "set", "maxmemory", "0"),
        )


@contextmanager
def full_disk(folder: Path) -> Iterator[Fault]:
    """A file system on which nothing fits any more."""
    disk = folder / "disk"
    with mounted(disk, "-o", "size=8m"):

        def fill() -> None:
            with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass

        yield Fault(f"sqlite:{disk}/state.db", fill, (disk / "ballast").unlink)


@contextmanager
def corrupt(folder: Path) -> Iterator[Fault]:
    """A file whose pages were overwritten: it is put aside, and a new one begun, without anybody's help."""
    path = folder / "state.db"
    fill(path, 50_000)  # more than SQLite keeps in memory

    def ruin() -> None:
        for file in (path, folder / "state.db-wal"):
            with file.open("r+b") as octets:
                octets.seek(100)  # the header says that it is a state file
                octets.write(os.urandom(max(0, file.stat().st_size - 100)))

    yield Fault(f"sqlite:{path}", ruin, lambda: None)


@pytest.mark.parametrize("kind", [down, slow, full_server, full_disk, corrupt], ids=lambda kind: kind.__name__)
def test_mail_goes_on_without_a_store_and_greylisting_returns_with_it(
    kind: Callable[[Path], AbstractContextManager[Fault]], dns: DNSServer, tmp_path: Path
) -> None:
    with kind(tmp_path) as fault, Daemon("unix", settings(dns, fault.url, milter={"workers": 1})) as daemon:
        numbers = count()

        def stranger() -> Said:
            return deliver(daemon.address, doubtful(next(numbers)))

        assert is_greylisted(stranger())
        fault.breaks()
        said = [stranger() for _ in range(20)]
        assert max(one.seconds for one in said) < fault.longest
        assert {one.code for one in said} <= {250, 451}
        assert all(one.code == 250 or is_greylisted(one) for one in said)
        wait_until(lambda: store_errors(daemon) > 0, 5, "an error that is counted")
        fault.repair()
        wait_until(lambda: is_greylisted(stranger()) and is_greylisted(stranger()), 30, "greylisting again")
        assert len(complaints(daemon)) == 1, "once a minute"
        assert daemon.metrics().value("authmilter_check_errors_total", kind="exception") == 0


# -- DNS lists that fail ------------------------------------------------------------------------------------------------


def listed_by(dns: DNSServer, zone: str) -> dict[str, dict[str, object]]:
    """A site that refuses who is on that one list."""
    return {
        "milter": {"workers": 1},
        "dns": {"nameservers": dns.address, "timeout": "300ms"},
        "dnsbl it": {"zone": zone, "score": "reject"},
    }


def asked(daemon: Daemon, outcome: str) -> float:
    """Questions to the list that had this outcome."""
    return daemon.metrics().value("authmilter_dnslist_queries_total", list="dnsbl_it", outcome=outcome)


def is_off(daemon: Daemon) -> bool:
    """Have all workers switched the list off?"""
    return daemon.metrics().value("authmilter_dnslist_off", list="dnsbl_it") == 1


def test_a_list_that_lists_the_world_lists_nobody() -> None:
    with (
        DNSServer({"*.world.example A": ["127.0.0.2"]}) as dns,
        Daemon("unix", listed_by(dns, "world.example")) as daemon,
    ):
        said = [deliver(daemon.address, doubtful(number)) for number in range(20)]
        assert {one.code for one in said} == {250}
        assert is_off(daemon)
        assert asked(daemon, "error") >= 1
        assert asked(daemon, "listed") == 0
        assert len(daemon.log_lines("[dnsbl it]", "lists 127.0.0.1", "switched off")) == 1, "once a minute"
        assert daemon.metrics().value("authmilter_alarms_total", event="dns_list_off") == 1


def test_a_list_that_does_not_answer_delays_a_few_messages_and_refuses_none() -> None:
    asked_for = ["127.0.0.2", *(doubtful(number).ip for number in range(20))]
    with (
        DNSServer({}, {f"{'.'.join(reversed(ip.split('.')))}.dead.example": "drop" for ip in asked_for}) as dns,
        Daemon("unix", listed_by(dns, "dead.example")) as daemon,
    ):
        said = [deliver(daemon.address, doubtful(number)) for number in range(20)]
        assert {one.code for one in said} == {250}
        assert is_off(daemon)
        assert 5 <= asked(daemon, "temperror") <= 6, "five in a row, the first of them that of the start"
        slow = [one for one in said if one.seconds > 0.25]
        assert len(slow) <= 5
        assert max(one.seconds for one in said) < 1.0
        assert len(daemon.log_lines("[dnsbl it]", "did not answer")) == 1, "once a minute"
