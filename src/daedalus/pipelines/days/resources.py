"""How a day divides `memory_limit` and `temp_directory` between DuckDB, aggregation and the stream of rows."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.pipelines.days.aggregates import Resources
from daedalus.pipelines.days.spilled_rows import SpillFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import duckdb

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
def day_resources(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[Resources]:
    """Give DuckDB its share, and say what is left to aggregation; spilled rows are removed at the end.

    Args:
        connection: the day's own.
        settings: `compute.duckdb_config`.
    """
    limit = bytes_of(connection, "memory_limit")
    if limit:
        connection.execute(f"SET memory_limit = '{int(limit * DUCKDB_SHARE)}B'")
    own = _text(connection, "temp_directory")
    folder = Path(tempfile.mkdtemp(prefix="daedalus-rows-", dir=own or None))
    most = bytes_of(connection, "max_temp_directory_size") if "max_temp_directory_size" in settings else 0
    try:
        yield Resources(
            memory=max(1, int(limit * AGGREGATION_SHARE)),
            streaming=int(limit * STREAM_SHARE),
            spill=SpillFolder(folder, most),
            duckdb_config=settings,
            buckets=BUCKETS,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
