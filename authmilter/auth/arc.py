"""Validation of Authenticated Received Chains (RFC 8617).

A chain is made of sets, one by each sealer, numbered 1 to 50 by i=.  A set has three fields: ARC-Authentication-Results
(AAR) says what the sealer found, ARC-Message-Signature (AMS) signs the message as it left the sealer, and ARC-Seal (AS)
signs the ARC fields of this set and of all before it.

A pass says that the sealers wrote these sets and that the message is as the newest of them left it; nothing about whether
they tell the truth, and nothing about the author.  A sealer can make up what stands before its own set, so results of a
set count only if its sealer and all later ones are trusted: `ArcResult.first_trusted`.

RFC 8617 section 5.2.1 makes a failed DNS query a fail.  Here it is a temperror, since the next attempt may succeed; such
a chain is not sealed at all, so that later hosts judge it by themselves.
"""

import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from authmilter.auth.arc_results import read_results
from authmilter.auth.results_header import after_cfws
from authmilter.auth.signature import (
    FieldForms,
    Outcome,
    Signature,
    ask_keys,
    before_query,
    canonical_forms,
    is_signed_by,
    read_coverage,
    read_signer,
    read_tags,
    read_timestamp,
    require,
    unsigned_form,
    usable_keys,
    verify_message_signature,
)
from authmilter.auth.taglist import TagError
from authmilter.config.schema import Dkim
from authmilter.errors import DnsTempError
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Answer, Resolver
from authmilter.model import BodyHashKey, Message

log = logging.getLogger(__name__)

MAX_SETS = 50  # RFC 8617 section 4.2.1
# The short names of RFC 8617.
AAR, AMS, AS = "ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"
_INDEX = {name: name.lower().encode() for name in (AAR, AMS, AS)}
_INDEX_NAMES = tuple(_INDEX.values())
_MAX_PREFIX = 4096  # octets of an AAR in which i= has to be found
_STATUS = (b"none", b"pass", b"fail")

T = TypeVar("T")
Answers = dict[str, Answer | DnsTempError]


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One set: the place of its AAR in ``message.fields``, where the results start in it, and its signatures.

    `status` is cv= of the seal: what the sealer found the chain before its own set to be.
    """

    instance: int
    aar: int
    payload_start: int
    message_signature: Signature
    seal: Signature
    status: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The ARC fields of a message.

    `present`: there are any.  `error` is the result that the fields alone bring about, None if the chain has to be
    verified; only then there are `sets`, from the first to the newest.  `last_instance` is the highest i= that could be
    read.  `ended`: the newest seal says cv=fail, so nobody may add to the chain (RFC 8617 section 5.1.2).
    `key_names` are the names of all keys, those of the newest set first; `body_hash_keys` the hashes that are needed.
    """

    present: bool = False
    error: Outcome | None = None
    sets: tuple[ArcSet, ...] = ()
    last_instance: int = 0
    ended: bool = False
    key_names: tuple[str, ...] = ()
    body_hash_keys: frozenset[BodyHashKey] = frozenset()


NO_CHAIN = Chain()


@dataclass(frozen=True, slots=True)
class ArcResult:
    """The result for a chain, and who may be asked about it.

    `sealers` are d= of each seal, oldest first; empty unless the chain passes.  `author_signed`: the newest AMS covers
    every From, without which the chain says nothing about who wrote the message.
    """

    result: AuthResult
    sealers: tuple[str, ...] = ()
    author_signed: bool = False
    payloads: tuple[bytes, ...] = ()

    def first_trusted(self, trusted: Collection[str]) -> int:
        """The lowest instance whose sealer and all later ones are in `trusted` (lower-case A-labels); 0 if there is none.

        Its results are what the first trusted host saw.  Whoever seals later could have put earlier sets under a message
        of its own, so one sealer in between who is not trusted spoils all before it.
        """
        if not self.author_signed:
            return 0
        instance = len(self.sealers) + 1
        while instance > 1 and self.sealers[instance - 2] in trusted:
            instance -= 1
        return instance if instance <= len(self.sealers) else 0

    def results_of(self, instance: int) -> tuple[AuthResult, ...]:
        """What the sealer of that set (1 for the oldest) found, as far as it can be read; empty unless the chain passes."""
        return read_results(self.payloads[instance - 1]) if 1 <= instance <= len(self.payloads) else ()


