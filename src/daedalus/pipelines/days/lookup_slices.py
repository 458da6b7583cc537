"""The rows of a large day, kept as a table and held in Arrow slice by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.days.lookup_keys import Keys
from daedalus.pipelines.days.total_order import SIMPLE
from daedalus.pipelines.operators import ROW, TICK
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from daedalus.pipelines.days.relation_graph import RelationGraph

#: Types of keys whose values Arrow tells apart as SQL's `=` does; of floats it knows two zeros.
_EXACT = (SIMPLE | INTEGERS) - {"FLOAT", "DOUBLE"}
_READ_ROWS = 262_144


class RowSlices:
    """A kept relation's rows, in slices of their order.

    Args:
        graph: where the relation is a table.
        name: of the relation.
        size: rows of a slice.
    """

    def __init__(self, graph: RelationGraph, name: str, size: int) -> None:
        self._graph = graph
        self._name = name
        self._size = size

    def can_number(self, keys: Sequence[tuple[str, ...]]) -> bool:
        """Whether a slice's keys can be found among those of all rows."""
        types = self._graph.types(self._name)
        return _EXACT.issuperset(types[name] for one in keys for name in one)

    def keys(self, names: tuple[str, ...], most: int) -> Keys:
        """The distinct keys of all rows.

        Raises:
            MemoryError: they take more than `most` bytes.
        """
        columns = ", ".join(quote_ident(name) for name in names)
        known = " AND ".join(f"{quote_ident(name)} IS NOT NULL" for name in names)
        sql = f"SELECT DISTINCT {columns} FROM {quote_ident(self._name)} WHERE {known}"
        return Keys(self._graph.fetch_at_most(sql, self._name, _READ_ROWS, most).columns)

    def nulls(self, keys: Sequence[tuple[str, ...]]) -> dict[str, int]:
        """How many NULLs each key column has."""
        names = list(dict.fromkeys(name for one in keys for name in one))
        counts = ", ".join(f"count(*) - count({quote_ident(name)})" for name in names)
        found = self._graph.rows(f"SELECT {counts} FROM {quote_ident(self._name)}", self._name)[0]
        return dict(zip(names, found, strict=True))

    def between(self) -> tuple[int, int]:
        """The first and the last row's time; a row without one finds nothing."""
        sql = f"SELECT min({TICK}), max({TICK}) FROM {quote_ident(self._name)}"
        low, high = self._graph.rows(sql, self._name)[0]
        return (low, high) if low is not None else (0, 0)

    def sample(self) -> pa.Table:
        """No rows, with all columns."""
        return self._graph.fetch(f"SELECT * FROM {quote_ident(self._name)} LIMIT 0", self._name)

    def __iter__(self) -> Iterator[pa.Table]:
        """The slices in order; one without rows, where there are none."""
        found = self._graph.fetch(f"SELECT {ROW} FROM {quote_ident(self._name)} ORDER BY {ROW}", self._name)
        starts = found[ROW].to_numpy()[:: self._size].tolist()
        del found
        columns = list(self._graph.types(self._name))
        if not starts:
            yield self.sample()
        for index, start in enumerate(starts):
            below = f" AND {ROW} < {starts[index + 1]}" if index + 1 < len(starts) else ""
            yield self._graph.arrow(self._name, columns, f"WHERE {ROW} >= {start}{below}")
