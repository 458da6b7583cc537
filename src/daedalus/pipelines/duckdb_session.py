"""DuckDB connections as every stage opens them: the configured limits, UTC, nothing installed or downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError
from daedalus.storage.duckdb_extensions import SAFE_CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb


@contextlib.contextmanager
def duckdb_session(settings: Mapping[str, str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own, closed at the end.

    Args:
        settings: `compute.duckdb_config`; forwarded to `duckdb.connect(config=...)`.

    Raises:
        DefinitionError: DuckDB does not know a setting or its value.
    """
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {**settings, **SAFE_CONFIG}
    # Every order that matters is written out, and without this DuckDB holds less in memory.
    config.setdefault("preserve_insertion_order", "false")
    spill = _own_spill_folder(config)
    try:
        if spill is not None:
            spill.mkdir(parents=True)
        connection = duckdb.connect(config=config)
        connection.execute("SET TimeZone = 'UTC'")
        # DuckDB takes a worker process for an interactive one, and would draw bars into its standard output.
        # In a notebook without ipywidgets it draws none, and refuses to be told so.
        with contextlib.suppress(duckdb.InvalidInputException):
            connection.execute("SET enable_progress_bar = false")
        # DuckDB takes a registered table for a short one, and would join it as of a time by nested loops.
        connection.execute("SET asof_loop_join_threshold = 0")
    except (duckdb.Error, OSError) as error:
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
        if spill is not None:
            shutil.rmtree(spill, ignore_errors=True)


def _own_spill_folder(config: dict[str, str | bool | int | float | list[str]]) -> Path | None:
    """Give the connection a folder of its own under `temp_directory`: DuckDB's spill files have fixed names."""
    if "temp_directory" not in config:
        return None
    folder = Path(str(config["temp_directory"])) / f"spill-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    config["temp_directory"] = str(folder)
    return folder
