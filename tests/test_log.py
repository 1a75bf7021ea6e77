"""The log: one line per message, and nothing of the message raw in it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from authmilter.log import LOGGER, configure, message_line, quote


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    yield io.StringIO()
    LOGGER.handlers = []
    LOGGER.propagate = True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.org", "example.org"),
        ("a@b.example", "a@b.example"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("line\r\nbreak", '"line\\x0d\\x0abreak"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("\x9b31m", '"\\x9b31m"'),
        ("bücher", '"b\\xfccher"'),
        ("\u202eevil", '"\\u202eevil"'),
    ],
)
def test_values_are_quoted(text: str, expected: str) -> None:
    assert quote(text) == expected


def test_a_message_is_one_line_of_text(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    message_line({"ref": "am-1", "helo": "a\nb", "dkim": ["pass", "fail"], "score": 1.5})
    assert stream.getvalue() == 'info: message ref=am-1 helo="a\\x0ab" dkim=pass,fail score=1.5\n'


def test_json_has_the_same_keys(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    message_line({"ref": "am-1", "helo": "a\nb"})
    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["level"], entry["ref"], entry["helo"]) == ("message", "info", "am-1", "a\nb")


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    configure("text", "warning", stream)
    message_line({"ref": "am-1"})
    assert stream.getvalue() == ""


def test_other_lines_lose_their_control_characters(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    logging.getLogger("authmilter.test").warning("client said %s", "x\r\ny")
    assert stream.getvalue() == "warning: client said x\\x0d\\x0ay\n"


def test_a_traceback_follows_its_line(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    try:
        int("oops")
    except ValueError:
        logging.getLogger("authmilter.test").exception("failed")
    assert stream.getvalue().startswith("error: failed\nTraceback")
