"""Copies of what a day is made from, so that it can be changed and run again; the sources stay untouched.

A copy holds a view's canonical columns as one Parquet file, and beside them `ROW_ID`, the row's position in the
view's total order, and `INSTANT`, its time in ticks.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from daedalus.catalog.model import DataSourceDef, FeatureViewDef, FieldDef
from daedalus.catalog.registry import FeatureCatalog
from daedalus.errors import ExecutionError, SourceError
from daedalus.pipelines.compiling.specs import reach_seconds
from daedalus.pipelines.days.context import DAY_US, day_start_us, scan_range
from daedalus.pipelines.days.relation_graph import as_execution_error
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import Scan, TimeRange
from daedalus.pipelines.run_sources import (
    RunSources,
    feed_range,
    scanned_views,
    view_ticks_per_second,
)
from daedalus.pipelines.source_times import no_events, source_times
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.sources.base import TickRange
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.pipelines.source_times import SourceTimes

ROW_ID = "daedalus_row"
INSTANT = "daedalus_t"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCopy:
    """A view's rows as a file.

    Attributes:
        view: the definition, reading the copy.
        columns: the canonical columns that the source has, in order.
        order: the columns of the view's total order.
    """

    view: FeatureViewDef
    file: Path
    columns: tuple[str, ...]
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCopies:
    """What one day is made from, copied.

    Attributes:
        spine: the spine view's name.
        views: every view that the pipeline or the service reads, by name.
        ticks: per second, of `INSTANT`.
        spine_times: when the spine's rows are, where its files say.
    """

    day: dt.date
    spine: str
    views: Mapping[str, ViewCopy]
    ticks: int
    catalog: FeatureCatalog
    spine_times: SourceTimes | None = None

    def no_events(self) -> ExecutionError:
        """The error that the day has none."""
        return no_events(
            f"there are no events on {self.day}", self.catalog.view(self.spine), self.spine_times
        )

    @property
    def day_range(self) -> tuple[int, int]:
        """The target day's first tick, and the first after it."""
        start = day_start_us(self.day) * self.ticks // 1_000_000
        return start, start + 86_400 * self.ticks

    def catalog_of(self, files: Mapping[str, Path] | None = None) -> FeatureCatalog:
        """The definitions over the copies; `files` takes the place of some."""
        replaced = files or {}
        views = [copied_view(copy.view, replaced.get(name, copy.file)) for name, copy in self.views.items()]
        others = [view for name, view in self.catalog.views.items() if name not in self.views]
        return FeatureCatalog(
            entities=self.catalog.entities, views=[*views, *others], services=self.catalog.services.values()
        )


def copied_view(view: FeatureViewDef, file: Path) -> FeatureViewDef:
    """The view, reading a Parquet file with its canonical names."""
    source = DataSourceDef(
        path=str(file),
        timestamp_field=view.source.timestamp_field,
        timestamp_unit=view.source.timestamp_unit,
        created_field=view.source.created_field,
        sequence_field=view.source.sequence_field,
    )
    return replace(view, source=source, field_mapping=())


def copy_sources(
    pipeline: OperatorPipeline,
    columns: ContractColumns,
    config: TrainingRunConfig,
    day: dt.date,
    folder: Path,
) -> DayCopies:
    """Copy what the day's run reads, and what the definitions say that it reads, below `folder`.

    Raises:
        SourceError: a source cannot be read or does not hold what its view declares.
    """
    catalog, spine = columns.catalog, columns.spine
    names = dict.fromkeys([spine.name, *scanned_views(pipeline), *_declared_views(columns)])
    ticks = max(view_ticks_per_second(catalog.view(name)) for name in names)
    folder.mkdir(parents=True, exist_ok=True)
    sources = RunSources(catalog, config)
    made: dict[str, ViewCopy] = {}
    try:
        for name in names:
            range_ = _spine_range(pipeline, columns, day) if name == spine.name else None
            file = folder / f"{len(made)}.parquet"
            made[name] = _copy(
                catalog.view(name), sources, config, ticks, file, range_=range_, is_spine=name == spine.name
            )
        times = source_times(spine, sources.source(spine.name))
    finally:
        sources.close()
    return DayCopies(day=day, spine=spine.name, views=made, ticks=ticks, catalog=catalog, spine_times=times)


