"""What the classifier sees of a message: a set of numbers, one for each thing that is in it.

A word, a link, the name of a field becomes a number by hashing, the same in each process and release.  Numbers of
different things coincide now and then; measured, a quarter as many slots find as much spam.  Which mail a set was made
of can't be read from it, though who guesses a word can tell whether it may have been in it.

A change of what is made here makes what was learned before useless: `VERSION` counts them.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice, repeat
from zlib import crc32

from authmilter.addresses import author
from authmilter.header_text import display_name, reply_to, site, text, value
from authmilter.html_text import Html
from authmilter.mime import Part, parts
from authmilter.model import Message
from authmilter.text_words import MAX_PARTS, MAX_TEXT, subject_words, text_words, words

VERSION = 1
BITS = 20
SLOTS = 1 << BITS
MAX_LINKS = 200  # of a text
MAX_HOSTS = 40  # of these
MAX_FIELDS = 200  # whose names are looked at

# Where the numbers of one kind begin: the same word in the subject and in the text is two things.
_TEXT, _SUBJECT, _PAIR, _LINK, _FROM, _NAME, _REPLY, _MAILER, _BUILD, _FIELD = range(10)

_URL = re.compile(r"://([\w.-]{1,255})(?:/[^\s\"'<>?#]{0,200})?(\??)")
_HOST = re.compile(r"https?:/{1,3}(?:[^\s/?#@]{0,100}@)?([^\s/?#:@]{1,255})[^?]{0,500}(\??)", re.IGNORECASE)
_ZONE = re.compile(rb"(?:([+-]\d{4})|([A-Z]{1,5}))\s*+(?:\(|$)")
_SCHEMES = ("http", "https")
# The build of a Message-ID: hexadecimal digits, other letters, and signs.
_SHAPE = bytes(
    ord("h")
    if chr(octet) in "0123456789abcdef"
    else ord("H")
    if chr(octet) in "ABCDEF"
    else ord("a")
    if chr(octet).isalpha() and octet < 128
    else octet
    for octet in range(256)
)

# Fields that a receiving host, its filter or its mailbox write, or may have written: mail that is learned from a mailbox
# has them, mail that arrives has them not, and what another filter thought of it must not be learned as its build.
_RECEIVERS = frozenset(
    b"received return-path delivered-to envelope-to envelope-from delivery-date status lines content-length bytes "
    b"authentication-results received-spf dkim-filter dmarc-filter domainkey-status old-return-path errors-to "
    b"x-original-to x-delivered-to x-apparently-to x-account-key x-uidl x-uid x-uidvalidity x-imapbase x-status "
    b"x-keywords x-label x-tuid x-sieve x-trace x-loop x-pmflags x-mailfrom x-mail-from x-rcpt-to x-accept-flag "
    b"x-virus x-hashcash x-bogosity x-crm114-status x-clientproxiedby x-originatororg x-sender-ip x-incomingheadercount "
    b"x-incomingtopheadermarker x-message-info x-message-delivery x-forwarded-to x-forwarded-for x-folder x-getmail-retrieved-from-mailbox".split()
)
# Fields that all mail has say nothing by being there, but would weigh in a short message, which has little else.
_EVERYWHERE = frozenset(
    b"from to cc subject date message-id reply-to mime-version content-type content-transfer-encoding".split()
)
_RECEIVERS_BEGIN = (
    b"arc-", b"x-spam", b"x-rspam", b"x-dspam", b"x-virus", b"x-antivirus", b"x-amavis", b"x-authmilter", b"x-greylist",
    b"x-mozilla-", b"x-evolution", b"x-gmail-", b"x-gm-", b"x-ms-exchange", b"x-microsoft-", b"x-forefront", b"x-eop",
    b"x-barracuda", b"x-ironport", b"ironport-", b"x-proofpoint", b"x-mimecast", b"x-mailscanner", b"x-scanned", b"x-pstn-",
    b"x-cloudmark", b"x-cm-", b"x-cmae", b"x-brightmail", b"x-bitdefender", b"x-policyd", b"x-dcc-", b"x-sa-", b"x-envelope-",
    b"x-sid-", b"x-dkim", b"x-mdaemon", b"x-gmane-", b"x-injected-", b"nntp-", b"x-original-auth", b"x-received", b"x-sonic-",
)  # fmt: skip


def features(message: Message) -> frozenset[int]:
    """The numbers, each under `SLOTS`; made once per message, and never fails."""
    known = message.content.get("features")
    if not isinstance(known, frozenset):
        known = message.content["features"] = frozenset(map((SLOTS - 1).__and__, _numbers(message)))
    return known


def _numbers(message: Message) -> Iterable[int]:
    leaves = [part for part in islice(parts(message), MAX_PARTS) if part.is_leaf]
    build = _Build()
    return chain(
        *[_text(part, its, build) for part, _, its in text_words(message)],
        _subject(message, build),
        _hashed(build.links(), _LINK),
        _people(message, build),
        _hashed(_field_names(message), _FIELD),
        _mailer(message),
        _hashed(chain(build.words(), _header_build(message), _parts_build(message, leaves)), _BUILD),
    )


def _hashed(words: Iterable[bytes], kind: int) -> Iterator[int]:
    return map(crc32, words, repeat(kind))


def _size(number: int) -> int:
    return min(number.bit_length(), 12)


class _Build:
    """How the texts of a message are built: counted while they are read."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        self.urls = self.images = self.length = self.wide = self.plain = self.marked = 0
        self.found: set[bytes] = set()

    def add_html(self, html: Html) -> None:
        """Count what is in it."""
        self.marked += len(html.text)
        self.images += len(html.images)
        self.urls += len(html.links)
        for link in html.links[:MAX_LINKS]:
            found = _HOST.match(link.href)
            if found:
                self._add_host(found[1], found[2])
        for name, is_there in (
            (b"hidden", html.hidden),
            (b"form", html.fields),
            (b"password", "password" in html.fields),
            (b"script", html.scripts),
            (b"refresh", html.refresh),
        ):
            if is_there:
                self.found.add(name)

    def add_plain(self, text: str) -> None:
        """Count what is in it."""
        self.plain += len(text)
        text = text.lower()
        at = -1
        for _ in range(MAX_LINKS):  # a tenth of the time that one expression for all of them takes
            at = text.find("://", at + 1)
            if at < 0:
                break
            found = _URL.match(text, at) if text.endswith(_SCHEMES, max(0, at - 5), at) else None
            if found is not None:
                self.urls += 1
                self._add_host(found[1], found[2])

    def _add_host(self, host: str, query: str) -> None:
        if len(self.hosts) < MAX_HOSTS:
            self.hosts.add(host.lower().strip("."))
        if query:
            self.found.add(b"query")

    def links(self) -> Iterator[bytes]:
        """Hosts, the sites that they belong to, and top-level domains."""
        for host in self.hosts:
            name = host.encode("utf-8", "replace")
            yield name
            last = name.rpartition(b".")[2]
            if last.isdigit():
                yield b". address"
            else:
                yield site(host).encode("utf-8", "replace")
                yield b". " + last

    def words(self) -> Iterator[bytes]:
        """The counts, by their order of magnitude."""
        yield from self.found
        share = self.wide * 64 // self.length if self.length else 0
        yield b"links %d images %d" % (min(_size(self.urls), 6), min(_size(self.images), 4))
        yield b"links %d" % _size(self.urls)
        yield b"images %d" % _size(self.images)
        yield b"hosts %d" % min(len(self.hosts), 6)
        yield b"length %d" % _size((self.plain + self.marked) // 16)
        yield b"wide %d" % _size(share)
        yield b"html " + (b"alone" if not self.plain else b"beside") if self.marked else b"plain"


def _text(part: Part, its: frozenset[bytes], build: _Build) -> Iterator[int]:
    html = part.html
    if html is not None:
        build.add_html(html)
        text = html.text
    else:
        text = part.text[:MAX_TEXT]
        build.add_plain(text)
    start = text[:4096]
    build.length += len(start)
    if not start.isascii():
        build.wide += len(start.encode("utf-8", "replace")) - len(start)
    return _hashed(its, _TEXT)


def _subject(message: Message, build: _Build) -> Iterable[int]:
    subject = text(message, b"subject")
    letters = "".join(filter(str.isalpha, subject[:200]))
    if len(letters) > 4 and sum(map(str.isupper, letters)) > 0.7 * len(letters):
        build.found.add(b"capitals")
    if not subject.isascii() and any(c >= "\u2000" for c in subject[:200]):
        build.found.add(b"symbols")
    found = subject_words(message)
    numbers = list(_hashed(found, _SUBJECT))
    return chain(numbers, map(crc32, found[1:], map(_PAIR.__xor__, numbers)))


def _people(message: Message, build: _Build) -> Iterator[int]:
    mailboxes = author(message).mailboxes
    domain = mailboxes[0].domain if mailboxes else ""
    own = site(domain)
    yield from _hashed((domain.encode(), own.encode(), b". " + domain.encode().rpartition(b".")[2]), _FROM)
    yield from _hashed(words(display_name(message))[:20], _NAME)
    replies = reply_to(message).mailboxes
    if replies:
        to = replies[0].domain
        yield from _hashed((to.encode(), b"same" if to == domain else b"other"), _REPLY)
    local, _, host = value(message, b"message-id").strip(b"<> ").partition(b"@")
    if host:
        build.found.add(b"id " + bytes([sign for sign, _ in groupby(local[:64].translate(_SHAPE))][:24]))
        build.found.add(b"id of " + (b"author" if host.lower().endswith(own.encode()) else b"another"))


def _mailer(message: Message) -> Iterator[int]:
    for name in (b"user-agent", b"x-mailer"):
        said = value(message, name)
        if said:
            yield from _hashed(words(said.decode("latin-1"))[:20], _MAILER)


def _field_names(message: Message) -> Iterator[bytes]:
    for name in islice(message.index, MAX_FIELDS):
        if name not in _RECEIVERS and name not in _EVERYWHERE and not name.startswith(_RECEIVERS_BEGIN):
            yield name[:64]


def _header_build(message: Message) -> Iterator[bytes]:
    to = value(message, b"to").lower()
    many = to.count(b"@")
    yield b"to " + (
        b"undisclosed" if b"undisclosed" in to else b"none" if not many else b"one" if many == 1 else b"many"
    )
    if b"in-reply-to" in message.index or b"references" in message.index:
        yield b"reply"
    zone = _ZONE.search(value(message, b"date")[-64:])
    yield b"zone " + (zone[1] or zone[2] if zone else b"odd")


def _parts_build(message: Message, leaves: list[Part]) -> Iterator[bytes]:
    kinds = [part.type.encode("utf-8", "replace")[:40] for part in islice(parts(message), MAX_PARTS)]
    yield b"parts " + b",".join(kinds[:6])
    for kind in dict.fromkeys(kinds):
        yield b"part " + kind
    for part in leaves[:20]:
        for name in part.names[:3]:
            yield b"file " + name.rpartition(".")[2].lower().encode("utf-8", "replace")[:12]
        if part.type.startswith("text/"):
            yield b"charset " + part.charset.lower().encode("utf-8", "replace")[:20]
            yield b"encoding " + part.encoding.encode("utf-8", "replace")[:20]
