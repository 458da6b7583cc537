"""Interprets the SQL operators of one day: each becomes a relation, kept as a table where it must be."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from daedalus.errors import SourceError
from daedalus.pipelines.days.qid import qid_map_sql
from daedalus.pipelines.days.relation_graph import RelationGraph
from daedalus.pipelines.days.rolling_tiers import in_own_ticks
from daedalus.pipelines.days.visibility import created_ticks, visible_sql
from daedalus.pipelines.operator_sql import asof_sql, filter_sql, join_sql, project_sql, rolling_sql
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    Engine,
    Filter,
    Join,
    Keep,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
    TimeRange,
)
from daedalus.pipelines.run_sources import AS_OF_RELATION, is_run_relation
from daedalus.pipelines.schema import checked_fragment
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline
    from daedalus.storage.sources.base import TickRange


def kept_relations(pipeline: OperatorPipeline) -> set[str]:
    """The relations whose rows are kept as tables: read more than once, or by an operator that is not plain SQL.

    Everything else composes into the statement of whatever reads it.
    """
    # Enrichment and sink read the finished rows as a stream, after all relations.
    of_day = [operator for operator in pipeline if not isinstance(operator, RayUdfTransform | Sink)]
    readers = Counter(name for operator in of_day for name in operator.inputs)
    kept = {name for name, count in readers.items() if count > 1}
    for operator in of_day:
        if getattr(operator, "specs", ()) or operator.engine is not Engine.SQL:
            kept |= set(operator.inputs)
        if isinstance(operator, Scan) and operator.source_ref.startswith("store:"):
            kept.add(operator.output)
    return kept


class DayRelations:
    """The relations of one day.

    Args:
        context: the day.
        connection: its own DuckDB connection.
        dry: define everything, but run nothing that reads rows: for `explain`.
    """

    def __init__(
        self, context: DayContext, connection: duckdb.DuckDBPyConnection, *, dry: bool = False
    ) -> None:
        self._dry = dry
        self.context = context
        self.graph = RelationGraph(connection, context.profile)
        self.absent: dict[str, frozenset[str]] = {}
        self._kept = kept_relations(context.pipeline)
        self._of_target: tuple[set[str], frozenset[str]] = (set(), frozenset())

    def narrow(self, scans: set[str], histories: Iterable[str]) -> None:
        """Restrict scans, which only the target day's rows look up, to its keys, not to those of all history."""
        self._of_target = (scans, frozenset(histories))

    def source_rows(self, scan: Scan) -> int:
        """How many rows the scan's time range has at the source."""
        reader = self._reader(scan.source_ref)
        sql = f"SELECT count(*) FROM ({reader.select_sql((), self.context.time_range(scan))})"
        return int(self.graph.rows(sql, scan.name)[0][0])

    def compose(self, name: str) -> None:
        """Do not keep a relation that only aggregates read: their rows are read from one before it."""
        readers = [one for one in self.context.pipeline if name in one.inputs]
        if len(readers) == 1:
            self.leave(name)

    def leave(self, name: str) -> None:
        """Do not keep a relation when it is added: whoever adds it does, in some way."""
        self._kept.discard(name)

    def add(self, operator: AnyOperator) -> str:
        """Define the operator's relation, and keep it where later operators need its rows; returns its SELECT."""
        name = operator.output
        sql, absent = self._select(operator)
        self.graph.define(name, sql, operator.inputs)
        self.absent[name] = absent
        if name in self._kept and not self._dry:
            self.graph.keep(name)
        return sql

    def add_unnumbered(self, scan: Scan) -> None:
        """Define a scan's relation without its total order: every position is 0."""
        columns = ", ".join([*map(quote_ident, scan.columns), TICK, f"CAST(0 AS BIGINT) AS {ROW}"])
        self.graph.define(scan.output, f"SELECT {columns} FROM ({self.scan_rows(scan)[0]})", ())

    def take_absent(self, operators: tuple[AnyOperator, ...]) -> None:
        """Learn which columns the sources of these operators lack, without running them."""
        dry = DayRelations(self.context, self.graph.connection, dry=True)
        for operator in operators:
            dry.add(operator)
        self.absent |= dry.absent

    def _select(self, operator: AnyOperator) -> tuple[str, frozenset[str]]:
        inherited = self.absent.get(operator.inputs[0], frozenset()) if operator.inputs else frozenset()
        tick = self.context.tick
        match operator:
            case Scan():
                return self._scan(operator)
            case Filter():
                return filter_sql(operator, self.graph.types(operator.inputs[0]), tick), inherited
            case Project():
                types = self.graph.types(operator.inputs[0])
                made = {column.name for column in operator.columns}
                left = inherited - made if operator.extend else frozenset()
                return project_sql(operator, types, inherited), left
            case Join():
                self._require_unique(operator)
                return join_sql(operator, self._right_types(operator), tick), inherited | self._absent_right(
                    operator
                )
            case PointInTimeJoin() if not operator.specs:
                created = self._created_tick(operator)
                sql = asof_sql(operator, self._right_types(operator), tick, created)
                return sql, inherited | self._absent_right(operator)
            case RollingAggregate() | PointInTimeJoin():
                by_input = {name: self.graph.types(name) for name in operator.inputs}
                own = in_own_ticks(operator.specs, self.context.spine_ticks)
                rounded = dataclasses.replace(operator, specs=own)
                return rolling_sql(rounded, by_input, tick), inherited
        raise AssertionError(f"{operator.op_kind} is not interpreted as SQL")

    def _right_types(self, operator: AnyOperator) -> dict[str, str]:
        return self.graph.types(operator.inputs[1])

    def _absent_right(self, operator: Join | PointInTimeJoin) -> frozenset[str]:
        right = self.absent.get(operator.inputs[1], frozenset())
        return frozenset(name for name, column in operator.columns if column in right)

    # ------------------------------------------------------------------ scans

    def _scan(self, scan: Scan) -> tuple[str, frozenset[str]]:
        if is_run_relation(scan.source_ref):
            as_of = self.context.as_of if scan.source_ref == AS_OF_RELATION else None
            absent = frozenset() if as_of is None else as_of.absent
            return self._run_relation(scan), absent
        base, reader = self.scan_rows(scan)
        if scan.keep is not None and not reader.view.timestamp_field and not self._dry:
            self.require_unique_view(scan, base, reader)
        if scan.restrict:
            base = self._restricted(scan, base)
        absent = frozenset(name for name in scan.columns if reader.columns[name].absent)
        return self._numbered(scan, self._one_per_key(scan, base, reader), reader), absent

    def scan_rows(self, scan: Scan, within: TickRange | None = None) -> tuple[str, ViewReader]:
        """A SELECT of the rows of a scanned view, with what orders them: not restricted, not numbered yet.

        Args:
            scan: of a view.
            within: read this part of its time instead of the scan's own.
        """
        reader = self._reader(scan.source_ref)
        order = reader.order_by() if scan.ordered or scan.keep else []
        predicate = None
        limited = self._limited(scan, reader)
        if scan.predicate:
            fields = [field.name for field in reader.view.fields]
            predicate = checked_fragment(scan.predicate, fields, f"operator {scan.name}, predicate")
        created = [reader.view.source.created_field] if limited and reader.view.source.created_field else []
        wanted = [*scan.columns, *scan.keys, *order, *created, *(predicate.columns if predicate else ())]
        base = reader.select_sql(
            [*wanted, *(name for name, _ in scan.restrict)], within or self.context.time_range(scan)
        )
        if not reader.view.timestamp_field:
            base = f"SELECT *, CAST(NULL AS BIGINT) AS {TICK} FROM ({base})"
        if predicate is not None:
            base = f"SELECT * FROM ({base}) WHERE {predicate.render()}"
        if limited:
            base = f"SELECT * FROM ({base}) WHERE {limited}"
        return base, reader

    def numbered_rows(self, scan: Scan, within: TickRange, before: int) -> str:
        """A SELECT of the rows that a scan which only filters and orders has in a part of its time.

        Args:
            scan: of a view, without keys and restriction.
            within: which part.
            before: their positions begin above it.
        """
        base, reader = self.scan_rows(scan, within)
        return self._numbered(scan, base, reader, before)

    def _limited(self, scan: Scan, reader: ViewReader) -> str:
        """What a scan of all time may see at the instant of a materialization; empty in training."""
        as_of, view = self.context.as_of, reader.view
        if as_of is None or scan.time_range is not TimeRange.ALL or not view.timestamp_field:
            return ""
        created = view.source.created_field
        dtype = reader.columns[created].dtype if created else ""
        return visible_sql(view, dtype, as_of, self.context.ticks_per_second, with_ttl=False)

    def _reader(self, view_name: str) -> ViewReader:
        context = self.context
        source = context.sources.source(view_name)
        source.setup(self.graph.connection)
        view = context.catalog.view(view_name)
        return ViewReader(view, source, self.graph.connection, context.ticks_per_second, dry=self._dry)

    def _restricted(self, scan: Scan, base: str) -> str:
        pairs = [(quote_ident(name), quote_ident(column)) for name, column in scan.restrict]
        wanted = ", ".join(f"{column} AS {name}" for name, column in pairs)
        equal = " AND ".join(f"b.{name} = w.{name}" for name, _ in pairs)
        scans, histories = self._of_target
        tick, where = self.context.tick, ""
        if scan.output in scans and scan.inputs[0] in histories:
            where = f" WHERE {TICK} >= {tick.day_start} AND {TICK} < {tick.day_end}"
        return (
            f"SELECT b.* FROM ({base}) AS b SEMI JOIN "
            f"(SELECT DISTINCT {wanted} FROM {quote_ident(scan.inputs[0])}{where}) AS w ON {equal}"
        )

    def _one_per_key(self, scan: Scan, base: str, reader: ViewReader) -> str:
        if scan.keep is None:
            return base
        if not reader.view.timestamp_field:
            return base
        keys = ", ".join(quote_ident(key) for key in scan.keys)
        order = reader.order_sql(descending=scan.keep is Keep.NEWEST)
        return f"SELECT * FROM ({base}) QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"

    def require_unique_view(self, scan: Scan, base: str, reader: ViewReader) -> None:
        """A view without a time has no newest row: it must hold one row per entity."""
        duplicates = self.graph.rows(_several_sql(f"({base})", scan.keys), scan.name)
        if duplicates:
            shown = "; ".join(row[0] for row in duplicates)
            raise SourceError(
                f"it has no timestamp_field, so it must be unique per entity; it is not for {shown}",
                where=f"view {reader.view.name} ({reader.view.file})",
                hint="Declare a timestamp_field, or remove the duplicates at the source",
                operator=scan.name,
            )

    def _with(self, names: tuple[str, ...]) -> str:
        """The pending inputs of a statement that is run on the spot."""
        pending = [name for name in names if not self.graph.is_kept(name)]
        if not pending:
            return ""
        ctes = ", ".join(f"{quote_ident(name)} AS ({self.graph.sql(name)})" for name in pending)
        return f"WITH {ctes} "

    @staticmethod
    def _numbered(scan: Scan, base: str, reader: ViewReader, before: int = 0) -> str:
        columns = [quote_ident(name) for name in scan.columns] + [TICK]
        if scan.ordered:
            number = f"row_number() OVER (ORDER BY {reader.order_sql()})"
            columns.append(f"{number} + {before} AS {ROW}" if before else f"{number} AS {ROW}")
        return f"SELECT {', '.join(columns)} FROM ({base})"

    def _run_relation(self, scan: Scan) -> str:
        kind, _, name = scan.source_ref.partition(":")
        connection = self.graph.connection
        column = quote_ident(scan.columns[0])
        if scan.source_ref == AS_OF_RELATION:
            return self._entities(scan)
        if kind == "store" and self._dry:
            relation = f"(SELECT CAST(NULL AS BIGINT) AS {column})"
        elif kind == "store":
            from daedalus.pipelines.days.embedding_ids import register_store_ids

            relation = register_store_ids(connection, self.context.config, name, scan.output)
        elif kind == "ids":
            source = self.context.sources.ids_source(name)
            source.setup(connection)
            relation = source.relation_sql()
        else:
            return self.session_map(scan, self._session_type(scan))
        return f"SELECT DISTINCT {column}, CAST(NULL AS BIGINT) AS {TICK} FROM {relation} WHERE {column} IS NOT NULL"

    def session_map(self, scan: Scan, session_type: str) -> str:
        """A SELECT of the numbers of sessions, which are of this type in the rows."""
        columns = ", ".join(quote_ident(one) for one in scan.columns)
        relation = qid_map_sql(self.context.output_root, scan.columns, session_type)
        return f"SELECT {columns}, CAST(NULL AS BIGINT) AS {TICK} FROM {relation}"

    def _entities(self, scan: Scan) -> str:
        """One row per entity at the instant of a materialization."""
        as_of = self.context.as_of
        if as_of is None or as_of.rows is None:
            raise AssertionError("only a materialization has entities as of a time")
        file = quote_literal(str(as_of.rows))
        self.graph.connection.execute(f"ATTACH IF NOT EXISTS {file} AS __entities (READ_ONLY)")
        columns = ", ".join(quote_ident(one) for one in scan.columns)
        return (
            f"SELECT {columns}, CAST({as_of.ticks} AS BIGINT) AS {TICK}, {ROW} FROM __entities.main.entities"
        )

    def _session_type(self, scan: Scan) -> str:
        """The type of the sessions that the map is joined to."""
        for operator in self.context.pipeline:
            if isinstance(operator, Join) and operator.inputs[1] == scan.output:
                return self.graph.types(operator.inputs[0])[operator.on[0][0]]
        return "VARCHAR"

    # ------------------------------------------------------------------ joins

    def _require_unique(self, operator: Join) -> None:
        """A lookup must not multiply rows: the right side has one row per key."""
        producer = self.context.pipeline.producer(operator.inputs[1])
        keys = [column for _, column in operator.on]
        if self._dry or (
            isinstance(producer, Scan)
            and (
                (producer.keep is not None and set(producer.keys) <= set(keys))
                or is_run_relation(producer.source_ref)
            )
        ):
            return
        name = operator.inputs[1]
        found = self.graph.rows(
            f"{self._with((name,))}{_several_sql(quote_ident(name), keys)}", operator.name
        )
        if found:
            shown = "; ".join(row[0] for row in found)
            raise SourceError(
                f"its right input has several rows for {shown}",
                operator=operator.name,
                hint="A lookup never multiplies rows: give the scan `keep: newest` with these keys",
            )

    def _created_tick(self, operator: PointInTimeJoin) -> str:
        """SQL of the instant at which a right version became known, in ticks."""
        if not operator.created_column:
            return ""
        column = quote_ident(operator.created_column)
        dtype = self.graph.types(operator.inputs[1])[operator.created_column]
        producer = self.context.pipeline.producer(operator.inputs[1])
        unit = "ms"
        if isinstance(producer, Scan):
            unit = self.context.catalog.view(producer.source_ref).source.timestamp_unit
        return created_ticks(column, dtype, unit, self.context.ticks_per_second)


def _several_sql(relation: str, keys: Iterable[str]) -> str:
    """Up to three keys, as text, of which a FROM item has several rows; a key with a NULL is none."""
    names = [quote_ident(key) for key in keys]
    listed, known = ", ".join(names), " AND ".join(f"{name} IS NOT NULL" for name in names)
    return (
        f"SELECT concat_ws(', ', {listed}) FROM {relation} WHERE {known} "
        f"GROUP BY {listed} HAVING count(*) > 1 ORDER BY {listed} LIMIT 3"
    )
