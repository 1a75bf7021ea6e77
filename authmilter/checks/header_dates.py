"""When the message says that it was written (RFC 5322 section 3.3), against the time at which it is received."""

import re
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from authmilter.check import Tools, check
from authmilter.evidence import Finding
from authmilter.header_text import excerpt, value
from authmilter.model import Stage, Transaction
from authmilter.words import counted

HOUR = 3600.0
DAY = 24 * HOUR
_EPOCH = date(1970, 1, 1).toordinal()

_MONTHS = {name: number for number, name in enumerate((b"jan feb mar apr may jun jul aug sep oct nov dec").split(), 1)}
# With the obsolete forms of section 4.3 but for comments and blanks within the time, and with what many programs write:
# names in full, hyphens, fractions of a second, no zone, or one within parentheses.
_DATE = re.compile(
    rb"""(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}(?:,[ \t]*+|[ \t]++))?+
    (\d\d?)[ \t-]++([a-z]{3})[a-z]{0,6}\.?[ \t-]++(\d{2,4})[ \t]++
    (\d\d?):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?+
    [ \t]*+(?:([+-])(\d\d)([0-5]\d)|([a-z]{1,5}))?+
    [ \t]*+(?:\((?:[^()]++|\([^()]*+\))*+\))?+[ \t]*+""",
    re.VERBOSE | re.IGNORECASE,
)
# Section 4.3, and such as have one meaning only.  What others say is not known: they are to be read as -0000.
_ZONES = {
    b"ut": 0, b"gmt": 0, b"z": 0, b"utc": 0, b"wet": 0, b"west": 1, b"bst": 1, b"cet": 1, b"cest": 2, b"met": 1, b"mest": 2,
    b"eet": 2, b"eest": 3, b"msk": 3, b"jst": 9, b"nzst": 12, b"nzdt": 13,
    b"edt": -4, b"est": -5, b"cdt": -5, b"cst": -6, b"mdt": -6, b"mst": -7, b"pdt": -7, b"pst": -8,
}  # fmt: skip
EAST, WEST = 14 * 60, 12 * 60  # the farthest zones, in minutes: Line Islands, Baker Island
_QUARTER = 15  # minutes: no zone is off by less


class Written(NamedTuple):
    """A Date field as read.

    `time` is in seconds since 1970; it may be off by `spread` seconds, where the zone is not known.  `zone` is as written,
    "" if it is missing; `is_odd_zone`: no place has it.
    """

    time: float
    spread: float = 0.0
    zone: str = ""
    is_odd_zone: bool = False


def read_date(raw: bytes) -> Written | None:
    """Read the value of a Date field, by RFC 5322 and common habits; None if it is no date."""
    found = _DATE.fullmatch(raw)
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes, zone = found.groups()
    number = int(year)
    if len(year) < 4:
        number += 2000 if number < 50 else 1900  # RFC 5322 section 4.3, also of three digits: 103 is 2003
    try:
        days = date(number, _MONTHS[month.lower()], int(day)).toordinal() - _EPOCH
    except (KeyError, ValueError):  # 31 February, or the year 0
        return None
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 60:  # 60: a leap second
        return None
    time = days * DAY + hours * HOUR + minutes * 60 + seconds
    if sign is None:
        ahead = _ZONES.get((zone or b"").lower())
        if ahead is None:
            return Written(time, EAST * 60.0, (zone or b"").decode())
        return Written(time - ahead * HOUR, zone=zone.decode())
    offset = int(zone_hours) * 60 + int(zone_minutes)
    odd = offset > (EAST if sign == b"+" else WEST) or offset % _QUARTER != 0
    zone = sign + zone_hours + zone_minutes
    return Written(time + offset * 60 if sign == b"-" else time - offset * 60, 0.0, zone.decode(), odd)


@check(
    Stage.EOM,
    content=True,
    scores={"date_missing": 0.5, "date_malformed": 1.5, "date_future": 1.5, "date_past": 0.2, "date_zone": 2.5},
    meanings={
        "date_missing": "There is no Date, or an empty one.",
        "date_malformed": "Date can't be read; half of it where only the zone is missing.",
        "date_future": "Date is over two hours ahead of our clock; half of it up to twelve hours.",
        "date_past": "Date is over a week old.",
        "date_zone": "The zone of Date is none on Earth, such as -1700 or +0007.",
    },
)
def header_dates(tx: Transaction, tools: Tools) -> Iterator[Finding]:
    """Date is missing, malformed, in no zone on Earth, over a week old, or over two hours ahead of our clock.

    What is ahead has its full weight from twelve hours on: until then a clock may be set to the time of another zone.  A
    date that lacks nothing but its zone has half of the weight of what is malformed.
    """
    raw = value(tx.message, b"date")
    if not raw:
        yield Finding("date_missing")
        return
    written = read_date(raw)
    if written is None:
        yield Finding("date_malformed", excerpt(raw))
        return
    if not written.zone:
        yield Finding("date_malformed", f"{excerpt(raw)}, without a zone", 0.5)
    elif written.is_odd_zone:
        yield Finding("date_zone", written.zone)
    ahead = written.time - tools.now
    if ahead - written.spread > 2 * HOUR:
        strength = 1.0 if ahead - written.spread > 12 * HOUR else 0.5
        yield Finding("date_future", f"{counted(int(ahead // HOUR), 'hours')} ahead", strength)
    elif ahead + written.spread < -7 * DAY:
        yield Finding("date_past", f"{counted(int(-ahead // DAY), 'days')} old")
