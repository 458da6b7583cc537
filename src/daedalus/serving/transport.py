"""The few statements that speak Quack; nothing here decides anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import SAFE_CONFIG, load_extensions

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb
    import pyarrow as pa

EXTENSIONS = ("httpfs", "quack")  # Quack's client looks for httpfs


def quack_uri(port: int, host: str = "localhost") -> str:
    """Where a daemon listens.

    >>> quack_uri(9696)
    'quack:localhost:9696'
    """
    return f"quack:{host}:{port}"


def connect(**settings: str | int) -> duckdb.DuckDBPyConnection:
    """An empty DuckDB that speaks Quack."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {**SAFE_CONFIG, **settings}
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    load_extensions(connection, *EXTENSIONS)
    return connection


def install_hooks(
    connection: duckdb.DuckDBPyConnection,
    *,
    authenticate: Callable[[str, str, str], bool],
    authorize: Callable[[str, str], str | None],
) -> None:
    """Have Quack ask these two before anything else; before `listen`, so that no request comes first."""
    from duckdb.func import FunctionNullHandling

    hooks: tuple[tuple[str, Callable[..., Any], list[Any], str], ...] = (
        ("daedalus_authenticate", authenticate, ["VARCHAR"] * 3, "BOOLEAN"),
        ("daedalus_authorize", authorize, ["VARCHAR"] * 2, "VARCHAR"),
    )
    for name, function, arguments, returned in hooks:
        connection.create_function(
            name, function, arguments, returned, null_handling=FunctionNullHandling.SPECIAL, side_effects=True
        )
    connection.execute("SET GLOBAL quack_authentication_function = 'daedalus_authenticate'")
    connection.execute("SET GLOBAL quack_authorization_function = 'daedalus_authorize'")


def listen(connection: duckdb.DuckDBPyConnection, uri: str, token: str) -> None:
    """Start the server; requests are answered in threads of DuckDB's."""
    connection.execute(f"CALL quack_serve({quote_literal(uri)}, token => {quote_literal(token)})")


def stop(connection: duckdb.DuckDBPyConnection, uri: str) -> None:
    """Stop listening."""
    connection.execute(f"CALL quack_stop({quote_literal(uri)})")


def seal(connection: duckdb.DuckDBPyConnection, database: str, path: str) -> None:
    """Attach the served file read only, then shut the door: no file, no network, no setting from now on."""
    connection.execute(f"ATTACH {quote_literal(path)} AS {quote_ident(database)} (READ_ONLY)")
    connection.execute("SET enable_external_access = false")


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every setting final."""
    connection.execute("SET lock_configuration = true")


def ask(connection: duckdb.DuckDBPyConnection, uri: str, sql: str, token: str) -> pa.Table:
    """One statement's result, from a daemon."""
    return connection.execute(
        f"FROM quack_query({quote_literal(uri)}, {quote_literal(sql)}, token => {quote_literal(token)})"
    ).to_arrow_table()
