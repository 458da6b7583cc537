"""Enrich one shard: read its rows of the skeleton, add the columns, write one file.

A shard is a contiguous range of a day's rows and becomes one `part-N-0.parquet`. It is the unit of work of
both runtimes; nothing about it depends on which of them runs it, or on what ran before in the same worker.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.errors import ExecutionError, SourceError
from daedalus.pipelines.enrich.columns import ColumnMaker
from daedalus.pipelines.enrich.plan import BATCH_ROWS, SHARD_ROWS, EnrichPlan, enriched_schema
from daedalus.pipelines.operators import QID_COLUMN
from daedalus.pipelines.profiling import NO_PROFILE, DayProfile, NoProfile
from daedalus.storage.column_sketches import merge_sketches, table_sketches
from daedalus.storage.content_hash import ContentHash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from daedalus.pipelines.profiling import Measure
    from daedalus.storage.column_sketches import Sketches


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to make.

    Attributes:
        day: ISO date.
        files: the day's skeleton files in row order.
        folder: where the shard's file goes.
        start: the shard's first row in the day; it ends before `stop`.
    """

    day: str
    files: tuple[str, ...]
    folder: str
    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """One shard made.

    Attributes:
        file: its name in the day's folder.
        nulls: rows that stayed NULL, per filled column.
        sketches: of the filled columns.
        digests: of the filled columns' values.
        measures: what the shard took, when the plan asks for it.
    """

    day: str
    index: int
    rows: int
    file: str
    size_bytes: int
    content_hash: str
    nulls: tuple[tuple[str, int], ...]
    sketches: Sketches = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()


def shard_tasks(day: str, files: Sequence[Path], rows: int, folder: Path) -> list[ShardTask]:
    """The shards of a day of `rows` rows; one empty shard for a day without rows, to keep its schema."""
    return [
        ShardTask(
            day=day,
            files=tuple(str(file) for file in files),
            folder=str(folder),
            index=index,
            start=start,
            stop=min(start + SHARD_ROWS, rows),
        )
        for index, start in enumerate(range(0, max(rows, 1), SHARD_ROWS))
    ]


class ShardEnricher:
    """One worker: stores, indexes and caches stay between its shards."""

    def __init__(self, plan: EnrichPlan) -> None:
        self._plan = plan
        self._maker: ColumnMaker | None = None
        self._reader: SkeletonReader | None = None

    def run(self, task: ShardTask) -> ShardReport:
        """Make one shard.

        Raises:
            ExecutionError: a UDF failed, a store or the skeleton cannot be read, or the file not written.
        """
        if not self._plan.profiled:
            return self._run(task, NO_PROFILE)
        profile = DayProfile("enrich", task.day)
        with profile.total():
            report = self._run(task, profile)
        return replace(report, measures=profile.measures())

    def _run(self, task: ShardTask, profile: NoProfile) -> ShardReport:
        if self._maker is None:
            with profile.shared("", "open stores"):
                self._maker = ColumnMaker(self._plan)
        self._maker.profile = profile
        if self._reader is None or self._reader.files != task.files:
            filled = {transform.column for transform in self._plan.transforms}
            self._reader = SkeletonReader(task.files, without=filled)
        stores = {name: reader.store for name, reader in self._maker.stores.items()}
        schema = enriched_schema(self._plan, self._reader.schema, stores)
        path = Path(task.folder) / f"part-{task.index}-0.parquet"
        try:
            return self._write(task, path, schema, self._maker, self._reader)
        except (OSError, pa.ArrowInvalid) as problem:
            raise ExecutionError(
                f"cannot write the enriched day: {problem}",
                where=path.name,
                hint="Make room and run it again: finished days are kept",
                day=task.day,
            ) from problem

    def _write(
        self,
        task: ShardTask,
        path: Path,
        schema: pa.Schema,
        maker: ColumnMaker,
        reader: SkeletonReader,
    ) -> ShardReport:
        profile = maker.profile
        digest = ContentHash(schema, [QID_COLUMN])
        nulls = dict.fromkeys((transform.column for transform in self._plan.transforms), 0)
        sketches: Sketches = {}
        rows = 0
        with _Writer(path, schema, nulls, profile) as writer:
            for table in profile.each(reader.tables(task.start, task.stop), "skeleton", "read"):
                first = task.start + rows
                place = f"batch {first // BATCH_ROWS} (rows {first} to {first + len(table)})"
                made = maker.columns(table, day=task.day, place=place)
                for name, column in made.items():
                    nulls[name] += column.null_count
                enriched = pa.table(
                    [made[name] if name in made else table.column(name) for name in schema.names],
                    schema=schema,
                )
                writer.write(enriched)
                with profile.timed("sink", "statistics", len(table)):
                    filled = table_sketches(enriched, only=nulls, vectors=nulls)
                    sketches = merge_sketches([sketches, filled])
                with profile.timed("sink", "hash", len(table)):
                    for batch in enriched.combine_chunks().to_batches():
                        digest.update(batch)
                rows += len(table)
        if rows != task.stop - task.start:
            raise SourceError(
                f"the skeleton has {task.start + rows} rows, its manifest says more",
                where=task.files[-1],
                day=task.day,
            )
        return ShardReport(
            day=task.day,
            index=task.index,
            rows=rows,
            file=path.name,
            size_bytes=path.stat().st_size,
            content_hash=digest.hexdigest(),
            nulls=tuple(nulls.items()),
            sketches=sketches,
            digests={name: value for name, value in digest.column_digests().items() if name in nulls},
        )


