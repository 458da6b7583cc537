"""The rows of a day that are only looked up for, held in Arrow in the view's total order.

Where the rows are those of a scan, they come out of DuckDB as they lie in the files, and are put into order here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.total_order import TotalOrder, has_instants
from daedalus.pipelines.operators import ROW, Filter, Scan
from daedalus.pipelines.run_sources import is_run_relation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.storage.view_reader import ViewReader

_READ_ROWS = 262_144


class RowsNotHeldError(Exception):
    """The day's rows cannot be held in Arrow, and the plan is for rows that are."""


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
        """The rows in order of `__row`; the relation is a table from then on. None where they take too much memory.

        Raises:
            RowsNotHeldError: the source no longer has all of them.
        """
        relations = self._relations
        scan = _bare_scan(relations.context.pipeline, self._name)
        if scan is None or not relations.context.sources.is_local(scan.source_ref):
            return self._graph.hold(self._name, _READ_ROWS, self._memory, in_order)
        base, reader = relations.scan_rows(scan)
        if not has_instants(reader):
            return self._graph.hold(self._name, _READ_ROWS, self._memory, in_order)
        relations.add_unnumbered(scan)
        found = self._graph.hold(
            self._name, _READ_ROWS, self._memory, lambda rows: self._in_total_order(rows, base, reader)
        )
        if found is None:
            relations.add(scan)
        return found

    def _in_total_order(self, rows: pa.Table, base: str, reader: ViewReader) -> pa.Table:
        ordered = TotalOrder(reader, self._graph, self._name).sorted(rows, base)
        if ordered is None:
            self._relations.context.sources.verify_unchanged()  # says which file is another by now
            raise RowsNotHeldError
        numbers = pa.array(np.arange(1, ordered.num_rows + 1))
        return ordered.set_column(ordered.schema.get_field_index(ROW), ROW, numbers).combine_chunks()


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
