"""The protocol as an MTA sees it: the same tests for both engines, over each kind of socket."""

import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.milter.client import (
    ALL_NO_REPLY,
    ALL_STEPS,
    LEADING_SPACE,
    NO_REPLY,
    SKIP,
    ClosedError,
    MilterClient,
    Outcome,
    Reply,
)
from tests.milter.recording import Server

ENGINES = ("native", "libmilter")
CONTINUE = Reply("c")

Start = Callable[..., Server]


@pytest.fixture(
    scope="module",
    params=[(engine, family) for engine in ENGINES for family in ("unix", "inet", "inet6")],
    ids=lambda p: f"{p[0]} over {p[1]}",
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose session may answer at every stage."""
    engine, family = request.param
    server = Server(engine, f"{family}:{tmp_path_factory.mktemp('socket')}/milter", progress_interval=0.1)
    yield server
    server.close()


@pytest.fixture(params=ENGINES)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts a server of its own for a test, over a unix socket."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(request.param, f"unix:{tmp_path}/milter", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _native_only(server: Server, reason: str) -> None:
    if server.engine != "native":
        pytest.skip(f"libmilter itself {reason}")


def _begin(server: Server, **offer: int) -> MilterClient:
    mta = MilterClient(server.address)
    mta.negotiate(**offer)
    assert mta.connect() in (CONTINUE, None)
    assert mta.helo() in (CONTINUE, None)
    return mta


def _methods(calls: list[list[Any]]) -> list[str]:
    return [call[1] for call in calls]


def _calls(calls: list[list[Any]], method: str) -> list[list[Any]]:
    return [call[2:] for call in calls if call[1] == method]


def test_a_message_reaches_the_session_as_it_was_sent(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        mta.connect(macros={b"j": b"mx.example.net", b"{daemon_name}": b"smtpd", b"{client_addr}": b"192.0.2.7"})
        mta.helo(macros={b"{tls_version}": b"TLSv1.3"})
        mta.mail(b"<a@example.org>", b"SIZE=100", macros={b"{auth_authen}": b"a\xf6"})
        mta.rcpt(b"<b@example.net>", macros={b"i": b"4b0A"})
        mta.rcpt(b"<c@example.net>", b"NOTIFY=NEVER", macros={b"i": b"4b0A"})
        mta.data()
        mta.header(b"Received", b"  from a\n\tby b")
        mta.header(b"Subject", b"no blank \xe9")
        mta.header(b"X-Empty", b"")
        mta.end_of_headers()
        mta.body(b"line\r\n\0\xff")
        outcome = mta.end_of_message(macros={b"i": b"4b0A"})
        mta.quit()
    assert outcome == Outcome(CONTINUE, "E", [])
    session = {"j": "mx.example.net", "{daemon_name}": "smtpd", "{client_addr}": "192.0.2.7"}
    helo = session | {"{tls_version}": "TLSv1.3"}
    mail = helo | {"{auth_authen}": "a\xf6"}
    rcpt = mail | {"i": "4b0A"}
    assert [call[1:] for call in server.until("close")] == [
        ["connect", "client.example.net", "4", 40000, "192.0.2.7", session],
        ["helo", "client.example.net", helo],
        ["mail", ["<a@example.org>", "SIZE=100"], mail],
        ["rcpt", ["<b@example.net>"], rcpt],
        ["rcpt", ["<c@example.net>", "NOTIFY=NEVER"], rcpt],
        ["data", rcpt],
        ["header", "Received", "  from a\r\n\tby b"],
        ["header", "Subject", "no blank \xe9"],
        ["header", "X-Empty", ""],
        ["end_of_headers", rcpt],
        ["body", "line\r\n\0\xff"],
        ["end_of_message", rcpt],
        ["close"],
    ]


def test_edits_are_carried_out_in_their_order(server: Server) -> None:
    with _begin(server) as mta:
        outcome = mta.message(parameters=[b"eom=edit"])
        mta.quit()
    server.until("close")
    assert outcome.final == CONTINUE
    assert outcome.edits == [
        Reply("m", b"\0\0\0\2Authentication-Results\0\0"),
        Reply("m", b"\0\0\0\1Authentication-Results\0\0"),
        Reply("i", b"\0\0\0\0Authentication-Results\0 mx.example.net;\n\tspf=pass\0"),
        Reply("h", b"X-Spam-Flag\0 NO\0"),
    ]


def test_edits_that_the_mta_did_not_offer_are_left_out(server: Server) -> None:
    with _begin(server, actions=0x01) as mta:
        assert mta.actions == 0x01
        edited = mta.message(parameters=[b"eom=edit"])
        held = mta.message(parameters=[b"eom=quarantine"])
        mta.quit()
    server.until("close")
    assert [edit.letter for edit in edited.edits] == ["i", "h"]
    assert held == Outcome(CONTINUE, "E", [])


def test_quarantine_has_a_reason_without_line_ends(server: Server) -> None:
    with _begin(server) as mta:
        outcome = mta.message(parameters=[b"eom=quarantine"])
        mta.quit()
    server.until("close")
    assert outcome == Outcome(CONTINUE, "E", [Reply("q", b"bad  news\0")])


def test_discard(server: Server) -> None:
    with _begin(server) as mta:
        assert mta.message(parameters=[b"eom=discard"]).final == Reply("d")
        mta.quit()
    server.until("close")


@pytest.mark.parametrize(
    ("deed", "reply"),
    [
        ("reject", Reply("y", b"550 5.7.1 no\0")),
        ("tempfail", Reply("y", b"451 4.7.1 later\0")),
        ("busy", Reply("y", b"421 4.3.2 too busy\0")),
        ("bare", Reply("r")),
        ("mismatch", Reply("t")),
        ("percent", Reply("y", b"550-5.7.1 100%% sure:\r\n550-5.7.1 450 4.0.0 injected\r\n550 5.7.1 next   l?ne\0")),
    ],
)
@pytest.mark.parametrize("stage", ["connect", "helo", "mail", "rcpt", "data", "eoh", "eom"])
def test_a_refusal_is_answered_at_its_stage(server: Server, stage: str, deed: str, reply: Reply) -> None:
    told = f"{stage}={deed}".encode()
    with MilterClient(server.address) as mta:
        mta.negotiate()
        answer = mta.connect(host=told)
        if stage == "helo":
            answer = mta.helo(told)
        elif stage != "connect":
            mta.helo()
            answer = mta.message(parameters=[told]).final
        assert answer == reply
        mta.quit()
    server.until("close")


def test_a_refused_recipient_leaves_the_transaction_open(server: Server) -> None:
    with _begin(server) as mta:
        mta.mail(b"<a@example.org>", b"rcpt=reject")
        assert mta.rcpt(b"<b@example.net>") == Reply("y", b"550 5.7.1 no\0")
        assert mta.rcpt(b"<c@example.net>") == Reply("y", b"550 5.7.1 no\0")
        mta.data()
        mta.end_of_headers()
        assert mta.end_of_message().final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _methods(calls).count("rcpt") == 2
    assert "end_of_message" in _methods(calls)


def test_several_messages_in_one_smtp_session(server: Server) -> None:
    with _begin(server) as mta:
        mta.macros("M", {b"{auth_authen}": b"alice", b"i": b"1"})
        first = mta.message(b"<one@example.org>")
        second = mta.message(b"<>")
        mta.quit()
    calls = server.until("close")
    assert first.final == second.final == CONTINUE
    assert _methods(calls) == [
        "connect",
        "helo",
        *(["mail", "rcpt", "data", "header", "header", "end_of_headers", "body", "end_of_message"] * 2),
        "close",
    ]
    assert len({call[0] for call in calls}) == 1
    assert _calls(calls, "mail")[0] == [["<one@example.org>"], {"{auth_authen}": "alice", "i": "1"}]
    assert _calls(calls, "mail")[1][0] == ["<>"]
    if server.engine == "native":  # libmilter keeps the macros of MAIL until others come
        assert _calls(calls, "mail")[1][1] == {}


def test_several_smtp_sessions_on_one_connection(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        for name in (b"one", b"two", b"three"):
            mta.connect(host=name, macros={b"{client_port}": b"1"} if name == b"one" else None)
            mta.helo(name)
            assert mta.message().final == CONTINUE
            mta.quit_new_connection()
        mta.quit()
    calls = server.until("close", count=3)
    assert [call[1] for call in _calls(calls, "helo")] == [{"{client_port}": "1"}, {}, {}]
    assert [name for name, *_ in _calls(calls, "connect")] == ["one", "two", "three"]
    sessions = [call[0] for call in calls if call[1] == "connect"]
    assert len(set(sessions)) == 3
    assert [call[0] for call in calls if call[1] == "close"] == sessions
    assert _calls(calls, "header")[-1] == ["Subject", " test"], "what was negotiated still holds"


def test_abort_in_the_body_returns_to_the_state_after_helo(server: Server) -> None:
    with _begin(server) as mta:
        mta.mail(b"<one@example.org>")
        mta.rcpt(b"<b@example.net>")
        mta.data()
        mta.header(b"X", b" y")
        mta.end_of_headers()
        mta.body(b"part")
        mta.abort()
        assert mta.message(b"<two@example.org>").final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _methods(calls)[:9] == [
        "connect",
        "helo",
        "mail",
        "rcpt",
        "data",
        "header",
        "end_of_headers",
        "body",
        "abort",
    ]
    assert _methods(calls)[9:] == [
        "mail", "rcpt", "data", "header", "header", "end_of_headers", "body", "end_of_message", "close",
    ]  # fmt: skip


def test_a_client_that_is_gone_in_the_body_ends_transaction_and_session(server: Server) -> None:
    with _begin(server) as mta:
        mta.mail(b"<one@example.org>")
        mta.rcpt(b"<b@example.net>")
        mta.data()
        mta.end_of_headers()
        mta.body(b"part")
        mta.socket.sendall(struct.pack(">I", 100) + b"Bhalf a packet")
    assert _methods(server.until("close"))[-3:] == ["body", "abort", "close"]


def test_an_mta_that_offers_no_silence_gets_an_answer_to_everything(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate(steps=ALL_STEPS & ~ALL_NO_REPLY)
        assert mta.steps & ALL_NO_REPLY == 0
        assert mta.connect() == CONTINUE
        assert mta.helo() == CONTINUE
        assert mta.mail(b"<a@example.org>") == CONTINUE
        assert mta.rcpt(b"<b@example.net>") == CONTINUE
        assert mta.data() == CONTINUE
        assert mta.header(b"X", b" y") == CONTINUE
        assert mta.end_of_headers() == CONTINUE
        assert mta.body(b"text") == CONTINUE
        assert mta.end_of_message() == Outcome(CONTINUE, "E", [])
        mta.quit()
    server.until("close")


def test_silence_is_negotiated_for_the_stages_that_are_never_answered(start: Start) -> None:
    server = start(answers=["mail", "rcpt", "eom"])
    with MilterClient(server.address) as mta:
        mta.negotiate()
        silent = {letter for letter, bit in NO_REPLY.items() if mta.steps & bit}
        assert silent == (set("CHTLNB") if server.engine == "native" else set("CHTLN"))
        outcome = [mta.connect(), mta.helo(), mta.message(parameters=[b"connect=reject;eoh=reject;data=raise"])]
        assert outcome[:2] == [None, None]
        # data raised where there is no answer: the end of the message tells
        assert outcome[2] == Outcome(Reply("t"), "E", [])
        assert mta.message().final == CONTINUE
        assert mta.message(parameters=[b"mail=reject"]) == Outcome(Reply("y", b"550 5.7.1 no\0"), "M", [])
        mta.quit()
    server.until("close")


def test_silent_stages_are_answered_where_the_mta_does_not_know_silence(start: Start) -> None:
    server = start(answers=[])
    with _begin(server, steps=ALL_STEPS & ~ALL_NO_REPLY) as mta:
        assert mta.message() == Outcome(CONTINUE, "E", [])
        mta.quit()
    assert "end_of_message" in _methods(server.until("close"))


def test_a_body_that_is_not_wanted_is_skipped(server: Server) -> None:
    with _begin(server) as mta:
        assert mta.steps & SKIP
        outcome = mta.message(body=b"x" * 65535 * 3, parameters=[b"body=decline"])
        mta.quit()
    assert outcome == Outcome(CONTINUE, "E", [])
    assert _calls(server.until("close"), "body") == [[65535]]


def test_an_mta_that_knows_no_skip_may_send_on(server: Server) -> None:
    with _begin(server, steps=ALL_STEPS & ~SKIP) as mta:
        outcome = mta.message(body=b"x" * 65535 * 3, parameters=[b"body=decline"])
        mta.quit()
    assert outcome == Outcome(CONTINUE, "E", [])
    assert _calls(server.until("close"), "body") == [[65535]]


def test_an_mta_of_version_2(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate(version=2, actions=0x3F, steps=0x7F)
        assert (mta.version, mta.actions, mta.steps, mta.macro_lists) == (2, 0x31, 0, {})
        mta.connect()
        mta.helo()
        outcome = mta.message(fields=[(b"Subject", b" folded\n text")], parameters=[b"eom=edit"])
        mta.quit()
    assert outcome.edits[2:] == [
        Reply("i", b"\0\0\0\0Authentication-Results\0mx.example.net;\n\tspf=pass\0"),
        Reply("h", b"X-Spam-Flag\0NO\0"),
    ]
    assert _calls(server.until("close"), "header") == [["Subject", " folded\r\n text"]]


def test_an_mta_of_a_later_version_is_answered_with_ours(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate(version=9, actions=0xFFFFFFFF, steps=0x0FFFFFFF)
        assert (mta.version, mta.actions) == (6, 0x131)
        assert mta.steps == 0x100 | SKIP | LEADING_SPACE
        assert mta.macro_lists[0].split()[0] == b"j"
        assert b"{auth_authen}" in mta.macro_lists[2]
        mta.quit()
    server.until("close")


def test_an_mta_of_version_1_is_refused(server: Server) -> None:
    with MilterClient(server.address) as mta, pytest.raises(ClosedError):
        mta.negotiate(version=1)


@pytest.mark.parametrize(
    ("family", "address", "heard"),
    [
        ("4", b"192.0.2.7", ["4", 40000, "192.0.2.7"]),
        ("6", b"2001:db8::7", ["6", 40000, "2001:db8::7"]),
        ("6", b"IPv6:2001:db8::7", ["6", 40000, "2001:db8::7"]),
        ("L", b"/run/x.sock", ["L", 0, "/run/x.sock"]),
        ("U", b"", ["U", 0, ""]),
    ],
)
def test_the_kinds_of_client(server: Server, family: str, address: bytes, heard: list[Any]) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        mta.connect(family=family, address=address, port=0 if family == "L" else 40000)
        mta.quit()
    assert _calls(server.until("close"), "connect") == [["client.example.net", *heard, {}]]


def test_an_unknown_smtp_command_changes_nothing(server: Server) -> None:
    with _begin(server, steps=ALL_STEPS & ~0x20100) as mta:
        mta.send("U", b"XFOO bar\0")
        assert mta.receive() == CONTINUE
        assert mta.message().final == CONTINUE
        mta.quit()
    server.until("close")


def test_an_unknown_packet_is_answered(server: Server) -> None:
    _native_only(server, "closes the connection")
    with _begin(server) as mta:
        mta.send("Z", b"what?")
        assert mta.receive() == CONTINUE
        assert mta.message().final == CONTINUE
        mta.quit()
    server.until("close")


@pytest.mark.parametrize(
    "content",
    [b"M", b"M\0", b"M\0\0", b"Mi", b"Mi\0", b"Mi\x004b0A\0odd\0", b"?i\x004b0A\0", b"\xff\xff"],
    ids=repr,
)
def test_odd_macro_packets_do_no_harm(server: Server, content: bytes) -> None:
    if b"\0" in content and content.count(b"\0") % 2:
        _native_only(server, "crashes on a name without value")
    with _begin(server) as mta:
        mta.send("D", content)
        assert mta.message().final == CONTINUE
        mta.quit()
    server.until("close")


def test_an_empty_macro_packet_does_no_harm(server: Server) -> None:
    _native_only(server, "closes the connection")
    with _begin(server) as mta:
        mta.send("D")
        assert mta.message().final == CONTINUE
        mta.quit()
    server.until("close")


def test_a_helo_that_is_not_utf8_reaches_the_session(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        mta.connect()
        assert mta.helo(b"m\xfcller.example") == CONTINUE
        assert mta.message().final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _calls(calls, "helo") == [["m\xfcller.example", {}]]
    assert "end_of_message" in _methods(calls)


def test_a_host_name_that_is_not_utf8_reaches_the_session_with_the_address(server: Server) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        assert mta.connect(host=b"m\xfcller", macros={b"{client_addr}": b"192.0.2.7"}) == CONTINUE
        mta.helo()
        assert mta.message().final == CONTINUE
        mta.quit()
    (host, family, _, address, _) = _calls(server.until("close"), "connect")[0]
    assert (host, family, address) == ("m\xfcller", "4", "192.0.2.7")


def test_a_field_name_that_is_not_utf8_reaches_the_session(server: Server) -> None:
    with _begin(server) as mta:
        outcome = mta.message(fields=[(b"X-\xff", b" value"), (b"Subject", b" \xff")])
        mta.quit()
    assert outcome.final == CONTINUE
    calls = server.until("close")
    fields, cut = _calls(calls, "header"), _calls(calls, "header_cut")
    if server.engine == "native":
        assert (fields, cut) == ([["X-\xff", " value"], ["Subject", " \xff"]], [])
    else:
        assert (fields, cut) == ([["Subject", " \xff"]], [["X-\xff", 3]])


def test_eom_without_mail_is_answered(server: Server) -> None:
    _native_only(server, "does not answer")
    with _begin(server) as mta:
        assert mta.end_of_message() == Outcome(CONTINUE, "E", [])
        assert mta.rcpt(b"<b@example.net>") == CONTINUE
        assert mta.end_of_headers() == CONTINUE
        assert mta.message().final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _methods(calls)[:3] == ["connect", "helo", "mail"]


def test_the_last_chunk_may_come_with_eom(server: Server) -> None:
    with _begin(server) as mta:
        mta.mail(b"<a@example.org>")
        mta.rcpt(b"<b@example.net>")
        mta.data()
        mta.end_of_headers()
        mta.body(b"first")
        assert mta.end_of_message(b"last").final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _calls(calls, "body") == [["first"], ["last"]]
    assert _methods(calls)[-2:] == ["end_of_message", "close"]


def test_a_slow_verdict_is_announced(server: Server) -> None:
    with _begin(server) as mta:
        mta.mail(b"<a@example.org>", b"eom=sleep")
        mta.rcpt(b"<b@example.net>")
        mta.data()
        mta.end_of_headers()
        mta.send("E")
        replies = [mta.receive(), mta.receive()]
        while replies[-1] == Reply("p"):
            replies.append(mta.receive())
        assert replies[:2] == [Reply("p"), Reply("p")]
        assert replies[-1] == CONTINUE
        mta.quit()
    server.until("close")


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "header", "eoh", "body", "eom"])
def test_an_exception_defers_that_message_alone(server: Server, stage: str) -> None:
    with _begin(server) as mta:
        assert mta.message(parameters=[f"{stage}=raise".encode()]).final == Reply("t")
        assert mta.message().final == CONTINUE
        mta.quit()
    calls = server.until("close")
    assert _methods(calls).count("end_of_message") == (2 if stage == "eom" else 1)
    assert _methods(calls)[-1] == "close"


@pytest.mark.parametrize("stage", ["connect", "helo"])
def test_an_exception_before_mail_defers_the_whole_smtp_session(server: Server, stage: str) -> None:
    with MilterClient(server.address) as mta:
        mta.negotiate()
        mta.connect(host=f"{stage}=raise".encode())
        mta.helo()
        assert mta.message() == Outcome(Reply("t"), "M", [])
        mta.quit()
    calls = server.until("close")
    assert "mail" not in _methods(calls)
    assert any("as told" in line for line in server.errors)


@pytest.mark.parametrize("stage", ["connect", "mail", "header", "body", "eom"])
def test_an_exception_may_be_passed_over(start: Start, stage: str) -> None:
    server = start(on_error="accept")
    told = f"{stage}=raise".encode()
    with MilterClient(server.address) as mta:
        mta.negotiate()
        assert mta.connect(host=told) == CONTINUE
        assert mta.helo() == CONTINUE
        assert mta.message(parameters=[told]) == Outcome(CONTINUE, "E", [])
        mta.quit()
    assert _methods(server.until("close"))[-1] == "close"


def test_drain_waits_for_open_sessions_and_takes_no_new_ones(start: Start) -> None:
    server = start()
    path = server.address.removeprefix("unix:")
    with _begin(server) as mta:
        server.tell("stop")
        assert server.until("stopped")[-1][2] == 1
        server.tell("drain 10")
        assert mta.message().final == CONTINUE
        assert mta.message().final == CONTINUE
        assert os.path.exists(path), "the path belongs to whoever bound it"
        mta.quit()
    calls = server.until("drained")
    assert calls[-1][2] == 0
    assert _methods(calls).count("end_of_message") == 2
    assert server.process.wait(10) == 0


def test_after_the_drain_nobody_answers(start: Start) -> None:
    server = start()
    server.tell("stop")
    server.until("stopped")
    try:
        late = MilterClient(server.address, timeout=0.5)
    except ConnectionError:
        return  # nobody listens any more
    with late, pytest.raises((ClosedError, TimeoutError)):  # nobody accepts
        late.negotiate()


def test_drain_cuts_what_is_left(start: Start) -> None:
    server = start()
    with _begin(server) as mta:
        server.tell("drain 0.2")
        assert server.until("drained")[-1][2] == 1
        with pytest.raises(ClosedError):
            mta.receive()


def test_signals_that_the_worker_ignores_do_not_reach_libmilter_either(start: Start) -> None:
    server = start()
    with _begin(server) as mta:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) * 3:
            server.process.send_signal(number)
            assert mta.message().final == CONTINUE
        mta.quit()
    assert _methods(server.until("close")).count("end_of_message") == 9
    with _begin(server) as mta:
        assert mta.message().final == CONTINUE


def test_a_connection_too_many_hears_so_at_once_and_is_no_session(start: Start) -> None:
    server = start(bounds=[1, 0])
    with _begin(server) as served:
        with MilterClient(server.address) as one_more:
            one_more.negotiate()
            reply = one_more.connect()
            assert reply == Reply("y", b"421 4.3.2 Too busy, try again later\0")
            one_more.quit()
        assert served.message().final == CONTINUE
        served.quit()
    assert {call[0] for call in server.until("close")} == {1}, "the other one was no session"


def test_a_connection_waits_for_its_place(start: Start) -> None:
    server = start(bounds=[1, 1])
    _native_only(server, "has no queue of ours")
    with _begin(server) as served, MilterClient(server.address, timeout=1) as waiting:
        waiting.send("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))
        with pytest.raises(TimeoutError):
            waiting.receive()
        served.quit()
        assert waiting.receive().letter == "O"
