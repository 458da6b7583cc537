"""Lineage of a pipeline: a third walker over the DAG that runs, hand-edited or compiled.

A column that an operator only passes on keeps its node; one that is computed, joined or rewritten gets a new one.
What decides over rows (filters, windows, lookups) is a node of its own, `operator.*`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.catalog.lineage import Edge, LineageGraph, Node, NodeKind, Role
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    ArrowUdfTransform,
    Filter,
    Join,
    JoinKind,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
    TimeRange,
)
from daedalus.pipelines.pipeline_checks import check_pipeline, check_scans
from daedalus.pipelines.schema import checked_fragment, filter_fragments, output_names, relation_columns
from daedalus.secrets import mask
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline, ProjectColumn


def pipeline_lineage(pipeline: OperatorPipeline, catalog: FeatureCatalog) -> LineageGraph:
    """From source columns through every operator to the columns that the sink writes.

    Raises:
        CompileError: the pipeline does not stand.
        DefinitionError: it scans a view that the catalog lacks.
    """
    check_pipeline(pipeline)
    check_scans(pipeline, catalog)
    walk = _Walk(pipeline, catalog)
    for operator in pipeline:
        walk.add(operator)
    return LineageGraph(walk.nodes, tuple(walk.edges))


@dataclass(slots=True)
class _Relation:
    """A relation as lineage sees it: column to node, and the nodes of its rows and of its time."""

    columns: dict[str, str] = field(default_factory=dict)
    rows: str = ""
    time: str = ""


@dataclass(slots=True)
class _Walk:
    pipeline: OperatorPipeline
    catalog: FeatureCatalog
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[Edge, None] = field(default_factory=dict)
    relations: dict[str, _Relation] = field(default_factory=dict)

    # ------------------------------------------------------------------ nodes and edges

    def _node(self, node: Node) -> str:
        self.nodes.setdefault(node.id, node)
        return node.id

    def _edge(self, source: str, target: str, role: Role, how: str = "") -> None:
        if source and source != target:
            self.edges[Edge(source, target, role, how)] = None

    def _edges(self, sources: Iterable[str], target: str, role: Role, how: str = "") -> None:
        for source in sources:
            self._edge(source, target, role, how)

    def _made(self, operator: AnyOperator, column: str, detail: str = "") -> str:
        service = self.pipeline.service
        name = f"{service}/{operator.name}.{column}"
        return self._node(Node(name, NodeKind.STEP, column, service, operator.name, detail))

    def _rows(self, operator: AnyOperator, detail: str = "") -> str:
        service = self.pipeline.service
        name = f"{service}/{operator.name}.*"
        return self._node(Node(name, NodeKind.ROWS, operator.name, service, operator.name, detail))

    # ------------------------------------------------------------------ operators

    def add(self, operator: AnyOperator) -> None:
        """The operator's relation, from those it reads."""
        inputs = [self.relations[name] for name in operator.inputs]
        match operator:
            case Scan():
                made = self._scan(operator, inputs)
            case Filter():
                made = self._filter(operator, inputs[0])
            case Project():
                made = self._project(operator, inputs[0])
            case Join():
                made = self._join(operator, *inputs[:2])
            case PointInTimeJoin():
                made = self._pit_join(operator, *inputs[:2])
            case RollingAggregate():
                made = self._rolling(operator, inputs)
            case ArrowUdfTransform():
                made = _copy(inputs[0])
                made.columns[operator.column] = self._made(operator, operator.column, operator.function)
                arguments = [inputs[0].columns[name] for name in operator.arguments]
                self._edges(arguments, made.columns[operator.column], Role.VALUE, "function")
            case RayUdfTransform():
                made = self._embedding(operator, inputs[0])
            case Sink():
                made = self._sink(operator, inputs[0])
        self.relations[operator.output] = made

    def _scan(self, scan: Scan, inputs: list[_Relation]) -> _Relation:
        if scan.source_ref not in self.catalog.views:
            return self._scan_of_run(scan)
        view = self.catalog.view(scan.source_ref)
        made = _Relation({name: self._field(view, name) for name in scan.columns})
        source = view.source
        time = source.timestamp_field
        made.time = self._field(view, time) if time else ""
        rows = self._rows(scan, f"scan: {scan.time_range.value}")
        if time and scan.time_range is not TimeRange.ALL:
            self._edge(made.time, rows, Role.TIME, "window")
        if scan.predicate:
            names = [one.name for one in view.fields]
            read = checked_fragment(scan.predicate, names, f"operator {scan.name}, predicate").columns
            self._edges((self._field(view, name) for name in read), rows, Role.FILTER, "condition")
        if scan.keep is not None:
            self._edges(
                (self._field(view, name) for name in scan.keys), rows, Role.KEY, f"{scan.keep.value} per key"
            )
            newest = [name for name in (time, source.created_field, source.sequence_field) if name]
            self._edges((self._field(view, name) for name in newest), rows, Role.TIME, scan.keep.value)
        for name, column in scan.restrict:
            self._edges((self._field(view, name), inputs[0].columns[column]), rows, Role.KEY, "join")
        made.rows = rows if any(edge.target == rows for edge in self.edges) else ""
        if not made.rows:
            del self.nodes[rows]
        return made

    def _scan_of_run(self, scan: Scan) -> _Relation:
        """Ids of a store or of a relation of ids, or the map of sessions."""
        columns = {}
        for name in scan.columns:
            node = Node(f"{scan.source_ref}:{name}", NodeKind.STORE, f"{scan.source_ref}:{name}")
            columns[name] = self._node(node)
        sink = self.pipeline.operators[-1]
        if isinstance(sink, Sink) and sink.session_column and scan.source_ref.startswith("run:"):
            sessions = self.relations.get(sink.sessions_from)
            session = sessions.columns.get(sink.session_column, "") if sessions is not None else ""
            for name in scan.columns:
                columns[name] = self._made(scan, name, f"numbers {sink.session_column}")
                self._edge(session, columns[name], Role.VALUE, "numbering")
                if sessions is not None:  # in order of their first row
                    self._edge(sessions.time, columns[name], Role.TIME, "numbering")
                    self._edge(sessions.rows, columns[name], Role.ROWS)
        return _Relation(columns)

    def _field(self, view: FeatureViewDef, name: str) -> str:
        found = f"{view.name}:{name}"
        if found not in self.nodes:
            source = view.source
            place = mask(source.path or f"{source.database_path} {source.table_name or 'query'}".strip())
            own = next((mine for mine, theirs in view.field_mapping if theirs == name), name)
            behind = self._node(Node(f"{place}#{own}", NodeKind.SOURCE, own, detail=place))
            self._node(Node(found, NodeKind.FIELD, found))
            self._edge(behind, found, Role.VALUE, "identity")
        return found

    def _filter(self, operator: Filter, source: _Relation) -> _Relation:
        names = [*source.columns, TICK, ROW]
        predicate, counts = filter_fragments(operator, names, f"operator {operator.name}")
        detail = operator.predicate or ("the target day" if operator.target_day else "")
        rows = self._rows(operator, detail)
        read = [*(predicate.columns if predicate is not None else ())]
        read += [name for fragment in counts.values() for name in fragment.columns]
        columns = [source.columns[name] for name in dict.fromkeys(read) if name in source.columns]
        self._edges(columns, rows, Role.FILTER, "condition")
        self._edges((source.columns[name] for name in operator.group_by), rows, Role.KEY, "group")
        if operator.target_day:
            self._edge(source.time, rows, Role.TIME, "target day")
        self._edge(source.rows, rows, Role.ROWS)
        made = _copy(source)
        made.rows = rows
        return made

    def _project(self, operator: Project, source: _Relation) -> _Relation:
        made = _copy(source) if operator.extend else _Relation({}, source.rows, source.time)
        for column in operator.columns:
            made.columns[column.name] = self._projected(operator, column, source)
        return made

    def _projected(self, operator: Project, column: ProjectColumn, source: _Relation) -> str:
        read: tuple[str, ...] = ()
        if column.sql:
            names = [*source.columns, TICK, ROW]
            read = checked_fragment(column.sql, names, f"operator {operator.name}").columns
        if len(read) == 1 and column.sql == quote_ident(read[0]) and read[0] in source.columns:
            return source.columns[read[0]]
        node = self._made(operator, column.name, column.sql or "default")
        for name in read:
            origin = source.time if name == TICK else source.columns.get(name, "")
            self._edge(origin, node, Role.VALUE, "expression")
        return node

    # ------------------------------------------------------------------ joins

    def _join(self, operator: Join, left: _Relation, right: _Relation) -> _Relation:
        lookup = self._lookup(operator, left, right, ttl=operator.ttl_seconds is not None)
        made = self._joined(operator, left, right, lookup)
        if operator.marker:
            made.columns[operator.marker] = self._made(operator, operator.marker, "whether there was a match")
            self._edge(lookup, made.columns[operator.marker], Role.ROWS)
        if operator.how is JoinKind.INNER:
            self._edge(left.rows, lookup, Role.ROWS)
            made.rows = lookup
        return made

    def _pit_join(self, operator: PointInTimeJoin, left: _Relation, right: _Relation) -> _Relation:
        if operator.specs:
            made = _copy(left)
            for spec in operator.specs:
                made.columns[spec.name] = self._aggregated(operator, spec, left, right)
            return made
        lookup = self._lookup(operator, left, right, ttl=True)
        if operator.created_column:
            self._edge(right.columns[operator.created_column], lookup, Role.TIME, "known since")
        return self._joined(operator, left, right, lookup)

    def _lookup(
        self, operator: Join | PointInTimeJoin, left: _Relation, right: _Relation, *, ttl: bool
    ) -> str:
        """The rows of the right input that the left rows find."""
        lookup = self._rows(operator, "lookup")
        for mine, theirs in operator.on:
            self._edges((left.columns[mine], right.columns[theirs]), lookup, Role.KEY, "join")
        if ttl:
            self._edges((left.time, right.time), lookup, Role.TIME, "as of")
        self._edge(right.rows, lookup, Role.ROWS)
        return lookup

    def _joined(
        self, operator: Join | PointInTimeJoin, left: _Relation, right: _Relation, lookup: str
    ) -> _Relation:
        made = _copy(left)
        for name, column in operator.columns:
            made.columns[name] = self._made(operator, name, "looked up")
            self._edge(right.columns[column], made.columns[name], Role.VALUE, "identity")
            self._edge(lookup, made.columns[name], Role.ROWS)
        return made

    # ------------------------------------------------------------------ aggregates, embeddings, output

    def _rolling(self, operator: RollingAggregate, inputs: list[_Relation]) -> _Relation:
        rows, own, *others = inputs
        histories = dict(zip((view for view, _ in operator.histories), others, strict=True))
        made = _copy(rows)
        for spec in operator.specs:
            history = own if spec.history_view is None else histories[spec.history_view]
            made.columns[spec.name] = self._aggregated(operator, spec, rows, history)
        return made

    def _aggregated(
        self,
        operator: RollingAggregate | PointInTimeJoin,
        spec: AggregationSpec,
        rows: _Relation,
        history: _Relation,
    ) -> str:
        node = self._made(operator, spec.name, _words(spec))
        if spec.operation is Operation.SECONDS_SINCE_LAST:
            self._edges((rows.time, history.time), node, Role.VALUE, "aggregate")
        elif spec.value_column:
            self._edge(history.columns[spec.value_column], node, Role.VALUE, "aggregate")
        for mine, theirs in zip(spec.group_by, spec.history_keys, strict=True):
            self._edges((rows.columns[mine], history.columns[theirs]), node, Role.KEY, "group")
        self._edges((rows.time, history.time), node, Role.TIME, "window")
        if spec.condition is not None:
            where = f"spec {spec.name}, condition"
            read = parse_fragment(
                spec.condition, columns=history.columns, where=where, qualifier="hist"
            ).columns
            self._edges((history.columns[name] for name in read), node, Role.FILTER, "condition")
        if spec.exclude_self and spec.value_column:
            self._edge(rows.columns[spec.value_column], node, Role.FILTER, "exclude_self")
        self._edge(history.rows, node, Role.ROWS)
        return node

    def _embedding(self, operator: RayUdfTransform, source: _Relation) -> _Relation:
        store = f"store:{operator.store_name}:embedding"
        self._node(Node(store, NodeKind.STORE, store))
        made = _copy(source)
        node = self._made(operator, operator.column, operator.udf_name)
        self._edge(store, node, Role.VALUE, "embedding")
        self._edge(source.columns[operator.source_id_column], node, Role.KEY, "lookup by id")
        made.columns[operator.column] = node
        return made

    def _sink(self, operator: Sink, source: _Relation) -> _Relation:
        service = self.pipeline.service
        made = _Relation({}, source.rows, source.time)
        for name in output_names(relation_columns(self.pipeline), operator.output):
            node = self._node(Node(f"{service}:{name}", NodeKind.OUTPUT, name, service))
            self._edge(source.columns[name], node, Role.VALUE, "identity")
            made.columns[name] = node
        rows = self._node(Node(f"{service}:*", NodeKind.OUTPUT_ROWS, "which rows there are", service))
        self._edge(source.rows, rows, Role.ROWS)
        return made


def _copy(relation: _Relation) -> _Relation:
    return _Relation(dict(relation.columns), relation.rows, relation.time)


def _words(spec: AggregationSpec) -> str:
    """An aggregation in a few words.

    >>> from daedalus.catalog.aggregation import AggregationSpec
    >>> spec = AggregationSpec(
    ...     name="n", group_by=("u",), operation="list", value_column="i", window_days=7, max_items=32
    ... )
    >>> _words(spec)
    'list of i by u, 7 days, newest 32'
    """
    value = f" of {spec.value_column}" if spec.value_column else ""
    window = ", the whole past"
    if spec.window_days is not None:
        window = ", 1 day" if spec.window_days == 1 else f", {spec.window_days:g} days"
    items = f", newest {spec.max_items}" if spec.max_items is not None else ""
    condition = f", where {spec.condition}" if spec.condition is not None else ""
    return f"{spec.operation}{value} by {', '.join(spec.group_by)}{window}{items}{condition}"
