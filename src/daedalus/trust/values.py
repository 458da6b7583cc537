"""Values side by side: whether they are one, as JSON has them, and instants as people read them."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

#: Float sums may differ in their last digits (docs/semantics.md); no leak is that small.
NEAR = 1e-9


def same(actual: Any, expected: Any) -> bool:
    """Whether two values are one; floats to within what sums may differ, a NaN being itself.

    >>> same(0.1 + 0.2, 0.3), same([1, None], [1, None]), same(float("nan"), float("nan")), same(None, 0)
    (True, True, True, False)
    """
    if isinstance(actual, list) and isinstance(expected, list):
        return len(actual) == len(expected) and all(map(same, actual, expected))
    if isinstance(actual, float) and isinstance(expected, float | int):
        if math.isnan(actual) or math.isnan(expected):
            return math.isnan(actual) and math.isnan(expected)
        return actual == expected or abs(actual - expected) <= NEAR * max(abs(actual), 1.0)
    return bool(actual == expected) or (
        type(actual) is not type(expected) and None not in (actual, expected) and str(actual) == str(expected)
    )


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def instant_text(nanoseconds: int) -> str:
    """An instant as UTC text.

    >>> instant_text(1_500_000_000), instant_text(1)
    ('1970-01-01 00:00:01.500000', '1970-01-01 00:00:00.000000001')
    """
    micro, rest = divmod(nanoseconds, 1_000)
    at = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micro)  # noqa: DTZ001 - UTC, as all times are
    text = at.isoformat(sep=" ", timespec="microseconds" if micro % 1_000_000 or rest else "seconds")
    return f"{text}{rest:03d}" if rest else text
