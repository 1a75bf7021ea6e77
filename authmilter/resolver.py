"""The DNS resolver of a worker: a cache, and one question on the wire however many wait for it."""

import asyncio
import resource
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from authmilter.config.schema import Dns
from authmilter.dns_client import (
    NOT_REACHED,
    RESPONSE_CODES,
    TYPES,
    Channel,
    Reply,
    Server,
    nameserver,
    system_nameservers,
    usable_name,
)
from authmilter.errors import ConfigError, DnsBusyError, DnsTempError
from authmilter.interfaces import Answer, Resolver

MAX_UNDER_WAY = 1000  # questions of ours at all nameservers together; each holds a socket. More of them wait,
MAX_WAITING = 5000  # up to that many, and a quarter of them of one client
FILES = 4  # the sockets are one of so many parts of the files that may be open
CACHED_OCTETS = 1024  # by answer, on average: bounds the cache where answers are 64 KB
TICK = 0.05  # seconds: how finely time-outs are seen
STICKY = 60.0  # seconds for which another nameserver than the first is preferred

# What became of a question that was not answered: nobody said anything in time, or nobody was there to be asked; the
# best that anybody said was SERVFAIL, REFUSED, or what can't be read; or we had too many questions to put it.
FAILURES: Final = ("timeout", "unreachable", "servfail", "refused", "broken", "busy")

NOTHING: Final = Answer((), exists=False)

Key = tuple[str, str]


class _Question:
    """One question under way."""

    __slots__ = ("asked", "client", "key", "open", "order", "put", "said", "started", "waiting")

    def __init__(
        self, key: Key, client: str, order: list["_Nameserver"], waiting: list[asyncio.Future[Answer]], now: float
    ) -> None:
        self.key = key
        self.client = client  # whose share it uses
        self.order = order  # nameservers in the order in which they are asked
        self.asked = 0  # how many of them were
        self.open = 0  # how many of those have not replied
        self.started = self.put = now  # asked first, and last
        self.said = ""  # the failure that a nameserver spoke of
        self.waiting = waiting


