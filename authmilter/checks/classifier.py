"""What a classifier thinks that learned from the mail of this site."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from authmilter.addresses import author
from authmilter.check import Tools, check, record
from authmilter.classifier import spool
from authmilter.classifier.features import features
from authmilter.classifier.spool import identity
from authmilter.classifier.table import Shelf, find
from authmilter.config.option import FilePath, Seconds, option
from authmilter.config.schema import Config
from authmilter.errors import StoreError
from authmilter.evidence import Finding, Result
from authmilter.header_text import site
from authmilter.identities import client_network, result_of, spf_domain
from authmilter.model import Direction, Stage, Transaction
from authmilter.verdict import Action, Ruling

_SHELF = Shelf()

BAYES = frozenset(("bayes_spam", "bayes_sure", "bayes_ham"))
# What follows from earlier verdicts of ours must not vouch for the next.
_REMEMBERED = frozenset(("reputation_bad", "reputation_good", "known_correspondent"))
_LISTED = ("dnsbl_", "uribl_")
_HAM_BELOW = 0.5  # the score of what is learned as ham, without that of what is remembered
_REJECT = 12.0  # where no threshold is set
_AGREEING = 2  # symbols that must speak against what is learned as spam for its score


@dataclass(frozen=True)
class Classifier:
    """Learns what spam and good mail of this site look like: `authmilter learn ham FOLDER`, `authmilter learn spam FOLDER`.

    Whoever has learned nothing has no classifier.  It looks at words, links, the build of a message and the names of its
    header fields, and yields `bayes_spam` or `bayes_ham`, with a strength from 0 to 1 that scales their weight.  Full
    strength as spam is what at most one in a thousand of the good mail exceeds that it has learned, each judged without
    itself.  What is mostly made of words that it has never seen counts for less.

    It knows this site's mail alone: what it learned elsewhere takes newsletters for spam where it has seen none.
    Whatever sets the two kinds apart counts, so both should be of the same mailboxes and months: spam of today beside
    good mail of former years teaches it that mail of today is spam.  So it says nothing before `minimum_ham` and
    `minimum_spam` messages, and up to `enough_ham` its strength is at most what it has learned of ham, divided by
    that.  From there on it also yields `bayes_sure` for what is far beyond surely spam.  Both together, and neither
    alone, mark a message as spam that nothing else speaks against; they never reject one.

    A mail server may have each message learned that a user moves into his junk folder or out of it: `authmilter learn
    --later spam -` keeps it within half a second, and the daemon trains from it within a minute or `train_every`, in a
    process of low priority.  It must run as root or as the daemon's user.  Or have it read whole folders each night: what
    it knows costs it next to nothing.

    Of a message are kept numbers that its words are hashed to, neither text nor addresses, in a file that only the daemon's
    user can read; whoever guesses a word can tell whether it may have been in one.  `authmilter learn --forget` takes
    messages back, and the weights are then those of one that never knew them.  Workers see a new table within a second; if
    they can't use it, the log says so, and `authmilter status`.  A release that looks at other things in mail says that too,
    and has to be taught anew: keep the folders that you taught it with.

    With `auto_learn` the daemon also learns by itself, from what is certain without the classifier.  As ham: what passes
    DMARC, comes from a domain of good reputation itself or from a known correspondent, and has nothing against it.  As
    spam: what is over the threshold `reject` for at least two reasons, or reached a spam trap from a client, or with a link,
    that is listed.  What the classifier takes for the contrary it leaves.  Of one sender it takes `auto_learn_sender`
    messages a day, and keeps a hash of his domain or network with each: who wants to teach it wrong needs many good names
    for a long time, and what was learned by hand prevails.  `authmilter learn --forget-auto` takes all of it back.
    """

    enabled: bool = option(True, "Switch it off.")
    table: FilePath = option(
        FilePath(""),
        "File of its weights, and beside it, with .learned at the end, what they were made from; empty: classifier.table "
        "in the state directory.  Its directory should be the daemon's.",
    )
    minimum_ham: int = option(
        200, "Good messages that must be learned before it speaks.", at_least=10, at_most=1_000_000
    )
    minimum_spam: int = option(200, "Spam that must be learned before it speaks.", at_least=10, at_most=1_000_000)
    enough_ham: int = option(
        1000, "Good messages from which on it speaks at full strength.", at_least=10, at_most=1_000_000
    )
    keep: int = option(
        50_000,
        "Messages of each kind that are kept: the newest, and rather those learned by hand.  Training takes about a second, "
        "and 10 MB of memory, for 3,000.",
        at_least=1000,
        at_most=1_000_000,
    )
    train_every: Seconds = option(
        Seconds(600.0),
        "How often the daemon trains, at most, from what was learned since; 0 leaves it to `authmilter learn`.",
        at_least=0,
        at_most=30 * 86400,
    )
    auto_learn: bool = option(False, "Learn from mail that is certain without the classifier.")
    auto_learn_daily: int = option(
        100, "Messages of each kind that it learns by itself in a day.", at_least=1, at_most=100_000
    )
    auto_learn_sender: int = option(
        2, "The same of one domain, or of one network where no domain is certain.", at_least=1, at_most=1000
    )


@check(
    Stage.EOM,
    scores={"bayes_spam": 4.5, "bayes_sure": 1.4, "bayes_ham": -1.5},
    meanings={
        "bayes_spam": "It looks like the spam that was learned; the weight grows with the resemblance.",
        "bayes_sure": "The same, beyond what hardly any good mail that was learned comes to.",
        "bayes_ham": "It looks like the good mail that was learned.",
    },
    options=Classifier,
    body=True,
)
def classifier(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """What the classifier thinks that was trained with `authmilter learn`."""
    options: Classifier = tools.options
    table = _SHELF.current(options.table, tools.now)
    if table is None:
        if _SHELF.problem:
            raise StoreError("the classifier has a table that it can't use: see the log")
        return
    if table.ham < options.minimum_ham or table.spam < options.minimum_spam:
        return
    opinion = table.judge(features(tx.message))
    most = table.ham / options.enough_ham
    if opinion.strength:
        yield Finding(
            "bayes_spam" if opinion.strength > 0 else "bayes_ham",
            f"log-odds {opinion.margin:.1f}, {opinion.known:.0%} known",
            min(abs(opinion.strength), most),
        )
    if opinion.beyond and most >= 1:
        yield Finding("bayes_sure", "", opinion.beyond)


@record("classifier")
async def learn_by_itself(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
    """With auto_learn, leave a message for training whose kind is certain."""
    options: Classifier = tools.options
    if not options.auto_learn or ruling is None or tx.envelope.direction is not Direction.INBOUND:
        return
    message = tx.message
    if not message.fields or message.oversized or message.body_cut or message.body_size != len(message.body):
        return
    spam = what_is_certain(tx, ruling, tools.config)
    origin = _origin(tx, spam) if spam is not None else ""
    if spam is None or not origin:
        return
    lesson = spool.Lesson(identity(message), spam, features(message), sha256(origin.encode()).digest()[:8])
    path = find(options.table)
    try:
        spool.append(path.with_name(path.name + spool.SUFFIX), lesson)
    except OSError as error:
        raise StoreError(f"{path}{spool.SUFFIX}: {error.strerror}") from error


def what_is_certain(tx: Transaction, ruling: Ruling, config: Config) -> bool | None:
    """Is it spam, or ham, whatever the classifier and memory say?  None if that is not certain."""
    found = {finding.symbol: finding.detail for _, finding in tx.findings}
    others = [(symbol, weight) for symbol, weight in ruling.scored if symbol not in BAYES | _REMEMBERED]
    score = sum(weight for _, weight in others)
    is_listed = any(symbol.startswith(_LISTED) for symbol in found)
    is_known = _is_known(tx, found)
    reject = _REJECT if config.policy.reject is None else config.policy.reject
    against = sum(weight > 0 for _, weight in others)
    if (score >= reject and against >= _AGREEING) or ("spamtrap" in found and is_listed):
        return None if "bayes_ham" in found or is_known else True
    if ruling.verdict.action is Action.ACCEPT and is_known and score < _HAM_BELOW and not is_listed:
        return None if "bayes_spam" in found or "spamtrap" in found else False
    return None


def _is_known(tx: Transaction, found: Mapping[str, str]) -> bool:
    """Is the author authentic, and do we know good of himself, rather than of a provider that many use?"""
    dmarc = result_of(tx, "dmarc")
    if dmarc is None or dmarc.result is not Result.PASS:
        return False
    method, _, domain = found.get("reputation_good", "").partition(":")[0].partition(" ")
    return "known_correspondent" in found or (method in ("spf", "dkim") and domain in dmarc.aligned)


def _origin(tx: Transaction, spam: bool) -> str:
    """Whom only so much is taken of: the site of the author, whom DMARC vouches for, else whoever brought it."""
    if not spam:
        domains = author(tx.message).domains
        return site(domains[0]) if domains else ""
    return site(spf_domain(tx)) or client_network(tx)
