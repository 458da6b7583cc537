"""From id to row of a store, for whole batches of ids.

Integer ids go into an open-addressing hash table. Text ids go in by their 64-bit hash, and every hit is
compared with the id itself, so that equal hashes of different ids never answer for one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_kernels import compiled, fill_table, find_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_SEEDS = range(8)


class IdIndex(Protocol):
    """Finds ids in a store."""

    def find(self, ids: pa.Array) -> Rows:
        """The row of each id, -1 where the id is NULL or not in the store."""
        ...


class _HashTable:
    """Row numbers under unique int64 keys."""

    def __init__(self, keys: NDArray[np.int64]) -> None:
        bits = max(4, int(np.ceil(np.log2(max(1, len(keys)) * 1.5))))
        self._shift = 64 - bits
        self._keys = np.zeros(1 << bits, dtype=np.int64)
        small = len(keys) < np.iinfo(np.int32).max
        self._rows = np.full(1 << bits, -1, dtype=np.int32 if small else np.int64)
        self.duplicate = int(compiled(fill_table)(keys, self._keys, self._rows, self._shift))

    def find(self, keys: NDArray[np.int64]) -> Rows:
        out = np.empty(len(keys), dtype=np.int64)
        compiled(find_rows)(keys, self._keys, self._rows, self._shift, out)
        return out


class IntegerIndex:
    """Rows by integer id."""

    def __init__(self, ids: pa.Array, where: str) -> None:
        keys = ids.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        self._table = _HashTable(keys)
        if self._table.duplicate >= 0:
            raise _not_unique(keys[self._table.duplicate], where)

    def find(self, ids: pa.Array) -> Rows:
        """The row of each id, -1 where the id is NULL or unknown."""
        keys = pc.fill_null(ids, 0) if ids.null_count else ids
        rows = self._table.find(np.ascontiguousarray(keys.cast(pa.int64()).to_numpy(zero_copy_only=False)))
        if ids.null_count:
            rows[ids.is_null().to_numpy(zero_copy_only=False)] = -1
        return rows


class TextIndex:
    """Rows by text id."""

    def __init__(self, ids: pa.Array, where: str) -> None:
        self._ids = ids.cast(pa.large_string())
        for seed in _SEEDS:
            self._seed = seed
            self._table = _HashTable(_hash_text(self._ids, seed))
            if self._table.duplicate < 0:
                return
        raise _not_unique(self._ids[self._table.duplicate].as_py(), where)

    def find(self, ids: pa.Array) -> Rows:
        """The row of each id, -1 where the id is NULL or unknown."""
        text = ids.cast(pa.large_string())
        rows = self._table.find(_hash_text(text, self._seed))
        candidates = self._ids.take(pa.array(rows, mask=rows < 0))
        same = pc.fill_null(pc.equal(candidates, text), False)
        rows[~same.to_numpy(zero_copy_only=False)] = -1
        return rows


def build_index(batches: Iterable[pa.RecordBatch], id_type: pa.DataType, where: str) -> IdIndex:
    """Index the id column of a store, given as one-column batches in row order.

    Raises:
        ExecutionError: an id stands twice, so the store was not built by `daeda store build`.
    """
    chunks = [batch.column(0) for batch in batches]
    ids = pa.chunked_array(chunks, type=id_type).combine_chunks()
    if isinstance(ids, pa.ChunkedArray):  # pyarrow keeps a chunked array for text beyond 2 GiB
        ids = ids.cast(pa.large_string()).combine_chunks()
    return TextIndex(ids, where) if is_text(id_type) else IntegerIndex(ids, where)


def normal_id_type(kind: pa.DataType, where: str) -> pa.DataType:
    """The type ids are stored with: int64 for every integer type, string for text.

    Raises:
        DefinitionError: ids of this type cannot be looked up.
    """
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    if is_text(kind):
        return pa.string()
    raise DefinitionError(
        f"ids are integers or text, this column is {kind}",
        where=where,
        hint="Name another id column, or cast it in the source",
    )


def _hash_text(ids: pa.Array, seed: int) -> NDArray[np.int64]:
    import polars as pl

    hashed = pl.Series(pl.from_arrow(ids)).hash(seed)
    return np.ascontiguousarray(hashed.to_numpy()).view(np.int64)


def _not_unique(value: Any, where: str) -> ExecutionError:
    return ExecutionError(
        f"id {value!s} is in the store twice",
        where=where,
        hint="Rebuild it with `daeda store build`, which keeps one row per id",
    )
