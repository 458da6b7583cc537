"""Parquet in place: a file, a directory (recursive, Hive keys as columns), or a glob.

The footers are read once per run. They give the snapshot (sizes and footer hashes), say which files can hold
rows of a time range, and show before any data is read that a file is corrupt or lacks a column.
"""

from __future__ import annotations

import datetime as dt
import glob as globbing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from daedalus.errors import SourceError
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import duckdb

    from daedalus.storage.sources.base import TickRange

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TAIL_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """One file as its footer describes it.

    Attributes:
        footer_hash: changes with the content, for footers hold every column chunk's offsets and statistics.
        types: (name, Arrow type) of the top-level columns.
        times: (column, smallest, largest) of timestamp columns, in microseconds since 1970.
        integers: (column, smallest, largest) of integer columns.
    """

    path: str
    size: int
    modified_ns: int
    footer_hash: str
    rows: int
    types: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, int, int], ...]
    integers: tuple[tuple[str, int, int], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Top-level column names."""
        return tuple(name for name, _ in self.types)

    def range_us(self, column: str, unit_us: float) -> tuple[int | None, int | None]:
        """Smallest and largest instant of a time column, finer units rounded down; None when unknown."""
        for name, low, high in self.times:
            if name == column:
                return low, high
        for name, low, high in self.integers:
            if name == column:
                return _ticks_us(low, unit_us), _ticks_us(high, unit_us)
        return None, None


@dataclass(frozen=True, slots=True)
class ParquetSnapshot:
    """The files of a source at the start of a run."""

    files: tuple[ParquetFile, ...]
    time_column: str
    unit_us: float

    @property
    def columns(self) -> frozenset[str]:
        """The names of all files' columns, in lower case."""
        return frozenset(name.lower() for file in self.files for name in file.columns)

    def pruned(self, time_range: TickRange | None) -> tuple[ParquetFile, ...]:
        """The files that may hold rows of the range."""
        if time_range is None or not self.time_column:
            return self.files
        ranges = ((file, file.range_us(self.time_column, self.unit_us)) for file in self.files)
        return tuple(file for file, bounds in ranges if time_range.touches(*bounds))

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """(path, size, footer hash) of each file that may hold rows of the range."""
        return [[file.path, file.size, file.footer_hash] for file in self.pruned(time_range)]

    def exact(self, time_range: TickRange | None = None) -> list[Any]:
        """The same: footers change with the content."""
        return self.identity(time_range)

    def record(self) -> dict[str, Any]:
        """Every file with its size and footer hash."""
        files = [{"path": file.path, "bytes": file.size, "footer": file.footer_hash} for file in self.files]
        return {"backend": "parquet", "files": files}


def _ticks_us(ticks: int, unit_us: float) -> int:
    return ticks * round(unit_us) if unit_us >= 1 else ticks // round(1 / unit_us)


class ParquetSource:
    """Rows of Parquet files, read where they are.

    Args:
        path: absolute file, directory or glob.
        where: how messages name the source ("view feed_events (file), path").
        time_column: the raw time column, for pruning; empty when there is none.
        unit_us: microseconds per tick of the time column where it holds integers.
    """

    def __init__(self, path: str, *, where: str, time_column: str = "", unit_us: float = 1.0) -> None:
        self._path = path
        self._where = where
        self._time_column = time_column
        self._unit_us = unit_us
        self._snapshot: ParquetSnapshot | None = None

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Nothing to prepare for local files."""

    def snapshot(self) -> ParquetSnapshot:
        """The files now; remembered, so that a run reads one state."""
        if self._snapshot is None:
            files = tuple(self._describe(path) for path in self._list())
            self._snapshot = ParquetSnapshot(files, self._time_column, self._unit_us)
        return self._snapshot

    def _list(self) -> list[str]:
        path = Path(self._path)
        if path.is_file():
            return [self._path]
        pattern = f"{globbing.escape(self._path)}/**/*.parquet" if path.is_dir() else self._path
        found = sorted(name for name in globbing.glob(pattern, recursive=True) if Path(name).is_file())
        visible = [name for name in found if not _hidden(name, self._path)]
        if not visible:
            state = "holds no .parquet file" if path.is_dir() else "does not exist"
            raise SourceError(
                f"{self._path} {state}",
                where=self._where,
                hint="Set source.path to a Parquet file, a directory or a glob; relative paths start at data_root",
            )
        return visible

    def _describe(self, path: str) -> ParquetFile:
        try:
            status = Path(path).stat()
            return _read_footer(path, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{path} cannot be read as Parquet: {error}",
                where=self._where,
                hint="The file is truncated, corrupt or not Parquet: restore or remove it",
            ) from error

    def verify_unchanged(self) -> None:
        """Compare sizes and times of the snapshot's files with the disk."""
        for file in self.snapshot().files:
            try:
                status = Path(file.path).stat()
                same = (status.st_size, status.st_mtime_ns) == (file.size, file.modified_ns)
            except OSError:
                same = False
            if not same:
                raise SourceError(
                    f"{file.path} was changed while the run was reading it",
                    where=self._where,
                    hint="Run again; write new files beside old ones rather than over them",
                )

    def require_columns(self, names: Iterable[str]) -> None:
        """Refuse a file that lacks a column that the others have and the view needs."""
        wanted = tuple(names)
        for file in self.snapshot().files:
            present = {name.lower() for name in file.columns}
            for name in wanted:
                if name.lower() not in present and f"{name}=" not in file.path:
                    raise SourceError(
                        f"{file.path} has no column {name!r}",
                        where=self._where,
                        hint="Declare the field `optional: true`, or map it with field_mapping",
                    )

    def close(self) -> None:
        """Files need no letting go."""

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """`read_parquet` over the files that may hold rows of the range; DuckDB reads only the columns it needs."""
        del columns
        files = self._covering(self.snapshot().pruned(time_range) or self.snapshot().files[:1])
        paths = ", ".join(quote_literal(file.path) for file in files)
        # A Hive key is text until the view's declared dtype says otherwise: '007' must not become 7.
        hive = (
            "hive_partitioning = true, hive_types_autocast = false"
            if self._is_hive()
            else "hive_partitioning = false"
        )
        return f"read_parquet([{paths}], union_by_name = true, {hive})"

    def _covering(self, files: tuple[ParquetFile, ...]) -> list[ParquetFile]:
        """The files, and of the others so many that every column and type of the source occurs.

        A column may begin in a later file: without it the relation would have other columns from day to day.
        """
        chosen = list(files)
        seen = {column for file in files for column in file.types}
        for file in self.snapshot().files:
            if not seen.issuperset(file.types):
                seen.update(file.types)
                chosen.append(file)
        return chosen

    def _is_hive(self) -> bool:
        base = len(Path(self._path).parts) if Path(self._path).is_dir() else 0
        parts = Path(self.snapshot().files[0].path).parts[base:-1]
        return any("=" in part for part in parts)

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Columns over all files, unified by name, Hive keys last."""
        import duckdb

        everything = self.relation_sql()
        try:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {everything}").fetchall()
        except duckdb.Error as error:
            raise SourceError(
                f"{self._path} cannot be read: {str(error).splitlines()[0]}",
                where=self._where,
                hint="A file is corrupt, or its columns have types that do not go together",
            ) from error
        return {row[0]: row[1] for row in rows}


def _hidden(path: str, root: str) -> bool:
    relative = Path(path).parts[len(Path(root).parts) :] if path.startswith(root) else ()
    return any(part.startswith((".", "_")) for part in relative)


@lru_cache(maxsize=100_000)
def _read_footer(path: str, size: int, modified_ns: int) -> ParquetFile:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    with Path(path).open("rb") as file:
        file.seek(max(size - _TAIL_BYTES, 0))
        tail = file.read(_TAIL_BYTES)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length + _TAIL_BYTES > size:
            raise ValueError("it does not end with a Parquet footer")
        file.seek(size - _TAIL_BYTES - length)
        footer = file.read(length + _TAIL_BYTES)
    try:
        metadata = pq.read_metadata(path)
        types = tuple((field.name, str(field.type)) for field in metadata.schema.to_arrow_schema())
    except ArrowException as error:
        raise ValueError(str(error)) from error
    return ParquetFile(
        path=path,
        size=size,
        modified_ns=modified_ns,
        footer_hash=xxhash.xxh3_128(footer).hexdigest(),
        rows=metadata.num_rows,
        types=types,
        times=_bounds(metadata, _as_us),
        integers=_bounds(metadata, _as_int),
    )


def _bounds(metadata: Any, read: Callable[[Any], int | None]) -> tuple[tuple[str, int, int], ...]:
    """Smallest and largest of each column that `read` understands; only where every row group knows them."""
    found: dict[str, tuple[int, int] | None] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            statistics = column.statistics
            if (
                statistics is not None
                and not statistics.has_min_max
                and statistics.null_count == column.num_values
            ):
                continue  # only NULLs, which are in no range
            known = statistics is not None and statistics.has_min_max
            try:
                low, high = (read(statistics.min), read(statistics.max)) if known else (None, None)
            except OverflowError:  # a time that Python has no year for
                low = high = None
            name = column.path_in_schema
            before = found.get(name, (low, high))
            if low is None or high is None or before is None or before[0] is None or before[1] is None:
                found[name] = None
            else:
                found[name] = (min(before[0], low), max(before[1], high))
    return tuple((name, known[0], known[1]) for name, known in found.items() if known is not None)


def _as_int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _as_us(value: Any) -> int | None:
    if not isinstance(value, dt.datetime):
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)
