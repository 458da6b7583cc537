"""Parquet in place: a file, a directory (recursive, Hive keys as columns), or a glob.

The footers are read once per run. They give the snapshot (sizes and footer hashes), say which files can hold
rows of a time range, and show before any data is read that a file is corrupt or lacks a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from daedalus.errors import SourceError
from daedalus.secrets import mask
from daedalus.storage.sources.faults import backend_fault, source_error
from daedalus.storage.sources.local_files import LocalFiles
from daedalus.storage.sources.object_store import ObjectStoreFiles, is_object_store
from daedalus.storage.sources.parquet_files import rows_touched
from daedalus.storage.sources.parquet_unions import rounded_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb

    from daedalus.storage.sources.base import TickRange
    from daedalus.storage.sources.parquet_files import ParquetFile

#: Footers that are read again to see what a reader would skip.
_MOST_FOOTERS = 16


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

    def rows(self, time_range: TickRange | None = None) -> int:
        """The rows of the files that may hold any of the range."""
        return sum(file.rows for file in self.pruned(time_range))

    def rows_touched(self, time_range: TickRange | None) -> int:
        """Rows that reading this range of local files decodes, about: whole row groups, of many files whole ones."""
        files = self.pruned(time_range)
        if len(files) > _MOST_FOOTERS:
            return sum(file.rows for file in files)
        return sum(rows_touched(file.path, self.time_column, self.unit_us, time_range) for file in files)

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """(path, size, footer hash) of each file that may hold rows of the range, and its etag in an object store."""
        return [
            [file.path, file.size, file.footer_hash, *([file.etag] if file.etag else [])]
            for file in self.pruned(time_range)
        ]

    def exact(self, time_range: TickRange | None = None) -> list[Any]:
        """The same: footers change with the content."""
        return self.identity(time_range)

    def record(self) -> dict[str, Any]:
        """Every file with its size and footer hash, and its etag in an object store."""
        return {"backend": "parquet", "files": [_file_record(file) for file in self.files]}


def _file_record(file: ParquetFile) -> dict[str, Any]:
    found: dict[str, Any] = {"path": file.path, "bytes": file.size, "footer": file.footer_hash}
    return found | ({"etag": file.etag} if file.etag else {})


class ParquetSource:
    """Rows of Parquet files, read where they are.

    Args:
        path: absolute file, directory or glob.
        where: how messages name the source ("view feed_events (file), path").
        time_column: the raw time column, for pruning; empty when there is none.
        unit_us: microseconds per tick of the time column where it holds integers.
        settings: of an object store, with `${ENV}` references.
    """

    def __init__(
        self,
        path: str,
        *,
        where: str,
        time_column: str = "",
        unit_us: float = 1.0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._path = path
        self._where = where
        self._time_column = time_column
        self._unit_us = unit_us
        self._snapshot: ParquetSnapshot | None = None
        self._files: LocalFiles | ObjectStoreFiles = (
            ObjectStoreFiles(path, where, settings or {})
            if is_object_store(path)
            else LocalFiles(path, where)
        )

    @property
    def is_local(self) -> bool:
        """Whether the files are on this machine."""
        return isinstance(self._files, LocalFiles)

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let the connection read the files: an object store needs its extension and a secret."""
        self._files.setup(connection)

    def snapshot(self) -> ParquetSnapshot:
        """The files now; remembered, so that a run reads one state."""
        if self._snapshot is None:
            self._snapshot = ParquetSnapshot(self._files.describe(), self._time_column, self._unit_us)
        return self._snapshot

    def verify_unchanged(self) -> None:
        """Compare sizes and times of the snapshot's files with what is there now."""
        changed = self._files.changed(self.snapshot().files)
        if changed:
            raise SourceError(
                f"{changed} was changed while the run was reading it",
                where=self._where,
                hint="Run again; write new files beside old ones rather than over them",
            )

    def require_columns(self, names: Iterable[str]) -> None:
        """Refuse a file that lacks a column that the others have and the view needs."""
        wanted, is_hive = tuple(names), self._is_hive()
        for file in self.snapshot().files:
            present = {name.lower() for name in file.columns} | (
                _folder_keys(file.path) if is_hive else set()
            )
            for name in wanted:
                if name.lower() not in present:
                    raise SourceError(
                        f"{file.path} has no column {name!r}",
                        where=self._where,
                        hint="Declare the field `optional: true`, or map it with field_mapping",
                    )

    def refuse_rounding(self, names: Iterable[str]) -> None:
        """Refuse files that differ so in a column's type that DuckDB, which reads them as one, would round."""
        for name in names:
            found = rounded_file(self.snapshot().files, name)
            if found is not None:
                file, kind, widest = found
                raise SourceError(
                    f"column {name!r} is {kind} in {file.path} and a float in another: read together, as {widest}, "
                    "its values could be rounded",
                    where=self._where,
                    hint="Write the files with one type",
                )

    def close(self) -> None:
        """Files need no letting go."""

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """`read_parquet` over the files that may hold rows of the range; DuckDB reads only the columns it needs."""
        del columns
        files = self._covering(self.snapshot().pruned(time_range) or self.snapshot().files[:1])
        paths = ", ".join(self._files.literal(file.path) for file in files)
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
        """Whether files lie in `key=value` folders of the source, which are columns then."""
        above = len(PurePosixPath(self._files.folder).parts) if self._files.folder else 0
        return any("=" in part for part in PurePosixPath(self.snapshot().files[0].path).parts[above:-1])

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Columns over all files, unified by name, Hive keys last."""
        import duckdb

        everything = self.relation_sql()
        try:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {everything}").fetchall()
        except duckdb.Error as error:
            if not self.is_local and backend_fault(str(error)) is not None:
                raise source_error(error, where=self._where) from None
            raise SourceError(
                f"{self._path} cannot be read: {mask(str(error).splitlines()[0])}",
                where=self._where,
                hint="A file is corrupt, or its columns have types that do not go together",
            ) from None
        return {row[0]: row[1] for row in rows}


def _folder_keys(path: str) -> set[str]:
    """The keys of the `key=value` folders in a path, in lower case; DuckDB reads those above the source, too."""
    return {part.partition("=")[0].lower() for part in PurePosixPath(path).parts[:-1] if "=" in part}
