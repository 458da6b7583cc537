"""Rows that came as they lie in the files, put into their view's total order.

Their times are mostly in order already. Among equal times the next columns of the order decide, compared here while
they are whole numbers or instants without a NULL; what is equal even then, is ordered by DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.operators import ROW, TICK
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from daedalus.pipelines.days.relation_graph import RelationGraph
    from daedalus.storage.view_reader import ViewReader

    Places = NDArray[np.int64]

#: Types whose values are in the order of the integers that Arrow keeps for them.
INSTANTS = (INTEGERS - {"HUGEINT"}) | {
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "DATE",
}
#: Types that DuckDB takes from Arrow as it gave them.
SIMPLE = INSTANTS | {"FLOAT", "DOUBLE", "VARCHAR", "BOOLEAN"}


def has_instants(reader: ViewReader) -> bool:
    """Whether times in ticks are in the order of the view's time, and as many."""
    field = reader.view.timestamp_field
    return bool(field) and reader.columns[field].dtype in INSTANTS


def ordering_columns(reader: ViewReader, read: Iterable[str]) -> list[str]:
    """What to read beside `read`, so that few rows remain equal: what says when a row came, and the keys."""
    source = reader.view.source
    leading = {source.created_field, source.sequence_field, *reader.view.join_keys}
    present = set(read)
    return [name for name in reader.order_by() if name in leading and name not in present]


class TotalOrder:
    """The total order of a view's rows.

    Args:
        reader: of the view; its times are instants (`has_instants`).
        graph: orders what the integers leave equal.
        name: of the relation, for errors.
    """

    def __init__(self, reader: ViewReader, graph: RelationGraph, name: str) -> None:
        self._reader = reader
        self._graph = graph
        self._name = name
        self._order_by = reader.order_by()

    def sorted(self, rows: pa.Table, base: str) -> pa.Table | None:
        """The rows in order; None when the source no longer has all of them.

        Args:
            rows: columns of one chunk each, `__t` without a NULL among them.
            base: a SELECT of rows of the view, at least these, with all that orders them.
        """
        ticks = rows[TICK].to_numpy()
        if (ticks[1:] > ticks[:-1]).all():
            return rows
        order = _ascending(ticks)
        at = self._tied(rows, order, ticks)
        if len(at):
            if self._comes_back(rows):
                order[at] = self._ranked(rows, order[at])
            else:
                found = self._found_again(rows, ticks[order[at]], base)
                # All rows of these times, though only some were still tied.
                at = np.flatnonzero(np.isin(ticks[order], ticks[order[at]]))
                if found.num_rows != len(at):
                    return None
                order[at] = np.arange(rows.num_rows, rows.num_rows + found.num_rows)
                rows = pa.concat_tables([rows, found]).combine_chunks()
        return rows if _is_identity(order) and len(order) == rows.num_rows else rows.take(pa.array(order))

    def _tied(self, rows: pa.Table, order: Places, ticks: Places) -> Places:
        """Order equal times by further columns, in place; returns the places that are still tied."""
        at, group = _equal_neighbours(np.arange(len(order)), ticks[order])
        for name in self._order_by[1:]:
            if not len(at) or name not in rows.column_names:
                break
            values = self._integers(rows, name, order[at])
            if values is None:
                break
            same = group[1:] == group[:-1]
            if (same & (values[1:] < values[:-1])).any():
                inside = np.lexsort((values, group))
                order[at], values = order[at][inside], values[inside]
            changes = np.ones(len(at), np.bool_)
            changes[1:] = ~same | (values[1:] != values[:-1])
            at, group = _equal_neighbours(at, np.cumsum(changes))
        return at

    def _integers(self, rows: pa.Table, name: str, places: Places) -> Places | None:
        """A column's values there as integers of the same order; None where only DuckDB orders them."""
        if self._reader.columns[name].dtype not in INSTANTS or rows[name].null_count:
            return None
        column = rows[name].combine_chunks()
        whole = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if not pa.types.is_integer(whole.type):
            whole = whole.view(pa.int32() if whole.type.bit_width == 32 else pa.int64())
        values: Places = whole.to_numpy()[places]
        return values

    def _comes_back(self, rows: pa.Table) -> bool:
        """Whether the rows hold what orders them, of types that DuckDB takes from Arrow as it gave them."""
        types = {self._reader.columns[name].dtype for name in self._order_by}
        return types <= SIMPLE and set(self._order_by).issubset(rows.column_names)

    def _ranked(self, rows: pa.Table, places: Places) -> Places:
        """These places, in the order of their rows."""
        tied = rows.select(self._order_by).take(pa.array(places)).append_column("__place", pa.array(places))
        registered = f"__equal_rows_of_{self._name}"
        self._graph.connection.register(registered, tied)
        try:
            found = self._graph.fetch(
                f"SELECT __place FROM {quote_ident(registered)} ORDER BY {self._reader.order_sql()}",
                self._name,
            )
        finally:
            self._graph.connection.unregister(registered)
        ranked: Places = found["__place"].to_numpy()
        return ranked

    def _found_again(self, rows: pa.Table, times: Places, base: str) -> pa.Table:
        """All rows of these times, read again with what orders them."""
        names = ", ".join(
            "0::BIGINT AS __row" if name == ROW else quote_ident(name) for name in rows.column_names
        )
        registered = f"__equal_times_of_{self._name}"
        self._graph.connection.register(registered, pa.table({TICK: np.unique(times)}))
        try:
            return self._graph.fetch(
                f"SELECT {names} FROM (SELECT b.* FROM ({base}) AS b "
                f"SEMI JOIN {quote_ident(registered)} AS e USING ({TICK})) "
                f"ORDER BY {TICK}, {self._reader.order_sql()}",
                self._name,
            )
        finally:
            self._graph.connection.unregister(registered)


def _ascending(ticks: Places) -> Places:
    if (ticks[1:] >= ticks[:-1]).all():
        return np.arange(len(ticks))
    order: Places = np.argsort(ticks, kind="stable")
    return order


def _equal_neighbours(at: Places, group: Places) -> tuple[Places, Places]:
    """Those of ascending `group` that occur several times."""
    same = group[1:] == group[:-1]
    several = np.zeros(len(group), np.bool_)
    several[1:] |= same
    several[:-1] |= same
    return at[several], group[several]


def _is_identity(order: Places) -> bool:
    return bool((order == np.arange(len(order))).all())
