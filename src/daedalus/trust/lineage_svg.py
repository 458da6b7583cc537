"""The lineage graph of a service as one SVG: fields on the left, operators between, output columns on the right.

Layers are the longest paths, places within a layer follow the neighbours' (J. Sugiyama's barycentre). Lines are
faint until a column is pointed at; the page's script then shows what reaches it, in the colour of its role.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from daedalus.catalog.lineage import NodeKind, Role

if TYPE_CHECKING:
    from daedalus.catalog.lineage import Influence, LineageGraph, Node

ROW, GAP, BOX = 17, 12, 158
#: The page's width, and the least and the largest distance of two layers.
_PAGE, _NEAR, _FAR = 1264, 184, 260
_TOP = 26
#: Characters that fit into a box.
_LABEL = 24
_ENDS = frozenset({NodeKind.OUTPUT, NodeKind.OUTPUT_ROWS})
_ORIGINS = frozenset({NodeKind.FIELD, NodeKind.STORE})


@dataclass(slots=True)
class _Box:
    """A drawn node."""

    name: str
    label: str
    kind: str
    group: str = ""
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    title: str = ""


@dataclass(slots=True)
class _Drawing:
    boxes: dict[str, _Box] = field(default_factory=dict)
    #: (source, target) to the strongest role between them.
    edges: dict[tuple[str, str], Role] = field(default_factory=dict)


def lineage_svg(graph: LineageGraph, service: str) -> tuple[str, dict[str, Any]]:
    """The picture, and what its script needs: per output the edges and origins that reach it."""
    drawing = _collapsed(graph, service)
    ends = [node for node in graph.of_kind(*_ENDS) if node.service == service]
    reached = {node.id: graph.upstream(node.id) for node in ends}
    _place(drawing, _group_order(drawing, reached))
    order = {edge: number for number, edge in enumerate(drawing.edges)}
    names = {name: number for number, name in enumerate(drawing.boxes)}
    outputs: dict[str, Any] = {}
    for node in ends:
        part = _collapsed(graph.around([node.id], down=False), service)
        outputs[str(names[node.id])] = {
            "edges": [[order[edge], role.value] for edge, role in part.edges.items() if edge in order],
            # The strongest role stands: values come last here.
            "origins": {str(names[one.origin]): one.role.value for one in reversed(reached[node.id])},
        }
    links = [[names[source], names[target]] for source, target in drawing.edges]
    return _svg(drawing, names), {"outputs": outputs, "links": links}


# ---------------------------------------------------------------------- fewer nodes


def _collapsed(graph: LineageGraph, service: str) -> _Drawing:
    """Operators in place of their columns; scans and sources are not drawn."""
    drawing = _Drawing()
    hidden = {node.id for node in graph.of_kind(NodeKind.ROWS) if node.detail.startswith("scan:")}
    for node in graph.nodes.values():
        if node.kind is NodeKind.SOURCE or node.id in hidden:
            continue
        box = _box(node)
        if node.kind in _ENDS and node.service != service:
            continue
        drawing.boxes.setdefault(box.name, box)
    through: dict[str, list[tuple[str, Role]]] = {name: [] for name in hidden}
    for edge in graph.edges:
        if edge.target in hidden:
            through[edge.target].append((edge.source, edge.role))
    for edge in graph.edges:
        if edge.target in hidden:
            continue
        sources = through[edge.source] if edge.source in hidden else [(edge.source, edge.role)]
        for source, role in sources:
            _draw(drawing, graph, source, edge.target, role)
    drawn = {name for edge in drawing.edges for name in edge}
    for name in [name for name, box in drawing.boxes.items() if box.kind == "operator" and name not in drawn]:
        del drawing.boxes[name]
    return drawing


def _draw(drawing: _Drawing, graph: LineageGraph, source: str, target: str, role: Role) -> None:
    ends = tuple(_box(graph.nodes[name]).name for name in (source, target))
    if ends[0] == ends[1] or any(name not in drawing.boxes for name in ends):
        return
    pair = (ends[0], ends[1])
    known = drawing.edges.get(pair, Role.ROWS)
    drawing.edges[pair] = min(role, known, key=list(Role).index)


def _box(node: Node) -> _Box:
    if node.kind in _ORIGINS:
        view, _, name = node.id.rpartition(":")
        return _Box(node.id, name, "field", group=view, title=node.id)
    if node.kind in _ENDS:
        return _Box(
            node.id, node.label, "rows" if node.kind is NodeKind.OUTPUT_ROWS else "output", title=node.id
        )
    return _Box(f"operator {node.operator}", node.operator, "operator", title=node.detail)


# ---------------------------------------------------------------------- places


def _group_order(drawing: _Drawing, reached: dict[str, list[Influence]]) -> dict[str, float]:
    """Views in the order of the output columns that they give values to."""
    places: dict[str, list[int]] = {}
    for number, influences in enumerate(reached.values()):
        for one in influences:
            if one.role is Role.VALUE:
                places.setdefault(drawing.boxes[one.origin].group, []).append(number)
    return {group: sum(found) / len(found) for group, found in places.items()}


def _place(drawing: _Drawing, groups: dict[str, float]) -> None:
    last = _layers(drawing)
    step = min(max((_PAGE - BOX) / max(last, 1), _NEAR), _FAR)
    for box in drawing.boxes.values():
        box.x = box.layer * step
    origins = sorted(
        (box for box in drawing.boxes.values() if box.kind == "field"),
        key=lambda box: (groups.get(box.group, float("inf")), box.group),
    )
    y, group = float(_TOP), ""
    for box in origins:
        if box.group != group:
            y += (GAP if group else 0) + ROW
            group = box.group
        box.y = y
        y += ROW
    ends = [box for box in drawing.boxes.values() if box.kind in {"output", "rows"}]
    y = float(_TOP + ROW)
    for box in ends:
        y += GAP if box.kind == "rows" else 0
        box.y = y
        y += ROW
    for _ in range(4):
        for layer in range(1, last):
            _spread([box for box in drawing.boxes.values() if box.layer == layer], drawing)


def _layers(drawing: _Drawing) -> int:
    """Longest paths from the left; the last layer holds the outputs."""
    changed = True
    while changed:
        changed = False
        for source, target in drawing.edges:
            one, other = drawing.boxes[source], drawing.boxes[target]
            if other.kind != "field" and other.layer <= one.layer:
                other.layer, changed = one.layer + 1, True
    inner = [box for box in drawing.boxes.values() if box.kind == "operator"]
    last = max((box.layer for box in inner), default=0) + 1
    for box in drawing.boxes.values():
        if box.kind in {"output", "rows"}:
            box.layer = last
    return last


def _spread(boxes: list[_Box], drawing: _Drawing) -> None:
    """Each box at the middle of its neighbours, then apart."""
    for box in boxes:
        near = [drawing.boxes[a].y for a, b in drawing.edges if b == box.name]
        near += [drawing.boxes[b].y for a, b in drawing.edges if a == box.name]
        box.y = sum(near) / len(near) if near else box.y
    boxes.sort(key=lambda box: box.y)
    top = float(_TOP + ROW)
    for box in boxes:
        box.y = max(box.y, top)
        top = box.y + ROW + GAP


# ---------------------------------------------------------------------- drawing


def _svg(drawing: _Drawing, names: dict[str, int]) -> str:
    boxes = drawing.boxes.values()
    width = max((box.x for box in boxes), default=0) + BOX + 4
    height = max((box.y for box in boxes), default=0) + ROW + GAP
    drawn = [
        _path(number, drawing.boxes[source], drawing.boxes[target], role.value)
        for number, ((source, target), role) in enumerate(drawing.edges.items())
    ]
    group = ""
    for box in sorted((one for one in boxes if one.kind == "field"), key=lambda one: one.y):
        if box.group != group:
            group = box.group
            drawn.append(f'<text class="group" x="1" y="{box.y - 5:.1f}">{escape(group)}</text>')
    heads = {0.0: "fields of views", width - BOX - 4: "output columns"}
    inner = [box.x for box in boxes if box.kind == "operator"]
    heads |= {min(inner): "operators"} if inner else {}
    drawn += [f'<text class="head" x="{x + 1:.0f}" y="14">{text}</text>' for x, text in heads.items()]
    drawn += [_drawn(box, names[box.name]) for box in boxes]
    return (
        f'<svg id="lineage" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img" aria-label="lineage graph">{"".join(drawn)}</svg>'
    )


def _drawn(box: _Box, number: int) -> str:
    return (
        f'<g id="b{number}" class="box {box.kind}" transform="translate({box.x:.1f} {box.y:.1f})" tabindex="0">'
        f'<title>{escape(box.title)}</title><rect width="{BOX}" height="{ROW - 2}" rx="3"/>'
        f'<text x="6" y="{ROW - 6}">{escape(_short(box.label))}</text></g>'
    )


def _path(number: int, one: _Box, other: _Box, role: str) -> str:
    x1, y1 = one.x + BOX, one.y + ROW / 2 - 1
    x2, y2 = other.x, other.y + ROW / 2 - 1
    bend = max((x2 - x1) / 2, 24)
    curve = f"M{x1:.0f} {y1:.1f}C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
    return f'<path id="e{number}" class="edge {role}" d="{curve}"/>'


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
