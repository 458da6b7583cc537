"""A service's training as OpenLineage sees it: a job with its datasets, and the events of its runs.

Built with the official client (extra `openlineage`), whose own configuration says where events go: `OPENLINEAGE_URL`,
`OPENLINEAGE__TRANSPORT__...` or `openlineage.yml`. What goes wrong on the way is a notice, never a failed run.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from daedalus.catalog.lineage import NodeKind, Role
from daedalus.errors import DaedalusError, MissingExtraError
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from daedalus.catalog.lineage import Influence, LineageGraph
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.metadata.days import DayManifest

Dataset = tuple[str, str]

_URL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://([^/]*)/?(.*)$")
_INDIRECT = {Role.KEY: "JOIN", Role.FILTER: "FILTER", Role.TIME: "WINDOW"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageJob:
    """What OpenLineage is told of a service.

    Attributes:
        columns: (name, dtype, description) of the output, in order.
        sources: place of a source, as lineage nodes have it, to its dataset.
        output: the dataset that the run writes.
        kind: `train` or `materialize`.
    """

    namespace: str
    service: str
    graph: LineageGraph
    columns: tuple[tuple[str, str, str], ...]
    sources: Mapping[str, Dataset]
    output: Dataset
    kind: str = "train"
    description: str = ""


def dataset_of(place: str, root: str) -> Dataset:
    """Namespace and name of a path or URL in OpenLineage's naming; relative paths lie under `root`.

    >>> dataset_of("s3://lake/events/x.parquet", "data"), dataset_of("events", "/srv/data")
    (('s3://lake', 'events/x.parquet'), ('file', '/srv/data/events'))
    """
    match = _URL.match(place) or (
        _URL.match(f"{root.rstrip('/')}/{place}") if not place.startswith("/") else None
    )
    if match is not None:
        scheme, host, rest = match.groups()
        return f"{scheme}://{host.rpartition('@')[2]}", rest
    return "file", place if place.startswith("/") else f"{root.rstrip('/')}/{place}"


def dataset_of_view(view: FeatureViewDef, root: str) -> Dataset:
    """The dataset that a view reads."""
    source = view.source
    if source.path:
        return dataset_of(mask(source.path), root)
    table = source.table_name or f"query of view {view.name}"
    namespace, name = dataset_of(mask(source.database_path), root)
    return namespace, f"{name}.{table}" if name else table


# ---------------------------------------------------------------------- events


def job_event(job: LineageJob) -> dict[str, Any]:
    """The job and its datasets, as it is defined, outside any run: a `JobEvent` as plain data."""
    client = _client()
    event = client.event_v2.JobEvent(
        eventTime=_now(),
        producer=_producer(client),
        job=_job(client, job),
        inputs=_inputs(client, job),
        outputs=[_output(client, job, ())],
    )
    plain: dict[str, Any] = client.serde.Serde.to_dict(event)
    return plain


@dataclass(slots=True)
class RunEvents:
    """The events of one run.

    Attributes:
        job: what runs.
        run_id: the run's own id; OpenLineage's is made of it.
        notices: what went wrong on the way, each thing once.
    """

    job: LineageJob
    run_id: str
    notices: list[str] = field(default_factory=list)
    _sender: Any = None

    @property
    def lineage_run_id(self) -> str:
        """The run's id as OpenLineage wants it: a UUID, the same for the same `run_id`."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"daedalus:{self.job.namespace}:{self.run_id}"))

    def start(self) -> None:
        """The run begins."""
        self._emit("START", {}, ())

    def complete(self, manifests: Iterable[DayManifest], output: Dataset) -> None:
        """The run is done; `manifests` are those of the days it stands for, `output` where they are."""
        self.job = replace(self.job, output=output)
        self._emit("COMPLETE", {}, tuple(manifests))

    def fail(self, error: BaseException) -> None:
        """The run failed, or was interrupted."""
        kind = "FAIL" if isinstance(error, Exception) else "ABORT"
        self._emit(kind, {"errorMessage": error} if kind == "FAIL" else {}, ())

    def _emit(
        self, kind: str, facets: Mapping[str, BaseException], manifests: tuple[DayManifest, ...]
    ) -> None:
        try:
            client = _client()
            if self._sender is None:
                self._sender = _sender()
            self._sender.emit(self._event(client, kind, facets, manifests))
        except Exception as error:  # noqa: BLE001 - whatever a transport does, the run goes on
            what = error.what if isinstance(error, DaedalusError) else f"{type(error).__name__}: {error}"
            notice = f"OpenLineage events were not sent: {mask(str(what))}"
            if notice not in self.notices:
                self.notices.append(notice)

    def _event(
        self, client: Any, kind: str, facets: Mapping[str, BaseException], manifests: tuple[DayManifest, ...]
    ) -> Any:
        run_facets: dict[str, Any] = {
            "processing_engine": client.facet_v2.processing_engine_run.ProcessingEngineRunFacet(
                version=_version(), name="daedalus"
            )
        }
        for name, error in facets.items():
            run_facets[name] = client.facet_v2.error_message_run.ErrorMessageRunFacet(
                message=mask(str(error)), programmingLanguage="python"
            )
        return client.event_v2.RunEvent(
            eventType=client.event_v2.RunState[kind],
            eventTime=_now(),
            producer=_producer(client),
            run=client.event_v2.Run(runId=self.lineage_run_id, facets=run_facets),
            job=_job(client, self.job),
            inputs=_inputs(client, self.job),
            outputs=[_output(client, self.job, manifests)],
        )


