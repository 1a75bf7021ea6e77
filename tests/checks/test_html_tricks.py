"""HTML that shows its reader something else than a filter."""

from collections.abc import Callable

import pytest

from authmilter.check import all_checks
from authmilter.checks.html_tricks import html_tricks
from authmilter.model import HeaderField, Message, Transaction
from tests.checks.tools import computed, tools
from tests.test_linear import STEP_GROWTH, TIME_GROWTH, Work, repeated, step_growth, time_growth
from tests.test_mime import message

TEXT = (
    "There is much to say of Tuesday, of the river and its boats, and of whoever waits for them on the other side. " * 3
)
LONG = " ".join(f"word{number}" for number in range(60))


def found(raw: str) -> set[str]:
    return {f.symbol for f in computed(html_tricks, Transaction(message=message(raw.encode())), tools())}


def both(plain: str, html: str, kind: str = "alternative") -> str:
    return (
        f"Content-Type: multipart/{kind}; boundary=x\n\n--x\n\n{plain}\n--x\nContent-Type: text/html\n\n{html}\n--x--\n"
    )


@pytest.mark.parametrize(
    ("html", "symbols"),
    [
        pytest.param(f"<p>{TEXT}", set(), id="the usual"),
        pytest.param(f"<p hidden>In this issue</p>{TEXT}", set(), id="a line for the list of messages"),
        pytest.param(f"<p hidden>{'&zwnj;&nbsp;' * 300}</p>{TEXT}", set(), id="the same, filled up"),
        pytest.param(f"<p hidden>{LONG}</p>{TEXT * 3}", {"html_hidden_text"}, id="hidden text"),
        pytest.param(
            f"<p hidden>{LONG}</p>{TEXT}", {"html_hidden_text", "html_hidden_more"}, id="more hidden than shown"
        ),
        pytest.param(
            f"<p hidden>{LONG}</p>{TEXT * 3}{LONG}", set(), id="the same text for small and for large screens"
        ),
        pytest.param(
            f"<style>.x{{display:none}}</style><p class=x>{LONG}</p>{TEXT * 3}",
            {"html_hidden_text"},
            id="hidden by a sheet",
        ),
        pytest.param(
            f"<table><td style='font-size:0'><div style='font-size:13px'>{TEXT * 3}</div></td></table>",
            set(),
            id="text in cells without a size, as newsletters are built",
        ),
        pytest.param(f"<body style='font-size:1em'>{TEXT * 3}</body>", set(), id="text in the usual size"),
        pytest.param(f"{TEXT}<img src='data:image/png;base64,x'>", {"html_data_image"}, id="a picture within"),
        pytest.param(f"{TEXT}<script>x()</script>", {"html_script"}, id="a script"),
        pytest.param(f"{TEXT}<body onload='x()'>", {"html_script"}, id="a handler"),
        pytest.param(f"{TEXT}<form><input name=q></form>", {"html_form"}, id="a form"),
        pytest.param(f"{TEXT}<input type=password>", {"html_form", "html_password"}, id="a password"),
        pytest.param(f"{TEXT}<meta http-equiv=refresh content='0;url=http://x'>", {"html_refresh"}, id="a refresh"),
        pytest.param(f"{TEXT}<base href='http://x'>", {"html_base"}, id="a base"),
    ],
)
def test_what_is_in_it(html: str, symbols: set[str]) -> None:
    assert found(both(TEXT, html)) == symbols
    assert found(f"Content-Type: text/html\n\n{html}") == symbols | {"html_only"}


