"""Runs methods and checks, and keeps their failures apart: what breaks costs one result or finding, never a message."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from authmilter import eager
from authmilter.addresses import author
from authmilter.auth import arc, dkim, dmarc, iprev, spf
from authmilter.check import Check, Record, Services, Tools, When, record_of
from authmilter.config.schema import Config
from authmilter.errors import TempError
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.interfaces import Observer, Resolver
from authmilter.model import Direction, Stage, Transaction
from authmilter.verdict import Ruling

log = logging.getLogger("authmilter.pipeline")

R = TypeVar("R")

# A check that yields without end is cut here.
MAX_FINDINGS = 100
MAX_SPF_OUTCOMES = 8192  # kept by each worker, less than 1 KB each
MAX_BODIES = 256 * 1024 * 1024  # octets of all bodies that a worker keeps at once, besides these of each:
ALWAYS_KEPT = 128 * 1024  # so that nobody hides mail from the checks by filling the room
MAX_RECORDS = 1000  # under way at once; a store that can't keep up with the mail loses what is beyond
MAX_RECORDED = 64 * 1024 * 1024  # octets of the bodies that those under way hold

_new = tuple.__new__  # of a NamedTuple, at half the price

Work = asyncio.Task[list[Finding]] | eager.Done[list[Finding]]


class Pipeline:
    """The methods and checks of one configuration."""

    def __init__(
        self,
        config: Config,
        checks: tuple[Check, ...],
        observer: Observer,
        clock: Callable[[], float],
        services: Services,
    ) -> None:
        self.config = config
        self.observer = observer
        self.clock = clock
        self.services = services
        self._spf_cache = spf.SpfCache(min(config.dns.cache_size, MAX_SPF_OUTCOMES))
        # With its options, which are the same for every message.
        self._checks = {
            direction: {
                stage: tuple((c, c.settings(config)) for c in checks if c.stage is stage and c.direction is direction)
                for stage in Stage
            }
            for direction in Direction
        }
        self._records = {when: _records(checks, when) for when in When}
        self._recording: set[asyncio.Task[None]] = set()
        self._recorded = 0  # octets of bodies that records under way hold
        self._body_wanted = {d: any(c.body and c.direction is d for c in checks) for d in Direction}
        self._body_room = MAX_BODIES  # octets that bodies may still take, of all messages under way

    def has_checks(self, stage: Stage, direction: Direction) -> bool:
        """Is there anything to run at that stage?"""
        return bool(self._checks[direction][stage])

    def keep_body(self, direction: Direction) -> "KeptBody | None":
        """Where the body of a message goes that a check will read; None if none will."""
        return KeptBody(self, self.config.milter.scan_size) if self._body_wanted[direction] else None

    def take_room(self, octets: int) -> int:
        """How many of so many octets may be kept; a negative number gives them back."""
        taken = min(octets, self._body_room)
        self._body_room -= taken
        return taken

    # -- methods: coroutines that are to be started at once -----------------------------------------------------------

    def iprev(self, tx: Transaction, dns: Resolver) -> Coroutine[Any, Any, AuthResult]:
        """Reverse DNS of the client."""
        return self._method("iprev", iprev.check(tx.connection, dns, self.config.iprev))

    def spf_helo(self, tx: Transaction, dns: Resolver) -> Coroutine[Any, Any, AuthResult]:
        """SPF of the HELO identity."""
        return self._method(
            "spf_helo",
            spf.check_helo(tx.connection, tx.helo, tx.helo_domain, dns, self.config.spf, self._spf_cache),
        )

    def spf(self, tx: Transaction, dns: Resolver) -> Coroutine[Any, Any, AuthResult]:
        """SPF of the MAIL FROM identity."""
        return self._method(
            "spf",
            spf.check_mail_from(
                tx.connection, tx.helo, tx.helo_domain, tx.envelope, dns, self.config.spf, self._spf_cache
            ),
        )

    def dkim(
        self, tx: Transaction, dns: Resolver, signatures: tuple[dkim.Signature, ...]
    ) -> Coroutine[Any, Any, list[AuthResult]]:
        """Every signature of the message."""
        return self._guard(
            "dkim",
            dkim.verify(tx.message, signatures, dns, self.clock(), self.config.dkim, self.unexpected("dkim")),
            lambda result: [result],
        )

    def arc(self, tx: Transaction, dns: Resolver, chain: arc.Chain) -> Coroutine[Any, Any, arc.ArcResult]:
        """The chain of sealers."""
        return self._guard(
            "arc",
            arc.verify(
                chain,
                tx.message,
                dns,
                self.clock(),
                self.config.dkim,
                str(tx.connection.client_ip or ""),
                self.unexpected("arc"),
            ),
            arc.ArcResult,
        )

    async def dmarc(self, tx: Transaction, dns: Resolver) -> AuthResult:
        """DMARC of the author domain, on the results so far."""

        async def evaluate() -> AuthResult:
            return (await dmarc.evaluate(author(tx.message), tx.results, dns)).result

        return await self._method("dmarc", evaluate())

    def unexpected(self, name: str) -> Callable[[str], None]:
        """What to call with a sentence while handling an exception that nobody expected: it is logged and counted."""

        def note(what: str) -> None:
            log.error("%s; the message goes on", what, exc_info=True)  # noqa: LOG014  whoever calls handles one
            self.observer.check_error(name, "exception")

        return note

    def _method(self, name: str, work: Coroutine[Any, Any, AuthResult]) -> Coroutine[Any, Any, AuthResult]:
        return self._guard(name, work, lambda result: result)

    async def _guard(self, name: str, work: Coroutine[Any, Any, R], failed: Callable[[AuthResult], R]) -> R:
        """Time the work; whatever it raises becomes a temperror."""
        started = time.perf_counter()
        try:
            return await work
        except TempError as error:
            self.observer.check_error(name, "temperror")
            return failed(AuthResult(name, Result.TEMPERROR, reason=str(error)))
        except Exception:
            self.unexpected(name)(f"{name} failed")
            return failed(AuthResult(name, Result.TEMPERROR, reason="internal error"))
        finally:
            self.observer.check_done(name, time.perf_counter() - started)

    # -- checks -------------------------------------------------------------------------------------------------------

    def start(
        self, stage: Stage, direction: Direction, tx: Transaction, dns: Resolver
    ) -> tuple[list[Finding], list[tuple[Check, Work]]]:
        """Run the checks of a stage: findings of those that only compute, and the work of those that may wait."""
        checks = self._checks[direction][stage]
        if not checks:
            return [], []
        now = self.clock()
        found: list[Finding] = []
        waiting: list[tuple[Check, Work]] = []
        done = self.observer.check_done
        ended = time.perf_counter()
        for check, settings in checks:
            tools = _new(Tools, (dns, now, self.config, settings, *self.services))
            try:
                if not check.waits:
                    found.extend(islice(check.run(tx, tools), MAX_FINDINGS))  # type: ignore[arg-type]
                elif check.unless is None or not check.unless(tx, tools):
                    waiting.append((check, eager.start(self._wait(check, tx, tools))))
                    ended = time.perf_counter()
                    continue
            except Exception as error:
                found.append(self._broken(check, error))
            began, ended = ended, time.perf_counter()
            done(check.name, ended - began)
        return found, waiting

    async def _wait(self, check: Check, tx: Transaction, tools: Tools) -> list[Finding]:
        started = time.perf_counter()
        found: list[Finding] = []
        try:
            async for finding in check.run(tx, tools):  # type: ignore[union-attr]
                found.append(finding)
                if len(found) >= MAX_FINDINGS:
                    break
        except Exception as error:
            found.append(self._broken(check, error))
        self.observer.check_done(check.name, time.perf_counter() - started)
        return found

    def _broken(self, check: Check, error: Exception) -> Finding:
        if isinstance(error, TempError):
            self.observer.check_error(check.name, "temperror")
            return Finding(f"{check.name}_temperror", str(error))
        log.error("check %s failed; the message goes on", check.name, exc_info=error)
        self.observer.check_error(check.name, "exception")
        return Finding("check_error", check.name)

    # -- records ------------------------------------------------------------------------------------------------------

    def remember(self, when: When, tx: Transaction, ruling: Ruling | None, dns: Resolver) -> None:
        """Make the records of a transaction or session in the background."""
        for check, make in self._records[when]:
            if len(self._recording) >= MAX_RECORDS or self._recorded >= MAX_RECORDED:
                self.observer.check_error(check.name, "temperror")
                continue
            tools = Tools(dns, self.clock(), self.config, check.settings(self.config), *self.services)
            work = eager.start(self._record(check, make, tx, ruling, tools))
            if isinstance(work, asyncio.Task):
                self._recording.add(work)
                self._recorded += len(tx.message.body)
                work.add_done_callback(partial(self._is_recorded, len(tx.message.body)))

    def _is_recorded(self, octets: int, work: asyncio.Task[None]) -> None:
        self._recording.discard(work)
        self._recorded -= octets

    async def _record(self, check: Check, make: Record, tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
        try:
            await make(tx, ruling, tools)
        except TempError:
            self.observer.check_error(check.name, "temperror")
        except Exception:
            log.exception("check %s failed to make its record", check.name)
            self.observer.check_error(check.name, "exception")

    async def finish_records(self, timeout: float) -> None:  # noqa: ASYNC109  what is late is left
        """Wait for the records under way."""
        if self._recording:
            await asyncio.wait(tuple(self._recording), timeout=timeout)


class KeptBody:
    """A body as far as it may be kept."""

    def __init__(self, pipeline: Pipeline, most: int) -> None:
        self._pipeline = pipeline
        self._left = most
        self._free = ALWAYS_KEPT
        self._chunks: list[bytes] = []
        self._taken = 0
        self.cut = False
        self.out_of_room = False  # was it cut for want of room, and not for its size?

    def add(self, chunk: bytes) -> None:
        """The next octets."""
        if self.cut:
            return
        wanted = min(len(chunk), self._left)
        free = min(wanted, self._free)
        taken = self._pipeline.take_room(wanted - free)
        kept = free + taken
        self.cut = kept < len(chunk)
        self.out_of_room = kept < wanted
        self._free -= free
        self._left -= kept
        self._taken += taken
        self._chunks.append(chunk[:kept] if self.cut else chunk)

    def whole(self) -> bytes:
        """What was kept."""
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]  # not twice in memory while checks read it
        return self._chunks[0]

    def drop(self) -> None:
        """Nobody needs it any more."""
        self._pipeline.take_room(-self._taken)
        self._taken = self._left = self._free = 0
        self._chunks = []


def _records(checks: tuple[Check, ...], when: When) -> tuple[tuple[Check, Record], ...]:
    found = ((check, record_of(check, when)) for check in checks)
    return tuple((check, make) for check, make in found if make is not None)