@dataclass(frozen=True, slots=True)
class _Client:
    event_v2: Any
    facet_v2: Any
    serde: Any


def _client() -> _Client:
    try:
        from openlineage.client import event_v2, facet_v2, serde
    except ImportError as error:
        raise MissingExtraError(
            "OpenLineage's client is not installed", hint='pip install "daedalus[openlineage]"'
        ) from error
    return _Client(event_v2, facet_v2, serde)


def _sender() -> Any:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.noop import NoopConfig, NoopTransport

    # Asked first: a client without a transport would print every event.
    silent = OpenLineageClient(transport=NoopTransport(NoopConfig()))
    if not ((silent.config.transport or {}).get("type") or os.environ.get("OPENLINEAGE_URL")):
        raise DaedalusError(
            "no transport is configured (OPENLINEAGE_URL, OPENLINEAGE__TRANSPORT__TYPE or openlineage.yml)"
        )
    return OpenLineageClient()


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _version() -> str:
    from daedalus import __version__

    return str(__version__)


def _producer(client: Any) -> str:
    producer = f"urn:daedalus:{_version()}"
    client.facet_v2.set_producer(producer)
    return producer


def _job(client: Any, job: LineageJob) -> Any:
    facets: dict[str, Any] = {
        "jobType": client.facet_v2.job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="DAEDALUS", jobType=job.kind.upper()
        )
    }
    if job.description:
        facets["documentation"] = client.facet_v2.documentation_job.DocumentationJobFacet(
            description=job.description
        )
    name = job.service if job.kind == "train" else f"{job.service}.{job.kind}"
    return client.event_v2.Job(namespace=job.namespace, name=name, facets=facets)


# ---------------------------------------------------------------------- datasets


def _inputs(client: Any, job: LineageJob) -> list[Any]:
    """One dataset per source that the service reads, with the columns it reads."""
    columns: dict[Dataset, dict[str, None]] = {}
    for node in job.graph.of_kind(NodeKind.SOURCE, NodeKind.STORE):
        dataset, column = _place(job, node.id)
        columns.setdefault(dataset, {})[column] = None
    facet = client.facet_v2.schema_dataset
    return [
        client.event_v2.InputDataset(
            namespace=namespace,
            name=name,
            facets={
                "schema": facet.SchemaDatasetFacet(
                    fields=[facet.SchemaDatasetFacetFields(name=column) for column in sorted(found)]
                )
            },
        )
        for (namespace, name), found in sorted(columns.items())
    ]


def _place(job: LineageJob, node_id: str) -> tuple[Dataset, str]:
    node = job.graph.nodes[node_id]
    if node.kind is NodeKind.SOURCE:
        return job.sources.get(node.detail, (job.namespace, node.detail)), node.label
    name, _, column = node.id.rpartition(":")
    return job.sources.get(name, (job.namespace, name)), column


