"""Each source type to each declared dtype: the same value, or an error that shows the first bad one."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from daedalus.catalog.dtypes import canonical_dtype
from daedalus.catalog.model import DataSourceDef, Entity, EntityKey, FeatureViewDef, FieldDef
from daedalus.errors import SourceError
from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Iterator

D = decimal.Decimal


class SqlSource:
    """One column `raw` of a DuckDB expression, as any backend may hand it over."""

    def __init__(self, sql: str) -> None:
        self.sql = f'(SELECT 1 AS id, UNNEST([{sql}]) AS "Raw ""col""")'

    def relation_sql(self, time_range: Any = None, columns: Any = None) -> str:
        return self.sql

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        return {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {self.sql}").fetchall()}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


def values_of(connection: duckdb.DuckDBPyConnection, values: str, dtype: str) -> list[Any]:
    """The values (an SQL list's items) as a view that declares `dtype` reads them."""
    view = FeatureViewDef(
        name="v",
        file="v.yaml",
        entities=(Entity(name="e", keys=(EntityKey(name="id"),)),),
        fields=(FieldDef(name="id", dtype="BIGINT"), FieldDef(name="x", dtype=canonical_dtype(dtype))),
        source=DataSourceDef(path="p"),
        field_mapping=(('Raw "col"', "x"),),
    )
    reader = ViewReader(view, SqlSource(values), connection, 1_000_000)  # type: ignore[arg-type]
    try:
        return [row[0] for row in connection.execute(reader.select_sql(["x"])).fetchall()]
    except duckdb.Error as error:
        raise as_execution_error(error, "scan") from None


UTC = dt.UTC


def at(*parts: int) -> dt.datetime:
    """A time without a zone, as DuckDB gives a TIMESTAMP."""
    return dt.datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc]


