"""How well mail that is known to be good or spam is told apart: played through sessions offline, and judged by campaign.

What a message is found to be by the checks does not depend on other mail.  What the classifier thinks does, so it is asked
of one that learned from the campaigns of other folds: messages that share a subject or most of their words are of one
campaign, and a campaign is on one side.
"""

import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import mktime_tz, parsedate_tz
from heapq import nsmallest
from math import inf, log
from typing import NamedTuple

from authmilter.addresses import author
from authmilter.check import Check, all_checks
from authmilter.checks.classifier import Classifier, classifier
from authmilter.classifier.features import features
from authmilter.classifier.table import Opinion, margin_of
from authmilter.classifier.training import STEPS, Example, train
from authmilter.config.schema import Arc, Config, Dkim, Dmarc, Iprev, Network, Spf
from authmilter.errors import DnsTempError
from authmilter.files import Files, load_files
from authmilter.header_text import text, value
from authmilter.interfaces import Answer
from authmilter.metrics import NullObserver
from authmilter.model import HeaderField, Message, Stage
from authmilter.policy import Policy, Rules
from authmilter.session import Outcome, Session, build
from authmilter.verdict import Action

BAYES = ("bayes_spam", "bayes_sure", "bayes_ham")
_CHUNK = 65535
_MACROS = {b"j": b"mx.example.net", b"i": b"evaluation"}
_CLIENT = b"192.0.2.1"  # stands for a client that nothing is known of (RFC 5737)
# What asks others, or knows what this site saw in the past, which is not in a message.
_NOT_OFFLINE = frozenset(
    ("antivirus", "correspondents", "outbound_antivirus", "reputation", "rspamd", "spamassassin", "uri_lists")
)
# What a mail store adds on top of a message that it keeps, down to the Received line of its own host.
_DELIVERED = frozenset((b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"delivery-date"))
_WITHIN = re.compile(rb"\bwith\s+(?:LMTP|local)", re.IGNORECASE)  # a hop from the MTA to the mail store (RFC 3848)
_RECIPIENTS = (b"x-original-to", b"delivered-to", b"envelope-to")
_ADDRESS = re.compile(rb"<?([!-;=?-~]{1,64}@[!-;=?-~]{1,255}?)>?")
_JUDGEMENTS = (b"x-spam-", b"x-authmilter-", b"x-rspamd-", b"authentication-results", b"received-spf")
_COMMON = 60  # characters of a subject that make it the same


