"""State on a Redis or Valkey server, which machines share.

An entry is a hash: ``v`` its value, ``c`` its count, ``h`` the half-life and ``l`` the life in milliseconds; that it
expires is left to the server.  Every step on it is a script of a few lines, which the server carries out as one.  Age
and fading follow from the time that the key has left, so that only the clock of the server counts.

Steps that come together go out together, in one pipeline.  Each script has one key, so a cluster is no different.
"""

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from authmilter.config.endpoint import StoreUrl
from authmilter.errors import StoreError
from authmilter.interfaces import Entry
from authmilter.store.entry import MAX_COUNT, MAX_LIFE
from authmilter.store.front import (
    CHUNK,
    OWN,
    SECRET,
    Front,
    Keyring,
    Request,
    Step,
    opening_steps,
    reason_of,
    secret_of,
)

CONNECTIONS = 4  # pipelines under way at once
SCAN_STEP = 500
REMEMBER = 30.0  # seconds between looks whether the secret is still there: somebody may have emptied the server

# Value, faded count, age and time left of what is at KEYS[1]; the third result is not there if nothing is.
# entry.seen() says the same: no age is below 0, whatever the clock of the server did.
_SEEN = """
local key = KEYS[1]
local row = redis.call('HMGET', key, 'v', 'c', 'h', 'l')
local value, count, half, life = row[1] or '', tonumber(row[2]) or 0, tonumber(row[3]) or 0, tonumber(row[4])
local left, age = 0, 0
if life then
  left = redis.call('PTTL', key)
  if left < 0 or left > life then redis.call('PEXPIRE', key, life); left = life end
  age = life - left
  if half > 0 then count = count * 0.5 ^ (age / half) end
end
local function entry() return {value, string.format('%.17g', count), age, left} end
"""
_WRITE = """
redis.call('HSET', key, 'v', ARGV[1], 'l', ARGV[2])
redis.call('HDEL', key, 'c', 'h')
redis.call('PEXPIRE', key, ARGV[2])
return false
"""
SCRIPTS: Final = {
    "get": _SEEN + "if life then return entry() end return false",
    "put": "local key = KEYS[1]" + _WRITE,
    "add": _SEEN + "if life then return entry() end" + _WRITE,
    # ARGV: amount, ttl, half-life; compare entry.counted()
    "incr": _SEEN
    + f"local most = {MAX_COUNT:.0f}"
    + """
local amount, ttl, fades = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not life then
  if amount <= 0 then return entry() end
  left, life = ttl, ttl
  count = amount
else
  count = math.min(math.max(count + amount, 0), most)
  if fades > 0 then left, life = ttl, ttl
  else life = math.min(life, ttl); left = math.min(left, life) end
end
age = life - left
redis.call('HSET', key, 'v', value, 'c', string.format('%.17g', count), 'h', ARGV[3], 'l', string.format('%.0f', life))
redis.call('PEXPIRE', key, string.format('%.0f', left))
return entry()
""",
}
_HASHES = {verb: hashlib.sha1(text.encode()).hexdigest() for verb, text in SCRIPTS.items()}  # noqa: S324  EVALSHA's


