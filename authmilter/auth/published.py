"""Do the records in the DNS fit the keys that we sign with?

A signature that is made may still be one that nobody can verify: the record was never published, is another's, or went
when the DNS moved.  Receivers see that, the sender does not.  Where the DNS does not answer, nothing is said of the key.
"""

import logging
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authmilter.auth.keys import PublicKey, key_name, parse_key_record
from authmilter.auth.signing import SigningKey
from authmilter.errors import DnsTempError
from authmilter.interfaces import Answer

log = logging.getLogger("authmilter.keys")

STATES: Final = ("published", "mismatch", "missing", "unknown")
RETRY = 300.0  # seconds from one look at the keys that are not known to be published to the next
LOOKS = 12  # every so many of these looks is at all keys
MAX_RECORDS = 10  # of one name, where there should be one

# Asks for the records of a name and type; raises DnsTempError.
Ask = Callable[[str, str], Awaitable[Answer]]


@dataclass(slots=True)
class OwnKey:
    """A key of ours, and what is known of its record.

    `section` is where the configuration has it.  `domain` is d=, "" where it is that of the author; then `name`, under
    which the record is, is "" too, and there is no one record to look for.  `state` is one of `STATES`, `detail` says more
    in the words of the end of a sentence; `looked` is when the DNS last said so, on the monotonic clock, None if never.
    """

    section: str
    domain: str
    key: SigningKey
    name: str = ""
    state: str = "unknown"
    detail: str = "not looked for yet"
    looked: float | None = None

    @property
    def bits(self) -> int:
        """The size of the key: 256 for Ed25519."""
        return self.key.key.key_size if isinstance(self.key.key, RSAPrivateKey) else 256


def own_keys(keys: Iterable[tuple[str, str, SigningKey]], *, check: bool = True) -> list[OwnKey]:
    """For section, d= and key of each; without `check` nobody will look for their records."""
    found = []
    for section, domain, key in keys:
        one = OwnKey(section, domain, key)
        if not check:
            one.detail = "not looked for: [dns] check_keys = no"
        elif not domain:
            one.detail = "each author's domain has a record of its own"
        elif not (name := key_name(key.selector, domain)):
            one.detail = "no name of a record"
        else:
            one.name = name
        found.append(one)
    return found


class KeyWatch:
    """Looks for the records of these keys; `tell` is called when a round is done, and before the first.

    `unexpected` is called while an exception that nobody expected is handled.  What `before` knew of the same key is known until the next look.
    """

    def __init__(
        self,
        keys: Sequence[OwnKey],
        ask: Ask,
        tell: Callable[[Sequence[OwnKey]], None],
        unexpected: Callable[[], None],
        before: Sequence[OwnKey] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self._ask = ask
        self._tell = tell
        self._unexpected = unexpected
        self._clock = clock
        known = {(one.name, _octets(one.key.key.public_key())): one for one in before if one.looked is not None}
        for one in keys:
            same = known.get((one.name, _octets(one.key.key.public_key()))) if one.name else None
            if same is not None:
                one.state, one.detail, one.looked = same.state, same.detail, same.looked

    async def watch(self) -> None:
        """Look until cancelled: at once and hourly, and every few minutes for those that are not known to be published.

        One question is under way at a time, however many keys there are.
        """
        self._tell_all()
        for look in count():
            for one in self.keys:
                if one.name and (look % LOOKS == 0 or one.state != "published"):
                    try:
                        await self._look(one)
                    except Exception:
                        log.exception("%s could not be looked for", one.name)
                        self._unexpected()
            self._tell_all()
            await sleep(RETRY)

    def _tell_all(self) -> None:
        try:
            self._tell(self.keys)
        except Exception:
            log.exception("what is known of the keys could not be told")
            self._unexpected()

    async def _look(self, one: OwnKey) -> None:
        try:
            answer = await self._ask(one.name, "TXT")
        except DnsTempError:
            if one.looked is None:
                one.detail = "the DNS does not answer"
            return  # what it said before is what is known
        before = one.state
        one.state, detail = compare(one.key, answer)
        one.detail = f"{one.name} {detail}" if detail else ""
        one.looked = self._clock()
        if one.state != before:
            bad = one.state in ("mismatch", "missing")
            log.log(
                logging.WARNING if bad else logging.INFO,
                "[%s] record %s: %s",
                one.section,
                one.name,
                detail or one.state,
            )


def compare(key: SigningKey, answer: Answer) -> tuple[str, str]:
    """State and detail, which goes on after the name of the record, for what the DNS says of a key."""
    if not answer.records:
        return "missing", "does not exist" if not answer.exists else "has no TXT record"
    problems = []
    for record in answer.records[:MAX_RECORDS]:
        found = parse_key_record(record if isinstance(record, bytes) else record.encode())
        if found.problem:
            problems.append(f"is of no use: {found.problem}")
        elif found.public is None or _octets(found.public) != _octets(key.key.public_key()):
            problems.append("has another key than ours")
        elif not found.sha256:
            problems.append("does not allow sha256, with which we sign (h=)")
        else:
            return "published", "is in test mode (t=y)" if found.testing else ""
    return "mismatch", problems[0]


def _octets(key: PublicKey) -> bytes:
    """By which two keys are the same."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def worst_first(keys: Iterable[OwnKey]) -> list[OwnKey]:
    """Keys that others can't use before those of which nothing is known, and these before the good ones."""
    order = ("mismatch", "missing", "unknown", "published")
    return sorted(keys, key=lambda one: order.index(one.state))
