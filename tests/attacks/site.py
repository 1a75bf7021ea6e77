"""A site under attack: the DNS of victim and attacker, messages, and what must hold whatever the attack.

``legit.example``, the victim, publishes SPF ``-all``, a key and DMARC ``p=reject``.  ``attack.example`` has everything
valid for itself: SPF, a key, a client with confirmed reverse DNS, DMARC ``p=none``.  A message runs through a whole
`Session` with the balanced policy and every check; nothing is patched.
"""

import io
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from authmilter.check import all_checks
from authmilter.config.schema import Config, Identity
from authmilter.evidence import AuthResult, Result
from authmilter.files import load_files
from authmilter.interfaces import Dns
from authmilter.log import LOGGER, configure
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action, HeaderEdit, Verdict
from tests.auth.mail import NOW, record, sign, split
from tests.fakes import FakeDNS

OUR_ID = "mx.ours.example"
VICTIM, ATTACKER = "legit.example", "attack.example"
VICTIM_IP, ATTACKER_IP, NAMELESS_IP = "192.0.2.7", "203.0.113.66", "203.0.113.99"
MOST_CPU = 2.0  # seconds of a hostile message; a wide bound, since a test must not fail for a slow machine

COSTS: dict[str, float] = {}  # seconds of CPU per attack, printed at the end of the run


@cache
def key_of(domain: str) -> RSAPrivateKey:
    """The key with which a domain signs: one for each, the same each time."""
    assert domain
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)


@cache
def _zone() -> dict[str, list[str]]:
    return {
        f"{VICTIM} TXT": ["v=spf1 ip4:192.0.2.0/24 -all"],
        f"_dmarc.{VICTIM} TXT": ["v=DMARC1; p=reject"],
        f"sel._domainkey.{VICTIM} TXT": [record(key_of(VICTIM))],
        f"mail.{VICTIM} A": [VICTIM_IP],
        "7.2.0.192.in-addr.arpa PTR": [f"mail.{VICTIM}"],
        f"{ATTACKER} TXT": [f"v=spf1 ip4:{ATTACKER_IP} ip4:{NAMELESS_IP} -all"],
        f"_dmarc.{ATTACKER} TXT": ["v=DMARC1; p=none"],
        f"sel._domainkey.{ATTACKER} TXT": [record(key_of(ATTACKER))],
        f"mail.{ATTACKER} A": [ATTACKER_IP],
        f"mail.{ATTACKER} TXT": [f"v=spf1 ip4:{ATTACKER_IP} -all"],
        "66.113.0.203.in-addr.arpa PTR": [f"mail.{ATTACKER}"],
    }


def zone(more: Mapping[str, Sequence[str | bytes]] | None = None, fail: Iterable[str] = ()) -> FakeDNS:
    """The DNS, with more records or other ones; questions in `fail` are answered SERVFAIL."""
    return FakeDNS({**_zone(), **(more or {})}, fail)


Field = tuple[bytes, bytes]


def octets(text: str | bytes) -> bytes:
    """Text as UTF-8."""
    return text.encode() if isinstance(text, str) else text


@dataclass(frozen=True)
class Mail:
    """A message as the MTA hands it on: names and values of its fields (after the colon), and the body."""

    fields: tuple[Field, ...]
    body: bytes = b"Hello,\r\n\r\nplease pay.\r\n"

    def on_top(self, *fields: tuple[str | bytes, str | bytes]) -> "Mail":
        """With more fields above the others; a blank is put before each value."""
        return replace(self, fields=(*_fields(fields), *self.fields))

    def below(self, *fields: tuple[str | bytes, str | bytes]) -> "Mail":
        """With more fields below the others."""
        return replace(self, fields=(*self.fields, *_fields(fields)))

    def without(self, name: bytes) -> "Mail":
        """Without the fields of that name."""
        return replace(self, fields=tuple(f for f in self.fields if f[0].lower() != name.lower()))

    def signed(self, domain: str = ATTACKER, key: str = "", **tags: str) -> "Mail":
        """With a signature of `domain` on top, made with its key or with that of `key`."""
        raw = b"".join(name + b":" + value + b"\r\n" for name, value in self.fields) + b"\r\n" + self.body
        fields, body = split(sign(raw, key_of(key or domain), d=domain, **tags))
        return Mail(tuple((f.name, f.value) for f in fields), body)


