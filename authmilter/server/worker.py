"""A worker: one event loop, its resolver, and an engine on the shared sockets."""

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from authmilter.alarm import AlarmService
from authmilter.auth.published import KeyWatch, OwnKey, own_keys, worst_first
from authmilter.check import all_checks
from authmilter.checks.classifier import Classifier
from authmilter.classifier.trainer import keep_trained, start_helper
from authmilter.config import ini
from authmilter.config.schema import Config, Milter
from authmilter.dns_client import system_nameservers
from authmilter.errors import AuthMilterError, StoreError
from authmilter.files import Files, load_files
from authmilter.interfaces import Answer, Space
from authmilter.log import configure
from authmilter.metrics import Layout, Metrics, Shared
from authmilter.milter.engine import TOO_BUSY, Bounds
from authmilter.milter.native import NativeEngine
from authmilter.resolver import StubResolver
from authmilter.server.board import Board
from authmilter.server.dns_watch import DnsWatch
from authmilter.session import Rulebook, Session, build
from authmilter.spaces import keeps_state
from authmilter.store import open_store

if TYPE_CHECKING:
    from authmilter.milter.libmilter import LibmilterEngine

log = logging.getLogger("authmilter.worker")

FRAME = struct.Struct("!II")  # number of a reload and length of the configuration text that follows it
HEARTBEAT = 1.0
WARN_EVERY = 60.0
ALARM_EVERY = 900.0  # of each worker, as long as the store is down
PURGE_EVERY = 3600.0
PURGED = Space("purged")
MOST_KEYS_LISTED = 200  # of a configuration may be thousands; the worst are first
LAST_RECORDS = 5.0  # for what is still to be remembered, after the last connection


