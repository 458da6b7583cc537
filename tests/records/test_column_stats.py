"""A day's column statistics are what a plain look at the rows gives, however the rows were cut."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.storage.column_sketches import merge_sketches, table_sketches
from daedalus.storage.column_stats import ColumnStats, aligned, bin_edges, bin_keys
from daedalus.storage.sinks import parquet
from daedalus.storage.sinks.parquet import ParquetSink

YEARS = (dt.datetime.fromisoformat("1960-01-01"), dt.datetime.fromisoformat("2100-01-01"))
SCHEMA = pa.schema(
    [
        ("small", pa.int32()),
        ("big", pa.int64()),
        ("ratio", pa.float32()),
        ("flag", pa.bool_()),
        ("text", pa.string()),
        ("at", pa.timestamp("us")),
        ("day", pa.date32()),
        ("ids", pa.list_(pa.int64())),
        ("vector", pa.list_(pa.float16())),
    ]
)


def stats_of(table: pa.Table, cuts: tuple[int, ...] = (), **options: object) -> dict[str, ColumnStats]:
    """The statistics of a table taken in pieces."""
    edges = [0, *sorted(cuts), len(table)]
    pieces = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    merged = merge_sketches(table_sketches(piece, **options) for piece in pieces)  # type: ignore[arg-type]
    return {name: sketch.stats() for name, sketch in merged.items()}


_ROW = st.fixed_dictionaries(
    {
        "small": st.none() | st.integers(-3, 3),
        "big": st.none() | st.integers(-(2**62), 2**62),
        "ratio": st.none() | st.floats(width=32),
        "flag": st.none() | st.booleans(),
        "text": st.none() | st.text(max_size=3),
        "at": st.none() | st.datetimes(*YEARS),
        "day": st.none() | st.dates(dt.date(1960, 1, 1), dt.date(2100, 1, 1)),
        "ids": st.none() | st.lists(st.none() | st.integers(0, 5), max_size=4),
        "vector": st.none() | st.lists(st.just(0.5), max_size=3),
    }
)


@settings(max_examples=60)
@given(rows=st.lists(_ROW, max_size=40), data=st.data())
def test_statistics_are_those_of_the_rows_however_they_are_cut(rows, data) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    cuts = tuple(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    whole = stats_of(table)
    cut = stats_of(table, cuts)
    # Sums of floats depend on the order of adding; everything else is exactly the same.
    for name, one in whole.items():
        left, right = one.to_mapping(), cut[name].to_mapping()
        for part in (left, right):
            for nested in (part, part.get("items", {}), part.get("lengths", {})):
                nested.pop("mean", None)
        assert left == right
    for name, one in whole.items():
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        assert (one.rows, one.nulls) == (len(values), values.count(None))
        if name in ("small", "big"):
            assert (one.min, one.max) == ((min(known), max(known)) if known else (None, None))
            assert one.distinct == len(set(known))
            assert dict(one.values) == Counter(known)
        if name == "ratio":
            finite = [value for value in known if not math.isnan(value)]
            assert one.nans == len(known) - len(finite)
            assert sum(count for _, count in one.values) == len(finite)
        if name == "text":
            assert dict(one.values) == Counter(known)
        if name == "at" and known:
            assert sum(one.hours) == len(known)
            assert all(count == sum(at.hour == hour for at in known) for hour, count in enumerate(one.hours))
        if name in ("at", "day") and known:
            assert dict(one.months) == Counter(f"{at:%Y-%m}" for at in known)
            assert str(one.min)[:10] == f"{min(known):%Y-%m-%d}"
        if name in ("ids", "vector") and known:
            assert one.lengths is not None
            assert dict(one.lengths.values) == Counter(map(len, known))
        if name == "ids" and any(known):
            items = [item for value in known for item in value]
            assert one.items is not None
            assert (one.items.rows, one.items.nulls) == (len(items), items.count(None))
            assert dict(one.items.values) == Counter(item for item in items if item is not None)
        if name == "vector":
            assert one.items is None
        assert ColumnStats.from_mapping(json.loads(json.dumps(one.to_mapping()))) == one


@pytest.mark.parametrize("distinct", [65, 900, 5_000, 200_000])
@pytest.mark.parametrize("kind", ["int", "float", "text"])
def test_many_values_are_estimated_and_binned(distinct: int, kind: str) -> None:
    if kind == "text" and distinct > 10_000:
        distinct = 20_000
    random = np.random.default_rng(distinct)
    numbers = np.concatenate([np.arange(distinct), random.integers(0, distinct, distinct)]) + 7
    array = {
        "int": lambda: pa.array(numbers),
        "float": lambda: pa.array(numbers / 8),
        "text": lambda: pa.array(numbers.astype(str)),
    }[kind]()
    table = pa.table({"a": array})
    found = stats_of(table, (len(table) // 3,))["a"]
    assert found.values == ()
    assert found.distinct is not None
    assert abs(found.distinct - distinct) <= 0.12 * distinct
    assert sum(found.buckets) == len(table)
    assert found == stats_of(table)["a"]
    if kind != "text":
        assert sum(count for _, count in found.bins) == len(table)
        median = float(np.median(np.asarray(array)))
        assert found.quantile(0.5) == pytest.approx(median, rel=0.13)


def test_bins_hold_their_numbers() -> None:
    numbers = np.asarray([-1e300, -3.0, -1.0, -0.0, 0.0, 1e-9, 0.1, 1.0, 1.99, 7.0, 1e18, np.inf, -np.inf])
    for number, key in zip(numbers, bin_keys(numbers), strict=True):
        low, high = bin_edges(int(key))
        assert low <= number <= high


def side_by_side(one: ColumnStats, other: ColumnStats) -> list[tuple[str, int, int]]:
    """(label, count of one, count of other)."""
    found = aligned([one, other])
    return list(zip(found.labels, *found.counts, strict=True))


def test_two_days_are_comparable_in_the_finest_common_form() -> None:
    few = stats_of(pa.table({"a": pa.array([1, 1, 2, None])}))["a"]
    many = stats_of(pa.table({"a": pa.array(np.arange(1000))}))["a"]
    named = side_by_side(few, few)
    assert named == [("NULL", 1, 1), ("1", 2, 2), ("2", 1, 1)]
    binned = side_by_side(few, many)
    assert sum(row[1] for row in binned) == 4
    assert sum(row[2] for row in binned) == 1000
    assert ("1 to 1.125", 2, 1) in binned
    texts = [stats_of(pa.table({"a": pa.array([f"{n}" for n in range(count)])}))["a"] for count in (3, 500)]
    hashed = side_by_side(*texts)
    assert sum(row[1] for row in hashed) == 3
    # What is in both days is counted in the same bucket.
    assert all(row[2] >= row[1] for row in hashed)


def test_empty_and_all_null_columns_say_so() -> None:
    for table in (SCHEMA.empty_table(), pa.Table.from_pylist([{}] * 5, schema=SCHEMA)):
        for one in stats_of(table).values():
            assert (one.rows, one.nulls, one.distinct) == (len(table), len(table), 0)
            assert one.null_rate == (1.0 if len(table) else 0.0)
            assert one.min is one.max is None


def test_numbers_at_the_edges() -> None:
    unsigned = stats_of(pa.table({"a": pa.array([0, 2**64 - 1], pa.uint64())}))["a"]
    assert (unsigned.min, unsigned.max) == (0, 2**64 - 1)
    infinite = stats_of(pa.table({"a": pa.array([math.inf, -math.inf, 1.0])}))["a"]
    assert (infinite.min, infinite.max, infinite.mean) == ("-inf", "inf", 1.0)
    json.dumps(infinite.to_mapping(), allow_nan=False)
    binary = stats_of(pa.table({"a": pa.array([b"a", None])}))["a"]
    assert (binary.rows, binary.nulls, binary.min) == (2, 1, None)
    fixed = stats_of(pa.table({"a": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))}))["a"]
    assert fixed.lengths is not None
    assert fixed.lengths.values == ((2, 1),)


def test_the_sink_takes_them_beside_the_encoding(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "SHARD_ROWS", 128)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 64)
    table = pa.table(
        {
            "a": pa.array(range(400)),
            "l": pa.array([[n, n + 1] for n in range(400)]),
            "qid": pa.array([1] * 400),
        }
    )
    results = []
    for name, step in (("x", 400), ("y", 7)):
        (tmp_path / name).mkdir()
        sink = ParquetSink(tmp_path / name, table.schema, ["qid"])
        for start in range(0, 400, step):
            sink.write(table.slice(start, step))
        results.append(sink.close())
    one, other = results
    assert one == other
    found = dict(one.columns)
    assert found["a"].hash
    assert not found["qid"].hash
    assert (found["a"].min, found["a"].max, found["a"].distinct) == (0, 399, 400)
    # Of a day longer than a shard the items are those of some rows, their number and extremes those of all.
    assert found["l"].items is not None
    assert (found["l"].items.rows, found["l"].items.min, found["l"].items.max) == (800, 0, 400)
    assert found["l"].items.sampled == 64
