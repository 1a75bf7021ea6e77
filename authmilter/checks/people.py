"""Names of people of ours before addresses of others: what orders to pay an invoice, or to buy gift cards, begin with."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from authmilter.addresses import author
from authmilter.check import Tools, check
from authmilter.config import endpoint
from authmilter.config.option import Names, option
from authmilter.config.option import shown as quoted
from authmilter.confusables import plain
from authmilter.evidence import Finding
from authmilter.header_text import display_name, is_via_list
from authmilter.model import Mailbox, Stage, Transaction
from authmilter.networks import names_contain

_LONGEST = 500  # characters of a display name that are looked at, after those that nobody sees are left out
_MOST_RECIPIENTS = 5  # whose domains are taken for ours
_WORD = re.compile(r"[^\W\d_]+")
_SPELT_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
# What is left where a list wrote itself into From, and kept the author's name there: anybody can pose as one.
_BY_LIST = 0.5


def _person(text: str) -> str:
    """The name of a person as its words joined by dots, as it is compared."""
    words = text.split(".")
    if len(words) < 2 or not all(len(word) > 1 and _WORD.fullmatch(word) for word in words):
        raise ValueError(
            f"{quoted(text)} is not a name such as jane.doe: two words or more, without initials, joined by dots"
        )
    return text.lower()


@dataclass(frozen=True)
class People:
    """People of ours in whose names others may write to our users, such as those who order payments.

    Found is a From whose display name has all words of a name, in any order, with any accents and among any others, and
    whose address is neither of [identity] local_domains, nor of the domain of a recipient, nor listed here.  It is only as
    good as the names are rare: another jane.doe is found too.  Services that write in somebody's name, as in `Jane Doe via
    Example <no-reply@example.com>`, are to be listed under `exempt`; mailing lists have half of the weight.
    """

    names: Names = option(
        (), "Their names, the words of each joined by dots: jane.doe, jürgen.müller, maria.garcía.lópez.", each=_person
    )
    exempt: Names = option(
        (),
        "Addresses and domains from which they write besides: jane@example.com, example.net.",
        each=endpoint.recipient,
    )


@lru_cache(maxsize=4)
def _by_word(names: Names) -> dict[str, list[tuple[str, list[frozenset[str]]]]]:
    """A word of each name -> the names, each with the spellings of every word.

    The longest word is taken, since it is likely the rarest.
    """
    found: dict[str, list[tuple[str, list[frozenset[str]]]]] = {}
    for name in names:
        words = [frozenset((plain(word), plain(word.translate(_SPELT_OUT)))) for word in name.split(".")]
        for spelling in max(words, key=lambda spellings: max(map(len, spellings))):
            found.setdefault(spelling, []).append((name, words))
    return found


@check(
    Stage.EOM,
    content=True,
    scores={"person_of_ours": 2.5},
    options=People,
    wanted=lambda config: bool(config.of(People).names),
)
def people(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """From has a name of [people], and an address of somebody else."""
    message = tx.message
    shown = plain(display_name(message))[:_LONGEST]
    written = set(_WORD.findall(shown))
    known = _by_word(tools.options.names)
    for word in written:
        for name, words in known.get(word, ()):
            if all(not written.isdisjoint(spellings) for spellings in words):
                others = [mailbox for mailbox in author(message).mailboxes if not _is_theirs(mailbox, tx, tools)]
                if others:
                    share = _BY_LIST if is_via_list(message) else 1.0
                    yield Finding("person_of_ours", f"{name} at {others[0].domain}", share)
                return


def _is_theirs(mailbox: Mailbox, tx: Transaction, tools: Tools) -> bool:
    domain = mailbox.domain
    exempt = tools.options.exempt
    return (
        names_contain(tools.config.identity.local_domains, domain)
        or any(path.domain == domain for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS])
        or domain in exempt
        or mailbox.address in exempt
    )
