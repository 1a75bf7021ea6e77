"""Signed messages, changed at random, before us and before dkimpy: one verdict, or a difference that has a name.

Keys, messages and changes all come from the number of a case, the seed of its chances, so a case is the same in every
run.  The test says which failed; ``AUTHMILTER_FUZZ_CASE=number`` runs that one alone, ``AUTHMILTER_FUZZ`` says how many.
"""

import asyncio
import os
import random
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha1, sha256
from math import gcd
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dkim.canonicalization import CanonicalizationPolicy, Relaxed

from authmilter.auth.canonical import HEADER, BodyHasher
from authmilter.auth.second_opinion import DEFECTS
from authmilter.auth.signature import unsigned_form
from authmilter.auth.signing import Signer, make_signature
from authmilter.config.option import FilePath, Seconds
from authmilter.config.schema import Sign
from authmilter.evidence import AuthResult, Result
from authmilter.model import BodyHashKey, HeaderField
from tests.auth.mail import NOW, check, hashed, record, split
from tests.fakes import FakeDNS

CASES = int(os.environ.get("AUTHMILTER_FUZZ", "3000"))  # each takes 0.8 ms, most of them dkimpy's
ONE = os.environ.get("AUTHMILTER_FUZZ_CASE")
BLOCK = 4000  # cases that a process takes at a time
HOUR = 3600
FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")


# -- keys, the same in every run ---------------------------------------------------------------------------------------


def _prime(chance: random.Random) -> int:
    while True:
        number = chance.getrandbits(512) | 3 << 510 | 1
        if gcd(number - 1, 65537) == 1 and all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7)):
            return number


@cache
def rsa() -> RSAPrivateKey:
    """1024 bits: the smallest that both accept, for speed."""
    chance = random.Random(6376)
    p, q = _prime(chance), _prime(chance)
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = RSAPublicNumbers(65537, p * q)
    return RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


@cache
def ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(b"RFC 8463").digest())


@cache
def zone() -> FakeDNS:
    """A selector for each kind of key record."""
    plain = record(rsa())
    records = {
        "rsa": plain,
        "ed": record(ed25519()),
        "strict": record(rsa(), "t=s"),
        "testing": record(rsa(), "t=y", "n=a note"),
        "sha1": record(rsa(), "h=sha1"),
        "hashes": record(rsa(), "h=sha1:sha256"),
        "email": record(rsa(), "s=email"),
        "services": record(rsa(), "s=other:email"),
        "reports": record(rsa(), "s=tlsrpt"),
        "late": plain.removeprefix("v=DKIM1; ") + "; v=DKIM1",
        "upper": plain.replace("k=rsa", "k=RSA"),
        "short": "p=" + plain.partition("p=")[2],
        "odd": plain.replace("v=DKIM1", "v=DKIM2"),
        "revoked": "v=DKIM1; p=",
    }
    return FakeDNS({f"{name}._domainkey.example.org TXT": [text] for name, text in records.items()})


@cache
def signers() -> list[Signer]:
    """Ours, with two signatures each, one for each pair of canonicalisations."""
    with TemporaryDirectory() as folder:
        pem, seed = Path(folder, "rsa.pem"), Path(folder, "seed")
        pem.touch(0o600)
        pem.write_bytes(rsa().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        seed.touch(0o600)
        seed.write_bytes(b64encode(ed25519().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())))
        common = Sign(
            selector="rsa", key_file=FilePath(str(pem)), ed25519_selector="ed", ed25519_key_file=FilePath(str(seed))
        )
        return [
            Signer.load({"example.org": Sign(**{**vars(common), "canonicalization": form, "expire": Seconds(expire)})})
            for form in FORMS
            for expire in (0.0, 7200.0)
        ]


# -- messages ----------------------------------------------------------------------------------------------------------

NAMES = [b"To", b"Subject", b"Date", b"Cc", b"Received", b"received", b"X-Tide", b"Message-ID", b"MIME-Version"]
WORDS = [b"a", b"tide", b"B:", b"=?utf-8?q?x?=", b"<x@example.net>;", b"\xc3\xa9", b" ", b" ", b"  ", b"\t"]
FOLDS = [b"\r\n ", b"\r\n\t", b" \r\n  "]
LINES = [
    b"a",
    b"b.",
    b"\xc3\xa9",
    b"From x",
    b" ",
    b" ",
    b"  ",
    b"\t",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b" \r\n",
    b"\r\n\r\n",
]
BARE = [b"\r", b"\n", b"\x0b", b"\x0c", b"\x00"]


