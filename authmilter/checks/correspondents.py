"""Known correspondents: people whom our users wrote to, and who now write themselves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from authmilter.addresses import author
from authmilter.check import Tools, check, record
from authmilter.config.option import Seconds, option
from authmilter.evidence import Finding, Result
from authmilter.identities import MAX_LOCAL_PART, address_of, dkim_domains, result_of, spf_domain
from authmilter.interfaces import Increment, Space
from authmilter.model import Direction, Mailbox, Message, Stage, Transaction
from authmilter.verdict import Action, Ruling

CORRESPONDENT = Space(
    "correspondents",
    personal=True,
    help="who was written to, and by which domain of ours",
    keys=("{subject} {domain}",),
)

MAX_RECORDED = 50  # recipients of a message of ours that are remembered
MAX_DOMAINS = 10  # domains of the recipients that are looked for

_BULK = (b"bulk", b"list", b"junk")


@dataclass(frozen=True)
class Correspondents:
    """Mail from people whom our users wrote to counts in favour, and is never greylisted.

    Every recipient of an accepted outbound message is remembered together with the domain of our author.  Automatic
    replies, bounces, mail that this machine itself submits, and mail to lists or in bulk make nobody known.  Who writes
    to that domain is known only if it is really him: DMARC passes, or SPF or DKIM passes for the very domain in From.
    For greylisting, when only the envelope is there, it is the reverse-path, and SPF must pass.  An SPF pass that anyone
    may have, such as by +all, does not do for either, nor does DMARC that rests on it alone.

    The store then holds who writes to whom: see [store] hash_addresses.
    """

    enabled: bool = option(False, "Switch it on.")
    ttl: Seconds = option(
        Seconds(180 * 86400.0),
        "Who was not written to for this long is forgotten.",
        at_least=86400,
        at_most=3650 * 86400,
    )


def key(correspondent: Mailbox, domain: str) -> str:
    """The key under which a correspondent of our domain is kept; "" for an address that nobody can have."""
    if not (correspondent.domain and domain and 0 < len(correspondent.local_part) <= MAX_LOCAL_PART):
        return ""
    return f"{address_of(correspondent)} {domain}"


@check(Stage.EOM, scores={"known_correspondent": -2.0}, options=Correspondents)
async def correspondents(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The author is authenticated, and one of our users wrote to him."""
    found = author(tx.message)
    if found.problem or len(found.mailboxes) != 1:
        return
    mailbox = found.mailboxes[0]
    if not _is_authenticated(tx, mailbox.domain):
        return
    domains = list(dict.fromkeys(path.domain for path in tx.envelope.forward_paths))[:MAX_DOMAINS]
    keys = {domain: kept for domain in domains if (kept := key(mailbox, domain))}
    if not keys:
        return
    entries = await tools.store.get_many([(CORRESPONDENT, kept) for kept in keys.values()])
    for domain, entry in zip(keys, entries, strict=True):
        if entry is not None:
            yield Finding("known_correspondent", f"written to by {domain}")
            return


def _is_authenticated(tx: Transaction, domain: str) -> bool:
    sender, signers = spf_domain(tx), dkim_domains(tx)
    # The null reverse-path has SPF of the HELO name, which DMARC does not count either (RFC 9989 section 4.4.2).
    by_spf = tx.envelope.reverse_path is not None and sender == domain
    if by_spf or domain in signers:
        return True
    dmarc = result_of(tx, "dmarc")
    if dmarc is None or dmarc.result is not Result.PASS:
        return False
    return any(found in dmarc.aligned for found in (sender, *signers))


@record("correspondents")
async def remember_recipients(tx: Transaction, ruling: Ruling | None, tools: Tools) -> None:
    """Remember whom an accepted message of ours went to."""
    envelope = tx.envelope
    if (
        ruling is None
        or ruling.verdict.action is not Action.ACCEPT
        or envelope.direction is not Direction.OUTBOUND
        or envelope.local_submission
        or envelope.reverse_path is None
        or _is_automatic(tx.message)
    ):
        return
    found = author(tx.message)
    # Replies go to the author.
    domain = found.domains[0] if found.domains and not found.problem else envelope.reverse_path.domain
    keys = dict.fromkeys(kept for path in envelope.forward_paths[:MAX_RECORDED] if (kept := key(path, domain)))
    if keys:
        # A count that fades lives on from its latest increment, and many take one round trip.
        ttl = tools.options.ttl
        await tools.store.incr_many([Increment(CORRESPONDENT, kept, ttl, half_life=ttl) for kept in keys])


def _is_automatic(message: Message) -> bool:
    """Was it sent without having this recipient in mind?  A spammer must not become known by a vacation notice."""
    automatic = message.first(b"auto-submitted")  # RFC 3834 section 5
    if automatic is not None and automatic.value.partition(b";")[0].strip().lower() != b"no":
        return True
    if b"list-id" in message.index or b"list-unsubscribe" in message.index:
        return True
    precedence = message.first(b"precedence")
    return precedence is not None and precedence.value.strip().lower() in _BULK
