"""`BatchStream`: the rows of finished days in batches, shuffled and sharded without ever holding many of them.

A shard is a range of rows of the epoch's order of row groups: shards are disjoint, together they are everything,
and their sizes differ by one row at most. Every rank computes the same order from seed and epoch.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from daedalus.reading.day_file import DayFile

#: Row groups that are read side by side to be mixed.
_OPEN = 4
_READ_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """A row group, or the rows `start` to `stop` of one."""

    file: DayFile
    index: int
    start: int
    stop: int


class BatchStream:
    """Record batches; each iteration reads the epoch from its beginning.

    Args:
        files: of the days, in order.
        columns: what is read of them, in this order.
        batch_size: rows of each batch but the last.
        seed: shuffles; None keeps the order.
        rank: which of `world_size` parts.
        world_size: how many parts there are.
        even: whether all parts have equally many rows.
        drop_last: leave out a last batch that is not full.
        shuffle_rows: rows that are held to be mixed.

    Attributes:
        epoch: another one gives another order, when shuffled.
    """

    def __init__(
        self,
        files: Iterable[DayFile],
        columns: Sequence[str],
        *,
        batch_size: int,
        seed: int | None,
        rank: int,
        world_size: int,
        even: bool,
        drop_last: bool,
        shuffle_rows: int,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("world_size", world_size),
            ("shuffle_rows", shuffle_rows),
        ):
            if value < 1:
                raise DefinitionError(f"{name} is {value}, but must be at least 1", where="batches")
        if not 0 <= rank < world_size:
            raise DefinitionError(
                f"rank is {rank}, but must be 0 to {world_size - 1}, below world_size", where="batches"
            )
        if seed is not None and seed < 0:
            raise DefinitionError(f"seed is {seed}, but must not be negative", where="batches")
        self.batch_size = batch_size
        self.epoch = 0
        self._seed = seed
        self._parts = [(rank, world_size, even)]
        self._drop_last = drop_last
        self._shuffle_rows = shuffle_rows
        self._columns = list(columns)
        self._groups = tuple(_row_groups(files))

    @property
    def rows(self) -> int:
        """How many rows this part has."""
        start, stop = self._span()
        return stop - start

    def __len__(self) -> int:
        """How many batches there are."""
        full, rest = divmod(self.rows, self.batch_size)
        return full + (1 if rest and not self._drop_last else 0)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration reads."""
        if epoch < 0:
            raise DefinitionError(f"epoch is {epoch}, but must not be negative", where="set_epoch")
        self.epoch = epoch

    def for_worker(self, worker: int, workers: int) -> BatchStream:
        """The part of this part that one of several workers reads; together they read all of it."""
        part = copy.copy(self)
        part._parts = [*self._parts, (worker, workers, False)]
        return part

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        pieces = self._pieces()
        if self._seed is None:
            batches = _rebatched((batch for piece in pieces for batch in self._read(piece)), self.batch_size)
        else:
            batches = self._mixed(pieces)
        for batch in batches:
            if batch.num_rows == self.batch_size or not self._drop_last:
                yield batch

    def _span(self) -> tuple[int, int]:
        """First row and the one after the last, in the epoch's order of row groups."""
        start, stop = 0, sum(group.stop for group in self._groups)
        for index, count, even in self._parts:
            rows = stop - start
            rows -= rows % count if even else 0
            start, stop = start + rows * index // count, start + rows * (index + 1) // count
        return start, stop

    def _pieces(self) -> list[_RowGroup]:
        """The row groups of this part in the epoch's order; the first and the last may be cut."""
        order = np.arange(len(self._groups))
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self.epoch]).permutation(order)
        start, stop = self._span()
        pieces, before = [], 0
        for group in (self._groups[place] for place in order):
            low, high = max(start - before, 0), min(stop - before, group.stop)
            if low < high:
                pieces.append(_RowGroup(group.file, group.index, low, high))
            before += group.stop
        return pieces

    def _read(self, piece: _RowGroup) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._rows_of(piece)
        except (OSError, pa.ArrowException) as error:
            raise piece.file.broken(error) from error

    def _rows_of(self, piece: _RowGroup) -> Iterator[pa.RecordBatch]:
        with piece.file.open() as file:
            at = 0
            for batch in file.iter_batches(
                batch_size=_READ_ROWS, row_groups=[piece.index], columns=self._columns, use_threads=False
            ):
                low, high = max(piece.start - at, 0), min(piece.stop - at, batch.num_rows)
                if low < high:
                    yield batch.select(self._columns).slice(low, high - low)
                at += batch.num_rows
                if at >= piece.stop:
                    return

    def _mixed(self, pieces: list[_RowGroup]) -> Iterator[pa.RecordBatch]:
        """Rows of several row groups at a time, permuted within `shuffle_rows` of them."""
        flat = [number for index, count, _ in self._parts for number in (index, count)]
        random = np.random.default_rng([self._seed or 0, self.epoch, *flat])
        held: list[pa.RecordBatch] = []
        rows = 0
        for batch in _side_by_side([self._read(piece) for piece in pieces], _OPEN):
            held.append(batch)
            rows += batch.num_rows
            if rows < max(self._shuffle_rows, self.batch_size):
                continue
            mixed = _permuted(held, random)
            rows = mixed.num_rows % self.batch_size
            full = mixed.num_rows - rows
            yield from _cut(mixed.slice(0, full), self.batch_size)
            held = mixed.slice(full).to_batches()
        if held:
            yield from _cut(_permuted(held, random), self.batch_size)


def _row_groups(files: Iterable[DayFile]) -> Iterator[_RowGroup]:
    for one in files:
        with one.open() as file:
            counts = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        for index, rows in enumerate(counts):
            if rows:
                yield _RowGroup(one, index, 0, rows)


def _side_by_side(sources: list[Iterator[pa.RecordBatch]], count: int) -> Iterator[pa.RecordBatch]:
    """A batch of each of the first `count` sources in turn; a source that ends makes room for the next."""
    waiting = deque(sources)
    reading = deque(waiting.popleft() for _ in range(min(count, len(waiting))))
    while reading:
        source = reading.popleft()
        batch = next(source, None)
        if batch is None:
            if waiting:
                reading.append(waiting.popleft())
            continue
        yield batch
        reading.append(source)


def _permuted(held: list[pa.RecordBatch], random: np.random.Generator) -> pa.Table:
    table = pa.Table.from_batches(held).combine_chunks()
    return table.take(pa.array(random.permutation(table.num_rows)))


def _cut(table: pa.Table, size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, table.num_rows, size):
        yield _as_batch(table.slice(start, size))


def _rebatched(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `size`."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= size:
            table = pa.Table.from_batches(held)
            full = rows - rows % size
            yield from _cut(table.slice(0, full), size)
            held, rows = table.slice(full).to_batches(), rows - full
    if rows:
        yield _as_batch(pa.Table.from_batches(held))


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch
