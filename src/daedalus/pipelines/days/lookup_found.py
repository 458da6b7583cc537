"""What a lookup finds for the rows of a day: the place of a version per row, and the values there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.lookup_kernels import (
    best_so_far,
    find_newest,
    find_versions,
    newest_of_codes,
    starts_of,
)
from daedalus.pipelines.days.lookup_versions import VersionReader, numbered_sessions
from daedalus.pipelines.operators import Join
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.storage.embedding_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.pipelines.days.lookup_held import MemoryShare
    from daedalus.pipelines.days.lookup_keys import KeyedRows, Keys
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.days.relations import DayRelations


class FoundVersions:
    """One lookup, ready to be searched.

    Args:
        lookup: what to look up.
        keys: the numbers of the keys that rows may have.
        between: the first and the last of the rows' times, in ticks.
        relations: reads the versions.
        memory: what they take is taken from it.

    Attributes:
        keys: the rows' columns that it looks up by.
        known: the numbers of these keys.
        width: bytes that a row's values take, more or less.
        read_types: DuckDB's, of the columns that other operators read.
        absent: of these, what the source lacks.
    """

    def __init__(
        self,
        lookup: Lookup,
        keys: Keys,
        between: tuple[int, int],
        relations: DayRelations,
        memory: MemoryShare,
    ) -> None:
        self.name = lookup.operator.name
        self.keys, self.known = lookup.keys, keys
        if is_run_relation(lookup.scan.source_ref):
            versions = numbered_sessions(lookup, keys, relations, memory)
            self.read_types, self.absent = dict.fromkeys(lookup.read, "BIGINT"), frozenset[str]()
        else:
            reader = VersionReader(lookup, keys, between, relations, memory)
            versions = reader.read()
            self.read_types, self.absent = reader.read_types, reader.absent
        self._read = lookup.read
        self._versions = versions
        self._newest = isinstance(lookup.operator, Join)
        count = len(versions.codes)
        self._starts = np.empty(keys.distinct.num_rows + 1, np.int64)
        self._best = np.empty(count, np.int64)
        compiled(starts_of)(versions.codes, self._starts)
        compiled(best_so_far)(versions.codes, versions.ticks, versions.ranks, self._best)
        if self._newest:
            of_codes = np.empty(keys.distinct.num_rows, np.int64)
            compiled(newest_of_codes)(self._starts, self._best, of_codes)
            self._best = of_codes
        ttl = lookup.operator.ttl_seconds
        self._alive = -1 if ttl is None else relations.context.tick.of(ttl)
        self.width = versions.values.nbytes / (count + 1)

    def values(self, keyed: KeyedRows, places: slice | NDArray[np.int64]) -> dict[str, pa.ChunkedArray]:
        """The output's looked-up columns of the rows at these places, by the names that the join gives them."""
        names = [name for name in self._versions.values.column_names if name not in self._read]
        return self._taken(keyed, places, names)

    def read_values(self, keyed: KeyedRows) -> dict[str, pa.ChunkedArray]:
        """Of all these rows the columns that other operators read."""
        return self._taken(keyed, slice(0, len(keyed.rows)), self._read)

    def _taken(
        self, keyed: KeyedRows, places: slice | NDArray[np.int64], names: Sequence[str]
    ) -> dict[str, pa.ChunkedArray]:
        if not names:
            return {}
        found = self._found(keyed.codes(self.keys)[places], keyed.times[places])
        taken = self._versions.values.select(list(names)).take(pa.array(found))
        return dict(zip(taken.column_names, taken.columns, strict=True))

    def _found(self, codes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each row's version; the last for none."""
        ticks = self._versions.ticks
        found = np.empty(len(codes), np.int64)
        if self._newest:
            compiled(find_newest)(codes, times, self._best, ticks, self._alive, found)
        else:
            available = self._versions.available
            compiled(find_versions)(
                codes, times, self._starts, available, self._best, ticks, self._alive, found
            )
        return cast("NDArray[np.int64]", found)
