"""Links that do not lead where they seem to."""

import pytest

from authmilter.check import all_checks
from authmilter.checks.links import links
from authmilter.evidence import AuthResult, Result
from authmilter.model import Envelope, Transaction
from tests.checks.tools import computed, tools
from tests.checks.verdicts import mailbox
from tests.test_mime import message


def found(body: str, sender: str = "alice@example.org") -> dict[str, str]:
    raw = f"From: {sender}\nContent-Type: text/html; charset=utf-8\n\n{body}\n".encode()
    return {f.symbol: f.detail for f in computed(links, Transaction(message=message(raw)), tools())}


@pytest.mark.parametrize(
    ("href", "symbols"),
    [
        pytest.param("https://www.example.org/x", set(), id="the usual"),
        pytest.param("mailto:bob@example.net", set(), id="an address of mail"),
        pytest.param("http://8.8.8.8/", {"link_address"}, id="an address"),
        pytest.param("http://192.168.1.1/", set(), id="an address at home"),
        pytest.param("http://134744072/", {"link_address", "link_address_number"}, id="an address as a number"),
        pytest.param("http://[2606:4700::1]/", {"link_address"}, id="an IPv6 address"),
        pytest.param("https://bank.example@evil.example/", {"link_user"}, id="a user name"),
        pytest.param("https:/\\evil.example/", {"link_odd"}, id="bent slashes"),
        pytest.param("data:text/html,x", {"link_data"}, id="content"),
        pytest.param("file://192.0.2.1/share", {"link_scheme"}, id="a folder of a stranger's"),
        pytest.param("search-ms:query=x", {"link_scheme"}, id="a program"),
        pytest.param("javascript:alert(1)", set(), id="a script, which another check has"),
        pytest.param("https://www.google.com\\url?q=x", {"link_redirector"}, id="a redirector behind a bent slash"),
        pytest.param("https://bit.ly/x", {"link_shortener"}, id="a shortener"),
        pytest.param("https://a.pages.dev/", {"link_hosting"}, id="a page of anybody"),
        pytest.param("https://storage.googleapis.com/x/y.html", {"link_hosting"}, id="a file of anybody"),
        pytest.param("https://wa.me/123", {"link_chat"}, id="a chat"),
        pytest.param("https://xn--bcher-kva.example/", {"link_punycode"}, id="an IDN"),
        pytest.param("https://\u0430pple.com/", {"link_disguised"}, id="mixed scripts"),
        pytest.param(f"https://{'long' * 10}.example.org/", {"link_long_host"}, id="a long name"),
        pytest.param("https://a-b-c-d.example/", {"link_hyphens"}, id="hyphens"),
        pytest.param("https://example.top/", {"link_cheap"}, id="a top-level domain that costs nothing"),
        pytest.param("https://www.google.co.uk/url?q=https://evil.example/", {"link_redirector"}, id="a redirector"),
        pytest.param("https://www.google.com/search?q=x", set(), id="a site that redirects elsewhere"),
        pytest.param("https://a.example/?u=http://8.8.8.8/", {"link_address"}, id="a URL within"),
        pytest.param("https://a.example/#bob@example.net", {"link_fragment"}, id="an address of mail in the fragment"),
        pytest.param("https://a.example/?u=bob@example.net#x", set(), id="an address of mail in the query"),
    ],
)
def test_urls(href: str, symbols: set[str]) -> None:
    assert set(found(f'<p>Look <a href="{href}">here</a></p>')) == symbols


@pytest.mark.parametrize(
    ("text", "href", "differs"),
    [
        pytest.param("www.bank.example", "https://evil.test/", False, id="no domain that people know"),
        pytest.param("www.bank.com", "https://evil.test/", True, id="a domain"),
        pytest.param("https://bank.com/login", "https://evil.test/", True, id="a URL"),
        pytest.param("https://bank.com/login", "https://www.bank.com/", False, id="the same site"),
        pytest.param("bank.com", "https://click.test/?u=https%3A%2F%2Fbank.com", False, id="a redirector to it"),
        pytest.param(
            "bank.com", "https://eur01.safelinks.protection.outlook.com/?url=x", False, id="a rewriting filter"
        ),
        pytest.param("Please visit bank.com", "https://evil.test/", False, id="a sentence"),
        pytest.param("bob@bank.com", "https://evil.test/", False, id="an address of mail"),
        pytest.param("invoice.pdf", "https://evil.test/", False, id="a file name"),
    ],
)
def test_what_a_link_says(text: str, href: str, differs: bool) -> None:
    assert ("link_differs" in found(f'<a href="{href}">{text}</a>')) is differs


