"""What an entry is in every back end: how it ages, fades and is counted.  Pure functions of a row and the time.

The scripts of `redis` say the same once more, in the server; one contract test holds for both.

Times are seconds.  `life` is what an entry was given when it was written, and `expires` a time of the wall clock, since
it must mean the same after a restart and to every process.  That clock may jump.  Ahead: what lives shorter than the
jump expires early, which forgets a rate window or ends a wait.  Back: an entry would live longer by that much; no age is
below 0 and no time left is above `life`, and whoever writes next makes it so in the row.
"""

from typing import NamedTuple

from authmilter.interfaces import Entry

MAX_LIFE = 36500 * 86400.0
MAX_COUNT = 1e15  # whole numbers are still exact
GONE = Entry(b"", 0.0, 0.0, 0.0)


class Row(NamedTuple):
    """An entry as it is kept; `total` is its count at the time ``expires - life``."""

    value: bytes
    total: float
    half_life: float
    life: float
    expires: float


def seen(row: Row | None, now: float) -> Entry | None:
    """The entry at that time; None if it has expired."""
    if row is None:
        return None
    value, total, half_life, life, expires = row
    left = expires - now
    if left <= 0.0:
        return None
    left = min(left, life)
    age = life - left
    if half_life and total:
        total *= 0.5 ** (age / half_life)
    return Entry(value, total, age, left)


def added(row: Row | None, value: bytes, ttl: float, now: float) -> tuple[Row | None, Entry | None]:
    """What `Store.add` writes, None for nothing, and what it returns."""
    entry = seen(row, now)
    if row is None or entry is None:
        return Row(value, 0.0, 0.0, ttl, now + ttl), None
    if row.expires - now > row.life:  # the clock was set back
        return row._replace(expires=now + row.life), entry
    return None, entry


def counted(row: Row | None, amount: float, ttl: float, half_life: float, now: float) -> tuple[Row | None, Entry]:
    """What `Store.incr` writes, None for nothing, and what it returns."""
    entry = seen(row, now)
    if row is None or entry is None:
        if amount <= 0.0:
            return None, GONE
        return Row(b"", amount, half_life, ttl, now + ttl), Entry(b"", amount, 0.0, ttl)
    total = min(max(entry.total + amount, 0.0), MAX_COUNT)
    if half_life:
        return Row(row.value, total, half_life, ttl, now + ttl), Entry(row.value, total, 0.0, ttl)
    # The window goes on.  It may have to end earlier: the clock was set back, or the site has shortened it.
    life = min(row.life, ttl)
    expires = min(row.expires, now + life)
    left = expires - now
    return Row(row.value, total, 0.0, life, expires), Entry(row.value, total, life - left, left)
