"""Where URLs lead, as browsers read them."""

import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.urls import MAX_TARGETS, Target, feigned, inner_urls, is_hosted, read_url, registered, targets
from tests.test_mime import message


@pytest.mark.parametrize(
    ("text", "host"),
    [
        pytest.param("https://www.example.org/path?x#y", "www.example.org", id="the usual"),
        pytest.param("HTTP://WWW.Example.ORG", "www.example.org", id="capitals"),
        pytest.param("https://example.org.", "example.org", id="a final dot"),
        pytest.param("https://example.org:8443/", "example.org", id="a port"),
        pytest.param("//example.org/x", "example.org", id="no scheme"),
        pytest.param("https:example.org", "example.org", id="no slashes"),
        pytest.param("https:/example.org", "example.org", id="one slash"),
        pytest.param("https:\\\\example.org\\x", "example.org", id="backslashes"),
        pytest.param("https://bank.example\\@evil.example/", "bank.example", id="a backslash ends the host"),
        pytest.param("https://bank.example@evil.example/", "evil.example", id="a user name"),
        pytest.param("https://bank.example:443@evil.example/", "evil.example", id="a user name and password"),
        pytest.param("https://a@b@evil.example/", "evil.example", id="the last at counts"),
        pytest.param("https://example.org?@evil.example", "example.org", id="a query ends the host"),
        pytest.param("https://example.org#@evil.example", "example.org", id="a fragment ends the host"),
        pytest.param("  https://ex\nample.org\t/", "example.org", id="line ends within"),
        pytest.param("https://%65xample.org", "example.org", id="percent encoding"),
        pytest.param("https://ｅxample。org", "example.org", id="full width"),
        pytest.param("https://𝐞𝐱𝐚𝐦𝐩𝐥𝐞.𝐨𝐫𝐠", "example.org", id="letters of mathematics"),
        pytest.param("https://ex\u00adam\u200bple.org", "example.org", id="characters that nobody sees"),
        pytest.param("https://💩.la", "xn--ls8h.la", id="a picture, which RFC 5891 forbids and browsers take"),
        pytest.param("http://①⑨②.0.②.1/", "192.0.2.1", id="an address in circled digits"),
        pytest.param(f"https://{'a' * 20000}@evil.example/", "evil.example", id="a user name without end"),
        pytest.param("https://" + "a" * 2000 + "\u0301.example", "", id="a host that is too long"),
        pytest.param("mailto:Bob%40Example.org?subject=x", "example.org", id="an address of mail"),
        pytest.param("https://bücher.example", "xn--bcher-kva.example", id="U-labels"),
        pytest.param("https://XN--bcher-kva.example", "xn--bcher-kva.example", id="A-labels"),
        pytest.param("http://192.0.2.1/", "192.0.2.1", id="an address"),
        pytest.param("http://3221225985/", "192.0.2.1", id="an address as one number"),
        pytest.param("http://0xC0000201/", "192.0.2.1", id="an address in hexadecimal"),
        pytest.param("http://0300.0.0x2.1", "192.0.2.1", id="an address in octal"),
        pytest.param("http://192.513", "192.0.2.1", id="an address of two parts"),
        pytest.param("http://%31%39%32.0.2.1", "192.0.2.1", id="an address in percent encoding"),
        pytest.param("http://[2001:DB8::1]:80/", "2001:db8::1", id="an IPv6 address"),
        pytest.param("http://1.2.3.4.5/", "", id="a number that is no address"),
        pytest.param("http://256.1.1.1/", "", id="an octet that is too large"),
        pytest.param("http://0x/", "0.0.0.0", id="a prefix without digits is zero"),
        pytest.param("http://a b/", "", id="a blank"),
        pytest.param("http://[::1", "", id="an open bracket"),
        pytest.param("http://", "", id="nothing"),
        pytest.param("data:text/html,hello", "", id="content"),
        pytest.param("file://192.0.2.1/share", "", id="a folder"),
        pytest.param("ms-msdt:/id", "", id="a program"),
    ],
)
def test_hosts(text: str, host: str) -> None:
    found = read_url(text)
    assert found is not None
    assert found.host == host
    assert found.address == (ip_address(host) if host[:1].isdigit() or ":" in host else None)


