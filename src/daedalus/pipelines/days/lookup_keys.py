"""The rows that look something up: their positions and times, and the numbers of their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.operators import ROW, TICK
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_index import IntegerIndex, TextIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.storage.embedding_index import IdIndex

#: View types whose values an index of integers holds.
_INDEXED = INTEGERS - {"HUGEINT", "UBIGINT"}


@dataclass(frozen=True, slots=True)
class Keys:
    """One set of key columns, over all rows.

    Attributes:
        codes: per row the number of its key; -1 where a part of it is NULL.
        distinct: one row per number, columns `k0`, `k1` ... and `code`.
        index: from a key's value to its number; None for keys of several columns or of other types.
    """

    codes: NDArray[np.int64]
    distinct: pa.Table
    index: IdIndex | None

    def index_for(self, dtype: str) -> IdIndex | None:
        """What numbers keys of this DuckDB type as SQL's `=` would; None where only SQL can."""
        same = dtype in _INDEXED if isinstance(self.index, IntegerIndex) else dtype == "VARCHAR"
        return self.index if same else None


class KeyedRows:
    """Positions, times and keys of the rows of a day.

    Args:
        rows: their keys, `__row` and `__t`, in order.
        keys: sets of key columns.
    """

    def __init__(self, rows: pa.Table, keys: Sequence[tuple[str, ...]]) -> None:
        names = list(dict.fromkeys(name for one in keys for name in one))
        self.rows: NDArray[np.int64] = rows[ROW].to_numpy()
        # A row without a time finds nothing.
        ticks = rows[TICK]
        if ticks.null_count:
            ticks = ticks.fill_null(np.iinfo(np.int64).min)
        self.times: NDArray[np.int64] = ticks.to_numpy()
        self.nulls = {name: rows[name].null_count for name in names}
        self._keys = {one: _numbered(rows, one) for one in dict.fromkeys(keys)}

    def keys(self, names: tuple[str, ...]) -> Keys:
        """The rows' keys of these columns."""
        return self._keys[names]

    def places(self, rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
        """Where rows with these positions stand."""
        if not len(rows):
            return slice(0, 0)
        first, last = np.searchsorted(self.rows, rows[[0, -1]])
        if last - first + 1 == len(rows):
            return slice(int(first), int(last) + 1)
        return np.searchsorted(self.rows, rows)


def _numbered(rows: pa.Table, names: tuple[str, ...]) -> Keys:
    """Number the distinct keys, column by column."""
    known: NDArray[np.bool_] = np.ones(rows.num_rows, np.bool_)
    codes: NDArray[np.int64] = np.zeros(0, np.int64)
    parts: list[pa.Array] = []
    for name in names:
        encoded = _encoded(rows[name])
        indices = encoded.indices.fill_null(0) if encoded.indices.null_count else encoded.indices
        numbers = indices.to_numpy().astype(np.int64)
        if rows[name].null_count:
            known &= rows[name].is_valid().to_numpy()
        if not parts:
            codes, parts = numbers, [encoded.dictionary]
            continue
        size = len(encoded.dictionary)
        pairs = _encoded(pa.chunked_array([pa.array(codes * size + numbers)]))
        codes = pairs.indices.to_numpy().astype(np.int64)
        both = pairs.dictionary.to_numpy()
        parts = [part.take(pa.array(both // size)) for part in parts]
        parts.append(encoded.dictionary.take(pa.array(both % size)))
    columns = {f"k{n}": part for n, part in enumerate(parts)}
    distinct = pa.table(columns | {"code": pa.array(np.arange(len(parts[0]), dtype=np.int64))})
    index = _index_of(parts[0]) if len(parts) == 1 else None
    return Keys(codes if known.all() else np.where(known, codes, -1), distinct, index)


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    encoded = whole.dictionary_encode()
    if len(encoded.dictionary) == 0:  # all NULL: one key that nothing has
        nothing = pa.nulls(1, encoded.dictionary.type)
        return pa.DictionaryArray.from_arrays(encoded.indices, nothing)
    return encoded


def _index_of(distinct: pa.Array) -> IdIndex | None:
    kind = distinct.type
    if distinct.null_count:
        return None
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return IntegerIndex(distinct, "key")
    return TextIndex(distinct, "key") if is_text(kind) else None
