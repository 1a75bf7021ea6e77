"""Macros: what the MTA tells besides the SMTP commands themselves.

The MTA sends them in a packet of their own ahead of the command that they belong to.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

# What is asked for at each stage (SMFIR_SETSYMLIST).  The list replaces the MTA's default list of that stage; without
# it Postfix keeps the client's address and names back.  Keys: the command letter; values: number of the stage in the
# negotiation (SMFIM_*) and the names.
#
#   j               the MTA's own name: the default authserv-id
#   v               its version: digits from Sendmail, "Postfix" and digits from Postfix
#   {client_addr}   address of the SMTP client; with "IPv6:" before an IPv6 address in some stages and MTAs
#   {client_name}   its verified host name, or "unknown" (Postfix), "[address]" (Sendmail)
#   {client_ptr}    its host name by reverse lookup alone
#   {client_port}   its port
#   {daemon_name}   name of the service that it came in by
#   {tls_version}, {cipher}   of the SMTP session; without value before STARTTLS
#   {auth_authen}   SASL login: who has one is a user of ours
#   {auth_type}     SASL mechanism
#   {mail_addr}, {rcpt_addr}  reverse-path and forward-path after the MTA's own rewriting
#   i               queue id: Sendmail has it at MAIL, Postfix after the first accepted RCPT
WANTED: Final[Mapping[int, tuple[int, bytes]]] = {
    ord("C"): (0, b"j v {client_addr} {client_name} {client_ptr} {client_port} {daemon_name}"),
    ord("H"): (1, b"{tls_version} {cipher}"),
    ord("M"): (2, b"{auth_authen} {auth_type} {mail_addr} i"),
    ord("R"): (3, b"{rcpt_addr} i"),
    ord("E"): (5, b"i {client_addr}"),
    ord("N"): (6, b"i {client_addr}"),
}

_ORDER: Final = b"CHMRTLNBEU"  # letters of the commands that can have macros, in the order of an SMTP transaction
_SESSION: Final = b"CH"  # the first of them
_MAIL: Final = ord("M")
_MOST: Final = 256  # macros that are kept of one packet; MTAs send a dozen


class Macros(Mapping[bytes, bytes]):
    """The macros of one milter connection: of a name sent at several stages, the value of the latest stage.

    Packets are read when somebody asks.
    """

    __slots__ = ("_by_stage", "_known", "_latest", "_unread")

    def __init__(self) -> None:
        self._unread: dict[int, bytes] = {}  # packets, by the letter of the command
        self._by_stage: dict[int, dict[bytes, bytes]] = {}
        self._known: dict[bytes, bytes] = {}  # all of those
        self._latest = -1  # place in _ORDER of the latest of them

    def put(self, packet: bytes) -> None:
        """Take a macro packet: the letter of a command, then names and values, each ended by NUL.

        It replaces what was sent for that command before.  An empty packet, one for no known command, and a name
        without value are passed over.
        """
        if not packet or packet[0] not in _ORDER:
            return
        if packet[0] == _MAIL:
            self.end_message()
        self._unread[packet[0]] = packet

    def get(self, name: bytes, default: Any = None) -> Any:
        """The value of a macro."""
        if self._unread:
            self._read()
        return self._known.get(name, default)

    def __getitem__(self, name: bytes) -> bytes:
        self._read()
        return self._known[name]

    def __iter__(self) -> Iterator[bytes]:
        self._read()
        return iter(self._known)

    def __len__(self) -> int:
        self._read()
        return len(self._known)

    def end_message(self) -> None:
        """Forget what belongs to the message; keep what belongs to the SMTP session."""
        self._read()
        if self._latest >= len(_SESSION):
            self._by_stage = {letter: macros for letter, macros in self._by_stage.items() if letter in _SESSION}
            self._latest = len(_SESSION) - 1
            self._merge()

    def end_session(self) -> None:
        """Forget everything."""
        self._unread = {}
        self._by_stage = {}
        self._known = {}
        self._latest = -1

    def _read(self) -> None:
        for letter, packet in self._unread.items():
            texts = packet[1:].split(b"\0", 2 * _MOST)
            macros = dict(zip(texts[:-1:2], texts[1:-1:2], strict=False))
            self._by_stage[letter] = macros
            place = _ORDER.index(letter)
            if place > self._latest:
                self._latest = place
                self._known.update(macros)
            else:
                self._merge()
        self._unread.clear()

    def _merge(self) -> None:
        self._known = {}
        for letter in _ORDER:
            if letter in self._by_stage:
                self._known |= self._by_stage[letter]
