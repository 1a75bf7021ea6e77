"""URLs of a message: where they lead, as a browser reads them and not as their sender would have them read.

After the URL standard (url.spec.whatwg.org, "URL parsing" and "Host parsing"), as far as scheme and host go.  Nothing is
ever fetched.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from authmilter.addresses import to_ascii_domain
from authmilter.header_text import site
from authmilter.html_text import Html
from authmilter.mime import Part, parts
from authmilter.model import Message

MAX_URL = 4096  # characters of one that are looked at
MAX_TARGETS = 200  # of a message, its first and its last
MAX_PARTS = 8  # text parts that are searched
MAX_TEXT = 65536  # characters of a text without markup that are searched
MAX_INNER = 3  # URLs within URLs


class Url(NamedTuple):
    """A URL with a host, or one that holds content (``data:``) or code (``javascript:``), which has none.

    `host` is a lower-case domain in A-labels, or an address as a browser reads it; "" if no browser would go there.
    `written` is the same as it stands there, in lower case.  `user` is what stands before an "@" in front of the host.
    `port` is 0 for none, and -1 for one that there is not.  `rest` is path, query and fragment.  `odd`: slashes are missing
    or bent, or characters of the host are in disguise, which browsers put up with and no program writes.
    """

    scheme: str
    host: str
    written: str
    user: str = ""
    port: int = 0
    rest: str = ""
    address: IPv4Address | IPv6Address | None = None
    odd: bool = False


class Target(NamedTuple):
    """Where a message leads: `tag` as in `html_text.Link`, ``text`` for a URL in a text, ``refresh`` for a meta element.

    `text` is what is shown for it; `inner` are URLs in the path or query of `url`, which redirectors take further.
    """

    url: Url
    tag: str
    text: str = ""
    hidden: bool = False
    inner: tuple[Url, ...] = ()

    @property
    def is_clicked(self) -> bool:
        """Is it for the reader to follow?"""
        return self.tag in _CLICKED


_CLICKED = frozenset(("a", "area", "base", "button", "form", "input", "refresh", "text"))
_LOADED = ("embed", "link", "object", "script")
# Where anybody puts up pages, or files that browsers show as such, without a domain of their own.
_HOSTING = (
    ".000webhostapp.com", ".amazonaws.com", ".azureedge.net", ".azurefd.net", ".azurewebsites.net", ".backblazeb2.com",
    ".cloudapp.azure.com", ".cloudfront.net", ".cloudfunctions.net", ".core.windows.net", ".digitaloceanspaces.com",
    ".duckdns.org", ".dweb.link", ".firebaseapp.com", ".fly.dev", ".framer.app", ".framer.website", ".gitbook.io",
    ".glitch.me", ".godaddysites.com", ".herokuapp.com", ".hostingerapp.com", ".ipfs.io", ".jimdosite.com", ".jotform.com",
    ".mybluehost.me", ".mystrikingly.com", ".netlify.app", ".ngrok-free.app", ".ngrok.io", ".notion.site", ".onrender.com",
    ".pages.dev", ".plesk.page", ".preview-domain.com", ".r2.dev", ".repl.co", ".run.app", ".square.site", ".surge.sh",
    ".translate.goog", ".typeform.com", ".ukit.me", ".vercel.app", ".web.app", ".webflow.io", ".weebly.com", ".weeblysite.com",
    ".wixsite.com", ".wixstudio.io", ".workers.dev", ".yolasite.com", ".zapto.org",
)  # fmt: skip
# The same, where the path tells whose page it is.
_HOSTS = frozenset(
    (
        "dweb.link", "firebasestorage.googleapis.com", "forms.gle", "ipfs.io", "sites.google.com", "storage.cloud.google.com",
        "storage.googleapis.com", "telegra.ph",
    )
)  # fmt: skip

_USUAL = re.compile(r"(https?)://((?:[a-z0-9_-]++\.)++[a-z]{2,24}+)(?::([0-9]{1,5}))?((?:[/?#].*+)?+)", re.DOTALL)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30}+):")
_AUTHORITY = re.compile(r"([/\\]*+)([^/\\?#]*+)(.*+)", re.DOTALL)
_NOT_LAST = ".,;:!?*_-"
_CONTROLS = "".join(map(chr, range(33)))
_DROPPED = str.maketrans("", "", "\t\r\n")
_WITH_HOST = ("http", "https", "ftp")
_WITHOUT_HOST = ("data", "javascript", "vbscript")
_NUMBER = re.compile(r"0x[0-9a-f]*+|[0-9]++", re.IGNORECASE)
_IN_TEXT = re.compile(r"[^\s<>\"'()\[\]{}|^`]{3,2000}+")
_INNER = re.compile(r"https?(?::|%(?:25)?3a)(?:/|%(?:25)?2f){1,2}[^&\s]{3,2000}+", re.IGNORECASE)


def read_url(text: str) -> Url | None:
    """Read a URL as a browser would; None if it is none of the kinds that `Url` names.  Never fails."""
    found = _USUAL.fullmatch(text) if len(text) <= MAX_URL else None
    if found is not None:
        scheme, host, port, rest = found.groups()
        if "xn--" not in host and len(host) <= 253 and (not port or int(port) < 65536):
            return Url(scheme, host, host, "", int(port) if port else 0, rest)
    return _read(text[:MAX_URL].strip(_CONTROLS).translate(_DROPPED))


def _read(text: str) -> Url | None:
    found = _SCHEME.match(text)
    if found is None:
        # Without a scheme it is that of the page, and a mail is none: readers take https.
        if not text.startswith(("//", "\\\\", "/\\", "\\/")):
            return None
        scheme = "https"
    else:
        scheme, text = found[1].lower(), text[found.end() :]
        if scheme in _WITHOUT_HOST:
            return Url(scheme, "", "", rest=text)
        if scheme not in _WITH_HOST:
            return None
    authority = _AUTHORITY.fullmatch(text)
    assert authority is not None  # it takes any text
    slashes, place, rest = authority.groups()
    user, _, place = place.rpartition("@")
    host, port = _split_port(place)
    host = host.lower()
    address: IPv4Address | IPv6Address | None = None
    odd = slashes != "//" or "%" in host
    if host.startswith("["):
        try:
            address = IPv6Address(host[1:-1] if host[-1] == "]" else "")
            read = str(address)
        except ValueError:
            read = ""
    else:
        read = _domain(unquote(host) if "%" in host else host)
        last = read.rstrip(".").rpartition(".")[2]
        if _NUMBER.fullmatch(last):
            address = _ipv4(read)
            read = "" if address is None else str(address)
        else:
            odd = odd or (not host.isascii() and host.translate(_DOTS) != host)
            read = to_ascii_domain(read)
    return Url(scheme, read, host, user, port, rest, address, odd)


# What UTS 46 takes for a dot (RFC 3490 section 3.1).
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_FULL_WIDTH = str.maketrans({0xFF01 + i: 0x21 + i for i in range(94)})


def _domain(host: str) -> str:
    return host if host.isascii() else host.translate(_FULL_WIDTH).translate(_DOTS).lower()


def _split_port(place: str) -> tuple[str, int]:
    end = place.rfind("]")
    host, colon, port = place[end + 1 :].partition(":")
    if not colon or not port:
        return place[: end + 1] + host, 0
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    return place[: end + 1] + host, number if number < 65536 else -1


def _ipv4(host: str) -> IPv4Address | None:
    """An IPv4 address in any of the ways in which a browser reads one: octal, hexadecimal, with parts left out."""
    labels = host.removesuffix(".").split(".")
    if len(labels) > 4:
        return None
    numbers = []
    for label in labels:
        if not _NUMBER.fullmatch(label) or len(label) > 40:
            return None
        try:
            if label[:2].lower() == "0x":
                numbers.append(int(label[2:] or "0", 16))
            else:
                numbers.append(int(label, 8 if label[0] == "0" and len(label) > 1 else 10))
        except ValueError:  # an 8 or 9 in octal
            return None
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        return None
    value = numbers[-1]
    for place, number in enumerate(numbers[:-1]):
        value += number << (8 * (3 - place))
    return IPv4Address(value)


def inner_urls(url: Url) -> Iterator[Url]:
    """URLs in the path, query or fragment of one, from the outermost inwards."""
    rest = url.rest
    for _ in range(MAX_INNER):
        found = _INNER.search(rest, 1)
        if found is None:
            return
        text = found[0]
        for _ in range(2):
            if "%" in text[:20]:
                text = unquote(text)
        inner = read_url(text)
        if inner is None or not inner.host:
            return
        yield inner
        rest = inner.rest


def targets(message: Message) -> tuple[Target, ...]:
    """Where the message leads, each URL once, in the order in which they stand; read once per message."""
    known = message.content.get("targets")
    if not isinstance(known, tuple):
        known = message.content["targets"] = tuple(_targets(parts(message)))
    return known


def _targets(taken: Iterable[Part]) -> Iterator[Target]:
    seen: dict[tuple[str, str], tuple[str, str, str, bool]] = {}
    texts = [part for part in taken if part.is_leaf and part.type.startswith(("text/", "application/xhtml"))]
    for part in islice(texts, MAX_PARTS):
        html = part.html
        for one in _of_text(part.text[:MAX_TEXT]) if html is None else _of_html(html):
            seen.setdefault(one[:2], one)
    found = list(seen.values())
    if len(found) > MAX_TARGETS:
        found = found[: MAX_TARGETS // 2] + found[-MAX_TARGETS // 2 :]
    for href, text, tag, hidden in found:
        url = read_url(href)
        if url is not None:
            yield Target(url, tag, text, hidden, tuple(inner_urls(url)) if "http" in url.rest else ())


def _of_html(html: Html) -> Iterator[tuple[str, str, str, bool]]:
    for tag, href, text, hidden in html.links:
        if tag not in _LOADED:
            yield href, text, tag, hidden
    if html.refresh:
        yield html.refresh, "", "refresh", False
    if not html.links and "://" in html.text:
        yield from _of_text(html.text[:MAX_TEXT])


def _of_text(text: str) -> Iterator[tuple[str, str, str, bool]]:
    """What readers make links of in a text without markup."""
    for at in _places(text, "://"):
        scheme = text[max(0, at - 5) : at].lower()
        if scheme.endswith(("http", "https")) and (found := _IN_TEXT.match(text, at + 3)):
            scheme = "https://" if scheme[-1] == "s" else "http://"
            yield scheme + found[0].rstrip(_NOT_LAST), "", "text", False
    for at in _places(text, "www."):
        before = text[at - 1 : at]
        if not (before.isalnum() or (before and before in "./@-")) and (found := _IN_TEXT.match(text, at)):
            yield "http://" + found[0].rstrip(_NOT_LAST), "", "text", False


def _places(text: str, what: str) -> Iterator[int]:
    at = -1
    for _ in range(2 * MAX_TARGETS):
        at = text.find(what, at + 1)
        if at < 0:
            return
        yield at


def registered(url: Url) -> str:
    """What was registered of its host: the site, or the address."""
    return url.host if url.address is not None else site(url.host)


def is_hosted(host: str) -> bool:
    """Is the host one under whose name anybody puts up pages?"""
    return host in _HOSTS or host.endswith(_HOSTING)
