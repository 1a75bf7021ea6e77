"""Sessions that fail, and commands out of order; what engines have in common."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from authmilter.milter.dialogue import Dialogue
from authmilter.milter.engine import nothing
from authmilter.milter.wire import ConnectInfo
from authmilter.model import HeaderField, Stage
from authmilter.verdict import CONTINUE, Action, Verdict
from tests.milter.recording import RecordingSession

CLIENT = ConnectInfo(b"client.example.net", "4", 40000, b"192.0.2.7")
NONE: Mapping[bytes, bytes] = {}
REFUSED = Verdict(Action.TEMPFAIL)


class Fragile(RecordingSession):
    """Raises where it is told to, also where a script can't tell it."""

    def __init__(self, calls: list[str], breaks: str) -> None:
        super().__init__(lambda call: calls.append(call[1]), 1, ["mail"])
        self.breaks = breaks

    def _note(self, method: str, *args: object) -> None:
        super()._note(method, *args)
        if method == self.breaks:
            raise RuntimeError(method)

    def answering(self) -> frozenset[Stage]:
        if self.breaks == "answering":
            raise RuntimeError("answering")
        return super().answering()


def dialogue(
    calls: list[str], breaks: str = "", on_error: str = "tempfail", on_failure: Callable[[], None] = nothing
) -> Dialogue:
    def new_session() -> Fragile:
        if breaks == "new_session":
            raise RuntimeError("new_session")
        return Fragile(calls, breaks)

    return Dialogue(new_session, on_error, on_failure)


async def talk(dialogue: Dialogue, messages: int = 1) -> list[Verdict]:
    """A whole SMTP session; returns the verdicts at RCPT and at the end of each message."""
    verdicts: list[Verdict] = []
    dialogue.begin()
    await dialogue.connect(CLIENT, NONE)
    await dialogue.helo(b"client.example.net", NONE)
    for _ in range(messages):
        await dialogue.mail([b"<a@example.org>"], NONE)
        verdicts.append(await dialogue.rcpt([b"<b@example.net>"], NONE))
        await dialogue.data(NONE)
        dialogue.headers([HeaderField(b"X", b" y")])
        await dialogue.end_of_headers(NONE)
        dialogue.body(b"text")
        verdicts.append(await dialogue.end_of_message(NONE))
    dialogue.close()
    return verdicts


@pytest.mark.parametrize(
    ("breaks", "heard", "verdicts"),
    [
        ("new_session", [], [REFUSED, REFUSED]),
        ("connect", ["connect", "close"], [REFUSED, REFUSED]),
        ("helo", ["connect", "helo", "close"], [REFUSED, REFUSED]),
        ("mail", ["connect", "helo", "mail", "abort", "close"], [REFUSED, REFUSED]),
        ("header", ["connect", "helo", "mail", "rcpt", "data", "header", "abort", "close"], [CONTINUE, REFUSED]),
        (
            "end_of_message",
            ["connect", "helo", "mail", "rcpt", "data", "header", "end_of_headers", "body", "end_of_message", "abort",
             "close"],
            [CONTINUE, REFUSED],
        ),
        (
            "close",
            ["connect", "helo", "mail", "rcpt", "data", "header", "end_of_headers", "body", "end_of_message", "close"],
            [CONTINUE, Verdict(Action.ACCEPT)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_a_session_that_raises(
    caplog: pytest.LogCaptureFixture, breaks: str, heard: list[str], verdicts: list[Verdict]
) -> None:
    calls: list[str] = []
    failures: list[str] = []
    with caplog.at_level(logging.ERROR, logger="authmilter.milter"):
        assert await talk(dialogue(calls, breaks, on_failure=lambda: failures.append(breaks))) == verdicts
    assert calls == heard
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert failures == [breaks]


@pytest.mark.parametrize(
    "breaks",
    ["new_session", "answering", "rcpt", "data", "header", "header_cut", "end_of_headers", "body", "abort", "close"],
)
async def test_each_failure_is_logged_and_counted_once(caplog: pytest.LogCaptureFixture, breaks: str) -> None:
    failures: list[str] = []
    talking = dialogue([], breaks, on_failure=lambda: failures.append(breaks))
    with caplog.at_level(logging.ERROR, logger="authmilter.milter"):
        talking.begin()
        assert Stage.MAIL in talking.answering()
        await talking.mail([b"<a@example.org>"], NONE)
        await talking.rcpt([b"<b@example.net>"], NONE)
        await talking.data(NONE)
        talking.headers([HeaderField(b"X", b" y")])
        talking.header_cut(b"Y", 9)
        await talking.end_of_headers(NONE)
        talking.body(b"text")
        talking.abort()
        talking.close()
    assert failures == [breaks]
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_session_that_raises_when_it_is_aborted_hears_no_more() -> None:
    calls: list[str] = []
    talking = dialogue(calls, "abort")
    talking.begin()
    await talking.mail([b"<>"], NONE)
    talking.abort()
    assert await talking.mail([b"<>"], NONE) == REFUSED
    assert calls == ["mail", "abort"]
    talking.close()
    assert calls == ["mail", "abort", "close"]


async def test_a_failure_ends_with_the_smtp_session() -> None:
    calls: list[str] = []
    talking = dialogue(calls, "connect")
    await talk(talking)
    talking.begin()
    assert await talking.helo(b"x", NONE) == CONTINUE


@pytest.mark.parametrize("breaks", ["new_session", "answering"])
def test_a_session_that_can_not_tell_may_answer_everywhere(breaks: str) -> None:
    talking = dialogue([], breaks)
    talking.begin()
    assert talking.answering() == frozenset(Stage)


async def test_the_next_message_after_a_failure_is_heard() -> None:
    calls: list[str] = []
    assert await talk(dialogue(calls, "header"), messages=2) == [CONTINUE, REFUSED] * 2
    assert calls.count("mail") == calls.count("header") == calls.count("abort") == 2


async def test_failures_are_passed_over_on_demand() -> None:
    assert await talk(dialogue([], "mail", on_error="accept")) == [CONTINUE, CONTINUE]


@pytest.mark.parametrize("method", ["rcpt", "data", "end_of_headers", "end_of_message"])
async def test_commands_outside_a_transaction_are_not_passed_on(method: str) -> None:
    calls: list[str] = []
    talking = dialogue(calls)
    talking.begin()
    arguments: list[Any] = [[b"<b@example.net>"], NONE] if method == "rcpt" else [NONE]
    assert await getattr(talking, method)(*arguments) == CONTINUE
    talking.headers([HeaderField(b"X", b" y")])
    assert talking.body(b"text") is False
    talking.abort()
    assert calls == []


async def test_mail_ends_the_transaction_before() -> None:
    calls: list[str] = []
    talking = dialogue(calls)
    await talking.mail([b"<>"], NONE)
    await talking.mail([b"<>"], NONE)
    talking.close()
    talking.close()
    assert calls == ["mail", "abort", "mail", "abort", "close"]
