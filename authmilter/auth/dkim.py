"""DKIM verification (RFC 6376 with RFC 8301, 8463 and 8616).

Every signature is judged by itself, in the order of RFC 6376 section 6.1: first the field (6.1.1), then the key (6.1.2),
then rules, body hash and signature (6.1.3).  The words are those of RFC 8601 section 2.7.1:

* ``neutral``: the signature field is malformed, or asks for what nobody knows;
* ``temperror``: the DNS gave no answer about the key;
* ``permerror``: the key is missing, revoked, unusable, or not for this use;
* ``policy``: refused by a rule, whatever the mathematics say: rsa-sha1, a small key, expired or signed in the future, From
  not signed, text after the part of the body that l= covers, a message too large to be looked at whole;
* ``fail``: body or header are not what was signed.
"""

import asyncio
import binascii
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from authmilter.addresses import to_ascii_domain
from authmilter.auth.canonical import HEADER, BodyHasher, BodyHashes
from authmilter.auth.keys import KeyRecord, key_name, parse_key_record
from authmilter.auth.taglist import TagError, decode_base64, drop_fws, parse_tags, split_list
from authmilter.config.schema import Dkim
from authmilter.errors import DnsTempError
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Answer, Resolver
from authmilter.model import BodyHashKey, HeaderField, Message

__all__ = ["BodyHasher", "BodyHashes", "Signature", "parse_signatures", "verify"]

log = logging.getLogger(__name__)

Outcome = tuple[Result, str]  # a result with its reason
FieldForms = dict[tuple[str, int], bytes]  # (canonicalization, position) -> canonical field, shared by all signatures

