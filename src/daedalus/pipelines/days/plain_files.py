"""Rows of a view whose Parquet files hold just what it declares: read as they lie, texts as codes, without SQL.

No value needs a cast or a check then, so DuckDB would only copy what Arrow decodes. Whatever is not as plain as that,
and every file that makes trouble, is left to DuckDB, which says what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import to_arrow
from daedalus.pipelines.days.total_order import SIMPLE
from daedalus.pipelines.operators import TICK
from daedalus.storage.sources.base import Doubting
from daedalus.storage.sources.parquet import ParquetSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from daedalus.storage.sources.base import Source, TickRange
    from daedalus.storage.sources.parquet_files import ParquetFile
    from daedalus.storage.view_reader import ViewReader

#: Times whose integers are ticks, by ticks per second.
_OWN_TICKS = {"TIMESTAMP": 1_000_000, "TIMESTAMP_NS": 1_000_000_000}


class PlainFiles:
    """Reads columns of a view from its files.

    Args:
        reader: of the view.
        source: where its rows are.
        names: what to read.
        ticks_per_second: the unit of `__t`.
    """

    def __init__(
        self, reader: ViewReader, source: Source, names: Sequence[str], ticks_per_second: int
    ) -> None:
        self._reader = reader
        self._source = source
        self._names = tuple(names)
        self._ticks_per_second = ticks_per_second

    def read(self, within: TickRange, most: int) -> pa.Table | None:
        """The rows of a bounded time in the files' order, with `__t`; None where SQL has to read them.

        Raises:
            MemoryError: they take more than `most` bytes.
        """
        source = self._source
        if (
            not isinstance(source, ParquetSource)
            or isinstance(source, Doubting)
            or not self._has_plain_types()
        ):
            return None
        files = source.snapshot().pruned(within)
        if not files or not all(map(self._is_plain, files)):
            return None
        tables: list[pa.Table] = []
        try:
            for file in files:
                for table in self._of_file(file.path, within):
                    tables.append(table)
                    most -= table.nbytes
                    if most < 0:
                        raise MemoryError
            return self._whole(tables)
        except (OSError, pa.ArrowException):
            return None

    def _has_plain_types(self) -> bool:
        columns = [self._reader.columns[name] for name in self._names]
        time = self._reader.view.timestamp_field
        return (
            time in self._names
            and _OWN_TICKS.get(self._reader.columns[time].dtype) == self._ticks_per_second
            and all(column.source_type == column.dtype and column.dtype in SIMPLE for column in columns)
        )

    def _is_plain(self, file: ParquetFile) -> bool:
        """Whether the file has every column once, of the declared type, and not in its folder's name."""
        folded = [name.lower() for name in file.columns]
        types, path = dict(file.types), file.path.lower()
        for name in self._names:
            column = self._reader.columns[name]
            wanted = column.source_name
            if types.get(wanted) != str(to_arrow(column.dtype)):
                return False
            if folded.count(wanted.lower()) > 1 or f"/{wanted.lower()}=" in path:
                return False
        return True

    def _of_file(self, path: str, within: TickRange) -> list[pa.Table]:
        import pyarrow.parquet as pq

        columns = [self._reader.columns[name] for name in self._names]
        texts = [column.source_name for column in columns if column.dtype == "VARCHAR"]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            groups = (self._of_group(file, group, within) for group in range(file.num_row_groups))
            return [table for table in groups if table.num_rows]

    def _of_group(self, file: pq.ParquetFile, group: int, within: TickRange) -> pa.Table:
        """A row group's rows of the time; the other columns are read where there are any."""
        time = self._reader.view.timestamp_field
        source_names = {name: self._reader.columns[name].source_name for name in self._names}
        times = file.read_row_group(group, columns=[source_names[time]], use_threads=False).column(0)
        inside = self._inside(times, within)
        if not inside.any():
            return pa.table({})
        rows = file.read_row_group(group, columns=list(source_names.values()), use_threads=False)
        rows = pa.table({name: rows[source] for name, source in source_names.items()})
        return rows if inside.all() else rows.filter(pa.array(inside))

    def _inside(self, times: pa.ChunkedArray, within: TickRange) -> NDArray[np.bool_]:
        scale = self._ticks_per_second // 1_000_000
        ticks = _ticks(times)
        inside = np.ones(len(ticks), np.bool_)
        if within.low_us is not None:
            inside &= ticks >= within.low_us * scale
        if within.high_us is not None:
            inside &= ticks < within.high_us * scale
        if times.null_count:
            inside &= times.is_valid().to_numpy()
        return inside

    def _whole(self, tables: list[pa.Table]) -> pa.Table | None:
        """The rows as one table; None where SQL would complain."""
        if not tables:
            return None
        whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        for name in self._names:
            if whole[name].null_count and not self._reader.view.field(name).nullable:
                return None
            if pa.types.is_dictionary(whole[name].type):
                for chunk in whole[name].chunks:
                    chunk.dictionary.validate(full=True)  # DuckDB refuses what is not UTF-8
        ticks = pa.array(_ticks(whole[self._reader.view.timestamp_field]))
        return whole.append_column(TICK, ticks)


def decoded(rows: pa.Table) -> pa.Table:
    """The rows with texts instead of codes."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_dictionary(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(field.type.value_type))
    return rows


def _ticks(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """The integers of timestamps; any where there is none."""
    whole = times.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    counted = whole.view(pa.int64())
    ticks: NDArray[np.int64] = (counted.fill_null(0) if counted.null_count else counted).to_numpy()
    return ticks
