"""The workload of the benchmark: messages with their envelopes, and the DNS that speaks about them.

A folder holds `warm/index.tsv` (file, client address, client name, HELO, reverse-path, recipient and class, parted by
tabs), the messages beside it, and `dns.conf` (local-data of unbound).  The large workload comes from the shared
generator; `generate` writes a small one in the same form, for where that is not to be had.

Classes: `pass`; `dkimbad`, the body was altered on its way; `spffail`, the client is not one of the domain's; `bothbad`,
both; `noauth`, a domain that publishes nothing.
"""

import base64
import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authmilter.interfaces import Answer

SELECTOR, ED25519_SELECTOR = "s2024", "ed2024"
EPOCH = 1_717_750_000
WORDS = ("the", "quarterly", "report", "of", "your", "customer", "was", "shipped", "with", "an", "invoice", "due")
# By octets of the file; the share is that of the mix.
SIZES = {"2 KB": (6_000, 0.50), "10 KB": (30_000, 0.35), "50 KB": (200_000, 0.13), "500 KB": (1 << 40, 0.02)}

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


class Mail(NamedTuple):
    """A message with its envelope, as a milter sees it: fields with CRLF at folds, paths in angle brackets."""

    kind: str  # the class
    client: bytes  # IP address
    client_name: bytes
    helo: bytes
    mail_from: bytes
    rcpt: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    octets: int

    @property
    def size(self) -> str:
        """Which of SIZES it belongs to."""
        return next(name for name, (limit, _) in SIZES.items() if self.octets < limit)


def weighted(by_size: dict[str, float]) -> float:
    """The mean over SIZES by their shares, of those that are there."""
    there = {size: SIZES[size][1] for size in by_size}
    return sum(by_size[size] * share for size, share in there.items()) / sum(there.values())


class Zone:
    """A Resolver that has all answers in memory, so that nothing ever waits."""

    def __init__(self, conf: str) -> None:
        """`conf`: local-data of unbound."""
        self._names: set[str] = set()
        self._answers: dict[tuple[str, str], Answer] = {}
        table: dict[tuple[str, str], list[str | bytes]] = {}
        for name, rdtype, value in re.findall(r"^\s*local-data: '(\S+)\. \d+ IN (\S+) (.*)'$", conf, re.MULTILINE):
            record = (
                b"".join(part.encode() for part in re.findall('"([^"]*)"', value))
                if rdtype == "TXT"
                else value.rstrip(".").lower()
            )
            table.setdefault((name.lower(), rdtype), []).append(record)
            labels = name.lower().split(".")
            self._names.update(".".join(labels[i:]) for i in range(len(labels)))  # RFC 8020: names above exist too
        for key, records in table.items():
            self._answers[key] = Answer(tuple(records), True, 300.0)  # type: ignore[arg-type]

    def known(self, name: str, rdtype: str) -> Answer:
        """The answer; a name that is not here does not exist."""
        name = name.rstrip(".").lower()
        answer = self._answers.get((name, rdtype))
        if answer is None:
            answer = self._answers[name, rdtype] = Answer((), name in self._names, 300.0)
        return answer

    async def query(self, name: str, rdtype: str) -> Answer:
        """The same."""
        return self.known(name, rdtype)

    def prefetch(self, name: str, rdtype: str) -> None:
        """Nothing to gain."""

    def for_client(self, client: str) -> "Zone":
        """Everybody asks the same."""
        return self


def index(folder: Path, name: str = "warm") -> Iterator[list[str]]:
    """The rows of an index."""
    for line in (folder / name / "index.tsv").read_text().splitlines():
        if not line.startswith("#"):
            yield line.split("\t")


def read(folder: Path, limit: int = 0) -> list[Mail]:
    """The warm messages: all, or the first `limit`."""
    mails = []
    for file, client, name, helo, mail_from, rcpt, kind in index(folder):
        raw = (folder / "warm" / file).read_bytes()
        head, _, body = raw.partition(b"\r\n\r\n")
        fields = tuple((f.partition(b":")[0], f.partition(b":")[2]) for f in re.split(rb"\r\n(?![ \t])", head))
        paths = [b"<" + path.encode() + b">" for path in (mail_from, rcpt)]
        mails.append(
            Mail(kind, client.encode(), name.encode(), helo.encode(), paths[0], paths[1], fields, body, len(raw))
        )
        if len(mails) == limit:
            break
    return mails


# -- generating -------------------------------------------------------------------------------------------------------


