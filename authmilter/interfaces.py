"""What the core asks of the world; everything here can be replaced by a fake of a few lines."""

from collections.abc import AsyncIterator, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol

from authmilter.model import Stage


class Answer(NamedTuple):
    """A DNS answer that arrived.

    `records`: for TXT the bytes of all strings of a record joined (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2);
    for A and AAAA addresses in text; for PTR and MX host names, lower case, without final dot (MX: ``"10 host"``, the
    null MX of RFC 7505 is ``"0 ."``).
    `exists`: False only for NXDOMAIN.  No records and True is "no data".  `ttl`: seconds for which it may be kept.
    """

    records: tuple[bytes, ...] | tuple[str, ...]
    exists: bool
    ttl: float = 0.0


class Resolver(Protocol):
    """DNS questions.  Names are text: A-labels joined by dots, with or without a final dot."""

    async def query(self, name: str, rdtype: str) -> Answer:
        """Ask for `rdtype` (A AAAA MX PTR TXT).

        NXDOMAIN and "no data" are answers.  A name that can't be asked (label over 63 octets, empty label, over 253
        octets) is answered with NXDOMAIN without asking.  Raises DnsTempError for time-out, SERVFAIL, REFUSED.
        """
        ...

    def known(self, name: str, rdtype: str) -> Answer | None:
        """The cached answer, if there is one; never waits, never asks."""
        ...

    def prefetch(self, name: str, rdtype: str) -> None:
        """Start asking if the answer is not known; whoever queries next joins in.  Never raises, never waits."""
        ...


class Dns(Resolver, Protocol):
    """A Resolver that many clients share."""

    def for_client(self, client: str) -> Resolver:
        """The same for what concerns one SMTP client, which may have only so much under way; "" is nobody's."""
        ...


class Space(NamedTuple):
    """A kind of state: the same key in two spaces is two entries.

    `name`: up to 16 lower-case letters, digits and ``_``, which it does not begin with.  `personal`: the keys name people or their machines; where
    the site asks for it, they are kept only as a hash under the secret of the site.  `help`: what an entry says, in a line
    for the operator who lists them.

    `release`: how the operator lifts what holds somebody up: by this value in place of an entry's own, or, where it is
    empty, by the end of the entry.  None, for what holds nobody up: entries are left alone.
    `keys`: how keys are made, as format strings, so that they can be made again where they are kept as hashes.  Of their
    fields ``subject`` (an address, network, mailbox, domain or login), ``period`` (seconds of a limit) and ``domain`` (one
    of ours) can be filled in; one with other fields says what whoever looks for an entry has to know.
    """

    name: str
    personal: bool = False
    help: str = ""
    release: bytes | None = None
    keys: tuple[str, ...] = ()


class Entry(NamedTuple):
    """What a store keeps under a key.

    `total` is its count, faded to now, see `Store.incr`.  `age`: seconds since `put` or `add` wrote it, or since its count began
    (a count that fades: since it changed last).  `ttl`: seconds until it is forgotten.  Both are measured by the clock
    of the store, so that machines whose clocks differ agree, and a clock that is set back can't prolong an entry beyond
    the life that it was given.
    """

    value: bytes
    total: float
    age: float
    ttl: float


class Increment(NamedTuple):
    """An item of `Store.incr_many`; the fields are the arguments of `Store.incr`."""

    space: Space
    key: str
    ttl: float
    amount: float = 1.0
    half_life: float = 0.0


class Store(Protocol):
    """State that outlives a message, shared by all workers, and by machines that use one server.

    Each primitive is one atomic step in the back end, and tells what was there: nobody has to read, decide and write
    back.  What is built on top needs no more than that:

    * greylisting: ``seen = await store.add(GREYLIST, triplet, b"", ttl=window)``: of all who race, one hears None; all
      others hear the entry of that one and go by `Entry.age`.  Who has waited is put under a value that says so, which
      is the same whoever does it, and however often.
    * a limit per window: ``(await store.incr(RATE, login, ttl=3600)).total > limit``, and `Entry.ttl` is the time until
      the window ends.  Several windows take one `incr_many`.  An alarm once per window: whoever hears None of
      ``add(ALARM, login, b"", ttl=entry.ttl)`` gives it.
    * reputation: ``incr(HAM, network, ttl=90 * day, half_life=14 * day)``, read by one `get_many`.
    * known correspondents: `put` for whom our users write to, `get` for who writes to us.
    * connections open now: ``incr(OPEN, address, ttl=300)``, and at the end the same with ``amount=-1``, if not more
      than the returned `Entry.ttl` has passed meanwhile.  A worker that dies leaves its share until the window ends,
      and no longer.

    A key is any text, of any length.  A value has up to 4096 octets.  `ttl` and `half_life` are seconds.  Every method
    raises StoreError, and nothing else, if the store can't do it now; whether it was done is then not known.
    """

    async def get(self, space: Space, key: str) -> Entry | None:
        """The entry, None if there is none."""
        ...

    async def put(self, space: Space, key: str, value: bytes, ttl: float) -> None:
        """Write an entry that replaces what was there, its count included."""
        ...

    async def add(self, space: Space, key: str, value: bytes, ttl: float) -> Entry | None:
        """Write an entry unless there is one: returns None if it was written, else what is there, left as it is."""
        ...

    async def incr(self, space: Space, key: str, ttl: float, amount: float = 1.0, half_life: float = 0.0) -> Entry:
        """Add `amount` to the count of an entry, and return the entry as it is then.

        Without `half_life` the count is that of a window: `ttl` runs from its first increment, and then it begins anew.
        With it the count fades instead, to one half in that time, and `ttl` runs from its latest increment.  A count is
        never below 0, and what is not there is not made by taking away from it.
        """
        ...

    async def get_many(self, keys: Sequence[tuple[Space, str]]) -> list[Entry | None]:
        """`get` for each, in one round trip, and in this order."""
        ...

    async def incr_many(self, increments: Sequence[Increment]) -> list[Entry]:
        """`incr` for each, in one round trip, and in this order; each is atomic, but not all of them together."""
        ...

    async def purge(self) -> int:
        """Drop what has expired, in small steps; returns how many entries were.  To be called now and then by one of
        all processes, which ``add(PURGED, "", b"", ttl=interval)`` chooses.
        """
        ...


