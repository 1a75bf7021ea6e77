"""What may happen to a server and the way to it, and that mail goes on."""

import asyncio
import datetime
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from authmilter.config.endpoint import parse_store
from authmilter.errors import StoreError
from authmilter.interfaces import Increment, Space, Store
from authmilter.store import redis as module
from authmilter.store.redis import RedisStore
from tests.store.servers import RedisServer, SlowProxy, free_port, running

A = Space("a")
PEOPLE = Space("people", personal=True)
HOUR = 3600.0

Make = Callable[..., RedisStore]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server for this test alone."""
    with running(RedisServer(tmp_path)) as server:
        yield server


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Stores, closed at the end."""
    stores: list[RedisStore] = []

    def made(url: str, timeout: float = 0.5, **more: object) -> RedisStore:
        stores.append(RedisStore(parse_store(url), timeout=timeout, **more))  # type: ignore[arg-type]
        return stores[-1]

    yield made
    for store in stores:
        await store.close()


async def works_again(store: Store, seconds: float = 10.0) -> None:
    """Wait until the store has found out by itself."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await store.put(A, "again", b"", HOUR)
        except StoreError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def fails(store: Store, match: str = ".") -> float:
    """Seconds until it said so."""
    start = time.monotonic()
    with pytest.raises(StoreError, match=match):
        await store.put(A, "k", b"", HOUR)
    return time.monotonic() - start


# -- a server that dies -----------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_costs_little_and_is_found_again(
    make: Make, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "authmilter.store")
    errors: list[str] = []
    store = make(server.url, on_error=errors.append)
    await store.put(A, "k", b"", HOUR)
    outcomes: list[float | StoreError] = []

    async def message() -> None:
        start = time.monotonic()
        try:
            await store.incr(A, "n", HOUR)
        except StoreError as error:
            outcomes.append(error)
        assert time.monotonic() - start < 1.0

    async def load() -> None:
        tasks = []
        for number in range(300):
            tasks.append(asyncio.create_task(message()))
            if number == 50:
                server.kill()
            if number == 150:
                server.start(wait=False)
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    await load()
    assert errors.count("incr") == len(outcomes) > 50
    await works_again(store)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, lines
    assert lines[1].endswith("works again")


async def test_a_server_that_is_not_there_at_first_is_found_later(make: Make, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    store = make(server.url)
    assert await fails(store, "(?i)refused|connect") < 0.5
    with running(server):
        await works_again(store)


async def test_connections_that_the_server_has_closed_are_replaced(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    await asyncio.gather(*(store.incr(A, "k", HOUR) for _ in range(20)))
    server.do("CLIENT", "KILL", "TYPE", "normal")
    await asyncio.sleep(0.05)
    assert (await store.incr(A, "k", HOUR)).total == 21.0


async def test_a_restarted_server_learns_the_scripts_again(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    await store.incr(A, "k", HOUR)
    server.do("SCRIPT", "FLUSH")
    assert (await store.incr(A, "k", HOUR)).total == 2.0
    server.do("SCRIPT", "FLUSH")
    entries = await store.incr_many([Increment(A, "k", HOUR)] * 3)
    assert [entry.total for entry in entries] == [3.0, 4.0, 5.0]


async def test_an_emptied_server_gets_its_secret_back(
    make: Make, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBER", 0.1)
    store = make(server.url, hash_personal=True)
    await store.put(PEOPLE, "alice", b"", HOUR)
    server.do("FLUSHALL")
    await asyncio.sleep(0.15)
    await store.put(PEOPLE, "bob", b"", HOUR)
    other = make(server.url, hash_personal=True)
    assert await other.get(PEOPLE, "bob") is not None
    # Another machine was faster: its secret holds from then on.
    server.do("FLUSHALL")
    newest = make(server.url, hash_personal=True)
    await newest.put(PEOPLE, "carol", b"", HOUR)
    await asyncio.sleep(0.15)
    await store.get(A, "any")
    assert await store.get(PEOPLE, "carol") is not None


# -- a server that is slow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [2.0, None], ids=["two seconds late", "silent"])
async def test_a_slow_server_costs_each_message_one_bounded_wait_at_most(
    make: Make, redis_server: RedisServer, delay: float | None
) -> None:
    async with SlowProxy(redis_server.port) as proxy:
        store = make(f"redis://127.0.0.1:{proxy.port}", timeout=0.3, connect_timeout=0.4, prefix=f"slow{delay}:")
        await store.put(A, "k", b"", HOUR)
        proxy.delay = delay
        start = time.monotonic()
        first = await asyncio.gather(*(store.incr(A, "n", HOUR) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in first)
        assert 0.25 < time.monotonic() - start < 0.6
        waits = []
        for _ in range(40):  # over several attempts to connect anew
            waits.append(await fails(store))
            await asyncio.sleep(0.05)
        assert max(waits) < 0.1
        assert proxy.accepted < 30
        proxy.delay = 0.0
        await works_again(store)
        await store.close()


async def test_a_store_that_is_slow_from_the_start_costs_one_bounded_wait(
    make: Make, redis_server: RedisServer
) -> None:
    async with SlowProxy(redis_server.port) as proxy:
        proxy.delay = None
        store = make(f"redis://127.0.0.1:{proxy.port}", connect_timeout=0.3)
        waits = await asyncio.gather(*(fails(store, "no answer within 0.3 s") for _ in range(50)))
        assert max(waits) < 0.6
        assert await fails(store, "no answer") < 0.1
        await store.close()


async def test_what_comes_together_goes_together(make: Make, redis_server: RedisServer) -> None:
    async with SlowProxy(redis_server.port) as proxy:
        store = make(f"redis://127.0.0.1:{proxy.port}", timeout=5.0, prefix="together:")
        await store.open()
        proxy.delay = 0.05
        start = time.monotonic()
        entries = await asyncio.gather(*(store.incr(A, "n", HOUR) for _ in range(200)))
        assert sorted(entry.total for entry in entries) == [n + 1.0 for n in range(200)]
        assert time.monotonic() - start < 1.0
        assert proxy.accepted <= 1 + module.CONNECTIONS
        await store.close()


# -- a server that refuses --------------------------------------------------------------------------------------------


async def test_a_full_server_is_an_error_until_there_is_room(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    await store.put(A, "k", b"", HOUR)
    server.do("CONFIG", "SET", "maxmemory", "1")
    await fails(store, "(?i)memory")
    server.do("CONFIG", "SET", "maxmemory", "0")
    await works_again(store)


async def test_a_replica_that_may_not_be_written_is_an_error_until_it_may(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    await store.put(A, "k", b"", HOUR)
    server.do("REPLICAOF", "127.0.0.1", str(free_port()))
    await fails(store, "(?i)read only|MASTERDOWN|link with master")
    server.do("REPLICAOF", "NO", "ONE")
    await works_again(store)


async def test_a_key_of_somebody_else_fails_alone(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    server.do("SET", "authmilter:a:theirs", "x")
    results = await asyncio.gather(store.incr(A, "theirs", HOUR), store.incr(A, "ours", HOUR), return_exceptions=True)
    assert isinstance(results[0], StoreError)
    assert not isinstance(results[1], BaseException)
    assert (await store.incr(A, "ours", HOUR)).total == 2.0
    assert [key async for key, _ in store.scan(A)] == ["ours"]
    assert server.do("GET", "authmilter:a:theirs") == "x"


async def test_a_clock_of_the_server_that_was_set_back_prolongs_nothing(make: Make, server: RedisServer) -> None:
    store = make(server.url)
    await store.incr(A, "window", 60.0)
    await store.incr(A, "fading", 60.0, 8.0, half_life=HOUR)
    for key in ("window", "fading"):
        server.do("PEXPIRE", f"authmilter:a:{key}", "3660000")  # what a clock that is an hour behind makes of it
    entries = await store.get_many([(A, "window"), (A, "fading")])
    assert [entry and (entry.age, entry.ttl) for entry in entries] == [(0.0, 60.0), (0.0, 60.0)]
    assert int(server.do("PTTL", "authmilter:a:window")) <= 60_000


async def test_what_we_leave_on_a_server_expires(make: Make, server: RedisServer) -> None:
    store = make(server.url, prefix="site1:")
    await store.put(A, "k", b"", HOUR)
    await store.add(A, "k2", b"", HOUR)
    await store.incr(A, "k3", HOUR, half_life=5.0)
    keys = server.do("KEYS", "*").split()
    assert sorted(key for key in keys if ":a:" in key) == ["site1:a:k", "site1:a:k2", "site1:a:k3"]
    assert all(key.startswith("site1:") for key in keys)
    assert all(int(server.do("PTTL", key)) > 0 for key in keys)


# -- who we are, and who they are -------------------------------------------------------------------------------------


async def test_an_account_of_an_acl_needs_no_more_than_its_prefix(make: Make, server: RedisServer) -> None:
    server.do(
        *("ACL", "SETUSER", "milter", "on", ">s3cret@:/", "~authmilter:*", "resetchannels"),
        *("-@all", "+@hash", "+eval", "+evalsha", "+pttl", "+pexpire", "+unlink", "+scan", "+echo"),
    )
    server.do("ACL", "SETUSER", "default", "off")
    where = server.url.removeprefix("redis://")
    store = make(f"redis://milter@{where}", password="s3cret@:/")
    assert (await store.incr(A, "k", HOUR)).total == 1.0
    assert [key async for key, _ in store.scan(A)] == ["k"]
    assert await store.delete(A, "k")
    await store.purge()
    in_url = make(f"redis://milter:s3cret%40%3A%2F@{where}")
    await in_url.put(A, "k", b"", HOUR)
    for wrong in (make(f"redis://milter@{where}", password="other"), make(server.url)):
        await fails(wrong, "(?i)auth|password")
        assert "s3cret" not in wrong.name


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself; the key is beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "cert.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(secret)
    return path


async def test_tls_is_for_those_whom_the_ca_file_vouches_for(make: Make, certificate: Path, tmp_path: Path) -> None:
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", f"{tmp_path}/key.pem")
    with running(RedisServer(tmp_path, *tls, "--tls-auth-clients", "no")):
        store = make(f"rediss://127.0.0.1:{port}", ca_file=str(certificate), timeout=3.0)
        assert (await store.incr(A, "k", HOUR)).total == 1.0
        await fails(make(f"rediss://127.0.0.1:{port}"), "(?i)certificate")  # the system knows it not
        await fails(make(f"rediss://localhost:{port}", ca_file=str(certificate)), "(?i)certificate|hostname")
        await fails(make(f"rediss://127.0.0.1:{port}", ca_file=f"{tmp_path}/none.pem"), "(?i)no such file")


async def test_a_unix_socket(make: Make, tmp_path: Path) -> None:
    with running(RedisServer(tmp_path, "--unixsocket", f"{tmp_path}/s")) as server:
        await make(f"unix://{tmp_path}/s?db=3").put(A, "k", b"", HOUR)
        assert server.do("-n", "3", "EXISTS", "authmilter:a:k") == "1"


# -- several servers --------------------------------------------------------------------------------------------------


async def test_a_cluster_spreads_keys_over_its_nodes(make: Make, tmp_path: Path) -> None:
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
    # The usual port of their bus, 10,000 above the other, need not exist.
    buses = [str(free_port()) for _ in folders]
    first, second = (
        RedisServer(folder, "--cluster-enabled", "yes", "--cluster-port", bus)
        for folder, bus in zip(folders, buses, strict=True)
    )
    with running(first), running(second):
        first.do("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        second.do("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        second.do("CLUSTER", "SET-CONFIG-EPOCH", "2")
        first.do("CLUSTER", "MEET", "127.0.0.1", str(second.port), buses[1])
        deadline = time.monotonic() + 15
        while any("cluster_state:ok" not in server.do("CLUSTER", "INFO") for server in (first, second)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        store = make(f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{second.port}", timeout=5.0)
        entries = await store.incr_many([Increment(A, f"k{i}", HOUR, i + 1.0) for i in range(300)])
        assert [entry.total for entry in entries] == [i + 1.0 for i in range(300)]
        assert min(int(server.do("DBSIZE")) for server in (first, second)) > 50
        found = {key: entry.total async for key, entry in store.scan(A, "k", 5000)}
        assert found == {f"k{i}": i + 1.0 for i in range(300)}
        assert await store.delete(A, "k7")
        assert await store.get(A, "k7") is None
        first.do("SCRIPT", "FLUSH")
        entries = await store.incr_many([Increment(A, f"k{i}", HOUR) for i in range(100, 200)])
        assert [entry.total for entry in entries] == [i + 2.0 for i in range(100, 200)]
        await store.close()


async def test_sentinels_tell_where_the_master_is_now(make: Make, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("1", "2", "s")]
    for folder in folders:
        folder.mkdir()
    master, replica = RedisServer(folders[0]), RedisServer(folders[1])
    with running(master), running(replica), socket.create_server(("127.0.0.1", 0)) as silent:
        replica.do("REPLICAOF", "127.0.0.1", str(master.port))
        configuration = folders[2] / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor mail 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mail 300\nsentinel failover-timeout mail 1000\n"
        )
        with running(RedisServer(folders[2], str(configuration), "--sentinel")) as sentinel:
            # The first sentinel is silent.
            hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{sentinel.port}"
            store = make(f"redis+sentinel://{hosts}/mail/0", timeout=2.0)
            await store.put(A, "k", b"", HOUR)
            assert master.do("EXISTS", "authmilter:a:k") == "1"
            deadline = time.monotonic() + 15
            while "slave0" not in master.do("INFO", "replication") or (
                f"{replica.port}" not in sentinel.do("SENTINEL", "REPLICAS", "mail")
            ):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            master.kill()
            await works_again(store, 25.0)
            assert replica.do("EXISTS", "authmilter:a:again") == "1"
            await store.close()
