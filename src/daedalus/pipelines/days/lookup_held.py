"""Versions that some row may find, held while a view is read."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from daedalus.pipelines.days.lookup_kernels import may_be_found, order_by_code
from daedalus.storage.embedding_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Fewer held versions are not worth sifting again.
_SIFTED = 500_000
_EARLIEST = np.iinfo(np.int64).min


class TooManyVersionsError(Exception):
    """The versions that a day can find do not fit into the memory that it may use."""


class MemoryShare:
    """Bytes that the lookups of a day may take together, whichever threads read them.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()

    def use(self, name: str, size: int) -> None:
        """`name` takes so many bytes by now.

        Raises:
            TooManyVersionsError: all together take more than there is.
        """
        with self._lock:
            self._used[name] = size
            if sum(self._used.values()) > self._total:
                raise TooManyVersionsError


@dataclass(frozen=True, slots=True)
class Part:
    """Versions in the order in which they were read.

    Attributes:
        codes: the number of each version's key; negative where no row finds it.
        ticks: its own time.
        available: the instant before which no row finds it.
        values: what it gives to a row.
    """

    codes: NDArray[np.int64]
    ticks: NDArray[np.int64]
    available: NDArray[np.int64]
    values: pa.RecordBatch

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.values.nbytes) + 24 * len(self.codes)

    def filtered(self, wanted: NDArray[np.bool_]) -> Part:
        """Those of the versions."""
        return Part(
            self.codes[wanted],
            self.ticks[wanted],
            self.available[wanted],
            self.values.filter(pa.array(wanted)),
        )


class HeldVersions:
    """The versions of one view that a row may find, as far as is known.

    Args:
        name: of the lookup.
        keys: how many keys there are.
        between: the first and the last row's time.
        memory: what they take is taken from it.
    """

    def __init__(self, name: str, keys: int, between: tuple[int, int], memory: MemoryShare) -> None:
        self._name = name
        self._low, self._high = between
        self._memory = memory
        self._newest: NDArray[np.int64] = np.full(keys, _EARLIEST, np.int64)
        self._parts: list[Part] = []
        self._rows = 0
        self._limit = _SIFTED

    def unseen(self) -> NDArray[np.bool_]:
        """Whether each key has no version yet from before the first row."""
        unseen: NDArray[np.bool_] = self._newest == _EARLIEST
        return unseen

    def add(self, part: Part) -> None:
        """Hold what a row may find of these.

        Raises:
            TooManyVersionsError: there is no memory for them.
        """
        self._hold(part)
        if self._rows > self._limit:
            self._sift()
            self._limit = max(_SIFTED, 2 * self._rows)

    def finished(self) -> tuple[list[Part], NDArray[np.int64]]:
        """The parts, and the places in them of what rows may find: by key and time of availability."""
        parts = self._parts
        for part in parts:  # once more: by now the newest of each key is known
            self._mark(part)
        self._memory.use(self._name, sum(part.size for part in parts))
        none = np.zeros(0, np.int64)
        codes = np.concatenate([none, *(part.codes for part in parts)])
        available = np.concatenate([none, *(part.available for part in parts)])
        return parts, ordered(codes, available, len(self._newest))

    def _hold(self, part: Part) -> None:
        found = self._mark(part)
        if not found:
            return
        # Rows that nobody finds are dropped at once where that is most of them, else when it is worth it.
        held = part.filtered(part.codes >= 0) if 2 * found < len(part.codes) else part
        self._parts.append(held)
        self._rows += len(held.codes)

    def _mark(self, part: Part) -> int:
        return int(
            compiled(may_be_found)(
                part.codes, part.ticks, part.available, self._low, self._high, self._newest
            )
        )

    def _sift(self) -> None:
        parts, self._parts, self._rows = self._parts, [], 0
        for part in parts:
            self._hold(part)
        self._memory.use(self._name, sum(part.size for part in self._parts))


def ordered(codes: NDArray[np.int64], available: NDArray[np.int64], keys: int) -> NDArray[np.int64]:
    """The places of codes that are not negative, by code and time."""
    order: NDArray[np.int64] = np.empty(np.count_nonzero(codes >= 0), np.int64)
    if compiled(order_by_code)(codes, available, np.zeros(keys + 1, np.int64), order):
        return order
    order = np.flatnonzero(codes >= 0)
    return order[np.lexsort((available[order], codes[order]))]
