"""Vectors of a store that were needed lately, in one buffer of bounded size.

Enrichment meets popular ids again and again; each is read from the store once while it stays in the cache.
What was not used for longest is overwritten first. What is cached never changes a value, only the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from daedalus.storage.embedding_kernels import collect_misses, compiled, slots_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_MUCH = 1 / 16


class VectorCache:
    """Up to `capacity` vectors of a store.

    Args:
        count: rows of the store.
        capacity: vectors held at most; the memory is taken as it fills.
        fetch: `fetch(rows, slots, vectors)` reads the store's `rows` (ascending) into `vectors[slots]`.
        fetch_all: `fetch_all(vectors)` reads the whole store, in row order; taken instead when the store fits
            and much of it is asked for at once.

    Attributes:
        vectors: (capacity, dimension); `slots` index its rows.
        fetched: vectors read from the store so far.
    """

    def __init__(
        self,
        *,
        count: int,
        capacity: int,
        dimension: int,
        dtype: Any,
        fetch: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[Any]], None],
        fetch_all: Callable[[NDArray[Any]], None],
    ) -> None:
        capacity = max(1, min(capacity, count))
        self.vectors: NDArray[Any] = np.empty((capacity, dimension), dtype=dtype)
        self.fetched = 0
        self._fetch = fetch
        self._fetch_all = fetch_all
        self._slot_of = np.full(max(1, count), -1, dtype=np.int32)
        self._row_of = np.full(capacity, -1, dtype=np.int64)
        self._last_used = np.zeros(capacity, dtype=np.int64)
        self._tick = 0

    def slots(self, groups: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]] | None:
        """Where the vectors of store rows are, after reading those not held; -1 stays -1.

        Returns: one array per group, valid until the next call; None when the groups together need more
            vectors than the cache holds, and then nothing was read.
        """
        self._tick += 1
        misses = np.empty(sum(len(rows) for rows in groups), dtype=np.int64)
        missing = present = 0
        for rows in groups:
            found, used = compiled(collect_misses)(
                rows, self._slot_of, self._last_used, self._tick, misses[missing:]
            )
            missing += found
            present += used
        misses = np.sort(misses[:missing])
        if missing + present > len(self.vectors):
            self._slot_of[misses] = -1
            return None
        whole = len(self.vectors) == len(self._slot_of)
        if whole and missing > _MUCH * len(self._slot_of):
            self._read_all()
        elif missing:
            self._read(misses)
        answers = []
        for rows in groups:
            out = np.empty(len(rows), dtype=np.int64)
            compiled(slots_of_rows)(rows, self._slot_of, out)
            answers.append(out)
        return answers

    def _read_all(self) -> None:
        everything = np.arange(len(self._slot_of))
        self._slot_of[:] = -1
        self._row_of[:] = -1
        self._fetch_all(self.vectors)
        self._slot_of[:] = everything
        self._row_of[:] = everything
        self._last_used[:] = self._tick
        self.fetched += len(everything)

    def _read(self, rows: NDArray[np.int64]) -> None:
        oldest = np.argpartition(self._last_used, len(rows) - 1)[: len(rows)].astype(np.int64)
        slots = np.sort(oldest)
        replaced = self._row_of[slots]
        self._slot_of[replaced[replaced >= 0]] = -1
        self._row_of[slots] = -1
        try:
            self._fetch(rows, slots, self.vectors)
        except BaseException:
            self._slot_of[rows] = -1
            raise
        self._row_of[slots] = rows
        self._slot_of[rows] = slots
        self._last_used[slots] = self._tick
        self.fetched += len(rows)
