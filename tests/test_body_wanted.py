"""Checks that read the body say so: it is kept for those alone, and whatever they find of it must not depend on others."""

import asyncio
import base64
from types import FunctionType
from zipfile import ZIP_STORED

import pytest

from authmilter.check import Check, all_checks
from authmilter.config import ini
from authmilter.evaluation import Player, offline_checks
from authmilter.model import Direction, Stage
from authmilter.stored_mail import message_of
from tests.test_archives import zipped

CONFIG = ini.load(
    None,
    "[brands]\ndomains = paypal.com\n[identity]\nlocal_domains = example.net\n"
    "[macros]\nenabled = yes\nmax_size = 1K\n",  # larger documents are not read, so that no process is started
)
HEAD = (
    b'From: "PAYPAL security@paypal.com" <x9999@paypa1.com>\r\nTo: bob@example.net\r\n'
    b"Reply-To: someone@gmail.com\r\nSubject: RE: YOU WON $1,000 !! bob@example.net\r\n"
    b"Date: Tue, 14 Nov 2023 22:00:00 +0000\r\nMIME-Version: 1.0\r\n"
)
PAGE = (
    b"<title>x</title><base href='https://a.test/'><p style='display:none'>"
    + b"many hidden words of nothing " * 20
    + b"</p>"
    b"<form action='https://192.0.2.1/'><input type=password></form><script>x</script><img src='https://a.test/1.png'>"
    b"<a href='https://bit.ly/x'>www.paypal.com</a><a href='http://user@0x7f000001/'>here</a>"
    b"<a href='https://paypal-login.test/#bob@example.net'>log in</a>"
)
WORDS = (
    b"YOUR MAILBOX QUOTA IS FULL VERIFY YOUR ACCOUNT PASSWORD NOW OR IT WILL BE SUSPENDED CLICK HERE\r\n"
    b"viagra cialis levitra xanax pharmacy casino roulette blackjack rolex replica bitcoin lottery winner\r\n"
    b"I recorded you with your webcam, send bitcoin to 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 within 48 hours.\r\n"
    b"Act now!  Risk free, money back, no obligation.  Reply if you wish to be removed from our list.\r\n"
    b"Dear friend, the sum of $10,500,000.00 is yours.  Call 1-800-555-0199, https://www.xn--pypal-4ve.test/\r\n"
)


def attached(name: bytes, data: bytes, content_type: bytes = b"application/octet-stream") -> bytes:
    return (
        b"--b\r\nContent-Type: %b\r\nContent-Disposition: attachment; filename=%b\r\n" % (content_type, name)
        + b"Content-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(data).replace(b"\n", b"\r\n")
    )


MESSAGES = {
    "text": HEAD + b"\r\n" + WORDS,
    "page": HEAD + b"Content-Type: text/html\r\n\r\n" + PAGE,
    "parts": HEAD
    + b'Content-Type: multipart/mixed; boundary="b"\r\nContent-Type: multipart/mixed; boundary="c"\r\n\r\n'
    + b"--b\r\nContent-Type: text/plain\r\n\r\n"
    + WORDS
    + b"--b\r\nContent-Type: text/html; charset=none\r\nContent-Transfer-Encoding: odd\r\n\r\n"
    + PAGE
    + b"\r\n"
    + attached(b"invoice.pdf.exe", b"MZ" + bytes(100))
    + attached(b"a.zip", zipped({"a.js": b"x"}))
    + attached(b"a.html", PAGE, b"text/html")
    + attached(b"a.docm", zipped({"[Content_Types].xml": b"", "word/vbaProject.bin": bytes(2000)}, ZIP_STORED))
    + attached(b"a.pdf", b"%PDF-1.7\n<< /OpenAction << /S /JavaScript >> >>"),
}
# Whoever has something of these looks at the body.
OF_BODIES = (
    "authmilter.mime",
    "authmilter.html_text",
    "authmilter.text_words",
    "authmilter.urls",
    "authmilter.classifier.features",
)
CHECKS = {check.name: check for check in offline_checks()}


async def found(checks: tuple[Check, ...], name: str) -> set[tuple[str, str]]:
    message = message_of(MESSAGES[name])
    assert message is not None
    case = await Player(CONFIG, checks).play(message, spam=False)
    return {(one.symbol, one.detail) for one in case.found}


@pytest.fixture(scope="module")
def together() -> dict[str, set[tuple[str, str]]]:
    """What each message is found to be where all checks are on, so that the body is there for all."""
    return {name: asyncio.run(found(tuple(CHECKS.values()), name)) for name in MESSAGES}


@pytest.mark.parametrize("name", CHECKS)
async def test_a_check_finds_alone_what_it_finds_among_others(
    name: str, together: dict[str, set[tuple[str, str]]]
) -> None:
    of_others = [symbol for other, check in CHECKS.items() if other != name for symbol in check.scores]
    for message, findings in together.items():
        alone = await found((CHECKS[name],), message)
        assert {one for one in findings if one[0] not in of_others} == alone, message


@pytest.mark.parametrize("name", [name for name, check in CHECKS.items() if check.body])
def test_the_messages_of_this_test_have_something_for_each_check_that_reads_the_body(
    name: str, together: dict[str, set[tuple[str, str]]]
) -> None:
    symbols = {symbol for findings in together.values() for symbol, _ in findings}
    assert symbols & CHECKS[name].scores.keys()


@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in all_checks() if not check.body])
def test_a_check_that_is_not_given_the_body_has_nothing_to_do_with_it(check: Check) -> None:
    assert isinstance(check.run, FunctionType)
    names = check.run.__globals__
    assert [name for name, value in names.items() if getattr(value, "__module__", "") in OF_BODIES] == []
    functions = [
        one for one in names.values() if isinstance(one, FunctionType) and one.__module__ == check.run.__module__
    ]
    assert [one.__name__ for one in functions if "body" in one.__code__.co_names] == []


def test_content_and_single_checks_can_be_left_out() -> None:
    config = ini.load(None, "[policy]\nskip = content, helo_name\n")
    left = {check.name for check in all_checks() if check.enabled(config)}
    every = {check.name for check in all_checks() if check.enabled(ini.load(None))}
    assert {"links", "attachments", "header_form", "topics", "helo_name"} <= every - left
    assert {"classifier", "ambiguous_from", "generic_rdns"} <= left
    assert every - left == {check.name for check in all_checks() if check.content or check.name == "helo_name"} & every


@pytest.mark.parametrize("check", [c for c in all_checks() if c.content], ids=lambda check: check.name)
def test_what_counts_as_content_is_judged_at_the_end_of_what_comes_in(check: Check) -> None:
    assert check.stage is Stage.EOM
    assert check.direction is Direction.INBOUND
