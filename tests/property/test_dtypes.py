"""Dtypes go to Arrow and back, and to DuckDB and back, without a change."""

from __future__ import annotations

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.catalog.dtype_tree import ALIASES, SCALARS
from daedalus.catalog.dtypes import canonical_dtype, from_arrow, joinable, storable, to_arrow, to_duckdb

_NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=6)


def _spelled_struct(fields: list[tuple[str, str]]) -> str:
    return "STRUCT(" + ", ".join('"' + name.replace('"', '""') + '" ' + part for name, part in fields) + ")"


def _decimal(widths: tuple[int, int]) -> str:
    return f"DECIMAL({max(widths)},{min(widths)})"


_SCALAR = st.sampled_from([name for name in SCALARS if name != "HUGEINT"]) | st.tuples(
    st.integers(1, 38), st.integers(1, 38)
).map(_decimal)
DTYPES = st.recursive(
    _SCALAR,
    lambda inner: st.one_of(
        inner.map("{}[]".format),
        st.tuples(inner, st.integers(1, 2000)).map(lambda pair: f"{pair[0]}[{pair[1]}]"),
        st.tuples(inner, inner).map(lambda pair: f"MAP({pair[0]}, {pair[1]})"),
        st.lists(
            st.tuples(_NAMES, inner), min_size=1, max_size=3, unique_by=lambda pair: pair[0].lower()
        ).map(_spelled_struct),
    ),
    max_leaves=6,
)


@given(DTYPES)
def test_round_trip_through_arrow(text: str) -> None:
    dtype = canonical_dtype(text)
    assert canonical_dtype(dtype) == dtype
    assert from_arrow(to_arrow(dtype)) == dtype


@given(DTYPES)
def test_a_dtype_fits_itself(text: str) -> None:
    assert storable(text, text)
    assert joinable(text, text) is (
        ("[" not in text)
        and "(" not in text.replace("DECIMAL(", "")
        and "FLOAT" not in text
        and "DOUBLE" not in text
    )


@given(DTYPES)
@settings(max_examples=50, deadline=None)
def test_duckdb_knows_the_type_under_the_same_name(text: str) -> None:
    dtype = canonical_dtype(text)
    with duckdb.connect(config={"threads": 1}) as connection:
        described = connection.execute(f"DESCRIBE SELECT CAST(NULL AS {to_duckdb(dtype)}) AS x").fetchall()[
            0
        ][1]
    assert canonical_dtype(described) == dtype.replace("HALF_FLOAT", "FLOAT")


@given(st.sampled_from(sorted(ALIASES)))
def test_other_spellings_mean_one_dtype(name: str) -> None:
    assert canonical_dtype(name) == canonical_dtype(f" {name.lower()} ") == ALIASES[name]


@given(DTYPES)
def test_list_items_are_nullable_and_named_item(text: str) -> None:
    arrow = to_arrow(f"{text}[]")
    assert arrow.value_field == pa.field("item", to_arrow(text), nullable=True)