def signed(fields: list[tuple[str, str]], body: bytes, domain: str, selector: str, key: PrivateKey) -> bytes:
    """The message with a DKIM signature over all `fields` (relaxed/simple).

    The fields must be unfolded and have single blanks, and the body must end in one CRLF: then what is hashed is what
    is there, and this stays independent of the code under test.
    """
    algorithm = "rsa-sha256" if isinstance(key, RSAPrivateKey) else "ed25519-sha256"
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
    names = ":".join([name for name, _ in fields] + ["From"])
    tags = f"v=1; a={algorithm}; c=relaxed/simple; d={domain}; s={selector}; t={EPOCH}; h={names}; bh={body_hash}; b="
    data = "".join(f"{name.lower()}:{value}\r\n" for name, value in fields) + f"dkim-signature:{tags}"
    if isinstance(key, RSAPrivateKey):
        signature = key.sign(data.encode(), PKCS1v15(), SHA256())
    else:
        signature = key.sign(hashlib.sha256(data.encode()).digest())  # RFC 8463 section 3
    b = base64.b64encode(signature).decode()
    head = f"DKIM-Signature: {tags}\r\n\t" + "\r\n\t".join(b[i : i + 72] for i in range(0, len(b), 72)) + "\r\n"
    return head.encode() + plain(fields, body)


