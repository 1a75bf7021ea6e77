"""The part of every store that faces the program: the primitives, their keys, and what happens when a back end fails.

A back end carries out *steps*: tuples of a verb, the name of a space, a key as it is kept, and the verb's arguments.

::

    ("get", space, key)                                  -> Entry | None
    ("put", space, key, value, ttl)                      -> None
    ("add", space, key, value, ttl)                      -> Entry | None
    ("incr", space, key, amount, ttl, half_life)         -> Entry
    ("delete", space, key)                               -> bool
    ("scan", space, prefix, cursor)                      -> (cursor | None, [(key, Entry), ...])
    ("purge", cursor)                                    -> (cursor | None, number of entries dropped)
"""

import asyncio
import logging
import re
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, NoReturn

from authmilter.errors import StoreError
from authmilter.interfaces import Entry, Increment, Space
from authmilter.store.entry import MAX_COUNT, MAX_LIFE

log = logging.getLogger("authmilter.store")

Step = tuple[Any, ...]

OPERATIONS = ("open", "get", "put", "add", "incr", "get_many", "incr_many", "purge", "delete", "scan")

MAX_VALUE = 4096  # octets
MAX_KEY = 255  # octets of a key as it is kept
READABLE = 48  # characters that stay readable of a key that is longer than that
CHUNK = 250  # steps of one request: what one transaction or pipeline holds at least
MAX_WAITING = 5000  # steps that wait or are under way; what comes on top fails at once
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 30.0  # seconds until a failed store is tried again
HEALTHY_AFTER = 60.0  # a store that worked this long starts its back-off afresh
LOG_EVERY = 60.0  # seconds
REMEMBERED = 100_000  # keys that a scan knows not to tell twice; more would take memory without bound

# Entries of ours: the secret that keys are hashed with, and what is written to prove that writing works.
OWN = "_store"
SECRET, PROOF = b"secret", b"proof"

_HASHED = b"\x01"
_DIGEST = 16  # octets
_SHOWN_HASH = re.compile(rf"(.{{0,{READABLE}}})#([0-9a-f]{{{2 * _DIGEST}}})", re.DOTALL)


def opening_steps(now: float) -> list[Step]:
    """What proves that a back end works: it takes a write, and has or gets a secret, the result of the second step."""
    return [
        ("put", OWN, PROOF, b"%d" % now, MAX_LIFE),
        ("add", OWN, SECRET, secrets.token_bytes(32), MAX_LIFE),
    ]


def secret_of(steps: Sequence[Step], results: Sequence[Any]) -> bytes:
    """The secret, from `opening_steps` and what came of them."""
    found: Entry | None = results[1]
    secret: bytes = found.value if found is not None else steps[1][3]
    return secret


class Keyring:
    """How keys are kept: as they are, or hashed where they are personal or long.

    The hash is BLAKE2b under the secret of the site, since addresses are few enough to try them all on a plain one.
    """

    def __init__(self, secret: bytes, *, hash_personal: bool) -> None:
        self._secret = secret[:64]
        self._hash_personal = hash_personal

    def kept(self, space: Space, key: str) -> bytes:
        """The octets under which a key is kept, MAX_KEY of them at most."""
        octets = key.encode("utf-8", "surrogatepass")
        if space.personal and self._hash_personal:
            return _HASHED + self._digest(space, octets)
        if len(octets) > MAX_KEY:
            return key[:READABLE].encode("utf-8", "surrogatepass") + b"\0" + self._digest(space, octets)
        return octets

    def candidates(self, space: Space, key: str) -> list[bytes]:
        """All that a key, or what `shown` made of it, may be kept as, also from when the option was another."""
        octets = key.encode("utf-8", "surrogatepass")
        found = [octets[:MAX_KEY], _HASHED + self._digest(space, octets), self.kept(space, key)]
        hashed = _SHOWN_HASH.fullmatch(key)
        if hashed:
            mark = hashed[1].encode("utf-8", "surrogatepass") + b"\0" if hashed[1] else _HASHED
            found.append(mark + bytes.fromhex(hashed[2]))
        return list(dict.fromkeys(found))

    def _digest(self, space: Space, octets: bytes) -> bytes:
        # The space goes in, so that nobody sees that two spaces know the same person.
        person = space.name.encode()[: blake2b.PERSON_SIZE]
        return blake2b(octets, digest_size=_DIGEST, key=self._secret, person=person).digest()


