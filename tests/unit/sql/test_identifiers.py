"""Names and values stay one name and one value, whatever they hold."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.errors import DefinitionError
from daedalus.sql.identifiers import qualified, quote_ident, quote_literal

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    opened = duckdb.connect(config={"threads": 1})
    opened.execute("SET TimeZone = 'UTC'")
    return opened


@given(name=TEXT)
@settings(deadline=None)
def test_a_quoted_name_is_that_column(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    assert connection.execute(f"SELECT 1 AS {quote_ident(name)}").description[0][0] == name


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**127 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.dates()
    | st.datetimes()
    | st.uuids()
    | st.binary(max_size=8),
    lambda inner: st.dictionaries(TEXT, inner, min_size=1, max_size=2),
    max_leaves=4,
)


@given(value=VALUES)
@settings(deadline=None)
def test_a_literal_is_that_value(connection: duckdb.DuckDBPyConnection, value: object) -> None:
    keys = [key.lower() for key in value] if isinstance(value, dict) else []
    if len(set(keys)) < len(keys):
        return  # STRUCT fields differ by more than case
    assert connection.execute(f"SELECT {quote_literal(value)}").fetchone()[0] == value


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (0.1, "DOUBLE", 0.1),
        (1, "INTEGER", 1),
        (2**40, "BIGINT", 2**40),
        (math.inf, "DOUBLE", math.inf),
        (Decimal("1.50"), "DECIMAL(3,2)", Decimal("1.50")),
        (Decimal("1E+3"), "DECIMAL(4,0)", Decimal(1000)),
        (dt.time(1, 2, 3), "TIME", dt.time(1, 2, 3)),
        (dt.timedelta(days=-1, microseconds=5), "INTERVAL", dt.timedelta(days=-1, microseconds=5)),
        (["a", "it's"], "VARCHAR[]", ["a", "it's"]),
        ((1, -2), "INTEGER[]", [1, -2]),
        (
            dt.datetime(2026, 1, 1, 5, tzinfo=dt.timezone(dt.timedelta(hours=5))),
            "TIMESTAMP WITH TIME ZONE",
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        ),
        (UUID(int=1), "UUID", UUID(int=1)),
    ],
)
def test_the_type_of_a_literal(
    connection: duckdb.DuckDBPyConnection, value: object, dtype: str, expected: object
) -> None:
    literal = quote_literal(value)
    # Through text: fetching a TIMESTAMPTZ needs a package that is not installed.
    found = connection.execute(
        f"SELECT typeof(v), CAST(v AS VARCHAR) FROM (SELECT {literal} AS v)"
    ).fetchone()
    wanted = connection.execute(f"SELECT CAST({quote_literal(expected)} AS VARCHAR)").fetchone()
    assert found == (dtype, wanted[0])


def test_nan_is_a_double(connection: duckdb.DuckDBPyConnection) -> None:
    assert math.isnan(connection.execute(f"SELECT {quote_literal(math.nan)}").fetchone()[0])


def test_a_minus_before_a_negative_number_is_no_comment(connection: duckdb.DuckDBPyConnection) -> None:
    assert connection.execute(f"SELECT 3 -{quote_literal(-2)}").fetchone() == (5,)


@pytest.mark.parametrize(
    "value", [object(), {}, {1: 2}, "a\0b", "\ud800", 2**127, Decimal("NaN"), Decimal(10) ** 38, {"": 1}]
)
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(DefinitionError):
        quote_literal(value)


@pytest.mark.parametrize("name", ["", "a\0b", "\udfff"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        quote_ident(name)


def test_qualified_names() -> None:
    assert qualified("a", 'b"c') == '"a"."b""c"'
    with pytest.raises(DefinitionError, match="must not be empty"):
        qualified()
