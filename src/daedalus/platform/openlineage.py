"""OpenLineage events of a project: its jobs as defined, and the events of a run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError
from daedalus.platform.project import final_stage
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daedalus.pipelines.executor import ExecutionResult
    from daedalus.pipelines.instants.materialize_run import MaterializationResult
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.project import Project
    from daedalus.trust.openlineage import LineageJob, RunEvents

_TOLD = ("train", "materialize")


def lineage_job(project: Project, service: str, config: TrainingRunConfig, kind: str = "train") -> LineageJob:
    """What trains a service, or materializes it, as OpenLineage's job."""
    from daedalus.pipelines.lineage import pipeline_lineage
    from daedalus.trust.openlineage import LineageJob, dataset_of, dataset_of_view, output_dataset

    facade = project.facade(config)
    pipeline = project.pipeline(service, config)
    sources = {}
    for view in facade.catalog.views.values():
        source = view.source
        place = mask(source.path or f"{source.database_path} {source.table_name or 'query'}".strip())
        sources[place] = dataset_of_view(view, config.source_root)
    for store in config.embedding_stores:
        sources[f"store:{store.name}"] = dataset_of(mask(config.project_path(store.path)), ".")
    graph = pipeline_lineage(pipeline, facade.catalog)
    schema = {column["name"]: str(column.get("dtype", "")) for column in facade.schema(service)["columns"]}
    texts = facade.descriptions(service)
    prefix = f"{service}:"
    names = [
        name.removeprefix(prefix) for name in graph.nodes if name.startswith(prefix) and name != f"{prefix}*"
    ]
    folder = final_stage(pipeline) if kind == "train" else "materialized"
    return LineageJob(
        kind=kind,
        namespace=config.openlineage_namespace,
        service=service,
        graph=graph,
        columns=tuple((name, schema.get(name, ""), texts.get(name, "")) for name in names),
        sources=sources,
        output=output_dataset(config.output_path / service / folder),
        description=facade.catalog.service(service).description,
    )


def job_events(project: Project, *, service: str | None = None) -> list[dict[str, Any]]:
    """One `JobEvent` per service, as plain data.

    Raises:
        MissingExtraError: the extra `openlineage` is not installed.
    """
    from daedalus.trust.openlineage import job_event

    config = project.config()
    facade = project.facade(config)
    names = facade.service_names if service is None else (facade.catalog.service(service).name,)
    return [job_event(lineage_job(project, name, config)) for name in names]


@dataclass(slots=True)
class RunTeller:
    """Tells OpenLineage of one run; does nothing where the setting `openlineage` is off."""

    events: RunEvents | None = None
    _notices: list[str] = field(default_factory=list)

    @property
    def notices(self) -> tuple[str, ...]:
        """What went wrong on the way."""
        return (*self._notices, *(self.events.notices if self.events is not None else ()))

    def finished(self, result: ExecutionResult) -> None:
        """The run is done: the days of its last stage are in place."""
        if self.events is None:
            return
        from daedalus.metadata.days import DayStore
        from daedalus.trust.openlineage import output_dataset

        store = DayStore(result.output_path)
        days = sorted({date.fromisoformat(day.day) for day in result.days})
        found = [store.manifest(day) for day in days]
        manifests = [manifest for manifest in found if manifest is not None]
        self.events.complete(manifests, output_dataset(result.output_path))

    def materialized(self, result: MaterializationResult) -> None:
        """The rows of an instant are in place."""
        if self.events is None:
            return
        from daedalus.trust.openlineage import output_dataset, table_dataset

        place = Path(result.path).parent
        output = table_dataset(result.path, result.table) if result.table else output_dataset(place)
        self.events.complete([result.manifest], output)


@contextlib.contextmanager
def lineage_events(
    project: Project, service: str, config: TrainingRunConfig, run_id: str, kind: str = "train"
) -> Iterator[RunTeller]:
    """Send START now and FAIL when the block fails, ABORT when it is interrupted; the block says when it is done.

    What is only made again to be compared is not told of.
    """
    teller = RunTeller()
    if config.openlineage and kind in _TOLD:
        from daedalus.trust.openlineage import RunEvents

        try:
            teller.events = RunEvents(lineage_job(project, service, config, kind), run_id)
        except DaedalusError as error:
            teller._notices.append(f"OpenLineage events were not sent: {error}")
        else:
            teller.events.start()
    try:
        yield teller
    except BaseException as error:
        if teller.events is not None:
            teller.events.fail(error)
        raise