NO_ARC = ArcResult(AuthResult("arc", Result.NONE))


# -- the fields --------------------------------------------------------------------------------------------------------


def parse_chain(message: Message, max_sets: int = MAX_SETS, on_error: Callable[[str], None] = log.exception) -> Chain:
    """Read the ARC fields and check all that can be checked without keys and body; never raises.

    A chain of more than `max_sets` sets ends as ``policy``, one of more than 50 as ``fail``.
    """
    if message.index.keys().isdisjoint(_INDEX_NAMES):
        return NO_CHAIN
    problems: list[str] = []
    try:
        results = _collect(AAR, _read_aar, message, problems)
        signatures = _collect(AMS, _read_ams, message, problems)
        seals = _collect(AS, _read_seal, message, problems)
    except Exception:  # the message must go on, whatever it holds
        on_error("ARC fields can't be read")
        return Chain(True, (Result.TEMPERROR, "internal error"), last_instance=MAX_SETS)
    last = max((*results, *signatures, *seals), default=0)
    ended = last in seals and seals[last][1] == "fail"
    problems += _structure_problems(last, {AAR: results, AMS: signatures, AS: seals}, seals)
    if problems:
        return Chain(True, (Result.FAIL, problems[0]), last_instance=last, ended=ended)
    if last > max_sets:
        return Chain(True, (Result.POLICY, f"over {max_sets} ARC sets"), last_instance=last)
    sets = tuple(ArcSet(i, *results[i], signatures[i], *seals[i]) for i in range(1, last + 1))
    hashes = frozenset(s.message_signature.body_hash_key for s in sets if s.message_signature.body_hash_key)
    return Chain(True, None, sets, last, key_names=_key_names(sets), body_hash_keys=hashes)


def _collect(
    name: str, read: Callable[[int, bytes], tuple[int, T]], message: Message, problems: list[str]
) -> dict[int, T]:
    """The fields of one name that can be read, by their i=; what is wrong with the others is added to `problems`."""
    positions = message.index.get(_INDEX[name], ())
    if len(positions) > MAX_SETS:
        problems.append(f"over {MAX_SETS} fields {name}")
        positions = positions[:MAX_SETS]
    found: dict[int, T] = {}
    for position in positions:
        try:
            instance, part = read(position, message.fields[position].value)
        except TagError as error:
            problems.append(f"{name} is malformed: {error}")
            continue
        if instance in found:
            problems.append(f"two fields {name} have i={instance}")
        found[instance] = part
    return found


def _structure_problems(
    last: int, fields: Mapping[str, Container[int]], seals: Mapping[int, tuple[Signature, str]]
) -> Iterator[str]:
    """What breaks the rules of RFC 8617 section 5.2 steps 2 and 3."""
    if last in seals and seals[last][1] == "fail":
        yield f"seal {last} says cv=fail"
    for instance in range(1, last + 1):
        for name, found in fields.items():
            if instance not in found:
                yield f"set {instance} has no {name}"
        if instance in seals and seals[instance][1] != ("none" if instance == 1 else "pass"):
            yield f"seal {instance} says cv={seals[instance][1]}"


def _key_names(sets: tuple[ArcSet, ...]) -> tuple[str, ...]:
    newest_first = sets[::-1]
    names = [newest_first[0].message_signature.key_name]
    names += [s.seal.key_name for s in newest_first]
    names += [s.message_signature.key_name for s in newest_first]
    return tuple(dict.fromkeys(names))


def _read_aar(position: int, value: bytes) -> tuple[int, tuple[int, int]]:
    """i= of an AAR; where the field is, and where the payload starts in it (RFC 8617 section 4.1.1)."""
    text = value[:_MAX_PREFIX]
    at = after_cfws(text, 0)
    for mark in (b"i", b"="):
        if at < 0 or text[at : at + 1] != mark:
            raise TagError("it does not begin with i=")
        at = after_cfws(text, at + 1)
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    instance = _instance(text[at:end])
    at = after_cfws(text, end)
    if at < 0 or text[at : at + 1] != b";":
        raise TagError("no semicolon after i=")
    return instance, (position, at + 1)


