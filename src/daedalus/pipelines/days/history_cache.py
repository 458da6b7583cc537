"""What adjacent target days share: each event day's history rows, computed once and kept on disk.

A target day needs the spine's rows of the window before it, joined with static columns. Row by row these do not
depend on the target day, so each event day is one file, named after everything it was made from. The next
target day computes one new file and reads the others. The cache is disposable: deleting it costs time only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import itertools
import json
import os
import queue
import re
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from daedalus.errors import ExecutionError
from daedalus.pipelines.days.context import day_start_us, scan_range
from daedalus.pipelines.days.held_history import HeldHistory, TooManyRowsError
from daedalus.pipelines.days.history_files import DayFiles, files_sql, flushed, is_whole
from daedalus.pipelines.days.memory import give_back_memory
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.resources import bytes_of
from daedalus.pipelines.duckdb_session import connection_beside, duckdb_session, fewer_threads
from daedalus.pipelines.function_code import code_digests, named_functions
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    Filter,
    Join,
    OperatorPipeline,
    PointInTimeJoin,
    Project,
    RollingAggregate,
    Scan,
    TimeRange,
)
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.pipelines.scratch import scratch_folder, sweep
from daedalus.sql.identifiers import quote_literal
from daedalus.storage.sources.base import TickRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import duckdb
    import pyarrow as pa

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.relation_graph import RelationGraph
    from daedalus.pipelines.operators import AnyOperator

CACHE_FOLDER = ".cache"
#: Begins the names of folders in which files are written.
PARTS = ".parts-"
#: More rows than adjacent days have; `__row` is the day's number times this, plus a number that rises in the day.
ROWS_PER_DAY = 1 << 40
_KEPT_SECONDS = 86_400
#: Days of fewer rows together are computed together.
_ROWS_AT_ONCE = 1_000_000
#: A day of more rows is made in pieces of its time, where it is not made in SQL.
_MOST_ROWS = 1_500_000
#: Each holds a piece.
_MOST_THREADS = 4
#: Longer windows read the source: a file per day would cost more than it saves.
_LONGEST_SECONDS = 400 * 86_400
_ONE_DAY = dt.timedelta(days=1)
_FLOAT = re.compile("FLOAT|DOUBLE")
#: Part of every file's identity: what an earlier version wrote otherwise is not read.
_WRITTEN_AS = 2


@dataclasses.dataclass(frozen=True, slots=True)
class HistoryChain:
    """The operators that make the spine's history, where its rows do not depend on the target day.

    Attributes:
        relation: the history: what rolling operators read.
        operators: all that it needs, in order.
        same_rows: relations on the way that hold the same rows with fewer columns.
        outside: relations made on the way that later operators read, too.
    """

    relation: str
    operators: tuple[AnyOperator, ...]
    same_rows: tuple[str, ...]
    outside: tuple[str, ...]

    @classmethod
    def of(cls, pipeline: OperatorPipeline) -> HistoryChain | None:
        """The chain of a pipeline; None when there is no rolling history, or its rows depend on the day."""
        relations = {op.inputs[1] for op in pipeline if isinstance(op, RollingAggregate)}
        if len(relations) != 1:
            return None
        relation = relations.pop()
        operators = pipeline.upstream(relation)
        path = main_path(pipeline, relation)
        windows = [op for op in operators if isinstance(op, Scan) and op.time_range is TimeRange.WINDOW]
        if windows != path[:1] or windows[0].lookback_seconds > _LONGEST_SECONDS:
            return None
        if not all(_is_row_wise(operator) for operator in path):
            return None
        same: list[str] = []
        for operator in reversed(path[:-1]):
            same.append(operator.output)
            if isinstance(operator, Filter):
                break
        inside = {operator.output for operator in operators}
        read = {name for op in pipeline if op.output not in inside for name in op.inputs}
        outside = [op.output for op in operators if op.output in read and op.output != relation]
        on_path = {operator.output for operator in path}
        if any(name in on_path and name not in same for name in outside):
            return None
        return cls(relation, operators, tuple(same), tuple(name for name in outside if name not in same))


def main_path(pipeline: OperatorPipeline, relation: str) -> list[AnyOperator]:
    """The operators that each row of a relation passes through, first inputs only, in order."""
    path = [pipeline.producer(relation)]
    while path[0].inputs and not isinstance(path[0], Scan):
        path.insert(0, pipeline.producer(path[0].inputs[0]))
    return path


def _is_row_wise(operator: AnyOperator) -> bool:
    match operator:
        case Scan():
            return operator.ordered and operator.keep is None and not operator.restrict
        case Filter():
            return not operator.counts and not operator.target_day
        case Join():
            return operator.how == "left"
        case PointInTimeJoin():
            return not operator.specs
        case Project():
            return operator.extend
    return False


class NotExactError(Exception):
    """A column's type does not survive the file format: this history cannot be kept on disk."""


