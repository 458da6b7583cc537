"""Scalars over long ranges of positions, by window functions.

The frames are in positions, not times, so both ends are exact; DuckDB's segment trees add pairwise and never
subtract, and its distinct counts take `O(n log n)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.compute.sql_tier.frames import frames_name, history_name, keys, seen
from daedalus.compute.sql_tier.items import Method
from daedalus.compute.sql_tier.lists import wanted
from daedalus.compute.sql_tier.relations import Stage
from daedalus.compute.sql_tier.values import canonical

if TYPE_CHECKING:
    from daedalus.compute.sql_tier.items import Item, Source


def window_alias(item: Item) -> str:
    """The alias of the item's window stage in the final select."""
    return f"w{item.counter}_{item.high.name}"


def window_name(source: Source, item: Item) -> str:
    """The item's window stage: per spine row `a<index>`, and `z<index>` for the sign of a zero."""
    return f"{source.name}_v{item.counter}_{item.high.name}_windows"


def window_stages(source: Source) -> list[Stage]:
    """One stage per (value column, end of the window) that needs any."""
    groups: dict[str, list[Item]] = {}
    for item in source.items:
        if item.method == Method.WINDOW:
            groups.setdefault(window_name(source, item), []).append(item)
    return [_stage(source, name, items) for name, items in groups.items()]


def _stage(source: Source, name: str, items: list[Item]) -> Stage:
    number = items[0].counter
    sizes = list(dict.fromkeys(wanted(item) for item in items))
    past = ", ".join(f"0 AS m{at}" for at in range(len(sizes)))
    present = ", ".join(f"{size} AS m{at}" for at, size in enumerate(sizes))
    columns = ["r"]
    for item in items:
        at = sizes.index(wanted(item))
        frame = f"OVER (PARTITION BY {keys(source)} ORDER BY p RANGE BETWEEN m{at} PRECEDING AND 1 PRECEDING)"
        columns += [f"{call} {frame} AS {label}{item.index}" for label, call in _calls(item)]
    sql = (
        f"SELECT {', '.join(columns)}\nFROM (\n"
        f"SELECT {keys(source)}, n{number} AS p, CAST(NULL AS BIGINT) AS r, v{number} AS v, {past} "
        f"FROM {history_name(source)} WHERE v{number} IS NOT NULL\nUNION ALL\n"
        f"SELECT {keys(source)}, {seen(items[0])} + 1, r, NULL, {present} "
        f"FROM {frames_name(source)} AS f WHERE {seen(items[0])} > 0\n) AS f\nQUALIFY r IS NOT NULL"
    )
    return Stage(name=name, sql=sql, shared=False)


def _calls(item: Item) -> list[tuple[str, str]]:
    operation = item.spec.operation
    if operation == Operation.COUNT_DISTINCT:
        return [("a", f"count(DISTINCT {canonical('v', item.dtype)})")]
    if operation in {Operation.SUM, Operation.MEAN}:
        return [("a", "sum(CAST(v AS DOUBLE))" if item.is_float else "sum(v)")]
    calls = [("a", f"{operation}(v)")]
    if item.is_float:
        # Which zero was met first: the smallest position among them, its sign in the last bit.
        calls.append(("z", "min(CASE WHEN v = 0 THEN 2 * p + CAST(signbit(v) AS BIGINT) END)"))
    return calls
