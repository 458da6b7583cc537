"""The rows that look something up: their positions and times, and the numbers of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.catalog.dtypes import INTEGERS
from daedalus.pipelines.operators import ROW, TICK
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_index import IntegerIndex, TextIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from daedalus.storage.embedding_index import IdIndex

#: View types whose values an index of integers holds.
_INDEXED = INTEGERS - {"HUGEINT", "UBIGINT"}


class Keys:
    """One set of key columns, whose distinct values are numbered.

    Args:
        parts: the distinct keys, one array per column, without NULLs.

    Attributes:
        distinct: one row per number, columns `k0`, `k1` ... and `code`.
        index: from a key's value to its number; None for keys of several columns or of other types.
    """

    def __init__(self, parts: Sequence[pa.Array | pa.ChunkedArray]) -> None:
        parts = [_one_array(part) for part in parts]
        columns = {f"k{n}": part for n, part in enumerate(parts)}
        self.distinct = pa.table(columns | {"code": pa.array(np.arange(len(parts[0]), dtype=np.int64))})
        self.index = _index_of(parts[0]) if len(parts) == 1 else None

    def index_for(self, dtype: str) -> IdIndex | None:
        """What numbers keys of this DuckDB type as SQL's `=` would; None where only SQL can."""
        same = dtype in _INDEXED if isinstance(self.index, IntegerIndex) else dtype == "VARCHAR"
        return self.index if same else None

    def codes(self, columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
        """The number of each row's key; -1 where a part of it is NULL."""
        if self.index is not None:
            return self.index.find(_one_array(columns[0]))
        known = self.distinct.drop_columns("code").columns
        among_known: NDArray[np.int64] = np.zeros(self.distinct.num_rows, np.int64)
        codes: NDArray[np.int64] = np.zeros(len(columns[0]), np.int64)
        for part, column in zip(known, columns, strict=True):
            values = part.unique()
            among_known = among_known * len(values) + _places(part, values)
            numbers = _places(column, values)
            codes = np.where((codes < 0) | (numbers < 0), -1, codes * len(values) + numbers)
            pairs = pa.array(np.unique(among_known))
            codes = np.where(codes < 0, -1, _places(pa.array(codes), pairs))
            among_known = _places(pa.array(among_known), pairs)
        order = np.argsort(among_known)
        return np.where(codes < 0, -1, order[codes])


class KeyedRows:
    """Positions and times of rows of a day, and the numbers of their keys.

    Args:
        rows: their keys, `__row` and `__t`, in order.
        keys: sets of key columns.
        known: the numbers that keys have, every key of the rows among them; None numbers them.
    """

    def __init__(
        self,
        rows: pa.Table,
        keys: Sequence[tuple[str, ...]],
        known: Mapping[tuple[str, ...], Keys] | None = None,
    ) -> None:
        self.rows: NDArray[np.int64] = rows[ROW].to_numpy()
        # A row without a time finds nothing.
        ticks = rows[TICK]
        if ticks.null_count:
            ticks = ticks.fill_null(np.iinfo(np.int64).min)
        self.times: NDArray[np.int64] = ticks.to_numpy()
        self.known = dict(known or {})
        self._codes: dict[tuple[str, ...], NDArray[np.int64]] = {}
        for names in dict.fromkeys(keys):
            if names in self.known:
                self._codes[names] = self.known[names].codes([rows[name] for name in names])
            else:
                self.known[names], self._codes[names] = _numbered(rows, names)

    def codes(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Per row the number of its key of these columns; -1 where a part of it is NULL."""
        return self._codes[names]

    def between(self) -> tuple[int, int]:
        """The first and the last of the rows' times."""
        return (int(self.times.min()), int(self.times.max())) if len(self.times) else (0, 0)

    def places(self, rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
        """Where rows with these positions stand."""
        if not len(rows):
            return slice(0, 0)
        first, last = np.searchsorted(self.rows, rows[[0, -1]])
        if last - first + 1 == len(rows):
            return slice(int(first), int(last) + 1)
        return np.searchsorted(self.rows, rows)


def nulls_of(rows: pa.Table, keys: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """How many NULLs each key column has."""
    return {name: rows[name].null_count for one in keys for name in one}


def _numbered(rows: pa.Table, names: tuple[str, ...]) -> tuple[Keys, NDArray[np.int64]]:
    """Number the distinct keys, column by column; and each row's number."""
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
    return Keys(parts), codes if known.all() else np.where(known, codes, -1)


def _places(values: pa.Array | pa.ChunkedArray, among: pa.Array) -> NDArray[np.int64]:
    """Where each value stands; -1 for those that do not, and NULL."""
    found = pc.index_in(values, value_set=among, skip_nulls=True)
    places: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    return whole


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    encoded = _one_array(column).dictionary_encode()
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
