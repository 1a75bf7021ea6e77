"""The log: one line per message, and nothing of the message raw in it."""

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authmilter.log import LOGGER, MESSAGES, JsonFormatter, TextFormatter, configure, message_line, quote


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    level = LOGGER.level
    yield io.StringIO()
    LOGGER.handlers, LOGGER.filters, LOGGER.propagate = [], [], True
    MESSAGES.handlers, MESSAGES.filters, MESSAGES.propagate, MESSAGES.disabled = [], [], True, False
    LOGGER.setLevel(level)
    MESSAGES.setLevel(logging.NOTSET)
    for name in ("asyncio", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)


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
    message_line({"ref": "am-1", "helo": "a\nb", "dkim": "pass,fail", "score": 1.5})
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


def test_other_lines_are_printable_ascii(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    logging.getLogger("authmilter.test").warning("client said %s", "\u202e\x9b\x7fü \U0001f600")
    assert stream.getvalue() == "warning: client said \\u202e\\x9b\\x7f\\xfc \\U0001f600\n"


def fail(text: str) -> None:
    raise ValueError(text)


HOSTILE = 'x\r\nerror: message ref=am-1 "\x1b[31m\\ \u202e'


@pytest.mark.parametrize("fields", [None, {"ref": "am-1"}], ids=["a sentence", "an event"])
def test_a_traceback_is_on_the_line_of_its_event(stream: io.StringIO, fields: dict[str, str] | None) -> None:
    configure("text", "info", stream)
    try:
        fail(HOSTILE)
    except ValueError:
        logging.getLogger("authmilter.test").exception("failed", extra={"fields": fields} if fields else None)
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    start = "error: failed ref=am-1 " if fields else "error: failed "
    assert line.startswith(f'{start}traceback="Traceback (most recent call last):\\x0a  File \\"')
    assert line.endswith('ValueError: x\\x0d\\x0aerror: message ref=am-1 \\"\\x1b[31m\\\\ \\u202e"\n')


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_long_traceback_is_cut_in_its_middle(stream: io.StringIO, output: str) -> None:
    configure(output, "info", stream)
    try:
        fail("x" * 1_000_000 + " the end")
    except ValueError:
        logging.getLogger("authmilter.test").exception("failed")
    line = stream.getvalue()
    assert len(line) < 20_000
    assert line.count("\n") == 1
    assert "Traceback (most recent call last)" in line
    assert "x[...]x" in line.replace("\\x0a", "").replace("\\n", "")
    assert line.rstrip('"}\n').endswith("the end")


UNCAUGHT = {
    "at the end": "raise ValueError(HOSTILE)",
    "in a thread": "import threading; t = threading.Thread(target=int, args=(HOSTILE,)); t.start(); t.join()",
    "in a task": """
async def fail(): raise ValueError(HOSTILE)
async def main():
    import gc
    asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
import asyncio; asyncio.run(main())
""",
    "a warning": "import warnings; warnings.warn('not a ValueError: ' + HOSTILE)",
    "in __del__": """
class C:
    def __del__(self): raise ValueError(HOSTILE)
C()
""",
}


@pytest.mark.parametrize("code", UNCAUGHT.values(), ids=UNCAUGHT)
@pytest.mark.parametrize("output", ["text", "json"])
def test_what_nobody_catches_is_one_line(code: str, output: str) -> None:
    start = f"from authmilter.log import *\nconfigure({output!r}, 'info')\nlog_uncaught()\nHOSTILE = {HOSTILE!r}\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stderr.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert "ValueError" in line
    assert line.startswith(("error: uncaught exception traceback=", "error: Task exception", "warning: ", '{"time": '))


# What a session gives: texts, mostly without anything to quote, numbers, and what a stranger has put into them.
VALUES = st.one_of(
    st.text(),
    st.text(alphabet='ab=" \\\n\x7f\x9bü', max_size=9),
    st.from_regex(r"[a-z0-9.@,()<>_-]{1,30}", fullmatch=True),
    st.sampled_from(["", '""', "a b=c"]),
    st.integers(),
    st.floats(),
)
FIELDS = st.dictionaries(st.sampled_from(["ref", "helo", "mail_from", "because", "score", "symbols", "ms"]), VALUES)


@given(FIELDS)
def test_a_line_has_every_value_as_if_it_stood_alone(fields: dict[str, Any]) -> None:
    words = [f"{key}={quote(str(value))}" for key, value in fields.items()]
    line = TextFormatter().line("info", 0.0, "message", fields)
    assert line == " ".join(["info: message", *words])
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("x action=accept", 'helo="x action=accept" action=reject', id="a blank and a key"),
        pytest.param('""', 'helo="\\"\\"" action=reject', id="what stands for an empty value"),
        pytest.param("", 'helo="" action=reject', id="an empty value"),
    ],
)
def test_a_value_cannot_pass_for_another_field(stream: io.StringIO, text: str, expected: str) -> None:
    configure("text", "info", stream)
    message_line({"helo": text, "action": "reject"})
    assert stream.getvalue() == f"info: message {expected}\n"