def _read_ams(position: int, value: bytes) -> tuple[int, Signature]:
    """RFC 8617 section 4.1.2: a DKIM-Signature without v=, which is ignored, and with another meaning of i=."""
    tags = read_tags(value)
    instance = _instance(tags.get(b"i", b""))
    found = Signature(position)
    read_signer(tags, found)
    require(tags, b"a", b"b", b"bh", b"d", b"h", b"s")
    _refuse_sha1(found)
    # RFC 6376 section 3.5 has simple/simple where there is no c=; the test suite of ARC has relaxed/relaxed, and so dkimpy.
    tags.setdefault(b"c", b"relaxed/relaxed")
    read_coverage(tags, found, blank_names=True)
    # RFC 8617 section 4.1.2: ARC fields MUST NOT be covered.  AAR and AMS are let pass, which earlier drafts allowed.
    if _INDEX[AS] in found.signed_fields:
        raise TagError("h= names ARC-Seal")
    return instance, found


def _read_seal(position: int, value: bytes) -> tuple[int, tuple[Signature, str]]:
    """RFC 8617 section 4.1.3: of the tags of DKIM only a= b= d= s= t=; what is signed follows from the chain."""
    tags = read_tags(value)
    instance = _instance(tags.get(b"i", b""))
    if b"h" in tags:
        raise TagError("h= is not allowed")  # RFC 8617 section 4.1.3: it MUST result in a fail
    found = Signature(position, header_canonicalization="relaxed")
    read_signer(tags, found)
    require(tags, b"a", b"b", b"cv", b"d", b"s")
    _refuse_sha1(found)
    read_timestamp(tags, found)
    status = tags[b"cv"].lower()
    if status not in _STATUS:
        raise TagError("cv= is unknown")
    return instance, (found, status.decode())


def _instance(digits: bytes) -> int:
    """RFC 8617 section 4.2.1: one or two digits, 1 to 50."""
    if not digits.isdigit() or len(digits) > 2 or not 1 <= int(digits) <= MAX_SETS:
        raise TagError(f"i= is no number from 1 to {MAX_SETS}")
    return int(digits)


def _refuse_sha1(found: Signature) -> None:
    if found.algorithm == "rsa-sha1":  # RFC 8301 section 3.1
        raise TagError("a= is rsa-sha1")


def _covers_from(signature: Signature, message: Message) -> bool:
    return signature.signed_fields.count(b"from") >= len(message.index.get(b"from", ())) > 0


# -- the signatures ----------------------------------------------------------------------------------------------------


async def verify(
    chain: Chain,
    message: Message,
    dns: Resolver,
    now: float,
    options: Dkim,
    client_ip: str,
    on_error: Callable[[str], None] = log.exception,
) -> ArcResult:
    """Validate a chain as RFC 8617 section 5.2 has it: ``none pass fail``, ``temperror`` for a DNS that does not answer.

    `chain` is what `parse_chain` made of the message, and `message.body_hashes` must have its `body_hash_keys`, unless
    `message.oversized` says that the message was not examined whole: then the result is ``policy``.  The rules for keys
    are those of DKIM, and `options` its options; `now` is in seconds since the epoch.  `identifier` of the result is d= of
    the newest seal.  Properties: smtp.remote-ip, and header.oldest-pass for a pass.  `on_error` is told of exceptions
    that nobody expected (they make it a temperror).
    """
    if not chain.present:
        return NO_ARC
    oldest_pass = 0
    # What was cut off may have been part of the chain.
    outcome = (Result.POLICY, "message is too large to be checked") if message.oversized else chain.error
    if outcome is None:
        try:
            outcome, oldest_pass = await _verify(chain, message, dns, now, options, on_error)
        except Exception:  # the message must go on
            on_error("ARC validation failed")
            outcome = Result.TEMPERROR, "internal error"
    result, reason = outcome
    properties = {"smtp.remote-ip": client_ip} if client_ip else {}
    domain = chain.sets[-1].seal.domain if chain.sets else ""
    if result is not Result.PASS:
        return ArcResult(AuthResult("arc", result, domain, properties, reason))
    properties["header.oldest-pass"] = str(oldest_pass)
    return ArcResult(
        AuthResult("arc", result, domain, properties, reason),
        tuple(s.seal.domain for s in chain.sets),
        _covers_from(chain.sets[-1].message_signature, message),
        tuple(message.fields[s.aar].value[s.payload_start :] for s in chain.sets),
    )


