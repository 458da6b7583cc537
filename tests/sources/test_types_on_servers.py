"""Types that only a server has: PostgreSQL's and Snowflake's, read as views declare them."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import uuid
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from daedalus.catalog.dtypes import canonical_dtype
from daedalus.catalog.model import DataSourceDef, Entity, EntityKey, FeatureViewDef, FieldDef
from daedalus.errors import DaedalusError, SourceError
from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.storage.sources.dispatch import open_source
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.servers import PostgresServer
    from support.snowflake_server import SnowflakeServer

D = decimal.Decimal
UTC = dt.UTC


def at(*parts: int) -> dt.datetime:
    """A time without a zone, as DuckDB gives a TIMESTAMP."""
    return dt.datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc]


def view_of(source: DataSourceDef, fields: Sequence[tuple[str, str]]) -> FeatureViewDef:
    """A view with a field `x0`, `x1`, ... per (source column, dtype)."""
    names = [f"x{at}" for at in range(len(fields))]
    dtypes = [canonical_dtype(dtype) for _, dtype in fields]
    return FeatureViewDef(
        name="v",
        file="v.yaml",
        entities=(Entity(name="e", keys=(EntityKey(name="id"),)),),
        fields=(
            FieldDef(name="id", dtype="BIGINT"),
            *(FieldDef(name=name, dtype=dtype) for name, dtype in zip(names, dtypes, strict=True)),
        ),
        source=source,
        field_mapping=tuple((column, name) for name, (column, _) in zip(names, fields, strict=True)),
    )


@contextlib.contextmanager
def reading(source: DataSourceDef, fields: Sequence[tuple[str, str]]) -> Iterator[Callable[[int], list[Any]]]:
    """Read the values of one of the fields, in order of `id`."""
    view = view_of(source, fields)
    opened = open_source(view, source_root="/")
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            opened.setup(connection)
            reader = ViewReader(view, opened, connection, 1_000_000)

            def values(at: int) -> list[Any]:
                sql = f"{reader.select_sql(['id', f'x{at}'])} ORDER BY id"
                try:
                    return [row[1] for row in connection.execute(sql).fetchall()]
                except duckdb.Error as error:
                    raise as_execution_error(error, "scan") from None

            yield values
    finally:
        opened.close()


def read(source: DataSourceDef, column: str, dtype: str) -> list[Any]:
    """A column's values, in order of `id`, as a view that declares `dtype` reads them."""
    with reading(source, [(column, dtype)]) as values:
        return values(0)


# ------------------------------------------------------------------ PostgreSQL

POSTGRES_TABLE = """
CREATE TYPE mood AS ENUM ('so so', 'it''s fine'); CREATE DOMAIN amount AS numeric;
CREATE TABLE "We ird ""t" (
    id bigint, small smallint, num numeric, big numeric(38,0), dec numeric(12,2), wide numeric(60,20), nums numeric[],
    bin bytea, uid uuid, js json, jsb jsonb, mo mood, iv interval, tz timestamptz, ts timestamp, d date, ti time,
    txt text, ch char(5), "Odd ""n ame é" integer, ints int[], texts text[], tzs timestamptz[],
    nothing text, flag boolean, f4 real, ip inet, mny money,
    dom amount, doms amount[], moods mood[], nan numeric(6,2), nans numeric(6,2)[], hundreds numeric(5,-2),
    nested numeric[], jsd jsonb, jsl jsonb, far timestamp, never timestamp, ever timestamptz, eve date
);
INSERT INTO "We ird ""t" VALUES (
    1, 7, 12345678901234567890.123456789, 99999999999999999999999999999999999999, 1.25, 1.5, '{1.1,2.2}',
    '\\x00ff', '0a1b2c3d-0000-0000-0000-000000000001', '{"a": [1, 2]}', '[1, 2.5]', 'it''s fine', '1 mon 2 days 3 sec',
    '2024-01-02 03:04:05.123456+02', '2024-01-02 03:04:05.123456', '2024-01-02', '10:11:12.5',
    '42', 'ab', 5, '{1,NULL,3}', '{"a b",NULL}', '{2024-01-02 00:00:00+02}', NULL, true, 0.1, '10.0.0.1', '1.50',
    12345678901234567890.5, '{12345678901234567890.5}', '{so so,NULL}', 'NaN', '{1,NaN}', 12300, '{{1.5,2},{3,4}}',
    '12345678901234567890.123', '["a\\nb", "\\u00e9"]', '294276-12-31', 'infinity', '-infinity', '-infinity'
);
INSERT INTO "We ird ""t" (id) VALUES (2);
"""

