"""What an operation makes of the rows that count, the obvious way."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from daedalus.catalog.aggregation import Operation
from daedalus.trust.day_facts import TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.trust.day_facts import Row

_SECOND = 10**9


def value_of(spec: AggregationSpec, row: Row, used: Sequence[Row]) -> Any:
    """What an operation makes of the eligible rows, oldest first."""
    values = [one[spec.value_column] for one in used] if spec.value_column else []
    match spec.operation:
        case Operation.LIST:
            return values
        case Operation.COUNT:
            return len(used)
        case Operation.COUNT_DISTINCT:
            return len(_distinct(values))
        case Operation.FLATTEN_DISTINCT:
            newest = [item for value in reversed(values) for item in reversed(value) if item is not None]
            return _distinct(newest)[: spec.max_items][::-1]
        case Operation.SECONDS_SINCE_LAST:
            return (row[TIME] - used[-1][TIME]) / _SECOND if used else None
        case _:
            return _reduced(spec.operation, values)


def is_same(left: Any, right: Any) -> bool:
    """Whether two values are one; NaN is itself."""
    return bool(left == right) or (_is_nan(left) and _is_nan(right))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _distinct(values: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    seen: set[Any] = set()
    for value in values:
        mark = "nan" if _is_nan(value) else value
        if mark not in seen:
            seen.add(mark)
            kept.append(value)
    return kept


def _reduced(operation: Operation, values: Sequence[Any]) -> Any:
    if not values:
        return None
    match operation:
        case Operation.FIRST:
            return values[0]
        case Operation.LAST:
            return values[-1]
        case Operation.MIN | Operation.MAX:
            return _extreme(values, largest=operation is Operation.MAX)
        case Operation.SUM if all(isinstance(value, int) for value in values):
            return sum(values)
        case Operation.SUM:
            return _float_sum(values)
    return (
        _float_sum(values) / len(values)
        if _unruly(values)
        else float(sum(map(Fraction, values)) / len(values))
    )


def _unruly(values: Sequence[Any]) -> bool:
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)


def _float_sum(values: Sequence[Any]) -> float:
    if not _unruly(values):
        return float(sum(map(Fraction, values)))
    return float(sum(float(value) for value in values if not math.isfinite(value)))


def _extreme(values: Sequence[Any], *, largest: bool) -> Any:
    """NaN is larger than every number; text goes by its UTF-8 bytes; of equals the first met stays."""
    best = values[0]
    for value in values[1:]:
        left, right = _rank(value), _rank(best)
        if (left > right) if largest else (left < right):
            best = value
    return best


def _rank(value: Any) -> tuple[bool, Any]:
    if _is_nan(value):
        return True, 0
    return False, value.encode() if isinstance(value, str) else value
