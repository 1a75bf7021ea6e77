"""Which addresses an authenticated user may write into From.

Without this rule any account can send as any other of the same server, and gets a DKIM signature for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authmilter.addresses import Author, to_ascii_domain
from authmilter.config.schema import Config
from authmilter.errors import ConfigError
from authmilter.model import Mailbox
from authmilter.networks import names_contain

ANY_LOGIN = "*"


@dataclass(frozen=True)
class SenderMap:
    """The rule of [submission] with its map file; `grants` maps a login to ``address`` and ``@domain`` entries."""

    rule: str = "off"
    local_domains: tuple[str, ...] = ()
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def objection(self, login: str, author: Author) -> str:
        """Why this login may not send with that From; "" if it may."""
        if self.rule == "off":
            return ""
        if author.problem and (not author.mailboxes or len(author.domains) < 2):
            # Several domains are no problem in themselves here: each address is held against the login below.
            return f"a From that can't be used: {author.problem}"
        for mailbox in author.mailboxes:
            if not self._granted(login.lower(), mailbox):
                return f"{_shown(mailbox)} when logged in as {login[:64]}"
        return ""

    def _granted(self, login: str, mailbox: Mailbox) -> bool:
        user, at, domain = login.rpartition("@")
        if not at:
            user = login
        address = mailbox.address
        own_domain = to_ascii_domain(domain) if at else ""
        same_domain = mailbox.domain == own_domain if at else names_contain(self.local_domains, mailbox.domain)
        if same_domain and (self.rule == "domain" or mailbox.address.rpartition("@")[0] == user):
            return True
        wanted = {address, f"@{mailbox.domain}"}
        return any(wanted & self.grants.get(who, frozenset()) for who in (login, ANY_LOGIN))


def load(config: Config) -> SenderMap:
    """Read the map file; raises ConfigError with every line that can't be read."""
    rule, path = config.submission.from_must_match, config.submission.map_file
    grants: dict[str, set[str]] = {}
    if path:
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read(64 * 1024 * 1024).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"{path}: can't be read: {error}"]) from error
        problems = []
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            login, colon, addresses = text.partition(":")
            entries = [_entry(a.strip()) for a in addresses.split(",") if a.strip()]
            if not colon or not login.strip() or not entries or "" in entries:
                problems.append(f"{path}:{number}: not of the form `LOGIN: ADDRESS, @DOMAIN, ...`")
                continue
            grants.setdefault(login.strip().lower(), set()).update(entries)
        if problems:
            raise ConfigError(problems)
    return SenderMap(
        rule,
        config.identity.local_domains,
        {login: frozenset(entries) for login, entries in grants.items()},
    )


def _entry(text: str) -> str:
    """An address or @domain in the form that is compared, "" if it is neither."""
    local, at, raw_domain = text.rpartition("@")
    domain = to_ascii_domain(raw_domain)
    return Mailbox(local.encode(), b"", domain).address if at and domain else ""


def _shown(mailbox: Mailbox) -> str:
    return bytes(mailbox)[:128].decode("utf-8", "backslashreplace")
