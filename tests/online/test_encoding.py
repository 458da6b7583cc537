"""Every value comes back as it was: types, NULL, empty, NaN, float16, and NULL items."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daedalus.catalog.dtypes import to_arrow
from daedalus.errors import ExecutionError
from daedalus.online.decoding import Decoded
from daedalus.online.encoding import encode, order_of
from daedalus.online.keys import key_texts
from daedalus.online.layout import RecordLayout
from daedalus.online.reading import converted_rows

_INTS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_VALUES: dict[str, st.SearchStrategy[object]] = {
    **{name: st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in _INTS.items()},
    "UBIGINT": st.integers(0, 2**64 - 1),
    "HUGEINT": st.integers(-(10**37), 10**37).map(Decimal),
    "BOOLEAN": st.booleans(),
    "HALF_FLOAT": st.floats(width=16).map(np.float16),
    "FLOAT": st.floats(width=32),
    "DOUBLE": st.floats(),
    "VARCHAR": st.text(max_size=5),
    "BLOB": st.binary(max_size=5),
    "DATE": st.dates(),
    "TIME": st.times(),
    "UUID": st.binary(min_size=16, max_size=16),
    "TIMESTAMP": st.datetimes(),
    "TIMESTAMP_NS": st.integers(-(2**62), 2**62),
    "TIMESTAMPTZ": st.datetimes(timezones=st.just(dt.UTC)),
    "DECIMAL(9,2)": st.decimals(-(10**6), 10**6, places=2),
    "STRUCT(a BIGINT, b VARCHAR)": st.fixed_dictionaries(
        {"a": st.integers(-9, 9), "b": st.none() | st.text()}
    ),
    "MAP(VARCHAR, BIGINT)": st.lists(
        st.tuples(st.text(max_size=2), st.none() | st.integers(0, 9)),
        max_size=2,
        unique_by=lambda one: one[0],
    ),
    "VARCHAR[]": st.lists(st.none() | st.text(max_size=3), max_size=3),
    "BIGINT[][]": st.lists(st.none() | st.lists(st.integers(0, 9), max_size=2), max_size=2),
}
for _name in ("BIGINT", "HALF_FLOAT", "BOOLEAN", "FLOAT", "DATE", "DECIMAL(9,2)"):
    _VALUES[f"{_name}[]"] = st.lists(st.none() | _VALUES[_name], max_size=10)
    _VALUES[f"{_name}[3]"] = st.lists(st.none() | _VALUES[_name], min_size=3, max_size=3)


def _rows(fields: list[tuple[str, str]], columns: list[list[object]]) -> pa.Table:
    arrays = [pa.array(column, to_arrow(dtype)) for (_, dtype), column in zip(fields, columns, strict=True)]
    return pa.table(arrays, schema=pa.schema([pa.field(name, to_arrow(dtype)) for name, dtype in fields]))


def _same(one: pa.ChunkedArray, other: pa.Array) -> bool:
    """Equal, NaN being equal to NaN: formats carry their bits."""
    return one.type == other.type and repr(one.to_pylist()) == repr(other.to_pylist())


@given(st.data())
def test_rows_come_back_as_they_were(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=9))
    fields = [(f"f{at}", dtype) for at, dtype in enumerate(dtypes)]
    size = data.draw(st.integers(1, 4))
    column = {d: st.lists(st.none() | _VALUES[d], min_size=size, max_size=size) for d in set(dtypes)}
    # Sliced: an array's values need not begin where its buffers do.
    rows = _rows(fields, [[None, *data.draw(column[dtype]), None] for dtype in dtypes]).slice(1, size)
    layout = RecordLayout("view v", keys=[("k", "BIGINT")], fields=fields)
    order = order_of(None, None, None, size)
    records = encode(layout, rows, order=order, written_us=7)
    decoded = Decoded.of(layout, records)
    assert decoded is not None
    for name, array in zip(rows.column_names, decoded.batch().columns, strict=True):
        array.validate(full=True)
        assert _same(rows.column(name), array), name
    hidden = np.arange(size) % 2 == 0
    for name, array in zip(rows.column_names, decoded.batch(hidden).columns, strict=True):
        array.validate(full=True)
        expected = [
            one if show else None for one, show in zip(rows.column(name).to_pylist(), hidden, strict=True)
        ]
        assert repr(array.to_pylist()) == repr(expected)


def test_order_bytes_sort_as_the_values() -> None:
    times = [None, -5_000_000_001, -1, 0, 1, 999, 1_000, 10**15]
    order = order_of(pa.chunked_array([pa.array(times, pa.timestamp("ns", "UTC"))]), None, None, len(times))
    layout = RecordLayout("view v", keys=[], fields=[("x", "BIGINT")])
    records = encode(layout, pa.table({"x": pa.array([0] * len(times))}), order=order, written_us=0)
    heads = [one[6:32] for one in records]
    assert heads == sorted(heads)
    assert len(set(heads)) == len(heads)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([None, -3, 0, 2**40]),
        pa.array([None, 0, 2**63 + 5], pa.uint64()),
        pa.array([None, float("-inf"), -1.5, 0.0, 1e-9, 3.0]),
        pa.array([None, "a", "ab", "b"]),
        pa.array([None, 5, 9], pa.timestamp("ms")),
        pa.array([None, 36_000_000_000, 36_000_000_001], pa.time64("us")),
        pa.array([None, *map(Decimal, ("-10.50", "-9.25", "9.00", "10.00"))], pa.decimal128(10, 2)),
        pa.array([None, *map(Decimal, (-(10**30), -1, 0, 9, 10, 10**30))], pa.decimal128(38, 0)),
        pa.array([None, b"a", b"b", b"\xff"]),
    ],
)
def test_sequences_of_any_type_are_ordered(values: pa.Array) -> None:
    ranks = order_of(None, None, pa.chunked_array([values]), len(values))["sequence"].tolist()
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


def test_keys_are_as_many_as_the_entities() -> None:
    texts = key_texts([pa.array(["a|b", "a", "a\\p", "a|"]), pa.array(["c", "b|c", "b", "b"])])
    assert len(set(texts)) == 4
    assert key_texts([pa.array([3, -3, None])]) == [b"3", b"-3", None]


OLD = RecordLayout(
    "view v", keys=[("k", "BIGINT")], fields=[("a", "INTEGER"), ("gone", "VARCHAR"), ("c", "BIGINT")]
)


def _old(a: list[int], c: list[int]) -> list[bytes]:
    rows = _rows(list(OLD.fields), [a, ["x"] * len(a), c])
    return encode(OLD, rows, order=order_of(None, None, None, len(a)), written_us=0)


def test_another_schema_is_read_by_name_and_without_loss() -> None:
    new = RecordLayout(
        "view v", keys=OLD.keys, fields=[("c", "SMALLINT"), ("a", "BIGINT"), ("new", "DOUBLE")]
    )
    assert Decoded.of(new, _old([1], [2])) is None
    assert converted_rows(OLD, new, _old([1, 2], [3, 4])).to_pylist() == [
        {"c": 3, "a": 1, "new": None},
        {"c": 4, "a": 2, "new": None},
    ]
    with pytest.raises(ExecutionError, match="'c' was written as int64, and does not fit int16 without loss"):
        converted_rows(OLD, new, _old([1], [2**40]))


def test_nan_is_no_loss() -> None:
    old = RecordLayout("view v", keys=[("k", "BIGINT")], fields=[("x", "FLOAT")])
    new = RecordLayout("view v", keys=old.keys, fields=[("x", "DOUBLE")])
    rows = _rows(list(old.fields), [[float("nan"), 0.5]])
    records = encode(old, rows, order=order_of(None, None, None, 2), written_us=0)
    assert str(converted_rows(old, new, records)["x"].to_pylist()) == "[nan, 0.5]"


@pytest.mark.parametrize("damage", [lambda one: one[:-1], lambda one: one + b"x"])
def test_a_damaged_record_is_said_to_be_one(damage: object) -> None:
    record = damage(_old([1], [2])[0])  # type: ignore[operator]
    with pytest.raises(ExecutionError, match="cannot be read"):
        Decoded.of(OLD, [record]).batch()  # type: ignore[union-attr]
