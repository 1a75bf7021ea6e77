"""Messages for the tests of DKIM, and the data that is shared by several projects."""

import json
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authmilter.auth.canonical import HEADER, BodyHashes
from authmilter.auth.dkim import parse_signatures, verify
from authmilter.auth.keys import PrivateKey
from authmilter.config.schema import Dkim
from authmilter.evidence import AuthResult
from authmilter.interfaces import Resolver
from authmilter.model import BodyHashKey, HeaderField, Message

OPTIONS = Dkim()
NOW = 1_700_000_000  # seconds since the epoch, the clock of these tests; in the past, since dkimpy knows the time


def load_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def crlf(raw: bytes) -> bytes:
    """The message with every line end as CRLF."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def split(raw: bytes) -> tuple[tuple[HeaderField, ...], bytes]:
    """Header fields and body of a message with CRLF line ends; lines that are no field are left out."""
    head, _, body = raw.partition(b"\r\n\r\n") if not raw.startswith(b"\r\n") else (b"", b"", raw[2:])
    if not body and not head.endswith(b"\r\n"):
        head += b"\r\n"
    unfolded: list[bytes] = []
    for line in head.removesuffix(b"\r\n").split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and unfolded:
            unfolded[-1] += b"\r\n" + line
        elif line:
            unfolded.append(line)
    fields = [f.partition(b":") for f in unfolded if b":" in f]
    return tuple(HeaderField(name, value) for name, _, value in fields), body


def hashed(
    fields: tuple[HeaderField, ...],
    body: bytes,
    keys: Iterable[BodyHashKey],
    *,
    chunk: int = 65535,
    oversized: str = "",
) -> Message:
    """The message with these hashes of its body, which came in chunks of that size."""
    hashes = BodyHashes(keys)
    for start in range(0, len(body), chunk):
        hashes.update(body[start : start + chunk])
    return Message(fields, body_size=len(body), body_hashes=hashes.finish(), oversized=oversized)


async def check(
    raw: bytes, dns: Resolver, *, now: float = NOW, options: Dkim = OPTIONS, chunk: int = 65535, oversized: str = ""
) -> list[AuthResult]:
    """The DKIM results of a message with CRLF line ends; an unexpected exception within fails the test."""
    fields, body = split(raw)
    signatures = parse_signatures(Message(fields), options)
    keys = {s.body_hash_key for s in signatures if s.body_hash_key}
    message = hashed(fields, body, keys, chunk=chunk, oversized=oversized)
    unexpected: list[str] = []
    results = await verify(message, signatures, dns, now, options, unexpected.append)
    assert not unexpected, unexpected
    assert not any("internal error" in result.reason for result in results)
    return results


# -- signatures with any tags, for the rules that no proper signer lets one break --------------------------------------

MESSAGE = (
    b"From: Ann <ann@example.org>\r\n"
    b"To: bob@example.net\r\n"
    b"Subject: Tide  table\r\n"
    b"\tfor May\r\n"
    b"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n"
    b"\r\n"
    b"Hello  Bob,\r\n"
    b"\r\n"
    b"high water is at \t6. \r\n"
    b"\r\n"
    b"\r\n"
)


@cache
def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    """An RSA key, the same each time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ed25519_key() -> Ed25519PrivateKey:
    """An Ed25519 key, the same each time."""
    return Ed25519PrivateKey.generate()


def record(key: PrivateKey, *tags: str) -> str:
    """The key record of a private key, with more tags in front of p=."""
    if isinstance(key, RSAPrivateKey):
        kind = "rsa"
        octets = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind = "ed25519"
        octets = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return "; ".join(["v=DKIM1", f"k={kind}", *tags, f"p={b64encode(octets).decode()}"])


def sign(raw: bytes, key: PrivateKey, template: str = "", /, *, b: str | None = None, **tags: str | None) -> bytes:
    """The message with a signature on top.

    `tags` change tags of the signature, None takes one away; `bh` and `b` are computed if not given.  `template` is put
    in front of the tags as it is.
    """
    fields, body = split(raw)
    algorithm = "rsa-sha256" if isinstance(key, RSAPrivateKey) else "ed25519-sha256"
    wanted: dict[str, str | None] = {
        "v": "1", "a": algorithm, "c": "relaxed/relaxed", "d": "example.org", "s": "sel", "h": "from:to:subject:date",
    }  # fmt: skip
    wanted |= tags
    header, _, body_form = (wanted["c"] or "simple").lower().partition("/")
    length = int(wanted["l"]) if (wanted.get("l") or "").isdigit() else None  # type: ignore[arg-type]
    form = BodyHashKey(body_form if body_form == "relaxed" else "simple", length)
    wanted.setdefault("bh", b64encode(hashed(fields, body, [form]).body_hashes[form].digest).decode())
    value = " " + template + "; ".join(f"{name}={text}" for name, text in wanted.items() if text is not None) + "; b="
    canonical = HEADER.get(header, HEADER["simple"])
    rest = list(fields)
    data = b""
    for name in (wanted["h"] or "").split(":"):
        for at in reversed(range(len(rest))):
            if rest[at].name.strip().lower() == name.strip().lower().encode():
                data += canonical(rest.pop(at))
                break
    data += canonical(HeaderField(b"DKIM-Signature", value.encode())).removesuffix(b"\r\n")
    octets = key.sign(data, PKCS1v15(), SHA256()) if isinstance(key, RSAPrivateKey) else key.sign(sha256(data).digest())
    text = b64encode(octets).decode() if b is None else b
    return f"DKIM-Signature:{value}{text}\r\n".encode() + raw