class SkeletonReader:
    """The rows of one day's skeleton, without the columns that enrichment fills.

    Args:
        files: the day's files in row order.
        without: columns not to read.

    Attributes:
        schema: of the skeleton, all columns.
    """

    def __init__(self, files: Sequence[str], *, without: set[str]) -> None:
        self.files = tuple(files)
        with _reading(self.files[0]):
            self.schema: pa.Schema = pq.read_schema(self.files[0])
        names = [name for name in self.schema.names if name not in without]
        self._columns = names if len(names) < len(self.schema.names) else None
        self._schema = pa.schema([self.schema.field(name) for name in names])
        self._stream: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        self._position = 0

    def tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        """Rows `start` to `stop`, `BATCH_ROWS` at a time whatever the files' row groups are.

        Reading on where the last call ended costs nothing; elsewhere, the row group's rows before `start`.
        """
        if start == 0 or start != self._position:
            self._stream, self._rest = self._rows_from(start), None
            self._position = start
        while self._position < stop:
            wanted = min(BATCH_ROWS, stop - self._position)
            pieces = list(self._take(wanted))
            table = pa.Table.from_batches(pieces, schema=self._schema)
            if not len(table):
                return
            self._position += len(table)
            yield table

    def _take(self, wanted: int) -> Iterator[pa.RecordBatch]:
        while wanted:
            batch = self._rest if self._rest is not None else next(self._stream, None)
            if batch is None:
                return
            self._rest = batch.slice(wanted) if len(batch) > wanted else None
            batch = batch.slice(0, wanted)
            wanted -= len(batch)
            yield batch

    def _rows_from(self, start: int) -> Iterator[pa.RecordBatch]:
        first = 0
        for path in self.files:
            with _reading(path), pq.ParquetFile(path, pre_buffer=False) as file:
                total = file.metadata.num_rows
                groups, skip = _groups_from(file.metadata, start - first)
                if groups:
                    for batch in file.iter_batches(
                        batch_size=BATCH_ROWS, row_groups=groups, columns=self._columns, use_threads=False
                    ):
                        if skip < len(batch):
                            yield batch.slice(skip) if skip else batch
                        skip = max(0, skip - len(batch))
                first += total


def _groups_from(metadata: pq.FileMetaData, row: int) -> tuple[list[int], int]:
    """The row groups of a file from the one that holds `row` on, and the rows before it there."""
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if first + rows > row:
            return list(range(group, metadata.num_row_groups)), max(0, row - first)
        first += rows
    return [], 0


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as problem:
        raise SourceError(f"cannot read the skeleton: {problem}", where=path) from problem


class _Writer:
    """Writes one file, a batch per row group, while the caller makes the next batch."""

    def __init__(self, path: Path, schema: pa.Schema, filled: Collection[str], profile: NoProfile) -> None:
        self._profile = profile
        self._file = pq.ParquetWriter(path, schema, **writer_options(schema, filled))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="daedalus-write")
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        """Take one batch; wait for the one before it."""
        self._wait()
        self._pending = self._thread.submit(self._write, table)

    def _write(self, table: pa.Table) -> None:
        with self._profile.timed("sink", "write", table.num_rows):
            self._file.write_table(table, BATCH_ROWS)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: Any) -> None:
        whole = False
        try:
            if kind is None:
                self._wait()
                whole = True
        finally:
            self._thread.shutdown(wait=True)
            with contextlib.nullcontext() if whole else contextlib.suppress(OSError):
                self._file.close()


def writer_options(schema: pa.Schema, filled: Collection[str]) -> dict[str, Any]:
    """Parquet options: zstd; no dictionaries or statistics for vectors, which gain nothing by them."""
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, schema).close()
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    paths = [leaves.column(at).path for at in range(len(leaves))]
    others = [path for path in paths if not any(path.startswith(f"{name}.") for name in filled)]
    return {
        "compression": "zstd",
        "use_dictionary": others or False,
        "write_statistics": others or False,
        "write_batch_size": 1 << 16,
    }