class ManagedStore(Store, Protocol):
    """A Store as its owner and the operator have it."""

    def scan(self, space: Space, prefix: str = "", limit: int = 1000) -> AsyncIterator[tuple[str, Entry]]:
        """Entries whose key begins with `prefix`, at most `limit` of them, in no order that one may rely on.

        A key that is kept as a hash is shown as ``#`` and hexadecimal digits; it begins with no other prefix than that
        of these.  What changes meanwhile may be there or not, and behind the first 100,000 a server may tell one twice.
        """
        ...

    async def delete(self, space: Space, key: str) -> bool:
        """Forget an entry, by its key or by what `scan` shows for it; was there one?"""
        ...

    async def replace(self, space: Space, key: str, value: bytes) -> bool:
        """Write an entry in place of the one that is there, for the life that this was given, by its key or by what
        `scan` shows for it; was there one?
        """
        ...

    async def close(self) -> None:
        """Let go of file, threads and connections.  Never raises."""
        ...


class Listing(NamedTuple):
    """An entry of a DNS list.

    `symbol` is ``dnsbl_NAME``, ``dnswl_NAME`` or ``uribl_NAME``, with the answer behind it where that weighs on its own;
    `zone` is the list without its key, `answer` the address that it answered with, `url` where one can read more, "" if
    nowhere, `subject` the domain or address that is linked to.
    """

    symbol: str
    zone: str
    answer: str
    url: str = ""
    subject: str = ""


class Lists(Protocol):
    """The DNS lists of the configuration."""

    async def look_up(self, kind: str, address: IPv4Address | IPv6Address) -> list[Listing]:
        """Where the address is listed; `kind` is ``dnsbl`` or ``dnswl``.

        All lists of the kind are asked at once.  A list that fails has no say; never raises.
        """
        ...

    async def look_up_links(self, hosts: Collection[str]) -> list[Listing]:
        """Which of these lower-case domains in A-labels, and IPv4 addresses as text, are on the lists of kind ``uribl``.

        All are asked for at once.  As `look_up`, this never raises.
        """
        ...

    async def watch(self) -> None:
        """Look after the lists, until cancelled."""
        ...


class Alarm(Protocol):
    """Tells the administrator of something that can't wait for a look at the log."""

    def __call__(self, event: str, subject: str, text: str) -> None:
        """`event` is a word of ours, `subject` whom it concerns, `text` a sentence.  Never waits, never raises."""
        ...


class Observer(Protocol):
    """Is told what happened; the core knows no Prometheus."""

    def check_done(self, name: str, seconds: float) -> None:
        """A method or check ran for that long."""
        ...

    def check_error(self, name: str, kind: str) -> None:
        """A method or check failed; `kind` is ``temperror`` or ``exception``."""
        ...

    def stage_done(self, stage: Stage, seconds: float) -> None:
        """A stage was answered after that long."""
        ...

    def finding(self, symbol: str) -> None:
        """A finding entered the evidence."""
        ...

    def auth_result(self, method: str, result: str) -> None:
        """A method has a result."""
        ...

    def signature(self, algorithm: str, outcome: str) -> None:
        """A signature was made, or could not be; `outcome` is ``success`` or ``failure``."""
        ...

    def recipient_refused(self, code: int) -> None:
        """RCPT was answered with that code."""
        ...

    def dnslist_asked(self, name: str, outcome: str) -> None:
        """A DNS list was asked; `name` is that of the symbol of a `Listing`, `outcome` one of
        ``listed clear error temperror off``."""
        ...

    def dnslist_off(self, name: str, off: bool) -> None:
        """A DNS list was switched off, or on again."""
        ...

    def verdict(self, direction: str, action: str, stage: Stage, score: float | None) -> None:
        """A transaction got its final verdict; `score` is None where nothing was scored."""
        ...


class BodySink(Protocol):
    """Takes the body as it passes."""

    def update(self, chunk: bytes) -> None:
        """The next octets, cut anywhere."""
        ...