class Found(NamedTuple):
    """A finding; `weight` is what it added to the score, `action` what it asks for whatever the score, "" for nothing."""

    symbol: str
    detail: str
    weight: float
    action: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A message with what was found of it.

    `score` is the sum of the weights of `found`; `refused`, that a symbol asks for a refusal or quarantine whatever the
    score.  `floor` is the threshold of the tag where a symbol asks for that.
    """

    name: str
    spam: bool
    found: tuple[Found, ...]
    score: float
    refused: bool
    features: Sequence[int]
    campaign: int = 0
    floor: float = -inf
    path: str = ""

    def worth(self, threshold: float) -> float:
        """The score by which it is compared: a refusal is worth any threshold."""
        score = max(self.score, self.floor)
        return max(score, threshold) if self.refused else score

    @property
    def by_opinion_alone(self) -> bool:
        """Does only the classifier speak against it?  Then no score rejects it (`policy`)."""
        return (
            not self.refused
            and self.score > 0
            and sum(one.weight for one in self.found if one.symbol not in BAYES) <= 0
        )


class _NoDns:
    """Nobody answers: what asks has no finding, since a temporary failure is none."""

    async def query(self, name: str, rdtype: str) -> Answer:
        raise DnsTempError(f"{name} {rdtype}: offline")

    def known(self, name: str, rdtype: str) -> None:  # noqa: ARG002
        return None

    def prefetch(self, name: str, rdtype: str) -> None:
        pass

    def for_client(self, client: str) -> "_NoDns":  # noqa: ARG002
        return self


def offline(config: Config) -> Config:
    """The configuration without what needs a network or secrets, which plays every message to its end."""
    return replace(
        config,
        policy=replace(config.policy, enforce=False),
        identity=replace(config.identity, authserv_id=config.identity.authserv_id or "mx.example.net"),
        networks=Network(),
        iprev=Iprev(enabled=False),
        spf=Spf(enabled=False),
        dkim=Dkim(enabled=False),
        arc=Arc(enabled=False),
        dmarc=Dmarc(enabled=False),
        sign={},
        dnsbl={},
        dnswl={},
        recipient_policies={},
        recipient_scores={},
    )


def offline_checks() -> tuple[Check, ...]:
    """Those that look at the message alone, without the classifier."""
    return tuple(
        c for c in all_checks() if c.stage is Stage.EOM and c.name not in _NOT_OFFLINE and c.name != classifier.__name__
    )


class Player:
    """Plays messages through sessions whose clock is the time of receipt; `rules` is the policy that judges them."""

    def __init__(self, config: Config, checks: tuple[Check, ...] | None = None) -> None:
        config = offline(config)
        self._now = 0.0
        self._outcomes: list[Outcome] = []
        files: Files = load_files(config)
        checks = offline_checks() if checks is None else checks
        self._book = build(config, checks, files, _NoDns(), NullObserver(), lambda: self._now)
        self.rules = self._book.policy.common

    async def play(self, message: Message, spam: bool, path: str = "") -> Case:
        """What is found of a message as it is kept in a mailbox."""
        fields, sender, recipient = as_received(message)
        self._now = received_at(message)
        session = Session(self._book, self._outcomes.append)
        await session.connect(b"unknown", "4", 25252, _CLIENT, _MACROS)
        await session.helo(b"mail.example.com", _MACROS)
        await session.mail([sender], _MACROS)
        await session.rcpt([recipient], _MACROS)
        await session.data(_MACROS)
        session.headers(list(fields))
        await session.end_of_headers(_MACROS)
        for start in range(0, len(message.body), _CHUNK):
            session.body(message.body[start : start + _CHUNK])
        await session.end_of_message(_MACROS)
        session.close()
        ruling = self._outcomes[-1].ruling
        details = {finding.symbol: finding.detail for _, finding in self._outcomes[-1].tx.findings}
        self._outcomes.clear()
        found = tuple(Found(symbol, details.get(symbol, ""), weight) for symbol, weight in ruling.scored)
        weighed = {one.symbol for one in found}
        found += tuple(
            Found(symbol, detail, 0.0, str(self.rules.actions.get(symbol, "")))
            for symbol, detail in details.items()
            if symbol not in weighed
        )
        numbers = array("I", sorted(features(stripped(message, fields))))  # a list takes nine times the room
        case = Case(name_of(message), spam, found, _sum(found), False, numbers, path=path)
        return forced(case, self.rules)


def forced(case: Case, rules: Rules) -> Case:
    """The case with what its symbols ask for whatever the score."""
    actions = {rules.actions[one.symbol] for one in case.found if one.symbol in rules.actions}
    if not actions or Action.ACCEPT in actions:
        return case
    marked = rules.tag if Action.TAG in actions and rules.tag is not None else -inf
    return replace(case, refused=bool(actions - {Action.TAG}), floor=marked)


def stripped(message: Message, fields: tuple[HeaderField, ...]) -> Message:
    """The message with these fields for its own."""
    return Message(fields, body_size=message.body_size, body=message.body, body_cut=message.body_cut)


class Received(NamedTuple):
    """A message as it came in: its header section, the reverse-path and the forward-path."""

    fields: tuple[HeaderField, ...]
    reverse_path: bytes
    forward_path: bytes


def as_received(message: Message) -> Received:
    """What a milter would have been given of it.

    Where a mail store has left its fields on top, they go, and with them the Received lines of the host that they are of.
    What a filter said of it goes in any case: a judgement must not be judged by another.  Where no Return-Path says who
    sent it, its author did: a made-up sender would differ from everything.
    """
    names = [field.name.strip(b" \t").lower() for field in message.fields]
    first = names.index(b"received") if b"received" in names else -1
    start = 0
    if names and any(name in _DELIVERED for name in names[: max(first, 1)]):
        start = first + 1
        if first >= 0 and _WITHIN.search(message.fields[first].value) and b"received" in names[start:]:
            start = names.index(b"received", start) + 1
    kept = tuple(
        field
        for field, name in zip(message.fields[start:], names[start:], strict=True)
        if name not in _DELIVERED and not name.startswith(_JUDGEMENTS)
    )
    sender = value(message, b"return-path")
    if not sender.startswith(b"<") or not sender.endswith(b">"):
        domains = author(message).domains
        sender = f"<sender@{domains[0] if domains else 'example.com'}>".encode("ascii", "replace")
    recipients = [found[1] for name in _RECIPIENTS if (found := _ADDRESS.fullmatch(value(message, name)))]
    return Received(kept, sender, b"<%s>" % (recipients[0] if recipients else b"user@example.net"))


def received_at(message: Message) -> float:
    """Seconds since 1970: what the newest Received line says, else Date, else now."""
    for raw in (value(message, b"received").rpartition(b";")[2], value(message, b"date")):
        try:
            parsed = parsedate_tz(raw.decode("ascii", "replace"))
            moment = mktime_tz(parsed) if parsed else -1
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
        if 0 < moment < 4e9:
            return float(moment)
    return time.time()


def name_of(message: Message) -> str:
    """By what a reader finds it again: subject and Message-ID."""
    return " ".join(filter(None, (text(message, b"subject"), value(message, b"message-id").decode("utf-8", "replace"))))


class Campaigns:
    """Messages that share a key are of one campaign, and so are those that share another key with one of them."""

    def __init__(self) -> None:
        self._of: dict[object, int] = {}
        self._parents: list[int] = []

    def add(self, keys: Iterable[object]) -> int:
        """Number of a new message."""
        own = len(self._parents)
        self._parents.append(own)
        for key in keys:
            other = self.find(self._of.setdefault(key, own))
            self._parents[self.find(own)] = other
        return own

    def find(self, number: int) -> int:
        """The campaign of a message."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def campaign_keys(subject: str, numbers: Sequence[int]) -> Iterable[object]:
    """What messages of one campaign or thread share: the words of the subject, or the least features by two orders."""
    words = "".join(c if c.isalpha() else " " for c in subject.partition("]")[2] or subject).lower().split()
    kept = [word for word in words if word not in ("re", "fwd", "fw", "aw")]
    if sum(map(len, kept)) > 3:
        yield " ".join(kept)[:_COMMON]
    # Sets that have much in common have the same least elements under most orders.
    for band in range(2):
        yield (band, *nsmallest(4, numbers, key=lambda slot: slot * (2654435761 + 2 * band) % 4294967291))


