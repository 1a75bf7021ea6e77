"""From a file to a Config, or to all of its problems at once."""

import os
from dataclasses import replace
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from authmilter.check import all_checks, known_symbols
from authmilter.config import crosscheck, ini
from authmilter.config.option import FilePath, options_of
from authmilter.config.schema import Config, Milter, Sign
from authmilter.errors import ConfigError
from authmilter.interfaces import Space
from authmilter.verdict import Action


def problems(text: str, *, check_files: bool = False) -> list[str]:
    """What is wrong with `text`, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        ini.load("a.ini", text, check_files=check_files)
    return [problem.removeprefix("a.ini:") for problem in caught.value.problems]


def warnings(text: str, *, check_files: bool = False) -> list[str]:
    """What is doubtful in `text`, without the name of the file."""
    loaded = ini.load_with_origins("a.ini", text, check_files=check_files)
    return [warning.removeprefix("a.ini:") for warning in loaded.warnings]


def test_nothing_is_the_built_in_defaults() -> None:
    assert ini.load(None) == ini.load(None, "") == replace(Config(), checks=ini.load(None).checks)


def test_the_contract_s_own_example_is_read() -> None:
    config = ini.load(
        "a.ini",
        """
[milter]
socket = inet:8891@127.0.0.1          ; or unix:/run/authmilter/authmilter.sock, inet6:8891@::1; several by comma
engine = native                       ; or libmilter (pymilter)
user =                                ; dropped to after binding, when started as root
group =
drain_timeout = 30s
socket_mode = 0660
socket_group =
workers = auto                        ; processes; auto = one per core

[identity]
authserv_id =                         ; empty: the MTA's {j}
local_domains =                       ; domains this site receives mail for; a leading dot takes subdomains in

[networks]
internal = 127.0.0.0/8, ::1           ; mail from here is outbound: signed, not verified
trusted_relays =                      ; our own MXs in front: their results are trusted

[dns]
nameservers =                         ; 127.0.0.1:5353, [::1]:53; empty: the system's
timeout = 3s                          ; one query, retries included
cache_size = 20000

[policy]
preset = balanced                     ; observe | balanced | strict
enforce = yes                         ; no: decide, log and count, but always accept
tag = 5.0
quarantine =                          ; empty: off
reject = 12.0

[scores]                              ; symbol = weight, or an action: accept reject tempfail quarantine discard
spf_fail = 4.0
dnsbl_zen = reject

[policy example.org]                  ; the same options, for mail to this recipient domain or mailbox
reject = 8.0

[spf]
[dkim]
[dmarc]
[arc]
[iprev]
[sign example.org]                    ; one section per signing domain
selector = s2026
key_file = /etc/authmilter/keys/example.org.s2026.pem
ed25519_selector =
ed25519_key_file =

[store]
url = sqlite:                         ; state.db in the state directory

[metrics]
listen = 127.0.0.1:9797               ; /metrics /healthz /readyz /status

