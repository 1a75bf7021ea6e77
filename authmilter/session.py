"""One SMTP session as the milter sees it: collects facts, starts what they allow, and answers where policy may act.

Methods start as soon as their facts are there (iprev at CONNECT, SPF at HELO and MAIL, keys at end of headers) and run
while the MTA sends on; they are waited for where a verdict is needed, nearly always at end of message.

`tx` is rebound to a new snapshot at every stage.  A refused recipient leaves no trace; RSET goes back to the snapshot
of HELO.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from authmilter import eager
from authmilter.addresses import author, is_from, parse_path, to_ascii_domain
from authmilter.auth import arc, dkim, dmarc, results_header, sendmail_form
from authmilter.auth.signing import Choice, SigningError
from authmilter.check import METHODS, Check, Services, When
from authmilter.clients import NOBODY, Client, reader
from authmilter.config.schema import Config, Network
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.files import Files
from authmilter.forwarding import OVERRIDE, with_override
from authmilter.interfaces import Alarm, Dns, Observer, Resolver, Store
from authmilter.lists import Lists
from authmilter.log import message_line
from authmilter.model import (
    BodyHashKey,
    Connection,
    Direction,
    HeaderField,
    Mailbox,
    Message,
    Stage,
    Transaction,
)
from authmilter.networks import names_contain
from authmilter.pipeline import KeptBody, Pipeline, Work
from authmilter.policy import Policy
from authmilter.store.memory import MemoryStore
from authmilter.verdict import CONTINUE, Action, HeaderEdit, Reply, Ruling, Verdict

log = logging.getLogger("authmilter.session")

# Limits of what is examined (the contract's "Size"); what is beyond is passed on and reported as `oversized`.
MAX_HEADER_SECTION = 2 * 1024 * 1024
MAX_FIELD = 256 * 1024
MAX_FIELDS = 20_000
MAX_PREFETCHED_KEYS = 20  # of a chain: it has few sealers, unless it is made to cost
MAX_HELO = 1024  # octets; RFC 5321 section 4.5.3.1.2 has 255 for a domain
MAX_RECIPIENTS = 10_000  # more are accepted, but no longer listed
MAX_CHECKED_RECIPIENTS = 1000  # at the end of the message; at RCPT each one is
MAX_FINDINGS = 600  # of a transaction
MAX_RECIPIENT_FINDINGS = 500  # of them; every recipient may bring some, and the message itself must still have its say

TIME_FOR_RCPT = 5.0  # seconds of command_timeout, or a third of it, that are not spent on what began before

LATE = "not done in time"
# Stages whose checks run at the end where policy can't act on them: there all results are in, and nobody waited for them.
_PUT_OFF = (Stage.RCPT, Stage.DATA)
_REFUSING = (Action.REJECT, Action.TEMPFAIL)


@dataclass(frozen=True)
class Rulebook:
    """All that follows from one configuration; a session keeps the one that it began with."""

    config: Config
    policy: Policy
    pipeline: Pipeline
    files: Files
    dns: Dns
    observer: Observer
    clock: Callable[[], float] = time.time
    busy: frozenset[Stage] = frozenset(Stage)  # stages at which there is a check to run, or policy may act
    answering: frozenset[Stage] = frozenset(Stage)  # stages at which policy may act
    client: Callable[[bytes], Client] = field(default_factory=lambda: reader(Network()))


def build(
    config: Config,
    checks: tuple[Check, ...],
    files: Files,
    dns: Dns,
    observer: Observer,
    clock: Callable[[], float] = time.time,
    *,
    store: Store | None = None,
    alarm: Alarm | None = None,
) -> Rulebook:
    """Put the rulebook of a configuration together; without a store of the caller's, state is in memory."""
    checks = tuple(check for check in checks if check.enabled(config))
    alarm = _no_alarm if alarm is None else alarm
    lists = Lists(config, files.list_keys, dns, observer, alarm)
    services = Services(MemoryStore() if store is None else store, lists, alarm)
    pipeline = Pipeline(config, checks, observer, clock, services)
    policy = Policy(config, checks)
    answering = frozenset(s for s in Stage if s is Stage.EOM or any(policy.acts_at(s, d) for d in Direction))
    busy = frozenset(
        s for s in Stage if s in answering or (s not in _PUT_OFF and any(pipeline.has_checks(s, d) for d in Direction))
    )
    client = reader(config.networks)
    return Rulebook(config, policy, pipeline, files, dns, observer, clock, busy, answering, client)