def least_learned(cases: Sequence[Case], folds: int) -> tuple[int, int]:
    """How much ham, and how much spam, a classifier has learned at least that judges a fold."""
    inside = Counter((fold_of(case.campaign, folds), case.spam) for case in cases)
    total = Counter(case.spam for case in cases)
    ham, spam = (total[kind] - max(inside[fold, kind] for fold in range(folds)) for kind in (False, True))
    return ham, spam


def fold_of(campaign: int, folds: int) -> int:
    """The fold of a campaign, as good as by chance, the same each time."""
    return campaign * 2654435761 // 128 % folds


def strengths(
    learned: Sequence[Case], judged: Sequence[Case], options: Classifier, step: Callable[[], None] = lambda: None
) -> list[Opinion]:
    """What a classifier thinks of messages that learned from others, under these options.

    Nothing but zeros where it had too few to speak.
    """
    ham, spam = sum(not case.spam for case in learned), sum(case.spam for case in learned)
    if ham < options.minimum_ham or spam < options.minimum_spam:
        for _ in range(STEPS):
            step()
        return [Opinion(0.0, 0.0, 0.0, 0.0)] * len(judged)
    trained = train([Example(case.features, case.spam) for case in learned], step)
    cap = min(1.0, ham / options.enough_ham)
    opinions = []
    for case in judged:
        slots = list(map(trained.weights.__getitem__, case.features))
        margin, known = margin_of(slots, len(case.features), trained.bias)
        strength = max(-cap, min(cap, trained.curve.strength(margin)))
        opinions.append(Opinion(margin, known, strength, trained.curve.beyond(margin) if cap >= 1 else 0.0))
    return opinions


