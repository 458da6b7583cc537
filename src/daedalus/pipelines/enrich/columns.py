"""Compute the columns of one batch: ids to store rows, rows to vectors, vectors through the UDFs."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.catalog.dtypes import from_arrow
from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.enrich.udfs import UdfBatch
from daedalus.pipelines.profiling import NO_PROFILE
from daedalus.storage.arrow_kinds import is_list
from daedalus.storage.embedding_cache import VectorCache
from daedalus.storage.embedding_store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.pipelines.enrich.plan import EnrichPlan, PinnedStore, Transform
    from daedalus.pipelines.enrich.udfs import Udf
    from daedalus.pipelines.profiling import NoProfile

_MIN_CACHED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One transform's ids of a batch, and the store rows they name."""

    transform: Transform
    ids: pa.Array
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]


class StoreReader:
    """One pinned store in one worker: its id index and its vector cache."""

    def __init__(self, pinned: PinnedStore, cache_bytes: int) -> None:
        self.store = open_store(pinned.definition, pinned.version)
        self._cache = VectorCache(
            count=pinned.count,
            capacity=max(_MIN_CACHED, cache_bytes // pinned.definition.vector_bytes),
            dimension=self.store.dimension,
            dtype=self.store.dtype,
            fetch=self.store.read_rows,
            fetch_all=self.store.read_all,
        )

    def vectors(
        self, groups: Sequence[NDArray[np.int64]], *, whole: bool
    ) -> tuple[NDArray[Any], list[NDArray[np.int64]]] | None:
        """(vectors, slots per group) for store rows; None when they are too many at once, unless `whole`."""
        slots = self._cache.slots(groups)
        if slots is not None:
            return self._cache.vectors, slots
        if not whole:
            return None
        wanted = np.unique(np.concatenate(groups))
        wanted = wanted[wanted >= 0]
        vectors = np.empty((len(wanted), self.store.dimension), dtype=self.store.dtype)
        self.store.read_rows(wanted, np.arange(len(wanted)), vectors)
        return vectors, [np.where(rows >= 0, np.searchsorted(wanted, rows), -1) for rows in groups]


class ColumnMaker:
    """The UDFs and stores of a plan, ready to run in one worker.

    Attributes:
        profile: measures what is done.
    """

    def __init__(self, plan: EnrichPlan) -> None:
        self._plan = plan
        self.profile: NoProfile = NO_PROFILE
        share = plan.cache_bytes // max(1, len(plan.stores))
        self.stores = {pinned.definition.name: StoreReader(pinned, share) for pinned in plan.stores}
        self._udfs: dict[str, Udf] = {}
        for transform in plan.transforms:
            function: Any = transform.udf.function
            self._udfs[transform.name] = function() if isinstance(function, type) else function

    def columns(self, table: pa.Table, *, day: str, place: str) -> dict[str, pa.Array]:
        """The new columns for the rows of `table`, by name.

        Raises:
            ExecutionError: a UDF failed, or its answer is not what the contract says.
        """
        made: dict[str, pa.Array] = {}
        for name, reader in self.stores.items():
            with self.profile.shared(name, "find ids", len(table)):
                sources = [
                    self._source(transform, table.column(transform.source_id_column), reader)
                    for transform in self._plan.transforms
                    if transform.store_name == name
                ]
            parts = self._parts(reader, sources, (0, len(table)), day, place)
            for source, arrays in zip(sources, zip(*parts, strict=True), strict=True):
                made[source.transform.column] = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
        return made

    def _source(self, transform: Transform, column: pa.ChunkedArray, reader: StoreReader) -> _Source:
        ids = column.chunk(0) if column.num_chunks == 1 else _combined(column)
        if is_list(ids.type):
            lengths = pc.fill_null(pc.list_value_length(ids), 0).to_numpy(zero_copy_only=False)
            offsets = np.zeros(len(ids) + 1, dtype=np.int64)
            np.cumsum(lengths, out=offsets[1:])
            flat = ids.flatten()
        else:
            offsets = np.arange(len(ids) + 1, dtype=np.int64)
            flat = ids
        return _Source(transform=transform, ids=ids, offsets=offsets, rows=reader.store.find(flat))

    def _parts(
        self, reader: StoreReader, sources: list[_Source], rows: tuple[int, int], day: str, place: str
    ) -> list[list[pa.Array]]:
        """The columns of a range of rows, in as few parts as the vector cache allows."""
        start, stop = rows
        groups = [source.rows[source.offsets[start] : source.offsets[stop]] for source in sources]
        with self.profile.shared(reader.store.definition.name, "fetch vectors"):
            found = reader.vectors(groups, whole=stop - start <= 1)
        if found is None:
            middle = (start + stop) // 2
            return [
                *self._parts(reader, sources, (start, middle), day, place),
                *self._parts(reader, sources, (middle, stop), day, place),
            ]
        vectors, slots = found
        answers = []
        for source, some in zip(sources, slots, strict=True):
            batch = UdfBatch(
                ids=source.ids.slice(start, stop - start),
                offsets=source.offsets[start : stop + 1] - source.offsets[start],
                slots=some,
                vectors=vectors,
            )
            answers.append(self._call(source.transform, batch, day, place))
        return [answers]

    def _call(self, transform: Transform, batch: UdfBatch, day: str, place: str) -> pa.Array:
        try:
            with self.profile.shared(transform.name, "function", batch.rows):
                answer = self._udfs[transform.name](batch)
        except Exception as problem:
            where = f"{place}, UDF {transform.udf.name}"
            said = (
                str(problem) if isinstance(problem, DaedalusError) else f"{type(problem).__name__}: {problem}"
            )
            error = ExecutionError(said, where=where, day=day, operator=transform.name)
            error.add_note(traceback.format_exc())  # the cause does not survive the way back from a worker
            raise error from problem
        problem_text = _mismatch(transform, answer, batch.rows)
        if problem_text:
            raise ExecutionError(
                f"UDF {transform.udf.name} {problem_text}",
                where=place,
                hint="Correct the UDF, or the column's dtype and dimension in the service",
                day=day,
                operator=transform.name,
            )
        return answer if answer.type == transform.contract else answer.cast(transform.contract)


def _mismatch(transform: Transform, answer: Any, rows: int) -> str:
    """How a UDF's answer misses the contract; empty when it does not."""
    if not isinstance(answer, pa.Array):
        return f"returned a {type(answer).__name__}, not a pyarrow.Array"
    if len(answer) != rows:
        return f"returned {len(answer)} rows for {rows}"
    lists = pa.types.is_list(answer.type) or pa.types.is_fixed_size_list(answer.type)
    if not lists or answer.type.value_type != transform.contract.value_type:
        return f"returned {answer.type}, the contract says {from_arrow(transform.contract)}"
    lengths = pc.list_value_length(answer)
    wrong = pc.fill_null(pc.not_equal(lengths, transform.dimension), False)
    at = pc.index(wrong, True).as_py()
    if at >= 0:
        return (
            f"returned {lengths[at].as_py()} elements for row {at}, the contract says {transform.dimension}"
        )
    return ""


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
