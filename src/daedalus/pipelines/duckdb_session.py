"""DuckDB connections as every stage opens them: the configured limits, UTC, nothing installed or downloaded."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.pipelines.scratch import scratch_folder
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.duckdb_extensions import SAFE_CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import duckdb

    #: `duckdb_session`, or what takes its place.
    OpenSession = Callable[[Mapping[str, str]], contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]]

SPILL_PREFIX = "daedalus-spill-"


@contextlib.contextmanager
def duckdb_session(settings: Mapping[str, str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own, closed at the end.

    Args:
        settings: `compute.duckdb_config`; forwarded to `duckdb.connect(config=...)`.

    Raises:
        DefinitionError: DuckDB does not know a setting or its value.
        ExecutionError: there is no room to spill to.
    """
    with contextlib.ExitStack() as stack:
        yield _opened(settings, stack)


class ReusedDuckDB:
    """One DuckDB for sessions that come one after another: to end it costs more than to empty it.

    A session finds nothing that the one before it made or registered. Settings are for whoever changes them to
    restore.

    Example:
        >>> with contextlib.closing(ReusedDuckDB()) as database:
        ...     with database.session({}) as connection:
        ...         _ = connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
        ...     with database.session({}) as connection:
        ...         connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
        [(0,)]
    """

    def __init__(self) -> None:
        self._settings: dict[str, str] = {}
        self._first: duckdb.DuckDBPyConnection | None = None
        self._open = contextlib.ExitStack()

    @contextlib.contextmanager
    def session(self, settings: Mapping[str, str]) -> Iterator[duckdb.DuckDBPyConnection]:
        """As `duckdb_session`, but only one at a time.

        With other settings than before DuckDB begins anew, and so it does after an error, or where a session left
        what is not as easily removed as a table: a database that it attached, a secret.
        """
        if self._first is None or dict(settings) != self._settings:
            self.close()
            self._first, self._settings = _opened(settings, self._open), dict(settings)
        emptied = False
        try:
            with contextlib.ExitStack() as stack:
                yield _closed_after(self._first.cursor(), stack)
            emptied = _emptied(self._first)
        finally:
            if not emptied:
                self.close()

    def close(self) -> None:
        """End DuckDB; a further session begins a new one."""
        self._first = None
        self._open.close()


def _opened(settings: Mapping[str, str], stack: contextlib.ExitStack) -> duckdb.DuckDBPyConnection:
    """A connection to a DuckDB of its own, ended with the stack."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {**settings, **SAFE_CONFIG}
    # Every order that matters is written out, and without this DuckDB holds less in memory.
    config.setdefault("preserve_insertion_order", "false")
    try:
        _spill_apart(config, stack)
        return _closed_after(duckdb.connect(config=config), stack)
    except duckdb.Error as error:
        raise DefinitionError(
            f"DuckDB refuses its configuration: {str(error).splitlines()[0]}",
            where="config/training/runtime.yaml, compute.duckdb_config",
        ) from error


def _closed_after(
    connection: duckdb.DuckDBPyConnection, stack: contextlib.ExitStack
) -> duckdb.DuckDBPyConnection:
    """The connection, prepared; closed with the stack."""
    import duckdb

    def close() -> None:
        # A source may have begun a transaction at its snapshot. Closed with its server gone and the transaction
        # still open, it would end the process.
        with contextlib.suppress(duckdb.Error):
            connection.rollback()
        connection.close()

    stack.callback(close)
    _prepare(connection)
    return connection


def _emptied(connection: duckdb.DuckDBPyConnection) -> bool:
    """Drop the tables that are left; False where there is anything else."""
    import duckdb

    more = (
        "SELECT (SELECT count(*) FROM duckdb_databases() WHERE NOT internal) - 1, "
        "(SELECT count(*) FROM duckdb_secrets()), (SELECT count(*) FROM duckdb_views() WHERE NOT internal)"
    )
    try:
        if any(connection.execute(more).fetchall()[0]):
            return False
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"DROP TABLE {quote_ident(name)}")
    except duckdb.Error:
        return False
    return True


@contextlib.contextmanager
def connection_beside(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A second connection to the same database, for another thread; it does not see what is registered here."""
    with connection.cursor() as cursor:
        _prepare(cursor)
        yield cursor


@contextlib.contextmanager
def fewer_threads(connection: duckdb.DuckDBPyConnection, most: int) -> Iterator[None]:
    """At most so many workers for a while: one that DuckDB has no rows for waits awake."""
    own = int(connection.execute("SELECT current_setting('threads')").fetchall()[0][0])
    if own <= most:  # told a number, DuckDB starts its threads anew and gives back all memory that is free
        yield
        return
    connection.execute(f"SET threads = {max(1, most)}")
    try:
        yield
    finally:
        connection.execute(f"SET threads = {own}")


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """What every connection is told first."""
    import duckdb

    connection.execute("SET TimeZone = 'UTC'")
    # DuckDB takes a worker process for an interactive one, and would draw bars into its standard output.
    # In a notebook without ipywidgets it draws none, and refuses to be told so.
    with contextlib.suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")
    # DuckDB takes a registered table for a short one, and would join it as of a time by nested loops.
    connection.execute("SET asof_loop_join_threshold = 0")


def _spill_apart(
    config: dict[str, str | bool | int | float | list[str]], stack: contextlib.ExitStack
) -> None:
    """Give the connection a folder of its own to spill to: DuckDB's files have fixed names."""
    if config.get("temp_directory") == "":  # nothing may be spilled
        return
    base = Path(str(config.get("temp_directory") or tempfile.gettempdir()))
    try:
        config["temp_directory"] = str(stack.enter_context(scratch_folder(base, SPILL_PREFIX)))
    except OSError as error:
        raise ExecutionError(
            f"there is no folder to spill to: {error.strerror or error}",
            where=str(base),
            hint="Free space, or point compute.duckdb_config.temp_directory at a folder that can be written",
        ) from error
