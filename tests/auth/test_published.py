"""Whether the records in the DNS fit the keys that sign, asked of real name servers."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authmilter.auth import published
from authmilter.auth.published import KeyWatch, OwnKey, compare, own_keys, worst_first
from authmilter.auth.signing import Signer, SigningKey
from authmilter.config.option import FilePath, Seconds
from authmilter.config.schema import Dns, Sign
from authmilter.interfaces import Answer
from authmilter.resolver import StubResolver
from tests.dnsserver import DNSServer
from tests.rig.mail import KeyFiles, ed25519_key, rsa_key, write_keys, zone

RSA = SigningKey("r", "rsa-sha256", rsa_key())
ED25519 = SigningKey("e", "ed25519-sha256", ed25519_key())
RECORD = zone()["r._domainkey.sender.example TXT"][0]
ED25519_RECORD = zone()["e._domainkey.sender.example TXT"][0]
assert isinstance(RECORD, str)
assert isinstance(ED25519_RECORD, str)


def record_of_another() -> str:
    spki = generate_private_key(65537, 1024).public_key()
    octets = spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(octets).decode()}"


def pkcs1_record() -> str:
    """RFC 6376 section 3.6.1 has the form of PKCS#1, without the SubjectPublicKeyInfo around it that all others write."""
    octets = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return f"p={base64.b64encode(octets).decode()}"


OTHER = record_of_another()


@pytest.mark.parametrize(
    ("key", "records", "state", "detail"),
    [
        (RSA, [RECORD], "published", ""),
        (RSA, [pkcs1_record()], "published", ""),
        (ED25519, [ED25519_RECORD], "published", ""),
        (RSA, [f"{RECORD}; t=y"], "published", "is in test mode (t=y)"),
        (RSA, [OTHER, RECORD], "published", ""),
        (RSA, [], "missing", "has no TXT record"),
        (RSA, [OTHER], "mismatch", "has another key than ours"),
        (RSA, [ED25519_RECORD], "mismatch", "has another key than ours"),
        (ED25519, [RECORD], "mismatch", "has another key than ours"),
        (RSA, ["v=DKIM1; p="], "mismatch", "is of no use: key is revoked"),
        (RSA, ["v=spf1 -all"], "mismatch", "is of no use: key record is not of version DKIM1"),
        (RSA, ["hello"], "mismatch", "is of no use: key record has a syntax error"),
        (RSA, [f"{RECORD}; h=sha1"], "mismatch", "does not allow sha256, with which we sign (h=)"),
        (RSA, [f"{RECORD}; s=tlsrpt"], "mismatch", "is of no use: key is not for email"),
        (RSA, [OTHER] * 50 + [RECORD], "mismatch", "has another key than ours"),
    ],
    ids=[
        "right", "PKCS#1", "Ed25519", "test mode", "one of two", "none", "another", "another type", "the same the other way",
        "revoked", "SPF", "nonsense", "sha1 only", "another service", "behind too many",
    ],
)  # fmt: skip
def test_what_the_dns_says_of_a_key(key: SigningKey, records: Sequence[str], state: str, detail: str) -> None:
    assert compare(key, Answer(tuple(record.encode() for record in records), exists=True)) == (state, detail)


def test_a_name_that_does_not_exist() -> None:
    assert compare(RSA, Answer((), exists=False)) == ("missing", "does not exist")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize(
    ("section", "options", "name"),
    [
        ("sender.example", {}, "r._domainkey.sender.example"),
        ("sender.example", {"domain": "other.example"}, "r._domainkey.other.example"),
        ("sender.example", {"subdomains": "own"}, "r._domainkey.sender.example"),
        ("*.sender.example", {"subdomains": "parent"}, "r._domainkey.sender.example"),
        ("*.sender.example", {"subdomains": "own"}, ""),
        ("*", {}, ""),
        ("*", {"domain": "sender.example"}, "r._domainkey.sender.example"),
    ],
)
def test_where_the_record_of_a_section_is(section: str, options: dict[str, str], name: str, files: KeyFiles) -> None:
    sign = replace(Sign(selector="r", key_file=FilePath(str(files.rsa))), **options)  # type: ignore[arg-type]
    (one,) = own_keys(Signer.load({section: sign}).published_keys())
    assert one.name == name
    assert (one.section, one.state, one.bits) == (section, "unknown", 2048)
    assert one.detail == ("not looked for yet" if name else "each author's domain has a record of its own")


def test_a_section_that_does_not_sign_has_no_keys_to_look_for(files: KeyFiles) -> None:
    sign = Sign(selector="r", key_file=FilePath(str(files.rsa)), subdomains="no")
    assert Signer.load({"*.sender.example": sign}).published_keys() == []


def test_since_when_a_key_is_loaded_does_not_change_with_a_reload_that_leaves_it(files: KeyFiles) -> None:
    sections = {"sender.example": Sign(selector="r", key_file=FilePath(str(files.rsa)))}
    (first,), (second,) = Signer.load(sections).published_keys(), Signer.load(sections).published_keys()
    assert first[2].since == second[2].since > 1.7e9


# -- the watch --------------------------------------------------------------------------------------------------------


