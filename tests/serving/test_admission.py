"""Whatever is admitted reads one approved relation and calls nothing but what is on the lists, by DuckDB's own word."""

from __future__ import annotations

import contextlib
import json

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.serving import allowed
from daedalus.serving.authorization import Approved, RefusedError, admit
from daedalus.serving.weight import column_widths
from daedalus.sql.parsing import function_kinds

RELATIONS = {"t": Approved(name="t", service="t", columns=("a", "b", 'we"ird'))}

EXPRESSIONS = [
    "a", "b", "t.a", '"we""ird"', "*", "1", "'x'", "NULL", "a + 1", "(a)", "count(*)", "lower(b)", "a IN (1, 2)",
    "CASE WHEN a THEN b END", "a::BIGINT", "[a, 1]", "b LIKE 'x%'", "current_user", "rowid", "getenv('HOME')",
    "(SELECT 1)", "(SELECT a FROM secret)", "row_number() OVER ()", "list(a)", "unnest([1])", "COLUMNS('.*')",
    "query('x')", "read_text('/etc/passwd')", "x -> x", "EXISTS (FROM secret)", "nextval('s')", "$1", "#1", "now()",
    "a COLLATE nocase", "struct_pack(a := 1)", "{'a': 1}", "MAP {1: 2}", "INTERVAL 1 DAY", "DATE '2026-01-01'",
    "- -a", "-(-1)", "b NOT LIKE '%x%y%'", "b ILIKE '%x%'", "b LIKE '_%'", "b LIKE b", "$$;--$$", "a AS \"x\"\" --\"",
    "NOT a = b IS NULL", "a BETWEEN 1 AND b", "t.a.b", "'\\x00'::BLOB", "1e400", "a[1:2]", "x'00'",
]  # fmt: skip
TABLES = [
    "t", "main.t", "served.main.t", "t AS x", "t, t u", "secret", "memory.secret", "t JOIN secret ON true", "range(9)",
    "(SELECT * FROM t)", "(VALUES (1))", "'/etc/passwd'", "duckdb_settings()", "t TABLESAMPLE 1%", "t x(a)", "T", '"t"',
    "t LEFT JOIN t u USING (a)", "t POSITIONAL JOIN secret", "LATERAL (SELECT 1)", "t SEMI JOIN secret USING (a)",
]  # fmt: skip
TAILS = [
    "", "GROUP BY a", "GROUP BY ALL", "GROUP BY ROLLUP (a, b)", "HAVING count(*) > 1", "ORDER BY a DESC", "LIMIT 5",
    "LIMIT (SELECT 1)", "LIMIT 50%", "OFFSET 2", "QUALIFY true", "USING SAMPLE 1", "UNION SELECT 1", "WINDOW w AS ()",
    "; SELECT 1", "-- x", "EXCEPT FROM secret", "ORDER BY ALL", "FETCH FIRST 1 ROW ONLY",
]  # fmt: skip


@st.composite
def statements(draw: st.DrawFn) -> str:
    items = ", ".join(draw(st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3)))
    where = draw(st.sampled_from(["", *(f"WHERE {one}" for one in EXPRESSIONS)]))
    with_ = draw(st.sampled_from(["", "", "", "WITH t AS (FROM secret)", "WITH x AS (SELECT 1)"]))
    tails = " ".join(draw(st.lists(st.sampled_from(TAILS), max_size=2)))
    return f"{with_} SELECT {items} FROM {draw(st.sampled_from(TABLES))} {where} {tails}"


def calls(node: object) -> set[str]:
    """Every function that a serialized statement calls."""
    if isinstance(node, dict):
        own = {str(node["function_name"])} if "function_name" in node else set()
        return own.union(*(calls(one) for one in node.values()))
    return set().union(*(calls(one) for one in node)) if isinstance(node, list) else set()


