"""Rows split by their keys into files, and results joined together again in the order of rows.

An aggregation needs all rows of a key at once, but no two keys together. Where the whole does not fit in
memory, rows are dealt out to buckets by a hash of their keys, each bucket is computed by itself, and its
columns wait in a file, by position, until the stream asks for them.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.compute.lists import take_rows
from daedalus.compute.windows import restored
from daedalus.errors import ExecutionError
from daedalus.pipelines.days.one_behind import OneBehind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

BUCKET = "__bucket"
_FORMAT = pa.ipc.IpcWriteOptions(compression="lz4")


class SpillFolder:
    """Files of rows that wait on disk, in one folder that is removed with its owner.

    Args:
        path: an existing folder.
        limit: bytes that may lie in it; 0 is no limit.
    """

    def __init__(self, path: Path, limit: int = 0) -> None:
        self.path = path
        self._limit = limit
        self._used = 0
        self._files = 0

    def writer(self, schema: pa.Schema) -> SpillWriter:
        """A new file, open for rows of the schema."""
        self._files += 1
        return SpillWriter(self, self.path / f"rows-{self._files}.arrow", schema)

    def count(self, written: int) -> None:
        """So many more bytes lie in the folder.

        Raises:
            ExecutionError: more than may.
        """
        self._used += written
        if self._limit and self._used > self._limit:
            raise disk_full(f"more than max_temp_directory_size ({self._limit} bytes) were to be spilled")


class SpillWriter:
    """One file of rows, compressed."""

    def __init__(self, folder: SpillFolder, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._folder = folder
        with blamed_on_disk():
            self._file = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_file(self._file, schema, options=_FORMAT)

    def write(self, table: pa.Table, rows: int | None = None) -> None:
        """Append rows, in batches of at most `rows`.

        Raises:
            ExecutionError: the disk is full, or the folder holds all that it may.
        """
        before = self._file.tell()
        with blamed_on_disk():
            self._writer.write_table(table, max_chunksize=rows)
        self._folder.count(self._file.tell() - before)

    def close(self) -> None:
        """Finish the file."""
        with blamed_on_disk():
            self._writer.close()
            self._file.close()


def disk_full(what: str) -> ExecutionError:
    """The error of a spill disk without room."""
    return ExecutionError(
        f"the spill disk is full: {what}",
        hint="Free space under compute.duckdb_config.temp_directory, or point it at a larger disk",
    )


@contextlib.contextmanager
def blamed_on_disk() -> Iterator[None]:
    """A write that the disk refuses becomes an error of ours."""
    try:
        yield
    except OSError as error:
        raise disk_full(str(error)) from error


def deal_out(folder: SpillFolder, reader: pa.RecordBatchReader, buckets: int) -> list[Path]:
    """Split rows by their column `__bucket` into one file each, their order kept; returns the files."""
    at = reader.schema.get_field_index(BUCKET)
    writers = [folder.writer(reader.schema.remove(at)) for _ in range(buckets)]

    def write(rows: pa.Table, ends: list[int]) -> None:
        start = 0
        for writer, end in zip(writers, ends, strict=True):
            if end > start:
                writer.write(rows.slice(start, end - start))
            start = end

    try:
        with OneBehind() as behind:
            for batch in reader:
                bucket = batch.column(at).to_numpy().astype(np.uint16)
                order = np.argsort(bucket, kind="stable")
                ends = np.cumsum(np.bincount(bucket, minlength=buckets)).tolist()
                rows = pa.Table.from_batches([batch]).remove_column(at).take(pa.array(order))
                behind.do(partial(write, rows, ends))
    finally:
        for writer in writers:
            writer.close()
    return [writer.path for writer in writers]


def read_rows(path: Path) -> pa.Table:
    """All rows of a spilled file, which is removed."""
    with path.open("rb") as file:
        table = pa.ipc.open_file(file).read_all()
    path.unlink()
    return table


class _Bucket:
    """One bucket's finished rows, read forward."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._reader = pa.ipc.open_file(self._file)
        self._next = 0
        self._held: list[pa.RecordBatch] = []

    def up_to(self, last: int) -> list[pa.RecordBatch]:
        """The batches, from the first still held, that hold the rows up to position `last`."""
        while self._next < self._reader.num_record_batches and (
            not self._held or self._held[-1].column(0)[-1].as_py() < last
        ):
            self._held.append(self._reader.get_batch(self._next))
            self._next += 1
        return self._held

    def forget(self, last: int) -> None:
        """Let go of batches that end at or before position `last`."""
        self._held = [batch for batch in self._held if batch.column(0)[-1].as_py() > last]

    def close(self) -> None:
        self._file.close()


def _between(batch: pa.RecordBatch, first: int, last: int) -> pa.RecordBatch:
    """The batch's rows from position `first` to `last`."""
    low, high = np.searchsorted(batch.column(0).to_numpy(), [first, last + 1])
    return batch.slice(low, high - low)


class JoinedBuckets:
    """The finished rows of all buckets, in the order of their positions.

    Args:
        paths: one file per bucket, the first column `__row`, rising.
        schema: of the files.
        ends: the columns that hold lengths of the ends of another's lists; see `windows.ends_of_another`.
    """

    def __init__(
        self, paths: Sequence[Path], schema: pa.Schema, ends: Mapping[int, int] | None = None
    ) -> None:
        self._ends = dict(ends or {})
        self._buckets = [_Bucket(path) for path in paths]
        self._schema = schema

    def columns(self, rows: NDArray[np.int64]) -> list[pa.Array]:
        """The columns after `__row`, for positions that rise from call to call."""
        if len(rows) == 0:
            return restored([pa.array([], field.type) for field in list(self._schema)[1:]], self._ends)
        last = int(rows[-1])
        first = int(rows[0])
        batches = [_between(batch, first, last) for bucket in self._buckets for batch in bucket.up_to(last)]
        found = np.concatenate([batch.column(0).to_numpy() for batch in batches])
        # Each position is in one bucket only.
        order = np.argsort(found, kind="stable")
        places = order[np.searchsorted(found, rows, sorter=order)]
        columns = [
            take_rows(pa.concat_arrays([batch.column(at) for batch in batches]), places)
            for at in range(1, len(self._schema))
        ]
        for bucket in self._buckets:
            bucket.forget(last)
        return restored(columns, self._ends)

    def close(self) -> None:
        """Close the files."""
        for bucket in self._buckets:
            bucket.close()
