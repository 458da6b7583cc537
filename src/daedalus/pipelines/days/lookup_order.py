"""The total order of versions that have equal keys and times, by what is held of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.days.total_order import SIMPLE
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.pipelines.days.lookup_keys import Keys
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.days.relation_graph import RelationGraph
    from daedalus.storage.view_reader import ViewReader

_ORDER, _PLACE = "__order", "__place"
#: Times of these types that are equal in ticks are equal.
_WHOLE_TICKS = frozenset({"TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_S", "TIMESTAMP_MS", "DATE"})
#: So many columns more than those looked up are read to order what is equal, rather than to read that again.
_MORE = 2


class VersionOrder:
    """What orders the versions of a lookup that have equal keys and times.

    Args:
        lookup: which view, and what of it.
        keys: of the rows.
        reader: of the view.

    Attributes:
        known: whether what is held orders them. It does not where the order takes many more columns than are
            looked up, or their values are others once they come from Arrow.
        more: (name, column) pairs that are held for this alone.
    """

    def __init__(self, lookup: Lookup, keys: Keys, reader: ViewReader) -> None:
        self._reader = reader
        filled = {column.sql for column in lookup.columns if not column.nullable}
        given = {column: name for name, column in lookup.given if quote_ident(name) not in filled}
        equal = {column for _, column in lookup.operator.on if self._is_told_by_code(column, keys)}
        time = reader.view.timestamp_field
        if time and reader.columns[time].dtype in _WHOLE_TICKS:
            equal.add(time)
        wanted = [name for name in reader.order_by() if name not in equal]
        self._names = {name: given.get(name, f"{_ORDER}{number}") for number, name in enumerate(wanted)}
        more = tuple((name, column) for column, name in self._names.items() if column not in given)
        simple = SIMPLE.issuperset(reader.columns[name].dtype for name in wanted)
        self.known = simple and len(more) <= len(lookup.given) + _MORE
        self.more = more if self.known else ()

    def _is_told_by_code(self, column: str, keys: Keys) -> bool:
        """Whether versions with the same number for their key have the same value in this part of it."""
        dtype = self._reader.columns[column].dtype
        return dtype in INTEGERS or keys.index_for(dtype) is not None

    def ranks(self, versions: pa.Table, graph: RelationGraph, name: str) -> NDArray[np.int64]:
        """The places of versions in the view's total order, as far as they have equal keys and times."""
        columns = dict.fromkeys(self._names.values())
        table = versions.select(list(columns)).append_column(_PLACE, pa.array(np.arange(versions.num_rows)))
        items = [f"{_PLACE}"]
        for column in self._reader.order_by():
            value = quote_ident(self._names[column]) if column in self._names else "NULL"
            items.append(f"{value} AS {quote_ident(column)}")
        registered = f"__equal_of_{name}"
        graph.connection.register(registered, table)
        try:
            ordered = graph.fetch(
                f"SELECT {_PLACE} FROM (SELECT {', '.join(items)} FROM {quote_ident(registered)}) "
                f"ORDER BY {self._reader.order_sql()}, {_PLACE}",
                name,
            )
        finally:
            graph.connection.unregister(registered)
        ranks: NDArray[np.int64] = np.empty(versions.num_rows, np.int64)
        ranks[ordered[_PLACE].to_numpy()] = np.arange(versions.num_rows)
        return ranks
