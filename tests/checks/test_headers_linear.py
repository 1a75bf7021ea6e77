"""The checks of the header section cost no more than in proportion to it, whatever stands there."""

import gc
from collections.abc import Callable, Iterator

import pytest

from authmilter.check import all_checks
from authmilter.model import Envelope, HeaderField, Message, Transaction
from tests.checks.test_headers import NAMES
from tests.checks.tools import tools
from tests.checks.verdicts import mailbox
from tests.test_linear import TIME_GROWTH, Work, forget, repeated, seconds, time_growth

FIELDS = (
    b"From", b"Reply-To", b"Sender", b"To", b"Subject", b"Date", b"Message-ID", b"List-Unsubscribe", b"Received",
    b"Content-Type", b"X-Mailer",
)  # fmt: skip
LARGEST = 256 * 1024  # octets of a field, as the session has it
MOST_FIELDS = 20_000
CONFIG = "[brands]\ndomains = apple.com, example.org\n[identity]\nlocal_domains = corp.example\n[people]\nnames = jane.doe, aa.aa\n"

TEXTS: dict[str, Callable[[int], bytes]] = {
    "blanks": repeated(b" ", b"a", b"b"),
    "folds": repeated(b"\r\n ", b"a", b"b"),
    "blanks before a fold": repeated(b" ", b"a", b"\r\n b"),
    "tabs and CR": repeated(b"\t\r"),
    "at signs": repeated(b"@a", b'"', b'" <x@y.example>'),
    "domains": repeated(b"a.com ", b'"', b'" <x@y.example>'),
    "one long label": repeated(b"a", b'"@', b'" <x@y.example>'),
    "dots": repeated(b".a", b'"@a', b'" <x@y.example>'),
    "single letters": repeated(b" a"),
    "prices": repeated(b"$1 "),
    "encoded words": repeated(b"=?utf-8?B?w6Q=?= "),
    "beginnings of encoded words": repeated(b"=?u?B?"),
    "Cyrillic among Latin": repeated("аa".encode()),
    "combining marks": repeated("\u0301".encode(), b"a"),
    "what expands": repeated("\ufdfa".encode()),
    "zero-width": repeated("\u200b".encode()),
    "brackets": repeated(b"<"),
    "comments": repeated(b"(", b"Tue, 14 Nov 2023 22:00:00 +0000 "),
    "hexadecimal": repeated(b"0", b"<", b"@a>"),
    "a boundary": repeated(b"----=_NextPart_", b"multipart/mixed; boundary="),
}


def checked(message: Message) -> int:
    """How many findings all of them have."""
    tx = Transaction(message=message, envelope=Envelope(mailbox("a@b.example"), (mailbox("bob@example.net"),)))
    return len([finding for check, given in GIVEN for finding in check.run(tx, given)])  # type: ignore[union-attr]


GIVEN = [(check, tools(check.name, config=CONFIG)) for check in all_checks() if check.name in NAMES]


def of_value(value: bytes) -> int:
    return checked(Message(tuple(HeaderField(name, b" " + value) for name in FIELDS)))


def of_names(size: int) -> Message:
    return Message(tuple(HeaderField(b"X-%d" % n, b" a") for n in range(size)))


def of_copies(size: int) -> Message:
    return Message(tuple(HeaderField(FIELDS[n % len(FIELDS)], b" a@b.example") for n in range(size)))


WORKS = {name: Work(make, of_value, time_at=LARGEST // 4) for name, make in TEXTS.items()}
WORKS["many fields"] = Work(of_names, lambda message: checked(Message(message.fields)), time_at=MOST_FIELDS // 4)
WORKS["many copies"] = Work(of_copies, lambda message: checked(Message(message.fields)), time_at=MOST_FIELDS // 4)


@pytest.fixture(autouse=True)
def _start_cold() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
    forget()


@pytest.mark.parametrize("name", WORKS)
def test_time_grows_no_faster_than_the_header_section(name: str) -> None:
    growths = []
    for _ in range(5):
        growths.append(time_growth(WORKS[name]))
        if growths[-1] < TIME_GROWTH:
            return
    pytest.fail(f"four times the input takes {', '.join(f'{growth:.1f}' for growth in growths)} times as long")


@pytest.mark.parametrize("name", TEXTS)
def test_the_largest_fields_cost_less_than_a_tenth_of_a_second(name: str) -> None:
    value = TEXTS[name](LARGEST)
    spent = min(seconds(of_value, value, repeats=2) for _ in range(3))
    assert spent < 0.1
