"""Every section and option of the configuration: the only list there is.

Parsing, defaults, bounds, the sample file, authmilter.conf(5) and `show-config` all come from these dataclasses.
The docstring of a class is the introduction of its section in the manual.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from authmilter.config import dnslist, endpoint
from authmilter.config.option import (
    FilePath,
    Limits,
    Mode,
    Names,
    Networks,
    Seconds,
    Size,
    Threshold,
    WeightedNames,
    Workers,
    option,
    shown,
    suggestion,
)
from authmilter.config.option import Weight as Weight  # noqa: PLC0414  it belongs to [scores], which has no class

T = TypeVar("T")
OnTemperror = Literal["", "accept", "defer"]


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})  # hashable, and so fit for a plain default, only since Python 3.12


_LOOPBACK: Networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True)
class Milter:
    """The socket that the MTA connects to, and the processes behind it."""

    socket: Names = option(
        ("inet:8891@127.0.0.1",),
        "Where to listen: inet:PORT@ADDRESS, inet6:PORT@ADDRESS or unix:PATH; several by comma.",
        reload=False,
        each=endpoint.socket_name,
    )
    engine: Literal["native", "libmilter"] = option(
        "native",
        "Which implementation of the milter protocol serves: native, or libmilter (through pymilter), the "
        "reference: it takes one socket only, keeps each worker on one processor, closes connections that send packets over 64 KB or unknown commands, waits "
        "40 ms a message over TCP, and can be crashed by whoever may connect to its socket.",
        reload=False,
    )
    user: str = option("", "User to become after binding, when started as root.", reload=False)
    group: str = option("", "Group to become; empty: the user's own.", reload=False)
    workers: Workers = option(Workers(0), "Processes that serve; auto: one per core.", at_most=256, reload=False)
    socket_mode: Mode = option(Mode(0o660), "Mode of a unix socket.", reload=False)
    socket_group: str = option(
        "",
        "Group of a unix socket: the one of the MTA, postfix for instance.  Whoever starts the daemon must be root or belong to it.  "
        "Empty: left as it is, which in a setgid folder is the group of that.",
        reload=False,
    )
    backlog: int = option(512, "Connections that may wait to be accepted.", at_least=1, at_most=65535, reload=False)
    max_connections: int = option(
        1000,
        "Connections that a worker serves at once, fewer where it may not open enough files.",
        at_least=1,
        at_most=100_000,
    )
    max_waiting: int = option(
        1000,
        "Connections beyond max_connections that wait, in each worker, until one of those ends; libmilter has no such queue.",
        at_least=0,
        at_most=100_000,
    )
    on_overload: Literal["disconnect", "tempfail"] = option(
        "disconnect",
        "What a client hears when even the places to wait are taken: disconnect answers 421 and ends the SMTP session, "
        "tempfail answers 451 to its commands (to MAIL, with Postfix).  Either way it tries again later.  Postfix has a "
        "421 text of its own, ours is in its log.",
    )
    drain_timeout: Seconds = option(
        Seconds(30.0), "How long open connections are served after SIGTERM.", at_least=0, at_most=3600
    )
    max_message_size: Size = option(
        Size(50 * 1024 * 1024), "Body octets that are examined; what is beyond is passed on unread.", at_least=1024
    )
    scan_size: Size = option(
        Size(8 * 1024 * 1024),
        "Body octets that checks of content look at; a worker keeps 256M of all messages at once, besides the first 128K of each, and cuts what is beyond.",
        at_least=0,
        at_most=64 * 1024 * 1024,
    )
    command_timeout: Seconds = option(
        Seconds(25.0),
        "Time for the answer to one command; checks that take longer end as temperror.  Keep it under the MTA's own "
        "limit (milter_command_timeout of Postfix: 30s).",
        at_least=0.1,
        at_most=600,
    )
    message_timeout: Seconds = option(
        Seconds(60.0),
        "Time for the verdict on a whole message; checks that take longer end as temperror.  Keep it under the MTA's "
        "own limit (milter_content_timeout of Postfix: 300s).",
        at_least=0.1,
        at_most=3600,
    )
    idle_timeout: Seconds = option(
        Seconds(7200.0), "A connection on which the MTA says nothing for this long is closed.", at_least=1
    )
    on_error: Literal["tempfail", "accept"] = option(
        "tempfail", "What is answered when authmilter itself fails in a way that no check can be blamed for."
    )


@dataclass(frozen=True)
class Identity:
    """Who we are."""

    authserv_id: str = option(
        "",
        "Our name in Authentication-Results (RFC 8601 section 2.5); empty: the MTA's own name, {j}.",
        each=endpoint.authserv_id,
    )
    local_domains: Names = option(
        (),
        "Domains that this site receives mail for; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


@dataclass(frozen=True)
class Network:
    """Which clients are ours."""

    internal: Networks = option(_LOOPBACK, "Mail from here is outbound: signed, not verified.")
    trusted_relays: Networks = option((), "Our own mail servers in front of this one: their results are trusted.")


@dataclass(frozen=True)
class Dns:
    """How questions to the DNS are asked."""

    nameservers: Names = option(
        (),
        "Resolvers as ADDRESS or ADDRESS:PORT ([ADDRESS]:PORT for IPv6); empty: the system's.",
        each=endpoint.nameserver,
    )
    timeout: Seconds = option(Seconds(3.0), "Time for one query, retries included.", at_least=0.05, at_most=60)
    client_lookups: int = option(
        100,
        "Questions that the sessions of one client (an IPv4 address, or a /64 of IPv6) may have under way in a worker, "
        "of 1000 in all; more of them wait.  A client whose names are served slowly can't hold up the others.",
        at_least=10,
        at_most=1000,
    )
    cache_size: int = option(
        20000,
        "Answers kept by each worker; 0 keeps none, nor any result made from one.",
        at_least=0,
        at_most=10_000_000,
    )
    max_ttl: Seconds = option(Seconds(86400.0), "An answer is kept for its TTL, but no longer than this.", at_least=0)
    negative_ttl: Seconds = option(
        Seconds(300.0), "The same for answers that say that there is nothing (RFC 2308).", at_least=0
    )
    servfail_ttl: Seconds = option(
        Seconds(5.0), "For how long a failed question is not asked again (RFC 9520).", at_least=0, at_most=300
    )
    test_name: str = option(
        "com",
        "When questions fail in a row, the address of this name is asked for every 15s, until there is an answer, if only that "
        "it has none.  While that fails too, it is not some sender's domain that is broken but the resolvers, and status and "
        "authmilter_dns_down say so.  Without the Internet: a name that is in no cache; empty: none.",
        each=endpoint.domain,
    )
    check_keys: bool = option(
        True,
        "Compare the keys that sign with their records, at the start, after a reload and hourly, for status and "
        "authmilter_signing_keys; mail is signed whatever is found.  no: where these resolvers don't see what the world sees.",
    )


@dataclass(frozen=True)
class Policy:
    """From evidence to a decision.

    The preset gives every symbol its weight or action; [scores] changes single ones.  Weights are added up at the end
    of the message and compared with the thresholds here.

    The preset observe only looks at inbound mail: it has no thresholds, and takes the action from every check that has one
    by default, such as [greylist], [connections], [sender_rate] and [recipients].  What [scores], [access] and the lists of
    [dnsbl NAME] ask for by themselves is done all the same, and so is what concerns outbound mail, as by [outbound_limits],
    [recipient_domain] and [submission].

    Mail that comes in and is accepted gets the fields X-Spam-Flag, which is YES or NO, X-Spam-Score, and X-Spam-Status, which
    names the symbols; those that it had are removed.  To mark a message is to say YES, so that a filter of the mailbox, such
    as Sieve, can file it as junk.  Subject and text stay as they are, since signatures would break.  What is held waits in
    the queue of the MTA: of Postfix, `postqueue -p` shows it with a `!`, `postsuper -H ID` delivers it, `postsuper -d ID`
    deletes it.
    """

    preset: Literal["observe", "balanced", "strict"] = option(
        "balanced", "Defaults of thresholds and symbols: see [scores], and OUTCOMES in authmilter.conf(5)."
    )
    enforce: bool = option(True, "no: decide, log and count, but always accept.")
    tag: Threshold = option(5.0, "Score from which on mail is marked as spam: X-Spam-Flag: YES; empty: off.")
    quarantine: Threshold = option(None, "Score from which on mail is held by the MTA; empty: off.")
    reject: Threshold = option(12.0, "Score from which on mail is refused; empty: off.")
    skip: Names = option(
        (),
        "Checks that are not made, by their names in [scores].  content: all that judge header fields, text, links and "
        "attachments by rules, for whoever has another filter for that; clamd, spamd, rspamd, lists and the classifier are "
        "asked all the same.",
    )


@dataclass(frozen=True)
class RecipientPolicy:
    """The options of [policy] for one recipient domain or mailbox; what is not set comes from [policy].

    What a mailbox sets goes before what its domain sets, and that before [policy]; a preset of its own starts afresh,
    without the thresholds of [policy].  [scores example.org] does the same for weights and actions.

    Where policies differ: on a connection [policy] alone decides.  At HELO and MAIL, where nobody knows to whom the mail
    will go, a client is refused only if every policy says so.  At RCPT each recipient is accepted or refused by his own.
    The message itself has one verdict, the mildest of those of its recipients, so that nobody loses mail over another's
    policy: whoever writes to a recipient with a mild policy gets the same mail to all others that he names beside it.
    """

    preset: Literal["", "observe", "balanced", "strict"] = option("", "See [policy].")
    enforce: bool | None = option(None, "See [policy].")
    tag: Threshold = option(None, "See [policy].")
    quarantine: Threshold = option(None, "See [policy].")
    reject: Threshold = option(None, "See [policy].")
    given: frozenset[str] = frozenset()  # not an option: names of those that the administrator set in this section


@dataclass(frozen=True)
class Iprev:
    """Reverse DNS of the client, confirmed by a forward lookup (RFC 8601 section 3)."""

    enabled: bool = option(True, "Switch the method on.")
    max_names: int = option(10, "Names of one address that are looked at.", at_least=1, at_most=100)


@dataclass(frozen=True)
class Spf:
    """Is the client authorised by the domain of HELO and MAIL FROM (RFC 7208)?"""

    enabled: bool = option(True, "Switch the method on.")
    helo: bool = option(True, "Check the HELO identity too (RFC 7208 section 2.3).")
    timeout: Seconds = option(
        Seconds(20.0), "Time for all lookups of one evaluation (RFC 7208 section 4.6.4).", at_least=0.1, at_most=300
    )
    lookup_limit: int = option(10, "Terms that ask the DNS (RFC 7208 section 4.6.4).", at_least=1, at_most=100)
    void_limit: int = option(2, "Lookups without answer (RFC 7208 section 4.6.4).", at_least=0, at_most=100)
    explanation: bool = option(
        False,
        "Quote in the refusal what the domain itself says about it (exp=, RFC 7208 section 6.2).  The text is a "
        "stranger's, and is shown as such.",
    )
    skip: Networks = option(
        (),
        "Clients whose mail is not checked by SPF: forwarders and secondary mail exchangers, which send in the name of "
        "others.  The result is none; DKIM and DMARC still count.",
    )
    on_temperror: OnTemperror = option(
        "", "accept or defer (451 4.7.24) when the DNS fails; empty: as the preset says."
    )


@dataclass(frozen=True)
class Dkim:
    """Are the signatures of the message valid (RFC 6376, 8301, 8463)?"""

    enabled: bool = option(True, "Switch the method on.")
    max_signatures: int = option(
        10, "Signatures that are verified; more are counted, not checked.", at_least=1, at_most=100
    )
    min_key_bits: int = option(
        1024,
        "RSA keys below this are refused (RFC 8301 section 3.2 forbids fewer than 1024).",
        at_least=1024,
        at_most=4096,
    )
    clock_skew: Seconds = option(
        Seconds(300.0), "How far a signature may lie in the future, or be past its expiry.", at_least=0, at_most=86400
    )
    on_temperror: OnTemperror = option("", "accept or defer (451 4.7.5) when the DNS fails; empty: as the preset says.")


@dataclass(frozen=True)
class Arc:
    """Who vouches for the authentication before forwarding (RFC 8617).

    A valid chain proves who forwarded, not that he tells the truth: only sealers that are named here count.  ARC is on
    its way to become Historic; verify it where you know the forwarder, and don't build on it.
    """

    enabled: bool = option(True, "Switch the method on.")
    trusted_sealers: Names = option(
        (),
        "Domains (d= of ARC-Seal) whose recorded results excuse a DMARC failure after forwarding; a leading dot takes "
        "subdomains in.  Every sealer since the one that saw the pass must be listed.",
        each=endpoint.domain_or_parent,
    )
    seal: Literal["no", "relayed", "always"] = option(
        "no",
        "Add an ARC set of ours to inbound mail: relayed: if a recipient is outside of [identity] local_domains, so that "
        "it will be forwarded; always: to all of it.",
    )
    seal_domain: str = option("", "Domain that seals (d=).", each=endpoint.domain)
    seal_selector: str = option("", "Selector of the sealing key.", each=endpoint.selector)
    seal_key_file: FilePath = option(FilePath(""), "RSA private key that seals, PEM, readable by its owner alone.")


@dataclass(frozen=True)
class Dmarc:
    """Is the author's domain authenticated, and what does it ask for if not (RFC 9989)?"""

    enabled: bool = option(True, "Switch the method on.")
    discovery: Literal["treewalk", "psl"] = option(
        "treewalk",
        "How the Organizational Domain is found.  RFC 9989 walks the DNS, and so do we; psl compares with the public "
        "suffix list of RFC 7489 besides, and only logs and counts where that would differ.",
    )
    on_temperror: OnTemperror = option("", "accept or defer (451 4.7.1) when the DNS fails; empty: as the preset says.")


