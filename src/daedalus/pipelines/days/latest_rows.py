"""One row per key of a view, held in Arrow and found by the key's value: what `latest` joins add to any row.

The newest (or oldest) version of each key is found while the view's versions lie beside one another; only where two
have the same time does DuckDB say which one comes first in the view's total order.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.days.total_order import has_instants
from daedalus.pipelines.operators import TICK, Keep
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_index import IntegerIndex, TextIndex
from daedalus.storage.embedding_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.pipelines.operators import Scan
    from daedalus.storage.embedding_index import IdIndex

    Places = NDArray[np.int64]

_INDEXED = INTEGERS - {"HUGEINT", "UBIGINT"}
_KEY, _TIED = "__key", "__tied_keys_of_"
_EARLIEST = np.iinfo(np.int64).min
#: Bytes per row of what finds it, beside the row itself.
_PER_ROW = 40
_READ_ROWS = 131_072


def same_keys(left: str, right: str) -> bool:
    """Whether an index finds keys of these two DuckDB types as SQL's `=` would."""
    return {left, right} <= _INDEXED or left == right == "VARCHAR"


class LatestRows:
    """The rows of a scan that has one row per key, a single column.

    Args:
        scan: of a view, with `keep`; or of a relation of the run.
        key: its key column.
        columns: what is wanted of a row.
        relations: reads them; the scan's relation is defined there.
        memory: bytes that the rows may take.

    Raises:
        MemoryError: they take more.

    Attributes:
        nbytes: what they take.
    """

    def __init__(
        self, scan: Scan, key: str, columns: Sequence[str], relations: DayRelations, memory: int
    ) -> None:
        self._scan = dataclasses.replace(scan, restrict=(), inputs=())
        self._key = key
        self._columns = tuple(dict.fromkeys(columns))
        self._relations = relations
        self._memory = memory
        rows = self._read()
        keys = _whole(rows[_KEY])
        self.nbytes = rows.nbytes + _PER_ROW * rows.num_rows
        self._index: IdIndex = TextIndex(keys, key) if is_text(keys.type) else IntegerIndex(keys, key)
        ticks = rows[TICK]
        self._ticks: Places = ticks.fill_null(_EARLIEST).to_numpy() if ticks.null_count else ticks.to_numpy()
        nothing = pa.table({field.name: pa.nulls(1, field.type) for field in rows.schema})
        self._values = pa.concat_tables([rows, nothing]).combine_chunks()

    def places(self, keys: pa.Array) -> Places:
        """Where the row of each key stands; -1 where the key is NULL or has none."""
        codes = pa.types.is_dictionary(keys.type)
        if not codes and not is_text(keys.type):
            return self._index.find(keys)
        encoded = keys if codes else keys.dictionary_encode()
        found = np.append(self._index.find(encoded.dictionary), -1)
        indices = encoded.indices
        places: Places = found[(indices.fill_null(-1) if indices.null_count else indices).to_numpy()]
        return places

    def older_than(self, places: Places, times: Places) -> NDArray[np.bool_]:
        """Whether the row at a place, if any, is of a time before another; without a time it is."""
        return np.append(self._ticks, _EARLIEST)[places] < times

    def values(self, column: str, places: Places) -> pa.Array:
        """A column's values at these places; NULL at -1."""
        wanted = pa.array(np.where(places < 0, self._values.num_rows - 1, places))
        return _whole(self._values[self._name(column)].take(wanted))

    # ------------------------------------------------------------------ reading

    def _name(self, column: str) -> str:
        """Keys, times and values have names of their own: a value may be the key."""
        return f"c{self._columns.index(column)}"

    def _read(self) -> pa.Table:
        scan, relations = self._scan, self._relations
        if is_run_relation(scan.source_ref) or not scan.keep:
            return self._kept_by_sql(scan)
        base, reader = relations.scan_rows(scan)
        if not has_instants(reader):
            return self._kept_by_sql(scan)
        return self._kept_here(base)

    def _select(self, base: str) -> str:
        values = [f"{quote_ident(one)} AS {self._name(one)}" for one in self._columns]
        items = ", ".join([f"{quote_ident(self._key)} AS {_KEY}", TICK, *values])
        return f"SELECT {items} FROM ({base}) WHERE {quote_ident(self._key)} IS NOT NULL"

    def _kept_by_sql(self, scan: Scan) -> pa.Table:
        self._relations.add(scan)
        return self._fetch(self._select(self._relations.graph.sql(scan.output)))

    def _fetch(self, sql: str) -> pa.Table:
        graph = self._relations.graph
        return graph.fetch_at_most(sql, self._scan.output, _READ_ROWS, self._memory).combine_chunks()

    def _kept_here(self, base: str) -> pa.Table:
        rows = self._fetch(self._select(base))
        encoded = _whole(rows[_KEY]).dictionary_encode()
        count = len(encoded.dictionary)
        if count == rows.num_rows:
            return rows
        ticks = rows[TICK].fill_null(_EARLIEST).to_numpy()
        place: Places = np.full(count, -1, np.int64)
        tied = np.zeros(count, np.bool_)
        newest = ticks if self._scan.keep is Keep.NEWEST else ~ticks
        compiled(newest_places)(encoded.indices.to_numpy(), newest, place, tied)
        if not tied.any():
            return rows.take(pa.array(place))
        ranked = self._ranked(encoded.dictionary.filter(pa.array(tied)))
        return pa.concat_tables([rows.take(pa.array(place[~tied])), ranked]).combine_chunks()

    def _ranked(self, keys: pa.Array) -> pa.Table:
        """The rows of keys of which several have the same time, as the total order decides."""
        graph, registered = self._relations.graph, _TIED + self._scan.output
        graph.connection.register(registered, pa.table({_KEY: keys}))
        try:
            of_keys = dataclasses.replace(self._scan, restrict=((self._key, _KEY),), inputs=(registered,))
            return self._kept_by_sql(of_keys)
        finally:
            graph.connection.unregister(registered)


def newest_places(codes: Any, ticks: Any, place: Any, tied: Any) -> None:
    """`place[c]` is where the greatest tick of code `c` stands; `tied[c]` whether it stands there twice."""
    for i in range(codes.size):
        code = codes[i]
        best = place[code]
        if best < 0 or ticks[i] > ticks[best]:
            place[code] = i
            tied[code] = False
        elif ticks[i] == ticks[best]:
            tied[code] = True


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    combined = column.combine_chunks()
    if isinstance(combined, pa.Array):
        return combined
    return combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
