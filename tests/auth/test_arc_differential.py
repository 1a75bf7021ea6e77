"""Chains that were changed at random, before us and before dkimpy: nothing may pass that does not pass there."""

import os
import random
import re
from collections import Counter
from collections.abc import Callable

import dkim

from authmilter.evidence import Result
from tests.auth.arc_mail import add_set, chain_of, validate, zone
from tests.auth.mail import MESSAGE, split
from tests.fakes import FakeDNS

CASES = int(os.environ.get("AUTHMILTER_FUZZ", "20000")) // 20  # each takes dkimpy some 2 ms
CHAINS = [
    chain_of(1),
    chain_of(2),
    chain_of(3),
    add_set(chain_of(1, MESSAGE), ams={"c": "simple/relaxed", "h": "from:to:to:cc:arc-authentication-results"}),
    add_set(add_set(MESSAGE, ams={"c": None}, seal={"t": "1"}), ams={"h": "from:subject:dkim-signature", "t": "1"}),
]
Change = Callable[[random.Random, list[bytes]], None]


def _tag(rng: random.Random, fields: list[bytes], change: Callable[[list[bytes], int], None]) -> None:
    """Change one of the tags of one of the ARC fields."""
    at = rng.choice([n for n, field in enumerate(fields) if field.lower().startswith(b"arc-")] or [0])
    tags = fields[at].removesuffix(b"\r\n").split(b";")
    change(tags, rng.randrange(len(tags)))
    fields[at] = b";".join(tags) + b"\r\n"


def drop_field(rng: random.Random, fields: list[bytes]) -> None:
    del fields[rng.randrange(len(fields))]


def repeat_field(rng: random.Random, fields: list[bytes]) -> None:
    fields.insert(rng.randrange(len(fields)), rng.choice(fields))


def move_field(rng: random.Random, fields: list[bytes]) -> None:
    fields.insert(rng.randrange(len(fields)), fields.pop(rng.randrange(len(fields))))


def change_case_of_name(rng: random.Random, fields: list[bytes]) -> None:
    at = rng.randrange(len(fields))
    name, colon, value = fields[at].partition(b":")
    fields[at] = name.swapcase() + colon + value


def fold(rng: random.Random, fields: list[bytes]) -> None:
    at = rng.randrange(len(fields))
    fields[at] = fields[at].removesuffix(b"\r\n").replace(b"; ", rng.choice([b";\r\n\t", b";  ", b" ; "])) + b"\r\n"


def drop_tag(rng: random.Random, fields: list[bytes]) -> None:
    _tag(rng, fields, list.__delitem__)


def repeat_tag(rng: random.Random, fields: list[bytes]) -> None:
    _tag(rng, fields, lambda tags, at: tags.append(tags[at]))


def swap_tags(rng: random.Random, fields: list[bytes]) -> None:
    _tag(rng, fields, lambda tags, at: tags.insert(0, tags.pop(at)) if at else None)


def change_octet(rng: random.Random, fields: list[bytes]) -> None:
    at = rng.randrange(len(fields))
    field = bytearray(fields[at])
    places = [n for n, octet in enumerate(field) if octet not in b"\r\n"]  # a bare LF is a fold to dkimpy, not to us
    field[rng.choice(places)] = rng.choice(b"aA1= ;:\t.")
    fields[at] = bytes(field)


def change_number(rng: random.Random, fields: list[bytes]) -> None:
    at = rng.randrange(len(fields))
    fields[at] = re.sub(rb"\bi=\d", b"i=%d" % rng.randrange(5), fields[at])


def change_status(rng: random.Random, fields: list[bytes]) -> None:
    at = rng.randrange(len(fields))
    fields[at] = re.sub(rb"cv=\w+", b"cv=" + rng.choice([b"none", b"pass", b"fail", b"x"]), fields[at])


def new_field(rng: random.Random, fields: list[bytes]) -> None:
    name = rng.choice([b"Subject", b"Received", b"Cc", b"DKIM-Signature", b"ARC-Seal", b"From"])
    fields.insert(rng.randrange(len(fields)), name + b": i=2; more\r\n")


CHANGES: list[Change] = [
    drop_field, repeat_field, move_field, change_case_of_name, fold, drop_tag, repeat_tag, swap_tags, change_octet,
    change_number, change_status, new_field,
]  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    head, _, body = rng.choice(CHAINS).partition(b"\r\n\r\n")
    fields = [line + b"\r\n" for line in re.split(rb"\r\n(?![ \t])", head)]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
        rng.choice(CHANGES)(rng, fields)
    if not rng.randrange(8):
        body = body.replace(b"  ", b" ") if rng.randrange(2) else body + b"more\r\n"
    return b"".join(fields) + b"\r\n" + body


def dkimpy(raw: bytes, keys: FakeDNS) -> str:
    """pass, fail or none; "ended" for cv=fail; "crash" where it dies."""
    table = {f"{name}.".encode(): records[0] for (name, _), records in keys.table.items()}

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        found = table.get(name)
        return found.encode() if isinstance(found, str) else found

    try:
        status, _, _ = dkim.arc_verify(raw, dnsfunc=look_up)
    except Exception:
        return "crash"
    return "ended" if status is None else str(status.decode())


def known_difference(raw: bytes) -> str:
    """Why dkimpy may refuse a chain that is valid."""
    fields = split(raw)[0]
    names = [field.name.strip().lower() for field in fields]
    if names.count(b"from") > 1:
        return "dkimpy asks for one more From in h= than there is, which is a matter of DMARC here"
    for name in (b"arc-seal", b"arc-message-signature", b"arc-authentication-results"):
        numbers = [re.findall(rb"\bi\s*=\s*(\d+)", f.value) for f in fields if f.name.strip().lower() == name]
        if numbers != sorted(numbers, reverse=True):
            return "dkimpy takes the fields as they stand in the message, RFC 8617 section 5.1.1 by their instance"
    return ""


async def test_changed_chains_against_dkimpy() -> None:
    keys = zone()
    seen: Counter[tuple[str, str]] = Counter()
    wrong = []
    for seed in range(CASES):
        raw = mutated(random.Random(seed))
        ours = (await validate(raw, keys)).result
        theirs = dkimpy(raw, keys)
        seen[ours.result.value, theirs] += 1
        same = ours.result.value == {"ended": "fail", "crash": ours.result.value}.get(theirs, theirs)
        if not same and not (ours.result is Result.PASS and theirs == "fail" and known_difference(raw)):
            wrong.append((seed, ours, theirs))
    assert wrong == []
    assert seen["pass", "pass"] > CASES // 5
    assert seen["fail", "fail"] > CASES // 5
    assert seen["pass", "crash"] < CASES // 100


async def test_a_field_without_a_blank_after_its_colon() -> None:
    """As kernel.org writes it: dkimpy dies of it."""
    raw = chain_of(2).replace(b"ARC-Message-Signature: ", b"ARC-Message-Signature:")
    assert (await validate(raw, zone())).result.result is Result.PASS
    assert dkimpy(raw, zone()) == "crash"
    assert dkimpy(chain_of(2), zone()) == "pass"
