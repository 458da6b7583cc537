"""What `aggregate_pit_table` must answer, the obvious way: quadratic plain Python over Arrow tables.

Independent of the engines: it imports nothing of `daedalus`. For every spine row it looks at every history
row, keeps the eligible ones by the rules of the semantics page, in words as close to that page as Python
allows, and folds them. DuckDB is used for one thing only, the condition, which is defined as its answer.

    assert_agrees(actual, spine, specs, history={"arrivals": arrivals})
    expected = rolling_oracle(spine, specs, history={"arrivals": arrivals})
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import duckdb
import pyarrow as pa

TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DEFAULTS: dict[str, Any] = {
    "value_column": None,
    "timestamp_column": "event_timestamp",
    "timestamp_unit": "ms",
    "include_current": False,
    "window_days": None,
    "condition": None,
    "max_items": None,
    "exclude_self": False,
    "delay_seconds": 0,
    "history_view": None,
    "history_group_by": None,
    "history_timestamp_column": None,
}


def rolling_oracle(
    spine: pa.Table, specs: Iterable[Any], *, history: Mapping[str, pa.Table] | None = None
) -> pa.Table:
    """The spine plus one column per spec (mappings, or objects with `to_mapping`)."""
    result = spine
    for given in specs:
        spec = as_options(given)
        table = spine if spec["history_view"] is None else (history or {})[spec["history_view"]]
        result = result.append_column(*_column(spine, table, spec))
    return result.replace_schema_metadata(spine.schema.metadata)


def as_options(spec: Any) -> dict[str, Any]:
    """The spec as a full dict of its keys; optional keys that are absent get their defaults."""
    mapping = spec if isinstance(spec, Mapping) else spec.to_mapping()
    given = {key: value for key, value in mapping.items() if value is not None}
    return {**DEFAULTS, **given}


def eligible_rows(spine: pa.Table, table: pa.Table, spec: Mapping[str, Any]) -> list[list[int]]:
    """Per spine row the eligible history rows, oldest first, the newest `max_items` of them."""
    current_keys = _keys(spine, spec["group_by"])
    past_keys = _keys(table, spec["history_group_by"] or spec["group_by"])
    current_times, ticks = _times(spine[spec["timestamp_column"]], spec)
    past_times, _ = _times(table[spec["history_timestamp_column"] or spec["timestamp_column"]], spec)
    delay = round(Fraction(spec["delay_seconds"]) * ticks)
    window = None if spec["window_days"] is None else round(Fraction(spec["window_days"]) * 86_400 * ticks)
    passes = _condition(table, spec["condition"])
    name = spec["value_column"]
    past_values = [0] * table.num_rows if name is None else _plain(table[name])
    current_values = _plain(spine[name]) if spec["exclude_self"] else [None] * spine.num_rows

    chosen = []
    for row in range(spine.num_rows):
        read_at = None if current_times[row] is None else current_times[row] - delay
        found = []
        for past in range(table.num_rows):
            if read_at is None or past_times[past] is None or not passes[past]:
                continue
            if None in current_keys[row] or current_keys[row] != past_keys[past]:
                continue
            if window is not None and past_times[past] < read_at - window:
                continue
            if past_times[past] > read_at or (past_times[past] == read_at and not spec["include_current"]):
                continue
            if past_values[past] is None:
                continue
            mine = current_values[row]
            if spec["exclude_self"] and mine is not None and identity(mine) == identity(past_values[past]):
                continue
            found.append(past)
        found.sort(key=lambda past: (past_times[past], past))
        if spec["max_items"] is not None and spec["operation"] != "flatten_distinct":
            found = found[-spec["max_items"] :]
        chosen.append(found)
    return chosen


def identity(value: Any) -> Hashable:
    """What makes two values the same: NaN is NaN, -0.0 is 0.0."""
    if isinstance(value, float) and math.isnan(value):
        return ("NaN",)
    return value if isinstance(value, Hashable) else repr(value)


def _rank(value: Any) -> tuple[bool, Any]:
    nan = isinstance(value, float) and math.isnan(value)
    return (nan, 0.0 if nan else value)


def _column(spine: pa.Table, table: pa.Table, spec: Mapping[str, Any]) -> tuple[pa.Field, pa.Array]:
    rows = eligible_rows(spine, table, spec)
    name, operation = spec["name"], spec["operation"]
    if operation == "count":
        return _scalars(name, [len(found) for found in rows], pa.int64())
    values = table[spec["value_column"]]
    if operation == "flatten_distinct":
        return _flatten_distinct(name, values, rows, spec["max_items"])
    plain = _plain(values)
    if operation == "count_distinct":
        counts = [len({identity(plain[past]) for past in found}) for found in rows]
        return _scalars(name, counts, pa.int64())
    if operation == "list":
        return _lists(name, _whole(values), rows)
    if operation in {"first", "last", "min", "max"}:
        return _picked(name, _whole(values), [_pick(operation, plain, found) for found in rows])
    if operation == "seconds_since_last":
        current, ticks = _times(spine[spec["timestamp_column"]], spec)
        past, _ = _times(table[spec["history_timestamp_column"] or spec["timestamp_column"]], spec)
        seconds = [
            float(current[row] - past[found[-1]]) / float(ticks) if found else None
            for row, found in enumerate(rows)
        ]
        return _scalars(name, seconds, pa.float64())
    kind = _value_type(values.type)
    folded = [_fold(operation, [plain[past] for past in found], kind) for found in rows]
    whole = operation == "sum" and pa.types.is_integer(kind)
    return _scalars(name, folded, pa.int64() if whole else pa.float64())


def _pick(operation: str, plain: Sequence[Any], found: Sequence[int]) -> int | None:
    if not found:
        return None
    if operation in {"first", "last"}:
        return found[0] if operation == "first" else found[-1]
    best = found[0]
    for past in found[1:]:
        here, there = _rank(plain[past]), _rank(plain[best])
        if (here < there) if operation == "min" else (here > there):
            best = past
    return best


def _fold(operation: str, values: list[Any], kind: pa.DataType) -> Any:
    if not values:
        return None
    if pa.types.is_integer(kind):
        return sum(values) if operation == "sum" else float(Fraction(sum(values), len(values)))
    special = [value for value in values if not math.isfinite(value)]
    if special:
        return sum(special)
    exact = sum(map(Fraction, values)) / (1 if operation == "sum" else len(values))
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _flatten_distinct(
    name: str, values: pa.ChunkedArray, rows: list[list[int]], max_items: int | None
) -> tuple[pa.Field, pa.Array]:
    lengths = [len(row or ()) for row in values.to_pylist()]
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    flat = _flat(values)
    plain = _plain(pa.chunked_array([flat]))
    results = []
    for found in rows:
        kept: list[int] = []
        seen: set[Hashable] = set()
        for past in reversed(found):
            for item in reversed(range(starts[past], starts[past] + lengths[past])):
                full = max_items is not None and len(kept) == max_items
                if full or plain[item] is None or identity(plain[item]) in seen:
                    continue
                seen.add(identity(plain[item]))
                kept.append(item)
        results.append(kept[::-1])
    return _lists(name, flat, results)


def _flat(values: pa.ChunkedArray) -> pa.Array:
    """Every element of the non-NULL lists, in order, with its own type."""
    parts = [row.values for row in _whole(values) if row.is_valid]
    return pa.concat_arrays([pa.array([], values.type.value_type), *parts])


def _scalars(name: str, values: list[Any], kind: pa.DataType) -> tuple[pa.Field, pa.Array]:
    return pa.field(name, kind), pa.array(values, kind)


def _picked(name: str, values: pa.Array, rows: list[int | None]) -> tuple[pa.Field, pa.Array]:
    return pa.field(name, values.type), values.take(pa.array(rows, pa.int64()))


def _lists(name: str, values: pa.Array, rows: list[list[int]]) -> tuple[pa.Field, pa.Array]:
    offsets = [0]
    for found in rows:
        offsets.append(offsets[-1] + len(found))
    taken = values.take(pa.array([past for found in rows for past in found], pa.int64()))
    kind = pa.list_(pa.field("item", values.type))
    return pa.field(name, kind), pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), taken, type=kind)


def _whole(values: pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _plain(values: pa.ChunkedArray) -> list[Any]:
    """Python values; temporal ones as integers, so that nanoseconds survive."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        values = values.cast(pa.int32())
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        values = values.cast(pa.int64())
    return [
        float(value) if pa.types.is_float16(kind) and value is not None else value
        for value in values.to_pylist()
    ]


