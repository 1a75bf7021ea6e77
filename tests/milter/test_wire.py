"""Packets and their contents, without sockets."""

import json
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.milter import wire
from authmilter.model import Stage
from authmilter.verdict import CONTINUE, Action, HeaderEdit, Reply, Verdict
from tests.shared import shared

EVERYTHING = wire.Options(6, 0x1FF, 0x1FFFFF)


def sample_packets() -> dict[str, bytes]:
    """The packets of the protocol's data set, by what they are."""
    lines = shared("milter-protocol/packets.jsonl").read_text().splitlines()
    return {row["what"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines) if row}


def feed(data: bytes, step: int) -> Iterator[wire.Packet]:
    """What comes out when octets go in `step` at a time."""
    packets = wire.Packets()
    for start in range(0, len(data), step):
        yield from packets.feed(data[start : start + step])


def content(packet: bytes, letter: int) -> bytes:
    """The data of one packet that must have that letter."""
    ((found, data, cut),) = feed(packet, len(packet))
    assert found == letter
    assert not cut
    return data


def header(data: bytes) -> tuple[bytes, bytes]:
    return wire.read_headers([data], leading_space=True)[0]


@pytest.mark.parametrize(
    ("what", "letter", "read", "expected"),
    [
        ("OPTNEG v6", "O", wire.read_offer, EVERYTHING),
        ("OPTNEG v2", "O", wire.read_offer, (2, 0x3F, 0x7F)),
        (
            "CONNECT IPv4 192.0.2.7 port 40000",
            "C",
            wire.read_connect,
            (b"client.example.net", "4", 40000, b"192.0.2.7"),
        ),
        ("CONNECT IPv6", "C", wire.read_connect, (b"client.example.net", "6", 40001, b"2001:db8::7")),
        (
            "CONNECT IPv6 with the IPv6: prefix some MTAs send",
            "C",
            wire.read_connect,
            (b"client.example.net", "6", 40001, b"2001:db8::7"),
        ),
        ("CONNECT unix socket", "C", wire.read_connect, (b"localhost", "L", 0, b"/run/x.sock")),
        (
            "CONNECT unknown family (no port, no address)",
            "C",
            wire.read_connect,
            (b"unknown", "U", 0, b""),
        ),
        ("HELO", "H", wire.read_text, b"client.example.net"),
        (
            "MAIL with ESMTP arguments",
            "M",
            wire.read_arguments,
            (b"<a@example.net>", b"SIZE=1000", b"BODY=8BITMIME"),
        ),
        ("MAIL null sender", "M", wire.read_arguments, (b"<>",)),
        ("RCPT", "R", wire.read_arguments, (b"<b@example.com>",)),
        ("HEADER", "L", header, (b"Subject", b"hello")),
        ("HEADER folded (line ends inside are LF)", "L", header, (b"Received", b"from a\r\n\tby b")),
        ("HEADER with a leading space kept (SMFIP_HDR_LEADSPC)", "L", header, (b"Subject", b" hello")),
        ("HEADER empty value", "L", header, (b"X-Empty", b"")),
        ("BODY", "B", bytes, b"line 1\r\nline 2\r\n"),
        ("BODYEOB carrying a last chunk", "E", bytes, b"last\r\n"),
        ("BODYEOB empty", "E", bytes, b""),
        ("DATA (v4+)", "T", bytes, b""),
        ("EOH", "N", bytes, b""),
        ("ABORT", "A", bytes, b""),
        ("QUIT", "Q", bytes, b""),
        ("QUIT_NC (v6)", "K", bytes, b""),
        ("UNKNOWN command (v3+)", "U", wire.read_text, b"XFOO bar"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) > 1 else "",
)
def test_what_the_mta_sends_is_read(what: str, letter: str, read: object, expected: object) -> None:
    assert callable(read)
    assert read(content(sample_packets()[what], ord(letter))) == expected


def insert(name: str, value: str) -> bytes:
    return wire.say_edit(HeaderEdit("insert", 0, name, value), leading_space=False)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("OPTNEG answer v6", wire.say_options(wire.Options(6, 0x11, 0x100000))),
        ("CONTINUE", wire.SAY_CONTINUE),
        ("ACCEPT", wire.SAY_ACCEPT),
        ("REJECT", wire.SAY_REJECT),
        ("TEMPFAIL", wire.SAY_TEMPFAIL),
        ("DISCARD", wire.SAY_DISCARD),
        ("SKIP (v6)", wire.SAY_SKIP),
        ("PROGRESS", wire.SAY_PROGRESS),
        ("REPLYCODE", wire.say_reply(Reply(550, "5.7.1", "rejected by policy"))),
        ("ADDHEADER", wire.say_edit(HeaderEdit("add", 0, "X-A", "b"), leading_space=False)),
        ("INSHEADER at 0", insert("Authentication-Results", "mx.example.com; none")),
        (
            "CHGHEADER delete (empty value)",
            wire.say_edit(HeaderEdit("delete", 2, "Authentication-Results"), leading_space=True),
        ),
        ("QUARANTINE", wire.say_quarantine("reason")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_we_say_is_written(what: str, said: bytes) -> None:
    assert said == sample_packets()[what]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64, 100_000])
