"""What checks report: results of authentication methods, and findings of heuristics."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Result(StrEnum):
    """Result words of Authentication-Results (RFC 8601 section 2.7)."""

    PASS = "pass"  # noqa: S105  the identity is authenticated
    FAIL = "fail"  # the identity is not what it claims to be
    SOFTFAIL = "softfail"  # SPF ~all: probably not authorised
    NEUTRAL = "neutral"  # SPF ?all: nothing is asserted; DKIM: the signature field is malformed
    NONE = "none"  # nothing to check
    POLICY = "policy"  # valid in itself, refused by a rule of ours or of a standard
    TEMPERROR = "temperror"  # no answer now; a later attempt may have one
    PERMERROR = "permerror"  # published data can't be used


NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})


class AuthResult(NamedTuple):
    """The result of one method for one identity.

    `method` is one of ``iprev spf_helo spf dkim arc dmarc``.  `identifier` is the domain that was looked at, as
    lower-case A-label, "" where there is none: what DMARC aligns.  `properties` maps ``ptype.property`` to its value,
    in the order in which they stand in Authentication-Results.  `reason` is for people.  `explanation` is what the domain
    itself says about a fail of SPF (RFC 7208 section 6.2): printable US-ASCII, for the SMTP reply alone.
    `for_anyone`: SPF passes, but may do so for any client that there is, which shows nothing of who this one is.
    `aligned`: for DMARC, the domains of SPF and DKIM that passed and are aligned with the author domain.
    """

    method: str
    result: Result
    identifier: str = ""
    properties: Mapping[str, str] = NO_PROPERTIES
    reason: str = ""
    explanation: str = ""
    for_anyone: bool = False
    aligned: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """The name by which policy weighs this result: ``spf_fail``."""
        return "_".join((self.method, self.result))


class Finding(NamedTuple):
    """Something that a check noticed.

    `symbol` is what [scores] weighs; `detail` what was seen, for people; `strength` scales the weight of
    graded symbols.
    """

    symbol: str
    detail: str = ""
    strength: float = 1.0
