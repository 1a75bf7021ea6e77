"""Macros by stage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.milter.macros import Macros


def known(*packets: bytes) -> dict[bytes, bytes]:
    macros = Macros()
    for packet in packets:
        macros.put(packet)
    return dict(macros)


@pytest.mark.parametrize(
    ("packets", "expected"),
    [
        ([], {}),
        ([b"Cj\0mx\0"], {b"j": b"mx"}),
        ([b"Cj\0mx\0", b"Ha\x001\0", b"Mi\x002\0"], {b"j": b"mx", b"a": b"1", b"i": b"2"}),
        ([b"Cj\0mx\0k\0v\0", b"Cj\0my\0"], {b"j": b"my"}),
        ([b"Ca\x001\0", b"Ha\x002\0"], {b"a": b"2"}),
        ([b"Ha\x002\0", b"Ca\x001\0"], {b"a": b"2"}),
        ([b"Rr\x001\0", b"Rs\x002\0"], {b"s": b"2"}),
        ([b"Ra\x001\0", b"Mi\x002\0"], {b"i": b"2"}),
        ([b"Mi\x001\0", b"Ei\x002\0", b"Ni\x003\0"], {b"i": b"2"}),
        ([b""], {}),
        ([b"C"], {}),
        ([b"Cj\0mx\0", b"C"], {}),
        ([b"Cj"], {}),
        ([b"Cj\0"], {}),
        ([b"Cj\0mx\0odd\0"], {b"j": b"mx"}),
        ([b"Cj\0\0"], {b"j": b""}),
        ([b"?j\0mx\0"], {}),
        ([b"C" + b"".join(b"%d\0v\0" % i for i in range(100_000))], {b"%d" % i: b"v" for i in range(256)}),
    ],
    ids=[
        "none",
        "one",
        "of several stages",
        "a later packet for a stage replaces the earlier one",
        "the later stage wins",
        "the later stage wins, whenever it came",
        "of the second recipient",
        "MAIL begins a new message",
        "EOM is later than EOH, whenever it came",
        "an empty packet",
        "a packet without a name",
        "a packet without a name replaces too",
        "a name without its end",
        "a name without value",
        "an odd number of strings",
        "an empty value",
        "of no known command",
        "too many",
    ],
)
def test_what_is_known(packets: list[bytes], expected: dict[bytes, bytes]) -> None:
    assert known(*packets) == expected


def test_the_end_of_a_message_keeps_what_belongs_to_the_session() -> None:
    macros = Macros()
    macros.put(b"Cj\0mx\0")
    macros.put(b"Mi\x001\0")
    during = dict(macros)
    macros.end_message()
    assert dict(macros) == {b"j": b"mx"}
    assert during == {b"j": b"mx", b"i": b"1"}
    macros.put(b"Ri\x002\0")
    assert dict(macros) == {b"j": b"mx", b"i": b"2"}
    macros.end_session()
    assert dict(macros) == {}


@given(st.lists(st.tuples(st.sampled_from([b"C", b"H", b"M", b"R", b"E", b"?", b""]), st.binary(max_size=12))))
def test_random_packets_do_no_harm(packets: list[tuple[bytes, bytes]]) -> None:
    for name, value in known(*(letter + data for letter, data in packets)).items():
        assert b"\0" not in name + value