class Kept(logging.Handler):
    """A handler such as an administrator's tool attaches."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("output", ["text", "json"])
def test_the_line_is_the_same_whoever_else_listens(
    stream: io.StringIO, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.23456)
    configure(output, "info", stream)
    fields: dict[str, str | int | float] = {
        "ref": "am-1",
        "helo": "a\nb",
        "symbols": "",
        "score": 1.50,
        "rcpts": 2,
        "dkim": "pass,fail",
    }
    message_line(fields)
    alone = stream.getvalue()
    kept = Kept()
    MESSAGES.addHandler(kept)
    message_line(fields)
    (record,) = kept.records
    if output == "json":  # LogRecord has a clock of its own in Python 3.13
        first, second = (json.loads(line) for line in stream.getvalue().splitlines())
        assert first.pop("time") == 1.235
        assert second.pop("time") > 0
        assert list(first.items()) == list(second.items())
    else:
        assert stream.getvalue() == alone * 2
    assert (record.levelno, record.name, record.msg) == (logging.INFO, "authmilter.message", "message")
    assert record.__dict__["fields"] == fields


@pytest.mark.parametrize("logger", [MESSAGES, LOGGER, logging.getLogger()], ids=lambda logger: logger.name)
def test_handlers_of_others_get_the_record(stream: io.StringIO, logger: logging.Logger) -> None:
    configure("text", "info", stream)
    LOGGER.propagate = logger is logging.getLogger()
    kept, deaf = Kept(), Kept(logging.WARNING)
    logger.addHandler(kept)
    logger.addHandler(deaf)
    try:
        message_line({"ref": "am-1"})
    finally:
        logger.removeHandler(kept)
        logger.removeHandler(deaf)
    assert stream.getvalue() == "info: message ref=am-1\n"
    assert [record.__dict__["fields"] for record in kept.records] == [{"ref": "am-1"}]
    assert deaf.records == []


def silence_by_level() -> None:
    MESSAGES.setLevel(logging.WARNING)


def silence_by_handler_level() -> None:
    LOGGER.handlers[0].setLevel(logging.WARNING)


def silence_by_filter() -> None:
    MESSAGES.addFilter(lambda record: False)


def silence_by_handler_filter() -> None:
    LOGGER.handlers[0].addFilter(lambda record: False)


def silence_by_propagation() -> None:
    MESSAGES.propagate = False


def silence_by_disabling() -> None:
    MESSAGES.disabled = True


def silence_by_removal() -> None:
    LOGGER.handlers = [logging.NullHandler()]


@pytest.mark.parametrize(
    "silence",
    [
        silence_by_level,
        silence_by_handler_level,
        silence_by_filter,
        silence_by_handler_filter,
        silence_by_propagation,
        silence_by_disabling,
        silence_by_removal,
    ],
    ids=lambda silence: silence.__name__.replace("_", " "),
)
def test_the_logger_is_obeyed(stream: io.StringIO, silence: Any) -> None:
    configure("text", "info", stream)
    silence()
    message_line({"ref": "am-1"})
    assert stream.getvalue() == ""


def test_a_formatter_of_others_is_used(stream: io.StringIO) -> None:
    configure("text", "info", stream)
    LOGGER.handlers[0].setFormatter(logging.Formatter("%(name)s %(fields)s"))
    message_line({"ref": "am-1"})
    assert stream.getvalue() == "authmilter.message {'ref': 'am-1'}\n"


def test_our_formatter_serves_a_handler_of_others(stream: io.StringIO) -> None:
    configure("text", "info")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LOGGER.handlers[0].formatter)
    LOGGER.handlers = [handler]
    message_line({"ref": "am-1"})
    assert stream.getvalue() == "info: message ref=am-1\n"


def closed_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


def full_disk() -> TextIO:
    return open("/dev/full", "w", buffering=1)


@pytest.mark.parametrize("broken", [closed_pipe, full_disk], ids=["a closed pipe", "a full disk"])
@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "with a handler of others"])
def test_what_cannot_be_written_does_no_harm(
    stream: io.StringIO, broken: Any, output: str, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = broken()
    with pytest.raises(OSError):  # noqa: PT011  the number is of no matter
        print("can't be written", file=stderr)
    monkeypatch.setattr(sys, "stderr", stderr)
    configure(output, "info")
    kept = Kept()
    if others:
        LOGGER.addHandler(kept)
    message_line({"ref": "am-1"})
    logging.getLogger("authmilter.test").error("this neither")
    assert len(kept.records) == (2 if others else 0)
    with pytest.raises(OSError):  # noqa: PT011
        stderr.close()


def test_a_value_that_cannot_be_shown_does_no_harm(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info", stream)
    message_line({"ref": object()})  # type: ignore[dict-item]
    message_line({"ref": "am-2"})
    assert json.loads(stream.getvalue())["ref"] == "am-2"
    assert "not JSON serializable" in capsys.readouterr().err


def test_json_of_other_lines(stream: io.StringIO) -> None:
    configure("json", "info", stream)
    try:
        int("oops")
    except ValueError:
        logging.getLogger("authmilter.test").exception("failed %d", 1)
    entry = json.loads(stream.getvalue())
    assert list(entry) == ["time", "level", "event", "message", "traceback"]
    assert (entry["level"], entry["event"], entry["message"]) == ("error", "log", "failed 1")
    assert entry["traceback"].startswith("Traceback")


@given(FIELDS)
def test_json_has_every_value(fields: dict[str, Any]) -> None:
    line = JsonFormatter().line("info", 1.0, "message", fields)
    entry = {"time": 1.0, "level": "info", "event": "message", **fields}
    assert json.dumps(json.loads(line)) == json.dumps(entry)
    assert line.isascii()
    assert line.isprintable()
