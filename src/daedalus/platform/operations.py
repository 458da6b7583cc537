"""The table of operations: what JSON-RPC and MCP offer, and the commands that show the same; each named once.

    operation = OPERATIONS["service.show"]
    operation.call(registry, {"name": "dssm_ranking"})

Each takes the registry, then typed parameters, and returns plain data.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from daedalus.errors import DefinitionError, ParameterError
from daedalus.platform.operation import Operation, Surface
from daedalus.platform.registry import PlatformRegistry  # noqa: TC001 - annotations are read at run time
from daedalus.platform.results import (
    CompiledPipeline,
    LogLine,
    RunLine,
    RunState,
    ServiceLine,
    ViewLine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daedalus.metadata.store import MetadataStore, StoredRun
    from daedalus.platform.dagster_client import DagsterRun

__all__ = ["OPERATIONS", "Operation", "Surface", "operations"]

_Name = Annotated[str, Field(min_length=1, max_length=200)]
ViewName = Annotated[_Name, Field(description="A view's name.")]
ServiceName = Annotated[_Name, Field(description="A service's name.")]
Partition = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="A day, YYYY-MM-DD.")]
RunId = Annotated[_Name, Field(description="A run's id, a unique beginning of it, or `latest`.")]
Limit = Annotated[int, Field(ge=1, le=1000, description="The newest so many.")]
Tail = Annotated[int | None, Field(ge=0, le=10_000, description="Only the last so many lines.")]


# ------------------------------------------------------------------ definitions


def list_views(registry: PlatformRegistry) -> list[ViewLine]:
    """List every feature view in short, by name."""
    return cast("list[ViewLine]", registry.list_views())


def show_view(registry: PlatformRegistry, *, name: ViewName) -> dict[str, Any]:
    """Show one feature view: entities, keys, source with secrets masked, fields."""
    _known(registry.catalog.view, name, "name")
    return registry.show_view(name)


def list_services(registry: PlatformRegistry) -> list[ServiceLine]:
    """List every feature service in short, by name."""
    return cast("list[ServiceLine]", registry.list_services())


def show_service(registry: PlatformRegistry, *, name: ServiceName) -> dict[str, Any]:
    """Show one feature service as its file writes it: spine, joins, ordered columns."""
    _known(registry.catalog.service, name, "name")
    return registry.show_service(name)


def compile_pipeline(registry: PlatformRegistry, *, service: ServiceName) -> CompiledPipeline:
    """Compile a service to its operator DAG; nothing is written."""
    _known(registry.catalog.service, service, "service")
    return CompiledPipeline(**registry.compile(service, write=False).to_dict())


def lineage(
    registry: PlatformRegistry,
    *,
    service: Annotated[_Name | None, Field(description="Only this service.")] = None,
    column: Annotated[
        _Name | None, Field(description="Upstream of this output column; `*` for the rows.")
    ] = None,
    downstream: Annotated[
        _Name | None, Field(description="What depends on this `view:field`, view or source column.")
    ] = None,
) -> dict[str, Any]:
    """Show where columns come from, or what depends on one: columns or influences, and the graph.

    Read from the pipelines that would run. `column` and `downstream` exclude each other.
    """
    from daedalus.platform.lineage import lineage_report

    if column is not None and downstream is not None:
        raise ParameterError("choose one of column and downstream", where="params")
    if service is not None:
        _known(registry.catalog.service, service, "service")
    return lineage_report(registry, service=service, column=column, downstream=downstream)


# ------------------------------------------------------------------ runs


def materialize_partition(
    registry: PlatformRegistry, *, service: ServiceName, partition: Partition
) -> RunState:
    """Start the run that makes one day of a service's training set, as `daeda pipeline train` does.

    Returns at once; the run goes on in a process of its own. `runs.get` says how it stands.
    """
    from daedalus.platform.run_queue import queue_of

    try:
        day = dt.date.fromisoformat(partition)
    except ValueError:
        raise ParameterError(f"there is no day {partition}", where="params.partition") from None
    _known(registry.catalog.service, service, "service")
    return queue_of(registry).submit(registry, service, day)


def get_run(registry: PlatformRegistry, *, run_id: RunId) -> dict[str, Any]:
    """Show one run: what ran, from what, what came out, or what ended it."""
    from daedalus.platform import runs

    store, found = _run(registry, run_id)
    return runs.show(store, found)


def list_runs(
    registry: PlatformRegistry,
    *,
    service: Annotated[str, Field(max_length=200, description="Only runs of this service.")] = "",
    kind: Annotated[
        str, Field(max_length=200, description="Only runs of this kind: train, materialize, ...")
    ] = "",
    limit: Limit = 20,
) -> list[RunLine]:
    """List recorded runs in short, newest first."""
    from daedalus.platform import records

    found = records.list_runs(registry, service=service, kind=kind, limit=limit)
    return cast("list[RunLine]", found)


def run_logs(registry: PlatformRegistry, *, run_id: RunId, tail: Tail = None) -> list[LogLine]:
    """Read a run's log, oldest line first: progress, notices, errors."""
    from daedalus.platform import runs

    store, found = _run(registry, run_id)
    return cast("list[LogLine]", runs.log_lines(store, found, tail))