POSTGRES = [
    ("small", "BIGINT", 7),
    ("num", "DECIMAL(38,9)", D("12345678901234567890.123456789")),
    ("num", "VARCHAR", "12345678901234567890.123456789"),
    ("big", "HUGEINT", 10**38 - 1),
    ("dec", "DOUBLE", 1.25),
    ("dec", "DECIMAL(18,4)", D("1.2500")),
    ("wide", "DECIMAL(10,1)", D("1.5")),
    ("wide", "DOUBLE", 1.5),
    ("nums", "DECIMAL(10,1)[]", [D("1.1"), D("2.2")]),
    ("bin", "BLOB", b"\x00\xff"),
    ("uid", "UUID", uuid.UUID("0a1b2c3d-0000-0000-0000-000000000001")),
    ("uid", "VARCHAR", "0a1b2c3d-0000-0000-0000-000000000001"),
    ("js", "STRUCT(a BIGINT[])", {"a": [1, 2]}),
    ("jsb", "DOUBLE[]", [1.0, 2.5]),
    ("jsb", "VARCHAR", "[1, 2.5]"),
    ("mo", "VARCHAR", "it's fine"),
    ("tz", "TIMESTAMP", at(2024, 1, 2, 1, 4, 5, 123456)),
    ("tz", "TIMESTAMPTZ", dt.datetime(2024, 1, 2, 1, 4, 5, 123456, UTC)),
    ("ts", "TIMESTAMP", at(2024, 1, 2, 3, 4, 5, 123456)),
    ("ts", "TIMESTAMP_NS", at(2024, 1, 2, 3, 4, 5, 123456)),
    ("d", "DATE", dt.date(2024, 1, 2)),
    ("ti", "TIME", dt.time(10, 11, 12, 500000)),
    ("txt", "INTEGER", 42),
    ("ch", "VARCHAR", "ab"),
    ('Odd "n ame é', "BIGINT", 5),
    ("ints", "BIGINT[]", [1, None, 3]),
    ("texts", "VARCHAR[]", ["a b", None]),
    ("tzs", "TIMESTAMPTZ[]", [dt.datetime(2024, 1, 1, 22, tzinfo=UTC)]),
    ("nothing", "FLOAT[]", None),
    ("flag", "BOOLEAN", True),
    ("f4", "FLOAT", 0.10000000149011612),
    ("ip", "VARCHAR", "10.0.0.1/32"),
    ("dom", "DECIMAL(38,9)", D("12345678901234567890.5")),
    ("doms", "DECIMAL(38,9)[]", [D("12345678901234567890.5")]),
    ("moods", "VARCHAR[]", ["so so", None]),
    ("nan", "DOUBLE", "nan"),
    ("nans", "FLOAT[]", [1.0, "nan"]),
    ("hundreds", "INTEGER", 12300),
    ("jsd", "DECIMAL(38,3)", D("12345678901234567890.123")),
    ("jsl", "VARCHAR[]", ["a\nb", "é"]),
]
#: Columns that a catalog and a statement of DuckDB's give other types: read alone, too, and of a query.
ALONE = [
    ("mo", "VARCHAR", "it's fine"),
    ("jsl", "VARCHAR[]", ["a\nb", "é"]),
    ("ints", "BIGINT[]", [1, None, 3]),
]
POSTGRES_LOST = [
    ("num", "DOUBLE", "12345678901234567890.123456789"),
    ("num", "BIGINT", "12345678901234567890.123456789"),
    ("big", "BIGINT", "99999999999999999999999999999999999999"),
    ("dec", "DECIMAL(12,1)", "1.25"),
    ("nums", "BIGINT[]", "1.1"),
    ("js", "BIGINT", '{"a": [1, 2]}'),
    ("jsb", "BIGINT[]", "2.5"),
    ("ts", "TIMESTAMP_MS", "05.123456"),
    ("ts", "DATE", "05.123456"),
    ("small", "BOOLEAN", "7"),
    ("dom", "DOUBLE", "12345678901234567890.5"),
    ("nan", "DECIMAL(6,2)", "NaN"),
    ("nan", "BIGINT", "NaN"),
    ("nans", "DECIMAL(6,2)[]", "NaN"),
    ("far", "TIMESTAMP", "too far away"),
    ("never", "TIMESTAMP", "infinity"),
    ("ever", "TIMESTAMPTZ", "-infinity"),
    ("eve", "DATE", "-infinity"),
]


