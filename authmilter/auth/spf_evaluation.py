"""One evaluation of SPF records: RFC 7208 sections 4.4 to 7, with the limits of section 4.6.4.

Where RFC 7208 leaves room:

* A void lookup (section 4.6.4) is counted once per term, however many exchanges of an mx lead nowhere; ptr counts none,
  for its answers are the client's and not the domain's.
* An mx with more than ten exchanges is a permerror even if one of the first ten matches, so that the result does not
  hang on the order of the answer.
* A target-name that can't be asked (section 4.8) matches nothing; in include and redirect it is a permerror.
* A term whose domain-spec holds the local-part matches nothing if that is not US-ASCII (RFC 8616 section 4); a redirect
  is passed over then.
"""

import asyncio
import time
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from urllib.parse import quote

from authmilter.addresses import to_ascii_domain
from authmilter.auth.spf_record import (
    DomainSpec,
    Macro,
    MacroString,
    Mechanism,
    Record,
    is_spf,
    parse,
    parse_explanation,
    query_name,
)
from authmilter.config.schema import Spf
from authmilter.errors import DnsTempError
from authmilter.evidence import Result
from authmilter.interfaces import Answer, Resolver

_MAX_NAMES = 10  # MX and PTR records that are looked at, RFC 7208 section 4.6.4
_MAX_EXPLANATION = 200  # characters
_WIDE4, _WIDE6 = 8, 16  # a network with this prefix length or a shorter one says nothing of who is in it
MAX_VALUE = 255  # octets of a local-part or HELO name that enter a macro; RFC 5321 section 4.5.3.1 has 64 and 255


