"""Key records of the DNS, and files with private keys."""

import os
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from authmilter.auth.keys import key_name, load_private_key, parse_key_record
from tests.auth.mail import ed25519_key, record, rsa_key
from tests.shared import shared

RSA = record(rsa_key())
ED25519 = record(ed25519_key())
P = RSA.partition("p=")[2]


def der(number: int) -> bytes:
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + length(len(octets)) + octets


def length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    return bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")


def pkcs1(modulus: int, exponent: int) -> str:
    """An RSAPublicKey of any numbers, in base64."""
    body = der(modulus) + der(exponent)
    return b64encode(b"\x30" + length(len(body)) + body).decode()


EC = b64encode(
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()

USABLE = [
    pytest.param(RSA, id="RSA"),
    pytest.param(ED25519, id="Ed25519"),
    pytest.param(f"p={P}", id="p= alone"),
    pytest.param(f"v=DKIM1; p={P[:100]} \t {P[100:]};", id="white space in p="),
    pytest.param(f"v=DKIM1; K=x; k=RSA; p={P}", id="k= in capitals, and an unknown tag"),
    pytest.param(f"v=DKIM1; h=sha1 : SHA256; p={P}", id="h= lists sha256"),
    pytest.param(f"v=DKIM1; s=web : email; p={P}", id="s= lists email"),
    pytest.param(f"v=DKIM1; s=*; p={P}", id="s= is *"),
    pytest.param(f"v=DKIM1; g=; n=note; p={P}", id="g= has no meaning any more"),
    pytest.param(f"v=DKIM1; t=x; p={P}", id="unknown flag"),
]


@pytest.mark.parametrize("text", USABLE)
def test_usable_records(text: str) -> None:
    key = parse_key_record(text.encode())
    assert key.problem == ""
    assert key.public is not None
    assert (key.sha256, key.testing, key.strict) == (True, False, False)


UNUSABLE = [
    pytest.param("", "key record has no p=", id="empty"),
    pytest.param("v=spf1 -all", "key record is not of version DKIM1", id="another method's record"),
    pytest.param(f"v=dkim1; p={P}", "key record is not of version DKIM1", id="v= in small letters"),
    pytest.param(f"k=rsa; v=DKIM1; p={P}", "key record is not of version DKIM1", id="v= not first"),
    pytest.param(f"v=DKIM1: k=rsa; p={P}", "key record is not of version DKIM1", id="colon for semicolon"),
    pytest.param("v=DKIM1; k=rsa; p=", "key is revoked", id="revoked"),
    pytest.param("v=DKIM1; k=rsa; p= ;", "key is revoked", id="revoked, with white space"),
    pytest.param("v=DKIM1; k=rsa", "key record has no p=", id="no p="),
    pytest.param(f"v=DKIM1; p={P}; p={P}", "key record has a syntax error", id="p= twice"),
    pytest.param(f"v=DKIM1; rubbish; p={P}", "key record has a syntax error", id="tag without ="),
    pytest.param("v=DKIM1; p=*", "key record has a syntax error", id="p= is not base64"),
    pytest.param(f"v=DKIM1; p={P[:-8]}", "key can't be read", id="p= cut off"),
    pytest.param("v=DKIM1; p=AAAA", "key can't be read", id="p= is no ASN.1"),
    pytest.param(f"v=DKIM1; k=ed25519-sha256; p={P}", "key type is unknown", id="unknown k="),
    pytest.param(f"v=DKIM1; k=; p={P}", "key type is unknown", id="empty k="),
    pytest.param(f"v=DKIM1; p={EC}", "key is not an RSA key", id="elliptic curve key"),
    pytest.param(f"v=DKIM1; k=ed25519; p={P}", "key is not 32 octets long", id="Ed25519 in ASN.1"),
    pytest.param(f"v=DKIM1; s=tlsrpt; p={P}", "key is not for email", id="another service"),
    pytest.param(f"v=DKIM1; p={pkcs1(2**9000 + 1, 65537)}", "key is too large", id="9001 bits"),
    pytest.param(f"v=DKIM1; p={pkcs1(2**3000 - 1, 2**2999 + 1)}", "key is too large", id="exponent of 3000 bits"),
    pytest.param(f"v=DKIM1; n={'x' * 100_000}; p={P}", "key record is too long", id="100 KB"),
]


@pytest.mark.parametrize(("text", "problem"), UNUSABLE)
def test_unusable_records(text: str, problem: str) -> None:
    assert parse_key_record(text.encode()).problem == problem


def test_flags_and_hashes() -> None:
    key = parse_key_record(f"v=DKIM1; t=y : S; h=sha1; p={P}".encode())
    assert (key.problem, key.sha256, key.testing, key.strict) == ("", False, True, True)


def test_a_record_is_read_once() -> None:
    text = record(rsa_key(), "n=once").encode()
    assert parse_key_record(text) is parse_key_record(bytes(bytearray(text)))


@pytest.mark.parametrize("name", ["1024_testkey_wo_markers.pub.rsa.txt", "2048_testkey_wo_markers.pub.rsa.txt"])
def test_a_key_as_rsapublickey_without_algorithm(name: str) -> None:
    key = parse_key_record((shared("dkimpy-vectors") / "data" / name).read_bytes().replace(b"\n", b""))
    assert key.problem == ""
    assert key.bits == int(name[:4])


NAMES = [
    ("sel", "example.org", "sel._domainkey.example.org"),
    (b"20230601", "example.org", "20230601._domainkey.example.org"),
    ("a.B_1", "example.org", "a.b_1._domainkey.example.org"),
    (b"m\xc3\xbcller", "example.org", "xn--mller-kva._domainkey.example.org"),
    (b"\xff", "example.org", ""),
    (b"sel._domainkey.attack.example\x00.any", "example.org", ""),
    ("", "example.org", ""),
    ("sel.", "example.org", ""),
    ("a b", "example.org", ""),
    ("a" * 64, "example.org", ""),
    ("a." * 120 + "a", "example.org", ""),
]


@pytest.mark.parametrize(("selector", "domain", "name"), NAMES)
def test_key_names(selector: bytes | str, domain: str, name: str) -> None:
    assert key_name(selector, domain) == name


# -- files -------------------------------------------------------------------------------------------------------------


def write(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def pem(key: RSAPrivateKey | Ed25519PrivateKey | ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


SEED = ed25519_key().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
FILES = [
    pytest.param(pem(rsa_key(), PrivateFormat.TraditionalOpenSSL), RSAPrivateKey, id="RSA as PKCS#1"),
    pytest.param(pem(rsa_key(), PrivateFormat.PKCS8), RSAPrivateKey, id="RSA as PKCS#8"),
    pytest.param(pem(ed25519_key(), PrivateFormat.PKCS8), Ed25519PrivateKey, id="Ed25519 as PKCS#8"),
    pytest.param(b64encode(SEED), Ed25519PrivateKey, id="Ed25519 seed in base64"),
    pytest.param(b64encode(SEED)[:20] + b"\n" + b64encode(SEED)[20:] + b"\r\n", Ed25519PrivateKey, id="seed in lines"),
]


@pytest.mark.parametrize(("content", "kind"), FILES)
def test_private_key_files(tmp_path: Path, content: bytes, kind: type) -> None:
    key = load_private_key(write(tmp_path / "key", content))
    assert isinstance(key, kind)
    expected = rsa_key() if isinstance(key, RSAPrivateKey) else ed25519_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.public_key().public_bytes(*form) == expected.public_key().public_bytes(*form)


BAD_FILES = [
    pytest.param(b"", "neither", id="empty"),
    pytest.param(b"\x00\xff" * 50, "neither", id="binary"),
    pytest.param(b64encode(SEED[:31]), "neither", id="seed of 31 octets"),
    pytest.param(
        rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "no private key", id="public key",
    ),
    pytest.param(pem(rsa_key(), PrivateFormat.PKCS8)[:400], "no private key", id="cut off"),
    pytest.param(
        rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "passphrase", id="PKCS#8 with a passphrase",
    ),
    pytest.param(
        rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")),
        "passphrase", id="PKCS#1 with a passphrase",
    ),
    pytest.param(pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.PKCS8), "RSA and Ed25519", id="EC key"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), BAD_FILES)
def test_bad_private_key_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "key", content)
    with pytest.raises(ValueError, match=words) as caught:
        load_private_key(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o602, 0o444])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key", b64encode(SEED), mode)
    with pytest.raises(ValueError, match=f"chmod 600 {path}"):
        load_private_key(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_that_only_its_owner_can_read_is_taken(tmp_path: Path, mode: int) -> None:
    assert load_private_key(write(tmp_path / "key", b64encode(SEED), mode))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, words in (
        ("missing", "can't be read"),
        ("fifo", "no regular file"),
        (".", "can't be read|no regular file"),
    ):
        with pytest.raises(ValueError, match=words):
            load_private_key(str(tmp_path / name))
