"""DMARC: is the author's domain authenticated, and what does its owner ask for if not (RFC 9989)?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from authmilter.addresses import Author
from authmilter.auth import orgdomain
from authmilter.auth.orgdomain import POLICIES, Found, Record
from authmilter.errors import DnsTempError
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Resolver

MAX_IDENTIFIERS = 101  # domains whose alignment is looked at: as many signatures as [dkim] can allow, and SPF


_COUNTED = frozenset((Result.PASS, Result.TEMPERROR))  # results that can bear on DMARC


class DmarcEvaluation(NamedTuple):
    """The result, and what it came from.

    `policy` is what the owner asks for on failure (none, quarantine or reject) after sp, np and t; it and
    `policy_domain`, where the record stands, are "" if no record applies.  `aligned_dkim` are the signing domains
    that passed and are aligned; `aligned_spf` says the same of MAIL FROM.
    """

    result: AuthResult
    policy: str = ""
    policy_domain: str = ""
    record: Record | None = None
    aligned_dkim: tuple[str, ...] = ()
    aligned_spf: bool = False


def prefetch(author_domain: str, dns: Resolver) -> None:
    """Start asking for the policy, as soon as the Author Domain is known."""
    orgdomain.prefetch(author_domain, dns)


async def evaluate(author: Author, results: Sequence[AuthResult], dns: Resolver) -> DmarcEvaluation:
    """Evaluate DMARC from the results of SPF for MAIL FROM and of DKIM; others are ignored.

    * none: no policy record applies.
    * permerror: the From field has no Author Domain, or more than one; the reason is the author's `problem`.
    * temperror: the DNS failed where its answer decides, or SPF or DKIM had a temperror for a domain that is aligned.
      A temperror for any other domain changes nothing, so that nobody can escape by breaking his own DNS.
    * pass, fail: whether an aligned identifier passed.
    """
    properties = {"header.from": author.domains[0]} if author.domains else {}
    if author.problem or not author.domains:
        # RFC 9989 section 11.5 leaves these messages to the receiver; policy decides on the permerror.
        identifier = author.domains[0] if author.domains else ""
        return DmarcEvaluation(AuthResult("dmarc", Result.PERMERROR, identifier, properties, author.problem))
    domain = author.domains[0]
    seen: dict[str, Found] = {}
    try:
        policy = await _discover(domain, dns, seen)
    except DnsTempError as error:
        reason = f"policy discovery failed: {error}"
        return DmarcEvaluation(AuthResult("dmarc", Result.TEMPERROR, domain, properties, reason))
    notes = [f"{number} records at _dmarc.{name} are discarded" for name, (_, number) in seen.items() if number > 1]
    if policy is None:
        # RFC 9989 section 4.10.1: without a record, DMARC MUST NOT be applied.
        return DmarcEvaluation(AuthResult("dmarc", Result.NONE, domain, properties, "; ".join(notes)))
    if not policy.record.usable:
        notes.append(f"the record at _dmarc.{policy.domain} can't be used")
        return DmarcEvaluation(AuthResult("dmarc", Result.NONE, domain, properties, "; ".join(notes)))

    evidence = await _alignment(domain, policy.record, results, dns, seen)
    if evidence.spf or evidence.dkim:
        result = Result.PASS
        both = evidence.spf and evidence.dkim
        notes.insert(0, "spf and dkim aligned" if both else "spf aligned" if evidence.spf else "dkim aligned")
    elif evidence.doubt or policy.doubt:
        result = Result.TEMPERROR
        notes.insert(0, evidence.doubt or policy.doubt)
    else:
        result = Result.FAIL
        notes.insert(0, "no aligned pass of spf or dkim")
    properties["policy.dmarc"] = policy.wanted  # RFC 9989 section 9.1
    return DmarcEvaluation(
        AuthResult("dmarc", result, domain, properties, "; ".join(notes), aligned=evidence.aligned()),
        policy=policy.wanted,
        policy_domain=policy.domain,
        record=policy.record,
        aligned_dkim=tuple(evidence.dkim),
        aligned_spf=bool(evidence.spf),
    )


class _Policy(NamedTuple):
    domain: str  # where the record stands
    record: Record
    wanted: str
    doubt: str = ""  # why `wanted` is not certain


async def _discover(domain: str, dns: Resolver, seen: dict[str, Found]) -> _Policy | None:
    """Find the policy record that applies (RFC 9989 section 4.10.1)."""
    own = await orgdomain.lookup(domain, dns, seen)
    if own.record is not None:
        return _Policy(domain, own.record, _tested(own.record, own.record.p))
    walk = await orgdomain.walk(domain, dns, seen)
    # The record of the Organizational Domain comes first, then the one of the public suffix above it.
    for name, record in walk.records:
        if name == walk.organizational_domain or record.psd == "y":
            return await _of_subdomain(domain, name, record, dns)
    return None


async def _of_subdomain(domain: str, name: str, record: Record, dns: Resolver) -> _Policy:
    """The policy for a name below that of the record: sp, or np if the name does not exist, or p."""
    wanted = record.sp or record.p
    missing = record.np or wanted  # RFC 9989 section 4.7
    if missing == wanted:
        return _Policy(name, record, _tested(record, wanted))
    try:
        # RFC 9989 section 3.2.13: a name exists unless the answer is NXDOMAIN, whatever was asked for.
        if not (await dns.query(domain, "A")).exists:
            wanted = missing
    except DnsTempError as error:
        return _Policy(name, record, _tested(record, wanted), doubt=f"{domain} may not exist: {error}")
    return _Policy(name, record, _tested(record, wanted))


def _tested(record: Record, policy: str) -> str:
    """RFC 9989 section 4.7: t=y asks for a policy one level lower."""
    return POLICIES[max(0, POLICIES.index(policy) - 1)] if record.testing else policy


@dataclass(slots=True)
class _Evidence:
    dkim: list[str] = field(default_factory=list)
    spf: str = ""
    doubt: str = ""

    def aligned(self) -> tuple[str, ...]:
        """Every domain that passed and is aligned, once."""
        return tuple(dict.fromkeys((self.spf, *self.dkim) if self.spf else self.dkim))


async def _alignment(
    domain: str, record: Record, results: Sequence[AuthResult], dns: Resolver, seen: dict[str, Found]
) -> _Evidence:
    """Which passes are aligned (RFC 9989 section 4.4), and what a temporary failure leaves open."""
    evidence = _Evidence()
    aligned: _Aligned | None = None
    for result in results:
        # RFC 9989 section 4.4.2: SPF counts for MAIL FROM alone, never for HELO (CVE-2019-20790).
        if result.method not in ("spf", "dkim") or result.result not in _COUNTED:
            continue
        identifier = result.identifier
        if not identifier:
            # A temperror without identifier may have been for an aligned one.
            if result.result is Result.TEMPERROR:
                evidence.doubt = f"{result.method} temperror"
            continue
        if identifier != domain:
            if (record.aspf if result.method == "spf" else record.adkim) == "s":
                continue
            aligned = aligned or _Aligned(domain, dns, seen)
            try:
                if not await aligned.with_author(identifier):
                    continue
            except DnsTempError as error:
                evidence.doubt = f"the alignment of {identifier} is not known: {error}"
                continue
        if result.result is Result.TEMPERROR:
            evidence.doubt = f"{result.method} temperror"
        elif result.method == "spf":
            evidence.spf = identifier
        elif identifier not in evidence.dkim:
            evidence.dkim.append(identifier)
    return evidence


class _Aligned:
    """Tells whether identifiers are aligned with one Author Domain in relaxed mode."""

    def __init__(self, domain: str, dns: Resolver, seen: dict[str, Found]) -> None:
        self._domain = domain
        self._dns = dns
        self._seen = seen
        self._organizational_domain = ""  # of the Author Domain, once it is needed
        self._relaxed: dict[str, bool] = {}

    async def with_author(self, identifier: str) -> bool:
        """Same Organizational Domain.  Raises DnsTempError."""
        # An Organizational Domain is its domain or a name above it; so names that end differently have none in common.
        if identifier.rpartition(".")[2] != self._domain.rpartition(".")[2]:
            return False
        if identifier not in self._relaxed:
            if len(self._relaxed) == MAX_IDENTIFIERS:
                return False
            self._relaxed[identifier] = await self._same_organization(identifier)
        return self._relaxed[identifier]

    async def _same_organization(self, identifier: str) -> bool:
        if not self._organizational_domain:
            walk = await orgdomain.walk(self._domain, self._dns, self._seen)
            self._organizational_domain = walk.organizational_domain
        wanted = self._organizational_domain
        if identifier != wanted and not identifier.endswith("." + wanted):
            return False
        # RFC 9989 section 4.10.2: a tree walk of its own for each identifier.
        return (await orgdomain.walk(identifier, self._dns, self._seen)).organizational_domain == wanted
