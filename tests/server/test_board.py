"""Words from one process to others."""

import os
import random
import time

import pytest

from authmilter.server.board import SIZE, Board


def test_nothing_is_read_before_something_is_written() -> None:
    assert Board().read() is None


def test_a_child_writes_and_we_read() -> None:
    board = Board()
    pid = os.fork()
    if pid == 0:
        board.write({"keys": ["ü"] * 1000})
        board.write({"keys": ["\x00"]})
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.read() == {"keys": ["\x00"]}


def test_what_is_too_large_leaves_what_was_there() -> None:
    board = Board()
    board.write([1])
    with pytest.raises(ValueError, match="too much"):
        board.write("x" * SIZE)
    assert board.read() == [1]


def test_a_writer_that_died_in_the_middle_is_nobodys_trouble() -> None:
    board = Board()
    board.write(["x" * 100])
    board._memory[20:24] = b"yyyy"
    assert board.read() is None
    board._memory[0:4] = b"\xff\xff\xff\xff"
    assert board.read() is None
    board.write([2])
    assert board.read() == [2]


def test_a_value_is_read_whole_while_another_writes() -> None:
    board = Board()
    board.write(["0" * 10])
    pid = os.fork()
    if pid == 0:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            board.write([str(random.randrange(10)) * random.randrange(1, 20000)])
        os._exit(0)
    found = []
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        found.append(board.read())
    values = [one[0] for one in found if one is not None]
    assert len(values) > 10
    assert all(len(set(value)) == 1 for value in values)
