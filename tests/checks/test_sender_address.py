"""Which reverse-paths are no address, and which claim to be ours."""

from ipaddress import ip_address

import pytest

from authmilter.addresses import parse_path
from authmilter.checks.sender_address import sender_is_local, sender_malformed
from authmilter.evidence import AuthResult, Finding, Result
from authmilter.model import Connection, Envelope, Stage, Transaction
from tests.checks.tools import computed, is_wanted, tools
from tests.checks.verdicts import STRICT, mailbox, reply


def mail_from(argument: bytes) -> Transaction:
    return Transaction(envelope=Envelope(reverse_path=parse_path(argument)))


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(b"<>", id="the null reverse-path"),
        pytest.param(b"<alice@example.org>", id="an address"),
        pytest.param(b"alice@example.org", id="an address without brackets"),
        pytest.param(b'<"alice in chains"@example.org>', id="a quoted local-part"),
        pytest.param(b"<@relay.example:alice@example.org>", id="a source route"),
        pytest.param("<älice@exämple.org>".encode(), id="an internationalised address"),
        pytest.param(b"<alice@[192.0.2.1]>", id="an address literal"),
        pytest.param(b"<alice@[IPv6:2001:db8::1]>", id="an IPv6 literal"),
        pytest.param(b"<alice@[192.000.002.001]>", id="a literal with leading zeros"),
        pytest.param(b"<alice@[IPv6:::ffff:192.000.002.001]>", id="an IPv6 literal with IPv4 in it, and leading zeros"),
        pytest.param(b"<alice@[ipv6:2001:DB8::1]>", id="an IPv6 literal in another case"),
        pytest.param(b"<alice@[Tag:foo]>", id="a literal of another kind"),
        pytest.param(b"<alice@[X-Tag-9:f.o:o]>", id="a literal of another kind with a colon in it"),
        pytest.param(b"<" + b"a" * 200 + b"@example.org>", id="a long local-part, as VERP makes them"),
        pytest.param(b"<" + b"a" * 242 + b"@example.org>", id="256 octets"),
        pytest.param(b"<a..b.@example.org>", id="stray dots, as some carriers give them out"),
    ],
)
def test_a_path(argument: bytes) -> None:
    assert computed(sender_malformed, mail_from(argument), tools()) == []


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"<postmaster>", id="no domain"),
        pytest.param(b"<@example.org>", id="no local-part"),
        pytest.param(b"<alice@>", id="an empty domain"),
        pytest.param(b"<alice@exa mple.org>", id="a blank in the domain"),
        pytest.param(b"<alice@example..org>", id="an empty label"),
        pytest.param(b"<alice@192.0.2.1>", id="an address without its brackets"),
        pytest.param(b"<alice@[192.0.2.256]>", id="a literal that is no address"),
        pytest.param(b"<alice@[2001:db8::1]>", id="an IPv6 literal without its tag"),
        pytest.param(b"<alice@[IPv6:192.0.2.1]>", id="an IPv6 literal of IPv4"),
        pytest.param(b"<alice@[IPv6:::192.0.2.256]>", id="an IPv6 literal with something like IPv4 in it"),
        pytest.param(b"<alice@[IPv6:foo]>", id="an IPv6 literal that is no address"),
        pytest.param(b"<alice@[192.0.2.0001]>", id="a literal with four digits"),
        pytest.param(b"<alice@[:foo]>", id="a literal with an empty tag"),
        pytest.param(b"<alice@[Tag:]>", id="a literal with nothing behind its tag"),
        pytest.param(b"<alice@[Tag-:foo]>", id="a tag with a hyphen at its end"),
        pytest.param(b"<alice@[T_ag:foo]>", id="a tag with an underscore"),
        pytest.param(b"<alice@[Tag:f[oo]>", id="a bracket in a literal"),
        pytest.param(b"<alice@[Tag:f oo]>", id="a blank in a literal"),
        pytest.param(b"<alice@[Tag:f\\oo]>", id="a backslash in a literal"),
        pytest.param(b"<alice@[Tag:f\xc3\xb6o]>", id="a literal that is not ASCII"),
        pytest.param(b"<alice@[mail]>", id="a name as literal"),
        pytest.param(b"<a@b@example.org>", id="two at signs"),
        pytest.param(b"<al ice@example.org>", id="a blank in the local-part"),
        pytest.param(b"<al\0ice@example.org>", id="a NUL"),
        pytest.param(b'<"alice@example.org>', id="a quote without end"),
        pytest.param(b"<<alice@example.org>>", id="brackets in brackets"),
        pytest.param(b"<alice@" + b"a" * 64 + b".org>", id="a label of 64 octets"),
        pytest.param(b"<" + b"a" * 243 + b"@example.org>", id="257 octets"),
        pytest.param(b"<" + b"a" * 100_000 + b"@example.org>", id="100,000 octets"),
        pytest.param(b"<alice@\xff\xfe>", id="no UTF-8"),
    ],
)
def test_no_path(argument: bytes) -> None:
    findings = computed(sender_malformed, mail_from(argument), tools())
    assert [finding.symbol for finding in findings] == ["sender_malformed"]
    assert len(findings[0].detail) <= 4 * 80  # an octet that is no UTF-8 is shown as four characters
    text = reply(mail_from(argument), Stage.MAIL, findings, STRICT)
    assert text.startswith("501 5.1.7 Sender address is malformed")
    assert text.isascii()
    assert text.isprintable()
    assert reply(mail_from(argument), Stage.MAIL, findings) == ""


