"""iprev: has the client a name by reverse DNS that leads back to it (RFC 8601 sections 2.7.3 and 3)?"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from authmilter.addresses import to_ascii_domain
from authmilter.config.schema import Iprev
from authmilter.errors import DnsTempError
from authmilter.evidence import AuthResult, Result
from authmilter.interfaces import Resolver
from authmilter.model import Connection


async def check(connection: Connection, dns: Resolver, options: Iprev) -> AuthResult:
    """Look up the client's names, then their addresses; the identifier is the first name that has the client's.

    No name at all is a permerror, names of which none leads back a fail, and temperror is what a later attempt may
    turn into a pass.  Names that are no host names count as names that do not lead back.
    """
    ip = connection.client_ip
    if ip is None:
        return AuthResult("iprev", Result.NONE, reason="the client's address is not known")
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    shown, pointer = _texts(ip)
    properties = {"policy.iprev": shown}
    try:
        answer = await dns.query(pointer, "PTR")
    except DnsTempError:
        return AuthResult("iprev", Result.TEMPERROR, "", properties, f"no answer from the DNS for the name of {shown}")
    if not answer.records:
        return AuthResult("iprev", Result.PERMERROR, "", properties, f"{shown} has no name")
    names = [name for record in answer.records[: options.max_names] if (name := to_ascii_domain(record))]
    rdtype = "A" if isinstance(ip, IPv4Address) else "AAAA"
    for name in names[1:]:
        dns.prefetch(name, rdtype)  # so that all of them wait at the same time
    unanswered = ""
    for name in names:
        try:
            addresses = (await dns.query(name, rdtype)).records
        except DnsTempError:
            unanswered = name
            continue
        # The resolver writes addresses in the usual way, so that nearly always a look at the text is enough.
        if shown in addresses or any(_is_address(text, ip) for text in addresses):
            return AuthResult("iprev", Result.PASS, name, properties, f"{shown} is {name}")
    if unanswered:
        return AuthResult(
            "iprev", Result.TEMPERROR, "", properties, f"no answer from the DNS for the address of {unanswered}"
        )
    reason = f"{shown} is not an address of {names[0]}" if names else f"no name of {shown} is a host name"
    return AuthResult("iprev", Result.FAIL, "", properties, reason)


@lru_cache(maxsize=1024)
def _texts(ip: IPv4Address | IPv6Address) -> tuple[str, str]:
    """The address as text, and the name of its PTR record (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return str(ip), ip.reverse_pointer


def _is_address(text: str | bytes, ip: IPv4Address | IPv6Address) -> bool:
    try:
        return ip_address(str(text)) == ip
    except ValueError:
        return False