@pytest.fixture(scope="module")
def postgres_table(postgres_server: PostgresServer) -> Iterator[DataSourceDef]:
    """The table as a source."""
    database = postgres_server.database()
    postgres_server.execute(POSTGRES_TABLE, database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_URL_OF_TYPES", postgres_server.url(database))
        yield DataSourceDef(database_path="${PG_URL_OF_TYPES}", table_name='"We ird ""t"')


@pytest.fixture(scope="module")
def in_postgres(postgres_table: DataSourceDef) -> Iterator[Callable[[int], list[Any]]]:
    """Read a column of the table, all in one session."""
    with reading(postgres_table, [(column, dtype) for column, dtype, _ in POSTGRES]) as values:
        yield values


@pytest.mark.parametrize("at_", range(len(POSTGRES)), ids=[f"{case[0]} {case[1]}" for case in POSTGRES])
def test_postgres_types(in_postgres: Callable[[int], list[Any]], at_: int) -> None:
    assert [_nan_as_text(value) for value in in_postgres(at_)] == [POSTGRES[at_][2], None]


def _nan_as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan_as_text(item) for item in value]
    return "nan" if isinstance(value, float) and value != value else value


@pytest.mark.parametrize(("column", "dtype", "expected"), ALONE)
@pytest.mark.parametrize("as_query", [False, True])
def test_postgres_types_by_table_and_by_query(
    postgres_table: DataSourceDef, as_query: bool, column: str, dtype: str, expected: Any
) -> None:
    source = postgres_table
    if as_query:
        query = f"SELECT id, {column} FROM {postgres_table.table_name}"
        source = DataSourceDef(database_path=postgres_table.database_path, query=query)
    assert read(source, column, dtype) == [expected, None]


def test_postgres_arrays_of_arrays(postgres_table: DataSourceDef) -> None:
    place = {"database_path": postgres_table.database_path}
    declared_deep = DataSourceDef(**place, query='SELECT id, to_jsonb(nested) AS n FROM "We ird ""t"')
    assert read(declared_deep, "n", "DECIMAL(4,1)[][]") == [
        [[D("1.5"), D("2.0")], [D("3.0"), D("4.0")]],
        None,
    ]
    with pytest.raises(DaedalusError, match=r"to_jsonb\(column\) in source\.query"):
        read(postgres_table, "nested", "DOUBLE[]")


