"""The author as shown: the name in From, which is all that many readers see, and the look of the address."""

import re
from collections.abc import Iterator

from authmilter.addresses import author, to_ascii_domain
from authmilter.check import Tools, check
from authmilter.confusables import plain
from authmilter.evidence import Finding
from authmilter.free_mail import is_free
from authmilter.header_text import display_name, excerpt, has_needless_base64, is_via_list, reply_to, site
from authmilter.model import Message, Stage, Transaction
from authmilter.networks import names_contain

_ADDRESS = re.compile(r"@([a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63})++)")
_DOMAIN = re.compile(r"(?<![a-z0-9@.-])((?:[a-z0-9-]{1,63}\.){1,5}[a-z][a-z0-9-]{1,62})(?![a-z0-9@.-])")
# A domain of others without an address is one by the endings that people know; further ones are found in abbreviations.
_KNOWN = re.compile(r".*\.(?:com|net|org|info|biz|edu|gov|de|fr|it|es|nl|br|uk|us|eu|jp|in|io)")
_LONGEST = 500  # characters of a name that are looked at, after those that nobody sees are left out
_MOST = 50  # addresses, and domains, in it that are
_MOST_RECIPIENTS = 5  # whose domains are taken for ours
_CAPITALS = 6  # letters from which on a name in capitals is no abbreviation
_DIGITS = re.compile(r"[0-9]{3}")
_LOCAL_DIGITS = re.compile(rb"[0-9]{4}")
_CONSONANTS = re.compile(rb"[bcdfghjklmnpqrstvwxz]{6}", re.IGNORECASE)
# What is left of the weight where there is a good reason to show another's address.
_BY_LIST = 0.2
_BY_FORM = 0.4


@check(
    Stage.EOM,
    content=True,
    scores={
        "from_display_local": 2.0,
        "from_display_address": 2.0,
        "from_display_domain": 0.3,
        "from_display_repeats": 0.3,
        "from_encoded": 0.6,
        "from_capitals": 0.7,
        "author_domain_digits": 0.5,
        "author_local_digits": 0.3,
        "author_unspeakable": 0.3,
    },
    meanings={
        "from_display_local": (
            "The name in From holds an address or domain of [identity] local_domains or of a recipient."
        ),
        "from_display_address": "It holds an address of another domain than the author's.",
        "from_display_domain": "It holds the name of another domain under a well-known top-level domain.",
        "from_display_repeats": "It holds an address of the author's own domain.",
        "from_encoded": "It is in base64 although it is all ASCII.",
        "from_capitals": "It is in capitals.",
        "author_domain_digits": "The author's domain has three digits in a row.",
        "author_local_digits": "The author's local-part has four digits in a row.",
        "author_unspeakable": "The author's local-part has six consonants in a row.",
    },
)
def from_display(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """The name in From holds another's address or domain, capitals or needless base64, or the address looks made up.

    Above all an address or domain of ours: of [identity] local_domains, or of a recipient (from_display_local).  Lists that
    write themselves into From, as in ``"bob@example.net via Talk" <talk@lists.test>``, and forms on web sites, where answers
    go to the address that is shown, have a share of the weight.  from_display_repeats is the author's own domain in his name;
    an address looks made up that has four digits in a row, or six consonants, or three digits in its domain.
    """
    message = tx.message
    mailboxes = author(message).mailboxes
    if mailboxes:
        local_part, _, domain = mailboxes[0]
        if (
            _DIGITS.search(domain)
            and not domain.startswith("xn--")
            and _DIGITS.search(site(domain))
            and not is_free(domain)
        ):
            yield Finding("author_domain_digits", site(domain))
        if _LOCAL_DIGITS.search(local_part):
            yield Finding("author_local_digits", excerpt(local_part))
        if _CONSONANTS.search(local_part):
            yield Finding("author_unspeakable", excerpt(local_part))
    name = display_name(message)
    if not name:
        return
    if has_needless_base64(message, b"from", name):
        yield Finding("from_encoded")
    if name.isupper() and sum(map(str.isalpha, name)) >= _CAPITALS:
        yield Finding("from_capitals", name[:60])
    if "." in name or not name.isascii():
        yield from _domains(tx, tools, plain(name)[:_LONGEST])


def _domains(tx: Transaction, tools: Tools, name: str) -> Iterator[Finding]:
    message = tx.message
    home = {site(domain) for domain in author(message).domains}
    if not home:
        return
    ours = tools.config.identity.local_domains
    recipients = {site(path.domain) for path in tx.envelope.forward_paths[:_MOST_RECIPIENTS]}
    addresses = _named(_ADDRESS, name)
    others = [domain for domain in (*addresses, *_named(_DOMAIN, name)) if site(domain) not in home]
    local = next((domain for domain in others if site(domain) in recipients or names_contain(ours, domain)), "")
    if local:
        yield Finding("from_display_local", local, _BY_LIST if is_via_list(message) else 1.0)
        return
    for domain in others:
        if domain in addresses:
            yield Finding("from_display_address", domain, _excuse(message, domain))
            return
    known = next(filter(_KNOWN.fullmatch, others), "")
    if known:
        yield Finding("from_display_domain", known)
    elif addresses:
        yield Finding("from_display_repeats")


def _named(pattern: re.Pattern[str], name: str) -> list[str]:
    """The domains that the pattern finds in a name."""
    return [domain for domain in map(to_ascii_domain, pattern.findall(name)[:_MOST]) if domain]


def _excuse(message: Message, domain: str) -> float:
    if is_via_list(message):
        return _BY_LIST
    return _BY_FORM if domain in reply_to(message).domains else 1.0
