"""A day's finished rows as a stream of Arrow tables, in total order.

Everything up to the first operator that is not plain SQL is one relation. From there on the day passes in
chunks of rows: Arrow operators run on a chunk, and the SQL operators after them run on the chunk registered as
a relation. Columns that Arrow operators made and SQL only passes on stay outside DuckDB.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtypes import canonical_dtype, to_arrow
from daedalus.pipelines.arrow_udfs import apply_arrow_udf
from daedalus.pipelines.day_counts import DayCounts
from daedalus.pipelines.held_columns import HeldColumns
from daedalus.pipelines.history_cache import (
    HistoryCache,
    HistoryChain,
    NotExactError,
    files_sql,
    read_files,
    reads_alike,
)
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    ArrowUdfTransform,
    Engine,
    Filter,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Sink,
)
from daedalus.pipelines.rolling_tiers import (
    TimeUnit,
    aggregate_rows,
    history_columns,
    history_inputs,
    prepare_aggregation,
    run_on_ray,
    spine_columns,
)
from daedalus.pipelines.schema import relation_columns
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.view_reader import FLOATS, apart_from_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from daedalus.compute.aggregate import Aggregation
    from daedalus.pipelines.day_context import DayContext
    from daedalus.pipelines.day_relations import DayRelations
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline

CHUNK_ROWS = 131_072


def output_operator(pipeline: OperatorPipeline) -> AnyOperator:
    """The last operator of the skeleton stage: what the enrichment, or the sink, reads."""
    operator = pipeline.operators[-1]
    while isinstance(operator, Sink | RayUdfTransform):
        operator = pipeline.producer(operator.inputs[0])
    return operator


def main_chain(pipeline: OperatorPipeline) -> list[AnyOperator]:
    """The operators that each row of the output passes through, first inputs only, in order."""
    chain: list[AnyOperator] = []
    operator: AnyOperator | None = output_operator(pipeline)
    while operator is not None:
        chain.append(operator)
        operator = pipeline.producer(operator.inputs[0]) if operator.inputs else None
    return chain[::-1]


class DayStream:
    """Runs the operators of one day and yields its rows.

    Args:
        context: the day.
        relations: its relations, empty so far.
        rows_per_chunk: how many rows pass through Arrow operators at once.
    """

    def __init__(
        self, context: DayContext, relations: DayRelations, rows_per_chunk: int = CHUNK_ROWS
    ) -> None:
        self._context = context
        self._relations = relations
        self._graph = relations.graph
        self._rows_per_chunk = rows_per_chunk
        self._tail = _tail(context.pipeline)
        self._final = output_operator(context.pipeline)
        self._histories: dict[tuple[str, tuple[str, ...]], pa.Table] = {}
        self._history_files: dict[str, list[Path]] = {}
        self._prepared: dict[str, Aggregation] = {}
        self._from_files: tuple[str, ...] = ()
        self._counts = DayCounts()
        self._open = contextlib.ExitStack()
        self._unit = TimeUnit(context.ticks_per_second, context.spine_ticks)
        self._duckdb_config = context.config.duckdb_settings()

    def prepare(self) -> None:
        """Run everything that comes before the stream."""
        done = {operator.output for operator in self._tail} | self._shared_history()
        for operator in self._context.pipeline:
            if operator.output not in done and not isinstance(operator, Sink | RayUdfTransform):
                self.add(operator)
        if self._tail:
            self._graph.keep(self._tail[0].inputs[0])
        before = main_chain(self._context.pipeline)[: -len(self._tail) or None]
        self._counts.count_before(self._context, self._relations, before, self._from_files)

    def counters(self, rows_out: int) -> dict[str, int]:
        """Rows that came in and were dropped, when all `rows_out` rows have passed."""
        return self._counts.counters(rows_out)

    def add(self, operator: AnyOperator) -> None:
        """Define an operator's relation; an Arrow operator runs over all rows of its input."""
        if _runs_in_sql(operator):
            self._relations.add(operator)
        else:
            self._add_whole(operator)

    def tables(self) -> Iterator[pa.Table]:
        """The finished rows in order, with their positions where they have any; at least one, maybe empty, table."""
        if not self._tail:
            yield from self._streamed(self._final.output)
            return
        start = 0
        with self._open:
            for chunk in self._chunks(self._tail[0].inputs[0]):
                yield self._through_tail(chunk, start)
                start += chunk.num_rows

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
        self._history_files[chain.relation] = files
        names = relation_columns(self._context.pipeline)
        self._from_files = (*chain.same_rows, chain.relation)
        for relation in self._from_files:
            columns = ", ".join(quote_ident(name) for name in names[relation])
            self._graph.define(relation, f"SELECT {columns} FROM {files_sql(files)}", ())
        self._relations.take_absent(chain.operators)
        return {operator.output for operator in chain.operators} - set(chain.outside)

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
            for batch in profile.waiting(reader):
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

    def _through_tail(self, chunk: pa.Table, start: int) -> pa.Table:
        made: list[str] = []
        place: int | None = start
        pending: list[AnyOperator] = []
        for operator in self._tail:
            if _runs_in_sql(operator):
                pending.append(operator)
                continue
            place = None if pending else place
            chunk = self._run_sql(pending, chunk, made)
            pending = []
            chunk = self._run_arrow(operator, chunk, place)
            self._pass_absent_on(operator)
            made += _made_columns(operator)
        return self._run_sql(pending, chunk, made)

    def _run_arrow(self, operator: AnyOperator, chunk: pa.Table, start: int | None = None) -> pa.Table:
        """One Arrow operator on a chunk; `start` is its place in the kept relation while it has the same rows."""
        step = "function" if isinstance(operator, ArrowUdfTransform) else "aggregate"
        with self._context.profile.shared(operator.name, step, chunk.num_rows):
            return self._with_columns(operator, chunk, start)

    def _with_columns(self, operator: AnyOperator, chunk: pa.Table, start: int | None) -> pa.Table:
        if isinstance(operator, ArrowUdfTransform):
            kind = to_arrow(canonical_dtype(operator.dtype))
            run = run_on_ray if operator.engine is Engine.PYTHONIC else _call_here
            return run(apply_arrow_udf, operator, chunk, kind)
        if not isinstance(operator, RollingAggregate | PointInTimeJoin):
            raise TypeError(f"{operator.op_kind} has no Arrow tier")
        arrays = (
            self._prepared_columns(operator, chunk, start)
            if start is not None and operator.engine is Engine.SQL_ARROW_UDF
            else None
        )
        if arrays is None:
            columns = spine_columns(operator.specs, chunk.column_names)
            arrays = aggregate_rows(
                operator, chunk.select(columns), self._histories_of(operator), self._unit, self._duckdb_config
            )
        for spec, array in zip(operator.specs, arrays, strict=True):
            chunk = chunk.append_column(spec.name, array)
        return chunk

    def _prepared_columns(
        self, operator: RollingAggregate | PointInTimeJoin, chunk: pa.Table, start: int
    ) -> list[pa.Array] | None:
        """The specs' columns for a chunk that is still the kept relation's rows from `start` on.

        The day's rows are searched once, at the first chunk; None where a spec reads a column that only the
        chunk has.
        """
        source = self._tail[0].inputs[0]
        columns = spine_columns(operator.specs, chunk.column_names)
        if not set(columns) <= set(self._graph.types(source)):
            return None
        if operator.name not in self._prepared:
            rows = self._graph.arrow(source, columns)
            self._prepared[operator.name] = self._open.enter_context(
                prepare_aggregation(
                    operator, rows, self._histories_of(operator), self._unit, self._duckdb_config
                )
            )
        return self._prepared[operator.name].columns(start, start + chunk.num_rows)

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
            types = self._graph.types(relation)
            folded = {name.lower() for name in wanted}  # SQL names are the same in any case
            columns = [name for name in types if name.lower() in folded]
            if relation in self._history_files and all(reads_alike(types[name]) for name in columns):
                with self._context.profile.shared(relation, "read cache"):
                    self._histories[key] = read_files(self._history_files[relation], columns)
            else:
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
        self._graph.define(first, self._select_registered(source), ())
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
            self._counts.drop(operator.name, rows - passed)
            rows = passed

    def _select_registered(self, source: str) -> str:
        described = self._graph.connection.execute(f"DESCRIBE SELECT * FROM {quote_ident(source)}").fetchall()
        floats = [quote_ident(row[0]) for row in described if row[1] in FLOATS]
        replaced = ", ".join(f"{apart_from_source(name)} AS {name}" for name in floats)
        return f"SELECT *{f' REPLACE ({replaced})' if replaced else ''} FROM {quote_ident(source)}"

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
        absent[operator.output] = absent.get(operator.inputs[0], frozenset()) - set(_made_columns(operator))