class HistoryCache:
    """The history files of one service under one output root.

    Args:
        context: any day of the run.
        chain: how history is made.
    """

    def __init__(self, context: DayContext, chain: HistoryChain) -> None:
        self._context = context
        self.chain = chain
        self._folder = context.output_root / CACHE_FOLDER / context.pipeline.service
        self._identities: dict[dt.date, str] = {}

    def event_days(self, day: dt.date) -> list[dt.date]:
        """The event days that a target day's windows reach, ascending, the day itself last."""
        time_range = scan_range(_window_scan(self.chain), day)
        low = day_start_us(day) if time_range is None or time_range.low_us is None else time_range.low_us
        first = dt.date(1970, 1, 1) + dt.timedelta(days=low // 86_400_000_000)
        return [first + _ONE_DAY * index for index in range((day - first).days + 1)]

    def files(self, day: dt.date) -> list[Path]:
        """The history files of a target day, in time order; the missing ones are made first.

        Raises:
            NotExactError: a column's type does not survive the files.
        """
        days = self.event_days(day)
        for run in self.missing([day]):
            self.make(run)
        paths = [self.path(one) for one in days]
        for path in paths:
            with contextlib.suppress(OSError):  # gone, or another user's
                os.utime(path)
        return paths

    def missing(self, days: Iterable[dt.date]) -> list[list[dt.date]]:
        """The event days that target days reach and that have no file yet, adjacent ones together."""
        wanted = sorted({one for day in days for one in self.event_days(day)})
        return _runs([one for one in wanted if not is_whole(self.path(one))])

    def path(self, day: dt.date) -> Path:
        """Where one event day's rows are kept, named after what they are made from."""
        if day not in self._identities:
            self._identities[day] = self._identity(day)
        return self._folder / f"history-{day.isoformat()}-{self._identities[day]}.parquet"

    def sweep(self, used: Iterable[dt.date]) -> None:
        """Remove files that no target day of `used` reads and no other run has read for a day.

        And what killed runs had not finished.
        """
        sweep(self._folder, PARTS)
        wanted = {self.path(one).name for day in used for one in self.event_days(day)}
        for path in self._folder.glob("history-*"):
            with contextlib.suppress(OSError):
                if path.name not in wanted and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()

    def _identity(self, day: dt.date) -> str:
        context, sources = self._context, {}
        scans = [operator for operator in self.chain.operators if isinstance(operator, Scan)]
        for scan in scans:
            if not is_run_relation(scan.source_ref):
                of_day = dataclasses.replace(scan, lookback_seconds=0.0)
                sources[scan.name] = context.sources.exact_identity(scan.source_ref, scan_range(of_day, day))
            else:
                sources[scan.name] = context.sources.run_identity(scan.source_ref)
        views = {scan.source_ref for scan in scans if not is_run_relation(scan.source_ref)}
        made_from = {
            "written as": _WRITTEN_AS,
            "pipeline": self._pipeline_text,
            "views": {name: repr(context.catalog.view(name)) for name in sorted(views)},
            "sources": sources,
            "ticks": context.ticks_per_second,
        }
        return xxhash.xxh3_64(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def _pipeline_text(self) -> str:
        """What makes the rows, whichever day's they are; YAML of it would take longer than a small day."""
        pipeline = self._pipeline(0.0)
        functions = code_digests(named_functions(pipeline))
        return repr((pipeline.service, pipeline.version, pipeline.operators, functions))

    def _pipeline(self, lookback_seconds: float) -> OperatorPipeline:
        operators = tuple(
            dataclasses.replace(operator, lookback_seconds=lookback_seconds)
            if isinstance(operator, Scan) and operator.time_range is TimeRange.WINDOW
            else operator
            for operator in self.chain.operators
        )
        pipeline = self._context.pipeline
        return OperatorPipeline(service=pipeline.service, version=pipeline.version, operators=operators)

    def make(self, days: Sequence[dt.date]) -> None:
        """Compute adjacent event days, as many in one go as are small together, and write each to its file.

        Raises:
            NotExactError: a column's type does not survive the files.
            ExecutionError: the folder cannot be written.
        """
        try:
            with scratch_folder(self._folder, PARTS) as parts:
                self._make(days, parts)
        except OSError as error:
            if error.errno is None:  # a backend's, told of by Arrow
                raise
            raise ExecutionError(
                f"the history of earlier days cannot be kept: {error.strerror or error}",
                where=str(self._folder),
                hint="Free space or fix the permissions; the folder is a cache and may be removed",
            ) from error

    def _make(self, days: Sequence[dt.date], parts: Path) -> None:
        with duckdb_session(self._context.config.duckdb_settings()) as connection:
            rest = days[self._make_in_arrow(days, parts, connection) :]
            for together in self._portions(rest, connection) if rest else ():
                relations = DayRelations(self._context_of(together), connection)
                for operator in relations.context.pipeline:
                    relations.add(operator)
                # Named after the sources as the run saw them: they must not have changed on the way here.
                self._context.sources.verify_unchanged()
                for day in together:
                    self._write_sql(day, relations, parts)
        give_back_memory()

    def _make_in_arrow(
        self, days: Sequence[dt.date], parts: Path, connection: duckdb.DuckDBPyConnection
    ) -> int:
        """Make files without SQL; returns for how many of the days that could be done."""
        context = self._context_of(days)
        memory = bytes_of(connection, "memory_limit")
        held = HeldHistory(context, main_path(context.pipeline, self.chain.relation), connection, memory)
        if not held.fits():
            return 0
        rows = held.source_rows() // len(days) + 1
        size, pieces = max(1, _ROWS_AT_ONCE // rows), -(-rows // _MOST_ROWS)
        finished: list[dt.date] = []

        def finish(day: dt.date, part: Path) -> None:
            self._require_exact(part, held.types[self.chain.relation], held.graph)
            # Named after the sources as the run saw them: they must not have changed on the way here.
            self._context.sources.verify_unchanged()
            self._finish(day, part)
            finished.append(day)

        portions = [days[start : start + size] for start in range(0, len(days), size)]
        work = [piece for together in portions for piece in _pieces(together, pieces)]
        threads = min(self._threads(), len(work))
        files = DayFiles(parts, finish, threads)
        with contextlib.suppress(TooManyRowsError, NotExactError), files:
            for made in self._side_by_side(work, threads, held, connection):
                for day, table in made:
                    files.add(day, table, _before(day), self._profiled(table.num_rows))
        return len(finished)

    def _threads(self) -> int:
        """How many pieces are made at a time."""
        own = int(self._context.config.duckdb_settings().get("threads") or os.cpu_count() or 1)
        return 1 if self._context.profile.on else min(own, _MOST_THREADS)

    @staticmethod
    def _side_by_side(
        work: Sequence[_Piece], threads: int, held: HeldHistory, connection: duckdb.DuckDBPyConnection
    ) -> Iterator[list[tuple[dt.date, pa.Table]]]:
        """The rows of each piece, in order, made in so many threads."""
        if threads == 1:
            for piece in work:
                yield piece.rows(held)
            return
        with contextlib.ExitStack() as stack:
            # What DuckDB is told here, it is told for all connections: no thread may change it under another.
            stack.enter_context(fewer_threads(connection, 1))
            stack.enter_context(held.graph.in_order())
            idle: queue.SimpleQueue[HeldHistory] = queue.SimpleQueue()
            for _ in range(threads):
                idle.put(held.beside(stack.enter_context(connection_beside(connection))))

            def rows_of(piece: _Piece) -> list[tuple[dt.date, pa.Table]]:
                mine = idle.get()
                try:
                    return piece.rows(mine)
                finally:
                    idle.put(mine)

            pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="daedalus-history"))
            begun = deque(pool.submit(rows_of, piece) for piece in work[:threads])
            rest = iter(work[threads:])
            while begun:
                made = begun.popleft().result()
                begun.extend(pool.submit(rows_of, piece) for piece in itertools.islice(rest, 1))
                yield made

    def _profiled(self, rows: int) -> contextlib.AbstractContextManager[None]:
        return self._context.profile.timed(self.chain.relation, "write cache", rows)

    def _context_of(self, days: Sequence[dt.date]) -> DayContext:
        """Adjacent event days as if they were one."""
        lookback = float((days[-1] - days[0]).days * 86_400)
        return dataclasses.replace(self._context, pipeline=self._pipeline(lookback), day=days[-1])

    def _portions(
        self, days: Sequence[dt.date], connection: duckdb.DuckDBPyConnection
    ) -> list[Sequence[dt.date]]:
        """The days in portions of few rows, or of one day."""
        relations = DayRelations(self._context_of(days), connection)
        rows = relations.source_rows(_window_scan(self.chain))
        size = max(1, len(days) * _ROWS_AT_ONCE // max(rows, 1))
        return [days[start : start + size] for start in range(0, len(days), size)]

    def _write_sql(self, day: dt.date, relations: DayRelations, parts: Path) -> None:
        tick = dataclasses.replace(self._context, day=day).tick
        rows = (
            f"SELECT * REPLACE ({ROW} + {_before(day)} AS {ROW}) "
            f"FROM ({relations.graph.sql(self.chain.relation)}) "
            f"WHERE {TICK} >= {tick.day_start} AND {TICK} < {tick.day_end} ORDER BY {ROW}"
        )
        types = relations.graph.types(self.chain.relation)
        part = parts / day.isoformat()
        # In a dictionary of DuckDB's, -0.0 and 0.0 are one value.
        plain = ", DICTIONARY_SIZE_LIMIT 1" if any(_FLOAT.search(dtype) for dtype in types.values()) else ""
        relations.graph.execute(
            f"COPY ({rows}) TO {quote_literal(str(part))} (FORMAT parquet, COMPRESSION lz4_raw{plain})",
            self.chain.relation,
        )
        self._require_exact(part, types, relations.graph)
        self._finish(day, part)

    def _finish(self, day: dt.date, part: Path) -> None:
        flushed(part).replace(self.path(day))

    def _require_exact(self, part: Path, types: dict[str, str], graph: RelationGraph) -> None:
        """Refuse a file that gives other types than the history has."""
        written = graph.rows(f"DESCRIBE SELECT * FROM {files_sql([part])}", self.chain.relation)
        if {row[0]: row[1] for row in written} != types:
            raise NotExactError


def _before(day: dt.date) -> int:
    """The `__row` before the first of a day."""
    return (day - dt.date(1970, 1, 1)).days * ROWS_PER_DAY


def _window_scan(chain: HistoryChain) -> Scan:
    return next(op for op in chain.operators if isinstance(op, Scan) and op.time_range is TimeRange.WINDOW)


def _runs(days: list[dt.date]) -> list[list[dt.date]]:
    """Adjacent days together."""
    runs: list[list[dt.date]] = []
    for day in days:
        if runs and runs[-1][-1] + _ONE_DAY == day:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """Days that are made together, or a part of the time of one."""

    days: tuple[dt.date, ...]
    low_us: int
    high_us: int

    def rows(self, held: HeldHistory) -> list[tuple[dt.date, pa.Table]]:
        """Each day's rows of this time."""
        table = held.rows(TickRange(low_us=self.low_us, high_us=self.high_us))
        if len(self.days) == 1:
            return [(self.days[0], table)]
        ticks = table[TICK].to_numpy()
        bounds = ((day, np.searchsorted(ticks, held.bounds(day))) for day in self.days)
        return [(day, table.slice(first, last - first)) for day, (first, last) in bounds]


def _pieces(days: Sequence[dt.date], parts: int) -> list[_Piece]:
    """Small days as one piece; a single one in parts of its time."""
    low, high = day_start_us(days[0]), day_start_us(days[-1] + _ONE_DAY)
    parts = parts if len(days) == 1 else 1
    bounds = [low + (high - low) * part // parts for part in range(parts + 1)]
    return [_Piece(tuple(days), one, two) for one, two in itertools.pairwise(bounds)]