@pytest.mark.parametrize(
    "text", ["", "mailto:", "mailto:nobody", "#top", "page.html", "/page", "tel:123", "cid:1", "1:2"]
)
def test_what_leads_nowhere(text: str) -> None:
    assert read_url(text) is None


@pytest.mark.parametrize(
    ("text", "odd", "port", "user"),
    [
        ("https://example.org/", False, 0, ""),
        ("https://example.org:8080/", False, 8080, ""),
        ("https://example.org:99999/", False, -1, ""),
        ("https://example.org:x/", False, -1, ""),
        ("https://u:p@example.org/", False, 0, "u:p"),
        ("https:/example.org/", True, 0, ""),
        ("https:\\\\example.org/", True, 0, ""),
        ("https://%65xample.org/", True, 0, ""),
        ("https://example。org/", True, 0, ""),
        ("https://bücher.example/", False, 0, ""),
        ("https://𝐞xample.org/", True, 0, ""),
        ("https://bücher。example/", True, 0, ""),
    ],
)
def test_form(text: str, odd: bool, port: int, user: str) -> None:
    found = read_url(text)
    assert found is not None
    assert (found.odd, found.port, found.user) == (odd, port, user)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("https://a.example/?u=https://b.example/x", ["b.example"]),
        ("https://a.example/?u=https%3A%2F%2Fb.example%2Fx&v=1", ["b.example"]),
        ("https://a.example/?u=https%253A%252F%252Fb.example%252Fx", ["b.example"]),
        ("https://a.example/http://b.example/?u=http://c.example/", ["b.example", "c.example"]),
        ("https://a.example/?u=nothing", []),
        ("https://a.example/?u=%68%74%74%70s://b.example/x", ["b.example"]),
        ("https://a.example/?u=HTTPS://B.example/x", ["b.example"]),
        ("https://a.example/?u=aHR0cHM6Ly9iLmV4YW1wbGUveA", ["b.example"]),
        ("https://a.example/ck?u=a1aHR0cDovL2IuZXhhbXBsZS94&ntb=1", ["b.example"]),
        ("https://a.example/#aHR0cHM6Ly9iLmV4YW1wbGUv", ["b.example"]),
        ("https://urldefense.proofpoint.com/v2/url?u=https-3A__b.example_x-2520y&d=DwMF", ["b.example"]),
        ("https://urldefense.com/v3/__https://b.example/x__;Kys!!abc$", ["b.example"]),
        ("https://urldefense.com/v3/__https:/b.example/x__;!!abc$", ["b.example"]),
        ("https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fb.example%2Fx&data=05", ["b.example"]),
        (
            "https://l.facebook.com/l.php?u=https%3A%2F%2Fb.example%2F%3Fv%3Dhttp%253A%252F%252Fc.example",
            ["b.example", "c.example"],
        ),
        ("https://a.example/" + "x" * 9000 + "?u=https://b.example", []),
        ("https://a.example/" + "?u=https://b.example/" * 9, ["b.example"] * 3),
    ],
)
def test_urls_within(text: str, hosts: list[str]) -> None:
    found = read_url(text)
    assert found is not None
    assert [inner.host for inner in inner_urls(found)] == hosts