def _fields(fields: Iterable[tuple[str | bytes, str | bytes]]) -> tuple[Field, ...]:
    return tuple((octets(name), b" " + octets(value)) for name, value in fields)


def mail(author: str | bytes = f"Mallory <mallory@{ATTACKER}>", *, body: bytes = Mail.body) -> Mail:
    """A plain message with that From."""
    return Mail((), body).on_top(
        ("From", author),
        ("To", "bob@ours.example"),
        ("Subject", "Invoice"),
        ("Date", "Tue, 14 Nov 2023 22:00:00 +0000"),
        ("Message-ID", "<1@example.org>"),
        ("Received", "from a by b"),
    )


def from_victim() -> Mail:
    """What the attacker would like to be believed."""
    return mail(f"The Boss <admin@{VICTIM}>")


@dataclass(frozen=True)
class Case:
    """An attack and its outcome.

    `results` maps methods to their result words, joined by commas; those that are not named may be anything.  `because`
    is one of the symbols that led to the action.  `reply` is how the SMTP reply begins, "" for none.  `controls` are
    the domains that the sender speaks for: no other may pass.
    """

    title: str
    mail: Callable[[], Mail]
    action: Action = Action.TAG
    because: str = ""
    reply: str = ""
    results: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""  # part of the reason of some result
    identifier: str = ""  # identifier of the DMARC result
    policy: str = ""  # policy.dmarc
    asked: tuple[str, ...] = ()  # questions that must be among those asked
    not_asked: tuple[str, ...] = ()
    sender: str | bytes = f"<mallory@{ATTACKER}>"
    helo: str | bytes = f"mail.{ATTACKER}"
    ip: str = ATTACKER_IP
    macros: Mapping[bytes, bytes] = field(default_factory=dict)
    dns: Callable[[], Dns] = zone
    config: Config = field(default_factory=Config)
    controls: tuple[str, ...] = (ATTACKER,)


