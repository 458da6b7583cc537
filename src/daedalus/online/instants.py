"""Instants as microseconds since 1970, and back."""

from __future__ import annotations

import datetime as dt
import time

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


def instant_of(us: int) -> dt.datetime:
    """The instant of so many microseconds since 1970, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=us)
