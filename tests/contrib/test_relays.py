"""contrib/relays: what leaves through each provider is signed, and judged by its recipient, as the page says.

A server of the test takes the place of the provider: it wants TLS and a login, signs and passes on as the page tells.
"""

import json
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dkim
import dns.zone
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.contrib.mta import PagePostfix, certificate, replaced
from tests.contrib.page import blocks, configuration, merged, settings, text_for
from tests.dnsserver import DNSServer
from tests.rig.daemon import Daemon
from tests.rig.mail import KeyFiles, message, rsa_pem, zone
from tests.rig.postfix import require_rig
from tests.rig.sink import Delivery, Sink
from tests.rig.sockets import free_port, wait_until
from tests.shared import ROOT

PAGE = ROOT / "contrib/relays/README.md"
BLOCKS = blocks(PAGE)
MAIN, PASSWORD, INI = "/etc/postfix/main.cf", "/etc/postfix/relay_password", "/etc/authmilter/authmilter.ini"
ALICE = "alice@example.org"
FAR = "bob@far.invalid"
PROVIDER_IP = "198.51.100.7"
OWN = "example.org"


@dataclass(frozen=True)
class Provider:
    """What the table says of one."""

    name: str
    host: str
    signs: tuple[tuple[str, str], ...]  # d= and selector of its signatures
    return_path: str  # its domain
    theirs: Mapping[str, str]  # SPF records outside of example.org that the page's records lead to
    keys: tuple[str, ...]  # names of DKIM keys there
    rewrites: bool = False  # Date and Message-ID

    def __str__(self) -> str:
        return self.name


