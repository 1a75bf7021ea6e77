"""DKIM keys: public ones as the DNS has them (RFC 6376 section 3.6.1, RFC 8463), private ones as files have them."""

import binascii
import time
from base64 import b64decode
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from authmilter import secret_file
from authmilter.addresses import to_ascii_domain
from authmilter.auth.taglist import TagError, decode_base64, parse_tags, split_list

PublicKey = RSAPublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | Ed25519PrivateKey

MAX_RECORD = 16 * 1024  # octets of a key record; one with an 8192-bit key has about 1,500
MAX_RSA_BITS = 8192  # RFC 8301 section 3.2 asks for up to 4096; the limit bounds the time of a verification
MAX_RSA_EXPONENT = 1 << 64  # in use are 3, 17 and 65537; a long exponent makes one verification cost 16 ms
_MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key record.  `problem` says why it can't be used, "" if it can; then `public` is not None.

    `kind` is ``rsa`` or ``ed25519``.  `bits` is the size of the RSA modulus.  `sha256`: h= allows that hash.
    `testing` is t=y: the domain is testing DKIM.  `strict` is t=s: the domain of i= must be d= itself.
    """

    problem: str = ""
    public: PublicKey | None = None
    kind: str = "rsa"
    bits: int = 0
    sha256: bool = True
    testing: bool = False
    strict: bool = False


def parse_key_record(record: bytes) -> KeyRecord:
    """Read a key record, TXT strings joined (RFC 6376 section 3.6.1); what was read is kept for the next time."""
    if len(record) > MAX_RECORD:
        return KeyRecord("key record is too long")
    return _parse(record)


@lru_cache(maxsize=1024)
def _parse(record: bytes) -> KeyRecord:
    try:
        tags = parse_tags(record)
        # RFC 6376 section 3.6.1: v= must be the first tag; a record with another value than DKIM1 must be discarded.
        if b"v" in tags and (tags[b"v"] != b"DKIM1" or next(iter(tags)) != b"v"):
            return KeyRecord("key record is not of version DKIM1")
        if b"p" not in tags:
            return KeyRecord("key record has no p=")
        if not tags[b"p"]:
            return KeyRecord("key is revoked")
        sha256 = b"h" not in tags or b"sha256" in split_list(tags[b"h"].lower())
        if b"s" in tags and not {b"*", b"email"} & set(split_list(tags[b"s"].lower())):
            return KeyRecord("key is not for email")
        flags = split_list(tags.get(b"t", b"").lower())
        public = decode_base64(tags[b"p"])
    except TagError:
        return KeyRecord("key record has a syntax error")
    testing, strict = b"y" in flags, b"s" in flags
    kind = tags.get(b"k", b"rsa").lower()
    if kind == b"ed25519":
        # RFC 8463 section 4: the 32 octets of the key itself, no ASN.1 around them.
        if len(public) != 32:
            return KeyRecord("key is not 32 octets long")
        return KeyRecord("", Ed25519PublicKey.from_public_bytes(public), "ed25519", 256, sha256, testing, strict)
    if kind != b"rsa":
        return KeyRecord("key type is unknown")
    try:
        key = load_der_public_key(public)  # SubjectPublicKeyInfo (erratum 3017), and RSAPublicKey as RFC 6376 has it
    except (ValueError, UnsupportedAlgorithm):
        return KeyRecord("key can't be read")
    if not isinstance(key, RSAPublicKey):
        return KeyRecord("key is not an RSA key")
    if key.key_size > MAX_RSA_BITS or key.public_numbers().e >= MAX_RSA_EXPONENT:
        return KeyRecord("key is too large")
    return KeyRecord("", key, "rsa", key.key_size, sha256, testing, strict)


def key_name(selector: bytes | str, domain: str) -> str:
    """Where the key of a selector is (RFC 6376 section 3.6.2.1), as lower-case A-labels; "" if there can't be one.

    The selector may be a U-label (RFC 8616 section 4), and a number, unlike a domain.
    """
    text = selector.decode("utf-8", "replace") if isinstance(selector, bytes) else selector
    return to_ascii_domain(f"{text}._domainkey.{domain}")


class LoadedKey(NamedTuple):
    """A private key, and when it was first read, in seconds since 1970: by this process, or by the one that it was forked from."""

    key: PrivateKey
    since: float


def load_private_key(path: str) -> PrivateKey:
    """The key of `read_private_key`."""
    return read_private_key(path).key


def read_private_key(path: str) -> LoadedKey:
    """Read a private key: RSA or Ed25519 as PEM (PKCS#1, PKCS#8), or Ed25519 as the base64 of its 32-octet seed.

    An RSA key takes some 60 ms, since OpenSSL proves it.  Raises ValueError with a text for the administrator, which names
    the file, if `secret_file` can't read it, or if it has no usable key.
    """
    return _private_key(path, secret_file.read(path, "key", _MAX_FILE))


@lru_cache(maxsize=4096)
def _private_key(path: str, text: bytes) -> LoadedKey:
    """Kept, so that a reload parses only what has changed, and knows since when it has not."""
    return LoadedKey(_parse_private_key(path, text), time.time())


def _parse_private_key(path: str, text: bytes) -> PrivateKey:
    if b"-----BEGIN" not in text:
        try:
            return Ed25519PrivateKey.from_private_bytes(b64decode(b"".join(text.split()), validate=True))
        except (binascii.Error, ValueError):
            raise ValueError(f"{path}: holds neither a PEM private key nor the base64 seed of an Ed25519 key") from None
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError(f"{path}: the key is protected by a passphrase: store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path}: holds no private key that can be read") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError(f"{path}: DKIM knows RSA and Ed25519 keys only")  # noqa: TRY004  the file is wrong
    return key
