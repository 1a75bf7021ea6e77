"""The checks of texts and links cost no more than in proportion to them, whatever stands there."""

import gc
from collections.abc import Callable, Iterator

import pytest

from authmilter.check import all_checks
from authmilter.checks.uri_lists import linked
from authmilter.model import Envelope, Message, Transaction
from authmilter.urls import inner_urls, read_url
from tests.checks.tools import tools
from tests.checks.verdicts import mailbox
from tests.test_linear import TIME_GROWTH, Work, forget, repeated, seconds, time_growth
from tests.test_mime import message

LARGEST = 1024 * 1024  # octets of a body, some of which is beyond every limit
CONFIG = "[brands]\ndomains = paypal.com, example.org\n[identity]\nlocal_domains = corp.example\n"
GIVEN = [(c, tools(c.name, config=CONFIG)) for c in all_checks() if c.name in ("links", "body_text", "brands")]

PIECES: dict[str, Callable[[int], bytes]] = {
    "beginnings of URLs": repeated(b"http://"),
    "URLs of one letter": repeated(b"http://a.b "),
    "URLs in one": repeated(b"https://a.example/?u="),
    "user names": repeated(b"a@", b"http://", b"evil.example"),
    "names": repeated(b"a.com "),
    "labels": repeated(b"a."),
    "many labels": repeated(b"a.", b" ", b"com"),
    "last dots": repeated(b".com"),
    "www": repeated(b"www."),
    "percent signs": repeated(b"%25", b"http://a.example/?u=http"),
    "base64": repeated(b"aHR0cHM6Ly"),
    "digits": repeated(b"1", b"http://"),
    "numbers": repeated(b"0x1.", b"http://"),
    "ideographic dots": repeated("\u3002".encode(), b"http://a"),
    "what UTS 46 maps": repeated("\ufdfa".encode(), b"http://a"),
    "marks": repeated("\u0301".encode(), b"http://a"),
    "pictures": repeated("http://\U0001f4a9.la ".encode()),
    "mixed scripts": repeated("p\u0430ypal ".encode()),
    "unseen characters": repeated("a\u200b".encode()),
    "words of coins": repeated(b"1Boat", b"BTC "),
    "coins with a wrong checksum": repeated(b"1BoatSLRHtKNngkdXEeobR76b53LETtpyU ", b"BTC "),
    "sums": repeated(b"$1,000"),
    "hours": repeated(b"48 h"),
    "calls": repeated(b"888-555-"),
    "hyphens": repeated(b"paypal-", b"http://", b".com"),
}


def checked(mail: Message) -> int:
    """How many findings all of them have."""
    fields, body = mail.fields, mail.body
    mail = Message(fields, body=body)  # nothing is known of it yet
    tx = Transaction(message=mail, envelope=Envelope(mailbox("a@b.example"), (mailbox("bob@example.net"),)))
    linked(mail, 100)
    return len([finding for check, given in GIVEN for finding in check.run(tx, given)])  # type: ignore[union-attr]


def of_text(piece: bytes) -> Message:
    return message(b"From: a@b.example\nContent-Type: text/plain; charset=utf-8\n\n" + piece)


def of_link(piece: bytes) -> Message:
    return message(b"Content-Type: text/html; charset=utf-8\n\n<a href='" + piece + b"'>" + piece + b"</a>")


WORKS = {f"{name} in a text": (make, of_text) for name, make in PIECES.items()}
WORKS |= {f"{name} in a link": (make, of_link) for name, make in PIECES.items()}


@pytest.fixture(autouse=True)
def _start_cold() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
    forget()


@pytest.mark.parametrize("name", WORKS)
def test_time_grows_no_faster_than_the_text(name: str) -> None:
    make, build = WORKS[name]
    growths = []
    for _ in range(5):
        growths.append(time_growth(Work(lambda size: build(make(size)), checked, time_at=LARGEST // 4)))
        if growths[-1] < TIME_GROWTH:
            return
    pytest.fail(f"four times the input takes {', '.join(f'{growth:.1f}' for growth in growths)} times as long")


@pytest.mark.parametrize("name", WORKS)
def test_a_megabyte_costs_little(name: str) -> None:
    make, build = WORKS[name]
    mail = build(make(LARGEST))
    spent = min(seconds(checked, mail, repeats=1) for _ in range(3))
    assert spent < 0.25


def test_many_parts_cost_no_more_than_one() -> None:
    head = b"Content-Type: multipart/mixed; boundary=x\n\n"
    for piece in (b"http://a.b ", b"://", b"a.com ", b"1Boat BTC ", b"$1,000"):
        part = b"--x\nContent-Type: text/plain\n\n" + piece * (8192 // len(piece)) + b"\n"
        mail = message(head + part * 499)
        assert min(seconds(checked, mail, repeats=1) for _ in range(3)) < 0.5


def test_two_hundred_links_of_the_dearest_kind_cost_little() -> None:
    host = "".join("\u00e4\u0301"[n % 2] for n in range(290))
    links = "".join(
        f"<a href='https://{number}{host}.example/?u=https://{host}.test'>{host}.com</a>" for number in range(300)
    )
    mail = message(f"Content-Type: text/html; charset=utf-8\n\n{links}".encode())
    assert min(seconds(checked, mail, repeats=1) for _ in range(3)) < 0.3


def test_urls_within_a_long_one() -> None:
    url = read_url("https://a.example/" + "http" * 100_000)
    assert url is not None
    assert min(seconds(lambda one: len(list(inner_urls(one))), url, repeats=1) for _ in range(3)) < 0.05
