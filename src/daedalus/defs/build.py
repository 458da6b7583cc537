"""A project as Dagster definitions: views as external assets, a partitioned asset, a job and a schedule per service."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from daedalus.defs.checks import checks_of
from daedalus.defs.project import STORES, TRAINING, VIEWS, asset_key, dagster_names
from daedalus.defs.steps import training_graph
from daedalus.pipelines.run_sources import scanned_views
from daedalus.secrets import mask

if TYPE_CHECKING:
    import dagster as dg

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.defs.project import DagsterProject
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import EmbeddingStoreConfig

#: The schedule's hour, UTC: late events of the day before have come by then.
_HOUR = 2
_GROUPS = {VIEWS: "feature_views", STORES: "embedding_stores", TRAINING: "training_sets"}


def definitions_of(project: DagsterProject) -> dg.Definitions:
    """Everything that Dagster shows and runs of a project.

    Raises:
        DefinitionError: it does not load.
        CompileError: a service does not make a pipeline.
    """
    import dagster as dg

    catalog = project.registry.catalog
    first, after = project.days()
    days = dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_date=after.isoformat())
    assets: list[Any] = [view_asset(view) for _, view in sorted(catalog.views.items())]
    assets += [store_asset(store) for store in project.registry.config(project.options).embedding_stores]
    checks, jobs, schedules = [], [], []
    for service, name in dagster_names(sorted(catalog.services)).items():
        asset = training_asset(project, service, name, days)
        job = dg.define_asset_job(
            f"train_{name}",
            selection=dg.AssetSelection.assets(asset),
            description=f"Make days of {service}: the asset and its checks.",
        )
        assets.append(asset)
        checks.append(checks_of(project, service, name))
        jobs.append(job)
        schedules.append(daily_schedule(project, service, name, job))
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=jobs,
        schedules=schedules,
        # A run is a process of its own; its steps follow one another, and would each begin by importing everything.
        executor=dg.in_process_executor,
    )


def daily_schedule(
    project: DagsterProject, service: str, name: str, job: dg.UnresolvedAssetJobDefinition
) -> dg.ScheduleDefinition:
    """Makes each day of a service when it is over; off until it is turned on."""
    import dagster as dg

    def tick(evaluation: Any) -> dg.RunRequest | dg.SkipReason:
        day = (evaluation.scheduled_execution_time.astimezone(dt.UTC) - dt.timedelta(days=1)).date()
        if not project.registry.config(project.options).holds_day(day):
            return dg.SkipReason(f"{day} is outside feed_start..feed_end: widen the months in runtime.yaml")
        return dg.RunRequest(run_key=f"{service} {day}", partition_key=day.isoformat())

    return dg.ScheduleDefinition(
        name=f"daily_{name}",
        job=job,
        cron_schedule=f"0 {_HOUR} * * *",
        execution_timezone="UTC",
        execution_fn=tick,
        description=f"Makes each day of {service} when it is over. Off until it is turned on.",
    )


def view_asset(view: FeatureViewDef) -> dg.AssetSpec:
    """A feature view: something that is there, and that Dagster does not make."""
    import dagster as dg

    columns = [
        dg.TableColumn(name=field.name, type=field.dtype, description=field.description or None)
        for field in view.fields
    ]
    return dg.AssetSpec(
        asset_key(VIEWS, view.name),
        group_name=_GROUPS[VIEWS],
        description=view.description or None,
        kinds={"view"},
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=columns),
            "source": mask(view.source.path or view.source.database_path or ""),
            "keys": ", ".join(view.join_keys),
            "owner": view.owner,
            "tags": ", ".join(view.tags),
        },
    )


def store_asset(store: EmbeddingStoreConfig) -> dg.AssetSpec:
    """An embedding store: `daeda store build` makes it, not Dagster."""
    import dagster as dg

    return dg.AssetSpec(
        asset_key(STORES, store.name),
        group_name=_GROUPS[STORES],
        description="An embedding store.",
        kinds={"lance"},
        metadata={"path": mask(store.path), "dimension": store.embedding_dim},
    )


def inputs_of(pipeline: OperatorPipeline) -> list[tuple[str, str]]:
    """What a pipeline reads, as (kind, name) of an asset: views, and the stores of its embeddings and its coverage."""
    scans = [str(getattr(scan, "source_ref", "")) for scan in pipeline.by_kind("scan")]
    stores = {ref.removeprefix("store:") for ref in scans if ref.startswith("store:")}
    stores |= {str(getattr(one, "store_name", "")) for one in pipeline.by_kind("ray_udf_transform")}
    views = sorted(scanned_views(pipeline))
    return [*((VIEWS, name) for name in views), *((STORES, name) for name in sorted(stores) if name)]


def training_asset(
    project: DagsterProject, service: str, name: str, days: dg.PartitionsDefinition[str]
) -> dg.AssetsDefinition:
    """A service's training set, a partition per day, made by compile, skeleton and enrich."""
    import dagster as dg

    config = project.registry.config(project.options)
    pipeline = project.registry.pipeline(service, config)
    read = inputs_of(pipeline)
    inputs = dagster_names(f"{kind}/{one}" if kind != VIEWS else one for kind, one in read)
    definition = project.registry.catalog.service(service)
    return dg.AssetsDefinition.from_graph(
        training_graph(project, service, name, tuple(inputs.values())),
        keys_by_input_name={
            label: dg.AssetKey(asset_key(*one)) for label, one in zip(inputs.values(), read, strict=True)
        },
        keys_by_output_name={"result": dg.AssetKey(asset_key(TRAINING, service))},
        partitions_def=days,
        group_name=_GROUPS[TRAINING],
        # A day is one run: each is recorded, retried and cancelled by itself.
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
        descriptions_by_output_name={
            "result": definition.description or f"The training set of {service}, a partition per day."
        },
        metadata_by_output_name={
            "result": {
                "version": definition.version,
                "owner": definition.owner,
                "serving_allowed": definition.serving_allowed,
            }
        },
        code_versions_by_output_name={"result": definition.version or None},
    )
