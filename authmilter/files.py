"""What a configuration names and only its owner may read: keys and maps, read once, before root is given up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authmilter.auth.arc_sealing import Sealer
from authmilter.auth.keys import read_private_key
from authmilter.auth.signing import Signer, SigningKey
from authmilter.config.schema import Config, Sign
from authmilter.errors import ConfigError
from authmilter.lists import load_keys
from authmilter.store import load_password
from authmilter.submission import SenderMap
from authmilter.submission import load as load_senders


@dataclass(frozen=True)
class Files:
    """The contents of all files that a configuration names; `sealer` is None where nothing is sealed."""

    signer: Signer
    senders: SenderMap
    sealer: Sealer | None = None
    store_password: str = ""
    list_keys: Mapping[str, str] = field(default_factory=dict)  # of DNS lists, by title of section

    def signing_keys(self) -> list[tuple[str, str, SigningKey]]:
        """Title of the section, d= ("" for that of the author) and key of all that signs or seals."""
        keys = [(f"sign {name}", domain, key) for name, domain, key in self.signer.published_keys()]
        return keys + ([("arc", self.sealer.domain, self.sealer.key)] if self.sealer is not None else [])


def load_files(config: Config) -> Files:
    """Read them; raises ConfigError with every problem of the first kind of file that has any."""
    return Files(
        Signer.load(config.sign),
        load_senders(config),
        _load_sealer(config),
        _load_store_password(config),
        load_keys(config),
    )


def _load_store_password(config: Config) -> str:
    try:
        return load_password(config.store.password_file)
    except ValueError as error:
        raise ConfigError([f"[store] password_file: {error}"]) from None


def _load_sealer(config: Config) -> Sealer | None:
    arc = config.arc
    if arc.seal == "no":
        return None
    try:
        loaded = read_private_key(arc.seal_key_file)
    except ValueError as error:
        raise ConfigError([f"[arc] seal_key_file: {error}"]) from None
    key = SigningKey(arc.seal_selector, "rsa-sha256", loaded.key, loaded.since)
    # RFC 8617 section 4.1.2: as DKIM signs them, and DKIM-Signature itself.
    return Sealer(arc.seal_domain, key, (*Sign().headers, "DKIM-Signature"), Sign().oversign)
