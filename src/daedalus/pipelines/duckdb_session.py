"""DuckDB connections as every stage opens them: the configured limits, UTC, nothing installed or downloaded."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.pipelines.scratch import scratch_folder
from daedalus.storage.duckdb_extensions import SAFE_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

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
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {**settings, **SAFE_CONFIG}
    # Every order that matters is written out, and without this DuckDB holds less in memory.
    config.setdefault("preserve_insertion_order", "false")
    with contextlib.ExitStack() as stack:
        try:
            _spill_apart(config, stack)
            connection = duckdb.connect(config=config)
            _prepare(connection)
        except duckdb.Error as error:
            raise DefinitionError(
                f"DuckDB refuses its configuration: {str(error).splitlines()[0]}",
                where="config/training/runtime.yaml, compute.duckdb_config",
            ) from error
        try:
            yield connection
        finally:
            # A source may have begun a transaction at its snapshot. Closed with its server gone and the transaction
            # still open, it would end the process.
            with contextlib.suppress(duckdb.Error):
                connection.rollback()
            connection.close()


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
    connection.execute(f"SET threads = {max(1, min(own, most))}")
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