@dataclass(frozen=True)
class DmarcOverride:
    """What is done for one author domain instead of what its record asks for, on failure.

    [dmarc override gmail.com] holds for the domain and what is below it; the most specific section wins.  Where the
    domain publishes no record, DMARC does not apply, and neither does this.
    """

    policy: Literal["none", "quarantine", "reject"] = option("none", "The policy that is applied when DMARC fails.")


@dataclass(frozen=True)
class Forwarders:
    """Hosts that forward mail of others to us: a DMARC or SPF failure that forwarding explains is excused.

    Only the outcome changes, never a result.  It is excused only if the failure looks like forwarding: SPF failed for an
    envelope that the forwarder left alone, or a signature of the author domain was broken on the way, or it is list
    mail under the list's own envelope.  Whoever can send through such a host can make a forgery look so: name those alone
    that refuse forgeries themselves.  Authentication-Results then says policy.override.  [forwarders example.org] is for mail to that recipient
    domain or mailbox alone, besides what stands here.
    """

    networks: Networks = option((), "Clients that forward.")
    names: Names = option(
        (),
        "Names of clients that forward, confirmed by reverse and forward DNS; a leading dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )
    dkim: Names = option(
        (),
        "Domains (d=) whose valid signature shows that the mail came by them, such as that of a mailing list; a leading "
        "dot takes subdomains in.",
        each=endpoint.domain_or_parent,
    )


@dataclass(frozen=True)
class Allow:
    """Author domains or mailboxes whose mail is accepted whatever its score: [allow example.org].

    It goes before every action too, also that for refused attachments, but for malware.  An entry must say what proves that
    the mail is theirs, since anybody can write any From.
    """

    requires: Literal["", "dmarc", "dkim", "spf"] = option(
        "dmarc",
        "What must pass for the author domain: dmarc; dkim: a signature of the very domain; spf: MAIL FROM of the very "
        "domain; empty: nothing, which takes networks or insecure.",
    )
    networks: Networks = option((), "Clients that it must come from.")
    insecure: bool = option(False, "yes: believe the From alone.  Anybody can then use this entry.")


@dataclass(frozen=True)
class Submission:
    """Rules for mail of authenticated users."""

    from_must_match: Literal["off", "domain", "login"] = option(
        "off",
        "What the address in From must match: off: nothing; domain: the domain of the login; login: the login itself.  "
        "map_file grants more.",
    )
    map_file: FilePath = option(
        FilePath(""),
        "Lines `LOGIN: ADDRESS, @DOMAIN, ...` that say what else a login may put into From; `*` stands for any login.",
    )


@dataclass(frozen=True)
class Sign:
    """One section per signing domain: [sign example.org], [sign *.example.org] for its subdomains, [sign *]
    for the rest.

    The most specific section wins.  The author domain in From chooses, also for the null reverse-path.
    """

    selector: str = option("", "Selector of the RSA key.", each=endpoint.selector)
    key_file: FilePath = option(FilePath(""), "RSA private key, PEM (PKCS#1 or PKCS#8), readable by its owner alone.")
    ed25519_selector: str = option(
        "", "Selector of the Ed25519 key, for a second signature (RFC 8463).", each=endpoint.selector
    )
    ed25519_key_file: FilePath = option(
        FilePath(""), "Ed25519 private key, PEM (PKCS#8) or the base64 seed that dknewkey writes."
    )
    domain: str = option(
        "", "Sign as this domain (d=) instead of the one of the section or author.", each=endpoint.domain
    )
    subdomains: Literal["", "no", "own", "parent"] = option(
        "",
        "What becomes of subdomains of the author domain that have no section: no: not signed here; own: signed with their own "
        "name as d=; parent: signed with the section's domain.  Empty: own where the section has a wildcard, else no.",
    )
    canonicalization: Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] = option(
        "relaxed/relaxed", "Of header and body (RFC 6376 section 3.4)."
    )
    headers: Names = option(
        (
            "From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type",
            "Content-Transfer-Encoding", "Content-ID", "Content-Description", "Resent-Date", "Resent-From",
            "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Message-ID", "In-Reply-To", "References", "List-Id",
            "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner",
            "List-Archive", "Autocrypt",
        ),
        "Fields that are signed, each as often as it is there (RFC 6376 section 5.4.1, RFC 8058 section 4).",
        each=endpoint.field_name,
    )  # fmt: skip
    oversign: Names = option(
        (
            "From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type",
            "Content-Transfer-Encoding", "In-Reply-To", "References", "List-Unsubscribe", "List-Unsubscribe-Post",
        ),
        "Fields that are signed once more than they are there, so that none can be added (RFC 6376 section 8.15).  A message "
        "without Date or Message-ID may still get them: mail servers add what is missing.",
        each=endpoint.field_name,
    )  # fmt: skip
    expire: Seconds = option(Seconds(0.0), "Signatures expire after this (x=); 0: never.", at_least=0)


