"""URLs of a message: where they lead, as a browser reads them and not as their sender would have them read.

After the URL standard (url.spec.whatwg.org, "URL parsing" and "Host parsing"), as far as scheme and host go.  Nothing is
ever fetched.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

import idna

from authmilter.addresses import to_ascii_domain
from authmilter.header_text import site
from authmilter.html_text import Html
from authmilter.mime import Part, parts
from authmilter.model import Message

MAX_URL = 8192  # characters of one behind its host that are looked at, and of one in a text
MAX_TARGETS = 200  # of a message, its first and its last
MAX_TEXT = 262144  # characters of all texts without markup that are searched, and the end of one that is longer
MAX_TAIL = 16384
MAX_INNER = 3  # URLs within URLs
MAX_NAME = 100  # characters of a domain in a text before its last dot
MAX_HOST = 300  # characters of a host in U-labels: a domain of 253 octets, and a few that nobody sees

_PLACES = 4 * MAX_TARGETS  # marks of a URL in texts that are looked at
_LEAST_PLACES = 20  # of each kind and part, however many were looked at before
_MOST_SEEN = 2000  # before those in the middle are left out
_OF_TEXT = ("text", "name")


class Url(NamedTuple):
    """A URL with a host, or one without that starts a program or is one, such as ``data:`` and ``javascript:``.

    `host` is a lower-case domain in A-labels, or an address as a browser reads it; "" if no browser would go there.
    `written` is the same as it stands there, in lower case.  Of ``mailto:`` it is the domain of the address.  `user` is what stands before an "@" in front of the host.
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
    """Where a message leads: `tag` as in `html_text.Link`, ``refresh`` for a meta element, ``mail`` for an address to write
    to, ``text`` for a URL in a text, ``name`` for a domain in it, of which not all readers make a link.

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

# Filters that write their own URL over every other, and keep the text.
REWRITERS = (
    "barracudanetworks.com", "cisco.com", "cudasvc.com", "fireeye.com", "mimecast.com", "mimecastprotect.com", "outlook.com",
    "proofpoint.com", "sophos.com", "trendmicro.com", "urldefense.com",
)  # fmt: skip
_LONGEST_SHOWN = 300  # characters of a link's text that may be a URL
_SHOWN = re.compile(
    r"(?:https?:/{1,2})?+([^\s/?#:@]{1,250}\.(?:com|net|org|info|biz|edu|gov|[a-z]{2}|app|dev|shop|online|top|xyz|club|site))"
    r"(?:[:/?#].*+)?+",
    re.IGNORECASE,
)

_USUAL = re.compile(r"(https?)://((?:[a-z0-9_-]++\.)++[a-z]{2,24}+)(?::([0-9]{1,5}))?((?:[/?#].*+)?+)", re.DOTALL)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30}+):")
_AUTHORITY = re.compile(r"([/\\]*+)([^/\\?#]*+)(.*+)", re.DOTALL)
_NOT_LAST = ".,;:!?*_-"
_CONTROLS = "".join(map(chr, range(33)))
_WITH_HOST = ("http", "https", "ftp")
# What holds content or code, opens a folder of a stranger's, or starts a program with his arguments; and so does ms-...:
_WITHOUT_HOST = frozenset(("data", "file", "javascript", "jar", "mhtml", "search-ms", "smb", "vbscript"))
_NUMBER = re.compile(r"0x[0-9a-f]*+|[0-9]++", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"(?:\[[0-9a-fA-F:.]{2,45}\])?+"  # an IPv6 address
    r"[^\s<>\"'()\[\]{}|^`\u3001\u3008-\u3011\uff08\uff09\uff0c\uff1a\uff1b\u201c\u201d]{3,8192}+"
)
_INNER = re.compile(
    r"https?(?::|%(?:25)?3a)(?:/|%(?:25)?2f){1,2}[^&\s]{3,2000}+|aHR0c[A-Za-z0-9+/_-]{8,2000}+", re.IGNORECASE
)
_BASE64 = ("aHR0cHM6Ly", "aHR0cDovL")  # https:// and http://, or the most of it
# What filters write over URLs: https://urldefense.proofpoint.com/v2/url?u=https-3A__example.org_path-2520x&d=...
_URLDEFENSE = re.compile(r"/v2/url\?u=(https?-3A__[^&\s]{3,2000}+)", re.IGNORECASE)
_FROM_URLDEFENSE = str.maketrans("-_", "%/")
# A domain in a text, by its last dot.
_LAST_DOT = re.compile(r"\.([A-Za-z]{2,12})(?![A-Za-z0-9_@-]|\.[A-Za-z0-9])")
_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
_NOT_BEFORE_NAME = "@/\\:=%&_~+#*$"
# Top-level domains that are no endings of file names, or hardly, and that spam is known to have.
_TOP = frozenset(
    (
        "app", "asia", "at", "au", "be", "biz", "bond", "br", "buzz", "ca", "cfd", "ch", "click", "cloud", "club", "cn", "co", "com",
        "cyou", "cz", "de", "dev", "dk", "es", "eu", "finance", "fr", "fun", "hu", "icu", "info", "io", "it", "jp", "kr", "life",
        "link", "live", "ltd", "me", "monster", "mx", "net", "nl", "no", "online", "org", "page", "pro", "quest", "ro", "ru", "sbs",
        "se", "shop", "site", "space", "store", "support", "tech", "tk", "today", "top", "tr", "tv", "ua", "uk", "us", "vip",
        "website", "work", "world", "xyz",
    )
)  # fmt: skip
_SHORTEST_INNER = len("/http://a.b") - 1
_SCHEMELESS = re.compile(r"(?:[a-z0-9_-]{1,63}\.){1,10}+([a-z]{2,24})(?![^/:?#])", re.IGNORECASE)


def read_url(text: str) -> Url | None:
    """Read a URL as a browser would; None if it is none of the kinds that `Url` names.  Never fails."""
    found = _USUAL.fullmatch(text) if len(text) <= MAX_URL else None
    if found is not None:
        scheme, host, port, rest = found.groups()
        if "xn--" not in host and len(host) <= 253 and (not port or int(port) < 65536):
            return Url(scheme, host, host, "", int(port) if port else 0, rest)
    text = text.strip(_CONTROLS)
    for dropped in "\t\r\n":
        if dropped in text:
            text = text.replace(dropped, "")
    return _read(text)


def _read(text: str) -> Url | None:
    found = _SCHEME.match(text)
    if found is None:
        # Without a scheme it is that of the page, and a mail is none: readers take https.
        if not text.startswith(("//", "\\\\", "/\\", "\\/")):
            return None
        scheme = "https"
    else:
        scheme, text = found[1].lower(), text[found.end() :]
        if scheme in _WITHOUT_HOST or scheme.startswith("ms-"):
            return Url(scheme, "", "", rest=text[:MAX_URL])
        if scheme == "mailto":
            mailbox = unquote(text[:MAX_URL].partition("?")[0].partition(",")[0])
            domain = to_ascii_domain(mailbox.partition("@")[2].strip())
            return Url(scheme, domain, domain) if domain else None
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
        read, disguised = _mapped(unquote(host) if "%" in host else host)
        odd = odd or disguised
        if _NUMBER.fullmatch(read.rstrip(".").rpartition(".")[2]):
            address = _ipv4(read)
            read = "" if address is None else str(address)
        else:
            read = to_ascii_domain(read) or _unchecked(read)
    return Url(scheme, read, host[:MAX_HOST], user[:MAX_HOST], port, rest[:MAX_URL], address, odd)


# What UTS 46 takes for a dot (RFC 3490 section 3.1).
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")


def _mapped(host: str) -> tuple[str, bool]:
    """A host as UTS 46 maps it, "" if it can't be one; and whether characters stood for ASCII ones, or for a dot."""
    if host.isascii():
        return host, False
    if len(host) > MAX_HOST:
        return "", False
    try:
        read = idna.uts46_remap(host, std3_rules=False, transitional=False)
    except UnicodeError:  # idna.InvalidCodepoint is one
        return "", False
    labels = host.translate(_DOTS)
    both = zip(labels.split("."), read.split("."), strict=False)
    return read, labels != host or any(not one.isascii() and other.isascii() for one, other in both)


