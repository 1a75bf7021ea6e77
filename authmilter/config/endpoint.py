"""Texts of the configuration that name an end of a connection or a thing of the mail world, and their normal forms.

Each function takes the text as written, returns its normal form, and raises ValueError with a message for people:
they are what `option(each=...)` asks for.
"""

import re
import shlex
import string
from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from authmilter.addresses import to_ascii_domain
from authmilter.config.option import shown, suggestion
from authmilter.model import Mailbox

_SOCKET_KINDS = ("inet", "inet6", "unix", "local")
_STORE_SCHEMES = (
    *("sqlite", "memory", "redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_LONGEST_LOGIN = 320  # characters
_LONGEST_PATH = 107  # sockaddr_un of Linux, without the final NUL
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`{|}~")  # RFC 2045 section 5.1
_FIELD_NAME = frozenset(map(chr, range(33, 127))) - {":"}  # RFC 5322 section 3.6.8
_SELECTOR = frozenset(string.ascii_letters + string.digits + "-_")


class SocketAddress(NamedTuple):
    """Where the milter listens: `family` is inet, inet6 or unix.

    `host` is an address or a name, "" for every address of the machine; `path` belongs to unix alone.
    """

    family: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.path}"
        return f"{self.family}:{self.port}@{self.host}" if self.host else f"{self.family}:{self.port}"


def parse_socket(text: str) -> SocketAddress:
    """``inet:PORT@HOST``, ``inet6:PORT@HOST``, ``inet:PORT``, ``unix:/PATH``, ``local:/PATH`` or ``/PATH``."""
    kind, colon, rest = text.partition(":")
    if text.startswith("/"):
        kind, rest = "unix", text
    elif not colon or kind.lower() not in _SOCKET_KINDS:
        hint = suggestion(kind.lower(), _SOCKET_KINDS) if colon else ""
        raise ValueError(f"{shown(text)} is not a socket: inet:PORT@ADDRESS, inet6:PORT@ADDRESS or unix:/PATH{hint}")
    kind = kind.lower()
    if kind in ("unix", "local"):
        if not rest.startswith("/"):
            raise ValueError(f"{shown(text)} needs a path that begins with '/'")
        if len(rest.encode()) > _LONGEST_PATH:
            raise ValueError(f"{shown(text)} is longer than the {_LONGEST_PATH} octets that a unix socket may have")
        return SocketAddress("unix", path=rest)
    port, at, host = rest.partition("@")
    if at and not host:
        raise ValueError(f"{shown(text)} has no address behind '@'")
    return SocketAddress(kind, _host(text, host, kind), _port(text, port))


def socket_name(text: str) -> str:
    """Normal form of a milter socket, see `parse_socket`."""
    return str(parse_socket(text))


def parse_listen(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT`` or ``[ADDRESS]:PORT``, as host (an address or a name) and port."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise ValueError(f"{shown(text)} is not ADDRESS:PORT, such as 127.0.0.1:9797 or [::1]:9797")
    return _host(text, host, "inet6" if host.startswith("[") else "inet"), _port(text, port)


def listen_name(text: str) -> str:
    """Checks ``ADDRESS:PORT``, see `parse_listen`."""
    parse_listen(text)
    return text


def nameserver(text: str) -> str:
    """Checks ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; a name is refused, since who should resolve it?"""
    if _is_address(text):
        return text
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if text.startswith("[") and text.endswith("]") and _is_address(text[1:-1]):
        return text[1:-1]
    if not colon or not _is_address(host[1:-1] if bracketed else host) or (":" in host) is not bracketed:
        raise ValueError(f"{shown(text)} is not an address with or without port, such as 127.0.0.1:5353 or [::1]:53")
    if not _port(text, port):
        raise ValueError(f"{shown(text)} has a port that is not in 1..65535")
    return text


class StoreUrl(NamedTuple):
    """`[store] url`, taken apart.

    `kind` is sqlite, memory, redis, unix, sentinel or cluster; `path` belongs to sqlite ("" is the default) and unix;
    `service` is the name of a master that sentinels know.
    """

    kind: str
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    service: str = ""

    @property
    def shown(self) -> str:
        """Where it is, without secrets, for log and messages."""
        if self.kind in ("sqlite", "unix"):
            return f"{self.kind}:{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.kind}:{hosts}" + (f"/{self.service}" if self.service else "")


def store_url(text: str) -> str:
    """Checks the form of `[store] url`, see `parse_store`."""
    parse_store(text)
    return text


def parse_store(text: str) -> StoreUrl:
    """Take `[store] url` apart.  The messages don't show it, since it may hold a password."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in _STORE_SCHEMES:
        hint = suggestion(scheme, _STORE_SCHEMES) if colon else ""
        raise ValueError(f"scheme {shown(scheme)} is not one of: {', '.join(_STORE_SCHEMES)}{hint}")
    if scheme == "memory":
        if rest:
            raise ValueError("memory: takes nothing behind the colon")
        return StoreUrl("memory")
    if scheme == "sqlite":
        if rest and (not rest.startswith("/") or rest.startswith("//")):
            raise ValueError("expected sqlite: or sqlite:/PATH")
        return StoreUrl("sqlite", path=rest)
    if scheme == "unix":
        return _store_socket(rest)
    server, plus, kind = scheme.partition("+")
    kind = kind if plus else "redis"
    form = _STORE_FORMS[kind]
    if not rest.startswith("//"):
        raise ValueError(f"expected {scheme}{form}")
    where, _, behind = rest[2:].partition("/")
    user, password, names = _credentials(where)
    hosts = tuple(_store_host(name, 26379 if kind == "sentinel" else 6379) for name in names.split(","))
    if not hosts[0][0] or (kind == "redis" and len(hosts) > 1):
        raise ValueError(f"expected {scheme}{form}")
    service = ""
    if kind == "sentinel":
        service, _, behind = behind.partition("/")
        if not _STORE_NAME.fullmatch(service):
            raise ValueError(f"expected {scheme}{form}")
    if kind == "cluster" and behind.strip("/0"):
        raise ValueError("a cluster has no other database than 0")
    return StoreUrl(kind, server == "rediss", hosts, "", _database(behind.strip("/")), user, password, service)


def store_prefix(text: str) -> str:
    """Checks `[store] prefix`."""
    if not _STORE_PREFIX.fullmatch(text):
        raise ValueError(f"{shown(text)} is not up to 64 letters, digits and any of _ . : - {{ }}")
    return text


_STORE_FORMS = {
    "redis": "://HOST:PORT/N",
    "sentinel": "://HOST:PORT,HOST:PORT/SERVICE/N",
    "cluster": "://HOST:PORT,HOST:PORT",
}
_STORE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_STORE_PREFIX = re.compile(r"[A-Za-z0-9_.:{}-]{0,64}")


def _store_socket(rest: str) -> StoreUrl:
    where, _, query = rest[2:].partition("?")
    userinfo, slash, path = where.partition("/")
    user, password, host = _credentials(userinfo)
    if not rest.startswith("//") or not slash or not path or host:
        raise ValueError("expected unix:///PATH of a Redis socket")
    if query and not query.startswith("db="):
        raise ValueError("takes nothing behind the path but ?db=N")
    return StoreUrl("unix", path="/" + unquote(path), database=_database(query[3:]), user=user, password=password)


def _credentials(text: str) -> tuple[str, str, str]:
    """User, password and what is behind the @."""
    userinfo, _, rest = text.rpartition("@")
    user, _, password = userinfo.partition(":")
    return unquote(user), unquote(password), rest


def _store_host(text: str, default: int) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    if host.startswith("[") and host.endswith("]") and _is_address(host[1:-1]):
        host = host[1:-1]
    elif not _STORE_NAME.fullmatch(host):
        raise ValueError("has a host or port that can't be one")
    if text.endswith(":") or (port and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535)):
        raise ValueError("has a host or port that can't be one")
    return host, int(port or default)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise ValueError("the database behind the host must be a number")
    return int(text or 0)


def authserv_id(text: str) -> str:
    """A domain, or another token (RFC 8601 section 2.2: an authserv-id is a value, RFC 2045 section 5.1)."""
    if text.isascii():
        if not _TOKEN.issuperset(text):
            raise ValueError(f"{shown(text)} is neither a domain nor a token (RFC 2045 section 5.1)")
        return text
    return domain(text)


def domain(text: str) -> str:
    """A domain as lower-case A-label."""
    name = to_ascii_domain(text)
    if not name:
        raise ValueError(f"{shown(text)} is not a domain")
    return name


def domain_or_parent(text: str) -> str:
    """The same; a leading dot stands for its subdomains too."""
    if text.startswith("*."):
        raise ValueError(f"{shown(text)} is not a domain, did you mean {text[1:]!r}?")
    return "." + domain(text[1:]) if text.startswith(".") else domain(text)


def signing_pattern(text: str) -> str:
    """The NAME of [sign NAME]: a domain, ``*.DOMAIN`` or ``*``."""
    if text == "*":
        return text
    if text.startswith("."):
        raise ValueError(f"{shown(text)} is not a domain, did you mean {'*' + text!r}?")
    return "*." + domain(text[2:]) if text.startswith("*.") else domain(text)


def recipient(text: str) -> str:
    """The NAME of [policy NAME]: a domain or a mailbox, lower case."""
    local_part, at, name = text.rpartition("@")
    if at and (not local_part or "@" in local_part or any(c.isspace() for c in local_part)):
        raise ValueError(f"{shown(text)} is neither a domain nor a mailbox")
    return Mailbox(local_part.encode(), b"", domain(name)).address if at else domain(name)


def selector(text: str) -> str:
    """A DKIM selector: labels joined by dots (RFC 6376 section 3.1)."""
    labels = text.split(".")
    if len(text) > 190 or not all(0 < len(label) < 64 and _SELECTOR.issuperset(label) for label in labels):
        raise ValueError(f"{shown(text)} is not a selector: letters, digits and '-', in labels joined by dots")
    return text


def login_key(text: str) -> str:
    """What stands for a SASL login: the same, however its user wrote it.

    Case, blanks around it and compatible forms of characters (NFKC) make no difference, as to the servers that prepare it by
    RFC 4013 (SASLprep), or compare it in a database that does so.
    """
    if text.isascii():
        return text.lower().strip()
    if len(text) > _LONGEST_LOGIN:  # no user's, and the time of normalize() may grow by the square of it
        return text.casefold().strip()
    return normalize("NFKC", normalize("NFKC", text).casefold()).strip()


def login(text: str) -> str:
    """A SASL login by its `login_key`."""
    if len(text) > _LONGEST_LOGIN or not text.isprintable() or any(c.isspace() for c in text):
        raise ValueError(f"{shown(text)} is not a login: up to {_LONGEST_LOGIN} printable characters without blanks")
    return login_key(text)


def command(text: str) -> str:
    """Checks a program with its arguments, parted as a shell would."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} can't be parted into words: {error}") from None
    if not words or not words[0].startswith("/") or not text.isprintable():
        raise ValueError(f"{shown(text)} is not a program by its full path, such as /usr/local/bin/alarm --loud")
    return text


def web_url(
    text: str,
    schemes: Collection[str] = ("http", "https"),
    form: str = "expected https://HOST/PATH or http://HOST:PORT/PATH",
) -> str:
    """Checks an http or https URL.  The messages, of which `form` is one, don't show it, since it may hold a secret."""
    try:
        url = urlsplit(text)
        usable = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:  # brackets without an address in them, a port beyond 65535
        raise ValueError(form) from None
    if not usable or not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError(form)
    if "@" in url.netloc:
        raise ValueError("has a user before its host; only the path can hold a secret")
    return text


def field_name(text: str) -> str:
    """The name of a header field."""
    if not _FIELD_NAME.issuperset(text):
        raise ValueError(f"{shown(text)} is not the name of a header field")
    return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _host(text: str, host: str, family: str) -> str:
    if family == "inet6" and host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host:
        return ""
    try:
        address = ip_address(host)
    except ValueError:
        # A name, to be resolved when the socket is opened; digits and dots alone were meant as an address.
        if not to_ascii_domain(host) or not host.isascii() or host.rpartition(".")[2].isdecimal():
            raise ValueError(f"{shown(text)} has an address that can't be one") from None
        return host
    if (address.version == 6) is not (family == "inet6"):
        other = "inet" if family == "inet6" else "inet6"
        raise ValueError(f"{shown(text)} has an IPv{address.version} address, did you mean {other}?")
    return str(address)


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{shown(text)} has a port that is not in 0..65535")
    return int(port)
