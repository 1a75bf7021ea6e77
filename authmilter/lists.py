"""DNS lists of clients, and of domains that are linked to (RFC 5782): who is listed, and which list is to be believed.

A list is asked for an address or domain below its zone, and answers with an address in 127.0.0.0/8, or not at all.
Lists die, are sold, and refuse those who ask too often, and then they may answer anything to anybody; so answers that
can't be listings switch a list off, and a listing counts only while what must not be listed (127.0.0.1, the domain INVALID) is not.

Questions are nobody's in particular, not on the account of the client: it must not be able to keep us from asking by
using up its share, nor have a list switched off because it did.  Answers are kept by the resolver alone.
"""

import logging
import time
from asyncio import sleep
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import count

from authmilter import eager, secret_file
from authmilter.config.dnslist import Pattern, parse_pattern
from authmilter.config.schema import ClientList, Config, Dnsbl, DnsList, Uribl, Weight
from authmilter.errors import ConfigError, DnsBusyError, DnsTempError
from authmilter.interfaces import Alarm, Listing, Observer, Resolver
from authmilter.public_suffixes import load_suffixes

log = logging.getLogger("authmilter.lists")

CHECKS = {
    "dnsbl": "blocklists",
    "dnswl": "welcomelists",
    "uribl": "uri_lists",
}  # kind -> the check that asks lists of that kind
KINDS = tuple(CHECKS)

MOST_UNANSWERED = 5  # questions in a row
REST = 60.0  # seconds for which a list that does not answer is left alone
RETRY = 300.0  # the same for one that answers nonsense, and between looks at those that are off
LOOKS = 12  # every so many of these looks is at all of them
SAY_AGAIN = 60.0  # seconds between two log lines about one list

Address = IPv4Address | IPv6Address

_LONGEST_KEY = 63  # RFC 1035 section 2.3.4
_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def titles(config: Config) -> Iterator[tuple[str, str, DnsList]]:
    """Kind, name and options of every section."""
    for kind in KINDS:
        sections: Mapping[str, DnsList] = getattr(config, kind)
        for name, section in sections.items():
            yield kind, name, section


def symbols(kind: str, name: str, section: DnsList) -> dict[str, Weight]:
    """What a section may find, with the weights that it has in mind.

    Raises ValueError for an answer that can't be one; a configuration that was read from a file has none.
    """
    own = {
        f"{kind}_{name}{parse_pattern(item.text).suffix}": item.weight
        for item in section.answers
        if item.weight is not None
    }
    return {f"{kind}_{name}": section.score, **own}


def weights(kind: str, config: Config) -> dict[str, Weight]:
    """Every symbol of the sections of that kind, with its weight.

    What [scores] gives the symbol of a list goes for all of its answers: whoever says that a list rejects means it.
    """
    found: dict[str, Weight] = {}
    for of_kind, name, section in titles(config):
        if of_kind == kind:
            said = config.scores.get(f"{kind}_{name}")
            found |= {s: weight if said is None else said for s, weight in symbols(kind, name, section).items()}
    return found


def load_key(path: str) -> str:
    """The first line of `key_file`, which is put before the zone; "" for no path.

    Raises ValueError with a text for the administrator, which names the file and nothing of what is in it.
    """
    if not path:
        return ""
    line = secret_file.read(path, "key", 1025).partition(b"\n")[0].strip()
    key = line.decode("ascii", "replace").lower()
    if not 0 < len(key) <= _LONGEST_KEY or not _KEY_CHARACTERS.issuperset(key):
        raise ValueError(f"{path}: its first line is no key: one label of a domain name")
    return key


def load_keys(config: Config) -> dict[str, str]:
    """The keys of all sections that have one, by title (``dnsbl zen``); raises ConfigError with every problem."""
    keys = {}
    problems = []
    for kind, name, section in titles(config):
        try:
            if section.key_file:
                keys[f"{kind} {name}"] = load_key(section.key_file)
        except ValueError as error:
            problems.append(f"[{kind} {name}] key_file: {error}")
    if problems:
        raise ConfigError(problems)
    return keys


@lru_cache(maxsize=1024)
def reversed_name(address: Address) -> str:
    """The labels of an address below the zone of a list (RFC 5782 sections 2.1 and 2.4)."""
    # The same as in reverse DNS, without the two labels of in-addr.arpa or ip6.arpa (RFC 1035 section 3.5, RFC 3596).
    return address.reverse_pointer.rsplit(".", 2)[0]