def with_opinion(case: Case, opinion: Opinion, weights: Mapping[str, float]) -> Case:
    """The case with what the classifier adds."""
    if not opinion.strength:
        return case
    symbol = "bayes_spam" if opinion.strength > 0 else "bayes_ham"
    added = [Found(symbol, f"log-odds {opinion.margin:.1f}", round(weights[symbol] * abs(opinion.strength), 3))]
    if opinion.beyond:
        added.append(Found("bayes_sure", "", round(weights["bayes_sure"] * opinion.beyond, 3)))
    found = (*case.found, *added)
    return replace(case, found=found, score=_sum(found))


def _sum(found: Iterable[Found]) -> float:
    return round(sum(one.weight for one in found), 3)  # as `policy` does it, or sums are a hair below a threshold


def crossed(
    cases: Sequence[Case],
    config: Config,
    folds: int,
    step: Callable[[], None] = lambda: None,
) -> list[Case]:
    """Every message, with the opinion of a classifier that learned from the campaigns of the other folds."""
    rules = rules_of(config)
    weights = bayes_weights(config)
    options = config.of(Classifier)
    result = []
    for fold in range(folds):
        apart = [case for case in cases if fold_of(case.campaign, folds) == fold]
        rest = [case for case in cases if fold_of(case.campaign, folds) != fold]
        for case, opinion in zip(apart, strengths(rest, apart, options, step), strict=True):
            result.append(forced(with_opinion(case, opinion, weights), rules))
    return result


def rules_of(config: Config) -> Rules:
    """The policy under which content is judged by a configuration; sections for single recipients have no say."""
    return Policy(config, tuple(c for c in all_checks() if c.stage is Stage.EOM)).common


def bayes_weights(config: Config) -> dict[str, float]:
    """What the symbols of the classifier weigh under a configuration; one that has an action weighs nothing."""
    numbers = rules_of(config).numbers
    return {symbol: numbers.get(symbol, 0.0) for symbol in BAYES}


class Catch(NamedTuple):
    """What a threshold does that so many of the ham reach: `threshold` is exclusive."""

    threshold: float
    caught: int
    flagged: int


def at_rate(cases: Sequence[Case], rate: float) -> Catch:
    """The lowest threshold that at most this share of the ham exceeds, and what exceeds it."""
    ham = sorted((case.worth(inf) for case in cases if not case.spam), reverse=True)
    if not ham:
        return Catch(inf, 0, 0)
    threshold = ham[min(len(ham) - 1, int(rate * len(ham)))]
    over = [case.spam for case in cases if case.worth(inf) > threshold]
    return Catch(threshold, sum(over), len(over) - sum(over))


class Told(NamedTuple):
    """How a symbol divides ham and spam; `odds` is ln of its share of spam over that of ham, half a message added to each."""

    symbol: str
    ham: int
    spam: int
    odds: float


def discrimination(cases: Sequence[Case]) -> list[Told]:
    """Every symbol that was found, those that tell most for spam first."""
    total = Counter(case.spam for case in cases)
    hits = Counter((one, case.spam) for case in cases for one in {found.symbol for found in case.found})
    told = []
    for symbol in {name for name, _ in hits}:
        ham, spam = hits[symbol, False], hits[symbol, True]
        odds = log((spam + 0.5) / (total[True] + 1)) - log((ham + 0.5) / (total[False] + 1))
        told.append(Told(symbol, ham, spam, odds))
    return sorted(told, key=lambda one: (-one.odds, one.symbol))


def curve(cases: Sequence[Case]) -> list[tuple[float, int, int]]:
    """For each score, highest first: how much ham and how much spam has it or more."""
    counts: Counter[tuple[float, bool]] = Counter((case.worth(inf), case.spam) for case in cases)
    ham = spam = 0
    points = []
    for score in sorted({score for score, _ in counts}, reverse=True):
        ham += counts[score, False]
        spam += counts[score, True]
        points.append((score, ham, spam))
    return points


def area(points: Sequence[tuple[float, int, int]]) -> float:
    """The area under the ROC curve, from 0 to 1: how often a spam scores higher than a good message."""
    if not points or not points[-1][1] or not points[-1][2]:
        return 0.0
    total = before_ham = before_spam = 0
    for _, ham, spam in points:
        total += (ham - before_ham) * (spam + before_spam)
        before_ham, before_spam = ham, spam
    return total / 2 / points[-1][1] / points[-1][2]
