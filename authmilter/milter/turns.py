"""Fair turns: whoever sends much shares the event loop with those who send little.

A connection that has sent much asks for a turn before its next octets are looked at.  In one turn of the event loop a
client has one, however many connections it has; more of them wait for the next.  So a client with a hundred large
messages costs the others one piece of work (of 256 KB at most) in each turn of the loop, not a hundred.
"""

import asyncio
import socket
from collections import deque
from typing import Final

from authmilter.milter.wire import ConnectInfo

_MAPPED: Final = bytes(10) + b"\xff\xff"
FREE: Final = 16 * 1024  # octets that a connection may send before it needs a turn, and between two of them


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()  # clients that had theirs in this turn of the loop
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}

    def take(self, client: bytes) -> "asyncio.Future[None] | None":
        """Take a turn: None if it is at once, else what to wait for."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            loop.call_soon(self._next)
        if client not in self._taken:
            self._taken.add(client)
            return None
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        return turn

    def _next(self) -> None:
        """The next turn of the loop: everybody who waits has one."""
        self._taken.clear()
        for client, queue in list(self._waiting.items()):
            while queue:
                turn = queue.popleft()
                if not turn.done():  # its connection is gone
                    turn.set_result(None)
                    self._taken.add(client)
                    break
            if not queue:
                del self._waiting[client]
        if self._taken:
            asyncio.get_running_loop().call_soon(self._next)


def client_key(client: ConnectInfo) -> bytes:
    """Who counts as one client: an IPv4 address, a /64 of IPv6 (what one customer gets), or whatever the MTA said."""
    if client.family == "6":
        try:
            octets = socket.inet_pton(socket.AF_INET6, client.address.partition(b"%")[0].decode("ascii"))
        except (OSError, ValueError):
            pass
        else:
            if octets.startswith(_MAPPED):  # RFC 4291 section 2.5.5.2
                return socket.inet_ntop(socket.AF_INET, octets[12:]).encode()
            return octets[:8]
    return client.address[:64]
