"""How many of DuckDB's threads a statement can keep busy: one without rows to work on waits awake."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from daedalus.pipelines.days.lookup_plan import LookupPlan
from daedalus.pipelines.days.shape import main_chain
from daedalus.pipelines.operators import Scan, TimeRange
from daedalus.pipelines.run_sources import is_run_relation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.pipelines.days.context import DayContext
    from daedalus.storage.sources.parquet import ParquetSnapshot

#: With fewer rows, a second thread mostly waits.
_ROWS_PER_WORKER = 2_000_000


def workers_for(context: DayContext, scans: Iterable[Scan], most: int) -> int:
    """How many of `most` a statement over one of these scans, or over all of them, can keep busy."""
    rows = rows_in_files(context, scans)
    return most if rows is None else min(most, 1 + rows // _ROWS_PER_WORKER)


def workers_for_day(context: DayContext, most: int) -> int:
    """How many a day needs: all of them where DuckDB itself does the lookups."""
    if LookupPlan.of(context.pipeline, context.catalog) is None:
        return most
    return workers_for(context, [spine_of_day(context)], most)


def spine_of_day(context: DayContext) -> Scan:
    """The scan of the rows of the day alone, without the window before it."""
    spine = cast("Scan", main_chain(context.pipeline)[0])
    return replace(spine, time_range=TimeRange.WINDOW, lookback_seconds=0.0)


def rows_in_files(context: DayContext, scans: Iterable[Scan]) -> int | None:
    """At most so many rows the scans read; None where they are not all of local files."""
    rows = 0
    for scan in scans:
        if is_run_relation(scan.source_ref) or not context.sources.is_local(scan.source_ref):
            return None
        snapshot = cast("ParquetSnapshot", context.sources.source(scan.source_ref).snapshot())
        rows += snapshot.rows(context.time_range(scan))
    return rows
