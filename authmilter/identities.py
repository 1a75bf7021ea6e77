"""Under which names state remembers whom a message comes from.

Only what can't be forged counts: the client's address, and domains for which SPF or DKIM passed.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from authmilter.addresses import to_ascii_domain
from authmilter.evidence import AuthResult, Result
from authmilter.model import Mailbox, Transaction

MAX_LOCAL_PART = 64  # octets; RFC 5321 section 4.5.3.1.1


@lru_cache(maxsize=4096)
def network(address: IPv4Address | IPv6Address) -> str:
    """The network that stands for its client: an IPv4 /24, or the /64 that one customer gets of IPv6."""
    if address.version == 4:
        return f"{str(address).rpartition('.')[0]}.0/24"
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def site(address: IPv4Address | IPv6Address) -> str:
    """The network that one party may well have to itself: an IPv4 /24, or the /48 that a whole site gets of IPv6.

    Whoever has a /48 has 65,536 networks of the other kind.
    """
    if address.version == 4:
        return network(address)
    return f"{IPv6Address(int(address) >> 80 << 80)}/48"


def client_network(tx: Transaction) -> str:
    """The same for the client of the transaction, "" if its address is not known."""
    address = tx.connection.client_ip
    return "" if address is None else network(address)


def result_of(tx: Transaction, method: str) -> AuthResult | None:
    """The first result of a method, None if it did not run."""
    for result in tx.results:
        if result.method == method:
            return result
    return None


def confirmed_name(tx: Transaction) -> str:
    """The client's name as confirmed by reverse and forward DNS, lower case; "" if there is none.

    Where iprev has no answer, or is off, it is the name that the MTA verified.
    """
    iprev = result_of(tx, "iprev")
    if iprev is None or iprev.result in (Result.TEMPERROR, Result.NONE):
        return to_ascii_domain(tx.connection.client_name)
    return iprev.identifier if iprev.result is Result.PASS else ""


def spf_domain(tx: Transaction) -> str:
    """The domain of MAIL FROM if SPF passed for it, else ""; that of HELO for the null reverse-path.

    A pass that anyone may have (``+all``) names nobody: one success under it would speak for all hosts of a botnet.
    """
    spf = result_of(tx, "spf")
    return spf.identifier if spf is not None and spf.result is Result.PASS and not spf.for_anyone else ""


def dkim_domains(tx: Transaction) -> tuple[str, ...]:
    """The domains (d=) with a valid signature, each once, in the order of the signatures."""
    passed = [r.identifier for r in tx.results if r.method == "dkim" and r.result is Result.PASS and r.identifier]
    return tuple(dict.fromkeys(passed))


def address_of(mailbox: Mailbox) -> str:
    """A mailbox as a key has it: `Mailbox.address` without blanks; a long local-part is cut.

    What should be a domain and is none stands there as it was sent, cut too.
    """
    local_part, _, domain = mailbox.address.rpartition("@")
    local_part = local_part[:MAX_LOCAL_PART].replace(" ", "_")
    domain = domain or mailbox.raw_domain[:MAX_LOCAL_PART].decode("utf-8", "replace").lower().replace(" ", "_")
    return f"{local_part}@{domain}" if domain else local_part
