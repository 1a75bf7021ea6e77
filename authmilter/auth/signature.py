"""What the fields DKIM-Signature, ARC-Message-Signature and ARC-Seal have in common (RFC 6376, RFC 8617 section 4.1).

Their tags, the key that they name, and the verification itself.  Results are in the words of DKIM (RFC 8601 section
2.7.1), which `authmilter.auth.dkim` explains.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from authmilter.addresses import to_ascii_domain
from authmilter.auth.canonical import HEADER
from authmilter.auth.keys import KeyRecord, key_name, parse_key_record
from authmilter.auth.taglist import TagError, decode_text, drop_fws, parse_tags, split_list
from authmilter.config.schema import Dkim
from authmilter.errors import DnsTempError
from authmilter.evidence import Result
from authmilter.interfaces import Answer, Resolver
from authmilter.model import BodyHashKey, HeaderField, Message

Outcome = tuple[Result, str]  # a result with its reason
FieldForms = dict[str, dict[int, bytes]]  # canonicalization -> position -> canonical field, shared by all signatures

MAX_FIELD = 32 * 1024  # octets of a signature field; real ones stay under 4,000
MAX_KEY_RECORDS = 5  # records at one name that are read
MAX_KEYS = 2  # usable keys that are tried: one is right, a second may appear while keys are changed
_ALGORITHMS = {name.encode(): name for name in ("rsa-sha256", "ed25519-sha256", "rsa-sha1")}
# c= -> the form of the header and the hash of the body.  RFC 6376 section 3.5: where one name is given, the body is simple.
_CANONICALIZATIONS = {
    b"%b%b" % (header.encode(), given): (header, BodyHashKey(body, None))
    for header in ("simple", "relaxed")
    for given, body in ((b"", "simple"), (b"/simple", "simple"), (b"/relaxed", "relaxed"))
}
_FIELD_NAME = bytes(range(33, 58)) + bytes(range(60, 127)) + bytes(range(0x80, 0x100))  # RFC 5322 ftext, RFC 6532
_PKCS1 = PKCS1v15()
_DIGEST = Prehashed(SHA256())


@dataclass(slots=True)
class Signature:
    """A signature field (RFC 6376 section 3.5, RFC 8617 section 4.1); it changes only while it is read.

    `position` is its place in ``message.fields``.  `error` is the result that the field alone brings about, None if the
    signature has to be verified; then `key_name` is where its key is, and `body_hash_key` the hash of the body that it
    needs (None for rsa-sha1, which is refused without one, and for an ARC-Seal, which covers no body).  `domain`,
    `selector` and the domain of `identity` are A-labels.  With an error, the rest holds what could be read.
    """

    position: int
    error: Outcome | None = None
    domain: str = ""  # d=, the SDID
    selector: str = ""  # s=
    key_name: str = ""
    identity: str = ""  # i= of DKIM, the AUID, decoded; "@" and d= where there is none
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


# -- the field ---------------------------------------------------------------------------------------------------------

# RFC 6376 section 6.1.1: implementers MUST meticulously validate the format and values of the field.  The functions here
# put what they read into a Signature, and raise TagError for what is wrong.


def read_tags(value: bytes) -> dict[bytes, bytes]:
    """The tags of a signature field."""
    if len(value) > MAX_FIELD:
        raise TagError("too long")
    return parse_tags(value)


def read_signer(tags: Mapping[bytes, bytes], found: Signature) -> None:
    """Whose signature it is, by which algorithm, and the signature: d= s= a= b=, those that are there."""
    if b"d" in tags:
        domain = found.domain = read_domain(tags[b"d"], "d=")
        if "." not in domain:  # the grammar of domain-name asks for two labels
            raise TagError("d= is a single label")
        found.identity = "@" + domain
        found.identity_domain = domain
        if b"s" in tags:
            found.key_name = key_name(tags[b"s"], domain)
            if not found.key_name:
                raise TagError("s= is no selector")
            found.selector = found.key_name.removesuffix(f"._domainkey.{domain}")
    algorithm = tags.get(b"a", b"").lower()
    if algorithm in _ALGORITHMS:
        found.algorithm = _ALGORITHMS[algorithm]
    elif algorithm.replace(b"-", b"").isalnum() and len(algorithm) <= 32:
        found.algorithm = algorithm.decode()
    if b"b" in tags:
        text = drop_fws(tags[b"b"])
        found.signature = _base64(text, "b=")
        found.signature_text = text.decode()


def require(tags: Mapping[bytes, bytes], *names: bytes) -> None:
    """All these tags must be there, and a= known."""
    for name in names:
        if name not in tags:
            raise TagError(f"no {name.decode()}=")
    if tags[b"a"].lower() not in _ALGORITHMS:
        raise TagError("a= is unknown")


def read_coverage(tags: Mapping[bytes, bytes], found: Signature, *, blank_names: bool = False) -> None:
    """What is signed, and for how long: c= q= h= bh= l= t= x=; `blank_names` lets h= have items without a name."""
    forms = _CANONICALIZATIONS.get(tags.get(b"c", b"simple").lower())
    if forms is None:
        raise TagError("c= is unknown")
    found.header_canonicalization, body_hash_key = forms
    if b"q" in tags and b"dns/txt" not in split_list(tags[b"q"].lower()):
        raise TagError("q= is unknown")
    names = tags[b"h"].lower().split(b":")
    if b"".join(names).translate(None, _FIELD_NAME):
        names = [name.strip() for name in names]
        if b"".join(names).translate(None, _FIELD_NAME):
            raise TagError("h= is no list of field names")
    if not all(names):
        names = [name for name in names if name]
        if not blank_names:
            raise TagError("h= is no list of field names")
    found.signed_fields = tuple(names)
    found.body_hash = _base64(drop_fws(tags[b"bh"]), "bh=")
    length = _number(tags, b"l", 76)
    read_timestamp(tags, found)
    timestamp, expiration = found.timestamp, _number(tags, b"x", 12)
    if timestamp is not None and expiration is not None and expiration <= timestamp:
        raise TagError("x= is not after t=")  # RFC 6376 section 3.5
    found.expiration = expiration
    if found.algorithm != "rsa-sha1":
        found.body_hash_key = body_hash_key if length is None else body_hash_key._replace(length=length)


def read_timestamp(tags: Mapping[bytes, bytes], found: Signature) -> None:
    """When it was signed: t=."""
    found.timestamp = _number(tags, b"t", 12)


def read_domain(value: bytes, tag: str) -> str:
    """A-label form (RFC 8616 section 4: domains and selectors may be U-labels)."""
    domain = "" if value.endswith(b".") else to_ascii_domain(value)
    if not domain:
        raise TagError(f"{tag} is no domain name")
    return domain


def _base64(text: bytes, tag: str) -> bytes:
    try:
        return decode_text(text)
    except TagError as problem:
        raise TagError(f"{tag} is {problem}") from None


def _number(tags: Mapping[bytes, bytes], name: bytes, digits: int) -> int | None:
    text = tags.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > digits:
        raise TagError(f"{name.decode()}= is no number")
    return int(text)


# -- rules and key -----------------------------------------------------------------------------------------------------


def before_query(signature: Signature, message: Message, now: float, options: Dkim) -> Outcome | None:
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


async def ask_keys(
    names: Collection[str], dns: Resolver, on_error: Callable[[str], None]
) -> dict[str, Answer | DnsTempError]:
    """The answers about all keys; those that are not known are asked for at once."""
    answers: dict[str, Answer | DnsTempError] = {}
    unknown = []
    for name in names:
        known = dns.known(name, "TXT")
        if known is None:
            unknown.append(name)
        else:
            answers[name] = known
    if len(unknown) == 1:  # no task for what is nearly every message
        answers[unknown[0]] = await _ask_key(unknown[0], dns, on_error)
    elif unknown:
        asked = await asyncio.gather(*(_ask_key(name, dns, on_error) for name in unknown))
        answers.update(zip(unknown, asked, strict=True))
    return answers


async def _ask_key(name: str, dns: Resolver, on_error: Callable[[str], None]) -> Answer | DnsTempError:
    try:
        return await dns.query(name, "TXT")
    except DnsTempError as error:
        return error
    except Exception as error:
        on_error("DKIM key query failed")
        return DnsTempError(str(error))


def usable_keys(signature: Signature, answer: Answer | DnsTempError, options: Dkim) -> list[KeyRecord] | Outcome:
    """The keys that may verify the signature; the result if there is none."""
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
    return keys[:MAX_KEYS] or refusals[0]


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


def verify_message_signature(
    signature: Signature, answer: Answer | DnsTempError, message: Message, options: Dkim, forms: FieldForms
) -> Outcome:
    """Verify a signature over header fields and body with the key that the DNS has (RFC 6376 section 6.1.3)."""
    keys = usable_keys(signature, answer, options)
    if isinstance(keys, tuple):
        return keys
    assert signature.body_hash_key is not None  # keys for rsa-sha1 are refused
    testing = "key is in test mode" if keys[0].testing else ""
    body = message.body_hashes[signature.body_hash_key]
    length = signature.body_hash_key.length
    if body.digest != signature.body_hash or (length or 0) > body.total:
        return Result.FAIL, _join("body has changed", testing)
    digest = sha256(_signed_data(signature, message, forms)).digest()
    for key in keys:
        if is_signed_by(key, signature.signature, digest):
            testing = "key is in test mode" if key.testing else ""
            if length is not None and length < body.total:
                # RFC 6376 section 8.2: whoever forwards the message can add what he likes.
                return Result.POLICY, _join(f"{body.total - length} octets of the body are not signed (l=)", testing)
            return Result.PASS, testing
    return Result.FAIL, _join("header has changed", testing)


def _signed_data(signature: Signature, message: Message, forms: FieldForms) -> bytes:
    """What was signed: the fields that h= names, then the signature field itself (RFC 6376 section 3.7)."""
    index = message.index
    positions = []
    left: dict[bytes, int] = {}
    for name in signature.signed_fields:
        own = index.get(name)
        if own is None:
            continue  # RFC 6376 section 3.5: a field that is not there counts as the null string
        # RFC 6376 section 5.4.2: each mention of a name takes the next field of that name, from the bottom up.
        at = left.get(name, len(own)) - 1
        if at >= 0 and own[at] == signature.position:
            at -= 1  # h= can't mean the signature itself
        if at >= 0:
            left[name] = at
            positions.append(own[at])
    parts = canonical_forms(message, signature.header_canonicalization, positions, forms)
    parts.append(unsigned_form(message.fields[signature.position], signature.header_canonicalization))
    return b"".join(parts)


def canonical_forms(
    message: Message, canonicalization: str, positions: Iterable[int], forms: FieldForms
) -> list[bytes]:
    """The canonical forms of the fields at these positions, each made once for all who share `forms`."""
    known = forms.setdefault(canonicalization, {})
    canonical = HEADER[canonicalization]
    parts = []
    for position in positions:
        form = known.get(position)
        if form is None:
            form = known[position] = canonical(message.fields[position])
        parts.append(form)
    return parts


def unsigned_form(field: HeaderField, canonicalization: str) -> bytes:
    """A signature field as it is signed itself: without the value of b= and its final CRLF (RFC 6376 section 3.7).

    `read_tags` must have accepted it: then b= is there once, and all white space is SP, HTAB and folds.
    """
    parts = field.value.split(b";")
    for i in reversed(range(len(parts))):  # usually it is the last
        name, equals, _ = parts[i].partition(b"=")
        if name.strip() == b"b":
            parts[i] = name + equals  # the white space around the value goes too, all else stays
            break
    value = b";".join(parts)
    if canonicalization == "simple":
        return field.name + b":" + value
    return field.name.strip(b" \t").lower() + b":" + b" ".join(value.split())


def is_signed_by(key: KeyRecord, signature: bytes, digest: bytes) -> bool:
    """Whether that key made the signature of what has this SHA-256."""
    public = key.public
    assert public is not None
    try:
        if isinstance(public, RSAPublicKey):
            public.verify(signature, digest, _PKCS1, _DIGEST)
        else:
            public.verify(signature, digest)  # RFC 8463 section 3
    except InvalidSignature:
        return False
    return True


def _join(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