def _text(chance: random.Random, pieces: Sequence[bytes], most: int) -> bytes:
    if not chance.randrange(40):
        pieces = [*pieces, *BARE]
    return b"".join(chance.choices(pieces, k=chance.randrange(most)))


def message(chance: random.Random) -> tuple[list[bytes], bytes]:
    """Fields and body of a new message, small enough for the slow parts of dkimpy."""
    fields = [b"From: Ann <ann@example.org>\r\n"]
    for _ in range(chance.randrange(1, 8)):
        blank = chance.choice([b"", b" ", b" ", b"  "])
        fields.append(chance.choice(NAMES) + b":" + blank + _text(chance, [*WORDS, *WORDS, *FOLDS], 12) + b"\r\n")
    if not chance.randrange(30):
        fields.append(b"From: Eve <eve@example.net>\r\n")
    chance.shuffle(fields)
    return fields, _text(chance, LINES, 30)


def sign_as_we_do(chance: random.Random, fields: list[bytes], body: bytes) -> None:
    """Two signatures of our own signer on top."""
    signer = chance.choice(signers())
    choice = signer.choose(["example.org"])
    signed = hashed(split(b"".join(fields) + b"\r\n")[0], body, signer.body_hash_keys(choice))
    for edit in signer.sign(choice, signed, NOW):
        fields.insert(0, f"{edit.name}: {edit.value}\n".replace("\n", "\r\n").encode())


def _blank(chance: random.Random, most: int = 1) -> bytes:
    return b"".join(chance.choices([b"", b"", b" ", b"\t", b"  ", *FOLDS], k=most))


def _rarely(chance: random.Random, usual: bytes, *others: bytes) -> bytes:
    """The usual, or at one time in sixteen one of the others."""
    return usual if chance.randrange(16) else chance.choice(others)


def _wanted(chance: random.Random, fields: list[bytes]) -> list[bytes]:
    """Names for h=: some that are there, some once more than they are there, some that are not."""
    names = [field.partition(b":")[0] for field in fields]
    wanted = [name for name in names if name == b"From" or chance.randrange(3)]
    wanted += chance.choices([*names, b"Absent", b"X-Tide", b"From"], k=chance.choice((0, 0, 1, 1, 4)))
    wanted = [name.swapcase() if not chance.randrange(6) else name for name in wanted]
    if not chance.randrange(40):
        wanted.append(chance.choice([b"", b"DKIM-Signature", b"a;b", b"\xc3\xa4"]))
    if not chance.randrange(40):
        wanted = [name for name in wanted if name.lower() != b"from"] or [b"to"]
    chance.shuffle(wanted)
    return wanted


def _as_we_see_it(fields: Sequence[HeaderField], form: str, names: Sequence[bytes], own: HeaderField) -> bytes:
    rest = list(fields)
    parts = []
    for name in names:
        for at in reversed(range(len(rest))):
            if rest[at].name.strip(b" \t").lower() == name:
                parts.append(HEADER[form](rest.pop(at)))
                break
    return b"".join(parts) + unsigned_form(own, form)


def _as_dkimpy_sees_it(fields: Sequence[HeaderField], form: str, names: Sequence[bytes], own: HeaderField) -> bytes:
    policy = CanonicalizationPolicy.from_c_value(form.encode())
    [(name, value)] = policy.canonicalize_headers([(own.name, dkim.RE_BTAG.sub(b"\\1", own.value + b"\r\n"))])
    pairs = policy.canonicalize_headers([(field.name, field.value + b"\r\n") for field in fields])
    chosen = [*dkim.select_headers(pairs, names), (name, value.rstrip())]
    return b"".join(name + b":" + value for name, value in chosen)