def _keys(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(_plain(table[name]) for name in names), strict=True))


def _times(values: pa.ChunkedArray, spec: Mapping[str, Any]) -> tuple[list[int | None], int]:
    unit = values.type.unit if pa.types.is_timestamp(values.type) else spec["timestamp_unit"]
    return values.cast(pa.int64()).to_pylist(), TICKS_PER_SECOND[unit]


def _condition(table: pa.Table, condition: str | None) -> list[bool]:
    if condition is None:
        return [True] * table.num_rows
    # Only the columns it can mean: DuckDB need not understand the types of the others.
    used = [name for name in table.column_names if name.lower() in condition.lower()]
    numbered = table.select(used).append_column("oracle_row", pa.array(range(table.num_rows), pa.int64()))
    session = _session()
    session.register("numbered", numbered)
    query = f"SELECT ({condition}) IS TRUE FROM numbered AS hist ORDER BY oracle_row"
    try:
        return [row[0] for row in session.execute(query).fetchall()]
    finally:
        session.unregister("numbered")


@functools.cache
def _session() -> duckdb.DuckDBPyConnection:
    """One for all: opening it takes longer than a condition."""
    session = duckdb.connect()
    session.execute("SET TimeZone = 'UTC'")
    return session


def assert_agrees(
    actual: pa.Table, spine: pa.Table, specs: Iterable[Any], *, history: Mapping[str, pa.Table] | None = None
) -> None:
    """`actual` has the oracle's schema, metadata and values; float sums and means within the stated bound."""
    specs = list(specs)
    expected = rolling_oracle(spine, specs, history=history)
    assert actual.schema.equals(expected.schema, check_metadata=True), (
        f"schemas differ:\n{actual.schema}\n-- expected --\n{expected.schema}"
    )
    bounds = {as_options(spec)["name"]: float_bounds(spine, spec, history=history) for spec in specs}
    for name in expected.column_names:
        if bounds.get(name) is not None:
            _assert_close(name, actual[name].to_pylist(), expected[name].to_pylist(), bounds[name])
            continue
        got, want = comparable(actual[name]), comparable(expected[name])
        assert got == want, f"{name}:\n  actual   {got}\n  expected {want}"


