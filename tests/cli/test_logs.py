"""`authmilter logs`, over lines that the daemon's own formatters write, and over the log of a daemon."""

import gzip
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.cli import logs
from authmilter.cli.__main__ import main
from authmilter.log import JsonFormatter, TextFormatter
from tests.dnsserver import DNSServer
from tests.milter.client import MilterClient
from tests.rig.daemon import Daemon
from tests.rig.mail import zone
from tests.shared import ROOT

TEXT, JSON = TextFormatter(), JsonFormatter()
MESSAGE: dict[str, str | int | float] = {
    "ref": "am-0123456789",
    "queue_id": "4XyZ",
    "client": "203.0.113.66",
    "client_name": "",
    "helo": "mx.example",
    "mail_from": "ceo@bank.example",
    "rcpts": 1,
    "from": "bank.example",
    "direction": "inbound",
    "spf": "fail",
    "dkim": "pass,permerror",
    "dmarc": "fail",
    "score": 5.5,
    "symbols": "helo_malformed(1.5),iprev_permerror(0.5)",
    "action": "reject",
    "because": "dmarc_fail_reject",
    "stage": "eom",
    "reply": "550 5.7.1 no [am-0123456789]",
}
RECIPIENT: dict[str, str | int | float] = {
    "ref": "am-1123456789",
    "client": "203.0.113.67",
    "mail_from": "b@other.example",
    "rcpt": "trap@test",
    "symbols": "spamtrap(0)",
    "action": "reject",
    "because": "spamtrap",
    "reply": "550 5.7.1 no",
}


def text_line(event: str, fields: Mapping[str, str | int | float]) -> str:
    return TEXT.line("info", 0.0, event, fields) + "\n"


def json_line(event: str, fields: Mapping[str, str | int | float], when: float = 1795351267.5) -> str:
    return JSON.line("info", when, event, fields) + "\n"


def summed(tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str, *args: str) -> dict[str, Any]:
    """The report on such a log."""
    path = tmp_path / "log"
    path.write_text(log)
    main(["logs", "--json", "--domain", "bank.example", *args, str(path)])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


values = st.text(max_size=30) | st.sampled_from(
    ["", "<>", 'x" action=reject y="', "info: message ref=1", "a\\", "\x1b[2J\n"]
)


@given(helo=values, sender=values, queue_id=values)
def test_whatever_strangers_write_comes_back_from_text_and_from_json(helo: str, sender: str, queue_id: str) -> None:
    fields = MESSAGE | {"queue_id": queue_id, "helo": helo, "mail_from": sender}
    for line in (text_line("message", fields), json_line("message", fields)):
        found = logs.parse(line.encode())
        assert found is not None
        assert found[0] == "message"
        assert {key: found[1][key] for key in MESSAGE} == {key: str(value) for key, value in fields.items()}


@pytest.mark.parametrize(
    "prefix",
    ["", "Nov 22 12:00:00 mx authmilter[812]: ", "2026-11-22T12:00:00+0000 mx authmilter[812]: "],
    ids=["bare", "journalctl or syslog", "journalctl -o short-iso"],
)
@pytest.mark.parametrize("line", [text_line, json_line], ids=["text", "JSON"])
def test_what_journald_puts_in_front_is_passed_over(prefix: str, line: Any) -> None:
    found = logs.parse((prefix + line("message", MESSAGE)).encode())
    assert found is not None
    assert found[1]["client"] == "203.0.113.66"


@pytest.mark.parametrize(
    "line",
    [
        "info: serving on inet:8891@127.0.0.1 with 2 workers",
        "warning: milter connection closed: info: message ref=am-1 action=reject",
        '{"time": 1.0, "level": "warning", "event": "log", "message": "info: message ref=am-1 action=reject"}',
        'warning: odd: {"time": 1.0, "event": "message", "ref": "am-1", "action": "reject"}',
        "",
    ],
)
def test_other_lines_count_for_nothing(line: str) -> None:
    assert logs.parse(line.encode()) is None


