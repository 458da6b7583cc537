"""The rows of all time before a target day that a scan selects, kept on disk so that each is read once.

Specs without a window read everything that ever happened, of which their condition leaves little. The event days
up to the target day are covered by spans: as the binary digits of a number do, each span begins where the one
before it ends, is the longest that lies on a multiple of its own length, and so hardly any change from one day to
the next. Each span is a file, named after what it was made from; one that is missing is put together from those
inside it, and only the rest is read from the source. A file that changed, or late rows, make the few spans anew
that they lie in. The cache is disposable: deleting it costs time only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import re
import time
from typing import TYPE_CHECKING

import xxhash
from filelock import FileLock

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.days.context import day_start_us
from daedalus.pipelines.days.history_cache import (
    CACHE_FOLDER,
    ROWS_PER_DAY,
    NotExactError,
)
from daedalus.pipelines.days.history_files import files_sql, flushed, is_whole
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.operators import ROW, TICK, Scan, TimeRange
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.pipelines.scratch import scratch_folder, sweep
from daedalus.sql.identifiers import quote_literal
from daedalus.storage.sources.base import Counted, TickRange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import duckdb

    from daedalus.pipelines.days.context import DayContext

#: Fewer rows are read again sooner than files for them are looked after. Tests set it.
FEWEST_ROWS = 1_000_000
#: Of the folders in which files are begun.
PAST_PARTS = ".past-parts-"
_LOCK = ".past.lock"
_FLOAT = re.compile("FLOAT|DOUBLE")
_KEPT_SECONDS = 86_400
_EPOCH = dt.date(1970, 1, 1)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Span:
    """Adjacent event days, counted from 1970: `length` is a power of two and `first` a multiple of it."""

    first: int
    length: int

    @property
    def time_range(self) -> TickRange:
        """The span's instants; all before 1970 belong to the span that begins there."""
        first = _EPOCH + dt.timedelta(days=self.first)
        end = first + dt.timedelta(days=self.length)
        low = day_start_us(first) if self.first else None
        return TickRange(low_us=low, high_us=day_start_us(end))

    @property
    def halves(self) -> tuple[Span, Span]:
        """The two spans that it consists of."""
        half = self.length // 2
        return Span(self.first, half), Span(self.first + half, half)


def spans_until(days: int) -> list[Span]:
    """The spans that cover the first `days` event days, ascending.

    >>> [(span.first, span.length) for span in spans_until(13)]
    [(0, 8), (8, 4), (12, 1)]
    """
    spans, first = [], 0
    for place in reversed(range(days.bit_length())):
        if days & 1 << place:
            spans.append(Span(first, 1 << place))
            first += 1 << place
    return spans


def reads_all_past(context: DayContext, scan: Scan) -> bool:
    """Whether the scan's rows can be shared by days: those of a day are the earlier day's and what was added since.

    Without a predicate the files would be the source once more.
    """
    if scan.time_range is not TimeRange.PAST or is_run_relation(scan.source_ref) or not scan.predicate:
        return False
    if not scan.ordered or scan.keep is not None or scan.restrict or context.as_of is not None:
        return False
    if context.day <= _EPOCH or not context.catalog.view(scan.source_ref).timestamp_field:
        return False
    snapshot = context.sources.source(scan.source_ref).snapshot()
    return isinstance(snapshot, Counted) and snapshot.rows(context.time_range(scan)) >= FEWEST_ROWS


