"""DMARC policy records, and the DNS tree walk that finds them and the Organizational Domain (RFC 9989 section 4.10)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from authmilter.interfaces import Answer, Resolver

MAX_TAGS = 64  # tags of a record that are read
MAX_URIS = 20  # reporting addresses of a tag
MAX_RECORD = 8192  # octets of a record that are read
_CACHED_RECORD = 1024  # octets; longer ones are rare, and would let an attacker fill the memory

POLICIES = ("none", "quarantine", "reject")  # dmarc-request, mildest first


@dataclass(frozen=True, slots=True)
class Record:
    """A DMARC policy record (RFC 9989 section 4.7), with defaults filled in.

    `sp` and `np` are "" where the record has none.  `usable` is False where a policy tag is wrong and nobody asks for
    reports: then DMARC does not apply to the message (section 4.10.1), though the record still counts in the tree
    walk.  `rua` and `ruf` are the syntactically valid URIs, without the obsolete size limits.
    """

    p: str = "none"
    sp: str = ""
    np: str = ""
    psd: str = "u"
    adkim: str = "r"
    aspf: str = "r"
    testing: bool = False
    fo: str = "0"
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    usable: bool = True


def parse_record(txt: bytes) -> Record | None:
    """Read the joined strings of one TXT record; None if it is no DMARC policy record.

    Unknown tags, among them the historic pct, rf and ri, are ignored; of a tag that stands twice the first counts.
    """
    return _parse_cached(txt) if len(txt) <= _CACHED_RECORD else _parse(txt[:MAX_RECORD])


def _is_policy_record(txt: bytes) -> bool:
    """RFC 9989 section 4.7: v comes first and its value is case-sensitive, else the record MUST be ignored."""
    if not txt.startswith((b"v", b"V")):
        return False
    name, _, value = txt[:MAX_RECORD].partition(b";")[0].partition(b"=")
    return len(name.rstrip(b" \t")) == 1 and value.strip(b" \t") == b"DMARC1"


def _parse(txt: bytes) -> Record | None:
    if not _is_policy_record(txt):
        return None
    tags: dict[str, str] = {}
    for tag in txt.decode("latin-1").split(";", MAX_TAGS)[:MAX_TAGS]:
        name, equals, value = tag.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))

    def word(tag: str, allowed: tuple[str, ...], default: str) -> str:
        # RFC 9989 section 4.8: values are case-insensitive, and what is wrong gives way to the default.
        given = tags.get(tag, default).lower()
        return given if given in allowed else default

    rua, ruf = _uris(tags.get("rua", "")), _uris(tags.get("ruf", ""))
    p, sp, np = (word(tag, POLICIES, "") for tag in ("p", "sp", "np"))
    # RFC 9989 section 4.7: a record without p is treated as if it had p=none.  Section 4.10.1: one with a wrong p, sp
    # or np is "p=none" if it asks for reports, and else no record to apply.
    wrong = ("p" in tags and not p) or ("sp" in tags and not sp) or ("np" in tags and not np)
    return Record(
        p="none" if wrong or not p else p,
        sp="" if wrong else sp,
        np="" if wrong else np,
        psd=word("psd", ("y", "n", "u"), "u"),
        adkim=word("adkim", ("r", "s"), "r"),
        aspf=word("aspf", ("r", "s"), "r"),
        testing=word("t", ("y", "n"), "n") == "y",
        fo=_failure_options(tags.get("fo", "")) if ruf else "0",
        rua=rua,
        ruf=ruf,
        usable=bool(rua) or not wrong,
    )


_parse_cached = lru_cache(maxsize=1024)(_parse)

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]+", re.IGNORECASE)
_LIMIT = re.compile(r"[0-9]+[kmgt]?", re.IGNORECASE)


def _uris(value: str) -> tuple[str, ...]:
    """The URIs of rua or ruf; the size limit behind ``!`` is obsolete and ignored (RFC 9989 section 4.8)."""
    uris = []
    for part in value.split(",", MAX_URIS)[:MAX_URIS]:
        uri, mark, limit = part.strip(" \t").partition("!")
        if _URI.fullmatch(uri) and (not mark or _LIMIT.fullmatch(limit)) and _is_target(uri):
            uris.append(uri)
    return tuple(uris)


def _is_target(uri: str) -> bool:
    scheme, _, address = uri.partition(":")
    return scheme.lower() != "mailto" or "@" in address[1:-1]


def _failure_options(value: str) -> str:
    options = value.lower().split(":", 4)
    # RFC 9989 section 4.7: 0 and 1 exclude each other.
    if len(set(options)) < len(options) or not {"0", "1", "d", "s"}.issuperset(options) or {"0", "1"}.issubset(options):
        return "0"
    return ":".join(options)


class Found(NamedTuple):
    """What stands at ``_dmarc`` below one domain: the record, if there is exactly one, and how many there are."""

    record: Record | None
    number: int


async def lookup(domain: str, dns: Resolver, seen: dict[str, Found] | None = None) -> Found:
    """Ask for the policy record of that domain itself.  Raises DnsTempError.

    `seen` remembers answers, for the time of one evaluation.
    """
    if seen is not None and domain in seen:
        return seen[domain]
    found = _found(await dns.query(f"_dmarc.{domain}", "TXT"))
    if seen is not None:
        seen[domain] = found
    return found


def _found(answer: Answer) -> Found:
    """RFC 9989 section 4.10, steps 2 and 6: what is no DMARC record is discarded, and several records are all discarded."""
    records: Sequence[bytes | str] = answer.records
    if len(records) > 1:
        records = [txt for txt in records if isinstance(txt, bytes) and _is_policy_record(txt)]
    record = parse_record(records[0]) if len(records) == 1 and isinstance(records[0], bytes) else None
    return Found(record, len(records) if len(records) > 1 or record is not None else 0)


@lru_cache(maxsize=4096)
def names(domain: str) -> tuple[str, ...]:
    """The domains whose records a tree walk asks for, in its order; never more than eight.

    RFC 9989 section 4.10, steps 3, 4 and 7: of a domain of eight labels or more, the rightmost seven come second.
    """
    labels = domain.split(".")
    rest = range(min(len(labels) - 1, 7), 0, -1)
    return (domain, *(".".join(labels[-count:]) for count in rest))


def prefetch(domain: str, dns: Resolver) -> None:
    """Start asking for everything that a tree walk from that domain may need."""
    for name in names(domain):
        dns.prefetch(f"_dmarc.{name}", "TXT")


class Walk(NamedTuple):
    """What a tree walk found.

    `records` are the policy records on the way, longest name first; `several` the names whose records were discarded
    because there is more than one; `organizational_domain` follows from the records.
    """

    start: str
    records: tuple[tuple[str, Record], ...]
    several: tuple[str, ...]
    organizational_domain: str


async def walk(domain: str, dns: Resolver, seen: dict[str, Found] | None = None) -> Walk:
    """Walk up the DNS from that domain (RFC 9989 section 4.10).  Raises DnsTempError at the first answer that fails.

    All names are known beforehand, so those without an answer yet are prefetched together and the walk costs one round
    trip; `seen` remembers answers, for the time of one evaluation.
    """
    if seen is None:
        seen = {}
    records: list[tuple[str, Record]] = []
    several: list[str] = []
    prefetched = False
    for name in names(domain):
        found = seen.get(name)
        if found is None:
            answer = dns.known(f"_dmarc.{name}", "TXT")
            if answer is None:
                if not prefetched:
                    prefetch(domain, dns)
                    prefetched = True
                answer = await dns.query(f"_dmarc.{name}", "TXT")
            found = seen[name] = _found(answer)
        if found.record is not None:
            records.append((name, found.record))
            # RFC 9989 section 4.10, steps 2 and 6: a single record that says what it is ends the walk.
            if found.record.psd != "u":
                break
        elif found.number:
            several.append(name)
    return Walk(domain, tuple(records), tuple(several), _organizational_domain(domain, records))


def _organizational_domain(start: str, records: list[tuple[str, Record]]) -> str:
    """Choose among the records, longest name first (RFC 9989 section 4.10.2)."""
    for name, record in records:
        if record.psd == "n":
            return name
        if record.psd == "y" and name != start:
            # One label below the public suffix; the walk may have skipped that name, so it is cut out of the start.
            return ".".join(start.split(".")[-(name.count(".") + 2) :])
    return records[-1][0] if records else start


async def organizational_domain(domain: str, dns: Resolver) -> str:
    """The Organizational Domain of a domain (RFC 9989 section 4.10.2).  Raises DnsTempError."""
    return (await walk(domain, dns)).organizational_domain
