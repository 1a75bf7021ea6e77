"""ARC: the public suite of validation and sealing, and chains in mail as it was received."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authmilter.auth.arc_results import merge_own
from authmilter.auth.arc_sealing import Sealer
from authmilter.auth.signing import SigningError, SigningKey
from authmilter.interfaces import Resolver
from tests.auth.arc_mail import message_of, validate
from tests.auth.mail import NOW, crlf, load_json
from tests.fakes import FakeDNS
from tests.shared import shared
from tests.suites.dkim import ham, zone
from tests.suites.suite import Case, Explained, Suite

ENDED = "a seal says cv=fail, and RFC 8617 section 5.2 steps 2 and 3 call that a fail where the suite has no answer"


def validation() -> Iterator[Case]:
    """The chain validation status of every message."""
    for name, data, scenario in _cases("validation"):
        ask = partial(_status, _raw(data), _keys(scenario))
        if data["cv"]:
            yield Case(name, (data["cv"].lower(),), ask)
        else:
            yield Case(name, ("",), ask, Explained("fail", ENDED))


def sealing() -> Iterator[Case]:
    """The set that is added, as sets of tags without white space."""
    for name, data, scenario in _cases("sign"):
        yield Case(name, ("as the suite has it",), partial(_seal, data, scenario))


def _cases(part: str) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    with (shared("arc-suite") / f"arc-draft-{part}-tests.yml").open(encoding="utf-8") as file:
        for scenario in yaml.safe_load_all(file):
            for name, data in scenario["tests"].items():
                yield name, data, scenario


def _raw(data: Mapping[str, Any]) -> bytes:
    return crlf((data["message"] or "").encode())


def _keys(scenario: Mapping[str, Any]) -> FakeDNS:
    return FakeDNS({f"{name} TXT": [text.replace("\n", "")] for name, text in scenario["txt-records"].items()})


async def _status(raw: bytes, dns: Resolver, now: float = NOW) -> str:
    return (await validate(raw, dns, now=now)).result.result.value


async def _seal(data: Mapping[str, Any], scenario: Mapping[str, Any]) -> str:
    raw = _raw(data)
    key = load_pem_private_key(scenario["privatekey"].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    signing_key = SigningKey(scenario["sel"], "rsa-sha256", key)
    chain, message = message_of(raw)
    validated = await validate(raw, _keys(scenario))
    sealer = Sealer(scenario["domain"], signing_key, data["sig-headers"].split(":"))
    try:
        edits = sealer.seal(chain, validated, message, merge_own(message, data["srv-id"]), data["t"])
    except SigningError as error:
        return f"{error}" if data["AS"] else "as the suite has it"
    wanted = [_tags(data[name] or "") for name in ("AAR", "AMS", "AS")]
    return "as the suite has it" if [_tags(edit.value) for edit in edits] == wanted else f"{edits}"


def _tags(value: str) -> list[str]:
    return sorted("".join(value.split()).split(";"))


def real_signed() -> Iterator[Case]:
    """The chains of real messages."""
    keys = zone(load_json(shared("real-keys/dns.json")))
    for case in load_json(shared("real-signed/expected.json")):
        if "verify" in case.get("arc_check", {}):
            raw = crlf((shared("real-signed") / case["file"]).read_bytes())
            yield _received(case["file"], case["arc_check"]["verify"], raw, keys, case["check_time"])


def ham_lists() -> Iterator[Case]:
    """The chains of mailing lists all whose keys are at hand."""
    keys = zone(load_json(shared("real-keys/dns.json")))
    for raw, entry in ham():
        if "verify" in (entry.get("arc_check") or {}):
            yield _received(entry["id"], entry["arc_check"]["verify"], raw, keys, entry["check_time"])


def _received(name: str, verified: str, raw: bytes, keys: Resolver, now: float) -> Case:
    explained = Explained("fail", ENDED) if verified == "none" else None
    return Case(name, (verified,), partial(_status, raw, keys, now), explained)


VALIDATION = Suite("ARC validation", "arc-suite", 171, validation)
SEALING = Suite("ARC sealing", "arc-suite", 17, sealing)
REAL_SIGNED = Suite("ARC real mail", "real-signed", 5, real_signed)
HAM_LISTS = Suite("ARC mailing lists", "ham-lists", 581, ham_lists)  # 211 more have a key that is not at hand
SUITES = (VALIDATION, SEALING, REAL_SIGNED, HAM_LISTS)
