"""Laws of expressions: rendering keeps the meaning, and no text gets anything else through."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.errors import DefinitionError
from daedalus.sql.fragments import parse_fragment

COLUMNS = ("n", "Größe", "select", "list")
ROWS = """(SELECT * FROM (VALUES
    (1, 2.5::DOUBLE, 'a', [1, 2]), (NULL, NULL, NULL, NULL), (-3, 0.0, 'B''', []))
    AS r(n, "Größe", "select", "list")) AS {name}"""


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def _binary(operators: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(operators)


NUMBERS = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["n", "N", '"Größe"', "größe", "len(list)", '"list"[1]', 'length("select")']),
        st.integers(-50, 50).map(str),
        st.tuples(NUMBERS, _binary([" + ", " - ", "*", " - - ", " // ", " % "]), NUMBERS).map("".join),
        st.tuples(NUMBERS, NUMBERS).map("coalesce({0[0]},\n {0[1]})".format),
        st.tuples(TRUTHS, NUMBERS, NUMBERS).map("CASE WHEN {0[0]} THEN {0[1]} ELSE {0[2]} END".format),
        NUMBERS.map("( {} )".format),
        NUMBERS.map("CAST({} AS double)".format),
        NUMBERS.map("list_sum(list_transform([{}], lambda n: n + 1))".format),
    )
)
TRUTHS = st.deferred(
    lambda: st.one_of(
        st.tuples(NUMBERS, _binary(["=", "<>", "<", ">=", " IS DISTINCT FROM "]), NUMBERS).map("".join),
        st.tuples(TRUTHS, _binary([" AND ", " or "]), TRUTHS).map("".join),
        TRUTHS.map("NOT {}".format),
        NUMBERS.map("{} IS NULL".format),
        st.tuples(NUMBERS, NUMBERS).map("{0[0]} IN (1, {0[1]})".format),
        st.sampled_from(["\"select\" LIKE 'a%'", "\"select\" = 'B'''", "\"select\" ~ '[a-b]'"]),
    )
)


@given(text=st.one_of(NUMBERS, TRUTHS))
@settings(deadline=None)
def test_rendering_keeps_the_meaning(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    fragment = parse_fragment(text, columns=COLUMNS, where="")

    def values(expression: str, name: str) -> list[object]:
        sql = f"SELECT TRY(CAST({expression} AS VARCHAR)) FROM {ROWS.format(name=name)}"
        return connection.execute(sql).fetchall()

    assert values(fragment.render("n"), "n") == values(f"({text})", "r")
    again = parse_fragment(fragment.render(), columns=COLUMNS, where="")
    assert again.render() == fragment.render()
    assert set(again.columns) == set(fragment.columns)


WORDS = r"""
    hist. a b " ' '' ( ) [ ] { } , . ; -- /* */ $$ $1 ? : :: -> * + - = < \ e' 1 0.5 é SELECT CASE
    CAST( NULL sum( now() read_text('x') current_setting('threads') random() range( list_transform( abs( TRY(
    struct_pack( EXISTS
"""
PHRASES = (" FROM ", " WHERE ", " UNION ", " AS ", " OVER ", " WHEN ", " THEN ", " END", " IN ", " COLLATE ")
PIECES = st.sampled_from(
    [*WORDS.split(), *PHRASES, " ", "\n", "\u00a0", "\u200b", " int", "lambda x: ", "INTERVAL "]
)
ANY_TEXT = st.one_of(st.lists(PIECES, max_size=14).map("".join), st.text(max_size=30))


#: The expression is fine, but not over these columns.
MISFITS = (
    duckdb.BinderException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
)


@given(text=ANY_TEXT)
@settings(deadline=None)
def test_any_text_is_one_safe_value_or_a_definition_error(
    connection: duckdb.DuckDBPyConnection, text: str
) -> None:
    try:
        fragment = parse_fragment(text, columns=["a", "b"], where="w", qualifier="hist")
    except DefinitionError:
        return
    table = '(SELECT 1 AS a, [2] AS b) AS "a row"'
    sql = f"SELECT {fragment.render('a row')}, 'after' FROM {table}, range(2)"
    try:
        rows = connection.execute(sql).fetchall()
    except MISFITS:
        return
    assert len(rows) == 2
    assert all(row[1:] == ("after",) for row in rows)
    assert repr(rows[0][0]) == repr(rows[1][0])
