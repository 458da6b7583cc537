"""Materialize a service: its features for each of its entities as of one instant, by the operators that train it.

The rows are staged as a skeleton day (and enriched, where the service has embeddings), then moved to their final
folder, or copied into a table in one transaction. Killed at any moment, an earlier materialization of the same
instant stays, and running again finishes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from daedalus.errors import DefinitionError
from daedalus.metadata.days import DayStore, InstantStore
from daedalus.pipelines.days.visibility import AsOf, ticks_of
from daedalus.pipelines.execution import RunProgress
from daedalus.pipelines.fingerprints import fingerprint_of
from daedalus.pipelines.function_code import code_digests, named_functions
from daedalus.pipelines.instants.as_of import as_of_pipeline, entity_keys
from daedalus.pipelines.instants.entities import write_entities
from daedalus.pipelines.operators import RayUdfTransform, SinkFormat
from daedalus.pipelines.pipeline_files import pipeline_to_yaml
from daedalus.pipelines.publish import open_sink, staged_day, staged_rows
from daedalus.pipelines.run_sources import RunSources, ticks_per_second
from daedalus.pipelines.settings.run_config import is_url
from daedalus.pipelines.settings.sink_places import place_problems
from daedalus.pipelines.skeleton_run import day_context
from daedalus.pipelines.training import run_skeleton_stage
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.metadata.days import DayManifest
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig

FOLDER = "materialized"
TABLE = "features"
STAGE = "materialize"
_STAGING = ".staging-"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializeRequest:
    """What to materialize.

    Attributes:
        pipeline: of the service, compiled or edited by hand.
        as_of: the instant; naive is UTC.
        output: a folder, a DuckDB file or a lake's catalog, by format; empty is the default under the output root.
        entities: the keys to make rows for; None is every one that the spine has.
        run_id: names the run in the record and in a table's ledger; empty makes one.
        progress: told how far the run is.
        pins: by view, what an earlier run recorded of its source: a lake is read as of that snapshot.
    """

    pipeline: OperatorPipeline
    run_config: TrainingRunConfig
    catalog: FeatureCatalog
    as_of: dt.datetime
    format: SinkFormat = SinkFormat.PARQUET
    output: str = ""
    entities: pa.Table | None = None
    run_id: str = ""
    progress: Callable[[RunProgress], None] | None = None
    pins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializationResult:
    """One materialization: one row per entity key, as of one instant.

    Attributes:
        as_of: the instant, ISO, UTC; in ticks of the spine's time column.
        keys: the entity keys.
        path: the folder, the DuckDB file or the lake's catalog; secrets masked.
        table: the table in it; empty for Parquet.
        content_hash: of the ordered rows, the same for every format.
        schema: (column, Arrow type) pairs.
        sources: what was read, by view.
        manifest: of the rows: their statistics, and `fingerprint`, what they were made from.
        snapshot: of a lake: the snapshot that the commit made.
    """

    run_id: str
    service: str
    version: str
    as_of: str
    format: str
    path: str
    table: str
    keys: tuple[str, ...]
    row_count: int
    content_hash: str
    schema: tuple[tuple[str, str], ...]
    sources: dict[str, Any]
    manifest: DayManifest
    seconds: float
    snapshot: int | None = None
    notices: tuple[str, ...] = ()


def run_materialization(request: MaterializeRequest) -> MaterializationResult:
    """Compute the rows and write them, whole or not at all; a materialization of the same instant is replaced.

    Raises:
        DefinitionError: rows of this format cannot be written to the output that is asked for.
        CompileError: the pipeline cannot be read as of a time.
        ExecutionError: names the operator; an earlier materialization is left as it was.
    """
    started = time.perf_counter()
    _check_output(request)
    config, service = request.run_config, request.pipeline.service
    run_id = request.run_id or uuid.uuid4().hex[:12]
    store = InstantStore(_root(request))
    sources = RunSources(request.catalog, config, request.pins)
    notices: list[str] = []
    try:
        context, as_of, instant = _context(request, sources)
        iso = instant.isoformat()
        with store.locked(instant), _staging(store.root) as staging:
            staged, manifest, keys = _stage(request, context, as_of, staging, notices)
            if request.format is SinkFormat.PARQUET:
                path, table, snapshot = _move(request, staged, manifest, store, instant), "", None
            else:
                path, table, snapshot = _publish(request, staged, manifest, iso, run_id)
        return MaterializationResult(
            run_id=run_id,
            service=service,
            version=request.pipeline.version,
            as_of=f"{iso}Z",
            format=request.format.value,
            path=path,
            table=table,
            keys=keys,
            row_count=manifest.row_count,
            content_hash=manifest.content_hash,
            schema=manifest.schema,
            sources=sources.records(),
            manifest=manifest,
            seconds=round(time.perf_counter() - started, 3),
            snapshot=snapshot,
            notices=tuple(notices),
        )
    finally:
        sources.close()


def materialization_inputs(request: MaterializeRequest) -> dict[str, Any]:
    """What the rows would be made from, as `MaterializationResult.manifest` has it; computes nothing."""
    from daedalus.pipelines.enrich.plan import configured_stores, plan_enrichment

    with contextlib.closing(RunSources(request.catalog, request.run_config, request.pins)) as sources:
        context, _, instant = _context(request, sources)
        service = request.catalog.service(request.pipeline.service)
        spine = request.catalog.view(service.spine)
        plan = as_of_pipeline(request.pipeline, spine, entity_keys(service, spine))
        found = _fingerprint(dataclasses.replace(context, pipeline=plan.pipeline), instant.isoformat())
        transforms = [one for one in plan.pipeline if isinstance(one, RayUdfTransform)]
        if transforms:
            pinned = plan_enrichment(transforms, configured_stores(transforms, request.run_config))
            found["stores"] = {one.definition.name: one.snapshot for one in pinned.stores}
    return found


def _check_output(request: MaterializeRequest) -> None:
    problems = []
    if request.format is not SinkFormat.PARQUET:
        problems = [(what, mend) for _, what, mend in place_problems(request.format, request.output, "")]
    elif request.output and is_url(request.run_config.project_path(request.output)):
        problems = [("a Parquet materialization is a local folder", "Write a path, or copy the folder there")]
    for what, mend in problems:
        raise DefinitionError(what, where=f"output {mask(request.output)}", hint=mend)


def _root(request: MaterializeRequest) -> Path:
    """Where instants are locked and staged, and where Parquet ones end up."""
    if request.format is SinkFormat.PARQUET and request.output:
        return Path(request.run_config.project_path(request.output))
    return request.run_config.output_path / request.pipeline.service / FOLDER


def _context(request: MaterializeRequest, sources: RunSources) -> tuple[DayContext, AsOf, dt.datetime]:
    """The day of the instant, and the instant itself in ticks of the spine's own time column."""
    per_second = ticks_per_second(request.pipeline, request.catalog)
    ticks = ticks_of(request.as_of, per_second)
    day = dt.date(1970, 1, 1) + dt.timedelta(days=ticks // (86_400 * per_second))
    context = day_context(request.pipeline, request.catalog, request.run_config, sources, day)
    step = per_second // min(context.spine_ticks, per_second)
    ticks -= ticks % step
    as_of = AsOf(ticks=ticks)
    return context, as_of, _instant(as_of, per_second)


def _stage(
    request: MaterializeRequest, context: DayContext, as_of: AsOf, staging: Path, notices: list[str]
) -> tuple[Path, DayManifest, tuple[str, ...]]:
    """The folder of the finished rows under the staging folder, their manifest, and the entity keys."""
    iso = _instant(as_of, context.ticks_per_second).isoformat()
    tell = _teller(request, iso)
    service = request.catalog.service(request.pipeline.service)
    spine = request.catalog.view(service.spine)
    plan = as_of_pipeline(request.pipeline, spine, entity_keys(service, spine))
    tell("finding entities", 0)
    file = staging / "entities.duckdb"
    as_of = write_entities(plan, context, as_of, instant=iso, file=file, asked=request.entities)
    of_rows = dataclasses.replace(context, pipeline=plan.pipeline, as_of=as_of)
    days = DayStore(staging / "skeleton")
    fingerprint = _fingerprint(of_rows, iso)
    manifest = run_skeleton_stage(of_rows, days, fingerprint, report=lambda text: tell(text, 1))
    transforms = [one for one in plan.pipeline if isinstance(one, RayUdfTransform)]
    if transforms:
        tell("enriching", 2)
        skeleton, days = days, DayStore(staging / "enriched")
        notices += _enrich(request.run_config, transforms, (skeleton, days), context.day)
        manifest, _ = staged_day(days, context.day)
        enriched = manifest.fingerprint
        fingerprint |= {key: enriched[key] for key in ("transforms", "stores") if key in enriched}
    manifest = dataclasses.replace(manifest, day=iso, fingerprint=fingerprint)
    return days.path(context.day), manifest, plan.keys


def _instant(as_of: AsOf, per_second: int) -> dt.datetime:
    """The instant as a naive datetime in UTC."""
    since = dt.timedelta(microseconds=as_of.ticks * 1_000_000 // per_second)
    return dt.datetime(1970, 1, 1) + since  # noqa: DTZ001 - naive is UTC here, as in folder names


def _fingerprint(context: DayContext, iso: str) -> dict[str, Any]:
    """What the rows are made from, as plain data."""
    pipeline = context.pipeline
    made_from = fingerprint_of(
        pipeline,
        context.catalog,
        context.sources,
        context.day,
        text=pipeline_to_yaml(pipeline),
        functions=code_digests(named_functions(pipeline)),
    )
    return {"as_of": iso, **made_from}


def _enrich(
    config: TrainingRunConfig,
    transforms: list[RayUdfTransform],
    stores: tuple[DayStore, DayStore],
    day: dt.date,
) -> list[str]:
    """Fill the embedding columns: reads the first of `stores`, writes the second; returns notices."""
    from daedalus.pipelines.dynamic_feature import RayEnvelope, run_enrich_stage
    from daedalus.pipelines.enrich.plan import configured_stores

    notices: list[str] = []
    run_enrich_stage(
        skeleton=stores[0],
        output=stores[1],
        days=[day],
        operators=transforms,
        stores=configured_stores(transforms, config),
        runtime=config.enrich_runtime,
        envelope=RayEnvelope().configured(config),
        notify=notices.append,
    )
    return notices


def _move(
    request: MaterializeRequest,
    staged: Path,
    manifest: DayManifest,
    store: InstantStore,
    instant: dt.datetime,
) -> str:
    """Make the staged files the instant's folder."""
    tell = _teller(request, manifest.day)
    folder = store.begin(instant)
    try:
        for name, _ in manifest.files:
            (staged / name).rename(folder / name)
        tell("committing", 3)
        store.commit(instant, folder, manifest)
    except BaseException:
        store.discard(folder)
        raise
    tell("written", 4)
    return str(store.path(instant))


def _publish(
    request: MaterializeRequest, staged: Path, manifest: DayManifest, iso: str, run_id: str
) -> tuple[str, str, int | None]:
    """Copy the staged files into the table: (place, table, snapshot)."""
    from daedalus.storage.sinks.tables import Partition

    tell = _teller(request, iso)
    service = request.pipeline.service
    with open_sink(request.format, service, request.run_config, path=request.output, table=TABLE) as sink:
        published = sink.publish(
            Partition(column="as_of", dtype="TIMESTAMP", value=iso),
            staged_rows(staged, manifest),
            run_id=run_id,
            message=f"{service} as of {iso}Z, run {run_id}",
            report=lambda text: tell(text, 3),
        )
        tell("written", 4)
        return mask(sink.place), published.table, published.snapshot


def _teller(request: MaterializeRequest, iso: str) -> Callable[[str, int], None]:
    def tell(message: str, done: int) -> None:
        if request.progress is not None:
            request.progress(RunProgress(stage=STAGE, day=iso, message=message, done=done, total=4))

    return tell


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder for unfinished rows; those of runs that were killed are removed."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{_STAGING}*/"):
        with contextlib.suppress(Timeout, OSError), FileLock(left / "lock", timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{_STAGING}{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        with FileLock(folder / "lock"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