def test_the_cut_of_the_octets_does_not_matter(step: int) -> None:
    samples = sample_packets()
    whole = [(p[4], p[5:], False) for p in samples.values()]
    assert list(feed(b"".join(samples.values()), step)) == whole


@pytest.mark.parametrize("length", [0, wire.MAX_SKIPPED + 1, 0xFFFFFFFF])
def test_a_length_that_is_none_ends_the_connection_after_what_came_before(length: int) -> None:
    packets = wire.Packets()
    seen = []
    with pytest.raises(wire.ProtocolError, match=str(length)):  # noqa: PT012  what came before is part of it
        for packet in packets.feed(wire.packet(b"H", b"x\0") + struct.pack(">I", length) + b"B"):
            seen.append(packet)  # noqa: PERF402
    assert seen == [(wire.HELO, b"x\0", False)]


@pytest.mark.parametrize("step", [1 << 16, (1 << 16) - 1, 10_000_000])
@pytest.mark.parametrize("excess", [1, 70_000, 3_000_000])
def test_a_packet_that_is_too_long_is_cut_and_the_next_one_found(excess: int, step: int) -> None:
    data = b"X\0" + b"v" * (wire.MAX_PACKET - 3 + excess)
    seen = list(feed(wire.packet(b"L", data) + wire.packet(b"N"), step))
    assert [(letter, len(part), cut) for letter, part, cut in seen] == [
        (wire.HEADER, wire.MAX_PACKET - 1, True),
        (wire.END_OF_HEADERS, 0, False),
    ]


@pytest.mark.parametrize("letter", [wire.BODY, wire.END_OF_MESSAGE])
@pytest.mark.parametrize("step", [1 << 16, 10_000_000])
def test_a_body_that_is_too_long_for_a_packet_comes_whole_in_pieces(step: int, letter: int) -> None:
    body = bytes(range(256)) * 20_000
    seen = list(feed(wire.packet(bytes([letter]), body) + wire.packet(b"Q"), step))
    assert b"".join(part for _, part, _ in seen) == body
    assert {(kind, cut) for kind, _, cut in seen[:-2]} == {(wire.BODY, True)}
    assert [(kind, cut) for kind, _, cut in seen[-2:]] == [(letter, False), (wire.QUIT, False)]