def float_bounds(
    spine: pa.Table, given: Any, *, history: Mapping[str, pa.Table] | None = None
) -> list[float] | None:
    """How far a value may be off: `1e-12 * sum(abs(x))`, over n for a mean. None: not at all."""
    spec = as_options(given)
    table = spine if spec["history_view"] is None else (history or {})[spec["history_view"]]
    if spec["operation"] not in {"sum", "mean"}:
        return None
    if spec["operation"] == "sum" and pa.types.is_integer(_value_type(table[spec["value_column"]].type)):
        return None
    plain = _plain(table[spec["value_column"]])
    bounds = []
    for found in eligible_rows(spine, table, spec):
        total = sum(Fraction(abs(plain[past])) for past in found if math.isfinite(plain[past]))
        bounds.append(float(total / 10**12 / (len(found) or 1 if spec["operation"] == "mean" else 1)))
    return bounds


def _assert_close(name: str, got: list[Any], want: list[Any], bounds: list[float]) -> None:
    assert len(got) == len(want), name
    for row, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        place = f"{name}[{row}]: {mine} is not {theirs}"
        if mine is None or theirs is None or not math.isfinite(theirs):
            assert repr(mine) == repr(theirs), place
        else:
            assert abs(mine - theirs) <= bounds[row] + 5e-324, place


def comparable(values: pa.ChunkedArray) -> list[Any]:
    """Python values in which NaN equals NaN and -0.0 does not equal 0.0; nanoseconds survive."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        whole = _whole(values)
        flat = comparable(pa.chunked_array([whole.values], kind.value_type))
        offsets = whole.offsets.to_pylist()
        valid = whole.is_valid().to_pylist()
        return [
            tuple(flat[low:high]) if ok else None
            for low, high, ok in zip(offsets, offsets[1:], valid, strict=False)
        ]
    return [repr(value) if isinstance(value, float) else value for value in _plain(values)]