@dataclass(frozen=True)
class DnsList:
    """What blocklists and welcomelists have in common."""

    zone: str = option("", "Domain below which the list answers.", each=dnslist.zone, example="list.example.org")
    score: Weight = option(0.0, "Weight of what is listed.")
    answers: WeightedNames = option(
        (),
        "Answers that count, as 127.0.0.2, 127.0.0.[2..11] or 127.0.[0..255].[2;4..8], and 127.0.0.[&8] for all with that bit; empty: all from 127.0.0.2 to "
        "127.255.254.255.  With = and a number or action an answer weighs on its own, under a symbol of its own, to which "
        "its octets behind 127.0.0 are appended: 127.0.0.10 = 1.5 makes NAME_10, a range NAME_2to11, a bit NAME_bit8, any octet x.  "
        "Of several that fit, the first holds; what has several symbols has all of their weights.",
        each=dnslist.answer,
    )
    key_file: FilePath = option(
        FilePath(""),
        "File whose first line is put before the zone as a label, as lists for customers want it; readable by its owner alone.",
    )


@dataclass(frozen=True)
class ClientList(DnsList):
    """What lists of clients have in common."""

    ipv6: bool = option(True, "Ask for clients with IPv6 addresses too.")


@dataclass(frozen=True)
class Dnsbl(ClientList):
    """A DNS blocklist (RFC 5782) under a name of your choice: [dnsbl zen].

    A client that is listed gets the symbol dnsbl_zen, which weighs what `score` says unless [scores] has it.  What [scores]
    gives dnsbl_zen goes for all answers of the list, also those with a weight of their own, unless it names their symbols
    too.  Nobody is refused before MAIL: whoever logs in may come from anywhere.  All lists are asked at once, when the client
    connects; the clients of [networks] are not looked up.

    A list that answers beyond 127.0.0.0/8 or in 127.255.255.0/24 (such as: you ask too often, or through a public resolver), or lists
    127.0.0.1 and so probably the world, lists nobody: it is switched off, logged and counted in authmilter_dnslist_off,
    and tried again every five minutes.  One that fails to answer five times in a row is left alone for a minute.
    """

    score: Weight = option(
        3.0, "Weight of a client that is listed, or an action: reject, tempfail, quarantine, tag, discard."
    )
    url: str = option(
        "",
        "Where a client that is refused can read more, shown in the reply; {ip} stands for its address, as in "
        "https://list.example.org/query/{ip}.",
        each=endpoint.web_url,
    )


