"""Fixtures of the tests with a real Postfix: once for all of them the DNS, the keys and the sink, per variant the rest."""

import uuid
from collections.abc import Iterator

import pytest

from tests.dnsserver import DNSServer
from tests.rig.mail import KeyFiles, behaviours, write_keys, zone
from tests.rig.postfix import require_rig
from tests.rig.sink import Sink
from tests.rig.site import Site, Variant, configuration, running

VARIANTS = [Variant(engine, family) for engine in ("native", "libmilter") for family in ("unix", "inet")]


@pytest.fixture(scope="session", params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Every engine over every kind of socket that it is asked for."""
    chosen: Variant = request.param
    return chosen


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    """Private keys of sender.example."""
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def dns() -> Iterator[DNSServer]:
    """The server that knows all senders."""
    with DNSServer(zone(), behaviours()) as server:
        yield server


@pytest.fixture(scope="session")
def one_sink() -> Iterator[Sink]:
    """The mail server behind every Postfix."""
    with Sink() as sink:
        yield sink


@pytest.fixture(scope="session")
def one_site(variant: Variant, one_sink: Sink, keys: KeyFiles, dns: DNSServer) -> Iterator[Site]:
    """One site per variant, for all tests that leave it as they found it."""
    with running(variant, one_sink, configuration(variant, keys, dns.address)) as site:
        yield site


@pytest.fixture
def sink(one_sink: Sink) -> Sink:
    """The sink, empty."""
    one_sink.clear()
    return one_sink


@pytest.fixture
def site(one_site: Site, sink: Sink) -> Site:
    """The site of this variant, its sink empty."""
    return one_site


@pytest.fixture
def marker() -> str:
    """A word that stands in no other message."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session", autouse=True)
def _rig() -> None:
    require_rig()
