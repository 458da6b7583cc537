"""Runs a pipeline: skeleton days, then enrichment, resuming what is up to date.

result = run_pipeline(ExecutionRequest(pipeline=pipeline, run_config=config))
result.output_path    # the final stage's folder
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from typing import TYPE_CHECKING

from daedalus.errors import CompileError, ExecutionError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.days.arrow_udfs import resolve_arrow_udf
from daedalus.pipelines.days.memory import keep_freed_memory
from daedalus.pipelines.enrich.plan import configured_stores, plan_enrichment
from daedalus.pipelines.enrich.runtime import RayEnvelope, ray_session
from daedalus.pipelines.execution import DayResult, ExecutionRequest, ExecutionResult, RunProgress
from daedalus.pipelines.notices import pipeline_notices
from daedalus.pipelines.operators import ArrowUdfTransform, RayUdfTransform, Sink, SinkFormat
from daedalus.pipelines.pipeline_checks import check_pipeline, check_scans
from daedalus.pipelines.profiling import write_profile
from daedalus.pipelines.run_sources import RunSources
from daedalus.pipelines.skeleton_run import SkeletonRun

if TYPE_CHECKING:
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.profiling import Measure
    from daedalus.pipelines.settings import TrainingRunConfig

__all__ = [
    "DayResult",
    "ExecutionRequest",
    "ExecutionResult",
    "RayEnvelope",
    "RunProgress",
    "run_pipeline",
]


def run_pipeline(request: ExecutionRequest) -> ExecutionResult:
    """Run the stages of a pipeline over its days.

    Raises:
        CompileError: the pipeline does not stand.
        ExecutionError: a day failed; names it and the operator. Finished days are kept, no day is there in part.
    """
    check_pipeline(request.pipeline)
    for operator in request.pipeline:
        if isinstance(operator, ArrowUdfTransform):
            resolve_arrow_udf(operator.function, f"operator {operator.name}")
    catalog = request.catalog or _project_catalog(request.run_config)
    check_scans(request.pipeline, catalog)
    transforms = [op for op in request.pipeline if isinstance(op, RayUdfTransform)]
    if request.stages == "enrich" and not transforms:
        raise CompileError(
            "it has no enrichment operator, so there is nothing to enrich",
            where=f"pipeline {request.pipeline.service}",
            hint="Run it without --enrich-only",
        )
    with contextlib.ExitStack() as session:
        return _run_stages(request, catalog, transforms, session)


def _run_stages(
    request: ExecutionRequest,
    catalog: FeatureCatalog,
    transforms: list[RayUdfTransform],
    session: contextlib.ExitStack,
) -> ExecutionResult:
    """The stages one after the other; a Ray session, once started, lives as long as `session`."""
    root = request.run_config.output_path / request.pipeline.service
    skeleton, enriched = DayStore(root / "skeleton"), DayStore(root / "enriched")
    notices = [*request.run_config.notices, *pipeline_notices(request.pipeline, catalog, request.run_config)]
    if transforms and request.stages == "all":
        # A store or UDF that is not there is said now, not when the skeleton has been made.
        plan_enrichment(transforms, configured_stores(transforms, request.run_config))
    days: list[DayResult] = []
    measures: list[Measure] = []
    target_days: list[dt.date] = list(request.target_dates)
    if request.stages != "enrich":
        keep_freed_memory()
        sources = RunSources(catalog, request.run_config, request.pins)
        session.callback(sources.close)
        run = SkeletonRun(
            request,
            catalog,
            sources,
            skeleton,
            connect=lambda: session.enter_context(ray_session(_envelope(request))),
            notify=notices.append,
        )
        try:
            target_days = run.target_days()
            days += run.run(target_days)
        except ExecutionError as error:
            run.name_broken_file(error)
            raise
        measures += run.measures
        if not request.target_dates:
            notices += _left_over(skeleton, target_days, request.run_config)
    if transforms and request.stages != "skeleton":
        filled, taken = _enrich(
            request, transforms, (skeleton, enriched), target_days or skeleton.days(), notices
        )
        days += filled
        measures += taken
    final = enriched if transforms and request.stages != "skeleton" else skeleton
    if transforms and final is skeleton:
        notices += _waits_for_enrichment(request.pipeline)
    else:
        stage = "enrich" if final is enriched else "skeleton"
        days += _publish(request, final, [day.day for day in days if day.stage == stage])
    return ExecutionResult(
        service=request.pipeline.service,
        output_path=final.root,
        days=tuple(days),
        notices=tuple(notices),
        profile=write_profile(root, measures, request.run_id) if request.profile else None,
    )


def _envelope(request: ExecutionRequest) -> RayEnvelope:
    """What the run's Ray session and its enrichment may take."""
    return (request.envelope or RayEnvelope()).configured(request.run_config)