@pytest.mark.parametrize(
    "line",
    [
        "info: message ref=am-1 action=explode",
        "info: message ref=am-1 client=",
        'info: message ref=am-1 helo="open',
        "info: message ref=am-1 action=reject and more",
        '{"time": 1.0, "event": "message", "ref": "am-1", "action": "reject"',
        '{"time": "NaN", "event": "message", "ref": "am-1", "action": "reject"}',
        '{"time": "soon", "event": "message", "ref": "am-1", "action": "reject"}',
        '{"time": 1.0, "ref": ' + "[" * 100_000,
        text_line("message", MESSAGE | {"helo": "x" * logs.LONGEST}),
    ],
    ids=["verdict", "no verdict", "quotes", "words", "cut JSON", "not a number", "no time", "nested", "too long"],
)
def test_a_broken_line_is_counted_and_the_next_one_read(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = summed(tmp_path, capsys, f"{line.rstrip()}\n{text_line('message', MESSAGE)}")
    assert (report["unreadable"], report["events"]) == (1, 1)


@pytest.mark.parametrize("line", [text_line, json_line], ids=["text", "JSON"])
def test_the_summary(line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted = MESSAGE | {"action": "accept", "dmarc": "pass", "client": "192.0.2.10"}
    log = [
        line("message", MESSAGE),
        line("message", MESSAGE | {"from": "sub.bank.example", "action": "tag"}),
        line("message", MESSAGE | {"enforced": "no", "from": "notbank.example"}),
        line("message", accepted),
        line("message", accepted | {"direction": "outbound", "dmarc": "fail"}),
        line("message", MESSAGE | {"stage": "connect", "mail_from": "<>", "from": "", "client": "203.0.113.99"}),
        line("recipient", RECIPIENT),
        line("recipient", RECIPIENT | {"action": "tempfail"}),
    ]
    report = summed(tmp_path, capsys, "".join(log))
    assert report["events"] == 8
    assert {k: n for k, n in report["messages"]["inbound"].items() if n} == {"accept": 1, "tag": 1, "reject": 3}
    assert {k: n for k, n in report["messages"]["outbound"].items() if n} == {"accept": 1}
    assert report["not_enforced"] == 1
    assert report["recipients_refused"] == {"4xx": 1, "5xx": 1}
    assert {k: n for k, n in report["results"]["dkim"].items() if n} == {"pass": 6, "permerror": 6}
    assert report["symbols"][0] == {"symbol": "helo_malformed", "count": 6}
    assert {"symbol": "spamtrap", "count": 2} in report["symbols"]
    # Not who was only deferred, or accepted for lack of `enforce`; before MAIL there is no sender.
    assert report["refused_senders"] == [
        {"sender": "b@other.example", "count": 1},
        {"sender": "ceo@bank.example", "count": 1},
    ]
    assert [one["domain"] for one in report["refused_domains"]] == ["bank.example", "other.example"]
    assert {one["client"] for one in report["refused_clients"]} == {"203.0.113.66", "203.0.113.67", "203.0.113.99"}
    # What we send ourselves, passed, or is another's does not count.
    failed = {(one["domain"], one["action"], one["count"]) for one in report["own_dmarc_failures"]}
    assert failed == {("bank.example", "reject", 1), ("sub.bank.example", "tag", 1)}
    assert report["counts_too_low_by_at_most"] == 0
    assert report["since"] == (None if line is text_line else 1795351267.5)


def test_the_most_frequent_stay_exact_enough_in_bounded_memory() -> None:
    top: logs.Top[str] = logs.Top()
    for i in range(100_000):
        top.add(f"once{i}")
        if i % 10 == 0:
            top.add("often")
    (name, count), *_ = top.most(3)
    assert name == "often"
    assert 10_000 - top.error <= count <= 10_000
    assert 0 < top.error < 100
    assert len(top.most(10**9)) <= 2 * logs.KEPT


def test_few_values_are_counted_exactly() -> None:
    top: logs.Top[str] = logs.Top()
    for i in range(10_000):
        top.add(f"{i % 3}")
    assert top.most(2) == [("0", 3334), ("1", 3333)]
    assert top.error == 0


def test_plain_and_packed_files_and_standard_input_are_added_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_text(text_line("message", MESSAGE))
    with gzip.open(tmp_path / "log.1.gz", "wt") as packed:
        packed.write(json_line("message", MESSAGE))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text_line("recipient", RECIPIENT).encode())))
    assert main(["logs", "--domain", "x.example", str(tmp_path / "log"), str(tmp_path / "log.1.gz"), "-"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 lines of messages")
    assert err == ""  # no progress in a pipe
    assert "No mail from outside in the name of our domains failed DMARC." in out


def test_nothing_in_the_log_reaches_the_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b[2J\u202e\n@evil\x1b.example"
    (tmp_path / "log").write_text(text_line("message", MESSAGE | {"mail_from": nasty, "client": nasty}))
    assert main(["logs", "--domain", "bank.example", str(tmp_path / "log")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[2J\\u202e\\n@evil\\x1b.example" in out


def test_the_domains_are_those_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "am.ini").write_text("[identity]\nlocal_domains = bank.example, .parts.example\n")
    names = ("bank", "x.bank", "x.parts", "z", "y." * 130 + "parts")  # the last is no name: it is too long
    log = [text_line("message", MESSAGE | {"from": f"{name}.example"}) for name in names]
    (tmp_path / "log").write_text("".join(log))
    assert main(["-c", str(tmp_path / "am.ini"), "logs", "--json", str(tmp_path / "log")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["domain"] for one in report["own_dmarc_failures"]] == ["bank.example", "x.parts.example"]


def test_exit_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text("info: stopped\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    (tmp_path / "bad.ini").write_text("[identity]\nnone = such\n")
    assert main(["logs", "--domain", "x", str(tmp_path / "empty")]) == 1
    assert main(["logs", "--domain", "x", str(tmp_path / "missing")]) == 65
    assert main(["logs", "--domain", "x", str(tmp_path / "cut.gz")]) == 65
    assert main(["-c", str(tmp_path / "bad.ini"), "logs", str(tmp_path / "empty")]) == 78
    assert "--domain NAME" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["logs", "--top", "0"])
    assert ended.value.code == 64


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_of_a_daemon(form: str) -> None:
    settings = {
        "identity": {"local_domains": "bank.example"},
        "access": {"reject": "203.0.113.99"},
        "spamtraps": {"addresses": "trap@test"},
        "scores": {"spamtrap": "reject"},
        "log": {"format": form},
    }
    with DNSServer(zone()) as dns, Daemon("inet", {**settings, "dns": {"nameservers": dns.address}}) as daemon:
        for address, sender, recipient in (
            (b"192.0.2.10", b"a@good.example", b"<u@test>"),
            (b"203.0.113.66", b"ceo@bank.example", b"<u@test>"),
            (b"203.0.113.67", b"b@strict.example", b"<trap@test>"),
            (b"203.0.113.99", b"b@strict.example", b"<u@test>"),
        ):
            with MilterClient(f"inet:{daemon.port}@127.0.0.1") as mta:
                mta.negotiate()
                reply = mta.connect(host=b"[%s]" % address, address=address)
                if reply is not None and reply.letter != "c":
                    continue
                mta.helo(b'odd" action=accept')
                mta.message(b"<%s>" % sender, [recipient], [(b"From", b" " + sender)])
        daemon.stop()
        done = subprocess.run(
            [sys.executable, "-m", "authmilter.cli", "-c", daemon.file, "logs", "--json"],
            input=daemon.log(),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ,
        )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert {k: n for k, n in report["messages"]["inbound"].items() if n} == {"accept": 1, "reject": 2}
    assert report["recipients_refused"] == {"4xx": 0, "5xx": 1}
    assert report["own_dmarc_failures"] == [
        {"domain": "bank.example", "client": "203.0.113.66", "action": "reject", "count": 1}
    ]
    assert report["unreadable"] == 0


def test_a_line_of_one_long_word_takes_no_time() -> None:
    """As whoever may write into a log that others write to might leave it."""
    summary, before = logs.Summary(), time.process_time()
    summary.line(b"info: message ref=x action=accept symbols=" + b"a" * (2**18 - 100))
    assert summary.events == 1
    assert time.process_time() - before < 2
