"""`authmilter state` over real stores."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from authmilter.checks.connections import connections
from authmilter.checks.correspondents import remember_recipients
from authmilter.checks.greylist import greylist
from authmilter.checks.outbound_limits import outbound_limits
from authmilter.checks.sender_rate import sender_rate
from authmilter.cli import state
from authmilter.cli.__main__ import main
from authmilter.config import ini
from authmilter.config.schema import Config
from authmilter.interfaces import Increment, ManagedStore, Space
from authmilter.server import state as places
from authmilter.spaces import spaces
from authmilter.store import open_store
from tests.checks.tools import awaited, tools
from tests.checks.visits import ruling, visit
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.visits import Visit, deliver
from tests.shared import ROOT
from tests.store.servers import RedisServer, free_port, is_root, running

GREYLIST, CLIENTS, HAM = (spaces()[name] for name in ("greylist", "greylist_clients", "reputation_ham"))
CORRESPONDENTS, SPAM, SENT = (spaces()[name] for name in ("correspondents", "reputation_spam", "sent"))
ALICE = "192.0.2.0/24 alice@example.org bob@example.net"
CAROL = "example.com carol@example.com bob@example.net"


class Site:
    """A configuration, and its store as a daemon has it."""

    def __init__(self, folder: Path, store: str) -> None:
        self.file = folder / "am.ini"
        self.file.write_text(f"[store]\n{store}\n")

    def do(self, work: Callable[[ManagedStore], Coroutine[Any, Any, None]]) -> None:
        async def opened() -> None:
            store = open_store(ini.load(str(self.file)).store)
            try:
                await work(store)
            finally:
                await store.close()

        asyncio.run(opened())

    def put(self, *entries: tuple[Space, str, bytes]) -> None:
        async def work(store: ManagedStore) -> None:
            for space, key, value in entries:
                await store.put(space, key, value, 86400.0)

        self.do(work)

    def keys(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}

        async def work(store: ManagedStore) -> None:
            for name, space in spaces().items():
                keys = sorted([key async for key, _ in store.scan(space)])
                if keys:
                    found[name] = keys

        self.do(work)
        return found

    def run(self, *words: str) -> int:
        return main(["-c", str(self.file), "state", *words])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running(RedisServer(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Two greylisted triplets, a client that waits no more, and a count."""
    if request.param == "sqlite":
        found = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    else:
        server = request.getfixturevalue("redis")
        found = Site(tmp_path, f"url = {server.url}\nprefix = {tmp_path.name}:")

    async def fill(store: ManagedStore) -> None:
        await store.put(GREYLIST, ALICE, b"", 7200.0)
        await store.put(GREYLIST, CAROL, b"passed", 86400.0)
        await store.put(CLIENTS, "example.org", b"allowed", 86400.0)
        await store.incr_many([Increment(HAM, "net 192.0.2.0/24", 86400.0, 2.5, 86400.0)])

    found.do(fill)
    return found


# -- list -------------------------------------------------------------------------------------------------------------