def _waits_for_enrichment(pipeline: OperatorPipeline) -> list[str]:
    """A table takes finished days alone."""
    sink = pipeline.operators[-1]
    if not isinstance(sink, Sink) or sink.format is SinkFormat.PARQUET:
        return []
    return [f"the {sink.format} sink takes enriched days: nothing was written to it"]


def _publish(request: ExecutionRequest, store: DayStore, days: list[str]) -> list[DayResult]:
    """Copy the finished days to where the sink says, unless their Parquet folders are all it asks for."""
    sink = request.pipeline.operators[-1]
    if not isinstance(sink, Sink) or sink.format is SinkFormat.PARQUET:
        return []
    from daedalus.pipelines.publish import STAGE, publish_days

    def tell(day: str, message: str, done: int, total: int) -> None:
        if request.progress is not None:
            request.progress(RunProgress(stage=STAGE, day=day, message=message, done=done, total=total))

    return publish_days(
        sink,
        request.pipeline.service,
        store,
        [dt.date.fromisoformat(day) for day in days],
        request.run_config,
        run_id=request.run_id or uuid.uuid4().hex[:12],
        tell=tell,
    )


def _project_catalog(config: TrainingRunConfig) -> FeatureCatalog:
    from daedalus.catalog.registry import FeatureCatalog

    return FeatureCatalog.from_yaml_dir(
        config.project_root / "feature_views",
        constants=dict(config.constants),
        rolling={spec.name: "" for spec in config.aggregation_specs},
    )


def _left_over(store: DayStore, days: list[dt.date], config: TrainingRunConfig) -> list[str]:
    """Days of these months that were written once and have no events any more."""
    gone = [day.isoformat() for day in store.days() if config.holds_day(day) and day not in days]
    if not gone:
        return []
    return [
        f"the source has no events any more for {', '.join(gone)}, still in {store.root}: remove them by hand"
    ]


def _enrich(
    request: ExecutionRequest,
    transforms: list[RayUdfTransform],
    stores: tuple[DayStore, DayStore],
    days: list[dt.date],
    notices: list[str],
) -> tuple[list[DayResult], tuple[Measure, ...]]:
    """Fill the embedding columns: reads the first of `stores`, writes the second; the days and what they took."""
    from daedalus.pipelines.dynamic_feature import EnrichProgress, run_enrich_stage

    config = request.run_config
    skeleton, enriched = stores
    missing = [day.isoformat() for day in days if skeleton.manifest(day) is None]
    if missing or not days:
        raise ExecutionError(
            f"no skeleton to enrich for {', '.join(missing) or 'any day'}",
            where=str(skeleton.root),
            hint="Run without --enrich-only first",
        )

    def tell(progress: EnrichProgress) -> None:
        if request.progress is not None:
            request.progress(
                RunProgress(
                    stage="enrich",
                    day=progress.day,
                    message="enriching",
                    done=progress.rows_done,
                    total=progress.rows_total,
                )
            )

    result = run_enrich_stage(
        skeleton=skeleton,
        output=enriched,
        days=days,
        operators=transforms,
        stores=configured_stores(transforms, config),
        runtime=config.enrich_runtime,
        envelope=_envelope(request),
        profile=request.profile,
        progress=tell,
        notify=notices.append,
    )
    days_made = [
        DayResult(
            day=day.day.isoformat(),
            stage="enrich",
            state="written" if day.written else "up to date",
            rows=day.rows,
            content_hash=day.content_hash,
            reason=day.reason,
        )
        for day in result.days
    ]
    return days_made, result.measures