@pytest.mark.parametrize(
    ("raw", "symbols"),
    [
        pytest.param(f"Subject: x\n\n{TEXT}", set(), id="plain text"),
        pytest.param(
            "Content-Type: text/html\nContent-Transfer-Encoding: base64\n\nPHA+aGk=\n",
            {"html_only", "html_only_base64"},
            id="base64",
        ),
        pytest.param(both("", TEXT), {"html_plain_empty"}, id="an empty alternative"),
        pytest.param(both(LONG, TEXT), {"html_differs"}, id="another text"),
        pytest.param(both(LONG, TEXT, "mixed"), set(), id="another text that is no alternative"),
        pytest.param(both("Your reader has no HTML", TEXT), set(), id="a short note in place of the text"),
        pytest.param(both(LONG, f"<p hidden>{LONG}</p>{TEXT * 3}"), {"html_hidden_text"}, id="the same text, hidden"),
        pytest.param(
            both("x", "<a href='http://x/'><img src='http://x/1.png'></a>"), {"html_image_only"}, id="a picture"
        ),
        pytest.param(
            both("", "<a href='http://x/'><img src='http://x/1.png'></a>"),
            {"html_image_only"},
            id="a picture and an empty alternative",
        ),
        pytest.param(
            both(TEXT, "<img src='http://x/1.png'>"),
            {
                "html_differs",
            },
            id="a picture in place of text",
        ),
        pytest.param(
            f"Content-Type: text/html\nContent-Disposition: attachment\n\n<script>{TEXT}", set(), id="an attachment"
        ),
    ],
)
def test_beside_the_text(raw: str, symbols: set[str]) -> None:
    assert found(raw) == symbols


@pytest.mark.parametrize(
    ("plain", "html", "strength"),
    [
        pytest.param("", "<a href='http://x/'><img src='http://x/1.png'></a>", 1.0, id="a picture alone"),
        pytest.param("", f"<a href='http://x/'><img src='http://x/1.png'></a>{'x' * 50}", 0.75, id="a little text"),
        pytest.param("x" * 100, "<a href='http://x/'><img src='http://x/1.png'></a>", 0.5, id="text in the other form"),
        pytest.param("", f"<a href='http://x/'><img src='http://x/1.png'></a>{'x' * 300}", 0.0, id="text enough"),
        pytest.param("Look!", "<a href='http://x/'>x</a><img src='cid:1'>Look!", 0.0, id="a photograph"),
        pytest.param("Look!", "<img src='http://x/1.png'>Look!", 0.0, id="a picture that leads nowhere"),
    ],
)
def test_the_less_text_beside_pictures_the_more_it_weighs(plain: str, html: str, strength: float) -> None:
    taken = Transaction(message=message(both(plain, html).encode()))
    assert sum(f.strength for f in computed(html_tricks, taken, tools()) if f.symbol == "html_image_only") == strength


def checked(taken: Message) -> int:
    return len(computed(html_tricks, Transaction(message=Message(taken.fields, body=taken.body)), tools()))


def of_parts(part: bytes) -> Callable[[int], Message]:
    fields = (HeaderField(b"Content-Type", b" multipart/alternative; boundary=a"),)
    return lambda size: Message(fields, body=part * (size // len(part)) + b"--a--\r\n")


def of_page(piece: bytes, before: bytes = b"") -> Callable[[int], Message]:
    make = repeated(piece, before)
    return lambda size: Message((HeaderField(b"Content-Type", b" text/html"),), body=make(size))


HOSTILE = {
    "many small parts of HTML": of_parts(b"--a\r\nContent-Type: text/html\r\n\r\n<p hidden>x<a href=y>\r\n"),
    "parts of HTML and of text": of_parts(b"--a\r\n\r\nx\r\n--a\r\nContent-Type: text/html\r\n\r\n<img src=x>\r\n"),
    "nested elements": of_page(b"<div><font size=1>"),
    "nested hidden elements": of_page(b"<div style='font-size:0'><b style='font-size:9px'>"),
    "hidden words": of_page(b"word ", b"<p hidden>"),
    "different hidden words": lambda size: Message(
        (HeaderField(b"Content-Type", b" text/html"),),
        body=b"<p hidden>" + b" ".join(b"w%d" % n for n in range(size // 7)),
    ),
    "attributes": of_page(b" a=b", b"<p"),
    "entities": of_page(b"&NotEqualTilde;"),
    "rules": of_page(b".a,#b{display:none}", b"<style>"),
    "comments": of_page(b"<!-- "),
    "pictures": of_page(b"<img src=data:x><input type=password>"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_no_faster_than_the_message(name: str) -> None:
    work = Work(HOSTILE[name], checked, steps_at=2000, time_at=50_000)
    growth, counted = step_growth(work)
    assert growth < STEP_GROWTH, counted
    taken = [time_growth(work)]
    while taken[-1] >= TIME_GROWTH and len(taken) < 3:
        taken.append(time_growth(work))
    assert taken[-1] < TIME_GROWTH, taken


def test_no_weight_tags_alone() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "html_tricks")
    assert all(isinstance(weight, int | float) and 0 <= weight <= 1.5 for weight in scores.values())
