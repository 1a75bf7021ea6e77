"""How many recipients are too many."""

import pytest

from authmilter.checks.recipients import bounce_recipients, recipients
from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.evidence import Finding
from authmilter.model import Envelope, Mailbox, Stage, Transaction
from tests.checks.tools import computed, is_wanted, tools
from tests.checks.verdicts import STRICT, mailbox, reply

LIMIT = "[recipients]\nmax_per_message = 100\n"
NO_ADDRESS = Mailbox(b"<<>>", b"", "")


def rcpt(count: int, sender: Mailbox | None = mailbox("a@example.org")) -> Transaction:  # noqa: B008  it never changes
    return Transaction(envelope=Envelope(sender, tuple(mailbox(f"b{n}@example.net") for n in range(count))))


@pytest.mark.parametrize(("count", "over"), [(1, False), (100, False), (101, True), (102, True)])
def test_the_limit(count: int, over: bool) -> None:
    expected = [Finding("too_many_recipients", "more than 100")] if over else []
    assert computed(recipients, rcpt(count), tools("recipients", config=LIMIT)) == expected


def test_recipients_beyond_the_limit_are_deferred() -> None:
    found = [Finding("too_many_recipients", "more than 100")]
    assert (
        reply(rcpt(101), Stage.RCPT, found, LIMIT)
        == "452 4.5.3 Too many recipients, please send to the others in another transaction [ref]"
    )


def test_there_is_no_limit_by_itself() -> None:
    assert not is_wanted("recipients", "")
    assert is_wanted("recipients", LIMIT)


@pytest.mark.parametrize("number", ["-1", "9001"])
def test_a_limit_that_could_never_be_seen_is_refused(number: str) -> None:
    with pytest.raises(ConfigError, match="max_per_message"):
        ini.load(None, f"[recipients]\nmax_per_message = {number}\n")


@pytest.mark.parametrize(
    ("sender", "count", "found"),
    [
        pytest.param(None, 1, False, id="a bounce to one"),
        pytest.param(None, 2, True, id="a bounce to two"),
        pytest.param(None, 3, True, id="a bounce to three"),
        pytest.param(mailbox("a@example.org"), 3, False, id="mail to three"),
        pytest.param(NO_ADDRESS, 3, False, id="what can't be parsed is not the null reverse-path"),
    ],
)
def test_a_bounce_goes_to_one(sender: Mailbox | None, count: int, found: bool) -> None:
    tx = rcpt(count, sender)
    assert computed(bounce_recipients, tx, tools()) == ([Finding("bounce_recipients")] if found else [])


def test_the_preset_strict_refuses_the_further_recipients_of_a_bounce() -> None:
    found = [Finding("bounce_recipients")]
    assert reply(rcpt(2, None), Stage.RCPT, found) == ""
    assert (
        reply(rcpt(2, None), Stage.RCPT, found, STRICT)
        == "550 5.7.1 Mail from the null reverse-path can't have several recipients [ref]"
    )