# RFC 5782 section 5: what MUST be listed, and what MUST NOT.
_TESTS = {
    4: (reversed_name(IPv4Address("127.0.0.2")), reversed_name(IPv4Address("127.0.0.1"))),
    6: (reversed_name(IPv6Address("::ffff:7f00:2")), reversed_name(IPv6Address("::ffff:7f00:1"))),
}
_WORLD = "lists 127.0.0.1, and so probably the world"
_INVALID = "invalid"  # the same section, for lists of domains
_EVERY_NAME = "lists the domain INVALID, and so probably every one"
_REFUSED = "127.0.0.1"  # of SURBL and URIBL, to every question of those from whom they want none; a listing nowhere
_NO_ADDRESSES = "127.0.1.255"  # of Spamhaus' DBL, to a question for an address
_LONGEST_NAME = 253  # RFC 1035 section 3.1: 255 octets on the wire


class Lists:
    """`interfaces.Lists` of a configuration; `keys` are those of `load_keys`.

    `dns` is asked on nobody's account.  `alarm` is told of a list that answers nonsense.  `clock` counts seconds, from
    any moment.
    """

    def __init__(
        self,
        config: Config,
        keys: Mapping[str, str],
        dns: Resolver,
        observer: Observer,
        alarm: Alarm | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lists: dict[str, list[_List]] = {kind: [] for kind in KINDS}
        if config.uribl:
            load_suffixes()  # now, and not while mail waits
        for kind, name, section in titles(config):
            one = _List(kind, name, section, keys, dns, observer, alarm, clock)
            self._lists[kind].append(one)

    async def look_up(self, kind: str, address: Address) -> list[Listing]:
        """See `interfaces.Lists`."""
        found: list[Listing] = []
        for work in [eager.start(one.look_up(address)) for one in self._lists[kind]]:
            found += await work
        return found

    async def look_up_links(self, hosts: Collection[str]) -> list[Listing]:
        """See `interfaces.Lists`."""
        found: list[Listing] = []
        for work in [eager.start(one.look_up_links(hosts)) for one in self._lists["uribl"]]:
            found += await work
        return found

    async def watch(self) -> None:
        """Look after the lists, until cancelled: at once, hourly, and every few minutes after those that are off.

        A list that is left by its watch no longer counts as off.
        """
        every = [one for kind in KINDS for one in self._lists[kind]]
        try:
            for look in count() if every else ():
                at_all = look % LOOKS == 0
                for work in [eager.start(one.probe()) for one in every if at_all or one.off]:
                    await work
                await sleep(RETRY)
        finally:
            for one in every:
                one.retire()


class _List:
    """One list, and whether it is to be asked."""

    def __init__(
        self,
        kind: str,
        name: str,
        section: DnsList,
        keys: Mapping[str, str],
        dns: Resolver,
        observer: Observer,
        alarm: Alarm | None,
        clock: Callable[[], float],
    ) -> None:
        self._kind = kind
        self._title = f"{kind} {name}"
        self._symbol = f"{kind}_{name}"
        self._zone = section.zone
        key = keys[self._title] if section.key_file else ""
        self._below = f".{key}.{section.zone}" if key else f".{section.zone}"
        self._ipv6 = isinstance(section, ClientList) and section.ipv6
        self._of_names = isinstance(section, Uribl)
        self._everybody = _EVERY_NAME if self._of_names else _WORLD
        self._addresses = isinstance(section, Uribl) and section.addresses
        self._test = section.test if isinstance(section, Uribl) else ""
        self._url = section.url if isinstance(section, Dnsbl) else ""
        self._answers: list[tuple[Pattern, str]] = []
        for item in section.answers:
            pattern = parse_pattern(item.text)
            self._answers.append((pattern, self._symbol + (pattern.suffix if item.weight is not None else "")))
        self._dns = dns
        self._observer = observer
        self._alarm = alarm
        self._clock = clock
        self.off = False
        self._rests_until = 0.0  # while it is off: until then nobody asks, and then one client at a time
        self._pause = RETRY  # for how long
        self._unanswered: set[str] = set()  # names for which it had no answer since the last one; one may be broken
        self._has_test_entry = True
        self._silent_until = 0.0
        self._retired = False

    async def look_up(self, address: Address) -> tuple[Listing, ...]:
        """What the list says of an address; nothing if it says nonsense, or nothing in time."""
        if address.version == 6 and not self._ipv6:
            return ()
        tries = self.off
        if not self._may_ask():
            return ()
        found: tuple[Listing, ...] = ()
        try:
            records = await self._ask(reversed_name(address))
            problem = nonsense(records)
            if records and not problem:
                found = self._listings(records, str(address))
                if found and await self._ask(_TESTS[address.version][1]):
                    problem = self._everybody
        except DnsTempError as error:  # its text has the key in it
            outcome = "temperror"
            if not isinstance(error, DnsBusyError):  # that would be our fault
                self._not_answered(reversed_name(address), tries)
        else:
            if problem:
                outcome = "error"
                self._broken(problem)
            else:
                outcome = "listed" if found else "clear"
                self._answered(tries)
        self._observer.dnslist_asked(self._symbol, outcome)
        return found if outcome == "listed" else ()

    async def look_up_links(self, hosts: Collection[str]) -> tuple[Listing, ...]:
        """What the list says of all these, each symbol once; nothing if it says nonsense of any, or nothing in time.

        That it does not answer counts once for all of them.
        """
        names = self._names(hosts)
        tries = self.off
        if not names or not self._may_ask():
            return ()
        found: dict[str, Listing] = {}
        problem = unanswered = ""
        answered = refused = False
        for host, name, work in [(host, name, eager.start(self._ask(name))) for host, name in names]:
            try:
                records = await work
            except DnsTempError as error:
                if not isinstance(error, DnsBusyError):
                    unanswered = unanswered or name
                continue
            answered = True
            problem = problem or nonsense(records)
            refused = refused or _REFUSED in records
            if _NO_ADDRESSES in records and self._addresses:
                self._addresses = False
                self._say(f"has no addresses ({_NO_ADDRESSES}): set addresses = no; it is asked for none any longer")
            if not problem:
                for listing in self._listings(records, host):
                    found.setdefault(listing.symbol, listing._replace(subject=host))
        try:
            if (found or refused) and not problem:
                problem = self._judged(await self._ask(_INVALID))
        except DnsTempError as error:
            answered = False  # as for clients: nobody is listed by a list that can't be believed
            if not isinstance(error, DnsBusyError):
                unanswered = unanswered or _INVALID
        if problem:
            outcome = "error"
            self._broken(problem)
        elif answered:
            outcome = "listed" if found else "clear"
            self._answered(tries)
        else:
            outcome = "temperror"
            if unanswered:
                self._not_answered(unanswered, tries)
        self._observer.dnslist_asked(self._symbol, outcome)
        return tuple(found.values()) if outcome == "listed" else ()

    def _names(self, hosts: Collection[str]) -> list[tuple[str, str]]:
        """Domains and addresses, and as what they are asked for."""
        names = []
        for host in hosts:
            name = host
            if host.rpartition(".")[2].isdigit():  # an address: no top-level domain is a number
                if not self._addresses:
                    continue
                name = reversed_name(IPv4Address(host))
            if len(name) + len(self._below) <= _LONGEST_NAME:
                names.append((host, name))
        return names

    def _may_ask(self) -> bool:
        """Is it to be asked now?  One that is off gets a question now and then."""
        if self.off:
            now = self._clock()
            if now < self._rests_until:
                self._observer.dnslist_asked(self._symbol, "off")
                return False
            self._rests_until = now + self._pause
        return True

    async def probe(self) -> None:
        """Ask for the test entries (RFC 5782 section 5): whoever has none may be dead, or have lists of his own making."""
        try:
            listed = False
            for must, must_not in self._tests():
                if not listed:
                    there, not_there = await self._ask(must), await self._ask(must_not)
                    problem = nonsense((*there, *not_there)) or self._judged(not_there)
                    if problem:
                        self._observer.dnslist_asked(self._symbol, "error")
                        self._broken(problem)
                        return
                    listed = bool(there)
        except DnsTempError as error:
            self._observer.dnslist_asked(self._symbol, "temperror")
            if not isinstance(error, DnsBusyError):
                self._not_answered(self._tests()[0][0], self.off)
            return
        except Exception:
            log.exception("[%s] could not be looked after", self._title)
            self._observer.check_error(CHECKS[self._kind], "exception")
            return
        self._answered(tries=True)
        if not listed:
            self._observer.dnslist_asked(self._symbol, "error")
            if self._has_test_entry:
                what = (
                    f"the domain {self._test.upper()}" if self._of_names else "127.0.0.2, as every list must (RFC 5782)"
                )
                self._say(f"does not list {what}: it may be none any longer")
        self._has_test_entry = listed

    def _tests(self) -> Sequence[tuple[str, str]]:
        """What must be listed, and what must not (RFC 5782 section 5)."""
        if self._of_names:
            return ((self._test, _INVALID),)
        return (_TESTS[4], _TESTS[6]) if self._ipv6 else (_TESTS[4],)

    def _judged(self, records: tuple[str, ...]) -> str:
        """What is wrong with a list that answers so for what must not be listed; "" if it has no answer."""
        if self._of_names and _REFUSED in records:
            return f"refuses our questions ({_REFUSED}), for too many of them, or a public resolver"
        return self._everybody if records else ""

    def retire(self) -> None:
        """Nobody counts any longer whether it is off."""
        if self.off:
            self._observer.dnslist_off(self._symbol, False)
        self._retired = True

    async def _ask(self, name: str) -> tuple[str, ...]:
        answer = await self._dns.query(name + self._below, "A")
        return answer.records  # type: ignore[return-value]  # text, since it is no TXT

    def _listings(self, records: tuple[str, ...], subject: str) -> tuple[Listing, ...]:
        """The answers that count; one for each symbol."""
        found: dict[str, Listing] = {}
        for answer in records:
            symbol = self._symbol_of(answer)
            if symbol and symbol not in found:
                url = self._url.replace("{ip}", subject)
                found[symbol] = Listing(symbol, self._zone, answer, url)
        return tuple(found.values())

    def _symbol_of(self, answer: str) -> str:
        """The symbol for an answer in 127.0.0.0/8, "" if it does not count."""
        if not self._answers:
            return "" if answer in ("127.0.0.0", _REFUSED, _NO_ADDRESSES) else self._symbol
        second, third, fourth = map(int, answer.split(".")[1:])
        for pattern, symbol in self._answers:
            if second in pattern.second and third in pattern.third and fourth in pattern.fourth:
                return symbol
        return ""

    # -- on and off ---------------------------------------------------------------------------------------------------

    def _answered(self, tries: bool) -> None:
        """It makes sense.  Only what was asked while it was off can show that it does again."""
        self._unanswered.clear()
        if self.off and tries:
            self.off = False
            self._tell()
            self._say("answers as it should, and is switched on again", logging.INFO)

    def _not_answered(self, name: str, tries: bool) -> None:
        if len(self._unanswered) < MOST_UNANSWERED:  # it may be off for long
            self._unanswered.add(name)
        if tries or len(self._unanswered) >= MOST_UNANSWERED:
            self._switch_off(f"did not answer {MOST_UNANSWERED} questions in a row", REST)

    def _broken(self, problem: str) -> None:
        if self._switch_off(problem, RETRY) and self._alarm is not None:
            self._alarm("dns_list_off", self._title, f"The DNS list {self._zone} {problem}.")

    def _switch_off(self, why: str, pause: float) -> bool:
        """Leave the list alone; returns whether it was on."""
        self._pause = pause
        self._rests_until = self._clock() + pause
        if self.off:
            return False
        self.off = True
        self._tell()
        self._say(f"{why}: it is switched off for now, and lists nobody")
        return True

    def _tell(self) -> None:
        if not self._retired:
            self._observer.dnslist_off(self._symbol, self.off)

    def _say(self, what: str, level: int = logging.WARNING) -> None:
        now = self._clock()
        if now >= self._silent_until:
            self._silent_until = now + SAY_AGAIN
            log.log(level, "[%s] %s %s", self._title, self._zone, what)


def nonsense(records: tuple[str, ...]) -> str:
    """What is wrong with the answers of a list, "" if nothing; ends a sentence that begins with its name."""
    for answer in records:
        if not answer.startswith("127."):
            return f"answers {answer}, which is outside of 127.0.0.0/8"
        if answer.startswith("127.255.255."):
            return f"refuses our questions ({answer}), for a wrong zone or key, too many of them, or a public resolver"
    return ""
