"""`authmilter check-message` as an administrator runs it: a process, a file, a DNS server over sockets."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from authmilter.cli.check_message import addresses, parse_time, split, with_crlf
from tests.dnsserver import DNSServer

ZONE = {
    "example.org TXT": ["v=spf1 ip4:192.0.2.0/24 -all"],
    "example.org MX": ["10 mail.example.org."],
    "_dmarc.example.org TXT": ["v=DMARC1; p=reject"],
    "7.2.0.192.in-addr.arpa PTR": ["mail.example.org."],
    "mail.example.org A": ["192.0.2.7"],
    "slow.example TXT": ["v=spf1 -all"],
}
MESSAGE = (
    b"From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: hi\nDate: %b\n"
    b"Message-ID: <1@example.org>\nReceived: from a by b\n\nHello\n"
) % formatdate().encode()


@pytest.fixture(scope="module")
def dns() -> Iterator[DNSServer]:
    with DNSServer(ZONE, {"slow.example": "servfail"}) as server:
        yield server


class Runner:
    def __init__(self, folder: Path, dns: DNSServer) -> None:
        self.folder = folder
        (folder / "am.ini").write_text(f"[dns]\nnameservers = {dns.address}\n")
        self.message = folder / "message.eml"
        self.message.write_bytes(MESSAGE)

    def __call__(
        self, *args: str, ip: str = "192.0.2.7", stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [
            "--ip",
            ip,
            "--helo",
            "mail.example.org",
            "--mail-from",
            "alice@example.org",
            "--rcpt",
            "bob@example.net",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "authmilter", "-c", str(self.folder / "am.ini"), "check-message", *words, *args],
            capture_output=True,
            input=stdin,
            timeout=60,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *args: str, ip: str = "192.0.2.7") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("--json", *args, str(self.message), ip=ip).stdout)
        return found

    def configure(self, text: str) -> None:
        with (self.folder / "am.ini").open("a") as file:
            file.write(text)


@pytest.fixture
def check(tmp_path: Path, dns: DNSServer) -> Runner:
    return Runner(tmp_path, dns)


def test_good_mail(check: Runner) -> None:
    done = check(str(check.message))
    assert done.returncode == 0
    assert "action     accept at eom, inbound" in done.stdout
    assert "\x1b" not in done.stdout  # plain text in a pipe
    assert done.stderr == ""


def test_a_spoof(check: Runner) -> None:
    done = check(str(check.message), ip="203.0.113.1")
    assert done.returncode == 1
    assert "DMARC policy for example.org" in done.stdout


def test_the_weights_shown_sum_up_to_the_score_those_of_results_too(check: Runner) -> None:
    shown = check(str(check.message), ip="203.0.113.1").stdout
    table = shown.split("\nsymbol ")[1].split("\n\n")[0].splitlines()[1:]
    weights = {line.split()[0]: float(line.split()[1]) for line in table}
    assert {"helo_mismatch", "iprev_permerror"} <= set(weights)
    assert "score 0.6\n" in shown
    assert sum(weights.values()) == pytest.approx(0.6)


def test_the_json_of_the_contract(check: Runner) -> None:
    found = check.json(ip="203.0.113.1")
    assert found["action"] == "reject"
    assert found["stage"] == "eom"
    assert found["direction"] == "inbound"
    assert found["score"] == 0.6  # iprev_permerror and helo_mismatch
    assert (found["reply"]["code"], found["reply"]["enhanced"]) == (550, "5.7.26")
    assert [r["method"] for r in found["results"]] == ["iprev", "spf_helo", "spf", "dkim", "dmarc"]
    assert set(found["results"][0]) == {"method", "result", "identifier", "properties", "reason"}
    assert found["authentication_results"] == found["edits"][-1]["value"]
    assert {"op", "index", "name", "value"} == set(found["edits"][0])
    assert "reference" not in found


def test_without_a_name_in_the_configuration_it_is_that_of_the_host_and_the_help_says_so(check: Runner) -> None:
    assert "authserv_id" not in (check.folder / "am.ini").read_text()
    assert check.json()["authentication_results"].startswith(f"{socket.gethostname()};")
    assert "the host name of this machine" in " ".join(check("--help").stdout.split())


def test_findings_have_score_and_stage(check: Runner) -> None:
    check.message.write_bytes(MESSAGE.replace(b"From: Alice <alice@example.org>\n", b""))
    found = check.json()
    assert found["findings"] == [
        {"symbol": "ambiguous_from", "score": 0.0, "detail": "no From field", "stage": "eom"},
    ]
    assert found["reply"]["text"].startswith("From header field can't be used: no From field")


def test_a_temperror_that_is_deferred(check: Runner) -> None:
    check.configure("[spf]\non_temperror = defer\n")
    done = check("--mail-from", "a@slow.example", str(check.message))
    assert done.returncode == 75
    assert "451 4.7.24" in done.stdout


def test_outbound(check: Runner) -> None:
    found = check.json("--auth-user", "alice")
    assert (found["direction"], found["results"], found["signed"]) == (
        "outbound", [], "no: no [sign] section for example.org",
    )  # fmt: skip


@pytest.mark.parametrize("args", [["--auth-user", "u"], ["--ip", "fe80::1%eth0"]])
def test_nothing_but_errors_on_standard_error(check: Runner, args: list[str]) -> None:
    assert check(*args, str(check.message)).stderr == ""


def test_standard_input(check: Runner) -> None:
    assert check("-", stdin=MESSAGE).returncode == 0


def test_all_references_answer(check: Runner) -> None:
    found = check.json("--reference")["reference"]
    assert found["pyspf"] == ["pass for alice@example.org: sender SPF authorized", "agrees"]
    assert found["dkimpy"] == ["no signature"]
    assert "dmarc=pass" in " ".join(found["authres"])


@pytest.mark.slow
def test_a_reference_that_hangs_is_given_up(check: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from authmilter.auth import second_opinion

    monkeypatch.setattr(second_opinion, "SECONDS", 2)
    bait = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; c=relaxed/relaxed; bh=; b=\r\n"
    raw = bait + b"From: a@example.org\r\n\r\n" + b" " * 200_000 + b"x\r\n"
    found = second_opinion.ask(
        ip="192.0.2.7", helo="h.example", mail_from="a@example.org", nameservers=["127.0.0.1:1"], raw=raw, field=""
    )
    assert set(found) == {"pyspf", "dkimpy", "authres"}
    assert all(found.values())


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_is_unreadable_input(check: Runner, content: bytes) -> None:
    check.message.write_bytes(content)
    done = check(str(check.message))
    assert done.returncode == 65
    assert "there is no message in it" in done.stderr


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["no-such-file"], 65, "no-such-file"),
        (["--at", "yesterday", "FILE"], 65, "--at yesterday: neither ISO 8601 nor seconds"),
        (["--ip", "1.2.3", "FILE"], 65, "1.2.3"),
        (["--at", "nan", "FILE"], 65, "not between 1970 and 9999"),
        (["--at", "99999999999999999", "FILE"], 65, "not between 1970 and 9999"),
        (["--at", "", "FILE"], 65, "neither ISO 8601"),
        ([], 64, "name the FILE"),
    ],
)
def test_bad_arguments(check: Runner, args: list[str], status: int, words: str) -> None:
    done = check(*[str(check.message) if a == "FILE" else a for a in args])
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr


def test_a_bad_configuration(check: Runner) -> None:
    check.configure("[polcy]\n")
    done = check(str(check.message))
    assert done.returncode == 78
    assert "did you mean" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("1700000000.5", 1700000000.5),
        ("2023-11-14T22:13:20", 1700000000.0),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        ("2023-11-14", 1699920000.0),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("raw", "fields", "body"),
    [
        (b"A: b\r\n\r\nbody\r\n", [(b"A", b" b")], b"body\r\n"),
        (b"A: b\n\nbody\n", [(b"A", b" b")], b"body\r\n"),
        (b"A: b\r\n c\r\n\r\n", [(b"A", b" b\r\n c")], b""),
        (b"From x Mon\nA: b\n\n", [(b"A", b" b")], b""),
        (b"A: b", [(b"A", b" b")], b""),
        (b"A: b\r\nno field\r\nrest", [(b"A", b" b")], b"no field\r\nrest"),
        (b"A : b\r\nB:\r\n\r\n", [(b"A ", b" b"), (b"B", b"")], b""),
        (b"\r\nbody", [], b"body"),
        (b"A: b\rc\r\n\r\nx\ny", [(b"A", b" b\rc")], b"x\ny"),
        (b" folded first\r\n\r\n", [], b" folded first\r\n\r\n"),
    ],
)
def test_messages_are_split_as_an_mta_does(raw: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    assert split(raw) == (fields, body)


def test_crlf_is_left_alone() -> None:
    assert with_crlf(b"A: b\r\n\r\nx\ny\r\n") == b"A: b\r\n\r\nx\ny\r\n"


def test_a_recipient_who_is_refused_beside_others_is_told_of(check: Runner) -> None:
    check.configure("[spamtraps]\naddresses = trap@example.net\n[scores]\nspamtrap = reject\n")
    found = check.json("--rcpt", "trap@example.net")
    assert found["action"] == "accept"
    (refused,) = found["refused_recipients"]
    assert refused["address"] == "trap@example.net"
    assert (refused["reply"]["code"], refused["reply"]["enhanced"]) == (550, "5.7.1")
    done = check("--rcpt", "trap@example.net", str(check.message))
    assert "refused    trap@example.net: 550 5.7.1" in done.stdout


def test_the_answer_to_an_mta_has_the_fields_in_the_order_in_which_they_go_on_top(check: Runner) -> None:
    line, *rest = check("--answer", str(check.message)).stdout.split("\n")
    assert line == "accept"
    assert rest.pop() == "", "and a line end behind the last"
    fields = [text for text in rest if not text.startswith("\t")]
    names = [text.partition(": ")[0] for text in fields]
    assert names == ["X-Spam-Status", "X-Spam-Score", "X-Spam-Flag", "Authentication-Results"]
    told = check.json()["edits"]
    assert "\n".join(rest) == "\n".join(f"{edit['name']}: {edit['value']}" for edit in told)


def test_the_answer_to_an_mta_that_is_to_refuse_is_the_reply(check: Runner) -> None:
    done = check("--answer", str(check.message), ip="203.0.113.1")
    assert done.returncode == 1
    assert done.stdout.startswith("reject 550 5.7.26 Email rejected per DMARC policy for example.org [am-")
    check.configure("[policy]\nenforce = no\n")
    assert check("--answer", str(check.message), ip="203.0.113.1").stdout.startswith("accept\n")


def test_the_answer_to_an_mta_that_is_to_defer_is_the_reply(check: Runner) -> None:
    check.configure("[spf]\non_temperror = defer\n")
    done = check("--mail-from", "a@slow.example", "--answer", str(check.message))
    assert done.returncode == 75
    assert done.stdout.startswith("tempfail 451 4.7.24 ")


def test_nothing_of_a_message_adds_a_line_to_the_answer(check: Runner) -> None:
    hostile = 'x\nX-Spam-Flag: NO\r\n\r\n"\x85\u2028\udce4'
    for words in (
        ["--helo", hostile],
        ["--client-name", hostile],
        ["--mail-from", f"{hostile}@example.org"],
        ["--rcpt", f"{hostile}@example.net"],
    ):
        done = check(*words, "--answer", str(check.message))
        names = [text.partition(":")[0] for text in done.stdout.split("\n")[1:-1] if not text.startswith("\t")]
        assert names == ["X-Spam-Status", "X-Spam-Score", "X-Spam-Flag", "Authentication-Results"]


def test_a_login_may_be_any_octets(check: Runner) -> None:
    done = check("--auth-user", "x\n\udce4", "--answer", str(check.message))
    assert (done.returncode, done.stdout, done.stderr) == (0, "accept\n", "")


def test_recipients_of_a_list_are_judged_one_by_one(check: Runner) -> None:
    check.configure("[spamtraps]\naddresses = trap@example.net\n[scores]\nspamtrap = reject\n")
    found = check.json('--rcpt="a, trap@example.net"@example.net, trap@example.net')
    assert [refused["address"] for refused in found["refused_recipients"]] == ["trap@example.net"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b", ["a@b"]),
        ("a@b,c@d", ["a@b", "c@d"]),
        ("<a@b>, <c@d>, ", ["<a@b>", "<c@d>"]),
        ('"a, b"@c, d@e', ['"a, b"@c', "d@e"]),
        ('"a\\", b"@c,d@e', ['"a\\", b"@c', "d@e"]),
        ('"a\\\\",b@c', ['"a\\\\"', "b@c"]),
        ("a\\,b@c", ["a\\,b@c"]),
        ('"never closed, a@b', ['"never closed, a@b']),
        ("a\\", ["a\\"]),
        ("", [""]),
        (" , ", [" , "]),
    ],
)
def test_lists_of_recipients(text: str, expected: list[str]) -> None:
    assert addresses(text) == expected
