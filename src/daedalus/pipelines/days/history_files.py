"""The files of shared history: Parquet that is quick to write and to read; it lives for a few runs."""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.one_behind import OneBehind
from daedalus.pipelines.operators import ROW, TICK
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    import contextlib
    import datetime as dt
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import pyarrow.parquet as pq

#: DuckDB hands out work by row groups of this size.
_GROUP_ROWS = 122_880


def files_sql(paths: Iterable[Path]) -> str:
    """A FROM item over history files."""
    return f"read_parquet([{', '.join(quote_literal(str(path)) for path in paths)}])"


def is_whole(path: Path) -> bool:
    """Whether the file is there and ends as a Parquet file does; a broken one is made again."""
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    return True


class RowsFile:
    """A file of rows that are written in their order, and numbered.

    Args:
        path: of the file.
        before: the number of the row before the first.
    """

    def __init__(self, path: Path, before: int) -> None:
        self._path = path
        self._before = before
        self._writer: pq.ParquetWriter | None = None

    def close(self) -> None:
        """Write the file's end."""
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows with `__t`; at least once, for the columns."""
        numbers = pa.array(np.arange(self._before + 1, self._before + 1 + rows.num_rows))
        self._before += rows.num_rows
        numbered = rows.add_column(rows.schema.get_field_index(TICK) + 1, ROW, numbers)
        if self._writer is None:
            self._writer = _writer(self._path, numbered.schema)
        self._writer.write_table(numbered, row_group_size=_GROUP_ROWS)


class DayFiles:
    """Writes the files of days beside the thread that makes their rows. Use as a context manager.

    Args:
        folder: where the files are begun.
        finish: told of each day and its whole file, in the thread that adds rows.
        threads: days that are written at a time, each by one thread, one table at a time.
    """

    def __init__(self, folder: Path, finish: Callable[[dt.date, Path], None], threads: int = 1) -> None:
        self._folder = folder
        self._finish = finish
        self._idle = [OneBehind() for _ in range(threads)]
        self._open: deque[_OpenDay] = deque()

    def __enter__(self) -> DayFiles:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while kind is None and self._open:
                self._finish_oldest()
        finally:
            for one in self._open:  # incomplete
                one.behind.__exit__(kind)
                one.file.close()
            for behind in self._idle:
                behind.__exit__(kind)

    def add(
        self, day: dt.date, rows: pa.Table, before: int, measured: contextlib.AbstractContextManager[None]
    ) -> None:
        """Append rows to the file of a day, whose rows come one after the other; days are finished in order.

        Args:
            day: of the rows.
            rows: in order.
            before: the number of the row before the day's first.
            measured: is around the writing.
        """
        if not self._open or self._open[-1].day != day:
            if not self._idle:
                self._finish_oldest()
            path = self._folder / day.isoformat()
            self._open.append(_OpenDay(day, path, RowsFile(path, before), self._idle.pop()))
        newest = self._open[-1]
        newest.behind.do(partial(_write, newest.file, rows, measured))

    def _finish_oldest(self) -> None:
        one = self._open[0]
        one.behind.wait()
        self._open.popleft()
        self._idle.append(one.behind)
        one.file.close()
        self._finish(one.day, one.path)


class _OpenDay(NamedTuple):
    """A day whose file is being written."""

    day: dt.date
    path: Path
    file: RowsFile
    behind: OneBehind


def _write(file: RowsFile, rows: pa.Table, measured: contextlib.AbstractContextManager[None]) -> None:
    with measured:
        file.write(rows)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        path,
        schema,
        # Differences of whole numbers take less than a compression of them leaves, and less time; texts repeat.
        compression="none",
        use_dictionary=[field.name for field in schema if _is_text(field.type)],
        column_encoding=dict.fromkeys(filter(None, map(_counted, schema)), "DELTA_BINARY_PACKED"),
        write_statistics=[TICK, ROW],
        store_schema=False,
    )


def _counted(field: pa.Field) -> str:
    """The file's name of a column of whole numbers or instants, or of a list's items; empty for others."""
    if pa.types.is_list(field.type):
        return f"{field.name}.list.element" if pa.types.is_integer(field.type.value_type) else ""
    is_counted = pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)
    return field.name if is_counted else ""


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def flushed(path: Path) -> Path:
    """The file, on the disk by now."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path