@settings(max_examples=250, deadline=None)
@given(statements())
def test_what_is_admitted_reads_the_approved_relation_alone(statement: str) -> None:
    try:
        admitted = admit(statement, RELATIONS, rows=10, longest=10_000)
    except RefusedError:
        return
    with duckdb.connect() as connection:
        try:
            names = connection.get_table_names(admitted.sql, qualified=True)
        except duckdb.Error:
            return  # an aggregate in WHERE, say: DuckDB will not run it either
        assert {name.partition(" AS ")[0] for name in names} == {"served.main.t"}
        (tree,) = connection.execute("SELECT json_serialize_sql(?)", [admitted.sql]).fetchone() or ("",)
        assert calls(json.loads(tree)) <= allowed.FUNCTIONS | allowed.AGGREGATES
        assert len(connection.extract_statements(admitted.sql)) == 1
    # What runs would be admitted itself, and written the same: nothing changes its meaning on the way.
    assert admit(admitted.sql, RELATIONS, rows=10, longest=10_000).sql == admitted.sql
    assert "LIMIT" in admitted.sql


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_refused_or_admitted_and_nothing_else(text: str) -> None:
    for statement in (text, f"SELECT {text} FROM t", f"SELECT a FROM {text}", f"FROM t WHERE a = '{text}'"):
        with contextlib.suppress(RefusedError):
            admit(statement, RELATIONS, rows=10, longest=10_000)


def test_the_lists_hold_what_duckdb_has_and_nothing_that_reads_or_waits() -> None:
    kinds = function_kinds()
    syntax = {"//", "count_star"}
    for name in sorted((allowed.FUNCTIONS | allowed.AGGREGATES) - syntax):
        assert name in kinds, f"DuckDB has no {name}"
        assert not kinds[name] & {"VOLATILE", "table", "table_macro", "pragma"}, name
    assert all("aggregate" in kinds[name] for name in allowed.AGGREGATES - syntax)
    assert not any("aggregate" in kinds.get(name, ()) for name in allowed.FUNCTIONS)


@pytest.mark.parametrize("key", ["qualify", "sample", "new_clause_of_a_later_duckdb"])
def test_a_part_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A later DuckDB that parses more must not have it admitted unread."""
    from daedalus.serving import authorization

    parse = authorization.statement_tree

    def later(text: str) -> list[dict[str, object]]:
        found = parse(text)
        found[0]["node"][key] = {"class": "NEW"}
        return found

    monkeypatch.setattr(authorization, "statement_tree", later)
    with pytest.raises(RefusedError):
        admit("SELECT a FROM t", RELATIONS, rows=10, longest=1000)


@pytest.mark.parametrize(
    ("statement", "admitted"),
    [
        ("SELECT * FROM t", True),
        ("SELECT coalesce(a, b), lower(a) FROM t ORDER BY a", True),
        ("SELECT a FROM t WHERE b IN (" + ", ".join(f"'{n}'" for n in range(2_000)) + ")", True),
        ("SELECT " + ", ".join(["a"] * 20) + " FROM t", False),
        ("SELECT a || a || a || a || a FROM t", False),
        ("SELECT length(a || a || a || a || a) FROM t", False),
        ("SELECT a AS g FROM t ORDER BY " + ", ".join(["g"] * 20), False),
        ("SELECT " + ", ".join(["*"] * 20) + " FROM t", False),
        ("SELECT [a, a, a, a, a, a, a, a, a, a, a, a] FROM t LIMIT 1", False),
    ],
)
def test_what_a_batch_of_rows_makes_is_bounded(statement: str, admitted: bool) -> None:
    wide = {"t": Approved(name="t", service="t", columns=("a", "b"), widths={"a": 10 << 20})}
    if admitted:
        assert admit(statement, wide, rows=10, longest=64 << 10, heaviest=100 << 20).relation.name == "t"
        return
    with pytest.raises(RefusedError, match="MiB of each 2048 rows"):
        admit(statement, wide, rows=10, longest=64 << 10, heaviest=100 << 20)


def test_widths_are_those_of_the_values() -> None:
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT 1 AS n, repeat('x', 100) AS \"T\"\"x\", [1.5::FLOAT, 2] AS l, 'ab'::BLOB AS b, "
            "[['x']] AS nested, {'a': 1} AS s, 1.5::DECIMAL(9, 2) AS d, [1::DECIMAL(9, 2)] AS ld FROM range(10)"
        )
        widths = column_widths(connection, "t")
    assert set(widths) == {'t"x', "l", "b", "nested", "s", "ld"}
    assert widths['t"x'] - widths["b"] == 10 * 98
    assert widths["l"] - widths["b"] == 10 * 6