def test_no_more_than_a_packet_is_held() -> None:
    packets = wire.Packets()
    chunk = b"x" * 65536
    assert list(packets.feed(struct.pack(">I", wire.MAX_SKIPPED) + b"L")) == []
    for _ in range(wire.MAX_SKIPPED // len(chunk) - 1):
        list(packets.feed(chunk))
        assert len(packets._partial) <= wire.MAX_PACKET + len(chunk)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_random_octets_raise_nothing_but_protocol_error(chunks: list[bytes]) -> None:
    packets = wire.Packets()
    try:
        for chunk in chunks:
            for _letter, data, _cut in packets.feed(chunk):
                wire.read_connect(data)
                wire.read_text(data)
                wire.read_arguments(data)
                wire.read_headers([data], leading_space=False)
                wire.read_offer(data)
    except wire.ProtocolError:
        pass


@given(st.lists(st.tuples(st.sampled_from(b"ABCDEHKLMNOQRTUZ"), st.binary(max_size=30))), st.integers(1, 40))
def test_packets_survive_any_cut(sent: list[tuple[int, bytes]], step: int) -> None:
    octets = b"".join(wire.packet(bytes([letter]), data) for letter, data in sent)
    assert list(feed(octets, step)) == [(letter, data, False) for letter, data in sent]


@given(st.binary(max_size=40))
def test_a_client_is_always_made_of_connect(data: bytes) -> None:
    client = wire.read_connect(data)
    assert client.family in "46LU"
    assert 0 <= client.port <= 65535
    assert b"\0" not in client.host + client.address


@pytest.mark.parametrize(
    ("data", "leading_space", "value"),
    [
        (b"X\0 a\0", True, b" a"),
        (b"X\0a\0", True, b"a"),
        (b"X\0a\0", False, b" a"),
        (b"X\0 a\n\tb\0", True, b" a\r\n\tb"),
        (b"X\0 a\r\n\tb\0", True, b" a\r\n\tb"),
        (b"X\0 a\r\tb\0", True, b" a\r\tb"),
        (b"X\0 a\0b\0", True, b" a\0b"),
        (b"X\0 a", True, b" a"),
        (b"X", True, b""),
        (b"X\0\0", True, b""),
    ],
    ids=repr,
)
def test_header_values(data: bytes, leading_space: bool, value: bytes) -> None:
    assert wire.read_headers([data, data], leading_space=leading_space) == [(b"X", value)] * 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("plain", ["plain"]),
        ("100% of it %s", ["100%% of it %%s"]),
        ("a\r\n450 b", ["a", "450 b"]),
        ("a\rb\0c\x1bd\x7fe\x85f", ["a b c d e f"]),
        ("caf\xe9 \U0001f600 \udcff", ["caf? ? ?"]),
        ("", ["Refused"]),
        (" \n \r\n", ["Refused"]),
        ("w" * 481, ["w" * 480, "w"]),
        ("word " * 120, [("word " * 96).strip(), ("word " * 24).strip()]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_text_of_replies(text: str, lines: list[str]) -> None:
    assert wire.reply_lines(Reply(550, "5.7.1", text)) == lines


@given(st.text(max_size=200) | st.text("ab\r\n\0 %\u2028", max_size=3000))
def test_no_reply_breaks_out_of_its_lines(text: str) -> None:
    data = content(wire.say_reply(Reply(451, "4.7.1", text)), ord("y"))
    assert data.endswith(b"\0")
    lines = data[:-1].split(b"\r\n")
    assert 1 <= len(lines) <= 32
    assert all(line.startswith(b"451-4.7.1 ") for line in lines[:-1])
    assert lines[-1].startswith(b"451 4.7.1 ")
    for line in lines:
        assert all(32 <= octet < 127 for octet in line)
        assert len(line.replace(b"%%", b"%")) <= 510  # RFC 5321 section 4.5.3.1.5
        assert line.count(b"%") % 2 == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("mx; spf=pass", "mx; spf=pass"),
        ("mx;\n\tspf=pass\n dkim=none", "mx;\n\tspf=pass\n dkim=none"),
        ("mx;\r\n\tspf=pass", "mx;\n\tspf=pass"),
        ("a\nBcc: b", "a Bcc: b"),
        ("a\n\nb", "a  b"),
        ("a\n \n\tb", "a  \n\tb"),
        ("a\rb\0c", "a b c"),
        ("a\n", "a "),
        ("caf\xe9 \udcff", "caf\xe9 ?"),
    ],
    ids=repr,
)
def test_values_of_fields_that_we_add(value: str, written: str) -> None:
    assert wire.field_value(value) == written


@given(st.text(max_size=100) | st.text("a \t\r\n\0", max_size=30))
def test_no_value_ends_its_field(value: str) -> None:
    lines = wire.field_value(value).encode().split(b"\n")
    assert all(line[:1] in (b" ", b"\t") and line.strip() for line in lines[1:])
    assert not any(octet < 32 and octet != 9 for line in lines for octet in line)


@pytest.mark.parametrize("name", ["X-A", "X\r\n-A", "X-A:", "X -A", "\0X-A\xe9"], ids=repr)
def test_names_of_fields_have_nothing_else(name: str) -> None:
    assert wire.field_name(name) == "X-A"


def test_indices_stay_within_the_protocol() -> None:
    assert wire.say_edit(HeaderEdit("insert", -5, "A", "b"), leading_space=False)[5:9] == bytes(4)
    assert wire.say_edit(HeaderEdit("insert", 1 << 40, "A", "b"), leading_space=False)[5:9] == b"\x7f\xff\xff\xff"