def test_list_is_by_space_with_what_an_entry_says(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("list") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    blocks = [block.splitlines() for block in out.split("\n\n")]
    assert [block[0].partition(":")[0] for block in blocks] == ["greylist", "greylist_clients", "reputation_ham"]
    rows = {line.split("  ")[-1].strip(): line.split()[:2] for block in blocks for line in block[2:]}
    assert rows == {
        ALICE: ["-", "-"], CAROL: ["-", "passed"], "example.org": ["-", "allowed"], "net 192.0.2.0/24": ["2.5", "-"],
    }  # fmt: skip


def test_list_of_one_space_and_prefix(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("list", "greylist", "192.0.2.0/24 ") == 0
    out = capsys.readouterr().out
    assert ALICE in out
    assert CAROL not in out
    assert "greylist_clients" not in out


def test_list_by_subject(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("list", "--subject", "192.0.2.99", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(entry["space"], entry["key"]) for entry in found] == [
        ("greylist", ALICE), ("reputation_ham", "net 192.0.2.0/24"),
    ]  # fmt: skip


def test_list_says_that_there_is_more(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("list", "--limit", "2", "--json") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == "authmilter state: there are more than these 2: see --limit\n"
    assert site.run("list", "--limit", "4", "--json") == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (4, "")


def test_list_of_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("list", "correspondents") == 0
    assert capsys.readouterr() == ("", "nothing kept\n")
    assert site.run("list", "--subject", "nobody@example.net") == 0
    assert capsys.readouterr() == ("", "nothing names nobody@example.net\n")


def test_titles_come_once_over_many_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    number = 2 * state.PAGE + 1
    site.put(*((CLIENTS, f"d{n}.example", b"allowed") for n in range(number)), (HAM, "net 192.0.2.0/24", b""))
    assert site.run("list") == 0
    out = capsys.readouterr().out
    assert out.count("greylist_clients") == 1
    assert out.count("reputation_ham") == 1
    assert len({line for line in out.splitlines() if ".example" in line}) == number


EVIL = "192.0.2.0/24 \x1b]0;owned\x07\u202e\\x@example.org \x9bb\n"


def test_no_control_character_of_a_key_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    site.put((GREYLIST, EVIL, b"\x1b[31m" + b"\xff" * 60))
    for words in (["list"], ["list", "--json"], ["export"]):
        assert site.run(*words) == 0
        out = capsys.readouterr().out
        assert all(c.isprintable() or c == "\n" for c in out)
    shown = next(line for line in _listed(site, capsys) if "owned" in line)
    key = shown[shown.index("192.0.2.0") :]
    assert site.run("forget", "greylist", key) == 0
    assert capsys.readouterr().out == f"forgot: greylist {key}\n"
    assert site.keys() == {}


def _listed(site: Site, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert site.run("list") == 0
    return capsys.readouterr().out.splitlines()


# -- export -----------------------------------------------------------------------------------------------------------


def test_export(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("export") == 0
    found = {(one["space"], one["key"]): one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found.keys() == {
        ("greylist", ALICE), ("greylist", CAROL), ("greylist_clients", "example.org"),
        ("reputation_ham", "net 192.0.2.0/24"),
    }  # fmt: skip
    assert found["greylist", CAROL]["value"] == "passed"
    assert 7190 < found["greylist", ALICE]["ttl"] <= 7200
    assert found["reputation_ham", "net 192.0.2.0/24"]["total"] == pytest.approx(2.5, abs=0.001)
    assert site.run("export", "greylist_clients") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_export_of_a_value_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    site.put((GREYLIST, "k", b"\xff"))
    assert site.run("export") == 0
    assert json.loads(capsys.readouterr().out)["value_base64"] == "/w=="


# -- forget -----------------------------------------------------------------------------------------------------------


def test_forget_by_key(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("forget", "greylist", ALICE, "not there") == 0
    assert capsys.readouterr().out == f"forgot: greylist {ALICE}\nnot there: greylist not there\n"
    assert site.keys()["greylist"] == [CAROL]
    assert site.run("forget", "greylist", ALICE) == 1


@pytest.mark.parametrize(
    ("subject", "left"),
    [
        ("example.org", {"greylist": [CAROL], "reputation_ham": ["net 192.0.2.0/24"]}),
        ("192.0.2.17", {"greylist": [CAROL], "greylist_clients": ["example.org"]}),
        ("Bob@Example.NET", {"greylist_clients": ["example.org"], "reputation_ham": ["net 192.0.2.0/24"]}),
    ],
    ids=["a domain", "an address", "a mailbox"],
)
def test_forget_by_subject(
    site: Site, subject: str, left: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.run("forget", "--subject", subject) == 0
    out, err = capsys.readouterr()
    assert err == "2 entries forgotten\n"
    assert len(out.splitlines()) == 2
    assert site.keys() == left
    assert site.run("forget", "--subject", subject) == 1
    assert capsys.readouterr() == ("", "0 entries forgotten\n")


def test_hashed_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db\nhash_addresses = yes")
    site.put((GREYLIST, ALICE, b""), (GREYLIST, CAROL, b""), (CLIENTS, "example.org", b"allowed"))
    site.put((CORRESPONDENTS, "carol@example.com", b""))
    [first, second] = site.keys()["greylist"]
    assert first.startswith("#")
    assert first in "\n".join(_listed(site, capsys))
    assert site.run("forget", "greylist", ALICE) == 0  # by the key, though it can't be listed
    assert site.run("forget", "greylist", *{first, second} - {*site.keys()["greylist"]}) == 1  # that was this one
    assert site.run("forget", "greylist", *site.keys()["greylist"]) == 0  # as it is listed
    capsys.readouterr()
    assert site.run("forget", "--subject", "carol@example.com") == 0
    assert capsys.readouterr() == ("forgot: correspondents carol@example.com\n", "1 entry forgotten\n")
    assert site.run("forget", "--subject", "example.org") == 0
    assert site.keys() == {}


HASHED = """hash_addresses = yes
[identity]
local_domains = site.example, .below.example
[outbound_limits]
login_messages = 100/1h, 200/1d
domain_recipients = 100/90s
client_messages = 10/1.5s
[outbound_limits bulk@site.example]
recipients = 50/7d
[sender_rate]
messages = 100/2h
[connections]
per_address = 10
rate_network = 10/1m
[correspondents]
enabled = yes
[greylist]
enabled = yes
"""


async def remember_everything(store: ManagedStore, config: Config) -> None:
    """What the checks themselves write, for an inbound message that is greylisted, and two outbound ones."""
    inbound = visit("192.0.2.7", "jane@sender.example", ["joe@site.example"], spf="fail")
    for check, name in ((connections, "connections"), (greylist, "greylist"), (sender_rate, "sender_rate")):
        await awaited(check, inbound, tools(name, config=config, store=store))
    trusted = visit("192.0.2.7", "jane@sender.example", spf="pass")
    await awaited(sender_rate, trusted, tools("sender_rate", config=config, store=store))
    for login in ("ann", "bulk@site.example"):
        tx = visit(
            "198.51.100.9", "ann@site.example", ["jane@sender.example"], author="ann@site.example", outbound=True
        )
        tx = tx._replace(envelope=tx.envelope._replace(auth_user=login))
        await awaited(outbound_limits, tx, tools("outbound_limits", config=config, store=store))
    await remember_recipients(tx, ruling(), tools("correspondents", config=config, store=store))


def personal(site: Site) -> dict[str, list[str]]:
    """Keys of the spaces whose keys are hashed, as they are listed."""
    return {name: keys for name, keys in site.keys().items() if spaces()[name].personal}


HOUR_DAY = ["login ann messages/3600", "login ann messages/86400"]


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        ("ann", {"sent": HOUR_DAY}),
        ("BULK@site.example", {"sent": ["login bulk@site.example recipients/604800"]}),
        ("site.example", {"sent": ["domain site.example recipients/90"]}),
        (
            "198.51.100.9",
            {"sent": ["client 198.51.100.9 messages/1.5"]},
        ),
        (
            "192.0.2.7",
            {"connections_open": ["192.0.2.7"], "connections_rate": ["192.0.2.0/24 60"]},
        ),
        ("sender.example", {"sender_rate": ["7200 sender.example"]}),
        ("7200 sender.example 192.0.2.0/24", {"sender_rate": ["7200 sender.example 192.0.2.0/24"]}),
        ("jane@sender.example", {"correspondents": ["jane@sender.example site.example"]}),
        (
            "192.0.2.0/24 jane@sender.example joe@site.example",
            {"greylist": ["192.0.2.0/24 jane@sender.example joe@site.example"]},
        ),
    ],
    ids=[
        "a login", "a login with limits of its own", "a domain that sends", "a client that sends", "a client", "a domain",
        "a whole key of a domain", "a correspondent", "a whole triplet",
    ],
)  # fmt: skip
def test_keys_that_are_hashes_are_made_again(
    subject: str, found: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db\n{HASHED}")
    config = ini.load(str(site.file))
    site.do(lambda store: remember_everything(store, config))
    before = personal(site)
    assert all(key.startswith("#") for keys in before.values() for key in keys)
    assert site.run("list", "--subject", subject, "--json") == 0
    entries = list(map(json.loads, capsys.readouterr().out.splitlines()))
    listed: dict[str, list[str]] = {}
    for entry in entries:
        if spaces()[entry["space"]].personal:
            listed.setdefault(entry["space"], []).append(entry["key"])
    assert listed == found
    assert site.run("forget", "--subject", subject) == 0
    after = personal(site)
    assert {name: len(keys) - len(after.get(name, ())) for name, keys in before.items() if keys != after.get(name)} == {
        name: len(keys) for name, keys in found.items()
    }


def test_hashes_that_can_not_be_found_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db\n{HASHED}")
    config = ini.load(str(site.file))
    site.do(lambda store: remember_everything(store, config))
    for words in (["release", "nobody.example"], ["forget", "--subject", "nobody.example"]):
        assert site.run(*words) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[1].startswith("authmilter state: keys are kept as hashes ([store] hash_addresses)")
        assert lines[2:] == [
            "authmilter state: greylist was not searched for CLIENT SENDER RECIPIENT: name the whole key",
            "authmilter state: sender_rate was not searched for PERIOD SUBJECT NETWORK: name the whole key",
        ]


# -- release ----------------------------------------------------------------------------------------------------------


def values(site: Site, space: Space) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    async def work(store: ManagedStore) -> None:
        found.update({key: entry.value async for key, entry in store.scan(space)})

    site.do(work)
    return found


def test_release_lifts_what_holds_up_and_leaves_what_speaks_for_it(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.put((SPAM, "net 192.0.2.0/24", b""), (SPAM, "net 198.51.100.0/24", b""))
    before = site.keys()
    assert site.run("release", "192.0.2.99") == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["subject", "space", "done", "entries"],
        ["192.0.2.99", "greylist", "may", "pass", "1"],
        ["192.0.2.99", "reputation_spam", "forgotten", "1"],
    ]
    assert err == ""
    assert values(site, GREYLIST) == {ALICE: b"passed", CAROL: b"passed"}
    assert site.keys() == before | {"reputation_spam": ["net 198.51.100.0/24"]}


def test_what_is_released_keeps_its_life(site: Site) -> None:
    assert site.run("release", "alice@example.org") == 0
    lives: list[float] = []

    async def work(store: ManagedStore) -> None:
        entry = await store.get(GREYLIST, ALICE)
        assert entry is not None
        lives.extend((entry.age, entry.ttl))

    site.do(work)
    age, ttl = lives
    assert age < 60
    assert age + ttl == pytest.approx(7200.0)


def test_release_of_several_tells_of_each(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("release", "--json", "alice@example.org", "carol@example.com", "\x1b]0;x@example.org") == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"subject": "alice@example.org", "space": "greylist", "done": "may pass", "entries": 1}
    ]
    assert [line.split(";")[0] for line in err.splitlines()] == [
        "nothing that is kept holds up carol@example.com", "nothing that is kept holds up \\x1b]0",
    ]  # fmt: skip
    assert "[greylist] except_domains" not in err.splitlines()[0].split(";")[0]
    assert "except_networks, except_domains or except_recipients" in err


def test_release_of_who_is_not_held_up(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = site.keys()
    for subject in ("carol@example.com", "nobody@example.net"):  # one has passed, the other never wrote
        assert site.run("release", subject) == 1
        assert capsys.readouterr().out == ""
    assert site.keys() == before


def test_release_of_a_long_key_makes_no_other(tmp_path: Path) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    key = f"192.0.2.0/24 {'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example {'e' * 64}@site.example"
    site.put((GREYLIST, key, b""))
    before = site.keys()
    assert site.run("release", "192.0.2.1") == 0
    assert list(values(site, GREYLIST).values()) == [b"passed"]
    assert site.keys() == before


def test_release_of_a_hash_as_it_is_listed(tmp_path: Path) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db\nhash_addresses = yes")
    site.put((GREYLIST, ALICE, b""), (GREYLIST, CAROL, b""))
    assert site.run("release", site.keys()["greylist"][0]) == 0
    assert sorted(values(site, GREYLIST).values()) == [b"", b"passed"]


def test_release_where_keys_became_hashes_a_while_ago(tmp_path: Path) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    site.put((GREYLIST, ALICE, b""))
    site.file.write_text(f"{site.file.read_text()}hash_addresses = yes\n")
    site.put((GREYLIST, ALICE, b""))
    assert site.run("release", ALICE) == 0
    assert list(values(site, GREYLIST).values()) == [b"passed"] * 2


def test_who_is_released_passes_at_once() -> None:
    """Through a daemon that greylists for six hours and lets a login send one message."""
    doubtful = Visit(ip="203.0.113.66", sender="Bounce-17@nowhere.example", recipients=("user@test",))
    stolen = Visit(login="Ann", sender="ann@test", recipients=("x@elsewhere.example",))
    configuration: dict[str, dict[str, object]] = {
        "identity": {"local_domains": "test"},
        "milter": {"socket_group": ""},
        "greylist": {"enabled": "yes", "delay": "6h", "who": "all"},
        "outbound_limits": {"login_messages": "1/1h"},
    }
    with DNSServer() as dns, Daemon("unix", configuration | {"dns": {"nameservers": dns.address}}) as daemon:
        assert [deliver(daemon.address, doubtful).code for _ in range(2)] == [451, 451]
        assert [deliver(daemon.address, stolen).code for _ in range(2)] == [250, 451]
        assert main(["-c", str(daemon.file), "state", "release", "bounce-17@nowhere.example", "ann"]) == 0
        assert deliver(daemon.address, doubtful._replace(sender="b@other.example")).code == 451, "nobody else passes"
        assert deliver(daemon.address, doubtful).code == 250
        assert deliver(daemon.address, stolen).code == 250


# -- stores that are not to be had ------------------------------------------------------------------------------------


def test_nothing_kept_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    nothing = ["forget", "--subject", "x.example"], ["release", "x.example"]
    for words, status in ((["list"], 0), (["export"], 0), *((words, 1) for words in nothing)):
        assert site.run(*words) == status
        assert capsys.readouterr() == ("", "nothing kept yet\n")
    assert not (tmp_path / "state.db").exists()


def test_memory_is_out_of_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Site(tmp_path, "url = memory:").run("list") == 69
    assert "each worker keeps its own state" in capsys.readouterr().err


def test_a_server_that_is_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Site(tmp_path, f"url = redis://127.0.0.1:{free_port()}").run("list") == 69
    err = capsys.readouterr().err
    assert err.startswith("authmilter: redis:127.0.0.1:")
    assert len(err.splitlines()) == 1


def test_a_server_with_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("hunter2\n")
    with running(RedisServer(tmp_path, "--requirepass", "hunter2")) as server:
        site = Site(tmp_path, f"url = {server.url}\npassword_file = {secret}")
        assert site.run("list") == 0
        secret.write_text("wrong\n")
        assert site.run("list") == 69
        secret.chmod(0o644)
        assert site.run("list") == 78
    assert "hunter" not in capsys.readouterr().err


def test_a_file_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    assert Site(tmp_path, f"url = sqlite:{tmp_path}/other.db").run("forget", "--subject", "x.example") == 69
    assert "is the database of another program" in capsys.readouterr().err


def as_user(number: int, work: Callable[[], int]) -> tuple[int, str]:
    """What a forked child with that user returns, and all that it writes."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            if number:
                os.setgroups([])
                os.setgid(number)
                os.setuid(number)
            with open(theirs, "w", closefd=False) as sys.stdout:
                sys.stderr = sys.stdout
                result = work()
                sys.stdout.flush()
            os._exit(result)
        finally:
            os._exit(99)
    os.close(theirs)
    with open(ours) as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


@pytest.fixture
def owned(capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """State of user 65534, in a folder that others may pass, as those of pytest are not."""
    if not is_root():
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory(prefix="authmilter-state-") as name:
        top = Path(name)
        top.chmod(0o755)
        home = top / "home"
        home.mkdir(0o750)
        site = Site(top, f"url = sqlite:{home}/state.db")
        site.put((GREYLIST, ALICE, b""))
        site.run("list")  # imports what a user without rights could not
        for path in (home, *home.iterdir()):
            os.chown(path, 65534, 65534)
        yield site


def owners(site: Site) -> set[int]:
    return {path.lstat().st_uid for path in (site.file.parent / "home").iterdir()}


def test_root_leaves_nothing_of_its_own_behind(owned: Site) -> None:
    status, text = as_user(0, lambda: owned.run("forget", "--subject", "example.org"))
    assert (status, f"forgot: greylist {ALICE}" in text) == (0, True), text
    assert owners(owned) == {65534}


def test_root_leaves_a_corrupt_file_as_the_daemon_would(owned: Site) -> None:
    file = owned.file.parent / "home" / "state.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    octets = bytearray(file.read_bytes())
    octets[100:] = b"\xa5" * (len(octets) - 100)
    file.write_bytes(octets)
    status, text = as_user(0, lambda: owned.run("list"))
    assert status == 0, text
    assert file.with_name("state.db.corrupt").read_bytes() == octets
    assert owners(owned) == {65534}


def test_a_user_without_rights_is_told_who_has_them(owned: Site) -> None:
    home = owned.file.parent / "home"
    words = "permission denied: run this as root, or as the user of the daemon"
    assert as_user(1, lambda: owned.run("list")) == (69, f"authmilter: {home}/state.db: {words}\n")
    home.chmod(0o755)  # to be seen, but not to be read
    assert as_user(1, lambda: owned.run("list")) == (69, f"authmilter: {home}/state.db: {words}\n")


def test_state_of_the_system_is_found_by_whoever_has_none_of_his_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(places, "SYSTEM_DIRECTORY", tmp_path / "system")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "own"))
    assert places.find_state("sqlite:") is None
    assert places.find_state("memory:") is None
    assert places.find_state(f"sqlite:{tmp_path}/state.db") is None
    for name in ("system", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.db").touch()
        assert places.find_state("sqlite:") == tmp_path / name / "state.db"
    assert places.find_state(f"sqlite:{tmp_path}/state.db") is None


# -- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "greylst"], "unknown space 'greylst', did you mean 'greylist'?"),
        (["forget"], "SPACE KEY..., or --subject"),
        (["forget", "greylist"], "SPACE KEY..., or --subject"),
        (["forget", "greylist", "--subject", "x.example"], "looks in all spaces"),
        (["forget", "greylist", "key", "--subject", "x.example"], "SPACE KEY..., or --subject"),
        (["forget", "--subject", " "], "must not be empty"),
        (["release", "x.example", "<>"], "must not be empty"),
    ],
    ids=["a misspelt space", "nothing", "no key", "space and subject", "key and subject", "an empty subject", "nobody"],
)
def test_usage(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Site(tmp_path, f"url = sqlite:{tmp_path}/state.db").run(*words) == 64
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["lst"], ["release"], ["list", "--limit", "0"], ["list", "--limit", "x"], ["list", "a", "b", "c"]]
)
def test_usage_that_argparse_knows(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Site(tmp_path, "").run(*words)
    assert caught.value.code == 64


# -- beside a daemon --------------------------------------------------------------------------------------------------


def test_beside_a_running_daemon() -> None:
    with Daemon("unix", {"milter": {"socket_group": ""}}) as daemon:
        site = Site(daemon.folder, "")
        site.file = daemon.file
        site.put((GREYLIST, ALICE, b""), (CLIENTS, "example.com", b"allowed"))
        command = [sys.executable, "-m", "authmilter", "state", "-c", str(daemon.file)]

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)

        listed = run("list")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert ALICE in listed.stdout
        assert run("forget", "--subject", "192.0.2.1").stdout == f"forgot: greylist {ALICE}\n"
        assert site.keys() == {"greylist_clients": ["example.com"]}
        assert "error" not in daemon.log()


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    site = Site(tmp_path, f"url = sqlite:{tmp_path}/state.db")
    site.put(*((CLIENTS, f"d{n}.example", b"allowed") for n in range(3000)))
    command = f"{sys.executable} -m authmilter state -c {site.file} export; echo status $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | head -1"], cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout)["space"] == "greylist_clients"
    assert done.stderr == "status 141\n"
