"""Numbers in sentences for people."""

from math import ceil


def counted(number: int, things: str) -> str:
    """``1 message``, ``2 messages``; `things` is a plural that ends in s."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def seconds(time: float) -> str:
    """A time to wait, ``1 second``, ``300 seconds``: rounded up, since who comes early comes in vain."""
    return counted(max(ceil(time), 1), "seconds")
