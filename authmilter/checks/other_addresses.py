"""Where answers go, and who else is said to have sent the message: Reply-To, Sender and MAIL FROM beside From."""

from collections.abc import Iterator

from authmilter.addresses import author, read_mailboxes
from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.free_mail import is_free
from authmilter.header_text import LIST_SHARE, display_name, is_list, reply_to, site
from authmilter.model import Stage, Transaction


@check(
    Stage.EOM,
    content=True,
    scores={
        "reply_to_free": 1.0,
        "reply_to_differs": 0.5,
        "reply_to_malformed": 0.5,
        "sender_differs": 0.5,
        "envelope_differs": 0.2,
    },
    meanings={
        "reply_to_free": (
            "Reply-To is of another domain than From, where anybody gets a mailbox for nothing; less for lists, "
            "and for forms on web sites whose From shows that address."
        ),
        "reply_to_differs": "Reply-To is of another domain than From and MAIL FROM; not for lists.",
        "reply_to_malformed": "Reply-To holds no address.",
        "sender_differs": "Sender is of another domain than From; not for lists.",
        "envelope_differs": "MAIL FROM is of another domain than From; not for lists.",
    },
)
def other_addresses(tx: Transaction, tools: Tools) -> Iterator[Finding]:  # noqa: ARG001
    """Reply-To, Sender or MAIL FROM belong to another site than the author, or answers go to a free mailbox.

    Of the latter, mail of lists gets a third of the weight, and of the others nothing: they write themselves into From, and
    the author into Reply-To, or the other way round.  Half of it is for forms on web sites, whose From shows the address to
    which answers go.
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
        other = [domain for domain in answers.domains if site(domain) != home]
        free = next(filter(is_free, other), "")
        if free:
            shown = any(
                bytes(mailbox).decode("utf-8", "replace") in display_name(message) for mailbox in answers.mailboxes[:5]
            )
            yield Finding("reply_to_free", f"answers go to {free}", LIST_SHARE if by_list else 0.5 if shown else 1.0)
        elif other and not by_list and any(site(domain) != bounces for domain in other):
            yield Finding("reply_to_differs", f"answers go to {other[0]}")
        elif not answers.domains:
            yield Finding("reply_to_malformed", answers.problem)
    if by_list:
        return  # its Sender and envelope are its own (RFC 5322 section 3.6.2)
    sender = message.first(b"sender")
    if sender is not None:
        named = read_mailboxes(sender.value).domains
        if named and site(named[0]) != home:
            yield Finding("sender_differs", f"Sender is of {named[0]}")
    if bounces and bounces != home:
        yield Finding("envelope_differs", f"MAIL FROM is of {bounces}")
