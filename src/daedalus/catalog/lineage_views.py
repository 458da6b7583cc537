"""A lineage graph as people and programs read it: one line per output column, a table of influences, Mermaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.catalog.lineage import NodeKind, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.catalog.lineage import Influence, LineageGraph, Node

_READABLE = (Role.VALUE, Role.KEY, Role.FILTER, Role.TIME)


def output_lines(graph: LineageGraph) -> list[dict[str, Any]]:
    """Per output column (and the rows of a service, `*`) its origins by role and how it is made."""
    lines = []
    for node in graph.of_kind(NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS):
        found = graph.upstream(node.id)
        line: dict[str, Any] = {"service": node.service, "column": node.id.rpartition(":")[2]}
        for role in _READABLE:
            line[role.value] = [one.origin for one in found if one.role is role]
        lines.append(line | {"made": made_by(graph, node.id)})
    return lines


def made_by(graph: LineageGraph, output: str) -> str:
    """How an output column is made: the detail of its step; empty for a column that is only passed on."""
    into = [edge.source for edge in graph.edges if edge.target == output]
    step = graph.nodes[into[0]] if into else None
    return step.detail if step is not None and step.kind is NodeKind.STEP else ""


def influence_lines(graph: LineageGraph, influences: Iterable[Influence]) -> list[dict[str, Any]]:
    """Influences as plain data: origin, role, target, the source columns behind it and the steps between."""
    return [
        {
            "origin": one.origin,
            "role": one.role.value,
            "service": graph.nodes[one.target].service,
            "column": one.target.rpartition(":")[2],
            "sources": [_source(graph.nodes[name]) for name in graph.sources_of(one.origin)],
            "through": [_step(graph.nodes[name]) for name in one.path[1:-1]],
        }
        for one in influences
    ]


def _source(node: Node) -> str:
    return f"{node.detail}#{node.label}"


def _step(node: Node) -> str:
    return node.operator if node.kind is NodeKind.ROWS else f"{node.operator}.{node.label}"


# ---------------------------------------------------------------------- Mermaid

_SHAPES = {
    NodeKind.SOURCE: ("[/", "/]"),
    NodeKind.FIELD: ("[", "]"),
    NodeKind.STORE: ("[(", ")]"),
    NodeKind.STEP: ("(", ")"),
    NodeKind.ROWS: ("{{", "}}"),
    NodeKind.OUTPUT: ("([", "])"),
    NodeKind.OUTPUT_ROWS: ("([", "])"),
}


def to_mermaid(graph: LineageGraph) -> str:
    """A Mermaid flowchart: fields by view, steps, outputs by service; a thin dotted arrow is no value."""
    names = {name: f"n{number}" for number, name in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for title, members in _groups(graph).items():
        if title:
            lines.append(f'  subgraph {_quoted(title)}["{_escaped(title)}"]')
        lines += [f"  {'  ' if title else ''}{names[node.id]}{_box(node)}" for node in members]
        if title:
            lines.append("  end")
    for edge in graph.edges:
        label = "" if edge.role in {Role.VALUE, Role.ROWS} else f"|{edge.role.value}|"
        arrow = "-->" if edge.role is Role.VALUE else "-.->"
        lines.append(f"  {names[edge.source]} {arrow}{label} {names[edge.target]}")
    return "\n".join(lines) + "\n"


def _groups(graph: LineageGraph) -> dict[str, list[Node]]:
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        title = ""
        if node.kind in {NodeKind.FIELD, NodeKind.STORE}:
            title = node.id.rpartition(":")[0]
        elif node.kind is NodeKind.SOURCE:
            title = node.detail
        elif node.kind in {NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS}:
            title = f"service {node.service}"
        groups.setdefault(title, []).append(node)
    return groups


def _box(node: Node) -> str:
    left, right = _SHAPES[node.kind]
    label = node.id.rpartition(":")[2] if node.kind in {NodeKind.FIELD, NodeKind.STORE} else node.label
    return f'{left}"{_escaped(label)}"{right}'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("#", "&num;")


def _quoted(title: str) -> str:
    return "g" + "".join(character if character.isalnum() else f"_{ord(character)}" for character in title)