EDIT = HeaderEdit("add", 0, "X-A", "b")


@pytest.mark.parametrize(
    ("verdict", "stage", "said"),
    [
        (CONTINUE, Stage.MAIL, b"c"),
        (Verdict(Action.ACCEPT), Stage.MAIL, b"c"),
        (Verdict(Action.ACCEPT), Stage.EOM, b"c"),
        (Verdict(Action.TAG, edits=(EDIT,)), Stage.EOM, b"hc"),
        (Verdict(Action.TAG, edits=(EDIT,)), Stage.EOH, b"c"),
        (Verdict(Action.CONTINUE, edits=(EDIT,)), Stage.EOM, b"hc"),
        (Verdict(Action.QUARANTINE, edits=(EDIT,)), Stage.EOM, b"hqc"),
        (Verdict(Action.QUARANTINE), Stage.MAIL, b"c"),
        (Verdict(Action.DISCARD, edits=(EDIT,)), Stage.EOM, b"d"),
        (Verdict(Action.REJECT, Reply(554, "5.7.1", "x"), edits=(EDIT,)), Stage.EOM, b"y"),
        (Verdict(Action.REJECT), Stage.RCPT, b"r"),
        (Verdict(Action.REJECT, Reply(451, "4.7.1", "x")), Stage.RCPT, b"r"),
        (Verdict(Action.TEMPFAIL, Reply(451, "4.7.1", "x")), Stage.RCPT, b"y"),
        (Verdict(Action.TEMPFAIL, Reply(550, "5.7.1", "x")), Stage.RCPT, b"t"),
        (Verdict(Action.TEMPFAIL), Stage.RCPT, b"t"),
    ],
    ids=lambda value: f"{value.action} {len(value.edits)}" if isinstance(value, Verdict) else str(value),
)
def test_the_packets_of_a_verdict(verdict: Verdict, stage: Stage, said: bytes) -> None:
    packets = list(feed(wire.say_verdict(verdict, stage, EVERYTHING), 1000))
    assert bytes(letter for letter, _, _ in packets) == said


@pytest.mark.parametrize(
    ("offer", "answered", "chosen"),
    [
        ((6, 0x1FF, 0x1FFFFF), set(Stage), (6, 0x131, 0x100500)),
        ((7, 0x1FF, 0x1FFFFF), set(Stage), (6, 0x131, 0x100500)),
        ((6, 0x1FF, 0x1FFFFF), set(), (6, 0x131, 0x1DF580)),
        ((6, 0x1FF, 0x1FFFFF), {Stage.MAIL, Stage.EOM}, (6, 0x131, 0x1DB580)),
        ((6, 0x1FF, 0x000FFF), set(), (6, 0x131, 0x580)),
        ((3, 0x3F, 0x17F), set(), (3, 0x31, 0x100)),
        ((2, 0x3F, 0x7F), set(), (2, 0x31, 0)),
    ],
)
def test_no_more_is_chosen_than_was_offered(
    offer: tuple[int, int, int], answered: set[Stage], chosen: tuple[int, int, int]
) -> None:
    assert wire.choose(wire.Options(*offer), frozenset(answered)) == chosen


@pytest.mark.parametrize(
    ("data", "offer"),
    [(struct.pack(">III", 2, 0, 0), (2, 0x0F, 0x3F)), (struct.pack(">IIII", 6, 1, 2, 9), (6, 1, 2))],
    ids=["an offer of nothing is version 1's", "what is beyond is passed over"],
)
def test_offers(data: bytes, offer: tuple[int, int, int]) -> None:
    assert wire.read_offer(data) == offer


@pytest.mark.parametrize("data", [b"", b"\0" * 11, struct.pack(">III", 1, 0x3F, 0x7F), bytes(12)], ids=repr)
def test_offers_that_are_none(data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.read_offer(data)


def test_the_macros_that_we_want_are_asked_for_by_stage() -> None:
    data = content(wire.say_options(EVERYTHING._replace(actions=0x131)), wire.NEGOTIATE)[12:]
    lists: dict[int, bytes] = {}
    while data:
        names, _, rest = data[4:].partition(b"\0")
        lists[int.from_bytes(data[:4], "big")] = names
        data = rest
    assert set(lists) == {0, 1, 2, 3, 5, 6}
    assert lists[0] == b"j v {client_addr} {client_name} {client_ptr} {client_port} {daemon_name}"
