"""DKIM verification (RFC 6376 with RFC 8301, 8463 and 8616).

Every signature is judged by itself, in the order of RFC 6376 section 6.1: first the field (6.1.1), then the key (6.1.2),
then rules, body hash and signature (6.1.3).  The words are those of RFC 8601 section 2.7.1:

* ``neutral``: the signature field is malformed, or asks for what nobody knows;
* ``temperror``: the DNS gave no answer about the key;
* ``permerror``: the key is missing, revoked, unusable, or not for this use;
* ``policy``: refused by a rule, whatever the mathematics say: rsa-sha1, a small key, expired or signed in the future, From
  not signed, a second Subject (or another field that may stand once) beside the signed one, text after the part of the
  body that l= covers, a message too large to be looked at whole;
* ``fail``: body or header are not what was signed.
"""

import binascii
import logging
from collections.abc import Callable, Mapping, Sequence

from authmilter.auth.canonical import BodyHasher, BodyHashes
from authmilter.auth.signature import (
    FieldForms,
    Outcome,
    Signature,
    ask_keys,
    before_query,
    read_coverage,
    read_domain,
    read_signer,
    read_tags,
    require,
    verify_message_signature,
)
from authmilter.auth.taglist import TagError, drop_fws
from authmilter.config.schema import Dkim
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Resolver
from authmilter.model import Message

__all__ = ["BodyHasher", "BodyHashes", "Signature", "parse_signatures", "verify"]

log = logging.getLogger(__name__)

_NONE = AuthResult("dkim", Result.NONE)
# Fields that may stand once (RFC 5322 section 3.6, RFC 2045 section 3).
_ONCE = dict.fromkeys((
    b"from", b"subject", b"date", b"to", b"cc", b"reply-to", b"sender", b"message-id", b"in-reply-to", b"references",
    b"mime-version", b"content-type", b"content-transfer-encoding",
))  # fmt: skip


def parse_signatures(
    message: Message, options: Dkim, on_error: Callable[[str], None] = log.exception
) -> tuple[Signature, ...]:
    """The topmost `options.max_signatures` signatures of the message, top first; never raises.

    How many there are in all: ``len(message.index.get(b"dkim-signature", ()))``.
    """
    positions = message.index.get(b"dkim-signature", ())[: options.max_signatures]
    return tuple([_parse(position, message.fields[position].value, on_error) for position in positions])


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
        return [_NONE]
    doubled = _doubled(message.index)
    judged = [
        (signature, before_query(signature, message, now, options) or _refuse_doubled(signature, doubled))
        for signature in signatures
    ]
    answers = await ask_keys({signature.key_name for signature, early in judged if early is None}, dns, on_error)
    forms: FieldForms = {}
    shown = _shown_length(signatures)
    results = []
    for signature, early in judged:
        outcome = early
        if outcome is None:
            try:
                outcome = verify_message_signature(signature, answers[signature.key_name], message, options, forms)
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


def _doubled(index: Mapping[bytes, Sequence[int]]) -> dict[bytes, int]:
    """The fields that may stand once and do not: how often they stand there."""
    repeated = [name for name, positions in index.items() if len(positions) > 1]
    if _ONCE.keys().isdisjoint(repeated):
        return {}
    return {name: len(index[name]) for name in _ONCE if name in repeated}


def _refuse_doubled(signature: Signature, doubled: Mapping[bytes, int]) -> Outcome | None:
    """Refuse a signature that covers one of several fields of a name that may stand once; `doubled` counts them.

    RFC 6376 section 3.8: a message that is not valid SHOULD NOT be validated; section 8.15: whoever forwards it can put
    a second Subject above the signed one, and readers show the first.  If all are signed they are the signer's will.
    """
    for name, times in doubled.items():
        if 0 < signature.signed_fields.count(name) < times:
            return Result.POLICY, f"{times} {name.decode()} fields, not all of them signed"
    return None


# -- the field ---------------------------------------------------------------------------------------------------------


def _parse(position: int, value: bytes, on_error: Callable[[str], None]) -> Signature:
    signature = Signature(position)
    try:
        _read(value, signature)
        # RFC 6376 section 5.4: From MUST be signed; section 6.1.1: a signature without is not to be accepted.
        if b"from" not in signature.signed_fields:
            signature.error = Result.POLICY, "From is not signed"
    except TagError as problem:
        signature.error = Result.NEUTRAL, f"signature is malformed: {problem}"
    except Exception:  # one signature must not harm another
        on_error("DKIM-Signature can't be read")
        signature.error = Result.TEMPERROR, "internal error"
    return signature


def _read(value: bytes, found: Signature) -> None:
    """Fill in the signature, first whose it is; raises TagError for what is wrong."""
    tags = read_tags(value)
    read_signer(tags, found)
    require(tags, b"v", b"a", b"b", b"bh", b"d", b"h", b"s")
    if tags[b"v"] != b"1":
        raise TagError("v= is not 1")
    if b"i" in tags:
        found.identity, found.identity_domain = _identity(tags[b"i"], found.domain)
    read_coverage(tags, found)


def _identity(value: bytes, domain: str) -> tuple[str, str]:
    """The AUID as text, and its domain, which must be d= or a subdomain of it (RFC 6376 section 3.5)."""
    local_part, at, name = _unquote(drop_fws(value)).rpartition(b"@")
    if not at:
        raise TagError("i= has no @")
    identity_domain = read_domain(name, "i=")
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


# -- what is shown -----------------------------------------------------------------------------------------------------


def _properties(signature: Signature, shown: int) -> dict[str, str]:
    """The properties of RFC 8601 section 2.7.1 and RFC 6008, those that are known."""
    properties = {
        "header.d": signature.domain,
        "header.i": signature.identity,
        "header.s": signature.selector,
        "header.a": signature.algorithm,
        "header.b": signature.signature_text[:shown],
    }
    if signature.error is None:  # then all are known
        return properties
    return {name: value for name, value in properties.items() if value}


def _shown_length(signatures: Sequence[Signature]) -> int:
    """How much of b= tells the signatures apart: 8 characters, or more (RFC 6008 section 4), at most 64."""
    length = 8
    if len(signatures) == 1:
        return length
    texts = {signature.signature_text for signature in signatures}
    while length < 64 and len({text[:length] for text in texts}) < len(texts):
        length += 1
    return length