class Worker:
    """Serves until the supervisor closes the control socket, then drains."""

    def __init__(
        self,
        slot: int,
        config: Config,
        path: str | None,
        files: Files,
        state: Path | None,
        shared: Shared,
        layout: Layout,
        board: Board,
    ) -> None:
        self.slot = slot
        self.config = config
        self.path = path
        self.files = files
        self.state = state  # the file of sqlite: without a path
        self.metrics = Metrics(shared, slot, layout)
        self._warn_again = 0.0
        self._alarm_again = 0.0
        self._watches: list[asyncio.Task[None]] = []
        self._board = board
        self._keys = KeyWatch((), self._ask_anew, self._tell_of_keys, self._key_watch_failed)
        self.rules: Rulebook
        self.engine: NativeEngine | LibmilterEngine

    async def run(
        self, sockets: Sequence[socket.socket], control: socket.socket, helper: socket.socket | None = None
    ) -> None:
        """The whole life of the worker; one of all has a helper that trains the classifier."""
        config = self.config
        self.alarm = AlarmService(config.alarm, self.metrics.alarm)
        self.store = open_store(
            config.store,
            self.state,
            password=self.files.store_password,
            on_error=self._store_failed,
        )
        self.alarm.store = self.store
        self._build(self._resolver())
        self.engine = engine = self._engine()
        await engine.serve(sockets)
        self.metrics.set("accepting", 1.0)
        heart = asyncio.create_task(self._beat())
        purge = asyncio.create_task(self._look_after_store())
        trainer = asyncio.create_task(self._train(helper)) if helper is not None else None
        try:
            await self._obey(control)
        finally:
            self.metrics.set("accepting", 0.0)
            engine.stop_accepting()
            cut = await engine.drain(self.config.milter.drain_timeout)
            if cut:
                log.warning("drain: %d connections were still open after drain_timeout", cut)
            heart.cancel()
            purge.cancel()
            if trainer is not None:
                trainer.cancel()
            for watch in self._watches:
                watch.cancel()
            await self.rules.pipeline.finish_records(LAST_RECORDS)
            await self.store.close()
            await self.alarm.close()
            self.metrics.set("authmilter_connections_active", 0.0)

    def session(self) -> Session:
        """A session under the rules in force now."""
        return Session(self.rules)

    def _refused(self) -> None:
        """A connection was one too many."""
        self.metrics.connection_refused()
        now = time.monotonic()
        if now >= self._warn_again:
            self._warn_again = now + WARN_EVERY
            log.warning(
                "more connections than max_connections and max_waiting allow: they are refused; this is said once a "
                "minute, authmilter_connections_refused_total counts them"
            )

    def _store_failed(self, operation: str) -> None:
        """The store could not do something; it says why in the log."""
        self.metrics.store_error(operation)
        now = time.monotonic()
        if now >= self._alarm_again:
            self._alarm_again = now + ALARM_EVERY
            self.alarm(
                "store_down", "store", f"{self.config.store.url.partition(':')[0]} failed: mail goes on without it"
            )

    def _engine(self) -> "NativeEngine | LibmilterEngine":
        milter = self.config.milter
        common: dict[str, Any] = {
            "idle_timeout": milter.idle_timeout,
            "on_error": milter.on_error,
            "on_open": self.metrics.connection_opened,
            "on_close": self.metrics.connection_closed,
            "on_failure": lambda: self.metrics.check_error("session", "exception"),
            "on_overload": self._refused,
            "bounds": _bounds(milter),
        }
        if milter.engine == "libmilter":
            from authmilter.milter.libmilter import LibmilterEngine  # imports the C library only where it is wanted

            return LibmilterEngine(self.session, slot=self.slot, **common)
        return NativeEngine(self.session, backlog=milter.backlog, **common)

    def _resolver(self) -> StubResolver:
        self._system = system_nameservers()
        watch = DnsWatch(lambda: resolver, self.config.dns.test_name, self.metrics)
        resolver = StubResolver(
            self.config.dns,
            on_query=watch.heard,
            on_cache=self.metrics.dns_cache,
            on_failure=self.metrics.dns_failure,
        )
        self._dns_watch = watch
        return resolver

    def _build(self, dns: StubResolver) -> None:
        self.dns = dns
        self.rules = build(self.config, all_checks(), self.files, dns, self.metrics, store=self.store, alarm=self.alarm)
        for watch in self._watches:
            watch.cancel()
        self._watches = [asyncio.create_task(self.rules.pipeline.services.lists.watch())]
        if self.slot == 1:  # one looks for all
            keys = own_keys(self.files.signing_keys(), check=self.config.dns.check_keys)
            self._keys = KeyWatch(keys, self._ask_anew, self._tell_of_keys, self._key_watch_failed, self._keys.keys)
            self._watches.append(asyncio.create_task(self._keys.watch()))

    async def _ask_anew(self, name: str, rdtype: str) -> Answer:
        return await self.dns.ask_anew(name, rdtype)

    def _key_watch_failed(self) -> None:
        self.metrics.check_error("dkim", "exception")

    def _tell_of_keys(self, keys: Sequence[OwnKey]) -> None:
        """To metrics and to the exporter."""
        self.metrics.signing_keys([one.state for one in keys])
        listed = [
            {
                "section": one.section,
                "domain": one.domain,
                "selector": one.key.selector,
                "algorithm": one.key.algorithm,
                "bits": one.bits,
                "loaded": one.key.since,
                "state": one.state,
                "detail": one.detail,
                "looked": one.looked,
            }
            for one in worst_first(keys)[:MOST_KEYS_LISTED]
        ]
        self._board.write({"nameservers": self.dns.addresses, "keys": listed})

    async def _beat(self) -> None:
        """Tell the supervisor that the loop turns."""
        loop = asyncio.get_running_loop()
        while True:
            self.metrics.set("heartbeat", loop.time())
            await asyncio.sleep(HEARTBEAT)

    async def _look_after_store(self) -> None:
        """Open it before it is needed; then once an hour one of all workers, on whatever machine, drops what has expired."""
        if any(keeps_state(check) for check in all_checks() if check.enabled(self.config)):
            with contextlib.suppress(StoreError):
                await self.store.get(PURGED, "")
        while True:
            await asyncio.sleep(PURGE_EVERY * random.uniform(0.9, 1.1))  # noqa: S311  not all at once
            try:
                if await self.store.add(PURGED, "", b"", ttl=PURGE_EVERY) is None:
                    log.info("store: %d entries had expired", await self.store.purge())
            except StoreError as error:
                log.debug("store: not purged: %s", error)  # the store itself says what is wrong

    async def _train(self, helper: socket.socket) -> None:
        """Have the classifier trained whenever something new was learned."""
        await keep_trained(
            lambda: self.config.of(Classifier), helper, lambda: self.metrics.check_error("classifier", "exception")
        )

    async def _obey(self, control: socket.socket) -> None:
        """Reload at every configuration that arrives; return at end of file."""
        reader, writer = await asyncio.open_unix_connection(sock=control)
        try:
            while True:
                try:
                    generation, length = FRAME.unpack(await reader.readexactly(FRAME.size))
                    text = (await reader.readexactly(length)).decode()
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                await self._reload(text)
                self.metrics.set("generation", generation)
        finally:
            writer.close()

    async def _reload(self, text: str) -> None:
        """Open sessions keep their rules; the next ones get the new."""
        try:
            # Long lists take seconds to read, and a private key 60 ms: not on the loop.
            config = await asyncio.to_thread(ini.load, self.path, text)
            files = await asyncio.to_thread(load_files, config)
        except AuthMilterError as error:
            # The supervisor had the same text and could use it: a file that it names has changed since.
            log.error("reload failed in this worker, which keeps its configuration: %s", error)
            return
        old = self.config
        self.config, self.files = config, files
        self.engine.idle_timeout, self.engine.on_error = config.milter.idle_timeout, config.milter.on_error
        self.engine.set_bounds(_bounds(config.milter))
        configure(config.log.format, config.log.level)
        self.alarm.options = config.alarm
        if config.dns == old.dns and (config.dns.nameservers or self._system == system_nameservers()):
            self._build(self.dns)  # the cache stays
            return
        before = self.dns
        self._dns_watch.close()
        self._build(self._resolver())
        # Sessions that are open still ask the old one.
        asyncio.get_running_loop().call_later(2 * (config.milter.message_timeout + config.dns.timeout), before.close)


def _bounds(milter: Milter) -> Bounds:
    """How many connections there may be, and what is said to more.

    Half of the files that may be open are theirs; a quarter is for questions to the DNS.
    """
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    connections = min(milter.max_connections, room)
    code = 421 if milter.on_overload == "disconnect" else 451
    return Bounds(connections, min(milter.max_waiting, room - connections), TOO_BUSY._replace(code=code))


def main(
    slot: int,
    config: Config,
    path: str | None,
    files: Files,
    state: Path | None,
    shared: Shared,
    layout: Layout,
    board: Board,
    sockets: Sequence[socket.socket],
    control: socket.socket,
) -> None:
    """Entry after the fork; never returns."""
    status = 1
    try:
        # The supervisor alone hears signals; the terminal's ^C reaches every process of the group.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.setblocking(False)
        # What is there now stays.  A message leaves few cycles behind, but looking for them after every 700 new objects,
        # as is usual, would take a twentieth of all time.
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        worker = Worker(slot, config, path, files, state, shared, layout, board)
        helper = start_helper(control, *sockets) if slot == 1 else None
        uvloop.run(worker.run(sockets, control, helper))
        status = 0
    except BaseException:
        log.exception("worker failed")
    finally:
        logging.shutdown()
        os._exit(status)
