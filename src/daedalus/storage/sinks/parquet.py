"""A day as ordered Parquet shards, written as a stream.

Row groups and shards depend on the data alone: rows are regrouped to fixed sizes whatever batches they arrive
in. Shards are encoded side by side. The content hash is taken from the same batches, in order, and the columns'
statistics from the same shards, in their threads, so neither costs a second read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.storage.column_sketches import merge_sketches, table_sketches
from daedalus.storage.column_stats import SAMPLED
from daedalus.storage.content_hash import ContentHash
from daedalus.storage.sinks.encodings import dictionary_columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.storage.column_sketches import Sketches
    from daedalus.storage.column_stats import ColumnStats

ROW_GROUP_ROWS = 65_536
SHARD_ROWS = 2 * ROW_GROUP_ROWS

Timed = Callable[[str, str, int], AbstractContextManager[None]]


def _untimed(_operator: str, _step: str, _rows: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkResult:
    """What was written.

    Attributes:
        files: (file name, bytes) pairs, in row order.
        columns: the statistics of each column, in schema order.
    """

    files: tuple[tuple[str, int], ...]
    row_count: int
    content_hash: str
    columns: tuple[tuple[str, ColumnStats], ...] = ()


class ParquetSink:
    """Writes one day's rows, in the order they come, as `part-N-0.parquet` (zstd).

    Args:
        folder: an existing, empty folder; the caller moves it to its final name.
        schema: of every batch.
        unhashed: columns left out of the content hash (operational ids).
        threads: shards encoded at a time; as many more wait in memory at most.
        timed: measures a block, told `sink`, what it does, and the rows.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        unhashed: Sequence[str] = (),
        *,
        threads: int = 2,
        timed: Timed = _untimed,
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._hash = ContentHash(schema, unhashed)
        self._timed = timed
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._files: list[Path] = []
        self._rows = 0
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads)
        self._writing: deque[Future[Sketches]] = deque()
        self._sketches: Sketches = {}
        self._sample = 1

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        for batch in table.to_batches():
            with self._timed("sink", "hash", batch.num_rows):
                self._hash.update(batch)
            self._waiting.append(batch)
            self._waiting_rows += batch.num_rows
        while self._waiting_rows >= SHARD_ROWS:
            self._submit(SHARD_ROWS)

    def close(self) -> SinkResult:
        """Write what waits and finish every file; a day without rows is one file without rows."""
        if self._waiting_rows or not self._files:
            self._submit(self._waiting_rows)
        while self._writing:
            self._finish_one()
        self._pool.shutdown()
        files = tuple((path.name, path.stat().st_size) for path in self._files)
        digests = self._hash.column_digests()
        columns = tuple(
            (name, self._sketches[name].stats(digests.get(name, ""))) for name in self._schema.names
        )
        return SinkResult(
            files=files, row_count=self._rows, content_hash=self._hash.hexdigest(), columns=columns
        )

    def abort(self) -> None:
        """Stop writing; the caller removes the folder."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, rows: int) -> None:
        """Hand the next `rows` waiting rows, one shard, to a thread; wait while too many are under way."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        shard, rest = table.slice(0, rows), table.slice(rows)
        self._waiting = rest.to_batches()
        self._waiting_rows = rest.num_rows
        self._rows += rows
        self._sample = SAMPLED if rows == SHARD_ROWS else self._sample
        path = self._folder / f"part-{len(self._files)}-0.parquet"
        self._files.append(path)
        while len(self._writing) >= self._threads:
            self._finish_one()
        self._writing.append(self._pool.submit(_write_shard, path, shard, self._sample, self._timed))

    def _finish_one(self) -> None:
        """Wait for the oldest shard under way."""
        self._sketches = merge_sketches([self._sketches, self._writing.popleft().result()])


def _write_shard(path: Path, shard: pa.Table, sample: int, timed: Timed) -> Sketches:
    parts: list[Sketches] = []
    dictionaries = dictionary_columns(shard)
    with pq.ParquetWriter(path, shard.schema, compression="zstd", use_dictionary=dictionaries) as writer:
        for start in range(0, max(shard.num_rows, 1), ROW_GROUP_ROWS):
            with timed("sink", "write", min(ROW_GROUP_ROWS, shard.num_rows - start)):
                group = shard.slice(start, ROW_GROUP_ROWS).combine_chunks()
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            with timed("sink", "statistics", group.num_rows):
                parts.append(table_sketches(group, sample=sample))
    return merge_sketches(parts)
