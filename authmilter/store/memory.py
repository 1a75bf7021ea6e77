"""State of one process, gone when it ends: for tests, `check-message`, and sites that want nothing on disk.

Each worker has its own: it sees only its share of the connections, so counts of a limit are lower than they are, and a
greylisted sender may have to meet the same worker twice.  Room is bounded; who was not heard of the longest goes first.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from authmilter.errors import StoreError
from authmilter.interfaces import Space
from authmilter.store.entry import Row, added, counted, seen
from authmilter.store.front import Keyring, Primitives, Step, keep

MAX_ENTRIES = 100_000
_PAGE = 500


class MemoryStore(Primitives):
    """A mapping; nothing here waits, or fails before it is closed."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        hash_personal: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows: OrderedDict[tuple[str, bytes], Row] = OrderedDict()  # least recently used first
        self._max_entries = max_entries
        self._keyring = Keyring(secrets.token_bytes(32), hash_personal=hash_personal)
        self._clock = clock
        self._closed = False

    def __len__(self) -> int:
        return len(self._rows)

    async def _ask(self, operation: str, steps: Sequence[Step]) -> list[Any]:  # noqa: ARG002  none can fail
        if self._closed:
            raise StoreError("memory: closed")
        now = self._clock()
        return [self._do(step, now) for step in keep(steps, self._keyring)]

    async def _candidates(self, space: Space, key: str) -> list[bytes]:
        return self._keyring.candidates(space, key)

    async def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._rows.clear()

    def _do(self, step: Step, now: float) -> Any:
        verb = step[0]
        if verb == "purge":
            return self._purge(now)
        space, key = at = step[1:3]
        if verb == "scan":
            return self._scan(space, key, step[3], now)
        if verb == "delete":
            return self._rows.pop(at, None) is not None
        row = self._rows.get(at)
        if row is not None:
            self._rows.move_to_end(at)
        if verb == "get":
            return seen(row, now)
        result = None
        if verb == "put":
            row = Row(step[3], 0.0, 0.0, step[4], now + step[4])
        elif verb == "add":
            row, result = added(row, step[3], step[4], now)
        else:
            row, result = counted(row, step[3], step[4], step[5], now)
        if row is not None:
            self._rows[at] = row
            if len(self._rows) > self._max_entries:
                self._rows.popitem(last=False)
        return result

    def _purge(self, now: float) -> tuple[None, int]:
        dead = [at for at, row in self._rows.items() if row.expires <= now]
        for at in dead:
            del self._rows[at]
        return None, len(dead)

    def _scan(self, space: str, prefix: bytes, cursor: bytes, now: float) -> tuple[bytes | None, list[Any]]:
        keys = sorted(key for name, key in self._rows if name == space and key >= cursor and key.startswith(prefix))
        page = list(islice(keys, _PAGE))
        found = [(key, entry) for key in page if (entry := seen(self._rows[space, key], now))]
        return (page[-1] + b"\0" if len(keys) > _PAGE else None), found