class _Nameserver:
    __slots__ = ("channel", "heard")

    def __init__(self, server: Server, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = Channel(server, timeout, loop)
        self.heard = 0.0  # when it last spoke, whatever it said


class StubResolver:
    """`interfaces.Resolver` that asks nameservers for recursion.  Made, used and closed on the thread of a running loop.

    A question that fails at the first nameserver, or gets no answer there within a share of `timeout`, is put to the
    next as well; the first answer counts.  A nameserver loses its place only if it said nothing at all while another
    answered: names whose own servers are slow or broken do not count against it.

    `on_query` is told record type, outcome (``ok nxdomain nodata temperror``) and seconds of every question that went
    out, `on_cache` ``hit`` or ``miss``, and `on_failure`, before `on_query`, one of `FAILURES` of every temperror.  They must
    be cheap and not raise.  `clock` is the time of the cache, in seconds.  Raises ConfigError for a nameserver that is none,
    StartError if no file can be opened.

    `addresses` are the nameservers as text, ``ADDRESS`` or ``ADDRESS:PORT``.
    """

    def __init__(
        self,
        options: Dns,
        *,
        on_query: Callable[[str, str, float], None] | None = None,
        on_cache: Callable[[str], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._on_query = on_query or _ignore
        self._on_cache = on_cache or _ignore
        self._on_failure = on_failure or _ignore
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        # What is kept until when on the clock, and its octets; least recently used first.
        self._cache: OrderedDict[Key, tuple[float, Reply, int]] = OrderedDict()
        self._cached_octets = 0
        self._questions: dict[Key, _Question] = {}
        self._under_way = 0
        self._max_under_way = max(1, min(MAX_UNDER_WAY, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // FILES))
        # Questions that no nameserver was asked, by client: clients take turns, in the order of the mapping.
        self._backlog: OrderedDict[str, deque[_Question]] = OrderedDict()
        self._waiting = 0  # how many there are
        self._by_client: dict[str, int] = {}  # under way
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        try:
            servers = [nameserver(text) for text in options.nameservers] or system_nameservers()
        except ValueError as error:
            raise ConfigError([f"[dns] nameservers: {error}"]) from error
        self.addresses = tuple(map(str, servers))
        self._nameservers = [_Nameserver(server, options.timeout, self._loop) for server in servers]
        self._patience = options.timeout / (len(self._nameservers) + 1)  # before the next nameserver is asked too
        self._first = 0  # index of the nameserver that is asked first,
        self._first_until = 0.0  # and until when, unless it is the first of the list
        self._tick_seconds = min(TICK, options.timeout / 5)

    def query(self, name: str, rdtype: str) -> Coroutine[Any, Any, Answer]:
        """See `interfaces.Resolver`; `rdtype` is one of ``A AAAA MX PTR TXT``."""
        return self.query_for("", name, rdtype)

    async def query_for(self, client: str, name: str, rdtype: str) -> Answer:
        """Ask on the account of a client."""
        key = _key(name, rdtype)
        reply = self._cached(key)
        if reply is not None:
            self._on_cache("hit")
            if isinstance(reply, str):
                raise DnsTempError(reply)
            return reply
        if not usable_name(key[0]):
            return NOTHING
        self._on_cache("miss")
        return await self._ask(key, client)

    async def ask_anew(self, name: str, rdtype: str) -> Answer:
        """As `query`, but what the cache has does not count: what is asked is what is to be had now."""
        key = _key(name, rdtype)
        return await self._ask(key, "") if usable_name(key[0]) else NOTHING

    async def _ask(self, key: Key, client: str) -> Answer:
        """Put the question, or join those who wait for its answer."""
        waiting: asyncio.Future[Answer] = self._loop.create_future()
        question = self._questions.get(key)
        if question is None:
            self._start(key, client, [waiting])
        else:
            question.waiting.append(waiting)
            if not question.asked and self._under_way < self._max_under_way and self._has_room(client):
                question.client = client  # who has room need not wait for the other's turn
                self._put(question, self._loop.time())
        try:
            return await waiting  # cancelling it leaves the question, and the others who wait, alone
        finally:
            del waiting, question  # they hold the error, whose frames would hold them until the cyclic collector runs

    def known(self, name: str, rdtype: str) -> Answer | None:
        """See `interfaces.Resolver`; None too if the question failed lately."""
        reply = self._cached(_key(name, rdtype))
        if reply is None or isinstance(reply, str):
            return None
        self._on_cache("hit")
        return reply

    def prefetch(self, name: str, rdtype: str) -> None:
        """See `interfaces.Resolver`."""
        self.prefetch_for("", name, rdtype)

    def prefetch_for(self, client: str, name: str, rdtype: str) -> None:
        """Start asking on the account of a client."""
        key = _key(name, rdtype)
        if key not in self._questions and self._cached(key) is None and usable_name(key[0]):
            try:
                self._start(key, client, [])
            except DnsTempError:
                pass  # whoever needs the answer will be told

    def for_client(self, client: str) -> Resolver:
        """See `interfaces.Dns`."""
        return _ClientResolver(self, client) if client else self

    def close(self) -> None:
        """Stop; questions under way end in DnsTempError."""
        self._closed = True
        for question in list(self._questions.values()):
            self._fail(question, "resolver closed", busy=True)
        for server in self._nameservers:
            server.channel.close()
        self._nameservers = []
        if self._timer is not None:
            self._timer.cancel()
        self._cache.clear()
        self._backlog.clear()

    # Questions

    def _start(self, key: Key, client: str, waiting: list[asyncio.Future[Answer]]) -> None:
        """Put a question to the nameserver in favour, or let it wait; DnsTempError if too many do."""
        if key[1] not in TYPES:
            raise ValueError(f"record type {key[1]}")
        if self._closed:
            raise DnsTempError(f"{key[0]} {key[1]}: resolver closed")
        # What is nobody's, such as questions to DNS lists, has the last fifth for itself.
        most, most_of_client = (MAX_WAITING * 4 // 5, MAX_WAITING // 4) if client else (MAX_WAITING, MAX_WAITING)
        if self._waiting >= most or len(self._backlog.get(client, ())) >= most_of_client:
            raise DnsBusyError(f"{key[0]} {key[1]}: too many questions under way")
        now = self._loop.time()
        if self._first and now > self._first_until:
            self._first = 0
        servers = self._nameservers
        question = _Question(key, client, servers[self._first :] + servers[: self._first], waiting, now)
        self._questions[key] = question
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_seconds, self._tick)
        self._put_or_queue(question)

    def _put_or_queue(self, question: _Question) -> None:
        if self._under_way < self._max_under_way and self._has_room(question.client):
            self._put(question, self._loop.time())
        else:
            self._backlog.setdefault(question.client, deque()).append(question)
            self._waiting += 1

    def _has_room(self, client: str) -> bool:
        return not client or self._by_client.get(client, 0) < self._options.client_lookups

    def _put_waiting(self) -> None:
        """Put questions that wait, as many as may be under way, one of each client in turn."""
        tried = 0  # clients in a row that have no room: there can't be many, since each has its share under way
        while self._backlog and self._under_way < self._max_under_way and tried < len(self._backlog):
            client, queue = next(iter(self._backlog.items()))
            self._backlog.move_to_end(client)
            if not self._has_room(client):
                tried += 1
                continue
            tried = 0
            question = queue.popleft()
            self._waiting -= 1
            if not queue:
                del self._backlog[client]
            if not question.asked and self._questions.get(question.key) is question:  # not timed out
                self._put(question, self._loop.time())

    def _put(self, question: _Question, now: float) -> None:
        """Ask the next nameserver."""
        server = question.order[question.asked]
        question.asked += 1
        question.open += 1
        question.put = now
        self._under_way += 1
        client = question.client
        if client:
            self._by_client[client] = self._by_client.get(client, 0) + 1
        server.channel.ask(*question.key, partial(self._replied, question, server, client))

    def _replied(self, question: _Question, server: _Nameserver, client: str, reply: Reply) -> None:
        self._under_way -= 1
        if client:
            left = self._by_client[client] - 1
            if left:
                self._by_client[client] = left
            else:
                del self._by_client[client]
        question.open -= 1
        if self._backlog:
            self._loop.call_soon(self._put_waiting)  # not at once: this may be called from within `_put`
        now = self._loop.time()
        failure = reply if isinstance(reply, str) else ""
        if failure in RESPONSE_CODES or not failure:
            server.heard = now
            question.said = question.said or failure
        if self._questions.get(question.key) is not question:  # too late, or another nameserver was faster
            if not isinstance(reply, str) and not isinstance(self._cached(question.key), Answer):
                reply = self._capped(reply)
                self._keep(question.key, reply, reply.ttl)  # still good for whoever asks next
            return
        if not isinstance(reply, str):
            if server is not question.order[0] and question.order[0].heard < question.started:
                self._first = self._nameservers.index(server)
                self._first_until = now + STICKY
            self._succeed(question, self._capped(reply))
        elif question.asked < len(question.order):
            self._put(question, now)
        elif not question.open:
            self._fail(question, reply)

    def _tick(self) -> None:
        """See to questions that wait for another nameserver, or for their end."""
        now = self._loop.time()
        for question in list(self._questions.values()):
            if now - question.started >= self._options.timeout:
                # Who was asked for the first time just now had no time to answer.
                late = question.asked == 1 and now - question.put < self._options.timeout / 2
                self._fail(question, "time-out", busy=late or not question.asked)
            elif 0 < question.asked < len(question.order) and now - question.put >= self._patience:
                self._put(question, now)
        busy = (self._under_way or self._questions) and not self._closed
        self._timer = self._loop.call_later(self._tick_seconds, self._tick) if busy else None

    def _succeed(self, question: _Question, answer: Answer) -> None:
        outcome = "ok" if answer.records else "nodata" if answer.exists else "nxdomain"
        self._keep(question.key, answer, answer.ttl)
        self._end(question, outcome)
        for waiting in question.waiting:
            if not waiting.done():
                waiting.set_result(answer)

    def _fail(self, question: _Question, failure: str, *, busy: bool = False) -> None:
        name, rdtype = question.key
        self._on_failure("busy" if busy else _kind(question.said or failure))
        failure = f"{name} {rdtype}: {failure}"
        error = DnsBusyError if busy else DnsTempError
        if not busy:
            self._keep(question.key, failure, self._options.servfail_ttl)  # RFC 9520 section 3.2
        self._end(question, "temperror")
        for waiting in question.waiting:
            if not waiting.done():
                waiting.set_exception(error(failure))

    def _end(self, question: _Question, outcome: str) -> None:
        del self._questions[question.key]
        self._on_query(question.key[1], outcome, self._loop.time() - question.started)

    # Cache

    def _capped(self, answer: Answer) -> Answer:
        """The answer with the TTL that we give it: none where nothing may be kept."""
        if not self._options.cache_size:
            return answer._replace(ttl=0.0)
        limit = self._options.max_ttl
        if not answer.records:
            limit = min(limit, self._options.negative_ttl)
        return answer if answer.ttl <= limit else answer._replace(ttl=limit)

    def _cached(self, key: Key) -> Reply | None:
        """What is kept: an answer with the TTL that is left, or why there was none lately."""
        kept = self._cache.get(key)
        if kept is None:
            return None
        expires, reply, octets = kept
        left = expires - self._clock()
        if left <= 0:
            del self._cache[key]
            self._cached_octets -= octets
            return None
        self._cache.move_to_end(key)
        if not isinstance(reply, str) and reply.ttl - left >= 1.0:  # TTLs are whole seconds: one object for each
            reply = Answer(reply.records, reply.exists, left)
            self._cache[key] = expires, reply, octets
        return reply

    def _keep(self, key: Key, reply: Reply, ttl: float) -> None:
        if not self._options.cache_size or ttl <= 0:
            return
        cache = self._cache
        if key in cache:
            self._cached_octets -= cache.pop(key)[2]
        octets = 0 if isinstance(reply, str) else sum(map(len, reply.records))
        cache[key] = self._clock() + ttl, reply, octets
        self._cached_octets += octets
        size = self._options.cache_size
        while len(cache) > size or self._cached_octets > size * CACHED_OCTETS:
            self._cached_octets -= cache.popitem(last=False)[1][2]


class _ClientResolver:
    """`interfaces.Resolver` on the account of one client."""

    __slots__ = ("_client", "_dns", "known")

    def __init__(self, dns: StubResolver, client: str) -> None:
        self._dns = dns
        self._client = client
        self.known = dns.known

    def query(self, name: str, rdtype: str) -> Coroutine[Any, Any, Answer]:
        return self._dns.query_for(self._client, name, rdtype)

    def prefetch(self, name: str, rdtype: str) -> None:
        self._dns.prefetch_for(self._client, name, rdtype)


def _key(name: str, rdtype: str) -> Key:
    """The name as it is compared: ASCII in lower case, without final dot."""
    if not name.isascii():  # some letters beyond ASCII have a lower case in ASCII
        return "", rdtype
    return name.removesuffix(".").lower(), rdtype


def _kind(failure: str) -> str:
    """One of `FAILURES`, for what a `Channel` says."""
    if failure == "time-out":
        return "timeout"
    if failure.startswith(NOT_REACHED):
        return "unreachable"
    return {"SERVFAIL": "servfail", "REFUSED": "refused"}.get(failure, "broken")


def _ignore(*_: object) -> None:
    """Nobody wants to know."""