def shown(kept: bytes) -> str:
    """A kept key as text; it may hold any character, so escape it where it is printed."""
    if kept[:1] == _HASHED and len(kept) == 1 + _DIGEST:
        return "#" + kept[1:].hex()
    if kept[-_DIGEST - 1 : -_DIGEST] == b"\0":
        return _text(kept[: -_DIGEST - 1]) + "#" + kept[-_DIGEST:].hex()
    return _text(kept)


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # not written by us
        return octets.decode("utf-8", "backslashreplace")


class Primitives(ABC):
    """`interfaces.ManagedStore` over one method that carries out steps."""

    @abstractmethod
    async def _ask(self, operation: str, steps: Sequence[Step]) -> list[Any]:
        """Results of steps, whose keys are still a Space and a text; raises StoreError."""

    @abstractmethod
    async def _candidates(self, space: Space, key: str) -> list[bytes]:
        """See `Keyring.candidates`; raises StoreError."""

    @abstractmethod
    async def close(self) -> None:
        """See `interfaces.ManagedStore`."""

    async def get(self, space: Space, key: str) -> Entry | None:
        """See `interfaces.Store`, as for all that follow."""
        entry: Entry | None
        [entry] = await self._ask("get", [("get", space, key)])
        return entry

    async def put(self, space: Space, key: str, value: bytes, ttl: float) -> None:
        """Write an entry."""
        await self._ask("put", [("put", space, key, _value(value), _seconds(ttl))])

    async def add(self, space: Space, key: str, value: bytes, ttl: float) -> Entry | None:
        """Write an entry unless there is one."""
        entry: Entry | None
        [entry] = await self._ask("add", [("add", space, key, _value(value), _seconds(ttl))])
        return entry

    async def incr(self, space: Space, key: str, ttl: float, amount: float = 1.0, half_life: float = 0.0) -> Entry:
        """Add to a count."""
        entry: Entry
        [entry] = await self._ask("incr", [_increment(Increment(space, key, ttl, amount, half_life))])
        return entry

    async def get_many(self, keys: Sequence[tuple[Space, str]]) -> list[Entry | None]:
        """`get` for each."""
        return await self._ask_many("get_many", [("get", space, key) for space, key in keys])

    async def incr_many(self, increments: Sequence[Increment]) -> list[Entry]:
        """`incr` for each."""
        return await self._ask_many("incr_many", list(map(_increment, increments)))

    async def purge(self) -> int:
        """Drop what has expired."""
        dropped = 0
        cursor: Any = b""
        while True:
            [(cursor, number)] = await self._ask("purge", [("purge", cursor)])
            dropped += int(number)
            if cursor is None:
                return dropped
            await asyncio.sleep(0.005)  # others want to write too

    async def delete(self, space: Space, key: str) -> bool:
        """Forget an entry."""
        steps = [("delete", space, kept) for kept in await self._candidates(space, key)]
        return any(await self._ask("delete", steps))

    async def replace(self, space: Space, key: str, value: bytes) -> bool:
        """Write an entry in place of the one that is there."""
        keys = await self._candidates(space, key)
        entries = await self._ask("get_many", [("get", space, kept) for kept in keys])
        steps = [
            ("put", space, kept, _value(value), _seconds(entry.age + entry.ttl))
            for kept, entry in zip(keys, entries, strict=True)
            if entry is not None
        ]
        if steps:
            await self._ask("put", steps)
        return bool(steps)

    async def scan(self, space: Space, prefix: str = "", limit: int = 1000) -> AsyncIterator[tuple[str, Entry]]:
        """Entries by prefix."""
        start = _HASHED if prefix.startswith("#") else prefix[:READABLE].encode("utf-8", "surrogatepass")
        told: set[bytes] = set()  # a server that moves entries while it is asked may tell one twice
        number = 0
        cursor: Any = b""
        while cursor is not None:
            [(cursor, found)] = await self._ask("scan", [("scan", space, start, cursor)])
            for kept, entry in found:
                text = shown(kept)
                if number >= limit:
                    return
                if kept not in told and text.startswith(prefix):
                    number += 1
                    if len(told) < REMEMBERED:
                        told.add(kept)
                    yield text, entry

    async def _ask_many(self, operation: str, steps: list[Step]) -> list[Any]:
        results: list[Any] = []
        for start in range(0, len(steps), CHUNK):
            results += await self._ask(operation, steps[start : start + CHUNK])
        return results


