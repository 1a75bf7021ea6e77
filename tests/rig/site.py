"""A whole site: sender's DNS, daemon, Postfix in front of it, and the mail server behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.rig.daemon import Configuration, Daemon
from tests.rig.mail import KeyFiles
from tests.rig.postfix import Postfix, require_rig
from tests.rig.sink import Sink


@dataclass(frozen=True)
class Variant:
    """An engine, and the kind of socket between it and Postfix."""

    engine: str
    family: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.family}"


@dataclass
class Site:
    """What a test talks to."""

    daemon: Daemon
    postfix: Postfix
    sink: Sink
    configuration: Configuration


def configuration(
    variant: Variant, keys: KeyFiles, nameserver: str, changes: Configuration | None = None
) -> Configuration:
    """What all sites have in common, and `changes` to it."""
    common: dict[str, dict[str, object]] = {
        "milter": {"engine": variant.engine},
        "dns": {"nameservers": nameserver},
        "sign sender.example": {
            "selector": "r",
            "key_file": keys.rsa,
            "ed25519_selector": "e",
            "ed25519_key_file": keys.ed25519,
        },
    }
    for section, options in (changes or {}).items():
        common[section] = {**common.get(section, {}), **options}
    return common


@contextmanager
def running(variant: Variant, sink: Sink, settings: Configuration) -> Iterator[Site]:
    """Daemon and Postfix, both up."""
    require_rig()
    with Daemon(variant.family, settings) as daemon, Postfix([daemon.address], sink.port) as postfix:
        yield Site(daemon, postfix, sink, settings)