def sign_by_hand(chance: random.Random, fields: list[bytes], body: bytes) -> None:
    """One signature on top, with tags and white space anywhere, made as we or as dkimpy would make it."""
    parsed = split(b"".join(fields) + b"\r\n")[0]
    header, _, body_form = chance.choice(FORMS).partition("/")
    hasher = BodyHasher(BodyHashKey(body_form, None))
    hasher.update(body)
    total = hasher.finish().total
    length = None
    if not chance.randrange(4):
        length = chance.choice((total, total, total, 0, chance.randrange(total + 1), total + 1))
    hasher = BodyHasher(BodyHashKey(body_form, length))
    hasher.update(body)
    key = ed25519() if not chance.randrange(4) else rsa()
    weak = isinstance(key, RSAPrivateKey) and not chance.randrange(40)
    digest = hasher.finish().digest
    kind = b"ed25519-sha256"
    selector = b"ed"
    if isinstance(key, RSAPrivateKey):
        kind = b"rsa-sha1" if weak else b"rsa-sha256"
        selector = b"rsa"
        if not chance.randrange(4):
            selector = chance.choice(
                sorted(name.partition(".")[0].encode() for name, _ in zone().table if name[:2] != "ed")
            )
        if weak:
            policy = CanonicalizationPolicy.from_c_value(b"relaxed/" + body_form.encode())
            digest = sha1(policy.canonicalize_body(body)[:length]).digest()
    names = _wanted(chance, fields)
    colon = _blank(chance) + b":" + _blank(chance)
    form = f"{header}/{body_form}".encode()
    if body_form == "simple" and chance.randrange(2):
        form = b"" if header == "simple" else header.encode()
    tags = {
        b"v": _rarely(chance, b"1", b"2", b"1.0", b""),
        b"a": _rarely(chance, kind, kind.upper(), b"rsa-sha256", b"ed25519-sha256", b"rsa-md5"),
        b"c": _rarely(chance, form, form.title(), form, b"nowsp"),
        b"d": _rarely(chance, b"example.org", b"Example.ORG", b"example.net", b"org", b"sub.example.org"),
        b"s": _rarely(chance, selector, selector.upper(), b"none"),
        b"h": colon.join(names),
        b"bh": b64encode(digest),
    }
    if not form:
        del tags[b"c"]
    if length is not None:
        tags[b"l"] = _rarely(chance, b"%d" % length, b"%04d" % length, b"-1", b"", b"1" * 77)
    for name, chances, values in OPTIONAL:
        if not chance.randrange(chances):
            tags[name] = chance.choice(values)
    if not chance.randrange(60):
        del tags[chance.choice(list(tags))]
    order = [*tags, b"b"]
    chance.shuffle(order)
    spaced = chance.randrange(2)
    parts = {}
    for name in order:
        gaps = [_blank(chance) if spaced else b"" for _ in range(3)]
        parts[name] = (b" " if not spaced else _blank(chance)) + name + gaps[0] + b"=" + gaps[1], gaps[2]
    end = chance.choice([b"", b"", b"", b";", b"; "])

    def field(signature: bytes) -> bytes:
        values = tags | {b"b": signature}
        return b";".join(parts[name][0] + values[name] + parts[name][1] for name in order) + end

    see = _as_we_see_it if chance.randrange(2) else _as_dkimpy_sees_it
    lower = [name.lower() for name in names]
    data = see(parsed, header, lower, HeaderField(b"DKIM-Signature", field(b"AAAA")))
    if isinstance(key, RSAPrivateKey) and weak:
        octets = key.sign(data, PKCS1v15(), SHA1())
    else:
        octets = make_signature(key, data)
    if not chance.randrange(40):
        octets = bytes(chance.choice((1, 3))) + octets
    text = b64encode(octets)
    if chance.randrange(2):
        step = chance.choice((20, 60, 71))
        text = (_blank(chance) + b"\r\n ").join(text[i : i + step] for i in range(0, len(text), step))
    fields.insert(0, b"DKIM-Signature:" + field(text) + b"\r\n")


# Tags that are not always there: name, one time in how many, and with what.
OPTIONAL: list[tuple[bytes, int, list[bytes]]] = [
    (b"i", 4, [
        b"@example.org", b"ann@example.org", b"ann@mail.Example.org", b"@a.b.example.org", b"x@c.example.org",
        b"ann=40example.org", b"a=20b@example.org",
        b"@example.net", b"example.org", b"sub.example.org", b"@notexample.org", b"a=4@example.org", b"a b@example.org",
        b"b=b@example.org", b"a@b@example.org",
    ]),
    (b"q", 12, [b"dns/txt", b"DNS/txt", b"dns/txt:x", b"http", b"dns / txt"]),
    (b"t", 4, [
        b"%d" % NOW, b"%d" % (NOW - 60), b"%d" % (NOW - 8 * HOUR), b"%d" % (NOW + 5 * HOUR), b"%d" % (NOW + 20 * HOUR),
        b"0", b"yesterday", b"1" * 13, b"0%d" % NOW,
    ]),
    (b"x", 4, [
        b"%d" % (NOW + HOUR), b"%d" % (NOW + 9 * HOUR), b"%d" % NOW, b"%d" % (NOW - 5 * HOUR), b"%d" % (NOW - 20 * HOUR),
        b"never", b"9" * 13,
    ]),
    (b"z", 12, [b"From:ann=40example.org|To:bob", b"Subject: b=c", b"x", b""]),
    (b"r", 12, [b"y", b""]),
    (b"x_1", 12, [b"1 2", b"==;"]),
    (b"B", 30, [b"x"]),
]  # fmt: skip