SPF = f"v=spf1 ip4:{PROVIDER_IP} -all"
PROVIDERS = [
    Provider(
        "SendGrid",
        "smtp.sendgrid.net",
        ((OWN, "s1"),),
        "em1234.example.org",
        {"u1234567.wl123.sendgrid.net": SPF},
        ("s1.domainkey.u1234567.wl123.sendgrid.net",),
    ),
    Provider("Mailgun", "smtp.mailgun.org", (("mg.example.org", "smtp"),), "mg.example.org", {"mailgun.org": SPF}, ()),
    Provider(
        "Amazon SES",
        "email-smtp.eu-west-1.amazonaws.com",
        ((OWN, "aaaa"), ("amazonses.com", "ses")),
        "mail.example.org",
        {"amazonses.com": SPF},
        ("aaaa.dkim.amazonses.com", "ses._domainkey.amazonses.com"),
        rewrites=True,
    ),
    Provider(
        "SMTP2GO",
        "mail.smtp2go.com",
        ((OWN, "s123456"),),
        "em123456.example.org",
        {"return.smtp2go.net": SPF},
        ("dkim.smtp2go.net",),
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _rig() -> None:
    require_rig()


def world(provider: Provider, strict: str) -> dict[str, list[str | bytes]]:
    """DNS as the recipient sees it: the records of the page, what they lead to, our own key and p=reject."""
    key = zone()["r._domainkey.sender.example TXT"][0]
    assert isinstance(key, str)
    text = text_for(BLOCKS, provider.name, "/etc/bind/example.org.zone")
    text = text.replace("THE-KEY-THAT-THEY-SHOW", '" "'.join(re.findall(".{1,200}", key.rpartition("p=")[2])))
    parsed = dns.zone.from_text("$TTL 3600\n" + text, origin=OWN, relativize=False, check_origin=False)
    records: dict[str, list[str | bytes]] = {
        f"_dmarc.{OWN} TXT": [f"v=DMARC1; p=reject; {strict}"],
        f"s2026._domainkey.{OWN} TXT": [key],
    }
    for name, _, data in parsed.iterate_rdatas():
        row = f"{name.to_text(omit_final_dot=True)} {dns.rdatatype.to_text(data.rdtype)}"
        value = b"".join(data.strings).decode() if hasattr(data, "strings") else data.to_text().rstrip(".")
        records.setdefault(row, []).append(value)
    for host, spf in provider.theirs.items():
        records[f"{host} TXT"] = [spf]
    for host in provider.keys:
        records[f"{host} TXT"] = [key]
    return records


@dataclass
class Relay:
    """The server in place of a provider; `cert` and `key` are for its TLS."""

    cert: Path
    key: Path
    port: int = field(default_factory=free_port)
    logins: list[tuple[str, str]] = field(default_factory=list)
    taken: list[Delivery] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Relay"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            decode_data=False,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=self.log_in,
        )
        controller.start()
        try:
            yield self
        finally:
            controller.stop()

    def log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's
        content = envelope.content
        assert isinstance(content, bytes)
        self.taken.append(Delivery(envelope.mail_from or "", tuple(envelope.rcpt_tos), content))
        return "250 taken"


@dataclass
class Site:
    """Postfix, authmilter and the relay behind."""

    postfix: PagePostfix
    relay: Relay
    expected_login: tuple[str, str]

    def leave(self, text: bytes, author: str = ALICE) -> None:
        """Send a message to somewhere else, from 127.0.0.1."""
        assert self.postfix.send(text, mail_from=author, rcpts=[FAR]).accepted

    def taken(self, marker: str) -> Delivery:
        """What the provider got, with that marker."""

        def found() -> list[Delivery]:
            return [d for d in self.relay.taken if marker.encode() in d.content]

        wait_until(found, 10, f"{marker} at the provider; {self.postfix.log()[-2000:]}")
        return found()[0]


@contextmanager
def running(
    provider: Provider,
    sink: Sink,
    keys: KeyFiles,
    tmp: Path,
    *,
    sign: bool = True,
    certified: str = "",
    more: str = "",
) -> Iterator[Site]:
    """The lines of the page, with another port and the files at places of the test; the host is found in the chroot's own table.

    `certified` is the name in its certificate, if not its own.
    """
    relay = Relay(*certificate(tmp, certified or provider.host))

    def local(text: str) -> str:
        return replaced(text, {f"[{provider.host}]:587": f"[{provider.host}]:{relay.port}"})

    def place(queue: Path) -> None:
        """Host table, and the login, readable by root alone, by the command of the page."""
        (queue / "etc").mkdir()
        (queue / "etc/hosts").write_text(f"127.0.0.1 {provider.host}\n")
        (queue / "etc/nsswitch.conf").write_text("hosts: files\n")
        table = queue.parent / "relay_password"
        table.write_text(local(text_for(BLOCKS, provider.name, PASSWORD)))
        table.chmod(0o644)
        (command,) = [b.text for b in BLOCKS if b.heading == "Lines for all of them" and not b.file]
        subprocess.run(shlex.split(replaced(command.removeprefix("# "), {PASSWORD: str(table)})), check=True)
        assert table.stat().st_mode & 0o777 == 0o600
        common = replaced(
            text_for(BLOCKS, "Lines for all of them", MAIN),
            {PASSWORD: str(table), "/etc/ssl/certs/ca-certificates.crt": str(relay.cert)},
        )
        postfix.settings.update(settings(common))

    with ExitStack() as stack:
        stack.enter_context(relay.running())
        ini = configuration(
            replaced(text_for(BLOCKS, "Who signs", INI), {"/etc/authmilter/keys/example.org.s2026.pem": str(keys.rsa)})
        )
        nameserver = stack.enter_context(DNSServer({}))
        daemon = stack.enter_context(
            Daemon("inet", merged({"dns": {"nameservers": nameserver.address}}, ini if sign else {}))
        )
        lines = settings(local(text_for(BLOCKS, provider.name, MAIN))) | settings(local(more) if more else "")
        # The rig's own transport would have the last word on where mail goes.
        own = {"smtpd_milters": daemon.address, "default_transport": "smtp"}
        postfix = PagePostfix(sink.port, own | lines, place=place)
        stack.enter_context(postfix)
        login = text_for(BLOCKS, provider.name, PASSWORD).split()[1]
        user, _, password = login.partition(":")
        yield Site(postfix, relay, (user, password))


def passed_on(provider: Provider, content: bytes, *, tracked: bool = False) -> bytes:
    """A message as the provider delivers it."""
    if provider.rewrites:
        content = re.sub(rb"(?m)^(Date|Message-ID): .*\r\n", b"", content)
        content = b"Date: Sun, 1 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@provider.example>\r\n" + content
    if tracked:
        content = content.replace(b"world", b"http://track.example/world")
    content = b"List-Unsubscribe: <mailto:u@provider.example>\r\n" + content
    for domain, selector in reversed(provider.signs):
        fields = [b"from", b"to", b"subject", b"date", b"message-id", b"list-unsubscribe"]
        signature = dkim.sign(content, selector.encode(), domain.encode(), rsa_pem(), include_headers=fields)
        content = signature + content
    return b"Received: from x by y; Sun, 1 Nov 2026 00:00:00 +0000\r\n" + content


def judged(
    provider: Provider, content: bytes, tmp: Path, ip: str = PROVIDER_IP, strict: str = ""
) -> dict[str, list[tuple[str, str]]]:
    """What a recipient's authmilter says: method -> (result, identifier)."""
    with DNSServer(world(provider, strict)) as server:
        (tmp / "recipient.ini").write_text(f"[dns]\nnameservers = {server.address}\n")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "authmilter.cli", "-c", tmp / "recipient.ini", "check-message", "--json"),
                *("--ip", ip, "--helo", "out.provider.example", "--rcpt", FAR),
                *("--mail-from", f"bounce+1@{provider.return_path}", "-"),
            ],
            input=content,
            capture_output=True,
            cwd=ROOT,
            timeout=60,
        )
    results: dict[str, list[tuple[str, str]]] = {}
    for result in json.loads(done.stdout)["results"]:
        results.setdefault(result["method"], []).append((result["result"], result["identifier"]))
    return results


