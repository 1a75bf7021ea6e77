"""What a classifier thinks that learned from the mail of this site."""

from collections.abc import Iterator
from dataclasses import dataclass

from authmilter.check import Tools, check
from authmilter.classifier.features import features
from authmilter.classifier.table import Shelf
from authmilter.config.option import FilePath, option
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction

_SHELF = Shelf()


@dataclass(frozen=True)
class Classifier:
    """Learns what spam and good mail of this site look like: `authmilter learn ham FOLDER`, `authmilter learn spam FOLDER`.

    Whoever has learned nothing has no classifier.  It looks at words, links, the build of a message and the names of its
    header fields, and yields `bayes_spam` or `bayes_ham`, with a strength from 0 to 1 that scales their weight.  Full
    strength as spam is what at most one in a thousand of the good mail exceeds that it has learned, each judged without
    itself.  What is mostly made of words that it has never seen counts for less.

    It knows this site's mail alone: what it learned elsewhere takes newsletters for spam where it has seen none.  So it
    says nothing before `minimum_ham` and `minimum_spam` messages, and up to `enough_ham` its strength is at most what it
    has learned of ham, divided by that.  It never learns by itself.

    Of a message are kept numbers that its words are hashed to, neither text nor addresses, in a file that only the daemon's
    user can read; whoever guesses a word can tell whether it may have been in one.  `authmilter learn --forget` takes
    messages back.  Workers see within a second what was learned.
    """

    enabled: bool = option(True, "Switch it off.")
    table: FilePath = option(
        FilePath(""),
        "File of its weights, and beside it, with .learned at the end, what they were made from; empty: classifier.table "
        "in the state directory.",
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
        "Messages of each kind that are kept, the newest; training takes about a second for 3,000.",
        at_least=1000,
        at_most=1_000_000,
    )


@check(Stage.EOM, scores={"bayes_spam": 4.5, "bayes_ham": -1.5}, options=Classifier)
def classifier(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """What the classifier thinks that was trained with `authmilter learn`."""
    options: Classifier = tools.options
    table = _SHELF.current(options.table, tools.now)
    if table is None or table.ham < options.minimum_ham or table.spam < options.minimum_spam:
        return
    opinion = table.judge(features(tx.message))
    if opinion.strength:
        yield Finding(
            "bayes_spam" if opinion.strength > 0 else "bayes_ham",
            f"log-odds {opinion.margin:.1f}, {opinion.known:.0%} known",
            min(abs(opinion.strength), table.ham / options.enough_ham),
        )