# -- changes -----------------------------------------------------------------------------------------------------------

Change = Callable[[random.Random, list[bytes]], None]


def _any(chance: random.Random, fields: list[bytes]) -> int:
    """A field: at every second time a signature."""
    signatures = [n for n, field in enumerate(fields) if field[:14].lower() == b"dkim-signature"]
    if signatures and chance.randrange(2):
        return chance.choice(signatures)
    return chance.randrange(len(fields))


def drop_field(chance: random.Random, fields: list[bytes]) -> None:
    if len(fields) > 1:
        del fields[_any(chance, fields)]


def repeat_field(chance: random.Random, fields: list[bytes]) -> None:
    fields.insert(chance.randrange(len(fields) + 1), fields[_any(chance, fields)])


def move_field(chance: random.Random, fields: list[bytes]) -> None:
    fields.insert(chance.randrange(len(fields)), fields.pop(_any(chance, fields)))


def change_case_of_name(chance: random.Random, fields: list[bytes]) -> None:
    at = _any(chance, fields)
    name, colon, value = fields[at].partition(b":")
    fields[at] = name.swapcase() + colon + value


def change_folds(chance: random.Random, fields: list[bytes]) -> None:
    at = _any(chance, fields)
    old = chance.choice([b" ", b"\t", b"; ", b";", b"\r\n ", b"\r\n\t", b":", b"="])
    new = chance.choice([b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t ", b" \r\n ", b""])
    new = (old if old in b";:=" else b"") + new
    fields[at] = fields[at].removesuffix(b"\r\n").replace(old, new, chance.choice((1, 2, -1))) + b"\r\n"


def blanks_at_end(chance: random.Random, fields: list[bytes]) -> None:
    at = _any(chance, fields)
    fields[at] = fields[at].removesuffix(b"\r\n") + chance.choice([b" ", b"\t ", b"\r\n ", b";", b"; "]) + b"\r\n"


def _tags(chance: random.Random, fields: list[bytes], change: Callable[[list[bytes], int], None]) -> None:
    at = _any(chance, fields)
    name, colon, value = fields[at].removesuffix(b"\r\n").partition(b":")
    tags = value.split(b";")
    change(tags, chance.randrange(len(tags)))
    fields[at] = name + colon + b";".join(tags) + b"\r\n"


def drop_tag(chance: random.Random, fields: list[bytes]) -> None:
    _tags(chance, fields, list.__delitem__)


def repeat_tag(chance: random.Random, fields: list[bytes]) -> None:
    _tags(chance, fields, lambda tags, at: tags.append(tags[at]))


def swap_tags(chance: random.Random, fields: list[bytes]) -> None:
    _tags(chance, fields, lambda tags, at: tags.insert(0, tags.pop(at)))


def add_tag(chance: random.Random, fields: list[bytes]) -> None:
    new = chance.choice(
        [b" l=0", b" x=1", b" t=1", b" i=@example.org", b" c=relaxed", b" q=dns/txt", b" z", b" ", b" z="]
    )
    _tags(chance, fields, lambda tags, at: tags.insert(at, new))


def change_octet(chance: random.Random, fields: list[bytes]) -> None:
    at = _any(chance, fields)
    field = bytearray(fields[at])
    octet = chance.choice(b"aA1+/= ;:\t.\r\n\x0b\x00\xe9" if not chance.randrange(4) else b"aA1+/= ;:\t.")
    place = chance.randrange(len(field))
    match chance.randrange(3):
        case 0:
            field[place] = octet
        case 1:
            field.insert(place, octet)
        case _:
            del field[place]
    fields[at] = bytes(field)


def new_field(chance: random.Random, fields: list[bytes]) -> None:
    name = chance.choice(
        [b"Subject", b"Received", b"Cc", b"X-Tide", b"DKIM-Signature", b"From", b"From ", b"X odd", b" x", b""]
    )
    fields.insert(
        chance.randrange(len(fields) + 1), name + chance.choice([b": more\r\n", b":\r\n", b": \r\n\tmore\r\n"])
    )


CHANGES: list[Change] = [
    drop_field, repeat_field, move_field, move_field, change_case_of_name, change_case_of_name, change_folds, change_folds,
    change_folds, blanks_at_end, drop_tag, repeat_tag, swap_tags, add_tag, change_octet, change_octet, new_field,
]  # fmt: skip


def change_body(chance: random.Random, body: bytes) -> bytes:
    place = chance.randrange(len(body) + 1)
    match chance.randrange(7):
        case 0:
            return body + chance.choice([b"\r\n", b"\r\n\r\n", b" ", b"\t\r\n", b"more\r\n"])
        case 1:
            return body.replace(b" ", chance.choice([b"  ", b"\t", b""]), 1)
        case 2:
            return body.replace(b"\r\n", chance.choice([b" \r\n", b"\r\n\r\n", b""]), chance.choice((1, -1)))
        case 3:
            return body.replace(b"\r\n", chance.choice([b"\n", b"\r"]), 1) if not chance.randrange(3) else body.rstrip()
        case 4:
            return body[:place] + body[place + 1 :]
        case 5:
            return body[:place] + chance.choice([b"x", b" ", b"\t", b"\r\n"]) + body[place:]
        case _:
            return body[:place]


@lru_cache(4)
def signed(number: int) -> tuple[tuple[bytes, ...], bytes]:
    """The fields and the body of a message with one to four signatures."""
    chance = random.Random(number)
    fields, body = message(chance)
    for _ in range(chance.choice((1, 1, 1, 2))):
        (sign_by_hand if chance.randrange(4) else sign_as_we_do)(chance, fields, body)
    return tuple(fields), body


def case(number: int) -> bytes:
    """Four cases are of the same message: one as it was signed, three with changes."""
    known, body = signed(number // 4)
    fields = list(known)
    chance = random.Random(-number)
    if number % 4:
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            chance.choice(CHANGES)(chance, fields)
        if not chance.randrange(3):
            body = change_body(chance, body)
    return b"".join(fields) + b"\r\n" + body


# -- differences that have a name --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """One signature of a message with both answers, and what is needed to judge why they differ.

    `tags` are read without any rule, so that they say what is there and not what we made of it.
    """

    fields: tuple[HeaderField, ...]
    head: bytes
    body: bytes
    value: bytes
    tags: dict[bytes, bytes]
    key: str
    ours: AuthResult
    theirs: str

    @property
    def names(self) -> list[bytes]:
        """h=, in lower case."""
        return [name.strip().lower() for name in self.tags.get(b"h", b"").split(b":")]

    @property
    def canonical_length(self) -> int:
        """Octets of the canonical body, by dkimpy's account."""
        policy = CanonicalizationPolicy.from_c_value(self.tags.get(b"c", b"simple").lower())
        return len(policy.canonicalize_body(self.body))

    def number(self, name: bytes) -> int:
        """The value of a tag that is a number."""
        return int(self.tags[name])


def seen(raw: bytes, fields: tuple[HeaderField, ...], index: int, ours: AuthResult, theirs: str) -> Seen:
    head, _, body = raw.partition(b"\r\n\r\n")
    own = [field for field in fields if field.name.strip(b" \t").lower() == b"dkim-signature"][index]
    tags: dict[bytes, bytes] = {}
    for part in own.value.split(b";"):
        tag, _, value = part.partition(b"=")
        tags.setdefault(tag.strip(), value.strip())
    name = f"{tags.get(b's', b'').decode('latin-1')}._domainkey.{tags.get(b'd', b'').decode('latin-1')}".lower()
    [key] = zone().table.get((name, "TXT"), [""])
    assert isinstance(key, str)
    return Seen(fields, head, body, own.value, tags, key, ours, theirs)


def _verdict(ours: AuthResult) -> str:
    """pass; body or header, whichever has changed; or refused, if the signature could not be looked at."""
    if ours.result is Result.FAIL:
        return ours.reason.partition(" ")[0]
    return "pass" if ours.result is Result.PASS else "refused"


def _their_verdict(theirs: str) -> str:
    if "body hash mismatch" in theirs:
        return "body"
    return {"pass": "pass", "fail": "header"}.get(theirs, "refused")


class Known(NamedTuple):
    """A known difference: what stands in both answers, and whether the message is of the kind that brings it about."""

    what: str
    ours: str
    theirs: str
    shows: Callable[[Seen], bool]


def _odd_field_name(s: Seen) -> bool:
    lines = re.split(rb"\r?\n", s.head)
    return any(line[:1] not in (b" ", b"\t") and not re.match(rb"[!-9;-~]+:", line) for line in lines)


def _doubled(s: Seen) -> bool:
    every = [field.name.strip(b" \t").lower() for field in s.fields]
    return any(0 < s.names.count(name) < every.count(name) for name in s.names)


# What of a signature that is malformed for us dkimpy does not look at.
MALFORMED: dict[str, Callable[[Seen], bool]] = {
    "x= is not after t=": lambda s: s.number(b"x") == s.number(b"t") or s.number(b"t") == 0,
    "x= is no number": lambda s: len(s.tags[b"x"]) > 12,
    "t= is no number": lambda s: len(s.tags[b"t"]) > 12,
    "i= is not quoted-printable": lambda s: re.search(rb"=(?![0-9A-Fa-f]{2})", s.tags[b"i"]) is not None,
    "i= has no @": lambda s: b"@" not in s.tags[b"i"],
    "h= is no list of field names": lambda s: b"" in s.names or not b"".join(s.names).translate(None, b";").isascii(),
    "line break that is no fold": lambda s: re.search(rb"\r(?!\n)", s.value) is not None,
    "control character": lambda s: re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", s.value) is not None,
}


def _malformed(s: Seen) -> bool:
    shows = MALFORMED.get(s.ours.reason.removeprefix("signature is malformed: "))
    return shows is not None and shows(s)


# For the defects that `check-message --reference` names: whether a message is of that kind.
PROOFS: dict[str, Callable[[Seen], bool]] = {
    "it accepts rsa-sha1 (RFC 8301 section 3.1)": lambda s: s.tags[b"a"] == b"rsa-sha1",
    "it ignores h= of the key (RFC 6376 section 3.6.1)": lambda s: "h=sha1;" in s.key,
    "it ignores t=s of the key (RFC 6376 section 3.6.1)": lambda s: (
        "t=s;" in s.key and s.tags[b"i"].rpartition(b"@")[2].lower() != s.tags[b"d"].lower()
    ),
    "it does not ask for From to be signed (RFC 6376 section 5.4)": lambda s: b"from" not in s.names,
    "it does not look for fields added above signed ones": _doubled,
    "it does not look at what follows the signed part of the body (RFC 6376 section 8.2)": lambda s: (
        s.number(b"l") < s.canonical_length
    ),
    "it lets ten hours pass beyond x=": lambda s: NOW - 10 * HOUR <= s.number(b"x") < NOW,
    "it lets t= be ten hours ahead": lambda s: NOW < s.number(b"t") <= NOW + 10 * HOUR,
    "it reads the tags of a signature less strictly": _malformed,
    "it breaks at i= without @, or a header section that begins with a fold": lambda s: (
        s.head[:1] in (b" ", b"\t") or b"@" not in s.tags.get(b"i", b"@")
    ),
    "it gives up the message for one odd field name": _odd_field_name,
    "it does not decode i= (RFC 6376 section 2.11)": lambda s: (
        re.search(rb"=[0-9A-Fa-f]{2}|[ \t\r\n]", s.tags[b"i"]) is not None
    ),
    "it takes no list in q= (RFC 6376 section 3.5)": lambda s: s.tags[b"q"] != b"dns/txt",
    "it takes s= of the key for one word (RFC 6376 section 3.6.1)": lambda s: "s=other:email" in s.key,
}


_B_VALUE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")


def _cuts_badly(s: Seen) -> bool:
    """RFC 6376 section 3.7: b= counts as empty, with all the white space around its value."""
    theirs: bytes = dkim.RE_BTAG.sub(b"\\1", s.value + b"\r\n")
    return _B_VALUE.sub(rb"\1", s.value, count=1).rstrip() != theirs.rstrip()


def _ends_in_blanks(s: Seen) -> bool:
    simple = s.tags.get(b"c", b"simple").lower().startswith(b"simple")
    return simple and s.value != s.value.rstrip()


def _strips_more(s: Seen) -> bool:
    values = [f.value.replace(b"\r\n", b"") for f in s.fields if f.name.lower() in s.names]
    return s.tags[b"c"].lower().startswith(b"relaxed") and any(v.strip() != v.strip(b" \t") for v in values)


# What hardly a message has, so that an administrator need not be told.  An empty text fits every answer.
OTHERS = [
    Known("it accepts a length beyond the body", "body has changed", "", lambda s: s.number(b"l") > s.canonical_length),
    Known("it does not compare a= with the type of the key", "another type than a=", "pass", lambda s: (
        s.tags[b"a"].partition(b"-")[0].decode() not in s.key
    )),
    Known("it accepts v= anywhere in the key", "not of version DKIM1", "pass", lambda s: s.key.endswith("v=DKIM1")),
    Known("it accepts an RSA signature with zeros in front", "header has changed", "pass", lambda s: (
        b64decode(s.tags[b"b"])[0] == 0 and len(b64decode(s.tags[b"b"])) > 128
    )),
    Known("it breaks at an Ed25519 signature of another size", "header has changed", "exactly 64 bytes", lambda s: (
        "k=ed25519" in s.key and len(b64decode(s.tags[b"b"])) != 64
    )),
    Known("it compares a= with case", "", "unknown signature algorithm", lambda s: (
        s.tags[b"a"] != s.tags[b"a"].lower()
    )),
    Known("it compares c= with case", "", "invalid c= value", lambda s: s.tags[b"c"] != s.tags[b"c"].lower()),
    Known("it compares k= of the key with case", "", "fail", lambda s: "k=RSA" in s.key),
]  # fmt: skip

# Faults in what dkimpy hashes.  They could hide others, so it is asked again without them, see `repaired`.
HASHED = [
    Known("it takes a signature in h= for the signature itself", "", "", lambda s: b"dkim-signature" in s.names),
    Known("it does not cut out b= with the white space around its value", "", "", _cuts_badly),
    Known("it strips the end of a signature in simple form", "", "", _ends_in_blanks),
    Known("it takes CR, VT and FF for white space", "", "", _strips_more),
]

# Faults in how dkimpy takes the message apart: we are asked again about the message as it reads it, see `as_read`.
BARE_LF = "it takes a bare LF for a line end"
FROM_LINE = "it drops lines that begin with From and a blank"

KNOWN = [Known(d.what, d.ours, d.theirs, PROOFS[d.what]) for d in DEFECTS["dkimpy"] if d.what in PROOFS] + OTHERS


def explain(difference: Seen, among: Sequence[Known]) -> Known | None:
    """Which of the known differences it is."""
    ours, verdict = difference.ours, _verdict(difference.ours)
    text = f"{ours.result.value}: {ours.reason}"
    for known in among:
        # Where dkimpy gives up it does so before it looks at body and header, so that our verdict does not matter.
        matches = known.ours in text or (known.ours == "pass" and verdict != "refused")
        if matches and known.theirs in difference.theirs:
            try:
                if known.shows(difference):
                    return known
            except (KeyError, ValueError):
                pass  # the tag that would show it is not there, or not what it should be
    return None


# -- dkimpy ------------------------------------------------------------------------------------------------------------


def dkimpy(raw: bytes, index: int) -> str:
    """pass, fail, or the exception with its text."""

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        [found] = zone().table.get((name.decode("latin-1").rstrip(".").lower(), "TXT"), [""])
        return found.encode() if isinstance(found, str) else found

    try:
        return "pass" if dkim.DKIM(raw).verify(index, dnsfunc=look_up) else "fail"
    except Exception as error:  # not only its own escape from it
        return f"{type(error).__name__}: {error}"


Pairs = Sequence[tuple[bytes, bytes]]


@contextmanager
def repaired(index: int) -> Iterator[None]:
    """dkimpy without the faults of HASHED, for that signature of a message."""

    def relax(headers: Pairs) -> Pairs:
        # RFC 6376 section 2.8: white space is SP and HTAB.
        values = [re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip(b" ") for _, value in headers]
        return [(name.lower(), value + b"\r\n") for (name, _), value in zip(headers, values, strict=True)]

    def hash_headers(hasher: Any, policy: Any, headers: Pairs, names: list[bytes], own: Any, tags: Any) -> Pairs:
        at = [n for n, (name, _) in enumerate(headers) if name.lower() == b"dkim-signature"][index]
        chosen = dkim.select_headers([*headers[:at], *headers[at + 1 :]], names)
        value = _B_VALUE.sub(rb"\1", own[1].removesuffix(b"\r\n"), count=1) + b"\r\n"
        chosen += policy.canonicalize_headers([(own[0], value)])
        hasher.update(b"".join(name + b":" + value for name, value in chosen).removesuffix(b"\r\n"))
        return list(chosen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Relaxed, "canonicalize_headers", staticmethod(relax))
        patch.setattr(dkim, "hash_headers", hash_headers)
        yield


def as_read(raw: bytes) -> bytes:
    """The message as dkimpy takes it: with a CRLF for each bare LF, without lines of mailbox files in the header."""
    head, end, body = re.sub(rb"\r?\n", b"\r\n", raw).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"From ")]
    return b"\r\n".join(lines) + end + body


# -- the comparison ----------------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """How often which pair of verdicts came, which differences, and what nobody can explain."""

    pairs: Counter[tuple[str, str]]
    explained: Counter[str]
    wrong: list[str]


async def _compare(numbers: range) -> Tally:
    tally = Tally(Counter(), Counter(), [])
    for number in numbers:
        raw = case(number)
        names, wrong = await _differences(raw, tally.pairs)
        if wrong and (read := as_read(raw)) != raw:
            tally.explained[BARE_LF if re.search(rb"(?<!\r)\n", raw) else FROM_LINE] += 1
            names, wrong = await _differences(read, tally.pairs)
        tally.explained.update(names)
        tally.wrong.extend(f"case {number}, {text}\n{raw!r}" for text in wrong)
    return tally


async def _differences(raw: bytes, pairs: Counter[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The differences over a message: names of those that are known, and for the rest a line; counts the verdicts."""
    names, wrong = [], []
    results = [result for result in await check(raw, zone()) if result.result is not Result.NONE]
    fields = split(raw)[0]
    for index, ours in enumerate(results):
        theirs = dkimpy(raw, index)
        pairs[_verdict(ours), _their_verdict(theirs)] += 1
        if _agree(ours, theirs):
            continue
        known = explain(seen(raw, fields, index, ours, theirs), [*KNOWN, *HASHED])
        if known in HASHED:
            names.append(known.what)
            with repaired(index):
                theirs = dkimpy(raw, index)
            if _agree(ours, theirs):
                continue
            known = explain(seen(raw, fields, index, ours, theirs), KNOWN)
        if known:
            names.append(known.what)
        else:
            wrong.append(f"signature {index + 1}: {ours.result.value}: {ours.reason} | {theirs}")
    return names, wrong


def _agree(ours: AuthResult, theirs: str) -> bool:
    """Two that refuse may have different reasons: each looks at another fault first."""
    verdict, other = _verdict(ours), _their_verdict(theirs)
    return verdict == other or (verdict == "refused" and other != "pass")


def compare(numbers: range) -> Tally:
    """All these cases, in this process."""
    clock, dkim.time = dkim.time, SimpleNamespace(time=lambda: NOW)  # it has no other way to be told the time
    try:
        return asyncio.run(_compare(numbers))
    finally:
        dkim.time = clock


def blocks() -> list[range]:
    """The cases of this run, in parts for one process each."""
    if ONE:
        return [range(int(ONE), int(ONE) + 1)]
    return [range(start, min(start + BLOCK, CASES)) for start in range(0, CASES, BLOCK)]


def test_changed_messages_against_dkimpy() -> None:
    parts = blocks()
    if len(parts) == 1:
        tallies = [compare(parts[0])]
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            tallies = list(pool.map(compare, parts))
    pairs, explained, wrong = Counter[tuple[str, str]](), Counter[str](), list[str]()
    for tally in tallies:
        pairs += tally.pairs
        explained += tally.explained
        wrong += tally.wrong
    print(*(f"{pair}: {times}" for pair, times in (pairs + explained).most_common()), sep="\n")
    assert not wrong, "\n".join([f"{len(wrong)} differences without a name", *wrong[:5]])
    if not ONE:  # the cases must go everywhere, and a name that never comes explains nothing
        for verdict, share in {"pass": 3, "header": 12, "body": 12, "refused": 5}.items():
            assert pairs[verdict, verdict] > sum(pairs.values()) / share / 2, (verdict, pairs)
    if CASES >= 100_000 and not ONE:
        assert {known.what for known in [*KNOWN, *HASHED]} | {BARE_LF, FROM_LINE} == set(explained)


def test_a_case_is_the_same_in_every_process() -> None:
    """Else nobody could look at what failed."""
    digest = sha256(b"".join(map(case, range(400)))).hexdigest()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(digest_of_cases, 400).result() == digest


def digest_of_cases(count: int) -> str:
    """The SHA-256 of that many messages, made anew."""
    return sha256(b"".join(map(case, range(count)))).hexdigest()


@pytest.mark.parametrize("known", [*KNOWN, *HASHED], ids=lambda known: known.what)
def test_a_difference_is_not_explained_by_its_words_alone(known: Known) -> None:
    """Answers that look like the defect, about a message that is nothing of the kind."""
    key = record(rsa())
    value = b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=rsa; h=from; bh=AAAA; b=AAAA"
    head = b"From: ann@example.org\r\nDKIM-Signature:" + value
    tags = {n.strip(): v for n, _, v in (tag.partition(b"=") for tag in value.split(b";"))}
    ours = AuthResult("dkim", Result.PASS if known.ours == "pass" else Result.FAIL, reason=known.ours)
    plain = Seen(split(head + b"\r\n\r\n")[0], head, b"", value, tags, key, ours, known.theirs or "fail")
    assert explain(plain, [known]) is None