def test_targets_of_html_text_and_meta_elements() -> None:
    raw = (
        b"Content-Type: multipart/alternative; boundary=x\n\n--x\n\nSee https://a.example/x. Or (www.b.example), "
        b"ftp://no.example/ and user@www.no.example\n--x\nContent-Type: text/html\n\n"
        b"<meta http-equiv=refresh content='0;url=http://c.example/'><a href='https://d.example/?u=http://e.example/'>Here</a>"
        b"<div style='display:none'><a href='//f.example'>there</a></div><link href='http://no.example/style'>"
        b"<form action='http://g.example/'><a href='mailto:x@no.example'>write</a></form>\n--x--\n"
    )
    found = targets(message(raw))
    assert [(t.url.host, t.tag, t.text, t.hidden, [u.host for u in t.inner]) for t in found] == [
        ("a.example", "text", "", False, []),
        ("www.b.example", "text", "", False, []),
        ("d.example", "a", "Here", False, ["e.example"]),
        ("f.example", "a", "there", True, []),
        ("g.example", "form", "", False, []),
        ("no.example", "mail", "write", False, []),
        ("c.example", "refresh", "", False, []),
    ]


def test_an_address_to_write_to_is_no_link_to_click() -> None:
    found = targets(message(b"Content-Type: text/html\n\n<a href='MAILTO:x@Shop.example'>write</a>"))
    assert [(t.url.host, t.tag, t.is_clicked) for t in found] == [("shop.example", "mail", False)]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        pytest.param("go to evil.shop, now.", ["evil.shop"], id="a domain"),
        pytest.param("EVIL.COM/login", ["evil.com"], id="in capitals, with a path"),
        pytest.param("a.b.co.uk:8080", ["a.b.co.uk"], id="with a port"),
        pytest.param("bob@evil.com evil.com@test.invalid", [], id="an address of mail"),
        pytest.param("src/main.rs setup.py a.tar.gz README.md", [], id="file names"),
        pytest.param("the end.Next sentence", [], id="no blank behind a full stop"),
        pytest.param("https://evil.com/x.shop", [], id="within a URL"),
        pytest.param("/usr/share/x.org", [], id="within a path"),
        pytest.param("evil..com -x.com", [], id="no domain"),
        pytest.param("x" * 200 + ".com", [], id="more than a domain has"),
    ],
)
def test_domains_in_a_text(text: str, hosts: list[str]) -> None:
    found = targets(message(b"Subject: x\n\n" + text.encode()))
    assert [t.url.host for t in found if t.tag == "name"] == hosts
    assert not any(t.is_clicked for t in found if t.tag == "name")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("<http://a.example/x> and 'http://b.example'", ["a.example", "b.example"]),
        ("请访问https://a.example/x，谢谢", ["a.example"]),
        ("http://[2001:db8::1]:80/x", ["2001:db8::1"]),
        ("HTTP://A.EXAMPLE", ["a.example"]),
        ("http://a.example/?http://b.example", ["a.example"]),
        (f"http://{'x' * 3000}@a.example/", ["a.example"]),
    ],
)
def test_urls_in_a_text(text: str, hosts: list[str]) -> None:
    assert [t.url.host for t in targets(message(b"Subject: x\n\n" + text.encode()))] == hosts


def test_a_link_beside_which_others_stand_in_the_text_of_a_document() -> None:
    html = b"Content-Type: text/html\n\n<a href='https://a.example'>a.com</a> or https://b.example/ or <a href='https://c.example'>https://d.example/</a>"
    found = targets(message(html))
    assert [(t.url.host, t.tag) for t in found] == [("a.example", "a"), ("c.example", "a"), ("b.example", "text")]


def test_a_reference_without_scheme() -> None:
    html = (
        b"Content-Type: text/html\n\n<a href='www.a.example/x'>1</a><a href='evil.shop'>2</a><a href='page.html'>3</a>"
    )
    assert [t.url.host for t in targets(message(html))] == ["www.a.example", "evil.shop"]


def test_the_same_text_in_both_alternatives_counts_once() -> None:
    raw = (
        b"Content-Type: multipart/alternative; boundary=x\n\n--x\n\nhttps://a.example/1\n--x\nContent-Type: text/html\n\n"
        b"<a href='https://a.example/1'></a>\n--x--\n"
    )
    assert [(t.url.host, t.tag) for t in targets(message(raw))] == [("a.example", "a")]


