"""The enrich stage: fill the skeleton's embedding columns, day by day.

    result = run_enrich_stage(
        skeleton=DayStore(root / "skeleton"), output=DayStore(root / "enriched"),
        days=days, operators=pipeline.by_kind("ray_udf_transform"), stores={"items": definition},
    )

A day is written by shards, each a contiguous range of its rows, and committed when the last one is there. All
shards of all stale days go through one pool of workers, whose indexes and vector caches they share.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from daedalus.errors import ExecutionError
from daedalus.pipelines.enrich.days import NULL_COUNTER, day_input, stale_day, stale_reason
from daedalus.pipelines.enrich.plan import plan_enrichment
from daedalus.pipelines.enrich.runtime import (
    Machine,
    RayEnvelope,
    ray_session,
    ray_workers,
    run_in_process,
    run_on_ray,
)
from daedalus.pipelines.profiling import summed

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from daedalus.metadata.days import DayManifest, DayStore
    from daedalus.pipelines.enrich.days import StaleDay
    from daedalus.pipelines.enrich.plan import EnrichOperator, EnrichPlan
    from daedalus.pipelines.enrich.shards import ShardReport, ShardTask
    from daedalus.pipelines.profiling import Measure
    from daedalus.storage.embedding_store import EmbeddingStoreDef

__all__ = ["EnrichProgress", "EnrichResult", "EnrichedDay", "RayEnvelope", "run_enrich_stage"]

Runtime = Literal["ray", "in_process"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichProgress:
    """How far the stage is: rows of the days that are being written, not of those that were up to date."""

    day: str
    rows_done: int
    rows_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichedDay:
    """One day after the stage.

    Attributes:
        reason: why it was written, or why not.
        written: False for a day that was up to date.
        nulls: rows that stayed NULL, per filled column.
    """

    day: dt.date
    path: Path
    rows: int
    content_hash: str
    written: bool
    reason: str
    nulls: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichResult:
    """What the stage did.

    Attributes:
        days: ascending.
        store_versions: per store the snapshot that every written day was made from.
        workers: actors, or 1 in this process; 0 when every day was up to date.
        measures: what the shards took, when that was asked for.
    """

    days: tuple[EnrichedDay, ...]
    store_versions: tuple[tuple[str, str], ...]
    workers: int
    measures: tuple[Measure, ...] = ()


def run_enrich_stage(
    *,
    skeleton: DayStore,
    output: DayStore,
    days: Sequence[dt.date],
    operators: Sequence[EnrichOperator],
    stores: Mapping[str, EmbeddingStoreDef],
    runtime: Runtime = "ray",
    envelope: RayEnvelope | None = None,
    refresh: bool = False,
    profile: bool = False,
    progress: Callable[[EnrichProgress], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> EnrichResult:
    """Write the enriched days of a run.

    Args:
        skeleton: the days to read.
        output: the days to write.
        days: target days; each must have a skeleton.
        operators: the pipeline's `RayUdfTransform` nodes.
        stores: configured stores by name; those the operators name are pinned to their newest version.
        runtime: `ray` or `in_process`; both write the same bytes.
        envelope: what the workers may take.
        refresh: write days that are up to date, too.
        profile: measure where the time goes.
        progress: told after each shard.
        notify: told in one line what the user should know.

    Returns: every day, also those that were up to date.

    Semantics: row order and all other columns are the skeleton's. A day whose skeleton, transforms and store
        versions are those it was made from is left alone; `EnrichedDay.reason` says what changed otherwise.

    Raises:
        DefinitionError: operators, stores and skeleton do not fit together; nothing was written.
        ExecutionError: a skeleton or store is missing, a UDF failed or a write did; finished days are kept,
            and no day is there in part.
    """
    plan = replace(plan_enrichment(operators, stores), profiled=profile)
    inputs = [day_input(skeleton, day, plan) for day in sorted(set(days))]
    current: list[EnrichedDay] = []
    stale: list[StaleDay] = []
    with contextlib.ExitStack() as stack:
        for one in inputs:
            lock = stack.enter_context(contextlib.ExitStack())
            lock.enter_context(output.locked(one.day))
            made = output.manifest(one.day)
            reason = stale_reason(made, one.fingerprint)
            if made is not None and not reason and not refresh:
                current.append(_described(output, one.day, made, written=False, reason="up to date"))
                lock.close()
                continue
            folder = output.begin(one.day)
            stack.callback(output.discard, folder)
            stale.append(stale_day(one, folder, reason or "asked for", lock))
        workers, written = 0, []
        measures: list[Measure] = []
        if stale:
            tell = notify or (lambda _line: None)
            for day in stale:
                if output.manifest(day.input.day) is not None:
                    tell(f"enrich {day.input.day.isoformat()} again: {day.reason}")
            tasks = [task for day in stale for task in day.tasks]
            workers, start = _workers(runtime, envelope or RayEnvelope(), len(tasks), tell, stack)
            reports = stack.enter_context(contextlib.closing(start(plan, tasks)))
            written = list(_commit_each(skeleton, output, stale, _measured(reports, measures), progress))
    return EnrichResult(
        days=tuple(sorted([*current, *written], key=lambda one: one.day)),
        store_versions=tuple((pinned.definition.name, pinned.snapshot) for pinned in plan.stores),
        workers=workers,
        measures=summed(measures),
    )


def _measured(reports: Iterator[ShardReport], measures: list[Measure]) -> Iterator[ShardReport]:
    """The reports; what they measured goes into `measures`."""
    for report in reports:
        measures += report.measures
        yield report


def _workers(
    runtime: Runtime,
    envelope: RayEnvelope,
    shards: int,
    tell: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> tuple[int, Callable[[EnrichPlan, list[ShardTask]], Generator[ShardReport]]]:
    """How many workers make the shards, and how to start them; a Ray session lives as long as `stack`."""
    fitted, line = envelope.fitted(Machine.here())
    if runtime == "in_process":
        return 1, lambda plan, tasks: run_in_process(replace(plan, cache_bytes=fitted.cache_bytes(1)), tasks)
    if line:
        tell(line)
    stack.enter_context(ray_session(fitted))
    workers = ray_workers(fitted, shards)
    return workers, lambda plan, tasks: run_on_ray(
        replace(plan, cache_bytes=fitted.cache_bytes(workers)), tasks, workers
    )


def _commit_each(
    skeleton: DayStore,
    output: DayStore,
    stale: Sequence[StaleDay],
    reports: Iterator[ShardReport],
    progress: Callable[[EnrichProgress], None] | None,
) -> Iterator[EnrichedDay]:
    """Commit each day as soon as its last shard is there."""
    total = sum(one.input.skeleton.row_count for one in stale)
    done = 0
    for one in stale:
        shards = []
        for report in itertools.islice(reports, len(one.tasks)):
            shards.append(report)
            done += report.rows
            if progress is not None:
                progress(EnrichProgress(day=report.day, rows_done=done, rows_total=total))
        if skeleton.manifest(one.input.day) != one.input.skeleton:
            raise ExecutionError(
                "the skeleton was replaced while it was enriched",
                where=str(skeleton.path(one.input.day)),
                hint="Run it again when the other run has finished",
                day=one.input.day.isoformat(),
            )
        manifest = one.manifest(shards)
        output.commit(one.input.day, one.folder, manifest)
        one.lock.close()
        yield _described(output, one.input.day, manifest, written=True, reason=one.reason)


def _described(
    output: DayStore, day: dt.date, manifest: DayManifest, *, written: bool, reason: str
) -> EnrichedDay:
    nulls = tuple(
        (name.removeprefix(NULL_COUNTER), count)
        for name, count in manifest.counters.items()
        if name.startswith(NULL_COUNTER)
    )
    return EnrichedDay(
        day=day,
        path=output.path(day),
        rows=manifest.row_count,
        content_hash=manifest.content_hash,
        written=written,
        reason=reason,
        nulls=nulls,
    )