LOCAL = "[identity]\nlocal_domains = example.net, .example.org\n"


def rcpt(
    sender: str = "a@example.net", spf: Result | None = Result.NONE, client: str = "203.0.113.9", others: int = 0
) -> Transaction:
    results = [AuthResult("iprev", Result.PASS, "mail.test")]
    if spf is not None:
        results.append(AuthResult("spf", spf, sender.rpartition("@")[2]))
    recipients = (mailbox("b@example.net"),) * (1 + others)
    return Transaction(
        Connection(client_ip=ip_address(client)),
        envelope=Envelope(mailbox(sender) if sender else None, recipients),
        results=tuple(results),
    )


@pytest.mark.parametrize(
    ("sender", "is_local"),
    [
        pytest.param("a@example.net", True, id="ours"),
        pytest.param("a@EXAMPLE.NET", True, id="ours in capitals"),
        pytest.param("a@sub.example.net", False, id="below one that has no dot"),
        pytest.param("a@example.org", True, id="one with a dot itself"),
        pytest.param("a@x.y.example.org", True, id="below one with a dot"),
        pytest.param("a@notexample.org", False, id="one that ends like ours"),
        pytest.param("a@example.com", False, id="another's"),
        pytest.param("a@org", False, id="a top-level domain"),
        pytest.param("", False, id="the null reverse-path"),
    ],
)
def test_a_domain_of_ours(sender: str, is_local: bool) -> None:
    expected = [Finding("sender_is_local", sender.rpartition("@")[2].lower())] if is_local else []
    assert computed(sender_is_local, rcpt(sender), tools(config=LOCAL)) == expected


@pytest.mark.parametrize("spf", [None, *Result], ids=str)
def test_spf_pass_alone_makes_it_genuine(spf: Result | None) -> None:
    found = computed(sender_is_local, rcpt(spf=spf), tools(config=LOCAL))
    assert bool(found) is (spf is not Result.PASS)


@pytest.mark.parametrize(
    ("forwarders", "client", "excused"),
    [
        pytest.param("networks = 203.0.113.0/24", "203.0.113.9", True, id="by its address"),
        pytest.param("names = mail.test", "203.0.113.9", True, id="by its name"),
        pytest.param("networks = 203.0.113.0/24", "198.51.100.1", False, id="another client"),
    ],
)
def test_a_forwarder_that_is_named_may_keep_our_envelope(forwarders: str, client: str, excused: bool) -> None:
    given = tools(config=f"{LOCAL}[forwarders]\n{forwarders}\n")
    assert bool(computed(sender_is_local, rcpt(spf=Result.FAIL, client=client), given)) is not excused


def test_every_recipient_is_told_the_same() -> None:
    first, second = (computed(sender_is_local, rcpt(others=n), tools(config=LOCAL)) for n in (0, 1))
    assert first == second != []


def test_it_weighs_unless_the_administrator_refuses_it() -> None:
    found = [Finding("sender_is_local", "example.net")]
    assert reply(rcpt(), Stage.RCPT, found, LOCAL) == ""
    assert reply(rcpt(), Stage.RCPT, found, LOCAL + STRICT) == ""
    assert (
        reply(rcpt(), Stage.RCPT, found, LOCAL + "[scores]\nsender_is_local = reject\n")
        == "550 5.7.1 Mail from example.net is not accepted from this client, please authenticate to send it [ref]"
    )


def test_it_is_wanted_only_where_we_know_our_domains() -> None:
    assert not is_wanted("sender_is_local", "")
    assert is_wanted("sender_is_local", LOCAL)
