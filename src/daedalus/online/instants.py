"""Instants as microseconds since 1970, and back."""

from __future__ import annotations

import datetime as dt
import time

import pyarrow as pa

US = 1_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def instant_us(instant: dt.datetime | None) -> int:
    """Microseconds since 1970 of an instant; None is now, naive is UTC.

    >>> instant_us(dt.datetime(1970, 1, 1, 0, 0, 1))
    1000000
    """
    if instant is None:
        return time.time_ns() // 1000
    since = (instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant) - _EPOCH
    return (since.days * 86_400 + since.seconds) * US + since.microseconds


def known_until(kind: pa.DataType, unit: str, now_us: int) -> int:
    """The last value of a time column that is not after an instant, as the number that it is.

    Args:
        kind: its type: days of a date, nanoseconds or microseconds of a timestamp.
        unit: of whole numbers.
        now_us: the instant.

    >>> known_until(pa.date32(), "", 86_400_000_000), known_until(pa.int64(), "s", 1_999_999)
    (1, 1)
    """
    if pa.types.is_date32(kind):
        return now_us // (86_400 * US)
    if pa.types.is_timestamp(kind):
        unit = "ns" if kind.unit == "ns" else "us"
    return now_us * 1000 if unit == "ns" else now_us // {"us": 1, "ms": 1_000, "s": US}[unit]


def instant_of(us: int) -> dt.datetime:
    """The instant of so many microseconds since 1970, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=us)
