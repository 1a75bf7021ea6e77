"""Exceptions that nobody expected: each is logged with its traceback, counted, and costs a result, never a message."""

import asyncio
import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import milter
import pytest

from authmilter.auth import arc, dkim
from authmilter.auth.signing import Choice, SigningKey
from authmilter.config.schema import Dkim
from authmilter.evidence import Result
from authmilter.interfaces import Answer
from authmilter.milter.libmilter import LibmilterEngine
from authmilter.milter.native import NativeEngine
from authmilter.model import HeaderField, Message, Stage
from authmilter.session import Session
from authmilter.verdict import Action
from tests.auth import arc_mail
from tests.auth.mail import MESSAGE, record, rsa_key, sign, split
from tests.fakes import FakeDNS
from tests.milter.client import ClosedError, MilterClient
from tests.test_session import BAD, ZONE, Rig, results

NOW = 1_700_000_000.0


class BrokenDNS(FakeDNS):
    async def query(self, name: str, rdtype: str) -> Answer:
        raise RuntimeError("bug in the resolver")


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(1 for entry in caplog.records if entry.exc_info)


@pytest.mark.parametrize("method", ["iprev", "spf_helo", "spf", "dmarc"])
async def test_a_method_that_raises_is_a_temperror(caplog: pytest.LogCaptureFixture, method: str) -> None:
    rig = Rig(dns=BrokenDNS(ZONE), checks=())
    verdict = await rig.play(BAD)
    assert verdict.action is Action.ACCEPT
    assert results(rig.outcomes[0])[method] == "temperror"
    assert rig.observer.seen.count(f"{method} exception") == 1
    assert tracebacks(caplog) == 4


def signed() -> tuple[Message, dict[str, list[str | bytes]]]:
    """A signed message, without the body hashes that verification needs, and the zone of its key."""
    key = rsa_key(1024)
    fields, _ = split(sign(MESSAGE, key))
    message = Message(fields)
    (signature,) = dkim.parse_signatures(message, Dkim())
    return message, {f"{signature.key_name} TXT": [record(key)]}


async def test_a_key_query_that_raises_is_a_temperror_of_its_signature() -> None:
    seen: list[str] = []
    message, _ = signed()
    signatures = dkim.parse_signatures(message, Dkim())
    found = await dkim.verify(message, signatures, BrokenDNS(), NOW, Dkim(), seen.append)
    assert [r.result for r in found] == [Result.TEMPERROR]
    assert seen == ["DKIM key query failed"]


async def test_a_verification_that_raises_is_a_temperror_of_its_signature() -> None:
    seen: list[str] = []
    message, zone = signed()
    signatures = dkim.parse_signatures(message, Dkim())
    found = await dkim.verify(message, signatures, FakeDNS(zone), NOW, Dkim(), seen.append)
    assert [(r.result, r.reason) for r in found] == [(Result.TEMPERROR, "internal error")]
    assert seen == ["DKIM verification failed"]


def test_fields_whose_reading_raises_are_a_temperror() -> None:
    seen: list[str] = []
    unreadable = cast(bytes, None)
    message = Message((HeaderField(b"DKIM-Signature", unreadable), HeaderField(b"ARC-Seal", unreadable)))
    (signature,) = dkim.parse_signatures(message, Dkim(), seen.append)
    assert signature.error == (Result.TEMPERROR, "internal error")
    assert arc.parse_chain(message, on_error=seen.append).error == (Result.TEMPERROR, "internal error")
    assert seen == ["DKIM-Signature can't be read", "ARC fields can't be read"]


async def test_a_chain_whose_validation_raises_is_a_temperror() -> None:
    seen: list[str] = []
    fields, _ = split(arc_mail.add_set(MESSAGE))
    message = Message(fields)
    chain = arc.parse_chain(message)
    found = await arc.verify(chain, message, arc_mail.zone(), NOW, Dkim(), "192.0.2.1", seen.append)
    assert (found.result.result, found.result.reason) == (Result.TEMPERROR, "internal error")
    assert seen == ["ARC validation failed"]


class BrokenSigner:
    """Has a key for everybody, and can't use it."""

    body_hash_key = arc_mail.RELAXED

    def choose(self, domains: object) -> Choice:
        return Choice("", "example.org", "example.org", (SigningKey("s", "rsa-sha256", cast(Any, None)),))

    def body_hash_keys(self, choice: object) -> set[Any]:
        return set()

    def sign(self, *args: object) -> Any:
        raise RuntimeError("bug in the signer")

    seal = sign


async def test_a_signer_that_raises_costs_the_signature(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    session = rig.session()
    session.rules = replace(session.rules, files=replace(session.rules.files, signer=cast(Any, BrokenSigner())))
    verdict = await rig.play("127.0.0.1", session=session)
    assert verdict.action is Action.ACCEPT
    assert rig.outcomes[0].signed == "no: internal error"
    assert "signing exception" in rig.observer.seen
    assert tracebacks(caplog) == 1


async def test_a_sealer_that_raises_costs_the_seal(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()  # bob@example.net is nobody of ours: with a sealer there is something to seal
    session = rig.session()
    session.rules = replace(session.rules, files=replace(session.rules.files, sealer=cast(Any, BrokenSigner())))
    verdict = await rig.play(session=session)
    assert verdict.action is Action.ACCEPT
    assert "sealing exception" in rig.observer.seen
    assert tracebacks(caplog) == 1


class NoVerdict:
    """Answers with what is no verdict, so that it is the engine that stumbles."""

    def answering(self) -> frozenset[Stage]:
        return frozenset(Stage)

    async def connect(self, *args: object) -> None:
        return None

    def close(self) -> None:
        pass


async def test_a_fault_of_the_native_engine_ends_its_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[str] = []
    engine = NativeEngine(
        lambda: cast(Session, NoVerdict()),
        idle_timeout=10,
        on_error="tempfail",
        on_failure=lambda: failures.append("engine"),
    )

    def talk() -> None:
        with MilterClient(f"unix:{tmp_path}/s") as mta:
            mta.negotiate()
            with pytest.raises(ClosedError):
                mta.connect()

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen(4)
        await engine.serve([sock])
        with caplog.at_level(logging.ERROR, logger="authmilter.milter"):
            await asyncio.to_thread(talk)
            await engine.drain(5)
    assert failures == ["engine"]
    assert tracebacks(caplog) == 1


def test_a_fault_of_the_libmilter_engine_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[str] = []
    engine = LibmilterEngine(
        lambda: cast(Session, NoVerdict()),
        idle_timeout=10,
        on_error="tempfail",
        on_failure=lambda: failures.append("engine"),
    )

    def stumble(connection: object) -> int:
        raise RuntimeError("bug in the engine")

    with caplog.at_level(logging.ERROR, logger="authmilter.milter"):
        assert engine._callback(stumble)(object()) == milter.TEMPFAIL
    assert failures == ["engine"]
    assert tracebacks(caplog) == 1
