"""The files of shared history: Parquet that is quick to write and to read; it lives for a few runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.pipelines.operators import ROW, TICK
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from collections.abc import Iterable
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
    """A file of rows that are written in their order, and numbered. Use as a context manager.

    Args:
        path: of the file.
        before: the number of the row before the first.
    """

    def __init__(self, path: Path, before: int) -> None:
        self._path = path
        self._before = before
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, *_: object) -> None:
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


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        path,
        schema,
        compression="lz4",
        # Numbers are read faster than looked up; texts repeat.
        use_dictionary=[field.name for field in schema if _is_text(field.type)],
        write_statistics=[TICK, ROW],
        store_schema=False,
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def flushed(path: Path) -> Path:
    """The file, on the disk by now."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path
