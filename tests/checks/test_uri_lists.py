"""DNS lists of what links lead to."""

import pytest

from authmilter.check import words_for
from authmilter.checks.uri_lists import linked, uri_lists
from authmilter.interfaces import Listing
from authmilter.model import Transaction
from tests.checks.tools import FakeLists, awaited, is_wanted, tools
from tests.test_mime import message

LIST = "[uribl bad]\nzone = bad.example\n"


def mail(html: str) -> Transaction:
    return Transaction(message=message(f"Content-Type: text/html\n\n{html}".encode()))


def link(href: str) -> str:
    return f"<a href='{href}'>x</a>"


@pytest.mark.parametrize(
    ("html", "hosts"),
    [
        pytest.param("<p>x", [], id="no link"),
        pytest.param(link("https://www.a.example.co.uk/"), ["example.co.uk"], id="as it was registered"),
        pytest.param(link("https://x.y.pages.dev/"), ["y.pages.dev"], id="below who hosts"),
        pytest.param(link("http://8.8.8.8/"), ["8.8.8.8"], id="an address"),
        pytest.param(link("http://10.0.0.1/") + link("http://[2606:4700::1]/"), [], id="addresses that no list has"),
        pytest.param(link("http://localhost/"), [], id="no domain"),
        pytest.param(link("https://a.test/?u=https://b.test/"), ["a.test", "b.test"], id="a URL within"),
        pytest.param(link("https://a.test/1") + link("https://a.test/2"), ["a.test"], id="once"),
        pytest.param(
            link("https://own.test/") + link("https://www.own.test/"), [], id="exempt, and what was registered so"
        ),
        pytest.param(link("https://x.pages.dev/"), ["x.pages.dev"], id="exempt is who hosts, not those who are there"),
        pytest.param(link("https://x.github.io/"), ["x.github.io"], id="below a public suffix of the private section"),
        pytest.param(link("https://pages.dev/"), [], id="who hosts"),
        pytest.param(link("https://www.w3.org/"), [], id="where everybody leads"),
        pytest.param(link("https://sites.google.com/x"), ["sites.google.com"], id="pages of others there"),
        pytest.param(link("https://www.google.com/url?q=https://a.test/"), ["a.test"], id="what a redirector leads to"),
        pytest.param(link("https://nas.local/") + link("https://x.onion/"), [], id="nobody's names"),
        pytest.param(link("mailto:x@a.test"), ["a.test"], id="an address to write to"),
        pytest.param(
            f"see evil.shop {link('https://b.test')}", ["b.test", "evil.shop"], id="a name in the text, at last"
        ),
        pytest.param(
            f"<p hidden>{link('https://a.test')}</p>{link('https://b.test')}", ["b.test", "a.test"], id="shown first"
        ),
    ],
)
def test_what_is_asked_for(html: str, hosts: list[str]) -> None:
    assert linked(mail(html).message, 5, ("own.test", "pages.dev")) == hosts


def test_of_too_many_the_first_and_the_last() -> None:
    html = "".join(link(f"https://a{number}.test/") for number in range(9))
    assert linked(mail(html).message, 5) == ["a0.test", "a1.test", "a2.test", "a7.test", "a8.test"]


async def test_findings() -> None:
    lists = FakeLists({"evil.test": [Listing("uribl_bad", "bad.example", "127.0.0.2", subject="evil.test")]})
    found = await awaited(
        uri_lists, mail(link("https://www.evil.test/x")), tools("uri_lists", config=LIST, lists=lists)
    )
    assert [(f.symbol, f.detail) for f in found] == [
        ("uribl_bad", "evil.test, which is listed by bad.example (127.0.0.2)")
    ]


async def test_our_own_domains_are_not_asked_for() -> None:
    config = LIST + "[identity]\nlocal_domains = evil.test\n"
    lists = FakeLists({"evil.test": [Listing("uribl_bad", "bad.example", "127.0.0.2")]})
    given = tools("uri_lists", config=config, lists=lists)
    assert await awaited(uri_lists, mail(link("https://evil.test/")), given) == []


def test_it_runs_where_there_is_a_list() -> None:
    assert is_wanted("uri_lists", LIST)
    assert not is_wanted("uri_lists", "")


def test_the_words_of_a_refusal() -> None:
    words = words_for("uribl_bad_2")
    assert words is not None
    assert words.text(Transaction(), "x.test, which is listed by y") == "Message leads to x.test, which is listed by y"
