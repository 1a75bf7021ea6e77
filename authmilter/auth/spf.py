"""SPF: may this client send mail for the domain of HELO and MAIL FROM (RFC 7208, with RFC 8616)?

An evaluator of our own: it waits without a thread, keeps to one budget of time, and takes microseconds where the DNS is
cached.  Not implemented: Received-SPF (section 9.1), since results stand in Authentication-Results.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from authmilter.addresses import to_ascii_domain
from authmilter.auth.spf_evaluation import MAX_VALUE, Evaluation, Stop
from authmilter.config.schema import Spf
from authmilter.errors import DnsTempError
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Resolver
from authmilter.model import Connection, Envelope
from authmilter.networks import contains

_POSTMASTER = b"postmaster"


class SpfOutcome(NamedTuple):
    """What check_host() found.

    `reason` is for people and holds nothing of the message but domains.  `explanation` is the domain's own text for a
    fail (RFC 7208 section 6.2), printable US-ASCII, "" if there is none.  `mechanism` is the term that decided, "" if
    none did.  The outcome holds for `ttl` seconds for this client and domain, whatever the sender, HELO and receiver
    unless `depends_on_sender`.  `for_anyone`: see `Evaluation.for_anyone`.
    """

    result: Result
    reason: str
    explanation: str = ""
    mechanism: str = ""
    ttl: float = 0.0
    depends_on_sender: bool = False
    for_anyone: bool = False


class SpfCache:
    """Outcomes that still hold, the least recently used forgotten first.

    It goes with one resolver and one set of options: what is in it depends on both.  `size` is the number of outcomes,
    0 for none; `clock` gives seconds.  Temporary failures are never kept, and nothing is kept for longer than the
    shortest TTL of the answers that made it.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, SpfOutcome]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> SpfOutcome | None:
        """What was kept under the key, while it holds."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return entry[1]

    def put(self, key: Hashable, outcome: SpfOutcome) -> None:
        """Keep the outcome for its TTL."""
        if outcome.ttl <= 0 or outcome.result is Result.TEMPERROR or not self._size:
            return
        self._kept[key] = self._clock() + outcome.ttl, outcome
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


async def check_helo(
    connection: Connection,
    helo: bytes,
    helo_domain: str,
    dns: Resolver,
    options: Spf,
    cache: SpfCache | None = None,
) -> AuthResult:
    """Check the HELO identity (RFC 7208 section 2.3); `helo_domain` is its A-label form, "" if it is no domain."""
    return await _check_helo("spf_helo", connection, helo, helo_domain, dns, options, cache)


async def check_mail_from(
    connection: Connection,
    helo: bytes,
    helo_domain: str,
    envelope: Envelope,
    dns: Resolver,
    options: Spf,
    cache: SpfCache | None = None,
) -> AuthResult:
    """Check the MAIL FROM identity (RFC 7208 section 2.4), which is postmaster@HELO for the null reverse-path."""
    mailbox = envelope.reverse_path
    if mailbox is None:
        return await _check_helo("spf", connection, helo, helo_domain, dns, options, cache)
    if not mailbox.domain:
        sender = {"smtp.mailfrom": _visible(bytes(mailbox))}
        return AuthResult("spf", Result.NONE, "", sender, "the reverse-path has no domain that can be looked up")
    # RFC 7208 section 4.3: a reverse-path without local-part is postmaster's.
    local = mailbox.local_part or _POSTMASTER
    outcome = await _outcome(connection, mailbox.domain, local, helo, dns, options, cache)
    sender = {"smtp.mailfrom": f"{_visible(mailbox.local_part)}@{mailbox.domain}"}
    return _as_result("spf", outcome, mailbox.domain, sender)


async def _check_helo(
    method: str,
    connection: Connection,
    helo: bytes,
    helo_domain: str,
    dns: Resolver,
    options: Spf,
    cache: SpfCache | None,
) -> AuthResult:
    if not helo_domain:
        return AuthResult(method, Result.NONE, "", {"smtp.helo": _visible(helo)}, "the HELO name is no domain")
    outcome = await _outcome(connection, helo_domain, _POSTMASTER, helo, dns, options, cache)
    return _as_result(method, outcome, helo_domain, {"smtp.helo": helo_domain})


def _as_result(method: str, outcome: SpfOutcome, domain: str, properties: Mapping[str, str]) -> AuthResult:
    return AuthResult(
        method, outcome.result, domain, properties, outcome.reason, outcome.explanation, outcome.for_anyone
    )


async def _outcome(
    connection: Connection,
    domain: str,
    local: bytes,
    helo: bytes,
    dns: Resolver,
    options: Spf,
    cache: SpfCache | None,
) -> SpfOutcome:
    """The outcome for an identity at that domain: from the cache, or evaluated, or ruled out by local policy."""
    ip = connection.client_ip
    if contains(options.skip, ip):
        return SpfOutcome(Result.NONE, f"local policy: {ip} is not checked")
    receiver = connection.mta_name
    if len(local) > MAX_VALUE or len(helo) > MAX_VALUE:
        cache = None  # long keys would fill the memory
    key = (None if ip is None else ip.packed, domain)
    key_of_sender: Hashable = ()
    if cache is not None:
        kept = cache.get(key)
        if kept is None:
            key_of_sender = (*key, local, helo, receiver)
            kept = cache.get(key_of_sender)
        if kept is not None:
            return kept
    outcome = await check_host(
        ip, domain, local, domain, helo, dns, options, receiver=receiver, explain=options.explanation
    )
    if cache is not None:
        cache.put(key_of_sender if outcome.depends_on_sender else key, outcome)
    return outcome


async def check_host(
    ip: IPv4Address | IPv6Address | None,
    domain: str,
    sender_local: bytes,
    sender_domain: str,
    helo: str | bytes,
    dns: Resolver,
    options: Spf,
    *,
    receiver: str = "",
    now: float | None = None,
    explain: bool = True,
) -> SpfOutcome:
    """The check_host() function of RFC 7208 section 4; never raises for what client, sender or DNS do.

    `domain` is checked; the sender and HELO serve macros alone, as do `receiver`, our own name, and `now`, in seconds
    since 1970.  `explain` False spares the question for the text of exp=.
    """
    if ip is None:
        return SpfOutcome(Result.NONE, "the client's address is not known")
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip  # RFC 7208 section 5
    domain = to_ascii_domain(domain)
    if "." not in domain:  # RFC 7208 section 4.3: malformed, or a single label
        return SpfOutcome(Result.NONE, "the name is no domain that can have an SPF record")
    evaluation = Evaluation(ip, sender_local, sender_domain, helo, dns, options, receiver, now)
    try:
        result = await evaluation.check(domain)
    except Stop as stop:
        ttl = 0.0 if stop.result is Result.TEMPERROR else evaluation.ttl
        return SpfOutcome(stop.result, stop.reason, ttl=ttl, depends_on_sender=evaluation.depends_on_sender)
    except DnsTempError:
        return SpfOutcome(Result.TEMPERROR, evaluation.unanswered())
    decided = evaluation.decided
    text = decided[0].text if decided else ""
    reason = _REASONS[result].format(ip=str(ip), domain=domain)
    return SpfOutcome(
        result,
        f"{reason} ({text})" if text else reason,
        await evaluation.explanation() if explain and result is Result.FAIL else "",
        text,
        evaluation.ttl,
        evaluation.depends_on_sender,
        result is Result.PASS and evaluation.for_anyone,
    )


_REASONS = {
    Result.PASS: "{ip} is among the hosts of {domain}",
    Result.FAIL: "{ip} is not among the hosts of {domain}",
    Result.SOFTFAIL: "{ip} is probably not among the hosts of {domain}",
    Result.NEUTRAL: "{domain} does not say whether {ip} is among its hosts",
    Result.NONE: "{domain} has no SPF record",
}


def _visible(raw: bytes) -> str:
    """Octets of the envelope as text without controls and other characters that can't be seen."""
    text = raw[:320].decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