def _value(value: bytes) -> bytes:
    if len(value) > MAX_VALUE:
        raise StoreError(f"a value of {len(value)} octets is too long to be kept")
    return value


def _seconds(ttl: float) -> float:
    return ttl if 0.001 <= ttl <= MAX_LIFE else MAX_LIFE if ttl > MAX_LIFE else 0.001


def _increment(item: Increment) -> Step:
    space, key, ttl, amount, half_life = item
    if not -MAX_COUNT < amount < MAX_COUNT:
        amount = MAX_COUNT if amount > 0.0 else 0.0
    return "incr", space, key, amount, _seconds(ttl), _seconds(half_life) if half_life > 0.0 else 0.0


def keep(steps: Sequence[Step], keyring: Keyring) -> list[Step]:
    """The same steps with keys as they are kept."""
    kept: list[Step] = []
    for step in steps:
        if step[0] == "purge":
            kept.append(step)
            continue
        space, key = step[1], step[2]
        kept.append((step[0], space.name, keyring.kept(space, key) if isinstance(key, str) else key, *step[3:]))
    return kept


class Request:
    """Steps that go together, and who waits for their results."""

    __slots__ = ("due", "ended", "future", "operation", "steps")

    def __init__(self, operation: str, steps: list[Step], future: "asyncio.Future[list[Any]]", due: float) -> None:
        self.operation = operation
        self.steps = steps
        self.future = future
        self.due = due
        self.ended = False  # nobody waits for it any more