class RedisStore(Front):
    """`interfaces.ManagedStore` on a server; for the arguments see `Front` and `schema.Store`."""

    def __init__(
        self,
        url: StoreUrl,
        *,
        password: str = "",
        ca_file: str = "",
        prefix: str = "authmilter:",
        timeout: float = 1.0,
        connect_timeout: float = 3.0,
        hash_personal: bool = False,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(
            url.shown,
            timeout=timeout,
            connect_timeout=connect_timeout,
            hash_personal=hash_personal,
            on_error=on_error,
        )
        self._url = url
        self._password = password or url.password
        self._ca_file = ca_file
        self._prefix = prefix.encode()
        self._client: Any = None  # Redis or RedisCluster, which have no type in common
        self._queue: deque[Request] = deque()
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()  # clients that are being closed
        self._secret = b""
        self._remembered = 0.0

    # -- the connection -----------------------------------------------------------------------------------------------

    async def _connect(self) -> bytes:
        self._leave()
        self._client = client = self._made()
        steps = opening_steps(0.0)
        replies = await self._evaluated(client, steps)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        self._secret = secret_of(steps, [_entry(reply) for reply in replies])
        self._remembered = self._loop.time()
        return self._secret

    def _made(self) -> Any:
        url = self._url
        # Of several hosts one may be silent: there must be time to ask the others.
        share = self.connect_timeout / (len(url.hosts) + 1)
        common: dict[str, Any] = {
            "socket_timeout": None,  # `Front` has an eye on that, at less cost
            "socket_connect_timeout": share,
            "retry": Retry(NoBackoff(), 0),  # an increment that got no answer may have been carried out
            "protocol": 2,
        }
        if url.tls:
            common |= {"ssl": True, "ssl_ca_certs": self._ca_file or None}
        account: dict[str, Any] = {"username": url.user or None, "password": self._password or None}
        if url.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in url.hosts]
            common["socket_timeout"] = share
            return RedisCluster(startup_nodes=nodes, max_connections=2 * CONNECTIONS, **account, **common)
        account |= {"db": url.database, "max_connections": 2 * CONNECTIONS}
        if url.kind == "sentinel":
            sentinel = Sentinel(  # type: ignore[no-untyped-call]
                url.hosts, sentinel_kwargs={**common, "socket_timeout": share}, **common
            )
            return sentinel.master_for(url.service, **account)
        if url.kind == "unix":
            return Redis(unix_socket_path=url.path, **account, **common)
        [[host, port]] = url.hosts
        return Redis(host=host, port=port, **account, **common)

    def _leave(self) -> None:
        """Close the client, without waiting for a server that may be dead."""
        client, self._client = self._client, None
        if client is not None:
            task = asyncio.create_task(_closed(client, self.timeout))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _abandon(self) -> None:
        self._queue.clear()
        for task in self._tasks:
            task.cancel()

    async def _release(self) -> None:
        self._leave()
        if self._tasks or self._leaving:
            await asyncio.wait({*self._tasks, *self._leaving})

    # -- requests -----------------------------------------------------------------------------------------------------

    def _submit(self, request: Request) -> None:
        self._queue.append(request)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """What has come meanwhile goes out, as long as there is a connection."""
        self._flushing = False
        while self._queue and len(self._tasks) < CONNECTIONS:
            batch: list[Request] = []
            room = CHUNK
            while self._queue and room > 0:
                request = self._queue.popleft()
                if not request.ended:
                    batch.append(request)
                    room -= len(request.steps)
            task = asyncio.create_task(self._serve(batch))
            self._tasks.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._queue and not self._flushing:
            self._flush()

    async def _serve(self, batch: list[Request]) -> None:
        client = self._client
        if client is None:
            return  # closed meanwhile, and everybody was told
        steps = [step for request in batch for step in request.steps]
        now = self._loop.time()
        remember = now - self._remembered > REMEMBER
        if remember:
            self._remembered = now
            steps.append(("add", OWN, SECRET, self._secret, MAX_LIFE))
        try:
            results = await self._results(client, steps)
        except Exception as error:  # whatever the library raises: mail goes on without the store
            self._fail(reason_of(error))
            for request in batch:
                self._refuse(request, reason_of(error))
            return
        if remember:
            self._remember(results.pop())
        for request in batch:
            mine, results = results[: len(request.steps)], results[len(request.steps) :]
            errors = [result for result in mine if isinstance(result, Exception)]
            if errors:
                self._refuse(request, reason_of(errors[0]))
            else:
                self._answer(request, mine)

    def _remember(self, found: Entry | None) -> None:
        if isinstance(found, Entry) and found.value != self._secret:
            self._secret = found.value
            self._keyring = Keyring(self._secret, hash_personal=self._hash_personal)

    async def _results(self, client: Any, steps: list[Step]) -> list[Any]:
        """Results of steps; a ResponseError in place of one that failed for a reason of its own."""
        if steps[0][0] == "scan" or any(step[0] == "scan" for step in steps):
            return [
                await self._result_of_scan(client, step)
                if step[0] == "scan"
                else (await self._results(client, [step]))[0]
                for step in steps
            ]
        return [
            _result(step[0], reply) for step, reply in zip(steps, await self._evaluated(client, steps), strict=True)
        ]

    async def _result_of_scan(self, client: Any, step: Step) -> tuple[Any, list[tuple[bytes, Entry]]]:
        """A page of keys; `cursor` is the number of the node, and the server's own."""
        _, space, start, cursor = step
        node, at = cursor or (0, 0)
        nodes = client.get_primaries() if self._url.kind == "cluster" else [client]
        if node >= len(nodes):  # the cluster has become smaller meanwhile
            return None, []
        own = self._key(space, b"")
        pattern = b"".join(b"\\" + bytes([octet]) if octet in b"*?[]\\^-" else bytes([octet]) for octet in own + start)
        at, keys = await nodes[node].execute_command("SCAN", at, "MATCH", pattern + b"*", "COUNT", SCAN_STEP)
        keys = [bytes(key)[len(own) :] for key in keys]
        entries = await self._results(client, [("get", space, key) for key in keys]) if keys else []
        found = [(key, entry) for key, entry in zip(keys, entries, strict=True) if isinstance(entry, Entry)]
        following = (node, int(at)) if int(at) else (node + 1, 0) if node + 1 < len(nodes) else None
        return following, found

    async def _evaluated(self, client: Any, steps: Sequence[Step]) -> list[Any]:
        """Replies of the server to steps, an exception in place of one that it refused."""
        replies = await _sent(client, [self._command(step, known=True) for step in steps])
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:  # the server has started anew, or is a node that has not seen the script
            commands = [self._command(steps[number], known=False) for number in unknown]
            for number, reply in zip(unknown, await _sent(client, commands), strict=True):
                replies[number] = reply
        return replies

    def _command(self, step: Step, *, known: bool) -> tuple[Any, ...]:
        verb = step[0]
        if verb == "purge":
            return ("ECHO", b"")  # keys expire by themselves
        key = self._key(step[1], step[2])
        if verb == "delete":
            return "UNLINK", key
        arguments: tuple[Any, ...] = ()
        if verb in ("put", "add"):
            arguments = step[3], _milliseconds(step[4])
        elif verb == "incr":
            arguments = repr(float(step[3])), _milliseconds(step[4]), _milliseconds(step[5])
        if known:
            return "EVALSHA", _HASHES[verb], 1, key, *arguments
        return "EVAL", SCRIPTS[verb], 1, key, *arguments

    def _key(self, space: str, key: bytes) -> bytes:
        return b"%s%s:%s" % (self._prefix, space.encode(), key)


async def _sent(client: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]
        except ResponseError as error:
            return [error]
    # Left to itself, without `async with`: a connection with replies on the way is not given back, but closed.
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


def _result(verb: str, reply: Any) -> Any:
    if isinstance(reply, Exception):
        # Of somebody else's key only its users need to hear; all else concerns the server.
        if isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
            return StoreError("the key is in use for something else")
        raise reply
    if verb == "delete":
        return bool(reply)
    if verb == "purge":
        return None, 0
    return _entry(reply)


def _entry(reply: Any) -> Entry | None:
    if reply is None:
        return None
    value, count, age, left = reply
    return Entry(bytes(value), float(count), age / 1000.0, left / 1000.0)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000.0)) if seconds > 0.0 else 0


async def _closed(client: Any, limit: float) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(limit):
            await client.aclose()
