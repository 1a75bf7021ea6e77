"""Where an answer to the sender would go: who wants one does not write from a domain that no mail can reach."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

from authmilter.check import Tools, Words, check
from authmilter.config.option import option
from authmilter.errors import DnsTempError
from authmilter.evidence import Finding
from authmilter.model import Stage, Transaction
from authmilter.verdict import Action

NULL_MX = ("0 .",)  # RFC 7505 section 3: beside another MX it is none
MOST_HOSTS = 3  # mail exchangers whose addresses are asked for
MOST_RECORDS = 20  # of one answer that are read: 64 KB hold thousands

# Where no server on the Internet is (RFC 6890).  Not those of `ipaddress`, which change with the version of Python, and
# hold the networks for documentation (RFC 5737) and benchmarks (RFC 2544): harmless in mail, and the addresses of
# every test bed.
_UNROUTED = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.168.0.0/16", "224.0.0.0/3"),
        ),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291 section 2.4, as far as it is given out


@dataclass(frozen=True)
class SenderDomain:
    """Can the domain of MAIL FROM receive mail (RFC 5321 section 5.1)?

    The questions go to the DNS while the client sends on.  Address literals and the null reverse-path have no domain.
    """

    enabled: bool = option(True, "Switch the check on.")


_REMEDY = "please use an address that can be answered"


def _words(detail: str, text: str) -> Words:
    return Words(detail, lambda _, domain: text.format(domain))


def _unanswered(tx: Transaction, _: str) -> str:
    path = tx.envelope.reverse_path
    domain = path.domain if path is not None else ""
    return f"Sender domain {domain} could not be looked up for now, please try again later"


def _is_known_good(tx: Transaction, tools: Tools) -> bool:
    """Is there nothing to ask, or are the answers known, and as they usually are?"""
    path = tx.envelope.reverse_path
    if path is None or not path.domain:
        return True
    mx = tools.dns.known(path.domain, "MX")
    if mx is None or not mx.records or mx.records == NULL_MX:
        return False
    hosts = mail_hosts(path.domain, mx.records)
    answer = tools.dns.known(hosts[0], "A") if hosts else None
    return answer is not None and bool(answer.records) and is_routed(str(answer.records[0]))


@check(
    Stage.MAIL,
    scores={
        "sender_domain_nonexistent": 2.0,
        "sender_domain_temperror": 0.0,  # what the pipeline makes of a DnsTempError
        "sender_domain_unreachable": 0.2,
        "sender_null_mx": 4.0,
        "sender_mx_private": 1.5,
    },
    meanings={
        "sender_domain_nonexistent": "The domain of MAIL FROM does not exist.",
        "sender_domain_temperror": "Its DNS does not answer for now.",
        "sender_domain_unreachable": "It has neither MX nor address.",
        "sender_null_mx": "It says that it accepts no mail (RFC 7505).",
        "sender_mx_private": "All of its mail servers have private addresses.",
    },
    strict={
        "sender_domain_nonexistent": Action.REJECT,
        "sender_domain_temperror": Action.TEMPFAIL,
        "sender_null_mx": Action.REJECT,
    },
    replies={
        # RFC 5321 section 2.3.5: a domain can be resolved to MX or address records.
        "sender_domain_nonexistent": _words("1.8", f"Sender domain {{}} does not exist, {_REMEDY}"),
        "sender_domain_temperror": Words("1.8", _unanswered),
        "sender_domain_unreachable": _words("1.8", f"Sender domain {{}} has no mail server, {_REMEDY}"),
        "sender_mx_private": _words("1.8", f"Mail servers of sender domain {{}} can't be reached, {_REMEDY}"),
        # RFC 7505 section 4.2
        "sender_null_mx": _words("7.27", f"Sender domain {{}} accepts no mail (null MX), {_REMEDY}"),
    },
    options=SenderDomain,
    unless=_is_known_good,
)
async def sender_domain(tx: Transaction, tools: Tools) -> AsyncIterator[Finding]:
    """The domain of MAIL FROM does not exist, or accepts no mail, or has its mail servers where nobody can reach them."""
    path = tx.envelope.reverse_path
    if path is None or not path.domain:
        return
    domain, dns = path.domain, tools.dns
    mx = await dns.query(domain, "MX")
    if mx.records == NULL_MX:
        yield Finding("sender_null_mx", domain)
        return
    questions = [(host, rdtype) for host in mail_hosts(domain, mx.records) for rdtype in ("A", "AAAA")]
    exists, addresses = mx.exists, 0
    for i, (host, rdtype) in enumerate(questions):
        try:
            answer = await dns.query(host, rdtype)
        except DnsTempError:
            if mx.records:
                return  # that server may be a good one, and the domain exists
            raise
        if any(is_routed(str(address)) for address in answer.records[:MOST_RECORDS]):
            return
        exists = exists or answer.exists
        addresses += len(answer.records)
        if i == 0:  # nearly all have a good one in the first place; for others it may not take a round trip each
            for question in questions[1:]:
                dns.prefetch(*question)
    if addresses:
        yield Finding("sender_mx_private", domain)
    else:
        yield Finding("sender_domain_unreachable" if exists else "sender_domain_nonexistent", domain)


def mail_hosts(domain: str, mx: tuple[bytes, ...] | tuple[str, ...]) -> tuple[str, ...]:
    """The hosts that take mail for a domain, by preference, as many as we look at (RFC 5321 section 5.1).

    `mx` are the records of the answer.
    """
    # RFC 5321 section 5.1: without MX the domain is its own
    return _ranked(mx[:MOST_RECORDS]) if mx else (domain,)


@lru_cache(maxsize=1024)  # what is kept is bounded: 20 records of at most 260 octets
def _ranked(mx: tuple[bytes, ...] | tuple[str, ...]) -> tuple[str, ...]:
    ranked = []
    for record in mx:
        preference, _, host = str(record).partition(" ")
        if host != ".":
            ranked.append((int(preference), host))
    return tuple(host for _, host in sorted(ranked)[:MOST_HOSTS])


@lru_cache(maxsize=4096)
def is_routed(address: str) -> bool:
    """May a server on the Internet have that address?"""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            return ip in _GLOBAL_UNICAST
        ip = ip.ipv4_mapped
    return not any(ip in network for network in _UNROUTED)
