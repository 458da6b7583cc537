"""A day's finished rows as a stream of Arrow tables, in total order.

Aggregates that later operators only pass on are set beside the finished rows: all other operators are one
statement, whose rows stream by while the aggregates of just these rows are gathered. Otherwise the day passes
in chunks from the first operator on that is not plain SQL: Arrow operators run on a chunk, and the SQL operators
after them run on the chunk registered as a relation. Columns that SQL only passes on stay outside DuckDB.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtypes import canonical_dtype, to_arrow
from daedalus.pipelines.days.aggregates import DayAggregate
from daedalus.pipelines.days.arrow_udfs import apply_arrow_udf
from daedalus.pipelines.days.counts import DayCounts
from daedalus.pipelines.days.held_columns import HeldColumns
from daedalus.pipelines.days.history_cache import PARTS, HistoryCache, HistoryChain, NotExactError
from daedalus.pipelines.days.history_files import files_sql
from daedalus.pipelines.days.history_selections import HistorySelections
from daedalus.pipelines.days.memory import give_back_memory
from daedalus.pipelines.days.past_cache import PAST_PARTS, past_files
from daedalus.pipelines.days.rolling_tiers import (
    TimeUnit,
    aggregate_rows,
    history_columns,
    history_inputs,
    run_on_ray,
    spine_columns,
)
from daedalus.pipelines.days.shape import (
    BesideRows,
    made_columns,
    main_chain,
    of_target_rows,
    output_operator,
    reads_rows_before,
    runs_in_sql,
    streamed_tail,
    writes,
)
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    ArrowUdfTransform,
    Engine,
    Filter,
    Join,
    PointInTimeJoin,
    RollingAggregate,
    Scan,
)
from daedalus.pipelines.schema import relation_columns
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daedalus.pipelines.days.aggregates import Resources
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.pipelines.operators import AnyOperator

#: Rows that pass through Arrow operators, or are given their aggregates, at once.
CHUNK_ROWS = 16_384
#: Rows that one statement finishes: it joins and sorts them as a whole.
SLICE_ROWS = 1_000_000
#: The table of rows that did not arrive.
DROPPED = "__dropped"


class DayStream:
    """Runs the operators of one day and yields its rows.

    Args:
        context: the day.
        relations: its relations, empty so far.
        resources: what aggregation may use; only needed for `tables`.
        rows_per_chunk: how many rows pass at once; 0 is `CHUNK_ROWS`.

    Attributes:
        counts: rows that came in and were dropped, and NULL keys; whole once all `tables` were taken.
    """

    def __init__(
        self,
        context: DayContext,
        relations: DayRelations,
        resources: Resources | None = None,
        rows_per_chunk: int = 0,
    ) -> None:
        self._context = context
        self._relations = relations
        self._graph = relations.graph
        self._rows_per_chunk = rows_per_chunk or CHUNK_ROWS
        self._tail = streamed_tail(context.pipeline)
        self._final = output_operator(context.pipeline)
        self._histories: dict[tuple[str, tuple[str, ...]], pa.Table] = {}
        self._aggregates: dict[str, DayAggregate] = {}
        self._from_files: dict[str, HistorySelections] = {}
        self._resources = resources
        self._columns = relation_columns(context.pipeline)
        self._beside = BesideRows.of(self._tail, self._columns)
        self.counts = DayCounts()
        self._open = contextlib.ExitStack()
        self._unit = TimeUnit(context.ticks_per_second, context.spine_ticks)
        self._duckdb_config = context.config.duckdb_settings()

    def prepare(self) -> None:
        """Run everything that comes before the stream."""
        if self._beside is not None:
            self._relations.compose(self._tail[0].inputs[0])
        for operator in self._needed(self._shared_history() | self._kept_past()):
            self.add(operator)
        if self._tail and self._beside is None:
            self._graph.keep(self._tail[0].inputs[0], ordered=True)
        cheap = tuple(self._from_files)
        self.counts.count_before(self._context, self._relations, self._before_tail(), cheap)

    def _before_tail(self) -> list[AnyOperator]:
        """The operators of the main chain whose relations have all rows before the stream."""
        return main_chain(self._context.pipeline)[: -len(self._tail) or None]

    def add(self, operator: AnyOperator) -> None:
        """Define an operator's relation; an Arrow operator runs over all rows of its input."""
        if runs_in_sql(operator):
            self._relations.add(operator)
        else:
            self._add_whole(operator)

    def tables(self) -> Iterator[pa.Table]:
        """The finished rows in order, with their positions where they have any; at least one, maybe empty, table."""
        if not self._tail:
            yield from self._told_apart(self._streamed(self._final.output))
            return
        with self._open:
            if self._beside is not None:
                yield from self._with_aggregates(self._beside)
                return
            for chunk in self._chunks(self._tail[0].inputs[0]):
                yield self._through_tail(chunk)

    def _shared_history(self) -> set[str]:
        """Define the history over the files that adjacent days share; returns the relations it replaces."""
        chain = HistoryChain.of(self._context.pipeline)
        # As of a time, static columns are those of that time: no history to share.
        if chain is None or self._context.as_of is not None:
            return set()
        try:
            files = HistoryCache(self._context, chain).files(self._context.day)
        except NotExactError:
            return set()
        names = self._columns
        kept = HistorySelections(files, self._graph, PARTS)
        self._from_files = dict.fromkeys((*chain.same_rows, chain.relation), kept)
        for relation in self._from_files:
            columns = ", ".join(quote_ident(name) for name in names[relation])
            self._graph.define(relation, f"SELECT {columns} FROM {files_sql(files)}", ())
        self._relations.narrow(of_target_rows(self._context.pipeline, chain), self._from_files)
        self._relations.take_absent(chain.operators)
        return {operator.output for operator in chain.operators} - set(chain.outside)

    def _kept_past(self) -> set[str]:
        """Define scans of all the past over the files that hold their rows; returns these relations."""
        found = past_files(self._context, self._graph.connection)
        for scan, files in found.items():
            columns = ", ".join(quote_ident(name) for name in (*scan.columns, TICK, ROW))
            self._graph.define(scan.output, f"SELECT {columns} FROM {files_sql(files)}", ())
            self._from_files[scan.output] = HistorySelections(files, self._graph, PAST_PARTS)
        self._relations.take_absent(tuple(found))
        return {scan.output for scan in found}

    def _needed(self, replaced: set[str]) -> list[AnyOperator]:
        """The operators that come before the stream, and whose rows something reads."""
        wanted = {self._final.output}
        before = []
        for operator in reversed(self._context.pipeline.operators):
            if operator.output in wanted and operator.output not in replaced:
                wanted |= set(operator.inputs)
                if operator not in self._tail:
                    before.append(operator)
        return before[::-1]

    # ------------------------------------------------------------------ without Arrow operators

    def _streamed(self, relation: str) -> Iterator[pa.Table]:
        types = self._graph.types(relation)
        order = f" ORDER BY {quote_ident(ROW)}" if ROW in types else ""
        sql = f"SELECT * FROM (\n{self._graph.sql(relation)}\n){order}"
        self._graph.statements.append((relation, sql))
        profile, connection = self._context.profile, self._graph.connection
        with profile.statement(connection, relation, lambda: self._graph.composed(relation)):
            reader = self._graph.stream(sql, relation, self._rows_per_chunk)
            yield reader.schema.empty_table()
            for batch in profile.waiting(self._graph.batches(reader, relation)):
                yield pa.Table.from_batches([batch])

    # ------------------------------------------------------------------ with Arrow operators

    def _chunks(self, relation: str) -> Iterator[pa.Table]:
        """The kept relation's rows in order; a last empty chunk shows the schema of an empty day."""
        name = quote_ident(relation)
        bounds = self._graph.rows(
            f"SELECT {ROW} FROM (SELECT {ROW}, row_number() OVER (ORDER BY {ROW}) - 1 AS n FROM {name}) "
            f"WHERE n % {self._rows_per_chunk} = 0 ORDER BY {ROW}",
            relation,
        )
        starts = [row[0] for row in bounds] or [0]
        columns = list(self._graph.types(relation))
        for index, start in enumerate(starts):
            below = f" AND {ROW} < {starts[index + 1]}" if index + 1 < len(starts) else ""
            yield self._graph.arrow(relation, columns, f"WHERE {ROW} >= {start}{below}")

    def _through_tail(self, chunk: pa.Table) -> pa.Table:
        made: list[str] = []
        pending: list[AnyOperator] = []
        for operator in self._tail:
            if runs_in_sql(operator):
                pending.append(operator)
                continue
            chunk = self._run_sql(pending, chunk, made)
            pending = []
            chunk = self._run_arrow(operator, chunk)
            self._pass_absent_on(operator)
            made += made_columns(operator)
        return self._run_sql(pending, chunk, made)

    def _run_arrow(self, operator: AnyOperator, chunk: pa.Table) -> pa.Table:
        step = "function" if isinstance(operator, ArrowUdfTransform) else "aggregate"
        with self._context.profile.shared(operator.name, step, chunk.num_rows):
            return self._with_columns(operator, chunk)

    def _with_columns(self, operator: AnyOperator, chunk: pa.Table) -> pa.Table:
        if isinstance(operator, ArrowUdfTransform):
            kind = to_arrow(canonical_dtype(operator.dtype))
            run = run_on_ray if operator.engine is Engine.PYTHONIC else _call_here
            return run(apply_arrow_udf, operator, chunk, kind)
        if not isinstance(operator, RollingAggregate | PointInTimeJoin):
            raise TypeError(f"{operator.op_kind} has no Arrow tier")
        aggregate = self._aggregate(operator)
        if aggregate is not None:
            arrays = aggregate.columns(chunk[ROW].to_numpy())
        else:
            columns = spine_columns(operator.specs, chunk.column_names)
            arrays = aggregate_rows(
                operator, chunk.select(columns), self._histories_of(operator), self._unit, self._duckdb_config
            )
        for spec, array in zip(operator.specs, arrays, strict=True):
            chunk = chunk.append_column(spec.name, array)
        return chunk

    def _aggregate(self, operator: RollingAggregate | PointInTimeJoin) -> DayAggregate | None:
        """The operator's columns for the whole day; None where it reads what only the chunk has."""
        if operator.name in self._aggregates:
            return self._aggregates[operator.name]
        if self._resources is None or not reads_rows_before(self._tail, operator, self._columns):
            return None
        source = self._rows_before(operator)
        self._graph.keep(source)
        made = DayAggregate(
            operator,
            rows=source,
            graph=self._graph,
            in_files=self._from_files,
            unit=self._unit,
            resources=self._resources,
        )
        self._aggregates[operator.name] = self._open.enter_context(made)
        return made

    def _rows_before(self, operator: RollingAggregate | PointInTimeJoin) -> str:
        """A relation of exactly the tail's rows with what the specs read of them, best one that is kept anyway."""
        wanted = {TICK, *spine_columns(operator.specs, self._columns[operator.inputs[0]])}
        first = self._tail[0].inputs[0]
        name = first
        while not (self._graph.knows(name) and self._graph.is_kept(name)):
            before = self._context.pipeline.producer(name)
            drops = isinstance(before, Filter) or (isinstance(before, Join) and before.how != "left")
            if drops or not before.inputs or writes(before, wanted):
                return first
            name = before.inputs[0]
        return name

    # ------------------------------------------------------------------ aggregates beside finished rows

    def _with_aggregates(self, beside: BesideRows) -> Iterator[pa.Table]:
        """The finished rows as one statement makes them, each chunk with the aggregates of its rows."""
        for late in beside.aggregates:
            with self._context.profile.shared(late.name, "aggregate"):
                self._aggregate(late)
            self._graph.define(late.output, f"SELECT * FROM {quote_ident(late.inputs[0])}", late.inputs[:1])
            self._pass_absent_on(late)
        for operator in beside.held.operators:
            self._relations.add(operator)
        source = self._rows_before(beside.aggregates[0])
        rows_in = self._graph.rows(f"SELECT count(*) FROM {quote_ident(source)}", source)[0][0]
        filters = [operator for operator in beside.held.operators if isinstance(operator, Filter)]
        passed: list[pa.ChunkedArray] = []
        for chunk in self._in_slices(source, rows_in):
            rows = chunk[ROW].to_numpy()
            if len(filters) > 1:
                passed.append(chunk[ROW])
            columns: dict[str, pa.Array] = {}
            for late in beside.aggregates:
                with self._context.profile.shared(late.name, "aggregate", chunk.num_rows):
                    arrays = self._aggregates[late.name].columns(rows)
                columns |= {spec.name: array for spec, array in zip(late.specs, arrays, strict=True)}
            rows_in -= chunk.num_rows
            yield beside.held.beside(chunk, columns)
        if len(filters) > 1 and rows_in:
            self._count_each(filters, source, passed)
        elif filters:
            self.counts.drop(filters[-1].name, rows_in)

    def _told_apart(self, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The chunks; then its own count for each of the last filters, where their input is at hand."""
        names = self.counts.last_together()
        source = self._kept_before(names[0]) if names else ""
        passed: list[pa.ChunkedArray] = []
        for chunk in chunks:
            if source:
                passed.append(chunk[ROW])
            yield chunk
        if source:
            self.counts.forget(names)
            filters = [one for one in main_chain(self._context.pipeline) if one.name in names]
            self._count_each(filters, source, passed)

    def _kept_before(self, name: str) -> str:
        """A table of exactly the rows that the filter gets; empty where there is none."""
        chain = main_chain(self._context.pipeline)
        place = [operator.name for operator in chain].index(name)
        for operator in reversed(chain[:place]):
            relation = operator.output
            if self._graph.knows(relation) and self._graph.is_kept(relation):
                return relation if ROW in self._graph.types(relation) else ""
            if isinstance(operator, Filter) or (isinstance(operator, Join) and operator.how != "left"):
                break
        return ""

    def _count_each(
        self, filters: Sequence[AnyOperator], source: str, passed: Sequence[pa.ChunkedArray]
    ) -> None:
        """Send the rows that did not arrive through the filters again: these few cost little."""
        whole = self._set_aside(source)
        arrived = pa.chunked_array([part for column in passed for part in column.chunks], pa.int64())
        self._graph.connection.register("__arrived", pa.table({ROW: arrived}))
        missing = f"SELECT * FROM {quote_ident(whole)} ANTI JOIN __arrived USING ({ROW})"
        self._graph.execute(f"CREATE OR REPLACE TABLE {DROPPED} AS {missing}", source)
        self._graph.connection.unregister("__arrived")
        self._send_again(filters, source)

    def _send_again(self, filters: Sequence[AnyOperator], source: str) -> None:
        """Count what each filter drops of the table of dropped rows, once rows of `source`."""
        self._graph.define(source, f"SELECT * FROM {DROPPED}", ())
        dropped = self._graph.rows(f"SELECT count(*) FROM {DROPPED}", source)[0][0]
        self._count_dropped(filters, dropped, 0)

    def _set_aside(self, source: str) -> str:
        """The table of all rows of a kept relation, under another name: its own may then mean some of them."""
        whole = f"__whole_{source}"
        if self._graph.is_kept(source):
            self._graph.rename(source, whole)
        return whole

    def _in_slices(self, source: str, rows: int) -> Iterator[pa.Table]:
        """The finished rows; those of a large day by a statement per slice of `source`, so that none sorts them all."""
        self._drop_what_is_not_read()
        if rows <= SLICE_ROWS:
            yield from self._streamed(self._final.output)
            return
        for operator in self._context.pipeline:
            # Restricted to keys of the day, and read once for all slices.
            if isinstance(operator, Scan) and operator.output in self._graph.composed(self._final.output):
                self._graph.keep(operator.output)
        found = self._graph.fetch(f"SELECT {ROW} FROM {quote_ident(source)} ORDER BY {ROW}", source)
        starts = found[ROW].to_numpy()[::SLICE_ROWS].tolist()
        del found
        whole = self._set_aside(source)
        for index, start in enumerate(starts):
            below = f" AND {ROW} < {starts[index + 1]}" if index + 1 < len(starts) else ""
            slice_sql = f"SELECT * FROM {quote_ident(whole)} WHERE {ROW} >= {start}{below}"
            self._graph.define(source, slice_sql, ())
            yield from self._streamed(self._final.output)
            give_back_memory()  # else each slice adds to what the allocators hold

    def _drop_what_is_not_read(self) -> None:
        """Forget tables that only the aggregates needed."""
        read = self._still_read()
        for operator in self._context.pipeline:
            name = operator.output
            if name not in read and self._graph.knows(name) and self._graph.is_kept(name):
                self._graph.drop(name)

    def _still_read(self) -> set[str]:
        """The relations that the finished rows are made from."""
        names = set(self._graph.composed(self._final.output))
        return names.union(*(one.inputs for one in self._context.pipeline if one.output in names))

    def _histories_of(self, operator: RollingAggregate | PointInTimeJoin) -> dict[str | None, pa.Table]:
        wanted = history_columns(operator)
        return {
            view: self._history(relation, wanted[view])
            for view, relation in history_inputs(operator).items()
            if view in wanted
        }

    def _history(self, relation: str, wanted: tuple[str, ...]) -> pa.Table:
        """A history's rows in their order, with the columns that its specs read; fetched once a day."""
        key = (relation, wanted)
        if key not in self._histories:
            folded = {name.lower() for name in wanted}  # SQL names are the same in any case
            columns = [name for name in self._graph.types(relation) if name.lower() in folded]
            self._graph.keep(relation)
            self._histories[key] = self._graph.arrow(relation, columns)
        return self._histories[key]

    def _run_sql(self, operators: list[AnyOperator], chunk: pa.Table, made: list[str]) -> pa.Table:
        """The chunk through consecutive SQL operators; columns that they only pass on are held aside."""
        if not operators:
            return chunk
        held = HeldColumns.of(operators, [name for name in made if name in chunk.column_names])
        first = operators[0].inputs[0]
        source = f"__chunk_of_{first}"
        self._graph.connection.register(source, chunk.drop_columns(list(held.columns)))
        self._graph.define(first, self._graph.select_registered(source), ())
        for operator in held.operators:
            self._relations.add(operator)
        last = operators[-1].output
        sql = f"SELECT * FROM (\n{self._graph.sql(last)}\n) ORDER BY {quote_ident(ROW)}"
        result = self._graph.fetch(sql, last)
        self._count_dropped(held.operators, chunk.num_rows, result.num_rows)
        if not any(name == last for name, _ in self._graph.statements):
            self._graph.statements.append((last, sql))
        self._graph.connection.unregister(source)
        return held.restore(result, chunk)

    def _count_dropped(self, operators: Sequence[AnyOperator], rows: int, rows_out: int) -> None:
        filters = [operator for operator in operators if isinstance(operator, Filter)]
        for operator in filters:
            passed = rows_out
            if operator is not filters[-1]:
                count = f"SELECT count(*) FROM ({self._graph.sql(operator.output)})"
                passed = self._graph.execute(count, operator.name).fetchall()[0][0]
            self.counts.drop(operator.name, rows - passed)
            rows = passed

    def _add_whole(self, operator: AnyOperator) -> None:
        """An Arrow operator beside the main chain: its whole relation at once, then a table."""
        source = operator.inputs[0]
        self._graph.keep(source)
        whole = self._graph.arrow(source, list(self._graph.types(source)))
        made = self._run_arrow(operator, whole)
        registered = f"__arrow_{operator.output}"
        self._graph.connection.register(registered, made)
        self._graph.define(operator.output, f"SELECT * FROM {quote_ident(registered)}", ())
        self._graph.keep(operator.output)
        self._graph.connection.unregister(registered)
        self._pass_absent_on(operator)

    def _pass_absent_on(self, operator: AnyOperator) -> None:
        """What the source lacks, its Arrow operator's output lacks, too: defaults are filled in after it."""
        absent = self._relations.absent
        absent[operator.output] = absent.get(operator.inputs[0], frozenset()) - set(made_columns(operator))


def _call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