@dataclass(frozen=True)
class Dnswl(ClientList):
    """A DNS welcomelist: as [dnsbl NAME], with the symbol dnswl_NAME, in favour of whoever is on it."""

    score: Weight = option(
        -2.0, "Weight of a client that is listed, or accept, which nothing found against it can outdo."
    )


@dataclass(frozen=True)
class Uribl(DnsList):
    """A DNS list of domains to which spam leads, under a name of your choice: [uribl dbl].

    A message with a link to a domain that is listed gets the symbol uribl_dbl, once, whatever it weighs.  All lists are asked
    at once at the end of the message, for the domains as far as they were registered; where anybody puts up pages below a domain,
    for the name below it.  [uri_lists] says for how many, and for which not.  Answers, weights and keys are as in
    [dnsbl NAME], and so is when a list is switched off; where a list of clients must not list 127.0.0.1, this must not list
    the domain INVALID (RFC 5782 section 5).  SURBL and URIBL refuse a question by 127.0.0.1, which is no listing.
    """

    score: Weight = option(
        3.0, "Weight of a message with a link that is listed, or an action: reject, tempfail, quarantine, tag, discard."
    )
    addresses: bool = option(
        False,
        "Ask for links to IPv4 addresses too, octets reversed, as SURBL has them.  Spamhaus' DBL has none, and wants no question.",
    )
    test: str = option(
        "test",
        "Domain that the list has for tests, by which it is seen to be alive (RFC 5782 section 5: TEST).  Of SURBL it is "
        "surbl-org-permanent-test-point.com, of URIBL test.uribl.com, of Spamhaus' DBL dbltest.com.",
        each=endpoint.domain,
    )