def cancel_run(registry: PlatformRegistry, *, run_id: RunId) -> RunState:
    """Stop a run that waits or runs; days it finished stay, a day under way is not there in part."""
    from daedalus.platform import runs

    store, found = _run(registry, run_id)
    return runs.cancel(store, found)


def _run(registry: PlatformRegistry, run_id: str) -> tuple[MetadataStore, StoredRun | DagsterRun]:
    """The run that a parameter names, and the records."""
    from daedalus.platform import runs
    from daedalus.platform.records import metadata_store

    store = metadata_store(registry)
    return store, _known(lambda name: runs.find(registry, store, name), run_id, "run_id")


def _known(look_up: Callable[[str], Any], name: str, parameter: str) -> Any:
    """What a parameter names; a name that is not there is the caller's mistake, not a definition's."""
    try:
        return look_up(name)
    except DefinitionError as error:
        raise ParameterError(error.what, where=f"params.{parameter}", hint=error.hint) from None


_EVERYWHERE = frozenset({Surface.CLI, Surface.RPC, Surface.MCP})

#: Every operation by its name.
OPERATIONS: Mapping[str, Operation] = {
    one.name: one
    for one in (
        Operation(name="catalog.list_views", function=list_views, surfaces=_EVERYWHERE, command="view list"),
        Operation(name="catalog.show_view", function=show_view, surfaces=_EVERYWHERE, command="view show"),
        Operation(name="service.list", function=list_services, surfaces=_EVERYWHERE, command="service list"),
        Operation(name="service.show", function=show_service, surfaces=_EVERYWHERE, command="service show"),
        Operation(
            name="pipeline.compile",
            function=compile_pipeline,
            surfaces=_EVERYWHERE,
            command="pipeline compile",
        ),
        Operation(name="assets.lineage", function=lineage, surfaces=_EVERYWHERE, command="lineage"),
        Operation(
            name="runs.materialize_partition",
            function=materialize_partition,
            surfaces=frozenset({Surface.RPC, Surface.MCP}),
            read_only=False,
        ),
        Operation(name="runs.get", function=get_run, surfaces=_EVERYWHERE, command="runs show"),
        Operation(name="runs.list", function=list_runs, surfaces=_EVERYWHERE, command="runs list"),
        Operation(name="runs.logs", function=run_logs, surfaces=_EVERYWHERE, command="runs logs"),
        Operation(
            name="runs.cancel",
            function=cancel_run,
            surfaces=_EVERYWHERE,
            command="runs cancel",
            read_only=False,
            destructive=True,
        ),
    )
}


def operations(surface: Surface) -> tuple[Operation, ...]:
    """The operations that a surface offers."""
    return tuple(one for one in OPERATIONS.values() if surface in one.surfaces)