[log]
format = text                         ; text | json
level = info
""",
        check_files=False,
    )
    defaults = ini.load(None)
    for section in ini.SECTIONS:
        assert getattr(config, section) == getattr(defaults, section)
    assert config.scores == {"spf_fail": 4.0, "dnsbl_zen": Action.REJECT}
    assert config.policy_set == {"preset", "enforce", "tag", "quarantine", "reject"}
    assert list(config.recipient_policies) == ["example.org"]
    assert config.recipient_policies["example.org"].reject == 8.0
    assert config.recipient_policies["example.org"].given == {"reject"}
    assert config.sign == {
        "example.org": Sign(selector="s2026", key_file=FilePath("/etc/authmilter/keys/example.org.s2026.pem"))
    }


def test_names_are_compared_without_case_and_kept_in_normal_form() -> None:
    config = ini.load(
        None,
        "[Milter]\nSocket = local:/run/x, inet6:1@[::1]\nENGINE = Native\n[IDENTITY]\nlocal_domains = Example.ORG\n .Bücher.example\n"
        "[policy Post@Example.ORG]\nTag = 3\n[sign *.Example.ORG]\nselector = S1\nkey_file = /k\n[SCORES]\nSPF_Fail = Reject",
        check_files=False,
    )
    assert config.milter == Milter(socket=("unix:/run/x", "inet6:1@::1"))
    assert config.identity.local_domains == ("example.org", ".xn--bcher-kva.example")
    assert config.recipient_policies["post@example.org"].tag == 3.0
    assert config.sign["*.example.org"].selector == "S1"
    assert config.scores == {"spf_fail": Action.REJECT}


def test_a_threshold_set_to_nothing_is_not_the_same_as_one_not_set() -> None:
    config = ini.load(None, "[policy]\ntag =\n[policy a.example]\nreject =\n[policy b.example]\n")
    assert config.policy_set == {"tag"}
    assert config.recipient_policies["a.example"].given == {"reject"}
    assert config.recipient_policies["b.example"].given == frozenset()


ONE_PROBLEM = [
    ("[millter]", "1: [millter] unknown section 'millter', did you mean 'milter'?"),
    ("[sing example.org]", "1: [sing example.org] unknown section 'sing example.org', did you mean 'sign'?"),
    ("[DEFAULT]", "1: [DEFAULT] unknown section 'DEFAULT'"),
    ("[sign]", "1: [sign] needs a name, as in [sign example.org]"),
    ("[dkim example.org]", "1: [dkim example.org] [dkim] takes no name"),
    ("[policy exa mple]", "1: [policy exa mple] 'exa mple' is not a domain"),
    ("[sign .example.org]", "1: [sign .example.org] '.example.org' is not a domain, did you mean '*.example.org'?"),
    ("[milter]\n\nengin = native", "3: [milter] unknown option 'engin', did you mean 'engine'?"),
    ("[milter]\nenforce = no", "2: [milter] unknown option 'enforce', it belongs to [policy]"),
    ("[milter]\nxyzzy = no", "2: [milter] unknown option 'xyzzy'"),
    ("[milter]\nengine = natve", "2: [milter] engine: 'natve' is not one of: native, libmilter, did you mean 'native'?"),
    ("[dns]\ntimeout = 3x", "2: [dns] timeout: '3x' is not a duration such as 500ms 5s 10m 36h 30d"),
    ("[dns]\ntimeout = 10m", "2: [dns] timeout: '10m' is too large, the most is 1m"),
    ("[dns]\ntimeout = 3s\n  cache_size = 1", "2: [dns] timeout: has several lines; an indented line continues the one above it"),
    ("[dns]\ntimeout = 1s\ntimeout = 2s", "3: [dns] timeout: is already set on line 2"),
    ("[dns]\n[spf]\n[DNS]", "3: [dns] section is already on line 1"),
    ("[sign a.example]\n[sign A.Example.]", "2: [sign a.example] section is already on line 1"),
    ("[scores]\nspf_fial = 1", "2: [scores] unknown symbol 'spf_fial', did you mean 'spf_fail'?"),
    (
        "[scores]\nspf_fail = rejct",
        "2: [scores] spf_fail: 'rejct' is neither a number nor one of: accept, discard, quarantine, reject, tag, tempfail, did you mean 'reject'?",
    ),
    ("[scores]\nspf_fail = continue", "2: [scores] spf_fail: 'continue' is neither a number nor one of: accept, discard, quarantine, reject, tag, tempfail"),
    ("[scores]\nspf_fail = 1e9", "2: [scores] spf_fail: '1e9' is beyond 1000"),
    ("[networks]\ninternal = 10.0.0.1/8", "2: [networks] internal: '10.0.0.1/8' has bits set beyond its length, did you mean '10.0.0.0/8'?"),
    ("[milter]\nsocket =", "2: [milter] socket: is empty; without one no MTA can connect"),
    ("[milter]\nsocket = unix:/a, /a", "2: [milter] socket: 'unix:/a' is there twice"),
    ("[milter]\nsocket = inet:1, inet6:1\nengine = libmilter", "2: [milter] socket: engine = libmilter takes one socket only"),
    ("[policy]\ntag = 5\nreject = 3", "2: [policy] tag: 5 is over reject = 3, so it would never be reached"),
    ("[policy a.example]\nquarantine = 5\nreject = 3", "2: [policy a.example] quarantine: 5 is over reject = 3, so it would never be reached"),
    ("[sign a.example]\nselector = s", "2: [sign a.example] selector: needs key_file"),
    ("[sign a.example]\nkey_file = /k", "2: [sign a.example] key_file: needs selector"),
    ("[sign a.example]\ned25519_selector = s", "2: [sign a.example] ed25519_selector: needs ed25519_key_file"),
    (
        "[sign a.example]\nselector = s\nkey_file = /k\ned25519_selector = S\ned25519_key_file = /l",
        "4: [sign a.example] ed25519_selector: must differ from selector",
    ),
    ("[sign a.example]\nheaders = To, Subject", "2: [sign a.example] headers: From must be signed (RFC 6376 section 5.4)"),
    ("[sign a.example]\nkeyfile = /k\nselector = s", "2: [sign a.example] unknown option 'keyfile', did you mean 'key_file'?"),
    ("[dnsbl]", "1: [dnsbl] needs a name, as in [dnsbl example]"),
    ("[dnsbl a-b]", "1: [dnsbl a-b] 'a-b' is not a name of up to 32 letters, digits and '_'"),
    ("[dnsbl a]", "1: [dnsbl a] needs a zone to ask in"),
    ("[dnswl a]\nzone =", "1: [dnswl a] needs a zone to ask in"),
    ("[dnsbl a]\nzone = a b", "2: [dnsbl a] zone: 'a b' is not a domain"),
    ("[dnsbl a]\nzone = a.example\nscore = accept", "3: [dnsbl a] score: accept is not for this kind of list, which takes a number, or an action other than accept"),
    ("[dnswl a]\nzone = a.example\nscore = reject", "3: [dnswl a] score: reject is not for this kind of list, which takes a number or accept"),
    ("[dnswl a]\nzone = a.example\nanswers = 127.0.0.2 = tag", "3: [dnswl a] answers: tag is not for this kind of list, which takes a number or accept"),
    ("[dnsbl a]\nzone = a.example\nanswers = 192.0.2.1", "3: [dnsbl a] answers: '192.0.2.1' is outside of 127.0.0.0/8: a list that answers so is out of order"),
    ("[dnsbl a]\nzone = a.example\nanswers = 127.0.0.2, 127.0.0.[2]", "3: [dnsbl a] answers: 127.0.0.2 is there twice"),
    ("[dnsbl a]\nzone = a.example\nanswers = 127.0.0.2 = 1\n[dnsbl a_2]\nzone = b.example", "4: [dnsbl a_2] dnsbl_a_2 is a symbol of [dnsbl a] already"),
    ("[brands]\ndomains = a.example, Yourbank", "2: [brands] domains: 'Yourbank' is a name without a top-level domain; give the domain, such as yourbank.com"),
    ("[rspamd]\nurl = 127.0.0.1:11333", "2: [rspamd] url: expected http://HOST:PORT/PATH, without TLS"),
    ("[rspamd]\nurl = https://127.0.0.1:11333/", "2: [rspamd] url: expected http://HOST:PORT/PATH, without TLS"),
    ("[rspamd]\nurl = http://a@127.0.0.1:11333/", "2: [rspamd] url: has a user before its host; only the path can hold a secret"),
    ("[dnsbl a]\nzone = a.example\nurl = ftp://a", "3: [dnsbl a] url: expected https://HOST/PATH or http://HOST:PORT/PATH"),
    ("[policy]\nskip = content, link", "2: [policy] skip: there is no check 'link', did you mean 'links'?"),
    ("[dnswl a]\nzone = a.example\nurl = https://a", "3: [dnswl a] unknown option 'url', it belongs to [store] or [rspamd]"),
    ("socket = x", "1: option 'socket' stands before any section"),
    ("[log]\njunk", "2: [log] 'junk' is neither [section] nor option = value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), ONE_PROBLEM, ids=[text.replace("\n", " ") for text, _ in ONE_PROBLEM])
def test_one_problem_gives_one_line(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    text = "\n".join(text for text, _ in ONE_PROBLEM if not text.startswith(("socket", "[dns]\n[spf]")))
    found = problems(text)
    lines = [int(problem.partition(":")[0]) for problem in found]
    assert lines == sorted(lines)
    assert len(found) >= 30


def test_a_file_that_is_something_else_ends_after_a_while() -> None:
    found = problems("From: someone\n" * 100_000)
    assert len(found) == 501
    assert found[-1] == " and more"


def test_the_password_of_a_bad_url_is_not_shown() -> None:
    assert "hunter2" not in "".join(problems("[store]\nurl = redis://u:hunter2@host:port/0"))


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[milter]\nsocket = inet:8891", "2: [milter] warning: 'inet:8891' lets everyone who reaches this machine have mail signed"),
        ("[milter]\nsocket = inet6:8891@::", "2: [milter] warning: 'inet6:8891@::' lets everyone who reaches this machine have mail signed"),
        ("[milter]\nsocket_mode = 666", "2: [milter] warning: every user of this machine can have mail signed"),
        ("[milter]\ncommand_timeout = 31s", "2: [milter] warning: Postfix waits 30s unless milter_command_timeout is raised too"),
        ("[milter]\nmessage_timeout = 10m", "2: [milter] warning: Postfix waits 300s unless milter_content_timeout is raised too"),
        ("[networks]\ninternal = 0.0.0.0/0", "2: [networks] warning: internal: mail of the whole Internet is signed, not verified"),
        ("[submission]\nmap_file = /m", "2: [submission] warning: map_file: has no effect while from_must_match = off"),
        ("[scores]\ndnsbl_zen = 1", "2: [scores] warning: no check yields 'dnsbl_zen'"),
        ("[dnsbl zn]\nzone = a.example\n[scores]\ndnsbl_zen = reject", "4: [scores] warning: no check yields 'dnsbl_zen'"),
        ("[scores a.example]\ndnswl_zen = -1", "2: [scores a.example] warning: no check yields 'dnswl_zen'"),
        ("[dnsbl zen]\nzone = a.example\nanswers = 127.0.0.2 = 1\n[scores]\ndnsbl_zen = reject", "5: [scores] warning: dnsbl_zen: goes for all answers of [dnsbl zen], also those with a weight of their own"),
        ("[dnsbl zen]\nzone = a.example\nscore = -1", "3: [dnsbl zen] warning: score: -1 counts in favour of who is listed"),
        ("[dnswl zen]\nzone = a.example\nanswers = 127.0.0.2 = 1", "3: [dnswl zen] warning: answers: 1 counts against who is listed"),
        ("[recipients]\nmax_per_message = 99", "2: [recipients] warning: max_per_message: 99 is below 100, to which every client may send at once (RFC 5321 section 4.5.3.1.8)"),
        ("[policy]\npreset = observe\n[greylist]\nenabled = yes", "3: [greylist] warning: has no effect with [policy] preset = observe, unless [scores] says greylist = tempfail"),
        ("[policy]\npreset = observe\n[sender_rate]\nmessages = 100/1h", "3: [sender_rate] warning: has no effect with [policy] preset = observe, unless [scores] says sender_rate_exceeded = tempfail"),
        ("[policy]\npreset = observe\n[recipients]\nmax_per_message = 100", "3: [recipients] warning: has no effect with [policy] preset = observe, unless [scores] says too_many_recipients = tempfail"),
        ("[policy]\npreset = observe\n[connections]\nper_address = 9", "3: [connections] warning: has no effect with [policy] preset = observe, unless [scores] says connections_exceeded = tempfail or connection_rate_exceeded = tempfail"),
        ("[policy]\npreset = observe\n[policy a.example]\nenforce = no\n[recipients]\nmax_per_message = 100", "5: [recipients] warning: has no effect with [policy] preset = observe, unless [scores] says too_many_recipients = tempfail"),
        ("[greylist]\nenabled = yes\n[store]\nurl = memory:", "4: [store] warning: url: memory: is not shared: for [greylist] each worker has its own state; take sqlite:, or set [milter] workers = 1"),
        ("[scores]\nbayes_spam = reject", "2: [scores] warning: lets the classifier refuse mail that nothing else speaks against"),
        ("[policy]\nreject = 8\n[scores]\nbayes_sure = 5", "4: [scores] warning: lets the classifier refuse mail that nothing else speaks against"),
        ("[policy a.example]\nreject = 8\n[scores a.example]\nbayes_spam = 9", "4: [scores a.example] warning: lets the classifier refuse mail that nothing else speaks against"),
        ("[classifier]\nminimum_ham = 500\nenough_ham = 500", "3: [classifier] warning: enough_ham: has no effect unless it is over minimum_ham"),
        ("[classifier]\nauto_learn = yes", "2: [classifier] warning: auto_learn: learns no ham without [correspondents] or [reputation] enabled"),
        ("[antivirus]\nclamd = unix:/run/c\nmax_size = 9M", "3: [antivirus] warning: max_size: of a body [milter] scan_size = 8M is all that is kept; raise that too"),
        ("[antivirus]\nclamd = unix:/run/c\n[milter]\nscan_size = 0", "1: [antivirus] warning: max_size: of a body [milter] scan_size = 0 is all that is kept; raise that too"),
        ("[antivirus]\nclamd = unix:/run/c\ntimeout = 31s", "3: [antivirus] warning: timeout: no more than 30s of it is used, half of [milter] message_timeout"),
        ("[spamassassin]\nsocket = unix:/run/s\n[milter]\nscan_size = 256K", "1: [spamassassin] warning: max_size: of a body [milter] scan_size = 256K is all that is kept; raise that too"),
        ("[attachments]\ndangerous = js, foo\nharmless = .JS", "2: [attachments] warning: dangerous: js is in harmless too, and has no effect there"),
        ("[attachments]\nharmless = js\nreject = js, iso", "3: [attachments] warning: reject: js is in harmless too, and is refused all the same"),
        ("[rspamd]\nurl = http://h/\n[milter]\nscan_size = 1M", "1: [rspamd] warning: max_size: of a body [milter] scan_size = 1M is all that is kept; raise that too"),
        ("[sign a.example]", "1: [sign a.example] warning: there is no key, so this mail is not signed"),
        ("[sign a.example]\nselector = s\nkey_file = /k\ndomain = b.example", "4: [sign a.example] warning: domain: b.example is not aligned with a.example, so DMARC won't count it"),
        ("[sign a.example]\ned25519_selector = s\ned25519_key_file = /k", "2: [sign a.example] warning: many receivers ignore Ed25519; sign with an RSA key too (RFC 8463)"),
        ("[sign a.example]\nselector = s\nkey_file = /k\noversign = From, Received", "4: [sign a.example] warning: oversign: Received changes on its way and breaks the signature"),
    ],
    ids=lambda value: value.split("\n")[-1] if "warning" not in value else "",
)  # fmt: skip
def test_what_works_but_is_hardly_meant_gives_a_warning(text: str, warning: str) -> None:
    assert warnings(text) == [warning]


@pytest.mark.parametrize("is_there", [True, False])
def test_macros_want_oletools(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crosscheck, "find_spec", lambda name: object() if is_there and name == "oletools" else None)
    text = "[macros]\nenabled = yes"
    missing = "2: [macros] warning: enabled: finds nothing without oletools: pip install 'authmilter[macros]'"
    assert warnings(text, check_files=True) == ([] if is_there else [missing])
    assert warnings(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[sign *]\nselector = s\nkey_file = /k\ndomain = b.example",
        "[sign *.a.example]\nselector = s\nkey_file = /k\ndomain = a.example",
        "[milter]\nsocket = inet:8891@192.0.2.1",
        "[policy]\nreject = 3",
        "[dnsbl zen]\nzone = a.example\nanswers = 127.0.0.2 = 0\n[scores]\ndnsbl_zen_2 = 1",
        "[recipients]\nmax_per_message = 100",
        "[recipients]\nmax_per_message = 0",
        "[antivirus]\nclamd = unix:/run/c\nmax_size = 8M",
        "[antivirus]\nclamd = unix:/run/c\n[milter]\nscan_size = 64M",
        "[antivirus]\nmax_size = 25M\ntimeout = 60s",
        "[store]\nurl = memory:",
        "[store]\nurl = memory:\n[milter]\nworkers = 1\n[greylist]\nenabled = yes",
        "[greylist]\nenabled = yes",
        "[policy]\npreset = observe",
        "[policy]\npreset = observe\n[greylist]\nenabled = yes\n[scores]\ngreylist = tempfail",
        "[policy]\npreset = observe\n[greylist]\nenabled = yes\n[scores a.example]\ngreylist = tempfail",
        "[policy]\npreset = observe\n[greylist]\nenabled = yes\n[policy a.example]\npreset = strict",
        "[greylist]\nenabled = yes\n[policy a.example]\npreset = observe",
        "[policy]\npreset = observe\n[outbound_limits]\nlogin_recipients = 9/1h\n[recipient_domain]\nenabled = yes",
        "[policy]\npreset = observe\n[access]\nreject = 192.0.2.1\n[dnsbl zen]\nzone = a.example\nscore = reject",
        "[policy]\npreset = observe\n[reputation]\nenabled = yes\n[spamtraps]\naddresses = a@b.example",
    ],
    ids=[
        "d= for the rest",
        "d= of the parent",
        "an address of its own",
        "reject below the default of tag",
        "a symbol of an answer",
        "as many recipients as every server has to take",
        "any number of recipients",
        "as much for clamd as there is",
        "all that there is for clamd",
        "no clamd",
        "a store of each worker while nothing is remembered",
        "the store of a single worker",
        "state in a file that workers share",
        "to observe, with nothing else",
        "to observe, but to greylist",
        "to observe, but to greylist for a domain",
        "to observe, but for a domain with greylisting",
        "to greylist, but for a domain that observes",
        "to observe, and to limit mail of ours",
        "to observe, and to refuse whom the administrator names",
        "to observe checks that weigh",
    ],
)
def test_what_is_meant_gives_none(text: str) -> None:
    assert warnings(text) == []


STATEFUL = {
    "greylist": "enabled = yes",
    "reputation": "enabled = yes",
    "correspondents": "enabled = yes",
    "connections": "per_address = 10",
    "sender_rate": "messages = 100/1h",
    "outbound_limits": "login_recipients = 100/1h",
}


def test_all_checks_that_keep_state_are_named_where_workers_do_not_share_it() -> None:
    for section, text in STATEFUL.items():
        assert f"for [{section}] each worker" in warnings(f"[{section}]\n{text}\n[store]\nurl = memory:")[0]
    everything = "".join(f"[{section}]\n{text}\n" for section, text in STATEFUL.items())
    (warning,) = warnings(f"{everything}[store]\nurl = memory:")
    assert f"for {', '.join(f'[{section}]' for section in STATEFUL)} each worker" in warning
    assert "[outbound_limits]" in warnings("[outbound_limits a]\nmessages = 1/1h\n[store]\nurl = memory:")[0]
    remembering = {
        check.run.__module__
        for check in all_checks()
        if any(isinstance(value, Space) for value in vars(import_module(check.run.__module__)).values())
    }
    assert remembering == {f"authmilter.checks.{section}" for section in STATEFUL}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, key in (
        ("rsa2048", generate_private_key(65537, 2048)),
        ("rsa1024", generate_private_key(65537, 1024)),
        ("ed25519", Ed25519PrivateKey.generate()),
    ):
        (folder / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / name).chmod(0o600)
    (folder / "open").write_bytes((folder / "rsa2048").read_bytes())
    (folder / "open").chmod(0o644)
    (folder / "junk").write_text("junk")
    (folder / "junk").chmod(0o600)
    return folder


@pytest.mark.parametrize(
    ("rsa", "ed25519", "problem"),
    [
        ("none", "", "can't be read: No such file or directory"),
        ("open", "", "chmod 600"),
        ("junk", "", "holds neither a PEM private key"),
        ("ed25519", "", "is not an RSA key"),
        ("rsa2048", "rsa2048", "is not an Ed25519 key"),
    ],
    ids=["missing", "readable by others", "no key", "wrong kind for RSA", "wrong kind for Ed25519"],
)
def test_key_files_must_be_usable(keys: Path, rsa: str, ed25519: str, problem: str) -> None:
    text = f"[sign a.example]\nselector = s\nkey_file = {keys / rsa}\n"
    if ed25519:
        text += f"ed25519_selector = e\ned25519_key_file = {keys / ed25519}\n"
    (found,) = problems(text, check_files=True)
    assert problem in found
    assert found.startswith("5: [sign a.example] ed25519_key_file: " if ed25519 else "3: [sign a.example] key_file: ")
    assert ini.load("a.ini", text, check_files=False).sign


def test_good_keys_are_taken_and_a_short_one_gets_a_warning(keys: Path) -> None:
    text = f"[sign a.example]\nselector = s\nkey_file = {keys}/%s\ned25519_selector = e\ned25519_key_file = {keys}/ed25519\n"
    assert warnings(text % "rsa2048", check_files=True) == []
    assert warnings(text % "rsa1024", check_files=True) == [
        "3: [sign a.example] warning: key_file: the key has 1024 bits; use 2048 (RFC 8301)"
    ]


def test_the_key_of_a_list_must_be_usable(keys: Path) -> None:
    text = "[dnsbl a]\nzone = a.example\nkey_file = %s\n"
    for name, problem in (("none", "can't be read"), ("open", "chmod 600"), ("rsa2048", "its first line is no key")):
        (found,) = problems(text % (keys / name), check_files=True)
        assert found.startswith(f"3: [dnsbl a] key_file: {keys / name}: ")
        assert problem in found
    assert ini.load("a.ini", text % (keys / "junk"), check_files=True).dnsbl["a"].key_file
    assert warnings(text % "key", check_files=False) == []
    assert "3: [dnsbl a] key_file: key: can't be read" in problems(text % "key", check_files=True)[0]


def test_the_files_of_the_store_must_be_usable(keys: Path) -> None:
    text = "[store]\nurl = rediss://127.0.0.1\n%s = %s\n"
    for option, name, problem in (
        ("password_file", "none", "can't be read: No such file or directory"),
        ("password_file", "open", "chmod 600"),
        ("ca_file", "none", "can't be read"),
    ):
        (found,) = problems(text % (option, keys / name), check_files=True)
        assert found.startswith(f"3: [store] {option}: {keys / name}: ")
        assert problem in found
    assert ini.load("a.ini", text % ("password_file", keys / "junk"), check_files=True).store.password_file


def test_the_problems_of_a_map_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "map"
    text = f"[submission]\nfrom_must_match = login\nmap_file = {path}\n"
    (missing,) = problems(text, check_files=True)
    assert missing.startswith(f"3: [submission] map_file: {path}")
    path.write_text("login: a@example.org\njunk\n")
    (bad,) = problems(text, check_files=True)
    assert f"{path}:2" in bad
    path.write_text("login: a@example.org\n")
    assert warnings(text, check_files=True) == []


def test_a_relative_path_gets_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "map").write_text("")
    monkeypatch.chdir(tmp_path)
    text = "[submission]\nfrom_must_match = login\nmap_file = map\n"
    assert "depends on the directory" in warnings(text, check_files=True)[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")
def test_users_and_groups_must_exist() -> None:
    assert problems("[milter]\nuser = no-such-user\ngroup = no-such-group\nsocket_group = root", check_files=True) == [
        "2: [milter] user: there is no user 'no-such-user'",
        "3: [milter] group: there is no group 'no-such-group'",
    ]


def test_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ini"
    path.write_bytes(b"\xef\xbb\xbf[log]\r\nlevel = debug\r\n")
    loaded = ini.load_with_origins(str(path))
    assert loaded.config.log.level == "debug"
    assert str(loaded.origins["log", "level"]) == f"{path}:2"
    assert ("log", "format") not in loaded.origins


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, ": no such file"),
        (b"[log]\nlevel = inf\xf6\n", ":2: is not UTF-8 (octet 0xf6)"),
        (b"[log]\nlevel = info\0\n", r":2: [log] control character '\x00'"),
        ("[log]".encode("utf-16"), ":1: is not UTF-8 (octet 0xff)"),
        (b"#" * (10 * 1024 * 1024 + 1), ": is larger than 10M"),
    ],
    ids=["missing", "Latin-1", "NUL", "UTF-16", "over 10 MB"],
)
def test_a_file_that_can_t_be_read_is_one_clear_problem(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "a.ini"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        ini.load(str(path))
    assert caught.value.problems == (f"{path}{problem}",)


def test_the_usual_file_is_optional_but_not_ignored_when_it_can_t_be_read(tmp_path: Path) -> None:
    usual = tmp_path / "a.ini"
    assert ini.find(None, str(usual)) is None
    assert ini.find(None, str(usual / "b.ini")) is None
    assert ini.find("given.ini", str(usual)) == "given.ini"
    usual.write_text("")
    assert ini.find(None, str(usual)) == str(usual)
    too_long = str(tmp_path / ("x" * 300))
    assert ini.find(None, too_long) == too_long
    with pytest.raises(ConfigError, match="File name too long"):
        ini.load(too_long)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        ini.load(str(tmp_path))


def test_a_name_with_control_characters_does_not_reach_the_terminal() -> None:
    with pytest.raises(ConfigError) as caught:
        ini.load("a\x1b[2J\n.ini")
    assert caught.value.problems == ("a?[2J?.ini: no such file",)


@given(st.text() | st.lists(st.sampled_from([text for text, _ in ONE_PROBLEM]), max_size=5).map("\n".join))
@settings(deadline=None)
def test_any_text_is_a_configuration_or_a_list_of_problems(text: str) -> None:
    try:
        ini.load("a.ini", text, check_files=False)
    except ConfigError as error:
        assert all(problem.startswith("a.ini:") for problem in error.problems)  # noqa: PT017  either way is right


def test_options_that_a_reload_can_t_change_are_named() -> None:
    old = ini.load(None)
    new = ini.load(
        None,
        "[milter]\nworkers = 2\nsocket = inet:1@127.0.0.1\ndrain_timeout = 1s\n[store]\nurl = memory:\n[log]\nlevel = debug",
    )
    assert ini.changed_needing_restart(old, old) == []
    assert ini.changed_needing_restart(old, new) == ["[milter] socket", "[milter] workers", "[store] url"]


def test_defaults_are_within_their_own_bounds_and_in_normal_form() -> None:
    for declared in (
        *ini.SECTIONS.values(),
        *(named.declared for named in ini.NAMED_SECTIONS.values()),
        *ini.check_sections().values(),
    ):
        for option in options_of(declared).values():
            assert option.read(option.write(option.default)) == option.default, option.name


def test_every_known_symbol_can_be_weighed() -> None:
    text = "[scores]\n" + "".join(f"{symbol} = -1.5\n" for symbol in known_symbols())
    assert set(ini.load(None, text).scores) == set(known_symbols())


def test_networks_are_networks() -> None:
    assert ini.load(None, "[networks]\ninternal = 192.0.2.1\n").networks.internal == (ip_network("192.0.2.1/32"),)


def test_every_bad_item_of_a_list_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        ini.load("am.ini", "[dns]\nnameservers = 127.0.0.1, foo, bar\n[networks]\ninternal = x, y\n")
    assert [("'foo'" in p and "'bar'" in p) or ("'x'" in p and "'y'" in p) for p in caught.value.problems] == [
        True,
        True,
    ]


def test_a_mailbox_has_one_at_sign() -> None:
    with pytest.raises(ConfigError, match="neither a domain nor a mailbox"):
        ini.load("am.ini", "[policy foo@bar@baz]\n")