def _output(client: Any, job: LineageJob, manifests: tuple[DayManifest, ...]) -> Any:
    types = dict(manifests[-1].schema) if manifests else {}
    facet = client.facet_v2.schema_dataset
    fields = [
        facet.SchemaDatasetFacetFields(
            name=name, type=types.get(name, dtype) or None, description=text or None, ordinal_position=number
        )
        for number, (name, dtype, text) in enumerate(job.columns, 1)
    ]
    facets: dict[str, Any] = {
        "schema": facet.SchemaDatasetFacet(fields=fields),
        "columnLineage": _column_lineage(client, job),
    }
    statistics: dict[str, Any] = {}
    if manifests:
        facets["dataQualityMetrics"] = _quality(client, manifests)
        statistics["outputStatistics"] = (
            client.facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=sum(one.row_count for one in manifests),
                size=sum(size for one in manifests for _, size in one.files),
                fileCount=sum(len(one.files) for one in manifests),
            )
        )
    namespace, name = job.output
    return client.event_v2.OutputDataset(
        namespace=namespace, name=name, facets=facets, outputFacets=statistics
    )


def _column_lineage(client: Any, job: LineageJob) -> Any:
    facet = client.facet_v2.column_lineage_dataset
    fields = {}
    rows: list[Any] = []
    for node in job.graph.of_kind(NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS):
        if node.service != job.service:
            continue
        found = _input_fields(facet, job, job.graph.upstream(node.id))
        if node.kind is NodeKind.OUTPUT:
            fields[node.label] = facet.Fields(inputFields=found)
        else:
            rows = found
    return facet.ColumnLineageDatasetFacet(fields=fields, dataset=rows)


def _input_fields(facet: Any, job: LineageJob, influences: list[Influence]) -> list[Any]:
    """Source columns with every transformation that leads from them."""
    found: dict[tuple[Dataset, str], dict[tuple[str, str], None]] = {}
    for one in influences:
        kind = (
            ("DIRECT", _direct(job.graph, one))
            if one.role is Role.VALUE
            else ("INDIRECT", _indirect(job.graph, one))
        )
        for origin in job.graph.sources_of(one.origin) or [one.origin]:
            found.setdefault(_place(job, origin), {})[kind] = None
    return [
        facet.InputField(
            namespace=namespace,
            name=name,
            field=column,
            transformations=[facet.Transformation(type=kind, subtype=subtype) for kind, subtype in kinds],
        )
        for ((namespace, name), column), kinds in found.items()
    ]


def _direct(graph: LineageGraph, influence: Influence) -> str:
    hows = _hows(graph, influence, {Role.VALUE})
    if "aggregate" in hows:
        return "AGGREGATION"
    return "IDENTITY" if hows <= {"identity"} else "TRANSFORMATION"


def _indirect(graph: LineageGraph, influence: Influence) -> str:
    grouped = influence.role is Role.KEY and "group" in _hows(graph, influence, {Role.KEY})
    return "GROUP_BY" if grouped else _INDIRECT[influence.role]


def _hows(graph: LineageGraph, influence: Influence, roles: set[Role]) -> set[str]:
    steps = set(zip(influence.path, influence.path[1:], strict=False))
    return {edge.how for edge in graph.edges if edge.role in roles and (edge.source, edge.target) in steps}


def _quality(client: Any, manifests: tuple[DayManifest, ...]) -> Any:
    """Rows, NULLs and extremes over the days; distinct counts only of a single day."""
    facet = client.facet_v2.data_quality_metrics_dataset
    metrics: dict[str, Any] = {}
    for name in manifests[-1].columns:
        stats = [one.columns[name] for one in manifests if name in one.columns]
        lows, highs = ([one[key] for one in stats if _is_number(one.get(key))] for key in ("min", "max"))
        metrics[name] = facet.ColumnMetrics(
            nullCount=sum(one.get("nulls", 0) for one in stats),
            count=sum(one.get("rows", 0) for one in stats),
            distinctCount=stats[0].get("distinct") if len(stats) == 1 else None,
            min=float(min(lows)) if lows else None,
            max=float(max(highs)) if highs else None,
        )
    return facet.DataQualityMetricsDatasetFacet(
        columnMetrics=metrics,
        rowCount=sum(one.row_count for one in manifests),
        bytes=sum(size for one in manifests for _, size in one.files),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def output_dataset(folder: Path) -> Dataset:
    """The dataset of a stage's folder."""
    return "file", str(folder)


def table_dataset(place: str, table: str) -> Dataset:
    """The dataset of a table in a DuckDB file or a lake."""
    namespace, name = dataset_of(place, "")
    return namespace, f"{name}.{table}"
