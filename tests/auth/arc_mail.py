"""Messages with ARC chains, for the tests: validated, and made with any tags."""

import re
from base64 import b64encode
from collections.abc import Iterable

from authmilter.auth.arc import MAX_SETS, ArcResult, Chain, parse_chain, verify
from authmilter.auth.canonical import HEADER, relaxed_field
from authmilter.auth.keys import PrivateKey
from authmilter.auth.signing import make_signature
from authmilter.config.schema import Dkim
from authmilter.interfaces import Resolver
from authmilter.model import BodyHashKey, HeaderField, Message
from authmilter.verdict import HeaderEdit
from tests.auth.mail import MESSAGE, NOW, hashed, record, rsa_key, split
from tests.fakes import FakeDNS

OPTIONS = Dkim()
RELAXED = BodyHashKey("relaxed", None)
RESULTS = "mx.example; spf=pass smtp.mfrom=ann@example.org; dmarc=pass header.from=example.org"
DOMAINS = ("first.example", "second.example", "third.example", "fourth.example", "fifth.example")
KEY = rsa_key(1024)  # small, since some tests make hundreds of signatures


def zone(*domains: str, key: PrivateKey = KEY) -> FakeDNS:
    """The key of these tests for all its sealers, or for these."""
    return FakeDNS({f"arc._domainkey.{domain} TXT": [record(key)] for domain in domains or DOMAINS})


def message_of(raw: bytes, oversized: str = "") -> tuple[Chain, Message]:
    """The chain and the message, with the hashes that validating and sealing need."""
    fields, body = split(raw)
    chain = parse_chain(Message(fields))
    return chain, hashed(fields, body, {*chain.body_hash_keys, RELAXED}, oversized=oversized)


async def validate(
    raw: bytes,
    dns: Resolver,
    *,
    now: float = NOW,
    oversized: str = "",
    max_sets: int = MAX_SETS,
    client_ip: str = "192.0.2.1",
) -> ArcResult:
    """The ARC result of a message with CRLF line ends; an unexpected exception within fails the test."""
    fields, body = split(raw)
    chain = parse_chain(Message(fields), max_sets)
    message = hashed(fields, body, chain.body_hash_keys, oversized=oversized)
    unexpected: list[str] = []
    result = await verify(chain, message, dns, now, OPTIONS, client_ip, unexpected.append)
    assert not unexpected, unexpected
    assert "internal error" not in result.result.reason
    return result


def apply(edits: Iterable[HeaderEdit], raw: bytes) -> bytes:
    """The message as the MTA sends it: a blank after the colon, folds with CRLF."""
    for edit in edits:
        assert (edit.op, edit.at) == ("insert", 0)
        raw = f"{edit.name}: {edit.value}".replace("\n", "\r\n").encode() + b"\r\n" + raw
    return raw


def add_set(
    raw: bytes,
    *,
    i: int = 0,
    domain: str = "",
    key: PrivateKey = KEY,
    aar: str | None = None,
    ams: dict[str, str | None] | None = None,
    seal: dict[str, str | None] | None = None,
) -> bytes:
    """The message with one more set on top, that of DOMAINS in turn, or of `domain`.

    `ams` and `seal` change tags, None takes one away; what is signed follows the changed tags, but for `bh` and `b`,
    which replace what would be right.  `aar` is the whole value.
    """
    fields, body = split(raw)
    older = [field for field in fields if field.name.lower().startswith(b"arc-")]
    i = i or len(older) // 3 + 1
    domain = domain or DOMAINS[(i - 1) % len(DOMAINS)]
    algorithm = "rsa-sha256" if hasattr(key, "key_size") else "ed25519-sha256"
    common: dict[str, str | None] = {"i": str(i), "a": algorithm, "d": domain, "s": "arc"}

    results = HeaderField(b"ARC-Authentication-Results", f" i={i}; {RESULTS}".encode() if aar is None else aar.encode())
    tags = {**common, "c": "relaxed/relaxed", "h": "from:to:subject:date", **(ams or {})}
    header, _, body_form = (tags["c"] or "relaxed/relaxed").partition("/")
    form = BodyHashKey(body_form, int(tags["l"] or 0) if tags.get("l") else None)
    tags.setdefault("bh", b64encode(hashed(fields, body, [form]).body_hashes[form].digest).decode())
    signature = _signed("ARC-Message-Signature", tags, _covered(fields, tags["h"] or "", header), header, key)

    tags = {**common, "cv": "none" if i == 1 else "pass", **(seal or {})}
    chain = sorted(older, key=_place) if tags["cv"] != "fail" else []
    data = b"".join(map(relaxed_field, [*chain, results, signature]))
    sealed = _signed("ARC-Seal", tags, data, "relaxed", key)
    return b"".join(field.raw for field in (sealed, signature, results)) + raw


def _place(field: HeaderField) -> tuple[int, bytes]:
    """The instance, then AAR before AMS before AS, as the alphabet happens to have them."""
    found = re.search(rb"\bi=(\d+)", field.value)
    return int(found[1]) if found else 0, field.name.lower()


def _covered(fields: tuple[HeaderField, ...], names: str, form: str) -> bytes:
    """The fields that h= names, from the bottom up."""
    left: dict[bytes, list[HeaderField]] = {}
    for field in fields:
        left.setdefault(field.name.strip().lower(), []).append(field)
    data = b""
    for name in names.split(":"):
        same = left.get(name.strip().lower().encode())
        data += HEADER[form](same.pop()) if same else b""
    return data


def _signed(name: str, tags: dict[str, str | None], data: bytes, form: str, key: PrivateKey) -> HeaderField:
    given = tags.pop("b", "")
    value = " " + "; ".join(f"{tag}={text}" for tag, text in tags.items() if text is not None)
    value += "; b=" if given is not None else ""
    data += HEADER[form](HeaderField(name.encode(), value.encode())).removesuffix(b"\r\n")
    return HeaderField(name.encode(), (value + (given or b64encode(make_signature(key, data)).decode())).encode())


def chain_of(count: int, raw: bytes = MESSAGE) -> bytes:
    """A message with that many sets, all in order."""
    for _ in range(count):
        raw = add_set(raw)
    return raw
