"""Values of JSON or of a command line in the types of columns."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa

from daedalus.errors import DefinitionError
from daedalus.online.instants import instant_of, instant_us


def typed(values: list[Any], kind: pa.DataType, name: str) -> pa.Array:
    """Values of JSON or a command line in a column's type; times are ISO texts, UTC where they have no zone.

    Raises:
        DefinitionError: one does not fit.

    >>> typed([7, "8", None], pa.int64(), "user_id").to_pylist()
    [7, 8, None]
    >>> typed([2.5], pa.int64(), "user_id")
    Traceback (most recent call last):
    daedalus.errors.DefinitionError: values: 'user_id' does not fit int64: 2.5 is no whole number
    """
    try:
        values = [_checked(value, kind) for value in values]
        if pa.types.is_decimal(kind):
            values = [Decimal(repr(one)) if isinstance(one, float) else one for one in values]
        if any(isinstance(one, str) for one in values) and not pa.types.is_string(kind):
            if pa.types.is_binary(kind):
                return pa.array([None if one is None else str(one).encode() for one in values], kind)
            if pa.types.is_timestamp(kind):
                return pa.array([_time(one) for one in values], pa.timestamp("ns", kind.tz)).cast(kind)
            texts = pa.array([None if one is None else str(one) for one in values], pa.string())
            return texts.cast(kind)
        return pa.array(values, kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DefinitionError(f"{name!r} does not fit {kind}: {error}", where="values") from None


def _checked(value: Any, kind: pa.DataType) -> Any:
    """The value, times within it read; ValueError where Arrow would take it for another without a word."""
    if pa.types.is_integer(kind) and isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is no whole number")
    if pa.types.is_temporal(kind) and isinstance(value, int | float) and not pa.types.is_interval(kind):
        raise ValueError(f"{value} is no time; write it as ISO text")
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_nested(one, kind.value_type) for one in value]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        for field in value:
            if kind.get_field_index(field) < 0:
                raise ValueError(f"it has no field {field!r}")
        return {name: _nested(one, kind.field(name).type) for name, one in value.items()}
    return value


def _nested(value: Any, kind: pa.DataType) -> Any:
    value = _checked(value, kind)
    if not isinstance(value, str) or not pa.types.is_temporal(kind):
        return value
    if pa.types.is_timestamp(kind):
        return instant_of(instant_us(dt.datetime.fromisoformat(value)))
    return (dt.date if pa.types.is_date(kind) else dt.time).fromisoformat(value)


def _time(value: Any) -> int | None:
    """Nanoseconds since 1970."""
    if value is None:
        return None
    found = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant_us(found) * 1000
