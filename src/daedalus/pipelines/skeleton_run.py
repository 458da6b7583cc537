"""The skeleton days of one run: which there are, which are stale and why, and running those."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

from daedalus.errors import CompileError, ExecutionError, SourceError
from daedalus.pipelines.days.context import DAY_US, DayContext, day_start_us
from daedalus.pipelines.days.history_cache import HistoryCache, HistoryChain
from daedalus.pipelines.days.past_cache import sweep_past
from daedalus.pipelines.days.qid import number_sessions
from daedalus.pipelines.days.relation_graph import as_execution_error, may_be_corrupt
from daedalus.pipelines.days.scheduling import InThisProcess, Processes
from daedalus.pipelines.days.sessions import session_tables
from daedalus.pipelines.days.shape import main_chain, output_operator
from daedalus.pipelines.days.work import DayWork, SharedWork, shared_history
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.execution import DayResult, RunProgress
from daedalus.pipelines.fingerprints import fingerprint_of, why_fresh, why_stale
from daedalus.pipelines.function_code import code_digests, named_functions
from daedalus.pipelines.operators import RayUdfTransform, Scan, Sink, SinkFormat
from daedalus.pipelines.pipeline_files import pipeline_to_yaml
from daedalus.pipelines.profiling import NO_PROFILE, DayProfile
from daedalus.pipelines.run_relations import is_run_relation
from daedalus.pipelines.run_sources import (
    feed_range,
    own_ticks_per_second,
    scanned_views,
    ticks_per_second,
    views_behind,
)
from daedalus.pipelines.source_times import no_events, source_times
from daedalus.storage.sources.base import TickRange
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.metadata.days import DayManifest, DayStore
    from daedalus.pipelines.days.scheduling import Workers
    from daedalus.pipelines.execution import ExecutionRequest
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.profiling import Measure
    from daedalus.pipelines.run_sources import RunSources
    from daedalus.pipelines.settings import TrainingRunConfig


class SkeletonRun:
    """The skeleton stage of one run.

    Args:
        request: what to run.
        catalog: the definitions.
        sources: snapshotted once, for the whole run.
        store: where the days go.
        connect: starts the run's Ray session, or joins the one there is.
        notify: told in one line what the user should know.

    Attributes:
        measures: what the days took; empty unless the request asks for a profile.
    """

    def __init__(
        self,
        request: ExecutionRequest,
        catalog: FeatureCatalog,
        sources: RunSources,
        store: DayStore,
        *,
        connect: Callable[[], None],
        notify: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._notify = notify
        self.measures: list[Measure] = []
        self._request = request
        self._catalog = catalog
        self._sources = sources
        self._store = store
        self._pipeline = request.pipeline
        self._spine = _spine_scan(request.pipeline)

    # ------------------------------------------------------------------ days

    def target_days(self) -> list[dt.date]:
        """The days to make, ascending: those asked for, else every day of the months that has events."""
        wanted = sorted(set(self._request.target_dates))
        config = self._request.run_config
        for day in wanted:
            config.require_day(day)
        found = self._days_with_events(wanted)
        absent = [day.isoformat() for day in wanted if day not in found]
        if absent:
            raise self._no_events(f"there are no events on {', '.join(absent)}")
        if not found:
            raise self._no_events(
                f"there are no events from {config.feed_start} to {config.feed_end}",
                "Set feed_start and feed_end in config/training/runtime.yaml to months with data",
            )
        for name in scanned_views(self._pipeline):
            times = source_times(self._catalog.view(name), self._sources.source(name))
            if times is not None and times.doubt:
                self._notify(f"view {name}: {times.doubt}. {times.mend}")
        return sorted(found)

    def _no_events(self, what: str, otherwise: str = "") -> ExecutionError:
        view = self._catalog.view(self._spine.source_ref)
        return no_events(what, view, source_times(view, self._sources.source(view.name)), otherwise=otherwise)

    def name_broken_file(self, error: ExecutionError) -> None:
        """Say in an error which file cannot be read, where its reader did not."""
        if may_be_corrupt(error):
            views = views_behind(self._pipeline, error.operator)
            error.where = self._sources.broken_file(views)
            error.hint = "The file is corrupt: restore or remove it, then run again" if error.where else ""

    def _days_with_events(self, wanted: list[dt.date]) -> set[dt.date]:
        import duckdb

        ticks = ticks_per_second(self._pipeline, self._catalog)
        with duckdb_session(self._request.run_config.duckdb_settings()) as connection:
            view = self._catalog.view(self._spine.source_ref)
            range_ = feed_range(self._request.run_config, view)
            if wanted:
                last = day_start_us(wanted[-1]) + DAY_US
                range_ = TickRange(low_us=day_start_us(wanted[0]), high_us=last)
            source = self._sources.source(view.name)
            source.setup(connection)
            rows = ViewReader(view, source, connection, ticks).select_sql((), range_)
            per_day = 86_400 * ticks
            # Floor division in integers (a double is too coarse for nanoseconds); days before 1970 are days, too.
            day = f"__t // {per_day} - CAST(__t % {per_day} < 0 AS BIGINT)"
            try:
                found = connection.execute(f"SELECT DISTINCT {day} FROM ({rows})").fetchall()
            except duckdb.Error as error:
                failed = as_execution_error(error, self._spine.name)
                if isinstance(failed, SourceError):
                    self._sources.blame(failed, [view.name])
                raise failed from None
        days = {dt.date(1970, 1, 1) + dt.timedelta(days=row[0]) for row in found}
        return days & set(wanted) if wanted else days

    # ------------------------------------------------------------------ what is stale

    def run(self, days: list[dt.date]) -> list[DayResult]:
        """Bring the days up to date; returns one result per day, ascending."""
        results: dict[dt.date, DayResult] = {}
        stale: list[DayWork] = []
        for day in days:
            self._store.mend(day)
            fingerprint = self.fingerprint(day)
            manifest = self._store.manifest(day)
            reason = why_stale(manifest, fingerprint, refresh=self._request.refresh)
            if reason:
                stale.append(DayWork(day=day, fingerprint=fingerprint, reason=reason))
            elif manifest is not None:
                results[day] = DayResult(
                    day=day.isoformat(),
                    stage="skeleton",
                    state="up to date",
                    rows=manifest.row_count,
                    content_hash=manifest.content_hash,
                    reason=why_fresh(fingerprint, refresh=self._request.refresh),
                )
        for one, manifest, seconds in self._computed(stale):
            results[one.day] = DayResult(
                day=one.day.isoformat(),
                stage="skeleton",
                state="written",
                rows=manifest.row_count,
                content_hash=manifest.content_hash,
                reason=one.reason,
                seconds=round(seconds, 3),
            )
        chain = HistoryChain.of(self._pipeline)
        if chain is not None and stale:
            HistoryCache(self._context(days[0]), chain).sweep(days)
        if stale:
            sweep_past(self._context(days[0]), days)
        return [results[day] for day in days]

    @functools.cached_property
    def _pipeline_text(self) -> str:
        return pipeline_to_yaml(_rows_alone(self._pipeline))

    def fingerprint(self, day: dt.date) -> dict[str, Any]:
        """What the day is made from, as plain data."""
        return fingerprint_of(
            self._pipeline,
            self._catalog,
            self._sources,
            day,
            text=self._pipeline_text,
            functions=self._functions,
        )

    @functools.cached_property
    def _functions(self) -> dict[str, str]:
        return code_digests(named_functions(_rows_alone(self._pipeline)))

    # ------------------------------------------------------------------ running

    def _context(self, day: dt.date) -> DayContext:
        return day_context(self._pipeline, self._catalog, self._request.run_config, self._sources, day)

    def _number_sessions(self, days: list[dt.date]) -> None:
        sink = self._pipeline.operators[-1]
        if not isinstance(sink, Sink) or not sink.session_column:
            return
        profile = DayProfile("skeleton", "") if self._request.profile else NO_PROFILE
        context = dataclasses.replace(self._context(days[0]), profile=profile)
        with profile.total(), profile.shared(sink.name, "number sessions"):
            number_sessions(self._request.run_config.output_path, session_tables(context, days))
        self.measures += profile.measures()

    def _computed(self, stale: list[DayWork]) -> Iterator[tuple[DayWork, DayManifest, float]]:
        """Each day with its seconds when it is written, in the order in which they are done."""
        if not stale:
            return
        found, count = self._workers(len(stale))
        shared = SharedWork(
            context=self._context(stale[0].day), root=self._store.root, profiled=self._request.profile
        )
        finished = 0

        def report(index: int, message: str) -> None:
            self._tell(stale[index].day, message, finished, len(stale))

        with contextlib.closing(found) as workers:
            self._make_history(workers, shared, stale, count)
            self._number_sessions([one.day for one in stale])
            with contextlib.closing(workers.each(shared, stale, report)) as outcomes:
                for index, done in outcomes:
                    finished += 1
                    self.measures += done.measures
                    report(index, "written")
                    if done.manifest is not None:
                        yield stale[index], done.manifest, done.seconds

    def _make_history(self, workers: Workers, shared: SharedWork, stale: list[DayWork], count: int) -> None:
        """What days side by side share, before any of them: each would make it for itself."""
        history = shared_history(shared.context, [one.day for one in stale], count)

        def report(index: int, _message: str) -> None:
            self._tell(history[index].day, "making history", 0, len(stale))

        if history:
            with contextlib.closing(workers.each(shared, history, report)) as outcomes:
                for _, done in outcomes:
                    self.measures += done.measures

    def _workers(self, days: int) -> tuple[Workers, int]:
        """Who computes so many days, and how many at a time."""
        config = self._request.run_config
        if config.ray_address is None:
            count = min(config.day_workers or 1, days)
            return (Processes(count) if count > 1 else InThisProcess()), count
        self._connect()
        from daedalus.pipelines.days.on_ray import RayTasks

        if config.day_workers == 1 and days > 1:
            self._notify("day_workers is 1, so the cluster computes one day at a time")
        tasks = RayTasks(config.day_workers, self._notify)
        return tasks, min(tasks.places(config.duckdb_settings()), days)

    def _tell(self, day: dt.date, message: str, done: int, total: int) -> None:
        if self._request.progress is not None:
            self._request.progress(
                RunProgress(stage="skeleton", day=day.isoformat(), message=message, done=done, total=total)
            )


def day_context(
    pipeline: OperatorPipeline,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    sources: RunSources,
    day: dt.date,
) -> DayContext:
    """What the operators of `day` need to know."""
    return DayContext(
        pipeline=pipeline,
        catalog=catalog,
        config=config,
        sources=sources,
        day=day,
        ticks_per_second=ticks_per_second(pipeline, catalog),
        spine_ticks=own_ticks_per_second(catalog.view(_spine_scan(pipeline).source_ref)),
        output_root=config.output_path,
    )


def _spine_scan(pipeline: OperatorPipeline) -> Scan:
    first = main_chain(pipeline)[0]
    if not isinstance(first, Scan) or is_run_relation(first.source_ref):
        raise CompileError(
            "the rows do not begin with the scan of a view",
            where=f"pipeline {pipeline.service}, operator {first.name}",
            hint="The first input of each operator leads back to the spine's scan",
        )
    return first


def _rows_alone(pipeline: OperatorPipeline) -> OperatorPipeline:
    """The pipeline as far as it decides what skeleton rows hold: without enrichment, and without the sink's place."""
    *before, sink = pipeline.operators
    if not isinstance(sink, Sink):
        return pipeline
    made = tuple(operator for operator in before if not isinstance(operator, RayUdfTransform))
    anywhere = dataclasses.replace(
        sink, inputs=(output_operator(pipeline).output,), format=SinkFormat.PARQUET, path="", data_path=""
    )
    return dataclasses.replace(pipeline, operators=(*made, anywhere))
