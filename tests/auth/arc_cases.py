"""The ARC test suite and helpers to validate and seal whole messages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from authmilter.auth.arc import MAX_SETS, ArcResult, Chain, parse_chain, verify
from authmilter.config.schema import Dkim
from authmilter.interfaces import Resolver
from authmilter.model import BodyHashKey, Message
from tests.auth.mail import NOW, crlf, hashed, split
from tests.fakes import FakeDNS
from tests.shared import shared

OPTIONS = Dkim()
RELAXED = BodyHashKey("relaxed", None)


def message_of(raw: bytes, oversized: str = "") -> tuple[Chain, Message]:
    """The chain and the message, with the hashes that validating and sealing need."""
    fields, body = split(raw)
    chain = parse_chain(Message(fields))
    return chain, hashed(fields, body, {*chain.body_hash_keys, RELAXED}, oversized=oversized)


async def validate(
    raw: bytes, dns: Resolver, *, now: float = NOW, oversized: str = "", max_sets: int = MAX_SETS
) -> ArcResult:
    """The ARC result of a message with CRLF line ends; an unexpected exception within fails the test."""
    fields, body = split(raw)
    chain = parse_chain(Message(fields), max_sets)
    message = hashed(fields, body, chain.body_hash_keys, oversized=oversized)
    unexpected: list[str] = []
    result = await verify(chain, message, dns, now, OPTIONS, "192.0.2.1", unexpected.append)
    assert not unexpected, unexpected
    assert "internal error" not in result.result.reason
    return result


def apply(edits: Sequence[Any], raw: bytes) -> bytes:
    """The message as the MTA sends it: a blank after the colon, folds with CRLF."""
    for edit in edits:
        assert (edit.op, edit.index) == ("insert", 0)
        raw = f"{edit.name}: {edit.value}".replace("\n", "\r\n").encode() + b"\r\n" + raw
    return raw


def suite(name: str) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Every case of ``validation`` or ``sign``: its name, its data, and the scenario around it."""
    with (shared("arc-suite") / f"arc-draft-{name}-tests.yml").open(encoding="utf-8") as file:
        for scenario in yaml.safe_load_all(file):
            for case, data in scenario["tests"].items():
                yield case, data, scenario


def raw_message(data: Mapping[str, Any]) -> bytes:
    """The message of a case of the suite, with CRLF."""
    return crlf((data["message"] or "").encode())


def keys_of(scenario: Mapping[str, Any]) -> FakeDNS:
    """The key records of a scenario of the suite, their lines joined."""
    return FakeDNS({f"{name} TXT": [text.replace("\n", "")] for name, text in scenario["txt-records"].items()})
