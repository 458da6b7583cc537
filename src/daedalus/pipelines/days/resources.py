"""How a day divides `memory_limit` and `temp_directory` between DuckDB, aggregation and the stream of rows."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.pipelines.days.aggregates import Resources
from daedalus.pipelines.days.spilled_rows import SpillFolder
from daedalus.pipelines.days.workers import workers_for_day
from daedalus.pipelines.duckdb_session import duckdb_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.duckdb_session import OpenSession

#: Of `memory_limit`. The rest is for lookups beside the rows, and for what allocators hold back.
DUCKDB_SHARE, AGGREGATION_SHARE, STREAM_SHARE = 0.4, 0.2, 0.25
#: Of `memory_limit`, DuckDB's while the slices of a large day stream: it reads them, and joins nothing.
SLICES_SHARE = 0.2
#: With less than this for DuckDB, sorting a slice may fail.
LEAST_FOR_SLICES = 512 << 20
#: Into how many parts aggregation is divided; 0 decides by memory. Tests set it.
BUCKETS = 0
_UNITS = {"B": 0, "bytes": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4, "PiB": 5}


@contextlib.contextmanager
def day_session(
    context: DayContext, open_session: OpenSession = duckdb_session
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Resources]]:
    """The day's DuckDB, and what aggregation may use beside it; spilled rows are removed at the end.

    DuckDB is opened with its share of the memory and as many threads as the day needs. Told later, it would give
    back all memory that is free, which the next day then takes anew.

    Args:
        context: the day.
        open_session: opens a DuckDB.
    """
    settings = context.config.duckdb_settings()
    limit, threads = _limits_of(tuple(settings.items()))
    own = {**settings, "threads": str(workers_for_day(context, threads))}
    if limit:
        own["memory_limit"] = f"{int(limit * DUCKDB_SHARE)}B"
    with open_session(own) as connection:
        folder = Path(
            tempfile.mkdtemp(prefix="daedalus-rows-", dir=_text(connection, "temp_directory") or None)
        )
        name = "max_temp_directory_size"
        try:
            yield (
                connection,
                Resources(
                    memory=max(1, int(limit * AGGREGATION_SHARE)),
                    streaming=int(limit * STREAM_SHARE),
                    spill=SpillFolder(folder, bytes_of(connection, name) if name in settings else 0),
                    duckdb_config=settings,
                    buckets=BUCKETS,
                ),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache(4)
def _limits_of(settings: tuple[tuple[str, str], ...]) -> tuple[int, int]:
    """The bytes and threads of a DuckDB that is opened with these settings."""
    with duckdb_session(dict(settings)) as connection:
        return bytes_of(connection, "memory_limit"), int(_text(connection, "threads"))


@contextlib.contextmanager
def less_for_duckdb(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB spill tables beyond `SLICES_SHARE`, where it may spill and can work with that; for a while."""
    import duckdb

    own = bytes_of(connection, "memory_limit")
    less = int(own / DUCKDB_SHARE * SLICES_SHARE)
    if less < LEAST_FOR_SLICES or not _text(connection, "temp_directory"):
        yield
        return
    with contextlib.suppress(duckdb.OutOfMemoryException):  # what is in use now is more
        connection.execute(f"SET memory_limit = '{less}B'")
    try:
        yield
    finally:
        connection.execute(f"SET memory_limit = '{own}B'")


def _text(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    return str(connection.execute(f"SELECT current_setting('{name}')").fetchall()[0][0])


def bytes_of(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """A setting in bytes; 0 where it is none."""
    found = re.fullmatch(r"([0-9.]+) (\w+)", _text(connection, name))
    return int(float(found[1]) * 1024 ** _UNITS.get(found[2], 0)) if found else 0