@dataclass(frozen=True)
class Store:
    """State that outlives a message: what [greylist], [reputation], [correspondents], [outbound_limits], [connections] and
    [sender_rate] remember.  They are off by default, and nothing is remembered then; that the store can be had is proven at
    start all the same.

    One machine needs no server for it: its workers share a file.  Several machines that should know the same share a
    Redis or Valkey.  A store that fails, or is slow, costs no mail: what needs it does without, which is logged and
    counted, until it works again.

    An SQLite file that turns out to be damaged is renamed, state.db to state.db.corrupt, and a new one is begun without what
    was known; the log has an error.  One that does not even begin as an SQLite file does is left alone, since `url` may name
    the file of somebody else by mistake, unless a state.db-wal beside it shows that it was ours.  authmilter does not start
    then: move the file away, or name another.
    """

    url: str = option(
        "sqlite:",
        "sqlite: (state.db in the state directory), sqlite:/PATH, memory: (each worker its own, gone when it ends), "
        "redis://USER@HOST:PORT/N, rediss:// (TLS), unix:///PATH?db=N, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/N, "
        "redis+cluster://HOST:PORT,HOST:PORT; rediss+sentinel and rediss+cluster with TLS.",
        reload=False,
        each=endpoint.store_url,
    )
    password_file: FilePath = option(
        FilePath(""), "File whose first line is the password of the server, readable by its owner alone.", reload=False
    )
    ca_file: FilePath = option(
        FilePath(""), "Certificates, PEM, of who may vouch for the server; empty: the system's.", reload=False
    )
    prefix: str = option(
        "authmilter:",
        "What the keys on a server begin with.  Sites that share a server, but no state, take different ones.",
        reload=False,
        each=endpoint.store_prefix,
    )
    timeout: Seconds = option(
        Seconds(1.0),
        "An operation that takes longer has failed, and the store with it: nobody waits for it again until it is known to work.",
        at_least=0.01,
        at_most=30,
        reload=False,
    )
    connect_timeout: Seconds = option(Seconds(3.0), "The same for opening it.", at_least=0.01, at_most=30, reload=False)
    max_size: Size = option(
        Size(2 * 1024**3),
        "Most octets that the SQLite file may have, at about 110 for an entry; 0: as many as the disk has.",
        at_least=0,
        reload=False,
    )
    max_entries: int = option(
        100_000,
        "Entries that each worker keeps with memory:; the least recently used goes first.",
        at_least=100,
        at_most=100_000_000,
        reload=False,
    )
    hash_addresses: bool = option(
        False,
        "Keep keys that name people or their machines only as a hash under a secret that is in the store.  State can then "
        "be forgotten by its key, but not listed readably.  `authmilter state --subject` finds what it can make the key of "
        "again, which leaves out the triplets of [greylist].  A change forgets what is there.",
        reload=False,
    )


