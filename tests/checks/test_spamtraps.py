"""What is a trap, and that nobody learns of it."""

import pytest

from authmilter.addresses import parse_path
from authmilter.checks.spamtraps import spamtraps
from authmilter.config import ini
from authmilter.errors import ConfigError
from authmilter.model import Envelope, Mailbox, Stage, Transaction
from authmilter.verdict import Action
from tests.checks.tools import computed, is_wanted, tools
from tests.checks.verdicts import mailbox, reply, verdict

TRAPS = (
    "[spamtraps]\naddresses = Old.Name@Example.ORG, @trap.example, bücher.example, dead@bücher.test\n"
    ' "ODD\\(name)"@example.org, old.name+shop@example.net, b\u00fccher@example.net\n'
)


def rcpt(*recipients: Mailbox) -> Transaction:
    return Transaction(envelope=Envelope(mailbox("a@example.com"), recipients))


def to(argument: str | bytes) -> Transaction:
    path = parse_path(argument.encode() if isinstance(argument, str) else argument)
    assert path is not None
    return rcpt(path)


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        pytest.param("<old.name@example.org>", "old.name@example.org", id="a mailbox"),
        pytest.param("<OLD.NAME@EXAMPLE.ORG>", "old.name@example.org", id="a mailbox in capitals"),
        pytest.param('<"old.name"@example.org>', "old.name@example.org", id="a mailbox in quotes"),
        pytest.param(r'<"old\.n\ame"@example.org>', "old.name@example.org", id="a mailbox with quoted pairs"),
        pytest.param(r'<"odd\(name)"@example.org>', "odd(name)@example.org", id="one in quotes whose entry has them"),
        pytest.param("<old.name+shop@example.net>", "old.name+shop@example.net", id="a mailbox with an extension"),
        pytest.param("<b\u00fccher@example.net>", "b\u00fccher@example.net", id="an internationalised mailbox"),
        pytest.param("<anyone@trap.example>", "anyone@trap.example", id="a domain"),
        pytest.param("<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example", id="a domain by its A-label"),
        pytest.param("<a@bücher.example>", "a@xn--bcher-kva.example", id="a domain by its U-label"),
        pytest.param("<dead@bücher.test>", "dead@xn--bcher-kva.test", id="a mailbox of an internationalised domain"),
    ],
)
def test_a_trap(argument: str, address: str) -> None:
    found = computed(spamtraps, to(argument), tools("spamtraps", config=TRAPS))
    assert [(finding.symbol, finding.detail) for finding in found] == [("spamtrap", address)]


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param("<new.name@example.org>", id="another mailbox of the domain"),
        pytest.param("<old.name+x@example.org>", id="a mailbox with an extension that has no entry"),
        pytest.param("<old.name@sub.example.org>", id="the same mailbox of another domain"),
        pytest.param("<a@sub.trap.example>", id="below a domain"),
        pytest.param("<alive@bücher.test>", id="another mailbox of an internationalised domain"),
        pytest.param("<postmaster>", id="no domain"),
        pytest.param("<a b@trap.example>", id="no address"),
        pytest.param(b"<\xff\xfe@example.org>", id="no UTF-8"),
    ],
)
def test_no_trap(argument: str | bytes) -> None:
    assert computed(spamtraps, to(argument), tools("spamtraps", config=TRAPS)) == []


def test_only_the_newest_recipient_is_looked_at() -> None:
    trap, other = mailbox("x@trap.example"), mailbox("b@example.net")
    given = tools("spamtraps", config=TRAPS)
    assert computed(spamtraps, rcpt(trap, other), given) == []
    assert len(computed(spamtraps, rcpt(other, trap), given)) == 1


def test_a_message_to_a_trap_is_tagged_at_its_end_and_its_sender_learns_nothing() -> None:
    tx = to("<old.name@example.org>")
    found = computed(spamtraps, tx, tools("spamtraps", config=TRAPS))
    assert reply(tx, Stage.RCPT, found, TRAPS) == ""
    assert verdict(tx, Stage.EOM, found, TRAPS).action is Action.TAG
    assert verdict(tx, Stage.EOM, found, TRAPS).reply is None


@pytest.mark.parametrize(
    ("action", "stage", "expected"),
    [
        ("reject", Stage.RCPT, "550 5.7.1 Message looks like spam [ref]"),
        ("tempfail", Stage.RCPT, "451 4.7.1 Message looks like spam [ref]"),
    ],
)
def test_a_refusal_does_not_name_the_trap(action: str, stage: Stage, expected: str) -> None:
    tx = to("<old.name@example.org>")
    found = computed(spamtraps, tx, tools("spamtraps", config=TRAPS))
    assert reply(tx, stage, found, f"{TRAPS}[scores]\nspamtrap = {action}\n") == expected


@pytest.mark.parametrize("text", ["a@b@example.org", "@", "a@", "no domain", "a@exa_mple..org", ".example.org"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="addresses"):
        ini.load(None, f"[spamtraps]\naddresses = {text}\n")


def test_it_is_off_without_traps() -> None:
    assert not is_wanted("spamtraps", "")
    assert is_wanted("spamtraps", TRAPS)