class PastCache:
    """The files of one scan under one output root.

    Args:
        context: any day of the run.
        scan: one that reads all the past.
    """

    def __init__(self, context: DayContext, scan: Scan) -> None:
        self._context = context
        self._scan = scan
        self._folder = context.output_root / CACHE_FOLDER / context.pipeline.service
        self._paths: dict[Span, Path] = {}
        self._tables: dict[Span, str] = {}

    def files(self, day: dt.date, connection: duckdb.DuckDBPyConnection) -> list[Path]:
        """The files of a target day, in time order; the missing ones are made first.

        Args:
            day: the target day.
            connection: its own; what is made here leaves no tables.

        Raises:
            NotExactError: a column's type does not survive the files.
            ExecutionError: the folder cannot be written.
        """
        spans = [span for span in self._spans(day) if not self._is_empty(span)]
        if not all(map(self._has, spans)):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Days side by side need the same ones: one makes them, the others wait.
            with FileLock(self._folder / _LOCK):
                self._make([span for span in spans if not self._has(span)], connection)
        return [self.path(span) for span in spans]

    def path(self, span: Span) -> Path:
        """Where a span's rows are kept, named after what they are made from."""
        if span not in self._paths:
            name = f"past-{span.first}-{span.length}-{self._identity(span)}.parquet"
            self._paths[span] = self._folder / name
        return self._paths[span]

    def sweep(self, days: Iterable[dt.date]) -> set[str]:
        """Remove what killed runs had not finished; the files that these target days read, without suffix."""
        sweep(self._folder, PAST_PARTS)
        return {self.path(span).stem for day in days for span in self._spans(day)}

    def _spans(self, day: dt.date) -> list[Span]:
        return spans_until((day - _EPOCH).days + 1)

    def _is_empty(self, span: Span) -> bool:
        """Whether the source surely has no rows there: the years before it began need no file."""
        snapshot = self._context.sources.source(self._scan.source_ref).snapshot()
        return isinstance(snapshot, Counted) and not snapshot.rows(span.time_range)

    def _identity(self, span: Span) -> str:
        context, scan = self._context, self._scan
        made_from = {
            "scan": repr(scan),
            "view": repr(context.catalog.view(scan.source_ref)),
            "source": context.sources.exact_identity(scan.source_ref, span.time_range),
            "ticks": context.ticks_per_second,
        }
        return xxhash.xxh3_64(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _pieces(self, span: Span) -> list[Span]:
        """Spans that make up a missing one: the longest that have files, and between them what has none."""
        if self._is_empty(span):
            return []
        if span.length == 1 or self._has(span):
            return [span]
        found = [piece for half in span.halves for piece in self._pieces(half)]
        return found if any(map(self._has, found)) else [span]

    def _has(self, span: Span) -> bool:
        """Whether the span's file is there, to be read: it is not swept for a while then."""
        if not is_whole(self.path(span)):
            return False
        with contextlib.suppress(OSError):  # another user's
            os.utime(self.path(span))
        return True

    def _make(self, spans: Sequence[Span], connection: duckdb.DuckDBPyConnection) -> None:
        relations = DayRelations(self._context, connection)
        try:
            with scratch_folder(self._folder, PAST_PARTS) as parts:
                self._read(relations, [one for span in spans for one in self._pieces(span)])
                for span in spans:
                    self._write(span, relations, parts)
        except OSError as error:
            if error.errno is None:  # a backend's, told of by Arrow
                raise
            raise ExecutionError(
                f"the past rows of {self._scan.name} cannot be kept: {error.strerror or error}",
                where=str(self._folder),
                hint="Free space or fix the permissions; the folder is a cache and may be removed",
            ) from error
        finally:
            with contextlib.suppress(DaedalusError):  # what went wrong before says more
                for name in set(self._tables.values()):
                    relations.graph.drop(name)
            self._tables.clear()

    def _read(self, relations: DayRelations, pieces: Iterable[Span]) -> None:
        """Keep what no file has as tables: spans that follow one another in one read."""
        for run in _runs([piece for piece in pieces if not self._has(piece)]):
            name = _table(run[0])
            within = TickRange(low_us=run[0].time_range.low_us, high_us=run[-1].time_range.high_us)
            rows = relations.numbered_rows(self._scan, within, run[0].first * ROWS_PER_DAY)
            relations.graph.execute(f"CREATE TABLE {name} AS {rows}", self._scan.output)
            self._tables |= dict.fromkeys(run, name)
        # Named after the sources as the run saw them: they must not have changed on the way here.
        self._context.sources.verify_unchanged()

    def _select(self, piece: Span) -> str:
        if piece not in self._tables:
            return f"SELECT * FROM {files_sql([self.path(piece)])}"
        bounds, scale = piece.time_range, self._context.ticks_per_second // 1_000_000
        low = "" if bounds.low_us is None else f" AND {TICK} >= {bounds.low_us * scale}"
        return f"SELECT * FROM {self._tables[piece]} WHERE {TICK} < {(bounds.high_us or 0) * scale}{low}"

    def _write(self, span: Span, relations: DayRelations, parts: Path) -> None:
        """One file, in order: of what other files have, and what was read."""
        graph, final, name = relations.graph, self.path(span), self._scan.output
        pieces = self._pieces(span)
        rows = " UNION ALL ".join(f"({self._select(piece)})" for piece in pieces)
        part = parts / final.name
        described = graph.rows(f"DESCRIBE {self._select(pieces[-1])}", name)
        # In a dictionary of DuckDB's, -0.0 and 0.0 are one value.
        plain = ", DICTIONARY_SIZE_LIMIT 1" if any(_FLOAT.search(row[1]) for row in described) else ""
        graph.execute(
            f"COPY (SELECT * FROM ({rows}) ORDER BY {ROW}) TO {quote_literal(str(part))} "
            f"(FORMAT parquet, COMPRESSION lz4_raw{plain})",
            name,
        )
        written = graph.rows(f"DESCRIBE SELECT * FROM {files_sql([part])}", name)
        if [row[:2] for row in written] != [row[:2] for row in described]:
            raise NotExactError
        flushed(part).replace(final)


def _runs(spans: Iterable[Span]) -> list[list[Span]]:
    """Spans that follow one another together."""
    runs: list[list[Span]] = []
    for span in spans:
        if runs and runs[-1][-1].first + runs[-1][-1].length == span.first:
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs


def _table(span: Span) -> str:
    return f"__past_{span.first}"


def past_files(context: DayContext, connection: duckdb.DuckDBPyConnection) -> dict[Scan, list[Path]]:
    """The scans of all the past whose rows files can hold, and these files, in time order.

    Args:
        context: the day.
        connection: its own.
    """
    found: dict[Scan, list[Path]] = {}
    for operator in context.pipeline:
        if isinstance(operator, Scan) and reads_all_past(context, operator):
            with contextlib.suppress(NotExactError):
                found[operator] = PastCache(context, operator).files(context.day, connection)
    return {scan: files for scan, files in found.items() if files}


def sweep_past(context: DayContext, days: Iterable[dt.date]) -> None:
    """Remove files of the service that none of these target days reads and no other run has read for a day."""
    days = tuple(days)
    used: set[str] = set()
    for operator in context.pipeline:
        if isinstance(operator, Scan) and reads_all_past(
            dataclasses.replace(context, day=days[-1]), operator
        ):
            used |= PastCache(context, operator).sweep(days)
    for path in (context.output_root / CACHE_FOLDER / context.pipeline.service).glob("past-*"):
        with contextlib.suppress(OSError):
            # What conditions picked lies beside its file, and begins as that does.
            if (
                "-".join(path.stem.split("-")[:4]) not in used
                and time.time() - path.stat().st_mtime > _KEPT_SECONDS
            ):
                path.unlink()
