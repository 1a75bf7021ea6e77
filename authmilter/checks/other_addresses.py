"""Where answers go, and who else is said to have sent the message: Reply-To, Sender and MAIL FROM beside From."""

from collections.abc import Iterator

from authmilter.addresses import author, read_mailboxes
from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import is_list, reply_to, site
from authmilter.model import Stage, Transaction

# Where anybody gets a mailbox for nothing, by their sites; those of the second line have many top-level domains.
_FREE = frozenset(
    (
        "126.com", "163.com", "aol.com", "bk.ru", "bol.com.br", "daum.net", "fastmail.com", "foxmail.com", "free.fr",
        "gmail.com", "gmx.at", "gmx.ch", "gmx.com", "gmx.de", "gmx.net", "googlemail.com", "hushmail.com", "icloud.com",
        "inbox.lv", "inbox.ru", "laposte.net", "libero.it", "list.ru", "mac.com", "mail.com", "mail.ru", "mailfence.com",
        "me.com", "msn.com", "naver.com", "o2.pl", "onet.pl", "orange.fr", "passport.com", "pm.me", "proton.me",
        "protonmail.ch", "protonmail.com", "qq.com", "rambler.ru", "rediffmail.com", "rocketmail.com", "seznam.cz",
        "sina.com", "sohu.com", "t-online.de", "terra.com.br", "tuta.com", "tuta.io", "tutanota.com", "tutanota.de",
        "uol.com.br", "ukr.net", "virgilio.it", "wanadoo.fr", "web.de", "wp.pl", "yandex.com", "yandex.ru", "ymail.com",
        "zohomail.com", "zohomail.eu",
    )
)  # fmt: skip
_FREE_NAMES = frozenset(("hotmail", "live", "outlook", "yahoo"))
# What a list, or whoever claims to be one, gets of the weight: lists write themselves into From, and the author into
# Reply-To, or the other way round.
LIST_SHARE = 0.3


def is_free(domain: str) -> bool:
    """Is that domain one where anybody gets a mailbox for nothing?"""
    registered = site(domain)
    return registered in _FREE or registered.partition(".")[0] in _FREE_NAMES


@check(
    Stage.EOM,
    scores={
        "reply_to_free": 1.0,
        "reply_to_differs": 0.5,
        "reply_to_malformed": 0.5,
        "sender_differs": 0.5,
        "envelope_differs": 0.2,
    },
)
def other_addresses(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Reply-To, Sender or MAIL FROM belong to another site than the author, or answers go to a free mailbox.

    Of the latter, mail of lists gets a third of the weight, and of the others nothing.
    """
    message = tx.message
    domains = author(message).domains
    if not domains:
        return
    home = site(domains[0])
    path = tx.envelope.reverse_path
    bounces = site(path.domain) if path is not None else ""
    index = message.index
    by_list = is_list(message)
    if b"reply-to" in index:
        answers = reply_to(message)
        other = next((domain for domain in answers.domains if site(domain) != home), "")
        if other and is_free(other):
            yield Finding("reply_to_free", other, LIST_SHARE if by_list else 1.0)
        elif other and not by_list and site(other) != bounces:
            yield Finding("reply_to_differs", other)
        elif not answers.domains:
            yield Finding("reply_to_malformed", answers.problem)
    if by_list:
        return  # its Sender and envelope are its own (RFC 5322 section 3.6.2)
    sender = message.first(b"sender")
    if sender is not None:
        named = read_mailboxes(sender.value).domains
        if named and site(named[0]) != home:
            yield Finding("sender_differs", named[0])
    if bounces and bounces != home:
        yield Finding("envelope_differs", bounces)
