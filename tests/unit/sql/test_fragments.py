"""What an expression may and may not hold, and what it is rendered to."""

from __future__ import annotations

import pickle

import duckdb
import pytest

from daedalus.errors import DefinitionError
from daedalus.sql.fragments import MAX_LENGTH, Fragment, fragment_type, parse_fragment, require_boolean

ROWS = """
    SELECT * FROM (VALUES
        (1, 'a', 'like_click', [1, 2, 3], {'a': {'b': 5}}, TIMESTAMP '2026-03-01 10:20:30',
            '{"k": [1]}'::JSON, 1.5),
        (2, 'B', 'view', [], {'a': {'b': NULL}}, TIMESTAMP '2024-02-29 00:00:00', '{"k": 2}'::JSON, -0.0),
        (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (-7, 'it''s', '--', [NULL, 9], {'a': {'b': 0}}, TIMESTAMP '1969-12-31 23:59:59',
            'null'::JSON, 'nan'::DOUBLE)
    ) AS hist(x, "we ird", event, l, s, ts, j, "é")
"""
COLUMNS = ("x", "we ird", "event", "l", "s", "ts", "j", "é")

ALLOWED = [
    "hist.event = 'like_click'",
    "hist.\"we ird\" in ('a', 'it''s')",
    "hist.x not in (1, 2) or hist.x is null",
    "hist.x between 1 and 2 and not (hist.x = 1)",
    "hist.x is distinct from 3",
    "hist.x + 1 * 2 - -hist.x",
    "hist.x // 2 % 3",
    "hist.x / 2",
    "2 ** 3 ^ 2",
    "hist.x & 3 | 2 << 1",
    "abs(hist.x)! = 1 or @hist.x > 3",
    "hist . EVENT  ||\n 'x'",
    "case hist.x when 1 then 'one' when 2 then 'two' end",
    "case when hist.x > 1 then 1 else hist.x end",
    "if(hist.x > 1, 2, 3)",
    "coalesce(hist.x, 0)",
    "ifnull(hist.x, 1) + nullif(hist.x, 1)",
    "greatest(hist.x, 3)",
    "cast(hist.x as varchar)",
    "try_cast(hist.event as integer)",
    "hist.x::double",
    "hist.x::decimal(10, 2)",
    "cast({'a': 1} as struct(a bigint))",
    "hist.event like 'l%' or hist.event ilike 'V%'",
    "hist.event not like 'l\\%' escape '\\'",
    "hist.event similar to '.*ew'",
    "hist.event ~ 'view'",
    "hist.event glob 'v*'",
    "regexp_matches(hist.event, '^v') or starts_with(hist.event, 'l')",
    "hist.event collate nocase = 'VIEW'",
    "hist.event[1:3] || hist.event[-1]",
    "substring(hist.event from 2 for 2)",
    "trim(both 'v' from hist.event)",
    "position('e' in hist.event)",
    "lower(hist.\"we ird\") || $$ -- $$ || e'\\'--'",
    "'a'\n'b'",
    "hist.l[1]",
    "hist.l[2:]",
    "[1, hist.x]",
    "hist.x in hist.l",
    "list_contains(hist.l, 2)",
    "list_transform(hist.l, lambda y: y + hist.x)",
    "list_filter(hist.l, lambda y, i: y > i)",
    "[y * 2 for y in hist.l if y > 1]",
    "list_sum(hist.l) + list_aggregate(hist.l, 'max')",
    "len(hist.l)",
    "range(3)",
    "hist.s.a.b",
    "(hist.s).a.b",
    "hist.s['a']",
    "{'k': hist.x}.k",
    "struct_pack(k := hist.x)",
    "map {'k': hist.x}['k']",
    "(hist.x, 1)",
    "hist.j -> '$.k'",
    "hist.j ->> 'k' = '2'",
    "hist.ts + interval 3 day",
    "hist.ts at time zone 'UTC'",
    "extract(year from hist.ts) + year(hist.ts)",
    "date_trunc('day', hist.ts)",
    "date_diff('day', hist.ts, timestamp '2026-03-02')",
    "strftime(hist.ts, '%Y-%m')",
    "epoch_ms(hist.ts)",
    "age(hist.ts, timestamp '2026-03-02')",
    "isnan(hist.é)",
    "hist.é = 0",
    "round(hist.é, 1)",
    "hash(hist.x)",
    "md5(hist.event)",
    "true",
    "NULL",
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@pytest.mark.parametrize("text", ALLOWED)
def test_the_rendered_expression_means_the_same(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    def values(expression: str, table: str) -> list[object]:
        # As text: Python would need another package to show a TIMESTAMPTZ.
        sql = f"SELECT typeof(v), CAST(v AS VARCHAR) FROM (SELECT {expression} AS v FROM {table})"
        return connection.execute(sql).fetchall()

    fragment = parse_fragment(text, columns=COLUMNS, where="here", qualifier="hist")
    written = values(f"({text})", f"({ROWS}) AS hist")
    assert len(written) == 4
    assert values(fragment.render("hist"), f"({ROWS}) AS hist") == written
    table = f'(SELECT x AS un, event AS "select", * EXCLUDE (x, event) FROM ({ROWS})) AS "T 2"'
    assert values(fragment.render("T 2", {"x": "un", "event": "select"}), table) == written


@pytest.mark.parametrize("text", ALLOWED)
def test_rendering_what_was_rendered_changes_nothing(text: str) -> None:
    once = parse_fragment(text, columns=COLUMNS, where="", qualifier="hist").render("hist")
    assert parse_fragment(once, columns=COLUMNS, where="", qualifier="hist").render("hist") == once


REFUSED = [
    ("", "an expression is missing"),
    ("  \n ", "an expression is missing"),
    ("1;", "a semicolon is not allowed"),
    ("1; DROP TABLE x", "a semicolon is not allowed"),
    ("hist.x -- why", "a comment is not allowed"),
    ("/* why */ hist.x", "a comment is not allowed"),
    ("hist.x /*", "a comment is not allowed"),
    ("(SELECT 1)", "a subquery is not allowed"),
    ("hist.x IN (SELECT 1)", "a subquery is not allowed"),
    ("EXISTS (SELECT 1)", "a subquery is not allowed"),
    ("hist.x = ANY (SELECT 1)", "a subquery is not allowed"),
    ("list_transform(hist.l, lambda y: (SELECT y))", "a subquery is not allowed"),
    ("TRY((SELECT 1))", "a subquery is not allowed"),
    ("hist.x IN (TABLE t)", "a subquery is not allowed"),
    ("sum(hist.x)", "sum() is an aggregate"),
    ("count(*)", "count_star() is an aggregate"),
    ("sum(DISTINCT hist.x)", "sum() is an aggregate"),
    ("list(hist.x ORDER BY hist.x)", "list() is an aggregate"),
    ("abs(hist.x) FILTER (WHERE true)", "called like an aggregate"),
    ("grouping(hist.x)", "grouping function is not allowed"),
    ("row_number() OVER ()", "a window function is not allowed"),
    ("sum(hist.x) OVER ()", "a window function is not allowed"),
    ("now()", "now() is volatile"),
    ("random() > 0.5", "random() is volatile"),
    ("uuid()", "uuid() is volatile"),
    ("gen_random_uuid()", "gen_random_uuid() is volatile"),
    ("today()", "today() is volatile"),
    ("current_date", "current_date is volatile"),
    ("CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP is volatile"),
    ("localtimestamp", "localtimestamp is volatile"),
    ("nextval('s')", "nextval() is volatile"),
    ("txid_current()", "txid_current() is volatile"),
    ("error('x')", "error() is volatile"),
    ("write_log('x')", "write_log() is volatile"),
    ("age(hist.ts)", "age() with one argument reads the clock"),
    ("ago(INTERVAL 1 DAY)", "ago() is refused"),
    ("get_current_timestamp()", "get_current_timestamp() is volatile"),
    ("current_localtimestamp()", "current_localtimestamp() is refused"),
    ("list_aggregate(hist.l, 'reservoir_quantile', 0.5)", "reservoir_quantile is volatile"),
    ("list_aggregate(hist.l, hist.event)", "the aggregate's name must be a constant"),
    ("list_aggregate(hist.l, 'reservoir' || '_quantile', 0.5)", "the aggregate's name must be a constant"),
    ("getenv('HOME')", "getenv() is refused"),
    ("current_setting('threads')", "current_setting() is refused"),
    ("getvariable('a')", "getvariable() is refused"),
    ("version()", "version() is refused"),
    ("current_user", "current_user is volatile or reads the session"),
    ("current_schema()", "current_schema() is volatile"),
    ("current_query()", "current_query() is volatile"),
    ("pg_typeof(1)", "pg_typeof() is refused"),
    ("pg_get_viewdef(1)", "pg_get_viewdef() is refused"),
    ("format_type(1, 1)", "format_type() is refused"),
    ("json_serialize_plan('SELECT 1')", "json_serialize_plan() is refused"),
    ("vector_type(hist.x)", "vector_type() is refused"),
    ("stats(hist.x)", "stats() is volatile"),
    ("read_text('/etc/passwd')", "read_text() is a table function"),
    ("read_csv('x')", "read_csv() is a table function"),
    ("glob('*')", "glob() is a table function"),
    ("query('SELECT 1')", "query() is a table function"),
    ("duckdb_settings()", "duckdb_settings() is a table function"),
    ("unnest(hist.l)", "unnest() is a table function"),
    ("regexp_split_to_table('a b', ' ')", "regexp_split_to_table() is refused"),
    ("abss(hist.x)", "there is no function abss()"),
    ("hist.x %-1", "there is no operator %-"),
    ("hist.event.upper()", "a function name must stand alone"),
    ("other.main.abs(1)", "a function name must stand alone"),
    ("x", "unqualified name x"),
    ("event = 'a'", "unqualified name event"),
    ("other.x", "unqualified name other.x"),
    ("hist.zzz", "unknown column hist.zzz"),
    ("hist.rowid", "unknown column hist.rowid"),
    ("list_transform(hist.l, lambda y: z)", "unqualified name z"),
    ("lambda y: y", "unqualified name y"),
    ("*", "a star is not allowed"),
    ("hist.*", "a star is not allowed"),
    ("COLUMNS('x')", "a star is not allowed"),
    ("?", "a parameter is not allowed"),
    ("$1", "a parameter is not allowed"),
    ("$name", "a parameter is not allowed"),
    ("#1", "a column position is not allowed"),
    ("DEFAULT", "DEFAULT is not allowed"),
    ("hist.x AS y", "more than one expression"),
    ("y: hist.x", "more than one expression"),
    ("1, 2", "more than one expression"),
    ("0x1F", "more than one expression"),
    ("hist.x FROM t", "more than one expression"),
    ("hist.x WHERE true", "more than one expression"),
    ("hist.x LIMIT 1", "more than one expression"),
    ("hist.x ORDER BY 1", "more than one expression"),
    ("hist.x GROUP BY ALL", "more than one expression"),
    ("1 UNION SELECT 2", "more than one expression"),
    ("hist.x QUALIFY true", "more than one expression"),
    ("hist.x HAVING true", "more than one expression"),
    ("hist.x USING SAMPLE 1", "more than one expression"),
    ("DISTINCT hist.x", "more than one expression"),
    ("hist.x) OR (true", "is not an SQL expression"),
    ("hist.x = ", "is not an SQL expression"),
    ("'abc", "is not an SQL expression"),
    ('"abc', "is not an SQL expression"),
    ("hist.x::foo", "unknown type foo"),
    ("hist.x::half_float", "unknown type half_float"),
    ("CAST(hist.x AS struct(a foo)[])", "unknown type foo"),
    ("a\0b", "a control character"),
    ("\ud800", "a control character"),
    ("(" * 5000, "is not an SQL expression"),
    ("NOT " * 4000 + "true", "is not an SQL expression"),
    ("1" + "+1" * MAX_LENGTH, "more than 20000 characters"),
]


@pytest.mark.parametrize(("text", "what"), REFUSED)
def test_what_is_refused(text: str, what: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_fragment(text, columns=COLUMNS, where="service s, $.derived[0].sql", qualifier="hist")
    assert what in caught.value.what
    assert caught.value.where == "service s, $.derived[0].sql"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evnt = 1", "f: unknown column evnt in 'evnt = 1'. Did you mean 'event'?"),
        (
            'event = "like"',
            "f: unknown column like in 'event = \"like\"'. "
            "Double quotes are for names; a text is written 'like'.",
        ),
        (
            "t.event",
            "f: columns are written without a table name here, got t.event in 't.event'. Write event.",
        ),
        (
            "event + user",
            "f: user is volatile or reads the session in 'event + user'. Use columns and constants only.",
        ),
        (
            "strftim(x)",
            "f: there is no function strftim() in 'strftim(x)'. "
            "Did you mean 'strftime' or 'strptime' or 'trim'?",
        ),
        (
            "x::half_float",
            "f: unknown type half_float in 'x::half_float'. DuckDB has no half floats: cast to FLOAT.",
        ),
    ],
)
def test_messages_for_bare_columns(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_fragment(text, columns=["event", "x"], where="f")
    assert str(caught.value) == message


def test_an_expression_must_be_text() -> None:
    with pytest.raises(DefinitionError, match="must be text, got 1"):
        parse_fragment(1, columns=[], where="f")  # type: ignore[arg-type]


def test_bare_columns_may_be_called_like_keywords_and_clock_words() -> None:
    fragment = parse_fragment('current_date > "select"', columns=["current_date", "select"], where="")
    assert fragment.columns == ("current_date", "select")
    assert fragment.render("t") == '("t"."current_date" > "t"."select")'


def test_a_column_that_shadows_a_struct_field_reference() -> None:
    fragment = parse_fragment("s.a + a", columns=["s", "a"], where="")
    assert fragment.columns == ("s", "a")
    assert fragment.render("t") == '("t"."s"."a" + "t"."a")'


def test_a_lambda_parameter_hides_a_column() -> None:
    fragment = parse_fragment("list_transform(l, lambda x: x + y)", columns=["l", "x", "y"], where="")
    assert fragment.columns == ("l", "y")


def test_names_are_matched_without_case_only_when_that_is_clear() -> None:
    assert parse_fragment("EVENT", columns=["Event"], where="").columns == ("Event",)
    assert parse_fragment("event", columns=["Event", "event"], where="").columns == ("event",)
    with pytest.raises(DefinitionError, match="unknown column EVENT"):
        parse_fragment("EVENT", columns=["Event", "event"], where="")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("x", '"x"'),
        ("abs(x)", 'abs("x")'),
        ("(x)", '("x")'),
        ("(x) + (x)", '(("x") + ("x"))'),
        ("NOT (x)", '(NOT ("x"))'),
        ("abs(x) + abs(x)", '(abs("x") + abs("x"))'),
        ("x OR\n\n  x", '("x" OR "x")'),
        ("'a  b'", "('a  b')"),
        ('"x"', '"x"'),
        ("X  . a", '"x"."a"'),
        ("é", '"é"'),
        ("'é' || x", "('é' || \"x\")"),
    ],
)
def test_rendering(text: str, rendered: str) -> None:
    assert parse_fragment(text, columns=["x", "é"], where="").render() == rendered


