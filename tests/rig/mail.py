"""Senders for the tests: their DNS, their keys, their messages.

* ``good.example`` at 192.0.2.10 does everything right.
* ``slow.example`` at 192.0.2.10 as well, but its DKIM keys take SLOW seconds to look up.  It has one of every name, so
  that a test can have one that nobody asked for before.
* ``strict.example`` publishes `-all` and no DMARC policy; nobody may send for it.
* ``bank.example`` publishes `-all` and p=reject.
* ``sender.example`` is ours: its mail is signed with two keys.
"""

import base64
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SLOW = 0.7
GOOD_IP, GOOD_NAME = "192.0.2.10", "mail.good.example"
BAD_IP = "203.0.113.66"  # has no reverse DNS


@cache
def rsa_key() -> RSAPrivateKey:
    """The RSA key of every sender."""
    return generate_private_key(65537, 2048)


@cache
def ed25519_key() -> Ed25519PrivateKey:
    """The Ed25519 key of sender.example."""
    return Ed25519PrivateKey.generate()


def rsa_pem() -> bytes:
    """PKCS#1, the one form that dkimpy reads."""
    return rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@dataclass(frozen=True)
class KeyFiles:
    """Private keys as the daemon reads them."""

    rsa: Path
    ed25519: Path


def write_keys(folder: Path) -> KeyFiles:
    """Both keys, readable by their owner alone."""
    files = KeyFiles(folder / "rsa.pem", folder / "ed25519.pem")
    files.rsa.write_bytes(rsa_pem())
    files.ed25519.write_bytes(
        ed25519_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    for file in (files.rsa, files.ed25519):
        file.chmod(0o600)
    return files


@cache
def zone() -> dict[str, list[str | bytes]]:
    """All records, as tests.fakes.FakeDNS and tests.dnsserver.DNSServer take them."""
    spki = rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = ed25519_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    rsa_record = f"v=DKIM1; k=rsa; p={base64.b64encode(spki).decode()}"
    ed25519_record = f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"
    return {
        "10.2.0.192.in-addr.arpa PTR": [GOOD_NAME],
        f"{GOOD_NAME} A": [GOOD_IP],
        f"{GOOD_NAME} TXT": ["v=spf1 a -all"],
        "good.example TXT": [f"v=spf1 ip4:{GOOD_IP} -all"],
        "_dmarc.good.example TXT": ["v=DMARC1; p=reject"],
        "s1._domainkey.good.example TXT": [rsa_record],
        "slow.example TXT": [f"v=spf1 ip4:{GOOD_IP} -all"],
        "_dmarc.slow.example TXT": ["v=DMARC1; p=reject"],
        "*._domainkey.slow.example TXT": [rsa_record],
        "strict.example TXT": ["v=spf1 -all"],
        "bank.example TXT": ["v=spf1 -all"],
        "_dmarc.bank.example TXT": ["v=DMARC1; p=reject"],
        "sender.example TXT": ["v=spf1 -all"],
        "r._domainkey.sender.example TXT": [rsa_record],
        "e._domainkey.sender.example TXT": [ed25519_record],
    }


def message(marker: str, author: str, *, on_top: bytes = b"", body: bytes = b"Hello,\r\n.\r\nworld\r\n") -> bytes:
    """A plain message; `marker` makes it findable, `on_top` are whole header fields above the others."""
    fields = (
        f"From: Somebody <{author}>\r\n"
        "To: user@test\r\n"
        f"Subject: {marker}\r\n"
        f"Date: {formatdate()}\r\n"
        f"Message-ID: <{marker}@{author.rpartition('@')[2]}>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
    )
    return on_top + fields.encode() + b"\r\n" + body


def behaviours() -> dict[str, str]:
    """What is odd about the servers of the zone."""
    return {"*._domainkey.slow.example": f"delay {SLOW}"}


def dkim_signed(unsigned: bytes, domain: str, selector: str = "s1") -> bytes:
    """The message with a DKIM signature of `domain`, made by dkimpy."""
    fields = [b"from", b"to", b"subject", b"date", b"message-id"]
    signature: bytes = dkim.sign(unsigned, selector.encode(), domain.encode(), rsa_pem(), include_headers=fields)
    return signature + unsigned


def dkim_verdicts(received: bytes) -> list[bool]:
    """What dkimpy says of each DKIM-Signature of a message, top first."""

    def txt(name: bytes, timeout: float = 5) -> bytes:
        values = zone().get(f"{name.decode().rstrip('.')} TXT", [b""])
        return values[0] if isinstance(values[0], bytes) else values[0].encode()

    def valid(index: int) -> bool:
        try:
            return bool(dkim.DKIM(received).verify(idx=index, dnsfunc=txt))
        except dkim.ValidationError:
            return False

    section = received.partition(b"\r\n\r\n")[0].lower()
    return [valid(index) for index in range((b"\r\n" + section).count(b"\r\ndkim-signature:"))]
