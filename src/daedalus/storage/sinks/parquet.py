"""A day as ordered Parquet shards, written as a stream.

Row groups and shards depend on the data alone: rows are regrouped to fixed sizes whatever batches they arrive
in. The content hash is taken from the same batches, so it costs no second read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.storage.content_hash import ContentHash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROW_GROUP_ROWS = 65_536
SHARD_ROWS = 16 * ROW_GROUP_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkResult:
    """What was written.

    Attributes:
        files: (file name, bytes) pairs, in row order.
    """

    files: tuple[tuple[str, int], ...]
    row_count: int
    content_hash: str


class ParquetSink:
    """Writes one day's rows, in the order they come, as `part-N-0.parquet` (zstd).

    Args:
        folder: an existing, empty folder; the caller moves it to its final name.
        schema: of every batch.
        unhashed: columns left out of the content hash (operational ids).
    """

    def __init__(self, folder: Path, schema: pa.Schema, unhashed: Sequence[str] = ()) -> None:
        self._folder = folder
        self._schema = schema
        self._hash = ContentHash(schema, unhashed)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._files: list[Path] = []
        self._rows_in_shard = 0
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        for batch in table.to_batches():
            self._hash.update(batch)
            self._waiting.append(batch)
            self._waiting_rows += batch.num_rows
            while self._waiting_rows >= ROW_GROUP_ROWS:
                self._flush(ROW_GROUP_ROWS)

    def close(self) -> SinkResult:
        """Write what waits and finish the last file; a day without rows is one file without rows."""
        if self._waiting_rows or not self._files:
            self._flush(self._waiting_rows)
        self._finish_shard()
        files = tuple((path.name, path.stat().st_size) for path in self._files)
        return SinkResult(files=files, row_count=self._rows, content_hash=self._hash.hexdigest())

    def abort(self) -> None:
        """Close the open file; the caller removes the folder."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self, rows: int) -> None:
        """Write the next `rows` waiting rows as one row group."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        group = table.slice(0, rows).combine_chunks()
        rest = table.slice(rows)
        self._waiting = rest.to_batches()
        self._waiting_rows = rest.num_rows
        if self._writer is None:
            self._open_shard()
        if self._writer is not None:
            self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        self._rows += group.num_rows
        self._rows_in_shard += group.num_rows
        if self._rows_in_shard >= SHARD_ROWS:
            self._finish_shard()

    def _open_shard(self) -> None:
        path = self._folder / f"part-{len(self._files)}-0.parquet"
        self._files.append(path)
        self._rows_in_shard = 0
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def _finish_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
