"""Column-level lineage as a graph: which source columns reach which output columns, and in which role.

Nodes are source columns, fields of views, embedding stores, computed columns (steps), lookups and row sets, and output
columns. Edges point downstream and say what the source does for the target:

- *value*: the target's value is made of it;
- *key*: it says which rows belong together: join keys, group keys, ids that are looked up;
- *filter*: it says which rows count: conditions, session, content and coverage filters;
- *time*: it says what was before what: event times, windows, ttl, when a version became known.

The last three change values without being in them; an edge of role *rows* only leads through a lookup or a row set.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Role(StrEnum):
    """What a column does for another."""

    VALUE = "value"
    KEY = "key"
    FILTER = "filter"
    TIME = "time"
    ROWS = "rows"


class NodeKind(StrEnum):
    """What a node is."""

    SOURCE = "source"  # a column of a file, table or query
    FIELD = "field"  # a field of a view, canonical name
    STORE = "store"  # an embedding store or a relation of ids
    STEP = "step"  # a column that an operator makes
    ROWS = "rows"  # the rows that an operator keeps or looks up
    OUTPUT = "output"  # a column of a service
    OUTPUT_ROWS = "output_rows"  # the rows of a service


#: Where lineage begins for a reader: what the definitions name. Sources lie behind fields.
ORIGINS = frozenset({NodeKind.FIELD, NodeKind.STORE})


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A column or a set of rows.

    Attributes:
        id: unique in the project: `view:field`, `service:column`, `service/operator.column`, `location#column`.
        label: short, for people.
        service: the service that makes it; empty for what services share.
        operator: the operator that makes it; empty where none does.
        detail: how it is made, such as an expression or `list of the newest 32 in 7 days`.
    """

    id: str
    kind: NodeKind
    label: str
    service: str = ""
    operator: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """`source` does `role` for `target`; `how` says it in a word: identity, expression, aggregate, join, ..."""

    source: str
    target: str
    role: Role
    how: str = ""


@dataclass(frozen=True, slots=True)
class Influence:
    """One origin of an output, or one output of an origin.

    Attributes:
        origin: the field or store.
        target: the output column, or the service's rows.
        path: the node ids from origin to target, both included; a shortest one.
    """

    origin: str
    target: str
    role: Role
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Nodes and edges; acyclic."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()

    @classmethod
    def merged(cls, graphs: Iterable[LineageGraph]) -> LineageGraph:
        """The graphs as one: fields and sources that services share are one node each."""
        nodes: dict[str, Node] = {}
        edges: dict[Edge, None] = {}
        for graph in graphs:
            nodes |= graph.nodes
            edges |= dict.fromkeys(graph.edges)
        return cls(nodes, tuple(edges))

    def of_kind(self, *kinds: NodeKind) -> list[Node]:
        """The nodes of these kinds, in order."""
        return [node for node in self.nodes.values() if node.kind in kinds]

    def sources_of(self, origin: str) -> list[str]:
        """The source columns behind a field."""
        return [edge.source for edge in self.edges if edge.target == origin]

    # ------------------------------------------------------------------ walks

    def upstream(self, target: str) -> list[Influence]:
        """What reaches an output: one influence per origin and role, in the order of the graph."""
        into = _by(self.edges, "target")
        found = [
            Influence(node, target, role, path)
            for node, role, path in _walk(target, into, "source")
            if self.nodes[node].kind in ORIGINS
        ]
        order = {name: number for number, name in enumerate(self.nodes)}
        return sorted(found, key=lambda one: (list(Role).index(one.role), order[one.origin]))

    def downstream(self, origin: str) -> list[Influence]:
        """What an origin reaches: one influence per output (or a service's rows) and role."""
        out_of = _by(self.edges, "source")
        found = [
            Influence(origin, node, role, path[::-1])
            for node, role, path in _walk(origin, out_of, "target")
            if self.nodes[node].kind in {NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS}
        ]
        order = {name: number for number, name in enumerate(self.nodes)}
        return sorted(found, key=lambda one: (self.nodes[one.target].service, order[one.target], one.role))

    def around(self, ids: Iterable[str], *, up: bool = True, down: bool = True) -> LineageGraph:
        """The part of the graph that leads to or from the nodes."""
        kept = set(ids)
        for wanted, start, end in ((up, "target", "source"), (down, "source", "target")):
            if wanted:
                pending = list(ids)
                edges = _by(self.edges, start)
                while pending:
                    for edge in edges[pending.pop()]:
                        node = getattr(edge, end)
                        if node not in kept:
                            kept.add(node)
                            pending.append(node)
        nodes = {name: node for name, node in self.nodes.items() if name in kept}
        return LineageGraph(nodes, tuple(e for e in self.edges if e.source in kept and e.target in kept))

    # ------------------------------------------------------------------ plain data

    def to_dict(self) -> dict[str, Any]:
        """Nodes and edges as plain data."""
        return {
            "nodes": [
                {key: value for key, value in _plain(node).items() if value} for node in self.nodes.values()
            ],
            "edges": [_plain(edge) for edge in self.edges],
        }


def _plain(value: Node | Edge) -> dict[str, Any]:
    return {name: str(getattr(value, name)) for name in value.__slots__}


def _by(edges: Iterable[Edge], end: str) -> defaultdict[str, list[Edge]]:
    found: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        found[getattr(edge, end)].append(edge)
    return found


def _walk(
    start: str, edges: defaultdict[str, list[Edge]], end: str
) -> Iterator[tuple[str, Role, tuple[str, ...]]]:
    """Every node that is reached, once per role, by a shortest path; the path ends (upstream: begins) at `start`.

    The role of a path is that of its edge nearest to the output that is no value.
    """
    downward = end == "target"
    first: tuple[str, Role | None] = (start, None)
    paths: dict[tuple[str, Role | None], tuple[str, ...]] = {first: (start,)}
    pending = [first]
    for state in pending:
        node, role = state
        if role is not None or node != start:
            yield node, role or Role.VALUE, paths[state]
        for edge in edges[node]:
            own = None if edge.role in {Role.VALUE, Role.ROWS} else edge.role
            # Upstream the walk starts at the output: the first role met stays. Downstream the last one does.
            new = (own or role) if downward else (role or own)
            after = (getattr(edge, end), new)
            if after not in paths:
                paths[after] = (after[0], *paths[state])
                pending.append(after)
