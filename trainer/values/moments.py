"""Read points in time from text, and write them.

A point in time is an int: microseconds since 1970 in UTC. Finer fractions are cut off. A time without a zone is UTC, and
a date is its midnight.
"""

from __future__ import annotations

import datetime as dt
import re

from trainer.values.numbers import plain_number

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)
_EARLIEST_TIME, _LATEST_TIME = (end.replace(tzinfo=dt.timezone.utc) for end in (dt.datetime.min, dt.datetime.max))
#: The first and the last point in time: years 1 to 9999.
EARLIEST, LATEST = ((end - _EPOCH) // _MICROSECOND for end in (_EARLIEST_TIME, _LATEST_TIME))
#: How messages describe a point in time.
EXAMPLES = "2026-03-01 or 2026-03-01T12:00:00Z"

# Years have four digits, all other parts two. PostgreSQL writes a zone as +00, BigQuery as " UTC", git as " +0000".
_ZONE = r"(?: ?(Z|z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2})?)?))?"
_EXTENDED = re.compile(
    r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2})"
    rf"(?:[Tt ]([0-9]{{2}})(?::([0-9]{{2}})(?::([0-9]{{2}})(?:[.,]([0-9]+))?)?)?{_ZONE})?)?"
)
_BASIC = re.compile(
    r"([0-9]{4})(?:([0-9]{2})([0-9]{2})"
    rf"(?:[Tt]([0-9]{{2}})(?:([0-9]{{2}})(?:([0-9]{{2}})(?:[.,]([0-9]+))?)?)?{_ZONE})?)?"
)


def match_moment(text: str) -> re.Match[str] | None:
    """Return the match of a text in the form of ISO 8601, as people and databases write it, or None.

    Groups: year, month, day, hour, minute, second, digits of the fraction, zone. Their values may be out of range.
    """
    return _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)


def parse_moment(text: str) -> int | None:
    """Return the point in time in a text, or None if the text is none, or outside the years 1 to 9999."""
    text = text.strip()
    match = match_moment(plain_number(text) or text)  # pandas writes a column of years with a gap as 2026.0
    if match is None:
        return None
    year, month, day = (int(part or 1) for part in match.groups()[:3])
    hour, minute, second = (int(part or 0) for part in match.groups()[3:6])
    offset = parse_offset(match[8])
    if offset is None:
        return None
    try:
        moment = dt.datetime(year, month, day, hour, minute, second, int((match[7] or "").ljust(6, "0")[:6]))
    except ValueError:
        return None
    microseconds = to_microseconds(moment) - offset
    return microseconds if EARLIEST <= microseconds <= LATEST else None


def parse_offset(zone: str | None) -> int | None:
    """Return the offset of a zone such as +02 or -05:30 in microseconds; None if it is out of range."""
    if zone is None or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    return (-1 if zone[0] == "-" else 1) * (hours * 3600 + minutes * 60 + seconds) * 1_000_000


def to_microseconds(moment: dt.datetime) -> int:
    """Return a datetime as a point in time; without a zone it is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND


def format_moment(microseconds: int) -> str:
    """Return a point in time in ISO 8601, for example 2026-03-01T12:00:00Z."""
    return (_EPOCH + microseconds * _MICROSECOND).isoformat().replace("+00:00", "Z")


def shorten_moment(microseconds: int) -> str:
    """Return a point in time in ISO 8601, as a date alone if it is midnight in UTC."""
    return format_moment(microseconds).removesuffix("T00:00:00Z")