@pytest.mark.parametrize("provider", PROVIDERS, ids=str)
def test_mail_is_signed_by_both_and_passes_by_both_and_with_tracking_by_the_providers(
    provider: Provider, sink: Sink, keys: KeyFiles, tmp_path: Path, marker: str
) -> None:
    with running(provider, sink, keys, tmp_path) as site:
        site.leave(message(marker, ALICE))
        delivery = site.taken(marker)
        assert site.relay.logins == [site.expected_login]
        assert not [d for d in sink.deliveries if marker.encode() in d.content], "nothing went another way"
    results = judged(provider, passed_on(provider, delivery.content), tmp_path)
    assert [domain for _, domain in results["dkim"]] == [*(domain for domain, _ in provider.signs), OWN]
    assert {result for result, _ in results["dkim"]} == {"pass"}
    assert ("pass", provider.return_path) in results["spf"]
    assert results["dmarc"][0][0] == "pass"

    # Tracking of clicks changes the text: ours breaks, and DMARC passes by the signature of the provider; without help of
    # SPF, since somebody forwarded it.
    results = judged(provider, passed_on(provider, delivery.content, tracked=True), tmp_path, "203.0.113.9")
    assert "pass" not in {result for result, _ in results["spf"]}
    assert [result for result, _ in results["dkim"]] == ["pass"] * len(provider.signs) + ["fail"]
    assert results["dmarc"][0][0] == "pass"


def test_without_a_sign_section_the_provider_alone_signs(
    sink: Sink, keys: KeyFiles, tmp_path: Path, marker: str
) -> None:
    provider = PROVIDERS[0]
    with running(provider, sink, keys, tmp_path, sign=False) as site:
        site.leave(message(marker, ALICE))
        delivery = site.taken(marker)
    assert not delivery.values(b"DKIM-Signature")
    results = judged(provider, passed_on(provider, delivery.content), tmp_path)
    assert results["dkim"] == [("pass", OWN)]
    assert results["dmarc"][0][0] == "pass"


def test_ses_without_its_own_mail_from_domain_rests_on_the_signature(
    sink: Sink, keys: KeyFiles, tmp_path: Path, marker: str
) -> None:
    ses = PROVIDERS[2]
    without = Provider(ses.name, ses.host, ses.signs, "amazonses.com", ses.theirs, ses.keys)
    unsigned = judged(
        Provider(ses.name, ses.host, (), "amazonses.com", ses.theirs, ()), message(marker, ALICE), tmp_path
    )
    assert ("pass", "amazonses.com") in unsigned["spf"]
    assert unsigned["dmarc"][0][0] == "fail", "SPF passes and is not aligned"
    signed = judged(without, passed_on(without, message(marker, ALICE)), tmp_path)
    assert signed["dmarc"][0][0] == "pass"


@pytest.mark.parametrize("provider", PROVIDERS, ids=str)
def test_a_server_without_the_right_certificate_is_not_told_the_login(
    provider: Provider, sink: Sink, keys: KeyFiles, tmp_path: Path, marker: str
) -> None:
    with running(provider, sink, keys, tmp_path, certified="other.example") as site:
        site.leave(message(marker, ALICE))
        wait_until(lambda: "status=deferred" in site.postfix.log(), 10, "a deferred message")
        assert "certificate" in site.postfix.log()
        assert not site.relay.logins
        assert not site.relay.taken


def test_mail_of_other_domains_goes_directly(sink: Sink, keys: KeyFiles, tmp_path: Path, marker: str) -> None:
    more = text_for(BLOCKS, "Only mail of your own domain", MAIN)
    with running(PROVIDERS[0], sink, keys, tmp_path, more=more) as site:
        site.leave(message("other" + marker, "a@good.example"), "a@good.example")
        site.leave(message("own" + marker, ALICE))
        site.taken("own" + marker)
        # Its recipient does not exist, so that it ends here; what matters is that nobody was asked to relay it.
        wait_until(lambda: re.search("relay=none.*far.invalid", site.postfix.log()), 10, "the other one tried directly")
        assert len(site.relay.taken) == 1


@pytest.mark.parametrize("provider", PROVIDERS, ids=str)
def test_strict_alignment(provider: Provider, tmp_path: Path, marker: str) -> None:
    content = passed_on(provider, message(marker, ALICE))
    results = judged(provider, content, tmp_path, strict="aspf=s")
    assert results["dmarc"][0][0] == "pass", "by the signature"
    results = judged(provider, content, tmp_path, "203.0.113.9", strict="adkim=s")
    assert results["dmarc"][0][0] == ("fail" if provider.name == "Mailgun" else "pass")


def test_the_ini_is_without_complaint(keys: KeyFiles, tmp_path: Path) -> None:
    file = tmp_path / "authmilter.ini"
    file.write_text(
        replaced(text_for(BLOCKS, "Who signs", INI), {"/etc/authmilter/keys/example.org.s2026.pem": str(keys.rsa)})
    )
    done = subprocess.run(
        [sys.executable, "-m", "authmilter.cli", "-c", file, "check-config"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_every_block_of_the_page_is_used() -> None:
    known = {MAIN, PASSWORD, "/etc/bind/example.org.zone", INI, ""}
    assert {b.file for b in BLOCKS} == known
    headings = [b.heading for b in BLOCKS if b.file == PASSWORD]
    assert headings == [p.name for p in PROVIDERS]