class Stop(Exception):  # noqa: N818  not an error of ours
    """The evaluation ends here, at whatever depth (RFC 7208 section 2.6.6 and 2.6.7)."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class Evaluation:
    """One run of check_host(), with the counters that its recursions share.

    `for_anyone`: did it come to its match by a term that may match any client: ``all``, a network of /8 (IPv6 /16) or
    wider, ``exists``, or a domain-spec made from what the client is or says?  For the last two the domain's DNS answers as
    it likes for every single address.
    """

    def __init__(
        self,
        ip: IPv4Address | IPv6Address,
        sender_local: bytes,
        sender_domain: str,
        helo: str | bytes,
        dns: Resolver,
        options: Spf,
        receiver: str,
        now: float | None,
    ) -> None:
        self.ip = ip
        self.address = int(ip)
        self.is_ip4 = isinstance(ip, IPv4Address)
        self.sender_local = sender_local[:MAX_VALUE].decode("latin-1")
        self.sender_domain = sender_domain
        # RFC 8616 section 4: U-labels are converted before they enter macros.
        name = helo if helo.isascii() else to_ascii_domain(helo) or helo
        self.helo = name[:MAX_VALUE].decode("latin-1") if isinstance(name, bytes) else name[:MAX_VALUE]
        self.dns = dns
        self.options = options
        self.receiver = receiver
        self.now = now
        self.lookups = 0
        self.voids = 0
        self.ttl = float("inf")
        self.deadline: float | None = None
        self.question = ("", "")
        self.depends_on_sender = False
        self.for_anyone = False
        self.decided: tuple[Mechanism, Record, str] | None = None
        self.stack: list[tuple[Record, str, int]] = []  # terms under evaluation, of the outermost record first

    async def check(self, domain: str) -> Result:
        """check_host() for a domain, or for the target of an include; NONE if there is no record."""
        redirected = for_anyone = False
        while True:
            record = await self.record(domain)
            if record is None:
                if redirected:  # RFC 7208 section 6.1
                    raise Stop(Result.PERMERROR, "redirect= leads to no SPF record")
                return Result.NONE
            mechanism = await self.first_match(record, domain)
            if mechanism is not None:
                # Of an include that matches, its own match was the last one.
                inner = self.for_anyone if mechanism.name == "include" else self.may_match_anyone(mechanism)
                self.for_anyone = inner or for_anyone or _is_made_for_client(mechanism.target)
                self.decided = (mechanism, record, domain)
                return mechanism.qualifier
            if record.redirect is None or self.never_matches(record.redirect):
                self.decided = None
                return Result.NEUTRAL  # RFC 7208 section 4.7
            self.count_lookup()
            for_anyone = for_anyone or _is_made_for_client(record.redirect)
            domain = await self.target_name(record.redirect, domain)
            redirected = True

    async def record(self, domain: str) -> Record | None:
        """The SPF record of a domain (RFC 7208 sections 4.3 to 4.5)."""
        if "." not in domain:
            return None
        answer = await self.ask(domain, "TXT")
        found = [text for text in answer.records if isinstance(text, bytes) and is_spf(text)]
        if not found:
            return None
        if len(found) > 1:
            raise Stop(Result.PERMERROR, f"{_domain_shown(domain)} has {len(found)} SPF records")
        record = parse(found[0])
        if record.error:
            raise Stop(Result.PERMERROR, f"the SPF record of {_domain_shown(domain)} is invalid ({record.error})")
        return record

    async def first_match(self, record: Record, domain: str) -> Mechanism | None:
        """The first mechanism that matches (RFC 7208 section 4.6.2)."""
        address = self.address
        is_ip4 = self.is_ip4
        for position, mechanism in enumerate(record.mechanisms):
            name = mechanism.name
            if name == "ip4":
                if is_ip4 and address >> mechanism.shift4 == mechanism.network:
                    return mechanism
            elif name == "ip6":
                if not is_ip4 and address >> mechanism.shift6 == mechanism.network:
                    return mechanism
            elif name == "all":
                return mechanism
            else:
                self.stack.append((record, domain, position))
                matched = await self.matches(mechanism, domain)
                self.stack.pop()
                if matched:
                    return mechanism
        return None

    async def matches(self, mechanism: Mechanism, domain: str) -> bool:
        """Whether a mechanism that asks the DNS matches (RFC 7208 section 5)."""
        self.count_lookup()
        if mechanism.target is None:
            target = domain
        elif self.never_matches(mechanism.target):
            return False
        else:
            target = await self.target_name(mechanism.target, domain)
        name = mechanism.name
        if name == "include":
            result = await self.check(target)
            if result is Result.NONE:  # RFC 7208 section 5.2
                raise Stop(Result.PERMERROR, f"{mechanism.text} leads to no SPF record")
            return result is Result.PASS
        if not target:
            return False
        if name == "a":
            return await self.matches_a(target, mechanism)
        if name == "mx":
            return await self.matches_mx(target, mechanism)
        if name == "exists":
            # RFC 7208 section 5.7: A, also for a client with an IPv6 address.
            found = bool((await self.ask(target, "A")).records)
            if not found:
                self.count_void()
            return found
        return await self.matches_ptr(target)

    async def matches_a(self, target: str, mechanism: Mechanism) -> bool:
        """RFC 7208 section 5.3."""
        answer = await self.ask(target, self.address_type)
        if not answer.records:
            self.count_void()
        return self.contains(answer, mechanism)

    async def matches_mx(self, target: str, mechanism: Mechanism) -> bool:
        """RFC 7208 section 5.4."""
        answer = await self.ask(target, "MX")
        if len(answer.records) > _MAX_NAMES:  # RFC 7208 section 4.6.4
            raise Stop(Result.PERMERROR, f"{mechanism.text} leads to more than {_MAX_NAMES} exchanges")
        exchanges = _exchanges(answer)
        for exchange in exchanges[1:]:
            self.dns.prefetch(exchange, self.address_type)
        void = not answer.records
        for exchange in exchanges:
            addresses = await self.ask(exchange, self.address_type)
            if self.contains(addresses, mechanism):
                return True
            void = void or not addresses.records
        if void:
            self.count_void()
        return False

    async def matches_ptr(self, target: str) -> bool:
        """RFC 7208 section 5.5: a validated name of the client is the target, or lies below it."""
        names = [name for name in await self.client_names() if _is_within(name, target)]
        return bool(await self.validated_name(names))

    async def client_names(self) -> list[str]:
        """Names of the client by reverse lookup, not validated yet; none if the DNS fails (RFC 7208 section 5.5)."""
        try:
            answer = await self.ask(self.ip.reverse_pointer, "PTR")
        except DnsTempError:
            self.ttl = 0.0  # the next attempt may find them
            return []
        return [name for name in map(str, answer.records[:_MAX_NAMES]) if query_name(name)]

    async def validated_name(self, names: list[str]) -> str:
        """The first of the names that has the client's address, "" if none; a name is skipped if the DNS fails."""
        for name in names[1:]:
            self.dns.prefetch(name, self.address_type)
        for name in names:
            try:
                answer = await self.ask(name, self.address_type)
            except DnsTempError:
                self.ttl = 0.0
                continue
            if any(self.to_int(record) == self.address for record in answer.records):
                return name
        return ""

    @property
    def address_type(self) -> str:
        """The type of the address records that can match the client."""
        return "A" if self.is_ip4 else "AAAA"

    def may_match_anyone(self, mechanism: Mechanism) -> bool:
        """Whether a mechanism that asks no other record matches clients all over the network."""
        if mechanism.name in ("all", "exists"):
            return True
        prefix = 32 - mechanism.shift4 if self.is_ip4 else 128 - mechanism.shift6
        return prefix <= (_WIDE4 if self.is_ip4 else _WIDE6)

    def contains(self, answer: Answer, mechanism: Mechanism) -> bool:
        """Whether the client is in one of the networks that addresses and prefix length make (RFC 7208 section 5.6)."""
        shift = mechanism.shift4 if self.is_ip4 else mechanism.shift6
        network = self.address >> shift
        return any(number >= 0 and number >> shift == network for number in map(self.to_int, answer.records))

    def to_int(self, text: str | bytes) -> int:
        """An address of the client's family as a number; -1 if it is none."""
        try:
            return int.from_bytes(inet_pton(AF_INET if self.is_ip4 else AF_INET6, str(text)), "big")
        except (OSError, ValueError):
            return -1

    def count_lookup(self) -> None:
        """Count a term that asks the DNS (RFC 7208 section 4.6.4)."""
        self.lookups += 1
        if self.lookups > self.options.lookup_limit:
            raise Stop(Result.PERMERROR, f"more than {self.options.lookup_limit} terms ask the DNS")

    def count_void(self) -> None:
        """Count a term that asks for what is not there (RFC 7208 section 4.6.4)."""
        self.voids += 1
        if self.voids > self.options.void_limit:
            raise Stop(Result.PERMERROR, f"more than {self.options.void_limit} terms ask for what is not there")

    async def ask(self, name: str, rdtype: str) -> Answer:
        """Ask the DNS within the time for all lookups.  Raises DnsTempError, and Stop when that time is over."""
        answer = self.dns.known(name, rdtype)
        if answer is None:
            self.question = (name, rdtype)
            if self.deadline is None:
                self.deadline = asyncio.get_running_loop().time() + self.options.timeout
                self.prefetch()
                # A time-out needs a task of our own, which `eager.start` makes at the first wait.
                await asyncio.sleep(0)
            else:
                self.prefetch()
            try:
                async with asyncio.timeout_at(self.deadline):
                    answer = await self.dns.query(name, rdtype)
            except TimeoutError:
                # RFC 7208 section 4.6.4.  Unlike a DnsTempError this ends even a ptr.
                raise Stop(Result.TEMPERROR, self.unanswered()) from None
        if answer.ttl < self.ttl:
            self.ttl = answer.ttl
        return answer

    def unanswered(self) -> str:
        """Why the result is temperror."""
        name, rdtype = self.question
        return f"no answer from the DNS for {rdtype} of {_domain_shown(name)}"

    def prefetch(self) -> None:
        """Start asking for what the terms that come next may need, as far as the limit of lookups would let them.

        A record with five includes would otherwise wait for five round trips in turn.
        """
        budget = self.options.lookup_limit - self.lookups
        for record, domain, position in reversed(self.stack):
            for mechanism in record.mechanisms[position + 1 :]:
                if budget <= 0 or mechanism.name == "all":
                    break
                if mechanism.name in ("ip4", "ip6"):
                    continue
                budget -= 1
                target = domain if mechanism.target is None else mechanism.target
                rdtype = {"include": "TXT", "a": self.address_type, "mx": "MX"}.get(mechanism.name)
                if rdtype and isinstance(target, str) and target:
                    self.dns.prefetch(target, rdtype)
            else:
                if budget > 0 and isinstance(record.redirect, str) and record.redirect:
                    budget -= 1
                    self.dns.prefetch(record.redirect, "TXT")

    def never_matches(self, spec: DomainSpec) -> bool:
        """Whether the domain-spec holds a local-part that is not US-ASCII (RFC 8616 section 4)."""
        if isinstance(spec, str) or self.sender_local.isascii():
            return False
        found = any(isinstance(part, Macro) and part.letter in "sl" for part in spec)
        self.depends_on_sender = self.depends_on_sender or found
        return found

    async def target_name(self, spec: DomainSpec, domain: str) -> str:
        """The target-name of a domain-spec (RFC 7208 section 4.8)."""
        if isinstance(spec, str):
            return spec
        return query_name(await self.expand(spec, domain))

    async def expand(self, parts: MacroString, domain: str) -> str:
        """Expand a macro-string; some 100 KB at most, since its length and that of every value are bounded."""
        return "".join(
            [
                part if isinstance(part, str) else _transform(await self.value(part.letter, domain), part)
                for part in parts
            ]
        )

    async def value(self, letter: str, domain: str) -> str:
        """The value of a macro (RFC 7208 section 7.2); octets outside US-ASCII become characters outside it."""
        if letter in "slohr":
            self.depends_on_sender = True
        match letter:
            case "s":
                return f"{self.sender_local}@{self.sender_domain}"
            case "l":
                return self.sender_local
            case "o":
                return self.sender_domain
            case "d":
                return domain
            case "i":
                return str(self.ip) if self.is_ip4 else ".".join(f"{self.address:032X}")
            case "p":
                return await self.client_name(domain)
            case "v":
                return "in-addr" if self.is_ip4 else "ip6"
            case "h":
                return self.helo
            case "c":
                return str(self.ip)
            case "r":
                return self.receiver or "unknown"
            case _:
                self.ttl = 0.0  # the text holds for this second
                return str(int(time.time() if self.now is None else self.now))

    async def client_name(self, domain: str) -> str:
        """The macro p: a validated name of the client, the domain or one below it if possible (RFC 7208 section 7.3)."""
        names = await self.client_names()
        names.sort(key=lambda name: 0 if name == domain else 1 if _is_within(name, domain) else 2)
        return await self.validated_name(names) or "unknown"

    async def explanation(self) -> str:
        """The domain's text for a fail, "" for any reason not to have one (RFC 7208 section 6.2)."""
        if self.decided is None:
            return ""
        _, record, domain = self.decided
        if record.explanation is None or self.never_matches(record.explanation):
            return ""
        self.stack.clear()
        try:
            name = await self.target_name(record.explanation, domain)
            if not name:
                return ""
            answer = await self.ask(name, "TXT")
            if len(answer.records) != 1 or not isinstance(answer.records[0], bytes):
                return ""
            parts = parse_explanation(answer.records[0])
            text = await self.expand(parts or (), domain)
        except (Stop, DnsTempError):
            self.ttl = 0.0  # the next attempt may find it
            return ""
        return text[:_MAX_EXPLANATION] if text.isascii() and text.isprintable() else ""