KEPT = [
    # whole numbers
    ("1::UTINYINT, 255", "BIGINT", [1, 255]),
    ("18446744073709551615::UBIGINT", "HUGEINT", [2**64 - 1]),
    ("170141183460469231731687303715884105727::HUGEINT, 5", "HUGEINT", [2**127 - 1, 5]),
    ("5::HUGEINT", "BIGINT", [5]),
    ("5::DECIMAL(38,0)", "BIGINT", [5]),
    ("2.00::DECIMAL(12,2)", "INTEGER", [2]),
    ("2.0::DOUBLE", "BIGINT", [2]),
    ("true", "TINYINT", [1]),
    ("9007199254740992", "DOUBLE", [2.0**53]),
    # decimals
    ("1.25::DECIMAL(12,2)", "DECIMAL(18,4)", [D("1.2500")]),
    ("1.20::DECIMAL(12,2)", "DECIMAL(5,1)", [D("1.2")]),
    ("0.1::DOUBLE", "DECIMAL(10,2)", [D("0.10")]),
    ("0.1::DECIMAL(3,1)", "DOUBLE", [0.1]),
    ("1.5::DOUBLE, 'nan'::DOUBLE, 'inf'::DOUBLE", "FLOAT", [1.5, "nan", float("inf")]),
    # NULL only
    ("NULL, NULL", "BIGINT", [None, None]),
    ("NULL::INTEGER", "FLOAT[]", [None]),
    ("NULL::INTEGER", "TIMESTAMP", [None]),
    ("NULL::VARCHAR", "STRUCT(a BIGINT)", [None]),
    # text as number
    ("'5', '-7'", "INTEGER", [5, -7]),
    ("'1.50', '1e-1'", "DECIMAL(10,2)", [D("1.50"), D("0.10")]),
    ("'12345678901234567890.12'", "DECIMAL(30,2)", [D("12345678901234567890.12")]),
    ("'0.1', 'nan', '-inf', '1e3'", "DOUBLE", [0.1, "nan", float("-inf"), 1000.0]),
    (
        "'0.30000000000000004', '-1.500000000000000e+00', '1234567890123.4567'",
        "DOUBLE",
        [0.1 + 0.2, -1.5, 1234567890123.4567],
    ),
    (
        "'0.1', '16777216', '-0.000012345678'",
        "FLOAT",
        [0.10000000149011612, 16777216.0, -1.2345678442216013e-05],
    ),
    ("'true', 'f'", "BOOLEAN", [True, False]),
    ("'0a1b2c3d-0000-0000-0000-000000000001'", "UUID", [uuid.UUID("0a1b2c3d-0000-0000-0000-000000000001")]),
    # times
    (
        "TIMESTAMP '2024-01-02 03:04:05.123456'",
        "TIMESTAMPTZ",
        [dt.datetime(2024, 1, 2, 3, 4, 5, 123456, UTC)],
    ),
    ("TIMESTAMPTZ '2024-01-02 03:04:05+02'", "TIMESTAMP", [at(2024, 1, 2, 1, 4, 5)]),
    ("TIMESTAMP_NS '2024-01-02 03:04:05.123456'", "TIMESTAMP", [at(2024, 1, 2, 3, 4, 5, 123456)]),
    ("TIMESTAMP '2024-01-02 00:00:00'", "DATE", [dt.date(2024, 1, 2)]),
    ("DATE '2024-01-02'", "TIMESTAMP", [at(2024, 1, 2)]),
    ("TIMESTAMP '2024-01-02 03:04:05.120'", "TIMESTAMP_MS", [at(2024, 1, 2, 3, 4, 5, 120000)]),
    (
        "'2024-01-02T00:00:00+02:00', '2024-01-02'",
        "TIMESTAMP",
        [at(2024, 1, 1, 22), at(2024, 1, 2)],
    ),
    ("'2024-01-02 00:00:00.1234560Z'", "TIMESTAMP", [at(2024, 1, 2, 0, 0, 0, 123456)]),
    ("'2024-01-02T00:00:00+02:00'", "TIMESTAMPTZ", [dt.datetime(2024, 1, 1, 22, tzinfo=UTC)]),
    ("'2024-01-02 00:00:00'", "DATE", [dt.date(2024, 1, 2)]),
    ("'9999-12-31 00:00:00'", "TIMESTAMP", [at(9999, 12, 31)]),
    ("'10:00:00.5'", "TIME", [dt.time(10, 0, 0, 500000)]),
    # others
    ("'a'::ENUM('a','it''s'), 'it''s'", "VARCHAR", ["a", "it's"]),
    ("'\\xAB'::BLOB", "BLOB", [b"\xab"]),
    ("'0a1b2c3d-0000-0000-0000-000000000001'::UUID", "VARCHAR", ["0a1b2c3d-0000-0000-0000-000000000001"]),
    ("5", "VARCHAR", ["5"]),
    # lists and structs
    ("[1,2]::INTEGER[], []", "BIGINT[]", [[1, 2], []]),
    ("[1.0,2.0]::DOUBLE[]", "BIGINT[]", [[1, 2]]),
    ("[1.5, NULL]::DOUBLE[]", "FLOAT[2]", [(1.5, None)]),
    ("{'a': 1::INTEGER}", "STRUCT(a BIGINT)", [{"a": 1}]),
    ("'[1, 2]', '[]', '[NULL]'", "BIGINT[]", [[1, 2], [], [None]]),
    ("'[2024-01-02 00:00:00+02]'", "TIMESTAMP[]", [[at(2024, 1, 1, 22)]]),
    # JSON, as Postgres' json and Snowflake's VARIANT come
    ("'[1, 2]'::JSON, '[]', 'null'", "BIGINT[]", [[1, 2], [], None]),
    ("'[\n  1.5,\n  2.500000000000000e+00\n]'::JSON", "DOUBLE[]", [[1.5, 2.5]]),
    ('\'["a", null, "5"]\'::JSON', "VARCHAR[]", [["a", None, "5"]]),
    ("'[[1],[2,3]]'::JSON", "BIGINT[][]", [[[1], [2, 3]]]),
    (
        '\'{"a": 1, "b": ["x"]}\'::JSON, \'{}\'',
        "STRUCT(a BIGINT, b VARCHAR[])",
        [{"a": 1, "b": ["x"]}, {"a": None, "b": None}],
    ),
    ("'{\"k\": 1}'::JSON", "MAP(VARCHAR, BIGINT)", [{"k": 1}]),
    ("'5'::JSON, '\"5\"', 'null'", "BIGINT", [5, 5, None]),
    ("'12345678901234567890123'::JSON", "HUGEINT", [12345678901234567890123]),
    ("'1.10'::JSON", "DECIMAL(10,2)", [D("1.10")]),
    ("'12345678901234567890.123'::JSON", "DECIMAL(38,3)", [D("12345678901234567890.123")]),
    ("' 5\n'::JSON", "BIGINT", [5]),
    ('\'["1.12345678901234567890 \\" 2"]\'::JSON', "VARCHAR[]", [['1.12345678901234567890 " 2']]),
    (
        '\'{"a/b": [{"c~d": 1}, null, {}]}\'::JSON',
        'STRUCT("a/b" STRUCT("c~d" BIGINT)[])',
        [{"a/b": [{"c~d": 1}, None, {"c~d": None}]}],
    ),
    ("'true'::JSON", "BOOLEAN", [True]),
    ("'\"2024-01-02T00:00:00+02:00\"'::JSON", "TIMESTAMP", [at(2024, 1, 1, 22)]),
    ("'{\"a\": [1,  2]}'::JSON", "VARCHAR", ['{"a": [1,  2]}']),
]


