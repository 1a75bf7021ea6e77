"""Sockets, nameservers, URLs, domains and names: normal forms, and what is refused."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.config import endpoint
from authmilter.config.endpoint import SocketAddress, StoreUrl, parse_listen, parse_socket, parse_store


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("inet:8891@127.0.0.1", SocketAddress("inet", "127.0.0.1", 8891)),
        ("inet:8891", SocketAddress("inet", "", 8891)),
        ("INET:8891@localhost", SocketAddress("inet", "localhost", 8891)),
        ("inet6:8891@::1", SocketAddress("inet6", "::1", 8891)),
        ("inet6:8891@[2001:DB8::0]", SocketAddress("inet6", "2001:db8::", 8891)),
        ("inet6:8891", SocketAddress("inet6", "", 8891)),
        ("unix:/run/a.sock", SocketAddress("unix", path="/run/a.sock")),
        ("local:/run/a.sock", SocketAddress("unix", path="/run/a.sock")),
        ("/run/a.sock", SocketAddress("unix", path="/run/a.sock")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sockets(text: str, address: SocketAddress) -> None:
    assert parse_socket(text) == address
    assert parse_socket(str(address)) == address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9797", "127.0.0.1", 9797), ("[::1]:9797", "::1", 9797), ("localhost:80", "localhost", 80)],
)
def test_listeners(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == (host, port)


ACCEPTED: list[tuple[Callable[[str], str], str, str]] = [
    (endpoint.nameserver, "127.0.0.1", "127.0.0.1"),
    (endpoint.nameserver, "127.0.0.1:5353", "127.0.0.1:5353"),
    (endpoint.nameserver, "[::1]:53", "[::1]:53"),
    (endpoint.nameserver, "::1", "::1"),
    (endpoint.nameserver, "[::1]", "::1"),
    (endpoint.store_url, "sqlite:", "sqlite:"),
    (endpoint.store_url, "sqlite:/var/x.db", "sqlite:/var/x.db"),
    (endpoint.store_url, "memory:", "memory:"),
    (endpoint.store_url, "redis://host:6379/0", "redis://host:6379/0"),
    (endpoint.store_url, "redis://:secret@[::1]", "redis://:secret@[::1]"),
    (endpoint.store_url, "unix:///run/redis.sock", "unix:///run/redis.sock"),
    (endpoint.store_prefix, "{mail}:", "{mail}:"),
    (endpoint.authserv_id, "mx.example.org", "mx.example.org"),
    (endpoint.authserv_id, "bücher.example", "xn--bcher-kva.example"),
    (endpoint.domain, "Example.ORG", "example.org"),
    (endpoint.domain_or_parent, ".Example.org", ".example.org"),
    (endpoint.signing_pattern, "*", "*"),
    (endpoint.signing_pattern, "*.Example.org", "*.example.org"),
    (endpoint.signing_pattern, "bücher.example", "xn--bcher-kva.example"),
    (endpoint.recipient, "User@Example.org", "user@example.org"),
    (endpoint.recipient, '"User"@Example.org', "user@example.org"),
    (endpoint.recipient, "Example.org", "example.org"),
    (endpoint.selector, "s2026.mail", "s2026.mail"),
    (endpoint.field_name, "List-Id", "List-Id"),
]


@pytest.mark.parametrize(("read", "text", "normal"), ACCEPTED, ids=[f"{r.__name__} {t}" for r, t, _ in ACCEPTED])
def test_normal_forms(read: Callable[[str], str], text: str, normal: str) -> None:
    assert read(text) == normal
    assert read(normal) == normal


REFUSED: list[tuple[Callable[[str], str], str, str]] = [
    (endpoint.socket_name, "8891", "'8891' is not a socket: inet:PORT@ADDRESS, inet6:PORT@ADDRESS or unix:/PATH"),
    (endpoint.socket_name, "inte:1@::", "did you mean 'inet'?"),
    (endpoint.socket_name, "inet:8891@", "has no address behind '@'"),
    (endpoint.socket_name, "inet:0x10@127.0.0.1", "has a port that is not in 0..65535"),
    (endpoint.socket_name, "inet:65536@127.0.0.1", "has a port that is not in 0..65535"),
    (endpoint.socket_name, "inet:127.0.0.1:8891", "has a port that is not in 0..65535"),
    (endpoint.socket_name, "inet:8891@::1", "has an IPv6 address, did you mean inet6?"),
    (endpoint.socket_name, "inet6:8891@127.0.0.1", "has an IPv4 address, did you mean inet?"),
    (endpoint.socket_name, "inet:8891@127.0.0.256", "has an address that can't be one"),
    (endpoint.socket_name, "inet:8891@a b", "has an address that can't be one"),
    (endpoint.socket_name, "unix:run/a.sock", "needs a path that begins with '/'"),
    (endpoint.socket_name, "unix:/" + "x" * 107, "is longer than the 107 octets"),
    (endpoint.listen_name, "9797", "is not ADDRESS:PORT"),
    (endpoint.listen_name, ":9797", "is not ADDRESS:PORT"),
    (endpoint.listen_name, "::1:9797", "is not ADDRESS:PORT"),
    (endpoint.nameserver, "dns.example", "is not an address"),
    (endpoint.nameserver, "127.0.0.1:0", "has a port that is not in 1..65535"),
    (endpoint.nameserver, "[127.0.0.1]:53", "is not an address"),
    (
        endpoint.store_url,
        "sqlte:",
        "redis, rediss, unix, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster, did you mean 'sqlite'?",
    ),
    (endpoint.store_url, "sqlite:state.db", "expected sqlite: or sqlite:/PATH"),
    (endpoint.store_url, "memory:x", "memory: takes nothing behind the colon"),
    (endpoint.store_url, "redis:host", "expected redis://HOST:PORT/N"),
    (endpoint.store_url, "redis://host:0", "has a host or port that can't be one"),
    (endpoint.store_url, "redis://host/one", "the database behind the host must be a number"),
    (endpoint.store_url, "redis://a,b", "expected redis://HOST:PORT/N"),
    (endpoint.store_url, "redis://h/1?ssl_cert_reqs=none", "the database behind the host must be a number"),
    (endpoint.store_url, "redis://ho st", "has a host or port that can't be one"),
    (endpoint.store_url, "redis://h:", "has a host or port that can't be one"),
    (endpoint.store_url, "redis://[::1", "has a host or port that can't be one"),
    (endpoint.store_url, "redis+sentinel://h", "expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/N"),
    (endpoint.store_url, "redis+cluster://h/3", "a cluster has no other database than 0"),
    (endpoint.store_url, "unix:/run/x", "expected unix:///PATH of a Redis socket"),
    (endpoint.store_url, "unix://host/run/x", "expected unix:///PATH of a Redis socket"),
    (endpoint.store_url, "unix:///run/x?x=1", "takes nothing behind the path but ?db=N"),
    (endpoint.store_prefix, "a b", "is not up to 64 letters"),
    (endpoint.store_prefix, "a*", "is not up to 64 letters"),
    (endpoint.authserv_id, "mx example", "is neither a domain nor a token"),
    (endpoint.authserv_id, "mx;spf=pass", "is neither a domain nor a token"),
    (endpoint.domain, "exa mple", "is not a domain"),
    (endpoint.domain_or_parent, "*.example.org", "did you mean '.example.org'?"),
    (endpoint.signing_pattern, ".example.org", "did you mean '*.example.org'?"),
    (endpoint.signing_pattern, "mail.*.org", "is not a domain"),
    (endpoint.recipient, "@example.org", "is neither a domain nor a mailbox"),
    (endpoint.recipient, "user@", "is not a domain"),
    (endpoint.selector, "s..x", "is not a selector"),
    (endpoint.selector, "x" * 64, "is not a selector"),
    (endpoint.field_name, "Sub:ject", "is not the name of a header field"),
]


@pytest.mark.parametrize(("read", "text", "message"), REFUSED, ids=[f"{r.__name__} {t[:30]}" for r, t, _ in REFUSED])
def test_what_is_refused(read: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text)


def test_a_password_in_a_bad_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="host or port") as caught:
        endpoint.store_url("redis://user:hunter2@host:port/0")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:", StoreUrl("sqlite")),
        ("sqlite:/a b.db", StoreUrl("sqlite", path="/a b.db")),
        ("redis://h", StoreUrl("redis", False, (("h", 6379),))),
        ("rediss://u:p%40w@[::1]:7/2", StoreUrl("redis", True, (("::1", 7),), "", 2, "u", "p@w")),
        ("redis://:p@a@h/", StoreUrl("redis", False, (("h", 6379),), "", 0, "", "p@a")),
        ("redis+sentinel://a,b:1/mail/3", StoreUrl("sentinel", False, (("a", 26379), ("b", 1)), "", 3, service="mail")),
        ("rediss+cluster://u@a,[::1]/", StoreUrl("cluster", True, (("a", 6379), ("::1", 6379)), "", 0, "u")),
        ("unix://u:p@/run/r.sock?db=4", StoreUrl("unix", path="/run/r.sock", database=4, user="u", password="p")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stores(text: str, url: StoreUrl) -> None:
    assert parse_store(text) == url
    assert not url.password or url.password not in url.shown


READERS = {read.__name__: read for read, _, _ in REFUSED}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(text=st.text(min_size=1))
def test_any_text_has_a_stable_normal_form_or_is_refused(read: Callable[[str], str], text: str) -> None:
    try:
        normal = read(text)
    except ValueError:
        return
    assert read(normal) == normal