MAX_FIELD = 32 * 1024  # octets of a signature field; real ones stay under 4,000
MAX_KEY_RECORDS = 5  # records at one name that are tried: one is right, a second may appear while keys are changed
_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256", b"rsa-sha1")
_FIELD_NAME = bytes(range(33, 58)) + bytes(range(60, 127)) + bytes(range(0x80, 0x100))  # RFC 5322 ftext, RFC 6532
_PKCS1 = PKCS1v15()
_SHA256 = SHA256()


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field (RFC 6376 section 3.5).

    `position` is its place in ``message.fields``.  `error` is the result that the field alone brings about, None if the
    signature has to be verified; then `key_name` is where its key is, and `body_hash_key` the hash of the body that it
    needs (None for rsa-sha1, which is refused without one).  `domain`, `selector` and the domain of `identity` are
    A-labels.  With an error, the rest holds what could be read.
    """

    position: int
    error: Outcome | None = None
    domain: str = ""  # d=, the SDID
    selector: str = ""  # s=
    key_name: str = ""
    identity: str = ""  # i=, the AUID, decoded; "@" and d= where there is none
    identity_domain: str = ""
    algorithm: str = ""  # a=
    header_canonicalization: str = "simple"
    body_hash_key: BodyHashKey | None = None
    signed_fields: tuple[bytes, ...] = ()  # h=, lower case
    body_hash: bytes = b""  # bh=
    signature: bytes = b""  # b=
    signature_text: str = ""  # b= in base64, without white space
    timestamp: int | None = None  # t=, seconds since the epoch
    expiration: int | None = None  # x=, seconds since the epoch


def parse_signatures(message: Message, options: Dkim) -> tuple[Signature, ...]:
    """The topmost `options.max_signatures` signatures of the message, top first; never raises.

    How many there are in all: ``len(message.index.get(b"dkim-signature", ()))``.
    """
    positions = message.index.get(b"dkim-signature", ())[: options.max_signatures]
    return tuple(_parse(position, message.fields[position].value) for position in positions)


async def verify(
    message: Message,
    signatures: Sequence[Signature],
    dns: Resolver,
    now: float,
    options: Dkim,
    on_error: Callable[[str], None] = log.exception,
) -> list[AuthResult]:
    """One result for each of `signatures`, in their order; ``none`` if the message has no signature.

    `signatures` come from `parse_signatures`; if the message has more, one last ``policy`` says how many.
    `message.body_hashes` must have every `body_hash_key` of theirs, unless `message.oversized` says that the message was
    not examined whole: then they end as ``policy``.  `now` is in seconds since the epoch.  `identifier` of a result is d=.
    `on_error` is told of exceptions that nobody expected (they make the one signature a temperror).
    """
    count = len(message.index.get(b"dkim-signature", ()))
    if not count:
        return [AuthResult("dkim", Result.NONE)]
    early = [_before_query(signature, message, now, options) for signature in signatures]
    names = {s.key_name for s, outcome in zip(signatures, early, strict=True) if outcome is None}
    answers = await _ask(names, dns, on_error)
    forms: FieldForms = {}
    shown = _shown_length(signatures)
    results = []
    for signature, known in zip(signatures, early, strict=True):
        outcome = known
        if outcome is None:
            try:
                outcome = _verify(signature, answers[signature.key_name], message, options, forms)
            except Exception:  # one signature must not harm another
                on_error("DKIM verification failed")
                outcome = Result.TEMPERROR, "internal error"
        results.append(
            AuthResult("dkim", outcome[0], signature.domain, _properties(signature, shown), reason=outcome[1])
        )
    if count > len(signatures):
        results.append(
            AuthResult("dkim", Result.POLICY, reason=f"{count - len(signatures)} more signatures were not checked")
        )
    return results


# -- the field ---------------------------------------------------------------------------------------------------------


def _parse(position: int, value: bytes) -> Signature:
    found: dict[str, Any] = {}
    error: Outcome | None = None
    try:
        _read(value, found)
        # RFC 6376 section 5.4: From MUST be signed; section 6.1.1: a signature without is not to be accepted.
        if b"from" not in found["signed_fields"]:
            error = Result.POLICY, "From is not signed"
    except TagError as problem:
        error = Result.NEUTRAL, f"signature is malformed: {problem}"
    except Exception:  # one signature must not harm another
        log.exception("DKIM-Signature can't be read")
        error = Result.TEMPERROR, "internal error"
    return Signature(position, error, **found)


def _read(value: bytes, found: dict[str, Any]) -> None:
    """Fill the fields of Signature, those first that say whose it is; raises TagError for what is wrong.

    RFC 6376 section 6.1.1: implementers MUST meticulously validate the format and values of the field.
    """
    if len(value) > MAX_FIELD:
        raise TagError("too long")
    tags = parse_tags(value)
    if b"d" in tags:
        domain = found["domain"] = _domain(tags[b"d"], "d=")
        if "." not in domain:  # the grammar of domain-name asks for two labels
            raise TagError("d= is a single label")
        found["identity"] = "@" + domain
        found["identity_domain"] = domain
        if b"s" in tags:
            found["key_name"] = key_name(tags[b"s"], domain)
            if not found["key_name"]:
                raise TagError("s= is no selector")
            found["selector"] = found["key_name"].removesuffix(f"._domainkey.{domain}")
    algorithm = tags.get(b"a", b"").lower()
    if algorithm.replace(b"-", b"").isalnum() and len(algorithm) <= 32:
        found["algorithm"] = algorithm.decode()
    if b"b" in tags:
        found["signature"] = _base64(tags[b"b"], "b=")
        found["signature_text"] = drop_fws(tags[b"b"]).decode()
    for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s"):
        if name not in tags:
            raise TagError(f"no {name.decode()}=")
    if tags[b"v"] != b"1":
        raise TagError("v= is not 1")
    if algorithm not in _ALGORITHMS:
        raise TagError("a= is unknown")
    if b"i" in tags:
        found["identity"], found["identity_domain"] = _identity(tags[b"i"], domain)
    canonicalization, slash, body_canonicalization = tags.get(b"c", b"simple").lower().partition(b"/")
    if not slash:
        body_canonicalization = b"simple"  # RFC 6376 section 3.5: where one name is given, and by default
    if not {canonicalization, body_canonicalization} <= {b"simple", b"relaxed"}:
        raise TagError("c= is unknown")
    found["header_canonicalization"] = canonicalization.decode()
    if b"q" in tags and b"dns/txt" not in split_list(tags[b"q"].lower()):
        raise TagError("q= is unknown")
    found["signed_fields"] = _field_names(tags[b"h"])
    found["body_hash"] = _base64(tags[b"bh"], "bh=")
    length = _number(tags, b"l", 76)
    timestamp = found["timestamp"] = _number(tags, b"t", 12)
    expiration = found["expiration"] = _number(tags, b"x", 12)
    if timestamp is not None and expiration is not None and expiration <= timestamp:
        raise TagError("x= is not after t=")  # RFC 6376 section 3.5
    if algorithm != b"rsa-sha1":
        found["body_hash_key"] = BodyHashKey(body_canonicalization.decode(), length)


def _domain(value: bytes, tag: str) -> str:
    """A-label form (RFC 8616 section 4: domains and selectors may be U-labels)."""
    domain = "" if value.endswith(b".") else to_ascii_domain(value)
    if not domain:
        raise TagError(f"{tag} is no domain name")
    return domain


def _base64(value: bytes, tag: str) -> bytes:
    try:
        return decode_base64(value)
    except TagError as problem:
        raise TagError(f"{tag} is {problem}") from None


def _number(tags: Mapping[bytes, bytes], name: bytes, digits: int) -> int | None:
    text = tags.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > digits:
        raise TagError(f"{name.decode()}= is no number")
    return int(text)


def _field_names(value: bytes) -> tuple[bytes, ...]:
    names = split_list(value.lower())
    if not all(names) or b"".join(names).translate(None, _FIELD_NAME):
        raise TagError("h= is no list of field names")
    return tuple(names)


def _identity(value: bytes, domain: str) -> tuple[str, str]:
    """The AUID as text, and its domain, which must be d= or a subdomain of it (RFC 6376 section 3.5)."""
    local_part, at, name = _unquote(drop_fws(value)).rpartition(b"@")
    if not at:
        raise TagError("i= has no @")
    identity_domain = _domain(name, "i=")
    if identity_domain != domain and not identity_domain.endswith("." + domain):
        raise TagError("i= is not within d=")
    text = local_part.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        raise TagError("i= has control characters")
    return f"{text}@{identity_domain}", identity_domain


def _unquote(value: bytes) -> bytes:
    """Undo dkim-quoted-printable (RFC 6376 section 2.11)."""
    first, *rest = value.split(b"=")
    octets = [first]
    try:
        for part in rest:
            if len(part) < 2:
                raise TagError("i= is not quoted-printable")
            octets += (binascii.unhexlify(part[:2]), part[2:])
    except binascii.Error:
        raise TagError("i= is not quoted-printable") from None
    return b"".join(octets)


# -- rules and key -----------------------------------------------------------------------------------------------------


def _before_query(signature: Signature, message: Message, now: float, options: Dkim) -> Outcome | None:
    """What can be said without the key; None if the key decides."""
    if signature.error:
        return signature.error
    if signature.expiration is not None and signature.expiration + options.clock_skew < now:
        return Result.POLICY, "signature has expired"
    if signature.timestamp is not None and signature.timestamp - options.clock_skew > now:
        return Result.POLICY, "signature was made in the future"
    if message.oversized:
        # What was cut off could be signed, or could be text added to a signed message: neither pass nor fail is known.
        return Result.POLICY, "message is too large to be checked"
    return None


async def _ask(
    names: Collection[str], dns: Resolver, on_error: Callable[[str], None]
) -> Mapping[str, Answer | DnsTempError]:
    """The answers about all keys, asked for at once."""

    async def query(name: str) -> Answer | DnsTempError:
        try:
            return await dns.query(name, "TXT")
        except DnsTempError as error:
            return error
        except Exception as error:
            on_error("DKIM key query failed")
            return DnsTempError(str(error))

    answers: dict[str, Answer | DnsTempError] = {}
    unknown = []
    for name in names:
        known = dns.known(name, "TXT")
        if known is None:
            unknown.append(name)
        else:
            answers[name] = known
    if len(unknown) == 1:  # no task for what is nearly every message
        answers[unknown[0]] = await query(unknown[0])
    elif unknown:
        answers.update(zip(unknown, await asyncio.gather(*map(query, unknown)), strict=True))
    return answers


def _refuse_key(key: KeyRecord, signature: Signature, options: Dkim) -> Outcome | None:
    """Why this key is not for this signature (RFC 6376 section 6.1.2); None if it is."""
    if key.problem:
        return Result.PERMERROR, key.problem
    if key.kind != signature.algorithm.partition("-")[0]:
        return Result.PERMERROR, "key is of another type than a="
    if not key.sha256 and signature.algorithm != "rsa-sha1":
        return Result.PERMERROR, "key does not allow sha256"
    if key.strict and signature.identity_domain != signature.domain:
        return Result.PERMERROR, "key is not for subdomains in i="  # RFC 6376 section 3.6.1, t=s
    if key.kind == "rsa" and key.bits < options.min_key_bits:
        return Result.POLICY, f"key of {key.bits} bits is too small"  # RFC 8301 section 3.2
    if signature.algorithm == "rsa-sha1":
        return Result.POLICY, "rsa-sha1 is not accepted"  # RFC 8301 section 3.1: MUST NOT be used for verifying
    return None


# -- the signature -----------------------------------------------------------------------------------------------------


def _verify(
    signature: Signature, answer: Answer | DnsTempError, message: Message, options: Dkim, forms: FieldForms
) -> Outcome:
    if isinstance(answer, DnsTempError):
        return Result.TEMPERROR, f"no answer from the DNS about {signature.key_name}"
    if not answer.records:
        return Result.PERMERROR, f"no key at {signature.key_name}"
    keys: list[KeyRecord] = []
    refusals: list[Outcome] = []
    # RFC 6376 section 6.1.2: with several records, each may be tried.
    for record in answer.records[:MAX_KEY_RECORDS]:
        key = parse_key_record(record if isinstance(record, bytes) else record.encode())
        refusal = _refuse_key(key, signature, options)
        if refusal is None:
            keys.append(key)
        else:
            refusals.append(refusal)
    if not keys or signature.body_hash_key is None:
        return refusals[0]
    testing = "key is in test mode" if keys[0].testing else ""
    body = message.body_hashes[signature.body_hash_key]
    length = signature.body_hash_key.length
    if body.digest != signature.body_hash or (length or 0) > body.total:
        return Result.FAIL, _join("body has changed", testing)
    data = _signed_data(signature, message, forms)
    for key in keys:
        if _is_signed_by(key, signature.signature, data):
            testing = "key is in test mode" if key.testing else ""
            if length is not None and length < body.total:
                # RFC 6376 section 8.2: whoever forwards the message can add what he likes.
                return Result.POLICY, _join(f"{body.total - length} octets of the body are not signed (l=)", testing)
            return Result.PASS, testing
    return Result.FAIL, _join("header has changed", testing)


def _signed_data(signature: Signature, message: Message, forms: FieldForms) -> bytes:
    """What was signed: the fields that h= names, then the signature field itself (RFC 6376 section 3.7)."""
    canonicalization = signature.header_canonicalization
    canonical = HEADER[canonicalization]
    fields, index = message.fields, message.index
    parts = []
    left: dict[bytes, int] = {}
    for name in signature.signed_fields:
        positions = index.get(name)
        if positions is None:
            continue  # RFC 6376 section 3.5: a field that is not there counts as the null string
        # RFC 6376 section 5.4.2: each mention of a name takes the next field of that name, from the bottom up.
        at = left.get(name, len(positions)) - 1
        if at >= 0 and positions[at] == signature.position:
            at -= 1  # h= can't mean the signature itself
        if at < 0:
            continue
        left[name] = at
        form = forms.get((canonicalization, positions[at]))
        if form is None:
            form = forms[canonicalization, positions[at]] = canonical(fields[positions[at]])
        parts.append(form)
    name, value = fields[signature.position]
    parts.append(canonical(HeaderField(name, _without_signature(value))).removesuffix(b"\r\n"))
    return b"".join(parts)


def _without_signature(value: bytes) -> bytes:
    """The field without the value of b= and the white space around it, and with all else (RFC 6376 section 3.7)."""
    parts = value.split(b";")
    for i, part in enumerate(parts):
        name, equals, _ = part.partition(b"=")
        if name.strip(b" \t\r\n") == b"b":
            parts[i] = name + equals
    return b";".join(parts)


def _is_signed_by(key: KeyRecord, signature: bytes, data: bytes) -> bool:
    public = key.public
    assert public is not None
    try:
        if isinstance(public, RSAPublicKey):
            public.verify(signature, data, _PKCS1, _SHA256)
        else:
            public.verify(signature, sha256(data).digest())  # RFC 8463 section 3
    except InvalidSignature:
        return False
    return True


# -- what is shown -----------------------------------------------------------------------------------------------------


def _join(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _properties(signature: Signature, shown: int) -> dict[str, str]:
    """The properties of RFC 8601 section 2.7.1 and RFC 6008, those that are known."""
    properties = {
        "header.d": signature.domain,
        "header.i": signature.identity,
        "header.s": signature.selector,
        "header.a": signature.algorithm,
        "header.b": signature.signature_text[:shown],
    }
    return {name: value for name, value in properties.items() if value}


def _shown_length(signatures: Sequence[Signature]) -> int:
    """How much of b= tells the signatures apart: 8 characters, or more (RFC 6008 section 4), at most 64."""
    texts = {signature.signature_text for signature in signatures}
    length = 8
    while length < 64 and len({text[:length] for text in texts}) < len(texts):
        length += 1
    return length