class Front(Primitives):
    """A store whose back end works elsewhere: in a thread or a server.  Made and used on a running event loop.

    No caller waits longer than `timeout`, and no more than MAX_WAITING steps wait.  When a back end fails, or is late
    once, all who wait hear StoreError, and from then on everybody at once: nobody waits for a dead store again.  It is
    tried in the background, at growing intervals, until it takes a write.

    `on_error` is told the operation of every request that failed, one of OPERATIONS; it must be cheap and not raise.
    The log has a line a minute at most.
    """

    def __init__(
        self,
        name: str,
        *,
        timeout: float,
        connect_timeout: float,
        hash_personal: bool,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name  # for the log: no secret in it
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self._hash_personal = hash_personal
        self._on_error: Final = on_error or _ignore
        self._loop = asyncio.get_running_loop()
        self._keyring: Keyring | None = None  # known from the first opening on
        self._trouble = ""  # why the store is not to be had, if it is not
        self._open: deque[Request] = deque()  # in the order in which they came
        self._waiting = 0  # steps of requests that have not ended
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._backoff = BACKOFF_FIRST
        self._well_since = 0.0
        self._logged = float("-inf")
        self._unlogged = 0  # complaints that were not logged since
        self._told = False  # the log says that the store is not to be had
        self._closed = False

    # -- what a back end has to say and do ----------------------------------------------------------------------------

    @abstractmethod
    async def _connect(self) -> bytes:
        """Begin anew, carry out `opening_steps`, and return the secret; any exception is a reason to try later."""

    @abstractmethod
    def _submit(self, request: Request) -> None:
        """Take a request, to be answered by `_answer` or `_fail`, sooner or later, on the loop."""

    @abstractmethod
    def _abandon(self) -> None:
        """Nobody waits any more for what was submitted."""

    @abstractmethod
    async def _release(self) -> None:
        """Let go of everything."""

    def _answer(self, request: Request, results: list[Any]) -> None:
        if not request.ended:
            self._end(request)
            if not request.future.done():
                request.future.set_result(results)

    def _refuse(self, request: Request, reason: str) -> None:
        """This request alone fails."""
        if not request.ended:
            self._end(request)
            self._on_error(request.operation)
            self._complain(reason)
            if not request.future.done():
                request.future.set_exception(StoreError(f"{self.name}: {reason}"))

    def _fail(self, reason: str) -> None:
        """The back end can't be used now: everybody who waits hears of it, and it is opened anew after a while."""
        if self._closed:
            return
        self._abandon()
        if not self._trouble:
            self._trouble = reason
            if self._loop.time() - self._well_since > HEALTHY_AFTER:
                self._backoff = BACKOFF_FIRST
            self._try_later()
        while self._open:
            self._refuse(self._open[0], reason)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _ask(self, operation: str, steps: Sequence[Step]) -> list[Any]:
        keyring = self._keyring or await self._opened(operation)
        if self._trouble:
            self._raise(operation, self._trouble)
        if self._waiting + len(steps) > MAX_WAITING:
            self._raise(operation, f"more than {MAX_WAITING} operations wait")
        due = self._loop.time() + self.timeout
        request = Request(operation, keep(steps, keyring), self._loop.create_future(), due)
        self._waiting += len(request.steps)
        self._open.append(request)
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look_at_the_clock)
        self._submit(request)
        try:
            return await request.future
        finally:
            del request  # it holds the error, whose frames would hold it until the cyclic collector runs

    async def _candidates(self, space: Space, key: str) -> list[bytes]:
        keyring = self._keyring or await self._opened("delete")
        return keyring.candidates(space, key)

    def _end(self, request: Request) -> None:
        request.ended = True
        self._waiting -= len(request.steps)
        while self._open and self._open[0].ended:
            self._open.popleft()

    def _look_at_the_clock(self) -> None:
        """One timer serves all requests, since they end in about the order in which they came."""
        self._timer = None
        if self._open and self._open[0].due <= self._loop.time():
            self._fail(f"no answer within {self.timeout:g} s")
        elif self._open:
            self._timer = self._loop.call_at(self._open[0].due, self._look_at_the_clock)

    def _raise(self, operation: str, reason: str) -> NoReturn:
        self._on_error(operation)
        self._complain(reason)
        raise StoreError(f"{self.name}: {reason}")

    # -- opening ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open it now, rather than for the first that asks; raises StoreError if that fails."""
        if self._keyring is None:
            await self._opened("open")

    def silence(self) -> None:
        """Log nothing: whoever opens it says himself what is wrong."""
        self._logged = float("inf")

    async def _opened(self, operation: str) -> Keyring:
        """The first who ask wait for the back end to open, for `connect_timeout` at most."""
        if not self._trouble and not self._closed:
            if self._waiting >= MAX_WAITING:
                self._raise(operation, f"more than {MAX_WAITING} operations wait")
            if self._opening is None:
                self._opening = asyncio.create_task(self._try())
            self._waiting += 1
            try:
                await asyncio.wait({self._opening})
            finally:
                self._waiting -= 1
        if self._keyring is None:
            self._raise(operation, self._trouble or "closed")
        return self._keyring

    def _try_later(self) -> None:
        self._retry = self._loop.call_later(self._backoff, self._try_again)
        self._backoff = min(2 * self._backoff, BACKOFF_LAST)

    def _try_again(self) -> None:
        self._opening = asyncio.create_task(self._try())

    async def _try(self) -> None:
        try:
            async with asyncio.timeout(self.connect_timeout):
                secret = await self._connect()
        except TimeoutError:
            self._not_opened(f"no answer within {self.connect_timeout:g} s")
        except Exception as error:  # whatever a library raises: mail goes on without the store
            self._not_opened(reason_of(error))
        else:
            # Another one than before if somebody emptied the store.
            self._keyring = Keyring(secret, hash_personal=self._hash_personal)
            self._trouble = ""
            self._well_since = self._loop.time()
            if self._told:
                self._told = False
                log.info("%s: works again", self.name)

    def _not_opened(self, reason: str) -> None:
        if self._closed:
            return
        self._abandon()
        self._trouble = reason
        self._on_error("open")
        self._complain(reason)
        self._try_later()

    def _complain(self, reason: str) -> None:
        now = self._loop.time()
        if now - self._logged < LOG_EVERY:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more errors since the last such line)" if self._unlogged else ""
        log.error("%s: %s: mail goes on without what needs it%s", self.name, reason, more)
        self._logged, self._unlogged = now, 0
        self._told = bool(self._trouble)

    async def close(self) -> None:
        """Whoever still waits hears StoreError."""
        if self._closed:
            return
        self.silence()
        self._fail("closed")
        self._closed = True
        self._trouble = "closed"
        for handle in (self._retry, self._timer):
            if handle is not None:
                handle.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        try:
            async with asyncio.timeout(self.timeout):
                await self._release()
        except Exception as error:  # nothing depends on it any more
            log.debug("%s: closing: %s", self.name, error)


def reason_of(error: BaseException) -> str:
    """An error of the world in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _ignore(operation: str) -> None:
    """Nobody counts."""