def _tail(pipeline: OperatorPipeline) -> list[AnyOperator]:
    """The longest end of the main chain that chunks can pass through, beginning with an Arrow operator.

    A relation that another operator reads, too, and a filter that counts over groups need all rows at once:
    whatever comes before them is not in the tail.
    """
    chain = main_chain(pipeline)
    readers = Counter(name for operator in pipeline for name in operator.inputs)
    first = 0
    for index, operator in enumerate(chain):
        shared = operator is not chain[-1] and readers[operator.output] > 1
        if shared or (isinstance(operator, Filter) and operator.counts):
            first = index + 1
    late = [index for index in range(first, len(chain)) if not _runs_in_sql(chain[index])]
    return chain[late[0] :] if late else []


def output_schema(pipeline: OperatorPipeline, first: pa.Schema) -> pa.Schema:
    """The Arrow schema of the output: the contract's dtypes, and where it gives none, the values' own.

    Args:
        pipeline: its last projection is the contract.
        first: the schema in which the values arrive.
    """
    final = output_operator(pipeline)
    declared = {column.name: column.dtype for column in final.columns} if isinstance(final, Project) else {}
    fields = []
    for field in first:
        dtype = declared.get(field.name, "")
        kind = to_arrow(canonical_dtype(dtype)) if dtype else plain_type(field.type)
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """A type as Daedalus writes it: list items are named `item` and nullable, no large or view types."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("item", plain_type(kind.value_type)))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def _call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _runs_in_sql(operator: AnyOperator) -> bool:
    return operator.engine is Engine.SQL and not isinstance(operator, ArrowUdfTransform)


def _made_columns(operator: AnyOperator) -> list[str]:
    if isinstance(operator, RollingAggregate | PointInTimeJoin):
        return [spec.name for spec in operator.specs]
    return [operator.column] if isinstance(operator, ArrowUdfTransform) else []


def without_positions(table: pa.Table) -> pa.Table:
    """The table's named columns."""
    return table.drop_columns([name for name in (ROW, TICK) if name in table.column_names])