def test_a_fragment_survives_pickling() -> None:
    fragment = parse_fragment("s.a + 1", columns=["s"], where="")
    copy = pickle.loads(pickle.dumps(fragment))
    assert isinstance(copy, Fragment)
    assert copy == fragment
    assert copy.render("t") == fragment.render("t")


@pytest.mark.parametrize(
    ("text", "types", "dtype"),
    [
        ("x + 1", {"x": "BIGINT"}, "BIGINT"),
        ("x / 2", {"x": "BIGINT"}, "DOUBLE"),
        ("x", {"x": "FLOAT[1152]"}, "FLOAT[1152]"),
        ("x.a", {"x": 'STRUCT("a" VARCHAR)'}, "VARCHAR"),
        ("x", {"x": "DECIMAL(10,2)"}, "DECIMAL(10,2)"),
        ("CAST(NULL AS FLOAT[])", {}, "FLOAT[]"),
        ("CAST('no number' AS INTEGER)", {}, "INTEGER"),
        ("NULL", {}, '"NULL"'),
        ("[]", {}, '"NULL"[]'),
        ("x IS NULL", {"x": "TIMESTAMPTZ"}, "BOOLEAN"),
    ],
)
def test_bound_types(text: str, types: dict[str, str], dtype: str) -> None:
    assert fragment_type(parse_fragment(text, columns=["x"], where=""), types) == dtype


