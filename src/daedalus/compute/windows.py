"""Lists of specs that are equal but for their windows: a shorter window's list is the end of the longest's.

Newest rows are kept first, whatever the operation, so the shorter list is told by its length alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.compute.lists import newest_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from daedalus.catalog.aggregation import AggregationSpec


def widest_of(specs: Sequence[AggregationSpec]) -> list[int]:
    """Per spec the place of the one that sees furthest back among those alike; maybe its own.

    Example:
        >>> from daedalus.catalog.aggregation import AggregationSpec
        >>> day = AggregationSpec.from_mapping({
        ...     "name": "d", "group_by": ["u"], "operation": "count", "window_days": 1
        ... })
        >>> widest_of([day, replace(day, name="w", window_days=7)])
        [1, 1]
    """
    alike: dict[AggregationSpec, int] = {}
    keys = [replace(spec, name="_", window_days=None) for spec in specs]
    for place, (key, spec) in enumerate(zip(keys, specs, strict=True)):
        best = alike.setdefault(key, place)
        if _days(spec) > _days(specs[best]):
            alike[key] = place
    return [alike[key] for key in keys]


def _days(spec: AggregationSpec) -> float:
    return math.inf if spec.window_days is None else spec.window_days


def ends_of_another(specs: Sequence[AggregationSpec]) -> dict[int, int]:
    """The specs whose lists are the ends of another spec's lists: place to place."""
    lists = (Operation.LIST, Operation.FLATTEN_DISTINCT)
    return {
        place: widest
        for place, widest in enumerate(widest_of(specs))
        if widest != place and specs[place].operation in lists
    }


def restored(columns: Sequence[pa.Array], ends: dict[int, int]) -> list[pa.Array]:
    """The columns with lists in place of their lengths.

    Args:
        columns: one per spec; lengths (int32) where `ends` names the spec.
        ends: from `ends_of_another`.
    """
    return [
        newest_items(columns[ends[place]], column.to_numpy()) if place in ends else column
        for place, column in enumerate(columns)
    ]
