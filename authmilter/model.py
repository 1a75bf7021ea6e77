"""The facts of one SMTP transaction, as snapshots that nobody changes.

Bytes of the network stay bytes; domains that are compared or looked up exist besides as lower-case A-labels.
"""

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import NamedTuple

from authmilter.evidence import AuthResult, Finding


class Stage(IntEnum):
    """Stages of an SMTP transaction, in their order."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    HEADER = 5
    EOH = 6
    BODY = 7
    EOM = 8

    @property
    def label(self) -> str:
        """Lower-case name, for logs and metrics."""
        return _STAGES[self]


_STAGES = tuple(stage.name.lower() for stage in Stage)


class Direction(IntEnum):
    """Decided once, at MAIL: inbound is verified, outbound is signed."""

    INBOUND = 0
    OUTBOUND = 1

    @property
    def label(self) -> str:
        """Lower-case name, for logs and metrics."""
        return "outbound" if self else "inbound"


_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


class Mailbox(NamedTuple):
    """An address of the envelope or of a header field.

    `local_part` and `raw_domain` are as received (quotes of the local-part kept); `domain` is the lower-case A-label
    form, "" if the domain can't be one.
    """

    local_part: bytes
    raw_domain: bytes
    domain: str

    def __bytes__(self) -> bytes:
        return self.local_part + b"@" + self.raw_domain if self.raw_domain else self.local_part

    @property
    def address(self) -> str:
        """The address to compare: ASCII in lower case, the local-part without quotes.

        RFC 5321 section 4.1.2: a quoted local-part is the same as that without quotes, where it needs none.  Section 2.4
        leaves its case to its host; hardly any host tells two people apart by it.
        """
        local_part = self.local_part
        if len(local_part) > 1 and local_part[:1] == local_part[-1:] == b'"':
            local_part = _QUOTED_PAIR.sub(rb"\1", local_part[1:-1])
        return f"{local_part.lower().decode('utf-8', 'backslashreplace')}@{self.domain}"


class HeaderField(NamedTuple):
    """A header field as it was sent: `name` before the colon, `value` after it.

    The value keeps its leading white space and has CRLF at its folds, none at its end, since DKIM signs those octets
    (RFC 6376 section 3.4.1).
    """

    name: bytes
    value: bytes

    @property
    def raw(self) -> bytes:
        """The whole field with its final CRLF."""
        return self.name + b":" + self.value + b"\r\n"


class BodyHashKey(NamedTuple):
    """Which hash of the body is wanted: canonicalisation ``simple`` or ``relaxed``, and `length` from l= or None."""

    canonicalization: str
    length: int | None


class BodyHash(NamedTuple):
    """SHA-256 of the canonical body; `total` counts all canonical octets, also those beyond the hashed length."""

    digest: bytes
    total: int


class Connection(NamedTuple):
    """Who is at the other end.

    `client_ip` is None for local submission and unknown families.  `client_name` is what the MTA verified, "" if
    nothing; `mta_name` its own name ({j}), `mta_version` what it is (v).  `since` is when it connected, in seconds since 1970.
    """

    client_ip: IPv4Address | IPv6Address | None = None
    client_name: str = ""
    client_port: int = 0
    mta_name: str = ""
    daemon_name: str = ""
    since: float = 0.0
    mta_version: str = ""

    @property
    def by_sendmail(self) -> bool:
        """Is the MTA Sendmail?  It gives no name with its version."""
        return self.mta_version[:1].isdecimal()


class Envelope(NamedTuple):
    """MAIL and RCPT.

    `reverse_path` None is the null reverse-path ``<>``.  A path that can't be parsed is a Mailbox without domain.
    `forward_paths` are the recipients so far; `auth_user` is the SASL login, "" if none.  `smtputf8`: the client may have
    written UTF-8 in the header section (RFC 6531).
    """

    reverse_path: Mailbox | None = None
    forward_paths: tuple[Mailbox, ...] = ()
    auth_user: str = ""
    tls: str = ""
    direction: Direction = Direction.INBOUND
    local_submission: bool = False
    smtputf8: bool = False


class Message:
    """The header section, and what is known of the body, which is kept where checks of content want it."""

    def __init__(
        self,
        fields: tuple[HeaderField, ...] = (),
        *,
        body_size: int = 0,
        body_hashes: Mapping[BodyHashKey, BodyHash] = MappingProxyType({}),
        oversized: str = "",
        body: bytes = b"",
        body_cut: bool = False,
        out_of_room: bool = False,
    ) -> None:
        self.fields = fields
        self.body = body  # as received; b"" where no check wants it
        self.body_cut = body_cut  # is `body` not the whole?
        self.out_of_room = out_of_room  # was it cut only because too many bodies were kept at once?
        self.body_size = body_size
        self.body_hashes = body_hashes
        self.oversized = oversized  # what was not examined because it was too large, "" if nothing
        self.derived: dict[str, object] = {}  # what costs something and follows from the fields alone, by name
        self.content: dict[str, object] = {}  # the same for what follows from the body too
        index: dict[bytes, list[int]] = {}
        for position, header in enumerate(fields):
            name = header.name.strip(b" \t").lower()
            if name in index:
                index[name].append(position)
            else:
                index[name] = [position]
        # Lower-case field name (white space before the colon dropped) -> positions in `fields`, top first.
        self.index: Mapping[bytes, Sequence[int]] = index

    def with_body(
        self,
        size: int,
        hashes: Mapping[BodyHashKey, BodyHash],
        oversized: str,
        body: bytes = b"",
        body_cut: bool = False,
        out_of_room: bool = False,
    ) -> "Message":
        """The same header section, with what is now known of the body; what was derived from the fields is kept."""
        message = Message.__new__(Message)
        message.__dict__.update(self.__dict__)
        message.body_size = size
        message.body_hashes = hashes
        message.oversized = oversized
        message.body = body
        message.body_cut = body_cut
        message.out_of_room = out_of_room
        message.content = {}
        return message

    def all(self, name: bytes) -> tuple[HeaderField, ...]:
        """Every field of that (lower-case) name, top first."""
        return tuple(self.fields[i] for i in self.index.get(name, ()))

    def first(self, name: bytes) -> HeaderField | None:
        """The topmost field of that (lower-case) name."""
        positions = self.index.get(name)
        return self.fields[positions[0]] if positions else None


NO_MESSAGE = Message()


class Transaction(NamedTuple):
    """All facts and results of one transaction at one stage."""

    connection: Connection = Connection()
    helo: bytes = b""
    helo_domain: str = ""  # A-label form of the HELO name, "" for literals and what is no domain
    envelope: Envelope = Envelope()
    message: Message = NO_MESSAGE
    queue_id: str = ""
    results: tuple[AuthResult, ...] = ()
    findings: tuple[tuple[Stage, Finding], ...] = ()

    def results_of(self, method: str) -> tuple[AuthResult, ...]:
        """Results of one method, in their order."""
        return tuple(r for r in self.results if r.method == method)
