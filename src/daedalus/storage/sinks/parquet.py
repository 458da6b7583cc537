"""A day as ordered Parquet shards, written as a stream.

Row groups and shards depend on the data alone: rows are regrouped to fixed sizes whatever batches they arrive
in. Shards are encoded side by side, each by one thread, a row group as soon as it is full. The content hash is
taken from the same batches, in order, and the columns' statistics from the same row groups, in their threads,
so neither costs a second read.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from daedalus.storage.arrow_kinds import is_list, is_text
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
#: Values that are encoded at a time, and a page has at least as many: 1,024, the default, takes a tenth more time.
_MOST_VALUES, _LEAST_VALUES = 65_536, 1_024
#: Bytes of text, about, that may be one page.
_PAGE_BYTES = 4 << 20
#: A shard's later texts may be longer by so much, before its row groups become small.
_MOST_TIMES_LONGER = 8

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
        threads: shards encoded at a time.
        groups: full row groups in memory at most, those being encoded among them; one more fills.
        timed: measures a block, told `sink`, what it does, and the rows.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        unhashed: Sequence[str] = (),
        *,
        threads: int = 2,
        groups: int = 4,
        timed: Timed = _untimed,
    ) -> None:
        self._folder = folder
        self._schema = schema
        self._hash = ContentHash(schema, unhashed)
        self._timed = timed
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._shards: list[_Shard] = []
        self._rows = 0
        self._groups = groups
        # A shard's row groups follow one another, so each shard is one thread's.
        self._pools = [ThreadPoolExecutor(max_workers=1) for _ in range(threads)]
        self._writing: deque[Future[Sketches]] = deque()
        self._sketches: Sketches = {}

    @property
    def rows(self) -> int:
        """How many were given so far."""
        return self._rows + self._waiting_rows

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        for batch in table.to_batches():
            with self._timed("sink", "hash", batch.num_rows):
                self._hash.update(batch)
            self._waiting.append(batch)
            self._waiting_rows += batch.num_rows
        # How columns are looked at depends on whether the day fills a shard. The last row group comes with `close`.
        while self._waiting_rows > (ROW_GROUP_ROWS if self._rows else SHARD_ROWS):
            self._submit(ROW_GROUP_ROWS, SAMPLED)

    def close(self) -> SinkResult:
        """Write what waits and finish every file; a day without rows is one file without rows."""
        sample = SAMPLED if self.rows >= SHARD_ROWS else 1
        while self._waiting_rows or not self._shards:
            self._submit(min(self._waiting_rows, ROW_GROUP_ROWS), sample)
        while self._writing:
            self._finish_one()
        for pool in self._pools:
            pool.shutdown()
        files = tuple((shard.path.name, shard.path.stat().st_size) for shard in self._shards)
        digests = self._hash.column_digests()
        columns = tuple(
            (name, self._sketches[name].stats(digests.get(name, ""))) for name in self._schema.names
        )
        return SinkResult(
            files=files, row_count=self._rows, content_hash=self._hash.hexdigest(), columns=columns
        )

    def abort(self) -> None:
        """Stop writing; the caller removes the folder."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        for shard in self._shards:
            shard.abandon()

    def _submit(self, rows: int, sample: int) -> None:
        """Hand the next `rows` waiting rows, one row group, to a thread; wait while there are too many."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        group, rest = table.slice(0, rows), table.slice(rows)
        self._waiting = rest.to_batches()
        self._waiting_rows = rest.num_rows
        if self._rows % SHARD_ROWS == 0:
            path = self._folder / f"part-{len(self._shards)}-0.parquet"
            self._shards.append(_Shard(path, self._timed))
        self._rows += rows
        last = self._rows % SHARD_ROWS == 0 or not self._waiting_rows
        pool = self._pools[(len(self._shards) - 1) % len(self._pools)]
        while len(self._writing) >= self._groups:
            self._finish_one()
        # In a list, from which it is taken: what is submitted is held until it is done.
        self._writing.append(pool.submit(self._shards[-1].write, [group], sample, last=last))

    def _finish_one(self) -> None:
        """Wait for the oldest row group under way."""
        found = self._writing.popleft().result()
        if found:
            self._sketches = merge_sketches([self._sketches, found])


class _Shard:
    """One file of the day.

    Args:
        path: does not exist yet.
        timed: as of `ParquetSink`.
    """

    def __init__(self, path: Path, timed: Timed) -> None:
        self.path = path
        self._timed = timed
        self._writer: pq.ParquetWriter | None = None
        self._batch = _LEAST_VALUES
        self._parts: list[Sketches] = []

    def write(self, groups: list[pa.Table], sample: int, *, last: bool) -> Sketches:
        """Append a row group, taken from the list; after the last the file is whole: its columns' sketches."""
        group = groups.pop()
        with self._timed("sink", "write", group.num_rows):
            if self._writer is None:
                self._batch = _batch_for(group)
                dictionaries = dictionary_columns(group)
                self._writer = pq.ParquetWriter(
                    self.path,
                    group.schema,
                    compression="zstd",
                    use_dictionary=dictionaries,
                    write_batch_size=self._batch,
                )
            group = group.combine_chunks()
            # A page ends with its row group: texts may be much longer than those that came first.
            page = self._batch * _longest_texts(group)
            fits = self._batch == _LEAST_VALUES or page <= _MOST_TIMES_LONGER * _PAGE_BYTES
            self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS if fits else _LEAST_VALUES)
            if last:
                self._writer.close()
                self._writer = None  # it would hold its buffers for as long as the day is written
        with self._timed("sink", "statistics", group.num_rows):
            self._parts.append(table_sketches(group, sample=sample))
        if not last:
            return {}
        parts, self._parts = self._parts, []
        return merge_sketches(parts)

    def abandon(self) -> None:
        """Close the file, which is not whole: a disk that is full may not take even its end."""
        if self._writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()


def _batch_for(group: pa.Table) -> int:
    """Values to encode at a time, so that a page of the longest texts stays small."""
    return min(_MOST_VALUES, max(_LEAST_VALUES, _PAGE_BYTES // (_longest_texts(group) + 1)))


def _longest_texts(group: pa.Table) -> int:
    """Bytes of text to a row, in the column that has most: the same however the rows came."""
    sizes = [sum(_text_bytes(chunk) for chunk in column.chunks) for column in group.columns]
    return int(max([0, *sizes]) // max(group.num_rows, 1))


def _text_bytes(array: pa.Array) -> int:
    """The bytes of all texts in a column, in its lists and structs too."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return _text_bytes(array.dictionary_decode())
    if is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return int(pc.sum(pc.binary_length(array)).as_py() or 0)
    if pa.types.is_map(kind):
        pairs = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return _text_bytes(array.cast(pa.list_(pairs)))
    if is_list(kind):
        return _text_bytes(array.flatten())
    if pa.types.is_struct(kind):
        return sum(map(_text_bytes, array.flatten()))
    return 0