@pytest.mark.parametrize(
    ("types", "what"),
    [
        ({"x": "VARCHAR", "y": "BIGINT"}, "'x + y' does not fit its columns"),
        ({"x": "BIGINT"}, "the type of column y is not known"),
        ({"x": "BIGINT", "y": "INT) AS z, (SELECT 1"}, "'INT) AS z, (SELECT 1' is not a type of DuckDB"),
        ({"x": "BIGINT", "y": "nonsense"}, "'nonsense' is not a type of DuckDB"),
    ],
)
def test_what_does_not_bind(types: dict[str, str], what: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        fragment_type(parse_fragment("x + y", columns=["x", "y"], where=""), types, where="place")
    assert caught.value.what == what
    assert caught.value.where == "place"


def test_a_condition_must_be_boolean() -> None:
    condition = parse_fragment("x > 1", columns=["x"], where="")
    require_boolean(condition, {"x": "BIGINT"}, "place")
    with pytest.raises(DefinitionError, match=r"^place: 'x' is BIGINT, not a condition"):
        require_boolean(parse_fragment("x", columns=["x"], where=""), {"x": "BIGINT"}, "place")


def test_no_function_that_reads_the_world_is_open() -> None:
    """Every function of DuckDB is judged, so that a new version's additions are noticed."""
    from daedalus.sql._functions import refusal
    from daedalus.sql.parsing import function_kinds

    suspicious = (
        "current_",
        "pg_",
        "duckdb_",
        "pragma_",
        "read_",
        "write_",
        "parquet_",
        "__internal",
        "which_",
        "in_search",
    )
    suspects = [name for name in function_kinds() if name.startswith(suspicious)]
    assert len(suspects) > 50
    assert [name for name in suspects if refusal(name, 1) is None] == []
    assert [
        name for name in ("abs", "lower", "list_sum", "strftime", "json_extract") if refusal(name, 1)
    ] == []