async def _verify(
    chain: Chain, message: Message, dns: Resolver, now: float, options: Dkim, on_error: Callable[[str], None]
) -> tuple[Outcome, int]:
    """The result, and the oldest instance whose AMS still verifies, 0 if all do."""
    *older, newest = chain.sets
    forms: FieldForms = {}
    answers: Answers = {}

    async def ask(names: Collection[str]) -> None:
        answers.update(await ask_keys([name for name in names if name not in answers], dns, on_error))

    def verify_ams(arc_set: ArcSet) -> Outcome:
        signature = arc_set.message_signature
        early = before_query(signature, message, now, options)
        return early or verify_message_signature(signature, answers[signature.key_name], message, options, forms)

    # The newest set is looked at first: while its signatures do not hold, nobody is asked for other keys.
    await ask({newest.message_signature.key_name, newest.seal.key_name})
    # RFC 8617 section 5.2 step 4: the newest AMS must verify.
    outcome = verify_ams(newest)
    if outcome[0] is not Result.PASS:
        return _failed(outcome, f"message signature {newest.instance}"), 0
    # Step 6: then every seal, from the newest to the first.
    digests = _seal_digests(chain.sets, message, forms)
    for arc_set in reversed(chain.sets):
        if arc_set.seal.key_name not in answers:
            await ask(chain.key_names)
        outcome = before_query(arc_set.seal, message, now, options) or _verify_seal(
            arc_set.seal, answers[arc_set.seal.key_name], digests[arc_set.instance - 1], options
        )
        if outcome[0] is not Result.PASS:
            return _failed(outcome, f"seal {arc_set.instance}"), 0
    # Step 5, which is for information only: how far back do the message signatures verify?
    await ask(chain.key_names)
    for arc_set in reversed(older):
        if verify_ams(arc_set)[0] is not Result.PASS:
            return (Result.PASS, ""), arc_set.instance + 1
    return (Result.PASS, ""), 0


def _failed(outcome: Outcome, what: str) -> Outcome:
    """RFC 8617 section 4.4 knows fail alone, whatever the reason, but what is temporary stays so."""
    result, reason = outcome
    return result if result is Result.TEMPERROR else Result.FAIL, f"{what}: {reason}"


def _verify_seal(seal: Signature, answer: Answer | DnsTempError, digest: bytes, options: Dkim) -> Outcome:
    keys = usable_keys(seal, answer, options)
    if isinstance(keys, tuple):
        return keys
    if any(is_signed_by(key, seal.signature, digest) for key in keys):
        return Result.PASS, ""
    return Result.FAIL, "ARC fields have changed"


def _seal_digests(sets: Iterable[ArcSet], message: Message, forms: FieldForms) -> list[bytes]:
    """SHA-256 of what each seal signs: AAR, AMS and AS of all sets from the first, its own b= empty (section 5.1.1).

    Each seal signs what the one before it did and more, so one hash runs through the chain.
    """
    running = sha256()
    digests = []
    for arc_set in sets:
        aar, ams, seal = set_forms(arc_set, message, forms)
        running.update(aar + ams)
        own = running.copy()
        own.update(unsigned_form(message.fields[arc_set.seal.position], "relaxed"))
        digests.append(own.digest())
        running.update(seal)
    return digests


def set_forms(arc_set: ArcSet, message: Message, forms: FieldForms) -> list[bytes]:
    """The canonical forms of AAR, AMS and AS, as a later seal signs them."""
    positions = (arc_set.aar, arc_set.message_signature.position, arc_set.seal.position)
    return canonical_forms(message, "relaxed", positions, forms)