def newest_day(columns: ContractColumns, config: TrainingRunConfig) -> dt.date:
    """The newest day of the configured months that has events.

    Raises:
        ExecutionError: there is none.
    """
    spine = columns.spine
    ticks = view_ticks_per_second(spine)
    found = _spine_bound("max", columns, config, ticks, feed_range(config, spine))
    if found is None:
        raise ExecutionError(
            f"there are no events from {config.feed_start} to {config.feed_end}", where=f"view {spine.name}"
        )
    return dt.date(1970, 1, 1) + dt.timedelta(days=found // (86_400 * ticks))


def first_instant(columns: ContractColumns, config: TrainingRunConfig, ticks: int) -> int | None:
    """The time of the spine's first row, in ticks; its whole source is asked."""
    return _spine_bound("min", columns, config, ticks, TickRange())


def _spine_bound(
    bound: str, columns: ContractColumns, config: TrainingRunConfig, ticks: int, range_: TickRange
) -> int | None:
    import duckdb

    spine = columns.spine
    sources = RunSources(columns.catalog, config)
    try:
        with duckdb_session(config.duckdb_settings()) as connection:
            source = sources.source(spine.name)
            source.setup(connection)
            rows = ViewReader(spine, source, connection, ticks).select_sql((), range_)
            found = connection.execute(f"SELECT {bound}(__t) FROM ({rows})").fetchone()
    except duckdb.Error as error:
        failed = as_execution_error(error, spine.name)
        if isinstance(failed, SourceError):
            sources.blame(failed, [spine.name])
        raise failed from None
    finally:
        sources.close()
    return None if found is None or found[0] is None else int(found[0])


def _declared_views(columns: ContractColumns) -> list[str]:
    aliases = {ref.view for ref in (*columns.needed, *columns.service.static_columns)}
    names = [join.view for join in columns.service.views if join.alias in aliases]
    names += [lookback.view for lookback in columns.lookbacks()]
    names += [spec.history_view for spec in columns.rolling_specs() if spec.history_view]
    return names


def _spine_range(pipeline: OperatorPipeline, columns: ContractColumns, day: dt.date) -> TickRange:
    """As far back as pipeline or definitions look, and a day beyond the target day."""
    spine = columns.spine.name
    scans = [scan for scan in pipeline if isinstance(scan, Scan) and scan.source_ref == spine]
    for spec in columns.rolling_specs():
        if spec.history_view is None:
            reach = reach_seconds(spec)
            span = TimeRange.PAST if reach is None else TimeRange.WINDOW
            scans.append(
                Scan(name=spec.name, source_ref=spine, time_range=span, lookback_seconds=reach or 0.0)
            )
    ranges = [scan_range(scan, day) for scan in scans]
    lows = [None if one is None else one.low_us for one in ranges]
    start = day_start_us(day)
    low = min((one for one in lows if one is not None), default=start) if None not in lows else None
    return TickRange(low_us=low, high_us=start + 2 * DAY_US)


def _copy(
    view: FeatureViewDef,
    sources: RunSources,
    config: TrainingRunConfig,
    ticks: int,
    file: Path,
    *,
    range_: TickRange | None,
    is_spine: bool,
) -> ViewCopy:
    import duckdb

    with duckdb_session(config.duckdb_settings()) as connection:
        source = sources.source(view.name)
        try:
            source.setup(connection)
            reader = ViewReader(view, source, connection, ticks)
            present = [name for name, column in reader.columns.items() if not column.absent]
            instant = "__t" if view.timestamp_field else "CAST(NULL AS BIGINT)"
            items = ", ".join(quote_ident(name) for name in present)
            connection.execute(
                f"COPY (SELECT {items}, {instant} AS {INSTANT}, "
                f"row_number() OVER (ORDER BY {reader.order_sql()}) AS {ROW_ID} "
                f"FROM ({reader.select_sql(present, range_)}) ORDER BY {ROW_ID}) "
                f"TO {quote_literal(str(file))} (FORMAT parquet)"
            )
        except duckdb.Error as error:
            failed = as_execution_error(error, view.name)
            if isinstance(failed, SourceError):
                sources.blame(failed, [view.name])
            raise failed from None
        copied = copied_view(view, file)
        if is_spine:
            fields = (*view.fields, FieldDef(name=ROW_ID, dtype="BIGINT"))
            copied = replace(copied, fields=fields)
        return ViewCopy(view=copied, file=file, columns=tuple(present), order=tuple(reader.order_by()))