def test_columns_that_differ_only_in_case_or_may_not_all_be_read(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres_server.database()
    postgres_server.execute(
        'CREATE TABLE cased (id bigint, "A" int, "a" int); INSERT INTO cased VALUES (1, 10, 20);'
        "CREATE TABLE granted (id bigint, a int, hidden int); INSERT INTO granted VALUES (1, 20, 30);"
        "CREATE ROLE some_columns LOGIN PASSWORD 'some-columns'; GRANT SELECT (id, a) ON granted TO some_columns;"
        "GRANT SELECT ON cased TO some_columns",
        database,
    )
    url = f"postgresql://some_columns:some-columns@127.0.0.1:{postgres_server.port}/{database}"
    monkeypatch.setenv("PG_URL_OF_SOME", url)
    for table, what in (("cased", "differ only in case"), ("granted", "may not read this")):
        with pytest.raises(SourceError, match=rf"{what}.*source\.query"):
            read(DataSourceDef(database_path="${PG_URL_OF_SOME}", table_name=table), "a", "BIGINT")
        query = f"SELECT id, a AS small FROM {table}"
        assert read(DataSourceDef(database_path="${PG_URL_OF_SOME}", query=query), "small", "BIGINT") == [20]


def test_enums_are_texts_also_where_they_are_ordered(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres_server.database()
    postgres_server.execute(
        "CREATE TYPE mood AS ENUM ('z', 'a'); CREATE TABLE t (id bigint, m mood)", database
    )
    postgres_server.execute("INSERT INTO t VALUES (1, 'z'), (2, 'a')", database)
    monkeypatch.setenv("PG_URL_OF_MOODS", postgres_server.url(database))
    view = view_of(DataSourceDef(database_path="${PG_URL_OF_MOODS}", table_name="t"), [("m", "VARCHAR")])
    opened = open_source(view, source_root="/")
    try:
        with duckdb.connect() as connection:
            opened.setup(connection)
            sql = ViewReader(view, opened, connection, 1_000_000).select_sql(["x0"])
            found = connection.execute(f"SELECT x0, typeof(x0) FROM ({sql}) ORDER BY x0").fetchall()
    finally:
        opened.close()
    assert found == [("a", "VARCHAR"), ("z", "VARCHAR")]


# ------------------------------------------------------------------ Snowflake

SNOWFLAKE_TABLE = """
CREATE TABLE "We ird ""t" (
    "id" NUMBER(38,0), u NUMBER(20,0), n NUMBER(37,0), dec NUMBER(12,2), wide NUMBER(38,4), f FLOAT, s VARCHAR,
    b BOOLEAN,
    d DATE, ti TIME, ntz TIMESTAMP_NTZ, ltz TIMESTAMP_LTZ, tz TIMESTAMP_TZ, v VARIANT, o OBJECT, a ARRAY, bin BINARY,
    "Odd ""n ame é" NUMBER(38,0), nothing VARCHAR, ms NUMBER(38,0)
)
"""
SNOWFLAKE_ROW = """
INSERT INTO "We ird ""t" SELECT
    1, 18446744073709551615, 12345678901234567890, 1.25, 12345678901234567890.1234, 1.5, '42', TRUE,
    '2024-01-02'::DATE, '10:11:12.123456'::TIME, '2024-01-02 03:04:05.123456'::TIMESTAMP_NTZ,
    '2024-01-02 03:04:05.123456 +00:00'::TIMESTAMP_LTZ, '2024-01-02 03:04:05.123456 +02:00'::TIMESTAMP_TZ,
    PARSE_JSON('{"a": [1, 2]}'), PARSE_JSON('{"k": "x"}'), PARSE_JSON('[1, 2]'), TO_BINARY('00ff', 'hex'), 5, NULL, 7
"""
SNOWFLAKE = [
    ("U", "UBIGINT", 2**64 - 1),
    ("U", "HUGEINT", 2**64 - 1),
    ("N", "HUGEINT", 12345678901234567890),
    ("N", "DECIMAL(38,0)", D(12345678901234567890)),
    ("N", "VARCHAR", "12345678901234567890"),
    ("dec", "DOUBLE", 1.25),
    ("DEC", "DECIMAL(18,4)", D("1.2500")),
    ("WIDE", "DECIMAL(38,4)", D("12345678901234567890.1234")),
    ("F", "FLOAT", 1.5),
    ("S", "BIGINT", 42),
    ("B", "BOOLEAN", True),
    ("D", "DATE", dt.date(2024, 1, 2)),
    ("TI", "TIME", dt.time(10, 11, 12, 123456)),
    ("NTZ", "TIMESTAMP", at(2024, 1, 2, 3, 4, 5, 123456)),
    ("NTZ", "TIMESTAMP_NS", at(2024, 1, 2, 3, 4, 5, 123456)),
    ("LTZ", "TIMESTAMP", at(2024, 1, 2, 3, 4, 5, 123456)),
    ("TZ", "TIMESTAMPTZ", dt.datetime(2024, 1, 2, 1, 4, 5, 123456, UTC)),
    ("TZ", "TIMESTAMP", at(2024, 1, 2, 1, 4, 5, 123456)),
    ("V", "STRUCT(a BIGINT[])", {"a": [1, 2]}),
    ("V", "VARCHAR", '{"a":[1,2]}'),
    ("O", "MAP(VARCHAR, VARCHAR)", {"k": "x"}),
    ("A", "BIGINT[]", [1, 2]),
    ("BIN", "BLOB", b"\x00\xff"),
    ('Odd "n ame é', "BIGINT", 5),
    ("NOTHING", "FLOAT[]", None),
    ("MS", "INTEGER", 7),
]
SNOWFLAKE_LOST = [
    ("N", "BIGINT", "12345678901234567890"),
    ("U", "BIGINT", "18446744073709551615"),
    ("U", "DOUBLE", "18446744073709551615"),
    ("DEC", "BIGINT", "1.25"),
    ("WIDE", "DOUBLE", "12345678901234567890.1234"),
    ("S", "BOOLEAN", "42"),
    ("V", "BIGINT[]", '{"a":[1,2]}'),
    ("NTZ", "DATE", "03:04:05"),
    ("TZ", "DATE", "01:04:05"),
]


@pytest.fixture(scope="module")
def _snowflake_table(_snowflake_process: SnowflakeServer) -> None:
    _snowflake_process.execute(SNOWFLAKE_TABLE)
    _snowflake_process.execute(SNOWFLAKE_ROW)
    _snowflake_process.execute('INSERT INTO "We ird ""t" ("id") VALUES (2)')


@pytest.fixture
def in_snowflake(
    _snowflake_table: None, snowflake_server: SnowflakeServer
) -> Callable[[str, str], list[Any]]:
    """Read a column of the table."""
    raw = snowflake_server.source('"We ird ""t"')
    source = DataSourceDef(**(raw | {"credentials": tuple(raw["credentials"].items())}))
    return lambda column, dtype: read(source, column, dtype)


@pytest.mark.xdist_group("snowflake")
@pytest.mark.parametrize(("column", "dtype", "expected"), SNOWFLAKE)
def test_snowflake_types(
    in_snowflake: Callable[[str, str], list[Any]], column: str, dtype: str, expected: Any
) -> None:
    assert in_snowflake(column, dtype) == [expected, None]


@pytest.mark.xdist_group("snowflake")
@pytest.mark.parametrize(("column", "dtype", "shown"), SNOWFLAKE_LOST)
def test_snowflake_values_that_do_not_fit(
    in_snowflake: Callable[[str, str], list[Any]], column: str, dtype: str, shown: str
) -> None:
    with pytest.raises(SourceError) as caught:
        in_snowflake(column, dtype)
    text = str(caught.value)
    assert "v.yaml" in text
    assert column in text
    assert shown in text


@pytest.mark.xdist_group("snowflake")
def test_columns_that_differ_only_in_case_are_told_apart(snowflake_server: SnowflakeServer) -> None:
    table = snowflake_server.table(pa.table({"id": [1]}))
    raw = snowflake_server.source(query=f'SELECT "id", 1 AS "x1", 2 AS "X 1" FROM "{table}"')
    source = DataSourceDef(**(raw | {"credentials": tuple(raw["credentials"].items())}))
    assert read(source, "X 1", "BIGINT") == [2]