def test_empty_parts_and_long_ones_hide_nothing() -> None:
    head = b"Content-Type: multipart/mixed; boundary=x\n\n"
    empty = b"--x\nContent-Type: text/plain\n\n\n" * 30
    last = b"--x\nContent-Type: text/plain\n\nhttps://a.example/\n"
    assert [t.url.host for t in targets(message(head + empty + last))] == ["a.example"]
    long = b"--x\nContent-Type: text/plain\n\n" + b"word " * 100_000 + b"\nhttps://b.example/\n"
    assert [t.url.host for t in targets(message(head + long + last))] == ["b.example", "a.example"]


def test_links_of_an_attached_message() -> None:
    raw = b"Content-Type: message/rfc822\n\nSubject: x\n\nhttps://a.example/\n"
    assert [t.url.host for t in targets(message(raw))] == ["a.example"]


@pytest.mark.parametrize(
    ("text", "href", "said"),
    [
        ("www.bank.com", "https://evil.test/", "www.bank.com"),
        ("https://bank.com/login", "https://www.bank.com/", ""),
        ("bücher.de", "https://xn--bcher-kva.de/", ""),
        ("b\u200bank.com", "https://evil.test/", "bank.com"),
        ("bank.com", "https://x.safelinks.protection.outlook.com/?url=https%3A%2F%2Fbank.com", ""),
        ("bank.com", "https://x.safelinks.protection.outlook.com/?url=https%3A%2F%2Fevil.com", "bank.com"),
        ("bank.com", "https://protect.mimecast.com/s/abc", ""),
        ("x" * 400 + ".com", "https://evil.test/", ""),
    ],
)
def test_what_a_link_says(text: str, href: str, said: str) -> None:
    url = read_url(href)
    assert url is not None
    assert feigned(Target(url, "a", text, inner=tuple(inner_urls(url)))) == said


def test_targets_are_read_once() -> None:
    mail = message(b"Subject: x\n\nhttp://a.example/\n")
    assert targets(mail) is targets(mail)


def test_of_too_many_targets_the_first_and_the_last_are_kept() -> None:
    mail = message(b"Subject: x\n\n" + b"".join(b"http://a%d.example/\n" % number for number in range(350)))
    found = targets(mail)
    assert len(found) == MAX_TARGETS
    assert (found[0].url.host, found[-1].url.host) == ("a0.example", "a349.example")


def test_sites_and_hosting() -> None:
    for text, expected, hosted in (
        ("https://a.b.example.co.uk/", "example.co.uk", False),
        ("https://a.pages.dev/", "pages.dev", True),
        ("http://192.0.2.1/", "192.0.2.1", False),
    ):
        url = read_url(text)
        assert url is not None
        assert registered(url) == expected
        assert is_hosted(url.host) is hosted


@given(st.text(max_size=300))
def test_no_text_makes_it_fail(text: str) -> None:
    for prefix in ("", "http://", "https:\\", "//", "http://[", "http://1.", "http://%"):
        found = read_url(prefix + text)
        if found is not None:
            assert found.host == found.host.lower()
            assert all(inner.host for inner in inner_urls(found))


@pytest.mark.parametrize(
    "piece",
    [
        "http://",
        "www.",
        "http://a.example/?http://",
        "a@",
        "%25",
        "http:/",
        "://",
        "https%3A",
        ".",
        "0x",
        "\\",
        "http://a.",
        "&",
        "a.com ",
        ".com",
        "aHR0cHM6Ly",
        "http://💩",
        "-3A__",
    ],
)
def test_a_megabyte_of_traps_takes_little_time(piece: str) -> None:
    text = piece * (1024 * 1024 // len(piece))
    before = time.process_time()
    targets(message(b"Subject: x\n\n" + text.encode()))
    html = b"Content-Type: text/html\n\n<a href='" + text.encode() + b"'>x</a>"
    targets(message(html))
    read_url("http://" + text)
    assert time.process_time() - before < 1.0
