"""Nasty little spines, histories and specs for rolling aggregation."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

DAY_MS = 86_400_000
#: Few instants, far fewer than rows, so that ties and window edges are common. One window is a day.
TIMES = st.sampled_from(
    [-DAY_MS - 1, -DAY_MS, -1, 0, 1, DAY_MS // 2, DAY_MS - 1, DAY_MS, DAY_MS + 1, 2 * DAY_MS]
)
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 0.1, -2.5, 1e16, -1e16, math.nan, math.inf, -math.inf, 5e-324])
TEXTS = st.sampled_from(["", "a", "B", "ä", "\U0001f600", "\uffff"])


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


SMALL = st.integers(0, 2)
COLUMNS: dict[str, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    "user_id": (st.sampled_from([1, 1, 1, 2]), pa.int64()),
    "country": (st.sampled_from(["at", "at", "jp"]), pa.string()),
    "event": (st.sampled_from(["like", "view"]), pa.string()),
    "item": (SMALL, pa.int64()),
    "tiny": (st.integers(-128, 127), pa.int8()),
    "unsigned": (st.sampled_from([0, 1, 2**63 - 1]), pa.uint64()),
    "score": (FLOATS, pa.float64()),
    "half": (st.sampled_from([0.5, -0.0, math.nan]), pa.float16()),
    "text": (TEXTS, pa.string()),
    "label": (TEXTS, pa.dictionary(pa.int8(), pa.string())),
    "flag": (st.booleans(), pa.bool_()),
    "price": (st.sampled_from([Decimal("1.10"), Decimal("-2.00")]), pa.decimal128(9, 2)),
    "bytes": (st.sampled_from([b"ab", b"cd"]), pa.binary(2)),
    "nanos": (SMALL, pa.timestamp("ns", "UTC")),
    "span": (SMALL, pa.duration("us")),
    "tags": (st.lists(maybe(SMALL), max_size=4), pa.list_(pa.int64())),
    "marks": (st.lists(maybe(FLOATS), max_size=3), pa.large_list(pa.float64())),
}


def used_columns(chosen: list[dict[str, Any]]) -> list[str]:
    """The columns that specs read, in a fixed order: drawing no others keeps examples small and fast."""
    text = " ".join(str(spec) for spec in chosen)
    return [name for name in COLUMNS if name in text]


@st.composite
def tables(draw: Any, kind: pa.DataType, names: list[str], max_size: int = 12) -> pa.Table:
    """Rows with a time column `at` and these columns, in one chunk or two."""
    rows = draw(
        st.lists(st.tuples(maybe(TIMES), *(maybe(COLUMNS[name][0]) for name in names)), max_size=max_size)
    )
    columns = {"at": pa.array([row[0] for row in rows], pa.int64()).cast(kind)}
    for place, name in enumerate(names, start=1):
        values, target = [row[place] for row in rows], COLUMNS[name][1]
        plain = target.value_type if pa.types.is_dictionary(target) else target
        columns[name] = pa.array(values, plain)
        if pa.types.is_dictionary(target):
            columns[name] = columns[name].dictionary_encode().cast(target)
    table = pa.table(columns, metadata={"made by": "hypothesis"})
    if draw(st.booleans()) and table.num_rows > 1:
        cut = draw(st.integers(0, table.num_rows))
        table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    return table


SCALARS = (
    "item",
    "tiny",
    "unsigned",
    "score",
    "half",
    "text",
    "label",
    "flag",
    "price",
    "bytes",
    "nanos",
    "span",
)
VALUES = {
    "list": SCALARS,
    "count": (*SCALARS, "tags", None),
    "count_distinct": SCALARS,
    "flatten_distinct": ("tags", "marks"),
    "first": SCALARS,
    "last": SCALARS,
    "min": tuple(name for name in SCALARS if name not in {"bytes", "span"}),
    "max": tuple(name for name in SCALARS if name not in {"bytes", "span"}),
    "sum": ("item", "tiny", "score", "half"),
    "mean": ("item", "tiny", "unsigned", "score", "half"),
    "seconds_since_last": (*SCALARS, "tags"),
}
CONDITIONS = (None, None, "hist.event = 'like'", "hist.item > 0 OR hist.score IS NULL", "hist.flag")


@st.composite
def specs(draw: Any, name: str, *, views: tuple[str | None, ...] = (None,)) -> dict[str, Any]:
    operation = draw(st.sampled_from(sorted(VALUES)))
    value = draw(st.sampled_from(VALUES[operation]))
    include_current = draw(st.booleans())
    narrowest = [0, 1 / DAY_MS] if include_current else [1 / DAY_MS]
    spec: dict[str, Any] = {
        "name": name,
        "operation": operation,
        "value_column": value,
        "group_by": draw(st.sampled_from([["user_id"], ["user_id", "country"], ["country"]])),
        "timestamp_column": "at",
        "include_current": include_current,
        "window_days": draw(st.sampled_from([None, 1, 0.5, 1.5, 1000, *narrowest])),
        "condition": draw(st.sampled_from(CONDITIONS)),
        "max_items": draw(st.sampled_from([None, 1, 2, 3, 2**40])),
        "delay_seconds": draw(st.sampled_from([0, 0, 0.001, 43_200, 86_400])),
        "history_view": draw(st.sampled_from(views)),
    }
    if value is not None and value not in {"tags", "marks"}:
        spec["exclude_self"] = draw(st.booleans())
    return {key: item for key, item in spec.items() if item is not None}


TIME_TYPES = st.sampled_from([pa.int64(), pa.timestamp("ms"), pa.timestamp("ms", "UTC")])


@st.composite
def calls(draw: Any, max_specs: int = 4) -> tuple[pa.Table, list[dict[str, Any]], dict[str, pa.Table]]:
    """A spine, specs that fit it, and the history of the view `other`."""
    kind = draw(TIME_TYPES)
    count = draw(st.integers(1, max_specs))
    chosen = [draw(specs(f"s{number}", views=(None, None, "other"))) for number in range(count)]
    names = used_columns(chosen)
    return draw(tables(kind, names)), chosen, {"other": draw(tables(kind, names))}


@st.composite
def single_calls(draw: Any) -> tuple[pa.Table, dict[str, Any]]:
    """A spine and one spec that reads nothing else."""
    spec = draw(specs("s"))
    return draw(tables(pa.int64(), sorted({*used_columns([spec]), "user_id"}))), spec
