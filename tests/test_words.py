"""Numbers as sentences have them."""

import pytest

from authmilter.words import counted, seconds


@pytest.mark.parametrize(("number", "text"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages")])
def test_one_thing_is_in_the_singular(number: int, text: str) -> None:
    assert counted(number, "messages") == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        pytest.param(300.0, "300 seconds", id="whole seconds"),
        pytest.param(1.0, "1 second", id="one second"),
        pytest.param(0.2, "1 second", id="less than one"),
        pytest.param(1.001, "2 seconds", id="a little more than one"),
        pytest.param(0.0, "1 second", id="a window that ends right now"),
        pytest.param(-3.0, "1 second", id="one that has ended"),
    ],
)
def test_a_time_to_wait_is_rounded_up(time: float, text: str) -> None:
    assert seconds(time) == text
