"""Attacks on the milter protocol, through the native engine over a unix socket, with whole sessions behind it."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authmilter.check import all_checks
from authmilter.config.schema import Config, Identity
from authmilter.files import load_files
from authmilter.metrics import NullObserver
from authmilter.milter.native import NativeEngine
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action
from tests.attacks.catalogue import answers
from tests.attacks.site import ATTACKER, ATTACKER_IP, OUR_ID, VICTIM, zone
from tests.milter.client import ClosedError, MilterClient, Reply, pack
from tests.milter.client import Outcome as Answer
from tests.milter.recording import listen

GOOD = ((b"From", f" mallory@{ATTACKER}".encode()), (b"Subject", b" hello"))
SPOOF = ((b"From", f" admin@{VICTIM}".encode()), (b"Subject", b" hello"))
TWO = (*GOOD, *SPOOF)
SENDER = f"<mallory@{ATTACKER}>".encode()
VICTIM_SENDER = f"<admin@{VICTIM}>".encode()


class Running:
    """An engine whose sessions decide, and what became of their messages."""

    def __init__(self, path: Path) -> None:
        self.outcomes: list[Outcome] = []
        config = replace(Config(), identity=Identity(authserv_id=OUR_ID))
        rules = build(config, all_checks(), load_files(config), zone(), NullObserver(), lambda: 1_700_000_000.0)
        self.engine = NativeEngine(lambda: Session(rules, self.outcomes.append), idle_timeout=30.0, on_error="tempfail")
        self.address = f"unix:{path}"

    async def talk(self, dialogue: Callable[[MilterClient], Any]) -> Any:
        """Hold a dialogue as the MTA, after the negotiation."""

        def run() -> Any:
            with MilterClient(self.address) as mta:
                mta.negotiate()
                return dialogue(mta)

        return await asyncio.to_thread(run)

    def actions(self) -> list[str]:
        return [outcome.ruling.verdict.action.value for outcome in self.outcomes]


@pytest.fixture
async def milter(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path / "milter")
    await running.engine.serve([listen(running.address)])
    yield running
    await running.engine.drain(0)


def greet(mta: MilterClient) -> MilterClient:
    mta.connect(address=ATTACKER_IP.encode())
    mta.helo(f"mail.{ATTACKER}".encode())
    return mta


def send(mta: MilterClient, fields: Any = GOOD, sender: bytes = SENDER, **options: Any) -> Answer:
    return mta.message(sender, [b"<bob@ours.example>"], fields, **options)


def accepted(answer: Answer) -> bool:
    """Accepted, with one field of ours."""
    ours = [edit for edit in answer.edits if edit.letter == "i" and b"Authentication-Results\0" in edit.data]
    return answer.final == Reply("c") and len(ours) == 1


def refused(answer: Answer, code: bytes) -> bool:
    return answer.final.letter == "y" and answer.final.data.startswith(code)


@answers("packet of 4 GB")
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0], ids=hex)
async def test_a_packet_without_measure_ends_its_own_connection_alone(milter: Running, length: int) -> None:
    def dialogue(mta: MilterClient) -> None:
        greet(mta)
        mta.mail(SENDER)
        mta.socket.sendall(struct.pack(">I", length) + b"B")
        assert mta.receive().letter == "t"
        with pytest.raises(ClosedError):
            mta.receive()

    await milter.talk(dialogue)
    assert accepted(await milter.talk(lambda mta: send(greet(mta))))
    assert milter.actions() == ["accept"]


@answers("packet of 4 GB")
async def test_a_packet_of_8_mb_is_passed_over(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> Answer:
        greet(mta)
        return send(mta, (*GOOD, (b"X-Large", b" " + b"x" * 8_000_000)))

    assert accepted(await milter.talk(dialogue))
    assert milter.outcomes[0].tx.message.oversized == "header field"


@answers("unknown command")
async def test_unknown_commands_are_answered_and_change_nothing(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> Answer:
        greet(mta)
        mta.mail(SENDER)
        for letter in "UZz0\x01":
            mta.send(letter, b"XCLIENT injected\0")
            assert mta.receive() == Reply("c")
        mta.header(*GOOD[0])
        mta.end_of_headers()
        return mta.end_of_message(b"Hello\r\n")

    assert accepted(await milter.talk(dialogue))
    assert milter.actions() == ["accept"]


@answers("EOM without MAIL")
@pytest.mark.parametrize("letters", ["E", "TLNBE", "RE", "BE", "NE"])
async def test_the_end_of_no_message_is_no_message(milter: Running, letters: str) -> None:
    def dialogue(mta: MilterClient) -> Answer:
        greet(mta)
        for letter in letters:
            mta.send(letter, b"From\0 admin@legit.example\0" if letter == "L" else b"x\0" if letter in "RB" else b"")
            if (
                letter == "E"
                or not mta.steps & {"T": 0x10000, "L": 0x80, "N": 0x40000, "R": 0x8000, "B": 0x80000}[letter]
            ):
                assert mta.receive() == Reply("c")
        return send(mta)

    assert accepted(await milter.talk(dialogue))
    assert milter.actions() == ["accept"]
    assert len(milter.outcomes[0].tx.message.fields) == len(GOOD)


@answers("macro packet without name")
@pytest.mark.parametrize(
    "octets",
    [b"", b"\0", b"M", b"M\0", b"M\0\0", b"Mi", b"Mi\0", b"M{auth_authen}", b"M\0{auth_authen}\0", b"\xff\0\0", b"M" + b"\0" * 9],
)  # fmt: skip
async def test_a_broken_macro_packet_logs_nobody_in(milter: Running, octets: bytes) -> None:
    def dialogue(mta: MilterClient) -> Answer:
        greet(mta)
        mta.send("D", octets)
        return send(mta, SPOOF, VICTIM_SENDER)

    assert refused(await milter.talk(dialogue), b"550 5.7.26")
    assert milter.outcomes[0].tx.envelope.auth_user == ""


@answers("macro packet without name")
async def test_the_login_of_one_message_is_not_that_of_the_next(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> list[Answer]:
        greet(mta)
        mta.macros("M", {b"{auth_authen}": b"alice"})
        first = send(mta, SPOOF, VICTIM_SENDER)
        mta.macros("M", {})
        return [first, send(mta, SPOOF, VICTIM_SENDER)]

    first, second = await milter.talk(dialogue)
    assert first.final == Reply("c")
    assert refused(second, b"550 5.7.26")


@answers("reuse after ABORT")
@pytest.mark.parametrize("until", ["mail", "header", "end_of_headers", "body"])
async def test_nothing_of_an_aborted_message_stays(milter: Running, until: str) -> None:
    def dialogue(mta: MilterClient) -> list[Answer]:
        greet(mta)
        answers = []
        for aborted, fields in ((SPOOF, GOOD), (GOOD, TWO)):
            mta.mail(SENDER)
            if until != "mail":
                mta.rcpt(b"<bob@ours.example>")
                for field in aborted:
                    mta.header(*field)
            if until in ("end_of_headers", "body"):
                mta.end_of_headers()
            if until == "body":
                mta.body(b"x" * 60_000)
            mta.abort()
            answers.append(send(mta, fields))
        return answers

    first, second = await milter.talk(dialogue)
    assert accepted(first)
    assert refused(second, b"550 5.7.1 ")
    assert milter.actions() == ["accept", "reject"]
    assert milter.outcomes[0].tx.message.body_size == len(b"text\r\n")


@answers("several messages per session")
async def test_each_message_has_its_own_verdict(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> list[Answer]:
        greet(mta)
        return [send(mta, GOOD), send(mta, TWO), send(mta, GOOD), send(mta, SPOOF, VICTIM_SENDER), send(mta, GOOD)]

    answers_ = await milter.talk(dialogue)
    assert [accepted(answer) for answer in answers_] == [True, False, True, False, True]
    assert milter.actions() == ["accept", "reject", "accept", "reject", "accept"]
    assert len({outcome.reference for outcome in milter.outcomes}) == 5


@answers("QUIT_NC")
async def test_the_next_client_inherits_nothing(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> list[Answer]:
        mta.connect(address=b"127.0.0.1", macros={b"j": b"mta.ours.example"})
        mta.helo()
        mta.macros("M", {b"{auth_authen}": b"alice"})
        inside = send(mta, SPOOF, VICTIM_SENDER)
        mta.quit_new_connection()
        greet(mta)
        return [inside, send(mta, SPOOF, VICTIM_SENDER)]

    inside, outside = await milter.talk(dialogue)
    assert inside.final == Reply("c")
    assert refused(outside, b"550 5.7.26")
    assert [outcome.tx.envelope.direction.label for outcome in milter.outcomes] == ["outbound", "inbound"]


@answers("client gone in the body")
async def test_a_client_that_leaves_leaves_nothing(milter: Running) -> None:
    def dialogue(mta: MilterClient) -> None:
        greet(mta)
        mta.mail(SENDER)
        mta.header(*GOOD[0])
        mta.end_of_headers()
        mta.socket.sendall(pack("B", b"x" * 1000)[:500])

    for _ in range(3):
        await milter.talk(dialogue)
    for _ in range(100):
        if not milter.engine.active:
            break
        await asyncio.sleep(0.02)
    assert milter.engine.active == 0
    assert milter.outcomes == []
    assert accepted(await milter.talk(lambda mta: send(greet(mta))))


@answers("families U and L")
@pytest.mark.parametrize(
    ("family", "address"), [("U", b""), ("L", b"/run/evil.sock"), ("4", b"not an address"), ("6", b"IPv6:zz"), ("9", b"x")]
)  # fmt: skip
async def test_an_unknown_family_gets_an_answer_and_no_pass(milter: Running, family: str, address: bytes) -> None:
    """A unix socket is local submission; whoever else has no address is a stranger, and gets no pass for having none."""

    def dialogue(mta: MilterClient) -> Answer:
        mta.connect(family=family, address=address)
        mta.helo()
        forged = (b"Authentication-Results", f" {OUR_ID}; dmarc=pass".encode())
        return send(mta, (forged, *SPOOF), VICTIM_SENDER)

    answer = await milter.talk(dialogue)
    assert answer.final == Reply("c")
    assert answer.edits[0].letter == "m", "the forged field goes"
    outcome = milter.outcomes[0]
    if family == "L":
        assert outcome.tx.results == ()
        assert len(answer.edits) == 1, "none of ours is added"
    else:
        assert outcome.ruling.verdict.action is Action.TAG  # p=reject, and nothing is known of the client
        assert "pass" not in {result.result.value for result in outcome.tx.results}