@pytest.mark.parametrize(("values", "dtype", "expected"), KEPT)
def test_a_value_that_fits_is_the_same_value(
    connection: duckdb.DuckDBPyConnection, values: str, dtype: str, expected: list[Any]
) -> None:
    got = ["nan" if value != value else value for value in values_of(connection, values, dtype)]
    assert got == expected


LOST = [
    ("1, 300", "UTINYINT", "300"),
    ("-1", "UBIGINT", "-1"),
    ("18446744073709551615::UBIGINT", "BIGINT", "18446744073709551615"),
    ("170141183460469231731687303715884105727::HUGEINT", "BIGINT", "1701411834604692317316873"),
    ("9007199254740993", "DOUBLE", "9007199254740993"),
    ("16777217", "FLOAT", "16777217"),
    ("1.0, 1.5::DOUBLE", "BIGINT", "1.5"),
    ("'inf'::DOUBLE", "BIGINT", "inf"),
    ("0.1::DOUBLE", "FLOAT", "0.1"),
    ("1.255::DECIMAL(12,3)", "DECIMAL(12,2)", "1.255"),
    ("12345678901234567.89::DECIMAL(19,2)", "DOUBLE", "12345678901234567.89"),
    ("0.125::DOUBLE", "DECIMAL(10,2)", "0.125"),
    ("'5', 'x'", "BIGINT", "x"),
    ("''", "BIGINT", ""),
    ("'1.5'", "BIGINT", "1.5"),
    ("'007'", "BIGINT", "007"),
    ("'1.005'", "DECIMAL(10,2)", "1.005"),
    ("'12345678901234567.891'", "DECIMAL(20,2)", "12345678901234567.891"),
    ("'1.23456789012345678e0'", "DECIMAL(38,2)", "1.23456789012345678e0"),
    ("'1e400'", "DOUBLE", "1e400"),
    ("'9007199254740993'", "DOUBLE", "9007199254740993"),
    ("'0.12345678901234567890'", "DOUBLE", "0.12345678901234567890"),
    ("'0.1234567891'", "FLOAT", "0.1234567891"),
    ("'16777217'", "FLOAT", "16777217"),
    ("'maybe'", "BOOLEAN", "maybe"),
    ("TIMESTAMP_NS '2024-01-02 03:04:05.123456789'", "TIMESTAMP", "05.123456789"),
    ("TIMESTAMP '2024-01-02 03:04:05.5'", "TIMESTAMP_S", "05.5"),
    ("TIMESTAMP '2024-01-02 03:00:00'", "DATE", "03:00"),
    ("TIMESTAMP '9999-12-31 00:00:00'", "TIMESTAMP_NS", "9999-12-31"),
    ("'9999-12-31 00:00:00'", "TIMESTAMP_NS", "9999-12-31"),
    ("TIMESTAMPTZ '9999-12-31 00:00:00'", "TIMESTAMP_NS", "9999-12-31"),
    ("DATE '9999-12-31'", "TIMESTAMP_NS", "9999-12-31"),
    ("'2024-01-02 03:04:05.1234567'", "TIMESTAMP", "1234567"),
    ("'2024-01-02 03:00:00'", "DATE", "03:00"),
    ("'2024-01-02T00:00:00+02:00'", "DATE", "+02:00"),
    ("'yesterday'", "TIMESTAMP", "yesterday"),
    ("'10:00:00.1234567'", "TIME", "1234567"),
    ("[1.0, 2.5]::DOUBLE[]", "BIGINT[]", "2.5"),
    ("[1, 2, 3]", "BIGINT[2]", "[1, 2, 3]"),
    ("{'a': 1, 'b': 2}", "STRUCT(a BIGINT)", "2"),
    ("'[1, 2.5]'", "BIGINT[]", "2.5"),
    ("'[1, x]'", "BIGINT[]", "x"),
    ("'not a list'", "BIGINT[]", "not a list"),
    ("'[1, 2.5]'::JSON", "BIGINT[]", "2.5"),
    ("'[1, \"x\"]'::JSON", "BIGINT[]", "x"),
    ("'{\"a\": 1}'::JSON", "BIGINT[]", "{"),
    ("'\"abc\"'::JSON", "BIGINT", "abc"),
    ("'1.5'::JSON", "BIGINT", "1.5"),
    ("'1.105'::JSON", "DECIMAL(10,2)", "1.105"),
    ('\'{"a": 1, "c": 2}\'::JSON', "STRUCT(a BIGINT)", "c"),
    ("'{\"a\": 1.5}'::JSON", "STRUCT(a BIGINT)", "1.5"),
    ('\'{"k": "x"}\'::JSON', "MAP(VARCHAR, BIGINT)", "x"),
    ("'1e400'::JSON", "DOUBLE", "1e400"),
    # what DuckDB takes out of JSON as the nearest double
    ("'0.12345678901234567890'::JSON", "DOUBLE", "0.12345678901234567890"),
    ("'[0.1, 0.1234567890123456789]'::JSON", "DECIMAL(38,19)[]", "0.1234567890123456789"),
    ("'[0.1234567890123456789]'::JSON", "VARCHAR[]", "0.1234567890123456789"),
    ('\'{"a": {"b": 1, "c": 2}}\'::JSON', "STRUCT(a STRUCT(b BIGINT))", "c"),
    ('\'[{"b": 1}, {"c": 2}]\'::JSON', "STRUCT(b BIGINT)[]", "c"),
    ('\'{"k": {"b": 1, "c": 2}}\'::JSON', "MAP(VARCHAR, STRUCT(b BIGINT))", "c"),
    ("'infinity'", "TIMESTAMP", "infinity"),
    ("'-infinity'", "DATE", "-infinity"),
]


@pytest.mark.parametrize(("values", "dtype", "shown"), LOST)
def test_a_value_that_does_not_fit_is_shown_with_view_field_column_and_mend(
    connection: duckdb.DuckDBPyConnection, values: str, dtype: str, shown: str
) -> None:
    with pytest.raises(SourceError) as caught:
        values_of(connection, values, dtype)
    text = str(caught.value)
    assert 'view v (v.yaml), column x (the source\'s Raw "col")' in text
    assert "without loss" in text
    assert shown in text.split("The first such value: ")[1]
    assert "eclare" in text


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ("5", "BLOB"),
        ("DATE '2024-01-01'", "BIGINT"),
        ("[1]", "BIGINT"),
        ("TIME '10:00'", "DATE"),
        ("1.5", "UUID"),
    ],
)
def test_types_without_a_cast_are_refused_whatever_the_values(
    connection: duckdb.DuckDBPyConnection, values: str, dtype: str
) -> None:
    with pytest.raises(SourceError) as caught:
        values_of(connection, values, dtype)
    assert "column x" in str(caught.value)
