"""The rows of a day that are only looked up for, held in Arrow in the view's total order.

Where the rows are those of a scan, they come out of DuckDB as they lie in the files. Their times are mostly in order
already; only rows of equal times are ordered by DuckDB, and read again if they do not hold all that orders them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.days.lookup_kernels import tied
from daedalus.pipelines.operators import ROW, TICK, Filter, Scan
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.storage.view_reader import ViewReader

_INSTANTS = (INTEGERS - {"HUGEINT"}) | {
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "DATE",
}
#: Types whose values DuckDB takes from Arrow as it gave them.
COMES_BACK = _INSTANTS | {"FLOAT", "DOUBLE", "VARCHAR", "BOOLEAN"}
_READ_ROWS = 262_144


class HeldRows:
    """Holds the rows of one relation.

    Args:
        relations: the day's; the relation and what it reads are defined there.
        name: of the relation.
        memory: bytes that its rows may take.
    """

    def __init__(self, relations: DayRelations, name: str, memory: int) -> None:
        self._relations = relations
        self._graph = relations.graph
        self._name = name
        self._memory = memory

    def read(self) -> pa.Table | None:
        """The rows in order of `__row`; the relation is a table from then on. None where they take too much memory."""
        relations = self._relations
        scan = _bare_scan(relations.context.pipeline, self._name)
        if scan is None or not relations.context.sources.is_local(scan.source_ref):
            return self._graph.hold(self._name, _READ_ROWS, self._memory, in_order)
        base, reader = relations.scan_rows(scan)
        if not _is_instant(reader):
            return self._graph.hold(self._name, _READ_ROWS, self._memory, in_order)
        relations.add_unnumbered(scan)
        found = self._graph.hold(
            self._name, _READ_ROWS, self._memory, lambda rows: self._in_total_order(rows, base, reader)
        )
        if found is None:
            relations.add(scan)
        return found

    def _in_total_order(self, rows: pa.Table, base: str, reader: ViewReader) -> pa.Table:
        ticks = rows[TICK].to_numpy()
        if not (ticks[1:] > ticks[:-1]).all():
            order = np.argsort(ticks, kind="stable")
            equal = tied(ticks[order], ticks[order])
            if equal.any():
                ranked = self._ranked(rows.take(pa.array(order[equal])), base, reader)
                if ranked.num_rows != np.count_nonzero(equal):
                    self._relations.context.sources.verify_unchanged()  # says which file is another by now
                order[equal] = np.arange(rows.num_rows, rows.num_rows + ranked.num_rows)
                rows = pa.concat_tables([rows, ranked])
            rows = rows.take(pa.array(order)).combine_chunks()
        numbers = pa.array(np.arange(1, rows.num_rows + 1))
        return rows.set_column(rows.schema.get_field_index(ROW), ROW, numbers)

    def _ranked(self, rows: pa.Table, base: str, reader: ViewReader) -> pa.Table:
        """These rows, all that have their times, in the view's total order."""
        registered = f"__equal_times_of_{self._name}"
        if _comes_back_from_arrow(rows, reader):
            given, source = rows, f"SELECT * FROM {quote_ident(registered)}"
        else:
            given = rows.select([TICK]).group_by(TICK).aggregate([])
            source = f"SELECT b.* FROM ({base}) AS b SEMI JOIN {quote_ident(registered)} AS e USING ({TICK})"
        names = [
            f"CAST(0 AS BIGINT) AS {ROW}" if name == ROW else quote_ident(name) for name in rows.column_names
        ]
        self._graph.connection.register(registered, given)
        try:
            return self._graph.fetch(
                f"SELECT {', '.join(names)} FROM ({source}) ORDER BY {TICK}, {reader.order_sql()}", self._name
            )
        finally:
            self._graph.connection.unregister(registered)


def _bare_scan(pipeline: OperatorPipeline, name: str) -> Scan | None:
    """The scan of which the relation is the day's rows, all of them, in its total order."""
    day = pipeline.producer(name)
    if not isinstance(day, Filter) or not day.target_day or day.predicate or day.counts:
        return None
    scan = pipeline.producer(day.inputs[0])
    if not isinstance(scan, Scan) or not scan.ordered or is_run_relation(scan.source_ref):
        return None
    alone = sum(scan.output in one.inputs for one in pipeline) == 1
    return scan if alone and scan.keep is None and not scan.restrict else None


def _is_instant(reader: ViewReader) -> bool:
    """Whether times in ticks are in the order of the view's time, and as many."""
    field = reader.view.timestamp_field
    return bool(field) and reader.columns[field].dtype in _INSTANTS


def _comes_back_from_arrow(rows: pa.Table, reader: ViewReader) -> bool:
    """Whether the rows hold what orders them, all of types that DuckDB takes from Arrow as it gave them."""
    types = {reader.columns[name].dtype for name in rows.column_names if name not in (ROW, TICK)}
    return COMES_BACK.issuperset(types) and set(reader.order_by()).issubset(rows.column_names)


def in_order(table: pa.Table) -> pa.Table:
    """The rows in order of `__row`."""
    rows = table[ROW].to_numpy()
    if (rows[1:] > rows[:-1]).all():
        return table
    return table.take(pa.array(rows.argsort())).combine_chunks()


def beside(made: pa.Table, rows: pa.Table, passed: Mapping[str, str]) -> pa.Table:
    """What SQL made of some of the rows, with their own columns.

    Args:
        made: in order of `__row`.
        rows: in the same order; more of them.
        passed: new name to column of `rows`.
    """
    own = rows.select(list(dict.fromkeys(passed.values())))
    if made.num_rows < rows.num_rows:
        places = np.searchsorted(rows[ROW].to_numpy(), made[ROW].to_numpy())
        own = own.take(pa.array(places))
    columns = dict(zip(made.column_names, made.columns, strict=True))
    return pa.table(columns | {name: own[column] for name, column in passed.items()})