class Watching(NullObserver):
    """Remembers whether anything broke."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def check_error(self, name: str, kind: str) -> None:
        if kind == "exception":
            self.broken.append(name)


@dataclass
class Played:
    """What became of a message."""

    verdict: Verdict
    outcome: Outcome
    log: str
    dns: Dns

    def words(self, method: str) -> str:
        """The results of a method, joined by commas."""
        return ",".join(r.result.value for r in self.outcome.tx.results_of(method))

    def edits(self, op: str, name: str) -> list[HeaderEdit]:
        """The edits of that kind to fields of that name."""
        return [e for e in self.verdict.edits if e.op == op and e.name.lower() == name.lower()]


async def play(
    message: Mail,
    *,
    title: str = "",
    sender: str | bytes = f"<mallory@{ATTACKER}>",
    helo: str | bytes = f"mail.{ATTACKER}",
    ip: str = ATTACKER_IP,
    macros: Mapping[bytes, bytes] | None = None,
    dns: Dns | None = None,
    config: Config | None = None,
    now: float = NOW,
    log_format: str = "text",
    authserv_id: str = OUR_ID,
) -> Played:
    """Send a message through a session; with a title its CPU time is kept for the table, and bounded."""
    config = config or Config()
    config = replace(config, identity=Identity(authserv_id=authserv_id, local_domains=("ours.example",)))
    dns = dns or zone()
    observer = Watching()
    outcomes: list[Outcome] = []
    rules = build(config, all_checks(), load_files(config), dns, observer, lambda: now)
    known = {b"j": b"mta.ours.example", **(macros or {})}
    stream = io.StringIO()
    handlers, propagate, level = LOGGER.handlers, LOGGER.propagate, LOGGER.level
    configure(log_format, "info", stream)
    begin = time.process_time()
    try:
        session = Session(rules, outcomes.append)
        await session.connect(b"client", "6" if ":" in ip else "4", 25, ip.encode(), known)
        await session.helo(octets(helo), known)
        verdict = await session.mail([octets(sender)], known)
        if verdict.action is Action.CONTINUE:
            await session.rcpt([b"<bob@ours.example>"], known)
            await session.data(known)
            session.headers([HeaderField(name, value) for name, value in message.fields])
            await session.end_of_headers(known)
            for start in range(0, len(message.body), 65535):
                session.body(message.body[start : start + 65535])
            verdict = await session.end_of_message({**known, b"i": b"4bXyZ"})
        session.close()
    finally:
        spent = time.process_time() - begin
        LOGGER.handlers, LOGGER.propagate = handlers, propagate
        LOGGER.setLevel(level or logging.NOTSET)
    if title:
        COSTS[title] = max(spent, COSTS.get(title, 0.0))
        assert spent < MOST_CPU, f"{spent:.2f} s of CPU"
    assert not observer.broken
    (outcome,) = outcomes
    assert not any("internal error" in r.reason for r in outcome.tx.results)
    return Played(verdict, outcome, stream.getvalue(), dns)


async def withstand(case: Case) -> Played:
    """Play an attack; check its outcome and what holds for all of them."""
    played = await play(
        case.mail(),
        title=case.title,
        sender=case.sender,
        helo=case.helo,
        ip=case.ip,
        macros=case.macros,
        dns=case.dns(),
        config=case.config,
    )
    verdict, results = played.verdict, played.outcome.tx.results
    shown = [(r.symbol, r.identifier, r.reason) for r in results]
    assert verdict.action is case.action, (verdict, shown)
    assert {method: played.words(method) for method in case.results} == dict(case.results), shown
    assert not case.because or case.because in verdict.because, verdict
    assert case.reason in " / ".join(r.reason for r in results), shown
    dmarc = played.outcome.tx.results_of("dmarc")
    if case.identifier:
        assert dmarc[0].identifier == case.identifier
    if case.policy:
        assert dmarc[0].properties["policy.dmarc"] == case.policy
    if case.asked or case.not_asked:
        assert isinstance(played.dns, FakeDNS)
        assert set(case.asked) <= set(played.dns.asked)
        assert not set(case.not_asked) & set(played.dns.asked)
    assert_clean(played, case.controls)
    if verdict.action in (Action.REJECT, Action.TEMPFAIL):
        assert verdict.reply
        assert case.reply, verdict.reply
        assert f"{verdict.reply.code} {verdict.reply.enhanced} {verdict.reply.text}".startswith(case.reply)
    else:
        assert not verdict.reply
        assert not case.reply
    assert_one_line(played.log)
    return played


def assert_clean(played: Played, controls: tuple[str, ...]) -> None:
    """No domain passes but those of the sender, and nothing of the message gets out raw."""
    outcome, verdict = played.outcome, played.verdict
    for result in outcome.tx.results:
        if result.result is Result.PASS:
            for name in _domains(result):
                assert _within(name, controls), result
    if outcome.authentication_results:
        authserv_id, clauses = read_results(outcome.authentication_results)
        assert authserv_id == OUR_ID
        expected = [(r.method.removesuffix("_helo"), r.result.value) for r in outcome.tx.results]
        assert [(c.method, c.result) for c in clauses] == (expected or [("none", "")])
        for clause in clauses:
            for name, value in clause.properties if clause.result == "pass" else ():
                if name in _IDENTIFIERS:
                    assert _within(value.rpartition("@")[2], controls), clause
    if verdict.edits and outcome.tx.envelope.direction.label == "inbound":
        # RFC 8601 section 5: ours comes last among the edits, so that it ends up on top.
        assert verdict.edits[-1] == HeaderEdit("insert", 0, "Authentication-Results", outcome.authentication_results)
    for edit in verdict.edits:
        assert re.fullmatch(r"[!-9;-~]+", edit.name), edit.name
        assert all(line.isascii() and line.isprintable() for line in re.split(r"\n\t| \n ", edit.value)), edit
    if verdict.reply:
        assert verdict.reply.text.isascii()
        assert verdict.reply.text.isprintable()
        assert verdict.reply.text.endswith(f"[{outcome.reference}]")


_IDENTIFIERS = ("header.d", "header.i", "header.from", "smtp.mailfrom", "smtp.helo")


def _domains(result: AuthResult) -> list[str]:
    shown = [value.rpartition("@")[2] for name, value in result.properties.items() if name in _IDENTIFIERS]
    return [name for name in (result.identifier, *shown) if name]


def _within(name: str, domains: tuple[str, ...]) -> bool:
    return any(name == domain or name.endswith("." + domain) for domain in domains)


_LOG_LINE = re.compile(r'info: message((?: [a-z_]+=(?:[!#-<>-~]+|"(?:[ !#-\[\]-~]|\\["\\]|\\[xuU][0-9a-f]+)*"))+)\n')
_LOG_FIELD = re.compile(r' ([a-z_]+)=([!#-<>-~]+|"(?:[^"\\]|\\.)*")')


def assert_one_line(log: str) -> None:
    """The log is the one line of the message; `injected` is the key that attacks try to write into it."""
    line = _LOG_LINE.fullmatch(log)
    assert line, log
    keys = [key for key, _ in _LOG_FIELD.findall(line[1])]
    assert "injected" not in keys, log
    assert len(keys) == len(set(keys)), log


# -- a strict reader of Authentication-Results, by the grammar of RFC 8601 section 2.2 -------------------------------------


class Clause(NamedTuple):
    """A result as it stands in the field."""

    method: str
    result: str
    reason: str
    properties: tuple[tuple[str, str], ...]


_TOKEN = r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+"  # RFC 2045 section 5.1
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
_DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+"
_DOT_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_ID = re.compile(rf" ?({_QUOTED}|{_TOKEN})")
_METHOD = re.compile(r" ([a-z]+)=([a-z]+)")
_REASON = re.compile(rf" reason=({_QUOTED}|{_TOKEN})(?= |;|$)")
_PROPERTY = re.compile(rf" ([a-z]+)\.([a-z-]+)=((?:{_DOT_ATOM})?@{_DOMAIN}|{_QUOTED}|{_TOKEN})(?= |;|$)")


def read_results(value: str) -> tuple[str, list[Clause]]:
    """authserv-id and results of a field value as we write it; AssertionError for whatever the grammar does not know."""
    for line in value.split("\n")[1:]:
        assert re.match(r"\t[!-~]", line), "a fold is followed by white space and text"
    text = value.replace("\n\t", " ")
    found = _ID.match(text)
    assert found, value
    authserv_id, at = _unquoted(found[1]), found.end()
    clauses = []
    if text[at:] == "; none":
        return authserv_id, [Clause("none", "", "", ())]
    while at < len(text):
        assert text[at] == ";", (value, at)
        method = _METHOD.match(text, at + 1)
        assert method, (value, at)
        at, reason, properties = method.end(), "", []
        if found := _REASON.match(text, at):
            at, reason = found.end(), _unquoted(found[1])
        while found := _PROPERTY.match(text, at):
            at = found.end()
            properties.append((f"{found[1]}.{found[2]}", _unquoted(found[3])))
        clauses.append(Clause(method[1], method[2], reason, tuple(properties)))
    return authserv_id, clauses


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def header_fields(message: Mail) -> tuple[HeaderField, ...]:
    """The fields as the product knows them."""
    return tuple(HeaderField(name, value) for name, value in message.fields)
