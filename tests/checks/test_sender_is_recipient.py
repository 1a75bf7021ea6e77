"""Mail that claims to be from its own recipient."""

import pytest

from authmilter.checks.sender_is_recipient import sender_is_recipient
from authmilter.evidence import AuthResult, Result
from authmilter.model import Envelope, Transaction
from tests.checks.tools import computed, tools
from tests.checks.verdicts import mailbox


@pytest.mark.parametrize(
    ("sender", "recipients", "spf", "fires"),
    [
        pytest.param("bob@example.net", ["bob@example.net"], Result.NONE, True, id="the very address"),
        pytest.param('"Bob"@EXAMPLE.net', ["bob@example.net"], Result.FAIL, True, id="written in another way"),
        pytest.param("bob@example.net", ["eve@example.net", "bob@example.net"], Result.NONE, True, id="the newest"),
        pytest.param("bob@example.net", ["bob@example.net", "eve@example.net"], Result.NONE, False, id="one before"),
        pytest.param("bob@example.net", ["bob@example.net"], Result.PASS, False, id="SPF passes"),
        pytest.param("ann@example.net", ["bob@example.net"], Result.NONE, False, id="a colleague"),
        pytest.param("", ["bob@example.net"], Result.NONE, False, id="the null reverse-path"),
    ],
)
def test_the_check(sender: str, recipients: list[str], spf: Result, fires: bool) -> None:
    envelope = Envelope(mailbox(sender) if sender else None, tuple(map(mailbox, recipients)))
    tx = Transaction(envelope=envelope, results=(AuthResult("spf", spf, "example.net"),))
    assert bool(computed(sender_is_recipient, tx, tools())) is fires