def _no_alarm(event: str, subject: str, text: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Outcome:
    """What became of a transaction, for the log and for `check-message`."""

    ruling: Ruling
    stage: Stage
    tx: Transaction
    reference: str
    authentication_results: str
    signed: str
    refused: tuple[tuple[str, Reply], ...] = ()  # recipients, with what was said to them


class _Waiting(NamedTuple):
    """The work of a check that began at `stage`, and for whose symbols policy may act from `judged` on."""

    stage: Stage
    judged: Stage
    work: Work
    check: str


class Session:
    """One SMTP session; the engines call a method per event.  Not for several threads."""

    def __init__(self, rulebook: Rulebook, on_outcome: Callable[[Outcome], None] | None = None) -> None:
        self.rules = rulebook
        self._config = rulebook.config
        self._on_outcome = on_outcome
        self._dns: Resolver = rulebook.dns  # once connected, the client's
        self.tx = Transaction()
        self._greeted = self.tx  # snapshot to which RSET returns
        self._early: Ruling | None = None  # a refusal that `enforce = no` did not carry out
        self._early_stage = Stage.CONNECT
        self._refused: Ruling | None = None  # the newest refusal of a recipient,
        self._of_refusal = self.tx  # and what it rests on
        self._methods: dict[str, asyncio.Task[AuthResult] | eager.Done[AuthResult]] = {}
        self._waiting: list[_Waiting] = []
        self._of_recipient: list[Finding] = []  # what was found of the newest recipient
        self._connected = False
        self._client = NOBODY
        self._trusted_relay = False
        self._internal = False
        self._local = False
        self._reset_message()

    def _reset_message(self) -> None:
        self._reference = ""
        self._started = time.perf_counter()
        self._fields: list[HeaderField] = []
        self._header_size = 0
        self._oversized = ""
        self._body_size = 0
        self._body_wanted = True
        self._body: KeptBody | None = None
        self._hashes: dkim.BodyHashes | None = None
        self._signatures: tuple[dkim.Signature, ...] = ()
        self._chain = arc.NO_CHAIN
        self._arc = arc.NO_ARC
        self._sealing = False
        self._choice: Choice | None = None
        self._in_message = False
        self._unrecorded: tuple[Transaction, Ruling] | None = None  # the first recipient that was refused for good

    @property
    def reference(self) -> str:
        """By what the log and a reply name the transaction; random, so that it need not be agreed with other workers."""
        if not self._reference:
            self._reference = f"am-{random.getrandbits(40):010x}"  # it protects nothing
        return self._reference

    # -- events -------------------------------------------------------------------------------------------------------

    def answering(self) -> frozenset[Stage]:
        """The stages that may be answered with anything but "continue": at others the MTA need not wait for us."""
        return self.rules.answering

    async def connect(
        self, host: bytes, family: str, port: int, address: bytes, macros: Mapping[bytes, bytes]
    ) -> Verdict:
        """A client connected; `family` is ``4 6 L U``."""
        client = self._client = self.rules.client(address) if family in ("4", "6") else NOBODY
        # Sendmail shows its own command line as an unknown family on localhost, and a unix socket is never remote; any
        # other client without an address is a stranger of whom the MTA knows nothing.
        local = family == "L" or (family == "U" and host.lower() == b"localhost")
        name = _text(host)
        if name.startswith("[") or name in ("unknown", _text(macros.get(b"{client_addr}", b""))):
            name = ""
        connection = Connection(
            client_ip=client.address,
            client_name=name,
            client_port=port,
            mta_name=_text(macros.get(b"j", b"")),
            daemon_name=_text(macros.get(b"{daemon_name}", b"")),
            since=self.rules.clock(),
            mta_version=_text(macros.get(b"v", b"")),
        )
        self.tx = self._greeted = Transaction(connection)
        self._dns = self.rules.dns.for_client(client.share)
        self._trusted_relay = client.trusted_relay
        self._local = local
        self._internal = local or client.internal
        self._connected = True
        if not self._internal and not self._trusted_relay:
            self._begin("iprev", self._config.iprev.enabled, self.rules.pipeline.iprev)
        verdict = await self._stage(Stage.CONNECT) if Stage.CONNECT in self.rules.busy else self._idle(Stage.CONNECT)
        self._greeted = self.tx
        return verdict

    async def helo(self, name: bytes, macros: Mapping[bytes, bytes]) -> Verdict:
        """HELO or EHLO; a second one (after STARTTLS) replaces the first, and ends a transaction as RSET does."""
        if self._in_message:
            self.abort()  # RFC 5321 section 4.1.4
        name = name[:MAX_HELO]
        tls = _text(macros.get(b"{tls_version}", b""))
        self.tx = self.tx._replace(
            helo=name,
            helo_domain=to_ascii_domain(name),
            envelope=self.tx.envelope._replace(tls=tls) if tls else self.tx.envelope,
            results=tuple([r for r in self.tx.results if r.method != "spf_helo"]),
            findings=tuple([entry for entry in self.tx.findings if entry[0] is not Stage.HELO]),
        )
        self._drop_waiting(Stage.HELO, Stage.HELO)
        if not self._internal and not self._trusted_relay:
            self._begin("spf_helo", self._config.spf.enabled and self._config.spf.helo, self.rules.pipeline.spf_helo)
        verdict = await self._stage(Stage.HELO) if Stage.HELO in self.rules.busy else self._idle(Stage.HELO)
        self._greeted = self.tx
        return verdict

    async def mail(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        """MAIL FROM: here the direction is decided."""
        if self._in_message:
            self.abort()  # a new MAIL without RSET or end of message: the old one is over
        reference = self._reference if self._early is not None else ""  # by which the log will name that refusal
        self._reset_message()
        self._reference = reference
        self._in_message = True
        auth_user = _text(macros.get(b"{auth_authen}", b""))
        client_ip = self.tx.connection.client_ip
        # Postfix shows pickup and bounces (non_smtpd_milters) as localhost on port 0, from which no real client connects,
        # not even a stranger behind a proxy on loopback.
        pickup = client_ip is not None and client_ip.is_loopback and self.tx.connection.client_port == 0
        local = self._local or pickup
        outbound = bool(auth_user) or self._internal or local
        envelope = self.tx.envelope._replace(
            reverse_path=parse_path((args[0] if args else b"") or b"<>"),  # Postfix shows bounces without brackets
            auth_user=auth_user,
            direction=Direction.OUTBOUND if outbound else Direction.INBOUND,
            local_submission=local and not auth_user,
            smtputf8=any(parameter.upper() == b"SMTPUTF8" for parameter in args[1:]),
        )
        self.tx = self.tx._replace(envelope=envelope, queue_id=_text(macros.get(b"i", b"")))
        if not outbound and not self._trusted_relay:
            self._begin("spf", self._config.spf.enabled, self.rules.pipeline.spf)
        return await self._stage(Stage.MAIL) if Stage.MAIL in self.rules.busy else self._idle(Stage.MAIL)

    async def rcpt(self, args: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Verdict:
        """RCPT TO; a refused recipient leaves no trace."""
        started = time.perf_counter()
        if Stage.RCPT in self.rules.busy:
            # Before the snapshot: what was under way concerns every recipient.  The checks of this stage need time too.
            limit = self._config.milter.command_timeout
            await self._gather(limit - min(limit / 3, TIME_FOR_RCPT))
        before = self.tx
        self._of_recipient = []
        envelope = self.tx.envelope
        path = parse_path(args[0] if args else b"") or Mailbox(b"", b"", "")
        paths = envelope.forward_paths[:MAX_RECIPIENTS]  # one more than that is judged, and takes the place of the last
        envelope = envelope._replace(forward_paths=(*paths, path))
        self.tx = self.tx._replace(envelope=envelope, queue_id=_text(macros.get(b"i", b"")) or self.tx.queue_id)
        busy = Stage.RCPT in self.rules.busy
        verdict = await self._stage(Stage.RCPT, started) if busy else self._idle(Stage.RCPT)
        if verdict.action in _REFUSING:
            self.tx = before
        return verdict

    async def data(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """DATA."""
        self._note_queue_id(macros)
        return await self._stage(Stage.DATA) if Stage.DATA in self.rules.busy else self._idle(Stage.DATA)

    def headers(self, fields: Sequence[HeaderField]) -> None:
        """The next header fields: values with their leading white space and CRLF at folds."""
        size = 3 * len(fields) + sum(map(len, chain.from_iterable(fields)))
        whole = self._header_size + size
        if size <= MAX_FIELD and whole <= MAX_HEADER_SECTION and len(self._fields) + len(fields) <= MAX_FIELDS:
            self._header_size = whole
            self._fields += fields
            return
        for entry in fields:
            size = len(entry.name) + len(entry.value) + 3
            self._header_size += size
            if size > MAX_FIELD:
                self._leave_out(entry.name, "header field")
            elif self._header_size > MAX_HEADER_SECTION or len(self._fields) >= MAX_FIELDS:
                self._leave_out(entry.name, "header section")
            else:
                self._fields.append(entry)

    def header_cut(self, name: bytes, octets: int) -> None:
        """The next header field, of which only so many octets arrived."""
        self._header_size += octets
        self._leave_out(name, "header field")

    def _leave_out(self, name: bytes, what: str) -> None:
        self._too_large(what)
        # Without its value it can't be parsed: as Authentication-Results it then counts as forged and goes, and as a From
        # it makes the author ambiguous, wherever it stands.
        if results_header.is_watched(name) or is_from(name):
            self._fields.append(HeaderField(name, b""))

    async def end_of_headers(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """The header section is complete: plan the body hashes, and ask for keys and policies ahead."""
        self._note_queue_id(macros)
        message = Message(tuple(self._fields), oversized=self._oversized)
        self.tx = self.tx._replace(message=message)
        keys: set[BodyHashKey] = set()
        if self.tx.envelope.direction is Direction.OUTBOUND:
            self._choice = self.rules.files.signer.choose(author(message).domains)
            keys = set(self.rules.files.signer.body_hash_keys(self._choice))
        elif not self._trusted_relay:
            if self._config.dkim.enabled:
                self._signatures = dkim.parse_signatures(
                    message, self._config.dkim, self.rules.pipeline.unexpected("dkim")
                )
                for signature in self._signatures:
                    if signature.error is None and signature.body_hash_key is not None:
                        keys.add(signature.body_hash_key)
                        self._dns.prefetch(signature.key_name, "TXT")
            keys |= self._plan_arc(message)
            if self._config.dmarc.enabled:
                for domain in author(message).domains[:1]:
                    dmarc.prefetch(domain, self._dns)
        self._hashes = dkim.BodyHashes(keys) if keys else None
        if self._is_judged(Stage.EOM):
            self._body = self.rules.pipeline.keep_body(self.tx.envelope.direction)
        return await self._stage(Stage.EOH) if Stage.EOH in self.rules.busy else self._idle(Stage.EOH)

    def body(self, chunk: bytes) -> bool:
        """The next octets of the body; False when no more are wanted."""
        self._body_size += len(chunk)
        if not self._body_wanted:
            return False
        outbound = self.tx.envelope.direction is Direction.OUTBOUND
        if self._body_size > self._config.milter.max_message_size and not outbound:
            # Our own mail is hashed to its end whatever its size: a signature needs all of it.
            self._too_large("body")
            self._hashes = None
            self._body_wanted = False
            return False
        if self._hashes is not None:
            self._hashes.update(chunk)
        if self._body is not None:
            self._body.add(chunk)
        return True

    async def end_of_message(self, macros: Mapping[bytes, bytes]) -> Verdict:
        """The verdict on the message, with the edits to its header section."""
        self._note_queue_id(macros)
        message = self.tx.message
        if not message.fields and self._fields:
            message = Message(tuple(self._fields))  # an MTA that was told not to send EOH
        hashes = self._hashes.finish() if self._hashes is not None else {}
        if self._body is None:
            message = message.with_body(self._body_size, hashes, self._oversized, body_cut=self._body_size > 0)
        else:
            cut = self._body.cut or not self._body_wanted
            message = message.with_body(
                self._body_size, hashes, self._oversized, self._body.whole(), cut, self._body.out_of_room
            )
        self.tx = self.tx._replace(message=message)
        outbound = self.tx.envelope.direction is Direction.OUTBOUND
        ruling, authentication_results, signed = await (self._outbound() if outbound else self._inbound())
        ruling = self._settle(ruling, Stage.EOM, authentication_results, signed)
        self.abort()  # nothing of it reaches the next message
        return ruling.verdict

    def no_recipient_left(self) -> Outcome:
        """What became of a message none of whose recipients was accepted."""
        assert self._refused is not None
        return Outcome(self._refused, Stage.RCPT, self._of_refusal, self.reference, "", "")

    def abort(self) -> None:
        """RSET, or the MTA gave the message up: back to where HELO left us."""
        if self._unrecorded is not None:  # all were refused
            self.rules.pipeline.remember(When.VERDICT, *self._unrecorded, self._dns)
            self._unrecorded = None
        self._cancel("spf")
        self._drop_waiting(Stage.MAIL, Stage.EOM)
        self._in_message = False
        self._early = None
        self.tx = self._greeted
        self._hashes = None
        self._fields = []
        if self._body is not None:
            self._body.drop()
            self._body = None

    def close(self) -> None:
        """The SMTP session is over."""
        self.abort()
        for name in list(self._methods):
            self._cancel(name)
        self._drop_waiting(Stage.CONNECT, Stage.EOM)
        if self._connected and not self._internal and not self._trusted_relay:
            self.rules.pipeline.remember(When.CLOSE, self.tx, None, self._dns)
        self._connected = False

    # -- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, name: str, enabled: bool, method: Callable[[Transaction, Resolver], Any]) -> None:
        if name in self._methods:
            self._cancel(name)
        if enabled:
            self._methods[name] = eager.start(method(self.tx, self._dns))

    def _cancel(self, name: str) -> None:
        future = self._methods.pop(name, None)
        if future is not None:
            future.cancel()

    def _drop_waiting(self, first: Stage, last: Stage) -> None:
        """What the checks of these stages still have under way concerns nobody any longer."""
        if not self._waiting:
            return
        for waiting in self._waiting:
            if first <= waiting.stage <= last:
                waiting.work.cancel()
        self._waiting = [w for w in self._waiting if not first <= w.stage <= last]

    def _note_queue_id(self, macros: Mapping[bytes, bytes]) -> None:
        queue_id = macros.get(b"i")
        if queue_id and not self.tx.queue_id:
            self.tx = self.tx._replace(queue_id=_text(queue_id))

    def _too_large(self, what: str) -> None:
        if not self._oversized:
            self._oversized = what

    def _idle(self, stage: Stage) -> Verdict:
        self.rules.observer.stage_done(stage, 0.0)
        return CONTINUE

    async def _stage(self, stage: Stage, started: float = 0.0) -> Verdict:
        """Run the checks of a stage before EOM, which began at `started`; answer only where policy may act."""
        started = started or time.perf_counter()
        direction = self.tx.envelope.direction
        verdict = CONTINUE
        if self._is_judged(stage):
            self._start(stage, self.tx)
            if self.rules.policy.acts_at(stage, direction) and (self._early is None or stage is Stage.RCPT):
                left = started + self._config.milter.command_timeout - time.perf_counter()
                await self._gather(max(0.0, left), stage)
                verdict = self._refuse(stage, self._ruling(stage))
        self.rules.observer.stage_done(stage, time.perf_counter() - started)
        return verdict

    def _is_judged(self, stage: Stage) -> bool:
        """Are there rules for this client, as far as is known at that stage?"""
        envelope = self.tx.envelope
        if envelope.direction is Direction.OUTBOUND:
            return not envelope.local_submission  # pickup and bounces can't be refused
        return not self._trusted_relay and not (self._internal and stage < Stage.MAIL)

    def _ruling(self, stage: Stage) -> Ruling:
        """What policy says on the evidence so far."""
        policy, tx = self.rules.policy, self.tx
        if stage is Stage.RCPT:
            # One recipient alone: what was found of those before him is nothing to him.
            findings = [entry for entry in tx.findings if entry[0] is not stage]
            findings += [(stage, finding) for finding in self._of_recipient]
            envelope = tx.envelope._replace(forward_paths=tx.envelope.forward_paths[-1:])
            tx = tx._replace(envelope=envelope, findings=tuple(findings))
        if tx.envelope.direction is Direction.OUTBOUND:
            return policy.judge_submission(tx, stage, self.reference)
        # Not kept: at MAIL one of several recipients may know the forwarder, and RCPT tells which.
        return policy.judge(with_override(tx, self._config), stage, self.reference)

    def _refuse(self, stage: Stage, ruling: Ruling) -> Verdict:
        """Carry out a refusal before EOM, or keep it in mind where policy is not enforced."""
        if ruling.verdict.action not in _REFUSING:
            return CONTINUE
        if not ruling.enforce:
            if self._early is None:
                self._early, self._early_stage = ruling, stage
            return CONTINUE
        if stage is Stage.RCPT:
            self._refuse_recipient(ruling)
        else:
            self._settle(ruling, stage, "", "")
        return ruling.verdict

    def _refuse_recipient(self, ruling: Ruling) -> None:
        """A recipient is no transaction: he has a line of his own in the log, and the verdict is still to come."""
        reply = ruling.verdict.reply
        assert reply is not None
        if ruling.verdict.action is Action.REJECT and self._unrecorded is None:
            self._unrecorded = (self.tx, ruling)
        self._refused, self._of_refusal = ruling, self.tx
        self.rules.observer.recipient_refused(reply.code)
        if log.isEnabledFor(logging.INFO):
            findings = tuple((Stage.RCPT, finding) for finding in self._of_recipient)
            of_session = tuple(entry for entry in self.tx.findings if entry[0] is not Stage.RCPT)
            fields = self._origin() | {
                "rcpt": _shown(bytes(self.tx.envelope.forward_paths[-1])),
                "symbols": _symbols(self.tx._replace(findings=of_session + findings), ruling),
                "action": ruling.verdict.action,
                "because": ",".join(ruling.verdict.because[:10]),
                "reply": f"{reply.code} {reply.enhanced} {reply.text}",
            }
            log.info("recipient", extra={"fields": fields})

    async def _gather(self, timeout: float, stage: Stage = Stage.EOM) -> None:  # noqa: ASYNC109  late tasks go on
        """Take in the results of methods and checks that are under way, for at most `timeout` seconds.

        CONNECT and HELO do not wait for what policy acts on later, and mail of ours not for what was begun before that
        was known.
        """
        methods: Mapping[str, asyncio.Task[AuthResult] | eager.Done[AuthResult]]
        if self.tx.envelope.direction is Direction.OUTBOUND:
            due, methods = [w for w in self._waiting if w.stage >= Stage.MAIL], {}
        elif stage <= Stage.HELO:
            due, methods = [w for w in self._waiting if w.judged <= stage], {}
        else:
            due, methods = self._waiting, self._methods
        done = {r.method for r in self.tx.results}  # what was late once is not waited for again
        started = (*(methods[name] for name in methods if name not in done), *(waiting.work for waiting in due))
        pending = [work for work in started if isinstance(work, asyncio.Task) and not work.done()]
        if pending:
            await asyncio.wait(pending, timeout=timeout)
        results = []
        for name in ("iprev", "spf_helo", "spf"):
            future = methods.get(name)
            if future is None or name in done:
                continue
            if name == "spf_helo" and self._in_message and self.tx.envelope.reverse_path is None:
                continue  # RFC 7208 section 2.4: the null reverse-path is postmaster@HELO, which `spf` then looks at
            results.append(self._result_of(name, future))
        for waiting in due:
            if waiting.work.done() and not waiting.work.cancelled():
                found = waiting.work.result()
            else:
                waiting.work.cancel()
                found = [Finding(f"{waiting.check}_temperror", "deadline")]
                self.rules.observer.check_error(waiting.check, "temperror")
            self._add(waiting.stage, found)
            if waiting.stage < Stage.MAIL:  # it concerns every message of the session
                entries = tuple((waiting.stage, finding) for finding in found)
                self._greeted = self._greeted._replace(findings=self._greeted.findings + entries)
        if due:
            self._waiting = [w for w in self._waiting if w not in due]
        if results:
            self._add_results(results)

    def _result_of(self, name: str, future: asyncio.Task[AuthResult] | eager.Done[AuthResult]) -> AuthResult:
        if future.done() and not future.cancelled():
            return future.result()
        # Not cancelled: a DNS answer that comes later still serves the next message.
        path = self.tx.envelope.reverse_path
        domain = "" if name == "iprev" else self.tx.helo_domain
        if name == "spf" and path is not None:
            domain = path.domain
        return AuthResult(name, Result.TEMPERROR, domain, reason=LATE)

    def _add(self, stage: Stage, found: Sequence[Finding]) -> None:
        if not found:
            return
        if stage is Stage.RCPT:
            self._of_recipient += found
        known = self.tx.findings
        most = MAX_RECIPIENT_FINDINGS if stage is Stage.RCPT else MAX_FINDINGS
        new = [entry for finding in found if (entry := (stage, finding)) not in known][: max(0, most - len(known))]
        self.tx = self.tx._replace(findings=known + tuple(new))
        for _, finding in new:
            self.rules.observer.finding(finding.symbol)

    def _add_results(self, results: Sequence[AuthResult]) -> None:
        self.tx = self.tx._replace(results=self.tx.results + tuple(results))
        for result in results:
            self.rules.observer.auth_result(result.method, result.result)

    async def _inbound(self) -> tuple[Ruling, str, str]:
        started = time.perf_counter()
        config = self._config
        deadline = started + config.milter.message_timeout
        await self._gather(config.milter.message_timeout)
        if not self._trusted_relay:
            await self._authenticate(max(0.01, deadline - time.perf_counter()))
            self.tx = with_override(self.tx, config, self._vouched())
            await self._check_end(deadline)
        ruling = self.rules.policy.judge(self.tx, Stage.EOM, self.reference)
        edits = []
        value = ""
        if not self._trusted_relay:
            edits = results_header.forged(self.tx.message, self._our_ids(), inside=False)
            edits += _spam_fields(ruling.verdict.action, ruling.verdict.score, ruling.verdict.because, ruling.scored)
            value = results_header.render(self._authserv_id(), self.tx.results)
            edits += self._seal(value)
            # RFC 8601 section 5: on top of all fields, so it is inserted last.
            edits.append(HeaderEdit("insert", 0, "Authentication-Results", value))
        ruling = Ruling(ruling.verdict._replace(edits=tuple(edits)), ruling.enforce, ruling.scored)
        self.rules.observer.stage_done(Stage.EOM, time.perf_counter() - started)
        return ruling, value, ""

    async def _check_end(self, deadline: float) -> None:
        """The checks of the end of the message, and those that were put off until then."""
        direction = self.tx.envelope.direction
        pipeline = self.rules.pipeline
        if Stage.RCPT not in self.rules.busy and pipeline.has_checks(Stage.RCPT, direction):
            paths = self.tx.envelope.forward_paths
            for count in range(1, min(len(paths) - 1, MAX_CHECKED_RECIPIENTS) + 1):
                envelope = self.tx.envelope._replace(forward_paths=paths[:count])
                self._start(Stage.RCPT, self.tx._replace(envelope=envelope))
            self._start(Stage.RCPT, self.tx)  # for the last, and mostly only, of them
        if Stage.DATA not in self.rules.busy and pipeline.has_checks(Stage.DATA, direction):
            self._start(Stage.DATA, self.tx)
        if pipeline.has_checks(Stage.EOM, direction):
            self._start(Stage.EOM, self.tx)
        if self._waiting:
            await self._gather(max(0.0, deadline - time.perf_counter()))

    def _start(self, stage: Stage, tx: Transaction) -> None:
        """Run the checks of a stage on that transaction; those that wait go on."""
        found, waiting = self.rules.pipeline.start(stage, tx.envelope.direction, tx, self._dns)
        self._add(stage, found)
        self._waiting += [_Waiting(stage, check.judged, work, check.name) for check, work in waiting]

    async def _authenticate(self, timeout: float) -> None:  # noqa: ASYNC109  what is late becomes a temperror
        """DKIM, ARC, and DMARC on top of them."""
        missing = [method for method in ("dkim", "arc", "dmarc") if getattr(self._config, method).enabled]
        if not self._chain.present and "arc" in missing:
            missing.remove("arc")
        work = eager.start(self._verify(missing))
        if isinstance(work, asyncio.Task):
            try:
                await asyncio.wait((work,), timeout=timeout)
            finally:
                work.cancel()
        if work.done():
            work.result()
            return
        # With their domains: whether a temporary failure matters to DMARC hangs on whose it is.
        domains = {"dkim": [s.domain for s in self._signatures] or [""]}
        self._add_results(
            [
                AuthResult(name, Result.TEMPERROR, domain, reason=LATE)
                for name in missing
                for domain in domains.get(name, [""])
            ]
        )

    async def _verify(self, missing: list[str]) -> None:
        """Run those methods, in their order; what is done leaves the list."""
        pipeline = self.rules.pipeline
        for method in tuple(missing):
            if method == "dkim":
                results = await pipeline.dkim(self.tx, self._dns, self._signatures)
            elif method == "arc":
                self._arc = await pipeline.arc(self.tx, self._dns, self._chain)
                results = [self._arc.result]
            else:
                results = [await pipeline.dmarc(self.tx, self._dns)]
            self._add_results(results)
            missing.remove(method)

    async def _outbound(self) -> tuple[Ruling, str, str]:
        started = time.perf_counter()
        tx = self.tx
        if tx.envelope.auth_user:
            problem = self.rules.files.senders.objection(tx.envelope.auth_user, author(tx.message))
            if problem:
                self._add(Stage.EOM, [Finding("from_mismatch", problem)])
        if not tx.envelope.local_submission:
            deadline = started + self._config.milter.message_timeout
            await self._gather(self._config.milter.message_timeout)
            await self._check_end(deadline)
        ruling = self.rules.policy.judge_submission(self.tx, Stage.EOM, self.reference)
        edits = [] if self._trusted_relay else results_header.forged(tx.message, self._our_ids(), inside=True)
        if ruling.enforce and ruling.verdict.action in _REFUSING:
            signed = "no: refused"
        else:
            signatures, signed = self._sign()
            edits += signatures
        ruling = Ruling(ruling.verdict._replace(edits=tuple(edits)), ruling.enforce, ruling.scored)
        self.rules.observer.stage_done(Stage.EOM, time.perf_counter() - started)
        return ruling, "", signed

    def _plan_arc(self, message: Message) -> set[BodyHashKey]:
        """Read the chain, ask for its keys ahead, and decide on sealing; returns the body hashes that both need."""
        settings = self._config.arc
        if not settings.enabled:
            return set()
        self._chain = arc.parse_chain(message, on_error=self.rules.pipeline.unexpected("arc"))
        for name in self._chain.key_names[:MAX_PREFETCHED_KEYS]:
            self._dns.prefetch(name, "TXT")
        keys = set(self._chain.body_hash_keys)
        sealer = self.rules.files.sealer
        if sealer is not None:
            local = self._config.identity.local_domains
            relayed = any(not names_contain(local, path.domain) for path in self.tx.envelope.forward_paths)
            self._sealing = settings.seal == "always" or relayed
            if self._sealing:
                keys.add(sealer.body_hash_key)
        return keys

    def _vouched(self) -> tuple[AuthResult, ...]:
        """What the first of the trusted sealers saw, if none but trusted ones sealed since."""
        trusted = {d for d in self._arc.sealers if names_contain(self._config.arc.trusted_sealers, d)}
        return self._arc.results_of(self._arc.first_trusted(trusted)) if trusted else ()

    def _seal(self, results: str) -> list[HeaderEdit]:
        """Our set of the chain, for mail that is forwarded."""
        sealer = self.rules.files.sealer
        if sealer is None or not self._sealing:
            return []
        try:
            message, left_out = self._as_sent()
            return list(sealer.seal(self._chain, self._arc, message, results, self.rules.clock(), left_out))
        except SigningError as error:
            log.info("%s: not sealed: %s", self.reference, error)
        except Exception:
            self.rules.pipeline.unexpected("sealing")("sealing failed")
        return []

    def _sign(self) -> tuple[list[HeaderEdit], str]:
        """The signatures, and one sentence for the log: by which keys, or why not."""
        choice = self._choice
        if choice is None:
            return [], "no: the MTA sent no end of header"
        if self._oversized:
            return [], f"no: {self._oversized} too large"
        if not choice.keys:
            return [], f"no: {choice.reason}"
        try:
            message, left_out = self._as_sent()
            edits = self.rules.files.signer.sign(choice, message, self.rules.clock(), left_out)
        except SigningError as error:
            return [], f"no: {error}"
        except Exception:
            self.rules.pipeline.unexpected("signing")("signing failed")
            for key in choice.keys:
                self.rules.observer.signature(key.algorithm, "failure")
            return [], "no: internal error"
        for key in choice.keys:
            self.rules.observer.signature(key.algorithm, "success")
        return edits, ",".join(f"{key.selector}/{choice.domain}/{key.algorithm}" for key in choice.keys)

    def _as_sent(self) -> tuple[Message, frozenset[bytes]]:
        """The message that a signature of ours will be held against, and the names of fields that it must not cover."""
        message = self.tx.message
        return sendmail_form.as_sent(message) if self.tx.connection.by_sendmail else (message, frozenset())

    def _settle(self, ruling: Ruling, stage: Stage, authentication_results: str, signed: str) -> Ruling:
        """The transaction has its final verdict: log and count it; without `enforce` it is accepted all the same."""
        edits = ruling.verdict.edits
        if self._early is not None and not ruling.enforce:
            ruling, stage = self._early._replace(scored=ruling.scored), self._early_stage
            ruling = ruling._replace(verdict=ruling.verdict._replace(edits=edits))
        self._early = None
        verdict = ruling.verdict
        inbound = self.tx.envelope.direction is Direction.INBOUND
        scored = inbound and not self._trusted_relay and bool(authentication_results)
        self.rules.observer.verdict(
            self.tx.envelope.direction.label, verdict.action.value, stage, verdict.score if scored else None
        )
        self._log(ruling, stage, signed)
        tx = self.tx
        if self._unrecorded is not None:
            # That he was refused does not make him a stranger to the message: he may have been a trap.
            known = [entry for entry in self._unrecorded[0].findings if entry[0] is Stage.RCPT]
            tx = tx._replace(findings=(*tx.findings, *known))
            self._unrecorded = None
        self.rules.pipeline.remember(When.VERDICT, tx, ruling, self._dns)
        if self._on_outcome:
            self._on_outcome(Outcome(ruling, stage, self.tx, self.reference, authentication_results, signed))
        if not ruling.enforce and verdict.action not in (Action.ACCEPT, Action.TAG):
            return ruling._replace(verdict=Verdict(Action.ACCEPT, edits=edits, because=verdict.because))
        return ruling

    def _our_ids(self) -> frozenset[str]:
        return frozenset({self._authserv_id()})

    def _authserv_id(self) -> str:
        return self._config.identity.authserv_id or self.tx.connection.mta_name or "localhost"

    def _origin(self) -> dict[str, Any]:
        """Where a message comes from, for the log."""
        tx, path = self.tx, self.tx.envelope.reverse_path
        return {
            "ref": self.reference,
            "queue_id": tx.queue_id,
            "client": self._client.text,
            "client_name": tx.connection.client_name,
            "helo": _shown(tx.helo),
            "mail_from": "<>" if path is None else _shown(bytes(path)),
        }

    def _log(self, ruling: Ruling, stage: Stage, signed: str) -> None:
        tx, verdict = self.tx, ruling.verdict
        envelope = tx.envelope
        fields = self._origin() | {
            "rcpts": len(envelope.forward_paths),
            "from": ",".join(author(tx.message).domains[:3]) if tx.message.fields else "",
            "direction": envelope.direction.label,
        }
        if envelope.auth_user:
            fields["auth_user"] = envelope.auth_user[:128]
        methods = dict.fromkeys(METHODS, "")  # in the order in which they stand in the line
        overrides = []
        for result in tx.results:
            words = methods.get(result.method)
            methods[result.method] = f"{words},{result.result}" if words else result.result
            if OVERRIDE in result.properties:
                overrides.append(result.properties[OVERRIDE])
        fields |= {method: results for method, results in methods.items() if results}
        if overrides:
            fields["override"] = ",".join(overrides)
        fields["score"] = verdict.score if verdict.score % 1 else int(verdict.score)
        fields["symbols"] = _symbols(tx, ruling) if tx.findings or ruling.scored else ""
        fields["action"] = verdict.action
        fields["because"] = ",".join(verdict.because[:10])
        fields["stage"] = stage.label
        if not ruling.enforce:
            fields["enforced"] = "no"
        if verdict.reply:
            reply = verdict.reply
            fields["reply"] = f"{reply.code} {reply.enhanced} {reply.text}"
        if envelope.direction is Direction.OUTBOUND:
            fields["signed"] = signed
        fields["size"] = self._header_size + self._body_size
        if self._oversized:
            fields["oversized"] = self._oversized
        fields["ms"] = round((time.perf_counter() - self._started) * 1000, 1)
        message_line(fields)


def _symbols(tx: Transaction, ruling: Ruling) -> str:
    """Findings and weighed results with their weights, for the log."""
    scored = dict(ruling.scored)
    found = {finding.symbol for _, finding in tx.findings}
    symbols = [f"{finding.symbol}({scored.get(finding.symbol, 0):g})" for _, finding in tx.findings]
    symbols += [f"{symbol}({weight:g})" for symbol, weight in scored.items() if symbol not in found]
    return ",".join(symbols[:50])


@lru_cache(maxsize=256)
def _spam_fields(
    action: Action, score: float, because: tuple[str, ...], scored: tuple[tuple[str, float], ...]
) -> tuple[HeaderEdit, ...]:
    spam = action not in (Action.ACCEPT, Action.CONTINUE)
    tests = [f"{symbol}={weight:g}" for symbol, weight in scored]
    tests += [f"{symbol}=0" for symbol in because if symbol not in dict(scored)]
    status = f"{'Yes' if spam else 'No'}, score={score:g} tests={_folded(tests) if tests else 'none'}"
    return (
        HeaderEdit("insert", 0, "X-Spam-Status", status),
        HeaderEdit("insert", 0, "X-Spam-Score", f"{score:g}"),
        HeaderEdit("insert", 0, "X-Spam-Flag", "YES" if spam else "NO"),
    )


def _folded(tests: Sequence[str]) -> str:
    """Names joined by commas, on lines of at most 78 columns (RFC 5322 section 2.1.1)."""
    text, column = "", 40
    for i, test in enumerate(tests):
        if column + len(test) > 76 and i:
            text += "\n\t"
            column = 8
        text += test + ("," if i < len(tests) - 1 else "")
        column += len(test) + 1
    return text


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _shown(raw: bytes) -> str:
    """For the log: bounded; `log.quote` escapes the rest."""
    return _text(raw[:320])