ALARM_EVENTS = ("outbound_limit", "dns_list_off", "store_down")


def _alarm_event(text: str) -> str:
    if text.lower() not in ALARM_EVENTS:
        listed = ", ".join(ALARM_EVENTS)
        raise ValueError(f"{shown(text)} is not one of: {listed}{suggestion(text.lower(), ALARM_EVENTS)}")
    return text.lower()


@dataclass(frozen=True)
class Alarm:
    """Who is told of what can't wait for a look at the log: outbound_limit, a limit of [outbound_limits] is used up, told
    once per window; dns_list_off, a DNS list answers nonsense and is left out; store_down, the state store has failed.

    Each alarm is a warning in the log besides, whatever stands here, and is counted by authmilter_alarms_total.  What can't
    be told in time, or is one too many, is not told again.
    """

    command: str = option(
        "",
        "Program to run, with its arguments parted as a shell would, but without a shell, and as the user that the daemon has "
        "become.  It finds AUTHMILTER_EVENT, AUTHMILTER_SUBJECT (such as `login alice@example.org`) and AUTHMILTER_TEXT, a "
        "sentence, in its environment, and nothing on standard input; what it prints goes nowhere.  Parts of it come from "
        "strangers: put them in quotes.",
        each=endpoint.command,
    )
    webhook: str = option(
        "",
        "http or https URL to which a JSON object is posted, with event, subject, text, time and host.  Success is a status "
        "of 2xx; redirects are not followed.  The path, which may be a secret, is not logged.",
        each=endpoint.web_url,
    )
    events: Names = option((), "The events that are told to them; empty: all.", each=_alarm_event)
    timeout: Seconds = option(
        Seconds(10.0), "Time for the command, which is then killed, and for the webhook.", at_least=0.1, at_most=60
    )


