"""The author as shown: the name in From, which is all that many readers see, and the look of the address."""

import re
from collections.abc import Iterator

from authmilter.addresses import author, to_ascii_domain
from authmilter.check import Tools, check
from authmilter.confusables import plain
from authmilter.evidence import Finding
from authmilter.header_text import display_name, site, value
from authmilter.model import Stage, Transaction
from authmilter.networks import names_contain

_ADDRESS = re.compile(r"@([a-z0-9][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63})++)")
# A domain without an address, by the endings that people know; others are found in abbreviations.
_DOMAIN = re.compile(
    r"(?<![a-z0-9@.-])((?:[a-z0-9-]{1,63}\.){1,5}(?:com|net|org|info|biz|edu|gov|de|fr|it|es|nl|br|uk|us|eu|jp|in|io))"
    r"(?![a-z0-9@.-])"
)
_LONGEST = 500  # characters of a name that are looked at
_MOST = 5  # addresses or domains in it that are
_CAPITALS = 6  # letters from which on a name in capitals is no abbreviation
_DIGITS = re.compile(r"[0-9]{3}")
_LOCAL_DIGITS = re.compile(rb"[0-9]{4}")
_CONSONANTS = re.compile(rb"[bcdfghjklmnpqrstvwxz]{6}", re.IGNORECASE)
_BASE64 = re.compile(rb"=\?[^?]{1,64}\?[bB]\?")


@check(
    Stage.EOM,
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
)
def from_display(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """The name in From holds another's address or domain, capitals or needless base64, or the address looks made up.

    Above all an address or domain of ours: of [identity] local_domains, or of a recipient.
    """
    mailboxes = author(tx.message).mailboxes
    if mailboxes:
        local_part, _, domain = mailboxes[0]
        if _DIGITS.search(domain) and not domain.startswith("xn--") and _DIGITS.search(site(domain)):
            yield Finding("author_domain_digits", site(domain))
        if _LOCAL_DIGITS.search(local_part):
            yield Finding("author_local_digits")
        if _CONSONANTS.search(local_part):
            yield Finding("author_unspeakable")
    name = display_name(tx.message)
    if not name:
        return
    if len(name) > _LONGEST:
        name = name[:_LONGEST]
    if name.isascii() and _BASE64.search(value(tx.message, b"from")):
        yield Finding("from_encoded")
    letters = [c for c in name if c.isalpha()]
    if len(letters) >= _CAPITALS and name.isupper():
        yield Finding("from_capitals", name[:60])
    if "." in name or not name.isascii():
        yield from _domains(tx, tools, plain(name))


def _domains(tx: Transaction, tools: Tools, name: str) -> Iterator[Finding]:
    domains = author(tx.message).domains
    if not domains:
        return
    ours = tools.config.identity.local_domains
    recipients = {site(path.domain) for path in tx.envelope.forward_paths[:_MOST]}
    home = {site(domain) for domain in domains}
    symbol = ""
    for pattern, found in ((_ADDRESS, "from_display_address"), (_DOMAIN, "from_display_domain")):
        for match in pattern.findall(name)[:_MOST]:
            domain = to_ascii_domain(match)
            if site(domain) in home:
                symbol = symbol or ("from_display_repeats" if pattern is _ADDRESS else "")
            elif site(domain) in recipients or names_contain(ours, domain):
                yield Finding("from_display_local", domain)
                return
            elif domain:
                yield Finding(found, domain)
                return
    if symbol:
        yield Finding(symbol)