def differs(tx: Transaction, config: str = "") -> bool:
    return "link_differs" in {f.symbol for f in computed(links, tx, tools("links", config=config))}


def newsletter(said: str, *fields: str, href: str = "https://click.esp.test/x") -> Transaction:
    header = "".join(f"{field}\n" for field in ("From: news@shop.test", *fields))
    raw = f'{header}Content-Type: text/html\n\n<a href="{href}">{said}</a>\n'
    return Transaction(
        message=message(raw.encode()), envelope=Envelope(mailbox("b@esp-bounces.test"), (mailbox("bob@corp.com"),))
    )


def test_senders_may_count_the_clicks_on_what_they_recommend() -> None:
    assert differs(newsletter("www.partner.com"))
    assert not differs(newsletter("www.partner.com", href="https://www.shop.test/x"))
    assert not differs(newsletter("www.partner.com", href="https://x.esp-bounces.test/"))
    assert not differs(newsletter("www.partner.com", "List-Unsubscribe: <mailto:x@y.test>, <https://u.esp.test/u>"))
    tx = newsletter("www.partner.com")
    tx = tx._replace(results=(AuthResult("dkim", Result.FAIL, "esp.test"),))
    assert differs(tx)
    tx = tx._replace(results=(AuthResult("dkim", Result.PASS, "esp.test"),))
    assert not differs(tx)


@pytest.mark.parametrize("said", ["corp.com", "https://www.corp.com/login"])
def test_nobody_may_say_that_it_leads_to_us(said: str) -> None:
    tx = newsletter(said, href="https://www.shop.test/x")
    assert differs(tx)
    tx = tx._replace(results=(AuthResult("dmarc", Result.PASS, "shop.test"),))
    assert differs(tx)
    tx = tx._replace(results=(AuthResult("dmarc", Result.PASS, "corp.com"),))
    assert not differs(tx)


def test_our_domains_are_ours_whoever_the_recipient_is() -> None:
    tx = newsletter("intern.com", href="https://www.shop.test/x")
    assert not differs(tx)
    assert differs(tx, "[identity]\nlocal_domains = intern.com\n")


def test_the_site_behind_a_rewriting_filter_is_the_one() -> None:
    wrapped = "https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2F{}.example%2F{}"
    assert found("".join(f'<a href="{wrapped.format("ab"[n % 2], n)}">x</a>' for n in range(6))) == {}
    assert found("".join(f'<a href="{wrapped.format("a", n)}">x</a>' for n in range(6))) == {
        "link_one_site": "a.example"
    }


def test_a_hidden_link() -> None:
    assert found('<div style="display:none"><a href="https://a.example">x</a></div>') == {"link_hidden": "a.example"}


def test_all_links_to_one_site_that_is_not_the_senders() -> None:
    body = "".join(f'<a href="https://a.example/{number}">x</a>' for number in range(4))
    assert found(body) == {"link_one_site": "a.example"}
    assert found(body, "alice@mail.a.example") == {}
    assert found(body + '<a href="https://b.example/">x</a>') == {}


def test_text_without_markup() -> None:
    raw = b"Subject: x\n\nVisit http://8.8.8.8/x now\n"
    assert [f.symbol for f in computed(links, Transaction(message=message(raw)), tools())] == ["link_address"]


def test_the_body_is_kept_for_it() -> None:
    for name in ("links", "body_text", "uri_lists", "brands"):
        assert next(check for check in all_checks() if check.name == name).body


def test_names_in_a_text() -> None:
    raw = b"Subject: x\n\nGo to evil.pages.dev or a-b-c-d.example.top now\n"
    found = computed(links, Transaction(message=message(raw)), tools())
    assert [(f.symbol, f.detail) for f in found] == [("link_hosting", "evil.pages.dev")]


def test_no_weight_tags_alone() -> None:
    scores = next(check.scores for check in all_checks() if check.name == "links")
    assert all(isinstance(weight, float | int) and 0 <= weight <= 2.5 for weight in scores.values())
