"""Every kind of value: what is read, what is refused, and that what is written reads back."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.config.option import (
    FilePath,
    Limit,
    Limits,
    Mode,
    Names,
    Networks,
    Seconds,
    Size,
    Threshold,
    Weight,
    Weighted,
    WeightedNames,
    Workers,
    kind_of,
    option,
    options_of,
    shown,
    suggestion,
)
from authmilter.networks import NameList, NetworkList
from authmilter.verdict import Action

READ = [
    (Weight, "1.5", 1.5),
    (Weight, "-2", -2.0),
    (Weight, "Reject", Action.REJECT),
    (WeightedNames, "", ()),
    (WeightedNames, "a", (Weighted("a"),)),
    (WeightedNames, "a = 1, b=accept\nc", (Weighted("a", 1.0), Weighted("b", Action.ACCEPT), Weighted("c"))),
    (bool, "yes", True),
    (bool, "TRUE", True),
    (bool, "On", True),
    (bool, "1", True),
    (bool, "no", False),
    (bool, "false", False),
    (bool, "off", False),
    (bool, "0", False),
    (bool | None, "", None),
    (bool | None, "no", False),
    (int, "20000", 20000),
    (int, "-3", -3),
    (float, "1e3", 1000.0),
    (float, "-.5", -0.5),
    (str, "", ""),
    (str, "a b; c", "a b; c"),
    (Seconds, "500ms", 0.5),
    (Seconds, "5s", 5.0),
    (Seconds, "10m", 600.0),
    (Seconds, "36h", 129600.0),
    (Seconds, "30d", 2592000.0),
    (Seconds, "1.5 S", 1.5),
    (Seconds, "7", 7.0),
    (Seconds, "0", 0.0),
    (Size, "64K", 65536),
    (Size, "25m", 26214400),
    (Size, "1G", 1073741824),
    (Size, "1.5K", 1536),
    (Size, "100", 100),
    (Mode, "0660", 0o660),
    (Mode, "660", 0o660),
    (Mode, "0o600", 0o600),
    (Workers, "auto", 0),
    (Workers, "4", 4),
    (Threshold, "", None),
    (Threshold, "5", 5.0),
    (Names, "", ()),
    (Names, "a, b,,c,", ("a", "b", "c")),
    (Names, "\na\nb, c", ("a", "b", "c")),
    (Networks, "127.0.0.1", (IPv4Network("127.0.0.1/32"),)),
    (
        Networks,
        "10.0.0.0/8, ::1\n2001:db8::/32",
        (IPv4Network("10.0.0.0/8"), IPv6Network("::1/128"), IPv6Network("2001:db8::/32")),
    ),
    (Limits, "", ()),
    (Limits, "60/1m, 1000/1d\n300/1H", (Limit(60, 60.0), Limit(1000, 86400.0), Limit(300, 3600.0))),
    (FilePath, "/etc/key.pem", "/etc/key.pem"),
    (Literal["text", "json"], "JSON", "json"),
    (Literal["", "accept"], "", ""),
]


LISTS = {Names: NameList, Networks: NetworkList}  # tuples that can be searched


@pytest.mark.parametrize(("annotation", "text", "value"), READ, ids=[f"{a!s} from {t!r}" for a, t, _ in READ])
def test_reads(annotation: Any, text: str, value: object) -> None:
    found = kind_of(annotation).read(text)
    assert found == value
    assert type(found) is LISTS.get(annotation, type(value))


REFUSED = [
    (Weight, "", "is empty, expected a number or an action"),
    (
        Weight,
        "rejct",
        "'rejct' is neither a number nor one of: accept, discard, quarantine, reject, tag, tempfail, did you mean 'reject'?",
    ),
    (
        Weight,
        "continue",
        "'continue' is neither a number nor one of: accept, discard, quarantine, reject, tag, tempfail",
    ),
    (
        Weight,
        "3 # x",
        "'3 # x' is neither a number nor one of: accept, discard, quarantine, reject, tag, tempfail; a comment behind a value begins with ';'",
    ),
    (Weight, "-1001", "'-1001' is beyond 1000"),
    (WeightedNames, "a b = 1", "'a b' has blanks in it; items are parted by commas or lines"),
    (WeightedNames, "= 1", "'= 1' names nothing before '='"),
    (WeightedNames, "a =", "is empty, expected a number or an action"),
    (bool, "", "is empty, expected yes or no"),
    (bool, "yse", "'yse' is neither yes nor no, did you mean 'yes'?"),
    (int, "1_000", "'1_000' is not a whole number"),
    (int, "٣", "'٣' is not a whole number"),
    (int, "3.0", "'3.0' is not a whole number"),
    (int, "9" * 5000, f"'{'9' * 57}...' is not a whole number"),
    (int, "5 # five", "'5 # five' is not a whole number; a comment behind a value begins with ';'"),
    (float, "nan", "'nan' is not a number"),
    (float, "1e999", "'1e999' is not a finite number"),
    (str, "a\nb", "has several lines; an indented line continues the one above it"),
    (Seconds, "", "is empty, expected a duration such as 500ms 5s 10m 36h 30d"),
    (Seconds, "5 weeks", "'5 weeks' is not a duration such as 500ms 5s 10m 36h 30d"),
    (Seconds, "-5s", "'-5s' is not a duration such as 500ms 5s 10m 36h 30d"),
    (Seconds, "1h30m", "'1h30m' is not a duration such as 500ms 5s 10m 36h 30d"),
    (Seconds, "999999d", "'999999d' is longer than 36500d"),
    (Size, "1.0001K", "'1.0001K' is not a whole number of octets"),
    (Size, "64X", "'64X' is not a size such as 64K 25M 1G"),
    (Mode, "0888", "'0888' is not a mode in octal such as 0660"),
    (Mode, "04755", "'04755' is not a mode in octal such as 0660"),
    (Workers, "0", "'0' is neither auto nor a number of processes"),
    (Workers, "-1", "'-1' is neither auto nor a number of processes"),
    (Names, "a b", "'a b' has blanks in it; items are parted by commas or lines"),
    (Networks, "10.1.2.3/8", "'10.1.2.3/8' has bits set beyond its length, did you mean '10.0.0.0/8'?"),
    (Networks, "2001:db8::1/32", "'2001:db8::1/32' has bits set beyond its length, did you mean '2001:db8::/32'?"),
    (Networks, "example.org", "'example.org' is not an address or network such as 192.0.2.0/24 or 2001:db8::/32"),
    (Networks, "fe80::1%eth0", "'fe80::1%eth0' has a zone; clients come without one"),
    (Limits, "300", "'300' is not a limit such as 60/1m or 1000/1d"),
    (Limits, "0/1h", "'0/1h' is not a limit such as 60/1m or 1000/1d"),
    (Limits, "-1/1h", "'-1/1h' is not a limit such as 60/1m or 1000/1d"),
    (Limits, "9999999999/1h", "'9999999999/1h' is not a limit such as 60/1m or 1000/1d"),
    (Limits, "5/", "is empty, expected a duration such as 500ms 5s 10m 36h 30d"),
    (Limits, "5/hour", "'hour' is not a duration such as 500ms 5s 10m 36h 30d"),
    (Limits, "5/500ms", "'5/500ms' is for a time that is not in 1s..366d"),
    (Limits, "5/400d", "'5/400d' is for a time that is not in 1s..366d"),
    (Limits, "5/1h, 6/60m", "5/1h and 6/1h are for the same time"),
    (Limits, "100/1d, 100/1h", "100/1h would never be reached beside 100/1d"),
    (Literal["text", "json"], "jsn", "'jsn' is not one of: text, json, did you mean 'json'?"),
    (Literal["text", "json"], "", "is empty, expected text, json"),
]


@pytest.mark.parametrize(
    ("annotation", "text", "message"), REFUSED, ids=[f"{a!s} not from {shown(t)}" for a, t, _ in REFUSED]
)
def test_refuses(annotation: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind_of(annotation).read(text)


def test_a_type_without_a_text_form_is_no_option() -> None:
    with pytest.raises(TypeError, match="not the type of an option"):
        kind_of(dict)


ITEMS = st.text(st.characters(codec="utf-8", exclude_characters=",\n"), min_size=1).filter(
    lambda s: len(s.split()) == 1 and s == s.strip()
)
WEIGHTS = st.floats(-1000, 1000) | st.sampled_from([action for action in Action if action is not Action.CONTINUE])
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    Weight: WEIGHTS,
    WeightedNames: st.lists(st.builds(Weighted, ITEMS.filter(lambda text: "=" not in text), st.none() | WEIGHTS)).map(
        tuple
    ),
    bool: st.booleans(),
    bool | None: st.none() | st.booleans(),
    int: st.integers(-(10**18) + 1, 10**18 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(st.characters(codec="utf-8", exclude_characters="\n")),
    FilePath: st.text(st.characters(codec="utf-8", exclude_characters="\n")),
    Seconds: st.floats(0, 36500 * 86400) | st.integers(0, 36500 * 86400).map(float),
    Size: st.integers(0, 10**17),
    Mode: st.integers(0, 0o777),
    Workers: st.integers(0, 10**6),
    Threshold: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    Names: st.lists(ITEMS).map(tuple),
    Networks: st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda n: IPv4Network(n, strict=False))
        | st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda n: IPv6Network(n, strict=False))
    ).map(tuple),
    Limits: st.dictionaries(st.floats(1, 366 * 86400), st.none(), max_size=20).map(
        lambda periods: tuple(Limit(n, period) for n, period in enumerate(sorted(periods), 1))
    ),
    Literal["", "accept", "defer"]: st.sampled_from(["", "accept", "defer"]),
}


@pytest.mark.parametrize("annotation", VALUES, ids=str)
@given(data=st.data())
def test_what_is_written_reads_back(annotation: Any, data: st.DataObject) -> None:
    value = data.draw(VALUES[annotation])
    kind = kind_of(annotation)
    assert kind.read(kind.write(value)) == value


@pytest.mark.parametrize("annotation", VALUES, ids=str)
@given(text=st.text())
def test_any_text_is_read_or_refused_with_words(annotation: Any, text: str) -> None:
    message = "read"
    try:
        kind_of(annotation).read(text)
    except ValueError as error:
        message = str(error)
    assert message
    assert "\n" not in message


WRITTEN = [
    (Seconds, 0.0, "0s"),
    (Seconds, 0.5, "500ms"),
    (Seconds, 90.0, "90s"),
    (Seconds, 7200.0, "2h"),
    (Seconds, 0.0001, "0.0001s"),
    (Size, 50 * 1024 * 1024, "50M"),
    (Size, 0, "0"),
    (Mode, 0o600, "0600"),
    (Workers, 0, "auto"),
    (Threshold, None, ""),
    (Networks, (IPv4Network("10.0.0.0/8"), IPv6Network("::1/128")), "10.0.0.0/8, ::1"),
    (Limits, (Limit(60, 60.0), Limit(300, 5400.0)), "60/1m, 300/90m"),
]


@pytest.mark.parametrize(("annotation", "value", "text"), WRITTEN, ids=[t or "nothing" for _, _, t in WRITTEN])
def test_writes_the_short_form(annotation: Any, value: object, text: str) -> None:
    assert kind_of(annotation).write(value) == text


def lower(text: str) -> str:
    if text == "bad":
        raise ValueError("'bad' is bad")
    return text.lower()


@dataclass(frozen=True)
class Example:
    """Options of all sorts."""

    wait: Seconds = option(Seconds(5.0), "How long.", at_least=1, at_most=60)
    limit: Threshold = option(None, "How much.", at_least=0)
    name: str = option("", "Who.", each=lower)
    names: Names = option((), "Which.", each=lower, reload=False)
    worth: WeightedNames = option((), "How much each.", each=lower, example="a = 1")
    other: int = 3


def test_options_are_the_fields_made_by_option() -> None:
    options = options_of(Example)
    assert list(options) == ["wait", "limit", "name", "names", "worth"]
    assert options["worth"].example == "a = 1"
    assert options["wait"].help == "How long."
    assert [o.reload for o in options.values()] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("wait", "500ms", "'500ms' is too small, the least is 1s"),
        ("wait", "2m", "'2m' is too large, the most is 1m"),
        ("limit", "-1", "'-1' is too small, the least is 0.0"),
        ("name", "bad", "'bad' is bad"),
        ("names", "good, bad", "'bad' is bad"),
        ("worth", "good = 1, bad = 2", "'bad' is bad"),
    ],
    ids=[
        "below the least",
        "above the most",
        "a score below the least",
        "a bad text",
        "a bad item",
        "a bad item with a weight",
    ],
)
def test_bounds_and_normal_forms_are_checked(name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        options_of(Example)[name].read(text)


def test_bounds_do_not_touch_what_is_off_and_normal_forms_not_what_is_empty() -> None:
    def refuse(text: str) -> str:
        raise AssertionError(text)

    reject: Callable[[str], str] = refuse
    options = options_of(Example)
    assert options["limit"].read("") is None
    assert options["name"]._replace(each=reject).read("") == ""
    assert options["names"]._replace(each=reject).read("") == ()
    assert options["names"].read("A, B") == ("a", "b")
    assert options["worth"].read("A = 1, B") == (Weighted("a", 1.0), Weighted("b"))


def test_a_suggestion_needs_likeness_and_a_sane_length() -> None:
    assert suggestion("dellay", ["delay", "enabled"]) == ", did you mean 'delay'?"
    assert suggestion("zzz", ["delay"]) == ""
    assert suggestion("delay" * 1000, ["delay" * 999]) == ""


def test_shown_is_short_printable_and_one_line() -> None:
    assert shown("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(shown("x" * 10_000)) < 70