def _unchecked(host: str) -> str:
    """The A-labels of what RFC 5891 forbids and browsers take all the same, such as pictures; "" if there are none."""
    if host.isascii():
        return ""
    labels = (label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in host.split("."))
    return to_ascii_domain(".".join(labels))


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
    """URLs in the path, query or fragment of one, from the outermost inwards; in plain, percent encoding or base64."""
    rest = url.rest
    for _ in range(MAX_INNER):
        text = _inner(rest)
        inner = read_url(text) if text else None
        if inner is None or not inner.host:
            return
        yield inner
        rest = inner.rest


def _inner(rest: str) -> str:
    lowered = rest.lower()
    if "http" not in lowered and "ahr0c" not in lowered:
        if "%" not in rest:
            return ""
        rest = unquote(rest)
    defended = _URLDEFENSE.match(rest)
    if defended is not None:
        return unquote(defended[1].translate(_FROM_URLDEFENSE))
    found = _INNER.search(rest, 1)
    if found is None:
        return ""
    text = found[0]
    if text.startswith(_BASE64):
        text = text[: len(text) // 4 * 4].replace("+", "-").replace("/", "_")
        return urlsafe_b64decode(text).decode("utf-8", "replace")
    for _ in range(2):
        if "%" in text[:20]:
            text = unquote(text)
    return text


def targets(message: Message) -> tuple[Target, ...]:
    """Where the message leads, each URL once, in the order in which they stand; read once per message."""
    known = message.content.get("targets")
    if not isinstance(known, tuple):
        known = message.content["targets"] = tuple(_targets(parts(message)))
    return known


def _targets(taken: Iterable[Part]) -> Iterator[Target]:
    seen: dict[tuple[str, str, bool], _Found] = {}
    linked: set[str] = set()  # hrefs, and what is shown for them: in a text they are nothing new
    room, places = MAX_TEXT, _PLACES
    for part in taken:
        if not part.is_leaf or not part.type.startswith(("text/", "application/xhtml")):
            continue
        html = part.html
        text = part.text if html is None else html.text
        if html is not None:
            for one in _of_html(html):
                seen[one[:3]] = one  # in place of what stood in a text
                linked.update(one[:2])
        for end in _ends(text, room):
            found = list(_of_text(end, places))
            for one in found:
                seen.setdefault(one[:3], one)
            places = max(places - len(found), _LEAST_PLACES)
        room = max(room - len(text), MAX_TAIL)
        if len(seen) > _MOST_SEEN:
            seen = {one[:3]: one for one in _first_and_last(list(seen.values()))}
    kept = [
        one
        for one in seen.values()
        if one.tag not in _OF_TEXT or (one.href not in linked and one.href.partition("://")[2] not in linked)
    ]
    for href, text, hidden, tag in _first_and_last(kept):
        url = read_url(href) or _schemeless(href)
        if url is not None:
            inner = tuple(inner_urls(url)) if len(url.rest) > _SHORTEST_INNER else ()
            yield Target(url, "mail" if url.scheme == "mailto" else tag, text, hidden, inner)


class _Found(NamedTuple):
    href: str
    text: str
    hidden: bool
    tag: str


def _first_and_last(found: list[_Found]) -> list[_Found]:
    half = MAX_TARGETS // 2
    return found if len(found) <= MAX_TARGETS else found[:half] + found[-half:]


def _ends(text: str, room: int) -> tuple[str, ...]:
    """A text, or its beginning and its end."""
    return (text,) if len(text) <= room else (text[:room], text[max(room, len(text) - MAX_TAIL) :])


def _schemeless(href: str) -> Url | None:
    """In a mail there is no page to which a reference could be relative; some readers take it for a host."""
    found = _SCHEMELESS.match(href)
    if found is None or (found[1].lower() not in _TOP and href[:4].lower() != "www."):
        return None
    return read_url(f"http://{href}")


def _of_html(html: Html) -> Iterator[_Found]:
    for tag, href, text, hidden in html.links:
        if tag not in _LOADED:
            yield _Found(href, text, hidden, tag)
    if html.refresh:
        yield _Found(html.refresh, "", False, "refresh")


def _of_text(text: str, places: int) -> Iterator[_Found]:
    """What readers make links of in a text without markup."""
    pieces: list[str] = []
    taken = end = 0
    for _ in range(places):
        at = text.find("://", end)
        if at < 0:
            break
        end = at + 3
        scheme = text[max(0, at - 5) : at].lower()
        if scheme.endswith(("http", "https")) and (found := _IN_TEXT.match(text, end)):
            pieces.append(text[taken:at])
            taken = end = found.end()  # what is in it is looked for by `inner_urls`
            scheme = "https://" if scheme[-1] == "s" else "http://"
            yield _Found(scheme + found[0].rstrip(_NOT_LAST), "", False, "text")
    yield from _without_scheme(" ".join((*pieces, text[taken:])) if pieces else text, places)


def _without_scheme(text: str, places: int) -> Iterator[_Found]:
    end = 0
    for _ in range(places):
        at = text.find("www.", end)
        if at < 0:
            break
        end = at + 4
        before = text[at - 1 : at]
        if not (before.isalnum() or (before and before in "./@-")) and (found := _IN_TEXT.match(text, at)):
            end = found.end()
            yield _Found("http://" + found[0].rstrip(_NOT_LAST), "", False, "text")
    for dot in islice(_LAST_DOT.finditer(text), places):
        if dot[1] in _TOP or dot[1].lower() in _TOP:
            before = text[max(0, dot.start() - MAX_NAME - 1) : dot.start()]
            name = before[len(before.rstrip(_NAME)) :]
            sign = before[: -len(name)][-1:]
            is_name = name[:1].isalnum() and name[-1] != "." and len(name) <= MAX_NAME and ".." not in name
            if is_name and name[:4].lower() != "www." and (not sign or sign not in _NOT_BEFORE_NAME):
                yield _Found(f"http://{name}.{dot[1]}", "", False, "name")


def registered(url: Url) -> str:
    """What was registered of its host: the site, or the address."""
    return url.host if url.address is not None else site(url.host)


def feigned(target: Target) -> str:
    """The domain in A-labels that the text of a link names as where it leads; "" if it names none, or the right one."""
    text = target.text
    if "." not in text or len(text) > _LONGEST_SHOWN:
        return ""
    of = registered(target.url)
    if of in REWRITERS and not target.inner:
        return ""
    found = _SHOWN.fullmatch(text)
    if found is None:
        return ""
    said = to_ascii_domain(found[1])
    return "" if site(said) in (of, *map(registered, target.inner)) else said


def is_hosted(host: str) -> bool:
    """Is the host one under whose name anybody puts up pages?"""
    return host in _HOSTS or host.endswith(_HOSTING)