class Told(list[list[tuple[str, str]]]):
    """What the watch told, each time."""

    def __call__(self, keys: Sequence[OwnKey]) -> None:
        self.append([(one.state, one.detail) for one in keys])

    async def rounds(self, number: int) -> None:
        async with asyncio.timeout(10):
            while len(self) < number:  # noqa: ASYNC110  a list sets no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(
    server: DNSServer, keys: Sequence[OwnKey], before: Sequence[OwnKey] = ()
) -> AsyncIterator[tuple[KeyWatch, Told]]:
    dns = StubResolver(Dns(nameservers=(server.address,), timeout=Seconds(0.3)))
    told = Told()
    watch = KeyWatch(keys, dns.ask_anew, told, unexpected, before)
    task = asyncio.create_task(watch.watch())
    try:
        yield watch, told
    finally:
        task.cancel()
        dns.close()
        await asyncio.sleep(0)


def keys() -> list[OwnKey]:
    return own_keys([("sign sender.example", "sender.example", key) for key in (RSA, ED25519)])


async def test_keys_are_looked_for_again_until_they_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RETRY", 0.1)
    with DNSServer({"e._domainkey.sender.example TXT": [ED25519_RECORD]}) as server:
        async with watching(server, keys()) as (watch, told):
            await told.rounds(3)
            gone = ("missing", "r._domainkey.sender.example does not exist")
            assert told[0] == [("unknown", "not looked for yet")] * 2
            assert told[1] == [gone, ("published", "")]
            server.add("r._domainkey.sender.example TXT", [OTHER])
            await told.rounds(len(told) + 2)
            assert told[-1][0] == ("mismatch", "r._domainkey.sender.example has another key than ours")
            server.add("r._domainkey.sender.example TXT", [RECORD])
            await told.rounds(len(told) + 2)
            assert told[-1] == [("published", "")] * 2
            assert [one.state for one in worst_first(watch.keys)] == ["published"] * 2
            # What is right is looked at hourly only, and nothing that was asked came from our cache.
            asked = server.asked("e._domainkey.sender.example TXT")
            await told.rounds(len(told) + 2)
            assert asked <= server.asked("e._domainkey.sender.example TXT") <= asked + 1 < server.asked() / 2


@pytest.mark.parametrize("fault", ["drop", "servfail", "refused", "garbage"])
async def test_a_failure_of_the_dns_is_never_a_key_that_does_not_fit(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "RETRY", 0.05)
    monkeypatch.setattr(published, "LOOKS", 1)
    with DNSServer(zone(), {"r._domainkey.sender.example": fault}) as server:
        async with watching(server, keys()) as (watch, told):
            await told.rounds(3)
            assert told[-1] == [("unknown", "the DNS does not answer"), ("published", "")]
            # What the DNS said once holds for as long as it says nothing else.
            server.behave("r._domainkey.sender.example", "")
            await told.rounds(len(told) + 3)
            assert told[-1] == [("published", "")] * 2
            looked = watch.keys[0].looked
            server.behave("r._domainkey.sender.example", fault)
            await told.rounds(len(told) + 3)
            assert told[-1] == [("published", "")] * 2
            assert watch.keys[0].looked is not None
            assert looked is not None
            assert watch.keys[0].looked < (watch.keys[1].looked or 0.0)


async def test_after_a_reload_what_was_known_of_the_same_keys_is_known() -> None:
    with DNSServer(zone()) as server:
        async with watching(server, keys()) as (watch, told):
            await told.rounds(2)
        moved = own_keys(
            [
                ("sign sender.example", "sender.example", RSA),
                ("sign sender.example", "sender.example", SigningKey("e", "rsa-sha256", rsa_key())),  # another key
                ("sign other.example", "other.example", RSA),  # another name
            ]
        )
        async with watching(server, moved, watch.keys) as (_, told):
            await told.rounds(1)
            assert told[0] == [("published", ""), *[("unknown", "not looked for yet")] * 2]
            await told.rounds(2)
            assert [state for state, _ in told[1]] == ["published", "mismatch", "missing"]


def unexpected() -> None:
    raise AssertionError("nothing unexpected happens there")


async def test_what_breaks_is_logged_and_counted_and_the_other_keys_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(published, "RETRY", 0.01)
    counted = told = 0
    thrice = asyncio.Event()
    both = keys()

    async def ask(name: str, rdtype: str) -> Answer:
        if name == both[0].name:
            raise ValueError("broken")
        return Answer((str(ED25519_RECORD),), exists=True)

    def tell(keys: Sequence[OwnKey]) -> None:
        nonlocal told
        told += 1
        if told == 3:
            thrice.set()
        raise ValueError("no room")

    def count() -> None:
        nonlocal counted
        counted += 1

    task = asyncio.create_task(KeyWatch(both, ask, tell, count).watch())
    async with asyncio.timeout(10):
        await thrice.wait()
    await asyncio.sleep(0)
    task.cancel()
    assert [one.state for one in both] == ["unknown", "published"]
    assert counted >= 5  # three times it could not tell, and twice not ask
    said = {record.getMessage() for record in caplog.records}
    assert {f"{both[0].name} could not be looked for", "what is known of the keys could not be told"} <= said


async def test_who_does_not_want_it_asks_nothing() -> None:
    with DNSServer(zone()) as server:
        idle = own_keys([("sign sender.example", "sender.example", RSA)], check=False)
        async with watching(server, idle) as (_, told):
            await told.rounds(2)
        assert told[-1] == [("unknown", "not looked for: [dns] check_keys = no")]
        assert server.queries == []


def test_the_worst_are_first(tmp_path: Path) -> None:
    found = [OwnKey("s", "d", RSA, state=state) for state in ("published", "unknown", "missing", "mismatch")]
    assert [one.state for one in worst_first(found)] == ["mismatch", "missing", "unknown", "published"]