def _is_made_for_client(spec: DomainSpec | None) -> bool:
    """Whether a domain-spec holds a macro of what the client is or says: any but its domain and the family."""
    return isinstance(spec, tuple) and any(isinstance(part, Macro) and part.letter not in "odv" for part in spec)


def _transform(value: str, macro: Macro) -> str:
    """Apply the transformers of a macro (RFC 7208 section 7.3)."""
    if macro.keep or macro.reverse or macro.delimiters != ".":
        delimiter = macro.delimiters[0]
        for other in macro.delimiters[1:]:
            value = value.replace(other, delimiter)
        parts = value.split(delimiter)
        if macro.reverse:
            parts.reverse()
        value = ".".join(parts[-macro.keep :])
    return quote(value, safe="", encoding="latin-1", errors="replace") if macro.escape else value


def _exchanges(answer: Answer) -> list[str]:
    """Host names of MX records by preference; the null MX (RFC 7505) has none."""
    ranked = []
    for record in answer.records:
        preference, _, host = str(record).partition(" ")
        if host not in ("", "."):
            ranked.append((int(preference) if preference.isdigit() else 0, host))
    ranked.sort(key=lambda pair: pair[0])
    return [host for _, host in ranked]


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


def _domain_shown(name: str) -> str:
    """A name that was asked, if it is plain enough to be shown: macros may have put anything into it."""
    return to_ascii_domain(name) or "a name made from macros"