def plain(fields: list[tuple[str, str]], body: bytes) -> bytes:
    """The message without a signature."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode() + b"\r\n" + body


def key_record(key: PrivateKey) -> str:
    """The TXT record of a key (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
    if isinstance(key, RSAPrivateKey):
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return "v=DKIM1; k=ed25519; p=" + base64.b64encode(raw).decode()


def new_key() -> RSAPrivateKey:
    """An RSA key of the usual size."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def text(random_: random.Random, octets: int) -> bytes:
    """Lines of words, about that long."""
    lines = []
    size = 0
    while size < octets:
        line = " ".join(random_.choices(WORDS, k=10)).capitalize() + ".\r\n"
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()


def header(random_: random.Random, domain: str, rcpt: str, number: int) -> list[tuple[str, str]]:
    """The fields that a mail program writes."""
    return [
        ("From", f"Ann Sender <ann{number % 50}@{domain}>"),
        ("To", f"<{rcpt}>"),
        ("Subject", f"Report number {number}"),
        ("Date", formatdate(EPOCH - random_.randrange(5000))),
        ("Message-ID", f"<{random_.getrandbits(96):024x}.{number}@{domain}>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("Reply-To", f"Ann Sender <ann{number % 50}@{domain}>"),
        ("List-Unsubscribe", f"<https://www.{domain}/u/{random_.getrandbits(64):x}>"),
        ("X-Mailer-ID", f"{random_.getrandbits(64):x}"),
    ]


def generate(folder: Path, count: int = 60, domains: int = 10) -> None:
    """Write a small workload: every class and every size up to 50 KB, always the same but for the keys."""
    random_ = random.Random(4)
    rsa, ed25519 = new_key(), Ed25519PrivateKey.generate()
    (folder / "warm").mkdir(parents=True, exist_ok=True)
    records = ['_spf.esp.example. 3600 IN TXT "v=spf1 ip4:198.18.0.0/24 include:_spf2.esp.example ~all"']
    records.append('_spf2.esp.example. 3600 IN TXT "v=spf1 ip4:198.18.2.0/24 ip6:2001:db8:7::/48 ~all"')
    for number in range(2, 250):
        records.append(f"out-{number}.esp.example. 3600 IN A 198.18.0.{number}")
        records.append(f"{number}.0.18.198.in-addr.arpa. 3600 IN PTR out-{number}.esp.example.")
    for number in range(domains):
        name, address = f"sender{number}.example", f"198.19.0.{number + 1}"
        records += [
            f"{name}. 3600 IN A {address}",
            f"mail.{name}. 3600 IN A {address}",
            f"{name}. 3600 IN MX 10 mail.{name}.",
            f"{number + 1}.0.19.198.in-addr.arpa. 3600 IN PTR mail.{name}.",
        ]
        if number:  # the first publishes nothing
            texts = {
                name: f"v=spf1 ip4:{address} include:_spf.esp.example -all",
                f"_dmarc.{name}": f"v=DMARC1; p=reject; rua=mailto:dmarc@{name}; adkim=r; aspf=r",
                f"{SELECTOR}._domainkey.{name}": key_record(rsa),
            }
            if number % 5 == 1:
                texts[f"{ED25519_SELECTOR}._domainkey.{name}"] = key_record(ed25519)
            for owner, value in texts.items():
                parts = " ".join(f'"{value[i : i + 250]}"' for i in range(0, len(value), 250))
                records.append(f"{owner}. 3600 IN TXT {parts}")
    (folder / "dns.conf").write_text("server:\n" + "".join(f"  local-data: '{record}'\n" for record in records))
    rows = []
    for number in range(count):
        # Fixed shares, so that a few messages have all classes and sizes.
        kind = ("pass",) * 6 + ("dkimbad", "bothbad", "spffail", "noauth")
        this = kind[number % 10]
        octets = (2_000, 10_000, 2_000, 10_000, 2_000, 50_000, 10_000, 2_000)[number % 8]
        chosen = 0 if this == "noauth" else 1 + random_.randrange(domains - 1)
        domain = f"sender{chosen}.example"
        if this in ("bothbad", "spffail"):
            client, host = "198.51.100.7", "forwarder.example"
        elif number % 2 and this != "noauth":
            client, host = f"198.18.0.{2 + number % 240}", f"out-{2 + number % 240}.esp.example"
        else:
            client, host = f"198.19.0.{chosen + 1}", f"mail.{domain}"
        rcpt = f"user{number}@receiver.example"
        fields, body = header(random_, domain, rcpt, number), text(random_, octets - 1200)
        if this == "noauth":
            message = plain(fields, body)
        else:
            message = signed(fields, body, domain, SELECTOR, rsa)
            if chosen % 5 == 1:
                head = signed(fields, body, domain, ED25519_SELECTOR, ed25519)
                message = head[: len(head) - len(plain(fields, body))] + message
        if this in ("dkimbad", "bothbad"):
            message += b"-- \r\nA list added this.\r\n"
        message = (
            f"Received: from {host} ([10.0.0.1])\r\n\tby {host} (Postfix) with ESMTPS;\r\n\t{formatdate(EPOCH)}\r\n".encode()
            + message
        )
        file = f"{number:05d}.eml"
        (folder / "warm" / file).write_bytes(message)
        rows.append("\t".join((file, client, host, host, f"bounce-{number}@{domain}", rcpt, this)))
    write_index(folder / "warm" / "index.tsv", rows)


def write_index(path: Path, rows: Iterable[str]) -> None:
    """An index of these rows."""
    path.write_text("".join(f"{row}\n" for row in rows))


# -- what bulkdns.c answers for ---------------------------------------------------------------------------------------


def bulk_domain(number: int) -> tuple[str, str]:
    """The domain of that number, and its address."""
    return f"g{number:06d}.com", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def bulk_row(number: int) -> str:
    """Its row in an index."""
    domain, address = bulk_domain(number)
    host = f"mail.{domain}"
    return "\t".join(
        (f"{domain}.eml", address, host, host, f"bounce-{number}@{domain}", f"user{number % 400}@bench.test", "pass")
    )


def generate_bulk(folder: Path, numbers: range, key: RSAPrivateKey) -> None:
    """Write a message of 2 KB for each of these domains that has none yet, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(numbers.start)
    body = text(random_, 1_000)
    for number in numbers:
        domain, _ = bulk_domain(number)
        path = folder / f"{domain}.eml"
        if not path.exists():
            fields = header(random_, domain, f"user{number % 400}@bench.test", number)
            path.write_bytes(signed(fields, body, domain, SELECTOR, key))


def generate_hostile(folder: Path, domain: str, selector: str, key: RSAPrivateKey) -> None:
    """Write the messages and indexes of senders that mean harm, in `folder`.

    `silent`: all that there is to look up is never answered.  `slow`: SPF records lead on and on, a second each.
    `huge`: 50 MB with a good signature of `domain`.  `fields`: 20,000 header fields.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random_ = random.Random(5)
    body = text(random_, 1_000)
    rows: dict[str, list[str]] = {}
    for suffix in ("silent", "slow"):
        rows[suffix] = []
        for number in range(3000):
            name = f"n{number}.{suffix}.test"
            file = f"{suffix}-{number}.eml"
            (folder / file).write_bytes(signed(header(random_, name, "a@bench.test", number), body, name, "s", key))
            rows[suffix].append("\t".join((file, "203.0.113.7", name, name, f"a@{name}", "a@bench.test", suffix)))
    lines = text(random_, 1 << 20)
    large = lines * (50_000_000 // len(lines))
    fields = header(random_, domain, "a@bench.test", 1)
    (folder / "huge.eml").write_bytes(signed(fields, large, domain, selector, key))
    many = [(f"X-Field-{number}", f"{number * 7919:x}") for number in range(20_000)]
    (folder / "fields.eml").write_bytes(plain(fields + many, body))
    for kind in ("huge", "fields"):
        envelope = (f"{kind}.eml", "203.0.113.7", "h.example", "h.example", f"a@{domain}", "a@bench.test", kind)
        rows[kind] = ["\t".join(envelope)]
    for kind, those in rows.items():
        write_index(folder / f"{kind}.tsv", those)