@dataclass(frozen=True)
class LoginLimits:
    """Limits of one login instead of those of [outbound_limits], such as that of a bulk mailer: [outbound_limits news@example.org].

    What is not set here is not limited.  What such a login sends counts neither for its domain nor for its client.
    """

    messages: Limits = option((), "Messages in a time, as in 5000/1h.")
    recipients: Limits = option((), "Recipients in a time.")
    recipients_per_message: int = option(0, "Recipients of one message; 0: any number.", at_least=0, at_most=9999)


@dataclass(frozen=True)
class Metrics:
    """Prometheus, health and readiness over HTTP."""

    listen: str = option(
        "127.0.0.1:9797",
        "ADDRESS:PORT of /metrics, /healthz, /readyz and /status; empty: none.",
        reload=False,
        each=endpoint.listen_name,
    )


@dataclass(frozen=True)
class Log:
    """One line per message, on standard error."""

    format: Literal["text", "json"] = option("text", "text is key=value; json has the same keys.")
    level: Literal["debug", "info", "warning", "error"] = option("info", "Least level that is logged.")


@dataclass(frozen=True)
class Config:
    """The effective configuration; one immutable object, handed to everything that needs it."""

    milter: Milter = field(default_factory=Milter)
    identity: Identity = field(default_factory=Identity)
    networks: Network = field(default_factory=Network)
    dns: Dns = field(default_factory=Dns)
    policy: Policy = field(default_factory=Policy)
    recipient_policies: Mapping[str, RecipientPolicy] = field(default_factory=_nothing)  # domain or mailbox, lower case
    scores: Mapping[str, Weight] = field(default_factory=_nothing)  # only what the administrator set
    recipient_scores: Mapping[str, Mapping[str, Weight]] = field(default_factory=_nothing)  # as recipient_policies
    iprev: Iprev = field(default_factory=Iprev)
    spf: Spf = field(default_factory=Spf)
    dkim: Dkim = field(default_factory=Dkim)
    arc: Arc = field(default_factory=Arc)
    dmarc: Dmarc = field(default_factory=Dmarc)
    dmarc_overrides: Mapping[str, DmarcOverride] = field(default_factory=_nothing)  # author domain, A-labels
    forwarders: Forwarders = field(default_factory=Forwarders)
    recipient_forwarders: Mapping[str, Forwarders] = field(default_factory=_nothing)  # as recipient_policies
    allow: Mapping[str, Allow] = field(default_factory=_nothing)  # author domain or mailbox
    submission: Submission = field(default_factory=Submission)
    sign: Mapping[str, Sign] = field(default_factory=_nothing)  # domain or pattern, lower-case A-labels
    dnsbl: Mapping[str, Dnsbl] = field(default_factory=_nothing)  # name, as dnswl
    dnswl: Mapping[str, Dnswl] = field(default_factory=_nothing)
    uribl: Mapping[str, Uribl] = field(default_factory=_nothing)
    store: Store = field(default_factory=Store)
    alarm: Alarm = field(default_factory=Alarm)
    metrics: Metrics = field(default_factory=Metrics)
    log: Log = field(default_factory=Log)
    checks: Mapping[str, Any] = field(default_factory=_nothing)  # section of a check -> its options dataclass
    login_limits: Mapping[str, LoginLimits] = field(default_factory=_nothing)  # login, by endpoint.login_key
    policy_set: frozenset[str] = frozenset()  # options of [policy] that the administrator set: presets fill the others

    def of(self, declared: type[T]) -> T:
        """The options of the check that declares them in that dataclass."""
        return next((options for options in self.checks.values() if type(options) is declared), None) or declared()
