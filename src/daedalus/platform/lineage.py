"""Lineage of a project: from source columns to every service's output columns, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.catalog.lineage import LineageGraph, NodeKind
from daedalus.catalog.lineage_views import influence_lines, output_lines
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.platform.project import Project, RunOptions


def project_lineage(
    project: Project, *, service: str | None = None, options: RunOptions | None = None
) -> LineageGraph:
    """The graph of one service, or of all: of the pipelines that would run, hand-edited ones included.

    Raises:
        DefinitionError: no such service, or one that does not resolve.
    """
    from daedalus.pipelines.lineage import pipeline_lineage

    config = project.config(options)
    facade = project.facade(config)
    names = facade.service_names if service is None else (facade.catalog.service(service).name,)
    return LineageGraph.merged(
        pipeline_lineage(project.pipeline(name, config), facade.catalog) for name in names
    )


def outputs_of(graph: LineageGraph, column: str, service: str | None = None) -> list[str]:
    """The output nodes that `column` names: `service:column`, or a bare name in every service that has it.

    Raises:
        DefinitionError: there is none; with near matches.
    """
    outputs = graph.of_kind(NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS)
    found = [
        node.id
        for node in outputs
        if column in {node.id, node.id.rpartition(":")[2]} and service in {None, node.service}
    ]
    if not found:
        known = [node.id.rpartition(":")[2] for node in outputs if service in {None, node.service}]
        where = "lineage" if service is None else f"service {service}"
        raise DefinitionError(
            f"no output column is called {column!r}", where=where, hint=did_you_mean(column, known)
        )
    return found


def origins_of(graph: LineageGraph, reference: str) -> list[str]:
    """The fields and stores that a reference names: `view:field`, a view, or a source column.

    Raises:
        DefinitionError: nothing reads what it names; with near matches.
    """
    origins = [node.id for node in graph.of_kind(NodeKind.FIELD, NodeKind.STORE)]
    exact = [name for name in origins if reference in {name, name.rpartition(":")[0]}]
    if exact:
        return exact
    behind = {
        edge.target
        for edge in graph.edges
        if graph.nodes[edge.source].kind is NodeKind.SOURCE
        and reference in {edge.source, graph.nodes[edge.source].detail}
    }
    found = [name for name in origins if name in behind]
    if not found:
        known = [*origins, *{name.rpartition(":")[0] for name in origins}]
        raise DefinitionError(
            f"nothing that a service outputs reads {reference!r}",
            where="lineage",
            hint=did_you_mean(reference, known) + " Write view:field, or a view",
        )
    return found


def lineage_report(
    project: Project,
    *,
    service: str | None = None,
    column: str | None = None,
    downstream: str | None = None,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """Lineage as plain data: `columns` for everything, `influences` for one column or origin, and the graph."""
    graph = project_lineage(project, service=service, options=options)
    report: dict[str, Any] = {"service": service, "column": column, "downstream": downstream}
    if column is not None:
        wanted = outputs_of(graph, column, service)
        report["influences"] = influence_lines(graph, _each(graph.upstream(one) for one in wanted))
        graph = graph.around(wanted, down=False)
    elif downstream is not None:
        wanted = origins_of(graph, downstream)
        report["influences"] = influence_lines(graph, _each(graph.downstream(one) for one in wanted))
        graph = graph.around(wanted, up=False)
    else:
        report["columns"] = output_lines(graph)
    return report | {"graph": graph.to_dict()}


def selected_graph(
    project: Project,
    *,
    service: str | None = None,
    column: str | None = None,
    downstream: str | None = None,
) -> LineageGraph:
    """The part of the graph that the selection is about."""
    graph = project_lineage(project, service=service)
    if column is not None:
        return graph.around(outputs_of(graph, column, service), down=False)
    if downstream is not None:
        return graph.around(origins_of(graph, downstream), up=False)
    return graph


def _each(found: Iterable[list[Any]]) -> list[Any]:
    return [one for part in found for one in part]
