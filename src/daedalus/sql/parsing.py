"""DuckDB's own parser and binder, in a closed in-memory session that can reach no file, network or setting.

No value is bound with `?` here: the first bound parameter of a process makes DuckDB's Python package import
pandas where it is installed, which costs a second that a catalog load should not pay.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    import duckdb

Node = dict[str, Any]


class NotParsedError(Exception):
    """DuckDB's parser refuses the text; the message is DuckDB's."""


class NotBoundError(Exception):
    """DuckDB's binder refuses the query; the message is DuckDB's."""


@lru_cache(maxsize=1)
def _session(_process: int) -> duckdb.DuckDBPyConnection:
    import duckdb

    # One thread: nothing here is heavy, and a process forked from this one must not inherit a thread pool.
    connection = duckdb.connect(config={"threads": 1})
    for statement in (
        "SET TimeZone = 'UTC'",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection


def cursor() -> duckdb.DuckDBPyConnection:
    """A cursor of its own on the closed session of this process."""
    return _session(os.getpid()).cursor()


def statement_tree(sql: str) -> list[Node]:
    """The statements of the text as DuckDB parses them, as plain data."""
    import duckdb

    try:
        row = cursor().execute(f"SELECT json_serialize_sql({quote_literal(sql)})").fetchone()
        tree: Node = json.loads(row[0]) if row else {"error": True}
    except (duckdb.Error, RecursionError, ValueError) as exc:
        raise NotParsedError(_first_line(str(exc))) from exc
    if tree["error"]:
        raise NotParsedError(_first_line(str(tree.get("error_message", ""))))
    statements: list[Node] = tree["statements"]
    return statements


def bound_type(expression: str, relation: str) -> str:
    """DuckDB's type of an expression over a relation of one row; a bare NULL keeps its own type, `"NULL"`."""
    import duckdb

    try:
        # The binder answers `typeof`: the expression itself is not computed.
        row = cursor().execute(f"SELECT typeof({expression}) FROM {relation}").fetchone()
        return str(row[0]) if row else ""
    except (duckdb.Error, RecursionError) as exc:
        raise NotBoundError(_first_line(str(exc))) from exc


@lru_cache(maxsize=1)
def function_kinds() -> dict[str, frozenset[str]]:
    """Every function DuckDB knows: lower-case name to its kinds, a scalar's kind being its stability."""
    rows = (
        cursor()
        .execute(
            "SELECT lower(function_name), "
            "CASE function_type WHEN 'scalar' THEN coalesce(stability, 'UNKNOWN') ELSE function_type END "
            "FROM duckdb_functions()"
        )
        .fetchall()
    )
    kinds: dict[str, set[str]] = {}
    for name, kind in rows:
        kinds.setdefault(name, set()).add(kind)
    return {name: frozenset(found) for name, found in kinds.items()}


@lru_cache(maxsize=1)
def type_names() -> frozenset[str]:
    """Every type name DuckDB knows, lower case."""
    rows = cursor().execute("SELECT lower(type_name) FROM duckdb_types()").fetchall()
    return frozenset(str(name) for (name,) in rows)


def _first_line(message: str) -> str:
    # The caret drawing below the first line points into a query that the user never wrote.
    return message.partition("\n")[0].strip().rstrip(".")
